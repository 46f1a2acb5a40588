package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "webhook-secret-canary"

// bundle is a server over a real store, with projections that fold on demand.
type bundle struct {
	t      testing.TB
	store  *sqlite.Store
	codec  *adapter.Codec
	config Config
	server *Server
	logs   *logBuffer
}

// newBundle makes a server from a configuration that change, if given, has altered.
func newBundle(t testing.TB, change ...func(*Config)) *bundle {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	codec := adapter.NewCodec(seal.Plain{})
	b := &bundle{t: t, store: store, codec: codec, logs: &logBuffer{}}
	logger := slog.New(slog.NewJSONHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	read := readers{store: store, codec: codec}
	b.config = Config{
		Sources: []inbound.Source{
			{Name: "keycloak", Dialect: webhook.DialectAuto, Algorithm: webhook.HMACSHA256, Secrets: []string{secret}},
			{Name: "open", Dialect: webhook.DialectAuto, Exclude: []string{"access.LOGIN"}},
		},
		Recorder: &inbound.Recorder{Store: store, Codec: codec, Clock: time.Now},
		Store:    store, Codec: codec,
		Users: read.users(), Calls: read.calls(), Reconciliations: read.runs(),
		Audit: &fakeAudit{}, Analytics: &fakeAnalytics{},
		Projections: &fakeProjections{},
		Traces:      &trace.Finder{Store: store, Codec: codec},
		Failures:    &trace.Failures{Store: store, Codec: codec, Clock: time.Now},
		Commands:    &outbound.Commands{Store: store, Codec: codec, Clock: time.Now, Logger: logger},
		Retry:       &interpret.Interpreter{Store: store, Codec: codec, Clock: time.Now, Logger: logger},
		Ready:       func(context.Context) []Check { return nil },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
			_, _ = io.WriteString(w, "keytrail_up 1\n")
		}),
		Clock: time.Now, Logger: logger,
	}
	for _, c := range change {
		c(&b.config)
	}
	b.server, err = New(b.config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.server.Drain(context.Background())) })
	return b
}

// logBuffer is a log that may be written to by several goroutines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// reply is an answer with its body read.
type reply struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

func (a reply) into(v any) {
	a.t.Helper()
	require.NoError(a.t, json.Unmarshal(a.body, v), "%s", a.body)
}

func (a reply) object() map[string]any {
	a.t.Helper()
	var o map[string]any
	a.into(&o)
	return o
}

// problem checks that the answer is a well-formed problem and returns it.
func (a reply) problem(status int, code adapter.Code) problem {
	a.t.Helper()
	require.Equal(a.t, status, a.status, "%s", a.body)
	require.Equal(a.t, "application/problem+json", a.header.Get("Content-Type"))
	var p problem
	a.into(&p)
	require.Equal(a.t, status, p.Status)
	require.Equal(a.t, code, p.Code, p.Detail)
	require.Equal(a.t, problemType+string(code), p.Type)
	require.NotEmpty(a.t, p.Title)
	require.NotEmpty(a.t, p.Detail)
	return p
}

// do sends a request as from this machine. Headers are name, value pairs.
func (b *bundle) do(method, path, body string, headers ...string) reply {
	b.t.Helper()
	return b.send(newRequest(b.t, method, path, body, headers...))
}

func newRequest(t testing.TB, method, path, body string, headers ...string) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:50000", "localhost:8085"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	return r
}

func (b *bundle) send(r *http.Request) reply {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, r)
	b.holdToDocument(r, w)
	return reply{t: b.t, status: w.Code, header: w.Header(), body: w.Body.Bytes()}
}

func (b *bundle) get(path string) reply {
	b.t.Helper()
	return b.do(http.MethodGet, path, "")
}

// hook sends a signed webhook.
func (b *bundle) hook(body string, headers ...string) reply {
	b.t.Helper()
	headers = append([]string{inbound.SignatureHeader, webhook.Sign([]byte(body), secret, webhook.HMACSHA256)}, headers...)
	return b.do(http.MethodPost, "/webhooks/keycloak", body, headers...)
}

// record appends events to a stream, each a second after the one before.
func (b *bundle) record(stream eventstore.StreamID, from time.Time, meta adapter.Metadata, payloads ...adapter.Payload) []eventstore.Event {
	b.t.Helper()
	if meta.CorrelationID == uuid.Nil {
		meta.CorrelationID = eventstore.NewID()
	}
	var events []eventstore.NewEvent
	for i, p := range payloads {
		e, err := b.codec.Encode(b.t.Context(), adapter.Draft{Payload: p, OccurredAt: from.Add(time.Duration(i) * time.Second), Meta: meta})
		require.NoError(b.t, err)
		events = append(events, e)
	}
	recorded, err := b.store.Append(b.t.Context(), eventstore.StreamAppend{Stream: stream, Events: events})
	require.NoError(b.t, err)
	return recorded
}

func (b *bundle) head() eventstore.Position {
	b.t.Helper()
	head, err := b.store.Head(b.t.Context())
	require.NoError(b.t, err)
	return head
}

// withKeycloak lets commands reach a fake Keycloak with the realm acme.
func withKeycloak(t testing.TB) (*keycloaktest.Server, func(*Config)) {
	t.Helper()
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	realm := server.AddRealm("acme", keycloaktest.RealmOptions{EditUsername: true})
	realm.AddClient("keytrail", "client-secret-canary", "manage-users", "view-users")
	client, err := admin.New(admin.Config{
		BaseURL: server.URL(), AuthRealm: "acme", ClientID: "keytrail", ClientSecret: "client-secret-canary",
		Transport: &outbound.Transport{Next: admin.NewTransport(), Clock: time.Now},
		RetryMax:  1, RetryWaitMin: time.Millisecond, RetryWaitMax: 2 * time.Millisecond, Timeout: 10 * time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return server, func(c *Config) { c.Commands.(*outbound.Commands).Keycloak = client }
}

// readers fold the store as the projections do.
type readers struct {
	store *sqlite.Store
	codec *adapter.Codec
}

type (
	foldedUsers struct{ readers }
	foldedCalls struct{ readers }
	foldedRuns  struct{ readers }
)

func (r readers) users() foldedUsers { return foldedUsers{r} }
func (r readers) calls() foldedCalls { return foldedCalls{r} }
func (r readers) runs() foldedRuns   { return foldedRuns{r} }

// streams returns the events of a category by stream, in the order of appearance.
func (r readers) streams(ctx context.Context, category string) ([][]adapter.Decoded, error) {
	at := map[eventstore.StreamID]int{}
	var all [][]adapter.Decoded
	for e, err := range r.store.ReadLog(ctx, eventstore.LogQuery{Category: category}) {
		if err != nil {
			return nil, err
		}
		d, err := r.codec.Decode(ctx, e)
		if err != nil {
			return nil, err
		}
		i, ok := at[e.Stream]
		if !ok {
			i = len(all)
			at[e.Stream] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], d)
	}
	return all, nil
}

func (r foldedUsers) all(ctx context.Context) ([]adapter.User, error) {
	streams, err := r.streams(ctx, adapter.CategoryUser)
	var users []adapter.User
	for _, events := range streams {
		u, _ := adapter.FoldUser(events)
		users = append(users, u)
	}
	return users, err
}

func (r foldedUsers) Get(ctx context.Context, realm, id string) (adapter.User, bool, error) {
	users, err := r.all(ctx)
	for _, u := range users {
		if u.Realm == realm && u.ID == id {
			return u, true, err
		}
	}
	return adapter.User{}, false, err
}

func (r foldedUsers) Find(ctx context.Context, idOrName string, realms ...string) ([]adapter.User, error) {
	users, err := r.all(ctx)
	var found []adapter.User
	for _, u := range users {
		if slices.Contains(realms, u.Realm) && (u.ID == idOrName || strings.EqualFold(u.Username, idOrName)) {
			found = append(found, u)
		}
	}
	return found, err
}

func (r foldedUsers) List(ctx context.Context, f UserFilter, limit int, cursor string) ([]adapter.User, string, error) {
	users, err := r.all(ctx)
	users = slices.DeleteFunc(users, func(u adapter.User) bool {
		return u.Realm != f.Realm || (f.Username != "" && u.Username != f.Username) ||
			(f.Email != "" && (u.Email == nil || *u.Email != f.Email)) ||
			(f.Enabled != nil && u.Enabled != *f.Enabled) || (f.Deleted != nil && u.Deleted != *f.Deleted)
	})
	slices.SortFunc(users, func(a, b adapter.User) int { return strings.Compare(a.Username, b.Username) })
	if cursor != "" {
		users = slices.DeleteFunc(users, func(u adapter.User) bool { return u.Username <= cursor })
	}
	if len(users) > limit {
		return users[:limit], users[limit-1].Username, err
	}
	return users, "", err
}

func (r foldedCalls) List(ctx context.Context, f CallFilter, _ int, _ string) ([]adapter.Call, string, error) {
	streams, err := r.streams(ctx, adapter.CategoryCall)
	var calls []adapter.Call
	for _, events := range streams {
		c, _ := adapter.FoldCall(events)
		if len(f.Statuses) == 0 || slices.Contains(f.Statuses, c.Status) {
			calls = append(calls, c)
		}
	}
	return calls, "", err
}

func (r foldedRuns) List(ctx context.Context, realm string, _ int, _ string) ([]adapter.Reconciliation, string, error) {
	streams, err := r.streams(ctx, adapter.CategoryReconciliation)
	var runs []adapter.Reconciliation
	for _, events := range streams {
		run, _ := adapter.FoldReconciliation(events)
		if realm == "" || run.Realm == realm {
			run.Findings = nil
			runs = append(runs, run)
		}
	}
	return runs, "", err
}

// Get knows no run, as a projection that is behind.
func (r foldedRuns) Get(context.Context, uuid.UUID) (adapter.Reconciliation, bool, error) {
	return adapter.Reconciliation{}, false, nil
}

func (r foldedRuns) Findings(ctx context.Context, id uuid.UUID, _ int, _ string) ([]adapter.Finding, string, error) {
	events, err := r.codec.ReadStream(ctx, r.store, adapter.ReconciliationStream(id))
	var findings []adapter.Finding
	for _, e := range events {
		if p, ok := e.Payload.(*adapter.DriftDetected); ok {
			findings = append(findings, adapter.FindingOf(e, p))
		}
	}
	return findings, "", err
}

// fakeProjections are one projection and one consumer.
type fakeProjections struct {
	// rebuild, if set, is called by Rebuild.
	rebuild func(ctx context.Context, name string) error
}

func (*fakeProjections) Status(context.Context) ([]ProjectionStatus, error) {
	at := time.Date(2026, 5, 1, 14, 0, 0, 0, time.FixedZone("", 7200))
	return []ProjectionStatus{
		{Name: "interpret", Kind: "consumer", Status: "running"},
		{Name: "users", Kind: "projection", Position: 3, Head: 5, Lag: 2, Status: "running", UpdatedAt: &at, Version: 1},
	}, nil
}

func (p *fakeProjections) Rebuild(ctx context.Context, name string, _ func(done, total eventstore.Position)) error {
	if p.rebuild == nil {
		return nil
	}
	return p.rebuild(ctx, name)
}
