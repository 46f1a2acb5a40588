package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/keytrail/keytrail/keycloak"
)

// Ping checks that Keycloak answers, that the auth realm exists and that the service
// account gets a token. It needs no role.
func (c *Client) Ping(ctx context.Context) error {
	const template = "/realms/{realm}"
	var realm struct {
		Name string `json:"realm"`
	}
	if err := c.get(ctx, template, []string{c.authRealm}, nil, &realm); err != nil {
		return err
	}
	if realm.Name == "" {
		return &DecodeError{Op: http.MethodGet + " " + template, Status: http.StatusOK, Err: errors.New("not a realm: is the base URL Keycloak's?")}
	}
	return nil
}

// ServerInfo reads what the server tells about itself. See keycloak.ServerInfo for
// what it hides from service accounts.
func (c *Client) ServerInfo(ctx context.Context) (keycloak.ServerInfo, error) {
	var info struct {
		SystemInfo struct {
			Version string `json:"version"`
		} `json:"systemInfo"`
		Features []json.RawMessage `json:"features"`
	}
	if err := c.get(ctx, "/admin/serverinfo", nil, nil, &info); err != nil {
		return keycloak.ServerInfo{}, err
	}
	return keycloak.ServerInfo{Version: info.SystemInfo.Version, Features: info.Features}, nil
}

// Realm reads a realm by name. ID is empty for a service account without the role
// view-realm.
func (c *Client) Realm(ctx context.Context, realm string) (keycloak.Realm, error) {
	const template = "/admin/realms/{realm}"
	var r keycloak.Realm
	if err := c.get(ctx, template, []string{realm}, nil, &r); err != nil {
		return keycloak.Realm{}, err
	}
	if r.Name == "" {
		return keycloak.Realm{}, &DecodeError{Op: http.MethodGet + " " + template, Status: http.StatusOK, Err: errors.New("a realm without name")}
	}
	return r, nil
}

// EventsConfig reads which events a realm stores and to which listeners it sends
// them. It needs the role view-events.
func (c *Client) EventsConfig(ctx context.Context, realm string) (keycloak.EventsConfig, error) {
	var config keycloak.EventsConfig
	err := c.get(ctx, "/admin/realms/{realm}/events/config", []string{realm}, nil, &config)
	return config, err
}

// EventQuery selects stored events.
type EventQuery struct {
	// From is inclusive, in milliseconds. Zero means from the oldest.
	From time.Time
	// DayPrecision sends From's date instead, which Keycloak reads in its own
	// time zone: ask from the day before. Keycloak before 26.2 answers 400 to
	// milliseconds; see MillisecondQueries.
	DayPrecision bool
	// First skips that many, Max bounds the list; 0 leaves it to Keycloak (100).
	First, Max int
	// Ascending asks for the oldest first. Keycloak before 26.2 ignores it.
	Ascending bool
}

func (q EventQuery) values() url.Values {
	v := url.Values{}
	if !q.From.IsZero() {
		if q.DayPrecision {
			v.Set("dateFrom", q.From.UTC().Format(time.DateOnly))
		} else {
			v.Set("dateFrom", strconv.FormatInt(q.From.UnixMilli(), 10))
		}
	}
	if q.First > 0 {
		v.Set("first", strconv.Itoa(q.First))
	}
	if q.Max > 0 {
		v.Set("max", strconv.Itoa(q.Max))
	}
	if q.Ascending {
		v.Set("direction", "asc")
	}
	return v
}

const adminEventsTemplate = "/admin/realms/{realm}/admin-events"

// AdminEvents reads stored admin events, each as Keycloak sent it. The order is by
// time, equal times in any order, and pages shift while events arrive. It needs the
// role view-events, and answers 500 where Keycloak has no event store (p2 takes the
// default away; --spi-events-store--provider=jpa brings it back).
func (c *Client) AdminEvents(ctx context.Context, realm string, q EventQuery) ([]json.RawMessage, error) {
	return c.events(ctx, adminEventsTemplate, realm, q)
}

// UserEvents reads stored user events; otherwise it is as AdminEvents.
func (c *Client) UserEvents(ctx context.Context, realm string, q EventQuery) ([]json.RawMessage, error) {
	return c.events(ctx, "/admin/realms/{realm}/events", realm, q)
}

func (c *Client) events(ctx context.Context, template, realm string, q EventQuery) ([]json.RawMessage, error) {
	var events []json.RawMessage
	if err := c.get(ctx, template, []string{realm}, q.values(), &events); err != nil {
		return nil, err
	}
	return events, nil
}

// MillisecondQueries reports whether the server understands EventQuery.From in
// milliseconds and Ascending, which came together in Keycloak 26.2. It asks for one
// event and reads a 400 as no.
func (c *Client) MillisecondQueries(ctx context.Context, realm string) (bool, error) {
	_, err := c.AdminEvents(ctx, realm, EventQuery{From: c.clock(), Max: 1})
	var refused *keycloak.APIError
	if errors.As(err, &refused) && refused.Status == http.StatusBadRequest && !NotSent(err) {
		return false, nil
	}
	return err == nil, err
}
