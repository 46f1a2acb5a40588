package adapter

import "time"

// Profile is the set of profile fields that a change touches. Absent fields are
// unchanged, null ones cleared.
type Profile struct {
	Username        Optional[string]              `json:"username,omitzero"`
	Email           Optional[string]              `json:"email,omitzero"`
	FirstName       Optional[string]              `json:"first_name,omitzero"`
	LastName        Optional[string]              `json:"last_name,omitzero"`
	Enabled         Optional[bool]                `json:"enabled,omitzero"`
	EmailVerified   Optional[bool]                `json:"email_verified,omitzero"`
	Attributes      Optional[map[string][]string] `json:"attributes,omitzero"`
	RequiredActions Optional[[]string]            `json:"required_actions,omitzero"`
	LockedUntil     Optional[time.Time]           `json:"locked_until,omitzero"`
}

// Droppable names the fields of a request that Keycloak may drop, in whole or in part,
// without an error: attributes that the user profile does not manage, and required actions
// that it does not know (26.7.3, measured).
func (p Profile) Droppable() []string {
	var fields []string
	if p.Attributes.Present() {
		fields = append(fields, FieldAttributes)
	}
	if actions, _ := p.RequiredActions.Get(); len(actions) > 0 {
		fields = append(fields, FieldRequiredActions)
	}
	return fields
}

// droppedSilently is why such a field is to be read back.
var droppedSilently = map[string]string{
	FieldAttributes:      "attributes that the user profile does not manage are dropped silently",
	FieldRequiredActions: "required actions that Keycloak does not know are dropped silently",
}

// UserRef names the user that an event is about.
type UserRef struct {
	Realm  string `json:"realm"`
	UserID string `json:"user_id"`
}

// User returns the reference itself; embedding it makes a payload a UserPayload.
func (r UserRef) User() UserRef { return r }

// UserChange is what the profile events carry: the fields that were set, as sent.
type UserChange struct {
	UserRef
	Set Profile `json:"set" seal:"profile"`
	// PatchAttributes changes single attributes and leaves the others; an empty list
	// removes one. Set.Attributes replaces them all.
	PatchAttributes map[string][]string `json:"patch_attributes,omitempty" seal:"attributes"`
	// Inferred names the fields whose value follows from the request and was not read
	// back: see Profile.Droppable.
	Inferred []string `json:"inferred,omitempty"`
	// Unfolded says why the event does not tell what was changed; the user is then read.
	Unfolded string `json:"unfolded,omitempty"`
	// Via says by which way the change came: "admin", "registration", "account",
	// "import", "command", "email_verification", "lockout", "realm" (ViaRealm).
	Via string `json:"via,omitempty"`
}

// ViaRealm marks an event that follows from a change that Keycloak reports once for the
// realm, such as the deletion of a role, and not for each user.
const ViaRealm = "realm"

// UserApiCreated records that a user came to be.
type UserApiCreated struct {
	UserChange
	// Groups are the full paths given on creation (no membership event follows).
	Groups []string `json:"groups,omitempty"`
	// Partial is true where the representation was missing: what Set does not mention
	// is then unknown, and not Keycloak's default.
	Partial bool `json:"partial,omitempty"`
}

// UserApiUpdated records that profile fields were changed.
type UserApiUpdated struct{ UserChange }

// UserApiEnabled records that a user was enabled, with whatever else the same
// request set.
type UserApiEnabled struct{ UserChange }

// UserApiDisabled records that a user was disabled, with whatever else the same
// request set.
type UserApiDisabled struct{ UserChange }

// UserApiDeleted records that a user is gone.
type UserApiDeleted struct {
	UserRef
	Via string `json:"via,omitempty"`
}

// Role is a realm role, or a client role where Client is set.
type Role struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
	// Client is the client's internal UUID.
	Client string `json:"client,omitempty"`
	// ClientID is its client_id, where that is known.
	ClientID string `json:"client_id,omitempty"`
}

// UserApiRolesChanged records that roles were given directly or taken.
type UserApiRolesChanged struct {
	UserRef
	Added   []Role `json:"added,omitempty"`
	Removed []Role `json:"removed,omitempty"`
	// Unfolded says why the event does not tell which roles; the user is then read.
	Unfolded string `json:"unfolded,omitempty"`
	// Via is ViaRealm or empty.
	Via string `json:"via,omitempty"`
}

// Group is a group by id and full path.
type Group struct {
	ID   string `json:"id,omitempty"`
	Path string `json:"path,omitempty"`
}

// UserApiGroupsChanged records that a user joined or left groups.
type UserApiGroupsChanged struct {
	UserRef
	Joined []Group `json:"joined,omitempty"`
	Left   []Group `json:"left,omitempty"`
	// Unfolded says why the event does not tell which groups; the user is then read.
	Unfolded string `json:"unfolded,omitempty"`
	// Via is ViaRealm or empty.
	Via string `json:"via,omitempty"`
}

// UserApiCredentialsChanged records that a credential was set, reset or removed. It
// never holds the credential.
type UserApiCredentialsChanged struct {
	UserRef
	// Action is "password_reset", "password_updated", "credential_updated",
	// "credential_removed".
	Action string `json:"action"`
	// CredentialType is Keycloak's word, such as "password" or "otp".
	CredentialType string `json:"credential_type,omitempty"`
	CredentialID   string `json:"credential_id,omitempty"`
	// Temporary says whether a password that was reset has to be changed at the next
	// login; nil where that is not known: Keycloak's own event does not tell.
	Temporary *bool `json:"temporary,omitempty"`
}

// UserApiFederatedIdentityChanged records that an account at an identity provider was
// linked or unlinked. Keycloak reports it as USER CREATE and USER DELETE on a
// sub-path; the user is neither created nor deleted.
type UserApiFederatedIdentityChanged struct {
	UserRef
	Provider string `json:"provider"`
	Linked   bool   `json:"linked"`
}

// UserApiObserved records a targeted read of a user. It wins over all that occurred
// before the read was sent.
type UserApiObserved struct {
	UserRef
	// Present is false where Keycloak said that the user does not exist.
	Present bool    `json:"present"`
	Set     Profile `json:"set" seal:"profile"`
	Memberships
	// Complete is true for a read of all that is folded. It settles what events left
	// open; one of some fields does not.
	Complete bool `json:"complete,omitempty"`
	// CreatedAt is Keycloak's creation time of the user.
	CreatedAt *time.Time `json:"user_created_at,omitempty"`
	// Because says why it was read.
	Because string `json:"because,omitempty"`
}

// UserApiBaselined records that a live user was adopted as the starting point.
type UserApiBaselined struct {
	UserRef
	Set Profile `json:"set" seal:"profile"`
	Memberships
	CreatedAt *time.Time `json:"user_created_at,omitempty"`
	RunID     string     `json:"run_id,omitempty"`
}

// Names of user events.
const (
	TypeUserApiCreated                  = "UserApiCreated"
	TypeUserApiUpdated                  = "UserApiUpdated"
	TypeUserApiEnabled                  = "UserApiEnabled"
	TypeUserApiDisabled                 = "UserApiDisabled"
	TypeUserApiDeleted                  = "UserApiDeleted"
	TypeUserApiRolesChanged             = "UserApiRolesChanged"
	TypeUserApiGroupsChanged            = "UserApiGroupsChanged"
	TypeUserApiCredentialsChanged       = "UserApiCredentialsChanged"
	TypeUserApiFederatedIdentityChanged = "UserApiFederatedIdentityChanged"
	TypeUserApiObserved                 = "UserApiObserved"
	TypeUserApiBaselined                = "UserApiBaselined"
)

// EventType implements Payload.
func (*UserApiCreated) EventType() string { return TypeUserApiCreated }

// EventType implements Payload.
func (*UserApiUpdated) EventType() string { return TypeUserApiUpdated }

// EventType implements Payload.
func (*UserApiEnabled) EventType() string { return TypeUserApiEnabled }

// EventType implements Payload.
func (*UserApiDisabled) EventType() string { return TypeUserApiDisabled }

// EventType implements Payload.
func (*UserApiDeleted) EventType() string { return TypeUserApiDeleted }

// EventType implements Payload.
func (*UserApiRolesChanged) EventType() string { return TypeUserApiRolesChanged }

// EventType implements Payload.
func (*UserApiGroupsChanged) EventType() string { return TypeUserApiGroupsChanged }

// EventType implements Payload.
func (*UserApiCredentialsChanged) EventType() string { return TypeUserApiCredentialsChanged }

// EventType implements Payload.
func (*UserApiFederatedIdentityChanged) EventType() string {
	return TypeUserApiFederatedIdentityChanged
}

// EventType implements Payload.
func (*UserApiObserved) EventType() string { return TypeUserApiObserved }

// EventType implements Payload.
func (*UserApiBaselined) EventType() string { return TypeUserApiBaselined }

// UserPayload is the payload of an event on a user's stream.
type UserPayload interface {
	Payload
	User() UserRef
}
