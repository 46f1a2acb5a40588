package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keytrail/keytrail/keycloak"
)

const (
	usersTemplate = "/admin/realms/{realm}/users"
	userTemplate  = "/admin/realms/{realm}/users/{id}"
)

// Users reads one page of a realm's users, with attributes and required actions but
// without roles and groups, ordered by username. Service accounts are not in it. A
// rename, a new or a deleted user between two pages shifts the rows, so a user may
// be missed or seen twice. Pages of up to 500 are fine (0.3 s on 26.7.3).
//
// It needs the role view-users. With query-users alone Keycloak answers an empty
// list with 200, while CountUsers counts them all.
func (c *Client) Users(ctx context.Context, realm string, first, limit int) ([]keycloak.User, error) {
	query := url.Values{
		"first": {strconv.Itoa(first)}, "max": {strconv.Itoa(limit)}, "briefRepresentation": {"false"},
	}
	return c.users(ctx, realm, query)
}

// CountUsers counts the users that Users lists.
func (c *Client) CountUsers(ctx context.Context, realm string) (int, error) {
	var count int
	err := c.get(ctx, usersTemplate+"/count", []string{realm}, nil, &count)
	return count, err
}

// User reads one user. The error says UserNotFound only where the user is certainly
// absent; see keycloak.APIError.
func (c *Client) User(ctx context.Context, realm, id string) (keycloak.User, error) {
	var user keycloak.User
	if err := c.get(ctx, userTemplate, []string{realm, id}, nil, &user); err != nil {
		return keycloak.User{}, err
	}
	if err := checkUsers(http.MethodGet+" "+userTemplate, user); err != nil {
		return keycloak.User{}, err
	}
	return user, nil
}

// UserByUsername reads a user by exact name, in any case, service accounts
// included. It reports false when there is none.
func (c *Client) UserByUsername(ctx context.Context, realm, username string) (user keycloak.User, ok bool, err error) {
	if username == "" {
		return keycloak.User{}, false, errors.New("look up user: the name is empty")
	}
	users, err := c.users(ctx, realm, url.Values{
		"username": {username}, "exact": {"true"}, "max": {"2"}, "briefRepresentation": {"false"},
	})
	if err != nil {
		return keycloak.User{}, false, err
	}
	i := slices.IndexFunc(users, func(u keycloak.User) bool { return strings.EqualFold(u.Username, username) })
	if i < 0 {
		return keycloak.User{}, false, nil
	}
	return users[i], true, nil
}

func (c *Client) users(ctx context.Context, realm string, query url.Values) ([]keycloak.User, error) {
	var users []keycloak.User
	if err := c.get(ctx, usersTemplate, []string{realm}, query, &users); err != nil {
		return nil, err
	}
	if err := checkUsers(http.MethodGet+" "+usersTemplate, users...); err != nil {
		return nil, err
	}
	return users, nil
}

// checkUsers refuses what is JSON but no user, such as {} and null in a list.
func checkUsers(op string, users ...keycloak.User) error {
	for i, u := range users {
		if u.ID == "" || u.Username == "" {
			return &DecodeError{Op: op, Status: http.StatusOK, Err: fmt.Errorf("user %d of %d has no id or no username", i+1, len(users))}
		}
	}
	return nil
}

// UserRoles reads the roles that a user has directly.
func (c *Client) UserRoles(ctx context.Context, realm, id string) (keycloak.RoleMappings, error) {
	var mappings keycloak.RoleMappings
	err := c.get(ctx, userTemplate+"/role-mappings", []string{realm, id}, nil, &mappings)
	return mappings, err
}

// UserGroups reads the groups that a user is a member of.
func (c *Client) UserGroups(ctx context.Context, realm, id string) ([]keycloak.Group, error) {
	var groups []keycloak.Group
	err := c.get(ctx, userTemplate+"/groups", []string{realm, id}, nil, &groups)
	return groups, err
}

// Credential is a password to be set with a user.
type Credential struct {
	Type      string `json:"type"` // "password"
	Value     string `json:"value"`
	Temporary bool   `json:"temporary"`
}

// String keeps the password out of logs and errors.
func (Credential) String() string { return "[redacted]" }

// GoString keeps the password out of %#v.
func (Credential) GoString() string { return "admin.Credential{[redacted]}" }

// UserBody is the body of a POST or PUT of a user. A nil field is left out; an empty
// map or list is sent as such, and an empty string clears.
//
// On PUT, Keycloak keeps what is left out, with one exception (26.1.4 and 26.7.3):
// with Attributes, the whole map is replaced, Username is required, and an Email,
// FirstName or LastName that is left out is cleared. So send all of them with
// Attributes; UserBodyOf does.
type UserBody struct {
	Username      *string             `json:"username,omitempty"`
	Email         *string             `json:"email,omitempty"`
	FirstName     *string             `json:"firstName,omitempty"`
	LastName      *string             `json:"lastName,omitempty"`
	Enabled       *bool               `json:"enabled,omitempty"`
	EmailVerified *bool               `json:"emailVerified,omitempty"`
	Attributes    map[string][]string `json:"attributes,omitzero"`
	// RequiredActions replaces the list.
	RequiredActions []string `json:"requiredActions,omitzero"`
	// Groups are paths. Only POST heeds them, and emits no membership events.
	Groups []string `json:"groups,omitzero"`
	// Credentials set the password. They never show in an event.
	Credentials []Credential `json:"credentials,omitzero"`
	// Self carries the call's stamp; see keycloak.StampPrefix.
	Self string `json:"self,omitempty"`
}

// UserBodyOf returns the body that writes a user as it was read.
func UserBodyOf(u keycloak.User) UserBody {
	return UserBody{
		Username:        &u.Username,
		Email:           u.Email,
		FirstName:       u.FirstName,
		LastName:        u.LastName,
		Enabled:         u.Enabled,
		EmailVerified:   u.EmailVerified,
		Attributes:      u.Attributes,
		RequiredActions: u.RequiredActions,
	}
}

// CreateUser creates a user and returns its id. A *DecodeError means that the user
// was created and that Keycloak did not say its id. It needs the role manage-users,
// as all writes do.
func (c *Client) CreateUser(ctx context.Context, realm string, body UserBody) (id string, err error) {
	r := request{method: http.MethodPost, template: usersTemplate, params: []string{realm}, body: body, want: http.StatusCreated}
	answer, err := c.do(ctx, r)
	if err != nil {
		return "", err
	}
	id = createdID(answer.header.Get("Location"))
	if id == "" {
		return "", &DecodeError{Op: r.op(), Status: answer.status, Err: errors.New("no user id in the Location header")}
	}
	return id, nil
}

// createdID is the user id in the Location of a created user, whose path ends in
// /admin/realms/{realm}/users/{id}; "" where there is none. The last /users/ counts: a
// realm or a part of the context path may be called users as well.
func createdID(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	const before = "/users/"
	path := u.EscapedPath()
	i := strings.LastIndex(path, before)
	if i < 0 {
		return ""
	}
	id, err := url.PathUnescape(path[i+len(before):])
	if err != nil {
		return ""
	}
	return id
}

// UpdateUser writes a user; see UserBody for what is kept and what is cleared.
func (c *Client) UpdateUser(ctx context.Context, realm, id string, body UserBody) error {
	_, err := c.do(ctx, request{method: http.MethodPut, template: userTemplate, params: []string{realm, id}, body: body, want: http.StatusNoContent})
	return err
}

// DeleteUser deletes a user. Where several do so at once, the losers get 404 or 500.
func (c *Client) DeleteUser(ctx context.Context, realm, id string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, template: userTemplate, params: []string{realm, id}, want: http.StatusNoContent})
	return err
}
