package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// Queries reads the projection. It is safe for concurrent use.
type Queries struct{ db projections.DB }

// NewQueries reads from db. The tables must have been set up.
func NewQueries(db projections.DB) *Queries { return &Queries{db: db} }

const selectStates = `SELECT state FROM ` + table

// Get returns the user with this id, deleted or not, and false where none is known.
func (q *Queries) Get(ctx context.Context, realm, id string) (adapter.User, bool, error) {
	return q.one(ctx, selectStates+` WHERE realm = $1 AND user_id = $2`, projections.CleanText(realm), projections.CleanText(id))
}

// ByUsername returns the user who has this name. Names are compared in lower case, as
// Keycloak keeps them. Where includeDeleted, and nobody has the name now, it is the
// one who had it last.
func (q *Queries) ByUsername(ctx context.Context, realm, name string, includeDeleted bool) (adapter.User, bool, error) {
	where := ` WHERE realm = $1 AND username = $2`
	if !includeDeleted {
		where += ` AND NOT deleted`
	}
	return q.one(ctx, selectStates+where+` ORDER BY deleted, last_occurred_at DESC, user_id LIMIT 1`,
		projections.CleanText(realm), projections.CleanText(strings.ToLower(name)))
}

// Find returns the users whose id is idOrName or, where there is none, whose user name
// it is: those who have it now or, where there is none, those who had it. It looks in
// the realms named, or in all.
func (q *Queries) Find(ctx context.Context, idOrName string, realms ...string) ([]adapter.User, error) {
	name := strings.ToLower(idOrName)
	for _, try := range []struct{ where, value string }{
		{"user_id = $1", idOrName},
		{"username = $1 AND NOT deleted", name},
		{"username = $1 AND deleted", name},
	} {
		args := []any{projections.CleanText(try.value)}
		where := try.where
		if len(realms) > 0 {
			var places []string
			for _, realm := range realms {
				args = append(args, projections.CleanText(realm))
				places = append(places, fmt.Sprintf("$%d", len(args)))
			}
			where += " AND realm IN (" + strings.Join(places, ", ") + ")"
		}
		found, err := q.many(ctx, selectStates+` WHERE `+where+` ORDER BY realm, user_id`, args...)
		if err != nil || len(found) > 0 {
			return found, err
		}
	}
	return nil, nil
}

// Filter selects users. Conditions are combined with and; zero values select all.
type Filter struct {
	Realm string
	// Username and Email are exact, in any case.
	Username, Email string
	Enabled         *bool
	Deleted         *bool
	// Search is part of a user name, address, first or last name, in any case.
	Search string
}

// Pages of List.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// List returns a page of users in the order of realm, user name and id, and the cursor
// of the next page, empty on the last. limit 0 means DefaultLimit; larger ones than
// MaxLimit are cut. A cursor that is none of ours is CodeInvalidRequest.
func (q *Queries) List(ctx context.Context, f Filter, limit int, cursor string) ([]adapter.User, string, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, MaxLimit)
	where, args := f.where()
	if cursor != "" {
		var after [3]string
		if err := projections.ReadCursor(cursor, &after[0], &after[1], &after[2]); err != nil {
			return nil, "", err
		}
		n := len(args)
		where += fmt.Sprintf(" AND (realm, username, user_id) > ($%d, $%d, $%d)", n+1, n+2, n+3)
		args = append(args, after[0], after[1], after[2])
	}
	args = append(args, limit+1)
	var users []adapter.User
	var keys [][3]string
	err := projections.Query(ctx, q.db.Read, func(rows *sql.Rows) error {
		var k [3]string
		var state []byte
		if err := rows.Scan(&k[0], &k[1], &k[2], &state); err != nil {
			return err
		}
		u, err := decode(state)
		users, keys = append(users, u), append(keys, k)
		return err
	}, `SELECT realm, username, user_id, state FROM `+table+where+fmt.Sprintf(` ORDER BY realm, username, user_id LIMIT $%d`, len(args)), args...)
	if err != nil {
		return nil, "", fmt.Errorf("list users: %w", err)
	}
	if len(users) <= limit {
		return users, "", nil
	}
	return users[:limit], projections.Cursor(keys[limit-1][:]...), nil
}

// Each calls f for every user of the realm, deleted ones included, in the order of
// ids, and ends with the first error. It holds one page in memory and no transaction:
// each user is as it was when its page was read.
func (q *Queries) Each(ctx context.Context, realm string, f func(adapter.User) error) error {
	const page = MaxLimit
	realm = projections.CleanText(realm)
	for after := ""; ; {
		var users []adapter.User
		err := projections.Query(ctx, q.db.Read, func(rows *sql.Rows) error {
			var state []byte
			if err := rows.Scan(&after, &state); err != nil {
				return err
			}
			u, err := decode(state)
			users = append(users, u)
			return err
		}, `SELECT user_id, state FROM `+table+` WHERE realm = $1 AND user_id > $2 ORDER BY user_id LIMIT $3`, realm, after, page)
		if err != nil {
			return fmt.Errorf("read the users of realm %s: %w", realm, err)
		}
		for _, u := range users {
			if err := f(u); err != nil {
				return err
			}
		}
		if len(users) < page {
			return nil
		}
	}
}

// Count is the number of users that the filter selects.
func (q *Queries) Count(ctx context.Context, f Filter) (int, error) {
	where, args := f.where()
	var n int
	if err := q.db.Read.QueryRowContext(ctx, `SELECT count(*) FROM `+table+where, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count users: %w", err)
	}
	return n, nil
}

func (f Filter) where() (string, []any) {
	where, args := " WHERE 1 = 1", []any(nil)
	add := func(condition string, value any) {
		args = append(args, value)
		where += fmt.Sprintf(" AND "+condition, len(args))
	}
	if f.Realm != "" {
		add("realm = $%d", projections.CleanText(f.Realm))
	}
	if f.Username != "" {
		add("username = $%d", projections.CleanText(strings.ToLower(f.Username)))
	}
	if f.Email != "" {
		add("email = $%d", projections.CleanText(strings.ToLower(f.Email)))
	}
	if f.Enabled != nil {
		add("enabled = $%d", *f.Enabled) // null where it is not known
	}
	if f.Deleted != nil {
		add("deleted = $%d", *f.Deleted)
	}
	if f.Search != "" {
		pattern := "%" + likeEscaper.Replace(projections.CleanText(strings.ToLower(f.Search))) + "%"
		add(`search LIKE $%d ESCAPE '\'`, pattern)
	}
	return where, args
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (q *Queries) one(ctx context.Context, query string, args ...any) (adapter.User, bool, error) {
	var state []byte
	err := q.db.Read.QueryRowContext(ctx, query, args...).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return adapter.User{}, false, nil
	}
	if err != nil {
		return adapter.User{}, false, fmt.Errorf("read a user: %w", err)
	}
	u, err := decode(state)
	return u, err == nil, err
}

func (q *Queries) many(ctx context.Context, query string, args ...any) ([]adapter.User, error) {
	var users []adapter.User
	err := projections.Query(ctx, q.db.Read, func(rows *sql.Rows) error {
		var state []byte
		if err := rows.Scan(&state); err != nil {
			return err
		}
		u, err := decode(state)
		users = append(users, u)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return users, nil
}
