package storetest

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

// testSubscribing: what is there, then what comes, from this process and another, and
// on from where a subscriber has come.
func testSubscribing(t *testing.T, create Factory) {
	d := create(t)
	s, other := open(t, d), open(t, d)
	a := newStream()
	mustAppend(t, s, to(a, eventstore.ExpectNone(), newEvents("A", "B", "A")...))

	ctx, stop := context.WithCancel(within(t))
	all := subscribed(t, eventstore.Subscribe(ctx, s, eventstore.LogQuery{}))
	some := subscribed(t, eventstore.Subscribe(ctx, other, eventstore.LogQuery{After: 1, Types: []string{"A"}}))
	for i := range 3 {
		require.EqualValues(t, i+1, receive(t, all.events).Position)
	}
	require.EqualValues(t, 3, receive(t, some.events).Position)

	mustAppend(t, s, to(a, eventstore.ExpectVersion(3), newEvent("B")))
	mustAppend(t, other, to(a, eventstore.ExpectVersion(4), newEvent("A")))
	require.EqualValues(t, 4, receive(t, all.events).Position)
	require.EqualValues(t, 5, receive(t, all.events).Position)
	require.EqualValues(t, 5, receive(t, some.events).Position)
	stop()
	require.ErrorIs(t, receive(t, all.ended), context.Canceled)
	require.ErrorIs(t, receive(t, some.ended), context.Canceled)

	require.Equal(t, wholeLog(t, s)[3:], collect(t, eventstore.Subscribe(within(t), s, eventstore.LogQuery{After: 3, Limit: 2})), "on from a checkpoint")
	for _, q := range []eventstore.LogQuery{{Backward: true}, {Before: 3}, {RecordedTo: occurred}} {
		for e, err := range eventstore.Subscribe(within(t), s, q) {
			require.Zero(t, e)
			require.ErrorIs(t, err, eventstore.ErrInvalidQuery)
		}
	}
}

type subscription struct {
	events chan eventstore.Event
	ended  chan error
}

func subscribed(t testing.TB, events iter.Seq2[eventstore.Event, error]) subscription {
	s := subscription{events: make(chan eventstore.Event, 1000), ended: make(chan error, 1)}
	var done sync.WaitGroup
	done.Go(func() {
		for e, err := range events {
			if err != nil {
				s.ended <- err
				return
			}
			s.events <- e
		}
	})
	t.Cleanup(done.Wait)
	return s
}

// testSubscribersAgree: many writers in several processes, one of which keeps a
// transaction open for a while, and subscribers that come at different times: each
// sees every position once, in order.
func testSubscribersAgree(t *testing.T, create Factory) {
	const writers, each = 6, 25
	d := create(t)
	stores := handles(t, d, 3)
	ctx := within(t)
	hold := to(newStream(), eventstore.ExpectNone(), newEvents("held", "held")...)
	total := writers*each + len(hold.Events)

	var subscribers sync.WaitGroup
	errs := make([]error, 4)
	subscribe := func(i int, after eventstore.Position) {
		subscribers.Go(func() {
			next := after + 1
			for e, err := range eventstore.Subscribe(ctx, stores[i%len(stores)], eventstore.LogQuery{After: after}) {
				switch {
				case err != nil:
					errs[i] = err
					return
				case e.Position != next:
					errs[i] = fmt.Errorf("position %d where %d was due", e.Position, next)
					return
				case e.Position == eventstore.Position(total):
					return
				}
				next++
			}
		})
	}
	subscribe(0, 0)
	subscribe(1, 0)
	commit := d.Hold(t, hold)
	written := make(chan []error, 1)
	go func() {
		written <- together(writers, func(i int) error {
			for range each {
				if _, err := stores[i%len(stores)].Append(ctx, to(newStream(), eventstore.ExpectNone(), newEvent("A"))); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	subscribe(2, 0)
	require.NoError(t, commit())
	for _, err := range receive(t, written) {
		require.NoError(t, err)
	}
	subscribe(3, 20)
	subscribers.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
}

// testAsOf: a stream as it was when the log had reached a position, and as it was
// recorded at a moment.
func testAsOf(t *testing.T, create Factory) {
	d := create(t)
	now := time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)
	early, late := openAt(t, d, func() time.Time { return now }), openAt(t, d, func() time.Time { return now.Add(time.Hour) })
	a, b := newStream(), newStream()
	mustAppend(t, early, to(a, eventstore.ExpectNone(), newEvents("A", "B")...))
	mustAppend(t, early, to(b, eventstore.ExpectNone(), newEvent("A")))
	mustAppend(t, late, to(a, eventstore.ExpectVersion(2), newEvent("C")))
	// The clock of the process that appends next is behind.
	mustAppend(t, early, to(a, eventstore.ExpectVersion(3), newEvent("D")))

	count := func(q eventstore.StreamQuery) int { return len(collect(t, early.ReadStream(within(t), a, q))) }
	for position, want := range []int{4, 1, 2, 2, 3, 4, 4} {
		require.Equal(t, want, count(eventstore.StreamQuery{AsOf: eventstore.Position(position)}), "as of position %d", position)
	}
	require.Equal(t, 0, count(eventstore.StreamQuery{AsOfTime: now.Add(-time.Microsecond)}))
	require.Equal(t, 2, count(eventstore.StreamQuery{AsOfTime: now}))
	require.Equal(t, 2, count(eventstore.StreamQuery{AsOfTime: now.Add(time.Hour - time.Microsecond)}), "a prefix, whatever the clocks say")
	require.Equal(t, 4, count(eventstore.StreamQuery{AsOfTime: now.Add(time.Hour)}))
	require.Equal(t, 4, count(eventstore.StreamQuery{AsOfTime: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}))
	require.Equal(t, 1, count(eventstore.StreamQuery{AsOfTime: now, After: 1}))
	newest := collect(t, early.ReadStream(within(t), a, eventstore.StreamQuery{AsOf: 4, Backward: true, Limit: 1}))
	require.EqualValues(t, 3, newest[0].Version)
}

// testSharing: appends that arrive together may share a transaction, and each keeps
// its own outcome.
func testSharing(t *testing.T, create Factory) {
	const each = 40
	d := create(t)
	s := open(t, d)
	ctx := within(t)
	hot, twin := newStream(), eventstore.NewID()
	mustAppend(t, s, to(hot, eventstore.ExpectNone(), newEvent("first")))
	repeated := to(newStream(), eventstore.ExpectNone(), newEvent("again"))
	first := mustAppend(t, s, repeated)
	bad := newEvent("bad")
	bad.ID = first[0].ID

	// Held up by another process's transaction, they queue.
	commit := d.Hold(t, to(newStream(), eventstore.ExpectNone(), newEvent("held")))
	kinds := []func() error{
		func() error { // free
			_, err := s.Append(ctx, to(newStream(), eventstore.ExpectNone(), newEvents("A", "B")...))
			return err
		},
		func() error { // contended: one wins each version
			_, err := s.Append(ctx, to(hot, eventstore.ExpectVersion(1), newEvent("hot")), to(newStream(), eventstore.ExpectNone(), newEvent("beside")))
			return err
		},
		func() error { // whatever comes
			_, err := s.Append(ctx, to(newStream(), eventstore.ExpectAny(), newEvent("A")))
			return err
		},
		func() error { // recorded before
			again, err := s.Append(ctx, repeated)
			if err == nil && again[0].Position != first[0].Position {
				return fmt.Errorf("repeated at position %d", again[0].Position)
			}
			return err
		},
		func() error { // an id that is used
			_, err := s.Append(ctx, to(newStream(), eventstore.ExpectAny(), bad))
			if !isReused(err) {
				return fmt.Errorf("want the id refused, got %w", err)
			}
			return nil
		},
		func() error { // one aggregate id, many names
			_, err := s.Append(ctx, to(eventstore.StoredStream("user/"+eventstore.NewID().String(), twin), eventstore.ExpectAny(), newEvent("twin")))
			return err
		},
	}
	result := make(chan []error, 1)
	go func() { result <- together(each*len(kinds), func(i int) error { return kinds[i%len(kinds)]() }) }()
	require.NoError(t, commit())
	conflicts, strangers := 0, 0
	for i, err := range receive(t, result) {
		switch i % len(kinds) {
		case 1:
			if err != nil {
				requireConflict(t, err, hot, 1, 2)
				conflicts++
			}
		case 5:
			if err != nil {
				require.ErrorIs(t, err, eventstore.ErrInvalidEvent)
				strangers++
			}
		default:
			require.NoError(t, err, "kind %d", i%len(kinds))
		}
	}
	require.Equal(t, each-1, conflicts)
	require.Equal(t, each-1, strangers)
	byType := map[string]int{}
	for i, e := range wholeLog(t, s) {
		require.EqualValues(t, i+1, e.Position)
		byType[e.Type]++
	}
	require.Equal(t, map[string]int{"first": 1, "again": 1, "held": 1, "A": 2 * each, "B": each, "hot": 1, "beside": 1, "twin": 1}, byType)
}
