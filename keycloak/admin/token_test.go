package admin_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// A hundred calls that are refused with the same token fetch one new token.
func TestRefusedTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	const parallel = 100
	var waiting sync.WaitGroup
	waiting.Add(parallel)
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			waiting.Done()
			waiting.Wait() // until all have come with the first token
			status(401)(w, r)
			return
		}
		succeed(w, r)
	})
	client := newClient(t, s.URL)
	ctx := testContext(t)
	results := make(chan error, parallel)
	for range parallel {
		go func() { results <- client.DeleteUser(ctx, "acme", "1212") }()
	}
	for range parallel {
		require.NoError(t, <-results)
	}
	require.Equal(t, 2, s.tokenCount())
	require.Len(t, s.requests(), 2*parallel)
}

func TestSecondRefusalIsFinal(t *testing.T) {
	t.Parallel()
	for method, call := range calls {
		s := newServer(t, status(401))
		err := call(testContext(t), newClient(t, s.URL))
		var refused *keycloak.APIError
		require.ErrorAs(t, err, &refused, method)
		require.Equal(t, keycloak.KindUnauthorized, refused.Kind)
		require.Len(t, s.requests(), 2)
		require.Equal(t, 2, s.tokenCount())
	}
}

type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func TestTokenIsRenewedAtFourFifthsOfItsLife(t *testing.T) {
	t.Parallel()
	s := newServer(t, succeed)
	var broken atomic.Bool
	s.tokenFor = func(w http.ResponseWriter, n int) {
		if broken.Load() {
			status(400)(w, nil)
			return
		}
		writeToken(w, n, 100)
	}
	var now clock
	now.ms.Store(1_000_000)
	client := newClient(t, s.URL, func(cfg *admin.Config) { cfg.Clock = now.now })
	call := func() error { return client.DeleteUser(testContext(t), "acme", "1212") }

	require.NoError(t, call())
	now.advance(79 * time.Second)
	require.NoError(t, call())
	require.Equal(t, 1, s.tokenCount())
	now.advance(time.Second)
	require.NoError(t, call())
	require.Equal(t, 2, s.tokenCount())

	// The endpoint fails: the token in hand does for as long as it is valid, and
	// not every call asks again.
	broken.Store(true)
	now.advance(80 * time.Second)
	require.NoError(t, call())
	require.NoError(t, call())
	require.Equal(t, 3, s.tokenCount())
	now.advance(20 * time.Second)
	var failure *admin.TokenError
	require.ErrorAs(t, call(), &failure)
	broken.Store(false)
	require.NoError(t, call())
}

func TestTokenRequestIsRepeatedLikeARead(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{"503": status(503), "500": status(500), "hang up": hangUp} {
		s := newServer(t, succeed)
		s.tokenFor = func(w http.ResponseWriter, n int) {
			if n < 3 {
				answer(w, &http.Request{Body: http.NoBody})
				return
			}
			writeToken(w, n, 300)
		}
		require.NoError(t, newClient(t, s.URL).DeleteUser(testContext(t), "acme", "1212"), name)
		require.Equal(t, 3, s.tokenCount())
	}
}

// What was sent to the token endpoint is not the call.
func TestLostTokenAnswerMeansNotSent(t *testing.T) {
	t.Parallel()
	s := newServer(t, succeed)
	s.tokenFor = func(w http.ResponseWriter, _ int) { hangUp(w, &http.Request{Body: http.NoBody}) }
	err := newClient(t, s.URL).DeleteUser(testContext(t), "acme", "1212")
	var token *admin.TokenError
	require.ErrorAs(t, err, &token)
	var failure *admin.TransportError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, admin.KindReset, failure.Kind)
	require.False(t, failure.Sent)
	require.True(t, admin.NotSent(err))
}

func TestTokenAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, `null`, `{}`, `[]`, `{"access_token":""}`, `{"access_token":"abc`, `<html>`} {
		s := newServer(t, succeed)
		s.tokenFor = func(w http.ResponseWriter, _ int) { _, _ = w.Write([]byte(body)) }
		err := newClient(t, s.URL).DeleteUser(testContext(t), "acme", "1212")
		var unreadable *admin.DecodeError
		require.ErrorAs(t, err, &unreadable, body)
		require.True(t, admin.NotSent(err))
		require.NotContains(t, err.Error(), "abc")
		require.Empty(t, s.requests())
	}
}

// Whatever a server or a proxy answers, the secret and the token stay out of errors.
func TestErrorsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"errorMessage":"bad request: ` + r.Header.Get("Authorization") + ` client ` + secret + `"}`))
	}
	s := newServer(t, echo)
	s.tokenFor = func(w http.ResponseWriter, _ int) {
		_, _ = w.Write([]byte(`{"access_token":"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl","expires_in":60}`))
	}
	for _, call := range calls {
		err := call(testContext(t), newClient(t, s.URL))
		require.ErrorContains(t, err, "bad request")
		require.NotContains(t, err.Error(), secret)
		require.NotContains(t, err.Error(), "eyJ")
	}

	s = newServer(t, succeed)
	s.tokenFor = func(w http.ResponseWriter, _ int) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":"invalid_client","error_description":"secret ` + secret + ` is wrong"}`))
	}
	err := newClient(t, s.URL).DeleteUser(testContext(t), "acme", "1212")
	require.ErrorContains(t, err, "is wrong")
	require.NotContains(t, err.Error(), secret)
	var refused *keycloak.APIError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "invalid_client", refused.Code)

	_, err = admin.New(admin.Config{BaseURL: "http://user:" + secret + "@host:port\x00", ClientSecret: secret})
	require.Error(t, err)
	require.NotContains(t, err.Error(), secret)
	require.NotContains(t, admin.Credential{Value: secret}.String(), secret)
}
