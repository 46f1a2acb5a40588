package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Projections are the read models and the consumers beside them.
type Projections interface {
	Status(ctx context.Context) ([]ProjectionStatus, error)
	// Rebuild folds the whole log anew and returns when that is done. progress may be
	// nil.
	Rebuild(ctx context.Context, name string, progress func(done, total eventstore.Position)) error
}

// ProjectionStatus is how a projection or consumer stands.
type ProjectionStatus struct {
	Name string `json:"name"`
	// Kind is "projection" or "consumer".
	Kind     string              `json:"kind"`
	Position eventstore.Position `json:"position"`
	Head     eventstore.Position `json:"head"`
	Lag      eventstore.Position `json:"lag"`
	// Status is "running", "rebuilding", "failing" or "stopped".
	Status    string     `json:"status"`
	Error     string     `json:"error"`
	UpdatedAt *time.Time `json:"updated_at"`
	Version   int        `json:"version"`
	// RebuildPosition is how far a rebuild under way has come.
	RebuildPosition *eventstore.Position `json:"rebuild_position,omitempty"`
}

// kindProjection is what can be rebuilt; a consumer's effects are events.
const kindProjection = "projection"

// listProjections is GET /projections. There are few, but it pages as every list does;
// the cursor is the name that a page ended with.
func (s *Server) listProjections(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	limit, cursor := q.page()
	if err := q.err(); err != nil {
		return err
	}
	all, err := s.Projections.Status(r.Context())
	if err != nil {
		return err
	}
	if cursor != "" {
		at := slices.IndexFunc(all, func(p ProjectionStatus) bool { return p.Name == cursor })
		if at < 0 {
			return badCursor()
		}
		all = all[at+1:]
	}
	next := ""
	if len(all) > limit {
		all = all[:limit]
		next = all[limit-1].Name
	}
	for i := range all {
		all[i].UpdatedAt = utc(all[i].UpdatedAt)
	}
	return answer(w, http.StatusOK, pageOf(all, next))
}

// rebuilds are the projections that this process rebuilds, with the idempotency keys of
// the requests that asked for it, "" for none.
type rebuilds struct {
	mu   sync.Mutex
	keys map[string]string
}

// begin reports false where a rebuild is under way, and whether it was begun under the
// same key.
func (b *rebuilds) begin(name, key string) (begun, same bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if under, ok := b.keys[name]; ok {
		return false, key != "" && under == key
	}
	if b.keys == nil {
		b.keys = map[string]string{}
	}
	b.keys[name] = key
	return true, false
}

func (b *rebuilds) end(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, name)
}

// rebuildStarted is the answer to a rebuild; GET /projections tells how far it is.
type rebuildStarted struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

// rebuildProjection is POST /projections/{name}/rebuild: 202, and the rebuild goes on.
func (s *Server) rebuildProjection(w http.ResponseWriter, r *http.Request) error {
	command, err := readRequest(w, r)
	if err != nil {
		return err
	}
	name := param(r, "name")
	all, err := s.Projections.Status(r.Context())
	if err != nil {
		return err
	}
	var names []string
	for _, p := range all {
		if p.Kind == kindProjection {
			names = append(names, p.Name)
		}
	}
	if !slices.Contains(names, name) {
		return adapter.Errorf(adapter.CodeNotFound, "there is no projection %s", quoted(name)).
			WithTry("one of %s", strings.Join(names, ", "))
	}
	begun, same := s.rebuilding.begin(name, command.key)
	switch {
	case begun:
		err = s.work.start(r.Context(), func(ctx context.Context) {
			defer s.rebuilding.end(name)
			if err := s.Projections.Rebuild(ctx, name, nil); err != nil {
				s.Logger.ErrorContext(ctx, "rebuild failed", "projection", name, "error", err)
			}
		})
		if err != nil {
			s.rebuilding.end(name)
			return err
		}
	case !same:
		return adapter.Errorf(adapter.CodeRunInProgress, "projection %s is being rebuilt already", name).
			WithTry("GET %s/projections tells how far it is", apiRoot)
	}
	w.Header().Set("Location", apiRoot+"/projections")
	return answer(w, http.StatusAccepted, rebuildStarted{Name: name, Status: "rebuilding"})
}
