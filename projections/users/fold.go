// Package users projects the believed state of every user.
package users

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/hotjson"
	"github.com/keytrail/keytrail/projections"
)

// Name is the projection's name.
const Name = "users"

// table is the base name of the table.
const table = "user_api_projections"

//go:embed schema.sql
var schema string

// Projection folds user events into one row a user.
type Projection struct {
	log       eventstore.Reader
	codec     *adapter.Codec
	snapshots eventstore.Snapshotter
}

var _ projections.Projection = (*Projection)(nil)

// New returns the projection. It reads from log the streams of users whose events came
// late.
func New(log eventstore.Reader, codec *adapter.Codec) *Projection {
	return &Projection{log: log, codec: codec}
}

// WithSnapshots lets p begin with snapshots where it reads a user's stream. It returns p
// and is to be called before p is used; nil is none.
func (p *Projection) WithSnapshots(s eventstore.Snapshotter) *Projection {
	p.snapshots = s
	return p
}

// Name implements projections.Projection.
func (*Projection) Name() string { return Name }

// Version implements projections.Projection.
func (*Projection) Version() int { return 4 }

// Types implements projections.Projection.
func (*Projection) Types() []string {
	return []string{
		adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiEnabled,
		adapter.TypeUserApiDisabled, adapter.TypeUserApiDeleted, adapter.TypeUserApiRolesChanged,
		adapter.TypeUserApiGroupsChanged, adapter.TypeUserApiCredentialsChanged,
		adapter.TypeUserApiOrganizationsChanged, adapter.TypeUserApiSessionsEnded, adapter.TypeUserApiEmailRequested,
		adapter.TypeUserApiFederatedIdentityChanged, adapter.TypeUserApiObserved, adapter.TypeUserApiBaselined,
	}
}

// Tables implements projections.Projection.
func (*Projection) Tables() []string { return []string{table} }

// Schema implements projections.Projection.
func (*Projection) Schema(d projections.Dialect, t projections.Tables) []string {
	return projections.Statements(d, schema, "{users}", t.Name(table), "{index}", t.Index(table))
}

type key struct{ realm, userID string }

// row is one user's row.
type row struct {
	ref  adapter.UserRef
	user adapter.User
	// news are the events to fold in, and newest the last of them in the log.
	news   []adapter.Decoded
	newest eventstore.Event
}

// Fold implements projections.Projection.
func (p *Projection) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	users, err := p.group(b.Events)
	if err != nil {
		return nil, err
	}
	if err := load(ctx, b, users); err != nil {
		return nil, err
	}
	rows := make([][]any, 0, len(users))
	for k, r := range users {
		if err := p.fold(ctx, r, b.UpTo); err != nil {
			return nil, err
		}
		if r.newest.Position == 0 {
			continue
		}
		values, err := r.values(k)
		if err != nil {
			return nil, err
		}
		rows = append(rows, values)
	}
	// Two processes lock the rows in the same order.
	slices.SortFunc(rows, func(a, b []any) int {
		return cmp.Or(cmp.Compare(a[0].(string), b[0].(string)), cmp.Compare(a[1].(string), b[1].(string)))
	})
	return func(ctx context.Context, tx *sql.Tx) error {
		return projections.Upsert(ctx, tx, b.DB.Dialect, b.Tables.Name(table), keyColumns, columns, rows)
	}, nil
}

func (p *Projection) group(events []adapter.Decoded) (map[key]*row, error) {
	users := make(map[key]*row)
	for _, e := range events {
		realm, id, err := adapter.UserOfStream(e.Stream)
		if err != nil {
			return nil, &projections.EventError{EventID: e.ID, Type: e.Type, Position: e.Position, Err: err}
		}
		k := key{projections.CleanText(realm), projections.CleanText(id)}
		r, ok := users[k]
		if !ok {
			r = &row{ref: adapter.UserRef{Realm: realm, UserID: id}}
			users[k] = r
		}
		r.news = append(r.news, e)
	}
	return users, nil
}

// load reads the states that the users have so far.
func load(ctx context.Context, b projections.Batch, users map[key]*row) error {
	keys := make([][]any, 0, len(users))
	for k := range users {
		keys = append(keys, []any{k.realm, k.userID})
	}
	err := projections.SelectByKey(ctx, b.DB,
		`SELECT realm, user_id, state FROM `+b.Tables.Name(table)+` WHERE (realm, user_id)`, keys,
		func(rows *sql.Rows) error {
			var k key
			var state []byte
			if err := rows.Scan(&k.realm, &k.userID, &state); err != nil {
				return err
			}
			if err := hotjson.Unmarshal(state, &users[k].user); err != nil {
				return fmt.Errorf("state of user %s: %w", k.userID, err)
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("read the users' states: %w", err)
	}
	return nil
}

// worthASnapshot is the length from which on it is worth looking for a snapshot: a
// shorter stream is read in one query.
const worthASnapshot = 100

// fold brings the row up to date. Events that come after all that is folded are folded
// on top; otherwise the whole stream is folded anew.
func (p *Projection) fold(ctx context.Context, r *row, upTo eventstore.Position) error {
	r.news = slices.DeleteFunc(r.news, func(e adapter.Decoded) bool { return e.Version <= r.user.Version })
	if len(r.news) == 0 {
		return nil
	}
	r.newest = r.news[len(r.news)-1].Event
	adapter.SortForFold(r.news)
	contiguous := r.newest.Version == r.user.Version+eventstore.Version(len(r.news))
	if contiguous && r.user.Follows(r.news[0].Event) {
		for _, e := range r.news {
			r.user.Apply(e)
		}
		return nil
	}
	snapshots := p.snapshots
	if r.newest.Version < worthASnapshot {
		snapshots = nil
	}
	// A row never knows more than its checkpoint says.
	anew, _, err := p.codec.LoadUser(ctx, p.log, snapshots, r.ref, adapter.UserUntil{Position: upTo})
	var unreadable *adapter.UnreadableEventError
	if errors.As(err, &unreadable) {
		e := unreadable.Event
		return &projections.EventError{EventID: e.ID, Type: e.Type, Position: e.Position, Err: unreadable.Err}
	}
	if err != nil {
		return fmt.Errorf("fold %s anew: %w", r.newest.Stream, err)
	}
	r.user, r.newest = anew.User, anew.Newest
	return nil
}

var (
	keyColumns = []string{"realm", "user_id"}
	columns    = []string{
		"realm", "user_id", "username", "email", "enabled", "deleted", "search", "state",
		"version", "position", "last_occurred_at", "updated_at", "unread_since",
	}
)

func (r *row) values(k key) ([]any, error) {
	u := r.user
	state, err := json.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("state of user %s: %w", k.userID, err)
	}
	var email any
	if u.Email != nil {
		email = projections.CleanText(*u.Email)
	}
	var enabled any
	if u.Known(adapter.FieldEnabled) {
		enabled = u.Enabled
	}
	var unread time.Time
	if u.Unread != nil {
		unread = u.Unread.Since
	}
	return []any{
		k.realm, k.userID, projections.CleanText(u.Username), email, enabled, u.Deleted, searchText(u), string(state),
		int64(u.Version), int64(r.newest.Position), projections.FormatRequired(u.Last.At), projections.FormatRequired(r.newest.RecordedAt),
		projections.FormatTime(unread),
	}, nil
}

func searchText(u adapter.User) string {
	parts := []string{u.Username}
	for _, s := range []*string{u.Email, u.FirstName, u.LastName} {
		if s != nil {
			parts = append(parts, *s)
		}
	}
	return projections.CleanText(strings.ToLower(strings.Join(parts, " ")))
}
