package eventstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// rows are a store of which every part can be made wrong by itself.
type rows struct {
	log    []Event
	gate   map[uuid.UUID]Version
	byID   map[uuid.UUID]Position
	bodies []KeptBody
	head   Position
	// behind are events that are appended while somebody reads.
	behind []Event
	damage []string
	fail   error
	reads  int
}

func (r *rows) all() []Event { return append(slices.Clone(r.log), r.behind...) }

func (r *rows) ReadLog(_ context.Context, q LogQuery) iter.Seq2[Event, error] {
	if q.Before != 0 {
		r.reads++
	}
	return func(yield func(Event, error) bool) {
		for i, e := range r.all() {
			if r.fail != nil && i == 3 {
				yield(Event{}, r.fail)
				return
			}
			if e.Position <= q.After || q.Before != 0 && e.Position >= q.Before {
				continue
			}
			if len(q.EventIDs) > 0 && (!slices.Contains(q.EventIDs, e.ID) || r.byID[e.ID] != e.Position && r.byID[e.ID] != -1) {
				continue
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (r *rows) ReadStream(_ context.Context, s StreamID, q StreamQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		n := 0
		for _, e := range r.all() {
			if e.Stream.AggregateID() == s.AggregateID() && e.Version > q.After && (q.Limit == 0 || n < q.Limit) {
				n++
				if !yield(e, nil) {
					return
				}
			}
		}
		if n == 0 && r.gate[s.AggregateID()] > q.After {
			yield(Event{}, ErrIncomplete)
		}
	}
}

func (r *rows) Versions(_ context.Context, streams ...StreamID) (map[uuid.UUID]Version, error) {
	found := map[uuid.UUID]Version{}
	for _, s := range streams {
		if v, ok := r.gate[s.AggregateID()]; ok {
			found[s.AggregateID()] = v
		}
	}
	return found, nil
}

func (r *rows) Head(context.Context) (Position, error) { return r.head, nil }

func (r *rows) CountStreams(context.Context) (int64, error) { return int64(len(r.gate)), nil }

func (r *rows) CheckFile(context.Context) ([]string, error) { return r.damage, nil }

func (r *rows) RawBodies(context.Context) iter.Seq2[KeptBody, error] {
	return func(yield func(KeptBody, error) bool) {
		for _, b := range r.bodies {
			if !yield(b, nil) {
				return
			}
		}
	}
}

var verifiedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// soundRows has the events of n streams, three each, taking turns.
func soundRows(n int) *rows {
	r := &rows{gate: map[uuid.UUID]Version{}, byID: map[uuid.UUID]Position{}}
	streams := make([]StreamID, n)
	for i := range streams {
		if streams[i] = NamedStream("user", "acme", fmt.Sprintf("f:ü:%d", i)); i%2 == 0 {
			streams[i] = UUIDStream("call", NewID())
		}
	}
	for range 3 {
		for _, s := range streams {
			r.log = append(r.log, r.next(s))
		}
	}
	r.head = Position(len(r.log))
	if n == 0 {
		return r
	}
	r.bodies = []KeptBody{{EventID: r.log[0].ID, RawBody: RawBody{Bytes: []byte("x")}, Digest: BodyDigest([]byte("x"))}}
	return r
}

func (r *rows) next(s StreamID) Event {
	r.gate[s.AggregateID()]++
	e := Event{
		Position: Position(len(r.all()) + 1), ID: NewID(), Stream: s, Version: r.gate[s.AggregateID()], Type: "A",
		Data: []byte(" \n{\"a\":[1]}"), Metadata: []byte(`{}`), OccurredAt: verifiedAt, RecordedAt: verifiedAt,
	}
	r.byID[e.ID] = e.Position
	return e
}

func TestVerifyFindsNothingInASoundStore(t *testing.T) {
	t.Parallel()
	for _, streams := range []int{0, 1, 7, 700} {
		r := soundRows(streams)
		seen := Position(0)
		bodies := 0
		v, err := Verify(t.Context(), r, VerifyOptions{Now: verifiedAt, Event: func(e Event) {
			seen++
			require.Equal(t, seen, e.Position)
		}, RawBody: func(KeptBody) { bodies++ }})
		require.NoError(t, err)
		require.Empty(t, v.Faults)
		require.True(t, v.Sound())
		require.EqualValues(t, 3*streams, v.Head)
		require.EqualValues(t, 3*streams, v.Events)
		require.EqualValues(t, streams, v.Streams)
		require.Equal(t, v.Head, seen)
		require.EqualValues(t, bodies, *v.RawBodies)
	}
}

// Each thing that can be wrong is found, and nothing else is said.
func TestVerifyFindsEachFault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(r *rows)
		want  []string // kinds and the beginnings of details, in order
	}{
		"gap": {func(r *rows) {
			for i := 4; i < len(r.log); i++ {
				r.log[i].Position++
				r.byID[r.log[i].ID]++
			}
			r.head++
		}, []string{"position: position 6"}},
		"head": {func(r *rows) { r.head++ }, []string{"position: the log ends at position 15 and its head is said to be 16"}},
		"version twice": {func(r *rows) {
			r.log[7].Version = 1
		}, []string{"version: position 8", "version: position 13"}},
		"version left out":   {func(r *rows) { r.log[12].Version, r.gate[r.log[12].Stream.AggregateID()] = 4, 4 }, []string{"version: position 13"}},
		"id twice":           {func(r *rows) { r.log[9].ID = r.log[2].ID; r.byID[r.log[2].ID] = -1 }, []string{"event_id: position 3", "event_id: position 10"}},
		"id twice, found 1":  {func(r *rows) { r.log[9].ID = r.log[2].ID }, []string{"event_id: position 10"}},
		"id finds nothing":   {func(r *rows) { r.byID[r.log[2].ID] = 0 }, []string{"event_id: position 3"}},
		"id nil":             {func(r *rows) { r.log[2].ID = uuid.Nil; r.byID[uuid.Nil] = 3 }, []string{"event_id: position 3"}},
		"gate behind":        {func(r *rows) { r.gate[r.log[0].Stream.AggregateID()] = 2 }, []string{"gate: stream call/"}},
		"gate ahead":         {func(r *rows) { r.gate[r.log[0].Stream.AggregateID()] = 4 }, []string{"gate: stream call/"}},
		"gate lacks it":      {func(r *rows) { delete(r.gate, r.log[0].Stream.AggregateID()) }, []string{"gate: stream call/"}},
		"gate alone has it":  {func(r *rows) { r.gate[uuid.Max] = 1 }, []string{"gate: the gate has 6 streams, the log 5"}},
		"data":               {func(r *rows) { r.log[4].Data = []byte(`{"a":}`) }, []string{"content: position 5"}},
		"data no object":     {func(r *rows) { r.log[4].Data = []byte(`[]`) }, []string{"content: position 5"}},
		"data empty":         {func(r *rows) { r.log[4].Data = nil }, []string{"content: position 5"}},
		"metadata not UTF-8": {func(r *rows) { r.log[4].Metadata = []byte("{\"a\":\"\xff\"}") }, []string{"content: position 5"}},
		"type":               {func(r *rows) { r.log[4].Type = "" }, []string{"content: position 5"}},
		"type too long":      {func(r *rows) { r.log[4].Type = strings.Repeat("A", 256) }, []string{"content: position 5"}},
		"stream's name": {func(r *rows) {
			r.log[4].Stream = StoredStream("user/acme/other", r.log[4].Stream.AggregateID())
		}, []string{"stream: position 5"}},
		"never recorded": {func(r *rows) { r.log[4].RecordedAt = time.Time{} }, []string{"recorded_at: position 5"}},
		"in the future":  {func(r *rows) { r.log[4].RecordedAt = verifiedAt.Add(25 * time.Hour) }, []string{"recorded_at: position 5"}},
		"raw body":       {func(r *rows) { r.bodies[0].Bytes = []byte("y") }, []string{"raw_body: the body of event"}},
		"file":           {func(r *rows) { r.damage = []string{"row 7 missing from index x"} }, []string{"unreadable: row 7 missing"}},
		"row":            {func(r *rows) { r.fail = errors.New("event at position 4 is damaged") }, []string{"unreadable: look for", "unreadable: read the log behind position 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := soundRows(5)
			c.spoil(r)
			v, err := Verify(t.Context(), r, VerifyOptions{Now: verifiedAt})
			require.NoError(t, err)
			require.False(t, v.Sound())
			require.Len(t, v.Faults, len(c.want), "%v", v.Faults)
			require.EqualValues(t, len(c.want), v.FaultsTotal)
			for i, f := range v.Faults {
				require.True(t, strings.HasPrefix(f.String(), c.want[i]), "%s, want %s", f, c.want[i])
			}
		})
	}
}

func TestVerifyCountsMoreFaultsThanItLists(t *testing.T) {
	t.Parallel()
	r := soundRows(300)
	for i := range r.log {
		r.log[i].Data = nil
	}
	v, err := Verify(t.Context(), r, VerifyOptions{})
	require.NoError(t, err)
	require.Len(t, v.Faults, MaxFaults)
	require.EqualValues(t, 900, v.FaultsTotal)
}

// What is appended while Verify reads is no fault, whether the stream is new or not.
func TestVerifyBesideAWriter(t *testing.T) {
	t.Parallel()
	r := soundRows(5)
	r.behind = append(r.behind, r.next(r.log[0].Stream))
	r.behind = append(r.behind, r.next(NamedStream("user", "new")))
	r.behind = append(r.behind, r.next(r.log[0].Stream))
	v, err := Verify(t.Context(), r, VerifyOptions{})
	require.NoError(t, err)
	require.Empty(t, v.Faults)
	require.EqualValues(t, 15, v.Events)
}

func TestVerifyReadsManyStreamsInParts(t *testing.T) {
	t.Parallel()
	for _, spoilt := range []bool{false, true} {
		r := soundRows(300)
		if spoilt {
			for i := range 300 {
				r.log[600+i].Version = 7
			}
		}
		v := &verifier{store: r, found: &Verification{}, maxStreams: 30, parts: 1}
		require.NoError(t, v.run(t.Context()))
		require.Greater(t, r.reads, 8)
		require.EqualValues(t, 300, v.found.Streams)
		require.EqualValues(t, 900, v.found.Events)
		if spoilt {
			require.EqualValues(t, 600, v.found.FaultsTotal, "each version, and the gate of each")
		} else {
			require.Empty(t, v.found.Faults)
		}
	}
}

func TestVerifyEndsWhereTheStoreCannotBeReached(t *testing.T) {
	t.Parallel()
	for _, want := range []error{ErrUnavailable, ErrClosed, context.Canceled} {
		r := soundRows(5)
		r.fail = fmt.Errorf("read: %w", want)
		_, err := Verify(t.Context(), r, VerifyOptions{})
		require.ErrorIs(t, err, want)
	}
}
