package inbound_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/eventstore"
)

// recordedPaths counts what is recorded by path, which here tells events apart.
func (b *bundle) recordedPaths() map[string]int {
	b.t.Helper()
	paths := map[string]int{}
	for _, d := range b.received() {
		p, ok := d.Payload.(*adapter.AdminEventReceived)
		require.True(b.t, ok)
		paths[p.ResourcePath]++
	}
	return paths
}

// Events arrive between two pages of an older server and move all others on, late ones
// between those that are listed already, and equal times come in another order on each
// page: nothing is recorded that did not happen, and nothing is left out for good.
func TestPagesOfAnOlderServerShift(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 7))
		b := setup(t)
		l, m := &listed{legacy: true, ties: rand.New(rand.NewPCG(seed, 8))}, &marks{at: map[string]time.Time{}}
		want := map[string]int{}
		add := func(l *listed, id string, at time.Time) {
			l.events = append(l.events, stored{id, at})
			want["users/"+id]++
		}
		for i := range 900 {
			// Two to a millisecond, many in one, and pairs that are equal in everything.
			at := start.Add(time.Duration(i/2) * 100 * time.Millisecond)
			if i >= 300 && i < 300+int(seed)*250 {
				at = start.Add(15 * time.Second)
			}
			add(l, fmt.Sprintf("e%d", i/(1+i%3/2)), at)
		}
		n := 0
		l.meanwhile = func(l *listed) {
			for range random.IntN(4) {
				n++
				add(l, fmt.Sprintf("new%d", n), start.Add(time.Hour).Add(time.Duration(n)*time.Millisecond))
			}
			if random.IntN(2) == 0 {
				n++
				add(l, fmt.Sprintf("late%d", n), start.Add(time.Hour-time.Second))
			}
		}
		for range 2 {
			_, err := b.poller(l, m).Poll(t.Context(), "acme")
			require.NoError(t, err)
			for path, count := range b.recordedPaths() {
				require.LessOrEqual(t, count, want[path], "%s is made up", path)
			}
		}
		l.meanwhile = nil
		_, err := b.poller(l, m).Poll(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, want, b.recordedPaths())
	}
}

// bounded refuses transactions of more than most events, and all after the first few.
type bounded struct {
	inbound.Store
	most, left int
}

func (s *bounded) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	if len(appends) > s.most {
		return nil, errors.New("too much for one transaction")
	}
	if s.left--; s.left < 0 {
		return nil, eventstore.ErrUnavailable
	}
	return s.Store.Append(ctx, appends...)
}

// The history of an older server is recorded in pieces, oldest first, and a poll that
// breaks off is gone on with.
func TestTheHistoryOfAnOlderServerIsRecordedInPieces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	store := &bounded{Store: b.store, most: 600, left: 2}
	b.recorder.Store = store
	l, m := &listed{legacy: true}, &marks{at: map[string]time.Time{}}
	for i := range 2200 {
		l.add(fmt.Sprintf("e%d", i), start.Add(time.Duration(i)*time.Second))
	}
	_, err := b.poller(l, m).Poll(t.Context(), "acme")
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	recorded := b.received()
	require.Len(t, recorded, 1000)
	require.Equal(t, start, recorded[0].OccurredAt.UTC())

	store.left, l.queries = 10, nil
	got, err := b.poller(l, m).Poll(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, 1200, got.New)
	require.Equal(t, 1501, got.Read, "from five minutes before the newest recorded")
	require.Len(t, b.received(), 2200)
}

// A date begins later in zones west of ours.
func TestAnOlderServerIsAskedFromTheDayBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, m := &listed{legacy: true}, &marks{at: map[string]time.Time{}}
	l.add("e1", start)
	l.add("e2", start.Add(time.Second))
	for range 2 {
		l.queries = nil
		_, err := b.poller(l, m).Poll(t.Context(), "acme")
		require.NoError(t, err)
	}
	last := l.queries[len(l.queries)-1]
	require.True(t, last.DayPrecision)
	require.Equal(t, start.AddDate(0, 0, -1).Format(time.DateOnly), last.From.Format(time.DateOnly))
}

// Whoever empties the event store while it is read makes nothing up either.
func TestAnOlderServerIsEmptiedMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, m := &listed{legacy: true}, &marks{at: map[string]time.Time{}}
	for i := range 600 {
		l.add(fmt.Sprintf("e%d", i), start.Add(time.Duration(i)*time.Second))
	}
	l.meanwhile = func(l *listed) {
		if len(l.queries) == 2 {
			l.events = append([]stored(nil), l.events[:300]...)
		}
	}
	_, err := b.poller(l, m).Poll(t.Context(), "acme")
	require.NoError(t, err)
	for path, count := range b.recordedPaths() {
		require.Equal(t, 1, count, path)
	}
}
