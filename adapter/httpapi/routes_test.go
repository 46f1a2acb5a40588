package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// The list of routes is looked at when it changes: write it anew with
// UPDATE_GOLDEN=1.
func TestRoutes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var lines []string
	require.NoError(t, chi.Walk(b.server.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		line := method + " " + route
		if slices.ContainsFunc(notBuilt, func(m missing) bool { return m.method == method && apiRoot+m.pattern == route }) {
			line += "   not built"
		}
		lines = append(lines, line)
		return nil
	}))
	slices.SortFunc(lines, func(a, b string) int {
		_, pathA, _ := strings.Cut(a, " ")
		_, pathB, _ := strings.Cut(b, " ")
		return cmp.Or(strings.Compare(pathA, pathB), strings.Compare(a, b))
	})
	golden := filepath.Join("testdata", "routes.txt")
	got := strings.Join(lines, "\n") + "\n"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestWhatIsNotBuiltSaysSo(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, m := range notBuilt {
		path := strings.NewReplacer("{", "", "}", "").Replace(apiRoot + m.pattern)
		p := b.do(m.method, path, "").problem(http.StatusNotImplemented, adapter.CodeNotBuilt)
		require.Contains(t, p.Detail, "not built yet")
	}
	b.get("/").problem(http.StatusNotImplemented, adapter.CodeNotBuilt)
	require.Zero(t, b.head(), "nothing was begun")
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, path := range []string{"/nothing", "/api/v1/nothing", "/api/v2/calls", "/webhooks", "/api/v1/calls/", "/favicon.ico"} {
		b.get(path).problem(http.StatusNotFound, adapter.CodeNotFound)
	}
	for path, allow := range map[string]string{
		"/webhooks/keycloak":                   "POST",
		"/api/v1/realms/acme/users/x/disable":  "POST",
		"/api/v1/realms/acme/users/a%2Fb/lock": "",
	} {
		got := b.do(http.MethodGet, path, "")
		if allow == "" {
			got.problem(http.StatusNotFound, adapter.CodeNotFound)
			continue
		}
		got.problem(http.StatusMethodNotAllowed, codeMethodNotAllowed)
		require.Equal(t, allow, got.header.Get("Allow"))
	}
	got := b.do(http.MethodPut, "/api/v1/realms/acme/users/a%2Fb", "")
	got.problem(http.StatusMethodNotAllowed, codeMethodNotAllowed)
	require.Equal(t, "GET, PATCH, DELETE, HEAD", got.header.Get("Allow"))
	require.Equal(t, http.StatusOK, b.do(http.MethodHead, "/healthz", "").status)
	b.do("NONSENSE", "/nothing", "").problem(http.StatusNotFound, adapter.CodeNotFound)
	got = b.do("NONSENSE", "/api/v1/calls", "")
	got.problem(http.StatusMethodNotAllowed, codeMethodNotAllowed)
	require.Equal(t, "GET, HEAD", got.header.Get("Allow"))
}

// What can be no name is refused before it is looked for, in a store that does not take
// it or in a URL of Keycloak's that would lead elsewhere.
func TestAddressesThatNameNothing(t *testing.T) {
	t.Parallel()
	_, connected := withKeycloak(t)
	b := newBundle(t, connected)
	variables := map[string]string{
		http.MethodGet + " /api/v1/realms/*/users":                              "realm",
		http.MethodGet + " /api/v1/realms/acme/users/*":                         "id",
		http.MethodGet + " /api/v1/realms/acme/users/*/history":                 "id",
		http.MethodGet + " /api/v1/calls/*":                                     "id",
		http.MethodGet + " /api/v1/traces/*":                                    "id",
		http.MethodGet + " /api/v1/traces/*/explanation":                        "id",
		http.MethodGet + " /api/v1/deliveries/*":                                "id",
		http.MethodGet + " /api/v1/reconciliations/*/findings":                  "id",
		http.MethodPost + " /api/v1/realms/*/users":                             "realm",
		http.MethodPost + " /api/v1/realms/*/users/id-1/disable":                "realm",
		http.MethodPost + " /api/v1/realms/acme/users/*/disable":                "id",
		http.MethodPut + " /api/v1/realms/acme/users/id-1/roles/*":              "name",
		http.MethodPut + " /api/v1/realms/acme/users/id-1/client-roles/*/admin": "client",
		http.MethodDelete + " /api/v1/realms/acme/users/id-1/groups/*":          "group",
		http.MethodDelete + " /api/v1/realms/acme/users/id-1/organizations/*":   "organization",
		http.MethodPost + " /api/v1/realms/*/reconciliations":                   "realm",
		http.MethodPost + " /api/v1/projections/*/rebuild":                      "name",
		http.MethodPost + " /api/v1/deliveries/*/retry":                         "id",
	}
	for at, variable := range variables {
		method, path, _ := strings.Cut(at, " ")
		for _, bad := range []string{"%00", "a%00b", "%ff", "%2E%2E", "..", ".", strings.Repeat("a", maxName+1)} {
			p := b.do(method, strings.Replace(path, "*", bad, 1), "").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
			require.Len(t, p.Errors, 1, at)
			require.Equal(t, variable, p.Errors[0].Field, at)
		}
		b.do(method, strings.Replace(path, "*", "", 1), "").problem(http.StatusNotFound, adapter.CodeNotFound)
	}
	require.Zero(t, b.head(), "nothing was begun")
	b.get("/api/v1/realms/acme/users/"+strings.Repeat("a", maxName)).problem(http.StatusNotFound, adapter.CodeUserNotFound)
	b.get("/api/v1/realms/acme/users/a%2Fb%252F%20").problem(http.StatusNotFound, adapter.CodeUserNotFound)
}

func TestParametersThatNoStoreTakes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for path, parameters := range map[string][]string{
		"/api/v1/realms/acme/users": {"username", "email", "search", "cursor"},
		"/api/v1/calls":             {"realm", "user_id", "status"},
		"/api/v1/events":            {"type", "stream"},
		"/api/v1/audit":             {"realm", "actor", "user", "type"},
		"/api/v1/failures":          {"realm"},
		"/api/v1/traces/x":          {"realm"},
	} {
		for _, name := range parameters {
			for _, bad := range []string{"%00", "a%00b", "%ff"} {
				p := b.get(path+"?"+name+"="+bad).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
				require.Equal(t, name, p.Errors[0].Field)
			}
		}
	}
}

func TestTimesAtTheEndsOfTheCalendar(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.user("id-1", "ada")
	b.get("/api/v1/realms/acme/users/id-1?at=0001-01-01T00:00:00Z").problem(http.StatusNotFound, adapter.CodeNotYetKnown)
	require.Equal(t, http.StatusOK, b.get("/api/v1/realms/acme/users/id-1?at=9999-12-31T23:59:59Z").status)
	for _, bad := range []string{
		"/api/v1/realms/acme/users/id-1?at=9999-12-31T23:59:59-01:00", "/api/v1/audit?from=0001-01-01T00:00:00%2B01:00",
		"/api/v1/analytics?to=9999-12-31T23:59:59Z",
	} {
		b.get(bad).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	}
}

func TestAPageServesWhatNoRouteDoes(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) {
		c.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	})
	for _, path := range []string{"/", "/users/x"} {
		require.Equal(t, http.StatusTeapot, b.get(path).status)
	}
	for _, path := range []string{"/api/v1/nothing", "/webhooks/"} {
		b.get(path).problem(http.StatusNotFound, adapter.CodeNotFound)
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	t.Parallel()
	for code, m := range meanings {
		_, explained := slices.BinarySearch(adapter.Codes(), code)
		require.NotEqual(t, explained, m.title != "", "%s has its title from the catalogue or from here", code)
		require.GreaterOrEqual(t, m.status, 400, code)
		require.Equal(t, m.status == http.StatusServiceUnavailable || m.status == http.StatusTooManyRequests, m.retryAfter > 0,
			"%s: 429 and 503 say when to try again, and nothing else does", code)
	}
	for _, code := range adapter.Codes() {
		require.Contains(t, meanings, code)
	}
	// The contract's own.
	for code, status := range map[adapter.Code]int{
		adapter.CodeKeycloakInvalid: 422, adapter.CodeKeycloakForbidden: 502, adapter.CodeKeycloakNotFound: 404,
		adapter.CodeUserNotFound: 404, adapter.CodeKeycloakConflict: 409, adapter.CodeAlreadyEnabled: 409,
		adapter.CodeAlreadyDisabled: 409, adapter.CodeNotYetKnown: 404, adapter.CodeIdempotencyKeyReused: 422,
	} {
		require.Equal(t, status, meanings[code].status, code)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	t.Parallel()
	checks := []Check{{Name: "store", OK: true}}
	b := newBundle(t, func(c *Config) { c.Ready = func(context.Context) []Check { return checks } })
	require.JSONEq(t, `{"status":"ok"}`, string(b.get("/healthz").body))
	got := b.get("/readyz")
	require.Equal(t, http.StatusOK, got.status)
	require.JSONEq(t, `{"status":"ready","checks":[{"name":"store","ok":true,"detail":""}]}`, string(got.body))

	checks = append(checks, Check{Name: "projections", Detail: "users is 7 events behind"})
	got = b.get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.JSONEq(t, `{"status":"not_ready","checks":[{"name":"store","ok":true,"detail":""},{"name":"projections","ok":false,"detail":"users is 7 events behind"}]}`, string(got.body))
}

// Errors of the database and of projections name hosts, roles, users and events.
func TestReadinessTellsStrangersNoDetails(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) {
		c.Token = "api-token-canary"
		c.Ready = func(context.Context) []Check {
			return []Check{
				{Name: "store", OK: true, Detail: "reachable at db.inside"},
				{Name: "projection users", Detail: "failing, 3 events behind: event 0199d2f0 of user ada: poison"},
			}
		}
	})
	ask := func(remote string, headers ...string) reply {
		r := newRequest(t, http.MethodGet, "/readyz", "", headers...)
		r.RemoteAddr = remote
		got := b.send(r)
		require.Equal(t, http.StatusServiceUnavailable, got.status)
		return got
	}
	for _, stranger := range []reply{
		ask("192.0.2.1:1"), ask("192.0.2.1:1", "Authorization", "Bearer wrong"), ask("127.0.0.1:1", "X-Forwarded-For", "192.0.2.1"),
	} {
		require.JSONEq(t, `{"status":"not_ready","checks":[{"name":"store","ok":true,"detail":"fine"},{"name":"projection users","ok":false,
			"detail":"not fine: the log says why, and so does this address with the bearer token or on the machine itself"}]}`, string(stranger.body))
	}
	for _, trusted := range []reply{ask("127.0.0.1:1"), ask("192.0.2.1:1", "Authorization", "Bearer api-token-canary")} {
		require.Contains(t, string(trusted.body), "3 events behind: event 0199d2f0")
	}
	require.Contains(t, b.logs.String(), "3 events behind: event 0199d2f0", "what strangers are told to look into")
}

func TestPanicsAreAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) {
		c.Ready = func(context.Context) []Check { panic("a fault with personal-canary") }
	})
	p := b.get("/readyz").problem(http.StatusInternalServerError, adapter.CodeInternal)
	require.NotContains(t, p.Detail, "canary")
	require.Contains(t, b.logs.String(), "request panicked")
}

func TestHeadersAndAccessLog(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	id := uuid.New()
	got := b.do(http.MethodGet, "/api/v1/realms/acme/users/ada-canary?at=2026-05-01T00:00:00Z", "", correlationHeader, strings.ToUpper(id.String()))
	p := got.problem(http.StatusNotFound, adapter.CodeUserNotFound)
	require.Equal(t, &id, p.CorrelationID)
	require.Equal(t, id.String(), got.header.Get(correlationHeader))
	require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
	require.Equal(t, "no-store", got.header.Get("Cache-Control"))
	require.Contains(t, got.header.Get("Content-Security-Policy"), "default-src 'none'")
	logged := b.logs.String()
	require.Contains(t, logged, `"route":"/api/v1/realms/{realm}/users/{id}"`)
	require.Contains(t, logged, `"status":404`)
	require.NotContains(t, logged, "canary", "neither the path nor the query is logged")

	for _, bad := range []string{"x", uuid.Nil.String(), id.String() + "0", "{" + id.String() + "}"} {
		p := b.do(http.MethodGet, "/api/v1/calls", "", correlationHeader, bad).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
		require.Equal(t, correlationHeader, p.Errors[0].Field)
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	require.Equal(t, good, traceparent(good))
	require.Equal(t, "cc"+good[2:]+"-what-comes-later", traceparent("cc"+good[2:]+"-what-comes-later"))
	for _, bad := range []string{
		"", "x", good + "-more", "ff" + good[2:], strings.ToUpper(good), good[:54],
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
		"cc" + good[2:] + "-" + strings.Repeat("x", 200),
	} {
		require.Empty(t, traceparent(bad), bad)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := New(Config{})
	require.ErrorContains(t, err, "Recorder is missing")
	require.ErrorContains(t, err, "Logger is missing")
}

func TestDrain(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	b := newBundle(t, func(c *Config) {
		c.Projections = &fakeProjections{rebuild: func(ctx context.Context, _ string) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}}
	})
	require.Equal(t, http.StatusAccepted, b.do(http.MethodPost, "/api/v1/projections/users/rebuild", "").status)
	<-begun
	b.do(http.MethodPost, "/api/v1/projections/users/rebuild", "").problem(http.StatusConflict, adapter.CodeRunInProgress)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.server.Drain(ctx), context.Canceled, "what did not end by itself is told to stop")
	b.do(http.MethodPost, "/api/v1/projections/users/rebuild", "").problem(http.StatusServiceUnavailable, adapter.CodeInterrupted)
	require.Contains(t, b.logs.String(), "rebuild failed")
}

func TestErrorsOfTheInsideStayInside(t *testing.T) {
	t.Parallel()
	e := asError(errors.New("pq: password authentication failed for canary"))
	require.Equal(t, adapter.CodeInternal, e.Code)
	require.NotContains(t, e.Error(), "canary")
}
