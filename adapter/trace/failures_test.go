package trace

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

func (w *world) failures() *Failures {
	return &Failures{
		Calls: calls{w: w, page: 2}, Store: w.store, Codec: w.codec, Users: lookup{}, History: calls{w: w},
		Clock: func() time.Time { return at(100_000) },
	}
}

// calls folds what the log holds and gives it out in small pages.
type calls struct {
	w    *world
	page int
}

func (c calls) ListCalls(ctx context.Context, statuses []adapter.CallStatus, realm string, limit int, cursor string) ([]adapter.Call, string, error) {
	events, err := collect(c.w.store.ReadLog(ctx, eventstore.LogQuery{Category: adapter.CategoryCall}))
	if err != nil {
		return nil, "", err
	}
	decoded, err := c.w.finder().decodeAll(ctx, events)
	if err != nil {
		return nil, "", err
	}
	found := slices.DeleteFunc(callsOf(decoded), func(call adapter.Call) bool {
		return !slices.Contains(statuses, call.Status) || (realm != "" && call.Realm != realm)
	})
	slices.SortFunc(found, func(a, b adapter.Call) int {
		return cmp.Or(b.RequestedAt.Compare(a.RequestedAt), bytes.Compare(b.CallID[:], a.CallID[:]))
	})
	from := 0
	if cursor != "" {
		if from, err = strconv.Atoi(cursor); err != nil {
			return nil, "", err
		}
	}
	to := min(from+min(limit, c.page), len(found))
	next := ""
	if to < len(found) {
		next = strconv.Itoa(to)
	}
	return found[from:to], next, nil
}

// CallsOfUser lists them newest first, as ListCalls does.
func (c calls) CallsOfUser(ctx context.Context, user adapter.UserRef, limit int) ([]adapter.Call, error) {
	all, _, err := calls{w: c.w, page: 1000}.ListCalls(ctx, []adapter.CallStatus{
		adapter.CallRequested, adapter.CallSucceeded, adapter.CallFailed, adapter.CallUnknown, adapter.CallSkipped,
	}, user.Realm, 1000, "")
	all = slices.DeleteFunc(all, func(c adapter.Call) bool { return c.UserID != user.UserID })
	return all[:min(len(all), limit)], err
}

func TestFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.everything()
	page, err := w.failures().List(t.Context(), FailureQuery{})
	require.NoError(t, err)
	require.Empty(t, page.NextCursor)
	var b bytes.Buffer
	require.NoError(t, WriteFailures(&b, page, Options{Width: 120}))
	golden(t, "failures.txt", b.Bytes())
	golden(t, "failures.json", jsonOf(t, page))

	var kinds []FailureKind
	for _, f := range page.Items {
		kinds = append(kinds, f.Kind)
	}
	require.Equal(t, []FailureKind{
		FailureDeliveryParked, FailureReconciliationInvalid, FailureDrift, FailureDrift, FailureCallOpen, FailureCallUnknown, FailureCallFailed,
	}, kinds, "newest first, and no refused call")

	for limit := 1; limit < 4; limit++ {
		var items []Failure
		q := FailureQuery{Limit: limit}
		for range 20 {
			part, err := w.failures().List(t.Context(), q)
			require.NoError(t, err)
			require.LessOrEqual(t, len(part.Items), limit)
			items = append(items, part.Items...)
			if q.Cursor = part.NextCursor; q.Cursor == "" {
				break
			}
		}
		require.Equal(t, jsonOf(t, page.Items), jsonOf(t, items), "pages of %d", limit)
	}

	page, err = w.failures().List(t.Context(), FailureQuery{Realm: "globex"})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	require.Equal(t, adapter.CodeListingEmpty, page.Items[0].Code)
}

func TestFailuresEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	w.invalidRun()
	w.parkedDelivery()
	list := func() []Failure {
		page, err := w.failures().List(t.Context(), FailureQuery{})
		require.NoError(t, err)
		return page.Items
	}
	require.Len(t, list(), 4)
	later := adapter.ReconciliationStream(id("later run"))
	w.record(
		fact{id: "later run started", stream: later, story: "later run", ms: 90_000, payload: &adapter.ReconciliationStarted{RunID: id("later run"), Realm: "globex"}},
		fact{id: "later run completed", stream: later, story: "later run", ms: 90_100, payload: &adapter.ReconciliationCompleted{RunID: id("later run"), Realm: "globex"}},
	)
	require.Len(t, list(), 3, "a realm that was judged since")
	w.record(fact{id: "over", stream: later, story: "later run", ms: 90_050, payload: &adapter.DriftDetected{
		RunID: id("later run"), Realm: realm, UserID: bobID, Phase: adapter.DriftEnded, Situation: adapter.SituationChanged,
	}})
	require.Len(t, list(), 2, "drift that is over")
	again := fact{id: "parked again", stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000bad0"), story: "parked story", cause: "parked delivery", ms: 91_000, payload: &adapter.DeliveryParked{Error: "still", Attempts: 4}}
	w.record(again)
	require.Len(t, list(), 2, "a delivery that is parked twice is one")
	w.record(fact{
		id: "tried again", stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000bad0"), story: "parked story", cause: "parked delivery", ms: 92_000,
		payload: &adapter.DeliveryReleased{Attempts: 5},
	})
	require.Len(t, list(), 1, "a delivery that was interpreted at last")
}

// A delivery that waits is listed where nothing comes before it any more.
func TestADeliveryThatWaitsForNothingIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.parkedDelivery()
	behind := id("parked delivery")
	for n, key := range []string{"second", "third"} {
		stream, ms := adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000"+key), 82_000+1_000*n
		w.record(
			fact{id: key, stream: stream, story: key, ms: ms, payload: &adapter.AdminEventReceived{
				Time: at(ms), Realm: realm, OperationType: "UPDATE", ResourceType: "USER", ResourcePath: "users/" + bobID, UserID: bobID, Actor: *admin,
			}},
			fact{id: key + " waits", stream: stream, story: key, cause: key, ms: ms + 100, payload: &adapter.DeliveryParked{Error: "waits behind another", Behind: &behind}},
		)
	}
	list := func() []Failure {
		page, err := w.failures().List(t.Context(), FailureQuery{})
		require.NoError(t, err)
		return page.Items
	}
	items := list()
	require.Len(t, items, 1, "the others wait behind the first")
	require.Equal(t, adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000bad0").AggregateID(), items[0].ID)

	w.record(fact{
		id: "first released", stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000bad0"), story: "parked story", cause: "parked delivery", ms: 90_000,
		payload: &adapter.DeliveryReleased{Attempts: 4},
	})
	items = list()
	require.Len(t, items, 1, "the second waits for nothing, and the third behind it")
	require.Equal(t, adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000second").AggregateID(), items[0].ID)
	require.Contains(t, items[0].Summary, "which is parked no longer")
	require.Contains(t, items[0].Next, items[0].ID.String())
}

func TestFailuresOfNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.failures()
	f.Calls = nil
	page, err := f.List(t.Context(), FailureQuery{})
	require.NoError(t, err)
	require.JSONEq(t, `{"items":[],"next_cursor":""}`, string(jsonOf(t, page)))
	var b strings.Builder
	require.NoError(t, WriteFailures(&b, page, Options{}))
	require.Equal(t, "Nothing needs attention.\n", b.String())
}

func TestFailuresRefuseForeignCursors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.everything()
	for _, marks := range []map[string]string{{"drift": "x"}, {"parked": "-1"}, {"runs": "0"}, {"calls": "{"}, {"open": "1"}} {
		cursor, err := cursorOf(marks)
		require.NoError(t, err)
		_, err = w.failures().List(t.Context(), FailureQuery{Cursor: cursor})
		require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err), "%v", marks)
	}
	for _, cursor := range []string{"!", "bnVsbA", "W10"} {
		_, err := w.failures().List(t.Context(), FailureQuery{Cursor: cursor})
		require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err), cursor)
	}
}
