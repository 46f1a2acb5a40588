package inbound

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// again handles a delivery that is recorded already: it returns the first one's
// receipt and, where the new sighting adds facts or differs, the event that says so.
func (r *Recorder) again(ctx context.Context, from Origin, a arrival, version eventstore.Version) (Receipt, *eventstore.StreamAppend, error) {
	var first adapter.Decoded
	var confirmed bool
	for e, err := range r.Store.ReadStream(ctx, a.stream, eventstore.StreamQuery{}) {
		if err != nil {
			return Receipt{}, nil, fmt.Errorf("reading the first sighting of a delivery: %w", err)
		}
		d, err := r.Codec.Decode(ctx, e)
		if err != nil {
			return Receipt{}, nil, err
		}
		if e.Version == 1 {
			first = d
		}
		if c, ok := d.Payload.(*adapter.DeliveryConfirmed); ok && c.Source == from.Source && c.Dialect == a.receipt.Dialect {
			confirmed = true
		}
	}
	receipt := Receipt{
		DeliveryID: a.stream.AggregateID(), EventID: first.ID, KeycloakEventID: a.keycloak,
		CorrelationID: first.CorrelationID, Duplicate: true,
	}
	if confirmed {
		return receipt, nil, nil
	}
	added, differs, err := compareSightings(first.Payload, a.payload)
	if err != nil {
		return Receipt{}, nil, err
	}
	if a.keycloak != "" && a.stream != a.own && added[memberID] == nil {
		if added == nil {
			added = make(map[string]json.RawMessage)
		}
		if added[memberUID], err = json.Marshal(a.keycloak); err != nil {
			return Receipt{}, nil, fmt.Errorf("comparing two sightings: %w", err)
		}
	}
	if len(added) == 0 && len(differs) == 0 {
		return receipt, nil, nil
	}
	payload := &adapter.DeliveryConfirmed{Receipt: a.receipt, Added: added, Differs: differs}
	e, err := r.Codec.Encode(ctx, adapter.Draft{
		// One confirmation for each way of sighting: a retry of the sender derives the
		// same event.
		ID:      eventstore.DerivedID(first.ID, first.OccurredAt, "inbound.confirm/"+from.Source+"/"+a.receipt.Dialect, 0),
		Payload: payload, OccurredAt: a.event.OccurredAt,
		Meta: adapter.Metadata{
			CorrelationID: first.CorrelationID, CausationID: &first.ID, Actor: first.Meta.Actor,
			Source: sourceName(from.Source), Traceparent: from.Traceparent,
		},
		RawBody: &eventstore.RawBody{ContentType: "application/json", Bytes: a.delivery.Raw},
	})
	if err != nil {
		return Receipt{}, nil, err
	}
	return receipt, &eventstore.StreamAppend{
		Stream: a.stream, Expected: eventstore.ExpectVersion(version), Events: []eventstore.NewEvent{e},
	}, nil
}

// ownFields are members in which two sightings differ by nature: how they came, and
// whom the actor's realm is named by (push: name, pull: UUID).
var ownFields = []string{"source", "dialect", "body_sha256", "uid", "actor_realm", "resource_id"}

// compareSightings returns what the second sighting knows and the first does not,
// and the names of the fields in which the two contradict each other. Sightings of
// different kinds differ in "kind".
func compareSightings(first, second adapter.Payload) (added map[string]json.RawMessage, differs []string, err error) {
	if reflect.TypeOf(first) != reflect.TypeOf(second) {
		return nil, []string{"kind"}, nil
	}
	if _, ok := first.(*adapter.UnrecognizedEventReceived); ok {
		return nil, nil, nil
	}
	a, err := flatten(first)
	if err != nil {
		return nil, nil, err
	}
	b, err := flatten(second)
	if err != nil {
		return nil, nil, err
	}
	for name, value := range b {
		if slices.Contains(ownFields, name) {
			continue
		}
		was, ok := a[name]
		switch {
		case !ok:
			if added == nil {
				added = make(map[string]json.RawMessage)
			}
			raw, err := json.Marshal(value)
			if err != nil {
				return nil, nil, fmt.Errorf("comparing two sightings: %w", err)
			}
			added[name] = raw
		case !reflect.DeepEqual(was, value):
			differs = append(differs, name)
		}
	}
	slices.Sort(differs)
	return added, differs, nil
}

// flatten lists a payload's members, those of actor and details one by one.
func flatten(p adapter.Payload) (map[string]any, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("comparing two sightings: %w", err)
	}
	var members map[string]any
	// Numbers stay as they are written: a representation may hold some that no float
	// can.
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&members); err != nil {
		return nil, fmt.Errorf("comparing two sightings: %w", err)
	}
	for _, nested := range []string{"actor", "details"} {
		inner, _ := members[nested].(map[string]any)
		delete(members, nested)
		for name, value := range inner {
			// What kind of account acted follows from its name, which only the push has.
			if nested == "actor" && name == "type" {
				continue
			}
			members[nested+"."+name] = value
		}
	}
	return members, nil
}
