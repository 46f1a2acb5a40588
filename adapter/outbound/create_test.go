package outbound_test

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

func (w *whole) ann() outbound.NewUser {
	return outbound.NewUser{
		Profile:  adapter.Profile{Username: adapter.Set("ann"), Enabled: adapter.Set(true)},
		Password: newPassword, Groups: []string{"/staff"}, Roles: []string{"auditor", "clerk"},
		ClientRoles: map[string][]string{"app": {"approver"}}, Organization: w.organization,
	}
}

// Creating a user with all that one can have is one story of several calls.
func TestAUserIsCreatedWithAllThatItIsToHave(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	out, err := w.commands.CreateUser(w.ctx, "acme", w.ann())
	require.NoError(t, err)
	require.Len(t, out.Steps, 3)
	for _, s := range out.Steps {
		require.Equal(t, adapter.CallSucceeded, s.Status, s.Name)
		require.Equal(t, out.CorrelationID, w.call(s.CallID).CorrelationID)
	}
	want := []string{
		adapter.TypeUserApiCreated, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiOrganizationsChanged,
	}
	stream := adapter.UserStream("acme", out.UserID)
	require.Equal(t, want, w.types(stream), "one creation, and one event for each further call")
	w.pull()
	require.Equal(t, want, w.types(stream))
	u, _ := adapter.FoldUser(w.events(stream))
	require.Equal(t, []string{"auditor", "clerk"}, u.Roles)
	require.Equal(t, []string{"/staff"}, u.Groups)
	require.Equal(t, map[string][]string{"app": {"approver"}}, u.ClientRoles)
	require.Equal(t, []adapter.Organization{{ID: w.organization, Alias: "blue"}}, u.Organizations)
	require.Equal(t, 1, w.keycloak.Requests(http.MethodPost, realmMappings), "both roles in one call")
	first := w.call(out.CallID)
	require.Equal(t, []string{"user.role.add auditor, clerk", "user.client_role.add approver of app", "user.organization.add " + w.organization}, first.Plan)
	step := w.events(adapter.CallStream(out.Steps[0].CallID))
	call := w.events(adapter.CallStream(out.CallID))
	require.Contains(t, []uuid.UUID{call[len(call)-1].ID, call[len(call)-2].ID}, step[0].CausationID, "the creation's end caused the step")
}

func TestWhatDoesNotExistLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	for code, change := range map[adapter.Code]func(*outbound.NewUser){
		adapter.CodeGroupNotFound:        func(u *outbound.NewUser) { u.Groups = append(u.Groups, "/staff/nope") },
		adapter.CodeRoleNotFound:         func(u *outbound.NewUser) { u.Roles = append(u.Roles, "nobody") },
		adapter.CodeClientNotFound:       func(u *outbound.NewUser) { u.ClientRoles["nothing"] = []string{"x"} },
		adapter.CodeOrganizationNotFound: func(u *outbound.NewUser) { u.Organization = uuid.NewString() },
	} {
		u := w.ann()
		change(&u)
		out, err := w.commands.CreateUser(w.ctx, "acme", u)
		require.Equal(t, code, adapter.CodeOf(err))
		require.Equal(t, adapter.CallSkipped, out.Status)
		for _, s := range out.Steps {
			require.Equal(t, outbound.StepNotTried, s.Status)
		}
	}
	_, found := w.realm.UserByName("ann")
	require.False(t, found)
	require.Equal(t, 1, w.keycloak.Requests(http.MethodPost, usersPath), "bob's")
}

// Where a later call fails, the answer says what was done and what was not, and so do
// the calls and the user.
func TestACreationIsDoneInPart(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	w.keycloak.Inject(keycloaktest.Fault{
		Method: http.MethodPost, Pattern: "**/role-mappings/clients/*", Times: 1, Status: http.StatusForbidden, Body: `{"error":"HTTP 403 Forbidden"}`,
	})
	ctx := outbound.WithIdempotencyKey(w.ctx, "key-1", "digest")
	out, err := w.commands.CreateUser(ctx, "acme", w.ann())
	require.Equal(t, adapter.CodePartiallyDone, adapter.CodeOf(err))
	var e *adapter.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, out.Steps[1].CallID, e.CallID, "the call that failed")
	require.Equal(t, "keytrail user role add "+out.UserID+" approver --client app; keytrail user organization add "+out.UserID+" "+w.organization, e.Try)
	require.Equal(t, []adapter.CallStatus{adapter.CallSucceeded, adapter.CallFailed, outbound.StepNotTried},
		[]adapter.CallStatus{out.Steps[0].Status, out.Steps[1].Status, out.Steps[2].Status})
	require.Equal(t, adapter.CodeKeycloakForbidden, out.Steps[1].Code)
	require.Equal(t, uuid.Nil, out.Steps[2].CallID)
	outside, err := json.Marshal(out.Steps[2])
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"user.organization.add `+w.organization+`","status":"not_tried"}`, string(outside))
	u, _ := adapter.FoldUser(w.events(adapter.UserStream("acme", out.UserID)))
	require.Equal(t, []string{"auditor", "clerk"}, u.Roles)
	require.Empty(t, u.ClientRoles)
	require.Empty(t, u.Organizations)

	again, err := w.commands.CreateUser(ctx, "acme", w.ann())
	require.Equal(t, adapter.CodePartiallyDone, adapter.CodeOf(err))
	require.True(t, again.Repeated)
	require.Equal(t, out.Steps[0].CallID, again.Steps[0].CallID)
	require.Equal(t, adapter.CallFailed, again.Steps[1].Status)
	require.Equal(t, outbound.StepNotTried, again.Steps[2].Status)
}

func TestAnIdempotencyKeyGivesTheFirstOutcome(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	ref := outbound.UserRef{ID: w.bob}
	ctx := outbound.WithIdempotencyKey(w.ctx, "key-1", "digest")
	first, err := w.commands.DisableUser(ctx, "acme", ref)
	require.NoError(t, err)
	require.False(t, first.Repeated)
	again, err := w.commands.DisableUser(ctx, "acme", ref)
	require.NoError(t, err, "and not already_disabled")
	require.True(t, again.Repeated)
	again.Repeated = false
	require.Equal(t, first, again)
	require.Equal(t, 1, w.keycloak.Requests(http.MethodPut, userPath))

	_, err = w.commands.DisableUser(outbound.WithIdempotencyKey(w.ctx, "key-1", "another body"), "acme", ref)
	require.Equal(t, adapter.CodeIdempotencyKeyReused, adapter.CodeOf(err))
	_, err = w.commands.EnableUser(ctx, "acme", ref)
	require.Equal(t, adapter.CodeIdempotencyKeyReused, adapter.CodeOf(err))

	// A refusal and a failure are outcomes, too.
	refused := outbound.WithIdempotencyKey(w.ctx, "key-2", "digest")
	one, err := w.commands.DisableUser(refused, "acme", ref)
	require.Equal(t, adapter.CodeAlreadyDisabled, adapter.CodeOf(err))
	_, err = w.commands.EnableUser(w.ctx, "acme", ref)
	require.NoError(t, err)
	two, err := w.commands.DisableUser(refused, "acme", ref)
	require.Equal(t, adapter.CodeAlreadyDisabled, adapter.CodeOf(err))
	require.Equal(t, one.CallID, two.CallID)
	require.Equal(t, adapter.CallSkipped, two.Status)
}

// Many who send the same request at once make one call; those who come while it is
// open are told so.
func TestAnIdempotencyKeyIsALock(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	ctx := outbound.WithIdempotencyKey(w.ctx, "key-1", "digest")
	answer := w.keycloak.HoldAnswer(http.MethodPut, userPath)
	const writers = 8
	outcomes := make([]outbound.Outcome, writers)
	var others, all sync.WaitGroup
	others.Add(writers - 1)
	for n := range writers {
		all.Add(1)
		go func() {
			defer all.Done()
			out, err := w.commands.DisableUser(ctx, "acme", outbound.UserRef{ID: w.bob})
			if err != nil {
				t.Error(err)
			}
			outcomes[n] = out
			if out.Repeated {
				others.Done()
			}
		}()
	}
	<-answer.Arrived()
	others.Wait()
	answer.Release()
	all.Wait()
	open := 0
	for _, out := range outcomes {
		require.Equal(t, outcomes[0].CallID, out.CallID)
		if out.Repeated {
			require.Equal(t, adapter.CallRequested, out.Status)
			open++
		}
	}
	require.Equal(t, writers-1, open)
	require.Equal(t, 1, w.keycloak.Requests(http.MethodPut, userPath))
	out, err := w.commands.DisableUser(ctx, "acme", outbound.UserRef{ID: w.bob})
	require.NoError(t, err)
	require.Equal(t, adapter.CallSucceeded, out.Status)
}
