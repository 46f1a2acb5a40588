package analytics

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// Queries reads the projection. It is safe for concurrent use.
type Queries struct{ db *sql.DB }

// NewQueries reads from db. The tables must have been set up.
func NewQueries(db projections.DB) *Queries { return &Queries{db: db.Read} }

// MaxBuckets is the most buckets of one answer.
const MaxBuckets = 1000

// Summary counts what a query selects. A query without an end, or of more than
// MaxBuckets, is CodeInvalidRequest.
func (q *Queries) Summary(ctx context.Context, query adapter.AnalyticsQuery) (adapter.Analytics, error) {
	s, err := newSummary(query)
	if err != nil {
		return adapter.Analytics{}, err
	}
	for _, metric := range []string{
		metricEvents, metricKeycloakEvents, metricDeliveries, metricCalls, metricErrors, metricLatency, metricDrift, metricOpenDrift,
	} {
		if err := q.read(ctx, s, metric); err != nil {
			return adapter.Analytics{}, fmt.Errorf("analytics, %s: %w", metric, err)
		}
	}
	return s.answer(), nil
}

// read adds up the counts of a metric. Open drift is a sum over all that went before.
func (q *Queries) read(ctx context.Context, s *summary, metric string) error {
	query, args := s.statement(metric)
	return projections.Query(ctx, q.db, func(rows *sql.Rows) error {
		var hour projections.Time
		var k seriesKey
		var n int64
		if err := rows.Scan(&hour, &k.name, &k.detail, &n); err != nil {
			return err
		}
		k.metric = metric
		counts := s.series[k]
		if counts == nil {
			counts = make([]int64, len(s.Buckets))
			s.series[k] = counts
		}
		counts[max(0, int(hour.Sub(s.From)/s.Bucket.Duration()))] += n
		return nil
	}, query, args...)
}

// statement reads the rows of a metric in the order of the table's key.
func (s *summary) statement(metric string) (string, []any) {
	where, args := " WHERE metric = $1 AND hour < $2", []any{metric, projections.FormatRequired(s.To)}
	if metric != metricOpenDrift {
		args = append(args, projections.FormatRequired(s.From))
		where += " AND hour >= $3"
	}
	if s.Realm != "" {
		args = append(args, projections.KeyText(s.Realm))
		where += " AND realm = $" + strconv.Itoa(len(args))
	}
	return `SELECT hour, name, detail, n FROM ` + countTable + where, args
}

type seriesKey struct{ metric, name, detail string }

// summary is an answer under way.
type summary struct {
	adapter.Analytics
	series map[seriesKey][]int64
}

func newSummary(query adapter.AnalyticsQuery) (*summary, error) {
	if query.Bucket != adapter.BucketHour && query.Bucket != adapter.BucketDay {
		return nil, adapter.Errorf(adapter.CodeInvalidRequest, "analytics have no bucket %q", query.Bucket).WithTry("hour or day")
	}
	if query.From.IsZero() || query.To.IsZero() || !query.From.Before(query.To) {
		return nil, adapter.Errorf(adapter.CodeInvalidRequest, "the analytics' time must begin before it ends").
			WithTry("an earlier from, or a later to")
	}
	s := &summary{series: make(map[seriesKey][]int64)}
	step := query.Bucket.Duration()
	s.Realm, s.Bucket = query.Realm, query.Bucket
	// Truncate counts from the year 1, whose first day began at midnight UTC.
	s.From, s.To = query.From.UTC().Truncate(step), query.To.UTC().Truncate(step)
	if s.To.Before(query.To) {
		s.To = s.To.Add(step)
	}
	if n := s.To.Sub(s.From) / step; n > MaxBuckets {
		return nil, adapter.Errorf(adapter.CodeInvalidRequest, "that are %d buckets, and %d are the most", n, MaxBuckets).
			WithTry("bucket=day, or a shorter time")
	}
	s.Buckets = []time.Time{}
	for at := s.From; at.Before(s.To); at = at.Add(step) {
		s.Buckets = append(s.Buckets, at)
	}
	return s, nil
}

func (s *summary) answer() adapter.Analytics {
	a := s.Analytics
	a.Events = collect(s, metricEvents, func(k seriesKey, c adapter.Counts) adapter.EventCounts {
		return adapter.EventCounts{Type: k.name, Counts: c}
	})
	a.KeycloakEvents = collect(s, metricKeycloakEvents, func(k seriesKey, c adapter.Counts) adapter.EventCounts {
		return adapter.EventCounts{Type: k.name, Counts: c}
	})
	a.Deliveries = collect(s, metricDeliveries, func(k seriesKey, c adapter.Counts) adapter.DeliveryCounts {
		return adapter.DeliveryCounts{Source: k.name, Kind: k.detail, Counts: c}
	})
	a.Calls = collect(s, metricCalls, func(k seriesKey, c adapter.Counts) adapter.CallCounts {
		return adapter.CallCounts{Command: k.name, Status: adapter.CallStatus(k.detail), Counts: c}
	})
	a.Errors = collect(s, metricErrors, func(k seriesKey, c adapter.Counts) adapter.ErrorCounts {
		return adapter.ErrorCounts{Code: adapter.Code(k.name), Command: k.detail, Counts: c}
	})
	a.Drift = collect(s, metricDrift, func(k seriesKey, c adapter.Counts) adapter.DriftCounts {
		return adapter.DriftCounts{Phase: adapter.DriftPhase(k.name), Situation: adapter.Situation(k.detail), Counts: c}
	})
	a.OpenDrift = []adapter.OpenDriftCounts{}
	for _, k := range s.keys(metricOpenDrift) {
		open := s.series[k]
		for i := 1; i < len(open); i++ {
			open[i] += open[i-1]
		}
		if slices.ContainsFunc(open, notZero) {
			a.OpenDrift = append(a.OpenDrift, adapter.OpenDriftCounts{Situation: adapter.Situation(k.name), Open: open})
		}
	}
	a.Latency = s.latency()
	return a
}

// keys are those of a metric's series, in the order of name and detail.
func (s *summary) keys(metric string) []seriesKey {
	var keys []seriesKey
	for k := range maps.Keys(s.series) {
		if k.metric == metric {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b seriesKey) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.detail, b.detail))
	})
	return keys
}

// collect makes a list of a metric's series, without those that came to nothing.
func collect[T any](s *summary, metric string, make func(seriesKey, adapter.Counts) T) []T {
	list := []T{}
	for _, k := range s.keys(metric) {
		c := adapter.Counts{Counts: s.series[k]}
		for _, n := range c.Counts {
			c.Total += n
		}
		if slices.ContainsFunc(c.Counts, notZero) {
			list = append(list, make(k, c))
		}
	}
	return list
}

func notZero(n int64) bool { return n != 0 }

func (s *summary) latency() []adapter.CallLatency {
	byCommand := make(map[string][]adapter.LatencyHistogram)
	for _, k := range s.keys(metricLatency) {
		i, err := strconv.Atoi(k.detail)
		if err != nil || i < 0 || i > len(adapter.LatencyBounds) {
			continue // of another version of the program, whose rebuild is under way
		}
		histograms := byCommand[k.name]
		if histograms == nil {
			histograms = make([]adapter.LatencyHistogram, len(s.Buckets))
			byCommand[k.name] = histograms
		}
		for bucket, n := range s.series[k] {
			histograms[bucket][i] += n
		}
	}
	list := []adapter.CallLatency{}
	for _, command := range slices.Sorted(maps.Keys(byCommand)) {
		l := adapter.CallLatency{Command: command, Series: []adapter.LatencyPoint{}}
		var total adapter.LatencyHistogram
		for _, h := range byCommand[command] {
			l.Series = append(l.Series, h.Point())
			for i, n := range h {
				total[i] += n
			}
		}
		l.LatencyPoint, l.Histogram = total.Point(), total.Buckets()
		list = append(list, l)
	}
	return list
}
