package app_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

const realm = "acme"

// opened is keytrail on a store of its own beside a fake Keycloak with five users.
func opened(t *testing.T) (*app.App, *keycloaktest.Server) {
	t.Helper()
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	live := server.AddRealm(realm, keycloaktest.RealmOptions{AdminEvents: true})
	live.AddClient("keytrail", "secret", "view-users", "view-events", "view-realm")
	live.BehindOurBack(func(users map[string]*keycloaktest.User) {
		for i := range 5 {
			users[fmt.Sprint("u", i)] = &keycloaktest.User{Username: fmt.Sprint("user", i), Enabled: true, CreatedTimestamp: 1}
		}
	})
	cfg, err := config.Load(config.Input{Env: []string{
		"KEYTRAIL_STORE_URL=sqlite:" + filepath.Join(t.TempDir(), "keytrail.db"),
		"KEYTRAIL_KEYCLOAK_URL=" + server.URL(), "KEYTRAIL_KEYCLOAK_REALMS=" + realm, "KEYTRAIL_KEYCLOAK_AUTH_REALM=" + realm,
		"KEYTRAIL_KEYCLOAK_CLIENT_ID=keytrail", "KEYTRAIL_KEYCLOAK_CLIENT_SECRET=secret",
	}})
	require.NoError(t, err)
	require.NoError(t, app.Migrate(t.Context(), cfg))
	a, err := app.Open(t.Context(), cfg, app.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a, server
}

func TestBaseline(t *testing.T) {
	t.Parallel()
	a, _ := opened(t)
	var adopted, counted int
	res, err := a.Baseline(t.Context(), realm, func(a, c int) { adopted, counted = a, c })
	require.NoError(t, err)
	require.Equal(t, reconcile.InSync, res.Verdict)
	require.Equal(t, 5, res.Baselined)
	require.Equal(t, []int{5, 5}, []int{adopted, counted})
	lease, _, err := a.Leases.Read(t.Context(), reconcile.ScheduleName(realm))
	require.NoError(t, err)
	require.True(t, lease.LastRun.IsZero(), "nothing was compared")
	res, err = a.Reconcile(t.Context(), realm, "cli")
	require.NoError(t, err)
	require.Equal(t, 5, res.InSync)
	require.False(t, res.Baseline)
}

func TestCancelRun(t *testing.T) {
	t.Parallel()
	a, server := opened(t)
	held := server.HoldRequest("GET", "/admin/realms/*/users")
	t.Cleanup(held.Release)
	type outcome struct {
		res reconcile.Result
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		res, err := a.Baseline(t.Context(), realm, nil)
		ended <- outcome{res, err}
	}()
	<-held.Arrived()
	_, err := a.Reconcile(t.Context(), realm, "cli")
	require.Equal(t, adapter.CodeRunInProgress, adapter.CodeOf(err), "runs and baselines hold the same lease")

	var id uuid.UUID
	unfinished, err := reconcile.LogHistory{Log: a.Store, Codec: a.Codec}.Unfinished(t.Context(), realm)
	require.NoError(t, err)
	require.Len(t, unfinished, 1)
	id = unfinished[0]
	ctx := adapter.WithCall(t.Context(), adapter.CallContext{Actor: adapter.Actor{Type: adapter.ActorToken, ID: "api"}})
	run, err := a.CancelRun(ctx, id)
	require.NoError(t, err)
	require.Equal(t, adapter.RunAborted, run.Status)

	events, err := a.Codec.ReadStream(t.Context(), a.Store, adapter.ReconciliationStream(id))
	require.NoError(t, err)
	run, _ = adapter.FoldReconciliation(events)
	require.Equal(t, adapter.RunAborted, run.Status, "recorded by the time that the cancellation returns")
	require.Equal(t, adapter.CodeInterrupted, run.Code)
	require.Contains(t, run.Error, "cancelled by api")
	got := <-ended
	require.Equal(t, adapter.CodeInterrupted, adapter.CodeOf(got.err))
	require.Equal(t, id, got.res.RunID)
	require.Contains(t, got.res.Error, "cancelled by api")

	held.Release()
	_, err = a.CancelRun(ctx, id)
	require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err), "it is over")
	_, err = a.CancelRun(ctx, uuid.New())
	require.Equal(t, adapter.CodeNotFound, adapter.CodeOf(err))
	res, err := a.Baseline(t.Context(), realm, nil)
	require.NoError(t, err)
	require.Equal(t, 5, res.Baselined)
}

func TestCancelRunOfAnotherProcess(t *testing.T) {
	t.Parallel()
	a, server := opened(t)
	other, err := app.Open(t.Context(), a.Config, app.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	held := server.HoldRequest("GET", "/admin/realms/*/users")
	t.Cleanup(held.Release)
	ended := make(chan error, 1)
	go func() {
		_, err := a.Reconcile(t.Context(), realm, "cli")
		ended <- err
	}()
	<-held.Arrived()
	unfinished, err := reconcile.LogHistory{Log: a.Store, Codec: a.Codec}.Unfinished(t.Context(), realm)
	require.NoError(t, err)
	run, err := other.CancelRun(t.Context(), unfinished[0])
	require.NoError(t, err)
	require.Equal(t, adapter.RunAborted, run.Status)
	held.Release()
	err = <-ended
	require.Equal(t, adapter.CodeInterrupted, adapter.CodeOf(err))
	require.ErrorContains(t, err, "cancelled by")
}
