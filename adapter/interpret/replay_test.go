package interpret_test

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bundle is a store with a recorder and an interpreter on it.
type bundle struct {
	t        testing.TB
	store    *sqlite.Store
	codec    *adapter.Codec
	recorder *inbound.Recorder
	interp   *interpret.Interpreter
	read     eventstore.Position
}

func setup(t testing.TB) *bundle {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	codec := adapter.NewCodec(seal.Plain{})
	return &bundle{
		t: t, store: store, codec: codec,
		recorder: &inbound.Recorder{Store: store, Codec: codec, Clock: time.Now},
		interp:   &interpret.Interpreter{Store: store, Codec: codec, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)},
	}
}

func (b *bundle) record(batch ...webhook.Delivery) []inbound.Receipt {
	b.t.Helper()
	receipts, err := b.recorder.Record(b.t.Context(), inbound.Origin{Source: "keycloak"}, batch)
	require.NoError(b.t, err)
	return receipts
}

// interpret reads everything new in the log.
func (b *bundle) interpret() {
	b.t.Helper()
	b.read = b.interpretFrom(b.read)
}

func (b *bundle) interpretFrom(after eventstore.Position) eventstore.Position {
	b.t.Helper()
	var batch []adapter.Decoded
	for e, err := range b.store.ReadLog(b.t.Context(), eventstore.LogQuery{After: after, Types: b.interp.Types()}) {
		require.NoError(b.t, err)
		d, err := b.codec.Decode(b.t.Context(), e)
		require.NoError(b.t, err)
		batch = append(batch, d)
		after = e.Position
	}
	require.NoError(b.t, b.interp.Handle(b.t.Context(), batch))
	return after
}

func (b *bundle) events(stream eventstore.StreamID) []adapter.Decoded {
	b.t.Helper()
	var events []adapter.Decoded
	for e, err := range b.store.ReadStream(b.t.Context(), stream, eventstore.StreamQuery{}) {
		require.NoError(b.t, err)
		d, err := b.codec.Decode(b.t.Context(), e)
		require.NoError(b.t, err)
		events = append(events, d)
	}
	return events
}

func (b *bundle) types(stream eventstore.StreamID) []string {
	var types []string
	for _, e := range b.events(stream) {
		types = append(types, e.Type)
	}
	return types
}

func (b *bundle) user(realm, id string) adapter.User {
	b.t.Helper()
	u, ok := adapter.FoldUser(b.events(adapter.UserStream(realm, id)))
	require.True(b.t, ok, "nothing is known of user %s", id)
	return u
}

// session is what a real Keycloak 26.7.3 with p2 0.59 pushed while a script worked
// through everything that concerns a user; see keycloak/webhook/testdata.
func session(t *testing.T) []webhook.Delivery {
	t.Helper()
	f, err := os.Open("testdata/deliveries.jsonl")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	source := inbound.Source{Secrets: []string{"whsec-dev"}, Algorithm: webhook.HMACSHA256}
	var deliveries []webhook.Delivery
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l struct {
			Headers map[string]string
			Body    string
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &l))
		h := http.Header{}
		h.Set(inbound.SignatureHeader, l.Headers[inbound.SignatureHeader])
		require.True(t, source.Verify(h, []byte(l.Body)), "the recorded signature is genuine")
		batch, err := webhook.Decode([]byte(l.Body), webhook.DialectAuto)
		require.NoError(t, err)
		deliveries = append(deliveries, batch...)
	}
	require.NoError(t, lines.Err())
	require.Len(t, deliveries, 47)
	return deliveries
}

// Ids of the recorded session.
const (
	bob  = "af9ddb90-f4e1-4e97-8e79-0075c2ea46c0"
	svc1 = "194e7927-6705-497e-8d9b-370ffbf249e0"
	eve  = "6a9121e7-c721-40f0-a025-855e3a0ba9d8"
	imp1 = "700f770a-a65f-4c90-a589-98108611fafe"
	imp2 = "b45ee4d2-c3c6-4cf3-8ac1-72f9c000dda8"
)

func ptr[T any](v T) *T { return &v }

// checkSession compares the folded users with what the script did.
func checkSession(t *testing.T, b *bundle) {
	t.Helper()
	u := b.user("acme", bob)
	require.True(t, u.Deleted, "bob was deleted at the end, not when his identity provider was unlinked")
	require.Equal(t, time.UnixMilli(1795413930778).UTC(), u.DeletedAt.UTC())
	require.Equal(t, "bob2", u.Username)
	require.Equal(t, ptr("Robert"), u.FirstName)
	require.Equal(t, ptr("Stone"), u.LastName)
	require.Equal(t, ptr("bob@example.com"), u.Email)
	require.True(t, u.Enabled)
	require.Equal(t, []string{"UPDATE_PASSWORD"}, u.RequiredActions)
	require.Equal(t, map[string][]string{"dept": {"ops"}}, u.Attributes)
	// The role temp and the group tmpg were deleted while bob had them: Keycloak tells
	// that of the role and the group, and not of bob.
	require.Equal(t, []string{"auditor", "temp"}, u.Roles)
	require.Equal(t, []string{"/staff", "/tmpg"}, u.Groups)
	require.Empty(t, u.ClientRoles)
	require.Equal(t, "8091aea8-bdef-4284-99a8-c436499fcd79", u.CreatedBy.ID)

	svc := b.user("acme", svc1)
	require.True(t, svc.Deleted)
	require.False(t, svc.Enabled)

	e := b.user("acme", eve)
	require.Equal(t, "eve", e.Username)
	require.Equal(t, ptr("Evelyn"), e.FirstName)
	require.Equal(t, ptr("Form"), e.LastName)
	require.Equal(t, ptr("eve2@example.com"), e.Email)
	require.True(t, e.Enabled)
	require.False(t, e.Deleted)

	i1, i2 := b.user("acme", imp1), b.user("acme", imp2)
	require.Equal(t, "imp1", i1.Username)
	require.True(t, i1.Enabled)
	require.Equal(t, "imp2", i2.Username)
	require.False(t, i2.Enabled)
}

func TestReplayOfARealSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, d := range session(t) {
		b.record(d)
		b.interpret()
	}
	checkSession(t, b)
	// Names of actors are in the push only.
	require.Equal(t, "admin", b.user("acme", bob).CreatedBy.Username)
	require.Equal(t, adapter.ActorServiceAccount, b.user("acme", svc1).CreatedBy.Type)
	require.Equal(t, []string{
		adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiDisabled, adapter.TypeUserApiEnabled,
		adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged,
		adapter.TypeUserApiGroupsChanged, adapter.TypeUserApiGroupsChanged, adapter.TypeUserApiGroupsChanged,
		adapter.TypeUserApiCredentialsChanged, adapter.TypeUserApiCredentialsChanged,
		adapter.TypeUserApiUpdated, adapter.TypeUserApiSessionsEnded,
		adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiOrganizationsChanged,
		adapter.TypeUserApiFederatedIdentityChanged, adapter.TypeUserApiFederatedIdentityChanged,
		adapter.TypeUserApiRolesChanged, adapter.TypeUserApiGroupsChanged,
		adapter.TypeUserApiUpdated, adapter.TypeUserApiDeleted,
	}, b.types(adapter.UserStream("acme", bob)))

	first := b.events(adapter.UserStream("acme", bob))[0]
	delivery := b.events(adapter.DeliveryStream("fd6e8314-b821-470f-8cbf-f7343d983eb3"))[0]
	require.Equal(t, delivery.ID, first.CausationID, "a user event names its delivery as its cause")
	require.Equal(t, delivery.CorrelationID, first.CorrelationID, "and belongs to the same story")
}

// Deliveries come late, twice and in any order, and are interpreted in any portions:
// the users are the same.
func TestReplayInAnyOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		b := setup(t)
		random := rand.New(rand.NewPCG(seed, 1))
		deliveries := session(t)
		deliveries = append(deliveries, deliveries[:20]...)
		random.Shuffle(len(deliveries), func(i, j int) { deliveries[i], deliveries[j] = deliveries[j], deliveries[i] })
		for len(deliveries) > 0 {
			n := 1 + random.IntN(min(7, len(deliveries)))
			b.record(deliveries[:n]...)
			deliveries = deliveries[n:]
			if random.IntN(2) == 0 {
				b.interpret()
			}
		}
		b.interpret()
		checkSession(t, b)
	}
}

// A consumer that died before its checkpoint reads everything again.
func TestInterpretingAgainAddsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.record(session(t)...)
	b.interpret()
	head, err := b.store.Head(t.Context())
	require.NoError(t, err)
	b.interpretFrom(0)
	again, err := b.store.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, head, again)
	checkSession(t, b)
}

// What was pushed is pulled too: each event is one delivery, and the pull adds
// nothing to the users.
func TestPushAndPullMerge(t *testing.T) {
	t.Parallel()
	for _, pullFirst := range []bool{false, true} {
		b := setup(t)
		pull := func() {
			for file, decode := range map[string]func([]byte) (webhook.Delivery, error){
				"testdata/admin-events.json": webhook.DecodeAdminEvent, "testdata/events.json": webhook.DecodeUserEvent,
			} {
				raw, err := os.ReadFile(file)
				require.NoError(t, err)
				var list []json.RawMessage
				require.NoError(t, json.Unmarshal(raw, &list))
				for _, one := range list {
					d, err := decode(one)
					require.NoError(t, err)
					_, err = b.recorder.Record(t.Context(), inbound.Origin{Source: inbound.SourcePoll, Realm: "acme"}, []webhook.Delivery{d})
					require.NoError(t, err)
				}
			}
		}
		if pullFirst {
			pull()
			b.interpret()
		}
		b.record(session(t)...)
		if !pullFirst {
			pull()
		}
		b.interpret()
		received := 0
		for e, err := range b.store.ReadLog(context.WithoutCancel(t.Context()), eventstore.LogQuery{Category: adapter.CategoryDelivery}) {
			require.NoError(t, err)
			switch e.Type {
			case adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived:
				received++
			case adapter.TypeDeliveryConfirmed:
				d, err := b.codec.Decode(t.Context(), e)
				require.NoError(t, err)
				require.Empty(t, d.Payload.(*adapter.DeliveryConfirmed).Differs, "push and pull never contradict each other")
				require.True(t, pullFirst, "the pull knows nothing that the push did not say: %s", e.Data)
			}
		}
		// The pull brings one that was never pushed: a login from before the webhook was
		// registered.
		require.Equal(t, 48, received)
		checkSession(t, b)
	}
}
