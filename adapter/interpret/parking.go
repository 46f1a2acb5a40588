package interpret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// parking knows which users have parked deliveries. It learns of them from the log
// alone, from where it left off, because other processes park and release too.
//
// A delivery that waits does so behind an earlier one of its user that is parked. Two
// processes keep to that without a lock, because each looks into the log again after
// what it has appended: whoever parks a delivery sees whether the one before it was
// released meanwhile, and whoever releases one sees what was parked behind it. Of the
// two appends one is the later, and the process that made it sees the other. Where a
// process dies in between, the release itself wakes the interpreter.
type parking struct {
	mu   sync.Mutex
	seen eventstore.Position
	// queues holds each user's parked deliveries in the order in which they arrived.
	queues map[adapter.UserRef][]parkedDelivery
}

// parkedDelivery is a parked delivery's place in its user's queue.
type parkedDelivery struct {
	stream eventstore.StreamID
	// position is that of the event that recorded it.
	position eventstore.Position
	eventID  uuid.UUID
	// waits is true where it was not tried, since another comes first.
	waits bool
}

func byPosition(p parkedDelivery, at eventstore.Position) int { return cmp.Compare(p.position, at) }

// first is the user's oldest parked delivery.
func (p *parking) first(ref adapter.UserRef) (parkedDelivery, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queues[ref]) == 0 {
		return parkedDelivery{}, false
	}
	return p.queues[ref][0], true
}

// ahead returns the parked delivery that d has to wait for.
func (p *parking) ahead(d adapter.Decoded) (parkedDelivery, bool) {
	ref, ok := adapter.DeliverySubject(d.Payload)
	if !ok {
		return parkedDelivery{}, false
	}
	first, ok := p.first(ref)
	return first, ok && first.position < d.Position
}

// holds reports whether d is parked itself.
func (p *parking) holds(d adapter.Decoded) bool {
	ref, ok := adapter.DeliverySubject(d.Payload)
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, parked := slices.BinarySearchFunc(p.queues[ref], d.Position, byPosition)
	return parked
}

// orphaned returns the users whose oldest parked delivery waits, and so for nothing.
func (p *parking) orphaned() []adapter.UserRef {
	p.mu.Lock()
	defer p.mu.Unlock()
	var refs []adapter.UserRef
	for ref, queue := range p.queues {
		if queue[0].waits {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b adapter.UserRef) int {
		return cmp.Compare(p.queues[a][0].position, p.queues[b][0].position)
	})
	return refs
}

// update puts a delivery where its events say that it belongs.
func (p *parking) update(events []adapter.Decoded) {
	d := events[0]
	ref, ok := adapter.DeliverySubject(d.Payload)
	if !ok {
		return // nobody waits behind it
	}
	queue := p.queues[ref]
	at, known := slices.BinarySearchFunc(queue, d.Position, byPosition)
	last, parked := adapter.ParkingOf(events)
	switch {
	case parked && known:
		queue[at].waits = waits(last)
	case parked:
		queue = slices.Insert(queue, at, parkedDelivery{stream: d.Stream, position: d.Position, eventID: d.ID, waits: waits(last)})
	case known:
		queue = slices.Delete(queue, at, at+1)
	}
	if len(queue) == 0 {
		delete(p.queues, ref)
		return
	}
	if p.queues == nil {
		p.queues = make(map[adapter.UserRef][]parkedDelivery)
	}
	p.queues[ref] = queue
}

// waits reports whether the event parked a delivery because another comes first.
func waits(parking adapter.Decoded) bool {
	why, ok := parking.Payload.(*adapter.DeliveryParked)
	return ok && why.Behind != nil
}

// learnParked reads what was parked and released since the last time, also by other
// processes.
func (i *Interpreter) learnParked(ctx context.Context) error {
	i.parking.mu.Lock()
	defer i.parking.mu.Unlock()
	head, err := i.Store.Head(ctx)
	if err != nil {
		return fmt.Errorf("reading which deliveries are parked: %w", err)
	}
	if head <= i.parking.seen {
		return nil
	}
	var streams []eventstore.StreamID
	known := make(map[uuid.UUID]bool)
	query := eventstore.LogQuery{
		After: i.parking.seen, Before: head + 1, Types: []string{adapter.TypeDeliveryParked, adapter.TypeDeliveryReleased},
	}
	for e, err := range i.Store.ReadLog(ctx, query) {
		if err != nil {
			return fmt.Errorf("reading which deliveries are parked: %w", err)
		}
		if id := e.Stream.AggregateID(); !known[id] {
			known[id] = true
			streams = append(streams, e.Stream)
		}
	}
	for _, stream := range streams {
		events, err := i.readDelivery(ctx, stream)
		if err != nil {
			return err
		}
		i.parking.update(events)
	}
	i.parking.seen = head
	return nil
}

// park records that a delivery is parked, unless another process has parked it
// already, or parked and released it.
func (i *Interpreter) park(ctx context.Context, d adapter.Decoded, why *adapter.DeliveryParked) error {
	for {
		events, err := i.readDelivery(ctx, d.Stream)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(events, func(e adapter.Decoded) bool {
			return e.Type == adapter.TypeDeliveryParked || e.Type == adapter.TypeDeliveryReleased
		}) {
			break
		}
		err = i.onDelivery(ctx, d, events, why)
		if isConflict(err, d.Stream) {
			continue // each is an event more on a stream that ends
		}
		if err != nil {
			return err
		}
		i.Logger.ErrorContext(ctx, "delivery parked", "delivery_id", d.Stream.AggregateID(), "event_id", d.ID, "error", why.Error)
		break
	}
	return i.learnParked(ctx)
}

func isConflict(err error, stream eventstore.StreamID) bool {
	var conflict *eventstore.ConflictError
	return errors.As(err, &conflict) && conflict.Stream == stream
}

// onDelivery appends to a delivery's own stream. The id is derived from how far the
// stream had come, so that two processes that park the same delivery at once append
// one event.
func (i *Interpreter) onDelivery(ctx context.Context, d adapter.Decoded, events []adapter.Decoded, p adapter.Payload) error {
	e, err := i.Codec.Encode(ctx, adapter.Draft{
		ID:      eventstore.DerivedID(d.ID, d.OccurredAt, consumer+"."+p.EventType(), len(events)),
		Payload: p, OccurredAt: i.Clock(), Meta: i.meta(d, d.CorrelationID, d.ID),
	})
	if err != nil {
		return err
	}
	return i.append(ctx, eventstore.StreamAppend{
		Stream: d.Stream, Expected: eventstore.ExpectVersion(events[len(events)-1].Version), Events: []eventstore.NewEvent{e},
	})
}

// Retry interprets a parked delivery again and, where that succeeds, those that wait
// behind it, in order. It returns how many were released.
//
// Errors are *adapter.Error: code not_found where there is no such delivery,
// not_parked where it is not parked, waits_behind where another comes first, and
// still_parked where it fails again.
func (i *Interpreter) Retry(ctx context.Context, deliveryID uuid.UUID) (released int, err error) {
	stream, err := i.Store.Stream(ctx, deliveryID)
	if errors.Is(err, eventstore.ErrNotFound) || (err == nil && stream.Category() != adapter.CategoryDelivery) {
		return 0, adapter.Errorf(adapter.CodeNotFound, "there is no delivery %s", deliveryID).
			WithTry("keytrail deliveries parked")
	}
	if err != nil {
		return 0, err
	}
	events, err := i.readDelivery(ctx, stream)
	if err != nil {
		return 0, err
	}
	parked, ok := adapter.ParkingOf(events)
	if !ok {
		return 0, adapter.Errorf(adapter.CodeNotParked, "delivery %s is not parked", deliveryID)
	}
	if err := i.learnParked(ctx); err != nil {
		return 0, err
	}
	if first, behind := i.parking.ahead(events[0]); behind && waits(parked) {
		return 0, adapter.Errorf(adapter.CodeWaitsBehind, "delivery %s waits behind delivery %s", deliveryID, first.stream.AggregateID()).
			WithTry("keytrail deliveries retry %s", first.stream.AggregateID())
	}
	if err := i.release(ctx, stream); err != nil {
		return 0, err
	}
	released = 1
	if ref, ok := adapter.DeliverySubject(events[0].Payload); ok {
		followed, err := i.releaseWaiting(ctx, ref)
		return released + followed, err
	}
	return released, nil
}

// releaseWaiting releases a user's oldest parked deliveries for as long as they only
// wait: one that failed by itself is for a person to retry, and those behind it wait on.
func (i *Interpreter) releaseWaiting(ctx context.Context, ref adapter.UserRef) (released int, err error) {
	for {
		if err := i.learnParked(ctx); err != nil {
			return released, err
		}
		first, parked := i.parking.first(ref)
		if !parked || !first.waits {
			return released, nil
		}
		if err := i.release(ctx, first.stream); err != nil {
			return released, err
		}
		released++
	}
}

// releaseOrphaned releases what waits for nothing: another process released the one
// before it at the same time, or died before it came to this one.
func (i *Interpreter) releaseOrphaned(ctx context.Context) error {
	if err := i.learnParked(ctx); err != nil {
		return err
	}
	for _, ref := range i.parking.orphaned() {
		released, err := i.releaseWaiting(ctx, ref)
		if released > 0 {
			i.Logger.InfoContext(ctx, "deliveries that waited for nothing released", "realm", ref.Realm, "user_id", ref.UserID, "count", released)
		}
		switch {
		case adapter.CodeOf(err) == adapter.CodeStillParked:
			// It failed by itself, and is first now.
			i.Logger.ErrorContext(ctx, "delivery parked", "realm", ref.Realm, "user_id", ref.UserID, "error", err)
		case err != nil:
			return err
		}
	}
	return nil
}

// release interprets one parked delivery and records that it did, or why not. It does
// nothing where another process was faster.
func (i *Interpreter) release(ctx context.Context, stream eventstore.StreamID) error {
	for {
		events, err := i.readDelivery(ctx, stream)
		if err != nil {
			return err
		}
		if _, parked := adapter.ParkingOf(events); !parked {
			return nil
		}
		if err = i.releaseAt(ctx, events); !isConflict(err, stream) {
			return err
		}
		// Each conflict is an event more on a stream that ends.
	}
}

func (i *Interpreter) releaseAt(ctx context.Context, events []adapter.Decoded) error {
	d := events[0]
	before := 0
	for _, e := range events {
		if p, ok := e.Payload.(*adapter.DeliveryParked); ok {
			before += p.Attempts
		}
	}
	attempts, err := i.try(ctx, d)
	switch {
	case isStoreFault(err):
		return err
	case err != nil:
		if parkErr := i.onDelivery(ctx, d, events, &adapter.DeliveryParked{Error: err.Error(), Attempts: attempts}); parkErr != nil {
			return parkErr
		}
		return adapter.Errorf(adapter.CodeStillParked, "delivery %s cannot be interpreted: %w", d.Stream.AggregateID(), err).
			WithTry("keytrail trace %s shows it whole; a newer keytrail may know how to read it", d.Stream.AggregateID())
	}
	return i.onDelivery(ctx, d, events, &adapter.DeliveryReleased{Attempts: before + attempts})
}
