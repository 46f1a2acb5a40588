package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// The table of doc.go, counted at the server and at the recorder.
func TestRepetitionByMethodAndAnswer(t *testing.T) {
	t.Parallel()
	const once, always = 1, 3
	for _, c := range []struct {
		name                string
		answer              http.HandlerFunc
		get, put, del, post int
		kind                keycloak.ErrorKind
		transport           admin.TransportKind
	}{
		{name: "429", answer: status(429), get: always, put: always, del: always, post: once, kind: keycloak.KindRateLimited},
		{name: "503", answer: status(503), get: always, put: always, del: always, post: once, kind: keycloak.KindUnavailable},
		{name: "500", answer: status(500), get: always, put: once, del: once, post: once, kind: keycloak.KindServer},
		{name: "502", answer: status(502), get: always, put: once, del: once, post: once, kind: keycloak.KindUnavailable},
		{name: "504", answer: status(504), get: always, put: once, del: once, post: once, kind: keycloak.KindUnavailable},
		{name: "501", answer: status(501), get: once, put: once, del: once, post: once, kind: keycloak.KindServer},
		{name: "400", answer: status(400), get: once, put: once, del: once, post: once, kind: keycloak.KindInvalid},
		{name: "403", answer: status(403), get: once, put: once, del: once, post: once, kind: keycloak.KindForbidden},
		{name: "404", answer: status(404), get: once, put: once, del: once, post: once, kind: keycloak.KindNotFound},
		{name: "409", answer: status(409), get: once, put: once, del: once, post: once, kind: keycloak.KindConflict},
		{name: "hang up", answer: hangUp, get: always, put: once, del: once, post: once, transport: admin.KindReset},
	} {
		for method, want := range map[string]int{"GET": c.get, "PUT": c.put, "DELETE": c.del, "POST": c.post} {
			t.Run(c.name+" "+method, func(t *testing.T) {
				t.Parallel()
				s, r := newServer(t, c.answer), newRecorder()
				var observed atomic.Int32
				client := newClient(t, s.URL, through(r), func(cfg *admin.Config) {
					cfg.Observe = func(_, template string, _ int, _ time.Duration) {
						if !strings.HasSuffix(template, "/token") {
							observed.Add(1)
						}
					}
				})
				err := calls[method](testContext(t), client)
				require.Len(t, s.requests(), want)
				require.Equal(t, want, r.count())
				require.EqualValues(t, want, observed.Load())
				require.False(t, admin.NotSent(err))
				if c.transport != "" {
					var failure *admin.TransportError
					require.ErrorAs(t, err, &failure)
					require.Equal(t, c.transport, failure.Kind)
					require.True(t, failure.Sent)
					return
				}
				var refused *keycloak.APIError
				require.ErrorAs(t, err, &refused)
				require.Equal(t, c.kind, refused.Kind)
				require.Equal(t, "status "+c.name, refused.Message)
			})
		}
	}
}

func TestRepetitionEndsWithSuccess(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		var n atomic.Int32
		s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) < 3 {
				status(503)(w, r)
				return
			}
			if method == "PUT" {
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != `{"self":"x"}` {
					status(400)(w, r)
					return
				}
			}
			succeed(w, r)
		})
		require.NoError(t, calls[method](testContext(t), newClient(t, s.URL)))
		require.Len(t, s.requests(), 3)
	}
}

// refusedPort returns an address that nobody listens at.
func refusedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's port
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestRefusedConnectionIsRepeatedForEveryMethod(t *testing.T) {
	t.Parallel()
	nobody := refusedPort(t)
	for method, call := range calls {
		// Every attempt refused.
		s, r := newServer(t, succeed), newRecorder()
		r.hook = func(req *http.Request) (*http.Request, error) {
			req = req.Clone(req.Context())
			req.URL.Host = nobody
			return req, nil
		}
		err := call(testContext(t), newClient(t, s.URL, through(r)))
		var failure *admin.TransportError
		require.ErrorAs(t, err, &failure, method)
		require.Equal(t, admin.KindRefused, failure.Kind)
		require.False(t, failure.Sent)
		require.True(t, admin.NotSent(err))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.Equal(t, 3, r.count())
		require.Empty(t, s.requests())

		// Refused twice, then answered.
		s, r = newServer(t, succeed), newRecorder()
		var n atomic.Int32
		r.hook = func(req *http.Request) (*http.Request, error) {
			if n.Add(1) < 3 {
				req = req.Clone(req.Context())
				req.URL.Host = nobody
			}
			return req, nil
		}
		require.NoError(t, call(testContext(t), newClient(t, s.URL, through(r))), method)
		require.Equal(t, 3, r.count())
		require.Len(t, s.requests(), 1)
	}
}

func TestUnreachableTokenEndpointMeansNotSent(t *testing.T) {
	t.Parallel()
	client := newClient(t, "http://"+refusedPort(t))
	_, err := client.CreateUser(testContext(t), "acme", admin.UserBody{})
	var token *admin.TokenError
	require.ErrorAs(t, err, &token)
	var failure *admin.TransportError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, admin.KindRefused, failure.Kind)
	require.True(t, admin.NotSent(err))
}

// An attempt that times out was sent: only what changes nothing goes again.
func TestAttemptTimeout(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{"GET": 3, "PUT": 1, "DELETE": 1, "POST": 1} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // so that the server sees the client go
				<-r.Context().Done()
			})
			client := newClient(t, s.URL, func(cfg *admin.Config) { cfg.Timeout = 150 * time.Millisecond })
			err := calls[method](testContext(t), client)
			var failure *admin.TransportError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, admin.KindTimeout, failure.Kind)
			require.True(t, failure.Sent)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Len(t, s.requests(), want)
		})
	}
}

// The timeout holds until the last byte of the body.
func TestAttemptTimeoutInBody(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `[`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	client := newClient(t, s.URL, func(cfg *admin.Config) { cfg.Timeout = 150 * time.Millisecond })
	_, err := client.AdminEvents(testContext(t), "acme", admin.EventQuery{})
	var failure *admin.TransportError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, admin.KindTimeout, failure.Kind)
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	for method, call := range calls {
		ctx, cancel := context.WithCancel(testContext(t))
		s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		})
		err := call(ctx, newClient(t, s.URL))
		var failure *admin.TransportError
		require.ErrorAs(t, err, &failure, method)
		require.Equal(t, admin.KindCanceled, failure.Kind)
		require.True(t, failure.Sent)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, s.requests(), 1)

		// Gone before it began.
		err = call(ctx, newClient(t, s.URL))
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, admin.NotSent(err))
	}
}

func TestCallerGivesUpBetweenAttempts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(testContext(t))
	s := newServer(t, status(503))
	client := newClient(t, s.URL, func(cfg *admin.Config) {
		cfg.RetryWaitMin, cfg.RetryWaitMax = time.Hour, time.Hour
		cfg.Jitter = func() float64 { cancel(); return 0 }
	})
	err := client.DeleteUser(ctx, "acme", "1212")
	var failure *admin.TransportError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, admin.KindCanceled, failure.Kind)
	require.True(t, failure.Sent, "the 503 may have been a proxy's")
	require.Len(t, s.requests(), 1)
}

func TestRetryAfterIsCapped(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for _, header := range []string{"3600", "99999999999999", now.Add(time.Hour).Format(http.TimeFormat), "0", "-1", "soon", now.Add(-time.Hour).Format(http.TimeFormat)} {
		s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", header)
			status(429)(w, r)
		})
		client := newClient(t, s.URL, func(cfg *admin.Config) { cfg.Clock = func() time.Time { return now } })
		// The test's own limit is 30 s; uncapped, one wait would be an hour.
		_, err := client.User(testContext(t), "acme", "1212")
		var refused *keycloak.APIError
		require.ErrorAs(t, err, &refused)
		require.Len(t, s.requests(), 3)
		if header == "3600" || header == now.Add(time.Hour).Format(http.TimeFormat) {
			require.Equal(t, time.Hour, refused.RetryAfter)
		}
	}
}

func TestRedirectsAreErrors(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		for method, call := range calls {
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/login") {
					succeed(w, r)
					return
				}
				http.Redirect(w, r, "/login", code)
			})
			err := call(testContext(t), newClient(t, s.URL))
			var refused *keycloak.APIError
			require.ErrorAs(t, err, &refused, "%d %s", code, method)
			require.Equal(t, keycloak.KindRedirect, refused.Kind)
			require.Len(t, s.requests(), 1)
		}
	}
	// The token endpoint too: a followed redirect would carry the secret elsewhere.
	s := newServer(t, succeed)
	s.tokenFor = func(w http.ResponseWriter, _ int) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	err := newClient(t, s.URL).DeleteUser(testContext(t), "acme", "1212")
	var token *admin.TokenError
	require.ErrorAs(t, err, &token)
	require.Empty(t, s.requests())
}

// net/http repeats a GET by itself when a kept connection breaks. Then a wire attempt
// would be missing from the record.
func TestBrokenKeptConnectionIsSeen(t *testing.T) {
	t.Parallel()
	for method, call := range calls {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 2 {
					hangUp(w, r)
					return
				}
				succeed(w, r)
			})
			r := newRecorder()
			client := newClient(t, s.URL, through(r))
			require.NoError(t, call(testContext(t), client))
			err := call(testContext(t), client)
			require.Equal(t, len(s.requests()), r.count(), "attempts at the server and at the recorder")
			if method == http.MethodGet {
				require.NoError(t, err)
				require.Equal(t, 3, r.count())
				return
			}
			require.False(t, admin.NotSent(err))
			require.Equal(t, 2, r.count())
		})
	}
}

// What a recorder says is not the network's, even when it looks so: its store may be
// behind a refused connection too.
func TestRecorderMayRefuse(t *testing.T) {
	t.Parallel()
	cause := fmt.Errorf("append intent: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)})
	for method, call := range calls {
		s, r := newServer(t, succeed), newRecorder()
		r.hook = func(*http.Request) (*http.Request, error) { return nil, cause }
		err := call(testContext(t), newClient(t, s.URL, through(r)))
		require.Equal(t, cause, err, method)
		var failure *admin.TransportError
		require.NotErrorAs(t, err, &failure)
		require.Equal(t, 1, r.count())
		require.Empty(t, s.requests())
	}
}

func TestUntrustedServerIsNotAskedTwice(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(succeed))
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	r := newRecorder()
	var tokens atomic.Int32
	client := newClient(t, s.URL, through(r), func(cfg *admin.Config) {
		cfg.Observe = func(string, string, int, time.Duration) { tokens.Add(1) }
	})
	err := client.DeleteUser(testContext(t), "acme", "1212")
	var failure *admin.TransportError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, admin.KindTLS, failure.Kind)
	require.True(t, admin.NotSent(err))
	require.EqualValues(t, 1, tokens.Load())
}

type contextKey struct{}

func TestContextReachesTheTransport(t *testing.T) {
	t.Parallel()
	s := newServer(t, succeed)
	var mu sync.Mutex
	seen := map[string]any{}
	client := newClient(t, s.URL, func(cfg *admin.Config) {
		next := admin.NewTransport()
		cfg.Transport = transportFunc{func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			key := req.Method + " " + admin.RequestTemplate(req.Context())
			if admin.IsTokenRequest(req.Context()) {
				key = "token"
			}
			seen[key] = req.Context().Value(contextKey{})
			return next.RoundTrip(req)
		}, next}
	})
	ctx := context.WithValue(testContext(t), contextKey{}, "call 7")
	for _, call := range calls {
		require.NoError(t, call(ctx, client))
	}
	require.Equal(t, map[string]any{
		"token":                                   nil,
		"GET /admin/realms/{realm}/users/{id}":    "call 7",
		"PUT /admin/realms/{realm}/users/{id}":    "call 7",
		"DELETE /admin/realms/{realm}/users/{id}": "call 7",
		"POST /admin/realms/{realm}/users":        "call 7",
	}, seen)
	require.False(t, admin.IsTokenRequest(ctx))
	require.Empty(t, admin.RequestTemplate(ctx))
}

type transportFunc struct {
	f    func(*http.Request) (*http.Response, error)
	next http.RoundTripper
}

func (t transportFunc) RoundTrip(req *http.Request) (*http.Response, error) { return t.f(req) }

func (t transportFunc) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	err := &admin.TransportError{Op: "GET /x", Kind: admin.KindReset, Err: errors.New("Bearer abcdefgh12345678 broke")}
	require.EqualError(t, err, "GET /x: no answer from keycloak (reset): Bearer [redacted] broke")
	require.EqualError(t, &admin.TokenError{Err: err}, "service account token: "+err.Error())
	require.False(t, admin.NotSent(nil))
	require.False(t, admin.NotSent(errors.New("x")))
}
