// Package backend is what the SQL event stores share: checking an append, sharing
// transactions, paging through results and waking those who wait. It knows no
// database.
package backend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Limits of what can be stored, so that no database's index refuses a row.
const (
	maxTypeBytes     = 255
	maxCategoryBytes = 255
)

// eventBytes is about what an event takes beside its payload.
const eventBytes = 300

// Plan is an append that has been checked, laid out as the databases want it. It
// shares no memory with the caller, who may go on while it is being written.
type Plan struct {
	Streams []PlanStream
	Events  []PlanEvent

	// bytes is about what the plan takes in memory and on the wire.
	bytes int
}

// PlanStream is a stream that the append names, once, with its number of events.
type PlanStream struct {
	ID    eventstore.StreamID
	Count int
}

// PlanEvent is one event in the order given.
type PlanEvent struct {
	eventstore.NewEvent
	// Stream is the index into Plan.Streams.
	Stream int
	// Offset is the number of events before this one in the same stream and append,
	// so the event's version is the stream's version before the append + Offset + 1.
	Offset int
	// Expected is what must hold before this event, ExpectAny for all but the first
	// of a part.
	Expected eventstore.Expected
}

// NewPlan checks an append. Its errors are ErrInvalidEvent and ErrEventIDReused.
func NewPlan(appends []eventstore.StreamAppend) (*Plan, error) {
	if len(appends) == 0 {
		return nil, fmt.Errorf("%w: an append without streams", eventstore.ErrInvalidEvent)
	}
	p := &Plan{}
	streams := make(map[uuid.UUID]int, len(appends))
	ids := make(map[uuid.UUID]struct{})
	for _, a := range appends {
		if err := checkStream(a.Stream); err != nil {
			return nil, err
		}
		if len(a.Events) == 0 {
			return nil, fmt.Errorf("%w: an append to stream %s without events", eventstore.ErrInvalidEvent, a.Stream)
		}
		if v, exact := a.Expected.Exact(); exact && v < 0 {
			return nil, fmt.Errorf("%w: stream %s is expected at version %d", eventstore.ErrInvalidEvent, a.Stream, v)
		}
		i, known := streams[a.Stream.AggregateID()]
		if !known {
			i = len(p.Streams)
			streams[a.Stream.AggregateID()] = i
			p.Streams = append(p.Streams, PlanStream{ID: a.Stream})
		}
		if p.Streams[i].ID != a.Stream {
			return nil, OtherStream(p.Streams[i].ID.String(), a.Stream)
		}
		for n, e := range a.Events {
			if err := checkEvent(e); err != nil {
				return nil, fmt.Errorf("stream %s, event %d of %d: %w", a.Stream, n+1, len(a.Events), err)
			}
			if _, twice := ids[e.ID]; twice {
				return nil, fmt.Errorf("%w: %s is twice in one append", eventstore.ErrEventIDReused, e.ID)
			}
			ids[e.ID] = struct{}{}
			pe := PlanEvent{NewEvent: own(e), Stream: i, Offset: p.Streams[i].Count}
			if n == 0 {
				pe.Expected = a.Expected
			}
			p.Streams[i].Count++
			p.Events = append(p.Events, pe)
			p.bytes += eventBytes + len(pe.Data) + len(pe.Metadata)
			if pe.RawBody != nil {
				p.bytes += len(pe.RawBody.Bytes)
			}
		}
	}
	return p, nil
}

// OtherStream says that an aggregate id is taken by a stream of another name.
func OtherStream(recorded string, asked eventstore.StreamID) error {
	return fmt.Errorf("%w: aggregate id %s belongs to stream %s, not %s",
		eventstore.ErrInvalidEvent, asked.AggregateID(), recorded, asked)
}

// Reused says that the id of the plan's event i is recorded with other content, or
// that only some ids of the plan are recorded.
func (p *Plan) Reused(i int) error {
	return fmt.Errorf("%w: %s, for stream %s", eventstore.ErrEventIDReused, p.Events[i].ID, p.Streams[p.Events[i].Stream].ID)
}

// Conflict compares the streams' versions before the append with what the plan
// expects; versions run along Streams. It reports the first conflict.
func (p *Plan) Conflict(versions []eventstore.Version) error {
	for _, e := range p.Events {
		actual := versions[e.Stream] + eventstore.Version(e.Offset)
		if v, exact := e.Expected.Exact(); exact && v != actual {
			return &eventstore.ConflictError{Stream: p.Streams[e.Stream].ID, Expected: v, Actual: actual}
		}
	}
	return nil
}

// IDs are the plan's event ids in order.
func (p *Plan) IDs() []uuid.UUID {
	ids := make([]uuid.UUID, len(p.Events))
	for i, e := range p.Events {
		ids[i] = e.ID
	}
	return ids
}

// Same reports whether a recorded event has what makes a repetition of the plan's
// event i: stream, type and data.
func (p *Plan) Same(i int, recorded eventstore.Event) bool {
	e := p.Events[i]
	return recorded.ID == e.ID && recorded.Stream == p.Streams[e.Stream].ID &&
		recorded.Type == e.Type && bytes.Equal(recorded.Data, e.Data)
}

// Repeated decides about an append some of whose ids are recorded: it returns the
// recorded events in the plan's order when the append is a repetition of them, and
// ErrEventIDReused otherwise.
func (p *Plan) Repeated(recorded []eventstore.Event) ([]eventstore.Event, error) {
	byID := make(map[uuid.UUID]eventstore.Event, len(recorded))
	for _, e := range recorded {
		byID[e.ID] = e
	}
	// A clash is worth more to the reader than a missing one.
	missing := false
	out := make([]eventstore.Event, len(p.Events))
	for i := range p.Events {
		e, ok := byID[p.Events[i].ID]
		if ok && !p.Same(i, e) {
			return nil, p.Reused(i)
		}
		missing = missing || !ok
		out[i] = e
	}
	if missing {
		for i := range p.Events {
			if _, ok := byID[p.Events[i].ID]; ok {
				return nil, fmt.Errorf("%w (only a part of this append is recorded)", p.Reused(i))
			}
		}
		return nil, fmt.Errorf("event id %s is used, and its event cannot be compared: %w", p.Events[0].ID, eventstore.ErrIncomplete)
	}
	return out, nil
}

// Recorded are the plan's events as they are in the log after position last, the
// streams having been at versions before.
func (p *Plan) Recorded(last eventstore.Position, versions []eventstore.Version, at time.Time) []eventstore.Event {
	out := make([]eventstore.Event, len(p.Events))
	for i, e := range p.Events {
		out[i] = eventstore.Event{
			Position: last + eventstore.Position(i) + 1, ID: e.ID,
			Stream: p.Streams[e.Stream].ID, Version: versions[e.Stream] + eventstore.Version(e.Offset) + 1,
			Type: e.Type, Data: e.Data, Metadata: e.Metadata,
			CorrelationID: e.CorrelationID, CausationID: e.CausationID,
			OccurredAt: e.OccurredAt, RecordedAt: at,
		}
	}
	return out
}

// Microseconds is t as the stores keep it.
func Microseconds(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func own(e eventstore.NewEvent) eventstore.NewEvent {
	e.Data = bytes.Clone(e.Data)
	e.Metadata = bytes.Clone(e.Metadata)
	e.OccurredAt = Microseconds(e.OccurredAt)
	if e.RawBody != nil {
		e.RawBody = &eventstore.RawBody{ContentType: e.RawBody.ContentType, Bytes: bytes.Clone(e.RawBody.Bytes)}
	}
	return e
}

func checkStream(s eventstore.StreamID) error {
	switch {
	case s.IsZero() || s.AggregateID() == uuid.Nil:
		return fmt.Errorf("%w: no stream", eventstore.ErrInvalidEvent)
	case !text(s.String()):
		return fmt.Errorf("%w: stream name %q is not plain text", eventstore.ErrInvalidEvent, s.String())
	case len(s.Category()) > maxCategoryBytes:
		return fmt.Errorf("%w: a stream's category has %d bytes, more than %d", eventstore.ErrInvalidEvent, len(s.Category()), maxCategoryBytes)
	}
	return nil
}

func checkEvent(e eventstore.NewEvent) error {
	switch {
	case e.ID == uuid.Nil:
		return fmt.Errorf("%w: no id", eventstore.ErrInvalidEvent)
	case e.Type == "":
		return fmt.Errorf("%w: no type", eventstore.ErrInvalidEvent)
	case len(e.Type) > maxTypeBytes || !text(e.Type):
		return fmt.Errorf("%w: the type is not text of at most %d bytes", eventstore.ErrInvalidEvent, maxTypeBytes)
	case e.OccurredAt.IsZero():
		return fmt.Errorf("%w: no time of occurrence", eventstore.ErrInvalidEvent)
	case e.OccurredAt.UTC().Year() < 1 || e.OccurredAt.UTC().Year() > 9999:
		return fmt.Errorf("%w: it occurred in year %d, outside of 1 to 9999", eventstore.ErrInvalidEvent, e.OccurredAt.UTC().Year())
	case e.RawBody != nil && !text(e.RawBody.ContentType):
		return fmt.Errorf("%w: the raw body's content type is not plain text", eventstore.ErrInvalidEvent)
	}
	if err := checkObject("data", e.Data); err != nil {
		return err
	}
	return checkObject("metadata", e.Metadata)
}

// checkObject accepts what every database accepts: a JSON object in UTF-8.
// json.Valid alone lets bytes pass that are no text.
func checkObject(what string, b []byte) error {
	if !json.Valid(b) || !utf8.Valid(b) {
		return fmt.Errorf("%w: %s is not JSON", eventstore.ErrInvalidEvent, what)
	}
	if bytes.TrimLeft(b, " \t\r\n")[0] != '{' {
		return fmt.Errorf("%w: %s is not a JSON object", eventstore.ErrInvalidEvent, what)
	}
	return nil
}

// text reports whether a text column of any database takes s.
func text(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
