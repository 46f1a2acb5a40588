package httpapi

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// ReconciliationReader reads the reconciliations projection.
type ReconciliationReader interface {
	// Get returns a run with its first findings, and false where it is not known.
	Get(ctx context.Context, runID uuid.UUID) (adapter.Reconciliation, bool, error)
	// List returns a page of runs without findings, newest first, of one realm or, where
	// that is empty, of all, and the cursor of the next one.
	List(ctx context.Context, realm string, limit int, cursor string) ([]adapter.Reconciliation, string, error)
	// Findings returns a page of a run's findings by user id, and the cursor of the next.
	Findings(ctx context.Context, runID uuid.UUID, limit int, cursor string) ([]adapter.Finding, string, error)
}

// Reconciler starts and ends reconciliation runs.
type Reconciler interface {
	// Start begins a run of the realm on behalf of whoever stands in ctx
	// (adapter.WithCall) and returns it once its start is recorded. The run goes on when
	// ctx ends. Its id is runID, a new one for uuid.Nil; an id that there is begins no
	// second run and is an error. Errors are *adapter.Error: CodeRunInProgress where one
	// is under way, CodeInvalidRequest or CodeNotFound for a realm that cannot be
	// reconciled.
	Start(ctx context.Context, runID uuid.UUID, realm string) (adapter.Reconciliation, error)
	// Cancel ends a run, in whichever process it is under way, and returns it as it is
	// then. Errors are *adapter.Error: CodeNotFound for an unknown run, and
	// CodeInvalidRequest for one that is over already.
	Cancel(ctx context.Context, runID uuid.UUID) (adapter.Reconciliation, error)
}

// startReconciliation is POST /realms/{realm}/reconciliations: 202 with the run, whose
// result is at the Location.
func (s *Server) startReconciliation(w http.ResponseWriter, r *http.Request) error {
	command, err := readRequest(w, r)
	if err != nil {
		return err
	}
	if s.Reconciler == nil {
		return nothingToCompare()
	}
	realm := param(r, "realm")
	id := runUnder(realm, command.key)
	run, begun, err := s.firstRun(r.Context(), id, command)
	if err != nil {
		return err
	}
	if !begun {
		if run, err = s.Reconciler.Start(command.context(r.Context()), id, realm); err != nil {
			// Another request with this key may have been the first meanwhile.
			first, begun, reused := s.firstRun(r.Context(), id, command)
			switch {
			case begun:
				run = first
			case adapter.CodeOf(reused) == adapter.CodeIdempotencyKeyReused:
				return reused
			default:
				return err
			}
		}
	}
	w.Header().Set("Location", apiRoot+"/reconciliations/"+run.RunID.String())
	return answer(w, http.StatusAccepted, runView(run))
}

// cancelReconciliation is POST /reconciliations/{id}/cancel: 200 with the run, which is
// aborted.
func (s *Server) cancelReconciliation(w http.ResponseWriter, r *http.Request) error {
	command, err := readRequest(w, r)
	if err != nil {
		return err
	}
	id, err := runID(r)
	if err != nil {
		return err
	}
	if s.Reconciler == nil {
		return nothingToCompare()
	}
	run, err := s.Reconciler.Cancel(command.context(r.Context()), id)
	if adapter.CodeOf(err) == adapter.CodeInvalidRequest && command.key != "" {
		// Over already: for a request that may have come before, an aborted run is as asked.
		if ended, found := s.findRun(r); found == nil && ended.Status == adapter.RunAborted {
			run, err = ended, nil
		}
	}
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, runView(run))
}

func nothingToCompare() error {
	return adapter.Errorf(adapter.CodeKeycloakNotConfigured, "no Keycloak is configured, so there is nothing to compare with").
		WithTry("set KEYTRAIL_KEYCLOAK_URL, KEYTRAIL_KEYCLOAK_CLIENT_ID and KEYTRAIL_KEYCLOAK_CLIENT_SECRET")
}

// listReconciliations is GET /reconciliations.
func (s *Server) listReconciliations(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	realm := q.text("realm")
	limit, cursor := q.page()
	if err := q.err(); err != nil {
		return err
	}
	runs, next, err := s.Reconciliations.List(r.Context(), realm, limit, cursor)
	if err != nil {
		return err
	}
	for i := range runs {
		runs[i] = runView(runs[i])
	}
	return answer(w, http.StatusOK, pageOf(runs, next))
}

// showReconciliation is GET /reconciliations/{id}. A run that the projection does not
// have yet is folded from its stream.
func (s *Server) showReconciliation(w http.ResponseWriter, r *http.Request) error {
	if err := queryOf(r).err(); err != nil {
		return err
	}
	run, err := s.findRun(r)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, runView(run))
}

func (s *Server) findRun(r *http.Request) (adapter.Reconciliation, error) {
	id, err := runID(r)
	if err != nil {
		return adapter.Reconciliation{}, err
	}
	run, ok, err := s.Reconciliations.Get(r.Context(), id)
	if err != nil || ok {
		return run, err
	}
	events, err := s.Codec.ReadStream(r.Context(), s.Store, adapter.ReconciliationStream(id))
	if err != nil {
		return run, err
	}
	run, ok = adapter.FoldReconciliation(events)
	if !ok {
		return run, adapter.Errorf(adapter.CodeNotFound, "there is no reconciliation run %s", id).
			WithTry("GET %s/reconciliations lists them", apiRoot)
	}
	return run, nil
}

func runID(r *http.Request) (uuid.UUID, error) {
	id, err := uuid.Parse(param(r, "id"))
	if err != nil {
		return id, faults{{"id", "a run's id is a UUID"}}.err()
	}
	return id, nil
}

// listFindings is GET /reconciliations/{id}/findings.
func (s *Server) listFindings(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	limit, cursor := q.page()
	if err := q.err(); err != nil {
		return err
	}
	run, err := s.findRun(r)
	if err != nil {
		return err
	}
	findings, next, err := s.Reconciliations.Findings(r.Context(), run.RunID, limit, cursor)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, pageOf(findingsView(findings), next))
}

// runView brings a run into the form in which collections are never null and times UTC.
func runView(run adapter.Reconciliation) adapter.Reconciliation {
	run.StartedAt, run.FinishedAt = run.StartedAt.UTC(), utc(run.FinishedAt)
	if run.Counts == nil {
		run.Counts = map[adapter.Situation]int{}
	}
	run.Findings = findingsView(run.Findings)
	return run
}

func findingsView(findings []adapter.Finding) []adapter.Finding {
	out := make([]adapter.Finding, len(findings))
	for i, f := range findings {
		f.Since = f.Since.UTC()
		fields := make([]adapter.FieldDifference, len(f.Fields))
		for j, field := range f.Fields {
			field.LastChangedAt = utc(field.LastChangedAt)
			fields[j] = field
		}
		f.Fields = fields
		out[i] = f
	}
	return out
}
