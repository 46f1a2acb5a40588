package outbound_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
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
