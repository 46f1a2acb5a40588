package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// delivery is one inbound Keycloak event in its outside form.
type delivery struct {
	DeliveryID      uuid.UUID `json:"delivery_id"`
	EventID         uuid.UUID `json:"event_id"`
	KeycloakEventID string    `json:"keycloak_event_id"`
	CorrelationID   uuid.UUID `json:"correlation_id"`
	// EventType is how it was recorded, such as AdminEventReceived.
	EventType  string         `json:"event_type"`
	Realm      string         `json:"realm"`
	Source     string         `json:"source"`
	Dialect    string         `json:"dialect"`
	OccurredAt time.Time      `json:"occurred_at"`
	RecordedAt time.Time      `json:"recorded_at"`
	Actor      *adapter.Actor `json:"actor"`
	// Parked is the last time that it was parked, null where it is not parked, or no
	// longer.
	Parked *parked `json:"parked"`
	// Events are all events of the delivery's stream.
	Events []adapter.View `json:"events"`
}

type parked struct {
	At       time.Time `json:"at"`
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	// Behind is the event of the parked delivery that this one waits for.
	Behind *uuid.UUID `json:"behind,omitempty"`
}

// Retrier interprets parked deliveries again. *interpret.Interpreter is one.
type Retrier interface {
	Retry(ctx context.Context, deliveryID uuid.UUID) (released int, err error)
}

// retryDelivery is POST /deliveries/{id}/retry: 200 with the delivery once it is
// interpreted; those that waited behind it follow.
func (s *Server) retryDelivery(w http.ResponseWriter, r *http.Request) error {
	command, err := readRequest(w, r)
	if err != nil {
		return err
	}
	stream, err := s.deliveryStream(r.Context(), param(r, "id"))
	if err != nil {
		return err
	}
	_, err = s.Retry.Retry(r.Context(), stream.AggregateID())
	if adapter.CodeOf(err) == adapter.CodeNotParked && command.key != "" {
		if events, unread := s.Codec.ReadStream(r.Context(), s.Store, stream); unread == nil && released(events) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return s.answerDelivery(w, r, stream)
}

// deliveryOf folds a delivery's stream. It reports false where there is none.
func deliveryOf(events []adapter.Decoded) (delivery, bool) {
	if len(events) == 0 {
		return delivery{}, false
	}
	first := events[0]
	d := delivery{
		DeliveryID: first.Stream.AggregateID(), EventID: first.ID, CorrelationID: first.CorrelationID, EventType: first.Type,
		OccurredAt: first.OccurredAt.UTC(), RecordedAt: first.RecordedAt.UTC(), Actor: first.Meta.Actor,
		Events: make([]adapter.View, len(events)),
	}
	switch p := first.Payload.(type) {
	case *adapter.AdminEventReceived:
		d.KeycloakEventID, d.Realm, d.Source, d.Dialect = p.KeycloakEventID, p.Realm, p.Source, p.Dialect
	case *adapter.UserEventReceived:
		d.KeycloakEventID, d.Realm, d.Source, d.Dialect = p.KeycloakEventID, p.Realm, p.Source, p.Dialect
	case *adapter.UnrecognizedEventReceived:
		d.Realm, d.Source, d.Dialect = p.Realm, p.Source, p.Dialect
	}
	for i, e := range events {
		d.Events[i] = viewInUTC(e.View())
	}
	if parking, ok := adapter.ParkingOf(events); ok {
		if p, ok := parking.Payload.(*adapter.DeliveryParked); ok {
			d.Parked = &parked{At: parking.RecordedAt.UTC(), Error: p.Error, Attempts: p.Attempts, Behind: p.Behind}
		}
	}
	return d, true
}

// showDelivery is GET /deliveries/{id}: by delivery id or by Keycloak's event id.
func (s *Server) showDelivery(w http.ResponseWriter, r *http.Request) error {
	if err := queryOf(r).err(); err != nil {
		return err
	}
	stream, err := s.deliveryStream(r.Context(), param(r, "id"))
	if err != nil {
		return err
	}
	return s.answerDelivery(w, r, stream)
}

func (s *Server) answerDelivery(w http.ResponseWriter, r *http.Request, stream eventstore.StreamID) error {
	events, err := s.Codec.ReadStream(r.Context(), s.Store, stream)
	if err != nil {
		return err
	}
	d, ok := deliveryOf(events)
	if !ok {
		return adapter.Errorf(adapter.CodeNotFound, "there is no delivery %s", quoted(param(r, "id"))).
			WithTry("give the delivery_id that the webhook was answered, or Keycloak's event id")
	}
	return answer(w, http.StatusOK, d)
}

func (s *Server) deliveryStream(ctx context.Context, id string) (eventstore.StreamID, error) {
	if parsed, err := uuid.Parse(id); err == nil {
		stream, err := s.Store.Stream(ctx, parsed)
		switch {
		case err == nil && stream.Category() == adapter.CategoryDelivery:
			return stream, nil
		case err != nil && !errors.Is(err, eventstore.ErrNotFound):
			return stream, err
		}
	}
	return adapter.DeliveryStream(id), nil
}

// listParked is GET /deliveries/parked: what could not be interpreted and still was
// not, the last parked first.
func (s *Server) listParked(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	limit, cursor := q.page()
	before := eventstore.Position(cursorNumber(q, cursor, ""))
	if err := q.err(); err != nil {
		return err
	}
	items, next := []delivery{}, ""
	var last eventstore.Position
	for p, err := range s.Codec.Parked(r.Context(), s.Store, before) {
		if err != nil {
			return err
		}
		d, ok := deliveryOf(p.Events)
		if !ok {
			continue
		}
		if len(items) == limit {
			next = strconv.FormatInt(int64(last), 10)
			break
		}
		items, last = append(items, d), p.Parking.Position
	}
	return answer(w, http.StatusOK, pageOf(items, next))
}
