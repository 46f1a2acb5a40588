package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/eventstore"
)

// Codes that only HTTP needs.
const (
	codeUnauthorized     adapter.Code = "unauthorized"
	codeSignature        adapter.Code = "signature_invalid"
	codeCrossOrigin      adapter.Code = "cross_origin"
	codeMethodNotAllowed adapter.Code = "method_not_allowed"
	codeMediaType        adapter.Code = "unsupported_media_type"
	codeTooLarge         adapter.Code = "body_too_large"
	codeTimeout          adapter.Code = "request_timeout"
)

// meaning is what a code becomes over HTTP.
type meaning struct {
	status int
	// title is empty where the catalogue has one.
	title string
	// retryAfter, where not zero, is when to try the same request again.
	retryAfter time.Duration
}

// meanings is the only place where a code becomes a status. The contract fixes
// Keycloak's 400 → 422, 403 → 502, 404 → 404 and 409 → 409. Of the others 502 says that
// Keycloak, or the way there, is at fault and 503 that the same request may succeed
// soon, which a Retry-After then says too.
var meanings = map[adapter.Code]meaning{
	adapter.CodeInvalidRequest:       {http.StatusBadRequest, "", 0},
	adapter.CodeNotFound:             {http.StatusNotFound, "", 0},
	adapter.CodeUserNotFound:         {http.StatusNotFound, "", 0},
	adapter.CodeNotYetKnown:          {http.StatusNotFound, "", 0},
	adapter.CodeAlreadyEnabled:       {http.StatusConflict, "", 0},
	adapter.CodeAlreadyDisabled:      {http.StatusConflict, "", 0},
	adapter.CodeIdempotencyKeyReused: {http.StatusUnprocessableEntity, "", 0},
	adapter.CodeNotParked:            {http.StatusConflict, "", 0},
	adapter.CodeWaitsBehind:          {http.StatusConflict, "", 0},
	adapter.CodeStillParked:          {http.StatusUnprocessableEntity, "", 0},
	adapter.CodeAlreadyHasRole:       {http.StatusConflict, "", 0},
	adapter.CodeRoleNotHeld:          {http.StatusConflict, "", 0},
	adapter.CodeAlreadyMember:        {http.StatusConflict, "", 0},
	adapter.CodeNotMember:            {http.StatusConflict, "", 0},
	adapter.CodeManagedMember:        {http.StatusConflict, "", 0},
	adapter.CodeNotLocked:            {http.StatusConflict, "", 0},
	adapter.CodeEmailMissing:         {http.StatusUnprocessableEntity, "", 0},
	adapter.CodeUserDisabled:         {http.StatusUnprocessableEntity, "", 0},
	adapter.CodeNotBuilt:             {http.StatusNotImplemented, "", 0},
	adapter.CodeOverloaded:           {http.StatusTooManyRequests, "", 2 * time.Second},
	adapter.CodeStoreUnavailable:     {http.StatusServiceUnavailable, "", 5 * time.Second},
	adapter.CodeInternal:             {http.StatusInternalServerError, "", 0},

	adapter.CodeKeycloakNotConfigured: {http.StatusNotImplemented, "", 0},
	adapter.CodeKeycloakInvalid:       {http.StatusUnprocessableEntity, "", 0},
	adapter.CodeKeycloakUnauthorized:  {http.StatusBadGateway, "", 0},
	adapter.CodeKeycloakForbidden:     {http.StatusBadGateway, "", 0},
	adapter.CodeKeycloakNotFound:      {http.StatusNotFound, "", 0},
	adapter.CodeRealmNotFound:         {http.StatusNotFound, "", 0},
	adapter.CodeRoleNotFound:          {http.StatusNotFound, "", 0},
	adapter.CodeClientNotFound:        {http.StatusNotFound, "", 0},
	adapter.CodeGroupNotFound:         {http.StatusNotFound, "", 0},
	adapter.CodeOrganizationNotFound:  {http.StatusNotFound, "", 0},
	adapter.CodePasswordRejected:      {http.StatusUnprocessableEntity, "", 0},
	adapter.CodeKeycloakMailFault:     {http.StatusBadGateway, "", 0},
	// What was done stands: the steps say which part is missing, and why.
	adapter.CodePartiallyDone:       {http.StatusBadGateway, "", 0},
	adapter.CodeKeycloakConflict:    {http.StatusConflict, "", 0},
	adapter.CodeKeycloakRejected:    {http.StatusBadGateway, "", 0},
	adapter.CodeKeycloakUnavailable: {http.StatusServiceUnavailable, "", 10 * time.Second},
	adapter.CodeKeycloakUnreachable: {http.StatusBadGateway, "", 0},
	// An unknown outcome is told as 202 by the commands; elsewhere it is a fault.
	adapter.CodeOutcomeUnknown: {http.StatusBadGateway, "", 0},
	adapter.CodeInterrupted:    {http.StatusServiceUnavailable, "", 5 * time.Second},

	adapter.CodeListingIncomplete: {http.StatusBadGateway, "", 0},
	adapter.CodeListingEmpty:      {http.StatusBadGateway, "", 0},
	adapter.CodeProjectionBehind:  {http.StatusServiceUnavailable, "", 5 * time.Second},
	adapter.CodeRunInProgress:     {http.StatusConflict, "", 0},

	codeUnauthorized:     {http.StatusUnauthorized, "Not authenticated", 0},
	codeSignature:        {http.StatusUnauthorized, "The signature is missing or wrong", 0},
	codeCrossOrigin:      {http.StatusForbidden, "Sent by a browser for another site", 0},
	codeMethodNotAllowed: {http.StatusMethodNotAllowed, "This method is not allowed here", 0},
	codeMediaType:        {http.StatusUnsupportedMediaType, "The body must be JSON", 0},
	codeTooLarge:         {http.StatusRequestEntityTooLarge, "The body is too large", 0},
	codeTimeout:          {http.StatusRequestTimeout, "The body did not arrive in time", 0},
}

// meaningOf is what a code becomes; one that is not in the table is a fault of ours.
func meaningOf(code adapter.Code) meaning {
	if m, ok := meanings[code]; ok {
		return m
	}
	return meanings[adapter.CodeInternal]
}

// StatusOf is the HTTP status with which the API answers for a code, for those who tell
// the same problem elsewhere.
func StatusOf(code adapter.Code) int { return meaningOf(code).status }

// problemType is the namespace of problem types; the code follows.
const problemType = "urn:keytrail:problem:"

// problem is an RFC 9457 problem with keytrail's extensions.
type problem struct {
	Type          string       `json:"type"`
	Title         string       `json:"title"`
	Status        int          `json:"status"`
	Detail        string       `json:"detail"`
	Code          adapter.Code `json:"code"`
	CorrelationID *uuid.UUID   `json:"correlation_id,omitempty"`
	CallID        *uuid.UUID   `json:"call_id,omitempty"`
	// Cause is the usual cause of a command's failure, Try the next step.
	Cause string `json:"cause,omitempty"`
	Try   string `json:"try,omitempty"`
	// UserID and Steps say how far an action of several calls came.
	UserID string          `json:"user_id,omitempty"`
	Steps  []outbound.Step `json:"steps,omitempty"`
	// Repeated is true where an idempotency key was sent before: so the first request
	// ended, and nothing was done now.
	Repeated bool `json:"repeated,omitempty"`
	// Errors are the faults of a request, all at once.
	Errors []fault `json:"errors,omitempty"`
}

// fault is one thing that is wrong with a request.
type fault struct {
	// Field is a body's field or a parameter of the query.
	Field   string `json:"field"`
	Message string `json:"message"`
}

// faults are all that is wrong with a request.
type faults []fault

func (f *faults) add(field, message string) { *f = append(*f, fault{field, message}) }

// err is nil where there are none.
func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return &adapter.Error{Code: adapter.CodeInvalidRequest, Detail: f.Error(), Err: f}
}

func (f faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.Field + ": " + one.Message
	}
	return strings.Join(lines, "; ")
}

// asError puts any error into the catalogue. What the catalogue does not know tells
// nothing of the inside to the outside.
func asError(err error) *adapter.Error {
	var known *adapter.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, eventstore.ErrOverloaded):
		return &adapter.Error{
			Code: adapter.CodeOverloaded, Err: err, Detail: "the event store has more to write than it keeps up with; nothing was recorded",
			Try: "send the same request again later",
		}
	case errors.Is(err, eventstore.ErrUnavailable), errors.Is(err, eventstore.ErrClosed),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &adapter.Error{
			Code: adapter.CodeStoreUnavailable, Err: err, Detail: "the event store did not answer in time or is not reachable",
			Try: "send the same request again; GET /readyz says what is wrong",
		}
	default:
		return &adapter.Error{Code: adapter.CodeInternal, Err: err, Detail: "the request could not be served", Try: "look into keytrail's log for the same moment"}
	}
}

// refuse answers a request with a problem, and logs what is keytrail's own fault.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	m := meaningOf(e.Code)
	gone := errors.Is(r.Context().Err(), context.Canceled) // nobody reads the answer, and nothing is wrong
	if m.status >= http.StatusInternalServerError && m.status != http.StatusNotImplemented && !gone {
		s.Logger.ErrorContext(r.Context(), "request failed", "method", r.Method, "route", routeOf(r), "status", m.status, "code", e.Code, "error", err)
	}
	p := problem{
		Type: problemType + string(e.Code), Title: cmp.Or(m.title, e.Code.Explain().Title), Status: m.status, Detail: e.Error(), Code: e.Code, Try: e.Try,
		CorrelationID: idOrNil(e.CorrelationID), CallID: idOrNil(e.CallID),
	}
	if p.CorrelationID == nil {
		p.CorrelationID = idOrNil(requestOf(r).given)
	}
	if e.CallID != uuid.Nil {
		p.Cause = e.Code.Explain().Cause
	}
	var failed *commandError
	if errors.As(err, &failed) {
		p.UserID, p.Steps, p.Repeated = failed.outcome.UserID, failed.outcome.Steps, failed.outcome.Repeated
	}
	var f faults
	if errors.As(err, &f) {
		p.Errors = f
	}
	h := w.Header()
	switch e.Code {
	case codeUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="keytrail"`)
	case codeSignature:
		h.Set("WWW-Authenticate", `Signature realm="keytrail"`)
	}
	if m.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(m.retryAfter.Seconds())))
	}
	// A problem is made of texts and numbers, which always encode.
	_ = writeJSON(w, "application/problem+json", m.status, p)
}

func idOrNil(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// answer writes a JSON answer.
func answer(w http.ResponseWriter, status int, body any) error {
	return writeJSON(w, "application/json", status, body)
}

// writeJSON writes nothing where the body cannot be encoded.
func writeJSON(w http.ResponseWriter, contentType string, status int, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	// A client that has gone away needs no answer.
	_, _ = w.Write(append(b, '\n'))
	return nil
}
