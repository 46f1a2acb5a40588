// Package httpapi is keytrail's HTTP surface: webhooks, the JSON API under /api/v1,
// health and metrics.
//
// Each resource has a file. Handlers return errors; problem.go is the one place where
// a code of the catalogue becomes an HTTP status and an RFC 9457 problem.
//
// # Who may do what
//
//	/webhooks/{source}   a signature; without a secret, loopback trust
//	/api/v1/…            the bearer token; without a token, loopback trust
//	/metrics             loopback trust or the bearer token
//	/healthz, /readyz    anybody; the details of /readyz as /metrics
//
// Loopback trust means that the request comes from a loopback address, names a
// loopback host and was not forwarded by a proxy, see trust.go. Requests that a
// browser sends on behalf of another site are refused where they could change
// something.
package httpapi
