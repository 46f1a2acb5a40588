package audit

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

// actorName is one name that one account has been seen to act under. Ids of accounts are
// unique over all realms of a Keycloak (26.7.3, measured: TestTraps of internal/e2e), so
// that the realm, which a push names and a pull has the UUID of, need not be known.
type actorName struct{ username, id string }

var actorColumns = []string{"username", "actor_id"}

// newActors are the rows of the names that a batch tells and no batch before it has
// told. It is a set: neither the order of events nor how they are cut into batches
// matters.
func newActors(ctx context.Context, b projections.Batch) ([][]any, error) {
	seen := make(map[actorName]bool)
	for _, e := range b.Events {
		for _, actor := range actorsOf(e) {
			switch actor.Type {
			case adapter.ActorKeycloakUser, adapter.ActorServiceAccount:
			default:
				continue // keytrail's own actors always have the name that they need
			}
			if actor.ID != "" && actor.Username != "" {
				seen[actorName{projections.KeyText(actor.Username), projections.KeyText(actor.ID)}] = true
			}
		}
	}
	keys := make([][]any, 0, len(seen))
	for a := range seen {
		keys = append(keys, []any{a.username, a.id})
	}
	// Nearly all are known, and to find that out costs less than to write them again.
	err := projections.SelectByKey(ctx, b.DB,
		`SELECT username, actor_id FROM `+b.Tables.Name(actorTable)+` WHERE (username, actor_id)`, keys,
		func(rows *sql.Rows) error {
			var a actorName
			err := rows.Scan(&a.username, &a.id)
			delete(seen, a)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read the names of actors: %w", err)
	}
	// Two processes lock the rows in the same order.
	fresh := slices.SortedFunc(maps.Keys(seen), func(a, b actorName) int {
		return cmp.Or(cmp.Compare(a.username, b.username), cmp.Compare(a.id, b.id))
	})
	rows := make([][]any, 0, len(fresh))
	for _, a := range fresh {
		rows = append(rows, []any{a.username, a.id})
	}
	return rows, nil
}

// actorsOf is what an event says of who acted.
func actorsOf(e adapter.Decoded) []adapter.Actor {
	var actors []adapter.Actor
	if e.Meta.Actor != nil {
		actors = append(actors, *e.Meta.Actor)
	}
	switch p := e.Payload.(type) {
	case *adapter.AdminEventReceived:
		actors = append(actors, p.Actor)
	case *adapter.UserEventReceived:
		actors = append(actors, p.Actor)
	case *adapter.DeliveryConfirmed:
		// The push adds the name to a delivery that was pulled first.
		var name string
		if e.Meta.Actor != nil && json.Unmarshal(p.Added["actor.username"], &name) == nil {
			actors = append(actors, adapter.KeycloakActor(e.Meta.Actor.ID, name, "", ""))
		}
	}
	return actors
}

// knownAs lists the ids of the accounts that have been seen to act under a name.
func (q *Queries) knownAs(ctx context.Context, name string) ([]string, error) {
	var ids []string
	err := projections.Query(ctx, q.db, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, `SELECT actor_id FROM `+actorTable+` WHERE username = $1 AND actor_id <> $1 ORDER BY actor_id`, projections.KeyText(name))
	if err != nil {
		return nil, fmt.Errorf("look up the actor %s: %w", name, err)
	}
	return ids, nil
}
