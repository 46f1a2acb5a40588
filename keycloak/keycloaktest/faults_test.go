package keycloaktest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

func TestFailNextStrikesAndIsCounted(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	id := r.createUser("alice")
	r.FailNext(http.MethodPut, "/admin/realms/acme/users/*", 2, http.StatusServiceUnavailable)
	for range 2 {
		require.Equal(t, http.StatusServiceUnavailable, r.do(http.MethodPut, "/users/"+id, `{"enabled":false}`).status)
	}
	require.Equal(t, http.StatusNoContent, r.do(http.MethodPut, "/users/"+id, `{"enabled":false}`).status)
	require.Equal(t, 3, r.Requests(http.MethodPut, "**/users/*"))
	require.Equal(t, 3, r.Requests("", "/admin/realms/acme/users/"+id))
	require.Zero(t, r.Requests(http.MethodPut, "/admin/realms/*"))
	log := r.RequestLog()
	require.Equal(t, keycloaktest.LoggedRequest{Method: http.MethodPut, Path: "/admin/realms/acme/users/" + id, Status: http.StatusNoContent}, log[len(log)-1])

	remove := r.Inject(keycloaktest.Fault{Pattern: "**/users", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3"}}, Body: `{}`, Skip: 1})
	require.Equal(t, http.StatusOK, r.do(http.MethodGet, "/users", "").status)
	for range 3 {
		a := r.do(http.MethodGet, "/users", "")
		require.Equal(t, http.StatusTooManyRequests, a.status)
		require.Equal(t, "3", a.header.Get("Retry-After"))
	}
	remove()
	require.Equal(t, http.StatusOK, r.do(http.MethodGet, "/users", "").status)
}

func TestAConflictThatSaysNothing(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	r.ConflictNext(http.MethodPost, "**/users", 1)
	a := r.do(http.MethodPost, "/users", `{"username":"alice"}`)
	require.Equal(t, http.StatusConflict, a.status)
	require.Equal(t, keycloaktest.DuplicateResource, a.body)
	require.Empty(t, r.storedAdminEvents())
	r.createUser("alice")
}

func TestDroppedConnections(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	id := r.createUser("alice")
	enabled := func() bool {
		u, found := r.realm.User(id)
		require.True(t, found)
		return u.Enabled
	}
	r.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: "**/users/*", Times: 1, DropBefore: true})
	_, err := r.try(t.Context(), http.MethodPut, "/users/"+id, `{"enabled":false}`)
	require.Error(t, err)
	require.True(t, enabled(), "not processed")

	r.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: "**/users/*", Times: 1, DropAfter: true})
	_, err = r.try(t.Context(), http.MethodPut, "/users/"+id, `{"enabled":false}`)
	require.Error(t, err)
	require.False(t, enabled(), "processed, and the answer lost")
	require.Equal(t, 2, r.Requests(http.MethodPut, "**/users/*"))
}

func TestHeldAnswersAndRequests(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	id := r.createUser("alice")
	put := func() <-chan int {
		done := make(chan int, 1)
		go func() {
			a, err := r.try(t.Context(), http.MethodPut, "/users/"+id, `{"enabled":false}`)
			if err != nil {
				a.status = -1
			}
			done <- a.status
		}()
		return done
	}
	held := r.HoldRequest(http.MethodPut, "**/users/*")
	done := put()
	<-held.Arrived()
	u, _ := r.realm.User(id)
	require.True(t, u.Enabled)
	held.Release()
	require.Equal(t, http.StatusNoContent, <-done)

	// A client that gives up does not undo what was processed.
	held = r.HoldAnswer(http.MethodDelete, "**/users/*")
	defer held.Release()
	ctx, cancel := context.WithCancel(t.Context())
	gave := make(chan error, 1)
	go func() {
		_, err := r.try(ctx, http.MethodDelete, "/users/"+id, "")
		gave <- err
	}()
	<-held.Arrived()
	cancel()
	require.ErrorIs(t, <-gave, context.Canceled)
	_, found := r.realm.User(id)
	require.False(t, found)
}

func TestCloseEndsHeldRequestsAndWaitingDeliveries(t *testing.T) {
	server, err := keycloaktest.NewServer(keycloaktest.Options{RetryBackoff: time.Hour})
	require.NoError(t, err)
	realm := server.AddRealm("acme", keycloaktest.RealmOptions{})
	hook := newReceiver(t, http.StatusServiceUnavailable)
	realm.AddWebhook(hook.URL, "")
	_, err = realm.Register(keycloaktest.Registration{Username: "reg", Email: "reg@example.com"})
	require.NoError(t, err)
	require.Empty(t, hook.next(t).signature, "no secret, no header")
	held := server.HoldRequest(http.MethodGet, "/admin/serverinfo")
	done := make(chan error, 1)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL()+"/admin/serverinfo", nil)
		if err == nil {
			var resp *http.Response
			if resp, err = transport.RoundTrip(req); err == nil {
				err = errors.Join(errors.New("it was answered"), resp.Body.Close())
			}
		}
		done <- err
	}()
	<-held.Arrived()
	server.Close()
	err = <-done
	require.Error(t, err)
	require.NotContains(t, err.Error(), "answered")
	server.Close() // once more is harmless
}

func TestSpoiltLists(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	r.createUser("alice")
	r.Inject(keycloaktest.Fault{Method: http.MethodGet, Pattern: "**/users", Times: 1, Truncate: true})
	a := r.do(http.MethodGet, "/users", "")
	require.Equal(t, http.StatusOK, a.status)
	require.False(t, json.Valid([]byte(a.body)))
	r.Inject(keycloaktest.Fault{Method: http.MethodGet, Pattern: "**/users", Times: 1, EmptyList: true})
	require.Equal(t, "[]", r.do(http.MethodGet, "/users", "").body)
	require.Contains(t, r.do(http.MethodGet, "/users", "").body, "alice")
}

func TestWithoutAnEventStoreThePushGoesOn(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	hook := newReceiver(t)
	r.realm.AddWebhook(hook.URL, "hush")
	r.SwitchEventStore(false)
	r.createUser("alice")
	require.Equal(t, "admin.USER-CREATE", hook.next(t).event["type"])
	require.Equal(t, http.StatusInternalServerError, r.do(http.MethodGet, "/admin-events", "").status)
	require.Equal(t, http.StatusInternalServerError, r.do(http.MethodGet, "/events", "").status)
	r.SwitchEventStore(true)
	require.Equal(t, "[]", r.do(http.MethodGet, "/admin-events", "").body, "what was not saved stays lost")
}

func TestRolledBackRequests(t *testing.T) {
	for _, c := range []struct {
		name          string
		fault         keycloaktest.Fault
		pushed, saved int
	}{
		{"lock conflict", keycloaktest.Fault{}, 0, 0},
		{"pushed before the commit", keycloaktest.Fault{PushPhantom: true}, 1, 0},
		{"saved beside the transaction", keycloaktest.Fault{SavePhantom: true}, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, keycloaktest.Options{})
			id := r.createUser("alice")
			hook := newReceiver(t)
			r.realm.AddWebhook(hook.URL, "hush")
			for _, call := range []struct{ method, path, body string }{
				{http.MethodPut, "/users/" + id, `{"enabled":false,"requiredActions":["VERIFY_EMAIL"]}`},
				{http.MethodPut, "/users/" + id + "/reset-password", `{"type":"password","value":"hunter2","temporary":true}`},
				{http.MethodPost, "/users", `{"username":"bob"}`},
				{http.MethodDelete, "/users/" + id, ""},
			} {
				users, events := r.do(http.MethodGet, "/users", "").body, r.storedAdminEvents()
				c.fault.Method, c.fault.Pattern, c.fault.Times, c.fault.RollBack = call.method, "**/users/**", 1, true
				r.Inject(c.fault)
				a := r.do(call.method, call.path, call.body)
				require.Equal(t, http.StatusInternalServerError, a.status)
				require.Contains(t, a.body, "unknown_error")
				require.Equal(t, users, r.do(http.MethodGet, "/users", "").body, call.path)
				require.Equal(t, "[]", r.do(http.MethodGet, "/users/"+id+"/credentials", "").body)
				require.Len(t, r.storedAdminEvents(), len(events)+c.saved)
				r.waitDeliveries()
				require.Len(t, hook.got, c.pushed)
				for range c.pushed {
					hook.next(t)
				}
			}
			require.Equal(t, http.StatusNoContent, r.do(http.MethodDelete, "/users/"+id, "").status, "the next one works")
			r.Inject(keycloaktest.Fault{Pattern: "**", Times: 2, RollBack: true})
			require.Equal(t, http.StatusNotFound, r.do(http.MethodDelete, "/users/"+id, "").status, "refused before there is a conflict")
			require.Equal(t, http.StatusNotImplemented, r.do(http.MethodGet, "/roles", "").status)
		})
	}
}

func (r *rig) storedAdminEvents() []map[string]any {
	r.t.Helper()
	var stored []map[string]any
	require.NoError(r.t, json.Unmarshal([]byte(r.do(http.MethodGet, "/admin-events", "").body), &stored))
	return stored
}

func TestAPhantomEventIsPushedAndSaved(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	id := r.createUser("alice")
	hook := newReceiver(t)
	r.realm.AddWebhook(hook.URL, "hush")
	r.PhantomNext(http.MethodPut, "**/users/*")
	require.Equal(t, http.StatusInternalServerError, r.do(http.MethodPut, "/users/"+id, `{"enabled":false}`).status)
	u, found := r.realm.User(id)
	require.True(t, found)
	require.True(t, u.Enabled)
	pushed, stored := hook.next(t).event, r.storedAdminEvents()[0]
	require.Equal(t, `{"enabled":false}`, pushed["representation"])
	require.Equal(t, pushed["id"], stored["id"])
	require.Equal(t, pushed["representation"], stored["representation"])
	require.Equal(t, http.StatusNoContent, r.do(http.MethodPut, "/users/"+id, `{"enabled":false}`).status)
}

func TestDoubledAttributeValues(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	id := r.createUser("alice")
	r.realm.BehindOurBack(func(users map[string]*keycloaktest.User) {
		for _, u := range users {
			if u.ServiceAccountClientID == "keytrail" {
				u.ClientRoles["realm-management"] = append(u.ClientRoles["realm-management"], "manage-realm")
			}
		}
	})
	profile := r.do(http.MethodGet, "/users/profile", "").body
	require.Equal(t, http.StatusOK, r.do(http.MethodPut, "/users/profile", `{"unmanagedAttributePolicy":"ENABLED",`+profile[1:]).status)
	r.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: "**/users/*", Times: 1, DoubleValues: true})
	put := func(values ...string) {
		t.Helper()
		const sent = `{"username":"alice","attributes":{"dept":["ops","dev"]}}`
		require.Equal(t, http.StatusNoContent, r.do(http.MethodPut, "/users/"+id, sent).status)
		u, _ := r.realm.User(id)
		require.Equal(t, map[string][]string{"dept": values}, u.Attributes)
		require.Equal(t, sent, r.storedAdminEvents()[0]["representation"])
	}
	put("ops", "dev", "ops", "dev")
	put("ops", "dev")
}

func TestBehindOurBackLeavesNoTrace(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	id := r.createUser("alice")
	hook := newReceiver(t)
	r.realm.AddWebhook(hook.URL, "hush")
	events := r.do(http.MethodGet, "/admin-events", "").body
	r.realm.BehindOurBack(func(users map[string]*keycloaktest.User) {
		users[id].FirstName = "Mallory"
		users["f:ldap:1"] = &keycloaktest.User{Username: "fromldap", Enabled: true}
	})
	require.Contains(t, r.do(http.MethodGet, "/users/"+id, "").body, `"firstName":"Mallory"`)
	require.Contains(t, r.do(http.MethodGet, "/users/f:ldap:1", "").body, `"fromldap"`)
	require.Equal(t, events, r.do(http.MethodGet, "/admin-events", "").body)
	r.waitDeliveries()
	require.Empty(t, hook.got)

	// A copy is a copy.
	u, _ := r.realm.User(id)
	u.Attributes["x"] = []string{"y"}
	again, _ := r.realm.UserByName("ALICE")
	require.Empty(t, again.Attributes)
}

func TestTokensExpireByTheInjectedClock(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newRig(t, keycloaktest.Options{TokenLifespan: time.Minute, Clock: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}})
	id := r.createUser("alice")
	u, _ := r.realm.User(id)
	require.Equal(t, now.UnixMilli(), u.CreatedTimestamp)
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	require.Equal(t, http.StatusUnauthorized, r.do(http.MethodGet, "/users", "").status)
	r.token = r.login()
	require.Equal(t, http.StatusOK, r.do(http.MethodGet, "/users", "").status)
	r.RevokeTokens()
	require.Equal(t, http.StatusUnauthorized, r.do(http.MethodGet, "/users", "").status)
}

func TestDeliveryFaults(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	hook := newReceiver(t)
	r.realm.AddWebhook(hook.URL, "hush")

	r.DropDeliveries(1)
	r.createUser("dropped")
	r.DuplicateDeliveries(1)
	id := r.createUser("twice")
	first, second := hook.next(t), hook.next(t)
	require.Equal(t, first.body, second.body)
	require.Equal(t, id, first.event["resourceId"])
	r.waitDeliveries()
	require.Empty(t, hook.got)
	require.True(t, r.Deliveries()[0].Lost)

	event := r.Deliveries()[1].EventID
	require.True(t, r.Redeliver(event))
	require.Equal(t, first.body, hook.next(t).body, "the same uid too")
	require.False(t, r.Redeliver(uuid.NewString()))

	release := r.HoldDeliveries()
	for i := range 10 {
		r.createUser(fmt.Sprintf("user%d", i))
	}
	release(keycloaktest.Shuffle(1))
	r.waitDeliveries()
	var order []string
	for range 10 {
		order = append(order, fmt.Sprint(hook.next(t).event["details"]))
	}
	require.False(t, slices.IsSorted(order))
	release(nil) // once more is harmless
}

func TestSpoiltRepresentations(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	id := r.createUser("alice")
	hook := newReceiver(t)
	r.realm.AddWebhook(hook.URL, "hush")
	const sent = `{"firstName":"Ålice","enabled":true}`
	put := func() any {
		t.Helper()
		require.Equal(t, http.StatusNoContent, r.do(http.MethodPut, "/users/"+id, sent).status)
		return hook.next(t).event["representation"]
	}
	r.SpoilRepresentations(1, keycloaktest.NoRepresentation)
	require.Equal(t, http.StatusNoContent, r.do(http.MethodPost, "/users/"+id+"/logout", "").status)
	require.Nil(t, hook.next(t).event["representation"], "it has none, and does not count")
	require.Nil(t, put())
	require.Equal(t, sent, put(), "once")

	r.SpoilRepresentations(2, keycloaktest.HalfRepresentation)
	for range 2 {
		require.Equal(t, sent[:len(sent)/2], put())
	}
	require.Equal(t, sent, put())
	var stored []struct{ Representation string }
	require.NoError(t, json.Unmarshal([]byte(r.do(http.MethodGet, "/admin-events?operationTypes=UPDATE", "").body), &stored))
	require.Len(t, stored, 5)
	for _, e := range stored {
		require.Equal(t, sent, e.Representation, "the event store has it whole")
	}
}

func TestRefusedConnectionsAreNeverRetried(t *testing.T) {
	r := newRig(t, keycloaktest.Options{RetryBackoff: time.Millisecond})
	hook := newReceiver(t)
	r.realm.AddWebhook(hook.URL, "hush")
	hook.Close()
	r.createUser("alice")
	r.waitDeliveries()
	d := r.Deliveries()[0]
	require.True(t, d.Lost)
	require.Equal(t, 1, d.Attempts)
}

func TestGivesUpARefusingReceiver(t *testing.T) {
	r := newRig(t, keycloaktest.Options{RetryBackoff: time.Millisecond, RetryFor: 20 * time.Millisecond})
	hook := newReceiver(t, slices.Repeat([]int{http.StatusInternalServerError}, 1000)...)
	r.realm.AddWebhook(hook.URL, "hush")
	r.createUser("alice")
	r.waitDeliveries()
	require.True(t, r.Deliveries()[0].Lost)
	require.Equal(t, http.StatusInternalServerError, r.Deliveries()[0].Status)
}

func TestSelfServiceEmitsUserEventsOnly(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	hook := newReceiver(t)
	id, err := r.realm.Register(keycloaktest.Registration{Username: "Eve", Email: "Eve@example.com", FirstName: "Eve", Password: "hunter2"})
	require.NoError(t, err)
	_, err = r.realm.Register(keycloaktest.Registration{Username: "eve", Email: "other@example.com"})
	require.ErrorContains(t, err, "User exists with same username")

	r.realm.AddWebhook(hook.URL, "hush")
	name, email := "Evelyn", "E2@example.com"
	require.NoError(t, r.realm.UpdateProfile(id, keycloaktest.Profile{FirstName: &name, LastName: &name, Email: &email}))
	require.Equal(t, map[string]any{
		"context": "ACCOUNT", "updated_first_name": "Evelyn", "previous_first_name": "Eve", "updated_last_name": "Evelyn",
		"updated_email": "e2@example.com", "previous_email": "eve@example.com",
	}, hook.next(t).event["details"])
	require.NoError(t, r.realm.Login(id))
	require.Equal(t, "access.LOGIN", hook.next(t).event["type"])
	require.NoError(t, r.realm.ChangePassword(id, "other"))
	require.ElementsMatch(t, []any{"access.UPDATE_PASSWORD", "access.UPDATE_CREDENTIAL"}, []any{hook.next(t).event["type"], hook.next(t).event["type"]})
	require.NoError(t, r.realm.DeleteAccount(id))
	require.Equal(t, "access.DELETE_ACCOUNT", hook.next(t).event["type"])
	require.Error(t, r.realm.Login(id))
	require.Equal(t, "[]", r.do(http.MethodGet, "/admin-events", "").body)
}

func TestManyCallersAtOnce(t *testing.T) {
	r := newRig(t, keycloaktest.Options{})
	hook := newReceiver(t)
	r.realm.AddWebhook(hook.URL, "hush")
	id := r.createUser("alice")
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			for i := range 20 {
				if a, err := r.try(t.Context(), http.MethodPut, "/users/"+id, fmt.Sprintf(`{"firstName":"n%d-%d"}`, c, i)); err != nil || a.status != http.StatusNoContent {
					t.Error(a, err)
				}
				r.realm.User(id)
				r.Deliveries()
			}
		})
	}
	callers.Wait()
	r.waitDeliveries()
	seen := map[any]bool{}
	for range 161 {
		seen[hook.next(t).event["id"]] = true
	}
	require.Len(t, seen, 161)
}
