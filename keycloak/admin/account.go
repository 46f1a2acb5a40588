package admin

import (
	"context"
	"net/http"

	"github.com/keytrail/keytrail/keycloak"
)

const failuresTemplate = "/admin/realms/{realm}/attack-detection/brute-force/users/{id}"

// ResetPassword sets a user's password. A temporary one has to be changed at the next
// login. The event that follows holds no body.
func (c *Client) ResetPassword(ctx context.Context, realm, id string, password Credential) error {
	return c.act(ctx, http.MethodPut, userTemplate+"/reset-password", realm, id, password)
}

// SendVerifyEmail makes Keycloak send the user a link to verify the address. Where
// sending fails it answers 500 with a sentence, and has done nothing.
func (c *Client) SendVerifyEmail(ctx context.Context, realm, id string) error {
	return c.act(ctx, http.MethodPut, userTemplate+"/send-verify-email", realm, id, nil)
}

// LogoutUser ends all of a user's sessions.
func (c *Client) LogoutUser(ctx context.Context, realm, id string) error {
	return c.act(ctx, http.MethodPost, userTemplate+"/logout", realm, id, nil)
}

// LoginFailures reads what brute-force detection knows of a user.
func (c *Client) LoginFailures(ctx context.Context, realm, id string) (keycloak.LoginFailures, error) {
	var f keycloak.LoginFailures
	err := c.get(ctx, failuresTemplate, []string{realm, id}, nil, &f)
	return f, err
}

// ClearLoginFailures ends a temporary lock-out. One for good it leaves as it is: that
// ends by enabling the user (26.1.4 and 26.7.3).
func (c *Client) ClearLoginFailures(ctx context.Context, realm, id string) error {
	return c.act(ctx, http.MethodDelete, failuresTemplate, realm, id, nil)
}

func (c *Client) act(ctx context.Context, method, template, realm, id string, body any) error {
	_, err := c.do(ctx, request{method: method, template: template, params: []string{realm, id}, body: body, want: http.StatusNoContent})
	return err
}

// ServiceAccountID is the user id under which Keycloak names this client in admin
// events: the subject of the newest access token. It is empty before the first token
// was fetched, and where tokens do not tell (lightweight ones have no subject).
func (c *Client) ServiceAccountID() string {
	c.tokens.mu.Lock()
	token := c.tokens.value
	c.tokens.mu.Unlock()
	var payload struct {
		Subject string `json:"sub"`
	}
	if !claimsOf(token, &payload) {
		return ""
	}
	return payload.Subject
}
