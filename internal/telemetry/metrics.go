package telemetry

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Other is the label value that stands for every name that is not configured.
const Other = "other"

// Metrics are all metrics of keytrail. Any number of goroutines may use them.
//
// The values of every label come from a small fixed set: realms and sources from
// the configuration (use [Metrics.Source] and [Metrics.Realm] for names that come
// from outside), templates, commands, outcomes, situations and statuses from
// constants in code, HTTP methods and status codes through [Method] and [Status].
// No user id, no path and no error text is ever a label.
type Metrics struct {
	Deliveries       *prometheus.CounterVec   // source, kind, outcome
	WebhookRequests  *prometheus.CounterVec   // source, status
	KeycloakRequests *prometheus.CounterVec   // method, template, status
	KeycloakSeconds  *prometheus.HistogramVec // method, template
	Calls            *prometheus.CounterVec   // command, outcome

	ProjectionPosition *prometheus.GaugeVec // projection
	ProjectionLag      *prometheus.GaugeVec // projection

	PollRuns        *prometheus.CounterVec // realm, outcome
	PollLastSuccess *prometheus.GaugeVec   // realm

	Reconciliations        *prometheus.CounterVec // realm, status
	ReconciliationFindings *prometheus.GaugeVec   // realm, situation

	StoreAppendSeconds prometheus.Histogram
	// AppendsWaiting tells how many appends wait for their turn; nil is none.
	AppendsWaiting atomic.Pointer[func() int]

	Snapshots *prometheus.CounterVec // outcome

	sources, realms map[string]bool
}

// Names are the configured names that may be label values.
type Names struct {
	Sources []string
	Realms  []string
}

// NewMetrics makes the metrics and registers them on reg. It fails when reg
// refuses one, for example because they are registered already.
func NewMetrics(reg prometheus.Registerer, names Names) (*Metrics, error) {
	r := registrar{reg: reg}
	m := &Metrics{
		Deliveries: r.counter("keytrail_deliveries_total",
			"Inbound Keycloak events by source (a configured webhook source, or poll), kind (admin, user, unrecognized) and outcome (recorded, duplicate, confirmed). Every sighting counts once.",
			"source", "kind", "outcome"),
		WebhookRequests: r.counter("keytrail_webhook_requests_total",
			"Webhook requests by configured source (other: an unknown one) and HTTP status that was answered.",
			"source", "status"),
		KeycloakRequests: r.counter("keytrail_keycloak_requests_total",
			"Requests on the wire to Keycloak, each retry counted, by HTTP method, URL template and HTTP status (none: no answer came).",
			"method", "template", "status"),
		KeycloakSeconds: r.histograms("keytrail_keycloak_request_duration_seconds",
			"Seconds from a request's first byte to the end of Keycloak's answer, each retry by itself, by HTTP method and URL template.",
			[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}, "method", "template"),
		Calls: r.counter("keytrail_calls_total",
			"Outbound calls that reached an outcome, by command and outcome (succeeded, failed, unknown, skipped). Retries of one call count once.",
			"command", "outcome"),
		ProjectionPosition: r.gauge("keytrail_projection_position",
			"Global position of the last event that the projection has folded and committed.",
			"projection"),
		ProjectionLag: r.gauge("keytrail_projection_lag_events",
			"Events between the head of the log and the projection's position; a number that keeps growing means that the projection stands still.",
			"projection"),
		PollRuns: r.counter("keytrail_poll_runs_total",
			"Runs of the poller that fetches stored events, by realm and outcome (ok, failed).",
			"realm", "outcome"),
		PollLastSuccess: r.gauge("keytrail_poll_last_success_timestamp_seconds",
			"Unix time, in seconds, of the last complete poll of the realm; 0 before the first.",
			"realm"),
		Reconciliations: r.counter("keytrail_reconciliations_total",
			"Reconciliation runs that ended, by realm and status (completed, invalid, aborted).",
			"realm", "status"),
		ReconciliationFindings: r.gauge("keytrail_reconciliation_findings",
			"Differences that the realm's last completed reconciliation run found, by situation (changed, missing_live, unexpected_live, …).",
			"realm", "situation"),
		StoreAppendSeconds: r.histogram("keytrail_store_append_seconds",
			"Seconds that one append to the event store took, from the call to the durable commit, waiting for a group commit included.",
			[]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5}),
		Snapshots: r.counter("keytrail_snapshots_total",
			"Snapshots of users whose streams have grown long, by outcome (saved, failed). Without one the stream is folded.",
			"outcome"),
		sources: set(names.Sources),
		realms:  set(names.Realms),
	}
	r.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keytrail_store_appends_waiting", Help: "Appends that wait for the transaction before theirs; beyond 4096 they are refused.",
	}, func() float64 {
		if waiting := m.AppendsWaiting.Load(); waiting != nil {
			return float64((*waiting)())
		}
		return 0
	}))
	if err := errors.Join(r.errs...); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	for realm := range m.realms {
		m.PollLastSuccess.WithLabelValues(realm) // an alert on age needs a 0 before the first success
	}
	return m, nil
}

// Source returns name when it is a configured source or "poll", and Other when not.
func (m *Metrics) Source(name string) string {
	if name == "poll" || m.sources[name] {
		return name
	}
	return Other
}

// Realm returns name when it is a configured realm, and Other when not.
func (m *Metrics) Realm(name string) string {
	if m.realms[name] {
		return name
	}
	return Other
}

// Status returns the label value of an HTTP status code; 0 is none, for a request
// that got no answer.
func Status(code int) string {
	switch {
	case code == 0:
		return "none"
	case code < 100 || code > 599:
		return Other
	}
	return strconv.Itoa(code)
}

// Method returns the label value of an HTTP method; "" is GET, as in net/http.
func Method(method string) string {
	switch method {
	case "":
		return http.MethodGet
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return Other
}

// registrar registers collectors and keeps what went wrong.
type registrar struct {
	reg  prometheus.Registerer
	errs []error
}

func (r *registrar) add(c prometheus.Collector) {
	if err := r.reg.Register(c); err != nil {
		r.errs = append(r.errs, err)
	}
}

func (r *registrar) counter(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.add(c)
	return c
}

func (r *registrar) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.add(g)
	return g
}

func (r *registrar) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.add(h)
	return h
}

func (r *registrar) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	r.add(h)
	return h
}

func set(names []string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, name := range names {
		out[name] = true
	}
	return out
}
