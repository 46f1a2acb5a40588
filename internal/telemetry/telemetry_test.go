package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/slogtest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/telemetry"
)

type idKey struct{}

func ids(ctx context.Context) []slog.Attr {
	if id, ok := ctx.Value(idKey{}).(string); ok {
		return []slog.Attr{slog.String("correlation_id", id)}
	}
	return nil
}

func line(t *testing.T, out *bytes.Buffer) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &m), out.String())
	out.Reset()
	return m
}

func TestLoggerIsAProperHandler(t *testing.T) {
	t.Parallel()
	for name, extract := range map[string]func(context.Context) []slog.Attr{
		"no ids": func(context.Context) []slog.Attr { return nil }, "always ids": func(context.Context) []slog.Attr { return []slog.Attr{slog.Int("correlation_id", 1)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			slogtest.Run(t, func(*testing.T) slog.Handler {
				out.Reset()
				log, err := telemetry.NewLogger(&out, "json", slog.LevelInfo, extract)
				require.NoError(t, err)
				return log.Handler()
			}, func(t *testing.T) map[string]any { return line(t, &out) })
		})
	}
}

func TestIDsFromContext(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := telemetry.NewLogger(&out, "json", slog.LevelInfo, ids)
	require.NoError(t, err)
	ctx := context.WithValue(t.Context(), idKey{}, "c-1")

	log.InfoContext(ctx, "recorded", "n", 1)
	require.Equal(t, "c-1", line(t, &out)["correlation_id"])
	log.Info("recorded")
	require.NotContains(t, line(t, &out), "correlation_id")

	grouped := log.With("a", 1).WithGroup("").WithGroup("g").With("b", 2)
	other := grouped.WithGroup("h")
	other.InfoContext(ctx, "recorded", "n", 1)
	m := line(t, &out)
	require.Equal(t, "c-1", m["correlation_id"], "at the top level")
	require.Equal(t, map[string]any{"b": 2.0, "h": map[string]any{"n": 1.0}}, m["g"])
	grouped.InfoContext(ctx, "recorded", "n", 1)
	require.Equal(t, map[string]any{"b": 2.0, "n": 1.0}, line(t, &out)["g"])
	log.DebugContext(ctx, "hidden")
	require.Zero(t, out.Len())
}

func TestLevelAndFormat(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := telemetry.NewLogger(&out, "text", slog.LevelWarn, nil)
	require.NoError(t, err)
	log.Info("hidden")
	log.Warn("shown", "token", "s3cret")
	require.Contains(t, out.String(), "msg=shown token=<redacted>\n")
	require.NotContains(t, out.String(), "hidden")

	_, err = telemetry.NewLogger(&out, "xml", slog.LevelWarn, nil)
	require.EqualError(t, err, `log format "xml": only text and json exist`)
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, key := range []string{
		"password", "Password", "new_password", "client_secret", "clientSecret", "client-secret-old", "token", "access_token", "refreshToken",
		"Authorization", "Proxy-Authorization", "authorization_header", "Set-Cookie", "credentials", "api_key", "apiKey", "TOKEN",
	} {
		got := telemetry.Redact(nil, slog.String(key, "s3cret"))
		require.Equal(t, "<redacted>", got.Value.String(), key)
		require.Equal(t, key, got.Key)
	}
	for _, key := range []string{"user", "secret_file", "token_url", "tokenType", "token_expires", "msg", "password_count", "position"} {
		require.Equal(t, "v", telemetry.Redact(nil, slog.String(key, "v")).Value.String(), key)
	}
	require.Equal(t, "password reset", telemetry.Redact(nil, slog.String("msg", "password reset")).Value.String())

	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := telemetry.NewLogger(&out, format, slog.LevelInfo, ids)
		require.NoError(t, err)
		log.With("api_token", "s3cret").WithGroup("credentials").Info("asked",
			"value", "s3cret", slog.Group("deep", "x", "s3cret"))
		log.Info("asked",
			"header", http.Header{"Authorization": {"Bearer s3cret"}, "Cookie": {"s3cret"}, "Accept": {"kept"}},
			"url", &url.URL{Scheme: "http", User: url.UserPassword("u", "s3cret"), Host: "h"}, "no_url", (*url.URL)(nil),
			slog.Group("g", "password", "s3cret"))
		require.NotContains(t, out.String(), "s3cret")
		require.Contains(t, out.String(), "kept")
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	m, err := telemetry.NewMetrics(reg, telemetry.Names{Sources: []string{"keycloak"}, Realms: []string{"acme"}})
	require.NoError(t, err)

	m.Deliveries.WithLabelValues(m.Source("keycloak"), "admin", "recorded").Inc()
	m.WebhookRequests.WithLabelValues(m.Source("../../etc"), telemetry.Status(404)).Inc()
	m.KeycloakRequests.WithLabelValues(telemetry.Method(""), "/admin/realms/{realm}/users", telemetry.Status(0)).Inc()
	m.KeycloakSeconds.WithLabelValues(telemetry.Method("PUT"), "/admin/realms/{realm}/users/{id}").Observe(0.02)
	m.Calls.WithLabelValues("user.disable", "succeeded").Inc()
	m.ProjectionPosition.WithLabelValues("users").Set(12)
	m.ProjectionLag.WithLabelValues("users").Set(3)
	m.PollRuns.WithLabelValues(m.Realm("acme"), "ok").Inc()
	m.Reconciliations.WithLabelValues(m.Realm("unheard-of"), "completed").Inc()
	m.ReconciliationFindings.WithLabelValues("acme", "changed").Set(1)
	m.StoreAppendSeconds.Observe(0.004)

	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)

	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string][]string{}
	for _, f := range families {
		require.Greater(t, len(f.GetHelp()), 40, "%s says what it is", f.GetName())
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		got[f.GetName()] = labels
	}
	require.Equal(t, map[string][]string{
		"keytrail_deliveries_total":                    {"kind=admin", "outcome=recorded", "source=keycloak"},
		"keytrail_webhook_requests_total":              {"source=other", "status=404"},
		"keytrail_keycloak_requests_total":             {"method=GET", "status=none", "template=/admin/realms/{realm}/users"},
		"keytrail_keycloak_request_duration_seconds":   {"method=PUT", "template=/admin/realms/{realm}/users/{id}"},
		"keytrail_calls_total":                         {"command=user.disable", "outcome=succeeded"},
		"keytrail_projection_position":                 {"projection=users"},
		"keytrail_projection_lag_events":               {"projection=users"},
		"keytrail_poll_runs_total":                     {"outcome=ok", "realm=acme"},
		"keytrail_poll_last_success_timestamp_seconds": {"realm=acme"},
		"keytrail_reconciliations_total":               {"realm=other", "status=completed"},
		"keytrail_reconciliation_findings":             {"realm=acme", "situation=changed"},
		"keytrail_store_append_seconds":                nil,
		"keytrail_store_appends_waiting":               nil,
	}, got)
	require.NoError(t, testutil.CollectAndCompare(m.ProjectionLag, strings.NewReader(`
# HELP keytrail_projection_lag_events Events between the head of the log and the projection's position; a number that keeps growing means that the projection stands still.
# TYPE keytrail_projection_lag_events gauge
keytrail_projection_lag_events{projection="users"} 3
`)))

	_, err = telemetry.NewMetrics(reg, telemetry.Names{})
	require.ErrorContains(t, err, "registering metrics")
	var already prometheus.AlreadyRegisteredError
	require.ErrorAs(t, err, &already)

	_, err = telemetry.NewMetrics(prometheus.NewRegistry(), telemetry.Names{})
	require.NoError(t, err, "no globals")
}

func TestLabelValues(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]string{0: "none", 200: "200", 599: "599", 99: "other", 600: "other", -1: "other"} {
		require.Equal(t, want, telemetry.Status(code))
	}
	for method, want := range map[string]string{"": "GET", "PATCH": "PATCH", "get": "other", "BREW": "other"} {
		require.Equal(t, want, telemetry.Method(method))
	}
	m, err := telemetry.NewMetrics(prometheus.NewRegistry(), telemetry.Names{Sources: []string{"keycloak"}})
	require.NoError(t, err)
	require.Equal(t, "poll", m.Source("poll"))
	require.Equal(t, telemetry.Other, m.Source("x"))
	require.Equal(t, telemetry.Other, m.Realm("acme"))
}
