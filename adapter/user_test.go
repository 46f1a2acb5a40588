package adapter_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

var ref = adapter.UserRef{Realm: "acme", UserID: "1"}

func change(set adapter.Profile) adapter.UserChange {
	return adapter.UserChange{UserRef: ref, Set: set}
}

// happened is a user event that occurred so long after the start.
func happened(after time.Duration, p adapter.Payload) adapter.Decoded {
	id := eventstore.DerivedID(uuid.NameSpaceOID, start, p.EventType()+after.String(), 0)
	return adapter.Decoded{Event: eventstore.Event{ID: id, Type: p.EventType(), OccurredAt: start.Add(after)}, Payload: p}
}

func fold(t require.TestingT, events ...adapter.Decoded) adapter.User {
	u, ok := adapter.FoldUser(events)
	require.True(t, ok)
	return u
}

func TestLateIsNotNew(t *testing.T) {
	t.Parallel()
	u := fold(t,
		happened(2*time.Second, &adapter.UserApiUpdated{UserChange: change(adapter.Profile{FirstName: adapter.Set("New")})}),
		happened(time.Second, &adapter.UserApiUpdated{UserChange: change(adapter.Profile{FirstName: adapter.Set("Old"), LastName: adapter.Set("Stone")})}),
		happened(0, &adapter.UserApiCreated{UserChange: change(adapter.Profile{Username: adapter.Set("Bob")})}),
	)
	require.Equal(t, "New", *u.FirstName)
	require.Equal(t, "Stone", *u.LastName)
	require.Equal(t, "bob", u.Username, "Keycloak keeps names in lower case")
	require.Equal(t, start, u.CreatedAt.UTC())
	require.EqualValues(t, 3, u.Version)
}

func TestAnIDMayComeBack(t *testing.T) {
	t.Parallel()
	u := fold(t,
		happened(0, &adapter.UserApiCreated{UserChange: change(adapter.Profile{Username: adapter.Set("bob"), Email: adapter.Set("b@x.org")})}),
		happened(time.Second, &adapter.UserApiRolesChanged{UserRef: ref, Added: []adapter.Role{{Name: "auditor"}}}),
		happened(2*time.Second, &adapter.UserApiDeleted{UserRef: ref}),
		happened(3*time.Second, &adapter.UserApiCreated{UserChange: change(adapter.Profile{Username: adapter.Set("bob")})}),
	)
	require.False(t, u.Deleted)
	require.Nil(t, u.Email)
	require.Empty(t, u.Roles)
}

func TestOfOneMillisecondTheCreationIsFirstAndTheDeletionLast(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		change := happened(0, &adapter.UserApiUpdated{UserChange: change(adapter.Profile{FirstName: adapter.Set("New")})})
		change.ID = eventstore.DerivedID(uuid.NameSpaceOID, start, "tie", i)
		u := fold(t,
			happened(0, &adapter.UserApiDeleted{UserRef: ref}), change,
			happened(0, &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref, Set: adapter.Profile{FirstName: adapter.Set("Old")}}}),
		)
		require.True(t, u.Deleted)
		require.Equal(t, "New", *u.FirstName)
	}
}

func TestAReadThatConfirmsLeavesTheOrigin(t *testing.T) {
	t.Parallel()
	created := happened(0, &adapter.UserApiCreated{UserChange: adapter.UserChange{
		UserRef: ref, Set: adapter.Profile{Username: adapter.Set("bob"), Attributes: adapter.Set(map[string][]string{"dept": {"ops"}})},
		Inferred: []string{adapter.FieldAttributes},
	}})
	read := happened(time.Minute, &adapter.UserApiObserved{UserRef: ref, Present: true, Set: adapter.Profile{
		Username: adapter.Set("bob"), Attributes: adapter.Set(map[string][]string{}),
	}})
	u := fold(t, created)
	require.True(t, u.Origins[adapter.FieldAttributes].Inferred)
	u = fold(t, created, read)
	require.Equal(t, created.ID, u.Origins[adapter.FieldUsername].EventID)
	require.Equal(t, read.ID, u.Origins[adapter.FieldAttributes].EventID)
	require.Empty(t, u.Attributes)
}

func TestRequiredActionsThatMayBeDroppedAreReadBack(t *testing.T) {
	t.Parallel()
	set := func(after time.Duration, actions ...string) adapter.Decoded {
		c := change(adapter.Profile{RequiredActions: adapter.Set(actions)})
		c.Inferred = c.Set.Droppable()
		return happened(after, &adapter.UserApiUpdated{UserChange: c})
	}
	created := happened(0, &adapter.UserApiCreated{UserChange: change(adapter.Profile{Username: adapter.Set("bob")})})
	u := fold(t, created, set(time.Minute, "NOPE", "VERIFY_EMAIL"))
	require.NotNil(t, u.Unread)
	require.Contains(t, u.Unread.Because, "required actions")
	require.True(t, u.Origins[adapter.FieldRequiredActions].Inferred)

	temporary := true
	u = fold(t, created, set(time.Minute, "NOPE"), happened(2*time.Minute, &adapter.UserApiCredentialsChanged{UserRef: ref, Temporary: &temporary}))
	require.Equal(t, []string{"NOPE", "UPDATE_PASSWORD"}, u.RequiredActions)
	require.True(t, u.Origins[adapter.FieldRequiredActions].Inferred, "what was not read back is not by what is added to it")

	u = fold(t, created, set(time.Minute))
	require.Nil(t, u.Unread, "none at all can be dropped")
	require.False(t, u.Origins[adapter.FieldRequiredActions].Inferred)
}

func TestOnlySomeOfUnknownAttributesAreNotAll(t *testing.T) {
	t.Parallel()
	u := fold(t, happened(0, &adapter.UserApiUpdated{UserChange: adapter.UserChange{
		UserRef: ref, PatchAttributes: map[string][]string{"locale": {"de"}},
	}}))
	require.Equal(t, []string{"de"}, u.Attributes["locale"])
	require.False(t, u.Known(adapter.FieldAttributes))
}

func TestUserAsOf(t *testing.T) {
	t.Parallel()
	events := []adapter.Decoded{
		happened(0, &adapter.UserApiCreated{UserChange: change(adapter.Profile{Username: adapter.Set("bob"), Enabled: adapter.Set(true)})}),
		happened(time.Hour, &adapter.UserApiDisabled{UserChange: change(adapter.Profile{Enabled: adapter.Set(false)})}),
	}
	_, known := adapter.UserAsOf(events, start.Add(-time.Nanosecond), time.Time{})
	require.False(t, known)
	then, known := adapter.UserAsOf(events, start.Add(time.Hour-time.Nanosecond), time.Time{})
	require.True(t, known)
	require.True(t, then.Enabled)
	now, _ := adapter.UserAsOf(events, start.Add(time.Hour), time.Time{})
	require.False(t, now.Enabled)
}

func TestHistoryTellsOldAndNew(t *testing.T) {
	t.Parallel()
	entries := adapter.UserHistory([]adapter.Decoded{
		happened(time.Second, &adapter.UserApiDisabled{UserChange: change(adapter.Profile{Enabled: adapter.Set(false), Email: adapter.Clear[string]()})}),
		happened(0, &adapter.UserApiCreated{UserChange: change(adapter.Profile{Username: adapter.Set("bob"), Enabled: adapter.Set(true), Email: adapter.Set("B@x.org")})}),
	})
	require.Len(t, entries, 2)
	require.Equal(t, []adapter.FieldChange{
		{Field: "email", Old: "b@x.org", New: nil}, {Field: "enabled", Old: true, New: false},
	}, entries[1].Changes)
}

// anyEvents draws a user's events, with times that collide.
func anyEvents(t *rapid.T) []adapter.Decoded {
	texts := rapid.SampledFrom([]string{"", "a", "B", "ann@x.org"})
	profile := func() adapter.Profile {
		var p adapter.Profile
		for _, f := range []*adapter.Optional[string]{&p.Username, &p.Email, &p.FirstName, &p.LastName} {
			switch rapid.IntRange(0, 2).Draw(t, "field") {
			case 1:
				*f = adapter.Set(texts.Draw(t, "text"))
			case 2:
				*f = adapter.Clear[string]()
			}
		}
		if rapid.Bool().Draw(t, "enabled is set") {
			p.Enabled = adapter.Set(rapid.Bool().Draw(t, "enabled"))
		}
		if rapid.Bool().Draw(t, "attributes are set") {
			p.Attributes = adapter.Set(map[string][]string{texts.Draw(t, "name"): {texts.Draw(t, "value")}})
		}
		return p
	}
	roles := func() []adapter.Role {
		return []adapter.Role{{Name: texts.Draw(t, "role"), Client: rapid.SampledFrom([]string{"", "c1"}).Draw(t, "client")}}
	}
	events := make([]adapter.Decoded, rapid.IntRange(1, 12).Draw(t, "events"))
	for i := range events {
		var p adapter.Payload
		switch rapid.IntRange(0, 7).Draw(t, "type") {
		case 0:
			p = &adapter.UserApiCreated{UserChange: change(profile())}
		case 1:
			p = &adapter.UserApiUpdated{UserChange: change(profile())}
		case 2:
			p = &adapter.UserApiDeleted{UserRef: ref}
		case 3:
			p = &adapter.UserApiRolesChanged{UserRef: ref, Added: roles()}
		case 4:
			p = &adapter.UserApiRolesChanged{UserRef: ref, Removed: roles()}
		case 5:
			p = &adapter.UserApiGroupsChanged{UserRef: ref, Joined: []adapter.Group{{Path: texts.Draw(t, "path")}}}
		case 6:
			p = &adapter.UserApiObserved{UserRef: ref, Present: rapid.Bool().Draw(t, "present"), Set: profile()}
		default:
			p = &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: ref, PatchAttributes: map[string][]string{texts.Draw(t, "name"): nil}}}
		}
		events[i] = happened(time.Duration(rapid.IntRange(0, 4).Draw(t, "at"))*time.Second, p)
		events[i].ID = uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
	}
	return events
}

// However the events come, the user is the same; and folding one by one is folding all
// at once, as long as each follows.
func TestFoldDoesNotDependOnTheOrderOfArrival(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		events := anyEvents(t)
		want := fold(t, events...)
		require.Equal(t, want, fold(t, rapid.Permutation(events).Draw(t, "order")...))

		adapter.SortForFold(events)
		var u adapter.User
		for _, e := range events {
			require.True(t, u.Follows(e.Event) || adapter.StampOf(e.Event) == u.Last)
			u.Apply(e)
		}
		require.Equal(t, want, u)
	})
}

// The state as of a moment is the replay cut at that moment.
func TestAsOfIsACutReplay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		events := anyEvents(t)
		at := start.Add(time.Duration(rapid.IntRange(-1, 5).Draw(t, "at")) * time.Second)
		var cut []adapter.Decoded
		for _, e := range events {
			if !e.OccurredAt.After(at) {
				cut = append(cut, e)
			}
		}
		want, known := adapter.FoldUser(cut)
		got, ok := adapter.UserAsOf(events, at, time.Time{})
		require.Equal(t, known, ok)
		require.Equal(t, want, got)
	})
}

// What is believed of a field is its old value, also where it is not known whole.
func TestHistoryOfAFieldKnownInPart(t *testing.T) {
	t.Parallel()
	temporary := true
	events := []adapter.Decoded{
		happened(0, &adapter.UserApiCredentialsChanged{UserRef: ref, Action: "password_reset", CredentialType: "password", Temporary: &temporary}),
		happened(time.Hour, &adapter.UserApiUpdated{UserChange: change(adapter.Profile{RequiredActions: adapter.Set([]string{"VERIFY_EMAIL"})})}),
		happened(2*time.Hour, &adapter.UserApiRolesChanged{UserRef: ref, Added: []adapter.Role{{Name: "auditor"}}}),
		happened(3*time.Hour, &adapter.UserApiObserved{UserRef: ref, Present: true, Memberships: adapter.Memberships{Roles: adapter.Set([]string{"auditor", "clerk"})}}),
		happened(4*time.Hour, &adapter.UserApiUpdated{UserChange: change(adapter.Profile{Enabled: adapter.Set(false)})}),
	}
	changes := make([][]adapter.FieldChange, 0, len(events))
	for _, e := range adapter.UserHistory(events) {
		changes = append(changes, e.Changes)
	}
	require.Equal(t, [][]adapter.FieldChange{
		{{Field: adapter.FieldRequiredActions, Old: nil, New: []string{"UPDATE_PASSWORD"}}},
		{{Field: adapter.FieldRequiredActions, Old: []string{"UPDATE_PASSWORD"}, New: []string{"VERIFY_EMAIL"}}},
		{{Field: adapter.FieldRoles, Old: nil, New: []string{"auditor"}}},
		{{Field: adapter.FieldRoles, Old: []string{"auditor"}, New: []string{"auditor", "clerk"}}},
		{{Field: adapter.FieldEnabled, Old: nil, New: false}},
	}, changes)
	for i, entry := range adapter.AuditOfUser(events) {
		require.Equal(t, changes[i], entry.Changes)
	}
}
