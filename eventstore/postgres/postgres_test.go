package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
	"github.com/keytrail/keytrail/eventstore/storetest"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/suitetest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

func TestStore(t *testing.T) { storetest.Run(t, create) }

func TestSnapshotter(t *testing.T) { storetest.RunSnapshots(t, create) }

func BenchmarkAppend(b *testing.B)  { storetest.BenchmarkAppend(b, create) }
func BenchmarkReadLog(b *testing.B) { storetest.BenchmarkReadLog(b, create) }

func migrated(t testing.TB) string {
	url := dbtest.Postgres(t)
	require.NoError(t, Migrate(t.Context(), url))
	return url
}

func opened(t testing.TB, url string) *Store {
	s, err := Open(t.Context(), url, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func connect(t testing.TB, url string) *pgx.Conn {
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) })
	return conn
}

func create(t testing.TB) storetest.Database {
	url := migrated(t)
	return storetest.Database{
		Open: func(t testing.TB, clock func() time.Time) eventstore.Store {
			s, err := Open(t.Context(), url, Options{Clock: clock})
			require.NoError(t, err)
			return s
		},
		Hold: func(t testing.TB, appends ...eventstore.StreamAppend) func() error {
			ctx := t.Context()
			conn, err := pgx.Connect(ctx, url)
			require.NoError(t, err)
			tx, err := conn.Begin(ctx)
			require.NoError(t, err)
			appendIn(t, tx, appends...)
			return func() error { return errors.Join(tx.Commit(ctx), conn.Close(ctx)) }
		},
		Exec: func(ctx context.Context, text string) error {
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, text)
			return errors.Join(err, conn.Close(ctx))
		},
		Tampering: []string{
			`UPDATE api_event_store SET event_type = 'B'`,
			`UPDATE api_event_store SET event_type = 'B' WHERE position = 2`,
			`DELETE FROM api_event_store`,
			`DELETE FROM api_event_store WHERE position = 2`,
			`TRUNCATE api_event_store`,
			`TRUNCATE api_event_store CASCADE`,
			`SET session_replication_role = replica; DELETE FROM api_event_store`,
			`INSERT INTO api_event_store SELECT * FROM api_event_store WHERE position = 1
				ON CONFLICT (position) DO UPDATE SET event_type = 'B'`,
			`MERGE INTO api_event_store e USING (SELECT 1 AS position) n ON e.position = n.position WHEN MATCHED THEN DELETE`,
			`UPDATE api_event_store_p000000000001 SET event_type = 'B'`,
			`DELETE FROM api_event_store_p000000000001 WHERE position = 2`,
			`TRUNCATE api_event_store_p000000000001`,
			`DELETE FROM api_event_store_p000002000001`,
			`UPDATE api_event_ids SET position = 7`,
			`DELETE FROM api_event_ids`,
			`TRUNCATE api_event_ids`,
			`DELETE FROM api_streams`,
			`TRUNCATE api_streams`,
		},
	}
}

// appendIn calls api_append in a transaction of the test's own.
func appendIn(t testing.TB, db querier, appends ...eventstore.StreamAppend) []eventstore.Event {
	plan, err := backend.NewPlan(appends)
	require.NoError(t, err)
	s := &Store{clock: backend.NewClock(nil)}
	results, _, _, err := s.call(t.Context(), db, backend.BatchOf(plan), false)
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	return results[0].Events
}

func anAppend() eventstore.StreamAppend {
	return eventstore.StreamAppend{Stream: eventstore.UUIDStream("call", eventstore.NewID()), Events: []eventstore.NewEvent{{
		ID: eventstore.NewID(), Type: "A", Data: []byte(`{}`), Metadata: []byte(`{}`), OccurredAt: time.Now(),
	}}}
}

func positions(t testing.TB, s *Store) (out []eventstore.Position) {
	for e, err := range s.ReadLog(t.Context(), eventstore.LogQuery{}) {
		require.NoError(t, err)
		out = append(out, e.Position)
	}
	return out
}

// newest is the version of the newest migration.
func newest(t testing.TB) int64 {
	files, err := migrations.ReadDir("migrations")
	require.NoError(t, err)
	return int64(len(files))
}

func TestOpenRefusesASchemaThatDoesNotFit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := dbtest.Postgres(t)
	var schema *eventstore.SchemaError

	_, err := Open(ctx, url, Options{})
	require.ErrorAs(t, err, &schema)
	require.Equal(t, eventstore.SchemaError{Current: 0, Supported: newest(t)}, *schema)

	require.NoError(t, Migrate(ctx, url))
	require.NoError(t, Migrate(ctx, url), "twice does no harm")
	s := opened(t, url)
	require.NoError(t, s.Ping(ctx))
	_, err = s.WriteDB().ExecContext(ctx, `INSERT INTO `+VersionTable+` (version_id, is_applied) VALUES (99, true)`)
	require.NoError(t, err)
	newer := eventstore.SchemaError{Current: 99, Supported: newest(t)}
	require.ErrorAs(t, s.Ping(ctx), &schema)
	require.Equal(t, newer, *schema)
	_, err = Open(ctx, url, Options{})
	require.ErrorAs(t, err, &schema)
	require.Equal(t, newer, *schema)
	require.ErrorAs(t, Migrate(ctx, url), &schema)
	require.Equal(t, newer, *schema)
}

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres(t)
	errs := make([]error, 4)
	var done sync.WaitGroup
	for i := range errs {
		done.Go(func() { errs[i] = Migrate(t.Context(), url) })
	}
	done.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	var applied int
	require.NoError(t, opened(t, url).ReadDB().QueryRowContext(t.Context(), `SELECT count(*) FROM `+VersionTable).Scan(&applied))
	require.EqualValues(t, newest(t)+1, applied, "version 0 and each migration, once")
}

// TestSnapshotBeforeTheLock: a transaction that began, and looked around, before
// others appended gets its positions after theirs.
func TestSnapshotBeforeTheLock(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	s := opened(t, url)
	tx, err := connect(t, url).Begin(ctx)
	require.NoError(t, err)
	_, err = tx.Exec(ctx, `SELECT pg_current_xact_id(), count(*) FROM api_event_store`)
	require.NoError(t, err)
	for range 3 {
		_, err := s.Append(ctx, anAppend())
		require.NoError(t, err)
	}
	late := appendIn(t, tx, anAppend())
	require.EqualValues(t, 4, late[0].Position)
	require.NoError(t, tx.Commit(ctx))
	_, err = s.Append(ctx, anAppend())
	require.NoError(t, err)
	require.Equal(t, []eventstore.Position{1, 2, 3, 4, 5}, positions(t, s))
}

func TestRolledBackAppendLeavesNoGap(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	s := opened(t, url)
	tx, err := connect(t, url).Begin(ctx)
	require.NoError(t, err)
	appendIn(t, tx, anAppend(), anAppend())
	require.NoError(t, tx.Rollback(ctx))
	_, err = s.Append(ctx, anAppend())
	require.NoError(t, err)
	require.Equal(t, []eventstore.Position{1}, positions(t, s))
}

// TestOrderLock: an append waits for the order lock, and not for ever. Without the
// lock the uniqueness of positions would still keep the log in order, at the price
// of retries that run out; so only this test sees that it is taken.
func TestOrderLock(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	s := opened(t, url)
	conn := connect(t, url)
	_, err := conn.Exec(ctx, `ALTER FUNCTION api_append SET lock_timeout = '100ms'`)
	require.NoError(t, err)
	tx, err := conn.Begin(ctx)
	require.NoError(t, err)
	_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock(('x' || encode('keyt', 'hex'))::bit(32)::int, 'api_event_store'::regclass::oid::int4)`)
	require.NoError(t, err)
	part := anAppend()
	_, err = s.Append(ctx, part)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.NoError(t, tx.Rollback(ctx))
	_, err = s.Append(ctx, part)
	require.NoError(t, err)
}

func TestAppendNeedsReadCommitted(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	plan, err := backend.NewPlan([]eventstore.StreamAppend{anAppend()})
	require.NoError(t, err)
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		tx, err := connect(t, url).BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
		require.NoError(t, err)
		_, _, _, err = (&Store{clock: backend.NewClock(nil)}).call(ctx, tx, backend.BatchOf(plan), false)
		require.ErrorContains(t, err, "READ COMMITTED")
		require.NoError(t, tx.Rollback(ctx))
	}
}

// TestDefaultsOfTheDatabaseDoNotMatter: a DBA's defaults must not undo durability
// or the order of positions.
func TestDefaultsOfTheDatabaseDoNotMatter(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	conn := connect(t, url)
	for _, setting := range []string{"default_transaction_isolation = 'serializable'", "synchronous_commit = off", "timezone = 'Asia/Kolkata'", "datestyle = 'German'"} {
		_, err := conn.Exec(ctx, fmt.Sprintf(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %s', current_database()); END $$`, strings.ReplaceAll(setting, "'", "''")))
		require.NoError(t, err)
	}
	s := opened(t, url)
	want, err := s.Append(ctx, anAppend())
	require.NoError(t, err)
	var level, durable string
	require.NoError(t, s.appends.QueryRow(ctx, `SELECT current_setting('transaction_isolation'), current_setting('synchronous_commit')`).Scan(&level, &durable))
	require.Equal(t, "read committed", level)
	require.Equal(t, "on", durable)
	for e, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
		require.NoError(t, err)
		require.Equal(t, want[0], e)
	}
}

// TestRoleThatCannotWrite: the program's role needs SELECT and EXECUTE, as the
// package's documentation says, and cannot write past api_append.
func TestRoleThatCannotWrite(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	owner := dbtest.Postgres(t)
	conn := connect(t, owner)
	role := "program_" + strings.ReplaceAll(eventstore.NewID().String(), "-", "")
	for _, text := range []string{
		`CREATE ROLE ` + role + ` LOGIN PASSWORD 'program'`,
		`ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ` + role,
	} {
		_, err := conn.Exec(ctx, text)
		require.NoError(t, err)
	}
	require.NoError(t, Migrate(ctx, owner))
	for _, text := range []string{
		`REVOKE INSERT, UPDATE, DELETE ON api_streams, api_snapshots, api_raw_bodies, api_schema_version FROM ` + role,
	} {
		_, err := conn.Exec(ctx, text)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := conn.Exec(context.WithoutCancel(ctx), `DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(t, err)
	})
	u, err := url.Parse(owner)
	require.NoError(t, err)
	u.User = url.UserPassword(role, "program")
	s, err := Open(ctx, u.String(), Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()

	_, err = s.Append(ctx, anAppend())
	require.ErrorContains(t, err, "permission denied", "nobody appends who has not been let")
	_, err = conn.Exec(ctx, `GRANT EXECUTE ON FUNCTION api_append, api_prepare_partitions TO `+role)
	require.NoError(t, err)
	_, err = s.Append(ctx, anAppend())
	require.NoError(t, err)
	require.Equal(t, []eventstore.Position{1}, positions(t, s))
	for e, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
		require.NoError(t, err)
		taken := eventstore.Snapshot{Stream: e.Stream, Version: 1, Shape: "call/1", State: []byte(`{}`), TakenAt: time.Now()}
		require.ErrorContains(t, s.SaveSnapshot(ctx, taken), "permission denied", "nobody saves who has not been let")
		_, err = conn.Exec(ctx, `GRANT EXECUTE ON FUNCTION api_save_snapshot TO `+role)
		require.NoError(t, err)
		require.NoError(t, s.SaveSnapshot(ctx, taken))
		found, err := s.Snapshot(ctx, e.Stream, "call/1", 0)
		require.NoError(t, err)
		require.EqualValues(t, 1, found.Version)
	}
	for _, text := range []string{
		`INSERT INTO api_snapshots SELECT * FROM api_snapshots`, `UPDATE api_snapshots SET digest = ''`, `DELETE FROM api_snapshots`,
		`INSERT INTO api_streams SELECT * FROM api_streams`, `UPDATE api_event_store SET version = 2`, `DELETE FROM api_event_store`,
		`ALTER TABLE api_event_store DISABLE TRIGGER ALL`, `DROP TABLE api_event_store`,
		`INSERT INTO api_event_store SELECT * FROM api_event_store`,
		`INSERT INTO api_event_store_p000002000001 (position) VALUES (2000001)`, `SELECT * FROM api_event_store_p000000000001`,
		`INSERT INTO api_event_ids VALUES (gen_random_uuid(), 9)`, `UPDATE api_partitions SET name = ''`,
		`SELECT api_close_table('api_streams', '')`,
	} {
		_, err = s.WriteDB().ExecContext(ctx, text)
		require.Error(t, err, text)
	}

	// A temporary table of the same name does not stand in for the log.
	tmp := connect(t, u.String())
	_, err = tmp.Exec(ctx, `CREATE TEMP TABLE api_event_store (LIKE api_event_store)`)
	require.NoError(t, err)
	require.EqualValues(t, 2, appendIn(t, tmp, anAppend())[0].Position)
	require.Equal(t, []eventstore.Position{1, 2}, positions(t, s))
}

// TestOtherSchema: the store lives in whatever schema the search path names.
func TestOtherSchema(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	base := dbtest.Postgres(t)
	_, err := connect(t, base).Exec(ctx, `CREATE SCHEMA "Key Trail"`)
	require.NoError(t, err)
	u, err := url.Parse(base)
	require.NoError(t, err)
	q := u.Query()
	q.Set("search_path", `"Key Trail"`)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // as libpq wants it
	require.NoError(t, Migrate(ctx, u.String()))
	s := opened(t, u.String())
	_, err = s.Append(ctx, anAppend())
	require.NoError(t, err)
	var n int
	require.NoError(t, connect(t, base).QueryRow(ctx, `SELECT count(*) FROM "Key Trail".api_event_store`).Scan(&n))
	require.Equal(t, 1, n)
}

func TestUnreachableDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), "postgres://keytrail:hunter2@127.0.0.1:1/keytrail?sslmode=disable&connect_timeout=5", Options{})
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.NotContains(t, err.Error(), "hunter2")
	_, err = Open(t.Context(), "postgres://keytrail:hunter2@127.0.0.1:none/keytrail", Options{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
	require.ErrorIs(t, Migrate(t.Context(), "postgres://keytrail:hunter2@127.0.0.1:1/keytrail?sslmode=disable&connect_timeout=5"), eventstore.ErrUnavailable)
}

// TestServerCrash: the store comes back by itself when the server does, and
// waiters never learn that it was gone.
func TestServerCrash(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster, err := dbtest.Start(ctx, dbtest.Options{})
	if errors.Is(err, dbtest.ErrNotInstalled) {
		suitetest.Unavailable(t, "postgres", err.Error())
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop()) })
	url := cluster.Database(t)
	require.NoError(t, Migrate(ctx, url))
	s := opened(t, url)
	_, err = s.Append(ctx, anAppend())
	require.NoError(t, err)
	waited := make(chan error, 1)
	go func() {
		_, err := s.Wait(ctx, 1)
		waited <- err
	}()

	require.NoError(t, cluster.Kill())
	part := anAppend()
	_, err = s.Append(ctx, part)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.ErrorIs(t, s.Ping(ctx), eventstore.ErrUnavailable)
	_, err = s.Head(ctx)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	for _, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
		require.ErrorIs(t, err, eventstore.ErrUnavailable)
	}

	require.NoError(t, cluster.Restart(ctx))
	// Another process's append, so that only the listener can tell of it.
	other := opened(t, url)
	_, err = other.Append(ctx, part)
	require.NoError(t, err)
	require.NoError(t, <-waited)
	require.Eventually(t, func() bool {
		_, err = s.Append(ctx, part)
		return err == nil || !errors.Is(err, eventstore.ErrUnavailable)
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, []eventstore.Position{1, 2}, positions(t, s))
}

// TestRowsWrittenPastTheGate: the owner can insert rows; what then collides comes
// back in the contract's terms.
func TestRowsWrittenPastTheGate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	s := opened(t, url)
	part := anAppend()
	first, err := s.Append(ctx, part)
	require.NoError(t, err)
	_, err = connect(t, url).Exec(ctx, `INSERT INTO api_event_store (`+backend.Columns+`)
		SELECT 2, gen_random_uuid(), aggregate_id, stream, 2, event_type, event_data, event_metadata, NULL, NULL, occurred_at, created_at FROM api_event_store`)
	require.NoError(t, err)
	part.Events[0].ID = eventstore.NewID()
	_, err = s.Append(ctx, part)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.ErrorContains(t, err, "the log and the gate disagree")
	require.EqualValues(t, 1, first[0].Position)
}

func TestDeepNestingIsStoredOrInvalid(t *testing.T) {
	t.Parallel()
	s := opened(t, migrated(t))
	for _, depth := range []int{1000, 9000} {
		part := anAppend()
		part.Events[0].Data = []byte(`{"a":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}`)
		if _, err := s.Append(t.Context(), part); err != nil {
			require.ErrorIs(t, err, eventstore.ErrInvalidEvent)
		}
	}
	_, err := s.Append(t.Context(), anAppend())
	require.NoError(t, err)
}

// TestOneRoundTrip: after the first append on a connection, an append is one
// message out and one answer back.
func TestOneRoundTrip(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	config, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	config.MaxConns = 1
	counter := &counter{}
	config.ConnConfig.DialFunc = counter.dial
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(t, err)
	defer pool.Close()
	appendIn(t, pool, anAppend())
	before := counter.writes.Load()
	appendIn(t, pool, anAppend(), anAppend())
	require.EqualValues(t, 1, counter.writes.Load()-before)
}

// TestQueryPlans fails where a question of the contract is answered by reading the
// whole table, on a table with enough rows and fresh statistics.
func TestQueryPlans(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	s := opened(t, url)
	conn := connect(t, url)
	_, err := conn.Exec(ctx, `INSERT INTO api_event_store
		SELECT n, gen_random_uuid(), md5((n / 10)::text)::uuid, n % 10 + 1, 'T' || n % 500, json_build_object('t', repeat('x', 400)), '{}',
			md5((n / 5)::text)::uuid, md5((n / 3)::text)::uuid, 'c' || n % 300 || '/x', now(), now() + n * interval '1 second'
		FROM generate_series(1, 30000) n`)
	require.NoError(t, err)
	_, err = conn.Exec(ctx, `INSERT INTO api_event_ids SELECT event_id, position FROM api_event_store`)
	require.NoError(t, err)
	_, err = conn.Exec(ctx, `ANALYZE`)
	require.NoError(t, err)
	plan := func(text string, args []any) string {
		rows, err := conn.Query(ctx, "EXPLAIN "+text, args...)
		require.NoError(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return strings.Join(lines, "\n")
	}
	id := eventstore.NewID()
	for name, c := range map[string]struct {
		query eventstore.LogQuery
		index string
	}{
		"after":       {eventstore.LogQuery{After: 7}, "using api_event_store_p000000000001_position"},
		"backward":    {eventstore.LogQuery{Before: 7000, Backward: true}, "Backward using api_event_store_p000000000001_position"},
		"type":        {eventstore.LogQuery{Types: []string{"T7"}, After: 7}, "api_event_store_p000000000001_type"},
		"types":       {eventstore.LogQuery{Types: []string{"T7", "T9"}, After: 7, Before: 1008}, "api_event_store_p000000000001_"},
		"category":    {eventstore.LogQuery{Category: "c7", After: 7}, "api_event_store_p000000000001_category"},
		"correlation": {eventstore.LogQuery{CorrelationID: id, After: 7}, "api_event_store_p000000000001_correlation"},
		"causation":   {eventstore.LogQuery{CausationID: id}, "api_event_store_p000000000001_causation"},
		"event ids":   {eventstore.LogQuery{EventIDs: []uuid.UUID{id}}, "api_event_ids_event_id"},
	} {
		got := plan(dialect.Log(c.query, 500))
		require.Contains(t, got, c.index, "%s:\n%s", name, got)
		require.NotContains(t, got, "Seq Scan on api_event_store_p000000000001", name)
	}
	require.Contains(t, plan(dialect.Stream(id, eventstore.StreamQuery{After: 3}, 500)), "api_event_store_p000000000001_version")
	text, args, _ := dialect.Window(eventstore.LogQuery{RecordedFrom: time.Now().Add(29_000 * time.Second)})
	require.Contains(t, plan(text, args), "api_event_store_p000000000001_created_at")

	// What api_append does is seen by the table's counters only.
	var before, after int64
	scans := `SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables WHERE relname IN ('api_event_store_p000000000001', 'api_streams', 'api_event_ids')`
	flush := func(conn *pgx.Conn) {
		// The statement after the one that asks for it tells what was before.
		for range 2 {
			_, err := conn.Exec(ctx, `SELECT pg_stat_force_next_flush()`)
			require.NoError(t, err)
		}
	}
	flush(conn)
	require.NoError(t, conn.QueryRow(ctx, scans).Scan(&before))
	fresh := connect(t, url)
	for range 10 {
		appendIn(t, fresh, anAppend(), anAppend())
	}
	flush(fresh)
	require.NoError(t, conn.QueryRow(ctx, scans).Scan(&after))
	require.Equal(t, before, after, "api_append reads a whole table")
	require.NoError(t, s.Ping(ctx))
}

// TestBothFormats: what is read in binary, as a rule, is what is read as text.
func TestBothFormats(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := migrated(t)
	s := opened(t, url)
	bare, rich := anAppend(), anAppend()
	rich.Events[0].CorrelationID, rich.Events[0].CausationID = eventstore.NewID(), eventstore.NewID()
	rich.Events[0].Data, rich.Events[0].Metadata = []byte(`{"ä": 1.50}`), []byte(`{ }`)
	rich.Events[0].OccurredAt = time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	_, err := s.Append(ctx, bare, rich)
	require.NoError(t, err)
	read := func(mode pgx.QueryExecMode) []eventstore.Event {
		rows, err := connect(t, url).Query(ctx, `SELECT `+backend.Columns+` FROM api_event_store ORDER BY position`, mode)
		require.NoError(t, err)
		require.Equal(t, mode != pgx.QueryExecModeSimpleProtocol, isBinary(rows.FieldDescriptions()))
		events, _, err := scanEvents(rows, 0)
		require.NoError(t, err)
		return events
	}
	want := read(pgx.QueryExecModeSimpleProtocol)
	require.Len(t, want, 2)
	require.Equal(t, want, read(pgx.QueryExecModeCacheStatement))
}
