package kcserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
)

const (
	callTimeout = 60 * time.Second
	// tokenMargin: a token is renewed this long before it ends.
	tokenMargin = 15 * time.Second
	maxAnswer   = 64 << 20
)

// An Admin calls Keycloak's REST interfaces as the administrator of the realm
// master. It is deliberately not the product's client: tests that judge that
// client set their stage with this one. Safe for concurrent use.
type Admin struct {
	base           string
	user, password string
	http           *http.Client

	mu     sync.Mutex
	token  string
	renews time.Time
}

func newAdmin(base, user, password string) *Admin {
	return &Admin{
		base: base, user: user, password: password,
		http: &http.Client{
			Timeout:   callTimeout,
			Transport: &http.Transport{MaxIdleConnsPerHost: 8}, // its own, and no proxy
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse // no admin call redirects
			},
		},
	}
}

// A StatusError is an answer outside 2xx.
type StatusError struct {
	Method, Path string
	Status       int
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.Path, e.Status, e.Body)
}

// Do sends body as JSON (nil: none) to a path such as "/admin/realms", and
// decodes the answer into out (nil: ignored). An answer outside 2xx comes back
// as its status and a *StatusError; status 0 means that there was no answer.
func (a *Admin) Do(ctx context.Context, method, path string, body, out any) (status int, err error) {
	resp, err := a.send(ctx, method, path, body)
	if err != nil {
		return statusOf(err), err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if out == nil {
		return resp.StatusCode, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return resp.StatusCode, fmt.Errorf("%s %s: decoding the answer: %w", method, path, err)
	}
	return resp.StatusCode, nil
}

// Create posts body and returns the last segment of the answer's Location: the
// id of what was created.
func (a *Admin) Create(ctx context.Context, collection string, body any) (id string, err error) {
	resp, err := a.send(ctx, http.MethodPost, collection, body)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	location, err := resp.Location()
	if err != nil {
		return "", fmt.Errorf("POST %s: status %d without a Location: %w", collection, resp.StatusCode, err)
	}
	return path.Base(location.Path), nil
}

// Token returns an access token that is valid for a while yet.
func (a *Admin) Token(ctx context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token != "" && time.Now().Before(a.renews) {
		return a.token, nil
	}
	token, lifetime, err := a.passwordGrant(ctx, "master", "admin-cli", a.user, a.password)
	if err != nil {
		return "", err
	}
	a.token, a.renews = token, time.Now().Add(lifetime-tokenMargin)
	return a.token, nil
}

func (a *Admin) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	token, err := a.Token(ctx)
	if err != nil {
		return nil, err
	}
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: encoding the body: %w", method, path, err)
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return a.checked(req)
}

// checked sends req and turns an answer outside 2xx into a *StatusError.
func (a *Admin) checked(req *http.Request) (*http.Response, error) {
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	failure := &StatusError{Method: req.Method, Path: req.URL.Path, Status: resp.StatusCode, Body: strings.TrimSpace(string(text))}
	return nil, errors.Join(failure, err, resp.Body.Close())
}

func (a *Admin) passwordGrant(ctx context.Context, realm, client, user, password string) (token string, lifetime time.Duration, err error) {
	form := url.Values{"grant_type": {"password"}, "client_id": {client}, "username": {user}, "password": {password}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		a.base+"/realms/"+url.PathEscape(realm)+"/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := a.checked(req)
	if err != nil {
		return "", 0, fmt.Errorf("getting a token for %s: %w", user, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	var grant struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&grant); err != nil {
		return "", 0, fmt.Errorf("getting a token for %s: decoding the answer: %w", user, err)
	}
	return grant.AccessToken, time.Duration(grant.ExpiresIn) * time.Second, nil
}

func statusOf(err error) int {
	var failure *StatusError
	if errors.As(err, &failure) {
		return failure.Status
	}
	return 0
}

// forgetToken makes the next call log in anew.
func (a *Admin) forgetToken() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = ""
}
