// Package storetest is what every event store must pass: conformance to the
// contract in package eventstore, races, a model, and benchmarks.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

// Database is one database and what the suite does to it beside the contract.
type Database struct {
	// Open opens a store on the database. The suite calls it several times on one
	// database, as several processes would. It closes the stores itself.
	Open func(t testing.TB, clock func() time.Time) eventstore.Store
	// Hold appends in a transaction of its own, as another process would, and leaves
	// it open with everything written; commit ends it.
	Hold func(t testing.TB, appends ...eventstore.StreamAppend) (commit func() error)
	// Exec runs raw SQL with all the rights that a program's connection has.
	Exec func(ctx context.Context, text string) error
	// Tampering are statements on a log of at least two events, each of which the
	// database must refuse.
	Tampering []string
}

// Factory makes a new database with a current schema and no events. It is dropped
// at the end of the test.
type Factory func(t testing.TB) Database

// limit bounds every wait of the suite.
const limit = 30 * time.Second

// Run runs the suite. The tests of one call run in parallel, each on a database
// of its own.
func Run(t *testing.T, create Factory) {
	// Alone, because it counts goroutines.
	t.Run("closing", func(t *testing.T) { testClosing(t, create) })
	for name, test := range map[string]func(*testing.T, Factory){
		"appending":                  testAppending,
		"expected versions":          testExpected,
		"several streams":            testSeveralStreams,
		"repeating":                  testRepeating,
		"reused ids":                 testReusedIDs,
		"invalid events":             testInvalid,
		"stored bytes":               testStoredBytes,
		"times":                      testTimes,
		"reading streams":            testReadStream,
		"reading the log":            testReadLog,
		"paging":                     testPaging,
		"streams and versions":       testStreams,
		"raw bodies":                 testRawBodies,
		"waiting":                    testWaiting,
		"cancelled contexts":         testCancelled,
		"racing on one stream":       testRacingOnOneStream,
		"racing to create":           testRacingToCreate,
		"racing to repeat":           testRacingToRepeat,
		"following":                  testFollowing,
		"subscribing":                testSubscribing,
		"subscribers agree":          testSubscribersAgree,
		"as of":                      testAsOf,
		"sharing a transaction":      testSharing,
		"late commit":                testLateCommit,
		"immutability":               testImmutability,
		"crossing append directions": testCrossing,
		"model":                      testModel,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, create)
		})
	}
}

// A clock that moves on by itself, less than a microsecond at a time, so that
// stores have to cut it.
func ticking() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.FixedZone("CET", 3600))
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(700 * time.Nanosecond)
		return now
	}
}

func open(t testing.TB, d Database) eventstore.Store { return openAt(t, d, ticking()) }

func openAt(t testing.TB, d Database, clock func() time.Time) eventstore.Store {
	s := d.Open(t, clock)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func newStream() eventstore.StreamID {
	return eventstore.NamedStream("user", "acme", eventstore.NewID().String())
}

var occurred = time.Date(2026, 2, 28, 23, 59, 59, 999_999_000, time.UTC)

func newEvent(kind string) eventstore.NewEvent {
	id := eventstore.NewID()
	return eventstore.NewEvent{
		ID: id, Type: kind, Data: fmt.Appendf(nil, `{"of":%q}`, id), Metadata: json.RawMessage(`{"schema":1}`),
		CorrelationID: eventstore.NewID(), CausationID: eventstore.NewID(), OccurredAt: occurred,
	}
}

func newEvents(kinds ...string) []eventstore.NewEvent {
	events := make([]eventstore.NewEvent, len(kinds))
	for i, k := range kinds {
		events[i] = newEvent(k)
	}
	return events
}

func to(s eventstore.StreamID, x eventstore.Expected, events ...eventstore.NewEvent) eventstore.StreamAppend {
	return eventstore.StreamAppend{Stream: s, Expected: x, Events: events}
}

func mustAppend(t testing.TB, s eventstore.Store, appends ...eventstore.StreamAppend) []eventstore.Event {
	t.Helper()
	events, err := s.Append(within(t), appends...)
	require.NoError(t, err)
	return events
}

func collect(t testing.TB, events iter.Seq2[eventstore.Event, error]) []eventstore.Event {
	t.Helper()
	var out []eventstore.Event
	for e, err := range events {
		require.NoError(t, err)
		out = append(out, e)
	}
	return out
}

func wholeLog(t testing.TB, s eventstore.Store) []eventstore.Event {
	t.Helper()
	return collect(t, s.ReadLog(within(t), eventstore.LogQuery{}))
}

func requireConflict(t testing.TB, err error, stream eventstore.StreamID, expected, actual eventstore.Version) {
	t.Helper()
	var conflict *eventstore.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, eventstore.ConflictError{Stream: stream, Expected: expected, Actual: actual}, *conflict)
}

func reverse(events []eventstore.Event) []eventstore.Event {
	out := make([]eventstore.Event, 0, len(events))
	for i := len(events) - 1; i >= 0; i-- {
		out = append(out, events[i])
	}
	return out
}

func testAppending(t *testing.T, create Factory) {
	d := create(t)
	one, two := open(t, d), open(t, d)
	a, b := newStream(), newStream()

	head, err := one.Head(within(t))
	require.NoError(t, err)
	require.Zero(t, head)
	require.NoError(t, one.Ping(within(t)))

	first := mustAppend(t, one, to(a, eventstore.ExpectNone(), newEvents("A", "B", "C")...))
	second := mustAppend(t, two, to(b, eventstore.ExpectNone(), newEvents("A")...))
	third := mustAppend(t, one, to(a, eventstore.ExpectVersion(3), newEvents("D", "E")...))

	all := append(append(first, second...), third...)
	for i, e := range all {
		require.EqualValues(t, i+1, e.Position)
	}
	for i, e := range append(first, third...) {
		require.Equal(t, a, e.Stream)
		require.EqualValues(t, i+1, e.Version)
	}
	require.EqualValues(t, 1, second[0].Version)
	for _, s := range []eventstore.Store{one, two} {
		require.Equal(t, all, wholeLog(t, s))
		head, err := s.Head(within(t))
		require.NoError(t, err)
		require.EqualValues(t, len(all), head)
	}

	withoutStory := newEvent("A")
	withoutStory.CorrelationID, withoutStory.CausationID = uuid.Nil, uuid.Nil
	got := mustAppend(t, one, to(newStream(), eventstore.ExpectAny(), withoutStory))
	require.Equal(t, got, collect(t, two.ReadLog(within(t), eventstore.LogQuery{After: eventstore.Position(len(all))})))
	require.Equal(t, uuid.Nil, got[0].CorrelationID)
}

func testExpected(t *testing.T, create Factory) {
	s := open(t, create(t))
	a := newStream()

	_, err := s.Append(within(t), to(a, eventstore.ExpectVersion(1), newEvent("A")))
	requireConflict(t, err, a, 1, 0)
	mustAppend(t, s, to(a, eventstore.ExpectAny(), newEvent("A")))
	_, err = s.Append(within(t), to(a, eventstore.ExpectNone(), newEvent("A")))
	requireConflict(t, err, a, 0, 1)
	_, err = s.Append(within(t), to(a, eventstore.ExpectVersion(2), newEvent("A")))
	requireConflict(t, err, a, 2, 1)
	mustAppend(t, s, to(a, eventstore.ExpectVersion(1), newEvent("A")))
	mustAppend(t, s, to(a, eventstore.ExpectAny(), newEvent("A")))
	require.Len(t, wholeLog(t, s), 3, "a conflict leaves neither events nor gaps")
}

func testSeveralStreams(t *testing.T, create Factory) {
	s := open(t, create(t))
	a, b, c := newStream(), newStream(), newStream()
	mustAppend(t, s, to(b, eventstore.ExpectNone(), newEvent("B")))

	events := newEvents("A1", "A2", "B2", "C1")
	got := mustAppend(t, s, to(a, eventstore.ExpectNone(), events[0], events[1]),
		to(b, eventstore.ExpectVersion(1), events[2]), to(c, eventstore.ExpectAny(), events[3]))
	for i, want := range []struct {
		stream  eventstore.StreamID
		version eventstore.Version
	}{{a, 1}, {a, 2}, {b, 2}, {c, 1}} {
		require.Equal(t, events[i].ID, got[i].ID)
		require.Equal(t, want.stream, got[i].Stream)
		require.Equal(t, want.version, got[i].Version)
		require.EqualValues(t, i+2, got[i].Position)
	}

	before := wholeLog(t, s)
	_, err := s.Append(within(t), to(a, eventstore.ExpectVersion(2), newEvent("A3")),
		to(newStream(), eventstore.ExpectNone(), newEvent("D1")), to(b, eventstore.ExpectVersion(1), newEvent("B3")))
	requireConflict(t, err, b, 1, 2)
	require.Equal(t, before, wholeLog(t, s), "one conflict, and nothing is written")

	// Parts of one append that name the same stream follow on each other.
	d := newStream()
	got = mustAppend(t, s, to(d, eventstore.ExpectNone(), newEvents("D1", "D2")...), to(a, eventstore.ExpectAny(), newEvent("A3")),
		to(d, eventstore.ExpectVersion(2), newEvent("D3")), to(d, eventstore.ExpectAny(), newEvent("D4")))
	require.Equal(t, []eventstore.Version{1, 2, 3, 3, 4},
		[]eventstore.Version{got[0].Version, got[1].Version, got[2].Version, got[3].Version, got[4].Version})
	require.Equal(t, []eventstore.Event{got[0], got[1], got[3], got[4]}, collect(t, s.ReadStream(within(t), d, eventstore.StreamQuery{})))
	before = wholeLog(t, s)
	_, err = s.Append(within(t), to(d, eventstore.ExpectVersion(4), newEvent("D5")), to(d, eventstore.ExpectVersion(4), newEvent("D6")))
	requireConflict(t, err, d, 4, 5)
	require.Equal(t, before, wholeLog(t, s))
}

func testRepeating(t *testing.T, create Factory) {
	d := create(t)
	s, other := open(t, d), open(t, d)
	a, b := newStream(), newStream()
	parts := []eventstore.StreamAppend{to(a, eventstore.ExpectNone(), newEvents("A1", "A2")...), to(b, eventstore.ExpectNone(), newEvent("B1"))}
	first := mustAppend(t, s, parts...)
	mustAppend(t, s, to(a, eventstore.ExpectAny(), newEvent("A3")))

	require.Equal(t, first, mustAppend(t, s, parts...), "though the versions it expects are long past")
	require.Equal(t, first, mustAppend(t, other, parts...))

	// What the story says may differ between attempts; the fact may not.
	parts[0].Events[0].Metadata = json.RawMessage(`{"traceparent":"another attempt's"}`)
	parts[0].Events[0].CorrelationID = eventstore.NewID()
	parts[0].Events[0].OccurredAt = occurred.Add(time.Hour)
	require.Equal(t, first, mustAppend(t, s, parts...), "as recorded, not as asked")

	require.Equal(t, first[1:2], mustAppend(t, s, to(a, eventstore.ExpectVersion(7), parts[0].Events[1])), "a part of an append is an append")
	require.Equal(t, []eventstore.Event{first[2], first[0], first[1]}, mustAppend(t, s, parts[1], parts[0]), "in the order asked")
	require.Len(t, wholeLog(t, s), 4)
}

func testReusedIDs(t *testing.T, create Factory) {
	s := open(t, create(t))
	a := newStream()
	recorded := newEvent("A")
	mustAppend(t, s, to(a, eventstore.ExpectNone(), recorded))

	with := func(change func(*eventstore.NewEvent)) eventstore.NewEvent {
		e := recorded
		change(&e)
		return e
	}
	for name, parts := range map[string][]eventstore.StreamAppend{
		"other data":            {to(a, eventstore.ExpectAny(), with(func(e *eventstore.NewEvent) { e.Data = json.RawMessage(`{}`) }))},
		"the same data, spaced": {to(a, eventstore.ExpectAny(), with(func(e *eventstore.NewEvent) { e.Data = append(e.Data[:len(e.Data):len(e.Data)], ' ') }))},
		"other type":            {to(a, eventstore.ExpectAny(), with(func(e *eventstore.NewEvent) { e.Type = "B" }))},
		"other stream":          {to(newStream(), eventstore.ExpectAny(), recorded)},
		"recorded, then new":    {to(a, eventstore.ExpectAny(), recorded, newEvent("B"))},
		"new, then recorded":    {to(a, eventstore.ExpectVersion(1), newEvent("B")), to(a, eventstore.ExpectAny(), recorded)},
		"twice in one append":   {to(newStream(), eventstore.ExpectAny(), twice(newEvent("B"))...)},
	} {
		_, err := s.Append(within(t), parts...)
		require.ErrorIs(t, err, eventstore.ErrEventIDReused, name)
	}
	require.Len(t, wholeLog(t, s), 1)
}

func twice(e eventstore.NewEvent) []eventstore.NewEvent { return []eventstore.NewEvent{e, e} }

func testInvalid(t *testing.T, create Factory) {
	s := open(t, create(t))
	with := func(change func(*eventstore.NewEvent)) []eventstore.StreamAppend {
		e := newEvent("A")
		change(&e)
		return []eventstore.StreamAppend{to(newStream(), eventstore.ExpectAny(), newEvent("A"), e)}
	}
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'x'
	}
	taken := newStream()
	mustAppend(t, s, to(taken, eventstore.ExpectNone(), newEvent("A")))
	for name, parts := range map[string][]eventstore.StreamAppend{
		"nothing":                       nil,
		"no events":                     {to(newStream(), eventstore.ExpectAny())},
		"no stream":                     {to(eventstore.StreamID{}, eventstore.ExpectAny(), newEvent("A"))},
		"no aggregate id":               {to(eventstore.StoredStream("user/a", uuid.Nil), eventstore.ExpectAny(), newEvent("A"))},
		"a stream that is no text":      {to(eventstore.StoredStream("user/\x00", eventstore.NewID()), eventstore.ExpectAny(), newEvent("A"))},
		"another stream's aggregate id": {to(eventstore.StoredStream("user/b", taken.AggregateID()), eventstore.ExpectAny(), newEvent("A"))},
		"another stream's aggregate id, in one append": {to(eventstore.StoredStream("user/b", uuid.Max), eventstore.ExpectAny(), newEvent("A")), to(eventstore.StoredStream("user/c", uuid.Max), eventstore.ExpectAny(), newEvent("A"))},
		"a negative version":                           {to(newStream(), eventstore.ExpectVersion(-1), newEvent("A"))},
		"no id":                                        with(func(e *eventstore.NewEvent) { e.ID = uuid.Nil }),
		"no type":                                      with(func(e *eventstore.NewEvent) { e.Type = "" }),
		"a long type":                                  with(func(e *eventstore.NewEvent) { e.Type = string(long) }),
		"a type that is no text":                       with(func(e *eventstore.NewEvent) { e.Type = "A\xff" }),
		"a type with a NUL":                            with(func(e *eventstore.NewEvent) { e.Type = "A\x00" }),
		"no time":                                      with(func(e *eventstore.NewEvent) { e.OccurredAt = time.Time{} }),
		"a time far away":                              with(func(e *eventstore.NewEvent) { e.OccurredAt = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) }),
		"no data":                                      with(func(e *eventstore.NewEvent) { e.Data = nil }),
		"data that is no JSON":                         with(func(e *eventstore.NewEvent) { e.Data = json.RawMessage(`{"a":}`) }),
		"data that is no text":                         with(func(e *eventstore.NewEvent) { e.Data = json.RawMessage("{\"a\":\"\xff\"}") }),
		"two values":                                   with(func(e *eventstore.NewEvent) { e.Data = json.RawMessage(`{}{}`) }),
		"data that is an array":                        with(func(e *eventstore.NewEvent) { e.Data = json.RawMessage(` [{}]`) }),
		"data that is null":                            with(func(e *eventstore.NewEvent) { e.Data = json.RawMessage(`null`) }),
		"no metadata":                                  with(func(e *eventstore.NewEvent) { e.Metadata = nil }),
		"metadata that is a number":                    with(func(e *eventstore.NewEvent) { e.Metadata = json.RawMessage(`1`) }),
		"a content type with a NUL":                    with(func(e *eventstore.NewEvent) { e.RawBody = &eventstore.RawBody{ContentType: "\x00"} }),
	} {
		_, err := s.Append(within(t), parts...)
		require.ErrorIs(t, err, eventstore.ErrInvalidEvent, name)
	}
	require.Len(t, wholeLog(t, s), 1, "nothing of an append with an invalid event is written")
}

func testStoredBytes(t *testing.T, create Factory) {
	s := open(t, create(t))
	for _, text := range []string{
		`{}`, " \t\r\n{ \"a\" : [ 1 ,2 ] }\n",
		`{"b":1,"a":2,"b":3}`,
		`{"n":[1.0,1e2,1E+2,-0,0.10,12345678901234567890123456789,1e400]}`,
		`{"ü":"Žluťoučký 漢字 👩‍👩‍👧 \u00fc \ud83d\ude00 \u0000 \/ \\ \""}`,
		`{"lone surrogate":"\ud800"}`,
		`{"` + "\u2028" + `":"<>&"}`,
		`{"long":"` + string(make([]byte, 0)) + longText(70_000) + `"}`,
	} {
		e := newEvent("A")
		e.Data, e.Metadata = json.RawMessage(text), json.RawMessage(text)
		got := mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), e))
		require.Equal(t, text, string(got[0].Data))
		read := collect(t, s.ReadStream(within(t), got[0].Stream, eventstore.StreamQuery{}))
		require.Equal(t, text, string(read[0].Data))
		require.Equal(t, text, string(read[0].Metadata))
		require.Equal(t, got, mustAppend(t, s, to(got[0].Stream, eventstore.ExpectNone(), e)), "equal bytes are a repetition")
	}

	// Names that need care on their way into SQL and back.
	for _, name := range []string{"f:component:external", "a/b", "'; DROP TABLE api_event_store; --", "%41 \x00 ü 漢", ""} {
		e := newEvent("Ünïcode 'type'")
		stream := eventstore.NamedStream("odd category 'ü'", "realm", name)
		got := mustAppend(t, s, to(stream, eventstore.ExpectNone(), e))
		require.Equal(t, got, collect(t, s.ReadLog(within(t), eventstore.LogQuery{Category: stream.Category(), Types: []string{e.Type}, EventIDs: []uuid.UUID{e.ID}})))
		found, err := s.Stream(within(t), stream.AggregateID())
		require.NoError(t, err)
		require.Equal(t, stream, found)
	}

	// The caller's memory is its own again when Append has returned.
	e := newEvent("A")
	got := mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), e))
	want := string(e.Data)
	copy(e.Data, `{"XX`)
	require.Equal(t, want, string(got[0].Data))
}

func longText(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return string(b)
}

func testTimes(t *testing.T, create Factory) {
	d := create(t)
	var mu sync.Mutex
	now := time.Date(2026, 7, 1, 14, 0, 0, 123_456_999, time.FixedZone("CEST", 7200))
	set := func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		now = at
	}
	s := openAt(t, d, func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	for _, at := range []time.Time{
		time.Date(2026, 7, 1, 1, 2, 3, 123_456_789, time.FixedZone("X", -5*3600)),
		time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		time.UnixMilli(0),
	} {
		e := newEvent("A")
		e.OccurredAt = at
		got := mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), e))
		require.Equal(t, at.UTC().Truncate(time.Microsecond), got[0].OccurredAt)
		require.Equal(t, time.Date(2026, 7, 1, 12, 0, 0, 123_456_000, time.UTC), got[0].RecordedAt)
		require.Equal(t, got, collect(t, s.ReadStream(within(t), got[0].Stream, eventstore.StreamQuery{})))
	}

	last := now
	set(last.Add(-time.Hour))
	got := mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), newEvent("A")))
	require.Equal(t, last.UTC().Truncate(time.Microsecond), got[0].RecordedAt, "a clock that is set back does not turn time around")
	set(last.Add(time.Second))
	got = mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), newEvents("A", "B")...))
	require.Equal(t, last.Add(time.Second).UTC().Truncate(time.Microsecond), got[1].RecordedAt)
	require.Equal(t, got[0].RecordedAt, got[1].RecordedAt, "one append, one time")
}

func testStreams(t *testing.T, create Factory) {
	s := open(t, create(t))
	a, b, none := newStream(), eventstore.UUIDStream("call", eventstore.NewID()), newStream()
	mustAppend(t, s, to(a, eventstore.ExpectNone(), newEvents("A", "B")...), to(b, eventstore.ExpectNone(), newEvent("C")))

	versions, err := s.Versions(within(t), a, b, none, a)
	require.NoError(t, err)
	require.Equal(t, map[uuid.UUID]eventstore.Version{a.AggregateID(): 2, b.AggregateID(): 1}, versions)
	versions, err = s.Versions(within(t))
	require.NoError(t, err)
	require.Empty(t, versions)

	got, err := s.Stream(within(t), b.AggregateID())
	require.NoError(t, err)
	require.Equal(t, b, got)
	_, err = s.Stream(within(t), none.AggregateID())
	require.ErrorIs(t, err, eventstore.ErrNotFound)
}

func testRawBodies(t *testing.T, create Factory) {
	s := open(t, create(t))
	a := newStream()
	events := newEvents("A", "B", "C")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	events[0].RawBody = &eventstore.RawBody{ContentType: "application/json", Bytes: every}
	events[2].RawBody = &eventstore.RawBody{}
	mustAppend(t, s, to(a, eventstore.ExpectNone(), events...))
	mustAppend(t, s, to(a, eventstore.ExpectNone(), events...))

	body, err := s.RawBody(within(t), events[0].ID)
	require.NoError(t, err)
	require.Equal(t, eventstore.RawBody{ContentType: "application/json", Bytes: every}, body)
	body, err = s.RawBody(within(t), events[2].ID)
	require.NoError(t, err)
	require.Empty(t, body.Bytes)
	for _, id := range []uuid.UUID{events[1].ID, eventstore.NewID()} {
		_, err = s.RawBody(within(t), id)
		require.ErrorIs(t, err, eventstore.ErrNotFound)
	}

	refused := newEvent("D")
	refused.RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: []byte("x")}
	_, err = s.Append(within(t), to(a, eventstore.ExpectNone(), refused))
	requireConflict(t, err, a, 0, 3)
	_, err = s.RawBody(within(t), refused.ID)
	require.ErrorIs(t, err, eventstore.ErrNotFound, "the body is in the event's transaction")
}

func testImmutability(t *testing.T, create Factory) {
	d := create(t)
	s := open(t, d)
	mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), newEvents("A", "B")...))
	before := wholeLog(t, s)
	require.NotEmpty(t, d.Tampering)
	for _, text := range d.Tampering {
		require.Error(t, d.Exec(within(t), text), text)
	}
	require.Equal(t, before, wholeLog(t, s))
	mustAppend(t, s, to(before[0].Stream, eventstore.ExpectVersion(2), newEvent("C")))
}

func testCancelled(t *testing.T, create Factory) {
	d := create(t)
	s := open(t, d)
	a := newStream()
	mustAppend(t, s, to(a, eventstore.ExpectNone(), newEvents("A", "B", "C")...))

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	unwanted := newEvent("D")
	_, err := s.Append(gone, to(a, eventstore.ExpectAny(), unwanted))
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, collect(t, s.ReadLog(within(t), eventstore.LogQuery{EventIDs: []uuid.UUID{unwanted.ID}})), "it ended before anything began")
	_, err = s.Head(gone)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Stream(gone, a.AggregateID())
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Versions(gone, a)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.RawBody(gone, unwanted.ID)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Ping(gone), context.Canceled)
	_, err = s.Wait(gone, 0)
	require.ErrorIs(t, err, context.Canceled)

	for name, read := range map[string]func(context.Context) iter.Seq2[eventstore.Event, error]{
		"stream": func(ctx context.Context) iter.Seq2[eventstore.Event, error] {
			return s.ReadStream(ctx, a, eventstore.StreamQuery{})
		},
		"log": func(ctx context.Context) iter.Seq2[eventstore.Event, error] {
			return s.ReadLog(ctx, eventstore.LogQuery{})
		},
	} {
		for e, err := range read(gone) {
			require.Zero(t, e, name)
			require.ErrorIs(t, err, context.Canceled, name)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var seen int
		var last error
		for _, err := range read(ctx) {
			if last = err; err == nil {
				seen++
				cancel()
			}
		}
		cancel()
		require.Equal(t, 1, seen, name)
		require.ErrorIs(t, last, context.Canceled, name)
	}

	// One who gives up while waiting for another process's transaction learns so at
	// once, and finds out by repeating what has become of the append.
	commit := d.Hold(t, to(newStream(), eventstore.ExpectNone(), newEvent("held")))
	ctx, giveUp := context.WithCancel(t.Context())
	part := to(newStream(), eventstore.ExpectNone(), newEvent("E"))
	result := make(chan error, 1)
	go func() {
		_, err := s.Append(ctx, part)
		result <- err
	}()
	giveUp()
	require.ErrorIs(t, receive(t, result), context.Canceled)
	require.NoError(t, commit())
	got := mustAppend(t, s, part)
	require.Equal(t, got, collect(t, s.ReadStream(within(t), part.Stream, eventstore.StreamQuery{})))
}

func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		require.FailNow(t, "nothing came within "+limit.String())
		panic("unreachable")
	}
}

func isConflict(err error) bool {
	var conflict *eventstore.ConflictError
	return errors.As(err, &conflict)
}

func isReused(err error) bool { return errors.Is(err, eventstore.ErrEventIDReused) }
