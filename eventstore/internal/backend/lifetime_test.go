package backend

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

func nothing(context.Context) ([]eventstore.Event, error) { return nil, nil }

func TestAppendsTakeTurns(t *testing.T) {
	t.Parallel()
	const n = 20
	l := NewLifetime()
	running, goOn := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = l.Append(t.Context(), time.Minute, func(context.Context) ([]eventstore.Event, error) {
			close(running)
			<-goOn
			return nil, nil
		})
	}()
	<-running
	order := make(chan int, n)
	for i := range n {
		go func() {
			_, _ = l.Append(t.Context(), time.Minute, func(context.Context) ([]eventstore.Event, error) {
				order <- i
				return nil, nil
			})
		}()
		// The next may come when this one waits for its turn; its place in the channel's
		// queue cannot be seen, that it has announced itself can.
		require.Eventually(t, func() bool { return len(l.waiting) == i+2 }, 10*time.Second, time.Millisecond)
	}
	close(goOn)
	seen := make([]int, n)
	for i := range seen {
		seen[i] = <-order
	}
	require.ElementsMatch(t, seq(n), seen)
	require.True(t, l.Close())
}

func seq(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestAppendsBeyondTheQueueAreRefused(t *testing.T) {
	t.Parallel()
	l := NewLifetime()
	for range maxWaiting {
		l.waiting <- struct{}{}
	}
	_, err := l.Append(t.Context(), time.Minute, nothing)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	<-l.waiting
	_, err = l.Append(t.Context(), time.Minute, nothing)
	require.NoError(t, err)
}

// TestGivingUp: one who gives up before its turn has written nothing; one who gives
// up after it leaves the append running, and Close waits for it.
func TestGivingUp(t *testing.T) {
	t.Parallel()
	l := NewLifetime()
	running, goOn, finished := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ctx, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := l.Append(ctx, time.Minute, func(ctx context.Context) ([]eventstore.Event, error) {
			close(running)
			<-goOn
			defer close(finished)
			return nil, ctx.Err()
		})
		first <- err
	}()
	<-running
	second := make(chan error, 1)
	go func() {
		_, err := l.Append(ctx, time.Minute, func(context.Context) ([]eventstore.Event, error) {
			t.Error("it was not its turn")
			return nil, nil
		})
		second <- err
	}()
	giveUp()
	require.ErrorIs(t, <-first, context.Canceled)
	require.ErrorIs(t, <-second, context.Canceled)

	waiting := make(chan error, 1)
	go func() {
		_, err := l.Append(t.Context(), time.Minute, nothing)
		waiting <- err
	}()
	closed := make(chan bool, 1)
	go func() { closed <- l.Close() }()
	require.ErrorIs(t, <-waiting, eventstore.ErrClosed)
	select {
	case <-closed:
		t.Fatal("closed over an append under way")
	default:
	}
	close(goOn)
	require.True(t, <-closed)
	<-finished
	require.False(t, l.Close())
}

func TestClockNeverGoesBack(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 1_999, time.UTC)
	times := []time.Time{start, start.Add(-time.Hour), start.Add(time.Hour)}
	c := NewClock(func() time.Time {
		now := times[0]
		times = times[1:]
		return now
	})
	cut := start.Truncate(time.Microsecond)
	require.Equal(t, cut, c.Now())
	require.Equal(t, cut, c.Now())
	require.Equal(t, cut.Add(time.Hour), c.Now())
}
