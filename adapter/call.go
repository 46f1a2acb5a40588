package adapter

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// CallStatus says how an outbound call stands.
type CallStatus string

// The statuses of the outside contract.
const (
	// CallRequested is a call whose outcome is still open: it is under way, waits for
	// its next attempt, or its process died in between.
	CallRequested CallStatus = "requested"
	CallSucceeded CallStatus = "succeeded"
	CallFailed    CallStatus = "failed"
	// CallUnknown is a write that may or may not have been done. It is open too: an
	// echo or a read-back resolves it.
	CallUnknown CallStatus = "unknown"
	CallSkipped CallStatus = "skipped"
)

// Open reports whether the call's outcome is still to come.
func (s CallStatus) Open() bool { return s == CallRequested || s == CallUnknown }

// Call is one outbound Admin API call in its outside form: the fold of the events on
// its stream.
type Call struct {
	CallID        uuid.UUID `json:"call_id"`
	CorrelationID uuid.UUID `json:"correlation_id"`
	// Command is the business action, such as "user.disable".
	Command string `json:"command"`
	Realm   string `json:"realm"`
	// UserID is empty until known: when a user is created, or was named.
	UserID      string `json:"user_id"`
	Username    string `json:"username,omitempty"`
	Method      string `json:"method"`
	URLTemplate string `json:"url_template"`
	// Params are the template's variables but for realm and id, as they were given.
	Params map[string]string `json:"params,omitempty"`
	// Plan names the further calls of the same business action.
	Plan   []string   `json:"plan,omitempty"`
	Status CallStatus `json:"status"`
	// StatusCode is the HTTP status that decided the outcome, nil where none did.
	StatusCode *int `json:"status_code"`
	// Code and Error say why the call did not succeed, Keycloak what Keycloak said
	// about it. All are empty on a call that succeeded.
	Code     Code   `json:"code"`
	Error    string `json:"error"`
	Keycloak string `json:"keycloak,omitempty"`
	// Attempts are the write's wire attempts, in the order in which they went out.
	Attempts []CallAttempt `json:"attempts"`
	// PreconditionReads are the fresh reads on which the command's rule was judged.
	PreconditionReads []CallPrecondition `json:"precondition_reads"`
	RequestedAt       time.Time          `json:"requested_at"`
	// FinishedAt is when the outcome was final, nil while the call is open.
	FinishedAt *time.Time `json:"finished_at"`
	// Echo is Keycloak's own report of the call, nil until it came.
	Echo *Echo `json:"echo"`
	// ResolvedBy and Note tell how an unknown outcome was resolved.
	ResolvedBy string `json:"resolved_by,omitempty"`
	Note       string `json:"note,omitempty"`
	// Actor is who asked for the call, and Reason why.
	Actor  *Actor `json:"actor"`
	Reason string `json:"reason"`
	// Version is the stream's version that the state includes.
	Version eventstore.Version `json:"version"`
}

// CallAttempt is one request on the wire in its outside form.
type CallAttempt struct {
	Attempt    int       `json:"attempt"`
	StartedAt  time.Time `json:"started_at"`
	DurationMS float64   `json:"duration_ms"`
	// StatusCode is nil where no answer came.
	StatusCode *int `json:"status_code"`
	// Error says in one line what went wrong; it is empty where an answer came that
	// was no failure.
	Error string `json:"error"`
	// Kind is the error's class, as in Attempt.
	Kind string `json:"kind,omitempty"`
	// Sent is false where it is certain that no byte reached Keycloak.
	Sent bool `json:"sent"`
}

// CallPrecondition is a read on which a command's rule was judged.
type CallPrecondition struct {
	EventID     uuid.UUID     `json:"event_id"`
	Method      string        `json:"method"`
	URLTemplate string        `json:"url_template"`
	Attempts    []CallAttempt `json:"attempts"`
	// Found says whether the user exists and Enabled whether it was enabled; nil
	// where the read did not tell.
	Found   *bool `json:"found"`
	Enabled *bool `json:"enabled"`
}

// FoldCall folds the events of one call's stream, in any order. It reports false
// where there are none. Unlike a user, a call is folded in the order of versions: its
// stream has one writer at a time, so that order is what happened.
func FoldCall(events []Decoded) (Call, bool) {
	if len(events) == 0 {
		return Call{}, false
	}
	sorted := slices.Clone(events)
	slices.SortStableFunc(sorted, func(a, b Decoded) int { return int(a.Version) - int(b.Version) })
	var c Call
	for _, e := range sorted {
		c.Apply(e)
	}
	return c, true
}

// Apply folds one event in. Events must come in the order of versions; those that are
// folded already are left out.
func (c *Call) Apply(e Decoded) {
	if e.Version <= c.Version {
		return
	}
	c.Version = e.Version
	switch p := e.Payload.(type) {
	case *ApiCallRequested:
		c.CallID, c.CorrelationID = p.CallID, e.CorrelationID
		c.Command, c.Realm, c.UserID, c.Username = p.Command, p.Realm, p.UserID, p.Username
		c.Method, c.URLTemplate, c.Params, c.Plan = p.Method, p.URLTemplate, p.Params, p.Plan
		c.Status, c.RequestedAt = CallRequested, e.OccurredAt
		c.Actor, c.Reason = e.Meta.Actor, e.Meta.Reason
		// Lists are never null in JSON.
		c.Attempts, c.PreconditionReads = []CallAttempt{}, []CallPrecondition{}
	case *ApiCallPreconditionRead:
		c.PreconditionReads = append(slices.Clip(c.PreconditionReads), CallPrecondition{
			EventID: e.ID, Method: p.Method, URLTemplate: p.URLTemplate,
			Attempts: outsideAttempts(p.Attempts), Found: p.Found, Enabled: p.Enabled,
		})
		if c.UserID == "" {
			c.UserID = p.UserID
		}
	case *ApiCallAttempted:
		c.Attempts = append(slices.Clip(c.Attempts), outsideAttempt(p.Attempt))
	case *ApiCallSucceeded:
		c.finish(CallSucceeded, p.StatusCode, CallError{}, e)
		c.ResolvedBy, c.Note = p.ResolvedBy, p.Note
		if c.UserID == "" {
			c.UserID = p.UserID
		}
	case *ApiCallFailed:
		c.finish(CallFailed, p.StatusCode, p.CallError, e)
	case *ApiCallSkipped:
		c.finish(CallSkipped, 0, p.CallError, e)
	case *ApiCallOutcomeUnknown:
		c.finish(CallUnknown, p.StatusCode, p.CallError, e)
		c.FinishedAt = nil
	case *ApiCallEchoed:
		echo := p.Echo
		c.Echo = &echo
	}
}

func (c *Call) finish(status CallStatus, statusCode int, why CallError, e Decoded) {
	at := e.OccurredAt
	c.Status, c.StatusCode, c.FinishedAt = status, nonZero(statusCode), &at
	c.Code, c.Error, c.Keycloak = why.Code, why.Message, why.Keycloak
}

func outsideAttempts(attempts []Attempt) []CallAttempt {
	out := make([]CallAttempt, 0, len(attempts))
	for _, a := range attempts {
		out = append(out, outsideAttempt(a))
	}
	return out
}

func outsideAttempt(a Attempt) CallAttempt {
	return CallAttempt{
		Attempt: a.Attempt, StartedAt: a.StartedAt, DurationMS: a.DurationMS,
		StatusCode: nonZero(a.StatusCode), Error: a.Error, Kind: a.Kind, Sent: a.Sent,
	}
}

func nonZero(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}
