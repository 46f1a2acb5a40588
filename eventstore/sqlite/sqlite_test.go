package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	p := filepath.Join(t.TempDir(), "a b?.db")
	_, err := Open(ctx, p, Options{})
	var se *eventstore.SchemaError
	require.ErrorAs(t, err, &se)
	require.NoError(t, Migrate(ctx, p))
	require.NoError(t, Migrate(ctx, p))
	s, err := Open(ctx, p, Options{})
	require.NoError(t, err)
	ev, err := s.Append(ctx, eventstore.StreamAppend{Stream: eventstore.NamedStream("user", "a", "b"), Events: []eventstore.NewEvent{{ID: eventstore.NewID(), Type: "x", Data: []byte(`{"a": 1}`), Metadata: []byte(`{}`), OccurredAt: time.Now()}}})
	require.NoError(t, err)
	for e, err := range s.ReadLog(ctx, eventstore.LogQuery{Types: []string{"x", "y"}, Category: "user"}) {
		require.NoError(t, err)
		require.Equal(t, ev[0], e)
	}
	require.NoError(t, s.Ping(ctx))
	require.NoError(t, s.Close())
}
