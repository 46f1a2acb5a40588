package trace

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// A creation that stopped between two calls needs attention; one that goes on, is done,
// or whose step tells itself what became of it does not.
func TestAnUnfinishedCreationIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plan := []string{"user.role.add auditor, clerk", "user.client_role.add approver of app"}
	succeeded := &adapter.ApiCallSucceeded{Attempts: 1}
	for _, c := range []struct {
		name  string
		ms    int
		plan  []string
		steps []adapter.Payload // nil: open
	}{
		{"stopped at once", 0, plan, nil},
		{"stopped after a step", 1_000, plan, []adapter.Payload{succeeded}},
		{"stopped after what was there", 2_000, plan, []adapter.Payload{&adapter.ApiCallSkipped{CallError: adapter.CallError{Code: adapter.CodeAlreadyHasRole}}}},
		{"done", 3_000, plan, []adapter.Payload{succeeded, succeeded}},
		{"failed", 4_000, plan, []adapter.Payload{&adapter.ApiCallFailed{CallError: adapter.CallError{Code: adapter.CodeKeycloakForbidden}}}},
		{"open", 5_000, plan, []adapter.Payload{nil}},
		{"without a plan", 6_000, nil, nil},
		{"just begun", 99_000, plan, nil},
	} {
		first, userID := id(c.name), c.name
		stream := adapter.CallStream(first)
		record := func(name string, ms int, payload adapter.Payload) {
			w.record(fact{id: c.name + name, stream: stream, story: c.name, ms: ms, actor: alice, payload: payload})
		}
		record(" requested", c.ms, &adapter.ApiCallRequested{
			CallID: first, Command: "user.create", Realm: realm, Username: c.name, Method: "POST", URLTemplate: "/admin/realms/{realm}/users", Plan: c.plan,
		})
		record(" succeeded", c.ms+10, &adapter.ApiCallSucceeded{CallID: first, Attempts: 1, UserID: userID})
		e, err := w.codec.Encode(t.Context(), adapter.Draft{
			ID: id(c.name + " created"), OccurredAt: at(c.ms + 5), Meta: adapter.Metadata{CorrelationID: id(c.name), CallID: &first},
			Payload: &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: adapter.UserRef{Realm: realm, UserID: userID}, Via: "command"}},
		})
		require.NoError(t, err)
		w.append(adapter.UserStream(realm, userID), at(c.ms+10), e)
		for i, outcome := range c.steps {
			stepID := adapter.StepCallID(first, at(c.ms), i+1)
			stream = adapter.CallStream(stepID)
			record(" step", c.ms+20+i, &adapter.ApiCallRequested{CallID: stepID, Command: "user.role.add", Realm: realm, UserID: userID, Method: "POST", URLTemplate: "/x"})
			if outcome != nil {
				record(" step over", c.ms+30+i, outcome)
			}
			c.name += " next"
		}
	}
	f := w.failures()
	f.Calls = nil
	page, err := f.List(t.Context(), FailureQuery{})
	require.NoError(t, err)
	var stopped []string
	for _, i := range page.Items {
		stopped = append(stopped, i.UserID)
		require.Equal(t, FailureCallOpen, i.Kind)
		require.Equal(t, adapter.CodePartiallyDone, i.Code)
		require.Equal(t, id(i.UserID), i.ID, "the call")
	}
	require.Equal(t, []string{"stopped after what was there", "stopped after a step", "stopped at once"}, stopped)
	require.Equal(t, "keytrail user role add 'stopped after a step' approver --client app", page.Items[1].Next)
	require.Contains(t, page.Items[2].Summary, "the user was created, and then it stopped; not done: user.role.add auditor, clerk; user.client_role.add approver of app")

	f.Clock = func() time.Time { return at(100_000 + 60_000) }
	page, err = f.List(t.Context(), FailureQuery{Limit: 1})
	require.NoError(t, err)
	require.Equal(t, "just begun", page.Items[0].UserID)
	page, err = f.List(t.Context(), FailureQuery{Limit: 1, Cursor: page.NextCursor})
	require.NoError(t, err)
	require.Equal(t, "stopped after what was there", page.Items[0].UserID)
	page, err = f.List(t.Context(), FailureQuery{Realm: "globex"})
	require.NoError(t, err)
	require.Empty(t, page.Items)
}
