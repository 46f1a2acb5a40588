package reconciliations

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// Queries reads the projection. It is safe for concurrent use.
type Queries struct{ db *sql.DB }

// NewQueries reads from db. The tables must have been set up.
func NewQueries(db projections.DB) *Queries { return &Queries{db: db.Read} }

// Pages of List and Findings.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Get returns a run with its first adapter.MaxRunFindings findings, and false where it
// is not known.
func (q *Queries) Get(ctx context.Context, runID uuid.UUID) (adapter.Reconciliation, bool, error) {
	r, ok, err := q.one(ctx, ` WHERE run_id = $1`, runID.String())
	if err != nil || !ok {
		return r, ok, err
	}
	r.Findings, _, err = q.Findings(ctx, runID, adapter.MaxRunFindings, "")
	return r, err == nil, err
}

// LastComplete returns the realm's newest completed run, without findings, and false
// where there is none.
func (q *Queries) LastComplete(ctx context.Context, realm string) (adapter.Reconciliation, bool, error) {
	return q.one(ctx, ` WHERE realm = $1 AND completed_position IS NOT NULL ORDER BY completed_position DESC LIMIT 1`,
		projections.CleanText(realm))
}

// List returns a page of runs without findings, the newest first, of one realm or of
// all, and the cursor of the next page, empty on the last. limit 0 means DefaultLimit;
// larger ones than MaxLimit are cut. A cursor that is none of ours is
// CodeInvalidRequest.
func (q *Queries) List(ctx context.Context, realm string, limit int, cursor string) ([]adapter.Reconciliation, string, error) {
	limit = pageSize(limit)
	where, args := ` WHERE 1 = 1`, []any(nil)
	if realm != "" {
		args = append(args, projections.CleanText(realm))
		where += ` AND realm = $1`
	}
	if cursor != "" {
		var at, id string
		if err := projections.ReadCursor(cursor, &at, &id); err != nil {
			return nil, "", err
		}
		if _, err := projections.ParseTime(at); err != nil {
			return nil, "", projections.BadCursor(err)
		}
		args = append(args, at, id)
		where += fmt.Sprintf(` AND (started_at, run_id) < ($%d, $%d)`, len(args)-1, len(args))
	}
	args = append(args, limit+1)
	var runs []adapter.Reconciliation
	err := projections.Query(ctx, q.db, func(rows *sql.Rows) error {
		r, err := scanRun(rows.Scan)
		runs = append(runs, r)
		return err
	}, `SELECT state FROM `+runTable+where+fmt.Sprintf(` ORDER BY started_at DESC, run_id DESC LIMIT $%d`, len(args)), args...)
	if err != nil {
		return nil, "", fmt.Errorf("list reconciliation runs: %w", err)
	}
	if len(runs) <= limit {
		return runs, "", nil
	}
	runs = runs[:limit]
	last := runs[limit-1]
	at, _ := projections.FormatTime(last.StartedAt).(string)
	return runs, projections.Cursor(at, last.RunID.String()), nil
}

// Findings returns a page of what a completed run found, by user id, and the cursor of
// the next page, empty on the last. A run that is not completed has found nothing.
func (q *Queries) Findings(ctx context.Context, runID uuid.UUID, limit int, cursor string) ([]adapter.Finding, string, error) {
	limit = pageSize(limit)
	var after string
	if cursor != "" {
		if err := projections.ReadCursor(cursor, &after); err != nil {
			return nil, "", err
		}
	}
	findings := []adapter.Finding{}
	err := projections.Query(ctx, q.db, func(rows *sql.Rows) error {
		f, err := scanFinding(rows)
		findings = append(findings, f)
		return err
	}, `SELECT d.finding FROM `+runTable+` r JOIN `+driftTable+` d
		ON d.realm = r.realm AND d.opened_position <= r.completed_position
		AND (d.closed_position IS NULL OR d.closed_position > r.completed_position)
		WHERE r.run_id = $1 AND d.user_id > $2 ORDER BY d.user_id LIMIT $3`,
		runID.String(), after, limit+1)
	if err != nil {
		return nil, "", fmt.Errorf("findings of run %s: %w", runID, err)
	}
	if len(findings) <= limit {
		return findings, "", nil
	}
	findings = findings[:limit]
	return findings, projections.Cursor(findings[limit-1].UserID), nil
}

// OpenDrifts returns the drift of a realm that has not ended, by user id.
func (q *Queries) OpenDrifts(ctx context.Context, realm string) (map[string]adapter.Finding, error) {
	open := make(map[string]adapter.Finding)
	err := projections.Query(ctx, q.db, func(rows *sql.Rows) error {
		f, err := scanFinding(rows)
		open[f.UserID] = f
		return err
	}, `SELECT finding FROM `+driftTable+` WHERE realm = $1 AND closed_position IS NULL`, projections.CleanText(realm))
	if err != nil {
		return nil, fmt.Errorf("open drift of realm %s: %w", realm, err)
	}
	return open, nil
}

func pageSize(limit int) int {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return min(limit, MaxLimit)
}

func (q *Queries) one(ctx context.Context, where string, args ...any) (adapter.Reconciliation, bool, error) {
	r, err := scanRun(q.db.QueryRowContext(ctx, `SELECT state FROM `+runTable+where, args...).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("read a reconciliation run: %w", err)
	}
	return r, true, nil
}

func scanRun(scan func(...any) error) (adapter.Reconciliation, error) {
	var state []byte
	var r adapter.Reconciliation
	if err := scan(&state); err != nil {
		return r, err
	}
	return r, json.Unmarshal(state, &r)
}

func scanFinding(rows *sql.Rows) (adapter.Finding, error) {
	var finding []byte
	var f adapter.Finding
	if err := rows.Scan(&finding); err != nil {
		return f, err
	}
	return f, json.Unmarshal(finding, &f)
}
