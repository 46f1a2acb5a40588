package outbound_test

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// killed is a store to whom a process is dead as soon as it has an outcome to record.
type killed struct{ outbound.Store }

func (k *killed) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	for _, a := range appends {
		if slices.ContainsFunc(a.Events, func(e eventstore.NewEvent) bool {
			return e.Type == adapter.TypeApiCallSucceeded || e.Type == adapter.TypeApiCallFailed
		}) {
			return nil, eventstore.ErrClosed
		}
	}
	return k.Store.Append(ctx, appends...)
}

// later lets time pass for the interpreter.
func (b *bundle) later(d time.Duration) {
	b.interp = &interpret.Interpreter{
		Store: b.interp.Store, Codec: b.codec, Clock: func() time.Time { return time.Now().Add(d) }, Logger: slog.New(slog.DiscardHandler),
	}
}

// settle runs one turn of a settler.
func (b *bundle) settle() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	s := &interpret.Settler{
		Interpreter: b.interp,
		Requested: func(context.Context, int, string) ([]adapter.Call, string, error) {
			var open []adapter.Call
			for _, e := range b.log(adapter.TypeApiCallRequested) {
				if c := b.call(e.Payload.(*adapter.ApiCallRequested).CallID); c.Status == adapter.CallRequested {
					open = append(open, c)
				}
			}
			return open, "", nil
		},
		Woken:  func(context.Context) error { cancel(); return nil },
		Logger: slog.New(slog.DiscardHandler),
	}
	require.NoError(b.t, s.Run(ctx))
}

// A process that dies between a write and its outcome loses nothing: Keycloak's own
// event proves the call, whether it is read at once or late.
func TestACrashBeforeTheOutcomeIsSettledByTheEcho(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(b *bundle){
		"the echo is read at once, by a process that was started again": func(b *bundle) {
			b.pull()
			b.settle()
			requested := b.log(adapter.TypeApiCallRequested)
			c := b.call(requested[len(requested)-1].Payload.(*adapter.ApiCallRequested).CallID)
			require.NotNil(b.t, c.Echo)
			require.Equal(b.t, adapter.CallRequested, c.Status, "its writer may be alive")
			b.later(6 * time.Minute)
			b.settle()
		},
		"the echo is read late": func(b *bundle) {
			b.later(6 * time.Minute)
			b.pull()
		},
		"the echo is read at once, and again late": func(b *bundle) {
			b.pull()
			b.later(6 * time.Minute)
			b.pull()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			bob := b.create("bob")
			b.pull()
			commands := *b.commands
			commands.Store = &killed{b.store}
			out, err := commands.DisableUser(b.ctx, "acme", outbound.UserRef{Username: "bob"})
			require.Equal(t, adapter.CodeStoreUnavailable, adapter.CodeOf(err))
			require.Equal(t, adapter.CallRequested, b.call(out.CallID).Status)
			settle(b)
			c := b.call(out.CallID)
			require.Equal(t, adapter.CallSucceeded, c.Status)
			require.Equal(t, "echo", c.ResolvedBy)
			require.Equal(t, bob, c.UserID)
			require.NotNil(t, c.Echo)
			stream := adapter.UserStream("acme", bob)
			require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, b.types(stream))
			told := b.events(stream)[1]
			require.Equal(t, "alice", told.Meta.Actor.ID)
			require.Equal(t, "left the company", told.Meta.Reason)
			require.Equal(t, out.CorrelationID, told.CorrelationID)
			require.Equal(t, "command", told.Payload.(*adapter.UserApiDisabled).Via)
			call := b.events(adapter.CallStream(out.CallID))
			require.Equal(t, call[len(call)-1].ID, told.CausationID)

			head, err := b.store.Head(t.Context())
			require.NoError(t, err)
			b.pull()
			b.settle()
			again, err := b.store.Head(t.Context())
			require.NoError(t, err)
			require.Equal(t, head, again, "once is enough")

			// Without a stamp, too.
			out, err = commands.DeleteUser(b.ctx, "acme", outbound.UserRef{ID: bob})
			require.Error(t, err)
			b.later(0)
			settle(b)
			require.Equal(t, adapter.CallSucceeded, b.call(out.CallID).Status)
			require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled, adapter.TypeUserApiDeleted}, b.types(stream))
		})
	}
}

// A writer that was taken for dead and is not, such as one whose machine slept, finds
// what was told in its place, and tells it no second time.
func TestAWriterThatWasTakenForDead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.pull()
	b.later(6 * time.Minute)
	b.keycloak.FailNext(http.MethodPut, userPath, 1, http.StatusServiceUnavailable)
	b.commands.Store = &storeBefore{Store: b.store, eventType: adapter.TypeApiCallSucceeded, then: b.pull}
	out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.NoError(t, err)
	require.Equal(t, adapter.CallSucceeded, out.Status)
	require.Equal(t, bob, out.UserID)
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, b.types(adapter.UserStream("acme", bob)))
	types := b.types(adapter.CallStream(out.CallID))
	require.Equal(t, []string{
		adapter.TypeApiCallRequested, adapter.TypeApiCallPreconditionRead, adapter.TypeApiCallAttempted,
		adapter.TypeApiCallEchoed, adapter.TypeApiCallSucceeded, adapter.TypeApiCallAttempted,
	}, types, "its last attempt is recorded still")
	require.Equal(t, adapter.CallSucceeded, b.call(out.CallID).Status)

	// One that is alive tells its change itself.
	b.later(0)
	b.commands.Store = &storeBefore{Store: b.store, eventType: adapter.TypeApiCallSucceeded, then: b.pull}
	out, err = b.commands.EnableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.NoError(t, err)
	c := b.call(out.CallID)
	require.Empty(t, c.ResolvedBy)
	require.NotNil(t, c.Echo)
	b.pull()
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled, adapter.TypeUserApiEnabled}, b.types(adapter.UserStream("acme", bob)))
}

// keycloakWithoutLocation is a Keycloak behind a proxy that drops the Location, which is
// all that tells who was created.
type keycloakWithoutLocation struct {
	outbound.Keycloak
	then func()
}

func (k keycloakWithoutLocation) CreateUser(ctx context.Context, realm string, body admin.UserBody) (string, error) {
	_, err := k.Keycloak.CreateUser(ctx, realm, body)
	k.then()
	return "", err
}

// Who was created is told by the echo where the answer does not, before the outcome is
// recorded and after.
func TestAnAnswerWithoutALocation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before bool
		known  bool
	}{"the echo comes later": {}, "the echo comes before the outcome": {before: true, known: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.commands.Keycloak = keycloakWithoutLocation{b.client, func() {
				if c.before {
					b.pull()
				}
			}}
			out, err := b.commands.CreateUser(b.ctx, "acme", outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("zed")}})
			require.NoError(t, err)
			require.Equal(t, adapter.CallSucceeded, out.Status)
			live, ok := b.realm.UserByName("zed")
			require.True(t, ok)
			if c.known {
				require.Equal(t, live.ID, out.UserID)
			}
			b.pull()
			b.pull()
			b.settle()
			events := b.events(adapter.UserStream("acme", live.ID))
			require.Len(t, events, 1)
			require.Equal(t, "alice", events[0].Meta.Actor.ID)
			require.Equal(t, "left the company", events[0].Meta.Reason)
			require.Equal(t, out.CorrelationID, events[0].CorrelationID)
			require.Equal(t, "command", events[0].Payload.(*adapter.UserApiCreated).Via)
			require.Equal(t, live.ID, b.call(out.CallID).Echo.UserID)
		})
	}
}
