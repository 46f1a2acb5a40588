package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// adminEvent is a user creation as p2-inc/keycloak-events sends it.
func adminEvent(id string) string {
	return fmt.Sprintf(`{"id":%q,"time":1780000000000,"realmId":"r-1","realmName":"acme","type":"admin.USER-CREATE",
		"operationType":"CREATE","resourceType":"USER","resourcePath":"users/5f0f","representation":"{\"username\":\"ada\"}",
		"authDetails":{"realmId":"r-1","realmName":"acme","clientId":"c-1","userId":"u-1","ipAddress":"10.0.0.1","username":"admin"}}`, id)
}

func nested(depth int) string {
	return strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1)
}

// sized is a JSON object of exactly n bytes.
func sized(n int) string {
	const frame = `{"a":""}`
	return `{"a":"` + strings.Repeat("x", n-len(frame)) + `"}`
}

// batchOf is a batch of n elements.
func batchOf(n int) string { return `{"events":[` + strings.Repeat("1,", n-1) + `1]}` }

func TestWebhookStatusCodes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	signed := func(body string) []string {
		return []string{inbound.SignatureHeader, webhook.Sign([]byte(body), secret, webhook.HMACSHA256)}
	}
	for name, c := range map[string]struct {
		path    string
		body    string
		headers []string
		status  int
		code    adapter.Code
	}{
		"an admin event":               {"/webhooks/keycloak", adminEvent("a-1"), signed(adminEvent("a-1")), 202, ""},
		"a charset is fine":            {"/webhooks/keycloak", adminEvent("a-2"), append(signed(adminEvent("a-2")), "Content-Type", "application/json; charset=UTF-8"), 202, ""},
		"so is another JSON type":      {"/webhooks/keycloak", adminEvent("a-3"), append(signed(adminEvent("a-3")), "Content-Type", "application/cloudevents+json"), 202, ""},
		"an odd parameter is fine":     {"/webhooks/keycloak", adminEvent("a-4"), append(signed(adminEvent("a-4")), "Content-Type", "application/json; charset"), 202, ""},
		"any object is kept":           {"/webhooks/keycloak", `{"hello":"world"}`, signed(`{"hello":"world"}`), 202, ""},
		"an empty object too":          {"/webhooks/keycloak", `{}`, signed(`{}`), 202, ""},
		"an event of an unknown type":  {"/webhooks/keycloak", `{"type":"access.TELEPATHY","time":1}`, signed(`{"type":"access.TELEPATHY","time":1}`), 202, ""},
		"exactly 1 MiB":                {"/webhooks/keycloak", sized(maxBody), signed(sized(maxBody)), 202, ""},
		"exactly 100 deep":             {"/webhooks/keycloak", nested(100), signed(nested(100)), 202, ""},
		"unknown source":               {"/webhooks/elsewhere", adminEvent("b"), signed(adminEvent("b")), 404, adapter.CodeNotFound},
		"no content type":              {"/webhooks/keycloak", adminEvent("b"), append(signed(adminEvent("b")), "Content-Type", ""), 415, codeMediaType},
		"a form":                       {"/webhooks/keycloak", adminEvent("b"), append(signed(adminEvent("b")), "Content-Type", "application/x-www-form-urlencoded"), 415, codeMediaType},
		"plain text":                   {"/webhooks/keycloak", adminEvent("b"), append(signed(adminEvent("b")), "Content-Type", "text/plain"), 415, codeMediaType},
		"nonsense for a type":          {"/webhooks/keycloak", adminEvent("b"), append(signed(adminEvent("b")), "Content-Type", ";;;"), 415, codeMediaType},
		"compressed":                   {"/webhooks/keycloak", adminEvent("b"), append(signed(adminEvent("b")), "Content-Encoding", "gzip"), 415, codeMediaType},
		"one byte more than 1 MiB":     {"/webhooks/keycloak", sized(maxBody + 1), signed(sized(maxBody + 1)), 413, codeTooLarge},
		"2 MiB":                        {"/webhooks/keycloak", sized(2 << 20), signed(sized(2 << 20)), 413, codeTooLarge},
		"1,000 events":                 {"/webhooks/keycloak", batchOf(1000), signed(batchOf(1000)), 202, ""},
		"1,001 events":                 {"/webhooks/keycloak", batchOf(1001), signed(batchOf(1001)), 413, codeTooLarge},
		"no signature":                 {"/webhooks/keycloak", adminEvent("b"), nil, 401, codeSignature},
		"an empty signature":           {"/webhooks/keycloak", adminEvent("b"), []string{inbound.SignatureHeader, ""}, 401, codeSignature},
		"a wrong signature":            {"/webhooks/keycloak", adminEvent("b"), signed(adminEvent("c")), 401, codeSignature},
		"a signature that is no hex":   {"/webhooks/keycloak", adminEvent("b"), []string{inbound.SignatureHeader, "zz"}, 401, codeSignature},
		"not JSON":                     {"/webhooks/keycloak", `{"a":`, signed(`{"a":`), 400, adapter.CodeInvalidRequest},
		"an array":                     {"/webhooks/keycloak", `[{}]`, signed(`[{}]`), 400, adapter.CodeInvalidRequest},
		"null":                         {"/webhooks/keycloak", `null`, signed(`null`), 400, adapter.CodeInvalidRequest},
		"an empty body":                {"/webhooks/keycloak", ``, append(signed(``), "Content-Type", "application/json"), 400, adapter.CodeInvalidRequest},
		"101 deep":                     {"/webhooks/keycloak", nested(101), signed(nested(101)), 400, adapter.CodeInvalidRequest},
		"very deep":                    {"/webhooks/keycloak", strings.Repeat("[", 900_000), signed(strings.Repeat("[", 900_000)), 400, adapter.CodeInvalidRequest},
		"404 comes before 415":         {"/webhooks/elsewhere", sized(2 << 20), []string{"Content-Type", ""}, 404, adapter.CodeNotFound},
		"415 comes before 413":         {"/webhooks/keycloak", sized(2 << 20), []string{"Content-Type", "text/plain"}, 415, codeMediaType},
		"413 comes before 401":         {"/webhooks/keycloak", sized(2 << 20), nil, 413, codeTooLarge},
		"401 comes before 400":         {"/webhooks/keycloak", `{"a":`, nil, 401, codeSignature},
		"a bad correlation is ignored": {"/webhooks/keycloak", adminEvent("a-5"), append(signed(adminEvent("a-5")), correlationHeader, "nonsense"), 202, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, chunked := range []bool{false, true} {
				r := newRequest(t, http.MethodPost, c.path, c.body, c.headers...)
				if r.Header.Get("Content-Type") == "" {
					r.Header.Del("Content-Type")
				}
				if chunked {
					r.ContentLength, r.Body = -1, io.NopCloser(strings.NewReader(c.body))
				}
				w := httptest.NewRecorder()
				b.server.ServeHTTP(w, r)
				got := reply{t: t, status: w.Code, header: w.Header(), body: w.Body.Bytes()}
				if c.code == "" {
					require.Equal(t, c.status, got.status, "%s", got.body)
					continue
				}
				p := got.problem(c.status, c.code)
				if c.status == http.StatusUnauthorized {
					require.NotEmpty(t, p.Try)
					require.NotEmpty(t, got.header.Get("WWW-Authenticate"))
				}
				if strings.HasPrefix(c.body, `{"events"`) {
					require.Contains(t, p.Detail+p.Try, "1000 events", "the limit that was passed")
				}
				require.NotContains(t, string(got.body), secret)
			}
		})
	}
	t.Run("a signature twice", func(t *testing.T) {
		t.Parallel()
		r := newRequest(t, http.MethodPost, "/webhooks/keycloak", adminEvent("b"), signed(adminEvent("b"))...)
		r.Header.Add(inbound.SignatureHeader, r.Header.Get(inbound.SignatureHeader))
		w := httptest.NewRecorder()
		b.server.ServeHTTP(w, r)
		require.Equal(t, http.StatusUnauthorized, w.Code)
	})
}

func TestWebhookAnswersWithReceipts(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	correlation := uuid.New()
	first := b.hook(adminEvent("e-1"), correlationHeader, correlation.String(), traceparentHeader, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	require.Equal(t, http.StatusAccepted, first.status)
	require.Equal(t, "application/json", first.header.Get("Content-Type"))

	var got receipts
	first.into(&got)
	require.Equal(t, 1, got.Accepted)
	require.Zero(t, got.Duplicates)
	require.Len(t, got.Deliveries, 1)
	one := got.Deliveries[0]
	require.Equal(t, adapter.DeliveryStream("e-1").AggregateID(), one.DeliveryID)
	require.Equal(t, "e-1", one.KeycloakEventID)
	require.Equal(t, correlation, one.CorrelationID)
	require.JSONEq(t, fmt.Sprintf(`{"accepted":1,"duplicates":0,"deliveries":[{"delivery_id":%q,"event_id":%q,"keycloak_event_id":"e-1","correlation_id":%q,"duplicate":false}]}`,
		one.DeliveryID, one.EventID, correlation), string(first.body))

	events, err := b.codec.ReadStream(t.Context(), b.store, adapter.DeliveryStream("e-1"))
	require.NoError(t, err)
	require.Equal(t, one.EventID, events[0].ID)
	require.Equal(t, "webhook:keycloak", events[0].Meta.Source)
	require.Equal(t, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", events[0].Meta.Traceparent)

	again := b.hook(adminEvent("e-1"))
	require.Equal(t, http.StatusAccepted, again.status)
	var second receipts
	again.into(&second)
	one.Duplicate = true
	require.Equal(t, receipts{Accepted: 0, Duplicates: 1, Deliveries: []inbound.Receipt{one}}, second)
}

func TestWebhookBatchIsOneTransaction(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	got := b.hook(`{"events":[` + adminEvent("b-1") + `,` + adminEvent("b-2") + `,` + adminEvent("b-1") + `,"noise"]}`)
	require.Equal(t, http.StatusAccepted, got.status, "%s", got.body)
	var out receipts
	got.into(&out)
	require.Equal(t, 3, out.Accepted)
	require.Equal(t, 1, out.Duplicates)
	require.Len(t, out.Deliveries, 4)
	require.Equal(t, eventstore.Position(3), b.head())

	empty := b.hook(`{"events":[]}`)
	require.Equal(t, http.StatusAccepted, empty.status)
	require.JSONEq(t, `{"accepted":0,"duplicates":0,"deliveries":[]}`, string(empty.body))
}

func TestWebhookExcludesTypes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	got := b.do(http.MethodPost, "/webhooks/open", `{"type":"access.LOGIN","time":1780000000000,"realmId":"r","details":{}}`)
	require.Equal(t, http.StatusAccepted, got.status, "%s", got.body)
	require.JSONEq(t, `{"accepted":0,"duplicates":0,"excluded":1,"deliveries":[]}`, string(got.body))
	require.Zero(t, b.head())
}

// recorderFunc is a Recorder.
type recorderFunc func(ctx context.Context, from inbound.Origin, batch []webhook.Delivery) ([]inbound.Receipt, error)

func (f recorderFunc) Record(ctx context.Context, from inbound.Origin, batch []webhook.Delivery) ([]inbound.Receipt, error) {
	return f(ctx, from, batch)
}

func TestWebhookWhenTheStoreCannotCommit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		status int
		code   adapter.Code
	}{
		"unavailable": {fmt.Errorf("recording: %w", eventstore.ErrUnavailable), 503, adapter.CodeStoreUnavailable},
		"overloaded":  {fmt.Errorf("recording: %w", eventstore.ErrOverloaded), 429, adapter.CodeOverloaded},
		"closed":      {eventstore.ErrClosed, 503, adapter.CodeStoreUnavailable},
		"too slow":    {context.DeadlineExceeded, 503, adapter.CodeStoreUnavailable},
		"broken":      {errors.New("password of the database is pg-canary"), 500, adapter.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var statuses []int
			b := newBundle(t, func(config *Config) {
				config.Recorder = recorderFunc(func(context.Context, inbound.Origin, []webhook.Delivery) ([]inbound.Receipt, error) {
					return nil, c.err
				})
				config.ObserveWebhook = func(source string, status int) {
					require.Equal(t, "keycloak", source)
					statuses = append(statuses, status)
				}
			})
			got := b.hook(adminEvent("x"))
			p := got.problem(c.status, c.code)
			require.NotContains(t, p.Detail, "canary", "the inside stays inside")
			require.Equal(t, []int{c.status}, statuses)
			if c.status != http.StatusInternalServerError {
				require.NotEmpty(t, got.header.Get("Retry-After"))
			}
		})
	}
}

func TestWebhookOverloadAndHangUp(t *testing.T) {
	t.Parallel()
	entered, release := make(chan func() error), make(chan struct{})
	b := newBundle(t, func(c *Config) {
		c.MaxInFlight = 1
		c.Recorder = recorderFunc(func(ctx context.Context, _ inbound.Origin, _ []webhook.Delivery) ([]inbound.Receipt, error) {
			entered <- ctx.Err
			<-release
			return []inbound.Receipt{{KeycloakEventID: "x"}}, ctx.Err()
		})
	})
	ctx, hangUp := context.WithCancel(t.Context())
	body := adminEvent("x")
	first := make(chan int)
	go func() {
		r := newRequest(t, http.MethodPost, "/webhooks/keycloak", body, inbound.SignatureHeader, webhook.Sign([]byte(body), secret, webhook.HMACSHA256)).WithContext(ctx)
		w := httptest.NewRecorder()
		b.server.ServeHTTP(w, r)
		first <- w.Code
	}()
	ended := <-entered
	busy := b.hook(adminEvent("y"))
	busy.problem(http.StatusTooManyRequests, adapter.CodeOverloaded)
	require.Equal(t, "2", busy.header.Get("Retry-After"))

	hangUp()
	require.NoError(t, ended(), "an event that has arrived is recorded though its sender hung up")
	close(release)
	require.Equal(t, http.StatusAccepted, <-first)
}

// Over a real connection a sender that is refused early must see the answer and not a
// reset connection.
func TestWebhookOverTheWire(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := b.server.HTTPServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	post := func(source string, body io.Reader, length int64) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+listener.Addr().String()+"/webhooks/"+source, body)
		require.NoError(t, err)
		r.ContentLength = length
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		require.NoError(t, err)
		defer func() { require.NoError(t, resp.Body.Close()) }()
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		return resp.StatusCode
	}
	for range 5 {
		big := sized(2 << 20)
		require.Equal(t, http.StatusRequestEntityTooLarge, post("keycloak", strings.NewReader(big), int64(len(big))))
		require.Equal(t, http.StatusRequestEntityTooLarge, post("keycloak", io.MultiReader(strings.NewReader(big)), -1))
	}
	require.Equal(t, http.StatusUnauthorized, post("keycloak", strings.NewReader("{}"), 2))
	require.Equal(t, http.StatusAccepted, post("open", strings.NewReader("{}"), 2))
}

func FuzzWebhook(f *testing.F) {
	b := newBundle(f)
	for _, seed := range []string{
		adminEvent("a"), `{}`, `[]`, `null`, `{"events":[{},1,null,"x",[]]}`, nested(99), nested(200), `{"type":"access.LOGIN","time":"x","details":null}`,
		"{\"a\":\"\\u0000\"}", "{\"\xff\":1}", `{"id":"` + strings.Repeat("x", 300) + `","type":"admin.A-B"}`,
		`{"operationType":"CREATE","resourceType":"USER","representation":"not json","time":-1}`,
		`{"operationType":"CREATE","resourceType":"USER","representation":"{\"a\":1}","time":1e300}`, `{"a":1,"a":2}`, `{"a":1e400}`,
		`{"id":"\u0000\ud800","operationType":"CREATE\u0000","resourceType":"USER\ud800","resourcePath":"users/\u0000","realmName":"\u0000",
			"representation":"{\"\\u0000\":\"\\ud800\"}","time":1,"authDetails":{"username":"\u0000","userId":"\ud800"},"details":{"\u0000":"\u0000"}}`,
		`{"type":"access.LOGIN\u0000","time":253402300799999,"realmId":"\u0000","userId":"\ud800","details":{"\u0000":"\ud800"}}`,
	} {
		f.Add([]byte(seed), "application/json", true)
	}
	f.Add([]byte(`{}`), "text/plain", false)
	f.Fuzz(func(t *testing.T, body []byte, contentType string, signed bool) {
		send := func() *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/keycloak", strings.NewReader(string(body)))
			r.Header["Content-Type"] = []string{contentType}
			if signed {
				r.Header.Set(inbound.SignatureHeader, webhook.Sign(body, secret, webhook.HMACSHA256))
			}
			w := httptest.NewRecorder()
			b.server.ServeHTTP(w, r)
			return w
		}
		w := send()
		// What was recorded once is met again in another way.
		require.Equal(t, w.Code, send().Code)
		switch w.Code {
		case http.StatusAccepted:
			var out receipts
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
			require.Len(t, out.Deliveries, out.Accepted+out.Duplicates)
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			require.True(t, json.Valid(w.Body.Bytes()))
		default:
			t.Fatalf("status %d for %q: %s", w.Code, body, w.Body.Bytes())
		}
	})
}
