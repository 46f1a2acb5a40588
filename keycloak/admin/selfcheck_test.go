package admin_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak/admin"
)

// token makes a token of claims that nobody signed.
func token(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"
}

func TestGrantedRoles(t *testing.T) {
	t.Parallel()
	const realmClaims = `{"realm_access":{"roles":["offline_access"]},"resource_access":{` +
		`"realm-management":{"roles":["view-users","manage-users"]},"globex-realm":{"roles":["view-events"]}}}`
	for name, c := range map[string]struct {
		token, realm string
		roles        []string
		told         bool
	}{
		"its own realm":           {token(realmClaims), "acme", []string{"manage-users", "view-users"}, true},
		"another one":             {token(realmClaims), "globex", []string{"view-events"}, true},
		"one without any":         {token(realmClaims), "initech", nil, true},
		"a lightweight token":     {token(`{"azp":"keytrail"}`), "acme", nil, false},
		"a token that is no JWT":  {"opaque", "acme", nil, false},
		"a token that is no JSON": {token("{"), "acme", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(http.ResponseWriter, *http.Request) {})
			s.tokenFor = func(w http.ResponseWriter, _ int) {
				_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_in":60}`, c.token)
			}
			roles, told, err := newClient(t, s.URL).GrantedRoles(t.Context(), c.realm)
			require.NoError(t, err)
			require.Equal(t, c.told, told)
			require.Equal(t, c.roles, roles)
		})
	}
}

func TestLogIn(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(http.ResponseWriter, *http.Request) {})
	ids := []string{`{"jti":"trrtcc:1"}`, `{"jti":"trrtcc:2"}`, `{}`}
	s.tokenFor = func(w http.ResponseWriter, n int) {
		if n > len(ids) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_in":60}`, token(ids[n-1]))
	}
	c := newClient(t, s.URL)
	for _, want := range []string{"trrtcc:1", "trrtcc:2", ""} {
		id, err := c.LogIn(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, id, "each login is a new one")
	}
	_, err := c.LogIn(t.Context())
	var refused *admin.TokenError
	require.ErrorAs(t, err, &refused)
}

func TestRepeatEventsConfigWritesWhatItRead(t *testing.T) {
	t.Parallel()
	// A member that keytrail does not know, and a number that a float64 would change.
	const config = `{"eventsEnabled":true,"somethingNew":[1,2],"eventsExpiration":9007199254740993}`
	var written string
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, config)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		written = string(body)
		w.WriteHeader(http.StatusNoContent)
	})
	require.NoError(t, newClient(t, s.URL).RepeatEventsConfig(t.Context(), "acme"))
	require.Equal(t, config, written)
	require.Equal(t, []string{"GET /admin/realms/acme/events/config", "PUT /admin/realms/acme/events/config"}, s.arrived)
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"id":"1","enabled":true,"url":"http://127.0.0.1:8085/webhooks/keycloak","createdBy":"x","eventTypes":["*"]}]`)
	})
	webhooks, err := newClient(t, s.URL).Webhooks(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, []admin.Webhook{{ID: "1", Enabled: true, URL: "http://127.0.0.1:8085/webhooks/keycloak", EventTypes: []string{"*"}}}, webhooks)
	require.Equal(t, []string{"GET /realms/acme/webhooks"}, s.arrived)
}
