package trace

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Whatever events claim about their causes and times, the tree tells each once,
// after its parent, and the same way whatever the order in which they came.
func TestTreeOfAnyEvents(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 30).Draw(t, "events")
		ids := make([]uuid.UUID, n)
		for i := range ids {
			ids[i] = id("event " + string(rune('a'+i)))
		}
		events := make([]adapter.View, n)
		for i := range events {
			call := id("call " + string(rune('a'+rapid.IntRange(0, 3).Draw(t, "call"))))
			v := adapter.View{
				EventID: ids[i], Position: eventstore.Position(i + 1), Stream: adapter.CallStream(call).String(),
				OccurredAt: start.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "ms")) * time.Millisecond),
			}
			anyEvent := rapid.IntRange(0, n-1)
			if rapid.Bool().Draw(t, "caused") {
				v.CausationID = &ids[anyEvent.Draw(t, "cause")]
			}
			if rapid.Bool().Draw(t, "linked") {
				v.Metadata.Links = []adapter.Link{{EventID: ids[anyEvent.Draw(t, "link")], Relation: "merge"}}
			}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				v.Data = &adapter.ApiCallRequested{CallID: call}
			case 1:
				v.Data = &adapter.ApiCallEchoed{CallID: call, Echo: adapter.Echo{DeliveryEventID: ids[anyEvent.Draw(t, "delivery")]}}
			case 2:
				v.Stream = "user/acme/x"
				v.Data = &adapter.UserApiDeleted{}
			default:
				v.Stream = "delivery/" + ids[i].String()
				v.Data = &adapter.AdminEventReceived{}
			}
			events[i] = v
		}
		tree := newTree(events)
		ordered := tree.inOrder()
		require.Len(t, ordered, n)
		place := map[uuid.UUID]int{}
		for i, v := range ordered {
			place[v.EventID] = i
		}
		told := map[uuid.UUID]bool{}
		tree.walk(func(node *node) {
			require.False(t, told[node.EventID])
			told[node.EventID] = true
			if node.parent != nil {
				require.True(t, told[node.parent.EventID])
				require.Less(t, place[node.parent.EventID], place[node.EventID])
			}
		})
		require.Len(t, told, n)

		shuffled := rapid.Permutation(events).Draw(t, "shuffled")
		require.Equal(t, ordered, newTree(shuffled).inOrder())
	})
}
