package snapshots_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/snapshots"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/seal"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// store is an event store that keeps snapshots.
type store interface {
	eventstore.Store
	eventstore.Snapshotter
}

// world is a store, its clock, and a taker whose turns the test asks for.
type world struct {
	store
	codec *adapter.Codec
	taker *snapshots.Taker
	log   *strings.Builder

	mu       sync.Mutex
	now      time.Time
	outcomes map[snapshots.Outcome]int
	// fails is what saving a snapshot answers.
	fails error

	position eventstore.Position
	saves    int
	turns    chan struct{}
	rested   chan struct{}
	// stop ends the taker.
	stop func()
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) SaveSnapshot(ctx context.Context, s eventstore.Snapshot) error {
	if w.fails != nil {
		return w.fails
	}
	return w.store.SaveSnapshot(ctx, s)
}

// Position implements snapshots.Progress.
func (w *world) Position(context.Context, string) (eventstore.Position, error) {
	return w.position, nil
}

// Hold implements snapshots.Progress.
func (w *world) Hold(ctx context.Context, _ string, f func(context.Context, eventstore.Position, snapshots.Save) error) error {
	return f(ctx, w.position, func(_ context.Context, p eventstore.Position) error {
		w.position = p
		w.saves++
		return nil
	})
}

func newWorld(t *testing.T, after int) *world {
	w := &world{
		codec: adapter.NewCodec(seal.Plain{}), now: start, outcomes: map[snapshots.Outcome]int{}, log: &strings.Builder{},
		turns: make(chan struct{}), rested: make(chan struct{}),
	}
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{Clock: w.clock, Logger: slog.New(slog.NewTextHandler(w.log, nil))})
	require.NoError(t, err)
	w.store = s
	w.begin(t, after)
	t.Cleanup(func() {
		w.stop()
		require.NoError(t, s.Close())
	})
	return w
}

// begin starts a taker in the place of the one before, as a process does that is started
// again.
func (w *world) begin(t *testing.T, after int) {
	if w.stop != nil {
		w.stop()
	}
	w.taker = &snapshots.Taker{
		Store: w.store, Snapshots: w, Codec: w.codec, After: after, Progress: w, Clock: w.clock,
		Logger:  slog.New(slog.NewTextHandler(w.log, nil)),
		Observe: func(o snapshots.Outcome) { w.outcomes[o]++ },
		Woken: func(ctx context.Context) error {
			select {
			case w.rested <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case <-w.turns:
			case <-ctx.Done():
			}
			return ctx.Err()
		},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.taker.Run(ctx) }()
	<-w.rested
	w.stop = func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

// turn lets the taker go through the log once.
func (w *world) turn() {
	w.turns <- struct{}{}
	<-w.rested
}

// change records so many changes of a user, a second apart, that occurred so long ago.
func (w *world) change(t *testing.T, id string, n int, ago time.Duration) {
	ref := adapter.UserRef{Realm: "acme", UserID: id}
	for range n {
		w.pass(time.Second)
		e, err := w.codec.Encode(t.Context(), adapter.Draft{
			Payload: &adapter.UserApiUpdated{UserChange: adapter.UserChange{
				UserRef: ref, Set: adapter.Profile{FirstName: adapter.Set(w.clock().String())},
			}},
			OccurredAt: w.clock().Add(-ago), Meta: adapter.Metadata{CorrelationID: eventstore.NewID()},
		})
		require.NoError(t, err)
		_, err = w.Append(t.Context(), eventstore.StreamAppend{Stream: adapter.UserStream("acme", id), Events: []eventstore.NewEvent{e}})
		require.NoError(t, err)
	}
}

// newest is the version of the newest snapshot of a user, 0 for none.
func (w *world) newest(t *testing.T, id string) int {
	s, err := w.Snapshot(t.Context(), adapter.UserStream("acme", id), adapter.UserShape, 0)
	if errors.Is(err, eventstore.ErrNotFound) {
		return 0
	}
	require.NoError(t, err)
	return int(s.Version)
}

func (w *world) requireFolds(t *testing.T, id string) {
	t.Helper()
	ref := adapter.UserRef{Realm: "acme", UserID: id}
	events, err := w.codec.ReadStream(t.Context(), w.store, adapter.UserStream("acme", id))
	require.NoError(t, err)
	want, _ := adapter.FoldUser(events)
	got, _, err := w.codec.LoadUser(t.Context(), w.store, w, ref, adapter.UserUntil{})
	require.NoError(t, err)
	wanted, err := json.Marshal(want)
	require.NoError(t, err)
	found, err := json.Marshal(got.User)
	require.NoError(t, err)
	require.JSONEq(t, string(wanted), string(found))
}

func TestSnapshotsAreTakenOfLongStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10)
	w.change(t, "long", 25, 0)
	w.change(t, "short", 9, 0)
	w.turn()
	require.Zero(t, w.newest(t, "long"), "nothing has settled")
	require.Zero(t, w.saves, "and nothing was written")

	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 25, w.newest(t, "long"))
	require.Zero(t, w.newest(t, "short"))
	require.EqualValues(t, 34, w.position)

	w.change(t, "long", 9, 0)
	w.change(t, "short", 1, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 25, w.newest(t, "long"), "not yet again")
	require.Equal(t, 10, w.newest(t, "short"))
	w.change(t, "long", 1, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 35, w.newest(t, "long"))
	require.Equal(t, map[snapshots.Outcome]int{snapshots.Saved: 3}, w.outcomes)

	// Another process, or this one started again, knows no more than the store.
	w.begin(t, 10)
	w.change(t, "long", 9, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 35, w.newest(t, "long"))
	w.change(t, "long", 1, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 45, w.newest(t, "long"))
	saves := w.saves
	w.turn()
	require.Equal(t, saves, w.saves, "nothing new, nothing written")

	// Where the progress is lost all is gone through again, and what is missing is taken.
	_, err := w.store.(interface{ WriteDB() *sql.DB }).WriteDB().ExecContext(t.Context(), `DELETE FROM api_snapshots WHERE version < 45`)
	require.NoError(t, err)
	w.position = 0
	w.turn()
	require.EqualValues(t, 55, w.position)
	require.Equal(t, 45, w.newest(t, "long"))
	require.Equal(t, 10, w.newest(t, "short"))
}

func TestWhatComesLateMakesANewSnapshotDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10)
	w.change(t, "1", 20, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 20, w.newest(t, "1"))

	w.change(t, "1", 1, 2*time.Minute)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 20, w.newest(t, "1"), "as late as is allowed for")
	w.requireFolds(t, "1")
	w.change(t, "1", 1, time.Hour)
	w.requireFolds(t, "1")
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 22, w.newest(t, "1"))
	w.requireFolds(t, "1")
}

func TestAnEventOfTheFutureIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10)
	w.change(t, "1", 12, 0)
	w.change(t, "1", 1, -1000*time.Hour)
	w.change(t, "1", 30, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 12, w.newest(t, "1"))
	w.requireFolds(t, "1")
	w.change(t, "1", 10, 0)
	w.pass(1000*time.Hour + snapshots.Lateness)
	w.change(t, "1", 31, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 84, w.newest(t, "1"))
	w.requireFolds(t, "1")
}

func TestFailuresEndNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10)
	w.change(t, "1", 20, 0)
	w.change(t, "2", 20, 0)
	w.pass(snapshots.Lateness)
	w.fails = fmt.Errorf("no: %w", eventstore.ErrUnavailable)
	w.turn()
	require.Zero(t, w.position, "it is tried again")
	require.Equal(t, map[snapshots.Outcome]int{snapshots.Failed: 1}, w.outcomes)
	require.Contains(t, w.log.String(), "taking snapshots failed")

	w.fails = errors.New("not this one")
	w.turn()
	require.EqualValues(t, 40, w.position, "no snapshot is worth a standstill")
	require.Equal(t, 3, w.outcomes[snapshots.Failed])
	require.Contains(t, w.log.String(), "snapshot not taken")

	w.fails = nil
	w.change(t, "1", 10, 0)
	w.pass(snapshots.Lateness)
	w.turn()
	require.Equal(t, 30, w.newest(t, "1"))
	require.NotContains(t, w.log.String(), "+0000 UTC", "no value of a user is logged")
}

// BenchmarkLoadUser loads a user with 10,000 events from a store, folding all of them and
// by way of a snapshot that is as old as they become.
func BenchmarkLoadUser(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) store{
		"sqlite": func(b *testing.B) store {
			path := filepath.Join(b.TempDir(), "keytrail.db")
			require.NoError(b, sqlite.Migrate(b.Context(), path))
			s, err := sqlite.Open(b.Context(), path, sqlite.Options{})
			require.NoError(b, err)
			return s
		},
		"postgres": func(b *testing.B) store {
			url := dbtest.Postgres(b)
			require.NoError(b, postgres.Migrate(b.Context(), url))
			s, err := postgres.Open(b.Context(), url, postgres.Options{})
			require.NoError(b, err)
			return s
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b)
			defer func() { require.NoError(b, s.Close()) }()
			benchmarkLoadUser(b, s)
		})
	}
}

func benchmarkLoadUser(b *testing.B, s store) {
	const events, after = 10_000, 200
	ctx := b.Context()
	codec := adapter.NewCodec(seal.Plain{})
	ref := adapter.UserRef{Realm: "acme", UserID: "1"}
	stream := adapter.UserStream(ref.Realm, ref.UserID)
	add := func(from, n int) {
		var batch []eventstore.NewEvent
		for i := range n {
			e, err := codec.Encode(ctx, adapter.Draft{
				Payload: &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: ref, Set: adapter.Profile{
					FirstName: adapter.Set(fmt.Sprint("Bob ", from+i)), Email: adapter.Set("bob@example.com"),
					Attributes: adapter.Set(map[string][]string{"department": {"operations"}, "cost_center": {fmt.Sprint(i % 7)}}),
				}}},
				OccurredAt: start.Add(time.Duration(from+i) * time.Minute),
				Meta: adapter.Metadata{
					CorrelationID: eventstore.NewID(),
					Actor:         &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "9", Username: "root", IP: "192.0.2.7"},
				},
			})
			require.NoError(b, err)
			batch = append(batch, e)
		}
		_, err := s.Append(ctx, eventstore.StreamAppend{Stream: stream, Events: batch})
		require.NoError(b, err)
	}
	for from := 0; from < events-after; from += 100 {
		add(from, 100)
	}
	found, err := codec.SnapshotUser(ctx, s, s, ref, after, start.AddDate(1, 0, 0), start)
	require.NoError(b, err)
	require.NoError(b, s.SaveSnapshot(ctx, *found.Save))
	add(events-after, after)

	load := func(n int, from eventstore.Snapshotter) time.Duration {
		began := time.Now()
		for range n {
			u, _, err := codec.LoadUser(ctx, s, from, ref, adapter.UserUntil{})
			require.NoError(b, err)
			require.EqualValues(b, events, u.Version)
		}
		return time.Since(began) / time.Duration(n)
	}
	load(1, nil)
	load(1, s)
	var full, short time.Duration
	n := 0
	for b.Loop() { // in turns, so that both meet the same machine
		full += load(1, nil)
		short += load(10, s)
		n++
	}
	b.ReportMetric(float64(full.Microseconds())/float64(n)/1000, "ms/full")
	b.ReportMetric(float64(short.Microseconds())/float64(n)/1000, "ms/snapshot")
	b.ReportMetric(float64(full)/float64(short), "ratio")
}
