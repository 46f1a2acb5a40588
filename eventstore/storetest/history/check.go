package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Fault is a kind of anomaly.
type Fault string

// What Check finds.
const (
	// Malformed histories say nothing about a store.
	Malformed Fault = "malformed history"

	PositionGap Fault = "positions are not 1, 2, 3 …"
	VersionGap  Fault = "versions of a stream are not 1, 2, 3 …"
	DoubledID   Fault = "an event id is in the log twice"
	MadeUp      Fault = "an event that nobody appended"
	Altered     Fault = "an event that is not what was appended, or not the same everywhere"
	Vanished    Fault = "an event was seen and is not in the log"
	TornAppend  Fault = "an append is in the log in part, or not in one piece"

	LostAppend        Fault = "an acknowledged append is not in the log"
	PhantomAppend     Fault = "an append that was refused is in the log"
	BrokenExpectation Fault = "an append is in the log although its stream was not at the version expected"
	WrongConflict     Fault = "a conflict without a reason"
	WrongReuse        Fault = "ids were called used that were not"

	WrongResult Fault = "a read answered what was not asked"
	TornRead    Fault = "one answer shows states that never were together"
	StaleRead   Fault = "an operation saw less than had been seen before it was called"
	// WentBack is a StaleRead within one client.
	WentBack  Fault = "a client saw less than it had seen itself before"
	FromLater Fault = "an operation depends on an append that was called after it had returned"

	DeliveryGap      Fault = "a subscription left something out"
	DeliveryRepeated Fault = "a subscription delivered something again, or out of order"
	Unfinished       Fault = "a subscriber has not come to the end of the log"

	ClockBack  Fault = "recording times of one process go back along positions"
	NoContract Fault = "an error that the contract does not know"
)

// An Anomaly is a broken promise and what shows it.
type Anomaly struct {
	Fault  Fault
	Detail string
	Ops    []Op
}

func (a Anomaly) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", a.Fault, a.Detail)
	for _, op := range a.Ops {
		b.WriteString("\n    " + op.String())
	}
	return b.String()
}

// Check returns all that is wrong with a history, nil when nothing is. It reads
// the history only and takes O(n log n).
func Check(ops []Op) []Anomaly {
	c := &checker{ops: ops}
	if !c.wellFormed() || !c.wholeLog() {
		return c.found // what follows rests on positions and versions
	}
	c.commits()
	c.appends()
	c.bounds()
	c.realTime()
	c.subscriptions()
	c.clocks()
	return c.found
}

type checker struct {
	ops   []Op
	found []Anomaly

	log     []Event // log[i] has position i+1
	index   map[uuid.UUID]int
	streams map[string][]eventstore.Position // by version-1

	requests map[string]*request // by key
	byID     map[uuid.UUID][]*request
	// commit of the event at position i+1; nil where it is none.
	commit []*request

	low, high []eventstore.Position // by operation
}

// A request is an append and its repetitions: all with the same ids.
type request struct {
	events []requested
	ops    []int
	// first and last are its positions, 0 when it is not in the log.
	first, last eventstore.Position
}

type requested struct {
	New
	stream string
}

func (c *checker) report(f Fault, ops []int, format string, args ...any) {
	a := Anomaly{Fault: f, Detail: fmt.Sprintf(format, args...)}
	for _, i := range ops {
		if i >= 0 {
			a.Ops = append(a.Ops, c.ops[i])
		}
	}
	c.found = append(c.found, a)
}

func (c *checker) wellFormed() bool {
	last := make(map[string]int)
	byCall := c.sorted(func(op Op) int64 { return op.Call })
	finals := 0
	for _, i := range byCall {
		op := c.ops[i]
		if op.Call <= 0 || op.Return != 0 && op.Return <= op.Call || op.Return == 0 && op.Outcome != Unknown {
			c.report(Malformed, []int{i}, "an operation returns after it is called, or its outcome is unknown")
		}
		if op.After < 0 || op.Limit < 0 {
			c.report(Malformed, []int{i}, "nothing lies before the beginning")
		}
		if p, ok := last[op.Client]; ok && (c.ops[p].Return == 0 || c.ops[p].Return > op.Call) {
			c.report(Malformed, []int{p, i}, "a client does one thing at a time")
		}
		last[op.Client] = i
		switch op.Kind {
		case Final:
			finals++
			c.log = op.Events
			if op.Outcome != OK {
				c.report(Malformed, []int{i}, "the final log has been read")
			}
		case Append:
			if len(op.Parts) == 0 {
				c.report(Malformed, []int{i}, "an append has parts")
			}
		case Deliver:
			if len(op.Events) > 1 {
				c.report(Malformed, []int{i}, "a delivery has one event")
			}
		case ReadStream:
			if len(op.Streams) != 1 {
				c.report(Malformed, []int{i}, "a stream read names one stream")
			}
		case ReadLog, Versions, Head, Wait:
		default:
			c.report(Malformed, []int{i}, "kind %q", op.Kind)
		}
	}
	if finals != 1 {
		c.report(Malformed, nil, "%d final logs, not one", finals)
	}
	return len(c.found) == 0
}

func (c *checker) sorted(by func(Op) int64) []int {
	order := make([]int, len(c.ops))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(by(c.ops[a]), by(c.ops[b])) })
	return order
}

func (c *checker) wholeLog() bool {
	c.index = make(map[uuid.UUID]int, len(c.log))
	c.streams = make(map[string][]eventstore.Position)
	for i, e := range c.log {
		if e.Position != eventstore.Position(i+1) {
			c.report(PositionGap, nil, "event %d of the log has position %d: %s", i+1, e.Position, e)
		}
		if want := eventstore.Version(len(c.streams[e.Stream]) + 1); e.Version != want {
			c.report(VersionGap, nil, "version %d is expected next: %s", want, e)
		}
		c.streams[e.Stream] = append(c.streams[e.Stream], eventstore.Position(i+1))
		if p, twice := c.index[e.ID]; twice {
			c.report(DoubledID, nil, "%s and %s", c.log[p], e)
		}
		c.index[e.ID] = i
	}
	return len(c.found) == 0
}

// String names the event.
func (e Event) String() string {
	return fmt.Sprintf("event %s at position %d, version %d of %s, with digest %s", e.ID, e.Position, e.Version, e.Stream, e.Digest)
}

// commits finds out which append wrote which positions.
func (c *checker) commits() {
	c.requests = make(map[string]*request)
	c.byID = make(map[uuid.UUID][]*request)
	for i, op := range c.ops {
		if op.Kind != Append {
			continue
		}
		key := appendKey(op)
		r, ok := c.requests[key]
		if !ok {
			r = &request{}
			for _, p := range op.Parts {
				for _, e := range p.Events {
					r.events = append(r.events, requested{New: e, stream: p.Stream})
					c.byID[e.ID] = append(c.byID[e.ID], r)
				}
			}
			c.requests[key] = r
		}
		r.ops = append(r.ops, i)
	}
	c.commit = make([]*request, len(c.log))
	for p := 0; p < len(c.log); {
		r := c.committedAt(p)
		if r == nil {
			p++
			continue
		}
		r.first, r.last = eventstore.Position(p+1), eventstore.Position(p+len(r.events))
		for range r.events {
			c.commit[p] = r
			p++
		}
	}
}

func appendKey(op Op) string {
	var b strings.Builder
	for _, p := range op.Parts {
		for _, e := range p.Events {
			fmt.Fprintf(&b, "%s %s %s\n", p.Stream, e.ID, e.Digest)
		}
	}
	return b.String()
}

// committedAt is the append whose events begin at log[p]; where there is none that
// is reported.
func (c *checker) committedAt(p int) *request {
	e := c.log[p]
	var best *request
	whole, same := false, false
	var candidates []int
	for _, r := range c.byID[e.ID] {
		candidates = append(candidates, r.ops...)
		for _, n := range r.events {
			same = same || n.ID == e.ID && n.Digest == e.Digest && n.stream == e.Stream
		}
		if r.at(c.log[p:]) && (best == nil || len(r.events) > len(best.events)) {
			best, whole = r, true
		}
	}
	switch {
	case whole:
		return best
	case len(candidates) == 0:
		c.report(MadeUp, nil, "%s", e)
	case same:
		c.report(TornAppend, candidates, "%s stands without the others", e)
	default:
		c.report(Altered, candidates, "in the log is %s", e)
	}
	return nil
}

// at reports whether the events are the beginning of log.
func (r *request) at(log []Event) bool {
	if len(log) < len(r.events) {
		return false
	}
	for i, n := range r.events {
		if e := log[i]; e.ID != n.ID || e.Digest != n.Digest || e.Stream != n.stream {
			return false
		}
	}
	return true
}

func (c *checker) appends() {
	for i, op := range c.ops {
		if op.Outcome == Broken {
			c.report(NoContract, []int{i}, "%s", op.Error)
		}
		if op.Kind != Append || op.Outcome != OK {
			continue
		}
		r := c.requests[appendKey(op)]
		if r.first == 0 {
			c.report(LostAppend, []int{i}, "%d events acknowledged", len(op.Events))
			continue
		}
		if !slices.Equal(op.Events, c.log[r.first-1:r.last]) {
			c.report(Altered, []int{i}, "in the log are %s", c.log[r.first-1:r.last])
		}
	}
	for _, r := range c.inLog() {
		possible, held := false, false
		for _, i := range r.ops {
			if op := c.ops[i]; op.Outcome == OK || op.Outcome == Unknown || op.Outcome == Broken {
				possible = true
				held = held || c.held(op, r.first)
			}
		}
		switch {
		case !possible:
			c.report(PhantomAppend, r.ops, "it is at position %d", r.first)
		case !held:
			c.report(BrokenExpectation, r.ops, "in the log are %s", c.log[r.first-1:r.last])
		}
	}
}

// inLog are the committed appends in the order of positions.
func (c *checker) inLog() []*request {
	var out []*request
	for _, r := range c.commit {
		if r != nil && (len(out) == 0 || out[len(out)-1] != r) {
			out = append(out, r)
		}
	}
	return out
}

// held reports whether the streams were at the versions that op expects when it was
// written to position first.
func (c *checker) held(op Op, first eventstore.Position) bool {
	p := int(first) - 1
	for _, part := range op.Parts {
		if part.Expect != nil && *part.Expect != c.log[p].Version-1 {
			return false
		}
		p += len(part.Events)
	}
	return true
}

// bounds says for each operation between which states of the log it took place.
func (c *checker) bounds() {
	end := eventstore.Position(len(c.log))
	c.low = make([]eventstore.Position, len(c.ops))
	c.high = make([]eventstore.Position, len(c.ops))
	for i, op := range c.ops {
		c.high[i] = end
		c.eventsSeen(i, op)
		switch {
		case op.Kind == Append:
			c.boundAppend(i, op)
		case op.Kind == ReadStream:
			c.boundReadStream(i, op)
		case op.Kind == ReadLog:
			c.boundReadLog(i, op)
		case op.Outcome != OK:
		case op.Kind == Versions:
			for _, s := range op.Streams {
				c.boundVersion(i, s, op.Versions[s])
			}
		case op.Kind == Head:
			c.boundHead(i, op.Head, true)
		case op.Kind == Wait:
			if int64(op.Head) <= op.After {
				c.report(WrongResult, []int{i}, "it waited for more than %d and was told %d", op.After, op.Head)
			}
			c.boundHead(i, op.Head, false)
		}
		if c.low[i] > c.high[i] {
			c.report(TornRead, []int{i}, "it has seen an append up to position %d, but not the state after position %d",
				c.low[i], c.high[i])
			c.low[i], c.high[i] = 0, end // one finding is enough
		}
	}
}

// eventsSeen compares every event that was returned with the log.
func (c *checker) eventsSeen(i int, op Op) {
	if op.Kind == Final || op.Kind == Append {
		return // the log itself; compared by appends
	}
	for _, e := range op.Events {
		p, ok := c.index[e.ID]
		switch {
		case !ok:
			c.report(Vanished, []int{i}, "%s", e)
		case c.log[p] != e:
			c.report(Altered, []int{i}, "it has seen %s, recorded at %d; in the log is %s, recorded at %d", e, e.RecordedAt, c.log[p], c.log[p].RecordedAt)
		default:
			c.low[i] = max(c.low[i], c.commitEnd(e.Position))
		}
	}
}

// commitEnd is the last position of the append that wrote p: no state lies within
// an append.
func (c *checker) commitEnd(p eventstore.Position) eventstore.Position {
	if r := c.commit[p-1]; r != nil {
		return r.last
	}
	return p
}

// commitStart is the state before the append that wrote p.
func (c *checker) commitStart(p eventstore.Position) eventstore.Position {
	if r := c.commit[p-1]; r != nil {
		return r.first - 1
	}
	return p - 1
}

// boundVersion notes that operation i found the stream at version v.
func (c *checker) boundVersion(i int, stream string, v eventstore.Version) {
	positions := c.streams[stream]
	if v < 0 || int(v) > len(positions) {
		c.report(Vanished, []int{i}, "stream %s has never come to version %d, it ends at %d", stream, v, len(positions))
		return
	}
	if v > 0 {
		c.low[i] = max(c.low[i], c.commitEnd(positions[v-1]))
	}
	if int(v) < len(positions) {
		c.high[i] = min(c.high[i], c.commitStart(positions[v]))
	}
}

// boundHead notes that operation i found the log to end at p, or not before.
func (c *checker) boundHead(i int, p eventstore.Position, exact bool) {
	if p < 0 || int(p) > len(c.log) {
		c.report(Vanished, []int{i}, "the log has never come to position %d, it ends at %d", p, len(c.log))
		return
	}
	if p > 0 {
		c.low[i] = max(c.low[i], c.commitEnd(p))
	}
	if exact {
		c.high[i] = min(c.high[i], p)
	}
}

func (c *checker) boundAppend(i int, op Op) {
	r := c.requests[appendKey(op)]
	switch op.Outcome {
	case OK:
		c.low[i] = r.last
	case Conflict:
		if r.first > 0 { // by another try: this one did not find it
			c.high[i] = min(c.high[i], r.first-1)
		}
		c.boundConflict(i, op)
	case Reused:
		seen := eventstore.Position(math.MaxInt64)
		for _, e := range r.events {
			if p, ok := c.index[e.ID]; ok && c.commit[p] != r {
				seen = min(seen, c.commitEnd(eventstore.Position(p+1)))
			}
		}
		if seen == math.MaxInt64 {
			c.report(WrongReuse, []int{i}, "none of its ids is recorded with other content")
			return
		}
		c.low[i] = seen
	case Failed, Unknown, Broken:
	}
}

// boundConflict: the version found counts the events that earlier parts of the
// same append have for the stream. Where several parts expect what the conflict
// says, each of them may have been meant, and the bounds enclose all.
func (c *checker) boundConflict(i int, op Op) {
	low, high := c.low[i], c.high[i]
	var lows, highs []eventstore.Position
	earlier := eventstore.Version(0)
	for _, p := range op.Parts {
		if p.Stream != op.Stream {
			continue
		}
		if before := op.Actual - earlier; p.Expect != nil && *p.Expect == op.Expected && op.Actual != op.Expected &&
			before >= 0 && int(before) <= len(c.streams[op.Stream]) {
			c.low[i], c.high[i] = low, high
			c.boundVersion(i, op.Stream, before)
			lows, highs = append(lows, c.low[i]), append(highs, c.high[i])
		}
		earlier += eventstore.Version(len(p.Events))
	}
	if len(lows) == 0 {
		c.report(WrongConflict, []int{i}, "nothing in the append expects what the conflict says of %s, which ends at version %d", op.Stream, len(c.streams[op.Stream]))
		return
	}
	c.low[i], c.high[i] = slices.Min(lows), slices.Max(highs)
}

func (c *checker) boundReadStream(i int, op Op) {
	stream := op.Streams[0]
	after := eventstore.Version(op.After)
	n := len(op.Events)
	whole := op.Outcome == OK && (op.Limit == 0 || n < op.Limit)
	wrong := op.Limit > 0 && n > op.Limit
	for k, e := range op.Events {
		want := after + 1 + eventstore.Version(k)
		if op.Backward {
			want = op.Events[0].Version - eventstore.Version(k)
		}
		wrong = wrong || e.Stream != stream || e.Version != want || e.Version <= after
	}
	if op.Backward && n > 0 && whole && op.Events[n-1].Version != after+1 {
		wrong = true
	}
	if wrong {
		c.report(WrongResult, []int{i}, "these are not the versions asked for, in order")
		return
	}
	switch {
	case n == 0 && whole:
		if int(after) < len(c.streams[stream]) {
			c.high[i] = min(c.high[i], c.commitStart(c.streams[stream][after]))
		}
	case n > 0 && op.Backward:
		c.boundVersion(i, stream, op.Events[0].Version)
	case n > 0 && whole:
		c.boundVersion(i, stream, op.Events[n-1].Version)
	}
}

func (c *checker) boundReadLog(i int, op Op) {
	after := eventstore.Position(op.After)
	n := len(op.Events)
	whole := op.Outcome == OK && (op.Limit == 0 || n < op.Limit)
	wrong := op.Limit > 0 && n > op.Limit
	for k, e := range op.Events {
		want := after + 1 + eventstore.Position(k)
		if op.Backward {
			want = op.Events[0].Position - eventstore.Position(k)
		}
		wrong = wrong || e.Position != want || e.Position <= after
	}
	if op.Backward && n > 0 && whole && op.Events[n-1].Position != after+1 {
		wrong = true
	}
	if wrong {
		c.report(WrongResult, []int{i}, "these are not the positions asked for, in order")
		return
	}
	switch {
	case n == 0 && whole:
		if int(after) < len(c.log) {
			c.high[i] = min(c.high[i], c.commitStart(after+1))
		}
	case n > 0 && op.Backward:
		c.boundHead(i, op.Events[0].Position, true)
	case n > 0 && whole:
		c.boundHead(i, op.Events[n-1].Position, true)
	}
}

// realTime compares the order of states with the order of calls and returns.
func (c *checker) realTime() {
	// called[p] is when the last of the appends up to position p was called first,
	// and by whom.
	type calling struct {
		at int64
		op int
	}
	called := make([]calling, len(c.log)+1)
	called[0] = calling{op: -1}
	for p, r := range c.commit {
		called[p+1] = called[p]
		if r == nil {
			continue
		}
		first := calling{at: math.MaxInt64, op: -1}
		for _, i := range r.ops {
			op := c.ops[i]
			if (op.Outcome == OK || op.Outcome == Unknown || op.Outcome == Broken) && op.Call < first.at {
				first = calling{at: op.Call, op: i}
			}
		}
		if first.op >= 0 && first.at > called[p+1].at {
			called[p+1] = first
		}
	}

	byReturn := c.sorted(func(op Op) int64 { return op.Return })
	next, seen, seenBy := 0, eventstore.Position(0), -1
	own := make(map[string]int) // the operation by which a client has seen most
	for _, i := range c.sorted(func(op Op) int64 { return op.Call }) {
		op := c.ops[i]
		if op.Kind == Final {
			continue
		}
		for ; next < len(byReturn) && c.ops[byReturn[next]].Return < op.Call; next++ {
			// Return 0 sorts first, and an operation that never returned has seen nothing.
			if j := byReturn[next]; c.low[j] > seen {
				seen, seenBy = c.low[j], j
			}
		}
		const went = "the first has seen the log up to position %d at least, the second, called after it had returned, up to %d at most"
		before, again := own[op.Client]
		switch {
		case again && c.high[i] < c.low[before]:
			c.report(WentBack, []int{before, i}, went, c.low[before], c.high[i])
		case c.high[i] < seen:
			c.report(StaleRead, []int{seenBy, i}, went, seen, c.high[i])
		}
		if op.Return != 0 && (!again || c.low[i] > c.low[before]) {
			own[op.Client] = i
		}
		if later := called[c.low[i]]; op.Return != 0 && later.at > op.Return {
			c.report(FromLater, []int{i, later.op}, "the first has seen the log up to position %d, which the second, called after it had returned, is part of", c.low[i])
		}
	}
}

func (c *checker) subscriptions() {
	type subscription struct {
		client  string
		session int
	}
	last := make(map[subscription]eventstore.Position)
	furthest := make(map[string]eventstore.Position)
	var clients []string
	for _, i := range c.sorted(func(op Op) int64 { return op.Call }) {
		op := c.ops[i]
		if op.Kind != Deliver {
			continue
		}
		s := subscription{op.Client, op.Session}
		before, began := last[s]
		if !began {
			before = eventstore.Position(op.After)
			if before > furthest[op.Client] {
				c.report(DeliveryGap, []int{i}, "it goes on after position %d, and position %d was the last delivered before", before, furthest[op.Client])
			}
		}
		if _, known := furthest[op.Client]; !known {
			furthest[op.Client] = 0
			clients = append(clients, op.Client)
		}
		for _, e := range op.Events {
			switch {
			case e.Position <= before:
				c.report(DeliveryRepeated, []int{i}, "position %d came after %d", e.Position, before)
			case e.Position > before+1:
				c.report(DeliveryGap, []int{i}, "position %d came after %d", e.Position, before)
			}
			before = e.Position
			furthest[op.Client] = max(furthest[op.Client], e.Position)
		}
		last[s] = before
	}
	for _, client := range clients {
		if furthest[client] < eventstore.Position(len(c.log)) {
			c.report(Unfinished, nil, "%s has come to position %d of %d", client, furthest[client], len(c.log))
		}
	}
}

// clocks looks at appends that only one handle can have written.
func (c *checker) clocks() {
	last := make(map[string]*request)
	for _, r := range c.inLog() {
		handle, one := "", true
		for _, i := range r.ops {
			if op := c.ops[i]; op.Outcome == OK || op.Outcome == Unknown {
				one = one && (handle == "" || handle == op.Handle)
				handle = op.Handle
			}
		}
		if !one || handle == "" {
			continue
		}
		if before := last[handle]; before != nil && c.log[before.last-1].RecordedAt > c.log[r.first-1].RecordedAt {
			c.report(ClockBack, append(slices.Clone(before.ops), r.ops...), "%d at position %d, then %d at position %d",
				c.log[before.last-1].RecordedAt, before.last, c.log[r.first-1].RecordedAt, r.first)
		}
		last[handle] = r
	}
}
