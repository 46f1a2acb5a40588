package app

import (
	"context"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/projections/calls"
)

// settleInterval is how often open calls are looked up. A call is settled minutes after
// its echo, so that a few seconds more are nothing.
const settleInterval = 15 * time.Second

// settler settles calls whose writer died and whose echo was read.
func (a *App) settler() *interpret.Settler {
	return &interpret.Settler{
		Interpreter: a.Interpreter,
		Requested: func(ctx context.Context, limit int, cursor string) ([]adapter.Call, string, error) {
			return a.Calls.List(ctx, calls.Filter{Statuses: []adapter.CallStatus{adapter.CallRequested}}, limit, cursor)
		},
		Woken: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(settleInterval):
			}
			return ctx.Err()
		},
		Logger: a.Logger,
	}
}
