package adapter

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// AuditOutcome says what became of an action.
type AuditOutcome string

// The outcomes: those of calls, and AuditObserved.
const (
	// AuditRequested is a call whose outcome is still to come.
	AuditRequested AuditOutcome = "requested"
	AuditSucceeded AuditOutcome = "succeeded"
	AuditFailed    AuditOutcome = "failed"
	// AuditUnknown is a call that may or may not have been done.
	AuditUnknown AuditOutcome = "unknown"
	// AuditSkipped is a call that a rule refused: nothing was written.
	AuditSkipped AuditOutcome = "skipped"
	// AuditObserved is no action but a look: a read, an adoption or a drift. Nobody is
	// known who made the changes that it shows.
	AuditObserved AuditOutcome = "observed"
)

// AuditEntry is one action in the audit trail: who did what, when, why and through
// what, with old and new values.
type AuditEntry struct {
	// Position, EventID and EventType are those of the event that tells of the action:
	// of a call, of the one that decided how it stands.
	Position   eventstore.Position `json:"position"`
	EventID    uuid.UUID           `json:"event_id"`
	EventType  string              `json:"event_type"`
	OccurredAt time.Time           `json:"occurred_at"`
	RecordedAt time.Time           `json:"recorded_at"`
	Realm      string              `json:"realm"`
	// Actor is who did it, nil where nobody knows.
	Actor *Actor `json:"actor"`
	// Action is what was done: "user.disable" for users, as the command is called that
	// does it, whether keytrail did it or somebody in Keycloak; "CLIENT UPDATE" for
	// Keycloak's admin events about anything else; "UPDATE_PASSWORD_ERROR" for what was
	// refused there; "drift.appeared" for drift.
	Action string `json:"action"`
	// UserID and Username are the user's to whom it was done, by the name that the user
	// had then. They are empty where it was not done to a user or it is not known whom.
	UserID   string `json:"user_id"`
	Username string `json:"username"`
	// ResourcePath is what it was done to, as Keycloak's admin events name it.
	ResourcePath string `json:"resource_path"`
	// Changes are the old and new values, given everything that occurred before; an old
	// value is null where it was not known. It is never null.
	Changes []FieldChange `json:"changes"`
	// Inferred names the fields whose new value was asked for and not read back.
	Inferred []string `json:"inferred,omitempty"`
	// Unfolded says why the event does not tell what was changed. The next observation of
	// the user does.
	Unfolded string `json:"unfolded,omitempty"`
	// Added and Removed are the roles, groups, organizations, credentials and identity
	// providers that were given and taken, whether or not the user had them.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Reason  string   `json:"reason"`
	// Source is through what it came: "cli", "http", "poll", "webhook:NAME". Via says by
	// which way it was done in Keycloak, as in UserChange.
	Source        string       `json:"source"`
	Via           string       `json:"via,omitempty"`
	CorrelationID uuid.UUID    `json:"correlation_id"`
	CallID        *uuid.UUID   `json:"call_id"`
	Outcome       AuditOutcome `json:"outcome"`
	// Code and Error say why it was not done, Keycloak what Keycloak said about it.
	Code     Code   `json:"code"`
	Error    string `json:"error"`
	Keycloak string `json:"keycloak,omitempty"`
}

// AuditFilter selects entries. Conditions are combined with and; zero values select all.
type AuditFilter struct {
	Realm string
	// Actor is an actor's id or exact user name.
	Actor string
	// User is the id of the user to whom it was done, or the user name that they had
	// then, in any case.
	User string
	// Type is a type of event or an action.
	Type string
	// From (inclusive) and To (exclusive) bound when it occurred.
	From, To time.Time
}

// AuditOfUser lists the entries of one user's stream, given in any order, in the order
// of the fold. Not every event has one: see ApplyAudited.
func AuditOfUser(events []Decoded) []AuditEntry {
	sorted := slices.Clone(events)
	SortForFold(sorted)
	var u User
	var entries []AuditEntry
	for _, e := range sorted {
		if entry, ok := u.ApplyAudited(e); ok {
			entries = append(entries, entry)
		}
	}
	return entries
}

// ApplyAudited is Apply and returns what the audit trail says about the event; false
// where that is nothing: of a type that this program does not know, and of a read that
// found what was believed.
func (u *User) ApplyAudited(e Decoded) (AuditEntry, bool) {
	before := *u
	before.Origins = maps.Clone(u.Origins)
	u.Apply(e)
	p, ok := e.Payload.(UserPayload)
	if !ok {
		return AuditEntry{}, false
	}
	a := AuditOf(e)
	ref := p.User()
	a.Realm, a.UserID, a.Username = ref.Realm, ref.UserID, u.Username
	a.Changes = learned(before, *u)
	a.Outcome = AuditSucceeded
	switch p := e.Payload.(type) {
	case *UserApiCreated:
		a.Action = "user.create"
		a.fromChange(p.UserChange)
	case *UserApiUpdated:
		a.Action = updateAction(p.Set)
		a.fromChange(p.UserChange)
	case *UserApiEnabled:
		a.Action = "user.enable"
		a.fromChange(p.UserChange)
	case *UserApiDisabled:
		a.Action = "user.disable"
		a.fromChange(p.UserChange)
	case *UserApiDeleted:
		a.Action, a.Via = "user.delete", p.Via
	case *UserApiRolesChanged:
		kind := "role"
		if slices.ContainsFunc(slices.Concat(p.Added, p.Removed), func(r Role) bool { return r.Client != "" }) {
			kind = "client_role"
		}
		a.Unfolded = p.Unfolded
		a.member(kind, roleNames(p.Added), roleNames(p.Removed))
	case *UserApiGroupsChanged:
		a.member("group", groupNames(p.Joined), groupNames(p.Left))
	case *UserApiOrganizationsChanged:
		a.member("organization", organizationNames(p.Joined), organizationNames(p.Left))
	case *UserApiSessionsEnded:
		a.Action, a.Via = "user.logout", p.Via
	case *UserApiEmailRequested:
		a.Action, a.Via = "user.send_"+p.Email, p.Via
		if p.Email == EmailVerify {
			a.Action = "user.send_verify_email"
		}
	case *UserApiCredentialsChanged:
		a.Action = "user." + p.Action
		if p.Action == passwordReset {
			a.Action = "user.reset_password"
		}
		switch {
		case p.CredentialType == "":
		case p.Action == "credential_removed":
			a.Removed = []string{p.CredentialType}
		default:
			a.Added = []string{p.CredentialType}
		}
	case *UserApiFederatedIdentityChanged:
		if p.Linked {
			a.Action, a.Added = "user.identity_linked", []string{p.Provider}
		} else {
			a.Action, a.Removed = "user.identity_unlinked", []string{p.Provider}
		}
	case *UserApiObserved:
		a.Action, a.Outcome = "user.observe", AuditObserved
		return a, len(a.Changes) > 0
	case *UserApiBaselined:
		a.Action, a.Outcome = "user.baseline", AuditObserved
	default:
		a.Action = e.Type
	}
	return a, true
}

// AuditOf is what every entry says about its event.
func AuditOf(e Decoded) AuditEntry {
	return AuditEntry{
		Position: e.Position, EventID: e.ID, EventType: e.Type,
		OccurredAt: e.OccurredAt.UTC(), RecordedAt: e.RecordedAt.UTC(),
		Actor: e.Meta.Actor, Changes: []FieldChange{}, Reason: e.Meta.Reason, Source: e.Meta.Source,
		CorrelationID: e.CorrelationID, CallID: e.Meta.CallID,
	}
}

func (a *AuditEntry) fromChange(c UserChange) {
	a.Inferred, a.Via, a.Unfolded = c.Inferred, c.Via, c.Unfolded
}

// updateAction tells the updates that are commands of their own from the others.
func updateAction(set Profile) string {
	fields := set.Fields()
	if len(fields) != 1 {
		return "user.update"
	}
	switch fields[0] {
	case FieldRequiredActions:
		return "user.required_actions"
	case FieldLockedUntil:
		if set.LockedUntil.Ptr() == nil {
			return "user.unlock"
		}
		return "user.lock"
	default:
		return "user.update"
	}
}

// member says what a user was given and what was taken, as the command that does one of
// the two is called.
func (a *AuditEntry) member(kind string, added, removed []string) {
	a.Added, a.Removed = added, removed
	switch {
	case len(removed) == 0 && len(added) > 0:
		a.Action = "user." + kind + ".add"
	case len(added) == 0 && len(removed) > 0:
		a.Action = "user." + kind + ".remove"
	default:
		a.Action = "user." + kind + ".change"
	}
}

func roleNames(roles []Role) []string {
	var names []string
	for _, r := range roles {
		name := cmp.Or(r.Name, r.ID)
		if r.Client != "" {
			name = cmp.Or(r.ClientID, r.Client) + "/" + name
		}
		names = append(names, name)
	}
	return names
}

func groupNames(groups []Group) []string {
	var names []string
	for _, g := range groups {
		names = append(names, cmp.Or(g.Path, g.ID))
	}
	return names
}

func organizationNames(organizations []Organization) []string {
	var names []string
	for _, o := range organizations {
		names = append(names, cmp.Or(o.Alias, o.ID))
	}
	return names
}
