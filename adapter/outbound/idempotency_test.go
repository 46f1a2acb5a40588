package outbound_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

// The same key with another password is another request; with the same, it is the same
// for every process on the store. Nothing recorded lets anybody try passwords.
func TestAPasswordIsPartOfARequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secret := func(context.Context) ([]byte, error) { return bytes.Repeat([]byte("k"), 32), nil }
	b.commands.Secret = secret
	ref := outbound.UserRef{ID: b.create("bob")}
	ctx := outbound.WithIdempotencyKey(b.ctx, "key-1", "digest")
	first, err := b.commands.ResetPassword(ctx, "acme", ref, "a first password", false)
	require.NoError(t, err)
	_, err = b.commands.ResetPassword(ctx, "acme", ref, "a second password", false)
	require.Equal(t, adapter.CodeIdempotencyKeyReused, adapter.CodeOf(err))
	again, err := b.commands.ResetPassword(ctx, "acme", ref, "a first password", false)
	require.NoError(t, err)
	require.True(t, again.Repeated)
	require.Equal(t, first.CallID, again.CallID)
	require.Equal(t, 1, b.keycloak.Requests(http.MethodPut, userPath+"/reset-password"))

	recorded := b.events(adapter.CallStream(first.CallID))[0].Payload.(*adapter.ApiCallRequested).RequestDigest
	guess := sha256.Sum256([]byte("user.reset_password\x00digest\x00a first password\x00"))
	require.NotEqual(t, hex.EncodeToString(guess[:]), recorded)
	b.commands.Secret = func(context.Context) ([]byte, error) { return bytes.Repeat([]byte("x"), 32), nil }
	_, err = b.commands.ResetPassword(ctx, "acme", ref, "a first password", false)
	require.Equal(t, adapter.CodeIdempotencyKeyReused, adapter.CodeOf(err), "without the secret, nobody can tell")

	// So when a user is created, where a name makes a difference anyway.
	b.commands.Secret = secret
	ctx = outbound.WithIdempotencyKey(b.ctx, "key-2", "digest")
	ann := outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("ann")}, Password: "a first password"}
	_, err = b.commands.CreateUser(ctx, "acme", ann)
	require.NoError(t, err)
	ann.Password = "a second password"
	_, err = b.commands.CreateUser(ctx, "acme", ann)
	require.Equal(t, adapter.CodeIdempotencyKeyReused, adapter.CodeOf(err))

	// Where the secret cannot be read nothing is tried.
	b.commands.Secret = func(context.Context) ([]byte, error) { return nil, context.DeadlineExceeded }
	ctx = outbound.WithIdempotencyKey(b.ctx, "key-3", "digest")
	_, err = b.commands.ResetPassword(ctx, "acme", ref, "a third password", false)
	require.Equal(t, adapter.CodeStoreUnavailable, adapter.CodeOf(err))
	require.Equal(t, 1, b.keycloak.Requests(http.MethodPut, userPath+"/reset-password"))
}

// A repetition is told what the first request was told, word for word, however that ended.
func TestARepetitionOfAFailure(t *testing.T) {
	t.Parallel()
	fault := func(method, pattern string, status, times int, body string) func(*whole) {
		return func(w *whole) {
			w.keycloak.Inject(keycloaktest.Fault{Method: method, Pattern: pattern, Status: status, Times: times, Body: body})
		}
	}
	disable := func(ctx context.Context, w *whole) (outbound.Outcome, error) {
		return w.commands.DisableUser(ctx, "acme", outbound.UserRef{ID: w.bob})
	}
	create := func(ctx context.Context, w *whole) (outbound.Outcome, error) {
		return w.commands.CreateUser(ctx, "acme", w.ann())
	}
	unlock := func(ctx context.Context, w *whole) (outbound.Outcome, error) {
		return w.commands.UnlockUser(ctx, "acme", outbound.UserRef{Username: "bob"})
	}
	disabled := func(w *whole) {
		w.realm.BehindOurBack(func(users map[string]*keycloaktest.User) { users[w.bob].Enabled = false })
	}
	const refusal = `{"errorMessage":"Keycloak has its reasons"}`
	for name, c := range map[string]struct {
		code  adapter.Code
		given func(*whole)
		run   func(context.Context, *whole) (outbound.Outcome, error)
		try   string
	}{
		"a step was refused":      {code: adapter.CodePartiallyDone, given: fault(http.MethodPost, "**/role-mappings/clients/*", http.StatusBadRequest, 1, refusal), run: create},
		"a step is unknown":       {code: adapter.CodePartiallyDone, given: fault(http.MethodPost, "**/role-mappings/realm", http.StatusInternalServerError, 1, refusal), run: create},
		"the creation is refused": {code: adapter.CodeKeycloakConflict, given: fault(http.MethodPost, usersPath, http.StatusConflict, 1, `{"errorMessage":"User exists with same username"}`), run: create},
		"there is no such group":  {code: adapter.CodeGroupNotFound, given: func(w *whole) { w.admin(http.MethodDelete, "/groups/"+w.group, "") }, run: create},
		"the write is refused":    {code: adapter.CodeKeycloakInvalid, given: fault(http.MethodPut, userPath, http.StatusBadRequest, 1, refusal), run: disable},
		"the write is unknown":    {code: adapter.CodeOutcomeUnknown, given: fault(http.MethodPut, userPath, http.StatusInternalServerError, 1, refusal), run: disable},
		"the read is refused":     {code: adapter.CodeKeycloakForbidden, given: fault(http.MethodGet, userPath, http.StatusForbidden, 1, refusal), run: disable},
		"the read fails":          {code: adapter.CodeKeycloakUnavailable, given: fault(http.MethodGet, userPath, http.StatusServiceUnavailable, 4, ""), run: disable},
		"it is so already":        {code: adapter.CodeAlreadyDisabled, given: disabled, run: disable},
		"the user is gone":        {code: adapter.CodeUserNotFound, given: func(w *whole) { w.admin(http.MethodDelete, "/users/"+w.bob, "") }, run: disable},
		"nobody is locked out":    {code: adapter.CodeNotLocked, given: func(*whole) {}, run: unlock, try: "keytrail trace"},
		"the user is disabled":    {code: adapter.CodeNotLocked, given: disabled, run: unlock, try: "keytrail user enable"},
		"the organization brought the user": {code: adapter.CodeManagedMember, try: "keytrail user delete", given: func(w *whole) {
			_, err := w.commands.JoinOrganization(w.ctx, "acme", outbound.UserRef{ID: w.bob}, w.organization)
			require.NoError(t, err)
			fault(http.MethodGet, "/admin/realms/acme/organizations/*/members/*", http.StatusOK, 1, `{"id":"`+w.bob+`","username":"bob","membershipType":"MANAGED"}`)(w)
		}, run: func(ctx context.Context, w *whole) (outbound.Outcome, error) {
			return w.commands.LeaveOrganization(ctx, "acme", outbound.UserRef{ID: w.bob}, w.organization)
		}},
		"the e-mail cannot be sent": {code: adapter.CodeKeycloakMailFault, given: func(*whole) {}, run: func(ctx context.Context, w *whole) (outbound.Outcome, error) {
			return w.commands.SendVerifyEmail(ctx, "acme", outbound.UserRef{ID: w.bob})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setupWhole(t)
			c.given(w)
			ctx := outbound.WithIdempotencyKey(w.ctx, "key-1", "digest")
			out, err := c.run(ctx, w)
			again, repeated := c.run(ctx, w)
			require.Equal(t, c.code, adapter.CodeOf(err), "%v", err)
			require.True(t, again.Repeated)
			again.Repeated = false
			require.Equal(t, out, again)
			var first, second *adapter.Error
			require.ErrorAs(t, err, &first)
			require.ErrorAs(t, repeated, &second)
			first.Err, second.Err = nil, nil
			require.Equal(t, first, second)
			require.Contains(t, second.Try, c.try)
		})
	}
}

// A repetition that comes between two calls of one action finds it under way; only where
// it has stopped there is it done in part.
func TestARepetitionBetweenTheSteps(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	ctx := outbound.WithIdempotencyKey(w.ctx, "key-1", "digest")
	second := *w.commands
	n := 0
	commands := *w.commands
	commands.Store = &storeAfter{Store: w.store, eventType: adapter.TypeApiCallSucceeded, then: func() {
		if n++; n == 4 {
			return // all is done
		}
		out, err := second.CreateUser(ctx, "acme", w.ann())
		require.NoError(t, err)
		require.Equal(t, adapter.CallRequested, out.Status)
		require.True(t, out.Repeated)
	}}
	out, err := commands.CreateUser(ctx, "acme", w.ann())
	require.NoError(t, err)
	require.Equal(t, adapter.CallSucceeded, out.Status)
	require.Equal(t, 4, n)
	again, err := second.CreateUser(ctx, "acme", w.ann())
	require.NoError(t, err)
	require.True(t, again.Repeated)
	again.Repeated = false
	require.Equal(t, out, again)

	// The process dies after the creation.
	ctx = outbound.WithIdempotencyKey(w.ctx, "key-2", "digest")
	eve := w.ann()
	eve.Username = adapter.Set("eve")
	dead := &storeClosed{Store: w.store}
	commands.Store = &storeAfter{Store: dead, eventType: adapter.TypeApiCallSucceeded, then: func() { dead.closed = true }}
	_, err = commands.CreateUser(ctx, "acme", eve)
	require.Equal(t, adapter.CodePartiallyDone, adapter.CodeOf(err))
	out, err = second.CreateUser(ctx, "acme", eve)
	require.NoError(t, err)
	require.Equal(t, adapter.CallRequested, out.Status, "nobody can tell yet")
	second.Clock = func() time.Time { return time.Now().Add(2 * time.Minute) }
	out, err = second.CreateUser(ctx, "acme", eve)
	require.Equal(t, adapter.CodePartiallyDone, adapter.CodeOf(err))
	require.Equal(t, outbound.StepNotTried, out.Steps[0].Status)
}

// storeAfter is a store after whose appends of one type something happens.
type storeAfter struct {
	outbound.Store
	eventType string
	then      func()
}

func (s *storeAfter) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	events, err := s.Store.Append(ctx, appends...)
	if err == nil && slices.ContainsFunc(events, func(e eventstore.Event) bool { return e.Type == s.eventType }) {
		s.then()
	}
	return events, err
}

type storeClosed struct {
	outbound.Store
	closed bool
}

func (s *storeClosed) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	if s.closed {
		return nil, eventstore.ErrClosed
	}
	return s.Store.Append(ctx, appends...)
}

// lockedOut is a Keycloak in which everybody is locked out for good.
type lockedOut struct{ outbound.Keycloak }

func (lockedOut) LoginFailures(context.Context, string, string) (keycloak.LoginFailures, error) {
	return keycloak.LoginFailures{Disabled: true, NumFailures: 3}, nil
}

// A repetition of an unlock tells that the user is not enabled where the first told so.
func TestARepeatedUnlock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		code   adapter.Code
	}{"done": {}, "done in part": {http.StatusBadRequest, adapter.CodePartiallyDone}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ref := outbound.UserRef{ID: b.create("bob")}
			_, err := b.commands.DisableUser(b.ctx, "acme", ref)
			require.NoError(t, err)
			b.realm.SetLoginFailures(ref.ID, 100)
			if c.status != 0 {
				b.keycloak.FailNext(http.MethodPut, userPath, 1, c.status)
			}
			second := *b.commands
			b.commands.Keycloak = lockedOut{b.client}
			b.commands.Store = &storeAfter{Store: b.store, eventType: adapter.TypeApiCallSucceeded, then: func() {
				ctx := outbound.WithIdempotencyKey(b.ctx, "key-1", "digest")
				if out, err := second.UnlockUser(ctx, "acme", ref); c.status != 0 {
					require.NoError(t, err)
					require.Equal(t, adapter.CallRequested, out.Status, "whether the user is enabled, too, is not told yet")
				}
			}}
			ctx := outbound.WithIdempotencyKey(b.ctx, "key-1", "digest")
			out, err := b.commands.UnlockUser(ctx, "acme", ref)
			require.Equal(t, c.code, adapter.CodeOf(err))
			again, repeated := second.UnlockUser(ctx, "acme", ref)
			require.Equal(t, c.code, adapter.CodeOf(repeated))
			require.True(t, again.Repeated)
			require.Len(t, again.Steps, 1)
			require.Equal(t, out.Steps[0].CallID, again.Steps[0].CallID)
			require.Equal(t, out.Steps[0].Status, again.Steps[0].Status)
			if c.code != "" {
				require.Contains(t, repeated.Error(), "the failed logins of user "+ref.ID+" were cleared")
				var e *adapter.Error
				require.ErrorAs(t, repeated, &e)
				require.Equal(t, "keytrail user enable "+ref.ID, e.Try)
			}
		})
	}
}
