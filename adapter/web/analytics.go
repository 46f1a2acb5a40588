package web

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
)

type stretch struct {
	Name, Label string
	Length      time.Duration
	Bucket      adapter.AnalyticsBucket
}

// spans are the stretches of time that the page offers.
var spans = []stretch{
	{"24h", "24 hours", 24 * time.Hour, adapter.BucketHour},
	{"7d", "7 days", 7 * 24 * time.Hour, adapter.BucketHour},
	{"30d", "30 days", 30 * 24 * time.Hour, adapter.BucketDay},
	{"90d", "90 days", 90 * 24 * time.Hour, adapter.BucketDay},
}

type analyticsView struct {
	adapter.Analytics
	Filters []filter
	// Charts whose every value is 0 have no series.
	Recorded, Outcomes, Durations, Drifted chart
	// Busiest are the types of events by how many there are.
	Busiest, Reported []namedCount
	Failures          []namedCount
}

type namedCount struct {
	Name  string
	Count int64
}

// listedTypes is how many types a list names.
const listedTypes = 12

// showAnalytics is GET /analytics.
func (s *Server) showAnalytics(w http.ResponseWriter, r *http.Request) error {
	chosen := cmp.Or(text(r, "span"), spans[0].Name)
	at := slices.IndexFunc(spans, func(one stretch) bool { return one.Name == chosen })
	if at < 0 {
		return adapter.Errorf(adapter.CodeInvalidRequest, "%s is no stretch of time that is offered", quoted(chosen))
	}
	now := s.Clock().UTC()
	counts, err := s.Analytics(r.Context(), adapter.AnalyticsQuery{From: now.Add(-spans[at].Length), To: now, Bucket: spans[at].Bucket})
	if err != nil {
		return err
	}
	v := analyticsOf(counts)
	for _, one := range spans {
		v.Filters = append(v.Filters, filter{Label: one.Label, Path: "/analytics?span=" + one.Name, Current: one.Name == chosen})
	}
	return s.render(w, r, http.StatusOK, "analytics", "analytics", "Analytics", v)
}

func analyticsOf(counts adapter.Analytics) analyticsView {
	v := analyticsView{Analytics: counts}
	layout := "15:04"
	switch {
	case counts.Bucket == adapter.BucketDay:
		layout = "2 Jan"
	case counts.To.Sub(counts.From) > 48*time.Hour:
		layout = "2 Jan 15:04"
	}
	labels := make([]string, len(counts.Buckets))
	for i, b := range counts.Buckets {
		labels[i] = b.UTC().Format(layout)
	}

	recorded := series{Name: "events", Class: "plain", Values: make([]int64, len(labels))}
	for _, e := range counts.Events {
		add(recorded.Values, e.Counts.Counts)
		v.Busiest = append(v.Busiest, namedCount{e.Type, e.Total})
	}
	v.Recorded = chartOf("recorded", "Events recorded over time", labels, recorded)

	outcomes := []series{
		{Name: "succeeded", Class: "good"},
		{Name: "refused by a rule", Class: "neutral"},
		{Name: "open", Class: "plain"},
		{Name: "unknown", Class: "warning"},
		{Name: "failed", Class: "bad"},
	}
	index := map[adapter.CallStatus]int{
		adapter.CallSucceeded: 0, adapter.CallSkipped: 1, adapter.CallRequested: 2, adapter.CallUnknown: 3, adapter.CallFailed: 4,
	}
	for i := range outcomes {
		outcomes[i].Values = make([]int64, len(labels))
	}
	for _, c := range counts.Calls {
		if i, ok := index[c.Status]; ok {
			add(outcomes[i].Values, c.Counts.Counts)
		}
	}
	v.Outcomes = chartOf("outcomes", "Calls over time, by how they stand now", labels, outcomes...)

	open := series{Name: "open", Class: "warning", Values: make([]int64, len(labels))}
	for _, d := range counts.OpenDrift {
		add(open.Values, d.Open)
	}
	v.Drifted = chartOf("drifted", "Users who differ from Keycloak, at the end of each stretch", labels, open)
	v.Recorded.Latest, v.Outcomes.Latest, v.Drifted.Latest = true, true, true
	v.Durations = durationsOf(counts.Latency)

	for _, e := range counts.KeycloakEvents {
		v.Reported = append(v.Reported, namedCount{e.Type, e.Total})
	}
	for _, e := range counts.Errors {
		v.Failures = append(v.Failures, namedCount{string(e.Code) + " at " + e.Command, e.Total})
	}
	v.Busiest, v.Reported, v.Failures = most(v.Busiest), most(v.Reported), most(v.Failures)
	return v
}

// durationsOf counts calls of all commands by how long they took.
func durationsOf(latency []adapter.CallLatency) chart {
	var labels []string
	took := series{Name: "calls", Class: "plain"}
	for _, l := range latency {
		for i, b := range l.Histogram {
			if i == len(labels) {
				label := "longer"
				if b.LeMS != nil {
					label = "≤ " + tickText(time.Duration(*b.LeMS*float64(time.Millisecond)))
				}
				labels, took.Values = append(labels, label), append(took.Values, 0)
			}
			took.Values[i] += b.Count
		}
	}
	return chartOf("durations", "Calls by how long they took", labels, took)
}

// chartOf describes the series in words and leaves out those without any count.
func chartOf(id, title string, labels []string, all ...series) chart {
	c := chart{ID: id, Title: title, Labels: labels}
	var parts []string
	for _, s := range all {
		if s.Total() > 0 {
			c.Series = append(c.Series, s)
			parts = append(parts, grouped(int(s.Total()))+" "+s.Name)
		}
	}
	c.Description = strings.Join(parts, ", ") + ". The table below has the numbers."
	return c
}

func add(to, values []int64) {
	for i := range min(len(to), len(values)) {
		to[i] += values[i]
	}
}

func most(counts []namedCount) []namedCount {
	slices.SortStableFunc(counts, func(a, b namedCount) int { return cmp.Compare(b.Count, a.Count) })
	return counts[:min(len(counts), listedTypes)]
}
