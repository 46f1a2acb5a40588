package simulation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

const (
	realmName     = "acme"
	webhookSecret = "webhook-secret"
	clientID      = "keytrail"
	clientSecret  = "client-secret"
)

var (
	groupNames = []string{"staff", "guests"}
	roleNames  = []string{"auditor", "editor"}
)

// world is the Keycloak of a run and what has happened there.
type world struct {
	*scheduler
	server *keycloaktest.Server
	realm  *keycloaktest.Realm
	groups []string // ids
	roles  []string // ids, along roleNames
	token  string
	users  int // how many were made up

	// pushes are the webhook deliveries, of which sent have been taken from the server.
	pushes []*push
	sent   int
	// writes are those of our commands, by call id.
	writes map[uuid.UUID]*written
}

// push is one webhook delivery.
type push struct {
	eventID string
	body    []byte
	// acknowledged is true once a 2xx was answered, over once it is not sent again.
	acknowledged, over bool
}

// written is what became of a call's requests that change something.
type written struct {
	arrived int // that Keycloak has done
}

func newWorld(s *scheduler) (*world, error) {
	server, err := keycloaktest.NewServer(keycloaktest.Options{Unserved: true, Clock: time.Now})
	if err != nil {
		return nil, err
	}
	w := &world{scheduler: s, server: server, writes: make(map[uuid.UUID]*written)}
	w.realm = server.AddRealm(realmName, keycloaktest.RealmOptions{
		AdminEvents: true, AdminEventsDetails: true, UserEvents: true, EditUsername: true, UnmanagedAttributes: "ENABLED",
	})
	w.realm.AddClient(clientID, clientSecret, "view-users", "manage-users", "view-events", "view-realm", "query-users", "query-groups", "view-clients")
	w.realm.AddWebhook("http://keytrail.invalid/webhooks/keycloak", webhookSecret)
	for _, name := range groupNames {
		w.groups = append(w.groups, w.realm.AddGroup(name))
	}
	for _, name := range roleNames {
		w.roles = append(w.roles, w.realm.AddRole(name))
	}
	return w, w.logIn()
}

// serve hands a request to Keycloak.
func (w *world) serve(req *http.Request) *http.Response {
	if req.Body == nil { // a server's requests have one always
		req.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	w.server.ServeHTTP(recorder, req)
	resp := recorder.Result()
	resp.Request = req
	return resp
}

// logIn makes the administrator whose changes are not ours.
func (w *world) logIn() error {
	form := "grant_type=password&client_id=admin-cli&username=" + keycloaktest.AdminUser + "&password=" + keycloaktest.AdminPassword
	req := httptest.NewRequest(http.MethodPost, w.server.URL()+"/realms/master/protocol/openid-connect/token", strings.NewReader(form))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp := w.serve(req)
	defer resp.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil || token.AccessToken == "" {
		return fmt.Errorf("log in as administrator: %d %w", resp.StatusCode, err)
	}
	w.token = token.AccessToken
	return nil
}

// ask sends a request of the administrator to the realm. Refusals are part of life.
func (w *world) ask(method, path string, body any, into any) int {
	if err := w.logIn(); err != nil { // tokens live for a minute
		panic(err)
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	req := httptest.NewRequest(method, w.server.URL()+"/admin/realms/"+realmName+path, bytes.NewReader(encoded))
	if body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp := w.serve(req)
	defer resp.Body.Close()
	if into != nil {
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			panic(fmt.Errorf("%s %s: %d %w", method, path, resp.StatusCode, err))
		}
	}
	return resp.StatusCode
}

type member struct {
	ID       string `json:"id"`
	Username string `json:"username"`
}

// members are the users whom the realm lists: by name, without service accounts.
func (w *world) members() []member {
	var all []member
	w.ask(http.MethodGet, "/users?max=10000", nil, &all)
	return all
}

// somebody is a user, or false where there is none.
func (w *world) somebody() (member, bool) {
	all := w.members()
	if len(all) == 0 {
		return member{}, false
	}
	return pick(w.scheduler, all), true
}

func (w *world) newName() string {
	w.users++
	return fmt.Sprintf("user%d", w.users)
}

func (w *world) word() string {
	return pick(w.scheduler, []string{"Ann", "Bo", "Cy", "Žluť", "De Groot"})
}

func (w *world) role() (name string, representation []map[string]string) {
	i := w.draw(len(roleNames))
	return roleNames[i], []map[string]string{{"id": w.roles[i], "name": roleNames[i]}}
}

// elsewhere is a change that somebody else makes: an administrator in the console, or
// the user.
func (w *world) elsewhere() {
	u, ok := w.somebody()
	if !ok || w.chance(200) {
		w.comes()
		return
	}
	at := "/users/" + u.ID
	_, role := w.role()
	group := pick(w.scheduler, w.groups)
	changes := []struct {
		name string
		do   func() any
	}{
		{"names", func() any {
			return w.ask(http.MethodPut, at, map[string]any{"firstName": w.word(), "lastName": w.word()}, nil)
		}},
		{"e-mail", func() any {
			return w.ask(http.MethodPut, at, map[string]any{"email": u.Username + "@Example.com", "emailVerified": w.chance(500)}, nil)
		}},
		{"attributes, which clears what is left out", func() any {
			return w.ask(http.MethodPut, at, map[string]any{"attributes": map[string]any{"locale": []string{w.word()}}, "lastName": w.word()}, nil)
		}},
		{"switch", func() any { return w.ask(http.MethodPut, at, map[string]any{"enabled": w.chance(500)}, nil) }},
		{"role given", func() any { return w.ask(http.MethodPost, at+"/role-mappings/realm", role, nil) }},
		{"role taken", func() any { return w.ask(http.MethodDelete, at+"/role-mappings/realm", role, nil) }},
		{"group joined", func() any { return w.ask(http.MethodPut, at+"/groups/"+group, nil, nil) }},
		{"group left", func() any { return w.ask(http.MethodDelete, at+"/groups/"+group, nil, nil) }},
		{"password set", func() any {
			return w.ask(http.MethodPut, at+"/reset-password", map[string]any{"type": "password", "value": "pw", "temporary": w.chance(500)}, nil)
		}},
		{"logged in", func() any { return w.realm.Login(u.ID) }},
		{"own profile", func() any {
			first := w.word()
			return w.realm.UpdateProfile(u.ID, keycloaktest.Profile{FirstName: &first})
		}},
		{"own password", func() any { return w.realm.ChangePassword(u.ID, "pw2") }},
		{"deleted", func() any { return w.ask(http.MethodDelete, at, nil, nil) }},
		{"own account deleted", func() any { return w.realm.DeleteAccount(u.ID) }},
	}
	change := pick(w.scheduler, changes)
	w.tell("elsewhere: %s of %s: %v", change.name, u.Username, change.do())
}

// comes makes a new user.
func (w *world) comes() {
	name := w.newName()
	switch w.draw(3) {
	case 0:
		_, err := w.realm.Register(keycloaktest.Registration{Username: name, Email: name + "@example.com", FirstName: w.word(), Password: "pw"})
		w.tell("elsewhere: %s registers: %v", name, err)
	case 1:
		status := w.ask(http.MethodPost, "/users", map[string]any{"username": name, "enabled": true, "groups": []string{"/" + groupNames[0]}}, nil)
		w.tell("elsewhere: %s is created in a group: %d", name, status)
	default:
		status := w.ask(http.MethodPost, "/users", map[string]any{
			"username": strings.ToUpper(name), "email": name + "@example.com", "firstName": w.word(), "enabled": w.chance(800),
			"attributes": map[string]any{"locale": []string{"en"}},
		}, nil)
		w.tell("elsewhere: %s is created: %d", name, status)
	}
}

// unsent are the pushes that may still be sent.
func (w *world) unsent() []*push {
	all := w.server.Deliveries()
	for _, d := range all[w.sent:] {
		p := &push{eventID: d.EventID, body: d.Body}
		p.over = w.chance(80) // lost: Keycloak was stopped with it in memory
		if p.over {
			w.tell("push of %s is lost", d.Type)
		}
		w.pushes = append(w.pushes, p)
	}
	w.sent = len(all)
	var left []*push
	for _, p := range w.pushes {
		if !p.over {
			left = append(left, p)
		}
	}
	return left
}

// stored are the ids of the events that the realm lists.
func (w *world) stored() []string {
	var ids []string
	for _, list := range []string{"/admin-events", "/events"} {
		var events []struct {
			ID string `json:"id"`
		}
		w.ask(http.MethodGet, list+"?max=100000", nil, &events)
		for _, e := range events {
			ids = append(ids, e.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// wire carries the requests of one process to Keycloak, or does not.
type wire struct {
	w       *world
	process *process
}

func lost(kind admin.TransportKind, sent bool) error {
	return &admin.TransportError{Kind: kind, Sent: sent, Err: errors.New("simulated")}
}

func answered(req *http.Request, status int) *http.Response {
	recorder := httptest.NewRecorder()
	recorder.WriteHeader(status)
	resp := recorder.Result()
	resp.Request = req
	return resp
}

// RoundTrip puts a request on the wire once.
func (r *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w, t := r.w, taskOf(req.Context())
	if r.process.dead() {
		return nil, lost(admin.KindRefused, false)
	}
	calm := r.process.calm || t == nil
	changes := req.Method != http.MethodGet && t != nil
	doing := req.Method + " " + req.URL.Path
	if !calm && (changes || w.chance(200)) {
		w.park(t, "before "+doing)
	}
	if r.process.dead() {
		// The process died; the request may have been on its way.
		if changes && w.chance(500) {
			r.arrive(req)
		}
		return nil, lost(admin.KindReset, true)
	}
	if !calm {
		switch n := w.draw(1000); {
		case n < 15:
			w.tell("%s: refused", t.name)
			return nil, lost(admin.KindRefused, false)
		case n < 30:
			w.tell("%s: %s lost on its way", t.name, doing)
			return nil, lost(admin.KindReset, true)
		case n < 60:
			status := pick(w.scheduler, []int{http.StatusServiceUnavailable, http.StatusInternalServerError, http.StatusTooManyRequests, http.StatusBadGateway})
			w.tell("%s: %s answered %d", t.name, doing, status)
			return answered(req, status), nil
		}
	}
	if err := req.Context().Err(); err != nil {
		return nil, late(err)
	}
	resp := r.arrive(req)
	if calm {
		return resp, nil
	}
	if changes || w.chance(100) {
		w.park(t, "after "+doing)
	}
	if r.process.dead() {
		return nil, lost(admin.KindReset, true)
	}
	if err := req.Context().Err(); err != nil {
		return nil, late(err)
	}
	switch n := w.draw(1000); {
	case n < 30:
		w.tell("%s: answer to %s lost", t.name, doing)
		return nil, lost(admin.KindReset, true)
	case n < 40:
		w.tell("%s: %s done and answered 504", t.name, doing)
		return answered(req, http.StatusGatewayTimeout), nil
	case n < 45:
		w.tell("%s: the process dies", t.name)
		r.process.die()
		return nil, lost(admin.KindReset, true)
	}
	return resp, nil
}

func late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return lost(admin.KindTimeout, true)
	}
	return lost(admin.KindCanceled, true)
}

// arrive lets Keycloak have the request, and notes what a command's write has done.
func (r *wire) arrive(req *http.Request) *http.Response {
	resp := r.w.serve(req.WithContext(context.Background()))
	call, ours := req.Context().Value(callKey{}).(*uuid.UUID)
	if ours && req.Method != http.MethodGet && resp.StatusCode/100 == 2 {
		if r.w.writes[*call] == nil {
			r.w.writes[*call] = &written{}
		}
		r.w.writes[*call].arrived++
	}
	return resp
}

type callKey struct{}
