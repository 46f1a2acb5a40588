package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/snapshots"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/lease"
	"github.com/keytrail/keytrail/projections/users"
)

// openAt is keytrail on a store of its own, at a time that the test tells.
func openAt(t *testing.T, now *time.Time, env ...string) *App {
	t.Helper()
	cfg, err := config.Load(config.Input{Env: append(env, "KEYTRAIL_STORE_URL=sqlite:"+filepath.Join(t.TempDir(), "keytrail.db"))})
	require.NoError(t, err)
	require.NoError(t, Migrate(t.Context(), cfg))
	a, err := Open(t.Context(), cfg, Options{Clock: func() time.Time { return *now }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func changes(t *testing.T, a *App, ref adapter.UserRef, n int, occurred time.Time) {
	var events []eventstore.NewEvent
	for i := range n {
		e, err := a.Codec.Encode(t.Context(), adapter.Draft{
			Payload: &adapter.UserApiUpdated{UserChange: adapter.UserChange{
				UserRef: ref, Set: adapter.Profile{Username: adapter.Set("bob"), FirstName: adapter.Set(occurred.Format(time.TimeOnly))},
			}},
			OccurredAt: occurred.Add(time.Duration(i) * time.Second), Meta: adapter.Metadata{CorrelationID: eventstore.NewID()},
		})
		require.NoError(t, err)
		events = append(events, e)
	}
	_, err := a.Store.Append(t.Context(), eventstore.StreamAppend{Stream: adapter.UserStream(ref.Realm, ref.UserID), Events: events})
	require.NoError(t, err)
}

// TestSnapshotsOfTheProcess: what serve takes is what readers find, and what they find is
// what the projection folds.
func TestSnapshotsOfTheProcess(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	a := openAt(t, &now, "KEYTRAIL_STORE_SNAPSHOT_AFTER=20")
	ref := adapter.UserRef{Realm: "acme", UserID: "1"}
	changes(t, a, ref, 130, now)
	now = now.Add(snapshots.Lateness + time.Hour)

	taken, stop := context.WithCancel(ctx)
	taker := a.snapshotTaker()
	taker.Woken = func(ctx context.Context) error {
		stop()
		return ctx.Err()
	}
	require.NoError(t, taker.Run(taken))
	require.InDelta(t, 1, testutil.ToFloat64(a.Metrics.Snapshots.WithLabelValues("saved")), 0)
	found, err := a.Snapshots.Snapshot(ctx, adapter.UserStream(ref.Realm, ref.UserID), adapter.UserShape, 0)
	require.NoError(t, err)
	require.EqualValues(t, 130, found.Version)
	position, err := snapshotProgress{a.Leases}.Position(ctx, adapter.UserShape)
	require.NoError(t, err)
	require.EqualValues(t, 130, position)

	// An event after it, one before it, and each reader.
	for _, occurred := range []time.Time{now, now.Add(-2 * time.Hour)} {
		require.NoError(t, a.CatchUp(ctx))
		changes(t, a, ref, 1, occurred)
		require.NoError(t, a.CatchUp(ctx))
		events, err := a.userEvents(ctx, ref)
		require.NoError(t, err)
		want, _ := adapter.FoldUser(events)
		got, err := a.UserAt(ctx, ref, time.Time{})
		require.NoError(t, err)
		require.Equal(t, want.View(), got.View())
		for _, at := range []time.Time{now, found.TakenAt.Add(-time.Hour), now.Add(-2 * time.Hour)} {
			want, wanted := adapter.UserAsOf(events, at, time.Time{})
			got, err := a.UserAt(ctx, ref, at)
			require.Equal(t, wanted, err == nil)
			require.Equal(t, want.View(), got.View())
		}
	}
	_, err = a.UserAt(ctx, ref, now.Add(-1000*time.Hour))
	require.Equal(t, adapter.CodeNotYetKnown, adapter.CodeOf(err))
	_, err = a.UserAt(ctx, adapter.UserRef{Realm: "acme", UserID: "2"}, now)
	require.Equal(t, adapter.CodeUserNotFound, adapter.CodeOf(err))

	before, _, err := a.Users.Get(ctx, ref.Realm, ref.UserID)
	require.NoError(t, err)
	require.NoError(t, a.Engine.Rebuild(ctx, users.Name, nil))
	rebuilt, _, err := a.Users.Get(ctx, ref.Realm, ref.UserID)
	require.NoError(t, err)
	require.Equal(t, before, rebuilt)
}

func TestSnapshotsCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	a := openAt(t, &now, "KEYTRAIL_STORE_SNAPSHOT_AFTER=0")
	require.Nil(t, a.Snapshots)
	ref := adapter.UserRef{Realm: "acme", UserID: "1"}
	changes(t, a, ref, 3, now)
	u, err := a.UserAt(t.Context(), ref, now.Add(time.Second))
	require.NoError(t, err)
	require.EqualValues(t, 2, u.Version)
}

func TestSnapshotProgress(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	a := openAt(t, &now)
	p := snapshotProgress{a.Leases}
	requirePosition := func(want eventstore.Position, shape string) {
		t.Helper()
		at, err := p.Position(ctx, shape)
		require.NoError(t, err)
		require.Equal(t, want, at)
	}
	requirePosition(0, "user/1")
	require.NoError(t, p.Hold(ctx, "user/1", func(ctx context.Context, from eventstore.Position, save snapshots.Save) error {
		require.Zero(t, from)
		require.NoError(t, save(ctx, 7))
		return p.Hold(ctx, "user/1", func(context.Context, eventstore.Position, snapshots.Save) error {
			return errors.New("two at a time")
		})
	}))
	requirePosition(7, "user/1")
	requirePosition(0, "user/2")
	_, err := a.Leases.Hold(ctx, snapshotsLease, "test", time.Minute, func(ctx context.Context, l *lease.Lease) error {
		return l.Save(ctx, "damaged")
	})
	require.NoError(t, err)
	requirePosition(0, "user/1")
}

type brokenSnapshots struct {
	eventstore.Snapshotter
	err error
}

func (b brokenSnapshots) Snapshot(context.Context, eventstore.StreamID, string, eventstore.Version) (eventstore.Snapshot, error) {
	return eventstore.Snapshot{}, b.err
}

func TestReadersDoWithoutSnapshots(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	ask := func(ctx context.Context, err error) error {
		_, got := tolerantSnapshots{brokenSnapshots{err: err}, log}.Snapshot(ctx, adapter.UserStream("acme", "1"), "user/1", 0)
		return got
	}
	require.ErrorIs(t, ask(t.Context(), eventstore.ErrNotFound), eventstore.ErrNotFound)
	require.Empty(t, out.String())
	require.ErrorIs(t, ask(t.Context(), errors.New("permission denied")), eventstore.ErrNotFound)
	require.Contains(t, out.String(), "permission denied")
	require.NotErrorIs(t, ask(t.Context(), eventstore.ErrClosed), eventstore.ErrNotFound)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NotErrorIs(t, ask(ended, context.Canceled), eventstore.ErrNotFound)
}
