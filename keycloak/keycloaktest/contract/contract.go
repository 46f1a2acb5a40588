// Package contract states what keytrail relies on in Keycloak and its webhook sender,
// as one suite of tests over plain HTTP. It runs against the fake of keycloaktest and
// against a real server: what passes on one and fails on the other is a lie of the
// fake, and the real server wins.
//
// It imports testing, so only tests may import it.
package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Target is a server to judge. Its webhooks must be able to reach 127.0.0.1.
type Target struct {
	// Version is the server's, such as 26.7.3. Parts that an older server is known to
	// answer otherwise are skipped there; empty skips nothing.
	Version string
	// URL is the base address without a slash at its end.
	URL string
	// AdminUser and AdminPassword are an administrator of the realm master.
	AdminUser, AdminPassword string
	// Register registers a person in a realm by the registration form: RegisterByForm
	// for a server that has one. The tests of registration are skipped without it.
	Register func(t *testing.T, realm string, person Registration)
	// RollBackNext and DoubleNext make a fake treat the next n matching requests as a real
	// server treats those that lose a race: it rolls them back, or stores their attribute
	// values twice. A real server has nil: the tests bring the races about.
	RollBackNext, DoubleNext func(method, pattern string, n int)
}

// Registration is what a person enters into the registration form.
type Registration struct {
	Username, Email, FirstName, LastName, Password string
}

// Run runs the suite. Each part makes a realm of its own and deletes it.
func Run(t *testing.T, target Target) {
	s := &suite{target: target, http: &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}}
	t.Cleanup(s.http.CloseIdleConnections)
	t.Run("tokens", s.tokens)
	t.Run("user life", s.since267(s.userLife))
	t.Run("user errors", s.userErrors)
	t.Run("user update", s.userUpdate)
	t.Run("required actions", s.requiredActions)
	t.Run("user names", s.userNames)
	t.Run("unmanaged attributes", s.since267(s.unmanagedAttributes))
	t.Run("user lists", s.since267(s.userLists))
	t.Run("roles", s.since267(s.roles))
	t.Run("groups", s.since267(s.groups))
	t.Run("federated identities", s.federatedIdentities)
	t.Run("partial import", s.partialImport)
	t.Run("organizations", s.organizations)
	t.Run("event lists", s.eventLists)
	t.Run("events config", s.eventsConfig)
	t.Run("callers", s.since267(s.callers))
	t.Run("webhook", s.webhook)
	t.Run("lockout", s.since267(s.lockout))
	t.Run("lost races", s.since267(s.lostRaces))
	t.Run("doubled values", s.since267(s.doubledValues))
	t.Run("refused conflicts", s.since267(s.refusedConflicts))
	t.Run("revoked tokens", s.since267(s.revokedTokens))
	t.Run("deliveries", s.since267(s.deliveries))
	t.Run("console", s.since267(s.console))
	t.Run("self-service", s.selfService)
	t.Run("recorded fields", s.since267(s.recordedFields))
}

// since267 skips a part on servers before 26.7. Measured on 26.4.7 with keycloak-events
// 0.50: a rejected password is 401 there, the list of users is never brief and carries
// userProfileMetadata, deleted roles and groups leave no representation, view-realm
// alone opens roles/{role}/users, and there is no numSecondaryAuthFailures.
func (s *suite) since267(part func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		var major, minor int
		if s.target.Version != "" {
			_, err := fmt.Sscanf(s.target.Version, "%d.%d", &major, &minor)
			require.NoError(t, err, s.target.Version)
			if major < 26 || major == 26 && minor < 7 {
				t.Skipf("Keycloak %s differs in this from 26.7", s.target.Version)
			}
		}
		part(t)
	}
}

// within is how long a delivery may take: the webhook extension's two senders serve all
// realms, and one that tries a refused delivery again keeps its sender from the others'.
const within = 3 * time.Minute

type suite struct {
	target Target
	http   *http.Client
}

// realm is a realm of one test.
type realm struct {
	*suite
	t    *testing.T
	name string
	svc  string // the service account's token
	hook *hook
}

const (
	serviceClient = "keytrail"
	clientSecret  = "contract-secret"
	hookSecret    = "contract-hook-secret"
)

var serviceRoles = []string{"view-events", "view-users", "view-realm", "manage-users"}

// newRealm makes a realm that saves its events and sends them, with a service account
// that has the roles of keytrail's. settings go into the realm's representation.
func (s *suite) newRealm(t *testing.T, settings map[string]any) *realm {
	t.Helper()
	r := &realm{suite: s, t: t, name: "contract-" + uuid.NewString()[:8], hook: newHook(t)}
	clients := []any{map[string]any{
		"clientId": "person", "publicClient": true, "directAccessGrantsEnabled": true,
		"standardFlowEnabled": true, "redirectUris": []string{afterLogin},
	}}
	var users []any
	for client, roles := range map[string][]string{
		serviceClient: serviceRoles, "view-events": {"view-events"}, "view-users": {"view-users"}, "query-users": {"query-users"},
		"manage-users": {"manage-users"}, "view-realm": {"view-realm"}, "manage-events": {"manage-events"},
	} {
		clients = append(clients, map[string]any{"clientId": client, "secret": clientSecret, "serviceAccountsEnabled": true, "publicClient": false})
		users = append(users, map[string]any{
			"username": "service-account-" + client, "enabled": true, "serviceAccountClientId": client,
			"clientRoles": map[string]any{"realm-management": roles},
		})
	}
	rep := map[string]any{
		"realm": r.name, "enabled": true, "sslRequired": "none", "registrationAllowed": true, "organizationsEnabled": true,
		"adminEventsEnabled": true, "adminEventsDetailsEnabled": true, "eventsEnabled": true,
		"eventsListeners": []string{"jboss-logging", "ext-event-webhook"}, "clients": clients, "users": users,
	}
	for k, v := range settings {
		rep[k] = v
	}
	a := s.send(t, s.adminToken(t), http.MethodPost, "/admin/realms", rep)
	require.Equal(t, http.StatusCreated, a.status, a.body)
	t.Cleanup(func() {
		a := s.send(t, s.adminToken(t), http.MethodDelete, "/admin/realms/"+r.name, nil)
		require.Equal(t, http.StatusNoContent, a.status, a.body)
	})
	a = s.send(t, s.adminToken(t), http.MethodPost, "/realms/"+r.name+"/webhooks", map[string]any{
		"enabled": "true", "url": r.hook.URL, "secret": hookSecret, "eventTypes": []string{"*"},
	})
	require.Equal(t, http.StatusCreated, a.status, a.body)
	r.svc = r.token(serviceClient)
	return r
}

type answer struct {
	status   int
	header   http.Header
	body     string
	location string // the last segment of Location
}

// object decodes an answer that is a JSON object.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &v), a.body)
	return v
}

func (a answer) list(t *testing.T) []map[string]any {
	t.Helper()
	var v []map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &v), a.body)
	return v
}

// send makes a request. body is JSON if it is a string, nothing if nil, form data if
// url.Values, else it is encoded.
func (s *suite) send(t *testing.T, token, method, path string, body any) answer {
	t.Helper()
	// A cleanup runs when the test's context is done already.
	a, err := s.try(testContext(t), token, method, path, body)
	require.NoError(t, err)
	return a
}

// try is send for goroutines, which must not end the test.
func (s *suite) try(ctx context.Context, token, method, path string, body any) (answer, error) {
	var content []byte
	contentType := "application/json"
	switch v := body.(type) {
	case nil:
		contentType = ""
	case string:
		content = []byte(v)
	case url.Values:
		content, contentType = []byte(v.Encode()), "application/x-www-form-urlencoded"
	default:
		var err error
		if content, err = json.Marshal(v); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.target.URL+path, bytes.NewReader(content))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	location := resp.Header.Get("Location")
	return answer{resp.StatusCode, resp.Header, string(b), location[strings.LastIndex(location, "/")+1:]}, err
}

func (s *suite) grant(t *testing.T, realm string, form url.Values) answer {
	t.Helper()
	return s.send(t, "", http.MethodPost, "/realms/"+realm+"/protocol/openid-connect/token", form)
}

func (s *suite) adminToken(t *testing.T) string {
	t.Helper()
	a := s.grant(t, "master", url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {s.target.AdminUser}, "password": {s.target.AdminPassword},
	})
	require.Equal(t, http.StatusOK, a.status, a.body)
	token, _ := a.object(t)["access_token"].(string)
	return token
}

// token is one of a service account.
func (r *realm) token(client string) string {
	r.t.Helper()
	a := r.grant(r.t, r.name, url.Values{"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {clientSecret}})
	require.Equal(r.t, http.StatusOK, a.status, a.body)
	token, _ := a.object(r.t)["access_token"].(string)
	require.NotEmpty(r.t, token)
	return token
}

// do calls the Admin API below the realm as the service account, root as the
// administrator.
func (r *realm) do(method, path string, body any) answer {
	r.t.Helper()
	return r.send(r.t, r.svc, method, "/admin/realms/"+r.name+path, body)
}

func (r *realm) root(method, path string, body any) answer {
	r.t.Helper()
	return r.send(r.t, r.adminToken(r.t), method, "/admin/realms/"+r.name+path, body)
}

// must is do for a call that has to succeed.
func (r *realm) must(method, path string, body any) answer {
	r.t.Helper()
	a := r.do(method, path, body)
	require.Less(r.t, a.status, 300, "%s %s: %s", method, path, a.body)
	return a
}

func (r *realm) mustRoot(method, path string, body any) answer {
	r.t.Helper()
	a := r.root(method, path, body)
	require.Less(r.t, a.status, 300, "%s %s: %s", method, path, a.body)
	return a
}

func (r *realm) createUser(rep any) (id string) {
	r.t.Helper()
	a := r.must(http.MethodPost, "/users", rep)
	require.Equal(r.t, http.StatusCreated, a.status)
	require.NoError(r.t, uuid.Validate(a.location), "Location: %s", a.header.Get("Location"))
	return a.location
}

func (r *realm) user(id string) map[string]any {
	r.t.Helper()
	a := r.do(http.MethodGet, "/users/"+id, nil)
	require.Equal(r.t, http.StatusOK, a.status, a.body)
	return a.object(r.t)
}

// refused checks status and body of a call that must fail.
func (r *realm) refused(a answer, status int, body string) {
	r.t.Helper()
	require.Equal(r.t, status, a.status, a.body)
	require.JSONEq(r.t, body, a.body)
}

// adminEvents pulls the admin events, newest first.
func (r *realm) adminEvents(query string) []map[string]any {
	r.t.Helper()
	a := r.do(http.MethodGet, "/admin-events?"+query, nil)
	require.Equal(r.t, http.StatusOK, a.status, a.body)
	return a.list(r.t)
}

// emitted runs action and returns the admin events that it saved, oldest first.
// Events are saved in the same transaction as the change, so there is no waiting.
func (r *realm) emitted(action func()) []map[string]any {
	r.t.Helper()
	before := map[any]bool{}
	for _, e := range r.adminEvents("max=1000") {
		before[e["id"]] = true
	}
	action()
	var fresh []map[string]any
	for _, e := range r.adminEvents("max=1000") {
		if !before[e["id"]] {
			fresh = append([]map[string]any{e}, fresh...)
		}
	}
	return fresh
}

// emits checks that action saves one admin event, and that the same one is pushed;
// it returns the latter. representation is compared byte by byte; "" means that the
// event has none.
func (r *realm) emits(resource, operation, path, representation string, action func()) map[string]any {
	r.t.Helper()
	events := r.emitted(action)
	require.Len(r.t, events, 1, "%v", events)
	e := events[0]
	require.Equal(r.t, resource, e["resourceType"])
	require.Equal(r.t, operation, e["operationType"])
	if path == "" {
		require.NotContains(r.t, e, "resourcePath")
	} else {
		require.Equal(r.t, path, e["resourcePath"])
	}
	if representation == "" {
		require.NotContains(r.t, e, "representation")
	} else {
		require.Equal(r.t, representation, e["representation"])
	}
	pushed := r.hook.waitID(r.t, e["id"])
	require.Equal(r.t, "admin."+resource+"-"+operation, pushed.event["type"])
	for _, field := range []string{"time", "realmId", "operationType", "resourceType", "resourcePath", "representation"} {
		require.Equal(r.t, e[field], pushed.event[field], field)
	}
	return pushed.event
}
