package interpret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
)

// realmQuestions asks what is believed of a realm and what there is, each once for a
// batch of changes.
type realmQuestions struct {
	changes *RealmChanges
	realm   string

	held *holdings
	// roles are the realm roles that are gone.
	roles map[string]bool
	// groups are the groups below each one, by id: path to id.
	groups map[string]map[string]string
}

// holdings are the roles and groups that anybody is believed to have.
type holdings struct {
	roles map[string]bool
	// clients has the roles by client_id or, where that is not known, the client's UUID;
	// uuids has the UUIDs where they are known.
	clients map[string]map[string]bool
	uuids   map[string]string
	groups  map[string]bool
}

func (q *realmQuestions) mayAsk() bool {
	return q.changes.Live != nil && slices.Contains(q.changes.Realms, q.realm)
}

// believed gathers the holdings. It has to be asked before Keycloak is: what is
// gathered afterwards may be newer than Keycloak's answer, and would count as gone.
func (q *realmQuestions) believed(ctx context.Context) (*holdings, error) {
	if q.held != nil {
		return q.held, nil
	}
	h := &holdings{roles: make(map[string]bool), clients: make(map[string]map[string]bool), uuids: make(map[string]string), groups: make(map[string]bool)}
	err := q.changes.Users.Each(ctx, q.realm, func(u adapter.User) error {
		for _, role := range u.Roles {
			h.roles[role] = true
		}
		for client, roles := range u.ClientRoles {
			if h.clients[client] == nil {
				h.clients[client] = make(map[string]bool)
			}
			for _, role := range roles {
				h.clients[client][role] = true
			}
		}
		for id, name := range u.ClientIDs {
			h.uuids[name] = id
		}
		for _, path := range u.Groups {
			h.groups[path] = true
		}
		return nil
	})
	q.held = h
	return h, err
}

// missingRoles is what the deletion or the renaming of a role means that the event
// names by id alone, as the admin console does it (26.7.3).
func (q *realmQuestions) missingRoles(ctx context.Context, p *adapter.AdminEventReceived, rep namedThing) (effect, error) {
	if !q.mayAsk() {
		return nil, nil
	}
	unfolded := ""
	if p.OperationType == keycloak.OperationUpdate {
		unfolded = "a role was renamed to " + rep.Name
	}
	if p.ResourceType == keycloak.ResourceRealmRole {
		missing, err := q.missingRealmRoles(ctx)
		if err != nil || len(missing) == 0 {
			return nil, err
		}
		return takeMissing(func(u adapter.User) []adapter.Role { return heldRoles(u, "") },
			func(r adapter.Role) bool { return missing[r.Name] }, unfolded), nil
	}
	missing, err := q.missingClientRoles(ctx)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	return takeMissing(func(u adapter.User) []adapter.Role {
		var held []adapter.Role
		for client, names := range u.ClientRoles {
			held = append(held, asRoles(names, clientUUID(u, client), client)...)
		}
		slices.SortFunc(held, func(a, b adapter.Role) int {
			return cmp.Or(strings.Compare(a.ClientID, b.ClientID), strings.Compare(a.Name, b.Name))
		})
		return held
	}, func(r adapter.Role) bool { return missing[r.ClientID][r.Name] }, unfolded), nil
}

// clientUUID is the UUID of a client as far as the user's state tells, otherwise its
// name there.
func clientUUID(u adapter.User, name string) string {
	for id, known := range u.ClientIDs {
		if known == name {
			return id
		}
	}
	return name
}

func takeMissing(held func(adapter.User) []adapter.Role, missing func(adapter.Role) bool, unfolded string) effect {
	return func(u adapter.User) adapter.UserPayload {
		gone := slices.DeleteFunc(held(u), func(r adapter.Role) bool { return !missing(r) })
		if len(gone) == 0 {
			return nil
		}
		return &adapter.UserApiRolesChanged{UserRef: refOf(u), Removed: gone, Unfolded: unfolded, Via: adapter.ViaRealm}
	}
}

// missingRealmRoles are the realm roles that somebody is believed to have and that are
// no longer there.
func (q *realmQuestions) missingRealmRoles(ctx context.Context) (map[string]bool, error) {
	if q.roles != nil {
		return q.roles, nil
	}
	held, err := q.believed(ctx)
	if err != nil || len(held.roles) == 0 {
		return nil, err
	}
	live, err := q.changes.Live.RealmRoles(ctx, q.realm)
	if err != nil {
		return nil, fmt.Errorf("list the roles: %w", err)
	}
	q.roles = maps.Clone(held.roles)
	for _, r := range live {
		delete(q.roles, r.Name)
	}
	return q.roles, nil
}

// missingClientRoles are the client roles that somebody is believed to have and that
// are no longer there, by the client's name in the users' states.
func (q *realmQuestions) missingClientRoles(ctx context.Context) (map[string]map[string]bool, error) {
	held, err := q.believed(ctx)
	if err != nil {
		return nil, err
	}
	missing := make(map[string]map[string]bool)
	for client, roles := range held.clients {
		id, known := held.uuids[client]
		if !known {
			found, ok, err := q.changes.Live.ClientByClientID(ctx, q.realm, client)
			if err != nil {
				return nil, fmt.Errorf("look up client %s: %w", client, err)
			}
			id = client // a state that knows a client by UUID only calls it so
			if ok {
				id = found.ID
			}
		}
		live := make(map[string]bool)
		listed, err := q.changes.Live.ClientRoles(ctx, q.realm, id)
		if err != nil && !notFound(err) {
			return nil, fmt.Errorf("list the roles of client %s: %w", client, err)
		}
		for _, r := range listed {
			live[r.Name] = true
		}
		for role := range roles {
			if live[role] {
				continue
			}
			if missing[client] == nil {
				missing[client] = make(map[string]bool)
			}
			missing[client][role] = true
		}
	}
	return missing, nil
}

func notFound(err error) bool {
	var answer *keycloak.APIError
	return errors.As(err, &answer) && answer.Kind == keycloak.KindNotFound
}

// missingGroups is what the deletion, the renaming or the moving of a group means. The
// event tells the group's name, after a renaming the new one, and never its path; and
// what lies below it goes with it (26.7.3).
func (q *realmQuestions) missingGroups(ctx context.Context, p *adapter.AdminEventReceived, path keycloak.Path, rep namedThing) (effect, error) {
	if !q.mayAsk() {
		return nil, nil
	}
	held, err := q.believed(ctx)
	if err != nil || len(held.groups) == 0 {
		return nil, err
	}
	// Below a group that is gone, or called by another name, every path is gone.
	concerned := func(held string) bool { return rep.Name == "" || strings.Contains(held+"/", "/"+rep.Name+"/") }
	if path.Kind == keycloak.PathGroup && p.OperationType == keycloak.OperationUpdate {
		// It is among its siblings under its new name, and the old one is not told.
		now, err := q.changes.Live.Group(ctx, q.realm, path.GroupID)
		switch {
		case err == nil:
			siblings := strings.TrimSuffix(now.Path, now.Name)
			concerned = func(held string) bool { return strings.HasPrefix(held, siblings) }
		case !notFound(err):
			return nil, fmt.Errorf("read group %s: %w", path.GroupID, err)
		}
	}
	gone := make(map[string]bool)
	for path := range held.groups {
		if !concerned(path) {
			continue
		}
		there, err := q.groupExists(ctx, "", path)
		if err != nil {
			return nil, err
		}
		if !there {
			gone[path] = true
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	unfolded := ""
	switch {
	case len(q.groups[""]) == 0:
		// All are gone, or the service account has query-groups only, which lists none.
		unfolded = "a group was deleted, and the realm lists no groups"
	case p.OperationType == keycloak.OperationUpdate:
		unfolded = "a group was renamed or moved"
	}
	return func(u adapter.User) adapter.UserPayload {
		var left []adapter.Group
		for _, path := range u.Groups {
			if gone[path] {
				left = append(left, adapter.Group{Path: path})
			}
		}
		switch {
		case len(left) == 0:
			return nil
		case unfolded != "":
			return &adapter.UserApiGroupsChanged{UserRef: refOf(u), Unfolded: unfolded, Via: adapter.ViaRealm}
		default:
			return &adapter.UserApiGroupsChanged{UserRef: refOf(u), Left: left, Via: adapter.ViaRealm}
		}
	}, nil
}

// groupExists walks down the tree of groups. A name may hold a slash, so that more than
// one way may lead to a path.
func (q *realmQuestions) groupExists(ctx context.Context, parent, path string) (bool, error) {
	below, err := q.groupsBelow(ctx, parent)
	if err != nil {
		return false, err
	}
	if _, there := below[path]; there {
		return true, nil
	}
	for group, id := range below {
		if !strings.HasPrefix(path, group+"/") {
			continue
		}
		if there, err := q.groupExists(ctx, id, path); err != nil || there {
			return there, err
		}
	}
	return false, nil
}

func (q *realmQuestions) groupsBelow(ctx context.Context, parent string) (map[string]string, error) {
	if below, known := q.groups[parent]; known {
		return below, nil
	}
	const page = 500
	below := make(map[string]string)
	for first := 0; ; {
		groups, err := q.changes.Live.Groups(ctx, q.realm, parent, first, page)
		if err != nil && !notFound(err) {
			return nil, fmt.Errorf("list the groups: %w", err)
		}
		known := len(below)
		for _, g := range groups {
			below[g.Path] = g.ID
		}
		// A page that brings nothing new comes from a proxy that drops the parameters.
		if len(groups) == 0 || len(below) == known {
			break
		}
		first += len(groups)
	}
	if q.groups == nil {
		q.groups = make(map[string]map[string]string)
	}
	q.groups[parent] = below
	return below, nil
}
