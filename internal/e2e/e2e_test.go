package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/kcserver"
	"github.com/keytrail/keytrail/internal/openapitest"
	"github.com/keytrail/keytrail/internal/suitetest"
	"github.com/keytrail/keytrail/internal/telemetry"
)

func TestMain(m *testing.M) { os.Exit(suitetest.Main(m)) }

// factLimit is how long a fact may take. A delivery takes milliseconds; the rest is
// for a machine with better things to do.
const factLimit = 5 * time.Minute

// onBothStores runs a test on each store, with a realm and a keytrail of its own.
func onBothStores(t *testing.T, o options, test func(t *testing.T, b *bundle)) {
	t.Helper()
	for name, store := range map[string]func(testing.TB) string{"sqlite": dbtest.SQLite, "postgres": dbtest.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, setup(t, store(t), o))
		})
	}
}

// options of a bundle.
type options struct {
	// poll is how often stored events are pulled; 0 is never.
	poll time.Duration
	// settings are fields of the realm's representation.
	settings map[string]any
}

// bundle is a realm of a real Keycloak and a keytrail beside it.
type bundle struct {
	t      *testing.T
	server *kcserver.Server
	realm  *kcserver.Realm
	proxy  *proxy
	tap    *tap
	// poll and compare are how often stored events are pulled and the realm is
	// reconciled without being asked; 0 is never.
	poll, compare time.Duration
	store         string
	// listen is the same over restarts, as the webhook's address is.
	listen string
	secret string
	// registered is since when Keycloak pushes events.
	registered time.Time
	log        *logBuffer
	client     *http.Client

	app *app.App
	url string
	end func()
}

// setup makes a realm that sends no webhook yet; nothing serves yet either.
func setup(t *testing.T, store string, o options) *bundle {
	t.Helper()
	server := kcserver.Shared(t)
	b := &bundle{
		t: t, server: server, poll: o.poll, store: store, listen: "127.0.0.1:0", secret: "webhook-" + rand.Text(),
		log: &logBuffer{}, client: &http.Client{Transport: heldToDocument(t), Timeout: factLimit},
		realm: server.TestRealm(t, kcserver.RealmOptions{Settings: o.settings}),
	}
	t.Cleanup(b.client.CloseIdleConnections)
	b.proxy = newProxy(t, server.URL)
	b.tap = newTap(t, b.secret, b.client)
	t.Cleanup(func() { b.stop() })
	return b
}

// heldToDocument carries requests and holds keytrail's answers to its OpenAPI document.
func heldToDocument(t *testing.T) http.RoundTripper {
	t.Helper()
	raw, err := os.ReadFile("../../adapter/httpapi/openapi.json")
	require.NoError(t, err)
	document, err := openapitest.Load(raw)
	require.NoError(t, err)
	return document.Transport(&http.Transport{}, func(err error) { t.Error(err) })
}

// environment configures keytrail, as a process of its own too.
func (b *bundle) environment() []string {
	return []string{
		"KEYTRAIL_STORE_URL=" + b.store,
		"KEYTRAIL_LISTEN=" + b.listen,
		"KEYTRAIL_WEBHOOK_SECRET=" + b.secret,
		"KEYTRAIL_KEYCLOAK_URL=" + b.proxy.URL,
		"KEYTRAIL_KEYCLOAK_REALMS=" + b.realm.Name,
		"KEYTRAIL_KEYCLOAK_CLIENT_ID=" + b.realm.ClientID,
		"KEYTRAIL_KEYCLOAK_CLIENT_SECRET=" + b.realm.ClientSecret,
		"KEYTRAIL_KEYCLOAK_AUTH_REALM=" + b.realm.Name,
		"KEYTRAIL_POLL_INTERVAL=" + b.poll.String(),
		"KEYTRAIL_RECONCILE_INTERVAL=" + b.compare.String(),
		// A difference is judged at once: the tests say when the dust has settled.
		"KEYTRAIL_RECONCILE_SETTLE=0",
	}
}

// start runs keytrail until stop.
func (b *bundle) start() {
	b.t.Helper()
	cfg, err := config.Load(config.Input{Env: b.environment()})
	require.NoError(b.t, err)
	require.NoError(b.t, app.Migrate(b.t.Context(), cfg))
	logger, err := telemetry.NewLogger(b.log, "json", slog.LevelDebug, nil)
	require.NoError(b.t, err)
	a, err := app.Open(b.t.Context(), cfg, app.Options{
		Logger: logger,
		Retry:  app.Retry{Max: 4, WaitMin: 20 * time.Millisecond, WaitMax: 200 * time.Millisecond},
	})
	require.NoError(b.t, err)

	// It outlives the test's context, to be stopped by the test's clean-up.
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- a.Serve(ctx, app.ServeOptions{Ready: func(url string) { ready <- url }}) }()
	b.end = func() {
		cancel()
		if err := errors.Join(<-ended, a.Close()); err != nil {
			b.t.Errorf("stopping keytrail: %v", err)
		}
	}
	select {
	case b.url = <-ready:
	case err := <-ended:
		ended <- err
		b.t.Fatalf("keytrail does not serve: %v", err)
	case <-time.After(factLimit):
		b.t.Fatal("keytrail is not ready")
	}
	b.app, b.listen = a, strings.TrimPrefix(b.url, "http://")
	b.tap.pointAt(b.webhookURL(), a.Store)
}

// stop stops keytrail, if it runs.
func (b *bundle) stop() {
	if b.end != nil {
		b.tap.pointAt("", nil)
		b.end()
		b.end = nil
	}
}

// webhookURL is where keytrail takes deliveries.
func (b *bundle) webhookURL() string { return b.url + "/webhooks/keycloak" }

// register registers a webhook of the realm.
func (b *bundle) register(url string) {
	b.t.Helper()
	_, err := b.server.Admin().Create(b.t.Context(), "/realms/"+b.realm.Name+"/webhooks", map[string]any{
		"enabled": "true", "url": url, "secret": b.secret, "eventTypes": []string{"*"},
	})
	require.NoError(b.t, err)
	b.registered = time.Now()
}

// admin makes a change in Keycloak as its administrator.
func (b *bundle) admin(method, rest string, body any) {
	b.t.Helper()
	_, err := b.realm.Do(b.t.Context(), method, rest, body, nil)
	require.NoError(b.t, err)
}

func (b *bundle) create(rest string, body any) (id string) {
	b.t.Helper()
	id, err := b.realm.Create(b.t.Context(), rest, body)
	require.NoError(b.t, err)
	return id
}

// live reads something of the realm as the administrator.
func live[T any](b *bundle, rest string) T {
	b.t.Helper()
	var v T
	_, err := b.realm.Do(b.t.Context(), http.MethodGet, rest, nil, &v)
	require.NoError(b.t, err)
	return v
}

type object = map[string]any

// until waits for a fact in what keytrail has recorded: it looks whenever there is
// something new in the log. The projections have folded it then.
func (b *bundle) until(fact string, holds func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), factLimit)
	defer cancel()
	for {
		head, err := b.app.Store.Head(ctx)
		if err == nil && holds() {
			// What the log tells by now, the projections know when the test goes on.
			if head, err = b.app.Store.Head(ctx); err == nil {
				err = b.app.Engine.WaitFor(ctx, head)
			}
			require.NoError(b.t, err, "folding after %s", fact)
			return
		}
		if err == nil {
			_, err = b.app.Store.Wait(ctx, head)
		}
		if ctx.Err() != nil {
			b.t.Fatalf("%s: not within %s\nthe log of events:\n%s", fact, factLimit, b.summary())
		}
		require.NoError(b.t, err, "waiting for %s", fact)
	}
}

// untilOutside waits for a fact that no event of ours tells.
func (b *bundle) untilOutside(fact string, holds func() bool) {
	b.t.Helper()
	b.within(factLimit, fact, holds)
}

// within is untilOutside with a limit of its own.
func (b *bundle) within(limit time.Duration, fact string, holds func() bool) {
	b.t.Helper()
	over := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-over:
			b.t.Fatalf("%s: not within %s", fact, limit)
		}
	}
}

// summary is the newest events in short, for whoever has to find out what is missing.
func (b *bundle) summary() string {
	var s strings.Builder
	for _, e := range b.events(eventstore.LogQuery{}) {
		fmt.Fprintf(&s, "%d %s %s %s\n", e.Position, e.Type, e.Stream, e.Data)
	}
	text := s.String()
	return text[max(0, len(text)-8000):]
}

// events reads the log.
func (b *bundle) events(q eventstore.LogQuery) []adapter.Decoded {
	b.t.Helper()
	ctx := context.WithoutCancel(b.t.Context())
	var events []adapter.Decoded
	for e, err := range b.app.Store.ReadLog(ctx, q) {
		require.NoError(b.t, err)
		d, err := b.app.Codec.Decode(ctx, e)
		require.NoError(b.t, err)
		events = append(events, d)
	}
	return events
}

// count is how many events of the types there are.
func (b *bundle) count(types ...string) int {
	b.t.Helper()
	return len(b.events(eventstore.LogQuery{Types: types}))
}

func (b *bundle) stream(s eventstore.StreamID) []adapter.Decoded {
	b.t.Helper()
	events, err := b.app.Codec.ReadStream(b.t.Context(), b.app.Store, s)
	require.NoError(b.t, err)
	return events
}

// story is the types of a user's events, in the order in which they happened. That
// somebody looked is not part of it.
func (b *bundle) story(id string) []string {
	b.t.Helper()
	var types []string
	for _, e := range adapter.UserHistory(b.stream(adapter.UserStream(b.realm.Name, id))) {
		if e.EventType != adapter.TypeUserApiObserved {
			types = append(types, e.EventType)
		}
	}
	return types
}

// untilStory waits until the user's events are these, no fewer and no more.
func (b *bundle) untilStory(id string, types ...string) {
	b.t.Helper()
	b.until("the user's story "+strings.Join(types, ", "), func() bool {
		have := b.story(id)
		if len(have) >= len(types) {
			require.Equal(b.t, types, have)
		}
		return slices.Equal(types, have)
	})
}

// believed is the user as the projection has it.
func (b *bundle) believed(id string) adapter.User {
	b.t.Helper()
	u, ok, err := b.app.Users.Get(b.t.Context(), b.realm.Name, id)
	require.NoError(b.t, err)
	require.True(b.t, ok, "nothing is believed of user %s", id)
	return u
}

// received counts the recorded deliveries by Keycloak's id of the event.
func (b *bundle) received() map[string]int {
	b.t.Helper()
	ids := map[string]int{}
	for _, e := range b.events(eventstore.LogQuery{Types: []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived}}) {
		switch p := e.Payload.(type) {
		case *adapter.AdminEventReceived:
			ids[p.KeycloakEventID]++
		case *adapter.UserEventReceived:
			ids[p.KeycloakEventID]++
		}
	}
	return ids
}

// stored is the ids of the events that the realm has stored itself.
func (b *bundle) stored() []string {
	b.t.Helper()
	var ids []string
	for _, list := range []string{"/admin-events", "/events"} {
		for _, e := range live[[]object](b, list+"?max=2000") {
			// keytrail's own login as it starts may be earlier than the webhook, and nobody pulls it.
			if at := time.UnixMilli(int64(e["time"].(float64))); b.poll == 0 && at.Before(b.registered) {
				continue
			}
			ids = append(ids, e["id"].(string))
		}
	}
	return ids
}

// untilAllRecorded waits until every event that Keycloak has stored is recorded, and
// sees that none is there twice, contradicts itself, or could not be understood.
func (b *bundle) untilAllRecorded() {
	b.t.Helper()
	stored := b.stored()
	require.NotEmpty(b.t, stored)
	b.until("every event that Keycloak stored", func() bool {
		have := b.received()
		return !slices.ContainsFunc(stored, func(id string) bool { return have[id] == 0 })
	})
	for id, n := range b.received() {
		require.Equal(b.t, 1, n, "event %s is recorded once", id)
	}
	for _, e := range b.events(eventstore.LogQuery{Types: []string{adapter.TypeDeliveryConfirmed}}) {
		require.Empty(b.t, e.Payload.(*adapter.DeliveryConfirmed).Differs, "push and pull tell the same: %s", e.Data)
	}
	require.Zero(b.t, b.count(adapter.TypeDeliveryParked), "Keycloak sends nothing that cannot be understood")
}

// userEventsFollow checks that every user event follows from a delivery, or from a
// call, and belongs to its story.
func (b *bundle) userEventsFollow() {
	b.t.Helper()
	byID := map[uuid.UUID]adapter.Decoded{}
	all := b.events(eventstore.LogQuery{})
	for _, e := range all {
		byID[e.ID] = e
	}
	for _, e := range all {
		if e.Stream.Category() != adapter.CategoryUser || e.Type == adapter.TypeUserApiObserved || e.Type == adapter.TypeUserApiBaselined {
			continue
		}
		cause, ok := byID[e.CausationID]
		require.True(b.t, ok, "%s of %s has a cause", e.Type, e.Stream)
		require.Contains(b.t, []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived, adapter.TypeApiCallSucceeded}, cause.Type)
		require.Equal(b.t, cause.CorrelationID, e.CorrelationID, "%s keeps its cause's story", e.Type)
	}
}

// reconcile compares belief with Keycloak now.
func (b *bundle) reconcile() (reconcile.Result, error) {
	b.t.Helper()
	ctx := adapter.WithCall(b.t.Context(), adapter.CallContext{Actor: operator, Source: "cli"})
	return b.app.Reconcile(ctx, b.realm.Name, "cli")
}

// operator works with keytrail, not with Keycloak.
var operator = adapter.Actor{Type: adapter.ActorCLI, ID: "olga"}

// inSync sees that what is believed is what is, of every user and without adopting
// anybody, and that the rows are what a replay from zero gives.
func (b *bundle) inSync() {
	b.t.Helper()
	result, err := b.reconcile()
	require.NoError(b.t, err)
	require.Equal(b.t, reconcile.InSync, result.Verdict, "findings: %+v", result.Findings)
	require.Zero(b.t, result.Baselined, "every user was known from its events")
	require.Zero(b.t, result.Unsettled, "%+v", result.Pending)
	require.Equal(b.t, live[int](b, "/users/count"), result.Compared)
	require.Equal(b.t, result.Compared, result.InSync)
	b.rebuildIsIdentical()
}

// untilRead waits until every user has been read whose events left something open.
func (b *bundle) untilRead() {
	b.t.Helper()
	b.within(readLimit, "the reads that are due", func() bool {
		ctx, cancel := context.WithTimeout(b.t.Context(), readLimit)
		defer cancel()
		head, err := b.app.Store.Head(ctx)
		require.NoError(b.t, err)
		require.NoError(b.t, b.app.Engine.WaitFor(ctx, head, "interpret"))
		head, err = b.app.Store.Head(ctx)
		require.NoError(b.t, err)
		require.NoError(b.t, b.app.Engine.WaitFor(ctx, head))
		due, err := b.app.Users.Unread(ctx, []string{b.realm.Name}, time.Now().Add(time.Hour), 1)
		require.NoError(b.t, err)
		return len(due) == 0
	})
}

// readLimit bounds the wait for reads that follow on a burst of changes, which have to be
// interpreted first.
const readLimit = 3 * time.Minute

func (b *bundle) rebuildIsIdentical() {
	b.t.Helper()
	b.untilRead() // a read that is still due would come between the two
	const rows = `SELECT * FROM user_api_projections ORDER BY realm, user_id`
	before := b.rows(rows)
	require.NotEmpty(b.t, before)
	require.NoError(b.t, b.app.Engine.Rebuild(b.t.Context(), "users", nil))
	require.Equal(b.t, before, b.rows(rows))
}

// api sends a request to keytrail's API and decodes the answer, problem or not.
func (b *bundle) api(method, path string, body any) (status int, answer object) {
	b.t.Helper()
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		require.NoError(b.t, err)
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+"/api/v1"+path, content)
	require.NoError(b.t, err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	status, text := b.send(req)
	require.NoError(b.t, json.Unmarshal(text, &answer), "%s %s: %d %s", method, path, status, text)
	return status, answer
}

// get decodes an answer of the API that must be a success.
func get[T any](b *bundle, path string) T {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.url+"/api/v1"+path, nil)
	require.NoError(b.t, err)
	status, text := b.send(req)
	require.Equal(b.t, http.StatusOK, status, "%s: %s", path, text)
	var v T
	require.NoError(b.t, json.Unmarshal(text, &v), "%s: %s", path, text)
	return v
}

func (b *bundle) send(req *http.Request) (status int, body []byte) {
	b.t.Helper()
	resp, err := b.client.Do(req)
	require.NoError(b.t, err)
	body, err = io.ReadAll(resp.Body)
	require.NoError(b.t, errors.Join(err, resp.Body.Close()))
	return resp.StatusCode, body
}

// deliver posts a body as the webhook sender would.
func (b *bundle) deliver(body []byte, signature string) (status int, answer []byte) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.webhookURL(), bytes.NewReader(body))
	require.NoError(b.t, err)
	req.Header.Set("Content-Type", "application/json")
	if signature != "" {
		req.Header.Set("X-Keycloak-Signature", signature)
	}
	return b.send(req)
}

// open opens the store's database behind the store's back.
func (b *bundle) open() *sql.DB {
	b.t.Helper()
	driver, source := "pgx", b.store
	if path, ok := strings.CutPrefix(b.store, "sqlite:"); ok {
		driver, source = "sqlite", "file:"+path+"?mode=ro"
	}
	db, err := sql.Open(driver, source)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { require.NoError(b.t, db.Close()) })
	return db
}

// rows returns every row as text, column by column.
func (b *bundle) rows(query string) []string {
	b.t.Helper()
	rows, err := b.open().QueryContext(b.t.Context(), query)
	require.NoError(b.t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(b.t, err)
	var all []string
	for rows.Next() {
		values := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		require.NoError(b.t, rows.Scan(into...))
		var row strings.Builder
		for i, v := range values {
			if raw, ok := v.([]byte); ok {
				v = string(raw)
			}
			fmt.Fprintf(&row, "%s=%v\n", columns[i], v)
		}
		all = append(all, row.String())
	}
	require.NoError(b.t, rows.Err())
	return all
}

// database is everything that the database holds, as text.
func (b *bundle) database() string {
	b.t.Helper()
	list := `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'`
	if strings.HasPrefix(b.store, "sqlite:") {
		list = `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
	}
	var all strings.Builder
	for _, row := range b.rows(list) {
		table := strings.TrimSpace(strings.TrimPrefix(row, "name="))
		for _, r := range b.rows(`SELECT * FROM "` + table + `"`) {
			all.WriteString(table + "\n" + r)
		}
	}
	return all.String()
}

// logBuffer keeps what keytrail logs.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serve starts a server for the test.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}
