package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keytrail/keytrail/keycloak/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "s3cr3t-of-the-service-account"

// server is a Keycloak of one handler. It gives out the tokens token-1, token-2, …
// and counts what really arrived.
type server struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	tokens   int
	arrived  []string // method and path of everything but tokens
	tokenFor func(w http.ResponseWriter, n int)
}

func newServer(t *testing.T, handler http.HandlerFunc) *server {
	t.Helper()
	s := &server{t: t}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/protocol/openid-connect/token") {
			s.serveToken(w, r)
			return
		}
		s.mu.Lock()
		s.arrived = append(s.arrived, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) serveToken(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.tokens++
	n, custom := s.tokens, s.tokenFor
	s.mu.Unlock()
	if r.PostFormValue("client_secret") != secret || r.PostFormValue("grant_type") != "client_credentials" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if custom != nil {
		custom(w, n)
		return
	}
	writeToken(w, n, 300)
}

func writeToken(w http.ResponseWriter, n, life int) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"access_token":"token-%d","expires_in":%d,"token_type":"Bearer"}`, n, life)
}

func (s *server) tokenCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens
}

func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.arrived...)
}

// recorder counts wire attempts where a recording transport would sit.
type recorder struct {
	next http.RoundTripper
	hook func(*http.Request) (*http.Request, error)

	mu       sync.Mutex
	attempts []string
}

func newRecorder() *recorder { return &recorder{next: admin.NewTransport()} }

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	if !admin.IsTokenRequest(req.Context()) {
		r.mu.Lock()
		r.attempts = append(r.attempts, req.Method+" "+admin.RequestTemplate(req.Context()))
		r.mu.Unlock()
		if r.hook != nil {
			var err error
			if req, err = r.hook(req); err != nil {
				return nil, err
			}
		}
	}
	return r.next.RoundTrip(req)
}

func (r *recorder) CloseIdleConnections() {
	r.next.(interface{ CloseIdleConnections() }).CloseIdleConnections()
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.attempts)
}

// newClient builds a client with two fast repetitions.
func newClient(t *testing.T, url string, change ...func(*admin.Config)) *admin.Client {
	t.Helper()
	cfg := admin.Config{
		BaseURL: url, AuthRealm: "acme", ClientID: "keytrail", ClientSecret: secret,
		RetryMax: 2, RetryWaitMin: time.Millisecond, RetryWaitMax: 5 * time.Millisecond,
		Timeout: 10 * time.Second,
	}
	for _, f := range change {
		f(&cfg)
	}
	client, err := admin.New(cfg)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func through(r *recorder) func(*admin.Config) {
	return func(cfg *admin.Config) { cfg.Transport = r }
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// calls has one call of each method.
var calls = map[string]func(context.Context, *admin.Client) error{
	http.MethodGet: func(ctx context.Context, c *admin.Client) error {
		_, err := c.User(ctx, "acme", "1212")
		return err
	},
	http.MethodPut: func(ctx context.Context, c *admin.Client) error {
		return c.UpdateUser(ctx, "acme", "1212", admin.UserBody{Self: "x"})
	},
	http.MethodDelete: func(ctx context.Context, c *admin.Client) error {
		return c.DeleteUser(ctx, "acme", "1212")
	},
	http.MethodPost: func(ctx context.Context, c *admin.Client) error {
		_, err := c.CreateUser(ctx, "acme", admin.UserBody{Self: "x"})
		return err
	},
}

// succeed answers each of calls with success.
func succeed(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch r.Method {
	case http.MethodGet:
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "1212", "username": "bob"})
	case http.MethodPost:
		w.Header().Set("Location", "http://"+r.Host+r.URL.Path+"/1212")
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"errorMessage":"status %d"}`, code)
	}
}

// hangUp reads the request and closes the connection without an answer.
func hangUp(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
