// Package interpret turns recorded deliveries into events on the users' own streams,
// and recognises the echoes of our own calls.
//
// It is a consumer of the log. What it derives has deterministic ids, so that
// reading a delivery again, after a crash or in a second process, appends nothing
// new. The traps of Keycloak's events are handled here: an event's type does not
// say what happened without its path, and its representation is what was asked
// for, not what is.
package interpret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Version is the interpreter's version, in the metadata of every event that it
// derives. It rises when the same delivery would be read differently.
const Version = 3

// consumer is the name under which ids are derived. It is part of every derived id
// and can't be changed.
const consumer = "interpret"

// Store is what the interpreter needs of the event store.
type Store interface {
	eventstore.Appender
	eventstore.Reader
}

// Interpreter is safe for concurrent use, also by several processes on one store.
type Interpreter struct {
	Store  Store
	Codec  *adapter.Codec
	Clock  func() time.Time
	Logger *slog.Logger

	parking parking
	calls   callIndex
	beliefs beliefs
}

// Name identifies the consumer and its checkpoint.
func (*Interpreter) Name() string { return consumer }

// Types are the event types that it reads. A release is among them because what waited
// behind the delivery is due then, and whoever released it may have died.
func (*Interpreter) Types() []string {
	return []string{
		adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived, adapter.TypeDeliveryConfirmed, adapter.TypeDeliveryReleased,
	}
}

// Category is the streams' that it reads.
func (*Interpreter) Category() string { return adapter.CategoryDelivery }

// Handle interprets a batch of deliveries in order. A delivery that cannot be
// interpreted is parked with its reason, and later ones about the same user behind
// it; those of others go on. An error means that the store could not be used, and the
// batch may be handled again.
func (i *Interpreter) Handle(ctx context.Context, batch []adapter.Decoded) error {
	if err := i.learnParked(ctx); err != nil {
		return err
	}
	for _, e := range batch {
		d, readable, err := i.delivery(ctx, e)
		if err == nil && readable {
			err = i.handle(ctx, d)
		}
		if err != nil {
			return fmt.Errorf("interpreting delivery %s: %w", e.ID, err)
		}
	}
	if err := i.releaseOrphaned(ctx); err != nil {
		return fmt.Errorf("releasing deliveries that wait for nothing: %w", err)
	}
	return nil
}

func (i *Interpreter) handle(ctx context.Context, d adapter.Decoded) error {
	if d.Type == adapter.TypeDeliveryReleased {
		return nil // what it sets free is released after the batch
	}
	if i.parking.holds(d) {
		return nil // read again after a crash; it waits for a person
	}
	if _, behind := i.parking.ahead(d); behind {
		// Somebody may have released it since the batch began.
		if err := i.learnParked(ctx); err != nil {
			return err
		}
	}
	if first, behind := i.parking.ahead(d); behind {
		return i.park(ctx, d, &adapter.DeliveryParked{
			Error: "waits behind delivery " + first.stream.AggregateID().String() + ", which is parked", Behind: &first.eventID,
		})
	}
	attempts, err := i.try(ctx, d)
	if err == nil || isStoreFault(err) {
		return err
	}
	return i.park(ctx, d, &adapter.DeliveryParked{Error: err.Error(), Attempts: attempts})
}

// Most failures are in the delivery and stay; some, such as an event that another
// process is just writing, pass. The pauses bound the wait to 150 ms.
const (
	maxAttempts  = 5
	attemptPause = 10 * time.Millisecond
)

// try interprets a delivery, at most five times.
func (i *Interpreter) try(ctx context.Context, d adapter.Decoded) (attempts int, err error) {
	for pause := attemptPause; ; pause *= 2 {
		attempts++
		if err = i.interpret(ctx, d); err == nil || isStoreFault(err) || attempts == maxAttempts {
			return attempts, err
		}
		select {
		case <-ctx.Done():
			return attempts, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func isStoreFault(err error) bool {
	return errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, eventstore.ErrClosed) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (i *Interpreter) interpret(ctx context.Context, d adapter.Decoded) error {
	change, err := i.read(ctx, d)
	if err != nil {
		return err
	}
	echo, ok, err := i.findCall(ctx, d)
	if err != nil {
		return err
	}
	if ok {
		return i.recordEcho(ctx, d, echo, change)
	}
	changes, err := i.withRequiredAction(ctx, d, change)
	if err != nil || len(changes) == 0 {
		return err
	}
	e, err := i.userEvents(ctx, d, changes, d.CorrelationID, d.ID, nil)
	if err != nil {
		return err
	}
	return i.append(ctx, e)
}

// withRequiredAction is the change, and with it or beside it that the user has done a
// required action, where that was believed to be one. Which are left follows from what is
// believed, and is read.
func (i *Interpreter) withRequiredAction(ctx context.Context, d adapter.Decoded, change adapter.UserPayload) ([]adapter.UserPayload, error) {
	var changes []adapter.UserPayload
	if change != nil {
		changes = append(changes, change)
	}
	p, ok := d.Payload.(*adapter.UserEventReceived)
	if !ok || p.Realm == "" || p.UserID == "" {
		return changes, nil
	}
	action := requiredActionOf(p)
	if action == "" {
		return changes, nil
	}
	events, err := i.Codec.ReadStream(ctx, i.Store, adapter.UserStream(p.Realm, p.UserID))
	if err != nil {
		return nil, err
	}
	// What this delivery has told before a crash is no reason not to tell it again.
	events = slices.DeleteFunc(events, func(e adapter.Decoded) bool { return e.CausationID == d.ID })
	u, _ := adapter.FoldUser(events)
	left := slices.DeleteFunc(slices.Clone(u.RequiredActions), func(a string) bool { return a == action })
	if len(left) == len(u.RequiredActions) {
		return changes, nil
	}
	update, ok := change.(*adapter.UserApiUpdated)
	if !ok {
		update = &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: adapter.UserRef{Realm: p.Realm, UserID: p.UserID}, Via: "account"}}
		changes = append(changes, update)
	}
	update.Set.RequiredActions = adapter.Set(left)
	update.Inferred = append(update.Inferred, adapter.FieldRequiredActions)
	update.Unfolded = "the user has done the required action " + action + ", and the event does not tell which are left"
	return changes, nil
}

// read says what a delivery means for a user, nil where it means nothing.
func (i *Interpreter) read(ctx context.Context, d adapter.Decoded) (adapter.UserPayload, error) {
	switch p := d.Payload.(type) {
	case *adapter.AdminEventReceived:
		change, err := adminChange(p)
		if err != nil || change == nil {
			return nil, err
		}
		return i.nameChange(ctx, change)
	case *adapter.UserEventReceived:
		change := userChange(p)
		if told, err := i.passwordTold(ctx, d, change); err != nil || told {
			return nil, err
		}
		return change, nil
	default:
		return nil, nil
	}
}

// samePassword is how far apart the two events may be that Keycloak emits for one
// change of a password by the user, UPDATE_PASSWORD and UPDATE_CREDENTIAL (measured on
// 26.7.3: in the same millisecond or the next).
const samePassword = time.Second

// passwordTold reports that the change is the second of two events about one new
// password.
func (i *Interpreter) passwordTold(ctx context.Context, d adapter.Decoded, change adapter.UserPayload) (bool, error) {
	c, ok := change.(*adapter.UserApiCredentialsChanged)
	if !ok || c.Action != actionPasswordUpdated {
		return false, nil
	}
	var told, sure bool
	err := i.believe(ctx, c.UserRef, func(b *belief) { told, sure = b.told(d) })
	if err != nil || sure {
		return told, err
	}
	events, err := i.Codec.ReadStream(ctx, i.Store, adapter.UserStream(c.Realm, c.UserID))
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(events, func(e adapter.Decoded) bool {
		earlier, ok := passwordChangeOf(e)
		return ok && earlier.same(d)
	}), nil
}

// nameChange decides whether an update is told as such, or as the user's enabling or
// disabling: that is what it is where the switch is all that was sent, or where it
// turns over what is believed. What else the same request set goes with it.
func (i *Interpreter) nameChange(ctx context.Context, change adapter.UserPayload) (adapter.UserPayload, error) {
	update, ok := change.(*adapter.UserApiUpdated)
	if !ok || !update.Set.Enabled.Present() {
		return change, nil
	}
	enabled, _ := update.Set.Enabled.Get()
	flips := len(update.Set.Fields()) == 1
	if !flips {
		if err := i.believe(ctx, update.UserRef, func(b *belief) { flips = b.known && b.enabled != enabled }); err != nil {
			return nil, err
		}
	}
	switch {
	case !flips:
		return update, nil
	case enabled:
		return &adapter.UserApiEnabled{UserChange: update.UserChange}, nil
	default:
		return &adapter.UserApiDisabled{UserChange: update.UserChange}, nil
	}
}

// userEvents makes the append of the user events that follow from a delivery.
func (i *Interpreter) userEvents(ctx context.Context, d adapter.Decoded, changes []adapter.UserPayload, correlation, causation uuid.UUID, call *uuid.UUID) (eventstore.StreamAppend, error) {
	meta := i.meta(d, correlation, causation)
	meta.CallID = call
	events := make([]eventstore.NewEvent, len(changes))
	for n, change := range changes {
		e, err := i.Codec.Encode(ctx, adapter.Draft{
			ID: eventstore.DerivedID(d.ID, d.OccurredAt, consumer, n), Payload: change, OccurredAt: d.OccurredAt, Meta: meta,
		})
		if err != nil {
			return eventstore.StreamAppend{}, err
		}
		events[n] = e
	}
	ref := changes[0].User()
	// Any version will do: the fold goes by (time, event id), and the derived id keeps
	// a repeat from being a second event.
	return eventstore.StreamAppend{Stream: adapter.UserStream(ref.Realm, ref.UserID), Events: events}, nil
}

func (i *Interpreter) meta(d adapter.Decoded, correlation, causation uuid.UUID) adapter.Metadata {
	return adapter.Metadata{
		Interpreter: Version, CorrelationID: correlation, CausationID: &causation,
		Actor: d.Meta.Actor, Reason: d.Meta.Reason, Source: d.Meta.Source, Traceparent: d.Meta.Traceparent,
	}
}

// append writes derived events. An id that is used already with other content means
// that another process derived it first, from another belief: its reading stands.
func (i *Interpreter) append(ctx context.Context, appends ...eventstore.StreamAppend) error {
	_, err := i.Store.Append(ctx, appends...)
	if errors.Is(err, eventstore.ErrEventIDReused) {
		i.Logger.DebugContext(ctx, "delivery was interpreted already", "stream", appends[0].Stream.String())
		return nil
	}
	return err
}
