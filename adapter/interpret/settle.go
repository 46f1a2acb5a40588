package interpret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Settler settles the calls that Keycloak has reported back and that have no outcome
// still, because their writer died in between: most often the process that was both,
// and that reads the echo when it is started again, while the call still counts as
// under way. Any number of processes may run one on the same store.
type Settler struct {
	Interpreter *Interpreter
	// Requested lists the calls without an outcome, as projected: a page, and the cursor
	// of the next, empty on the last.
	Requested func(ctx context.Context, limit int, cursor string) (calls []adapter.Call, next string, err error)
	// Woken returns after a while.
	Woken  func(ctx context.Context) error
	Logger *slog.Logger
}

// settlePage is how many open calls are looked up at once.
const settlePage = 100

// Run settles calls until the context ends. Failures are logged and tried again.
func (s *Settler) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.turn(ctx); err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, "settling open calls failed", "error", err)
		}
		if err := s.Woken(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (s *Settler) turn(ctx context.Context) error {
	var failed error
	for cursor := ""; ; {
		calls, next, err := s.Requested(ctx, settlePage, cursor)
		if err != nil {
			return errors.Join(failed, err)
		}
		for _, c := range calls {
			if c.Echo == nil {
				continue
			}
			settled, err := s.Interpreter.Settle(ctx, c.CallID)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("settling call %s: %w", c.CallID, err))
			}
			if settled {
				s.Logger.InfoContext(ctx, "call settled by its echo", "call_id", c.CallID, "correlation_id", c.CorrelationID)
			}
		}
		if cursor = next; next == "" {
			return failed
		}
	}
}

// Settle gives an outcome to a call that has none, that was echoed, and whose writer
// has had the time to record it. It reports false where there is nothing to settle.
func (i *Interpreter) Settle(ctx context.Context, callID uuid.UUID) (bool, error) {
	c, ok, err := i.loadCall(ctx, callID)
	if err != nil || !ok || len(c.echoes) == 0 || !i.abandoned(c) {
		return false, err
	}
	d, err := i.deliveryOf(ctx, c.echoes[0].DeliveryEventID)
	if err != nil {
		return false, err
	}
	change, err := i.read(ctx, d)
	if err != nil {
		return false, err
	}
	if err := i.recordEcho(ctx, d, c, change); err != nil {
		return false, err
	}
	return true, nil
}

// deliveryOf reads the delivery that an event recorded.
func (i *Interpreter) deliveryOf(ctx context.Context, eventID uuid.UUID) (adapter.Decoded, error) {
	for e, err := range i.Store.ReadLog(ctx, eventstore.LogQuery{EventIDs: []uuid.UUID{eventID}, Limit: 1}) {
		if err != nil {
			return adapter.Decoded{}, err
		}
		events, err := i.readDelivery(ctx, e.Stream)
		if err != nil {
			return adapter.Decoded{}, err
		}
		return events[0], nil
	}
	return adapter.Decoded{}, fmt.Errorf("delivery event %s: %w", eventID, eventstore.ErrNotFound)
}
