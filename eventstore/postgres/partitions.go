package postgres

import (
	"context"
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
	if err := s.pool.QueryRow(ctx, `SELECT api_prepare_partitions($1)`, int64(upTo)).Scan(&enough); err != nil {
		return 0, fmt.Errorf("make partitions for positions up to %d: %w", upTo, err)
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
		ctx, cancel := context.WithTimeout(ctx, partitionLimit)
		defer cancel()
		enough, err := s.preparePartitions(ctx, head)
		if err != nil {
			s.preparedTo.Store(int64(head) + prepareAgain)
			if ctx.Err() == nil {
				s.log.ErrorContext(ctx, "making a partition ahead of need failed, appends will wait for it when the last one is full", slog.Any("error", err))
			}
			return
		}
		s.preparedTo.Store(int64(enough))
	})
}

// lookForStart finds out where the log begins. Detaching a partition is the
// operator's doing and needs no restart.
func (s *Store) lookForStart(ctx context.Context) error {
	var start int64
	// Of the partitions that were made, those that are attached.
	if err := s.pool.QueryRow(ctx, `SELECT coalesce(min(p.first_position), 1)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN api_partitions p ON p.name = c.relname
		WHERE i.inhparent = 'api_event_store'::regclass`).Scan(&start); err != nil {
		return fmt.Errorf("look where the log begins: %w", err)
	}
	s.start.Store(start)
	return nil
}

// orArchived tells a stream that has no events from one whose events are all in
// partitions that have been detached.
func (s *Store) orArchived(ctx context.Context, events iter.Seq2[eventstore.Event, error], stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		some := false
		for e, err := range events {
			some = true
			if !yield(e, err) || err != nil {
				return
			}
		}
		if some || q.AsOf != 0 || !q.AsOfTime.IsZero() || q.Before != 0 && q.Before <= q.After+1 {
			return
		}
		versions, err := s.Versions(ctx, stream)
		if err == nil && versions[stream.AggregateID()] > q.After {
			err = fmt.Errorf("stream %s: %w", stream, eventstore.ErrIncomplete)
		}
		if err != nil {
			yield(eventstore.Event{}, err)
		}
	}
}
