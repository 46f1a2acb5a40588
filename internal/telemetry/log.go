// Package telemetry sets up what the process tells about itself: the log and the
// Prometheus metrics. Both are values that are passed in; there are no globals.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

const redacted = "<redacted>"

// NewLogger returns a logger that writes to w in the format text or json. ids,
// which may be nil, takes out of a context what every line about it should carry,
// such as correlation_id; these attributes stand at the top level of the line,
// whatever groups are open. Values under keys that name a secret are replaced, see
// [Redact]. It fails for another format.
func NewLogger(w io.Writer, format string, level slog.Leveler, ids func(context.Context) []slog.Attr) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: Redact}
	var h slog.Handler
	switch format {
	case "text":
		h = slog.NewTextHandler(w, options)
	case "json":
		h = slog.NewJSONHandler(w, options)
	default:
		return nil, fmt.Errorf("log format %q: only text and json exist", format)
	}
	if ids != nil {
		h = &idHandler{root: h, grouped: h, ids: ids}
	}
	return slog.New(h), nil
}

// idHandler adds ids from the context at the top level.
type idHandler struct {
	root    slog.Handler                      // before the first group
	grouped slog.Handler                      // root with rest applied
	rest    []func(slog.Handler) slog.Handler // the first group and what followed
	ids     func(context.Context) []slog.Attr
}

func (h *idHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.root.Enabled(ctx, level)
}

func (h *idHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs := h.ids(ctx)
	if len(attrs) == 0 {
		return h.grouped.Handle(ctx, r)
	}
	target := h.root.WithAttrs(attrs)
	for _, apply := range h.rest {
		target = apply(target)
	}
	return target.Handle(ctx, r)
}

func (h *idHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(h.rest) == 0 {
		root := h.root.WithAttrs(attrs)
		return &idHandler{root: root, grouped: root, ids: h.ids}
	}
	return h.with(func(n slog.Handler) slog.Handler { return n.WithAttrs(attrs) })
}

func (h *idHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(func(n slog.Handler) slog.Handler { return n.WithGroup(name) })
}

func (h *idHandler) with(apply func(slog.Handler) slog.Handler) slog.Handler {
	return &idHandler{root: h.root, grouped: apply(h.grouped), rest: append(slices.Clip(h.rest), apply), ids: h.ids}
}

// Redact is a slog ReplaceAttr. It replaces values whose key, or a group around
// it, names a secret (password, clientSecret, access_token, Authorization, …),
// such headers inside an http.Header, and passwords inside a URL. It is the last
// net, not the rule: secrets do not belong into a log call.
func Redact(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return a
	}
	if namesSecret(a.Key) || slices.ContainsFunc(groups, namesSecret) {
		return slog.String(a.Key, redacted)
	}
	if a.Value.Kind() != slog.KindAny {
		return a
	}
	switch v := a.Value.Any().(type) {
	case http.Header:
		clean := make(http.Header, len(v))
		for name, values := range v {
			if namesSecret(name) {
				values = []string{redacted}
			}
			clean[name] = values
		}
		return slog.Any(a.Key, clean)
	case *url.URL:
		if v != nil {
			return slog.String(a.Key, v.Redacted())
		}
	}
	return a
}

var (
	secretWords = []string{"password", "passwd", "secret", "token", "authorization", "cookie", "credential", "apikey", "privatekey"}
	// What these say about a secret is not the secret.
	harmlessEnds = []string{"file", "url", "endpoint", "type", "count", "expires", "seconds", "ms", "id"}
)

// namesSecret reports whether a key of any spelling (access_token, accessToken,
// Set-Cookie) names a secret.
func namesSecret(key string) bool {
	folded := strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "", " ", "").Replace(key))
	if !slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(folded, w) }) {
		return false
	}
	return !slices.Contains(harmlessEnds, lastWord(key))
}

// lastWord returns the last word of snake_case, kebab-case or camelCase.
func lastWord(key string) string {
	cut := strings.LastIndexAny(key, "_-. ")
	if i := strings.LastIndexFunc(key, unicode.IsUpper); i > 0 && i > cut {
		cut = i - 1
	}
	return strings.ToLower(key[cut+1:])
}
