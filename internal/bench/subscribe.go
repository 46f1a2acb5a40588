package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keytrail/keytrail/eventstore"
)

const (
	catchUpTarget = 0.90
	liveTarget    = 0.95
	wakeTarget    = 3.0
	liveWriters   = 64
	// wakePause lets a notification's debouncing end, so that each event is a single one.
	wakePause = 30 * time.Millisecond
)

// subscription yields the log after a position, and then whatever is appended.
func subscription(ctx context.Context, s store, after eventstore.Position) iter.Seq2[eventstore.Event, error] {
	return eventstore.Subscribe(ctx, s, eventstore.LogQuery{After: after})
}

// subscribe measures following the log.
func (r *run) subscribe(ctx context.Context, db database) (err error) {
	size, err := r.fillLog(ctx, db, mixedEvent)
	if err != nil {
		return err
	}
	s, err := db.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := r.catchUp(ctx, s, size); err != nil {
		return err
	}
	if err := r.live(ctx, s); err != nil {
		return err
	}
	return r.wake(ctx, db, s)
}

func (r *run) catchUp(ctx context.Context, s store, size int) error {
	turns, err := r.alternate(ctx, fmt.Sprintf("catching up with %d events", size),
		side{"limit", timed(size, func(ctx context.Context) (int, error) { return readAll(ctx, s) })},
		side{"catching up", timed(size, func(ctx context.Context) (n int, err error) {
			for e, err := range subscription(ctx, s, 0) {
				if err != nil {
					return n, err
				}
				if n++; int(e.Position) != n {
					return n, fmt.Errorf("the subscription gave position %d where %d follows", e.Position, n)
				}
				if n == size {
					break
				}
			}
			return n, nil
		})},
	)
	if err != nil {
		return err
	}
	r.add(compare(Result{Case: "catching up", Limit: "replay, undecoded"}, atLeast(catchUpTarget), turns[1], turns[0], slice.perS))
	return nil
}

// follower counts what a subscription delivers.
type follower struct {
	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	last    eventstore.Position
	at      time.Time
	err     error
	changed chan struct{}
}

func follow(ctx context.Context, s store, after eventstore.Position) *follower {
	ctx, stop := context.WithCancel(ctx)
	f := &follower{stop: stop, ended: make(chan struct{}), last: after, changed: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for e, err := range subscription(ctx, s, after) {
			f.saw(e, err)
		}
	}()
	return f
}

func (f *follower) saw(e eventstore.Event, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
		f.err = err
	case e.Position != f.last+1:
		f.err = fmt.Errorf("the subscription gave position %d after %d", e.Position, f.last)
	default:
		f.last, f.at = e.Position, time.Now()
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *follower) position() eventstore.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// await waits until the position has been delivered and returns when the last one was.
func (f *follower) await(ctx context.Context, p eventstore.Position) (time.Time, error) {
	for {
		f.mu.Lock()
		last, at, err, changed := f.last, f.at, f.err, f.changed
		f.mu.Unlock()
		if err != nil || last >= p {
			return at, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return at, ctx.Err()
		}
	}
}

func (f *follower) close() {
	f.stop()
	<-f.ended
}

// live compares, of the same stretch of time, what is delivered with what is appended.
func (r *run) live(ctx context.Context, s store) error {
	sampled, err := newSamples(ctx, adminEvent)
	if err != nil {
		return err
	}
	head, err := s.Head(ctx)
	if err != nil {
		return err
	}
	f := follow(ctx, s, head)
	defer f.close()
	w := newWriters(s, sampled, liveWriters)
	var delivered []slice
	measured := func(ctx context.Context) (slice, error) {
		before := f.position()
		appended, err := w.run(ctx, r.slice(), 0)
		if err != nil {
			return appended, err
		}
		got := slice{events: int(f.position() - before), took: appended.took}
		delivered = append(delivered, got)
		_, err = f.await(ctx, before+eventstore.Position(appended.events))
		return appended, err
	}
	turns, err := r.alternate(ctx, fmt.Sprintf("live, %d writers", liveWriters), side{"append", measured})
	if err != nil {
		return err
	}
	for i := range turns[0] {
		delivered[i+1].peakRSS = turns[0][i].peakRSS // the first was the warm-up
	}
	r.add(compare(Result{Case: "live", Writers: liveWriters, Limit: "append rate of the same seconds"}, atLeast(liveTarget), delivered[1:], turns[0], slice.perS))
	return nil
}

// wake measures how long after its commit a single event reaches a subscriber in another
// process.
func (r *run) wake(ctx context.Context, db database, s store) (err error) {
	sampled, err := newSamples(ctx, adminEvent)
	if err != nil {
		return err
	}
	other, err := db.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	head, err := s.Head(ctx)
	if err != nil {
		return err
	}
	f := follow(ctx, other, head)
	defer f.close()
	w := newWriters(s, sampled, 1)
	times := 100
	if r.Quick {
		times = max(int(10*r.scale), 2)
	}
	woken := side{"wake-up", func(ctx context.Context) (slice, error) {
		return repeat(ctx, times, func() (time.Duration, error) {
			if err := w.one(ctx, 0, time.Now()); err != nil {
				return 0, err
			}
			committed := time.Now()
			head++
			at, err := f.await(ctx, head)
			return max(at.Sub(committed), 0), err
		})
	}}
	result := Result{Case: "wake-up of one event from another process", Writers: 1}
	p, ok := db.(*postgresDatabase)
	if !ok {
		turns, err := r.alternate(ctx, "wake-up", woken, side{"limit", func(context.Context) (slice, error) {
			return slice{events: 1, took: pollInterval, latencies: []time.Duration{pollInterval}}, nil
		}})
		if err != nil {
			return err
		}
		result.Limit = "the interval at which other processes' appends are looked for"
		result.LimitP99ms = quantile([]time.Duration{pollInterval}, 1)
		r.add(compare(result, nil, turns[0], turns[1], slice.p99))
		return nil
	}
	n, err := newNotifications(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close(context.WithoutCancel(ctx))) }()
	turns, err := r.alternate(ctx, "wake-up", woken, side{"limit", func(ctx context.Context) (slice, error) {
		return repeat(ctx, times, func() (time.Duration, error) { return n.once(ctx) })
	}})
	if err != nil {
		return err
	}
	var limits []time.Duration
	for _, t := range turns[1] {
		limits = append(limits, t.latencies...)
	}
	result.Limit, result.LimitP99ms = "NOTIFY on one connection, waited for on another", round(quantile(limits, 0.99), 3)
	r.add(compare(result, atMost(wakeTarget), turns[0], turns[1], slice.p99))
	return nil
}

// repeat measures single operations, with pauses between them.
func repeat(ctx context.Context, times int, f func() (time.Duration, error)) (slice, error) {
	var s slice
	pause := time.NewTicker(wakePause)
	defer pause.Stop()
	for range times {
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-pause.C:
		}
		d, err := f()
		if err != nil {
			return s, err
		}
		s.events++
		s.took += d
		s.latencies = append(s.latencies, d)
	}
	return s, nil
}

// notifications are two connections, one of which notifies the other.
type notifications struct{ from, to *pgx.Conn }

const benchChannel = "keytrail_bench"

func newNotifications(ctx context.Context, d *postgresDatabase) (*notifications, error) {
	from, err := connect(ctx, d.inner)
	if err != nil {
		return nil, err
	}
	to, err := connect(ctx, d.inner)
	if err != nil {
		return nil, errors.Join(err, from.Close(ctx))
	}
	n := &notifications{from: from, to: to}
	if _, err := to.Exec(ctx, "LISTEN "+benchChannel); err != nil {
		return nil, errors.Join(err, n.close(ctx))
	}
	return n, nil
}

func (n *notifications) close(ctx context.Context) error {
	return errors.Join(n.from.Close(ctx), n.to.Close(ctx))
}

func (n *notifications) once(ctx context.Context) (time.Duration, error) {
	type arrival struct {
		at  time.Time
		err error
	}
	arrived := make(chan arrival, 1)
	start := time.Now()
	go func() {
		_, err := n.to.WaitForNotification(ctx)
		arrived <- arrival{time.Now(), err}
	}()
	_, err := n.from.Exec(ctx, `SELECT pg_notify($1, '')`, benchChannel)
	a := <-arrived
	return a.at.Sub(start), errors.Join(err, a.err)
}
