package webhook_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

var update = flag.Bool("update", false, "write the golden files anew")

type recorded struct {
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func recordedDeliveries(t testing.TB) []recorded {
	t.Helper()
	file, err := os.Open("testdata/real/keycloak-26.7.3/deliveries.jsonl")
	require.NoError(t, err)
	defer file.Close()
	var all []recorded
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r recorded
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		all = append(all, r)
	}
	require.NoError(t, lines.Err())
	require.Len(t, all, 47)
	return all
}

func pulled(t testing.TB, path string) []json.RawMessage {
	t.Helper()
	body, err := os.ReadFile(path)
	require.NoError(t, err)
	var all []json.RawMessage
	require.NoError(t, json.Unmarshal(body, &all))
	require.NotEmpty(t, all)
	return all
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata/samples", name))
	require.NoError(t, err)
	return body
}

// one decodes a body that holds one event.
func one(t testing.TB, body []byte) webhook.Delivery {
	t.Helper()
	batch, err := webhook.Decode(body, webhook.DialectAuto)
	require.NoError(t, err)
	require.Len(t, batch, 1)
	require.Equal(t, body, []byte(batch[0].Raw))
	return batch[0]
}

func golden(t *testing.T, name string, got any) {
	t.Helper()
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	require.NoError(t, encoder.Encode(got))
	path := filepath.Join("testdata/golden", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, buf.Bytes(), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), buf.String(), path)
}

// decoded is a delivery without its bytes, which the tests compare apart.
type decoded struct {
	Kind    webhook.Kind
	Dialect string
	ID      string
	Admin   *keycloak.AdminEvent `json:",omitempty"`
	User    *keycloak.UserEvent  `json:",omitempty"`
}

func decodedOf(d webhook.Delivery) decoded {
	return decoded{d.Kind, d.Dialect, d.KeycloakEventID(), d.Admin, d.User}
}

func TestDecodeSamples(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/samples/*.json")
	require.NoError(t, err)
	require.Len(t, paths, 14)
	for _, path := range paths {
		name := filepath.Base(path)
		golden(t, name, decodedOf(one(t, sample(t, name))))
	}
}

func TestDecodeRecordedDeliveries(t *testing.T) {
	t.Parallel()
	var all []decoded
	for _, r := range recordedDeliveries(t) {
		d := one(t, []byte(r.Body))
		require.Equal(t, webhook.DialectP2, d.Dialect)
		require.NotEqual(t, webhook.KindUnrecognized, d.Kind)
		require.NotEmpty(t, d.KeycloakEventID())
		all = append(all, decodedOf(d))
	}
	golden(t, "keycloak-26.7.3-deliveries.json", all)
}

func TestDecodePulledFromOlderKeycloak(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	var all []decoded
	for _, raw := range pulled(t, "testdata/real/keycloak-26.1.4/admin-events.json") {
		d, err := webhook.DecodeAdminEvent(raw)
		require.NoError(t, err)
		require.Empty(t, d.KeycloakEventID())
		require.False(t, seen[d.Fingerprint()])
		seen[d.Fingerprint()] = true
		all = append(all, decodedOf(d))
	}
	golden(t, "keycloak-26.1.4-admin-events.json", all)
}

func TestRecordedSignaturesVerify(t *testing.T) {
	t.Parallel()
	for _, r := range recordedDeliveries(t) {
		signature, body := r.Headers[webhook.SignatureHeader], []byte(r.Body)
		require.True(t, webhook.VerifyHMAC(signature, body, []string{"whsec-dev"}, webhook.HMACSHA256))
		require.Equal(t, signature, webhook.Sign(body, "whsec-dev", webhook.HMACSHA256))
		require.False(t, webhook.VerifyHMAC(signature, append(body, ' '), []string{"whsec-dev"}, webhook.HMACSHA256))
		require.False(t, webhook.VerifyHMAC(signature, body, []string{"whsec-de"}, webhook.HMACSHA256))
	}
}

func TestVerifyHMAC(t *testing.T) {
	t.Parallel()
	body := []byte(`{"type":"access.LOGIN"}`)
	newer := webhook.Sign(body, "new", webhook.HMACSHA256)
	older := webhook.Sign(body, "old", webhook.HMACSHA256)
	sha1 := webhook.Sign(body, "new", webhook.HMACSHA1)
	require.Len(t, newer, 64)
	require.Len(t, sha1, 40)
	rotation := []string{"new", "old"}
	for name, c := range map[string]struct {
		header    string
		secrets   []string
		algorithm webhook.Algorithm
		want      bool
	}{
		"bare hex":                    {newer, rotation, webhook.HMACSHA256, true},
		"old secret during rotation":  {older, rotation, webhook.HMACSHA256, true},
		"old secret after rotation":   {older, []string{"new"}, webhook.HMACSHA256, false},
		"upper case":                  {strings.ToUpper(newer), rotation, webhook.HMACSHA256, true},
		"prefix":                      {"sha256=" + newer, rotation, webhook.HMACSHA256, true},
		"list, second fits":           {"sha256=" + strings.Repeat("0", 64) + ", sha256=" + older, rotation, webhook.HMACSHA256, true},
		"sha1":                        {sha1, rotation, webhook.HMACSHA1, true},
		"sha1 where sha256 is asked":  {sha1, rotation, webhook.HMACSHA256, false},
		"sha256 where sha1 is asked":  {newer, rotation, webhook.HMACSHA1, false},
		"monte97 writes sha256= sha1": {"sha256=" + sha1, rotation, webhook.HMACSHA1, true},
		"empty header":                {"", rotation, webhook.HMACSHA256, false},
		"prefix only":                 {"sha256=", rotation, webhook.HMACSHA256, false},
		"commas only":                 {",,,", rotation, webhook.HMACSHA256, false},
		"cut short":                   {newer[:62], rotation, webhook.HMACSHA256, false},
		"not hex":                     {strings.Repeat("z", 64), rotation, webhook.HMACSHA256, false},
		"no secret":                   {newer, nil, webhook.HMACSHA256, false},
		"empty secret":                {webhook.Sign(body, "", webhook.HMACSHA256), []string{""}, webhook.HMACSHA256, false},
		"unknown algorithm":           {newer, rotation, "hmac-md5", false},
		"too many signatures":         {strings.Repeat(older+",", 8) + newer, []string{"new"}, webhook.HMACSHA256, false},
	} {
		require.Equal(t, c.want, webhook.VerifyHMAC(c.header, body, c.secrets, c.algorithm), name)
	}
}

// Push and pull of one event are the same delivery, and agree in every field that
// both carry.
func TestPushAndPullAreOneEvent(t *testing.T) {
	t.Parallel()
	pushed := map[string]webhook.Delivery{}
	for _, r := range recordedDeliveries(t) {
		d := one(t, []byte(r.Body))
		pushed[d.KeycloakEventID()] = d
	}
	require.Len(t, pushed, 47)

	merged := 0
	for _, raw := range pulled(t, "testdata/real/keycloak-26.7.3/admin-events.json") {
		pull, err := webhook.DecodeAdminEvent(raw)
		require.NoError(t, err)
		push, ok := pushed[pull.KeycloakEventID()]
		require.True(t, ok, "%s was never pushed", pull.KeycloakEventID())
		require.Equal(t, pull.Fingerprint(), push.Fingerprint())
		merged++

		// Only the push has these; what is left must be equal.
		want, got := *pull.Admin, *push.Admin
		got.UID, got.RealmName, got.ResourceID = "", "", ""
		got.Auth.Username, got.Auth.SessionID = "", ""
		want.Auth.RealmID, got.Auth.RealmName = "", ""
		want.Details, got.Details = nil, nil
		require.Equal(t, want, got)
		for key, value := range pull.Admin.Details {
			require.Equal(t, value, push.Admin.Details[key])
		}
	}
	for _, raw := range pulled(t, "testdata/real/keycloak-26.7.3/events.json") {
		pull, err := webhook.DecodeUserEvent(raw)
		require.NoError(t, err)
		push, ok := pushed[pull.KeycloakEventID()]
		if !ok {
			// The first token of the service account, before the webhook existed.
			require.Equal(t, "CLIENT_LOGIN", pull.User.Type)
			continue
		}
		require.Equal(t, pull.Fingerprint(), push.Fingerprint())
		merged++

		want, got := *pull.User, *push.User
		got.UID, got.RealmName, got.ActorRealmName, got.Username, got.SessionID = "", "", "", "", ""
		want.SessionID = ""
		require.Equal(t, want, got)
	}
	require.Equal(t, 41, merged)
}

func TestFingerprintTellsEventsApart(t *testing.T) {
	t.Parallel()
	const base = `{"time":1,"realmId":"r","operationType":"CREATE","resourceType":"USER","resourcePath":"users/1",` +
		`"authDetails":{"userId":"u","clientId":"c","ipAddress":"i"}`
	fingerprints := map[string]string{}
	for _, rest := range []string{`}`, `,"representation":""}`, `,"representation":"{}"}`, `,"error":"{}"}`, `,"resourcePath":"users/2"}`, `,"time":2}`} {
		d := one(t, []byte(base+rest))
		require.Equal(t, webhook.KindAdmin, d.Kind)
		require.Empty(t, fingerprints[d.Fingerprint()], rest)
		fingerprints[d.Fingerprint()] = rest
	}
	// The sender's uid is not the event's: two webhooks give two.
	require.Equal(t, one(t, []byte(base+`}`)).Fingerprint(), one(t, []byte(base+`,"uid":"x"}`)).Fingerprint())
	require.NotEqual(t, one(t, []byte(`{"a":1}`)).Fingerprint(), one(t, []byte(`{"a":2}`)).Fingerprint())
}

func TestKeycloakEventID(t *testing.T) {
	t.Parallel()
	require.Equal(t, "i", one(t, []byte(`{"type":"access.LOGIN","time":1,"id":"i","uid":"u"}`)).KeycloakEventID())
	require.Equal(t, "u", one(t, []byte(`{"type":"access.LOGIN","time":1,"uid":"u"}`)).KeycloakEventID())
	require.Empty(t, one(t, []byte(`{"type":"access.LOGIN","time":1}`)).KeycloakEventID())
	require.Empty(t, one(t, []byte(`{"id":"somebody else's"}`)).KeycloakEventID())
}

func TestDecodeRecognises(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		kind    webhook.Kind
		dialect string
	}{
		`{"type":"admin.USER-CREATE","time":1}`:                                          {webhook.KindAdmin, webhook.DialectP2},
		`{"type":"admin.NEW_THING-MELT","time":1}`:                                       {webhook.KindAdmin, webhook.DialectP2},
		`{"type":"access.NEW_TYPE","time":1}`:                                            {webhook.KindUser, webhook.DialectP2},
		`{"type":"system.STARTUP","time":1}`:                                             {webhook.KindUnrecognized, webhook.DialectP2},
		`{"type":"myapp.INVOICE","time":1}`:                                              {webhook.KindUnrecognized, ""},
		`{"type":"access.","time":1}`:                                                    {webhook.KindUnrecognized, ""},
		`{"type":"access.LOGIN","occurredAt":"2026-04-14T12:00:00Z"}`:                    {webhook.KindUnrecognized, ""},
		`{"type":"LOGIN","time":1,"realmId":"r"}`:                                        {webhook.KindUser, webhook.DialectKeycloak},
		`{"type":"NEW_TYPE_2","time":1,"realmName":"r"}`:                                 {webhook.KindUser, webhook.DialectKeycloak},
		`{"type":"LOGIN","time":1}`:                                                      {webhook.KindUnrecognized, ""},
		`{"type":"USER-CREATE","time":1,"realmId":"r"}`:                                  {webhook.KindUnrecognized, ""},
		`{"operationType":"MELT","resourceType":"NEW","time":1}`:                         {webhook.KindAdmin, webhook.DialectKeycloak},
		`{"type":null,"operationType":"CREATE","resourceTypeAsString":"X","time":1}`:     {webhook.KindAdmin, webhook.DialectKeycloak},
		`{"operationType":"CREATE","resourceType":"USER"}`:                               {webhook.KindUnrecognized, ""},
		`{"type":"LOGIN","operationType":"X","resourceType":"Y","time":1,"realmId":"r"}`: {webhook.KindUnrecognized, ""},
		`{}`:                                {webhook.KindUnrecognized, ""},
		`{"TYPE":"access.LOGIN","time":1}`:  {webhook.KindUnrecognized, ""},
		`{"type":{"a":1},"time":1}`:         {webhook.KindUnrecognized, ""},
		`{"type":"admin.USER","time":null}`: {webhook.KindUnrecognized, ""},
	} {
		d := one(t, []byte(body))
		require.Equal(t, want.kind, d.Kind, body)
		require.Equal(t, want.dialect, d.Dialect, body)
		require.Equal(t, want.kind == webhook.KindAdmin, d.Admin != nil, body)
		require.Equal(t, want.kind == webhook.KindUser, d.User != nil, body)
	}
}

func TestDecodeKeepsToTheNamedDialect(t *testing.T) {
	t.Parallel()
	p2, plain := sample(t, "03-p2-admin-user-create.json"), sample(t, "11-kc-adminevent-user-update.json")
	for _, c := range []struct {
		body    []byte
		dialect string
		want    webhook.Kind
	}{
		{p2, webhook.DialectP2, webhook.KindAdmin},
		{p2, webhook.DialectKeycloak, webhook.KindUnrecognized},
		{plain, webhook.DialectKeycloak, webhook.KindAdmin},
		{plain, webhook.DialectP2, webhook.KindUnrecognized},
	} {
		batch, err := webhook.Decode(c.body, c.dialect)
		require.NoError(t, err)
		require.Equal(t, c.want, batch[0].Kind)
	}
	_, err := webhook.Decode(p2, "p3")
	require.ErrorIs(t, err, webhook.ErrUnknownDialect)
	_, err = webhook.Decode(p2, "")
	require.ErrorIs(t, err, webhook.ErrUnknownDialect)
}

func TestDecodeBatch(t *testing.T) {
	t.Parallel()
	batch, err := webhook.Decode([]byte(`{"events": [ {"type":"access.LOGIN", "time":1} , 7, null,
		{"operationType":"CREATE","resourceType":"USER","time":"2"}, {"x":1}, []]}`), webhook.DialectAuto)
	require.NoError(t, err)
	require.Len(t, batch, 6)
	kinds := make([]webhook.Kind, 0, len(batch))
	for _, d := range batch {
		kinds = append(kinds, d.Kind)
	}
	require.Equal(t, []webhook.Kind{
		webhook.KindUser, webhook.KindUnrecognized, webhook.KindUnrecognized,
		webhook.KindAdmin, webhook.KindUnrecognized, webhook.KindUnrecognized,
	}, kinds)
	require.Equal(t, `{"type":"access.LOGIN", "time":1}`, string(batch[0].Raw))
	require.Equal(t, `7`, string(batch[1].Raw))

	batch, err = webhook.Decode([]byte(`{"events":[]}`), webhook.DialectAuto)
	require.NoError(t, err)
	require.Empty(t, batch)
	require.Equal(t, webhook.KindUser, one(t, []byte(`{"type":"access.LOGIN","time":1,"events":[]}`)).Kind)
	require.Equal(t, webhook.KindUnrecognized, one(t, []byte(`{"events":{"a":1}}`)).Kind)
}

// One body of 1 MiB may not become 165,000 streams in one transaction.
func TestDecodeBoundsABatch(t *testing.T) {
	t.Parallel()
	body := func(n int) []byte { return []byte(`{"events":[` + strings.Repeat("1,", n-1) + `1]}`) }
	batch, err := webhook.Decode(body(webhook.MaxBatch), webhook.DialectAuto)
	require.NoError(t, err)
	require.Len(t, batch, webhook.MaxBatch)
	_, err = webhook.Decode(body(webhook.MaxBatch+1), webhook.DialectAuto)
	require.ErrorIs(t, err, webhook.ErrTooManyEvents)
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]error{
		``:                           webhook.ErrNotJSON,
		`hello`:                      webhook.ErrNotJSON,
		`{"a":1`:                     webhook.ErrNotJSON,
		`{"a":1}{"b":2}`:             webhook.ErrNotJSON,
		`{'a':1}`:                    webhook.ErrNotJSON,
		"\xff\xfe{}":                 webhook.ErrNotJSON,
		`[]`:                         webhook.ErrNotObject,
		`null`:                       webhook.ErrNotObject,
		`"text"`:                     webhook.ErrNotObject,
		`1e400`:                      webhook.ErrNotObject,
		deep(webhook.MaxDepth + 1):   webhook.ErrTooDeep,
		deep(1_000_000):              webhook.ErrTooDeep,
		strings.Repeat(`[`, 200_000): webhook.ErrTooDeep,
	} {
		_, err := webhook.Decode([]byte(body), webhook.DialectAuto)
		require.ErrorIs(t, err, want)
		_, err = webhook.DecodeAdminEvent([]byte(body))
		require.ErrorIs(t, err, want)
		_, err = webhook.DecodeUserEvent([]byte(body))
		require.ErrorIs(t, err, want)
	}
	one(t, []byte(deep(webhook.MaxDepth)))
	// Brackets in strings do not nest, whatever is escaped before them.
	one(t, []byte(`{"a":"`+strings.Repeat(`[{\"\\`, 1000)+`"}`))
}

// deep nests n objects.
func deep(n int) string {
	return strings.Repeat(`{"a":`, n) + `1` + strings.Repeat(`}`, n)
}

func TestDecodeOddValues(t *testing.T) {
	t.Parallel()
	millis := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	for literal, want := range map[string]time.Time{
		`1795413925851`:              millis(1795413925851),
		`"1795413925851"`:            millis(1795413925851),
		`1795413925851.0`:            millis(1795413925851),
		`1.795413925851e12`:          millis(1795413925851),
		`"2026-04-14T12:00:00.123Z"`: time.Date(2026, 4, 14, 12, 0, 0, 123e6, time.UTC),
		`253402300799999`:            millis(253402300799999),
		`253402300800000`:            {},
		`9223372036854775808`:        {},
		`1e400`:                      {},
		`-5`:                         {},
		`0`:                          {},
		`""`:                         {},
		`"NaN"`:                      {},
		`"soon"`:                     {},
		`true`:                       {},
		`{}`:                         {},
	} {
		d := one(t, []byte(`{"type":"access.LOGIN","time":`+literal+`}`))
		require.Equal(t, want, d.User.Time, literal)
		_, err := json.Marshal(d.User.Time)
		require.NoError(t, err)
	}

	d := one(t, []byte(`{"type":"admin.USER-UPDATE","time":1,"time":2,"id":7,"resourcePath":null,"operationType":null,
		"authDetails":"nobody","details":{"a":1,"b":null,"c":["x"],"d":"y"},"realmId":null,"realmName":null}`))
	require.Equal(t, &keycloak.AdminEvent{
		ID: "7", Time: millis(2), ResourceType: "USER", OperationType: "UPDATE",
		Details: map[string]string{"a": "1", "b": "", "c": `["x"]`, "d": "y"},
	}, d.Admin)

	d = one(t, []byte("{\"type\":\"access.LOGIN\",\"time\":1,\"error\":\"a\xffb\",\"details\":[1]}"))
	require.Equal(t, "a\uFFFDb", d.User.Error)
	require.Nil(t, d.User.Details)
}

func TestDecodeRepresentation(t *testing.T) {
	t.Parallel()
	for literal, want := range map[string]string{
		`"{\"username\":\"b\"}"`: `{"username":"b"}`,
		`"not JSON"`:             `not JSON`,
		`""`:                     ``,
		`{"username": "b"}`:      `{"username": "b"}`,
		`[1, 2]`:                 `[1, 2]`,
		`17`:                     `17`,
	} {
		d := one(t, []byte(`{"operationType":"UPDATE","resourceType":"USER","time":1,"representation":`+literal+`}`))
		require.True(t, d.Admin.HasRepresentation, literal)
		require.Equal(t, want, d.Admin.Representation)
	}
	for _, rest := range []string{``, `,"representation":null`} {
		d := one(t, []byte(`{"operationType":"UPDATE","resourceType":"USER","time":1`+rest+`}`))
		require.False(t, d.Admin.HasRepresentation)
	}
}

func TestDecodeRealm(t *testing.T) {
	t.Parallel()
	const id = "be4c761c-6cac-427b-bcdb-6cb733831e2a"
	for _, c := range []struct{ body, id, name string }{
		{`{"type":"admin.USER-UPDATE","time":1,"realmId":"acme"}`, "", "acme"},
		{`{"type":"admin.USER-UPDATE","time":1,"realmId":"` + id + `"}`, id, ""},
		{`{"type":"admin.USER-UPDATE","time":1,"realmId":"` + id + `","realmName":"acme"}`, id, "acme"},
		// A realm may be imported with an id that is no UUID.
		{`{"type":"admin.USER-UPDATE","time":1,"realmId":"acme-1","realmName":"acme"}`, "acme-1", "acme"},
		{`{"operationType":"UPDATE","resourceType":"USER","time":1,"realmId":"acme-1"}`, "acme-1", ""},
	} {
		d := one(t, []byte(c.body))
		require.Equal(t, []string{c.id, c.name}, []string{d.Admin.RealmID, d.Admin.RealmName}, c.body)
	}
}

func TestDecodeDoesNotAliasTheBody(t *testing.T) {
	t.Parallel()
	body := []byte(`{"type":"access.LOGIN","time":1,"id":"abc"}`)
	batch, err := webhook.Decode(body, webhook.DialectAuto)
	require.NoError(t, err)
	want := string(batch[0].Raw)
	clear(body)
	require.Equal(t, want, string(batch[0].Raw))
	require.Equal(t, "abc", batch[0].User.ID)
}

func FuzzDecode(f *testing.F) {
	paths, err := filepath.Glob("testdata/samples/*.json")
	require.NoError(f, err)
	for _, path := range paths {
		f.Add(sample(f, filepath.Base(path)))
	}
	for _, r := range recordedDeliveries(f)[:12] {
		f.Add([]byte(r.Body))
	}
	f.Add([]byte(`{"events":[{"type":"access.LOGIN","time":1e999},null]}`))
	f.Add([]byte("{\"type\":\"admin.\xff-\",\"time\":\"1\",\"time\":null,\"details\":{\"\":null}}"))
	f.Add([]byte(deep(120)))
	f.Fuzz(func(t *testing.T, body []byte) {
		batch, err := webhook.Decode(body, webhook.DialectAuto)
		if err != nil {
			known := errors.Is(err, webhook.ErrNotJSON) || errors.Is(err, webhook.ErrNotObject) || errors.Is(err, webhook.ErrTooDeep)
			require.True(t, known, "unknown error %v", err)
			return
		}
		require.True(t, json.Valid(body), "accepted what is not JSON")
		for _, d := range batch {
			require.Contains(t, string(body), string(d.Raw))
			require.Equal(t, d.Kind == webhook.KindAdmin, d.Admin != nil)
			require.Equal(t, d.Kind == webhook.KindUser, d.User != nil)
			require.Len(t, d.Fingerprint(), 64)
			encoded, err := json.Marshal(decodedOf(d))
			require.NoError(t, err)
			// The bytes are enough to come to the same result again.
			if d.Kind != webhook.KindUnrecognized {
				again := one(t, d.Raw)
				reencoded, err := json.Marshal(decodedOf(again))
				require.NoError(t, err)
				require.JSONEq(t, string(encoded), string(reencoded))
				require.Equal(t, d.Fingerprint(), again.Fingerprint())
			}
		}
	})
}
