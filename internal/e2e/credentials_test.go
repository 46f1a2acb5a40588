package e2e_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/internal/kcserver"
)

// The admin console takes roles by a route of its own, and what that emits tells neither
// which they were nor of which client.
func TestTheConsoleTakesRoles(t *testing.T) {
	t.Parallel()
	settings := object{"roles": object{"realm": []object{{"name": "auditor"}, {"name": "clerk"}}}}
	onBothStores(t, options{settings: settings}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.tap.URL)
		ada := b.create("/users", object{"username": "ada", "enabled": true})
		crm := b.create("/clients", object{"clientId": "crm"})
		for _, name := range []string{"viewer", "editor"} {
			b.create("/clients/"+crm+"/roles", object{"name": name})
		}
		realmRole := func(name string) object { return live[object](b, "/roles/"+name) }
		clientRole := func(name string) object { return live[object](b, "/clients/"+crm+"/roles/"+name) }
		mappings := "/users/" + ada + "/role-mappings"
		b.admin(http.MethodPost, mappings+"/realm", []object{realmRole("auditor"), realmRole("clerk")})
		b.admin(http.MethodPost, mappings+"/clients/"+crm, []object{clientRole("viewer"), clientRole("editor")})
		story := []string{adapter.TypeUserApiCreated, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged}
		b.untilStory(ada, story...)
		b.untilRead()

		takes := func(taken ...object) {
			t.Helper()
			b.admin(http.MethodPost, "/ui-ext/role-mapping-delete/users/"+ada, taken)
			story = append(story, adapter.TypeUserApiRolesChanged)
			b.untilStory(ada, story...)
			b.untilRead()
			has := live[struct {
				RealmMappings  []struct{ Name string }
				ClientMappings map[string]struct{ Mappings []struct{ Name string } }
			}](b, mappings)
			var roles, ofClient []string
			for _, r := range has.RealmMappings {
				if r.Name != "default-roles-"+b.realm.Name {
					roles = append(roles, r.Name)
				}
			}
			for _, r := range has.ClientMappings["crm"].Mappings {
				ofClient = append(ofClient, r.Name)
			}
			u := b.believed(ada)
			require.ElementsMatch(t, roles, u.Roles)
			require.ElementsMatch(t, ofClient, u.ClientRoles["crm"])
		}
		role := func(r object, client string) object {
			taken := object{"roleId": r["id"], "roleName": r["name"]}
			if client != "" {
				taken["clientId"] = client
			}
			return taken
		}
		takes(role(realmRole("auditor"), ""), role(clientRole("viewer"), crm))
		require.Equal(t, []string{"clerk"}, b.believed(ada).Roles)
		require.Equal(t, map[string][]string{"crm": {"editor"}}, b.believed(ada).ClientRoles)
		takes(role(clientRole("editor"), crm))
		takes(role(realmRole("clerk"), ""))
		require.Empty(t, b.believed(ada).Roles)
		require.Empty(t, b.believed(ada).ClientRoles)

		// The trail says who took roles, and that a read had to find out which.
		trail := get[struct{ Items []adapter.AuditEntry }](b, "/audit?user="+ada+"&realm="+b.realm.Name).Items
		var took, found []adapter.AuditEntry
		for _, a := range trail {
			switch {
			case a.EventType == adapter.TypeUserApiRolesChanged && a.Unfolded != "":
				took = append(took, a)
				require.Equal(t, b.server.AdminUser, a.Actor.Username)
			case a.EventType == adapter.TypeUserApiObserved:
				found = append(found, a)
			}
		}
		require.Len(t, took, 3)
		require.Equal(t, []string{"roles"}, fieldsOf(found[0]), "newest first")
		require.JSONEq(t, `["clerk"]`, text(t, found[0].Changes[0].Old))
		require.Equal(t, []string{"client_roles"}, fieldsOf(found[1]))
		require.Equal(t, []string{"roles", "client_roles"}, fieldsOf(found[2]))
		require.JSONEq(t, `["auditor","clerk"]`, text(t, found[2].Changes[0].Old))
		require.JSONEq(t, `["clerk"]`, text(t, found[2].Changes[0].New))
		b.untilAllRecorded()
		b.userEventsFollow()
		b.inSync()
	})
}

func fieldsOf(a adapter.AuditEntry) []string {
	var fields []string
	for _, c := range a.Changes {
		fields = append(fields, c.Field)
	}
	return fields
}

func text(t *testing.T, value any) string {
	t.Helper()
	encoded, err := json.Marshal(value)
	require.NoError(t, err)
	return string(encoded)
}

// Credentials that a user sets up and removes, by a login and by the account console's
// API, and that an administrator takes away: each is told with who and when, and what
// was required of the user is no more when it is done.
func TestOwnCredentials(t *testing.T) {
	t.Parallel()
	onBothStores(t, options{}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.tap.URL)
		ada := b.create("/users", object{
			"username": "ada", "enabled": true, "email": "ada@example.com", "firstName": "Ada", "lastName": "Moss",
			"credentials":     []object{{"type": "password", "value": firstPassword, "temporary": false}},
			"requiredActions": []string{"CONFIGURE_TOTP", "UPDATE_PROFILE"},
		})
		user := "/users/" + ada
		var story []string
		then := func(types ...string) {
			t.Helper()
			told := len(story)
			b.until("the user's story to go on by "+strings.Join(types, ", "), func() bool {
				story = b.story(ada)
				return len(story) >= told+len(types)
			})
			// Of what one delivery tells the order is nobody's.
			require.ElementsMatch(t, types, story[told:])
			b.untilRead()
			require.ElementsMatch(t, live[object](b, user)["requiredActions"], b.believed(ada).RequiredActions)
		}
		then(adapter.TypeUserApiCreated)
		otp := func() string {
			t.Helper()
			for _, c := range live[[]object](b, user+"/credentials") {
				if c["type"] == "otp" {
					return c["id"].(string) //nolint:forcetypeassert // fails the test
				}
			}
			return ""
		}
		begun := time.Now().Add(-time.Second)

		// What is required at the login: the profile first, then a second factor.
		ui := b.newBrowser()
		page := ui.login("ada", firstPassword, "")
		page = page.submit(url.Values{"email": {"ada@example.com"}, "firstName": {"Ada"}, "lastName": {"King"}})
		then(adapter.TypeUserApiUpdated)
		code := page.setUpTOTP()
		then(adapter.TypeUserApiCredentialsChanged, adapter.TypeUserApiUpdated)
		require.Empty(t, b.believed(ada).RequiredActions)

		// Removed by the account console's API.
		id := otp()
		require.NotEmpty(t, id)
		ui.accountAPI(http.MethodDelete, "/credentials/"+id, ui.token(code))
		require.Empty(t, otp())
		then(adapter.TypeUserApiCredentialsChanged)

		// Another one, which nobody required, and removed by an action of the login.
		ui.login("", "", "CONFIGURE_TOTP").setUpTOTP()
		then(adapter.TypeUserApiCredentialsChanged)
		second := otp()
		ui.login("", "", "delete_credential:"+second).submit(url.Values{"accept": {"Yes"}})
		require.Empty(t, otp())
		then(adapter.TypeUserApiCredentialsChanged)

		// A third one, and an administrator takes it away.
		ui.login("", "", "CONFIGURE_TOTP").setUpTOTP()
		then(adapter.TypeUserApiCredentialsChanged)
		third := otp()
		b.admin(http.MethodDelete, user+"/credentials/"+third, nil)
		require.Empty(t, otp())
		then(adapter.TypeUserApiCredentialsChanged)

		// A password that has to be changed, and is.
		b.admin(http.MethodPut, user, object{"requiredActions": []string{"UPDATE_PASSWORD"}})
		then(adapter.TypeUserApiUpdated)
		b.newBrowser().login("ada", firstPassword, "").submit(url.Values{"password-new": {secondPassword}, "password-confirm": {secondPassword}})
		then(adapter.TypeUserApiCredentialsChanged)
		require.Empty(t, b.believed(ada).RequiredActions)

		type told struct{ Actor, Action, CredentialType, CredentialID string }
		var tells []told
		history := get[struct{ Items []historyEntry }](b, b.users(user[len("/users"):]+"/history")).Items
		for _, e := range history {
			if e.EventType != adapter.TypeUserApiCredentialsChanged {
				continue
			}
			require.WithinRange(t, e.OccurredAt, begun, time.Now().Add(time.Second))
			tells = append(tells, told{e.Actor.Username, e.Data.Action, e.Data.CredentialType, e.Data.CredentialID})
			require.Equal(t, adapter.ActorKeycloakUser, e.Actor.Type)
		}
		require.Equal(t, []told{ // newest first
			{"ada", "password_updated", "password", ""},
			{b.server.AdminUser, "credential_removed", "otp", third},
			{"ada", "credential_updated", "otp", ""},
			{"ada", "credential_removed", "otp", second},
			{"ada", "credential_updated", "otp", ""},
			{"ada", "credential_removed", "otp", id},
			{"ada", "credential_updated", "otp", ""},
		}, tells)
		trail := get[struct{ Items []adapter.AuditEntry }](b, "/audit?type=user.required_actions&user="+ada).Items
		require.Len(t, trail, 2)
		require.Equal(t, "ada", trail[1].Actor.Username)
		require.JSONEq(t, `[{"field":"required_actions","old":["CONFIGURE_TOTP"],"new":null}]`, text(t, trail[1].Changes))

		b.untilAllRecorded()
		b.userEventsFollow()
		b.inSync()
		kept := b.database() + b.log.String()
		require.Contains(t, kept, "CONFIGURE_TOTP", "the search finds what is there")
		for i, secret := range append([]string{firstPassword, secondPassword}, ui.secrets...) {
			if strings.Contains(kept, secret) { // require would print it, and everything else
				t.Errorf("secret %d is kept", i)
			}
		}
	})
}

// historyEntry is what these tests look at of an entry of a user's history.
type historyEntry struct {
	EventType  string        `json:"event_type"`
	OccurredAt time.Time     `json:"occurred_at"`
	Actor      adapter.Actor `json:"actor"`
	Data       struct {
		Action         string `json:"action"`
		CredentialType string `json:"credential_type"`
		CredentialID   string `json:"credential_id"`
	} `json:"data"`
}

// afterLogin is where kcserver.BrowserClient sends people; nothing listens there.
const afterLogin = "http://127.0.0.1/after-login"

// browser is a person's browser at the realm's login.
type browser struct {
	b      *bundle
	client *http.Client
	// secrets are what nobody else may get to know.
	secrets []string
}

func (b *bundle) newBrowser() *browser {
	b.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(b.t, err)
	transport := &http.Transport{}
	b.t.Cleanup(transport.CloseIdleConnections)
	return &browser{b: b, client: &http.Client{
		Transport: transport, Jar: jar, Timeout: factLimit,
		CheckRedirect: func(to *http.Request, _ []*http.Request) error {
			if strings.HasPrefix(to.URL.String(), afterLogin) {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}
}

// loginPage is what Keycloak shows, or where it sends the browser when the login is
// done.
type loginPage struct {
	browser *browser
	html    string
	done    string
}

// login opens the login page, by an action of the login if one is named, and logs in
// where Keycloak asks for it.
func (u *browser) login(username, password, action string) loginPage {
	u.b.t.Helper()
	query := url.Values{
		"client_id": {kcserver.BrowserClient}, "response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {afterLogin},
	}
	if action != "" {
		query.Set("kc_action", action)
	}
	page := u.visit(http.MethodGet, u.realm("/protocol/openid-connect/auth?"+query.Encode()), nil)
	if username == "" {
		return page
	}
	return page.submit(url.Values{"username": {username}, "password": {password}})
}

func (u *browser) realm(rest string) string {
	return u.b.server.URL + "/realms/" + u.b.realm.Name + rest
}

func (u *browser) visit(method, target string, form url.Values) loginPage {
	u.b.t.Helper()
	req, err := http.NewRequestWithContext(u.b.t.Context(), method, target, strings.NewReader(form.Encode()))
	require.NoError(u.b.t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := u.client.Do(req)
	require.NoError(u.b.t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	require.NoError(u.b.t, err)
	return loginPage{browser: u, html: string(content), done: resp.Header.Get("Location")}
}

var formAction = regexp.MustCompile(`<form[^>]* action="([^"]+)"`)

// submit sends the page's form.
func (p loginPage) submit(form url.Values) loginPage {
	p.browser.b.t.Helper()
	action := formAction.FindStringSubmatch(p.html)
	require.NotNil(p.browser.b.t, action, "no form in %s", p.html)
	return p.browser.visit(http.MethodPost, html.UnescapeString(action[1]), form)
}

var totpSecret = regexp.MustCompile(`name="totpSecret" value="([^"]+)"`)

// setUpTOTP fills in the page of the required action CONFIGURE_TOTP, which ends the
// login, and returns its code.
func (p loginPage) setUpTOTP() (code string) {
	t := p.browser.b.t
	t.Helper()
	secret := totpSecret.FindStringSubmatch(p.html)
	require.NotNil(t, secret, "no set-up of a second factor in %s", p.html)
	p.browser.secrets = append(p.browser.secrets, secret[1])
	end := p.submit(url.Values{
		"totp": {totp(secret[1], time.Now())}, "totpSecret": {secret[1]}, "userLabel": {"phone"},
	})
	at, err := url.Parse(end.done)
	require.NoError(t, err)
	code = at.Query().Get("code")
	require.NotEmpty(t, code, "the login is not done: %s", end.html)
	return code
}

// totp is the code of RFC 6238 with Keycloak's defaults: six digits, 30 s, SHA-1.
func totp(secret string, at time.Time) string {
	mac := hmac.New(sha1.New, []byte(secret))
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(at.Unix()/30))
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[offset:])&0x7fffffff%1_000_000)
}

func TestTOTP(t *testing.T) {
	t.Parallel()
	// RFC 6238, appendix B, cut to six digits.
	require.Equal(t, "287082", totp("12345678901234567890", time.Unix(59, 0)))
	require.Equal(t, "081804", totp("12345678901234567890", time.Unix(1111111109, 0)))
}

// token is the access token that a login's code is worth.
func (u *browser) token(code string) string {
	u.b.t.Helper()
	page := u.visit(http.MethodPost, u.realm("/protocol/openid-connect/token"), url.Values{
		"grant_type": {"authorization_code"}, "client_id": {kcserver.BrowserClient}, "code": {code}, "redirect_uri": {afterLogin},
	})
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	require.NoError(u.b.t, json.Unmarshal([]byte(page.html), &grant), page.html)
	require.NotEmpty(u.b.t, grant.AccessToken, page.html)
	u.secrets = append(u.secrets, grant.AccessToken)
	return grant.AccessToken
}

// accountAPI does what the account console does for whom the token is.
func (u *browser) accountAPI(method, path, token string) {
	u.b.t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(u.b.t.Context()), method, u.realm("/account"+path), nil)
	require.NoError(u.b.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	// Without it Keycloak takes the request for one of its pages, and answers 405.
	req.Header.Set("Accept", "application/json")
	resp, err := u.client.Do(req)
	require.NoError(u.b.t, err)
	require.NoError(u.b.t, resp.Body.Close())
	require.Equal(u.b.t, http.StatusNoContent, resp.StatusCode)
}
