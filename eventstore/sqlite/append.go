package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

func slogError(err error) slog.Attr { return slog.Any("error", err) }

func (s *Store) prepare(ctx context.Context) error {
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&s.knownID, `SELECT count(*) FROM api_event_store WHERE event_id = $1`},
		{&s.knownIDs, `SELECT ` + backend.Columns + ` FROM api_event_store WHERE event_id IN (SELECT value FROM json_each($1))`},
		{&s.streamByID, `SELECT stream, version FROM api_streams WHERE aggregate_id = $1`},
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
	doing := "append to stream " + plan.Streams[0].ID.String()
	return s.life.Append(ctx, appendLimit, func(ctx context.Context) ([]eventstore.Event, error) {
		events, err := s.commit(ctx, plan)
		if err != nil {
			return nil, classifyAppend(doing, err)
		}
		s.head.Advance(events[len(events)-1].Position)
		return events, nil
	})
}

func classifyAppend(doing string, err error) error {
	switch {
	case isConstraint(err):
		return fmt.Errorf("%s: %w: the log and the gate disagree, rows were written past the store: %w", doing, eventstore.ErrUnavailable, err)
	case isDeadline(err):
		return fmt.Errorf("%s: %w: the writing connection was in use for more than %s", doing, eventstore.ErrUnavailable, appendLimit)
	}
	return classify(doing, err)
}

func (s *Store) commit(ctx context.Context, plan *backend.Plan) (events []eventstore.Event, err error) {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// From here on nothing waits for longer than the busy timeout, and a context that
	// can end costs a goroutine for each statement.
	ctx = context.WithoutCancel(ctx)
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	events, err = s.appendTx(ctx, tx, plan)
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	return events, nil
}

// appendTx writes the plan in a transaction that holds the write lock.
func (s *Store) appendTx(ctx context.Context, tx *sql.Tx, plan *backend.Plan) ([]eventstore.Event, error) {
	known := tx.StmtContext(ctx, s.knownID)
	for _, e := range plan.Events {
		var n int
		if err := known.QueryRowContext(ctx, e.ID.String()).Scan(&n); err != nil {
			return nil, err
		}
		if n > 0 {
			return s.repeated(ctx, tx, plan)
		}
	}

	versions := make([]eventstore.Version, len(plan.Streams))
	byID := tx.StmtContext(ctx, s.streamByID)
	for i, stream := range plan.Streams {
		var name string
		switch err := byID.QueryRowContext(ctx, stream.ID.AggregateID().String()).Scan(&name, &versions[i]); {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return nil, err
		case name != stream.ID.String():
			return nil, backend.OtherStream(name, stream.ID)
		}
	}
	if err := plan.Conflict(versions); err != nil {
		return nil, err
	}

	var last eventstore.Position
	if err := tx.StmtContext(ctx, s.lastPosition).QueryRowContext(ctx).Scan(&last); err != nil {
		return nil, err
	}
	// The lock is held, so the order of times is the order of positions.
	events := plan.Recorded(last, versions, s.clock.Now())
	insert := tx.StmtContext(ctx, s.insertEvent)
	first := make([]eventstore.Position, len(plan.Streams))
	newest := make([]eventstore.Event, len(plan.Streams))
	for i, e := range events {
		if _, err := insert.ExecContext(ctx, int64(e.Position), e.ID.String(), e.Stream.AggregateID().String(), e.Stream.String(),
			int64(e.Version), e.Type, string(e.Data), string(e.Metadata), formatUUID(e.CorrelationID), formatUUID(e.CausationID),
			formatTime(e.OccurredAt), formatTime(e.RecordedAt)); err != nil {
			return nil, err
		}
		if body := plan.Events[i].RawBody; body != nil {
			if err := s.insertRawBody(ctx, tx, e, *body); err != nil {
				return nil, err
			}
		}
		n := plan.Events[i].Stream
		if first[n] == 0 {
			first[n] = e.Position
		}
		newest[n] = e
	}
	upsert := tx.StmtContext(ctx, s.upsertStream)
	for i, e := range newest {
		if _, err := upsert.ExecContext(ctx, e.Stream.AggregateID().String(), e.Stream.String(), int64(e.Version), int64(first[i]), int64(e.Position)); err != nil {
			return nil, err
		}
	}
	return events, nil
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
	rows, err := tx.StmtContext(ctx, s.knownIDs).QueryContext(ctx, idList(plan.IDs()))
	if err != nil {
		return nil, err
	}
	recorded, _, err := scanEvents(rows, 0)
	if err != nil {
		return nil, err
	}
	return plan.Repeated(recorded)
}
