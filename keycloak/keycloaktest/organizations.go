package keycloaktest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

type organization struct {
	id, name, alias string
	enabled         bool
	domains         []orgDomain
	members         []string // user ids
}

type orgDomain struct {
	Name     string `json:"name"`
	Verified bool   `json:"verified"`
}

type orgRep struct {
	ID          string          `json:"id,omitempty"`
	Name        string          `json:"name,omitempty"`
	Alias       string          `json:"alias,omitempty"`
	Enabled     *bool           `json:"enabled,omitempty"`
	Description *string         `json:"description,omitempty"`
	RedirectURL *string         `json:"redirectUrl,omitempty"`
	Attributes  json.RawMessage `json:"attributes,omitempty"`
	Domains     []orgDomain     `json:"domains,omitzero"`
}

func (o *organization) rep() orgRep {
	return orgRep{ID: o.id, Name: o.name, Alias: o.alias, Enabled: &o.enabled, Domains: o.domains}
}

func (c *call) organization() *organization {
	for _, o := range c.realm.organizations {
		if o.id == c.PathValue("org") {
			return o
		}
	}
	return nil
}

// listOrganizations has a page of 10 like the list of members.
func (c *call) listOrganizations() reply {
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", 10)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	list := []orgRep{}
	if c.may("view-organizations", "manage-organizations") {
		for _, o := range c.realm.organizations {
			list = append(list, o.rep())
		}
	}
	return ok(page(list, first, limit))
}

func (c *call) createOrganization() reply {
	var rep orgRep
	if r, ok := c.decode(&rep, "OrganizationRepresentation"); !ok {
		return r
	}
	if rep.Name == "" {
		return refuse(http.StatusBadRequest, "Name can not be null")
	}
	for _, o := range c.realm.organizations {
		if o.name == rep.Name {
			return refuse(http.StatusConflict, "A organization with the same name already exists.")
		}
	}
	on := true
	if rep.Enabled == nil {
		rep.Enabled = &on
	}
	o := &organization{id: newID(), name: rep.Name, alias: rep.Alias, enabled: *rep.Enabled, domains: rep.Domains}
	if o.alias == "" {
		o.alias = rep.Name
	}
	c.realm.organizations = append(c.realm.organizations, o)
	rep.ID = o.id
	c.emit(adminEvent{op: opCreate, resource: "ORGANIZATION", path: "organizations/" + o.id, representation: encode(rep)})
	return c.created("/admin/realms/" + c.realm.name + "/organizations/" + o.id)
}

func (c *call) getOrganization() reply {
	o := c.organization()
	if o == nil {
		return notFoundPage()
	}
	rep := o.rep()
	rep.Attributes = json.RawMessage(`{}`)
	return ok(rep)
}

func (c *call) deleteOrganization() reply {
	o := c.organization()
	if o == nil {
		return notFoundPage()
	}
	c.realm.organizations = slices.DeleteFunc(c.realm.organizations, func(have *organization) bool { return have == o })
	c.emit(adminEvent{op: opDelete, resource: "ORGANIZATION", path: "organizations/" + o.id})
	return noContent()
}

type memberRep struct {
	userRep
	MembershipType string `json:"membershipType"`
}

// listOrgMembers has a page of 10 where lists of users have 100.
func (c *call) listOrgMembers() reply {
	o := c.organization()
	if o == nil {
		return notFoundPage()
	}
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", 10)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	list := []memberRep{}
	for _, u := range c.realm.sortedUsers() {
		if slices.Contains(o.members, u.ID) {
			list = append(list, memberRep{c.describe(u, true, nil), "UNMANAGED"})
		}
	}
	return ok(page(list, first, limit))
}

// addOrgMember takes the user's id as the body, quoted or not. The event names the
// member in its details only.
func (c *call) addOrgMember() reply {
	o := c.organization()
	u := c.realm.users[strings.Trim(strings.TrimSpace(string(c.body)), `"`)]
	switch {
	case o == nil || u == nil:
		return notFoundPage()
	case slices.Contains(o.members, u.ID):
		return refuse(http.StatusConflict, "User is already a member of the organization.")
	}
	o.members = append(o.members, u.ID)
	path := "organizations/" + o.id + "/members"
	c.emit(adminEvent{op: opCreate, resource: "ORGANIZATION_MEMBERSHIP", path: path, representation: encode(o.rep()), details: nameDetails(u)})
	return c.created("/admin/realms/" + c.realm.name + "/" + path + "/" + u.ID)
}

func (c *call) removeOrgMember() reply {
	o := c.organization()
	id := c.PathValue("user")
	if o == nil || !slices.Contains(o.members, id) {
		return notFoundPage()
	}
	o.members = slices.DeleteFunc(o.members, func(have string) bool { return have == id })
	c.emit(adminEvent{
		op: opDelete, resource: "ORGANIZATION_MEMBERSHIP", path: "organizations/" + o.id + "/members/" + id,
		representation: encode(o.rep()), details: nameDetails(c.realm.users[id]),
	})
	return noContent()
}

// orgPath serves organizations/{org}/members/{user} and
// organizations/members/{user}/organizations, which a mux cannot tell apart.
func (c *call) orgPath() reply {
	if c.PathValue("org") == "members" && c.PathValue("user") == "organizations" {
		id := c.PathValue("members")
		list := []orgRep{}
		for _, o := range c.realm.organizations {
			if slices.Contains(o.members, id) {
				list = append(list, o.rep())
			}
		}
		if c.realm.users[id] == nil {
			return notFoundPage()
		}
		return ok(list)
	}
	o := c.organization()
	u := c.realm.users[c.PathValue("user")]
	if c.PathValue("members") != "members" || o == nil || u == nil || !slices.Contains(o.members, u.ID) {
		return notFoundPage()
	}
	return ok(memberRep{c.describe(u, true, nil), "UNMANAGED"})
}
