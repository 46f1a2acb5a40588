package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	scan := scanEvent
	if isBinary(rows.FieldDescriptions()) {
		scan = readEvent
	}
	types := make(map[string]string) // a page has few, again and again
	size := 0
	for rows.Next() {
		e, err := scan(rows, types)
		if err != nil {
			return nil, false, err
		}
		events = append(events, e)
		size += len(e.Data) + len(e.Metadata)
		if maxBytes > 0 && size >= maxBytes {
			return events, true, nil
		}
	}
	return events, false, rows.Err()
}

// scanEvent reads a row of backend.Columns in whatever format the connection has.
func scanEvent(rows pgx.Rows, _ map[string]string) (e eventstore.Event, err error) {
	var (
		id, aggregateID, correlation, causationID pgtype.UUID
		stream                                    string
		data, metadata                            []byte
	)
	if err := rows.Scan(&e.Position, &id, &aggregateID, &stream, &e.Version, &e.Type, &data, &metadata,
		&correlation, &causationID, &e.OccurredAt, &e.RecordedAt); err != nil {
		return e, err
	}
	// The nil id is what an invalid pgtype.UUID, which is NULL, has in its bytes.
	e.ID, e.CorrelationID, e.CausationID = id.Bytes, correlation.Bytes, causationID.Bytes
	e.Stream = eventstore.StoredStream(stream, aggregateID.Bytes)
	e.Data, e.Metadata = data, metadata
	e.OccurredAt, e.RecordedAt = e.OccurredAt.UTC(), e.RecordedAt.UTC()
	return e, nil
}

// isBinary reports whether the columns of backend.Columns whose text is another than
// their binary form come in binary, as they do but in the simple protocol.
func isBinary(columns []pgconn.FieldDescription) bool {
	if len(columns) != 12 {
		return false
	}
	for _, i := range []int{0, 1, 2, 4, 8, 9, 10, 11} {
		if columns[i].Format != pgx.BinaryFormatCode {
			return false
		}
	}
	return columns[6].DataTypeOID == pgtype.JSONOID && columns[7].DataTypeOID == pgtype.JSONOID
}

// readEvent reads a row of backend.Columns in binary. It does what scanEvent does, in a
// third of the time: reading a long log is mostly this.
func readEvent(rows pgx.Rows, types map[string]string) (e eventstore.Event, err error) {
	raw := rows.RawValues()
	for _, c := range []struct{ column, size int }{{0, 8}, {1, 16}, {2, 16}, {4, 4}, {10, 8}, {11, 8}} {
		if len(raw[c.column]) != c.size {
			return e, fmt.Errorf("column %d of an event has %d bytes, not %d", c.column+1, len(raw[c.column]), c.size)
		}
	}
	e.Position = eventstore.Position(binary.BigEndian.Uint64(raw[0]))
	e.Version = eventstore.Version(binary.BigEndian.Uint32(raw[4]))
	var aggregateID uuid.UUID
	copy(e.ID[:], raw[1])
	copy(aggregateID[:], raw[2])
	copy(e.CorrelationID[:], raw[8]) // NULL has no bytes, the nil id is zeros
	copy(e.CausationID[:], raw[9])
	e.Stream = eventstore.StoredStream(string(raw[3]), aggregateID)
	name, known := types[string(raw[5])]
	if !known {
		name = string(raw[5])
		types[name] = name
	}
	e.Type = name
	// The row's bytes are the connection's, and gone with the next row.
	payload := append(append(make([]byte, 0, len(raw[6])+len(raw[7])), raw[6]...), raw[7]...)
	e.Data, e.Metadata = payload[:len(raw[6]):len(raw[6])], payload[len(raw[6]):]
	e.OccurredAt, e.RecordedAt = readTime(raw[10]), readTime(raw[11])
	return e, nil
}

// readTime reads a timestamptz: microseconds since the beginning of 2000.
func readTime(raw []byte) time.Time {
	const year2000 = 946_684_800_000_000
	return time.UnixMicro(int64(binary.BigEndian.Uint64(raw)) + year2000).UTC()
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
