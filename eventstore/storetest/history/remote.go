package history

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/childprocess"
)

const (
	// closeGrace is how long a process may take to close its store.
	closeGrace = 30 * time.Second
	// longest is the longest line of the protocol.
	longest = 64 << 20
)

// A call asks a store in another process for one call.
type call struct {
	ID      int64                  `json:"id"`
	Method  string                 `json:"method"`
	Within  time.Duration          `json:"within"` // what is left of the caller's time; 0 is no limit
	Parts   []wirePart             `json:"parts,omitempty"`
	Streams []wireStream           `json:"streams,omitempty"`
	Stream  eventstore.StreamQuery `json:"stream_query,omitzero"`
	Log     eventstore.LogQuery    `json:"log_query,omitzero"`
	UUID    uuid.UUID              `json:"uuid,omitzero"`
	After   eventstore.Position    `json:"after,omitempty"`
}

type response struct {
	ID       int64                            `json:"id"`
	Events   []wireEvent                      `json:"events,omitempty"`
	Versions map[uuid.UUID]eventstore.Version `json:"versions,omitempty"`
	Stream   wireStream                       `json:"stream,omitzero"`
	Head     eventstore.Position              `json:"head,omitempty"`
	Body     *eventstore.RawBody              `json:"body,omitempty"`
	Error    *wireError                       `json:"error,omitempty"`
}

type wireStream struct {
	Name        string    `json:"name"`
	AggregateID uuid.UUID `json:"aggregate_id"`
}

type wirePart struct {
	Stream wireStream          `json:"stream"`
	Expect *eventstore.Version `json:"expect,omitempty"`
	Events []wireEvent         `json:"events"`
}

// wireEvent has its payloads as bytes: as raw JSON they would be compacted.
type wireEvent struct {
	Position      eventstore.Position `json:"position,omitempty"`
	ID            uuid.UUID           `json:"id"`
	Stream        wireStream          `json:"stream,omitzero"`
	Version       eventstore.Version  `json:"version,omitempty"`
	Type          string              `json:"type"`
	Data          []byte              `json:"data"`
	Metadata      []byte              `json:"metadata"`
	CorrelationID uuid.UUID           `json:"correlation_id"`
	CausationID   uuid.UUID           `json:"causation_id"`
	OccurredAt    time.Time           `json:"occurred_at"`
	RecordedAt    time.Time           `json:"recorded_at,omitzero"`
	Body          *eventstore.RawBody `json:"body,omitempty"`
}

func toWire(s eventstore.StreamID) wireStream {
	return wireStream{Name: s.String(), AggregateID: s.AggregateID()}
}

func (s wireStream) id() eventstore.StreamID {
	return eventstore.StoredStream(s.Name, s.AggregateID)
}

func (e wireEvent) event() eventstore.Event {
	return eventstore.Event{
		Position: e.Position, ID: e.ID, Stream: e.Stream.id(), Version: e.Version, Type: e.Type, Data: e.Data, Metadata: e.Metadata,
		CorrelationID: e.CorrelationID, CausationID: e.CausationID, OccurredAt: e.OccurredAt, RecordedAt: e.RecordedAt,
	}
}

func eventToWire(e eventstore.Event) wireEvent {
	return wireEvent{
		Position: e.Position, ID: e.ID, Stream: toWire(e.Stream), Version: e.Version, Type: e.Type, Data: e.Data, Metadata: e.Metadata,
		CorrelationID: e.CorrelationID, CausationID: e.CausationID, OccurredAt: e.OccurredAt, RecordedAt: e.RecordedAt,
	}
}

func partToWire(a eventstore.StreamAppend) wirePart {
	p := wirePart{Stream: toWire(a.Stream)}
	if v, exact := a.Expected.Exact(); exact {
		p.Expect = &v
	}
	for _, e := range a.Events {
		p.Events = append(p.Events, wireEvent{
			ID: e.ID, Type: e.Type, Data: e.Data, Metadata: e.Metadata,
			CorrelationID: e.CorrelationID, CausationID: e.CausationID, OccurredAt: e.OccurredAt, Body: e.RawBody,
		})
	}
	return p
}

func (p wirePart) part() eventstore.StreamAppend {
	a := eventstore.StreamAppend{Stream: p.Stream.id()}
	if p.Expect != nil {
		a.Expected = eventstore.ExpectVersion(*p.Expect)
	}
	for _, e := range p.Events {
		a.Events = append(a.Events, eventstore.NewEvent{
			ID: e.ID, Type: e.Type, Data: e.Data, Metadata: e.Metadata,
			CorrelationID: e.CorrelationID, CausationID: e.CausationID, OccurredAt: e.OccurredAt, RawBody: e.Body,
		})
	}
	return a
}

// wireError carries the errors of the contract over.
type wireError struct {
	Kind     string             `json:"kind"`
	Text     string             `json:"text"`
	Stream   wireStream         `json:"stream,omitzero"`
	Expected eventstore.Version `json:"expected,omitempty"`
	Actual   eventstore.Version `json:"actual,omitempty"`
}

// sentinels by their kinds, those that wrap others first.
var sentinels = []struct {
	kind string
	err  error
}{
	{"overloaded", eventstore.ErrOverloaded},
	{"unavailable", eventstore.ErrUnavailable},
	{"closed", eventstore.ErrClosed},
	{"reused", eventstore.ErrEventIDReused},
	{"invalid event", eventstore.ErrInvalidEvent},
	{"invalid query", eventstore.ErrInvalidQuery},
	{"incomplete", eventstore.ErrIncomplete},
	{"not found", eventstore.ErrNotFound},
}

const (
	kindConflict = "conflict"
	kindTime     = "time"
	kindOther    = "other"
)

func errorToWire(err error) *wireError {
	if err == nil {
		return nil
	}
	var conflict *eventstore.ConflictError
	if errors.As(err, &conflict) {
		return &wireError{Kind: kindConflict, Text: err.Error(), Stream: toWire(conflict.Stream), Expected: conflict.Expected, Actual: conflict.Actual}
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return &wireError{Kind: s.kind, Text: err.Error()}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &wireError{Kind: kindTime, Text: err.Error()}
	}
	return &wireError{Kind: kindOther, Text: err.Error()}
}

func (e *wireError) err() error {
	for _, s := range sentinels {
		if e.Kind == s.kind {
			return fmt.Errorf("%w, says the other process: %s", s.err, e.Text)
		}
	}
	if e.Kind == kindConflict {
		return &eventstore.ConflictError{Stream: e.Stream.id(), Expected: e.Expected, Actual: e.Actual}
	}
	return errors.New(e.Text)
}

// Serve lets the process at the other end of r and w use store, until r ends, and
// closes it then. What is in control can be asked for by Remote.Control.
func Serve(r io.Reader, w io.Writer, store eventstore.Store, control map[string]func(ctx context.Context) error) (err error) {
	s := &server{store: store, control: control, out: json.NewEncoder(w)}
	var calls sync.WaitGroup
	defer func() {
		err = errors.Join(err, store.Close()) // ends those who wait
		calls.Wait()
	}()
	s.answer(response{}, nil) // ready
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longest)
	for lines.Scan() {
		var q call
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return fmt.Errorf("request from the other process: %w", err)
		}
		calls.Go(func() { s.serve(q) })
	}
	return lines.Err()
}

type server struct {
	store   eventstore.Store
	control map[string]func(ctx context.Context) error
	mu      sync.Mutex
	out     *json.Encoder
}

func (s *server) answer(a response, err error) {
	a.Error = errorToWire(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.out.Encode(a) // whom it is for is gone otherwise
}

func (s *server) serve(q call) {
	ctx := context.Background()
	if q.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.Within)
		defer cancel()
	}
	a := response{ID: q.ID}
	streams := make([]eventstore.StreamID, len(q.Streams))
	for i, stream := range q.Streams {
		streams[i] = stream.id()
	}
	var err error
	switch q.Method {
	case "append":
		parts := make([]eventstore.StreamAppend, len(q.Parts))
		for i, p := range q.Parts {
			parts[i] = p.part()
		}
		var events []eventstore.Event
		events, err = s.store.Append(ctx, parts...)
		for _, e := range events {
			a.Events = append(a.Events, eventToWire(e))
		}
	case "read_stream":
		a.Events, err = collect(s.store.ReadStream(ctx, streams[0], q.Stream))
	case "read_log":
		a.Events, err = collect(s.store.ReadLog(ctx, q.Log))
	case "versions":
		a.Versions, err = s.store.Versions(ctx, streams...)
	case "stream":
		var stream eventstore.StreamID
		stream, err = s.store.Stream(ctx, q.UUID)
		a.Stream = toWire(stream)
	case "log_head":
		a.Head, err = s.store.Head(ctx)
	case "raw_body":
		var body eventstore.RawBody
		body, err = s.store.RawBody(ctx, q.UUID)
		a.Body = &body
	case "wait":
		a.Head, err = s.store.Wait(ctx, q.After)
	case "ping":
		err = s.store.Ping(ctx)
	default:
		f, ok := s.control[q.Method]
		if !ok {
			err = fmt.Errorf("there is no %q", q.Method)
		} else {
			err = f(ctx)
		}
	}
	s.answer(a, err)
}

func collect(events iter.Seq2[eventstore.Event, error]) (out []wireEvent, err error) {
	for e, err := range events {
		if err != nil {
			return out, err
		}
		out = append(out, eventToWire(e))
	}
	return out, nil
}

// Remote is a store in a process of its own, which can be killed and stopped. What
// it is asked for while it is dead is ErrUnavailable.
type Remote struct {
	process *childprocess.Process
	in      io.WriteCloser
	errors  *childprocess.Tail

	mu    sync.Mutex
	next  int64
	calls map[int64]chan response
	gone  bool
}

var _ eventstore.Store = (*Remote)(nil)

// StartRemote starts a process that calls Serve with its standard streams, and
// waits until it is ready. cmd has no context, or one that lives as long as the
// process.
func StartRemote(ctx context.Context, cmd *exec.Cmd) (*Remote, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start another process: %w", err)
	}
	r := &Remote{in: in, errors: &childprocess.Tail{}, calls: make(map[int64]chan response)}
	ready := make(chan response, 1)
	r.calls[0] = ready
	out, answers := io.Pipe()
	cmd.Stdout, cmd.Stderr = answers, r.errors
	if r.process, err = childprocess.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("start another process: %w", err)
	}
	go func() {
		<-r.process.Done()
		_ = answers.Close() // never fails
	}()
	go r.receive(out)
	select {
	case _, ok := <-ready:
		if !ok {
			<-r.process.Done()
			return nil, fmt.Errorf("%w: the other process ended at once: %w\n%s", eventstore.ErrUnavailable, r.process.Err(), r.errors)
		}
		return r, nil
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("start another process: %w", ctx.Err()), r.process.Kill())
	}
}

func (r *Remote) receive(out *io.PipeReader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, longest)
	for lines.Scan() {
		var a response
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			break // killed within a line
		}
		r.mu.Lock()
		answer := r.calls[a.ID]
		delete(r.calls, a.ID)
		r.mu.Unlock()
		if answer != nil {
			answer <- a
		}
	}
	_ = out.Close() // never fails; lets the rest of the output pass
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	for id, answer := range r.calls {
		close(answer)
		delete(r.calls, id)
	}
}

func (r *Remote) do(ctx context.Context, q call) (response, error) {
	if err := ctx.Err(); err != nil {
		return response{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		q.Within = max(time.Until(deadline), 1)
	}
	answer := make(chan response, 1)
	if err := r.send(q, answer); err != nil {
		return response{}, err
	}
	select {
	case a, ok := <-answer:
		switch {
		case !ok:
			return response{}, fmt.Errorf("%w: the other process is dead", eventstore.ErrUnavailable)
		case a.Error != nil && a.Error.Kind == kindTime && q.Within > 0:
			<-ctx.Done() // its clock is ours; it only was a little faster
			return a, ctx.Err()
		case a.Error != nil:
			return a, a.Error.err()
		}
		return a, nil
	case <-ctx.Done():
		return response{}, ctx.Err()
	}
}

func (r *Remote) send(q call, answer chan response) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return fmt.Errorf("%w: the other process is dead", eventstore.ErrUnavailable)
	}
	r.next++
	q.ID = r.next
	line, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := r.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%w: the other process does not listen: %w", eventstore.ErrUnavailable, err)
	}
	r.calls[q.ID] = answer
	return nil
}

// Control calls what Serve was given under that name.
func (r *Remote) Control(ctx context.Context, name string) error {
	_, err := r.do(ctx, call{Method: name})
	return err
}

// Kill ends the process at once (SIGKILL).
func (r *Remote) Kill() error { return r.process.Kill() }

// Signal sends the process a signal.
func (r *Remote) Signal(sig syscall.Signal) error {
	p, err := os.FindProcess(r.process.Pid())
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// Append implements eventstore.Appender.
func (r *Remote) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	q := call{Method: "append"}
	for _, a := range appends {
		q.Parts = append(q.Parts, partToWire(a))
	}
	a, err := r.do(ctx, q)
	if err != nil {
		return nil, err
	}
	events := make([]eventstore.Event, len(a.Events))
	for i, e := range a.Events {
		events[i] = e.event()
	}
	return events, nil
}

// events yields what one call returned: all of it is in memory.
func (r *Remote) events(ctx context.Context, q call) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		a, err := r.do(ctx, q)
		for _, e := range a.Events {
			if !yield(e.event(), nil) {
				return
			}
		}
		if err != nil {
			yield(eventstore.Event{}, err)
		}
	}
}

// ReadStream implements eventstore.Reader.
func (r *Remote) ReadStream(ctx context.Context, stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return r.events(ctx, call{Method: "read_stream", Streams: []wireStream{toWire(stream)}, Stream: q})
}

// ReadLog implements eventstore.Reader.
func (r *Remote) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return r.events(ctx, call{Method: "read_log", Log: q})
}

// Versions implements eventstore.Reader.
func (r *Remote) Versions(ctx context.Context, streams ...eventstore.StreamID) (map[uuid.UUID]eventstore.Version, error) {
	q := call{Method: "versions"}
	for _, stream := range streams {
		q.Streams = append(q.Streams, toWire(stream))
	}
	a, err := r.do(ctx, q)
	return a.Versions, err
}

// Stream implements eventstore.Reader.
func (r *Remote) Stream(ctx context.Context, aggregateID uuid.UUID) (eventstore.StreamID, error) {
	a, err := r.do(ctx, call{Method: "stream", UUID: aggregateID})
	return a.Stream.id(), err
}

// Head implements eventstore.Reader.
func (r *Remote) Head(ctx context.Context) (eventstore.Position, error) {
	a, err := r.do(ctx, call{Method: "log_head"})
	return a.Head, err
}

// RawBody implements eventstore.Reader.
func (r *Remote) RawBody(ctx context.Context, eventID uuid.UUID) (eventstore.RawBody, error) {
	a, err := r.do(ctx, call{Method: "raw_body", UUID: eventID})
	if err != nil {
		return eventstore.RawBody{}, err
	}
	return *a.Body, nil
}

// Wait implements eventstore.Waiter.
func (r *Remote) Wait(ctx context.Context, after eventstore.Position) (eventstore.Position, error) {
	a, err := r.do(ctx, call{Method: "wait", After: after})
	return a.Head, err
}

// Ping implements eventstore.Store.
func (r *Remote) Ping(ctx context.Context) error {
	_, err := r.do(ctx, call{Method: "ping"})
	return err
}

// Close lets the process close its store and end; a dead one is closed already.
func (r *Remote) Close() error {
	_ = r.in.Close() // closed already where the process is dead
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-r.process.Done():
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("the other process did not end within %s", closeGrace), r.process.Kill())
	}
}
