package calls_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/calls"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

func draft(seconds int, p adapter.Payload) adapter.Draft {
	actor := adapter.Actor{Type: adapter.ActorCLI, Username: "ops"}
	return adapter.Draft{
		Payload: p, OccurredAt: noon.Add(time.Duration(seconds) * time.Second),
		Meta: adapter.Metadata{Actor: &actor, Reason: "because"},
	}
}

func requested(id uuid.UUID, user string) *adapter.ApiCallRequested {
	return &adapter.ApiCallRequested{
		CallID: id, Command: "user.disable", Realm: "acme", UserID: user, Method: "PUT",
		URLTemplate: "/admin/realms/{realm}/users/{id}",
	}
}

func attempted(id uuid.UUID, n, status int, problem string) *adapter.ApiCallAttempted {
	return &adapter.ApiCallAttempted{CallID: id, Attempt: adapter.Attempt{
		Attempt: n, StartedAt: noon, DurationMS: 1.5, StatusCode: status, Error: problem, Sent: true,
	}}
}

func TestFoldsAndAnswers(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := calls.New()
		e := p.Engine(t, projections.Options{BatchSize: 2}, projection)
		require.NoError(t, e.Setup(t.Context()))
		q := calls.NewQueries(p.DB)
		ids := []uuid.UUID{eventstore.NewID(), eventstore.NewID(), eventstore.NewID(), eventstore.NewID()}
		failed, unknown, skipped, open := ids[0], ids[1], ids[2], ids[3]

		p.Append(t, adapter.CallStream(failed), draft(0, requested(failed, "u1")))
		p.Append(t, adapter.CallStream(failed), draft(1, &adapter.ApiCallPreconditionRead{
			CallID: failed, Method: "GET", URLTemplate: "/x", Found: new(true), Attempts: []adapter.Attempt{{Attempt: 1, StatusCode: 200}},
		}))
		p.Append(t, adapter.CallStream(failed), draft(2, attempted(failed, 1, 0, "connection reset")))
		p.Append(t, adapter.CallStream(failed), draft(3, attempted(failed, 2, 403, "403 Forbidden")),
			draft(3, &adapter.ApiCallFailed{
				CallID: failed, StatusCode: 403, Attempts: 2,
				CallError: adapter.CallError{Code: adapter.CodeKeycloakForbidden, Message: "not allowed\x00"},
			}))
		p.Append(t, adapter.CallStream(unknown), draft(4, requested(unknown, "u1")), draft(5, &adapter.ApiCallOutcomeUnknown{
			CallID: unknown, CallError: adapter.CallError{Code: adapter.CodeOutcomeUnknown, Message: "no answer"},
		}))
		p.Append(t, adapter.CallStream(skipped), draft(6, requested(skipped, "u2")), draft(7, &adapter.ApiCallSkipped{
			CallID: skipped, CallError: adapter.CallError{Code: adapter.CodeAlreadyDisabled, Message: "is disabled"},
		}))
		p.Append(t, adapter.CallStream(open), draft(8, requested(open, "")))
		// A targeted read whose process died.
		read := requested(eventstore.NewID(), "u3")
		read.Command, read.Method = "user.read", "GET"
		p.Append(t, adapter.CallStream(read.CallID), draft(8, read))
		p.CatchUp(t, e)

		c, ok, err := q.Get(t.Context(), failed)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, adapter.CallFailed, c.Status)
		require.Len(t, c.Attempts, 2)
		require.Nil(t, c.Attempts[0].StatusCode)
		require.Equal(t, 403, *c.Attempts[1].StatusCode)
		require.True(t, *c.PreconditionReads[0].Found)
		require.Equal(t, noon.Add(3*time.Second), *c.FinishedAt)
		require.Equal(t, "ops", c.Actor.Username)
		require.Equal(t, "because", c.Reason)

		under, err := q.Open(t.Context(), "acme", "")
		require.NoError(t, err)
		require.Equal(t, []uuid.UUID{open}, idsOf(under))
		under, err = q.Open(t.Context(), "acme", "u1")
		require.NoError(t, err)
		require.Equal(t, []uuid.UUID{unknown}, idsOf(under))
		under, err = q.Open(t.Context(), "acme", "u3")
		require.NoError(t, err)
		require.Empty(t, under, "a read changes nothing")

		var listed []uuid.UUID
		for cursor := ""; ; {
			page, next, err := q.List(t.Context(), calls.Filter{Realm: "acme"}, 1, cursor)
			require.NoError(t, err)
			listed = append(listed, idsOf(page)...)
			if cursor = next; next == "" {
				break
			}
		}
		require.Equal(t, []uuid.UUID{read.CallID, open, skipped, unknown, failed}, listed)
		some, _, err := q.List(t.Context(), calls.Filter{
			Statuses: []adapter.CallStatus{adapter.CallFailed, adapter.CallUnknown}, UserID: "u1",
		}, 0, "")
		require.NoError(t, err)
		require.Equal(t, []uuid.UUID{unknown, failed}, idsOf(some))
		n, err := q.Count(t.Context(), calls.Filter{CorrelationID: c.CorrelationID})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		for _, cursor := range []string{"x", projections.Cursor("a"), projections.Cursor("no time", "id")} {
			_, _, err = q.List(t.Context(), calls.Filter{}, 1, cursor)
			require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err))
		}

		// The echo proves that the unknown call was done.
		p.Append(t, adapter.CallStream(unknown),
			draft(9, &adapter.ApiCallSucceeded{CallID: unknown, ResolvedBy: "echo"}),
			draft(9, &adapter.ApiCallEchoed{CallID: unknown, Echo: adapter.Echo{KeycloakEventID: "k", OccurredAt: noon, MatchedBy: "stamp"}}))
		p.CatchUp(t, e)
		c, _, err = q.Get(t.Context(), unknown)
		require.NoError(t, err)
		require.Equal(t, adapter.CallSucceeded, c.Status)
		require.Empty(t, c.Code)
		require.Equal(t, "k", c.Echo.KeycloakEventID)

		p.RebuildEqualsIncremental(t, e, projection)
	})
}

func idsOf(calls []adapter.Call) []uuid.UUID {
	var ids []uuid.UUID
	for _, c := range calls {
		ids = append(ids, c.CallID)
	}
	return ids
}

func TestCallHasTheContractsJSON(t *testing.T) {
	t.Parallel()
	id := eventstore.NewID()
	c, ok := adapter.FoldCall([]adapter.Decoded{
		{Event: eventstore.Event{Version: 2}, Payload: attempted(id, 1, 0, "timeout")},
		{Event: eventstore.Event{Version: 1}, Payload: requested(id, "u1")},
	})
	require.True(t, ok)
	b, err := json.Marshal(c)
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(b, &members))
	for _, name := range []string{
		"call_id", "correlation_id", "method", "url_template", "status", "code", "error", "attempts", "requested_at", "finished_at", "echo",
	} {
		require.Contains(t, members, name)
	}
	for _, name := range []string{"attempt", "started_at", "duration_ms", "status_code", "error"} {
		require.Contains(t, members["attempts"].([]any)[0], name)
	}
	require.Equal(t, "requested", members["status"])
	_, ok = adapter.FoldCall(nil)
	require.False(t, ok)
}
