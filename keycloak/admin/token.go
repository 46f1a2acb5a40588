package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// tokenTimeout bounds one fetch, repetitions included. It is apart from the
// callers' contexts, because a fetch serves all who wait for it.
const tokenTimeout = time.Minute

// defaultTokenLife is assumed when an answer has no expires_in: the shortest that
// Keycloak sets by itself (master, 60 s).
const defaultTokenLife = time.Minute

// tokenSource keeps the service account's access token. At most one fetch is under
// way at a time.
type tokenSource struct {
	fetch func(context.Context) (string, time.Duration, error)
	clock func() time.Time

	mu       sync.Mutex
	value    string
	renewAt  time.Time // 80 % of its life
	expireAt time.Time
	inflight *tokenFetch
}

type tokenFetch struct {
	done  chan struct{}
	value string
	err   error
}

// token returns a token with at least a fifth of its life left, or, when none can
// be fetched, an older one for as long as it is valid.
func (s *tokenSource) token(ctx context.Context) (string, error) {
	s.mu.Lock()
	if s.value != "" && s.clock().Before(s.renewAt) {
		defer s.mu.Unlock()
		return s.value, nil
	}
	f := s.inflight
	if f == nil {
		f = &tokenFetch{done: make(chan struct{})}
		s.inflight = f
		go s.run(f)
	}
	s.mu.Unlock()

	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return "", &TransportError{Op: tokenOp, Kind: classify(ctx.Err()), Err: ctx.Err()}
	}
}

func (s *tokenSource) run(f *tokenFetch) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	asked := s.clock()
	value, life, err := s.fetch(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.value = value
		s.renewAt, s.expireAt = asked.Add(life*8/10), asked.Add(life)
	case s.value != "" && s.clock().Before(s.expireAt):
		// Not every call of the remaining time shall wait for a fetch to fail.
		now := s.clock()
		s.renewAt = now.Add(s.expireAt.Sub(now) / 2)
		value, err = s.value, nil
	}
	f.value, f.err = value, err
	s.inflight = nil
	close(f.done)
}

// invalidate forgets a token that was refused. It goes by value: of many calls that
// were refused with the same token, only the first makes a difference.
func (s *tokenSource) invalidate(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.value == value {
		s.value = ""
	}
}

const (
	tokenTemplate = "/realms/{realm}/protocol/openid-connect/token" //nolint:gosec // a URL
	tokenOp       = http.MethodPost + " " + tokenTemplate
)

// fetchToken asks for a token by client credentials. They go in the form, not in
// an Authorization header: gocloak's basic authentication leaves out the encoding
// that RFC 6749, 2.3.1, asks for.
func (c *Client) fetchToken(ctx context.Context) (string, time.Duration, error) {
	ctx = withCall(ctx, &call{method: http.MethodPost, template: tokenTemplate, token: true})
	req := c.cloak.GetRequest(ctx).
		SetHeader("Accept", "application/json").
		SetFormData(map[string]string{
			"grant_type":    "client_credentials",
			"client_id":     c.clientID,
			"client_secret": c.clientSecret,
		})
	answer, err := c.execute(ctx, req, c.baseURL+"/realms/"+url.PathEscape(c.authRealm)+"/protocol/openid-connect/token")
	if err != nil {
		return "", 0, err
	}
	if answer.status != http.StatusOK {
		return "", 0, c.apiError(tokenOp, answer)
	}
	var token struct {
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	if err := decode(tokenOp, answer, &token); err != nil {
		return "", 0, err
	}
	if token.AccessToken == "" {
		return "", 0, &DecodeError{Op: tokenOp, Status: answer.status, Err: errors.New("no access_token")}
	}
	life := defaultTokenLife
	if token.ExpiresIn > 0 {
		life = time.Duration(min(token.ExpiresIn, 24*60*60) * float64(time.Second))
	}
	return token.AccessToken, life, nil
}
