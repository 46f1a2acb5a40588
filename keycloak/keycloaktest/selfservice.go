package keycloaktest

import (
	"fmt"
	"strings"
)

// accountClient is the client of Keycloak's account pages.
const accountClient = "account-console"

// Registration is what a person enters into the registration form.
type Registration struct {
	Username, Email, FirstName, LastName, Password string
}

// Register makes a user as the registration form does: a REGISTER user event, no
// admin event, then the LOGIN that follows it.
func (r *Realm) Register(reg Registration) (userID string, err error) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	rep := userRep{
		Username: &reg.Username, Email: &reg.Email, FirstName: nonEmpty(reg.FirstName), LastName: nonEmpty(reg.LastName),
		Attributes: map[string][]string{},
	}
	u := &User{
		ID: newID(), CreatedTimestamp: r.s.now(), Enabled: true, Attributes: map[string][]string{}, ClientRoles: map[string][]string{},
		RealmRoles: []string{r.defaultRole()},
	}
	if refused, ok := r.check(u, &rep, true); !ok {
		return "", fmt.Errorf("register %q: %s", reg.Username, encode(refused.body))
	}
	r.assign(u, &rep)
	if reg.Password != "" {
		u.setPassword(reg.Password, false)
	}
	r.users[u.ID] = u
	code := randomText(18)
	details := map[string]string{
		"auth_method": "openid-connect", "register_method": "form", "redirect_uri": r.accountURL(), "code_id": code,
		"email": reg.Email, "username": reg.Username, // as entered
	}
	if reg.FirstName != "" {
		details["first_name"] = reg.FirstName
	}
	if reg.LastName != "" {
		details["last_name"] = reg.LastName
	}
	r.selfService(u, "REGISTER", code, details)
	r.login(u, code)
	return u.ID, nil
}

// Login is a login by form; it emits LOGIN.
func (r *Realm) Login(userID string) error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	u := r.users[userID]
	if u == nil || !u.Enabled {
		return fmt.Errorf("log in %s: no such user, or disabled", userID)
	}
	r.login(u, randomText(18))
	return nil
}

func (r *Realm) login(u *User, code string) {
	r.selfService(u, "LOGIN", code, map[string]string{
		"auth_method": "openid-connect", "response_type": "code", "redirect_uri": r.accountURL(), "consent": "no_consent_required",
		"code_id": code, "username": u.Username, "response_mode": "query",
	})
}

func (r *Realm) accountURL() string { return r.s.url + "/realms/" + r.name + "/account/" }

// Profile is a change that a person makes on the account page; nil leaves a field.
type Profile struct {
	Email, FirstName, LastName *string
}

// UpdateProfile changes a user as the account page does: one UPDATE_PROFILE user event
// with updated_ and previous_ details, of which the latter are left out when empty.
func (r *Realm) UpdateProfile(userID string, change Profile) error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	u := r.users[userID]
	if u == nil {
		return fmt.Errorf("update profile of %s: no such user", userID)
	}
	details := map[string]string{"context": "ACCOUNT"}
	text := func(name string, field *string, to *string) {
		if to == nil || *to == *field {
			return
		}
		details["updated_"+name] = *to
		if *field != "" {
			details["previous_"+name] = *field
		}
		*field = *to
	}
	if change.Email != nil {
		lower := strings.ToLower(*change.Email)
		change.Email = &lower
	}
	text("email", &u.Email, change.Email)
	text("first_name", &u.FirstName, change.FirstName)
	text("last_name", &u.LastName, change.LastName)
	r.selfService(u, "UPDATE_PROFILE", "", details)
	return nil
}

// ChangePassword is a change on the account page: UPDATE_PASSWORD and
// UPDATE_CREDENTIAL in the same millisecond or the next.
func (r *Realm) ChangePassword(userID, password string) error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	u := r.users[userID]
	if u == nil {
		return fmt.Errorf("change password of %s: no such user", userID)
	}
	u.setPassword(password, false)
	session := randomText(18)
	for _, typ := range []string{"UPDATE_PASSWORD", "UPDATE_CREDENTIAL"} {
		r.selfService(u, typ, session, map[string]string{
			"credential_type": "password", "auth_method": "openid-connect", "custom_required_action": "UPDATE_PASSWORD",
			"response_type": "code", "response_mode": "query", "redirect_uri": r.accountURL(), "remember_me": "false", "code_id": session,
			"username": u.Username,
		})
	}
	return nil
}

// DeleteAccount is what a person does on the account page: the user is gone, and only
// the user event DELETE_ACCOUNT tells. Its push lacks the name in authDetails.
func (r *Realm) DeleteAccount(userID string) error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	u := r.users[userID]
	if u == nil {
		return fmt.Errorf("delete account %s: no such user", userID)
	}
	delete(r.users, userID)
	session := randomText(18)
	r.s.emitUserEvent(r, userEvent{typ: "DELETE_ACCOUNT", clientID: accountClient, userID: u.ID, sessionID: session, details: map[string]string{
		"auth_method": "openid-connect", "custom_required_action": "delete_account", "response_type": "code", "response_mode": "query",
		"redirect_uri": r.accountURL(), "remember_me": "false", "code_id": session, "username": u.Username,
	}})
	return nil
}

func (r *Realm) selfService(u *User, typ, sessionID string, details map[string]string) {
	r.s.emitUserEvent(r, userEvent{typ: typ, clientID: accountClient, userID: u.ID, username: u.Username, sessionID: sessionID, details: details})
}
