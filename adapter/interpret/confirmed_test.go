package interpret_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// bare is an admin event that names its realm by its UUID alone, as a listener
// serialises it.
func bare(t *testing.T, id, representation string) webhook.Delivery {
	t.Helper()
	d, err := webhook.DecodeAdminEvent(fmt.Appendf(nil, `{"id":%q,"time":1000,"realmId":"be4c761c-6cac-427b-bcdb-6cb733831e2a","operationType":"CREATE",`+
		`"resourceType":"USER","resourcePath":"users/1","representation":%q,"authDetails":{"clientId":"c1","userId":"a1"}}`, id, representation))
	require.NoError(t, err)
	return d
}

func (b *bundle) pull(d webhook.Delivery) {
	b.t.Helper()
	_, err := b.recorder.Record(b.t.Context(), inbound.Origin{Source: inbound.SourcePoll, Realm: "acme"}, []webhook.Delivery{d})
	require.NoError(b.t, err)
}

// A push whose realm nobody could name is interpreted once another sighting names it,
// by the consumer that has passed it long ago.
func TestARealmNamedLate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.record(bare(t, "e1", `{"username":"bob","enabled":true}`))
	b.interpret()
	require.Empty(t, b.types(adapter.UserStream("acme", "1")))

	b.pull(bare(t, "e1", `{"username":"bob","enabled":true}`))
	b.interpret()
	require.Equal(t, "bob", b.user("acme", "1").Username)
	user := b.events(adapter.UserStream("acme", "1"))
	delivery := b.events(adapter.DeliveryStream("e1"))
	require.Equal(t, delivery[0].ID, user[0].CausationID, "the delivery is the cause, not its confirmation")
	require.Equal(t, delivery[0].CorrelationID, user[0].CorrelationID)

	head, err := b.store.Head(t.Context())
	require.NoError(t, err)
	b.interpretFrom(0)
	again, err := b.store.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, head, again)
}

// Parked, such a delivery is still its user's: others wait behind it, and a newer
// program reads it.
func TestADeliveryNamedLateIsParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.record(bare(t, "bad", `[1]`))
	b.interpret()
	require.Empty(t, b.parked())
	b.pull(bare(t, "bad", `[1]`))
	b.interpret()
	b.push(update("next", "1", "2000", `{\"firstName\":\"Bob\"}`))
	require.Equal(t, []string{"next", "bad"}, b.parked())

	b.interp = &interpret.Interpreter{Store: newerProgram{b.store}, Codec: b.codec, Clock: b.interp.Clock, Logger: b.interp.Logger}
	released, err := b.interp.Retry(t.Context(), deliveryID("bad"))
	require.NoError(t, err)
	require.Equal(t, 2, released)
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated}, b.types(adapter.UserStream("acme", "1")))
}
