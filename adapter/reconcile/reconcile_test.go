package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

func ptr[T any](v T) *T { return &v }

func TestFirstRunAdoptsAndLaterRunsReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keycloak.put(person("1", "ann"), person("2", "bob"), person("3", "cleo"), person("4", "dan"))

	first := w.run()
	require.True(t, first.Baseline)
	require.Equal(t, InSync, first.Verdict)
	require.Equal(t, 4, first.Baselined)
	require.Equal(t, 4, first.Compared)
	require.Equal(t, 4, first.InSync)
	require.Empty(t, w.keycloak.reads, "adopting needs no targeted read")

	w.clock.advance(time.Hour)
	w.keycloak.put(person("5", "eve"))
	second := w.run()
	require.False(t, second.Baseline)
	require.Equal(t, Drift, second.Verdict)
	require.Equal(t, 1, second.Verdict.ExitCode())
	require.Zero(t, second.Baselined)
	require.Len(t, second.Findings, 1)
	require.Equal(t, "5", second.Findings[0].UserID)
	require.Equal(t, adapter.SituationUnexpectedLive, second.Findings[0].Situation)
	require.Equal(t, 5, second.Compared)
	require.Equal(t, 4, second.InSync)

	again := w.run()
	require.Equal(t, second.Findings, again.Findings)
	require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared}, w.phases("5"))

	w.keycloak.remove("5")
	require.Equal(t, InSync, w.run().Verdict)
	require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftEnded}, w.phases("5"))
}

func TestFirstRunThatWasCutShortGoesOnAdopting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 6 {
		w.keycloak.put(person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
	}
	w.keycloak.onPage = func(first int) {
		if first == 3 {
			w.keycloak.listing = &keycloak.APIError{Status: 502, Kind: keycloak.KindUnavailable}
		}
	}
	res, _ := w.fail(t.Context())
	require.Len(t, recordedAs[*adapter.UserApiBaselined](w), 3)
	require.Equal(t, adapter.RunInvalid, res.Status)

	w.keycloak.onPage, w.keycloak.listing = nil, nil
	done := w.run()
	require.True(t, done.Baseline)
	require.Equal(t, 3, done.Baselined)
	require.Equal(t, InSync, done.Verdict)
}

func TestDriftAppearsIsCountedChangesAndEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"), person("2", "bob"))
	changed := w.happened(w.clock.Now(), &adapter.UserApiUpdated{UserChange: adapter.UserChange{
		UserRef: ref("1"), Set: adapter.Profile{FirstName: adapter.Set("Anne")},
	}})
	w.clock.advance(time.Hour)
	w.keycloak.change("1", func(u *keycloak.User) { u.FirstName = ptr("Mallory") })

	res := w.run()
	require.Equal(t, Drift, res.Verdict)
	require.Equal(t, map[adapter.Situation]int{adapter.SituationChanged: 1}, res.Counts)
	require.Equal(t, 1, res.FindingsTotal)
	f := res.Findings[0]
	require.Equal(t, "ann", f.Username)
	require.Equal(t, res.RunID, f.RunID)
	require.Len(t, f.Fields, 1)
	require.Equal(t, adapter.FieldFirstName, f.Fields[0].Field)
	require.JSONEq(t, `"Anne"`, string(f.Fields[0].Believed))
	require.JSONEq(t, `"Mallory"`, string(f.Fields[0].Actual))
	require.Equal(t, "alice", f.Fields[0].LastChangedBy)
	require.Equal(t, changed.ID, *f.Fields[0].LastChangedEvent)
	require.WithinDuration(t, changed.OccurredAt, *f.Fields[0].LastChangedAt, 0)

	reads := len(w.keycloak.reads)
	again := w.run()
	require.Equal(t, Drift, again.Verdict)
	require.Equal(t, res.Findings, again.Findings, "a drift seen again is the same finding")
	require.Len(t, w.keycloak.reads, reads, "a known drift needs no second read")

	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	require.Len(t, w.run().Findings[0].Fields, 2)
	w.keycloak.change("1", func(u *keycloak.User) { u.FirstName, u.Enabled = ptr("Anne"), ptr(true) })
	require.Equal(t, InSync, w.run().Verdict)
	require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftAltered, adapter.DriftEnded}, w.phases("1"))
	require.Equal(t, InSync, w.run().Verdict)
	require.Len(t, w.phases("1"), 3)
}

func TestRunsBelongToOneStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	story := eventstore.NewID()
	ctx := adapter.WithCall(t.Context(), adapter.CallContext{
		Actor: adapter.Actor{Type: adapter.ActorCLI, ID: "root"}, CorrelationID: story, Source: "cli", Reason: "a look",
	})
	res, err := w.runner.Run(ctx, Request{Realm: realm, Trigger: "cli"})
	require.NoError(t, err)
	require.Equal(t, story, res.CorrelationID)
	require.Equal(t, "root", res.Actor.ID)
	var types []string
	var started eventstore.Event
	for e, err := range w.store.ReadStream(t.Context(), adapter.ReconciliationStream(res.RunID), eventstore.StreamQuery{}) {
		require.NoError(t, err)
		require.Equal(t, story, e.CorrelationID)
		types = append(types, e.Type)
		if e.Version == 1 {
			started = e
		} else {
			require.Equal(t, started.ID, e.CausationID)
		}
	}
	require.Equal(t, []string{adapter.TypeReconciliationStarted, adapter.TypeDriftDetected, adapter.TypeReconciliationCompleted}, types)
}

func TestMissingLiveIsConfirmedByAnAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"), person("2", "bob"))
	w.keycloak.remove("2")
	res := w.run()
	require.Equal(t, []string{"2"}, w.keycloak.reads)
	require.Equal(t, adapter.SituationMissingLive, res.Findings[0].Situation)
	require.Equal(t, "bob", res.Findings[0].Username)
	require.Equal(t, 2, res.Compared)
	require.Equal(t, 1, res.InSync)

	require.Equal(t, res.Findings, w.run().Findings)
	w.happened(w.clock.Now(), &adapter.UserApiDeleted{UserRef: ref("2")})
	require.Equal(t, InSync, w.run().Verdict)
	require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftEnded}, w.phases("2"))
}

func TestMissingUsersSettleToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	// Created and deleted in one breath; only the creation has arrived.
	w.happened(w.clock.Now(), &adapter.UserApiCreated{UserChange: adapter.UserChange{
		UserRef: ref("2"), Set: adapter.Profile{Username: adapter.Set("bob")},
	}})
	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 1, res.Unsettled)
	require.Equal(t, adapter.SituationMissingLive, res.Pending[0].Situation)
	w.clock.advance(time.Hour)
	require.Equal(t, adapter.SituationMissingLive, w.run().Findings[0].Situation)
}

func TestAUserReadAsGoneAndSeenAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	gone := w.happened(w.clock.Now(), &adapter.UserApiObserved{UserRef: ref("1")})
	w.clock.advance(time.Hour)
	f := w.run().Findings[0]
	require.Equal(t, adapter.SituationUnexpectedLive, f.Situation)
	require.Equal(t, gone.ID, *f.Fields[0].LastChangedEvent)
}

func TestServiceAccountsAreNotMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	account := person("sa", "service-account-crm")
	account.ServiceAccountClientID = ptr("crm")
	w.keycloak.put(account)
	w.happened(w.clock.Now(), &adapter.UserApiRolesChanged{UserRef: ref("sa"), Added: []adapter.Role{{Name: "reader"}}})
	w.clock.advance(time.Hour)

	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 1, res.Observed, "what was never seen is adopted")
	require.Equal(t, 2, res.Compared)

	w.clock.advance(time.Hour)
	w.keycloak.change("sa", func(u *keycloak.User) { u.Enabled = ptr(false) })
	res = w.run()
	require.Equal(t, adapter.SituationChanged, res.Findings[0].Situation)
	require.Equal(t, "sa", res.Findings[0].UserID)
}

func TestAMissingRealmProvesNothingAboutAUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"), person("2", "bob"))
	w.keycloak.remove("2")
	w.keycloak.broken["2"] = notFound("Realm not found.")
	res, err := w.fail(t.Context())
	require.Equal(t, adapter.RunInvalid, res.Status)
	require.Equal(t, adapter.CodeKeycloakNotFound, err.Code)
	require.Empty(t, w.phases("2"))
}

func TestBelievedDeletedButLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	deleted := w.happened(w.clock.Now(), &adapter.UserApiDeleted{UserRef: ref("1")})
	res := w.run()
	require.Equal(t, InSync, res.Verdict, "the deletion is too young to judge")
	require.Equal(t, 1, res.Unsettled)

	w.clock.advance(time.Hour)
	res = w.run()
	require.Equal(t, adapter.SituationUnexpectedLive, res.Findings[0].Situation)
	require.Equal(t, "deleted", res.Findings[0].Fields[0].Field)
	require.Equal(t, "alice", res.Findings[0].Fields[0].LastChangedBy)
	require.Equal(t, deleted.ID, *res.Findings[0].Fields[0].LastChangedEvent)
	require.Equal(t, res.Findings, w.run().Findings)
}

func TestYoungUsersAreNotUnexpected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	young := person("2", "bob")
	young.CreatedTimestamp = ptr(w.clock.Now().UnixMilli())
	w.keycloak.put(young)
	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 1, res.Unsettled)
	w.clock.advance(time.Hour)
	require.Equal(t, Drift, w.run().Verdict)
}

// An import may set any createdTimestamp.
func TestATimeFarAheadIsNotYoung(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	made := person("2", "bob")
	made.CreatedTimestamp = ptr(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	w.keycloak.put(made)
	res := w.run()
	require.Equal(t, Drift, res.Verdict)
	require.Equal(t, adapter.SituationUnexpectedLive, res.Findings[0].Situation)

	now := w.clock.Now()
	require.True(t, isYoung(now.Add(14*time.Hour), now, time.Minute), "a clock in the wrong zone")
	require.False(t, isYoung(now.Add(24*time.Hour), now, time.Minute))
}

func TestDifferencesSettleFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.happened(w.clock.Now(), &adapter.UserApiUpdated{UserChange: adapter.UserChange{
		UserRef: ref("1"), Set: adapter.Profile{LastName: adapter.Set("Doe")},
	}})
	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 1, res.Unsettled)
	require.Zero(t, res.InSync)
	require.Len(t, res.Pending, 1)
	require.Empty(t, w.phases("1"))

	// Only the young field waits for the others.
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	res = w.run()
	require.Len(t, res.Findings[0].Fields, 1)
	require.Equal(t, adapter.FieldEnabled, res.Findings[0].Fields[0].Field)

	w.clock.advance(2 * time.Minute)
	require.Len(t, w.run().Findings[0].Fields, 2)
}

// Who saves a form sends what was there again: the one who changed it is blamed, and the
// difference is as young as the form.
func TestAValueSentAgainSettlesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	enabled := &adapter.UserApiEnabled{UserChange: adapter.UserChange{UserRef: ref("1"), Set: adapter.Profile{Enabled: adapter.Set(true)}}}
	w.happened(w.clock.Now(), enabled)
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	res := w.run()
	require.Equal(t, 1, res.Unsettled)
	require.Empty(t, res.Findings)
	w.clock.advance(time.Hour)
	require.Equal(t, Drift, w.run().Verdict)
}

func TestInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"), person("2", "bob"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	w.keycloak.remove("2")
	w.calls["1"], w.calls["2"] = w.clock.Now(), w.clock.Now()
	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 2, res.Unsettled)
	require.Len(t, res.Pending, 2)
	require.Equal(t, adapter.SituationInFlight, res.Pending[0].Situation)
	require.Empty(t, w.keycloak.reads)

	// A call that opens while the user is read explains the difference too.
	delete(w.calls, "1")
	delete(w.calls, "2")
	w.keycloak.onUser = func(id string) { w.calls[id] = w.clock.Now() }
	require.Equal(t, 2, w.run().Unsettled)
	w.keycloak.onUser = nil
	delete(w.calls, "1")
	delete(w.calls, "2")
	require.Len(t, w.run().Findings, 2)
}

func TestUsersThatKeytrailIsCreatingAreInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.keycloak.put(person("2", "bob"), person("3", "cleo"))
	w.calls["named:Bob"] = w.clock.Now()
	res := w.run()
	require.Len(t, res.Findings, 1)
	require.Equal(t, "3", res.Findings[0].UserID)
	require.Len(t, res.Pending, 1)
	require.Equal(t, adapter.SituationInFlight, res.Pending[0].Situation)
}

func TestAWriteWhoseOutcomeNeverCameHidesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"), person("2", "bob"), person("3", "cleo"))
	for _, lost := range []string{"1", "2", "named:dan"} {
		w.calls[lost] = w.clock.Now()
	}
	w.clock.advance(maxCallTime - time.Minute)
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	w.keycloak.put(person("4", "dan"))
	w.keycloak.remove("3")
	res := w.run()
	require.Equal(t, 2, res.Unsettled, "they may be under way")
	require.Equal(t, map[adapter.Situation]int{adapter.SituationMissingLive: 1}, res.Counts)
	require.Nil(t, res.Findings[0].CallID)

	w.clock.advance(time.Minute)
	res = w.run()
	require.Equal(t, Drift, res.Verdict)
	require.Zero(t, res.Unsettled)
	require.Equal(t, map[adapter.Situation]int{
		adapter.SituationChanged: 1, adapter.SituationMissingLive: 1, adapter.SituationUnexpectedLive: 1,
	}, res.Counts)
	require.Equal(t, callOf("1"), *res.Findings[0].CallID)
	require.Equal(t, callOf("named:dan"), *res.Findings[2].CallID)
	require.Equal(t, res.Findings, w.run().Findings, "read from the log as it was found")
	require.Equal(t, 1, res.InSync, "bob is as believed, whatever became of the call")
}

func TestACallIsInFlightUntilItsLastAttemptHasSettled(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	call := adapter.Call{RequestedAt: begun}
	require.Equal(t, begun, lastSeen(call))
	call.Attempts = []adapter.CallAttempt{{StartedAt: begun.Add(time.Minute), DurationMS: 30_000}}
	require.Equal(t, begun.Add(90*time.Second), lastSeen(call))

	w := newWorld(t, func(c *Config) { c.Settle = time.Hour })
	w.baselined(person("1", "ann"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	w.calls["1"] = w.clock.Now()
	w.clock.advance(59 * time.Minute)
	require.Equal(t, 1, w.run().Unsettled)
	w.clock.advance(time.Minute)
	require.Equal(t, Drift, w.run().Verdict)
}

// A command that names its user knows the id only once it has read the user.
func TestCommandsThatNameTheUserAreInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	w.calls["named:Ann"] = w.clock.Now()
	res := w.run()
	require.Equal(t, 1, res.Unsettled)
	require.Equal(t, adapter.SituationInFlight, res.Pending[0].Situation)
}

func TestACallThatEndsWhileItsUserIsJudgedIsBelieved(t *testing.T) {
	t.Parallel()
	var calls callsFunc
	w := newWorld(t, func(c *Config) {
		c.Calls = callsFunc(func(id string) []adapter.Call { return calls(id) })
	})
	calls = func(string) []adapter.Call { return nil }
	w.baselined(person("1", "ann"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	// It was open when the user was read, and its outcome is recorded when it is looked for.
	looks := 0
	calls = func(string) []adapter.Call {
		if looks++; looks == 2 {
			w.happened(w.clock.Now(), &adapter.UserApiDisabled{UserChange: adapter.UserChange{
				UserRef: ref("1"), Set: adapter.Profile{Enabled: adapter.Set(false)},
			}})
		}
		return nil
	}
	require.Equal(t, InSync, w.run().Verdict)
	require.Empty(t, w.phases("1"))
	require.GreaterOrEqual(t, looks, 2)
}

func TestOpenDriftOutlivesARunThatCannotJudgeIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	require.Equal(t, Drift, w.run().Verdict)
	w.keycloak.change("1", func(u *keycloak.User) { u.FirstName = ptr("Eve") })
	w.calls["1"] = w.clock.Now()
	require.Equal(t, 1, w.run().Unsettled)
	require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared}, w.phases("1"))
}

func TestBeliefThatAdvancedMeanwhileIsNoDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	at := w.clock.Now()
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	w.clock.advance(time.Hour)
	// The event arrives after the projection was asked to catch up: the row is behind.
	w.projection.caughtUp = func() {
		w.happened(at, &adapter.UserApiDisabled{UserChange: adapter.UserChange{
			UserRef: ref("1"), Set: adapter.Profile{Enabled: adapter.Set(false)},
		}})
		w.projection.caughtUp = nil
	}
	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 1, res.InSync)
}

func TestTransientDifferenceIsNoDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	w.keycloak.onUser = func(id string) { w.keycloak.change(id, func(u *keycloak.User) { u.Enabled = ptr(true) }) }
	require.Equal(t, InSync, w.run().Verdict)
	require.Empty(t, w.phases("1"))
}

func TestStaleProjection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"), person("2", "bob"))
	require.Equal(t, InSync, w.run().Verdict)
	row := w.projection.users["1"]
	row.Email = ptr("old@example.org")
	w.projection.users["1"] = row
	// A row that has not taken the deletion.
	w.keycloak.put(person("3", "cleo"))
	w.happened(w.clock.Now(), &adapter.UserApiCreated{UserChange: adapter.UserChange{
		UserRef: ref("3"), Set: adapter.Profile{Username: adapter.Set("cleo")},
	}})
	deleted := w.happened(w.clock.Now(), &adapter.UserApiDeleted{UserRef: ref("3")})
	w.keycloak.remove("3")
	require.NoError(t, w.projection.CatchUp(t.Context(), realm))
	undead := w.projection.users["3"]
	undead.Deleted, undead.DeletedAt = false, nil
	w.projection.users["3"] = undead
	// And a row that no event accounts for.
	ghost := w.projection.users["2"]
	ghost.ID, ghost.Username = "ghost", "ghost"
	w.projection.users["ghost"] = ghost

	res := w.run()
	require.Equal(t, map[adapter.Situation]int{adapter.SituationStaleProjection: 3}, res.Counts)
	require.Equal(t, "1", res.Findings[0].UserID)
	require.JSONEq(t, `"old@example.org"`, string(res.Findings[0].Fields[0].Believed))
	require.JSONEq(t, `"ann@example.org"`, string(res.Findings[0].Fields[0].Actual))
	require.Equal(t, "3", res.Findings[1].UserID)
	require.Equal(t, "deleted", res.Findings[1].Fields[0].Field)
	require.Equal(t, "alice", res.Findings[1].Fields[0].LastChangedBy)
	require.Equal(t, deleted.ID, *res.Findings[1].Fields[0].LastChangedEvent)
}

func TestUnreadableUser(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"cut":          &admin.DecodeError{Op: "GET", Status: 200, Err: errors.New("unexpected end of JSON input")},
		"server error": &keycloak.APIError{Status: 500, Kind: keycloak.KindServer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.baselined(person("1", "ann"), person("2", "bob"))
			w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
			w.keycloak.broken["1"] = failure
			res := w.run()
			require.Len(t, res.Findings, 1)
			require.Equal(t, adapter.SituationUnreadable, res.Findings[0].Situation)
			delete(w.keycloak.broken, "1")
			require.Equal(t, adapter.SituationChanged, w.run().Findings[0].Situation)
			require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftAltered}, w.phases("1"))
		})
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	twin := person("2", "bob")
	twin.Email = ptr("Ann@example.org")
	federated := person("f:ldap:9", "BOB")
	federated.Email = nil
	w.baselined(person("1", "ann"), twin, federated, person("4", "dan"))

	res := w.run()
	require.Equal(t, map[adapter.Situation]int{adapter.SituationDuplicate: 3}, res.Counts)
	require.Equal(t, 4, res.Compared)
	require.Equal(t, 1, res.InSync)
	require.Equal(t, "1", res.Findings[0].UserID)
	require.Equal(t, adapter.FieldEmail, res.Findings[0].Fields[0].Field)
	require.Len(t, res.Findings[1].Fields, 2)
	require.Equal(t, "f:ldap:9", res.Findings[2].UserID)
	require.Equal(t, adapter.FieldUsername, res.Findings[2].Fields[0].Field)
	require.Equal(t, res.Findings, w.run().Findings)

	w.keycloak.change("2", func(u *keycloak.User) { u.Email = ptr("bob@example.org") })
	res = w.run()
	require.Equal(t, []adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftEnded}, w.phases("1"))
	require.Equal(t, 2, res.Counts[adapter.SituationDuplicate])
}

func TestSharedAddressesWhereTheRealmPermitsThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		c.DuplicateEmails = func(context.Context, string) (bool, error) { return true, nil }
	})
	twin := person("2", "bob")
	twin.Email = ptr("ann@example.org")
	w.baselined(person("1", "ann"), twin)
	require.Equal(t, InSync, w.run().Verdict)
}

func TestAnAddressThatWanderedIsNoDuplicate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.PageSize = 1 })
	w.baselined(person("1", "ann"), person("2", "bob"))
	w.keycloak.onPage = func(first int) {
		if first == 1 {
			w.keycloak.change("1", func(u *keycloak.User) { u.Email = ptr("free@example.org") })
			w.keycloak.change("2", func(u *keycloak.User) { u.Email = ptr("ann@example.org") })
		}
	}
	res := w.run()
	require.Zero(t, res.Counts[adapter.SituationDuplicate])
}

func TestFieldsNeverSeenAreAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	ben := person("2", "ben")
	ben.Attributes = map[string][]string{"team": {"blue"}}
	w.keycloak.put(ben)
	w.happened(w.clock.Now(), &adapter.UserApiObserved{
		UserRef: ref("2"), Present: true, Set: adapter.Profile{Enabled: adapter.Set(true)},
	})
	w.clock.advance(time.Hour)

	res := w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 1, res.Observed)
	seen := recordedAs[*adapter.UserApiObserved](w)
	require.Len(t, seen, 2)
	require.Equal(t, "reconciliation", seen[1].Because)
	require.NotContains(t, seen[1].Set.Fields(), adapter.FieldEnabled)
	require.Contains(t, seen[1].Set.Fields(), adapter.FieldAttributes)

	w.clock.advance(time.Hour)
	require.Zero(t, w.run().Observed)
	w.keycloak.change("2", func(u *keycloak.User) { u.Attributes = nil })
	res = w.run()
	require.Equal(t, adapter.FieldAttributes, res.Findings[0].Fields[0].Field)
	require.JSONEq(t, `{"team":["blue"]}`, string(res.Findings[0].Fields[0].Believed))
	require.JSONEq(t, `null`, string(res.Findings[0].Fields[0].Actual))
}

func TestDroppedAttributesAreObserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.happened(w.clock.Now(), &adapter.UserApiUpdated{UserChange: adapter.UserChange{
		UserRef: ref("1"), Inferred: []string{adapter.FieldAttributes},
		Set: adapter.Profile{Attributes: adapter.Set(map[string][]string{"team": {"blue"}, "shoe": {"42"}})},
	}})
	w.keycloak.change("1", func(u *keycloak.User) { u.Attributes = map[string][]string{"team": {"blue"}} })

	res := w.run()
	require.Equal(t, 1, res.Unsettled, "the echo's own time is not over")
	require.Zero(t, res.Observed)

	w.clock.advance(time.Hour)
	res = w.run()
	require.Equal(t, InSync, res.Verdict)
	require.Equal(t, 1, res.Observed)

	// What was read back and is changed behind our back is drift.
	w.clock.advance(time.Hour)
	w.keycloak.change("1", func(u *keycloak.User) { u.Attributes = nil })
	require.Equal(t, Drift, w.run().Verdict)
}

// What was inferred is noted as it is, whatever the field, and from then on a change
// of it is drift: also where it had turned out as inferred.
func TestInferredFieldsAreObserved(t *testing.T) {
	t.Parallel()
	for name, live := range map[string]string{"otherwise": "Stone", "as inferred": "Moss"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.baselined(person("1", "ann"))
			w.happened(w.clock.Now(), &adapter.UserApiUpdated{UserChange: adapter.UserChange{
				UserRef: ref("1"), Inferred: []string{adapter.FieldLastName}, Set: adapter.Profile{LastName: adapter.Set("Moss")},
			}})
			w.keycloak.change("1", func(u *keycloak.User) { u.LastName = &live })
			require.Zero(t, w.run().Observed, "too young")

			w.clock.advance(time.Hour)
			res := w.run()
			require.Equal(t, InSync, res.Verdict)
			require.Equal(t, 1, res.Observed)
			seen := recordedAs[*adapter.UserApiObserved](w)
			require.Equal(t, []string{adapter.FieldLastName}, seen[0].Set.Fields())
			require.Equal(t, adapter.Set(live), seen[0].Set.LastName)

			w.clock.advance(time.Hour)
			require.Zero(t, w.run().Observed, "once")
			elsewhere := "Elsewhere"
			w.keycloak.change("1", func(u *keycloak.User) { u.LastName = &elsewhere })
			res = w.run()
			require.Equal(t, Drift, res.Verdict)
			require.JSONEq(t, strconv.Quote(live), string(res.Findings[0].Fields[0].Believed))
		})
	}
}

func TestBriefListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann := person("1", "ann")
	ann.Attributes = map[string][]string{"team": {"blue"}}
	w.baselined(ann)
	brief := &briefKeycloak{fakeKeycloak: w.keycloak}
	w.runner.Live = brief
	require.Equal(t, InSync, w.run().Verdict)
	w.keycloak.change("1", func(u *keycloak.User) { u.Attributes = nil })
	require.Equal(t, Drift, w.run().Verdict)
}

type briefKeycloak struct{ *fakeKeycloak }

func (k *briefKeycloak) Users(ctx context.Context, realm string, first, max int) ([]keycloak.User, error) {
	page, err := k.fakeKeycloak.Users(ctx, realm, first, max)
	for i := range page {
		page[i].Attributes, page[i].RequiredActions = nil, nil
	}
	return page, err
}

func TestPagesThatShift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var users []keycloak.User
	for i := range 10 {
		users = append(users, person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
	}
	w.baselined(users...)
	renamed := map[int]func(){
		// A listed user moves to the end: everyone after it moves up, one is skipped.
		3: func() { w.keycloak.change("0", func(u *keycloak.User) { u.Username = "zed" }) },
		// Another comes to the front: somebody is listed twice.
		6: func() { w.keycloak.change("9", func(u *keycloak.User) { u.Username = "aaa" }) },
	}
	w.keycloak.onPage = func(first int) {
		if f := renamed[first]; f != nil {
			delete(renamed, first)
			f()
		}
	}
	res := w.run()
	require.Equal(t, 10, res.Compared, "each user once")
	for _, f := range res.Findings {
		require.Equal(t, adapter.SituationChanged, f.Situation)
	}
}

func TestBaselineFindsUsersThatSlippedBetweenPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 10 {
		w.keycloak.put(person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
	}
	once := true
	w.keycloak.onPage = func(first int) {
		if first == 3 && once {
			once = false
			w.keycloak.change("0", func(u *keycloak.User) { u.Username = "zed" })
		}
	}
	require.Equal(t, 10, w.run().Baselined)
}

func TestInvalidListings(t *testing.T) {
	t.Parallel()
	forbidden := &keycloak.APIError{Status: http.StatusForbidden, Kind: keycloak.KindForbidden}
	for name, c := range map[string]struct {
		spoil func(*world)
		code  adapter.Code
		says  string
	}{
		"query-users alone": {
			spoil: func(w *world) { w.keycloak.hidden = func(string) bool { return true } },
			code:  adapter.CodeListingEmpty, says: "view-users",
		},
		"empty": {
			spoil: func(w *world) { clear(w.keycloak.users) },
			code:  adapter.CodeListingEmpty, says: "are believed to exist",
		},
		"short": {
			spoil: func(w *world) { w.keycloak.hidden = func(id string) bool { return id == "3" } },
			code:  adapter.CodeListingIncomplete, says: "counts 7 users",
		},
		"cut page": {
			spoil: func(w *world) { w.failAt(3, &admin.DecodeError{Op: "GET", Err: errors.New("unexpected EOF")}) },
			code:  adapter.CodeListingIncomplete, says: "users from 3 on",
		},
		"entry without id": {
			spoil: func(w *world) { w.keycloak.put(keycloak.User{Username: "nobody"}) },
			code:  adapter.CodeListingIncomplete, says: "has no id",
		},
		"offset ignored": {
			spoil: func(w *world) { w.keycloak.ignoreFirst = true },
			code:  adapter.CodeListingIncomplete, says: "does not end",
		},
		"failed page": {
			spoil: func(w *world) { w.failAt(6, &keycloak.APIError{Status: 503, Kind: keycloak.KindUnavailable}) },
			code:  adapter.CodeKeycloakUnavailable, says: "users from 6 on",
		},
		"forbidden": {
			spoil: func(w *world) { w.keycloak.listing = forbidden },
			code:  adapter.CodeKeycloakForbidden, says: "view-users",
		},
		"count forbidden": {
			spoil: func(w *world) { w.keycloak.counting = forbidden },
			code:  adapter.CodeKeycloakForbidden, says: "view-users",
		},
		"token refused": {
			spoil: func(w *world) {
				w.keycloak.counting = &keycloak.APIError{Status: 401, Kind: keycloak.KindUnauthorized}
			},
			code: adapter.CodeKeycloakUnauthorized, says: "secret",
		},
		"unreachable": {
			spoil: func(w *world) {
				w.keycloak.counting = &admin.TransportError{Op: "GET", Kind: admin.KindRefused, Err: errors.New("refused")}
			},
			code: adapter.CodeKeycloakUnreachable, says: "KEYTRAIL_KEYCLOAK_URL",
		},
		"client refused": {
			spoil: func(w *world) {
				w.keycloak.counting = &admin.TokenError{Err: &keycloak.APIError{Status: 400, Kind: keycloak.KindInvalid, Code: "invalid_client"}}
			},
			code: adapter.CodeKeycloakUnauthorized, says: "secret",
		},
		"no token for a read": {
			spoil: func(w *world) {
				w.keycloak.remove("6")
				w.keycloak.broken["6"] = &admin.TokenError{Err: &keycloak.APIError{Status: 500, Kind: keycloak.KindServer}}
			},
			code: adapter.CodeKeycloakUnavailable, says: "reading user 6",
		},
		"user forbidden": {
			spoil: func(w *world) { w.keycloak.remove("6"); w.keycloak.broken["6"] = forbidden },
			code:  adapter.CodeKeycloakForbidden, says: "view-users",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var users []keycloak.User
			for i := range 7 {
				users = append(users, person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
			}
			w.baselined(users...)
			c.spoil(w)
			res, err := w.fail(t.Context())
			require.Equal(t, 3, res.Verdict.ExitCode())
			require.Equal(t, adapter.RunInvalid, res.Status)
			require.Equal(t, c.code, err.Code)
			require.NotEmpty(t, err.Try)
			require.Contains(t, res.Error, c.says)
			require.Empty(t, recordedAs[*adapter.DriftDetected](w))
			ended := recordedAs[*adapter.ReconciliationAborted](w)
			require.Len(t, ended, 1)
			require.Equal(t, c.code, ended[0].Code)
		})
	}
}

// failAt makes the page at this offset fail.
func (w *world) failAt(first int, err error) {
	w.keycloak.onPage = func(at int) {
		if at == first {
			w.keycloak.listing = err
		}
	}
}

func TestEmptyRealm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account := person("sa", "service-account-crm")
	account.ServiceAccountClientID = ptr("crm")
	w.keycloak.put(account)
	w.happened(w.clock.Now(), &adapter.UserApiRolesChanged{UserRef: ref("sa"), Added: []adapter.Role{{Name: "reader"}}})
	w.clock.advance(time.Hour)
	require.Equal(t, InSync, w.run().Verdict)
}

func TestCatchingUpFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.projection.fail = errors.New("a projection is parked")
	res, err := w.fail(t.Context())
	require.Equal(t, adapter.RunAborted, res.Status)
	require.Equal(t, adapter.CodeProjectionBehind, err.Code)
	w.projection.fail = fmt.Errorf("poll: %w", &admin.TransportError{Kind: admin.KindTimeout, Err: errors.New("slow")})
	_, err = w.fail(t.Context())
	require.Equal(t, adapter.CodeKeycloakUnreachable, err.Code)
	require.Zero(t, w.keycloak.pages)
}

func TestCancelledRunIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 7 {
		w.keycloak.put(person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.keycloak.onPage = func(first int) {
		if first == 3 {
			cancel()
		}
	}
	res, err := w.fail(ctx)
	require.Equal(t, adapter.RunAborted, res.Status)
	require.Equal(t, adapter.CodeInterrupted, err.Code)
	require.NotNil(t, res.FinishedAt)
	require.Len(t, recordedAs[*adapter.ReconciliationAborted](w), 1)
}

// flakyStore answers some appends with an error, after or instead of doing them.
type flakyStore struct {
	eventstore.Store
	// fail is asked for each append; done says whether it is carried out all the same.
	fail func(eventType string) (done bool, err error)
}

func (s *flakyStore) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	last := appends[len(appends)-1].Events
	done, err := s.fail(last[len(last)-1].Type)
	if err == nil {
		return s.Store.Append(ctx, appends...)
	}
	if done {
		if _, storeErr := s.Store.Append(ctx, appends...); storeErr != nil {
			return nil, storeErr
		}
	}
	return nil, err
}

func TestStoreFails(t *testing.T) {
	t.Parallel()
	for _, eventType := range []string{
		adapter.TypeReconciliationStarted, adapter.TypeUserApiBaselined, adapter.TypeReconciliationCompleted,
	} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s recorded %t", eventType, done), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.keycloak.put(person("1", "ann"))
				once := true
				w.runner.Store = &flakyStore{Store: w.store, fail: func(e string) (bool, error) {
					if e != eventType || !once {
						return false, nil
					}
					once = false
					return done, fmt.Errorf("commit: %w", eventstore.ErrUnavailable)
				}}
				res, err := w.runner.Run(t.Context(), Request{Realm: realm, Trigger: "cli"})
				if eventType == adapter.TypeReconciliationCompleted {
					require.NoError(t, err, "the same append again completes the run")
					require.Equal(t, adapter.RunCompleted, res.Status)
				} else {
					require.Equal(t, adapter.CodeStoreUnavailable, adapter.CodeOf(err))
					require.Equal(t, adapter.RunAborted, res.Status)
				}
				left, err := LogHistory{Log: w.store, Codec: w.codec}.Unfinished(t.Context(), realm)
				require.NoError(t, err)
				require.Empty(t, left, "what was recorded of the run has an end")
				require.Equal(t, InSync, w.run().Verdict)
				require.Len(t, recordedAs[*adapter.UserApiBaselined](w), 1)
			})
		}
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Settle: -1})
	for _, name := range []string{"Store", "Codec", "Live", "Believed", "Calls", "History", "Settler", "Clock", "settle time"} {
		require.ErrorContains(t, err, name)
	}
	w := newWorld(t, func(c *Config) { c.PageSize, c.MaxReads, c.Reads = 9999, 0, nil })
	require.Equal(t, MaxPageSize, w.runner.PageSize)
	require.Equal(t, DefaultMaxReads, w.runner.MaxReads)
	require.Equal(t, DefaultReadRate, w.runner.Reads.Limit())
	_, err = w.runner.Run(t.Context(), Request{})
	require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err))
}

func TestUnfinishedRunIsEndedByTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keycloak.put(person("1", "ann"))
	// The first run meets a second one that believes it dead.
	var second Result
	w.keycloak.onPage = func(int) {
		w.keycloak.onPage = nil
		second = w.run()
	}
	res, err := w.fail(t.Context())
	require.Equal(t, adapter.CodeRunInProgress, err.Code)
	require.Equal(t, adapter.RunAborted, res.Status)
	require.Equal(t, 1, second.Baselined)

	h := LogHistory{Log: w.store, Codec: w.codec}
	left, uerr := h.Unfinished(t.Context(), realm)
	require.NoError(t, uerr)
	require.Empty(t, left)
	ended := recordedAs[*adapter.ReconciliationAborted](w)
	require.Len(t, ended, 1)
	require.Equal(t, adapter.CodeInterrupted, ended[0].Code)
	require.Len(t, recordedAs[*adapter.UserApiBaselined](w), 1)
}

func TestRunsAtTheSameTimeCorruptNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 20 {
		w.keycloak.put(person(fmt.Sprint(i), fmt.Sprintf("user%02d", i)))
	}
	both := func() []error {
		errs := make(chan error, 2)
		for range 2 {
			c := w.runner.Config
			p := &projection{store: w.store, codec: w.codec, users: map[string]adapter.User{}}
			c.Believed, c.Settler = p, p
			r, err := New(c)
			require.NoError(t, err)
			go func() {
				_, err := r.Run(t.Context(), Request{Realm: realm, Trigger: "cli"})
				errs <- err
			}()
		}
		return []error{<-errs, <-errs}
	}
	oneCompletes := func(errs []error) {
		t.Helper()
		completed := 0
		for _, err := range errs {
			if err == nil {
				completed++
			} else {
				require.Equal(t, adapter.CodeRunInProgress, adapter.CodeOf(err), "%v", err)
			}
		}
		require.Positive(t, completed)
	}
	oneCompletes(both())
	require.Len(t, recordedAs[*adapter.UserApiBaselined](w), 20)
	w.clock.advance(time.Hour)
	for i := range 5 {
		w.keycloak.change(fmt.Sprint(i), func(u *keycloak.User) { u.Enabled = ptr(false) })
	}
	oneCompletes(both())
	once := map[string]int{}
	for _, d := range recordedAs[*adapter.DriftDetected](w) {
		require.Equal(t, adapter.SituationChanged, d.Situation)
		once[d.RunID.String()+d.UserID]++
	}
	require.NotEmpty(t, once)
	for key, n := range once {
		require.Equal(t, 1, n, key)
	}
	require.NoError(t, w.projection.CatchUp(t.Context(), realm))
	require.Equal(t, 5, w.run().FindingsTotal)
}

func TestUserHeardOfWhileItIsAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keycloak.put(person("1", "ann"), person("2", "bob"))
	w.projection.caughtUp = func() {
		w.projection.caughtUp = nil
		w.happened(w.clock.Now(), &adapter.UserApiCreated{UserChange: adapter.UserChange{
			UserRef: ref("1"), Set: adapter.Profile{Username: adapter.Set("ann")},
		}})
	}
	res := w.run()
	require.Equal(t, 1, res.Baselined)
	require.Equal(t, 1, res.Unsettled)
}

func TestMoreSuspectsThanARunReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.MaxReads = 2 })
	var users []keycloak.User
	for i := range 8 {
		users = append(users, person(fmt.Sprint(i), fmt.Sprintf("user%d", i)))
	}
	w.baselined(users...)
	for i := range 5 {
		w.keycloak.change(fmt.Sprint(i), func(u *keycloak.User) { u.Enabled = ptr(false) })
	}
	w.keycloak.remove("7")

	res := w.run()
	require.Equal(t, 3, res.FindingsTotal)
	require.Equal(t, 3, res.Unread)
	require.Equal(t, 3, res.Unsettled)
	require.Equal(t, 2, res.InSync)
	w.run()
	res = w.run()
	require.Equal(t, 6, res.FindingsTotal, "known drifts do not use up the next run's reads")
	require.Zero(t, res.Unread)
}

func TestAnotherRealmIsAnotherStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	w.keycloak.change("1", func(u *keycloak.User) { u.Enabled = ptr(false) })
	require.Equal(t, Drift, w.run().Verdict)
	h := LogHistory{Log: w.store, Codec: w.codec}
	done, err := h.Baselined(t.Context(), "other")
	require.NoError(t, err)
	require.False(t, done)
	open, err := h.OpenDrifts(t.Context(), "other")
	require.NoError(t, err)
	require.Empty(t, open)
}

// manyKeycloak makes up its users as they are asked for. Each has one role in seven and
// is a member of the group /all.
type manyKeycloak struct {
	*fakeKeycloak
	n       int
	changed map[int]bool
}

func newManyKeycloak(n int) manyKeycloak {
	k := manyKeycloak{fakeKeycloak: newFakeKeycloak(), n: n, changed: map[int]bool{}}
	for i := range 7 {
		k.members.roles[fmt.Sprint("role-", i)] = nil
	}
	k.members.groups["/all"] = nil
	return k
}

func (k manyKeycloak) some(first, limit, step, from int) []keycloak.User {
	var out []keycloak.User
	for i := from + first*step; i < k.n && len(out) < limit; i += step {
		out = append(out, keycloak.User{ID: fmt.Sprintf("id-%06d", i), Username: "x"})
	}
	return out
}

func (k manyKeycloak) RoleUsers(_ context.Context, _, _, role string, first, limit int) ([]keycloak.User, error) {
	var i int
	_, err := fmt.Sscanf(role, "role-%d", &i)
	return k.some(first, limit, 7, i), err
}

func (k manyKeycloak) GroupMembers(_ context.Context, _, _ string, first, limit int) ([]keycloak.User, error) {
	return k.some(first, limit, 1, 0), nil
}

func (k manyKeycloak) memberships(id string) adapter.Memberships {
	var i int
	_, _ = fmt.Sscanf(id, "id-%d", &i)
	return adapter.Memberships{
		Roles: adapter.Set([]string{fmt.Sprint("role-", i%7)}), ClientRoles: adapter.Set(map[string][]string{}),
		Groups: adapter.Set([]string{"/all"}),
	}
}

func (k manyKeycloak) user(i int) keycloak.User {
	u := person(fmt.Sprintf("id-%06d", i), fmt.Sprintf("user-%06d", i))
	if k.changed[i] {
		u.LastName = ptr("Mallory")
	}
	return u
}

func (k manyKeycloak) CountUsers(context.Context, string) (int, error) { return k.n, nil }

func (k manyKeycloak) Users(_ context.Context, _ string, first, max int) ([]keycloak.User, error) {
	var page []keycloak.User
	for i := first; i < min(first+max, k.n); i++ {
		page = append(page, k.user(i))
	}
	return page, nil
}

func (k manyKeycloak) User(_ context.Context, _, id string) (keycloak.User, error) {
	var i int
	if _, err := fmt.Sscanf(id, "id-%d", &i); err != nil {
		return keycloak.User{}, err
	}
	return k.user(i), nil
}

// manyBelieved believes what manyKeycloak says.
type manyBelieved struct{ live manyKeycloak }

func (b manyBelieved) user(u keycloak.User) adapter.User {
	return folded(event(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), &adapter.UserApiBaselined{
		UserRef: ref(u.ID), Set: profileOf(u, true), Memberships: b.live.memberships(u.ID),
	}))
}

func (b manyBelieved) Users(ctx context.Context, _ string, ids []string) (map[string]adapter.User, error) {
	out := map[string]adapter.User{}
	for _, id := range ids {
		u, err := b.live.User(ctx, realm, id)
		if err != nil {
			return nil, err
		}
		out[id] = b.user(u)
	}
	return out, nil
}

func (b manyBelieved) Each(_ context.Context, _ string, fn func(adapter.User) error) error {
	for i := range b.live.n {
		if err := fn(b.user(b.live.user(i))); err != nil {
			return err
		}
	}
	return nil
}

// TestMemoryIsBounded holds a run over 10,000 users to what its digests need. A
// list of the users alone would take over 5 MiB.
func TestMemoryIsBounded(t *testing.T) {
	const users = 10_000
	live := newManyKeycloak(users)
	w := newWorld(t, func(c *Config) {
		c.Live, c.Believed, c.PageSize = live, manyBelieved{live: live}, MaxPageSize
	})
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var held int64
	w.runner.Believed = eachHook{Believed: w.runner.Believed, before: func() { held = heap() - before }}
	res := w.run()
	require.Equal(t, users, res.Compared)
	require.Equal(t, users, res.InSync)
	require.Less(t, held, int64(2<<20), "bytes held when all users were listed")
}

type eachHook struct {
	Believed
	before func()
}

func (h eachHook) Each(ctx context.Context, realm string, fn func(adapter.User) error) error {
	h.before()
	return h.Believed.Each(ctx, realm, fn)
}

func TestThousandsOfUsersAreAdopted(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 2,000 events")
	}
	live := newManyKeycloak(2_000)
	w := newWorld(t, func(c *Config) { c.Live, c.PageSize = live, MaxPageSize })
	require.Equal(t, live.n, w.run().Baselined)
	w.clock.advance(time.Hour)
	live.changed[77], live.changed[1_999] = true, true
	res := w.run()
	require.Equal(t, 2, res.FindingsTotal)
	require.Equal(t, live.n, res.Compared)
}

func TestResultIsTheOutsideForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.baselined(person("1", "ann"))
	b, err := json.Marshal(w.run())
	require.NoError(t, err)
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(b, &fields))
	for _, name := range []string{
		"run_id", "correlation_id", "realm", "status", "started_at", "finished_at", "compared", "in_sync", "findings", "findings_total",
	} {
		require.Contains(t, fields, name)
	}
	require.JSONEq(t, `[]`, string(fields["findings"]))
}
