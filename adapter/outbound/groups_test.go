package outbound_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

// below makes a group below another and returns its id.
func (w *whole) below(parent, name string) string {
	w.t.Helper()
	at := w.admin(http.MethodPost, "/groups/"+parent+"/children", `{"name":"`+name+`"}`)
	return at[strings.LastIndex(at, "/")+1:]
}

// A group may be given by its full path, at every depth and behind many others. Its echo,
// which names it by its id, is recognised.
func TestAGroupMayBeGivenByItsPath(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	for n := range 120 {
		w.realm.AddGroup(fmt.Sprintf("a%03d", n))
	}
	deep := w.below(w.below(w.group, "night"), "porters")
	ref := outbound.UserRef{Username: "bob"}
	w.pull()
	for path, id := range map[string]string{"/staff": w.group, "/staff/night/porters": deep, "/staff/night/porters/": deep} {
		clean := strings.TrimSuffix(path, "/")
		joined, err := w.commands.JoinGroup(w.ctx, "acme", ref, path)
		require.NoError(t, err)
		require.Equal(t, []string{clean}, w.user().Groups)
		user, _ := w.realm.User(w.bob)
		require.Equal(t, []string{id}, user.Groups)
		_, err = w.commands.JoinGroup(w.ctx, "acme", ref, path)
		require.Equal(t, adapter.CodeAlreadyMember, adapter.CodeOf(err))
		left, err := w.commands.LeaveGroup(w.ctx, "acme", ref, path)
		require.NoError(t, err)
		require.Empty(t, w.user().Groups)

		told := len(w.events(adapter.UserStream("acme", w.bob)))
		w.pull()
		require.Len(t, w.events(adapter.UserStream("acme", w.bob)), told, "an echo is no second user event")
		for _, out := range []outbound.Outcome{joined, left} {
			c := w.call(out.CallID)
			require.NotNil(t, c.Echo)
			require.Equal(t, "path", c.Echo.MatchedBy)
		}
	}
}

// An answer that is lost is settled by the echo also where the group was given by its
// path.
func TestTheEchoSettlesAGroupGivenByItsPath(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	for n, c := range []struct {
		method string
		run    func(context.Context, string, outbound.UserRef, string) (outbound.Outcome, error)
	}{{http.MethodPut, w.commands.JoinGroup}, {http.MethodDelete, w.commands.LeaveGroup}} {
		w.keycloak.Inject(keycloaktest.Fault{Method: c.method, Pattern: userPath + "/groups/*", DropAfter: true, Times: 1})
		out, err := c.run(w.ctx, "acme", outbound.UserRef{ID: w.bob}, "/staff")
		require.Equal(t, adapter.CodeOutcomeUnknown, adapter.CodeOf(err))
		w.pull()
		require.Equal(t, adapter.CallSucceeded, w.call(out.CallID).Status)
		require.Len(t, w.user().Groups, 1-n)
		events := w.events(adapter.UserStream("acme", w.bob))
		require.Equal(t, "alice", events[len(events)-1].Meta.Actor.ID)
	}
}

// Whoever is no member of a group is told so only where there is such a group.
func TestAGroupThatDoesNotExist(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	ref := outbound.UserRef{ID: w.bob}
	for _, run := range []func(context.Context, string, outbound.UserRef, string) (outbound.Outcome, error){w.commands.JoinGroup, w.commands.LeaveGroup} {
		for _, group := range []string{"/", "/nope", "/staff/nope", "nope", "staff", uuid.NewString()} {
			out, err := run(w.ctx, "acme", ref, group)
			require.Equal(t, adapter.CodeGroupNotFound, adapter.CodeOf(err), "%q: %v", group, err)
			require.EqualError(t, err, "there is no group "+group+" in realm acme, or keytrail may not see it")
			require.Equal(t, adapter.CallSkipped, out.Status)
			reads := w.call(out.CallID).PreconditionReads
			require.False(t, *reads[len(reads)-1].Found)
		}
	}
	for _, group := range []string{"/staff", w.group} {
		_, err := w.commands.LeaveGroup(w.ctx, "acme", ref, group)
		require.Equal(t, adapter.CodeNotMember, adapter.CodeOf(err))
		require.ErrorContains(t, err, "user bob is no member of the group /staff")
	}
}

// A group that a new user is to join is looked up first, and told as Keycloak has it.
func TestTheGroupsOfANewUserAreLookedUp(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	w.below(w.group, "night")
	ann := outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("ann")}, Groups: []string{"/staff/night", "staff/"}}
	out, err := w.commands.CreateUser(w.ctx, "acme", ann)
	require.NoError(t, err)
	u, _ := adapter.FoldUser(w.events(adapter.UserStream("acme", out.UserID)))
	require.Equal(t, []string{"/staff", "/staff/night"}, u.Groups)
	user, _ := w.realm.User(out.UserID)
	require.Len(t, user.Groups, 2)
}
