package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

func testReadStream(t *testing.T, create Factory) {
	s := open(t, create(t))
	a := newStream()
	mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), newEvent("X")))
	all := mustAppend(t, s, to(a, eventstore.ExpectNone(), newEvents("A", "B", "C")...))
	mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), newEvent("X")))
	all = append(all, mustAppend(t, s, to(a, eventstore.ExpectAny(), newEvents("D", "E")...))...)

	for name, c := range map[string]struct {
		query eventstore.StreamQuery
		want  []eventstore.Event
	}{
		"all":                {eventstore.StreamQuery{}, all},
		"after":              {eventstore.StreamQuery{After: 2}, all[2:]},
		"after the end":      {eventstore.StreamQuery{After: 5}, nil},
		"before":             {eventstore.StreamQuery{Before: 3}, all[:2]},
		"window":             {eventstore.StreamQuery{After: 1, Before: 4}, all[1:3]},
		"limit":              {eventstore.StreamQuery{Limit: 2}, all[:2]},
		"limit of a window":  {eventstore.StreamQuery{After: 2, Limit: 2}, all[2:4]},
		"a limit beyond all": {eventstore.StreamQuery{Limit: 100}, all},
		"backward":           {eventstore.StreamQuery{Backward: true}, reverse(all)},
		"the last":           {eventstore.StreamQuery{Backward: true, Limit: 1}, all[4:]},
		"backward window":    {eventstore.StreamQuery{After: 1, Before: 5, Backward: true, Limit: 2}, reverse(all[2:4])},
	} {
		require.Equal(t, c.want, collect(t, s.ReadStream(within(t), a, c.query)), name)
	}
	require.Empty(t, collect(t, s.ReadStream(within(t), newStream(), eventstore.StreamQuery{})))
	for _, err := range s.ReadStream(within(t), a, eventstore.StreamQuery{}) {
		require.NoError(t, err)
		break // a consumer may stop at any time
	}
}

func testReadLog(t *testing.T, create Factory) {
	d := create(t)
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	minutes := 0
	s := openAt(t, d, func() time.Time { return start.Add(time.Duration(minutes) * time.Minute) })

	correlation, cause := eventstore.NewID(), eventstore.NewID()
	streams := []eventstore.StreamID{
		eventstore.NamedStream("user", "acme", "1"), eventstore.NamedStream("user", "acme", "2"),
		eventstore.NamedStream("users", "acme"), eventstore.NamedStream("call", "7"), eventstore.NamedStream("alone"),
	}
	kinds := []string{"A", "B", "C"}
	var all []eventstore.Event
	for i := range 60 {
		minutes = i
		e := newEvent(kinds[i%len(kinds)])
		if i%4 == 0 {
			e.CorrelationID = correlation
		}
		if i%6 == 0 {
			e.CausationID = cause
		}
		all = append(all, mustAppend(t, s, to(streams[i%len(streams)], eventstore.ExpectAny(), e))...)
	}
	at := func(minute int) time.Time { return start.Add(time.Duration(minute) * time.Minute) }
	some := []uuid.UUID{all[40].ID, all[3].ID, eventstore.NewID(), all[3].ID}

	for name, q := range map[string]eventstore.LogQuery{
		"all":                          {},
		"after":                        {After: 17},
		"after the end":                {After: 60},
		"before":                       {Before: 17},
		"window":                       {After: 10, Before: 20},
		"limit":                        {Limit: 7},
		"type":                         {Types: []string{"B"}},
		"types":                        {Types: []string{"C", "A", "C"}},
		"types of a window":            {Types: []string{"C", "A", "nowhere"}, After: 10, Before: 50, Limit: 20},
		"an unknown type":              {Types: []string{"nowhere"}},
		"category":                     {Category: "user"},
		"category without parts":       {Category: "alone"},
		"an unknown category":          {Category: "use"},
		"category and type":            {Category: "user", Types: []string{"A"}},
		"category and types":           {Category: "user", Types: []string{"A", "B"}},
		"correlation":                  {CorrelationID: correlation},
		"causation":                    {CausationID: cause},
		"correlation and causation":    {CorrelationID: correlation, CausationID: cause},
		"correlation, type and window": {CorrelationID: correlation, Types: []string{"A"}, After: 12, Limit: 2},
		"event ids":                    {EventIDs: some},
		"event ids and type":           {EventIDs: some, Types: []string{all[3].Type}},
		"event ids and types":          {EventIDs: some, Types: []string{"A", "B", "C"}},
		"recorded from":                {RecordedFrom: at(30)},
		"recorded to":                  {RecordedTo: at(30)},
		"recorded between":             {RecordedFrom: at(10), RecordedTo: at(20)},
		"recorded just after":          {RecordedFrom: at(10).Add(time.Nanosecond), RecordedTo: at(20).Add(time.Nanosecond)},
		"recorded between, types":      {RecordedFrom: at(10), RecordedTo: at(20), Types: []string{"A", "C"}, After: 13, Limit: 3},
		"recorded never":               {RecordedFrom: at(100)},
		"recorded in another zone":     {RecordedFrom: at(10).In(time.FixedZone("X", 3600)), RecordedTo: at(20).In(time.FixedZone("Y", -3600))},
		"recorded until the far end":   {RecordedTo: time.Date(20_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"everything at once": {
			After: 2, Before: 59, Types: []string{"A", "B"}, Category: "user", CorrelationID: correlation,
			CausationID: cause, RecordedFrom: at(1), RecordedTo: at(58),
		},
	} {
		for _, backward := range []bool{false, true} {
			q.Backward = backward
			require.Equal(t, selectLog(all, q), collect(t, s.ReadLog(within(t), q)), "%s, backward %t", name, backward)
		}
	}
}

// selectLog is what a LogQuery means, written as plainly as it can be.
func selectLog(all []eventstore.Event, q eventstore.LogQuery) []eventstore.Event {
	var out []eventstore.Event
	for _, e := range all {
		if e.Position > q.After && (q.Before == 0 || e.Position < q.Before) &&
			(len(q.Types) == 0 || slices.Contains(q.Types, e.Type)) &&
			(q.Category == "" || q.Category == e.Stream.Category()) &&
			(q.CorrelationID == uuid.Nil || q.CorrelationID == e.CorrelationID) &&
			(q.CausationID == uuid.Nil || q.CausationID == e.CausationID) &&
			(len(q.EventIDs) == 0 || slices.Contains(q.EventIDs, e.ID)) &&
			(q.RecordedFrom.IsZero() || !e.RecordedAt.Before(q.RecordedFrom)) &&
			(q.RecordedTo.IsZero() || e.RecordedAt.Before(q.RecordedTo)) {
			out = append(out, e)
		}
	}
	if q.Backward {
		slices.Reverse(out)
	}
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[:q.Limit]
	}
	return out
}

func positions(events []eventstore.Event) []eventstore.Position {
	out := make([]eventstore.Position, len(events))
	for i, e := range events {
		out[i] = e.Position
	}
	return out
}

// testPaging reads more than any store fetches at once, and appends while reading.
func testPaging(t *testing.T, create Factory) {
	s := open(t, create(t))
	a, b := newStream(), newStream()
	var all []eventstore.Event
	for range 13 {
		var events []eventstore.NewEvent
		for i := range 100 {
			events = append(events, newEvent([]string{"A", "B", "C"}[i%3]))
		}
		all = append(all, mustAppend(t, s, to(a, eventstore.ExpectAny(), events...))...)
	}
	for _, limit := range []int{0, 499, 500, 501, 1300} {
		for _, backward := range []bool{false, true} {
			q := eventstore.LogQuery{Backward: backward, Limit: limit}
			want := positions(selectLog(all, q))
			require.Equal(t, want, positions(collect(t, s.ReadLog(within(t), q))), "%+v", q)
			require.Equal(t, want, positions(collect(t, s.ReadStream(within(t), a, eventstore.StreamQuery{Backward: backward, Limit: limit}))))
		}
	}
	for _, q := range []eventstore.LogQuery{{Types: []string{"B", "C"}}, {Types: []string{"C", "A", "B"}, Backward: true, Limit: 700}} {
		require.Equal(t, positions(selectLog(all, q)), positions(collect(t, s.ReadLog(within(t), q))), "%+v", q)
	}

	// A page that is cut short because of its size is not the end.
	var large []eventstore.Event
	for range 6 {
		e := newEvent("large")
		e.Data = []byte(`{"text":"` + longText(1<<20) + `"}`)
		large = append(large, mustAppend(t, s, to(b, eventstore.ExpectAny(), e))...)
	}
	require.Len(t, collect(t, s.ReadStream(within(t), b, eventstore.StreamQuery{})), len(large))
	require.Len(t, collect(t, s.ReadLog(within(t), eventstore.LogQuery{Types: []string{"large"}, Backward: true, Limit: 5})), 5)

	// The consumer may append, with many iterators open: none holds a connection.
	seen := 0
	for e, err := range s.ReadLog(within(t), eventstore.LogQuery{Limit: 40}) {
		require.NoError(t, err)
		require.EqualValues(t, seen+1, e.Position)
		seen++
		for inner, err := range s.ReadStream(within(t), a, eventstore.StreamQuery{Limit: 1}) {
			require.NoError(t, err)
			require.EqualValues(t, 1, inner.Version)
			mustAppend(t, s, to(newStream(), eventstore.ExpectNone(), newEvent("D")))
		}
	}
	require.Equal(t, 40, seen)
}
