package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// SourceLookup is the source of what Keycloak was asked for about a delivery that was
// recorded already.
const SourceLookup = "lookup"

// nameChunk is how many deliveries one transaction names. Others wait to write
// meanwhile.
const nameChunk = 200

// NameRealm completes the deliveries that have the realm's UUID alone and whose name
// no sighting has told, and returns how many they were. What is recorded from now on
// must find the name by RealmName already: NameRealm waits for what is being recorded
// and then reads all deliveries, once. Repeating it does no harm.
func (r *Recorder) NameRealm(ctx context.Context, realmID, name string) (int, error) {
	// Whoever asked for the name before it was known has committed after this.
	r.recording.Lock()
	r.recording.Unlock() //nolint:staticcheck // a barrier: nothing has to be done under it
	named := 0
	var chunk []adapter.Decoded
	flush := func() error {
		n, err := r.nameRealm(ctx, chunk, name)
		named, chunk = named+n, chunk[:0]
		return err
	}
	query := eventstore.LogQuery{Types: []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived}}
	for e, err := range r.Store.ReadLog(ctx, query) {
		if err != nil {
			return named, fmt.Errorf("looking for deliveries of realm %s: %w", name, err)
		}
		d, err := r.Codec.Decode(ctx, e)
		if err != nil {
			return named, err
		}
		if id, unnamed := unnamedRealm(d.Payload); !unnamed || id != realmID {
			continue
		}
		if chunk = append(chunk, d); len(chunk) == nameChunk {
			if err := flush(); err != nil {
				return named, err
			}
		}
	}
	return named, flush()
}

// unnamedRealm is the UUID of a realm whose name the delivery does not tell.
func unnamedRealm(p adapter.Payload) (id string, ok bool) {
	switch p := p.(type) {
	case *adapter.AdminEventReceived:
		return p.RealmID, p.Realm == ""
	case *adapter.UserEventReceived:
		return p.RealmID, p.Realm == ""
	}
	return "", false
}

// nameRealm names the realm of those deliveries that nothing else has named.
func (r *Recorder) nameRealm(ctx context.Context, firsts []adapter.Decoded, name string) (int, error) {
	for range maxConflicts {
		var appends []eventstore.StreamAppend
		for _, first := range firsts {
			part, err := r.realmNamed(ctx, first, name)
			if err != nil {
				return 0, err
			}
			if part != nil {
				appends = append(appends, *part)
			}
		}
		if len(appends) == 0 {
			return 0, nil
		}
		_, err := r.Store.Append(ctx, appends...)
		var conflict *eventstore.ConflictError
		switch {
		case errors.As(err, &conflict):
			continue
		case err != nil:
			return 0, fmt.Errorf("naming realm %s: %w", name, err)
		}
		return len(appends), nil
	}
	return 0, fmt.Errorf("naming realm %s: conflicts without end: %w", name, eventstore.ErrUnavailable)
}

func (r *Recorder) realmNamed(ctx context.Context, first adapter.Decoded, name string) (*eventstore.StreamAppend, error) {
	events, err := r.Codec.ReadStream(ctx, r.Store, first.Stream)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if c, ok := e.Payload.(*adapter.DeliveryConfirmed); ok && c.Added["realm"] != nil {
			return nil, nil
		}
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return nil, fmt.Errorf("naming realm %s: %w", name, err)
	}
	receipt := receiptOf(first.Payload)
	receipt.Source = SourceLookup
	e, err := r.Codec.Encode(ctx, adapter.Draft{
		ID:         eventstore.DerivedID(first.ID, first.OccurredAt, "inbound.confirm/"+SourceLookup, 0),
		Payload:    &adapter.DeliveryConfirmed{Receipt: receipt, Added: map[string]json.RawMessage{"realm": quoted}},
		OccurredAt: r.Clock(),
		Meta: adapter.Metadata{
			CorrelationID: first.CorrelationID, CausationID: &first.ID, Actor: first.Meta.Actor, Source: SourceLookup,
		},
	})
	if err != nil {
		return nil, err
	}
	return &eventstore.StreamAppend{
		Stream: first.Stream, Expected: eventstore.ExpectVersion(events[len(events)-1].Version), Events: []eventstore.NewEvent{e},
	}, nil
}

func receiptOf(p adapter.Payload) adapter.Receipt {
	switch p := p.(type) {
	case *adapter.AdminEventReceived:
		return p.Receipt
	case *adapter.UserEventReceived:
		return p.Receipt
	}
	return adapter.Receipt{}
}
