package reconcile

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

// wired is a world whose live side is the Admin API client against the fake Keycloak.
func wired(t *testing.T, roles ...string) (*world, *keycloaktest.Server, *keycloaktest.Realm) {
	t.Helper()
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	live := server.AddRealm(realm, keycloaktest.RealmOptions{})
	live.AddClient("keytrail", "secret", roles...)
	client, err := admin.New(admin.Config{
		BaseURL: server.URL(), AuthRealm: realm, ClientID: "keytrail", ClientSecret: "secret",
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	w := newWorld(t, func(c *Config) { c.Live = client })
	live.BehindOurBack(func(users map[string]*keycloaktest.User) {
		for id, name := range map[string]string{"a": "ann", "b": "bob", "c": "cleo", "f:ldap:7": "dora"} {
			users[id] = &keycloaktest.User{
				Username: name, Email: name + "@example.org", Enabled: true,
				Attributes:       map[string][]string{"team": {"blue", "red"}},
				CreatedTimestamp: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).UnixMilli(),
			}
		}
	})
	return w, server, live
}

func TestOverTheWire(t *testing.T) {
	t.Parallel()
	w, _, live := wired(t, "view-users")
	first := w.run()
	require.Equal(t, InSync, first.Verdict)
	require.Equal(t, 4, first.Baselined)
	w.clock.advance(time.Hour)
	require.Equal(t, 4, w.run().InSync)

	live.BehindOurBack(func(users map[string]*keycloaktest.User) {
		users["a"].Enabled, users["a"].FirstName = false, "Mallory"
		users["b"].Attributes = nil
		delete(users, "f:ldap:7")
		users["e"] = &keycloaktest.User{Username: "eve", Enabled: true, CreatedTimestamp: 1}
	})
	res := w.run()
	require.Equal(t, map[adapter.Situation]int{
		adapter.SituationChanged: 2, adapter.SituationMissingLive: 1, adapter.SituationUnexpectedLive: 1,
	}, res.Counts)
	require.Equal(t, "a", res.Findings[0].UserID)
	require.Len(t, res.Findings[0].Fields, 2)
	require.Equal(t, adapter.FieldAttributes, res.Findings[1].Fields[0].Field)
	require.JSONEq(t, `null`, string(res.Findings[1].Fields[0].Actual))
	require.Equal(t, "f:ldap:7", res.Findings[3].UserID)
	require.Equal(t, res.Findings, w.run().Findings)
}

func TestInvalidOverTheWire(t *testing.T) {
	t.Parallel()
	users := "/admin/realms/*/users"
	for name, c := range map[string]struct {
		roles []string
		fault keycloaktest.Fault
		code  adapter.Code
		says  string
	}{
		"query-users alone": {roles: []string{"query-users"}, code: adapter.CodeListingEmpty, says: "view-users"},
		"no role":           {code: adapter.CodeKeycloakForbidden, says: "view-users"},
		"cut second page": {
			roles: []string{"view-users"}, fault: keycloaktest.Fault{Pattern: users, Skip: 1, Truncate: true},
			code: adapter.CodeListingIncomplete, says: "from 3 on",
		},
		"empty second page": {
			roles: []string{"view-users"}, fault: keycloaktest.Fault{Pattern: users, Skip: 1, EmptyList: true},
			code: adapter.CodeListingIncomplete, says: "lists only 3",
		},
		"dropped connection": {
			roles: []string{"view-users"}, fault: keycloaktest.Fault{Pattern: users, DropBefore: true},
			code: adapter.CodeKeycloakUnreachable, says: "KEYTRAIL_KEYCLOAK_URL",
		},
		"proxy's page": {
			roles: []string{"view-users"}, fault: keycloaktest.Fault{Pattern: users, Status: 200, Body: "<html>"},
			code: adapter.CodeListingIncomplete, says: "proxy",
		},
		"unavailable": {
			roles: []string{"view-users"}, fault: keycloaktest.Fault{Pattern: users + "/count", Status: 503},
			code: adapter.CodeKeycloakUnavailable, says: "counting",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, server, _ := wired(t, c.roles...)
			if c.fault.Pattern != "" {
				server.Inject(c.fault)
			}
			res, err := w.fail(t.Context())
			require.Equal(t, c.code, err.Code, err.Detail)
			require.Equal(t, adapter.RunInvalid, res.Status)
			require.Contains(t, res.Error, c.says)
		})
	}
}
