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
}

// listDeliveries is GET /deliveries: the newest, or with ?parked=true those parked.
func (s *Server) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	parked, err := yesOrNo(r, "parked")
	if err != nil {
		return err
	}
	before, err := position(r)
	if err != nil {
		return err
	}
	v := deliveriesView{Parked: parked != nil && *parked}
	v.Filters = []filter{
		{Label: "Newest", Path: "/deliveries", Current: !v.Parked},
		{Label: "Parked", Path: "/deliveries?parked=true", Current: v.Parked},
	}
	var next string
	if v.Parked {
		v.Deliveries, next, err = s.parkedPage(r.Context(), before)
	} else {
		var events []adapter.Decoded
		if events, next, err = s.logPage(r.Context(), eventstore.LogQuery{Types: receivedTypes, Before: before}); err == nil {
			for _, e := range events {
				v.Deliveries = append(v.Deliveries, rowOf([]adapter.Decoded{e}))
			}
		}
	}
	if err != nil {
		return err
	}
	v.Pager = pagerOf(r, next)
	return s.render(w, r, http.StatusOK, "deliveries", "deliveries", "Deliveries", v)
}

// rowOf makes a row of a delivery's events, of which the first is enough for one that is
// not parked.
func rowOf(events []adapter.Decoded) deliveryRow {
	line := describe(events[:1])[0]
	row := deliveryRow{
		Line: line, DeliveryID: events[0].Stream.AggregateID(), Receipt: receiptOf(line.Data), Realm: realmOf(line.Data),
	}
	if parking, ok := adapter.ParkingOf(events); ok {
		row.Parked, _ = parking.Payload.(*adapter.DeliveryParked)
	}
	return row
}

// parkedPage lists the deliveries that are parked still, the last parked first.
func (s *Server) parkedPage(ctx context.Context, before eventstore.Position) (rows []deliveryRow, next string, _ error) {
	var last eventstore.Position
	for parked, err := range s.Codec.Parked(ctx, s.Store, before) {
		if err != nil {
			return nil, "", err
		}
		if len(rows) == pageSize {
			return rows, strconv.FormatInt(int64(last), 10), nil
		}
		rows, last = append(rows, rowOf(parked.Events)), parked.Parking.Position
	}
	return rows, "", nil
}

type deliveryView struct {
	deliveryRow
	Events []eventRow
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
	v := deliveryView{deliveryRow: rowOf(events), Events: rowsOf(describe(events))}
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
	if _, err := s.Retry.Retry(r.Context(), id); err != nil {
		return err
	}
	http.Redirect(w, r, "/deliveries/"+id.String(), http.StatusSeeOther)
	return nil
}
