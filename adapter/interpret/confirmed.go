package interpret

import (
	"context"
	"encoding/json"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// delivery is the delivery that an event makes readable: the one that it records or,
// for a confirmation that names the realm, the one that it confirms. It reports false
// for other confirmations: what they add is about the actor.
//
// Keycloak's own listeners may name a realm by its UUID alone (AdminEvent.java), whose
// name is not known while Keycloak can't be asked. Such a delivery says nothing of any
// user until another sighting names the realm.
func (i *Interpreter) delivery(ctx context.Context, e adapter.Decoded) (adapter.Decoded, bool, error) {
	c, ok := e.Payload.(*adapter.DeliveryConfirmed)
	if !ok {
		return e, true, nil
	}
	if realmAdded(c) == "" {
		return adapter.Decoded{}, false, nil
	}
	events, err := i.readDelivery(ctx, e.Stream)
	if err != nil || len(events) == 0 {
		return adapter.Decoded{}, false, err
	}
	return events[0], true, nil
}

// readDelivery reads a delivery's stream. Its first event has the realm that a later
// sighting has named.
func (i *Interpreter) readDelivery(ctx context.Context, stream eventstore.StreamID) ([]adapter.Decoded, error) {
	events, err := i.Codec.ReadStream(ctx, i.Store, stream)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if c, ok := e.Payload.(*adapter.DeliveryConfirmed); ok {
			if realm := realmAdded(c); realm != "" {
				nameRealm(events[0].Payload, realm)
				break
			}
		}
	}
	return events, nil
}

func realmAdded(c *adapter.DeliveryConfirmed) string {
	var realm string
	// Whatever is no string names no realm.
	if json.Unmarshal(c.Added["realm"], &realm) != nil {
		return ""
	}
	return realm
}

func nameRealm(p adapter.Payload, realm string) {
	switch p := p.(type) {
	case *adapter.AdminEventReceived:
		if p.Realm == "" {
			p.Realm = realm
		}
	case *adapter.UserEventReceived:
		if p.Realm == "" {
			p.Realm = realm
		}
	}
}
