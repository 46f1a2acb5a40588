package adapter

import (
	"slices"
	"strings"
)

// FieldOrganizations is the name of a user's organizations, as it stands in JSON.
const FieldOrganizations = "organizations"

// UserApiOrganizationsChanged records that a user joined or left organizations.
type UserApiOrganizationsChanged struct {
	UserRef
	Joined []Organization `json:"joined,omitempty"`
	// Left names organizations by id; the alias is empty where it was not told.
	Left []Organization `json:"left,omitempty"`
	// Unfolded says why more than that may have changed; the user is then read.
	Unfolded string `json:"unfolded,omitempty"`
	// Via is ViaRealm or empty.
	Via string `json:"via,omitempty"`
}

// UserApiSessionsEnded records that an administrator ended all of a user's sessions.
// It changes nothing of the user's state.
type UserApiSessionsEnded struct {
	UserRef
	Via string `json:"via,omitempty"`
}

// Kinds of e-mail in UserApiEmailRequested.
const (
	EmailVerify         = "verify_email"
	EmailExecuteActions = "execute_actions"
)

// UserApiEmailRequested records that Keycloak was made to send a user an e-mail. What
// becomes of the e-mail is not known. It changes nothing of the user's state.
type UserApiEmailRequested struct {
	UserRef
	// Email is "verify_email" or "execute_actions".
	Email string `json:"email"`
	Via   string `json:"via,omitempty"`
}

// Names of user events about memberships and sessions.
const (
	TypeUserApiOrganizationsChanged = "UserApiOrganizationsChanged"
	TypeUserApiSessionsEnded        = "UserApiSessionsEnded"
	TypeUserApiEmailRequested       = "UserApiEmailRequested"
)

// EventType implements Payload.
func (*UserApiOrganizationsChanged) EventType() string { return TypeUserApiOrganizationsChanged }

// EventType implements Payload.
func (*UserApiSessionsEnded) EventType() string { return TypeUserApiSessionsEnded }

// EventType implements Payload.
func (*UserApiEmailRequested) EventType() string { return TypeUserApiEmailRequested }

// actionUpdatePassword is the required action that a temporary password brings along
// (UserModel.RequiredAction.UPDATE_PASSWORD).
const actionUpdatePassword = "UPDATE_PASSWORD"

// passwordReset is the action of UserApiCredentialsChanged by which an administrator sets
// a password. Keycloak's event of it has no representation.
const passwordReset = "password_reset"

// changeCredentials folds what a new password does to the required actions: a
// temporary one has to be changed at the next login, a lasting one has not
// (UserResource.java, resetPassword). Where it is not known which it was, what was known
// of the required actions may no longer be so.
func (u *User) changeCredentials(p *UserApiCredentialsChanged, e Decoded) {
	if p.Temporary == nil {
		if p.Action == passwordReset && u.Known(FieldRequiredActions) {
			u.open(e, "a password was set, and it is not told whether it has to be changed")
		}
		return
	}
	if *p.Temporary {
		u.RequiredActions = sortedSet(append(slices.Clone(u.RequiredActions), actionUpdatePassword))
	} else {
		u.RequiredActions = without(u.RequiredActions, actionUpdatePassword)
	}
	// Of a user whose required actions were never seen, these are not all.
	if u.Known(FieldRequiredActions) {
		u.from(FieldRequiredActions, e, u.partly(FieldRequiredActions))
	}
}

func (u *User) changeOrganizations(p *UserApiOrganizationsChanged, e Decoded) {
	if p.Unfolded != "" {
		u.open(e, p.Unfolded)
	}
	u.touch(FieldOrganizations, e, organizationIDs(p.Joined), organizationIDs(p.Left))
	organizations := slices.Clone(u.Organizations)
	for _, o := range slices.Concat(p.Left, p.Joined) {
		organizations = slices.DeleteFunc(organizations, func(have Organization) bool { return have.ID == o.ID })
	}
	u.Organizations = sortOrganizations(append(organizations, p.Joined...))
}

func organizationIDs(organizations []Organization) []string {
	ids := make([]string, 0, len(organizations))
	for _, o := range organizations {
		ids = append(ids, o.ID)
	}
	return ids
}

// sortOrganizations orders organizations by alias, each once; nil for none.
func sortOrganizations(organizations []Organization) []Organization {
	if len(organizations) == 0 {
		return nil
	}
	organizations = slices.Clone(organizations)
	slices.SortFunc(organizations, func(a, b Organization) int { return strings.Compare(a.Alias+"\x00"+a.ID, b.Alias+"\x00"+b.ID) })
	return slices.CompactFunc(organizations, func(a, b Organization) bool { return a.ID == b.ID })
}
