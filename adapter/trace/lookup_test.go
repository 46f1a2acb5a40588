package trace_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
)

// A realm's name that was asked for is no second sighting of the event.
func TestALookupIsToldAsSuch(t *testing.T) {
	t.Parallel()
	v := adapter.View{Data: &adapter.DeliveryConfirmed{
		Receipt: adapter.Receipt{Source: "lookup"}, Added: map[string]json.RawMessage{"realm": json.RawMessage(`"acme"`)},
	}}
	require.Equal(t, "Keycloak was asked whose realm this is: acme", trace.Describe(v))
}
