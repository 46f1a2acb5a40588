package kcserver

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/internal/suitetest"
)

// These name a running Keycloak for tests to use instead of starting one per
// package; `make test` sets them. The user must be an administrator of the
// realm master; both default to "admin".
const (
	URLEnv           = "KEYTRAIL_TEST_KEYCLOAK_URL"
	AdminEnv         = "KEYTRAIL_TEST_KEYCLOAK_ADMIN"
	AdminPasswordEnv = "KEYTRAIL_TEST_KEYCLOAK_ADMIN_PASSWORD"
)

var shared = suitetest.Shared[*Server]{
	Start: func(ctx context.Context) (*Server, error) {
		if url := os.Getenv(URLEnv); url != "" {
			return attach(ctx, url, envOr(AdminEnv, "admin"), envOr(AdminPasswordEnv, "admin"))
		}
		return Start(ctx, Options{})
	},
	Stop: func(s *Server) { _ = s.Stop() }, // the kernel ends it with us in any case
}

// Main is suitetest.Main: it runs the package's tests, stops the server, and
// fails when goroutines are left over.
func Main(m *testing.M, options ...goleak.Option) int { return suitetest.Main(m, options...) }

// Shared returns the Keycloak that the tests of this process share.
//
// Where none can be had the test is skipped, or failed as suitetest.RequireEnv
// says.
func Shared(t testing.TB) *Server {
	t.Helper()
	s, err := shared.Use(t)
	if errors.Is(err, ErrNoJava) || errors.Is(err, ErrNoMaven) {
		suitetest.Unavailable(t, "keycloak", err.Error())
	}
	if err != nil {
		t.Fatalf("Keycloak for tests: %v", err)
	}
	return s
}

// TestRealm makes a realm that is deleted at the end of the test.
func (s *Server) TestRealm(t testing.TB, opts RealmOptions) *Realm {
	t.Helper()
	r, err := s.NewRealm(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := r.Delete(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
