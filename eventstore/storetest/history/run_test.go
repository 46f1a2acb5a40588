package history

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/memory"
	"github.com/keytrail/keytrail/internal/suitetest"
)

// remoteEnv makes the test binary a process with a store in memory.
const remoteEnv = "KEYTRAIL_HISTORY_TEST_REMOTE"

func TestMain(m *testing.M) {
	if os.Getenv(remoteEnv) != "" {
		if err := Serve(os.Stdin, os.Stdout, memory.NewDatabase().Open(memory.Options{}), nil); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(suitetest.Main(m))
}

// chance is a coin that several goroutines may throw.
func chance(seed uint64, oneIn int) func() bool {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 0))
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(oneIn) == 0
	}
}

// inMemory is a plan for a store in memory that two processes share. The store is
// unavailable at times, before it has recorded what it was asked to or after; broken
// may do more to it.
func inMemory(seed uint64, broken func(s eventstore.Store, now func() bool) eventstore.Store) Plan {
	d := memory.NewDatabase()
	fails, breaks := chance(seed, 20), chance(seed+1, 8)
	open := func(context.Context) (eventstore.Store, error) {
		var s eventstore.Store = d.Open(memory.Options{Decide: func(context.Context, memory.Operation) (f memory.Fault) {
			if fails() {
				f.Err = eventstore.ErrUnavailable
			}
			return f
		}})
		if broken != nil {
			s = broken(s, breaks)
		}
		return s, nil
	}
	return Plan{
		Processes: map[string]Opener{"one": open, "two": open},
		Times:     3,
		Disturbances: func(p map[string]*Process) [][]Disturbance {
			return [][]Disturbance{{{Name: "restart", Do: func(ctx context.Context, _ *rand.Rand) error { return p["one"].Restart(ctx) }}}}
		},
	}
}

func TestAFaithfulStoreIsRight(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) Plan { return inMemory(rand.Uint64(), nil) })
}

// A breaker breaks a promise of the store that it wraps.
type breaker struct {
	eventstore.Store
	now func() bool

	append  func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error)
	head    func(b *breaker, ctx context.Context) (eventstore.Position, error)
	readLog func(b *breaker, ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error]
}

func (b *breaker) Append(ctx context.Context, parts ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	if b.append == nil {
		return b.Store.Append(ctx, parts...)
	}
	return b.append(b, ctx, parts)
}

func (b *breaker) Head(ctx context.Context) (eventstore.Position, error) {
	if b.head == nil {
		return b.Store.Head(ctx)
	}
	return b.head(b, ctx)
}

func (b *breaker) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	if b.readLog == nil {
		return b.Store.ReadLog(ctx, q)
	}
	return b.readLog(b, ctx, q)
}

// TestBrokenStoresAreFound: the clients make use of every promise, so that a store
// that breaks one is found.
func TestBrokenStoresAreFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breaker breaker
		fault   Fault
	}{
		"acknowledges without recording": {breaker{append: func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error) {
			if !b.now() {
				return b.Store.Append(ctx, parts...)
			}
			var out []eventstore.Event
			for _, p := range parts {
				for i, e := range p.Events {
					out = append(out, eventstore.Event{Position: eventstore.Position(i + 1), ID: e.ID, Stream: p.Stream, Version: eventstore.Version(i + 1)})
				}
			}
			return out, nil
		}}, LostAppend},
		"refuses what it records": {breaker{append: func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error) {
			events, err := b.Store.Append(ctx, parts...)
			if err == nil && b.now() {
				return nil, eventstore.ErrClosed
			}
			return events, err
		}}, PhantomAppend},
		"overlooks expectations": {breaker{append: func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error) {
			parts = slices.Clone(parts)
			if b.now() {
				parts[0].Expected = eventstore.ExpectAny()
			}
			return b.Store.Append(ctx, parts...)
		}}, BrokenExpectation},
		"appends streams one after the other": {breaker{append: func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error) {
			var out []eventstore.Event
			for _, p := range parts {
				events, err := b.Store.Append(ctx, p)
				if err != nil {
					return nil, err
				}
				out = append(out, events...)
			}
			return out, nil
		}}, TornAppend},
		"changes what it records": {breaker{append: func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error) {
			for i := range parts {
				for k := range parts[i].Events {
					parts[i].Events[k].Data = append(slices.Clone(parts[i].Events[k].Data), ' ')
				}
			}
			return b.Store.Append(ctx, parts...)
		}}, Altered},
		"tries again under other ids": {breaker{append: func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error) {
			events, err := b.Store.Append(ctx, parts...)
			if errors.Is(err, eventstore.ErrUnavailable) {
				again := slices.Clone(parts)
				for i := range again {
					again[i].Events = slices.Clone(again[i].Events)
					for k := range again[i].Events {
						again[i].Events[k].ID = eventstore.NewID()
					}
				}
				return b.Store.Append(ctx, again...)
			}
			return events, err
		}}, MadeUp},
		"lets its driver's errors through": {breaker{append: func(b *breaker, ctx context.Context, parts []eventstore.StreamAppend) ([]eventstore.Event, error) {
			if b.now() {
				return nil, errors.New("driver: bad connection")
			}
			return b.Store.Append(ctx, parts...)
		}}, NoContract},
		"reads a head that is past": {breaker{head: func(b *breaker, ctx context.Context) (eventstore.Position, error) {
			head, err := b.Store.Head(ctx)
			if err == nil && b.now() {
				head = max(0, head-20)
			}
			return head, err
		}}, StaleRead},
		"leaves events out": {breaker{readLog: func(b *breaker, ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
			return func(yield func(eventstore.Event, error) bool) {
				for e, err := range b.Store.ReadLog(ctx, q) {
					if err == nil && q.Before != 0 && e.Position%17 == 3 && b.now() {
						continue // to subscribers, who bound their reads
					}
					if !yield(e, err) {
						return
					}
				}
			}
		}}, DeliveryGap},
		"repeats events": {breaker{readLog: func(b *breaker, ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
			return func(yield func(eventstore.Event, error) bool) {
				for e, err := range b.Store.ReadLog(ctx, q) {
					if !yield(e, err) {
						return
					}
					if err == nil && q.Before != 0 && b.now() && !yield(e, nil) {
						return
					}
				}
			}
		}}, DeliveryRepeated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var found []Fault
			for seed := range uint64(10) {
				// Its error, that something was not reached in time, is not what is asked for.
				plan := inMemory(seed, func(s eventstore.Store, now func() bool) eventstore.Store {
					b := c.breaker
					b.Store, b.now = s, now
					return &b
				})
				plan.recovery = time.Second
				ops, _ := plan.round(t.Context(), seed)
				for _, a := range Check(ops) {
					found = append(found, a.Fault)
				}
				if slices.Contains(found, c.fault) || c.fault == StaleRead && slices.Contains(found, WentBack) {
					return
				}
			}
			t.Fatalf("%q was not found, only %q", c.fault, found)
		})
	}
}

func TestAFailedHistoryIsKept(t *testing.T) {
	t.Chdir(t.TempDir())
	path, err := keep("TestHistory/all", 7, right())
	require.NoError(t, err)
	require.True(t, filepath.IsAbs(path))
	require.Equal(t, "TestHistory-all-7.jsonl", filepath.Base(path))
	f, err := os.Open(path)
	require.NoError(t, err)
	ops, err := Read(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, right(), ops)
}

func startRemote(t *testing.T) *Remote {
	cmd := exec.Command(os.Args[0]) //nolint:noctx // lives as long as the store
	cmd.Env = append(os.Environ(), remoteEnv+"=1")
	r, err := StartRemote(t.Context(), cmd)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func TestRemoteIsAStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := startRemote(t)
	stream := eventstore.NamedStream("user", "acme", "a b")
	part := eventstore.StreamAppend{Stream: stream, Expected: eventstore.ExpectNone(), Events: []eventstore.NewEvent{{
		ID: eventstore.NewID(), Type: "A", Data: []byte(`{ "spaces" : 1 }`), Metadata: []byte(`{}`), CausationID: eventstore.NewID(),
		OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), RawBody: &eventstore.RawBody{ContentType: "text/plain", Bytes: []byte("raw")},
	}}}
	waited := make(chan eventstore.Position, 1)
	go func() {
		head, err := r.Wait(ctx, 0)
		if err != nil {
			head = -1
		}
		waited <- head
	}()
	events, err := r.Append(ctx, part)
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, stream, events[0].Stream)
	require.Equal(t, `{ "spaces" : 1 }`, string(events[0].Data))
	require.Equal(t, newPart(part).Events[0].Digest, newEvent(events[0]).Digest)
	require.EqualValues(t, 1, <-waited)

	for _, read := range []iter.Seq2[eventstore.Event, error]{r.ReadStream(ctx, stream, eventstore.StreamQuery{}), r.ReadLog(ctx, eventstore.LogQuery{})} {
		var got []eventstore.Event
		for e, err := range read {
			require.NoError(t, err)
			got = append(got, e)
		}
		require.Equal(t, events, got)
	}
	versions, err := r.Versions(ctx, stream)
	require.NoError(t, err)
	require.EqualValues(t, 1, versions[stream.AggregateID()])
	head, err := r.Head(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, head)
	found, err := r.Stream(ctx, stream.AggregateID())
	require.NoError(t, err)
	require.Equal(t, stream, found)
	body, err := r.RawBody(ctx, events[0].ID)
	require.NoError(t, err)
	require.Equal(t, *part.Events[0].RawBody, body)
	require.NoError(t, r.Ping(ctx))

	again := part
	again.Events = slices.Clone(part.Events)
	again.Events[0].ID = eventstore.NewID()
	_, err = r.Append(ctx, again)
	var conflict *eventstore.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, eventstore.ConflictError{Stream: stream, Actual: 1}, *conflict)
	again.Events[0].ID, again.Events[0].Type = part.Events[0].ID, "B"
	_, err = r.Append(ctx, again)
	require.ErrorIs(t, err, eventstore.ErrEventIDReused)
	_, err = r.RawBody(ctx, eventstore.NewID())
	require.ErrorIs(t, err, eventstore.ErrNotFound)
	require.ErrorContains(t, r.Control(ctx, "nothing"), `there is no "nothing"`)

	soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err = r.Wait(soon, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestRemoteIsUnavailableOnceKilled(t *testing.T) {
	t.Parallel()
	r := startRemote(t)
	waited := make(chan error, 1)
	go func() {
		_, err := r.Wait(t.Context(), 0)
		waited <- err
	}()
	_, err := r.Head(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.Kill())
	require.ErrorIs(t, <-waited, eventstore.ErrUnavailable)
	_, err = r.Head(t.Context())
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
}

func TestRemoteThatCannotStart(t *testing.T) {
	t.Parallel()
	_, err := StartRemote(t.Context(), exec.Command("false")) //nolint:noctx // ends at once
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
}
