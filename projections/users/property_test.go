package users_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
	"github.com/keytrail/keytrail/projections/users"
)

// payload draws a user event.
func payload(t *rapid.T, user adapter.UserRef) adapter.UserPayload {
	word := rapid.SampledFrom([]string{"", "a", "B", "c@example.com", "é\x00"})
	optional := func(name string) adapter.Optional[string] {
		switch rapid.IntRange(0, 2).Draw(t, name+"?") {
		case 0:
			return adapter.Optional[string]{}
		case 1:
			return adapter.Clear[string]()
		default:
			return adapter.Set(word.Draw(t, name))
		}
	}
	profile := func() adapter.Profile {
		p := adapter.Profile{Username: optional("username"), Email: optional("email"), FirstName: optional("first name")}
		if rapid.Bool().Draw(t, "enabled?") {
			p.Enabled = adapter.Set(rapid.Bool().Draw(t, "enabled"))
		}
		if rapid.Bool().Draw(t, "attributes?") {
			p.Attributes = adapter.Set(rapid.MapOfN(word, rapid.SliceOfN(word, 0, 2), 0, 2).Draw(t, "attributes"))
		}
		return p
	}
	change := func() adapter.UserChange {
		c := adapter.UserChange{UserRef: user, Set: profile()}
		if rapid.Bool().Draw(t, "inferred?") {
			c.Inferred = []string{adapter.FieldAttributes}
		}
		return c
	}
	role := func() []adapter.Role {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) adapter.Role {
			return adapter.Role{Name: word.Draw(t, "role"), Client: rapid.SampledFrom([]string{"", "app"}).Draw(t, "client")}
		}), 0, 2).Draw(t, "roles")
	}
	switch rapid.IntRange(0, 9).Draw(t, "type") {
	case 0:
		return &adapter.UserApiCreated{UserChange: change(), Groups: []string{"/g"}}
	case 1:
		return &adapter.UserApiEnabled{UserChange: change()}
	case 2:
		return &adapter.UserApiDisabled{UserChange: change()}
	case 3:
		return &adapter.UserApiDeleted{UserRef: user}
	case 4:
		return &adapter.UserApiRolesChanged{UserRef: user, Added: role(), Removed: role()}
	case 5:
		return &adapter.UserApiGroupsChanged{UserRef: user, Joined: []adapter.Group{{Path: "/" + word.Draw(t, "joined")}}}
	case 6:
		return &adapter.UserApiObserved{UserRef: user, Present: rapid.Bool().Draw(t, "present"), Set: profile(), CreatedAt: &noon}
	case 7:
		return &adapter.UserApiCredentialsChanged{UserRef: user, Action: "password_reset"}
	case 8:
		return &adapter.UserApiBaselined{UserRef: user, Set: profile()}
	default:
		return &adapter.UserApiUpdated{UserChange: change()}
	}
}

// Whatever the order in which a user's events arrive, however they are cut into
// batches, and however often an append is repeated, the row is the fold of the events
// in the order in which they occurred.
func TestAnyArrivalGivesTheOrderedFold(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	projection := users.New(p.Store, p.Codec)
	q := users.NewQueries(p.DB)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		run++
		e := projections.New(p.DB, p.Store, p.Codec, projections.Options{BatchSize: rapid.IntRange(1, 5).Draw(t, "batch")})
		require.NoError(t, e.Register(projection))
		realm := fmt.Sprint("realm", run)
		streams := map[string][]adapter.Decoded{}
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			user := adapter.UserRef{Realm: realm, UserID: rapid.SampledFrom([]string{"u1", "u2"}).Draw(t, "user")}
			draft := adapter.Draft{
				ID: eventstore.NewID(), Payload: payload(t, user),
				// Few moments, so that events of one moment are common.
				OccurredAt: noon.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "second")) * time.Second),
				Meta:       adapter.Metadata{CorrelationID: eventstore.NewID(), Actor: &adapter.Actor{Type: adapter.ActorSystem}},
			}
			stream := adapter.UserStream(user.Realm, user.UserID)
			for range rapid.IntRange(1, 2).Draw(t, "deliveries") {
				_, err := p.TryAppend(ctx, stream, draft)
				require.NoError(t, err)
			}
			if rapid.Bool().Draw(t, "fold now") {
				catchUp(t, p, e)
			}
		}
		catchUp(t, p, e)
		for _, id := range []string{"u1", "u2"} {
			for event, err := range p.Store.ReadStream(ctx, adapter.UserStream(realm, id), eventstore.StreamQuery{}) {
				require.NoError(t, err)
				d, err := p.Codec.Decode(ctx, event)
				require.NoError(t, err)
				streams[id] = append(streams[id], d)
			}
			slices.Reverse(streams[id]) // FoldUser does not mind the order
			want, known := adapter.FoldUser(streams[id])
			got, ok, err := q.Get(ctx, realm, id)
			require.NoError(t, err)
			require.Equal(t, known, ok)
			require.Equal(t, asJSON(t, want), asJSON(t, got))
		}
	})
	for _, memory := range []int{0, 50_000, 1} { // all at once, in parts, and in as many parts as there can be
		e := p.Engine(t, projections.Options{BatchSize: 10, Memory: memory}, projection)
		p.RebuildEqualsIncremental(t, e, projection)
	}
}

func catchUp(t *rapid.T, p projectiontest.Process, e *projections.Engine) {
	head, err := p.Store.Head(context.Background())
	require.NoError(t, err)
	require.NoError(t, e.CatchUp(context.Background(), head))
}

func asJSON(t *rapid.T, u adapter.User) string {
	b, err := json.Marshal(u)
	require.NoError(t, err)
	return string(b)
}
