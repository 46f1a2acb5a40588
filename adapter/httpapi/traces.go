package httpapi

import (
	"context"
	"net/http"

	"github.com/keytrail/keytrail/adapter/trace"
)

// Traces finds stories. *trace.Finder is one.
type Traces interface {
	Find(ctx context.Context, id, realm string) (trace.Trace, error)
}

// Failures lists what needs attention. *trace.Failures is one.
type Failures interface {
	List(ctx context.Context, q trace.FailureQuery) (trace.FailurePage, error)
}

// showTrace is GET /traces/{id}. The realm narrows a user's name to one realm.
func (s *Server) showTrace(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	realm := q.text("realm")
	if err := q.err(); err != nil {
		return err
	}
	t, err := s.Traces.Find(r.Context(), param(r, "id"), realm)
	if err != nil {
		return err
	}
	t.StartedAt, t.EndedAt = t.StartedAt.UTC(), utc(t.EndedAt)
	t.Events = pageOf(t.Events, "").Items
	t.Calls = pageOf(t.Calls, "").Items
	for i, e := range t.Events {
		t.Events[i] = viewInUTC(e)
	}
	for i, c := range t.Calls {
		t.Calls[i] = callView(c)
	}
	return answer(w, http.StatusOK, t)
}

// listFailures is GET /failures.
func (s *Server) listFailures(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	realm := q.text("realm")
	limit, cursor := q.page()
	if err := q.err(); err != nil {
		return err
	}
	failures, err := s.Failures.List(r.Context(), trace.FailureQuery{Realm: realm, Limit: limit, Cursor: cursor})
	if err != nil {
		return err
	}
	for i := range failures.Items {
		failures.Items[i].At = failures.Items[i].At.UTC()
	}
	return answer(w, http.StatusOK, pageOf(failures.Items, failures.NextCursor))
}
