package httpapi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

const (
	correlationHeader = "X-Correlation-ID"
	traceparentHeader = "Traceparent"
)

// request is what is known of a request from its headers.
type request struct {
	// given is the caller's own correlation id, uuid.Nil where there is none.
	given       uuid.UUID
	traceparent string
	// correlationFault says what is wrong with the header, "" for nothing.
	correlationFault string
}

type requestKey struct{}

func requestOf(r *http.Request) request {
	known, _ := r.Context().Value(requestKey{}).(request)
	return known
}

// identify reads the headers that connect a request to a story.
func identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := request{traceparent: traceparent(r.Header.Get(traceparentHeader))}
		if text := r.Header.Get(correlationHeader); text != "" {
			id, err := uuid.Parse(text)
			switch {
			case err != nil || len(text) != len(id.String()):
				known.correlationFault = "is not a UUID"
			case id == uuid.Nil:
				known.correlationFault = "is the nil UUID, which names nothing"
			default:
				known.given = id
			}
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, known)))
	})
}

// traceparent returns a W3C trace context as it came, and "" for one that is not
// valid, which the standard says to ignore.
func traceparent(text string) string {
	parts := strings.Split(text, "-")
	if len(text) > 200 || len(parts) < 4 {
		return ""
	}
	for i, n := range []int{2, 32, 16, 2} {
		b, err := hex.DecodeString(parts[i])
		if err != nil || len(parts[i]) != n || parts[i] != strings.ToLower(parts[i]) {
			return ""
		}
		if (i == 1 || i == 2) && len(strings.Trim(string(b), "\x00")) == 0 {
			return ""
		}
	}
	if parts[0] == "ff" || (parts[0] == "00" && len(parts) != 4) {
		return ""
	}
	return text
}

// routeOf is the pattern that served the request: it names no person, unlike the path.
func routeOf(r *http.Request) string {
	if c := chi.RouteContext(r.Context()); c != nil {
		return c.RoutePattern()
	}
	return ""
}

// access logs each request once it is answered: the route and not the path, which
// may name a person, and never the query.
func (s *Server) access(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := s.Clock()
		seen := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(seen, r)
		log := s.Logger.InfoContext
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
			log = s.Logger.DebugContext // asked every few seconds
		}
		remote := ""
		if ip := remoteIP(r); ip.IsValid() {
			remote = ip.String()
		}
		attrs := []any{
			"method", r.Method, "route", routeOf(r), "status", statusOf(seen), "bytes", seen.BytesWritten(),
			"duration_ms", float64(s.Clock().Sub(started).Microseconds()) / 1000, "remote", remote,
		}
		if id := seen.Header().Get(correlationHeader); id != "" {
			attrs = append(attrs, "correlation_id", id)
		}
		log(r.Context(), "request served", attrs...)
	})
}

// statusOf is the status that was sent; net/http sends 200 where nothing said another.
func statusOf(w middleware.WrapResponseWriter) int {
	if status := w.Status(); status != 0 {
		return status
	}
	return http.StatusOK
}

// recovering turns a panic into a 500 and a log line.
func (s *Server) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			fault := recover()
			if fault == nil {
				return
			}
			if err, ok := fault.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(fault) // net/http's own way to end a connection
			}
			s.Logger.ErrorContext(r.Context(), "request panicked", "method", r.Method, "route", routeOf(r), "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			if seen.Status() != 0 {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			s.refuse(seen, r, adapter.Errorf(adapter.CodeInternal, "the request could not be served").
				WithTry("look into keytrail's log for the same moment"))
		}()
		next.ServeHTTP(seen, r)
	})
}

// secure sets the headers of answers that are data, not pages.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// authenticated lets only callers of the API through, and says in the context who
// they are and to which story the request belongs.
func (s *Server) authenticated(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor, err := s.caller(r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		if err := crossOrigin.Check(r); err != nil {
			s.refuse(w, r, adapter.Errorf(codeCrossOrigin, "the request was sent by a browser for another site: %w", err))
			return
		}
		known := requestOf(r)
		if known.correlationFault != "" {
			s.refuse(w, r, faults{{correlationHeader, known.correlationFault}}.err())
			return
		}
		correlation := known.given
		if correlation == uuid.Nil {
			correlation = eventstore.NewID()
		}
		w.Header().Set(correlationHeader, correlation.String())
		ctx := adapter.WithCall(r.Context(), adapter.CallContext{
			Actor: actor, CorrelationID: correlation, Source: "http", Traceparent: known.traceparent,
		})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// maxName bounds a name or id in an address, in bytes: Keycloak's have up to 255
// characters.
const maxName = 1024

// named lets only addresses through whose variables can be names. Others would be
// looked for in the store, which takes no NUL, or become a part of a URL of Keycloak's,
// where a dot segment leads elsewhere.
func (s *Server) named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var f faults
		for _, variable := range chi.RouteContext(r.Context()).URLParams.Keys {
			value := param(r, variable)
			switch {
			case value == "":
				s.refuse(w, r, nothingHere())
				return
			case value == "." || value == "..":
				f.add(variable, "is a dot segment, which names nothing")
			case len(value) > maxName:
				f.add(variable, fmt.Sprintf("is longer than %d bytes", maxName))
			case !storable(value):
				f.add(variable, notStorable)
			}
		}
		if err := f.err(); err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// storable reports a text that the stores take: PostgreSQL refuses others.
func storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

const notStorable = "must be UTF-8 without a NUL"

// within bounds how long a request may take.
func within(limit time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}
