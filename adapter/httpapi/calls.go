package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// CallReader reads the calls projection.
type CallReader interface {
	// List returns a page of calls, newest first, and the cursor of the next one, empty
	// on the last. A cursor that is not its own is CodeInvalidRequest.
	List(ctx context.Context, f CallFilter, limit int, cursor string) ([]adapter.Call, string, error)
}

// CallFilter selects calls. Conditions are combined with and; zero values select all.
type CallFilter struct {
	// Statuses are the statuses to select, any of them.
	Statuses      []adapter.CallStatus
	Realm         string
	UserID        string
	CorrelationID uuid.UUID
}

var callStatuses = []adapter.CallStatus{
	adapter.CallRequested, adapter.CallSucceeded, adapter.CallFailed, adapter.CallUnknown, adapter.CallSkipped,
}

// listCalls is GET /calls.
func (s *Server) listCalls(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	f := CallFilter{Realm: q.text("realm"), UserID: q.text("user_id"), CorrelationID: q.uuid("correlation_id")}
	for _, name := range q.list("status") {
		status := adapter.CallStatus(name)
		if !slices.Contains(callStatuses, status) {
			q.faults.add("status", quoted(name)+" is none of requested, succeeded, failed, unknown, skipped")
		}
		f.Statuses = append(f.Statuses, status)
	}
	limit, cursor := q.page()
	if err := q.err(); err != nil {
		return err
	}
	calls, next, err := s.Calls.List(r.Context(), f, limit, cursor)
	if err != nil {
		return err
	}
	for i := range calls {
		calls[i] = callView(calls[i])
	}
	return answer(w, http.StatusOK, pageOf(calls, next))
}

// showCall is GET /calls/{id}. It folds the call's stream, which is short: whoever got
// a 202 reads the outcome here the moment it is recorded.
func (s *Server) showCall(w http.ResponseWriter, r *http.Request) error {
	if err := queryOf(r).err(); err != nil {
		return err
	}
	id, err := uuid.Parse(param(r, "id"))
	if err != nil {
		return faults{{"id", "a call's id is a UUID"}}.err()
	}
	events, err := s.Codec.ReadStream(r.Context(), s.Store, adapter.CallStream(id))
	if err != nil {
		return err
	}
	call, ok := adapter.FoldCall(events)
	if !ok {
		return adapter.Errorf(adapter.CodeNotFound, "there is no call %s", id).
			WithTry("GET %s/calls lists them", apiRoot)
	}
	return answer(w, http.StatusOK, callView(call))
}

// callView brings a call into the form in which lists are never null and times UTC.
func callView(c adapter.Call) adapter.Call {
	c.RequestedAt = c.RequestedAt.UTC()
	c.FinishedAt = utc(c.FinishedAt)
	c.Attempts = attemptsView(c.Attempts)
	reads := make([]adapter.CallPrecondition, len(c.PreconditionReads))
	for i, read := range c.PreconditionReads {
		read.Attempts = attemptsView(read.Attempts)
		reads[i] = read
	}
	c.PreconditionReads = reads
	if c.Echo != nil {
		echo := *c.Echo
		echo.OccurredAt = echo.OccurredAt.UTC()
		c.Echo = &echo
	}
	return c
}

func attemptsView(attempts []adapter.CallAttempt) []adapter.CallAttempt {
	out := make([]adapter.CallAttempt, len(attempts))
	for i, a := range attempts {
		a.StartedAt = a.StartedAt.UTC()
		out[i] = a
	}
	return out
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
