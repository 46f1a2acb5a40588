package keycloaktest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
)

// reply is an answer before it is written. raw, if set, goes out as it is; otherwise
// body is encoded, and nothing is written if it is nil.
type reply struct {
	status int
	header http.Header
	body   any
	raw    []byte
}

func ok(body any) reply { return reply{status: http.StatusOK, body: body} }

func noContent() reply { return reply{status: http.StatusNoContent} }

func (c *call) created(path string) reply {
	return reply{status: http.StatusCreated, header: http.Header{"Location": {c.s.url + path}}}
}

// fail answers in the first of Keycloak's two forms of an error, {"error"}.
func fail(status int, message string) reply {
	return reply{status: status, body: map[string]string{"error": message}}
}

// refuse answers in the other form, {"errorMessage"}.
func refuse(status int, message string) reply {
	return reply{status: status, body: map[string]string{"errorMessage": message}}
}

func forbidden() reply { return fail(http.StatusForbidden, "HTTP 403 Forbidden") }

func userNotFound() reply { return fail(http.StatusNotFound, "User not found") }

func serverError() reply {
	return reply{status: http.StatusInternalServerError, body: oauthError{"unknown_error", "For more on this error consult the server log."}}
}

type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

func (r reply) write(w http.ResponseWriter, method string, fault activeFault) {
	body := r.raw
	if body == nil && r.body != nil {
		body = encode(r.body)
		w.Header().Set("Content-Type", "application/json")
		if r.status == http.StatusOK && method == http.MethodGet {
			w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		}
	}
	for name, values := range r.header {
		w.Header()[name] = values
	}
	if fault.EmptyList && r.status == http.StatusOK {
		body = []byte("[]")
	}
	if fault.Truncate && r.status == http.StatusOK {
		body = body[:len(body)/2]
	}
	if r.raw != nil && len(body) > 0 && w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	if body != nil {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(body) // a client that went away is its own business
}

// encode writes JSON as Jackson does: compact, and without HTML escapes.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// Only our own representations get here; none of them can fail.
		return []byte(`{"error":"unknown_error"}`)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

var unknownField = regexp.MustCompile(`unknown field "(.*)"`)

// decode reads a request body into v and answers as Keycloak does where it cannot:
// name is the Java class that the message names.
func (c *call) decode(v any, name string) (reply, bool) {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return serverError(), false
	}
	dec := json.NewDecoder(bytes.NewReader(c.body))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		return reply{}, true
	}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		return fail(http.StatusBadRequest, fmt.Sprintf("Invalid json representation for %s. Unrecognized field %q at line 1 column %d.", name, m[1], dec.InputOffset())), false
	}
	code := "unknown_error"
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
		code = "invalid_request"
	}
	return reply{status: http.StatusBadRequest, body: oauthError{code, "Cannot parse the JSON"}}, false
}

// number reads a whole number from the query. A value that is none is answered by
// Keycloak with the 404 of a missing page.
func (c *call) number(name string, absent int) (int, bool) {
	v := c.URL.Query().Get(name)
	if v == "" {
		return absent, true
	}
	n, err := strconv.Atoi(v)
	return n, err == nil
}

// page cuts first and max out of a list; a negative max means all.
func page[T any](list []T, first, limit int) []T {
	first = min(max(first, 0), len(list))
	list = list[first:]
	if limit >= 0 && limit < len(list) {
		list = list[:limit]
	}
	return list
}

func notFoundPage() reply { return fail(http.StatusNotFound, "HTTP 404 Not Found") }
