package keycloaktest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// senderCount is the number of threads that the real sender has on two cores: a slow
// receiver holds up all deliveries, and their order is not kept.
const senderCount = 2

// SignatureHeader carries the bare lower-case hex HMAC-SHA256 of the exact body.
const SignatureHeader = "X-Keycloak-Signature"

// webhook is one subscription of a realm.
type webhook struct {
	id         string
	enabled    bool
	url        string
	secret     string
	eventTypes []string
	createdBy  string
	createdAt  int64
}

// AddWebhook subscribes url to all events of the realm, signed with secret, unsigned
// if it is empty. It returns the webhook's id.
func (r *Realm) AddWebhook(url, secret string) (id string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	w := &webhook{id: newID(), enabled: true, url: url, secret: secret, eventTypes: []string{"*"}, createdAt: r.s.now()}
	r.webhooks = append(r.webhooks, w)
	return w.id
}

func (w *webhook) wants(typ string) bool {
	return slices.ContainsFunc(w.eventTypes, func(pattern string) bool {
		switch pattern {
		case "*":
			return true
		case "access.*", "admin.*", "system.*":
			return strings.HasPrefix(typ, strings.TrimSuffix(pattern, "*"))
		}
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		return err == nil && re.MatchString(typ)
	})
}

// Sign computes what SignatureHeader must hold.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// send hands an event to the senders, once per webhook and each time with a uid of
// its own.
func (s *Server) send(r *Realm, eventID string, event pushedEvent) {
	for _, w := range r.webhooks {
		if !w.enabled || !w.wants(event.Type) {
			continue
		}
		event.UID = newID()
		d := &delivery{Delivery: Delivery{UID: event.UID, EventID: eventID, Type: event.Type, URL: w.url, Body: encode(event)}}
		if w.secret != "" {
			d.signature = Sign(w.secret, d.Body)
		}
		s.senders.enqueue(d)
	}
}

// Delivery is what became of one event for one webhook.
type Delivery struct {
	UID, EventID, Type, URL string
	Body                    []byte
	Attempts                int
	Status                  int  // of the last answer, 0 before it
	Delivered               bool // answered with 2xx
	Lost                    bool // refused, dropped by a fault, or given up
}

type delivery struct {
	Delivery
	signature string
	first     time.Time
}

// senders is the queue in memory and the threads that empty it.
type senders struct {
	logger  *slog.Logger
	client  *http.Client
	backoff time.Duration
	limit   time.Duration
	ctx     context.Context //nolint:containedctx // the life of the goroutines, ended by close
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu        sync.Mutex
	wake      *sync.Cond
	queue     []*delivery
	held      bool
	pending   int // enqueued and neither delivered nor lost
	idle      chan struct{}
	history   []*delivery
	drop, dup int
	closed    bool
	unserved  bool // nothing is sent
	timers    map[*time.Timer]struct{}
}

func newSenders(logger *slog.Logger, backoff, limit time.Duration) *senders {
	ctx, cancel := context.WithCancel(context.Background())
	q := &senders{
		logger: logger, backoff: backoff, limit: limit, ctx: ctx, cancel: cancel,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senderCount}},
		timers: map[*time.Timer]struct{}{},
	}
	q.wake = sync.NewCond(&q.mu)
	return q
}

func (q *senders) start() {
	for range senderCount {
		q.done.Go(q.run)
	}
}

func (q *senders) close() {
	q.mu.Lock()
	q.closed = true
	for t := range q.timers {
		t.Stop()
	}
	q.wake.Broadcast()
	q.mu.Unlock()
	q.cancel()
	q.done.Wait()
	q.client.CloseIdleConnections()
}

func (q *senders) enqueue(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.history) >= maxLog {
		q.history = append([]*delivery(nil), q.history[maxLog/2:]...)
	}
	q.history = append(q.history, d)
	if q.drop > 0 {
		q.drop--
		d.Lost = true
		return
	}
	q.push(d)
	if q.dup > 0 {
		q.dup--
		q.push(&delivery{Delivery: d.Delivery, signature: d.signature})
	}
}

// push needs the lock.
func (q *senders) push(d *delivery) {
	if q.closed || q.unserved {
		return
	}
	q.pending++
	q.queue = append(q.queue, d)
	q.wake.Signal()
}

func (q *senders) settle() {
	q.pending--
	if q.pending == 0 && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

func (q *senders) run() {
	for {
		q.mu.Lock()
		for !q.closed && (q.held || len(q.queue) == 0) {
			q.wake.Wait()
		}
		if q.closed {
			q.mu.Unlock()
			return
		}
		d := q.queue[0]
		q.queue = q.queue[1:]
		if d.first.IsZero() {
			d.first = time.Now()
		}
		d.Attempts++
		q.mu.Unlock()

		status, err := q.post(d)

		q.mu.Lock()
		d.Status = status
		switch {
		case err != nil:
			// A refused or broken connection is never retried: the event is gone.
			d.Lost = true
			q.settle()
		case status/100 == 2:
			d.Delivered = true
			q.settle()
		default:
			q.retry(d)
		}
		q.mu.Unlock()
		q.logger.Debug("webhook delivery", "uid", d.UID, "type", d.Type, "status", status, "error", err)
	}
}

// retry needs the lock. Every status that is not 2xx is tried again, with the same
// body and uid.
func (q *senders) retry(d *delivery) {
	wait := q.backoff
	for range d.Attempts - 1 {
		wait = min(wait*5, q.backoff*40)
	}
	wait = time.Duration(float64(wait) * (0.5 + rand.Float64()))
	if time.Since(d.first)+wait > q.limit {
		d.Lost = true
		q.settle()
		return
	}
	if q.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.timers, timer)
		if !q.closed {
			q.queue = append(q.queue, d)
			q.wake.Signal()
		}
	})
	q.timers[timer] = struct{}{}
}

func (q *senders) post(d *delivery) (int, error) {
	req, err := http.NewRequestWithContext(q.ctx, http.MethodPost, d.URL, bytes.NewReader(d.Body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Apache-HttpClient/4.5.14 (Java/25.0.3)")
	if d.signature != "" {
		req.Header.Set(SignatureHeader, d.signature)
	}
	resp, err := q.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // to reuse the connection; the answer is not looked at
	return resp.StatusCode, nil
}

// Deliveries returns the history of the push, in the order of the events.
func (s *Server) Deliveries() []Delivery {
	q := s.senders
	q.mu.Lock()
	defer q.mu.Unlock()
	list := make([]Delivery, len(q.history))
	for i, d := range q.history {
		list[i] = d.Delivery
	}
	return list
}

// WaitDeliveries waits until every delivery is made or lost, retries included.
func (s *Server) WaitDeliveries(ctx context.Context) error {
	q := s.senders
	q.mu.Lock()
	if q.pending == 0 {
		q.mu.Unlock()
		return nil
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// DropDeliveries loses the next n deliveries, as a refused or lost connection would
// (contract: deliveries).
func (s *Server) DropDeliveries(n int) {
	s.senders.mu.Lock()
	defer s.senders.mu.Unlock()
	s.senders.drop = n
}

// DuplicateDeliveries sends each of the next n deliveries twice, as happens when the
// sender never sees a 2xx (contract: webhook, deliveries).
func (s *Server) DuplicateDeliveries(n int) {
	s.senders.mu.Lock()
	defer s.senders.mu.Unlock()
	s.senders.dup = n
}

// SpoilRepresentations changes the representation of the next n admin events that are
// pushed with one: NoRepresentation and HalfRepresentation are ready-made. The event
// store keeps them whole, and every webhook gets the same. No call makes the tested
// sender do either: it pushes every representation, and pushes it whole.
func (s *Server) SpoilRepresentations(n int, spoil func(representation string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoilLeft, s.spoil = n, spoil
}

// NoRepresentation leaves it out, as a sender does that passes on what the event store
// keeps where the realm does not include representations (contract: events config, where
// the pull lacks it and the push does not).
func NoRepresentation(string) string { return "" }

// HalfRepresentation cuts it in the middle, so that it is no JSON any more, as a sender or
// a database does that has a limit. The event store of 26.7.3 has none (its
// JpaEventStoreProvider, read).
func HalfRepresentation(representation string) string {
	return strings.ToValidUTF8(representation[:len(representation)/2], "")
}

// HoldDeliveries keeps deliveries back until the returned function is called, which
// lets them go in the order that reorder gives them: nil keeps it, Reverse and
// Shuffle are ready-made. The real sender lets a delivery overtake one that has to be
// sent again (contract: deliveries).
func (s *Server) HoldDeliveries() (release func(reorder func(n int, swap func(i, j int)))) {
	q := s.senders
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = true
	return func(reorder func(n int, swap func(i, j int))) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if !q.held {
			return
		}
		if reorder != nil {
			reorder(len(q.queue), func(i, j int) { q.queue[i], q.queue[j] = q.queue[j], q.queue[i] })
		}
		q.held = false
		q.wake.Broadcast()
	}
}

// Reverse lets the last delivery go first.
func Reverse(n int, swap func(i, j int)) {
	for i, j := 0, n-1; i < j; i, j = i+1, j-1 {
		swap(i, j)
	}
}

// Shuffle is an order by chance, the same for the same seed.
func Shuffle(seed uint64) func(n int, swap func(i, j int)) {
	return func(n int, swap func(i, j int)) { rand.New(rand.NewPCG(seed, seed)).Shuffle(n, swap) }
}

// Redeliver sends every delivery of that event again with its uid and body, as the
// sender's resend endpoint does. It says whether there was one.
func (s *Server) Redeliver(eventID string) bool {
	q := s.senders
	q.mu.Lock()
	defer q.mu.Unlock()
	found := false
	for _, d := range q.history {
		if d.EventID == eventID {
			q.push(&delivery{Delivery: Delivery{UID: d.UID, EventID: d.EventID, Type: d.Type, URL: d.URL, Body: d.Body}, signature: d.signature})
			found = true
		}
	}
	return found
}

type webhookRep struct {
	ID         string   `json:"id"`
	Enabled    bool     `json:"enabled"`
	URL        string   `json:"url"`
	CreatedBy  string   `json:"createdBy,omitempty"`
	CreatedAt  int64    `json:"createdAt"`
	Realm      string   `json:"realm"`
	EventTypes []string `json:"eventTypes"`
}

// looseBool reads true as well as "true": the extension's own examples send strings.
type looseBool bool

func (b *looseBool) UnmarshalJSON(data []byte) error {
	v, err := strconv.ParseBool(strings.Trim(string(data), `"`))
	*b = looseBool(v)
	return err
}

type webhookInput struct {
	Enabled    looseBool `json:"enabled"`
	URL        string    `json:"url"`
	Secret     string    `json:"secret"`
	EventTypes []string  `json:"eventTypes"`
}

func (c *call) describeWebhook(w *webhook) webhookRep {
	return webhookRep{ID: w.id, Enabled: w.enabled, URL: w.url, CreatedBy: w.createdBy, CreatedAt: w.createdAt, Realm: c.realm.name, EventTypes: w.eventTypes}
}

func (c *call) webhook() *webhook {
	for _, w := range c.realm.webhooks {
		if w.id == c.PathValue("webhook") {
			return w
		}
	}
	return nil
}

func (c *call) listWebhooks() reply {
	list := []webhookRep{}
	for _, w := range c.realm.webhooks {
		list = append(list, c.describeWebhook(w))
	}
	return ok(list)
}

func (c *call) countWebhooks() reply { return ok(len(c.realm.webhooks)) }

func (c *call) getWebhook() reply {
	if w := c.webhook(); w != nil {
		return ok(c.describeWebhook(w))
	}
	return notFoundPage()
}

func (c *call) createWebhook() reply {
	w := &webhook{id: newID(), createdBy: c.caller.userID, createdAt: c.s.now()}
	if refused, ok := c.readWebhook(w); !ok {
		return refused
	}
	c.realm.webhooks = append(c.realm.webhooks, w)
	// Measured: the Location has /admin in it although the resource is not there.
	return c.created("/admin/realms/" + c.realm.name + "/webhooks/" + w.id)
}

func (c *call) updateWebhook() reply {
	w := c.webhook()
	if w == nil {
		return notFoundPage()
	}
	if refused, ok := c.readWebhook(w); !ok {
		return refused
	}
	return noContent()
}

func (c *call) readWebhook(w *webhook) (reply, bool) {
	var in webhookInput
	if err := json.Unmarshal(c.body, &in); err != nil {
		return oauthFail(http.StatusBadRequest, "invalid_request", "Cannot parse the JSON"), false
	}
	w.enabled, w.url, w.eventTypes = bool(in.Enabled), in.URL, in.EventTypes
	if in.Secret != "" {
		w.secret = in.Secret
	}
	return reply{}, true
}

func (c *call) deleteWebhook() reply {
	w := c.webhook()
	if w == nil {
		return notFoundPage()
	}
	c.realm.webhooks = slices.DeleteFunc(c.realm.webhooks, func(have *webhook) bool { return have == w })
	return noContent()
}

func (c *call) webhookSecret() reply {
	w := c.webhook()
	if w == nil {
		return notFoundPage()
	}
	return ok(map[string]string{"type": "secret", "value": w.secret})
}
