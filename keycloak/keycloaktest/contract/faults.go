package contract

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// racers is how many requests are made at once, and rounds how often it is tried to
	// make them get in each other's way: a real server lets them most of the time.
	racers = 8
	rounds = 40

	duplicateResource = `{"error":"conflict","error_description":"Duplicate resource error"}`
	serverErrorBody   = `{"error":"unknown_error","error_description":"For more on this error consult the server log."}`
)

// race makes the same kind of request several times at once, as the service account.
func (r *realm) race(method, path string, body func(n int) any) []answer {
	r.t.Helper()
	answers, errs := make([]answer, racers), make([]error, racers)
	var all sync.WaitGroup
	for n := range racers {
		all.Go(func() {
			answers[n], errs[n] = r.try(testContext(r.t), r.svc, method, "/admin/realms/"+r.name+path, body(n))
		})
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(r.t, err)
	}
	return answers
}

// pushes are the deliveries of a type so far, after everything that was sent before.
func (r *realm) pushes(typ, path string) []delivery {
	r.t.Helper()
	last := r.emitted(func() {
		r.mustRoot(http.MethodPost, "/groups", fmt.Sprintf(`{"name":"sentinel-%d"}`, time.Now().UnixNano()))
	})
	r.hook.waitID(r.t, last[0]["id"])
	return r.hook.wait(r.t, 0, func(e map[string]any) bool { return e["type"] == typ && e["resourcePath"] == path })
}

// lostRaces deletes a user several times at once: the losers fail at their commit, long
// after they have emitted their events. Those are neither stored nor pushed.
func (s *suite) lostRaces(t *testing.T) {
	r := s.newRealm(t, nil)
	for round := range rounds {
		id := r.createUser(fmt.Sprintf(`{"username":"loser-%d"}`, round))
		if s.target.RollBackNext != nil {
			s.target.RollBackNext(http.MethodDelete, "/admin/realms/*/users/*", racers-1)
		}
		var answers []answer
		events := r.emitted(func() {
			answers = r.race(http.MethodDelete, "/users/"+id, func(int) any { return nil })
		})
		won, lost := 0, 0
		for _, a := range answers {
			switch a.status {
			case http.StatusNoContent:
				won++
			case http.StatusInternalServerError:
				lost++
				require.JSONEq(t, serverErrorBody, a.body, "an error that says nothing")
			default: // too late to lose: 404, or 400 "User couldn't be deleted"
				require.Contains(t, []int{http.StatusNotFound, http.StatusBadRequest}, a.status, a.body)
			}
		}
		require.Equal(t, 1, won)
		require.Equal(t, http.StatusNotFound, r.do(http.MethodGet, "/users/"+id, nil).status)
		require.Len(t, events, 1, "of all that were emitted one is stored")
		require.Equal(t, "DELETE", events[0]["operationType"])
		if lost == 0 {
			continue
		}
		require.Len(t, r.pushes("admin.USER-DELETE", "users/"+id), 1, "and one is pushed")
		return
	}
	require.Fail(t, "nobody has lost", "in %d rounds", rounds)
}

// doubledValues sends the same attribute several times at once: each PUT replaces the
// values that it has found, and not those that the others have added meanwhile.
func (s *suite) doubledValues(t *testing.T) {
	r := s.newRealm(t, nil)
	profile := r.mustRoot(http.MethodGet, "/users/profile", nil).object(t)
	profile["unmanagedAttributePolicy"] = "ENABLED"
	r.mustRoot(http.MethodPut, "/users/profile", profile)
	id := r.createUser(`{"username":"twice"}`)
	for round := range rounds {
		if s.target.DoubleNext != nil {
			s.target.DoubleNext(http.MethodPut, "/admin/realms/*/users/*", racers)
		}
		// Values that are there already would be left alone.
		sent := []any{fmt.Sprint("ops", round), fmt.Sprint("dev", round)}
		body := fmt.Sprintf(`{"username":"twice","attributes":{"dept":["%s","%s"]}}`, sent...)
		var answers []answer
		events := r.emitted(func() { answers = r.race(http.MethodPut, "/users/"+id, func(int) any { return body }) })
		for _, a := range answers {
			require.Equal(t, http.StatusNoContent, a.status, "nobody is told: %s", a.body)
		}
		require.Len(t, events, racers)
		for _, e := range events {
			representation, _ := e["representation"].(string)
			require.JSONEq(t, body, representation, "the event is what was sent")
		}
		attributes, _ := r.user(id)["attributes"].(map[string]any)
		values, _ := attributes["dept"].([]any)
		require.GreaterOrEqual(t, len(values), len(sent))
		if len(values) == len(sent) {
			continue
		}
		require.Zero(t, len(values)%len(sent), "%v", values)
		for _, v := range values {
			require.Contains(t, sent, v)
		}
		// The next PUT that comes alone sets it right.
		r.must(http.MethodPut, "/users/"+id, body)
		require.Equal(t, map[string]any{"dept": sent}, r.user(id)["attributes"])
		return
	}
	require.Fail(t, "no value was doubled", "in %d rounds", rounds)
}

// refusedConflicts creates users at once that cannot all be: whom the database refuses
// after Keycloak has looked in vain is told less, or something that is not so.
func (s *suite) refusedConflicts(t *testing.T) {
	r := s.newRealm(t, nil)
	for _, c := range []struct {
		body  string
		texts []string
	}{
		{`{"username":"person-%d","email":"same@example.com"}`, []string{
			`{"errorMessage":"User exists with same email"}`, duplicateResource,
		}},
		{`{"username":"same","email":"person-%d@example.com"}`, []string{
			`{"errorMessage":"User exists with same username"}`, `{"errorMessage":"User exists with same username or email"}`,
			duplicateResource,
		}},
	} {
		var answers []answer
		events := r.emitted(func() {
			answers = r.race(http.MethodPost, "/users", func(n int) any { return fmt.Sprintf(c.body, n) })
		})
		created := slices.DeleteFunc(slices.Clone(answers), func(a answer) bool { return a.status != http.StatusCreated })
		require.Len(t, created, 1)
		for _, a := range answers {
			if a.status != http.StatusCreated {
				require.Equal(t, http.StatusConflict, a.status, a.body)
				require.Contains(t, c.texts, a.body)
			}
		}
		require.Len(t, events, 1, "a call that fails emits nothing")
	}
}

// revokedTokens makes a token worthless in the middle of its life, as an administrator
// does with "not before" in a realm's sessions.
func (s *suite) revokedTokens(t *testing.T) {
	r := s.newRealm(t, nil)
	require.Equal(t, http.StatusOK, r.do(http.MethodGet, "/users", nil).status)
	r.mustRoot(http.MethodPut, "", map[string]any{"notBefore": time.Now().Unix() + 1})
	r.refused(r.do(http.MethodGet, "/users", nil), http.StatusUnauthorized, `{"error":"HTTP 401 Unauthorized"}`)
	// A new one is good, as soon as the second is over to which tokens are dated.
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for r.svc = r.token(serviceClient); r.do(http.MethodGet, "/users", nil).status != http.StatusOK; r.svc = r.token(serviceClient) {
		select {
		case <-again.C:
		case <-ctx.Done():
			require.Fail(t, "no new token is accepted")
		}
	}
}

// deliveries loses one for good, and lets another overtake one that has to be sent
// again.
func (s *suite) deliveries(t *testing.T) {
	r := s.newRealm(t, nil)
	named := func(e map[string]any, name string) bool {
		representation, _ := e["representation"].(string)
		return e["type"] == "admin.USER-CREATE" && strings.Contains(representation, `"`+name+`"`)
	}
	overtaken := false // guarded by the hook's mutex
	r.hook.mu.Lock()
	r.hook.drop = func(e map[string]any) bool { return named(e, "unlucky") }
	r.hook.refuse = func(e map[string]any) bool {
		overtaken = overtaken || named(e, "quick")
		return named(e, "slow") && !overtaken
	}
	r.hook.mu.Unlock()
	sent := func(name string) []delivery {
		return r.hook.wait(t, 0, func(e map[string]any) bool { return named(e, name) })
	}
	r.createUser(`{"username":"unlucky"}`)
	r.hook.wait(t, 1, func(e map[string]any) bool { return named(e, "unlucky") })
	r.createUser(`{"username":"slow"}`)
	r.hook.wait(t, 1, func(e map[string]any) bool { return named(e, "slow") })
	r.createUser(`{"username":"quick"}`)
	r.hook.wait(t, 2, func(e map[string]any) bool { return named(e, "slow") })

	require.True(t, overtaken, "the later event is there first")
	require.Len(t, sent("quick"), 1)
	slow := sent("slow")
	require.Equal(t, slow[0].body, slow[1].body, "whoever took in the first has a duplicate")
	require.Len(t, sent("unlucky"), 1, "a lost connection is never tried again, while a refusal is")
}

// console takes roles as the admin console does.
func (s *suite) console(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"rita"}`)
	client := r.mustRoot(http.MethodGet, "/clients?clientId="+serviceClient, nil).list(t)[0]["id"]
	roles := map[string]map[string]any{}
	for name, path := range map[string]string{"auditor": "/roles", "deploy": fmt.Sprintf("/clients/%v/roles", client)} {
		r.mustRoot(http.MethodPost, path, map[string]any{"name": name})
		role := r.mustRoot(http.MethodGet, path+"/"+name, nil).object(t)
		roles[name] = map[string]any{"roleId": role["id"], "roleName": name}
		mapping := "/users/" + id + "/role-mappings/realm"
		if name == "deploy" {
			mapping = fmt.Sprintf("/users/%s/role-mappings/clients/%v", id, client)
			roles[name]["clientId"] = client
		}
		r.must(http.MethodPost, mapping, []any{role})
	}
	held := func() map[string]any { return r.mustRoot(http.MethodGet, "/users/"+id+"/role-mappings", nil).object(t) }
	require.Contains(t, held(), "clientMappings")
	const path = "ui-ext/role-mapping-delete/users/"
	take := func(roles ...any) func() {
		return func() { r.must(http.MethodPost, "/"+path+id, append([]any{}, roles...)) }
	}
	r.emits("REALM_ROLE_MAPPING", "DELETE", path+id, "", take(roles["auditor"], roles["deploy"]))
	require.NotContains(t, held(), "clientMappings")
	require.Len(t, held()["realmMappings"], 1, "the default roles")
	for _, nothing := range []func(){take(roles["auditor"]), take(map[string]any{"roleId": "none", "roleName": "none"}), take()} {
		r.emits("REALM_ROLE_MAPPING", "DELETE", path+id, "", nothing)
	}
	r.refused(r.do(http.MethodPost, "/"+path+"none", []any{}), http.StatusNotFound, `{"error":"User not found"}`)
}
