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
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/internal/telemetry"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

type demoCommand struct {
	Once bool `help:"Print the story and end."`
}

// Names in the demo's story.
const (
	demoRealm  = "acme"
	demoClient = "keytrail"
	demoAdmin  = "alice"
	// demoOperator works with keytrail, not with Keycloak.
	demoOperator = "operator"
)

// factLimit is how long the story waits for a fact before it gives up.
const factLimit = 30 * time.Second

func (c *demoCommand) Run(ctx context.Context, s *session) (err error) {
	folder, err := os.MkdirTemp("", "keytrail-demo-")
	if err != nil {
		return fmt.Errorf("a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	d, err := newDemo(ctx, s, folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()

	serving, stop := context.WithCancel(ctx)
	defer stop()
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- d.app.Serve(serving, app.ServeOptions{Hurry: s.hurry, Ready: func(url string) { ready <- url }})
	}()
	select {
	case d.url = <-ready:
	case err := <-ended:
		return err
	}
	told := d.tell(ctx)
	if told == nil && !c.Once {
		d.say("\nkeytrail goes on serving at %s, beside the simulated Keycloak at %s.\nTry: open the page in a browser, or curl %s/api/v1/failures\nStop with Ctrl-C; everything of the demo is deleted then.\n", d.url, d.keycloak.URL(), d.url)
		select {
		case <-ctx.Done():
		case err := <-ended:
			return err
		}
	}
	stop()
	return errors.Join(told, <-ended)
}

// demo is a complete story on an embedded store and a simulated Keycloak.
type demo struct {
	out      io.Writer
	text     trace.Options
	keycloak *keycloaktest.Server
	realm    *keycloaktest.Realm
	app      *app.App
	url      string
	step     int
}

func newDemo(ctx context.Context, s *session, folder string) (*demo, error) {
	server, err := keycloaktest.NewServer(keycloaktest.Options{Clock: s.clock, AdminUser: demoAdmin})
	if err != nil {
		return nil, fmt.Errorf("the simulated Keycloak: %w", err)
	}
	realm := server.AddRealm(demoRealm, keycloaktest.RealmOptions{AdminEvents: true, AdminEventsDetails: true, UserEvents: true})
	const clientSecret = "demo-client-secret"
	realm.AddClient(demoClient, clientSecret, "view-events", "view-users", "view-realm", "manage-users")

	cfg, err := config.Load(config.Input{Env: []string{
		"KEYTRAIL_STORE_URL=sqlite:" + filepath.Join(folder, "keytrail.db"),
		"KEYTRAIL_LISTEN=127.0.0.1:0",
		"KEYTRAIL_WEBHOOK_SECRET=" + demoWebhookSecret,
		"KEYTRAIL_KEYCLOAK_URL=" + server.URL(),
		"KEYTRAIL_KEYCLOAK_REALMS=" + demoRealm,
		"KEYTRAIL_KEYCLOAK_CLIENT_ID=" + demoClient,
		"KEYTRAIL_KEYCLOAK_CLIENT_SECRET=" + clientSecret,
		"KEYTRAIL_KEYCLOAK_AUTH_REALM=" + demoRealm,
		// The story's differences are seconds old: it reports them at once.
		"KEYTRAIL_RECONCILE_SETTLE=0",
		"KEYTRAIL_RECONCILE_INTERVAL=0",
		"KEYTRAIL_LOG_LEVEL=warn",
	}})
	if err == nil {
		err = app.Migrate(ctx, cfg)
	}
	if err != nil {
		server.Close()
		return nil, err
	}
	logger, err := telemetry.NewLogger(s.stderr, cfg.Log.Format, cfg.Log.Level, callAttrs)
	if err != nil {
		server.Close()
		return nil, err
	}
	a, err := app.Open(ctx, cfg, app.Options{
		Logger: logger, Clock: s.clock,
		Retry: app.Retry{Max: 4, WaitMin: 100 * time.Millisecond, WaitMax: 400 * time.Millisecond},
	})
	if err != nil {
		server.Close()
		return nil, err
	}
	return &demo{out: s.stdout, text: s.textOptions(), keycloak: server, realm: realm, app: a}, nil
}

const demoWebhookSecret = "demo-webhook-secret"

func (d *demo) close() error {
	d.keycloak.Close()
	return d.app.Close()
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

func (d *demo) title(text string) {
	d.step++
	d.say("\n── %d. %s\n\n", d.step, text)
}

// tell tells the story. Each step waits for its fact; one that is missing fails it.
func (d *demo) tell(ctx context.Context) error {
	d.say("keytrail demo: one user's day, on an embedded store and a simulated Keycloak.\n")
	d.realm.AddWebhook(d.url+"/webhooks/keycloak", demoWebhookSecret)

	d.title("An administrator creates the user bob in Keycloak; it arrives by webhook")
	id, err := d.createInKeycloak(ctx)
	if err != nil {
		return err
	}
	bob := adapter.UserRef{Realm: demoRealm, UserID: id}
	if err := d.until(ctx, "bob in the users projection", func() (bool, error) {
		_, known, err := d.app.Users.Get(ctx, demoRealm, id)
		return known, err
	}); err != nil {
		return err
	}
	u, err := d.app.UserAt(ctx, bob, time.Time{})
	if err != nil {
		return err
	}
	created := d.app.Clock()
	if err := trace.WriteUser(d.out, u, d.text); err != nil {
		return err
	}

	d.title("keytrail disables bob: Keycloak answers 503 twice, then obeys")
	d.keycloak.FailNext(http.MethodPut, "/admin/realms/*/users/*", 2, http.StatusServiceUnavailable)
	disabled, err := d.app.Commands.DisableUser(asOperator(ctx, demoOperator, "left the company, ticket HR-17"), demoRealm, outbound.UserRef{ID: id, Username: "bob"})
	if err != nil {
		return err
	}
	// The echo is Keycloak's own event of our call; it proves the link from the outside.
	if err := d.until(ctx, "the echo of the call", func() (bool, error) {
		c, _, err := d.app.Calls.Get(ctx, disabled.CallID)
		return c.Echo != nil, err
	}); err != nil {
		return err
	}
	if err := d.showTrace(ctx, disabled.CallID.String()); err != nil {
		return err
	}

	d.title("A second bob: the call ends in 409")
	refused, err := d.app.Commands.CreateUser(asOperator(ctx, demoOperator, "new colleague, ticket HR-18"), demoRealm, outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("bob")}})
	if adapter.CodeOf(err) != adapter.CodeKeycloakConflict {
		return fmt.Errorf("creating bob again ended with %w, not with a conflict", err)
	}
	if err := d.until(ctx, "the failed call among the failures", func() (bool, error) {
		page, err := d.app.Failures.List(ctx, trace.FailureQuery{})
		return len(page.Items) == 1, err
	}); err != nil {
		return err
	}
	if err := d.showTrace(ctx, refused.CallID.String()); err != nil {
		return err
	}

	d.title("Somebody changes bob behind our back, with events switched off; a reconciliation finds it")
	d.realm.BehindOurBack(func(users map[string]*keycloaktest.User) {
		users[id].Email = "bob@elsewhere.example"
		users[id].Enabled = true
	})
	result, err := d.app.Reconcile(asOperator(ctx, demoOperator, ""), demoRealm, "cli")
	if err != nil {
		return err
	}
	if result.Verdict != reconcile.Drift || len(result.Findings) != 1 {
		return fmt.Errorf("the reconciliation found %d differences, not the one that was made", len(result.Findings))
	}
	writeResult(d.out, result)

	d.title("What needs attention: keytrail failures")
	if err := d.app.CatchUp(ctx); err != nil {
		return err
	}
	page, err := d.app.Failures.List(ctx, trace.FailureQuery{})
	if err != nil {
		return err
	}
	if err := trace.WriteFailures(d.out, page, d.text); err != nil {
		return err
	}

	d.title("Who did what: keytrail user history bob")
	entries, err := d.app.UserHistory(ctx, bob)
	if err != nil {
		return err
	}
	changes := 0
	for _, e := range entries {
		if e.EventType != adapter.TypeUserApiObserved { // what the reconciliation read
			changes++
		}
	}
	if changes != 2 {
		return fmt.Errorf("bob has %d changes, not a creation and one disabling: an echo must add none", changes)
	}
	if err := trace.WriteHistory(d.out, entries, d.text); err != nil {
		return err
	}

	d.title(fmt.Sprintf("The state in the past: keytrail user show bob --at %s", created.UTC().Format(time.RFC3339Nano)))
	then, err := d.app.UserAt(ctx, bob, created)
	if err != nil {
		return err
	}
	if !then.Enabled {
		return errors.New("bob was enabled then, and is shown as disabled")
	}
	return trace.WriteUser(d.out, then, d.text)
}

func (d *demo) showTrace(ctx context.Context, id string) error {
	t, err := d.app.Traces.Find(ctx, id, "")
	if err != nil {
		return err
	}
	return trace.WriteText(d.out, t, d.text)
}

// until waits for a fact: it looks whenever there is something new in the log.
func (d *demo) until(ctx context.Context, fact string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, factLimit)
	defer cancel()
	for {
		head, err := d.app.Store.Head(ctx)
		if err == nil {
			err = d.app.Engine.WaitFor(ctx, head)
		}
		if err == nil {
			var ok bool
			if ok, err = holds(); ok {
				return nil
			}
		}
		if err == nil {
			_, err = d.app.Store.Wait(ctx, head)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s did not come within %s", fact, factLimit)
		}
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", fact, err)
		}
	}
}

// createInKeycloak creates bob as the administrator does: with the Admin API.
func (d *demo) createInKeycloak(ctx context.Context) (string, error) {
	form := url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {demoAdmin}, "password": {keycloaktest.AdminPassword}}
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if _, err := d.post(ctx, "/realms/master/protocol/openid-connect/token", "", "application/x-www-form-urlencoded", []byte(form.Encode()), &token); err != nil {
		return "", err
	}
	const bob = `{"username":"bob","email":"bob@example.com","firstName":"Bob","lastName":"Stone","enabled":true}`
	location, err := d.post(ctx, "/admin/realms/"+demoRealm+"/users", token.AccessToken, "application/json", []byte(bob), nil)
	if err != nil {
		return "", err
	}
	return location[strings.LastIndex(location, "/")+1:], nil
}

func (d *demo) post(ctx context.Context, path, token, contentType string, body []byte, out any) (location string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.keycloak.URL()+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", contentType)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("the simulated Keycloak: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return "", fmt.Errorf("the simulated Keycloak: POST %s: %s", path, resp.Status)
	}
	if out != nil {
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	return resp.Header.Get("Location"), err
}
