// Package logins projects when each user logged in last, and how often. It is the
// worked example of docs/extending.md.
package logins

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

const (
	name  = "logins"
	table = "example_logins"
)

// Projection folds login events into one row a user.
type Projection struct{}

var _ projections.Projection = Projection{}

// New returns the projection.
func New() Projection { return Projection{} }

// Name implements projections.Projection.
func (Projection) Name() string { return name }

// Version implements projections.Projection.
func (Projection) Version() int { return 1 }

// Types implements projections.Projection.
func (Projection) Types() []string { return []string{adapter.TypeUserEventReceived} }

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{table} }

// Schema implements projections.Projection.
func (Projection) Schema(d projections.Dialect, t projections.Tables) []string {
	return projections.Statements(d, `
CREATE TABLE {logins} (
  realm      {text} NOT NULL,
  user_id    {text} NOT NULL,
  logins     {int}  NOT NULL,
  last_login {time} NOT NULL,
  PRIMARY KEY (realm, user_id)
);
CREATE INDEX {index}_last ON {logins} (realm, last_login);
`, "{logins}", t.Name(table), "{index}", t.Index(table))
}

type user struct{ realm, id string }

type row struct {
	logins int64
	last   projections.Time
}

// Fold implements projections.Projection.
func (Projection) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	users, err := load(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, e := range b.Events {
		if u, ok := login(e); ok {
			r := users[u]
			r.logins++
			// Late is not new: a login that arrives late is not the last one.
			if e.OccurredAt.After(r.last.Time) {
				r.last.Time = e.OccurredAt
			}
		}
	}
	rows := make([][]any, 0, len(users))
	for u, r := range users {
		rows = append(rows, []any{u.realm, u.id, r.logins, r.last})
	}
	// Two processes lock the rows in the same order.
	slices.SortFunc(rows, func(a, b []any) int {
		return cmp.Or(cmp.Compare(a[0].(string), b[0].(string)), cmp.Compare(a[1].(string), b[1].(string)))
	})
	return func(ctx context.Context, tx *sql.Tx) error {
		return projections.Upsert(ctx, tx, b.DB.Dialect, b.Tables.Name(table),
			[]string{"realm", "user_id"}, []string{"realm", "user_id", "logins", "last_login"}, rows)
	}, nil
}

// load reads the rows of the users in the batch as they are so far.
func load(ctx context.Context, b projections.Batch) (map[user]*row, error) {
	users := make(map[user]*row)
	var keys [][]any
	for _, e := range b.Events {
		if u, ok := login(e); ok && users[u] == nil {
			users[u] = &row{}
			keys = append(keys, []any{u.realm, u.id})
		}
	}
	query := `SELECT realm, user_id, logins, last_login FROM ` + b.Tables.Name(table) + ` WHERE (realm, user_id)`
	err := projections.SelectByKey(ctx, b.DB, query, keys, func(rows *sql.Rows) error {
		var u user
		var r row
		err := rows.Scan(&u.realm, &u.id, &r.logins, &r.last)
		users[u] = &r
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the logins so far: %w", err)
	}
	return users, nil
}

// login is the user who logged in, and false where the event is no login.
func login(e adapter.Decoded) (user, bool) {
	p, ok := e.Payload.(*adapter.UserEventReceived)
	if !ok || p.Type != "LOGIN" || p.UserID == "" {
		return user{}, false
	}
	return user{projections.CleanText(p.Realm), projections.CleanText(p.UserID)}, true
}

// Queries reads the projection. It is safe for concurrent use.
type Queries struct{ db *sql.DB }

// NewQueries reads from db. The tables must have been set up.
func NewQueries(db projections.DB) *Queries { return &Queries{db: db.Read} }

// Last returns when the user logged in last, and how often so far; false where they
// never did.
func (q *Queries) Last(ctx context.Context, realm, userID string) (last time.Time, logins int64, ok bool, err error) {
	var at projections.Time
	err = q.db.QueryRowContext(ctx, `SELECT logins, last_login FROM `+table+` WHERE realm = $1 AND user_id = $2`,
		projections.CleanText(realm), projections.CleanText(userID)).Scan(&logins, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, 0, false, nil
	}
	if err != nil {
		return time.Time{}, 0, false, fmt.Errorf("read the last login of user %s: %w", userID, err)
	}
	return at.Time, logins, true, nil
}
