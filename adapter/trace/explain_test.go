package trace

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

func explained(t *testing.T, x Explanation, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, WriteExplanation(&b, x, o))
	return b.Bytes()
}

// kinds are the sentences of an explanation by kind.
func kinds(x Explanation) map[SentenceKind][]string {
	all := map[SentenceKind][]string{}
	for _, s := range x.Sentences {
		all[s.Kind] = append(all[s.Kind], s.Text)
	}
	return all
}

// explainWorld has the stories of every class that an explanation knows.
func explainWorld(t *testing.T) *world {
	w := newWorld(t)
	w.everything()
	w.partial()
	w.doneAfterAll()
	w.waiting()
	w.allKindsOfDrift()
	w.runs()
	return w
}

// partial: a user is created with a role and an organization; the role fails, so that
// the organization is never tried.
func (w *world) partial() {
	w.t.Helper()
	record := func(name, cause string, stream string, ms int, p adapter.Payload) {
		s := adapter.CallStream(id(stream))
		w.record(fact{id: name, stream: s, story: "partial story", cause: cause, ms: ms, actor: alice, reason: "joins", source: "cli", payload: p})
	}
	record("partial requested", "", "partial", 100_000, &adapter.ApiCallRequested{
		CallID: id("partial"), Command: "user.create", Realm: realm, Username: "dora", Method: "POST", URLTemplate: "/admin/realms/{realm}/users",
		Plan: []string{"user.role.add auditor", "user.organization.add acme-gmbh"},
	})
	record("partial attempt", "partial requested", "partial", 100_005, &adapter.ApiCallAttempted{CallID: id("partial"), Attempt: tried(1, 100_005, 9, 201, "", "")})
	record("partial done", "partial attempt", "partial", 100_015, &adapter.ApiCallSucceeded{CallID: id("partial"), StatusCode: 201, Attempts: 1, DurationMS: 15, UserID: "d0ra"})
	w.record(fact{
		id: "dora created", stream: adapter.UserStream(realm, "d0ra"), story: "partial story", cause: "partial done", ms: 100_015, actor: alice,
		payload: &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: adapter.UserRef{Realm: realm, UserID: "d0ra"}, Via: "command", Set: adapter.Profile{Username: adapter.Set("dora")}}},
	})
	record("role requested", "partial done", "role", 100_020, &adapter.ApiCallRequested{
		CallID: id("role"), Command: "user.role.add", Realm: realm, UserID: "d0ra", Username: "dora", Method: "POST",
		URLTemplate: "/admin/realms/{realm}/users/{id}/role-mappings/realm",
	})
	record("role attempt", "role requested", "role", 100_022, &adapter.ApiCallAttempted{CallID: id("role"), Attempt: tried(1, 100_022, 6, 403, "403 Forbidden", "http_status")})
	record("role failed", "role attempt", "role", 100_030, &adapter.ApiCallFailed{
		CallID: id("role"), StatusCode: 403, Attempts: 1, DurationMS: 8,
		CallError: adapter.CallError{Code: adapter.CodeKeycloakForbidden, Message: "Keycloak does not let keytrail's service account do this"},
	})
}

// doneAfterAll: one call's answer was lost, and the echo tells that it was done;
// another failed, yet Keycloak reported it.
func (w *world) doneAfterAll() {
	w.t.Helper()
	w.call(call{
		name: "lost", command: "user.enable", method: "PUT", url: userPath, userID: bobID, ms: 110_000,
		attempts:  []adapter.Attempt{tried(1, 110_004, 10_000, 0, "no answer within 10s", "timeout")},
		outcome:   &adapter.ApiCallSucceeded{CallID: id("lost"), Attempts: 1, ResolvedBy: "echo"},
		outcomeMS: 121_000,
	})
	w.call(call{
		name: "contradicted", command: "user.update", method: "PUT", url: userPath, userID: bobID, ms: 130_000,
		attempts: []adapter.Attempt{tried(1, 130_004, 40, 500, "500 Internal Server Error", "http_status")},
		outcome: &adapter.ApiCallFailed{
			CallID: id("contradicted"), StatusCode: 500, Attempts: 1, DurationMS: 44,
			CallError: adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "Keycloak failed inside", Keycloak: "HTTP 500 Internal Server Error"},
		},
		outcomeMS: 130_044,
	})
	w.record(fact{
		id: "contradicted echo", stream: adapter.CallStream(id("contradicted")), story: "contradicted story", ms: 130_020, lag: 900,
		payload: &adapter.ApiCallEchoed{CallID: id("contradicted"), Echo: adapter.Echo{DeliveryEventID: id("never seen"), OccurredAt: at(130_020), MatchedBy: "stamp"}},
	})
	w.call(call{
		name: "unreachable", command: "user.delete", method: "DELETE", url: userPath, userID: bobID, ms: 140_000,
		attempts: []adapter.Attempt{
			tried(1, 140_004, 0.9, 0, "connection refused", "refused"),
			tried(2, 140_505, 0.8, 0, "connection refused", "refused"),
		},
		outcome: &adapter.ApiCallFailed{
			CallID: id("unreachable"), Attempts: 2, DurationMS: 506,
			CallError: adapter.CallError{Code: adapter.CodeKeycloakUnreachable, Message: "Keycloak could not be reached: connection refused"},
		},
		outcomeMS: 140_506,
	})
	w.call(call{
		name: "newer", command: "user.teleport", method: "PUT", url: userPath, userID: bobID, ms: 150_000,
		outcome:   &adapter.ApiCallFailed{CallID: id("newer"), CallError: adapter.CallError{Code: "mars_closed", Message: "Mars is closed"}},
		outcomeMS: 150_010,
	})
}

// waiting: a delivery waits behind the parked one.
func (w *world) waiting() {
	w.t.Helper()
	behind := id("parked delivery")
	base := fact{stream: adapter.DeliveryStream("wait"), story: "waiting story", actor: admin, source: "webhook:keycloak", ms: 160_000}
	received, parked := base, base
	received.id = "waiting delivery"
	received.payload = &adapter.AdminEventReceived{
		KeycloakEventID: "wait", Time: at(160_000), Realm: realm, OperationType: "DELETE", ResourceType: "USER",
		ResourcePath: "users/" + bobID, UserID: bobID, Actor: *admin, Receipt: adapter.Receipt{Source: "keycloak"},
	}
	parked.id, parked.cause, parked.ms = "waiting parked", "waiting delivery", 160_010
	parked.payload = &adapter.DeliveryParked{Error: "an earlier delivery about the same user is parked: " + behind.String(), Behind: &behind}
	w.record(received, parked)
}

func (w *world) allKindsOfDrift() {
	w.t.Helper()
	stream := adapter.ReconciliationStream(id("kinds"))
	w.record(fact{id: "kinds started", stream: stream, story: "kinds story", ms: 170_000, payload: &adapter.ReconciliationStarted{RunID: id("kinds"), Realm: realm, Trigger: "cli"}})
	for i, s := range adapter.Situations {
		w.record(fact{
			id: "kinds " + string(s), stream: stream, story: "kinds story", cause: "kinds started", ms: 170_100 + i,
			payload: &adapter.DriftDetected{RunID: id("kinds"), Realm: realm, UserID: "k" + strconv.Itoa(i), Phase: adapter.DriftAppeared, Situation: s},
		})
	}
	w.record(fact{
		id: "kinds completed", stream: stream, story: "kinds story", cause: "kinds started", ms: 170_200,
		payload: &adapter.ReconciliationCompleted{RunID: id("kinds"), Realm: realm, Compared: 9, Findings: map[adapter.Situation]int{adapter.SituationChanged: 8}},
	})
}

// runs: one in sync, one that found only what was known, one under way.
func (w *world) runs() {
	w.t.Helper()
	for _, run := range []struct {
		name string
		end  adapter.Payload
	}{
		{"in sync", &adapter.ReconciliationCompleted{RunID: id("in sync"), Realm: realm, Compared: 120, InSync: 120}},
		{"known", &adapter.ReconciliationCompleted{
			RunID: id("known"), Realm: realm, Compared: 120, InSync: 118, Findings: map[adapter.Situation]int{adapter.SituationChanged: 2},
		}},
		{"running", nil},
	} {
		name, end := run.name, run.end
		stream := adapter.ReconciliationStream(id(name))
		w.record(fact{id: name + " started", stream: stream, story: name + " story", ms: 180_000, payload: &adapter.ReconciliationStarted{RunID: id(name), Realm: realm, Trigger: "schedule"}})
		if end != nil {
			w.record(fact{id: name + " ended", stream: stream, story: name + " story", cause: name + " started", ms: 181_000, payload: end})
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	w := explainWorld(t)
	for _, name := range []string{
		"disable", "conflict", "skipped", "unknown", "open", "run", "invalid run", "parked", "bob created", "strange story",
		"partial", "lost", "contradicted", "unreachable", "newer", "waiting parked", "kinds", "in sync", "known", "running",
	} {
		t.Run(name, func(t *testing.T) {
			story := w.find(id(name).String())
			x := Explain(story)
			golden(t, "explain_"+strings.ReplaceAll(name, " ", "_")+".txt", explained(t, x, Options{Width: 100}))
			require.Equal(t, x, Explain(w.find(id(name).String())), "the same events give the same explanation")
			require.Equal(t, story.CorrelationID, x.CorrelationID)
			require.Equal(t, story.Status, x.Status)
			require.Equal(t, SentenceOutcome, x.Sentences[0].Kind)
			if story.Status == StatusFailed || story.Status == StatusUnknown {
				require.NotEmpty(t, kinds(x)[SentenceNext], "what failed has a next step")
				require.NotEmpty(t, kinds(x)[SentenceNow], "and something holds now")
			}
		})
	}
}

// Every sentence rests on an event of the log, and its text fits on a terminal.
func TestSentencesRestOnEvents(t *testing.T) {
	t.Parallel()
	w := explainWorld(t)
	known := map[uuid.UUID]bool{}
	stories := map[uuid.UUID]bool{}
	for _, e := range w.all() {
		known[e.ID], stories[e.CorrelationID] = true, true
	}
	for correlation := range stories {
		x := Explain(w.find(correlation.String()))
		require.NotEmpty(t, x.Sentences)
		for _, s := range x.Sentences {
			require.True(t, known[s.EventID], "%s rests on no event of the log", s.Text)
			require.NotContains(t, s.Text, "\x1b")
			require.Equal(t, oneLine(s.Text), s.Text)
		}
	}
}

func TestExplainOfAStoryOfSeveralFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.conflict()
	failed := func(name string, ms int) {
		w.call(call{
			name: name, command: "user.disable", method: "PUT", url: userPath, userID: bobID, ms: ms,
			attempts:  []adapter.Attempt{tried(1, ms+1, 3, 403, "403 Forbidden", "http_status")},
			outcome:   &adapter.ApiCallFailed{CallID: id(name), StatusCode: 403, Attempts: 1, CallError: adapter.CallError{Code: adapter.CodeKeycloakForbidden, Message: name}},
			outcomeMS: ms + 5,
		})
	}
	story := w.find(id("conflict").String())
	for i := range 8 {
		failed("more "+strconv.Itoa(i), 6000+100*i)
		more := w.find(id("more " + strconv.Itoa(i)).String())
		story.Events, story.Calls = append(story.Events, more.Events...), append(story.Calls, more.Calls...)
	}
	x := Explain(story)
	require.Contains(t, x.Sentences[0].Text, "user.create of bob", "the first failure is explained whole")
	require.Len(t, kinds(x)[SentenceAlso], maxAlike+1, "some of the others are named, and the rest is counted")
	require.Equal(t, "And 3 more failures; keytrail trace shows them all.", kinds(x)[SentenceAlso][maxAlike])
	require.Equal(t, SentenceNext, x.Sentences[len(x.Sentences)-1].Kind)
	require.Len(t, kinds(x)[SentenceNext], 2, "one step for each class")
}

func TestExplanationHasNoTroubleWithLittle(t *testing.T) {
	t.Parallel()
	empty := Explain(Trace{})
	require.JSONEq(t, `{"correlation_id":"00000000-0000-0000-0000-000000000000","status":"","sentences":[]}`, string(jsonOf(t, empty)))
	require.Equal(t, "Nothing is known of this story.\n", string(explained(t, empty, Options{})))
	require.ErrorIs(t, WriteExplanation(broken{}, empty, Options{}), errBroken)

	// A call whose events were cut off the story.
	cut := Explain(Trace{
		Status: StatusFailed, Truncated: true,
		Calls:  []adapter.Call{{CallID: id("gone"), Status: adapter.CallFailed}},
		Events: []adapter.View{{EventID: id("e"), EventType: "X", Data: json.RawMessage(`{}`)}},
	})
	require.NotEmpty(t, cut.Sentences)
}

func TestExplainJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.conflict()
	golden(t, "explain_conflict.json", jsonOf(t, Explain(w.find(id("conflict").String()))))
}

func TestEveryCodeHasANextStep(t *testing.T) {
	t.Parallel()
	for _, code := range adapter.Codes() {
		c := adapter.Call{Status: adapter.CallFailed, Code: code, Realm: realm, UserID: "1"}
		require.NotEmpty(t, nextOfCall(c), code)
	}
	require.Contains(t, nextOfCall(adapter.Call{Status: adapter.CallSkipped, Code: adapter.CodeNotLocked}), "keytrail user enable")
}

func (w *world) all() []eventstore.Event {
	w.t.Helper()
	events, err := collect(w.store.ReadLog(w.t.Context(), eventstore.LogQuery{}))
	require.NoError(w.t, err)
	return events
}
