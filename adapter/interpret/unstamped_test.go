package interpret

import (
	"context"
	"iter"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak"
)

// countingStore counts what is read of the log.
type countingStore struct {
	*sqlite.Store
	read int
}

func (s *countingStore) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range s.Store.ReadLog(ctx, q) {
			s.read++
			if !yield(e, err) {
				return
			}
		}
	}
}

func newIndexed(t *testing.T) (*Interpreter, *countingStore, func(draft adapter.Draft, s eventstore.StreamID, expected eventstore.Expected)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	counting := &countingStore{Store: store}
	i := &Interpreter{Store: counting, Codec: adapter.NewCodec(seal.Plain{}), Clock: time.Now, Logger: slog.New(slog.DiscardHandler)}
	return i, counting, func(draft adapter.Draft, s eventstore.StreamID, expected eventstore.Expected) {
		draft.OccurredAt, draft.Meta.CorrelationID = time.Now(), uuid.New()
		e, err := i.Codec.Encode(t.Context(), draft)
		require.NoError(t, err)
		_, err = store.Append(t.Context(), eventstore.StreamAppend{Stream: s, Expected: expected, Events: []eventstore.NewEvent{e}})
		require.NoError(t, err)
	}
}

// However many calls there are, each is read from the log once.
func TestTheIndexReadsEachCallOnce(t *testing.T) {
	t.Parallel()
	i, store, add := newIndexed(t)
	const calls = 200
	var wanted []uuid.UUID
	for n := range calls {
		id, user := uuid.New(), "1"
		if n%2 == 0 {
			user = uuid.NewString()
		} else {
			wanted = append(wanted, id)
		}
		add(adapter.Draft{Payload: &adapter.ApiCallRequested{
			CallID: id, Realm: "acme", UserID: user, Method: http.MethodPost, URLTemplate: userURL + "/logout",
		}}, adapter.CallStream(id), eventstore.ExpectNone())
	}
	want := address{realm: "acme", resource: keycloak.ResourceUser, operation: keycloak.OperationAction, path: "users/1/logout"}
	for range 50 {
		found, err := i.calls.find(t.Context(), i, want, time.Now())
		require.NoError(t, err)
		require.Equal(t, wanted, found)
	}
	require.Equal(t, calls, store.read)

	id := uuid.New()
	add(adapter.Draft{Payload: &adapter.ApiCallRequested{
		CallID: id, Realm: "acme", Username: "bob", Method: http.MethodPost, URLTemplate: userURL + "/logout",
	}}, adapter.CallStream(id), eventstore.ExpectNone())
	found, err := i.calls.find(t.Context(), i, want, time.Now())
	require.NoError(t, err)
	require.Equal(t, wanted, found, "it is not known whom the call is about")
	add(adapter.Draft{Payload: &adapter.ApiCallPreconditionRead{
		CallID: id, UserID: "1", Username: "bob", URLTemplate: realmURL + "/users",
	}}, adapter.CallStream(id), eventstore.ExpectVersion(1))
	found, err = i.calls.find(t.Context(), i, want, time.Now())
	require.NoError(t, err)
	require.Equal(t, append(wanted, id), found)

	found, err = i.calls.find(t.Context(), i, want, time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.Empty(t, found, "too long ago")
}

// Of two calls that are alike, the one that was on its way has caused the event, also
// where the other was asked for closer to it.
func TestTheCallThatWasOnItsWayIsCloser(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	requested := func(n int) adapter.Decoded { return adapter.Decoded{Event: eventstore.Event{OccurredAt: ms(n)}} }
	first := call{requested: requested(0), writes: []span{{ms(40), ms(60)}}}
	second := call{requested: requested(52), writes: []span{{ms(70), ms(80)}, {ms(200), ms(210)}}}
	unsent := call{requested: requested(45)}
	require.Zero(t, first.away(ms(50)))
	require.Equal(t, 19*time.Millisecond, second.away(ms(50)), "the event's time is cut to milliseconds")
	require.Equal(t, 4*time.Millisecond, second.away(ms(195)))
	require.Equal(t, 10*time.Millisecond, second.away(ms(220)))
	require.Equal(t, 5*time.Millisecond, unsent.away(ms(50)), "a process that died may have sent one")
	require.Equal(t, 5*time.Millisecond, unsent.away(ms(40)))
	require.True(t, first.closer(second, ms(50)))
	require.False(t, second.closer(first, ms(50)))
	lost := call{requested: requested(0), outcome: adapter.TypeApiCallOutcomeUnknown, writes: []span{{ms(50), ms(50)}}}
	done := call{requested: requested(9), outcome: adapter.TypeApiCallSucceeded, writes: []span{{ms(50).Add(900 * time.Microsecond), ms(51)}}}
	require.True(t, done.closer(lost, ms(50)), "both in one millisecond, and one is known to have been done")
	require.False(t, lost.closer(done, ms(50)))
}

func TestTheIndexIsBounded(t *testing.T) {
	t.Parallel()
	i, _, _ := newIndexed(t)
	now := time.Now()
	for n := range 50 {
		_, err := i.calls.find(t.Context(), i, address{}, now.Add(-time.Duration(n)*time.Hour))
		require.NoError(t, err)
		require.LessOrEqual(t, len(i.calls.minutes), maxMinutes)
	}
}

func TestAddressOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		intent adapter.ApiCallRequested
		path   string
	}{
		{adapter.ApiCallRequested{Method: http.MethodDelete, URLTemplate: userURL, UserID: "1"}, "users/1"},
		{adapter.ApiCallRequested{Method: http.MethodPut, URLTemplate: userURL + "/groups/{group}", UserID: "f:a:b/c", Params: map[string]string{"group": "g"}}, "users/f:a:b/c/groups/g"},
		{adapter.ApiCallRequested{Method: http.MethodPost, URLTemplate: organizationURL + "/members", Params: map[string]string{"organization": "o"}}, "organizations/o/members"},
		{adapter.ApiCallRequested{Method: http.MethodDelete, URLTemplate: organizationURL + "/members/{id}", UserID: "1", Params: map[string]string{"organization": "o"}}, "organizations/o/members/1"},
		{adapter.ApiCallRequested{Method: http.MethodPut, URLTemplate: userURL, UserID: "1"}, ""},
		{adapter.ApiCallRequested{Method: http.MethodPost, URLTemplate: userURL + "/logout"}, ""},
	} {
		at, ok := addressOf(&c.intent, c.intent.UserID)
		require.Equal(t, c.path != "", ok, c.path)
		require.Equal(t, c.path, at.path)
	}
}
