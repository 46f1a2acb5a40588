package interpret

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// How an echo was matched to its call.
const (
	matchedByStamp  = "stamp"
	matchedByDelete = "delete"
	matchedByPath   = "path"
)

// call is one of our own calls, as far as its echo needs to know it.
type call struct {
	id        uuid.UUID
	requested adapter.Decoded
	// intent is what was to be done, with the variables that reads have settled.
	intent *adapter.ApiCallRequested
	// outcome is the type of the last outcome event, "" while the call is open.
	outcome string
	// userID is the intent's, that of the user whom the fresh read found, or that of the
	// user whom the call created.
	userID, username string
	// serviceAccount is whom Keycloak's events name as the actor of our calls; empty
	// where that was not known.
	serviceAccount string
	attempts       int
	// writes are when attempts that may have reached Keycloak were under way.
	writes []span
	// sent is true where an attempt may have reached Keycloak.
	sent bool
	// version is that of the stream when the call was loaded.
	version eventstore.Version
	// touched is when its newest event was recorded.
	touched time.Time
	// reads is how many precondition reads are recorded.
	reads int
	// echoes are the reports of the call that are recorded, the first one first.
	echoes    []adapter.Echo
	matchedBy string
}

// span is a stretch of time.
type span struct{ from, to time.Time }

// echoedBy reports whether the delivery is recorded as an echo of the call.
func (c call) echoedBy(d adapter.Decoded) bool {
	return slices.ContainsFunc(c.echoes, func(e adapter.Echo) bool { return e.DeliveryEventID == d.ID })
}

// createdUnknown reports a creation that succeeded with an answer that did not tell
// whom: its user event is still to come, with the first echo.
func (c call) createdUnknown() bool {
	return c.outcome == adapter.TypeApiCallSucceeded && c.userID == "" && len(c.echoes) == 0 &&
		c.intent.Method == http.MethodPost && c.intent.URLTemplate == usersURL
}

// findCall returns the call of ours that a delivery reports back.
func (i *Interpreter) findCall(ctx context.Context, d adapter.Decoded) (call, bool, error) {
	p, ok := d.Payload.(*adapter.AdminEventReceived)
	if !ok {
		return call{}, false, nil
	}
	if id, ok := keycloak.StampOf(string(p.Representation)); ok {
		return i.findStamped(ctx, d, p, uuid.MustParse(id))
	}
	return i.findUnstamped(ctx, d, p)
}

// stamped are the calls whose body carries a stamp, with the event that each causes.
var stamped = map[string]struct {
	resource, operation string
	path                keycloak.PathKind
}{
	http.MethodPost + " " + usersURL:                                      {keycloak.ResourceUser, keycloak.OperationCreate, keycloak.PathUser},
	http.MethodPut + " " + userURL:                                        {keycloak.ResourceUser, keycloak.OperationUpdate, keycloak.PathUser},
	http.MethodPost + " " + userURL + "/role-mappings/realm":              {keycloak.ResourceRealmRoleMapping, keycloak.OperationCreate, keycloak.PathRoleMappingRealm},
	http.MethodDelete + " " + userURL + "/role-mappings/realm":            {keycloak.ResourceRealmRoleMapping, keycloak.OperationDelete, keycloak.PathRoleMappingRealm},
	http.MethodPost + " " + userURL + "/role-mappings/clients/{client}":   {keycloak.ResourceClientRoleMapping, keycloak.OperationCreate, keycloak.PathRoleMappingClient},
	http.MethodDelete + " " + userURL + "/role-mappings/clients/{client}": {keycloak.ResourceClientRoleMapping, keycloak.OperationDelete, keycloak.PathRoleMappingClient},
}

// findStamped loads the call that a stamp names. Any administrator can write a
// stamp, and read those of calls that are over, so one that does not fit its call is
// taken for what it is: part of somebody else's change, which is told as such.
func (i *Interpreter) findStamped(ctx context.Context, d adapter.Decoded, p *adapter.AdminEventReceived, id uuid.UUID) (call, bool, error) {
	c, ok, err := i.loadCall(ctx, id)
	if err != nil || !ok {
		return call{}, false, err
	}
	fits := c.stampedBy(d, p)
	if fits && c.serviceAccount == "" && c.outcome != adapter.TypeApiCallSucceeded {
		if fits, err = i.byOurAccount(ctx, d); err != nil {
			return call{}, false, err
		}
	}
	if fits && len(c.echoes) > 0 && !c.echoedBy(d) {
		// A write that was repeated may be done more than once, and one event may arrive as
		// two deliveries: but always the same change.
		if fits, err = i.sameChange(ctx, c.echoes[0], p); err != nil {
			return call{}, false, err
		}
	}
	if !fits {
		i.Logger.WarnContext(ctx, "stamp does not fit its call", "call_id", id, "delivery_event_id", d.ID, "realm", p.Realm, "resource_path", p.ResourcePath)
		return call{}, false, nil
	}
	c.matchedBy = matchedByStamp
	return c, true, nil
}

// stampedBy reports whether an event that carries the call's stamp can be its echo.
func (c call) stampedBy(d adapter.Decoded, p *adapter.AdminEventReceived) bool {
	want, ok := stamped[c.intent.Method+" "+c.intent.URLTemplate]
	path := keycloak.ParseResourcePath(p.ResourcePath)
	switch {
	case !ok || p.Realm != c.intent.Realm || p.ResourceType != want.resource || p.OperationType != want.operation || path.Kind != want.path:
		return false
	case c.userID != "" && c.userID != path.UserID:
		return false
	case d.OccurredAt.Sub(c.requested.OccurredAt).Abs() > matchWindow:
		return false
	case c.outcome == adapter.TypeApiCallSkipped, c.outcome == adapter.TypeApiCallFailed && !c.sent:
		return false // nothing of the call has reached Keycloak
	case c.serviceAccount != "" && d.Meta.Actor != nil && d.Meta.Actor.ID != "":
		return d.Meta.Actor.ID == c.serviceAccount
	default:
		return mayBeUs(d.Meta.Actor) && c.asked(p.Representation)
	}
}

// mayBeUs reports an actor who is no person, as far as the event tells. We work as a
// service account; a pulled event tells no name.
func mayBeUs(actor *adapter.Actor) bool {
	return actor == nil || actor.Username == "" || actor.Type == adapter.ActorServiceAccount
}

// accountReads is how many reads are looked through for the newest that tells our
// service account; each does, but where Keycloak's tokens have no subject.
const accountReads = 10

// byOurAccount reports whether the actor is whom we were the last time that it was told.
// It decides where the call itself does not tell, because it has no outcome yet, or none
// that names the user: a copied stamp must not settle it.
func (i *Interpreter) byOurAccount(ctx context.Context, d adapter.Decoded) (bool, error) {
	if d.Meta.Actor == nil || d.Meta.Actor.ID == "" {
		return true, nil
	}
	query := eventstore.LogQuery{Types: []string{adapter.TypeApiCallPreconditionRead}, Backward: true, Limit: accountReads}
	for e, err := range i.Store.ReadLog(ctx, query) {
		if err != nil {
			return false, err
		}
		read, err := i.Codec.Decode(ctx, e)
		if err != nil {
			return false, err
		}
		if p, ok := read.Payload.(*adapter.ApiCallPreconditionRead); ok && p.ServiceAccountID != "" {
			return p.ServiceAccountID == d.Meta.Actor.ID, nil
		}
	}
	return true, nil
}

// asked reports whether a representation holds what the call asks for: of a user all
// that the intent has, of roles none but those that the intent has. It decides where
// nothing tells who made the change.
func (c call) asked(representation json.RawMessage) bool {
	if want, err := parseRoles(c.intent.Body, ""); err == nil {
		have, err := parseRoles(representation, "")
		return err == nil && !slices.ContainsFunc(have, func(r adapter.Role) bool {
			return !slices.ContainsFunc(want, func(w adapter.Role) bool { return w.Name == r.Name })
		})
	}
	want, err := parseUser(c.intent.Body)
	have, err2 := parseUser(representation)
	if err != nil || err2 != nil {
		return false
	}
	for name, value := range want.fields {
		switch name {
		case "self", "attributes": // what was asked is merged into what the user has
		case "username": // a realm may use the e-mail address instead
			if !sameJSON(value, have.fields[name]) && !sameJSON(have.fields["email"], have.fields[name]) {
				return false
			}
		default:
			if !sameJSON(value, have.fields[name]) {
				return false
			}
		}
	}
	return true
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// sameChange reports whether an event tells the same change as an earlier echo: the
// same request of the same actor.
func (i *Interpreter) sameChange(ctx context.Context, earlier adapter.Echo, p *adapter.AdminEventReceived) (bool, error) {
	d, err := i.deliveryOf(ctx, earlier.DeliveryEventID)
	if err != nil {
		return false, err
	}
	q, ok := d.Payload.(*adapter.AdminEventReceived)
	return ok && q.Realm == p.Realm && q.ResourceType == p.ResourceType && q.OperationType == p.OperationType &&
		q.ResourcePath == p.ResourcePath && (q.Actor.ID == p.Actor.ID || q.Actor.ID == "" || p.Actor.ID == "") &&
		sameJSON(q.Representation, p.Representation), nil
}

func (i *Interpreter) loadCall(ctx context.Context, id uuid.UUID) (call, bool, error) {
	events, err := i.Codec.ReadStream(ctx, i.Store, adapter.CallStream(id))
	if err != nil || len(events) == 0 {
		return call{}, false, err
	}
	intent, ok := events[0].Payload.(*adapter.ApiCallRequested)
	if !ok {
		return call{}, false, nil
	}
	c := call{id: id, requested: events[0], intent: intent, userID: intent.UserID, username: intent.Username, version: events[0].Version, touched: events[0].RecordedAt}
	for _, e := range events[1:] {
		c.version, c.touched = e.Version, e.RecordedAt
		switch p := e.Payload.(type) {
		case *adapter.ApiCallPreconditionRead:
			c.userID = cmp.Or(c.userID, p.UserID)
			c.username = cmp.Or(p.Username, c.username)
			c.serviceAccount = cmp.Or(p.ServiceAccountID, c.serviceAccount)
			c.reads++
			if len(p.Params) > 0 {
				settled := *c.intent
				settled.Params = p.Settle(settled.Params)
				c.intent = &settled
			}
		case *adapter.ApiCallAttempted:
			c.attempts++
			c.sent = c.sent || p.Sent
			if p.Sent {
				took := time.Duration(p.DurationMS * float64(time.Millisecond))
				c.writes = append(c.writes, span{p.StartedAt, p.StartedAt.Add(took)})
			}
		case *adapter.ApiCallSucceeded:
			c.userID = cmp.Or(c.userID, p.UserID)
		case *adapter.ApiCallEchoed:
			c.echoes = append(c.echoes, p.Echo)
		}
		switch e.Type {
		case adapter.TypeApiCallSucceeded, adapter.TypeApiCallFailed, adapter.TypeApiCallSkipped, adapter.TypeApiCallOutcomeUnknown:
			c.outcome = e.Type
		}
	}
	return c, true, nil
}

// writerTime is how long the writer of an open call is left to record the outcome
// itself, from the newest event of the call on: the repetitions of a write, five
// attempts of 30 s with pauses of 5 s, and the 30 s that it waits for the store take 200 s.
const writerTime = 5 * time.Minute

// abandoned reports an open call whose writer has had time enough: its process died, or
// the store was away for longer than it waits.
func (i *Interpreter) abandoned(c call) bool {
	return c.outcome == "" && i.Clock().Sub(c.touched) >= writerTime
}

// recordEcho links a delivery to the call that it reports back.
//
// A call that succeeded, or is still under way, appends its user event itself, and
// the echo adds none. A call whose answer was lost, or whose writer died before it
// recorded the outcome, is proved by its echo: it has succeeded, and its user event
// follows from here. A call that counts as failed was done after all: the change is
// real and told as such.
//
// A call's change is told on the user's stream once. The invariant behind it: whoever
// appends that user event appends ApiCallSucceeded in the same transaction, at the
// version of the call's stream at which it saw no ApiCallSucceeded; or, where that one
// could not tell who was created, the first ApiCallEchoed, at a version at which it saw
// none. Of two that race, the live writer, this consumer in any process, or the Settler,
// the store refuses the second, which reads the stream again and finds the first. So writerTime decides who
// tells the change, which the writer does better, and never how often it is told. A
// repetition after a crash has the same derived ids, and appends nothing new.
func (i *Interpreter) recordEcho(ctx context.Context, d adapter.Decoded, c call, change adapter.UserPayload) error {
	for {
		err := i.recordEchoAt(ctx, d, c, change)
		var conflict *eventstore.ConflictError
		if !errors.As(err, &conflict) || conflict.Stream != adapter.CallStream(c.id) {
			return err
		}
		// Each conflict is an event more on a stream that ends.
		matchedBy := c.matchedBy
		if c, _, err = i.loadCall(ctx, c.id); err != nil {
			return err
		}
		c.matchedBy = matchedBy
	}
}

// recordEchoAt appends what the echo adds to the call as it was loaded.
func (i *Interpreter) recordEchoAt(ctx context.Context, d adapter.Decoded, c call, change adapter.UserPayload) error {
	onCall := eventstore.StreamAppend{Stream: adapter.CallStream(c.id), Expected: eventstore.ExpectVersion(c.version)}
	cause := d.ID
	if !c.echoedBy(d) {
		echoed, err := i.echoed(ctx, d, c)
		if err != nil {
			return err
		}
		onCall.Events = append(onCall.Events, echoed)
		cause = echoed.ID
	}
	var note string
	switch {
	case c.outcome == adapter.TypeApiCallOutcomeUnknown, c.outcome == adapter.TypeApiCallFailed:
		note = "the answer was lost; Keycloak's own event proves that it was done"
	case i.abandoned(c):
		note = "the outcome was never recorded; Keycloak's own event proves that it was done"
	case len(onCall.Events) == 0:
		return nil
	case c.createdUnknown() && change != nil:
		onUser, err := i.told(ctx, d, c, change, cause)
		if err != nil {
			return err
		}
		return i.append(ctx, onCall, onUser)
	default:
		return i.append(ctx, onCall)
	}
	resolved, err := i.resolved(ctx, d, c, cause, note)
	if err != nil {
		return err
	}
	onCall.Events = append(onCall.Events, resolved)
	change = c.complete(d, change)
	if change == nil {
		return i.append(ctx, onCall)
	}
	onUser, err := i.told(ctx, d, c, change, resolved.ID)
	if err != nil {
		return err
	}
	return i.append(ctx, onCall, onUser)
}

func (i *Interpreter) echoed(ctx context.Context, d adapter.Decoded, c call) (eventstore.NewEvent, error) {
	echo := adapter.Echo{DeliveryEventID: d.ID, OccurredAt: d.OccurredAt, UserID: subjectOf(d), MatchedBy: c.matchedBy}
	if p, ok := d.Payload.(*adapter.AdminEventReceived); ok {
		echo.KeycloakEventID = p.KeycloakEventID
	}
	meta := i.meta(d, c.requested.CorrelationID, d.ID)
	meta.CallID = &c.id
	return i.Codec.Encode(ctx, adapter.Draft{
		ID:      eventstore.DerivedID(d.ID, d.OccurredAt, consumer+".echo", 0),
		Payload: &adapter.ApiCallEchoed{CallID: c.id, Echo: echo}, OccurredAt: d.OccurredAt, Meta: meta,
	})
}

// resolved says that the call has succeeded, as its echo proves.
func (i *Interpreter) resolved(ctx context.Context, d adapter.Decoded, c call, cause uuid.UUID, note string) (eventstore.NewEvent, error) {
	meta := i.meta(d, c.requested.CorrelationID, cause)
	meta.CallID = &c.id
	return i.Codec.Encode(ctx, adapter.Draft{
		ID: eventstore.DerivedID(c.id, d.OccurredAt, consumer+".resolve", 0),
		Payload: &adapter.ApiCallSucceeded{
			CallID: c.id, Attempts: c.attempts, UserID: cmp.Or(subjectOf(d), c.userID), ResolvedBy: "echo", Note: note,
		},
		OccurredAt: d.OccurredAt, Meta: meta,
	})
}

// told makes the user event of a call that its echo tells: the change was ours, so it
// has the command's actor and reason.
func (i *Interpreter) told(ctx context.Context, d adapter.Decoded, c call, change adapter.UserPayload, cause uuid.UUID) (eventstore.StreamAppend, error) {
	viaCommand(change)
	return i.userEvents(ctx, adapter.Decoded{Event: d.Event, Payload: d.Payload, Meta: c.requested.Meta}, []adapter.UserPayload{change}, c.requested.CorrelationID, cause, &c.id)
}

// subjectOf is the id of the user at the path of an admin event, "" where there is none.
func subjectOf(d adapter.Decoded) string {
	if p, ok := d.Payload.(*adapter.AdminEventReceived); ok {
		return keycloak.ParseResourcePath(p.ResourcePath).UserID
	}
	return ""
}

func viaCommand(change adapter.UserPayload) {
	const via = "command"
	switch p := change.(type) {
	case *adapter.UserApiCreated:
		p.Via = via
	case *adapter.UserApiUpdated:
		p.Via = via
	case *adapter.UserApiEnabled:
		p.Via = via
	case *adapter.UserApiDisabled:
		p.Via = via
	case *adapter.UserApiDeleted:
		p.Via = via
	case *adapter.UserApiSessionsEnded:
		p.Via = via
	case *adapter.UserApiEmailRequested:
		p.Via = via
	}
}

// complete adds to a change what the event does not tell and the call's intent does.
func (c call) complete(d adapter.Decoded, change adapter.UserPayload) adapter.UserPayload {
	switch p := change.(type) {
	case *adapter.UserApiCredentialsChanged:
		var asked struct {
			Temporary *bool `json:"temporary"`
		}
		if json.Unmarshal(c.intent.Body, &asked) == nil {
			p.Temporary = asked.Temporary
		}
	case nil:
		event, ok := d.Payload.(*adapter.AdminEventReceived)
		if !ok || c.userID == "" || event.ResourceType != keycloak.ResourceOrganizationMembership || event.OperationType != keycloak.OperationCreate {
			return nil
		}
		return &adapter.UserApiOrganizationsChanged{
			UserRef: adapter.UserRef{Realm: event.Realm, UserID: c.userID},
			Joined:  []adapter.Organization{organizationOf(event)},
		}
	}
	return change
}
