package dbtest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/dbtest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

func TestPostgresGivesEveryTestItsOwnEmptyDatabase(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "two", "three"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), dbtest.Postgres(t))
			require.NoError(t, err)
			// Left open on purpose: the drop at the end must not wait for it.
			t.Cleanup(func() { _ = conn.PgConn().Conn().Close() })
			_, err = conn.Exec(t.Context(), `CREATE TABLE same_name_everywhere (n int)`)
			require.NoError(t, err)
		})
	}
}

func TestPostgresDropsTheDatabase(t *testing.T) {
	t.Parallel()
	var url string
	t.Run("use", func(t *testing.T) { url = dbtest.Postgres(t) })
	_, err := pgx.Connect(t.Context(), url)
	require.ErrorContains(t, err, "does not exist")
}

func TestSQLiteNamesAFileThatDoesNotExistYet(t *testing.T) {
	t.Parallel()
	path, ok := strings.CutPrefix(dbtest.SQLite(t), "sqlite:")
	require.True(t, ok)
	require.NoFileExists(t, path)
}

func TestClusterSurvivesACrash(t *testing.T) {
	t.Parallel()
	_ = dbtest.Postgres(t) // skips where PostgreSQL is missing
	cluster, err := dbtest.Start(t.Context(), dbtest.Options{Durable: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop()) })

	url := cluster.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)`)
	require.NoError(t, err)

	require.NoError(t, cluster.Kill())
	_, err = conn.Exec(t.Context(), `SELECT 1`)
	require.Error(t, err)
	require.NoError(t, conn.Close(t.Context()))
	require.NoError(t, cluster.Restart(t.Context()))

	conn, err = pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT n FROM kept`).Scan(&n))
	require.Equal(t, 7, n)
	require.NoError(t, conn.Close(t.Context()))
	require.NoError(t, cluster.Stop())
	require.NoError(t, cluster.Stop(), "stopping twice does no harm")
}
