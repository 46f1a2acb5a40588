package kcserver_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/kcserver"
)

func TestMain(m *testing.M) { os.Exit(kcserver.Main(m)) }

// delivery is the part of a webhook body that these tests look at.
type delivery struct {
	Type         string `json:"type"`
	ID           string `json:"id"`
	RealmName    string `json:"realmName"`
	ResourcePath string `json:"resourcePath"`
	AuthDetails  struct {
		UserID string `json:"userId"`
	} `json:"authDetails"`
}

// receive serves a webhook that hands over each delivery whose signature is right.
func receive(t *testing.T, secret string) (url string, deliveries <-chan delivery) {
	t.Helper()
	received := make(chan delivery, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		if got, want := r.Header.Get("X-Keycloak-Signature"), hex.EncodeToString(mac.Sum(nil)); got != want {
			t.Errorf("signature %q, want %q", got, want)
		}
		var d delivery
		if err := json.Unmarshal(body, &d); err != nil {
			t.Errorf("body %s: %v", body, err)
		}
		received <- d
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}

func await(t *testing.T, deliveries <-chan delivery, eventType string) delivery {
	t.Helper()
	// Two senders serve all realms, and one that tries another test's refused delivery
	// again keeps its sender from this one.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		select {
		case d := <-deliveries:
			if d.Type == eventType {
				return d
			}
		case <-ctx.Done():
			t.Fatalf("no %s delivered", eventType)
		}
	}
}

func TestRealmSendsSignedWebhooks(t *testing.T) {
	t.Parallel()
	server := kcserver.Shared(t)
	require.NotEmpty(t, server.Version)
	const secret = "a secret of this test"
	url, deliveries := receive(t, secret)
	realm := server.TestRealm(t, kcserver.RealmOptions{WebhookURL: url, WebhookSecret: secret})
	require.NotEmpty(t, realm.WebhookID)

	id, err := realm.Create(t.Context(), "/users", map[string]any{"username": "alice", "enabled": true})
	require.NoError(t, err)
	created := await(t, deliveries, "admin.USER-CREATE")
	require.Equal(t, "users/"+id, created.ResourcePath)
	require.Equal(t, realm.Name, created.RealmName)

	// What is pushed can also be pulled: the event store is there.
	var pulled []struct {
		ID string `json:"id"`
	}
	_, err = realm.Do(t.Context(), http.MethodGet, "/admin-events?resourceTypes=USER", nil, &pulled)
	require.NoError(t, err)
	require.Len(t, pulled, 1)
	require.Equal(t, created.ID, pulled[0].ID)
}

func TestPeopleRegisterAndLogIn(t *testing.T) {
	t.Parallel()
	url, deliveries := receive(t, "s")
	realm := kcserver.Shared(t).TestRealm(t, kcserver.RealmOptions{WebhookURL: url, WebhookSecret: "s"})

	id, err := realm.RegisterUser(t.Context(), kcserver.Registration{
		Username: "bob", Password: "correct horse", Email: "bob@example.com", FirstName: "Bob", LastName: "Builder",
	})
	require.NoError(t, err)
	require.Equal(t, id, await(t, deliveries, "access.REGISTER").AuthDetails.UserID)

	_, err = realm.RegisterUser(t.Context(), kcserver.Registration{Username: "bob", Password: "p", Email: "bob@example.com"})
	require.ErrorContains(t, err, "the form was refused")

	_, err = realm.LogIn(t.Context(), "bob", "correct horse")
	require.NoError(t, err)
	_, err = realm.LogIn(t.Context(), "bob", "wrong")
	var refused *kcserver.StatusError
	require.ErrorAs(t, err, &refused)
	await(t, deliveries, "access.LOGIN_ERROR")
}

func TestServiceAccountHasTheRolesItWasGiven(t *testing.T) {
	t.Parallel()
	server := kcserver.Shared(t)
	get := func(realm *kcserver.Realm, rest string) int {
		token, err := realm.ServiceAccountToken(t.Context())
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+realm.AdminPath(rest), nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	all := server.TestRealm(t, kcserver.RealmOptions{})
	require.Empty(t, all.WebhookID)
	require.Equal(t, http.StatusOK, get(all, "/users"))
	require.Equal(t, http.StatusOK, get(all, "/admin-events"))
	require.Equal(t, http.StatusOK, get(all, "/clients"))
	require.Equal(t, http.StatusOK, get(all, "/roles"))
	require.Equal(t, http.StatusNotFound, get(all, "/organizations"), "they are switched off; without the role it is a 403")

	onlyEvents := server.TestRealm(t, kcserver.RealmOptions{Roles: []string{"view-events"}})
	require.Equal(t, http.StatusForbidden, get(onlyEvents, "/users"))
	require.Equal(t, http.StatusOK, get(onlyEvents, "/admin-events"))
}

func TestSetEventsOffLeavesNoTrace(t *testing.T) {
	t.Parallel()
	realm := kcserver.Shared(t).TestRealm(t, kcserver.RealmOptions{})
	require.NoError(t, realm.SetEvents(t.Context(), false))
	_, err := realm.Create(t.Context(), "/users", map[string]any{"username": "unseen"})
	require.NoError(t, err)
	require.NoError(t, realm.SetEvents(t.Context(), true))
	_, err = realm.Create(t.Context(), "/users", map[string]any{"username": "seen"})
	require.NoError(t, err)
	var pulled []struct {
		Representation string `json:"representation"`
	}
	_, err = realm.Do(t.Context(), http.MethodGet, "/admin-events?resourceTypes=USER", nil, &pulled)
	require.NoError(t, err)
	require.Len(t, pulled, 1)
	require.Contains(t, pulled[0].Representation, `"seen"`)
}

func TestTakenPortIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	kcserver.Shared(t) // skips where there is no Java; later starts find everything in the cache
	taken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(taken.Close)
	_, err := kcserver.Start(t.Context(), kcserver.Options{Port: taken.Listener.Addr().(*net.TCPAddr).Port})
	require.ErrorContains(t, err, "address already in use; try: stop what listens there")
}
