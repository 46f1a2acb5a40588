package trace

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// FailureKind says what sort of attention something needs.
type FailureKind string

// The kinds of failures.
const (
	FailureCallFailed            FailureKind = "call_failed"
	FailureCallUnknown           FailureKind = "call_unknown"
	FailureCallOpen              FailureKind = "call_open"
	FailureDeliveryParked        FailureKind = "delivery_parked"
	FailureDrift                 FailureKind = "drift"
	FailureReconciliationInvalid FailureKind = "reconciliation_invalid"
)

// Failure is one thing that needs attention.
type Failure struct {
	Kind     FailureKind `json:"kind"`
	At       time.Time   `json:"at"`
	Realm    string      `json:"realm,omitempty"`
	UserID   string      `json:"user_id,omitempty"`
	Username string      `json:"username,omitempty"`
	// Summary is one line, Next what to do about it.
	Summary string       `json:"summary"`
	Next    string       `json:"next,omitempty"`
	Code    adapter.Code `json:"code,omitempty"`
	// CorrelationID leads to the trace. ID is the call, delivery or run.
	CorrelationID uuid.UUID `json:"correlation_id"`
	ID            uuid.UUID `json:"id"`

	// mark is how the failure's source finds the place after it.
	mark string
	// say puts it into words: the summary, once the users' names are known.
	say func(words) string
}

// FailureQuery asks for one page of failures.
type FailureQuery struct {
	// Realm narrows to one realm; empty is all.
	Realm string
	// Limit is the most to return; 0 means 100.
	Limit int
	// Cursor is a page's NextCursor; empty begins with the newest.
	Cursor string
}

// FailurePage is one page of failures, newest first.
type FailurePage struct {
	Items []Failure `json:"items"`
	// NextCursor is empty on the last page.
	NextCursor string `json:"next_cursor"`
}

const (
	defaultFailures = 100
	maxFailures     = 1000
)

// CallReader lists calls by status.
type CallReader interface {
	// ListCalls returns a page of the calls that have one of the statuses, of the realm
	// (empty: all), newest first in the order of (RequestedAt, CallID), and the next
	// page's cursor, empty on the last. Pages may be smaller than limit.
	ListCalls(ctx context.Context, statuses []adapter.CallStatus, realm string, limit int, cursor string) ([]adapter.Call, string, error)
}

// callMark is a call's place in a CallReader's list: the page that it was on and its
// place in the list's order, since a page is seldom used up.
type callMark struct {
	Page        string    `json:"p,omitempty"`
	RequestedAt time.Time `json:"t"`
	CallID      uuid.UUID `json:"id"`
}

// before reports whether c comes after the mark in the list.
func (m *callMark) before(c adapter.Call) bool {
	return m == nil || cmp.Or(c.RequestedAt.Compare(m.RequestedAt), bytes.Compare(c.CallID[:], m.CallID[:])) < 0
}

// Failures collects what needs attention: failed calls, unknown ones unless a later fact
// tells what holds (Settlement), calls that are
// open for too long, creations that stopped between two calls, deliveries that are parked still, drift that is not over, and
// the newest run of a realm where it could not judge. It is safe for concurrent use
// if its parts are.
type Failures struct {
	// Calls lists calls; nil leaves them out.
	Calls CallReader
	// Store tells of deliveries, drift and runs, by the types of their events.
	Store eventstore.Reader
	Codec *adapter.Codec
	Clock func() time.Time
	// Users names users whom only their id names, and finds those whom a creation made;
	// nil leaves the ids.
	Users UserLookup
	// History tells of later calls on a user; nil leaves those out.
	History CallHistory
	// OpenAfter is how old an open call must be to be listed; 0 means a minute.
	OpenAfter time.Duration
}

const defaultOpenAfter = time.Minute

// List returns a page of failures. A cursor that is not of its making is an
// *adapter.Error with code invalid_request.
func (f *Failures) List(ctx context.Context, q FailureQuery) (FailurePage, error) {
	page, err := f.list(ctx, q)
	if err != nil {
		return FailurePage{}, err
	}
	if err := f.name(ctx, page.Items); err != nil {
		return FailurePage{}, fmt.Errorf("listing failures: %w", err)
	}
	return page, nil
}

// maxNamed is how many users' names are looked up for one page.
const maxNamed = 200

// name puts the items into words, with the names of users whom only their id names.
func (f *Failures) name(ctx context.Context, items []Failure) error {
	names := map[adapter.UserRef]string{}
	lookups := 0
	for i := range items {
		item := &items[i]
		ref := adapter.UserRef{Realm: item.Realm, UserID: item.UserID}
		name, known := names[ref]
		if !known && item.Username == "" && ref.UserID != "" && f.Users != nil && lookups < maxNamed {
			lookups++
			found, err := f.Users.Find(ctx, ref.UserID, ref.Realm)
			if err != nil {
				return fmt.Errorf("looking up the name of user %s: %w", ref.UserID, err)
			}
			if len(found) == 1 && found[0].ID == ref.UserID {
				name = found[0].Username
			}
			names[ref] = name
		}
		if item.Username == "" {
			item.Username = name
		}
		item.Summary = oneLine(item.say(words{names: map[adapter.UserRef]string{ref: item.Username}}))
	}
	return nil
}

func (f *Failures) list(ctx context.Context, q FailureQuery) (FailurePage, error) {
	marks, err := parseCursor(q.Cursor)
	if err != nil {
		return FailurePage{}, err
	}
	limit := q.Limit
	if limit <= 0 {
		limit = defaultFailures
	}
	limit = min(limit, maxFailures)

	// Each source is read on from its own mark, so that no order between the sources
	// has to be kept from page to page.
	var sources []*failureSource
	for _, s := range []struct {
		name string
		list func(ctx context.Context, realm, mark string, limit int) ([]Failure, error)
	}{
		{"calls", f.failedCalls},
		{"open", f.openCalls},
		{"unfinished", f.unfinished},
		{"parked", f.parked},
		{"drift", f.drift},
		{"runs", f.invalidRuns},
	} {
		items, err := s.list(ctx, q.Realm, marks[s.name], limit+1)
		if err != nil {
			return FailurePage{}, fmt.Errorf("listing failures: %w", err)
		}
		sources = append(sources, &failureSource{name: s.name, items: items})
	}
	page := FailurePage{Items: []Failure{}}
	for len(page.Items) < limit {
		newest := newestOf(sources)
		if newest == nil {
			return page, nil
		}
		marks[newest.name] = newest.items[0].mark
		page.Items = append(page.Items, newest.items[0])
		newest.items = newest.items[1:]
	}
	if newestOf(sources) != nil {
		page.NextCursor, err = cursorOf(marks)
	}
	return page, err
}

type failureSource struct {
	name  string
	items []Failure
}

func newestOf(sources []*failureSource) *failureSource {
	var newest *failureSource
	for _, s := range sources {
		if len(s.items) > 0 && (newest == nil || s.items[0].At.After(newest.items[0].At)) {
			newest = s
		}
	}
	return newest
}

func cursorOf(marks map[string]string) (string, error) {
	raw, err := json.Marshal(marks)
	if err != nil {
		return "", fmt.Errorf("making a cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

func parseCursor(cursor string) (map[string]string, error) {
	marks := map[string]string{}
	if cursor == "" {
		return marks, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		err = json.Unmarshal(raw, &marks)
	}
	if err != nil || marks == nil {
		return nil, badCursor()
	}
	return marks, nil
}

func badCursor() error {
	return adapter.Errorf(adapter.CodeInvalidRequest, "cursor is not one that this list gave").
		WithTry("take next_cursor of the page before, or leave it out")
}

func (f *Failures) failedCalls(ctx context.Context, realm, mark string, limit int) ([]Failure, error) {
	return f.callFailures(ctx, []adapter.CallStatus{adapter.CallFailed, adapter.CallUnknown}, realm, time.Time{}, mark, limit)
}

func (f *Failures) openCalls(ctx context.Context, realm, mark string, limit int) ([]Failure, error) {
	return f.callFailures(ctx, []adapter.CallStatus{adapter.CallRequested}, realm, f.Clock().Add(-f.openAfter()), mark, limit)
}

func (f *Failures) callFailures(ctx context.Context, statuses []adapter.CallStatus, realm string, until time.Time, mark string, limit int) ([]Failure, error) {
	if f.Calls == nil {
		return nil, nil
	}
	var after *callMark
	page := ""
	if mark != "" {
		after = new(callMark)
		if json.Unmarshal([]byte(mark), after) != nil {
			return nil, badCursor()
		}
		page = after.Page
	}
	later := settler{store: f.Store, codec: f.Codec, users: f.Users, calls: f.History}
	var items []Failure
	for {
		calls, next, err := f.Calls.ListCalls(ctx, statuses, realm, limit, page)
		if err != nil {
			return nil, err
		}
		for _, c := range calls {
			if !after.before(c) || (!until.IsZero() && c.RequestedAt.After(until)) {
				continue
			}
			settled, err := later.settle(ctx, c)
			if err != nil {
				return nil, err
			}
			if settled != nil {
				continue
			}
			raw, err := json.Marshal(callMark{Page: page, RequestedAt: c.RequestedAt, CallID: c.CallID})
			if err != nil {
				return nil, fmt.Errorf("marking call %s: %w", c.CallID, err)
			}
			item, err := f.callFailure(ctx, c)
			if err != nil {
				return nil, err
			}
			item.mark = string(raw)
			if items = append(items, item); len(items) == limit {
				return items, nil
			}
		}
		if next == "" {
			return items, nil
		}
		page = next
	}
}

// maxStory is how many events of a call's story are read for what else belongs to it.
const maxStory = 200

// story are the calls of the business action that a call may be a step of, the first
// requested first; none where it cannot be one.
func (f *Failures) story(ctx context.Context, c adapter.Call) ([]adapter.Call, error) {
	switch c.Command {
	case "user.role.add", "user.client_role.add", "user.organization.add", "user.enable":
	default:
		return nil, nil
	}
	var events []adapter.Decoded
	query := eventstore.LogQuery{CorrelationID: c.CorrelationID, Category: adapter.CategoryCall, Limit: maxStory}
	for e, err := range f.Store.ReadLog(ctx, query) {
		if err != nil {
			return nil, fmt.Errorf("reading the story of call %s: %w", c.CallID, err)
		}
		d, err := f.Codec.Decode(ctx, e)
		if err != nil {
			return nil, err
		}
		events = append(events, d)
	}
	return callsOf(events), nil
}

// callFailure puts a call into a line of the list.
func (f *Failures) callFailure(ctx context.Context, c adapter.Call) (Failure, error) {
	story, err := f.story(ctx, c)
	if err != nil {
		return Failure{}, err
	}
	kind := FailureCallFailed
	switch c.Status {
	case adapter.CallUnknown:
		kind = FailureCallUnknown
	case adapter.CallRequested:
		kind = FailureCallOpen
	}
	return Failure{
		Kind: kind, At: utc(c.RequestedAt), Realm: c.Realm, UserID: c.UserID, Username: c.Username,
		Next: nextOfStep(c, leftOver(c, story)), Code: c.Code, CorrelationID: c.CorrelationID, ID: c.CallID,
		say: func(w words) string { return callTitle(w, c) + by(c.Actor) + ": " + callOutcome(c) },
	}, nil
}

// backward reads the events of a type, newest first, from the mark on.
func (f *Failures) backward(ctx context.Context, eventType, mark string) (iter.Seq2[adapter.Decoded, error], error) {
	before, err := position(mark)
	if err != nil {
		return nil, err
	}
	return func(yield func(adapter.Decoded, error) bool) {
		for e, err := range f.Store.ReadLog(ctx, eventstore.LogQuery{Types: []string{eventType}, Backward: true, Before: before}) {
			var d adapter.Decoded
			if err == nil {
				d, err = f.Codec.Decode(ctx, e)
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}, nil
}

// position is the place that a mark of the log's order stands for, 0 for none.
func position(mark string) (eventstore.Position, error) {
	if mark == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(mark, 10, 64)
	if err != nil || n <= 0 {
		return 0, badCursor()
	}
	return eventstore.Position(n), nil
}

func failureOf(kind FailureKind, d adapter.Decoded) Failure {
	return Failure{
		Kind: kind, At: utc(d.OccurredAt), CorrelationID: d.CorrelationID,
		ID: d.Stream.AggregateID(), mark: strconv.FormatInt(int64(d.Position), 10),
		say: func(w words) string { return w.describe(d.View()) },
	}
}

// parked lists the deliveries that are parked still. Those that wait behind another
// are left out, since the other one is what needs attention, unless there is no other:
// then the first of those that wait is listed in its place.
func (f *Failures) parked(ctx context.Context, realm, mark string, limit int) ([]Failure, error) {
	before, err := position(mark)
	if err != nil {
		return nil, err
	}
	var items []Failure
	var queues *parkedQueues
	for parked, err := range f.Codec.Parked(ctx, f.Store, before) {
		if err != nil {
			return nil, err
		}
		first := parked.Received()
		ending := func(w words) string { return w.describe(parked.Parking.View()) }
		if p, ok := parked.Parking.Payload.(*adapter.DeliveryParked); ok && p.Behind != nil {
			if queues == nil {
				if queues, err = f.parkedQueues(ctx); err != nil {
					return nil, err
				}
			}
			if !queues.orphaned(first, *p.Behind) {
				continue
			}
			ending = func(words) string {
				return "parked: it waits behind delivery event " + p.Behind.String() + ", which is parked no longer"
			}
		}
		item := failureOf(FailureDeliveryParked, parked.Parking)
		item.Next = nextOfParked(parked.Parking.Stream.String())
		switch p := first.Payload.(type) {
		case *adapter.AdminEventReceived:
			item.Realm, item.UserID, item.Username = p.Realm, p.UserID, p.Details["username"]
		case *adapter.UserEventReceived:
			item.Realm, item.UserID, item.Username = p.Realm, p.UserID, p.Details["username"]
		}
		if realm != "" && item.Realm != realm {
			continue
		}
		item.say = func(w words) string { return w.describe(first.View()) + "; " + ending(w) }
		if items = append(items, item); len(items) == limit {
			break
		}
	}
	return items, nil
}

// parkedQueues tells which parked deliveries have another before them.
type parkedQueues struct {
	// events are those that recorded the parked deliveries.
	events map[uuid.UUID]bool
	// first is where each user's oldest parked delivery was recorded.
	first map[adapter.UserRef]eventstore.Position
}

func (f *Failures) parkedQueues(ctx context.Context) (*parkedQueues, error) {
	q := &parkedQueues{events: make(map[uuid.UUID]bool), first: make(map[adapter.UserRef]eventstore.Position)}
	for parked, err := range f.Codec.Parked(ctx, f.Store, 0) {
		if err != nil {
			return nil, err
		}
		d := parked.Received()
		q.events[d.ID] = true
		if ref, ok := adapter.DeliverySubject(d.Payload); ok {
			if first, known := q.first[ref]; !known || d.Position < first {
				q.first[ref] = d.Position
			}
		}
	}
	return q, nil
}

// orphaned reports whether a delivery that waits has none before it. It may be that of
// its own user, or the one that it was parked behind, which need not name the realm.
func (q *parkedQueues) orphaned(d adapter.Decoded, behind uuid.UUID) bool {
	ref, _ := adapter.DeliverySubject(d.Payload)
	return !q.events[behind] && q.first[ref] == d.Position
}

// drift lists the users whose last word from the reconciler is a difference.
func (f *Failures) drift(ctx context.Context, realm, mark string, limit int) ([]Failure, error) {
	// Read from the head whatever the mark: whether a drift is over is said after it.
	events, err := f.backward(ctx, adapter.TypeDriftDetected, "")
	if err != nil {
		return nil, err
	}
	return newestPerKey(events, FailureDrift, mark, limit, func(d adapter.Decoded, item *Failure) (string, bool) {
		p, ok := d.Payload.(*adapter.DriftDetected)
		if !ok {
			return "", false
		}
		item.Realm, item.UserID, item.Username = p.Realm, p.UserID, p.Username
		item.Next = nextOfDrift(p.Realm, p.UserID, p.Situation)
		return p.Realm + "\x00" + p.UserID, p.Phase != adapter.DriftEnded && (realm == "" || p.Realm == realm)
	})
}

// invalidRuns lists the realms whose newest finished run could not judge.
func (f *Failures) invalidRuns(ctx context.Context, realm, mark string, limit int) ([]Failure, error) {
	both := func(yield func(adapter.Decoded, error) bool) {
		q := eventstore.LogQuery{
			Types: []string{adapter.TypeReconciliationCompleted, adapter.TypeReconciliationAborted}, Backward: true, Limit: maxRuns,
		}
		for e, err := range f.Store.ReadLog(ctx, q) {
			var d adapter.Decoded
			if err == nil {
				d, err = f.Codec.Decode(ctx, e)
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
	return newestPerKey(both, FailureReconciliationInvalid, mark, limit, func(d adapter.Decoded, item *Failure) (string, bool) {
		switch p := d.Payload.(type) {
		case *adapter.ReconciliationCompleted:
			return p.Realm, false
		case *adapter.ReconciliationAborted:
			item.Realm, item.Code, item.Next = p.Realm, p.Code, nextOfRun(p.Code, p.Realm)
			item.say = func(w words) string { return "reconciliation of " + p.Realm + ": " + w.describe(d.View()) }
			return p.Realm, realm == "" || p.Realm == realm
		}
		return "", false
	})
}

// maxRuns is how many finished runs are looked through for each realm's newest.
const maxRuns = 1000

// newestPerKey lists the events that are the newest with their key and that look
// takes for a failure, from the mark on. It keeps one key of memory each.
func newestPerKey(events iter.Seq2[adapter.Decoded, error], kind FailureKind, mark string, limit int, look func(adapter.Decoded, *Failure) (key string, failed bool)) ([]Failure, error) {
	var before int64
	if mark != "" {
		n, err := strconv.ParseInt(mark, 10, 64)
		if err != nil || n <= 0 {
			return nil, badCursor()
		}
		before = n
	}
	var items []Failure
	seen := map[string]bool{}
	for d, err := range events {
		if err != nil {
			return nil, err
		}
		item := failureOf(kind, d)
		key, failed := look(d, &item)
		if key == "" || seen[key] {
			continue
		}
		seen[key] = true
		if !failed || (before > 0 && int64(d.Position) >= before) {
			continue
		}
		if items = append(items, item); len(items) == limit {
			break
		}
	}
	return items, nil
}

var kindWords = map[FailureKind]string{
	FailureCallFailed: "call failed", FailureCallUnknown: "outcome unknown", FailureCallOpen: "call open",
	FailureDeliveryParked: "delivery parked", FailureDrift: "drift", FailureReconciliationInvalid: "run invalid",
}

// WriteFailures writes a page of failures: what happened, what to do, and the
// command that shows the whole story.
func WriteFailures(w io.Writer, page FailurePage, o Options) error {
	p := newPage(o)
	if len(page.Items) == 0 {
		p.WriteString(p.paint(green, "Nothing needs attention.") + "\n")
		return p.writeTo(w, "the failures")
	}
	more := ""
	if page.NextCursor != "" {
		more = ", and there is more"
	}
	p.line("", 0, bold, needsAttention(len(page.Items))+more+". Newest first:")
	for _, f := range page.Items {
		mark := red
		if f.Kind == FailureCallUnknown || f.Kind == FailureCallOpen {
			mark = yellow
		}
		p.WriteString("\n" + p.paint(dim, p.time(f.At)) + "  " + p.paint(mark, kindWords[f.Kind]) + "\n")
		p.line("  ", 2, plain, f.Summary)
		p.fact("next", len("story"), f.Next)
		p.fact("story", len("story"), "keytrail trace "+f.CorrelationID.String())
	}
	return p.writeTo(w, "the failures")
}

func needsAttention(n int) string {
	if n == 1 {
		return "1 thing needs attention"
	}
	return strconv.Itoa(n) + " things need attention"
}
