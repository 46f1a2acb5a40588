package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/keytrail/keytrail/keycloak"
)

// TransportKind is why no answer came.
type TransportKind string

// Kinds of transport failures.
const (
	KindRefused  TransportKind = "refused"  // no connection: refused or unreachable
	KindTimeout  TransportKind = "timeout"  // of the connection, the attempt or the caller
	KindReset    TransportKind = "reset"    // the connection broke, or spoke no HTTP
	KindDNS      TransportKind = "dns"      // the name could not be resolved
	KindTLS      TransportKind = "tls"      // no trust, or no TLS at all
	KindCanceled TransportKind = "canceled" // the caller gave up
)

// TransportError is a call that got no complete answer.
type TransportError struct {
	// Op is method and URL template, such as "PUT /admin/realms/{realm}/users/{id}".
	Op   string
	Kind TransportKind
	// Sent reports whether a byte of any attempt of the call reached the network.
	// When false, Keycloak cannot have acted on it.
	Sent bool
	Err  error
}

func (e *TransportError) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString("no answer from keycloak (" + string(e.Kind) + ")")
	if e.Err != nil {
		b.WriteString(": " + keycloak.Redact(e.Err.Error()))
	}
	return b.String()
}

// Unwrap gives the cause, so that errors.Is knows context.Canceled and the like.
func (e *TransportError) Unwrap() error { return e.Err }

// DecodeError is a success whose answer cannot be read: truncated, not JSON or not
// of the expected shape. It is never an empty list. A write that answers so has
// taken effect.
type DecodeError struct {
	Op     string
	Status int
	Err    error
}

func (e *DecodeError) Error() string {
	return e.Op + ": unreadable answer: " + keycloak.Redact(e.Err.Error())
}

func (e *DecodeError) Unwrap() error { return e.Err }

// TokenError is a call that was not made for want of a token. It wraps the
// *keycloak.APIError, *TransportError or *DecodeError of the token endpoint, so look
// for a TokenError first where the difference matters.
type TokenError struct{ Err error }

func (e *TokenError) Error() string { return "service account token: " + e.Err.Error() }
func (e *TokenError) Unwrap() error { return e.Err }

// NotSent reports that a failed call certainly never reached Keycloak.
func NotSent(err error) bool {
	var token *TokenError
	if errors.As(err, &token) {
		return true
	}
	var transport *TransportError
	return errors.As(err, &transport) && !transport.Sent
}

// classify names the cause of a failure in net/http.
func classify(err error) TransportKind {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		host    x509.HostnameError
		issuer  x509.UnknownAuthorityError
		dialing *net.OpError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.Is(err, context.Canceled):
		return KindCanceled
	case errors.As(err, &dns):
		return KindDNS
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &host),
		errors.As(err, &issuer), errors.Is(err, http.ErrSchemeMismatch):
		return KindTLS
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return KindTimeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &dialing) && dialing.Op == "dial":
		return KindRefused
	}
	return KindReset
}
