package keycloaktest

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// realmManagement is the client whose roles open the Admin API of its realm.
const realmManagement = "realm-management"

// managementRoles are the roles of realm-management with the roles that each brings
// along.
var managementRoles = map[string][]string{
	"create-client": nil, "impersonation": nil,
	"manage-authorization": nil, "manage-clients": nil, "manage-events": nil,
	"manage-identity-providers": nil, "manage-organizations": nil, "manage-realm": nil,
	"manage-users":  nil,
	"query-clients": nil, "query-groups": nil, "query-organizations": nil,
	"query-realms": nil, "query-users": nil,
	"view-authorization": nil, "view-clients": {"query-clients"}, "view-events": nil,
	"view-identity-providers": nil, "view-organizations": {"query-organizations"},
	"view-realm": nil, "view-users": {"query-groups", "query-users"},
}

// session is an access token that was given out.
type session struct {
	realm   *Realm
	client  *client
	userID  string
	issued  time.Time
	expires time.Time
	service bool
}

// caller is who makes an Admin API call.
type caller struct {
	session
	user  *User
	roles map[string]bool
	// administrator is the user of master who may do everything.
	administrator bool
	sessionID     string
}

// access says whether a caller may make a call.
type access func(*call) bool

// anyone is every caller with a valid token.
func anyone(*call) bool { return true }

// anyAdmin is a caller with any role of realm-management in whatever realm is asked for.
func anyAdmin(c *call) bool {
	return c.caller.administrator || len(c.caller.roles) > 0 && (c.realm == nil || c.realm == c.caller.realm)
}

// administrator is an administrator of the realm master only.
func administrator(c *call) bool { return c.caller.administrator }

// anyOf lets a caller pass who has one of these roles in the realm of the call.
func anyOf(roles ...string) access {
	return func(c *call) bool { return c.may(roles...) }
}

func (c *call) may(roles ...string) bool {
	if c.caller.administrator {
		return true
	}
	return c.realm == c.caller.realm && slices.ContainsFunc(roles, func(r string) bool { return c.caller.roles[r] })
}

func (c *call) mayViewUsers() bool { return c.may("view-users", "manage-users") }

func (s *Server) authenticate(header string) *caller {
	token, found := strings.CutPrefix(header, "Bearer ")
	t := s.tokens[token]
	if !found || t == nil || !s.clock().Before(t.expires) || s.realm(t.realm.name) != t.realm {
		return nil
	}
	if t.issued.Unix() < t.realm.notBefore {
		return nil
	}
	user := t.realm.users[t.userID]
	if user == nil || !user.Enabled {
		return nil
	}
	c := &caller{session: *t, user: user, roles: map[string]bool{}}
	c.administrator = t.realm.name == masterRealm && slices.Contains(user.RealmRoles, "admin")
	for _, role := range user.ClientRoles[realmManagement] {
		c.roles[role] = true
		if role == "realm-admin" {
			for all := range managementRoles {
				c.roles[all] = true
			}
		}
		for _, composite := range managementRoles[role] {
			c.roles[composite] = true
		}
	}
	if t.service {
		// Keycloak makes a transient session of it for each request.
		c.sessionID = randomText(18)
	}
	return c
}

// token is the endpoint of the grants client_credentials and password.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	rec, ok := w.(*router)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec.handled = true
	realm := s.realm(r.PathValue("realm"))
	if realm == nil {
		rec.reply = fail(http.StatusNotFound, "Realm does not exist")
		return
	}
	form, err := url.ParseQuery(string(rec.body))
	if err != nil {
		rec.reply = oauthFail(http.StatusBadRequest, "invalid_request", "Cannot parse the form")
		return
	}
	rec.reply = s.grant(realm, r, form)
}

func oauthFail(status int, code, description string) reply {
	return reply{status: status, body: oauthError{code, description}}
}

func (s *Server) grant(realm *Realm, r *http.Request, form url.Values) reply {
	grant := form.Get("grant_type")
	clientID, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, basic := r.BasicAuth(); basic {
		clientID, secret = user, password
	}
	eventType := "LOGIN"
	if grant == "client_credentials" {
		eventType = "CLIENT_LOGIN"
	}
	if !form.Has("grant_type") {
		return oauthFail(http.StatusBadRequest, "invalid_request", "Missing form parameter: grant_type")
	}
	if grant != "client_credentials" && grant != "password" {
		return oauthFail(http.StatusBadRequest, "unsupported_grant_type", "Unsupported grant_type")
	}
	e := userEvent{typ: eventType + "_ERROR", clientID: clientID, ip: clientIP(r), details: map[string]string{"grant_type": grant}}
	cl := realm.client(clientID)
	if cl == nil {
		e.err = "client_not_found"
		s.emitUserEvent(realm, e)
		return oauthFail(http.StatusUnauthorized, "invalid_client", "Invalid client or Invalid client credentials")
	}
	if !cl.public && cl.secret != secret {
		e.err = "invalid_client_credentials"
		s.emitUserEvent(realm, e)
		return oauthFail(http.StatusUnauthorized, "unauthorized_client", "Invalid client or Invalid client credentials")
	}
	if grant == "client_credentials" {
		user := realm.users[cl.serviceAccount]
		if user == nil {
			return oauthFail(http.StatusUnauthorized, "unauthorized_client", "Client not enabled to retrieve service account")
		}
		tokenID := "trrtcc:" + newID()
		s.emitUserEvent(realm, userEvent{
			typ: eventType, clientID: clientID, userID: user.ID, username: user.Username, sessionID: randomText(18), ip: clientIP(r),
			details: map[string]string{
				"token_id": tokenID, "grant_type": grant, "scope": "profile email", "client_auth_method": "client-secret",
				"username": user.Username,
			},
		})
		return s.issue(realm, cl, user, tokenID, true)
	}
	username := form.Get("username")
	e.details = map[string]string{"auth_method": "openid-connect", "grant_type": grant, "client_auth_method": "client-secret", "username": username}
	user := realm.userByLogin(username)
	if user == nil {
		e.err = "user_not_found"
		s.emitUserEvent(realm, e)
		return oauthFail(http.StatusBadRequest, "invalid_grant", "Invalid user credentials")
	}
	e.userID, e.username = user.ID, user.Username
	if realm.locked(user) {
		e.err = "user_temporarily_disabled"
		s.emitUserEvent(realm, e)
		return oauthFail(http.StatusBadRequest, "invalid_grant", "Invalid user credentials")
	}
	if user.password == "" || user.password != form.Get("password") {
		e.err = "invalid_user_credentials"
		s.emitUserEvent(realm, e)
		s.countFailure(realm, user)
		return oauthFail(http.StatusBadRequest, "invalid_grant", "Invalid user credentials")
	}
	if !user.Enabled {
		e.err = "user_disabled"
		s.emitUserEvent(realm, e)
		return oauthFail(http.StatusBadRequest, "invalid_grant", "Account disabled")
	}
	if len(user.RequiredActions) > 0 || realm.name != masterRealm && (user.Email == "" || user.FirstName == "" || user.LastName == "") {
		e.err, e.userID, e.username = "resolve_required_actions", "", "" // measured: without the user's id
		e.details["reason"] = "Account is not fully set up"
		s.emitUserEvent(realm, e)
		return oauthFail(http.StatusBadRequest, "invalid_grant", "Account is not fully set up")
	}
	delete(realm.failures, user.ID)
	tokenID := "onltro:" + newID()
	s.emitUserEvent(realm, userEvent{
		typ: eventType, clientID: clientID, userID: user.ID, username: user.Username, sessionID: randomText(18), ip: clientIP(r),
		details: map[string]string{
			"auth_method": "openid-connect", "token_id": tokenID, "grant_type": grant, "refresh_token_type": "Refresh",
			"scope": "profile email", "refresh_token_id": newID(), "client_auth_method": "client-secret", "username": user.Username,
		},
	})
	return s.issue(realm, cl, user, tokenID, false)
}

// issue makes an access token. It has the shape of a JWT and claims like Keycloak's,
// but nobody signed it: its signature is random, which also makes it unguessable.
func (s *Server) issue(realm *Realm, cl *client, user *User, tokenID string, service bool) reply {
	lifespan := s.opts.TokenLifespan
	if lifespan == 0 {
		lifespan = 300 * time.Second
		if realm.name == masterRealm {
			lifespan = 60 * time.Second
		}
	}
	now := s.clock()
	claims := map[string]any{
		"exp": now.Add(lifespan).Unix(), "iat": now.Unix(), "jti": tokenID, "iss": s.url + "/realms/" + realm.name,
		"typ": "Bearer", "azp": cl.clientID, "scope": "profile email",
	}
	if cl.clientID != "admin-cli" { // admin-cli has lightweight tokens, without a subject
		claims["sub"] = user.ID
		claims["acr"] = "1"
		claims["email_verified"] = user.EmailVerified
		claims["preferred_username"] = user.Username
		if len(user.RealmRoles) > 0 {
			claims["realm_access"] = map[string]any{"roles": user.RealmRoles}
		}
		if len(user.ClientRoles) > 0 {
			resources := map[string]any{}
			for id, roles := range user.ClientRoles {
				resources[id] = map[string]any{"roles": roles}
			}
			claims["resource_access"] = resources
			if len(user.ClientRoles[realmManagement]) > 0 {
				claims["aud"] = realmManagement
			}
		}
	}
	part := base64.RawURLEncoding.EncodeToString
	token := part([]byte(`{"alg":"RS256","typ" : "JWT","kid" : "fake"}`)) + "." + part(encode(claims)) + "." + randomText(256)
	for old, t := range s.tokens {
		if !now.Before(t.expires) {
			delete(s.tokens, old)
		}
	}
	s.tokens[token] = &session{realm: realm, client: cl, userID: user.ID, issued: now, expires: now.Add(lifespan), service: service}
	body := tokenReply{AccessToken: token, ExpiresIn: int(lifespan / time.Second), TokenType: "Bearer", Scope: "profile email"}
	if !service {
		body.RefreshToken, body.RefreshExpiresIn = randomText(128), 1800
	}
	return reply{status: http.StatusOK, body: body, header: http.Header{"Cache-Control": {"no-store"}}}
}

type tokenReply struct {
	AccessToken      string `json:"access_token"`
	ExpiresIn        int    `json:"expires_in"`
	RefreshExpiresIn int    `json:"refresh_expires_in"`
	RefreshToken     string `json:"refresh_token,omitempty"`
	TokenType        string `json:"token_type"`
	NotBefore        int    `json:"not-before-policy"`
	Scope            string `json:"scope"`
}

// RevokeTokens makes every access token given out so far invalid: the next call of
// each holder is answered 401. An administrator does the same to a realm by its notBefore
// (contract: revoked tokens).
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

func clientIP(r *http.Request) string {
	host, _, found := strings.Cut(r.RemoteAddr, ":")
	if !found || host == "" || strings.HasPrefix(r.RemoteAddr, "[") {
		return "127.0.0.1"
	}
	return host
}

// randomText is n random bytes in URL-safe base64.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(b)
}
