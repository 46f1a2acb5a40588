package postgres

import (
	"context"
	"io/fs"
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
