package contract

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func (s *suite) eventLists(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"eve"}`)
	for i := range 104 {
		r.must(http.MethodPut, "/users/"+id, fmt.Sprintf(`{"firstName":"E%d"}`, i))
	}
	require.Len(t, r.adminEvents(""), 100, "max is 100 unless told otherwise")
	all := r.adminEvents("max=1000")
	require.Len(t, all, 105)
	require.Empty(t, r.adminEvents("max=0"))
	at := func(e map[string]any) float64 {
		ms, ok := e["time"].(float64)
		require.True(t, ok)
		return ms
	}
	newestFirst := func(a, b map[string]any) int { return int(at(b) - at(a)) }
	require.True(t, slices.IsSortedFunc(all, newestFirst))
	ascending := r.adminEvents("max=1000&direction=asc")
	slices.Reverse(ascending)
	require.True(t, slices.IsSortedFunc(ascending, newestFirst))

	seen := map[any]bool{}
	for first := 0; first < 105; first += 30 {
		for _, e := range r.adminEvents(fmt.Sprintf("direction=asc&first=%d&max=30", first)) {
			seen[e["id"]] = true
		}
	}
	require.Len(t, seen, 105)

	middle := at(all[50])
	for _, e := range r.adminEvents(fmt.Sprintf("max=1000&dateFrom=%.0f", middle)) {
		require.GreaterOrEqual(t, at(e), middle)
	}
	from, to := r.adminEvents(fmt.Sprintf("max=1000&dateFrom=%.0f", middle)), r.adminEvents(fmt.Sprintf("max=1000&dateTo=%.0f", middle))
	same := 0
	for _, e := range all {
		if at(e) == middle {
			same++
		}
	}
	require.Equal(t, 105+same, len(from)+len(to), "both ends are inclusive")
	require.Len(t, r.adminEvents("max=1000&dateFrom=2020-01-01"), 105)
	require.Empty(t, r.adminEvents("max=1000&dateTo=2020-01-01"))
	require.Len(t, r.adminEvents("max=1000&operationTypes=CREATE"), 1)
	require.Len(t, r.adminEvents("max=1000&operationTypes=CREATE&operationTypes=UPDATE&resourceTypes=USER"), 105)
	require.Empty(t, r.adminEvents("resourceTypes=GROUP"))
	require.Len(t, r.adminEvents("max=1000&resourcePath=users/*"), 105)

	r.refused(r.do(http.MethodGet, "/admin-events?dateFrom=soon", nil), http.StatusBadRequest,
		`{"error":"Invalid value for 'dateFrom', expected format is yyyy-MM-dd or an Epoch timestamp"}`)
	r.refused(r.do(http.MethodGet, "/admin-events?direction=up", nil), http.StatusBadRequest,
		`{"error":"Invalid value for sortDirection, expected value is asc or desc"}`)
	for _, unknown := range []string{"/admin-events?operationTypes=none", "/admin-events?resourceTypes=none", "/events?type=none"} {
		require.Equal(t, http.StatusInternalServerError, r.do(http.MethodGet, unknown, nil).status, unknown)
	}

	r.token(serviceClient)
	logins := r.must(http.MethodGet, "/events?type=CLIENT_LOGIN&client="+serviceClient, nil).list(t)
	require.GreaterOrEqual(t, len(logins), 2, "a token request of a service account is a user event")
	require.ElementsMatch(t, []string{"id", "time", "type", "realmId", "clientId", "userId", "ipAddress", "details"}, keys(logins[0]))

	// Clearing either list leaves no trace.
	r.refused(r.do(http.MethodDelete, "/admin-events", nil), http.StatusForbidden, `{"error":"HTTP 403 Forbidden"}`)
	r.mustRoot(http.MethodDelete, "/admin-events", nil)
	r.mustRoot(http.MethodDelete, "/events", nil)
	require.Empty(t, r.adminEvents(""))
	require.Empty(t, r.must(http.MethodGet, "/events", nil).list(t))
}

func (s *suite) eventsConfig(t *testing.T) {
	r := s.newRealm(t, nil)
	config := r.must(http.MethodGet, "/events/config", nil).object(t)
	require.Equal(t, true, config["eventsEnabled"])
	require.Equal(t, true, config["adminEventsEnabled"])
	require.Equal(t, true, config["adminEventsDetailsEnabled"])
	require.Equal(t, []any{"jboss-logging", "ext-event-webhook"}, config["eventsListeners"])
	require.Contains(t, config["enabledEventTypes"], "UPDATE_PROFILE")
	require.NotContains(t, config["enabledEventTypes"], "REFRESH_TOKEN")
	r.refused(r.do(http.MethodPut, "/events/config", config), http.StatusForbidden, `{"error":"HTTP 403 Forbidden"}`)
	put := func(changes map[string]any) {
		t.Helper()
		body := map[string]any{}
		for k, v := range config {
			body[k] = v
		}
		for k, v := range changes {
			body[k] = v
		}
		r.mustRoot(http.MethodPut, "/events/config", body)
	}
	a := r.root(http.MethodPut, "/events/config", map[string]any{"eventsListeners": []string{"none"}})
	r.refused(a, http.StatusBadRequest, `{"error":"Unknown event listener"}`)

	// The same again emits all the same: a harmless test of push and pull.
	events := r.emitted(func() { put(nil) })
	require.Len(t, events, 1)
	require.Equal(t, "events/config", events[0]["resourcePath"])
	r.hook.waitID(t, events[0]["id"])

	// Switching off and on again is saved; what happens between is not, but is told.
	require.Len(t, r.emitted(func() { put(map[string]any{"adminEventsEnabled": false}) }), 1)
	require.Empty(t, r.emitted(func() { r.createUser(`{"username":"unsaved"}`) }))
	r.hook.wait(t, 1, func(e map[string]any) bool {
		return e["type"] == "admin.USER-CREATE" && strings.Contains(fmt.Sprint(e["representation"]), "unsaved")
	})
	require.Len(t, r.emitted(func() { put(nil) }), 1)

	// Without details the pull lacks the representation, the push has it.
	put(map[string]any{"adminEventsDetailsEnabled": false})
	events = r.emitted(func() { r.createUser(`{"username":"detail"}`) })
	require.NotContains(t, events[0], "representation")
	require.Contains(t, r.hook.waitID(t, events[0]["id"]).event, "representation")
	put(nil)

	// Removing the listener is told, the changes after it are not.
	events = r.emitted(func() { put(map[string]any{"eventsListeners": []string{"jboss-logging"}}) })
	r.hook.waitID(t, events[0]["id"])
	silent := r.emitted(func() { r.createUser(`{"username":"silent"}`) })
	events = r.emitted(func() { put(nil) })
	r.hook.waitID(t, events[0]["id"])
	events = r.emitted(func() { r.createUser(`{"username":"told"}`) })
	r.hook.waitID(t, events[0]["id"])
	require.Empty(t, r.hook.wait(t, 0, func(e map[string]any) bool { return e["id"] == silent[0]["id"] }))

	// What is left out: user events go off, the lists and the admin events stay.
	r.mustRoot(http.MethodPut, "/events/config", `{}`)
	now := r.must(http.MethodGet, "/events/config", nil).object(t)
	require.Equal(t, false, now["eventsEnabled"])
	require.Equal(t, true, now["adminEventsEnabled"])
	require.Equal(t, config["eventsListeners"], now["eventsListeners"])
	require.ElementsMatch(t, config["enabledEventTypes"], now["enabledEventTypes"])
	r.emits("REALM", "UPDATE", "", `{"displayName":"x"}`, func() { r.mustRoot(http.MethodPut, "", `{"displayName":"x"}`) })
}

// callers tries roles alone: what each opens, and what a closed door says.
func (s *suite) callers(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"cal"}`)
	r.mustRoot(http.MethodPost, "/roles", `{"name":"auditor"}`)
	const (
		open, closed, missing = http.StatusOK, http.StatusForbidden, http.StatusNotFound
		done, made            = http.StatusNoContent, http.StatusCreated
	)
	calls := []adminCall{
		{http.MethodGet, "/users", ""},
		{http.MethodGet, "/users/count", ""},
		{http.MethodGet, "/users/" + id, ""},
		{http.MethodGet, "/users/none", ""},
		{http.MethodPut, "/users/" + id, `{}`},
		{http.MethodPost, "/users", `{"username":"made"}`},
		{http.MethodGet, "/users/" + id + "/role-mappings", ""},
		{http.MethodGet, "/users/" + id + "/groups", ""},
		{http.MethodGet, "/roles/auditor", ""},
		{http.MethodGet, "/roles/auditor/users", ""},
		{http.MethodGet, "/groups", ""},
		{http.MethodGet, "/admin-events", ""},
		{http.MethodGet, "/events", ""},
		{http.MethodGet, "/events/config", ""},
		{http.MethodGet, "/clients?clientId=keytrail", ""},
		{http.MethodPut, "", `{}`},
	}
	for client, want := range map[string][]int{
		"view-events":   {closed, closed, closed, closed, closed, closed, closed, closed, closed, closed, closed, open, open, open, closed, closed},
		"manage-events": {closed, closed, closed, closed, closed, closed, closed, closed, closed, closed, closed, open, open, open, closed, closed},
		"view-realm":    {closed, closed, closed, closed, closed, closed, closed, closed, open, closed, closed, closed, closed, closed, closed, closed},
		"query-users":   {open, open, closed, missing, closed, closed, closed, closed, closed, closed, closed, closed, closed, closed, closed, closed},
		"view-users":    {open, open, open, missing, closed, closed, open, open, closed, closed, open, closed, closed, closed, closed, closed},
		"manage-users":  {open, open, open, missing, done, made, open, open, closed, closed, open, closed, closed, closed, closed, closed},
	} {
		r.tryCalls(client, want, calls)
	}
	// Last, since it meets the user that manage-users made.
	r.tryCalls(serviceClient, []int{open, open, open, missing, done, http.StatusConflict, open, open, open, open, open, open, open, open, closed, closed}, calls)

	// query-users alone: a list of nobody, in good order, beside a count that is right.
	token := r.token("query-users")
	base := "/admin/realms/" + r.name
	require.Equal(t, `[]`, s.send(t, token, http.MethodGet, base+"/users", nil).body)
	require.Equal(t, r.must(http.MethodGet, "/users/count", nil).body, s.send(t, token, http.MethodGet, base+"/users/count", nil).body)
	require.NotEqual(t, "0", r.must(http.MethodGet, "/users/count", nil).body)

	// The realm's UUID needs view-realm.
	require.Contains(t, r.must(http.MethodGet, "", nil).object(t), "id")
	for _, client := range []string{"view-events", "view-users", "manage-users"} {
		require.NotContains(t, s.send(t, r.token(client), http.MethodGet, base, nil).object(t), "id")
	}
	webhooks := "/realms/" + r.name + "/webhooks"
	list := s.send(t, r.token("view-events"), http.MethodGet, webhooks, nil)
	require.Equal(t, http.StatusOK, list.status)
	require.NotContains(t, list.body, hookSecret)
	require.Equal(t, http.StatusForbidden, s.send(t, r.token("view-users"), http.MethodGet, webhooks, nil).status)
	require.Equal(t, http.StatusForbidden, s.send(t, r.token("view-events"), http.MethodPost, webhooks, `{"url":"http://127.0.0.1:1/"}`).status)
}

type adminCall struct{ method, path, body string }

func (r *realm) tryCalls(client string, want []int, calls []adminCall) {
	r.t.Helper()
	token := r.token(client)
	for i, c := range calls {
		var body any
		if c.body != "" {
			body = c.body
		}
		a := r.send(r.t, token, c.method, "/admin/realms/"+r.name+c.path, body)
		require.Equal(r.t, want[i], a.status, "%s: %s %s: %s", client, c.method, c.path, a.body)
		if a.status == http.StatusForbidden {
			require.JSONEq(r.t, `{"error":"HTTP 403 Forbidden"}`, a.body)
		}
	}
}

func (s *suite) webhook(t *testing.T) {
	r := s.newRealm(t, nil)
	refused := 0
	r.hook.mu.Lock()
	r.hook.refuse = func(e map[string]any) bool {
		if e["type"] == "admin.USER-CREATE" && refused < 2 {
			refused++
			return true
		}
		return false
	}
	r.hook.mu.Unlock()
	id := r.createUser(`{"username":"hook"}`)
	tries := r.hook.wait(t, 3, func(e map[string]any) bool { return e["type"] == "admin.USER-CREATE" })
	for _, try := range tries {
		require.Equal(t, tries[0].body, try.body, "retried with the same uid and body")
	}
	r.must(http.MethodDelete, "/users/"+id, nil)
	r.hook.waitType(t, "admin.USER-DELETE")
	r.hook.waitType(t, "access.CLIENT_LOGIN")
	uids := map[string]string{}
	for _, d := range r.hook.wait(t, 0, func(map[string]any) bool { return true }) {
		mac := hmac.New(sha256.New, []byte(hookSecret))
		mac.Write(d.body)
		require.Equal(t, hex.EncodeToString(mac.Sum(nil)), d.header.Get("X-Keycloak-Signature"))
		require.Equal(t, "application/json", d.header.Get("Content-Type"))
		event, uid := fmt.Sprint(d.event["id"]), fmt.Sprint(d.event["uid"])
		require.NoError(t, uuid.Validate(event))
		require.NoError(t, uuid.Validate(uid))
		require.NotEqual(t, event, uid)
		if have := uids[event]; have != "" {
			require.Equal(t, have, uid)
		}
		uids[event] = uid
		require.Equal(t, r.name, d.event["realmName"])
	}

	// The two forms of one event differ in the actor.
	pulled := r.adminEvents("operationTypes=CREATE&resourceTypes=USER")[0]
	pushed := tries[0].event
	require.Equal(t, pulled["id"], pushed["id"])
	require.Equal(t, pulled["representation"], pushed["representation"])
	in, _ := pulled["authDetails"].(map[string]any)
	out, _ := pushed["authDetails"].(map[string]any)
	require.Equal(t, pulled["realmId"], in["realmId"], "the actor's realm by its UUID")
	require.Equal(t, r.name, out["realmId"], "the actor's realm by its name")
	require.Equal(t, "service-account-"+serviceClient, out["username"])
	require.NotEmpty(t, out["sessionId"])
	require.Equal(t, []string{"clientId", "ipAddress", "realmId", "userId"}, keys(in))
	for _, same := range []string{"clientId", "userId", "ipAddress"} {
		require.Equal(t, in[same], out[same])
	}
	require.Equal(t, claims(t, r.svc)["sub"], out["userId"], "the echo of a call has the subject of its token")
	require.NoError(t, uuid.Validate(fmt.Sprint(out["clientId"])), "the client's UUID, not its client_id")

	// A webhook can be switched off and on without a trace.
	webhooks := "/realms/" + r.name + "/webhooks"
	hooks := s.send(t, r.svc, http.MethodGet, webhooks, nil).list(t)
	require.Len(t, hooks, 1)
	require.Equal(t, r.hook.URL, hooks[0]["url"])
	require.Equal(t, true, hooks[0]["enabled"])
	require.Equal(t, []any{"*"}, hooks[0]["eventTypes"])
	one := webhooks + "/" + fmt.Sprint(hooks[0]["id"])
	change := func(enabled string, types ...string) {
		t.Helper()
		a := s.send(t, s.adminToken(t), http.MethodPut, one, map[string]any{"enabled": enabled, "url": r.hook.URL, "secret": hookSecret, "eventTypes": types})
		require.Equal(t, http.StatusNoContent, a.status, a.body)
	}
	var missed []map[string]any
	require.Empty(t, r.emitted(func() { change("false", "*") }))
	missed = append(missed, r.emitted(func() { r.createUser(`{"username":"unheard"}`) })...)
	change("true", "admin.USER-.*")
	r.mustRoot(http.MethodPost, "/groups", `{"name":"filtered"}`)
	last := r.emitted(func() { r.createUser(`{"username":"heard"}`) })
	r.hook.waitID(t, last[0]["id"])
	require.Empty(t, r.hook.wait(t, 0, func(e map[string]any) bool {
		return e["id"] == missed[0]["id"] || e["type"] == "admin.GROUP-CREATE"
	}))
}

func (s *suite) selfService(t *testing.T) {
	if s.target.Register == nil {
		t.Skip("the target cannot register")
	}
	r := s.newRealm(t, nil)
	require.Empty(t, r.emitted(func() {
		s.target.Register(t, r.name, Registration{Username: "Reg", Email: "Reg@example.com", FirstName: "Re", LastName: "Gi", Password: "hunter2"})
	}), "no admin event")
	found := r.must(http.MethodGet, "/users?username=reg&exact=true", nil).list(t)
	require.Len(t, found, 1)
	id := fmt.Sprint(found[0]["id"])
	u := r.user(id)
	require.Equal(t, "reg", u["username"])
	require.Equal(t, "reg@example.com", u["email"])
	require.Equal(t, true, u["enabled"])

	pushed := r.hook.waitType(t, "access.REGISTER").event
	actor, _ := pushed["authDetails"].(map[string]any)
	require.Equal(t, id, actor["userId"])
	require.NotContains(t, pushed, "userId")
	details, _ := pushed["details"].(map[string]any)
	require.Equal(t, "form", details["register_method"])
	require.Equal(t, "Reg", details["username"], "as it was entered")
	require.Equal(t, "Re", details["first_name"])
	require.Equal(t, "Gi", details["last_name"])
	require.Equal(t, "Reg@example.com", details["email"])
	pulled := r.must(http.MethodGet, "/events?type=REGISTER", nil).list(t)
	require.Len(t, pulled, 1)
	require.Equal(t, pushed["id"], pulled[0]["id"])
	require.Equal(t, id, pulled[0]["userId"])
	require.Equal(t, details, pulled[0]["details"])
	require.NotEmpty(t, actor["sessionId"])
	require.NotContains(t, pulled[0], "sessionId", "not yet logged in")

	login := r.hook.waitType(t, "access.LOGIN").event
	actor, _ = login["authDetails"].(map[string]any)
	require.Equal(t, id, actor["userId"])
	logins := r.must(http.MethodGet, "/events?type=LOGIN", nil).list(t)
	require.NotEmpty(t, logins)
	require.Equal(t, actor["sessionId"], logins[0]["sessionId"], "people's sessions are in the pull, service accounts' are not")
}

func claims(t *testing.T, token any) map[string]any {
	t.Helper()
	parts := strings.Split(fmt.Sprint(token), ".")
	require.Len(t, parts, 3, "a JWT")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	var v map[string]any
	require.NoError(t, json.Unmarshal(payload, &v))
	return v
}
