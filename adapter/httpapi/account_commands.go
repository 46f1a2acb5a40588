package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
)

// AccountCommands gives and takes what a user has, and acts on the account.
// *outbound.Commands is one.
type AccountCommands interface {
	AddRole(ctx context.Context, realm string, ref outbound.UserRef, role outbound.RoleRef) (outbound.Outcome, error)
	RemoveRole(ctx context.Context, realm string, ref outbound.UserRef, role outbound.RoleRef) (outbound.Outcome, error)
	JoinGroup(ctx context.Context, realm string, ref outbound.UserRef, group string) (outbound.Outcome, error)
	LeaveGroup(ctx context.Context, realm string, ref outbound.UserRef, group string) (outbound.Outcome, error)
	JoinOrganization(ctx context.Context, realm string, ref outbound.UserRef, organization string) (outbound.Outcome, error)
	LeaveOrganization(ctx context.Context, realm string, ref outbound.UserRef, organization string) (outbound.Outcome, error)
	SetRequiredActions(ctx context.Context, realm string, ref outbound.UserRef, actions []string) (outbound.Outcome, error)
	ResetPassword(ctx context.Context, realm string, ref outbound.UserRef, password string, temporary bool) (outbound.Outcome, error)
	SendVerifyEmail(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error)
	LogoutUser(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error)
	UnlockUser(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error)
}

// accountRoutes are the commands below a user's path.
func (s *Server) accountRoutes() []route {
	return []route{
		{http.MethodPut, userPath + "/roles/{name}", s.ofRole(AccountCommands.AddRole)},
		{http.MethodDelete, userPath + "/roles/{name}", s.ofRole(AccountCommands.RemoveRole)},
		{http.MethodPut, userPath + "/client-roles/{client}/{name}", s.ofRole(AccountCommands.AddRole)},
		{http.MethodDelete, userPath + "/client-roles/{client}/{name}", s.ofRole(AccountCommands.RemoveRole)},
		{http.MethodPut, userPath + "/groups/{group}", s.of("group", AccountCommands.JoinGroup)},
		{http.MethodDelete, userPath + "/groups/{group}", s.of("group", AccountCommands.LeaveGroup)},
		{http.MethodPut, userPath + "/organizations/{organization}", s.of("organization", AccountCommands.JoinOrganization)},
		{http.MethodDelete, userPath + "/organizations/{organization}", s.of("organization", AccountCommands.LeaveOrganization)},
		{http.MethodPut, userPath + "/required-actions", s.setRequiredActions},
		{http.MethodPost, userPath + "/reset-password", s.resetPassword},
		{http.MethodPost, userPath + "/send-verify-email", s.sendVerifyEmail},
		{http.MethodPost, userPath + "/logout", s.logoutUser},
		{http.MethodPost, userPath + "/unlock", s.unlockUser},
	}
}

// of is a command about what the path names with one more variable.
func (s *Server) of(variable string, do func(AccountCommands, context.Context, string, outbound.UserRef, string) (outbound.Outcome, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id := param(r, variable)
		return s.simple(w, r, func(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
			return do(s.Commands, ctx, realm, ref, id)
		})
	}
}

// ofRole is a command about the role that the path names, of a client where it names
// one.
func (s *Server) ofRole(do func(AccountCommands, context.Context, string, outbound.UserRef, outbound.RoleRef) (outbound.Outcome, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		role := outbound.RoleRef{Name: param(r, "name"), Client: param(r, "client")}
		return s.simple(w, r, func(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
			return do(s.Commands, ctx, realm, ref, role)
		})
	}
}

// setRequiredActions is PUT /realms/{realm}/users/{id}/required-actions. The list
// replaces the one that the user has.
func (s *Server) setRequiredActions(w http.ResponseWriter, r *http.Request) error {
	var actions adapter.Optional[[]string]
	c, err := readCommand(w, r, map[string]field{
		adapter.FieldRequiredActions: optionalField(&actions, cleared, keep, `a list of names, such as ["UPDATE_PASSWORD"]; an empty one clears`, filledTexts),
	})
	if err != nil {
		return err
	}
	if !actions.Present() {
		return faults{{adapter.FieldRequiredActions, "is needed"}}.err()
	}
	list, _ := actions.Get()
	return s.change(w, r, c, func(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return s.Commands.SetRequiredActions(ctx, realm, ref, list)
	})
}

// resetPassword is POST /realms/{realm}/users/{id}/reset-password, with password and,
// where it has to be changed at the next login, temporary.
func (s *Server) resetPassword(w http.ResponseWriter, r *http.Request) error {
	var password string
	var temporary adapter.Optional[bool]
	c, err := readCommand(w, r, map[string]field{
		fieldPassword: passwordField(&password),
		"temporary":   optionalField(&temporary, unsaid, keep, "true or false", nil),
	})
	if err != nil {
		return err
	}
	if password == "" {
		return faults{{fieldPassword, "is needed"}}.err()
	}
	isTemporary, _ := temporary.Get()
	return s.change(w, r, c, func(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return s.Commands.ResetPassword(ctx, realm, ref, password, isTemporary)
	})
}

// sendVerifyEmail is POST /realms/{realm}/users/{id}/send-verify-email.
func (s *Server) sendVerifyEmail(w http.ResponseWriter, r *http.Request) error {
	return s.simple(w, r, s.Commands.SendVerifyEmail)
}

// logoutUser is POST /realms/{realm}/users/{id}/logout.
func (s *Server) logoutUser(w http.ResponseWriter, r *http.Request) error {
	return s.simple(w, r, s.Commands.LogoutUser)
}

// unlockUser is POST /realms/{realm}/users/{id}/unlock.
func (s *Server) unlockUser(w http.ResponseWriter, r *http.Request) error {
	return s.simple(w, r, s.Commands.UnlockUser)
}

const fieldPassword = "password"

func passwordField(into *string) field {
	return textField(func(text string) string {
		if text == "" {
			return "must not be empty"
		}
		*into = text
		return ""
	})
}

// namesField reads a list of names, and null as if it were left out.
func namesField(into *[]string, want string, valid func([]string) bool) field {
	return func(raw json.RawMessage) string {
		if isNull(raw) {
			return ""
		}
		if json.Unmarshal(raw, into) != nil || hasNull(raw) || !valid(*into) {
			return "must be " + want
		}
		return ""
	}
}

func filledTexts(list []string) bool {
	for _, text := range list {
		if !filledText(text) {
			return false
		}
	}
	return true
}

func fullPaths(list []string) bool {
	for _, path := range list {
		if !strings.HasPrefix(path, "/") {
			return false
		}
	}
	return filledTexts(list)
}
