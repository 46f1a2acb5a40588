package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

const (
	// appendAttempts is how often a batch that PostgreSQL rolled back is tried.
	appendAttempts = 3
	// findOutLimit is how long the outcome of a batch is looked for whose answer got
	// lost. A server that is restarted is back by then, and senders still wait.
	findOutLimit = 10 * time.Second
	// findOutEvery is the pause between two attempts at it.
	findOutEvery = 100 * time.Millisecond
)

const appendSQL = `SELECT verdicts, last_position, versions, names
FROM api_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)`

// Append implements eventstore.Appender.
func (s *Store) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	plan, err := backend.NewPlan(appends)
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	events, err := s.committer.Append(ctx, plan)
	return events, backend.Appending(plan, err)
}

// writeBatch writes a batch in one call.
func (s *Store) writeBatch(ctx context.Context, batch *backend.Batch) ([]backend.Result, error) {
	results, before, head, lost, err := s.findOut(ctx, batch)
	if err != nil {
		return nil, classifyAppend(err)
	}
	s.head.Advance(head)
	if head > before || lost {
		select {
		case s.appended <- struct{}{}:
		default: // to be told already
		}
		s.prepareAhead(head)
	}
	return results, nil
}

// findOut writes a batch and, where the answer is lost, finds out what has become of
// it by writing it again: what was recorded is known by its event ids, for ever. Should
// the first attempt still be on its way to the server, it finds itself known. lost says
// that the first answer was lost.
func (s *Store) findOut(ctx context.Context, batch *backend.Batch) (results []backend.Result, before, head eventstore.Position, lost bool, err error) {
	var first error
	until, giveUp := context.WithCancel(ctx)
	defer giveUp()
	for {
		results, before, head, err = s.tryBatch(ctx, batch)
		switch {
		case err == nil:
			return results, before, head, first != nil, nil
		case first == nil && !isLost(err), first != nil && !errors.Is(classify("", err), eventstore.ErrUnavailable):
			return nil, 0, 0, first != nil, err
		case first == nil:
			first = err
			limit := time.AfterFunc(s.findOutFor, giveUp)
			defer limit.Stop()
		}
		pause := time.NewTimer(findOutEvery)
		select {
		case <-pause.C:
		case <-until.Done():
			pause.Stop()
			return nil, 0, 0, true, fmt.Errorf("%w: whether it was recorded is not known, the same append finds it out: %w", eventstore.ErrUnavailable, first)
		}
	}
}

// tryBatch writes a batch, again where PostgreSQL rolled it back for reasons that a
// second attempt may not meet.
func (s *Store) tryBatch(ctx context.Context, batch *backend.Batch) (results []backend.Result, before, head eventstore.Position, err error) {
	careful := false
	for attempt := 0; attempt < appendAttempts; attempt++ {
		results, before, head, err = s.call(ctx, s.appends, batch, careful)
		switch {
		case isNoPartition(err):
			if _, err := s.preparePartitions(ctx, s.head.Position()+eventstore.Position(batch.Events())); err != nil {
				return nil, 0, 0, err
			}
		case isUniqueViolation(err) && !careful:
			careful = true // an event id is recorded already: of which append?
			attempt--      // which is no failure
		case !isRetryable(err):
			return results, before, head, err
		}
	}
	return results, before, head, err
}

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, text string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, text string, args ...any) pgx.Row
}

// call calls api_append and understands its verdicts; careful is as there. It also returns where the log
// ended before the call and ends after it.
func (s *Store) call(ctx context.Context, db querier, batch *backend.Batch, careful bool) (results []backend.Result, before, head eventstore.Position, err error) {
	at := s.clock.Now()
	var (
		verdicts []backend.Verdict
		versions []eventstore.Version
		found    []*string
	)
	if err := db.QueryRow(ctx, appendSQL, arguments(batch, at, s.head.Position(), careful)...).Scan(&verdicts, &before, &versions, &found); err != nil {
		return nil, 0, 0, err
	}
	if verdicts == nil {
		verdicts = make([]backend.Verdict, len(batch.Plans)) // all recorded
	}
	names := make([]string, len(batch.Streams))
	for i, name := range found {
		if name != nil {
			names[i] = *name
		}
	}
	results, head = batch.Results(before, versions, names, verdicts, at, func(p *backend.Plan) ([]eventstore.Event, error) {
		events, err := s.repeated(ctx, db, p)
		if err != nil && !errors.Is(err, eventstore.ErrEventIDReused) && !errors.Is(err, eventstore.ErrIncomplete) {
			return nil, classify("read what is recorded already", err)
		}
		return events, err
	})
	return results, before, head, nil
}

func (s *Store) repeated(ctx context.Context, db querier, plan *backend.Plan) ([]eventstore.Event, error) {
	rows, err := db.Query(ctx, `SELECT `+backend.Columns+` FROM api_event_store WHERE `+fmt.Sprintf(dialect.AnyID, "$1"), pgUUIDs(plan.IDs()))
	if err != nil {
		return nil, err
	}
	recorded, _, err := scanEvents(rows, 0)
	if err != nil {
		return nil, err
	}
	if len(recorded) > 0 && len(recorded) < len(plan.Events) {
		var known int
		if err := db.QueryRow(ctx, `SELECT count(*) FROM api_event_ids WHERE event_id = ANY($1::uuid[])`, pgUUIDs(plan.IDs())).Scan(&known); err != nil {
			return nil, err
		}
		if known == len(plan.Events) {
			return nil, fmt.Errorf("the append is recorded, and a part of it cannot be compared: %w", eventstore.ErrIncomplete)
		}
	}
	return plan.Repeated(recorded)
}

// arguments lays a batch out as the parallel arrays of api_append.
func arguments(batch *backend.Batch, at time.Time, head eventstore.Position, careful bool) []any {
	streams := len(batch.Streams)
	var (
		streamIDs    = make([]pgtype.UUID, streams)
		streamNames  = make([]string, streams)
		streamCounts = make([]int32, streams)
		streamFirsts = make([]int32, streams)
		streamLasts  = make([]int32, streams)
	)
	for i, stream := range batch.Streams {
		streamIDs[i] = pgUUID(stream.ID.AggregateID())
		streamNames[i] = stream.ID.String()
	}
	events := batch.Events()
	var (
		requestEnds  = make([]int32, 0, len(batch.Plans))
		ids          = make([]pgtype.UUID, 0, events)
		eventStreams = make([]int32, 0, events)
		offsets      = make([]int32, 0, events)
		expected     = make([]int32, 0, events)
		types        = make([]string, 0, events)
		data         = make([]string, 0, events)
		metadata     = make([]string, 0, events)
		correlations = make([]pgtype.UUID, 0, events)
		causations   = make([]pgtype.UUID, 0, events)
		occurred     = make([]time.Time, 0, events)

		bodyIDs     = []pgtype.UUID{}
		bodyTypes   = []string{}
		bodies      = [][]byte{}
		bodyDigests = []string{}
	)
	for n, plan := range batch.Plans {
		for i := range plan.Events {
			e := &plan.Events[i]
			place := batch.Stream(n, i)
			ids = append(ids, pgUUID(e.ID))
			eventStreams = append(eventStreams, int32(place)+1)
			offsets = append(offsets, streamCounts[place])
			version := int32(-1)
			if v, exact := e.Expected.Exact(); exact {
				version = int32(v)
			}
			expected = append(expected, version)
			types = append(types, e.Type)
			data, metadata = append(data, string(e.Data)), append(metadata, string(e.Metadata))
			correlations, causations = append(correlations, pgUUID(e.CorrelationID)), append(causations, pgUUID(e.CausationID))
			occurred = append(occurred, e.OccurredAt)
			number := int32(len(ids))
			if streamCounts[place] == 0 {
				streamFirsts[place] = number
			}
			streamCounts[place]++
			streamLasts[place] = number
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
		requestEnds = append(requestEnds, int32(len(ids)))
	}
	return []any{
		at, int64(head), careful, requestEnds, streamIDs, streamNames, streamCounts, streamFirsts, streamLasts,
		ids, eventStreams, offsets, expected, types, data, metadata, correlations, causations, occurred,
		bodyIDs, bodyTypes, bodies, bodyDigests,
	}
}
