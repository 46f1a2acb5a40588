package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/kcserver"
)

// cast is what the realms of these tests have beside users.
var cast = map[string]any{
	"roles":  object{"realm": []object{{"name": "auditor"}}},
	"groups": []object{{"name": "staff", "subGroups": []object{{"name": "night"}}}},
	"identityProviders": []object{{"alias": "corp", "providerId": "oidc", "enabled": true, "config": object{
		"clientId": "acme", "clientSecret": "s3cret-of-the-provider", "authorizationUrl": "http://127.0.0.1:1/auth", "tokenUrl": "http://127.0.0.1:1/token",
	}}},
}

// The main way in: every kind of change, each pushed, recorded, told and folded.
func TestPush(t *testing.T) {
	t.Parallel()
	onBothStores(t, options{settings: cast}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.tap.URL)

		ada := b.create("/users", object{
			"username": "Ada", "email": "Ada@Example.com", "firstName": "Ada", "lastName": "Byron", "enabled": true,
		})
		user := "/users/" + ada
		story := []string{}
		then := func(next string) {
			t.Helper()
			story = append(story, next)
			b.untilStory(ada, story...)
		}
		then(adapter.TypeUserApiCreated)

		b.admin(http.MethodPut, user, object{"lastName": "King"})
		then(adapter.TypeUserApiUpdated)
		b.admin(http.MethodPut, user, object{"enabled": false})
		then(adapter.TypeUserApiDisabled)
		require.False(t, b.believed(ada).Enabled)
		b.admin(http.MethodPut, user, object{"enabled": true})
		then(adapter.TypeUserApiEnabled)

		// The console sends the whole representation back.
		whole := live[object](b, user)
		whole["email"] = "ada.king@example.com"
		b.admin(http.MethodPut, user, whole)
		then(adapter.TypeUserApiUpdated)
		whole["enabled"] = false
		b.admin(http.MethodPut, user, whole)
		then(adapter.TypeUserApiDisabled)
		whole["enabled"] = true
		b.admin(http.MethodPut, user, whole)
		then(adapter.TypeUserApiEnabled)

		auditor := []object{live[object](b, "/roles/auditor")}
		b.admin(http.MethodPost, user+"/role-mappings/realm", auditor)
		then(adapter.TypeUserApiRolesChanged)
		require.Equal(t, []string{"auditor"}, b.believed(ada).Roles)
		b.admin(http.MethodDelete, user+"/role-mappings/realm", auditor)
		then(adapter.TypeUserApiRolesChanged)
		require.Empty(t, b.believed(ada).Roles)

		staff := live[object](b, "/group-by-path/staff")["id"].(string)
		night := live[object](b, "/group-by-path/staff/night")["id"].(string)
		b.admin(http.MethodPut, user+"/groups/"+night, nil)
		then(adapter.TypeUserApiGroupsChanged)
		b.admin(http.MethodPut, user+"/groups/"+staff, nil)
		then(adapter.TypeUserApiGroupsChanged)
		require.Equal(t, []string{"/staff", "/staff/night"}, b.believed(ada).Groups)
		b.admin(http.MethodDelete, user+"/groups/"+staff, nil)
		then(adapter.TypeUserApiGroupsChanged)
		require.Equal(t, []string{"/staff/night"}, b.believed(ada).Groups)

		b.admin(http.MethodPut, user+"/reset-password", object{"type": "password", "value": "correct horse", "temporary": false})
		then(adapter.TypeUserApiCredentialsChanged)

		bob, err := b.realm.RegisterUser(t.Context(), kcserver.Registration{
			Username: "bob", Password: "battery staple", Email: "Bob@example.com", FirstName: "Bob", LastName: "Stone",
		})
		require.NoError(t, err)
		b.untilStory(bob, adapter.TypeUserApiCreated)
		b.changeOwnProfile("bob", "battery staple", object{"username": "bob", "email": "bob@example.com", "firstName": "Robert", "lastName": "Stone"})
		b.untilStory(bob, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated)
		require.Equal(t, "Robert", *b.believed(bob).FirstName)
		own := adapter.UserHistory(b.stream(adapter.UserStream(b.realm.Name, bob)))[1]
		require.Equal(t, bob, own.Actor.ID, "by his own hand")

		carol := b.create("/users", object{"username": "carol"})
		b.untilStory(carol, adapter.TypeUserApiCreated)
		require.False(t, b.believed(carol).Enabled, "Keycloak's default")
		b.admin(http.MethodDelete, "/users/"+carol, nil)
		b.untilStory(carol, adapter.TypeUserApiCreated, adapter.TypeUserApiDeleted)
		require.True(t, b.believed(carol).Deleted)

		b.untilAllRecorded()
		b.userEventsFollow()
		for _, e := range b.events(eventstore.LogQuery{Types: []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived}}) {
			var receipt adapter.Receipt
			require.NoError(t, json.Unmarshal(e.Data, &receipt))
			require.Equal(t, "keycloak", receipt.Source, "it was pushed")
			require.Equal(t, "p2", receipt.Dialect)
		}
		created := adapter.UserHistory(b.stream(adapter.UserStream(b.realm.Name, ada)))[0]
		require.Equal(t, b.server.AdminUser, created.Actor.Username, "who did it is kept")

		// A body that Keycloak signed is worth nothing without its signature.
		genuine, received := b.tap.seen()[0], b.count(adapter.TypeAdminEventReceived)
		for _, signature := range []string{"", strings.Repeat("0", 64), "not hex"} {
			status, _ := b.deliver(genuine.body, signature)
			require.Equal(t, http.StatusUnauthorized, status)
		}
		status, _ := b.deliver(append(slices.Clone(genuine.body), ' '), genuine.signature)
		require.Equal(t, http.StatusUnauthorized, status, "one byte more")
		require.Equal(t, received, b.count(adapter.TypeAdminEventReceived), "nothing of it is recorded")

		b.inSync()
		b.untilAllRecorded() // the run has pulled what was pushed
	})
}

// changeOwnProfile is what the account console does for a user who is logged in.
func (b *bundle) changeOwnProfile(username, password string, profile object) {
	b.t.Helper()
	token, err := b.realm.LogIn(b.t.Context(), username, password)
	require.NoError(b.t, err)
	body, err := json.Marshal(profile)
	require.NoError(b.t, err)
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.server.URL+"/realms/"+b.realm.Name+"/account", bytes.NewReader(body))
	require.NoError(b.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	status, answer := b.send(req)
	require.Equal(b.t, http.StatusNoContent, status, "%s", answer)
}

// The safety net: what no webhook brought is pulled, and nothing is there twice.
func TestPull(t *testing.T) {
	t.Parallel()
	o := options{poll: 200 * time.Millisecond, settings: cast}
	onBothStores(t, o, func(t *testing.T, b *bundle) {
		// Before keytrail has ever run: more than one page of stored events.
		var many []object
		for i := range 230 {
			many = append(many, object{"username": fmt.Sprintf("user-%03d", i), "enabled": true, "email": fmt.Sprintf("user-%03d@example.com", i)})
		}
		b.admin(http.MethodPost, "/partialImport", object{"ifResourceExists": "FAIL", "users": many})
		ada := b.create("/users", object{"username": "ada", "enabled": true})
		b.admin(http.MethodPut, "/users/"+ada, object{"lastName": "King"})
		bob, err := b.realm.RegisterUser(t.Context(), kcserver.Registration{
			Username: "bob", Password: "battery staple", Email: "bob@example.com", FirstName: "Bob", LastName: "Stone",
		})
		require.NoError(t, err)

		b.start()
		b.untilAllRecorded() // from the oldest stored event on
		b.untilStory(ada, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated)
		b.untilStory(bob, adapter.TypeUserApiCreated)
		b.until("every imported user", func() bool { return b.count(adapter.TypeUserApiCreated) == len(many)+2 })
		for _, e := range b.events(eventstore.LogQuery{Types: []string{adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived}}) {
			var receipt adapter.Receipt
			require.NoError(t, json.Unmarshal(e.Data, &receipt))
			require.Equal(t, "poll", receipt.Source)
		}
		b.inSync()

		// With the webhook too, each event comes both ways and is one delivery.
		b.register(b.webhookURL())
		auditor := []object{live[object](b, "/roles/auditor")}
		b.admin(http.MethodPost, "/users/"+ada+"/role-mappings/realm", auditor)
		b.admin(http.MethodPut, "/users/"+ada, object{"enabled": false})
		_, err = b.realm.LogIn(t.Context(), "bob", "battery staple")
		require.NoError(t, err)
		_, err = b.realm.LogIn(t.Context(), "bob", "a wrong one")
		require.Error(t, err)
		b.untilAllRecorded()
		b.untilStory(ada, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiDisabled)
		require.Equal(t, []string{"auditor"}, b.believed(ada).Roles)
		b.until("an event that both ways brought", func() bool {
			ways := map[string]bool{}
			for _, e := range b.events(eventstore.LogQuery{Types: []string{
				adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived, adapter.TypeDeliveryConfirmed,
			}}) {
				var receipt adapter.Receipt
				require.NoError(t, json.Unmarshal(e.Data, &receipt))
				ways[receipt.Source] = true
			}
			return ways["poll"] && ways["keycloak"]
		})

		// A pull has the id of who did it, and a push the name: by that, what was pulled before
		// any push is found as well.
		b.untilOutside("what the administrator did before there was a name", func() bool {
			trail := get[struct{ Items []adapter.AuditEntry }](b, "/audit?actor="+b.server.AdminUser+"&user="+ada).Items
			return slices.ContainsFunc(trail, func(a adapter.AuditEntry) bool {
				return a.EventType == adapter.TypeUserApiCreated && a.Actor.Username == ""
			}) && slices.ContainsFunc(trail, func(a adapter.AuditEntry) bool { return a.Actor.Username == b.server.AdminUser })
		})

		// The webhook sender never tries again where nobody listens.
		b.stop()
		b.admin(http.MethodPut, "/users/"+ada, object{"enabled": true})
		b.admin(http.MethodDelete, "/users/"+bob, nil)
		carol := b.create("/users", object{"username": "carol", "enabled": true})
		b.start()
		b.untilAllRecorded()
		b.untilStory(ada, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiRolesChanged, adapter.TypeUserApiDisabled, adapter.TypeUserApiEnabled)
		b.untilStory(bob, adapter.TypeUserApiCreated, adapter.TypeUserApiDeleted)
		b.untilStory(carol, adapter.TypeUserApiCreated)
		b.userEventsFollow()
		b.inSync()
	})
}

// What Keycloak's events do not say as plainly as they seem to.
func TestTraps(t *testing.T) {
	t.Parallel()
	onBothStores(t, options{settings: cast}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.tap.URL)
		ada := b.create("/users", object{"username": "ada", "enabled": true})
		b.untilStory(ada, adapter.TypeUserApiCreated)

		// An identity provider's link comes as USER CREATE, its end as USER DELETE.
		b.admin(http.MethodPost, "/users/"+ada+"/federated-identity/corp", object{"userId": "4711", "userName": "ada@corp"})
		b.untilStory(ada, adapter.TypeUserApiCreated, adapter.TypeUserApiFederatedIdentityChanged)
		b.admin(http.MethodDelete, "/users/"+ada+"/federated-identity/corp", nil)
		b.untilStory(ada, adapter.TypeUserApiCreated, adapter.TypeUserApiFederatedIdentityChanged, adapter.TypeUserApiFederatedIdentityChanged)
		require.False(t, b.believed(ada).Deleted)
		require.True(t, slices.ContainsFunc(b.tap.seen(), func(d delivery) bool {
			return d.field("type") == "admin.USER-DELETE" && strings.HasSuffix(d.field("resourcePath"), "/federated-identity/corp")
		}), "the trap was set")

		// A partial import creates users as REALM CREATE. Their ids may be no UUIDs.
		legacy := "1212-" + b.realm.Name // ids are unique over all realms
		b.admin(http.MethodPost, "/partialImport", object{"ifResourceExists": "FAIL", "users": []object{
			{"username": "imported", "enabled": true, "email": "imported@example.com"},
			{"id": legacy, "username": "legacy", "enabled": true},
		}})
		b.untilStory(legacy, adapter.TypeUserApiCreated)
		imported := live[[]object](b, "/users?exact=true&username=imported")[0]["id"].(string)
		b.untilStory(imported, adapter.TypeUserApiCreated)
		require.Equal(t, "imported@example.com", *b.believed(imported).Email)
		b.admin(http.MethodPut, "/users/"+legacy, object{"enabled": false})
		b.untilStory(legacy, adapter.TypeUserApiCreated, adapter.TypeUserApiDisabled)
		require.True(t, slices.ContainsFunc(b.tap.seen(), func(d delivery) bool {
			return d.field("type") == "admin.REALM-CREATE" && d.field("resourcePath") == "users/"+legacy
		}), "the trap was set")

		// An unmanaged attribute is in the event and not in the user: believed until it is
		// read, then settled without a word of drift.
		dora := b.create("/users", object{"username": "dora", "enabled": true, "attributes": object{"department": []string{"engines"}}})
		b.untilStory(dora, adapter.TypeUserApiCreated)
		require.Equal(t, map[string][]string{"department": {"engines"}}, b.believed(dora).Attributes)
		require.NotContains(t, live[object](b, "/users/"+dora), "attributes", "the trap was set")
		result, err := b.reconcile()
		require.NoError(t, err)
		require.Empty(t, result.Findings)
		require.Zero(t, b.count(adapter.TypeDriftDetected))
		require.NoError(t, b.app.CatchUp(t.Context()))
		require.Empty(t, b.believed(dora).Attributes)

		// Deliveries that come in the reverse order, and then all of them again.
		b.tap.keepBack()
		eve := b.create("/users", object{"username": "eve", "enabled": true, "firstName": "Eve"})
		b.admin(http.MethodPut, "/users/"+eve, object{"firstName": "Eva"})
		b.admin(http.MethodPut, "/users/"+eve, object{"enabled": false})
		b.admin(http.MethodPut, "/users/"+eve, object{"enabled": true, "lastName": "Moss"})
		b.admin(http.MethodPut, "/users/"+eve, object{"firstName": "Evita"})
		b.admin(http.MethodDelete, "/users/"+imported, nil)
		b.untilOutside("six deliveries kept back", func() bool { return len(b.tap.kept()) >= 6 })
		late := b.tap.letThrough()
		slices.SortFunc(late, func(x, y delivery) int { return -strings.Compare(timeOf(x), timeOf(y)) })
		require.Equal(t, "admin.USER-DELETE", late[0].field("type"), "the last comes first")
		for _, d := range late {
			status, answer := b.deliver(d.body, d.signature)
			require.Equal(t, http.StatusAccepted, status, "%s", answer)
			require.NotContains(t, string(answer), `"duplicate":true`)
		}
		b.until("what came late", func() bool { return len(b.story(eve)) == 5 && len(b.story(imported)) == 2 })
		require.Equal(t, adapter.TypeUserApiCreated, b.story(eve)[0], "told in the order in which it happened")
		then := b.believed(eve)
		require.Equal(t, "Evita", *then.FirstName)
		require.Equal(t, "Moss", *then.LastName)
		require.True(t, then.Enabled)
		require.True(t, b.believed(imported).Deleted, "a creation that comes after its deletion revives nobody")

		// Racing changes: neither their times nor their arrival tell which was the last. What
		// is believed is a guess, which is read, and then held to.
		told := len(b.story(eve))
		const racers = 8
		raced := make(chan error, racers)
		for i := range racers {
			go func() {
				_, err := b.realm.Do(t.Context(), http.MethodPut, "/users/"+eve, object{"lastName": fmt.Sprintf("Moss %d", i)}, nil)
				raced <- err
			}()
		}
		for range racers {
			require.NoError(t, <-raced)
		}
		b.until("the racing changes", func() bool { return len(b.story(eve)) >= told+racers })
		result, err = b.reconcile()
		require.NoError(t, err)
		require.Empty(t, result.Findings)
		require.NoError(t, b.app.CatchUp(t.Context()))
		require.Equal(t, live[object](b, "/users/"+eve)["lastName"], *b.believed(eve).LastName)
		require.False(t, b.believed(eve).Origins[adapter.FieldLastName].Inferred)

		// Meanwhile users whose events left something open are read, which adds events too.
		received := b.count(adapter.TypeAdminEventReceived)
		for _, d := range b.tap.seen() {
			status, answer := b.deliver(d.body, d.signature)
			require.Equal(t, http.StatusAccepted, status, "%s", answer)
			require.Contains(t, string(answer), `"duplicate":true`)
		}
		require.Equal(t, received, b.count(adapter.TypeAdminEventReceived), "seen again, recorded once")
		b.untilAllRecorded()
		b.userEventsFollow()
		b.inSync()
		require.Zero(t, b.count(adapter.TypeDriftDetected, adapter.TypeDeliveryParked))
	})
}

// timeOf is a delivery's time in an order that text has too: milliseconds of one length.
func timeOf(d delivery) string {
	var body struct {
		Time json.Number `json:"time"`
	}
	if json.Unmarshal(d.body, &body) != nil {
		return ""
	}
	return body.Time.String()
}
