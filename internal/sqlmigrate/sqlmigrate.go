// Package sqlmigrate brings a database's schema up to date from SQL files that are
// built into the program, and refuses a database that is older or newer than the
// program. It is goose without its global state and without output.
package sqlmigrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/keytrail/keytrail/eventstore"
)

// Dialect is the kind of database.
type Dialect int

const (
	// SQLite wants connections that begin transactions with BEGIN IMMEDIATE.
	SQLite Dialect = iota + 1
	// Postgres guards Up with a session advisory lock, so it cannot go through a
	// pooler that changes the session between statements.
	Postgres
)

// Migrator knows one set of migrations and the table that records which of them a
// database has. It does not close the database and is safe for concurrent use.
type Migrator struct {
	db        *sql.DB
	dialect   Dialect
	table     string
	store     database.Store
	provider  *goose.Provider
	supported int64
}

// New reads the migrations in fsys, files named 00001_what.sql as goose wants them.
// table is the version table; each set of migrations in one database has its own.
func New(db *sql.DB, dialect Dialect, table string, fsys fs.FS) (*Migrator, error) {
	options := []goose.ProviderOption{
		goose.WithTableName(table),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()),
	}
	kind := goose.DialectSQLite3
	if dialect == Postgres {
		kind = goose.DialectPostgres
		// The default lock id would make unrelated goose users of one database wait.
		id := int64(crc32.ChecksumIEEE([]byte("keytrail/" + table)))
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(id), lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, fmt.Errorf("migrations of %s: %w", table, err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	store, err := database.NewStore(kind, table)
	if err != nil {
		return nil, fmt.Errorf("migrations of %s: %w", table, err)
	}
	provider, err := goose.NewProvider(kind, db, fsys, options...)
	if err != nil {
		return nil, fmt.Errorf("migrations of %s: %w", table, err)
	}
	sources := provider.ListSources()
	return &Migrator{
		db: db, dialect: dialect, table: table, store: store, provider: provider,
		supported: sources[len(sources)-1].Version,
	}, nil
}

// Up applies what is pending, each migration in a transaction. Several processes
// may call it at once. A database that is newer than the program is left alone and
// reported as *eventstore.SchemaError.
func (m *Migrator) Up(ctx context.Context) error {
	current, err := m.current(ctx)
	if err != nil {
		return err
	}
	if current > m.supported {
		return &eventstore.SchemaError{Current: current, Supported: m.supported}
	}
	if m.dialect == Postgres {
		if _, err := m.provider.Up(ctx); err != nil {
			return fmt.Errorf("migrate %s: %w", m.table, err)
		}
		return nil
	}
	return m.upSQLite(ctx)
}

// upSQLite replaces the lock that SQLite does not have by optimism: the version
// table is unique, so of two processes that apply one migration the slower one's
// transaction fails as a whole, and it goes on from what the faster one has done.
func (m *Migrator) upSQLite(ctx context.Context) error {
	if err := m.createVersionTable(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", m.table, err)
	}
	for {
		before, err := m.current(ctx)
		if err != nil {
			return err
		}
		_, upErr := m.provider.Up(ctx)
		if upErr == nil {
			return nil
		}
		after, err := m.current(ctx)
		if err != nil {
			return errors.Join(upErr, err)
		}
		if after == before {
			return fmt.Errorf("migrate %s: %w", m.table, upErr)
		}
	}
}

func (m *Migrator) createVersionTable(ctx context.Context) (err error) {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?`, m.table).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		if err := m.store.CreateVersionTable(ctx, tx); err != nil {
			return err
		}
		if err := m.store.Insert(ctx, tx, database.InsertRequest{Version: 0}); err != nil {
			return err
		}
		unique := fmt.Sprintf(`CREATE UNIQUE INDEX %[1]s_version ON %[1]s (version_id)`, m.table)
		if _, err := tx.ExecContext(ctx, unique); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Check returns nil when the database has exactly the schema that the program
// needs, *eventstore.SchemaError when it is older or newer, and other errors as
// the driver gave them. It only reads.
func (m *Migrator) Check(ctx context.Context) error {
	current, err := m.current(ctx)
	if err != nil {
		return err
	}
	if current != m.supported {
		return &eventstore.SchemaError{Current: current, Supported: m.supported}
	}
	return nil
}

// Supported is the schema version that the program needs.
func (m *Migrator) Supported() int64 { return m.supported }

// current is the database's schema version, 0 where it has none. goose's own
// question would create the version table, which a role that may only read cannot.
func (m *Migrator) current(ctx context.Context) (int64, error) {
	exists := `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1`
	if m.dialect == Postgres {
		exists = `SELECT count(to_regclass($1))`
	}
	var n int
	if err := m.db.QueryRowContext(ctx, exists, m.table).Scan(&n); err != nil {
		return 0, fmt.Errorf("look for the version table %s: %w", m.table, err)
	}
	if n == 0 {
		return 0, nil
	}
	version, err := m.store.GetLatestVersion(ctx, m.db)
	if errors.Is(err, database.ErrVersionNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the schema version from %s: %w", m.table, err)
	}
	return version, nil
}
