package outbound

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

const (
	realmMappingsTemplate  = userTemplate + "/role-mappings/realm"
	clientMappingsTemplate = userTemplate + "/role-mappings/clients/{client}"
	membershipTemplate     = userTemplate + "/groups/{group}"
	membersTemplate        = "/admin/realms/{realm}/organizations/{organization}/members"
	memberTemplate         = membersTemplate + "/{id}"

	commandRoleAdd         = "user.role.add"
	commandClientRoleAdd   = "user.client_role.add"
	commandOrganizationAdd = "user.organization.add"
)

// RoleRef names a role: a realm role, or one of a client.
type RoleRef struct {
	Name string
	// Client is a client id, or the client's internal UUID; empty for a realm role.
	Client string
}

// AddRole gives a user a role directly. One that the user has directly is refused with
// already_has_role.
func (c *Commands) AddRole(ctx context.Context, realm string, ref UserRef, role RoleRef) (Outcome, error) {
	return c.addRoles(ctx, uuid.Nil, realm, ref, role.Client, []string{role.Name})
}

// addRoles gives several roles of one client, or of the realm, in one call. Those that
// the user has are left out; it is refused where the user has them all.
func (c *Commands) addRoles(ctx context.Context, callID uuid.UUID, realm string, ref UserRef, clientID string, names []string) (Outcome, error) {
	in := roleIntent(http.MethodPost, realm, ref, clientID, names)
	in.callID = callID
	return c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		of, held, err := c.readHeld(ctx, rec, realm, live.ID, clientID)
		if err != nil {
			return write{}, err
		}
		var bodies []admin.RoleBody
		var added []adapter.Role
		for _, name := range names {
			if slices.ContainsFunc(held, func(r keycloak.Role) bool { return r.Name == name }) {
				continue
			}
			role, err := c.readRole(ctx, rec, realm, of, name)
			if err != nil {
				return write{}, err
			}
			bodies = append(bodies, admin.RoleBody{ID: role.ID, Name: role.Name, Description: rec.stamp()})
			added = append(added, adapter.Role{ID: role.ID, Name: role.Name, Client: of.id, ClientID: of.clientID})
		}
		if len(bodies) == 0 {
			return write{}, adapter.Errorf(adapter.CodeAlreadyHasRole, "user %s has %s already: nothing was written", live.Username, roleWords(clientID, names))
		}
		return write{
			send:    func(ctx context.Context) error { return c.Keycloak.AddRoles(ctx, realm, live.ID, of.id, bodies) },
			success: &adapter.UserApiRolesChanged{UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Added: added},
		}, nil
	})
}

// RemoveRole takes a role from a user. One that the user does not have directly is
// refused with role_not_held.
func (c *Commands) RemoveRole(ctx context.Context, realm string, ref UserRef, role RoleRef) (Outcome, error) {
	in := roleIntent(http.MethodDelete, realm, ref, role.Client, []string{role.Name})
	return c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		of, held, err := c.readHeld(ctx, rec, realm, live.ID, role.Client)
		if err != nil {
			return write{}, err
		}
		i := slices.IndexFunc(held, func(r keycloak.Role) bool { return r.Name == role.Name })
		if i < 0 {
			return write{}, adapter.Errorf(adapter.CodeRoleNotHeld, "user %s does not have %s directly: nothing was written",
				live.Username, roleWords(role.Client, []string{role.Name}))
		}
		body := []admin.RoleBody{{ID: held[i].ID, Name: held[i].Name, Description: rec.stamp()}}
		return write{
			send: func(ctx context.Context) error { return c.Keycloak.RemoveRoles(ctx, realm, live.ID, of.id, body) },
			success: &adapter.UserApiRolesChanged{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID},
				Removed: []adapter.Role{{ID: held[i].ID, Name: held[i].Name, Client: of.id, ClientID: of.clientID}},
			},
		}, nil
	})
}

func roleIntent(method, realm string, ref UserRef, clientID string, names []string) intent {
	in := intent{
		command: commandRoleAdd, realm: realm, ref: ref, method: method, template: realmMappingsTemplate,
		stamped: func(stamp string) any {
			var bodies []admin.RoleBody
			for _, name := range names {
				bodies = append(bodies, admin.RoleBody{Name: name, Description: stamp})
			}
			return bodies
		},
	}
	if clientID != "" {
		in.command, in.template, in.params = commandClientRoleAdd, clientMappingsTemplate, map[string]string{"client": clientID}
	}
	if method == http.MethodDelete {
		in.command = "user.role.remove"
		if clientID != "" {
			in.command = "user.client_role.remove"
		}
	}
	return in
}

func roleWords(clientID string, names []string) string {
	text := "the role " + names[0]
	if len(names) > 1 {
		text = "all of these roles"
	}
	if clientID != "" {
		text += " of client " + clientID
	}
	return text
}

// client is where a role belongs: the realm, where it is the zero value, or a client.
type client struct{ id, clientID string }

// ofClient says whose role it is, for a role of a client.
func ofClient(of client) string {
	if name := cmp.Or(of.clientID, of.id); name != "" {
		return " of client " + name
	}
	return ""
}

// readHeld reads which roles of the realm, or of a client, the user has directly.
func (c *Commands) readHeld(ctx context.Context, rec *recording, realm, userID, clientID string) (of client, held []keycloak.Role, err error) {
	template := realmMappingsTemplate
	if clientID != "" {
		template = clientMappingsTemplate
		if of, err = c.readClient(ctx, rec, realm, clientID); err != nil {
			return of, nil, err
		}
	}
	err = rec.read(ctx, template, func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		var err error
		if of.id == "" {
			held, err = c.Keycloak.UserRealmRoles(ctx, realm, userID)
		} else {
			held, err = c.Keycloak.UserClientRoles(ctx, realm, userID, of.id)
		}
		return err
	})
	return of, held, err
}

// readClient looks a client up by its client id. What is none, and looks like an
// internal UUID, is taken for one.
func (c *Commands) readClient(ctx context.Context, rec *recording, realm, clientID string) (of client, err error) {
	err = rec.read(ctx, "/admin/realms/{realm}/clients", func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		found, ok, err := c.Keycloak.ClientByClientID(ctx, realm, clientID)
		switch {
		case err != nil:
			return err
		case ok:
			of = client{id: found.ID, clientID: found.ClientID}
		case uuid.Validate(clientID) == nil:
			of = client{id: clientID}
		default:
			return adapter.Errorf(adapter.CodeClientNotFound, "there is no client %s in realm %s, or keytrail may not see it", clientID, realm)
		}
		return nil
	})
	return of, err
}

func (c *Commands) readRole(ctx context.Context, rec *recording, realm string, of client, name string) (role keycloak.Role, err error) {
	template := "/admin/realms/{realm}/roles/{name}"
	if of.id != "" {
		template = "/admin/realms/{realm}/clients/{client}/roles/{name}"
	}
	err = rec.read(ctx, template, func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		var err error
		if of.id == "" {
			role, err = c.Keycloak.RealmRole(ctx, realm, name)
		} else {
			role, err = c.Keycloak.ClientRole(ctx, realm, of.id, name)
		}
		if Explain(err).Code == adapter.CodeRoleNotFound {
			return adapter.Errorf(adapter.CodeRoleNotFound, "there is no role %s in realm %s", name+ofClient(of), realm)
		}
		return err
	})
	return role, err
}

// JoinGroup makes a user a member of a group, given by its id, or by its full path, which
// begins with a slash. A member is refused with already_member.
func (c *Commands) JoinGroup(ctx context.Context, realm string, ref UserRef, group string) (Outcome, error) {
	in := intent{
		command: "user.group.add", realm: realm, ref: ref, method: http.MethodPut,
		template: membershipTemplate, params: map[string]string{groupParam: group},
	}
	return c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		member, ok, err := c.readMembership(ctx, rec, realm, live.ID, group)
		if err != nil {
			return write{}, err
		}
		if ok {
			return write{}, adapter.Errorf(adapter.CodeAlreadyMember, "user %s is a member of the group %s already: nothing was written", live.Username, member.Path)
		}
		g, err := c.readGroup(ctx, rec, realm, group)
		return write{
			send: func(ctx context.Context) error { return c.Keycloak.JoinGroup(ctx, realm, live.ID, g.ID) },
			success: &adapter.UserApiGroupsChanged{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Joined: []adapter.Group{{ID: g.ID, Path: g.Path}},
			},
		}, err
	})
}

// LeaveGroup ends a user's membership of a group, given as for JoinGroup. Who is no
// member is refused with not_member, and a group that does not exist with
// group_not_found.
func (c *Commands) LeaveGroup(ctx context.Context, realm string, ref UserRef, group string) (Outcome, error) {
	in := intent{
		command: "user.group.remove", realm: realm, ref: ref, method: http.MethodDelete,
		template: membershipTemplate, params: map[string]string{groupParam: group},
	}
	return c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		member, ok, err := c.readMembership(ctx, rec, realm, live.ID, group)
		if err != nil {
			return write{}, err
		}
		if !ok {
			g, err := c.readGroup(ctx, rec, realm, group)
			if err != nil {
				return write{}, err
			}
			return write{}, adapter.Errorf(adapter.CodeNotMember, "user %s is no member of the group %s: nothing was written", live.Username, g.Path)
		}
		return write{
			send: func(ctx context.Context) error { return c.Keycloak.LeaveGroup(ctx, realm, live.ID, member.ID) },
			success: &adapter.UserApiGroupsChanged{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Left: []adapter.Group{{ID: member.ID, Path: member.Path}},
			},
		}, nil
	})
}

// readMembership looks a group up among those of the user.
func (c *Commands) readMembership(ctx context.Context, rec *recording, realm, userID, group string) (member keycloak.Group, ok bool, err error) {
	err = rec.read(ctx, userTemplate+"/groups", func(ctx context.Context, read *adapter.ApiCallPreconditionRead) error {
		groups, err := c.Keycloak.UserGroups(ctx, realm, userID)
		i := slices.IndexFunc(groups, func(g keycloak.Group) bool { return isGroup(g, group) })
		if i >= 0 {
			member, ok = groups[i], true
			settleGroup(rec, read, group, member)
		}
		return err
	})
	return member, ok, err
}

// JoinOrganization makes a user a member of the organization with this id. A member is
// refused with already_member.
func (c *Commands) JoinOrganization(ctx context.Context, realm string, ref UserRef, organization string) (Outcome, error) {
	return c.joinOrganization(ctx, uuid.Nil, realm, ref, organization)
}

func (c *Commands) joinOrganization(ctx context.Context, callID uuid.UUID, realm string, ref UserRef, organization string) (Outcome, error) {
	in := intent{
		command: commandOrganizationAdd, realm: realm, ref: ref, method: http.MethodPost, callID: callID,
		template: membersTemplate, params: map[string]string{"organization": organization},
	}
	return c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		o, _, ok, err := c.readMember(ctx, rec, realm, organization, live.ID)
		if err != nil {
			return write{}, err
		}
		if ok {
			return write{}, adapter.Errorf(adapter.CodeAlreadyMember, "user %s is a member of organization %s already: nothing was written", live.Username, o.Alias)
		}
		return write{
			send: func(ctx context.Context) error {
				return c.Keycloak.AddOrganizationMember(ctx, realm, organization, live.ID)
			},
			success: &adapter.UserApiOrganizationsChanged{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Joined: []adapter.Organization{{ID: o.ID, Alias: o.Alias}},
			},
		}, nil
	})
}

// LeaveOrganization ends a user's membership of the organization with this id. Who is
// no member is refused with not_member, and with managed_member whom Keycloak would
// delete.
func (c *Commands) LeaveOrganization(ctx context.Context, realm string, ref UserRef, organization string) (Outcome, error) {
	in := intent{
		command: "user.organization.remove", realm: realm, ref: ref, method: http.MethodDelete,
		template: memberTemplate, params: map[string]string{"organization": organization},
	}
	return c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		o, member, ok, err := c.readMember(ctx, rec, realm, organization, live.ID)
		switch {
		case err != nil:
			return write{}, err
		case !ok:
			return write{}, adapter.Errorf(adapter.CodeNotMember, "user %s is no member of organization %s: nothing was written", live.Username, o.Alias)
		case member.MembershipType == keycloak.MembershipManaged:
			return write{}, refused(adapter.CodeManagedMember, live.ID, false,
				"user %s came through organization %s: Keycloak would delete the user with the membership, so nothing was written", live.Username, o.Alias)
		}
		return write{
			send: func(ctx context.Context) error {
				return c.Keycloak.RemoveOrganizationMember(ctx, realm, organization, live.ID)
			},
			success: &adapter.UserApiOrganizationsChanged{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Left: []adapter.Organization{{ID: o.ID, Alias: o.Alias}},
			},
		}, nil
	})
}

func (c *Commands) readMember(ctx context.Context, rec *recording, realm, organization, userID string) (o keycloak.Organization, member keycloak.Member, ok bool, err error) {
	if o, err = c.readOrganization(ctx, rec, realm, organization); err != nil {
		return o, member, false, err
	}
	err = rec.read(ctx, memberTemplate, func(ctx context.Context, read *adapter.ApiCallPreconditionRead) error {
		var err error
		if member, ok, err = c.Keycloak.OrganizationMember(ctx, realm, organization, userID); err == nil {
			read.Found = &ok
		}
		return err
	})
	return o, member, ok, err
}

func (c *Commands) readOrganization(ctx context.Context, rec *recording, realm, organization string) (o keycloak.Organization, err error) {
	err = rec.read(ctx, "/admin/realms/{realm}/organizations/{organization}", func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		var err error
		o, err = c.Keycloak.Organization(ctx, realm, organization)
		var answer *keycloak.APIError
		var token *admin.TokenError
		if errors.As(err, &answer) && answer.Kind == keycloak.KindNotFound && !errors.As(err, &token) {
			// Keycloak says no more than 404, whether it is the organization or the feature.
			return adapter.Errorf(adapter.CodeOrganizationNotFound, "there is no organization %s in realm %s, or organizations are switched off there", organization, realm)
		}
		return err
	})
	return o, err
}
