package users_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
	"github.com/keytrail/keytrail/projections/users"
)

// BenchmarkRebuild folds a log of ten events a user, with one in twenty of them late.
func BenchmarkRebuild(b *testing.B) {
	for name, make := range map[string]func(testing.TB) projectiontest.Database{
		"sqlite": projectiontest.SQLite, "postgres": projectiontest.Postgres,
	} {
		b.Run(name, func(b *testing.B) {
			p := make(b).Open(b)
			const rounds, people = 10, 1000
			for round := range rounds {
				var appends []eventstore.StreamAppend
				for i := range people {
					id := fmt.Sprint("u", i)
					at := noon.Add(time.Duration(round) * time.Minute)
					if (i+round)%20 == 0 {
						at = at.Add(-time.Hour)
					}
					var payload adapter.UserPayload = updated(id, adapter.Profile{FirstName: adapter.Set(fmt.Sprint("name", round))})
					if round == 0 {
						payload = created(id, "user"+id, id+"@example.com")
					}
					e, err := p.Codec.Encode(b.Context(), adapter.Draft{Payload: payload, OccurredAt: at})
					require.NoError(b, err)
					appends = append(appends, eventstore.StreamAppend{Stream: adapter.UserStream("acme", id), Events: []eventstore.NewEvent{e}})
				}
				_, err := p.Store.Append(b.Context(), appends...)
				require.NoError(b, err)
			}
			e := p.Engine(b, projections.Options{}, users.New(p.Store, p.Codec))
			p.CatchUp(b, e)
			b.ResetTimer()
			for range b.N {
				require.NoError(b, e.Rebuild(b.Context(), users.Name, nil))
			}
			b.ReportMetric(float64(rounds*people*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
