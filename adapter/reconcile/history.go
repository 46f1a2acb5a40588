package reconcile

import (
	"context"
	"fmt"
	"iter"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// LogHistory is the History that reads the event log itself, so that it needs no
// projection and is never behind. Its cost grows with the number of runs and of
// recorded drifts, not with that of users or runs that saw a drift again.
type LogHistory struct {
	Log   eventstore.Reader
	Codec *adapter.Codec
}

var _ History = LogHistory{}

// Baselined implements History: a completed run has adopted whom it did not know.
func (h LogHistory) Baselined(ctx context.Context, realm string) (bool, error) {
	q := eventstore.LogQuery{
		Category: adapter.CategoryReconciliation, Types: []string{adapter.TypeReconciliationCompleted}, Backward: true,
	}
	for d, err := range h.read(ctx, q) {
		if err != nil {
			return false, err
		}
		if p, ok := d.Payload.(*adapter.ReconciliationCompleted); ok && p.Realm == realm {
			return true, nil
		}
	}
	return false, nil
}

// OpenDrifts implements History.
func (h LogHistory) OpenDrifts(ctx context.Context, realm string) (map[string]adapter.Finding, error) {
	q := eventstore.LogQuery{Category: adapter.CategoryReconciliation, Types: []string{adapter.TypeDriftDetected}}
	open := map[string]adapter.Finding{}
	for d, err := range h.read(ctx, q) {
		if err != nil {
			return nil, err
		}
		p, ok := d.Payload.(*adapter.DriftDetected)
		switch {
		case !ok || p.Realm != realm:
		case p.Phase == adapter.DriftEnded:
			delete(open, p.UserID)
		default:
			open[p.UserID] = adapter.FindingOf(d, p)
		}
	}
	return open, nil
}

// Unfinished implements History.
func (h LogHistory) Unfinished(ctx context.Context, realm string) ([]uuid.UUID, error) {
	q := eventstore.LogQuery{Category: adapter.CategoryReconciliation, Types: []string{
		adapter.TypeReconciliationStarted, adapter.TypeReconciliationCompleted, adapter.TypeReconciliationAborted,
	}}
	running := map[uuid.UUID]struct{}{}
	for d, err := range h.read(ctx, q) {
		if err != nil {
			return nil, err
		}
		switch p := d.Payload.(type) {
		case *adapter.ReconciliationStarted:
			if p.Realm == realm {
				running[p.RunID] = struct{}{}
			}
		case *adapter.ReconciliationCompleted:
			delete(running, p.RunID)
		case *adapter.ReconciliationAborted:
			delete(running, p.RunID)
		}
	}
	ids := make([]uuid.UUID, 0, len(running))
	for id := range running {
		ids = append(ids, id)
	}
	return ids, nil
}

// OpenBaseline implements History.
func (h LogHistory) OpenBaseline(ctx context.Context, realm string) (OpenBaseline, bool, error) {
	q := eventstore.LogQuery{Category: adapter.CategoryReconciliation, Types: []string{
		adapter.TypeReconciliationStarted, adapter.TypeReconciliationCompleted,
	}}
	var newest OpenBaseline
	open := false
	for d, err := range h.read(ctx, q) {
		if err != nil {
			return OpenBaseline{}, false, err
		}
		switch p := d.Payload.(type) {
		case *adapter.ReconciliationStarted:
			switch {
			case p.Realm != realm || p.Trigger != adapter.TriggerBaseline:
			case open && p.Resumes != nil && *p.Resumes == newest.RunID:
				newest.Runs = append(newest.Runs, p.RunID)
			default:
				newest, open = OpenBaseline{RunID: p.RunID, StartedAt: d.OccurredAt, Runs: []uuid.UUID{p.RunID}}, true
			}
		case *adapter.ReconciliationCompleted:
			open = open && !(p.Baseline && p.Realm == realm)
		}
	}
	return newest, open, nil
}

// Adopted implements History.
func (h LogHistory) Adopted(ctx context.Context, realm string, runs []uuid.UUID, fn func(userID string)) error {
	if len(runs) == 0 {
		return nil
	}
	wanted := make(map[string]struct{}, len(runs))
	for _, id := range runs {
		wanted[id.String()] = struct{}{}
	}
	q := eventstore.LogQuery{Category: adapter.CategoryUser, Types: []string{adapter.TypeUserApiBaselined}}
	for d, err := range h.read(ctx, q) {
		if err != nil {
			return err
		}
		p, ok := d.Payload.(*adapter.UserApiBaselined)
		if !ok || p.Realm != realm {
			continue
		}
		if _, ok := wanted[p.RunID]; ok {
			fn(p.UserID)
		}
	}
	return nil
}

func (h LogHistory) read(ctx context.Context, q eventstore.LogQuery) iter.Seq2[adapter.Decoded, error] {
	return func(yield func(adapter.Decoded, error) bool) {
		for e, err := range h.Log.ReadLog(ctx, q) {
			if err != nil {
				yield(adapter.Decoded{}, fmt.Errorf("reading the runs: %w", err))
				return
			}
			d, err := h.Codec.Decode(ctx, e)
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}
