package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
)

// Commands changes users in Keycloak. *outbound.Commands is one.
type Commands interface {
	CreateUser(ctx context.Context, realm string, u outbound.NewUser) (outbound.Outcome, error)
	UpdateUser(ctx context.Context, realm string, ref outbound.UserRef, set adapter.Profile) (outbound.Outcome, error)
	EnableUser(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error)
	DisableUser(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error)
	DeleteUser(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error)
	AccountCommands
}

// createUser is POST /realms/{realm}/users. Null is as if the field were left out.
func (s *Server) createUser(w http.ResponseWriter, r *http.Request) error {
	var u outbound.NewUser
	fields := profileFields(&u.Profile, unsaid)
	fields[fieldPassword] = passwordField(&u.Password)
	fields["groups"] = namesField(&u.Groups, `a list of full group paths, which begin with /, such as ["/staff"]`, fullPaths)
	fields["roles"] = namesField(&u.Roles, `a list of names of realm roles, such as ["auditor"]`, filledTexts)
	fields["client_roles"] = func(raw json.RawMessage) string {
		var roles adapter.Optional[map[string][]string]
		fault := optionalField(&roles, unsaid, keep, `an object of lists by client id, such as {"shop":["clerk"]}`, filledNames)(raw)
		u.ClientRoles, _ = roles.Get()
		return fault
	}
	fields["organization"] = textField(func(text string) string {
		u.Organization = text
		return ""
	})
	c, err := readCommand(w, r, fields)
	if err != nil {
		return err
	}
	if name, ok := u.Username.Get(); !ok || name == "" {
		return faults{{adapter.FieldUsername, "is needed"}}.err()
	}
	realm := param(r, "realm")
	return s.perform(w, r, c, http.StatusCreated, func(ctx context.Context) (outbound.Outcome, error) {
		return s.Commands.CreateUser(ctx, realm, u)
	})
}

// updateUser is PATCH /realms/{realm}/users/{id}. Null clears a field. Attributes are
// merged with those that the user has; an empty list removes one.
func (s *Server) updateUser(w http.ResponseWriter, r *http.Request) error {
	var set adapter.Profile
	c, err := readCommand(w, r, profileFields(&set, cleared))
	if err != nil {
		return err
	}
	if len(set.Fields()) == 0 {
		return adapter.Errorf(adapter.CodeInvalidRequest, "the body names no field to change").
			WithTry(`name at least one, such as {"email":"ada@example.com","reason":"why"}`)
	}
	return s.change(w, r, c, func(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return s.Commands.UpdateUser(ctx, realm, ref, set)
	})
}

// enableUser is POST /realms/{realm}/users/{id}/enable.
func (s *Server) enableUser(w http.ResponseWriter, r *http.Request) error {
	return s.simple(w, r, s.Commands.EnableUser)
}

// disableUser is POST /realms/{realm}/users/{id}/disable.
func (s *Server) disableUser(w http.ResponseWriter, r *http.Request) error {
	return s.simple(w, r, s.Commands.DisableUser)
}

// deleteUser is DELETE /realms/{realm}/users/{id}.
func (s *Server) deleteUser(w http.ResponseWriter, r *http.Request) error {
	return s.simple(w, r, s.Commands.DeleteUser)
}

// change is a command on an existing user.
type change func(ctx context.Context, realm string, ref outbound.UserRef) (outbound.Outcome, error)

// simple is a change without fields of its own.
func (s *Server) simple(w http.ResponseWriter, r *http.Request, do change) error {
	c, err := readCommand(w, r, nil)
	if err != nil {
		return err
	}
	return s.change(w, r, c, do)
}

func (s *Server) change(w http.ResponseWriter, r *http.Request, c command, do change) error {
	realm := param(r, "realm")
	ref, err := s.userRef(r.Context(), realm, param(r, "id"))
	if err != nil {
		return err
	}
	return s.perform(w, r, c, http.StatusOK, func(ctx context.Context) (outbound.Outcome, error) {
		return do(ctx, realm, ref)
	})
}

// userRef reads the {id} of a command's path. What the projection knows as an id, or
// looks like one of Keycloak's, is an id. Everything else is a user name, and who has
// that is asked of Keycloak freshly: the projection may lag, and a change must not hit
// the one who had the name before.
func (s *Server) userRef(ctx context.Context, realm, idOrName string) (outbound.UserRef, error) {
	_, known, err := s.Users.Get(ctx, realm, idOrName)
	if err != nil {
		return outbound.UserRef{}, err
	}
	if _, err := uuid.Parse(idOrName); known || err == nil || strings.HasPrefix(idOrName, "f:") {
		return outbound.UserRef{ID: idOrName}, nil
	}
	return outbound.UserRef{Username: idOrName}, nil
}

// null says what a JSON null means for a field.
type null bool

const (
	unsaid  null = false // as if the field were left out
	cleared null = true  // the field is emptied
)

// profileFields read a body's profile fields into set.
func profileFields(set *adapter.Profile, n null) map[string]field {
	return map[string]field{
		adapter.FieldUsername:  optionalField(&set.Username, n, keep, "a text that is not empty", filledText),
		adapter.FieldEmail:     optionalField(&set.Email, n, clearable, "a text, or null", plainText),
		adapter.FieldFirstName: optionalField(&set.FirstName, n, clearable, "a text, or null", plainText),
		adapter.FieldLastName:  optionalField(&set.LastName, n, clearable, "a text, or null", plainText),
		adapter.FieldEnabled:   optionalField(&set.Enabled, n, keep, "true or false", nil),
		adapter.FieldEmailVerified: optionalField(&set.EmailVerified, n, keep,
			"true or false", nil),
		adapter.FieldAttributes: optionalField(&set.Attributes, n, keep,
			`an object of lists, such as {"team":["red"]}; an empty list removes an attribute`, filledNames),
		adapter.FieldRequiredActions: optionalField(&set.RequiredActions, n, clearable,
			`a list of names, such as ["UPDATE_PASSWORD"], or null`, nil),
	}
}

// Whether null can clear a field.
const (
	clearable = true
	keep      = false
)

// optionalField reads a value of type T, and null as the command takes it.
func optionalField[T any](into *adapter.Optional[T], n null, canClear bool, want string, valid func(T) bool) field {
	return func(raw json.RawMessage) string {
		if isNull(raw) {
			switch {
			case n == unsaid:
				return ""
			case !canClear:
				return "cannot be cleared: it must be " + want
			}
			*into = adapter.Clear[T]()
			return ""
		}
		var value T
		if json.Unmarshal(raw, &value) != nil || hasNull(raw) || (valid != nil && !valid(value)) {
			return fmt.Sprintf("must be %s", want)
		}
		*into = adapter.Set(value)
		return ""
	}
}

// hasNull reports a null inside of a list or object, which encoding/json would read as
// an empty value.
func hasNull(raw json.RawMessage) bool {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return false
	}
	var inside func(any) bool
	inside = func(v any) bool {
		switch v := v.(type) {
		case nil:
			return true
		case []any:
			for _, one := range v {
				if inside(one) {
					return true
				}
			}
		case map[string]any:
			for _, one := range v {
				if inside(one) {
					return true
				}
			}
		}
		return false
	}
	return inside(value)
}

func plainText(text string) bool  { return !strings.ContainsRune(text, 0) }
func filledText(text string) bool { return strings.TrimSpace(text) != "" && plainText(text) }

func filledNames(attributes map[string][]string) bool {
	_, unnamed := attributes[""]
	return !unnamed
}
