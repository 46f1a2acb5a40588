package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// NewTransport returns the transport for under a recorder, with a connection pool
// of its own; close it with http.Client.CloseIdleConnections or Client.Close.
//
// It puts each request on the wire at most once, and every error of it, also of
// reading a body, is a *TransportError that knows whether a byte was sent. It speaks
// HTTP/1.1 only: HTTP/2 repeats refused streams by itself and cannot tell what
// was sent. Proxies are taken from the environment.
func NewTransport() http.RoundTripper {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &countingConn{Conn: conn}, nil
		},
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 16,
		// Shorter than the 60 s and more that servers and proxies keep, so that we
		// are the ones to close.
		IdleConnTimeout: 30 * time.Second,
	}
	return &wireTransport{base: base}
}

type wireTransport struct{ base *http.Transport }

func (t *wireTransport) CloseIdleConnections() { t.base.CloseIdleConnections() }

func (t *wireTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	var (
		mu    sync.Mutex
		conn  *countingConn
		start int64
		blind bool // a connection that we cannot look into
	)
	op := operation(req)
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		mu.Lock()
		defer mu.Unlock()
		raw := info.Conn
		if secured, ok := raw.(*tls.Conn); ok {
			raw = secured.NetConn()
		}
		if conn, _ = raw.(*countingConn); conn == nil {
			blind = true
			return
		}
		start = conn.written.Load()
	}}
	attempt := req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	if attempt.Body == nil || attempt.Body == http.NoBody {
		switch attempt.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
			// net/http repeats these on a fresh connection when a reused one
			// breaks, unless it cannot replay the body. One that has to be read
			// to be known as empty cannot be replayed.
			attempt.Body = emptyBody{}
			attempt.GetBody = nil
		}
	}
	resp, err := t.base.RoundTrip(attempt)
	if err != nil {
		mu.Lock()
		defer mu.Unlock()
		sent := blind || conn != nil && conn.written.Load() > start
		return nil, &TransportError{Op: op, Kind: classify(err), Sent: sent, Err: err}
	}
	resp.Request = req
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &wireBody{ReadCloser: resp.Body, op: op}
	}
	return resp, nil
}

// emptyBody is an empty body that net/http does not know to be one.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyBody) Close() error             { return nil }

// countingConn counts the bytes that went out.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// wireBody names the failure of a body that breaks off.
type wireBody struct {
	io.ReadCloser
	op string
}

func (b *wireBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &TransportError{Op: b.op, Kind: classify(err), Sent: true, Err: err}
	}
	return n, err
}

// attemptTransport sits between the repetitions and the recorder: it bounds one
// wire attempt in time, takes headers away that would make one repeatable, and
// counts.
type attemptTransport struct {
	next    http.RoundTripper
	timeout time.Duration
	clock   func() time.Time
	logger  *slog.Logger
	observe func(method, template string, status int, d time.Duration)
}

func (t *attemptTransport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *attemptTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), t.timeout)
	attempt := req.Clone(ctx)
	// Keycloak knows neither; net/http repeats a POST that carries one.
	attempt.Header.Del("Idempotency-Key")
	attempt.Header.Del("X-Idempotency-Key")

	started := t.clock()
	resp, err := t.next.RoundTrip(attempt)
	status := 0
	if err == nil {
		status = resp.StatusCode
	}
	elapsed := t.clock().Sub(started)
	template := RequestTemplate(ctx)
	t.observe(req.Method, template, status, elapsed)
	t.logger.DebugContext(ctx, "keycloak request", "method", req.Method, "url_template", template,
		"status", status, "duration_ms", elapsed.Milliseconds())

	call := callOf(ctx)
	if err != nil {
		cancel()
		var failure *TransportError
		if !errors.As(err, &failure) {
			// Not the network's error but the recorder's: it did not let the
			// request pass, and must not be asked again.
			return nil, &abortError{err}
		}
		if failure.Sent {
			call.sent.Store(true)
		}
		return nil, err
	}
	call.sent.Store(true)
	resp.Body = &attemptBody{ReadCloser: resp.Body, cancel: cancel}
	return resp, nil
}

// attemptBody ends the attempt's deadline with the body.
type attemptBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *attemptBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// abortError marks an error of Config.Transport that is no *TransportError.
type abortError struct{ err error }

func (e *abortError) Error() string { return e.err.Error() }
func (e *abortError) Unwrap() error { return e.err }

// call is what the layers below know of the call that a request belongs to.
type call struct {
	method   string
	template string
	token    bool
	sent     atomic.Bool
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// IsTokenRequest reports that a request fetches a token. Its bodies are secrets, so
// a recorder must pass it on unseen. Its context has no values of the caller's.
func IsTokenRequest(ctx context.Context) bool { return callOf(ctx).token }

// RequestTemplate returns the URL template of a request of this package by its
// context, such as /admin/realms/{realm}/users/{id}; empty for other requests.
func RequestTemplate(ctx context.Context) string { return callOf(ctx).template }

func operation(req *http.Request) string {
	template := RequestTemplate(req.Context())
	if template == "" {
		template = req.URL.Path
	}
	return req.Method + " " + template
}
