package reconcile

import (
	"cmp"
	"context"
	"net/http"
	"path"
	"slices"

	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// fakeMembers are the roles, groups and organizations of a fakeKeycloak, and who has
// them, by user id.
type fakeMembers struct {
	// roles are by name, clientRoles by client_id and name; the client's UUID is the
	// client_id after "uuid-".
	roles         map[string][]string
	clientRoles   map[string]map[string][]string
	groups        map[string][]string // by path, which is the id too
	organizations map[string][]string // by alias; the id is the alias after "org-"
	// refused are errors by list: "roles", "clients", "groups", "organizations" for what
	// there is, "roles/auditor" and the like for who has it, "user/roles" and the like for
	// the reads of one user.
	refused map[string]error
	// onList runs before a list is read.
	onList func(list string)
	// lists were read, in order.
	lists []string
}

func newFakeMembers() fakeMembers {
	return fakeMembers{
		roles: map[string][]string{"default-roles-acme": {}}, clientRoles: map[string]map[string][]string{"account": {}},
		groups: map[string][]string{}, organizations: map[string][]string{}, refused: map[string]error{},
	}
}

func forbidden() error {
	return &keycloak.APIError{Status: http.StatusForbidden, Kind: keycloak.KindForbidden}
}

// list notes that a list is read, and tells whether it may be.
func (k *fakeKeycloak) list(ctx context.Context, name string) error {
	if k.members.onList != nil {
		k.members.onList(name)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.members.lists = append(k.members.lists, name)
	return cmp.Or(ctx.Err(), k.members.refused[name])
}

// having are the names of what a user has.
func having(owners map[string][]string, id string) []string {
	var names []string
	for name, ids := range owners {
		if slices.Contains(ids, id) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (k *fakeKeycloak) UserRoles(ctx context.Context, _, id string) (keycloak.RoleMappings, error) {
	if err := k.list(ctx, "user/roles"); err != nil {
		return keycloak.RoleMappings{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m := keycloak.RoleMappings{ClientMappings: map[string]keycloak.ClientRoles{}}
	for _, name := range having(k.members.roles, id) {
		m.RealmMappings = append(m.RealmMappings, keycloak.Role{ID: name, Name: name})
	}
	for client, roles := range k.members.clientRoles {
		mapping := keycloak.ClientRoles{ID: "uuid-" + client, Client: client}
		for _, name := range having(roles, id) {
			mapping.Mappings = append(mapping.Mappings, keycloak.Role{ID: name, Name: name})
		}
		if len(mapping.Mappings) > 0 {
			m.ClientMappings[client] = mapping
		}
	}
	return m, nil
}

func (k *fakeKeycloak) UserGroups(ctx context.Context, _, id string) ([]keycloak.Group, error) {
	if err := k.list(ctx, "user/groups"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var groups []keycloak.Group
	for _, p := range having(k.members.groups, id) {
		groups = append(groups, keycloak.Group{ID: p, Name: path.Base(p), Path: p})
	}
	return groups, nil
}

func (k *fakeKeycloak) UserOrganizations(ctx context.Context, _, id string) ([]keycloak.Organization, error) {
	if err := k.list(ctx, "user/organizations"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var organizations []keycloak.Organization
	for _, alias := range having(k.members.organizations, id) {
		organizations = append(organizations, keycloak.Organization{ID: "org-" + alias, Alias: alias})
	}
	return organizations, nil
}

// page is the part of a list of names, sorted.
func page[T any](names map[string]T, first, limit int) []string {
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	first = min(first, len(sorted))
	return sorted[first:min(first+limit, len(sorted))]
}

func (k *fakeKeycloak) roleList(ctx context.Context, list string, roles func() map[string][]string) ([]keycloak.Role, error) {
	if err := k.list(ctx, list); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []keycloak.Role
	for _, name := range page(roles(), 0, 1<<20) {
		out = append(out, keycloak.Role{ID: name, Name: name})
	}
	return out, nil
}

func (k *fakeKeycloak) RealmRoles(ctx context.Context, _ string) ([]keycloak.Role, error) {
	return k.roleList(ctx, "roles", func() map[string][]string { return k.members.roles })
}

func (k *fakeKeycloak) ClientRoles(ctx context.Context, _, client string) ([]keycloak.Role, error) {
	id := client[len("uuid-"):]
	return k.roleList(ctx, "clients/"+id, func() map[string][]string { return k.members.clientRoles[id] })
}

func (k *fakeKeycloak) Clients(ctx context.Context, _ string, first, limit int) ([]keycloak.Client, error) {
	if err := k.list(ctx, "clients"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var clients []keycloak.Client
	for _, id := range page(k.members.clientRoles, first, limit) {
		clients = append(clients, keycloak.Client{ID: "uuid-" + id, ClientID: id})
	}
	return clients, nil
}

func (k *fakeKeycloak) Groups(ctx context.Context, _, parent string, first, limit int) ([]admin.GroupNode, error) {
	if err := k.list(ctx, "groups"+parent); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	below := map[string][]string{}
	for p, ids := range k.members.groups {
		if path.Dir(p) == cmp.Or(parent, "/") {
			below[p] = ids
		}
	}
	var groups []admin.GroupNode
	for _, p := range page(below, first, limit) {
		count := 0
		for other := range k.members.groups {
			if path.Dir(other) == p {
				count++
			}
		}
		groups = append(groups, admin.GroupNode{Group: keycloak.Group{ID: p, Name: path.Base(p), Path: p}, SubGroupCount: &count})
	}
	return groups, nil
}

func (k *fakeKeycloak) Organizations(ctx context.Context, _ string, first, limit int) ([]keycloak.Organization, error) {
	if err := k.list(ctx, "organizations"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []keycloak.Organization
	for _, alias := range page(k.members.organizations, first, limit) {
		out = append(out, keycloak.Organization{ID: "org-" + alias, Alias: alias})
	}
	return out, nil
}

func (k *fakeKeycloak) holders(ctx context.Context, list string, ids func() []string, first, limit int) ([]keycloak.User, error) {
	if err := k.list(ctx, list); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	live := map[string]bool{}
	for _, id := range ids() {
		if _, ok := k.users[id]; ok {
			live[id] = true
		}
	}
	var out []keycloak.User
	for _, id := range page(live, first, limit) {
		out = append(out, keycloak.User{ID: id, Username: k.users[id].Username})
	}
	return out, nil
}

func (k *fakeKeycloak) RoleUsers(ctx context.Context, _, client, role string, first, limit int) ([]keycloak.User, error) {
	if client == "" {
		return k.holders(ctx, "roles/"+role, func() []string { return k.members.roles[role] }, first, limit)
	}
	id := client[len("uuid-"):]
	return k.holders(ctx, "clients/"+id+"/"+role, func() []string { return k.members.clientRoles[id][role] }, first, limit)
}

func (k *fakeKeycloak) GroupMembers(ctx context.Context, _, group string, first, limit int) ([]keycloak.User, error) {
	return k.holders(ctx, "members"+group, func() []string { return k.members.groups[group] }, first, limit)
}

func (k *fakeKeycloak) OrganizationMembers(ctx context.Context, _, organization string, first, limit int) ([]keycloak.User, error) {
	alias := organization[len("org-"):]
	return k.holders(ctx, "organizations/"+alias, func() []string { return k.members.organizations[alias] }, first, limit)
}

// change gives or takes, under the lock.
func (k *fakeKeycloak) memberships(f func(m *fakeMembers)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.members)
}

// asked counts how often a list was read.
func (k *fakeKeycloak) asked(list string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, l := range k.members.lists {
		if l == list {
			n++
		}
	}
	return n
}
