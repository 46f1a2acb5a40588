package keycloaktest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// User is a user as the fake keeps it, for assertions and for changes behind
// everybody's back.
type User struct {
	ID                     string
	Username               string
	Email                  string
	EmailVerified          bool
	Enabled                bool
	FirstName, LastName    string
	Attributes             map[string][]string
	RequiredActions        []string
	CreatedTimestamp       int64 // ms since the epoch
	NotBefore              int64 // s since the epoch; tokens from before it are void
	RealmRoles             []string
	ClientRoles            map[string][]string // by client_id
	Groups                 []string            // group ids
	FederatedIdentities    []FederatedIdentity
	ServiceAccountClientID string // client_id, where it is a service account

	password     string
	credentialID string
}

// FederatedIdentity links a user to an identity provider. UserID and UserName are
// the provider's.
type FederatedIdentity struct {
	IdentityProvider string `json:"identityProvider,omitempty"`
	UserID           string `json:"userId,omitempty"`
	UserName         string `json:"userName,omitempty"`
}

func (u *User) clone() User {
	c := *u
	c.Attributes = cloneLists(u.Attributes)
	c.ClientRoles = cloneLists(u.ClientRoles)
	c.RequiredActions = slices.Clone(u.RequiredActions)
	c.RealmRoles = slices.Clone(u.RealmRoles)
	c.Groups = slices.Clone(u.Groups)
	c.FederatedIdentities = slices.Clone(u.FederatedIdentities)
	return c
}

func cloneLists(m map[string][]string) map[string][]string {
	c := make(map[string][]string, len(m))
	for k, v := range m {
		c[k] = slices.Clone(v)
	}
	return c
}

// User returns a copy of the user with that id; ok is false if there is none.
func (r *Realm) User(id string) (user User, ok bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	u, ok := r.users[id]
	if !ok {
		return User{}, false
	}
	return u.clone(), true
}

// UserByName returns a copy of the user of that name; ok is false if there is none.
func (r *Realm) UserByName(username string) (user User, ok bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if u := r.userByName(username); u != nil {
		return u.clone(), true
	}
	return User{}, false
}

// BehindOurBack hands the realm's users, by id, to change, without any event: what a
// change in the database or a federation's synchronisation does. The map may be
// added to and deleted from. It must not be kept.
func (r *Realm) BehindOurBack(change func(users map[string]*User)) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	change(r.users)
	for id, u := range r.users {
		u.ID = id
		if u.CreatedTimestamp == 0 {
			u.CreatedTimestamp = r.s.now()
		}
		if u.Attributes == nil {
			u.Attributes = map[string][]string{}
		}
		if u.ClientRoles == nil {
			u.ClientRoles = map[string][]string{}
		}
	}
}

func (r *Realm) newUser(username string) *User {
	u := &User{
		ID: newID(), Username: username, CreatedTimestamp: r.s.now(),
		Attributes: map[string][]string{}, ClientRoles: map[string][]string{}, RealmRoles: []string{r.defaultRole()},
	}
	r.users[u.ID] = u
	return u
}

func (r *Realm) userByName(username string) *User {
	username = strings.ToLower(username)
	for _, u := range r.users {
		if u.Username == username {
			return u
		}
	}
	return nil
}

func (r *Realm) userByEmail(email string) *User {
	email = strings.ToLower(email)
	for _, u := range r.users {
		if email != "" && u.Email == email {
			return u
		}
	}
	return nil
}

func (r *Realm) userByLogin(name string) *User {
	if u := r.userByName(name); u != nil {
		return u
	}
	return r.userByEmail(name)
}

// userRep is Keycloak's UserRepresentation with its fields in the order in which
// Keycloak writes them into an event. nil is absent: a null is not echoed.
type userRep struct {
	ID                         *string             `json:"id,omitempty"`
	Username                   *string             `json:"username,omitempty"`
	FirstName                  *string             `json:"firstName,omitempty"`
	LastName                   *string             `json:"lastName,omitempty"`
	Email                      *string             `json:"email,omitempty"`
	EmailVerified              *bool               `json:"emailVerified,omitempty"`
	Attributes                 map[string][]string `json:"attributes,omitzero"`
	UserProfileMetadata        json.RawMessage     `json:"userProfileMetadata,omitempty"`
	Enabled                    *bool               `json:"enabled,omitempty"`
	Self                       *string             `json:"self,omitempty"`
	Origin                     *string             `json:"origin,omitempty"`
	CreatedTimestamp           *int64              `json:"createdTimestamp,omitempty"`
	Totp                       *bool               `json:"totp,omitempty"`
	FederationLink             *string             `json:"federationLink,omitempty"`
	ServiceAccountClientID     *string             `json:"serviceAccountClientId,omitempty"`
	Credentials                []credentialRep     `json:"credentials,omitzero"`
	DisableableCredentialTypes []string            `json:"disableableCredentialTypes,omitzero"`
	RequiredActions            []string            `json:"requiredActions,omitzero"`
	FederatedIdentities        []FederatedIdentity `json:"federatedIdentities,omitzero"`
	RealmRoles                 []string            `json:"realmRoles,omitzero"`
	ClientRoles                map[string][]string `json:"clientRoles,omitzero"`
	ClientConsents             json.RawMessage     `json:"clientConsents,omitempty"`
	NotBefore                  *int64              `json:"notBefore,omitempty"`
	ApplicationRoles           json.RawMessage     `json:"applicationRoles,omitempty"`
	SocialLinks                json.RawMessage     `json:"socialLinks,omitempty"`
	Groups                     []string            `json:"groups,omitzero"`
	Access                     json.RawMessage     `json:"access,omitempty"`
}

type credentialRep struct {
	ID             string          `json:"id,omitempty"`
	Type           string          `json:"type,omitempty"`
	UserLabel      string          `json:"userLabel,omitempty"`
	CreatedDate    int64           `json:"createdDate,omitempty"`
	SecretData     string          `json:"secretData,omitempty"`
	CredentialData string          `json:"credentialData,omitempty"`
	Value          string          `json:"value,omitempty"`
	Temporary      *bool           `json:"temporary,omitempty"`
	Priority       json.RawMessage `json:"priority,omitempty"`
}

// stripped is the representation as an event shows it: as it was sent, without
// credentials.
func (rep userRep) stripped() []byte {
	rep.Credentials = nil
	rep.Origin = nil
	return encode(rep)
}

// describe is a user as GET shows it. brief leaves out attributes and more; access
// is what the caller may do with it.
func (c *call) describe(u *User, brief bool, access []byte) userRep {
	rep := userRep{
		ID: &u.ID, Username: &u.Username, EmailVerified: &u.EmailVerified, Enabled: &u.Enabled,
		CreatedTimestamp: &u.CreatedTimestamp, Access: access,
		FirstName: nonEmpty(u.FirstName), LastName: nonEmpty(u.LastName), Email: nonEmpty(u.Email),
	}
	if brief {
		return rep
	}
	if len(u.Attributes) > 0 {
		rep.Attributes = u.Attributes
	}
	rep.Totp = new(bool)
	rep.DisableableCredentialTypes = []string{}
	rep.RequiredActions = append([]string{}, u.RequiredActions...)
	rep.NotBefore = &u.NotBefore
	return rep
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

type userAccess struct {
	ManageGroupMembership bool `json:"manageGroupMembership"`
	ResetPassword         bool `json:"resetPassword"`
	View                  bool `json:"view"`
	MapRoles              bool `json:"mapRoles"`
	Impersonate           bool `json:"impersonate"`
	Manage                bool `json:"manage"`
}

func (c *call) listAccess() []byte {
	return encode(map[string]bool{"manage": c.may("manage-users")})
}

func (c *call) oneAccess() []byte {
	manage := c.may("manage-users")
	return encode(userAccess{ManageGroupMembership: manage, ResetPassword: manage, View: true, MapRoles: manage, Impersonate: c.may("impersonation"), Manage: manage})
}

// user finds the user of the path. Who may not even query users learns nothing about
// which ids exist.
func (c *call) user() (*User, reply) {
	if u := c.realm.users[c.PathValue("user")]; u != nil {
		return u, reply{}
	}
	if c.may("query-users", "view-users", "manage-users") {
		return nil, userNotFound()
	}
	return nil, forbidden()
}

// withUser registers a handler below users/{user}.
func (s *Server) withUser(pattern string, access access, handler func(*call, *User) reply) {
	method, path, _ := strings.Cut(pattern, " ")
	s.handle(method+" /admin/realms/{realm}/users/{user}"+path, anyone, userOr404(access, handler))
}

// userOr404 looks for the user first and for the right then, as Keycloak does.
func userOr404(access access, handler func(*call, *User) reply) func(*call) reply {
	return func(c *call) reply {
		u, refused := c.user()
		switch {
		case u == nil:
			return refused
		case !access(c):
			return forbidden()
		default:
			return handler(c, u)
		}
	}
}

// listUsers lists by user name. A caller with query-users alone gets a 200 with an
// empty list, while the count is right.
func (c *call) listUsers() reply {
	first, ok1 := c.number("first", 0)
	limit, ok2 := c.number("max", 100)
	if !ok1 || !ok2 {
		return notFoundPage()
	}
	list := []userRep{}
	if !c.mayViewUsers() {
		return ok(list)
	}
	brief := c.URL.Query().Get("briefRepresentation") == "true"
	for _, u := range page(c.matchingUsers(), first, limit) {
		list = append(list, c.describe(u, brief, c.listAccess()))
	}
	return ok(list)
}

func (c *call) countUsers() reply { return ok(len(c.matchingUsers())) }

// matchingUsers applies the query's filters. Service accounts are left out unless
// there is a filter other than search.
func (c *call) matchingUsers() []*User {
	query := c.URL.Query()
	exact := query.Get("exact") == "true"
	var tests []func(*User) bool
	text := func(name string, field func(*User) string) {
		if want := strings.ToLower(query.Get(name)); want != "" {
			tests = append(tests, func(u *User) bool {
				have := strings.ToLower(field(u))
				return have == want || !exact && strings.Contains(have, want)
			})
		}
	}
	flag := func(name string, field func(*User) bool) {
		if want, err := strconv.ParseBool(query.Get(name)); err == nil {
			tests = append(tests, func(u *User) bool { return field(u) == want })
		}
	}
	serviceAccounts := false
	if search := strings.TrimSpace(query.Get("search")); search != "" {
		if ids, found := strings.CutPrefix(search, "id:"); found {
			tests = append(tests, func(u *User) bool { return slices.Contains(strings.Fields(ids), u.ID) })
		} else {
			tests = append(tests, searchTest(strings.ToLower(search)))
		}
		flag("enabled", func(u *User) bool { return u.Enabled })
		flag("emailVerified", func(u *User) bool { return u.EmailVerified })
	} else {
		text("username", func(u *User) string { return u.Username })
		text("email", func(u *User) string { return u.Email })
		text("firstName", func(u *User) string { return u.FirstName })
		text("lastName", func(u *User) string { return u.LastName })
		flag("enabled", func(u *User) bool { return u.Enabled })
		flag("emailVerified", func(u *User) bool { return u.EmailVerified })
		for pair := range strings.FieldsSeq(query.Get("q")) {
			if key, want, found := strings.Cut(pair, ":"); found {
				tests = append(tests, func(u *User) bool { return slices.Contains(u.Attributes[key], want) })
			}
		}
		if alias := query.Get("idpAlias"); alias != "" {
			id := query.Get("idpUserId")
			tests = append(tests, func(u *User) bool {
				return slices.ContainsFunc(u.FederatedIdentities, func(l FederatedIdentity) bool {
					return l.IdentityProvider == alias && (id == "" || l.UserID == id)
				})
			})
		}
		serviceAccounts = len(tests) > 0
	}
	var list []*User
	for _, u := range c.realm.sortedUsers() {
		if u.ServiceAccountClientID != "" && !serviceAccounts {
			continue
		}
		if !slices.ContainsFunc(tests, func(test func(*User) bool) bool { return !test(u) }) {
			list = append(list, u)
		}
	}
	return list
}

// searchTest understands prefixes, *infixes* and "exact words"; all of the words must
// be found in user name, email, first or last name.
func searchTest(search string) func(*User) bool {
	return func(u *User) bool {
		for word := range strings.FieldsSeq(search) {
			match := strings.HasPrefix
			switch {
			case len(word) > 1 && strings.HasPrefix(word, `"`) && strings.HasSuffix(word, `"`):
				word, match = strings.Trim(word, `"`), func(have, want string) bool { return have == want }
			case strings.Contains(word, "*"):
				if strings.HasPrefix(word, "*") {
					match = strings.Contains
				}
				word = strings.Trim(word, "*")
			}
			if !slices.ContainsFunc([]string{u.Username, u.Email, u.FirstName, u.LastName}, func(have string) bool {
				return match(strings.ToLower(have), word)
			}) {
				return false
			}
		}
		return true
	}
}

func (r *Realm) sortedUsers() []*User {
	return slices.SortedFunc(maps.Values(r.users), func(a, b *User) int { return cmp.Compare(a.Username, b.Username) })
}

func (c *call) getUser(u *User) reply {
	rep := c.describe(u, false, c.oneAccess())
	rep.FederatedIdentities = c.realm.shownLinks(u)
	if u.ServiceAccountClientID != "" {
		id := c.realm.client(u.ServiceAccountClientID)
		if id != nil {
			rep.ServiceAccountClientID = &id.clientID
		}
	}
	return ok(rep)
}

func (c *call) createUser() reply {
	var rep userRep
	if r, ok := c.decode(&rep, "UserRepresentation"); !ok {
		return r
	}
	if value(rep.Username) == "" {
		return refuse(http.StatusBadRequest, "User name is missing")
	}
	u := &User{
		ID: newID(), CreatedTimestamp: c.s.now(), Attributes: map[string][]string{}, ClientRoles: map[string][]string{},
		RealmRoles: []string{c.realm.defaultRole()},
	}
	if refused, ok := c.realm.check(u, &rep, true); !ok {
		return refused
	}
	for _, path := range rep.Groups {
		g := c.realm.groupByPath(path)
		if g == nil {
			return serverError() // measured: not a 400
		}
		u.Groups = append(u.Groups, g.id)
	}
	c.realm.assign(u, &rep)
	c.realm.users[u.ID] = u
	c.emit(adminEvent{op: opCreate, resource: "USER", path: "users/" + u.ID, representation: rep.stripped()})
	return c.created("/admin/realms/" + c.realm.name + "/users/" + u.ID)
}

func (c *call) updateUser(u *User) reply {
	var rep userRep
	if r, ok := c.decode(&rep, "UserRepresentation"); !ok {
		return r
	}
	if rep.Username != nil && *rep.Username == "" || rep.Username == nil && rep.Attributes != nil && c.realm.editUsername {
		return refuse(http.StatusBadRequest, "User name is missing")
	}
	if refused, ok := c.realm.check(u, &rep, false); !ok {
		return refused
	}
	unlocked := value(rep.Enabled) && c.realm.failures[u.ID] > 0
	c.realm.assign(u, &rep)
	if c.fault.DoubleValues && rep.Attributes != nil {
		for name, values := range u.Attributes {
			u.Attributes[name] = slices.Repeat(values, 2)
		}
	}
	if unlocked {
		delete(c.realm.failures, u.ID)
		c.emit(adminEvent{op: opDelete, resource: "USER_LOGIN_FAILURE", path: "users/" + u.ID})
	}
	c.emit(adminEvent{op: opUpdate, resource: "USER", path: "users/" + u.ID, representation: rep.stripped()})
	return noContent()
}

// assign writes a checked representation to a user. Without attributes what is absent
// is kept; with them absent names and email are wiped and the map is replaced.
// groups and realmRoles are not looked at.
func (r *Realm) assign(u *User, rep *userRep) {
	if rep.Username != nil {
		u.Username = strings.ToLower(*rep.Username)
	}
	text := func(to *string, from *string) {
		if from != nil {
			*to = *from
		} else if rep.Attributes != nil {
			*to = ""
		}
	}
	text(&u.FirstName, rep.FirstName)
	text(&u.LastName, rep.LastName)
	text(&u.Email, rep.Email)
	u.Email = strings.ToLower(u.Email)
	set(&u.Enabled, rep.Enabled)
	set(&u.EmailVerified, rep.EmailVerified)
	if rep.RequiredActions != nil {
		u.setRequiredActions(rep.RequiredActions)
	}
	if rep.Attributes != nil {
		u.Attributes = map[string][]string{}
		for name, values := range rep.Attributes {
			values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
			if len(values) > 0 && r.profile.keeps(name) {
				u.Attributes[name] = values
			}
		}
	}
	for _, cred := range rep.Credentials {
		if cred.Value != "" {
			u.setPassword(cred.Value, value(cred.Temporary))
		}
	}
}

const actionUpdatePassword = "UPDATE_PASSWORD"

// requiredActions are those that a server without extensions knows, whether the realm
// has them switched on or not.
var requiredActions = []string{
	actionUpdatePassword, "UPDATE_PROFILE", "UPDATE_EMAIL", "VERIFY_EMAIL", "VERIFY_PROFILE", "CONFIGURE_TOTP",
	"CONFIGURE_RECOVERY_AUTHN_CODES", "TERMS_AND_CONDITIONS", "webauthn-register", "webauthn-register-passwordless",
	"delete_account", "delete_credential", "idp_link", "update_user_locale",
}

// setRequiredActions passes over an action that Keycloak does not know, without a word:
// the call succeeds, and its event shows what was asked for.
func (u *User) setRequiredActions(wanted []string) {
	actions := []string{}
	for _, a := range wanted {
		if slices.Contains(requiredActions, a) && !slices.Contains(actions, a) {
			actions = append(actions, a)
		}
	}
	u.RequiredActions = actions
}

func (u *User) setPassword(password string, temporary bool) {
	u.password = password
	u.credentialID = newID()
	u.RequiredActions = slices.DeleteFunc(u.RequiredActions, func(a string) bool { return a == actionUpdatePassword && !temporary })
	if temporary && !slices.Contains(u.RequiredActions, actionUpdatePassword) {
		u.RequiredActions = append(u.RequiredActions, actionUpdatePassword)
	}
}

// violation is one failed rule of the user profile.
type violation struct {
	Field        string `json:"field"`
	ErrorMessage string `json:"errorMessage"`
	Params       []any  `json:"params"`
}

var (
	prohibitedInUsername = regexp.MustCompile(`[<>&"\s$%!#?§,;:*~/\\|^=\[\]{}()` + "`" + `\pC]`)
	prohibitedInName     = regexp.MustCompile(`[<>&"$%!#?§;*~/\\|^=\[\]{}()\x00-\x1f\x7f]`)
)

// check applies the default user profile as it is for administrators (nothing but the
// user name is required), then uniqueness.
func (r *Realm) check(u *User, rep *userRep, fresh bool) (reply, bool) {
	var wrong []violation
	add := func(field, message string, params ...any) {
		wrong = append(wrong, violation{Field: field, ErrorMessage: message, Params: append([]any{field}, params...)})
	}
	if rep.Username != nil {
		name := strings.ToLower(*rep.Username)
		if other := r.userByName(name); other != nil && other != u {
			return refuse(http.StatusConflict, "User exists with same username"), false
		}
		if !fresh && name != u.Username && !r.editUsername {
			add("username", "error-user-attribute-read-only")
		}
		if n := utf8.RuneCountInString(name); n < 3 || n > 255 {
			add("username", "error-invalid-length", 3, 255)
		}
		if prohibitedInUsername.MatchString(name) {
			add("username", "error-username-invalid-character")
		}
	}
	if email := value(rep.Email); email != "" {
		if other := r.userByEmail(email); other != nil && other != u {
			return refuse(http.StatusConflict, "User exists with same email"), false
		}
		if parsed, err := mail.ParseAddress(email); err != nil || parsed.Address != email {
			add("email", "error-invalid-email", email)
		}
	}
	for field, name := range map[string]*string{"firstName": rep.FirstName, "lastName": rep.LastName} {
		if prohibitedInName.MatchString(value(name)) {
			add(field, "error-person-name-invalid-character")
		}
		if utf8.RuneCountInString(value(name)) > 255 {
			add(field, "error-invalid-length", 0, 255)
		}
	}
	switch len(wrong) {
	case 0:
		return reply{}, true
	case 1:
		return reply{status: http.StatusBadRequest, body: wrong[0]}, false
	default:
		return reply{status: http.StatusBadRequest, body: map[string]any{"errors": wrong}}, false
	}
}

func (c *call) deleteUser(u *User) reply {
	delete(c.realm.users, u.ID)
	delete(c.realm.failures, u.ID)
	rep := encode(userRep{ID: &u.ID, Username: &u.Username})
	c.emit(adminEvent{op: opDelete, resource: "USER", path: "users/" + u.ID, representation: rep})
	return noContent()
}

func (c *call) action(u *User, sub string) {
	c.emit(adminEvent{op: opAction, resource: "USER", path: "users/" + u.ID + "/" + sub})
}

func (c *call) resetPassword(u *User) reply {
	var cred credentialRep
	if r, ok := c.decode(&cred, "CredentialRepresentation"); !ok {
		return r
	}
	if cred.Value == "" {
		return fail(http.StatusBadRequest, "No password provided")
	}
	u.setPassword(cred.Value, value(cred.Temporary))
	c.action(u, "reset-password")
	return noContent()
}

func (c *call) logoutUser(u *User) reply {
	u.NotBefore = c.s.clock().Unix()
	c.action(u, "logout")
	return noContent()
}

// executeActionsEmail and sendVerifyEmail fail as on a realm that has no mail server:
// 500, and no event.
func (c *call) executeActionsEmail(u *User) reply {
	if u.Email == "" {
		return refuse(http.StatusBadRequest, "User email missing")
	}
	if !u.Enabled {
		return refuse(http.StatusBadRequest, "User is disabled")
	}
	return refuse(http.StatusInternalServerError, "Failed to send execute actions email: Invalid sender address 'null'.")
}

func (c *call) sendVerifyEmail(u *User) reply {
	if u.Email == "" {
		return refuse(http.StatusBadRequest, "User email missing")
	}
	if !u.Enabled {
		return refuse(http.StatusBadRequest, "User is disabled")
	}
	return refuse(http.StatusInternalServerError, "Failed to send verify email")
}

func (c *call) listCredentials(u *User) reply {
	list := []credentialRep{}
	if u.password != "" {
		list = append(list, credentialRep{ID: u.credentialID, Type: "password", CreatedDate: u.CreatedTimestamp, CredentialData: `{"hashIterations":5,"algorithm":"argon2"}`})
	}
	return ok(list)
}

func (c *call) deleteCredential(u *User) reply {
	id := c.PathValue("credential")
	if u.password == "" || u.credentialID != id {
		return fail(http.StatusNotFound, "Credential not found")
	}
	u.password, u.credentialID = "", ""
	c.emit(adminEvent{
		op: opAction, resource: "USER", path: "users/" + u.ID + "/credentials/" + id,
		details: map[string]string{"credential_type": "password", "credential_id": id},
	})
	return noContent()
}

// userProfile is the realm's user profile: which attributes it names, and what
// happens to others.
type userProfile struct {
	UnmanagedAttributePolicy string             `json:"unmanagedAttributePolicy,omitempty"`
	Attributes               []profileAttribute `json:"attributes"`
	Groups                   json.RawMessage    `json:"groups,omitempty"`
}

type profileAttribute struct {
	Name string
	rest json.RawMessage
}

func (a profileAttribute) MarshalJSON() ([]byte, error) { return a.rest, nil }

func (a *profileAttribute) UnmarshalJSON(b []byte) error {
	a.rest = bytes.Clone(b)
	var named struct {
		Name string `json:"name"`
	}
	err := json.Unmarshal(b, &named)
	a.Name = named.Name
	return err
}

func defaultProfile(policy string) userProfile {
	p := userProfile{UnmanagedAttributePolicy: policy}
	for _, name := range []string{"username", "email", "firstName", "lastName"} {
		p.Attributes = append(p.Attributes, profileAttribute{name, encode(map[string]any{"name": name, "multivalued": false})})
	}
	return p
}

// keeps says whether an attribute that an administrator writes is stored.
func (p *userProfile) keeps(name string) bool {
	if p.UnmanagedAttributePolicy == "ENABLED" || p.UnmanagedAttributePolicy == "ADMIN_EDIT" {
		return true
	}
	return slices.ContainsFunc(p.Attributes, func(a profileAttribute) bool { return a.Name == name })
}

func (c *call) getProfile() reply { return ok(c.realm.profile) }

func (c *call) putProfile() reply {
	var p userProfile
	if err := json.Unmarshal(c.body, &p); err != nil {
		return oauthFail(http.StatusBadRequest, "invalid_request", "Cannot parse the JSON")
	}
	c.realm.profile = p
	c.emit(adminEvent{op: opUpdate, resource: "USER_PROFILE", path: "users/profile", representation: compact(c.body)})
	return ok(p)
}
