package users_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
	"github.com/keytrail/keytrail/projections/users"
)

// countingLog counts the events that are read of streams.
type countingLog struct {
	eventstore.Reader
	read int
}

func (l *countingLog) ReadStream(ctx context.Context, s eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range l.Reader.ReadStream(ctx, s, q) {
			l.read++
			if !yield(e, err) {
				return
			}
		}
	}
}

// TestALateEventOfALongStream is folded from the snapshot that it came after, and from
// the beginning where it came before.
func TestALateEventOfALongStream(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		ctx := t.Context()
		p := db.Open(t)
		snapshots := p.Store.(eventstore.Snapshotter)
		log := &countingLog{Reader: p.Store}
		projection := users.New(log, p.Codec).WithSnapshots(snapshots)
		e := p.Engine(t, projections.Options{}, projection)
		q := users.NewQueries(p.DB)
		at := func(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }
		p.AppendUser(t, noon, created("u1", "alice", "alice@example.com"))
		for i := range 149 {
			p.AppendUser(t, at(i+1), updated("u1", adapter.Profile{FirstName: adapter.Set(fmt.Sprint("Alice ", i))}))
		}
		taken, err := p.Codec.SnapshotUser(ctx, p.Store, snapshots, ref("u1"), 1, at(120), at(200))
		require.NoError(t, err)
		require.EqualValues(t, 121, taken.Save.Version)
		require.NoError(t, snapshots.SaveSnapshot(ctx, *taken.Save))
		p.CatchUp(t, e)
		require.Zero(t, log.read)

		for _, late := range []struct{ minute, read int }{{140, 31}, {20, 152}} {
			log.read = 0
			newest := p.AppendUser(t, at(late.minute), updated("u1", adapter.Profile{LastName: adapter.Set(fmt.Sprint("Late ", late.minute))}))
			p.CatchUp(t, e)
			require.Equal(t, late.read, log.read)
			events, err := p.Codec.ReadStream(ctx, p.Store, newest.Stream)
			require.NoError(t, err)
			want, _ := adapter.FoldUser(events)
			got, _, err := q.Get(ctx, "acme", "u1")
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		p.RebuildEqualsIncremental(t, e, projection)
	})
}
