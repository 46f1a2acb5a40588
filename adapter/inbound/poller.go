package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// Puller reads the events that Keycloak has stored.
type Puller interface {
	AdminEvents(ctx context.Context, realm string, q admin.EventQuery) ([]json.RawMessage, error)
	UserEvents(ctx context.Context, realm string, q admin.EventQuery) ([]json.RawMessage, error)
}

// Watermarks remembers how far each listing was read, over restarts.
type Watermarks interface {
	Watermark(ctx context.Context, name string) (time.Time, error)
	SetWatermark(ctx context.Context, name string, t time.Time) error
}

const (
	// pollPage is how many events one request asks for. Keycloak's own default is 100.
	pollPage = 200
	// pollOverlap is how far before the newest event seen a poll starts again. An
	// event's time is set before its transaction commits, so an earlier one can appear
	// later; 2,000 users imported in one transaction took 51 s (measured on 26.7.3).
	pollOverlap = 5 * time.Minute
	// maxSeen bounds the memory of deliveries that this process has recorded already.
	maxSeen = 50_000
)

// Poller brings the events that no webhook brought. It is safe for concurrent use;
// two polls of one realm at once do no harm.
type Poller struct {
	Puller     Puller
	Recorder   *Recorder
	Watermarks Watermarks
	Logger     *slog.Logger
	// Observe is told of each poll of a realm: outcome "ok" or "failed". May be nil.
	Observe func(realm, outcome string)

	mu   sync.Mutex
	seen map[string]struct{}
}

// Polled says what one poll of a realm brought.
type Polled struct {
	// Read is how many events were listed, New how many nobody had recorded before.
	Read, New int

	withoutID int
}

func (p *Polled) add(other Polled) {
	p.Read += other.Read
	p.New += other.New
	p.withoutID += other.withoutID
}

// listing is one of the two lists of events that a realm stores.
type listing struct {
	name   string
	pull   func(ctx context.Context, realm string, q admin.EventQuery) ([]json.RawMessage, error)
	decode func([]byte) (webhook.Delivery, error)
}

// Poll reads a realm's admin events and user events from a little before the newest
// seen, the first time from the oldest stored, and records them.
//
// The error is an *adapter.Error that says what Keycloak lacks.
func (p *Poller) Poll(ctx context.Context, realm string) (Polled, error) {
	return p.pollBefore(ctx, realm, time.Time{})
}

// pollBefore is Poll of what occurred before a moment; of all where that is zero.
func (p *Poller) pollBefore(ctx context.Context, realm string, before time.Time) (Polled, error) {
	var total Polled
	var failures []error
	for _, l := range []listing{
		{"admin-events", p.Puller.AdminEvents, func(b []byte) (webhook.Delivery, error) { return webhook.DecodeAdminEvent(b) }},
		{"events", p.Puller.UserEvents, func(b []byte) (webhook.Delivery, error) { return webhook.DecodeUserEvent(b) }},
	} {
		got, err := p.poll(ctx, realm, l, before)
		total.add(got)
		if err != nil {
			failures = append(failures, explainPoll(err, realm, l.name))
		}
	}
	outcome := "ok"
	switch {
	case len(failures) > 0:
		outcome = "failed"
	case total.Read > 0 && total.withoutID == 0:
		p.Recorder.listsIDs.Store(true)
	}
	if p.Observe != nil {
		p.Observe(realm, outcome)
	}
	return total, errors.Join(failures...)
}

func (p *Poller) poll(ctx context.Context, realm string, l listing, before time.Time) (Polled, error) {
	name := "poll/" + realm + "/" + l.name
	mark, err := p.Watermarks.Watermark(ctx, name)
	if err != nil {
		return Polled{}, fmt.Errorf("reading how far %s was polled: %w", name, err)
	}
	started := mark
	query := admin.EventQuery{Max: pollPage, Ascending: true}
	if !mark.IsZero() {
		query.From = mark.Add(-pollOverlap)
	}
	var total Polled
	for {
		page, err := p.page(ctx, realm, l, query)
		if errors.Is(err, errDescending) {
			return p.pollDescending(ctx, realm, l, name, started)
		}
		if err != nil {
			return total, err
		}
		if !before.IsZero() {
			page = slices.DeleteFunc(page, func(d webhook.Delivery) bool { return !timeOf(d).Before(before) })
		}
		got, err := p.record(ctx, realm, page)
		if err != nil {
			return total, err
		}
		total.add(got)
		if len(page) == 0 {
			return total, nil
		}
		newest := timeOf(page[len(page)-1])
		if newest.After(mark) {
			mark = newest
			if err := p.Watermarks.SetWatermark(ctx, name, mark); err != nil {
				return total, fmt.Errorf("remembering how far %s was polled: %w", name, err)
			}
		}
		if len(page) < pollPage {
			return total, nil
		}
		// Paging goes by time, not by offset: while we read, events are added and, at the
		// far end, expire, which shifts every offset. The offset serves only within one
		// millisecond that fills a page.
		if newest.Equal(query.From) {
			query.First += len(page)
		} else {
			query.From, query.First = newest, 0
		}
	}
}

// errDescending says that the server is older than 26.2: it lists the newest first
// and takes dates only.
var errDescending = errors.New("the server lists events newest first")

func (p *Poller) page(ctx context.Context, realm string, l listing, q admin.EventQuery) ([]webhook.Delivery, error) {
	raw, err := l.pull(ctx, realm, q)
	if err != nil {
		var answer *keycloak.APIError
		if errors.As(err, &answer) && answer.Status == http.StatusBadRequest && !q.From.IsZero() && !q.DayPrecision {
			return nil, errDescending
		}
		return nil, err
	}
	page := make([]webhook.Delivery, 0, len(raw))
	for _, b := range raw {
		d, err := l.decode(b)
		if err != nil {
			return nil, fmt.Errorf("an event in the listing: %w", err)
		}
		page = append(page, d)
	}
	if q.Ascending && len(page) > 1 {
		first, last := timeOf(page[0]), timeOf(page[len(page)-1])
		// A whole page of one millisecond does not tell; newest first works everywhere.
		if first.After(last) || (q.From.IsZero() && len(page) == q.Max && first.Equal(last)) {
			return nil, errDescending
		}
	}
	return page, nil
}

// record records what this process has not seen yet.
func (p *Poller) record(ctx context.Context, realm string, page []webhook.Delivery) (Polled, error) {
	got := Polled{Read: len(page)}
	for _, d := range page {
		if lacksID(d) {
			got.withoutID++
		}
	}
	fresh := slices.DeleteFunc(slices.Clone(page), p.wasSeen)
	if len(fresh) == 0 {
		return got, nil
	}
	receipts, err := p.Recorder.Record(ctx, Origin{Source: SourcePoll, Realm: realm}, fresh)
	if err != nil {
		return Polled{}, err
	}
	for _, r := range receipts {
		if !r.Duplicate {
			got.New++
		}
	}
	p.remember(fresh)
	return got, nil
}

func (p *Poller) wasSeen(d webhook.Delivery) bool {
	id := d.KeycloakEventID()
	if id == "" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.seen[id]
	return ok
}

func (p *Poller) remember(page []webhook.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil || len(p.seen)+len(page) > maxSeen {
		p.seen = make(map[string]struct{}, len(page))
	}
	for _, d := range page {
		if id := d.KeycloakEventID(); id != "" {
			p.seen[id] = struct{}{}
		}
	}
}

// pushFirst is how old an event has to be for a scheduled poll to record it. A webhook,
// which tells more, takes less: who acted by user name, for one.
const pushFirst = 3 * time.Second

// Run polls the realms every interval until the context ends, the first time at
// once. It leaves the newest events to the webhook and to the next turn. A failed poll
// is logged and tried again at the next turn.
func (p *Poller) Run(ctx context.Context, realms []string, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		for _, realm := range realms {
			got, err := p.pollBefore(ctx, realm, p.Recorder.Clock().Add(-pushFirst))
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				p.Logger.WarnContext(ctx, "poll failed", "realm", realm, "error", err)
				continue
			}
			p.Logger.DebugContext(ctx, "polled", "realm", realm, "read", got.Read, "new", got.New)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func timeOf(d webhook.Delivery) time.Time {
	switch {
	case d.Admin != nil:
		return d.Admin.Time
	case d.User != nil:
		return d.User.Time
	default:
		return time.Time{}
	}
}

// explainPoll says what a failed poll means and what to do about it.
func explainPoll(err error, realm, list string) error {
	var answer *keycloak.APIError
	var transport *admin.TransportError
	switch {
	case errors.As(err, &answer) && answer.Status == http.StatusForbidden:
		return &adapter.Error{
			Code: adapter.CodeKeycloakForbidden, Err: err,
			Detail: fmt.Sprintf("polling %s of realm %s: the service account may not read events", list, realm),
			Try:    "give the client's service account the role view-events of realm-management",
		}
	case errors.As(err, &answer) && answer.Status == http.StatusUnauthorized:
		return &adapter.Error{
			Code: adapter.CodeKeycloakUnauthorized, Err: err,
			Detail: fmt.Sprintf("polling %s of realm %s: Keycloak does not accept the client's credentials", list, realm),
			Try:    "check KEYTRAIL_KEYCLOAK_CLIENT_ID, KEYTRAIL_KEYCLOAK_CLIENT_SECRET and KEYTRAIL_KEYCLOAK_AUTH_REALM",
		}
	case errors.As(err, &answer) && answer.Status == http.StatusNotFound:
		return &adapter.Error{
			Code: adapter.CodeKeycloakNotFound, Err: err,
			Detail: fmt.Sprintf("polling %s of realm %s: %v", list, realm, err),
			Try:    "check KEYTRAIL_KEYCLOAK_REALMS and that KEYTRAIL_KEYCLOAK_URL has the server's context path",
		}
	case errors.As(err, &answer) && answer.Status >= http.StatusInternalServerError:
		// Measured on 26.7.3: p2 brings a second event store, Keycloak then has no default
		// one, saves nothing, and the listing fails with a null pointer.
		return &adapter.Error{
			Code: adapter.CodeKeycloakUnavailable, Err: err,
			Detail: fmt.Sprintf("polling %s of realm %s: %v", list, realm, err),
			Try:    "if it stays so, start Keycloak with --spi-events-store--provider=jpa: with the webhook extension there is no default event store, and nothing is saved that a poll could find",
		}
	case errors.As(err, &transport):
		return &adapter.Error{
			Code: adapter.CodeKeycloakUnreachable, Err: err,
			Detail: fmt.Sprintf("polling %s of realm %s: %v", list, realm, err),
			Try:    "check KEYTRAIL_KEYCLOAK_URL and that Keycloak is running",
		}
	default:
		return fmt.Errorf("polling %s of realm %s: %w", list, realm, err)
	}
}
