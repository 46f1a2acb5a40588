package app

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
)

// Baseline adopts every live user of a realm as the starting point, under the lease of
// the realm's runs: code run_in_progress where one is under way. An earlier baseline that
// was not completed is gone on with. progress, where not nil, is told after each page how
// many users are adopted, and of how many.
func (a *App) Baseline(ctx context.Context, realm string, progress func(adopted, counted int)) (reconcile.Result, error) {
	return a.run(ctx, reconcile.Request{Realm: realm, Trigger: adapter.TriggerBaseline, Progress: progress})
}

// CancelRun ends a run, in whichever process it is under way, on behalf of whoever stands
// in ctx (adapter.WithCall). It returns the run as it is then: aborted, with code
// interrupted. One of this process has stopped by then; one of another stops before its
// next request to Keycloak. Errors are those of reconcile.Runner.Cancel, and
// keycloak_not_configured.
func (a *App) CancelRun(ctx context.Context, runID uuid.UUID) (adapter.Reconciliation, error) {
	if a.Reconciler == nil {
		return adapter.Reconciliation{}, noKeycloak("no Keycloak is configured, so there are no runs to cancel")
	}
	run, err := a.Reconciler.Cancel(ctx, runID)
	if under, ok := a.runs.find(runID); ok && err == nil {
		under.cancel(adapter.Errorf(adapter.CodeInterrupted, "%s", run.Error))
		select {
		case <-under.ended:
		case <-ctx.Done():
			return run, context.Cause(ctx)
		}
	}
	return run, err
}

// runs are the reconciliation runs under way in this process. The zero value has none.
type runs struct {
	mu    sync.Mutex
	under map[uuid.UUID]underWay
}

type underWay struct {
	cancel context.CancelCauseFunc
	// ended is closed once the run is over, and its end recorded.
	ended chan struct{}
}

func (r *runs) find(id uuid.UUID) (underWay, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, ok := r.under[id]
	return run, ok
}

// track makes a run that can be cancelled from when its start is recorded until done is
// called.
func (r *runs) track(ctx context.Context, req reconcile.Request) (_ context.Context, _ reconcile.Request, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	run := underWay{cancel: cancel, ended: make(chan struct{})}
	var id uuid.UUID
	started := req.Started
	req.Started = func(state adapter.Reconciliation) {
		r.mu.Lock()
		if r.under == nil {
			r.under = make(map[uuid.UUID]underWay)
		}
		id = state.RunID
		r.under[id] = run
		r.mu.Unlock()
		if started != nil {
			started(state)
		}
	}
	return ctx, req, func() {
		r.mu.Lock()
		delete(r.under, id)
		r.mu.Unlock()
		close(run.ended)
		cancel(nil)
	}
}
