package projections_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/projections"
)

func TestCursors(t *testing.T) {
	t.Parallel()
	var a, b string
	require.NoError(t, projections.ReadCursor(projections.Cursor("2026-05-01", "ada"), &a, &b))
	require.Equal(t, []string{"2026-05-01", "ada"}, []string{a, b})
	for _, bad := range []string{"x", "%", projections.Cursor("one"), projections.Cursor("1", "2", "3"), "eyJ4IjoxfQ", "bnVsbA"} {
		err := projections.ReadCursor(bad, &a, &b)
		require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err), bad)
		require.EqualError(t, err, "the cursor is not one that this list gave", "without words of the decoder's")
	}
}
