package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/lifecycle"
	"github.com/keytrail/keytrail/internal/telemetry"
	"github.com/keytrail/keytrail/keycloak/webhook"
	"github.com/keytrail/keytrail/projections"
)

// ServeOptions are what is not configuration.
type ServeOptions struct {
	// Hurry, where not nil, turns a soft stop into a hard one when it is closed.
	Hurry <-chan struct{}
	// Ready is called once requests are served, with the address to reach them at.
	Ready func(url string)
	// CommandWait is how long a command over HTTP is waited for; 0 is the contract's
	// 10 s.
	CommandWait time.Duration
}

// stopTimeout is how long each part has to stop softly, and again to stop hard.
const stopTimeout = 20 * time.Second

// Serve runs everything until the context ends: webhooks, API, projections, poller
// and the scheduled reconciliations. Stopping, it takes nothing new, finishes what it
// has accepted and cuts no call in two.
func (a *App) Serve(ctx context.Context, o ServeOptions) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.Config.Listen)
	if err != nil {
		return &usageError{fmt.Errorf("listening on %s: %w\nTry: another address with KEYTRAIL_LISTEN", a.Config.Listen, err)}
	}
	api, err := a.httpAPI(o)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	a.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	group := lifecycle.New(a.Logger, stopTimeout)
	group.Add("calls", lifecycle.Func(func(ctx context.Context) error {
		<-ctx.Done()
		a.stop()
		err := api.Drain(lifecycle.Hard(ctx))
		a.background.Wait()
		return err
	}))
	group.Add("projections", lifecycle.Func(a.Engine.Run))
	group.Add("settler", a.settler())
	if a.Snapshots != nil {
		group.Add("snapshots", a.snapshotTaker())
	}
	if k := a.Config.Keycloak; a.Keycloak != nil && len(k.Realms) > 0 {
		group.Add("realms", a.realmLearner(k.Realms))
		group.Add("observer", a.observer(k.Realms))
		if a.Config.Poll.Interval > 0 {
			group.Add("poller", lifecycle.Func(func(ctx context.Context) error {
				return a.Poller.Run(ctx, k.Realms, a.Config.Poll.Interval)
			}))
		}
		if a.Config.Reconcile.Interval > 0 {
			group.Add("reconciler", &reconcile.Scheduler{
				Reconcile: a.reconcile, Watermark: a.schedule(), Realms: k.Realms,
				Interval: a.Config.Reconcile.Interval, Clock: a.Clock, Logger: a.Logger,
			})
		}
	}
	group.Add("listener", &httpWorker{server: api.HTTPServer(), listener: listener})

	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-o.Hurry:
			group.Hurry()
		case <-done:
		}
	}()
	if o.Ready != nil {
		go func() {
			if group.Ready(ctx) == nil {
				o.Ready(a.Config.PublicURLAt(listener.Addr().String()))
			}
		}()
	}
	a.Logger.InfoContext(ctx, "starting", "listen", listener.Addr().String(), "store", a.Config.Store.URL.String(), "realms", a.Config.Keycloak.Realms)
	err = group.Run(ctx)
	a.Logger.Info("stopped")
	return err
}

func (a *App) httpAPI(o ServeOptions) (*httpapi.Server, error) {
	c := httpapi.Config{
		Sources: sources(a.Config.Sources), Recorder: a.Recorder, Token: a.Config.API.Token.Reveal(),
		Store: a.Store, Codec: a.Codec, Snapshots: a.Snapshots,
		Users: userReader{a.Users}, Calls: httpCalls{a.Calls}, Reconciliations: a.Reconciliations,
		Audit: a.Audit, Analytics: a.Analytics,
		Projections: httpProjections{a.Engine}, Traces: a.Traces, Failures: a.Failures,
		Commands: a.Commands, Retry: a.Interpreter, Ready: a.ready,
		Metrics: promhttp.HandlerFor(a.Registry, promhttp.HandlerOpts{}),
		ObserveWebhook: func(source string, status int) {
			a.Metrics.WebhookRequests.WithLabelValues(a.Metrics.Source(source), telemetry.Status(status)).Inc()
		},
		Clock: a.Clock, Logger: a.Logger, CommandWait: o.CommandWait,
	}
	if a.Reconciler != nil {
		c.Reconciler = httpReconciler{a}
	}
	page, err := a.page()
	if err != nil {
		return nil, err
	}
	c.Page = page
	return httpapi.New(c)
}

func sources(configured []config.Source) []inbound.Source {
	out := make([]inbound.Source, 0, len(configured))
	for _, s := range configured {
		source := inbound.Source{
			Name: s.Name, Dialect: string(s.Dialect), Realm: s.Realm,
			Algorithm: webhook.HMACSHA256, Include: s.Include, Exclude: s.Exclude,
		}
		if s.Auth == config.AuthHMACSHA1 {
			source.Algorithm = webhook.HMACSHA1
		}
		for _, secret := range s.Secrets() {
			source.Secrets = append(source.Secrets, secret.Reveal())
		}
		out = append(out, source)
	}
	return out
}

// ready says what stands in the way of serving.
func (a *App) ready(ctx context.Context) []httpapi.Check {
	store := httpapi.Check{Name: "store", OK: true, Detail: "reachable, schema current"}
	if err := a.Store.Ping(ctx); err != nil {
		store.OK, store.Detail = false, err.Error()
	}
	checks := []httpapi.Check{store}
	if !store.OK {
		return checks
	}
	status, err := a.Engine.Status(ctx)
	if err != nil {
		return append(checks, httpapi.Check{Name: "projections", Detail: err.Error()})
	}
	for _, p := range status {
		check := httpapi.Check{Name: "projection " + p.Name, OK: p.Status == projections.StateRunning, Detail: fmt.Sprintf("%s, %d events behind", p.Status, p.Lag)}
		// A rebuild goes on beside the live tables, which are as good as ever.
		check.OK = check.OK || p.Status == projections.StateRebuilding
		// It may be waiting for Keycloak, without which keytrail goes on serving.
		check.OK = check.OK || p.Name == a.realmChanges.Name()
		if p.Error != "" {
			check.Detail += ": " + p.Error
		}
		checks = append(checks, check)
	}
	return checks
}

// httpWorker serves until it is stopped: then it takes no new connection and lets the
// requests under way finish.
type httpWorker struct {
	server   *http.Server
	listener net.Listener
}

func (w *httpWorker) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- w.server.Serve(w.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	err := w.server.Shutdown(lifecycle.Hard(ctx))
	if err != nil {
		err = errors.Join(err, w.server.Close())
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// usageError marks a fault of the configuration that shows only when serving.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usage marks the error for the command line, which exits 2 on it.
func (*usageError) Usage() {}
