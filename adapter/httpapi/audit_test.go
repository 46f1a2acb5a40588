package httpapi

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

type fakeAudit struct {
	asked   adapter.AuditFilter
	entries []adapter.AuditEntry
}

func (f *fakeAudit) List(_ context.Context, asked adapter.AuditFilter, _ int, _ string) ([]adapter.AuditEntry, string, error) {
	f.asked = asked
	return f.entries, "", nil
}

type fakeAnalytics struct{ asked adapter.AnalyticsQuery }

func (f *fakeAnalytics) Summary(_ context.Context, asked adapter.AnalyticsQuery) (adapter.Analytics, error) {
	f.asked = asked
	return adapter.Analytics{
		From: asked.From, To: asked.To, Bucket: asked.Bucket, Buckets: []time.Time{},
		Events: []adapter.EventCounts{}, KeycloakEvents: []adapter.EventCounts{}, Deliveries: []adapter.DeliveryCounts{},
		Calls: []adapter.CallCounts{}, Errors: []adapter.ErrorCounts{}, Latency: []adapter.CallLatency{},
		Drift: []adapter.DriftCounts{}, OpenDrift: []adapter.OpenDriftCounts{},
	}, nil
}

func TestAuditAsksForWhatTheQuerySays(t *testing.T) {
	t.Parallel()
	trail := &fakeAudit{}
	b := newBundle(t, func(c *Config) { c.Audit = trail })
	require.JSONEq(t, `{"items":[],"next_cursor":""}`, string(b.get("/api/v1/audit?realm=acme&actor=alice&user=bob&type=user.disable&from=2026-11-23T08:00:00Z&to=2026-11-23T09:00:00Z").body))
	require.Equal(t, adapter.AuditFilter{
		Realm: "acme", Actor: "alice", User: "bob", Type: "user.disable",
		From: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC),
	}, trail.asked)
	b.get("/api/v1/audit?from=yesterday").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.get("/api/v1/audit?who=alice").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
}

func TestAnalyticsHaveDefaults(t *testing.T) {
	t.Parallel()
	counts := &fakeAnalytics{}
	b := newBundle(t, func(c *Config) { c.Analytics = counts })
	require.Equal(t, http.StatusOK, b.get("/api/v1/analytics?realm=acme").status)
	require.Equal(t, adapter.BucketHour, counts.asked.Bucket)
	require.Equal(t, 24*time.Hour, counts.asked.To.Sub(counts.asked.From))
	b.get("/api/v1/analytics?bucket=minute").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
}
