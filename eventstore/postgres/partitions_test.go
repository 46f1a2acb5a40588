package postgres

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// partitioned is a migrated database whose partitions have 20 positions each.
func partitioned(t testing.TB) string {
	url := dbtest.Postgres(t)
	upTo(t, url, 2)
	text, err := fs.ReadFile(migrations, "migrations/00003_partitions_and_group_commit.sql")
	require.NoError(t, err)
	small := strings.Replace(string(text), "SELECT 2000000::bigint", "SELECT 20::bigint", 1)
	require.NotEqual(t, string(text), small)
	apply(t, url, fstest.MapFS{"00003_small.sql": {Data: []byte(small)}}, 2)
	require.NoError(t, Migrate(t.Context(), url))
	return url
}

// upTo migrates a database to a version that is older than this program's.
func upTo(t testing.TB, url string, version int) { apply(t, url, nil, version) }

// apply migrates with the first migrations and further ones.
func apply(t testing.TB, url string, further fstest.MapFS, first int) {
	files := fstest.MapFS{}
	names, err := fs.Glob(migrations, "migrations/*.sql")
	require.NoError(t, err)
	for _, name := range names[:first] {
		text, err := fs.ReadFile(migrations, name)
		require.NoError(t, err)
		files[name[len("migrations/"):]] = &fstest.MapFile{Data: text}
	}
	for name, f := range further {
		files[name] = f
	}
	config := connect(t, url).Config()
	db := stdlib.OpenDB(*config)
	defer func() { require.NoError(t, db.Close()) }()
	m, err := sqlmigrate.New(db, sqlmigrate.Postgres, VersionTable, files)
	require.NoError(t, err)
	require.NoError(t, m.Up(t.Context()))
}

func names(t testing.TB, s *Store) (out []string) {
	rows, err := s.pool.Query(t.Context(), `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'api_event_store'::regclass ORDER BY 1`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		out = append(out, name)
	}
	require.NoError(t, rows.Err())
	return out
}

// TestPartitionsAreMadeAhead: there is always a whole partition that nothing has been
// written to, and an append that is faster than that makes its own.
func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	s := opened(t, url)
	require.Equal(t, []string{"api_event_store_p000000000001", "api_event_store_p000000000021"}, names(t, s))
	stream := eventstore.UUIDStream("call", eventstore.NewID())
	for range 5 {
		_, err := s.Append(ctx, many(stream, 5))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return len(names(t, s)) == 3 }, 10*time.Second, 5*time.Millisecond, "made in the background")

	_, err := s.Append(ctx, many(stream, 150))
	require.NoError(t, err, "more than fits into what has been made")
	got := positions(t, s)
	require.Len(t, got, 175)
	require.EqualValues(t, 175, got[174])
	for _, want := range []eventstore.Version{1, 20, 21, 60, 175} {
		for e, err := range s.ReadStream(ctx, stream, eventstore.StreamQuery{After: want - 1, Limit: 1}) {
			require.NoError(t, err)
			require.Equal(t, want, e.Version)
		}
	}
	for _, name := range names(t, s) {
		for _, text := range []string{`UPDATE ` + name + ` SET event_type = 'B'`, `DELETE FROM ` + name, `TRUNCATE ` + name} {
			_, err := s.WriteDB().ExecContext(ctx, text)
			require.ErrorContains(t, err, "is refused", text)
		}
	}
}

func many(stream eventstore.StreamID, n int) eventstore.StreamAppend {
	part := eventstore.StreamAppend{Stream: stream}
	for range n {
		part.Events = append(part.Events, anAppend().Events...)
	}
	return part
}

// TestADetachedPartition: the log goes on without its beginning, knows what is in it,
// and refuses to pass off a part as the whole; attached again it is whole.
func TestADetachedPartition(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	s := opened(t, url)
	old, both := eventstore.UUIDStream("call", eventstore.NewID()), eventstore.UUIDStream("call", eventstore.NewID())
	first, err := s.Append(ctx, many(old, 15), many(both, 5))
	require.NoError(t, err)
	_, err = s.Append(ctx, many(both, 10))
	require.NoError(t, err)
	before := positions(t, s)

	admin := connect(t, url)
	_, err = admin.Exec(ctx, `ALTER TABLE api_event_store DETACH PARTITION api_event_store_p000000000001`)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.start.Load() == 21 }, 10*time.Second, 5*time.Millisecond, "it is noticed")

	again := many(old, 1)
	again.Events[0] = eventstore.NewEvent{ID: first[0].ID, Type: first[0].Type, Data: first[0].Data, Metadata: first[0].Metadata, OccurredAt: first[0].OccurredAt}
	_, err = s.Append(ctx, again)
	require.ErrorIs(t, err, eventstore.ErrIncomplete, "its id is known, its content is not there to be compared")
	got, err := s.Append(ctx, many(old, 1), many(both, 1))
	require.NoError(t, err)
	require.EqualValues(t, 31, got[0].Position)
	require.EqualValues(t, 16, got[0].Version)

	read := func(q eventstore.LogQuery) (n int, err error) {
		for _, e := range s.ReadLog(ctx, q) {
			if e != nil {
				return n, e
			}
			n++
		}
		return n, nil
	}
	_, err = read(eventstore.LogQuery{})
	require.ErrorIs(t, err, eventstore.ErrIncomplete)
	_, err = read(eventstore.LogQuery{Types: []string{"A"}})
	require.ErrorIs(t, err, eventstore.ErrIncomplete)
	n, err := read(eventstore.LogQuery{After: 20})
	require.NoError(t, err)
	require.Equal(t, 12, n)
	n, err = read(eventstore.LogQuery{EventIDs: []uuid.UUID{first[0].ID}})
	require.NoError(t, err)
	require.Zero(t, n)
	for _, stream := range []eventstore.StreamID{old, both} {
		for _, err := range s.ReadStream(ctx, stream, eventstore.StreamQuery{}) {
			require.ErrorIs(t, err, eventstore.ErrIncomplete)
		}
	}
	gone := eventstore.UUIDStream("call", eventstore.NewID())
	for _, err := range s.ReadStream(ctx, gone, eventstore.StreamQuery{}) {
		require.NoError(t, err)
		t.Fatal("a stream that never was has no events")
	}

	_, err = admin.Exec(ctx, `ALTER TABLE api_event_store ATTACH PARTITION api_event_store_p000000000001 FOR VALUES FROM (1) TO (21)`)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.start.Load() == 1 }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, append(before, 31, 32), positions(t, s))
}

// TestMigratingALogThatHasEvents: what an earlier keytrail has recorded stays where it
// is, is known, and is gone on from.
func TestMigratingALogThatHasEvents(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := dbtest.Postgres(t)
	upTo(t, url, 2)
	stream := eventstore.UUIDStream("call", eventstore.NewID())
	part := many(stream, 3)
	conn := connect(t, url)
	for i, e := range part.Events {
		_, err := conn.Exec(ctx, `SELECT api_append(now(), ARRAY[$1::uuid], ARRAY[$2], ARRAY[1], ARRAY[1], ARRAY[1],
			ARRAY[$3::uuid], ARRAY[1], ARRAY[0], ARRAY[$4::int], ARRAY['A'], ARRAY['{}'], ARRAY['{}'], ARRAY[NULL::uuid], ARRAY[NULL::uuid], ARRAY[$5::timestamptz],
			ARRAY[]::uuid[], ARRAY[]::text[], ARRAY[]::bytea[], ARRAY[]::text[])`,
			pgUUID(stream.AggregateID()), stream.String(), pgUUID(e.ID), i, e.OccurredAt)
		require.NoError(t, err)
	}
	role := "program_" + strings.ReplaceAll(eventstore.NewID().String(), "-", "")
	_, err := conn.Exec(ctx, `CREATE ROLE `+role+`; GRANT SELECT, INSERT ON api_event_store TO `+role+`; GRANT EXECUTE ON FUNCTION api_append TO `+role)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := conn.Exec(context.WithoutCancel(ctx), `DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(t, err)
	})

	require.NoError(t, Migrate(ctx, url))
	var may, mayNot bool
	require.NoError(t, conn.QueryRow(ctx, `SELECT
		has_table_privilege(r, 'api_event_store', 'SELECT') AND has_table_privilege(r, 'api_event_ids', 'SELECT') AND has_table_privilege(r, 'api_partitions', 'SELECT')
			AND has_function_privilege(r, 'api_append'::regproc, 'EXECUTE') AND has_function_privilege(r, 'api_prepare_partitions'::regproc, 'EXECUTE'),
		has_table_privilege(r, 'api_event_store', 'INSERT') OR has_table_privilege(r, 'api_event_store_p000000000001', 'INSERT, SELECT')
			OR has_function_privilege('public', 'api_append'::regproc, 'EXECUTE')
		FROM (SELECT $1::name AS r) x`, role).Scan(&may, &mayNot))
	require.True(t, may, "the program goes on after a migration")
	require.False(t, mayNot)

	s := opened(t, url)
	known, err := s.Append(ctx, part)
	require.NoError(t, err)
	require.EqualValues(t, 3, known[2].Position)
	part.Events, part.Expected = many(stream, 1).Events, eventstore.ExpectVersion(3)
	got, err := s.Append(ctx, part)
	require.NoError(t, err)
	require.EqualValues(t, 4, got[0].Position)
	require.Equal(t, []eventstore.Position{1, 2, 3, 4}, positions(t, s))
	for _, text := range []string{`UPDATE api_event_store SET event_type = 'B'`, `DELETE FROM api_event_store_p000000000001`} {
		_, err = s.WriteDB().ExecContext(ctx, text)
		require.ErrorContains(t, err, "is refused", text)
	}
}

// wholeOrNot counts events, or says that a part is missing.
func wholeOrNot(t testing.TB, events iter.Seq2[eventstore.Event, error]) (n int, whole bool) {
	for _, err := range events {
		if errors.Is(err, eventstore.ErrIncomplete) {
			return n, false
		}
		require.NoError(t, err)
		n++
	}
	return n, true
}

func call() eventstore.StreamID { return eventstore.UUIDStream("call", eventstore.NewID()) }

func detach(t testing.TB, url, partition string) {
	_, err := connect(t, url).Exec(t.Context(), `ALTER TABLE api_event_store DETACH PARTITION `+partition)
	require.NoError(t, err)
}

func noticed(t testing.TB, s *Store, start int64) {
	require.Eventually(t, func() bool { return s.start.Load() == start }, 10*time.Second, 5*time.Millisecond, "the log is whole from %d on", start)
}

// TestADetachThatWaits: concurrently, a partition is hidden as soon as the command has
// begun, and stays so while old readers are waited for.
func TestADetachThatWaits(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	s := opened(t, url)
	a := call()
	_, err := s.Append(ctx, many(a, 20), many(call(), 10))
	require.NoError(t, err)
	old, err := connect(t, url).Begin(ctx)
	require.NoError(t, err)
	var n int
	require.NoError(t, old.QueryRow(ctx, `SELECT count(*) FROM api_event_store`).Scan(&n))
	admin := connect(t, url)
	done := make(chan error, 1)
	go func() {
		_, err := admin.Exec(ctx, `ALTER TABLE api_event_store DETACH PARTITION api_event_store_p000000000001 CONCURRENTLY`)
		done <- err
	}()
	noticed(t, s, 21)
	_, whole := wholeOrNot(t, s.ReadLog(ctx, eventstore.LogQuery{}))
	require.False(t, whole)
	_, whole = wholeOrNot(t, s.ReadStream(ctx, a, eventstore.StreamQuery{}))
	require.False(t, whole)
	require.NoError(t, old.Rollback(ctx))
	require.NoError(t, <-done)
}

// TestAHoleInTheMiddle is as bad as one at the beginning.
func TestAHoleInTheMiddle(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	s := opened(t, url)
	b := call()
	_, err := s.Append(ctx, many(call(), 20), many(b, 20), many(call(), 20))
	require.NoError(t, err)
	detach(t, url, "api_event_store_p000000000021")
	_, whole := wholeOrNot(t, s.ReadLog(ctx, eventstore.LogQuery{}))
	require.False(t, whole, "at once, as positions have no gaps")
	noticed(t, s, 41)
	_, whole = wholeOrNot(t, s.ReadLog(ctx, eventstore.LogQuery{Types: []string{"A", "B"}}))
	require.False(t, whole)
	_, whole = wholeOrNot(t, s.ReadStream(ctx, b, eventstore.StreamQuery{}))
	require.False(t, whole)
	n, whole := wholeOrNot(t, s.ReadLog(ctx, eventstore.LogQuery{After: 40}))
	require.True(t, whole)
	require.Equal(t, 20, n)
}

// TestDetachingUnderAReader: one who reads is told, and does not skip.
func TestDetachingUnderAReader(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	s := opened(t, url)
	_, err := s.Append(ctx, many(call(), 1000))
	require.NoError(t, err)
	last, whole := eventstore.Position(0), true
	for e, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
		if errors.Is(err, eventstore.ErrIncomplete) {
			whole = false
			break
		}
		require.NoError(t, err)
		if e.Position == 1 {
			detach(t, url, "api_event_store_p000000000601")
		}
		require.Equal(t, last+1, e.Position)
		last = e.Position
	}
	require.False(t, whole)
}

// TestQuestionsAboutADetachedPart: what cannot be answered wholly is not answered, and
// what can be is.
func TestQuestionsAboutADetachedPart(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	s, err := Open(ctx, url, Options{Clock: func() time.Time { return now }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	a, b := call(), call()
	_, err = s.Append(ctx, many(a, 15))
	require.NoError(t, err)
	over := many(b, 10) // crosses the boundary: 16 … 25
	_, err = s.Append(ctx, over)
	require.NoError(t, err)
	later := now.Add(time.Hour)
	now = later
	_, err = s.Append(ctx, many(b, 1))
	require.NoError(t, err)
	detach(t, url, "api_event_store_p000000000001")
	noticed(t, s, 21)

	log := func(q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] { return s.ReadLog(ctx, q) }
	stream := func(id eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
		return s.ReadStream(ctx, id, q)
	}
	for name, c := range map[string]struct {
		events iter.Seq2[eventstore.Event, error]
		want   int // -1: incomplete
	}{
		"recorded from before":    {log(eventstore.LogQuery{RecordedFrom: later.Add(-2 * time.Hour)}), -1},
		"recorded long ago":       {log(eventstore.LogQuery{RecordedTo: later.Add(-2 * time.Hour)}), -1},
		"recorded later":          {log(eventstore.LogQuery{RecordedFrom: later}), 1},
		"as of a position":        {stream(a, eventstore.StreamQuery{AsOf: 15}), -1},
		"as of within":            {stream(b, eventstore.StreamQuery{AsOf: 18}), -1},
		"as of before it began":   {stream(b, eventstore.StreamQuery{AsOf: 3}), 0},
		"as of a time":            {stream(a, eventstore.StreamQuery{AsOfTime: later}), -1},
		"backward":                {stream(b, eventstore.StreamQuery{Backward: true}), -1},
		"the newest":              {stream(b, eventstore.StreamQuery{Backward: true, Limit: 3}), 3},
		"on from what is there":   {stream(b, eventstore.StreamQuery{After: 5}), 6},
		"nothing new":             {stream(a, eventstore.StreamQuery{After: 15}), 0},
		"a stream that never was": {stream(call(), eventstore.StreamQuery{}), 0},
	} {
		n, whole := wholeOrNot(t, c.events)
		require.Equal(t, c.want >= 0, whole, name)
		if whole {
			require.Equal(t, c.want, n, name)
		}
	}

	// One who finds nothing, while somebody else appends, has missed nothing.
	c := call()
	racing := func(yield func(eventstore.Event, error) bool) {
		for e, err := range dialect.ReadStream(ctx, s.life, s.page("read"), c, eventstore.StreamQuery{}) {
			if !yield(e, err) {
				return
			}
		}
		_, err := s.Append(ctx, many(c, 1))
		require.NoError(t, err)
	}
	n, whole := wholeOrNot(t, s.orArchived(ctx, racing, c, eventstore.StreamQuery{}))
	require.True(t, whole)
	require.Zero(t, n)

	_, err = s.Append(ctx, over)
	require.ErrorIs(t, err, eventstore.ErrIncomplete, "it is a repetition, and no clash")
	require.NotErrorIs(t, err, eventstore.ErrEventIDReused)
}

// TestAllIsDetached: the log goes on where it was.
func TestAllIsDetached(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	a := call()
	_, err := opened(t, url).Append(ctx, many(a, 20))
	require.NoError(t, err)
	detach(t, url, "api_event_store_p000000000001")
	s := opened(t, url)
	head, err := s.Head(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 20, head)
	got, err := s.Append(ctx, many(a, 1))
	require.NoError(t, err)
	require.EqualValues(t, 21, got[0].Position)
	require.EqualValues(t, 21, got[0].Version)
}

// TestADatabaseThatWasSetBack: after a fail-over that has lost events, positions that
// were seen are not given anew behind the back of those who have seen them.
func TestADatabaseThatWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := opened(t, migrated(t))
	_, err := s.Append(ctx, many(call(), 5))
	require.NoError(t, err)
	s.head.Advance(8)
	_, err = s.Append(ctx, many(call(), 1))
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.ErrorContains(t, err, "has lost events")
}

// TestNoRightToMakePartitions: an append that has no place is refused in the contract's
// terms, and recorded once there is one.
func TestNoRightToMakePartitions(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := partitioned(t)
	s := opened(t, url)
	admin := connect(t, url)
	_, err := admin.Exec(ctx, `ALTER FUNCTION api_prepare_partitions(bigint) RENAME TO api_hidden`)
	require.NoError(t, err)
	_, err = s.Append(ctx, many(call(), 40))
	require.NoError(t, err)
	part := many(call(), 1)
	_, err = s.Append(ctx, part)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	_, err = admin.Exec(ctx, `ALTER FUNCTION api_hidden(bigint) RENAME TO api_prepare_partitions`)
	require.NoError(t, err)
	_, err = s.Append(ctx, part)
	require.NoError(t, err)
}

// TestStoresInTwoSchemas of one database do not wait for each other.
func TestStoresInTwoSchemas(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := dbtest.Postgres(t)
	in := func(schema string) string {
		_, err := connect(t, base).Exec(ctx, `CREATE SCHEMA `+schema)
		require.NoError(t, err)
		u, err := url.Parse(base)
		require.NoError(t, err)
		q := u.Query()
		q.Set("search_path", schema)
		u.RawQuery = q.Encode()
		require.NoError(t, Migrate(ctx, u.String()))
		return u.String()
	}
	one, two := in("one"), in("two")
	tx, err := connect(t, one).Begin(ctx)
	require.NoError(t, err)
	appendIn(t, tx, anAppend()) // and holds the order lock
	_, err = opened(t, two).Append(ctx, anAppend())
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(ctx))
}
