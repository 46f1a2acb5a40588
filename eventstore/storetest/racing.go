package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/eventstore"
)

// together runs f n times at once and returns the errors.
func together(n int, f func(i int) error) []error {
	var start, done sync.WaitGroup
	start.Add(1)
	errs := make([]error, n)
	for i := range n {
		done.Go(func() {
			start.Wait()
			errs[i] = f(i)
		})
	}
	start.Done()
	done.Wait()
	return errs
}

func handles(t testing.TB, d Database, n int) []eventstore.Store {
	out := make([]eventstore.Store, n)
	for i := range out {
		out[i] = open(t, d)
	}
	return out
}

func testRacingOnOneStream(t *testing.T, create Factory) {
	const writers, each = 8, 12
	d := create(t)
	stores := handles(t, d, 4)
	a := newStream()
	ctx := within(t)
	errs := together(writers, func(i int) error {
		s := stores[i%len(stores)]
		for range each {
			e := newEvent(fmt.Sprintf("writer %d", i))
			for {
				versions, err := s.Versions(ctx, a)
				if err != nil {
					return err
				}
				expected := versions[a.AggregateID()]
				events, err := s.Append(ctx, to(a, eventstore.ExpectVersion(expected), e))
				if isConflict(err) {
					continue
				}
				if err != nil {
					return err
				}
				if events[0].Version != expected+1 {
					return fmt.Errorf("version %d after %d", events[0].Version, expected)
				}
				break
			}
		}
		return nil
	})
	for _, err := range errs {
		require.NoError(t, err)
	}
	all := wholeLog(t, stores[0])
	require.Len(t, all, writers*each)
	for i, e := range all {
		require.EqualValues(t, i+1, e.Position)
		require.EqualValues(t, i+1, e.Version)
	}
}

func testRacingToCreate(t *testing.T, create Factory) {
	d := create(t)
	stores := handles(t, d, 3)
	ctx := within(t)
	for range 10 {
		a := newStream()
		errs := together(12, func(i int) error {
			_, err := stores[i%len(stores)].Append(ctx, to(a, eventstore.ExpectNone(), newEvent("A")))
			return err
		})
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			requireConflict(t, err, a, 0, 1)
		}
		require.Equal(t, 1, won)
	}
}

func testRacingToRepeat(t *testing.T, create Factory) {
	d := create(t)
	stores := handles(t, d, 2)
	ctx := within(t)
	parts := []eventstore.StreamAppend{to(newStream(), eventstore.ExpectNone(), newEvents("A", "B")...), to(newStream(), eventstore.ExpectNone(), newEvent("C"))}
	got := make([][]eventstore.Event, 32)
	for _, err := range together(len(got), func(i int) (err error) {
		got[i], err = stores[i%len(stores)].Append(ctx, parts...)
		return err
	}) {
		require.NoError(t, err)
	}
	for _, events := range got {
		require.Equal(t, got[0], events)
	}
	require.Equal(t, got[0], wholeLog(t, stores[0]))
}

// testCrossing appends to the same streams in opposite orders, which deadlocks
// where rows are locked one by one.
func testCrossing(t *testing.T, create Factory) {
	d := create(t)
	stores := handles(t, d, 2)
	ctx := within(t)
	a, b := newStream(), newStream()
	for _, err := range together(8, func(i int) error {
		for range 10 {
			parts := []eventstore.StreamAppend{to(a, eventstore.ExpectAny(), newEvent("A")), to(b, eventstore.ExpectAny(), newEvent("B"))}
			if i%2 == 0 {
				parts[0], parts[1] = parts[1], parts[0]
			}
			if _, err := stores[(i/2)%2].Append(ctx, parts...); err != nil {
				return err
			}
		}
		return nil
	}) {
		require.NoError(t, err)
	}
	versions, err := stores[0].Versions(ctx, a, b)
	require.NoError(t, err)
	require.EqualValues(t, 80, versions[a.AggregateID()])
	require.EqualValues(t, 80, versions[b.AggregateID()])
}

// follow reads by positions as a projection does, until it has seen n events. It
// is where a store loses events whose positions become visible out of order.
func follow(ctx context.Context, s eventstore.Store, n int) ([]eventstore.Event, error) {
	var seen []eventstore.Event
	for after := eventstore.Position(0); len(seen) < n; {
		head, err := s.Wait(ctx, after)
		if err != nil {
			return nil, err
		}
		for e, err := range s.ReadLog(ctx, eventstore.LogQuery{After: after}) {
			if err != nil {
				return nil, err
			}
			if e.Position != after+1 {
				return nil, fmt.Errorf("position %d came after %d", e.Position, after)
			}
			seen = append(seen, e)
			after = e.Position
		}
		if after < head {
			return nil, fmt.Errorf("told of position %d, but the log ends at %d", head, after)
		}
	}
	return seen, nil
}

func testFollowing(t *testing.T, create Factory) {
	const writers, each = 8, 25
	d := create(t)
	stores := handles(t, d, 4)
	ctx := within(t)
	seen := make([][]eventstore.Event, len(stores))
	for _, err := range together(len(stores)+writers, func(i int) (err error) {
		if i < len(stores) {
			seen[i], err = follow(ctx, stores[i], writers*each)
			return err
		}
		a := newStream()
		for n := range each {
			if _, err := stores[i%len(stores)].Append(ctx, to(a, eventstore.ExpectVersion(eventstore.Version(n)), newEvent("A"))); err != nil {
				return err
			}
		}
		return nil
	}) {
		require.NoError(t, err)
	}
	for _, events := range seen {
		require.Equal(t, wholeLog(t, stores[0]), events)
	}
}

// testLateCommit: a transaction that began earlier commits later. Wherever its
// events end up in the order, a reader that follows positions must not miss them.
func testLateCommit(t *testing.T, create Factory) {
	const rounds, writers = 3, 4
	d := create(t)
	stores := handles(t, d, 2)
	ctx := within(t)
	type followed struct {
		events []eventstore.Event
		err    error
	}
	following := make(chan followed, 1)
	go func() {
		events, err := follow(ctx, stores[1], rounds*(2*writers+2))
		following <- followed{events, err}
	}()
	for range rounds {
		held := newEvents("held 1", "held 2")
		commit := d.Hold(t, to(newStream(), eventstore.ExpectNone(), held...))
		before := wholeLog(t, stores[1])

		writing := make(chan []error, 1)
		started := make(chan struct{}, writers)
		go func() {
			writing <- together(writers, func(i int) error {
				started <- struct{}{}
				for range 2 {
					if _, err := stores[i%2].Append(ctx, to(newStream(), eventstore.ExpectNone(), newEvent("meanwhile"))); err != nil {
						return err
					}
				}
				return nil
			})
		}()
		for range writers {
			receive(t, started)
		}
		for range 20 { // whatever is visible now has to have its place already
			now := wholeLog(t, stores[1])
			require.Equal(t, before, now[:len(before)])
		}
		require.NoError(t, commit())
		for _, err := range receive(t, writing) {
			require.NoError(t, err)
		}
	}
	got := receive(t, following)
	require.NoError(t, got.err)
	require.Equal(t, wholeLog(t, stores[0]), got.events)
}

func testWaiting(t *testing.T, create Factory) {
	d := create(t)
	s, other := open(t, d), open(t, d)
	type answer struct {
		head eventstore.Position
		err  error
	}
	wait := func(s eventstore.Store, ctx context.Context, after eventstore.Position) <-chan answer {
		answers := make(chan answer, 1)
		go func() {
			head, err := s.Wait(ctx, after)
			answers <- answer{head, err}
		}()
		return answers
	}
	ctx := within(t)

	own, others := wait(s, ctx, 0), wait(other, ctx, 0)
	mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), newEvents("A", "B")...))
	require.Equal(t, answer{head: 2}, receive(t, own))
	begin := time.Now()
	require.Equal(t, answer{head: 2}, receive(t, others))
	require.Less(t, time.Since(begin), 5*time.Second, "the contract says one second; machines may be slow")

	require.Equal(t, answer{head: 2}, receive(t, wait(s, ctx, 1)), "what is there already is told at once")
	third := open(t, d)
	require.Equal(t, answer{head: 2}, receive(t, wait(third, ctx, 0)), "also by a store that was opened later")

	// An append of which nobody tells.
	own, others = wait(s, ctx, 2), wait(other, ctx, 2)
	require.NoError(t, d.Hold(t, to(newStream(), eventstore.ExpectNone(), newEvent("C")))())
	require.Equal(t, answer{head: 3}, receive(t, own))
	require.Equal(t, answer{head: 3}, receive(t, others))

	gone, cancel := context.WithCancel(t.Context())
	cancelled := wait(s, gone, 3)
	cancel()
	require.ErrorIs(t, receive(t, cancelled).err, context.Canceled)

	closed := wait(other, ctx, 3)
	require.NoError(t, other.Close())
	require.ErrorIs(t, receive(t, closed).err, eventstore.ErrClosed)
}

func testClosing(t *testing.T, create Factory) {
	d := create(t)
	s := open(t, d)
	a := newStream()
	mustAppend(t, s, to(a, eventstore.ExpectNone(), newEvents("A", "B")...))
	running := goleak.IgnoreCurrent()

	closing := d.Open(t, ticking())
	ctx := within(t)

	// Appends under way are waited for, and say what became of them.
	commit := d.Hold(t, to(newStream(), eventstore.ExpectNone(), newEvent("held")))
	const writers = 4
	results := make(chan error, writers)
	for range writers {
		go func() {
			_, err := closing.Append(ctx, to(newStream(), eventstore.ExpectNone(), newEvent("late")))
			results <- err
		}()
	}
	iterated := make(chan error, 1)
	reading, goOn := make(chan struct{}), make(chan struct{})
	go func() {
		var last error
		for _, err := range closing.ReadLog(ctx, eventstore.LogQuery{}) {
			if last = err; err == nil {
				close(reading)
				<-goOn
			}
		}
		iterated <- last
	}()
	receive(t, reading)
	closed := make(chan error, 1)
	go func() { closed <- closing.Close() }()
	_, err := closing.Wait(ctx, 1000)
	require.ErrorIs(t, err, eventstore.ErrClosed)
	close(goOn)
	require.ErrorIs(t, receive(t, iterated), eventstore.ErrClosed)
	require.NoError(t, commit())
	recorded := 0
	for range writers {
		if err := receive(t, results); err == nil {
			recorded++
		} else {
			require.ErrorIs(t, err, eventstore.ErrClosed)
		}
	}
	require.NoError(t, receive(t, closed))
	require.Len(t, wholeLog(t, s), 3+recorded)

	require.NoError(t, closing.Close(), "twice does no harm")
	_, err = closing.Append(ctx, to(a, eventstore.ExpectAny(), newEvent("C")))
	require.ErrorIs(t, err, eventstore.ErrClosed)
	_, err = closing.Head(ctx)
	require.ErrorIs(t, err, eventstore.ErrClosed)
	_, err = closing.Stream(ctx, a.AggregateID())
	require.ErrorIs(t, err, eventstore.ErrClosed)
	_, err = closing.Versions(ctx, a)
	require.ErrorIs(t, err, eventstore.ErrClosed)
	_, err = closing.RawBody(ctx, a.AggregateID())
	require.ErrorIs(t, err, eventstore.ErrClosed)
	require.ErrorIs(t, closing.Ping(ctx), eventstore.ErrClosed)
	for _, err := range closing.ReadStream(ctx, a, eventstore.StreamQuery{}) {
		require.ErrorIs(t, err, eventstore.ErrClosed)
	}
	goleak.VerifyNone(t, running)
}
