package interpret

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"

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
	intent    *adapter.ApiCallRequested
	// outcome is the type of the last outcome event, "" while the call is open.
	outcome string
	// userID is the intent's, or that of the user whom the fresh read found.
	userID, username string
	// serviceAccount is whom Keycloak's events name as the actor of our calls; empty
	// where that was not known.
	serviceAccount string
	attempts       int
	// version is that of the stream when the call was loaded.
	version eventstore.Version
	// echoedBy is the delivery that reported the call back, uuid.Nil while none has.
	echoedBy  uuid.UUID
	matchedBy string
}

// findCall returns the call of ours that a delivery reports back.
func (i *Interpreter) findCall(ctx context.Context, d adapter.Decoded) (call, bool, error) {
	p, ok := d.Payload.(*adapter.AdminEventReceived)
	if !ok {
		return call{}, false, nil
	}
	if stamped, ok := keycloak.StampOf(string(p.Representation)); ok {
		return i.findStamped(ctx, p, uuid.MustParse(stamped))
	}
	return i.findUnstamped(ctx, d, p)
}

// findStamped loads the call that a stamp names. Any administrator can write a
// stamp, so one that does not fit its call is taken for what it is: part of
// somebody else's change.
func (i *Interpreter) findStamped(ctx context.Context, p *adapter.AdminEventReceived, id uuid.UUID) (call, bool, error) {
	c, ok, err := i.loadCall(ctx, id)
	if err != nil || !ok {
		return call{}, false, err
	}
	path := keycloak.ParseResourcePath(p.ResourcePath)
	if c.intent.Realm != p.Realm || (c.intent.UserID != "" && c.intent.UserID != path.UserID) {
		return call{}, false, nil
	}
	c.matchedBy = matchedByStamp
	return c, true, nil
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
	c := call{id: id, requested: events[0], intent: intent, userID: intent.UserID, username: intent.Username, version: events[0].Version}
	for _, e := range events[1:] {
		c.version = e.Version
		switch p := e.Payload.(type) {
		case *adapter.ApiCallPreconditionRead:
			c.userID = cmp.Or(c.userID, p.UserID)
			c.username = cmp.Or(p.Username, c.username)
			c.serviceAccount = cmp.Or(p.ServiceAccountID, c.serviceAccount)
		case *adapter.ApiCallEchoed:
			c.echoedBy = p.DeliveryEventID
		}
		switch e.Type {
		case adapter.TypeApiCallSucceeded, adapter.TypeApiCallFailed, adapter.TypeApiCallSkipped, adapter.TypeApiCallOutcomeUnknown:
			c.outcome = e.Type
		case adapter.TypeApiCallAttempted:
			c.attempts++
		}
	}
	return c, true, nil
}

// recordEcho links a delivery to the call that it reports back.
//
// A call that succeeded, or is still under way, appends its user event itself, and
// the echo adds none. A call whose answer was lost is proved by its echo: it has
// succeeded, and its user event follows from here. A call that counts as failed was
// done after all: the change is real and told as such.
//
// Which of these it is may be decided at this very moment: the command appends its
// outcome at the version that it knows, and so does this, so that one of the two sees
// what the other has written.
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

func (i *Interpreter) recordEchoAt(ctx context.Context, d adapter.Decoded, c call, change adapter.UserPayload) error {
	keycloakEventID, userID := "", ""
	if p, ok := d.Payload.(*adapter.AdminEventReceived); ok {
		keycloakEventID, userID = p.KeycloakEventID, keycloak.ParseResourcePath(p.ResourcePath).UserID
	}
	meta := i.meta(d, c.requested.CorrelationID, d.ID)
	meta.CallID = &c.id
	echoed, err := i.Codec.Encode(ctx, adapter.Draft{
		ID: eventstore.DerivedID(d.ID, d.OccurredAt, consumer+".echo", 0),
		Payload: &adapter.ApiCallEchoed{CallID: c.id, Echo: adapter.Echo{
			DeliveryEventID: d.ID, KeycloakEventID: keycloakEventID, OccurredAt: d.OccurredAt, UserID: userID, MatchedBy: c.matchedBy,
		}},
		OccurredAt: d.OccurredAt, Meta: meta,
	})
	if err != nil {
		return err
	}
	onCall := eventstore.StreamAppend{
		Stream: adapter.CallStream(c.id), Expected: eventstore.ExpectVersion(c.version), Events: []eventstore.NewEvent{echoed},
	}
	if c.outcome != adapter.TypeApiCallOutcomeUnknown && c.outcome != adapter.TypeApiCallFailed {
		return i.append(ctx, onCall)
	}

	meta = i.meta(d, c.requested.CorrelationID, echoed.ID)
	meta.CallID = &c.id
	resolved, err := i.Codec.Encode(ctx, adapter.Draft{
		ID: eventstore.DerivedID(c.id, d.OccurredAt, consumer+".resolve", 0),
		Payload: &adapter.ApiCallSucceeded{
			CallID: c.id, Attempts: c.attempts, UserID: cmp.Or(userID, c.userID), ResolvedBy: "echo",
			Note: "the answer was lost; Keycloak's own event proves that it was done",
		},
		OccurredAt: d.OccurredAt, Meta: meta,
	})
	if err != nil {
		return err
	}
	onCall.Events = append(onCall.Events, resolved)
	change = c.complete(d, change)
	if change == nil {
		return i.append(ctx, onCall)
	}
	// The change was ours: it is told as the command's, with its actor and reason.
	viaCommand(change)
	onUser, err := i.userEvent(ctx, adapter.Decoded{Event: d.Event, Payload: d.Payload, Meta: c.requested.Meta}, change,
		c.requested.CorrelationID, resolved.ID, &c.id)
	if err != nil {
		return err
	}
	return i.append(ctx, onCall, onUser)
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
