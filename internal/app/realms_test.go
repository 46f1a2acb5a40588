package app_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

// served is a keytrail that does not poll, beside a fake Keycloak.
type served struct {
	*app.App
	t    *testing.T
	url  string
	stop func()
}

func serve(t *testing.T, server *keycloaktest.Server, store string) *served {
	t.Helper()
	cfg, err := config.Load(config.Input{Env: []string{
		"KEYTRAIL_STORE_URL=sqlite:" + store, "KEYTRAIL_LISTEN=127.0.0.1:0",
		"KEYTRAIL_KEYCLOAK_URL=" + server.URL(), "KEYTRAIL_KEYCLOAK_REALMS=" + realm, "KEYTRAIL_KEYCLOAK_AUTH_REALM=" + realm,
		"KEYTRAIL_KEYCLOAK_CLIENT_ID=keytrail", "KEYTRAIL_KEYCLOAK_CLIENT_SECRET=secret",
		"KEYTRAIL_POLL_INTERVAL=0", "KEYTRAIL_RECONCILE_INTERVAL=0",
	}})
	require.NoError(t, err)
	require.NoError(t, app.Migrate(t.Context(), cfg))
	a, err := app.Open(t.Context(), cfg, app.Options{Retry: app.Retry{Max: 1, WaitMin: time.Millisecond, WaitMax: time.Millisecond}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- a.Serve(ctx, app.ServeOptions{Ready: func(url string) { ready <- url }}) }()
	s := &served{App: a, t: t}
	s.stop = func() {
		s.stop = func() {}
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, a.Close())
	}
	t.Cleanup(func() { s.stop() })
	select {
	case s.url = <-ready:
	case err := <-ended:
		require.NoError(t, err)
	}
	return s
}

// push sends the creation of a user, whose realm has only its UUID.
func (s *served) push(realmID, user string) {
	s.t.Helper()
	body := fmt.Sprintf(`{"id":"created-%s","time":1795414707610,"realmId":%q,"operationType":"CREATE","resourceType":"USER",`+
		`"resourcePath":"users/%s","representation":"{\"username\":\"bob\"}","authDetails":{"clientId":"c1","userId":"a1"}}`, user, realmID, user)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/webhooks/keycloak", strings.NewReader(body))
	require.NoError(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	require.NoError(s.t, answer.Body.Close())
	require.Equal(s.t, http.StatusAccepted, answer.StatusCode)
}

func (s *served) history(user string) int {
	s.t.Helper()
	head, err := s.Store.Head(s.t.Context())
	require.NoError(s.t, err)
	require.NoError(s.t, s.Engine.CatchUp(s.t.Context(), head))
	events, err := s.Codec.ReadStream(s.t.Context(), s.Store, adapter.UserStream(realm, user))
	require.NoError(s.t, err)
	return len(events)
}

// Keycloak is down when keytrail starts, and nothing is polled. What is pushed with
// the realm's UUID alone is interpreted as soon as Keycloak tells whose it is.
func TestRealmsAreLearnedWheneverKeycloakAnswers(t *testing.T) {
	t.Parallel()
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	live := server.AddRealm(realm, keycloaktest.RealmOptions{})
	live.AddClient("keytrail", "secret", "view-users", "view-events", "view-realm")
	store := filepath.Join(t.TempDir(), "keytrail.db")

	up := server.Inject(keycloaktest.Fault{Pattern: "**", Status: http.StatusServiceUnavailable})
	s := serve(t, server, store)
	s.push(live.ID(), "1")
	require.Zero(t, s.history("1"))
	up()
	require.Eventually(t, func() bool { return s.history("1") == 1 }, 30*time.Second, 20*time.Millisecond)
	s.push(live.ID(), "2")
	require.Equal(t, 1, s.history("2"))

	// Once told, it is known at every start.
	require.Eventually(t, func() bool {
		record, _, err := s.Leases.Read(t.Context(), "realm/"+realm)
		return err == nil && record.State != nil
	}, 30*time.Second, 20*time.Millisecond)
	s.stop()
	server.Inject(keycloaktest.Fault{Pattern: "**", Status: http.StatusServiceUnavailable})
	s = serve(t, server, store)
	s.push(live.ID(), "3")
	require.Equal(t, 1, s.history("3"))
}
