package audit

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// Queries reads the projection. It is safe for concurrent use.
type Queries struct{ db *sql.DB }

// NewQueries reads from db. The tables must have been set up.
func NewQueries(db projections.DB) *Queries { return &Queries{db: db.Read} }

// Filter selects entries.
type Filter = adapter.AuditFilter

// Pages of List.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// List returns a page of entries, the newest first by when they occurred, and the
// cursor of the next page, empty on the last. limit 0 means DefaultLimit; larger ones
// than MaxLimit are cut. A cursor that is none of ours is CodeInvalidRequest.
//
// The name of an actor also finds the entries that have only the id of an account that
// has been seen under that name. They are shown without it: what an entry says is what
// was told at that time.
func (q *Queries) List(ctx context.Context, f Filter, limit int, cursor string) ([]adapter.AuditEntry, string, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, MaxLimit)
	var known []string
	if f.Actor != "" {
		var err error
		if known, err = q.knownAs(ctx, f.Actor); err != nil {
			return nil, "", err
		}
	}
	query, args, err := statement(f, known, limit+1, cursor)
	if err != nil {
		return nil, "", err
	}
	type rowKey struct {
		at       projections.Time
		position int64
	}
	var entries []adapter.AuditEntry
	var keys []rowKey
	err = projections.Query(ctx, q.db, func(rows *sql.Rows) error {
		var k rowKey
		var entry []byte
		if err := rows.Scan(&k.at, &k.position, &entry); err != nil {
			return err
		}
		a, err := decode(entry)
		entries, keys = append(entries, a), append(keys, k)
		return err
	}, query, args...)
	if err != nil {
		return nil, "", fmt.Errorf("list the audit trail: %w", err)
	}
	if len(entries) <= limit {
		return entries, "", nil
	}
	last := keys[limit-1]
	at, _ := projections.FormatTime(last.at.Time).(string)
	return entries[:limit], projections.Cursor(at, strconv.FormatInt(last.position, 10)), nil
}

// maxApart is how many accounts of one name are read apart: SQLite takes no more than
// 500 parts of a statement, and a filter by user doubles them.
const maxApart = 50

// statement is the query of one page. A name may be a user's id or user name, which are
// columns with an index each: their rows are read apart, each in the order of its own
// index and no more than a page of them, and then put together. known are the ids of
// accounts by which entries without a name are found, too.
func statement(f Filter, known []string, limit int, cursor string) (string, []any, error) {
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	where := "1 = 1"
	if f.Realm != "" {
		where += " AND realm = " + arg(projections.KeyText(f.Realm))
	}
	if f.Type != "" {
		column := "action"
		if slices.Contains(types, f.Type) {
			column = "event_type"
		}
		where += " AND " + column + " = " + arg(projections.KeyText(f.Type))
	}
	if !f.From.IsZero() {
		where += " AND occurred_at >= " + arg(projections.FormatTime(f.From))
	}
	if !f.To.IsZero() {
		where += " AND occurred_at < " + arg(projections.FormatTime(f.To))
	}
	if cursor != "" {
		var at, position string
		if err := projections.ReadCursor(cursor, &at, &position); err != nil {
			return "", nil, err
		}
		if _, err := projections.ParseTime(at); err != nil {
			return "", nil, projections.BadCursor(err)
		}
		n, err := strconv.ParseInt(position, 10, 64)
		if err != nil {
			return "", nil, projections.BadCursor(err)
		}
		where += " AND (occurred_at, position) < (" + arg(at) + ", " + arg(n) + ")"
	}
	branches := []string{where}
	if f.Actor != "" {
		actor := arg(projections.KeyText(f.Actor))
		branches = either(branches, "actor_id", actor, "actor_username", actor)
		unnamed := where + " AND actor_username = '' AND actor_id <> '' AND actor_id"
		if len(known) <= maxApart {
			for _, id := range known {
				branches = append(branches, unnamed+" = "+arg(id))
			}
		} else {
			ids := make([]string, len(known))
			for i, id := range known {
				ids[i] = arg(id)
			}
			branches = append(branches, unnamed+" IN ("+strings.Join(ids, ", ")+")")
		}
	}
	if f.User != "" {
		id, name := arg(projections.KeyText(f.User)), arg(projections.CleanText(strings.ToLower(f.User)))
		branches = either(branches, "user_id", id, "username", name)
	}
	const newestFirst = " ORDER BY occurred_at DESC, position DESC LIMIT "
	most := arg(limit)
	for i, branch := range branches {
		branches[i] = "SELECT occurred_at, position, entry FROM " + entryTable + " WHERE " + branch + newestFirst + most
	}
	if len(branches) == 1 {
		return branches[0], args, nil
	}
	return "SELECT * FROM (" + strings.Join(branches, ") AS part UNION ALL SELECT * FROM (") + ") AS part" + newestFirst + most, args, nil
}

// either splits conditions into those with the value in the one column and those with
// it in the other alone, so that no row is in both.
func either(branches []string, column, value, other, otherValue string) []string {
	split := make([]string, 0, 2*len(branches))
	for _, branch := range branches {
		split = append(split,
			branch+" AND "+column+" = "+value,
			branch+" AND "+other+" = "+otherValue+" AND "+column+" <> "+value)
	}
	return split
}
