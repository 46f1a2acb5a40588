package keycloaktest

import (
	"net/http"
	"slices"
)

// role is a realm role, or a client role if client is set. Users hold it by name.
type role struct {
	id, name, description string
	composite             bool
	client                *client
}

// roleRep is a role as Keycloak writes it, fields in its order.
type roleRep struct {
	ID                 string              `json:"id,omitempty"`
	Name               string              `json:"name,omitempty"`
	Description        *string             `json:"description,omitempty"`
	ScopeParamRequired *bool               `json:"scopeParamRequired,omitempty"`
	Composite          bool                `json:"composite"`
	Composites         map[string]any      `json:"composites,omitzero"`
	ClientRole         *bool               `json:"clientRole,omitempty"`
	ContainerID        *string             `json:"containerId,omitempty"`
	Attributes         map[string][]string `json:"attributes,omitzero"`
}

// AddRole makes a realm role directly and returns its id.
func (r *Realm) AddRole(name string) (id string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	role := &role{id: newID(), name: name}
	r.roles = append(r.roles, role)
	return role.id
}

func (r *Realm) describeRole(role *role, full bool) roleRep {
	container, isClientRole := r.id, role.client != nil
	if isClientRole {
		container = role.client.id
	}
	rep := roleRep{ID: role.id, Name: role.name, Description: nonEmpty(role.description), Composite: role.composite, ClientRole: &isClientRole, ContainerID: &container}
	if full {
		rep.Attributes = map[string][]string{}
	}
	return rep
}

func findRole(roles []*role, name string) *role {
	for _, role := range roles {
		if role.name == name {
			return role
		}
	}
	return nil
}

func (r *Realm) roleByID(id string) *role {
	find := func(roles []*role) *role {
		for _, role := range roles {
			if role.id == id {
				return role
			}
		}
		return nil
	}
	if role := find(r.roles); role != nil {
		return role
	}
	for _, cl := range r.clients {
		if role := find(cl.roles); role != nil {
			return role
		}
	}
	return nil
}

// roleContainer is where a roles endpoint works: the realm, or the client of the path.
type roleContainer struct {
	roles    *[]*role
	client   *client
	resource string
	path     string // of the event, with a slash at its end
}

// withRoles registers a handler under /roles of the realm and of its clients.
func (s *Server) withRoles(method, path string, realmAccess, clientAccess access, handler func(*call, roleContainer) reply) {
	s.handle(method+" /admin/realms/{realm}/roles"+path, realmAccess, func(c *call) reply {
		return handler(c, roleContainer{roles: &c.realm.roles, resource: "REALM_ROLE", path: "roles/"})
	})
	s.handle(method+" /admin/realms/{realm}/clients/{client}/roles"+path, clientAccess, func(c *call) reply {
		cl := c.realm.clientByUUID(c.PathValue("client"))
		if cl == nil {
			return fail(http.StatusNotFound, "Could not find client")
		}
		return handler(c, roleContainer{roles: &cl.roles, client: cl, resource: "CLIENT_ROLE", path: "clients/" + cl.id + "/roles/"})
	})
}

func noRole() reply { return fail(http.StatusNotFound, "Could not find role") }

func (c *call) listRoles(in roleContainer) reply {
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", -1)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	list := []roleRep{}
	for _, role := range page(*in.roles, first, limit) {
		list = append(list, c.realm.describeRole(role, c.URL.Query().Get("briefRepresentation") == "false"))
	}
	return ok(list)
}

func (c *call) createRole(in roleContainer) reply {
	var rep roleRep
	if r, ok := c.decode(&rep, "RoleRepresentation"); !ok {
		return r
	}
	if rep.Name == "" {
		return fail(http.StatusBadRequest, "role has no name")
	}
	if findRole(*in.roles, rep.Name) != nil {
		return refuse(http.StatusConflict, "Role with name "+rep.Name+" already exists")
	}
	role := &role{id: newID(), name: rep.Name, description: value(rep.Description), client: in.client}
	*in.roles = append(*in.roles, role)
	rep.ID = role.id
	c.emit(adminEvent{op: opCreate, resource: in.resource, path: in.path + rep.Name, representation: encode(rep)})
	base := "/admin/realms/" + c.realm.name + "/"
	return c.created(base + in.path + rep.Name)
}

func (c *call) getRole(in roleContainer) reply {
	role := findRole(*in.roles, c.PathValue("role"))
	if role == nil {
		return noRole()
	}
	return ok(c.realm.describeRole(role, true))
}

func (c *call) getRoleByID() reply {
	role := c.realm.roleByID(c.PathValue("role"))
	if role == nil {
		return fail(http.StatusNotFound, "Could not find role with id")
	}
	return ok(c.realm.describeRole(role, true))
}

// updateRole renames; the event has the old name in its path.
func (c *call) updateRole(in roleContainer) reply {
	role := findRole(*in.roles, c.PathValue("role"))
	if role == nil {
		return noRole()
	}
	var rep roleRep
	if r, ok := c.decode(&rep, "RoleRepresentation"); !ok {
		return r
	}
	old := role.name
	if rep.Name != "" && rep.Name != old {
		if findRole(*in.roles, rep.Name) != nil {
			return refuse(http.StatusConflict, "Role with name "+rep.Name+" already exists")
		}
		role.name = rep.Name
		for _, u := range c.realm.users {
			held := c.heldRoles(u, in.client)
			if i := slices.Index(held, old); i >= 0 {
				held[i] = rep.Name
			}
		}
	}
	role.description = value(rep.Description)
	c.emit(adminEvent{op: opUpdate, resource: in.resource, path: in.path + old, representation: encode(rep)})
	return noContent()
}

// deleteRole takes it from all who have it, and tells of none of them.
func (c *call) deleteRole(in roleContainer) reply {
	role := findRole(*in.roles, c.PathValue("role"))
	if role == nil {
		return noRole()
	}
	*in.roles = slices.DeleteFunc(*in.roles, sameRole(role))
	for _, u := range c.realm.users {
		c.take(u, in.client, role.name)
	}
	c.emit(adminEvent{
		op: opDelete, resource: in.resource, path: in.path + role.name,
		representation: encode(roleRep{ID: role.id, Name: role.name}), // without its description
	})
	return noContent()
}

func sameRole(wanted *role) func(*role) bool { return func(have *role) bool { return have == wanted } }

func (c *call) listRoleUsers(in roleContainer) reply {
	role := findRole(*in.roles, c.PathValue("role"))
	if role == nil {
		return noRole()
	}
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", 100)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	var holders []*User
	for _, u := range c.realm.sortedUsers() {
		if slices.Contains(c.heldRoles(u, in.client), role.name) {
			holders = append(holders, u)
		}
	}
	list := []userRep{}
	for _, u := range page(holders, first, limit) {
		list = append(list, c.describe(u, c.URL.Query().Get("briefRepresentation") == "true", c.listAccess()))
	}
	return ok(list)
}

func (c *call) heldRoles(u *User, cl *client) []string {
	if cl == nil {
		return u.RealmRoles
	}
	return u.ClientRoles[cl.clientID]
}

func (c *call) give(u *User, cl *client, name string) {
	if slices.Contains(c.heldRoles(u, cl), name) {
		return
	}
	if cl == nil {
		u.RealmRoles = append(u.RealmRoles, name)
	} else {
		u.ClientRoles[cl.clientID] = append(u.ClientRoles[cl.clientID], name)
	}
}

func (c *call) take(u *User, cl *client, name string) {
	without := func(list []string) []string {
		return slices.DeleteFunc(list, func(have string) bool { return have == name })
	}
	if cl == nil {
		u.RealmRoles = without(u.RealmRoles)
		return
	}
	if left := without(u.ClientRoles[cl.clientID]); len(left) > 0 {
		u.ClientRoles[cl.clientID] = left
	} else {
		delete(u.ClientRoles, cl.clientID)
	}
}

// mappings describes the roles that a user has directly.
func (c *call) mappings(u *User, cl *client) []roleRep {
	roles := c.realm.roles
	if cl != nil {
		roles = cl.roles
	}
	list := []roleRep{}
	for _, role := range roles {
		if slices.Contains(c.heldRoles(u, cl), role.name) {
			list = append(list, c.realm.describeRole(role, false))
		}
	}
	return list
}

type clientMappings struct {
	ID       string    `json:"id"`
	Client   string    `json:"client"`
	Mappings []roleRep `json:"mappings"`
}

type allMappings struct {
	Realm   []roleRep                 `json:"realmMappings,omitempty"`
	Clients map[string]clientMappings `json:"clientMappings,omitempty"`
}

// listMappings shows client roles only of the clients that the caller may view.
func (c *call) listMappings(u *User) reply {
	all := allMappings{Realm: c.mappings(u, nil), Clients: map[string]clientMappings{}}
	for _, cl := range c.realm.clients {
		if list := c.mappings(u, cl); len(list) > 0 && c.may("view-clients", "manage-clients") {
			all.Clients[cl.clientID] = clientMappings{ID: cl.id, Client: cl.clientID, Mappings: list}
		}
	}
	return ok(all)
}

// mappingTarget is the client of the path, nil for realm roles.
func (c *call) mappingTarget() (cl *client, resource, path string, found bool) {
	id := c.PathValue("client")
	if id == "" {
		return nil, "REALM_ROLE_MAPPING", "role-mappings/realm", true
	}
	cl = c.realm.clientByUUID(id)
	return cl, "CLIENT_ROLE_MAPPING", "role-mappings/clients/" + id, cl != nil
}

func noClient() reply { return fail(http.StatusNotFound, "Client not found") }

func (c *call) listMapping(u *User) reply {
	cl, _, _, found := c.mappingTarget()
	if !found {
		return noClient()
	}
	if cl != nil && !c.may("view-clients", "manage-clients") {
		return forbidden()
	}
	return ok(c.mappings(u, cl))
}

func (c *call) addMapping(u *User) reply { return c.changeMapping(u, opCreate) }

func (c *call) removeMapping(u *User) reply { return c.changeMapping(u, opDelete) }

// changeMapping gives or takes roles. It emits also where nothing changes, and echoes
// the roles as they were sent: a role's description may carry anything. A DELETE
// without a body takes all.
func (c *call) changeMapping(u *User, op string) reply {
	cl, resource, path, found := c.mappingTarget()
	if !found {
		return noClient()
	}
	var reps []roleRep
	if op == opDelete && len(c.body) == 0 {
		reps = c.mappings(u, cl)
	} else if r, ok := c.decode(&reps, "RoleRepresentation"); !ok {
		return r
	}
	for _, rep := range reps {
		role := c.realm.roleByID(rep.ID)
		if role == nil || role.name != rep.Name || role.client != cl {
			return fail(http.StatusNotFound, "Role not found")
		}
	}
	for _, rep := range reps {
		if op == opCreate {
			c.give(u, cl, rep.Name)
		} else {
			c.take(u, cl, rep.Name)
		}
	}
	if len(reps) > 0 {
		c.emit(adminEvent{op: op, resource: resource, path: "users/" + u.ID + "/" + path, representation: encode(reps)})
	}
	return noContent()
}

// consoleTakesRoles is the admin console's own way of taking roles, of the realm and of
// clients alike. The event says neither which nor of which client, and comes also where
// nothing is taken.
func (c *call) consoleTakesRoles(u *User) reply {
	var taken []struct {
		RoleID   string `json:"roleId"`
		RoleName string `json:"roleName"`
		ClientID string `json:"clientId"`
	}
	if r, ok := c.decode(&taken, "RoleDeleteRequest"); !ok {
		return r
	}
	for _, t := range taken {
		if role := c.realm.roleByID(t.RoleID); role != nil {
			c.take(u, role.client, role.name)
		}
	}
	c.emit(adminEvent{op: opDelete, resource: "REALM_ROLE_MAPPING", path: "ui-ext/role-mapping-delete/users/" + u.ID})
	return noContent()
}

type clientRep struct {
	ID                     string `json:"id"`
	ClientID               string `json:"clientId"`
	Enabled                bool   `json:"enabled"`
	PublicClient           bool   `json:"publicClient"`
	ServiceAccountsEnabled bool   `json:"serviceAccountsEnabled"`
}

func describeClient(cl *client) clientRep {
	return clientRep{ID: cl.id, ClientID: cl.clientID, Enabled: true, PublicClient: cl.public, ServiceAccountsEnabled: cl.serviceAccount != ""}
}

func (c *call) listClients() reply {
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", -1)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	list := []clientRep{}
	if c.may("view-clients", "manage-clients") {
		for _, cl := range c.realm.clients {
			if equalOrEmpty(c.URL.Query().Get("clientId"), cl.clientID) {
				list = append(list, describeClient(cl))
			}
		}
	}
	return ok(page(list, first, limit))
}

func (c *call) serviceAccountUser() reply {
	cl := c.realm.clientByUUID(c.PathValue("client"))
	if cl == nil {
		return fail(http.StatusNotFound, "Could not find client")
	}
	u := c.realm.users[cl.serviceAccount]
	if u == nil {
		return fail(http.StatusBadRequest, "Service account not enabled for the client '"+cl.clientID+"'")
	}
	return ok(c.describe(u, false, nil))
}
