package admin_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := admin.New(admin.Config{BaseURL: "keycloak:8080", RetryMax: -1, RetryWaitMin: 2, RetryWaitMax: 1, Timeout: -1})
	for _, fault := range []string{"base URL", "auth realm", "client id", "client secret", "retry max", "retry wait: min", "must not be negative"} {
		require.ErrorContains(t, err, fault)
	}
	for _, base := range []string{"", "ftp://x", "http://", "http://u:p@x", "http://x/?q=1", "http://x/#f", "::"} {
		_, err := admin.New(admin.Config{BaseURL: base, AuthRealm: "r", ClientID: "c", ClientSecret: "s"})
		require.ErrorContains(t, err, "base URL", base)
	}
}

// answering serves one body for everything, with status 200.
func answering(t *testing.T, body string) *admin.Client {
	t.Helper()
	return newClient(t, newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}).URL)
}

// A body that cannot be read is never an empty list or an empty user: reconciliation
// would take that for deleted users.
func TestUnreadableAnswersAreErrors(t *testing.T) {
	t.Parallel()
	reads := map[string]func(*admin.Client) error{
		"Users":      func(c *admin.Client) error { _, err := c.Users(testContext(t), "acme", 0, 100); return err },
		"User":       func(c *admin.Client) error { _, err := c.User(testContext(t), "acme", "1"); return err },
		"CountUsers": func(c *admin.Client) error { _, err := c.CountUsers(testContext(t), "acme"); return err },
		"AdminEvents": func(c *admin.Client) error {
			_, err := c.AdminEvents(testContext(t), "acme", admin.EventQuery{})
			return err
		},
		"UserEvents": func(c *admin.Client) error {
			_, err := c.UserEvents(testContext(t), "acme", admin.EventQuery{})
			return err
		},
		"Realm":      func(c *admin.Client) error { _, err := c.Realm(testContext(t), "acme"); return err },
		"Config":     func(c *admin.Client) error { _, err := c.EventsConfig(testContext(t), "acme"); return err },
		"Roles":      func(c *admin.Client) error { _, err := c.UserRoles(testContext(t), "acme", "1"); return err },
		"Groups":     func(c *admin.Client) error { _, err := c.UserGroups(testContext(t), "acme", "1"); return err },
		"ServerInfo": func(c *admin.Client) error { _, err := c.ServerInfo(testContext(t)); return err },
		"Ping":       func(c *admin.Client) error { return c.Ping(testContext(t)) },
		"ByUsername": func(c *admin.Client) error {
			_, _, err := c.UserByUsername(testContext(t), "acme", "bob")
			return err
		},
	}
	bodies := map[string][]string{
		"":            {``, ` `, `null`, `"text"`, `{"id":"1","username":"b"`, `[{"id":"1","username":"b"},{"id`, `<html></html>`, `[] []`},
		"Users":       {`{}`, `[null]`, `[{}]`, `[{"id":"1"}]`, `[{"id":"1","username":"b"},{"username":"c"}]`, `[{"id":1,"username":"b"}]`},
		"ByUsername":  {`{}`, `[null]`},
		"User":        {`{}`, `[]`, `{"id":"1"}`},
		"AdminEvents": {`{}`},
		"UserEvents":  {`{}`},
		"Realm":       {`{}`, `[]`},
		"Ping":        {`{}`, `[]`},
		"CountUsers":  {`{}`, `[]`, `"5"`, `1.5`},
	}
	for name, read := range reads {
		for _, body := range append(append([]string(nil), bodies[""]...), bodies[name]...) {
			var unreadable *admin.DecodeError
			require.ErrorAs(t, read(answering(t, body)), &unreadable, "%s of %q", name, body)
			require.Equal(t, http.StatusOK, unreadable.Status)
		}
	}
}

func TestBrokenOffAnswerIsAnError(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		// Readable as far as it goes; the length says that it is not all.
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `[]`)
	})
	_, err := newClient(t, s.URL).Users(testContext(t), "acme", 0, 100)
	var failure *admin.TransportError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, admin.KindReset, failure.Kind)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestOnlyTheExpectedStatusIsASuccess(t *testing.T) {
	t.Parallel()
	for method, call := range calls {
		for _, code := range []int{200, 201, 202, 204} {
			want := map[string]int{"GET": 200, "POST": 201, "PUT": 204, "DELETE": 204}[method]
			if code == want {
				continue
			}
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/users/1")
				w.WriteHeader(code)
			})
			err := call(testContext(t), newClient(t, s.URL))
			var refused *keycloak.APIError
			require.ErrorAs(t, err, &refused, "%s %d", method, code)
			require.Equal(t, keycloak.KindUnexpected, refused.Kind)
		}
	}
}

// exchange serves one request and shows it.
type exchange struct {
	method, uri, authorization, body string
}

func exchanging(t *testing.T, code int, header, body string) (*admin.Client, *exchange) {
	t.Helper()
	var seen exchange
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen = exchange{r.Method, r.RequestURI, r.Header.Get("Authorization"), string(sent)}
		w.Header().Set("Content-Type", "application/json")
		if header != "" {
			w.Header().Set("Location", header)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	})
	return newClient(t, s.URL+"/auth/"), &seen
}

func TestTheIDOfACreatedUser(t *testing.T) {
	t.Parallel()
	name := "bob"
	for location, want := range map[string]string{
		"http://id.example.com/admin/realms/acme/users/6a91":              "6a91",
		"http://id.example.com/admin/realms/users/users/6a91":             "6a91", // a realm called users
		"http://id.example.com/users/admin/realms/users/users/6a91":       "6a91", // below such a context path too
		"/admin/realms/a%2Fusers%2Fb/users/f:1-2:jo%2Fe+%2525":            "f:1-2:jo/e+%25",
		"http://id.example.com/admin/realms/acme/users/6a91?session=1#at": "6a91",

		"": "", "http://id.example.com/admin/realms/acme": "", "http://id.example.com/admin/realms/acme/users/": "", "/users/%zz": "", "%": "",
	} {
		client, _ := exchanging(t, 201, location, "")
		id, err := client.CreateUser(testContext(t), "acme", admin.UserBody{Username: &name})
		if want == "" {
			var undecoded *admin.DecodeError
			require.ErrorAs(t, err, &undecoded, location)
			continue
		}
		require.NoError(t, err, location)
		require.Equal(t, want, id, location)
	}
}

func TestWriteUser(t *testing.T) {
	t.Parallel()
	name, email, yes := "bob", "", true
	body := admin.UserBody{
		Username: &name, Email: &email, Enabled: &yes, Attributes: map[string][]string{}, RequiredActions: []string{},
		Self: keycloak.Stamp("0199d2f0-7c1e-7b6a-9d4f-3a5b6c7d8e9f"),
	}
	const want = `{"username":"bob","email":"","enabled":true,"attributes":{},"requiredActions":[],"self":"urn:keytrail:call:0199d2f0-7c1e-7b6a-9d4f-3a5b6c7d8e9f"}`

	client, seen := exchanging(t, 201, "http://id.example.com/auth/admin/realms/acme/users/f:1-2:jo%2Fe", "")
	id, err := client.CreateUser(testContext(t), "acme", body)
	require.NoError(t, err)
	require.Equal(t, "f:1-2:jo/e", id)
	require.Equal(t, exchange{"POST", "/auth/admin/realms/acme/users", "Bearer token-1", want}, *seen)
	stamp, ok := keycloak.StampOf(seen.body)
	require.True(t, ok)
	require.Equal(t, "0199d2f0-7c1e-7b6a-9d4f-3a5b6c7d8e9f", stamp)

	client, seen = exchanging(t, 204, "", "")
	require.NoError(t, client.UpdateUser(testContext(t), "a b", "f:1-2:jo/e", body))
	require.Equal(t, exchange{"PUT", "/auth/admin/realms/a%20b/users/f:1-2:jo%2Fe", "Bearer token-1", want}, *seen)

	client, seen = exchanging(t, 204, "", "")
	require.NoError(t, client.DeleteUser(testContext(t), "acme", "1212"))
	require.Equal(t, exchange{"DELETE", "/auth/admin/realms/acme/users/1212", "Bearer token-1", ""}, *seen)

	for _, location := range []string{"", "http://x/", "http://x/users/", "http://x/users/%zz"} {
		client, _ = exchanging(t, 201, location, "")
		_, err := client.CreateUser(testContext(t), "acme", body)
		var unreadable *admin.DecodeError
		require.ErrorAs(t, err, &unreadable, location)
		require.Equal(t, 201, unreadable.Status)
	}
}

func TestUserBodyOfWritesBackWhatWasRead(t *testing.T) {
	t.Parallel()
	const read = `{"id":"1","username":"b","email":"b@example.com","enabled":false,"emailVerified":true,
		"attributes":{"dept":["ops"]},"requiredActions":["UPDATE_PASSWORD"],"createdTimestamp":5,"access":{"view":true}}`
	var user keycloak.User
	require.NoError(t, json.Unmarshal([]byte(read), &user))
	written, err := json.Marshal(admin.UserBodyOf(user))
	require.NoError(t, err)
	require.JSONEq(t, `{"username":"b","email":"b@example.com","enabled":false,"emailVerified":true,
		"attributes":{"dept":["ops"]},"requiredActions":["UPDATE_PASSWORD"]}`, string(written))
}

// DELETE users/ is not DELETE users/{id}.
func TestIDsThatMakeAnotherURLAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, succeed)
	client := newClient(t, s.URL)
	for _, bad := range []string{"", ".", ".."} {
		require.ErrorContains(t, client.DeleteUser(testContext(t), "acme", bad), "cannot stand in a URL")
		require.ErrorContains(t, client.DeleteUser(testContext(t), bad, "1"), "cannot stand in a URL")
		_, err := client.User(testContext(t), "acme", bad)
		require.Error(t, err)
	}
	_, _, err := client.UserByUsername(testContext(t), "acme", "")
	require.Error(t, err)
	require.Empty(t, s.requests())
	require.Zero(t, s.tokenCount())
}

func TestReadUsers(t *testing.T) {
	t.Parallel()
	const bob = `{"id":"1212","username":"bob","email":"bob@example.com","attributes":{"dept":["ops"]},"requiredActions":[],"enabled":true}`
	client, seen := exchanging(t, 200, "", `[`+bob+`]`)
	users, err := client.Users(testContext(t), "acme", 500, 250)
	require.NoError(t, err)
	require.Len(t, users, 1)
	require.Equal(t, "1212", users[0].ID)
	require.Equal(t, "/auth/admin/realms/acme/users?briefRepresentation=false&first=500&max=250", seen.uri)

	client, _ = exchanging(t, 200, "", `[]`)
	users, err = client.Users(testContext(t), "acme", 0, 100)
	require.NoError(t, err)
	require.Empty(t, users)

	client, seen = exchanging(t, 200, "", bob)
	user, err := client.User(testContext(t), "acme", "1212")
	require.NoError(t, err)
	require.Equal(t, []string{"ops"}, user.Attributes["dept"])
	require.Equal(t, "/auth/admin/realms/acme/users/1212", seen.uri)

	client, seen = exchanging(t, 200, "", `2000`)
	count, err := client.CountUsers(testContext(t), "acme")
	require.NoError(t, err)
	require.Equal(t, 2000, count)
	require.Equal(t, "/auth/admin/realms/acme/users/count", seen.uri)

	client, seen = exchanging(t, 200, "", `[{"id":"1","username":"bobby"},`+bob+`]`)
	user, ok, err := client.UserByUsername(testContext(t), "acme", "Bob")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "1212", user.ID)
	require.Contains(t, seen.uri, "exact=true")
	client, _ = exchanging(t, 200, "", `[{"id":"1","username":"bobby"}]`)
	_, ok, err = client.UserByUsername(testContext(t), "acme", "bob")
	require.NoError(t, err)
	require.False(t, ok)

	client, _ = exchanging(t, 404, "", `{"error":"User not found"}`)
	_, err = client.User(testContext(t), "acme", "1212")
	var refused *keycloak.APIError
	require.ErrorAs(t, err, &refused)
	require.True(t, refused.UserNotFound())

	client, seen = exchanging(t, 200, "", `{"realmMappings":[{"id":"r","name":"auditor"}],"clientMappings":{"app":{"id":"c","client":"app","mappings":[{"id":"s","name":"x","clientRole":true}]}}}`)
	roles, err := client.UserRoles(testContext(t), "acme", "1212")
	require.NoError(t, err)
	require.Equal(t, "auditor", roles.RealmMappings[0].Name)
	require.Equal(t, "x", roles.ClientMappings["app"].Mappings[0].Name)
	require.Equal(t, "/auth/admin/realms/acme/users/1212/role-mappings", seen.uri)

	client, _ = exchanging(t, 200, "", `[{"id":"g","name":"staff","path":"/staff"}]`)
	groups, err := client.UserGroups(testContext(t), "acme", "1212")
	require.NoError(t, err)
	require.Equal(t, []keycloak.Group{{ID: "g", Name: "staff", Path: "/staff"}}, groups)
}

func TestReadEvents(t *testing.T) {
	t.Parallel()
	from := time.UnixMilli(1795413925851)
	for query, want := range map[string]admin.EventQuery{
		"": {},
		"?dateFrom=1795413925851&direction=asc&first=10&max=100": {From: from, First: 10, Max: 100, Ascending: true},
		"?dateFrom=2026-11-23&max=5":                             {From: from, DayPrecision: true, Max: 5},
	} {
		client, seen := exchanging(t, 200, "", `[ {"id": "a","new":[1]} ]`)
		events, err := client.AdminEvents(testContext(t), "acme", want)
		require.NoError(t, err)
		require.Equal(t, "/auth/admin/realms/acme/admin-events"+query, seen.uri)
		require.Equal(t, `{"id": "a","new":[1]}`, string(events[0]))

		client, seen = exchanging(t, 200, "", `[]`)
		events, err = client.UserEvents(testContext(t), "acme", want)
		require.NoError(t, err)
		require.Empty(t, events)
		require.Equal(t, "/auth/admin/realms/acme/events"+query, seen.uri)
	}
}

func TestMillisecondQueries(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]bool{200: true, 400: false} {
		client, seen := exchanging(t, code, "", `[]`)
		got, err := client.MillisecondQueries(testContext(t), "acme")
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Contains(t, seen.uri, "max=1")
	}
	client, _ := exchanging(t, 403, "", `{}`)
	_, err := client.MillisecondQueries(testContext(t), "acme")
	require.Error(t, err)
	// A 400 of the token endpoint says nothing about events.
	s := newServer(t, succeed)
	s.tokenFor = func(w http.ResponseWriter, _ int) { w.WriteHeader(http.StatusBadRequest) }
	_, err = newClient(t, s.URL).MillisecondQueries(testContext(t), "acme")
	require.Error(t, err)
}

func TestReadRealm(t *testing.T) {
	t.Parallel()
	client, seen := exchanging(t, 200, "", `{"id":"u","realm":"acme","adminEventsEnabled":true,"eventsListeners":["x"],"attributes":{"a":"b"},"smtpServer":{}}`)
	realm, err := client.Realm(testContext(t), "acme")
	require.NoError(t, err)
	require.Equal(t, keycloak.Realm{ID: "u", Name: "acme", AdminEventsEnabled: true, EventsListeners: []string{"x"}, Attributes: map[string]string{"a": "b"}}, realm)
	require.Equal(t, "/auth/admin/realms/acme", seen.uri)

	client, seen = exchanging(t, 200, "", `{"realm":"acme","public_key":"x"}`)
	require.NoError(t, client.Ping(testContext(t)))
	require.Equal(t, "/auth/realms/acme", seen.uri)

	client, _ = exchanging(t, 200, "", `{"eventsEnabled":true,"adminEventsEnabled":true,"adminEventsDetailsEnabled":true,"eventsExpiration":7200}`)
	config, err := client.EventsConfig(testContext(t), "acme")
	require.NoError(t, err)
	require.Equal(t, keycloak.EventsConfig{EventsEnabled: true, AdminEventsEnabled: true, AdminEventsDetailsEnabled: true, EventsExpiration: 7200}, config)

	client, _ = exchanging(t, 200, "", `{"systemInfo":{"version":"26.1.4"},"features":[{"name":"X"}]}`)
	info, err := client.ServerInfo(testContext(t))
	require.NoError(t, err)
	require.Equal(t, "26.1.4", info.Version)
	require.Len(t, info.Features, 1)
}

func TestLargePageIsRead(t *testing.T) {
	t.Parallel()
	var page strings.Builder
	for i := range 500 {
		_, _ = fmt.Fprintf(&page, `,{"id":"%d","username":"user-%d","attributes":{"note":["%s"]}}`, i, i, strings.Repeat("x", 1000))
	}
	client := answering(t, "["+page.String()[1:]+"]")
	users, err := client.Users(testContext(t), "acme", 0, 500)
	require.NoError(t, err)
	require.Len(t, users, 500)
}
