package adapter

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Situation says how a user's live state relates to what is believed.
type Situation string

// The situations of the outside contract.
const (
	SituationChanged         Situation = "changed"
	SituationMissingLive     Situation = "missing_live"
	SituationUnexpectedLive  Situation = "unexpected_live"
	SituationDuplicate       Situation = "duplicate"
	SituationUnreadable      Situation = "unreadable"
	SituationStaleProjection Situation = "stale_projection"
	SituationInFlight        Situation = "in_flight"
)

// Situations are all of them, in the contract's order.
var Situations = []Situation{
	SituationChanged, SituationMissingLive, SituationUnexpectedLive, SituationDuplicate,
	SituationUnreadable, SituationStaleProjection, SituationInFlight,
}

// ReconciliationStarted records that a run began.
type ReconciliationStarted struct {
	RunID uuid.UUID `json:"run_id"`
	Realm string    `json:"realm"`
	// Trigger is "schedule", "cli" or "http"; "baseline" is a run that compares nothing
	// and adopts every live user as the starting point.
	Trigger string `json:"trigger"`
	// Settle is the settle time in seconds: younger differences are not reported.
	Settle float64 `json:"settle_s"`
	// Baseline is true for the realm's first run, which adopts users never heard of, and
	// for a run with the trigger "baseline".
	Baseline bool `json:"baseline"`
	// Resumes is the run whose baseline this one goes on with; nil for all others.
	Resumes *uuid.UUID `json:"resumes,omitempty"`
}

// TriggerBaseline is the trigger of a run that adopts every live user.
const TriggerBaseline = "baseline"

// FieldDifference is one field in which live and believed state differ.
type FieldDifference struct {
	Field string `json:"field"`
	// Believed and Actual are JSON values; null means none.
	Believed json.RawMessage `json:"believed"`
	Actual   json.RawMessage `json:"actual"`
	// LastChangedBy and LastChangedAt say who set the believed value, and when.
	LastChangedBy string     `json:"last_changed_by,omitempty"`
	LastChangedAt *time.Time `json:"last_changed_at,omitempty"`
	// LastChangedEvent is the event that set it.
	LastChangedEvent *uuid.UUID `json:"last_changed_event,omitempty"`
	// Added and Removed tell of roles, groups and organizations what the live user has
	// beyond what is believed, and what it lacks: names of realm roles, client_id/name of
	// client roles, paths of groups, aliases of organizations, each sorted.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

// NotCompared is a field that a run left out, for all users or from some on.
type NotCompared struct {
	Field string `json:"field"`
	// Code is keycloak_forbidden where the service account lacks a role,
	// keycloak_not_found where the realm has no such thing, and otherwise the failure
	// that made this part of the run invalid.
	Code Code `json:"code"`
	// Reason says so in words, with the next step.
	Reason string `json:"reason"`
}

// Failed reports whether the field was to be compared and could not be.
func (c NotCompared) Failed() bool {
	return c.Code != CodeKeycloakForbidden && c.Code != CodeKeycloakNotFound
}

// DriftPhase says whether a drift appears, changes or ends.
type DriftPhase string

// A drift's phases.
const (
	DriftAppeared DriftPhase = "appeared"
	DriftAltered  DriftPhase = "changed"
	DriftEnded    DriftPhase = "ended"
)

// DriftDetected records that a difference between Keycloak and our belief appeared,
// changed or ended. A run that sees the same one again only counts it.
type DriftDetected struct {
	RunID     uuid.UUID         `json:"run_id"`
	Realm     string            `json:"realm"`
	UserID    string            `json:"user_id"`
	Username  string            `json:"username,omitempty" seal:"profile"`
	Phase     DriftPhase        `json:"phase"`
	Situation Situation         `json:"situation"`
	Fields    []FieldDifference `json:"fields,omitempty" seal:"profile"`
	// CallID is keytrail's newest write to the user whose outcome never became known, if
	// there is one: it may have caused the difference.
	CallID *uuid.UUID `json:"call_id,omitempty"`
}

// ReconciliationCompleted records that a run compared every user of the realm, or, of
// a run with the trigger "baseline", that it adopted every live user.
type ReconciliationCompleted struct {
	RunID    uuid.UUID `json:"run_id"`
	Realm    string    `json:"realm"`
	Compared int       `json:"compared"`
	InSync   int       `json:"in_sync"`
	// Findings counts the differences by situation, repeated ones included.
	Findings map[Situation]int `json:"findings,omitempty"`
	// Unsettled counts differences too young to judge, or with a call under way.
	Unsettled int `json:"unsettled"`
	Baselined int `json:"baselined"`
	// Baseline is true where every live user was adopted as the starting point.
	Baseline bool `json:"baseline,omitempty"`
	// ComparedFields are the fields that were compared, or adopted, and NotCompared those
	// that were not.
	ComparedFields []string      `json:"compared_fields,omitempty"`
	NotCompared    []NotCompared `json:"not_compared,omitempty"`
}

// ReconciliationAborted records that a run ended without a judgement.
type ReconciliationAborted struct {
	RunID uuid.UUID `json:"run_id"`
	Realm string    `json:"realm"`
	// Status is "invalid" where the listing cannot be trusted and "aborted" where the
	// run was cancelled or could not go on.
	Status  string `json:"status"`
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Names of reconciliation events.
const (
	TypeReconciliationStarted   = "ReconciliationStarted"
	TypeDriftDetected           = "DriftDetected"
	TypeReconciliationCompleted = "ReconciliationCompleted"
	TypeReconciliationAborted   = "ReconciliationAborted"
)

// EventType implements Payload.
func (*ReconciliationStarted) EventType() string { return TypeReconciliationStarted }

// EventType implements Payload.
func (*DriftDetected) EventType() string { return TypeDriftDetected }

// EventType implements Payload.
func (*ReconciliationCompleted) EventType() string { return TypeReconciliationCompleted }

// EventType implements Payload.
func (*ReconciliationAborted) EventType() string { return TypeReconciliationAborted }
