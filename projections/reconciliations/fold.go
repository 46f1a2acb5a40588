// Package reconciliations projects reconciliation runs and the drift that they saw.
package reconciliations

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
)

// Name is the projection's name.
const Name = "reconciliations"

// Base names of the tables.
const (
	runTable   = "api_reconciliations"
	driftTable = "api_drifts"
)

//go:embed schema.sql
var schema string

// Projection folds the events of reconciliation runs into runs and drifts.
type Projection struct{}

var _ projections.Projection = Projection{}

// New returns the projection.
func New() Projection { return Projection{} }

// Name implements projections.Projection.
func (Projection) Name() string { return Name }

// Version implements projections.Projection.
func (Projection) Version() int { return 1 }

// Types implements projections.Projection.
func (Projection) Types() []string {
	return []string{
		adapter.TypeReconciliationStarted, adapter.TypeDriftDetected,
		adapter.TypeReconciliationCompleted, adapter.TypeReconciliationAborted,
	}
}

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{runTable, driftTable} }

// Schema implements projections.Projection.
func (Projection) Schema(d projections.Dialect, t projections.Tables) []string {
	return projections.Statements(d, schema,
		"{runs}", t.Name(runTable), "{run_index}", t.Index(runTable),
		"{drifts}", t.Name(driftTable), "{drift_index}", t.Index(driftTable))
}

// Fold implements projections.Projection.
func (Projection) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	runs, err := foldRuns(ctx, b)
	if err != nil {
		return nil, err
	}
	drifts, err := foldDrifts(ctx, b)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, tx *sql.Tx) error {
		if err := projections.Upsert(ctx, tx, b.DB.Dialect, b.Tables.Name(runTable), runKey, runColumns, runs); err != nil {
			return err
		}
		return projections.Upsert(ctx, tx, b.DB.Dialect, b.Tables.Name(driftTable), driftKey, driftColumns, drifts)
	}, nil
}

var (
	runKey     = []string{"run_id"}
	runColumns = []string{
		"run_id", "realm", "status", "started_at", "finished_at", "state", "version", "position", "completed_position",
	}
	driftKey     = []string{"opened_position"}
	driftColumns = []string{
		"opened_position", "closed_position", "realm", "user_id", "run_id", "situation", "opened_at", "closed_at", "finding",
	}
)

type run struct {
	state     adapter.Reconciliation
	position  eventstore.Position
	completed sql.NullInt64
}

func foldRuns(ctx context.Context, b projections.Batch) ([][]any, error) {
	runs := make(map[uuid.UUID]*run)
	var keys [][]any
	for _, e := range b.Events {
		id := e.Stream.AggregateID()
		if _, ok := runs[id]; !ok {
			runs[id] = &run{}
			keys = append(keys, []any{id.String()})
		}
	}
	err := projections.SelectByKey(ctx, b.DB,
		`SELECT run_id, state, completed_position FROM `+b.Tables.Name(runTable)+` WHERE (run_id)`, keys,
		func(rows *sql.Rows) error {
			var id uuid.UUID
			var state []byte
			var completed sql.NullInt64
			if err := rows.Scan(&id, &state, &completed); err != nil {
				return err
			}
			runs[id].completed = completed
			return json.Unmarshal(state, &runs[id].state)
		})
	if err != nil {
		return nil, fmt.Errorf("read the runs so far: %w", err)
	}
	for _, e := range b.Events {
		r := runs[e.Stream.AggregateID()]
		r.state.Apply(e)
		r.position = e.Position
		if _, ok := e.Payload.(*adapter.ReconciliationCompleted); ok {
			r.completed = sql.NullInt64{Int64: int64(e.Position), Valid: true}
		}
	}
	rows := make([][]any, 0, len(runs))
	for id, r := range runs {
		state, err := json.Marshal(r.state)
		if err != nil {
			return nil, fmt.Errorf("state of run %s: %w", id, err)
		}
		var finished any
		if r.state.FinishedAt != nil {
			finished = projections.FormatTime(*r.state.FinishedAt)
		}
		rows = append(rows, []any{
			id.String(), projections.CleanText(r.state.Realm), projections.CleanText(string(r.state.Status)),
			projections.FormatRequired(r.state.StartedAt), finished, string(state),
			int64(r.state.Version), int64(r.position), r.completed,
		})
	}
	// Two processes lock the rows in the same order.
	slices.SortFunc(rows, func(a, b []any) int { return cmp.Compare(a[0].(string), b[0].(string)) })
	return rows, nil
}

type driftKeyOf struct{ realm, userID string }

// drift is a drift in one form.
type drift struct {
	opened             int64
	closed             sql.NullInt64
	openedAt, closedAt projections.Time
	runID, situation   string
	finding            []byte
}

func foldDrifts(ctx context.Context, b projections.Batch) ([][]any, error) {
	open := make(map[driftKeyOf]*drift)
	var keys [][]any
	for _, e := range b.Events {
		if p, ok := e.Payload.(*adapter.DriftDetected); ok {
			k := keyOf(p)
			if _, ok := open[k]; !ok {
				open[k] = nil
				keys = append(keys, []any{k.realm, k.userID})
			}
		}
	}
	err := projections.SelectByKey(ctx, b.DB,
		`SELECT realm, user_id, opened_position, run_id, situation, opened_at, finding
		FROM `+b.Tables.Name(driftTable)+` WHERE closed_position IS NULL AND (realm, user_id)`, keys,
		func(rows *sql.Rows) error {
			var k driftKeyOf
			var d drift
			if err := rows.Scan(&k.realm, &k.userID, &d.opened, &d.runID, &d.situation, &d.openedAt, &d.finding); err != nil {
				return err
			}
			open[k] = &d
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read the drift so far: %w", err)
	}
	changed := make(map[int64][]any)
	for _, e := range b.Events {
		p, ok := e.Payload.(*adapter.DriftDetected)
		if !ok {
			continue
		}
		k := keyOf(p)
		if d := open[k]; d != nil {
			d.closed = sql.NullInt64{Int64: int64(e.Position), Valid: true}
			d.closedAt.Time = e.OccurredAt
			changed[d.opened] = d.values(k)
			open[k] = nil
		}
		if p.Phase == adapter.DriftEnded {
			continue
		}
		finding, err := json.Marshal(adapter.FindingOf(e, p))
		if err != nil {
			return nil, fmt.Errorf("finding of event %s: %w", e.ID, err)
		}
		d := &drift{
			opened: int64(e.Position), openedAt: projections.Time{Time: e.OccurredAt},
			runID: p.RunID.String(), situation: projections.CleanText(string(p.Situation)), finding: finding,
		}
		open[k] = d
		changed[d.opened] = d.values(k)
	}
	// What closes comes before what opens on the same user, because only one may be open.
	rows := make([][]any, 0, len(changed))
	for _, opened := range slices.Sorted(maps.Keys(changed)) {
		rows = append(rows, changed[opened])
	}
	return rows, nil
}

func keyOf(p *adapter.DriftDetected) driftKeyOf {
	return driftKeyOf{projections.CleanText(p.Realm), projections.CleanText(p.UserID)}
}

func (d *drift) values(k driftKeyOf) []any {
	return []any{d.opened, d.closed, k.realm, k.userID, d.runID, d.situation, d.openedAt, d.closedAt, string(d.finding)}
}
