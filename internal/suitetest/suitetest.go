// Package suitetest decides what happens to a test whose real server (a
// PostgreSQL, a Keycloak, a browser) is not there, and shares such a server
// among the tests of one process.
package suitetest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// RequireEnv lists, separated by commas, what must not be skipped: "postgres",
// "keycloak", "browser", or "all". `make test` sets it to "all", so that a
// suite cannot go missing unseen.
const RequireEnv = "KEYTRAIL_TEST_REQUIRE"

// Unavailable ends a test that cannot have what it needs: it is skipped, or
// failed where RequireEnv names the need. why says what is missing and how to
// get it.
func Unavailable(t testing.TB, need, why string) {
	t.Helper()
	if required(os.Getenv(RequireEnv), need) {
		t.Fatalf("%s is required by %s, but: %s", need, RequireEnv, why)
	}
	t.Skipf("needs %s: %s", need, why)
}

func required(list, need string) bool {
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name == "all" || name == need {
			return true
		}
	}
	return false
}

var process struct {
	mu    sync.Mutex
	main  bool // Main is running
	atEnd []func()
}

// Main runs a package's tests, stops the servers that they shared, and then
// fails the run when a goroutine is left over. It returns the exit status:
//
//	func TestMain(m *testing.M) { os.Exit(suitetest.Main(m)) }
func Main(m *testing.M, options ...goleak.Option) int {
	process.mu.Lock()
	process.main = true
	process.mu.Unlock()

	code := m.Run()

	process.mu.Lock()
	stops := slices.Clone(process.atEnd)
	process.atEnd = nil
	process.mu.Unlock()
	for _, stop := range slices.Backward(stops) {
		stop()
	}
	if code != 0 {
		return code // a failed test often leaves goroutines; its own message matters more
	}
	if err := goleak.Find(options...); err != nil {
		fmt.Fprintf(os.Stderr, "goroutines left over after the tests: %v\n", err)
		return 1
	}
	return 0
}

// A Shared is a server that the tests of one process share: started for the
// first that asks, stopped by Main, or after its last user where TestMain does
// not call Main. The fields are set once, before use.
type Shared[T any] struct {
	Start func(context.Context) (T, error)
	Stop  func(T)

	mu      sync.Mutex
	running bool
	value   T
	err     error
	users   int
}

// Use returns the running server. An error of the first start is kept: what
// failed once is not tried again for every test.
func (s *Shared[T]) Use(t testing.TB) (T, error) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running && s.err == nil {
		// The server outlives the test that happens to be the first.
		s.value, s.err = s.Start(context.WithoutCancel(t.Context()))
		s.running = s.err == nil
		if s.running {
			s.stopAtEnd()
		}
	}
	if s.err != nil {
		return s.value, s.err
	}
	s.users++
	t.Cleanup(s.release)
	return s.value, nil
}

func (s *Shared[T]) stopAtEnd() {
	process.mu.Lock()
	defer process.mu.Unlock()
	if !process.main {
		return
	}
	s.users++ // Main is a user like any test, and the last
	process.atEnd = append(process.atEnd, s.release)
}

func (s *Shared[T]) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.users > 0 {
		return
	}
	s.Stop(s.value)
	s.running = false
}
