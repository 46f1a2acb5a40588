package trace

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// An action that is done in part is not to be repeated: what is missing is, by the same
// commands wherever one asks.
func TestDoneInPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.partial()
	const missing = "keytrail user role add d0ra auditor; keytrail user organization add d0ra acme-gmbh"

	told := w.find(id("partial").String())
	require.Len(t, told.Next, 1)
	require.Contains(t, told.Next[0], missing)
	require.Contains(t, told.Next[0], "keytrail keycloak check", "the cause comes first")
	require.Equal(t, told.Next, kinds(Explain(told))[SentenceNext])

	page, err := w.failures().List(t.Context(), FailureQuery{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	require.Equal(t, told.Next[0], page.Items[0].Next)
}

func TestNextOfStep(t *testing.T) {
	t.Parallel()
	commands := []string{"keytrail user role add 1 auditor"}
	for _, c := range []adapter.Call{
		{Status: adapter.CallFailed, Code: adapter.CodeKeycloakInvalid},
		{Status: adapter.CallFailed, Code: adapter.CodeKeycloakUnavailable},
		{Status: adapter.CallFailed, Code: adapter.CodeInterrupted},
		{Status: adapter.CallFailed, Code: adapter.CodeInternal},
		{Status: adapter.CallFailed, Code: "of a newer program"},
		{Status: adapter.CallSkipped, Code: adapter.CodeRoleNotFound},
		{Status: adapter.CallUnknown, Code: adapter.CodeOutcomeUnknown},
	} {
		next := nextOfStep(c, commands)
		require.Regexp(t, "do not repeat the whole action, give what is missing by itself: keytrail user role add 1 auditor$", next)
		require.NotContains(t, next, "repeat the command", c.Code)
		require.NotContains(t, next, "..", c.Code)
		require.Equal(t, nextOfCall(c), nextOfStep(c, nil))
	}
	require.NotContains(t, nextOfStep(adapter.Call{Status: adapter.CallRequested}, commands), "keytrail user role")
	require.Empty(t, nextOfStep(adapter.Call{Status: adapter.CallSucceeded}, commands))
}

func TestLeftOver(t *testing.T) {
	t.Parallel()
	first := adapter.Call{
		CallID: id("first"), Command: "user.create", Status: adapter.CallSucceeded, UserID: "1",
		Plan: []string{"user.role.add auditor", "user.client_role.add clerk of app", "user.organization.add crew"},
	}
	held := adapter.Call{CallID: id("held"), Command: "user.role.add", Status: adapter.CallSkipped, Code: adapter.CodeAlreadyHasRole}
	failed := adapter.Call{CallID: id("failed"), Command: "user.client_role.add", Status: adapter.CallFailed}
	missing := []string{"keytrail user role add 1 clerk --client app", "keytrail user organization add 1 crew"}
	require.Equal(t, missing, leftOver(failed, []adapter.Call{first, held, failed}), "who has the role already needs it no more")
	failed.Echo = &adapter.Echo{}
	require.Equal(t, missing[1:], leftOver(failed, []adapter.Call{first, held, failed}), "Keycloak says that it was done")
	require.Empty(t, leftOver(failed, []adapter.Call{held, failed}), "no step of anything")
	first.Status = adapter.CallFailed
	require.Empty(t, leftOver(failed, []adapter.Call{first, held, failed}))
}
