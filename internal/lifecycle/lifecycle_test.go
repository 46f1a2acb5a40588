package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const timeout = 10 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// journal notes what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}

// worker becomes ready after a while and notes its start and stop.
type worker struct {
	name    string
	journal *journal
	after   time.Duration // to get ready
	linger  time.Duration // to stop
	ready   chan struct{}
}

func newWorker(j *journal, name string) *worker {
	return &worker{name: name, journal: j, ready: make(chan struct{})}
}

func (w *worker) Run(ctx context.Context) error {
	w.journal.add("start " + w.name)
	select {
	case <-time.After(w.after):
		w.journal.add("ready " + w.name)
		close(w.ready)
	case <-ctx.Done():
		return ctx.Err()
	}
	<-ctx.Done()
	select {
	case <-time.After(w.linger):
		w.journal.add("stop " + w.name)
		return ctx.Err()
	case <-lifecycle.Hard(ctx).Done():
		w.journal.add("hard stop " + w.name)
		return lifecycle.Hard(ctx).Err()
	}
}

func (w *worker) Ready(ctx context.Context) error {
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func run(ctx context.Context, g *lifecycle.Group) <-chan error {
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	return done
}

func TestStartsInOrderAndStopsInReverse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := lifecycle.New(quiet(), timeout)
		for _, name := range []string{"calls", "projections", "committer", "listener"} {
			w := newWorker(j, name)
			w.after, w.linger = time.Second, time.Second
			g.Add(name, w)
		}
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		done := run(ctx, g)
		require.NoError(t, g.Ready(t.Context()))
		require.Equal(t, 4*time.Second, time.Since(begin), "each waits for the one before")
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, []string{
			"start calls", "ready calls", "start projections", "ready projections", "start committer", "ready committer", "start listener", "ready listener",
			"stop listener", "stop committer", "stop projections", "stop calls",
		}, j.all())
		require.Equal(t, 8*time.Second, time.Since(begin), "one after the other")
	})
}

func TestFirstErrorStopsTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		var log bytes.Buffer
		g := lifecycle.New(slog.New(slog.NewTextHandler(&log, nil)), timeout)
		g.Add("last", newWorker(j, "last"))
		broken := errors.New("disk full")
		g.Add("committer", lifecycle.Func(func(context.Context) error {
			<-time.After(time.Second) // of the bubble's clock
			return broken
		}))
		g.Add("late", lifecycle.Func(func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("second")
		}))
		err := g.Run(t.Context())
		require.ErrorIs(t, err, broken)
		require.EqualError(t, err, "committer: disk full")
		require.Equal(t, []string{"start last", "ready last", "stop last"}, j.all())
		require.Contains(t, log.String(), "late: second", "the others are not swallowed")
		require.NotContains(t, log.String(), "disk full", "nor told twice")
	})
}

func TestErrorWhileStopping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := lifecycle.New(quiet(), timeout)
		g.Add("committer", lifecycle.Func(func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("lost a batch")
		}))
		ctx, cancel := context.WithCancel(t.Context())
		done := run(ctx, g)
		require.NoError(t, g.Ready(t.Context()))
		cancel()
		require.EqualError(t, <-done, "committer: lost a batch")
	})
}

func TestEarlyEndIsAnError(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"return": func() {}, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := lifecycle.New(quiet(), timeout)
			g.Add("poller", lifecycle.Func(func(context.Context) error {
				end()
				return nil
			}))
			err := g.Run(t.Context())
			require.ErrorIs(t, err, lifecycle.ErrEnded)
			require.EqualError(t, err, "poller: ended without being asked to")
		})
	}
}

func TestPanicIsAnError(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	g := lifecycle.New(slog.New(slog.NewTextHandler(&log, nil)), timeout)
	g.Add("fold", lifecycle.Func(func(context.Context) error { panic("index out of range") }))
	err := g.Run(t.Context())
	require.EqualError(t, err, "fold: panic: index out of range")
	var p *lifecycle.PanicError
	require.ErrorAs(t, err, &p)
	require.Contains(t, log.String(), "lifecycle_test.go", "the stack")
	require.Contains(t, log.String(), "worker=fold")
}

func TestHardStopAfterTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := lifecycle.New(quiet(), timeout)
		slow := newWorker(j, "slow")
		slow.linger = time.Hour
		g.Add("first", newWorker(j, "first"))
		g.Add("slow", slow)
		ctx, cancel := context.WithCancel(t.Context())
		done := run(ctx, g)
		require.NoError(t, g.Ready(t.Context()))
		begin := time.Now()
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, timeout, time.Since(begin))
		require.Equal(t, []string{"hard stop slow", "stop first"}, j.all()[4:])
	})
}

func TestHurry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := lifecycle.New(quiet(), timeout)
		slow := newWorker(j, "slow")
		slow.linger = time.Hour
		g.Add("slow", slow)
		ctx, cancel := context.WithCancel(t.Context())
		done := run(ctx, g)
		require.NoError(t, g.Ready(t.Context()))
		begin := time.Now()
		cancel()
		<-time.After(time.Second) // of the bubble's clock
		g.Hurry()
		g.Hurry()
		require.NoError(t, <-done)
		require.Equal(t, time.Second, time.Since(begin))
	})
}

func TestStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		release := make(chan struct{})
		g := lifecycle.New(quiet(), timeout)
		g.Add("first", newWorker(j, "first"))
		g.Add("deaf", lifecycle.Func(func(context.Context) error {
			<-release
			return nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		done := run(ctx, g)
		require.NoError(t, g.Ready(t.Context()))
		cancel()
		err := <-done
		require.ErrorIs(t, err, lifecycle.ErrStuck)
		require.EqualError(t, err, "deaf: did not stop")
		require.Contains(t, j.all(), "stop first", "the others are stopped all the same")
		close(release)
	})
}

func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := lifecycle.New(quiet(), timeout)
		never := newWorker(j, "never")
		never.after = time.Hour
		g.Add("first", newWorker(j, "first"))
		g.Add("never", never)
		g.Add("unreached", newWorker(j, "unreached"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, g.Run(ctx))
		require.Equal(t, []string{"start first", "ready first", "start never", "stop first"}, j.all())
		require.ErrorIs(t, g.Ready(ctx), context.DeadlineExceeded)
	})
}

type unready struct{ lifecycle.Func }

func (unready) Ready(context.Context) error { return errors.New("port in use") }

func TestNotReadyIsAnError(t *testing.T) {
	t.Parallel()
	g := lifecycle.New(quiet(), timeout)
	g.Add("listener", unready{func(ctx context.Context) error { <-ctx.Done(); return nil }})
	require.EqualError(t, g.Run(t.Context()), "listener: getting ready: port in use")
}

func TestFailsWhileGettingReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := lifecycle.New(quiet(), timeout)
		w := &failing{}
		g.Add("listener", w)
		require.EqualError(t, g.Run(t.Context()), "listener: address in use")
	})
}

type failing struct{}

func (*failing) Run(context.Context) error { return errors.New("address in use") }

func (*failing) Ready(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestGroupInAGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		inner := lifecycle.New(quiet(), time.Hour)
		a, b := newWorker(j, "a"), newWorker(j, "b")
		a.after, b.linger = time.Second, 2*time.Hour
		inner.Add("a", a)
		inner.Add("b", b)
		outer := lifecycle.New(quiet(), timeout)
		outer.Add("inner", inner)
		ctx, cancel := context.WithCancel(t.Context())
		done := run(ctx, outer)
		require.NoError(t, outer.Ready(t.Context()))
		require.NoError(t, inner.Ready(t.Context()))
		begin := time.Now()
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, timeout, time.Since(begin), "the outer hard stop reaches the inner workers")
		require.Equal(t, []string{"hard stop b"}, j.all()[4:5])
	})
}

func TestHardOutsideAGroupNeverEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, lifecycle.Hard(ctx).Err())
}
