// Package calls projects the outbound Admin API calls, one row a call.
package calls

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
)

// Name is the projection's name.
const Name = "calls"

// table is the base name of the table.
const table = "api_calls"

//go:embed schema.sql
var schema string

// Projection folds call events into one row a call.
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
		adapter.TypeApiCallRequested, adapter.TypeApiCallPreconditionRead, adapter.TypeApiCallAttempted,
		adapter.TypeApiCallSucceeded, adapter.TypeApiCallFailed, adapter.TypeApiCallSkipped,
		adapter.TypeApiCallOutcomeUnknown, adapter.TypeApiCallEchoed,
	}
}

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{table} }

// Schema implements projections.Projection.
func (Projection) Schema(d projections.Dialect, t projections.Tables) []string {
	return projections.Statements(d, schema, "{calls}", t.Name(table), "{index}", t.Index(table))
}

type row struct {
	call     adapter.Call
	position eventstore.Position
}

// Fold implements projections.Projection. A call's stream has one writer at a time, so
// the order of the log is the order of what happened.
func (Projection) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	calls, err := load(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, e := range b.Events {
		c := calls[e.Stream.AggregateID()]
		c.call.Apply(e)
		c.position = e.Position
	}
	rows := make([][]any, 0, len(calls))
	for id, c := range calls {
		values, err := c.values(id)
		if err != nil {
			return nil, err
		}
		rows = append(rows, values)
	}
	// Two processes lock the rows in the same order.
	slices.SortFunc(rows, func(a, b []any) int { return cmp.Compare(a[0].(string), b[0].(string)) })
	return func(ctx context.Context, tx *sql.Tx) error {
		return projections.Upsert(ctx, tx, b.DB.Dialect, b.Tables.Name(table), keyColumns, columns, rows)
	}, nil
}

// load reads the calls of the batch as they are so far.
func load(ctx context.Context, b projections.Batch) (map[uuid.UUID]*row, error) {
	calls := make(map[uuid.UUID]*row)
	var keys [][]any
	for _, e := range b.Events {
		id := e.Stream.AggregateID()
		if _, ok := calls[id]; !ok {
			calls[id] = &row{}
			keys = append(keys, []any{id.String()})
		}
	}
	query := `SELECT call_id, state FROM ` + b.Tables.Name(table) + ` WHERE (call_id)`
	err := projections.SelectByKey(ctx, b.DB, query, keys, func(rows *sql.Rows) error {
		var id uuid.UUID
		var state []byte
		if err := rows.Scan(&id, &state); err != nil {
			return err
		}
		return json.Unmarshal(state, &calls[id].call)
	})
	if err != nil {
		return nil, fmt.Errorf("read the calls so far: %w", err)
	}
	return calls, nil
}

var (
	keyColumns = []string{"call_id"}
	columns    = []string{
		"call_id", "correlation_id", "command", "realm", "user_id", "method", "url_template", "status", "code", "error",
		"actor", "reason", "requested_at", "finished_at", "state", "version", "position",
	}
)

func (r *row) values(id uuid.UUID) ([]any, error) {
	c := r.call
	state, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("state of call %s: %w", id, err)
	}
	actor := ""
	if c.Actor != nil {
		actor = c.Actor.String()
	}
	var finished any
	if c.FinishedAt != nil {
		finished = projections.FormatTime(*c.FinishedAt)
	}
	clean := projections.CleanText
	return []any{
		id.String(), c.CorrelationID.String(), clean(c.Command), clean(c.Realm), clean(c.UserID), clean(c.Method),
		clean(c.URLTemplate), string(c.Status), clean(string(c.Code)), clean(c.Error), clean(actor), clean(c.Reason),
		projections.FormatRequired(c.RequestedAt), finished, string(state), int64(c.Version), int64(r.position),
	}, nil
}
