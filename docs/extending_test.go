// Tests of what the documentation promises.

package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/docs/example/logins"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(b)
}

// The code on the page is the example's, whole and in its order.
func TestThePageShowsTheExample(t *testing.T) {
	t.Parallel()
	page := read(t, "extending.md")
	var parts []string
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page, -1) {
		parts = append(parts, block[1])
	}
	require.Equal(t, read(t, "example/logins/logins.go"), strings.Join(parts, "\n"))
}

// What the page says of the registration is so: a line of the kind that registers the
// projections that there are.
func TestThePageShowsTheRegistration(t *testing.T) {
	t.Parallel()
	page, wiring := read(t, "extending.md"), read(t, "../internal/app/app.go")
	diff := regexp.MustCompile("(?s)```diff\n (.*?)\n\\+(.*?)\n```").FindStringSubmatch(page)
	require.NotNil(t, diff)
	require.Contains(t, wiring, diff[1]+"\n", "the line after which it goes")
	require.Equal(t, strings.Replace(diff[1], "reconciliations", "logins", 1), diff[2])
}

// Links lead somewhere.
func TestThePagesLinksAreFiles(t *testing.T) {
	t.Parallel()
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(read(t, "extending.md"), -1) {
		_, err := os.Stat(link[1])
		require.NoError(t, err)
	}
}

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

func TestTheExampleRuns(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		a := struct{ Engine *projections.Engine }{p.Engine(t, projections.Options{BatchSize: 2})}
		require.NoError(t, a.Engine.Register(logins.New()))
		report := func(minute int, kind, user string) {
			p.Append(t, adapter.DeliveryStream(uuid.NewString()), adapter.Draft{
				Payload:    &adapter.UserEventReceived{Realm: "acme", Type: kind, UserID: user},
				OccurredAt: noon.Add(time.Duration(minute) * time.Minute),
			})
		}
		report(1, "LOGIN", "u1")
		report(5, "LOGIN", "u1")
		report(6, "LOGOUT", "u1")
		report(7, "LOGIN", "u2\x00")
		p.CatchUp(t, a.Engine)
		report(3, "LOGIN", "u1") // late
		p.CatchUp(t, a.Engine)

		q := logins.NewQueries(p.DB)
		last, n, ok, err := q.Last(t.Context(), "acme", "u1")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, noon.Add(5*time.Minute), last)
		require.EqualValues(t, 3, n)
		_, n, _, err = q.Last(t.Context(), "acme", "u2\x00")
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		_, _, ok, err = q.Last(t.Context(), "acme", "u3")
		require.NoError(t, err)
		require.False(t, ok)
		p.RebuildEqualsIncremental(t, a.Engine, logins.New())
	})
}
