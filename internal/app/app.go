// Package app is the one place where keytrail's parts are put together. It sees
// every package and only cmd sees it.
package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/lease"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
	"github.com/keytrail/keytrail/internal/telemetry"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/analytics"
	"github.com/keytrail/keytrail/projections/audit"
	"github.com/keytrail/keytrail/projections/calls"
	"github.com/keytrail/keytrail/projections/reconciliations"
	"github.com/keytrail/keytrail/projections/users"
)

// Options are what is not configuration.
type Options struct {
	Logger *slog.Logger
	// Clock is the time; nil is the machine's.
	Clock func() time.Time
	// Registry takes the metrics; nil is one of its own.
	Registry *prometheus.Registry
	// Retry bounds the repetitions of Admin API calls. The zero value is the default.
	Retry Retry
}

// Retry bounds the repetitions of an Admin API call.
type Retry struct {
	Max              int
	WaitMin, WaitMax time.Duration
}

// store is an event store whose database the projections share.
type store interface {
	eventstore.Store
	ReadDB() *sql.DB
	WriteDB() *sql.DB
}

// App is keytrail, wired. A command uses its parts directly; Serve runs them all.
type App struct {
	Config   *config.Config
	Logger   *slog.Logger
	Clock    func() time.Time
	Registry *prometheus.Registry
	Metrics  *telemetry.Metrics

	Store eventstore.Store
	// Snapshots is nil where they are switched off, or the store keeps none.
	Snapshots       eventstore.Snapshotter
	Codec           *adapter.Codec
	Engine          *projections.Engine
	Users           *users.Queries
	Calls           *calls.Queries
	Reconciliations *reconciliations.Queries
	Audit           *audit.Queries
	Analytics       *analytics.Queries
	Leases          *lease.Leases
	Traces          *trace.Finder
	Failures        *trace.Failures
	Recorder        *inbound.Recorder
	Interpreter     *interpret.Interpreter
	realmChanges    *interpret.RealmChanges
	Commands        *outbound.Commands

	// Keycloak, Poller and Reconciler are nil where no Keycloak is configured.
	Keycloak   *admin.Client
	Poller     *inbound.Poller
	Reconciler *reconcile.Runner

	realms *realmNames
	polls  *polls
	// runs are those that can be cancelled.
	runs runs
	// background are runs that outlive the request that asked for them; stopping ends
	// them.
	background sync.WaitGroup
	stopping   context.Context
	stop       context.CancelFunc
}

// Migrate brings the store's schema up to date.
func Migrate(ctx context.Context, cfg *config.Config) error {
	u := cfg.Store.AdminURL
	var err error
	if u.Kind == config.Postgres {
		err = postgres.Migrate(ctx, u.Reveal())
	} else {
		err = sqlite.Migrate(ctx, u.Path)
	}
	if err != nil {
		return fmt.Errorf("migrating the event store: %w", err)
	}
	s, err := openStore(ctx, u, Options{Logger: slog.New(slog.DiscardHandler), Clock: time.Now})
	if err != nil {
		return err
	}
	db := database(s, u)
	err = errors.Join(projections.Migrate(ctx, db), lease.Migrate(ctx, db.Write, leaseDialect(db)))
	if err == nil {
		a := &App{Store: s, Codec: adapter.NewCodec(seal.Plain{}), Logger: slog.New(slog.DiscardHandler), Clock: time.Now}
		if err = a.register(db); err == nil {
			err = a.Engine.Setup(ctx)
		}
	}
	if err != nil {
		err = fmt.Errorf("migrating the projections: %w", err)
	}
	return errors.Join(err, s.Close())
}

func openStore(ctx context.Context, u config.StoreURL, o Options) (store, error) {
	var s store
	var err error
	if u.Kind == config.Postgres {
		s, err = postgres.Open(ctx, u.Reveal(), postgres.Options{Clock: o.Clock, Logger: o.Logger})
	} else {
		s, err = sqlite.Open(ctx, u.Path, sqlite.Options{Clock: o.Clock, Logger: o.Logger})
	}
	if err != nil {
		return nil, fmt.Errorf("opening the event store %s: %w", u, err)
	}
	return s, nil
}

func database(s store, u config.StoreURL) projections.DB {
	db := projections.DB{Read: s.ReadDB(), Write: s.WriteDB(), Dialect: projections.SQLite}
	if u.Kind == config.Postgres {
		db.Dialect = projections.Postgres
	}
	return db
}

func leaseDialect(db projections.DB) sqlmigrate.Dialect {
	if db.Dialect == projections.Postgres {
		return sqlmigrate.Postgres
	}
	return sqlmigrate.SQLite
}

// Open wires keytrail on its store. The schema must be current; see Migrate.
func Open(ctx context.Context, cfg *config.Config, o Options) (_ *App, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Retry == (Retry{}) {
		o.Retry = Retry{Max: 4, WaitMin: 200 * time.Millisecond, WaitMax: 5 * time.Second}
	}
	a := &App{
		Config: cfg, Logger: o.Logger, Clock: o.Clock, Registry: o.Registry,
		Codec: adapter.NewCodec(seal.Plain{}), realms: newRealmNames(), polls: newPolls(cfg.Keycloak.Realms),
	}
	a.stopping, a.stop = context.WithCancel(context.Background())
	var names telemetry.Names
	names.Realms = cfg.Keycloak.Realms
	for _, s := range cfg.Sources {
		names.Sources = append(names.Sources, s.Name)
	}
	names.Sources = append(names.Sources, inbound.SourcePoll)
	if a.Metrics, err = telemetry.NewMetrics(o.Registry, names); err != nil {
		return nil, err
	}

	s, err := openStore(ctx, cfg.Store.URL, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	db := database(s, cfg.Store.URL)
	if err := errors.Join(projections.CheckSchema(ctx, db), lease.CheckSchema(ctx, db.Read, leaseDialect(db))); err != nil {
		return nil, fmt.Errorf("opening the projections: %w", err)
	}
	a.Store = &measuredStore{Store: s, seconds: a.Metrics.StoreAppendSeconds, clock: o.Clock}
	if queue, ok := s.(interface{ AppendsWaiting() int }); ok {
		waiting := queue.AppendsWaiting
		a.Metrics.AppendsWaiting.Store(&waiting)
	}
	if kept, ok := s.(eventstore.Snapshotter); ok && cfg.Store.SnapshotAfter > 0 {
		a.Snapshots = tolerantSnapshots{Snapshotter: kept, log: o.Logger}
	}
	if err := a.register(db); err != nil {
		return nil, err
	}
	if err := a.Engine.Setup(ctx); err != nil {
		return nil, fmt.Errorf("setting up the projections: %w", err)
	}
	a.Users, a.Calls, a.Reconciliations = users.NewQueries(db), calls.NewQueries(db), reconciliations.NewQueries(db)
	a.Audit, a.Analytics = audit.NewQueries(db), analytics.NewQueries(db)
	a.Leases = lease.New(db.Write, o.Clock)
	a.Recorder = &inbound.Recorder{
		Store: a.Store, Codec: a.Codec, Clock: a.Clock, RealmName: a.realms.name,
		Observe: func(source, kind, outcome string) {
			a.Metrics.Deliveries.WithLabelValues(a.Metrics.Source(source), kind, outcome).Inc()
		},
	}
	a.Traces = &trace.Finder{Store: a.Store, Codec: a.Codec, Users: a.Users, Stories: callReader{a.Calls}, History: callReader{a.Calls}}
	a.Failures = &trace.Failures{
		Calls: callReader{a.Calls}, Store: a.Store, Codec: a.Codec, Clock: a.Clock, Users: a.Users, History: callReader{a.Calls},
	}
	if err := a.connect(o); err != nil {
		return nil, err
	}
	if k := a.Config.Keycloak; a.Keycloak != nil {
		a.realmChanges.Live, a.realmChanges.Realms = a.Keycloak, k.Realms
	}
	return a, nil
}

// realmPause lets what was delivered close to a change of the realm come in, so that
// the change is followed once, and to all whom it concerns.
const realmPause = 2 * time.Second

// settled waits until the deliveries up to a position, and what followed within the
// pause, are interpreted and folded into the users. It needs Serve.
func (a *App) settled(ctx context.Context, upTo eventstore.Position) error {
	pause := time.NewTimer(realmPause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
	}
	if err := a.Engine.WaitFor(ctx, upTo, a.Interpreter.Name()); err != nil {
		return err
	}
	head, err := a.Store.Head(ctx)
	if err != nil {
		return err
	}
	return a.Engine.WaitFor(ctx, head, users.Name)
}

// register names every projection and consumer: a new one is one line here.
func (a *App) register(db projections.DB) error {
	a.Engine = projections.New(db, a.Store, a.Codec, projections.Options{
		Clock: a.Clock, Logger: a.Logger,
		Observe: func(name string, position, head eventstore.Position) {
			if a.Metrics == nil {
				return
			}
			a.Metrics.ProjectionPosition.WithLabelValues(name).Set(float64(position))
			a.Metrics.ProjectionLag.WithLabelValues(name).Set(float64(max(head-position, 0)))
		},
	})
	a.Interpreter = &interpret.Interpreter{Store: a.Store, Codec: a.Codec, Clock: a.Clock, Logger: a.Logger}
	a.realmChanges = &interpret.RealmChanges{Interpreter: a.Interpreter, Users: users.NewQueries(db), Settled: a.settled}
	return errors.Join(
		a.Engine.RegisterConsumer(a.Interpreter, a.realmChanges),
		a.Engine.Register(users.New(a.Store, a.Codec).WithSnapshots(a.Snapshots)),
		a.Engine.Register(calls.New()),
		a.Engine.Register(reconciliations.New()),
		a.Engine.Register(audit.New(a.Store, a.Codec)),
		a.Engine.Register(analytics.New()),
	)
}

// Close releases everything. Serve must have ended.
func (a *App) Close() error {
	a.stop()
	a.background.Wait()
	if a.Keycloak != nil {
		a.Keycloak.Close()
	}
	return a.Store.Close()
}

// readLimit is how long a reading command folds before it answers with what there is.
const readLimit = 5 * time.Second

// CatchUp folds everything up to the head of the log that it sees now, for at most
// 5 s. It returns a *projections.BehindError where that was not enough: what is read
// then is older than that head.
func (a *App) CatchUp(ctx context.Context) error {
	head, err := a.Store.Head(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	return a.Engine.CatchUp(ctx, head)
}
