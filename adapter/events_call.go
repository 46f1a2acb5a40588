package adapter

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/google/uuid"
)

// ApiCallRequested records the intent of one outbound Admin API call. It is durable
// before the first byte goes out.
type ApiCallRequested struct {
	CallID uuid.UUID `json:"call_id"`
	// Command is the business action, such as "user.disable".
	Command string `json:"command"`
	Realm   string `json:"realm"`
	// UserID is empty until known when a user is created.
	UserID   string `json:"user_id,omitempty"`
	Username string `json:"username,omitempty" seal:"profile"`
	Method   string `json:"method"`
	// URLTemplate is the path with its variables named, such as
	// /admin/realms/{realm}/users/{id}.
	URLTemplate string `json:"url_template"`
	// Params are the template's variables but for realm and id, such as group.
	Params map[string]string `json:"params,omitempty"`
	// Body is the request's body without credentials.
	Body json.RawMessage `json:"body,omitempty" seal:"profile"`
	// Plan names the further calls of the same business action, in order. One that is
	// missing among the calls of the correlation was never tried.
	Plan []string `json:"plan,omitempty"`
	// RequestDigest is set where the call id follows from an idempotency key: the same
	// key with another digest is another request.
	RequestDigest string `json:"request_digest,omitempty"`
}

// ApiCallPreconditionRead records the fresh read on which a command's rule was
// judged, before anything was written.
type ApiCallPreconditionRead struct {
	CallID      uuid.UUID `json:"call_id"`
	Method      string    `json:"method"`
	URLTemplate string    `json:"url_template"`
	// Attempts are the read's own wire attempts.
	Attempts []Attempt `json:"attempts"`
	// Found says whether what was read exists; nil where the read failed.
	Found *bool `json:"found,omitempty"`
	// Params are variables of the call's own template that the read has settled: the id of
	// a group that the intent has by its path.
	Params map[string]string `json:"params,omitempty"`
	// UserID is the id of the user who was found: the intent has none where the user
	// was named.
	UserID  string `json:"user_id,omitempty"`
	Enabled *bool  `json:"enabled,omitempty"`
	// Username is that user's name: some of Keycloak's events name nobody otherwise.
	Username string `json:"username,omitempty" seal:"profile"`
	// ServiceAccountID is the user id under which Keycloak names keytrail's own client
	// in its events; empty where that is not known.
	ServiceAccountID string `json:"service_account_id,omitempty"`
}

// Settle returns the variables of a call with those that the read has settled.
func (p *ApiCallPreconditionRead) Settle(params map[string]string) map[string]string {
	if len(p.Params) == 0 {
		return params
	}
	settled := make(map[string]string, len(params))
	maps.Copy(settled, params)
	maps.Copy(settled, p.Params)
	return settled
}

// Attempt is one request on the wire.
type Attempt struct {
	Attempt    int       `json:"attempt"`
	StartedAt  time.Time `json:"started_at"`
	DurationMS float64   `json:"duration_ms"`
	// StatusCode is 0 where no answer came.
	StatusCode int `json:"status_code,omitempty"`
	// Error says in one line what went wrong, Kind its class: "refused", "timeout",
	// "reset", "dns", "tls", "canceled", "http_status".
	Error string `json:"error,omitempty"`
	Kind  string `json:"kind,omitempty"`
	// Sent is false where it is certain that no byte reached Keycloak.
	Sent bool `json:"sent"`
}

// ApiCallAttempted records one wire attempt of a call.
type ApiCallAttempted struct {
	CallID uuid.UUID `json:"call_id"`
	Attempt
}

// ApiCallSucceeded records that Keycloak did what was asked.
type ApiCallSucceeded struct {
	CallID     uuid.UUID `json:"call_id"`
	StatusCode int       `json:"status_code,omitempty"`
	Attempts   int       `json:"attempts"`
	DurationMS float64   `json:"duration_ms"`
	// UserID is the created user's id.
	UserID string `json:"user_id,omitempty"`
	// ResolvedBy is "echo" where the answer was lost and Keycloak's own event proved
	// that the call was done.
	ResolvedBy string `json:"resolved_by,omitempty"`
	Note       string `json:"note,omitempty"`
}

// CallError is why a call did not succeed.
type CallError struct {
	Code Code `json:"code"`
	// Message is in our words, Keycloak what Keycloak said, redacted and bounded.
	Message  string `json:"message"`
	Keycloak string `json:"keycloak,omitempty" seal:"profile"`
}

// ApiCallFailed records that a call is over without having been done.
type ApiCallFailed struct {
	CallID     uuid.UUID `json:"call_id"`
	StatusCode int       `json:"status_code,omitempty"`
	Attempts   int       `json:"attempts"`
	DurationMS float64   `json:"duration_ms"`
	CallError
}

// ApiCallSkipped records that a rule refused the command, judged on a fresh read:
// nothing was written.
type ApiCallSkipped struct {
	CallID uuid.UUID `json:"call_id"`
	CallError
}

// ApiCallOutcomeUnknown records that a write may or may not have been done: its
// answer was lost, or was a 5xx that says nothing about it.
type ApiCallOutcomeUnknown struct {
	CallID     uuid.UUID `json:"call_id"`
	StatusCode int       `json:"status_code,omitempty"`
	Attempts   int       `json:"attempts"`
	DurationMS float64   `json:"duration_ms"`
	CallError
}

// ApiCallEchoed records that Keycloak reported the call back as an admin event.
type ApiCallEchoed struct {
	CallID uuid.UUID `json:"call_id"`
	Echo
}

// Names of call events.
const (
	TypeApiCallRequested        = "ApiCallRequested"
	TypeApiCallPreconditionRead = "ApiCallPreconditionRead"
	TypeApiCallAttempted        = "ApiCallAttempted"
	TypeApiCallSucceeded        = "ApiCallSucceeded"
	TypeApiCallFailed           = "ApiCallFailed"
	TypeApiCallSkipped          = "ApiCallSkipped"
	TypeApiCallOutcomeUnknown   = "ApiCallOutcomeUnknown"
	TypeApiCallEchoed           = "ApiCallEchoed"
)

// EventType implements Payload.
func (*ApiCallRequested) EventType() string { return TypeApiCallRequested }

// EventType implements Payload.
func (*ApiCallPreconditionRead) EventType() string { return TypeApiCallPreconditionRead }

// EventType implements Payload.
func (*ApiCallAttempted) EventType() string { return TypeApiCallAttempted }

// EventType implements Payload.
func (*ApiCallSucceeded) EventType() string { return TypeApiCallSucceeded }

// EventType implements Payload.
func (*ApiCallFailed) EventType() string { return TypeApiCallFailed }

// EventType implements Payload.
func (*ApiCallSkipped) EventType() string { return TypeApiCallSkipped }

// EventType implements Payload.
func (*ApiCallOutcomeUnknown) EventType() string { return TypeApiCallOutcomeUnknown }

// EventType implements Payload.
func (*ApiCallEchoed) EventType() string { return TypeApiCallEchoed }
