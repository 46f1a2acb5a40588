package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// CopyTo writes a consistent copy of the whole store in the file at path to a new
// file, readable by its owner only and in one piece: without a log of changes beside
// it. Writers go on meanwhile; what they commit after it has begun is not in the copy.
// The copy is not synced. One that fails leaves a file that is no database.
func CopyTo(ctx context.Context, path, to string) (err error) {
	doing := fmt.Sprintf("copy %s to %s", path, to)
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	// A connection of its own: it must be one that could write, and is in use for as
	// long as copying takes.
	db, err := open(path, 1, false)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, `VACUUM INTO $1`, to)
	return classify(doing, ended(ctx, err))
}

// ended is the context's error where that has ended; SQLite calls it an interrupt.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// A Copy is a store's file that is only read: nothing beside it is created and
// nothing in it is changed, so that it may lie on a read-only medium. Nobody may
// write to it meanwhile. It is safe for concurrent use.
type Copy struct {
	db   *sql.DB
	life *backend.Lifetime
}

var _ eventstore.Verifiable = (*Copy)(nil)

// OpenCopy opens the file of a store. Errors are those of Open; a schema that is older
// than the program's is no error, see Copy.Schema.
func OpenCopy(ctx context.Context, path string) (_ *Copy, err error) {
	doing := "open " + path
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	q := url.Values{"mode": {"ro"}, "_query_only": {"1"}, "_dqs": {"0"}, "_pragma": {"cache_size(-16384)"}}
	if unfolded, err := hasChangesBeside(path); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	} else if !unfolded {
		q.Set("immutable", "1") // reads the file and looks for nothing beside it
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(absolute), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	c := &Copy{db: db, life: backend.NewLifetime()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	schema, err := c.Schema(ctx)
	if err != nil {
		return nil, classify(doing, err)
	}
	if schema.Current == 0 || schema.Current > schema.Supported {
		return nil, fmt.Errorf("%s: %w", doing, &schema)
	}
	return c, nil
}

// hasChangesBeside reports whether a log of changes, or a journal, lies beside the file.
func hasChangesBeside(path string) (bool, error) {
	for _, suffix := range []string{"-wal", "-journal"} {
		info, err := os.Stat(path + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return false, err
		case info.Size() > 0:
			return true, nil
		}
	}
	return false, nil
}

// Schema is the file's schema version and the program's.
func (c *Copy) Schema(ctx context.Context) (eventstore.SchemaError, error) {
	m, err := migrator(c.db)
	if err != nil {
		return eventstore.SchemaError{}, err
	}
	return schemaOf(ctx, m)
}

func schemaOf(ctx context.Context, m *sqlmigrate.Migrator) (eventstore.SchemaError, error) {
	var schema *eventstore.SchemaError
	switch err := m.Check(ctx); {
	case err == nil:
		return eventstore.SchemaError{Current: m.Supported(), Supported: m.Supported()}, nil
	case errors.As(err, &schema):
		return *schema, nil
	default:
		return eventstore.SchemaError{}, err
	}
}

// DB is the file as database/sql sees it. It lives as long as the Copy.
func (c *Copy) DB() *sql.DB { return c.db }

// Close ends it.
func (c *Copy) Close() error {
	if !c.life.Close() {
		return nil
	}
	return c.db.Close()
}

// reader reads as a store does.
func (c *Copy) reader() *Store { return &Store{read: c.db, life: c.life} }

// ReadStream is as eventstore.Reader has it.
func (c *Copy) ReadStream(ctx context.Context, stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return c.reader().ReadStream(ctx, stream, q)
}

// ReadLog is as eventstore.Reader has it.
func (c *Copy) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return c.reader().ReadLog(ctx, q)
}

// Versions is as eventstore.Reader has it.
func (c *Copy) Versions(ctx context.Context, streams ...eventstore.StreamID) (map[uuid.UUID]eventstore.Version, error) {
	return c.reader().Versions(ctx, streams...)
}

// Head is as eventstore.Reader has it.
func (c *Copy) Head(ctx context.Context) (eventstore.Position, error) {
	return c.reader().Head(ctx)
}

// CountStreams is how many streams the gate knows.
func (c *Copy) CountStreams(ctx context.Context) (int64, error) { return countStreams(ctx, c.db) }

// RawBodies yields every raw body, in the order of event ids.
func (c *Copy) RawBodies(ctx context.Context) iter.Seq2[eventstore.KeptBody, error] {
	return rawBodies(ctx, c.db)
}

// CheckFile looks for damage in the file itself: pages, rows, and indexes that
// disagree with their table.
func (c *Copy) CheckFile(ctx context.Context) ([]string, error) { return checkFile(ctx, c.db) }

// CountStreams is how many streams the gate knows.
func (s *Store) CountStreams(ctx context.Context) (n int64, err error) {
	err = s.reading(ctx, "count the streams", func(ctx context.Context) (err error) {
		n, err = countStreams(ctx, s.read)
		return err
	})
	return n, err
}

// RawBodies yields every raw body, in the order of event ids, as they are when it
// begins. It holds a connection until its end.
func (s *Store) RawBodies(ctx context.Context) iter.Seq2[eventstore.KeptBody, error] {
	return rawBodies(ctx, s.read)
}

// CheckFile looks for damage in the file itself: pages, rows, and indexes that
// disagree with their table.
func (s *Store) CheckFile(ctx context.Context) (damage []string, err error) {
	err = s.reading(ctx, "check the file", func(ctx context.Context) (err error) {
		damage, err = checkFile(ctx, s.read)
		return err
	})
	return damage, err
}

func countStreams(ctx context.Context, db *sql.DB) (n int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM api_streams`).Scan(&n)
	return n, classify("count the streams", ended(ctx, err))
}

func rawBodies(ctx context.Context, db *sql.DB) iter.Seq2[eventstore.KeptBody, error] {
	return func(yield func(eventstore.KeptBody, error) bool) {
		const doing = "read the raw bodies"
		rows, err := db.QueryContext(ctx, `SELECT event_id, content_type, body, created_at, digest FROM api_raw_bodies ORDER BY event_id`)
		if err != nil {
			yield(eventstore.KeptBody{}, classify(doing, ended(ctx, err)))
			return
		}
		defer func() { _ = rows.Close() }() // rows.Err has said what there is to say
		for rows.Next() {
			body, err := scanBody(rows)
			if err != nil {
				yield(eventstore.KeptBody{}, classify(doing, err))
				return
			}
			if !yield(body, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(eventstore.KeptBody{}, classify(doing, ended(ctx, err)))
		}
	}
}

func scanBody(rows *sql.Rows) (body eventstore.KeptBody, err error) {
	var id, recordedAt string
	if err := rows.Scan(&id, &body.ContentType, &body.Bytes, &recordedAt, &body.Digest); err != nil {
		return body, err
	}
	if body.EventID, err = uuid.Parse(id); err != nil {
		return body, fmt.Errorf("the raw body of event %q is damaged: %w", id, err)
	}
	if body.RecordedAt, err = time.Parse(timeFormat, recordedAt); err != nil {
		return body, fmt.Errorf("the raw body of event %s is damaged: %w", id, err)
	}
	return body, nil
}

func checkFile(ctx context.Context, db *sql.DB) (damage []string, err error) {
	rows, err := db.QueryContext(ctx, `PRAGMA integrity_check`)
	if err != nil {
		return nil, ended(ctx, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	lost := 0
	for rows.Next() {
		var lines string
		if err := rows.Scan(&lines); err != nil {
			return damage, err
		}
		for line := range strings.SplitSeq(lines, "\n") {
			switch {
			case line == "ok", strings.HasPrefix(line, "*** in database "):
			case strings.HasSuffix(line, ": never used"):
				lost++ // what a damaged page leads to
			default:
				damage = append(damage, line)
			}
		}
	}
	if lost > 0 {
		damage = append(damage, fmt.Sprintf("nothing leads to %d or more pages", lost))
	}
	return damage, ended(ctx, rows.Err())
}

// Load fills the store in the file at path, which must have no events, in one
// transaction: f writes through the Loader, and where it fails nothing is written.
// Positions, versions and times are taken as they are. Other processes' appends wait
// meanwhile, or fail as unavailable.
func Load(ctx context.Context, path string, f func(ctx context.Context, l *Loader) error) (err error) {
	doing := "load events into " + path
	db, err := open(path, 1, false)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	schema, err := migrator(db)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := schema.Check(ctx); err != nil {
		return classify(doing, err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return classify(doing, ended(ctx, err))
	}
	if err := load(ctx, tx, f); err != nil {
		err = classify(doing, ended(ctx, err))
		if rollback := tx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, rollback)
		}
		return err
	}
	return classify(doing, ended(ctx, tx.Commit()))
}

func load(ctx context.Context, tx *sql.Tx, f func(context.Context, *Loader) error) error {
	var begun bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM api_event_store) OR EXISTS (SELECT 1 FROM api_streams)`).Scan(&begun); err != nil {
		return err
	}
	if begun {
		return eventstore.ErrNotEmpty
	}
	if err := f(ctx, &Loader{tx: tx}); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO api_streams (aggregate_id, stream, version, first_position, last_position)
		SELECT aggregate_id, min(stream), max(version), min(position), max(position) FROM api_event_store GROUP BY aggregate_id`)
	return err
}

// Loader writes what a store holds into one that is empty. See Load.
type Loader struct{ tx *sql.Tx }

// Events writes the events up to the position head, which come in the order of their
// positions.
func (l *Loader) Events(ctx context.Context, _ eventstore.Position, events iter.Seq2[eventstore.Event, error]) (err error) {
	insert, err := l.tx.PrepareContext(ctx, `INSERT INTO api_event_store (`+backend.Columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, insert.Close()) }()
	for e, err := range events {
		if err != nil {
			return err
		}
		if _, err := insert.ExecContext(ctx, int64(e.Position), e.ID.String(), e.Stream.AggregateID().String(), e.Stream.String(),
			int64(e.Version), e.Type, string(e.Data), string(e.Metadata), formatUUID(e.CorrelationID), formatUUID(e.CausationID),
			formatTime(e.OccurredAt), formatTime(e.RecordedAt)); err != nil {
			return fmt.Errorf("position %d: %w", e.Position, err)
		}
	}
	return nil
}

// RawBodies writes raw bodies.
func (l *Loader) RawBodies(ctx context.Context, bodies iter.Seq2[eventstore.KeptBody, error]) (err error) {
	insert, err := l.tx.PrepareContext(ctx, `INSERT INTO api_raw_bodies (event_id, content_type, body, created_at, digest) VALUES ($1, $2, $3, $4, $5)`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, insert.Close()) }()
	for body, err := range bodies {
		if err != nil {
			return err
		}
		if body.Bytes == nil {
			body.Bytes = []byte{} // nil would be NULL
		}
		if _, err := insert.ExecContext(ctx, body.EventID.String(), body.ContentType, body.Bytes, formatTime(body.RecordedAt), body.Digest); err != nil {
			return fmt.Errorf("raw body of event %s: %w", body.EventID, err)
		}
	}
	return nil
}

// Exec runs a statement in the same transaction, for the tables that others keep in
// the database.
func (l *Loader) Exec(ctx context.Context, text string, args ...any) error {
	_, err := l.tx.ExecContext(ctx, text, args...)
	return err
}
