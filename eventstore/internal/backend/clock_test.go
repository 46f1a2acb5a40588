package backend

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClockNeverGoesBack(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 1_999, time.UTC)
	times := []time.Time{start, start.Add(-time.Hour), start.Add(time.Hour)}
	c := NewClock(func() time.Time {
		now := times[0]
		times = times[1:]
		return now
	})
	cut := start.Truncate(time.Microsecond)
	require.Equal(t, cut, c.Now())
	require.Equal(t, cut, c.Now())
	require.Equal(t, cut.Add(time.Hour), c.Now())
}
