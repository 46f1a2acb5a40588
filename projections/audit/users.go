package audit

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
)

type key struct{ realm, userID string }

// user is one user in a batch.
type user struct {
	stream eventstore.StreamID
	state  adapter.User
	// news are the events to fold in.
	news []adapter.Decoded
}

// foldUsers puts the entries of user events into f, those of earlier batches included
// that a late event changes, and returns the rows of the users' states.
func (p *Projection) foldUsers(ctx context.Context, b projections.Batch, f *fold) ([][]any, error) {
	users, err := group(b.Events)
	if err != nil {
		return nil, err
	}
	if err := load(ctx, b, users); err != nil {
		return nil, err
	}
	rows := make([][]any, 0, len(users))
	for k, u := range users {
		if err := p.fold(ctx, u, b.UpTo, f); err != nil {
			return nil, err
		}
		state, err := json.Marshal(u.state)
		if err != nil {
			return nil, fmt.Errorf("state of user %s: %w", k.userID, err)
		}
		rows = append(rows, []any{k.realm, k.userID, string(state)})
	}
	// Two processes lock the rows in the same order.
	slices.SortFunc(rows, func(a, b []any) int {
		return cmp.Or(cmp.Compare(a[0].(string), b[0].(string)), cmp.Compare(a[1].(string), b[1].(string)))
	})
	return rows, nil
}

func group(events []adapter.Decoded) (map[key]*user, error) {
	users := make(map[key]*user)
	for _, e := range events {
		if e.Stream.Category() != adapter.CategoryUser {
			continue
		}
		realm, id, err := adapter.UserOfStream(e.Stream)
		if err != nil {
			return nil, &projections.EventError{EventID: e.ID, Type: e.Type, Position: e.Position, Err: err}
		}
		k := key{projections.CleanText(realm), projections.CleanText(id)}
		if users[k] == nil {
			users[k] = &user{stream: e.Stream}
		}
		users[k].news = append(users[k].news, e)
	}
	return users, nil
}

// load reads the states that the users have so far.
func load(ctx context.Context, b projections.Batch, users map[key]*user) error {
	keys := make([][]any, 0, len(users))
	for k := range users {
		keys = append(keys, []any{k.realm, k.userID})
	}
	err := projections.SelectByKey(ctx, b.DB,
		`SELECT realm, user_id, state FROM `+b.Tables.Name(userTable)+` WHERE (realm, user_id)`, keys,
		func(rows *sql.Rows) error {
			var k key
			var state []byte
			if err := rows.Scan(&k.realm, &k.userID, &state); err != nil {
				return err
			}
			if err := json.Unmarshal(state, &users[k].state); err != nil {
				return fmt.Errorf("state of user %s: %w", k.userID, err)
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("read the users' states: %w", err)
	}
	return nil
}

// fold brings the user up to date and puts the entries into f that are new or may have
// changed. Events that come after all that is folded are folded on top; otherwise the
// whole stream is folded anew, and every entry from the first new event on is written.
func (p *Projection) fold(ctx context.Context, u *user, upTo eventstore.Position, f *fold) error {
	adapter.SortForFold(u.news)
	first := adapter.StampOf(u.news[0].Event)
	newest := slices.MaxFunc(u.news, func(a, b adapter.Decoded) int { return cmp.Compare(a.Version, b.Version) }).Version
	events := u.news
	contiguous := newest == u.state.Version+eventstore.Version(len(u.news))
	if !contiguous || !u.state.Follows(u.news[0].Event) {
		var err error
		if events, err = p.read(ctx, u.stream, upTo); err != nil {
			return err
		}
		u.state = adapter.User{}
	}
	for _, e := range events {
		a, tells := u.state.ApplyAudited(e)
		switch {
		case adapter.StampOf(e.Event).Compare(first) < 0:
		case tells:
			f.entries[eventRow(e.ID)] = a
		default:
			// What a read found may be what a late event tells.
			f.remove(eventRow(e.ID))
		}
	}
	return nil
}

// read reads a user's stream up to a position, in the order of the fold.
func (p *Projection) read(ctx context.Context, stream eventstore.StreamID, upTo eventstore.Position) ([]adapter.Decoded, error) {
	var events []adapter.Decoded
	for e, err := range p.log.ReadStream(ctx, stream, eventstore.StreamQuery{}) {
		if err != nil {
			return nil, fmt.Errorf("fold %s anew: %w", stream, err)
		}
		if e.Position > upTo {
			break // a row never knows more than its checkpoint says
		}
		d, err := p.codec.Decode(ctx, e)
		if err != nil {
			return nil, &projections.EventError{EventID: e.ID, Type: e.Type, Position: e.Position, Err: err}
		}
		events = append(events, d)
	}
	adapter.SortForFold(events)
	return events, nil
}
