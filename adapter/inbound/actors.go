package inbound

import (
	"context"
	"fmt"
	"sync"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// actors remembers who the actors of admin events are: a push tells an actor's user
// name, a pull only the id (26.7.3). The zero value is ready and safe for concurrent
// use.
type actors struct {
	mu     sync.Mutex
	asked  bool
	byID   map[string]adapter.Actor
	recent []string
}

const (
	// maxActors bounds the memory; the one learned first is forgotten first.
	maxActors = 10_000
	// actorEvents is how many admin events of the log are looked through for names, once.
	actorEvents = 2_000
)

// learn remembers the name that an event tells.
func (a *actors) learn(actor adapter.Actor) {
	if actor.ID == "" || actor.Username == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keep(actor)
}

func (a *actors) keep(actor adapter.Actor) {
	if a.byID == nil {
		a.byID = make(map[string]adapter.Actor)
	}
	if _, known := a.byID[actor.ID]; !known {
		if len(a.recent) >= maxActors {
			delete(a.byID, a.recent[0])
			a.recent = a.recent[1:]
		}
		a.recent = append(a.recent, actor.ID)
	}
	a.byID[actor.ID] = actor
}

// name gives an actor without a user name the one that an earlier event told.
func (a *actors) name(ctx context.Context, r *Recorder, actor *adapter.Actor) error {
	if actor.ID == "" || actor.Username != "" {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.asked {
		if err := a.recall(ctx, r); err != nil {
			return fmt.Errorf("looking for the names of actors: %w", err)
		}
		a.asked = true
	}
	if known, ok := a.byID[actor.ID]; ok {
		actor.Type, actor.Username = known.Type, known.Username
	}
	return nil
}

// recall reads names that other processes, and those before this one, have recorded.
func (a *actors) recall(ctx context.Context, r *Recorder) error {
	query := eventstore.LogQuery{Types: []string{adapter.TypeAdminEventReceived}, Backward: true, Limit: actorEvents}
	for e, err := range r.Store.ReadLog(ctx, query) {
		if err != nil {
			return err
		}
		d, err := r.Codec.Decode(ctx, e)
		if err != nil {
			continue // of a newer program
		}
		p, ok := d.Payload.(*adapter.AdminEventReceived)
		if !ok || p.Actor.ID == "" || p.Actor.Username == "" {
			continue
		}
		// The newest comes first, and what was learned meanwhile is newer.
		if _, known := a.byID[p.Actor.ID]; !known {
			a.keep(p.Actor)
		}
	}
	return nil
}
