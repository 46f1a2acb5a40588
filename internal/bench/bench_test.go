package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/bench"
	"github.com/keytrail/keytrail/internal/dbtest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// setup returns where to measure and a check that nothing is left there.
type setup func(t *testing.T) (u config.StoreURL, nothingLeft func())

func stores() map[string]setup {
	return map[string]setup{
		"sqlite": func(t *testing.T) (config.StoreURL, func()) {
			dir := t.TempDir()
			path := filepath.Join(dir, "keytrail.db")
			require.NoError(t, os.WriteFile(path, []byte("a store that is not to be touched"), 0o600))
			u, err := config.ParseStoreURL("sqlite:" + path)
			require.NoError(t, err)
			return u, func() {
				entries, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Len(t, entries, 1)
				content, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, "a store that is not to be touched", string(content))
			}
		},
		"postgres": func(t *testing.T) (config.StoreURL, func()) {
			text := dbtest.Postgres(t)
			u, err := config.ParseStoreURL(text)
			require.NoError(t, err)
			return u, func() {
				conn, err := pgx.Connect(t.Context(), text)
				require.NoError(t, err)
				rows, err := conn.Query(t.Context(), `SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'keytrail%'
					UNION ALL SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public'`)
				require.NoError(t, err)
				left, err := pgx.CollectRows(rows, pgx.RowTo[string])
				require.NoError(t, err)
				require.Empty(t, left)
				require.NoError(t, conn.Close(t.Context()))
			}
		},
	}
}

// TestReports runs everything, much shortened, and judges the form and never the figures.
func TestReports(t *testing.T) {
	t.Parallel()
	for store, place := range stores() {
		for name, o := range map[string]bench.Options{
			"append":    {Name: bench.Append},
			"growth":    {Name: bench.Append, Growth: true, Size: 10_000},
			"replay":    {Name: bench.Replay, Size: 2500},
			"subscribe": {Name: bench.Subscribe, Size: 2500},
			"rebuild":   {Name: bench.Rebuild, Size: 2500},
		} {
			t.Run(store+"/"+name, func(t *testing.T) {
				t.Parallel()
				u, nothingLeft := place(t)
				o.Store, o.Quick = u, true
				var turns []string
				report, err := bench.Run(t.Context(), bench.Scaled(o, 0.04, func(round int, side string) {
					turns = append(turns, string(rune('0'+round))+side)
				}))
				require.NoError(t, err)
				nothingLeft()
				requireContract(t, report, o.Name, store)
				requireAlternation(t, turns)
				var text bytes.Buffer
				require.NoError(t, report.WriteText(&text))
				for _, r := range report.Results {
					require.Contains(t, text.String(), r.Case)
					require.Contains(t, text.String(), r.Limit)
				}
			})
		}
	}
}

func requireContract(t *testing.T, report *bench.Report, name, store string) {
	t.Helper()
	raw, err := json.Marshal(report)
	require.NoError(t, err)
	var printed map[string]any
	require.NoError(t, json.Unmarshal(raw, &printed))
	for _, member := range []string{"bench", "store", "machine", "noisy", "results"} {
		require.Contains(t, printed, member)
	}
	require.Equal(t, name, printed["bench"])
	require.Equal(t, store, printed["store"])
	machine := printed["machine"].(map[string]any)
	require.Positive(t, machine["cpus"])
	require.Contains(t, machine["go"], "go1.")
	require.Regexp(t, `^(PostgreSQL|SQLite) \d+`, machine["db"])
	if _, known := printed["noisy"].(bool); !known {
		require.Nil(t, printed["noisy"])
	}
	results := printed["results"].([]any)
	require.NotEmpty(t, results)
	for _, r := range results {
		result := r.(map[string]any)
		// On a machine that is busy enough, a subscriber gets nothing within a slice.
		for _, member := range []string{"per_s", "limit_per_s", "ratio", "ratio_min", "ratio_max", "writers", "p50_ms", "p99_ms", "peak_rss_mib"} {
			require.GreaterOrEqual(t, result[member], 0.0, member)
		}
		require.NotEmpty(t, result["case"])
		require.NotEmpty(t, result["limit"])
		require.LessOrEqual(t, result["ratio_min"], result["ratio"])
		require.LessOrEqual(t, result["ratio"], result["ratio_max"])
		require.EqualValues(t, 5, result["pairs"])
	}
}

// requireAlternation: every side has one turn in each of five rounds.
func requireAlternation(t *testing.T, turns []string) {
	t.Helper()
	require.NotEmpty(t, turns)
	for len(turns) > 0 {
		// The sides of a measurement are those of its first round.
		sides := slices.IndexFunc(turns, func(s string) bool { return s[0] == '1' })
		require.Positive(t, sides)
		require.GreaterOrEqual(t, len(turns), 5*sides)
		want := slices.Sorted(slices.Values(names(turns[:sides])))
		require.Len(t, slices.Compact(slices.Clone(want)), sides)
		for round := range 5 {
			require.Equal(t, want, slices.Sorted(slices.Values(names(turns[round*sides:(round+1)*sides]))))
			require.Equal(t, byte('0'+round), turns[round*sides][0])
		}
		turns = turns[5*sides:]
	}
}

func names(turns []string) []string {
	out := make([]string, len(turns))
	for i, s := range turns {
		out[i] = s[1:]
	}
	return out
}

func TestInterruptionLeavesNothing(t *testing.T) {
	t.Parallel()
	for store, place := range stores() {
		for name, size := range map[string]int{bench.Append: 0, bench.Replay: 2500, bench.Subscribe: 2500, bench.Rebuild: 2500} {
			t.Run(store+"/"+name, func(t *testing.T) {
				t.Parallel()
				u, nothingLeft := place(t)
				ctx, interrupt := context.WithCancel(t.Context())
				defer interrupt()
				report, err := bench.Run(ctx, bench.Scaled(bench.Options{Name: name, Store: u, Quick: true, Size: size}, 0.04,
					func(int, string) { interrupt() }))
				require.ErrorIs(t, err, context.Canceled)
				require.Nil(t, report)
				nothingLeft()
			})
		}
	}
}

func TestWithoutAStoreItIsATemporaryFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	report, err := bench.Run(t.Context(), bench.Scaled(bench.Options{Name: bench.Replay, Quick: true, Size: 1000}, 0.04, nil))
	require.NoError(t, err)
	require.Equal(t, "sqlite", report.Store)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for problem, o := range map[string]bench.Options{
		"there is no benchmark": {Name: "nope"},
		"goes with append":      {Name: bench.Replay, Growth: true},
		"too small":             {Name: bench.Replay, Size: 5},
		"number of events":      {Name: bench.Replay, Size: -5},
		"takes no size":         {Name: bench.Append, Size: 5000},
	} {
		_, err := bench.Run(t.Context(), o)
		var usage *bench.UsageError
		require.ErrorAs(t, err, &usage)
		require.ErrorContains(t, err, problem)
	}
	for _, name := range []string{"ingest", "outbound", "reconcile", "inspect"} {
		require.True(t, bench.Planned(name))
	}
	require.False(t, slices.ContainsFunc(bench.Names(), bench.Planned))
}

func TestStoreOutOfReach(t *testing.T) {
	t.Parallel()
	u, err := config.ParseStoreURL("postgres://keytrail:hunter2@127.0.0.1:1/keytrail?sslmode=disable&connect_timeout=5")
	require.NoError(t, err)
	_, err = bench.Run(t.Context(), bench.Options{Name: bench.Append, Store: u})
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.NotContains(t, err.Error(), "hunter2")

	u, err = config.ParseStoreURL("sqlite:" + filepath.Join(t.TempDir(), "none", "k.db"))
	require.NoError(t, err)
	_, err = bench.Run(t.Context(), bench.Options{Name: bench.Append, Store: u})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFigures(t *testing.T) {
	t.Parallel()
	require.Zero(t, bench.Median(nil))
	require.Equal(t, 2.0, bench.Median([]float64{9, 1, 2}))
	require.Equal(t, 1.5, bench.Median([]float64{9, 1, 2, 0.5}))
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i)*time.Millisecond)
	}
	require.Equal(t, 50.0, bench.Quantile(all, 0.50))
	require.Equal(t, 99.0, bench.Quantile(all, 0.99))
	require.Equal(t, 100.0, bench.Quantile(all, 1))
	require.Zero(t, bench.Quantile(nil, 0.99))
}

func TestTextSaysWhatWasMissed(t *testing.T) {
	t.Parallel()
	noisy, share, reached, missed := true, 0.51, true, false
	report := bench.Report{
		Bench: "append", Store: "sqlite", Machine: bench.Machine{CPUs: 2, Go: "go1.26", DB: "SQLite 3"}, Noisy: &noisy, OthersCores: &share,
		Results: []bench.Result{
			{Case: "first", Writers: 64, PerS: 1234567, Limit: "a limit", LimitPerS: 10, Ratio: 0.5, RatioMin: 0.4, RatioMax: 0.6, Target: &bench.Target{AtLeast: 0.7}, Reached: &missed},
			{Case: "second", Limit: "another", Ratio: 2, Target: &bench.Target{AtMost: 3}, Reached: &reached},
			{Case: "third", Limit: "no judge"},
		},
	}
	var text strings.Builder
	require.NoError(t, report.WriteText(&text))
	require.Contains(t, text.String(), "Noisy: others used 51 % of a core.")
	require.Regexp(t, `first +64 +1,234,567 .* 0\.50 +\[0\.40–0\.60\] +≥ 0\.7 +missed +0 +a limit`, text.String())
	require.Regexp(t, `second .* ≤ 3 +reached`, text.String())
	report.Noisy, report.NoisyUnknown = nil, "nobody tells"
	text.Reset()
	require.NoError(t, report.WriteText(&text))
	require.Contains(t, text.String(), "not known: nobody tells.")
}
