// Package eventstore is the contract of keytrail's event log: what an event is,
// how streams are appended to under optimistic locking, and how streams and the
// log are read. It knows nothing of Keycloak.
//
// A store is correct when it passes eventstore/storetest. Its promises:
//
//   - An append is atomic over all the streams it names, and durable when it
//     returns: a 2xx may be answered on it.
//   - Versions are 1, 2, 3 … within a stream. Two racing writers end in success
//     or in a *ConflictError, never in a raw driver error.
//   - Positions are 1, 2, 3 … over the whole log, gapless and commit-safe: once a
//     reader has seen position p, no event at or below p appears later.
//   - Events are never updated or deleted; the database refuses it too.
package eventstore

import (
	"context"
	"encoding/json"
	"iter"
	"time"

	"github.com/google/uuid"
)

// Position is an event's place in the global order: 1 for the first event ever
// appended, without gaps. Zero means before the first.
type Position int64

// Version is an event's place within its stream: 1 for the first, without gaps.
// Zero means that the stream has no events.
type Version int

// NewEvent is an event to be appended.
type NewEvent struct {
	// ID identifies the event for ever. Use NewID for a new fact and DerivedID for
	// one that follows from another event, so that a consumer that repeats itself
	// after a crash appends the same event and not another.
	ID uuid.UUID
	// Type has at most 255 bytes.
	Type string
	// Data and Metadata are JSON objects in UTF-8 and are stored byte for byte.
	Data     json.RawMessage
	Metadata json.RawMessage
	// CorrelationID names the whole story, CausationID the event that directly
	// caused this one (uuid.Nil: none). Both repeat what Metadata says, as columns.
	CorrelationID uuid.UUID
	CausationID   uuid.UUID
	// OccurredAt is when it happened, which may be long before it is recorded. Stores
	// keep microseconds, of the years 1 to 9999.
	OccurredAt time.Time
	// RawBody, if any, is kept beside the event in the same transaction, with a
	// retention of its own.
	RawBody *RawBody
}

// RawBody is what arrived or left on the wire, word for word.
type RawBody struct {
	ContentType string
	Bytes       []byte
}

// Event is a recorded event.
type Event struct {
	Position      Position
	ID            uuid.UUID
	Stream        StreamID
	Version       Version
	Type          string
	Data          json.RawMessage
	Metadata      json.RawMessage
	CorrelationID uuid.UUID
	CausationID   uuid.UUID
	OccurredAt    time.Time
	// RecordedAt is when the store accepted the event, by the store's clock. It
	// never decreases along positions written by one process.
	RecordedAt time.Time
}

// Expected says at which version a stream must be for an append to be accepted.
// The zero value is ExpectAny.
type Expected struct {
	kind    expectedKind
	version Version
}

type expectedKind int

const (
	expectAny expectedKind = iota
	expectExact
)

// ExpectAny accepts whatever version the stream has.
func ExpectAny() Expected { return Expected{} }

// ExpectNone accepts a stream that has no events yet.
func ExpectNone() Expected { return Expected{kind: expectExact} }

// ExpectVersion accepts a stream whose last event has this version.
func ExpectVersion(v Version) Expected { return Expected{kind: expectExact, version: v} }

// Exact returns the version that the stream must have, and false where any will do.
func (e Expected) Exact() (Version, bool) { return e.version, e.kind == expectExact }

// StreamAppend is one stream's part of an append.
type StreamAppend struct {
	Stream   StreamID
	Expected Expected
	Events   []NewEvent
}

// Appender writes.
type Appender interface {
	// Append adds events to one or several streams in one transaction, or none of
	// them, and returns them as recorded, in the order given. Positions follow that
	// order too. Parts that name the same stream follow on each other: the second
	// finds the versions that the first has made.
	//
	// It is idempotent: an append all of whose event ids are recorded already, with
	// the same stream, type and data, returns the first result whatever versions it
	// expects. The same id with other content is ErrEventIDReused, and so is an append
	// of which only some ids are recorded.
	//
	// Errors: *ConflictError when a stream is not at the version expected (nothing
	// was written); ErrInvalidEvent when an event is malformed or a part has none;
	// ErrClosed; ErrUnavailable when the store cannot take it now, or its answer got
	// lost, and the same append may be tried again, which is safe as it is; the
	// context's error when it ended first, in which case the outcome is unknown and
	// the same append may be repeated to find it out.
	Append(ctx context.Context, appends ...StreamAppend) ([]Event, error)
}

// StreamQuery selects events of one stream.
type StreamQuery struct {
	// After yields versions above it; Before, where not zero, those below it.
	After  Version
	Before Version
	// AsOf, where not zero, yields the stream as it was when the log had reached that
	// position.
	AsOf Position
	// AsOfTime, where not zero, yields the stream as it was recorded at that moment: the
	// events before the first one that was recorded later.
	AsOfTime time.Time
	// Backward yields the newest first.
	Backward bool
	// Limit is the most events to yield; 0 means all.
	Limit int
}

// LogQuery selects events of the whole log. The zero value is everything, oldest
// first. Conditions are combined with and.
type LogQuery struct {
	// After yields positions above it; Before, where not zero, those below it.
	After  Position
	Before Position
	// Types, Category, CorrelationID, CausationID and EventIDs narrow the choice
	// where they are not empty. Category is a stream's first word ("user").
	Types         []string
	Category      string
	CorrelationID uuid.UUID
	CausationID   uuid.UUID
	EventIDs      []uuid.UUID
	// RecordedFrom (inclusive) and RecordedTo (exclusive) bound the recording time.
	RecordedFrom time.Time
	RecordedTo   time.Time
	Backward     bool
	Limit        int
}

// Reader reads. Iterators hold bounded memory, stop at the first error, which
// they yield with a zero Event, and end when the context does.
type Reader interface {
	// ReadStream yields a stream's events, oldest first unless asked otherwise. A
	// stream that does not exist yields nothing; one of which events are missing between
	// those asked for is ErrIncomplete.
	ReadStream(ctx context.Context, stream StreamID, q StreamQuery) iter.Seq2[Event, error]
	// ReadLog yields the log's events in the order of positions. Where the log's
	// beginning is elsewhere, reading forward from before it is ErrIncomplete, unless
	// the events are chosen by correlation, causation or id.
	ReadLog(ctx context.Context, q LogQuery) iter.Seq2[Event, error]
	// Versions returns the current version of each stream named, by aggregate id;
	// streams without events are left out.
	Versions(ctx context.Context, streams ...StreamID) (map[uuid.UUID]Version, error)
	// Stream returns the identity of the stream with this aggregate id, or
	// ErrNotFound.
	Stream(ctx context.Context, aggregateID uuid.UUID) (StreamID, error)
	// Head is the position of the newest event, 0 in an empty store.
	Head(ctx context.Context) (Position, error)
	// RawBody returns what was kept beside an event, or ErrNotFound where nothing
	// was, or nothing any more.
	RawBody(ctx context.Context, eventID uuid.UUID) (RawBody, error)
}

// Waiter tells when there is something new, so that nobody has to poll.
type Waiter interface {
	// Wait returns the head once it is above after, or the context's error. It is
	// woken by appends of this process at once and of others within a second.
	Wait(ctx context.Context, after Position) (Position, error)
}

// Store is a whole event store. Implementations are safe for concurrent use.
type Store interface {
	Appender
	Reader
	Waiter
	// Ping reports whether the store can be reached and its schema is current:
	// nil, ErrUnavailable, or a *SchemaError.
	Ping(ctx context.Context) error
	// Close waits for appends under way and releases everything. Waiters and
	// iterators end with ErrClosed.
	Close() error
}
