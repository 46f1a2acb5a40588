package inbound_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// olderSession is what a real Keycloak 26.1.4 lists, newest first and without ids,
// oldest first.
func olderSession(t *testing.T) []json.RawMessage {
	t.Helper()
	raw, err := os.ReadFile("../../keycloak/webhook/testdata/real/keycloak-26.1.4/admin-events.json")
	require.NoError(t, err)
	var listed []json.RawMessage
	require.NoError(t, json.Unmarshal(raw, &listed))
	require.Equal(t, 35, len(listed)) //nolint:testifylint // Len prints all of it
	slices.Reverse(listed)
	return listed
}

// pushOf is the push of a listed event as p2 makes it: with an id, and with what only
// the push tells. Older senders name the realm only and have no id but the sender's.
func pushOf(t *testing.T, listed json.RawMessage, id string, older bool) string {
	t.Helper()
	var e map[string]any
	require.NoError(t, json.Unmarshal(listed, &e))
	e["type"] = fmt.Sprintf("admin.%s-%s", e["resourceType"], e["operationType"])
	auth, ok := e["authDetails"].(map[string]any)
	require.True(t, ok)
	auth["realmId"], auth["username"] = "master", "admin"
	details, _ := e["details"].(map[string]any)
	if details == nil {
		details = map[string]any{}
	}
	details["userId"] = "1"
	e["uid"], e["details"] = "uid-"+id, details
	if older {
		e["realmId"] = "acme"
	} else {
		e["id"], e["realmName"] = id, "acme"
	}
	body, err := json.Marshal(e)
	require.NoError(t, err)
	return string(body)
}

func (b *bundle) push(body string) inbound.Receipt {
	b.t.Helper()
	receipts, err := b.recorder.Record(b.t.Context(), inbound.Origin{Source: "keycloak"}, decode(b.t, body))
	require.NoError(b.t, err)
	return receipts[0]
}

func (b *bundle) pull(listed ...json.RawMessage) (fresh int) {
	b.t.Helper()
	batch := make([]webhook.Delivery, 0, len(listed))
	for _, raw := range listed {
		d, err := webhook.DecodeAdminEvent(raw)
		require.NoError(b.t, err)
		batch = append(batch, d)
	}
	receipts, err := b.recorder.Record(b.t.Context(), inbound.Origin{Source: inbound.SourcePoll, Realm: "acme"}, batch)
	require.NoError(b.t, err)
	for _, r := range receipts {
		if !r.Duplicate {
			fresh++
		}
	}
	return fresh
}

// What Keycloak 26.1 lists has no id. Pushed and pulled in any order, again and again,
// every event is one delivery.
func TestPushAndPullWithoutIDsAreOneDelivery(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 6))
		b := setup(t)
		older := seed%3 == 2
		listed := olderSession(t)
		// The same change twice in a millisecond is two events.
		listed = append(listed, listed[len(listed)-1], listed[len(listed)-1])
		if older {
			b.pull(listed[0]) // tells which realm is called acme
		}
		receipts := map[int]inbound.Receipt{}
		for range 2 * len(listed) {
			if random.IntN(12) == 0 {
				b.pull(listed[:random.IntN(len(listed)+1)]...)
				if random.IntN(4) == 0 { // a restart forgets everything
					b.recorder = &inbound.Recorder{Store: b.store, Codec: b.codec, Clock: time.Now}
					b.pull(listed[0])
				}
				continue
			}
			i := random.IntN(len(listed))
			r := b.push(pushOf(t, listed[i], fmt.Sprint("e", i), older))
			if first, ok := receipts[i]; ok {
				require.True(t, r.Duplicate, "a repeated push")
				require.Equal(t, first.DeliveryID, r.DeliveryID)
			}
			receipts[i] = r
		}
		b.pull(listed...)
		require.Len(t, b.received(), len(listed), "seed %d", seed)
		require.Zero(t, b.pull(listed...))
		for i := range listed {
			b.push(pushOf(t, listed[i], fmt.Sprint("e", i), older))
		}
		require.Len(t, b.received(), len(listed), "seed %d", seed)
		streams := map[string]bool{}
		for _, r := range receipts {
			require.False(t, streams[r.DeliveryID.String()], "no two events are one delivery")
			streams[r.DeliveryID.String()] = true
		}
	}
}

// A pull of a realm that does not store representations is the same event.
func TestAPullWithoutRepresentationsIsMerged(t *testing.T) {
	t.Parallel()
	for _, pullFirst := range []bool{false, true} {
		b := setup(t)
		listed := json.RawMessage(fmt.Sprintf(`{"time":%d,"realmId":"be4c761c-6cac-427b-bcdb-6cb733831e2a","operationType":"CREATE","resourceType":"USER",`+
			`"resourcePath":"users/e1","authDetails":{"realmId":"m","clientId":"c1","userId":"a1","ipAddress":"127.0.0.1"}}`, start.UnixMilli()))
		if pullFirst {
			require.Equal(t, 1, b.pull(listed))
		}
		r := b.push(pushed("e1", start))
		require.Equal(t, pullFirst, r.Duplicate)
		if !pullFirst {
			require.Zero(t, b.pull(listed))
		}
		require.Len(t, b.received(), 1)
	}
}

// The push that comes second leaves its id, and what else only it knows.
func TestAPushAfterAPullWithoutIDsConfirmsIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	listed := olderSession(t)[:1]
	require.Equal(t, 1, b.pull(listed...))
	for _, duplicate := range []bool{true, true} {
		require.Equal(t, duplicate, b.push(pushOf(t, listed[0], "e", false)).Duplicate)
	}
	first := b.received()[0]
	events, err := b.codec.ReadStream(t.Context(), b.store, first.Stream)
	require.NoError(t, err)
	require.Len(t, events, 2)
	confirmed := events[1].Payload.(*adapter.DeliveryConfirmed)
	require.Empty(t, confirmed.Differs)
	require.JSONEq(t, `"e"`, string(confirmed.Added["keycloak_event_id"]))
	require.JSONEq(t, `"admin"`, string(confirmed.Added["actor.username"]))
}

// versionsAsked counts the streams whose versions are asked for.
type versionsAsked struct {
	inbound.Store
	streams *int
}

func (v versionsAsked) Versions(ctx context.Context, streams ...eventstore.StreamID) (map[uuid.UUID]eventstore.Version, error) {
	*v.streams += len(streams)
	return v.Store.Versions(ctx, streams...)
}

// Where the server lists ids, as since 26.2, nothing is compared by its content.
func TestAServerThatListsIDsPaysNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	asked := 0
	b.recorder.Store = versionsAsked{b.store, &asked}
	l, m := &listed{}, &marks{at: map[string]time.Time{}}
	l.add("e1", start)
	_, err := b.poller(l, m).Poll(t.Context(), "acme")
	require.NoError(t, err)
	asked = 0
	b.push(pushed("e2", start))
	require.Equal(t, 1, asked)

	// One that goes back to an older server is noticed.
	l.legacy = true
	_, err = b.poller(l, m).Poll(t.Context(), "acme")
	require.NoError(t, err)
	require.True(t, b.push(pushed("e1", start)).Duplicate)
	require.Len(t, b.received(), 2)
	asked = 0
	b.push(pushed("e3", start))
	require.Equal(t, 3, asked)
}

// After an upgrade to 26.2 the same events are listed again, with ids.
func TestAnUpgradeRecordsNothingTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, m := &listed{legacy: true}, &marks{at: map[string]time.Time{}}
	l.add("e1", start)
	l.add("e2", start)
	poller := b.poller(l, m)
	_, err := poller.Poll(t.Context(), "acme")
	require.NoError(t, err)
	l.legacy = false
	for range 2 {
		_, err = poller.Poll(t.Context(), "acme")
		require.NoError(t, err)
	}
	require.Len(t, b.received(), 2)
}
