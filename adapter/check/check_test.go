package check

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
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

// record records a pushed admin event, as the receiving side does.
func record(ctx context.Context, store *sqlite.Store, codec *adapter.Codec, body []byte, source string) error {
	batch, err := webhook.Decode(body, webhook.DialectAuto)
	if err != nil || batch[0].Admin == nil {
		return err
	}
	a := batch[0].Admin
	e, err := codec.Encode(ctx, adapter.Draft{OccurredAt: a.Time, Payload: &adapter.AdminEventReceived{
		KeycloakEventID: a.ID, Time: a.Time, Realm: a.RealmName, OperationType: a.OperationType, ResourceType: a.ResourceType,
		ResourcePath: a.ResourcePath, Receipt: adapter.Receipt{Source: source},
	}})
	if err != nil {
		return err
	}
	_, err = store.Append(ctx, eventstore.StreamAppend{Stream: adapter.DeliveryStream(a.ID), Events: []eventstore.NewEvent{e}})
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
	allRoles   = []string{"view-realm", "view-users", "view-events", "manage-users", "manage-events"}
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
		without  []string
		missing  []string
		notTried bool
	}{
		"view-realm":    {missing: []string{ItemViewRealm}},
		"view-users":    {without: []string{"manage-users"}, missing: []string{ItemViewUsers, ItemManageUsers}},
		"view-events":   {without: []string{"manage-events"}, missing: []string{ItemViewEvents}, notTried: true},
		"manage-users":  {missing: []string{ItemManageUsers}},
		"manage-events": {missing: []string{}, notTried: true},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, everything, without(append(want.without, role)...)...)
			w.realm.AddWebhook(w.hook, "")
			_, err := w.realm.Register(keycloaktest.Registration{Username: "ada", Email: "ada@example.com", Password: "pw"})
			require.NoError(t, err)
			report := w.check()
			require.Equal(t, want.missing, report.missing())
			require.Equal(t, len(want.missing) == 0, report.OK)
			for _, name := range want.missing {
				i := report.item(t, name)
				require.NotEmpty(t, i.Cost)
				require.Contains(t, i.Next, strings.TrimPrefix(name, "role "))
			}
			if want.notTried {
				for _, name := range []string{ItemPush, ItemPull} {
					require.Equal(t, NotTried, report.item(t, name).Status)
					require.NotEmpty(t, report.item(t, name).Detail)
				}
				require.Zero(t, w.keycloak.Requests(http.MethodPut, "/admin/realms/acme/events/config"), "nothing was written")
			}
		})
	}
}

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
	r := &run{Checker: w.checker, realm: name}
	pulled := map[string]bool{}
	add(&adapter.AdminEventReceived{Realm: name, ResourcePath: selfTestPath, Receipt: adapter.Receipt{Source: sourcePoll}})
	source, next, err := r.arrived(t.Context(), 0, pulled)
	require.NoError(t, err)
	require.Empty(t, source)
	require.EqualValues(t, 1, next)
	add(&adapter.AdminEventReceived{Realm: "globex", ResourcePath: selfTestPath, Receipt: adapter.Receipt{Source: "keycloak"}})
	add(&adapter.DeliveryConfirmed{Receipt: adapter.Receipt{Source: "keycloak"}})
	source, _, err = r.arrived(t.Context(), next, pulled)
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
	require.NoError(t, WriteText(&b, Report{Realm: name, Items: []Item{
		{Name: ItemViewRealm, Status: OK},
		{Name: ItemViewUsers, Status: Missing, Detail: "Keycloak answered 403", Cost: "no reconciliation", Next: "give it"},
		{Name: ItemPush, Status: NotTried, Detail: "it needs manage-events"},
	}}))
	require.Equal(t, `Realm acme: 1 thing is missing.

  ok         role view-realm
  MISSING    role view-users: Keycloak answered 403
             costs: no reconciliation
             next:  give it
  not tried  push: it needs manage-events
`, b.String())
	require.Error(t, WriteText(broken{}, Report{}))
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("pipe is closed") }
