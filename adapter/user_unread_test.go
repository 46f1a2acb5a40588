package adapter_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// arrived is e as the nth event on the user's stream.
func arrived(n eventstore.Version, e adapter.Decoded) adapter.Decoded {
	e.Version = n
	return e
}

// ours is e as what a command of ours did.
func ours(e adapter.Decoded) adapter.Decoded {
	id := uuid.NameSpaceURL
	e.Meta.CallID = &id
	return e
}

func named(first string) *adapter.UserApiUpdated {
	return &adapter.UserApiUpdated{UserChange: change(adapter.Profile{FirstName: adapter.Set(first)})}
}

func roles(given, taken string) *adapter.UserApiRolesChanged {
	p := &adapter.UserApiRolesChanged{UserRef: ref}
	if given != "" {
		p.Added = []adapter.Role{{Name: given}}
	}
	if taken != "" {
		p.Removed = []adapter.Role{{Name: taken}}
	}
	return p
}

func groups(joined, left string) *adapter.UserApiGroupsChanged {
	p := &adapter.UserApiGroupsChanged{UserRef: ref}
	if joined != "" {
		p.Joined = []adapter.Group{{Path: joined}}
	}
	if left != "" {
		p.Left = []adapter.Group{{Path: left}}
	}
	return p
}

// password is a password that an administrator has set; it is not told whether it is
// temporary where that is nil.
func password(temporary *bool) *adapter.UserApiCredentialsChanged {
	return &adapter.UserApiCredentialsChanged{UserRef: ref, Action: "password_reset", CredentialType: "password", Temporary: temporary}
}

func TestDoubtMakesAReadDue(t *testing.T) {
	t.Parallel()
	seen := func(after time.Duration, first string) adapter.Decoded {
		return happened(after, &adapter.UserApiObserved{UserRef: ref, Present: true, Complete: true, Set: adapter.Profile{
			FirstName: adapter.Set(first), RequiredActions: adapter.Set([]string{}),
		}, Memberships: adapter.Memberships{Roles: adapter.Set([]string{"auditor"})}})
	}
	read := func(after time.Duration, complete bool) adapter.Decoded {
		return happened(after, &adapter.UserApiObserved{UserRef: ref, Present: true, Complete: complete, Set: adapter.Profile{FirstName: adapter.Set("A")}})
	}
	for name, c := range map[string]struct {
		events []adapter.Decoded
		unread bool
	}{
		"changes far apart": {[]adapter.Decoded{arrived(1, happened(0, named("A"))), arrived(2, happened(2*time.Second, named("B")))}, false},
		"changes close by":  {[]adapter.Decoded{arrived(1, happened(0, named("A"))), arrived(2, happened(1999*time.Millisecond, named("B")))}, true},
		"a change right after the creation": {[]adapter.Decoded{
			arrived(1, happened(0, &adapter.UserApiCreated{UserChange: change(adapter.Profile{FirstName: adapter.Set("A")})})),
			arrived(2, happened(time.Millisecond, named("B"))),
		}, false},
		"a creation that arrives after the change": {[]adapter.Decoded{
			arrived(2, happened(0, &adapter.UserApiCreated{UserChange: change(adapter.Profile{FirstName: adapter.Set("A")})})),
			arrived(1, happened(time.Millisecond, named("B"))),
		}, false},
		"a command of ours": {[]adapter.Decoded{arrived(1, happened(0, named("A"))), ours(arrived(2, happened(time.Millisecond, named("B"))))}, false},
		"another's change right after ours": {[]adapter.Decoded{
			ours(arrived(1, happened(0, named("A")))), arrived(2, happened(time.Millisecond, named("B"))),
		}, true},
		"the same value twice": {[]adapter.Decoded{arrived(1, happened(0, named("A"))), arrived(2, happened(time.Millisecond, named("A")))}, false},
		"arrived the other way round": {
			[]adapter.Decoded{arrived(2, happened(0, named("A"))), arrived(1, happened(time.Hour, named("B")))}, true,
		},
		"attributes asked for": {[]adapter.Decoded{arrived(1, happened(0, &adapter.UserApiUpdated{UserChange: adapter.UserChange{
			UserRef: ref, Set: adapter.Profile{Attributes: adapter.Set(map[string][]string{"a": {"b"}})}, Inferred: []string{adapter.FieldAttributes},
		}}))}, true},
		"a client known by UUID only": {[]adapter.Decoded{arrived(1, happened(0, &adapter.UserApiRolesChanged{
			UserRef: ref, Added: []adapter.Role{{Name: "viewer", Client: "9bd4e09f"}},
		}))}, true},
		"something, not told what": {[]adapter.Decoded{arrived(1, happened(0, &adapter.UserApiRolesChanged{UserRef: ref, Unfolded: "no representation"}))}, true},
		"read since": {[]adapter.Decoded{
			arrived(1, happened(0, named("A"))), arrived(2, happened(time.Second, named("B"))), arrived(3, read(2*time.Second, true)),
		}, false},
		"read in part": {[]adapter.Decoded{
			arrived(1, happened(0, named("A"))), arrived(2, happened(time.Second, named("B"))), arrived(3, read(2*time.Second, false)),
		}, true},
		"a role given and taken close by": {[]adapter.Decoded{arrived(1, happened(0, roles("auditor", ""))), arrived(2, happened(time.Second, roles("", "auditor")))}, true},
		"a role taken and given at once":  {[]adapter.Decoded{arrived(1, happened(0, roles("", "auditor"))), arrived(2, happened(0, roles("auditor", "")))}, true},
		"a role given twice":              {[]adapter.Decoded{arrived(1, happened(0, roles("auditor", ""))), arrived(2, happened(time.Second, roles("auditor", "")))}, false},
		"different roles close by":        {[]adapter.Decoded{arrived(1, happened(0, roles("auditor", ""))), arrived(2, happened(time.Second, roles("", "editor")))}, false},
		"a role given, and taken later":   {[]adapter.Decoded{arrived(1, happened(0, roles("auditor", ""))), arrived(2, happened(2*time.Second, roles("", "auditor")))}, false},
		"a role between others": {[]adapter.Decoded{
			arrived(1, happened(0, roles("auditor", ""))), arrived(2, happened(time.Millisecond, roles("editor", ""))), arrived(3, happened(time.Second, roles("", "auditor"))),
		}, true},
		"a role given and taken, arrived the other way round": {
			[]adapter.Decoded{arrived(2, happened(0, roles("auditor", ""))), arrived(1, happened(time.Hour, roles("", "auditor")))}, true,
		},
		"a role that a command of ours takes back": {
			[]adapter.Decoded{arrived(1, happened(0, roles("auditor", ""))), ours(arrived(2, happened(time.Millisecond, roles("", "auditor"))))}, false,
		},
		"a role seen since": {[]adapter.Decoded{
			arrived(1, happened(0, roles("", "auditor"))), arrived(2, happened(time.Second, roles("auditor", ""))), arrived(3, seen(4*time.Second, "A")),
		}, false},
		"a role taken right after it was seen": {[]adapter.Decoded{
			arrived(1, happened(0, roles("auditor", ""))), arrived(2, seen(time.Second, "A")), arrived(3, happened(1500*time.Millisecond, roles("", "auditor"))),
		}, false},
		"a group left and joined close by": {[]adapter.Decoded{arrived(1, happened(0, groups("", "/staff"))), arrived(2, happened(time.Second, groups("/staff", "")))}, true},
		"different groups close by":        {[]adapter.Decoded{arrived(1, happened(0, groups("/staff", ""))), arrived(2, happened(time.Second, groups("", "/guests")))}, false},

		"a password, perhaps temporary":                           {[]adapter.Decoded{arrived(1, seen(0, "A")), arrived(2, happened(time.Hour, password(nil)))}, true},
		"a lasting password":                                      {[]adapter.Decoded{arrived(1, seen(0, "A")), arrived(2, happened(time.Hour, password(new(bool))))}, false},
		"a password, perhaps temporary, of whom nothing is known": {[]adapter.Decoded{arrived(1, happened(0, password(nil)))}, false},

		"a read that does not show what was under way": {[]adapter.Decoded{ours(arrived(1, happened(0, named("B")))), arrived(2, seen(time.Second, "A"))}, true},
		"a read that does not show what was told in part": {
			[]adapter.Decoded{ours(arrived(1, happened(0, password(new(true))))), arrived(2, seen(time.Second, "A"))}, true,
		},
		"a read that shows it": {[]adapter.Decoded{ours(arrived(1, happened(0, named("B")))), arrived(2, seen(time.Second, "B"))}, false},
		"a read long after it": {[]adapter.Decoded{ours(arrived(1, happened(0, named("B")))), arrived(2, seen(2*time.Second, "A"))}, false},
		"gone": {[]adapter.Decoded{
			arrived(1, happened(0, named("A"))), arrived(2, happened(time.Second, named("B"))),
			arrived(3, happened(2*time.Second, &adapter.UserApiDeleted{UserRef: ref})),
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			known := happened(-time.Hour, &adapter.UserApiBaselined{UserRef: ref})
			u := fold(t, append(c.events, known)...)
			require.Equal(t, c.unread, u.Unread != nil, "%+v", u.Unread)
		})
	}
}

// Our clock and Keycloak's are not the same: what happened right after we have created a
// user may seem to have happened before.
func TestWhatSeemsToPrecedeACreation(t *testing.T) {
	t.Parallel()
	created := func(after time.Duration) adapter.Decoded {
		return ours(arrived(1, happened(after, &adapter.UserApiCreated{UserChange: change(adapter.Profile{FirstName: adapter.Set("A")})})))
	}
	gone := arrived(2, happened(0, &adapter.UserApiDeleted{UserRef: ref}))
	require.NotNil(t, fold(t, created(time.Millisecond/2), gone).Unread, "deleted in the same millisecond")
	require.NotNil(t, fold(t, created(time.Millisecond/2), arrived(2, happened(0, named("B")))).Unread)
	require.Nil(t, fold(t, created(time.Hour), gone).Unread, "an import has brought it back")
	require.Nil(t, fold(t, created(0), arrived(2, happened(time.Millisecond, named("B")))).Unread)
	u := fold(t, created(time.Millisecond/2), gone, arrived(3, happened(3*time.Second, &adapter.UserApiObserved{UserRef: ref})))
	require.True(t, u.Deleted, "as the read has found")
}

func TestABurstKeepsItsRivals(t *testing.T) {
	t.Parallel()
	u := fold(t, arrived(1, happened(0, named("A"))), arrived(2, happened(time.Millisecond, named("B"))), arrived(3, happened(2*time.Millisecond, named("C"))))
	origin := u.Origins[adapter.FieldFirstName]
	require.Equal(t, "C", *u.FirstName)
	require.True(t, origin.Allows("A"))
	require.True(t, origin.Allows("B"))
	require.False(t, origin.Allows("D"), "nobody has set that")
	require.False(t, u.Origins[adapter.FieldLastName].Allows(nil))
}

func TestAReadNamesTheClients(t *testing.T) {
	t.Parallel()
	given := &adapter.UserApiRolesChanged{UserRef: ref, Added: []adapter.Role{{Name: "viewer", Client: "uuid-1"}}}
	events := []adapter.Decoded{
		arrived(1, happened(0, given)),
		arrived(2, happened(time.Minute, &adapter.UserApiObserved{UserRef: ref, Present: true, Complete: true, Memberships: adapter.Memberships{
			ClientRoles: adapter.Set(map[string][]string{"shop": {"viewer"}}), Clients: map[string]string{"uuid-1": "shop"},
		}})),
		arrived(3, happened(time.Hour, &adapter.UserApiRolesChanged{UserRef: ref, Added: []adapter.Role{{Name: "editor", Client: "uuid-1"}}})),
	}
	require.Equal(t, map[string][]string{"uuid-1": {"viewer"}}, fold(t, events[0]).ClientRoles)
	u := fold(t, events...)
	require.Equal(t, map[string][]string{"shop": {"editor", "viewer"}}, u.ClientRoles)
	require.Nil(t, u.Unread)
}

func TestListsThatWereNeverSeenWholeStayInferred(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	ref := adapter.UserRef{Realm: "acme", UserID: "1"}
	event := func(after time.Duration, p adapter.Payload) adapter.Decoded {
		return adapter.Decoded{Event: eventstore.Event{ID: eventstore.NewID(), OccurredAt: at.Add(after)}, Payload: p}
	}
	heard := []adapter.Decoded{
		event(time.Hour, &adapter.UserApiRolesChanged{UserRef: ref, Added: []adapter.Role{{Name: "auditor"}, {Name: "b", Client: "c"}, {Name: "a", Client: "c"}}}),
		event(2*time.Hour, &adapter.UserApiGroupsChanged{UserRef: ref, Joined: []adapter.Group{{ID: "g", Path: "/staff"}}}),
		event(3*time.Hour, &adapter.UserApiOrganizationsChanged{UserRef: ref, Joined: []adapter.Organization{{ID: "o", Alias: "moss"}}}),
	}
	fields := []string{adapter.FieldRoles, adapter.FieldClientRoles, adapter.FieldGroups, adapter.FieldOrganizations}
	u, _ := adapter.FoldUser(heard)
	for _, field := range fields {
		require.True(t, u.Origins[field].Inferred, field)
	}
	// A creation settles the roles, and leaves default groups open.
	created := event(0, &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref}})
	u, _ = adapter.FoldUser(append([]adapter.Decoded{created}, heard...))
	require.False(t, u.Origins[adapter.FieldRoles].Inferred)
	require.False(t, u.Origins[adapter.FieldClientRoles].Inferred)
	require.True(t, u.Origins[adapter.FieldGroups].Inferred)
	// A read settles them all.
	read := event(0, &adapter.UserApiBaselined{UserRef: ref, Memberships: adapter.Memberships{
		Roles: adapter.Set([]string{}), ClientRoles: adapter.Set(map[string][]string{}),
		Groups: adapter.Set([]string{}), Organizations: adapter.Set([]adapter.Organization{}),
	}})
	u, _ = adapter.FoldUser(append([]adapter.Decoded{read}, heard...))
	for _, field := range fields {
		require.False(t, u.Origins[field].Inferred, field)
	}
}
