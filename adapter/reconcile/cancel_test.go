package reconcile

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// by is a context in which somebody acts.
func by(ctx context.Context, id string) context.Context {
	return adapter.WithCall(ctx, adapter.CallContext{
		Actor: adapter.Actor{Type: adapter.ActorToken, ID: id}, Reason: "enough", Source: "http",
	})
}

// The one who cancels has nothing of the run but the log.
func TestCancelFromAnotherProcess(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func(k *fakeKeycloak, do func()){
		"between two pages": func(k *fakeKeycloak, do func()) {
			k.onPage = func(first int) {
				if first == 3 {
					do()
				}
			}
		},
		"while memberships are read": func(k *fakeKeycloak, do func()) { k.members.onList = func(string) { do() } },
		"while a user is judged":     func(k *fakeKeycloak, do func()) { k.onUser = func(string) { do() } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.baselined(person("1", "ann"), person("2", "bob"), person("3", "cleo"), person("4", "dan"))
			for _, id := range []string{"1", "2", "3", "4"} {
				w.keycloak.change(id, func(u *keycloak.User) { u.Enabled = ptr(false) })
			}
			other, err := New(w.runner.Config)
			require.NoError(t, err)
			var cancelled adapter.Reconciliation
			requests := 0
			at(w.keycloak, func() {
				if requests++; requests > 1 {
					return
				}
				unfinished, err := w.runner.History.Unfinished(t.Context(), realm)
				require.NoError(t, err)
				cancelled, err = other.Cancel(by(t.Context(), "api"), unfinished[0])
				require.NoError(t, err)
			})
			res, failure := w.fail(t.Context())
			require.Equal(t, 1, requests, "it ends before its next request")
			require.Equal(t, adapter.CodeInterrupted, failure.Code)
			require.Equal(t, "the run was cancelled by api", failure.Detail)
			require.Equal(t, adapter.RunAborted, res.Status)
			require.Equal(t, "the run was cancelled by api", res.Error)
			require.Equal(t, res.RunID, cancelled.RunID)
			require.Equal(t, adapter.RunAborted, cancelled.Status)

			var last eventstore.Event
			for e, err := range w.store.ReadStream(t.Context(), adapter.ReconciliationStream(res.RunID), eventstore.StreamQuery{}) {
				require.NoError(t, err)
				last = e
			}
			require.Equal(t, adapter.TypeReconciliationAborted, last.Type)
			require.Equal(t, res.CorrelationID, last.CorrelationID, "it belongs to the run's story")
			d, err := w.codec.Decode(t.Context(), last)
			require.NoError(t, err)
			require.Equal(t, "api", d.Meta.Actor.ID)
			require.Equal(t, "enough", d.Meta.Reason)
		})
	}
}

func TestCancelOfARunThatIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keycloak.put(person("1", "ann"))
	_, err := w.runner.Cancel(t.Context(), uuid.New())
	require.Equal(t, adapter.CodeNotFound, adapter.CodeOf(err))
	done := w.run()
	run, err := w.runner.Cancel(t.Context(), done.RunID)
	require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err))
	require.Equal(t, adapter.RunCompleted, run.Status)
}

// A run whose process died belongs to its own story to the end.
func TestADeadRunEndsInItsOwnStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keycloak.put(person("1", "ann"))
	id, story := eventstore.NewID(), eventstore.NewID()
	e, err := w.codec.Encode(t.Context(), adapter.Draft{
		Payload:    &adapter.ReconciliationStarted{RunID: id, Realm: realm, Trigger: "schedule"},
		OccurredAt: w.clock.Now(), Meta: adapter.Metadata{CorrelationID: story},
	})
	require.NoError(t, err)
	_, err = w.store.Append(t.Context(), eventstore.StreamAppend{
		Stream: adapter.ReconciliationStream(id), Events: []eventstore.NewEvent{e},
	})
	require.NoError(t, err)
	w.run()
	events, err := w.codec.ReadStream(t.Context(), w.store, adapter.ReconciliationStream(id))
	require.NoError(t, err)
	require.Len(t, events, 2)
	require.Equal(t, adapter.TypeReconciliationAborted, events[1].Type)
	require.Equal(t, story, events[1].CorrelationID)
	require.Equal(t, events[0].ID, events[1].CausationID)
}
