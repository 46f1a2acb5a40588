package adapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
)

// UserShape names the form in which a user's state stands in a snapshot, and the fold
// that made it. It is to be raised when either changes: when User has other fields, and
// when the same events fold into another state. Snapshots of another shape are not
// looked at.
const UserShape = "user/3"

// UserUntil bounds what of a user's stream is folded. The zero value is all of it;
// conditions are combined with and.
type UserUntil struct {
	// Position is the last of the log that counts, 0 for any.
	Position eventstore.Position
	// At is the last moment at which an event may have occurred, KnownAt the last at which
	// it may have been recorded; a zero time does not limit.
	At, KnownAt time.Time
}

func (l UserUntil) sees(e eventstore.Event) bool {
	return (l.At.IsZero() || !e.OccurredAt.After(l.At)) && (l.KnownAt.IsZero() || !e.RecordedAt.After(l.KnownAt))
}

// LoadedUser is a user as folded from their stream.
type LoadedUser struct {
	User
	// Newest is the event of the highest version that is folded in.
	Newest eventstore.Event
}

// UnreadableEventError is an event that stands in the way of folding its stream.
type UnreadableEventError struct {
	Event eventstore.Event
	Err   error
}

func (e *UnreadableEventError) Error() string { return e.Err.Error() }
func (e *UnreadableEventError) Unwrap() error { return e.Err }

// LoadUser folds a user from their stream, and reports false where nothing is known by
// then. It gives the state that FoldUser gives for the same events, and where snapshots
// is not nil it begins with the newest snapshot that serves, so that only the events
// after it are read. A snapshot serves when the events after it also occurred after it;
// one that does not, because an event came late, is left aside like one that cannot be
// read, or of which a part is forgotten.
//
// Errors are those of the reader and of snapshots, and *UnreadableEventError.
func (c *Codec) LoadUser(
	ctx context.Context, log eventstore.Reader, snapshots eventstore.Snapshotter, ref UserRef, until UserUntil,
) (LoadedUser, bool, error) {
	h, err := c.history(ctx, log, snapshots, UserStream(ref.Realm, ref.UserID), until)
	if err != nil {
		return LoadedUser{}, false, fmt.Errorf("loading user %s of realm %s: %w", ref.UserID, ref.Realm, err)
	}
	u := h.base.User
	after := slices.Clone(h.after)
	SortForFold(after)
	for _, e := range after {
		u.Apply(e)
	}
	loaded := LoadedUser{User: u, Newest: h.newest}
	return loaded, u.Version > 0, nil
}

// userHistory is a user's stream, its beginning folded.
type userHistory struct {
	// base is the state of a snapshot, the zero value for none.
	base userState
	// after are the events that it does not hold, in the order of versions.
	after []Decoded
	// newest is the event of the highest version.
	newest eventstore.Event
	// taken is the version of the newest snapshot, whether or not it serves.
	taken eventstore.Version
}

// history reads a stream as far as until says. Every event of after follows the base.
func (c *Codec) history(
	ctx context.Context, log eventstore.Reader, snapshots eventstore.Snapshotter, stream eventstore.StreamID, until UserUntil,
) (userHistory, error) {
	var h userHistory
	// h.after holds everything from this version on, where it is not 0.
	var from eventstore.Version
	read := func(after eventstore.Version) error {
		older, err := c.readUser(ctx, log, stream, eventstore.StreamQuery{After: after, Before: from}, until)
		h.after, from = append(older, h.after...), after+1
		return err
	}
	var notAfter eventstore.Version
	for range eventstore.SnapshotsKept {
		if snapshots == nil || notAfter < 0 {
			break
		}
		s, err := snapshots.Snapshot(ctx, stream, UserShape, notAfter)
		if errors.Is(err, eventstore.ErrNotFound) {
			break
		}
		if err != nil {
			return h, err
		}
		h.taken = max(h.taken, s.Version)
		if notAfter = s.Version - 1; notAfter == 0 {
			notAfter = -1 // 0 would be any
		}
		base, err := c.openUser(ctx, s)
		if err != nil || !base.within(until) {
			continue
		}
		// The event of the snapshot's own version tells whether it is of this stream's past.
		if err := read(s.Version - 1); err != nil {
			return h, err
		}
		if len(h.after) == 0 || h.after[0].ID != base.Newest || h.after[0].Version != s.Version {
			continue
		}
		late := func(e Decoded) bool { return !base.Follows(e.Event) }
		if tail := h.after[1:]; !slices.ContainsFunc(tail, late) {
			h.base, h.newest, h.after = base, h.after[len(tail)].Event, tail
			return h, nil
		}
	}
	if from != 1 {
		if err := read(0); err != nil {
			return h, err
		}
	}
	if len(h.after) > 0 {
		h.newest = h.after[len(h.after)-1].Event
	}
	return h, nil
}

// readUser reads and decodes events of a user's stream, in the order of versions.
func (c *Codec) readUser(
	ctx context.Context, log eventstore.Reader, stream eventstore.StreamID, q eventstore.StreamQuery, until UserUntil,
) ([]Decoded, error) {
	var events []Decoded
	for e, err := range log.ReadStream(ctx, stream, q) {
		if err != nil {
			return nil, fmt.Errorf("reading stream %s: %w", stream, err)
		}
		if until.Position > 0 && e.Position > until.Position {
			break
		}
		if !until.sees(e) {
			continue
		}
		d, err := c.Decode(ctx, e)
		if err != nil {
			return nil, &UnreadableEventError{Event: e, Err: err}
		}
		events = append(events, d)
	}
	return events, nil
}

// UserSnapshot is what SnapshotUser found.
type UserSnapshot struct {
	// Version is that of the newest snapshot that serves, the one to save included, 0
	// where there is none. Last is the last event that it holds, in the order of the fold.
	Version eventstore.Version
	Last    Stamp
	// Save is the snapshot to save, nil where none is due.
	Save *eventstore.Snapshot
}

// SnapshotUser makes a snapshot of a user where one is due: where the newest that serves
// is at least the given number of events older than the one that could be taken, or none
// serves. It is taken at the newest version of which everything occurred by settled and
// that all later events follow, so that events which come late by less than the time
// since settled do not make it useless. An event that this program does not know ends it:
// a program that does would fold another state.
func (c *Codec) SnapshotUser(
	ctx context.Context, log eventstore.Reader, snapshots eventstore.Snapshotter, ref UserRef, events int, settled, now time.Time,
) (UserSnapshot, error) {
	stream := UserStream(ref.Realm, ref.UserID)
	h, err := c.history(ctx, log, snapshots, stream, UserUntil{})
	if err != nil {
		return UserSnapshot{}, fmt.Errorf("snapshot of user %s of realm %s: %w", ref.UserID, ref.Realm, err)
	}
	found := UserSnapshot{Version: h.base.Version, Last: h.base.Last}
	n := cut(h.after, settled)
	// One that is older than those that do not serve would be the first to be removed.
	if n < max(events, 1) || h.after[n-1].Version < h.taken {
		return found, nil
	}
	state := h.base
	held := slices.Clone(h.after[:n])
	newest := held[n-1]
	state.Newest, state.Position = newest.ID, newest.Position
	SortForFold(held)
	for _, e := range held {
		state.Apply(e)
		if e.RecordedAt.After(state.RecordedBy) {
			state.RecordedBy = e.RecordedAt
		}
	}
	raw, err := c.sealUser(ctx, stream, state)
	if err != nil {
		return found, fmt.Errorf("snapshot of user %s of realm %s: %w", ref.UserID, ref.Realm, err)
	}
	found.Version, found.Last = state.Version, state.Last
	found.Save = &eventstore.Snapshot{Stream: stream, Version: newest.Version, Shape: UserShape, State: raw, TakenAt: now}
	return found, nil
}

// cut returns how many of the events, in the order of versions, can be folded apart from
// the others: the most that occurred by settled, are known, and that all others follow.
func cut(events []Decoded, settled time.Time) int {
	// first[i] is the first, in the order of the fold, of the events from i on.
	first := make([]Stamp, len(events))
	for i, e := range slices.Backward(events) {
		first[i] = StampOf(e.Event)
		if i+1 < len(events) && first[i+1].Compare(first[i]) < 0 {
			first[i] = first[i+1]
		}
	}
	n := 0
	var last Stamp
	for i, e := range events {
		if s := StampOf(e.Event); i == 0 || s.Compare(last) > 0 {
			last = s
		}
		if last.At.After(settled) || e.Payload == nil {
			break
		}
		if i+1 == len(events) || first[i+1].Compare(last) > 0 {
			n = i + 1
		}
	}
	return n
}

// userState is what a snapshot holds of a user.
type userState struct {
	User
	// Newest is the event of the snapshot's version, and Position its place in the log.
	Newest   uuid.UUID
	Position eventstore.Position
	// RecordedBy is when the last of the events was recorded.
	RecordedBy time.Time
}

// within reports whether the state holds nothing that until leaves out.
func (s userState) within(until UserUntil) bool {
	return (until.Position == 0 || s.Position <= until.Position) &&
		(until.At.IsZero() || !s.Last.At.After(until.At)) &&
		(until.KnownAt.IsZero() || !s.RecordedBy.After(until.KnownAt))
}

// sealedUser is a userState as it is stored. What is personal passes the seal as it does
// in events: values of attributes under their group, the rest of the state under the
// profile's, both under the user's key, and each actor under the actor's own.
type sealedUser struct {
	User       User             `json:"user" seal:"profile"`
	Attributes sealedAttributes `json:"attributes" seal:"attributes"`
	// Actors are those whom the state names: CreatedBy is the place of one among them,
	// OriginBy of those of origins, by field.
	Actors    []json.RawMessage `json:"actors"`
	CreatedBy *int              `json:"created_by,omitempty"`
	OriginBy  map[string]int    `json:"origin_by,omitempty"`

	Newest     uuid.UUID           `json:"newest"`
	Position   eventstore.Position `json:"position"`
	RecordedBy time.Time           `json:"recorded_by"`
}

type sealedAttributes struct {
	Values map[string][]string `json:"values"`
	Rivals []json.RawMessage   `json:"rivals,omitempty"`
}

type sealedActor struct {
	Actor *Actor `json:"actor" seal:"actor"`
}

// sealUser makes the stored form of a state.
func (c *Codec) sealUser(ctx context.Context, stream eventstore.StreamID, s userState) (json.RawMessage, error) {
	person := personOfStream(stream)
	out := sealedUser{User: s.User, Newest: s.Newest, Position: s.Position, RecordedBy: s.RecordedBy}
	places := make(map[Actor]int)
	place := func(a *Actor) (int, error) {
		at, ok := places[*a]
		if ok {
			return at, nil
		}
		raw, err := seal.Marshal(ctx, c.forActor(a), person, sealedActor{a})
		if err != nil {
			return 0, err
		}
		out.Actors = append(out.Actors, raw)
		places[*a] = len(out.Actors) - 1
		return places[*a], nil
	}

	if a := s.CreatedBy; a != nil {
		at, err := place(a)
		if err != nil {
			return nil, err
		}
		out.User.CreatedBy, out.CreatedBy = nil, &at
	}
	out.User.Origins = maps.Clone(s.Origins)
	for _, field := range slices.Sorted(maps.Keys(s.Origins)) {
		origin := s.Origins[field]
		if origin.Actor != nil {
			at, err := place(origin.Actor)
			if err != nil {
				return nil, err
			}
			if out.OriginBy == nil {
				out.OriginBy = make(map[string]int)
			}
			out.OriginBy[field] = at
		}
		origin.Actor = nil
		if field == FieldAttributes {
			out.Attributes.Rivals, origin.Rivals = origin.Rivals, nil
		}
		out.User.Origins[field] = origin
	}
	out.Attributes.Values, out.User.Attributes = s.Attributes, nil
	return seal.Marshal(ctx, c.sealer, person, out)
}

// errForgotten says that a part of a snapshot was sealed with a key that is gone. The
// fold of the events tells what is left.
var errForgotten = errors.New("a part is forgotten")

// openUser is the inverse of sealUser. An error says that the snapshot cannot be used.
func (c *Codec) openUser(ctx context.Context, s eventstore.Snapshot) (userState, error) {
	var stored sealedUser
	forgotten, err := seal.Unmarshal(ctx, c.sealer, personOfStream(s.Stream), s.State, &stored)
	if err == nil && len(forgotten) > 0 {
		err = errForgotten
	}
	if err != nil {
		return userState{}, err
	}
	actors := make([]*Actor, len(stored.Actors))
	for i, raw := range stored.Actors {
		var a sealedActor
		// As of an event's metadata, the sealed value says under whose key it lies.
		forgotten, err := seal.Unmarshal(ctx, c.sealer, seal.Person{}, raw, &a)
		if err == nil && len(forgotten) > 0 {
			err = errForgotten
		}
		if err != nil {
			return userState{}, err
		}
		actors[i] = a.Actor
	}
	actor := func(at int) *Actor {
		if at < 0 || at >= len(actors) {
			err = fmt.Errorf("it names actor %d of %d", at, len(actors))
			return nil
		}
		return actors[at]
	}

	u := stored.User
	if stored.CreatedBy != nil {
		u.CreatedBy = actor(*stored.CreatedBy)
	}
	for field, at := range stored.OriginBy {
		origin := u.Origins[field]
		origin.Actor = actor(at)
		u.Origins[field] = origin
	}
	if origin, known := u.Origins[FieldAttributes]; known {
		origin.Rivals = stored.Attributes.Rivals
		u.Origins[FieldAttributes] = origin
	}
	u.Attributes = stored.Attributes.Values
	if err == nil && u.Version != s.Version {
		err = fmt.Errorf("it holds version %d of the state, and says %d", u.Version, s.Version)
	}
	return userState{User: u, Newest: stored.Newest, Position: stored.Position, RecordedBy: stored.RecordedBy}, err
}
