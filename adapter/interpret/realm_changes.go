package interpret

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// RealmChangesName is the name of the consumer RealmChanges.
const RealmChangesName = "realm_changes"

// RealmChanges follows changes that Keycloak reports once for a realm, and not for the
// users whom they concern: a role, group, client or organization that is deleted or
// renamed, all lock-outs ended at once, somebody who joined an organization and is told
// by name only, a user replaced by an import (all measured on 26.7.3).
//
// It is a consumer of the log, beside the Interpreter, because it waits for others: for
// the projection that says who has what, and for Keycloak where an event does not tell
// what was changed. What it derives has deterministic ids and is caused by the delivery.
// Where neither tells, nothing is derived, and the next reconciliation finds it.
type RealmChanges struct {
	Interpreter *Interpreter
	Users       Believed
	// Settled waits until what was delivered up to a position, and close to it, is
	// interpreted and folded into Users.
	Settled func(ctx context.Context, upTo eventstore.Position) error
	// Live is asked about the realms named; nil where there is no Keycloak.
	Live   Live
	Realms []string
}

// Believed are the users as they are believed to be.
type Believed interface {
	// Each calls f for every user of the realm, deleted ones included.
	Each(ctx context.Context, realm string, f func(adapter.User) error) error
	ByUsername(ctx context.Context, realm, name string, includeDeleted bool) (adapter.User, bool, error)
}

// Live tells what there is in a realm now.
type Live interface {
	UserByUsername(ctx context.Context, realm, username string) (user keycloak.User, ok bool, err error)
	RealmRoles(ctx context.Context, realm string) ([]keycloak.Role, error)
	ClientRoles(ctx context.Context, realm, client string) ([]keycloak.Role, error)
	ClientByClientID(ctx context.Context, realm, clientID string) (client keycloak.Client, ok bool, err error)
	Group(ctx context.Context, realm, group string) (keycloak.Group, error)
	Groups(ctx context.Context, realm, parent string, first, max int) ([]admin.GroupNode, error)
}

// Name identifies the consumer and its checkpoint.
func (*RealmChanges) Name() string { return RealmChangesName }

// Types are the event types that it reads.
func (*RealmChanges) Types() []string { return []string{adapter.TypeAdminEventReceived} }

// Category is the streams' that it reads.
func (*RealmChanges) Category() string { return adapter.CategoryDelivery }

// Background implements projections.Background: it may wait for Keycloak.
func (*RealmChanges) Background() {}

// effect is what a change means for one user, nil where it means nothing.
type effect func(adapter.User) adapter.UserPayload

// realmChange is a delivery and its effect.
type realmChange struct {
	delivery adapter.Decoded
	effect   effect
}

// Handle follows the changes of a batch. An error means that the store or Keycloak
// could not be asked, and the batch may be handled again.
func (r *RealmChanges) Handle(ctx context.Context, batch []adapter.Decoded) error {
	concern := make(map[string][]adapter.Decoded)
	for _, d := range batch {
		if p, ok := d.Payload.(*adapter.AdminEventReceived); ok && p.Realm != "" && p.Error == "" && concernsRealm(p) {
			concern[p.Realm] = append(concern[p.Realm], d)
		}
	}
	if len(concern) == 0 {
		return nil
	}
	if err := r.Settled(ctx, batch[len(batch)-1].Position); err != nil {
		return err
	}
	for _, realm := range slices.Sorted(maps.Keys(concern)) {
		if err := r.follow(ctx, realm, concern[realm]); err != nil {
			return fmt.Errorf("following changes of realm %s: %w", realm, err)
		}
	}
	return nil
}

// concernsRealm tells the events that may mean something for users whom they do not
// name.
func concernsRealm(p *adapter.AdminEventReceived) bool {
	path := keycloak.ParseResourcePath(p.ResourcePath)
	created, updated, deleted := p.OperationType == keycloak.OperationCreate, p.OperationType == keycloak.OperationUpdate, p.OperationType == keycloak.OperationDelete
	switch p.ResourceType {
	case keycloak.ResourceRealmRole, keycloak.ResourceClientRole:
		known := path.Kind == keycloak.PathRealmRole || path.Kind == keycloak.PathClientRole || path.Kind == keycloak.PathRoleByID
		return known && (updated || deleted)
	case keycloak.ResourceClient:
		return path.Kind == keycloak.PathClient && (updated || deleted)
	case keycloak.ResourceGroup:
		// A group that moves is an update of groups/{parent}/children or of groups.
		return updated || deleted && path.Kind == keycloak.PathGroup
	case keycloak.ResourceOrganization:
		return path.Kind == keycloak.PathOrganization && deleted
	case keycloak.ResourceOrganizationMembership:
		return path.Kind == keycloak.PathOrganizationMembers && created
	case keycloak.ResourceUserLoginFailure:
		return path.Kind == keycloak.PathAllLoginFailures && deleted
	case keycloak.ResourceRealm:
		return path.Kind == keycloak.PathUser && updated
	default:
		return false
	}
}

func (r *RealmChanges) follow(ctx context.Context, realm string, deliveries []adapter.Decoded) error {
	q := &realmQuestions{changes: r, realm: realm}
	var changes []realmChange
	var joins []eventstore.StreamAppend
	for _, d := range deliveries {
		p := d.Payload.(*adapter.AdminEventReceived) //nolint:forcetypeassert // Handle has looked
		var what effect
		var err error
		if p.ResourceType == keycloak.ResourceOrganizationMembership {
			var join []eventstore.StreamAppend
			join, err = r.join(ctx, q, d, p)
			joins = append(joins, join...)
		} else {
			what, err = q.effectOf(ctx, p)
		}
		switch {
		case err != nil && final(err):
			r.Interpreter.Logger.WarnContext(ctx, "a change of the realm cannot be followed to its users",
				"realm", realm, "resource_path", p.ResourcePath, "correlation_id", d.CorrelationID, "error", err)
		case err != nil:
			return err
		case what != nil:
			changes = append(changes, realmChange{delivery: d, effect: what})
		}
	}
	if err := r.appendAll(ctx, joins); err != nil || len(changes) == 0 {
		return err
	}
	const chunk = 100
	var appends []eventstore.StreamAppend
	err := r.Users.Each(ctx, realm, func(u adapter.User) error {
		for _, c := range changes {
			// What became known later was known to be so then.
			if u.Deleted || u.FirstKnownAt.After(c.delivery.OccurredAt) {
				continue
			}
			event := c.effect(u)
			if event == nil {
				continue
			}
			a, err := r.event(ctx, c.delivery, event)
			if err != nil {
				return err
			}
			appends = append(appends, a)
		}
		if len(appends) < chunk {
			return nil
		}
		defer func() { appends = nil }()
		return r.appendAll(ctx, appends)
	})
	if err != nil {
		return err
	}
	return r.appendAll(ctx, appends)
}

// final tells faults that asking again does not mend: a role that the service account
// lacks, an answer that nobody expects.
func final(err error) bool {
	var answer *keycloak.APIError
	var garbled *admin.DecodeError
	if errors.As(err, &garbled) {
		return true
	}
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Kind {
	case keycloak.KindForbidden, keycloak.KindNotFound, keycloak.KindInvalid, keycloak.KindRedirect, keycloak.KindUnexpected, keycloak.KindConflict:
		return true
	default:
		return false
	}
}

// event makes the append of a user event that follows from a delivery.
func (r *RealmChanges) event(ctx context.Context, d adapter.Decoded, change adapter.UserPayload) (eventstore.StreamAppend, error) {
	stream := adapter.UserStream(change.User().Realm, change.User().UserID)
	e, err := r.Interpreter.Codec.Encode(ctx, adapter.Draft{
		ID:      eventstore.DerivedID(d.ID, d.OccurredAt, RealmChangesName+" "+stream.String(), 0),
		Payload: change, OccurredAt: d.OccurredAt, Meta: r.Interpreter.meta(d, d.CorrelationID, d.ID),
	})
	return eventstore.StreamAppend{Stream: stream, Events: []eventstore.NewEvent{e}}, err
}

// appendAll appends events at once. Where some are there already, after a crash, it
// appends them one by one: what was derived first stands.
func (r *RealmChanges) appendAll(ctx context.Context, appends []eventstore.StreamAppend) error {
	if len(appends) == 0 {
		return nil
	}
	_, err := r.Interpreter.Store.Append(ctx, appends...)
	if !errors.Is(err, eventstore.ErrEventIDReused) {
		return err
	}
	for _, a := range appends {
		if err := r.Interpreter.append(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// join is the event of a user who joined an organization, whom Keycloak names by user
// name only. Nobody, where it is the echo of a call of ours, which has told it itself.
func (r *RealmChanges) join(ctx context.Context, q *realmQuestions, d adapter.Decoded, p *adapter.AdminEventReceived) ([]eventstore.StreamAppend, error) {
	if _, ours, err := r.Interpreter.findCall(ctx, d); err != nil || ours {
		return nil, err
	}
	name := p.Details["username"]
	if name == "" {
		return nil, nil
	}
	member, known, err := r.Users.ByUsername(ctx, q.realm, name, false)
	if err != nil {
		return nil, err
	}
	id := member.ID
	if !known {
		if !q.mayAsk() {
			return nil, nil
		}
		live, found, err := r.Live.UserByUsername(ctx, q.realm, name)
		if err != nil || !found {
			return nil, err
		}
		id = live.ID
	}
	a, err := r.event(ctx, d, &adapter.UserApiOrganizationsChanged{
		UserRef: adapter.UserRef{Realm: q.realm, UserID: id}, Joined: []adapter.Organization{organizationOf(p)},
	})
	return []eventstore.StreamAppend{a}, err
}

// effectOf says what an event means for users, nil where for none. Where the event does
// not tell what was changed, Keycloak does: what is believed and no longer there.
func (q *realmQuestions) effectOf(ctx context.Context, p *adapter.AdminEventReceived) (effect, error) {
	path := keycloak.ParseResourcePath(p.ResourcePath)
	rep := named(p.Representation)
	switch p.ResourceType {
	case keycloak.ResourceRealmRole, keycloak.ResourceClientRole:
		if rep.list {
			return nil, nil // roles/{name}/composites, or a role whose name ends so
		}
		if path.Kind == keycloak.PathRoleByID {
			return q.missingRoles(ctx, p, rep)
		}
		return namedRole(p, path, rep), nil
	case keycloak.ResourceClient:
		return clientChange(p, path, rep), nil
	case keycloak.ResourceGroup:
		return q.missingGroups(ctx, p, path, rep)
	case keycloak.ResourceOrganization:
		return leaveOrganization(path.OrganizationID), nil
	case keycloak.ResourceUserLoginFailure:
		return unlock, nil
	case keycloak.ResourceRealm:
		return replaced(path.UserID, rep.Username), nil
	default:
		return nil, nil
	}
}

// namedThing is what representations of roles, groups, clients and users have in common.
type namedThing struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	ClientID string `json:"clientId"`
	Username string `json:"username"`
	list     bool
}

func named(representation json.RawMessage) namedThing {
	var t namedThing
	if json.Unmarshal(representation, &t) != nil {
		t = namedThing{list: strings.HasPrefix(strings.TrimSpace(string(representation)), "[")}
	}
	return t
}

// heldRoles are the roles that a user has of a client, given by its UUID or its
// client_id; realm roles where client is empty.
func heldRoles(u adapter.User, client string) []adapter.Role {
	if client == "" {
		return asRoles(u.Roles, "", "")
	}
	name := cmp.Or(u.ClientIDs[client], client)
	return asRoles(u.ClientRoles[name], client, u.ClientIDs[client])
}

func asRoles(names []string, client, clientID string) []adapter.Role {
	var roles []adapter.Role
	for _, name := range names {
		roles = append(roles, adapter.Role{Name: name, Client: client, ClientID: clientID})
	}
	return roles
}

// namedRole is what the deletion or the renaming of a role means that its path names.
func namedRole(p *adapter.AdminEventReceived, path keycloak.Path, rep namedThing) effect {
	renamed := p.OperationType == keycloak.OperationUpdate
	if renamed && (rep.Name == "" || rep.Name == path.RoleName) {
		return nil
	}
	return func(u adapter.User) adapter.UserPayload {
		for _, role := range heldRoles(u, path.ClientUUID) {
			if role.Name != path.RoleName {
				continue
			}
			change := &adapter.UserApiRolesChanged{UserRef: refOf(u), Removed: []adapter.Role{role}, Via: adapter.ViaRealm}
			if renamed {
				role.Name = rep.Name
				change.Added = []adapter.Role{role}
			}
			return change
		}
		return nil
	}
}

// clientChange is what the deletion of a client means, or a new client_id: its roles
// stay, and are called by another name, which a read tells.
func clientChange(p *adapter.AdminEventReceived, path keycloak.Path, rep namedThing) effect {
	return func(u adapter.User) adapter.UserPayload {
		held := heldRoles(u, path.ClientUUID)
		if len(held) == 0 && rep.ClientID != "" && p.OperationType == keycloak.OperationDelete {
			held = asRoles(u.ClientRoles[rep.ClientID], rep.ClientID, rep.ClientID)
		}
		switch {
		case len(held) == 0:
			return nil
		case p.OperationType == keycloak.OperationDelete:
			return &adapter.UserApiRolesChanged{UserRef: refOf(u), Removed: held, Via: adapter.ViaRealm}
		case rep.ClientID == "" || u.ClientIDs[path.ClientUUID] == rep.ClientID:
			return nil
		default:
			return &adapter.UserApiRolesChanged{UserRef: refOf(u), Unfolded: "a client was given another client_id", Via: adapter.ViaRealm}
		}
	}
}

func leaveOrganization(id string) effect {
	return func(u adapter.User) adapter.UserPayload {
		i := slices.IndexFunc(u.Organizations, func(o adapter.Organization) bool { return o.ID == id })
		if i < 0 {
			return nil
		}
		return &adapter.UserApiOrganizationsChanged{
			UserRef: refOf(u), Left: []adapter.Organization{u.Organizations[i]}, Unfolded: leftOrganization, Via: adapter.ViaRealm,
		}
	}
}

func unlock(u adapter.User) adapter.UserPayload {
	if u.LockedUntil == nil {
		return nil
	}
	return &adapter.UserApiUpdated{UserChange: adapter.UserChange{
		UserRef: refOf(u), Set: adapter.Profile{LockedUntil: adapter.Clear[time.Time]()}, Via: adapter.ViaRealm,
	}}
}

// replaced concerns the user whose name an import gave to another one: such an import
// deletes the old id without an event.
func replaced(id, username string) effect {
	username = strings.ToLower(username)
	return func(u adapter.User) adapter.UserPayload {
		if username == "" || u.ID == id || u.Username != username {
			return nil
		}
		return &adapter.UserApiUpdated{UserChange: adapter.UserChange{
			UserRef: refOf(u), Unfolded: "an import gave the user name to another user", Via: adapter.ViaRealm,
		}}
	}
}
