package outbound_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// A stamp that another administrator has copied hides nothing: the change is told as
// the administrator's.
func TestACopiedStampHidesNoChange(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	eve := w.create("eve")
	out, err := w.commands.DisableUser(w.ctx, "acme", outbound.UserRef{Username: "bob"})
	require.NoError(t, err)
	disabled := keycloak.Stamp(out.CallID.String())
	w.pull()

	for _, c := range []struct{ user, body string }{
		{w.bob, `{"enabled":true,"email":"evil@example.com","self":%q}`},
		{w.bob, `{"enabled":false,"self":%q}`}, // the very same change: it is another's still
		{eve, `{"enabled":false,"self":%q}`},
	} {
		stream := adapter.UserStream("acme", c.user)
		before := len(w.events(stream))
		w.admin(http.MethodPut, "/users/"+c.user, fmt.Sprintf(c.body, disabled))
		w.pull()
		events := w.events(stream)
		require.Len(t, events, before+1, c.body)
		told := events[before]
		require.NotEqual(t, "alice", told.Meta.Actor.ID)
		require.Nil(t, told.Meta.CallID)
		u, _ := adapter.FoldUser(events)
		live, _ := w.realm.User(c.user)
		require.Equal(t, live.Enabled, u.Enabled)
		require.Equal(t, live.Email, *u.Email)
	}
	echoes := 0
	for _, e := range w.events(adapter.CallStream(out.CallID)) {
		if e.Type == adapter.TypeApiCallEchoed {
			echoes++
		}
	}
	require.Equal(t, 1, echoes)

	// So with roles, whose stamp stands in the description.
	role, err := w.client.RealmRole(t.Context(), "acme", "clerk")
	require.NoError(t, err)
	out, err = w.commands.AddRole(w.ctx, "acme", outbound.UserRef{ID: w.bob}, outbound.RoleRef{Name: "auditor"})
	require.NoError(t, err)
	w.pull()
	w.admin(http.MethodPost, "/users/"+w.bob+"/role-mappings/realm",
		fmt.Sprintf(`[{"id":%q,"name":"clerk","description":%q}]`, role.ID, keycloak.Stamp(out.CallID.String())))
	w.pull()
	u, _ := adapter.FoldUser(w.events(adapter.UserStream("acme", w.bob)))
	require.Equal(t, []string{"auditor", "clerk"}, u.Roles)

	// And with the stamp of a creation: another user is not the one that was created.
	created := w.log(adapter.TypeApiCallRequested)[0].Payload.(*adapter.ApiCallRequested).CallID
	at := w.admin(http.MethodPost, "/users", fmt.Sprintf(`{"username":"mallory","enabled":true,"self":%q}`, keycloak.Stamp(created.String())))
	w.pull()
	require.Equal(t, []string{adapter.TypeUserApiCreated}, w.types(adapter.UserStream("acme", at[len(at)-36:])))
}

// A call that never reached Keycloak, or that was refused, is proved by nobody's copy of
// its stamp.
func TestACopiedStampProvesNothing(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(w *whole) uuid.UUID{
		"refused by a rule": func(w *whole) uuid.UUID {
			out, err := w.commands.EnableUser(w.ctx, "acme", outbound.UserRef{ID: w.bob})
			require.Equal(w.t, adapter.CodeAlreadyEnabled, adapter.CodeOf(err))
			return out.CallID
		},
		"refused by Keycloak": func(w *whole) uuid.UUID {
			w.keycloak.FailNext(http.MethodPut, userPath, 1, http.StatusBadRequest)
			out, err := w.commands.DisableUser(w.ctx, "acme", outbound.UserRef{ID: w.bob})
			require.Equal(w.t, adapter.CodeKeycloakInvalid, adapter.CodeOf(err))
			return out.CallID
		},
		"a creation refused by Keycloak": func(w *whole) uuid.UUID {
			w.keycloak.FailNext(http.MethodPost, usersPath, 1, http.StatusBadRequest)
			out, err := w.commands.CreateUser(w.ctx, "acme", outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("carl")}})
			require.Equal(w.t, adapter.CodeKeycloakInvalid, adapter.CodeOf(err))
			return out.CallID
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setupWhole(t)
			id := call(w)
			w.pull()
			before := w.types(adapter.CallStream(id))
			stamp := keycloak.Stamp(id.String())
			w.admin(http.MethodPut, "/users/"+w.bob, fmt.Sprintf(`{"enabled":false,"self":%q}`, stamp))
			w.admin(http.MethodPost, "/users", fmt.Sprintf(`{"username":"mallory","self":%q}`, stamp))
			w.pull()
			require.Equal(t, before, w.types(adapter.CallStream(id)))
			require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, w.types(adapter.UserStream("acme", w.bob)))
		})
	}
}

// While a call is open nothing recorded tells who made it: then the first echo stands
// for it, and a copy of its stamp is told from it.
func TestAStampIsCopiedWhileTheCallIsOpen(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	w.commands.Keycloak = keycloakThen{w.client, func() {
		w.pull()
		requested := w.log(adapter.TypeApiCallRequested)
		id := requested[len(requested)-1].Payload.(*adapter.ApiCallRequested).CallID
		w.admin(http.MethodPut, "/users/"+w.bob, fmt.Sprintf(`{"enabled":false,"lastName":"Hidden","self":%q}`, keycloak.Stamp(id.String())))
		w.pull()
	}}
	_, err := w.commands.DisableUser(w.ctx, "acme", outbound.UserRef{ID: w.bob})
	require.NoError(t, err)
	w.pull()
	u, _ := adapter.FoldUser(w.events(adapter.UserStream("acme", w.bob)))
	require.NotNil(t, u.LastName)
	require.Equal(t, "Hidden", *u.LastName)
	require.Len(t, w.events(adapter.UserStream("acme", w.bob)), 3)
}

// keycloakUnreached is a Keycloak before which the process dies.
type keycloakUnreached struct{ outbound.Keycloak }

func (keycloakUnreached) UpdateUser(context.Context, string, string, admin.UserBody) error {
	return context.Canceled
}

// The copied stamp of a call that was never made, and has no outcome, settles nothing,
// whatever the age of the call.
func TestACopiedStampSettlesNothing(t *testing.T) {
	t.Parallel()
	for _, age := range []time.Duration{0, 6 * time.Minute} {
		w := setupWhole(t)
		_, err := w.commands.UpdateUser(w.ctx, "acme", outbound.UserRef{ID: w.bob}, adapter.Profile{LastName: adapter.Set("Stone")})
		require.NoError(t, err)
		w.commands.Store, w.commands.Keycloak = &killed{w.store}, keycloakUnreached{w.client}
		out, err := w.commands.DisableUser(w.ctx, "acme", outbound.UserRef{ID: w.bob})
		require.Equal(t, adapter.CodeStoreUnavailable, adapter.CodeOf(err))
		w.admin(http.MethodPut, "/users/"+w.bob, fmt.Sprintf(`{"enabled":false,"self":%q}`, keycloak.Stamp(out.CallID.String())))
		w.later(age)
		w.pull()
		w.later(6 * time.Minute)
		w.settle()
		require.Equal(t, adapter.CallRequested, w.call(out.CallID).Status)
		events := w.events(adapter.UserStream("acme", w.bob))
		require.Equal(t, adapter.TypeUserApiDisabled, events[len(events)-1].Type)
		require.NotEqual(t, "alice", events[len(events)-1].Meta.Actor.ID)
	}
}

// keycloakTwice is a Keycloak behind a proxy that answers 503 to what it has put through,
// after which the write is repeated.
type keycloakTwice struct{ outbound.Keycloak }

func (k keycloakTwice) UpdateUser(ctx context.Context, realm, id string, body admin.UserBody) error {
	if err := k.Keycloak.UpdateUser(ctx, realm, id, body); err != nil {
		return err
	}
	return k.Keycloak.UpdateUser(ctx, realm, id, body)
}

// A write that was done twice is one change of ours with two echoes.
func TestAWriteThatWasDoneTwiceIsToldOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.commands.Keycloak = keycloakTwice{b.client}
	out, err := b.commands.UpdateUser(b.ctx, "acme", outbound.UserRef{ID: bob}, adapter.Profile{
		LastName: adapter.Set("Stone"), Attributes: adapter.Set(map[string][]string{"dept": {"ops"}}),
	})
	require.NoError(t, err)
	b.pull()
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated}, b.types(adapter.UserStream("acme", bob)))
	call := b.types(adapter.CallStream(out.CallID))
	require.Equal(t, []string{adapter.TypeApiCallEchoed, adapter.TypeApiCallEchoed}, call[len(call)-2:])
}
