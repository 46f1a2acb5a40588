package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// seed appends in the way that is written first everywhere: to one table, with a
// transaction of four round trips, and without an order among commits.
type seed struct {
	url     string
	samples *samples
	conns   []*pgx.Conn
	all     []writer
}

const seedTable = `CREATE TABLE IF NOT EXISTS bench_seed (
  event_id       uuid        PRIMARY KEY,
  aggregate_id   uuid        NOT NULL,
  version        int         NOT NULL,
  event_type     text        NOT NULL,
  event_data     json        NOT NULL,
  event_metadata json        NOT NULL,
  created_at     timestamptz NOT NULL,
  UNIQUE (aggregate_id, version)
)`

var seedColumns = []string{"event_id", "aggregate_id", "version", "event_type", "event_data", "event_metadata", "created_at"}

func newSeed(ctx context.Context, d *postgresDatabase, sampled *samples, writers int) (_ *seed, err error) {
	s := &seed{url: d.inner, samples: sampled}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	for range min(writers, seedConnections) {
		conn, err := connect(ctx, d.inner)
		if err != nil {
			return nil, fmt.Errorf("connect as the seed does: %w", err)
		}
		s.conns = append(s.conns, conn)
	}
	prefix := uuid.NewString()
	for i := range writers {
		s.all = append(s.all, newWriter(fmt.Sprintf("seed-%s-%d", prefix, i)))
	}
	_, err = s.conns[0].Exec(ctx, seedTable)
	return s, err
}

func (s *seed) close(ctx context.Context) error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close(ctx))
	}
	return errors.Join(errs...)
}

// each runs f for each number below n at once, until the time is up or one fails, but
// once at least. f returns the number of events that it has recorded.
func each(n int, d time.Duration, f func(i int) (int, error)) (slice, error) {
	counts, errs := make([]int, n), make([]error, n)
	var group sync.WaitGroup
	start := time.Now()
	for i := range n {
		group.Go(func() {
			for counts[i] == 0 || time.Since(start) < d {
				recorded, err := f(i)
				if err != nil {
					errs[i] = err
					return
				}
				counts[i] += recorded
			}
		})
	}
	group.Wait()
	result := slice{took: time.Since(start)}
	for _, c := range counts {
		result.events += c
	}
	return result, errors.Join(errs...)
}

func (s *seed) naive(ctx context.Context, d time.Duration) (slice, error) {
	conns := make(chan *pgx.Conn, len(s.conns))
	for _, c := range s.conns {
		conns <- c
	}
	return each(len(s.all), d, func(i int) (int, error) {
		conn := <-conns
		defer func() { conns <- conn }()
		me := &s.all[i]
		n := me.next % len(me.streams)
		me.next++
		now := time.Now()
		e := s.samples.event(i+me.next, now)
		aggregate := pgUUID(me.streams[n].AggregateID())
		tx, err := conn.Begin(ctx)
		if err != nil {
			return 0, err
		}
		defer func() { _ = tx.Rollback(ctx) }() // nothing to do after the commit
		var version int32
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM bench_seed WHERE aggregate_id = $1`, aggregate).Scan(&version); err != nil {
			return 0, err
		}
		if version != int32(me.versions[n]) {
			return 0, fmt.Errorf("stream %s is at version %d, not %d", me.streams[n], version, me.versions[n])
		}
		_, err = tx.Exec(ctx, `INSERT INTO bench_seed (event_id, aggregate_id, version, event_type, event_data, event_metadata, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`, pgUUID(e.ID), aggregate, version+1, e.Type, string(e.Data), string(e.Metadata), now)
		if err != nil {
			return 0, err
		}
		if err := tx.Commit(ctx); err != nil {
			return 0, err
		}
		me.versions[n]++
		return 1, nil
	})
}

func (s *seed) copy(ctx context.Context, d time.Duration) (slice, error) {
	const rows = 1000
	return each(min(copyConnections, len(s.conns)), d, func(i int) (int, error) {
		now := time.Now()
		written, err := s.conns[i].CopyFrom(ctx, pgx.Identifier{"bench_seed"}, seedColumns, pgx.CopyFromSlice(rows, func(row int) ([]any, error) {
			e := s.samples.event(i+row, now)
			return []any{pgUUID(e.ID), pgUUID(uuid.New()), int32(1), e.Type, []byte(e.Data), []byte(e.Metadata), now}, nil
		}))
		return int(written), err
	})
}
