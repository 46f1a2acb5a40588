package trace

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/internal/seal"
)

func TestStories(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.everything()
	paris, err := time.LoadLocation("Europe/Paris")
	require.NoError(t, err)

	for _, c := range []struct {
		name    string
		id      string
		status  Status
		options Options
	}{
		{name: "retried_and_echoed", id: id("disable").String(), status: StatusOK},
		{name: "retried_and_echoed_narrow", id: id("disable").String(), status: StatusOK, options: Options{Width: 80}},
		{name: "retried_and_echoed_color", id: id("disable").String(), status: StatusOK, options: Options{Color: true, Location: paris}},
		{name: "created_in_keycloak", id: id("bob created").String(), status: StatusOK},
		{name: "conflict", id: id("conflict").String(), status: StatusFailed},
		{name: "refused", id: id("skipped").String(), status: StatusFailed},
		{name: "unknown", id: id("unknown").String(), status: StatusUnknown},
		{name: "open", id: id("open").String(), status: StatusOpen},
		{name: "drift", id: id("run").String(), status: StatusFailed, options: Options{Width: 120}},
		{name: "invalid_run", id: id("invalid run").String(), status: StatusFailed, options: Options{Width: 120}},
		{name: "parked", id: "8d1c0000-0000-4000-8000-00000000bad0", status: StatusFailed, options: Options{Width: 120}},
		{name: "strange", id: id("strange story").String(), status: StatusOK},
		{name: "user", id: "bob", status: StatusOK, options: Options{Width: 120}},
	} {
		t.Run(c.name, func(t *testing.T) {
			trace := w.find(c.id)
			require.Equal(t, c.status, trace.Status)
			got := render(t, trace, c.options)
			golden(t, c.name+".txt", got)
			require.Equal(t, got, render(t, w.find(c.id), c.options), "the same events give the same text")
		})
	}
}

func TestFindTakesAnyID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.everything()
	for _, c := range []struct{ name, id, want string }{
		{"correlation", id("disable story").String(), "disable story"},
		{"correlation in capitals", strings.ToUpper(id("disable story").String()), "disable story"},
		{"with blanks around", "  " + id("disable story").String() + "\n", "disable story"},
		{"event", id("disable attempt 2").String(), "disable story"},
		{"call", id("disable").String(), "disable story"},
		{"call's stream", "call/" + id("disable").String(), "disable story"},
		{"call's stamp", "urn:keytrail:call:" + id("disable").String(), "disable story"},
		{"delivery's aggregate id", adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000c0de").AggregateID().String(), "create story"},
		{"delivery's stream", "delivery/8d1c0000-0000-4000-8000-00000000c0de", "create story"},
		{"Keycloak event id", "8d1c0000-0000-4000-8000-00000000c0de", "create story"},
		{"Keycloak event id in capitals", "8D1C0000-0000-4000-8000-00000000C0DE", "create story"},
		{"run", id("run").String(), "run story"},
		{"run's stream", "reconciliation/" + id("run").String(), "run story"},
		{"user id", bobID, "disable story"},
		{"user name", "bob", "disable story"},
		{"user's stream", "user/acme/" + bobID, "disable story"},
		{"user's aggregate id", adapter.UserStream(realm, bobID).AggregateID().String(), "disable story"},
		{"user id that is no UUID", carolID, "strange story"},
		{"user's stream with such an id", "user/acme/f:2b0e:carol", "strange story"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, id(c.want), w.find(c.id).CorrelationID)
		})
	}
}

func TestFindUnknownID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.everything()
	for _, unknown := range []string{
		"", " ", "nobody", "00000000-0000-0000-0000-000000000000", id("never").String(), "call/", "call/nonsense",
		"user/acme/nobody", "user/acme", "delivery/x", "a/b/c", "\x1b[31m" + strings.Repeat("x", 5000), "%zz/%zz",
	} {
		_, err := w.finder().Find(t.Context(), unknown, "")
		var failure *adapter.Error
		require.ErrorAs(t, err, &failure, "%q", unknown)
		require.Equal(t, adapter.CodeNotFound, failure.Code)
		require.NotEmpty(t, failure.Try)
		require.Less(t, len(err.Error()), 300)
		require.NotContains(t, err.Error(), "\x1b")
	}
	_, err := w.finder().Find(t.Context(), "twin", "")
	var failure *adapter.Error
	require.ErrorAs(t, err, &failure)
	require.Equal(t, adapter.CodeInvalidRequest, failure.Code, "an ambiguous name is said to be one")
	require.Equal(t, "say which one: t1 --realm acme, t2 --realm globex", failure.Try)

	_, err = w.finder().Find(t.Context(), "bob", "globex")
	require.Equal(t, adapter.CodeNotFound, adapter.CodeOf(err))

	alone := &Finder{Store: w.store, Codec: w.codec}
	_, err = alone.Find(t.Context(), bobID, "")
	require.Equal(t, adapter.CodeNotFound, adapter.CodeOf(err))
	found, err := alone.Find(t.Context(), bobID, realm)
	require.NoError(t, err)
	require.Equal(t, id("disable story"), found.CorrelationID)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.finder().Find(ctx, "bob", "")
	require.ErrorIs(t, err, context.Canceled)
}

// An echo arrives in a story of its own. Whichever end one pulls, the call's story
// comes, with the delivery in it.
func TestEchoBelongsToTheCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.created()
	w.disabled()
	want := w.find(id("disable").String())
	require.Contains(t, idsOf(want), id("echo delivery"))
	require.NotContains(t, idsOf(want), id("create delivery"))
	for _, end := range []string{
		"8d1c0000-0000-4000-8000-00000000e0c0", // the delivery's Keycloak event id
		"delivery/8d1c0000-0000-4000-8000-00000000e0c0",
		id("echo delivery").String(),
		id("echo story").String(), // what the webhook's answer called its correlation
		id("echoed").String(),
		id("bob disabled").String(),
	} {
		require.Equal(t, want, w.find(end), end)
	}
}

// One request may bring an echo among other events. It stays a story of its own, and
// the call is shown whole in it.
func TestBatchWithAnEcho(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.disabled()
	login := fact{
		id: "login", stream: adapter.DeliveryStream("login"), story: "echo story", ms: 1500, lag: 300, source: "webhook:keycloak",
		links:   []adapter.Link{{EventID: id("echo delivery"), Relation: relationBatch}},
		payload: &adapter.UserEventReceived{Type: "LOGIN", Realm: realm, UserID: bobID, ClientID: "shop", Details: map[string]string{"username": "bob"}, Receipt: adapter.Receipt{Source: "keycloak"}},
	}
	w.record(login)

	batch := w.find(id("echo story").String())
	require.Equal(t, id("echo story"), batch.CorrelationID)
	require.Subset(t, idsOf(batch), []uuid.UUID{id("login"), id("echo delivery"), id("disable requested"), id("disable attempt 3"), id("disable outcome")})
	require.Len(t, batch.Calls, 1)
	require.Equal(t, adapter.CallSucceeded, batch.Calls[0].Status)

	require.Equal(t, id("disable story"), w.find("8d1c0000-0000-4000-8000-00000000e0c0").CorrelationID)
	require.NotContains(t, idsOf(w.find(id("disable").String())), id("login"), "who shares a request is no cause")
}

func TestClosureFollowsCausesAndEffects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := adapter.UserStream(realm, bobID)
	observed := func(name, story, cause string, ms int, links ...adapter.Link) fact {
		return fact{id: name, stream: user, story: story, cause: cause, ms: ms, links: links, payload: &adapter.UserApiObserved{UserRef: bob, Present: true}}
	}
	w.record(
		observed("origin", "a", "", 0),
		observed("cause", "b", "origin", 10),
		observed("sibling", "c", "cause", 20), // what else followed from the cause
		observed("linked", "d", "", 30),
		observed("main", "m", "cause", 40, adapter.Link{EventID: id("linked"), Relation: "merge"}, adapter.Link{EventID: id("gone"), Relation: "merge"}),
		observed("effect", "e", "main", 50),
		observed("effect's effect", "f", "effect", 60),
		observed("stranger", "e", "", 70), // shares the effect's correlation only
	)
	got := w.find(id("main").String())
	require.Equal(t, id("m"), got.CorrelationID)
	require.Equal(t, []uuid.UUID{id("origin"), id("cause"), id("linked"), id("main"), id("effect"), id("effect's effect")}, idsOf(got))
	require.Equal(t, at(40), got.StartedAt, "what came before is not the story's beginning")
	require.Equal(t, at(60), *got.EndedAt)
}

// Causes that run in a circle, which no honest writer makes, must not hang anything.
func TestCircularCauses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := adapter.UserStream(realm, bobID)
	w.record(
		fact{id: "a", stream: user, story: "circle", cause: "b", ms: 0, payload: &adapter.UserApiDeleted{UserRef: bob}},
		fact{id: "b", stream: user, story: "circle", cause: "a", ms: 1, payload: &adapter.UserApiDeleted{UserRef: bob}},
		fact{id: "c", stream: user, story: "circle", cause: "c", ms: 2, payload: &adapter.UserApiDeleted{UserRef: bob}},
	)
	got := w.find(id("a").String())
	require.Len(t, got.Events, 3)
	require.Equal(t, 3, strings.Count(string(render(t, got, Options{})), "s  user "), "each is told once")
}

func TestNoEventBeforeItsCause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(
		fact{id: "fast clock", stream: adapter.DeliveryStream("x"), story: "s", ms: 5000, payload: &adapter.UserEventReceived{Type: "LOGIN"}},
		fact{id: "derived", stream: adapter.UserStream(realm, bobID), story: "s", cause: "fast clock", ms: 100, payload: &adapter.UserApiDeleted{UserRef: bob}},
		fact{id: "before", stream: adapter.UserStream(realm, carolID), story: "s", ms: 50, payload: &adapter.UserApiDeleted{UserRef: adapter.UserRef{Realm: realm, UserID: carolID}}},
	)
	require.Equal(t, []uuid.UUID{id("before"), id("fast clock"), id("derived")}, idsOf(w.find(id("s").String())))
}

func TestLongStoryIsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runID := id("long run")
	stream := adapter.ReconciliationStream(runID)
	w.record(fact{id: "long run started", stream: stream, story: "long", payload: &adapter.ReconciliationStarted{RunID: runID, Realm: realm, Trigger: "cli", Baseline: true}})
	for i := range 60 {
		ref := adapter.UserRef{Realm: realm, UserID: "u" + strconv.Itoa(i)}
		w.record(fact{
			id: ref.UserID, stream: adapter.UserStream(realm, ref.UserID), story: "long", cause: "long run started", ms: i + 1,
			payload: &adapter.UserApiBaselined{UserRef: ref, Set: adapter.Profile{Username: adapter.Set(ref.UserID + "-name")}},
		})
	}
	w.record(
		fact{id: "long run completed", stream: stream, story: "long", cause: "long run started", ms: 100, payload: &adapter.ReconciliationCompleted{RunID: runID, Realm: realm, Compared: 60, InSync: 60, Baselined: 60}},
		fact{id: "later", stream: adapter.UserStream(realm, "u1"), story: "later", cause: "u1", ms: 200, payload: &adapter.UserApiDeleted{UserRef: adapter.UserRef{Realm: realm, UserID: "u1"}}},
	)
	f := w.finder()
	f.MaxEvents = 20
	cut, err := f.Find(t.Context(), runID.String(), "")
	require.NoError(t, err)
	require.True(t, cut.Truncated)
	require.Len(t, cut.Events, 20)
	require.Equal(t, id("long run started"), cut.Events[0].EventID)
	require.Equal(t, id("long run completed"), cut.Events[19].EventID, "how it ended is never cut off")
	require.Equal(t, StatusOK, cut.Status)
	golden(t, "cut.txt", render(t, cut, Options{Width: 120}))

	asked, err := f.Find(t.Context(), id("u40").String(), "")
	require.NoError(t, err)
	require.Contains(t, idsOf(asked), id("u40"), "nor is what was asked for")

	whole := w.find(runID.String())
	require.False(t, whole.Truncated)
	require.Len(t, whole.Events, 63)
	require.Contains(t, idsOf(whole), id("later"))

	f.MaxEvents = 62 // the main story fits, what followed from it does not
	full, err := f.Find(t.Context(), runID.String(), "")
	require.NoError(t, err)
	require.Len(t, full.Events, 62)
	require.True(t, full.Truncated)
}

func TestCutCallsAreFoldedWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.disabled()
	f := w.finder()
	f.MaxEvents = 3 // the request, an attempt, and the echo at the end
	cut, err := f.Find(t.Context(), id("disable").String(), "")
	require.NoError(t, err)
	require.True(t, cut.Truncated)
	require.Equal(t, StatusOK, cut.Status)
	require.Len(t, cut.Calls[0].Attempts, 3)
}

func TestOthersOfAUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.everything()
	f := w.finder()
	f.Stories = stories{id("conflict story"), id("run story"), id("disable story"), uuid.Nil, id("nothing there")}
	got, err := f.Find(t.Context(), "bob", "")
	require.NoError(t, err)
	require.Equal(t, id("run story"), got.CorrelationID, "the newest, though it left nothing on the user's stream")
	var others []uuid.UUID
	for _, o := range got.Others {
		others = append(others, o.CorrelationID)
	}
	require.Equal(t, []uuid.UUID{id("conflict story"), id("disable story"), id("create story")}, others)
	golden(t, "user_with_others.txt", render(t, got, Options{Width: 120}))
}

type stories []uuid.UUID

func (s stories) StoriesOfUser(context.Context, adapter.UserRef, int) ([]uuid.UUID, error) {
	return s, nil
}

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.parkedDelivery()
	require.Equal(t, StatusFailed, w.find(id("parked").String()).Status)
	w.record(fact{
		id: "tried again", stream: adapter.UserStream(realm, bobID), story: "parked story", cause: "parked delivery", ms: 80_000, lag: 9000, actor: admin,
		payload: &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: bob, Set: adapter.Profile{FirstName: adapter.Set("Bob")}}},
	}, fact{
		id: "released", stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000bad0"), story: "parked story", cause: "parked delivery", ms: 89_000,
		payload: &adapter.DeliveryReleased{Attempts: 4},
	})
	got := w.find(id("parked").String())
	require.Equal(t, StatusOK, got.Status, "a delivery that was interpreted at last is parked no more")
	require.Empty(t, got.Next)

	w.unknown()
	got = w.find(id("unknown").String())
	require.Equal(t, StatusUnknown, got.Status)
	require.NotEmpty(t, got.Next)
	w.record(fact{
		id: "resolved", stream: adapter.CallStream(id("unknown")), story: "unknown story", cause: "unknown outcome", ms: 22_000,
		payload: &adapter.ApiCallSucceeded{CallID: id("unknown"), ResolvedBy: "echo", UserID: bobID},
	})
	got = w.find(id("unknown").String())
	require.Equal(t, StatusOK, got.Status)
	require.Equal(t, "user.create of bob in acme by alice: failed once with a refused connection and once with a timeout; done after all, as Keycloak's echo proves", got.Summary)
	require.Empty(t, got.Next)

	w.record(fact{
		id: "run begun", stream: adapter.ReconciliationStream(id("r")), story: "r", ms: 30_000,
		payload: &adapter.ReconciliationStarted{RunID: id("r"), Realm: realm, Trigger: "schedule"},
	})
	got = w.find(id("r").String())
	require.Equal(t, StatusOpen, got.Status)
	require.Nil(t, got.EndedAt)
	w.record(fact{
		id: "drift over", stream: adapter.ReconciliationStream(id("r")), story: "r", cause: "run begun", ms: 30_100,
		payload: &adapter.DriftDetected{RunID: id("r"), Realm: realm, UserID: bobID, Username: "bob", Phase: adapter.DriftEnded, Situation: adapter.SituationChanged},
	}, fact{
		id: "run ended", stream: adapter.ReconciliationStream(id("r")), story: "r", cause: "run begun", ms: 30_200,
		payload: &adapter.ReconciliationCompleted{RunID: id("r"), Realm: realm, Compared: 1, InSync: 1, Findings: map[adapter.Situation]int{adapter.SituationInFlight: 1}},
	})
	require.Equal(t, StatusOK, w.find(id("r").String()).Status)

	w.record(fact{
		id: "second run", stream: adapter.ReconciliationStream(id("r2")), story: "r2", ms: 40_000,
		payload: &adapter.ReconciliationStarted{RunID: id("r2"), Realm: realm, Trigger: "schedule"},
	}, fact{
		id: "second run ended", stream: adapter.ReconciliationStream(id("r2")), story: "r2", cause: "second run", ms: 40_200,
		payload: &adapter.ReconciliationCompleted{RunID: id("r2"), Realm: realm, Compared: 2, InSync: 1, Findings: map[adapter.Situation]int{adapter.SituationChanged: 1}},
	})
	got = w.find(id("r2").String())
	require.Equal(t, StatusFailed, got.Status, "a drift that was found before is still one")
	require.NotEmpty(t, got.Next)
}

func TestSummaries(t *testing.T) {
	t.Parallel()
	tries := func(statuses ...int) []adapter.CallAttempt {
		var all []adapter.CallAttempt
		for i, s := range statuses {
			a := adapter.CallAttempt{Attempt: i + 1}
			if s != 0 {
				a.StatusCode = &s
			} else {
				a.Kind = "reset"
			}
			all = append(all, a)
		}
		return all
	}
	code := func(n int) *int { return &n }
	for want, c := range map[string]adapter.Call{
		"succeeded": {Status: adapter.CallSucceeded, Attempts: tries(204)},
		"failed once with 429, succeeded at the second attempt": {Status: adapter.CallSucceeded, Attempts: tries(429, 204)},
		"failed three times with 503 and was given up: busy":    {Status: adapter.CallFailed, StatusCode: code(503), Attempts: tries(503, 503, 503), Error: "busy"},
		"failed twice with 503, then failed with 403: no":       {Status: adapter.CallFailed, StatusCode: code(403), Attempts: tries(503, 503, 403), Error: "no"},
		"failed with 403: keycloak_forbidden":                   {Status: adapter.CallFailed, StatusCode: code(403), Attempts: tries(403), Code: adapter.CodeKeycloakForbidden},
		"failed: it never went out":                             {Status: adapter.CallFailed, Error: "it never went out"},
		"outcome unknown: lost":                                 {Status: adapter.CallUnknown, Attempts: tries(0), Error: "lost"},
		"under way, not tried yet":                              {Status: adapter.CallRequested},
		"under way, failed once with a lost connection so far":  {Status: adapter.CallRequested, Attempts: tries(0)},
		"under way, answered with 204":                          {Status: adapter.CallRequested, Attempts: tries(204)},
	} {
		require.Equal(t, want, callOutcome(c))
	}
}

func TestNextSteps(t *testing.T) {
	t.Parallel()
	for code, want := range map[adapter.Code]string{
		adapter.CodeAlreadyEnabled:       "keytrail user history 1 --realm acme",
		adapter.CodeKeycloakConflict:     "keytrail user list --realm acme",
		adapter.CodeKeycloakInvalid:      "Correct what Keycloak names",
		adapter.CodeKeycloakForbidden:    "keytrail keycloak check",
		adapter.CodeKeycloakUnauthorized: "keytrail keycloak check",
		adapter.CodeKeycloakNotFound:     "KEYTRAIL_KEYCLOAK_URL",
		adapter.CodeUserNotFound:         "keytrail reconcile --realm acme",
		adapter.CodeKeycloakUnavailable:  "repeat the command",
		adapter.CodeKeycloakUnreachable:  "repeat the command",
		adapter.CodeInterrupted:          "Repeat the command",
		adapter.CodeUserDisabled:         "keytrail user enable 1 --realm acme",
		adapter.CodeInternal:             "Repeat the command",
	} {
		require.Contains(t, nextOfCall(adapter.Call{Status: adapter.CallFailed, Code: code, Realm: realm, UserID: "1"}), want, code)
	}
	require.Contains(t, nextOfCall(adapter.Call{Status: adapter.CallFailed, Echo: &adapter.Echo{}, Realm: realm, UserID: "1"}), "keytrail user show 1")
	require.Empty(t, nextOfCall(adapter.Call{Status: adapter.CallSucceeded}))
	require.Contains(t, nextOfParked(adapter.DeliveryStream("x").String()), ": keytrail deliveries retry "+adapter.DeliveryStream("x").AggregateID().String())
	for code, want := range map[adapter.Code]string{
		adapter.CodeListingIncomplete:   "view-users",
		adapter.CodeKeycloakUnreachable: "keytrail keycloak check",
		adapter.CodeProjectionBehind:    "keytrail projections status",
		adapter.CodeRunInProgress:       "Another run",
		adapter.CodeInterrupted:         "keytrail reconcile --realm acme",
	} {
		require.Contains(t, nextOfRun(code, realm), want, code)
	}
	require.Equal(t, "acme", word("acme"))
	require.Equal(t, "f:2b0e:carol@x", word("f:2b0e:carol@x"))
	require.Equal(t, `'a b'`, word("a b"))
	require.Equal(t, `''`, word(""))
	require.Equal(t, `'-rf'`, word("-rf"))
	require.Equal(t, `'$(x)'\''`+`'`, word("$(x)'"))
}

func TestNamesAreLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.everything()
	carol := adapter.UserRef{Realm: realm, UserID: carolID}
	require.Equal(t, []NamedUser{{UserRef: bob, Username: "bob"}, {UserRef: carol, Username: "carol"}}, w.find(id("run").String()).Users)

	alone := &Finder{Store: w.store, Codec: w.codec}
	got, err := alone.Find(t.Context(), id("run").String(), "")
	require.NoError(t, err)
	require.Equal(t, []NamedUser{{UserRef: bob, Username: "bob"}, {UserRef: carol}}, got.Users)
}

func TestTraceJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.created()
	w.conflict()
	got := w.find(id("conflict").String())
	golden(t, "conflict.json", jsonOf(t, got))
	require.Equal(t, jsonOf(t, got), jsonOf(t, w.find(id("conflict attempt 1").String())))

	delivery := w.find(id("create story").String())
	require.Contains(t, string(jsonOf(t, delivery)), `"calls": []`)
}

func TestForgottenMembersAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.disabled()
	f := w.finder()
	f.Codec = adapter.NewCodec(forgetful{})
	got, err := f.Find(t.Context(), id("disable").String(), "")
	require.NoError(t, err)
	golden(t, "forgotten.txt", render(t, got, Options{Width: 120}))
}

// forgetful has lost every key.
type forgetful struct{ seal.Plain }

func (forgetful) Open(context.Context, seal.Person, seal.Group, []byte) ([]byte, error) {
	return nil, seal.ErrForgotten
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, WriteText(broken{}, Trace{}, Options{}), errBroken)
	require.ErrorIs(t, WriteHistory(broken{}, nil, Options{}), errBroken)
	require.ErrorIs(t, WriteUser(broken{}, adapter.User{}, Options{}), errBroken)
	require.ErrorIs(t, WriteFailures(broken{}, FailurePage{}, Options{}), errBroken)
}

type broken struct{}

var errBroken = errors.New("pipe is closed")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func idsOf(t Trace) []uuid.UUID {
	var ids []uuid.UUID
	for _, v := range t.Events {
		ids = append(ids, v.EventID)
	}
	return ids
}
