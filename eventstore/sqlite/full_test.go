package sqlite

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

// TestFullDisk: a database without room refuses an append in the contract's terms and
// records nothing of it, goes on being read, and takes it once there is room. SQLite
// itself says that it is full, at a limit on its pages.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := opened(t, migrated(t))
	_, err := s.Append(ctx, anAppend())
	require.NoError(t, err)
	var pages int
	require.NoError(t, s.WriteDB().QueryRowContext(ctx, `PRAGMA page_count`).Scan(&pages))
	limit := func(to int) {
		var now int
		require.NoError(t, s.WriteDB().QueryRowContext(ctx, fmt.Sprintf(`PRAGMA max_page_count = %d`, to)).Scan(&now))
		require.Equal(t, to, now)
	}
	limit(pages + 8)
	var refused eventstore.StreamAppend
	recorded := 1
	for {
		refused = anAppend()
		refused.Events[0].RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: make([]byte, 8<<10)}
		if _, err = s.Append(ctx, refused); err != nil {
			break
		}
		recorded++
		require.Less(t, recorded, 100, "the disk does not get full")
	}
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.ErrorContains(t, err, "full")
	head, err := s.Head(ctx)
	require.NoError(t, err)
	require.EqualValues(t, recorded, head)

	limit(pages + 1000)
	got, err := s.Append(ctx, refused)
	require.NoError(t, err)
	require.EqualValues(t, recorded+1, got[0].Position)
}
