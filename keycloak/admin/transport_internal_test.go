package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, c := range []struct {
		err  error
		want TransportKind
	}{
		{&url.Error{Op: "Get", Err: context.Canceled}, KindCanceled},
		{context.DeadlineExceeded, KindTimeout},
		{dial(os.ErrDeadlineExceeded), KindTimeout},
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), KindRefused},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), KindRefused},
		{dial(&net.DNSError{Err: "no such host", Name: "keycloak"}), KindDNS},
		{dial(&net.DNSError{Err: "timeout", IsTimeout: true}), KindDNS},
		{x509.UnknownAuthorityError{}, KindTLS},
		{http.ErrSchemeMismatch, KindTLS},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, KindReset},
		{io.ErrUnexpectedEOF, KindReset},
		{errors.New("malformed HTTP response"), KindReset},
	} {
		require.Equal(t, c.want, classify(c.err), "%v", c.err)
	}
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// net/http repeats a POST that carries one of these, below every recorder.
func TestIdempotencyKeyIsNotForwarded(t *testing.T) {
	t.Parallel()
	var seen http.Header
	transport := &attemptTransport{
		next: transportFunc(func(req *http.Request) (*http.Response, error) {
			seen = req.Header
			return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
		}),
		timeout: time.Minute, clock: time.Now, logger: slog.New(slog.DiscardHandler),
		observe: func(string, string, int, time.Duration) {},
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://127.0.0.1/", http.NoBody)
	require.NoError(t, err)
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key", "X-Other"} {
		req.Header.Set(name, "1")
	}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.Header{"X-Other": {"1"}}, seen)
	require.Len(t, req.Header, 3, "the caller's request is not ours to change")
}

func TestExpand(t *testing.T) {
	t.Parallel()
	path, err := expand("/a/{realm}/b/{id}/c", []string{"x y", "{id}/?"})
	require.NoError(t, err)
	require.Equal(t, "/a/x%20y/b/%7Bid%7D%2F%3F/c", path)
	_, err = expand("/a/{realm}/{id}", []string{"x"})
	require.ErrorContains(t, err, "no value for id")
}
