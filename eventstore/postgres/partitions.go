package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// partitionLimit bounds the making of a partition. It waits for nothing but another
// process that makes the same.
const partitionLimit = 30 * time.Second

// prepareAgain is how many events later partitions are asked for again after that
// has failed.
const prepareAgain = 10_000

// preparePartitions makes sure that there is a place for positions up to upTo and a
// whole partition beyond, and returns the position up to which that holds.
func (s *Store) preparePartitions(ctx context.Context, upTo eventstore.Position) (enough eventstore.Position, err error) {
	// On the appends' own connections: an append that waits for it waits for no reader.
	if err := s.appends.QueryRow(ctx, `SELECT api_prepare_partitions($1)`, int64(upTo)).Scan(&enough); err != nil {
		return 0, fmt.Errorf("%w: make partitions for positions up to %d: %w", eventstore.ErrUnavailable, upTo, err)
	}
	return enough, nil
}

// prepareAhead has partitions made before they are needed, off the write path. Only
// the committer calls it.
func (s *Store) prepareAhead(head eventstore.Position) {
	if int64(head) < s.preparedTo.Load() || !s.preparing.CompareAndSwap(false, true) {
		return
	}
	s.life.Go(func(ctx context.Context) {
		defer s.preparing.Store(false)
		limited, cancel := context.WithTimeout(ctx, partitionLimit)
		defer cancel()
		for head >= eventstore.Position(s.preparedTo.Load()) {
			enough, err := s.preparePartitions(limited, head)
			if err != nil {
				s.preparedTo.Store(int64(head) + prepareAgain)
				if ctx.Err() == nil {
					s.log.ErrorContext(ctx, "making a partition ahead of need failed, appends will wait for it when the last one is full", slog.Any("error", err))
				}
				return
			}
			s.preparedTo.Store(int64(enough))
			head = s.head.Position() // what came meanwhile has asked in vain
		}
	})
}

// lookForStart finds out from where the log is whole: after the last partition that was
// made, may have events, and is not attached, or is about to be detached. Detaching a
// partition is the operator's doing and needs no restart.
func (s *Store) lookForStart(ctx context.Context, db querier) error {
	var start int64
	// By its bounds, since a partition that comes back may have another name.
	if err := db.QueryRow(ctx, `SELECT coalesce(max(p.end_position), 1) FROM api_partitions p
		WHERE p.first_position <= $1 AND NOT EXISTS (
			SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = 'api_event_store'::regclass AND NOT i.inhdetachpending
				AND pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES FROM (%L) TO (%L)', p.first_position::text, p.end_position::text))`,
		int64(s.head.Position())).Scan(&start); err != nil {
		return fmt.Errorf("look where the log begins: %w", err)
	}
	s.start.Store(start)
	return nil
}

// farBehind is how many events a reader is behind the head when it does not take the
// listener's word for where the log begins, which may be a second old.
const farBehind = 100_000

// startFor is where the log begins, for one who reads on after a position.
func (s *Store) startFor(ctx context.Context, after eventstore.Position) (eventstore.Position, error) {
	if s.head.Position()-after > farBehind {
		if err := s.lookForStart(ctx, s.pool); err != nil {
			return 0, classify("read the log", err)
		}
	}
	return eventstore.Position(s.start.Load()), nil
}

// orArchived tells a stream that has no events from one whose events are in partitions
// that have been detached.
func (s *Store) orArchived(ctx context.Context, events iter.Seq2[eventstore.Event, error], stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		some := false
		for e, err := range events {
			some = true
			if !yield(e, err) || err != nil {
				return
			}
		}
		if some || q.Before != 0 && q.Before <= q.After+1 {
			return
		}
		var version eventstore.Version
		var first, last eventstore.Position
		err := s.reading(ctx, "look for stream "+stream.String(), func(ctx context.Context) error {
			return s.pool.QueryRow(ctx, `SELECT version, first_position, last_position FROM api_streams WHERE aggregate_id = $1`,
				pgUUID(stream.AggregateID())).Scan(&version, &first, &last)
		})
		start := eventstore.Position(s.start.Load())
		missing := last < start // whatever came meanwhile is there
		if q.AsOf != 0 || !q.AsOfTime.IsZero() {
			missing = first < start && (q.AsOf == 0 || first <= q.AsOf)
		}
		switch {
		case errors.Is(err, eventstore.ErrNotFound):
			return
		case err == nil && (!missing || version <= q.After):
			return
		case err == nil:
			err = fmt.Errorf("stream %s: %w", stream, eventstore.ErrIncomplete)
		}
		yield(eventstore.Event{}, err)
	}
}
