package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/keytrail/keytrail/keycloak"
)

const (
	realmMappings  = userTemplate + "/role-mappings/realm"
	clientMappings = userTemplate + "/role-mappings/clients/{client}"
	groupTemplate  = userTemplate + "/groups/{group}"
	orgTemplate    = "/admin/realms/{realm}/organizations/{organization}"
	membersOfOrg   = orgTemplate + "/members"
)

// RealmRole reads a realm role by name. It needs the role view-realm.
func (c *Client) RealmRole(ctx context.Context, realm, name string) (keycloak.Role, error) {
	return c.role(ctx, "/admin/realms/{realm}/roles/{name}", realm, name)
}

// ClientRole reads a role of a client, given by its internal UUID. It needs the role
// view-clients.
func (c *Client) ClientRole(ctx context.Context, realm, client, name string) (keycloak.Role, error) {
	return c.role(ctx, "/admin/realms/{realm}/clients/{client}/roles/{name}", realm, client, name)
}

func (c *Client) role(ctx context.Context, template string, params ...string) (keycloak.Role, error) {
	var role keycloak.Role
	if err := c.get(ctx, template, params, nil, &role); err != nil {
		return keycloak.Role{}, err
	}
	if role.ID == "" || role.Name == "" {
		return keycloak.Role{}, incomplete(template, "a role without id or name")
	}
	return role, nil
}

func incomplete(template, what string) error {
	return &DecodeError{Op: http.MethodGet + " " + template, Status: http.StatusOK, Err: errors.New(what)}
}

// ClientByClientID reads a client by its client_id. It reports false where there is
// none. It needs the role view-clients: with query-clients alone Keycloak answers an
// empty list with 200.
func (c *Client) ClientByClientID(ctx context.Context, realm, clientID string) (client keycloak.Client, ok bool, err error) {
	const template = "/admin/realms/{realm}/clients"
	if clientID == "" {
		return keycloak.Client{}, false, errors.New("look up client: the client id is empty")
	}
	var clients []keycloak.Client
	if err := c.get(ctx, template, []string{realm}, url.Values{"clientId": {clientID}}, &clients); err != nil {
		return keycloak.Client{}, false, err
	}
	i := slices.IndexFunc(clients, func(c keycloak.Client) bool { return c.ClientID == clientID })
	if i < 0 {
		return keycloak.Client{}, false, nil
	}
	if clients[i].ID == "" {
		return keycloak.Client{}, false, incomplete(template, "a client without id")
	}
	return clients[i], true, nil
}

// UserRealmRoles reads the realm roles that a user has directly.
func (c *Client) UserRealmRoles(ctx context.Context, realm, id string) ([]keycloak.Role, error) {
	var roles []keycloak.Role
	err := c.get(ctx, realmMappings, []string{realm, id}, nil, &roles)
	return roles, err
}

// UserClientRoles reads the roles of one client, given by its internal UUID, that a
// user has directly. It needs the role view-clients.
func (c *Client) UserClientRoles(ctx context.Context, realm, id, client string) ([]keycloak.Role, error) {
	var roles []keycloak.Role
	err := c.get(ctx, clientMappings, []string{realm, id, client}, nil, &roles)
	return roles, err
}

// RoleBody is one role in the body of a role mapping.
type RoleBody struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
	// Description carries the call's stamp; see keycloak.StampPrefix.
	Description string `json:"description,omitempty"`
}

// AddRoles gives a user roles directly: realm roles, or those of the client whose
// internal UUID is given. Roles that the user has are given again, with an event.
func (c *Client) AddRoles(ctx context.Context, realm, id, client string, roles []RoleBody) error {
	return c.mapRoles(ctx, http.MethodPost, realm, id, client, roles)
}

// RemoveRoles takes roles from a user; otherwise it is as AddRoles. Without roles it is
// refused: Keycloak takes a DELETE without a body for all of them.
func (c *Client) RemoveRoles(ctx context.Context, realm, id, client string, roles []RoleBody) error {
	return c.mapRoles(ctx, http.MethodDelete, realm, id, client, roles)
}

func (c *Client) mapRoles(ctx context.Context, method, realm, id, client string, roles []RoleBody) error {
	r := request{method: method, template: realmMappings, params: []string{realm, id}, body: roles, want: http.StatusNoContent}
	if client != "" {
		r.template, r.params = clientMappings, []string{realm, id, client}
	}
	if len(roles) == 0 {
		return errors.New(r.op() + ": no roles are given")
	}
	_, err := c.do(ctx, r)
	return err
}

// Group reads a group by id.
func (c *Client) Group(ctx context.Context, realm, group string) (keycloak.Group, error) {
	const template = "/admin/realms/{realm}/groups/{group}"
	var g keycloak.Group
	if err := c.get(ctx, template, []string{realm, group}, nil, &g); err != nil {
		return keycloak.Group{}, err
	}
	if g.ID == "" || g.Path == "" {
		return keycloak.Group{}, incomplete(template, "a group without id or path")
	}
	return g, nil
}

// JoinGroup makes a user a member of a group. Where it is one already, Keycloak does
// nothing and emits nothing.
func (c *Client) JoinGroup(ctx context.Context, realm, id, group string) error {
	_, err := c.do(ctx, request{method: http.MethodPut, template: groupTemplate, params: []string{realm, id, group}, want: http.StatusNoContent})
	return err
}

// LeaveGroup ends a user's membership of a group.
func (c *Client) LeaveGroup(ctx context.Context, realm, id, group string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, template: groupTemplate, params: []string{realm, id, group}, want: http.StatusNoContent})
	return err
}

// Organization reads an organization by id. It needs the role view-organizations
// (Keycloak 26.1: view-realm is not enough, and there is no other). A 404 does not
// name the organization; it also comes where the feature is off.
func (c *Client) Organization(ctx context.Context, realm, organization string) (keycloak.Organization, error) {
	var o keycloak.Organization
	if err := c.get(ctx, orgTemplate, []string{realm, organization}, nil, &o); err != nil {
		return keycloak.Organization{}, err
	}
	if o.ID == "" {
		return keycloak.Organization{}, incomplete(orgTemplate, "an organization without id")
	}
	return o, nil
}

// OrganizationMember reads a user's membership of an organization. It reports false
// for every 404: ask for the organization and the user first.
func (c *Client) OrganizationMember(ctx context.Context, realm, organization, id string) (member keycloak.Member, ok bool, err error) {
	const template = membersOfOrg + "/{id}"
	err = c.get(ctx, template, []string{realm, organization, id}, nil, &member)
	var answer *keycloak.APIError
	switch {
	case errors.As(err, &answer) && answer.Status == http.StatusNotFound && !NotSent(err):
		return keycloak.Member{}, false, nil
	case err != nil:
		return keycloak.Member{}, false, err
	case member.ID == "":
		return keycloak.Member{}, false, incomplete(template, "a member without id")
	}
	return member, true, nil
}

// AddOrganizationMember makes a user a member of an organization. It needs the roles
// manage-organizations and manage-users.
func (c *Client) AddOrganizationMember(ctx context.Context, realm, organization, id string) error {
	_, err := c.do(ctx, request{method: http.MethodPost, template: membersOfOrg, params: []string{realm, organization}, body: id, want: http.StatusCreated})
	return err
}

// RemoveOrganizationMember ends a membership. It deletes a user whose membership is
// keycloak.MembershipManaged.
func (c *Client) RemoveOrganizationMember(ctx context.Context, realm, organization, id string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, template: membersOfOrg + "/{id}", params: []string{realm, organization, id}, want: http.StatusNoContent})
	return err
}
