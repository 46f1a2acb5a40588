package outbound_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/eventstore"
)

// storeFault is a store that fails once: at the append whose number is left, counted
// down to 0.
type storeFault struct {
	outbound.Store
	left int
	// recorded is true where only the answer is lost.
	recorded bool
	err      error
}

func (s *storeFault) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	s.left--
	if s.left != 0 {
		return s.Store.Append(ctx, appends...)
	}
	if s.recorded {
		if _, err := s.Store.Append(ctx, appends...); err != nil {
			return nil, err
		}
	}
	return nil, s.err
}

// Whichever commit of a call the store fails at, and whether it has recorded it or not,
// the call gets an outcome, with each attempt once.
func TestAFaultOfTheStoreLosesNoOutcome(t *testing.T) {
	t.Parallel()
	const commits = 4 // intent, two failed attempts, outcome
	for _, recorded := range []bool{false, true} {
		for n := range commits {
			t.Run(fmt.Sprintf("recorded %t, commit %d", recorded, n+1), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				bob := b.create("bob")
				b.keycloak.FailNext(http.MethodPut, userPath, 2, http.StatusServiceUnavailable)
				b.commands.Store = &storeFault{Store: b.store, left: n + 1, recorded: recorded, err: fmt.Errorf("answer lost: %w", eventstore.ErrUnavailable)}
				out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
				user := b.types(adapter.UserStream("acme", bob))
				switch n {
				case 0:
					require.Equal(t, adapter.CodeStoreUnavailable, adapter.CodeOf(err), "nothing goes out without an intent")
					require.Zero(t, b.keycloak.Requests(http.MethodPut, userPath))
					return
				case commits - 1:
					require.NoError(t, err)
					require.Equal(t, adapter.CallSucceeded, b.call(out.CallID).Status)
					require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, user)
				default:
					require.Equal(t, adapter.CodeStoreUnavailable, adapter.CodeOf(err), "no attempt goes out that the one before is not recorded of: %v", err)
					require.Equal(t, adapter.CallFailed, b.call(out.CallID).Status)
					require.Equal(t, []string{adapter.TypeUserApiCreated}, user)
				}
				c := b.call(out.CallID)
				require.Len(t, c.Attempts, b.keycloak.Requests(http.MethodPut, userPath))
				for i, a := range c.Attempts {
					require.Equal(t, i+1, a.Attempt)
				}
			})
		}
	}
}

// The answer of a commit before a repetition is lost, and the echo is recorded before
// the outcome is.
func TestALostCommitAndAnEcho(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.keycloak.FailNext(http.MethodPut, userPath, 1, http.StatusServiceUnavailable)
	lost := &storeFault{Store: b.store, left: 2, recorded: true, err: fmt.Errorf("answer lost: %w", eventstore.ErrUnavailable)}
	b.commands.Store = &storeBefore{Store: lost, eventType: adapter.TypeApiCallFailed, then: func() {
		// Keycloak had done it before a proxy answered 503.
		requested := b.log(adapter.TypeApiCallRequested)
		id := requested[len(requested)-1].Payload.(*adapter.ApiCallRequested).CallID
		b.echo(id, adapter.Echo{DeliveryEventID: eventstore.NewID(), UserID: bob, MatchedBy: "stamp"})
	}}
	out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.NoError(t, err)
	require.Equal(t, adapter.CallSucceeded, out.Status)
	c := b.call(out.CallID)
	require.Equal(t, adapter.CallSucceeded, c.Status)
	require.Equal(t, "echo", c.ResolvedBy)
	require.Len(t, c.Attempts, 1)
	require.False(t, slices.Contains(b.types(adapter.CallStream(out.CallID)), adapter.TypeApiCallFailed), "a verdict that came too late is taken back")
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, b.types(adapter.UserStream("acme", bob)))
}

// echo records an echo of a call as the interpreter would.
func (b *bundle) echo(id uuid.UUID, echo adapter.Echo) {
	b.t.Helper()
	e, err := b.codec.Encode(b.t.Context(), adapter.Draft{
		Payload: &adapter.ApiCallEchoed{CallID: id, Echo: echo}, OccurredAt: time.Now(), Meta: adapter.Metadata{CallID: &id},
	})
	require.NoError(b.t, err)
	_, err = b.store.Append(b.t.Context(), eventstore.StreamAppend{Stream: adapter.CallStream(id), Events: []eventstore.NewEvent{e}})
	require.NoError(b.t, err)
}

// A call that has sent nothing is proved by no echo, whoever made that.
func TestAnEchoOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.commands.Keycloak = keycloakUnreached{b.client}
	b.commands.Store = &storeBefore{Store: b.store, eventType: adapter.TypeApiCallFailed, then: func() {
		requested := b.log(adapter.TypeApiCallRequested)
		id := requested[len(requested)-1].Payload.(*adapter.ApiCallRequested).CallID
		b.echo(id, adapter.Echo{DeliveryEventID: eventstore.NewID(), UserID: bob, MatchedBy: "stamp"})
	}}
	out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.Error(t, err)
	require.Equal(t, adapter.CallFailed, b.call(out.CallID).Status)
	require.Equal(t, []string{adapter.TypeUserApiCreated}, b.types(adapter.UserStream("acme", bob)))
}
