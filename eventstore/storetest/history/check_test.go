package history

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/eventstore"
)

func id(n int) uuid.UUID { return uuid.UUID{14: byte(n >> 8), 15: byte(n)} }

// seen is event n, as recorded.
func seen(n int, position eventstore.Position, stream string, version eventstore.Version) Event {
	return Event{Position: position, ID: id(n), Stream: stream, Version: version, Digest: fmt.Sprint("content ", n), RecordedAt: int64(position)}
}

// part appends events to the stream at version expect, or at any where it is -1.
func part(stream string, expect eventstore.Version, events ...int) Part {
	p := Part{Stream: stream}
	if expect >= 0 {
		p.Expect = &expect
	}
	for _, n := range events {
		p.Events = append(p.Events, New{ID: id(n), Digest: fmt.Sprint("content ", n)})
	}
	return p
}

// Places in right.
const (
	firstAppend = iota
	twoStreams
	thirdAppend
	readStream
	readBackward
	versions
	head
	readLog
	wait
	conflict
	reused
	unknown
	failed
	delivery1
	delivery2
	delivery3
	delivery4
	final
)

// right is a history with nothing wrong in it.
func right() []Op {
	log := []Event{seen(1, 1, "a", 1), seen(2, 2, "a", 2), seen(3, 3, "b", 1), seen(4, 4, "b", 2)}
	ops := []Op{
		firstAppend:  {Client: "x", Handle: "one", Kind: Append, Parts: []Part{part("a", 0, 1)}, Outcome: OK, Events: log[:1:1]},
		twoStreams:   {Client: "y", Handle: "two", Kind: Append, Parts: []Part{part("a", 1, 2), part("b", -1, 3)}, Outcome: OK, Events: log[1:3:3]},
		thirdAppend:  {Client: "x", Handle: "one", Kind: Append, Parts: []Part{part("b", 1, 4)}, Outcome: OK, Events: log[3:]},
		readStream:   {Client: "x", Handle: "one", Kind: ReadStream, Streams: []string{"a"}, Outcome: OK, Events: log[:2:2]},
		readBackward: {Client: "x", Handle: "one", Kind: ReadStream, Streams: []string{"b"}, Backward: true, Outcome: OK, Events: []Event{log[3], log[2]}},
		versions:     {Client: "y", Handle: "two", Kind: Versions, Streams: []string{"a", "b"}, Outcome: OK, Versions: map[string]eventstore.Version{"a": 2, "b": 2}},
		head:         {Client: "y", Handle: "two", Kind: Head, Outcome: OK, Head: 4},
		readLog:      {Client: "x", Handle: "one", Kind: ReadLog, After: 2, Outcome: OK, Events: log[2:]},
		wait:         {Client: "x", Handle: "one", Kind: Wait, After: 1, Outcome: OK, Head: 3},
		conflict:     {Client: "y", Handle: "two", Kind: Append, Parts: []Part{part("a", 1, 5)}, Outcome: Conflict, Stream: "a", Expected: 1, Actual: 2},
		reused: {
			Client: "x", Handle: "one", Kind: Append, Outcome: Reused,
			Parts: []Part{{Stream: "b", Events: []New{{ID: id(4), Digest: "something else"}}}},
		},
		unknown:   {Client: "y", Handle: "two", Kind: Append, Parts: []Part{part("b", 2, 6)}, Outcome: Unknown},
		failed:    {Client: "x", Handle: "one", Kind: Append, Parts: []Part{part("b", 2, 7)}, Outcome: Failed},
		delivery1: {Client: "s", Handle: "two", Kind: Deliver, Session: 1, Outcome: OK, Events: log[:1:1]},
		delivery2: {Client: "s", Handle: "two", Kind: Deliver, Session: 1, Outcome: OK, Events: log[1:2:2]},
		delivery3: {Client: "s", Handle: "one", Kind: Deliver, Session: 2, After: 2, Outcome: OK, Events: log[2:3:3]},
		delivery4: {Client: "s", Handle: "one", Kind: Deliver, Session: 2, After: 2, Outcome: OK, Events: log[3:]},
		final:     {Client: "z", Handle: "three", Kind: Final, Outcome: OK, Events: slices.Clone(log)},
	}
	for i := range ops {
		ops[i].Call, ops[i].Return = int64(10*i+1), int64(10*i+2)
	}
	return ops
}

func TestRightHistory(t *testing.T) {
	t.Parallel()
	require.Empty(t, Check(right()))
}

// TestEveryFaultIsFound: a checker that cannot fail is a defect. Each case breaks
// the right history in one way; faults are all that Check must find then.
func TestEveryFaultIsFound(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		break_   func(ops []Op) []Op
		faults   []Fault
		evidence string
	}{
		{"returns before it is called", func(ops []Op) []Op { ops[head].Return = ops[head].Call - 1; return ops }, []Fault{Malformed}, "y on two: head"},
		{"client does two things at once", func(ops []Op) []Op { ops[readStream].Return = ops[readBackward].Return + 1; return ops }, []Fault{Malformed}, "one thing at a time"},
		{"no final log", func(ops []Op) []Op { return ops[:final] }, []Fault{Malformed}, "0 final logs"},
		{"unknown kind", func(ops []Op) []Op { ops[head].Kind = "guess"; return ops }, []Fault{Malformed}, `"guess"`},

		{"position left out", func(ops []Op) []Op { ops[final].Events[3].Position = 5; return ops }, []Fault{PositionGap}, "has position 5"},
		{"position twice", func(ops []Op) []Op { ops[final].Events[3].Position = 3; return ops }, []Fault{PositionGap}, "has position 3"},
		{"version left out", func(ops []Op) []Op { ops[final].Events[3].Version = 3; return ops }, []Fault{VersionGap}, "version 2 is expected next"},
		{"id twice", func(ops []Op) []Op {
			ops[final].Events = append(ops[final].Events, seen(4, 5, "b", 3))
			return ops
		}, []Fault{DoubledID}, "position 5"},
		{"event from nowhere", func(ops []Op) []Op {
			ops[final].Events = append(ops[final].Events, seen(99, 5, "b", 3))
			return deliver5(ops, 99, "b", 3)
		}, []Fault{MadeUp}, id(99).String()},
		{
			"altered in the log", func(ops []Op) []Op { ops[final].Events[0].Digest = "other"; return ops },
			[]Fault{Altered, LostAppend, Altered, Altered},
			"with digest other",
		},
		{"altered in a read", func(ops []Op) []Op { ops[readStream].Events[1].Digest = "other"; return ops }, []Fault{Altered}, "x on one: read_stream a"},
		{"altered in an acknowledgement", func(ops []Op) []Op { ops[thirdAppend].Events[0].RecordedAt++; return ops }, []Fault{Altered}, "x on one: append b@1"},
		{"acknowledged at another position", func(ops []Op) []Op { ops[thirdAppend].Events[0].Position++; return ops }, []Fault{Altered}, "x on one: append b@1"},
		{"seen, then gone", func(ops []Op) []Op {
			ops[unknown].Call = 5
			ops[unknown].Client = "u"
			ops[readLog].Events = append(ops[readLog].Events, seen(6, 5, "b", 3))
			return ops
		}, []Fault{Vanished, Vanished}, "x on one: read_log after 2"},
		{"version that never was", func(ops []Op) []Op { ops[versions].Versions["b"] = 3; return ops }, []Fault{Vanished}, "has never come to version 3"},
		{"head that never was", func(ops []Op) []Op { ops[head].Head = 5; return ops }, []Fault{Vanished}, "has never come to position 5"},
		{"part of an append", func(ops []Op) []Op {
			ops[unknown].Parts = []Part{part("b", 2, 6), part("c", 0, 8)}
			ops[final].Events = append(ops[final].Events, seen(6, 5, "b", 3))
			return deliver5(ops, 6, "b", 3)
		}, []Fault{TornAppend}, "y on two: append b@2"},
		{"append in two pieces", func(ops []Op) []Op {
			ops[unknown].Parts = []Part{part("b", 2, 6), part("c", 0, 8)}
			ops[unknown].Call, ops[unknown].Client = 5, "u"
			ops[failed].Outcome = Unknown
			ops[failed].Parts = []Part{part("d", 0, 7)}
			ops[final].Events = append(ops[final].Events, seen(6, 5, "b", 3), seen(7, 6, "d", 1), seen(8, 7, "c", 1))
			return deliver5(ops, 6, "b", 3)
		}, []Fault{TornAppend, TornAppend, Unfinished}, "stands without the others"},

		{
			"acknowledged and lost", func(ops []Op) []Op {
				ops[unknown].Outcome, ops[unknown].Events = OK, []Event{seen(6, 5, "b", 3)}
				return ops
			},
			[]Fault{LostAppend},
			"y on two: append b@2",
		},
		{"refused and recorded", func(ops []Op) []Op {
			ops[final].Events = append(ops[final].Events, seen(7, 5, "b", 3))
			return deliver5(ops, 7, "b", 3)
		}, []Fault{PhantomAppend}, "x on one: append b@2"},
		{"conflict and recorded", func(ops []Op) []Op {
			ops[final].Events = append(ops[final].Events, seen(5, 5, "a", 3))
			return deliver5(ops, 5, "a", 3)
		}, []Fault{PhantomAppend}, "y on two: append a@1"},
		{"expectation overlooked", func(ops []Op) []Op { ops[thirdAppend].Parts = []Part{part("b", 0, 4)}; return ops }, []Fault{BrokenExpectation}, "x on one: append b@0"},
		{"expectation of the second stream overlooked", func(ops []Op) []Op { ops[twoStreams].Parts[1] = part("b", 7, 3); return ops }, []Fault{BrokenExpectation}, "b@7"},
		{"conflict about another stream", func(ops []Op) []Op { ops[conflict].Stream = "b"; return ops }, []Fault{WrongConflict}, "y on two: append a@1"},
		{"conflict with what was expected", func(ops []Op) []Op { ops[conflict].Actual = 1; return ops }, []Fault{WrongConflict}, "a is at 1, not 1"},
		{"conflict with a version that is past", func(ops []Op) []Op {
			ops[conflict].Parts, ops[conflict].Expected, ops[conflict].Actual = []Part{part("a", 2, 5)}, 2, 1
			return ops
		}, []Fault{WentBack}, "a is at 1, not 2"},
		{"conflict after the same append was acknowledged", func(ops []Op) []Op {
			ops[conflict].Parts, ops[conflict].Expected, ops[conflict].Actual = slices.Clone(ops[firstAppend].Parts), 0, 2
			return ops
		}, []Fault{TornRead}, "a is at 2, not 0"},
		{"unused ids called used", func(ops []Op) []Op { ops[reused].Parts[0].Events[0].ID = id(98); return ops }, []Fault{WrongReuse}, "x on one: append b@any"},
		{"a repetition called a reuse", func(ops []Op) []Op { ops[reused].Parts = slices.Clone(ops[firstAppend].Parts); return ops }, []Fault{WrongReuse}, "append a@0"},

		{"events of another stream", func(ops []Op) []Op { ops[readStream].Streams = []string{"b"}; return ops }, []Fault{WrongResult}, "read_stream b"},
		{"out of order", func(ops []Op) []Op { slices.Reverse(ops[readStream].Events); return ops }, []Fault{WrongResult}, "read_stream a"},
		{"out of order before it failed", func(ops []Op) []Op {
			slices.Reverse(ops[readStream].Events)
			ops[readStream].Outcome = Failed
			return ops
		}, []Fault{WrongResult}, "read_stream a"},
		{"backward, not to the end", func(ops []Op) []Op { ops[readBackward].Events = ops[readBackward].Events[:1]; return ops }, []Fault{WrongResult}, "read_stream b backward"},
		{"more than asked for", func(ops []Op) []Op { ops[readLog].Limit = 1; return ops }, []Fault{WrongResult}, "limit 1"},
		{"from before the start", func(ops []Op) []Op { ops[readLog].After = 3; return ops }, []Fault{WrongResult}, "read_log after 3"},
		{"woken for nothing", func(ops []Op) []Op { ops[wait].After = 3; return ops }, []Fault{WrongResult}, "told 3"},

		{"half of an append in the versions", func(ops []Op) []Op { ops[versions].Versions = map[string]eventstore.Version{"a": 2}; return ops }, []Fault{TornRead}, "versions a b → ok a=2 b=0"},
		{"head within an append", func(ops []Op) []Op {
			ops[head].Head = 2
			ops[head].Call, ops[head].Return = ops[thirdAppend].Call-3, ops[thirdAppend].Call-2
			return ops
		}, []Fault{TornRead}, "head → ok 2"},
		{"stale stream", func(ops []Op) []Op {
			ops[readStream].Client = "w"
			ops[readStream].Events = ops[readStream].Events[:1]
			return ops
		}, []Fault{StaleRead}, "w on one: read_stream a"},
		{"stale empty stream", func(ops []Op) []Op { ops[readStream].Client = "w"; ops[readStream].Events = nil; return ops }, []Fault{StaleRead}, "w on one: read_stream a"},
		{"stale backward read", func(ops []Op) []Op {
			ops[readBackward].Client, ops[readBackward].Events = "w", ops[readBackward].Events[1:]
			return ops
		}, []Fault{StaleRead}, "w on one: read_stream b backward"},
		{"stale log", func(ops []Op) []Op {
			ops[readLog].Client = "w"
			ops[readLog].Events = ops[readLog].Events[:1]
			return ops
		}, []Fault{StaleRead}, "w on one: read_log"},
		{"stale empty log", func(ops []Op) []Op {
			ops[readLog].Client = "w"
			ops[readLog].Events, ops[readLog].After = nil, 3
			return ops
		}, []Fault{StaleRead}, "w on one: read_log"},
		{"stale versions", func(ops []Op) []Op { ops[versions].Client = "w"; ops[versions].Versions["b"] = 1; return ops }, []Fault{StaleRead}, "w on two: versions"},
		{"stale head", func(ops []Op) []Op { ops[head].Client = "w"; ops[head].Head = 3; return ops }, []Fault{StaleRead}, "w on two: head → ok 3"},
		{"stale after a delivery", func(ops []Op) []Op {
			// Nobody but the subscriber knows that the append of unknown outcome has happened.
			ops[final].Events = append(ops[final].Events, seen(6, 5, "b", 3))
			ops = deliver5(ops, 6, "b", 3)
			return append(ops, Op{Client: "w", Handle: "one", Kind: Head, Call: 1001, Return: 1002, Outcome: OK, Head: 4})
		}, []Fault{StaleRead}, "w on one: head → ok 4"},
		{"client goes back", func(ops []Op) []Op { ops[head].Head = 3; return ops }, []Fault{WentBack}, "y on two: head → ok 3"},
		{"seen before it was appended", func(ops []Op) []Op {
			ops[head].Call, ops[head].Return = ops[thirdAppend].Call-3, ops[thirdAppend].Call-2
			return ops
		}, []Fault{FromLater}, "x on one: append b@1"},
		{"delivered before it was appended", func(ops []Op) []Op {
			ops[thirdAppend].Client = "w"
			ops[thirdAppend].Call, ops[thirdAppend].Return = 2001, 2002
			return ops
		}, []Fault{FromLater, FromLater, FromLater, FromLater, FromLater, FromLater}, "s on one: deliver"},
		{"positions against the order of appends", func(ops []Op) []Op {
			a, b := &ops[firstAppend], &ops[twoStreams]
			a.Client, a.Call, a.Return = "w", 16, 17
			b.Call, b.Return = 1, 2
			return ops
		}, []Fault{FromLater}, "w on one: append a@0"},

		{"delivery left out", func(ops []Op) []Op { return slices.Delete(ops, delivery1, delivery1+1) }, []Fault{DeliveryGap}, "position 2 came after 0"},
		{"delivery left out before resumption", func(ops []Op) []Op { return slices.Delete(ops, delivery1, delivery3) }, []Fault{DeliveryGap}, "goes on after position 2"},
		{"delivery left out on resumption", func(ops []Op) []Op { return slices.Delete(ops, delivery3, delivery3+1) }, []Fault{DeliveryGap}, "position 4 came after 2"},
		{"delivery repeated", func(ops []Op) []Op {
			ops[delivery2].Events = ops[delivery1].Events
			return ops
		}, []Fault{DeliveryRepeated, DeliveryGap}, "position 1 came after 1"},
		{"delivery repeated on resumption", func(ops []Op) []Op { ops[delivery3].After, ops[delivery4].After = 3, 3; return ops }, []Fault{DeliveryGap, DeliveryRepeated}, "position 3 came after 3"},
		{"delivery altered", func(ops []Op) []Op { ops[delivery2].Events[0].Digest = "other"; return ops }, []Fault{Altered}, "s on two: deliver"},
		{"subscriber left behind", func(ops []Op) []Op { return slices.Delete(ops, delivery4, delivery4+1) }, []Fault{Unfinished}, "s has come to position 3 of 4"},

		{"clock goes back", func(ops []Op) []Op {
			for i := range ops {
				for k := range ops[i].Events {
					if e := &ops[i].Events[k]; e.Position == 4 {
						e.RecordedAt = 0
					}
				}
			}
			return ops
		}, []Fault{ClockBack}, "1 at position 1, then 0 at position 4"},
		{"raw error", func(ops []Op) []Op { ops[failed].Outcome, ops[failed].Error = Broken, "SQLSTATE 40001"; return ops }, []Fault{NoContract}, "SQLSTATE 40001"},
	}
	missing := map[Fault]bool{}
	for _, f := range []Fault{
		Malformed, PositionGap, VersionGap, DoubledID, MadeUp, Altered, Vanished, TornAppend, LostAppend, PhantomAppend, BrokenExpectation,
		WrongConflict, WrongReuse, WrongResult, TornRead, StaleRead, WentBack, FromLater, DeliveryGap, DeliveryRepeated, Unfinished, ClockBack, NoContract,
	} {
		missing[f] = true
	}
	for _, c := range cases {
		for _, f := range c.faults {
			delete(missing, f)
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var kinds []Fault
			var text string
			for _, a := range Check(c.break_(copied(right()))) {
				kinds = append(kinds, a.Fault)
				text += a.String() + "\n"
			}
			require.Equal(t, c.faults, kinds, text)
			require.Contains(t, text, c.evidence)
		})
	}
	require.Empty(t, missing, "faults without a case")
}

// copied shares nothing with ops.
func copied(ops []Op) []Op {
	var kept bytes.Buffer
	if err := Write(&kept, ops); err != nil {
		panic(err)
	}
	out, err := Read(&kept)
	if err != nil {
		panic(err)
	}
	return out
}

// deliver5 lets the subscriber see event n at position 5.
func deliver5(ops []Op, n int, stream string, version eventstore.Version) []Op {
	return append(ops, Op{
		Client: "s", Handle: "one", Kind: Deliver, Session: 3, After: 4, Call: 900, Return: 901, Outcome: OK,
		Events: []Event{seen(n, 5, stream, version)},
	})
}

func TestHistoriesAreKept(t *testing.T) {
	t.Parallel()
	ops := right()
	ops[unknown].Return = 0
	var kept bytes.Buffer
	require.NoError(t, Write(&kept, ops))
	require.Equal(t, len(ops), bytes.Count(kept.Bytes(), []byte("\n")))
	again, err := Read(&kept)
	require.NoError(t, err)
	require.Equal(t, ops, again)
	_, err = Read(bytes.NewReader([]byte("{}\nnonsense\n")))
	require.ErrorContains(t, err, "line 2")
}

// TestReplay checks a kept history again: name its file in KEYTRAIL_HISTORY_FILE.
func TestReplay(t *testing.T) {
	t.Parallel()
	path := os.Getenv(FileEnv)
	if path == "" {
		path = filepath.Join(t.TempDir(), "right.jsonl")
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, Write(f, right()))
		require.NoError(t, f.Close())
	}
	f, err := os.Open(path)
	require.NoError(t, err)
	ops, err := Read(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NotEmpty(t, ops)
	for _, a := range Check(ops) {
		t.Error(a)
	}
}

// TestOrderIsExact compares the check of real time with the definition: a history
// is linearizable when some order of its operations explains it.
func TestOrderIsExact(t *testing.T) {
	t.Parallel()
	explained, all := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		ops := drawOrder(t)
		wrong := len(Check(ops)) > 0
		all++
		if !wrong {
			explained++
		}
		if want := !explainable(ops); wrong != want {
			t.Fatalf("found wrong: %v, is wrong: %v\n%v\n%v", wrong, want, Check(ops), ops)
		}
	})
	require.NotZero(t, explained)
	require.NotEqual(t, all, explained)
}

// drawOrder draws a log of a few appends, some acknowledged, and heads read at
// random, all at random times.
func drawOrder(t *rapid.T) []Op {
	appends := rapid.IntRange(1, 3).Draw(t, "appends")
	heads := rapid.IntRange(1, 4).Draw(t, "heads")
	var log []Event
	ends := []eventstore.Position{0}
	var ops []Op
	for i := range appends {
		var numbers []int
		for range rapid.IntRange(1, 2).Draw(t, "events") {
			n := len(log) + 1
			numbers = append(numbers, n)
			log = append(log, seen(n, eventstore.Position(n), "a", eventstore.Version(n)))
		}
		op := Op{Client: fmt.Sprint("appender ", i), Kind: Append, Parts: []Part{part("a", -1, numbers...)}, Outcome: Unknown}
		if rapid.Bool().Draw(t, "acknowledged") {
			op.Outcome, op.Events = OK, log[ends[i]:len(log):len(log)]
		}
		ends = append(ends, eventstore.Position(len(log)))
		ops = append(ops, op)
	}
	for i := range heads {
		ops = append(ops, Op{Client: fmt.Sprint("reader ", i), Kind: Head, Outcome: OK, Head: rapid.SampledFrom(ends).Draw(t, "head")})
	}
	times := make([]int64, 2*len(ops))
	for i := range times {
		times[i] = int64(i + 1)
	}
	times = rapid.Permutation(times).Draw(t, "times")
	for i := range ops {
		ops[i].Call, ops[i].Return = min(times[2*i], times[2*i+1]), max(times[2*i], times[2*i+1])
	}
	return append(ops, Op{Client: "final", Kind: Final, Call: 1000, Return: 1001, Outcome: OK, Events: log})
}

// explainable tries all orders.
func explainable(ops []Op) bool {
	var commits []Op
	var heads []Op
	for _, op := range ops {
		switch op.Kind {
		case Append:
			commits = append(commits, op)
		case Head:
			heads = append(heads, op)
		}
	}
	// Place the commits, which have an order, at times between the sequence numbers;
	// then each head has its place or has not, whatever the others do.
	last := int64(2*len(commits)+2*len(heads)) + 1
	var place func(n int, at []int64) bool
	place = func(n int, at []int64) bool {
		if n == len(commits) {
			for _, h := range heads {
				fits := false
				for now := h.Call; now < h.Return; now++ { // the gap after sequence number now
					// Within one gap any of the states before, between and after its commits can be seen.
					before := eventstore.Position(0)
					var states []eventstore.Position
					for k, c := range commits {
						if at[k] < now {
							before = endOf(c, ops)
						}
						if at[k] == now {
							states = append(states, endOf(c, ops))
						}
					}
					fits = fits || slices.Contains(append(states, before), h.Head)
				}
				if !fits {
					return false
				}
			}
			return true
		}
		from, to := commits[n].Call, last
		if commits[n].Outcome == OK {
			to = commits[n].Return - 1
		}
		if n > 0 {
			from = max(from, at[n-1])
		}
		for now := from; now <= to; now++ {
			if place(n+1, append(slices.Clone(at), now)) {
				return true
			}
		}
		return false
	}
	return place(0, nil)
}

func endOf(op Op, ops []Op) eventstore.Position {
	events := op.Parts[0].Events
	for _, e := range ops[len(ops)-1].Events {
		if e.ID == events[len(events)-1].ID {
			return e.Position
		}
	}
	return 0
}
