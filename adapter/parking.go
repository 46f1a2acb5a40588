package adapter

import (
	"context"
	"iter"

	"github.com/keytrail/keytrail/eventstore"
)

// ParkedDelivery is a delivery that could not be interpreted and still was not.
type ParkedDelivery struct {
	// Events are the delivery's, the first of which recorded it.
	Events []Decoded
	// Parking is the last time that it was parked.
	Parking Decoded
}

// Received is the event that recorded the delivery.
func (p ParkedDelivery) Received() Decoded { return p.Events[0] }

// Parked yields the deliveries that are parked still, the last parked first, from
// those parked below the position before (0: all). It ends at the first error.
func (c *Codec) Parked(ctx context.Context, r eventstore.Reader, before eventstore.Position) iter.Seq2[ParkedDelivery, error] {
	return func(yield func(ParkedDelivery, error) bool) {
		query := eventstore.LogQuery{Types: []string{TypeDeliveryParked}, Before: before, Backward: true}
		for e, err := range r.ReadLog(ctx, query) {
			if err != nil {
				yield(ParkedDelivery{}, err)
				return
			}
			events, err := c.ReadStream(ctx, r, e.Stream)
			if err != nil {
				yield(ParkedDelivery{}, err)
				return
			}
			parking, parked := ParkingOf(events)
			// A delivery that was parked again is told where it was parked last.
			if !parked || parking.ID != e.ID {
				continue
			}
			if !yield(ParkedDelivery{Events: events, Parking: parking}, nil) {
				return
			}
		}
	}
}

// ParkingOf returns the event that parked a delivery, and false where it is not
// parked, or no longer.
func ParkingOf(events []Decoded) (Decoded, bool) {
	var parking Decoded
	parked := false
	for _, e := range events {
		switch e.Type {
		case TypeDeliveryParked:
			parking, parked = e, true
		case TypeDeliveryReleased:
			parked = false
		}
	}
	return parking, parked
}

// DeliverySubject is the user that a delivery is about, as far as it says so itself.
func DeliverySubject(p Payload) (UserRef, bool) {
	switch p := p.(type) {
	case *AdminEventReceived:
		return p.Subject(), p.Realm != "" && p.UserID != ""
	case *UserEventReceived:
		return p.Subject(), p.Realm != "" && p.UserID != ""
	}
	return UserRef{}, false
}
