package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/lease"
	"github.com/keytrail/keytrail/projections/calls"
)

// measuredStore times appends.
type measuredStore struct {
	eventstore.Store
	seconds prometheus.Observer
	clock   func() time.Time
}

func (s *measuredStore) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	started := s.clock()
	events, err := s.Store.Append(ctx, appends...)
	s.seconds.Observe(s.clock().Sub(started).Seconds())
	return events, err
}

// callReader lists calls for the failures.
type callReader struct{ calls *calls.Queries }

func (r callReader) ListCalls(ctx context.Context, statuses []adapter.CallStatus, realm string, limit int, cursor string) ([]adapter.Call, string, error) {
	return r.calls.List(ctx, calls.Filter{Statuses: statuses, Realm: realm}, limit, cursor)
}

// StoriesOfUser finds the newest stories in which calls were made on a user, also
// those that left nothing on the user's own stream.
func (r callReader) StoriesOfUser(ctx context.Context, user adapter.UserRef, limit int) ([]uuid.UUID, error) {
	found, _, err := r.calls.List(ctx, calls.Filter{Realm: user.Realm, UserID: user.UserID}, limit, "")
	if err != nil {
		return nil, fmt.Errorf("the calls on user %s: %w", user.UserID, err)
	}
	stories := make([]uuid.UUID, 0, len(found))
	for _, c := range found {
		stories = append(stories, c.CorrelationID)
	}
	return stories, nil
}

// CallsOfUser lists the newest calls on a user.
func (r callReader) CallsOfUser(ctx context.Context, user adapter.UserRef, limit int) ([]adapter.Call, error) {
	found, _, err := r.calls.List(ctx, calls.Filter{Realm: user.Realm, UserID: user.UserID}, limit, "")
	if err != nil {
		return nil, fmt.Errorf("the calls on user %s: %w", user.UserID, err)
	}
	return found, nil
}

// owner names this process in leases, for people.
func owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return fmt.Sprintf("%s/%d", cmp.Or(host, "unknown"), os.Getpid())
}

// watermarks keeps how far listings were polled in the leases' table.
type watermarks struct{ leases *lease.Leases }

var _ inbound.Watermarks = watermarks{}

// watermarkTTL is how long a watermark is reserved for the one write that it takes.
const watermarkTTL = 5 * time.Second

func (w watermarks) Watermark(ctx context.Context, name string) (time.Time, error) {
	record, ok, err := w.leases.Read(ctx, name)
	if err != nil || !ok || record.State == nil {
		return time.Time{}, err
	}
	var t time.Time
	if err := json.Unmarshal(record.State, &t); err != nil {
		return time.Time{}, fmt.Errorf("the watermark %s is damaged: %w", name, err)
	}
	return t, nil
}

func (w watermarks) SetWatermark(ctx context.Context, name string, t time.Time) error {
	// Another process that polls the same list is as far or will be: what it saves at
	// this moment serves as well, and reading a stretch again does no harm.
	_, err := w.leases.Hold(ctx, name, owner(), watermarkTTL, func(ctx context.Context, l *lease.Lease) error {
		return l.Save(ctx, t)
	})
	return err
}

// runTTL is how long a reconciliation run of a process that died blocks the next.
const runTTL = 30 * time.Second

// schedule remembers scheduled runs in the leases' table.
type schedule struct {
	leases *lease.Leases
	clock  func() time.Time
}

var _ reconcile.Watermark = schedule{}

func (s schedule) LastRun(ctx context.Context, name string) (time.Time, error) {
	record, _, err := s.leases.Read(ctx, name)
	return record.LastRun, err
}

func (s schedule) Hold(ctx context.Context, name string, f func(context.Context) (bool, error)) (bool, error) {
	return s.leases.Hold(ctx, name, owner(), runTTL, func(ctx context.Context, l *lease.Lease) error {
		completed, err := f(ctx)
		if completed {
			err = errors.Join(err, l.Ran(ctx, s.clock()))
		}
		return err
	})
}

func (a *App) schedule() schedule { return schedule{leases: a.Leases, clock: a.Clock} }

// Reconcile runs one reconciliation of a realm now. Only one runs at a time, in all
// processes: code run_in_progress otherwise.
func (a *App) Reconcile(ctx context.Context, realm, trigger string) (reconcile.Result, error) {
	return a.run(ctx, reconcile.Request{Realm: realm, Trigger: trigger})
}

func noKeycloak(detail string) error {
	return adapter.Errorf(adapter.CodeKeycloakNotConfigured, "%s", detail).
		WithTry("set KEYTRAIL_KEYCLOAK_URL, KEYTRAIL_KEYCLOAK_REALMS, KEYTRAIL_KEYCLOAK_CLIENT_ID and KEYTRAIL_KEYCLOAK_CLIENT_SECRET")
}

func (a *App) run(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if a.Reconciler == nil {
		return reconcile.Result{}, noKeycloak("no Keycloak is configured to compare with")
	}
	var result reconcile.Result
	ran, err := a.schedule().Hold(ctx, reconcile.ScheduleName(req.Realm), func(ctx context.Context) (bool, error) {
		var err error
		result, err = a.reconcile(ctx, req)
		// A baseline compares nothing, so that the next scheduled run is due as it was.
		return err == nil && req.Trigger != adapter.TriggerBaseline, err
	})
	if err == nil && !ran {
		err = adapter.Errorf(adapter.CodeRunInProgress, "a reconciliation of realm %s is running already", req.Realm).
			WithTry("wait for it; a run whose process died is taken over after %s", runTTL)
	}
	return result, err
}

// reconcile runs and counts a reconciliation whose lease is held.
func (a *App) reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	ctx, req, done := a.runs.track(ctx, req)
	defer done()
	result, err := a.Reconciler.Run(ctx, req)
	realm := a.Metrics.Realm(req.Realm)
	a.Metrics.Reconciliations.WithLabelValues(realm, string(result.Status)).Inc()
	if result.Status == adapter.RunCompleted && req.Trigger != adapter.TriggerBaseline {
		for _, s := range adapter.Situations {
			a.Metrics.ReconciliationFindings.WithLabelValues(realm, string(s)).Set(float64(result.Counts[s]))
		}
	}
	return result, err
}
