package adapter_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

func TestQuantilesComeFromTheHistogram(t *testing.T) {
	t.Parallel()
	var h adapter.LatencyHistogram
	require.Equal(t, adapter.LatencyPoint{}, h.Point())
	h[0], h[3], h[len(h)-1] = 50, 49, 1 // up to 5 ms, 25 to 50 ms, beyond all bounds
	p := h.Point()
	require.EqualValues(t, 100, p.Count)
	require.InDelta(t, 5, *p.P50MS, 0.001)
	require.InDelta(t, 25+25*45.0/49, *p.P95MS, 0.001)
	require.InDelta(t, 50, *p.P99MS, 0.001)
	h[len(h)-1] = 50
	require.Nil(t, h.Point().P95MS)
	buckets := h.Buckets()
	require.Len(t, buckets, len(h))
	require.InDelta(t, 5, *buckets[0].LeMS, 0)
	require.Nil(t, buckets[len(buckets)-1].LeMS)
}

func TestAnalyticsHaveDefaults(t *testing.T) {
	t.Parallel()
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	require.Equal(t, adapter.AnalyticsQuery{From: now.Add(-day), To: now, Bucket: adapter.BucketHour},
		adapter.AnalyticsQuery{}.WithDefaults(now))
	require.Equal(t, now.Add(-30*day), adapter.AnalyticsQuery{Bucket: adapter.BucketDay}.WithDefaults(now).From)
	require.Equal(t, adapter.BucketDay, adapter.AnalyticsQuery{From: now.Add(-8 * day)}.WithDefaults(now).Bucket)
}

func TestEventTypesAreAll(t *testing.T) {
	t.Parallel()
	require.Contains(t, adapter.EventTypes(), adapter.TypeUserApiCreated)
	require.IsIncreasing(t, adapter.EventTypes())
}
