package outbound_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

func TestObservingAUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	ref := adapter.UserRef{Realm: "acme", UserID: bob}
	folded := func() adapter.User {
		u, ok := adapter.FoldUser(b.events(adapter.UserStream("acme", bob)))
		require.True(t, ok)
		return u
	}
	_, err := b.commands.UpdateUser(b.ctx, "acme", outbound.UserRef{ID: bob}, adapter.Profile{
		Attributes: adapter.Set(map[string][]string{"dept": {"ops"}}),
	})
	require.NoError(t, err)
	require.Equal(t, map[string][]string{"dept": {"ops"}}, folded().Attributes)
	require.NotNil(t, folded().Unread, "the user profile does not manage dept: it may have been dropped")

	b.keycloak.FailNext(http.MethodGet, userPath, 1, http.StatusServiceUnavailable)
	out, err := b.commands.ObserveUser(b.ctx, ref, "attributes")
	require.NoError(t, err)
	u := folded()
	require.Empty(t, u.Attributes)
	require.Nil(t, u.Unread)
	require.Equal(t, "bob@example.com", *u.Email)
	require.Equal(t, "alice", u.Origins[adapter.FieldEmail].Actor.ID, "what the read confirms keeps its origin")

	call := b.call(out.CallID)
	require.Equal(t, adapter.CallSucceeded, call.Status)
	require.Equal(t, "user.read", call.Command)
	require.Len(t, call.Attempts, 2)
	require.Len(t, call.PreconditionReads, 2, "roles and groups")

	// What changed behind our back is found, and who is gone.
	b.realm.BehindOurBack(func(users map[string]*keycloaktest.User) { users[bob].Enabled = false })
	_, err = b.commands.ObserveUser(b.ctx, ref, "asked")
	require.NoError(t, err)
	require.False(t, folded().Enabled)
	b.realm.BehindOurBack(func(users map[string]*keycloaktest.User) { delete(users, bob) })
	_, err = b.commands.ObserveUser(b.ctx, ref, "asked")
	require.NoError(t, err)
	require.True(t, folded().Deleted)

	version := folded().Version
	b.keycloak.Close()
	out, err = b.commands.ObserveUser(b.ctx, ref, "asked")
	require.Equal(t, adapter.CodeKeycloakUnreachable, adapter.CodeOf(err))
	require.Equal(t, adapter.CallFailed, b.call(out.CallID).Status)
	require.Equal(t, version, folded().Version, "a read that failed tells nothing")
}
