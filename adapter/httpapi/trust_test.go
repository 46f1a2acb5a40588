package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

func TestLoopbackTrust(t *testing.T) {
	t.Parallel()
	local := func(change func(*http.Request)) func(*http.Request) { return change }
	cases := map[string]struct {
		change  func(*http.Request)
		trusted bool
	}{
		"from this machine":          {local(func(*http.Request) {}), true},
		"localhost without a port":   {local(func(r *http.Request) { r.Host = "localhost" }), true},
		"in capitals":                {local(func(r *http.Request) { r.Host = "LocalHost:1" }), true},
		"any 127 address":            {local(func(r *http.Request) { r.Host = "127.9.8.7:8085" }), true},
		"IPv6 with a port":           {local(func(r *http.Request) { r.Host, r.RemoteAddr = "[::1]:8085", "[::1]:4711" }), true},
		"IPv6 without a port":        {local(func(r *http.Request) { r.Host = "[::1]" }), true},
		"IPv4 inside IPv6":           {local(func(r *http.Request) { r.RemoteAddr = "[::ffff:127.0.0.1]:4711" }), true},
		"from elsewhere":             {local(func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" }), false},
		"an unreadable address":      {local(func(r *http.Request) { r.RemoteAddr = "@" }), false},
		"a name that was rebound":    {local(func(r *http.Request) { r.Host = "evil.example:8085" }), false},
		"a name that begins like it": {local(func(r *http.Request) { r.Host = "localhost.evil.example" }), false},
		"no host":                    {local(func(r *http.Request) { r.Host = "" }), false},
		"all interfaces":             {local(func(r *http.Request) { r.Host = "0.0.0.0:8085" }), false},
		"forwarded":                  {local(func(r *http.Request) { r.Header.Set("Forwarded", "for=192.0.2.1") }), false},
		"forwarded, the old way":     {local(func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }), false},
		"the client's address":       {local(func(r *http.Request) { r.Header.Set("X-Real-IP", "192.0.2.1") }), false},
		"the host asked for":         {local(func(r *http.Request) { r.Header.Set("X-Forwarded-Host", "keytrail.example.com") }), false},
		"the scheme asked for":       {local(func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }), false},
		"the port asked for":         {local(func(r *http.Request) { r.Header.Set("X-Forwarded-Port", "443") }), false},
		"the server asked":           {local(func(r *http.Request) { r.Header.Set("X-Forwarded-Server", "edge") }), false},
		"by way of a proxy":          {local(func(r *http.Request) { r.Header.Set("Via", "1.1 edge") }), false},
		"forwarded for nobody":       {local(func(r *http.Request) { r.Header.Set("X-Forwarded-For", "") }), false},
	}
	b := newBundle(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, at := range []struct {
				method, path, body string
				fine               int
				code               adapter.Code
			}{
				{http.MethodPost, "/webhooks/open", `{}`, http.StatusAccepted, codeSignature},
				{http.MethodGet, "/api/v1/calls", "", http.StatusOK, codeUnauthorized},
				{http.MethodGet, "/metrics", "", http.StatusOK, codeUnauthorized},
			} {
				r := newRequest(t, at.method, at.path, at.body)
				c.change(r)
				w := httptest.NewRecorder()
				b.server.ServeHTTP(w, r)
				got := reply{t: t, status: w.Code, header: w.Header(), body: w.Body.Bytes()}
				if c.trusted {
					require.Equal(t, at.fine, got.status, "%s", got.body)
					continue
				}
				require.NotEmpty(t, got.problem(http.StatusUnauthorized, at.code).Try)
			}
			for _, path := range []string{"/healthz", "/readyz"} {
				r := newRequest(t, http.MethodGet, path, "")
				c.change(r)
				w := httptest.NewRecorder()
				b.server.ServeHTTP(w, r)
				require.Equal(t, http.StatusOK, w.Code, "health is for everybody")
			}
		})
	}
}

func TestBearerToken(t *testing.T) {
	t.Parallel()
	const token = "api-token-canary"
	b := newBundle(t, func(c *Config) { c.Token = token })
	for name, c := range map[string]struct {
		header string
		fine   bool
	}{
		"the token":           {"Bearer " + token, true},
		"the scheme in lower": {"bearer " + token, true},
		"nothing":             {"", false},
		"another":             {"Bearer other", false},
		"a part of it":        {"Bearer " + token[:5], false},
		"empty":               {"Bearer ", false},
		"another scheme":      {"Basic " + token, false},
		"without a scheme":    {token, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, remote := range []string{"127.0.0.1:1", "192.0.2.1:1"} {
				r := newRequest(t, http.MethodGet, "/api/v1/calls", "", "Authorization", c.header)
				r.RemoteAddr = remote
				w := httptest.NewRecorder()
				b.server.ServeHTTP(w, r)
				got := reply{t: t, status: w.Code, header: w.Header(), body: w.Body.Bytes()}
				if c.fine {
					require.Equal(t, http.StatusOK, got.status)
					continue
				}
				got.problem(http.StatusUnauthorized, codeUnauthorized)
				require.Equal(t, `Bearer realm="keytrail"`, got.header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Run("metrics are open on this machine and with the token", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, http.StatusOK, b.get("/metrics").status)
		r := newRequest(t, http.MethodGet, "/metrics", "")
		r.RemoteAddr = "192.0.2.1:1"
		b.send(r).problem(http.StatusUnauthorized, codeUnauthorized)
		r.Header.Set("Authorization", "Bearer "+token)
		require.Equal(t, http.StatusOK, b.send(r).status)
	})
	t.Cleanup(func() { require.NotContains(t, b.logs.String(), token) })
}

// A page of another site must not be able to command through the browser of somebody
// who sits at this machine.
func TestCrossOriginCommandsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"},
	} {
		b.do(http.MethodPost, "/api/v1/realms/acme/users/x/disable", "", headers...).problem(http.StatusForbidden, codeCrossOrigin)
		require.Equal(t, http.StatusOK, b.do(http.MethodGet, "/api/v1/calls", "", headers...).status)
	}
	require.NotEqual(t, http.StatusForbidden,
		b.do(http.MethodPost, "/api/v1/realms/acme/users/x/disable", "", "Sec-Fetch-Site", "same-origin", "Origin", "http://localhost:8085").status)
}
