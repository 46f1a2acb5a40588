package sqlite

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMigrateLeavesTheLocksOfAnOpenStore: closing any descriptor of a file drops all
// POSIX locks that the process has on it (fcntl(2)), and with them the one that keeps
// another process from removing the WAL when it closes the file as the last one.
func TestMigrateLeavesTheLocksOfAnOpenStore(t *testing.T) {
	t.Parallel()
	path := migrated(t)
	s := opened(t, path)
	_, err := s.Append(t.Context(), anAppend())
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	held := func() bool {
		locks, err := os.ReadFile("/proc/locks")
		require.NoError(t, err)
		return strings.Contains(string(locks), fmt.Sprintf(":%d 1073741826 1073742335", info.Sys().(*syscall.Stat_t).Ino))
	}
	require.True(t, held())
	require.NoError(t, Migrate(t.Context(), path))
	require.True(t, held(), "Migrate has dropped the lock of the open store")
}
