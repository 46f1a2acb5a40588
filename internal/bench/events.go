package bench

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
)

const (
	// dataBytes is the size of an event's data.
	dataBytes = 1024
	// sampleCount is how many different contents there are.
	sampleCount = 512
	realm       = "acme"
)

// samples are events as keytrail records them, encoded once: what is measured is the
// store and not the encoder.
type samples struct {
	all []sample
	rnd *rand.Rand
}

type sample struct {
	typ            string
	data, metadata []byte
	// correlation is where the correlation id stands in metadata.
	correlation int
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6b657974)) }

func newCodec() *adapter.Codec { return adapter.NewCodec(seal.Plain{}) }

// eventKind makes the payload of an event, with fill as a text in it that makes it longer.
type eventKind func(rnd *rand.Rand, fill string) adapter.Payload

// newSamples encodes payloads of a kind, each filled up with text
// until the data has its size.
func newSamples(ctx context.Context, kind eventKind) (*samples, error) {
	s := &samples{rnd: newRand(1)}
	codec := newCodec()
	for range sampleCount {
		state := *rand.NewPCG(s.rnd.Uint64(), s.rnd.Uint64())
		meta := adapter.Metadata{
			CorrelationID: eventstore.NewID(), Source: "keycloak",
			Actor: &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: randomID(s.rnd), Username: "admin"},
		}
		fill := ""
		for attempt := range 2 { // the second has the size
			again := state
			e, err := codec.Encode(ctx, adapter.Draft{Payload: kind(rand.New(&again), fill), OccurredAt: begin, Meta: meta})
			if err != nil {
				return nil, err
			}
			if missing := dataBytes - len(e.Data); attempt == 0 && missing > 0 {
				fill = text(s.rnd, missing)
				continue
			}
			at := bytes.Index(e.Metadata, []byte(meta.CorrelationID.String()))
			if at < 0 {
				return nil, fmt.Errorf("the metadata of %s has no correlation id", e.Type)
			}
			s.all = append(s.all, sample{typ: e.Type, data: e.Data, metadata: e.Metadata, correlation: at})
			break
		}
	}
	return s, nil
}

// begin is when the first event occurred.
var begin = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// event is a new event with the n-th content. It is safe for concurrent use.
func (s *samples) event(n int, at time.Time) eventstore.NewEvent {
	c := &s.all[n%len(s.all)]
	correlation := eventstore.NewID()
	metadata := bytes.Clone(c.metadata)
	encodeUUID(metadata[c.correlation:], correlation)
	return eventstore.NewEvent{
		ID: eventstore.NewID(), Type: c.typ, Data: c.data, Metadata: metadata, CorrelationID: correlation, OccurredAt: at,
	}
}

func encodeUUID(to []byte, id uuid.UUID) {
	hex.Encode(to, id[:4])
	hex.Encode(to[9:], id[4:6])
	hex.Encode(to[14:], id[6:8])
	hex.Encode(to[19:], id[8:10])
	hex.Encode(to[24:], id[10:])
}

// adminEvent is an administrator's change of a user, as a webhook brings it.
func adminEvent(rnd *rand.Rand, fill string) adapter.Payload {
	user := randomID(rnd)
	name := text(rnd, 5+rnd.IntN(8))
	representation, err := json.Marshal(map[string]any{
		"username": name, "email": name + "@example.com", "firstName": text(rnd, 6), "lastName": text(rnd, 9), "enabled": true,
		"emailVerified": rnd.IntN(2) == 0, "attributes": map[string][]string{"department": {text(rnd, 8)}, "note": {fill}},
	})
	if err != nil {
		representation = nil // maps of texts can be encoded
	}
	return &adapter.AdminEventReceived{
		KeycloakEventID: randomID(rnd), UID: randomID(rnd), Time: begin, Realm: realm, RealmID: randomID(rnd),
		OperationType: "UPDATE", ResourceType: "USER", ResourcePath: "users/" + user, ResourceID: user, UserID: user,
		Representation: representation,
		Actor: adapter.Actor{
			Type: adapter.ActorKeycloakUser, ID: randomID(rnd), Username: "admin", Client: randomID(rnd), IP: fmt.Sprintf("10.0.%d.%d", rnd.IntN(256), rnd.IntN(256)),
		},
		ActorRealm: "master",
		Receipt:    adapter.Receipt{Source: "keycloak", Dialect: "p2", BodySHA256: hexText(rnd, 32)},
	}
}

// mixedEvent is what the log of a running keytrail holds: a delivery as often as a
// user event that follows from one.
func mixedEvent(rnd *rand.Rand, fill string) adapter.Payload {
	switch rnd.IntN(8) {
	case 0:
		return &adapter.UserApiCreated{UserChange: profileChange(randomID(rnd), rnd, fill)}
	case 1, 2:
		return &adapter.UserApiUpdated{UserChange: profileChange(randomID(rnd), rnd, fill)}
	case 3:
		return &adapter.UserApiRolesChanged{
			UserRef: adapter.UserRef{Realm: realm, UserID: randomID(rnd)}, Added: []adapter.Role{{ID: randomID(rnd), Name: text(rnd, 8)}},
			Unfolded: fill,
		}
	default:
		return adminEvent(rnd, fill)
	}
}

func profileChange(id string, rnd *rand.Rand, fill string) adapter.UserChange {
	name := text(rnd, 5+rnd.IntN(8))
	return adapter.UserChange{
		UserRef: adapter.UserRef{Realm: realm, UserID: id},
		Set: adapter.Profile{
			Username: adapter.Set(name), Email: adapter.Set(name + "@example.com"),
			FirstName: adapter.Set(text(rnd, 6)), LastName: adapter.Set(text(rnd, 9)), Enabled: adapter.Set(true),
			Attributes: adapter.Set(map[string][]string{"department": {text(rnd, 8)}, "note": {fill}}),
		},
		Inferred: []string{adapter.FieldAttributes}, Via: "admin",
	}
}

func randomID(rnd *rand.Rand) string {
	var id uuid.UUID
	for i := range id {
		id[i] = byte(rnd.Uint32())
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}

func text(rnd *rand.Rand, n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	var b strings.Builder
	for range n {
		b.WriteByte(letters[rnd.IntN(len(letters))])
	}
	return b.String()
}

func hexText(rnd *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return hex.EncodeToString(b)
}
