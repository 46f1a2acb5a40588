package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// staffed is a world of some users with roles, groups and organizations, adopted. With
// many users the lists are swept, with few each user is read alone.
func staffed(t *testing.T, users int) *world {
	t.Helper()
	w := newWorld(t)
	w.keycloak.memberships(func(m *fakeMembers) {
		m.roles["auditor"], m.roles["default-roles-acme"] = []string{"u00", "u01"}, []string{"u00", "u01", "u02"}
		m.clientRoles["crm"] = map[string][]string{"read": {"u00"}, "write": {"u00", "u01"}}
		m.groups["/staff"], m.groups["/staff/night"] = []string{"u01"}, []string{"u00", "u01"}
		m.organizations["moss"] = []string{"u00"}
	})
	var people []keycloak.User
	for i := range users {
		people = append(people, person(fmt.Sprintf("u%02d", i), fmt.Sprintf("user%02d", i)))
	}
	w.baselined(people...)
	require.NoError(t, w.projection.CatchUp(t.Context(), realm))
	return w
}

// sizes are how many users make a run read each alone, and sweep.
var sizes = map[string]int{"alone": 3, "swept": 60}

func bothWays(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	for name, users := range sizes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := staffed(t, users)
			require.Equal(t, name == "swept", w.keycloak.asked("roles/auditor") > 0)
			require.Equal(t, name == "alone", w.keycloak.asked("user/roles") > 0)
			w.keycloak.memberships(func(m *fakeMembers) { m.lists = nil })
			test(t, w)
		})
	}
}

func fieldsOf(f adapter.Finding) []string {
	var names []string
	for _, d := range f.Fields {
		names = append(names, d.Field)
	}
	return names
}

func TestMembershipsAreAdopted(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		u := w.projection.users["u00"]
		require.Equal(t, []string{"auditor"}, u.Roles)
		require.Equal(t, map[string][]string{"crm": {"read", "write"}}, u.ClientRoles)
		require.Equal(t, []string{"/staff/night"}, u.Groups)
		require.Equal(t, []adapter.Organization{{ID: "org-moss", Alias: "moss"}}, u.Organizations)
		require.Equal(t, "crm", u.ClientIDs["uuid-crm"])
		none := w.projection.users["u02"]
		for _, field := range membershipFields {
			require.True(t, none.Known(field), field)
			require.False(t, none.Origins[field].Inferred, field)
		}
		res := w.run()
		require.Equal(t, InSync, res.Verdict)
		require.Zero(t, res.Observed)
		require.Equal(t, comparedFields, res.ComparedFields)
		require.Empty(t, res.NotCompared)
		require.Empty(t, w.keycloak.reads)
	})
}

func TestMembershipsDrift(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		given := w.happened(w.clock.Now(), &adapter.UserApiRolesChanged{UserRef: ref("u00"), Added: []adapter.Role{{Name: "manager"}}})
		w.keycloak.memberships(func(m *fakeMembers) { m.roles["manager"] = []string{"u00"} })
		w.clock.advance(time.Hour)
		require.Equal(t, InSync, w.run().Verdict)

		w.keycloak.memberships(func(m *fakeMembers) {
			m.roles["auditor"], m.roles["visitor"] = []string{"u01"}, []string{"u00"}
			m.clientRoles["crm"]["read"], m.clientRoles["account"]["view"] = nil, []string{"u00"}
			m.groups["/staff"], m.groups["/staff/night"] = []string{"u00", "u01"}, []string{"u01"}
			m.organizations["moss"], m.organizations["fern"] = nil, []string{"u00"}
		})
		res := w.run()
		require.Len(t, res.Findings, 1)
		f := res.Findings[0]
		require.Equal(t, adapter.SituationChanged, f.Situation)
		require.Equal(t, membershipFields, fieldsOf(f))
		roles := f.Fields[0]
		require.JSONEq(t, `["auditor","manager"]`, string(roles.Believed))
		require.JSONEq(t, `["manager","visitor"]`, string(roles.Actual))
		require.Equal(t, []string{"visitor"}, roles.Added)
		require.Equal(t, []string{"auditor"}, roles.Removed)
		require.Equal(t, given.ID, *roles.LastChangedEvent)
		require.Equal(t, "alice", roles.LastChangedBy)
		require.JSONEq(t, `{"crm":["read","write"]}`, string(f.Fields[1].Believed))
		require.Equal(t, []string{"account/view"}, f.Fields[1].Added)
		require.Equal(t, []string{"crm/read"}, f.Fields[1].Removed)
		require.Equal(t, []string{"/staff"}, f.Fields[2].Added)
		require.Equal(t, []string{"/staff/night"}, f.Fields[2].Removed)
		require.Equal(t, []string{"fern"}, f.Fields[3].Added)
		require.Equal(t, []string{"moss"}, f.Fields[3].Removed)
		require.Equal(t, []string{"u00"}, w.keycloak.reads, "one suspect is read alone")

		require.Equal(t, res.Findings, w.run().Findings)
		require.Len(t, w.keycloak.reads, 1, "a known drift needs no second read")

		w.happened(w.clock.Now(), &adapter.UserApiObserved{UserRef: ref("u00"), Present: true, Memberships: rolesOf(keycloak.RoleMappings{
			RealmMappings: []keycloak.Role{{Name: "manager"}, {Name: "visitor"}},
			ClientMappings: map[string]keycloak.ClientRoles{
				"crm":     {ID: "uuid-crm", Client: "crm", Mappings: []keycloak.Role{{Name: "write"}}},
				"account": {ID: "uuid-account", Client: "account", Mappings: []keycloak.Role{{Name: "view"}}},
			},
		})})
		require.Equal(t, []string{adapter.FieldGroups, adapter.FieldOrganizations}, fieldsOf(w.run().Findings[0]))
		w.keycloak.memberships(func(m *fakeMembers) {
			m.groups["/staff"], m.groups["/staff/night"] = []string{"u01"}, []string{"u00", "u01"}
			m.organizations["moss"], m.organizations["fern"] = []string{"u00"}, nil
		})
		require.Equal(t, InSync, w.run().Verdict)
		require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftAltered, adapter.DriftEnded}, w.phases("u00"))
	})
}

func TestMembershipsSettleFirst(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		w.happened(w.clock.Now(), &adapter.UserApiGroupsChanged{UserRef: ref("u02"), Joined: []adapter.Group{{ID: "/staff", Path: "/staff"}}})
		res := w.run()
		require.Equal(t, InSync, res.Verdict)
		require.Equal(t, 1, res.Unsettled)
		require.Equal(t, []string{adapter.FieldGroups}, fieldsOf(res.Pending[0]))
		w.clock.advance(time.Hour)
		require.Equal(t, Drift, w.run().Verdict)
		w.calls["u02"] = w.clock.Now()
		res = w.run()
		require.Equal(t, 1, res.FindingsTotal+res.Unsettled)
	})
}

// A role that is given between the sweep and the judgement, or of which the event
// arrives meanwhile, is no drift.
func TestMembershipsThatMovedMeanwhile(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.keycloak.memberships(func(m *fakeMembers) { m.roles["visitor"] = []string{"u02"} })
	w.keycloak.onUser = func(string) {
		w.keycloak.memberships(func(m *fakeMembers) { m.roles["visitor"] = nil })
	}
	require.Equal(t, InSync, w.run().Verdict)
	require.Equal(t, []string{"u02"}, w.keycloak.reads)

	w.keycloak.onUser = nil
	w.keycloak.memberships(func(m *fakeMembers) {
		m.roles["visitor"] = []string{"u02"}
		m.onList = func(list string) {
			if list == "user/roles" {
				w.happened(w.clock.Now().Add(-time.Hour), &adapter.UserApiRolesChanged{UserRef: ref("u02"), Added: []adapter.Role{{Name: "visitor"}}})
			}
		}
	})
	w.clock.advance(2 * time.Hour)
	require.Equal(t, InSync, w.run().Verdict)
}

func TestDefaultGroupsAreAdopted(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		fresh := person("new", "zoe")
		fresh.CreatedTimestamp = ptr(w.clock.Now().UnixMilli())
		w.keycloak.put(fresh)
		w.keycloak.memberships(func(m *fakeMembers) {
			m.groups["/welcome"], m.groups["/staff"] = []string{"new"}, []string{"u01", "new"}
		})
		at := w.clock.Now()
		created := w.happened(at, &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref("new"), Set: profileOf(fresh, true)}})
		joined := w.happened(at.Add(5*time.Second), &adapter.UserApiGroupsChanged{UserRef: ref("new"), Joined: []adapter.Group{{ID: "/staff", Path: "/staff"}}})
		w.clock.advance(time.Hour)

		res := w.run()
		require.Equal(t, InSync, res.Verdict)
		require.Equal(t, 1, res.Observed)
		require.NoError(t, w.projection.CatchUp(t.Context(), realm))
		u := w.projection.users["new"]
		require.Equal(t, []string{"/staff", "/welcome"}, u.Groups)
		require.NotEqual(t, joined.ID, u.Origins[adapter.FieldGroups].EventID)
		require.Equal(t, created.ID, u.Origins[adapter.FieldRoles].EventID, "who has set it keeps it")

		w.clock.advance(time.Hour)
		require.Zero(t, w.run().Observed)
		w.keycloak.memberships(func(m *fakeMembers) { m.groups["/welcome"] = nil })
		res = w.run()
		require.Equal(t, []string{adapter.FieldGroups}, fieldsOf(res.Findings[0]))
		require.Equal(t, []string{"/welcome"}, res.Findings[0].Fields[0].Removed)
	})
}

func TestGroupsThatAreAsInferredAreHeldToThat(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		fresh := person("new", "zoe")
		w.keycloak.put(fresh)
		created := w.happened(w.clock.Now(), &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref("new"), Set: profileOf(fresh, true)}})
		w.clock.advance(time.Hour)
		require.Equal(t, 1, w.run().Observed)
		w.clock.advance(time.Hour)
		w.keycloak.memberships(func(m *fakeMembers) { m.groups["/staff"] = []string{"u01", "new"} })
		res := w.run()
		require.Equal(t, []string{adapter.FieldGroups}, fieldsOf(res.Findings[0]))
		require.Equal(t, created.ID, *res.Findings[0].Fields[0].LastChangedEvent)
	})
}

// A user who came to be while the lists were read may be missing from them.
func TestUsersYoungerThanTheSweepAreLeftToTheNextRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range sizes["swept"] {
		w.keycloak.put(person(fmt.Sprintf("u%02d", i), fmt.Sprintf("user%02d", i)))
	}
	w.keycloak.memberships(func(m *fakeMembers) {
		m.roles["auditor"] = []string{"new"}
		m.onList = func(list string) {
			if list == "groups" {
				fresh := person("new", "zoe")
				fresh.CreatedTimestamp = ptr(w.clock.Now().UnixMilli())
				w.keycloak.put(fresh)
			}
		}
	})
	require.Equal(t, sizes["swept"]+1, w.run().Baselined)
	require.NoError(t, w.projection.CatchUp(t.Context(), realm))
	require.NotContains(t, w.projection.users["new"].Origins, adapter.FieldRoles)
	w.keycloak.memberships(func(m *fakeMembers) { m.onList = nil })
	w.clock.advance(time.Hour)
	require.Equal(t, 1, w.run().Observed)
	require.NoError(t, w.projection.CatchUp(t.Context(), realm))
	require.Equal(t, []string{"auditor"}, w.projection.users["new"].Roles)
}

func TestClientsThatEventsNameByUUID(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		w.happened(w.clock.Now(), &adapter.UserApiRolesChanged{UserRef: ref("u02"), Added: []adapter.Role{{Name: "view", Client: "uuid-account"}}})
		w.keycloak.memberships(func(m *fakeMembers) { m.clientRoles["account"]["view"] = []string{"u02"} })
		w.clock.advance(time.Hour)
		require.NoError(t, w.projection.CatchUp(t.Context(), realm))
		require.Equal(t, map[string][]string{"uuid-account": {"view"}}, w.projection.users["u02"].ClientRoles)
		require.NotNil(t, w.projection.users["u02"].Unread)
		res := w.run()
		require.Equal(t, InSync, res.Verdict)
		require.Equal(t, 1, res.Observed)
		seen := recordedAs[*adapter.UserApiObserved](w)
		require.True(t, seen[0].Complete, "all was read, and nothing else differs")
		require.NoError(t, w.projection.CatchUp(t.Context(), realm))
		u := w.projection.users["u02"]
		require.Equal(t, map[string][]string{"account": {"view"}}, u.ClientRoles)
		require.Nil(t, u.Unread)
	})
}

// A client that only belief has, by its UUID, is told by its name.
func TestTakenRolesOfClientsThatEventsNameByUUID(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		w.happened(w.clock.Now(), &adapter.UserApiRolesChanged{UserRef: ref("u02"), Added: []adapter.Role{{Name: "view", Client: "uuid-account"}}})
		w.clock.advance(time.Hour)
		f := w.run().Findings[0]
		require.JSONEq(t, `{"account":["view"]}`, string(f.Fields[0].Believed))
		require.Equal(t, []string{"account/view"}, f.Fields[0].Removed)
	})
}

// What is open stays open as long as something else differs.
func TestAReadOfSomeFieldsIsNotComplete(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		w.happened(w.clock.Now(), &adapter.UserApiRolesChanged{UserRef: ref("u02"), Added: []adapter.Role{{Name: "view", Client: "uuid-account"}}})
		w.keycloak.memberships(func(m *fakeMembers) {
			m.clientRoles["account"]["view"] = []string{"u02"}
			m.roles["auditor"] = []string{"u00", "u01", "u02"}
		})
		w.clock.advance(time.Hour)
		require.Equal(t, Drift, w.run().Verdict)
		seen := recordedAs[*adapter.UserApiObserved](w)
		require.False(t, seen[0].Complete)
		require.Equal(t, []string{adapter.FieldClientRoles}, seen[0].Memberships.Fields())
	})
}

func TestWhatMayNotBeReadIsNotCompared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse  []string
		without map[string]string // field → what its reason says
	}{
		"clients":           {refuse: []string{"clients"}, without: map[string]string{adapter.FieldClientRoles: "view-clients"}},
		"roles of a client": {refuse: []string{"clients/crm"}, without: map[string]string{adapter.FieldClientRoles: "view-clients"}},
		"organizations":     {refuse: []string{"organizations"}, without: map[string]string{adapter.FieldOrganizations: "view-organizations"}},
		"groups":            {refuse: []string{"groups"}, without: map[string]string{adapter.FieldGroups: "view-users"}},
		"everything": {
			refuse: []string{"clients", "organizations", "groups", "roles", "user/roles"},
			without: map[string]string{
				adapter.FieldClientRoles: "view-clients", adapter.FieldOrganizations: "view-organizations",
				adapter.FieldGroups: "view-users", adapter.FieldRoles: "view-users",
			},
		},
		"roles, and users tell their own": {refuse: []string{"roles"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := staffed(t, sizes["swept"])
			w.keycloak.memberships(func(m *fakeMembers) {
				for _, list := range c.refuse {
					m.refused[list] = forbidden()
				}
			})
			res := w.run()
			require.Equal(t, InSync, res.Verdict)
			require.Len(t, res.NotCompared, len(c.without))
			for _, n := range res.NotCompared {
				require.Equal(t, adapter.CodeKeycloakForbidden, n.Code)
				require.Contains(t, n.Reason, c.without[n.Field])
				require.False(t, n.Failed())
				require.NotContains(t, res.ComparedFields, n.Field)
			}
			require.Len(t, res.ComparedFields, len(comparedFields)-len(c.without))
			require.Empty(t, recordedAs[*adapter.DriftDetected](w))
		})
	}
}

// In a realm that is too large for that, no user is read alone for want of a role.
func TestRolesOfTooManyUsersAreNotReadAlone(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.runner.MaxReads = sizes["swept"] - 1
	w.keycloak.memberships(func(m *fakeMembers) { m.refused["roles"] = forbidden() })
	res := w.run()
	require.Equal(t, adapter.FieldRoles, res.NotCompared[0].Field)
	require.Contains(t, res.NotCompared[0].Reason, "view-realm")
	require.Zero(t, w.keycloak.asked("user/roles"))
}

func TestFailedPagesMakeTheirPartInvalid(t *testing.T) {
	t.Parallel()
	cut := &admin.DecodeError{Op: "GET", Status: 200, Err: errors.New("unexpected EOF")}
	down := &keycloak.APIError{Status: 503, Kind: keycloak.KindUnavailable}
	for name, c := range map[string]struct {
		list  string
		err   error
		field string
		code  adapter.Code
	}{
		"who has a role":        {"roles/auditor", cut, adapter.FieldRoles, adapter.CodeListingIncomplete},
		"who has a client role": {"clients/crm/write", down, adapter.FieldClientRoles, adapter.CodeKeycloakUnavailable},
		"the roles of a client": {"clients/crm", cut, adapter.FieldClientRoles, adapter.CodeListingIncomplete},
		"a group's members":     {"members/staff/night", down, adapter.FieldGroups, adapter.CodeKeycloakUnavailable},
		"the groups below":      {"groups/staff", cut, adapter.FieldGroups, adapter.CodeListingIncomplete},
		"the members":           {"organizations/moss", &admin.TransportError{Kind: admin.KindReset}, adapter.FieldOrganizations, adapter.CodeKeycloakUnreachable},
		"the organizations":     {"organizations", down, adapter.FieldOrganizations, adapter.CodeKeycloakUnavailable},
		"the clients":           {"clients", cut, adapter.FieldClientRoles, adapter.CodeListingIncomplete},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := staffed(t, sizes["swept"])
			// A drift in what cannot be read stands; one in what can is found.
			w.keycloak.memberships(func(m *fakeMembers) {
				m.roles["visitor"], m.clientRoles["crm"]["read"] = []string{"u05"}, []string{"u00", "u05"}
				m.groups["/staff"], m.organizations["moss"] = []string{"u01", "u05"}, []string{"u00", "u05"}
			})
			before := w.run()
			require.Equal(t, membershipFields, fieldsOf(before.Findings[0]))
			w.keycloak.memberships(func(m *fakeMembers) { m.refused[c.list] = c.err })
			w.keycloak.change("u05", func(u *keycloak.User) { u.Enabled = ptr(false) })
			res := w.run()
			require.Equal(t, append([]string{adapter.FieldEnabled}, membershipFields...), fieldsOf(res.Findings[0]))
			require.Len(t, res.NotCompared, 1)
			require.Equal(t, c.field, res.NotCompared[0].Field)
			require.Equal(t, c.code, res.NotCompared[0].Code)
			require.True(t, res.NotCompared[0].Failed())
			require.Len(t, res.Findings, 1, "nobody else is taken for one who lacks it")
			w.keycloak.change("u05", func(u *keycloak.User) { u.Enabled = ptr(true) })
			require.Equal(t, membershipFields, fieldsOf(w.run().Findings[0]))
			require.Equal(t, membershipFields, fieldsOf(w.run().Findings[0]))

			w.keycloak.memberships(func(m *fakeMembers) {
				m.roles["visitor"], m.clientRoles["crm"]["read"] = nil, []string{"u00"}
				m.groups["/staff"], m.organizations["moss"] = []string{"u01"}, []string{"u00"}
			})
			res = w.run()
			require.Equal(t, []string{c.field}, fieldsOf(res.Findings[0]), "of the others it is known that they are over")
			w.keycloak.memberships(func(m *fakeMembers) { delete(m.refused, c.list) })
			require.Equal(t, InSync, w.run().Verdict)

			w.keycloak.memberships(func(m *fakeMembers) { m.refused[c.list] = c.err })
			res = w.run()
			require.Zero(t, res.FindingsTotal)
			require.Equal(t, Incomplete, res.Verdict, "what was to be compared and was not is no sync")
			require.Equal(t, adapter.RunCompleted, res.Status)
		})
	}
}

func TestAUserWhoseMembershipsCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, list := range []string{"user/roles", "user/groups", "user/organizations"} {
		t.Run(list, func(t *testing.T) {
			t.Parallel()
			w := staffed(t, sizes["alone"])
			w.keycloak.memberships(func(m *fakeMembers) {
				m.refused[list] = &keycloak.APIError{Status: 500, Kind: keycloak.KindServer}
			})
			res := w.run()
			require.Equal(t, Incomplete, res.Verdict)
			require.NotEmpty(t, res.NotCompared)
			require.Empty(t, recordedAs[*adapter.DriftDetected](w))
			asked := w.keycloak.asked(list)
			require.NotZero(t, asked)
			w.run()
			require.Equal(t, asked+1, w.keycloak.asked(list), "one failure is enough for a run")

			// One who is gone between two requests is no failure.
			w.keycloak.memberships(func(m *fakeMembers) { m.refused[list] = notFound("User not found") })
			require.Empty(t, w.run().NotCompared)
		})
	}
}

func TestWithoutOrganizations(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(m *fakeMembers){
		"switched off": func(m *fakeMembers) {
			m.refused["organizations"] = notFound("Organizations not enabled for this realm.")
		},
		"none": func(m *fakeMembers) { clear(m.organizations) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := staffed(t, sizes["swept"])
			w.keycloak.memberships(change)
			res := w.run()
			require.Equal(t, InSync, res.Verdict)
			require.Equal(t, adapter.FieldOrganizations, res.NotCompared[0].Field)
			require.Equal(t, adapter.CodeKeycloakNotFound, res.NotCompared[0].Code)
		})
	}
}

func TestNoClientsMeansThatTheyMayNotBeSeen(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["alone"])
	w.keycloak.memberships(func(m *fakeMembers) { clear(m.clientRoles) })
	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, adapter.FieldClientRoles, res.NotCompared[0].Field)
}

// Users with a made-up createdTimestamp were there when the sweep began, as others were.
func TestMembershipsOfUsersCreatedInTheFarFuture(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.keycloak.change("u01", func(u *keycloak.User) {
		u.CreatedTimestamp = ptr(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	})
	w.keycloak.memberships(func(m *fakeMembers) { m.roles["auditor"] = []string{"u00"} })
	res := w.run()
	require.Equal(t, Drift, res.Verdict)
	require.Equal(t, "u01", res.Findings[0].UserID)
	require.Equal(t, []string{adapter.FieldRoles}, fieldsOf(res.Findings[0]))
}

func TestMoreMembershipsThanFit(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.runner.MaxMemberships = 3
	res := w.run()
	require.Equal(t, Incomplete, res.Verdict)
	require.NotEmpty(t, res.NotCompared)
	require.Empty(t, recordedAs[*adapter.DriftDetected](w))
}

// A list is read no further than it fits.
func TestAListThatDoesNotFitIsCutShort(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.keycloak.memberships(func(m *fakeMembers) {
		for i := range sizes["swept"] {
			m.groups["/staff"] = append(m.groups["/staff"], fmt.Sprintf("u%02d", i))
		}
		m.lists = nil
	})
	w.runner.MaxMemberships = 30
	res := w.run()
	require.Equal(t, Incomplete, res.Verdict)
	require.Equal(t, adapter.FieldGroups, res.NotCompared[0].Field)
	require.Contains(t, res.NotCompared[0].Reason, "more than 30 memberships")
	require.Equal(t, 2, w.keycloak.asked("members/staff"), "pages of 15 members")
}

func TestListsThatDoNotEnd(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.runner.Live = deafKeycloak{w.keycloak}
	res := w.run()
	require.Equal(t, Incomplete, res.Verdict)
	require.Equal(t, adapter.FieldGroups, res.NotCompared[0].Field)
	require.Contains(t, res.NotCompared[0].Reason, "first and max")
}

// deafKeycloak does not heed the offset of a group's members.
type deafKeycloak struct{ *fakeKeycloak }

func (k deafKeycloak) GroupMembers(ctx context.Context, realm, group string, _, limit int) ([]keycloak.User, error) {
	return k.fakeKeycloak.GroupMembers(ctx, realm, group, 0, limit)
}

// Roles and groups that are deleted while they are swept have nobody.
func TestWhatIsDeletedWhileItIsSwept(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.keycloak.memberships(func(m *fakeMembers) {
		m.refused["roles/auditor"] = notFound("Could not find role")
		m.refused["members/staff"] = notFound("Could not find group by id")
		m.refused["groups/staff"] = notFound("Could not find group by id")
	})
	res := w.run()
	require.Empty(t, res.NotCompared)
	require.Equal(t, InSync, res.Verdict, "who is believed to have it is asked")

	// Of a role whose name has a slash a 404 says nothing: proxies and servers refuse it.
	w.keycloak.memberships(func(m *fakeMembers) {
		m.roles["a/b"] = []string{"u09"}
		m.refused["roles/a/b"] = notFound("HTTP 404 Not Found")
	})
	res = w.run()
	require.Equal(t, Incomplete, res.Verdict)
	require.Equal(t, adapter.FieldRoles, res.NotCompared[0].Field)
}

func TestAStaleProjectionOfRoles(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	u := w.projection.users["u01"]
	u.Roles = []string{"king"}
	w.projection.users["u01"] = u
	f := w.run().Findings[0]
	require.Equal(t, adapter.SituationStaleProjection, f.Situation)
	require.Equal(t, []string{adapter.FieldRoles}, fieldsOf(f))
	require.JSONEq(t, `["king"]`, string(f.Fields[0].Believed))
}

func TestCancelledWhileSweeping(t *testing.T) {
	t.Parallel()
	for _, list := range []string{"clients", "organizations", "roles", "clients/crm", "groups/staff", "roles/auditor", "members/staff", "user/groups"} {
		t.Run(list, func(t *testing.T) {
			t.Parallel()
			size := sizes["swept"]
			if strings.HasPrefix(list, "user/") {
				size = sizes["alone"]
			}
			w := staffed(t, size)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.keycloak.memberships(func(m *fakeMembers) {
				m.onList = func(read string) {
					if read == list {
						cancel()
					}
				}
			})
			res, err := w.fail(ctx)
			require.Equal(t, adapter.CodeInterrupted, err.Code)
			require.Equal(t, adapter.RunAborted, res.Status)
		})
	}
}

func TestCompareMemberships(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	believed := func(m adapter.Memberships) adapter.User {
		return folded(event(at, &adapter.UserApiBaselined{UserRef: ref("1"), Memberships: m}))
	}
	roles := func(names ...string) adapter.Memberships { return adapter.Memberships{Roles: adapter.Set(names)} }
	heard := folded(event(at, &adapter.UserApiRolesChanged{UserRef: ref("1"), Added: []adapter.Role{{Name: "a"}}}))
	for name, c := range map[string]struct {
		believed                            adapter.User
		live                                adapter.Memberships
		differs, adopts, dropped, confirmed []string
	}{
		"nothing told":                    {believed: believed(roles("a"))},
		"equal in another order":          {believed: believed(roles("a", "b")), live: roles("b", "a", "default-roles-acme")},
		"none and empty":                  {believed: believed(roles()), live: roles("default-roles-acme")},
		"never seen":                      {believed: believed(adapter.Memberships{}), live: roles("a"), adopts: []string{adapter.FieldRoles}},
		"never seen and none":             {believed: believed(adapter.Memberships{}), live: roles(), adopts: []string{adapter.FieldRoles}},
		"other":                           {believed: believed(roles("a")), live: roles("b"), differs: []string{adapter.FieldRoles}},
		"seen in part, and there is more": {believed: heard, live: roles("a", "b"), dropped: []string{adapter.FieldRoles}},
		"seen in part, and that is all":   {believed: heard, live: roles("a"), confirmed: []string{adapter.FieldRoles}},
		"organizations by id": {
			believed: believed(adapter.Memberships{Organizations: adapter.Set([]adapter.Organization{{ID: "o"}})}),
			live:     adapter.Memberships{Organizations: adapter.Set([]adapter.Organization{{ID: "o", Alias: "moss"}})},
		},
		"another organization": {
			believed: believed(adapter.Memberships{Organizations: adapter.Set([]adapter.Organization{{ID: "o", Alias: "moss"}})}),
			live:     adapter.Memberships{Organizations: adapter.Set([]adapter.Organization{{ID: "p", Alias: "moss"}})},
			differs:  []string{adapter.FieldOrganizations},
		},
		"a client by its UUID": {
			believed: believed(adapter.Memberships{ClientRoles: adapter.Set(map[string][]string{"uuid-crm": {"a"}, "crm": {"b"}})}),
			live: adapter.Memberships{
				ClientRoles: adapter.Set(map[string][]string{"crm": {"b", "a"}}), Clients: map[string]string{"uuid-crm": "crm"},
			},
			adopts: []string{adapter.FieldClientRoles},
		},
		"a client by its UUID, and another role": {
			believed: believed(adapter.Memberships{ClientRoles: adapter.Set(map[string][]string{"uuid-crm": {"a"}})}),
			live: adapter.Memberships{
				ClientRoles: adapter.Set(map[string][]string{"crm": {"b"}}), Clients: map[string]string{"uuid-crm": "crm"},
			},
			differs: []string{adapter.FieldClientRoles},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := CompareMemberships(c.believed, c.live)
			fields := func(list []Difference) (names []string) {
				for _, d := range list {
					names = append(names, d.Field)
					require.Equal(t, c.believed.Origins[d.Field], d.Origin)
				}
				return names
			}
			require.Equal(t, c.differs, fields(got.Differences))
			require.Equal(t, c.dropped, fields(got.Dropped))
			require.Equal(t, c.adopts, got.AdoptMemberships.Fields())
			require.Equal(t, c.confirmed, got.Confirmed)
		})
	}
}

// TestFoldedMembershipsAgreeWithTheLiveOnes gives and takes at random, tells the belief
// by events in the form that Keycloak sends, and finds no difference, in whatever way
// the live ones are read.
func TestFoldedMembershipsAgreeWithTheLiveOnes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"a", "b", "a/b", "ä", "default-roles-acme"})
		clients := rapid.SampledFrom([]string{"crm", "account"})
		at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
		tick := func() time.Time { at = at.Add(time.Minute); return at }
		events := []adapter.Decoded{event(at, &adapter.UserApiBaselined{UserRef: ref("1"), Memberships: adapter.Memberships{
			Roles: adapter.Set([]string{}), ClientRoles: adapter.Set(map[string][]string{}),
			Groups: adapter.Set([]string{}), Organizations: adapter.Set([]adapter.Organization{}),
		}})}
		has := newMemberships()
		for _, field := range membershipFields {
			has.ways[field] = swept
		}
		held := map[container]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			name, give := names.Draw(t, "name"), rapid.Bool().Draw(t, "give")
			switch field := rapid.SampledFrom(membershipFields).Draw(t, "field"); field {
			case adapter.FieldRoles, adapter.FieldClientRoles:
				client := ""
				if field == adapter.FieldClientRoles {
					client = "uuid-" + clients.Draw(t, "client")
				}
				held[container{field: field, client: client, name: name}] = give
				p := &adapter.UserApiRolesChanged{UserRef: ref("1")}
				if role := []adapter.Role{{ID: name, Name: name, Client: client}}; give {
					p.Added = role
				} else {
					p.Removed = role
				}
				events = append(events, event(tick(), p))
			case adapter.FieldGroups:
				held[container{field: field, id: name, name: "/" + name}] = give
				p := &adapter.UserApiGroupsChanged{UserRef: ref("1")}
				if group := []adapter.Group{{ID: name, Path: "/" + name}}; give {
					p.Joined = group
				} else {
					p.Left = group
				}
				events = append(events, event(tick(), p))
			default:
				held[container{field: field, id: name, name: name}] = give
				p := &adapter.UserApiOrganizationsChanged{UserRef: ref("1")}
				if give {
					p.Joined = []adapter.Organization{{ID: name, Alias: name}}
				} else {
					p.Left = []adapter.Organization{{ID: name}}
				}
				events = append(events, event(tick(), p))
			}
		}
		var mappings keycloak.RoleMappings
		mappings.ClientMappings = map[string]keycloak.ClientRoles{}
		var alone adapter.Memberships
		groups, organizations := []string{}, []keycloak.Organization{}
		for c, live := range held {
			if !live {
				continue
			}
			if c.client != "" {
				id := strings.TrimPrefix(c.client, "uuid-")
				has.clients[c.client] = id
				m := mappings.ClientMappings[id]
				m.ID, m.Client, m.Mappings = c.client, id, append(m.Mappings, keycloak.Role{Name: c.name})
				mappings.ClientMappings[id] = m
			}
			switch c.field {
			case adapter.FieldRoles:
				mappings.RealmMappings = append(mappings.RealmMappings, keycloak.Role{Name: c.name})
			case adapter.FieldGroups:
				groups = append(groups, c.name)
			case adapter.FieldOrganizations:
				organizations = append(organizations, keycloak.Organization{ID: c.id, Alias: c.name})
			}
			has.containers = append(has.containers, c)
			i := uint32(len(has.containers) - 1)
			// Somebody else has it too, and a page has shown it twice.
			has.held = append(has.held, holding{user: 8, container: i}, holding{user: 7, container: i}, holding{user: 7, container: i})
		}
		slices.SortFunc(has.held, func(a, b holding) int {
			return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.container, b.container))
		})
		alone = rolesOf(mappings)
		alone.Groups, alone.Organizations = adapter.Set(groups), adapter.Set(organizationsOf(organizations))

		believed := folded(events...)
		for way, live := range map[string]adapter.Memberships{"alone": alone, "swept": has.of(7)} {
			got := CompareMemberships(believed, live)
			require.True(t, got.Agrees(), "%s: %+v", way, got)
			// And adopting it settles it for good.
			read := event(tick(), &adapter.UserApiObserved{UserRef: ref("1"), Present: true, Memberships: got.AdoptMemberships})
			after := CompareMemberships(folded(append(slices.Clone(events), read)...), live)
			require.True(t, after.Agrees(), "%s: %+v", way, after)
			require.Empty(t, after.AdoptMemberships.Fields(), way)
		}
	})
}
