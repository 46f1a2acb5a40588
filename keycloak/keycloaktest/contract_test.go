package keycloaktest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/kcserver"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
	"github.com/keytrail/keytrail/keycloak/keycloaktest/contract"
)

func TestFakeKeepsTheContract(t *testing.T) {
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	contract.Run(t, contract.Target{
		URL: server.URL(), AdminUser: keycloaktest.AdminUser, AdminPassword: keycloaktest.AdminPassword,
		Register: func(t *testing.T, realm string, person contract.Registration) {
			_, err := server.Realm(realm).Register(keycloaktest.Registration(person))
			require.NoError(t, err)
		},
		RollBackNext: func(method, pattern string, n int) {
			server.Inject(keycloaktest.Fault{Method: method, Pattern: pattern, Times: n, RollBack: true})
		},
		DoubleNext: func(method, pattern string, n int) {
			server.Inject(keycloaktest.Fault{Method: method, Pattern: pattern, Times: n, DoubleValues: true})
		},
	})
}

// TestKeycloakKeepsTheContract holds the suite itself to the truth.
func TestKeycloakKeepsTheContract(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Keycloak")
	}
	server := kcserver.Shared(t)
	contract.Run(t, contract.Target{
		Version: server.Version, URL: server.URL, AdminUser: server.AdminUser, AdminPassword: server.AdminPassword,
		Register: contract.RegisterByForm(server.URL),
	})
}
