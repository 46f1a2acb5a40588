package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
	"github.com/keytrail/keytrail/eventstore/storetest"
	"github.com/keytrail/keytrail/internal/suitetest"
)

func TestMain(m *testing.M) { os.Exit(suitetest.Main(m)) }

func TestStore(t *testing.T) { storetest.Run(t, create) }

func TestSnapshotter(t *testing.T) { storetest.RunSnapshots(t, create) }

func BenchmarkAppend(b *testing.B)  { storetest.BenchmarkAppend(b, create) }
func BenchmarkReadLog(b *testing.B) { storetest.BenchmarkReadLog(b, create) }

func migrated(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "keytrail 100%?#.db")
	require.NoError(t, Migrate(t.Context(), path))
	return path
}

func opened(t testing.TB, path string) *Store {
	s, err := Open(t.Context(), path, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func create(t testing.TB) storetest.Database {
	path := migrated(t)
	return storetest.Database{
		Open: func(t testing.TB, clock func() time.Time) eventstore.Store {
			s, err := Open(t.Context(), path, Options{Clock: clock})
			require.NoError(t, err)
			return s
		},
		Hold: func(t testing.TB, appends ...eventstore.StreamAppend) func() error {
			s, err := Open(t.Context(), path, Options{})
			require.NoError(t, err)
			plan, err := backend.NewPlan(appends)
			require.NoError(t, err)
			tx, err := s.write.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, _, err = s.appendTx(t.Context(), tx, backend.BatchOf(plan))
			require.NoError(t, err)
			return func() error { return errors.Join(tx.Commit(), s.Close()) }
		},
		Exec: func(ctx context.Context, text string) (err error) {
			db, err := open(path, 1, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, db.Close()) }()
			_, err = db.ExecContext(ctx, text)
			return err
		},
		Tampering: []string{
			`UPDATE api_event_store SET event_type = 'B'`,
			`UPDATE OR REPLACE api_event_store SET position = 2 WHERE position = 1`,
			`DELETE FROM api_event_store`, // SQLite's TRUNCATE
			`DELETE FROM api_event_store WHERE position = 2`,
			replaceSQL("position", "'x'", "'x'", "1"),
			replaceSQL("7", "event_id", "'x'", "1"),
			replaceSQL("7", "'x'", "aggregate_id", "version"),
			`DELETE FROM api_streams`,
		},
	}
}

func replaceSQL(position, eventID, aggregateID, version string) string {
	return `INSERT OR REPLACE INTO api_event_store (` + backend.Columns + `)
		SELECT ` + strings.Join([]string{position, eventID, aggregateID, "stream", version}, ", ") +
		`, 'B', '{}', '{}', NULL, NULL, occurred_at, created_at FROM api_event_store WHERE position = 1`
}

func event() eventstore.NewEvent {
	return eventstore.NewEvent{ID: eventstore.NewID(), Type: "A", Data: []byte(`{}`), Metadata: []byte(`{}`), OccurredAt: time.Now()}
}

func anAppend() eventstore.StreamAppend {
	return eventstore.StreamAppend{Stream: eventstore.UUIDStream("call", eventstore.NewID()), Events: []eventstore.NewEvent{event()}}
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
	path := filepath.Join(t.TempDir(), "keytrail.db")
	var schema *eventstore.SchemaError

	_, err := Open(ctx, path, Options{})
	require.ErrorAs(t, err, &schema)
	require.Equal(t, eventstore.SchemaError{Current: 0, Supported: newest(t)}, *schema)
	require.NoFileExists(t, path, "a mistyped path must not become an empty log")

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = Open(ctx, path, Options{})
	require.ErrorAs(t, err, &schema)

	require.NoError(t, Migrate(ctx, path))
	require.NoError(t, Migrate(ctx, path), "twice does no harm")
	s := opened(t, path)
	_, err = s.WriteDB().ExecContext(ctx, `INSERT INTO `+VersionTable+` (version_id, is_applied) VALUES (99, 1)`)
	require.NoError(t, err)
	newer := eventstore.SchemaError{Current: 99, Supported: newest(t)}
	require.ErrorAs(t, s.Ping(ctx), &schema)
	require.Equal(t, newer, *schema)
	_, err = Open(ctx, path, Options{})
	require.ErrorAs(t, err, &schema)
	require.Equal(t, newer, *schema)
	require.ErrorAs(t, Migrate(ctx, path), &schema)
	require.Equal(t, newer, *schema)
}

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	errs := make([]error, 8)
	var done sync.WaitGroup
	for i := range errs {
		done.Go(func() { errs[i] = Migrate(t.Context(), path) })
	}
	done.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	var applied int
	require.NoError(t, opened(t, path).ReadDB().QueryRowContext(t.Context(), `SELECT count(*) FROM `+VersionTable).Scan(&applied))
	require.EqualValues(t, newest(t)+1, applied, "version 0 and each migration, once")
}

func TestFileIsReadableByItsOwnerOnly(t *testing.T) {
	t.Parallel()
	path := migrated(t)
	s := opened(t, path)
	_, err := s.Append(t.Context(), anAppend())
	require.NoError(t, err)
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(path + suffix)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), suffix)
	}
}

// TestOpenAfterACrash: what a killed process leaves is a file and its log of
// changes, of which Open makes a whole.
func TestOpenAfterACrash(t *testing.T) {
	t.Parallel()
	path := migrated(t)
	s := opened(t, path)
	var want []eventstore.Event
	for range 20 {
		events, err := s.Append(t.Context(), anAppend())
		require.NoError(t, err)
		want = append(want, events...)
	}
	left := filepath.Join(t.TempDir(), "left.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(left+suffix, content, 0o600))
	}
	after := opened(t, left)
	var got []eventstore.Event
	for e, err := range after.ReadLog(t.Context(), eventstore.LogQuery{}) {
		require.NoError(t, err)
		got = append(got, e)
	}
	require.Equal(t, want, got)
	_, err := after.Append(t.Context(), anAppend())
	require.NoError(t, err)
}

func TestConnectionsAreSetUp(t *testing.T) {
	t.Parallel()
	s := opened(t, migrated(t))
	pragma := func(db *sql.DB, name string) (value string) {
		require.NoError(t, db.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&value))
		return value
	}
	require.Equal(t, "wal", pragma(s.write, "journal_mode"))
	require.Equal(t, "2", pragma(s.write, "synchronous"), "FULL")
	require.Equal(t, "5000", pragma(s.write, "busy_timeout"))
	_, err := s.ReadDB().ExecContext(t.Context(), `DELETE FROM api_raw_bodies`)
	require.Error(t, err, "ReadDB reads")
}

func TestAppendIsUnavailableWhileTheWriterIsInUse(t *testing.T) {
	t.Parallel()
	s := opened(t, migrated(t))
	tx, err := s.WriteDB().BeginTx(t.Context(), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	part := anAppend()
	go func() {
		_, err := s.Append(ctx, part)
		result <- err
	}()
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	require.NoError(t, tx.Rollback())
	_, err = s.Append(t.Context(), part)
	require.NoError(t, err)
}

func TestErrorsOfTheDiskAreUnavailable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := migrated(t)
	s := opened(t, path)

	// The file may not grow: what SQLite says of a full disk.
	var pages int
	require.NoError(t, s.WriteDB().QueryRowContext(ctx, `PRAGMA page_count`).Scan(&pages))
	_, err := s.WriteDB().ExecContext(ctx, `PRAGMA max_page_count = 1`) // as few as there are
	require.NoError(t, err)
	large := anAppend()
	large.Events[0].RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: make([]byte, 1<<20)}
	_, err = s.Append(ctx, large)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.ErrorContains(t, err, "the disk is full")
	_, err = s.WriteDB().ExecContext(ctx, `PRAGMA max_page_count = 1000000`)
	require.NoError(t, err)
	_, err = s.Append(ctx, large)
	require.NoError(t, err, "the same append may be tried again")
}

func TestBusyDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := migrated(t)
	s, other := opened(t, path), opened(t, path)
	_, err := s.WriteDB().ExecContext(ctx, `PRAGMA busy_timeout = 1`)
	require.NoError(t, err)
	tx, err := other.WriteDB().BeginTx(ctx, nil)
	require.NoError(t, err)
	part := anAppend()
	_, err = s.Append(ctx, part)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.NoError(t, tx.Rollback())
	_, err = s.Append(ctx, part)
	require.NoError(t, err)
}

// TestQueryPlans fails where a question of the contract is answered by reading the
// whole table, or by sorting.
func TestQueryPlans(t *testing.T) {
	t.Parallel()
	s := opened(t, migrated(t))
	id := eventstore.NewID()
	plan := func(text string, args []any) string {
		rows, err := s.ReadDB().QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+text, args...)
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		var lines []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
			lines = append(lines, detail)
		}
		require.NoError(t, rows.Err())
		return strings.Join(lines, "\n")
	}
	for name, c := range map[string]struct {
		query eventstore.LogQuery
		index string
	}{
		"after":       {eventstore.LogQuery{After: 7}, "INTEGER PRIMARY KEY (rowid>?)"},
		"backward":    {eventstore.LogQuery{Before: 7, Backward: true}, "INTEGER PRIMARY KEY (rowid<?)"},
		"type":        {eventstore.LogQuery{Types: []string{"A"}, After: 7}, "api_event_store_type (event_type=? AND rowid>?)"},
		"types":       {eventstore.LogQuery{Types: []string{"A", "B"}, After: 7, Before: 1008}, "rowid>? AND rowid<?"},
		"category":    {eventstore.LogQuery{Category: "user", After: 7}, "api_event_store_category (<expr>=? AND rowid>?)"},
		"correlation": {eventstore.LogQuery{CorrelationID: id, After: 7}, "api_event_store_correlation (correlation_id=? AND rowid>?)"},
		"causation":   {eventstore.LogQuery{CausationID: id}, "api_event_store_causation (causation_id=?)"},
		"event ids":   {eventstore.LogQuery{EventIDs: []uuid.UUID{id}}, "api_event_store_event_id (event_id=?)"},
	} {
		got := plan(dialect.Log(c.query, 500))
		require.Contains(t, got, c.index, name)
		require.NotContains(t, got, "SCAN api_event_store", name)
		if len(c.query.EventIDs) == 0 && len(c.query.Types) < 2 { // a window is sorted, which is small
			require.NotContains(t, got, "TEMP B-TREE", name)
		}
	}
	require.Contains(t, plan(dialect.Stream(id, eventstore.StreamQuery{After: 3}, 500)), "api_event_store_version (aggregate_id=? AND version>?)")
	text, args, _ := dialect.Window(eventstore.LogQuery{RecordedFrom: time.Now()})
	require.Contains(t, plan(text, args), "COVERING INDEX api_event_store_created_at (created_at>?)")
}
