package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

// An Export is the store as it is at one moment, whatever is committed afterwards. Its
// iterators are used one after the other.
type Export struct{ tx pgx.Tx }

// Export lets f read the store as it is at one moment. Writers go on meanwhile. The log
// that f sees is whole up to its head, because positions are given in the order of
// commits.
func (s *Store) Export(ctx context.Context, f func(ctx context.Context, x *Export) error) (err error) {
	const doing = "read the event store as it is now"
	opCtx, over, err := s.life.Begin(ctx)
	if err != nil {
		return err
	}
	defer over()
	tx, err := s.pool.BeginTx(opCtx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return backend.Ended(ctx, s.life, classify(doing, err))
	}
	defer func() {
		// Nothing was written; rolling back is how a reader ends.
		if rollback := tx.Rollback(context.WithoutCancel(ctx)); err == nil && !errors.Is(rollback, pgx.ErrTxClosed) {
			err = classify(doing, rollback)
		}
	}()
	// It takes as long as it takes, whatever limits the role has.
	if _, err := tx.Exec(opCtx, `SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
		return backend.Ended(ctx, s.life, classify(doing, err))
	}
	return backend.Ended(ctx, s.life, classify(doing, f(opCtx, &Export{tx: tx})))
}

// Head is the position of its newest event.
func (x *Export) Head(ctx context.Context) (head eventstore.Position, err error) {
	err = x.tx.QueryRow(ctx, headSQL).Scan(&head)
	return head, err
}

// Events yields the whole log in the order of positions.
func (x *Export) Events(ctx context.Context) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for after := eventstore.Position(0); ; {
			rows, err := x.tx.Query(ctx, `SELECT `+backend.Columns+` FROM api_event_store WHERE position > $1 ORDER BY position LIMIT $2`, after, backend.PageRows)
			if err != nil {
				yield(eventstore.Event{}, err)
				return
			}
			page, cut, err := scanEvents(rows, backend.PageBytes)
			if err != nil {
				yield(eventstore.Event{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
				after = e.Position
			}
			if len(page) < backend.PageRows && !cut {
				return
			}
		}
	}
}

// RawBodies yields every raw body, in the order of event ids.
func (x *Export) RawBodies(ctx context.Context) iter.Seq2[eventstore.KeptBody, error] {
	return rawBodies(ctx, x.tx)
}

// Query reads tables that others keep in the database; scan is called for each row.
func (x *Export) Query(ctx context.Context, scan func(scan func(...any) error) error, text string, args ...any) error {
	rows, err := x.tx.Query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// FirstPosition is the first position that the log can have: above 1 where the oldest
// partitions have been detached.
func (s *Store) FirstPosition(ctx context.Context) (first eventstore.Position, err error) {
	err = s.reading(ctx, "look for the beginning of the log", func(ctx context.Context) error { return s.lookForStart(ctx, s.pool) })
	return eventstore.Position(s.start.Load()), err
}

// CountStreams is how many streams the gate knows.
func (s *Store) CountStreams(ctx context.Context) (n int64, err error) {
	err = s.reading(ctx, "count the streams", func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT count(*) FROM api_streams`).Scan(&n)
	})
	return n, err
}

// RawBodies yields every raw body, in the order of event ids, as they are when it
// begins. It holds a connection until its end.
func (s *Store) RawBodies(ctx context.Context) iter.Seq2[eventstore.KeptBody, error] {
	return func(yield func(eventstore.KeptBody, error) bool) {
		for body, err := range rawBodies(ctx, s.pool) {
			if err != nil {
				err = backend.Ended(ctx, s.life, classify("read the raw bodies", err))
			}
			if !yield(body, err) {
				return
			}
		}
	}
}

func rawBodies(ctx context.Context, db querier) iter.Seq2[eventstore.KeptBody, error] {
	return func(yield func(eventstore.KeptBody, error) bool) {
		rows, err := db.Query(ctx, `SELECT event_id, content_type, body, created_at, digest FROM api_raw_bodies ORDER BY event_id`)
		if err != nil {
			yield(eventstore.KeptBody{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var body eventstore.KeptBody
			var id pgtype.UUID
			if err := rows.Scan(&id, &body.ContentType, &body.Bytes, &body.RecordedAt, &body.Digest); err != nil {
				yield(eventstore.KeptBody{}, err)
				return
			}
			body.EventID, body.RecordedAt = id.Bytes, body.RecordedAt.UTC()
			if !yield(body, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(eventstore.KeptBody{}, err)
		}
	}
}

// Load fills the store in the database at url, which must have no events, in one
// transaction: f writes through the Loader, and where it fails nothing is written.
// Positions, versions and times are taken as they are. The role must own the tables.
// Other processes' appends wait meanwhile, or fail as unavailable.
func Load(ctx context.Context, url string, f func(ctx context.Context, l *Loader) error) (err error) {
	const doing = "load events into the event store"
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	session(config)
	if err := checkSchema(ctx, config); err != nil {
		return classify(doing, err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return classify(doing, err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	tx, err := conn.Begin(ctx)
	if err == nil {
		if err = load(ctx, tx, f); err != nil {
			_ = tx.Rollback(context.WithoutCancel(ctx)) // closing the connection does so too
		}
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = tx.Commit(context.WithoutCancel(ctx)) // so that its outcome is known
	}
	return classify(doing, err)
}

func checkSchema(ctx context.Context, config *pgx.ConnConfig) (err error) {
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	schema, err := migrator(db)
	if err != nil {
		return err
	}
	return schema.Check(ctx)
}

func load(ctx context.Context, tx pgx.Tx, f func(context.Context, *Loader) error) error {
	// It takes as long as it takes, whatever limits the role has.
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
		return err
	}
	// The order lock of api_append: nobody appends until this is committed.
	if _, err := tx.Exec(ctx, orderLockSQL); err != nil {
		return err
	}
	var begun bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM api_event_store) OR EXISTS (SELECT FROM api_streams) OR EXISTS (SELECT FROM api_event_ids)`).Scan(&begun); err != nil {
		return err
	}
	if begun {
		return eventstore.ErrNotEmpty
	}
	l := &Loader{tx: tx}
	if err := f(ctx, l); err != nil {
		return err
	}
	return l.afterEvents(ctx)
}

// orderLockSQL takes the lock that api_append takes.
const orderLockSQL = `SELECT pg_advisory_xact_lock(1801812340, 'api_event_store'::regclass::oid::int4)`

// Loader writes what a store holds into one that is empty. See Load.
type Loader struct{ tx pgx.Tx }

// beforeEvents makes the partitions for the events up to a position.
func (l *Loader) beforeEvents(ctx context.Context, head eventstore.Position) error {
	_, err := l.tx.Exec(ctx, `SELECT api_prepare_partitions($1)`, int64(head))
	return err
}

// afterEvents writes what follows from the events: the gate, and which id is where.
func (l *Loader) afterEvents(ctx context.Context) error {
	for _, text := range []string{
		`INSERT INTO api_event_ids (event_id, position) SELECT event_id, position FROM api_event_store ORDER BY event_id`,
		`INSERT INTO api_streams (aggregate_id, stream, version, first_position, last_position)
			SELECT aggregate_id, min(stream), max(version), min(position), max(position) FROM api_event_store GROUP BY aggregate_id`,
		`ANALYZE api_event_store, api_event_ids, api_streams, api_raw_bodies`,
	} {
		if _, err := l.tx.Exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// Events writes the events up to the position head, which come in the order of their
// positions.
func (l *Loader) Events(ctx context.Context, head eventstore.Position, events iter.Seq2[eventstore.Event, error]) error {
	if err := l.beforeEvents(ctx, head); err != nil {
		return err
	}
	columns := []string{
		"position", "event_id", "aggregate_id", "stream", "version", "event_type", "event_data", "event_metadata",
		"correlation_id", "causation_id", "occurred_at", "created_at",
	}
	return copyIn(ctx, l.tx, "api_event_store", columns, events, func(e eventstore.Event) []any {
		return []any{
			int64(e.Position), pgUUID(e.ID), pgUUID(e.Stream.AggregateID()), e.Stream.String(), int32(e.Version), e.Type,
			string(e.Data), string(e.Metadata), pgUUID(e.CorrelationID), pgUUID(e.CausationID), e.OccurredAt, e.RecordedAt,
		}
	})
}

// RawBodies writes raw bodies.
func (l *Loader) RawBodies(ctx context.Context, bodies iter.Seq2[eventstore.KeptBody, error]) error {
	columns := []string{"event_id", "content_type", "body", "created_at", "digest"}
	return copyIn(ctx, l.tx, "api_raw_bodies", columns, bodies, func(b eventstore.KeptBody) []any {
		if b.Bytes == nil {
			b.Bytes = []byte{} // nil would be NULL
		}
		return []any{pgUUID(b.EventID), b.ContentType, b.Bytes, b.RecordedAt, b.Digest}
	})
}

// Exec runs a statement in the same transaction, for the tables that others keep in
// the database.
func (l *Loader) Exec(ctx context.Context, text string, args ...any) error {
	_, err := l.tx.Exec(ctx, text, args...)
	return err
}

// copyIn writes rows by COPY.
func copyIn[T any](ctx context.Context, tx pgx.Tx, table string, columns []string, rows iter.Seq2[T, error], values func(T) []any) error {
	next, stop := iter.Pull2(rows)
	defer stop()
	_, err := tx.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromFunc(func() ([]any, error) {
		row, err, ok := next()
		if !ok || err != nil {
			return nil, err
		}
		return values(row), nil
	}))
	return err
}
