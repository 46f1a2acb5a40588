package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

var dialect = backend.Dialect{
	UUID: func(id uuid.UUID) any { return pgUUID(id) },
	Time: func(t time.Time) any { return t },
	// An array, and not a join, so that no plan reads the log as a whole.
	AnyID:    "position = ANY(ARRAY(SELECT i.position FROM api_event_ids i WHERE i.event_id = ANY(%s::uuid[])))",
	IDs:      func(ids []uuid.UUID) any { return pgUUIDs(ids) },
	Category: "split_part(stream, '/', 1)",
	// So that the partitions before the stream's first event and after its last are not
	// looked into.
	StreamBounds: "position >= (SELECT first_position FROM api_streams WHERE aggregate_id = %[1]s)" +
		" AND position <= (SELECT last_position FROM api_streams WHERE aggregate_id = %[1]s)",
}

func pgUUID(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: id != uuid.Nil} }

func pgUUIDs(ids []uuid.UUID) []pgtype.UUID {
	out := make([]pgtype.UUID, len(ids))
	for i, id := range ids {
		out[i] = pgtype.UUID{Bytes: id, Valid: true}
	}
	return out
}

func (s *Store) page(doing string) backend.Query {
	return func(ctx context.Context, text string, args []any) ([]eventstore.Event, bool, error) {
		rows, err := s.pool.Query(ctx, text, args...)
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
func scanEvents(rows pgx.Rows, maxBytes int) (events []eventstore.Event, cut bool, err error) {
	defer rows.Close()
	size := 0
	for rows.Next() {
		var (
			e                                         eventstore.Event
			id, aggregateID, correlation, causationID pgtype.UUID
			stream                                    string
			data, metadata                            []byte
		)
		if err := rows.Scan(&e.Position, &id, &aggregateID, &stream, &e.Version, &e.Type, &data, &metadata,
			&correlation, &causationID, &e.OccurredAt, &e.RecordedAt); err != nil {
			return nil, false, err
		}
		// The nil id is what an invalid pgtype.UUID, which is NULL, has in its bytes.
		e.ID, e.CorrelationID, e.CausationID = id.Bytes, correlation.Bytes, causationID.Bytes
		e.Stream = eventstore.StoredStream(stream, aggregateID.Bytes)
		e.Data, e.Metadata = data, metadata
		e.OccurredAt, e.RecordedAt = e.OccurredAt.UTC(), e.RecordedAt.UTC()
		events = append(events, e)
		size += len(data) + len(metadata)
		if maxBytes > 0 && size >= maxBytes {
			return events, true, nil
		}
	}
	return events, false, rows.Err()
}

func (s *Store) window(ctx context.Context, text string, args []any) (first, last eventstore.Position, err error) {
	err = s.pool.QueryRow(ctx, text, args...).Scan(&first, &last)
	return first, last, classify("look for the events of a time window", err)
}

// Versions implements eventstore.Reader.
func (s *Store) Versions(ctx context.Context, streams ...eventstore.StreamID) (map[uuid.UUID]eventstore.Version, error) {
	versions := make(map[uuid.UUID]eventstore.Version, len(streams))
	ids := make([]uuid.UUID, len(streams))
	for i, stream := range streams {
		ids[i] = stream.AggregateID()
	}
	err := s.reading(ctx, "read the versions of streams", func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, `SELECT aggregate_id, version FROM api_streams WHERE aggregate_id = ANY($1::uuid[])`, pgUUIDs(ids))
		if err != nil {
			return err
		}
		var id pgtype.UUID
		var version eventstore.Version
		_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
			versions[id.Bytes] = version
			return nil
		})
		return err
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
		return s.pool.QueryRow(ctx, `SELECT stream FROM api_streams WHERE aggregate_id = $1`, pgUUID(aggregateID)).Scan(&name)
	})
	if err != nil {
		return eventstore.StreamID{}, err
	}
	return eventstore.StoredStream(name, aggregateID), nil
}

// The gate knows the head where all events are in partitions that have been detached.
const headSQL = `SELECT coalesce((SELECT position FROM api_event_store ORDER BY position DESC LIMIT 1), (SELECT max(last_position) FROM api_streams), 0)`

// Head implements eventstore.Reader.
func (s *Store) Head(ctx context.Context) (head eventstore.Position, err error) {
	err = s.reading(ctx, "read the head of the log", func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, headSQL).Scan(&head)
	})
	return head, err
}

// headNow is Head for an operation that has begun.
func (s *Store) headNow(ctx context.Context) (head eventstore.Position, err error) {
	err = s.pool.QueryRow(ctx, headSQL).Scan(&head)
	return head, classify("read the head of the log", err)
}

// RawBody implements eventstore.Reader.
func (s *Store) RawBody(ctx context.Context, eventID uuid.UUID) (body eventstore.RawBody, err error) {
	err = s.reading(ctx, "read the raw body of event "+eventID.String(), func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT content_type, body FROM api_raw_bodies WHERE event_id = $1`, pgUUID(eventID)).
			Scan(&body.ContentType, &body.Bytes)
	})
	return body, err
}

func (s *Store) reading(ctx context.Context, doing string, read func(ctx context.Context) error) error {
	opCtx, over, err := s.life.Begin(ctx)
	if err != nil {
		return err
	}
	defer over()
	err = read(opCtx)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%s: %w", doing, eventstore.ErrNotFound)
	}
	return backend.Ended(ctx, s.life, classify(doing, err))
}
