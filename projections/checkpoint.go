package projections

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// VersionTable records which of this package's migrations a database has.
const VersionTable = "api_projection_schema_version"

//go:embed migrations
var migrations embed.FS

// Migrate creates the checkpoints' table or brings it up to date. The tables of
// projections are made by Engine.Setup.
func Migrate(ctx context.Context, db DB) error {
	m, err := migrator(db.Write, db.Dialect)
	if err != nil {
		return err
	}
	return m.Up(ctx)
}

// CheckSchema returns a *eventstore.SchemaError when the database needs Migrate or is
// newer than this program.
func CheckSchema(ctx context.Context, db DB) error {
	m, err := migrator(db.Read, db.Dialect)
	if err != nil {
		return err
	}
	return m.Check(ctx)
}

func migrator(db *sql.DB, d Dialect) (*sqlmigrate.Migrator, error) {
	files, err := fs.Sub(migrations, "migrations/"+d.String())
	if err != nil {
		return nil, err
	}
	return sqlmigrate.New(db, d.migrations(), VersionTable, files)
}

// rebuildSuffix ends the name of the checkpoint of a rebuild.
const rebuildSuffix = "/rebuild"

// checkpoint is how far a projection, a rebuild or a consumer has come.
type checkpoint struct {
	name    string
	version int
	// build tells one set of tables from the next.
	build     string
	position  eventstore.Position
	status    State
	err       string
	updatedAt time.Time
	// ahead is true where position is above what is stored.
	ahead bool
}

func (c checkpoint) tables() Tables {
	t := Tables{build: c.build}
	if strings.HasSuffix(c.name, rebuildSuffix) {
		t.suffix = "_" + c.build
	}
	return t
}

// newBuild is part of table names: short, lower case.
func newBuild() string { return "b" + strings.ToLower(rand.Text()[:8]) }

// errNoCheckpoint says that there is no such row.
var errNoCheckpoint = errors.New("there is no checkpoint")

// errOvertaken says that the checkpoint is no longer as it was read: another process
// was faster. It is no failure.
var errOvertaken = errors.New("another process has moved the checkpoint")

const checkpointColumns = `name, version, build, position, status, error, updated_at`

func scanCheckpoint(scan func(...any) error) (checkpoint, error) {
	var c checkpoint
	var at Time
	err := scan(&c.name, &c.version, &c.build, &c.position, &c.status, &c.err, &at)
	c.updatedAt = at.Time
	return c, err
}

// queryer is a *sql.DB or a *sql.Tx.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func loadCheckpoint(ctx context.Context, q queryer, name string) (checkpoint, error) {
	row := q.QueryRowContext(ctx, `SELECT `+checkpointColumns+` FROM api_projection_checkpoints WHERE name = $1`, name)
	c, err := scanCheckpoint(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return c, errNoCheckpoint
	}
	if err != nil {
		return c, fmt.Errorf("read the checkpoint of %s: %w", name, err)
	}
	return c, nil
}

func loadCheckpoints(ctx context.Context, db *sql.DB) (map[string]checkpoint, error) {
	all := make(map[string]checkpoint)
	err := Query(ctx, db, func(rows *sql.Rows) error {
		c, err := scanCheckpoint(rows.Scan)
		all[c.name] = c
		return err
	}, `SELECT `+checkpointColumns+` FROM api_projection_checkpoints`)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", err)
	}
	return all, nil
}

// insertCheckpoint reports false where there is one already.
func insertCheckpoint(ctx context.Context, tx *sql.Tx, c checkpoint) (bool, error) {
	result, err := tx.ExecContext(ctx, `
		INSERT INTO api_projection_checkpoints (`+checkpointColumns+`) VALUES ($1, $2, $3, $4, $5, '', $6)
		ON CONFLICT (name) DO NOTHING`,
		c.name, c.version, c.build, c.position, c.status, FormatTime(c.updatedAt))
	return changedOne(result, err)
}

// move advances the checkpoint from where it was read, in the transaction that writes
// the rows. It comes first in it, so that a slower process waits here and then finds
// itself overtaken, before it has touched a row. An empty status leaves the old one,
// except that a failure is over.
func (c checkpoint) move(ctx context.Context, tx *sql.Tx, to eventstore.Position, status State, now time.Time) error {
	moved, err := changedOne(tx.ExecContext(ctx, `
		UPDATE api_projection_checkpoints
		SET position = $1, updated_at = $2, error = '',
		    status = CASE WHEN $3 <> '' THEN $3 WHEN status = 'failing' THEN 'stopped' ELSE status END
		WHERE name = $4 AND position = $5 AND version = $6 AND build = $7`,
		to, FormatTime(now), string(status), c.name, c.position, c.version, c.build))
	switch {
	case err != nil:
		return fmt.Errorf("move the checkpoint of %s: %w", c.name, err)
	case !moved:
		return errOvertaken
	default:
		return nil
	}
}

// setStatus records a status without moving. When only is not empty, it is set only
// where that is the present one.
func setStatus(ctx context.Context, db *sql.DB, name string, status State, reason string, only State, now time.Time) error {
	_, err := db.ExecContext(ctx, `
		UPDATE api_projection_checkpoints SET status = $1, error = $2, updated_at = $3
		WHERE name = $4 AND (status = $5 OR $5 = '') AND (status <> $1 OR error <> $2)`,
		string(status), CleanText(reason), FormatTime(now), name, string(only))
	if err != nil {
		return fmt.Errorf("record the status of %s: %w", name, err)
	}
	return nil
}

func changedOne(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// beginner is a *sql.DB or a *sql.Conn.
type beginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// inTx runs f in a transaction.
func inTx(ctx context.Context, db beginner, f func(*sql.Tx) error) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			if rollbackErr := tx.Rollback(); rollbackErr != nil && !errors.Is(rollbackErr, sql.ErrTxDone) {
				err = errors.Join(err, rollbackErr)
			}
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
