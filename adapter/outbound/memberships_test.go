package outbound_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

const (
	realmMappings = userPath + "/role-mappings/realm"
	newPassword   = "Tr0ub4dor-canary"
)

// whole is a bundle whose service account may do all that commands need, in a realm
// with everything that a user can be given.
type whole struct {
	*bundle
	bob                 string
	group, organization string
	app                 string // the UUID of the client "app", which has the role approver
	token               string // of an administrator who is not keytrail
}

func setupWhole(t *testing.T) *whole {
	t.Helper()
	w := &whole{bundle: setup(t, "view-realm", "view-clients", "manage-organizations", "view-organizations")}
	w.bob = w.create("bob")
	w.realm.AddRole("auditor")
	w.realm.AddRole("clerk")
	w.group = w.realm.AddGroup("staff")
	w.app, _ = w.realm.AddClient("app", "app-secret")
	w.realm.AddClient("other", "other-secret", "realm-admin")
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"other"}, "client_secret": {"other-secret"}}
	_, body := w.send(http.MethodPost, "/realms/acme/protocol/openid-connect/token", "application/x-www-form-urlencoded", form.Encode())
	var token struct {
		AccessToken string `json:"access_token"`
	}
	require.NoError(t, json.Unmarshal(body, &token))
	w.token = token.AccessToken
	w.admin(http.MethodPost, "/clients/"+w.app+"/roles", `{"name":"approver"}`)
	at := w.admin(http.MethodPost, "/organizations", `{"name":"Blue","alias":"blue","domains":[{"name":"blue.example"}]}`)
	w.organization = at[strings.LastIndex(at, "/")+1:]
	return w
}

func (w *whole) send(method, path, contentType, body string) (location string, answer []byte) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.keycloak.URL()+path, strings.NewReader(body))
	require.NoError(w.t, err)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Close = true
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	require.Less(w.t, resp.StatusCode, 300, "%s %s: %s", method, path, answer)
	return resp.Header.Get("Location"), answer
}

// admin does something as an administrator who is not keytrail, and returns the
// Location.
func (w *whole) admin(method, path, body string) string {
	w.t.Helper()
	location, _ := w.send(method, "/admin/realms/acme"+path, "application/json", body)
	return location
}

func (w *whole) user() adapter.User {
	w.t.Helper()
	u, ok := adapter.FoldUser(w.events(adapter.UserStream("acme", w.bob)))
	require.True(w.t, ok)
	return u
}

// situation is one command in both directions.
type situation struct {
	name string
	// do gives or sets, undo takes; again is the code of a second do, and gone of a second
	// undo.
	do, undo func(w *whole, ref outbound.UserRef) (outbound.Outcome, error)
	again    adapter.Code
	gone     adapter.Code
	// told are the events of do and undo on the user's stream.
	told      [2]string
	matchedBy string
	holds     func(t *testing.T, w *whole, given bool)
}

func situations() []situation {
	return []situation{
		{
			name: "realm role",
			do: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.AddRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "auditor"})
			},
			undo: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.RemoveRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "auditor"})
			},
			again: adapter.CodeAlreadyHasRole, gone: adapter.CodeRoleNotHeld, matchedBy: "stamp",
			told: [2]string{adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged},
			holds: func(t *testing.T, w *whole, given bool) {
				user, _ := w.realm.User(w.bob)
				require.Equal(t, given, strings.Contains(strings.Join(user.RealmRoles, " "), "auditor"))
				require.Equal(t, given, len(w.user().Roles) == 1)
			},
		},
		{
			name: "client role",
			do: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.AddRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "approver", Client: "app"})
			},
			undo: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.RemoveRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "approver", Client: w.app})
			},
			again: adapter.CodeAlreadyHasRole, gone: adapter.CodeRoleNotHeld, matchedBy: "stamp",
			told: [2]string{adapter.TypeUserApiRolesChanged, adapter.TypeUserApiRolesChanged},
			holds: func(t *testing.T, w *whole, given bool) {
				user, _ := w.realm.User(w.bob)
				require.Equal(t, given, len(user.ClientRoles["app"]) == 1)
				require.Equal(t, given, len(w.user().ClientRoles) == 1)
			},
		},
		{
			name: "group",
			do: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.JoinGroup(w.ctx, "acme", ref, w.group)
			},
			undo: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.LeaveGroup(w.ctx, "acme", ref, w.group)
			},
			again: adapter.CodeAlreadyMember, gone: adapter.CodeNotMember, matchedBy: "path",
			told: [2]string{adapter.TypeUserApiGroupsChanged, adapter.TypeUserApiGroupsChanged},
			holds: func(t *testing.T, w *whole, given bool) {
				user, _ := w.realm.User(w.bob)
				require.Equal(t, given, len(user.Groups) == 1)
				require.Equal(t, given, len(w.user().Groups) == 1)
			},
		},
		{
			name: "organization",
			do: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.JoinOrganization(w.ctx, "acme", ref, w.organization)
			},
			undo: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.LeaveOrganization(w.ctx, "acme", ref, w.organization)
			},
			again: adapter.CodeAlreadyMember, gone: adapter.CodeNotMember, matchedBy: "path",
			told: [2]string{adapter.TypeUserApiOrganizationsChanged, adapter.TypeUserApiOrganizationsChanged},
			holds: func(t *testing.T, w *whole, given bool) {
				var want []adapter.Organization
				if given {
					want = []adapter.Organization{{ID: w.organization, Alias: "blue"}}
				}
				require.Equal(t, want, w.user().Organizations)
			},
		},
		{
			name: "password",
			do: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.ResetPassword(w.ctx, "acme", ref, newPassword, true)
			},
			undo: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.ResetPassword(w.ctx, "acme", ref, newPassword, false)
			},
			matchedBy: "path",
			told:      [2]string{adapter.TypeUserApiCredentialsChanged, adapter.TypeUserApiCredentialsChanged},
			holds: func(t *testing.T, w *whole, given bool) {
				user, _ := w.realm.User(w.bob)
				require.Equal(t, given, len(user.RequiredActions) == 1)
				require.Equal(t, given, len(w.user().RequiredActions) == 1)
			},
		},
		{
			name: "required actions",
			do: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.SetRequiredActions(w.ctx, "acme", ref, []string{"VERIFY_EMAIL"})
			},
			undo: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.SetRequiredActions(w.ctx, "acme", ref, nil)
			},
			matchedBy: "stamp", told: [2]string{adapter.TypeUserApiUpdated, adapter.TypeUserApiUpdated},
			holds: func(t *testing.T, w *whole, given bool) {
				user, _ := w.realm.User(w.bob)
				require.Equal(t, given, len(user.RequiredActions) == 1)
				require.Equal(t, given, len(w.user().RequiredActions) == 1)
			},
		},
		{
			name: "logout",
			do: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				return w.commands.LogoutUser(w.ctx, "acme", ref)
			},
			undo: func(w *whole, ref outbound.UserRef) (outbound.Outcome, error) {
				w.realm.SetLoginFailures(w.bob, 3)
				return w.commands.UnlockUser(w.ctx, "acme", ref)
			},
			gone: "", matchedBy: "path", told: [2]string{adapter.TypeUserApiSessionsEnded, adapter.TypeUserApiUpdated},
			holds: func(t *testing.T, w *whole, given bool) {},
		},
	}
}

// Each command is recorded from its intent to its echo, whether its user is given by id
// or by name: one user event, and none from the echo.
func TestEveryCommandIsRecordedFromIntentToEcho(t *testing.T) {
	t.Parallel()
	for _, s := range situations() {
		for _, by := range []string{"id", "name"} {
			t.Run(s.name+" by "+by, func(t *testing.T) {
				t.Parallel()
				w := setupWhole(t)
				ref := outbound.UserRef{ID: w.bob}
				if by == "name" {
					ref = outbound.UserRef{Username: "BOB"}
				}
				w.pull()
				for n, run := range []func(*whole, outbound.UserRef) (outbound.Outcome, error){s.do, s.undo} {
					before := len(w.events(adapter.UserStream("acme", w.bob)))
					out, err := run(w, ref)
					require.NoError(t, err)
					require.Equal(t, adapter.CallSucceeded, out.Status)
					require.Equal(t, w.bob, out.UserID)
					s.holds(t, w, n == 0)
					events := w.events(adapter.UserStream("acme", w.bob))
					require.Len(t, events, before+1)
					told := events[before]
					require.Equal(t, s.told[n], told.Type)
					require.Equal(t, "alice", told.Meta.Actor.ID)
					require.Equal(t, "left the company", told.Meta.Reason)
					require.Equal(t, out.CallID, *told.Meta.CallID)
					call := w.events(adapter.CallStream(out.CallID))
					require.Equal(t, adapter.TypeApiCallRequested, call[0].Type)
					require.Equal(t, adapter.TypeApiCallSucceeded, call[len(call)-1].Type)
					require.Equal(t, call[len(call)-1].ID, told.CausationID)

					w.pull()
					w.pull()
					require.Len(t, w.events(adapter.UserStream("acme", w.bob)), before+1, "an echo is no second user event")
					c := w.call(out.CallID)
					require.NotNil(t, c.Echo)
					require.Equal(t, s.matchedBy, c.Echo.MatchedBy)
					require.Len(t, c.Attempts, 1)
					require.Equal(t, w.bob, c.UserID)

					code := s.again
					if n == 1 {
						code = s.gone
					}
					if code == "" {
						continue
					}
					before = len(w.keycloak.RequestLog())
					out, err = run(w, ref)
					require.Equal(t, code, adapter.CodeOf(err))
					require.Equal(t, adapter.CallSkipped, out.Status)
					for _, r := range w.keycloak.RequestLog()[before:] {
						require.Equal(t, http.MethodGet, r.Method, "a refused command makes no write")
					}
				}
			})
		}
	}
}

// An answer that is lost leaves the outcome unknown until the echo proves it.
func TestTheEchoOfEveryCommandSettlesALostAnswer(t *testing.T) {
	t.Parallel()
	for _, s := range situations() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := setupWhole(t)
			w.pull()
			for n, run := range []func(*whole, outbound.UserRef) (outbound.Outcome, error){s.do, s.undo} {
				before := len(w.events(adapter.UserStream("acme", w.bob)))
				for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodDelete} {
					defer w.keycloak.Inject(keycloaktest.Fault{Method: method, Pattern: "/admin/**", DropAfter: true, Times: 1})()
				}
				out, err := run(w, outbound.UserRef{ID: w.bob})
				require.Equal(t, adapter.CodeOutcomeUnknown, adapter.CodeOf(err))
				require.Len(t, w.events(adapter.UserStream("acme", w.bob)), before)
				w.pull()
				c := w.call(out.CallID)
				require.Equal(t, adapter.CallSucceeded, c.Status)
				require.Equal(t, "echo", c.ResolvedBy)
				events := w.events(adapter.UserStream("acme", w.bob))
				require.Len(t, events, before+1)
				require.Equal(t, s.told[n], events[before].Type)
				require.Equal(t, "alice", events[before].Meta.Actor.ID, "told with the command's actor")
				s.holds(t, w, n == 0)
			}
		})
	}
}

// Somebody else who does the same at the same time is told as that: a path is no proof.
func TestWhatOthersDoAtTheSamePathIsTheirs(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	w.pull()
	_, err := w.commands.ResetPassword(w.ctx, "acme", outbound.UserRef{ID: w.bob}, newPassword, false)
	require.NoError(t, err)
	w.admin(http.MethodPut, "/users/"+w.bob+"/reset-password", `{"type":"password","value":"another one"}`)
	_, err = w.commands.ResetPassword(w.ctx, "acme", outbound.UserRef{ID: w.bob}, newPassword, false)
	require.NoError(t, err)
	w.pull()
	var told []string
	for _, e := range w.events(adapter.UserStream("acme", w.bob)) {
		if e.Type == adapter.TypeUserApiCredentialsChanged {
			told = append(told, e.Meta.Actor.ID)
		}
	}
	require.Len(t, told, 3, "ours twice, theirs once")
	require.Len(t, w.log(adapter.TypeApiCallEchoed), 3, "the creation and both resets")
	other, _ := w.realm.UserByName("service-account-other")
	require.Contains(t, told, other.ID)
}

func TestWhatDoesNotExistIsNamed(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	ref := outbound.UserRef{ID: w.bob}
	for code, run := range map[adapter.Code]func() (outbound.Outcome, error){
		adapter.CodeRoleNotFound: func() (outbound.Outcome, error) {
			return w.commands.AddRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "nobody"})
		},
		adapter.CodeClientNotFound: func() (outbound.Outcome, error) {
			return w.commands.AddRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "x", Client: "nothing"})
		},
		adapter.CodeGroupNotFound: func() (outbound.Outcome, error) {
			return w.commands.JoinGroup(w.ctx, "acme", ref, uuid.NewString())
		},
		adapter.CodeOrganizationNotFound: func() (outbound.Outcome, error) {
			return w.commands.JoinOrganization(w.ctx, "acme", ref, uuid.NewString())
		},
		adapter.CodeUserNotFound: func() (outbound.Outcome, error) {
			return w.commands.LogoutUser(w.ctx, "acme", outbound.UserRef{ID: uuid.NewString()})
		},
		adapter.CodeNotLocked: func() (outbound.Outcome, error) { return w.commands.UnlockUser(w.ctx, "acme", ref) },
	} {
		out, err := run()
		require.Equal(t, code, adapter.CodeOf(err), "%v", err)
		require.Equal(t, adapter.CallSkipped, out.Status, code)
		require.Equal(t, adapter.CallSkipped, w.call(out.CallID).Status)
	}
}

// Keycloak passes over a required action that it does not know: what was asked for is
// believed until it is read back, however the change came to be told.
func TestAnUnknownRequiredActionIsReadBack(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"answered": false, "told by the echo": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setupWhole(t)
			w.pull()
			if lost {
				w.keycloak.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: userPath, DropAfter: true, Times: 1})
			}
			_, err := w.commands.SetRequiredActions(w.ctx, "acme", outbound.UserRef{ID: w.bob}, []string{"NOPE_ACTION", "VERIFY_EMAIL"})
			require.Equal(t, lost, err != nil)
			w.pull()
			believed := w.user()
			require.True(t, believed.Origins[adapter.FieldRequiredActions].Inferred)
			require.NotNil(t, believed.Unread)
			_, err = w.commands.ObserveUser(w.ctx, adapter.UserRef{Realm: "acme", UserID: w.bob}, believed.Unread.Because)
			require.NoError(t, err)
			believed = w.user()
			require.Equal(t, []string{"VERIFY_EMAIL"}, believed.RequiredActions)
			require.Nil(t, believed.Unread)
		})
	}
}

// One plain sentence says what does not exist: no address, and nothing twice.
func TestWhatDoesNotExistIsSaidOnce(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	ref, nobody := outbound.UserRef{ID: w.bob}, uuid.NewString()
	for want, run := range map[string]func() (outbound.Outcome, error){
		"there is no role nobody in realm acme": func() (outbound.Outcome, error) {
			return w.commands.AddRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "nobody"})
		},
		"there is no role nobody of client app in realm acme": func() (outbound.Outcome, error) {
			return w.commands.AddRole(w.ctx, "acme", ref, outbound.RoleRef{Name: "nobody", Client: "app"})
		},
		"there is no organization " + nobody + " in realm acme, or organizations are switched off there": func() (outbound.Outcome, error) {
			return w.commands.JoinOrganization(w.ctx, "acme", ref, nobody)
		},
	} {
		out, err := run()
		require.EqualError(t, err, want)
		require.Equal(t, want, w.call(out.CallID).Error)
	}
}

// A read tells whether there was what it looked for, also where its absence is no error.
func TestAMembershipThatWasNotFoundIsRecordedSo(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	found := func(run func(context.Context, string, outbound.UserRef, string) (outbound.Outcome, error)) []bool {
		out, err := run(w.ctx, "acme", outbound.UserRef{ID: w.bob}, w.organization)
		require.NoError(t, err)
		var all []bool
		for _, read := range w.call(out.CallID).PreconditionReads {
			all = append(all, *read.Found)
		}
		return all
	}
	require.Equal(t, []bool{true, true, false}, found(w.commands.JoinOrganization), "user, organization, membership")
	require.Equal(t, []bool{true, true, true}, found(w.commands.LeaveOrganization))
}

func TestAMissingRoleOfTheServiceAccountIsNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.create("bob")
	b.realm.AddRole("auditor")
	out, err := b.commands.AddRole(b.ctx, "acme", outbound.UserRef{ID: bob}, outbound.RoleRef{Name: "auditor"})
	require.Equal(t, adapter.CodeKeycloakForbidden, adapter.CodeOf(err))
	require.ErrorContains(t, err, "view-realm")
	require.Equal(t, adapter.CallFailed, out.Status)
}

// A lock-out for good disables the user: unlocking enables, in a call of its own.
func TestUnlockingALockOutForGoodEnables(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	w.keycloak.Inject(keycloaktest.Fault{
		Method: http.MethodGet, Pattern: "/admin/realms/acme/attack-detection/**", Times: 1, Status: http.StatusOK, Body: `{"numFailures":9,"disabled":true}`,
	})
	w.realm.BehindOurBack(func(users map[string]*keycloaktest.User) { users[w.bob].Enabled = false })
	out, err := w.commands.UnlockUser(w.ctx, "acme", outbound.UserRef{ID: w.bob})
	require.NoError(t, err)
	require.Len(t, out.Steps, 1)
	require.Equal(t, adapter.CallSucceeded, out.Steps[0].Status)
	user, _ := w.realm.User(w.bob)
	require.True(t, user.Enabled)
	require.Equal(t, out.CorrelationID, w.call(out.Steps[0].CallID).CorrelationID)
}

func TestAnEmailThatCannotBeSentIsAFailure(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	out, err := w.commands.SendVerifyEmail(w.ctx, "acme", outbound.UserRef{ID: w.bob})
	require.Equal(t, adapter.CodeKeycloakMailFault, adapter.CodeOf(err))
	require.Equal(t, adapter.CallFailed, out.Status)
	c := w.call(out.CallID)
	require.Equal(t, "Failed to send verify email", c.Keycloak)

	w.keycloak.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: "**/send-verify-email", Times: 1, Status: http.StatusNoContent})
	_, err = w.commands.SendVerifyEmail(w.ctx, "acme", outbound.UserRef{ID: w.bob})
	require.NoError(t, err)
	types := w.types(adapter.UserStream("acme", w.bob))
	require.Equal(t, adapter.TypeUserApiEmailRequested, types[len(types)-1])

	w.realm.BehindOurBack(func(users map[string]*keycloaktest.User) { users[w.bob].Enabled = false })
	_, err = w.commands.SendVerifyEmail(w.ctx, "acme", outbound.UserRef{ID: w.bob})
	require.Equal(t, adapter.CodeUserDisabled, adapter.CodeOf(err))

	w.realm.BehindOurBack(func(users map[string]*keycloaktest.User) { users[w.bob].Email = "" })
	_, err = w.commands.SendVerifyEmail(w.ctx, "acme", outbound.UserRef{ID: w.bob})
	require.Equal(t, adapter.CodeEmailMissing, adapter.CodeOf(err))
}

// Removing a member whom the organization brought would delete the user.
func TestAManagedMemberIsNotRemoved(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	_, err := w.commands.JoinOrganization(w.ctx, "acme", outbound.UserRef{ID: w.bob}, w.organization)
	require.NoError(t, err)
	w.keycloak.Inject(keycloaktest.Fault{
		Method: http.MethodGet, Pattern: "/admin/realms/acme/organizations/*/members/*", Times: 1, Status: http.StatusOK,
		Body: `{"id":"` + w.bob + `","username":"bob","membershipType":"MANAGED"}`,
	})
	_, err = w.commands.LeaveOrganization(w.ctx, "acme", outbound.UserRef{ID: w.bob}, w.organization)
	require.Equal(t, adapter.CodeManagedMember, adapter.CodeOf(err))
	require.Zero(t, w.keycloak.Requests(http.MethodDelete, "**/members/*"))
}

// What Keycloak says about a password may hold it; what is recorded does not.
func TestAPasswordIsInNoEvent(t *testing.T) {
	t.Parallel()
	w := setupWhole(t)
	ref := outbound.UserRef{ID: w.bob}
	_, err := w.commands.ResetPassword(w.ctx, "acme", ref, newPassword, true)
	require.NoError(t, err)
	w.keycloak.Inject(keycloaktest.Fault{
		Method: http.MethodPut, Pattern: "**/reset-password", Times: 1, Status: http.StatusBadRequest,
		Body: `{"errorMessage":"nobody likes ` + newPassword + ` here"}`,
	})
	_, err = w.commands.ResetPassword(w.ctx, "acme", ref, newPassword, true)
	require.Equal(t, adapter.CodeKeycloakInvalid, adapter.CodeOf(err))
	require.NotContains(t, err.Error(), newPassword)
	w.keycloak.Inject(keycloaktest.Fault{
		Method: http.MethodPut, Pattern: "**/reset-password", Times: 1, Status: http.StatusBadRequest,
		Body: `{"error":"invalidPasswordMinLengthMessage","error_description":"Invalid password: minimum length 99."}`,
	})
	_, err = w.commands.ResetPassword(w.ctx, "acme", ref, newPassword, true)
	require.Equal(t, adapter.CodePasswordRejected, adapter.CodeOf(err))
	require.ErrorContains(t, err, "too short")
	w.pull()
	for e, err := range w.store.ReadLog(t.Context(), eventstore.LogQuery{}) {
		require.NoError(t, err)
		require.NotContains(t, string(e.Data)+string(e.Metadata), "canary", e.Type)
	}
}
