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
	// Trigger is "schedule", "cli" or "http".
	Trigger string `json:"trigger"`
	// Settle is the settle time in seconds: younger differences are not reported.
	Settle float64 `json:"settle_s"`
	// Baseline is true for the realm's first run, which adopts users never heard of.
	Baseline bool `json:"baseline"`
}

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
}

// ReconciliationCompleted records that a run compared every user of the realm.
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
