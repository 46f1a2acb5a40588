package audit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/audit"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

// BenchmarkRebuild folds a log of ten changes a user, each told by a delivery and a user
// event, with one in twenty of them late.
func BenchmarkRebuild(b *testing.B) {
	for name, make := range map[string]func(testing.TB) projectiontest.Database{
		"sqlite": projectiontest.SQLite, "postgres": projectiontest.Postgres,
	} {
		b.Run(name, func(b *testing.B) {
			p := make(b).Open(b)
			const rounds, people = 10, 1000
			for round := range rounds {
				var deliveries, changes []eventstore.StreamAppend
				for i := range people {
					id := fmt.Sprint("u", i)
					at := noon.Add(time.Duration(round) * time.Minute)
					if (i+round)%20 == 0 {
						at = at.Add(-time.Hour)
					}
					delivery, err := p.Codec.Encode(b.Context(), adapter.Draft{
						Payload: &adapter.AdminEventReceived{Realm: "acme", ResourceType: "USER", OperationType: "UPDATE", UserID: id}, OccurredAt: at, Meta: admin,
					})
					require.NoError(b, err)
					meta := admin
					meta.CausationID = &delivery.ID
					e, err := p.Codec.Encode(b.Context(), adapter.Draft{
						Payload:    &adapter.UserApiUpdated{UserChange: change(id, adapter.Profile{FirstName: adapter.Set(fmt.Sprint("name", round))})},
						OccurredAt: at, Meta: meta,
					})
					require.NoError(b, err)
					deliveries = append(deliveries, eventstore.StreamAppend{
						Stream: adapter.DeliveryStream(delivery.ID.String()), Events: []eventstore.NewEvent{delivery},
					})
					changes = append(changes, eventstore.StreamAppend{Stream: adapter.UserStream("acme", id), Events: []eventstore.NewEvent{e}})
				}
				_, err := p.Store.Append(b.Context(), append(deliveries, changes...)...)
				require.NoError(b, err)
			}
			e := p.Engine(b, projections.Options{}, audit.New(p.Store, p.Codec))
			p.CatchUp(b, e)
			b.ResetTimer()
			for range b.N {
				require.NoError(b, e.Rebuild(b.Context(), audit.Name, nil))
			}
			b.ReportMetric(float64(2*rounds*people*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
