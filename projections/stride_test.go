package projections_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

// held is counts that holds its rows. It knows a row only by what it has read of the
// tables or folded itself, as long as it lives.
type held struct {
	counts
	// writes counts the rows that were written, begun the accumulations.
	writes, begun atomic.Int64
	// onRow, if set, may fail in the middle of writing.
	onRow func() error
	// sizeOfRow is what a row is said to take.
	sizeOfRow int
}

var _ projections.Accumulator = (*held)(nil)

type heldRow struct {
	n, total int64
	changed  bool
}

type heldRows struct {
	of          *held
	db          projections.DB
	t           projections.Tables
	rows        map[string]*heldRow
	empty, told bool
}

func (h *held) Accumulate(db projections.DB, t projections.Tables, empty bool) projections.Accumulation {
	h.begun.Add(1)
	return &heldRows{of: h, db: db, t: t, empty: empty, rows: map[string]*heldRow{}}
}

func (r *heldRows) Size() int { return len(r.rows) * r.of.sizeOfRow }

func (r *heldRows) Fold(ctx context.Context, events []adapter.Decoded, _ eventstore.Position) error {
	table := r.t.Name(r.of.Tables()[0])
	for i, e := range events {
		if r.of.onFold != nil {
			if err := r.of.onFold(ctx, events[i:i+1]); err != nil {
				return err // with the events before folded, which must not be written
			}
		}
		id := e.Payload.(adapter.UserPayload).User().UserID
		row := r.rows[id]
		if row == nil {
			row = &heldRow{}
			r.rows[id] = row
			err := r.db.Read.QueryRowContext(ctx, `SELECT coalesce(max(n), 0), coalesce(max(total), 0) FROM `+table+` WHERE user_id = $1`, id).
				Scan(&row.n, &row.total)
			if err != nil {
				return err
			}
		}
		row.n, row.total, row.changed = row.n+1, row.total+int64(e.Position), true
	}
	return nil
}

func (r *heldRows) Changed() []projections.Rows {
	var changed []string
	for _, id := range slices.Sorted(maps.Keys(r.rows)) {
		if r.rows[id].changed {
			changed = append(changed, id)
			r.rows[id].changed = false
		}
	}
	isNew := r.empty && !r.told
	r.told = true
	return []projections.Rows{{
		Table: r.t.Name(r.of.Tables()[0]), Key: []string{"user_id"}, Columns: []string{"user_id", "n", "total", "shape"}, New: isNew,
		Each: func(yield func([]any, error) bool) {
			for _, id := range changed {
				var err error
				if r.of.onRow != nil {
					err = r.of.onRow()
				}
				r.of.writes.Add(1)
				if !yield([]any{id, r.rows[id].n, r.rows[id].total, r.of.Version()}, err) {
					return
				}
			}
		},
	}}
}

// appendUpdates records n updates of so many users in turn.
func appendUpdates(t testing.TB, p projectiontest.Process, n, people int) []eventstore.Event {
	t.Helper()
	var events []eventstore.Event
	for i := range n {
		events = append(events, p.AppendUser(t, noon, update(fmt.Sprint("u", i%people))))
	}
	return events
}

func TestAStrideWritesARowOnce(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		appendUpdates(t, p, 300, 5)
		h := &held{}
		e := p.Engine(t, projections.Options{BatchSize: 10}, h)
		p.CatchUp(t, e)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		strides, rebuilt := int64(1), int64(1) // of thirty batches; all at once
		if p.DB.Dialect == projections.SQLite {
			strides, rebuilt = 3, 2
		}
		require.Equal(t, strides*5, h.writes.Load())
		require.EqualValues(t, 1, h.begun.Load(), "the rows stay in memory")

		h.writes.Store(0)
		var reached []eventstore.Position
		require.NoError(t, e.Rebuild(t.Context(), "counts", func(done, _ eventstore.Position) { reached = append(reached, done) }))
		require.Equal(t, rebuilt*5, h.writes.Load())
		require.Greater(t, len(reached), 25, "every batch is told of")
		require.True(t, slices.IsSorted(reached))
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))

		// Memory for three rows.
		h.sizeOfRow = 10
		small := p.Engine(t, projections.Options{BatchSize: 10, Memory: 30}, h)
		h.begun.Store(0)
		require.NoError(t, small.Rebuild(t.Context(), "counts", nil))
		require.Greater(t, h.begun.Load(), int64(20))
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
	})
}

// TestAStrideStopsAtItsEvent: what comes before an event that cannot be folded is
// written, and nothing of what comes after it.
func TestAStrideStopsAtItsEvent(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		poison := errors.New("poison")
		events := appendUpdates(t, p, 120, 3)
		var bad atomic.Int64
		bad.Store(int64(events[57].Position))
		h := &held{}
		h.onFold = func(_ context.Context, events []adapter.Decoded) error {
			if int64(events[0].Position) == bad.Load() {
				return poison
			}
			return nil
		}
		e := p.Engine(t, projections.Options{BatchSize: 4}, h)
		var named *projections.EventError
		require.ErrorAs(t, e.CatchUp(t.Context(), p.Head(t)), &named)
		require.Equal(t, events[57].ID, named.EventID)
		require.Equal(t, events[56].Position, status(t, e, "counts").Position)
		before := p.Dump(t, "test_counts")
		require.Equal(t, "test_counts user_id=u0 n=19 total=532 shape=1", before[0])

		require.ErrorAs(t, e.Rebuild(t.Context(), "counts", nil), &named)
		require.Equal(t, events[57].ID, named.EventID)
		require.Equal(t, before, p.Dump(t, "test_counts"))
		require.Empty(t, shadows(t, p))

		bad.Store(0)
		p.CatchUp(t, e)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		p.RebuildEqualsIncremental(t, e, h)
	})
}

// TestACrashWhileAStrideIsWritten leaves rows and checkpoint as they were, and what was
// held is not taken for what is there.
func TestACrashWhileAStrideIsWritten(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		crash := errors.New("crash")
		appendUpdates(t, p, 60, 7)
		var rows, crashAt atomic.Int64
		h := &held{onRow: func() error {
			if rows.Add(1) == crashAt.Load() {
				return crash
			}
			return nil
		}}
		h.onWrite = func(context.Context, []adapter.Decoded) error { return crash } // of the small steps that follow
		options := projections.Options{BatchSize: 1}                                // a stride is 30 events of 7 users
		if p.DB.Dialect == projections.SQLite {
			options.BatchSize = 3
		}
		e := p.Engine(t, options, h)
		rowsUpTo := func() (n int64) {
			require.NoError(t, p.DB.Read.QueryRowContext(t.Context(), `SELECT coalesce(sum(n), 0) FROM test_counts`).Scan(&n))
			return n
		}
		for _, test := range []struct{ row, stays int64 }{{3, 0}, {7 + 3, 30}} {
			rows.Store(0)
			crashAt.Store(test.row)
			require.ErrorIs(t, e.CatchUp(t.Context(), p.Head(t)), crash)
			require.EqualValues(t, test.stays, status(t, e, "counts").Position)
			require.Equal(t, test.stays, rowsUpTo())
			e = p.Engine(t, options, h)
		}

		// The process ends in the middle of it.
		dying, die := context.WithCancel(t.Context())
		crashAt.Store(0)
		rows.Store(0)
		dead := &held{onRow: func() error { die(); return nil }}
		require.Error(t, db.Open(t).Engine(t, options, dead).CatchUp(dying, p.Head(t)))
		require.EqualValues(t, 30, rowsUpTo())

		h.onWrite = nil
		p.CatchUp(t, e)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		p.RebuildEqualsIncremental(t, e, h)
	})
}

// TestTwoProcessesStride over the same log: of two that fold the same events one writes.
func TestTwoProcessesStride(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		a, b := db.Open(t), db.Open(t)
		options := projections.Options{BatchSize: 3, Gather: -1}
		ha, hb := &held{}, &held{}
		ea, eb := a.Engine(t, options, ha), b.Engine(t, options, hb)
		appendUpdates(t, a, 150, 4)
		stopA, stopB := run(t, ea), run(t, eb)
		appendUpdates(t, b, 150, 6)
		require.NoError(t, ea.Rebuild(t.Context(), "counts", nil))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, ea.WaitFor(ctx, a.Head(t)))
		require.NoError(t, eb.WaitFor(ctx, a.Head(t)))
		require.Equal(t, want(t, a, "test_counts", 1), a.Dump(t, "test_counts"))
		stopA()
		stopB()
	})
}

// TestARebuildGoesOnWhereItWrote: a rebuild for a new version that ended in the middle
// keeps what it has written.
func TestARebuildGoesOnWhereItWrote(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		appendUpdates(t, p, 200, 5)
		p.CatchUp(t, p.Engine(t, projections.Options{}, &held{}))

		// The clock makes every batch take ten seconds.
		var ticks atomic.Int64
		clock := func() time.Time { return noon.Add(time.Duration(ticks.Add(1)) * 10 * time.Second) }
		dying, die := context.WithCancel(t.Context())
		next := &held{counts: counts{version: 2}}
		folded := 0
		next.onFold = func(context.Context, []adapter.Decoded) error {
			if folded++; folded == 120 {
				die()
				return dying.Err()
			}
			return nil
		}
		require.Error(t, p.Engine(t, projections.Options{BatchSize: 10, Clock: clock}, next).CatchUp(dying, p.Head(t)))
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))

		again := &held{counts: counts{version: 2}}
		folded = 0
		again.onFold = func(context.Context, []adapter.Decoded) error { folded++; return nil }
		p.CatchUp(t, db.Open(t).Engine(t, projections.Options{BatchSize: 10}, again))
		require.Equal(t, want(t, p, "test_counts", 2), p.Dump(t, "test_counts"))
		require.GreaterOrEqual(t, folded, 80)
		require.Less(t, folded, 200, "what was written is not folded again")
	})
}

// divided is held in parts.
type divided struct {
	held
	asked atomic.Int64
}

var _ projections.Divisible = (*divided)(nil)

func (d *divided) Part(s eventstore.StreamID) uint64 {
	d.asked.Add(1)
	h := fnv.New64a()
	h.Write([]byte(s.String()))
	return h.Sum64()
}

// TestARebuildInParts: rows that do not fit into the memory are written once all the same.
func TestARebuildInParts(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		appendUpdates(t, p, 200, 40)
		d := &divided{held: held{sizeOfRow: 10}}
		options := projections.Options{BatchSize: 10, Memory: 150}
		e := p.Engine(t, options, d)
		p.CatchUp(t, e)
		require.Zero(t, d.asked.Load(), "tables that are read have no parts")
		d.writes.Store(0)
		var reached []eventstore.Position
		require.NoError(t, e.Rebuild(t.Context(), "counts", func(done, total eventstore.Position) {
			require.LessOrEqual(t, done, total)
			reached = append(reached, done)
		}))
		require.True(t, slices.IsSorted(reached))
		require.Equal(t, p.Head(t), reached[len(reached)-1])
		require.NotZero(t, d.asked.Load())
		require.EqualValues(t, 40, d.writes.Load())
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))

		// Rows of which too few fit into the memory for parts are written as they come.
		d.sizeOfRow = 1000
		require.NoError(t, e.Rebuild(t.Context(), "counts", nil))
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		d.sizeOfRow = 10

		// An event of a later part cannot be folded, when others are written already.
		poison := errors.New("poison")
		d.onFold = func(context.Context, []adapter.Decoded) error {
			if d.writes.Load() > 0 {
				return poison
			}
			return nil
		}
		d.writes.Store(0)
		require.ErrorIs(t, e.Rebuild(t.Context(), "counts", nil), poison)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		require.Empty(t, shadows(t, p))

		// The process ends between two parts, and leaves its shadow there.
		d.writes.Store(0)
		dying, die := context.WithCancel(t.Context())
		d.onFold = func(context.Context, []adapter.Decoded) error {
			if d.writes.Load() > 0 {
				die()
				return dying.Err()
			}
			return nil
		}
		require.Error(t, e.Rebuild(dying, "counts", nil))
		d.onFold = nil
		require.NoError(t, db.Open(t).Engine(t, options, d).Rebuild(t.Context(), "counts", nil))
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		require.Empty(t, shadows(t, p))

		// Another process begins a rebuild, and the one in parts ends.
		d.writes.Store(0)
		other := db.Open(t).Engine(t, options, &held{})
		began := false
		d.onFold = func(context.Context, []adapter.Decoded) error {
			if d.writes.Load() > 0 && !began {
				began = true
				return other.Rebuild(t.Context(), "counts", nil)
			}
			return nil
		}
		require.ErrorIs(t, e.Rebuild(t.Context(), "counts", nil), projections.ErrRebuildReplaced)
		require.True(t, began)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))

		// A new version is rebuilt resumably, and so not in parts.
		next := &divided{held: held{sizeOfRow: 10, counts: counts{version: 2}}}
		p.CatchUp(t, p.Engine(t, options, next))
		require.Zero(t, next.asked.Load())
		require.Equal(t, want(t, p, "test_counts", 2), p.Dump(t, "test_counts"))
	})
}
