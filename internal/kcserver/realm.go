package kcserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
)

const (
	// BrowserClient is the public client that people of a test realm log in
	// with: RegisterUser and LogIn.
	BrowserClient = "browser"
	// afterLogin is where the browser client sends people; nothing listens
	// there, and nothing needs to.
	afterLogin = "http://127.0.0.1/after-login"
	// maxPage is far above the 10 KiB of a login page.
	maxPage = 1 << 20
)

// KeytrailRoles are what keytrail's service account needs for all that
// README.md shows, and no more: to poll (view-events), to reconcile (view-users,
// view-realm, view-clients, view-organizations), and to run commands
// (manage-users, manage-organizations).
var KeytrailRoles = []string{
	"view-events", "view-users", "view-realm", "view-clients", "view-organizations", "manage-users", "manage-organizations",
}

// Listeners are the event listeners of a realm that sends webhooks.
var Listeners = []string{"jboss-logging", "ext-event-webhook"}

// RealmOptions of a new realm. The zero value is a realm that saves its events
// and sends no webhook.
type RealmOptions struct {
	// Name; default: one that no other realm has.
	Name string
	// WebhookURL gets every event of the realm, signed with WebhookSecret where
	// that is not empty.
	WebhookURL, WebhookSecret string
	// Listeners of the realm; nil: Listeners.
	Listeners []string
	// Roles that the service account gets of the client realm-management; nil:
	// KeytrailRoles.
	Roles []string
	// Settings are further fields of the realm representation; they win over
	// ours.
	Settings map[string]any
}

// A Realm was made by NewRealm.
type Realm struct {
	Name string
	// ClientID and ClientSecret are of keytrail's service account.
	ClientID, ClientSecret string
	// WebhookID is empty in a realm without a webhook.
	WebhookID string

	server *Server
}

// NewRealm creates a realm with events and admin events on, self-registration
// on, no required profile fields beyond the user name, keytrail's service
// account, and the BrowserClient.
func (s *Server) NewRealm(ctx context.Context, opts RealmOptions) (*Realm, error) {
	r := &Realm{Name: opts.Name, ClientID: "keytrail", ClientSecret: rand.Text(), server: s}
	if r.Name == "" {
		r.Name = "realm-" + strings.ToLower(rand.Text()[:10])
	}
	if opts.Listeners == nil {
		opts.Listeners = Listeners
	}
	if opts.Roles == nil {
		opts.Roles = KeytrailRoles
	}
	realm := map[string]any{
		"realm": r.Name, "enabled": true, "sslRequired": "none",
		"eventsEnabled": true, "adminEventsEnabled": true, "adminEventsDetailsEnabled": true,
		"eventsListeners":     opts.Listeners,
		"registrationAllowed": true,
		"clients": []any{
			map[string]any{
				"clientId": r.ClientID, "secret": r.ClientSecret, "publicClient": false,
				"serviceAccountsEnabled": true, "standardFlowEnabled": false,
			},
			map[string]any{
				"clientId": BrowserClient, "publicClient": true, "standardFlowEnabled": true,
				"directAccessGrantsEnabled": true, "redirectUris": []string{afterLogin},
			},
		},
		"users": []any{map[string]any{
			"username": "service-account-" + r.ClientID, "enabled": true, "serviceAccountClientId": r.ClientID,
			"clientRoles": map[string]any{"realm-management": opts.Roles},
		}},
	}
	for field, value := range opts.Settings {
		realm[field] = value
	}
	if _, err := s.admin.Do(ctx, http.MethodPost, "/admin/realms", realm, nil); err != nil {
		return nil, fmt.Errorf("creating realm %s: %w", r.Name, err)
	}
	// The administrator's token lists the realms that it may manage, so one from before this realm may not touch it.
	s.admin.forgetToken()
	if opts.WebhookURL == "" {
		return r, nil
	}
	var err error
	// Webhooks are rows of the extension's own table: a realm representation cannot carry them.
	r.WebhookID, err = s.admin.Create(ctx, r.path("/webhooks"), map[string]any{
		"enabled": "true", "url": opts.WebhookURL, "secret": opts.WebhookSecret, "eventTypes": []string{"*"},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registering the webhook of realm %s: %w", r.Name, err), r.Delete(ctx))
	}
	return r, nil
}

// Delete deletes the realm; a realm that is gone is no error.
func (r *Realm) Delete(ctx context.Context) error {
	status, err := r.server.admin.Do(ctx, http.MethodDelete, r.AdminPath(""), nil, nil)
	if err != nil && status != http.StatusNotFound {
		return fmt.Errorf("deleting realm %s: %w", r.Name, err)
	}
	return nil
}

// AdminPath is the path of something of the realm in the Admin API:
// AdminPath("/users") is "/admin/realms/NAME/users".
func (r *Realm) AdminPath(rest string) string { return "/admin" + r.path(rest) }

func (r *Realm) path(rest string) string { return "/realms/" + url.PathEscape(r.Name) + rest }

// Do is Admin.Do below the realm: rest is a path such as "/users".
func (r *Realm) Do(ctx context.Context, method, rest string, body, out any) (status int, err error) {
	return r.server.admin.Do(ctx, method, r.AdminPath(rest), body, out)
}

// Create is Admin.Create below the realm.
func (r *Realm) Create(ctx context.Context, rest string, body any) (id string, err error) {
	return r.server.admin.Create(ctx, r.AdminPath(rest), body)
}

// SetEvents switches the realm's saved events and its listeners on or off.
// With them off a change leaves no trace, as one made behind keytrail's back.
func (r *Realm) SetEvents(ctx context.Context, on bool) error {
	listeners := []string{}
	if on {
		listeners = Listeners
	}
	_, err := r.Do(ctx, http.MethodPut, "", map[string]any{
		"realm": r.Name, "eventsEnabled": on, "adminEventsEnabled": on, "adminEventsDetailsEnabled": on, "eventsListeners": listeners,
	}, nil)
	if err != nil {
		return fmt.Errorf("switching the events of realm %s: %w", r.Name, err)
	}
	return nil
}

// A Registration is what a person types into the registration form. Keycloak
// wants all of it; user names have at least three characters.
type Registration struct {
	Username, Password, Email, FirstName, LastName string
}

// RegisterUser fills in the realm's registration form as a browser would, and
// returns the new user's id.
func (r *Realm) RegisterUser(ctx context.Context, reg Registration) (id string, err error) {
	if err := r.register(ctx, reg); err != nil {
		return "", fmt.Errorf("registering %s in realm %s: %w", reg.Username, r.Name, err)
	}
	var found []struct {
		ID string `json:"id"`
	}
	query := url.Values{"exact": {"true"}, "username": {reg.Username}}
	if _, err := r.Do(ctx, http.MethodGet, "/users?"+query.Encode(), nil, &found); err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("registering %s in realm %s: %d such users afterwards", reg.Username, r.Name, len(found))
	}
	return found[0].ID, nil
}

var formAction = regexp.MustCompile(`id="kc-register-form"[^>]* action="([^"]+)"`)

func (r *Realm) register(ctx context.Context, reg Registration) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := *r.server.admin.http // the same transport; cookies of its own
	browser.Jar = jar
	query := url.Values{
		"client_id": {BrowserClient}, "response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {afterLogin},
	}
	page, _, err := visit(ctx, &browser, http.MethodGet,
		r.server.URL+r.path("/protocol/openid-connect/registrations?")+query.Encode(), nil)
	if err != nil {
		return err
	}
	action := formAction.FindStringSubmatch(page)
	if action == nil {
		return fmt.Errorf("no registration form in the page: %s", excerpt(page))
	}
	answer, location, err := visit(ctx, &browser, http.MethodPost, html.UnescapeString(action[1]), url.Values{
		"username": {reg.Username}, "password": {reg.Password}, "password-confirm": {reg.Password},
		"email": {reg.Email}, "firstName": {reg.FirstName}, "lastName": {reg.LastName},
	})
	if err != nil {
		return err
	}
	if !strings.HasPrefix(location, afterLogin) {
		return fmt.Errorf("the form was refused: %s", excerpt(answer))
	}
	return nil
}

// LogIn logs a user in with the password (direct grant of the BrowserClient)
// and returns the access token. It emits LOGIN, or LOGIN_ERROR with a
// *StatusError.
func (r *Realm) LogIn(ctx context.Context, username, password string) (token string, err error) {
	token, _, err = r.server.admin.passwordGrant(ctx, r.Name, BrowserClient, username, password)
	return token, err
}

// ServiceAccountToken logs keytrail's service account in.
func (r *Realm) ServiceAccountToken(ctx context.Context) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {r.ClientID}, "client_secret": {r.ClientSecret}}
	answer, _, err := visit(ctx, r.server.admin.http, http.MethodPost, r.server.URL+r.path("/protocol/openid-connect/token"), form)
	if err != nil {
		return "", err
	}
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(answer), &grant); err != nil || grant.AccessToken == "" {
		return "", fmt.Errorf("no token for %s in realm %s: %s", r.ClientID, r.Name, excerpt(answer))
	}
	return grant.AccessToken, nil
}

func visit(ctx context.Context, browser *http.Client, method, target string, form url.Values) (page, location string, err error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return "", "", err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := browser.Do(req)
	if err != nil {
		return "", "", err
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	return string(content), resp.Header.Get("Location"), errors.Join(err, resp.Body.Close())
}

var markup = regexp.MustCompile(`(?s)<(script|style).*?</(script|style)>|<[^>]+>|\s+`)

// excerpt is the readable text of a page, short enough for an error.
func excerpt(page string) string {
	text := strings.Join(strings.Fields(markup.ReplaceAllString(page, " ")), " ")
	return text[:min(len(text), 600)]
}
