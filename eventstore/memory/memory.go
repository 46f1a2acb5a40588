// Package memory keeps the event log in memory. It is the reference that the other
// stores are compared with, written as plainly as the contract can be, and the store
// of simulations: a decider may let any operation fail, lose its answer, be late for
// those who wait, or end the process.
//
// Nothing of it is durable, so that the program does not use it.
package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

// Database is what is stored. Any number of stores may be opened on it, as processes
// on one database; it survives their crashes. It is safe for concurrent use.
type Database struct {
	// writing is held by the one append that is being recorded, as the order lock of a
	// database is.
	writing chan struct{}

	mu      sync.Mutex
	log     []eventstore.Event // at position - 1; what is in it never changes
	byID    map[uuid.UUID]eventstore.Position
	streams map[uuid.UUID]stream
	bodies  map[uuid.UUID]eventstore.RawBody
	open    map[*Store]struct{}
}

type stream struct {
	id        eventstore.StreamID
	positions []eventstore.Position // at version - 1
}

// NewDatabase returns an empty one.
func NewDatabase() *Database {
	return &Database{
		writing: make(chan struct{}, 1),
		byID:    make(map[uuid.UUID]eventstore.Position), streams: make(map[uuid.UUID]stream),
		bodies: make(map[uuid.UUID]eventstore.RawBody), open: make(map[*Store]struct{}),
	}
}

// Options are what a store may be given. The zero value is good.
type Options struct {
	// Clock tells the recording time; nil is the machine's clock.
	Clock func() time.Time
	// Decide is asked at each step of each operation what goes wrong; nil means that
	// nothing does.
	Decide Decider
}

// Store is one process's access to a database. It is safe for concurrent use.
type Store struct {
	db     *Database
	clock  *backend.Clock
	decide Decider
	life   *backend.Lifetime
	head   backend.Head
	// alive ends with the crash.
	alive context.Context //nolint:containedctx // the life of the process that the store belongs to
	kill  context.CancelFunc
}

var _ eventstore.Store = (*Store)(nil)

// Open opens a store. It must be closed, crashed or not.
func (d *Database) Open(o Options) *Store {
	s := &Store{db: d, clock: backend.NewClock(o.Clock), decide: o.Decide, life: backend.NewLifetime()}
	if s.decide == nil {
		s.decide = func(context.Context, Operation) Fault { return Fault{} }
	}
	s.alive, s.kill = context.WithCancel(context.Background())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[s] = struct{}{}
	s.head.Advance(d.headLocked())
	return s
}

// Close implements eventstore.Store.
func (s *Store) Close() error {
	s.db.mu.Lock()
	delete(s.db.open, s)
	s.db.mu.Unlock()
	s.life.Close()
	return nil
}

// Crash ends the process that the store belongs to: whatever is under way or comes
// later ends with ErrCrashed. What is recorded stays.
func (s *Store) Crash() { s.kill() }

// Announce tells all who wait of what is recorded, as the regular look at the log does
// that other stores take where a wake-up got lost.
func (d *Database) Announce() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.open {
		s.head.Advance(d.headLocked())
	}
}

func (d *Database) headLocked() eventstore.Position { return eventstore.Position(len(d.log)) }

// begin announces an operation. Its context ends also when the store is closed and
// when the process crashes.
func (s *Store) begin(ctx context.Context) (context.Context, func(), error) {
	if s.alive.Err() != nil {
		return nil, nil, ErrCrashed
	}
	ctx, over, err := s.life.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.alive, cancel)
	return ctx, func() {
		stop()
		cancel()
		over()
	}, nil
}

// ended is why an operation must not go on, nil where it may.
func (s *Store) ended(ctx context.Context) error {
	switch {
	case s.alive.Err() != nil:
		return ErrCrashed
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return s.life.Err()
	}
}

// Append implements eventstore.Appender.
func (s *Store) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	plan, err := backend.NewPlan(appends)
	if err != nil {
		return nil, err
	}
	opCtx, over, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer over()
	if _, err := s.ask(ctx, Operation{Moment: Before, Name: OpAppend, Appends: appends}); err != nil {
		return nil, err
	}
	select {
	case s.db.writing <- struct{}{}:
	case <-opCtx.Done():
		return nil, s.ended(ctx)
	}
	if err := s.ended(ctx); err != nil { // of two that are ready, select takes either
		<-s.db.writing
		return nil, err
	}
	events, err := s.db.record(plan, s.clock)
	<-s.db.writing
	if err != nil {
		return nil, err
	}
	fault, err := s.ask(ctx, Operation{Moment: Recorded, Name: OpAppend, Appends: appends})
	if err != nil {
		return nil, err
	}
	if !fault.Silent {
		s.db.Announce()
	}
	return events, nil
}

// record is the transaction. It returns events that share no memory with the log.
func (d *Database) record(plan *backend.Plan, clock *backend.Clock) ([]eventstore.Event, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var known []eventstore.Event
	for _, id := range plan.IDs() {
		if p, ok := d.byID[id]; ok {
			known = append(known, d.log[p-1])
		}
	}
	if len(known) > 0 {
		first, err := plan.Repeated(known)
		return copied(first), err
	}
	versions := make([]eventstore.Version, len(plan.Streams))
	for i, named := range plan.Streams {
		there, ok := d.streams[named.ID.AggregateID()]
		if ok && there.id != named.ID {
			return nil, backend.OtherStream(there.id.String(), named.ID)
		}
		versions[i] = eventstore.Version(len(there.positions))
	}
	if err := plan.Conflict(versions); err != nil {
		return nil, err
	}
	events := plan.Recorded(d.headLocked(), versions, clock.Now())
	for i, e := range events {
		d.log = append(d.log, e)
		d.byID[e.ID] = e.Position
		there := d.streams[e.Stream.AggregateID()]
		there.id, there.positions = e.Stream, append(there.positions, e.Position)
		d.streams[e.Stream.AggregateID()] = there
		if body := plan.Events[i].RawBody; body != nil {
			d.bodies[e.ID] = *body
		}
	}
	return copied(events), nil
}

func copied(events []eventstore.Event) []eventstore.Event {
	out := slices.Clone(events)
	for i := range out {
		out[i] = own(out[i])
	}
	return out
}

// own is an event that the caller may change without changing the log.
func own(e eventstore.Event) eventstore.Event {
	e.Data, e.Metadata = bytes.Clone(e.Data), bytes.Clone(e.Metadata)
	return e
}

// ReadStream implements eventstore.Reader.
func (s *Store) ReadStream(ctx context.Context, stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return s.iterate(ctx, OpReadStream, q.Backward, q.Limit, func() events {
		log, positions := s.db.log, s.db.streams[stream.AggregateID()].positions
		for i, p := range positions {
			if q.AsOf != 0 && p > q.AsOf || !q.AsOfTime.IsZero() && log[p-1].RecordedAt.After(q.AsOfTime) {
				positions = positions[:i]
				break
			}
		}
		return events{n: len(positions), at: func(i int) eventstore.Event { return log[positions[i]-1] }}
	}, func(e eventstore.Event) bool {
		return e.Version > q.After && (q.Before == 0 || e.Version < q.Before)
	})
}

// ReadLog implements eventstore.Reader.
func (s *Store) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return s.iterate(ctx, OpReadLog, q.Backward, q.Limit, func() events {
		log := s.db.log
		return events{n: len(log), at: func(i int) eventstore.Event { return log[i] }}
	}, func(e eventstore.Event) bool {
		return e.Position > q.After && (q.Before == 0 || e.Position < q.Before) &&
			(len(q.Types) == 0 || slices.Contains(q.Types, e.Type)) &&
			(q.Category == "" || q.Category == e.Stream.Category()) &&
			(q.CorrelationID == uuid.Nil || q.CorrelationID == e.CorrelationID) &&
			(q.CausationID == uuid.Nil || q.CausationID == e.CausationID) &&
			(len(q.EventIDs) == 0 || slices.Contains(q.EventIDs, e.ID)) &&
			(q.RecordedFrom.IsZero() || !e.RecordedAt.Before(q.RecordedFrom)) &&
			(q.RecordedTo.IsZero() || e.RecordedAt.Before(q.RecordedTo))
	})
}

// events are those that there were at one moment, which never change.
type events struct {
	n  int
	at func(i int) eventstore.Event
}

// iterate yields the chosen ones of the events that there are when it begins. from is
// called with the database locked.
func (s *Store) iterate(ctx context.Context, name string, backward bool, limit int, from func() events, chosen func(eventstore.Event) bool) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		var there events
		err := s.reading(ctx, name, func() error {
			there = from()
			return nil
		})
		if err != nil {
			yield(eventstore.Event{}, err)
			return
		}
		yielded := 0
		for i := range there.n {
			if backward {
				i = there.n - 1 - i
			}
			e := there.at(i)
			if !chosen(e) {
				continue
			}
			if err := s.ended(ctx); err != nil {
				yield(eventstore.Event{}, err)
				return
			}
			if !yield(own(e), nil) {
				return
			}
			if yielded++; yielded == limit {
				return
			}
		}
	}
}

// reading runs f with the database locked.
func (s *Store) reading(ctx context.Context, name string, f func() error) error {
	_, over, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer over()
	if _, err := s.ask(ctx, Operation{Moment: Before, Name: name}); err != nil {
		return err
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	return f()
}

// Versions implements eventstore.Reader.
func (s *Store) Versions(ctx context.Context, streams ...eventstore.StreamID) (map[uuid.UUID]eventstore.Version, error) {
	versions := make(map[uuid.UUID]eventstore.Version, len(streams))
	err := s.reading(ctx, OpVersions, func() error {
		for _, named := range streams {
			if n := len(s.db.streams[named.AggregateID()].positions); n > 0 {
				versions[named.AggregateID()] = eventstore.Version(n)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return versions, nil
}

// Stream implements eventstore.Reader.
func (s *Store) Stream(ctx context.Context, aggregateID uuid.UUID) (id eventstore.StreamID, err error) {
	err = s.reading(ctx, OpStream, func() error {
		there, ok := s.db.streams[aggregateID]
		if !ok {
			return fmt.Errorf("look for stream %s: %w", aggregateID, eventstore.ErrNotFound)
		}
		id = there.id
		return nil
	})
	return id, err
}

// Head implements eventstore.Reader.
func (s *Store) Head(ctx context.Context) (head eventstore.Position, err error) {
	err = s.reading(ctx, OpHead, func() error {
		head = s.db.headLocked()
		return nil
	})
	return head, err
}

// RawBody implements eventstore.Reader.
func (s *Store) RawBody(ctx context.Context, eventID uuid.UUID) (body eventstore.RawBody, err error) {
	err = s.reading(ctx, OpRawBody, func() error {
		there, ok := s.db.bodies[eventID]
		if !ok {
			return fmt.Errorf("read the raw body of event %s: %w", eventID, eventstore.ErrNotFound)
		}
		body = eventstore.RawBody{ContentType: there.ContentType, Bytes: append([]byte{}, there.Bytes...)}
		return nil
	})
	return body, err
}

// Wait implements eventstore.Waiter.
func (s *Store) Wait(ctx context.Context, after eventstore.Position) (eventstore.Position, error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.alive, cancel)()
	if _, err := s.ask(ctx, Operation{Moment: Before, Name: OpWait}); err != nil {
		return 0, err
	}
	head, err := s.head.Wait(waiting, s.life, after)
	if errors.Is(err, context.Canceled) && s.alive.Err() != nil {
		err = ErrCrashed
	}
	return head, err
}

// Ping implements eventstore.Store. The schema is always current.
func (s *Store) Ping(ctx context.Context) error {
	return s.reading(ctx, OpPing, func() error { return nil })
}
