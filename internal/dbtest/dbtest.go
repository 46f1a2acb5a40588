// Package dbtest gives tests real databases: a fresh PostgreSQL database or
// SQLite file per test, and PostgreSQL clusters that a test may crash.
//
// A package that uses Postgres calls Main from its TestMain, so that the
// cluster is started once per process and stopped at its end:
//
//	func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }
package dbtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/internal/suitetest"
)

// PostgresURLEnv names a running cluster, as a superuser's URL. Tests create
// their databases there instead of starting a cluster per package; `make test`
// sets it.
const PostgresURLEnv = "KEYTRAIL_TEST_POSTGRES_URL"

// cleanupTimeout bounds the work after a test, whose own context has ended.
const cleanupTimeout = 30 * time.Second

var shared = suitetest.Shared[*Cluster]{
	Start: func(ctx context.Context) (*Cluster, error) {
		if url := os.Getenv(PostgresURLEnv); url != "" {
			return &Cluster{url: url}, nil
		}
		return Start(ctx, Options{})
	},
	Stop: func(c *Cluster) {
		if c.process != nil { // not ours otherwise
			_ = c.Stop() // the kernel ends it with us in any case
		}
	},
}

// Main is suitetest.Main: it runs the package's tests, stops the cluster, and
// fails when goroutines are left over.
func Main(m *testing.M, options ...goleak.Option) int { return suitetest.Main(m, options...) }

// Postgres returns the URL of a new, empty database that is dropped, with
// force, at the end of the test. Its role owns it and is a superuser.
//
// Where no PostgreSQL can be had the test is skipped, or failed as
// suitetest.RequireEnv says.
func Postgres(t testing.TB) string {
	t.Helper()
	cluster, err := shared.Use(t)
	if errors.Is(err, ErrNotInstalled) {
		suitetest.Unavailable(t, "postgres", err.Error())
	}
	if err != nil {
		t.Fatalf("PostgreSQL for tests: %v", err)
	}
	return cluster.Database(t)
}

// Database creates an empty database in the cluster and drops it, with force,
// at the end of the test.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	url, drop, err := c.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), cleanupTimeout)
		defer cancel()
		if err := drop(ctx); err != nil && c.alive() {
			t.Error(err)
		}
	})
	return url
}

// SQLite returns the store URL of a database file that does not exist yet, in
// a folder that is removed at the end of the test.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "keytrail.db")
}
