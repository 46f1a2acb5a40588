package bench

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
)

// database is where a benchmark works: an event store of its own, and the same tables
// past the store. What differs between PostgreSQL and SQLite is behind it.
type database interface {
	// kind is "postgres" or "sqlite".
	kind() string
	version(ctx context.Context) (string, error)
	// server is the parent of the server's processes on this machine, 0 where there is
	// none; unknown says why that cannot be told.
	server(ctx context.Context) (pid int, unknown string)
	migrate(ctx context.Context) error
	// open opens the store as one more process would.
	open(ctx context.Context) (store, error)
	// direct opens the tables without the store.
	direct(ctx context.Context) (tables, error)
	// remove removes everything.
	remove(ctx context.Context) error
}

// store is an event store whose database the projections share.
type store interface {
	eventstore.Store
	ReadDB() *sql.DB
	WriteDB() *sql.DB
}

// tables are the store's tables as a program without a store would use them: the bare
// work of the database. They are used by one goroutine at a time.
type tables interface {
	// write records the events and their streams in one transaction and one round trip
	// where the database has those: no lock, no check.
	write(ctx context.Context, b *batch) error
	// fill is write for large batches, with whatever is fastest.
	fill(ctx context.Context, b *batch) error
	// filled makes what was filled fit to be read: statistics, checkpoints.
	filled(ctx context.Context) error
	// scan reads the whole log with one query and returns the number of events.
	scan(ctx context.Context) (int, error)
	close(ctx context.Context) error
}

// batch is a stretch of the log with the gate's rows of its streams.
type batch struct {
	events  []event
	streams []gate
}

// event is an event with the place that the client has worked out for it.
type event struct {
	eventstore.NewEvent
	position   eventstore.Position
	stream     eventstore.StreamID
	version    eventstore.Version
	recordedAt time.Time
}

// gate is a row of api_streams.
type gate struct {
	stream      eventstore.StreamID
	version     eventstore.Version
	first, last eventstore.Position
}

func newDatabase(ctx context.Context, u config.StoreURL) (database, error) {
	if u.Kind == config.Postgres {
		return newPostgres(ctx, u)
	}
	return newSQLite(u)
}

// fill writes the batches past the store and returns the number of events.
func fill(ctx context.Context, db database, batches iter.Seq2[*batch, error]) (n int, err error) {
	t, err := db.direct(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = closing(ctx, t, err) }()
	for b, err := range batches {
		if err != nil {
			return n, err
		}
		if err := t.fill(ctx, b); err != nil {
			return n, err
		}
		n += len(b.events)
	}
	return n, t.filled(ctx)
}

func projectionsDB(s store, db database) projections.DB {
	p := projections.DB{Read: s.ReadDB(), Write: s.WriteDB(), Dialect: projections.SQLite}
	if db.kind() == string(config.Postgres) {
		p.Dialect = projections.Postgres
	}
	return p
}

// nullID is an id as a nullable column takes it.
func nullID(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// closing closes t and adds its error.
func closing(ctx context.Context, t tables, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	return errors.Join(err, t.close(ctx))
}
