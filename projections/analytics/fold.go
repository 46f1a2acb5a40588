// Package analytics projects counts over time: events by type, deliveries, calls by
// outcome, error classes, latencies and drift, by hour and realm.
//
// Counts are added to. That is exact because the rows of a projection commit with its
// checkpoint: each event is counted once, however often its batch is folded.
package analytics

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// Name is the projection's name.
const Name = "analytics"

// Base names of the tables.
const (
	countTable = "api_analytics_counts"
	callTable  = "api_analytics_calls"
	driftTable = "api_analytics_drifts"
)

// The metrics, with what name and detail are.
const (
	metricEvents         = "events"          // type
	metricKeycloakEvents = "keycloak_events" // Keycloak's type
	metricDeliveries     = "deliveries"      // source, kind
	metricCalls          = "calls"           // command, status
	metricErrors         = "errors"          // code, command
	metricLatency        = "latency"         // command, index of the histogram's bucket
	metricDrift          = "drift"           // phase, situation
	// metricOpenDrift holds what was opened less what was closed, so that the sum until
	// a moment is what is open then.
	metricOpenDrift = "open_drift" // situation
)

//go:embed schema.sql
var schema string

// Projection folds events into counts.
type Projection struct{}

var _ projections.Projection = Projection{}

// New returns the projection.
func New() Projection { return Projection{} }

// Name implements projections.Projection.
func (Projection) Name() string { return Name }

// Version implements projections.Projection.
func (Projection) Version() int { return 1 }

// Types implements projections.Projection. Events of a new type are counted from the
// first on, because no program has written one before it knew the type.
func (Projection) Types() []string { return adapter.EventTypes() }

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{countTable, callTable, driftTable} }

// Schema implements projections.Projection.
func (Projection) Schema(d projections.Dialect, t projections.Tables) []string {
	return projections.Statements(d, schema,
		"{counts}", t.Name(countTable), "{calls}", t.Name(callTable), "{drifts}", t.Name(driftTable))
}

// Fold implements projections.Projection.
func (Projection) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	f := fold{counts: make(map[count]int64), calls: make(map[uuid.UUID]*call), drifts: make(map[user]string)}
	if err := f.loadCalls(ctx, b); err != nil {
		return nil, err
	}
	if err := f.loadDrifts(ctx, b); err != nil {
		return nil, err
	}
	for _, e := range b.Events {
		f.apply(e)
	}
	counts, calls, drifts := f.rows()
	return func(ctx context.Context, tx *sql.Tx) error {
		d := b.DB.Dialect
		if err := projections.Add(ctx, tx, d, b.Tables.Name(countTable), countKey, []string{"n"}, counts); err != nil {
			return err
		}
		if err := projections.Upsert(ctx, tx, d, b.Tables.Name(callTable), callKey, callColumns, calls); err != nil {
			return err
		}
		return projections.Upsert(ctx, tx, d, b.Tables.Name(driftTable), driftKey, driftColumns, drifts)
	}, nil
}

var (
	countKey     = []string{"metric", "hour", "realm", "name", "detail"}
	callKey      = []string{"call_id"}
	callColumns  = []string{"call_id", "hour", "realm", "command", "status", "code", "timed"}
	driftKey     = []string{"realm", "user_id"}
	driftColumns = []string{"realm", "user_id", "situation"}
)

// count is the key of one number.
type count struct {
	metric string
	hour   time.Time
	realm  string
	name   string
	detail string
}

// call is where a call is counted, and as what.
type call struct {
	hour           time.Time
	realm, command string
	status         adapter.CallStatus
	code           adapter.Code
	timed          bool
}

type user struct{ realm, id string }

// fold is what a batch changes. Every number that is touched gets a row, also where
// what is added comes to nothing: which rows there are does not depend on the batches.
type fold struct {
	counts map[count]int64
	calls  map[uuid.UUID]*call
	// drifts are the situations of drift that is open, empty where it ended.
	drifts map[user]string
}

func (f *fold) add(n int64, metric string, hour time.Time, realm, name, detail string) {
	key := projections.KeyText
	f.counts[count{metric, hour, key(realm), key(name), key(detail)}] += n
}

// hourOf is the hour of an event, in UTC.
func hourOf(t time.Time) time.Time { return t.UTC().Truncate(time.Hour) }

func (f *fold) apply(e adapter.Decoded) {
	hour := hourOf(e.OccurredAt)
	if p, ok := e.Payload.(*adapter.ApiCallRequested); ok {
		c := &call{hour: hour, realm: p.Realm, command: p.Command}
		f.calls[p.CallID] = c
		f.stands(c, adapter.CallRequested, "")
	}
	realm := f.realmOf(e)
	f.add(1, metricEvents, hour, realm, e.Type, "")
	switch p := e.Payload.(type) {
	case *adapter.AdminEventReceived:
		f.add(1, metricDeliveries, hour, realm, p.Source, "admin_event")
		f.add(1, metricKeycloakEvents, hour, realm, strings.TrimSpace(p.ResourceType+" "+p.OperationType), "")
	case *adapter.UserEventReceived:
		f.add(1, metricDeliveries, hour, realm, p.Source, "user_event")
		f.add(1, metricKeycloakEvents, hour, realm, p.Type, "")
	case *adapter.UnrecognizedEventReceived:
		f.add(1, metricDeliveries, hour, realm, p.Source, "unrecognized")
	case *adapter.DeliveryConfirmed:
		f.add(1, metricDeliveries, hour, realm, p.Source, "confirmed")
	case *adapter.ApiCallSucceeded:
		f.outcome(e, adapter.CallSucceeded, "", p.DurationMS)
	case *adapter.ApiCallFailed:
		f.outcome(e, adapter.CallFailed, p.Code, p.DurationMS)
	case *adapter.ApiCallSkipped:
		f.outcome(e, adapter.CallSkipped, p.Code, 0)
	case *adapter.ApiCallOutcomeUnknown:
		f.outcome(e, adapter.CallUnknown, p.Code, p.DurationMS)
	case *adapter.DriftDetected:
		f.drift(hour, p)
	}
}

// realmOf is the realm that an event is about, empty where it does not say.
func (f *fold) realmOf(e adapter.Decoded) string {
	switch p := e.Payload.(type) {
	case *adapter.AdminEventReceived:
		return cmp.Or(p.Realm, p.RealmID)
	case *adapter.UserEventReceived:
		return cmp.Or(p.Realm, p.RealmID)
	case *adapter.UnrecognizedEventReceived:
		return p.Realm
	case *adapter.ReconciliationStarted:
		return p.Realm
	case *adapter.DriftDetected:
		return p.Realm
	case *adapter.ReconciliationCompleted:
		return p.Realm
	case *adapter.ReconciliationAborted:
		return p.Realm
	case adapter.UserPayload:
		return p.User().Realm
	}
	if c := f.calls[e.Stream.AggregateID()]; c != nil {
		return c.realm
	}
	return ""
}

// outcome counts how a call ended, for now. Its time is that of the first outcome: what
// settles an unknown one later says nothing about how long the call took.
func (f *fold) outcome(e adapter.Decoded, status adapter.CallStatus, code adapter.Code, ms float64) {
	c := f.calls[e.Stream.AggregateID()]
	if c == nil {
		return // nothing is known of its request
	}
	f.stands(c, status, code)
	if !c.timed && ms > 0 {
		c.timed = true
		f.add(1, metricLatency, c.hour, c.realm, c.command, strconv.Itoa(latencyBucket(ms)))
	}
}

// stands counts a call as what it is now, and no longer as what it was.
func (f *fold) stands(c *call, status adapter.CallStatus, code adapter.Code) {
	f.countCall(c, -1)
	c.status, c.code = status, code
	f.countCall(c, 1)
}

func (f *fold) countCall(c *call, n int64) {
	if c.status == "" {
		return
	}
	f.add(n, metricCalls, c.hour, c.realm, c.command, string(c.status))
	if c.code != "" {
		f.add(n, metricErrors, c.hour, c.realm, string(c.code), c.command)
	}
}

func latencyBucket(ms float64) int {
	i := 0
	for i < len(adapter.LatencyBounds) && ms > adapter.LatencyBounds[i] {
		i++
	}
	return i
}

func (f *fold) drift(hour time.Time, p *adapter.DriftDetected) {
	f.add(1, metricDrift, hour, p.Realm, string(p.Phase), string(p.Situation))
	u := userOf(p)
	if was := f.drifts[u]; was != "" {
		f.add(-1, metricOpenDrift, hour, p.Realm, was, "")
	}
	f.drifts[u] = ""
	if p.Phase != adapter.DriftEnded {
		f.drifts[u] = projections.KeyText(string(p.Situation))
		f.add(1, metricOpenDrift, hour, p.Realm, f.drifts[u], "")
	}
}

func userOf(p *adapter.DriftDetected) user {
	return user{projections.CleanText(p.Realm), projections.CleanText(p.UserID)}
}

// loadCalls reads the calls whose next events are in the batch.
func (f *fold) loadCalls(ctx context.Context, b projections.Batch) error {
	var keys [][]any
	asked := make(map[uuid.UUID]bool)
	for _, e := range b.Events {
		id := e.Stream.AggregateID()
		if e.Stream.Category() == adapter.CategoryCall && e.Type != adapter.TypeApiCallRequested && !asked[id] {
			asked[id] = true
			keys = append(keys, []any{id.String()})
		}
	}
	query := `SELECT call_id, hour, realm, command, status, code, timed FROM ` + b.Tables.Name(callTable) + ` WHERE (call_id)`
	err := projections.SelectByKey(ctx, b.DB, query, keys, func(rows *sql.Rows) error {
		var id uuid.UUID
		var hour projections.Time
		var c call
		err := rows.Scan(&id, &hour, &c.realm, &c.command, &c.status, &c.code, &c.timed)
		c.hour = hour.Time
		f.calls[id] = &c
		return err
	})
	if err != nil {
		return fmt.Errorf("read the calls so far: %w", err)
	}
	return nil
}

// loadDrifts reads the drift of the users of whose drift the batch tells.
func (f *fold) loadDrifts(ctx context.Context, b projections.Batch) error {
	var keys [][]any
	asked := make(map[user]bool)
	for _, e := range b.Events {
		p, ok := e.Payload.(*adapter.DriftDetected)
		if !ok || asked[userOf(p)] {
			continue
		}
		u := userOf(p)
		asked[u] = true
		keys = append(keys, []any{u.realm, u.id})
	}
	query := `SELECT realm, user_id, situation FROM ` + b.Tables.Name(driftTable) + ` WHERE (realm, user_id)`
	err := projections.SelectByKey(ctx, b.DB, query, keys, func(rows *sql.Rows) error {
		var u user
		var situation string
		err := rows.Scan(&u.realm, &u.id, &situation)
		f.drifts[u] = situation
		return err
	})
	if err != nil {
		return fmt.Errorf("read the drift so far: %w", err)
	}
	return nil
}

// rows are what to write, sorted: two processes lock the rows in the same order.
func (f *fold) rows() (counts, calls, drifts [][]any) {
	for _, k := range slices.SortedFunc(maps.Keys(f.counts), count.compare) {
		counts = append(counts, []any{k.metric, projections.FormatRequired(k.hour), k.realm, k.name, k.detail, f.counts[k]})
	}
	for id, c := range f.calls {
		calls = append(calls, []any{
			id.String(), projections.FormatRequired(c.hour), projections.CleanText(c.realm), projections.CleanText(c.command),
			string(c.status), projections.CleanText(string(c.code)), c.timed,
		})
	}
	slices.SortFunc(calls, func(a, b []any) int { return cmp.Compare(a[0].(string), b[0].(string)) })
	for u, situation := range f.drifts {
		drifts = append(drifts, []any{u.realm, u.id, situation})
	}
	slices.SortFunc(drifts, func(a, b []any) int {
		return cmp.Or(cmp.Compare(a[0].(string), b[0].(string)), cmp.Compare(a[1].(string), b[1].(string)))
	})
	return counts, calls, drifts
}

func (k count) compare(o count) int {
	return cmp.Or(cmp.Compare(k.metric, o.metric), k.hour.Compare(o.hour), cmp.Compare(k.realm, o.realm),
		cmp.Compare(k.name, o.name), cmp.Compare(k.detail, o.detail))
}
