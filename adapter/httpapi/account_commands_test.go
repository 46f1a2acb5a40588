package httpapi

import (
	"net/http"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

// withRights lets keytrail's service account do whatever commands need.
func withRights(kc *keycloaktest.Server) {
	kc.Realm("acme").BehindOurBack(func(users map[string]*keycloaktest.User) {
		for _, u := range users {
			if u.ServiceAccountClientID == "keytrail" {
				u.ClientRoles["realm-management"] = append(u.ClientRoles["realm-management"], "view-realm", "view-clients", "manage-organizations", "view-organizations")
			}
		}
	})
}

func TestAccountCommandsOverHTTP(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	withRights(kc)
	b := newBundle(t, connected)
	realm := kc.Realm("acme")
	realm.AddRole("auditor/night")
	group := realm.AddGroup("staff")
	var out outcome
	b.do(http.MethodPost, acmeUsers, `{"username":"ada","enabled":true,"email":"ada@example.com","roles":["auditor/night"],"groups":["/staff"],"password":"password-canary"}`).into(&out)
	require.Len(t, out.Steps, 1)
	require.Equal(t, adapter.CallSucceeded, out.Steps[0].Status)
	user := acmeUsers + "/" + out.UserID

	for _, step := range []struct {
		method, path, body string
		status             int
		code               adapter.Code
	}{
		{http.MethodPut, "/roles/auditor%2Fnight", `{"reason":"x"}`, 409, adapter.CodeAlreadyHasRole},
		{http.MethodDelete, "/roles/auditor%2Fnight", "", 200, ""},
		{http.MethodDelete, "/roles/auditor%2Fnight", "", 409, adapter.CodeRoleNotHeld},
		{http.MethodPut, "/roles/auditor%2Fnight", "", 200, ""},
		{http.MethodPut, "/roles/nobody", "", 404, adapter.CodeRoleNotFound},
		{http.MethodPut, "/client-roles/nothing/clerk", "", 404, adapter.CodeClientNotFound},
		{http.MethodPut, "/groups/" + group, "", 409, adapter.CodeAlreadyMember},
		{http.MethodDelete, "/groups/" + group, `{"reason":"x"}`, 200, ""},
		{http.MethodDelete, "/groups/" + group, "", 409, adapter.CodeNotMember},
		{http.MethodPut, "/groups/" + uuid.NewString(), "", 404, adapter.CodeGroupNotFound},
		{http.MethodDelete, "/groups/%2Fnope", "", 404, adapter.CodeGroupNotFound},
		{http.MethodPut, "/groups/%2Fstaff", "", 200, ""},
		{http.MethodDelete, "/groups/%2Fstaff", "", 200, ""},
		{http.MethodPut, "/organizations/" + uuid.NewString(), "", 404, adapter.CodeOrganizationNotFound},
		{http.MethodPut, "/required-actions", `{"required_actions":["VERIFY_EMAIL"],"reason":"x"}`, 200, ""},
		{http.MethodPut, "/required-actions", `{}`, 400, adapter.CodeInvalidRequest},
		{http.MethodPut, "/required-actions", `{"required_actions":null}`, 400, adapter.CodeInvalidRequest},
		{http.MethodPost, "/reset-password", `{"password":"password-canary","temporary":true}`, 200, ""},
		{http.MethodPost, "/reset-password", `{}`, 400, adapter.CodeInvalidRequest},
		{http.MethodPost, "/send-verify-email", "", 502, adapter.CodeKeycloakMailFault},
		{http.MethodPost, "/logout", "", 200, ""},
		{http.MethodPost, "/unlock", "", 409, adapter.CodeNotLocked},
	} {
		got := b.do(step.method, user+step.path, step.body)
		if step.code == "" {
			require.Equal(t, step.status, got.status, "%s %s: %s", step.method, step.path, got.body)
			continue
		}
		p := got.problem(step.status, step.code)
		if step.status != http.StatusBadRequest {
			require.NotNil(t, p.CallID, step.path)
			require.NotNil(t, p.CorrelationID, step.path)
			require.NotEmpty(t, p.Cause, step.path)
			require.NotEmpty(t, p.Try, step.path)
		}
	}
	shown := b.get(user).object()
	require.Equal(t, []any{"auditor/night"}, shown["roles"])
	require.Equal(t, []any{}, shown["groups"])
	require.Equal(t, []any{"UPDATE_PASSWORD", "VERIFY_EMAIL"}, shown["required_actions"])
	for e, err := range b.store.ReadLog(t.Context(), everything) {
		require.NoError(t, err)
		require.NotContains(t, string(e.Data), "canary")
	}
	require.NotContains(t, b.logs.String(), "canary")
}

// Where a later call of a creation fails, the problem says how far it came.
func TestACreationInPartIsAProblemWithSteps(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	withRights(kc)
	b := newBundle(t, connected)
	kc.Realm("acme").AddRole("auditor")
	kc.FailNext(http.MethodPost, "**/role-mappings/realm", 1, http.StatusForbidden)
	p := b.do(http.MethodPost, acmeUsers, `{"username":"ada","roles":["auditor"]}`).problem(http.StatusBadGateway, adapter.CodePartiallyDone)
	live, ok := kc.Realm("acme").UserByName("ada")
	require.True(t, ok)
	require.Equal(t, live.ID, p.UserID)
	require.Equal(t, []adapter.CallStatus{adapter.CallFailed}, []adapter.CallStatus{p.Steps[0].Status})
	require.Contains(t, p.Try, "keytrail user role add "+live.ID+" auditor")

	p = b.do(http.MethodPost, acmeUsers, `{"username":"eve","roles":["nobody"]}`).problem(http.StatusNotFound, adapter.CodeRoleNotFound)
	require.Equal(t, outbound.StepNotTried, p.Steps[0].Status)
	_, ok = kc.Realm("acme").UserByName("eve")
	require.False(t, ok)
}

// The problem of a first request is told again, word for word, and as one that is.
func TestAProblemIsToldAgainUnderAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	withRights(kc)
	b := newBundle(t, connected)
	kc.Realm("acme").AddRole("auditor")
	kc.FailNext(http.MethodPost, "**/role-mappings/realm", 1, http.StatusForbidden)
	for key, c := range map[string]struct {
		body   string
		status int
		code   adapter.Code
	}{
		"done-in-part": {`{"username":"ada","roles":["auditor"]}`, http.StatusBadGateway, adapter.CodePartiallyDone},
		"no-group":     {`{"username":"eve","groups":["/nope"]}`, http.StatusNotFound, adapter.CodeGroupNotFound},
	} {
		first := b.do(http.MethodPost, acmeUsers, c.body, idempotencyHeader, key).problem(c.status, c.code)
		require.False(t, first.Repeated)
		again := b.do(http.MethodPost, acmeUsers, c.body, idempotencyHeader, key).problem(c.status, c.code)
		require.True(t, again.Repeated)
		again.Repeated = false
		require.Equal(t, first, again)
	}
}

func TestAnIdempotencyKeyIsHeeded(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	b := newBundle(t, connected)
	const body = `{"username":"ada","enabled":true,"password":"password-canary","reason":"new"}`
	var first, again outcome
	got := b.do(http.MethodPost, acmeUsers, body, idempotencyHeader, "key-1")
	require.Equal(t, http.StatusCreated, got.status)
	got.into(&first)
	got = b.do(http.MethodPost, acmeUsers, `{ "reason":"new", "enabled":true,"username":"ada","password":"password-canary"}`, idempotencyHeader, "key-1")
	require.Equal(t, http.StatusCreated, got.status, "the first outcome, and no conflict")
	require.Equal(t, acmeUsers+"/"+first.UserID, got.header.Get("Location"))
	got.into(&again)
	require.True(t, again.Repeated)
	again.Repeated = false
	require.Equal(t, first, again)
	require.Equal(t, 1, kc.Requests(http.MethodPost, "/admin/realms/acme/users"))

	p := b.do(http.MethodPost, acmeUsers, `{"username":"ada","enabled":false}`, idempotencyHeader, "key-1").
		problem(http.StatusUnprocessableEntity, adapter.CodeIdempotencyKeyReused)
	require.Equal(t, first.CallID, *p.CallID)
	b.do(http.MethodPost, acmeUsers+"/"+first.UserID+"/disable", "", idempotencyHeader, "key-1").
		problem(http.StatusUnprocessableEntity, adapter.CodeIdempotencyKeyReused)

	// The first is still under way: 202 with its call.
	held := kc.HoldAnswer(http.MethodPut, "/admin/realms/acme/users/*")
	t.Cleanup(held.Release)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.do(http.MethodPost, acmeUsers+"/"+first.UserID+"/disable", "", idempotencyHeader, "key-2")
	}()
	<-held.Arrived()
	got = b.do(http.MethodPost, acmeUsers+"/"+first.UserID+"/disable", "", idempotencyHeader, "key-2")
	require.Equal(t, http.StatusAccepted, got.status)
	got.into(&again)
	require.Equal(t, adapter.CallRequested, again.Status)
	held.Release()
	<-done
	require.Equal(t, http.StatusOK, b.do(http.MethodPost, acmeUsers+"/"+first.UserID+"/disable", "", idempotencyHeader, "key-2").status)

	for _, bad := range []string{"", "a b", "é", string(slices.Repeat([]byte("x"), maxKey+1))} {
		p := b.do(http.MethodPost, acmeUsers, body, idempotencyHeader, bad).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
		require.Equal(t, idempotencyHeader, p.Errors[0].Field)
	}
}
