package adapter

import "maps"

// Memberships are the roles, groups and organizations that a read found. Absent ones
// were not read.
type Memberships struct {
	// Roles are names of realm roles given directly, ClientRoles those of clients by
	// client_id.
	Roles       Optional[[]string]            `json:"roles,omitzero"`
	ClientRoles Optional[map[string][]string] `json:"client_roles,omitzero"`
	// Groups are full paths.
	Groups        Optional[[]string]       `json:"groups,omitzero"`
	Organizations Optional[[]Organization] `json:"organizations,omitzero"`
	// Clients are the client_ids of the clients by UUID, as the read told them.
	Clients map[string]string `json:"clients,omitempty"`
}

// Fields names the fields that were read.
func (m Memberships) Fields() []string {
	var names []string
	add := func(present bool, name string) {
		if present {
			names = append(names, name)
		}
	}
	add(m.Roles.Present(), FieldRoles)
	add(m.ClientRoles.Present(), FieldClientRoles)
	add(m.Groups.Present(), FieldGroups)
	add(m.Organizations.Present(), FieldOrganizations)
	return names
}

func (m Memberships) applyTo(u *User) {
	if m.Roles.Present() {
		u.Roles = nil
		roles, _ := m.Roles.Get()
		for _, name := range roles {
			u.addRole(Role{Name: name})
		}
	}
	if m.ClientRoles.Present() {
		u.ClientRoles = nil
		clients, _ := m.ClientRoles.Get()
		for client, names := range clients {
			for _, name := range names {
				u.addRole(Role{Name: name, Client: client})
			}
		}
	}
	if m.Groups.Present() {
		groups, _ := m.Groups.Get()
		u.Groups = sortedSet(groups)
	}
	if m.Organizations.Present() {
		organizations, _ := m.Organizations.Get()
		u.Organizations = sortOrganizations(organizations)
	}
	if len(m.Clients) > 0 {
		clients := maps.Clone(u.ClientIDs)
		if clients == nil {
			clients = make(map[string]string)
		}
		maps.Copy(clients, m.Clients)
		u.ClientIDs = clients
	}
}
