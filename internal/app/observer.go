package app

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
)

// observeRate is how many users a second are read because events left something open.
const observeRate = 5

// observer reads users of the realms whose events left something open.
func (a *App) observer(realms []string) *interpret.Observer {
	return &interpret.Observer{
		Realms: realms, Unread: a.Users.Unread,
		Read: func(ctx context.Context, user adapter.UserRef, why adapter.Unread) error {
			ctx = adapter.WithCall(ctx, adapter.CallContext{
				Actor: adapter.System("observe"), Reason: why.Because, Source: "observe",
				CorrelationID: why.CorrelationID, CausationID: why.EventID,
			})
			if _, err := a.Commands.ObserveUser(ctx, user, why.Because); err != nil {
				return err
			}
			// The read is listed as due until it is folded.
			head, err := a.Store.Head(ctx)
			if err != nil {
				return err
			}
			return a.Engine.WaitFor(ctx, head, "users")
		},
		Woken: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			return ctx.Err()
		},
		Limit: rate.NewLimiter(observeRate, 1), Clock: a.Clock, Logger: a.Logger,
	}
}
