// Package postgres keeps the event log in PostgreSQL: for production, with any
// number of processes.
//
// Appends go through one function in the database, api_append, which takes an
// advisory lock until commit. So positions have no gaps and their order is the
// order of commits: a reader that follows positions misses nothing and needs no
// knowledge of transactions under way. One committer in each process writes what has
// queued in one call, so the lock costs next to nothing.
//
// The log is partitioned by position, so what an append writes to stays small while
// the log grows, and old partitions can be detached and kept elsewhere.
//
// The role that migrates owns the tables. The program may run as another role; it
// needs then no more than
//
//	GRANT SELECT ON api_event_store, api_event_ids, api_partitions, api_streams, api_snapshots, api_raw_bodies,
//	  api_schema_version TO program;
//	GRANT EXECUTE ON FUNCTION api_append, api_prepare_partitions, api_save_snapshot TO program;
//
// and cannot change an event even where it is broken into. As the owner it is held
// back by triggers, which an owner can drop.
package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
	"github.com/keytrail/keytrail/eventstore/internal/snapshot"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// VersionTable records which migrations of the event store a database has.
const VersionTable = "api_schema_version"

const (
	// appendLimit bounds an append from its turn to its answer. The database gives
	// up waiting for the order lock after 10 s already.
	appendLimit = 30 * time.Second
	// poolConnections is how many connections serve all but the appends, where the
	// URL does not say pool_max_conns.
	poolConnections = 16
	// writeConnections: one append at a time, and a notification.
	writeConnections = 2
)

// Options are what a store may be given. The zero value is good.
type Options struct {
	// Clock tells the recording time; nil is the machine's clock.
	Clock func() time.Time
	// Logger hears of what no caller can be told; nil is silence.
	Logger *slog.Logger
}

// Store is an event store in a PostgreSQL database. It is safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
	// appends has its own connections, so that an append never waits for a reader.
	appends   *pgxpool.Pool
	db        *sql.DB
	schema    *sqlmigrate.Migrator
	clock     *backend.Clock
	log       *slog.Logger
	life      *backend.Lifetime
	head      backend.Head
	committer *backend.Committer
	// findOutFor is findOutLimit, but for tests.
	findOutFor time.Duration
	// appended has a token while other processes are to be told of appends.
	appended chan struct{}
	// preparedTo is the position up to which enough partitions have been made.
	preparedTo atomic.Int64
	preparing  atomic.Bool
	// start is the first position that is in the log; those before it are in partitions
	// that have been detached.
	start atomic.Int64

	snapshots snapshot.Chooser
}

var _ eventstore.Store = (*Store)(nil)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema of the database at url up to date. Several processes
// may call it at once. A database that a newer program has migrated is refused
// with *eventstore.SchemaError.
func Migrate(ctx context.Context, url string) (err error) {
	const doing = "migrate the event store"
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	session(config)
	config.RuntimeParams["statement_timeout"] = "0" // a large log takes its time
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	schema, err := migrator(db)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return classify(doing, schema.Up(ctx))
}

// Open opens the store in the database at url, a libpq URL or keyword string to
// which pool_max_conns and the other settings of pgxpool may be added. Errors are
// ErrUnavailable when the database cannot be reached, and *eventstore.SchemaError
// when it is not migrated, or migrated by a newer program.
func Open(ctx context.Context, url string, o Options) (_ *Store, err error) {
	const doing = "open the event store"
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	session(config.ConnConfig)
	if !strings.Contains(url, "pool_max_conns") {
		config.MaxConns = poolConnections
	}
	s := &Store{clock: backend.NewClock(o.Clock), log: o.Logger, life: backend.NewLifetime(), appended: make(chan struct{}, 1), findOutFor: findOutLimit}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, classify(doing, err)
	}
	writing := config.Copy()
	writing.MaxConns, writing.MinConns, writing.MinIdleConns = writeConnections, 0, 0
	if s.appends, err = pgxpool.NewWithConfig(ctx, writing); err != nil {
		s.pool.Close()
		return nil, classify(doing, err)
	}
	s.db = stdlib.OpenDBFromPool(s.pool)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closePools())
		}
	}()
	if s.schema, err = migrator(s.db); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if err := s.schema.Check(ctx); err != nil {
		return nil, classify(doing, err)
	}
	head, err := s.headNow(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	s.head.Advance(head)
	if err := s.lookForStart(ctx, s.pool); err != nil {
		return nil, classify(doing, err)
	}
	s.committer = backend.NewCommitter(s.life, appendLimit, s.writeBatch)
	s.life.Go(s.notify)
	s.life.Go(func(ctx context.Context) { s.listen(ctx, config.ConnConfig) })
	return s, nil
}

// session sets what the store's promises rest on, whatever a role's or a
// database's defaults say.
func session(config *pgx.ConnConfig) {
	config.RuntimeParams["default_transaction_isolation"] = "read committed"
	config.RuntimeParams["synchronous_commit"] = "on"
	config.RuntimeParams["timezone"] = "UTC"
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "keytrail"
	}
}

func migrator(db *sql.DB) (*sqlmigrate.Migrator, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return sqlmigrate.New(db, sqlmigrate.Postgres, VersionTable, files)
}

// ReadDB is the pool as database/sql sees it. It lives as long as the store.
func (s *Store) ReadDB() *sql.DB { return s.db }

// WriteDB is the same pool as ReadDB.
func (s *Store) WriteDB() *sql.DB { return s.db }

// AppendsWaiting is how many appends of this process wait for the transaction before
// theirs. Beyond 4,096 they are refused with eventstore.ErrOverloaded.
func (s *Store) AppendsWaiting() int { return s.committer.Waiting() }

// Close implements eventstore.Store. It also waits for the transactions that
// others have begun on ReadDB and WriteDB.
func (s *Store) Close() error {
	if !s.life.Close() {
		return nil
	}
	if err := s.closePools(); err != nil {
		return fmt.Errorf("close the event store: %w", err)
	}
	return nil
}

func (s *Store) closePools() error {
	err := s.db.Close()
	s.appends.Close()
	s.pool.Close()
	return err
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

// ReadStream implements eventstore.Reader.
func (s *Store) ReadStream(ctx context.Context, stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	events := dialect.ReadStream(ctx, s.life, s.page("read stream "+stream.String()), stream, q)
	if s.start.Load() <= 1 {
		return events
	}
	return s.orArchived(ctx, events, stream, q)
}

// ReadLog implements eventstore.Reader.
func (s *Store) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return dialect.ReadLog(ctx, s.life, backend.Log{Query: s.page("read the log"), Window: s.window, Head: s.headNow, Start: s.startFor}, q)
}

// Wait implements eventstore.Waiter.
func (s *Store) Wait(ctx context.Context, after eventstore.Position) (eventstore.Position, error) {
	return s.head.Wait(ctx, s.life, after)
}
