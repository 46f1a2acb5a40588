package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

const (
	scriptRealm = "acme"
	oneUser     = "/admin/realms/*/users/*"
)

// fakeKeycloak is a script's Keycloak.
type fakeKeycloak struct {
	server *keycloaktest.Server
	realm  *keycloaktest.Realm
	// remove switches the faults off.
	remove []func()
	// held is the request kept waiting last.
	held *keycloaktest.Held
}

// keycloakCommand is the command kc of the scripts:
//
//	kc start [ROLE…]               start it and tell keytrail of it; the service account has these roles, or all that it needs
//	kc stop                        nothing listens at its address any more
//	kc webhook                     push the realm's events to the serving keytrail
//	kc delivered                   wait until everything is pushed
//	kc create-user NAME [K=V…]     as an administrator; the id is then $NAME in upper case
//	kc update-user NAME K=V…
//	kc delete-user NAME
//	kc behind NAME K=V… | delete   a change that no event tells of; email, enabled, firstName
//	kc fail METHOD N STATUS [PATTERN]   answer N requests on one user, or on PATTERN, with STATUS
//	kc drop METHOD [PATTERN]       do what the next request asks for, and lose the answer
//	kc populate N                  N users whom no event tells of
//	kc list empty|short|cut        the list of users lies, or is refused after the first page, until kc heal
//	kc hold METHOD PATTERN         keep the next request waiting, until kc heal
//	kc held                        wait until it is there
//	kc heal                        switch the faults off
//	kc requests METHOD PATTERN == N     count wire attempts
//	kc user NAME K == V            what Keycloak itself has: email, enabled, firstName or exists
func keycloakCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: kc COMMAND …")
	}
	w := worldOf(ts)
	if args[0] == "start" {
		w.fake = startKeycloak(ts, args[1:])
		return
	}
	if w.fake == nil {
		ts.Fatalf("kc start comes first")
	}
	f, name, rest := w.fake, "", []string{}
	if len(args) > 1 {
		name, rest = args[1], args[2:]
	}
	switch args[0] {
	case "stop":
		f.server.Close()
	case "webhook":
		f.realm.AddWebhook(ts.Getenv("KEYTRAIL")+"/webhooks/keycloak", scriptWebhookSecret)
	case "delivered":
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		ts.Check(f.server.WaitDeliveries(ctx))
	case "create-user":
		location := f.admin(ts, http.MethodPost, "/users", fields(ts, append([]string{"username=" + name, "enabled=true"}, rest...)))
		ts.Setenv(strings.ToUpper(name), location[strings.LastIndex(location, "/")+1:])
	case "role":
		f.realm.AddRole(name)
	case "group":
		ts.Setenv(strings.ToUpper(name), f.realm.AddGroup(name))
	case "locked":
		f.realm.SetLoginFailures(f.user(ts, name).ID, 5)
	case "update-user":
		f.admin(ts, http.MethodPut, "/users/"+f.user(ts, name).ID, fields(ts, rest))
	case "delete-user":
		f.admin(ts, http.MethodDelete, "/users/"+f.user(ts, name).ID, nil)
	case "behind":
		f.behind(ts, name, rest)
	case "fail":
		f.fail(ts, name, rest)
	case "drop":
		f.inject(keycloaktest.Fault{Method: name, Pattern: append(rest, oneUser)[0], Times: 1, DropAfter: true})
	case "populate":
		n, err := strconv.Atoi(name)
		ts.Check(err)
		f.realm.BehindOurBack(func(users map[string]*keycloaktest.User) {
			for i := range n {
				id := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
				users[id] = &keycloaktest.User{ID: id, Username: fmt.Sprintf("user%d", i), Enabled: true}
			}
		})
	case "list":
		fault := keycloaktest.Fault{Method: http.MethodGet, Pattern: "/admin/realms/*/users", EmptyList: name == "empty", Truncate: name == "short"}
		if name == "cut" {
			fault.Skip, fault.Status = 1, http.StatusForbidden
		}
		f.inject(fault)
	case "hold":
		f.held = f.server.HoldRequest(name, rest[0])
		f.remove = append(f.remove, f.held.Release)
	case "held":
		select {
		case <-f.held.Arrived():
		case <-time.After(waitLimit):
			ts.Fatalf("the request that is to be held did not come")
		}
	case "heal":
		for _, remove := range f.remove {
			remove()
		}
		f.remove = nil
	case "requests":
		f.judgeRequests(ts, args[1:])
	case "user":
		f.judgeUser(ts, name, rest)
	default:
		ts.Fatalf("kc %s?", args[0])
	}
}

func startKeycloak(ts *testscript.TestScript, roles []string) *fakeKeycloak {
	server, err := keycloaktest.NewServer(keycloaktest.Options{})
	ts.Check(err)
	if len(roles) == 0 {
		roles = []string{"view-events", "view-users", "view-realm", "manage-users"}
	}
	realm := server.AddRealm(scriptRealm, keycloaktest.RealmOptions{AdminEvents: true, AdminEventsDetails: true, UserEvents: true, UnmanagedAttributes: "ENABLED"})
	realm.AddClient("keytrail", scriptClientSecret, roles...)
	for name, value := range map[string]string{
		"URL": server.URL(), "REALMS": scriptRealm, "AUTH_REALM": scriptRealm, "CLIENT_ID": "keytrail", "CLIENT_SECRET": scriptClientSecret,
	} {
		ts.Setenv("KEYTRAIL_KEYCLOAK_"+name, value)
	}
	return &fakeKeycloak{server: server, realm: realm}
}

func fields(ts *testscript.TestScript, assignments []string) map[string]any {
	body := make(map[string]any)
	for _, a := range assignments {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			ts.Fatalf("%s: want NAME=VALUE", a)
		}
		if b, err := strconv.ParseBool(value); err == nil {
			body[name] = b
		} else {
			body[name] = value
		}
	}
	return body
}

func (f *fakeKeycloak) user(ts *testscript.TestScript, name string) keycloaktest.User {
	u, ok := f.realm.UserByName(name)
	if !ok {
		ts.Fatalf("Keycloak has no user %s", name)
	}
	return u
}

func (f *fakeKeycloak) behind(ts *testscript.TestScript, name string, change []string) {
	id := f.user(ts, name).ID
	f.realm.BehindOurBack(func(users map[string]*keycloaktest.User) {
		for _, c := range change {
			switch field, value, _ := strings.Cut(c, "="); field {
			case "delete":
				delete(users, id)
			case "email":
				users[id].Email = value
			case "firstName":
				users[id].FirstName = value
			case "enabled":
				users[id].Enabled = value == "true"
			default:
				ts.Fatalf("kc behind: %s?", c)
			}
		}
	})
}

func (f *fakeKeycloak) fail(ts *testscript.TestScript, method string, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: kc fail METHOD N STATUS [PATTERN]")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	status, err := strconv.Atoi(args[1])
	ts.Check(err)
	f.remove = append(f.remove, f.server.FailNext(method, append(args[2:], oneUser)[0], n, status))
}

func (f *fakeKeycloak) inject(fault keycloaktest.Fault) {
	f.remove = append(f.remove, f.server.Inject(fault))
}

func (f *fakeKeycloak) judgeRequests(ts *testscript.TestScript, args []string) {
	if len(args) != 4 || args[2] != "==" {
		ts.Fatalf("usage: kc requests METHOD PATTERN == N")
	}
	if n := strconv.Itoa(f.server.Requests(args[0], args[1])); n != args[3] {
		ts.Fatalf("%s requests, want %s", n, args[3])
	}
}

func (f *fakeKeycloak) judgeUser(ts *testscript.TestScript, name string, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: kc user NAME FIELD == VALUE")
	}
	u, exists := f.realm.UserByName(name)
	got, ok := map[string]string{
		"email": u.Email, "firstName": u.FirstName, "enabled": strconv.FormatBool(u.Enabled), "exists": strconv.FormatBool(exists),
	}[args[0]]
	if !ok {
		ts.Fatalf("kc user: %s?", args[0])
	}
	same, err := holds(got, args[1], args[2])
	ts.Check(err)
	if !same {
		ts.Fatalf("%s of %s is %q in Keycloak, want %q", args[0], name, got, args[2])
	}
}

// admin calls the Admin API as the administrator and returns the Location.
func (f *fakeKeycloak) admin(ts *testscript.TestScript, method, path string, body map[string]any) string {
	form := url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {keycloaktest.AdminUser}, "password": {keycloaktest.AdminPassword}}
	var token struct {
		AccessToken string `json:"access_token"`
	}
	_, answer, err := f.call(http.MethodPost, "/realms/master/protocol/openid-connect/token", "", "application/x-www-form-urlencoded", []byte(form.Encode()))
	ts.Check(err)
	ts.Check(json.Unmarshal(answer, &token))
	var sent []byte
	if body != nil {
		sent, err = json.Marshal(body)
		ts.Check(err)
	}
	location, _, err := f.call(method, "/admin/realms/"+scriptRealm+path, token.AccessToken, "application/json", sent)
	ts.Check(err)
	return location
}

func (f *fakeKeycloak) call(method, path, token, contentType string, body []byte) (location string, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, f.server.URL()+path, bytes.NewReader(body))
	if err != nil {
		return "", nil, err
	}
	req.Close = true
	req.Header.Set("Content-Type", contentType)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", nil, err
	}
	answer, err = io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return resp.Header.Get("Location"), answer, err
}
