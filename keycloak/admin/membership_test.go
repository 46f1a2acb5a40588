package admin_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

var someRoles = []admin.RoleBody{{ID: "r1", Name: "auditor", Description: "urn:keytrail:call:1"}}

// wireCases are the calls about roles, groups, organizations and accounts: what goes
// out, and how often where Keycloak cannot serve.
var wireCases = []struct {
	name, want string
	body       string
	answer     int
	reply      string
	// attempts are those that a 503 to the end causes, with two repetitions.
	attempts int
	call     func(context.Context, *admin.Client) error
}{
	{"realm role", "GET /admin/realms/acme/roles/a%2Fb", "", 200, `{"id":"r1","name":"a/b"}`, 3, func(ctx context.Context, c *admin.Client) error {
		_, err := c.RealmRole(ctx, "acme", "a/b")
		return err
	}},
	{"client role", "GET /admin/realms/acme/clients/c1/roles/clerk", "", 200, `{"id":"r1","name":"clerk"}`, 3, func(ctx context.Context, c *admin.Client) error {
		_, err := c.ClientRole(ctx, "acme", "c1", "clerk")
		return err
	}},
	{"realm roles of a user", "GET /admin/realms/acme/users/1/role-mappings/realm", "", 200, `[]`, 3, func(ctx context.Context, c *admin.Client) error {
		_, err := c.UserRealmRoles(ctx, "acme", "1")
		return err
	}},
	{"client roles of a user", "GET /admin/realms/acme/users/1/role-mappings/clients/c1", "", 200, `[]`, 3, func(ctx context.Context, c *admin.Client) error {
		_, err := c.UserClientRoles(ctx, "acme", "1", "c1")
		return err
	}},
	{"add realm roles", "POST /admin/realms/acme/users/1/role-mappings/realm", `[{"id":"r1","name":"auditor","description":"urn:keytrail:call:1"}]`, 204, "", 1, func(ctx context.Context, c *admin.Client) error {
		return c.AddRoles(ctx, "acme", "1", "", someRoles)
	}},
	{"remove client roles", "DELETE /admin/realms/acme/users/1/role-mappings/clients/c1", `[{"id":"r1","name":"auditor","description":"urn:keytrail:call:1"}]`, 204, "", 3, func(ctx context.Context, c *admin.Client) error {
		return c.RemoveRoles(ctx, "acme", "1", "c1", someRoles)
	}},
	{"group", "GET /admin/realms/acme/groups/g1", "", 200, `{"id":"g1","name":"staff","path":"/staff"}`, 3, func(ctx context.Context, c *admin.Client) error {
		_, err := c.Group(ctx, "acme", "g1")
		return err
	}},
	{"join a group", "PUT /admin/realms/acme/users/1/groups/g1", "", 204, "", 3, func(ctx context.Context, c *admin.Client) error {
		return c.JoinGroup(ctx, "acme", "1", "g1")
	}},
	{"leave a group", "DELETE /admin/realms/acme/users/1/groups/g1", "", 204, "", 3, func(ctx context.Context, c *admin.Client) error {
		return c.LeaveGroup(ctx, "acme", "1", "g1")
	}},
	{"organization", "GET /admin/realms/acme/organizations/o1", "", 200, `{"id":"o1","name":"Blue","alias":"blue"}`, 3, func(ctx context.Context, c *admin.Client) error {
		_, err := c.Organization(ctx, "acme", "o1")
		return err
	}},
	{"join an organization", "POST /admin/realms/acme/organizations/o1/members", `"1"`, 201, "", 1, func(ctx context.Context, c *admin.Client) error {
		return c.AddOrganizationMember(ctx, "acme", "o1", "1")
	}},
	{"leave an organization", "DELETE /admin/realms/acme/organizations/o1/members/1", "", 204, "", 3, func(ctx context.Context, c *admin.Client) error {
		return c.RemoveOrganizationMember(ctx, "acme", "o1", "1")
	}},
	{"reset a password", "PUT /admin/realms/acme/users/1/reset-password", `{"type":"password","value":"x y","temporary":true}`, 204, "", 3, func(ctx context.Context, c *admin.Client) error {
		return c.ResetPassword(ctx, "acme", "1", admin.Credential{Type: "password", Value: "x y", Temporary: true})
	}},
	{"send an e-mail", "PUT /admin/realms/acme/users/1/send-verify-email", "", 204, "", 3, func(ctx context.Context, c *admin.Client) error {
		return c.SendVerifyEmail(ctx, "acme", "1")
	}},
	{"log out", "POST /admin/realms/acme/users/1/logout", "", 204, "", 1, func(ctx context.Context, c *admin.Client) error {
		return c.LogoutUser(ctx, "acme", "1")
	}},
	{"login failures", "GET /admin/realms/acme/attack-detection/brute-force/users/1", "", 200, `{"numFailures":3,"disabled":true}`, 3, func(ctx context.Context, c *admin.Client) error {
		f, err := c.LoginFailures(ctx, "acme", "1")
		if err == nil && f != (keycloak.LoginFailures{NumFailures: 3, Disabled: true}) {
			panic(f)
		}
		return err
	}},
	{"clear login failures", "DELETE /admin/realms/acme/attack-detection/brute-force/users/1", "", 204, "", 3, func(ctx context.Context, c *admin.Client) error {
		return c.ClearLoginFailures(ctx, "acme", "1")
	}},
}

func TestWhatGoesOutForRolesGroupsAndAccounts(t *testing.T) {
	t.Parallel()
	for _, tc := range wireCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var seen, body string
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				seen, body = r.Method+" "+r.URL.EscapedPath(), string(b)
				w.WriteHeader(tc.answer)
				_, _ = io.WriteString(w, tc.reply)
			})
			r := newRecorder()
			require.NoError(t, tc.call(testContext(t), newClient(t, s.URL, through(r))))
			require.Equal(t, tc.want, seen)
			require.Equal(t, tc.body, body)
			require.Equal(t, 1, r.count())
			require.Len(t, s.requests(), 1)

			down := newServer(t, status(http.StatusServiceUnavailable))
			r = newRecorder()
			var refused *keycloak.APIError
			require.ErrorAs(t, tc.call(testContext(t), newClient(t, down.URL, through(r))), &refused)
			require.Equal(t, tc.attempts, r.count(), "what the recorder saw")
			require.Len(t, down.requests(), tc.attempts, "what arrived")
		})
	}
}

func TestHalfAnAnswerIsNone(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*admin.Client) error{
		"role":         func(c *admin.Client) error { _, err := c.RealmRole(testContext(t), "acme", "a"); return err },
		"group":        func(c *admin.Client) error { _, err := c.Group(testContext(t), "acme", "g"); return err },
		"organization": func(c *admin.Client) error { _, err := c.Organization(testContext(t), "acme", "o"); return err },
		"member": func(c *admin.Client) error {
			_, _, err := c.OrganizationMember(testContext(t), "acme", "o", "1")
			return err
		},
	} {
		var unreadable *admin.DecodeError
		require.ErrorAs(t, read(answering(t, `{}`)), &unreadable, name)
	}
	_, _, err := answering(t, `[{"clientId":"shop"}]`).ClientByClientID(testContext(t), "acme", "shop")
	var unreadable *admin.DecodeError
	require.ErrorAs(t, err, &unreadable)
}

func TestAClientIsFoundByItsExactID(t *testing.T) {
	t.Parallel()
	c := answering(t, `[{"id":"1","clientId":"shop-2"},{"id":"2","clientId":"shop"}]`)
	found, ok, err := c.ClientByClientID(testContext(t), "acme", "shop")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "2", found.ID)
	_, ok, err = c.ClientByClientID(testContext(t), "acme", "sho")
	require.NoError(t, err)
	require.False(t, ok)
	_, _, err = c.ClientByClientID(testContext(t), "acme", "")
	require.Error(t, err)
}

func TestANonMemberIsNoError(t *testing.T) {
	t.Parallel()
	_, ok, err := newClient(t, newServer(t, status(http.StatusNotFound)).URL).OrganizationMember(testContext(t), "acme", "o1", "1")
	require.NoError(t, err)
	require.False(t, ok)
	_, _, err = newClient(t, newServer(t, status(http.StatusForbidden)).URL).OrganizationMember(testContext(t), "acme", "o1", "1")
	require.Error(t, err)
	// A token that cannot be had says nothing about members.
	s := newServer(t, status(http.StatusNotFound))
	s.tokenFor = func(w http.ResponseWriter, _ int) { w.WriteHeader(http.StatusNotFound) }
	_, _, err = newClient(t, s.URL).OrganizationMember(testContext(t), "acme", "o1", "1")
	require.Error(t, err)
}

// A DELETE of a role mapping without a body takes every role.
func TestNoRolesAreNotAllRoles(t *testing.T) {
	t.Parallel()
	s := newServer(t, succeed)
	c := newClient(t, s.URL)
	require.Error(t, c.RemoveRoles(testContext(t), "acme", "1", "", nil))
	require.Error(t, c.AddRoles(testContext(t), "acme", "1", "", nil))
	require.Empty(t, s.requests())
}

func TestServiceAccountID(t *testing.T) {
	t.Parallel()
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"5b2f","azp":"keytrail"}`))
	for token, want := range map[string]string{
		"head." + claims + ".signature": "5b2f", "opaque": "", "a.b.c": "", "a." + base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + ".c": "",
	} {
		s := newServer(t, succeed)
		s.tokenFor = func(w http.ResponseWriter, _ int) {
			_, _ = io.WriteString(w, `{"access_token":"`+token+`","expires_in":300}`)
		}
		c := newClient(t, s.URL)
		require.Empty(t, c.ServiceAccountID(), "no token yet")
		_, err := c.User(testContext(t), "acme", "1212")
		require.NoError(t, err)
		require.Equal(t, want, c.ServiceAccountID())
	}
}
