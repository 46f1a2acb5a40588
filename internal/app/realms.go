package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keytrail/keytrail/internal/lease"
	"github.com/keytrail/keytrail/keycloak"
)

// realmNames remembers which realm a UUID is, for events that only have that.
type realmNames struct {
	mu    sync.RWMutex
	names map[string]string
}

func newRealmNames() *realmNames { return &realmNames{names: make(map[string]string)} }

func (r *realmNames) name(id string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names[id]
}

func (r *realmNames) set(id, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[id] = name
}

const (
	// realmWait is the pause before Keycloak is asked again for a realm's id. It
	// doubles up to maxRealmWait: a role that is missing may be given later.
	realmWait    = 500 * time.Millisecond
	maxRealmWait = 5 * time.Minute
	// realmTTL is how long an id is reserved for the one write that it takes.
	realmTTL = 5 * time.Second
)

// realmLearner finds out the ids of the configured realms. Ids of earlier starts are
// known before it is ready; for the others it asks Keycloak until it is told. What was
// recorded meanwhile with the id alone is completed then.
//
// A service account without view-realm is not told: then events that carry only the id
// stay uninterpreted until a poll brings them.
type realmLearner struct {
	app    *App
	realms []string
	// recalled are the ids of earlier starts, by name.
	recalled map[string]string
	ready    chan struct{}
	// told is what was logged last of each realm.
	told map[string]string
}

func (a *App) realmLearner(realms []string) *realmLearner {
	return &realmLearner{app: a, realms: realms, recalled: make(map[string]string), ready: make(chan struct{}), told: make(map[string]string)}
}

func (l *realmLearner) Ready(ctx context.Context) error {
	select {
	case <-l.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *realmLearner) Run(ctx context.Context) error {
	if err := l.recall(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	close(l.ready)
	unknown := slices.Clone(l.realms)
	for wait := realmWait; ; wait = min(2*wait, maxRealmWait) {
		unknown = slices.DeleteFunc(unknown, func(name string) bool { return l.learn(ctx, name) })
		var again <-chan time.Time
		if len(unknown) > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		}
	}
}

// realmState is what is kept of a realm in the leases' table, once every delivery that
// was recorded without the realm's name has it.
type realmState struct {
	ID string `json:"id"`
}

func realmLease(name string) string { return "realm/" + name }

func (l *realmLearner) recall(ctx context.Context) error {
	for _, name := range l.realms {
		record, ok, err := l.app.Leases.Read(ctx, realmLease(name))
		if err != nil {
			return fmt.Errorf("recalling the id of realm %s: %w", name, err)
		}
		if !ok || record.State == nil {
			continue
		}
		var state realmState
		if err := json.Unmarshal(record.State, &state); err != nil {
			return fmt.Errorf("what is kept of realm %s is damaged: %w", name, err)
		}
		l.recalled[name] = state.ID
		l.app.realms.set(state.ID, name)
	}
	return nil
}

// learn asks Keycloak for one realm's id and reports whether it is known now.
func (l *realmLearner) learn(ctx context.Context, name string) bool {
	realm, err := l.app.Keycloak.Realm(ctx, name)
	var answer *keycloak.APIError
	switch {
	case errors.As(err, &answer) && answer.Status == http.StatusForbidden, err == nil && realm.ID == "":
		l.tell(ctx, slog.LevelInfo, name, errors.New("the service account lacks view-realm"))
		return false
	case err != nil:
		l.tell(ctx, slog.LevelWarn, name, err)
		return false
	}
	if l.recalled[name] == realm.ID {
		return true
	}
	l.app.realms.set(realm.ID, name)
	named, err := l.app.Recorder.NameRealm(ctx, realm.ID, name)
	if err == nil {
		err = l.keep(ctx, name, realm.ID)
	}
	if err != nil {
		l.tell(ctx, slog.LevelWarn, name, fmt.Errorf("completing deliveries that lack it: %w", err))
		return false
	}
	l.app.Logger.InfoContext(ctx, "realm id learned", "realm", name, "realm_id", realm.ID, "deliveries_completed", named)
	return true
}

// keep remembers the id over restarts. Another process that keeps it at this moment
// keeps the same.
func (l *realmLearner) keep(ctx context.Context, name, id string) error {
	_, err := l.app.Leases.Hold(ctx, realmLease(name), owner(), realmTTL, func(ctx context.Context, lease *lease.Lease) error {
		return lease.Save(ctx, realmState{ID: id})
	})
	return err
}

// tell logs why a realm's id is not known, once for each reason.
func (l *realmLearner) tell(ctx context.Context, level slog.Level, realm string, reason error) {
	if ctx.Err() != nil || l.told[realm] == reason.Error() {
		return
	}
	l.told[realm] = reason.Error()
	l.app.Logger.Log(ctx, level, "realm id unknown", "realm", realm, "error", reason)
}
