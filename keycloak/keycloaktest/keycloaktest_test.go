package keycloaktest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/kcserver"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

func TestMain(m *testing.M) { os.Exit(kcserver.Main(m)) }

// rig is a fake server with the realm acme, a service account that may do all that
// keytrail does, and a plain client that speaks for it.
type rig struct {
	*keycloaktest.Server
	t     *testing.T
	realm *keycloaktest.Realm
	http  *http.Client
	token string
}

func newRig(t *testing.T, opts keycloaktest.Options) *rig {
	t.Helper()
	server, err := keycloaktest.NewServer(opts)
	require.NoError(t, err)
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
	})
	realm := server.AddRealm("acme", keycloaktest.RealmOptions{AdminEvents: true, AdminEventsDetails: true, UserEvents: true})
	realm.AddClient("keytrail", "s3cret", "view-events", "view-users", "view-realm", "manage-users")
	r := &rig{Server: server, t: t, realm: realm, http: &http.Client{Transport: transport}}
	r.token = r.login()
	return r
}

func (r *rig) login() string {
	r.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"keytrail"}, "client_secret": {"s3cret"}}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.URL()+"/realms/acme/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	require.NoError(r.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := r.http.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	require.Equal(r.t, http.StatusOK, resp.StatusCode)
	var body struct {
		AccessToken string `json:"access_token"`
	}
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&body))
	return body.AccessToken
}

type answer struct {
	status int
	header http.Header
	body   string
}

// try makes an Admin API call below the realm and returns transport errors.
func (r *rig) try(ctx context.Context, method, path, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.URL()+"/admin/realms/acme"+path, bytes.NewReader([]byte(body)))
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

func (r *rig) do(method, path, body string) answer {
	r.t.Helper()
	a, err := r.try(r.t.Context(), method, path, body)
	require.NoError(r.t, err)
	return a
}

func (r *rig) createUser(username string) (id string) {
	r.t.Helper()
	a := r.do(http.MethodPost, "/users", `{"username":"`+username+`","enabled":true}`)
	require.Equal(r.t, http.StatusCreated, a.status, a.body)
	location := a.header.Get("Location")
	return location[strings.LastIndex(location, "/")+1:]
}

func (r *rig) waitDeliveries() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(r.t, r.WaitDeliveries(ctx))
}

// receiver is a webhook endpoint that answers what it is told to and keeps what it got.
type receiver struct {
	*httptest.Server
	got chan received
}

type received struct {
	signature string
	body      []byte
	event     map[string]any
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	t.Helper()
	rc := &receiver{got: make(chan received, 1000)}
	left := make(chan int, len(statuses))
	for _, s := range statuses {
		left <- s
	}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		got := received{signature: req.Header.Get(keycloaktest.SignatureHeader), body: body}
		_ = json.Unmarshal(body, &got.event)
		select {
		case s := <-left:
			w.WriteHeader(s)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
		rc.got <- got
	}))
	t.Cleanup(rc.Close)
	return rc
}

func (rc *receiver) next(t *testing.T) received {
	t.Helper()
	select {
	case got := <-rc.got:
		return got
	case <-time.After(10 * time.Second):
		require.Fail(t, "no webhook delivery within 10 s")
		return received{}
	}
}

func TestPushIsSignedAndRetriedWithTheSameUID(t *testing.T) {
	r := newRig(t, keycloaktest.Options{RetryBackoff: time.Millisecond})
	hook := newReceiver(t, http.StatusServiceUnavailable, http.StatusBadRequest)
	r.realm.AddWebhook(hook.URL, "hush")
	id := r.createUser("alice")

	first, second, third := hook.next(t), hook.next(t), hook.next(t)
	require.Equal(t, first.body, second.body)
	require.Equal(t, first.body, third.body)
	require.Equal(t, keycloaktest.Sign("hush", first.body), first.signature)
	require.Equal(t, "admin.USER-CREATE", first.event["type"])
	require.Equal(t, "users/"+id, first.event["resourcePath"])
	r.waitDeliveries()
	require.Len(t, r.Deliveries(), 1)
	require.Equal(t, 3, r.Deliveries()[0].Attempts)
	require.True(t, r.Deliveries()[0].Delivered)
}

// Nothing of an unserved server happens by itself: no goroutine, no socket, no push.
func TestUnserved(t *testing.T) {
	t.Parallel()
	s, err := keycloaktest.NewServer(keycloaktest.Options{Unserved: true})
	require.NoError(t, err)
	r := s.AddRealm("acme", keycloaktest.RealmOptions{})
	r.AddWebhook("http://127.0.0.1:9/webhooks/keycloak", "secret")
	_, err = r.Register(keycloaktest.Registration{Username: "ann", Email: "ann@example.com"})
	require.NoError(t, err)
	pushed := s.Deliveries()
	require.Len(t, pushed, 2, "REGISTER and LOGIN")
	require.Contains(t, string(pushed[0].Body), `"access.REGISTER"`)
	require.Zero(t, pushed[0].Attempts)
	require.NoError(t, s.WaitDeliveries(t.Context()), "there is nothing to wait for")

	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, s.URL()+"/admin/realms/acme", nil))
	require.Equal(t, http.StatusUnauthorized, answer.Code)
	s.Close()
	s.Close()
}
