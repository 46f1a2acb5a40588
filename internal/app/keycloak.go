package app

import (
	"context"
	"fmt"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/internal/telemetry"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// connect makes the parts that speak to Keycloak. It sends nothing.
func (a *App) connect(o Options) error {
	a.Commands = &outbound.Commands{
		Store: a.Store, Codec: a.Codec, Clock: a.Clock, Logger: a.Logger,
		Snapshots: a.Snapshots, Secret: (&secrets{leases: a.Leases}).Secret,
		Observe: func(command string, status adapter.CallStatus) {
			a.Metrics.Calls.WithLabelValues(command, string(status)).Inc()
		},
	}
	k := a.Config.Keycloak
	if k.URL == "" {
		return nil
	}
	client, err := admin.New(admin.Config{
		BaseURL: k.URL, AuthRealm: k.AuthRealm, ClientID: k.ClientID, ClientSecret: k.ClientSecret.Reveal(),
		Transport: &outbound.Transport{Next: admin.NewTransport(), Clock: a.Clock},
		Clock:     a.Clock, Logger: a.Logger,
		RetryMax: o.Retry.Max, RetryWaitMin: o.Retry.WaitMin, RetryWaitMax: o.Retry.WaitMax,
		Timeout: 30 * time.Second,
		Observe: func(method, template string, status int, d time.Duration) {
			a.Metrics.KeycloakRequests.WithLabelValues(telemetry.Method(method), template, telemetry.Status(status)).Inc()
			a.Metrics.KeycloakSeconds.WithLabelValues(telemetry.Method(method), template).Observe(d.Seconds())
		},
	})
	if err != nil {
		return fmt.Errorf("the Keycloak client: %w", err)
	}
	a.Keycloak = client
	a.Commands.Keycloak = client
	a.Poller = &inbound.Poller{
		Puller: client, Recorder: a.Recorder, Watermarks: watermarks{a.Leases}, Logger: a.Logger,
		Observe: func(realm, outcome string) {
			a.polls.observe(realm, outcome, a.Clock())
			a.Metrics.PollRuns.WithLabelValues(a.Metrics.Realm(realm), outcome).Inc()
			if outcome == "ok" {
				a.Metrics.PollLastSuccess.WithLabelValues(a.Metrics.Realm(realm)).Set(float64(a.Clock().Unix()))
			}
		},
	}
	a.Reconciler, err = reconcile.New(reconcile.Config{
		Store: a.Store, Codec: a.Codec, Live: client,
		Believed: a.Users, Calls: a.Calls,
		History: reconcile.LogHistory{Log: a.Store, Codec: a.Codec},
		DuplicateEmails: func(ctx context.Context, realm string) (bool, error) {
			r, err := client.Realm(ctx, realm)
			return r.DuplicateEmailsAllowed, err
		},
		Settler: settler{a}, Clock: a.Clock, Logger: a.Logger, Settle: a.Config.Reconcile.Settle,
	})
	return err
}

// settler brings belief up to date before a run: it polls, and folds to the head.
type settler struct{ app *App }

func (s settler) CatchUp(ctx context.Context, realm string) error {
	if _, err := s.app.Poller.Poll(ctx, realm); err != nil {
		// Without the poll the webhooks are all there is: the run can still compare, and
		// says what it did not see. Only an unreachable Keycloak ends it here.
		if adapter.CodeOf(err) == adapter.CodeKeycloakUnreachable {
			return err
		}
		s.app.Logger.WarnContext(ctx, "reconciling without a poll", "realm", realm, "error", err)
	}
	head, err := s.app.Store.Head(ctx)
	if err != nil {
		return err
	}
	return s.app.Engine.CatchUp(ctx, head)
}
