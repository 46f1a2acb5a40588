package adapter

import (
	"maps"
	"reflect"
	"slices"
	"time"
)

// FieldChange is one field's value before and after.
type FieldChange struct {
	Field string `json:"field"`
	Old   any    `json:"old"`
	New   any    `json:"new"`
}

// fieldDeleted is always known: a user of whom there is an event was not deleted before.
const fieldDeleted = "deleted"

type userField struct {
	name string
	get  func(User) any
}

// userFields reads a user's comparable fields, with empty collections and missing
// ones made equal.
var userFields = []userField{
	{FieldUsername, func(u User) any { return u.Username }},
	{FieldEmail, func(u User) any { return deref(u.Email) }},
	{FieldFirstName, func(u User) any { return deref(u.FirstName) }},
	{FieldLastName, func(u User) any { return deref(u.LastName) }},
	{FieldEnabled, func(u User) any { return u.Enabled }},
	{FieldEmailVerified, func(u User) any { return u.EmailVerified }},
	{FieldAttributes, func(u User) any { return cleanAttributes(u.Attributes) }},
	{FieldRequiredActions, func(u User) any { return emptyAsNil(u.RequiredActions) }},
	{FieldRoles, func(u User) any { return emptyAsNil(u.Roles) }},
	{FieldClientRoles, func(u User) any { return cleanAttributes(u.ClientRoles) }},
	{FieldGroups, func(u User) any { return emptyAsNil(u.Groups) }},
	{FieldOrganizations, func(u User) any { return emptyAsNil(u.Organizations) }},
	{FieldLockedUntil, func(u User) any { return deref(u.LockedUntil) }},
	{fieldDeleted, func(u User) any { return u.Deleted }},
}

// DiffUsers returns the fields in which two states of a user differ, all of them or
// only those named. Values are nil where there is none.
func DiffUsers(before, after User, fields ...string) []FieldChange {
	var changes []FieldChange
	for _, f := range userFields {
		if len(fields) > 0 && !slices.Contains(fields, f.name) {
			continue
		}
		o, n := f.get(before), f.get(after)
		if !equal(o, n) {
			changes = append(changes, FieldChange{Field: f.name, Old: o, New: n})
		}
	}
	return changes
}

// learned is DiffUsers for people who were not there: what was not known before has no
// old value, and a field that becomes known is a change even where its value is the
// one that an unknown field happens to have. A list that is not known whole, but of which
// something is believed (a role that was given, an action that a temporary password
// asks for), has that as its old value.
func learned(before, after User) []FieldChange {
	changes := []FieldChange{}
	for _, f := range userFields {
		o, n := f.get(before), f.get(after)
		differs := !equal(o, n)
		if f.name != fieldDeleted && !before.Known(f.name) && !isPart(o) {
			o = nil
			differs = differs || (after.Known(f.name) && n != nil)
		}
		if differs {
			changes = append(changes, FieldChange{Field: f.name, Old: o, New: n})
		}
	}
	return changes
}

// isPart reports whether a value that is not known whole holds something all the same: a
// bare false or empty name does not.
func isPart(v any) bool {
	switch v.(type) {
	case nil, bool, string:
		return false
	}
	return true
}

func equal(a, b any) bool {
	if at, ok := a.(time.Time); ok {
		bt, ok := b.(time.Time)
		return ok && at.Equal(bt)
	}
	return reflect.DeepEqual(a, b)
}

// deref returns what p points to, and an untyped nil for none.
func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func emptyAsNil[T any](s []T) any {
	if len(s) == 0 {
		return nil
	}
	return s
}

// cleanAttributes drops attributes without values, which Keycloak does not keep, and
// returns an untyped nil for an empty map.
func cleanAttributes(m map[string][]string) any {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_ string, v []string) bool { return len(v) == 0 })
	if len(m) == 0 {
		return nil
	}
	return m
}

// HistoryEntry is one event of a user with what it changed.
type HistoryEntry struct {
	View
	// Changes are the old and new values of the fields that the event changed, given
	// everything that occurred before it.
	Changes []FieldChange `json:"changes"`
	// After is the state once the event was folded in. It is not part of the answer.
	After User `json:"-"`
}

// UserHistory lists the events of one user's stream, oldest first in the order of
// the fold, each with old and new values.
func UserHistory(events []Decoded) []HistoryEntry {
	sorted := slices.Clone(events)
	SortForFold(sorted)
	entries := make([]HistoryEntry, 0, len(sorted))
	var u User
	for _, e := range sorted {
		before := u
		before.Origins = maps.Clone(u.Origins)
		u.Apply(e)
		entries = append(entries, HistoryEntry{View: e.View(), Changes: learned(before, u), After: u})
	}
	return entries
}

// UserAsOf folds what occurred until at and was recorded until known; a zero time
// does not limit. It reports false where nothing was known yet.
func UserAsOf(events []Decoded, at, known time.Time) (User, bool) {
	var visible []Decoded
	for _, e := range events {
		if (!at.IsZero() && e.OccurredAt.After(at)) || (!known.IsZero() && e.RecordedAt.After(known)) {
			continue
		}
		visible = append(visible, e)
	}
	return FoldUser(visible)
}
