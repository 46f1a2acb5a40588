package interpret_test

import (
	"bytes"
	"context"
	"iter"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// unreadable is a creation whose representation is JSON, and no user.
const unreadable = `{"id":"bad","time":1000,"realmName":"acme","type":"admin.USER-CREATE","operationType":"CREATE","resourceType":"USER","resourcePath":"users/1","representation":"[1]"}`

func update(id, user, millis, representation string) string {
	return `{"id":"` + id + `","time":` + millis + `,"realmName":"acme","type":"admin.USER-UPDATE","operationType":"UPDATE","resourceType":"USER","resourcePath":"users/` + user + `","representation":"` + representation + `"}`
}

func (b *bundle) push(bodies ...string) {
	b.t.Helper()
	for _, body := range bodies {
		batch, err := webhook.Decode([]byte(body), webhook.DialectAuto)
		require.NoError(b.t, err)
		b.record(batch...)
	}
	b.interpret()
}

func deliveryID(key string) uuid.UUID { return adapter.DeliveryStream(key).AggregateID() }

func (b *bundle) parked() []string {
	b.t.Helper()
	keys := []string{}
	for p, err := range b.codec.Parked(b.t.Context(), b.store, 0) {
		require.NoError(b.t, err)
		parts, err := p.Parking.Stream.Parts()
		require.NoError(b.t, err)
		keys = append(keys, parts[0])
	}
	return keys
}

func TestAnUnreadableDeliveryHoldsUpItsUserOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push(unreadable, update("next", "1", "2000", `{\"firstName\":\"Bob\"}`), update("other", "2", "3000", `{\"firstName\":\"Ann\"}`))
	require.Equal(t, []string{"next", "bad"}, b.parked())
	require.Empty(t, b.types(adapter.UserStream("acme", "1")))
	require.Equal(t, []string{adapter.TypeUserApiUpdated}, b.types(adapter.UserStream("acme", "2")))

	parkings := b.events(adapter.DeliveryStream("bad"))
	require.Equal(t, 5, parkings[1].Payload.(*adapter.DeliveryParked).Attempts)
	waits := b.events(adapter.DeliveryStream("next"))[1].Payload.(*adapter.DeliveryParked)
	require.Zero(t, waits.Attempts)
	require.Equal(t, parkings[0].ID, *waits.Behind)

	// A restarted process knows what is parked, and reading everything again parks
	// nothing twice.
	head, err := b.store.Head(t.Context())
	require.NoError(t, err)
	b.interp = &interpret.Interpreter{Store: b.store, Codec: b.codec, Clock: b.interp.Clock, Logger: b.interp.Logger}
	b.push(update("third", "1", "4000", `{\"lastName\":\"Stone\"}`))
	require.Equal(t, []string{"third", "next", "bad"}, b.parked())
	b.interpretFrom(0)
	again, err := b.store.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, head+2, again, "the third and its parking")
}

func TestRetryingAParkedDelivery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push(unreadable, update("next", "1", "2000", `{\"firstName\":\"Bob\"}`))
	retry := func(key string) (int, error) { return b.interp.Retry(t.Context(), deliveryID(key)) }

	_, err := retry("next")
	require.Equal(t, adapter.CodeWaitsBehind, adapter.CodeOf(err))
	_, err = retry("bad")
	require.Equal(t, adapter.CodeStillParked, adapter.CodeOf(err))
	require.Equal(t, []string{"bad", "next"}, b.parked(), "parked again, with its reason")
	_, err = retry("unknown")
	require.Equal(t, adapter.CodeNotFound, adapter.CodeOf(err))

	// A newer program, which can read it, releases both, in order.
	readable := newerProgram{b.store}
	b.interp = &interpret.Interpreter{Store: readable, Codec: b.codec, Clock: b.interp.Clock, Logger: b.interp.Logger}
	released, err := retry("bad")
	require.NoError(t, err)
	require.Equal(t, 2, released)
	require.Empty(t, b.parked())
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated}, b.types(adapter.UserStream("acme", "1")))
	_, err = retry("bad")
	require.Equal(t, adapter.CodeNotParked, adapter.CodeOf(err))
	b.push(update("third", "1", "4000", `{\"lastName\":\"Stone\"}`))
	require.Equal(t, "Stone", *b.user("acme", "1").LastName, "the user's events go on")
}

// newerProgram knows how to read what this one cannot.
type newerProgram struct{ interpret.Store }

func (n newerProgram) ReadStream(ctx context.Context, s eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range n.Store.ReadStream(ctx, s, q) {
			e.Data = bytes.Replace(e.Data, []byte(`"representation":[1]`), []byte(`"representation":{"username":"bob"}`), 1)
			if !yield(e, err) {
				return
			}
		}
	}
}
