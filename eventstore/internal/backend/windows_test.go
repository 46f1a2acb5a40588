package backend

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/eventstore"
)

// TestWindows: pages that are looked for in windows have the events that one question
// about the whole log has, wherever they are, and no window is wider than it may be.
func TestWindows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		head := eventstore.Position(rapid.IntRange(0, 20_000).Draw(t, "head"))
		every := eventstore.Position(rapid.SampledFrom([]int{1, 2, 7, 900, 50_000}).Draw(t, "every"))
		from := eventstore.Position(rapid.IntRange(0, 20_000).Draw(t, "from"))
		matches := func(p eventstore.Position) bool { return p >= from && p%every == 0 }
		q := eventstore.LogQuery{
			Types: []string{"A", "B"}, After: eventstore.Position(rapid.IntRange(0, 20_000).Draw(t, "after")),
			Before: eventstore.Position(rapid.IntRange(0, 20_000).Draw(t, "before")), Backward: rapid.Bool().Draw(t, "backward"),
			Limit: rapid.SampledFrom([]int{0, 1, 499, 500, 1200}).Draw(t, "limit"),
		}
		var want []eventstore.Position
		for p := q.After + 1; p <= head && (q.Before == 0 || p < q.Before); p++ {
			if matches(p) {
				want = append(want, p)
			}
		}
		if q.Backward {
			slices.Reverse(want)
		}
		if q.Limit > 0 && len(want) > q.Limit {
			want = want[:q.Limit]
		}

		questions := 0
		d := Dialect{Category: "c"}
		log := Log{
			Start: FromTheFirst,
			Head:  func(context.Context) (eventstore.Position, error) { return head, nil },
			Query: func(_ context.Context, _ string, args []any) (page []eventstore.Event, more bool, err error) {
				questions++
				after, before, rows := bounds(args)
				if before-after > maxWidth+1 {
					return nil, false, fmt.Errorf("a window from %d to %d", after, before)
				}
				for p := after + 1; p < before; p++ {
					if matches(p) {
						page = append(page, eventstore.Event{Position: p})
					}
				}
				if q.Backward {
					slices.Reverse(page)
				}
				return page[:min(len(page), rows)], false, nil
			},
		}
		l := NewLifetime()
		defer l.Close()
		var got []eventstore.Position
		for e, err := range d.ReadLog(context.Background(), l, log, q) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Position)
		}
		if !slices.Equal(want, got) {
			t.Fatalf("%+v: want %v, got %v", q, want, got)
		}
		if questions > 6+len(want)/100 {
			t.Fatalf("%+v: %d questions for %d events", q, questions, len(want))
		}
	})
}

// bounds reads the arguments of a page's query: After where above 0, Before, two types,
// and the rows.
func bounds(args []any) (after, before eventstore.Position, rows int) {
	if len(args) == 5 {
		after = eventstore.Position(args[0].(int64))
		args = args[1:]
	}
	return after, eventstore.Position(args[0].(int64)), int(args[3].(int64))
}

func TestNoGapInAStream(t *testing.T) {
	t.Parallel()
	stream := eventstore.UUIDStream("call", eventstore.NewID())
	at := func(versions ...eventstore.Version) (page []eventstore.Event) {
		for _, v := range versions {
			page = append(page, eventstore.Event{Version: v})
		}
		return page
	}
	for _, c := range []struct {
		q     eventstore.StreamQuery
		page  []eventstore.Event
		more  bool
		whole bool
	}{
		{eventstore.StreamQuery{}, nil, false, true},
		{eventstore.StreamQuery{}, at(1, 2, 3), false, true},
		{eventstore.StreamQuery{After: -1}, at(1), false, true},
		{eventstore.StreamQuery{}, at(2, 3), false, false},
		{eventstore.StreamQuery{After: 4}, at(5, 6), false, true},
		{eventstore.StreamQuery{After: 4}, at(5, 7), false, false},
		{eventstore.StreamQuery{Backward: true}, at(3, 2, 1), false, true},
		{eventstore.StreamQuery{Backward: true, Before: 9}, at(8, 6), true, false},
		{eventstore.StreamQuery{Backward: true}, at(3, 2), true, true},
		{eventstore.StreamQuery{Backward: true}, at(3, 2), false, false},
		{eventstore.StreamQuery{Backward: true, After: 1}, at(3, 2), false, true},
	} {
		err := withoutGap(stream, c.q, 0, c.page, c.more)
		if c.whole {
			require.NoError(t, err, "%+v", c)
		} else {
			require.ErrorIs(t, err, eventstore.ErrIncomplete, "%+v", c)
		}
	}
}
