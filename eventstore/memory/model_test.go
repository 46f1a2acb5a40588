package memory

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/dbtest"
)

// The same random operations on this store and on a real one give the same answers,
// to the byte.
func TestSQLiteIsLikeMemory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	compareStores(t, func(clock func() time.Time) (eventstore.Store, error) {
		return sqlite.Open(t.Context(), path, sqlite.Options{Clock: clock})
	})
}

func TestPostgresIsLikeMemory(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres(t)
	require.NoError(t, postgres.Migrate(t.Context(), url))
	compareStores(t, func(clock func() time.Time) (eventstore.Store, error) {
		return postgres.Open(t.Context(), url, postgres.Options{Clock: clock})
	})
}

// pair is one process on each of the two databases.
type pair struct{ reference, real eventstore.Store }

func compareStores(t *testing.T, open func(clock func() time.Time) (eventstore.Store, error)) {
	d := NewDatabase()
	m := &comparison{ctx: t.Context(), now: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), ids: []uuid.UUID{eventstore.NewID()}}
	clock := func() time.Time { return m.now }
	for range 2 {
		s, err := open(clock)
		require.NoError(t, err)
		p := pair{reference: d.Open(Options{Clock: clock}), real: s}
		t.Cleanup(func() {
			require.NoError(t, p.real.Close())
			require.NoError(t, p.reference.Close())
		})
		m.processes = append(m.processes, p)
	}
	m.streams = []eventstore.StreamID{
		eventstore.NamedStream("user", "acme", "1"), eventstore.NamedStream("user", "acme", "2"), eventstore.NamedStream("users"),
		eventstore.NamedStream("odd 'ü'", "a/b"), eventstore.UUIDStream("call", eventstore.NewID()),
	}
	m.stories = []uuid.UUID{uuid.Nil, eventstore.NewID(), eventstore.NewID()}
	// All runs share the databases: what a run finds is drawn from what is there.
	rapid.Check(t, func(t *rapid.T) {
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append, "read the log": m.readLog, "read a stream": m.readStream, "look up": m.lookUp,
			// It is not set back: over several processes the contract leaves open what
			// becomes of recording times then.
			"time": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(0, 10_000_000).Draw(t, "by")))
			},
		})
	})
}

// comparison is what is known of both databases. The operations of a run follow on each
// other.
type comparison struct {
	ctx       context.Context //nolint:containedctx // rapid's actions take none
	now       time.Time
	processes []pair
	streams   []eventstore.StreamID
	stories   []uuid.UUID // correlations and causes
	history   [][]eventstore.StreamAppend
	ids       []uuid.UUID // the first is of no event
	head      int
}

var kinds = []string{"A", "B", "C"}

func (m *comparison) newEvent(t *rapid.T) eventstore.NewEvent {
	id := eventstore.NewID()
	e := eventstore.NewEvent{
		ID: id, Type: rapid.SampledFrom(kinds).Draw(t, "type"),
		Data: fmt.Appendf(nil, `{ "of":%q }`, id), Metadata: []byte(`{"schema":1}`),
		CorrelationID: rapid.SampledFrom(m.stories).Draw(t, "correlation"), CausationID: rapid.SampledFrom(m.stories).Draw(t, "cause"),
		OccurredAt: m.now.Add(time.Duration(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "occurred"))),
	}
	if rapid.IntRange(0, 3).Draw(t, "body") == 0 {
		e.RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "bytes")}
	}
	return e
}

func (m *comparison) version(t *rapid.T, s eventstore.StreamID) eventstore.Version {
	versions, err := m.processes[0].reference.Versions(m.ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	return versions[s.AggregateID()]
}

func (m *comparison) drawAppend(t *rapid.T) []eventstore.StreamAppend {
	if len(m.history) > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 0 {
		first := rapid.SampledFrom(m.history).Draw(t, "earlier append")
		parts := make([]eventstore.StreamAppend, len(first))
		for i, p := range first {
			parts[i] = eventstore.StreamAppend{Stream: p.Stream, Expected: p.Expected, Events: append([]eventstore.NewEvent(nil), p.Events...)}
		}
		e := &parts[0].Events[0]
		switch rapid.IntRange(0, 5).Draw(t, "differently") {
		case 0:
			e.Metadata, e.CorrelationID, e.OccurredAt = []byte(`{"attempt":2}`), uuid.Nil, m.now
		case 1:
			e.Data = []byte(`{}`)
		case 2:
			e.Type = "D"
		case 3:
			parts[0].Stream = rapid.SampledFrom(m.streams).Draw(t, "another stream")
		}
		return parts
	}
	var parts []eventstore.StreamAppend
	for range rapid.IntRange(1, 3).Draw(t, "parts") {
		p := eventstore.StreamAppend{Stream: rapid.SampledFrom(m.streams).Draw(t, "stream")}
		switch rapid.IntRange(0, 4).Draw(t, "expected") {
		case 0:
			p.Expected = eventstore.ExpectNone()
		case 1, 2:
			off := rapid.SampledFrom([]eventstore.Version{0, 0, 0, 1, 2, -1}).Draw(t, "off by")
			p.Expected = eventstore.ExpectVersion(m.version(t, p.Stream) + off)
		}
		for range rapid.IntRange(1, 3).Draw(t, "events") {
			p.Events = append(p.Events, m.newEvent(t))
		}
		parts = append(parts, p)
	}
	last := &parts[len(parts)-1]
	switch rapid.IntRange(0, 14).Draw(t, "odd") {
	case 0:
		last.Events[0].ID = rapid.SampledFrom(m.ids).Draw(t, "reused")
	case 1:
		last.Events[0].Metadata = []byte(`[]`)
	case 2:
		last.Events = nil
	case 3:
		last.Stream = eventstore.StoredStream("user/another name", last.Stream.AggregateID())
	case 4:
		last.Events = append(last.Events, last.Events[0])
	}
	return parts
}

func (m *comparison) append(t *rapid.T) {
	p := rapid.SampledFrom(m.processes).Draw(t, "process")
	parts := m.drawAppend(t)
	want, wantErr := p.reference.Append(m.ctx, parts...)
	got, err := p.real.Append(m.ctx, parts...)
	requireSameError(t, wantErr, err)
	requireSame(t, parts, want, got)
	if err != nil {
		return
	}
	m.history = append(m.history, parts)
	for _, e := range got {
		m.ids = append(m.ids, e.ID)
		m.head = max(m.head, int(e.Position))
	}
}

// kind is an error in the contract's words.
func kind(err error) any {
	var conflict *eventstore.ConflictError
	switch {
	case errors.As(err, &conflict):
		return *conflict
	case errors.Is(err, eventstore.ErrEventIDReused):
		return eventstore.ErrEventIDReused
	case errors.Is(err, eventstore.ErrInvalidEvent):
		return eventstore.ErrInvalidEvent
	case errors.Is(err, eventstore.ErrNotFound):
		return eventstore.ErrNotFound
	default:
		return err
	}
}

func requireSameError(t *rapid.T, want, got error) {
	if kind(want) != kind(got) {
		t.Fatalf("memory says %v, the other %v", want, got)
	}
}

func requireSame[T any](t *rapid.T, asked any, want, got []T) {
	if len(want) != len(got) {
		t.Fatalf("%+v: memory has %d, the other %d", asked, len(want), len(got))
	}
	for i := range want {
		if w, g := fmt.Sprintf("%+v", want[i]), fmt.Sprintf("%+v", got[i]); w != g {
			t.Fatalf("%+v: number %d is in memory\n%s, in the other\n%s", asked, i, w, g)
		}
	}
}

func (m *comparison) readLog(t *rapid.T) {
	near := rapid.IntRange(max(0, m.head-40), m.head+2)
	q := eventstore.LogQuery{
		After:         eventstore.Position(near.Draw(t, "after")),
		Types:         rapid.SliceOfN(rapid.SampledFrom([]string{"A", "B", "C", "D", "nowhere"}), 0, 3).Draw(t, "types"),
		Category:      rapid.SampledFrom([]string{"", "", "", "user", "users", "call", "use", "odd%20%27%C3%BC%27"}).Draw(t, "category"),
		CorrelationID: rapid.SampledFrom(m.stories).Draw(t, "correlation"),
		CausationID:   rapid.SampledFrom(m.stories).Draw(t, "cause"),
		Backward:      rapid.Bool().Draw(t, "backward"),
		Limit:         rapid.IntRange(0, 12).Draw(t, "limit"),
	}
	if rapid.Bool().Draw(t, "from the first") {
		q.After = 0
	}
	if rapid.Bool().Draw(t, "bounded") {
		q.Before = eventstore.Position(near.Draw(t, "before"))
	}
	if rapid.IntRange(0, 3).Draw(t, "by ids") == 0 {
		q.EventIDs = rapid.SliceOfN(rapid.SampledFrom(m.ids), 1, 4).Draw(t, "ids")
	}
	moment := rapid.Int64Range(-30_000_000, 1000)
	if rapid.IntRange(0, 2).Draw(t, "since") == 0 {
		q.RecordedFrom = m.now.Add(time.Duration(moment.Draw(t, "from")))
	}
	if rapid.IntRange(0, 2).Draw(t, "until") == 0 {
		q.RecordedTo = m.now.Add(time.Duration(moment.Draw(t, "to")))
	}
	var all [2][]eventstore.Event
	p := rapid.SampledFrom(m.processes).Draw(t, "process")
	for i, s := range []eventstore.Store{p.reference, p.real} {
		for e, err := range s.ReadLog(m.ctx, q) {
			if err != nil {
				t.Fatal(err)
			}
			all[i] = append(all[i], e)
		}
	}
	requireSame(t, q, all[0], all[1])
}

func (m *comparison) readStream(t *rapid.T) {
	stream := rapid.SampledFrom(append(m.streams, eventstore.NamedStream("nobody"))).Draw(t, "stream")
	near := rapid.IntRange(0, int(m.version(t, stream))+2)
	q := eventstore.StreamQuery{
		After: eventstore.Version(near.Draw(t, "after")), Backward: rapid.Bool().Draw(t, "backward"), Limit: rapid.IntRange(0, 12).Draw(t, "limit"),
	}
	if rapid.Bool().Draw(t, "bounded") {
		q.Before = eventstore.Version(near.Draw(t, "before"))
	}
	switch rapid.IntRange(0, 3).Draw(t, "as of") {
	case 0:
		q.AsOf = eventstore.Position(rapid.IntRange(1, m.head+2).Draw(t, "position"))
	case 1:
		q.AsOfTime = m.now.Add(time.Duration(rapid.Int64Range(-60_000_000, 1000).Draw(t, "moment")))
	}
	var all [2][]eventstore.Event
	p := rapid.SampledFrom(m.processes).Draw(t, "process")
	for i, s := range []eventstore.Store{p.reference, p.real} {
		for e, err := range s.ReadStream(m.ctx, stream, q) {
			if err != nil {
				t.Fatal(err)
			}
			all[i] = append(all[i], e)
		}
	}
	requireSame(t, fmt.Sprintf("%s %+v", stream, q), all[0], all[1])
}

// lookUp asks for everything that is not an iterator.
func (m *comparison) lookUp(t *rapid.T) {
	p := rapid.SampledFrom(m.processes).Draw(t, "process")
	id := rapid.SampledFrom(m.ids).Draw(t, "event")
	streams := rapid.SliceOfN(rapid.SampledFrom(append(m.streams, eventstore.NamedStream("nobody"))), 0, 3).Draw(t, "streams")
	var answers [2][]any
	var errs [2][]error
	for i, s := range []eventstore.Store{p.reference, p.real} {
		head, err := s.Head(m.ctx)
		answers[i], errs[i] = append(answers[i], head), append(errs[i], err)
		waited, err := s.Wait(m.ctx, head-1)
		answers[i], errs[i] = append(answers[i], waited), append(errs[i], err)
		versions, err := s.Versions(m.ctx, streams...)
		answers[i], errs[i] = append(answers[i], versions), append(errs[i], err)
		body, err := s.RawBody(m.ctx, id)
		answers[i], errs[i] = append(answers[i], body), append(errs[i], err)
		for _, asked := range streams {
			stream, err := s.Stream(m.ctx, asked.AggregateID())
			answers[i], errs[i] = append(answers[i], stream), append(errs[i], err)
		}
	}
	requireSame(t, streams, answers[0], answers[1])
	for i := range errs[0] {
		requireSameError(t, errs[0][i], errs[1][i])
	}
}
