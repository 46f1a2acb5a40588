package trace

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// lost is a call on bob whose outcome is not known, asked for at second 0. Keycloak
// answered 500 where answered, and nothing otherwise.
func (w *world) lost(command string, answered bool, body string) {
	w.t.Helper()
	attempt := adapter.Attempt{Attempt: 1, StartedAt: at(10), DurationMS: 90, StatusCode: 500, Error: "500", Kind: "http_status", Sent: true}
	if !answered {
		attempt.StatusCode, attempt.Kind = 0, "timeout"
	}
	w.another("lost", command, 0, body, attempt, &adapter.ApiCallOutcomeUnknown{
		CallID: id("lost"), Attempts: 1, CallError: adapter.CallError{Code: adapter.CodeOutcomeUnknown, Message: "no answer"},
	})
}

func (w *world) another(name, command string, ms int, body string, attempt adapter.Attempt, outcome adapter.Payload) {
	w.t.Helper()
	user, username := bobID, "bob"
	if command == "user.create" {
		user, username = "", "carol"
	}
	s, story := adapter.CallStream(id(name)), name+" story"
	w.record(
		fact{id: name + " requested", stream: s, story: story, ms: ms, payload: &adapter.ApiCallRequested{
			CallID: id(name), Command: command, Realm: realm, UserID: user, Username: username, Method: "PUT", URLTemplate: userPath,
			Body: json.RawMessage(body),
		}},
		fact{id: name + " attempt", stream: s, story: story, ms: ms + 10, payload: &adapter.ApiCallAttempted{CallID: id(name), Attempt: attempt}},
		fact{id: name + " outcome", stream: s, story: story, ms: ms + 100, payload: outcome},
	)
}

// ran is a run that compared, or adopted.
func (w *world) ran(name string, ms int, started adapter.ReconciliationStarted, done adapter.ReconciliationCompleted) {
	w.t.Helper()
	stream := adapter.ReconciliationStream(id(name))
	started.RunID, started.Realm, done.RunID, done.Realm = id(name), realm, id(name), realm
	w.record(
		fact{id: name + " started", stream: stream, story: name, ms: ms, payload: &started},
		fact{id: name + " completed", stream: stream, story: name, ms: ms + 1000, payload: &done},
	)
}

// A call of which the outcome is not known needs attention until a later fact tells what
// holds; it stays a call of which the outcome is not known.
func TestALaterFactSettlesAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	const minute = 60_000
	observed := func(ms int, seen adapter.UserApiObserved) func(*world) {
		return func(w *world) {
			seen.UserRef = bob
			w.record(fact{id: "seen", stream: adapter.UserStream(realm, bobID), story: "seen", ms: ms, payload: &seen})
		}
	}
	run := func(ms int, started adapter.ReconciliationStarted, done adapter.ReconciliationCompleted) func(*world) {
		return func(w *world) { w.ran("run", ms, started, done) }
	}
	again := func(command, body string, status adapter.Payload) func(*world) {
		return func(w *world) {
			w.another("again", command, minute, body, adapter.Attempt{Attempt: 1, StartedAt: at(minute + 10), StatusCode: 204, Sent: true}, status)
		}
	}
	done := func() adapter.Payload { return &adapter.ApiCallSucceeded{CallID: id("again")} }
	refused := func(code adapter.Code) adapter.Payload {
		return &adapter.ApiCallSkipped{CallID: id("again"), CallError: adapter.CallError{Code: code}}
	}
	whole := adapter.UserApiObserved{Present: true, Complete: true}
	withRoles := whole
	withRoles.Memberships.Roles = adapter.Set([]string{"clerk"})
	roles := []string{adapter.FieldEnabled, adapter.FieldRoles}
	for name, c := range map[string]struct {
		command string
		// silent is where no answer came.
		silent bool
		body   string
		later  func(*world)
		// rest is the event that the settlement rests on, "" where nothing is settled.
		rest string
	}{
		"nothing":                             {command: "user.disable", later: func(*world) {}},
		"a whole read":                        {command: "user.disable", later: observed(200, whole), rest: "seen"},
		"a read that found nobody":            {command: "user.reset_password", later: observed(200, adapter.UserApiObserved{}), rest: "seen"},
		"a read of some fields":               {command: "user.disable", later: observed(200, adapter.UserApiObserved{Present: true})},
		"a read before the answer":            {command: "user.disable", later: observed(50, whole)},
		"a read while it may go on":           {command: "user.disable", silent: true, later: observed(20_000, whole)},
		"a read after that":                   {command: "user.disable", silent: true, later: observed(31_000, whole), rest: "seen"},
		"a read without roles":                {command: "user.role.add", later: observed(200, whole)},
		"a read with roles":                   {command: "user.role.add", later: observed(200, withRoles), rest: "seen"},
		"a read does not see a password":      {command: "user.reset_password", later: observed(200, withRoles)},
		"a read without the lock-out":         {command: "user.unlock", later: observed(200, whole)},
		"a read of the lock-out":              {command: "user.unlock", later: observed(200, adapter.UserApiObserved{Present: true, Set: adapter.Profile{LockedUntil: adapter.Clear[time.Time]()}}), rest: "seen"},
		"a run":                               {command: "user.update", later: run(200, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{}), rest: "run completed"},
		"a run, of a user who was never made": {command: "user.create", later: run(200, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{}), rest: "run completed"},
		"a run that began before":             {command: "user.update", later: run(50, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{})},
		"a run that left something open":      {command: "user.update", later: run(200, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{Unsettled: 1})},
		"a late run that left something open": {command: "user.update", later: run(16*minute, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{Unsettled: 1}), rest: "run completed"},
		"a run that only adopts":              {command: "user.update", later: run(200, adapter.ReconciliationStarted{Trigger: adapter.TriggerBaseline}, adapter.ReconciliationCompleted{})},
		"a run without roles":                 {command: "user.role.add", later: run(200, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{})},
		"a run with roles":                    {command: "user.role.add", later: run(200, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{ComparedFields: roles}), rest: "run completed"},
		"a run does not see an e-mail":        {command: "user.send_verify_email", later: run(200, adapter.ReconciliationStarted{}, adapter.ReconciliationCompleted{})},
		"the same again":                      {command: "user.disable", later: again("user.disable", "", done()), rest: "again outcome"},
		"the opposite":                        {command: "user.disable", later: again("user.enable", "", done()), rest: "again outcome"},
		"refused, since it is so":             {command: "user.disable", later: again("user.disable", "", refused(adapter.CodeAlreadyDisabled)), rest: "again outcome"},
		"refused for another reason":          {command: "user.disable", later: again("user.disable", "", refused(adapter.CodeInvalidRequest))},
		"another role":                        {command: "user.role.add", body: `[{"name":"clerk"}]`, later: again("user.role.add", `[{"name":"auditor"}]`, done())},
		"the same role": {
			command: "user.role.add", body: `[{"name":"clerk","description":"urn:keytrail:call:` + id("lost").String() + `"}]`,
			later: again("user.role.add", `[ {"name":"clerk","description":"urn:keytrail:call:`+id("again").String()+`"} ]`, done()), rest: "again outcome",
		},
		"the same role, which the user has": {
			command: "user.role.add", body: `[{"name":"clerk"}]`, later: again("user.role.add", `[{"name":"clerk"}]`, refused(adapter.CodeAlreadyHasRole)), rest: "again outcome",
		},
		"another command": {command: "user.logout", later: again("user.disable", "", done())},
		"a deletion": {command: "user.logout", later: func(w *world) {
			w.record(fact{id: "gone", stream: adapter.UserStream(realm, bobID), story: "gone", ms: minute, payload: &adapter.UserApiDeleted{UserRef: bob}})
		}, rest: "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if c.body == "" {
				c.body = "null"
			}
			w.lost(c.command, !c.silent, c.body)
			c.later(w)
			page, err := w.failures().List(t.Context(), FailureQuery{})
			require.NoError(t, err)
			f := w.finder()
			f.History = calls{w: w}
			story, err := f.Find(t.Context(), id("lost").String(), "")
			require.NoError(t, err)
			require.Equal(t, StatusUnknown, story.Status, "the call's outcome stays unknown")
			require.Len(t, story.Next, 1)
			require.Equal(t, story.Next, kinds(Explain(story))[SentenceNext])
			if c.rest == "" {
				require.Len(t, page.Items, 1)
				require.Empty(t, story.Settled)
				require.Contains(t, story.Next[0], "Do not repeat it blindly")
				return
			}
			require.Empty(t, page.Items)
			require.Len(t, story.Settled, 1)
			require.Equal(t, id(c.rest), story.Settled[0].EventID)
			require.NotEmpty(t, story.Settled[0].Text)
			require.Contains(t, story.Next[0], "Nothing is open any more: "+story.Settled[0].Text)
			require.Contains(t, story.Next[0], story.Settled[0].CorrelationID.String())
			require.Contains(t, kinds(Explain(story))[SentenceNow][0], "what holds since is: ")
		})
	}
}

// A creation names the user: one of that name who came to be known since settles it.
func TestAUserWhoCameToBeKnownSettlesACreation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lost("user.create", true, "null")
	w.record(fact{id: "carol adopted", stream: adapter.UserStream(realm, carolID), story: "adopted", ms: 60_000, payload: &adapter.UserApiBaselined{
		UserRef: adapter.UserRef{Realm: realm, UserID: carolID}, Set: adapter.Profile{Username: adapter.Set("carol")},
	}})
	page, err := w.failures().List(t.Context(), FailureQuery{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1, "the lookup does not say since when carol is known")

	u, ok := adapter.FoldUser(w.user(adapter.UserRef{Realm: realm, UserID: carolID}))
	require.True(t, ok)
	f := w.failures()
	f.Users = only{u}
	page, err = f.List(t.Context(), FailureQuery{})
	require.NoError(t, err)
	require.Empty(t, page.Items)
}

// Users whom only their id names are named.
func TestFailuresNameUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := adapter.CallStream(id("by id"))
	w.record(
		fact{id: "by id requested", stream: s, story: "by id", payload: &adapter.ApiCallRequested{
			CallID: id("by id"), Command: "user.update", Realm: realm, UserID: bobID, Method: "PUT", URLTemplate: userPath,
		}},
		fact{id: "by id failed", stream: s, story: "by id", ms: 10, payload: &adapter.ApiCallFailed{
			CallID: id("by id"), StatusCode: 409, CallError: adapter.CallError{Code: adapter.CodeKeycloakConflict, Message: "taken"},
		}},
	)
	for users, want := range map[UserLookup]string{lookup{}: "user.update of bob in acme: failed with 409: taken", nil: "user.update of " + bobID + " in acme: failed with 409: taken"} {
		f := w.failures()
		f.Users = users
		page, err := f.List(t.Context(), FailureQuery{})
		require.NoError(t, err)
		require.Equal(t, want, page.Items[0].Summary)
		require.Equal(t, users != nil, page.Items[0].Username == "bob")
	}
}

// only is a lookup that knows one user.
type only struct{ user adapter.User }

func (o only) Find(context.Context, string, ...string) ([]adapter.User, error) {
	return []adapter.User{o.user}, nil
}
