package httpapi

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
)

func TestExplanation(t *testing.T) {
	t.Parallel()
	_, keycloak := withKeycloak(t)
	b := newBundle(t, keycloak)
	p := b.do(http.MethodPost, acmeUsers+"/nobody/disable", `{"reason":"left"}`).problem(http.StatusNotFound, adapter.CodeUserNotFound)

	var x trace.Explanation
	got := b.get("/api/v1/traces/" + p.CorrelationID.String() + "/explanation?realm=acme")
	require.Equal(t, http.StatusOK, got.status, "%s", got.body)
	got.into(&x)
	require.Equal(t, *p.CorrelationID, x.CorrelationID)
	require.Equal(t, trace.StatusFailed, x.Status)
	require.Equal(t, trace.SentenceOutcome, x.Sentences[0].Kind)
	events := b.get("/api/v1/events?correlation_id=" + p.CorrelationID.String())
	for _, s := range x.Sentences {
		require.NotEmpty(t, s.Text)
		require.Contains(t, string(events.body), s.EventID.String())
	}

	b.get("/api/v1/traces/nothing/explanation").problem(http.StatusNotFound, adapter.CodeNotFound)
	b.get("/api/v1/traces/nothing/explanation?explain=yes").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
}
