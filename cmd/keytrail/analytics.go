package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/internal/app"
)

type analyticsCommand struct {
	Realm  string `help:"Only this realm."`
	From   string `help:"From then on (RFC 3339); 24 hours before the end, or 30 days by day, without it." placeholder:"TIME"`
	To     string `help:"Until then (RFC 3339); now without it." placeholder:"TIME"`
	Bucket string `help:"Count by hour or by day; by hour up to a week without it." enum:"hour,day," default:""`
}

func (c *analyticsCommand) Run(ctx context.Context, s *session) error {
	q := adapter.AnalyticsQuery{Realm: c.Realm, Bucket: adapter.AnalyticsBucket(c.Bucket)}
	var err error
	if q.From, err = moment(c.From); err != nil {
		return err
	}
	if q.To, err = moment(c.To); err != nil {
		return err
	}
	return s.read(ctx, func(a *app.App) error {
		answer, err := a.Analytics.Summary(ctx, q.WithDefaults(s.clock()))
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(answer)
		}
		return writeAnalytics(s.stdout, answer)
	})
}

func writeAnalytics(out io.Writer, a adapter.Analytics) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	where := "all realms"
	if a.Realm != "" {
		where = plain(a.Realm)
	}
	fmt.Fprintf(w, "%s to %s, by %s, %s\n", a.From.Format(time.RFC3339), a.To.Format(time.RFC3339), a.Bucket, where)
	if len(a.Events)+len(a.KeycloakEvents)+len(a.Deliveries)+len(a.Calls)+len(a.Errors)+len(a.Drift)+len(a.OpenDrift)+len(a.Latency) == 0 {
		fmt.Fprintln(w, "Nothing is recorded of that time.")
	}

	section(w, "EVENT", len(a.Events))
	for _, c := range a.Events {
		series(w, c.Type, c.Counts)
	}
	section(w, "KEYCLOAK REPORTED", len(a.KeycloakEvents))
	for _, c := range a.KeycloakEvents {
		series(w, c.Type, c.Counts)
	}
	section(w, "DELIVERED", len(a.Deliveries))
	for _, c := range a.Deliveries {
		series(w, c.Source+" "+c.Kind, c.Counts)
	}
	section(w, "CALL", len(a.Calls))
	for _, c := range a.Calls {
		series(w, c.Command+" "+string(c.Status), c.Counts)
	}
	section(w, "ERROR", len(a.Errors))
	for _, c := range a.Errors {
		series(w, string(c.Code)+" of "+c.Command, c.Counts)
	}
	section(w, "DRIFT", len(a.Drift))
	for _, c := range a.Drift {
		series(w, string(c.Situation)+" "+string(c.Phase), c.Counts)
	}
	if len(a.OpenDrift) > 0 {
		fmt.Fprintf(w, "\nOPEN DRIFT\tAT THE END\tBY %s\n", strings.ToUpper(string(a.Bucket)))
		for _, c := range a.OpenDrift {
			fmt.Fprintf(w, "%s\t%d\t%s\n", plain(string(c.Situation)), c.Open[len(c.Open)-1], sparkline(c.Open))
		}
	}
	if len(a.Latency) > 0 {
		fmt.Fprintf(w, "\nLATENCY\tCALLS\tP50\tP95\tP99\n")
		for _, l := range a.Latency {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", plain(l.Command), l.Count, duration(l.P50MS), duration(l.P95MS), duration(l.P99MS))
		}
	}
	return w.Flush()
}

func section(w io.Writer, title string, rows int) {
	if rows > 0 {
		fmt.Fprintf(w, "\n%s\tTOTAL\tOVER TIME\n", title)
	}
}

func series(w io.Writer, name string, c adapter.Counts) {
	fmt.Fprintf(w, "%s\t%d\t%s\n", plain(name), c.Total, sparkline(c.Counts))
}

// maxSparkline is the most buckets that fit on a line.
const maxSparkline = 100

// sparkline draws counts as bars of eight heights, none for 0.
func sparkline(counts []int64) string {
	if len(counts) > maxSparkline {
		return ""
	}
	var most int64
	for _, n := range counts {
		most = max(most, n)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	line := make([]rune, 0, len(counts))
	for _, n := range counts {
		if n <= 0 {
			line = append(line, ' ')
			continue
		}
		line = append(line, bars[(n*int64(len(bars))-1)/most])
	}
	return strings.TrimRight(string(line), " ")
}

// duration shows estimated milliseconds; nil lies beyond the last bound.
func duration(ms *float64) string {
	if ms == nil {
		return fmt.Sprintf("over %v", time.Duration(adapter.LatencyBounds[len(adapter.LatencyBounds)-1])*time.Millisecond)
	}
	return (time.Duration(*ms*1000) * time.Microsecond).Round(100 * time.Microsecond).String()
}
