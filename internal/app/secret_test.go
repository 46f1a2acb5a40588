package app

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/lease"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// Processes that ask at once get the same secret, and so does one that comes later.
func TestAllProcessesHaveOneSecret(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	require.NoError(t, lease.Migrate(t.Context(), store.WriteDB(), sqlmigrate.SQLite))
	leases := lease.New(store.WriteDB(), nil)

	const processes = 8
	got := make([][]byte, processes)
	errs := make([]error, processes)
	var all sync.WaitGroup
	for n := range processes {
		all.Go(func() { got[n], errs[n] = (&secrets{leases: leases}).Secret(t.Context()) })
	}
	all.Wait()
	later, err := (&secrets{leases: leases}).Secret(t.Context())
	require.NoError(t, err)
	require.Len(t, later, secretSize)
	for n := range processes {
		require.NoError(t, errs[n])
		require.Equal(t, later, got[n])
	}

	_, err = store.WriteDB().ExecContext(t.Context(), `UPDATE api_leases SET state = '"tooshort"' WHERE name = $1`, secretName)
	require.NoError(t, err)
	_, err = (&secrets{leases: leases}).Secret(t.Context())
	require.ErrorContains(t, err, "damaged")
	require.NotContains(t, err.Error(), "tooshort")
}
