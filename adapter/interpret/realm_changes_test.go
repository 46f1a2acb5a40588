package interpret_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// realm is what is believed of a realm, and what is live in it.
type realm struct {
	bundle *bundle
	ids    []string
	err    error
	roles  []string
	// clients has the roles of the clients by UUID, groups the paths of the groups by
	// that of the parent.
	clients map[string][]string
	groups  map[string][]string
	names   map[string]string
}

func (r *realm) Each(ctx context.Context, name string, f func(adapter.User) error) error {
	for _, id := range r.ids {
		events, err := r.bundle.codec.ReadStream(ctx, r.bundle.store, adapter.UserStream(name, id))
		if err != nil {
			return err
		}
		if u, known := adapter.FoldUser(events); known {
			if err := f(u); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *realm) ByUsername(ctx context.Context, name, username string, _ bool) (found adapter.User, ok bool, err error) {
	err = r.Each(ctx, name, func(u adapter.User) error {
		if u.Username == username {
			found, ok = u, true
		}
		return nil
	})
	return found, ok, err
}

func (r *realm) UserByUsername(_ context.Context, _, username string) (keycloak.User, bool, error) {
	id, ok := r.names[username]
	return keycloak.User{ID: id}, ok, r.err
}

func (r *realm) RealmRoles(context.Context, string) ([]keycloak.Role, error) {
	return rolesOf(r.roles), r.err
}

func (r *realm) ClientRoles(_ context.Context, _, client string) ([]keycloak.Role, error) {
	roles, there := r.clients[client]
	if !there {
		return nil, &keycloak.APIError{Status: http.StatusNotFound, Kind: keycloak.KindNotFound}
	}
	return rolesOf(roles), r.err
}

func rolesOf(names []string) []keycloak.Role {
	var roles []keycloak.Role
	for _, name := range names {
		roles = append(roles, keycloak.Role{Name: name})
	}
	return roles
}

func (r *realm) ClientByClientID(context.Context, string, string) (keycloak.Client, bool, error) {
	return keycloak.Client{}, false, r.err
}

func (r *realm) Group(_ context.Context, _, id string) (keycloak.Group, error) {
	path := strings.ReplaceAll(id, ":", "/")
	above := path[:strings.LastIndex(path, "/")]
	if !slices.Contains(r.groups[above], path) {
		return keycloak.Group{}, &keycloak.APIError{Status: http.StatusNotFound, Kind: keycloak.KindNotFound}
	}
	return keycloak.Group{ID: id, Path: path, Name: strings.TrimPrefix(path, above+"/")}, nil
}

// Groups have their path as id, with colons.
func (r *realm) Groups(_ context.Context, _, parent string, first, limit int) ([]admin.GroupNode, error) {
	var nodes []admin.GroupNode
	for _, path := range r.groups[strings.ReplaceAll(parent, ":", "/")] {
		nodes = append(nodes, admin.GroupNode{Group: keycloak.Group{ID: strings.ReplaceAll(path, "/", ":"), Path: path}})
	}
	return nodes[min(first, len(nodes)):min(first+limit, len(nodes))], r.err
}

const (
	crm  = "9bd4e09f-0001-4000-8000-000000000001"
	blue = "9bd4e09f-0002-4000-8000-000000000002"
)

var dawn = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

// newRealm has ada, who has all, and bob, who has nothing.
func newRealm(t *testing.T) *realm {
	t.Helper()
	r := &realm{
		bundle: setup(t), ids: []string{"ada", "bob"}, roles: []string{"auditor", "clerk"},
		clients: map[string][]string{crm: {"viewer", "editor"}},
		groups:  map[string][]string{"": {"/staff", "/sales", "/a/b"}, "/staff": {"/staff/north"}},
		names:   map[string]string{"zoe": "zoe"},
	}
	ref := adapter.UserRef{Realm: "acme", UserID: "ada"}
	until := dawn.Add(time.Hour)
	r.happened(&adapter.UserApiObserved{
		UserRef: ref, Present: true, Complete: true,
		Set: adapter.Profile{Username: adapter.Set("ada"), Enabled: adapter.Set(true), LockedUntil: adapter.Set(until)},
		Memberships: adapter.Memberships{
			Roles: adapter.Set([]string{"auditor", "clerk"}), ClientRoles: adapter.Set(map[string][]string{"crm": {"viewer", "editor"}}),
			Groups: adapter.Set([]string{"/staff/north", "/sales", "/a/b"}), Clients: map[string]string{crm: "crm"},
			Organizations: adapter.Set([]adapter.Organization{{ID: blue, Alias: "blue"}}),
		},
	})
	r.happened(&adapter.UserApiCreated{UserChange: adapter.UserChange{
		UserRef: adapter.UserRef{Realm: "acme", UserID: "bob"}, Set: adapter.Profile{Username: adapter.Set("bob")},
	}})
	return r
}

func (r *realm) happened(p adapter.UserPayload) {
	r.bundle.t.Helper()
	e, err := r.bundle.codec.Encode(r.bundle.t.Context(), adapter.Draft{ID: eventstore.NewID(), Payload: p, OccurredAt: dawn})
	require.NoError(r.bundle.t, err)
	_, err = r.bundle.store.Append(r.bundle.t.Context(), eventstore.StreamAppend{
		Stream: adapter.UserStream(p.User().Realm, p.User().UserID), Events: []eventstore.NewEvent{e},
	})
	require.NoError(r.bundle.t, err)
}

// delivered is an admin event a minute later, as the log has it.
func delivered(resource, operation, path, representation string) adapter.Decoded {
	p := &adapter.AdminEventReceived{
		Realm: "acme", ResourceType: resource, OperationType: operation, ResourcePath: path, Details: map[string]string{"username": "zoe"},
	}
	if representation != "" {
		p.Representation = json.RawMessage(representation)
	}
	id := eventstore.NewID()
	return adapter.Decoded{
		Event: eventstore.Event{
			ID: id, Type: p.EventType(), Stream: adapter.DeliveryStream(id.String()), OccurredAt: dawn.Add(time.Minute), Position: 100,
			CorrelationID: uuid.New(),
		},
		Payload: p, Meta: adapter.Metadata{Actor: &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "root"}},
	}
}

func (r *realm) changes() *interpret.RealmChanges {
	return &interpret.RealmChanges{
		Interpreter: r.bundle.interp, Users: r, Live: r, Realms: []string{"acme"},
		Settled: func(context.Context, eventstore.Position) error { return nil },
	}
}

// told are the events that followed, in short.
func (r *realm) told() []string {
	r.bundle.t.Helper()
	var lines []string
	for e, err := range r.bundle.store.ReadLog(r.bundle.t.Context(), eventstore.LogQuery{After: 2}) {
		require.NoError(r.bundle.t, err)
		d, err := r.bundle.codec.Decode(r.bundle.t.Context(), e)
		require.NoError(r.bundle.t, err)
		var fields map[string]any
		require.NoError(r.bundle.t, json.Unmarshal(e.Data, &fields))
		via := fields["via"]
		for _, same := range []string{"realm", "user_id", "via"} {
			delete(fields, same)
		}
		rest, err := json.Marshal(fields)
		require.NoError(r.bundle.t, err)
		user := d.Payload.(adapter.UserPayload).User().UserID //nolint:forcetypeassert // fails the test
		lines = append(lines, fmt.Sprintf("%s %s %s via %v", user, strings.TrimPrefix(e.Type, "UserApi"), rest, via))
	}
	return lines
}

func TestRealmChanges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		event adapter.Decoded
		live  func(r *realm)
		told  string // of ada; bob is never concerned
	}{
		"a role deleted by name": {
			event: delivered("REALM_ROLE", "DELETE", "roles/auditor", `{"name":"auditor"}`),
			told:  `RolesChanged {"removed":[{"name":"auditor"}]}`,
		},
		"a role deleted by id": {
			event: delivered("REALM_ROLE", "DELETE", "roles-by-id/4711", ""),
			live:  func(r *realm) { r.roles = []string{"clerk"} },
			told:  `RolesChanged {"removed":[{"name":"auditor"}]}`,
		},
		"a role deleted by id that nobody has": {event: delivered("REALM_ROLE", "DELETE", "roles-by-id/4711", "")},
		"a role renamed": {
			event: delivered("REALM_ROLE", "UPDATE", "roles/auditor", `{"name":"controller"}`),
			told:  `RolesChanged {"added":[{"name":"controller"}],"removed":[{"name":"auditor"}]}`,
		},
		"a role renamed by id": {
			event: delivered("REALM_ROLE", "UPDATE", "roles-by-id/4711", `{"name":"controller"}`),
			live:  func(r *realm) { r.roles = []string{"clerk", "controller"} },
			told:  `RolesChanged {"removed":[{"name":"auditor"}],"unfolded":"a role was renamed to controller"}`,
		},
		"a role described":                {event: delivered("REALM_ROLE", "UPDATE", "roles/auditor", `{"name":"auditor","description":"x"}`)},
		"a role's composites":             {event: delivered("REALM_ROLE", "DELETE", "roles/auditor/composites", `[{"name":"clerk"}]`)},
		"a role that cannot be looked at": {event: delivered("REALM_ROLE", "DELETE", "roles-by-id/4711", ""), live: forbidden},
		"a client role deleted": {
			event: delivered("CLIENT_ROLE", "DELETE", "clients/"+crm+"/roles/viewer", `{"name":"viewer"}`),
			told:  `RolesChanged {"removed":[{"client":"` + crm + `","client_id":"crm","name":"viewer"}]}`,
		},
		"a client role deleted by id": {
			event: delivered("CLIENT_ROLE", "DELETE", "roles-by-id/4711", ""),
			live:  func(r *realm) { r.clients[crm] = []string{"viewer"} },
			told:  `RolesChanged {"removed":[{"client":"` + crm + `","client_id":"crm","name":"editor"}]}`,
		},
		"a client deleted": {
			event: delivered("CLIENT", "DELETE", "clients/"+crm, `{"clientId":"crm"}`),
			told:  `RolesChanged {"removed":[{"client":"` + crm + `","client_id":"crm","name":"editor"},{"client":"` + crm + `","client_id":"crm","name":"viewer"}]}`,
		},
		"a client with another client_id": {
			event: delivered("CLIENT", "UPDATE", "clients/"+crm, `{"clientId":"sales"}`),
			told:  `RolesChanged {"unfolded":"a client was given another client_id"}`,
		},
		"a client described": {event: delivered("CLIENT", "UPDATE", "clients/"+crm, `{"clientId":"crm","name":"x"}`)},
		"a group deleted with what is below": {
			event: delivered("GROUP", "DELETE", "groups/1", `{"id":"1","name":"staff"}`),
			live:  func(r *realm) { r.groups = map[string][]string{"": {"/sales", "/a/b"}} },
			told:  `GroupsChanged {"left":[{"path":"/staff/north"}]}`,
		},
		"another group of the same name deleted": {event: delivered("GROUP", "DELETE", "groups/1", `{"id":"1","name":"north"}`)},
		"a group renamed": {
			event: delivered("GROUP", "UPDATE", "groups/:people", `{"name":"people"}`),
			live: func(r *realm) {
				r.groups = map[string][]string{"": {"/people", "/sales", "/a/b"}, "/people": {"/people/north"}}
			},
			told: `GroupsChanged {"unfolded":"a group was renamed or moved"}`,
		},
		"a group described": {event: delivered("GROUP", "UPDATE", "groups/:staff", `{"name":"staff"}`)},
		"a group moved": {
			event: delivered("GROUP", "UPDATE", "groups/2/children", `{"id":"1","name":"staff"}`),
			live:  func(r *realm) { r.groups = map[string][]string{"": {"/sales", "/a/b"}, "/sales": {"/sales/staff"}} },
			told:  `GroupsChanged {"unfolded":"a group was renamed or moved"}`,
		},
		"a group that is listed no more, like all": {
			event: delivered("GROUP", "DELETE", "groups/1", `{"id":"1","name":"sales"}`),
			live:  func(r *realm) { r.groups = nil },
			told:  `GroupsChanged {"unfolded":"a group was deleted, and the realm lists no groups"}`,
		},
		"an organization deleted": {
			event: delivered("ORGANIZATION", "DELETE", "organizations/"+blue, ""),
			told:  `OrganizationsChanged {"left":[{"alias":"blue","id":"` + blue + `"}],"unfolded":"leaving an organization deletes a user whom it manages"}`,
		},
		"all lock-outs ended": {
			event: delivered("USER_LOGIN_FAILURE", "DELETE", "attack-detection/brute-force/users", ""),
			told:  `Updated {"set":{"locked_until":null}}`,
		},
		"a user replaced by an import": {
			event: delivered("REALM", "UPDATE", "users/ada2", `{"username":"Ada"}`),
			told:  `Updated {"set":{},"unfolded":"an import gave the user name to another user"}`,
		},
		"a user's own change": {event: delivered("USER", "UPDATE", "users/ada", `{"username":"ada"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRealm(t)
			if c.live != nil {
				c.live(r)
			}
			for range 2 { // the second time as after a crash
				require.NoError(t, r.changes().Handle(t.Context(), []adapter.Decoded{c.event}))
			}
			if c.told == "" {
				require.Empty(t, r.told())
				return
			}
			require.Equal(t, []string{"ada " + c.told + " via realm"}, r.told())
		})
	}
}

func forbidden(r *realm) {
	r.err = &keycloak.APIError{Status: http.StatusForbidden, Kind: keycloak.KindForbidden}
}

func TestRealmChangesWaitForKeycloak(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	r.roles, r.err = []string{"clerk"}, errors.New("connection refused")
	batch := []adapter.Decoded{delivered("REALM_ROLE", "DELETE", "roles-by-id/4711", "")}
	require.ErrorContains(t, r.changes().Handle(t.Context(), batch), "connection refused")
	require.Empty(t, r.told())
	r.err = nil
	require.NoError(t, r.changes().Handle(t.Context(), batch))
	require.Len(t, r.told(), 1)
}

// A role that is deleted before the user was given it again under the same name stays.
func TestARealmChangeBeforeAUserWasKnownTellsNothing(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	early := delivered("REALM_ROLE", "DELETE", "roles/auditor", `{"name":"auditor"}`)
	early.OccurredAt = dawn.Add(-time.Minute)
	require.NoError(t, r.changes().Handle(t.Context(), []adapter.Decoded{early}))
	require.Empty(t, r.told())
}

func TestWhoJoinsAnOrganizationIsLookedUpByName(t *testing.T) {
	t.Parallel()
	join := delivered("ORGANIZATION_MEMBERSHIP", "CREATE", "organizations/"+blue+"/members", `{"id":"`+blue+`","alias":"blue"}`)
	r := newRealm(t)
	require.NoError(t, r.changes().Handle(t.Context(), []adapter.Decoded{join}))
	require.Equal(t, []string{`zoe OrganizationsChanged {"joined":[{"alias":"blue","id":"` + blue + `"}]} via <nil>`}, r.told(), "asked of Keycloak")

	r = newRealm(t)
	join.Payload.(*adapter.AdminEventReceived).Details["username"] = "bob" //nolint:forcetypeassert // fails the test
	require.NoError(t, r.changes().Handle(t.Context(), []adapter.Decoded{join}))
	require.Equal(t, []string{`bob OrganizationsChanged {"joined":[{"alias":"blue","id":"` + blue + `"}]} via <nil>`}, r.told(), "known already")
}
