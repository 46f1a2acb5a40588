package check

import (
	"context"
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
	// selfTestPath is the resource of the event that the self-test causes.
	selfTestPath = "events/config"
	// sourcePoll is how deliveries that were pulled name their source.
	sourcePoll = "poll"
	// pullPage is how many of the newest stored events are looked through.
	pullPage = 100
	// pullEvery is how often that is done. An event is in the list at once (26.7.3,
	// measured), so the second look is seldom needed.
	pullEvery = 250 * time.Millisecond
)

// selfTest causes an event that changes nothing, and waits for it on both ways.
func (r *run) selfTest(ctx context.Context) error {
	switch {
	case r.config == nil:
		r.notTried("it needs view-events", giveRole("view-events"))
		return nil
	case !r.told:
		r.notTried("whether the service account has manage-events is not known", "")
		return nil
	case !r.granted("manage-events") && !r.granted("manage-realm"):
		r.notTried("the test writes the event configuration back unchanged, which needs manage-events", giveRole("manage-events")+", for the time of the check")
		return nil
	}
	before, err := r.Log.Head(ctx)
	if err != nil {
		return fmt.Errorf("reading the head of the log: %w", err)
	}
	var known time.Time
	if r.stored {
		if known, err = r.newestTest(ctx); err != nil {
			return unreachable("reading the admin events of realm "+r.realm, err)
		}
	}
	switch err := r.Keycloak.RepeatEventsConfig(ctx, r.realm); {
	case status(err) == http.StatusForbidden:
		r.notTried("Keycloak answered 403 to the event configuration, written back unchanged", giveRole("manage-events"))
		return nil
	case err != nil:
		return unreachable("writing the event configuration of realm "+r.realm+" back unchanged", err)
	}
	wait := r.Wait
	if wait <= 0 {
		wait = DefaultWait
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	// The pull first: what is stored is there at once, and the push comes meanwhile.
	if err := r.pull(ctx, limited, known, wait); err != nil {
		return err
	}
	return r.push(ctx, limited, before, wait)
}

func (r *run) notTried(why, next string) {
	for _, name := range []string{ItemPush, ItemPull} {
		r.add(Item{Name: name, Status: NotTried, Detail: why, Next: next})
	}
}

// newestTest is the time of the newest stored event of the kind that the self-test
// causes, zero where there is none.
func (r *run) newestTest(ctx context.Context) (time.Time, error) {
	events, err := r.Keycloak.AdminEvents(ctx, r.realm, admin.EventQuery{Max: pullPage})
	if err != nil {
		return time.Time{}, err
	}
	var newest time.Time
	for _, raw := range events {
		d, err := webhook.DecodeAdminEvent(raw)
		if err == nil && d.Admin.ResourcePath == selfTestPath && d.Admin.Time.After(newest) {
			newest = d.Admin.Time
		}
	}
	return newest, nil
}

// pull waits until the list of stored events has one that is newer than known.
func (r *run) pull(ctx, limited context.Context, known time.Time, wait time.Duration) error {
	item := Item{Name: ItemPull, Status: Missing, Cost: "what no webhook brings stays unknown until a reconciliation finds it"}
	switch {
	case !r.stored:
		item.Detail, item.Next = "Keycloak's list of admin events cannot be read", "see the event store above"
		r.add(item)
		return nil
	case !r.config.AdminEventsEnabled:
		item.Detail, item.Next = "Keycloak stores no admin events", "see "+ItemAdminEvents+" above"
		r.add(item)
		return nil
	}
	tick := time.NewTicker(pullEvery)
	defer tick.Stop()
	for {
		newest, err := r.newestTest(limited)
		switch {
		case err == nil && newest.After(known):
			r.ok(ItemPull, "the test's event is in Keycloak's list")
			return nil
		case ctx.Err() != nil:
			return unreachable("waiting for the test's event", ctx.Err())
		case err != nil && limited.Err() == nil:
			return unreachable("reading the admin events of realm "+r.realm, err)
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
func (r *run) push(ctx, limited context.Context, after eventstore.Position, wait time.Duration) error {
	item := Item{Name: ItemPush, Status: Missing, Cost: "changes are seen at the next poll and not at once; without a poll, never"}
	if !slices.Contains(r.config.EventsListeners, listener) {
		item.Detail, item.Next = "Keycloak sends no webhook", "see "+ItemListener+" above"
		r.add(item)
		return nil
	}
	pulled := map[string]bool{} // the streams of such events that a poll brought first
	for {
		source, next, err := r.arrived(limited, after, pulled)
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
			item.Next = "see that keytrail serve runs, that Keycloak reaches " + r.WebhookURL + ", and that both have the same secret: Keycloak's log has what its sender was answered"
			r.add(item)
			return nil
		default:
			return fmt.Errorf("waiting for the test's event: %w", err)
		}
	}
}

// arrived looks for the event behind a position: the source that pushed it, "" for
// none, and how far the log was read.
func (r *run) arrived(ctx context.Context, after eventstore.Position, pulled map[string]bool) (source string, next eventstore.Position, err error) {
	query := eventstore.LogQuery{After: after, Types: []string{adapter.TypeAdminEventReceived, adapter.TypeDeliveryConfirmed}}
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
		switch p := d.Payload.(type) {
		case *adapter.AdminEventReceived:
			if p.ResourcePath != selfTestPath || (p.Realm != "" && p.Realm != r.realm) {
				continue
			}
			if p.Source != sourcePoll {
				return p.Source, e.Position, nil
			}
			pulled[e.Stream.String()] = true
		case *adapter.DeliveryConfirmed:
			if pulled[e.Stream.String()] && p.Source != sourcePoll {
				return p.Source, e.Position, nil
			}
		}
	}
	return "", next, nil
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
