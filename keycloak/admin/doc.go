// Package admin is keytrail's client of Keycloak's Admin API, over gocloak's
// request builder, go-retryablehttp and a transport that the caller passes in:
//
//	Client ─▶ gocloak/resty ─▶ retryablehttp ─▶ Config.Transport ─▶ NewTransport
//	          (requests)       (repetitions)     (a recorder)        (the wire)
//
// Config.Transport sits inside the repetitions, so a recorder sees every wire
// attempt: NewTransport sends each request exactly once, where net/http's own
// transport silently repeats some.
//
// # What is repeated
//
//	                                    GET   PUT, DELETE   POST
//	no byte was sent (refused, …)       yes   yes           yes
//	429, 503                            yes   yes           no
//	500, 502, 504                       yes   no            no
//	sent, and no answer came            yes   no            no
//	401                                 once, with a fresh token
//	TLS failure, any other answer       no    no            no
//
// The token request is a POST that changes nothing and is repeated like a GET.
// Redirects are never followed: a login page behind a PUT is not a success.
//
// # Errors
//
// An answer that says no is a *keycloak.APIError. No answer is a *TransportError,
// whose Sent tells whether the call may have taken effect. A success that cannot be
// read is a *DecodeError, never an empty list. Where no token could be had, a
// *TokenError wraps one of these: the call itself never went out. NotSent sums
// that up. What a recorder returns comes back as it is, unrepeated. None of them
// holds a secret.
//
// # Why not gocloak's own calls
//
// gocloak v13 drops what recording needs: its APIError keeps no validation errors
// and turns transport failures into text, its User has no field self, and it has no
// call for admin events; its filters for events cannot be encoded (gocloak #381).
package admin
