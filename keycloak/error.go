package keycloak

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrorKind is what an error answer means for the caller.
type ErrorKind string

// Kinds of error answers, by status.
const (
	KindInvalid      ErrorKind = "invalid"      // 400 and other 4xx: the request is at fault
	KindUnauthorized ErrorKind = "unauthorized" // 401: the token, or at the token endpoint the client
	KindForbidden    ErrorKind = "forbidden"    // 403: the service account lacks a role
	KindNotFound     ErrorKind = "not_found"    // 404: absent, hidden or a wrong URL; see UserNotFound
	KindConflict     ErrorKind = "conflict"     // 409: a name or e-mail is taken
	KindRateLimited  ErrorKind = "rate_limited" // 429: a proxy's; Keycloak has none of its own
	KindUnavailable  ErrorKind = "unavailable"  // 502, 503, 504: overloaded, starting or behind a proxy
	KindServer       ErrorKind = "server"       // other 5xx
	KindRedirect     ErrorKind = "redirect"     // 3xx: never followed
	KindUnexpected   ErrorKind = "unexpected"   // a success status that the call does not know
)

// maxErrorMessage bounds APIError.Message and each field message, in bytes.
const maxErrorMessage = 512

// maxErrorFields bounds APIError.Fields.
const maxErrorFields = 50

// FieldError is one rejected field of a user (400 on POST and PUT).
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"` // often a message key, such as error-invalid-email
}

// APIError is an HTTP answer that says no. It carries what Keycloak said, bounded
// and without tokens, and is safe to record and to show.
type APIError struct {
	// Op is method and URL template, such as "PUT /admin/realms/{realm}/users/{id}".
	Op     string
	Status int
	Kind   ErrorKind
	// Code is Keycloak's machine-readable code where it gave one, such as
	// invalid_client or unknown_error.
	Code string
	// Message is Keycloak's sentence, such as "User exists with same username".
	Message string
	Fields  []FieldError
	// RetryAfter is what a 429 or 503 asked for; 0 when it did not.
	RetryAfter time.Duration
}

func (e *APIError) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	fmt.Fprintf(&b, "keycloak answered %d", e.Status)
	if text := http.StatusText(e.Status); text != "" {
		b.WriteString(" " + text)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	} else if e.Code != "" {
		b.WriteString(": " + e.Code)
	}
	return b.String()
}

// UserNotFound reports that the answer proves that the user does not exist. Only
// a 404 that says "User not found" does: "Realm not found." and "HTTP 404 Not
// Found" (a wrong URL, also ?max=abc) are 404 too and prove nothing.
func (e *APIError) UserNotFound() bool {
	return e != nil && e.Status == http.StatusNotFound && e.Message == "User not found"
}

// KindOfStatus says what a status other than an expected success means.
func KindOfStatus(status int) ErrorKind {
	switch {
	case status == http.StatusUnauthorized:
		return KindUnauthorized
	case status == http.StatusForbidden:
		return KindForbidden
	case status == http.StatusNotFound:
		return KindNotFound
	case status == http.StatusConflict:
		return KindConflict
	case status == http.StatusTooManyRequests:
		return KindRateLimited
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return KindUnavailable
	case status >= 500:
		return KindServer
	case status >= 400:
		return KindInvalid
	case status >= 300:
		return KindRedirect
	}
	return KindUnexpected
}

// DecodeAPIError reads an error answer. Keycloak has at least five shapes for its
// body: {"error"}, {"error","error_description"}, {"errorMessage"},
// {"field","errorMessage","params"} and {"errors":[{"field","errorMessage",…}]}.
// A body that is none of them, such as a proxy's HTML page, gives an error without
// message; its text is not taken over.
func DecodeAPIError(status int, body []byte) *APIError {
	e := &APIError{Status: status, Kind: KindOfStatus(status)}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return e
	}
	text := func(m map[string]json.RawMessage, key string) string {
		var s string
		if json.Unmarshal(m[key], &s) != nil {
			return ""
		}
		return Redact(s)
	}
	code, message, description := text(fields, "error"), text(fields, "errorMessage"), text(fields, "error_description")
	// {"error"} holds a sentence on the Admin API ("User not found") and a code
	// at the token endpoint ("invalid_client").
	if errorCode.MatchString(code) {
		e.Code = code
	} else if message == "" {
		message = code
	}
	if message == "" {
		message = description
	}
	e.Message = message

	if field := text(fields, "field"); field != "" {
		e.Fields = append(e.Fields, FieldError{Field: field, Message: message})
	}
	var list []map[string]json.RawMessage
	if json.Unmarshal(fields["errors"], &list) == nil {
		for _, item := range list {
			if len(e.Fields) == maxErrorFields {
				break
			}
			if f := (FieldError{Field: text(item, "field"), Message: text(item, "errorMessage")}); f != (FieldError{}) {
				e.Fields = append(e.Fields, f)
			}
		}
	}
	if e.Message == "" && len(e.Fields) > 0 {
		parts := make([]string, 0, len(e.Fields))
		for _, f := range e.Fields {
			parts = append(parts, strings.Trim(f.Field+": "+f.Message, ": "))
		}
		e.Message = Redact(strings.Join(parts, "; "))
	}
	return e
}

var (
	errorCode = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
	// A JWT or the head of one; an Authorization value; a secret as a form or
	// JSON member.
	jwtText    = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*`)
	authText   = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)
	memberText = regexp.MustCompile(`(?i)("?(?:client_secret|clientSecret|password|access_token|refresh_token|id_token|secret)"?\s*[:=]\s*)("[^"]*"?|[^\s,;&}]+)`)
)

// Redact makes foreign text fit to be recorded and shown: valid UTF-8 on one
// line, at most 512 bytes, without anything that looks like a token, a password or
// a client secret.
func Redact(s string) string {
	if len(s) > 8*maxErrorMessage {
		s = s[:8*maxErrorMessage]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	s = jwtText.ReplaceAllString(s, "[redacted]")
	s = authText.ReplaceAllString(s, "$1 [redacted]")
	s = memberText.ReplaceAllString(s, "$1[redacted]")
	s = strings.TrimSpace(s)
	if len(s) <= maxErrorMessage {
		return s
	}
	const more = "…"
	cut := maxErrorMessage - len(more)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + more
}
