package adapter

import (
	"maps"
	"slices"
	"time"
)

// EventTypes are the names of all types of events that this program knows, sorted.
func EventTypes() []string { return slices.Sorted(maps.Keys(payloads)) }

// AnalyticsBucket is how long the stretches of time are whose counts are told apart.
type AnalyticsBucket string

// The buckets, in UTC.
const (
	BucketHour AnalyticsBucket = "hour"
	BucketDay  AnalyticsBucket = "day"
)

// Duration is how long a bucket is.
func (b AnalyticsBucket) Duration() time.Duration {
	if b == BucketDay {
		return 24 * time.Hour
	}
	return time.Hour
}

// AnalyticsQuery selects what to count.
type AnalyticsQuery struct {
	// From (inclusive) and To (exclusive) bound when it occurred; they are widened to
	// whole buckets.
	From, To time.Time
	// Realm selects one realm; empty means all, and what belongs to none.
	Realm  string
	Bucket AnalyticsBucket
}

// WithDefaults fills in what was left out: To is now, From 24 hours (by day: 30 days)
// before To, and Bucket an hour up to a week and a day beyond it.
func (q AnalyticsQuery) WithDefaults(now time.Time) AnalyticsQuery {
	if q.To.IsZero() {
		q.To = now
	}
	if q.From.IsZero() {
		span := 24 * time.Hour
		if q.Bucket == BucketDay {
			span = 30 * 24 * time.Hour
		}
		q.From = q.To.Add(-span)
	}
	if q.Bucket == "" {
		q.Bucket = BucketHour
		if q.To.Sub(q.From) > 7*24*time.Hour {
			q.Bucket = BucketDay
		}
	}
	return q
}

// Analytics are counts over time. A list of counts has one number for each bucket, in
// the order of Buckets. Everything is counted where it occurred, a call where it was
// requested. Lists are never null, and series without any count are left out.
type Analytics struct {
	From   time.Time       `json:"from"`
	To     time.Time       `json:"to"`
	Realm  string          `json:"realm"`
	Bucket AnalyticsBucket `json:"bucket"`
	// Buckets are their beginnings.
	Buckets []time.Time `json:"buckets"`
	// Events are the recorded events by type, KeycloakEvents what Keycloak reported, by
	// its own types, such as "LOGIN_ERROR" or "USER UPDATE".
	Events         []EventCounts `json:"events"`
	KeycloakEvents []EventCounts `json:"keycloak_events"`
	// Deliveries are by source, and by whether they are an "admin_event", a "user_event",
	// "unrecognized", or a "confirmed" one that was seen again and told more.
	Deliveries []DeliveryCounts `json:"deliveries"`
	// Calls are by command and by how they stand now, Errors by the code of why they did
	// not succeed.
	Calls   []CallCounts  `json:"calls"`
	Errors  []ErrorCounts `json:"errors"`
	Latency []CallLatency `json:"latency"`
	// Drift is what appeared, changed and ended, OpenDrift what was open at the end of
	// each bucket.
	Drift     []DriftCounts     `json:"drift"`
	OpenDrift []OpenDriftCounts `json:"open_drift"`
}

// Counts are one series.
type Counts struct {
	Total  int64   `json:"total"`
	Counts []int64 `json:"counts"`
}

// EventCounts counts the events of one type.
type EventCounts struct {
	Type string `json:"type"`
	Counts
}

// DeliveryCounts counts the deliveries of one kind from one source.
type DeliveryCounts struct {
	Source string `json:"source"`
	Kind   string `json:"kind"`
	Counts
}

// CallCounts counts the calls of one command that stand in one way.
type CallCounts struct {
	Command string     `json:"command"`
	Status  CallStatus `json:"status"`
	Counts
}

// ErrorCounts counts the calls of one command that one error stopped.
type ErrorCounts struct {
	Code    Code   `json:"code"`
	Command string `json:"command"`
	Counts
}

// DriftCounts counts the drifts of one situation that appeared, changed or ended.
type DriftCounts struct {
	Phase     DriftPhase `json:"phase"`
	Situation Situation  `json:"situation"`
	Counts
}

// OpenDriftCounts are the drifts of one situation that were open at the end of each
// bucket.
type OpenDriftCounts struct {
	Situation Situation `json:"situation"`
	Open      []int64   `json:"open"`
}

// CallLatency is how long the calls of one command took from request to outcome, fresh
// reads, repetitions and the pauses between them included. A call whose process died is
// not in it.
type CallLatency struct {
	Command string `json:"command"`
	LatencyPoint
	// Histogram counts by duration: a call is in the first bucket that it fits in.
	Histogram []LatencyBucket `json:"histogram"`
	// Series has one point for each bucket of time.
	Series []LatencyPoint `json:"series"`
}

// LatencyPoint is the latency of some calls. Quantiles are estimated from a histogram,
// as if durations were spread evenly within its buckets; they are nil where there are
// no calls or where the quantile lies beyond the last bound.
type LatencyPoint struct {
	Count int64    `json:"count"`
	P50MS *float64 `json:"p50_ms"`
	P95MS *float64 `json:"p95_ms"`
	P99MS *float64 `json:"p99_ms"`
}

// LatencyBucket counts durations up to LeMS, in milliseconds, nil for no bound.
type LatencyBucket struct {
	LeMS  *float64 `json:"le_ms"`
	Count int64    `json:"count"`
}

// LatencyBounds are the histogram's bounds in milliseconds; there is one more bucket
// beyond the last.
var LatencyBounds = [...]float64{5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000}

// LatencyHistogram counts durations by LatencyBounds.
type LatencyHistogram [len(LatencyBounds) + 1]int64

// Point is the latency that the histogram tells of.
func (h LatencyHistogram) Point() LatencyPoint {
	var p LatencyPoint
	for _, n := range h {
		p.Count += n
	}
	p.P50MS, p.P95MS, p.P99MS = h.quantile(0.5), h.quantile(0.95), h.quantile(0.99)
	return p
}

// Buckets is the histogram in its outside form.
func (h LatencyHistogram) Buckets() []LatencyBucket {
	out := make([]LatencyBucket, 0, len(h))
	for i, n := range h {
		b := LatencyBucket{Count: n}
		if i < len(LatencyBounds) {
			bound := LatencyBounds[i]
			b.LeMS = &bound
		}
		out = append(out, b)
	}
	return out
}

func (h LatencyHistogram) quantile(q float64) *float64 {
	var total, below int64
	for _, n := range h {
		total += n
	}
	rank := q * float64(total)
	lower := 0.0
	for i, upper := range LatencyBounds {
		n := h[i]
		if n > 0 && float64(below+n) >= rank {
			at := lower + (upper-lower)*(rank-float64(below))/float64(n)
			return &at
		}
		below += n
		lower = upper
	}
	return nil
}
