package reconcile

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

type watermark struct {
	clock *clock
	last  map[string]time.Time
	taken map[string]bool
}

func (m *watermark) LastRun(_ context.Context, name string) (time.Time, error) {
	return m.last[name], nil
}

func (m *watermark) Hold(ctx context.Context, name string, f func(context.Context) (bool, error)) (bool, error) {
	if m.taken[name] {
		return false, nil
	}
	completed, err := f(ctx)
	if completed {
		m.last[name] = m.clock.Now()
	}
	return true, err
}

// schedule runs a scheduler whose sleep moves the clock, until it has slept as often
// as told, and returns when each realm ran.
func schedule(t *testing.T, s *Scheduler, c *clock, sleeps int) map[string][]time.Duration {
	t.Helper()
	begin := c.Now()
	runs := map[string][]time.Duration{}
	reconcile := s.Reconcile
	s.Reconcile = func(ctx context.Context, req Request) (Result, error) {
		require.Equal(t, "schedule", req.Trigger)
		runs[req.Realm] = append(runs[req.Realm], c.Now().Sub(begin).Round(time.Minute))
		return reconcile(ctx, req)
	}
	s.Clock = c.Now
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.sleep = func(_ context.Context, d time.Duration) {
		if sleeps--; sleeps < 0 {
			cancel()
			return
		}
		c.advance(d)
	}
	require.NoError(t, s.Run(ctx))
	return runs
}

func completed(context.Context, Request) (Result, error) {
	return Result{Reconciliation: adapter.Reconciliation{Status: adapter.RunCompleted}}, nil
}

func TestScheduleRunsEachRealmAtItsInterval(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	m := &watermark{clock: c, last: map[string]time.Time{
		// A restart does not forget when the realm last ran.
		ScheduleName("b"): c.now.Add(-5 * time.Hour),
	}}
	s := &Scheduler{Reconcile: completed, Watermark: m, Realms: []string{"a", "b"}, Interval: 6 * time.Hour}
	runs := schedule(t, s, c, 4)
	require.Zero(t, runs["a"][0], "a realm that never ran runs at once")
	require.GreaterOrEqual(t, runs["a"][1], 6*time.Hour)
	require.LessOrEqual(t, runs["a"][1], 6*time.Hour+36*time.Minute)
	require.GreaterOrEqual(t, runs["b"][0], time.Hour)
	require.LessOrEqual(t, runs["b"][0], time.Hour+36*time.Minute)
	require.NotEqual(t, jitter("a", time.Hour), jitter("b", time.Hour))
}

func TestScheduleTriesAgainSoonerAfterAFailure(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	m := &watermark{clock: c, last: map[string]time.Time{}}
	failures := 2
	s := &Scheduler{Watermark: m, Realms: []string{"a"}, Interval: 6 * time.Hour}
	s.Reconcile = func(ctx context.Context, req Request) (Result, error) {
		if failures--; failures >= 0 {
			return Result{}, errors.New("unreachable")
		}
		return completed(ctx, req)
	}
	runs := schedule(t, s, c, 2)
	require.Equal(t, []time.Duration{0, 5 * time.Minute, 10 * time.Minute}, runs["a"])
}

func TestScheduleLeavesARealmToWhoeverHasIt(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	m := &watermark{clock: c, last: map[string]time.Time{}, taken: map[string]bool{ScheduleName("a"): true}}
	s := &Scheduler{Reconcile: completed, Watermark: m, Realms: []string{"a"}, Interval: time.Hour}
	require.Empty(t, schedule(t, s, c, 3))
}

func TestScheduleIsNotPutOffByAClockThatWasWrong(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	m := &watermark{clock: c, last: map[string]time.Time{ScheduleName("a"): c.now.AddDate(10, 0, 0)}}
	s := &Scheduler{Reconcile: completed, Watermark: m, Realms: []string{"a"}, Interval: 6 * time.Hour}
	runs := schedule(t, s, c, 1)
	require.Len(t, runs["a"], 2)
	require.Zero(t, runs["a"][0])
	require.GreaterOrEqual(t, runs["a"][1], 6*time.Hour)
}

func TestScheduleEnds(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	m := &watermark{clock: c, last: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(t.Context())
	s := &Scheduler{Watermark: m, Realms: []string{"a"}, Interval: time.Hour, Clock: c.Now}
	s.Reconcile = func(context.Context, Request) (Result, error) {
		cancel()
		return Result{}, context.Canceled
	}
	require.NoError(t, s.Run(ctx))
	s.Interval = 0
	require.NoError(t, s.Run(t.Context()), "switched off")

	sleepFor(ctx, time.Hour) // ends with its context, which has ended
	sleepFor(t.Context(), time.Nanosecond)
}
