package adapter

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// RunStatus says how a reconciliation run stands.
type RunStatus string

// The statuses of the outside contract.
const (
	RunRunning   RunStatus = "running"
	RunCompleted RunStatus = "completed"
	// RunInvalid is a run whose listing cannot be trusted, RunAborted one that was
	// cancelled or could not go on. Neither says anything about drift.
	RunInvalid RunStatus = "invalid"
	RunAborted RunStatus = "aborted"
)

// MaxRunFindings is how many findings the object of a run carries; the others are
// read by page.
const MaxRunFindings = 1000

// Reconciliation is one run in its outside form.
type Reconciliation struct {
	RunID         uuid.UUID  `json:"run_id"`
	CorrelationID uuid.UUID  `json:"correlation_id"`
	Realm         string     `json:"realm"`
	Status        RunStatus  `json:"status"`
	StartedAt     time.Time  `json:"started_at"`
	FinishedAt    *time.Time `json:"finished_at"`
	// Trigger is "schedule", "cli", "http" or "baseline".
	Trigger string `json:"trigger"`
	// Baseline is true for a run that adopted users never heard of.
	Baseline bool `json:"baseline"`
	Compared int  `json:"compared"`
	InSync   int  `json:"in_sync"`
	// Unsettled counts differences too young to judge, or with a call under way.
	Unsettled int `json:"unsettled"`
	Baselined int `json:"baselined"`
	// ComparedFields are the user's fields that were compared, and NotCompared those that
	// were not, each with the reason. Both are empty until the run is completed.
	ComparedFields []string      `json:"compared_fields"`
	NotCompared    []NotCompared `json:"not_compared"`
	// Counts are the findings by situation.
	Counts map[Situation]int `json:"counts"`
	// Code and Error say why the run is invalid or was aborted.
	Code  Code   `json:"code"`
	Error string `json:"error"`
	Actor *Actor `json:"actor"`
	// Findings are the first MaxRunFindings differences that stood when the run was
	// completed, by user id; FindingsTotal counts all of them.
	Findings      []Finding `json:"findings"`
	FindingsTotal int       `json:"findings_total"`
	// Version is the version of the run's stream that the state includes.
	Version eventstore.Version `json:"version"`
}

// Finding is one user whose live state differs from what is believed.
type Finding struct {
	UserID    string    `json:"user_id"`
	Username  string    `json:"username,omitempty"`
	Situation Situation `json:"situation"`
	// Fields is never null.
	Fields []FieldDifference `json:"fields"`
	// CallID is keytrail's newest write to the user whose outcome never became known, if
	// there is one: it may have caused the difference.
	CallID *uuid.UUID `json:"call_id,omitempty"`
	// Since is when the difference was first seen in this form, and RunID the run that
	// saw it.
	Since time.Time `json:"since"`
	RunID uuid.UUID `json:"run_id"`
}

// FoldReconciliation folds the events of one run's stream, in any order. Findings
// stays empty: they belong to the realm, and a run that sees a known one again does
// not repeat it. It reports false where there are no events.
func FoldReconciliation(events []Decoded) (Reconciliation, bool) {
	if len(events) == 0 {
		return Reconciliation{}, false
	}
	sorted := slices.Clone(events)
	slices.SortStableFunc(sorted, func(a, b Decoded) int { return int(a.Version) - int(b.Version) })
	var r Reconciliation
	for _, e := range sorted {
		r.Apply(e)
	}
	return r, true
}

// Apply folds one event in. Events must come in the order of versions; those that are
// folded already are left out.
func (r *Reconciliation) Apply(e Decoded) {
	if e.Version <= r.Version {
		return
	}
	r.Version = e.Version
	at := e.OccurredAt
	switch p := e.Payload.(type) {
	case *ReconciliationStarted:
		r.RunID, r.CorrelationID, r.Realm = p.RunID, e.CorrelationID, p.Realm
		r.Status, r.StartedAt, r.Actor = RunRunning, at, e.Meta.Actor
		r.Trigger, r.Baseline = p.Trigger, p.Baseline
		// None of them is ever null in JSON.
		r.Counts, r.Findings = map[Situation]int{}, []Finding{}
		r.ComparedFields, r.NotCompared = []string{}, []NotCompared{}
	case *ReconciliationCompleted:
		r.Status, r.FinishedAt = RunCompleted, &at
		r.Compared, r.InSync, r.Unsettled, r.Baselined = p.Compared, p.InSync, p.Unsettled, p.Baselined
		r.Baseline = r.Baseline || p.Baseline
		r.ComparedFields = append([]string{}, p.ComparedFields...)
		r.NotCompared = append([]NotCompared{}, p.NotCompared...)
		counts := make(map[Situation]int, len(p.Findings))
		total := 0
		for situation, n := range p.Findings {
			counts[situation] = n
			total += n
		}
		r.Counts, r.FindingsTotal = counts, total
	case *ReconciliationAborted:
		r.Status, r.FinishedAt = RunStatus(p.Status), &at
		r.Code, r.Error = p.Code, p.Message
	}
}

// FindingOf is the finding that a DriftDetected event reports.
func FindingOf(e Decoded, p *DriftDetected) Finding {
	fields := p.Fields
	if fields == nil {
		fields = []FieldDifference{}
	}
	return Finding{
		UserID: p.UserID, Username: p.Username, Situation: p.Situation, Fields: fields, CallID: p.CallID,
		Since: e.OccurredAt, RunID: p.RunID,
	}
}
