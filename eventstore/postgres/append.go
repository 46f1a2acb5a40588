package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

// appendAttempts is how often an append that PostgreSQL rolled back is tried.
const appendAttempts = 3

const appendSQL = `SELECT verdict, coalesce(last_position, 0), versions, coalesce(at_stream, 0), coalesce(found, '')
FROM api_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`

// Append implements eventstore.Appender.
func (s *Store) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	plan, err := backend.NewPlan(appends)
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	doing := "append to stream " + plan.Streams[0].ID.String()
	return s.life.Append(ctx, appendLimit, func(ctx context.Context) ([]eventstore.Event, error) {
		var events []eventstore.Event
		var err error
		for range appendAttempts {
			if events, err = s.call(ctx, s.appends, plan); !isRetryable(err) {
				break
			}
		}
		if err != nil {
			return nil, classifyAppend(doing, err)
		}
		s.head.Advance(events[len(events)-1].Position)
		select {
		case s.appended <- struct{}{}:
		default: // to be told already
		}
		return events, nil
	})
}

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, text string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, text string, args ...any) pgx.Row
}

// call calls api_append and understands its verdict.
func (s *Store) call(ctx context.Context, db querier, plan *backend.Plan) ([]eventstore.Event, error) {
	at := s.clock.Now()
	var (
		verdict  string
		last     eventstore.Position
		versions []eventstore.Version
		stream   int
		found    string
	)
	if err := db.QueryRow(ctx, appendSQL, arguments(plan, at)...).Scan(&verdict, &last, &versions, &stream, &found); err != nil {
		return nil, err
	}
	switch verdict {
	case "recorded":
		return plan.Recorded(last, versions, at), nil
	case "known":
		return s.repeated(ctx, db, plan)
	case "conflict":
		if err := plan.Conflict(versions); err != nil {
			return nil, err
		}
	case "other_stream":
		return nil, backend.OtherStream(found, plan.Streams[stream-1].ID)
	}
	return nil, fmt.Errorf("api_append answered %q at versions %d, which this program does not understand", verdict, versions)
}

func (s *Store) repeated(ctx context.Context, db querier, plan *backend.Plan) ([]eventstore.Event, error) {
	rows, err := db.Query(ctx, `SELECT `+backend.Columns+` FROM api_event_store WHERE event_id = ANY($1::uuid[])`, pgUUIDs(plan.IDs()))
	if err != nil {
		return nil, err
	}
	recorded, _, err := scanEvents(rows, 0)
	if err != nil {
		return nil, err
	}
	return plan.Repeated(recorded)
}

// arguments lays a plan out as the parallel arrays of api_append.
func arguments(plan *backend.Plan, at time.Time) []any {
	streams := len(plan.Streams)
	var (
		streamIDs    = make([]pgtype.UUID, streams)
		streamNames  = make([]string, streams)
		streamCounts = make([]int32, streams)
		streamFirsts = make([]int32, streams)
		streamLasts  = make([]int32, streams)
	)
	for i, stream := range plan.Streams {
		streamIDs[i] = pgUUID(stream.ID.AggregateID())
		streamNames[i] = stream.ID.String()
		streamCounts[i] = int32(stream.Count)
	}
	events := len(plan.Events)
	var (
		ids          = make([]pgtype.UUID, events)
		eventStreams = make([]int32, events)
		offsets      = make([]int32, events)
		expected     = make([]*int32, events)
		types        = make([]string, events)
		data         = make([]string, events)
		metadata     = make([]string, events)
		correlations = make([]pgtype.UUID, events)
		causations   = make([]pgtype.UUID, events)
		occurred     = make([]time.Time, events)

		bodyIDs     = []pgtype.UUID{}
		bodyTypes   = []string{}
		bodies      = [][]byte{}
		bodyDigests = []string{}
	)
	for i, e := range plan.Events {
		ids[i] = pgUUID(e.ID)
		eventStreams[i] = int32(e.Stream) + 1
		offsets[i] = int32(e.Offset)
		if v, exact := e.Expected.Exact(); exact {
			version := int32(v)
			expected[i] = &version
		}
		types[i] = e.Type
		data[i], metadata[i] = string(e.Data), string(e.Metadata)
		correlations[i], causations[i] = pgUUID(e.CorrelationID), pgUUID(e.CausationID)
		occurred[i] = e.OccurredAt
		if streamFirsts[e.Stream] == 0 {
			streamFirsts[e.Stream] = int32(i) + 1
		}
		streamLasts[e.Stream] = int32(i) + 1
		if e.RawBody != nil {
			body := e.RawBody.Bytes
			if body == nil {
				body = []byte{} // nil would be NULL
			}
			digest := sha256.Sum256(body)
			bodyIDs = append(bodyIDs, pgUUID(e.ID))
			bodyTypes = append(bodyTypes, e.RawBody.ContentType)
			bodies = append(bodies, body)
			bodyDigests = append(bodyDigests, "sha256:"+hex.EncodeToString(digest[:]))
		}
	}
	return []any{
		at, streamIDs, streamNames, streamCounts, streamFirsts, streamLasts,
		ids, eventStreams, offsets, expected, types, data, metadata, correlations, causations, occurred,
		bodyIDs, bodyTypes, bodies, bodyDigests,
	}
}
