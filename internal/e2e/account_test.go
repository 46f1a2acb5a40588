package e2e_test

import (
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// grant gives keytrail's service account further roles of realm-management.
func (b *bundle) grant(names ...string) {
	b.t.Helper()
	id := live[[]object](b, "/users?exact=true&username=service-account-"+b.realm.ClientID)[0]["id"].(string)
	client := live[[]object](b, "/clients?clientId=realm-management")[0]["id"].(string)
	var roles []object
	for _, name := range names {
		roles = append(roles, live[object](b, "/clients/"+client+"/roles/"+name))
	}
	b.admin(http.MethodPost, "/users/"+id+"/role-mappings/clients/"+client, roles)
}

// What a user has and may do, given and taken: each command is recorded from its intent
// to the echo of a real Keycloak, by a stamp where the body can carry one and by the
// address where it cannot, and each change is told once.
func TestAccountCommands(t *testing.T) {
	t.Parallel()
	settings := object{
		"organizationsEnabled": true, "bruteForceProtected": true, "failureFactor": 2,
		"roles": object{"realm": []object{{"name": "auditor"}, {"name": "clerk"}}}, "groups": []object{{"name": "staff"}},
	}
	onBothStores(t, options{settings: settings}, func(t *testing.T, b *bundle) {
		b.grant("view-clients", "view-organizations", "manage-organizations")
		app := b.create("/clients", object{"clientId": "app"})
		b.admin(http.MethodPost, "/clients/"+app+"/roles", object{"name": "approver"})
		blue := b.create("/organizations", object{"name": "Blue", "alias": "blue", "domains": []object{{"name": "blue.example"}}})
		staff := live[[]object](b, "/groups?search=staff")[0]["id"].(string)
		b.start()
		b.register(b.tap.URL)

		status, created := b.api(http.MethodPost, b.users(""), object{
			"username": "grace", "email": "grace@example.com", "first_name": "Grace", "last_name": "Hopper", "enabled": true, "password": firstPassword,
			"roles": []string{"auditor", "clerk"}, "client_roles": object{"app": []string{"approver"}}, "groups": []string{"/staff"}, "organization": blue,
		})
		require.Equal(t, http.StatusCreated, status, "%v", created)
		grace := created["user_id"].(string)
		b.untilEchoed(uuid.MustParse(created["call_id"].(string)))
		var matched []string
		for _, s := range created["steps"].([]any) {
			id := uuid.MustParse(s.(object)["call_id"].(string))
			b.untilEchoed(id)
			matched = append(matched, b.call(id).Echo.MatchedBy)
		}
		require.Equal(t, []string{"stamp", "stamp", "path"}, matched)
		want := []string{
			adapter.TypeUserApiCreated, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiOrganizationsChanged,
		}
		b.untilStory(grace, want...)
		u := b.believed(grace)
		require.Equal(t, []string{"auditor", "clerk"}, u.Roles)
		require.Equal(t, map[string][]string{"app": {"approver"}}, u.ClientRoles)
		require.Equal(t, []string{"/staff"}, u.Groups)
		require.Equal(t, []adapter.Organization{{ID: blue, Alias: "blue"}}, u.Organizations)

		user := b.users("/" + grace)
		for _, c := range []struct {
			method, path string
			body         object
			told, by     string
		}{
			{http.MethodDelete, "/roles/auditor", object{}, adapter.TypeUserApiRolesChanged, "stamp"},
			{http.MethodPut, "/roles/auditor", object{}, adapter.TypeUserApiRolesChanged, "stamp"},
			{http.MethodDelete, "/client-roles/app/approver", object{}, adapter.TypeUserApiRolesChanged, "stamp"},
			{http.MethodDelete, "/groups/" + staff, object{}, adapter.TypeUserApiGroupsChanged, "path"},
			{http.MethodPut, "/groups/" + staff, object{}, adapter.TypeUserApiGroupsChanged, "path"},
			{http.MethodDelete, "/organizations/" + blue, object{}, adapter.TypeUserApiOrganizationsChanged, "path"},
			{http.MethodPut, "/organizations/" + blue, object{}, adapter.TypeUserApiOrganizationsChanged, "path"},
			{http.MethodPost, "/reset-password", object{"password": secondPassword, "temporary": true}, adapter.TypeUserApiCredentialsChanged, "path"},
			{http.MethodPost, "/reset-password", object{"password": secondPassword}, adapter.TypeUserApiCredentialsChanged, "path"},
			{http.MethodPut, "/required-actions", object{"required_actions": []string{"VERIFY_EMAIL"}}, adapter.TypeUserApiUpdated, "stamp"},
			{http.MethodPut, "/required-actions", object{"required_actions": []string{}}, adapter.TypeUserApiUpdated, "stamp"},
			{http.MethodPost, "/logout", object{}, adapter.TypeUserApiSessionsEnded, "path"},
		} {
			id := b.command(c.method, user+c.path, c.body, http.StatusOK)
			require.Equal(t, c.by, b.call(id).Echo.MatchedBy, c.path)
			want = append(want, c.told)
			b.untilStory(grace, want...)
		}
		require.Empty(t, live[object](b, "/users/"+grace)["requiredActions"], "a lasting password takes the duty to change it away")
		require.Empty(t, b.believed(grace).RequiredActions)
		var held []string
		for _, r := range live[[]object](b, "/users/"+grace+"/role-mappings/realm") {
			if name := r["name"].(string); name == "auditor" || name == "clerk" {
				held = append(held, name)
			}
		}
		slices.Sort(held)
		require.Equal(t, b.believed(grace).Roles, held)

		// Nothing of this is asked for twice.
		for path, code := range map[string]string{
			"/roles/auditor": "already_has_role", "/groups/" + staff: "already_member", "/organizations/" + blue: "already_member",
			"/roles/nobody": "role_not_found", "/groups/" + uuid.NewString(): "group_not_found", "/organizations/" + uuid.NewString(): "organization_not_found",
			"/client-roles/nothing/clerk": "client_not_found", "/client-roles/app/nobody": "role_not_found",
		} {
			writes := len(b.proxy.writes())
			_, problem := b.api(http.MethodPut, user+path, nil)
			require.Equal(t, code, problem["code"], "%s: %v", path, problem)
			require.Len(t, b.proxy.writes(), writes)
		}

		// A realm without mail server says so, and nobody has to wonder.
		status, problem := b.api(http.MethodPost, user+"/send-verify-email", nil)
		require.Equal(t, http.StatusBadGateway, status)
		require.Equal(t, "keycloak_mail_fault", problem["code"], "%v", problem)
		require.Equal(t, adapter.CallFailed, b.call(uuid.MustParse(problem["call_id"].(string))).Status)

		// Locked out by wrong passwords, and unlocked.
		_, problem = b.api(http.MethodPost, user+"/unlock", nil)
		require.Equal(t, "not_locked", problem["code"], "%v", problem)
		for range 3 {
			_, err := b.realm.LogIn(t.Context(), "grace", "wrong")
			require.Error(t, err)
		}
		b.untilOutside("the lock-out", func() bool {
			return live[object](b, "/attack-detection/brute-force/users/"+grace)["disabled"] == true
		})
		id := b.command(http.MethodPost, user+"/unlock", object{}, http.StatusOK)
		require.Equal(t, "path", b.call(id).Echo.MatchedBy)
		_, err := b.realm.LogIn(t.Context(), "grace", secondPassword)
		require.NoError(t, err)

		// By name, where there is no body and no id: still known by its address.
		status, answer := b.api(http.MethodPost, b.users("/"+url.PathEscape("GRACE")+"/logout"), object{"reason": "left the company, ticket HR-17"})
		require.Equal(t, http.StatusOK, status, "%v", answer)
		b.untilEchoed(uuid.MustParse(answer["call_id"].(string)))
		noSecretIsKept(t, b)
	})
}
