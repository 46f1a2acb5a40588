package inbound_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bundle struct {
	t        *testing.T
	store    *sqlite.Store
	codec    *adapter.Codec
	recorder *inbound.Recorder
}

func setup(t *testing.T) *bundle {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	codec := adapter.NewCodec(seal.Plain{})
	return &bundle{t: t, store: store, codec: codec, recorder: &inbound.Recorder{Store: store, Codec: codec, Clock: time.Now}}
}

func (b *bundle) received() []adapter.Decoded {
	b.t.Helper()
	var events []adapter.Decoded
	for e, err := range b.store.ReadLog(b.t.Context(), eventstore.LogQuery{Types: []string{
		adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived, adapter.TypeUnrecognizedEventReceived,
	}}) {
		require.NoError(b.t, err)
		d, err := b.codec.Decode(b.t.Context(), e)
		require.NoError(b.t, err)
		events = append(events, d)
	}
	return events
}

func decode(t *testing.T, body string) []webhook.Delivery {
	t.Helper()
	batch, err := webhook.Decode([]byte(body), webhook.DialectAuto)
	require.NoError(t, err)
	return batch
}

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// pushed is an admin event as p2 pushes it.
func pushed(id string, at time.Time) string {
	return fmt.Sprintf(`{"id":%q,"time":%d,"realmId":"be4c761c-6cac-427b-bcdb-6cb733831e2a","realmName":"acme","operationType":"CREATE",`+
		`"resourcePath":"users/%s","representation":"{\"username\":\"bob\"}","uid":"u-%s",`+
		`"authDetails":{"realmId":"master","clientId":"c1","userId":"a1","ipAddress":"127.0.0.1","username":"admin"},`+
		`"details":{"userId":"1","username":"bob"},"type":"admin.USER-CREATE","resourceType":"USER"}`, id, at.UnixMilli(), id, id)
}

func TestADeliveryIsRecordedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	from := inbound.Origin{Source: "keycloak"}
	first, err := b.recorder.Record(t.Context(), from, decode(t, pushed("e1", start)))
	require.NoError(t, err)
	require.False(t, first[0].Duplicate)
	require.Equal(t, "e1", first[0].KeycloakEventID)

	again, err := b.recorder.Record(t.Context(), from, decode(t, pushed("e1", start)))
	require.NoError(t, err)
	want := first[0]
	want.Duplicate = true
	require.Equal(t, want, again[0], "a duplicate has the ids of the first")

	batch, err := b.recorder.Record(t.Context(), from, decode(t, `{"events":[`+pushed("e2", start)+`,`+pushed("e1", start)+`,`+pushed("e2", start)+`]}`))
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, true}, []bool{batch[0].Duplicate, batch[1].Duplicate, batch[2].Duplicate})
	require.Equal(t, batch[0].EventID, batch[2].EventID)
	require.Len(t, b.received(), 2)

	d := b.received()[0]
	require.Equal(t, adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "a1", Username: "admin", Client: "c1", IP: "127.0.0.1"}, *d.Meta.Actor)
	require.Equal(t, start, d.OccurredAt.UTC())
	body, err := b.store.RawBody(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, pushed("e1", start), string(body.Bytes), "the body is kept word for word")
}

// Many senders at once, as after a pause: each event is one delivery, and everybody is
// told the same ids.
func TestRacingSendersAgree(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	seen := map[string]map[uuid.UUID]bool{}
	accepted := map[string]int{}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("e%d", i)
				receipts, err := b.recorder.Record(context.WithoutCancel(t.Context()), inbound.Origin{Source: "keycloak"}, decode(t, pushed(id, start)))
				mu.Lock()
				if err != nil {
					t.Errorf("recording %s: %v", id, err)
				} else {
					if seen[id] == nil {
						seen[id] = map[uuid.UUID]bool{}
					}
					seen[id][receipts[0].EventID] = true
					if !receipts[0].Duplicate {
						accepted[id]++
					}
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	require.Len(t, b.received(), 20)
	for id, ids := range seen {
		require.Len(t, ids, 1, "event %s", id)
		require.Equal(t, 1, accepted[id], "event %s", id)
	}
}

func TestNothingIsRefusedForItsContent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, body := range []string{
		`{}`,
		`{"hello":"world"}`,
		`{"type":"admin.USER-CREATE","time":1,"operationType":"CREATE","resourceType":"USER","resourcePath":"users/1","representation":"not json"}`,
		`{"type":"admin.FROBNICATE-ALL","time":1,"operationType":"ALL","resourceType":"FROBNICATE","representation":"` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `"}`,
		`{"id":"` + strings.Repeat("x", 5000) + `","type":"access.LOGIN","time":0}`,
		`{"id":"nul","type":"access.LOGIN","time":1,"details":{"a\u0000b":"c\u0000d"},"userId":"\u0000"}`,
		`{"id":"time","type":"access.LOGIN","time":"never"}`,
		`{"id":"huge","type":"access.LOGIN","time":99999999999999999999}`,
		`{"operationType":"CREATE","resourceType":"USER","representation":"{\"a\":1e400}","time":0}`,
	} {
		for _, duplicate := range []bool{false, true} {
			receipts, err := b.recorder.Record(t.Context(), inbound.Origin{Source: "keycloak"}, decode(t, body))
			require.NoError(t, err, "%.60s", body)
			require.Equal(t, duplicate, receipts[0].Duplicate)
		}
	}
	require.Len(t, b.received(), 9)
	text := b.received()[2].Payload.(*adapter.AdminEventReceived)
	require.Equal(t, "not json", text.RepresentationText)
}

func TestASourceFilters(t *testing.T) {
	t.Parallel()
	batch := decode(t, `{"events":[`+pushed("e1", start)+`,{"type":"access.LOGIN","id":"l","time":1},{"type":"access.LOGIN_ERROR","id":"le","time":1},{"x":1}]}`)
	names := func(s inbound.Source) []string {
		var out []string
		for _, d := range s.Filter(batch) {
			out = append(out, inbound.TypeName(d))
		}
		return out
	}
	require.Len(t, names(inbound.Source{}), 4)
	require.Equal(t, []string{"admin.USER-CREATE"}, names(inbound.Source{Include: []string{"admin.*"}}))
	require.Equal(t, []string{"admin.USER-CREATE", "access.LOGIN_ERROR", ""}, names(inbound.Source{Exclude: []string{"access.LOGIN"}}))
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	body := []byte(pushed("e1", start))
	source := inbound.Source{Secrets: []string{"new", "old"}, Algorithm: webhook.HMACSHA256}
	header := func(values ...string) http.Header { return http.Header{inbound.SignatureHeader: values} }
	require.True(t, source.Verify(header(webhook.Sign(body, "old", webhook.HMACSHA256)), body))
	require.True(t, source.Verify(header(webhook.Sign(body, "new", webhook.HMACSHA256)), body))
	require.False(t, source.Verify(header(webhook.Sign(body, "other", webhook.HMACSHA256)), body))
	require.False(t, source.Verify(header(webhook.Sign(body, "new", webhook.HMACSHA1)), body))
	require.False(t, source.Verify(header(""), body), "p2 sends it empty where signing failed")
	require.False(t, source.Verify(http.Header{}, body))
}

// listed is a server that stores admin events and lists them as Keycloak does.
type listed struct {
	mu     sync.Mutex
	events []stored
	// legacy lists newest first and takes no milliseconds, as before 26.2.
	legacy  bool
	failure error
	queries []admin.EventQuery
	// meanwhile is called after each page.
	meanwhile func(l *listed)
	// ties, where not nil, orders events of one time anew for each page.
	ties *rand.Rand
}

type stored struct {
	id string
	at time.Time
}

func (l *listed) add(id string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, stored{id, at})
}

func (l *listed) AdminEvents(_ context.Context, _ string, q admin.EventQuery) ([]json.RawMessage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queries = append(l.queries, q)
	if l.failure != nil {
		return nil, l.failure
	}
	if l.legacy && !q.From.IsZero() && !q.DayPrecision {
		return nil, &keycloak.APIError{Status: http.StatusBadRequest, Kind: keycloak.KindInvalid}
	}
	from := q.From
	if q.DayPrecision && !from.IsZero() {
		from = from.UTC().Truncate(24 * time.Hour)
	}
	var found []stored
	for _, e := range l.events {
		if !e.at.Before(from) {
			found = append(found, e)
		}
	}
	if l.ties != nil {
		l.ties.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	}
	if l.meanwhile != nil {
		defer l.meanwhile(l)
	}
	slices.SortStableFunc(found, func(a, b stored) int { return a.at.Compare(b.at) })
	if l.legacy || !q.Ascending {
		slices.Reverse(found)
	}
	found = found[min(q.First, len(found)):]
	found = found[:min(q.Max, len(found))]
	out := make([]json.RawMessage, 0, len(found))
	for _, e := range found {
		id := ""
		if !l.legacy {
			id = fmt.Sprintf(`"id":%q,`, e.id)
		}
		out = append(out, json.RawMessage(fmt.Sprintf(`{%s"time":%d,"realmId":"be4c761c-6cac-427b-bcdb-6cb733831e2a","operationType":"CREATE","resourceType":"USER",`+
			`"resourcePath":"users/%s","representation":"{\"username\":\"bob\"}","authDetails":{"realmId":"m","clientId":"c1","userId":"a1","ipAddress":"127.0.0.1"}}`,
			id, e.at.UnixMilli(), e.id)))
	}
	return out, nil
}

func (l *listed) UserEvents(context.Context, string, admin.EventQuery) ([]json.RawMessage, error) {
	return nil, nil
}

type marks struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (m *marks) Watermark(_ context.Context, name string) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at[name], nil
}

func (m *marks) SetWatermark(_ context.Context, name string, t time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at[name] = t
	return nil
}

func (b *bundle) poller(l *listed, m *marks) *inbound.Poller {
	return &inbound.Poller{Puller: l, Recorder: b.recorder, Watermarks: m, Logger: slog.New(slog.DiscardHandler)}
}

func TestPollingReadsEverythingOnceFromTheOldest(t *testing.T) {
	t.Parallel()
	for _, legacy := range []bool{false, true} {
		b := setup(t)
		l, m := &listed{legacy: legacy}, &marks{at: map[string]time.Time{}}
		// 950 events; 450 of them in one millisecond, more than two pages.
		for i := range 950 {
			at := start.Add(time.Duration(i) * time.Second)
			if i >= 300 && i < 750 {
				at = start.Add(300 * time.Second)
			}
			l.add(fmt.Sprintf("e%d", i), at)
		}
		got, err := b.poller(l, m).Poll(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, 950, got.New)
		require.Len(t, b.received(), 950)
		require.True(t, l.queries[0].From.IsZero(), "the first poll starts at the oldest stored event")

		// A restarted process has forgotten what it saw; the store has not. What was
		// committed late has an earlier time.
		l.add("late", start.Add(930*time.Second))
		l.add("new", start.Add(960*time.Second))
		l.queries = nil
		got, err = b.poller(l, m).Poll(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, 2, got.New)
		require.Len(t, b.received(), 952)
		require.False(t, l.queries[0].From.IsZero(), "later polls start a little before the newest seen")
	}
}

func TestPushAndPollAreOneDelivery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, m := &listed{}, &marks{at: map[string]time.Time{}}
	l.add("e1", start)
	_, err := b.recorder.Record(t.Context(), inbound.Origin{Source: "keycloak"}, decode(t, pushed("e1", start)))
	require.NoError(t, err)
	got, err := b.poller(l, m).Poll(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, inbound.Polled{Read: 1}, got)
	require.Len(t, b.received(), 1)

	// The other way round the push adds what only it knows, once.
	b = setup(t)
	l, m = &listed{}, &marks{at: map[string]time.Time{}}
	l.add("e2", start)
	_, err = b.poller(l, m).Poll(t.Context(), "acme")
	require.NoError(t, err)
	for range 3 {
		_, err = b.recorder.Record(t.Context(), inbound.Origin{Source: "keycloak"}, decode(t, pushed("e2", start)))
		require.NoError(t, err)
	}
	events, err := b.codec.ReadStream(t.Context(), b.store, adapter.DeliveryStream("e2"))
	require.NoError(t, err)
	require.Len(t, events, 2)
	confirmed := events[1].Payload.(*adapter.DeliveryConfirmed)
	require.Empty(t, confirmed.Differs)
	require.Equal(t, json.RawMessage(`"admin"`), confirmed.Added["actor.username"])
}

// A pull tells an actor by id alone; who that is, a push has told, to this process or to
// one before it.
func TestAPullNamesAnActorWhomAPushHasNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.recorder.Record(t.Context(), inbound.Origin{Source: "keycloak"}, decode(t, pushed("e1", start)))
	require.NoError(t, err)
	l, m := &listed{}, &marks{at: map[string]time.Time{}}
	for i := range 2 {
		l.add(fmt.Sprint("pulled", i), start.Add(time.Duration(i)*time.Second))
		_, err = b.poller(l, m).Poll(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, "admin", b.received()[1+i].Meta.Actor.Username)
		b.recorder = &inbound.Recorder{Store: b.store, Codec: b.codec, Clock: time.Now}
	}
}

// A webhook tells more than a listing, so the newest events are left to it for a while.
func TestAScheduledPollLeavesTheNewestToTheWebhook(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, m := &listed{}, &marks{at: map[string]time.Time{}}
	l.add("old", start)
	l.add("young", start.Add(10*time.Second))
	b.recorder.Clock = func() time.Time { return start.Add(12 * time.Second) }
	ctx, cancel := context.WithCancel(t.Context())
	p := b.poller(l, m)
	p.Observe = func(string, string) { cancel() }
	require.NoError(t, p.Run(ctx, []string{"acme"}, time.Hour))
	require.Len(t, b.received(), 1)
	require.Equal(t, start, m.at["poll/acme/admin-events"].UTC())

	_, err := b.poller(l, m).Poll(t.Context(), "acme")
	require.NoError(t, err)
	require.Len(t, b.received(), 2, "one that was asked for takes all")
}

// Without ids, equal events of one listing are as many as they are.
func TestAPollWithoutIDsCounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, m := &listed{legacy: true}, &marks{at: map[string]time.Time{}}
	l.add("same", start)
	l.add("same", start)
	for range 2 {
		_, err := b.poller(l, m).Poll(t.Context(), "acme")
		require.NoError(t, err)
		require.Len(t, b.received(), 2)
	}
}

func TestAFailedPollSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for status, try := range map[int]string{
		http.StatusForbidden:           "view-events",
		http.StatusUnauthorized:        "KEYTRAIL_KEYCLOAK_CLIENT_SECRET",
		http.StatusNotFound:            "KEYTRAIL_KEYCLOAK_REALMS",
		http.StatusInternalServerError: "--spi-events-store--provider=jpa",
	} {
		b := setup(t)
		l := &listed{failure: &keycloak.APIError{Status: status, Kind: keycloak.KindOfStatus(status)}}
		_, err := b.poller(l, &marks{at: map[string]time.Time{}}).Poll(t.Context(), "acme")
		var e *adapter.Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, e.Try, try)
	}
	b := setup(t)
	l := &listed{failure: &admin.TransportError{Kind: admin.KindRefused, Err: errors.New("refused")}}
	_, err := b.poller(l, &marks{at: map[string]time.Time{}}).Poll(t.Context(), "acme")
	require.Equal(t, adapter.CodeKeycloakUnreachable, adapter.CodeOf(err))
}

// Deliveries that were recorded while nobody knew the realm's name are completed once
// it is known, each once, and those of other realms are left alone.
func TestARealmIsNamedLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const acme, other = "be4c761c-6cac-427b-bcdb-6cb733831e2a", "89713dc3-f0f3-4ea4-87d6-a304a1ae93a7"
	push := func(id, realmID string) string {
		return fmt.Sprintf(`{"id":%q,"time":%d,"realmId":%q,"operationType":"CREATE","resourceType":"USER","resourcePath":"users/1"}`, id, start.UnixMilli(), realmID)
	}
	record := func(from inbound.Origin, body string) {
		_, err := b.recorder.Record(t.Context(), from, decode(t, body))
		require.NoError(t, err)
	}
	batch := make([]string, 450)
	for i := range batch {
		batch[i] = push(fmt.Sprint("e", i), acme)
	}
	record(inbound.Origin{Source: "keycloak"}, `{"events":[`+strings.Join(batch, ",")+`]}`)
	record(inbound.Origin{Source: "keycloak"}, push("other", other))
	record(inbound.Origin{Source: "keycloak"}, `{"hello":"world"}`)
	record(inbound.Origin{Source: inbound.SourcePoll, Realm: "acme"}, push("e0", acme))

	n, err := b.recorder.NameRealm(t.Context(), acme, "acme")
	require.NoError(t, err)
	require.Equal(t, 449, n, "the pull has named one")
	events, err := b.codec.ReadStream(t.Context(), b.store, adapter.DeliveryStream("e449"))
	require.NoError(t, err)
	require.Len(t, events, 2)
	confirmed := events[1].Payload.(*adapter.DeliveryConfirmed)
	require.Equal(t, map[string]json.RawMessage{"realm": json.RawMessage(`"acme"`)}, confirmed.Added)
	require.Equal(t, inbound.SourceLookup, confirmed.Source)
	require.Equal(t, events[0].ID, events[1].CausationID)
	require.Equal(t, events[0].CorrelationID, events[1].CorrelationID)

	n, err = b.recorder.NameRealm(t.Context(), acme, "acme")
	require.NoError(t, err)
	require.Zero(t, n)
}

// What is being recorded while the name is learned either finds it or is found.
func TestNoDeliverySlipsPastTheNamingOfItsRealm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	asked, commit := make(chan struct{}), make(chan struct{})
	var known atomic.Bool
	b.recorder.RealmName = func(string) string {
		if known.Load() {
			return "acme"
		}
		close(asked)
		<-commit
		return ""
	}
	recorded := make(chan error, 1)
	batch := decode(t, `{"id":"e","time":1,"realmId":"r","operationType":"CREATE","resourceType":"USER","resourcePath":"users/1"}`)
	go func() {
		_, err := b.recorder.Record(context.WithoutCancel(t.Context()), inbound.Origin{Source: "keycloak"}, batch)
		recorded <- err
	}()
	<-asked
	known.Store(true)
	named := make(chan int, 1)
	go func() {
		n, err := b.recorder.NameRealm(context.WithoutCancel(t.Context()), "r", "acme")
		if err != nil {
			t.Error(err)
		}
		named <- n
	}()
	close(commit)
	require.NoError(t, <-recorded)
	require.Equal(t, 1, <-named)
}
