package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/web"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/analytics"
	"github.com/keytrail/keytrail/projections/calls"
	"github.com/keytrail/keytrail/projections/users"
)

const (
	realmName     = "acme"
	webhookSecret = "webhook-secret-canary"
	clientSecret  = "client-secret-canary"
	apiToken      = "api-token-canary"
	password      = "password-canary"
	adminPassword = "admin-password-canary"
	// evil must come out as text wherever it is shown.
	evil = `<script>alert(1)</script>`
)

// story is keytrail on a real store, with the events of a day: see tell.
type story struct {
	t        testing.TB
	app      *app.App
	keycloak *keycloaktest.Server
	realm    *keycloaktest.Realm
	base     string // where keytrail serves webhooks
	bob      string // user ids
	created  time.Time
	refused  uuid.UUID // correlation of the call that was refused
	disabled uuid.UUID // of the call that was tried three times
	run      uuid.UUID
	parked   uuid.UUID // delivery id
	counts   *analytics.Queries
	path     string // of the store
	rebuilt  chan string
	retried  chan uuid.UUID
}

// newStory tells a story about bob in a realm that has so many users besides.
func newStory(t testing.TB, others int) *story {
	t.Helper()
	server, err := keycloaktest.NewServer(keycloaktest.Options{Clock: time.Now, AdminUser: "alice", AdminPassword: adminPassword})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	realm := server.AddRealm(realmName, keycloaktest.RealmOptions{AdminEvents: true, AdminEventsDetails: true, UserEvents: true})
	realm.AddClient("keytrail", clientSecret, "view-events", "view-users", "view-realm", "manage-users")
	realm.AddRole("auditor")
	path := filepath.Join(t.TempDir(), "keytrail.db")
	cfg, err := config.Load(config.Input{Env: []string{
		"KEYTRAIL_STORE_URL=sqlite:" + path,
		"KEYTRAIL_LISTEN=127.0.0.1:0",
		"KEYTRAIL_WEBHOOK_SECRET=" + webhookSecret,
		"KEYTRAIL_API_TOKEN=" + apiToken,
		"KEYTRAIL_KEYCLOAK_URL=" + server.URL(),
		"KEYTRAIL_KEYCLOAK_REALMS=" + realmName,
		"KEYTRAIL_KEYCLOAK_CLIENT_ID=keytrail",
		"KEYTRAIL_KEYCLOAK_CLIENT_SECRET=" + clientSecret,
		"KEYTRAIL_KEYCLOAK_AUTH_REALM=" + realmName,
		"KEYTRAIL_RECONCILE_SETTLE=0",
		"KEYTRAIL_RECONCILE_INTERVAL=0",
	}})
	require.NoError(t, err)
	require.NoError(t, app.Migrate(t.Context(), cfg))
	a, err := app.Open(t.Context(), cfg, app.Options{Retry: app.Retry{Max: 4, WaitMin: 20 * time.Millisecond, WaitMax: 80 * time.Millisecond}})
	require.NoError(t, err)
	s := &story{t: t, app: a, keycloak: server, realm: realm, path: path, rebuilt: make(chan string, 8), retried: make(chan uuid.UUID, 8)}

	serving, stop := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- a.Serve(serving, app.ServeOptions{Ready: func(url string) { ready <- url }})
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, a.Close())
	})
	select {
	case s.base = <-ready:
	case err := <-ended:
		ended <- err
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("keytrail did not become ready")
	}
	s.tell(others)
	s.count()
	return s
}

// count folds the analytics by hand, through a second handle on the store.
func (s *story) count() {
	t := s.t
	store, err := sqlite.Open(t.Context(), s.path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	db := projections.DB{Read: store.ReadDB(), Write: store.WriteDB(), Dialect: projections.SQLite}
	engine := projections.New(db, store, s.app.Codec, projections.Options{})
	require.NoError(t, engine.Register(analytics.New()))
	require.NoError(t, engine.Setup(t.Context()))
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	require.NoError(t, engine.CatchUp(t.Context(), head))
	s.counts = analytics.NewQueries(db)
}

func (s *story) tell(others int) {
	t := s.t
	s.realm.AddWebhook(s.base+"/webhooks/keycloak", webhookSecret)
	token := s.adminToken()
	location := s.admin(token, http.MethodPost, "/users", map[string]any{
		"username": "bob", "email": "bob@example.com", "firstName": "Bob", "lastName": "Stone", "enabled": true,
	})
	s.bob = location[strings.LastIndex(location, "/")+1:]
	s.until("bob", func() bool {
		u, known, err := s.app.Users.Get(t.Context(), realmName, s.bob)
		require.NoError(t, err)
		if known {
			s.created = *u.CreatedAt // in Keycloak's milliseconds, as the events that follow
		}
		return known
	})
	s.admin(token, http.MethodPut, "/users/"+s.bob+"/reset-password", map[string]any{"type": "password", "value": password, "temporary": false})
	s.admin(token, http.MethodPut, "/users/"+s.bob, map[string]any{"firstName": "Robert"})
	s.settle()

	s.keycloak.FailNext(http.MethodPut, "/admin/realms/*/users/*", 2, http.StatusServiceUnavailable)
	disabled, err := s.app.Commands.DisableUser(s.asOperator("left the company, ticket HR-17 "+evil), realmName, outbound.UserRef{ID: s.bob, Username: "bob"})
	require.NoError(t, err)
	s.disabled = disabled.CorrelationID
	s.until("the echo", func() bool {
		c, _, err := s.app.Calls.Get(t.Context(), disabled.CallID)
		require.NoError(t, err)
		return c.Echo != nil
	})
	refused, err := s.app.Commands.CreateUser(s.asOperator("new colleague, ticket HR-18"), realmName, outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("bob")}})
	require.Equal(t, adapter.CodeKeycloakConflict, adapter.CodeOf(err))
	s.refused = refused.CorrelationID

	s.realm.BehindOurBack(func(all map[string]*keycloaktest.User) {
		for i := range others {
			name := fmt.Sprintf("user%04d", i)
			id := uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)).String()
			all[id] = &keycloaktest.User{
				ID: id, Username: name, Email: name + "@example.com", FirstName: firstNames[i%len(firstNames)], LastName: lastNames[i/7%len(lastNames)],
				Enabled: i%9 != 0, EmailVerified: i%3 != 0, CreatedTimestamp: time.Now().Add(-time.Duration(i) * time.Hour).UnixMilli(),
			}
		}
	})
	s.settle()
	_, err = s.app.Reconcile(s.asOperator(""), realmName, "cli")
	require.NoError(t, err)
	s.realm.BehindOurBack(func(all map[string]*keycloaktest.User) {
		all[s.bob].Email = "bob@elsewhere.example"
		all[s.bob].Enabled = true
	})
	_, err = s.app.Reconcile(s.asOperator(""), realmName, "cli")
	require.NoError(t, err)
	s.park()
	s.strange()
	s.settle()
	runs, _, err := s.app.Reconciliations.List(t.Context(), "", 1, "")
	require.NoError(t, err)
	s.run = runs[0].RunID
}

var (
	firstNames = []string{"Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Niklaus"}
	lastNames  = []string{"Berg", "Okafor", "Lindqvist", "Moreau", "Tanaka", "Silva", "Novak", "Haddad"}
)

// park makes a delivery that could not be interpreted, as the interpreter does.
func (s *story) park() {
	t := s.t
	received := adapter.AdminEventReceived{
		KeycloakEventID: uuid.NewString(), Time: time.Now(), Realm: realmName, OperationType: "UPDATE", ResourceType: "GROUP_" + evil,
		ResourcePath: "groups/" + evil, Actor: adapter.Actor{Type: adapter.ActorKeycloakUser, Username: "mallory"},
		Receipt: adapter.Receipt{Source: "keycloak", Dialect: "p2", BodySHA256: strings.Repeat("ab", 32)},
	}
	stream := adapter.DeliveryStream(received.KeycloakEventID)
	s.parked = stream.AggregateID()
	correlation := eventstore.NewID()
	var events []eventstore.NewEvent
	for _, payload := range []adapter.Payload{&received, &adapter.DeliveryParked{Error: "the representation is not what this version understands: " + evil, Attempts: 5}} {
		e, err := s.app.Codec.Encode(t.Context(), adapter.Draft{Payload: payload, OccurredAt: time.Now(), Meta: adapter.Metadata{CorrelationID: correlation, Actor: &received.Actor, Source: "webhook:keycloak"}})
		require.NoError(t, err)
		events = append(events, e)
	}
	_, err := s.app.Store.Append(t.Context(), eventstore.StreamAppend{Stream: stream, Expected: eventstore.ExpectNone(), Events: events})
	require.NoError(t, err)
}

// strangeID is a user's id as federations make them, and worse.
const strangeID = "f:1b2c:ü/x y?&#%2F.."

// strange records a user with an id and a name that must be escaped everywhere, and an
// event of a type that this program does not know.
func (s *story) strange() {
	t := s.t
	ref := adapter.UserRef{Realm: realmName, UserID: strangeID}
	created, err := s.app.Codec.Encode(t.Context(), adapter.Draft{
		Payload: &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref, Set: adapter.Profile{
			Username: adapter.Set(evil), Email: adapter.Set(evil), Attributes: adapter.Set(map[string][]string{evil: {evil, "b"}}),
		}}, Groups: []string{"/" + evil}},
		OccurredAt: time.Now(), Meta: adapter.Metadata{CorrelationID: eventstore.NewID(), Reason: evil, Source: "webhook:" + evil},
	})
	require.NoError(t, err)
	newer := eventstore.NewEvent{
		ID: eventstore.NewID(), Type: "SomethingNewer", Data: json.RawMessage(`{"text":"` + evil + `"}`), Metadata: json.RawMessage(`{"schema":9}`),
		CorrelationID: eventstore.NewID(), OccurredAt: time.Now(),
	}
	_, err = s.app.Store.Append(t.Context(), eventstore.StreamAppend{Stream: adapter.UserStream(realmName, strangeID), Events: []eventstore.NewEvent{created, newer}})
	require.NoError(t, err)
}

func (s *story) asOperator(reason string) context.Context {
	return adapter.WithCall(s.t.Context(), adapter.CallContext{
		Actor: adapter.Actor{Type: adapter.ActorCLI, ID: "operator", Username: "operator"}, Reason: reason, Source: "cli",
	})
}

// settle waits until everything that Keycloak has sent is folded.
func (s *story) settle() {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(s.t, s.keycloak.WaitDeliveries(ctx))
	head, err := s.app.Store.Head(ctx)
	require.NoError(s.t, err)
	require.NoError(s.t, s.app.Engine.WaitFor(ctx, head))
}

// until looks whenever there is something new in the log.
func (s *story) until(what string, holds func() bool) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	for {
		head, err := s.app.Store.Head(ctx)
		require.NoError(s.t, err, what)
		require.NoError(s.t, s.app.Engine.WaitFor(ctx, head), what)
		if holds() {
			return
		}
		_, err = s.app.Store.Wait(ctx, head)
		require.NoError(s.t, err, what)
	}
}

func (s *story) adminToken() string {
	form := url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"alice"}, "password": {adminPassword}}
	resp := s.do(http.MethodPost, s.keycloak.URL()+"/realms/master/protocol/openid-connect/token", "", "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	defer resp.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	require.NoError(s.t, json.NewDecoder(resp.Body).Decode(&token))
	return token.AccessToken
}

// admin does something with the Admin API, as the administrator alice.
func (s *story) admin(token, method, path string, body any) (location string) {
	b, err := json.Marshal(body)
	require.NoError(s.t, err)
	resp := s.do(method, s.keycloak.URL()+"/admin/realms/"+realmName+path, token, "application/json", bytes.NewReader(b))
	defer resp.Body.Close()
	require.Less(s.t, resp.StatusCode, 300, "%s %s", method, path)
	return resp.Header.Get("Location")
}

func (s *story) do(method, target, token, contentType string, body io.Reader) *http.Response {
	req, err := http.NewRequestWithContext(s.t.Context(), method, target, body)
	require.NoError(s.t, err)
	req.Header.Set("Content-Type", contentType)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	return resp
}

// pages serves the story's pages, beside the API, as keytrail does. With a token
// people must sign in.
func (s *story) pages(t testing.TB, token string, change ...func(*web.Config)) *httptest.Server {
	t.Helper()
	c := web.Config{
		Access: &web.TokenAccess{Token: token, Loopback: httpapi.LoopbackTrust, Clock: time.Now},
		Store:  s.app.Store, Codec: s.app.Codec,
		Users: userReader{s.app.Users}, Calls: callReader{s.app.Calls}, Reconciliations: s.app.Reconciliations,
		Projections: projectionReader{s.app}, Traces: s.app.Traces, Failures: s.app.Failures,
		OpenDrift: func(ctx context.Context, realm, userID string) (adapter.Finding, bool, error) {
			open, err := s.app.Reconciliations.OpenDrifts(ctx, realm)
			f, ok := open[userID]
			return f, ok, err
		},
		Ready: func(context.Context) []httpapi.Check {
			return []httpapi.Check{{Name: "store", OK: true, Detail: "reachable, schema current"}, {Name: "projection users", OK: true, Detail: "running, 0 events behind"}, {Name: "projection calls", OK: true, Detail: "running, 0 events behind"}}
		},
		Rebuild:    func(_ context.Context, name string) error { s.rebuilt <- name; return nil },
		Retry:      retrier{s},
		Analytics:  s.counts.Summary,
		Polls:      func() []web.Poll { return []web.Poll{{Realm: realmName, Last: time.Now().Add(-20 * time.Second)}} },
		Reconciler: reconciler{s},
		Realms:     []string{realmName}, Clock: time.Now, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&c)
	}
	server, err := web.New(c)
	require.NoError(t, err)
	served := httptest.NewServer(server)
	t.Cleanup(served.Close)
	return served
}

type userReader struct{ *users.Queries }

func (r userReader) List(ctx context.Context, f httpapi.UserFilter, limit int, cursor string) ([]adapter.User, string, error) {
	return r.Queries.List(ctx, users.Filter{
		Realm: f.Realm, Username: f.Username, Email: f.Email, Enabled: f.Enabled, Deleted: f.Deleted, Search: f.Search,
	}, limit, cursor)
}

type callReader struct{ *calls.Queries }

func (r callReader) List(ctx context.Context, f httpapi.CallFilter, limit int, cursor string) ([]adapter.Call, string, error) {
	return r.Queries.List(ctx, calls.Filter{Statuses: f.Statuses, Realm: f.Realm, UserID: f.UserID, CorrelationID: f.CorrelationID}, limit, cursor)
}

type projectionReader struct{ app *app.App }

func (p projectionReader) Status(ctx context.Context) ([]httpapi.ProjectionStatus, error) {
	all, err := p.app.Engine.Status(ctx)
	var out []httpapi.ProjectionStatus
	for _, s := range all {
		out = append(out, httpapi.ProjectionStatus{
			Name: s.Name, Kind: s.Kind, Position: s.Position, Head: s.Head, Lag: s.Lag, Status: string(s.Status),
			Error: s.Error, UpdatedAt: s.UpdatedAt, Version: s.Version, RebuildPosition: s.RebuildPosition,
		})
	}
	return out, err
}

// reconciler answers with the run that there is.
type reconciler struct{ *story }

func (r reconciler) Start(ctx context.Context, _ uuid.UUID, realm string) (adapter.Reconciliation, error) {
	if !slices.Contains([]string{realmName}, realm) {
		return adapter.Reconciliation{}, adapter.Errorf(adapter.CodeNotFound, "no such realm")
	}
	run, _, err := r.app.Reconciliations.Get(ctx, r.run)
	return run, err
}

func (r reconciler) Cancel(ctx context.Context, id uuid.UUID) (adapter.Reconciliation, error) {
	return r.app.CancelRun(ctx, id)
}

type retrier struct{ *story }

func (r retrier) Retry(_ context.Context, id uuid.UUID) (int, error) {
	r.retried <- id
	return 1, nil
}
