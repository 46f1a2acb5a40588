package lease_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/lease"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// clock is a clock that tests move.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// each runs the test on both databases, with a second process's leases.
func each(t *testing.T, test func(t *testing.T, c *clock, mine, theirs *lease.Leases)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "keytrail.db")
		require.NoError(t, sqlite.Migrate(t.Context(), path))
		c := newClock()
		open := func() *lease.Leases {
			s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			require.NoError(t, lease.Migrate(t.Context(), s.WriteDB(), sqlmigrate.SQLite))
			require.NoError(t, lease.CheckSchema(t.Context(), s.ReadDB(), sqlmigrate.SQLite))
			return lease.New(s.WriteDB(), c.now)
		}
		test(t, c, open(), open())
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url := dbtest.Postgres(t)
		require.NoError(t, postgres.Migrate(t.Context(), url))
		c := newClock()
		open := func() *lease.Leases {
			s, err := postgres.Open(t.Context(), url, postgres.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			require.NoError(t, lease.Migrate(t.Context(), s.WriteDB(), sqlmigrate.Postgres))
			require.NoError(t, lease.CheckSchema(t.Context(), s.ReadDB(), sqlmigrate.Postgres))
			return lease.New(s.WriteDB(), c.now)
		}
		test(t, c, open(), open())
	})
}

func TestOneHolderAtATime(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c *clock, mine, theirs *lease.Leases) {
		ctx := t.Context()
		_, ok, err := mine.Read(ctx, "poll/acme")
		require.NoError(t, err)
		require.False(t, ok)

		first, ok, err := mine.Acquire(ctx, "poll/acme", "me", time.Minute)
		require.NoError(t, err)
		require.True(t, ok)
		for _, l := range []*lease.Leases{mine, theirs} {
			_, ok, err = l.Acquire(ctx, "poll/acme", "me", time.Minute)
			require.NoError(t, err)
			require.False(t, ok)
		}
		_, ok, err = theirs.Acquire(ctx, "poll/other", "they", time.Minute)
		require.NoError(t, err)
		require.True(t, ok)

		c.advance(50 * time.Second)
		require.NoError(t, first.Renew(ctx))
		c.advance(50 * time.Second)
		_, ok, err = theirs.Acquire(ctx, "poll/acme", "they", time.Minute)
		require.NoError(t, err)
		require.False(t, ok, "renewed")

		c.advance(10 * time.Second)
		second, ok, err := theirs.Acquire(ctx, "poll/acme", "they", time.Minute)
		require.NoError(t, err)
		require.True(t, ok, "expired")
		require.Greater(t, second.Epoch, first.Epoch)

		require.ErrorIs(t, first.Renew(ctx), lease.ErrLost)
		require.ErrorIs(t, first.Save(ctx, 1), lease.ErrLost)
		require.ErrorIs(t, first.Ran(ctx, c.now()), lease.ErrLost)
		require.NoError(t, first.Release(ctx))
		require.NoError(t, second.Renew(ctx), "what the loser released is not the winner's")

		require.NoError(t, second.Release(ctx))
		_, ok, err = mine.Acquire(ctx, "poll/acme", "me", time.Minute)
		require.NoError(t, err)
		require.True(t, ok, "released")
	})
}

func TestStateOutlivesItsHolder(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c *clock, mine, theirs *lease.Leases) {
		l, ok, err := mine.Acquire(t.Context(), "poll/acme", "me", time.Minute)
		require.NoError(t, err)
		require.True(t, ok)
		r, ok, err := theirs.Read(t.Context(), "poll/acme")
		require.NoError(t, err)
		require.True(t, ok)
		require.True(t, r.LastRun.IsZero())
		require.Nil(t, r.State)

		require.NoError(t, l.Save(t.Context(), map[string]int{"watermark": 7}))
		require.NoError(t, l.Ran(t.Context(), c.now()))
		require.NoError(t, l.Release(t.Context()))
		_, ok, err = theirs.Acquire(t.Context(), "poll/acme", "they", time.Minute)
		require.NoError(t, err)
		require.True(t, ok)
		r, _, err = theirs.Read(t.Context(), "poll/acme")
		require.NoError(t, err)
		require.Equal(t, "they", r.Owner)
		require.JSONEq(t, `{"watermark":7}`, string(r.State))
		require.True(t, c.now().Equal(r.LastRun))
		require.True(t, c.now().Add(time.Minute).Equal(r.ExpiresAt))
	})
}

func TestRacingForALease(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, _ *clock, mine, theirs *lease.Leases) {
		var won, failed atomic.Int64
		var group sync.WaitGroup
		for _, l := range []*lease.Leases{mine, theirs, mine, theirs, mine, theirs} {
			group.Go(func() {
				_, ok, err := l.Acquire(t.Context(), "job", "x", time.Minute)
				if err != nil {
					failed.Add(1)
				} else if ok {
					won.Add(1)
				}
			})
		}
		group.Wait()
		require.Zero(t, failed.Load())
		require.EqualValues(t, 1, won.Load())
	})
}

func TestHold(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c *clock, mine, theirs *lease.Leases) {
		problem := errors.New("problem")
		ran, err := mine.Hold(t.Context(), "job", "me", time.Minute, func(ctx context.Context, _ *lease.Lease) error {
			ran, err := theirs.Hold(ctx, "job", "they", time.Minute, func(context.Context, *lease.Lease) error {
				t.Error("two hold one lease")
				return nil
			})
			require.NoError(t, err)
			require.False(t, ran)
			return problem
		})
		require.True(t, ran)
		require.ErrorIs(t, err, problem)

		// Released: so it can be held again. Renewing is frequent here, and fails once
		// the lease has been taken over.
		ran, err = mine.Hold(t.Context(), "job", "me", 30*time.Millisecond, func(ctx context.Context, _ *lease.Lease) error {
			for ctx.Err() == nil {
				c.advance(time.Second) // until it has expired just before a renewal
				_, ok, err := theirs.Acquire(ctx, "job", "they", time.Hour)
				if err == nil && ok {
					<-ctx.Done()
				}
			}
			return context.Cause(ctx)
		})
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrLost)
	})
}
