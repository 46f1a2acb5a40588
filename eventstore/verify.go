package eventstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Verifiable is what Verify needs of a store. Every Store has it.
type Verifiable interface {
	ReadStream(ctx context.Context, stream StreamID, q StreamQuery) iter.Seq2[Event, error]
	ReadLog(ctx context.Context, q LogQuery) iter.Seq2[Event, error]
	Versions(ctx context.Context, streams ...StreamID) (map[uuid.UUID]Version, error)
	Head(ctx context.Context) (Position, error)
}

// What a store may offer to Verify beyond that.
type (
	// logBeginner tells the first position that the log can have, above 1 where older
	// events are kept elsewhere.
	logBeginner interface {
		FirstPosition(ctx context.Context) (Position, error)
	}
	// streamCounter counts the rows of the gate.
	streamCounter interface {
		CountStreams(ctx context.Context) (int64, error)
	}
	// bodyKeeper yields every raw body, in the order of event ids.
	bodyKeeper interface {
		RawBodies(ctx context.Context) iter.Seq2[KeptBody, error]
	}
	// fileChecker looks for damage below the level of rows, and describes it.
	fileChecker interface {
		CheckFile(ctx context.Context) (damage []string, err error)
	}
)

// ErrNotEmpty says that a store has events already, so that no backup can be loaded
// into it.
var ErrNotEmpty = errors.New("the event store has events already")

// KeptBody is a raw body with all that a store keeps of it.
type KeptBody struct {
	EventID uuid.UUID
	RawBody
	RecordedAt time.Time
	// Digest is "sha256:" and the hexadecimal SHA-256 of the bytes, as recorded.
	Digest string
}

// BodyDigest is the digest of a raw body.
func BodyDigest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Verification is what Verify found.
type Verification struct {
	// First is the first position that the log can have: above 1 where older events are
	// kept elsewhere. Then versions are verified from the first that is there. Head is
	// the position up to which the log was verified, Events how many events were read,
	// Streams how many streams they belong to.
	First   Position `json:"first_position"`
	Head    Position `json:"head"`
	Events  int64    `json:"events"`
	Streams int64    `json:"streams"`
	// RawBodies is nil where the store does not list them.
	RawBodies *int64 `json:"raw_bodies"`
	// FaultsTotal counts all faults; Faults are the first of them, at most MaxFaults.
	FaultsTotal int64   `json:"faults_total"`
	Faults      []Fault `json:"faults"`
}

// MaxFaults is how many faults a Verification lists.
const MaxFaults = 100

// Sound reports whether nothing is wrong.
func (v *Verification) Sound() bool { return v.FaultsTotal == 0 }

// FaultKind says what is wrong.
type FaultKind string

// The kinds of faults.
const (
	FaultPosition   FaultKind = "position"    // positions are not 1, 2, 3 …
	FaultVersion    FaultKind = "version"     // a stream's versions are not 1, 2, 3 … along the log
	FaultEventID    FaultKind = "event_id"    // an id is nil, used twice, or does not find its event: a repeat would not be recognised
	FaultStream     FaultKind = "stream"      // a stream's name and its aggregate id do not belong together
	FaultGate       FaultKind = "gate"        // the gate and the log disagree: appends would conflict, or break the stream
	FaultContent    FaultKind = "content"     // data or metadata is not a JSON object in UTF-8, or the type is none
	FaultRecordedAt FaultKind = "recorded_at" // the recording time is missing or in the future
	FaultRawBody    FaultKind = "raw_body"    // a raw body does not have its digest
	FaultUnreadable FaultKind = "unreadable"  // the database is damaged, or a row of it: what lies behind was not verified
)

// Fault is one thing that is wrong with a store.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Position is the event's, 0 where it concerns none.
	Position Position `json:"position,omitempty"`
	Stream   string   `json:"stream,omitempty"`
	Detail   string   `json:"detail"`
}

func (f Fault) String() string {
	switch {
	case f.Position != 0 && f.Stream != "":
		return fmt.Sprintf("%s: position %d, stream %s: %s", f.Kind, f.Position, f.Stream, f.Detail)
	case f.Position != 0:
		return fmt.Sprintf("%s: position %d: %s", f.Kind, f.Position, f.Detail)
	case f.Stream != "":
		return fmt.Sprintf("%s: stream %s: %s", f.Kind, f.Stream, f.Detail)
	}
	return fmt.Sprintf("%s: %s", f.Kind, f.Detail)
}

// VerifyOptions are what Verify may be given. The zero value is good.
type VerifyOptions struct {
	// Now, where not zero, is the time that no event may have been recorded after, a
	// day's difference of clocks left aside.
	Now time.Time
	// Progress hears how many of how many events have been read, after each page.
	Progress func(done, total int64)
	// Event sees every event once, in the order of positions, and RawBody every raw body.
	Event   func(Event)
	RawBody func(KeptBody)
}

const (
	// verifyPage is how many events, or streams of the gate, are looked up at once.
	verifyPage = 500
	// verifyStreams is how many streams are remembered at once, about 150 MiB. Where
	// there are more, the log is read again for each further part of them.
	verifyStreams = 4 << 20
	// clockTolerance is how far the clocks of the machines that write may differ.
	clockTolerance = 24 * time.Hour
)

// Verify reads the log up to the head that it finds at its start and looks for
// everything that breaks a promise of this package: see the kinds of faults. It goes
// on after a fault. Writers may be at work meanwhile. Memory is bounded; time grows
// with the log.
//
// Where the store offers them, it also looks at the gate's size, at the digests of the
// raw bodies and at the database file.
//
// Errors: ErrUnavailable, ErrClosed, or the context's; what was found until then is
// returned with them.
func Verify(ctx context.Context, store Verifiable, o VerifyOptions) (*Verification, error) {
	v := &verifier{store: store, o: o, found: &Verification{Faults: []Fault{}}, maxStreams: verifyStreams, parts: 1}
	return v.found, v.run(ctx)
}

type verifier struct {
	store Verifiable
	o     VerifyOptions
	found *Verification

	// versions are the newest of each stream of the part that this pass looks at. There
	// are parts passes, a power of two.
	versions    map[uuid.UUID]Version
	maxStreams  int
	part, parts uint64
	page        []Event
	// cut is true where the log could not be read to its end.
	cut bool
}

func (v *verifier) run(ctx context.Context) (err error) {
	if v.found.Head, err = v.store.Head(ctx); err != nil {
		return v.unreadable(err, "read the head of the log")
	}
	v.found.First = 1
	if beginner, ok := v.store.(logBeginner); ok {
		first, err := beginner.FirstPosition(ctx)
		if err := v.unreadable(err, "look for the beginning of the log"); err != nil {
			return err
		}
		v.found.First = max(first, 1)
	}
	if file, ok := v.store.(fileChecker); ok {
		damage, err := file.CheckFile(ctx)
		if err := v.unreadable(err, "check the database file"); err != nil {
			return err
		}
		for _, d := range damage {
			v.fault(Fault{Kind: FaultUnreadable, Detail: d})
		}
	}
	for v.part = 0; v.part < v.parts; v.part++ {
		v.versions = make(map[uuid.UUID]Version)
		if err := v.readLog(ctx); err != nil {
			return err
		}
		v.found.Streams += int64(len(v.versions))
		if v.cut {
			continue // the gate would be ahead everywhere
		}
		if err := v.compareGate(ctx); err != nil {
			return err
		}
	}
	if !v.cut {
		if err := v.countGate(ctx); err != nil {
			return err
		}
	}
	return v.readBodies(ctx)
}

func (v *verifier) fault(f Fault) {
	v.found.FaultsTotal++
	if len(v.found.Faults) < MaxFaults {
		v.found.Faults = append(v.found.Faults, f)
	}
}

func (v *verifier) eventFault(e Event, kind FaultKind, format string, args ...any) {
	v.fault(Fault{Kind: kind, Position: e.Position, Stream: e.Stream.String(), Detail: fmt.Sprintf(format, args...)})
}

// unreadable makes a fault of an error that lies in what is stored, and returns those
// that do not.
func (v *verifier) unreadable(err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("verify the event store: %s: %w", doing, err)
	}
	v.fault(Fault{Kind: FaultUnreadable, Detail: doing + ": " + err.Error()})
	return nil
}

// readLog is one pass over the log. The first looks at everything, the others at
// their part of the streams alone.
func (v *verifier) readLog(ctx context.Context) error {
	first := v.part == 0
	last := v.found.First - 1
	for e, err := range v.store.ReadLog(ctx, LogQuery{After: last, Before: v.found.Head + 1}) {
		if err != nil {
			if !first {
				return nil // told already
			}
			if err := v.flush(ctx); err != nil {
				return err
			}
			v.cut = true
			return v.unreadable(err, fmt.Sprintf("read the log behind position %d", last))
		}
		v.version(e)
		if !first {
			continue
		}
		if e.Position != last+1 {
			v.eventFault(e, FaultPosition, "it follows position %d", last)
		}
		last = e.Position
		v.event(e)
		v.page = append(v.page, e)
		if len(v.page) == verifyPage {
			if err := v.flush(ctx); err != nil {
				return err
			}
		}
	}
	if !first {
		return nil
	}
	if err := v.flush(ctx); err != nil {
		return err
	}
	if last != v.found.Head && v.found.Head > 0 {
		v.fault(Fault{Kind: FaultPosition, Detail: fmt.Sprintf("the log ends at position %d and its head is said to be %d", last, v.found.Head)})
	}
	return nil
}

// event looks at one event by itself.
func (v *verifier) event(e Event) {
	v.found.Events++
	if v.o.Event != nil {
		v.o.Event(e)
	}
	if e.ID == uuid.Nil {
		v.eventFault(e, FaultEventID, "it is nil")
	}
	if len(e.Type) == 0 || len(e.Type) > maxType || !utf8.ValidString(e.Type) {
		v.eventFault(e, FaultContent, "the type %.40q is none", e.Type)
	}
	if !isObject(e.Data) {
		v.eventFault(e, FaultContent, "the data is not a JSON object")
	}
	if !isObject(e.Metadata) {
		v.eventFault(e, FaultContent, "the metadata is not a JSON object")
	}
	if !belongTogether(e.Stream) {
		v.eventFault(e, FaultStream, "its aggregate id %s is that of another stream", e.Stream.AggregateID())
	}
	switch {
	case e.RecordedAt.Year() <= 1:
		v.eventFault(e, FaultRecordedAt, "it is missing")
	case !v.o.Now.IsZero() && e.RecordedAt.After(v.o.Now.Add(clockTolerance)):
		v.eventFault(e, FaultRecordedAt, "%s is in the future", e.RecordedAt.Format(time.RFC3339))
	}
}

// maxType is what NewEvent says of Type.
const maxType = 255

func isObject(b json.RawMessage) bool {
	for _, c := range b {
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		}
		return c == '{' && utf8.Valid(b) && json.Valid(b)
	}
	return false
}

// belongTogether reports whether a stream's name and its aggregate id do: see
// NamedStream and UUIDStream.
func belongTogether(s StreamID) bool {
	if s.IsZero() {
		return false
	}
	if s.AggregateID() == uuid.NewSHA1(streamNamespace, []byte(s.String())) {
		return true
	}
	return s.String() == joinName(s.Category(), []string{s.AggregateID().String()})
}

// partOf is the pass that a stream belongs to. The low bits of a UUID are random,
// whatever its version.
func (v *verifier) partOf(id uuid.UUID) uint64 {
	var low uint64
	for _, b := range id[8:] {
		low = low<<8 | uint64(b)
	}
	return low & (v.parts - 1)
}

// version compares an event's version with the one before it in its stream.
func (v *verifier) version(e Event) {
	id := e.Stream.AggregateID()
	if v.partOf(id) != v.part {
		return
	}
	if before, seen := v.versions[id]; e.Version != before+1 && (seen || v.found.First == 1) {
		v.eventFault(e, FaultVersion, "version %d follows version %d", e.Version, before)
	}
	v.versions[id] = e.Version
	if v.part > 0 {
		return // as many as a part has
	}
	for len(v.versions) > v.maxStreams {
		v.parts *= 2
		for id := range v.versions {
			if v.partOf(id) != 0 {
				delete(v.versions, id)
			}
		}
	}
}

// flush asks for the events of a page by their ids, each of which must find its own
// event and no other.
func (v *verifier) flush(ctx context.Context) error {
	defer func() { v.page = v.page[:0] }()
	if len(v.page) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(v.page))
	for i, e := range v.page {
		ids[i] = e.ID
	}
	positions := make(map[uuid.UUID][]Position, len(ids))
	for e, err := range v.store.ReadLog(ctx, LogQuery{EventIDs: ids}) {
		if err != nil {
			return v.unreadable(err, fmt.Sprintf("look for the events up to position %d by their ids", v.page[len(v.page)-1].Position))
		}
		positions[e.ID] = append(positions[e.ID], e.Position)
	}
	for _, e := range v.page {
		switch at := positions[e.ID]; {
		case len(at) == 0:
			v.eventFault(e, FaultEventID, "%s does not find it", e.ID)
		case len(at) > 1:
			v.eventFault(e, FaultEventID, "%s is used at the positions %d", e.ID, at)
		case at[0] != e.Position:
			v.eventFault(e, FaultEventID, "%s finds the event at position %d", e.ID, at[0])
		}
	}
	if v.o.Progress != nil {
		v.o.Progress(v.found.Events, int64(v.found.Head))
	}
	return nil
}

// compareGate compares the versions of the gate with those of the log.
func (v *verifier) compareGate(ctx context.Context) error {
	streams := make([]StreamID, 0, verifyPage)
	compare := func() error {
		gate, err := v.store.Versions(ctx, streams...)
		if err != nil {
			return v.unreadable(err, "read the gate")
		}
		for _, s := range streams {
			if err := v.compareStream(ctx, s, gate[s.AggregateID()]); err != nil {
				return err
			}
		}
		streams = streams[:0]
		return nil
	}
	for id := range v.versions {
		streams = append(streams, StoredStream("", id))
		if len(streams) == verifyPage {
			if err := compare(); err != nil {
				return err
			}
		}
	}
	return compare()
}

func (v *verifier) compareStream(ctx context.Context, s StreamID, gate Version) error {
	inLog := v.versions[s.AggregateID()]
	if gate == inLog {
		return nil
	}
	// It may have been appended to since; its events then lie behind the head.
	until := inLog
	for e, err := range v.store.ReadStream(ctx, s, StreamQuery{After: inLog}) {
		if errors.Is(err, ErrIncomplete) {
			break // what the gate knows of is not in the log
		}
		if err != nil {
			return v.unreadable(err, "read stream "+s.AggregateID().String())
		}
		if e.Position > v.found.Head && e.Version == until+1 {
			until = e.Version
		}
		if until == gate {
			return nil
		}
	}
	name := s.AggregateID().String()
	for e, err := range v.store.ReadStream(ctx, s, StreamQuery{Backward: true, Limit: 1}) {
		if err == nil {
			name = e.Stream.String()
		}
	}
	v.fault(Fault{Kind: FaultGate, Stream: name, Detail: fmt.Sprintf("the gate has version %d, the log %d", gate, until)})
	return nil
}

// countGate looks for streams that only the gate has.
func (v *verifier) countGate(ctx context.Context) error {
	counter, ok := v.store.(streamCounter)
	if !ok {
		return nil
	}
	const doing = "count the streams of the gate"
	count, err := counter.CountStreams(ctx)
	if err != nil {
		return v.unreadable(err, doing)
	}
	// Streams that have begun meanwhile are no fault.
	begun := v.found.Streams
	for e, err := range v.store.ReadLog(ctx, LogQuery{After: v.found.Head}) {
		if err != nil {
			return v.unreadable(err, doing)
		}
		if e.Version == 1 {
			begun++
		}
		if begun >= count {
			break
		}
	}
	if count > begun && v.found.First == 1 {
		v.fault(Fault{Kind: FaultGate, Detail: fmt.Sprintf("the gate has %d streams, the log %d", count, begun)})
	}
	return nil
}

func (v *verifier) readBodies(ctx context.Context) error {
	keeper, ok := v.store.(bodyKeeper)
	if !ok {
		return nil
	}
	v.found.RawBodies = new(int64)
	for body, err := range keeper.RawBodies(ctx) {
		if err != nil {
			return v.unreadable(err, "read the raw bodies")
		}
		*v.found.RawBodies++
		if v.o.RawBody != nil {
			v.o.RawBody(body)
		}
		if body.Digest != BodyDigest(body.Bytes) {
			v.fault(Fault{Kind: FaultRawBody, Detail: fmt.Sprintf("the body of event %s does not have its digest", body.EventID)})
		}
	}
	return nil
}
