package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter/check"
)

// The account with the roles of README.md proves push and pull by its own login: no role
// is needed for the proof, and the check changes nothing.
func TestKeycloakCheck(t *testing.T) {
	t.Parallel()
	onBothStores(t, options{}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.url + "/webhooks/keycloak")
		report, err := b.app.CheckKeycloak(t.Context(), b.realm.Name)
		require.NoError(t, err)
		require.True(t, report.OK, "%+v", report)
		for _, item := range report.Items {
			require.Equal(t, check.OK, item.Status, "%+v", item)
		}

		b.setRoles("view-users", "manage-users")
		report, err = b.app.CheckKeycloak(t.Context(), b.realm.Name)
		require.NoError(t, err)
		var missing []string
		for _, item := range report.Items {
			if item.Status == check.Missing {
				missing = append(missing, item.Name)
			}
			if item.Name == check.ItemPush {
				require.Equal(t, check.OK, item.Status, "%+v", item)
			}
		}
		require.Equal(t, []string{check.ItemViewRealm, check.ItemViewClients, check.ItemViewOrgs, check.ItemViewEvents, check.ItemManageOrgs}, missing)
		require.True(t, report.Incomplete)
	})
}
