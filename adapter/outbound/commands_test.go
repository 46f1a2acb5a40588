package outbound_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	usersPath = "/admin/realms/acme/users"
	userPath  = "/admin/realms/acme/users/*"
)

// bundle is commands on a store and a fake Keycloak.
type bundle struct {
	t        *testing.T
	ctx      context.Context
	keycloak *keycloaktest.Server
	realm    *keycloaktest.Realm
	client   *admin.Client
	store    *sqlite.Store
	codec    *adapter.Codec
	commands *outbound.Commands
	interp   *interpret.Interpreter
}

func setup(t *testing.T, furtherRoles ...string) *bundle {
	t.Helper()
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	realm := server.AddRealm("acme", keycloaktest.RealmOptions{AdminEvents: true, AdminEventsDetails: true, UserEvents: true, EditUsername: true})
	realm.AddClient("keytrail", "s3cret-of-the-client", append([]string{"manage-users", "view-users", "view-events"}, furtherRoles...)...)

	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	client, err := admin.New(admin.Config{
		BaseURL: server.URL(), AuthRealm: "acme", ClientID: "keytrail", ClientSecret: "s3cret-of-the-client",
		Transport: &outbound.Transport{Next: admin.NewTransport(), Clock: time.Now},
		RetryMax:  3, RetryWaitMin: time.Millisecond, RetryWaitMax: 2 * time.Millisecond, Timeout: 10 * time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	codec := adapter.NewCodec(seal.Plain{})
	silent := slog.New(slog.DiscardHandler)
	return &bundle{
		t: t, keycloak: server, realm: realm, client: client, store: store, codec: codec,
		commands: &outbound.Commands{Keycloak: client, Store: store, Codec: codec, Clock: time.Now, Logger: silent},
		interp:   &interpret.Interpreter{Store: store, Codec: codec, Clock: time.Now, Logger: silent},
		ctx: adapter.WithCall(t.Context(), adapter.CallContext{
			Actor: adapter.Actor{Type: adapter.ActorCLI, ID: "alice"}, Reason: "left the company", Source: "cli",
		}),
	}
}

func (b *bundle) create(name string) string {
	b.t.Helper()
	out, err := b.commands.CreateUser(b.ctx, "acme", outbound.NewUser{
		Profile:  adapter.Profile{Username: adapter.Set(name), Enabled: adapter.Set(true), Email: adapter.Set(name + "@example.com")},
		Password: "correct horse battery",
	})
	require.NoError(b.t, err)
	return out.UserID
}

func (b *bundle) events(s eventstore.StreamID) []adapter.Decoded {
	b.t.Helper()
	events, err := b.codec.ReadStream(b.t.Context(), b.store, s)
	require.NoError(b.t, err)
	return events
}

func (b *bundle) types(s eventstore.StreamID) []string {
	types := []string{}
	for _, e := range b.events(s) {
		types = append(types, e.Type)
	}
	return types
}

func (b *bundle) call(id uuid.UUID) adapter.Call {
	b.t.Helper()
	c, ok := adapter.FoldCall(b.events(adapter.CallStream(id)))
	require.True(b.t, ok)
	return c
}

// pull brings Keycloak's own events of what was done, and interprets them.
func (b *bundle) pull() {
	b.t.Helper()
	raw, err := b.client.AdminEvents(b.t.Context(), "acme", admin.EventQuery{Max: 500, Ascending: true})
	require.NoError(b.t, err)
	recorder := &inbound.Recorder{Store: b.store, Codec: b.codec, Clock: time.Now}
	for _, one := range raw {
		d, err := webhook.DecodeAdminEvent(one)
		require.NoError(b.t, err)
		_, err = recorder.Record(b.t.Context(), inbound.Origin{Source: inbound.SourcePoll, Realm: "acme"}, []webhook.Delivery{d})
		require.NoError(b.t, err)
	}
	var batch []adapter.Decoded
	for e, err := range b.store.ReadLog(b.t.Context(), eventstore.LogQuery{Types: b.interp.Types()}) {
		require.NoError(b.t, err)
		d, err := b.codec.Decode(b.t.Context(), e)
		require.NoError(b.t, err)
		batch = append(batch, d)
	}
	require.NoError(b.t, b.interp.Handle(b.t.Context(), batch))
}

func TestDisableIsRecordedFromIntentToEcho(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.keycloak.FailNext(http.MethodPut, userPath, 2, http.StatusServiceUnavailable)

	out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.NoError(t, err)
	require.Equal(t, adapter.CallSucceeded, out.Status)
	require.Equal(t, 3, b.keycloak.Requests(http.MethodPut, userPath), "attempts are counted at the server")
	require.Equal(t, []string{
		adapter.TypeApiCallRequested, adapter.TypeApiCallPreconditionRead,
		adapter.TypeApiCallAttempted, adapter.TypeApiCallAttempted, adapter.TypeApiCallAttempted,
		adapter.TypeApiCallSucceeded,
	}, b.types(adapter.CallStream(out.CallID)))

	c := b.call(out.CallID)
	require.Equal(t, adapter.CallSucceeded, c.Status)
	var statuses []int
	for _, a := range c.Attempts {
		statuses = append(statuses, *a.StatusCode)
	}
	require.Equal(t, []int{503, 503, 204}, statuses)
	require.Nil(t, c.Echo)

	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, b.types(adapter.UserStream("acme", bob)))
	events := b.events(adapter.UserStream("acme", bob))
	disabled := events[1]
	require.Equal(t, "alice", disabled.Meta.Actor.ID)
	require.Equal(t, "left the company", disabled.Meta.Reason)
	require.Equal(t, out.CorrelationID, disabled.CorrelationID)
	call := b.events(adapter.CallStream(out.CallID))
	require.Equal(t, call[len(call)-1].ID, disabled.CausationID, "the success caused it")

	b.pull()
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, b.types(adapter.UserStream("acme", bob)),
		"an echo is no second user event")
	c = b.call(out.CallID)
	require.NotNil(t, c.Echo)
	require.Equal(t, "stamp", c.Echo.MatchedBy)
	user, ok := b.realm.User(bob)
	require.True(t, ok)
	require.False(t, user.Enabled)
	require.Equal(t, "bob@example.com", user.Email, "a partial update keeps the rest")
}

// The intent is durable before the first byte goes out, and each attempt before the
// next.
func TestIntentAndAttemptsAreDurableBeforeTheNextByte(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	read := b.keycloak.HoldRequest(http.MethodGet, userPath)
	type result struct {
		out outbound.Outcome
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
		done <- result{out, err}
	}()
	<-read.Arrived()
	requested := b.log(adapter.TypeApiCallRequested)
	require.Len(t, requested, 2, "create and disable")
	b.keycloak.FailNext(http.MethodPut, userPath, 1, http.StatusServiceUnavailable)
	second := b.keycloak.HoldAnswer(http.MethodPut, userPath)
	read.Release()
	<-second.Arrived()
	id := requested[1].Payload.(*adapter.ApiCallRequested).CallID
	second.Release()
	r := <-done
	require.NoError(t, r.err)
	require.Equal(t, id, r.out.CallID)
	require.Len(t, b.call(id).Attempts, 2)
}

func (b *bundle) log(types ...string) []adapter.Decoded {
	b.t.Helper()
	var events []adapter.Decoded
	for e, err := range b.store.ReadLog(b.t.Context(), eventstore.LogQuery{Types: types}) {
		require.NoError(b.t, err)
		d, err := b.codec.Decode(b.t.Context(), e)
		require.NoError(b.t, err)
		events = append(events, d)
	}
	return events
}

func TestARuleIsJudgedOnAFreshRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	out, err := b.commands.EnableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.Equal(t, adapter.CodeAlreadyEnabled, adapter.CodeOf(err))
	require.Equal(t, adapter.CallSkipped, out.Status)
	require.Zero(t, b.keycloak.Requests(http.MethodPut, userPath), "a refused command makes no write")
	require.Equal(t, []string{adapter.TypeApiCallRequested, adapter.TypeApiCallPreconditionRead, adapter.TypeApiCallSkipped},
		b.types(adapter.CallStream(out.CallID)))

	// What is believed does not matter, what is does.
	b.realm.BehindOurBack(func(users map[string]*keycloaktest.User) { users[bob].Enabled = false })
	_, err = b.commands.EnableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.NoError(t, err)
	_, err = b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{Username: "BOB"})
	require.NoError(t, err, "a user is found by exact name where nothing is known of them")

	_, err = b.commands.DeleteUser(b.ctx, "acme", outbound.UserRef{ID: "00000000-0000-0000-0000-000000000000"})
	require.Equal(t, adapter.CodeUserNotFound, adapter.CodeOf(err))
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault    keycloaktest.Fault
		status   adapter.CallStatus
		code     adapter.Code
		requests int
	}{
		"a refusal is final":              {keycloaktest.Fault{Status: 400, Times: 1}, adapter.CallFailed, adapter.CodeKeycloakInvalid, 1},
		"a missing role is named":         {keycloaktest.Fault{Status: 403, Times: 1}, adapter.CallFailed, adapter.CodeKeycloakForbidden, 1},
		"503 is repeated until it helps":  {keycloaktest.Fault{Status: 503, Times: 3}, adapter.CallSucceeded, "", 4},
		"503 to the end has failed":       {keycloaktest.Fault{Status: 503}, adapter.CallFailed, adapter.CodeKeycloakUnavailable, 4},
		"429 is repeated too":             {keycloaktest.Fault{Status: 429, Times: 1}, adapter.CallSucceeded, "", 2},
		"500 tells nothing":               {keycloaktest.Fault{Status: 500, Times: 1}, adapter.CallUnknown, adapter.CodeOutcomeUnknown, 1},
		"502 tells nothing":               {keycloaktest.Fault{Status: 502, Times: 1}, adapter.CallUnknown, adapter.CodeOutcomeUnknown, 1},
		"a lost answer tells nothing":     {keycloaktest.Fault{DropAfter: true, Times: 1}, adapter.CallUnknown, adapter.CodeOutcomeUnknown, 1},
		"a lost request tells nothing":    {keycloaktest.Fault{DropBefore: true, Times: 1}, adapter.CallUnknown, adapter.CodeOutcomeUnknown, 1},
		"a redirect is not followed":      {keycloaktest.Fault{Status: 302, Header: http.Header{"Location": {"/login"}}, Times: 1}, adapter.CallFailed, adapter.CodeKeycloakRejected, 1},
		"a proxy's 404 is not the user's": {keycloaktest.Fault{Status: 404, Body: "<html>", Times: 1}, adapter.CallFailed, adapter.CodeKeycloakNotFound, 1},
		"a bare 204 is enough":            {keycloaktest.Fault{Status: 204, Times: 1}, adapter.CallSucceeded, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			bob := b.create("bob")
			fault := c.fault
			fault.Method, fault.Pattern = http.MethodPut, userPath
			b.keycloak.Inject(fault)
			out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
			require.Equal(t, c.status, out.Status, "error: %v", err)
			require.Equal(t, c.code, adapter.CodeOf(err))
			require.Equal(t, c.requests, b.keycloak.Requests(http.MethodPut, userPath))
			call := b.call(out.CallID)
			require.Equal(t, c.status, call.Status)
			require.Len(t, call.Attempts, c.requests, "every wire attempt is recorded")
			want := []string{adapter.TypeUserApiCreated}
			if c.status == adapter.CallSucceeded {
				want = append(want, adapter.TypeUserApiDisabled)
			}
			require.Equal(t, want, b.types(adapter.UserStream("acme", bob)))
		})
	}
}

// Who was deleted between two attempts of ours was not deleted by us.
func TestDeletedBySomebodyElseMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.keycloak.Inject(keycloaktest.Fault{Method: http.MethodDelete, Pattern: userPath, Status: 503, Times: 1})
	b.keycloak.Inject(keycloaktest.Fault{Method: http.MethodDelete, Pattern: userPath, Status: 404, Body: `{"error":"User not found"}`, Times: 1})
	out, err := b.commands.DeleteUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.Equal(t, adapter.CodeUserNotFound, adapter.CodeOf(err))
	require.Equal(t, adapter.CallFailed, out.Status)
	require.Len(t, b.call(out.CallID).Attempts, 2)
	require.Equal(t, []string{adapter.TypeUserApiCreated}, b.types(adapter.UserStream("acme", bob)), "whoever did it tells it")
}

func TestAPostIsNeverRepeatedBlindly(t *testing.T) {
	t.Parallel()
	for _, status := range []int{503, 500} {
		b := setup(t)
		b.keycloak.FailNext(http.MethodPost, usersPath, 1, status)
		out, err := b.commands.CreateUser(b.ctx, "acme", outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("bob")}})
		require.Equal(t, adapter.CodeOutcomeUnknown, adapter.CodeOf(err))
		require.Equal(t, adapter.CallUnknown, out.Status)
		require.Equal(t, 1, b.keycloak.Requests(http.MethodPost, usersPath))
	}
}

func TestCreatingTwiceConflicts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create("bob")
	out, err := b.commands.CreateUser(b.ctx, "acme", outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("bob")}})
	require.Equal(t, adapter.CodeKeycloakConflict, adapter.CodeOf(err))
	require.Contains(t, err.Error(), "User exists with same username")
	c := b.call(out.CallID)
	require.Equal(t, adapter.CallFailed, c.Status)
	require.Equal(t, adapter.CodeKeycloakConflict, c.Code)
}

// An answer that was lost is settled by Keycloak's own event of the call.
func TestAnEchoSettlesAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.keycloak.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: userPath, DropAfter: true, Times: 1})
	out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.Equal(t, adapter.CodeOutcomeUnknown, adapter.CodeOf(err))
	b.pull()
	c := b.call(out.CallID)
	require.Equal(t, adapter.CallSucceeded, c.Status)
	require.Equal(t, "echo", c.ResolvedBy)
	call := b.events(adapter.CallStream(out.CallID))
	require.Equal(t, 1, call[len(call)-1].Payload.(*adapter.ApiCallSucceeded).Attempts)
	events := b.events(adapter.UserStream("acme", bob))
	require.Len(t, events, 2)
	require.Equal(t, "command", events[1].Payload.(*adapter.UserApiDisabled).Via)
	require.Equal(t, adapter.TypeUserApiDisabled, events[1].Type)
	require.Equal(t, "alice", events[1].Meta.Actor.ID, "told with the command's actor")
	require.Equal(t, "left the company", events[1].Meta.Reason)
	b.pull()
	require.Len(t, b.events(adapter.UserStream("acme", bob)), 2)
}

// keycloakThen is a Keycloak after whose writes something happens.
type keycloakThen struct {
	outbound.Keycloak
	then func()
}

func (k keycloakThen) CreateUser(ctx context.Context, realm string, body admin.UserBody) (string, error) {
	id, err := k.Keycloak.CreateUser(ctx, realm, body)
	k.then()
	return id, err
}

func (k keycloakThen) UpdateUser(ctx context.Context, realm, id string, body admin.UserBody) error {
	err := k.Keycloak.UpdateUser(ctx, realm, id, body)
	k.then()
	return err
}

// storeBefore is a store before whose appends of one type something happens, once.
type storeBefore struct {
	outbound.Store
	eventType string
	then      func()
	once      sync.Once
}

func (s *storeBefore) Append(ctx context.Context, appends ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	for _, a := range appends {
		if slices.ContainsFunc(a.Events, func(e eventstore.NewEvent) bool { return e.Type == s.eventType }) {
			s.once.Do(s.then)
		}
	}
	return s.Store.Append(ctx, appends...)
}

// The echo of a call whose answer is lost comes when it likes: while the answer is
// still waited for, between the verdict that nobody knows and its record, and so that
// this verdict is recorded before the echo is. The change is told once, each time.
func TestAnEchoComesWhileTheAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(b *bundle, command func()){
		"before the verdict": func(b *bundle, command func()) {
			b.commands.Keycloak = keycloakThen{b.client, b.pull}
			command()
		},
		"before the verdict is recorded": func(b *bundle, command func()) {
			b.commands.Store = &storeBefore{Store: b.store, eventType: adapter.TypeApiCallOutcomeUnknown, then: b.pull}
			command()
		},
		"and is read before the verdict is recorded": func(b *bundle, command func()) {
			written, proceed, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			b.commands.Keycloak = keycloakThen{b.client, func() { close(written); <-proceed }}
			b.interp.Store = &storeBefore{Store: b.store, eventType: adapter.TypeApiCallEchoed, then: func() { close(proceed); <-done }}
			go func() { defer close(done); command() }()
			<-written
			b.pull()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var out outbound.Outcome
			run(b, func() {
				b.keycloak.Inject(keycloaktest.Fault{Method: http.MethodPost, Pattern: usersPath, DropAfter: true, Times: 1})
				out, _ = b.commands.CreateUser(b.ctx, "acme", outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("bob")}})
			})
			b.pull()
			created := b.call(out.CallID)
			require.Equal(t, adapter.CallSucceeded, created.Status)
			require.Equal(t, "echo", created.ResolvedBy)
			require.NotEmpty(t, created.UserID, "only the echo tells who was created")
			bob := adapter.UserStream("acme", created.UserID)
			require.Equal(t, []string{adapter.TypeUserApiCreated}, b.types(bob))

			run(b, func() {
				b.keycloak.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: userPath, DropAfter: true, Times: 1})
				out, _ = b.commands.UpdateUser(b.ctx, "acme", outbound.UserRef{ID: created.UserID}, adapter.Profile{LastName: adapter.Set("Stone")})
			})
			b.pull()
			require.Equal(t, adapter.CallSucceeded, b.call(out.CallID).Status)
			require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated}, b.types(bob))
		})
	}
}

func TestADeleteIsMatchedWithoutAStamp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	out, err := b.commands.DeleteUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.NoError(t, err)
	b.pull()
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDeleted}, b.types(adapter.UserStream("acme", bob)))
	require.Equal(t, "delete", b.call(out.CallID).Echo.MatchedBy)
}

// Whose user was named and not identified is found by the id that the fresh read
// brought, and by the name until that is recorded.
func TestADeleteByNameIsMatched(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	answer := b.keycloak.HoldAnswer(http.MethodDelete, userPath)
	done := make(chan outbound.Outcome, 1)
	go func() {
		out, err := b.commands.DeleteUser(b.ctx, "acme", outbound.UserRef{Username: "Bob"})
		if err != nil {
			b.t.Error(err)
		}
		done <- out
	}()
	<-answer.Arrived()
	b.pull() // before the outcome, and before the read that found the id, are recorded
	answer.Release()
	out := <-done
	require.Equal(t, bob, out.UserID)
	b.pull()
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDeleted}, b.types(adapter.UserStream("acme", bob)))
	c := b.call(out.CallID)
	require.Equal(t, "delete", c.Echo.MatchedBy)
	require.Equal(t, bob, c.UserID)

	// The next who has the name is somebody else.
	second := b.create("bob")
	b.pull()
	again, err := b.commands.DeleteUser(b.ctx, "acme", outbound.UserRef{Username: "bob"})
	require.NoError(t, err)
	b.pull()
	require.Equal(t, second, b.call(again.CallID).UserID)
	require.NotNil(t, b.call(again.CallID).Echo)
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDeleted}, b.types(adapter.UserStream("acme", second)))
}

// The echo may be interpreted before the command has recorded its outcome.
func TestAnEchoMayComeBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	answer := b.keycloak.HoldAnswer(http.MethodPut, userPath)
	type result struct {
		out outbound.Outcome
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
		done <- result{out, err}
	}()
	<-answer.Arrived()
	b.pull()
	answer.Release()
	r := <-done
	require.NoError(t, r.err)
	require.Equal(t, []string{adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled}, b.types(adapter.UserStream("acme", bob)))
	c := b.call(r.out.CallID)
	require.Equal(t, adapter.CallSucceeded, c.Status)
	require.NotNil(t, c.Echo)
}

func TestUpdatingAttributesKeepsTheRest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.realm.BehindOurBack(func(users map[string]*keycloaktest.User) {
		users[bob].LastName = "Stone"
		users[bob].Attributes = map[string][]string{"dept": {"ops"}, "floor": {"2"}}
	})
	_, err := b.commands.UpdateUser(b.ctx, "acme", outbound.UserRef{ID: bob}, adapter.Profile{
		FirstName: adapter.Set("Bob"), Attributes: adapter.Set(map[string][]string{"floor": nil}),
	})
	require.NoError(t, err)
	user, _ := b.realm.User(bob)
	require.Equal(t, "bob@example.com", user.Email)
	require.Equal(t, "Stone", user.LastName)
	require.Equal(t, "Bob", user.FirstName)
	_, err = b.commands.UpdateUser(b.ctx, "acme", outbound.UserRef{ID: bob}, adapter.Profile{LastName: adapter.Clear[string]()})
	require.NoError(t, err)
	user, _ = b.realm.User(bob)
	require.Empty(t, user.LastName)
}

func TestAnUnreachableKeycloakIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.keycloak.Close()
	out, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.Equal(t, adapter.CodeKeycloakUnreachable, adapter.CodeOf(err))
	c := b.call(out.CallID)
	require.Equal(t, adapter.CallFailed, c.Status)
	require.Equal(t, adapter.CodeKeycloakUnreachable, c.Code)
	require.Empty(t, c.Attempts, "the write was never tried")
	require.Len(t, c.PreconditionReads, 1)
	require.Len(t, c.PreconditionReads[0].Attempts, 4, "a refused connection is tried again")
}

// Secrets that pass through commands are in no event.
func TestSecretsAreInNoEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	_, err := b.commands.DisableUser(b.ctx, "acme", outbound.UserRef{ID: bob})
	require.NoError(t, err)
	b.pull()
	for e, err := range b.store.ReadLog(t.Context(), eventstore.LogQuery{}) {
		require.NoError(t, err)
		raw, err := json.Marshal([]json.RawMessage{e.Data, e.Metadata})
		require.NoError(t, err)
		for _, secret := range []string{"correct horse", "s3cret-of-the-client", "Bearer", "eyJ"} {
			require.NotContains(t, string(raw), secret, "%s holds %q", e.Type, secret)
		}
	}
}
