package app

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/calls"
	"github.com/keytrail/keytrail/projections/users"
)

// userReader reads the users projection for the API.
type userReader struct{ *users.Queries }

func (r userReader) List(ctx context.Context, f httpapi.UserFilter, limit int, cursor string) ([]adapter.User, string, error) {
	return r.Queries.List(ctx, users.Filter{
		Realm: f.Realm, Username: f.Username, Email: f.Email, Enabled: f.Enabled, Deleted: f.Deleted, Search: f.Search,
	}, limit, cursor)
}

// httpCalls reads the calls projection for the API.
type httpCalls struct{ *calls.Queries }

func (r httpCalls) List(ctx context.Context, f httpapi.CallFilter, limit int, cursor string) ([]adapter.Call, string, error) {
	return r.Queries.List(ctx, calls.Filter{
		Statuses: f.Statuses, Realm: f.Realm, UserID: f.UserID, CorrelationID: f.CorrelationID,
	}, limit, cursor)
}

// httpProjections tells the API how the projections stand.
type httpProjections struct{ *projections.Engine }

func (p httpProjections) Status(ctx context.Context) ([]httpapi.ProjectionStatus, error) {
	status, err := p.Engine.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]httpapi.ProjectionStatus, 0, len(status))
	for _, s := range status {
		out = append(out, httpapi.ProjectionStatus{
			Name: s.Name, Kind: s.Kind, Position: s.Position, Head: s.Head, Lag: s.Lag,
			Status: string(s.Status), Error: s.Error, UpdatedAt: s.UpdatedAt, Version: s.Version, RebuildPosition: s.RebuildPosition,
		})
	}
	return out, nil
}

// httpReconciler starts runs that go on when the request that asked for them ends, and
// cancels any.
type httpReconciler struct{ app *App }

func (r httpReconciler) Cancel(ctx context.Context, runID uuid.UUID) (adapter.Reconciliation, error) {
	return r.app.CancelRun(ctx, runID)
}

func (r httpReconciler) Start(ctx context.Context, runID uuid.UUID, realm string) (adapter.Reconciliation, error) {
	a := r.app
	if !slices.Contains(a.Config.Keycloak.Realms, realm) {
		return adapter.Reconciliation{}, adapter.Errorf(adapter.CodeNotFound, "realm %q is not configured", realm).
			WithTry("one of %s, or add it to KEYTRAIL_KEYCLOAK_REALMS", strings.Join(a.Config.Keycloak.Realms, ", "))
	}
	started, ended := make(chan adapter.Reconciliation, 1), make(chan error, 1)
	a.background.Go(func() {
		// The run ends with the process, not with the request.
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(a.stopping, cancel)()
		_, err := a.run(run, reconcile.Request{RunID: runID, Realm: realm, Trigger: "http", Started: func(r adapter.Reconciliation) { started <- r }})
		ended <- err
	})
	select {
	case run := <-started:
		return run, nil
	case err := <-ended:
		select {
		case run := <-started: // it was over before it was looked at
			return run, nil
		default:
			return adapter.Reconciliation{}, err
		}
	}
}
