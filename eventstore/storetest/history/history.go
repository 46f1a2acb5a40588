package history

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Kind is what a client asked of a store.
type Kind string

// The kinds of operations.
const (
	Append     Kind = "append"
	ReadStream Kind = "read_stream"
	ReadLog    Kind = "read_log"
	Versions   Kind = "versions"
	Head       Kind = "head"
	Wait       Kind = "wait"
	// Deliver is one event that a subscriber waited for and got. Its first subscription
	// begins at 0, later ones at or before what it has been delivered already.
	Deliver Kind = "deliver"
	// Final is the whole log, read when all is over. A history has one.
	Final Kind = "final"
)

// Outcome is how an operation ended.
type Outcome string

// The outcomes. Reads end in OK, Failed or Broken; what a read yielded before it
// failed is an observation all the same.
const (
	OK       Outcome = "ok"
	Conflict Outcome = "conflict"
	Reused   Outcome = "reused"
	// Failed has certainly not happened.
	Failed Outcome = "failed"
	// Unknown may have happened, and may happen yet.
	Unknown Outcome = "unknown"
	// Broken ended in an error that the contract does not know.
	Broken Outcome = "broken"
)

// Op is an operation of a client. Call and Return are its places in the order of
// all calls and returns of the history; Return is 0 for one that never returned.
type Op struct {
	Client string `json:"client"`
	// Handle is the store that was used, a new name each time one is opened.
	Handle string `json:"handle"`
	Kind   Kind   `json:"kind"`
	Call   int64  `json:"call"`
	Return int64  `json:"return,omitempty"`

	// Parts are what was to be appended.
	Parts []Part `json:"parts,omitempty"`
	// Streams are what was asked for: one by ReadStream, several by Versions.
	Streams []string `json:"streams,omitempty"`
	// After is a version for ReadStream and a position otherwise. For Deliver it is
	// where the subscription began.
	After    int64 `json:"after,omitempty"`
	Backward bool  `json:"backward,omitempty"`
	Limit    int   `json:"limit,omitempty"`
	// Session counts the subscriptions of a subscriber.
	Session int `json:"session,omitempty"`

	Outcome  Outcome                       `json:"outcome"`
	Events   []Event                       `json:"events,omitempty"`
	Versions map[string]eventstore.Version `json:"versions,omitempty"`
	Head     eventstore.Position           `json:"head,omitempty"`
	// Stream, Expected and Actual are what a conflict said.
	Stream   string             `json:"stream,omitempty"`
	Expected eventstore.Version `json:"expected,omitempty"`
	Actual   eventstore.Version `json:"actual,omitempty"`
	Error    string             `json:"error,omitempty"`
}

// Part is one stream's part of an append.
type Part struct {
	Stream string `json:"stream"`
	// Expect is the version expected; nil is any.
	Expect *eventstore.Version `json:"expect,omitempty"`
	Events []New               `json:"events"`
}

// New is an event to be appended.
type New struct {
	ID     uuid.UUID `json:"id"`
	Digest string    `json:"digest"`
}

// Event is an event as a store returned it. Two sights of one event are equal.
type Event struct {
	Position eventstore.Position `json:"position"`
	ID       uuid.UUID           `json:"id"`
	Stream   string              `json:"stream"`
	Version  eventstore.Version  `json:"version"`
	// Digest is over all that the writer has said, byte by byte.
	Digest string `json:"digest"`
	// RecordedAt is in microseconds since 1970.
	RecordedAt int64 `json:"recorded_at"`
}

func newPart(a eventstore.StreamAppend) Part {
	p := Part{Stream: a.Stream.String()}
	if v, exact := a.Expected.Exact(); exact {
		p.Expect = &v
	}
	for _, e := range a.Events {
		p.Events = append(p.Events, New{ID: e.ID, Digest: digest(a.Stream, e)})
	}
	return p
}

func newEvent(e eventstore.Event) Event {
	return Event{
		Position: e.Position, ID: e.ID, Stream: e.Stream.String(), Version: e.Version, RecordedAt: e.RecordedAt.UnixMicro(),
		Digest: digest(e.Stream, eventstore.NewEvent{
			Type: e.Type, Data: e.Data, Metadata: e.Metadata,
			CorrelationID: e.CorrelationID, CausationID: e.CausationID, OccurredAt: e.OccurredAt,
		}),
	}
}

func digest(stream eventstore.StreamID, e eventstore.NewEvent) string {
	h := sha256.New()
	aggregate := stream.AggregateID()
	for _, field := range [][]byte{
		[]byte(stream.String()), aggregate[:], []byte(e.Type), e.Data, e.Metadata, e.CorrelationID[:], e.CausationID[:],
		binary.BigEndian.AppendUint64(nil, uint64(e.OccurredAt.UnixMicro())),
	} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
		h.Write(field)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// String is the operation in a line, long results cut in the middle.
func (op Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%d", op.Call)
	if op.Return != 0 {
		fmt.Fprintf(&b, "–%d] ", op.Return)
	} else {
		b.WriteString("–…] ")
	}
	fmt.Fprintf(&b, "%s on %s: %s", op.Client, op.Handle, op.Kind)
	if op.Session != 0 {
		fmt.Fprintf(&b, " (subscription %d)", op.Session)
	}
	for _, p := range op.Parts {
		expect := "any"
		if p.Expect != nil {
			expect = fmt.Sprint(*p.Expect)
		}
		fmt.Fprintf(&b, " %s@%s", p.Stream, expect)
		for _, e := range p.Events {
			b.WriteString(" " + short(e.ID))
		}
	}
	for _, s := range op.Streams {
		b.WriteString(" " + s)
	}
	if op.After != 0 {
		fmt.Fprintf(&b, " after %d", op.After)
	}
	if op.Backward {
		b.WriteString(" backward")
	}
	if op.Limit != 0 {
		fmt.Fprintf(&b, " limit %d", op.Limit)
	}
	fmt.Fprintf(&b, " → %s", op.Outcome)
	switch {
	case op.Outcome == Conflict:
		fmt.Fprintf(&b, ": %s is at %d, not %d", op.Stream, op.Actual, op.Expected)
	case op.Error != "":
		b.WriteString(": " + strings.ReplaceAll(op.Error, "\n", " "))
	case op.Kind == Head || op.Kind == Wait:
		fmt.Fprintf(&b, " %d", op.Head)
	case op.Kind == Versions:
		for _, s := range op.Streams {
			fmt.Fprintf(&b, " %s=%d", s, op.Versions[s])
		}
	}
	for i, e := range op.Events {
		if i == 3 && len(op.Events) > 6 {
			fmt.Fprintf(&b, " … (%d events)", len(op.Events))
		}
		if i < 3 || i >= len(op.Events)-3 {
			fmt.Fprintf(&b, " %d:%s/%d=%s", e.Position, e.Stream, e.Version, short(e.ID))
		}
	}
	return b.String()
}

// short is the random end of a UUIDv7.
func short(id uuid.UUID) string {
	s := id.String()
	return s[len(s)-8:]
}

// FileEnv names a kept history, to be checked again by TestReplay.
const FileEnv = "KEYTRAIL_HISTORY_FILE"

// A Recorder puts operations into one order. Its methods are safe for concurrent
// use. The zero value is ready.
type Recorder struct {
	sequence atomic.Int64
	answered atomic.Int64

	mu  sync.Mutex
	ops []Op
}

// call notes that op is about to begin.
func (r *Recorder) call(op *Op) { op.Call = r.sequence.Add(1) }

// ended notes that op has ended, with what it has answered.
func (r *Recorder) ended(op Op) {
	op.Return = r.sequence.Add(1)
	r.mu.Lock()
	r.ops = append(r.ops, op)
	r.mu.Unlock()
	if op.Kind != Deliver && (op.Outcome == OK || op.Outcome == Conflict || op.Outcome == Reused) {
		r.answered.Add(1)
	}
}

// Answered is how many operations have been answered; failures and deliveries do not
// count.
func (r *Recorder) Answered() int64 { return r.answered.Load() }

// Ops are what has been recorded, in the order of calls.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	ops := slices.Clone(r.ops)
	slices.SortFunc(ops, func(a, b Op) int { return int(a.Call - b.Call) })
	return ops
}

// Write writes a history as JSON, one operation a line.
func Write(w io.Writer, ops []Op) error {
	buffered := bufio.NewWriter(w)
	encoder := json.NewEncoder(buffered)
	for _, op := range ops {
		if err := encoder.Encode(op); err != nil {
			return fmt.Errorf("write the history: %w", err)
		}
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// Read reads what Write has written.
func Read(r io.Reader) ([]Op, error) {
	var ops []Op
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var op Op
			if err := json.Unmarshal(line, &op); err != nil {
				return nil, fmt.Errorf("read the history, line %d: %w", n, err)
			}
			ops = append(ops, op)
		}
		if errors.Is(err, io.EOF) {
			return ops, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the history: %w", err)
		}
	}
}
