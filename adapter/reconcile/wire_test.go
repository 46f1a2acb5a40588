package reconcile

import (
	"fmt"
	"net/http"
	"slices"
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

// everything is what a service account needs to have all compared.
var everything = []string{"view-users", "view-realm", "view-clients", "view-organizations"}

func TestMembershipsOverTheWire(t *testing.T) {
	t.Parallel()
	for name, users := range sizes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, server, live := wired(t, everything...)
			live.AddRole("auditor")
			live.AddRole("a/b")
			staff := live.AddGroup("staff")
			live.BehindOurBack(func(all map[string]*keycloaktest.User) {
				for i := range 2 * users {
					all[fmt.Sprintf("x%03d", i)] = &keycloaktest.User{Username: fmt.Sprintf("x%03d", i), Enabled: true, RealmRoles: []string{"a/b"}, CreatedTimestamp: 1}
				}
				all["a"].RealmRoles, all["a"].Groups = []string{"auditor", "default-roles-acme"}, []string{staff}
				all["a"].ClientRoles = map[string][]string{"realm-management": {"view-users", "query-users"}}
			})
			require.Equal(t, InSync, w.run().Verdict)
			members := server.Requests(http.MethodGet, "/admin/realms/*/groups/*/members")
			require.Equal(t, name == "swept", members > 0, "%d requests", members)
			require.NoError(t, w.projection.CatchUp(t.Context(), realm))
			ann := w.projection.users["a"]
			require.Equal(t, []string{"auditor"}, ann.Roles)
			require.Equal(t, map[string][]string{"realm-management": {"query-users", "view-users"}}, ann.ClientRoles)
			require.Equal(t, []string{"/staff"}, ann.Groups)
			require.Equal(t, []string{"a/b"}, w.projection.users["x001"].Roles)

			w.clock.advance(time.Hour)
			res := w.run()
			require.Equal(t, InSync, res.Verdict)
			require.Zero(t, res.Observed)
			require.Len(t, res.NotCompared, 1, "the realm has no organizations")
			live.BehindOurBack(func(all map[string]*keycloaktest.User) {
				all["a"].RealmRoles = []string{"a/b"}
				all["a"].ClientRoles = map[string][]string{"realm-management": {"view-users"}}
				all["a"].Groups, all["x001"].Groups = nil, []string{staff}
			})
			res = w.run()
			require.Len(t, res.Findings, 2)
			require.Equal(t, []string{adapter.FieldRoles, adapter.FieldClientRoles, adapter.FieldGroups}, fieldsOf(res.Findings[0]))
			require.Equal(t, []string{"a/b"}, res.Findings[0].Fields[0].Added)
			require.Equal(t, []string{"auditor"}, res.Findings[0].Fields[0].Removed)
			require.Equal(t, []string{"realm-management/query-users"}, res.Findings[0].Fields[1].Removed)
			require.Equal(t, []string{"/staff"}, res.Findings[1].Fields[0].Added)

			_, err := w.runner.Baseline(t.Context(), Request{Realm: realm})
			require.NoError(t, err)
			require.Equal(t, InSync, w.run().Verdict)
		})
	}
}

// Each role alone leaves out what it does not open, and calls none of that drift.
func TestMembershipsByRole(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		roles   []string
		without []string
	}{
		"view-users":              {roles: []string{"view-users"}, without: []string{adapter.FieldClientRoles, adapter.FieldOrganizations}},
		"and query-clients":       {roles: []string{"view-users", "query-clients"}, without: []string{adapter.FieldClientRoles, adapter.FieldOrganizations}},
		"and view-clients":        {roles: []string{"view-users", "view-clients"}, without: []string{adapter.FieldOrganizations}},
		"and view-realm":          {roles: []string{"view-users", "view-realm"}, without: []string{adapter.FieldClientRoles, adapter.FieldOrganizations}},
		"and query-organizations": {roles: []string{"view-users", "view-clients", "query-organizations"}, without: []string{adapter.FieldOrganizations}},
	} {
		for way, users := range sizes {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				w, _, live := wired(t, c.roles...)
				live.AddRole("auditor")
				live.BehindOurBack(func(all map[string]*keycloaktest.User) {
					for i := range 2 * users {
						all[fmt.Sprintf("x%03d", i)] = &keycloaktest.User{
							Username: fmt.Sprintf("x%03d", i), Enabled: true, RealmRoles: []string{"auditor"}, CreatedTimestamp: 1,
							ClientRoles: map[string][]string{"realm-management": {"view-users"}},
						}
					}
				})
				// Events have told of client roles and of an organization.
				w.happened(w.clock.Now(), &adapter.UserApiBaselined{UserRef: ref("x001"), Memberships: adapter.Memberships{
					Roles: adapter.Set([]string{"auditor"}), ClientRoles: adapter.Set(map[string][]string{"realm-management": {"view-users"}}),
					Organizations: adapter.Set([]adapter.Organization{{ID: "o", Alias: "moss"}}),
				}})
				w.clock.advance(time.Hour)
				res := w.run()
				require.Equal(t, InSync, res.Verdict)
				var without []string
				for _, n := range res.NotCompared {
					without = append(without, n.Field)
				}
				require.Equal(t, c.without, without)
				require.NoError(t, w.projection.CatchUp(t.Context(), realm))
				require.Equal(t, []string{"auditor"}, w.projection.users["x002"].Roles)
				_, known := w.projection.users["x002"].Origins[adapter.FieldClientRoles]
				require.Equal(t, !slices.Contains(without, adapter.FieldClientRoles), known)
			})
		}
	}
}

func TestCutMembershipsOverTheWire(t *testing.T) {
	t.Parallel()
	for pattern, field := range map[string]string{
		"/admin/realms/*/roles/auditor/users": adapter.FieldRoles,
		"/admin/realms/*/groups":              adapter.FieldGroups,
		"/admin/realms/*/groups/*/members":    adapter.FieldGroups,
		"/admin/realms/*/clients":             adapter.FieldClientRoles,
	} {
		for name, fault := range map[string]keycloaktest.Fault{
			"cut":    {Pattern: pattern, Truncate: true},
			"proxy":  {Pattern: pattern, Status: http.StatusOK, Body: "<html>"},
			"absent": {Pattern: pattern, DropBefore: true},
		} {
			t.Run(field+"/"+name, func(t *testing.T) {
				t.Parallel()
				w, server, live := wired(t, everything...)
				live.AddRole("auditor")
				staff := live.AddGroup("staff")
				live.BehindOurBack(func(all map[string]*keycloaktest.User) {
					for i := range 100 {
						all[fmt.Sprintf("x%03d", i)] = &keycloaktest.User{
							Username: fmt.Sprintf("x%03d", i), Enabled: true, RealmRoles: []string{"auditor"}, Groups: []string{staff}, CreatedTimestamp: 1,
						}
					}
				})
				require.Equal(t, InSync, w.run().Verdict)
				w.clock.advance(time.Hour)
				heal := server.Inject(fault)
				res := w.run()
				require.Equal(t, Incomplete, res.Verdict)
				require.Equal(t, field, res.NotCompared[0].Field)
				require.Empty(t, res.Findings)
				heal()
				require.Equal(t, InSync, w.run().Verdict)
			})
		}
	}
}
