package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/eventstore"
)

// receivedTypes are the events that begin a delivery.
var receivedTypes = []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived, adapter.TypeUnrecognizedEventReceived}

// receiptOf tells how a delivery's event reached us.
func receiptOf(data any) adapter.Receipt {
	switch p := data.(type) {
	case *adapter.AdminEventReceived:
		return p.Receipt
	case *adapter.UserEventReceived:
		return p.Receipt
	case *adapter.UnrecognizedEventReceived:
		return p.Receipt
	case *adapter.DeliveryConfirmed:
		return p.Receipt
	}
	return adapter.Receipt{}
}

func realmOf(data any) string {
	switch p := data.(type) {
	case *adapter.AdminEventReceived:
		return p.Realm
	case *adapter.UserEventReceived:
		return p.Realm
	case *adapter.UnrecognizedEventReceived:
		return p.Realm
	}
	return ""
}

type deliveryRow struct {
	trace.Line
	DeliveryID uuid.UUID
	Receipt    adapter.Receipt
	Realm      string
	// Parked is why it is parked, nil where it is not.
	Parked *adapter.DeliveryParked
}

type deliveriesView struct {
	Deliveries []deliveryRow
	Filters    []filter
	Parked     bool
	Pager      pager
	CanRetry   bool
}

// listDeliveries is GET /deliveries: the newest, or with ?parked=true those parked.
func (s *Server) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	parked, err := flag(r, "parked")
	if err != nil {
		return err
	}
	before, err := position(r)
	if err != nil {
		return err
	}
	v := deliveriesView{Parked: parked != nil && *parked, CanRetry: s.RetryDelivery != nil}
	v.Filters = []filter{
		{Label: "Newest", Path: "/deliveries", Current: !v.Parked},
		{Label: "Parked", Path: "/deliveries?parked=true", Current: v.Parked},
	}
	next := ""
	if v.Parked {
		v.Deliveries, next, err = s.parkedPage(r.Context(), before)
	} else {
		var events []adapter.Decoded
		if events, next, err = s.logPage(r.Context(), eventstore.LogQuery{Types: receivedTypes, Before: before}); err == nil {
			for _, e := range events {
				v.Deliveries = append(v.Deliveries, rowOf(e, nil))
			}
		}
	}
	if err != nil {
		return err
	}
	v.Pager = pagerOf(r, next)
	return s.render(w, r, http.StatusOK, "deliveries", "deliveries", "Deliveries", v)
}

func rowOf(first adapter.Decoded, parked *adapter.DeliveryParked) deliveryRow {
	line := describe([]adapter.Decoded{first})[0]
	return deliveryRow{
		Line: line, DeliveryID: first.Stream.AggregateID(), Receipt: receiptOf(line.Data), Realm: realmOf(line.Data), Parked: parked,
	}
}

// parkedPage lists the deliveries that are parked still, the last parked first.
func (s *Server) parkedPage(ctx context.Context, before eventstore.Position) (rows []deliveryRow, next string, _ error) {
	var last eventstore.Position
	query := eventstore.LogQuery{Types: []string{adapter.TypeDeliveryParked}, Before: before, Backward: true}
	for e, err := range s.Store.ReadLog(ctx, query) {
		if err != nil {
			return nil, "", err
		}
		events, err := s.Codec.ReadStream(ctx, s.Store, e.Stream)
		if err != nil {
			return nil, "", err
		}
		parked, err := s.parked(ctx, events)
		if err != nil {
			return nil, "", err
		}
		if parked == nil || parked.Version != e.Version {
			continue
		}
		if len(rows) == pageSize {
			return rows, strconv.FormatInt(int64(last), 10), nil
		}
		why, _ := parked.Payload.(*adapter.DeliveryParked)
		rows, last = append(rows, rowOf(events[0], why)), e.Position
	}
	return rows, "", nil
}

// parked returns the parking that is the last word about a delivery, nil where it is
// not parked: it never was, or was interpreted since.
func (s *Server) parked(ctx context.Context, events []adapter.Decoded) (*adapter.Decoded, error) {
	var last *adapter.Decoded
	for i := range events {
		if events[i].Type == adapter.TypeDeliveryParked {
			last = &events[i]
		}
	}
	if last == nil {
		return nil, nil
	}
	for e, err := range s.Store.ReadLog(ctx, eventstore.LogQuery{CausationID: events[0].ID, After: last.Position}) {
		if err != nil {
			return nil, err
		}
		if e.Stream != last.Stream { // a second sighting is no interpretation
			return nil, nil
		}
	}
	return last, nil
}

type deliveryView struct {
	deliveryRow
	Events   []eventRow
	CanRetry bool
	// ParkedAt belongs to Parked.
	ParkedEvent *adapter.Decoded
	// Effects are what followed from it.
	Effects []trace.Line
}

// deliveryEffects is how many of a delivery's effects its page shows.
const deliveryEffects = 20

// showDelivery is GET /deliveries/{id}: by delivery id or by Keycloak's event id. Of
// the raw body it shows the digest only: the parsed form is what was sealed and
// freed from secrets.
func (s *Server) showDelivery(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	id := param(r, "id")
	stream, err := s.deliveryStream(ctx, id)
	if err != nil {
		return err
	}
	events, err := s.Codec.ReadStream(ctx, s.Store, stream)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return adapter.Errorf(adapter.CodeNotFound, "there is no delivery %s", quoted(id)).
			WithTry("give the delivery_id that the webhook was answered, or Keycloak's event id")
	}
	parked, err := s.parked(ctx, events)
	if err != nil {
		return err
	}
	v := deliveryView{Events: rowsOf(describe(events)), ParkedEvent: parked, CanRetry: s.RetryDelivery != nil}
	var why *adapter.DeliveryParked
	if parked != nil {
		why, _ = parked.Payload.(*adapter.DeliveryParked)
	}
	v.deliveryRow = rowOf(events[0], why)
	effects, err := s.newest(ctx, eventstore.LogQuery{CausationID: events[0].ID, Limit: deliveryEffects})
	if err != nil {
		return err
	}
	for _, line := range describe(effects) {
		if line.Stream != stream.String() {
			v.Effects = append(v.Effects, line)
		}
	}
	return s.render(w, r, http.StatusOK, "delivery", "deliveries", "Delivery", v)
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

// retryDelivery is POST /deliveries/{id}/retry.
func (s *Server) retryDelivery(w http.ResponseWriter, r *http.Request) error {
	id, err := uuid.Parse(param(r, "id"))
	if err != nil {
		return adapter.Errorf(adapter.CodeInvalidRequest, "a delivery's id is a UUID")
	}
	if s.RetryDelivery == nil {
		return adapter.Errorf(adapter.CodeNotBuilt, "trying a delivery again is not offered here")
	}
	if err := s.RetryDelivery(r.Context(), id); err != nil {
		return err
	}
	http.Redirect(w, r, "/deliveries/"+id.String(), http.StatusSeeOther)
	return nil
}
