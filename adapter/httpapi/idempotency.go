package httpapi

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// Of what is asked of keytrail itself, each heeds an idempotency key in its own way,
// and keeps none:
//
//   - a run of a realm begun under a key has an id that follows from both, so that its
//     stream, which can be begun once, tells whether there was a first;
//   - a rebuild gives the same rows however often it is made: a key only keeps the
//     request that comes again while it is under way from being refused;
//   - a delivery is interpreted once: the request that comes again finds it released,
//     and is answered as the first was. A try that failed is made again;
//   - a run is ended once, likewise.

// readRequest reads the body of what is asked of keytrail itself: a reason at most.
func readRequest(w http.ResponseWriter, r *http.Request) (command, error) {
	return readCommand(w, r, nil)
}

// idempotentRuns is the namespace of run ids that follow from an idempotency key. It
// can't be changed.
var idempotentRuns = uuid.MustParse("3d0a8e1c-51f7-5b7e-8a36-7c0f8e1f9a54")

// runUnder is the id of the run of a realm that is begun under a key; uuid.Nil, for a
// new one, where there is no key.
func runUnder(realm, key string) uuid.UUID {
	if key == "" {
		return uuid.Nil
	}
	return uuid.NewSHA1(idempotentRuns, []byte(realm+"\x00"+key))
}

// firstRun is the run that an earlier request with the same key began, and false where
// there was none. One with another body, which is its reason, is refused.
func (s *Server) firstRun(ctx context.Context, id uuid.UUID, c command) (adapter.Reconciliation, bool, error) {
	if id == uuid.Nil {
		return adapter.Reconciliation{}, false, nil
	}
	events, err := s.Codec.ReadStream(ctx, s.Store, adapter.ReconciliationStream(id))
	if err != nil {
		return adapter.Reconciliation{}, false, err
	}
	run, ok := adapter.FoldReconciliation(events)
	if ok && events[0].Meta.Reason != c.reason {
		err := adapter.Errorf(adapter.CodeIdempotencyKeyReused, "the idempotency key belongs to another request: run %s of %s, with another reason",
			id, run.StartedAt.UTC().Format("2006-01-02 15:04:05Z"))
		err.CorrelationID = run.CorrelationID
		return run, false, err.WithTry("%s", adapter.CodeIdempotencyKeyReused.Explain().Next)
	}
	return run, ok, nil
}

// released reports a delivery that was parked once and is no longer.
func released(events []adapter.Decoded) bool {
	if _, parked := adapter.ParkingOf(events); parked {
		return false
	}
	for _, e := range events {
		if e.Type == adapter.TypeDeliveryReleased {
			return true
		}
	}
	return false
}
