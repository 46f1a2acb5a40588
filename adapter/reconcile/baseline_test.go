package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

func (w *world) baseline(change ...func(*Request)) Result {
	w.t.Helper()
	req := Request{Realm: realm, Trigger: "cli"}
	for _, f := range change {
		f(&req)
	}
	res, err := w.runner.Baseline(w.t.Context(), req)
	require.NoError(w.t, err)
	require.Equal(w.t, adapter.RunCompleted, res.Status)
	require.Equal(w.t, InSync, res.Verdict)
	require.Equal(w.t, adapter.TriggerBaseline, res.Trigger)
	require.True(w.t, res.Baseline)
	return res
}

// adoptions counts the baseline events of each user.
func (w *world) adoptions() map[string]int {
	counts := map[string]int{}
	for _, p := range recordedAs[*adapter.UserApiBaselined](w) {
		counts[p.UserID]++
	}
	return counts
}

func TestBaselineAdoptsEveryLiveUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keycloak.put(person("1", "ann"), person("2", "bob"), person("3", "cleo"), person("4", "dan"), person("5", "eve"))
	w.keycloak.memberships(func(m *fakeMembers) { m.roles["auditor"], m.groups["/staff"] = []string{"2"}, []string{"3"} })
	// One is believed otherwise, one to be gone, and one is only believed.
	changed := w.happened(w.clock.Now(), &adapter.UserApiCreated{UserChange: adapter.UserChange{
		UserRef: ref("1"), Set: adapter.Profile{Username: adapter.Set("ann"), FirstName: adapter.Set("Anne")},
	}})
	w.happened(w.clock.Now(), &adapter.UserApiDeleted{UserRef: ref("2")})
	w.happened(w.clock.Now(), &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref("9"), Set: adapter.Profile{Username: adapter.Set("zoe")}}})
	w.clock.advance(time.Hour)

	var progress []int
	res := w.baseline(func(r *Request) {
		r.Progress = func(adopted, counted int) {
			require.Equal(t, 5, counted)
			progress = append(progress, adopted)
		}
	})
	require.Equal(t, 5, res.Baselined)
	require.Equal(t, 5, res.Compared)
	require.Equal(t, []int{3, 5}, progress)
	require.Equal(t, map[string]int{"1": 1, "2": 1, "3": 1, "4": 1, "5": 1}, w.adoptions())
	require.Equal(t, comparedFields[:len(comparedFields)-1], res.ComparedFields)
	require.Equal(t, adapter.FieldOrganizations, res.NotCompared[0].Field)
	done := recordedAs[*adapter.ReconciliationCompleted](w)
	require.True(t, done[0].Baseline)
	require.Empty(t, recordedAs[*adapter.DriftDetected](w))

	require.NoError(t, w.projection.CatchUp(t.Context(), realm))
	require.Equal(t, "ann", *w.projection.users["1"].FirstName)
	require.Equal(t, changed.ID, w.projection.users["1"].Origins[adapter.FieldUsername].EventID, "what is confirmed keeps its origin")
	require.False(t, w.projection.users["2"].Deleted)
	require.Equal(t, []string{"auditor"}, w.projection.users["2"].Roles)
	require.Equal(t, []string{"/staff"}, w.projection.users["3"].Groups)

	// Later runs take strangers for unexpected, and miss who is not there.
	w.clock.advance(time.Hour)
	w.keycloak.put(person("6", "fay"))
	res = w.run()
	require.False(t, res.Baseline)
	require.Equal(t, map[adapter.Situation]int{adapter.SituationUnexpectedLive: 1, adapter.SituationMissingLive: 1}, res.Counts)
}

func TestBaselineEndsTheDriftOfThoseItAdopts(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, w *world) {
		w.keycloak.change("u01", func(u *keycloak.User) { u.Enabled = ptr(false) })
		w.keycloak.memberships(func(m *fakeMembers) { m.roles["visitor"] = []string{"u02"} })
		w.keycloak.put(person("new", "zoe"))
		w.happened(w.clock.Now(), &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref("gone"), Set: adapter.Profile{Username: adapter.Set("gus")}}})
		w.clock.advance(time.Hour)
		require.Equal(t, 4, w.run().FindingsTotal)
		w.clock.advance(time.Hour)
		w.baseline()
		res := w.run()
		require.Equal(t, map[adapter.Situation]int{adapter.SituationMissingLive: 1}, res.Counts)
		for _, id := range []string{"u01", "u02", "new"} {
			require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftEnded}, w.phases(id), id)
		}
	})
}

// interruptedBaseline lets a baseline of five users fail once it has adopted three.
func interruptedBaseline(t *testing.T, how func(w *world, cancel func())) *world {
	t.Helper()
	w := newWorld(t)
	for i := range 5 {
		w.keycloak.put(person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.keycloak.onPage = func(first int) {
		if first == 3 {
			how(w, cancel)
		}
	}
	_, err := w.runner.Baseline(ctx, Request{Realm: realm})
	require.Error(t, err)
	require.Len(t, w.adoptions(), 3)
	w.keycloak.onPage, w.keycloak.listing = nil, nil
	return w
}

func TestBaselineIsResumed(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]func(w *world, cancel func()){
		"cancelled": func(_ *world, cancel func()) { cancel() },
		"invalid": func(w *world, _ func()) {
			w.keycloak.listing = &keycloak.APIError{Status: 502, Kind: keycloak.KindUnavailable}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := interruptedBaseline(t, how)
			done, err := w.runner.History.Baselined(t.Context(), realm)
			require.NoError(t, err)
			require.False(t, done)
			first := recordedAs[*adapter.ReconciliationStarted](w)[0]

			w.clock.advance(time.Hour)
			// Live changes meanwhile: what was adopted is not adopted again.
			w.keycloak.change("0", func(u *keycloak.User) { u.LastName = ptr("Moss") })
			res := w.baseline(func(r *Request) {
				r.Progress = func(adopted, counted int) { require.LessOrEqual(t, adopted, counted) }
			})
			require.Equal(t, 2, res.Baselined)
			require.Equal(t, 5, res.Compared)
			require.Len(t, w.adoptions(), 5)
			for id, n := range w.adoptions() {
				require.Equal(t, 1, n, id)
			}
			started := recordedAs[*adapter.ReconciliationStarted](w)
			require.Nil(t, first.Resumes)
			require.Equal(t, first.RunID, *started[1].Resumes)
			require.Equal(t, adapter.SituationChanged, w.run().Findings[0].Situation)

			// What is complete is begun anew.
			w.clock.advance(time.Hour)
			require.Equal(t, 5, w.baseline().Baselined)
			require.Nil(t, recordedAs[*adapter.ReconciliationStarted](w)[3].Resumes)
		})
	}
}

// crashing stops answering at an event, as a process that dies does.
type crashing struct {
	Log
	at   func(appends []eventstore.StreamAppend) bool
	died bool
	// lost says that the last append is recorded although its answer never comes.
	lost bool
}

var errDied = errors.New("died")

func (c *crashing) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	if c.died {
		return nil, errDied
	}
	if c.at(appends) {
		c.died = true
		if c.lost {
			if _, err := c.Log.Append(ctx, appends...); err != nil {
				return nil, err
			}
		}
		return nil, errDied
	}
	return c.Log.Append(ctx, appends...)
}

// TestBaselineSurvivesCrashes lets the process die at each append in turn, before and
// after it is recorded, and goes on until the baseline is complete.
func TestBaselineSurvivesCrashes(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost=%v", lost), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for i := range 8 {
				w.keycloak.put(person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
			}
			store := w.runner.Store
			var runs []uuid.UUID
			completed := false
			for die := 1; !completed; die++ {
				require.Less(t, die, 20)
				appends := 0
				w.runner.Store = &crashing{Log: store, lost: lost, at: func([]eventstore.StreamAppend) bool {
					appends++
					return appends == die
				}}
				res, err := w.runner.Baseline(t.Context(), Request{Realm: realm, Started: func(r adapter.Reconciliation) { runs = append(runs, r.RunID) }})
				completed = err == nil && res.Status == adapter.RunCompleted
				for id, n := range w.adoptions() {
					require.Equal(t, 1, n, id)
				}
				done, err := w.runner.History.Baselined(t.Context(), realm)
				require.NoError(t, err)
				if done {
					break // only the answer was lost
				}
			}
			w.runner.Store = store
			require.Len(t, w.adoptions(), 8)
			open, ok, err := w.runner.History.OpenBaseline(t.Context(), realm)
			require.NoError(t, err)
			require.False(t, ok, "%+v of %v", open, runs)
			w.clock.advance(time.Hour)
			require.Equal(t, InSync, w.run().Verdict)
		})
	}
}

// The ids of adoptions belong to the baseline, not to the run: where two work on it at
// once against all odds, the second finds what the first has done.
func TestTwoRunsOfOneBaselineAdoptOnce(t *testing.T) {
	t.Parallel()
	w := interruptedBaseline(t, func(_ *world, cancel func()) { cancel() })
	w.runner.History = forgetful{w.runner.History}
	res := w.baseline()
	require.Equal(t, 2, res.Baselined)
	for id, n := range w.adoptions() {
		require.Equal(t, 1, n, id)
	}
}

// forgetful does not tell who was adopted.
type forgetful struct{ History }

func (forgetful) Adopted(context.Context, string, []uuid.UUID, func(string)) error { return nil }

func TestOldBaselinesAreNotResumed(t *testing.T) {
	t.Parallel()
	w := interruptedBaseline(t, func(_ *world, cancel func()) { cancel() })
	w.clock.advance(resumeWithin + time.Minute)
	require.Equal(t, 5, w.baseline().Baselined)
	require.Equal(t, 2, w.adoptions()["0"])
}

// An ordinary run ends a baseline that a crash has left open; it is resumed all the same.
func TestBaselineIsResumedAfterARunThatWasNotCompleted(t *testing.T) {
	t.Parallel()
	w := interruptedBaseline(t, func(_ *world, cancel func()) { cancel() })
	w.keycloak.counting = &keycloak.APIError{Status: 503, Kind: keycloak.KindUnavailable}
	_, err := w.fail(t.Context())
	require.Equal(t, adapter.CodeKeycloakUnavailable, err.Code)
	w.keycloak.counting = nil
	require.Equal(t, 2, w.baseline().Baselined)
}

func TestBaselineOfUsersThatChangeMeanwhile(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.keycloak.onPage = func(first int) {
		if first == 0 && !slices.Contains(w.keycloak.members.roles["auditor"], "u05") {
			// The role is given, and told, after the roles were swept.
			w.keycloak.memberships(func(m *fakeMembers) { m.roles["auditor"] = append(m.roles["auditor"], "u05") })
			w.happened(w.clock.Now(), &adapter.UserApiRolesChanged{UserRef: ref("u05"), Added: []adapter.Role{{Name: "auditor"}}})
			require.NoError(t, w.projection.CatchUp(t.Context(), realm))
		}
	}
	w.baseline()
	require.NoError(t, w.projection.CatchUp(t.Context(), realm))
	require.Equal(t, []string{"auditor"}, w.projection.users["u05"].Roles)
	w.clock.advance(time.Hour)
	require.Equal(t, InSync, w.run().Verdict)
}

func TestBaselineNeedsItsMemberships(t *testing.T) {
	t.Parallel()
	w := staffed(t, sizes["swept"])
	w.keycloak.memberships(func(m *fakeMembers) {
		m.refused["members/staff"] = &keycloak.APIError{Status: 503, Kind: keycloak.KindUnavailable}
	})
	before := len(recordedAs[*adapter.UserApiBaselined](w))
	res, err := w.runner.Baseline(t.Context(), Request{Realm: realm})
	require.Equal(t, adapter.CodeKeycloakUnavailable, adapter.CodeOf(err))
	require.Equal(t, adapter.RunInvalid, res.Status)
	require.Len(t, recordedAs[*adapter.UserApiBaselined](w), before)

	// What the service account may not read is left out, and said.
	w.keycloak.memberships(func(m *fakeMembers) { m.refused["members/staff"] = forbidden() })
	res = w.baseline()
	require.Equal(t, adapter.FieldGroups, res.NotCompared[0].Field)
	require.False(t, recordedAs[*adapter.UserApiBaselined](w)[before].Groups.Present())
}

func TestBaselineOfAnotherRealm(t *testing.T) {
	t.Parallel()
	w := interruptedBaseline(t, func(_ *world, cancel func()) { cancel() })
	_, ok, err := w.runner.History.OpenBaseline(t.Context(), "other")
	require.NoError(t, err)
	require.False(t, ok)
	_, err = w.runner.Baseline(t.Context(), Request{})
	require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err))
}
