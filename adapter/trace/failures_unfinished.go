package trace

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// maxCreations is how many creations of users are looked through for one page, others'
// than ours among them.
const maxCreations = 10_000

// unfinished lists the creations that are done and whose plan stopped between two calls,
// because the process died there: nothing else tells of it. A call of the plan that
// failed, or is open, is listed itself.
func (f *Failures) unfinished(ctx context.Context, realm, mark string, limit int) ([]Failure, error) {
	before, err := position(mark)
	if err != nil {
		return nil, err
	}
	var items []Failure
	query := eventstore.LogQuery{Types: []string{adapter.TypeUserApiCreated}, Backward: true, Before: before, Limit: maxCreations}
	for e, err := range f.Store.ReadLog(ctx, query) {
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(e.Metadata, []byte(`"call_id"`)) {
			continue
		}
		d, err := f.Codec.Decode(ctx, e)
		if err != nil {
			return nil, err
		}
		created, ok := d.Payload.(*adapter.UserApiCreated)
		if !ok || d.Meta.CallID == nil || (realm != "" && created.Realm != realm) {
			continue
		}
		c, missing, err := f.missingSteps(ctx, *d.Meta.CallID)
		if err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			continue
		}
		item := failureOf(FailureCallOpen, d)
		item.ID, item.Realm, item.UserID, item.Username, item.Code = c.CallID, c.Realm, created.UserID, c.Username, adapter.CodePartiallyDone
		item.say = func(w words) string {
			return callTitle(w, c) + by(c.Actor) + ": the user was created, and then it stopped; not done: " + strings.Join(missing, "; ")
		}
		var commands []string
		for _, step := range missing {
			commands = append(commands, adapter.ParsePlanStep(step).ByHand(created.UserID)...)
		}
		item.Next = strings.Join(commands, "; ")
		if items = append(items, item); len(items) == limit {
			break
		}
	}
	return items, nil
}

// missingSteps are the steps of a call's plan that were not begun, where nothing tells
// why and enough time has passed.
func (f *Failures) missingSteps(ctx context.Context, callID uuid.UUID) (first adapter.Call, missing []string, err error) {
	events, err := f.Codec.ReadStream(ctx, f.Store, adapter.CallStream(callID))
	if err != nil {
		return first, nil, err
	}
	first, ok := adapter.FoldCall(events)
	if !ok || len(first.Plan) == 0 || first.Status != adapter.CallSucceeded {
		return first, nil, nil
	}
	newest := first.FinishedAt
	for n := range first.Plan {
		events, err := f.Codec.ReadStream(ctx, f.Store, adapter.CallStream(adapter.StepCallID(callID, first.RequestedAt, n+1)))
		if err != nil {
			return first, nil, err
		}
		step, begun := adapter.FoldCall(events)
		if !begun {
			missing = first.Plan[n:]
			break
		}
		if step.Status != adapter.CallSucceeded && step.Status != adapter.CallSkipped {
			return first, nil, nil
		}
		newest = step.FinishedAt
	}
	if newest == nil || f.Clock().Sub(*newest) < f.openAfter() {
		return first, nil, nil
	}
	return first, missing, nil
}

func (f *Failures) openAfter() time.Duration {
	if f.OpenAfter > 0 {
		return f.OpenAfter
	}
	return defaultOpenAfter
}
