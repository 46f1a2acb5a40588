package users_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
	"github.com/keytrail/keytrail/projections/users"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

func ref(id string) adapter.UserRef { return adapter.UserRef{Realm: "acme", UserID: id} }

func created(id, name, email string) *adapter.UserApiCreated {
	return &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref(id), Set: adapter.Profile{
		Username: adapter.Set(name), Email: adapter.Set(email), Enabled: adapter.Set(true),
	}}}
}

func updated(id string, set adapter.Profile) *adapter.UserApiUpdated {
	return &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: ref(id), Set: set}}
}

func TestFoldsAndAnswers(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := users.New(p.Store, p.Codec)
		e := p.Engine(t, projections.Options{BatchSize: 3}, projection)
		require.NoError(t, e.Setup(t.Context()))
		q := users.NewQueries(p.DB)

		_, ok, err := q.Get(t.Context(), "acme", "u1")
		require.NoError(t, err)
		require.False(t, ok)

		p.AppendUser(t, noon, created("u1", "Alice", "Alice@example.com"))
		p.AppendUser(t, noon, created("u2", "bob", "bob@example.com"))
		p.CatchUp(t, e)
		// Late: it occurred before what is folded already.
		p.AppendUser(t, noon.Add(2*time.Hour), updated("u1", adapter.Profile{FirstName: adapter.Set("Alice")}))
		p.CatchUp(t, e)
		p.AppendUser(t, noon.Add(time.Hour), updated("u1", adapter.Profile{FirstName: adapter.Set("Late"), LastName: adapter.Set("100%_\\")}))
		p.AppendUser(t, noon.Add(time.Hour), &adapter.UserApiDeleted{UserRef: ref("u2")})
		p.AppendUser(t, noon.Add(2*time.Hour), created("u3", "bob", "nul\x00@example.com"))
		p.CatchUp(t, e)

		u, ok, err := q.Get(t.Context(), "acme", "u1")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "alice", u.Username)
		require.Equal(t, "Alice", *u.FirstName)
		require.Equal(t, "100%_\\", *u.LastName)
		require.EqualValues(t, 3, u.Version)

		u, ok, err = q.ByUsername(t.Context(), "acme", "BOB", false)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "u3", u.ID)
		found, err := q.Find(t.Context(), "u2")
		require.NoError(t, err)
		require.Len(t, found, 1)
		found, err = q.Find(t.Context(), "Bob", "other", "acme")
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, "u3", found[0].ID)
		found, err = q.Find(t.Context(), "bob", "other")
		require.NoError(t, err)
		require.Empty(t, found)

		for name, test := range map[string]struct {
			filter users.Filter
			want   []string
		}{
			"all":         {users.Filter{}, []string{"u1", "u2", "u3"}},
			"realm":       {users.Filter{Realm: "none"}, nil},
			"username":    {users.Filter{Username: "BOB"}, []string{"u2", "u3"}},
			"email":       {users.Filter{Email: "ALICE@example.com"}, []string{"u1"}},
			"deleted":     {users.Filter{Deleted: new(true)}, []string{"u2"}},
			"not deleted": {users.Filter{Deleted: new(false), Enabled: new(true)}, []string{"u1", "u3"}},
			"search":      {users.Filter{Search: "0%_\\"}, []string{"u1"}},
			"no wildcard": {users.Filter{Search: "a%e"}, nil},
		} {
			var got []string
			cursor := ""
			for {
				page, next, err := q.List(t.Context(), test.filter, 1, cursor)
				require.NoError(t, err, name)
				for _, u := range page {
					got = append(got, u.ID)
				}
				if next == "" {
					break
				}
				cursor = next
			}
			require.Equal(t, test.want, got, name)
			n, err := q.Count(t.Context(), test.filter)
			require.NoError(t, err)
			require.Len(t, test.want, n, name)
		}
		_, _, err = q.List(t.Context(), users.Filter{}, 1, "nonsense")
		require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err))

		p.RebuildEqualsIncremental(t, e, projection)
		p.RebuildEqualsIncremental(t, e, projection)
	})
}

func TestEachReadsAllPages(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	e := p.Engine(t, projections.Options{}, users.New(p.Store, p.Codec))
	const n = users.MaxLimit + 1
	for i := range n {
		p.AppendUser(t, noon, created(fmt.Sprint(i), fmt.Sprintf("user%d", n-i), ""))
	}
	p.CatchUp(t, e)
	seen := map[string]bool{}
	require.NoError(t, users.NewQueries(p.DB).Each(t.Context(), "acme", func(u adapter.User) error {
		seen[u.ID] = true
		return nil
	}))
	require.Len(t, seen, n)
}
