package history

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/eventstore"
)

// A simulation is a correct store and its clients in one goroutine. Each operation
// is called, takes place at one moment, and returns, in three steps between which
// others make theirs; an append of unknown outcome takes place later, or never.
type simulation struct {
	t        *rapid.T
	log      []Event
	versions map[string]eventstore.Version
	next     int
	now      int64
	ops      []Op
	// begun are the operations under way, by client; nil is idle.
	begun []*Op
	done  []bool
	// late appends have returned with an unknown outcome and may take place yet.
	late []Op
	// delivered is each subscriber's checkpoint; clients that are subscribers do
	// nothing else.
	delivered []eventstore.Position
	began     []eventstore.Position
	session   []int
}

var streams = []string{"a", "b", "c"}

func simulate(t *rapid.T) []Op {
	const clients, subscribers = 4, 2
	s := &simulation{
		t: t, versions: map[string]eventstore.Version{}, begun: make([]*Op, clients+subscribers), done: make([]bool, clients+subscribers),
		delivered: make([]eventstore.Position, subscribers), began: make([]eventstore.Position, subscribers), session: make([]int, subscribers),
	}
	for range rapid.IntRange(40, 150).Draw(t, "steps") {
		if len(s.late) > 0 && rapid.IntRange(0, 9).Draw(t, "late") == 0 {
			s.apply(&s.late[0])
			s.late = s.late[1:]
		}
		s.step(rapid.IntRange(0, clients+subscribers-1).Draw(t, "client"))
	}
	for i, op := range s.begun {
		if op != nil && op.Kind != Append {
			if op.Events == nil {
				op.Outcome = Failed
			}
			s.back(i)
		} else if op != nil { // never returned
			op.Outcome, op.Events = Unknown, nil
			s.ops = append(s.ops, *op)
			s.begun[i] = nil
		}
	}
	for i := range subscribers {
		for int(s.delivered[i]) < len(s.log) {
			s.call(clients + i)
			s.apply(s.begun[clients+i])
			s.back(clients + i)
		}
	}
	s.ops = append(s.ops, Op{Client: "final", Kind: Final, Call: s.tick(), Return: s.tick(), Outcome: OK, Events: s.log})
	return s.ops
}

func (s *simulation) tick() int64 { s.now++; return s.now }

func (s *simulation) step(i int) {
	switch op := s.begun[i]; {
	case op == nil:
		s.call(i)
	case !s.done[i]:
		if op.Outcome == Unknown {
			s.late = append(s.late, *op)
			s.back(i)
			return
		}
		s.done[i] = s.apply(op)
	default:
		s.back(i)
	}
}

func (s *simulation) back(i int) {
	op := s.begun[i]
	op.Return = s.tick()
	s.ops = append(s.ops, *op)
	if op.Kind == Deliver && op.Events != nil {
		s.delivered[i-4] = op.Events[0].Position
	}
	s.begun[i], s.done[i] = nil, false
}

func (s *simulation) call(i int) {
	op := &Op{Client: fmt.Sprint("client ", i), Handle: fmt.Sprint("handle ", i%2), Call: s.tick()}
	s.begun[i] = op
	if i >= 4 {
		n := i - 4
		if s.session[n] == 0 || rapid.IntRange(0, 9).Draw(s.t, "resume") == 0 {
			s.session[n]++
			s.began[n] = s.delivered[n]
		}
		op.Kind, op.Session, op.After = Deliver, s.session[n], int64(s.began[n])
		return
	}
	stream := rapid.SampledFrom(streams)
	switch op.Kind = rapid.SampledFrom([]Kind{Append, Append, Append, ReadStream, ReadLog, Versions, Head}).Draw(s.t, "kind"); op.Kind {
	case Append:
		if again := s.appended(); len(again) > 0 && rapid.IntRange(0, 5).Draw(s.t, "again") == 0 {
			op.Parts = rapid.SampledFrom(again).Draw(s.t, "parts")
		} else {
			for range rapid.IntRange(1, 2).Draw(s.t, "parts") {
				on := stream.Draw(s.t, "stream")
				p := part(on, eventstore.Version(rapid.SampledFrom([]int{-1, int(s.versions[on]), max(0, int(s.versions[on])-1)}).Draw(s.t, "expect")))
				for range rapid.IntRange(1, 2).Draw(s.t, "events") {
					s.next++
					p.Events = append(p.Events, New{ID: id(s.next), Digest: fmt.Sprint("content ", s.next)})
				}
				op.Parts = append(op.Parts, p)
			}
		}
		if rapid.IntRange(0, 4).Draw(s.t, "cut") == 0 {
			op.Outcome = Unknown
		}
	case ReadStream:
		op.Streams = []string{stream.Draw(s.t, "stream")}
		op.After = int64(rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(s.t, "after"))
		op.Backward = rapid.Bool().Draw(s.t, "backward")
		op.Limit = rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(s.t, "limit")
	case ReadLog:
		op.After = int64(rapid.IntRange(0, len(s.log)).Draw(s.t, "after"))
		op.Backward = rapid.Bool().Draw(s.t, "backward")
		op.Limit = rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(s.t, "limit")
	case Versions:
		op.Streams = streams
	}
}

func (s *simulation) appended() (out [][]Part) {
	for _, op := range s.ops {
		if op.Kind == Append {
			out = append(out, op.Parts)
		}
	}
	return out
}

// apply lets an operation take place. It reports false where it has to wait.
func (s *simulation) apply(op *Op) bool {
	op.Outcome = OK
	switch op.Kind {
	case Append:
		s.append(op)
	case ReadStream:
		op.Events = chosen(*op, func(e Event) bool { return e.Stream == op.Streams[0] && int64(e.Version) > op.After }, s.log)
	case ReadLog:
		op.Events = chosen(*op, func(e Event) bool { return int64(e.Position) > op.After }, s.log)
	case Versions:
		op.Versions = map[string]eventstore.Version{}
		for stream, v := range s.versions {
			op.Versions[stream] = v
		}
	case Head:
		op.Head = eventstore.Position(len(s.log))
	case Deliver:
		for n, client := range s.begun[4:] {
			if client == op {
				if int(s.delivered[n]) == len(s.log) {
					return false
				}
				op.Events = s.log[s.delivered[n]:][:1:1]
			}
		}
	}
	return true
}

func chosen(op Op, wanted func(Event) bool, log []Event) (out []Event) {
	for _, e := range log {
		if wanted(e) {
			out = append(out, e)
		}
	}
	if op.Backward {
		slices.Reverse(out)
	}
	if op.Limit > 0 && len(out) > op.Limit {
		out = out[:op.Limit]
	}
	return out
}

func (s *simulation) append(op *Op) {
	var recorded []Event
	for _, e := range s.log {
		if e.ID == op.Parts[0].Events[0].ID {
			n := 0
			for _, p := range op.Parts {
				n += len(p.Events)
			}
			op.Events = s.log[e.Position-1:][:n:n]
			return
		}
	}
	versions := map[string]eventstore.Version{}
	for stream, v := range s.versions {
		versions[stream] = v
	}
	for _, p := range op.Parts {
		if p.Expect != nil && *p.Expect != versions[p.Stream] {
			op.Outcome, op.Stream, op.Expected, op.Actual = Conflict, p.Stream, *p.Expect, versions[p.Stream]
			return
		}
		for _, e := range p.Events {
			versions[p.Stream]++
			position := eventstore.Position(len(s.log) + len(recorded) + 1)
			recorded = append(recorded, Event{Position: position, ID: e.ID, Stream: p.Stream, Version: versions[p.Stream], Digest: e.Digest, RecordedAt: int64(position)})
		}
	}
	s.versions = versions
	s.log = append(s.log, recorded...)
	op.Events = recorded
}

func TestASimulatedStoreIsRight(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ops := simulate(t)
		for _, a := range Check(ops) {
			t.Error(a)
		}
	})
}

// mutations make a right history wrong. Each reports whether it could.
var mutations = map[string]func(t *rapid.T, ops []Op) ([]Op, bool){
	"an acknowledged event is dropped": func(t *rapid.T, ops []Op) ([]Op, bool) {
		acked := where(ops, func(op Op) bool { return op.Kind == Append && op.Outcome == OK })
		if len(acked) == 0 {
			return nil, false
		}
		op := ops[rapid.SampledFrom(acked).Draw(t, "append")]
		gone := rapid.SampledFrom(op.Events).Draw(t, "event")
		return withLog(ops, slices.DeleteFunc(logOf(ops), func(e Event) bool { return e.ID == gone.ID })), true
	},
	"two acknowledged events are swapped": func(t *rapid.T, ops []Op) ([]Op, bool) {
		log := logOf(ops)
		acked := where(ops, func(op Op) bool { return op.Kind == Append && op.Outcome == OK })
		if len(acked) == 0 || len(log) < 2 {
			return nil, false
		}
		i := int(ops[rapid.SampledFrom(acked).Draw(t, "append")].Events[0].Position) - 1
		k := (i + 1) % len(log)
		log[i], log[k] = log[k], log[i]
		return withLog(ops, log), true
	},
	"an event is recorded twice": func(t *rapid.T, ops []Op) ([]Op, bool) {
		log := logOf(ops)
		if len(log) == 0 {
			return nil, false
		}
		return withLog(ops, append(log, rapid.SampledFrom(log).Draw(t, "event"))), true
	},
	"an acknowledgement is lost": func(t *rapid.T, ops []Op) ([]Op, bool) {
		log := logOf(ops)
		refused := where(ops, func(op Op) bool {
			return op.Kind == Append && op.Outcome != OK && op.Return != 0 && !slices.ContainsFunc(log, func(e Event) bool { return e.ID == op.Parts[0].Events[0].ID })
		})
		if len(refused) == 0 {
			return nil, false
		}
		op := &ops[rapid.SampledFrom(refused).Draw(t, "append")]
		op.Outcome = OK
		return ops, true
	},
	"a conflict is recorded": func(t *rapid.T, ops []Op) ([]Op, bool) {
		log := logOf(ops)
		unknown := map[string]bool{}
		for _, op := range ops {
			if op.Kind == Append && op.Outcome != Conflict {
				unknown[appendKey(op)] = true
			}
		}
		refused := where(ops, func(op Op) bool { return op.Outcome == Conflict && !unknown[appendKey(op)] })
		if len(refused) == 0 {
			return nil, false
		}
		for _, p := range ops[rapid.SampledFrom(refused).Draw(t, "append")].Parts {
			for _, e := range p.Events {
				log = append(log, Event{ID: e.ID, Stream: p.Stream, Digest: e.Digest})
			}
		}
		return withLog(ops, log), true
	},
	"a head is stale": func(t *rapid.T, ops []Op) ([]Op, bool) {
		return stale(t, ops, func(op *Op, acked Event) bool {
			op.Head = acked.Position - 1
			return op.Kind == Head && op.Outcome == OK
		})
	},
	"a stream is stale": func(t *rapid.T, ops []Op) ([]Op, bool) {
		return stale(t, ops, func(op *Op, acked Event) bool {
			if op.Kind != ReadStream || op.Outcome != OK || op.Streams[0] != acked.Stream || op.Limit != 0 || op.After >= int64(acked.Version) {
				return false
			}
			op.Events = slices.DeleteFunc(slices.Clone(op.Events), func(e Event) bool { return e.Version >= acked.Version })
			return true
		})
	},
	"versions are stale": func(t *rapid.T, ops []Op) ([]Op, bool) {
		return stale(t, ops, func(op *Op, acked Event) bool {
			if op.Kind != Versions || op.Outcome != OK {
				return false
			}
			op.Versions = map[string]eventstore.Version{"a": op.Versions["a"], "b": op.Versions["b"], "c": op.Versions["c"]}
			op.Versions[acked.Stream] = acked.Version - 1
			return true
		})
	},
	"a delivery is repeated": func(t *rapid.T, ops []Op) ([]Op, bool) {
		delivered := where(ops, func(op Op) bool { return op.Kind == Deliver && op.Outcome == OK })
		if len(delivered) == 0 {
			return nil, false
		}
		again := ops[rapid.SampledFrom(delivered).Draw(t, "delivery")]
		again.Call, again.Return = 1_000_000, 1_000_001
		return append(ops, again), true
	},
	"a delivery is left out": func(t *rapid.T, ops []Op) ([]Op, bool) {
		delivered := where(ops, func(op Op) bool { return op.Kind == Deliver && op.Outcome == OK })
		if len(delivered) == 0 {
			return nil, false
		}
		i := rapid.SampledFrom(delivered).Draw(t, "delivery")
		if len(where(ops, func(op Op) bool { return op.Kind == Deliver && op.Client == ops[i].Client })) == 1 {
			return nil, false // of a subscriber that nobody knows nothing is missed
		}
		return slices.Delete(ops, i, i+1), true
	},
	"an append is called after it was seen": func(t *rapid.T, ops []Op) ([]Op, bool) {
		times := map[string]int{}
		for _, op := range ops {
			if op.Kind == Append {
				times[appendKey(op)]++
			}
		}
		acked := where(ops, func(op Op) bool { return op.Kind == Append && op.Outcome == OK && times[appendKey(op)] == 1 })
		if len(acked) == 0 || len(where(ops, func(op Op) bool { return op.Kind == Deliver && op.Outcome == OK })) == 0 {
			return nil, false
		}
		op := &ops[rapid.SampledFrom(acked).Draw(t, "append")]
		op.Client, op.Call, op.Return = "late", 1_000_000, 1_000_001
		return ops, true
	},
}

func where(ops []Op, f func(Op) bool) (out []int) {
	for i, op := range ops {
		if f(op) {
			out = append(out, i)
		}
	}
	return out
}

func logOf(ops []Op) []Event { return slices.Clone(ops[len(ops)-1].Events) }

// withLog replaces the final log and numbers it anew, as a store would have that had
// lost or mixed up something.
func withLog(ops []Op, log []Event) []Op {
	versions := map[string]eventstore.Version{}
	for i := range log {
		versions[log[i].Stream]++
		log[i].Position, log[i].Version = eventstore.Position(i+1), versions[log[i].Stream]
	}
	ops[len(ops)-1].Events = log
	return ops
}

// stale changes a read that was called after an append was acknowledged.
func stale(t *rapid.T, ops []Op, change func(op *Op, acked Event) bool) ([]Op, bool) {
	type changed struct {
		at int
		op Op
	}
	var possible []changed
	for _, w := range where(ops, func(op Op) bool { return op.Kind == Append && op.Outcome == OK }) {
		for _, e := range ops[w].Events {
			for i, op := range ops {
				if op.Call > ops[w].Return && change(&op, e) {
					possible = append(possible, changed{i, op})
				}
			}
		}
	}
	if len(possible) == 0 {
		return nil, false
	}
	c := possible[rapid.IntRange(0, len(possible)-1).Draw(t, "read")]
	ops[c.at] = c.op
	return ops, true
}

// TestMutationsAreFound breaks histories of the simulated store.
func TestMutationsAreFound(t *testing.T) {
	t.Parallel()
	for name, mutate := range mutations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			rapid.Check(t, func(t *rapid.T) {
				ops, done := mutate(t, simulate(t))
				if !done {
					return
				}
				tried++
				if len(Check(ops)) == 0 {
					t.Fatalf("not found in\n%v", ops)
				}
			})
			require.NotZero(t, tried)
		})
	}
}
