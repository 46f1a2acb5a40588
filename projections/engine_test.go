package projections_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// counts is a projection that notices when an event is folded twice or left out: one
// row a user with the number of its updates and a hash-like sum over positions.
type counts struct {
	name    string
	version int
	// onFold and onWrite, if set, may fail or wait; onWrite is called after the rows
	// were written and before the checkpoint commits.
	onFold, onWrite func(ctx context.Context, events []adapter.Decoded) error
}

var _ projections.Projection = (*counts)(nil)

func (c *counts) Name() string { return cmp.Or(c.name, "counts") }
func (c *counts) Version() int { return max(c.version, 1) }
func (c *counts) Types() []string {
	return []string{adapter.TypeUserApiUpdated}
}
func (c *counts) Tables() []string { return []string{"test_" + c.Name()} }

func (c *counts) Schema(d projections.Dialect, t projections.Tables) []string {
	return projections.Statements(d, `CREATE TABLE {t} (user_id {text} PRIMARY KEY, n {int} NOT NULL, total {int} NOT NULL, shape {int} NOT NULL);
CREATE INDEX {i}_n ON {t} (n);
`, "{t}", t.Name(c.Tables()[0]), "{i}", t.Index(c.Tables()[0]))
}

func (c *counts) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	if c.onFold != nil {
		if err := c.onFold(ctx, b.Events); err != nil {
			return nil, err
		}
	}
	type row struct{ n, total int64 }
	rows := map[string]row{}
	var keys [][]any
	for _, e := range b.Events {
		id := e.Payload.(adapter.UserPayload).User().UserID
		if _, ok := rows[id]; !ok {
			rows[id] = row{}
			keys = append(keys, []any{id})
		}
	}
	table := b.Tables.Name(c.Tables()[0])
	err := projections.SelectByKey(ctx, b.DB, `SELECT user_id, n, total FROM `+table+` WHERE (user_id)`, keys, func(r *sql.Rows) error {
		var id string
		var x row
		err := r.Scan(&id, &x.n, &x.total)
		rows[id] = x
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, e := range b.Events {
		id := e.Payload.(adapter.UserPayload).User().UserID
		rows[id] = row{rows[id].n + 1, rows[id].total + int64(e.Position)}
	}
	var values [][]any
	for _, k := range keys {
		r := rows[k[0].(string)]
		values = append(values, []any{k[0], r.n, r.total, c.Version()})
	}
	slices.SortFunc(values, func(a, b []any) int { return cmp.Compare(a[0].(string), b[0].(string)) })
	return func(ctx context.Context, tx *sql.Tx) error {
		if err := projections.Upsert(ctx, tx, b.DB.Dialect, table, []string{"user_id"}, []string{"user_id", "n", "total", "shape"}, values); err != nil {
			return err
		}
		if c.onWrite != nil {
			return c.onWrite(ctx, b.Events)
		}
		return nil
	}, nil
}

func update(id string) *adapter.UserApiUpdated {
	return &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: adapter.UserRef{Realm: "acme", UserID: id}}}
}

func create(id string) *adapter.UserApiCreated {
	return &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: adapter.UserRef{Realm: "acme", UserID: id}}}
}

// want is what the rows of counts must be: computed from the log itself.
func want(t testing.TB, p projectiontest.Process, table string, shape int) []string {
	t.Helper()
	n, total := map[string]int{}, map[string]int64{}
	for e, err := range p.Store.ReadLog(t.Context(), eventstore.LogQuery{Types: []string{adapter.TypeUserApiUpdated}}) {
		require.NoError(t, err)
		_, id, err := adapter.UserOfStream(e.Stream)
		require.NoError(t, err)
		n[id]++
		total[id] += int64(e.Position)
	}
	var lines []string
	for id := range n {
		lines = append(lines, fmt.Sprintf("%s user_id=%s n=%d total=%d shape=%d", table, id, n[id], total[id], shape))
	}
	slices.Sort(lines)
	return lines
}

// status returns the status of one projection.
func status(t testing.TB, e *projections.Engine, name string) projections.Status {
	t.Helper()
	all, err := e.Status(t.Context())
	require.NoError(t, err)
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status of %s", name)
	return projections.Status{}
}

// eventually polls, with a limit.
func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 20*time.Second, 5*time.Millisecond)
}

// run runs the engine until the returned function, or the end of the test.
func run(t testing.TB, e *projections.Engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func TestRowsAndCheckpointCommitTogether(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		crash := errors.New("crash")
		var crashing atomic.Bool
		c := &counts{onWrite: func(context.Context, []adapter.Decoded) error {
			if crashing.Load() {
				return crash
			}
			return nil
		}}
		e := p.Engine(t, projections.Options{BatchSize: 4}, c)
		p.AppendUser(t, noon, update("u1"))
		p.CatchUp(t, e)
		before := p.Dump(t, "test_counts")

		for range 10 {
			p.AppendUser(t, noon, update("u1"))
			p.AppendUser(t, noon, update("u2"))
		}
		crashing.Store(true)
		err := e.CatchUp(t.Context(), p.Head(t))
		require.ErrorIs(t, err, crash)
		require.Equal(t, before, p.Dump(t, "test_counts"), "rows of the crashed batch are not there")
		require.EqualValues(t, 1, status(t, e, "counts").Position)

		// The process ends in the middle of the transaction: its context does.
		dying, die := context.WithCancel(t.Context())
		c2 := &counts{onWrite: func(context.Context, []adapter.Decoded) error { die(); return nil }}
		err = db.Open(t).Engine(t, projections.Options{}, c2).CatchUp(dying, p.Head(t))
		var behind *projections.BehindError
		require.ErrorAs(t, err, &behind)
		require.Equal(t, before, p.Dump(t, "test_counts"))

		crashing.Store(false)
		p.CatchUp(t, e)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		s := status(t, e, "counts")
		require.EqualValues(t, 21, s.Position)
		require.Zero(t, s.Lag)
		require.Empty(t, s.Error)
	})
}

func TestTwoProcessesFoldTheSameProjection(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		a, b := db.Open(t), db.Open(t)
		options := projections.Options{BatchSize: 7, Gather: -1}
		ea, eb := a.Engine(t, options, &counts{}), b.Engine(t, options, &counts{})
		stopA, stopB := run(t, ea), run(t, eb)
		for i := range 60 {
			p := a
			if i%2 == 1 {
				p = b
			}
			p.AppendUser(t, noon, update(fmt.Sprint("u", i%5)))
			if i%10 == 0 {
				require.NoError(t, eb.CatchUp(t.Context(), p.Head(t)))
			}
		}
		head := a.Head(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, ea.WaitFor(ctx, head))
		require.NoError(t, eb.WaitFor(ctx, head, "counts"))
		require.Equal(t, want(t, a, "test_counts", 1), a.Dump(t, "test_counts"))
		require.Equal(t, projections.StateRunning, status(t, ea, "counts").Status)
		require.Empty(t, status(t, ea, "counts").Error)
		stopA()
		stopB()
		require.Equal(t, projections.StateStopped, status(t, ea, "counts").Status)
	})
}

func TestRebuildBesideReadersWritersAndTheLiveFold(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		a, b := db.Open(t), db.Open(t)
		e := a.Engine(t, projections.Options{BatchSize: 50, Gather: -1}, &counts{})
		eb := b.Engine(t, projections.Options{BatchSize: 50, Gather: -1}, &counts{})
		var drafts []adapter.Draft
		for range 200 {
			drafts = append(drafts, adapter.Draft{Payload: update("u1"), OccurredAt: noon})
		}
		a.Append(t, adapter.UserStream("acme", "u1"), drafts...)
		a.CatchUp(t, e)
		stop, stopB := run(t, e), run(t, eb)

		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		var failure atomic.Value
		written := make(chan struct{})
		group.Go(func() { // a reader never sees fewer updates than before
			last := int64(0)
			for ctx.Err() == nil {
				var n int64
				err := b.DB.Read.QueryRowContext(ctx, `SELECT n FROM test_counts WHERE user_id = 'u1'`).Scan(&n)
				if ctx.Err() == nil && (err != nil || n < last) {
					failure.Store(fmt.Errorf("reader: %d after %d: %w", n, last, err))
					return
				}
				last = n
			}
		})
		group.Go(func() {
			defer close(written)
			for range 60 {
				_, err := b.TryAppend(t.Context(), adapter.UserStream("acme", "u1"), adapter.Draft{Payload: update("u1"), OccurredAt: noon})
				if err != nil {
					failure.Store(err)
					return
				}
			}
		})
		for writing := true; writing; {
			select {
			case <-written:
				writing = false // one more, for what came last
			default:
			}
			var last eventstore.Position
			require.NoError(t, e.Rebuild(t.Context(), "counts", func(done, total eventstore.Position) {
				if done < last || total < done {
					failure.Store(fmt.Errorf("progress %d of %d after %d", done, total, last))
				}
				last = done
			}))
		}
		cancel()
		group.Wait()
		require.Nil(t, failure.Load())
		stop()
		stopB()
		a.CatchUp(t, e)
		require.Equal(t, want(t, a, "test_counts", 1), a.Dump(t, "test_counts"))
		a.RebuildEqualsIncremental(t, e, &counts{})
	})
}

func TestAFailingProjectionStopsAloneAtItsEvent(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		poison := errors.New("poison")
		var bad atomic.Int64
		broken := &counts{name: "broken", onFold: func(_ context.Context, events []adapter.Decoded) error {
			for _, e := range events {
				if int64(e.Position) == bad.Load() {
					return poison
				}
			}
			return nil
		}}
		e := p.Engine(t, projections.Options{RetryMax: 10 * time.Millisecond}, broken, &counts{})
		var events []eventstore.Event
		for range 20 {
			events = append(events, p.AppendUser(t, noon, update("u1")))
		}
		bad.Store(int64(events[12].Position))
		stop := run(t, e)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, e.WaitFor(ctx, p.Head(t), "counts"))
		eventually(t, func() bool { return status(t, e, "broken").Position == events[11].Position })
		eventually(t, func() bool { return status(t, e, "broken").Status == projections.StateFailing })
		s := status(t, e, "broken")
		require.Contains(t, s.Error, events[12].ID.String())
		require.Contains(t, s.Error, "poison")
		require.EqualValues(t, 8, s.Lag)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))

		// Another process sees it too.
		other := db.Open(t).Engine(t, projections.Options{}, &counts{name: "broken"})
		eventually(t, func() bool { return status(t, other, "broken").Status == projections.StateFailing })

		bad.Store(0) // repaired
		require.NoError(t, e.WaitFor(ctx, p.Head(t)))
		eventually(t, func() bool { s := status(t, e, "broken"); return s.Status == projections.StateRunning && s.Error == "" })
		stop()
		require.Equal(t, want(t, p, "test_broken", 1), p.Dump(t, "test_broken"))
	})
}

func TestAnEventThatCannotBeReadIsNeverSkipped(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	e := p.Engine(t, projections.Options{}, &counts{})
	p.AppendUser(t, noon, update("u1"))
	stored, err := p.Store.Append(t.Context(), eventstore.StreamAppend{
		Stream: adapter.UserStream("acme", "u1"),
		Events: []eventstore.NewEvent{{
			ID: eventstore.NewID(), Type: adapter.TypeUserApiUpdated, OccurredAt: noon,
			Data: []byte(`{"realm":7}`), Metadata: []byte(`{"schema":1}`),
		}},
	})
	require.NoError(t, err)
	p.AppendUser(t, noon, update("u1"))

	err = e.CatchUp(t.Context(), p.Head(t))
	var bad *projections.EventError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, stored[0].ID, bad.EventID)
	require.Equal(t, stored[0].Position, bad.Position)
	var behind *projections.BehindError
	require.ErrorAs(t, err, &behind)
	require.EqualValues(t, 1, behind.Behind[0].Position, "what comes before it is folded")
	require.EqualValues(t, 3, behind.Behind[0].Target)

	before := p.Dump(t, "test_counts")
	require.ErrorAs(t, e.Rebuild(t.Context(), "counts", nil), &bad)
	require.Equal(t, before, p.Dump(t, "test_counts"), "a failed rebuild leaves the live rows")
	require.Empty(t, shadows(t, p))
}

// shadows names the tables of rebuilds.
func shadows(t testing.TB, p projectiontest.Process) []string {
	t.Helper()
	query := `SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'test\_%\_b%' ESCAPE '\'`
	if p.DB.Dialect == projections.Postgres {
		query = `SELECT tablename FROM pg_tables WHERE tablename LIKE 'test\_%\_b%'`
	}
	var names []string
	require.NoError(t, projections.Query(t.Context(), p.DB.Read, func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	}, query))
	return names
}

// creator is a consumer that answers every creation with an update, by appending.
type creator struct {
	p       projectiontest.Process
	handled atomic.Int64
	err     error
}

func (*creator) Name() string     { return "creator" }
func (*creator) Types() []string  { return []string{adapter.TypeUserApiCreated} }
func (*creator) Category() string { return adapter.CategoryUser }
func (c *creator) Handle(ctx context.Context, events []adapter.Decoded) error {
	for _, e := range events {
		c.handled.Add(1)
		if c.err != nil {
			return c.err
		}
		_, err := c.p.TryAppend(ctx, e.Stream, adapter.Draft{
			ID:      eventstore.DerivedID(e.ID, e.OccurredAt, "creator", 0),
			Payload: update(e.Payload.(adapter.UserPayload).User().UserID), OccurredAt: e.OccurredAt,
			Meta: adapter.Metadata{CorrelationID: e.CorrelationID, CausationID: &e.ID},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCatchUpFoldsWhatConsumersAppend(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		consumer := &creator{p: p}
		e := p.Engine(t, projections.Options{BatchSize: 2}, &counts{})
		require.NoError(t, e.RegisterConsumer(consumer))
		for i := range 5 {
			p.AppendUser(t, noon, create(fmt.Sprint("u", i)))
		}
		p.CatchUp(t, e)
		require.EqualValues(t, 10, p.Head(t))
		require.Len(t, p.Dump(t, "test_counts"), 5)
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		require.EqualValues(t, 5, consumer.handled.Load())
		p.CatchUp(t, e)
		require.EqualValues(t, 5, consumer.handled.Load(), "handled once")
		require.NoError(t, e.CatchUp(t.Context(), 1000), "the log does not reach that far")
		require.Equal(t, "consumer", status(t, e, "creator").Kind)
		require.Error(t, e.Rebuild(t.Context(), "creator", nil))
		var unknown *projections.UnknownError
		require.ErrorAs(t, e.Rebuild(t.Context(), "none", nil), &unknown)
		require.ErrorAs(t, e.WaitFor(t.Context(), 1, "none"), &unknown)
	})
}

func TestCatchUpSaysHowFarItIsBehind(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	slow := &counts{name: "slow", onFold: func(ctx context.Context, events []adapter.Decoded) error {
		if events[0].Position > 2 {
			cancel() // as a deadline would
			return ctx.Err()
		}
		return nil
	}}
	e := p.Engine(t, projections.Options{BatchSize: 2}, slow)
	failing := &creator{p: p, err: errors.New("no way")}
	require.NoError(t, e.RegisterConsumer(failing))
	p.AppendUser(t, noon, update("u1"))
	p.AppendUser(t, noon, update("u1"))
	p.AppendUser(t, noon, update("u1"))
	p.AppendUser(t, noon, create("u2"))
	err := e.CatchUp(ctx, p.Head(t))
	var behind *projections.BehindError
	require.ErrorAs(t, err, &behind)
	require.Len(t, behind.Behind, 2)
	require.Equal(t, projections.Behind{Name: "slow", Position: 2, Target: 4}, behind.Behind[0])
	require.ErrorIs(t, behind.Behind[1].Err, failing.err)
	require.ErrorContains(t, err, "projection slow is 2 events behind (at 2 of 4)")
}

func TestANewVersionIsRebuiltByItself(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		old := p.Engine(t, projections.Options{}, &counts{})
		for range 30 {
			p.AppendUser(t, noon, update("u1"))
		}
		p.CatchUp(t, old)

		// A first attempt is interrupted and goes on where it stopped.
		ctx, cancel := context.WithCancel(t.Context())
		batches := 0
		interrupted := &counts{version: 2, onFold: func(context.Context, []adapter.Decoded) error {
			if batches++; batches == 3 {
				cancel()
			}
			return nil
		}}
		require.Error(t, p.Engine(t, projections.Options{BatchSize: 2}, interrupted).CatchUp(ctx, p.Head(t)))
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
		require.Len(t, shadows(t, p), 1)

		var first eventstore.Position
		resumed := &counts{version: 2, onFold: func(_ context.Context, events []adapter.Decoded) error {
			if first == 0 {
				first = events[0].Position
			}
			return nil
		}}
		e := p.Engine(t, projections.Options{BatchSize: 2}, resumed)
		require.Equal(t, 1, status(t, e, "counts").Version)
		require.Equal(t, projections.StateRebuilding, status(t, e, "counts").Status)
		stop := run(t, e)
		waiting, done := context.WithTimeout(t.Context(), 20*time.Second)
		defer done()
		require.NoError(t, e.WaitFor(waiting, p.Head(t)))
		stop()
		require.EqualValues(t, 21, first)
		require.Equal(t, want(t, p, "test_counts", 2), p.Dump(t, "test_counts"))
		require.Equal(t, 2, status(t, e, "counts").Version)
		require.Empty(t, shadows(t, p))

		// The older program must not fold into the newer tables.
		p.AppendUser(t, noon, update("u1"))
		require.ErrorContains(t, old.CatchUp(t.Context(), p.Head(t)), "newer than this program's 1")
	})
}

func TestANewRebuildReplacesAnother(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		a, b := db.Open(t), db.Open(t)
		started, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		var holding atomic.Bool
		held := &counts{onFold: func(context.Context, []adapter.Decoded) error {
			if holding.Load() {
				once.Do(func() { close(started); <-goOn })
			}
			return nil
		}}
		ea, eb := a.Engine(t, projections.Options{BatchSize: 5}, held), b.Engine(t, projections.Options{}, &counts{})
		for range 20 {
			a.AppendUser(t, noon, update("u1"))
		}
		a.CatchUp(t, ea)
		holding.Store(true)
		result := make(chan error, 1)
		go func() { result <- ea.Rebuild(t.Context(), "counts", nil) }()
		<-started
		require.ErrorContains(t, ea.Rebuild(t.Context(), "counts", nil), "being rebuilt already")
		require.Equal(t, projections.StateRebuilding, status(t, eb, "counts").Status)
		require.NoError(t, eb.Rebuild(t.Context(), "counts", nil))
		close(goOn)
		require.ErrorIs(t, <-result, projections.ErrRebuildReplaced)
		require.Equal(t, want(t, a, "test_counts", 1), a.Dump(t, "test_counts"))
		require.Empty(t, shadows(t, a))
	})
}

func TestOtherEventsMoveTheCheckpointToo(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	var seen sync.Map
	e := p.Engine(t, projections.Options{Observe: func(name string, position, head eventstore.Position) {
		seen.Store(name, [2]eventstore.Position{position, head})
	}}, &counts{})
	for range 3 {
		p.AppendUser(t, noon, create("u1"))
	}
	p.CatchUp(t, e)
	require.EqualValues(t, 3, status(t, e, "counts").Position)
	require.Empty(t, p.Dump(t, "test_counts"))
	v, _ := seen.Load("counts")
	require.Equal(t, [2]eventstore.Position{3, 3}, v)
}

func TestACheckpointLeftBehindIsStoredInTheEnd(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		e := p.Engine(t, projections.Options{}, &counts{})
		require.NoError(t, e.Setup(t.Context()))
		stop := run(t, e)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for range 3 {
			p.AppendUser(t, noon, create("u1"))
			require.NoError(t, e.WaitFor(ctx, p.Head(t)), "who waits does not wait for the database")
			require.Zero(t, status(t, e, "counts").Lag)
		}
		elsewhere := db.Open(t).Engine(t, projections.Options{}, &counts{})
		eventually(t, func() bool { return status(t, elsewhere, "counts").Lag == 0 })
		p.AppendUser(t, noon, create("u1"))
		p.AppendUser(t, noon, update("u1"))
		require.NoError(t, e.WaitFor(ctx, p.Head(t)))
		stop()
		require.Equal(t, want(t, p, "test_counts", 1), p.Dump(t, "test_counts"))
	})
}

func TestProcessesThatStartTogetherSetUpOnce(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		var engines []*projections.Engine
		p := db.Open(t)
		for range 4 {
			engines = append(engines, db.Open(t).Engine(t, projections.Options{}, &counts{}, &counts{name: "others"}))
		}
		p.AppendUser(t, noon, update("u1"))
		results := make(chan error, len(engines))
		for _, e := range engines {
			go func() {
				err := e.Setup(t.Context())
				if err == nil {
					err = e.CatchUp(t.Context(), 1)
				}
				results <- err
			}()
		}
		for range engines {
			require.NoError(t, <-results)
		}
		for _, table := range []string{"test_counts", "test_others"} {
			require.Equal(t, want(t, p, table, 1), p.Dump(t, table))
		}
	})
}

func TestRegistrationIsChecked(t *testing.T) {
	t.Parallel()
	e := projections.New(projections.DB{}, nil, nil, projections.Options{})
	require.NoError(t, e.Register(&counts{}))
	require.Error(t, e.Register(&counts{}), "twice")
	require.Error(t, e.Register(&counts{name: "Not/valid"}))
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	e := p.Engine(t, projections.Options{}, &counts{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, e.WaitFor(ctx, 1), context.Canceled)
	require.NoError(t, e.WaitFor(ctx, 0))
	require.NoError(t, projections.CheckSchema(t.Context(), p.DB))
}
