package app

import (
	"cmp"
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

// CancelRun ends a run of this process, which is then aborted with code interrupted, and
// returns once that is recorded. It acts on behalf of whoever stands in ctx
// (adapter.WithCall). Errors are *adapter.Error: not_found for an unknown run,
// invalid_request for one that is over already, and run_in_progress for one of another
// process, which only that can end.
func (a *App) CancelRun(ctx context.Context, runID uuid.UUID) error {
	if run, ok := a.runs.find(runID); ok {
		who := adapter.System("keytrail")
		if call, ok := adapter.CallFrom(ctx); ok {
			who = call.Actor
		}
		run.cancel(adapter.Errorf(adapter.CodeInterrupted, "the run was cancelled by %s",
			cmp.Or(who.Username, who.ID, string(who.Type))))
		select {
		case <-run.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	events, err := a.Codec.ReadStream(ctx, a.Store, adapter.ReconciliationStream(runID))
	if err != nil {
		return err
	}
	run, ok := adapter.FoldReconciliation(events)
	switch {
	case !ok:
		return adapter.Errorf(adapter.CodeNotFound, "there is no reconciliation run %s", runID)
	case run.Status != adapter.RunRunning:
		return adapter.Errorf(adapter.CodeInvalidRequest, "run %s is over: it is %s", runID, run.Status)
	default:
		return adapter.Errorf(adapter.CodeRunInProgress, "run %s is not one of this process", runID).
			WithTry("cancel it where it was started; a run whose process died is ended by the next one of realm %s", run.Realm)
	}
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
