package web

import (
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
)

type runsView struct {
	Runs     []adapter.Reconciliation
	Pager    pager
	Realms   []string
	CanStart bool
}

// listRuns is GET /reconciliations.
func (s *Server) listRuns(w http.ResponseWriter, r *http.Request) error {
	runs, next, err := s.Reconciliations.List(r.Context(), text(r, "realm"), pageSize, text(r, "cursor"))
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "reconciliations", "reconciliations", "Reconciliations", runsView{
		Runs: runs, Pager: pagerOf(r, next), Realms: s.Realms, CanStart: s.Reconciler != nil && len(s.Realms) > 0,
	})
}

type situationCount struct {
	Situation adapter.Situation
	Count     int
}

type runView struct {
	Run      adapter.Reconciliation
	Counts   []situationCount
	Findings []adapter.Finding
	Pager    pager
	Next     string
}

// showRun is GET /reconciliations/{id}. A run that the projection does not have yet is
// folded from its stream.
func (s *Server) showRun(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	id, err := uuid.Parse(param(r, "id"))
	if err != nil {
		return adapter.Errorf(adapter.CodeInvalidRequest, "a run's id is a UUID")
	}
	run, ok, err := s.Reconciliations.Get(ctx, id)
	if err != nil {
		return err
	}
	if !ok {
		events, err := s.Codec.ReadStream(ctx, s.Store, adapter.ReconciliationStream(id))
		if err != nil {
			return err
		}
		if run, ok = adapter.FoldReconciliation(events); !ok {
			return adapter.Errorf(adapter.CodeNotFound, "there is no reconciliation run %s", id)
		}
	}
	v := runView{Run: run, Next: trace.RunNext(run)}
	for _, situation := range adapter.Situations {
		if n := run.Counts[situation]; n > 0 {
			v.Counts = append(v.Counts, situationCount{situation, n})
		}
	}
	findings, next, err := s.Reconciliations.Findings(ctx, id, pageSize, text(r, "cursor"))
	if err != nil {
		return err
	}
	v.Findings, v.Pager = findings, pagerOf(r, next)
	return s.render(w, r, http.StatusOK, "reconciliation", "reconciliations", "Reconciliation of "+run.Realm, v)
}

// startRun is POST /reconciliations: it begins a run and leads to it.
func (s *Server) startRun(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(w, r); err != nil {
		return err
	}
	realm := r.PostForm.Get("realm")
	if s.Reconciler == nil {
		return adapter.Errorf(adapter.CodeKeycloakNotConfigured, "no Keycloak is configured, so there is nothing to compare with").
			WithTry("set KEYTRAIL_KEYCLOAK_URL, KEYTRAIL_KEYCLOAK_CLIENT_ID and KEYTRAIL_KEYCLOAK_CLIENT_SECRET")
	}
	if !slices.Contains(s.Realms, realm) {
		return adapter.Errorf(adapter.CodeNotFound, "realm %s is not configured", quoted(realm)).WithTry("add it to KEYTRAIL_KEYCLOAK_REALMS")
	}
	run, err := s.Reconciler.Start(r.Context(), uuid.Nil, realm)
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/reconciliations/"+run.RunID.String(), http.StatusSeeOther)
	return nil
}
