package web

import (
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/trace"
)

var callStatuses = []adapter.CallStatus{
	adapter.CallFailed, adapter.CallUnknown, adapter.CallRequested, adapter.CallSkipped, adapter.CallSucceeded,
}

type callsView struct {
	Calls   []adapter.Call
	Filters []filter
	Status  string
	Pager   pager
}

// listCalls is GET /calls.
func (s *Server) listCalls(w http.ResponseWriter, r *http.Request) error {
	status := adapter.CallStatus(text(r, "status"))
	f := httpapi.CallFilter{Realm: text(r, "realm"), UserID: text(r, "user_id")}
	v := callsView{Status: string(status), Filters: []filter{{Label: "All", Path: "/calls", Current: status == ""}}}
	if status != "" {
		if !slices.Contains(callStatuses, status) {
			return adapter.Errorf(adapter.CodeInvalidRequest, "%s is no status of a call", quoted(string(status)))
		}
		f.Statuses = []adapter.CallStatus{status}
	}
	for _, known := range callStatuses {
		v.Filters = append(v.Filters, filter{Label: callStatusName(known), Path: "/calls?status=" + string(known), Current: status == known})
	}
	calls, next, err := s.Calls.List(r.Context(), f, pageSize, text(r, "cursor"))
	if err != nil {
		return err
	}
	v.Calls, v.Pager = calls, pagerOf(r, next)
	return s.render(w, r, http.StatusOK, "calls", "calls", "Calls", v)
}

func callStatusName(s adapter.CallStatus) string {
	switch s {
	case adapter.CallRequested:
		return "Open"
	case adapter.CallSucceeded:
		return "Succeeded"
	case adapter.CallFailed:
		return "Failed"
	case adapter.CallUnknown:
		return "Unknown"
	case adapter.CallSkipped:
		return "Refused by a rule"
	}
	return string(s)
}

type callView struct {
	Call adapter.Call
	Next string
}

// showCall is GET /calls/{id}.
func (s *Server) showCall(w http.ResponseWriter, r *http.Request) error {
	id, err := uuid.Parse(param(r, "id"))
	if err != nil {
		return adapter.Errorf(adapter.CodeInvalidRequest, "a call's id is a UUID")
	}
	events, err := s.Codec.ReadStream(r.Context(), s.Store, adapter.CallStream(id))
	if err != nil {
		return err
	}
	call, ok := adapter.FoldCall(events)
	if !ok {
		return adapter.Errorf(adapter.CodeNotFound, "there is no call %s", id)
	}
	return s.render(w, r, http.StatusOK, "call", "calls", trace.CallTitle(call), callView{Call: call, Next: trace.CallNext(call)})
}
