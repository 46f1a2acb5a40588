package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
	"modernc.org/sqlite"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

func slogError(err error) slog.Attr { return slog.Any("error", err) }

func (s *Store) prepare(ctx context.Context) error {
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&s.knownIDs, `SELECT event_id FROM api_event_store WHERE event_id IN (SELECT value FROM json_each($1))`},
		{&s.eventsByIDs, `SELECT ` + backend.Columns + ` FROM api_event_store WHERE event_id IN (SELECT value FROM json_each($1))`},
		{&s.streamsByIDs, `SELECT aggregate_id, stream, version FROM api_streams WHERE aggregate_id IN (SELECT value FROM json_each($1))`},
		{&s.lastPosition, headSQL},
		{&s.insertEvent, `INSERT INTO api_event_store (` + backend.Columns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`},
		{&s.insertBody, `INSERT INTO api_raw_bodies (event_id, content_type, body, created_at, digest) VALUES ($1, $2, $3, $4, $5)`},
		{&s.upsertStream, `INSERT INTO api_streams (aggregate_id, stream, version, first_position, last_position) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (aggregate_id) DO UPDATE SET version = excluded.version, last_position = excluded.last_position`},
	} {
		stmt, err := s.write.PrepareContext(ctx, p.text) //nolint:sqlclosecheck // closed with the database, as long as which it lives
		if err != nil {
			return err
		}
		*p.stmt = stmt
	}
	return nil
}

// Append implements eventstore.Appender.
func (s *Store) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	plan, err := backend.NewPlan(appends)
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	events, err := s.committer.Append(ctx, plan)
	return events, backend.Appending(plan, err)
}

// writeBatch writes a batch in one transaction, as soon as the writing connection is
// free.
func (s *Store) writeBatch(ctx context.Context, batch *backend.Batch) ([]backend.Result, error) {
	results, last, err := s.commit(ctx, batch)
	if err != nil {
		return nil, classifyAppend(err)
	}
	s.head.Advance(last)
	return results, nil
}

func classifyAppend(err error) error {
	switch {
	case isConstraint(err):
		return &backend.SpoiledError{Err: fmt.Errorf("%w: the log and the gate disagree, rows were written past the store: %w", eventstore.ErrUnavailable, err)}
	case isDeadline(err):
		return fmt.Errorf("%w: the writing connection was in use for more than %s", eventstore.ErrUnavailable, appendLimit)
	}
	return classify("write to the log", err)
}

func (s *Store) commit(ctx context.Context, batch *backend.Batch) (results []backend.Result, last eventstore.Position, err error) {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// From here on nothing waits for longer than the busy timeout, and a context that
	// can end costs a goroutine for each statement.
	ctx = context.WithoutCancel(ctx)
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, 0, err
	}
	results, last, err = s.appendTx(ctx, tx, batch)
	if err != nil {
		return nil, 0, errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return nil, 0, err
	}
	return results, last, nil
}

// appendTx writes the batch in a transaction that holds the write lock, and returns
// the head of the log after it.
func (s *Store) appendTx(ctx context.Context, tx *sql.Tx, batch *backend.Batch) ([]backend.Result, eventstore.Position, error) {
	known, err := s.known(ctx, tx, batch)
	if err != nil {
		return nil, 0, err
	}
	versions, names, err := s.gate(ctx, tx, batch)
	if err != nil {
		return nil, 0, err
	}
	var last eventstore.Position
	if err := tx.StmtContext(ctx, s.lastPosition).QueryRowContext(ctx).Scan(&last); err != nil {
		return nil, 0, err
	}
	verdicts := batch.Judge(versions, names, func(id uuid.UUID) bool { _, ok := known[id]; return ok })
	// The lock is held, so the order of times is the order of positions.
	results, head := batch.Results(last, versions, names, verdicts, s.clock.Now(), func(p *backend.Plan) ([]eventstore.Event, error) {
		return s.repeated(ctx, tx, p)
	})
	for _, r := range results {
		var own *sqlite.Error
		if errors.As(r.Err, &own) {
			return nil, 0, r.Err // the transaction may be gone, and with it everybody's
		}
	}
	return results, head, s.insert(ctx, tx, batch, verdicts, results)
}

// known are those of the batch's event ids that are recorded.
func (s *Store) known(ctx context.Context, tx *sql.Tx, batch *backend.Batch) (known map[uuid.UUID]struct{}, err error) {
	ids := make([]uuid.UUID, 0, batch.Events())
	for _, p := range batch.Plans {
		ids = append(ids, p.IDs()...)
	}
	rows, err := tx.StmtContext(ctx, s.knownIDs).QueryContext(ctx, idList(ids))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		if known == nil {
			known = make(map[uuid.UUID]struct{})
		}
		known[id] = struct{}{}
	}
	return known, rows.Err()
}

// gate reads the versions and the names of the batch's streams.
func (s *Store) gate(ctx context.Context, tx *sql.Tx, batch *backend.Batch) (versions []eventstore.Version, names []string, err error) {
	versions, names = make([]eventstore.Version, len(batch.Streams)), make([]string, len(batch.Streams))
	ids := make([]uuid.UUID, len(batch.Streams))
	place := make(map[uuid.UUID]int, len(batch.Streams))
	for i, stream := range batch.Streams {
		ids[i] = stream.ID.AggregateID()
		place[ids[i]] = i
	}
	rows, err := tx.StmtContext(ctx, s.streamsByIDs).QueryContext(ctx, idList(ids))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id uuid.UUID
		var name string
		var version eventstore.Version
		if err := rows.Scan(&id, &name, &version); err != nil {
			return nil, nil, err
		}
		versions[place[id]], names[place[id]] = version, name
	}
	return versions, names, rows.Err()
}

// insert writes what is to be recorded of the batch.
func (s *Store) insert(ctx context.Context, tx *sql.Tx, batch *backend.Batch, verdicts []backend.Verdict, results []backend.Result) error {
	insert := tx.StmtContext(ctx, s.insertEvent)
	first := make([]eventstore.Position, len(batch.Streams))
	newest := make([]eventstore.Event, len(batch.Streams))
	for n, p := range batch.Plans {
		if verdicts[n] != backend.Recorded {
			continue
		}
		for i, e := range results[n].Events {
			if _, err := insert.ExecContext(ctx, int64(e.Position), e.ID.String(), e.Stream.AggregateID().String(), e.Stream.String(),
				int64(e.Version), e.Type, string(e.Data), string(e.Metadata), formatUUID(e.CorrelationID), formatUUID(e.CausationID),
				formatTime(e.OccurredAt), formatTime(e.RecordedAt)); err != nil {
				return err
			}
			if body := p.Events[i].RawBody; body != nil {
				if err := s.insertRawBody(ctx, tx, e, *body); err != nil {
					return err
				}
			}
			place := batch.Stream(n, i)
			if first[place] == 0 {
				first[place] = e.Position
			}
			newest[place] = e
		}
	}
	upsert := tx.StmtContext(ctx, s.upsertStream)
	for i, e := range newest {
		if e.Position == 0 {
			continue
		}
		if _, err := upsert.ExecContext(ctx, e.Stream.AggregateID().String(), e.Stream.String(), int64(e.Version), int64(first[i]), int64(e.Position)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) insertRawBody(ctx context.Context, tx *sql.Tx, e eventstore.Event, body eventstore.RawBody) error {
	bytes := body.Bytes
	if bytes == nil {
		bytes = []byte{} // nil would be NULL
	}
	digest := sha256.Sum256(bytes)
	_, err := tx.StmtContext(ctx, s.insertBody).ExecContext(ctx, e.ID.String(), body.ContentType, bytes,
		formatTime(e.RecordedAt), "sha256:"+hex.EncodeToString(digest[:]))
	return err
}

func (s *Store) repeated(ctx context.Context, tx *sql.Tx, plan *backend.Plan) ([]eventstore.Event, error) {
	rows, err := tx.StmtContext(ctx, s.eventsByIDs).QueryContext(ctx, idList(plan.IDs()))
	if err != nil {
		return nil, err
	}
	recorded, _, err := scanEvents(rows, 0)
	if err != nil {
		return nil, err
	}
	return plan.Repeated(recorded)
}
