package contract

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// afterLogin is where Keycloak sends a browser after the form; nothing listens there.
const afterLogin = "http://127.0.0.1/after-login"

var formAction = regexp.MustCompile(`id="kc-register-form"[^>]* action="([^"]+)"`)

// RegisterByForm is a Target's Register for a real server: it fills in the form as a
// browser would.
func RegisterByForm(base string) func(t *testing.T, realm string, person Registration) {
	return func(t *testing.T, realm string, person Registration) {
		t.Helper()
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		browser := &http.Client{Transport: transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
		page, _ := visit(t.Context(), t, browser, http.MethodGet, base+"/realms/"+realm+"/protocol/openid-connect/registrations?"+url.Values{
			"client_id": {"person"}, "response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {afterLogin},
		}.Encode(), "")
		action := formAction.FindStringSubmatch(page)
		require.NotNil(t, action, "no registration form in %s", page)
		_, location := visit(t.Context(), t, browser, http.MethodPost, html.UnescapeString(action[1]), url.Values{
			"username": {person.Username}, "email": {person.Email}, "firstName": {person.FirstName}, "lastName": {person.LastName},
			"password": {person.Password}, "password-confirm": {person.Password},
		}.Encode())
		code, err := url.Parse(location)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(location, afterLogin), "the form was refused")
		require.NotEmpty(t, code.Query().Get("code"))
	}
}

func visit(ctx context.Context, t *testing.T, browser *http.Client, method, target, form string) (page, location string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form))
	require.NoError(t, err)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := browser.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(content), resp.Header.Get("Location")
}
