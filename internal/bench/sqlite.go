package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore/sqlite"
)

// folderPrefix begins the names of the folders that benchmarks work in.
const folderPrefix = "keytrail-bench-"

// sqliteDatabase is a file in a folder of its own.
type sqliteDatabase struct{ dir, path string }

func newSQLite(u config.StoreURL) (database, error) {
	beside := temporaryFolder()
	if u.Kind == config.SQLite {
		beside = filepath.Dir(u.Path)
	}
	dir, err := os.MkdirTemp(beside, folderPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a folder to measure in: %w", err)
	}
	return &sqliteDatabase{dir: dir, path: filepath.Join(dir, "bench.db")}, nil
}

// temporaryFolder is the system's, or another one where that is kept in memory: there
// nothing could be said about a disk.
func temporaryFolder() string {
	for _, dir := range []string{os.TempDir(), "/var/tmp"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() && !inMemory(dir) {
			return dir
		}
	}
	return "."
}

func (d *sqliteDatabase) kind() string { return string(config.SQLite) }

func (d *sqliteDatabase) remove(context.Context) error { return os.RemoveAll(d.dir) }

func (d *sqliteDatabase) version(ctx context.Context) (version string, err error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return "", err
	}
	err = db.QueryRowContext(ctx, `SELECT sqlite_version()`).Scan(&version)
	return "SQLite " + version, errors.Join(err, db.Close())
}

func (d *sqliteDatabase) server(context.Context) (pid int, unknown string) { return 0, "" }

func (d *sqliteDatabase) migrate(ctx context.Context) error { return sqlite.Migrate(ctx, d.path) }

func (d *sqliteDatabase) open(ctx context.Context) (store, error) {
	return sqlite.Open(ctx, d.path, sqlite.Options{})
}

func (d *sqliteDatabase) direct(ctx context.Context) (_ tables, err error) {
	// As the store opens it.
	q := url.Values{
		"mode": {"rw"}, "_txlock": {"immediate"}, "_dqs": {"0"}, "_busy_timeout": {"5000"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"},
		"_pragma": {"cache_size(-16384)", "journal_size_limit(67108864)"},
	}
	absolute, err := filepath.Abs(d.path)
	if err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(absolute), RawQuery: q.Encode()}
	t := &sqliteTables{}
	if t.db, err = sql.Open("sqlite", name.String()); err != nil {
		return nil, err
	}
	t.db.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			err = errors.Join(err, t.db.Close())
		}
	}()
	if t.insert, err = t.db.PrepareContext(ctx, insertRows(1)); err != nil {
		return nil, err
	}
	if t.insertMany, err = t.db.PrepareContext(ctx, insertRows(fillRows)); err != nil {
		return nil, err
	}
	t.upsert, err = t.db.PrepareContext(ctx, upsertRow)
	return t, err
}

// sqliteTables is one connection.
type sqliteTables struct {
	db                         *sql.DB
	insert, insertMany, upsert *sql.Stmt
}

// The SQL of the limit: what an append writes, with positions and versions that the
// client has worked out.
const (
	eventColumns = 12
	// fillRows is how many rows one statement of fill inserts.
	fillRows  = 50
	upsertRow = `INSERT INTO api_streams (aggregate_id, stream, version, first_position, last_position) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (aggregate_id) DO UPDATE SET version = excluded.version, last_position = excluded.last_position`
)

func insertRows(n int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", eventColumns), ", ") + ")"
	return `INSERT INTO api_event_store (position, event_id, aggregate_id, stream, version, event_type, event_data, event_metadata,
		correlation_id, causation_id, occurred_at, created_at) VALUES ` + strings.TrimSuffix(strings.Repeat(row+", ", n), ", ")
}

// sqliteTime is how the store writes times.
const sqliteTime = "2006-01-02T15:04:05.000000Z"

func eventValues(to []any, e *event) []any {
	var correlation, causation any
	if id := nullID(e.CorrelationID); id != nil {
		correlation = id.String()
	}
	if id := nullID(e.CausationID); id != nil {
		causation = id.String()
	}
	return append(to, int64(e.position), e.ID.String(), e.stream.AggregateID().String(), e.stream.String(), int64(e.version), e.Type,
		string(e.Data), string(e.Metadata), correlation, causation, e.OccurredAt.UTC().Format(sqliteTime), e.recordedAt.UTC().Format(sqliteTime))
}

func (t *sqliteTables) write(ctx context.Context, b *batch) error { return t.inTx(ctx, b, 1) }

func (t *sqliteTables) fill(ctx context.Context, b *batch) error { return t.inTx(ctx, b, fillRows) }

func (t *sqliteTables) inTx(ctx context.Context, b *batch, many int) (err error) {
	// A context that can end costs a goroutine for each statement.
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	one, several, upsert := tx.StmtContext(ctx, t.insert), tx.StmtContext(ctx, t.insertMany), tx.StmtContext(ctx, t.upsert)
	var values []any
	for left := b.events; len(left) > 0; {
		n, stmt := 1, one
		if many > 1 && len(left) >= many {
			n, stmt = many, several
		}
		values = values[:0]
		for i := range n {
			values = eventValues(values, &left[i])
		}
		if _, err := stmt.ExecContext(ctx, values...); err != nil {
			return err
		}
		left = left[n:]
	}
	for _, s := range b.streams {
		if _, err := upsert.ExecContext(ctx, s.stream.AggregateID().String(), s.stream.String(), int64(s.version), int64(s.first), int64(s.last)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (t *sqliteTables) filled(ctx context.Context) error {
	_, err := t.db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	return err
}

func (t *sqliteTables) scan(ctx context.Context) (n int, err error) {
	rows, err := t.db.QueryContext(context.WithoutCancel(ctx), scanLog)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var (
			position, version          int64
			id, aggregate, stream, typ string
			data, metadata             []byte
			correlation, causation     sql.NullString
			occurredAt, recordedAt     string
		)
		if err := rows.Scan(&position, &id, &aggregate, &stream, &version, &typ, &data, &metadata, &correlation, &causation, &occurredAt, &recordedAt); err != nil {
			return n, err
		}
		if n++; n%1000 == 0 && ctx.Err() != nil {
			return n, ctx.Err()
		}
	}
	return n, rows.Err()
}

func (t *sqliteTables) close(context.Context) error { return t.db.Close() }

// pollInterval is how often a SQLite store looks for other processes' appends.
const pollInterval = 200 * time.Millisecond
