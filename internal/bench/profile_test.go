package bench_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/bench"
)

// BenchmarkProfile runs the benchmark named by BENCH once, quickly, on the store of
// BENCH_STORE, so that go test's profilers see where the time goes.
func BenchmarkProfile(b *testing.B) {
	o := bench.Options{Name: os.Getenv("BENCH"), Quick: true}
	if o.Name == "" {
		b.Skip("BENCH names no benchmark")
	}
	if u := os.Getenv("BENCH_STORE"); u != "" {
		var err error
		o.Store, err = config.ParseStoreURL(u)
		require.NoError(b, err)
	}
	r, err := bench.Run(b.Context(), o)
	require.NoError(b, err)
	require.NoError(b, r.WriteText(os.Stdout))
}
