package interpret

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// parking knows which users have a parked delivery. It follows the log from where it
// left off: parkings are rare, and so is reading about them.
type parking struct {
	mu   sync.Mutex
	seen eventstore.Position
	// users holds, for each user, the parked deliveries by their event's id.
	users map[adapter.UserRef]map[uuid.UUID]adapter.Decoded
}

// ahead returns the parked delivery that d has to wait for.
func (p *parking) ahead(d adapter.Decoded) (adapter.Decoded, bool) {
	first, ok := p.first(d)
	return first, ok && first.Position < d.Position
}

// holds reports whether d is parked itself.
func (p *parking) holds(d adapter.Decoded) bool {
	ref, ok := adapter.DeliverySubject(d.Payload)
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, parked := p.users[ref][d.ID]
	return parked
}

func (p *parking) add(d adapter.Decoded) {
	ref, ok := adapter.DeliverySubject(d.Payload)
	if !ok {
		return
	}
	if p.users == nil {
		p.users = make(map[adapter.UserRef]map[uuid.UUID]adapter.Decoded)
	}
	if p.users[ref] == nil {
		p.users[ref] = make(map[uuid.UUID]adapter.Decoded)
	}
	p.users[ref][d.ID] = d
}

func (p *parking) remove(d adapter.Decoded) {
	ref, ok := adapter.DeliverySubject(d.Payload)
	if !ok {
		return
	}
	delete(p.users[ref], d.ID)
	if len(p.users[ref]) == 0 {
		delete(p.users, ref)
	}
}

// learnParked reads what was parked and released since the last time, also by other
// processes.
func (i *Interpreter) learnParked(ctx context.Context) error {
	i.parking.mu.Lock()
	defer i.parking.mu.Unlock()
	query := eventstore.LogQuery{After: i.parking.seen, Types: []string{adapter.TypeDeliveryParked, adapter.TypeDeliveryReleased}}
	for e, err := range i.Store.ReadLog(ctx, query) {
		if err != nil {
			return fmt.Errorf("reading which deliveries are parked: %w", err)
		}
		events, err := i.readDelivery(ctx, e.Stream)
		if err != nil {
			return err
		}
		if _, parked := adapter.ParkingOf(events); parked {
			i.parking.add(events[0])
		} else {
			i.parking.remove(events[0])
		}
		i.parking.seen = e.Position
	}
	return nil
}

// park records that a delivery is parked.
func (i *Interpreter) park(ctx context.Context, d adapter.Decoded, why *adapter.DeliveryParked) error {
	events, err := i.readDelivery(ctx, d.Stream)
	if err != nil {
		return err
	}
	i.Logger.ErrorContext(ctx, "delivery parked", "delivery_id", d.Stream.AggregateID(), "event_id", d.ID, "error", why.Error)
	err = i.onDelivery(ctx, d, events, why)
	if err != nil {
		return err
	}
	i.parking.mu.Lock()
	defer i.parking.mu.Unlock()
	i.parking.add(events[0])
	return nil
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
	if why, _ := parked.Payload.(*adapter.DeliveryParked); why != nil && why.Behind != nil {
		if first, waits := i.parking.first(events[0]); waits {
			return 0, adapter.Errorf(adapter.CodeWaitsBehind, "delivery %s waits behind delivery %s", deliveryID, first.Stream.AggregateID()).
				WithTry("keytrail deliveries retry %s", first.Stream.AggregateID())
		}
	}
	for {
		if err := i.release(ctx, events); err != nil {
			return released, err
		}
		released++
		next, waits := i.parking.first(events[0])
		if !waits {
			return released, nil
		}
		if events, err = i.readDelivery(ctx, next.Stream); err != nil {
			return released, err
		}
		// One that failed by itself is for a person to retry, and those behind it wait on.
		parked, ok := adapter.ParkingOf(events)
		if why, _ := parked.Payload.(*adapter.DeliveryParked); !ok || why == nil || why.Behind == nil {
			return released, nil
		}
	}
}

// release interprets one parked delivery and records that it did, or why not.
func (i *Interpreter) release(ctx context.Context, events []adapter.Decoded) error {
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
	if err := i.onDelivery(ctx, d, events, &adapter.DeliveryReleased{Attempts: before + attempts}); err != nil {
		return err
	}
	i.parking.mu.Lock()
	defer i.parking.mu.Unlock()
	i.parking.remove(d)
	return nil
}

// first is the oldest parked delivery about the same user as d, other than d itself.
func (p *parking) first(d adapter.Decoded) (adapter.Decoded, bool) {
	ref, ok := adapter.DeliverySubject(d.Payload)
	if !ok {
		return adapter.Decoded{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	others := make([]adapter.Decoded, 0, len(p.users[ref]))
	for id, other := range p.users[ref] {
		if id != d.ID {
			others = append(others, other)
		}
	}
	if len(others) == 0 {
		return adapter.Decoded{}, false
	}
	return slices.MinFunc(others, func(a, b adapter.Decoded) int { return int(a.Position - b.Position) }), true
}
