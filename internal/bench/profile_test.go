package bench_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/bench"
)

func BenchmarkProfile(b *testing.B) {
	o := bench.Options{Name: os.Getenv("BENCH"), Quick: true}
	if u := os.Getenv("BENCH_STORE"); u != "" {
		var err error
		o.Store, err = config.ParseStoreURL(u)
		require.NoError(b, err)
	}
	r, err := bench.Run(b.Context(), o)
	require.NoError(b, err)
	_ = r.WriteText(os.Stdout)
}
