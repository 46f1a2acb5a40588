package inbound

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// What Keycloak before 26.2 lists has no id (measured on 26.1.4), while what its
// senders push has one. Such a pull is merged by its content instead, from both
// sides:
//
//   - A pull without ids is compared with all deliveries that can be the same events,
//     however they came. Of n equal ones it brings, the first n that are recorded are
//     theirs.
//   - A delivery with an id that is not recorded is looked for under the keys by which
//     a pull has recorded it. The first that finds one makes it its own, by a
//     confirmation that holds its id; the next of equal ones takes the next.
//
// Within one process neither can miss the other, because a pull without ids excludes
// other recordings. Two processes may record the same event in the same moment, one
// pushed and one pulled: then it is two deliveries. So it is where the pull came
// first and the sender knows neither an id nor the realm's.
//
// Once a poll has shown that the server lists ids, no delivery is looked for by its
// content.

// content is what push and pull of one event have in common, without the realm and
// without the representation, which realms may not store.
type content struct {
	kind                        string
	millis                      int64
	what, resource, path        string
	actor, client, address, err string
	details                     string
}

// sighting is a recorded delivery as its content is compared.
type sighting struct {
	stream         eventstore.StreamID
	realm, realmID string
	// representation is canonical; "" where there was none.
	representation string
}

// contentOf is a payload's content, and false for what is no event or has no time.
func contentOf(p adapter.Payload) (content, sighting, bool) {
	switch p := p.(type) {
	case *adapter.AdminEventReceived:
		if p.Time.IsZero() {
			break
		}
		return content{
			kind: adapter.TypeAdminEventReceived, millis: p.Time.UnixMilli(),
			what: p.OperationType, resource: p.ResourceType, path: p.ResourcePath,
			actor: p.Actor.ID, client: p.Actor.Client, address: p.Actor.IP, err: p.Error,
		}, sighting{realm: p.Realm, realmID: p.RealmID, representation: representationOf(p)}, true
	case *adapter.UserEventReceived:
		if p.Time.IsZero() {
			break
		}
		return content{
			kind: adapter.TypeUserEventReceived, millis: p.Time.UnixMilli(),
			what: p.Type, actor: p.UserID, client: p.ClientID, address: p.Actor.IP, err: p.Error,
			details: fmt.Sprintf("%q", p.Details), // in the order of the names
		}, sighting{realm: p.Realm, realmID: p.RealmID}, true
	}
	return content{}, sighting{}, false
}

// representationOf is the representation as it is stored, which need not be as it
// came: space between tokens is lost, and some characters are escaped.
func representationOf(p *adapter.AdminEventReceived) string {
	if p.Representation == nil {
		return p.RepresentationText
	}
	canonical, err := json.Marshal(p.Representation)
	if err != nil {
		return string(p.Representation) // it was valid when it was decoded
	}
	return string(canonical)
}

// is reports whether a pull can be of the recorded event s.
func (s sighting) is(pull sighting) bool {
	if s.realmID != "" && pull.realmID != "" {
		if s.realmID != pull.realmID {
			return false
		}
	} else if s.realm != pull.realm {
		return false
	}
	return pull.representation == "" || s.representation == pull.representation
}

// sightings are the recorded deliveries since a time, by their content.
type sightings struct {
	from      time.Time
	after     eventstore.Position
	byContent map[content][]sighting
}

// clockSlack is how far Keycloak's clock may be ahead of the store's.
const clockSlack = 10 * time.Minute

// update reads what was recorded about events at or after the time given, and forgets
// what is older.
func (s *sightings) update(ctx context.Context, r *Recorder, oldest time.Time) error {
	from := oldest.Add(-clockSlack)
	if s.byContent == nil || from.Before(s.from) {
		*s = sightings{from: from, byContent: make(map[content][]sighting)}
	}
	for c := range s.byContent {
		if c.millis < from.UnixMilli() {
			delete(s.byContent, c)
		}
	}
	s.from = from
	query := eventstore.LogQuery{
		After: s.after, RecordedFrom: from, Types: []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived},
	}
	for e, err := range r.Store.ReadLog(ctx, query) {
		if err != nil {
			return fmt.Errorf("looking for deliveries by their content: %w", err)
		}
		s.after = e.Position
		if e.OccurredAt.Before(from) {
			continue
		}
		d, err := r.Codec.Decode(ctx, e)
		if err != nil {
			return err
		}
		if c, found, ok := contentOf(d.Payload); ok {
			found.stream = e.Stream
			s.byContent[c] = append(s.byContent[c], found)
		}
	}
	return nil
}

// oldestWithoutID is when the oldest event happened that has no id, and false where all
// have one.
func oldestWithoutID(arrivals []arrival) (oldest time.Time, ok bool) {
	for i := range arrivals {
		if at := timeOf(arrivals[i].delivery); arrivals[i].unidentified() && (!ok || at.Before(oldest)) {
			oldest, ok = at, true
		}
	}
	return oldest, ok
}

// matchPull gives the arrivals of a pull that have no id the streams under which their
// events are recorded, and to new ones the next free keys.
func (r *Recorder) matchPull(arrivals []arrival) {
	type equal struct {
		content
		sighting
	}
	nth := make(map[equal]int)
	used := make(map[eventstore.StreamID]bool)
	for i := range arrivals {
		a := &arrivals[i]
		if !a.unidentified() {
			continue
		}
		c, pull, _ := contentOf(a.payload)
		recorded := 0
		for _, s := range r.known.byContent[c] {
			used[s.stream] = true
			if s.is(pull) {
				if recorded++; recorded > nth[equal{c, pull}] {
					a.stream = s.stream
					break
				}
			}
		}
		nth[equal{c, pull}]++
		if recorded >= nth[equal{c, pull}] {
			continue
		}
		// No number is left out, so that whoever looks for them finds all.
		for n := 1; ; n++ {
			a.stream = adapter.DeliveryStream(nthKey(a.key, n))
			if !used[a.stream] {
				used[a.stream] = true
				break
			}
		}
	}
}

// unidentified reports an event that nothing but its content tells apart.
func (a *arrival) unidentified() bool {
	return a.keycloak == "" && !timeOf(a.delivery).IsZero()
}

// contentKeys are the keys under which a pull without ids records the same event. A
// realm that does not store representations lists none.
func (r *Recorder) contentKeys(d webhook.Delivery) []string {
	switch {
	case d.Admin != nil:
		e := *d.Admin
		if e.RealmID == "" {
			e.RealmID = r.pulledRealms.id(e.RealmName)
		}
		d.Admin = &e
		keys := []string{fingerprintKey(d)}
		if e.HasRepresentation {
			e.HasRepresentation, e.Representation = false, ""
			keys = append(keys, fingerprintKey(d))
		}
		return keys
	case d.User != nil:
		e := *d.User
		if e.RealmID == "" {
			e.RealmID = r.pulledRealms.id(e.RealmName)
		}
		d.User = &e
		return []string{fingerprintKey(d)}
	}
	return nil
}

func fingerprintKey(d webhook.Delivery) string { return "fp:" + d.Fingerprint() }

// nthKey is the key of the nth of equal events.
func nthKey(key string, n int) string {
	if n == 1 {
		return key
	}
	return fmt.Sprintf("%s#%d", key, n)
}

// matchIdentified gives a the stream under which a pull without ids has recorded its
// event, unless that is another delivery's already. taken are those that others of the
// same batch take.
func (r *Recorder) matchIdentified(ctx context.Context, a *arrival, versions map[uuid.UUID]eventstore.Version, taken map[eventstore.StreamID]string) error {
	for _, key := range a.contentKeys {
		for n := 1; ; n++ {
			stream := adapter.DeliveryStream(nthKey(key, n))
			if n > 1 {
				more, err := r.Store.Versions(ctx, stream)
				if err != nil {
					return fmt.Errorf("looking for deliveries recorded already: %w", err)
				}
				maps.Copy(versions, more)
			}
			if versions[stream.AggregateID()] == 0 {
				break
			}
			owner, ok := taken[stream]
			if !ok {
				var err error
				if owner, err = r.owner(ctx, stream); err != nil {
					return err
				}
			}
			if owner == "" || owner == a.keycloak {
				taken[stream], a.stream = a.keycloak, stream
				return nil
			}
		}
	}
	return nil
}

// Members of a confirmation that hold the id of the delivery that was merged into one
// without.
const (
	memberID  = "keycloak_event_id"
	memberUID = "uid"
)

// owner is the id that was merged into a delivery without one, "" for none so far.
func (r *Recorder) owner(ctx context.Context, stream eventstore.StreamID) (string, error) {
	events, err := r.Codec.ReadStream(ctx, r.Store, stream)
	if err != nil {
		return "", err
	}
	for _, e := range events {
		c, ok := e.Payload.(*adapter.DeliveryConfirmed)
		if !ok {
			continue
		}
		for _, member := range []string{memberID, memberUID} {
			var id string
			if json.Unmarshal(c.Added[member], &id) == nil && id != "" {
				return id, nil
			}
		}
	}
	return "", nil
}

// pulledRealms remembers the names and ids of realms that were polled: what is pulled
// has the id, and whoever polls knows the name.
type pulledRealms struct {
	mu           sync.RWMutex
	byName, byID map[string]string
}

func (p *pulledRealms) learn(name, id string) {
	if name == "" || id == "" || p.id(name) == id {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byName == nil {
		p.byName, p.byID = make(map[string]string), make(map[string]string)
	}
	p.byName[name], p.byID[id] = id, name
}

func (p *pulledRealms) name(id string) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.byID[id]
}

func (p *pulledRealms) id(name string) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.byName[name]
}
