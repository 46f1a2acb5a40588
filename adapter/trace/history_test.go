package trace

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// What events left open is said of the user, and of the field.
func TestUserInDoubt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stream := adapter.UserStream(realm, bobID)
	for i, name := range []string{"Bob", "Robert"} {
		w.record(fact{id: name, stream: stream, story: name, ms: i * 500, actor: admin, payload: &adapter.UserApiUpdated{
			UserChange: adapter.UserChange{UserRef: bob, Set: adapter.Profile{FirstName: adapter.Set(name)}},
		}})
	}
	u, ok := adapter.FoldUser(w.user(bob))
	require.True(t, ok)
	var b bytes.Buffer
	require.NoError(t, WriteUser(&b, u, Options{Width: 110}))
	golden(t, "user_in_doubt.txt", b.Bytes())
	view := u.View().Unread
	require.NotNil(t, view)
	require.Equal(t, u.Unread.Because, view.Because)
	require.Equal(t, u.Unread.Since.UTC(), view.Since)

	w.record(fact{id: "read", stream: stream, story: "read", ms: 5000, payload: &adapter.UserApiObserved{
		UserRef: bob, Present: true, Complete: true, Set: adapter.Profile{FirstName: adapter.Set("Robert")},
	}})
	u, ok = adapter.FoldUser(w.user(bob))
	require.True(t, ok)
	b.Reset()
	require.NoError(t, WriteUser(&b, u, Options{}))
	require.NotContains(t, b.String(), "read back")
	require.NotContains(t, b.String(), "in doubt")
	require.Nil(t, u.View().Unread)
}

func (w *world) user(ref adapter.UserRef) []adapter.Decoded {
	w.t.Helper()
	events, err := collect(w.store.ReadStream(w.t.Context(), adapter.UserStream(ref.Realm, ref.UserID), eventstore.StreamQuery{}))
	require.NoError(w.t, err)
	decoded, err := w.finder().decodeAll(w.t.Context(), events)
	require.NoError(w.t, err)
	return decoded
}

// aLife gives bob a history with everything that may happen to a user.
func (w *world) aLife() {
	w.t.Helper()
	w.created()
	stream := adapter.UserStream(realm, bobID)
	add := func(name string, ms, lag int, actor *adapter.Actor, p adapter.Payload) {
		w.record(fact{id: name, stream: stream, story: name + " story", ms: ms, lag: lag, actor: actor, source: "poll", payload: p})
	}
	add("roles", -3_000_000, 300, admin, &adapter.UserApiRolesChanged{
		UserRef: bob, Added: []adapter.Role{{Name: "auditor"}, {Name: "manage-users", Client: "realm-management"}}, Removed: []adapter.Role{{Name: "guest"}},
	})
	add("groups", -2_900_000, 90_000, admin, &adapter.UserApiGroupsChanged{UserRef: bob, Joined: []adapter.Group{{Path: "/staff/eu"}}, Left: []adapter.Group{{Path: "/staff"}}})
	add("password", -2_800_000, 100, admin, &adapter.UserApiCredentialsChanged{UserRef: bob, Action: "password_reset", CredentialType: "password"})
	add("linked", -2_700_000, 100, nil, &adapter.UserApiFederatedIdentityChanged{UserRef: bob, Provider: "github", Linked: true})
	add("profile", -2_600_000, 100, &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: bobID, Username: "bob"}, &adapter.UserApiUpdated{UserChange: adapter.UserChange{
		UserRef: bob, Via: "account", Set: adapter.Profile{FirstName: adapter.Set("Bob"), Email: adapter.Clear[string]()},
	}})
	add("read", -2_500_000, 100, nil, &adapter.UserApiObserved{UserRef: bob, Present: true, Because: "two changes came within 2 s", Set: adapter.Profile{Email: adapter.Set("bob@example.org")}})
	w.disabled()
}

func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.aLife()
	entries := adapter.UserHistory(w.user(bob))
	var b bytes.Buffer
	require.NoError(t, WriteHistory(&b, entries, Options{Width: 110}))
	golden(t, "history.txt", b.Bytes())

	var none strings.Builder
	require.NoError(t, WriteHistory(&none, nil, Options{}))
	require.Equal(t, "Nothing is known of this user.\n", none.String())
}

func TestUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.aLife()
	u, ok := adapter.FoldUser(w.user(bob))
	require.True(t, ok)
	var b bytes.Buffer
	require.NoError(t, WriteUser(&b, u, Options{Width: 110}))
	golden(t, "user_state.txt", b.Bytes())

	before, ok := adapter.UserAsOf(w.user(bob), at(-2_950_000), time.Time{})
	require.True(t, ok)
	b.Reset()
	require.NoError(t, WriteUser(&b, before, Options{}))
	require.Contains(t, b.String(), "bob in acme: enabled\n")

	w.record(fact{id: "only role", stream: adapter.UserStream(realm, carolID), story: "x", ms: 5, payload: &adapter.UserApiRolesChanged{
		UserRef: adapter.UserRef{Realm: realm, UserID: carolID}, Added: []adapter.Role{{Name: "auditor"}},
	}})
	little, ok := adapter.FoldUser(w.user(adapter.UserRef{Realm: realm, UserID: carolID}))
	require.True(t, ok)
	b.Reset()
	require.NoError(t, WriteUser(&b, little, Options{}))
	golden(t, "user_little_known.txt", b.Bytes())
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	yes := true
	receipt := adapter.Receipt{Source: "keycloak"}
	change := adapter.UserChange{UserRef: bob}
	for _, c := range []struct {
		want string
		data any
	}{
		{"Keycloak reported USER ACTION of users/1/logout by admin, pushed", &adapter.AdminEventReceived{ResourceType: "USER", OperationType: "ACTION", ResourcePath: "users/1/logout", Actor: *admin, Receipt: receipt}},
		{"Keycloak reported REALM UPDATE, which failed there: no, pulled", &adapter.AdminEventReceived{ResourceType: "REALM", OperationType: "UPDATE", Error: "no", Receipt: adapter.Receipt{Source: "poll"}}},
		{"Keycloak reported LOGIN_ERROR of bob at client shop: invalid_user_credentials, pushed to legacy", &adapter.UserEventReceived{Type: "LOGIN_ERROR", ClientID: "shop", Error: "invalid_user_credentials", Details: map[string]string{"username": "bob"}, Receipt: adapter.Receipt{Source: "legacy"}}},
		{"Keycloak reported LOGOUT of the user", &adapter.UserEventReceived{Type: "LOGOUT", UserID: bobID}},
		{"received a JSON object that no dialect knows and kept it; it has a, b, pushed", &adapter.UnrecognizedEventReceived{Members: []string{"a", "b"}, Receipt: receipt}},
		{"the same event was seen again, pulled; that adds error; the two differ in time", &adapter.DeliveryConfirmed{Receipt: adapter.Receipt{Source: "poll"}, Added: map[string]json.RawMessage{"error": nil}, Differs: []string{"time"}}},
		{"parked, since it could not be interpreted: odd", &adapter.DeliveryParked{Error: "odd", Attempts: 1}},
		{"bob was created by registering: enabled = yes", &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: bob, Via: "registration", Set: adapter.Profile{Username: adapter.Set("Bob"), Enabled: adapter.Set(true)}}}},
		{"the user was changed in the account console: email = none", &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: bob, Via: "account", Set: adapter.Profile{Email: adapter.Clear[string]()}}}},
		{"the user was enabled", &adapter.UserApiEnabled{UserChange: change}},
		{"the user was disabled by the brute-force detection; also email_verified = no", &adapter.UserApiDisabled{UserChange: adapter.UserChange{UserRef: bob, Via: "lockout", Set: adapter.Profile{Enabled: adapter.Set(false), EmailVerified: adapter.Set(false)}}}},
		{"the user was deleted", &adapter.UserApiDeleted{UserRef: bob}},
		{"the user was given the roles a, b and c, lost the role d of client shop", &adapter.UserApiRolesChanged{UserRef: bob, Added: []adapter.Role{{Name: "a"}, {Name: "b"}, {ID: "c"}}, Removed: []adapter.Role{{Name: "d", Client: "shop"}}}},
		{"the user joined the group /a, left the group g2", &adapter.UserApiGroupsChanged{UserRef: bob, Joined: []adapter.Group{{Path: "/a"}}, Left: []adapter.Group{{ID: "g2"}}}},
		{"the password of the user was reset", &adapter.UserApiCredentialsChanged{UserRef: bob, Action: "password_reset"}},
		{"the user set a new password", &adapter.UserApiCredentialsChanged{UserRef: bob, Action: "password_updated"}},
		{"a credential of the user was removed: otp", &adapter.UserApiCredentialsChanged{UserRef: bob, Action: "credential_removed", CredentialType: "otp"}},
		{"the user was unlinked from the identity provider github", &adapter.UserApiFederatedIdentityChanged{UserRef: bob, Provider: "github"}},
		{"the user was looked for in Keycloak, because a stamp was forged: does not exist", &adapter.UserApiObserved{UserRef: bob, Because: "a stamp was forged"}},
		{"bob was adopted as found in Keycloak", &adapter.UserApiBaselined{UserRef: bob, Set: adapter.Profile{Username: adapter.Set("bob")}}},
		{"user.delete of 1 in acme requested: DELETE /x", &adapter.ApiCallRequested{Command: "user.delete", UserID: "1", Realm: realm, Method: "DELETE", URLTemplate: "/x"}},
		{"user.create of bob in acme requested: POST /x; then user.role.add auditor, user.organization.add 7", &adapter.ApiCallRequested{
			Command: "user.create", Username: "bob", Realm: realm, Method: "POST", URLTemplate: "/x", Plan: []string{"user.role.add auditor", "user.organization.add 7"},
		}},
		{"the user joined the organization blue, left the organization o2", &adapter.UserApiOrganizationsChanged{
			UserRef: bob, Joined: []adapter.Organization{{ID: "o1", Alias: "blue"}}, Left: []adapter.Organization{{ID: "o2"}},
		}},
		{"all sessions of the user were ended", &adapter.UserApiSessionsEnded{UserRef: bob}},
		{"the user was sent an e-mail to verify the address", &adapter.UserApiEmailRequested{UserRef: bob, Email: adapter.EmailVerify}},
		{"the password of the user was reset, to be changed at the next login", &adapter.UserApiCredentialsChanged{UserRef: bob, Action: "password_reset", Temporary: &yes}},
		{"the user was given the role clerk of client shop", &adapter.UserApiRolesChanged{UserRef: bob, Added: []adapter.Role{{Name: "clerk", Client: "c1", ClientID: "shop"}}}},
		{"looked first: the role does not exist", &adapter.ApiCallPreconditionRead{URLTemplate: "/admin/realms/{realm}/roles/{name}", Found: new(bool)}},
		{"looked first at /admin/realms/{realm}/users/{id}/groups", &adapter.ApiCallPreconditionRead{URLTemplate: "/admin/realms/{realm}/users/{id}/groups", Found: &yes}},
		{"looked first: the user does not exist", &adapter.ApiCallPreconditionRead{Found: new(bool)}},
		{"looked first, but could not tell how the user is (GET, 503 after 2 ms, second attempt)", &adapter.ApiCallPreconditionRead{Method: "GET", Attempts: []adapter.Attempt{{}, {StatusCode: 503, DurationMS: 2, Sent: true}}}},
		{"looked first: the user exists and is enabled", &adapter.ApiCallPreconditionRead{Found: &yes, Enabled: &yes}},
		{"attempt 2: no answer after 3.0 s: reset by peer", &adapter.ApiCallAttempted{Attempt: adapter.Attempt{Attempt: 2, DurationMS: 3000, Error: "reset by peer", Kind: "reset", Sent: true}}},
		{"succeeded after 12 ms", &adapter.ApiCallSucceeded{Attempts: 1, DurationMS: 12, UserID: "1"}},
		{"succeeded after all: Keycloak's own event proves that it was done; late", &adapter.ApiCallSucceeded{ResolvedBy: "echo", Note: "late"}},
		{`failed at the third attempt after 2.0 s: refused; Keycloak says "no"`, &adapter.ApiCallFailed{Attempts: 3, DurationMS: 2000, CallError: adapter.CallError{Message: "refused", Keycloak: "no"}}},
		{"failed: keycloak says no", &adapter.ApiCallFailed{CallError: adapter.CallError{Message: "keycloak says no", Keycloak: "no"}}},
		{"refused, and nothing was written: already_enabled", &adapter.ApiCallSkipped{CallError: adapter.CallError{Code: adapter.CodeAlreadyEnabled}}},
		{"outcome unknown: lost", &adapter.ApiCallOutcomeUnknown{Attempts: 1, CallError: adapter.CallError{Message: "lost"}}},
		{"that is the echo of this call, known by user, operation and time", &adapter.ApiCallEchoed{Echo: adapter.Echo{MatchedBy: "delete"}}},
		{"that is the echo of this call, known by address, operation, actor and time", &adapter.ApiCallEchoed{Echo: adapter.Echo{MatchedBy: "path"}}},
		{"reconciliation of acme began (cli)", &adapter.ReconciliationStarted{Realm: realm, Trigger: "cli"}},
		{"drift has changed: bob exists in Keycloak and no event told of it", &adapter.DriftDetected{Username: "bob", Phase: adapter.DriftAltered, Situation: adapter.SituationUnexpectedLive}},
		{"drift is over: bob is as believed again", &adapter.DriftDetected{Username: "bob", Phase: adapter.DriftEnded}},
		{"compared 1 user: 0 in sync, 1 never heard of", &adapter.ReconciliationCompleted{Compared: 1, Findings: map[adapter.Situation]int{adapter.SituationUnexpectedLive: 1}}},
		{"the run was aborted and judges nothing: interrupted", &adapter.ReconciliationAborted{Status: "aborted", Code: adapter.CodeInterrupted}},
		{"an event of the type X, which this program cannot read", json.RawMessage(`{}`)},
		{"an event of the type X, which this program cannot read", nil},
	} {
		require.Equal(t, c.want, Describe(adapter.View{EventType: "X", Data: c.data}))
	}

	forgotten := Describe(adapter.View{Data: &adapter.UserApiUpdated{UserChange: change}, Forgotten: []string{"actor", "set", "set"}})
	require.Equal(t, "the user was changed (forgotten: set)", forgotten)

	hostile := Describe(adapter.View{Data: &adapter.DeliveryParked{Error: "a\x1b[2J\nb\u202ec\u009bd" + strings.Repeat("x", 10_000)}})
	require.NotContains(t, hostile, "\x1b")
	require.NotContains(t, hostile, "\n")
	require.NotContains(t, hostile, "\u202e")
	require.NotContains(t, hostile, "\u009b")
	require.Less(t, len(hostile), 1000)
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "<1 ms", 1500 * time.Microsecond: "2 ms", 99 * time.Millisecond: "99 ms", 430 * time.Millisecond: "0.4 s",
		9_949 * time.Millisecond: "9.9 s", 9_960 * time.Millisecond: "10 s", 59_900 * time.Millisecond: "1 min", 61 * time.Second: "1 min 1 s",
		time.Hour: "1 h", 25 * time.Hour: "1 d 1 h", -2 * time.Second: "2.0 s",
	} {
		require.Equal(t, want, span(d), d)
	}
	require.Equal(t, "+1m02s", since(start, at(62_500)))
	require.Equal(t, "-0.250s", since(start, at(-250)))
	require.Equal(t, "+2h05m", since(start, start.Add(125*time.Minute)))
	require.Equal(t, "+3d04h", since(start, start.Add(76*time.Hour)))
	require.Equal(t, []string{"22nd", "13th", "third", "101st"}, []string{ordinal(22), ordinal(13), ordinal(3), ordinal(101)})
}
