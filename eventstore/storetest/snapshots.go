package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

// RunSnapshots is what a store that keeps snapshots must pass beside Run.
func RunSnapshots(t *testing.T, create Factory) {
	for name, test := range map[string]func(*testing.T, Factory){
		"snapshots":        testSnapshots,
		"racing snapshots": testRacingSnapshots,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, create)
		})
	}
}

// testSnapshots holds a store to the contract of eventstore.Snapshotter.
func testSnapshots(t *testing.T, create Factory) {
	d := create(t)
	s := open(t, d)
	snapshots, ok := s.(eventstore.Snapshotter)
	require.True(t, ok)
	other := open(t, d).(eventstore.Snapshotter)
	a, b := newStream(), newStream()
	mustAppend(t, s, to(a, eventstore.ExpectNone(), newEvents("1", "2", "3", "4", "5", "6", "7", "8")...), to(b, eventstore.ExpectNone(), newEvent("1")))

	get := func(stream eventstore.StreamID, shape string, notAfter eventstore.Version) (eventstore.Snapshot, bool) {
		t.Helper()
		n, err := other.Snapshot(within(t), stream, shape, notAfter)
		if err == nil {
			return n, true
		}
		require.ErrorIs(t, err, eventstore.ErrNotFound)
		return eventstore.Snapshot{}, false
	}
	requireNewest := func(want eventstore.Version, shape string, notAfter eventstore.Version) {
		t.Helper()
		n, found := get(a, shape, notAfter)
		require.Equal(t, want > 0, found)
		require.Equal(t, want, n.Version)
	}
	save := func(n eventstore.Snapshot) {
		t.Helper()
		require.NoError(t, snapshots.SaveSnapshot(within(t), n))
	}
	exec := func(text string, args ...any) {
		t.Helper()
		require.NoError(t, d.Exec(within(t), fmt.Sprintf(text, args...)))
	}

	requireNewest(0, "user/1", 0)
	first := snapshotOf(a, 2)
	save(first)
	got, found := get(a, "user/1", 0)
	require.True(t, found)
	first.TakenAt = first.TakenAt.UTC().Truncate(time.Microsecond)
	require.Equal(t, first, got, "word for word")
	_, found = get(b, "user/1", 0)
	require.False(t, found, "another stream's")
	requireNewest(0, "user/2", 0)

	// At or below a version.
	save(snapshotOf(a, 5))
	requireNewest(5, "user/1", 0)
	requireNewest(5, "user/1", 5)
	requireNewest(2, "user/1", 4)
	requireNewest(0, "user/1", 1)

	// The newest two are kept, whatever the order in which they come.
	save(snapshotOf(a, 7))
	requireNewest(5, "user/1", 6)
	requireNewest(0, "user/1", 4)
	save(snapshotOf(a, 3))
	requireNewest(0, "user/1", 4)
	requireNewest(7, "user/1", 0)

	// The same version again takes the place of what was there.
	again := snapshotOf(a, 7)
	again.State = json.RawMessage(`{"again":"` + "\\u0000é" + `" }`)
	save(again)
	got, _ = get(a, "user/1", 0)
	require.Equal(t, string(again.State), string(got.State))

	// Another shape lives beside it until it is no newer.
	newShape := snapshotOf(a, 6)
	newShape.Shape = "user/2"
	save(newShape)
	requireNewest(6, "user/2", 0)
	requireNewest(7, "user/1", 0)
	requireNewest(0, "user/1", 6)
	newShape.Version = 8
	save(newShape)
	requireNewest(8, "user/2", 0)
	requireNewest(0, "user/1", 0)

	// Damage is not there, and is not an error.
	save(snapshotOf(a, 8))
	save(snapshotOf(a, 7))
	exec(`UPDATE api_snapshots SET state = '{"version":9}' WHERE version = 8 AND shape = 'user/1'`)
	requireNewest(7, "user/1", 0)
	exec(`UPDATE api_snapshots SET digest = '' WHERE version = 7`)
	requireNewest(0, "user/1", 0)
	save(snapshotOf(a, 8))
	requireNewest(8, "user/1", 0)
	exec(`UPDATE api_snapshots SET version = 6 WHERE version = 8 AND shape = 'user/1'`)
	requireNewest(0, "user/1", 6)
	exec(`UPDATE api_snapshots SET aggregate_id = '%s'`, b.AggregateID())
	_, found = get(b, "user/1", 0)
	require.False(t, found, "moved to another stream")
	exec(`DELETE FROM api_snapshots`)

	// Nor is one ahead of the stream, as the rest of an older database may be.
	save(snapshotOf(a, 8))
	save(snapshotOf(a, 7))
	exec(`UPDATE api_snapshots SET version = version + 1000`)
	requireNewest(0, "user/1", 0)
	save(snapshotOf(a, 1))
	requireNewest(1, "user/1", 0)
	exec(`UPDATE api_snapshots SET version = version + 1000 WHERE version > 1000`)
	requireNewest(1, "user/1", 0)

	// What no reader could use is refused.
	for name, change := range map[string]func(*eventstore.Snapshot){
		"no stream":            func(n *eventstore.Snapshot) { n.Stream = eventstore.StreamID{} },
		"an unknown stream":    func(n *eventstore.Snapshot) { n.Stream = newStream() },
		"no version":           func(n *eventstore.Snapshot) { n.Version = 0 },
		"ahead of the stream":  func(n *eventstore.Snapshot) { n.Version = 9 },
		"no shape":             func(n *eventstore.Snapshot) { n.Shape = "" },
		"no state":             func(n *eventstore.Snapshot) { n.State = nil },
		"a state that is cut":  func(n *eventstore.Snapshot) { n.State = n.State[:3] },
		"a state not in UTF-8": func(n *eventstore.Snapshot) { n.State = json.RawMessage("\"\xff\"") },
		"another stream's name": func(n *eventstore.Snapshot) {
			n.Stream = eventstore.StoredStream("user/acme/other", a.AggregateID())
		},
	} {
		n := snapshotOf(a, 4)
		change(&n)
		require.ErrorIs(t, snapshots.SaveSnapshot(within(t), n), eventstore.ErrInvalidSnapshot, name)
	}
	requireNewest(1, "user/1", 0)

	// Snapshots are no events.
	require.Len(t, wholeLog(t, s), 9)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := snapshots.Snapshot(ended, a, "user/1", 0)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, snapshots.SaveSnapshot(ended, snapshotOf(a, 4)), context.Canceled)
}

// testRacingSnapshots: several processes may take the same and other snapshots of one
// stream, while it is appended to.
func testRacingSnapshots(t *testing.T, create Factory) {
	d := create(t)
	s := open(t, d)
	require.Implements(t, (*eventstore.Snapshotter)(nil), s)
	const writers, saves = 4, 10
	stream := newStream()
	mustAppend(t, s, to(stream, eventstore.ExpectNone(), newEvent("1")))
	var done sync.WaitGroup
	for range writers {
		store := open(t, d)
		done.Go(func() {
			for range saves {
				events, err := store.Append(within(t), to(stream, eventstore.ExpectAny(), newEvent("n")))
				if err == nil {
					err = store.(eventstore.Snapshotter).SaveSnapshot(within(t), snapshotOf(stream, events[0].Version))
				}
				if err == nil {
					err = store.(eventstore.Snapshotter).SaveSnapshot(within(t), snapshotOf(stream, events[0].Version/2+1))
				}
				if err != nil {
					t.Errorf("racing for a snapshot: %v", err)
				}
			}
		})
	}
	done.Wait()
	const last = writers*saves + 1
	n, err := s.(eventstore.Snapshotter).Snapshot(within(t), stream, "user/1", 0)
	require.NoError(t, err)
	require.EqualValues(t, last, n.Version)
	require.Equal(t, snapshotOf(stream, last).State, n.State)
	// Two that commit at one moment do not see each other; the next cleans up.
	require.NoError(t, s.(eventstore.Snapshotter).SaveSnapshot(within(t), n))
	n, err = s.(eventstore.Snapshotter).Snapshot(within(t), stream, "user/1", last-1)
	require.NoError(t, err)
	_, err = s.(eventstore.Snapshotter).Snapshot(within(t), stream, "user/1", n.Version-1)
	require.ErrorIs(t, err, eventstore.ErrNotFound)
}

func snapshotOf(s eventstore.StreamID, v eventstore.Version) eventstore.Snapshot {
	return eventstore.Snapshot{
		Stream: s, Version: v, Shape: "user/1", State: fmt.Appendf(nil, `{ "version": %d}`, v),
		TakenAt: time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.FixedZone("CET", 3600)),
	}
}
