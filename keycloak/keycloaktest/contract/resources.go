package contract

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func (s *suite) roles(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"rita"}`)
	r.mustRoot(http.MethodPost, "/roles", `{"name":"auditor","description":"looks on"}`)
	r.refused(r.root(http.MethodPost, "/roles", `{"name":"auditor"}`), http.StatusConflict, `{"errorMessage":"Role with name auditor already exists"}`)
	r.refused(r.do(http.MethodGet, "/roles/none", nil), http.StatusNotFound, `{"error":"Could not find role"}`)
	role := r.must(http.MethodGet, "/roles/auditor", nil)
	require.ElementsMatch(t, []string{"id", "name", "description", "composite", "clientRole", "containerId", "attributes"}, keys(role.object(t)))

	path := "users/" + id + "/role-mappings/realm"
	// The description of a role in a mapping is ignored and echoed: it may carry a stamp.
	stamped := "[" + strings.Replace(role.body, "looks on", "urn:keytrail:call:3", 1) + "]"
	mapping := func(method, body string) func() { return func() { r.must(method, "/"+path, body) } }
	pushed := r.emits("REALM_ROLE_MAPPING", "CREATE", path, stamped, mapping(http.MethodPost, stamped))
	require.Equal(t, "realm", pushed["resourceId"])
	require.Empty(t, pushed["details"])
	require.Equal(t, "looks on", r.must(http.MethodGet, "/roles/auditor", nil).object(t)["description"])
	held := func() []string {
		var names []string
		for _, role := range r.must(http.MethodGet, "/"+path, nil).list(t) {
			names = append(names, fmt.Sprint(role["name"]))
		}
		return names
	}
	require.ElementsMatch(t, []string{"auditor", "default-roles-" + r.name}, held())
	require.Len(t, r.must(http.MethodGet, "/users/"+id+"/role-mappings", nil).object(t)["realmMappings"], 2)

	r.emits("REALM_ROLE_MAPPING", "CREATE", path, stamped, mapping(http.MethodPost, stamped)) // again, and it emits again
	require.Empty(t, r.emitted(mapping(http.MethodPost, `[]`)))
	for _, wrong := range []string{`[{"name":"auditor"}]`, `[{"id":"none","name":"auditor"}]`, `[{"id":"none","name":"none"}]`} {
		r.refused(r.do(http.MethodPost, "/"+path, wrong), http.StatusNotFound, `{"error":"Role not found"}`)
	}
	r.emits("REALM_ROLE_MAPPING", "DELETE", path, stamped, mapping(http.MethodDelete, stamped))
	require.Equal(t, []string{"default-roles-" + r.name}, held())
	r.emits("REALM_ROLE_MAPPING", "DELETE", path, stamped, mapping(http.MethodDelete, stamped))

	// A rename has the old name in the path; a deletion takes the role from its
	// holders and says nothing of them.
	r.must(http.MethodPost, "/"+path, stamped)
	r.emits("REALM_ROLE", "UPDATE", "roles/auditor", `{"name":"clerk","composite":false}`, func() {
		r.mustRoot(http.MethodPut, "/roles/auditor", `{"name":"clerk"}`)
	})
	require.Contains(t, held(), "clerk")
	roleID := role.object(t)["id"]
	r.emits("REALM_ROLE", "DELETE", "roles/clerk", fmt.Sprintf(`{"id":"%v","name":"clerk","composite":false}`, roleID), func() {
		r.mustRoot(http.MethodDelete, "/roles/clerk", nil)
	})
	require.NotContains(t, held(), "clerk")

	client := r.mustRoot(http.MethodGet, "/clients?clientId="+serviceClient, nil).list(t)[0]["id"]
	r.mustRoot(http.MethodPost, fmt.Sprintf("/clients/%v/roles", client), `{"name":"deploy"}`)
	clientRole := "[" + r.mustRoot(http.MethodGet, fmt.Sprintf("/clients/%v/roles/deploy", client), nil).body + "]"
	path = fmt.Sprintf("users/%s/role-mappings/clients/%v", id, client)
	r.emits("CLIENT_ROLE_MAPPING", "CREATE", path, clientRole, mapping(http.MethodPost, clientRole))
	require.Contains(t, r.mustRoot(http.MethodGet, "/users/"+id+"/role-mappings", nil).object(t)["clientMappings"], serviceClient)
	r.refused(r.do(http.MethodGet, "/"+path, nil), http.StatusForbidden, `{"error":"HTTP 403 Forbidden"}`)
	r.emits("CLIENT_ROLE_MAPPING", "DELETE", path, clientRole, mapping(http.MethodDelete, clientRole))
}

func (s *suite) groups(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"gus","email":"gus@example.com"}`)
	var group string
	events := r.emitted(func() { group = r.mustRoot(http.MethodPost, "/groups", `{"name":"staff"}`).location })
	require.Len(t, events, 1)
	require.Equal(t, "groups/"+group, events[0]["resourcePath"])
	require.Equal(t, `{"id":"`+group+`","name":"staff","subGroups":[]}`, events[0]["representation"])
	r.refused(r.root(http.MethodPost, "/groups", `{"name":"staff"}`), http.StatusConflict, `{"errorMessage":"Top level group named 'staff' already exists."}`)

	path := "users/" + id + "/groups/" + group
	representation := `{"id":"` + group + `","name":"staff","path":"/staff","subGroups":[],"attributes":{},"realmRoles":[],"clientRoles":{}}`
	join := func() { r.must(http.MethodPut, "/"+path, nil) }
	leave := func() { r.must(http.MethodDelete, "/"+path, nil) }
	require.Empty(t, r.emitted(leave), "nobody leaves who has not joined")
	pushed := r.emits("GROUP_MEMBERSHIP", "CREATE", path, representation, join)
	require.Equal(t, map[string]any{"username": "gus", "email": "gus@example.com"}, pushed["details"])
	require.Empty(t, r.emitted(join), "joined already")
	mine := r.must(http.MethodGet, "/users/"+id+"/groups", nil).list(t)
	require.Len(t, mine, 1)
	require.Equal(t, "/staff", mine[0]["path"])
	require.Len(t, r.must(http.MethodGet, "/groups/"+group+"/members", nil).list(t), 1)
	r.emits("GROUP_MEMBERSHIP", "DELETE", path, representation, leave)
	r.refused(r.do(http.MethodPut, "/users/"+id+"/groups/none", nil), http.StatusNotFound, `{"error":"Group not found"}`)
	r.refused(r.do(http.MethodGet, "/groups/none", nil), http.StatusNotFound, `{"error":"Could not find group by id"}`)

	// Groups named at the creation of a user: a membership without an event.
	var other string
	r.hookedCreate(`{"username":"gaby","groups":["/staff"]}`, &other)
	require.Len(t, r.must(http.MethodGet, "/users/"+other+"/groups", nil).list(t), 1)
	r.emits("GROUP", "DELETE", "groups/"+group, `{"id":"`+group+`","name":"staff","subGroups":[]}`, func() {
		r.mustRoot(http.MethodDelete, "/groups/"+group, nil)
	})
	require.Empty(t, r.must(http.MethodGet, "/users/"+other+"/groups", nil).list(t))
}

func (s *suite) federatedIdentities(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"fred"}`)
	r.mustRoot(http.MethodPost, "/identity-provider/instances", map[string]any{
		"alias": "corp", "providerId": "oidc", "enabled": true,
		"config": map[string]string{"authorizationUrl": "http://127.0.0.1:1/a", "tokenUrl": "http://127.0.0.1:1/t", "clientId": "x", "clientSecret": "hush"},
	})
	path := "users/" + id + "/federated-identity/corp"
	const link = `{"userId":"c-1","userName":"fred.corp"}`
	pushed := r.emits("USER", "CREATE", path, link, func() { r.must(http.MethodPost, "/"+path, link) })
	require.Equal(t, "corp", pushed["resourceId"])
	require.Empty(t, pushed["details"])
	r.refused(r.do(http.MethodPost, "/"+path, link), http.StatusConflict, `{"errorMessage":"User is already linked with provider"}`)
	require.Len(t, r.user(id)["federatedIdentities"], 1)
	r.emits("USER", "DELETE", path, "", func() { r.must(http.MethodDelete, "/"+path, nil) })
	r.refused(r.do(http.MethodDelete, "/"+path, nil), http.StatusNotFound, `{"error":"Link not found"}`)
	require.Equal(t, "fred", r.user(id)["username"], "an unlinked user is not a deleted one")
	for _, e := range r.adminEvents("resourceTypes=IDENTITY_PROVIDER") {
		require.NotContains(t, e["representation"], "hush")
	}
}

func (s *suite) partialImport(t *testing.T) {
	r := s.newRealm(t, nil)
	body := map[string]any{"ifResourceExists": "SKIP", "users": []any{map[string]any{"username": "imp1", "email": "Imp1@example.com", "enabled": true}}}
	r.refused(r.do(http.MethodPost, "/partialImport", body), http.StatusForbidden, `{"error":"HTTP 403 Forbidden"}`)
	var id string
	events := r.emitted(func() {
		results := r.mustRoot(http.MethodPost, "/partialImport", body).object(t)
		require.Equal(t, 1.0, results["added"])
		first, _ := results["results"].([]any)[0].(map[string]any)
		id = fmt.Sprint(first["id"])
	})
	require.Len(t, events, 1)
	require.Equal(t, "REALM", events[0]["resourceType"])
	require.Equal(t, "CREATE", events[0]["operationType"])
	require.Equal(t, "users/"+id, events[0]["resourcePath"])
	require.Equal(t, `{"id":"`+id+`","username":"imp1","email":"Imp1@example.com","enabled":true}`, events[0]["representation"])
	pushed := r.hook.waitID(t, events[0]["id"]).event
	require.Equal(t, "admin.REALM-CREATE", pushed["type"])
	require.Equal(t, map[string]any{"userId": id, "username": "imp1"}, pushed["details"])
	require.Equal(t, "imp1@example.com", r.user(id)["email"])

	require.Empty(t, r.emitted(func() {
		require.Equal(t, 1.0, r.mustRoot(http.MethodPost, "/partialImport", body).object(t)["skipped"])
	}))
	body["ifResourceExists"] = "FAIL"
	r.refused(r.root(http.MethodPost, "/partialImport", body), http.StatusConflict, `{"errorMessage":"User with user name imp1 already exists."}`)
	body["ifResourceExists"] = "OVERWRITE"
	events = r.emitted(func() { r.mustRoot(http.MethodPost, "/partialImport", body) })
	require.Len(t, events, 1)
	require.Equal(t, "UPDATE", events[0]["operationType"])
	require.NotEqual(t, "users/"+id, events[0]["resourcePath"], "an overwritten user is another one")
	r.refused(r.do(http.MethodGet, "/users/"+id, nil), http.StatusNotFound, `{"error":"User not found"}`)
}

func (s *suite) organizations(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"olga","email":"olga@example.com"}`)
	org := r.mustRoot(http.MethodPost, "/organizations", `{"name":"acme-org","domains":[{"name":"acme.example"}]}`).location
	representation := `{"id":"` + org + `","name":"acme-org","alias":"acme-org","enabled":true,"domains":[{"name":"acme.example","verified":false}]}`
	members := "organizations/" + org + "/members"
	join := func() { r.mustRoot(http.MethodPost, "/"+members, id) }
	pushed := r.emits("ORGANIZATION_MEMBERSHIP", "CREATE", members, representation, join)
	require.Equal(t, map[string]any{"username": "olga", "email": "olga@example.com"}, pushed["details"], "the member is named here only")
	r.refused(r.root(http.MethodPost, "/"+members, id), http.StatusConflict, `{"errorMessage":"User is already a member of the organization."}`)
	list := r.mustRoot(http.MethodGet, "/"+members, nil).list(t)
	require.Len(t, list, 1)
	require.Equal(t, "UNMANAGED", list[0]["membershipType"])
	require.Len(t, r.mustRoot(http.MethodGet, "/organizations/members/"+id+"/organizations", nil).list(t), 1)
	r.refused(r.do(http.MethodGet, "/organizations", nil), http.StatusForbidden, `{"error":"HTTP 403 Forbidden"}`)
	r.emits("ORGANIZATION_MEMBERSHIP", "DELETE", members+"/"+id, representation, func() {
		r.mustRoot(http.MethodDelete, "/"+members+"/"+id, nil)
	})
	r.emits("ORGANIZATION", "DELETE", "organizations/"+org, "", func() { r.mustRoot(http.MethodDelete, "/organizations/"+org, nil) })
}
