package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Codes that only HTTP needs; they are the API's too.
const (
	codeUnauthorized adapter.Code = "unauthorized"
	codeCrossOrigin  adapter.Code = "cross_origin"
)

// statusOf is the HTTP status of a page that tells of an error with this code.
func statusOf(c adapter.Code) int {
	switch c {
	case adapter.CodeInvalidRequest:
		return http.StatusBadRequest
	case codeUnauthorized:
		return http.StatusUnauthorized
	case codeCrossOrigin:
		return http.StatusForbidden
	case adapter.CodeNotFound, adapter.CodeUserNotFound, adapter.CodeNotYetKnown:
		return http.StatusNotFound
	case adapter.CodeRunInProgress:
		return http.StatusConflict
	case adapter.CodeOverloaded:
		return http.StatusTooManyRequests
	case adapter.CodeNotBuilt, adapter.CodeKeycloakNotConfigured:
		return http.StatusNotImplemented
	case adapter.CodeStoreUnavailable, adapter.CodeInterrupted, adapter.CodeProjectionBehind:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

var titles = map[int]string{
	http.StatusBadRequest:          "That cannot be read",
	http.StatusUnauthorized:        "Not for everybody",
	http.StatusForbidden:           "Sent from elsewhere",
	http.StatusNotFound:            "Not found",
	http.StatusConflict:            "Already under way",
	http.StatusTooManyRequests:     "Too many attempts",
	http.StatusNotImplemented:      "Not there",
	http.StatusServiceUnavailable:  "Not now",
	http.StatusInternalServerError: "Something inside keytrail failed",
}

// asError puts any error into the catalogue. What the catalogue does not know tells
// nothing of the inside to the outside.
func asError(err error) *adapter.Error {
	var known *adapter.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, ErrSignIn):
		return &adapter.Error{Code: codeUnauthorized, Err: err, Detail: "your session is over", Try: "sign in, then send the form again"}
	case errors.Is(err, eventstore.ErrUnavailable), errors.Is(err, eventstore.ErrClosed),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &adapter.Error{
			Code: adapter.CodeStoreUnavailable, Err: err, Detail: "the event store did not answer in time or is not reachable",
			Try: "load the page again; /readyz says what is wrong",
		}
	}
	return &adapter.Error{Code: adapter.CodeInternal, Err: err, Detail: "the page could not be made", Try: "look into keytrail's log for the same moment"}
}

type problemView struct {
	*adapter.Error
	// SignIn is true where signing in would help.
	SignIn bool
}

// refuse answers with a page that says what is wrong and what to do, and logs what is
// keytrail's own fault.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	status := statusOf(e.Code)
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && !errors.Is(r.Context().Err(), context.Canceled) {
		s.Logger.ErrorContext(r.Context(), "page failed", "method", r.Method, "status", status, "code", e.Code, "error", err)
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(5))
	}
	err = s.render(w, r, status, "problem", "", titles[status], problemView{Error: e, SignIn: errors.Is(err, ErrSignIn)})
	if err != nil {
		s.Logger.ErrorContext(r.Context(), "error page failed", "error", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
	}
}

func (s *Server) notFound(http.ResponseWriter, *http.Request) error {
	return adapter.Errorf(adapter.CodeNotFound, "there is no page at this address").
		WithTry("begin at the overview, or look for an id or a user name above")
}
