package reconciliations_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
	"github.com/keytrail/keytrail/projections/reconciliations"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

type story struct {
	t testing.TB
	p projectiontest.Process
	n int
}

func (s *story) append(id uuid.UUID, p adapter.Payload) {
	s.n++
	s.p.Append(s.t, adapter.ReconciliationStream(id), adapter.Draft{Payload: p, OccurredAt: noon.Add(time.Duration(s.n) * time.Second)})
}

func (s *story) start(realm string) uuid.UUID {
	id := eventstore.NewID()
	s.append(id, &adapter.ReconciliationStarted{RunID: id, Realm: realm, Trigger: "cli"})
	return id
}

func (s *story) drift(run uuid.UUID, user string, phase adapter.DriftPhase, situation adapter.Situation) {
	d := &adapter.DriftDetected{RunID: run, Realm: "acme", UserID: user, Phase: phase, Situation: situation}
	if situation == adapter.SituationChanged {
		d.Fields = []adapter.FieldDifference{{Field: "email", Believed: json.RawMessage(`null`), Actual: json.RawMessage(`"a"`)}}
	}
	s.append(run, d)
}

func (s *story) complete(run uuid.UUID, counts map[adapter.Situation]int) {
	s.append(run, &adapter.ReconciliationCompleted{RunID: run, Realm: "acme", Compared: 5, InSync: 3, Findings: counts})
}

func TestFindingsOfARunAreTheDriftsOpenWhenItCompleted(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := reconciliations.New()
		e := p.Engine(t, projections.Options{BatchSize: 3}, projection)
		require.NoError(t, e.Setup(t.Context()))
		q := reconciliations.NewQueries(p.DB)
		s := &story{t: t, p: p}

		_, ok, err := q.LastComplete(t.Context(), "acme")
		require.NoError(t, err)
		require.False(t, ok)

		first := s.start("acme")
		s.drift(first, "u1", adapter.DriftAppeared, adapter.SituationChanged)
		s.drift(first, "u2", adapter.DriftAppeared, adapter.SituationMissingLive)
		s.complete(first, map[adapter.Situation]int{adapter.SituationChanged: 1, adapter.SituationMissingLive: 1})
		p.CatchUp(t, e)
		second := s.start("acme") // sees u1 again, u2 changes twice, u3 appears and ends
		s.drift(second, "u2", adapter.DriftAltered, adapter.SituationChanged)
		s.drift(second, "u2", adapter.DriftAltered, adapter.SituationUnreadable)
		s.drift(second, "u3", adapter.DriftAppeared, adapter.SituationChanged)
		s.drift(second, "u3", adapter.DriftEnded, adapter.SituationChanged)
		s.complete(second, map[adapter.Situation]int{adapter.SituationChanged: 1, adapter.SituationUnreadable: 1})
		third := s.start("acme")
		s.drift(third, "u1", adapter.DriftEnded, adapter.SituationChanged)
		s.append(third, &adapter.ReconciliationAborted{
			RunID: third, Realm: "acme", Status: "invalid", Code: adapter.CodeListingIncomplete, Message: "too short",
		})
		p.CatchUp(t, e)

		require.Equal(t, []string{"u1 changed", "u2 missing_live"}, found(t, q, first))
		require.Equal(t, []string{"u1 changed", "u2 unreadable"}, found(t, q, second))
		require.Empty(t, found(t, q, third))

		r, ok, err := q.Get(t.Context(), second)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, adapter.RunCompleted, r.Status)
		require.Equal(t, 2, r.FindingsTotal)
		require.Len(t, r.Findings, 2)
		require.Equal(t, "email", r.Findings[0].Fields[0].Field)
		require.Equal(t, first, r.Findings[0].RunID)
		require.Equal(t, 5, r.Compared)

		r, ok, err = q.Get(t.Context(), third)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, adapter.RunInvalid, r.Status)
		require.Equal(t, adapter.CodeListingIncomplete, r.Code)
		require.NotNil(t, r.Findings)

		last, ok, err := q.LastComplete(t.Context(), "acme")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, second, last.RunID)

		open, err := q.OpenDrifts(t.Context(), "acme")
		require.NoError(t, err)
		require.Len(t, open, 1)
		require.Equal(t, adapter.SituationUnreadable, open["u2"].Situation)

		var listed []uuid.UUID
		for cursor := ""; ; {
			runs, next, err := q.List(t.Context(), "acme", 2, cursor)
			require.NoError(t, err)
			for _, r := range runs {
				listed = append(listed, r.RunID)
			}
			if cursor = next; next == "" {
				break
			}
		}
		require.Equal(t, []uuid.UUID{third, second, first}, listed)

		_, ok, err = q.Get(t.Context(), eventstore.NewID())
		require.NoError(t, err)
		require.False(t, ok)

		p.RebuildEqualsIncremental(t, e, projection)
	})
}

// found reads a run's findings one by one.
func found(t *testing.T, q *reconciliations.Queries, run uuid.UUID) []string {
	t.Helper()
	var all []string
	for cursor := ""; ; {
		findings, next, err := q.Findings(t.Context(), run, 1, cursor)
		require.NoError(t, err)
		for _, f := range findings {
			all = append(all, fmt.Sprint(f.UserID, " ", f.Situation))
		}
		if cursor = next; next == "" {
			return all
		}
	}
}

func TestReconciliationHasTheContractsJSON(t *testing.T) {
	t.Parallel()
	id := eventstore.NewID()
	r, ok := adapter.FoldReconciliation([]adapter.Decoded{
		{Event: eventstore.Event{Version: 1}, Payload: &adapter.ReconciliationStarted{RunID: id, Realm: "acme"}},
	})
	require.True(t, ok)
	b, err := json.Marshal(r)
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(b, &members))
	for _, name := range []string{
		"run_id", "correlation_id", "realm", "status", "started_at", "finished_at", "compared", "in_sync", "findings", "findings_total",
	} {
		require.Contains(t, members, name)
	}
	require.Equal(t, "running", members["status"])
	require.Equal(t, []any{}, members["findings"])
}
