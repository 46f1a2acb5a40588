package sqlmigrate_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

func migrations(sql ...string) fstest.MapFS {
	files := fstest.MapFS{}
	for i, s := range sql {
		files[string(rune('1'+i))+"_step.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + s)}
	}
	return files
}

// Adding to a counter is what must not be done twice.
var (
	first  = `CREATE TABLE counter (n int); INSERT INTO counter VALUES (0);`
	second = `UPDATE counter SET n = n + 1;`
	third  = `UPDATE counter SET n = n + 10;`
	faulty = `UPDATE counter SET n = 100; UPDATE nowhere SET n = 1;`
)

func onEach(t *testing.T, test func(t *testing.T, dialect sqlmigrate.Dialect, open func() *sql.DB)) {
	for name, dialect := range map[string]sqlmigrate.Dialect{"sqlite": sqlmigrate.SQLite, "postgres": sqlmigrate.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			driver, source := "sqlite", "file:"+filepath.Join(t.TempDir(), "a.db")+"?_txlock=immediate&_busy_timeout=10000&_journal_mode=WAL"
			if dialect == sqlmigrate.Postgres {
				driver, source = "pgx", dbtest.Postgres(t)
			}
			test(t, dialect, func() *sql.DB {
				db, err := sql.Open(driver, source)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, db.Close()) })
				return db
			})
		})
	}
}

func count(t *testing.T, db *sql.DB) (n int) {
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT n FROM counter`).Scan(&n))
	return n
}

func TestUpAndCheck(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, dialect sqlmigrate.Dialect, open func() *sql.DB) {
		ctx := t.Context()
		db := open()
		old, err := sqlmigrate.New(db, dialect, "one_version", migrations(first, second))
		require.NoError(t, err)
		var schema *eventstore.SchemaError
		require.ErrorAs(t, old.Check(ctx), &schema)
		require.Equal(t, eventstore.SchemaError{Current: 0, Supported: 2}, *schema)
		require.NoError(t, old.Up(ctx))
		require.NoError(t, old.Up(ctx))
		require.NoError(t, old.Check(ctx))
		require.Equal(t, 1, count(t, db))

		// A later program with a faulty migration leaves everything as it was.
		broken, err := sqlmigrate.New(db, dialect, "one_version", migrations(first, second, faulty))
		require.NoError(t, err)
		require.ErrorContains(t, broken.Up(ctx), "nowhere")
		require.Equal(t, 1, count(t, db))
		require.NoError(t, old.Check(ctx))

		later, err := sqlmigrate.New(db, dialect, "one_version", migrations(first, second, third))
		require.NoError(t, err)
		require.ErrorAs(t, later.Check(ctx), &schema)
		require.Equal(t, eventstore.SchemaError{Current: 2, Supported: 3}, *schema)
		require.NoError(t, later.Up(ctx))
		require.Equal(t, 11, count(t, db))
		require.EqualValues(t, 3, later.Supported())

		// The earlier program keeps its hands off.
		for _, err := range []error{old.Check(ctx), old.Up(ctx)} {
			require.ErrorAs(t, err, &schema)
			require.Equal(t, eventstore.SchemaError{Current: 3, Supported: 2}, *schema)
		}

		// Another set of migrations in the same database has versions of its own.
		other, err := sqlmigrate.New(db, dialect, "another_version", migrations(`CREATE TABLE other (n int);`))
		require.NoError(t, err)
		require.ErrorAs(t, other.Check(ctx), &schema)
		require.Equal(t, eventstore.SchemaError{Current: 0, Supported: 1}, *schema)
		require.NoError(t, other.Up(ctx))
		require.NoError(t, other.Check(ctx))
		require.NoError(t, later.Check(ctx))
	})
}

func TestUpAtOnceAppliesEachMigrationOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, dialect sqlmigrate.Dialect, open func() *sql.DB) {
		const processes = 5
		errs := make([]error, processes)
		var done sync.WaitGroup
		for i := range errs {
			db := open()
			m, err := sqlmigrate.New(db, dialect, "one_version", migrations(first, second, third, second, third))
			require.NoError(t, err)
			done.Go(func() { errs[i] = m.Up(t.Context()) })
		}
		done.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
		require.Equal(t, 22, count(t, open()))
	})
}

func TestNewRefusesNoMigrations(t *testing.T) {
	t.Parallel()
	_, err := sqlmigrate.New(nil, sqlmigrate.SQLite, "one_version", fstest.MapFS{})
	require.Error(t, err)
}
