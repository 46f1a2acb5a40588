package admin_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak/admin"
)

// sweeps has every list, with the request that it makes and an answer of it.
var sweeps = map[string]struct {
	read   func(context.Context, *admin.Client) (int, error)
	target string
	answer string
}{
	"RealmRoles": {
		read:   func(ctx context.Context, c *admin.Client) (int, error) { return count(c.RealmRoles(ctx, "a b")) },
		target: "/admin/realms/a%20b/roles?briefRepresentation=true",
		answer: `[{"id":"1","name":"auditor"},{"id":"2","name":"a/b"}]`,
	},
	"ClientRoles": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.ClientRoles(ctx, "acme", "c1"))
		},
		target: "/admin/realms/acme/clients/c1/roles?briefRepresentation=true",
		answer: `[{"id":"1","name":"auditor","clientRole":true},{"id":"2","name":"b"}]`,
	},
	"Clients": {
		read:   func(ctx context.Context, c *admin.Client) (int, error) { return count(c.Clients(ctx, "acme", 100, 50)) },
		target: "/admin/realms/acme/clients?first=100&max=50",
		answer: `[{"id":"1","clientId":"account"},{"id":"2","clientId":"crm","redirectUris":["*"]}]`,
	},
	"Groups": {
		read:   func(ctx context.Context, c *admin.Client) (int, error) { return count(c.Groups(ctx, "acme", "", 0, 9)) },
		target: "/admin/realms/acme/groups?briefRepresentation=true&first=0&max=9",
		answer: `[{"id":"1","name":"staff","path":"/staff","subGroupCount":3,"subGroups":[]},{"id":"2","name":"x","path":"/x"}]`,
	},
	"SubGroups": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.Groups(ctx, "acme", "g1", 9, 9))
		},
		target: "/admin/realms/acme/groups/g1/children?briefRepresentation=true&first=9&max=9",
		answer: `[{"id":"1","name":"night","path":"/staff/night"},{"id":"2","name":"x","path":"/staff/x"}]`,
	},
	"Organizations": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.Organizations(ctx, "acme", 0, 9))
		},
		target: "/admin/realms/acme/organizations?first=0&max=9",
		answer: `[{"id":"1","name":"Moss","alias":"moss"},{"id":"2"}]`,
	},
	"RoleUsers": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.RoleUsers(ctx, "acme", "", "a/b", 0, 9))
		},
		target: "/admin/realms/acme/roles/a%2Fb/users?briefRepresentation=true&first=0&max=9",
		answer: `[{"id":"1","username":"ann"},{"id":"f:ldap:2","username":"bob"}]`,
	},
	"ClientRoleUsers": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.RoleUsers(ctx, "acme", "c1", "auditor", 0, 9))
		},
		target: "/admin/realms/acme/clients/c1/roles/auditor/users?briefRepresentation=true&first=0&max=9",
		answer: `[{"id":"1","username":"ann"},{"id":"2","username":"bob"}]`,
	},
	"GroupMembers": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.GroupMembers(ctx, "acme", "g1", 0, 9))
		},
		target: "/admin/realms/acme/groups/g1/members?briefRepresentation=true&first=0&max=9",
		answer: `[{"id":"1","username":"ann"},{"id":"2","username":"bob"}]`,
	},
	"OrganizationMembers": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.OrganizationMembers(ctx, "acme", "o1", 0, 9))
		},
		target: "/admin/realms/acme/organizations/o1/members?briefRepresentation=true&first=0&max=9",
		answer: `[{"id":"1","username":"ann","membershipType":"MANAGED"},{"id":"2","username":"bob"}]`,
	},
	"UserOrganizations": {
		read: func(ctx context.Context, c *admin.Client) (int, error) {
			return count(c.UserOrganizations(ctx, "acme", "u1"))
		},
		target: "/admin/realms/acme/organizations/members/u1/organizations",
		answer: `[{"id":"1","name":"Moss","alias":"moss"},{"id":"2"}]`,
	},
}

func count[T any](items []T, err error) (int, error) { return len(items), err }

func TestSweeps(t *testing.T) {
	t.Parallel()
	for name, c := range sweeps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var asked string
			server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked = r.Method + " " + r.URL.RequestURI()
				mu.Unlock()
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, c.answer)
			})
			n, err := c.read(testContext(t), newClient(t, server.URL))
			require.NoError(t, err)
			require.Equal(t, 2, n)
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, "GET "+c.target, asked)
		})
	}
}

// A list that cannot be read is never an empty one: nobody would have the role.
func TestUnreadableSweepsAreErrors(t *testing.T) {
	t.Parallel()
	for name, c := range sweeps {
		for _, body := range []string{
			``, `null`, `{}`, `[null]`, `[{}]`, `[{"id":"1","name":"b","username":"b","clientId":"b","path":"/b"},{"id`, `<html></html>`, `[] []`,
			`[{"name":"b","username":"b","clientId":"b","path":"/b"}]`,
		} {
			_, err := c.read(testContext(t), answering(t, body))
			var unreadable *admin.DecodeError
			require.ErrorAs(t, err, &unreadable, "%s of %q", name, body)
		}
		n, err := c.read(testContext(t), answering(t, `[]`))
		require.NoError(t, err, name)
		require.Zero(t, n)
	}
}

func TestAGroupTellsWhatIsBelow(t *testing.T) {
	t.Parallel()
	groups, err := answering(t, sweeps["Groups"].answer).Groups(testContext(t), "acme", "", 0, 9)
	require.NoError(t, err)
	require.Equal(t, 3, *groups[0].SubGroupCount)
	require.Equal(t, "/staff", groups[0].Path)
	require.Nil(t, groups[1].SubGroupCount)
}

func TestSweepsRefuseWhatMeansAnotherList(t *testing.T) {
	t.Parallel()
	client := answering(t, `[]`)
	for _, empty := range []string{"", ".", ".."} {
		_, err := client.RoleUsers(testContext(t), "acme", "", empty, 0, 9)
		require.ErrorContains(t, err, "cannot stand in a URL")
		_, err = client.GroupMembers(testContext(t), "acme", empty, 0, 9)
		require.ErrorContains(t, err, "cannot stand in a URL")
	}
}
