package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/eventstore"
)

// What no event tells is found by comparing; what cannot be compared is no finding.
func TestReconciliation(t *testing.T) {
	t.Parallel()
	onBothStores(t, options{}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.tap.URL)
		ada := b.create("/users", object{"username": "ada", "firstName": "Ada", "lastName": "Byron", "enabled": true})
		bob := b.create("/users", object{"username": "bob", "enabled": true})
		carol := b.create("/users", object{"username": "carol", "enabled": true})
		for _, id := range []string{ada, bob, carol} {
			b.untilStory(id, adapter.TypeUserApiCreated)
		}
		b.inSync()

		// With the realm's events and listeners off, nothing arrives by any way.
		require.NoError(t, b.realm.SetEvents(t.Context(), false))
		b.admin(http.MethodPut, "/users/"+ada, object{"lastName": "King"})
		b.admin(http.MethodDelete, "/users/"+bob, nil)
		dave := b.create("/users", object{"username": "dave", "enabled": true})
		require.NoError(t, b.realm.SetEvents(t.Context(), true))
		b.untilAllRecorded()

		result, err := b.reconcile()
		require.NoError(t, err)
		require.Equal(t, reconcile.Drift, result.Verdict)
		require.Equal(t, 1, result.Verdict.ExitCode())
		found := map[string]adapter.Finding{}
		for _, f := range result.Findings {
			found[f.UserID] = f
		}
		require.Len(t, found, 3)
		changed := found[ada]
		require.Equal(t, adapter.SituationChanged, changed.Situation)
		require.Len(t, changed.Fields, 1)
		require.Equal(t, adapter.FieldLastName, changed.Fields[0].Field)
		require.JSONEq(t, `"Byron"`, string(changed.Fields[0].Believed))
		require.JSONEq(t, `"King"`, string(changed.Fields[0].Actual))
		require.Equal(t, b.server.AdminUser, changed.Fields[0].LastChangedBy, "who set what is believed")
		require.Equal(t, adapter.SituationMissingLive, found[bob].Situation)
		require.NotEmpty(t, b.proxy.seen(func(r wireRequest) bool {
			return r.method == http.MethodGet && r.path == "/admin/realms/"+b.realm.Name+"/users/"+bob && r.status == http.StatusNotFound
		}), "Keycloak itself said that the user is gone")
		require.Equal(t, adapter.SituationUnexpectedLive, found[dave].Situation)

		// The same over HTTP, and by the run's id.
		run := result.RunID.String()
		require.NoError(t, b.app.CatchUp(t.Context()))
		shown := get[adapter.Reconciliation](b, "/reconciliations/"+run)
		require.Equal(t, adapter.RunCompleted, shown.Status)
		require.Equal(t, 3, shown.FindingsTotal)
		require.Len(t, get[struct{ Items []adapter.Finding }](b, "/reconciliations/"+run+"/findings").Items, 3)
		require.Equal(t, result.CorrelationID, get[trace.Trace](b, "/traces/"+run).CorrelationID)
		failures := get[trace.FailurePage](b, "/failures")
		require.Len(t, failures.Items, 3)
		for _, f := range failures.Items {
			require.Equal(t, trace.FailureDrift, f.Kind)
		}

		// A second run counts them and does not tell them again.
		detected := b.count(adapter.TypeDriftDetected)
		require.Equal(t, 3, detected)
		result, err = b.reconcile()
		require.NoError(t, err)
		require.Len(t, result.Findings, 3)
		require.Equal(t, detected, b.count(adapter.TypeDriftDetected))

		// Changed back and deleted where keytrail can see it: the drift ends.
		b.admin(http.MethodPut, "/users/"+ada, object{"lastName": "Lovelace"})
		b.untilStory(ada, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated)
		b.admin(http.MethodDelete, "/users/"+dave, nil)
		b.untilStory(dave, adapter.TypeUserApiDeleted)
		status, started := b.api(http.MethodPost, "/realms/"+b.realm.Name+"/reconciliations", object{"reason": "after the repair"})
		require.Equal(t, http.StatusAccepted, status, "%v", started)
		b.until("the end of the run", func() bool {
			return b.count(adapter.TypeReconciliationCompleted) == 4
		})
		shown = get[adapter.Reconciliation](b, "/reconciliations/"+started["run_id"].(string))
		require.Equal(t, adapter.RunCompleted, shown.Status)
		require.Equal(t, 1, shown.FindingsTotal, "bob is missing still: %+v", shown.Findings)
		require.Equal(t, bob, shown.Findings[0].UserID)
		b.rebuildIsIdentical()

		// Nobody has to ask.
		b.stop()
		b.compare = time.Second
		b.start()
		b.until("a run by the schedule", func() bool {
			for _, e := range b.events(eventstore.LogQuery{Types: []string{adapter.TypeReconciliationStarted}, Backward: true, Limit: 1}) {
				return e.Payload.(*adapter.ReconciliationStarted).Trigger == "schedule" && b.count(adapter.TypeReconciliationCompleted) > 4
			}
			return false
		})
		b.stop()
		b.compare = 0
		b.start()

		whatCannotBeCompared(t, b)
	})
}

func whatCannotBeCompared(t *testing.T, b *bundle) {
	detected := b.count(adapter.TypeDriftDetected)
	incomplete := func(status adapter.RunStatus, codes ...adapter.Code) {
		t.Helper()
		result, err := b.reconcile()
		require.Contains(t, codes, adapter.CodeOf(err), "%v", err)
		require.Equal(t, status, result.Status)
		require.Equal(t, reconcile.Incomplete, result.Verdict)
		require.Equal(t, 3, result.Verdict.ExitCode())
		require.Empty(t, result.Findings)
		require.Equal(t, detected, b.count(adapter.TypeDriftDetected), "nobody is called missing")
		run := b.stream(adapter.ReconciliationStream(result.RunID))
		ended, ok := run[len(run)-1].Payload.(*adapter.ReconciliationAborted)
		require.True(t, ok)
		require.Equal(t, string(status), ended.Status)
	}

	b.proxy.inject(fault{method: http.MethodGet, path: "/admin/realms/" + b.realm.Name + "/users", times: 100, status: http.StatusInternalServerError})
	incomplete(adapter.RunInvalid, adapter.CodeKeycloakUnavailable)
	b.proxy.heal()

	// Without a role Keycloak refuses; with the wrong one it lists nobody, and says 200.
	b.setRoles("query-users")
	incomplete(adapter.RunInvalid, adapter.CodeListingEmpty)
	b.setRoles("view-events")
	incomplete(adapter.RunInvalid, adapter.CodeKeycloakForbidden)

	b.proxy.Close()
	incomplete(adapter.RunAborted, adapter.CodeKeycloakUnreachable)
	require.NoError(t, b.app.CatchUp(t.Context()))
	failures := get[trace.FailurePage](b, "/failures")
	require.Equal(t, trace.FailureReconciliationInvalid, failures.Items[0].Kind)
	require.Equal(t, adapter.CodeKeycloakUnreachable, failures.Items[0].Code)
}

// setRoles gives keytrail's service account these roles of realm-management, and no
// others. keytrail is started anew: 26.7.3 asks the account what it may, 26.4.7 the
// token, and a new one is got only then (measured).
func (b *bundle) setRoles(names ...string) {
	b.t.Helper()
	management := live[[]object](b, "/clients?clientId=realm-management")[0]["id"].(string)
	client := live[[]object](b, "/clients?clientId="+b.realm.ClientID)[0]["id"].(string)
	account := live[object](b, "/clients/"+client+"/service-account-user")["id"].(string)
	path := "/users/" + account + "/role-mappings/clients/" + management
	b.admin(http.MethodDelete, path, live[[]object](b, path))
	var roles []object
	for _, name := range names {
		roles = append(roles, live[object](b, "/clients/"+management+"/roles/"+name))
	}
	b.admin(http.MethodPost, path, roles)
	b.stop()
	b.start()
}
