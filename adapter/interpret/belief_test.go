package interpret

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

var (
	someone = adapter.UserRef{Realm: "acme", UserID: "1"}
	epoch   = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
)

// anyEvent draws the next event of a user's stream: late or not, and about anything
// that may concern what is believed.
func anyEvent(t *rapid.T, version int) adapter.Decoded {
	var set adapter.Profile
	if rapid.Bool().Draw(t, "says") {
		set.Enabled = adapter.Set(rapid.Bool().Draw(t, "enabled"))
	}
	set.FirstName = adapter.Set(fmt.Sprint("name ", version))
	change := adapter.UserChange{UserRef: someone, Set: set}
	payload := rapid.SampledFrom([]adapter.UserPayload{
		&adapter.UserApiCreated{UserChange: change}, &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: someone}, Partial: true},
		&adapter.UserApiUpdated{UserChange: change}, &adapter.UserApiEnabled{UserChange: change}, &adapter.UserApiDisabled{UserChange: change},
		&adapter.UserApiDeleted{UserRef: someone}, &adapter.UserApiObserved{UserRef: someone, Present: true, Complete: true, Set: set},
		&adapter.UserApiObserved{UserRef: someone}, &adapter.UserApiBaselined{UserRef: someone, Set: set},
		&adapter.UserApiCredentialsChanged{UserRef: someone, Action: actionPasswordUpdated},
	}).Draw(t, "payload")
	return adapter.Decoded{Payload: payload, Event: eventstore.Event{
		ID: uuid.NewSHA1(uuid.Nil, []byte{byte(version), rapid.Byte().Draw(t, "id")}), Type: payload.EventType(), Version: eventstore.Version(version),
		OccurredAt:  epoch.Add(time.Duration(rapid.IntRange(0, 40_000).Draw(t, "ms")) * time.Millisecond),
		CausationID: uuid.NewSHA1(uuid.Nil, []byte{byte(rapid.IntRange(0, 5).Draw(t, "delivery"))}),
	}}
}

// What is believed after each event is what the fold of the whole stream says.
func TestABeliefIsTheFoldOfTheStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var b belief
		var events []adapter.Decoded
		for version := range rapid.IntRange(1, 60).Draw(t, "events") {
			e := anyEvent(t, version+1)
			events = append(events, e)
			b.add(e)
			u, _ := adapter.FoldUser(events)
			require.Equal(t, u.Known(adapter.FieldEnabled), b.known)
			if b.known {
				require.Equal(t, u.Enabled, b.enabled)
			}
			require.Equal(t, u.Version, b.version)
			require.LessOrEqual(t, len(b.passwords), maxPasswords)

			d := anyEvent(t, 0)
			told := false
			for _, e := range events {
				c, ok := passwordChangeOf(e)
				told = told || (ok && c.same(d))
			}
			if got, sure := b.told(d); sure {
				require.Equal(t, told, got)
			}
		}
	})
}

// noEvents is a store of nothing.
type noEvents struct{ Store }

func (noEvents) ReadStream(context.Context, eventstore.StreamID, eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(func(eventstore.Event, error) bool) {}
}

func TestBeliefsAreBounded(t *testing.T) {
	t.Parallel()
	i := &Interpreter{Store: noEvents{}}
	user := func(n int) adapter.UserRef { return adapter.UserRef{Realm: "acme", UserID: fmt.Sprint(n)} }
	believe := func(n int) { require.NoError(t, i.believe(t.Context(), user(n), func(*belief) {})) }
	for n := range maxBeliefs {
		believe(n)
	}
	believe(0) // used last, so it stays
	believe(maxBeliefs)
	require.Len(t, i.beliefs.byUser, maxBeliefs)
	require.Equal(t, maxBeliefs, i.beliefs.recent.Len())
	require.Contains(t, i.beliefs.byUser, user(0))
	require.NotContains(t, i.beliefs.byUser, user(1))
}
