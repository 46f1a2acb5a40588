package postgres

import (
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

// TestBatchesOfEveryKind: random batches that mix what is recorded, repeated, reused, of
// another name and in conflict have the verdicts that one append after the other has,
// over many partitions.
func TestBatchesOfEveryKind(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	s := opened(t, url)
	rng := rand.New(rand.NewPCG(1, 2))
	ids := make([]uuid.UUID, 6)
	for i := range ids {
		ids[i] = eventstore.NewID()
	}
	version := map[uuid.UUID]eventstore.Version{}
	name := map[uuid.UUID]string{}
	recorded := map[uuid.UUID]eventstore.Event{}
	var done [][]eventstore.StreamAppend
	head := eventstore.Position(0)
	stats := map[string]int{}
	for round := range 400 {
		batch := &backend.Batch{}
		var sent [][]eventstore.StreamAppend
		shadow := map[uuid.UUID]eventstore.Version{}
		for k, v := range version {
			shadow[k] = v
		}
		for range 1 + rng.IntN(6) {
			var appends []eventstore.StreamAppend
			if len(done) > 0 && rng.IntN(5) == 0 {
				appends = done[rng.IntN(len(done))]
				if rng.IntN(4) == 0 { // partially other
					appends = append(append([]eventstore.StreamAppend(nil), appends...), many(eventstore.UUIDStream("call", ids[rng.IntN(6)]), 1))
				}
			} else {
				for range 1 + rng.IntN(3) {
					id := ids[rng.IntN(6)]
					cat := "call"
					if rng.IntN(12) == 0 {
						cat = "run"
					}
					a := many(eventstore.UUIDStream(cat, id), 1+rng.IntN(3))
					switch rng.IntN(4) {
					case 0:
						a.Expected = eventstore.ExpectVersion(shadow[id] + eventstore.Version(rng.IntN(3)))
					case 1:
						a.Expected = eventstore.ExpectVersion(shadow[id])
					}
					if rng.IntN(3) == 0 {
						a.Events[0].RawBody = &eventstore.RawBody{ContentType: "x", Bytes: []byte("b")}
					}
					shadow[id] += eventstore.Version(len(a.Events))
					appends = append(appends, a)
				}
			}
			p, err := backend.NewPlan(appends)
			if err != nil || !batch.Fits(p) {
				continue
			}
			batch.Add(p)
			sent = append(sent, appends)
		}
		if len(batch.Plans) == 0 {
			continue
		}
		results, err := s.writeBatch(ctx, batch)
		require.NoError(t, err, "round %d", round)
		snap := map[uuid.UUID]eventstore.Event{}
		for k, v := range recorded {
			snap[k] = v
		}
		for n, p := range batch.Plans {
			r := results[n]
			known := false
			for _, e := range p.Events {
				if _, ok := snap[e.ID]; ok {
					known = true
				}
			}
			other, conflict := false, false
			now := map[uuid.UUID]eventstore.Version{}
			for _, e := range p.Events {
				st := p.Streams[e.Stream].ID
				if nm := name[st.AggregateID()]; nm != "" && nm != st.String() {
					// the name before the batch counts; names made in the batch agree by crosses
					other = true
				}
				if _, ok := now[st.AggregateID()]; !ok {
					now[st.AggregateID()] = version[st.AggregateID()]
				}
				if v, exact := e.Expected.Exact(); exact && v != now[st.AggregateID()] {
					conflict = true
				}
				now[st.AggregateID()]++
			}
			var ce *eventstore.ConflictError
			switch {
			case known:
				if r.Err != nil {
					stats["reused"]++
					require.ErrorIs(t, r.Err, eventstore.ErrEventIDReused)
					break
				}
				stats["known"]++
				for i, e := range p.Events {
					require.Equal(t, snap[e.ID].Position, r.Events[i].Position)
				}
			case other:
				stats["other"]++
				require.ErrorIs(t, r.Err, eventstore.ErrInvalidEvent)
			case conflict:
				stats["conflict"]++
				require.ErrorAs(t, r.Err, &ce)
			default:
				stats["recorded"]++
				require.NoError(t, r.Err)
				for i, e := range p.Events {
					st := p.Streams[e.Stream].ID
					head++
					version[st.AggregateID()]++
					name[st.AggregateID()] = st.String()
					got := r.Events[i]
					require.Equal(t, head, got.Position)
					require.Equal(t, version[st.AggregateID()], got.Version)
					recorded[e.ID] = got
				}
				done = append(done, sent[n])
			}
		}
	}
	for _, kind := range []string{"recorded", "known", "reused", "other", "conflict"} {
		require.Positive(t, stats[kind], kind)
	}
	n := 0
	for e, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
		require.NoError(t, err)
		w := recorded[e.ID]
		require.Equal(t, w.Position, e.Position)
		require.Equal(t, w.Version, e.Version)
		require.Equal(t, w.Stream, e.Stream)
		n++
	}
	require.EqualValues(t, head, n)
	v, err := eventstore.Verify(ctx, s, eventstore.VerifyOptions{})
	require.NoError(t, err)
	require.True(t, v.Sound(), "%v", v.Faults)
	var bad int
	require.NoError(t, s.pool.QueryRow(ctx, `SELECT count(*) FROM api_streams g WHERE (first_position, last_position, version) <> (SELECT min(position), max(position), max(version) FROM api_event_store e WHERE e.aggregate_id = g.aggregate_id)`).Scan(&bad))
	require.Zero(t, bad)
	require.NoError(t, s.pool.QueryRow(ctx, `SELECT count(*) FROM api_raw_bodies b WHERE NOT EXISTS (SELECT FROM api_event_ids i WHERE i.event_id = b.event_id)`).Scan(&bad))
	require.Zero(t, bad)
}

// N: readers hold the whole pool.
