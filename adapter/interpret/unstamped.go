package interpret

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// matchWindow is how far apart the intent of a call and Keycloak's event of it may
// lie: retries and different clocks included.
const matchWindow = 15 * time.Minute

// address is what an admin event says about what was done, and by which the echo of a
// call that can carry no stamp is found.
type address struct {
	realm, resource, operation, path string
}

// unstamped are the calls whose body carries no stamp, with the resource type and the
// operation of the event that each causes. The event's path is the URL's after the
// realm (measured on 26.7.3).
var unstamped = map[string]struct{ resource, operation string }{
	http.MethodDelete + " " + userURL:                                               {keycloak.ResourceUser, keycloak.OperationDelete},
	http.MethodPut + " " + userURL + "/reset-password":                              {keycloak.ResourceUser, keycloak.OperationAction},
	http.MethodPut + " " + userURL + "/send-verify-email":                           {keycloak.ResourceUser, keycloak.OperationAction},
	http.MethodPost + " " + userURL + "/logout":                                     {keycloak.ResourceUser, keycloak.OperationAction},
	http.MethodPut + " " + userURL + "/groups/{group}":                              {keycloak.ResourceGroupMembership, keycloak.OperationCreate},
	http.MethodDelete + " " + userURL + "/groups/{group}":                           {keycloak.ResourceGroupMembership, keycloak.OperationDelete},
	http.MethodPost + " " + organizationURL + "/members":                            {keycloak.ResourceOrganizationMembership, keycloak.OperationCreate},
	http.MethodDelete + " " + organizationURL + "/members/{id}":                     {keycloak.ResourceOrganizationMembership, keycloak.OperationDelete},
	http.MethodDelete + " " + realmURL + "/attack-detection/brute-force/users/{id}": {keycloak.ResourceUserLoginFailure, keycloak.OperationDelete},
}

const (
	realmURL        = "/admin/realms/{realm}"
	usersURL        = realmURL + "/users"
	userURL         = usersURL + "/{id}"
	organizationURL = realmURL + "/organizations/{organization}"
)

// unstampedKinds are the events that such calls cause, by resource type and operation.
var unstampedKinds = func() map[string]bool {
	kinds := make(map[string]bool)
	for _, event := range unstamped {
		kinds[event.resource+" "+event.operation] = true
	}
	return kinds
}()

// addressOf is where the echo of an unstamped call will be found. It reports false for
// other calls, and while it is not known which user the call is about.
func addressOf(intent *adapter.ApiCallRequested, userID string) (address, bool) {
	event, ok := unstamped[intent.Method+" "+intent.URLTemplate]
	if !ok {
		return address{}, false
	}
	path := strings.TrimPrefix(intent.URLTemplate, realmURL+"/")
	if strings.Contains(path, "{id}") {
		if userID == "" {
			return address{}, false
		}
		path = strings.ReplaceAll(path, "{id}", userID)
	}
	for name, value := range intent.Params {
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	return address{realm: intent.Realm, resource: event.resource, operation: event.operation, path: path}, true
}

// findUnstamped looks for the call of ours that an event without a stamp reports back:
// by what was done, by whom, and when. The candidates are few, since the path names
// user, group or organization; each call is reported back once.
func (i *Interpreter) findUnstamped(ctx context.Context, d adapter.Decoded, p *adapter.AdminEventReceived) (call, bool, error) {
	if !unstampedKinds[p.ResourceType+" "+p.OperationType] {
		return call{}, false, nil
	}
	// A person is somebody else who was faster.
	if actor := d.Meta.Actor; actor == nil || actor.ID == "" || !mayBeUs(actor) {
		return call{}, false, nil
	}
	want := address{realm: p.Realm, resource: p.ResourceType, operation: p.OperationType, path: p.ResourcePath}
	candidates, err := i.calls.find(ctx, i, want, d.OccurredAt)
	if err != nil {
		return call{}, false, fmt.Errorf("looking for the call that an event reports back: %w", err)
	}
	var (
		best  call
		found bool
	)
	for _, id := range candidates {
		c, ok, err := i.loadCall(ctx, id)
		if err != nil {
			return call{}, false, err
		}
		if !ok || !c.reportedBy(d, p) {
			continue
		}
		// Of several, the one closest in time.
		if !found || c.closer(best, d.OccurredAt) {
			best, found = c, true
		}
	}
	best.matchedBy = matchedByPath
	if found && best.intent.Method+" "+best.intent.URLTemplate == http.MethodDelete+" "+userURL {
		best.matchedBy = matchedByDelete
	}
	return best, found, nil
}

// closer reports that the event of a moment is rather c's than the other's. Of two that
// are as close, it is that of the one that is known to have been done.
func (c call) closer(other call, moment time.Time) bool {
	if a, b := c.away(moment), other.away(moment); a != b {
		return a < b
	}
	return c.outcome == adapter.TypeApiCallSucceeded && other.outcome != adapter.TypeApiCallSucceeded
}

// away is how far a moment lies from when a write of the call was under way. Of a call
// of which no write is recorded yet it is how far it lies from the intent: a process
// that dies may have sent one.
func (c call) away(moment time.Time) time.Duration {
	if len(c.writes) == 0 {
		return moment.Sub(c.requested.OccurredAt).Abs()
	}
	least := time.Duration(math.MaxInt64)
	for _, w := range c.writes {
		// Keycloak cuts the time to milliseconds.
		least = min(least, max(w.from.Sub(moment.Add(time.Millisecond)), moment.Sub(w.to), 0))
	}
	return least
}

// reportedBy reports whether the event can be the call's echo, given that it is at the
// call's address.
func (c call) reportedBy(d adapter.Decoded, p *adapter.AdminEventReceived) bool {
	switch c.outcome {
	case adapter.TypeApiCallSkipped:
		return false
	case adapter.TypeApiCallFailed:
		// Only a stamp proves that a call which counts as failed was done after all.
		return false
	}
	if len(c.echoes) > 0 && !c.echoedBy(d) {
		return false
	}
	// What was read before the write is recorded before it goes out, since the write
	// carries no stamp: without it, the call has done nothing yet.
	if c.outcome == "" && c.reads == 0 {
		return false
	}
	if c.serviceAccount != "" && c.serviceAccount != d.Meta.Actor.ID {
		return false
	}
	// Who joined an organization is told by name alone (26.7.3).
	if keycloak.ParseResourcePath(p.ResourcePath).UserID == "" {
		name := p.Details["username"]
		return name != "" && strings.EqualFold(name, c.username)
	}
	return true
}

// callIndex finds recent unstamped calls by their address. It reads the log's intents
// by minutes, each once, and keeps a bounded number of minutes. The zero value is
// ready, and safe for concurrent use.
type callIndex struct {
	mu      sync.Mutex
	minutes map[time.Time]*callMinute
}

// callMinute are the unstamped calls that were requested, or whose user was found, in
// one minute.
type callMinute struct {
	calls map[address][]uuid.UUID
	after eventstore.Position
	// complete is true once the minute is over, for every process that writes.
	complete bool
	used     time.Time
}

const (
	// maxMinutes bounds the index. A window has 31.
	maxMinutes = 128
	// minuteSlack is how long after its end a minute may still get events.
	minuteSlack = time.Minute
)

// find returns the calls at an address that were recorded within the window around at.
func (x *callIndex) find(ctx context.Context, i *Interpreter, want address, at time.Time) ([]uuid.UUID, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := i.Clock()
	var calls []uuid.UUID
	seen := make(map[uuid.UUID]bool)
	last := at.Add(matchWindow)
	if now.Add(minuteSlack).Before(last) {
		last = now.Add(minuteSlack)
	}
	for m := at.Add(-matchWindow).UTC().Truncate(time.Minute); !m.After(last); m = m.Add(time.Minute) {
		minute, err := x.read(ctx, i, m, now)
		if err != nil {
			return nil, err
		}
		for _, id := range minute.calls[want] {
			if !seen[id] {
				seen[id] = true
				calls = append(calls, id)
			}
		}
	}
	x.evict()
	return calls, nil
}

// read brings one minute up to date.
func (x *callIndex) read(ctx context.Context, i *Interpreter, start, now time.Time) (*callMinute, error) {
	minute := x.minutes[start]
	if minute == nil {
		minute = &callMinute{calls: make(map[address][]uuid.UUID)}
	}
	minute.used = now
	if minute.complete {
		return minute, nil
	}
	end := start.Add(time.Minute)
	query := eventstore.LogQuery{
		Types: []string{adapter.TypeApiCallRequested, adapter.TypeApiCallPreconditionRead},
		After: minute.after, RecordedFrom: start, RecordedTo: end,
	}
	for e, err := range i.Store.ReadLog(ctx, query) {
		if err != nil {
			return nil, err
		}
		if err := x.add(ctx, i, minute, e); err != nil {
			return nil, err
		}
		minute.after = e.Position
	}
	minute.complete = now.After(end.Add(minuteSlack))
	if x.minutes == nil {
		x.minutes = make(map[time.Time]*callMinute)
	}
	x.minutes[start] = minute
	return minute, nil
}

func (x *callIndex) add(ctx context.Context, i *Interpreter, minute *callMinute, e eventstore.Event) error {
	d, err := i.Codec.Decode(ctx, e)
	if err != nil {
		return err
	}
	var id uuid.UUID
	var at address
	var ok bool
	switch p := d.Payload.(type) {
	case *adapter.ApiCallRequested:
		id = p.CallID
		at, ok = addressOf(p, p.UserID)
	case *adapter.ApiCallPreconditionRead:
		// A call that names its user, or a group by its path, has an address once both were
		// found.
		if (p.UserID == "" || p.URLTemplate == userURL) && len(p.Params) == 0 {
			return nil
		}
		c, loaded, err := i.loadCall(ctx, p.CallID)
		if err != nil {
			return err
		}
		if loaded && (c.intent.UserID == "" || len(p.Params) > 0) {
			id = p.CallID
			at, ok = addressOf(c.intent, c.userID)
		}
	}
	if ok {
		minute.calls[at] = append(minute.calls[at], id)
	}
	return nil
}

// evict drops the minutes that were not asked for longest.
func (x *callIndex) evict() {
	for len(x.minutes) > maxMinutes {
		var oldest time.Time
		first := true
		for start, m := range x.minutes {
			if o := x.minutes[oldest]; first || m.used.Before(o.used) || (m.used.Equal(o.used) && start.Before(oldest)) {
				oldest, first = start, false
			}
		}
		delete(x.minutes, oldest)
	}
}
