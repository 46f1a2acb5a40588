package httpapi

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// beginner begins runs and refuses while another one is under way.
type beginner struct {
	*bundle
	begun []uuid.UUID
	// meanwhile, if set, is called once in the place of beginning.
	meanwhile func(id uuid.UUID) error
}

func (s *beginner) Start(ctx context.Context, id uuid.UUID, realm string) (adapter.Reconciliation, error) {
	if f := s.meanwhile; f != nil {
		s.meanwhile = nil
		if err := f(id); err != nil {
			return adapter.Reconciliation{}, err
		}
	}
	if id == uuid.Nil {
		id = uuid.New()
	}
	s.begun = append(s.begun, id)
	call, _ := adapter.CallFrom(ctx)
	return s.start(id, realm, call), nil
}

func (s *beginner) start(id uuid.UUID, realm string, call adapter.CallContext) adapter.Reconciliation {
	s.record(adapter.ReconciliationStream(id), may, adapter.Metadata{CorrelationID: call.CorrelationID, Actor: &call.Actor, Reason: call.Reason},
		&adapter.ReconciliationStarted{RunID: id, Realm: realm, Trigger: "http"})
	events, err := s.codec.ReadStream(s.t.Context(), s.store, adapter.ReconciliationStream(id))
	require.NoError(s.t, err)
	run, _ := adapter.FoldReconciliation(events)
	return run
}

func (s *beginner) Cancel(_ context.Context, id uuid.UUID) (adapter.Reconciliation, error) {
	return adapter.Reconciliation{}, adapter.Errorf(adapter.CodeInvalidRequest, "run %s is over", id)
}

func TestARunIsBegunOnceUnderAKey(t *testing.T) {
	t.Parallel()
	runs := &beginner{}
	runs.bundle = newBundle(t, func(c *Config) { c.Reconciler = runs })
	begin := func(realm, body, key string) reply {
		return runs.do(http.MethodPost, "/api/v1/realms/"+realm+"/reconciliations", body, idempotencyHeader, key)
	}
	first := begin("acme", `{"reason":"a doubt"}`, "k-1")
	require.Equal(t, http.StatusAccepted, first.status, "%s", first.body)
	again := begin("acme", `{ "reason" : "a doubt" }`, "k-1")
	require.Equal(t, http.StatusAccepted, again.status)
	require.Equal(t, string(first.body), string(again.body))
	require.Equal(t, first.header.Get("Location"), again.header.Get("Location"))
	require.Len(t, runs.begun, 1)

	p := begin("acme", `{"reason":"another"}`, "k-1").problem(http.StatusUnprocessableEntity, adapter.CodeIdempotencyKeyReused)
	require.Equal(t, first.object()["correlation_id"], p.CorrelationID.String())
	require.Len(t, runs.begun, 1)
	begin("acme", `{"reason":"a doubt"}`, "k-2")
	begin("globex", `{"reason":"a doubt"}`, "k-1")
	require.Len(t, runs.begun, 3, "another key and another realm are other runs")
	require.NotContains(t, runs.begun[1:], runs.begun[0])

	// It is over: the run is told as it became.
	runs.record(adapter.ReconciliationStream(runs.begun[0]), may, adapter.Metadata{},
		&adapter.ReconciliationAborted{RunID: runs.begun[0], Realm: "acme", Status: string(adapter.RunAborted), Code: adapter.CodeInterrupted, Message: "cancelled"})
	require.Equal(t, "aborted", begin("acme", `{"reason":"a doubt"}`, "k-1").object()["status"])
	cancel := "/api/v1/reconciliations/" + runs.begun[0].String() + "/cancel"
	runs.do(http.MethodPost, cancel, "").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	require.Equal(t, "aborted", runs.do(http.MethodPost, cancel, "", idempotencyHeader, "k").object()["status"])

	// A refusal is no outcome: the key may come again.
	inProgress := adapter.Errorf(adapter.CodeRunInProgress, "a run of acme is under way")
	runs.meanwhile = func(uuid.UUID) error { return inProgress }
	begin("acme", "", "k-3").problem(http.StatusConflict, adapter.CodeRunInProgress)
	require.Equal(t, http.StatusAccepted, begin("acme", "", "k-3").status)
	// Of two at the same time the second finds the run of the first.
	var won uuid.UUID
	runs.meanwhile = func(id uuid.UUID) error {
		won = runs.start(id, "acme", adapter.CallContext{Actor: adapter.System("test"), Reason: "both"}).RunID
		return inProgress
	}
	both := begin("acme", `{"reason":"both"}`, "k-4")
	require.Equal(t, http.StatusAccepted, both.status)
	require.Equal(t, won.String(), both.object()["run_id"])
	require.Len(t, runs.begun, 4)
}

func TestARebuildUnderAKey(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}, 2), make(chan struct{})
	b := newBundle(t, func(c *Config) {
		c.Projections = &fakeProjections{rebuild: func(context.Context, string) error {
			begun <- struct{}{}
			<-end
			return nil
		}}
	})
	rebuild := func(headers ...string) reply {
		return b.do(http.MethodPost, "/api/v1/projections/users/rebuild", "", headers...)
	}
	first := rebuild(idempotencyHeader, "k-1")
	require.Equal(t, http.StatusAccepted, first.status, "%s", first.body)
	<-begun
	again := rebuild(idempotencyHeader, "k-1")
	require.Equal(t, http.StatusAccepted, again.status)
	require.Equal(t, string(first.body), string(again.body))
	rebuild(idempotencyHeader, "k-2").problem(http.StatusConflict, adapter.CodeRunInProgress)
	rebuild().problem(http.StatusConflict, adapter.CodeRunInProgress)
	close(end)
	require.NoError(t, b.server.Drain(t.Context()))
	require.Empty(t, begun, "it was made once")
}

func TestADeliveryIsTriedAgainOnceUnderAKey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.hook(`{"events":[` + adminEvent("e-1") + `,` + adminEvent("e-2") + `]}`)
	b.record(adapter.DeliveryStream("e-1"), may, adapter.Metadata{}, &adapter.DeliveryParked{Error: "no such user", Attempts: 5})
	retry := func(id string, headers ...string) reply {
		return b.do(http.MethodPost, "/api/v1/deliveries/"+id+"/retry", "", headers...)
	}
	first := retry("e-1", idempotencyHeader, "k-1")
	require.Equal(t, http.StatusOK, first.status, "%s", first.body)
	head := b.head()
	again := retry("e-1", idempotencyHeader, "k-1")
	require.Equal(t, http.StatusOK, again.status)
	require.Equal(t, string(first.body), string(again.body))
	require.Equal(t, head, b.head(), "nothing was done again")
	retry("e-1").problem(http.StatusConflict, adapter.CodeNotParked)
	retry("e-2", idempotencyHeader, "k-1").problem(http.StatusConflict, adapter.CodeNotParked)
}
