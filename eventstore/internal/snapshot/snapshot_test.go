package snapshot

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

func row(v eventstore.Version) Row {
	r := Row{Snapshot: eventstore.Snapshot{
		Stream: eventstore.NamedStream("user", "acme", "1"), Version: v, Shape: "user/1", State: []byte(`{"n":1}`),
	}, StreamVersion: 10}
	r.Digest = Digest(r.Snapshot)
	return r
}

func TestWhatCannotBeUsedIsPassedOverAndSaidOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	damaged, ahead, text := row(9), row(11), row(8)
	damaged.State = []byte(`{"n":2}`)
	text.State = []byte(`nothing`)
	text.Digest = Digest(text.Snapshot)
	var c Chooser
	for range 3 {
		got, ok := c.First(t.Context(), log, []Row{ahead, damaged, text, row(7), row(6)})
		require.True(t, ok)
		require.EqualValues(t, 7, got.Version)
	}
	require.Equal(t, 3, strings.Count(out.String(), "level=WARN"), out.String())
	for _, reason := range []string{"its digest does not fit", "has not reached its version", "is not JSON"} {
		require.Equal(t, 1, strings.Count(out.String(), reason))
	}
	require.NotContains(t, out.String(), "nothing", "states hold personal data")
	_, ok := c.First(t.Context(), log, []Row{damaged})
	require.False(t, ok)
}

func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	var c Chooser
	log := slog.New(slog.DiscardHandler)
	for v := range 2 * maxReported {
		c.First(t.Context(), log, []Row{row(eventstore.Version(v + 11))})
	}
	require.Len(t, c.reported, maxReported)
}

func TestDigestTellsEveryPartApart(t *testing.T) {
	t.Parallel()
	s := row(7).Snapshot
	seen := map[string]bool{Digest(s): true}
	for _, change := range []func(*eventstore.Snapshot){
		func(s *eventstore.Snapshot) { s.Version++ },
		func(s *eventstore.Snapshot) {
			s.Shape, s.Stream = "user/1u", eventstore.StoredStream("ser/acme/1", s.Stream.AggregateID())
		},
		func(s *eventstore.Snapshot) {
			s.Stream = eventstore.StoredStream(s.Stream.String(), eventstore.NewID())
		},
		func(s *eventstore.Snapshot) { s.State = []byte(`{"n":1} `) },
	} {
		changed := s
		change(&changed)
		require.False(t, seen[Digest(changed)])
		seen[Digest(changed)] = true
	}
}
