package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// died is what is recorded of a run that nobody has ended.
const died = "the process ended before the run did"

// Cancel ends a run on behalf of whoever stands in ctx (adapter.WithCall), in whichever
// process it is under way, and returns it as it is then: aborted, with code interrupted.
// The process that runs it notices before its next request to Keycloak; what it has
// adopted by then stays. A run whose process died is ended too.
//
// Errors are *adapter.Error: not_found for an unknown run and invalid_request for one
// that is over already.
func (r *Runner) Cancel(ctx context.Context, runID uuid.UUID) (adapter.Reconciliation, error) {
	call, ok := adapter.CallFrom(ctx)
	if !ok {
		call.Actor = adapter.System(source)
	}
	for {
		events, err := r.Codec.ReadStream(ctx, r.Store, adapter.ReconciliationStream(runID))
		if err != nil {
			return adapter.Reconciliation{}, err
		}
		run, ok := adapter.FoldReconciliation(events)
		switch {
		case !ok:
			return run, adapter.Errorf(adapter.CodeNotFound, "there is no reconciliation run %s", runID)
		case run.Status != adapter.RunRunning:
			return run, adapter.Errorf(adapter.CodeInvalidRequest, "run %s is over: it is %s", runID, run.Status)
		}
		var conflict *eventstore.ConflictError
		run, err = r.endRun(ctx, events, call, CancelledBy(call.Actor))
		if !errors.As(err, &conflict) {
			return run, err
		}
		// The run has recorded something meanwhile, perhaps its end.
	}
}

// CancelledBy is what is recorded of a run that somebody has cancelled.
func CancelledBy(who adapter.Actor) string {
	return "the run was cancelled by " + cmp.Or(who.Username, who.ID, string(who.Type))
}

// endRun ends a run from outside. Its end belongs to its own story, whoever brings it
// about. The error is a *eventstore.ConflictError where the run has gone on meanwhile.
func (r *Runner) endRun(ctx context.Context, events []adapter.Decoded, by adapter.CallContext, why string) (adapter.Reconciliation, error) {
	run, _ := adapter.FoldReconciliation(events)
	cause := events[0].ID
	e, err := r.Codec.Encode(ctx, adapter.Draft{
		OccurredAt: r.Clock(),
		Meta: adapter.Metadata{
			CorrelationID: run.CorrelationID, CausationID: &cause, Actor: &by.Actor, Reason: by.Reason,
			Source: by.Source, Traceparent: by.Traceparent,
		},
		Payload: &adapter.ReconciliationAborted{
			RunID: run.RunID, Realm: run.Realm, Status: string(adapter.RunAborted), Code: adapter.CodeInterrupted, Message: why,
		},
	})
	if err != nil {
		return run, err
	}
	recorded, err := r.Store.Append(ctx, eventstore.StreamAppend{
		Stream: adapter.ReconciliationStream(run.RunID), Expected: eventstore.ExpectVersion(run.Version), Events: []eventstore.NewEvent{e},
	})
	if err != nil {
		return run, fmt.Errorf("ending run %s: %w", run.RunID, err)
	}
	d, err := r.Codec.Decode(ctx, recorded[0])
	run.Apply(d)
	return run, err
}

// stillOurs ends a run that somebody else has ended: by cancelling it, or because they
// took it for dead. Nobody else writes to a run's stream.
func (n *run) stillOurs(ctx context.Context) error {
	query := eventstore.StreamQuery{After: n.state.Version, Limit: 1}
	for e, err := range n.Store.ReadStream(ctx, adapter.ReconciliationStream(n.id), query) {
		var d adapter.Decoded
		if err == nil {
			d, err = n.Codec.Decode(ctx, e)
		}
		if err != nil {
			return n.stopped(ctx, fmt.Sprintf("looking whether run %s was ended", n.id), err)
		}
		n.state.Apply(d)
	}
	switch {
	case n.state.Status == adapter.RunRunning:
		return nil
	case n.state.Error == died:
		return n.endedElsewhere(nil)
	default:
		return aborted(&adapter.Error{Code: n.state.Code, Detail: n.state.Error})
	}
}

// endedElsewhere ends a run whose stream somebody else has written to.
func (n *run) endedElsewhere(err error) *stopError {
	return aborted(&adapter.Error{
		Code:   adapter.CodeRunInProgress,
		Detail: fmt.Sprintf("run %s of realm %s was ended by another process", n.id, n.realm), Err: err,
	})
}
