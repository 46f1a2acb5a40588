package newid_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/newid"
)

// Not parallel: it replaces the ids of the whole process.
func TestReplace(t *testing.T) {
	n := byte(0)
	restore := newid.Replace(func() uuid.UUID {
		n++
		return uuid.UUID{15: n}
	})
	require.Equal(t, uuid.UUID{15: 1}, newid.New())
	require.Equal(t, uuid.UUID{15: 2}, newid.New())
	restore()
	require.EqualValues(t, 7, newid.New().Version())
}
