package admin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Webhook is a subscription of a realm in the events extension of p2.
type Webhook struct {
	ID      string `json:"id"`
	Enabled bool   `json:"enabled"`
	URL     string `json:"url"`
	// EventTypes are patterns such as "*" and "admin.*".
	EventTypes []string `json:"eventTypes"`
}

// Webhooks lists a realm's webhooks. It needs the role view-events; a server without
// the extension answers 404 (p2 0.59, measured on Keycloak 26.7.3).
func (c *Client) Webhooks(ctx context.Context, realm string) ([]Webhook, error) {
	var webhooks []Webhook
	err := c.get(ctx, "/realms/{realm}/webhooks", []string{realm}, nil, &webhooks)
	return webhooks, err
}

// RepeatEventsConfig puts a realm's event configuration as it just read it, byte for
// byte. Nothing changes by it, and Keycloak emits an admin event (REALM UPDATE on
// events/config; 26.7.3, measured): the way to see whether events arrive. A change that
// somebody else makes between the read and the write would be undone. It needs the
// roles view-events and manage-events.
func (c *Client) RepeatEventsConfig(ctx context.Context, realm string) error {
	const template = "/admin/realms/{realm}/events/config"
	var config json.RawMessage
	if err := c.get(ctx, template, []string{realm}, nil, &config); err != nil {
		return err
	}
	_, err := c.do(ctx, request{method: http.MethodPut, template: template, params: []string{realm}, body: config, want: http.StatusNoContent})
	return err
}

// GrantedRoles are the roles on a realm that the newest access token claims, sorted:
// those of realm-management or, for a service account of another realm, of the
// realm's client there. It reports false where the token does not tell (lightweight
// ones do not, and a client scope may leave roles out).
func (c *Client) GrantedRoles(ctx context.Context, realm string) (roles []string, told bool, err error) {
	token, err := c.tokens.token(ctx)
	if err != nil {
		return nil, false, tokenError(err)
	}
	var payload struct {
		RealmAccess struct {
			Roles []string `json:"roles"`
		} `json:"realm_access"`
		ResourceAccess map[string]struct {
			Roles []string `json:"roles"`
		} `json:"resource_access"`
	}
	if !claimsOf(token, &payload) || len(payload.ResourceAccess)+len(payload.RealmAccess.Roles) == 0 {
		return nil, false, nil
	}
	name := "realm-management"
	if c.authRealm != realm {
		name = realm + "-realm"
	}
	roles = slices.Clone(payload.ResourceAccess[name].Roles)
	slices.Sort(roles)
	return roles, true, nil
}

// AuthRealm is the realm of the service account.
func (c *Client) AuthRealm() string { return c.authRealm }

// LogIn fetches a token whether or not there is a valid one, and returns its id (jti).
// Keycloak reports a service account's login as a user event of AuthRealm, CLIENT_LOGIN,
// that has the id among its details as token_id, pushed and stored alike (26.7.3,
// measured): the way to see whether events arrive that needs no role. The id is empty
// where the token does not tell it. Calls keep the token that they have.
func (c *Client) LogIn(ctx context.Context) (tokenID string, err error) {
	token, _, err := c.fetchToken(ctx)
	if err != nil {
		return "", tokenError(err)
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if !claimsOf(token, &claims) {
		return "", nil
	}
	return claims.ID, nil
}

// claimsOf decodes the claims of a token that has some. The token came from Keycloak
// over the connection that calls use; its signature is Keycloak's to check.
func claimsOf(token string, into any) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	return err == nil && json.Unmarshal(claims, into) == nil
}
