package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// raceRounds is how often the race is run; more than once is for whoever has the time
// (KEYTRAIL_RACE_ROUNDS=5: see docs/keycloak-notes.md for what came of it).
func raceRounds(t *testing.T) int {
	t.Helper()
	rounds := 1
	if text := os.Getenv("KEYTRAIL_RACE_ROUNDS"); text != "" {
		var err error
		rounds, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	return rounds
}

// asItIs sees that what is believed of a user is what is, without any reconciliation.
func (b *bundle) asItIs(id string) {
	b.t.Helper()
	believed := b.believed(id)
	is := live[object](b, "/users/"+id)
	require.Equal(b.t, is["enabled"], believed.Enabled)
	require.Equal(b.t, is["emailVerified"], believed.EmailVerified)
	require.Equal(b.t, is["firstName"], *believed.FirstName)
	require.Equal(b.t, is["lastName"], *believed.LastName)
	names := func(rest, field string) []string {
		var all []string
		for _, o := range live[[]object](b, "/users/"+id+rest) {
			if name := o[field].(string); !strings.HasPrefix(name, "default-roles-") { //nolint:forcetypeassert // fails the test
				all = append(all, name)
			}
		}
		slices.Sort(all)
		return all
	}
	require.Equal(b.t, names("/role-mappings/realm", "name"), believed.Roles)
	require.Equal(b.t, names("/groups", "path"), believed.Groups)
}

// Eight administrators change one user at once, a thousand times. Neither the times of Keycloak's events nor the order of their arrival tell which change
// was the last; once the reads that follow have settled, what is believed is what is.
//
// It is not parallel to other tests: the webhook's sender has two threads for all realms,
// and others would wait behind a thousand events for theirs.
func TestAdministratorsRace(t *testing.T) {
	onBothStores(t, options{poll: 5 * time.Second}, func(t *testing.T, b *bundle) {
		const administrators, changes = 8, 1000
		b.start()
		b.register(b.webhookURL())
		roles := []object{}
		for i := range administrators {
			b.create("/roles", object{"name": fmt.Sprint("role", i)})
			roles = append(roles, live[object](b, fmt.Sprint("/roles/role", i)))
		}
		group := b.create("/groups", object{"name": "staff"})
		for round := range raceRounds(t) {
			id := b.create("/users", object{"username": fmt.Sprint("user", round), "enabled": true})
			var all sync.WaitGroup
			failed := make(chan error, changes)
			for who := range administrators {
				all.Go(func() {
					for n := range changes / administrators {
						method, path, body := http.MethodPut, "/users/"+id, any(nil)
						switch n % 5 {
						case 0:
							body = object{"firstName": fmt.Sprintf("First %d %d", who, n)}
						case 1:
							body = object{"enabled": (who+n)%2 == 0, "lastName": fmt.Sprintf("Last %d", n)}
						case 2:
							body = object{"emailVerified": (who+n)%3 == 0}
						case 3:
							method, path, body = http.MethodPost, path+"/role-mappings/realm", []object{roles[(who+n)%administrators]}
							if (who+n)%2 == 0 {
								method = http.MethodDelete
							}
						case 4:
							path += "/groups/" + group
							if (who+n)%2 == 0 {
								method = http.MethodDelete
							}
						}
						// Of two that give or take the same at once Keycloak may refuse one.
						if status, err := b.realm.Do(t.Context(), method, path, body, nil); err != nil && status == 0 {
							failed <- err
						}
					}
				})
			}
			all.Wait()
			require.Empty(t, failed)
			stored := b.stored()
			var looked time.Time
			b.within(5*time.Minute, "every event that Keycloak stored", func() bool {
				if time.Since(looked) < time.Second {
					return false // reading the whole log takes its time
				}
				have := b.received()
				looked = time.Now()
				return !slices.ContainsFunc(stored, func(id string) bool { return have[id] == 0 })
			})
			b.untilRead()
			b.asItIs(id)
			b.inSync()
			b.admin(http.MethodDelete, "/admin-events", nil) // so that the next round's fit one list
		}
	})
}
