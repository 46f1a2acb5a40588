package keycloaktest

import (
	"fmt"
	"net/http"
	"slices"
)

type group struct {
	id, name string
	parent   *group
}

// groupRep is a group as Keycloak writes it, fields in its order.
type groupRep struct {
	ID            string              `json:"id,omitempty"`
	Name          string              `json:"name,omitempty"`
	Description   *string             `json:"description,omitempty"`
	Path          string              `json:"path,omitempty"`
	ParentID      string              `json:"parentId,omitempty"`
	SubGroupCount *int                `json:"subGroupCount,omitempty"`
	SubGroups     []groupRep          `json:"subGroups"`
	Attributes    map[string][]string `json:"attributes,omitzero"`
	RealmRoles    []string            `json:"realmRoles,omitzero"`
	ClientRoles   map[string][]string `json:"clientRoles,omitzero"`
	Access        map[string]bool     `json:"access,omitzero"`
}

// AddGroup makes a top-level group directly and returns its id.
func (r *Realm) AddGroup(name string) (id string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	g := &group{id: newID(), name: name}
	r.groups = append(r.groups, g)
	return g.id
}

func (g *group) path() string {
	if g.parent == nil {
		return "/" + g.name
	}
	return g.parent.path() + "/" + g.name
}

func (r *Realm) group(id string) *group {
	for _, g := range r.groups {
		if g.id == id {
			return g
		}
	}
	return nil
}

func (r *Realm) groupByPath(path string) *group {
	for _, g := range r.groups {
		if g.path() == path {
			return g
		}
	}
	return nil
}

func (r *Realm) children(parent *group) []*group {
	var list []*group
	for _, g := range r.groups {
		if g.parent == parent {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b *group) int { return compareText(a.name, b.name) })
	return list
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// describeGroup is a group by itself, as lists of a user's groups show it.
func describeGroup(g *group) groupRep {
	rep := groupRep{ID: g.id, Name: g.name, Path: g.path(), SubGroups: []groupRep{}}
	if g.parent != nil {
		rep.ParentID = g.parent.id
	}
	return rep
}

// membership is the group as the events of joining and leaving show it.
func membership(g *group) groupRep {
	rep := describeGroup(g)
	rep.Attributes, rep.RealmRoles, rep.ClientRoles = map[string][]string{}, []string{}, map[string][]string{}
	return rep
}

func (c *call) withCount(rep groupRep, g *group) groupRep {
	n := len(c.realm.children(g))
	rep.SubGroupCount = &n
	manage := c.may("manage-users")
	rep.Access = map[string]bool{"view": true, "viewMembers": true, "manageMembers": manage, "manage": manage, "manageMembership": manage}
	return rep
}

func noGroup() reply { return fail(http.StatusNotFound, "Could not find group by id") }

func (c *call) listGroups() reply { return c.listChildren(nil) }

func (c *call) listSubGroups() reply {
	g := c.realm.group(c.PathValue("group"))
	if g == nil {
		return noGroup()
	}
	return c.listChildren(g)
}

func (c *call) listChildren(parent *group) reply {
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", -1)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	list := []groupRep{}
	if c.mayViewUsers() {
		for _, g := range page(c.realm.children(parent), first, limit) {
			list = append(list, c.withCount(describeGroup(g), g))
		}
	}
	return ok(list)
}

func (c *call) countGroups() reply { return ok(map[string]int{"count": len(c.realm.groups)}) }

func (c *call) getGroup() reply {
	g := c.realm.group(c.PathValue("group"))
	if g == nil {
		return noGroup()
	}
	return ok(c.withCount(membership(g), g))
}

func (c *call) readGroup(parent, self *group) (groupRep, reply, bool) {
	var rep groupRep
	if r, ok := c.decode(&rep, "GroupRepresentation"); !ok {
		return rep, r, false
	}
	if rep.Name == "" {
		return rep, refuse(http.StatusBadRequest, "Group name is missing"), false
	}
	if rep.SubGroups == nil {
		rep.SubGroups = []groupRep{}
	}
	for _, g := range c.realm.children(parent) {
		if g.name == rep.Name && g != self {
			if parent == nil {
				return rep, refuse(http.StatusConflict, fmt.Sprintf("Top level group named '%s' already exists.", rep.Name)), false
			}
			return rep, refuse(http.StatusConflict, fmt.Sprintf("Sibling group named '%s' already exists.", rep.Name)), false
		}
	}
	return rep, reply{}, true
}

func (c *call) createGroup() reply {
	rep, refused, good := c.readGroup(nil, nil)
	if !good {
		return refused
	}
	g := &group{id: newID(), name: rep.Name}
	c.realm.groups = append(c.realm.groups, g)
	rep.ID = g.id
	c.emit(adminEvent{op: opCreate, resource: "GROUP", path: "groups/" + g.id, representation: encode(rep)})
	return c.created("/admin/realms/" + c.realm.name + "/groups/" + g.id)
}

func (c *call) createSubGroup() reply {
	parent := c.realm.group(c.PathValue("group"))
	if parent == nil {
		return noGroup()
	}
	rep, refused, good := c.readGroup(parent, nil)
	if !good {
		return refused
	}
	g := &group{id: newID(), name: rep.Name, parent: parent}
	c.realm.groups = append(c.realm.groups, g)
	rep.ID = g.id
	c.emit(adminEvent{op: opCreate, resource: "GROUP", path: "groups/" + parent.id + "/children", representation: encode(rep)})
	answer := c.created("/admin/realms/" + c.realm.name + "/groups/" + g.id)
	described := c.withCount(membership(g), g)
	described.SubGroupCount = nil
	answer.body = described
	return answer
}

func (c *call) updateGroup() reply {
	g := c.realm.group(c.PathValue("group"))
	if g == nil {
		return noGroup()
	}
	rep, refused, good := c.readGroup(g.parent, g)
	if !good {
		return refused
	}
	g.name = rep.Name
	c.emit(adminEvent{op: opUpdate, resource: "GROUP", path: "groups/" + g.id, representation: encode(rep)})
	return noContent()
}

// deleteGroup removes a group with what is below it; members leave without an event.
func (c *call) deleteGroup() reply {
	g := c.realm.group(c.PathValue("group"))
	if g == nil {
		return noGroup()
	}
	gone := map[string]bool{}
	var collect func(*group)
	collect = func(g *group) {
		gone[g.id] = true
		for _, child := range c.realm.children(g) {
			collect(child)
		}
	}
	collect(g)
	c.realm.groups = slices.DeleteFunc(c.realm.groups, func(g *group) bool { return gone[g.id] })
	for _, u := range c.realm.users {
		u.Groups = slices.DeleteFunc(u.Groups, func(id string) bool { return gone[id] })
	}
	c.emit(adminEvent{
		op: opDelete, resource: "GROUP", path: "groups/" + g.id,
		representation: encode(groupRep{ID: g.id, Name: g.name, SubGroups: []groupRep{}}),
	})
	return noContent()
}

func (c *call) listMembers() reply {
	g := c.realm.group(c.PathValue("group"))
	if g == nil {
		return noGroup()
	}
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", 100)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	var members []*User
	for _, u := range c.realm.sortedUsers() {
		if slices.Contains(u.Groups, g.id) {
			members = append(members, u)
		}
	}
	list := []userRep{}
	for _, u := range page(members, first, limit) {
		list = append(list, c.describe(u, c.URL.Query().Get("briefRepresentation") == "true", nil))
	}
	return ok(list)
}

func (c *call) listUserGroups(u *User) reply {
	list := []groupRep{}
	for _, id := range u.Groups {
		if g := c.realm.group(id); g != nil {
			list = append(list, describeGroup(g))
		}
	}
	slices.SortFunc(list, func(a, b groupRep) int { return compareText(a.Name, b.Name) })
	return ok(list)
}

func (c *call) countUserGroups(u *User) reply { return ok(map[string]int{"count": len(u.Groups)}) }

func (c *call) joinGroup(u *User) reply { return c.changeMembership(u, opCreate) }

func (c *call) leaveGroup(u *User) reply { return c.changeMembership(u, opDelete) }

// changeMembership emits only where something changes.
func (c *call) changeMembership(u *User, op string) reply {
	g := c.realm.group(c.PathValue("group"))
	if g == nil {
		return fail(http.StatusNotFound, "Group not found")
	}
	if slices.Contains(u.Groups, g.id) == (op == opCreate) {
		return noContent()
	}
	if op == opCreate {
		u.Groups = append(u.Groups, g.id)
	} else {
		u.Groups = slices.DeleteFunc(u.Groups, func(id string) bool { return id == g.id })
	}
	c.emit(adminEvent{
		op: op, resource: "GROUP_MEMBERSHIP", path: "users/" + u.ID + "/groups/" + g.id,
		representation: encode(membership(g)), details: nameDetails(u),
	})
	return noContent()
}

// nameDetails is what Keycloak itself adds to the events of memberships.
func nameDetails(u *User) map[string]string {
	details := map[string]string{"username": u.Username}
	if u.Email != "" {
		details["email"] = u.Email
	}
	return details
}
