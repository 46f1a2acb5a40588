package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/keytrail/keytrail/keycloak"
)

// The lists below tell who has what, one role, group or organization at a time. All
// are offset-paged, and pages shift while users come, go and are renamed. Without
// the role that a list needs Keycloak answers 403, or an empty list with 200.

// RealmRoles lists a realm's roles, all at once. It needs the role view-realm. A realm
// always has some.
func (c *Client) RealmRoles(ctx context.Context, realm string) ([]keycloak.Role, error) {
	return c.roles(ctx, "/admin/realms/{realm}/roles", realm)
}

// ClientRoles lists the roles of a client, given by its internal UUID, all at once. It
// needs the role view-clients.
func (c *Client) ClientRoles(ctx context.Context, realm, client string) ([]keycloak.Role, error) {
	return c.roles(ctx, "/admin/realms/{realm}/clients/{client}/roles", realm, client)
}

func (c *Client) roles(ctx context.Context, template string, params ...string) ([]keycloak.Role, error) {
	return list(ctx, c, template, params, url.Values{"briefRepresentation": {"true"}},
		func(r keycloak.Role) bool { return r.ID != "" && r.Name != "" })
}

// Clients reads one page of a realm's clients. It needs the role view-clients: with
// query-clients alone the list is empty, although a realm always has clients.
func (c *Client) Clients(ctx context.Context, realm string, first, limit int) ([]keycloak.Client, error) {
	return list(ctx, c, "/admin/realms/{realm}/clients", []string{realm}, pageOf(first, limit),
		func(c keycloak.Client) bool { return c.ID != "" && c.ClientID != "" })
}

// GroupNode is a group in the tree of groups.
type GroupNode struct {
	keycloak.Group
	// SubGroupCount is how many groups lie directly below; nil where the server does not
	// tell.
	SubGroupCount *int `json:"subGroupCount"`
}

// Groups reads one page of the groups directly below a group, given by id, or of the
// top-level ones where parent is empty. It needs the role view-users; with query-groups
// alone the list is empty.
func (c *Client) Groups(ctx context.Context, realm, parent string, first, limit int) ([]GroupNode, error) {
	template, params := "/admin/realms/{realm}/groups", []string{realm}
	if parent != "" {
		template, params = template+"/{group}/children", append(params, parent)
	}
	query := pageOf(first, limit)
	query.Set("briefRepresentation", "true")
	return list(ctx, c, template, params, query, func(g GroupNode) bool { return g.ID != "" && g.Path != "" })
}

// Organizations reads one page of a realm's organizations. It needs the role
// view-organizations; with query-organizations alone the list is empty. Where the
// realm has organizations switched off, the answer is a 404.
func (c *Client) Organizations(ctx context.Context, realm string, first, limit int) ([]keycloak.Organization, error) {
	return list(ctx, c, "/admin/realms/{realm}/organizations", []string{realm}, pageOf(first, limit),
		func(o keycloak.Organization) bool { return o.ID != "" })
}

// RoleUsers reads one page of the users who have a role directly, service accounts
// included: a realm role, or one of the client whose internal UUID is given. It needs
// the role view-users, and view-realm or view-clients.
func (c *Client) RoleUsers(ctx context.Context, realm, client, role string, first, limit int) ([]keycloak.User, error) {
	if client == "" {
		return c.holders(ctx, "/admin/realms/{realm}/roles/{name}/users", []string{realm, role}, first, limit)
	}
	return c.holders(ctx, "/admin/realms/{realm}/clients/{client}/roles/{name}/users", []string{realm, client, role}, first, limit)
}

// GroupMembers reads one page of a group's direct members, service accounts included.
// It needs the role view-users.
func (c *Client) GroupMembers(ctx context.Context, realm, group string, first, limit int) ([]keycloak.User, error) {
	return c.holders(ctx, "/admin/realms/{realm}/groups/{group}/members", []string{realm, group}, first, limit)
}

// OrganizationMembers reads one page of an organization's members. It needs the roles
// view-organizations and view-users. Keycloak's own page has 10.
func (c *Client) OrganizationMembers(ctx context.Context, realm, organization string, first, limit int) ([]keycloak.User, error) {
	return c.holders(ctx, membersOfOrg, []string{realm, organization}, first, limit)
}

// holders reads users briefly: only id and name count.
func (c *Client) holders(ctx context.Context, template string, params []string, first, limit int) ([]keycloak.User, error) {
	query := pageOf(first, limit)
	query.Set("briefRepresentation", "true")
	return list(ctx, c, template, params, query, func(u keycloak.User) bool { return u.ID != "" && u.Username != "" })
}

// UserOrganizations reads the organizations that a user is a member of. It needs the
// roles view-organizations and view-users.
func (c *Client) UserOrganizations(ctx context.Context, realm, id string) ([]keycloak.Organization, error) {
	return list(ctx, c, "/admin/realms/{realm}/organizations/members/{id}/organizations", []string{realm, id}, nil,
		func(o keycloak.Organization) bool { return o.ID != "" })
}

func pageOf(first, limit int) url.Values {
	return url.Values{"first": {strconv.Itoa(first)}, "max": {strconv.Itoa(limit)}}
}

// list reads a JSON list and refuses what is JSON but not what was asked for, such as
// {} and null in it.
func list[T any](ctx context.Context, c *Client, template string, params []string, query url.Values, whole func(T) bool) ([]T, error) {
	var items []T
	if err := c.get(ctx, template, params, query, &items); err != nil {
		return nil, err
	}
	for i, item := range items {
		if !whole(item) {
			return nil, &DecodeError{
				Op: http.MethodGet + " " + template, Status: http.StatusOK,
				Err: fmt.Errorf("entry %d of %d has no id or no name", i+1, len(items)),
			}
		}
	}
	return items, nil
}
