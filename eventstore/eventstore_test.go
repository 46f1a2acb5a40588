package eventstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/eventstore"
)

// Aggregate ids and derived ids are in databases: these values must never change.
func TestIDsAreFixedForEver(t *testing.T) {
	t.Parallel()
	for want, stream := range map[string]eventstore.StreamID{
		"user/acme/6a9121e7-c721-40f0-a025-855e3a0ba9d8 64cf7d1d-b829-5300-b1a7-6feaa9370892": eventstore.NamedStream("user", "acme", "6a9121e7-c721-40f0-a025-855e3a0ba9d8"),
		"user/a%2Fb%20c/f:component:%C3%BC 3a2512a6-da53-5ca5-ae58-3bf1b8026ae5":              eventstore.NamedStream("user", "a/b c", "f:component:ü"),
	} {
		require.Equal(t, want, stream.String()+" "+stream.AggregateID().String())
	}
	cause := uuid.MustParse("01932c07-209c-7fc0-8d8e-2c6e8a0c1b57")
	at := time.UnixMilli(1_800_000_000_123)
	require.Equal(t, "01a3185c-507b-725e-b2a9-ba09420a5d21", eventstore.DerivedID(cause, at, "interpret", 2).String())
}

func TestDerivedID(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cause := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "cause"))
		at := time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "at"))
		consumer := rapid.StringMatching(`[a-z/]{0,12}`).Draw(t, "consumer")
		ordinal := rapid.IntRange(0, 1000).Draw(t, "ordinal")
		id := eventstore.DerivedID(cause, at, consumer, ordinal)

		again := eventstore.DerivedID(cause, at.Add(500*time.Microsecond), consumer, ordinal)
		require.Equal(t, id, again, "the same to the millisecond")
		require.EqualValues(t, 7, id.Version())
		require.Equal(t, uuid.RFC4122, id.Variant())
		seconds, nanoseconds := id.Time().UnixTime()
		require.True(t, time.Unix(seconds, nanoseconds).Equal(at), "its time is the cause's")

		other := cause
		other[3]++
		for _, different := range []uuid.UUID{
			eventstore.DerivedID(other, at, consumer, ordinal), eventstore.DerivedID(cause, at.Add(time.Millisecond), consumer, ordinal),
			eventstore.DerivedID(cause, at, consumer+"x", ordinal), eventstore.DerivedID(cause, at, consumer, ordinal+1),
		} {
			require.NotEqual(t, id, different)
		}
	})
	require.NotPanics(t, func() { eventstore.DerivedID(uuid.Nil, time.Unix(-5, 0), "", -1) })
}

func TestNewIDsGrowWithTime(t *testing.T) {
	t.Parallel()
	last := eventstore.NewID()
	for range 1000 {
		id := eventstore.NewID()
		require.Greater(t, id.String(), last.String())
		last = id
	}
}

func TestNamedStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "parts")
		category := rapid.StringMatching(`[a-z]{1,10}`).Draw(t, "category")
		s := eventstore.NamedStream(category, parts...)
		require.Equal(t, category, s.Category())
		got, err := s.Parts()
		require.NoError(t, err)
		require.Equal(t, append([]string{}, parts...), append([]string{}, got...))
		require.Equal(t, s, eventstore.StoredStream(s.String(), s.AggregateID()))

		others := rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "others")
		o := eventstore.NamedStream(category, others...)
		require.Equal(t, fmt.Sprintf("%q", parts) == fmt.Sprintf("%q", others), s == o, "different parts, different streams")
	})
	require.NotEqual(t, eventstore.NamedStream("user", "a/b"), eventstore.NamedStream("user", "a", "b"))
	require.True(t, eventstore.StreamID{}.IsZero())
	require.False(t, eventstore.NamedStream("user").IsZero())
	_, err := eventstore.StoredStream("user/%zz", uuid.Max).Parts()
	require.ErrorContains(t, err, "user/%zz")
}

func TestUUIDStream(t *testing.T) {
	t.Parallel()
	id := eventstore.NewID()
	s := eventstore.UUIDStream("call", id)
	require.Equal(t, id, s.AggregateID())
	require.Equal(t, "call/"+id.String(), s.String())
}

func TestExpected(t *testing.T) {
	t.Parallel()
	require.Equal(t, eventstore.Expected{}, eventstore.ExpectAny())
	require.Equal(t, eventstore.ExpectNone(), eventstore.ExpectVersion(0))
	_, exact := eventstore.ExpectAny().Exact()
	require.False(t, exact)
	v, exact := eventstore.ExpectVersion(3).Exact()
	require.True(t, exact)
	require.EqualValues(t, 3, v)
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	stream := eventstore.NamedStream("user", "acme", "7")
	wrapped := fmt.Errorf("append: %w", &eventstore.ConflictError{Stream: stream, Expected: 1, Actual: 2})
	var conflict *eventstore.ConflictError
	require.ErrorAs(t, wrapped, &conflict)
	require.Equal(t, "append: stream user/acme/7 is at version 2, not 1: it was written to meanwhile", wrapped.Error())
	require.ErrorContains(t, &eventstore.SchemaError{Current: 0, Supported: 1}, "Try: keytrail migrate")
	require.ErrorContains(t, &eventstore.SchemaError{Current: 2, Supported: 1}, "newer than this program's 1")
}
