package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/internal/app"
)

type deliveriesCommand struct {
	Parked deliveriesParked `cmd:"" help:"List the deliveries that could not be interpreted."`
	Retry  deliveriesRetry  `cmd:"" help:"Interpret a parked delivery again, and those that wait behind it."`
}

type deliveriesParked struct {
	Limit int `help:"The most to list." default:"50"`
}

// parkedDelivery is one line of the list.
type parkedDelivery struct {
	DeliveryID      uuid.UUID  `json:"delivery_id"`
	KeycloakEventID string     `json:"keycloak_event_id"`
	Realm           string     `json:"realm"`
	UserID          string     `json:"user_id"`
	Error           string     `json:"error"`
	Attempts        int        `json:"attempts"`
	Behind          *uuid.UUID `json:"behind,omitempty"`
}

func (c *deliveriesParked) Run(ctx context.Context, s *session) error {
	if err := checkLimit(c.Limit); err != nil {
		return err
	}
	return s.read(ctx, func(a *app.App) error {
		var parked []parkedDelivery
		for p, err := range a.Codec.Parked(ctx, a.Store, 0) {
			if err != nil {
				return err
			}
			if len(parked) == c.Limit {
				break
			}
			parked = append(parked, parkedLine(p))
		}
		if s.json {
			return s.printJSON(listOf(parked, ""))
		}
		if len(parked) == 0 {
			_, err := fmt.Fprintln(s.stdout, "No delivery is parked.")
			return err
		}
		w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "DELIVERY\tREALM\tUSER\tTRIES\tWHY")
		for _, p := range parked {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", p.DeliveryID, p.Realm, p.UserID, p.Attempts, p.Error)
		}
		return w.Flush()
	})
}

func parkedLine(p adapter.ParkedDelivery) parkedDelivery {
	line := parkedDelivery{DeliveryID: p.Parking.Stream.AggregateID()}
	if ref, ok := adapter.DeliverySubject(p.Received().Payload); ok {
		line.Realm, line.UserID = ref.Realm, ref.UserID
	}
	switch e := p.Received().Payload.(type) {
	case *adapter.AdminEventReceived:
		line.KeycloakEventID = e.KeycloakEventID
	case *adapter.UserEventReceived:
		line.KeycloakEventID = e.KeycloakEventID
	}
	if why, ok := p.Parking.Payload.(*adapter.DeliveryParked); ok {
		line.Error, line.Attempts, line.Behind = why.Error, why.Attempts, why.Behind
	}
	return line
}

type deliveriesRetry struct {
	ID string `arg:"" help:"The delivery, as deliveries parked names it, or Keycloak's event id."`
}

func (c *deliveriesRetry) Run(ctx context.Context, s *session) (err error) {
	a, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	// Keycloak's event id will do as well: a delivery's own id follows from it.
	id, err := uuid.Parse(c.ID)
	if err == nil {
		_, err = a.Store.Stream(ctx, id)
	}
	if err != nil {
		id = adapter.DeliveryStream(c.ID).AggregateID()
	}
	released, err := a.Interpreter.Retry(ctx, id)
	if adapter.CodeOf(err) == adapter.CodeNotFound {
		return adapter.Errorf(adapter.CodeNotFound, "there is no delivery %s", plain(c.ID)).WithTry("keytrail deliveries parked")
	}
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]int{"released": released})
	}
	_, err = fmt.Fprintf(s.stdout, "Interpreted %s.\n", count(released, "delivery", "deliveries"))
	return err
}
