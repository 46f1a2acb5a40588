package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

var dialect = backend.Dialect{
	UUID:       formatUUID,
	Time:       formatTime,
	AnyID:      "event_id IN (SELECT value FROM json_each(%s))",
	IDs:        func(ids []uuid.UUID) any { return idList(ids) },
	WalkedType: "+event_type",
	Category:   "substr(stream, 1, instr(stream || '/', '/') - 1)",
}

// idList is a JSON array, so that a list of any length is one parameter.
func idList(ids []uuid.UUID) string {
	b, err := json.Marshal(ids)
	if err != nil { // a UUID is marshalled as its text, which cannot fail
		return "[]"
	}
	return string(b)
}

func (s *Store) page(doing string) backend.Query {
	return func(ctx context.Context, text string, args []any) ([]eventstore.Event, bool, error) {
		rows, err := s.read.QueryContext(ctx, text, args...)
		if err != nil {
			return nil, false, classify(doing, err)
		}
		page, cut, err := scanEvents(rows, backend.PageBytes)
		if err != nil {
			return nil, false, classify(doing, err)
		}
		return page, cut, nil
	}
}

// scanEvents reads rows up to about maxBytes of payload (0: all) and closes them.
// cut says that there were more.
func scanEvents(rows *sql.Rows, maxBytes int) (events []eventstore.Event, cut bool, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	size := 0
	for rows.Next() {
		var (
			e                          eventstore.Event
			id, aggregateID, stream    string
			data, metadata             []byte
			correlationID, causationID sql.NullString
			occurredAt, recordedAt     string
			parsedAggregateID          uuid.UUID
		)
		if err := rows.Scan(&e.Position, &id, &aggregateID, &stream, &e.Version, &e.Type, &data, &metadata,
			&correlationID, &causationID, &occurredAt, &recordedAt); err != nil {
			return nil, false, err
		}
		broken := func(err error) error {
			return fmt.Errorf("event at position %d is damaged: %w", e.Position, err)
		}
		for _, c := range []struct {
			text string
			id   *uuid.UUID
		}{
			{id, &e.ID},
			{aggregateID, &parsedAggregateID},
			{correlationID.String, &e.CorrelationID},
			{causationID.String, &e.CausationID},
		} {
			if c.text == "" { // NULL: these are nil ids
				continue
			}
			if *c.id, err = uuid.Parse(c.text); err != nil {
				return nil, false, broken(err)
			}
		}
		if e.OccurredAt, err = time.Parse(timeFormat, occurredAt); err != nil {
			return nil, false, broken(err)
		}
		if e.RecordedAt, err = time.Parse(timeFormat, recordedAt); err != nil {
			return nil, false, broken(err)
		}
		e.Stream = eventstore.StoredStream(stream, parsedAggregateID)
		e.Data, e.Metadata = data, metadata
		events = append(events, e)
		size += len(data) + len(metadata)
		if maxBytes > 0 && size >= maxBytes {
			return events, true, nil
		}
	}
	return events, false, rows.Err()
}

func (s *Store) window(ctx context.Context, text string, args []any) (first, last eventstore.Position, err error) {
	err = s.read.QueryRowContext(ctx, text, args...).Scan(&first, &last)
	return first, last, classify("look for the events of a time window", err)
}

// Versions implements eventstore.Reader.
func (s *Store) Versions(ctx context.Context, streams ...eventstore.StreamID) (_ map[uuid.UUID]eventstore.Version, err error) {
	versions := make(map[uuid.UUID]eventstore.Version, len(streams))
	ids := make([]uuid.UUID, len(streams))
	for i, stream := range streams {
		ids[i] = stream.AggregateID()
	}
	err = s.reading(ctx, "read the versions of streams", func(ctx context.Context) (err error) {
		rows, err := s.read.QueryContext(ctx, `SELECT aggregate_id, version FROM api_streams WHERE aggregate_id IN (SELECT value FROM json_each($1))`, idList(ids))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var id uuid.UUID
			var version eventstore.Version
			if err := rows.Scan(&id, &version); err != nil {
				return err
			}
			versions[id] = version
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return versions, nil
}

// Stream implements eventstore.Reader.
func (s *Store) Stream(ctx context.Context, aggregateID uuid.UUID) (eventstore.StreamID, error) {
	var name string
	err := s.reading(ctx, "look for stream "+aggregateID.String(), func(ctx context.Context) error {
		return s.read.QueryRowContext(ctx, `SELECT stream FROM api_streams WHERE aggregate_id = $1`, aggregateID.String()).Scan(&name)
	})
	if err != nil {
		return eventstore.StreamID{}, err
	}
	return eventstore.StoredStream(name, aggregateID), nil
}

// Head implements eventstore.Reader.
func (s *Store) Head(ctx context.Context) (head eventstore.Position, err error) {
	err = s.reading(ctx, "read the head of the log", func(ctx context.Context) error {
		return s.read.QueryRowContext(ctx, headSQL).Scan(&head)
	})
	return head, err
}

const headSQL = `SELECT coalesce(max(position), 0) FROM api_event_store`

// headNow is Head for an operation that has begun.
func (s *Store) headNow(ctx context.Context) (head eventstore.Position, err error) {
	err = s.read.QueryRowContext(ctx, headSQL).Scan(&head)
	return head, classify("read the head of the log", err)
}

// RawBody implements eventstore.Reader.
func (s *Store) RawBody(ctx context.Context, eventID uuid.UUID) (body eventstore.RawBody, err error) {
	err = s.reading(ctx, "read the raw body of event "+eventID.String(), func(ctx context.Context) error {
		return s.read.QueryRowContext(ctx, `SELECT content_type, body FROM api_raw_bodies WHERE event_id = $1`, eventID.String()).
			Scan(&body.ContentType, &body.Bytes)
	})
	return body, err
}

// Wait implements eventstore.Waiter.
func (s *Store) Wait(ctx context.Context, after eventstore.Position) (eventstore.Position, error) {
	return s.head.Wait(ctx, s.life, after)
}

func (s *Store) reading(ctx context.Context, doing string, read func(ctx context.Context) error) error {
	opCtx, over, err := s.life.Begin(ctx)
	if err != nil {
		return err
	}
	defer over()
	err = read(opCtx)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", doing, eventstore.ErrNotFound)
	}
	return backend.Ended(ctx, s.life, classify(doing, err))
}

// watch tells the waiters of appends by other processes: data_version changes, on
// a connection that stays the same, when any other connection has committed.
func (s *Store) watch(ctx context.Context) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for failing := false; ; {
		err := s.watchConnection(ctx, ticker.C)
		if ctx.Err() != nil {
			return
		}
		if !failing {
			s.log.WarnContext(ctx, "looking for appends of other processes failed", slogError(err))
		}
		failing = true
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Store) watchConnection(ctx context.Context, tick <-chan time.Time) (err error) {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for seen := int64(-1); ; {
		var version int64
		if err := conn.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
			return err
		}
		if version != seen {
			var head eventstore.Position
			if err := conn.QueryRowContext(ctx, headSQL).Scan(&head); err != nil {
				return err
			}
			s.head.Advance(head)
			seen = version
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
		}
	}
}
