// Package inbound records what Keycloak reports: pushed by webhooks, pulled by the
// poller. Both ways end in one Recorder, so that the same Keycloak event is one
// delivery, however often and from wherever it arrives.
package inbound

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// SourcePoll is the source of what the poller brings.
const SourcePoll = "poll"

// Store is what the recorder needs of the event store.
type Store interface {
	eventstore.Appender
	eventstore.Reader
}

// Recorder turns deliveries into events. It is safe for concurrent use, also by
// several processes on one store.
type Recorder struct {
	Store Store
	Codec *adapter.Codec
	Clock func() time.Time
	// RealmName resolves a realm's UUID where an event has only that. It may be nil,
	// and answers "" for what it does not know.
	RealmName func(realmID string) string
	// Observe is told of each delivery: kind "admin", "user" or "unrecognized";
	// outcome "recorded", "duplicate" or "confirmed". It may be nil.
	Observe func(source, kind, outcome string)

	// recording is held, shared, from before a realm's name is asked for until the
	// delivery is committed, and exclusively by a pull without ids.
	recording sync.RWMutex
	// pulling guards known. It is taken before recording.
	pulling sync.Mutex
	known   sightings
	// listsIDs says that what the server lists has ids.
	listsIDs     atomic.Bool
	pulledRealms pulledRealms
	actors       actors
}

// Origin says where deliveries come from.
type Origin struct {
	// Source is the configured source's name, or SourcePoll.
	Source string
	// Realm is the realm's name where the body has none.
	Realm string
	// CorrelationID and Traceparent came with the request; uuid.Nil makes each
	// delivery a story of its own.
	CorrelationID uuid.UUID
	Traceparent   string
}

// Receipt says what became of one delivery.
type Receipt struct {
	// DeliveryID is the delivery's stream, EventID the event that recorded it first.
	DeliveryID      uuid.UUID `json:"delivery_id"`
	EventID         uuid.UUID `json:"event_id"`
	KeycloakEventID string    `json:"keycloak_event_id"`
	CorrelationID   uuid.UUID `json:"correlation_id"`
	Duplicate       bool      `json:"duplicate"`
}

// maxConflicts bounds how often a batch is tried again because somebody else was
// recording the same events at that moment. Each try finds at least one of them
// recorded, so more tries than this mean a fault.
const maxConflicts = 20

// Record stores a batch in one transaction and returns a receipt for each, in
// order, once it is durable. A delivery that is recorded already gets the first
// one's receipt; what the new sighting adds is recorded as DeliveryConfirmed.
//
// Errors are the store's (eventstore.ErrUnavailable: nothing was recorded, try
// again) and the context's.
func (r *Recorder) Record(ctx context.Context, from Origin, batch []webhook.Delivery) ([]Receipt, error) {
	if from.Source == SourcePoll && slices.ContainsFunc(batch, lacksID) {
		return r.recordPull(ctx, from, batch)
	}
	r.recording.RLock()
	defer r.recording.RUnlock()
	arrivals, err := r.arriveAll(ctx, from, batch)
	if err != nil {
		return nil, err
	}
	return r.recordAll(ctx, from, arrivals)
}

// lacksID reports an event that only its content identifies.
func lacksID(d webhook.Delivery) bool { return d.KeycloakEventID() == "" && !timeOf(d).IsZero() }

// recordPull records a pull without ids. Nothing else is recorded meanwhile that could
// be the same events.
func (r *Recorder) recordPull(ctx context.Context, from Origin, batch []webhook.Delivery) ([]Receipt, error) {
	r.listsIDs.Store(false)
	arrivals, err := r.arriveAll(ctx, from, batch)
	if err != nil {
		return nil, err
	}
	r.pulling.Lock()
	defer r.pulling.Unlock()
	// Most of the reading is done while others still record.
	oldest, _ := oldestWithoutID(arrivals)
	if err := r.known.update(ctx, r, oldest); err != nil {
		return nil, err
	}
	r.recording.Lock()
	defer r.recording.Unlock()
	return r.recordAll(ctx, from, arrivals)
}

func (r *Recorder) arriveAll(ctx context.Context, from Origin, batch []webhook.Delivery) ([]arrival, error) {
	arrivals := make([]arrival, len(batch))
	times := map[string]int{}
	for i, d := range batch {
		a, err := r.arrive(ctx, from, d, times)
		if err != nil {
			return nil, err
		}
		arrivals[i] = a
	}
	return arrivals, nil
}

func (r *Recorder) recordAll(ctx context.Context, from Origin, arrivals []arrival) ([]Receipt, error) {
	for range maxConflicts {
		receipts, err := r.record(ctx, from, arrivals)
		var conflict *eventstore.ConflictError
		if errors.As(err, &conflict) {
			continue
		}
		return receipts, err
	}
	return nil, fmt.Errorf("recording %d deliveries: conflicts without end: %w", len(arrivals), eventstore.ErrUnavailable)
}

// arrival is one delivery, ready to be appended.
type arrival struct {
	delivery webhook.Delivery
	// own is the stream that the delivery's key names, stream the one that has it: they
	// differ where it was merged by its content.
	own, stream eventstore.StreamID
	key         string // without the number of equal ones
	// contentKeys are those of a pull without ids of the same event.
	contentKeys []string
	payload     adapter.Payload
	event       eventstore.NewEvent
	receipt     adapter.Receipt
	keycloak    string
	// twin is true where an earlier arrival of the same batch has the same key.
	twin bool
}

func (r *Recorder) record(ctx context.Context, from Origin, arrivals []arrival) ([]Receipt, error) {
	known, err := r.find(ctx, from, arrivals)
	if err != nil {
		return nil, err
	}

	firsts := make(map[eventstore.StreamID]int, len(arrivals))
	confirmed := make(map[eventstore.StreamID]bool)
	receipts := make([]Receipt, len(arrivals))
	outcomes := make([]string, len(arrivals))
	var appends []eventstore.StreamAppend
	for i, a := range arrivals {
		version, duplicate := known[a.stream.AggregateID()]
		switch {
		case a.twin:
			outcomes[i] = "duplicate"
			receipts[i] = receipts[firsts[a.own]]
			receipts[i].Duplicate = true
			continue
		case duplicate:
			receipt, confirmation, err := r.again(ctx, from, a, version)
			if err != nil {
				return nil, err
			}
			receipts[i], outcomes[i] = receipt, "duplicate"
			if confirmation != nil && !confirmed[a.stream] {
				confirmed[a.stream] = true
				appends = append(appends, *confirmation)
				outcomes[i] = "confirmed"
			}
		default:
			receipts[i] = Receipt{
				DeliveryID: a.stream.AggregateID(), EventID: a.event.ID,
				KeycloakEventID: a.keycloak, CorrelationID: a.event.CorrelationID,
			}
			outcomes[i] = "recorded"
			appends = append(appends, eventstore.StreamAppend{
				Stream: a.stream, Expected: eventstore.ExpectNone(), Events: []eventstore.NewEvent{a.event},
			})
		}
		firsts[a.own] = i
	}
	if len(appends) > 0 {
		if _, err := r.Store.Append(ctx, appends...); err != nil {
			return nil, fmt.Errorf("recording deliveries: %w", err)
		}
	}
	if r.Observe != nil {
		for i, a := range arrivals {
			r.Observe(from.Source, string(a.delivery.Kind), outcomes[i])
		}
	}
	return receipts, nil
}

// find gives each arrival the stream that has it or shall have it, and returns the
// versions of those that exist.
func (r *Recorder) find(ctx context.Context, from Origin, arrivals []arrival) (map[uuid.UUID]eventstore.Version, error) {
	streams := make([]eventstore.StreamID, 0, len(arrivals))
	for i := range arrivals {
		arrivals[i].stream = arrivals[i].own
	}
	if oldest, ok := oldestWithoutID(arrivals); ok && from.Source == SourcePoll {
		if err := r.known.update(ctx, r, oldest); err != nil {
			return nil, err
		}
		r.matchPull(arrivals)
	}
	for _, a := range arrivals {
		streams = append(streams, a.stream)
		for _, key := range a.contentKeys {
			streams = append(streams, adapter.DeliveryStream(key))
		}
	}
	versions, err := r.Store.Versions(ctx, streams...)
	if err != nil {
		return nil, fmt.Errorf("looking for deliveries recorded already: %w", err)
	}
	taken := make(map[eventstore.StreamID]string)
	for i := range arrivals {
		if a := &arrivals[i]; !a.twin && versions[a.own.AggregateID()] == 0 {
			if err := r.matchIdentified(ctx, a, versions, taken); err != nil {
				return nil, err
			}
		}
	}
	return versions, nil
}

// arrive makes the event that a delivery becomes.
func (r *Recorder) arrive(ctx context.Context, from Origin, d webhook.Delivery, times map[string]int) (arrival, error) {
	digest := sha256.Sum256(d.Raw)
	a := arrival{
		delivery: d,
		receipt: adapter.Receipt{
			Source: from.Source, Dialect: cmp.Or(d.Dialect, "unknown"), BodySHA256: hex.EncodeToString(digest[:]),
		},
		keycloak: d.KeycloakEventID(),
	}
	key := boundedKey(a.keycloak)
	if a.keycloak == "" {
		key = fingerprintKey(d)
	} else if !r.listsIDs.Load() {
		a.contentKeys = r.contentKeys(d)
	}
	a.key = key
	times[key]++
	if n := times[key]; n > 1 {
		// Without an id, equal events from one side are a multiset: the same change
		// twice in a millisecond is two events. An unrecognized body has no time to tell
		// two apart by, so equal ones are one.
		if a.keycloak == "" && d.Kind != webhook.KindUnrecognized {
			key = nthKey(key, n)
		} else {
			a.twin = true
		}
	}
	a.own = adapter.DeliveryStream(key)

	now := r.Clock()
	occurredAt := now
	var actor *adapter.Actor
	switch d.Kind {
	case webhook.KindAdmin:
		if from.Source == SourcePoll {
			r.pulledRealms.learn(from.Realm, d.Admin.RealmID)
		}
		p := r.adminEvent(from, d)
		if err := r.actors.name(ctx, r, &p.Actor); err != nil {
			return arrival{}, err
		}
		r.actors.learn(p.Actor)
		p.Receipt = a.receipt
		a.payload, actor, occurredAt = p, &p.Actor, p.Time
	case webhook.KindUser:
		if from.Source == SourcePoll {
			r.pulledRealms.learn(from.Realm, d.User.RealmID)
		}
		p := r.userEvent(from, d)
		p.Receipt = a.receipt
		a.payload, actor, occurredAt = p, &p.Actor, p.Time
	default:
		a.payload = &adapter.UnrecognizedEventReceived{Members: members(d.Raw), Realm: from.Realm, Receipt: a.receipt}
	}
	if occurredAt.IsZero() {
		occurredAt = now
	}
	correlation := from.CorrelationID
	if correlation == uuid.Nil {
		correlation = eventstore.NewID()
	}
	e, err := r.Codec.Encode(ctx, adapter.Draft{
		Payload: a.payload, OccurredAt: occurredAt,
		Meta: adapter.Metadata{
			CorrelationID: correlation, Actor: actor, Source: sourceName(from.Source), Traceparent: from.Traceparent,
		},
		RawBody: &eventstore.RawBody{ContentType: "application/json", Bytes: d.Raw},
	})
	if err != nil {
		return arrival{}, fmt.Errorf("recording a delivery from %s: %w", from.Source, err)
	}
	a.event = e
	return a, nil
}

func sourceName(source string) string {
	if source == SourcePoll {
		return SourcePoll
	}
	return "webhook:" + source
}

// maxKey bounds a delivery's key, in bytes. Keycloak's ids have 36.
const maxKey = 200

func boundedKey(key string) string {
	if len(key) <= maxKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (r *Recorder) realm(from Origin, id, name string) string {
	switch {
	case name != "":
		return name
	case from.Realm != "":
		return from.Realm
	case id == "":
		return ""
	}
	if r.RealmName != nil {
		if name := r.RealmName(id); name != "" {
			return name
		}
	}
	return r.pulledRealms.name(id)
}

func (r *Recorder) adminEvent(from Origin, d webhook.Delivery) *adapter.AdminEventReceived {
	e := d.Admin
	p := &adapter.AdminEventReceived{
		KeycloakEventID: e.ID, UID: e.UID, Time: e.Time,
		Realm: r.realm(from, e.RealmID, e.RealmName), RealmID: e.RealmID,
		OperationType: e.OperationType, ResourceType: e.ResourceType, ResourcePath: e.ResourcePath,
		ResourceID: e.ResourceID, UserID: keycloak.ParseResourcePath(e.ResourcePath).UserID,
		Details: e.Details, Error: e.Error,
		Actor:      adapter.KeycloakActor(e.Auth.UserID, e.Auth.Username, e.Auth.ClientID, e.Auth.IPAddress),
		ActorRealm: cmp.Or(e.Auth.RealmName, e.Auth.RealmID), SessionID: e.Auth.SessionID,
	}
	if e.HasRepresentation {
		// Databases refuse JSON that is nested beyond their stack; such a representation
		// is kept as the text that it came as.
		if json.Valid([]byte(e.Representation)) && !webhook.TooDeep([]byte(e.Representation)) {
			p.Representation = json.RawMessage(e.Representation)
		} else {
			p.RepresentationText = e.Representation
		}
	}
	return p
}

func (r *Recorder) userEvent(from Origin, d webhook.Delivery) *adapter.UserEventReceived {
	e := d.User
	username := cmp.Or(e.Username, e.Details["username"])
	return &adapter.UserEventReceived{
		KeycloakEventID: e.ID, UID: e.UID, Time: e.Time,
		Realm: r.realm(from, e.RealmID, e.RealmName), RealmID: e.RealmID,
		Type: e.Type, ClientID: e.ClientID, UserID: e.UserID, SessionID: e.SessionID,
		Error: e.Error, Details: e.Details,
		Actor: adapter.KeycloakActor(e.UserID, username, e.ClientID, e.IPAddress),
	}
}

// members names the members of a JSON object, sorted and bounded: enough to see what
// kind of body nobody recognised, without its values.
func members(raw json.RawMessage) []string {
	const most, longest = 50, 100
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil {
		return nil
	}
	names := slices.Sorted(maps.Keys(o))
	names = slices.DeleteFunc(names, func(n string) bool { return len(n) > longest })
	return names[:min(len(names), most)]
}
