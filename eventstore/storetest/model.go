package storetest

import (
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/eventstore"
)

// model is the contract in memory, for one writer.
type model struct {
	log []eventstore.Event
}

func (m *model) version(s eventstore.StreamID) eventstore.Version {
	var v eventstore.Version
	for _, e := range m.log {
		if e.Stream == s {
			v = e.Version
		}
	}
	return v
}

type outcome string

const (
	accepted outcome = "accepted"
	repeated outcome = "repeated"
	reused   outcome = "reused"
	conflict outcome = "conflict"
)

// append says what a store must answer, and the events' streams and versions.
func (m *model) append(parts []eventstore.StreamAppend) (outcome, []eventstore.Event) {
	byID := make(map[uuid.UUID]eventstore.Event)
	for _, e := range m.log {
		byID[e.ID] = e
	}
	var out []eventstore.Event
	known := 0
	for _, p := range parts {
		for _, e := range p.Events {
			if old, ok := byID[e.ID]; ok {
				known++
				if old.Stream != p.Stream || old.Type != e.Type || string(old.Data) != string(e.Data) {
					return reused, nil
				}
				out = append(out, old)
			}
		}
	}
	total := 0
	for _, p := range parts {
		total += len(p.Events)
	}
	switch {
	case known == total:
		return repeated, out
	case known > 0:
		return reused, nil
	}
	trial := &model{log: m.log[:len(m.log):len(m.log)]}
	for _, p := range parts {
		if v, exact := p.Expected.Exact(); exact && v != trial.version(p.Stream) {
			return conflict, nil
		}
		for _, e := range p.Events {
			recorded := eventstore.Event{
				Position: eventstore.Position(len(trial.log) + 1), ID: e.ID, Stream: p.Stream, Version: trial.version(p.Stream) + 1,
				Type: e.Type, Data: e.Data, Metadata: e.Metadata, CorrelationID: e.CorrelationID, CausationID: e.CausationID, OccurredAt: e.OccurredAt,
			}
			trial.log = append(trial.log, recorded)
			out = append(out, recorded)
		}
	}
	m.log = trial.log
	return accepted, out
}

// testModel compares a store with the model over random appends and reads. All
// runs share one database; the model of a run begins with what is there.
func testModel(t *testing.T, create Factory) {
	s := open(t, create(t))
	ctx := within(t)
	m := &model{}
	rapid.Check(t, func(t *rapid.T) {
		streams := []eventstore.StreamID{newStream(), eventstore.UUIDStream("call", eventstore.NewID()), newStream()}
		var history [][]eventstore.StreamAppend
		for range rapid.IntRange(1, 8).Draw(t, "appends") {
			parts := drawAppend(t, m, streams, history)
			history = append(history, parts)
			want, wantEvents := m.append(parts)
			events, err := s.Append(ctx, parts...)
			if got := outcomeOf(err); want != got && (want != repeated || got != accepted) {
				t.Fatalf("append: want %s, got %s: %v", want, got, err)
			}
			if len(events) != len(wantEvents) {
				t.Fatalf("want %d events, got %d", len(wantEvents), len(events))
			}
			for i, e := range events {
				if !sameButRecordedAt(e, wantEvents[i]) {
					t.Fatalf("event %d: want %+v, got %+v", i, wantEvents[i], e)
				}
				if want == accepted {
					m.log[e.Position-1].RecordedAt = e.RecordedAt
				}
			}
		}
		q := eventstore.LogQuery{
			After:    eventstore.Position(rapid.IntRange(max(0, len(m.log)-30), len(m.log)).Draw(t, "after")),
			Types:    rapid.SliceOfN(rapid.SampledFrom([]string{"A", "B", "C"}), 0, 2).Draw(t, "types"),
			Category: rapid.SampledFrom([]string{"", "user", "call"}).Draw(t, "category"),
			Backward: rapid.Bool().Draw(t, "backward"),
			Limit:    rapid.IntRange(0, 10).Draw(t, "limit"),
		}
		want := selectLog(m.log, q)
		i := 0
		for e, err := range s.ReadLog(ctx, q) {
			if err != nil {
				t.Fatalf("read the log: %v", err)
			}
			if i >= len(want) || !sameButRecordedAt(e, want[i]) || !e.RecordedAt.Equal(want[i].RecordedAt) {
				t.Fatalf("%+v: event %d: got %+v", q, i, e)
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("%+v: want %d events, got %d", q, len(want), i)
		}
		versions, err := s.Versions(ctx, streams...)
		if err != nil {
			t.Fatalf("versions: %v", err)
		}
		for _, stream := range streams {
			if versions[stream.AggregateID()] != m.version(stream) {
				t.Fatalf("stream %s: want version %d, got %v", stream, m.version(stream), versions)
			}
		}
	})
}

func drawAppend(t *rapid.T, m *model, streams []eventstore.StreamID, history [][]eventstore.StreamAppend) []eventstore.StreamAppend {
	if len(history) > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 0 {
		return rapid.SampledFrom(history).Draw(t, "earlier append")
	}
	var parts []eventstore.StreamAppend
	for range rapid.IntRange(1, 3).Draw(t, "parts") {
		stream := rapid.SampledFrom(streams).Draw(t, "stream")
		expected := eventstore.ExpectAny()
		if rapid.Bool().Draw(t, "exact") {
			v := m.version(stream) + eventstore.Version(rapid.SampledFrom([]int{0, 0, 0, 1, -1}).Draw(t, "off by"))
			expected = eventstore.ExpectVersion(max(v, 0))
		}
		var events []eventstore.NewEvent
		for range rapid.IntRange(1, 3).Draw(t, "events") {
			events = append(events, newEvent(rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "type")))
		}
		parts = append(parts, to(stream, expected, events...))
	}
	if len(m.log) > 0 && rapid.IntRange(0, 9).Draw(t, "reuse") == 0 {
		parts[0].Events[0].ID = m.log[rapid.IntRange(0, len(m.log)-1).Draw(t, "reused")].ID
	}
	return parts
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return accepted
	case isConflict(err):
		return conflict
	case isReused(err):
		return reused
	}
	return outcome(err.Error())
}

func sameButRecordedAt(a, b eventstore.Event) bool {
	return a.Position == b.Position && a.ID == b.ID && a.Stream == b.Stream && a.Version == b.Version && a.Type == b.Type &&
		string(a.Data) == string(b.Data) && string(a.Metadata) == string(b.Metadata) &&
		a.CorrelationID == b.CorrelationID && a.CausationID == b.CausationID && a.OccurredAt.Equal(b.OccurredAt)
}
