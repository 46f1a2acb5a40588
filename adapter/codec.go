package adapter

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
)

// payloadSchema is the version of the payloads' shape, in the metadata of every
// event from the first. It rises with a change that needs an upcaster.
const payloadSchema = 1

// Payload is the data of a domain event.
type Payload interface {
	EventType() string
}

// Metadata is what every event says about its origin.
type Metadata struct {
	Schema int `json:"schema"`
	// Interpreter is the version of the code that derived the event, 0 for facts.
	Interpreter   int        `json:"interpreter,omitempty"`
	CorrelationID uuid.UUID  `json:"correlation_id"`
	CausationID   *uuid.UUID `json:"causation_id,omitempty"`
	Actor         *Actor     `json:"actor,omitempty" seal:"actor"`
	Reason        string     `json:"reason,omitempty"`
	Source        string     `json:"source,omitempty"`
	Traceparent   string     `json:"traceparent,omitempty"`
	// CallID is the outbound call through which the event came about.
	CallID *uuid.UUID `json:"call_id,omitempty"`
	// Links are further causes, so that the graph of causes is a DAG.
	Links []Link `json:"links,omitempty"`
}

// Link is a further cause.
type Link struct {
	EventID uuid.UUID `json:"event_id"`
	// Relation is "echo", "batch" or "merge".
	Relation string `json:"relation"`
}

// Draft is an event about to be encoded.
type Draft struct {
	// ID defaults to a new one.
	ID      uuid.UUID
	Payload Payload
	// OccurredAt is when it happened.
	OccurredAt time.Time
	Meta       Metadata
	RawBody    *eventstore.RawBody
}

// Codec turns payloads into stored events and back. It is the one place where
// personal fields and raw bodies pass the seal. It is safe for concurrent use.
type Codec struct {
	sealer seal.Sealer
}

// NewCodec returns a codec that seals with s.
func NewCodec(s seal.Sealer) *Codec { return &Codec{sealer: s} }

// Encode makes the stored form of d.
func (c *Codec) Encode(ctx context.Context, d Draft) (eventstore.NewEvent, error) {
	id := d.ID
	if id == uuid.Nil {
		id = eventstore.NewID()
	}
	d.Meta.Schema = payloadSchema
	person := subjectOf(d.Payload)
	data, err := seal.Marshal(ctx, c.forActor(d.Meta.Actor), person, d.Payload)
	if err != nil {
		return eventstore.NewEvent{}, fmt.Errorf("encoding %s: %w", d.Payload.EventType(), err)
	}
	meta, err := seal.Marshal(ctx, c.forActor(d.Meta.Actor), person, d.Meta)
	if err != nil {
		return eventstore.NewEvent{}, fmt.Errorf("encoding the metadata of %s: %w", d.Payload.EventType(), err)
	}
	e := eventstore.NewEvent{
		ID: id, Type: d.Payload.EventType(), Data: data, Metadata: meta,
		CorrelationID: d.Meta.CorrelationID, OccurredAt: d.OccurredAt,
	}
	if d.Meta.CausationID != nil {
		e.CausationID = *d.Meta.CausationID
	}
	if d.RawBody != nil {
		sealed, err := c.sealer.SealBody(ctx, person, d.RawBody.Bytes)
		if err != nil {
			return eventstore.NewEvent{}, fmt.Errorf("sealing the body of %s: %w", d.Payload.EventType(), err)
		}
		e.RawBody = &eventstore.RawBody{ContentType: d.RawBody.ContentType, Bytes: sealed}
	}
	return e, nil
}

// Decoded is a stored event with its payload and metadata read.
type Decoded struct {
	eventstore.Event
	// Payload is a pointer to the payload type, nil where this program does not know
	// the event's type.
	Payload Payload
	Meta    Metadata
	// Forgotten names members whose key is gone.
	Forgotten []string
}

// Decode reads a stored event. An event of an unknown type has no payload and is no
// error: a newer program may have written it.
func (c *Codec) Decode(ctx context.Context, e eventstore.Event) (Decoded, error) {
	d := Decoded{Event: e}
	forgotten, err := seal.Unmarshal(ctx, c.sealer, seal.Person{}, e.Metadata, &d.Meta)
	if err != nil {
		return d, fmt.Errorf("decoding the metadata of event %s: %w", e.ID, err)
	}
	d.Forgotten = forgotten
	make, ok := payloads[e.Type]
	if !ok {
		return d, nil
	}
	p := make()
	forgotten, err = seal.Unmarshal(ctx, c.sealer, personOfStream(e.Stream), e.Data, p)
	if err != nil {
		return d, fmt.Errorf("decoding event %s (%s): %w", e.ID, e.Type, err)
	}
	d.Payload = p
	d.Forgotten = append(d.Forgotten, forgotten...)
	return d, nil
}

// OpenBody returns the raw body kept beside an event, unsealed.
func (c *Codec) OpenBody(ctx context.Context, stream eventstore.StreamID, b eventstore.RawBody) ([]byte, error) {
	return c.sealer.OpenBody(ctx, personOfStream(stream), b.Bytes)
}

// View is an event as the API and the command line show it.
type View struct {
	EventID       uuid.UUID           `json:"event_id"`
	EventType     string              `json:"event_type"`
	Stream        string              `json:"stream"`
	Version       eventstore.Version  `json:"version"`
	Position      eventstore.Position `json:"position"`
	OccurredAt    time.Time           `json:"occurred_at"`
	RecordedAt    time.Time           `json:"recorded_at"`
	CorrelationID uuid.UUID           `json:"correlation_id"`
	CausationID   *uuid.UUID          `json:"causation_id"`
	Actor         *Actor              `json:"actor"`
	Reason        string              `json:"reason"`
	Data          any                 `json:"data"`
	Metadata      Metadata            `json:"metadata"`
	Forgotten     []string            `json:"forgotten,omitempty"`
}

// View returns the event in its outside form.
func (d Decoded) View() View {
	v := View{
		EventID: d.ID, EventType: d.Type, Stream: d.Stream.String(), Version: d.Version, Position: d.Position,
		OccurredAt: d.OccurredAt, RecordedAt: d.RecordedAt, CorrelationID: d.CorrelationID,
		CausationID: d.Meta.CausationID, Actor: d.Meta.Actor, Reason: d.Meta.Reason,
		Metadata: d.Meta, Forgotten: d.Forgotten,
	}
	if d.Payload != nil {
		v.Data = d.Payload
	} else {
		v.Data = d.Data
	}
	return v
}

// payloads makes an empty payload of each type.
var payloads = map[string]func() Payload{
	TypeAdminEventReceived:        func() Payload { return new(AdminEventReceived) },
	TypeUserEventReceived:         func() Payload { return new(UserEventReceived) },
	TypeUnrecognizedEventReceived: func() Payload { return new(UnrecognizedEventReceived) },
	TypeDeliveryConfirmed:         func() Payload { return new(DeliveryConfirmed) },
	TypeDeliveryParked:            func() Payload { return new(DeliveryParked) },
	TypeDeliveryReleased:          func() Payload { return new(DeliveryReleased) },

	TypeUserApiCreated:                  func() Payload { return new(UserApiCreated) },
	TypeUserApiUpdated:                  func() Payload { return new(UserApiUpdated) },
	TypeUserApiEnabled:                  func() Payload { return new(UserApiEnabled) },
	TypeUserApiDisabled:                 func() Payload { return new(UserApiDisabled) },
	TypeUserApiDeleted:                  func() Payload { return new(UserApiDeleted) },
	TypeUserApiRolesChanged:             func() Payload { return new(UserApiRolesChanged) },
	TypeUserApiGroupsChanged:            func() Payload { return new(UserApiGroupsChanged) },
	TypeUserApiCredentialsChanged:       func() Payload { return new(UserApiCredentialsChanged) },
	TypeUserApiFederatedIdentityChanged: func() Payload { return new(UserApiFederatedIdentityChanged) },
	TypeUserApiOrganizationsChanged:     func() Payload { return new(UserApiOrganizationsChanged) },
	TypeUserApiSessionsEnded:            func() Payload { return new(UserApiSessionsEnded) },
	TypeUserApiEmailRequested:           func() Payload { return new(UserApiEmailRequested) },
	TypeUserApiObserved:                 func() Payload { return new(UserApiObserved) },
	TypeUserApiBaselined:                func() Payload { return new(UserApiBaselined) },

	TypeApiCallRequested:        func() Payload { return new(ApiCallRequested) },
	TypeApiCallPreconditionRead: func() Payload { return new(ApiCallPreconditionRead) },
	TypeApiCallAttempted:        func() Payload { return new(ApiCallAttempted) },
	TypeApiCallSucceeded:        func() Payload { return new(ApiCallSucceeded) },
	TypeApiCallFailed:           func() Payload { return new(ApiCallFailed) },
	TypeApiCallSkipped:          func() Payload { return new(ApiCallSkipped) },
	TypeApiCallOutcomeUnknown:   func() Payload { return new(ApiCallOutcomeUnknown) },
	TypeApiCallEchoed:           func() Payload { return new(ApiCallEchoed) },

	TypeReconciliationStarted:   func() Payload { return new(ReconciliationStarted) },
	TypeDriftDetected:           func() Payload { return new(DriftDetected) },
	TypeReconciliationCompleted: func() Payload { return new(ReconciliationCompleted) },
	TypeReconciliationAborted:   func() Payload { return new(ReconciliationAborted) },
}

// groupActor is the field group of actors, sealed under the actor's own key: the
// subject's erasure does not erase who acted, nor the other way round.
const groupActor seal.Group = "actor"

// actorSealer seals the group "actor" under the actor's key and the others under
// the subject's.
type actorSealer struct {
	seal.Sealer
	actor seal.Person
}

func (s actorSealer) Seal(ctx context.Context, p seal.Person, g seal.Group, plain []byte) ([]byte, error) {
	if g == groupActor {
		p = s.actor
	}
	return s.Sealer.Seal(ctx, p, g, plain)
}

func (c *Codec) forActor(a *Actor) seal.Sealer {
	if a == nil {
		return c.sealer
	}
	return actorSealer{Sealer: c.sealer, actor: seal.Person{ID: a.ID}}
}

// Subject is implemented by payloads that are about a person but are not on that
// user's stream.
type Subject interface {
	Subject() UserRef
}

func subjectOf(p Payload) seal.Person {
	var ref UserRef
	switch p := p.(type) {
	case UserPayload:
		ref = p.User()
	case Subject:
		ref = p.Subject()
	}
	return seal.Person{Realm: ref.Realm, ID: ref.UserID}
}

// personOfStream is the person that a user's stream is about. For other streams the
// sealed value itself must say under whose key it lies.
func personOfStream(s eventstore.StreamID) seal.Person {
	realm, id, err := UserOfStream(s)
	if err != nil {
		return seal.Person{}
	}
	return seal.Person{Realm: realm, ID: id}
}

// Subject implements Subject.
func (p *ApiCallRequested) Subject() UserRef { return UserRef{Realm: p.Realm, UserID: p.UserID} }

// Subject implements Subject.
func (p *DriftDetected) Subject() UserRef { return UserRef{Realm: p.Realm, UserID: p.UserID} }

// Subject implements Subject.
func (p *AdminEventReceived) Subject() UserRef { return UserRef{Realm: p.Realm, UserID: p.UserID} }

// Subject implements Subject.
func (p *UserEventReceived) Subject() UserRef { return UserRef{Realm: p.Realm, UserID: p.UserID} }

var (
	_ UserPayload = (*UserApiCreated)(nil)
	_ UserPayload = (*UserApiObserved)(nil)
	_ Subject     = (*DriftDetected)(nil)
)

// ReadStream reads and decodes a whole stream, oldest first. A stream that does not
// exist has no events.
func (c *Codec) ReadStream(ctx context.Context, r eventstore.Reader, s eventstore.StreamID) ([]Decoded, error) {
	var events []Decoded
	for e, err := range r.ReadStream(ctx, s, eventstore.StreamQuery{}) {
		if err != nil {
			return nil, fmt.Errorf("reading stream %s: %w", s, err)
		}
		d, err := c.Decode(ctx, e)
		if err != nil {
			return nil, err
		}
		events = append(events, d)
	}
	return events, nil
}
