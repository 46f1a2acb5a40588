package check

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "acme"

// world is a fake Keycloak and a keytrail that records what is pushed to it.
type world struct {
	t        *testing.T
	keycloak *keycloaktest.Server
	realm    *keycloaktest.Realm
	hook     string
	checker  *Checker
}

func newWorld(t *testing.T, options keycloaktest.RealmOptions, roles ...string) *world {
	t.Helper()
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	w := &world{t: t, keycloak: server, realm: server.AddRealm(name, options)}
	w.realm.AddClient("keytrail", "secret-canary", roles...)
	client, err := admin.New(admin.Config{
		BaseURL: server.URL(), AuthRealm: name, ClientID: "keytrail", ClientSecret: "secret-canary", Timeout: 10 * time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)

	path := filepath.Join(t.TempDir(), "events.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	codec := adapter.NewCodec(seal.Plain{})
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = record(r.Context(), store, codec, body, "keycloak")
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		rw.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(receiver.Close)
	w.hook = receiver.URL + "/webhooks/keycloak"
	w.checker = &Checker{Keycloak: client, Log: store, Codec: codec, WebhookURL: w.hook, Wait: 5 * time.Second}
	return w
}

// record records a pushed event, as the receiving side does.
func record(ctx context.Context, store *sqlite.Store, codec *adapter.Codec, body []byte, source string) error {
	batch, err := webhook.Decode(body, webhook.DialectAuto)
	if err != nil {
		return err
	}
	var id string
	var draft adapter.Draft
	switch {
	case batch[0].Admin != nil:
		a := batch[0].Admin
		id = a.ID
		draft = adapter.Draft{OccurredAt: a.Time, Payload: &adapter.AdminEventReceived{
			KeycloakEventID: a.ID, Time: a.Time, Realm: a.RealmName, OperationType: a.OperationType, ResourceType: a.ResourceType,
			ResourcePath: a.ResourcePath, Receipt: adapter.Receipt{Source: source},
		}}
	case batch[0].User != nil:
		u := batch[0].User
		id = u.ID
		draft = adapter.Draft{OccurredAt: u.Time, Payload: &adapter.UserEventReceived{
			KeycloakEventID: u.ID, Time: u.Time, Realm: u.RealmName, Type: u.Type, ClientID: u.ClientID, UserID: u.UserID,
			Details: u.Details, Receipt: adapter.Receipt{Source: source},
		}}
	default:
		return nil
	}
	e, err := codec.Encode(ctx, draft)
	if err != nil {
		return err
	}
	_, err = store.Append(ctx, eventstore.StreamAppend{Stream: adapter.DeliveryStream(id), Events: []eventstore.NewEvent{e}})
	return err
}

func (w *world) check() Report {
	w.t.Helper()
	report, err := w.checker.Check(w.t.Context(), name)
	require.NoError(w.t, err)
	return report
}

func (r Report) item(t *testing.T, name string) Item {
	t.Helper()
	at := slices.IndexFunc(r.Items, func(i Item) bool { return i.Name == name })
	require.GreaterOrEqual(t, at, 0, "nothing is said about %s in %+v", name, r)
	return r.Items[at]
}

// missing are the names of what is missing.
func (r Report) missing() []string {
	names := []string{}
	for _, i := range r.Items {
		if i.Status == Missing {
			names = append(names, i.Name)
		}
	}
	return names
}

var (
	everything = keycloaktest.RealmOptions{AdminEvents: true, AdminEventsDetails: true, UserEvents: true}
	// allRoles are those of README.md: manage-events is none of them.
	allRoles = []string{"view-realm", "view-users", "view-events", "view-clients", "manage-users", "view-organizations", "manage-organizations"}
)

func without(roles ...string) []string {
	return slices.DeleteFunc(slices.Clone(allRoles), func(r string) bool { return slices.Contains(roles, r) })
}

func TestNothingIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	w.realm.AddWebhook(w.hook, "")
	report := w.check()
	require.True(t, report.OK, "%+v", report)
	for _, i := range report.Items {
		require.Equal(t, OK, i.Status, "%+v", i)
		require.Empty(t, i.Cost)
		require.Empty(t, i.Next)
	}
	require.Contains(t, report.item(t, ItemPush).Detail, "source keycloak")
	require.True(t, w.check().OK, "and again: the event of the first check is not taken for the second's")
}

// Each role is missing: it is named, with what it costs and what to do. Who may manage
// may look as well, so those two are missing together.
func TestMissingRoles(t *testing.T) {
	t.Parallel()
	for role, want := range map[string]struct {
		without []string
		missing []string
		// push and pull are how these two stand, OK by default.
		pull Status
	}{
		"view-realm":           {missing: []string{ItemViewRealm}},
		"view-users":           {without: []string{"manage-users"}, missing: []string{ItemViewUsers, ItemManageUsers}},
		"view-events":          {missing: []string{ItemViewEvents}, pull: NotTried},
		"manage-users":         {missing: []string{ItemManageUsers}},
		"view-clients":         {missing: []string{ItemViewClients}},
		"view-organizations":   {without: []string{"manage-organizations"}, missing: []string{ItemViewOrgs, ItemManageOrgs}},
		"manage-organizations": {missing: []string{ItemManageOrgs}},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, everything, without(append(want.without, role)...)...)
			w.organizations()
			w.realm.AddWebhook(w.hook, "")
			_, err := w.realm.Register(keycloaktest.Registration{Username: "ada", Email: "ada@example.com", Password: "pw"})
			require.NoError(t, err)
			report := w.check()
			require.Equal(t, want.missing, report.missing())
			require.False(t, report.OK)
			for _, name := range want.missing {
				i := report.item(t, name)
				require.NotEmpty(t, i.Cost)
				require.Contains(t, i.Next, strings.TrimPrefix(name, "role "))
			}
			require.Equal(t, OK, report.item(t, ItemPush).Status, "a login needs no role")
			pull := report.item(t, ItemPull)
			require.Equal(t, cmp.Or(want.pull, OK), pull.Status)
			require.Equal(t, want.pull != "", report.Incomplete)
			if want.pull != "" {
				require.NotEmpty(t, pull.Detail)
				require.Contains(t, pull.Next, "view-events")
			}
			require.Zero(t, w.keycloak.Requests(http.MethodPut, "/admin/realms/acme/events/config"), "nothing was written")
		})
	}
}

// organizations switches them on and makes one.
func (w *world) organizations() {
	w.t.Helper()
	w.admin(http.MethodPut, "/admin/realms/"+name, map[string]any{"organizationsEnabled": true})
	w.admin(http.MethodPost, "/admin/realms/"+name+"/organizations", map[string]any{"name": "crew", "alias": "crew", "domains": []any{map[string]any{"name": "crew.example.com"}}})
}

func TestRolesThatListNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, append(without("view-clients", "view-organizations", "manage-organizations"), "query-clients", "query-organizations")...)
	w.organizations()
	w.realm.AddWebhook(w.hook, "")
	report := w.check()
	require.Equal(t, []string{ItemViewClients, ItemViewOrgs, ItemManageOrgs}, report.missing())
	require.Contains(t, report.item(t, ItemViewClients).Detail, "query-clients alone")
	require.Contains(t, report.item(t, ItemViewOrgs).Detail, "query-organizations alone")
}

// Where the token tells nothing, nothing is claimed.
func TestATokenWithoutRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, append(without("view-organizations", "manage-organizations"), "query-organizations")...)
	w.admin(http.MethodPut, "/admin/realms/"+name, map[string]any{"organizationsEnabled": true})
	w.realm.AddWebhook(w.hook, "")
	w.checker.Keycloak = silent{w.checker.Keycloak}
	report := w.check()
	require.Empty(t, report.missing())
	require.False(t, report.OK)
	require.True(t, report.Incomplete)
	for _, name := range []string{ItemManageUsers, ItemViewOrgs, ItemManageOrgs} {
		require.Equal(t, Unknown, report.item(t, name).Status, name)
		require.NotEmpty(t, report.item(t, name).Detail)
	}
}

// silent is a Keycloak whose tokens tell no roles.
type silent struct{ Keycloak }

func (silent) GrantedRoles(context.Context, string) ([]string, bool, error) { return nil, false, nil }

// The login of an account of another realm is no event of this one, so that only the
// event configuration is left, which needs a role of its own.
func TestAnAccountOfAnotherRealm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	w.realm.AddWebhook(w.hook, "")
	w.checker.Keycloak = elsewhere{w.checker.Keycloak}
	report := w.check()
	require.Empty(t, report.missing())
	require.False(t, report.OK, "nothing was proved")
	require.True(t, report.Incomplete)
	for _, name := range []string{ItemPush, ItemPull} {
		i := report.item(t, name)
		require.Equal(t, NotTried, i.Status)
		require.Contains(t, i.Detail, "the realm master")
		require.Contains(t, i.Next, "manage-events")
	}
	require.Zero(t, w.keycloak.Requests(http.MethodPut, "/admin/realms/acme/events/config"), "nothing was written")

	w = newWorld(t, everything, append(without(), "manage-events")...)
	w.realm.AddWebhook(w.hook, "")
	w.checker.Keycloak = elsewhere{w.checker.Keycloak}
	report = w.check()
	require.True(t, report.OK, "%+v", report)
	require.Equal(t, 1, w.keycloak.Requests(http.MethodPut, "/admin/realms/acme/events/config"))
	require.True(t, w.check().OK, "and again: the event of the first check is not taken for the second's")
}

// elsewhere is a Keycloak at which the service account is another realm's.
type elsewhere struct{ Keycloak }

func (elsewhere) AuthRealm() string { return "master" }

// A realm that does not save logins still pushes them; the list is proved by the event
// configuration where that may be written, and else left open.
func TestLoginsThatAreNotSaved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		roles  []string
		config map[string]any
		pull   Status
	}{
		"the type is not saved":       {nil, map[string]any{"eventsEnabled": true, "enabledEventTypes": []string{"LOGIN"}}, NotTried},
		"but another event may be":    {[]string{"manage-events"}, map[string]any{"eventsEnabled": true, "enabledEventTypes": []string{"LOGIN"}}, OK},
		"no user events are saved":    {nil, map[string]any{"eventsEnabled": false}, Missing},
		"and another event may be so": {[]string{"manage-events"}, map[string]any{"eventsEnabled": false}, OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, everything, append(without(), c.roles...)...)
			w.realm.AddWebhook(w.hook, "")
			config := map[string]any{"adminEventsEnabled": true, "adminEventsDetailsEnabled": true, "eventsListeners": []string{listener}}
			maps.Copy(config, c.config)
			w.admin(http.MethodPut, "/admin/realms/acme/events/config", config)
			report := w.check()
			require.Equal(t, OK, report.item(t, ItemPush).Status)
			pull := report.item(t, ItemPull)
			require.Equal(t, c.pull, pull.Status, "%+v", pull)
			require.Equal(t, c.pull == NotTried, report.Incomplete)
			require.Equal(t, c.pull == Missing, pull.Cost != "")
		})
	}
}

// A token without an id leaves nothing by which its login could be told.
func TestALoginThatCannotBeTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	w.realm.AddWebhook(w.hook, "")
	w.checker.Keycloak = anonymous{w.checker.Keycloak}
	report := w.check()
	require.Empty(t, report.missing())
	require.Equal(t, NotTried, report.item(t, ItemPush).Status)
	require.Equal(t, NotTried, report.item(t, ItemPull).Status)
}

type anonymous struct{ Keycloak }

func (anonymous) LogIn(context.Context) (string, error) { return "", nil }

func TestQueryUsersAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, "view-realm", "view-events", "query-users")
	_, err := w.realm.Register(keycloaktest.Registration{Username: "ada", Email: "ada@example.com", Password: "pw"})
	require.NoError(t, err)
	i := w.check().item(t, ItemViewUsers)
	require.Equal(t, Missing, i.Status)
	require.Contains(t, i.Detail, "query-users alone")
}

func TestMissingFlags(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keycloaktest.RealmOptions{Listeners: []string{"jboss-logging"}}, allRoles...)
	report := w.check()
	require.Equal(t, []string{ItemAdminEvents, ItemDetails, ItemUserEvents, ItemListener, ItemWebhook, ItemPull, ItemPush}, report.missing())
	for _, name := range report.missing() {
		require.NotEmpty(t, report.item(t, name).Cost, name)
		require.NotEmpty(t, report.item(t, name).Next, name)
	}
	require.Contains(t, report.item(t, ItemWebhook).Next, w.hook)
}

func TestMissingEventStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	w.realm.AddWebhook(w.hook, "")
	w.keycloak.SwitchEventStore(false)
	report := w.check()
	require.Equal(t, []string{ItemEventStore, ItemPull}, report.missing(), "the push works, so that nobody notices")
	require.Contains(t, report.item(t, ItemEventStore).Next, "--spi-events-store--provider=jpa")
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	w.checker.Wait = 300 * time.Millisecond
	w.realm.AddWebhook("http://127.0.0.1:9/webhooks/keycloak", "")
	report := w.check()
	require.Equal(t, []string{ItemWebhook, ItemPush}, report.missing())
	require.Contains(t, report.item(t, ItemWebhook).Detail, "http://127.0.0.1:9/webhooks/keycloak")
	require.Contains(t, report.item(t, ItemWebhook).Next, "KEYTRAIL_PUBLIC_URL")
	require.Contains(t, report.item(t, ItemPush).Detail, "within 300ms")

	require.True(t, sameSource("https://k.example/webhooks/second", "https://k.example/webhooks/keycloak"))
	require.False(t, sameSource("https://k.example/webhooks/", "https://k.example/webhooks/keycloak"))
	require.False(t, sameSource("https://other.example/webhooks/keycloak", "https://k.example/webhooks/keycloak"))
	require.True(t, takesAll([]string{"access.*", "admin.*"}))
	require.False(t, takesAll([]string{"admin.*"}))
}

// A webhook that no list shows, since Keycloak's environment names it, is none that is
// missing.
func TestAWebhookThatIsNotListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	w.realm.AddWebhook(w.hook, "")
	w.checker.WebhookURL = "https://keytrail.example.com/webhooks/keycloak"
	report := w.check()
	require.True(t, report.OK, "%+v", report)
	require.Contains(t, report.item(t, ItemWebhook).Detail, "events arrive all the same")
}

// A poll that is faster than the webhook leaves a delivery of its own source; the push
// only confirms it.
func TestAPushBehindAPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	store := w.checker.Log.(*sqlite.Store)
	stream := adapter.DeliveryStream("1")
	add := func(p adapter.Payload) {
		e, err := w.checker.Codec.Encode(t.Context(), adapter.Draft{OccurredAt: time.Unix(1, 0), Payload: p})
		require.NoError(t, err)
		_, err = store.Append(t.Context(), eventstore.StreamAppend{Stream: stream, Events: []eventstore.NewEvent{e}})
		require.NoError(t, err)
	}
	r := &run{Checker: w.checker, realm: name, config: &keycloak.EventsConfig{}}
	p := r.configProbe()
	pulled := map[string]bool{}
	add(&adapter.AdminEventReceived{Realm: name, ResourcePath: configPath, Receipt: adapter.Receipt{Source: sourcePoll}})
	source, next, err := r.arrived(t.Context(), p, 0, pulled)
	require.NoError(t, err)
	require.Empty(t, source)
	require.EqualValues(t, 1, next)
	add(&adapter.AdminEventReceived{Realm: "globex", ResourcePath: configPath, Receipt: adapter.Receipt{Source: "keycloak"}})
	add(&adapter.DeliveryConfirmed{Receipt: adapter.Receipt{Source: "keycloak"}})
	source, _, err = r.arrived(t.Context(), p, next, pulled)
	require.NoError(t, err)
	require.Equal(t, "keycloak", source)
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	report, err := w.checker.Check(t.Context(), "nowhere")
	require.NoError(t, err)
	require.Equal(t, []string{ItemRealm}, report.missing())
	require.Len(t, report.Items, 1)

	wrong, err := admin.New(admin.Config{BaseURL: w.keycloak.URL(), AuthRealm: name, ClientID: "keytrail", ClientSecret: "wrong-canary"})
	require.NoError(t, err)
	t.Cleanup(wrong.Close)
	w.checker.Keycloak = wrong
	_, err = w.checker.Check(t.Context(), name)
	require.Equal(t, adapter.CodeKeycloakUnauthorized, adapter.CodeOf(err), "%v", err)
	require.NotContains(t, err.Error(), "canary")

	w.keycloak.Close()
	_, err = w.checker.Check(t.Context(), name)
	require.Equal(t, adapter.CodeKeycloakUnreachable, adapter.CodeOf(err), "%v", err)
	var e *adapter.Error
	require.ErrorAs(t, err, &e)
	require.NotEmpty(t, e.Try)
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything, allRoles...)
	ctx, cancel := context.WithCancel(t.Context())
	w.checker.Log = cancelling{Log: w.checker.Log, cancel: cancel}
	_, err := w.checker.Check(ctx, name)
	require.ErrorIs(t, err, context.Canceled)
}

// cancelling gives up as soon as the push is waited for.
type cancelling struct {
	Log
	cancel context.CancelFunc
}

func (c cancelling) Wait(ctx context.Context, after eventstore.Position) (eventstore.Position, error) {
	c.cancel()
	return c.Log.Wait(ctx, after)
}

func TestWriteText(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	missing := Item{Name: ItemViewUsers, Status: Missing, Detail: "Keycloak answered 403", Cost: "no reconciliation", Next: "give it"}
	open := Item{Name: ItemPush, Status: NotTried, Detail: "it needs manage-events"}
	require.NoError(t, WriteText(&b, Report{Realm: name, Items: []Item{{Name: ItemViewRealm, Status: OK}, missing, open}}))
	require.Equal(t, `Realm acme: 1 thing is missing, and 1 not proved.

  ok         role view-realm
  MISSING    role view-users: Keycloak answered 403
             costs: no reconciliation
             next:  give it
  not tried  push: it needs manage-events
`, b.String())
	require.Error(t, WriteText(broken{}, Report{}))

	require.Equal(t, "nothing is missing", headline(Report{}))
	require.Equal(t, "2 things are missing", headline(Report{Items: []Item{missing, missing}}))
	require.Equal(t, "not proved: pull, push. Everything else is there", headline(Report{Items: []Item{{Name: ItemPull, Status: Unknown}, open}}))
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("pipe is closed") }

// admin does something as the administrator of the realm master.
func (w *world) admin(method, path string, body any) {
	w.t.Helper()
	form := url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"},
		"username": {keycloaktest.AdminUser}, "password": {keycloaktest.AdminPassword},
	}
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	w.send(http.MethodPost, "/realms/master/protocol/openid-connect/token", "application/x-www-form-urlencoded", "", []byte(form.Encode()), &grant)
	content, err := json.Marshal(body)
	require.NoError(w.t, err)
	w.send(method, path, "application/json", grant.AccessToken, content, nil)
}

func (w *world) send(method, path, contentType, token string, body []byte, into any) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.keycloak.URL()+path, bytes.NewReader(body))
	require.NoError(w.t, err)
	req.Header.Set("Content-Type", contentType)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(w.t, err)
	answer, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	require.NoError(w.t, resp.Body.Close())
	require.Less(w.t, resp.StatusCode, 300, "%s %s: %s", method, path, answer)
	if into != nil {
		require.NoError(w.t, json.Unmarshal(answer, into))
	}
}
