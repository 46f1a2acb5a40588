package trace

import (
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// Status is how a story ended.
type Status string

// The statuses of the outside contract.
const (
	// StatusOK means that everything that was begun was done.
	StatusOK Status = "ok"
	// StatusFailed means that a call failed or was refused, a delivery is parked, or
	// a reconciliation run was invalid, was aborted or found drift.
	StatusFailed Status = "failed"
	// StatusUnknown means that nobody knows yet whether a call was done.
	StatusUnknown Status = "unknown"
	// StatusOpen means that a call or a run is still under way.
	StatusOpen Status = "open"
)

// Trace is one story, from its first event to its last. It is plain data: the same
// events give the same trace.
type Trace struct {
	CorrelationID uuid.UUID `json:"correlation_id"`
	Status        Status    `json:"status"`
	// StartedAt and EndedAt are when the first and the last event occurred. EndedAt is
	// nil while the story is open.
	StartedAt time.Time  `json:"started_at"`
	EndedAt   *time.Time `json:"ended_at"`
	// Summary is one sentence.
	Summary string `json:"summary"`
	// Next says what an operator does about it; empty where nothing needs doing.
	Next []string `json:"next,omitempty"`
	// Events stand in the order of the package comment.
	Events []adapter.View `json:"events"`
	// Calls are the calls among the events, the first requested first.
	Calls []adapter.Call `json:"calls"`
	// Users are the users that the story is about, in the order in which it names them.
	Users []NamedUser `json:"users,omitempty"`
	// Settled are the later facts by which it is known what holds, whether or not a call
	// of which the outcome is not known was done.
	Settled []Settlement `json:"settled,omitempty"`
	// Truncated is true where the story has more events than are shown.
	Truncated bool `json:"truncated,omitempty"`
	// Others are further stories, newest first, where the id was a user's.
	Others []Story `json:"others,omitempty"`
}

// NamedUser is a user with the name that the story or, where it names none, the
// users projection knows.
type NamedUser struct {
	adapter.UserRef
	Username string `json:"username,omitempty"`
}

// Story is one line about another story of the same user.
type Story struct {
	CorrelationID uuid.UUID `json:"correlation_id"`
	// At is when its newest event about the user occurred.
	At      time.Time `json:"at"`
	Summary string    `json:"summary"`
}
