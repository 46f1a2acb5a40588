// Package users projects the believed state of every user.
package users

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
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

var _ projections.Divisible = (*Projection)(nil)

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
func (*Projection) Version() int { return 5 }

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
	storage := ""
	if d == projections.Postgres {
		// Most users have some 2 KiB, from where on PostgreSQL compresses, which takes longer
		// than all else that it does to write them.
		storage = " WITH (toast_tuple_target = 4080)"
	}
	return projections.Statements(d, schema, "{users}", t.Name(table), "{index}", t.Index(table), "{storage}", storage)
}

type key struct{ realm, userID string }

// row is one user's row.
type row struct {
	ref  adapter.UserRef
	user adapter.User
	// news are the events to fold in.
	news []adapter.Decoded
	// position and recordedAt are of the newest event in the log that is folded.
	position   eventstore.Position
	recordedAt time.Time
	// changed is true where the table does not have it yet.
	changed bool
	// size is about how many bytes it takes, when the stream had the version sizedAt.
	size    int
	sizedAt eventstore.Version
}

// Fold implements projections.Projection.
func (p *Projection) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	a := p.Accumulate(b.DB, b.Tables, false)
	if err := a.Fold(ctx, b.Events, b.UpTo); err != nil {
		return nil, err
	}
	changed := a.Changed()[0]
	var rows [][]any
	for values, err := range changed.Each {
		if err != nil {
			return nil, err
		}
		rows = append(rows, values)
	}
	return func(ctx context.Context, tx *sql.Tx) error {
		return projections.Upsert(ctx, tx, b.DB.Dialect, changed.Table, changed.Key, changed.Columns, rows)
	}, nil
}

// Accumulate implements projections.Accumulator.
func (p *Projection) Accumulate(db projections.DB, t projections.Tables, empty bool) projections.Accumulation {
	return &accumulation{projection: p, db: db, table: t.Name(table), empty: empty, users: make(map[key]*row), streams: make(map[eventstore.StreamID]*row)}
}

// Part implements projections.Divisible.
func (*Projection) Part(s eventstore.StreamID) uint64 {
	realm, id, err := adapter.UserOfStream(s)
	if err != nil {
		return 0 // to fold it is an error
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(projections.CleanText(realm) + "/" + projections.CleanText(id))) // it never fails
	return h.Sum64()
}

// accumulation holds the users that it has heard of.
type accumulation struct {
	projection *Projection
	db         projections.DB
	table      string
	users      map[key]*row
	// streams finds the same rows faster.
	streams map[eventstore.StreamID]*row
	size    int
	// spare are slices for the next events.
	spare [][]adapter.Decoded
	// empty is true where the table had none of the users: then all that it has are held.
	empty bool
	// written is whether it has told of rows before.
	written bool
}

// Size implements projections.Accumulation.
func (a *accumulation) Size() int { return a.size }

// Fold implements projections.Accumulation.
func (a *accumulation) Fold(ctx context.Context, events []adapter.Decoded, upTo eventstore.Position) error {
	changing, unknown, err := a.group(events)
	if err != nil {
		return err
	}
	if err := a.load(ctx, unknown); err != nil {
		return err
	}
	for _, r := range changing {
		if err := a.projection.fold(ctx, r, upTo); err != nil {
			return err
		}
		clear(r.news)
		a.spare = append(a.spare, r.news[:0])
		r.news = nil
		// It grows no faster than its stream.
		if r.size == 0 || r.user.Version >= 2*r.sizedAt {
			a.size -= r.size
			r.size, r.sizedAt = sizeOf(&r.user), r.user.Version
			a.size += r.size
		}
	}
	return nil
}

// group hands the events to the rows of their users, and tells which of these are not
// held yet.
func (a *accumulation) group(events []adapter.Decoded) (changing []*row, unknown [][]any, err error) {
	for _, e := range events {
		r, ok := a.streams[e.Stream]
		if !ok {
			realm, id, err := adapter.UserOfStream(e.Stream)
			if err != nil {
				return nil, nil, &projections.EventError{EventID: e.ID, Type: e.Type, Position: e.Position, Err: err}
			}
			k := key{projections.CleanText(realm), projections.CleanText(id)}
			if r, ok = a.users[k]; !ok {
				r = &row{ref: adapter.UserRef{Realm: realm, UserID: id}}
				a.users[k] = r
				unknown = append(unknown, []any{k.realm, k.userID})
			}
			a.streams[e.Stream] = r
		}
		if len(r.news) == 0 {
			changing = append(changing, r)
			if n := len(a.spare); n > 0 {
				r.news, a.spare = a.spare[n-1], a.spare[:n-1]
			}
		}
		r.news = append(r.news, e)
	}
	return changing, unknown, nil
}

// Changed implements projections.Accumulation.
func (a *accumulation) Changed() []projections.Rows {
	keys := make([]key, 0, len(a.users))
	for k, r := range a.users {
		if r.changed {
			keys = append(keys, k)
			r.changed = false
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.realm, b.realm), cmp.Compare(a.userID, b.userID))
	})
	isNew := a.empty && !a.written
	a.written = true
	return []projections.Rows{{
		Table: a.table, Key: keyColumns, Columns: columns, New: isNew,
		Each: func(yield func([]any, error) bool) {
			for _, k := range keys {
				if !yield(a.users[k].values(k)) {
					return
				}
			}
		},
	}}
}

// load reads the states that users have so far.
func (a *accumulation) load(ctx context.Context, keys [][]any) error {
	if a.empty {
		return nil
	}
	err := projections.SelectByKey(ctx, a.db, `SELECT realm, user_id, state FROM `+a.table+` WHERE (realm, user_id)`, keys,
		func(rows *sql.Rows) error {
			var k key
			var state []byte
			if err := rows.Scan(&k.realm, &k.userID, &state); err != nil {
				return err
			}
			u, err := decode(state)
			a.users[k].user = u
			return err
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
	r.changed = true
	newest := r.news[len(r.news)-1].Event
	r.position, r.recordedAt = newest.Position, newest.RecordedAt
	adapter.SortForFold(r.news)
	contiguous := newest.Version == r.user.Version+eventstore.Version(len(r.news))
	if contiguous && r.user.Follows(r.news[0].Event) {
		for _, e := range r.news {
			r.user.Apply(e)
		}
		return nil
	}
	snapshots := p.snapshots
	if newest.Version < worthASnapshot {
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
		return fmt.Errorf("fold %s anew: %w", newest.Stream, err)
	}
	r.user, r.position, r.recordedAt = anew.User, anew.Newest.Position, anew.Newest.RecordedAt
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
	state, err := encode(u)
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
		int64(u.Version), int64(r.position), projections.FormatRequired(u.Last.At), projections.FormatRequired(r.recordedAt),
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
