// Package sqlite keeps the event log in one SQLite file: the embedded default.
//
// The file is in WAL mode with synchronous=FULL, so an append that has returned
// survives a power cut. One connection writes; others read without waiting for
// it. Several processes may share the file on one machine, never over a network
// file system.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
	"github.com/keytrail/keytrail/eventstore/internal/snapshot"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// VersionTable records which migrations of the event store a database has.
const VersionTable = "api_schema_version"

const (
	// busyTimeout is how long SQLite waits for another process's transaction.
	busyTimeout = 5 * time.Second
	// appendLimit is how long an append may wait for the writing connection, which
	// projections use as well.
	appendLimit = 10 * time.Second
	// pollInterval is how often other processes' appends are looked for.
	pollInterval = 200 * time.Millisecond
	readers      = 8
)

// Options are what a store may be given. The zero value is good.
type Options struct {
	// Clock tells the recording time; nil is the machine's clock.
	Clock func() time.Time
	// Logger hears of what no caller can be told; nil is silence.
	Logger *slog.Logger
}

// Store is an event store in a SQLite file. It is safe for concurrent use.
type Store struct {
	write, read *sql.DB
	schema      *sqlmigrate.Migrator
	clock       *backend.Clock
	log         *slog.Logger
	life        *backend.Lifetime
	head        backend.Head
	snapshots   snapshot.Chooser

	committer *backend.Committer

	knownIDs, eventsByIDs, streamsByIDs, lastPosition *sql.Stmt
	insertEvent, insertBody, upsertStream             *sql.Stmt
}

var _ eventstore.Store = (*Store)(nil)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate creates the file where it is missing, readable by its owner only, and
// brings its schema up to date. Several processes may call it at once. A file that
// a newer program has migrated is refused with *eventstore.SchemaError.
func Migrate(ctx context.Context, path string) (err error) {
	doing := "migrate " + path
	if err := createFile(path); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	db, err := open(path, 1, false)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	schema, err := migrator(db)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return classify(doing, schema.Up(ctx))
}

// createFile makes an empty file where there is none. One that is there is not so much as
// opened: closing any descriptor of a file drops all POSIX locks that the process has on
// it (fcntl(2)), and with them what keeps another process from removing the WAL of a
// store that is open here.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// Open opens the store in the file. A file that is missing, not migrated, or
// migrated by a newer program is a *eventstore.SchemaError.
func Open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	doing := "open " + path
	s := &Store{clock: backend.NewClock(o.Clock), log: o.Logger, life: backend.NewLifetime()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.write, err = open(path, 1, false); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if s.read, err = open(path, readers, true); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", doing, err), s.write.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeDatabases())
		}
	}()
	if s.schema, err = migrator(s.read); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if _, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such file: %w", doing, &eventstore.SchemaError{Supported: s.schema.Supported()})
	}
	if err := s.schema.Check(ctx); err != nil {
		return nil, classify(doing, err)
	}
	if err := s.prepare(ctx); err != nil {
		return nil, classify(doing, err)
	}
	s.committer = backend.NewCommitter(s.life, appendLimit, s.writeBatch)
	s.life.Go(s.watch)
	return s, nil
}

// ReadDB is a pool of connections that can only read. It lives as long as the
// store.
func (s *Store) ReadDB() *sql.DB { return s.read }

// WriteDB is the one writing connection, shared with the appends: transactions on
// it must be short. It begins them with BEGIN IMMEDIATE.
func (s *Store) WriteDB() *sql.DB { return s.write }

// AppendsWaiting is how many appends of this process wait for the transaction before
// theirs. Beyond 4,096 they are refused with eventstore.ErrOverloaded.
func (s *Store) AppendsWaiting() int { return s.committer.Waiting() }

// Close implements eventstore.Store.
func (s *Store) Close() error {
	if !s.life.Close() {
		return nil
	}
	if err := s.closeDatabases(); err != nil {
		return fmt.Errorf("close the event store: %w", err)
	}
	return nil
}

func (s *Store) closeDatabases() error {
	// The writer goes last: the last connection to close folds the WAL into the file.
	return errors.Join(s.read.Close(), s.write.Close())
}

// Ping implements eventstore.Store.
func (s *Store) Ping(ctx context.Context) error {
	opCtx, over, err := s.life.Begin(ctx)
	if err != nil {
		return err
	}
	defer over()
	return backend.Ended(ctx, s.life, classify("check the event store", s.schema.Check(opCtx)))
}

func migrator(db *sql.DB) (*sqlmigrate.Migrator, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return sqlmigrate.New(db, sqlmigrate.SQLite, VersionTable, files)
}

// open opens a pool on an existing file.
func open(path string, connections int, readOnly bool) (*sql.DB, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{
		"mode":          {"rw"}, // never creates: a mistyped path must not become an empty log
		"_txlock":       {"immediate"},
		"_dqs":          {"0"},
		"_busy_timeout": {fmt.Sprint(busyTimeout.Milliseconds())},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_pragma":       {"cache_size(-16384)", "journal_size_limit(67108864)"},
	}
	if readOnly {
		// Not mode=ro: a reader may have to recover the WAL.
		q.Del("_txlock")
		q.Set("_query_only", "1")
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(absolute), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// timeFormat has a fixed width, so that text order is time order.
const timeFormat = "2006-01-02T15:04:05.000000Z"

func formatTime(t time.Time) any {
	if t.UTC().Year() > 9999 { // only in queries
		return "9999-12-31T23:59:59.999999Z"
	}
	return t.UTC().Format(timeFormat)
}

func formatUUID(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id.String()
}

// ReadStream implements eventstore.Reader.
func (s *Store) ReadStream(ctx context.Context, stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return dialect.ReadStream(ctx, s.life, s.page("read stream "+stream.String()), stream, q)
}

// ReadLog implements eventstore.Reader.
func (s *Store) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return dialect.ReadLog(ctx, s.life, backend.Log{Query: s.page("read the log"), Window: s.window, Head: s.headNow, Start: backend.FromTheFirst}, q)
}
