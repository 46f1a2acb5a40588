package interpret_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// counted counts the events that are read from users' streams.
type counted struct {
	interpret.Store
	events int
}

func (c *counted) ReadStream(ctx context.Context, s eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range c.Store.ReadStream(ctx, s, q) {
			if s.Category() == adapter.CategoryUser {
				c.events++
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// saves are n updates of one user as the admin console sends them: with every field.
func (b *bundle) saves(from, n int) {
	b.t.Helper()
	var batch []webhook.Delivery
	for i := from; i < from+n; i++ {
		deliveries, err := webhook.Decode([]byte(update(fmt.Sprint("save", i), "1", fmt.Sprint(10_000*(i+1)),
			fmt.Sprintf(`{\"enabled\":%t,\"firstName\":\"Bob %d\"}`, i%2 == 0, i))), webhook.DialectAuto)
		require.NoError(b.t, err)
		batch = append(batch, deliveries...)
	}
	b.record(batch...)
}

func (b *bundle) passwords(from, n int) {
	b.t.Helper()
	for i := from; i < from+n; i++ {
		d, err := webhook.DecodeUserEvent(fmt.Appendf(nil, `{"id":"p%d","time":%d,"realmName":"acme","type":"UPDATE_PASSWORD","userId":"1"}`, i, 10_000*(i+1)))
		require.NoError(b.t, err)
		b.record(d)
	}
}

// Each of a user's events is read once to interpret the next delivery about the user,
// however many there are and however the deliveries are portioned.
func TestInterpretingReadsEachUserEventOnce(t *testing.T) {
	t.Parallel()
	const saves = 60
	for name, record := range map[string]func(*bundle, int, int){"saves": (*bundle).saves, "passwords": (*bundle).passwords} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			reads := &counted{Store: b.store}
			b.interp.Store = reads
			for n := 0; n < saves; n += 4 {
				record(b, n, 4)
				b.interpret()
			}
			require.Len(t, b.events(adapter.UserStream("acme", "1")), saves)
			require.LessOrEqual(t, reads.events, saves)
		})
	}
}

// A new process, which remembers nothing, reads the same out of every delivery.
func TestInterpretationDependsOnNoMemory(t *testing.T) {
	t.Parallel()
	remembers, forgets := setup(t), setup(t)
	for n := range 12 {
		for _, b := range []*bundle{remembers, forgets} {
			b.saves(n, 1)
			b.interpret()
		}
		forgets.interp = &interpret.Interpreter{Store: forgets.store, Codec: forgets.codec, Clock: forgets.interp.Clock, Logger: forgets.interp.Logger}
	}
	stream := adapter.UserStream("acme", "1")
	require.Equal(t, forgets.types(stream), remembers.types(stream))
	require.Contains(t, remembers.types(stream), adapter.TypeUserApiDisabled)
}

// A late password event beyond those that are remembered is still told once.
func TestAPasswordToldLongAgo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.passwords(0, 40)
	b.interpret()
	d, err := webhook.DecodeUserEvent([]byte(`{"id":"late","time":10001,"realmName":"acme","type":"UPDATE_CREDENTIAL","userId":"1","details":{"credential_type":"password"}}`))
	require.NoError(t, err)
	b.record(d)
	b.interpret()
	require.Len(t, b.events(adapter.UserStream("acme", "1")), 40)
}

// The cost of a delivery does not grow with what is known of its user: second/first
// compares the second thousand updates of one user with the first.
func BenchmarkUpdatesOfOneUser(b *testing.B) {
	const thousand, portion = 1000, 100
	var first, second time.Duration
	for b.Loop() {
		b.StopTimer()
		s := setup(b)
		took := func(from int) (sum time.Duration) {
			for n := 0; n < thousand; n += portion {
				s.saves(from+n, portion)
				b.StartTimer()
				start := time.Now()
				s.interpret()
				sum += time.Since(start)
				b.StopTimer()
			}
			return sum
		}
		first += took(0)
		second += took(thousand)
		b.StartTimer()
	}
	b.ReportMetric(float64(second)/float64(first), "second/first")
	b.ReportMetric(float64(first+second)/float64(2*thousand*b.N)/float64(time.Microsecond), "µs/update")
}
