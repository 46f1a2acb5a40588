package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

const (
	// clientLogin is the user event of a service account's login, configPath the resource
	// of an admin event about the event configuration: what the self-test causes.
	clientLogin = "CLIENT_LOGIN"
	configPath  = "events/config"
	// sourcePoll is how deliveries that were pulled name their source, sourceLookup how
	// keytrail's own questions about a delivery do.
	sourcePoll   = "poll"
	sourceLookup = "lookup"
	// pullPage is how many of the newest stored events are looked through.
	pullPage = 100
	// pullEvery is how often that is done. An event is in the list at once (26.7.3,
	// measured), so the second look is seldom needed.
	pullEvery = 250 * time.Millisecond
)

// probe is a way to cause an event that changes nothing.
type probe struct {
	cause func(context.Context) error
	// name is what was done, for people.
	name string
	// received reports whether a recorded delivery is the event.
	received func(adapter.Payload) bool
	// stored reports whether Keycloak's list has it. Nil where the list cannot show it;
	// notStored says why then.
	stored    func(context.Context) (bool, error)
	notStored Item
}

// selfTest causes an event that changes nothing, and waits for it on both ways.
func (r *run) selfTest(ctx context.Context) error {
	p, ok := r.chooseProbe()
	if !ok {
		return nil
	}
	before, err := r.Log.Head(ctx)
	if err != nil {
		return fmt.Errorf("reading the head of the log: %w", err)
	}
	switch err := p.cause(ctx); {
	case errors.Is(err, errNoProof):
		r.notTried(err.Error(), "")
		return nil
	case status(err) == http.StatusForbidden:
		r.notTried("Keycloak answered 403 to "+p.name, giveRole("manage-events"))
		return nil
	case err != nil:
		return unreachable(p.name, err)
	}
	wait := r.Wait
	if wait <= 0 {
		wait = DefaultWait
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	// The pull first: what is stored is there at once, and the push comes meanwhile.
	if err := r.pull(ctx, limited, p, wait); err != nil {
		return err
	}
	return r.push(ctx, limited, p, before, wait)
}

// errNoProof is a test whose event could not be told from others.
var errNoProof = errors.New("the token has no id, so that its login could not be told from others")

// chooseProbe takes the login, which needs no role, where its event can come both ways,
// and else the event configuration, which needs manage-events. It reports false, and
// says why, where there is no way.
func (r *run) chooseProbe() (*probe, bool) {
	own := r.Keycloak.AuthRealm() == r.realm
	mayWrite := r.config != nil && r.told && (r.granted("manage-events") || r.granted("manage-realm"))
	switch {
	case own && (r.loginIsStored() || !mayWrite):
		return r.loginProbe(), true
	case mayWrite:
		return r.configProbe(), true
	}
	r.notTried("the service account is one of the realm "+r.Keycloak.AuthRealm()+", so that its login is no event of this realm, and to write the event configuration back unchanged needs view-events and manage-events",
		giveRole("manage-events")+", for the time of the check")
	return nil, false
}

// loginIsStored reports whether Keycloak stores a login of the service account. No list
// of types means those that it saves by default, of which CLIENT_LOGIN is one.
func (r *run) loginIsStored() bool {
	return r.config != nil && r.config.EventsEnabled &&
		(len(r.config.EnabledEventTypes) == 0 || slices.Contains(r.config.EnabledEventTypes, clientLogin))
}

// loginProbe logs the service account in once more. Its event has the token's id.
func (r *run) loginProbe() *probe {
	var tokenID string
	p := &probe{name: "logging the service account in"}
	p.cause = func(ctx context.Context) (err error) {
		if tokenID, err = r.Keycloak.LogIn(ctx); err == nil && tokenID == "" {
			return errNoProof
		}
		return err
	}
	p.received = func(payload adapter.Payload) bool {
		e, ok := payload.(*adapter.UserEventReceived)
		return ok && e.Type == clientLogin && e.Details["token_id"] == tokenID
	}
	switch {
	case r.config == nil:
		p.notStored = Item{Status: NotTried, Detail: "it needs view-events", Next: giveRole("view-events")}
	case !r.config.EventsEnabled:
		p.notStored = Item{Status: Missing, Detail: "Keycloak stores no user events", Next: "see " + ItemUserEvents + " above"}
	case !r.loginIsStored():
		p.notStored = Item{
			Status: NotTried, Detail: "the realm does not save " + clientLogin + ", by which it is tried",
			Next: "Realm settings, Events, User events settings: add the saved type Client login",
		}
	default:
		p.stored = func(ctx context.Context) (bool, error) {
			events, err := r.Keycloak.UserEvents(ctx, r.realm, admin.EventQuery{Max: pullPage})
			return slices.ContainsFunc(events, func(raw json.RawMessage) bool {
				d, err := webhook.DecodeUserEvent(raw)
				return err == nil && d.User.Type == clientLogin && d.User.Details["token_id"] == tokenID
			}), err
		}
	}
	return p
}

// configProbe writes the event configuration back unchanged.
func (r *run) configProbe() *probe {
	var known time.Time // the newest such event before
	p := &probe{name: "writing the event configuration of realm " + r.realm + " back unchanged"}
	p.cause = func(ctx context.Context) (err error) {
		if p.stored != nil {
			if known, err = r.newestConfigEvent(ctx); err != nil {
				return err
			}
		}
		return r.Keycloak.RepeatEventsConfig(ctx, r.realm)
	}
	p.received = func(payload adapter.Payload) bool {
		e, ok := payload.(*adapter.AdminEventReceived)
		return ok && e.ResourcePath == configPath && (e.Realm == "" || e.Realm == r.realm)
	}
	if !r.config.AdminEventsEnabled {
		p.notStored = Item{Status: Missing, Detail: "Keycloak stores no admin events", Next: "see " + ItemAdminEvents + " above"}
		return p
	}
	p.stored = func(ctx context.Context) (bool, error) {
		newest, err := r.newestConfigEvent(ctx)
		return newest.After(known), err
	}
	return p
}

func (r *run) notTried(why, next string) {
	for _, name := range []string{ItemPush, ItemPull} {
		r.add(Item{Name: name, Status: NotTried, Detail: why, Next: next})
	}
}

// newestConfigEvent is the time of the newest stored event about the event
// configuration, zero where there is none.
func (r *run) newestConfigEvent(ctx context.Context) (time.Time, error) {
	events, err := r.Keycloak.AdminEvents(ctx, r.realm, admin.EventQuery{Max: pullPage})
	if err != nil {
		return time.Time{}, err
	}
	var newest time.Time
	for _, raw := range events {
		d, err := webhook.DecodeAdminEvent(raw)
		if err == nil && d.Admin.ResourcePath == configPath && d.Admin.Time.After(newest) {
			newest = d.Admin.Time
		}
	}
	return newest, nil
}

// pull waits until Keycloak's list of stored events has the test's.
func (r *run) pull(ctx, limited context.Context, p *probe, wait time.Duration) error {
	const cost = "what no webhook brings stays unknown until a reconciliation finds it"
	item := Item{Name: ItemPull, Status: Missing, Cost: cost}
	switch {
	case r.config != nil && !r.stored:
		item.Detail, item.Next = "Keycloak's list of admin events cannot be read", "see the event store above"
		r.add(item)
		return nil
	case p.stored == nil:
		item = p.notStored
		if item.Name = ItemPull; item.Status == Missing {
			item.Cost = cost
		}
		r.add(item)
		return nil
	}
	tick := time.NewTicker(pullEvery)
	defer tick.Stop()
	for {
		found, err := p.stored(limited)
		switch {
		case err == nil && found:
			r.ok(ItemPull, "the test's event is in Keycloak's list")
			return nil
		case ctx.Err() != nil:
			return unreachable("waiting for the test's event", ctx.Err())
		case err != nil && limited.Err() == nil:
			return unreachable("reading the events of realm "+r.realm, err)
		}
		select {
		case <-limited.Done():
			if err := ctx.Err(); err != nil {
				return unreachable("waiting for the test's event", err)
			}
			item.Detail, item.Next = fmt.Sprintf("the test's event was not in Keycloak's list within %s", wait), "look into Keycloak's log for why it is not stored"
			r.add(item)
			return nil
		case <-tick.C:
		}
	}
}

// push waits until a webhook has brought the event.
func (r *run) push(ctx, limited context.Context, p *probe, after eventstore.Position, wait time.Duration) error {
	item := Item{Name: ItemPush, Status: Missing, Cost: "changes are seen at the next poll and not at once; without a poll, never"}
	if r.config != nil && !slices.Contains(r.config.EventsListeners, listener) {
		item.Detail, item.Next = "Keycloak sends no webhook", "see "+ItemListener+" above"
		r.add(item)
		return nil
	}
	pulled := map[string]bool{} // the streams of such events that a poll brought first
	for {
		source, next, err := r.arrived(limited, p, after, pulled)
		if err == nil && source == "" {
			after = next
			_, err = r.Log.Wait(limited, after)
		}
		switch {
		case source != "":
			r.ok(ItemPush, "the test's event arrived at the source "+source)
			r.webhookWorks()
			return nil
		case err == nil:
		case ctx.Err() != nil:
			return unreachable("waiting for the test's event", ctx.Err())
		case errors.Is(limited.Err(), context.DeadlineExceeded):
			item.Detail = fmt.Sprintf("the test's event did not arrive within %s", wait)
			item.Next = "see that keytrail serve runs, that Keycloak reaches " + r.WebhookURL + ", that both have the same secret, and that the source excludes no types of events: Keycloak's log has what its sender was answered"
			r.add(item)
			return nil
		default:
			return fmt.Errorf("waiting for the test's event: %w", err)
		}
	}
}

// arrived looks for the event behind a position: the source that pushed it, "" for
// none, and how far the log was read.
func (r *run) arrived(ctx context.Context, p *probe, after eventstore.Position, pulled map[string]bool) (source string, next eventstore.Position, err error) {
	query := eventstore.LogQuery{After: after, Types: []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived, adapter.TypeDeliveryConfirmed}}
	// Read to a head that was known before, or an event in between would be skipped.
	if next, err = r.Log.Head(ctx); err != nil {
		return "", after, err
	}
	for e, err := range r.Log.ReadLog(ctx, query) {
		if err != nil {
			return "", after, err
		}
		d, err := r.Codec.Decode(ctx, e)
		if err != nil {
			return "", after, err
		}
		source := sourceOf(d.Payload)
		if p.received(d.Payload) && source == sourcePoll {
			pulled[e.Stream.String()] = true
		}
		_, confirmed := d.Payload.(*adapter.DeliveryConfirmed)
		if source != sourcePoll && source != sourceLookup && (p.received(d.Payload) || (confirmed && pulled[e.Stream.String()])) {
			return source, e.Position, nil
		}
	}
	return "", next, nil
}

func sourceOf(payload adapter.Payload) string {
	switch p := payload.(type) {
	case *adapter.AdminEventReceived:
		return p.Source
	case *adapter.UserEventReceived:
		return p.Source
	case *adapter.DeliveryConfirmed:
		return p.Source
	}
	return ""
}

// webhookWorks corrects what the list of webhooks said: the extension can be told of a
// webhook for all realms by its environment, which no list shows.
func (r *run) webhookWorks() {
	for i := range r.items {
		if r.items[i].Name == ItemWebhook && r.items[i].Status != OK {
			r.items[i] = Item{Name: ItemWebhook, Status: OK, Detail: "the realm lists none that fits, and events arrive all the same"}
		}
	}
}
