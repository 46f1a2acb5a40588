package adapter

import (
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// UserView is a user as the API and the command line show it: what the fold keeps for
// itself is left out, collections are never null, times are UTC.
type UserView struct {
	Realm     string  `json:"realm"`
	ID        string  `json:"id"`
	Username  string  `json:"username"`
	Email     *string `json:"email"`
	FirstName *string `json:"first_name"`
	LastName  *string `json:"last_name"`
	// Enabled and EmailVerified are null where no event has told them yet.
	Enabled         *bool               `json:"enabled"`
	EmailVerified   *bool               `json:"email_verified"`
	Attributes      map[string][]string `json:"attributes"`
	RequiredActions []string            `json:"required_actions"`
	Roles           []string            `json:"roles"`
	ClientRoles     map[string][]string `json:"client_roles"`
	Groups          []string            `json:"groups"`
	Organizations   []Organization      `json:"organizations"`
	LockedUntil     *time.Time          `json:"locked_until"`
	CreatedAt       *time.Time          `json:"created_at"`
	CreatedBy       *Actor              `json:"created_by"`
	UpdatedAt       *time.Time          `json:"updated_at"`
	Deleted         bool                `json:"deleted"`
	DeletedAt       *time.Time          `json:"deleted_at"`
	Version         eventstore.Version  `json:"version"`
	// Unread is there while events have left open what the user looks like, so that it is
	// to be read back.
	Unread *UnreadView `json:"unread,omitempty"`
}

// UnreadView says since when a user is to be read back, and why.
type UnreadView struct {
	Since   time.Time `json:"since"`
	Because string    `json:"because"`
}

// View returns the user in its outside form. It shares collections with u.
func (u User) View() UserView {
	var unread *UnreadView
	if u.Unread != nil {
		unread = &UnreadView{Since: u.Unread.Since.UTC(), Because: u.Unread.Because}
	}
	return UserView{
		Realm: u.Realm, ID: u.ID, Username: u.Username,
		Email: u.Email, FirstName: u.FirstName, LastName: u.LastName,
		Enabled: u.ifKnown(FieldEnabled, u.Enabled), EmailVerified: u.ifKnown(FieldEmailVerified, u.EmailVerified),
		Attributes: filledMap(u.Attributes), RequiredActions: filled(u.RequiredActions),
		Roles: filled(u.Roles), ClientRoles: filledMap(u.ClientRoles), Groups: filled(u.Groups),
		Organizations: filled(u.Organizations),
		LockedUntil:   inUTC(u.LockedUntil), CreatedAt: inUTC(u.CreatedAt), CreatedBy: u.CreatedBy,
		UpdatedAt: inUTC(u.UpdatedAt), Deleted: u.Deleted, DeletedAt: inUTC(u.DeletedAt), Version: u.Version, Unread: unread,
	}
}

func (u User) ifKnown(field string, value bool) *bool {
	if !u.Known(field) {
		return nil
	}
	return &value
}

func filled[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func filledMap(m map[string][]string) map[string][]string {
	out := make(map[string][]string, len(m))
	for name, values := range m {
		out[name] = filled(values)
	}
	return out
}

func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	utc := t.UTC()
	return &utc
}
