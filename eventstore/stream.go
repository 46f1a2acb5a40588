package eventstore

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// streamNamespace is the UUIDv5 namespace of stream names. It is fixed for ever:
// aggregate ids are derived from it.
var streamNamespace = uuid.MustParse("6f1d2a54-6d0c-5a0e-9b6e-3f6d7a1c9e21")

// StreamID identifies a stream: a readable name, such as
// "user/acme/6a9121e7-c721-40f0-a025-855e3a0ba9d8", and the aggregate id that is
// the key in the database. StreamIDs are comparable.
type StreamID struct {
	name        string
	aggregateID uuid.UUID
}

// NamedStream is the stream of a category and further parts, such as "user",
// realm, user id. The aggregate id is the UUIDv5 of the percent-encoded name,
// because Keycloak's ids are not always UUIDs ("f:component:external").
func NamedStream(category string, parts ...string) StreamID {
	name := joinName(category, parts)
	return StreamID{name: name, aggregateID: uuid.NewSHA1(streamNamespace, []byte(name))}
}

// UUIDStream is the stream of a category whose aggregate id is our own UUID, such
// as "call" and the call id.
func UUIDStream(category string, id uuid.UUID) StreamID {
	return StreamID{name: joinName(category, []string{id.String()}), aggregateID: id}
}

// StoredStream is a stream as a store found it. It is for stores only.
func StoredStream(name string, aggregateID uuid.UUID) StreamID {
	return StreamID{name: name, aggregateID: aggregateID}
}

func joinName(category string, parts []string) string {
	var b strings.Builder
	b.WriteString(url.PathEscape(category))
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// String is the stream's name, each part percent-encoded.
func (s StreamID) String() string { return s.name }

// AggregateID is the key of the stream in the database.
func (s StreamID) AggregateID() uuid.UUID { return s.aggregateID }

// IsZero reports whether s names no stream.
func (s StreamID) IsZero() bool { return s.name == "" }

// Category is the first word of the name, such as "user".
func (s StreamID) Category() string {
	category, _, _ := strings.Cut(s.name, "/")
	return category
}

// Parts returns the decoded parts after the category.
func (s StreamID) Parts() ([]string, error) {
	words := strings.Split(s.name, "/")[1:]
	for i, w := range words {
		p, err := url.PathUnescape(w)
		if err != nil {
			return nil, fmt.Errorf("stream name %q: %w", s.name, err)
		}
		words[i] = p
	}
	return words, nil
}
