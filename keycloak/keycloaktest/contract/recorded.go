package contract

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// recordings are a session of a real server: Keycloak 26.7.3 with keycloak-events
// 0.59, what it pushed and what it said afterwards when asked.
//
//go:embed testdata
var recordings embed.FS

var ids = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// kind says which events are alike: the same type on the same path by the same sort
// of actor. The administrator's events have no session, a service account's have one.
func kind(e map[string]any, actorKey string) string {
	actor := "service"
	auth, _ := e["authDetails"].(map[string]any)
	if auth[actorKey] == nil {
		actor = "other"
	}
	return fmt.Sprint(e["type"], e["resourceType"], e["operationType"], " ", ids.ReplaceAllString(fmt.Sprint(e["resourcePath"]), "{id}"), " ", actor)
}

// fields describes which fields an event has, down to its representation's.
func fields(t *testing.T, e map[string]any) string {
	t.Helper()
	auth, _ := e["authDetails"].(map[string]any)
	details, _ := e["details"].(map[string]any)
	text := fmt.Sprint(keys(e), keys(auth), keys(details))
	if representation, ok := e["representation"].(string); ok {
		var v any
		require.NoError(t, json.Unmarshal([]byte(representation), &v))
		if list, ok := v.([]any); ok {
			v = list[0]
			text += " array"
		}
		object, ok := v.(map[string]any)
		require.True(t, ok, representation)
		text += fmt.Sprint(keys(object))
	}
	return text
}

type shapes map[string]map[string]bool

func (s shapes) add(kind, fields string) {
	if s[kind] == nil {
		s[kind] = map[string]bool{}
	}
	s[kind][fields] = true
}

// recordedFields repeats what the recorded session did and compares the fields of
// every event, pushed and pulled.
func (s *suite) recordedFields(t *testing.T) {
	r := s.newRealm(t, nil)
	push, pullAdmin, pullUser := recorded(t)
	s.repeatSession(t, r)

	adminEvents := r.adminEvents("max=1000")
	userEvents := r.must(http.MethodGet, "/events?max=1000", nil).list(t)
	got := shapes{}
	for _, e := range append(append([]map[string]any{}, adminEvents...), userEvents...) {
		e := r.hook.waitID(t, e["id"]).event
		got.add(kind(e, "sessionId"), fields(t, e))
	}
	compare(t, "pushed", push, got)
	got = shapes{}
	for _, e := range adminEvents {
		got.add(kind(e, ""), fields(t, e))
	}
	compare(t, "pulled admin event", pullAdmin, got)
	got = shapes{}
	for _, e := range userEvents {
		got.add(kind(e, ""), fields(t, e))
	}
	compare(t, "pulled user event", pullUser, got)
}

// browserOnly are recorded events that the session cannot repeat without a browser.
var browserOnly = regexp.MustCompile(`^(access\.)?(REGISTER|REGISTER_ERROR|LOGIN|UPDATE_PROFILE)<nil>`)

func compare(t *testing.T, what string, want, got shapes) {
	t.Helper()
	for kind, shapes := range want {
		if browserOnly.MatchString(kind) {
			continue
		}
		require.Contains(t, got, kind, "%s was recorded and did not come", what)
		for shape := range got[kind] {
			require.Contains(t, shapes, shape, "%s %s", what, kind)
		}
	}
}

func recorded(t *testing.T) (push, pullAdmin, pullUser shapes) {
	t.Helper()
	push, pullAdmin, pullUser = shapes{}, shapes{}, shapes{}
	lines, err := recordings.ReadFile("testdata/deliveries.jsonl")
	require.NoError(t, err)
	for line := range bytes.Lines(lines) {
		var d struct{ Body string }
		require.NoError(t, json.Unmarshal(line, &d))
		var e map[string]any
		require.NoError(t, json.Unmarshal([]byte(d.Body), &e))
		push.add(kind(e, "sessionId"), fields(t, e))
	}
	for name, into := range map[string]shapes{"admin-events.json": pullAdmin, "events.json": pullUser} {
		content, err := recordings.ReadFile("testdata/" + name)
		require.NoError(t, err)
		var list []map[string]any
		require.NoError(t, json.Unmarshal(content, &list))
		for _, e := range list {
			into.add(kind(e, ""), fields(t, e))
		}
	}
	return push, pullAdmin, pullUser
}

// repeatSession does what the recorded session did.
func (s *suite) repeatSession(t *testing.T, r *realm) {
	t.Helper()
	r.mustRoot(http.MethodPost, "/roles", `{"name":"auditor"}`)
	group := r.mustRoot(http.MethodPost, "/groups", `{"name":"staff"}`).location
	r.mustRoot(http.MethodDelete, "/admin-events", nil) // the recording begins after these

	id := r.mustRoot(http.MethodPost, "/users", `{"username":"bob","firstName":"Bob","lastName":"Stone","email":"bob@example.com",`+
		`"attributes":{"dept":["ops"]},"enabled":true}`).location
	user := "/users/" + id
	whole := r.mustRoot(http.MethodGet, user, nil)
	r.mustRoot(http.MethodPut, user, strings.Replace(whole.body, `"Bob"`, `"Robert"`, 1))
	r.mustRoot(http.MethodPut, user, `{"enabled":false}`)
	r.mustRoot(http.MethodPut, user, `{"enabled":true}`)

	role := "[" + r.mustRoot(http.MethodGet, "/roles/auditor", nil).body + "]"
	r.mustRoot(http.MethodPost, user+"/role-mappings/realm", role)
	r.mustRoot(http.MethodDelete, user+"/role-mappings/realm", role)
	r.mustRoot(http.MethodPut, user+"/groups/"+group, nil)
	r.mustRoot(http.MethodDelete, user+"/groups/"+group, nil)
	r.mustRoot(http.MethodPut, user+"/reset-password", `{"type":"password","value":"hunter2","temporary":false}`)
	credential := r.mustRoot(http.MethodGet, user+"/credentials", nil).list(t)[0]["id"]
	r.mustRoot(http.MethodDelete, user+"/credentials/"+fmt.Sprint(credential), nil)
	r.mustRoot(http.MethodPut, user, `{"requiredActions":["UPDATE_PASSWORD"]}`)
	r.mustRoot(http.MethodPost, user+"/logout", nil)

	management := fmt.Sprint(r.mustRoot(http.MethodGet, "/clients?clientId=realm-management", nil).list(t)[0]["id"])
	role = "[" + r.mustRoot(http.MethodGet, "/clients/"+management+"/roles/view-users", nil).body + "]"
	r.mustRoot(http.MethodPost, user+"/role-mappings/clients/"+management, role)
	r.mustRoot(http.MethodDelete, user+"/role-mappings/clients/"+management, role)

	org := r.mustRoot(http.MethodPost, "/organizations", `{"name":"acme-org","domains":[{"name":"acme.example","verified":true}]}`).location
	r.mustRoot(http.MethodPost, "/organizations/"+org+"/members", id)
	r.mustRoot(http.MethodDelete, "/organizations/"+org+"/members/"+id, nil)
	r.mustRoot(http.MethodPost, "/identity-provider/instances", map[string]any{
		"alias": "corp", "providerId": "oidc", "enabled": true,
		"config": map[string]string{"authorizationUrl": "http://127.0.0.1:1/a", "tokenUrl": "http://127.0.0.1:1/t", "clientId": "x", "clientSecret": "hush"},
	})
	r.mustRoot(http.MethodPost, user+"/federated-identity/corp", `{"identityProvider":"corp","userId":"c-1","userName":"bob.corp"}`)
	r.mustRoot(http.MethodDelete, user+"/federated-identity/corp", nil)

	r.mustRoot(http.MethodPost, "/roles", `{"name":"temp"}`)
	r.mustRoot(http.MethodDelete, "/roles/temp", nil)
	other := r.mustRoot(http.MethodPost, "/groups", `{"name":"tmpg"}`).location
	r.mustRoot(http.MethodPut, user+"/groups/"+other, nil)
	r.mustRoot(http.MethodDelete, "/groups/"+other, nil)
	r.mustRoot(http.MethodPost, "/partialImport", `{"ifResourceExists":"SKIP","users":[{"username":"imp1","email":"imp1@example.com","enabled":true},`+
		`{"username":"imp2","enabled":false}]}`)
	r.mustRoot(http.MethodDelete, user, nil)

	a := r.grant(t, r.name, url.Values{"grant_type": {"password"}, "client_id": {"person"}, "username": {"eve"}, "password": {"x"}})
	require.Equal(t, http.StatusBadRequest, a.status, a.body)
	id = r.createUser(`{"username":"svc1","enabled":true}`)
	r.must(http.MethodPut, "/users/"+id, `{"enabled":false}`)
	r.must(http.MethodDelete, "/users/"+id, nil)
}
