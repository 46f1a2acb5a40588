package outbound

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

const failuresTemplate = "/admin/realms/{realm}/attack-detection/brute-force/users/{id}"

// SetRequiredActions replaces what a user has to do at the next login, such as
// UPDATE_PASSWORD; an empty list clears it. Keycloak takes any name, and passes over
// those that it does not know: what is left is told by the read that follows.
func (c *Commands) SetRequiredActions(ctx context.Context, realm string, ref UserRef, actions []string) (Outcome, error) {
	set := adapter.Profile{RequiredActions: adapter.Set(append([]string{}, actions...))}
	return c.update(ctx, intent{command: "user.required_actions", realm: realm, ref: ref}, bodyOf(set), func(context.Context, *recording, keycloak.User) (admin.UserBody, adapter.UserPayload, error) {
		return bodyOf(set), &adapter.UserApiUpdated{UserChange: adapter.UserChange{Set: set, Inferred: set.Droppable(), Via: viaCommand}}, nil
	})
}

// ResetPassword sets a user's password, which is recorded nowhere. A temporary one has
// to be changed at the next login.
func (c *Commands) ResetPassword(ctx context.Context, realm string, ref UserRef, password string, temporary bool) (Outcome, error) {
	if password == "" {
		return Outcome{}, adapter.Errorf(adapter.CodeInvalidRequest, "the new password is empty")
	}
	in := intent{
		command: "user.reset_password", realm: realm, ref: ref, method: http.MethodPut, template: userTemplate + "/reset-password",
		secret: password, body: passwordReset{Type: credentialPassword, Temporary: temporary},
	}
	return c.change(ctx, in, func(_ context.Context, _ *recording, live keycloak.User) (write, error) {
		return write{
			send: func(ctx context.Context) error {
				return c.Keycloak.ResetPassword(ctx, realm, live.ID, admin.Credential{Type: credentialPassword, Value: password, Temporary: temporary})
			},
			success: &adapter.UserApiCredentialsChanged{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Action: "password_reset",
				CredentialType: credentialPassword, Temporary: &temporary,
			},
		}, nil
	})
}

const credentialPassword = "password"

// passwordReset is the body of a reset as the intent records it.
type passwordReset struct {
	Type      string `json:"type"`
	Temporary bool   `json:"temporary"`
}

// SendVerifyEmail makes Keycloak send the user a link to verify the address. Who has
// none is refused with email_missing.
func (c *Commands) SendVerifyEmail(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	in := intent{command: "user.send_verify_email", realm: realm, ref: ref, method: http.MethodPut, template: userTemplate + "/send-verify-email"}
	return c.change(ctx, in, func(_ context.Context, _ *recording, live keycloak.User) (write, error) {
		if live.Email == nil || *live.Email == "" {
			return write{}, adapter.Errorf(adapter.CodeEmailMissing, "user %s has no e-mail address: nothing was sent", live.Username)
		}
		return write{
			send: func(ctx context.Context) error { return c.Keycloak.SendVerifyEmail(ctx, realm, live.ID) },
			success: &adapter.UserApiEmailRequested{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Email: adapter.EmailVerify, Via: viaCommand,
			},
		}, nil
	})
}

// LogoutUser ends all of a user's sessions.
func (c *Commands) LogoutUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	in := intent{command: "user.logout", realm: realm, ref: ref, method: http.MethodPost, template: userTemplate + "/logout"}
	return c.change(ctx, in, func(_ context.Context, _ *recording, live keycloak.User) (write, error) {
		return write{
			send:    func(ctx context.Context) error { return c.Keycloak.LogoutUser(ctx, realm, live.ID) },
			success: &adapter.UserApiSessionsEnded{UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Via: viaCommand},
		}, nil
	})
}

const (
	commandUnlock = "user.unlock"
	commandEnable = "user.enable"
)

// UnlockUser ends a lock-out by brute-force detection. Who is not locked out, and has
// no failed login on record, is refused with not_locked.
//
// A user who is locked out for good is disabled as well: for such a one, enabling is a
// second call of the same action. A user who is disabled for any other reason is left
// disabled.
func (c *Commands) UnlockUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	in := intent{command: commandUnlock, realm: realm, ref: ref, method: http.MethodDelete, template: failuresTemplate}
	var (
		first    *recording
		disabled string // the id of one who has to be enabled, too
	)
	out, err := c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		var failures keycloak.LoginFailures
		err := rec.read(ctx, failuresTemplate, func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
			var err error
			failures, err = c.Keycloak.LoginFailures(ctx, realm, live.ID)
			return err
		})
		if err != nil {
			return write{}, err
		}
		isDisabled := live.Enabled != nil && !*live.Enabled
		if !failures.Disabled && failures.NumFailures == 0 {
			return write{}, refused(adapter.CodeNotLocked, live.ID, isDisabled, "user %s is not locked out: nothing was written", live.Username)
		}
		if failures.Disabled && isDisabled {
			first, disabled = rec, live.ID
		}
		return write{
			send: func(ctx context.Context) error { return c.Keycloak.ClearLoginFailures(ctx, realm, live.ID) },
			success: &adapter.UserApiUpdated{UserChange: adapter.UserChange{
				UserRef: adapter.UserRef{Realm: realm, UserID: live.ID}, Set: adapter.Profile{LockedUntil: adapter.Clear[time.Time]()}, Via: viaCommand,
			}},
		}, nil
	})
	if err != nil || disabled == "" {
		return out, err
	}
	steps := []step{{
		PlanStep: adapter.PlanStep{Command: commandEnable},
		run: func(ctx context.Context, id string, callID uuid.UUID) (Outcome, error) {
			return c.setEnabled(ctx, callID, realm, UserRef{ID: id}, true)
		},
	}}
	out.Steps = c.runSteps(c.within(ctx, first), first, disabled, steps)
	return out, partial(failuresCleared, out)
}
