package users

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// Unread returns users of the realms of whom events have left something open before
// the time given, the longest open first.
func (q *Queries) Unread(ctx context.Context, realms []string, before time.Time, limit int) ([]adapter.User, error) {
	args := []any{projections.FormatTime(before), limit}
	var places []string
	for _, realm := range realms {
		args = append(args, projections.CleanText(realm))
		places = append(places, fmt.Sprintf("$%d", len(args)))
	}
	if len(places) == 0 {
		return nil, nil
	}
	return q.many(ctx, selectStates+` WHERE unread_since IS NOT NULL AND unread_since <= $1 AND realm IN (`+strings.Join(places, ", ")+
		`) ORDER BY unread_since LIMIT $2`, args...)
}

// Users returns the users of these ids, deleted ones included, by id; ids never heard
// of are left out.
func (q *Queries) Users(ctx context.Context, realm string, ids []string) (map[string]adapter.User, error) {
	keys := make([][]any, 0, len(ids))
	for _, id := range ids {
		keys = append(keys, []any{projections.CleanText(realm), projections.CleanText(id)})
	}
	found := make(map[string]adapter.User, len(ids))
	err := projections.SelectByKey(ctx, q.db, selectStates+` WHERE (realm, user_id)`, keys, func(rows *sql.Rows) error {
		var state []byte
		if err := rows.Scan(&state); err != nil {
			return err
		}
		u, err := decode(state)
		found[u.ID] = u
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read users of realm %s: %w", realm, err)
	}
	return found, nil
}
