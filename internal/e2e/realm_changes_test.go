package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// What Keycloak reports once for the realm, and not for the users whom it concerns.
func TestRealmChanges(t *testing.T) {
	t.Parallel()
	settings := object{
		"organizationsEnabled": true, "bruteForceProtected": true, "failureFactor": 2,
		"waitIncrementSeconds": 600, "maxFailureWaitSeconds": 900,
	}
	onBothStores(t, options{settings: settings, poll: 5 * time.Second}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.webhookURL())
		ada := b.create("/users", object{
			"username": "ada", "enabled": true, "email": "ada@example.com", "firstName": "Ada", "lastName": "Moss",
			"credentials": []object{{"type": "password", "value": "correct-horse", "temporary": false}},
		})
		role := func(path, name string) object {
			b.create(path, object{"name": name})
			return live[object](b, path+"/"+name)
		}
		auditor, clerk := role("/roles", "auditor"), role("/roles", "clerk")
		b.admin(http.MethodPost, "/users/"+ada+"/role-mappings/realm", []object{auditor, clerk})
		crm := b.create("/clients", object{"clientId": "crm", "enabled": true})
		viewer, editor := role("/clients/"+crm+"/roles", "viewer"), role("/clients/"+crm+"/roles", "editor")
		b.admin(http.MethodPost, "/users/"+ada+"/role-mappings/clients/"+crm, []object{viewer, editor})
		staff, sales := b.create("/groups", object{"name": "staff"}), b.create("/groups", object{"name": "sales"})
		b.create("/groups/"+staff+"/children", object{"name": "north"})
		north := live[[]object](b, "/groups/"+staff+"/children")[0]["id"].(string) //nolint:forcetypeassert // fails the test
		b.admin(http.MethodPut, "/users/"+ada+"/groups/"+north, nil)
		b.admin(http.MethodPut, "/users/"+ada+"/groups/"+sales, nil)
		blue := b.create("/organizations", object{"name": "Blue", "alias": "blue", "domains": []object{{"name": "blue.example"}}})
		_, err := b.realm.Do(t.Context(), http.MethodPost, "/organizations/"+blue+"/members", ada, nil)
		require.NoError(t, err)

		holds := func(fact string, check func(u adapter.User) bool) {
			t.Helper()
			var believed adapter.User
			t.Cleanup(func() {
				if t.Failed() && !check(believed) {
					t.Logf("%s: %+v, to be read: %+v", fact, believed.View(), believed.Unread)
				}
			})
			b.untilOutside(fact, func() bool {
				u, known, err := b.app.Users.Get(t.Context(), b.realm.Name, ada)
				require.NoError(t, err)
				believed = u
				return known && u.Unread == nil && check(u)
			})
		}
		// The membership of the organization is told by the user's name only.
		holds("all that was given", func(u adapter.User) bool {
			return len(u.Roles) == 2 && len(u.ClientRoles["crm"]) == 2 && len(u.Groups) == 2 &&
				len(u.Organizations) == 1 && u.Organizations[0].Alias == "blue"
		})

		// As the admin console deletes a role, the event names it by id alone.
		b.admin(http.MethodDelete, "/roles-by-id/"+auditor["id"].(string), nil) //nolint:forcetypeassert // fails the test
		b.admin(http.MethodPut, "/roles/clerk", object{"name": "scribe"})
		b.admin(http.MethodDelete, "/clients/"+crm+"/roles/editor", nil)
		b.admin(http.MethodPut, "/groups/"+staff, object{"name": "people"})
		b.admin(http.MethodDelete, "/groups/"+sales, nil)
		holds("renamed and deleted", func(u adapter.User) bool {
			return strings.Join(u.Roles, " ") == "scribe" && strings.Join(u.ClientRoles["crm"], " ") == "viewer" &&
				strings.Join(u.Groups, " ") == "/people/north"
		})
		b.admin(http.MethodDelete, "/roles-by-id/"+viewer["id"].(string), nil) //nolint:forcetypeassert // fails the test
		b.admin(http.MethodDelete, "/groups/"+staff, nil)
		b.admin(http.MethodDelete, "/organizations/"+blue, nil)
		holds("nothing left", func(u adapter.User) bool {
			return len(u.ClientRoles) == 0 && len(u.Groups) == 0 && len(u.Organizations) == 0
		})

		lock := func() {
			t.Helper()
			status := func() object { return live[object](b, "/attack-detection/brute-force/users/"+ada) }
			// Keycloak counts failures behind the login's back, and now and then not both of two
			// that come right after each other, or locks and tells nobody.
			told := func(since time.Time) bool {
				return slices.ContainsFunc(live[[]object](b, "/events?type=USER_DISABLED_BY_TEMPORARY_LOCKOUT"), func(e object) bool {
					return time.UnixMilli(int64(e["time"].(float64))).After(since) //nolint:forcetypeassert // fails the test
				})
			}
			var tried time.Time
			b.untilOutside("the lock-out", func() bool {
				if time.Since(tried) > 10*time.Second {
					b.admin(http.MethodDelete, "/attack-detection/brute-force/users/"+ada, nil)
					tried = time.Now()
					for range 2 {
						_, err := b.realm.LogIn(t.Context(), "ada", "wrong")
						require.Error(t, err)
					}
				}
				return status()["disabled"] == true && told(tried)
			})
			until := time.Unix(int64(status()["failedLoginNotBefore"].(float64)), 0) //nolint:forcetypeassert // fails the test
			holds("the end of the lock-out", func(u adapter.User) bool { return u.LockedUntil != nil && u.LockedUntil.Equal(until) && u.Enabled })
		}
		unlocked := func(u adapter.User) bool { return u.LockedUntil == nil }
		lock()
		b.admin(http.MethodDelete, "/attack-detection/brute-force/users", nil)
		holds("all lock-outs ended", unlocked)
		lock()
		b.admin(http.MethodPut, "/users/"+ada, object{"enabled": true})
		holds("the lock-out ended by enabling", unlocked)
		b.inSync()
	})
}
