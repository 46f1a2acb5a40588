package interpret

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// beliefs remembers, of the users that deliveries were about of late, the little that
// the reading of a delivery depends on, so that each of a user's events is read for it
// once and not with every delivery. Nothing depends on what is remembered: a belief is
// brought up to date from the stream whenever it is asked for, and one that was dropped
// is made anew. The zero value is ready, and safe for concurrent use.
type beliefs struct {
	mu     sync.Mutex
	byUser map[adapter.UserRef]*list.Element
	// recent holds the beliefs, the last used first.
	recent list.List
}

// maxBeliefs bounds the users that are remembered: a few hundred bytes each. A user
// beyond it costs one reading of their stream when the next delivery about them comes.
const maxBeliefs = 10_000

// belief is what one user's stream says, in whatever order its events have come.
type belief struct {
	ref adapter.UserRef
	// version is how far the stream was read.
	version eventstore.Version

	// enabled is what the last event says that says whether the user is enabled, where
	// known, and decided that event's place.
	enabled, known bool
	decided        adapter.Stamp

	// passwords are the newest changes of the password, in the order in which they
	// occurred, and dropped when the newest of the others did.
	passwords []passwordChange
	dropped   time.Time
}

// passwordChange is one event about a new password.
type passwordChange struct {
	at time.Time
	// delivery is the event of the delivery that told of it.
	delivery uuid.UUID
}

// maxPasswords bounds the changes of a password that are remembered of a user.
const maxPasswords = 16

// believe shows what is believed of a user now. The belief must not be kept.
func (i *Interpreter) believe(ctx context.Context, ref adapter.UserRef, show func(*belief)) error {
	x := &i.beliefs
	x.mu.Lock()
	defer x.mu.Unlock()
	b := x.use(ref)
	stream := adapter.UserStream(ref.Realm, ref.UserID)
	for e, err := range i.Store.ReadStream(ctx, stream, eventstore.StreamQuery{After: b.version}) {
		if err != nil {
			return fmt.Errorf("reading stream %s: %w", stream, err)
		}
		d, err := i.Codec.Decode(ctx, e)
		if err != nil {
			return err
		}
		b.add(d)
	}
	show(b)
	return nil
}

// use returns the belief about a user and drops the one that was not used longest.
func (x *beliefs) use(ref adapter.UserRef) *belief {
	if at, ok := x.byUser[ref]; ok {
		x.recent.MoveToFront(at)
		return at.Value.(*belief)
	}
	if x.byUser == nil {
		x.byUser = make(map[adapter.UserRef]*list.Element)
	}
	b := &belief{ref: ref}
	x.byUser[ref] = x.recent.PushFront(b)
	if len(x.byUser) > maxBeliefs {
		last := x.recent.Remove(x.recent.Back()).(*belief)
		delete(x.byUser, last.ref)
	}
	return b
}

// add takes in the next event of the user's stream.
func (b *belief) add(e adapter.Decoded) {
	b.version = e.Version
	// Whether a user is enabled is a matter of one event: the last in the order of the
	// fold that says it, or a creation, which forgets what was before. So each event is
	// folded by itself, and one that comes late needs no folding anew.
	var alone adapter.User
	alone.Apply(e)
	_, created := e.Payload.(*adapter.UserApiCreated)
	if stamp := adapter.StampOf(e.Event); (created || alone.Known(adapter.FieldEnabled)) && stamp.Compare(b.decided) > 0 {
		b.enabled, b.known, b.decided = alone.Enabled, alone.Known(adapter.FieldEnabled), stamp
	}
	if change, ok := passwordChangeOf(e); ok {
		at, _ := slices.BinarySearchFunc(b.passwords, change, func(a, b passwordChange) int { return a.at.Compare(b.at) })
		b.passwords = slices.Insert(b.passwords, at, change)
		if len(b.passwords) > maxPasswords {
			b.dropped = latest(b.dropped, b.passwords[0].at)
			b.passwords = slices.Delete(b.passwords, 0, 1)
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// told reports whether another delivery has told of the new password that d tells of.
// It is not sure where the answer lies among the changes that were dropped.
func (b *belief) told(d adapter.Decoded) (told, sure bool) {
	if slices.ContainsFunc(b.passwords, func(c passwordChange) bool { return c.same(d) }) {
		return true, true
	}
	return false, b.dropped.IsZero() || d.OccurredAt.Sub(b.dropped) > samePassword
}

func passwordChangeOf(e adapter.Decoded) (passwordChange, bool) {
	p, ok := e.Payload.(*adapter.UserApiCredentialsChanged)
	return passwordChange{at: e.OccurredAt, delivery: e.CausationID}, ok && p.Action == actionPasswordUpdated
}

// same reports whether another delivery tells of the same change as d.
func (c passwordChange) same(d adapter.Decoded) bool {
	return c.at.Sub(d.OccurredAt).Abs() <= samePassword && c.delivery != d.ID
}
