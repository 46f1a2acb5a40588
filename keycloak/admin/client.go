// Package admin is keytrail's client of Keycloak's Admin API.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/keytrail/keytrail/keycloak"
)

// Config of a Client. BaseURL, AuthRealm, ClientID and ClientSecret are required.
type Config struct {
	// BaseURL of Keycloak, context path included.
	BaseURL string
	// AuthRealm is the realm of the service account ClientID.
	AuthRealm, ClientID, ClientSecret string
	// Transport carries every single wire attempt: it sits inside the retries.
	// A recorder wraps NewTransport. Nil means NewTransport.
	Transport http.RoundTripper
	// Clock defaults to time.Now, Logger to a silent one.
	Clock  func() time.Time
	Logger *slog.Logger
	// RetryMax is the number of repetitions after the first attempt.
	RetryMax                   int
	RetryWaitMin, RetryWaitMax time.Duration
	// Timeout of one wire attempt, body included.
	Timeout time.Duration
	// Observe is called once for each wire attempt, tokens included; status is 0
	// when no answer came.
	Observe func(method, template string, status int, d time.Duration)
}

// Client is safe for concurrent use.
type Client struct{}

// EventQuery selects stored events.
type EventQuery struct {
	// From is inclusive. Zero means from the oldest.
	From time.Time
	// DayPrecision sends From as a date, for Keycloak before 26.2.
	DayPrecision bool
	First, Max   int
	// Ascending asks for oldest first; Keycloak before 26.2 ignores it.
	Ascending bool
}

// Credential is a new password of a user.
type Credential struct {
	Type      string `json:"type"`
	Value     string `json:"value"`
	Temporary bool   `json:"temporary"`
}

// UserBody is the body of a POST or PUT of a user.
type UserBody struct {
	Username        *string             `json:"username,omitempty"`
	Email           *string             `json:"email,omitempty"`
	FirstName       *string             `json:"firstName,omitempty"`
	LastName        *string             `json:"lastName,omitempty"`
	Enabled         *bool               `json:"enabled,omitempty"`
	EmailVerified   *bool               `json:"emailVerified,omitempty"`
	Attributes      map[string][]string `json:"attributes,omitzero"`
	RequiredActions []string            `json:"requiredActions,omitzero"`
	Groups          []string            `json:"groups,omitzero"`
	Credentials     []Credential        `json:"credentials,omitzero"`
	// Self carries the call's stamp (keycloak.Stamp).
	Self string `json:"self,omitempty"`
}

// TransportKind is why no answer came.
type TransportKind string

// Kinds of transport failures.
const (
	KindRefused  TransportKind = "refused"
	KindTimeout  TransportKind = "timeout"
	KindReset    TransportKind = "reset"
	KindDNS      TransportKind = "dns"
	KindTLS      TransportKind = "tls"
	KindCanceled TransportKind = "canceled"
)

// TransportError is a call that got no answer.
type TransportError struct {
	Op   string
	Kind TransportKind
	// Sent reports whether any byte of any attempt may have reached Keycloak.
	Sent bool
	Err  error
}

func (e *TransportError) Error() string { return e.Op + ": " + string(e.Kind) }
func (e *TransportError) Unwrap() error { return e.Err }

// DecodeError is a success answer whose body cannot be read: truncated, not JSON or
// not of the expected shape. It is never an empty list.
type DecodeError struct {
	Op     string
	Status int
	Err    error
}

func (e *DecodeError) Error() string { return e.Op + ": unreadable answer: " + e.Err.Error() }
func (e *DecodeError) Unwrap() error { return e.Err }

// New checks the configuration; it sends nothing.
func New(cfg Config) (*Client, error) { return nil, errors.ErrUnsupported }

// NewTransport returns the transport to put under a recorder.
func NewTransport() http.RoundTripper { return http.DefaultTransport }

// IsTokenRequest reports that the request fetches a token. A recorder must pass it on unrecorded: its bodies are secrets.
func IsTokenRequest(ctx context.Context) bool { return false }

// RequestTemplate returns the URL template of the request, such as /admin/realms/{realm}/users/{id}.
func RequestTemplate(ctx context.Context) string { return "" }

// Close drops idle connections.
func (c *Client) Close() {}

func (c *Client) ServerInfo(ctx context.Context) (keycloak.ServerInfo, error) {
	return keycloak.ServerInfo{}, errors.ErrUnsupported
}
func (c *Client) Ping(ctx context.Context) error { return errors.ErrUnsupported }
func (c *Client) Realm(ctx context.Context, realm string) (keycloak.Realm, error) {
	return keycloak.Realm{}, errors.ErrUnsupported
}
func (c *Client) EventsConfig(ctx context.Context, realm string) (keycloak.EventsConfig, error) {
	return keycloak.EventsConfig{}, errors.ErrUnsupported
}
func (c *Client) AdminEvents(ctx context.Context, realm string, q EventQuery) ([]json.RawMessage, error) {
	return nil, errors.ErrUnsupported
}
func (c *Client) UserEvents(ctx context.Context, realm string, q EventQuery) ([]json.RawMessage, error) {
	return nil, errors.ErrUnsupported
}
func (c *Client) Users(ctx context.Context, realm string, first, max int) ([]keycloak.User, error) {
	return nil, errors.ErrUnsupported
}
func (c *Client) CountUsers(ctx context.Context, realm string) (int, error) {
	return 0, errors.ErrUnsupported
}
func (c *Client) User(ctx context.Context, realm, id string) (keycloak.User, error) {
	return keycloak.User{}, errors.ErrUnsupported
}

// UserByUsername returns ok false when there is none.
func (c *Client) UserByUsername(ctx context.Context, realm, username string) (user keycloak.User, ok bool, err error) {
	return keycloak.User{}, false, errors.ErrUnsupported
}
func (c *Client) UserRoles(ctx context.Context, realm, id string) (keycloak.RoleMappings, error) {
	return keycloak.RoleMappings{}, errors.ErrUnsupported
}
func (c *Client) UserGroups(ctx context.Context, realm, id string) ([]keycloak.Group, error) {
	return nil, errors.ErrUnsupported
}
func (c *Client) CreateUser(ctx context.Context, realm string, body UserBody) (id string, err error) {
	return "", errors.ErrUnsupported
}
func (c *Client) UpdateUser(ctx context.Context, realm, id string, body UserBody) error {
	return errors.ErrUnsupported
}
func (c *Client) DeleteUser(ctx context.Context, realm, id string) error {
	return errors.ErrUnsupported
}
