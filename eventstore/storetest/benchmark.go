package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

// benchEvent is of the size of a Keycloak admin event.
func benchEvent() eventstore.NewEvent {
	e := newEvent("AdminEventReceived")
	e.Data = []byte(`{"resourceType":"USER","operationType":"UPDATE","representation":"` + longText(900) + `"}`)
	return e
}

// BenchmarkAppend appends single events of 1 KiB, each writer to streams of its own.
func BenchmarkAppend(b *testing.B, create Factory) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			d := create(b)
			s := d.Open(b, time.Now)
			defer func() { require.NoError(b, s.Close()) }()
			ctx := b.Context()
			var left atomic.Int64
			left.Store(int64(b.N))
			var done sync.WaitGroup
			errs := make([]error, writers)
			b.ResetTimer()
			for i := range writers {
				done.Go(func() {
					for left.Add(-1) >= 0 {
						if _, errs[i] = s.Append(ctx, to(newStream(), eventstore.ExpectNone(), benchEvent())); errs[i] != nil {
							return
						}
					}
				})
			}
			done.Wait()
			b.StopTimer()
			for _, err := range errs {
				require.NoError(b, err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkReadLog reads 10,000 events of 1 KiB from the first to the last.
func BenchmarkReadLog(b *testing.B, create Factory) {
	const total = 10_000
	d := create(b)
	s := d.Open(b, time.Now)
	defer func() { require.NoError(b, s.Close()) }()
	for range total / 500 {
		events := make([]eventstore.NewEvent, 500)
		for i := range events {
			events[i] = benchEvent()
		}
		_, err := s.Append(b.Context(), to(newStream(), eventstore.ExpectNone(), events...))
		require.NoError(b, err)
	}
	b.ResetTimer()
	for range b.N {
		n := 0
		for _, err := range s.ReadLog(b.Context(), eventstore.LogQuery{}) {
			require.NoError(b, err)
			n++
		}
		require.Equal(b, total, n)
	}
	b.ReportMetric(float64(b.N*total)/b.Elapsed().Seconds(), "events/s")
}
