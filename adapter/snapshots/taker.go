// Package snapshots takes snapshots of the users whose streams have grown long, so that
// their state can be loaded without reading every event. It follows the log at a
// distance, after the appends and never in their way, and nothing waits for it: where no
// snapshot was taken, or none serves, the stream is folded.
package snapshots

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Taker takes snapshots. Of any number of processes that run one on a store one works at
// a time; two that overlap do no harm.
type Taker struct {
	Store     eventstore.Reader
	Snapshots eventstore.Snapshotter
	Codec     *adapter.Codec
	// After is by how many events a user's stream grows until its next snapshot, 1 or
	// more.
	After    int
	Progress Progress
	// Woken returns after a while.
	Woken  func(ctx context.Context) error
	Clock  func() time.Time
	Logger *slog.Logger
	// Observe is told of each snapshot that was saved, and of each that failed. It may be
	// nil.
	Observe func(outcome Outcome)

	// users are those whose streams are long enough. Only Run uses it.
	users map[eventstore.StreamID]user
}

// Progress remembers how far the log was gone through.
type Progress interface {
	// Position is the last of the log that was gone through for this shape, 0 at first.
	Position(ctx context.Context, shape string) (eventstore.Position, error)
	// Hold runs f with that position unless another process holds it now. save remembers
	// another.
	Hold(ctx context.Context, shape string, f func(ctx context.Context, from eventstore.Position, save Save) error) error
}

// Save remembers how far the log was gone through.
type Save func(ctx context.Context, position eventstore.Position) error

// Outcome says what became of a snapshot.
type Outcome string

// The outcomes.
const (
	Saved  Outcome = "saved"
	Failed Outcome = "failed"
)

// Lateness is how long after its time an event may come in without making a snapshot
// useless: several polls and retries of a webhook. Events are left alone until they are
// as old.
const Lateness = 15 * time.Minute

const (
	// batch is how many events are gone through between two notes of the progress.
	batch = 10_000
	// maxUsers bounds the users that are remembered: a few hundred bytes each. Forgetting
	// them costs a look at the snapshot of each that gets another event.
	maxUsers = 10_000
)

// user is what is remembered of a user's snapshots.
type user struct {
	// version is that of the newest snapshot, 0 for none, and last the last event that it
	// holds.
	version eventstore.Version
	last    adapter.Stamp
	// next is the version at which the next is due.
	next eventstore.Version
}

// Run takes snapshots until the context ends. Failures are logged and end nothing.
func (t *Taker) Run(ctx context.Context) error {
	t.users = make(map[eventstore.StreamID]user)
	for ctx.Err() == nil {
		if err := t.turn(ctx); err != nil && ctx.Err() == nil {
			t.Logger.WarnContext(ctx, "taking snapshots failed", "error", err)
		}
		if err := t.Woken(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// turn goes through what has settled since the last.
func (t *Taker) turn(ctx context.Context) error {
	from, err := t.Progress.Position(ctx, adapter.UserShape)
	if err != nil {
		return err
	}
	// Where there is nothing to do nothing is written.
	_, reached, err := t.read(ctx, from, 1)
	if err != nil || reached == from {
		return err
	}
	return t.Progress.Hold(ctx, adapter.UserShape, func(ctx context.Context, from eventstore.Position, save Save) error {
		if from == 0 {
			clear(t.users) // somebody wants all to be looked at again
		}
		for ctx.Err() == nil {
			due, reached, err := t.read(ctx, from, batch)
			if err != nil || reached == from {
				return err
			}
			for _, e := range due {
				if err := t.take(ctx, e.Stream, e.Version); err != nil {
					return err
				}
			}
			if err := save(ctx, reached); err != nil {
				return err
			}
			from = reached
		}
		return ctx.Err()
	})
}

// read goes through the user events after a position that have settled, and returns the
// first of each stream with which a snapshot may be due, and how far it got.
func (t *Taker) read(ctx context.Context, from eventstore.Position, limit int) ([]eventstore.Event, eventstore.Position, error) {
	settled := t.Clock().Add(-Lateness)
	var due []eventstore.Event
	listed := make(map[eventstore.StreamID]bool)
	for e, err := range t.Store.ReadLog(ctx, eventstore.LogQuery{After: from, Category: adapter.CategoryUser, Limit: limit}) {
		if err != nil {
			return nil, from, fmt.Errorf("reading the log: %w", err)
		}
		if e.RecordedAt.After(settled) {
			break
		}
		from = e.Position
		if !listed[e.Stream] && t.due(e) {
			due, listed[e.Stream] = append(due, e), true
		}
	}
	return due, from, nil
}

// due reports whether a snapshot may be due with an event: the stream has grown by
// enough, or the event came late and made the newest useless.
func (t *Taker) due(e eventstore.Event) bool {
	if int(e.Version) < t.After {
		return false
	}
	u, known := t.users[e.Stream]
	late := e.Version > u.version && adapter.StampOf(e).Compare(u.last) <= 0
	return !known || e.Version >= u.next || late
}

// take takes a snapshot where one is due, and remembers when to look again. It returns
// an error where the next would fail as well.
func (t *Taker) take(ctx context.Context, stream eventstore.StreamID, seen eventstore.Version) error {
	found, err := t.save(ctx, stream)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, eventstore.ErrClosed):
		t.observe(Failed)
		return err
	}
	u := user{version: found.Version, last: found.Last, next: found.Version + eventstore.Version(t.After)}
	if err != nil {
		t.observe(Failed)
		t.Logger.WarnContext(ctx, "snapshot not taken", "stream", stream.String(), "error", err)
	}
	if u.next <= seen {
		// What stands in its way, such as an event of the future, may do so for long.
		u.next = seen + eventstore.Version(t.After)
	}
	if len(t.users) >= maxUsers {
		clear(t.users)
	}
	t.users[stream] = u
	return nil
}

func (t *Taker) save(ctx context.Context, stream eventstore.StreamID) (adapter.UserSnapshot, error) {
	realm, id, err := adapter.UserOfStream(stream)
	if err != nil {
		return adapter.UserSnapshot{}, err
	}
	now := t.Clock()
	found, err := t.Codec.SnapshotUser(ctx, t.Store, t.Snapshots, adapter.UserRef{Realm: realm, UserID: id}, t.After, now.Add(-Lateness), now)
	if err != nil || found.Save == nil {
		return found, err
	}
	if err := t.Snapshots.SaveSnapshot(ctx, *found.Save); err != nil {
		return adapter.UserSnapshot{}, err
	}
	t.observe(Saved)
	t.Logger.DebugContext(ctx, "snapshot taken", "stream", stream.String(), "version", int(found.Version))
	return found, nil
}

func (t *Taker) observe(o Outcome) {
	if t.Observe != nil {
		t.Observe(o)
	}
}
