package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

const (
	// patience is how long a client waits for one answer.
	patience = 3 * time.Second
	// hotStreams are appended to by all clients.
	hotStreams = 4
	// remembered is how many of its appends a client may repeat.
	remembered = 8
)

// client is what writers, readers and subscribers have in common.
type client struct {
	name      string
	rng       *rand.Rand
	recorder  *Recorder
	processes []*Process
	home      int
}

// process is most often the client's own.
func (c *client) process() *Process {
	if c.rng.IntN(5) == 0 {
		return c.processes[c.rng.IntN(len(c.processes))]
	}
	return c.processes[c.home]
}

// outcomeOf understands an error. unsure is what it means where the operation may
// have happened all the same.
func outcomeOf(ctx context.Context, err error, unsure Outcome) Outcome {
	var conflict *eventstore.ConflictError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &conflict):
		return Conflict
	case errors.Is(err, eventstore.ErrEventIDReused):
		return Reused
	case errors.Is(err, eventstore.ErrClosed), errors.Is(err, eventstore.ErrOverloaded):
		return Failed
	case errors.Is(err, eventstore.ErrUnavailable):
		return unsure
	case errors.Is(err, ctx.Err()) && ctx.Err() != nil:
		return unsure
	}
	return Broken
}

func (op *Op) failed(ctx context.Context, err error, unsure Outcome) {
	op.Outcome = outcomeOf(ctx, err, unsure)
	if err != nil {
		op.Error = err.Error()
	}
}

// A worker appends and reads.
type worker struct {
	client
	// versions and head are what it has seen last.
	versions map[eventstore.StreamID]eventstore.Version
	head     eventstore.Position
	// recorded are appends of its own that it knows to be in the log.
	recorded [][]eventstore.StreamAppend
	written  int
}

// work goes on until stop is closed. Its error says that the store has not
// recovered before ctx ended.
func (w *worker) work(ctx context.Context, stop <-chan struct{}) error {
	for failures := 0; ; {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s: stopped at its work: %w", w.name, ctx.Err())
		default:
		}
		answered, err := w.step(ctx)
		if err != nil {
			return err
		}
		if answered {
			failures = 0
			continue
		}
		failures++
		retryPause(ctx, failures)
	}
}

func (w *worker) step(ctx context.Context) (answered bool, err error) {
	switch n := w.rng.IntN(100); {
	case n < 50:
		return w.append(ctx, w.drawAppend())
	case n < 56 && len(w.recorded) > 0:
		return w.append(ctx, w.recorded[w.rng.IntN(len(w.recorded))])
	case n < 60 && len(w.recorded) > 0:
		return w.append(ctx, w.drawReuse())
	case n < 72:
		return w.readStream(ctx), nil
	case n < 80:
		return w.readLog(ctx), nil
	case n < 90:
		return w.readVersions(ctx), nil
	case n < 97:
		return w.readHead(ctx), nil
	default:
		return w.wait(ctx), nil
	}
}

func hot(n int) eventstore.StreamID {
	return eventstore.NamedStream("user", "acme", fmt.Sprint("hot ", n))
}

// drawStream is a hot stream, or one that several clients race to create.
func (w *worker) drawStream() eventstore.StreamID {
	if w.rng.IntN(5) == 0 {
		return eventstore.NamedStream("delivery", fmt.Sprint(w.recorder.Answered()/40))
	}
	return hot(w.rng.IntN(hotStreams))
}

func (w *worker) drawAppend() []eventstore.StreamAppend {
	parts := make([]eventstore.StreamAppend, 1+max(0, w.rng.IntN(6)-3))
	for i := range parts {
		stream := w.drawStream()
		expected := eventstore.ExpectAny()
		switch n := w.rng.IntN(10); {
		case n < 5:
			expected = eventstore.ExpectVersion(w.versions[stream])
		case n < 6:
			expected = eventstore.ExpectVersion(max(0, w.versions[stream]-1))
		case n < 7:
			expected = eventstore.ExpectNone()
		}
		parts[i] = eventstore.StreamAppend{Stream: stream, Expected: expected}
		for range 1 + max(0, w.rng.IntN(5)-2) {
			parts[i].Events = append(parts[i].Events, w.drawEvent())
		}
	}
	return parts
}

func (w *worker) drawEvent() eventstore.NewEvent {
	w.written++
	e := eventstore.NewEvent{
		ID: eventstore.NewID(), Type: fmt.Sprint("Type", w.rng.IntN(5)), OccurredAt: time.Unix(w.rng.Int64N(2_000_000_000), 1000*w.rng.Int64N(1_000_000)),
		Data:          fmt.Appendf(nil, `{ "client": %q,"number" :%d,"text":"ä %s"}`, w.name, w.written, strings.Repeat("x", w.rng.IntN(60))),
		Metadata:      fmt.Appendf(nil, `{"schema":1,"n":%d}`, w.rng.Int64()),
		CorrelationID: eventstore.NewID(),
	}
	if w.rng.IntN(3) == 0 {
		e.CausationID = eventstore.NewID()
	}
	if w.rng.IntN(10) == 0 {
		e.RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: []byte(e.ID.String())}
	}
	return e
}

// drawReuse uses a recorded id for something else: with other content, or together
// with an event that is new.
func (w *worker) drawReuse() []eventstore.StreamAppend {
	recorded := w.recorded[w.rng.IntN(len(w.recorded))][0]
	other := w.drawEvent()
	part := eventstore.StreamAppend{Stream: recorded.Stream}
	if w.rng.IntN(2) == 0 {
		other.ID = recorded.Events[0].ID
		part.Events = []eventstore.NewEvent{other}
	} else {
		part.Events = []eventstore.NewEvent{recorded.Events[0], other}
	}
	return []eventstore.StreamAppend{part}
}

// append appends, and repeats the append until its outcome is known. One that has
// certainly not happened is left, so that it can be seen that it has not.
func (w *worker) append(ctx context.Context, parts []eventstore.StreamAppend) (answered bool, err error) {
	for attempt := 1; ; attempt++ {
		switch op := w.appendOnce(ctx, parts, attempt); op.Outcome {
		case OK:
			if len(w.recorded) == remembered {
				w.recorded = w.recorded[1:]
			}
			w.recorded = append(w.recorded, parts)
			return true, nil
		case Conflict, Reused, Broken:
			return true, nil
		case Failed:
			return false, nil
		}
		if ctx.Err() != nil {
			return false, fmt.Errorf("%s: an append has no outcome after %d attempts: %w", w.name, attempt, ctx.Err())
		}
		retryPause(ctx, attempt)
	}
}

func (w *worker) appendOnce(ctx context.Context, parts []eventstore.StreamAppend, attempt int) Op {
	limit := patience
	if attempt < 4 && w.rng.IntN(6) == 0 {
		limit = time.Duration(w.rng.Int64N(int64(5 * time.Millisecond))) // gives up in the middle
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	store, handle := w.process().Store()
	op := Op{Client: w.name, Handle: handle, Kind: Append}
	for _, p := range parts {
		op.Parts = append(op.Parts, newPart(p))
	}
	w.recorder.call(&op)
	events, err := store.Append(ctx, parts...)
	op.failed(ctx, err, Unknown)
	for _, e := range events {
		op.Events = append(op.Events, w.see(e))
	}
	var conflict *eventstore.ConflictError
	if errors.As(err, &conflict) {
		op.Stream, op.Expected, op.Actual = conflict.Stream.String(), conflict.Expected, conflict.Actual
		w.versions[conflict.Stream] = conflict.Actual
	}
	w.recorder.ended(op)
	return op
}

// see remembers an event, as clients do.
func (w *worker) see(e eventstore.Event) Event {
	w.versions[e.Stream] = max(w.versions[e.Stream], e.Version)
	w.head = max(w.head, e.Position)
	return newEvent(e)
}

// read does a read.
func (w *worker) read(ctx context.Context, op Op, limit time.Duration, f func(ctx context.Context, s eventstore.Store, op *Op) error) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	store, handle := w.process().Store()
	op.Client, op.Handle = w.name, handle
	w.recorder.call(&op)
	op.failed(ctx, f(ctx, store, &op), Failed)
	w.recorder.ended(op)
	return op.Outcome == OK
}

func (w *worker) take(op *Op, events iter.Seq2[eventstore.Event, error]) error {
	for e, err := range events {
		if err != nil {
			return err
		}
		op.Events = append(op.Events, w.see(e))
	}
	return nil
}

func (w *worker) readStream(ctx context.Context) bool {
	stream := w.drawStream()
	var q eventstore.StreamQuery
	switch n := w.rng.IntN(20); {
	case n < 10:
		q.After = max(0, w.versions[stream]-eventstore.Version(w.rng.IntN(6)))
	case n < 14:
		q.Backward, q.Limit = true, 1+w.rng.IntN(5)
	case n < 19:
		q.After, q.Limit = eventstore.Version(w.rng.IntN(int(w.versions[stream])+1)), 1+w.rng.IntN(8)
	} // otherwise all of it
	op := Op{Kind: ReadStream, Streams: []string{stream.String()}, After: int64(q.After), Backward: q.Backward, Limit: q.Limit}
	return w.read(ctx, op, patience, func(ctx context.Context, s eventstore.Store, op *Op) error {
		return w.take(op, s.ReadStream(ctx, stream, q))
	})
}

func (w *worker) readLog(ctx context.Context) bool {
	var q eventstore.LogQuery
	switch n := w.rng.IntN(40); {
	case n < 20:
		q.After = max(0, w.head-eventstore.Position(w.rng.IntN(10)))
	case n < 28:
		q.Backward, q.Limit = true, 1+w.rng.IntN(10)
	case n < 39:
		q.After, q.Limit = eventstore.Position(w.rng.Int64N(int64(w.head)+1)), 1+w.rng.IntN(20)
	} // otherwise all of it
	op := Op{Kind: ReadLog, After: int64(q.After), Backward: q.Backward, Limit: q.Limit}
	return w.read(ctx, op, patience, func(ctx context.Context, s eventstore.Store, op *Op) error {
		return w.take(op, s.ReadLog(ctx, q))
	})
}

func (w *worker) readVersions(ctx context.Context) bool {
	var op Op
	streams := []eventstore.StreamID{w.drawStream()}
	for n := range hotStreams {
		if stream := hot(n); stream != streams[0] {
			streams = append(streams, stream)
		}
	}
	for _, stream := range streams {
		op.Streams = append(op.Streams, stream.String())
	}
	op.Kind = Versions
	return w.read(ctx, op, patience, func(ctx context.Context, s eventstore.Store, op *Op) error {
		versions, err := s.Versions(ctx, streams...)
		if err != nil {
			return err
		}
		op.Versions = make(map[string]eventstore.Version)
		for _, stream := range streams {
			if v, ok := versions[stream.AggregateID()]; ok {
				op.Versions[stream.String()] = v
				w.versions[stream] = v
			}
		}
		return nil
	})
}

func (w *worker) readHead(ctx context.Context) bool {
	return w.read(ctx, Op{Kind: Head}, patience, func(ctx context.Context, s eventstore.Store, op *Op) (err error) {
		op.Head, err = s.Head(ctx)
		return err
	})
}

func (w *worker) wait(ctx context.Context) bool {
	after := max(0, w.head-1)
	op := Op{Kind: Wait, After: int64(after)}
	return w.read(ctx, op, 100*time.Millisecond, func(ctx context.Context, s eventstore.Store, op *Op) (err error) {
		op.Head, err = s.Wait(ctx, after)
		return err
	})
}

// A subscriber follows the log and begins anew at its checkpoint when its
// subscription ends.
type subscriber struct {
	client
	delivered eventstore.Position
	reached   atomic.Int64 // delivered, for others
}

// follow goes on until ctx ends.
func (s *subscriber) follow(ctx context.Context) {
	failures := 0
	for session := 1; ctx.Err() == nil; session++ {
		// A consumer that crashed before it saved its checkpoint sees something again.
		after := max(0, s.delivered-eventstore.Position(max(0, s.rng.IntN(10)-5)))
		if s.session(ctx, session, after) {
			failures = 0
			continue
		}
		failures++
		retryPause(ctx, failures)
	}
}

// session reports whether anything was delivered.
func (s *subscriber) session(ctx context.Context, number int, after eventstore.Position) bool {
	if s.rng.IntN(3) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.rng.Int64N(int64(time.Second))))
		defer cancel()
	}
	store, handle := s.process().Store()
	next := Op{Client: s.name, Handle: handle, Kind: Deliver, Session: number, After: int64(after)}
	length := 1 + s.rng.IntN(300)
	op := next
	s.recorder.call(&op)
	n := 0
	for e, err := range eventstore.Subscribe(ctx, store, eventstore.LogQuery{After: after}) {
		op.failed(ctx, err, Failed)
		if err == nil {
			n++
			op.Events = []Event{newEvent(e)}
			s.delivered = max(s.delivered, e.Position)
			s.reached.Store(int64(s.delivered))
		}
		s.recorder.ended(op)
		if err != nil || n == length {
			return n > 0
		}
		op = next
		s.recorder.call(&op)
	}
	return n > 0
}
