package reconcile

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// A run that is given an id, since it follows from an idempotency key, is begun once.
func TestARunOfAGivenIDIsBegunOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keycloak.put(person("1", "ann"))
	req := Request{Realm: realm, RunID: uuid.MustParse("06ae92d7-e479-5053-945d-f2573d941cce"), Trigger: "http"}
	result, err := w.runner.Run(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, req.RunID, result.RunID)
	head, err := w.store.Head(t.Context())
	require.NoError(t, err)

	req.Started = func(adapter.Reconciliation) { t.Error("it was begun again") }
	_, err = w.runner.Run(t.Context(), req)
	require.Equal(t, adapter.CodeRunInProgress, adapter.CodeOf(err))
	again, err := w.store.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, head, again, "nothing was recorded")
}
