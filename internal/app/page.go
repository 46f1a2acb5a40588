package app

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/web"
)

// page serves the pages.
func (a *App) page() (*web.Server, error) {
	c := web.Config{
		Access: &web.TokenAccess{
			Token: a.Config.API.Token.Reveal(), Loopback: httpapi.LoopbackTrust,
			Secure: strings.HasPrefix(a.Config.PublicURL, "https://"), Clock: a.Clock,
		},
		Store: a.Store, Codec: a.Codec,
		Users: userReader{a.Users}, Calls: httpCalls{a.Calls}, Reconciliations: a.Reconciliations,
		Projections: httpProjections{a.Engine}, Traces: a.Traces, Failures: a.Failures,
		Analytics: a.Analytics.Summary,
		OpenDrift: func(ctx context.Context, realm, userID string) (adapter.Finding, bool, error) {
			open, err := a.Reconciliations.OpenDrifts(ctx, realm)
			f, drifts := open[userID]
			return f, drifts, err
		},
		Ready: a.ready, Rebuild: a.beginRebuild, Retry: a.Interpreter,
		Realms: a.Config.Keycloak.Realms, Clock: a.Clock, Logger: a.Logger,
	}
	if a.Reconciler != nil {
		c.Reconciler = httpReconciler{a}
	}
	if a.Poller != nil && a.Config.Poll.Interval > 0 {
		c.Polls = a.polls.all
	}
	return web.New(c)
}

// beginRebuild rebuilds a projection beyond the request that asked for it.
func (a *App) beginRebuild(ctx context.Context, name string) error {
	a.background.Go(func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(a.stopping, cancel)()
		if err := a.Engine.Rebuild(ctx, name, nil); err != nil {
			a.Logger.ErrorContext(ctx, "rebuild failed", "projection", name, "error", err)
		}
	})
	return nil
}

// polls remembers how this process's polls went, for people.
type polls struct {
	mu      sync.Mutex
	byRealm map[string]web.Poll
}

func newPolls(realms []string) *polls {
	p := &polls{byRealm: map[string]web.Poll{}}
	for _, realm := range realms {
		p.byRealm[realm] = web.Poll{Realm: realm}
	}
	return p
}

func (p *polls) observe(realm, outcome string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	poll := web.Poll{Realm: realm, Last: p.byRealm[realm].Last}
	if outcome == "ok" {
		poll.Last = at
	} else {
		poll.Error = "the newest poll failed; keytrail's log says why"
	}
	p.byRealm[realm] = poll
}

func (p *polls) all() []web.Poll {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]web.Poll, 0, len(p.byRealm))
	for _, poll := range p.byRealm {
		all = append(all, poll)
	}
	slices.SortFunc(all, func(a, b web.Poll) int { return strings.Compare(a.Realm, b.Realm) })
	return all
}
