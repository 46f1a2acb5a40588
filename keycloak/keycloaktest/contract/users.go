package contract

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func (s *suite) tokens(t *testing.T) {
	r := s.newRealm(t, nil)
	good := url.Values{"grant_type": {"client_credentials"}, "client_id": {serviceClient}, "client_secret": {clientSecret}}
	a := s.grant(t, r.name, good)
	require.Equal(t, http.StatusOK, a.status, a.body)
	token := a.object(t)
	require.Equal(t, "Bearer", token["token_type"])
	require.InDelta(t, 300, token["expires_in"], 2)
	claims := claims(t, token["access_token"])
	require.Equal(t, serviceClient, claims["azp"])
	require.NoError(t, uuid.Validate(fmt.Sprint(claims["sub"])))
	require.Equal(t, "service-account-"+serviceClient, claims["preferred_username"])

	with := func(key, value string) url.Values {
		form := url.Values{}
		for k, v := range good {
			form[k] = v
		}
		form.Set(key, value)
		return form
	}
	for _, c := range []struct {
		form   url.Values
		status int
		code   string
	}{
		{with("client_secret", "wrong"), http.StatusUnauthorized, "unauthorized_client"},
		{with("client_id", "nobody"), http.StatusUnauthorized, "invalid_client"},
		{with("grant_type", "wishful"), http.StatusBadRequest, "unsupported_grant_type"},
		{with("grant_type", ""), http.StatusBadRequest, "unsupported_grant_type"},
		{url.Values{"client_id": {serviceClient}}, http.StatusBadRequest, "invalid_request"},
	} {
		a := s.grant(t, r.name, c.form)
		require.Equal(t, c.status, a.status, a.body)
		require.Equal(t, c.code, a.object(t)["error"])
	}
	r.refused(s.grant(t, "no-such-realm", good), http.StatusNotFound, `{"error":"Realm does not exist"}`)

	unauthorized := `{"error":"HTTP 401 Unauthorized"}`
	for _, token := range []string{"", "nonsense", "a.b.c"} {
		r.refused(s.send(t, token, http.MethodGet, "/admin/realms/"+r.name+"/users", nil), http.StatusUnauthorized, unauthorized)
	}
	r.refused(s.send(t, r.svc, http.MethodGet, "/admin/realms/no-such-realm/users", nil), http.StatusNotFound, `{"error":"Realm not found."}`)
	r.refused(s.send(t, r.svc, http.MethodGet, "/admin/realms/master/users", nil), http.StatusForbidden, `{"error":"HTTP 403 Forbidden"}`)
	r.refused(r.do(http.MethodGet, "/no-such-page", nil), http.StatusNotFound, `{"error":"HTTP 404 Not Found"}`)
	r.refused(r.do(http.MethodPatch, "/users", "{}"), http.StatusMethodNotAllowed, `{"error":"HTTP 405 Method Not Allowed"}`)

	r.hook.waitType(t, "access.CLIENT_LOGIN")
	failed := r.hook.waitType(t, "access.CLIENT_LOGIN_ERROR")
	require.NotEmpty(t, failed.event["error"])
}

func (s *suite) userLife(t *testing.T) {
	r := s.newRealm(t, nil)
	const sent = `{"username":"Alice","firstName":"Al","lastName":"Ice","email":"Alice@Example.COM","enabled":true,"self":"urn:keytrail:call:1"}`
	var id string
	pushed := r.hookedCreate(sent, &id)
	require.Equal(t, map[string]any{"userId": id, "username": "alice"}, pushed["details"])
	require.Equal(t, id, pushed["resourceId"])

	u := r.user(id)
	require.Equal(t, "alice", u["username"], "stored in lower case")
	require.Equal(t, "alice@example.com", u["email"])
	require.Equal(t, true, u["enabled"])
	require.Equal(t, false, u["emailVerified"])
	require.NotContains(t, u, "self", "ignored, but echoed in the event")
	require.NotContains(t, u, "attributes")
	require.Positive(t, u["createdTimestamp"])

	path := "users/" + id
	put := func(body string) func() {
		return func() { require.Equal(t, http.StatusNoContent, r.do(http.MethodPut, "/"+path, body).status) }
	}
	r.emits("USER", "UPDATE", path, `{"enabled":false}`, put(`{"enabled":false}`))
	require.Equal(t, false, r.user(id)["enabled"])
	require.Equal(t, "Al", r.user(id)["firstName"], "a partial PUT keeps the rest")
	r.emits("USER", "UPDATE", path, `{"enabled":true,"self":"urn:keytrail:call:2"}`, put(`{"self":"urn:keytrail:call:2","enabled":true}`))

	r.emits("USER", "ACTION", path+"/reset-password", "", func() {
		r.must(http.MethodPut, "/"+path+"/reset-password", `{"type":"password","value":"hunter2","temporary":false}`)
	})
	r.refused(r.do(http.MethodPut, "/"+path+"/reset-password", `{"type":"password"}`), http.StatusBadRequest, `{"error":"No password provided"}`)
	login := url.Values{"grant_type": {"password"}, "client_id": {"person"}, "username": {"alice"}, "password": {"hunter2"}}
	require.Equal(t, http.StatusOK, r.grant(t, r.name, login).status)
	login.Set("password", "wrong")
	a := r.grant(t, r.name, login)
	require.Equal(t, http.StatusBadRequest, a.status)
	require.Equal(t, "invalid_grant", a.object(t)["error"])
	r.emits("USER", "ACTION", path+"/logout", "", func() { r.must(http.MethodPost, "/"+path+"/logout", nil) })

	// Without a mail server: an error, and no event.
	require.Empty(t, r.emitted(func() {
		require.Equal(t, http.StatusInternalServerError, r.do(http.MethodPut, "/"+path+"/execute-actions-email", `["UPDATE_PASSWORD"]`).status)
	}))

	pushed = r.emits("USER", "DELETE", path, `{"id":"`+id+`","username":"alice"}`, func() { r.must(http.MethodDelete, "/"+path, nil) })
	require.Equal(t, map[string]any{"userId": id}, pushed["details"])
	gone := `{"error":"User not found"}`
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		r.refused(r.do(method, "/"+path, nil), http.StatusNotFound, gone)
	}
	r.refused(r.do(http.MethodPut, "/"+path, `{"enabled":true}`), http.StatusNotFound, gone)
}

// hookedCreate posts a user and checks its event.
func (r *realm) hookedCreate(sent string, id *string) map[string]any {
	r.t.Helper()
	events := r.emitted(func() { *id = r.createUser(sent) })
	require.Len(r.t, events, 1)
	require.Equal(r.t, "CREATE", events[0]["operationType"])
	require.Equal(r.t, "users/"+*id, events[0]["resourcePath"])
	require.Equal(r.t, sent, events[0]["representation"], "the request as it was sent, in the representation's own order of fields")
	return r.hook.waitID(r.t, events[0]["id"]).event
}

func (s *suite) userErrors(t *testing.T) {
	r := s.newRealm(t, nil)
	r.createUser(`{"username":"alice","email":"alice@example.com"}`)
	fresh := r.emitted(func() {
		for body, want := range map[string]struct {
			status int
			body   string
		}{
			`{"username":"ALICE"}`:                              {409, `{"errorMessage":"User exists with same username"}`},
			`{"username":"alice2","email":"Alice@example.com"}`: {409, `{"errorMessage":"User exists with same email"}`},
			`{}`:                                  {400, `{"errorMessage":"User name is missing"}`},
			`{"username":"al"}`:                   {400, `{"field":"username","errorMessage":"error-invalid-length","params":["username",3,255]}`},
			`{"username":"a b c"}`:                {400, `{"field":"username","errorMessage":"error-username-invalid-character","params":["username"]}`},
			`{"username":"bob","email":"bad"}`:    {400, `{"field":"email","errorMessage":"error-invalid-email","params":["email","bad"]}`},
			`{"username":"bob","firstName":"<b"}`: {400, `{"field":"firstName","errorMessage":"error-person-name-invalid-character","params":["firstName"]}`},
			`{"username":"al","email":"bad"}`: {400, `{"errors":[{"field":"username","errorMessage":"error-invalid-length","params":["username",3,255]},
				{"field":"email","errorMessage":"error-invalid-email","params":["email","bad"]}]}`},
			`{`:                                     {400, `{"error":"invalid_request","error_description":"Cannot parse the JSON"}`},
			`{"username":"bob","groups":["/none"]}`: {500, `{"error":"unknown_error","error_description":"For more on this error consult the server log."}`},
		} {
			r.refused(r.do(http.MethodPost, "/users", body), want.status, want.body)
		}
		a := r.do(http.MethodPost, "/users", `{"username":"bob","bogus":1}`)
		require.Equal(t, http.StatusBadRequest, a.status)
		require.Contains(t, a.body, `Unrecognized field \"bogus\"`)
	})
	require.Empty(t, fresh, "a call that fails emits nothing")
}

func (s *suite) userUpdate(t *testing.T) {
	for _, editUsername := range []bool{false, true} {
		t.Run(fmt.Sprintf("editUsernameAllowed=%v", editUsername), func(t *testing.T) {
			r := s.newRealm(t, map[string]any{"editUsernameAllowed": editUsername})
			id := r.createUser(`{"username":"carol","email":"carol@example.com","firstName":"Ca","lastName":"Rol","enabled":true}`)
			path := "/users/" + id

			// Without attributes: what is absent or null is kept, "" clears.
			r.must(http.MethodPut, path, `{"firstName":null,"lastName":"","emailVerified":true}`)
			u := r.user(id)
			require.Equal(t, "Ca", u["firstName"])
			require.NotContains(t, u, "lastName")
			require.Equal(t, "carol@example.com", u["email"])

			// With attributes and the user name: the rest of the profile is wiped.
			r.must(http.MethodPut, path, `{"username":"carol","attributes":{"x":["1"]}}`)
			u = r.user(id)
			for _, field := range []string{"firstName", "lastName", "email", "attributes"} {
				require.NotContains(t, u, field)
			}
			require.Equal(t, true, u["enabled"])
			require.Equal(t, true, u["emailVerified"])

			// With attributes and without the user name.
			r.must(http.MethodPut, path, `{"firstName":"Ca"}`)
			a := r.do(http.MethodPut, path, `{"attributes":{"x":["1"]}}`)
			if editUsername {
				r.refused(a, http.StatusBadRequest, `{"errorMessage":"User name is missing"}`)
				require.Equal(t, "Ca", r.user(id)["firstName"])
			} else {
				require.Equal(t, http.StatusNoContent, a.status, a.body)
				require.NotContains(t, r.user(id), "firstName", "wiped without a word")
			}

			// A change of the name.
			a = r.do(http.MethodPut, path, `{"username":"CAROL2"}`)
			if editUsername {
				require.Equal(t, http.StatusNoContent, a.status, a.body)
				require.Equal(t, "carol2", r.user(id)["username"])
				r.createUser(`{"username":"dora"}`)
				r.refused(r.do(http.MethodPut, path, `{"username":"dora"}`), http.StatusConflict, `{"errorMessage":"User exists with same username"}`)
			} else {
				r.refused(a, http.StatusBadRequest, `{"field":"username","errorMessage":"error-user-attribute-read-only","params":["username"]}`)
			}

			// Roles and groups are not looked at; credentials are set, and not shown.
			r.must(http.MethodPut, path, `{"groups":["/none"],"realmRoles":["none"],"createdTimestamp":5}`)
			require.NotEqual(t, 5.0, r.user(id)["createdTimestamp"])
			r.emits("USER", "UPDATE", "users/"+id, `{}`, func() {
				r.must(http.MethodPut, path, `{"credentials":[{"type":"password","value":"hunter2"}]}`)
			})
			r.must(http.MethodPut, path, `{"requiredActions":["UPDATE_PASSWORD"]}`)
			require.Equal(t, []any{"UPDATE_PASSWORD"}, r.user(id)["requiredActions"])
		})
	}
}

// requiredActions sends one that no server knows, beside one that all know.
func (s *suite) requiredActions(t *testing.T) {
	r := s.newRealm(t, nil)
	const created = `{"username":"gil","requiredActions":["NO_SUCH_ACTION","VERIFY_EMAIL"]}`
	var id string
	r.hookedCreate(created, &id)
	require.Equal(t, []any{"VERIFY_EMAIL"}, r.user(id)["requiredActions"], "dropped without a word, while the event shows it")

	const changed = `{"requiredActions":["UPDATE_PASSWORD","NO_SUCH_ACTION"]}`
	r.emits("USER", "UPDATE", "users/"+id, changed, func() {
		require.Equal(t, http.StatusNoContent, r.do(http.MethodPut, "/users/"+id, changed).status)
	})
	require.Equal(t, []any{"UPDATE_PASSWORD"}, r.user(id)["requiredActions"], "the list is replaced by what is known of it")
	r.must(http.MethodPut, "/users/"+id, `{"requiredActions":["NO_SUCH_ACTION"]}`)
	require.Empty(t, r.user(id)["requiredActions"])
}

// userNames sends every field, to see the order in which an event shows them.
func (s *suite) userNames(t *testing.T) {
	r := s.newRealm(t, nil)
	id := r.createUser(`{"username":"erin"}`)
	const full = `{"id":"other","username":"erin","firstName":"F","lastName":"L","email":"e@example.com","emailVerified":true,` +
		`"attributes":{"k":["v"]},"enabled":true,"self":"urn:a","createdTimestamp":3,"totp":true,"disableableCredentialTypes":["a"],` +
		`"requiredActions":[],"federatedIdentities":[{"identityProvider":"z","userId":"2","userName":"1"}],"realmRoles":["x"],` +
		`"clientRoles":{"c":["r"]},"notBefore":3,"groups":["/a"],"access":{"b":true,"a":false}}`
	r.emits("USER", "UPDATE", "users/"+id, full, func() { r.must(http.MethodPut, "/users/"+id, full) })
	u := r.user(id)
	require.Equal(t, id, u["id"])
	require.Equal(t, 0.0, u["notBefore"])
	require.NotContains(t, u, "federatedIdentities")
	// What GET gives can be put back.
	a := r.do(http.MethodGet, "/users/"+id, nil)
	r.emits("USER", "UPDATE", "users/"+id, a.body, func() { r.must(http.MethodPut, "/users/"+id, a.body) })
}

func (s *suite) unmanagedAttributes(t *testing.T) {
	r := s.newRealm(t, nil)
	var id string
	r.hookedCreate(`{"username":"fay","attributes":{"dept":["ops"]}}`, &id)
	require.NotContains(t, r.user(id), "attributes", "dropped without a word, while the event shows it")

	profile := r.mustRoot(http.MethodGet, "/users/profile", nil).object(t)
	profile["unmanagedAttributePolicy"] = "ENABLED"
	r.mustRoot(http.MethodPut, "/users/profile", profile)
	r.must(http.MethodPut, "/users/"+id, `{"username":"fay","attributes":{"dept":["ops","dev"],"empty":[""],"none":[]}}`)
	require.Equal(t, map[string]any{"dept": []any{"ops", "dev"}}, r.user(id)["attributes"])
	r.must(http.MethodPut, "/users/"+id, `{"firstName":"Fay"}`)
	require.Equal(t, map[string]any{"dept": []any{"ops", "dev"}}, r.user(id)["attributes"], "kept without attributes")
	require.Len(t, r.must(http.MethodGet, "/users?q=dept:dev", nil).list(t), 1)
	require.Len(t, r.must(http.MethodGet, "/users", nil).list(t)[0]["attributes"], 1, "lists have attributes")
	require.NotContains(t, r.must(http.MethodGet, "/users?briefRepresentation=true", nil).list(t)[0], "attributes")
	r.must(http.MethodPut, "/users/"+id, `{"username":"fay","attributes":{"other":["1"]}}`)
	require.Equal(t, map[string]any{"other": []any{"1"}}, r.user(id)["attributes"], "the map is replaced")
}

func (s *suite) userLists(t *testing.T) {
	r := s.newRealm(t, nil)
	for _, name := range []string{"uma", "ugo", "ulf", "wim"} {
		r.createUser(`{"username":"` + name + `","email":"` + name + `@example.com","enabled":` + fmt.Sprint(name != "wim") + `}`)
	}
	names := func(query string) []string {
		t.Helper()
		list := []string{}
		for _, u := range r.must(http.MethodGet, "/users?"+query, nil).list(t) {
			list = append(list, fmt.Sprint(u["username"]))
		}
		return list
	}
	count := func(query string) string { return r.must(http.MethodGet, "/users/count?"+query, nil).body }
	require.Equal(t, []string{"ugo", "ulf", "uma", "wim"}, names(""), "by name, without service accounts")
	require.Equal(t, "4", count(""))
	require.Equal(t, []string{"ulf", "uma"}, names("first=1&max=2"))
	require.Equal(t, []string{"wim"}, names("first=3&max=2"))
	require.Empty(t, names("first=4&max=2"))
	require.Empty(t, names("max=0"))
	require.Len(t, names("max=-1"), 4)
	require.Len(t, names("first=-1"), 4)
	r.refused(r.do(http.MethodGet, "/users?max=abc", nil), http.StatusNotFound, `{"error":"HTTP 404 Not Found"}`)
	require.Equal(t, []string{"uma"}, names("username=UMA&exact=true"))
	require.Equal(t, []string{"ulf"}, names("username=lf"), "a part of the name is enough")
	require.Empty(t, names("username=lf&exact=true"))
	require.Equal(t, []string{"ulf"}, names("email=ulf@example.com&exact=true"))
	require.Equal(t, []string{"ugo", "ulf", "uma"}, names("search=u"), "a prefix")
	require.Empty(t, names("search=lf"))
	require.Equal(t, []string{"ulf"}, names("search=*lf*"))
	require.Equal(t, []string{"ulf"}, names("search="+url.QueryEscape(`"ulf"`)))
	require.Equal(t, []string{"wim"}, names("enabled=false"))
	require.Contains(t, names("enabled=true"), "service-account-"+serviceClient, "a filter lets service accounts in")
	require.Equal(t, fmt.Sprint(len(names("enabled=true"))), count("enabled=true"))
	require.Empty(t, names("search=service-account"), "but search does not")

	brief := r.must(http.MethodGet, "/users?briefRepresentation=true", nil).list(t)[0]
	require.ElementsMatch(t, []string{"id", "username", "email", "emailVerified", "enabled", "createdTimestamp", "access"}, keys(brief))
	full := r.must(http.MethodGet, "/users", nil).list(t)[0]
	require.ElementsMatch(t, append(keys(brief), "totp", "disableableCredentialTypes", "requiredActions", "notBefore"), keys(full))
	require.Equal(t, map[string]any{"manage": true}, full["access"])
}

func keys[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
