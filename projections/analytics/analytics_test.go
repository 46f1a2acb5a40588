package analytics_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/analytics"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// story appends events at minutes after noon.
type story struct {
	t testing.TB
	p projectiontest.Process
}

func (s story) append(minute int, stream eventstore.StreamID, p adapter.Payload) {
	s.t.Helper()
	s.p.Append(s.t, stream, adapter.Draft{Payload: p, OccurredAt: noon.Add(time.Duration(minute) * time.Minute)})
}

func (s story) call(minute int, command string) uuid.UUID {
	s.t.Helper()
	id := eventstore.NewID()
	s.append(minute, adapter.CallStream(id), &adapter.ApiCallRequested{CallID: id, Realm: "acme", Command: command, Method: "PUT"})
	return id
}

func (s story) deliver(minute int, p adapter.Payload) {
	s.t.Helper()
	s.append(minute, adapter.DeliveryStream(uuid.NewString()), p)
}

func (s story) drift(minute int, user string, phase adapter.DriftPhase, situation adapter.Situation) {
	s.t.Helper()
	run := eventstore.NewID()
	s.append(minute, adapter.ReconciliationStream(run), &adapter.DriftDetected{
		RunID: run, Realm: "acme", UserID: user, Phase: phase, Situation: situation,
	})
}

// hours asks for the hours from noon on.
func hours(n int) adapter.AnalyticsQuery {
	return adapter.AnalyticsQuery{From: noon, To: noon.Add(time.Duration(n) * time.Hour), Bucket: adapter.BucketHour}
}

func why(code adapter.Code) adapter.CallError { return adapter.CallError{Code: code, Message: "no"} }

func TestCountsOverTime(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := analytics.New()
		e := p.Engine(t, projections.Options{BatchSize: 3}, projection)
		require.NoError(t, e.Setup(t.Context()))
		q := analytics.NewQueries(p.DB)
		s := story{t, p}

		done := s.call(10, "user.disable")
		s.append(11, adapter.CallStream(done), &adapter.ApiCallSucceeded{CallID: done, DurationMS: 40})
		p.AppendUser(t, noon.Add(70*time.Minute), &adapter.UserApiDisabled{UserChange: adapter.UserChange{
			UserRef: adapter.UserRef{Realm: "acme", UserID: "u1"},
		}})
		lost := s.call(59, "user.disable")
		s.append(61, adapter.CallStream(lost), &adapter.ApiCallOutcomeUnknown{CallID: lost, DurationMS: 9000, CallError: why(adapter.CodeOutcomeUnknown)})
		p.CatchUp(t, e)
		a, err := q.Summary(t.Context(), hours(2))
		require.NoError(t, err)
		require.Equal(t, []adapter.ErrorCounts{{Code: adapter.CodeOutcomeUnknown, Command: "user.disable", Counts: adapter.Counts{Total: 1, Counts: []int64{1, 0}}}}, a.Errors)

		s.append(200, adapter.CallStream(lost), &adapter.ApiCallSucceeded{CallID: lost, ResolvedBy: "echo", DurationMS: 1})
		refused := s.call(62, "user.enable")
		s.append(62, adapter.CallStream(refused), &adapter.ApiCallSkipped{CallID: refused, CallError: why(adapter.CodeAlreadyEnabled)})
		s.call(63, "user.enable")
		s.deliver(0, &adapter.UserEventReceived{Realm: "acme", Type: "LOGIN", Receipt: adapter.Receipt{Source: "keycloak"}})
		s.deliver(61, &adapter.UserEventReceived{Realm: "other", Type: "LOGIN", Receipt: adapter.Receipt{Source: "poll"}})
		s.deliver(61, &adapter.AdminEventReceived{RealmID: "acme", ResourceType: "USER", OperationType: "UPDATE", Receipt: adapter.Receipt{Source: "poll"}})
		s.deliver(61, &adapter.UnrecognizedEventReceived{Receipt: adapter.Receipt{Source: strings.Repeat("ü\x00", 3000)}})
		s.deliver(61, &adapter.DeliveryConfirmed{Receipt: adapter.Receipt{Source: "poll"}})
		s.drift(-600, "u0", adapter.DriftAppeared, adapter.SituationDuplicate) // before the time asked for
		s.drift(0, "u1", adapter.DriftAppeared, adapter.SituationChanged)
		s.drift(61, "u1", adapter.DriftAltered, adapter.SituationMissingLive)
		s.drift(62, "u2", adapter.DriftAppeared, adapter.SituationChanged)
		s.drift(63, "u2", adapter.DriftEnded, adapter.SituationChanged)
		p.CatchUp(t, e)

		a, err = q.Summary(t.Context(), hours(2))
		require.NoError(t, err)
		require.Equal(t, []time.Time{noon, noon.Add(time.Hour)}, a.Buckets)
		b := func(n ...int64) adapter.Counts {
			c := adapter.Counts{Counts: n}
			for _, x := range n {
				c.Total += x
			}
			return c
		}
		require.Equal(t, []adapter.CallCounts{
			{Command: "user.disable", Status: adapter.CallSucceeded, Counts: b(2, 0)},
			{Command: "user.enable", Status: adapter.CallRequested, Counts: b(0, 1)},
			{Command: "user.enable", Status: adapter.CallSkipped, Counts: b(0, 1)},
		}, a.Calls)
		require.Equal(t, []adapter.ErrorCounts{{Code: adapter.CodeAlreadyEnabled, Command: "user.enable", Counts: b(0, 1)}}, a.Errors)
		require.Equal(t, []adapter.EventCounts{{Type: "LOGIN", Counts: b(1, 1)}, {Type: "USER UPDATE", Counts: b(0, 1)}}, a.KeycloakEvents)
		require.Len(t, a.Deliveries, 5)
		require.Equal(t, adapter.DeliveryCounts{Source: "keycloak", Kind: "user_event", Counts: b(1, 0)}, a.Deliveries[0])
		require.Equal(t, adapter.DeliveryCounts{Source: "poll", Kind: "admin_event", Counts: b(0, 1)}, a.Deliveries[1])
		require.Equal(t, []adapter.DriftCounts{
			{Phase: adapter.DriftAppeared, Situation: adapter.SituationChanged, Counts: b(1, 1)},
			{Phase: adapter.DriftAltered, Situation: adapter.SituationMissingLive, Counts: b(0, 1)},
			{Phase: adapter.DriftEnded, Situation: adapter.SituationChanged, Counts: b(0, 1)},
		}, a.Drift)
		require.Equal(t, []adapter.OpenDriftCounts{
			{Situation: adapter.SituationChanged, Open: []int64{1, 0}},
			{Situation: adapter.SituationDuplicate, Open: []int64{1, 1}},
			{Situation: adapter.SituationMissingLive, Open: []int64{0, 1}},
		}, a.OpenDrift)
		require.Len(t, a.Latency, 1)
		l := a.Latency[0]
		require.Equal(t, "user.disable", l.Command)
		require.EqualValues(t, 2, l.Count)
		require.InDelta(t, 50, *l.P50MS, 0.01)
		require.EqualValues(t, 2, l.Series[0].Count)
		require.Nil(t, l.Series[1].P50MS)

		// One realm, by day, and what nothing is known of.
		days := adapter.AnalyticsQuery{From: noon, To: noon.Add(time.Hour), Realm: "other", Bucket: adapter.BucketDay}
		a, err = q.Summary(t.Context(), days)
		require.NoError(t, err)
		require.Equal(t, []time.Time{noon.Add(-12 * time.Hour)}, a.Buckets)
		require.Equal(t, noon.Add(12*time.Hour), a.To)
		require.Equal(t, []adapter.EventCounts{{Type: "LOGIN", Counts: b(1)}}, a.KeycloakEvents)
		require.Empty(t, a.Calls)
		days.Realm = "none"
		a, err = q.Summary(t.Context(), days)
		require.NoError(t, err)
		body, err := json.Marshal(a)
		require.NoError(t, err)
		require.NotContains(t, string(body), "null")

		for _, bad := range []adapter.AnalyticsQuery{
			{},
			{From: noon, To: noon, Bucket: adapter.BucketHour},
			{From: noon, To: noon.Add(time.Hour), Bucket: "week"},
			hours(analytics.MaxBuckets + 1),
		} {
			_, err = q.Summary(t.Context(), bad)
			require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err))
		}
		p.RebuildEqualsIncremental(t, e, projection)
	})
}

// crashing is a projection whose process dies between its rows and its checkpoint.
type crashing struct {
	projections.Projection
	dying *atomic.Bool
}

var errCrash = errors.New("crash")

func (c crashing) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	write, err := c.Projection.Fold(ctx, b)
	return func(ctx context.Context, tx *sql.Tx) error {
		if err := write(ctx, tx); err != nil {
			return err
		}
		if c.dying.Load() {
			return errCrash
		}
		return nil
	}, err
}

// Two processes that fold the same events, one of which dies between its rows and its
// checkpoint every now and then, count every event once.
func TestNothingIsCountedTwice(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		s := story{t, p}
		const n = 40
		dying := crashing{analytics.New(), new(atomic.Bool)}
		engines := []*projections.Engine{
			p.Engine(t, projections.Options{BatchSize: 3}, dying),
			db.Open(t).Engine(t, projections.Options{BatchSize: 7}, analytics.New()),
		}
		require.NoError(t, engines[0].Setup(t.Context()))
		for i := range n {
			s.deliver(i, &adapter.UserEventReceived{Realm: "acme", Type: "LOGIN"})
			if i%10 != 9 {
				continue
			}
			head := p.Head(t)
			dying.dying.Store(true)
			require.ErrorIs(t, engines[0].CatchUp(t.Context(), head), errCrash)
			dying.dying.Store(false)
			var group sync.WaitGroup
			errs := make([]error, len(engines))
			for i, e := range engines {
				group.Go(func() { errs[i] = e.CatchUp(t.Context(), head) })
			}
			group.Wait()
			require.NoError(t, errors.Join(errs...))
		}
		a, err := analytics.NewQueries(p.DB).Summary(t.Context(), hours(1))
		require.NoError(t, err)
		require.Equal(t, []adapter.EventCounts{{Type: "LOGIN", Counts: adapter.Counts{Total: n, Counts: []int64{n}}}}, a.KeycloakEvents)
		p.RebuildEqualsIncremental(t, engines[0], analytics.New())
	})
}

// Whatever happens in whatever order and batches, calls are counted as they stand,
// drift as it is open, and a rebuild gives the same rows.
func TestCountsAreThoseOfTheWholeLog(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	projection := analytics.New()
	q := analytics.NewQueries(p.DB)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		run++
		realm := fmt.Sprint("realm", run)
		e := projections.New(p.DB, p.Store, p.Codec, projections.Options{BatchSize: rapid.IntRange(1, 5).Draw(t, "batch")})
		require.NoError(t, e.Register(projection))
		calls := map[uuid.UUID][]adapter.Decoded{}
		var ids []uuid.UUID
		open := map[string]adapter.Situation{}
		events := 0
		catchUp := func() {
			head, err := p.Store.Head(ctx)
			require.NoError(t, err)
			require.NoError(t, e.CatchUp(ctx, head))
		}
		add := func(stream eventstore.StreamID, payload adapter.Payload) {
			at := noon.Add(time.Duration(rapid.IntRange(0, 299).Draw(t, "minute")) * time.Minute)
			recorded, err := p.TryAppend(ctx, stream, adapter.Draft{Payload: payload, OccurredAt: at})
			require.NoError(t, err)
			events++
			if stream.Category() == adapter.CategoryCall {
				calls[stream.AggregateID()] = append(calls[stream.AggregateID()], adapter.Decoded{Event: recorded[0], Payload: payload})
			}
		}
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				id := eventstore.NewID()
				ids = append(ids, id)
				add(adapter.CallStream(id), &adapter.ApiCallRequested{CallID: id, Realm: realm, Command: "c"})
			case 1, 2:
				if len(ids) == 0 {
					continue
				}
				id := rapid.SampledFrom(ids).Draw(t, "call")
				ms := rapid.SampledFrom([]float64{0, 1, 7, 1e6}).Draw(t, "ms")
				code := why(rapid.SampledFrom([]adapter.Code{adapter.CodeInternal, adapter.CodeKeycloakConflict}).Draw(t, "code"))
				add(adapter.CallStream(id), rapid.SampledFrom([]adapter.Payload{
					&adapter.ApiCallSucceeded{CallID: id, DurationMS: ms}, &adapter.ApiCallFailed{CallID: id, DurationMS: ms, CallError: code},
					&adapter.ApiCallSkipped{CallID: id, CallError: code}, &adapter.ApiCallOutcomeUnknown{CallID: id, DurationMS: ms, CallError: code},
					&adapter.ApiCallAttempted{CallID: id},
				}).Draw(t, "event"))
			default:
				user := rapid.SampledFrom([]string{"u1", "u2"}).Draw(t, "user")
				phase := rapid.SampledFrom([]adapter.DriftPhase{adapter.DriftAppeared, adapter.DriftAltered, adapter.DriftEnded}).Draw(t, "phase")
				situation := rapid.SampledFrom(adapter.Situations).Draw(t, "situation")
				add(adapter.ReconciliationStream(eventstore.NewID()), &adapter.DriftDetected{Realm: realm, UserID: user, Phase: phase, Situation: situation})
				if open[user] = situation; phase == adapter.DriftEnded {
					open[user] = ""
				}
			}
			if rapid.Bool().Draw(t, "fold now") {
				catchUp()
			}
		}
		catchUp()
		query := hours(5)
		query.Realm = realm
		a, err := q.Summary(ctx, query)
		require.NoError(t, err)

		want := map[string]int64{}
		for _, events := range calls {
			c, _ := adapter.FoldCall(events)
			want["call "+string(c.Status)+" "+c.RequestedAt.UTC().Truncate(time.Hour).String()]++
			if c.Code != "" {
				want["error "+string(c.Code)]++
			}
		}
		for _, situation := range open {
			if situation != "" {
				want["open "+string(situation)]++
			}
		}
		if events > 0 {
			want["events"] = int64(events)
		}
		got := map[string]int64{}
		for _, c := range a.Calls {
			for i, n := range c.Counts.Counts {
				if n != 0 {
					got["call "+string(c.Status)+" "+a.Buckets[i].String()] += n
				}
			}
		}
		for _, c := range a.Errors {
			got["error "+string(c.Code)] += c.Total
		}
		for _, o := range a.OpenDrift {
			if n := o.Open[len(o.Open)-1]; n != 0 {
				got["open "+string(o.Situation)] = n
			}
		}
		for _, c := range a.Events {
			got["events"] += c.Total
		}
		require.Equal(t, want, got)
	})
	e := p.Engine(t, projections.Options{BatchSize: 10}, projection)
	p.RebuildEqualsIncremental(t, e, projection)
}

func TestEveryMetricReadsTheKey(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		e := p.Engine(t, projections.Options{}, analytics.New())
		require.NoError(t, e.Setup(t.Context()))
		tx, err := p.DB.Read.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback()) }()
		explain := "EXPLAIN QUERY PLAN "
		if p.DB.Dialect == projections.Postgres {
			explain = "EXPLAIN (FORMAT JSON) "
			for _, off := range []string{"enable_seqscan", "enable_bitmapscan"} { // an empty table is read whole otherwise
				_, err = tx.ExecContext(t.Context(), "SET LOCAL "+off+" = off")
				require.NoError(t, err)
			}
		}
		for _, metric := range []string{"events", "open_drift"} {
			query, args, err := analytics.Statement(hours(1), metric)
			require.NoError(t, err)
			row := tx.QueryRowContext(t.Context(), explain+query, args...)
			var plan string
			if p.DB.Dialect == projections.Postgres {
				require.NoError(t, row.Scan(&plan))
				require.Contains(t, plan, "Index Cond")
				require.NotContains(t, plan, "Filter")
			} else {
				require.NoError(t, row.Scan(new(int), new(int), new(int), &plan))
				require.Contains(t, plan, "SEARCH api_analytics_counts USING")
			}
			require.Regexp(t, "metric ?= ?.* AND \\(?hour ?<", plan, metric)
		}
	})
}
