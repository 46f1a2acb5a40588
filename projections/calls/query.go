package calls

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// Queries reads the projection. It is safe for concurrent use.
type Queries struct{ db *sql.DB }

// NewQueries reads from db. The tables must have been set up.
func NewQueries(db projections.DB) *Queries { return &Queries{db: db.Read} }

// Get returns one call, and false where it is not known.
func (q *Queries) Get(ctx context.Context, id uuid.UUID) (adapter.Call, bool, error) {
	var state []byte
	err := q.db.QueryRowContext(ctx, `SELECT state FROM `+table+` WHERE call_id = $1`, id.String()).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return adapter.Call{}, false, nil
	}
	if err != nil {
		return adapter.Call{}, false, fmt.Errorf("read call %s: %w", id, err)
	}
	c, err := decode(state)
	return c, err == nil, err
}

// Filter selects calls. Conditions are combined with and; zero values select all.
type Filter struct {
	// Statuses are the statuses to select, any of them.
	Statuses      []adapter.CallStatus
	Realm         string
	UserID        string
	CorrelationID uuid.UUID
}

// Pages of List.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// List returns a page of calls, the newest request first, and the cursor of the next
// page, empty on the last. limit 0 means DefaultLimit; larger ones than MaxLimit are
// cut. A cursor that is none of ours is CodeInvalidRequest.
func (q *Queries) List(ctx context.Context, f Filter, limit int, cursor string) ([]adapter.Call, string, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, MaxLimit)
	where, args := f.where()
	if cursor != "" {
		var at, id string
		if err := projections.ReadCursor(cursor, &at, &id); err != nil {
			return nil, "", err
		}
		if _, err := projections.ParseTime(at); err != nil {
			return nil, "", projections.BadCursor(err)
		}
		args = append(args, at, id)
		where += fmt.Sprintf(" AND (requested_at, call_id) < ($%d, $%d)", len(args)-1, len(args))
	}
	args = append(args, limit+1)
	calls, err := q.many(ctx, where+fmt.Sprintf(` ORDER BY requested_at DESC, call_id DESC LIMIT $%d`, len(args)), args)
	if err != nil || len(calls) <= limit {
		return calls, "", err
	}
	calls = calls[:limit]
	last := calls[limit-1]
	at, _ := projections.FormatTime(last.RequestedAt).(string)
	return calls, projections.Cursor(at, last.CallID.String()), nil
}

// Open returns the writes to a user whose outcome is still to come, the oldest first,
// however old; with an empty user id those to users whose id is not known yet: their
// creations, and commands that name them. Reads are left out: one that was cut short
// says nothing about the user.
func (q *Queries) Open(ctx context.Context, realm, userID string) ([]adapter.Call, error) {
	return q.many(ctx, ` WHERE realm = $1 AND user_id = $2 AND status IN ('requested', 'unknown') AND method <> 'GET'
		ORDER BY requested_at, call_id`, []any{projections.CleanText(realm), projections.CleanText(userID)})
}

// Count is the number of calls that the filter selects.
func (q *Queries) Count(ctx context.Context, f Filter) (int, error) {
	where, args := f.where()
	var n int
	if err := q.db.QueryRowContext(ctx, `SELECT count(*) FROM `+table+where, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count calls: %w", err)
	}
	return n, nil
}

func (f Filter) where() (string, []any) {
	where, args := " WHERE 1 = 1", []any(nil)
	add := func(condition string, value any) {
		args = append(args, value)
		where += fmt.Sprintf(" AND "+condition, len(args))
	}
	if len(f.Statuses) > 0 {
		var places []string
		for _, s := range f.Statuses {
			args = append(args, projections.CleanText(string(s)))
			places = append(places, fmt.Sprintf("$%d", len(args)))
		}
		where += " AND status IN (" + strings.Join(places, ", ") + ")"
	}
	if f.Realm != "" {
		add("realm = $%d", projections.CleanText(f.Realm))
	}
	if f.UserID != "" {
		add("user_id = $%d", projections.CleanText(f.UserID))
	}
	if f.CorrelationID != uuid.Nil {
		add("correlation_id = $%d", f.CorrelationID.String())
	}
	return where, args
}

func (q *Queries) many(ctx context.Context, where string, args []any) ([]adapter.Call, error) {
	var calls []adapter.Call
	err := projections.Query(ctx, q.db, func(rows *sql.Rows) error {
		var state []byte
		if err := rows.Scan(&state); err != nil {
			return err
		}
		c, err := decode(state)
		calls = append(calls, c)
		return err
	}, `SELECT state FROM `+table+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read calls: %w", err)
	}
	return calls, nil
}

func decode(state []byte) (adapter.Call, error) {
	var c adapter.Call
	if err := json.Unmarshal(state, &c); err != nil {
		return c, fmt.Errorf("state of a call: %w", err)
	}
	return c, nil
}
