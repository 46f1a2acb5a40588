// Package check finds out whether a Keycloak is set up as keytrail needs it: which roles
// the service account has, what the realm stores and sends, and whether an event really
// arrives, by push and by pull. To see that, it logs the service account in once more,
// which Keycloak reports as an event. Where that proves nothing, since the account is
// another realm's or the realm stores no logins, it writes the realm's event
// configuration back unchanged, for which it needs manage-events.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// Keycloak is what the check asks. *admin.Client is one.
type Keycloak interface {
	Realm(ctx context.Context, realm string) (keycloak.Realm, error)
	EventsConfig(ctx context.Context, realm string) (keycloak.EventsConfig, error)
	Users(ctx context.Context, realm string, first, limit int) ([]keycloak.User, error)
	CountUsers(ctx context.Context, realm string) (int, error)
	Clients(ctx context.Context, realm string, first, limit int) ([]keycloak.Client, error)
	Organizations(ctx context.Context, realm string, first, limit int) ([]keycloak.Organization, error)
	AdminEvents(ctx context.Context, realm string, q admin.EventQuery) ([]json.RawMessage, error)
	UserEvents(ctx context.Context, realm string, q admin.EventQuery) ([]json.RawMessage, error)
	Webhooks(ctx context.Context, realm string) ([]admin.Webhook, error)
	GrantedRoles(ctx context.Context, realm string) (roles []string, told bool, err error)
	AuthRealm() string
	LogIn(ctx context.Context) (tokenID string, err error)
	RepeatEventsConfig(ctx context.Context, realm string) error
}

// Log is the event store, where a pushed event arrives.
type Log interface {
	eventstore.Reader
	eventstore.Waiter
}

// Status says how one thing stands.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Missing Status = "missing"
	// Unknown is what could not be looked at; the detail says why.
	Unknown Status = "unknown"
	// NotTried is what was left out; the detail says why.
	NotTried Status = "not_tried"
)

// Item is one thing that was looked at.
type Item struct {
	// Name is such as "role view-events", "flag adminEventsEnabled" or "push".
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Cost is what does not work without it, Next what to do.
	Cost string `json:"cost,omitempty"`
	Next string `json:"next,omitempty"`
}

// Report is how a realm is set up.
type Report struct {
	Realm string `json:"realm"`
	// OK is true where everything was looked at, nothing is missing, and an event arrived
	// by push and by pull.
	OK bool `json:"ok"`
	// Incomplete is true where something could not be looked at or not be tried: nothing
	// is known of that. Its item says why.
	Incomplete bool   `json:"incomplete"`
	Items      []Item `json:"items"`
}

// Missing reports whether something is missing.
func (r Report) Missing() bool { return r.count(Missing) > 0 }

func (r Report) count(statuses ...Status) int {
	n := 0
	for _, i := range r.Items {
		if slices.Contains(statuses, i.Status) {
			n++
		}
	}
	return n
}

// Names of the items.
const (
	ItemRealm       = "realm"
	ItemViewRealm   = "role view-realm"
	ItemViewUsers   = "role view-users"
	ItemViewEvents  = "role view-events"
	ItemManageUsers = "role manage-users"
	ItemViewClients = "role view-clients"
	ItemViewOrgs    = "role view-organizations"
	ItemManageOrgs  = "role manage-organizations"
	ItemAdminEvents = "flag adminEventsEnabled"
	ItemDetails     = "flag adminEventsDetailsEnabled"
	ItemUserEvents  = "flag eventsEnabled"
	ItemListener    = "listener " + listener
	ItemWebhook     = "webhook"
	ItemEventStore  = "event store"
	ItemPush        = "push"
	ItemPull        = "pull"
)

// listener is the event listener that sends webhooks (p2's keycloak-events).
const listener = "ext-event-webhook"

// Checker checks realms. It is safe for concurrent use if its parts are.
type Checker struct {
	Keycloak Keycloak
	Log      Log
	Codec    *adapter.Codec
	// WebhookURL is where a webhook has to go, such as
	// https://keytrail.example.com/webhooks/keycloak. What stands behind /webhooks/ is a
	// source's name; any is taken.
	WebhookURL string
	// Wait is how long the self-test waits for its event; 0 means DefaultWait.
	Wait time.Duration
}

// DefaultWait is how long the self-test waits for its event. A push takes well under a
// second (26.7.3, measured), and a retried one 0.5 to 4 s.
const DefaultWait = 10 * time.Second

// Check looks at one realm. The error is an *adapter.Error where Keycloak cannot be
// reached, refuses the client or breaks off: then nothing is known. What is missing is
// no error.
func (c *Checker) Check(ctx context.Context, realm string) (Report, error) {
	r := &run{Checker: c, realm: realm}
	var err error
	// A token shows that Keycloak is there and takes the client.
	if r.grants, r.told, err = c.Keycloak.GrantedRoles(ctx, realm); err != nil {
		return Report{}, unreachable("fetching a token from Keycloak", err)
	}
	for _, step := range []func(context.Context) error{r.lookAtRealm, r.lookAtUsers, r.lookAtClients, r.lookAtOrganizations, r.lookAtEvents, r.lookAtGrants, r.lookAtWebhooks, r.lookAtStore, r.selfTest} {
		if err := step(ctx); err != nil {
			return Report{}, err
		}
		if r.over {
			break
		}
	}
	report := Report{Realm: realm, Items: r.items}
	report.Incomplete = report.count(Unknown, NotTried) > 0
	report.OK = !report.Missing() && !report.Incomplete
	return report, nil
}

// unreachable puts an error into the catalogue.
func unreachable(doing string, err error) error {
	var known *adapter.Error
	var token *admin.TokenError
	var answer *keycloak.APIError
	code, try := adapter.CodeKeycloakUnreachable, ""
	switch {
	case errors.As(err, &known):
		return err
	case !errors.As(err, &answer):
	case answer.Status >= http.StatusInternalServerError:
		code = adapter.CodeKeycloakUnavailable
	case errors.As(err, &token) && answer.Status != http.StatusNotFound, answer.Status == http.StatusUnauthorized:
		code = adapter.CodeKeycloakUnauthorized
	case answer.Status == http.StatusNotFound:
		try = "check KEYTRAIL_KEYCLOAK_URL and KEYTRAIL_KEYCLOAK_AUTH_REALM; a context path such as /auth belongs to the URL"
	}
	if try == "" {
		try = code.Explain().Next
	}
	return adapter.Errorf(code, "%s: %w", doing, err).WithTry("%s", try)
}

// run is one check of one realm.
type run struct {
	*Checker
	realm string
	items []Item
	// over ends the check early: nothing more can be asked.
	over bool

	// config is the event configuration, nil where it may not be read.
	config *keycloak.EventsConfig
	// grants are the roles that the token claims, where told.
	grants []string
	told   bool
	// stored is true where Keycloak's list of admin events can be read.
	stored bool
	// organizations is false where the realm has them switched off.
	organizations bool
}

func (r *run) add(i Item) { r.items = append(r.items, i) }

func (r *run) ok(name, detail string) { r.add(Item{Name: name, Status: OK, Detail: detail}) }

// status is the HTTP status of an answer that refused, 0 for anything else.
func status(err error) int {
	var answer *keycloak.APIError
	if errors.As(err, &answer) && !admin.NotSent(err) {
		return answer.Status
	}
	return 0
}

func giveRole(role string) string {
	return "give the service account the role " + role + " of realm-management: the client's page, Service account roles"
}

func (r *run) lookAtRealm(ctx context.Context) error {
	const cost = "the realm's UUID is not known, so that events that carry only that are not interpreted; commands that give or take a realm role fail, and a large realm's roles are not compared"
	found, err := r.Keycloak.Realm(ctx, r.realm)
	switch {
	case err == nil && found.ID != "":
		r.ok(ItemRealm, "its UUID is "+found.ID)
		r.ok(ItemViewRealm, "")
	case err == nil:
		r.ok(ItemRealm, "")
		r.add(Item{Name: ItemViewRealm, Status: Missing, Detail: "Keycloak tells the realm's name and not its UUID", Cost: cost, Next: giveRole("view-realm")})
	case status(err) == http.StatusNotFound:
		r.add(Item{
			Name: ItemRealm, Status: Missing, Detail: "Keycloak does not know it", Cost: "nothing of it can be read or changed",
			Next: "check KEYTRAIL_KEYCLOAK_REALMS; upper and lower case differ",
		})
		r.over = true
	case status(err) == http.StatusForbidden:
		r.add(Item{Name: ItemViewRealm, Status: Missing, Detail: "Keycloak answered 403: the service account may have no role at all", Cost: cost, Next: giveRole("view-realm")})
	default:
		return unreachable("reading realm "+r.realm, err)
	}
	return nil
}

func (r *run) lookAtUsers(ctx context.Context) error {
	item := Item{
		Name: ItemViewUsers, Status: Missing, Next: giveRole("view-users"),
		Cost: "no reconciliation, no baseline, no command, and no read of a user where events leave something open",
	}
	count, err := r.Keycloak.CountUsers(ctx, r.realm)
	if err == nil {
		var some []keycloak.User
		if some, err = r.Keycloak.Users(ctx, r.realm, 0, 1); err == nil {
			switch {
			case len(some) > 0 || count == 0:
				item.Status, item.Detail, item.Cost, item.Next = OK, fmt.Sprintf("%d users", count), "", ""
			default:
				// 26.7.3, measured: with query-users alone the list is empty and the count right.
				item.Detail = fmt.Sprintf("Keycloak counts %d users and lists none: that is the role query-users alone", count)
			}
			r.add(item)
			return nil
		}
	}
	if status(err) != http.StatusForbidden {
		return unreachable("listing the users of realm "+r.realm, err)
	}
	item.Detail = "Keycloak answered 403"
	r.add(item)
	return nil
}

func (r *run) lookAtClients(ctx context.Context) error {
	item := Item{
		Name: ItemViewClients, Status: Missing, Next: giveRole("view-clients"),
		Cost: "client roles are not compared, not adopted and not read back, and commands that give or take them fail",
	}
	some, err := r.Keycloak.Clients(ctx, r.realm, 0, 1)
	switch {
	case err == nil && len(some) > 0:
		item = Item{Name: ItemViewClients, Status: OK}
	case err == nil:
		// 26.7.3, measured: a realm always has clients.
		item.Detail = "Keycloak lists none: that is the role query-clients alone"
	case status(err) == http.StatusForbidden:
		item.Detail = "Keycloak answered 403"
	default:
		return unreachable("listing the clients of realm "+r.realm, err)
	}
	r.add(item)
	return nil
}

func (r *run) lookAtOrganizations(ctx context.Context) error {
	item := Item{
		Name: ItemViewOrgs, Status: Missing, Next: giveRole("view-organizations"),
		Cost: "organizations are not compared, not adopted and not read back, and commands that add or remove a member fail",
	}
	r.organizations = true
	some, err := r.Keycloak.Organizations(ctx, r.realm, 0, 1)
	may := r.granted("view-organizations") || r.granted("manage-organizations")
	switch {
	case err == nil && (len(some) > 0 || (r.told && may)):
		item = Item{Name: ItemViewOrgs, Status: OK}
	case err == nil && !r.told:
		item = Item{Name: ItemViewOrgs, Status: Unknown, Detail: "Keycloak lists none, which may be the role query-organizations alone, and the token tells no roles"}
	case err == nil:
		item.Detail = "Keycloak lists none: that is the role query-organizations alone"
	case status(err) == http.StatusNotFound:
		// 26.7.3, measured: only who has the role is told so, everybody else gets a 403.
		r.organizations = false
		item = Item{Name: ItemViewOrgs, Status: OK, Detail: "the realm has organizations switched off"}
	case status(err) == http.StatusForbidden:
		item.Detail = "Keycloak answered 403"
	default:
		return unreachable("listing the organizations of realm "+r.realm, err)
	}
	r.add(item)
	return nil
}

func (r *run) lookAtEvents(ctx context.Context) error {
	config, err := r.Keycloak.EventsConfig(ctx, r.realm)
	switch {
	case err == nil:
		r.config = &config
		r.ok(ItemViewEvents, "")
	case status(err) == http.StatusForbidden:
		r.add(Item{
			Name: ItemViewEvents, Status: Missing, Detail: "Keycloak answered 403",
			Cost: "no poll: an event whose webhook was lost stays unknown until a reconciliation finds what it changed",
			Next: giveRole("view-events"),
		})
		for _, name := range []string{ItemAdminEvents, ItemDetails, ItemUserEvents, ItemListener} {
			r.add(Item{Name: name, Status: Unknown, Detail: "only view-events tells it"})
		}
		return nil
	default:
		return unreachable("reading the event configuration of realm "+r.realm, err)
	}
	const where = "Realm settings, Events, "
	for _, flag := range []struct {
		name       string
		on         bool
		cost, next string
	}{
		{ItemAdminEvents, config.AdminEventsEnabled, "Keycloak stores no admin events: the poll finds none, and one whose webhook was lost is lost", where + "Admin events settings: Save events"},
		{ItemDetails, config.AdminEventsDetailsEnabled, "stored admin events do not tell what was changed: each costs a read of the user", where + "Admin events settings: Include representation"},
		{ItemUserEvents, config.EventsEnabled, "Keycloak stores no user events: a registration or a change by the user whose webhook was lost is lost", where + "User events settings: Save events"},
		{ItemListener, slices.Contains(config.EventsListeners, listener), "Keycloak sends no webhook: changes are seen at the next poll and not at once", where + "Event listeners: add ext-event-webhook (of the extension keycloak-events)"},
	} {
		if flag.on {
			r.ok(flag.name, "")
		} else {
			r.add(Item{Name: flag.name, Status: Missing, Detail: "it is switched off", Cost: flag.cost, Next: flag.next})
		}
	}
	return nil
}

// lookAtGrants looks into the token for the roles that cannot be tried without changing
// something.
func (r *run) lookAtGrants(context.Context) error {
	r.lookAtGrant(ItemManageUsers, "manage-users", "no command works: keytrail can watch users and not change them")
	if !r.organizations {
		r.ok(ItemManageOrgs, "not needed: the realm has organizations switched off")
		return nil
	}
	r.lookAtGrant(ItemManageOrgs, "manage-organizations", "commands that add a user to an organization or remove one fail")
	return nil
}

func (r *run) lookAtGrant(name, role, cost string) {
	switch {
	case !r.told:
		r.add(Item{Name: name, Status: Unknown, Detail: "the token tells no roles, and to try it would change something"})
	case r.granted(role):
		r.ok(name, "")
	default:
		r.add(Item{Name: name, Status: Missing, Detail: "the token does not claim it", Cost: cost, Next: giveRole(role)})
	}
}

func (r *run) granted(role string) bool {
	return slices.Contains(r.grants, role) || slices.Contains(r.grants, "realm-admin")
}

func (r *run) lookAtWebhooks(ctx context.Context) error {
	item := Item{Name: ItemWebhook, Status: Missing, Cost: "Keycloak does not tell keytrail at once: changes are seen at the next poll"}
	next := "register " + r.WebhookURL + " with KEYTRAIL_WEBHOOK_SECRET as its secret: POST /realms/" + r.realm + "/webhooks"
	webhooks, err := r.Keycloak.Webhooks(ctx, r.realm)
	switch status(err) {
	case http.StatusForbidden:
		r.add(Item{Name: ItemWebhook, Status: Unknown, Detail: "only view-events tells it"})
		return nil
	case http.StatusNotFound:
		item.Detail, item.Next = "Keycloak has no webhooks: the extension keycloak-events (ext-event-webhook) is not installed", "put its jar into providers/ and start Keycloak again"
		r.add(item)
		return nil
	}
	if err != nil {
		return unreachable("listing the webhooks of realm "+r.realm, err)
	}
	var others []string
	for _, w := range webhooks {
		switch {
		case !sameSource(w.URL, r.WebhookURL):
			others = append(others, keycloak.Redact(w.URL))
		case !w.Enabled:
			item.Detail, item.Next = "the one to "+w.URL+" is disabled", "enable it"
		case !takesAll(w.EventTypes):
			item.Detail, item.Next = "the one to "+w.URL+" is only for "+strings.Join(w.EventTypes, ", "), `give it the event types ["*"]`
		default:
			r.ok(ItemWebhook, w.URL)
			return nil
		}
	}
	if item.Detail == "" {
		item.Detail, item.Next = "none goes to "+r.WebhookURL, next
		if len(others) > 0 {
			item.Detail += "; there are " + strings.Join(others, ", ")
			item.Next += ", or set KEYTRAIL_PUBLIC_URL to where Keycloak reaches keytrail"
		}
	}
	r.add(item)
	return nil
}

// sameSource compares all but the source's name, of which there may be several.
func sameSource(url, ours string) bool {
	base, _, ok := strings.Cut(ours, "/webhooks/")
	rest, found := strings.CutPrefix(url, base+"/webhooks/")
	return ok && found && rest != "" && !strings.Contains(rest, "/")
}

func takesAll(types []string) bool {
	return slices.Contains(types, "*") || (slices.Contains(types, "access.*") && slices.Contains(types, "admin.*"))
}

func (r *run) lookAtStore(ctx context.Context) error {
	if r.config == nil {
		r.add(Item{Name: ItemEventStore, Status: Unknown, Detail: "only view-events tells it"})
		return nil
	}
	_, err := r.Keycloak.AdminEvents(ctx, r.realm, admin.EventQuery{Max: 1})
	switch {
	case err == nil:
		r.stored = true
		r.ok(ItemEventStore, "")
	case status(err) == http.StatusInternalServerError:
		// 26.7.3 with p2 0.59, measured: the extension brings a second event store, so that
		// Keycloak has no default any more, saves nothing, and the list fails.
		r.add(Item{
			Name: ItemEventStore, Status: Missing, Detail: "the list of admin events answers 500: Keycloak has no event store",
			Cost: "nothing is stored and no poll works, though webhooks do: one that is lost is lost for good",
			Next: "start Keycloak with --spi-events-store--provider=jpa",
		})
	case status(err) == http.StatusForbidden:
		r.add(Item{Name: ItemEventStore, Status: Unknown, Detail: "Keycloak answered 403"})
	default:
		return unreachable("reading the admin events of realm "+r.realm, err)
	}
	return nil
}
