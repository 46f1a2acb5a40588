package backup_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/backup"
	"github.com/keytrail/keytrail/internal/childprocess"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/lease"
	"github.com/keytrail/keytrail/internal/sqlmigrate"
	"github.com/keytrail/keytrail/projections"
)

// childEnv makes the test binary back up, in a process that may be killed.
const childEnv = "KEYTRAIL_BACKUP_TEST_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(child(text))
	}
	os.Exit(dbtest.Main(m))
}

// store is what a test does to either store.
type store interface {
	eventstore.Store
	ReadDB() *sql.DB
	WriteDB() *sql.DB
}

func opened(t testing.TB, p backup.Place) store {
	s, err := backup.Open(t.Context(), p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s.(store)
}

// migrate makes all tables that the program has.
func migrate(ctx context.Context, p backup.Place) (err error) {
	d, dialect := projections.SQLite, sqlmigrate.SQLite
	if p.URL != "" {
		d, dialect = projections.Postgres, sqlmigrate.Postgres
		err = postgres.Migrate(ctx, p.URL)
	} else {
		err = sqlite.Migrate(ctx, p.Path)
	}
	if err != nil {
		return err
	}
	s, err := backup.Open(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	db := s.(store)
	if err := projections.Migrate(ctx, projections.DB{Read: db.ReadDB(), Write: db.WriteDB(), Dialect: d}); err != nil {
		return err
	}
	if err := lease.Migrate(ctx, db.WriteDB(), dialect); err != nil {
		return err
	}
	for _, name := range []string{"interpret", "users"} {
		if _, err := db.WriteDB().ExecContext(ctx, `INSERT INTO api_projection_checkpoints (name, version, build, position, status, updated_at)
			VALUES ($1, 1, 'b', 0, 'running', '2026-03-01T00:00:00Z') ON CONFLICT DO NOTHING`, name); err != nil {
			return err
		}
	}
	return nil
}

func options() backup.Options {
	return backup.Options{Migrate: migrate, Consumers: []string{"interpret", "gone"}}
}

var kinds = map[string]func(t testing.TB) backup.Place{
	"sqlite":   func(t testing.TB) backup.Place { return backup.Place{Path: filepath.Join(t.TempDir(), "k 1%.db")} },
	"postgres": func(t testing.TB) backup.Place { return backup.Place{URL: dbtest.Postgres(t)} },
}

func migrated(t testing.TB, kind string) backup.Place {
	p := kinds[kind](t)
	require.NoError(t, migrate(t.Context(), p))
	return p
}

func events(n int) []eventstore.NewEvent {
	all := make([]eventstore.NewEvent, n)
	for i := range all {
		all[i] = eventstore.NewEvent{
			ID: eventstore.NewID(), Type: "UserÄpiCreated",
			Data:     json.RawMessage("{ \"b\": 1.50,\n\t\"a\": \"\\u00e4 ä \\\" 😀\", \"b\": 2 }"),
			Metadata: json.RawMessage(`{"schema":1}`), OccurredAt: time.Date(1, 1, 1, 0, 0, i, 7000, time.UTC),
		}
	}
	return all
}

// filled is a store with a bit of everything.
func filled(t testing.TB, kind string, streams int) (backup.Place, []eventstore.StreamAppend) {
	p := migrated(t, kind)
	s := opened(t, p)
	var appends []eventstore.StreamAppend
	for i := range streams {
		part := eventstore.StreamAppend{Stream: eventstore.NamedStream("user", "acme", fmt.Sprintf("f:ü/%d", i)), Events: events(1 + i%3)}
		if i%2 == 1 {
			part.Stream = eventstore.UUIDStream("call", eventstore.NewID())
			part.Events[0].CorrelationID, part.Events[0].CausationID = eventstore.NewID(), eventstore.NewID()
			part.Events[0].OccurredAt = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
		}
		part.Events[0].RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: []byte{0, 255, byte(i)}}
		if i == 0 {
			part.Events[0].RawBody.Bytes = nil
		}
		_, err := s.Append(t.Context(), part)
		require.NoError(t, err)
		appends = append(appends, part)
	}
	leases := lease.New(s.WriteDB(), time.Now)
	for _, name := range []string{"request-secret", "poll/acme"} {
		l, ok, err := leases.Acquire(t.Context(), name, "me", time.Hour)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, l.Save(t.Context(), map[string]string{"of": name}))
		require.NoError(t, l.Ran(t.Context(), time.Date(2026, 3, 1, 12, 0, 0, 5000, time.UTC)))
	}
	_, ok, err := leases.Acquire(t.Context(), "lock", "me", time.Hour)
	require.NoError(t, err)
	require.True(t, ok)
	_, err = s.WriteDB().ExecContext(t.Context(), `UPDATE api_projection_checkpoints SET position = 2`)
	require.NoError(t, err)
	return p, appends
}

// logOf is the log, every field of it.
func logOf(t testing.TB, s eventstore.Reader) (log []eventstore.Event) {
	for e, err := range s.ReadLog(t.Context(), eventstore.LogQuery{}) {
		require.NoError(t, err)
		log = append(log, e)
	}
	return log
}

func sameStore(t testing.TB, want, got store) {
	t.Helper()
	log := logOf(t, want)
	require.Equal(t, log, logOf(t, got))
	sameBeside(t, want, got, log)
}

// sameBeside compares what stands beside the log.
func sameBeside(t testing.TB, want, got store, log []eventstore.Event) {
	t.Helper()
	for _, e := range log {
		body, err := want.RawBody(t.Context(), e.ID)
		copied, copiedErr := got.RawBody(t.Context(), e.ID)
		require.Equal(t, errors.Is(err, eventstore.ErrNotFound), errors.Is(copiedErr, eventstore.ErrNotFound))
		require.Equal(t, body.ContentType, copied.ContentType)
		require.Equal(t, string(body.Bytes), string(copied.Bytes))
	}
	gate := func(s store) (rows []string) {
		all, err := s.ReadDB().QueryContext(t.Context(), `SELECT CAST(aggregate_id AS text), stream, version, first_position, last_position FROM api_streams ORDER BY first_position`)
		require.NoError(t, err)
		defer func() { require.NoError(t, all.Close()) }()
		for all.Next() {
			var id, stream string
			var version, first, last int64
			require.NoError(t, all.Scan(&id, &stream, &version, &first, &last))
			rows = append(rows, fmt.Sprint(id, stream, version, first, last))
		}
		require.NoError(t, all.Err())
		return rows
	}
	require.Equal(t, gate(want), gate(got))
}

func files(t testing.TB, folder string) []string {
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A store is backed up and restored, into the same database and into the other one, and
// goes on as if nothing had happened.
func TestRestoredStoreGoesOn(t *testing.T) {
	t.Parallel()
	for from := range kinds {
		for to := range kinds {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				source, appends := filled(t, from, 40)
				folder := t.TempDir()
				file := filepath.Join(folder, "backup 1%?#.db")
				var stages []backup.Stage
				o := options()
				o.Progress = func(stage backup.Stage, _, _ int64) {
					if !slices.Contains(stages, stage) {
						stages = append(stages, stage)
					}
				}
				made, err := backup.Write(ctx, source, file, o)
				require.NoError(t, err)
				require.EqualValues(t, 79, made.Head)
				require.EqualValues(t, 40, made.Streams)
				require.EqualValues(t, 40, made.RawBodies)
				require.Equal(t, from, made.Source)
				require.Equal(t, []backup.Stage{backup.StageCopy, backup.StageVerify, backup.StageName}, stages)
				require.Equal(t, []string{"backup 1%?#.db"}, files(t, folder))
				info, err := os.Stat(file)
				require.NoError(t, err)
				require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
				require.Equal(t, info.Size(), made.Bytes)

				target := kinds[to](t)
				restored, err := backup.Restore(ctx, file, target, options())
				require.NoError(t, err)
				require.Equal(t, made.Head, restored.Head)
				require.Equal(t, made.Streams, restored.Streams)
				require.Equal(t, made.RawBodies, restored.RawBodies)
				require.Equal(t, made.MadeAt, restored.MadeAt)
				require.Equal(t, []string{"backup 1%?#.db"}, files(t, folder), "the backup is only read")

				old, now := opened(t, source), opened(t, target)
				sameStore(t, old, now)
				goesOn(t, now, appends)
				remembers(t, now)
				v, err := eventstore.Verify(ctx, now, eventstore.VerifyOptions{Now: time.Now()})
				require.NoError(t, err)
				require.Empty(t, v.Faults)

				// The file is a store, too.
				sameStore(t, old, opened(t, backup.Place{Path: file}))
			})
		}
	}
}

func goesOn(t testing.TB, s store, appends []eventstore.StreamAppend) {
	t.Helper()
	ctx := t.Context()
	log := logOf(t, s)
	head := eventstore.Position(len(log))

	// What was recorded before is recognised, whatever it expects.
	for _, part := range appends {
		part.Expected = eventstore.ExpectNone()
		again, err := s.Append(ctx, part)
		require.NoError(t, err)
		require.Equal(t, log[again[0].Position-1], again[0])
	}
	reused := appends[0]
	reused.Events = slices.Clone(reused.Events)
	reused.Events[0].Data = json.RawMessage(`{}`)
	_, err := s.Append(ctx, reused)
	require.ErrorIs(t, err, eventstore.ErrEventIDReused)

	// New events follow: position after position, version after version.
	var conflict *eventstore.ConflictError
	for i, part := range appends {
		version := eventstore.Version(len(part.Events))
		_, err := s.Append(ctx, eventstore.StreamAppend{Stream: part.Stream, Expected: eventstore.ExpectVersion(version - 1), Events: events(1)})
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, version, conflict.Actual)
		added, err := s.Append(ctx, eventstore.StreamAppend{Stream: part.Stream, Expected: eventstore.ExpectVersion(version), Events: events(1)})
		require.NoError(t, err)
		require.Equal(t, head+eventstore.Position(i)+1, added[0].Position)
		require.Equal(t, version+1, added[0].Version)
	}
}

// remembers sees that jobs go on where they were, and that nobody holds a lease.
func remembers(t testing.TB, s store) {
	t.Helper()
	ctx := t.Context()
	leases := lease.New(s.WriteDB(), time.Now)
	for _, name := range []string{"request-secret", "poll/acme"} {
		record, ok, err := leases.Read(ctx, name)
		require.NoError(t, err)
		require.True(t, ok)
		require.JSONEq(t, `{"of":"`+name+`"}`, string(record.State))
		require.Equal(t, time.Date(2026, 3, 1, 12, 0, 0, 5000, time.UTC), record.LastRun)
		require.Empty(t, record.Owner)
		l, ok, err := leases.Acquire(ctx, name, "other", time.Hour)
		require.NoError(t, err)
		require.True(t, ok)
		require.Greater(t, l.Epoch, int64(1))
	}
	_, ok, err := leases.Acquire(ctx, "lock", "other", time.Hour)
	require.NoError(t, err)
	require.True(t, ok)
	for name, want := range map[string]int{"interpret": 2, "users": 0} {
		var position int
		require.NoError(t, s.ReadDB().QueryRowContext(ctx, `SELECT position FROM api_projection_checkpoints WHERE name = $1`, name).Scan(&position))
		require.Equal(t, want, position, name)
	}
}

// Writers go on while a backup is made. What it holds is the beginning of their log.
func TestBackupBesideWriters(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			source, _ := filled(t, kind, 300)
			s := opened(t, source)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var appended atomic.Int64
			var writers sync.WaitGroup
			for range 2 {
				writers.Go(func() {
					stream := eventstore.UUIDStream("call", eventstore.NewID())
					// As fast as could be, the log would grow faster than it is verified.
					tick := time.NewTicker(time.Millisecond)
					defer tick.Stop()
					for ; ctx.Err() == nil; <-tick.C {
						part := eventstore.StreamAppend{Stream: stream, Events: events(2)}
						part.Events[0].RawBody = &eventstore.RawBody{Bytes: []byte("x")}
						if _, err := s.Append(ctx, part); err != nil && ctx.Err() == nil {
							t.Error(err)
							return
						}
						appended.Add(1)
					}
				})
			}
			o := options()
			var before, after int64
			o.Progress = func(stage backup.Stage, done, _ int64) {
				switch {
				case stage == backup.StageCopy && done == 0:
					before = appended.Load()
					require.Eventually(t, func() bool { return appended.Load() > before+20 }, 20*time.Second, time.Millisecond)
				case stage == backup.StageName:
					after = appended.Load()
				}
			}
			var backups []string
			for i := range 3 {
				file := filepath.Join(t.TempDir(), fmt.Sprint(i))
				_, err := backup.Write(t.Context(), source, file, o)
				require.NoError(t, err)
				backups = append(backups, file)
			}
			require.Greater(t, after, before, "nothing was written meanwhile")
			cancel()
			writers.Wait()

			log := logOf(t, s)
			for _, file := range backups {
				copied := opened(t, backup.Place{Path: file})
				part := logOf(t, copied)
				require.NotEmpty(t, part)
				require.Less(t, len(part), len(log))
				require.Equal(t, log[:len(part)], part)
				v, err := eventstore.Verify(t.Context(), copied, eventstore.VerifyOptions{})
				require.NoError(t, err)
				require.Empty(t, v.Faults)
			}
			target := kinds[kind](t)
			_, err := backup.Restore(t.Context(), backups[2], target, options())
			require.NoError(t, err)
		})
	}
}

// childTask is what a child does: it backs up, and stands still where the parent kills it.
type childTask struct {
	Place   backup.Place
	File    string
	StandAt backup.Stage
	// Most is the size of the largest file that it may write, 0 for any.
	Most uint64
}

func child(text string) int {
	var task childTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		return 9
	}
	if task.Most > 0 {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: task.Most, Max: task.Most}); err != nil {
			return 8
		}
	}
	o := options()
	o.Progress = func(stage backup.Stage, _, _ int64) {
		if stage == task.StandAt {
			fmt.Println("standing")
			select {}
		}
	}
	if _, err := backup.Write(context.Background(), task.Place, task.File, o); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func startChild(t *testing.T, task childTask, out *childprocess.Tail) *childprocess.Process {
	text, err := json.Marshal(task)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = out, out
	p, err := childprocess.Start(cmd, syscall.SIGKILL)
	require.NoError(t, err)
	return p
}

func TestKilledBackupLeavesNoFile(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		for _, stage := range []backup.Stage{backup.StageCopy, backup.StageVerify, backup.StageName} {
			t.Run(kind+" "+string(stage), func(t *testing.T) {
				t.Parallel()
				source, _ := filled(t, kind, 10)
				folder := t.TempDir()
				file := filepath.Join(folder, "k.backup")
				require.NoError(t, os.WriteFile(file+"-of-mine", nil, 0o600))
				var out childprocess.Tail
				p := startChild(t, childTask{Place: source, File: file, StandAt: stage}, &out)
				require.Eventually(t, func() bool { return strings.Contains(out.String(), "standing") || p.Err() != nil }, 20*time.Second, 5*time.Millisecond)
				require.NoError(t, p.Err(), out.String())
				require.NoError(t, p.Kill())
				require.NoFileExists(t, file)
				if stage != backup.StageCopy {
					require.True(t, slices.ContainsFunc(files(t, folder), func(n string) bool { return strings.HasPrefix(n, "k.backup.partial-") }))
				}
				_, err := backup.Write(t.Context(), source, file, options())
				require.NoError(t, err)
				require.Equal(t, []string{"k.backup", "k.backup-of-mine"}, files(t, folder))
			})
		}
	}
}

// A disk that takes no more: said plainly, and nothing is left.
func TestBackupToAFullDisk(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			source, _ := filled(t, kind, 200)
			folder := t.TempDir()
			var out childprocess.Tail
			p := startChild(t, childTask{Place: source, File: filepath.Join(folder, "k.backup"), Most: 150_000}, &out)
			<-p.Done()
			require.ErrorContains(t, p.Err(), "exit status 1", out.String())
			require.Contains(t, out.String(), "event store is unavailable")
			require.Empty(t, files(t, folder))
		})
	}
}

// Whatever byte is flipped: a backup is refused, or what is restored is what was backed
// up, because the byte was in a part that does not matter.
func TestDamagedBackup(t *testing.T) {
	t.Parallel()
	source, _ := filled(t, "sqlite", 30)
	file := filepath.Join(t.TempDir(), "k.backup")
	_, err := backup.Write(t.Context(), source, file, options())
	require.NoError(t, err)
	sound, err := os.ReadFile(file)
	require.NoError(t, err)
	want := opened(t, source)

	attempt := func(name string, content []byte) (refused bool) {
		folder := t.TempDir()
		damaged := filepath.Join(folder, "damaged")
		require.NoError(t, os.WriteFile(damaged, content, 0o600))
		target := backup.Place{Path: filepath.Join(folder, "k.db")}
		_, err := backup.Restore(t.Context(), damaged, target, options())
		if err != nil {
			require.Equal(t, []string{"damaged"}, files(t, folder), "%s: nothing is written: %v", name, err)
			return true
		}
		got, err := backup.Open(t.Context(), target)
		require.NoError(t, err)
		sameStore(t, want, got.(store))
		remembers(t, got.(store))
		require.NoError(t, got.Close())
		return false
	}
	for _, size := range []int{0, 1, 100, 4096, 4097, len(sound) / 2, len(sound) - 4096, len(sound) - 1} {
		require.True(t, attempt(fmt.Sprint("cut to ", size), sound[:size]))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	refused, flips := 0, 40
	if testing.Short() {
		flips = 5
	}
	for range flips {
		content := slices.Clone(sound)
		at, bit := random.IntN(len(content)), random.IntN(8)
		content[at] ^= 1 << bit
		if attempt(fmt.Sprintf("bit %d of byte %d, seed %d", bit, at, seed), content) {
			refused++
		}
	}
	t.Logf("%d of %d refused", refused, flips)

	// Where it matters most: in what an event says, and in a body.
	for _, text := range []string{"UserÄpiCreated", `\u00e4`, `{"schema":1}`, "acme", "text/plain", "request-secret", `"position":2`, "sha256:"} {
		content := slices.Clone(sound)
		at := strings.Index(string(content), text)
		require.Positive(t, at, text)
		content[at+1] ^= 1
		attempt(text, content)
	}
}

// A flip in an event's text alone leaves a sound database: only the digest tells.
func TestChangedEventIsRefused(t *testing.T) {
	t.Parallel()
	source, _ := filled(t, "sqlite", 3)
	for name, statement := range map[string]string{
		"data":     `UPDATE api_event_store SET event_data = '{}' WHERE position = 2`,
		"time":     `UPDATE api_event_store SET occurred_at = created_at WHERE position = 1`,
		"body":     `UPDATE api_raw_bodies SET body = x'00'`,
		"a body":   `DELETE FROM api_raw_bodies WHERE rowid = 1`,
		"type":     `UPDATE api_raw_bodies SET content_type = 'a/b'`,
		"last":     `DELETE FROM api_event_store WHERE position = (SELECT max(position) FROM api_event_store)`,
		"manifest": `UPDATE keytrail_backup SET manifest = replace(manifest, '"position":2', '"position":3')`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "k.backup")
			_, err := backup.Write(t.Context(), source, file, options())
			require.NoError(t, err)
			tamper(t, file, statement)
			target := kinds["sqlite"](t)
			_, err = backup.Restore(t.Context(), file, target, options())
			var damaged *backup.DamagedError
			require.ErrorAs(t, err, &damaged)
			require.NoFileExists(t, target.Path)
		})
	}
}

// tamper changes a file past the store.
func tamper(t testing.TB, path string, statements ...string) {
	db, err := sql.Open("sqlite", "file:"+path)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for _, s := range append([]string{
		`DROP TRIGGER IF EXISTS api_event_store_no_update`, `DROP TRIGGER IF EXISTS api_event_store_no_delete`, `DROP TRIGGER IF EXISTS api_streams_no_delete`,
	}, statements...) {
		_, err := db.ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// A page that is overwritten: all that can still be said of the store is said.
func TestVerifyOfADamagedFile(t *testing.T) {
	t.Parallel()
	source, _ := filled(t, "sqlite", 200)
	whole := filepath.Join(t.TempDir(), "whole.db") // without a log of changes beside it
	require.NoError(t, sqlite.CopyTo(t.Context(), source.Path, whole))
	content, err := os.ReadFile(whole)
	require.NoError(t, err)
	page := strings.LastIndex(string(content), "UserÄpiCreated") / 4096 * 4096
	copy(content[page:], make([]byte, 4096))
	path := filepath.Join(t.TempDir(), "damaged.db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	v, err := eventstore.Verify(t.Context(), opened(t, backup.Place{Path: path}), eventstore.VerifyOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, v.Faults)
	for _, f := range v.Faults {
		require.NotContains(t, f.Detail, "\n")
	}
	require.Equal(t, eventstore.FaultUnreadable, v.Faults[0].Kind)
}

func TestDamagedStoreIsNotBackedUp(t *testing.T) {
	t.Parallel()
	source, _ := filled(t, "sqlite", 3)
	tamper(t, source.Path, `DELETE FROM api_streams WHERE first_position = 1`)
	folder := t.TempDir()
	_, err := backup.Write(t.Context(), source, filepath.Join(folder, "k.backup"), options())
	var damaged *backup.DamagedError
	require.ErrorAs(t, err, &damaged)
	require.Equal(t, eventstore.FaultGate, damaged.Faults[0].Kind)
	require.Empty(t, files(t, folder))
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	source, _ := filled(t, "sqlite", 3)
	folder := t.TempDir()
	file := filepath.Join(folder, "k.backup")
	_, err := backup.Write(t.Context(), source, file, options())
	require.NoError(t, err)
	content, err := os.ReadFile(file)
	require.NoError(t, err)

	_, err = backup.Write(t.Context(), source, file, options())
	require.ErrorIs(t, err, backup.ErrFileExists)
	_, err = backup.Write(t.Context(), source, filepath.Join(folder, "no", "such"), options())
	require.ErrorIs(t, err, fs.ErrNotExist)
	var schema *eventstore.SchemaError
	_, err = backup.Write(t.Context(), backup.Place{Path: filepath.Join(folder, "nothing.db")}, filepath.Join(folder, "new"), options())
	require.Error(t, err)
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, content, after)
	require.Equal(t, []string{"k.backup"}, files(t, folder))

	for kind := range kinds {
		full, _ := filled(t, kind, 1)
		_, err = backup.Restore(t.Context(), file, full, options())
		require.ErrorIs(t, err, eventstore.ErrNotEmpty, kind)
		// A store that is begun between the look and the work.
		o := options()
		o.Migrate = func(ctx context.Context, p backup.Place) error {
			require.NoError(t, migrate(ctx, p))
			_, err := opened(t, p).Append(ctx, eventstore.StreamAppend{Stream: eventstore.NamedStream("a"), Events: events(1)})
			return err
		}
		begun := kinds[kind](t)
		_, err = backup.Restore(t.Context(), file, begun, o)
		require.ErrorIs(t, err, eventstore.ErrNotEmpty, kind)
		require.Len(t, logOf(t, opened(t, begun)), 1)
	}

	target := kinds["sqlite"](t)
	_, err = backup.Restore(t.Context(), filepath.Join(folder, "nothing"), target, options())
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = backup.Restore(t.Context(), folder, target, options())
	require.ErrorIs(t, err, backup.ErrNotABackup)
	_, err = backup.Restore(t.Context(), source.Path, target, options())
	require.ErrorIs(t, err, backup.ErrNotABackup, "a store is none")
	for name, text := range map[string]string{"empty": "", "text": strings.Repeat("no database ", 1000)} {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err = backup.Restore(t.Context(), path, target, options())
		require.ErrorIs(t, err, backup.ErrNotABackup, name)
	}
	tamper(t, file, `INSERT INTO api_schema_version (version_id, is_applied) VALUES (99, 1)`)
	_, err = backup.Restore(t.Context(), file, target, options())
	require.ErrorAs(t, err, &schema)
	require.EqualValues(t, 99, schema.Current)
	require.NoFileExists(t, target.Path)
}

func TestBackupWithAnOlderSchema(t *testing.T) {
	t.Parallel()
	source, appends := filled(t, "sqlite", 5)
	folder := t.TempDir()
	file := filepath.Join(folder, "k.backup")
	_, err := backup.Write(t.Context(), source, file, options())
	require.NoError(t, err)
	tamper(t, file, `ALTER TABLE api_snapshots DROP COLUMN digest`, `DELETE FROM api_schema_version WHERE version_id > 1`)
	old, err := os.ReadFile(file)
	require.NoError(t, err)
	for kind := range kinds {
		target := kinds[kind](t)
		_, err = backup.Restore(t.Context(), file, target, options())
		require.NoError(t, err)
		s := opened(t, target)
		sameStore(t, opened(t, source), s)
		goesOn(t, s, appends)
		if target.URL == "" {
			require.Len(t, files(t, filepath.Dir(target.Path)), 3, "the database and what is beside it while it is open")
		}
	}
	now, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, old, now, "the backup is only read")
}

// Old partitions that are kept elsewhere: what is there is verified, and no backup is
// made that would forget the rest.
func TestDetachedPartitions(t *testing.T) {
	t.Parallel()
	source := kinds["postgres"](t)
	require.NoError(t, migrate(t.Context(), source))
	admin := opened(t, source).WriteDB()
	exec := func(statement string) {
		_, err := admin.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	// Small ones: the first has the positions up to 20.
	exec(`CREATE OR REPLACE FUNCTION api_partition_size() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 20::bigint'`)
	exec(`ALTER TABLE api_event_store DETACH PARTITION api_event_store_p000002000001`)
	exec(`DROP TABLE api_event_store_p000002000001`)
	exec(`ALTER TABLE api_event_store DETACH PARTITION api_event_store_p000000000001`)
	exec(`ALTER TABLE api_event_store ATTACH PARTITION api_event_store_p000000000001 FOR VALUES FROM (1) TO (21)`)
	exec(`DELETE FROM api_partitions`)
	exec(`INSERT INTO api_partitions (first_position, end_position, name) VALUES (1, 21, 'api_event_store_p000000000001')`)
	exec(`SELECT api_prepare_partitions(60)`)
	s := opened(t, source)
	both := eventstore.NamedStream("user", "both")
	for range 10 {
		for _, stream := range []eventstore.StreamID{both, eventstore.UUIDStream("call", eventstore.NewID())} {
			_, err := s.Append(t.Context(), eventstore.StreamAppend{Stream: stream, Events: events(2)})
			require.NoError(t, err)
		}
	}
	exec(`ALTER TABLE api_event_store DETACH PARTITION api_event_store_p000000000001`)
	v, err := eventstore.Verify(t.Context(), s, eventstore.VerifyOptions{})
	require.NoError(t, err)
	require.Empty(t, v.Faults)
	require.EqualValues(t, 21, v.First)
	require.EqualValues(t, 20, v.Events)
	require.EqualValues(t, 6, v.Streams)

	folder := t.TempDir()
	_, err = backup.Write(t.Context(), source, filepath.Join(folder, "k.backup"), options())
	require.ErrorIs(t, err, backup.ErrLogElsewhere)
	require.Empty(t, files(t, folder))
}

// A backup that was read as a store, which has appended what followed from its
// deliveries, is restored with that.
func TestBackupThatWasUsed(t *testing.T) {
	t.Parallel()
	source, appends := filled(t, "sqlite", 5)
	file := filepath.Join(t.TempDir(), "k.backup")
	_, err := backup.Write(t.Context(), source, file, options())
	require.NoError(t, err)
	used := opened(t, backup.Place{Path: file})
	_, err = used.Append(t.Context(), eventstore.StreamAppend{Stream: appends[0].Stream, Events: events(2)})
	require.NoError(t, err)

	for kind := range kinds {
		target := kinds[kind](t)
		restored, err := backup.Restore(t.Context(), file, target, options()) // while it is open
		require.NoError(t, err)
		require.EqualValues(t, 11, restored.Head)
		sameStore(t, used, opened(t, target))
	}
	tamper(t, file, `UPDATE api_event_store SET event_type = 'X' WHERE position = 1`)
	var damaged *backup.DamagedError
	_, err = backup.Restore(t.Context(), file, kinds["sqlite"](t), options())
	require.ErrorAs(t, err, &damaged)

	// A backup of a backup has a manifest of its own.
	again := filepath.Join(t.TempDir(), "again")
	_, err = backup.Write(t.Context(), backup.Place{Path: file}, again, options())
	require.NoError(t, err)
	_, err = backup.Restore(t.Context(), again, kinds["sqlite"](t), options())
	require.NoError(t, err)
}

func TestRestoreIntoAnEmptyStoreInUse(t *testing.T) {
	t.Parallel()
	source, _ := filled(t, "sqlite", 5)
	file := filepath.Join(t.TempDir(), "k.backup")
	_, err := backup.Write(t.Context(), source, file, options())
	require.NoError(t, err)
	for kind := range kinds {
		target := migrated(t, kind)
		s := opened(t, target)
		waited := make(chan error, 1)
		go func() {
			_, err := s.Wait(t.Context(), 0)
			waited <- err
		}()
		_, err := backup.Restore(t.Context(), file, target, options())
		require.NoError(t, err)
		require.NoError(t, <-waited, "whoever follows the log sees it")
		sameStore(t, opened(t, source), s)
	}
}

func TestCancelledBackup(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		source, _ := filled(t, kind, 5)
		for _, at := range []backup.Stage{backup.StageCopy, backup.StageVerify} {
			ctx, cancel := context.WithCancel(t.Context())
			o := options()
			o.Progress = func(stage backup.Stage, _, _ int64) {
				if stage == at {
					cancel()
				}
			}
			folder := t.TempDir()
			_, err := backup.Write(ctx, source, filepath.Join(folder, "k.backup"), o)
			require.ErrorIs(t, err, context.Canceled, "%s %s", kind, at)
			require.Empty(t, files(t, folder))
			cancel()
		}
	}
}

func TestEmptyStore(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		file := filepath.Join(t.TempDir(), "k.backup")
		_, err := backup.Write(t.Context(), migrated(t, kind), file, options())
		require.NoError(t, err)
		target := kinds[kind](t)
		r, err := backup.Restore(t.Context(), file, target, options())
		require.NoError(t, err)
		require.Zero(t, r.Head)
	}
}
