package keycloaktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// RealmOptions says what a new realm saves and tells.
type RealmOptions struct {
	// AdminEvents saves admin events, AdminEventsDetails with their representations;
	// UserEvents saves user events. The push does not depend on them.
	AdminEvents, AdminEventsDetails, UserEvents bool
	// Listeners are the realm's event listeners. nil means jboss-logging and
	// ext-event-webhook; without the latter no webhook is sent.
	Listeners []string
	// EditUsername allows to change user names (editUsernameAllowed).
	EditUsername bool
	// UnmanagedAttributes is the user profile's unmanagedAttributePolicy: "" drops
	// attributes that the profile does not name, silently; "ENABLED" and
	// "ADMIN_EDIT" keep them.
	UnmanagedAttributes string
}

const webhookListener = "ext-event-webhook"

// knownListeners are the event listeners that a server with the extension has.
var knownListeners = []string{"email", "ext-event-http", "ext-event-script", webhookListener, "jboss-logging"}

// Realm is a realm of a Server.
type Realm struct {
	s                *Server
	id, name         string
	displayName      string
	enabled          bool
	editUsername     bool
	organizationsOn  bool
	bruteForce       bool
	failureFactor    int // failed logins that lock a user for a while
	attributes       map[string]string
	adminEventsOn    bool
	detailsOn        bool
	userEventsOn     bool
	eventsExpiration int64
	notBefore        int64 // tokens issued earlier are invalid; seconds since 1970
	listeners        []string
	enabledTypes     []string // empty means savedByDefault
	profile          userProfile

	clients       []*client
	users         map[string]*User
	roles         []*role // realm roles
	groups        []*group
	organizations []*organization
	idps          []*identityProvider
	failures      map[string]int // failed logins by user id
	lockedUntil   map[string]time.Time
	webhooks      []*webhook
	adminEvents   []*adminEvent // oldest first
	userEvents    []*userEvent
}

type client struct {
	id             string // the internal UUID
	clientID       string
	secret         string
	public         bool
	serviceAccount string // user id
	roles          []*role
}

// AddRealm makes a realm directly, as an administrator would.
func (s *Server) AddRealm(name string, opts RealmOptions) *Realm {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.newRealm(name, opts)
	s.realms = append(s.realms, r)
	return r
}

// Realm returns the realm of that name, nil if there is none. It finds the realms
// too that were made over HTTP.
func (s *Server) Realm(name string) *Realm {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.realm(name)
}

func (s *Server) newRealm(name string, opts RealmOptions) *Realm {
	if opts.Listeners == nil {
		opts.Listeners = []string{"jboss-logging", webhookListener}
	}
	r := &Realm{
		s: s, id: newID(), name: name, enabled: true, editUsername: opts.EditUsername,
		attributes:    map[string]string{},
		adminEventsOn: opts.AdminEvents, detailsOn: opts.AdminEventsDetails, userEventsOn: opts.UserEvents,
		listeners: slices.Clone(opts.Listeners),
		profile:   defaultProfile(opts.UnmanagedAttributes),
		users:     map[string]*User{}, failures: map[string]int{}, failureFactor: 30,
	}
	for _, c := range []string{"account", "account-console", "admin-cli", "broker", realmManagement, "security-admin-console"} {
		r.clients = append(r.clients, &client{id: newID(), clientID: c, public: c != "broker" && c != realmManagement})
	}
	management := r.client(realmManagement)
	for _, name := range slices.Sorted(maps.Keys(managementRoles)) {
		management.roles = append(management.roles, &role{id: newID(), name: name, description: "${role_" + name + "}", composite: managementRoles[name] != nil, client: management})
	}
	management.roles = append(management.roles, &role{id: newID(), name: "realm-admin", description: "${role_realm-admin}", composite: true, client: management})
	r.roles = []*role{
		{id: newID(), name: "offline_access", description: "${role_offline-access}"},
		{id: newID(), name: "uma_authorization", description: "${role_uma_authorization}"},
		{id: newID(), name: r.defaultRole(), description: "${role_default-roles}", composite: true},
	}
	if name == masterRealm {
		r.roles = append(r.roles, &role{id: newID(), name: "admin", description: "${role_admin}", composite: true})
	}
	return r
}

// ID is the realm's UUID, Name its name.
func (r *Realm) ID() string { return r.id }

// Name is the realm's name at present.
func (r *Realm) Name() string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.name
}

func (r *Realm) defaultRole() string { return "default-roles-" + strings.ToLower(r.name) }

func (r *Realm) client(clientID string) *client {
	for _, c := range r.clients {
		if c.clientID == clientID {
			return c
		}
	}
	return nil
}

func (r *Realm) clientByUUID(id string) *client {
	for _, c := range r.clients {
		if c.id == id {
			return c
		}
	}
	return nil
}

// AddClient makes a confidential client with a service account that has these roles
// of realm-management, and returns the client's UUID and the service account's user id.
func (r *Realm) AddClient(id, secret string, roles ...string) (clientUUID, serviceAccountID string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	cl := &client{id: newID(), clientID: id, secret: secret}
	r.clients = append(r.clients, cl)
	u := r.addServiceAccount(cl)
	if len(roles) > 0 {
		u.ClientRoles[realmManagement] = slices.Clone(roles)
	}
	return cl.id, u.ID
}

func (r *Realm) addServiceAccount(cl *client) *User {
	u := r.newUser("service-account-" + strings.ToLower(cl.clientID))
	u.Enabled = true
	u.ServiceAccountClientID = cl.clientID
	cl.serviceAccount = u.ID
	return u
}

// realmInput is what a realm's POST and PUT may carry; Keycloak has a hundred fields
// more, which the fake takes and forgets.
type realmInput struct {
	Realm                     *string           `json:"realm"`
	DisplayName               *string           `json:"displayName"`
	Enabled                   *bool             `json:"enabled"`
	EditUsernameAllowed       *bool             `json:"editUsernameAllowed"`
	OrganizationsEnabled      *bool             `json:"organizationsEnabled"`
	BruteForceProtected       *bool             `json:"bruteForceProtected"`
	FailureFactor             *int              `json:"failureFactor"`
	AdminEventsEnabled        *bool             `json:"adminEventsEnabled"`
	AdminEventsDetailsEnabled *bool             `json:"adminEventsDetailsEnabled"`
	EventsEnabled             *bool             `json:"eventsEnabled"`
	EventsExpiration          *int64            `json:"eventsExpiration"`
	EventsListeners           []string          `json:"eventsListeners"`
	EnabledEventTypes         []string          `json:"enabledEventTypes"`
	NotBefore                 *int64            `json:"notBefore"`
	Attributes                map[string]string `json:"attributes"`
	Clients                   []struct {
		ID                     string `json:"id"`
		ClientID               string `json:"clientId"`
		Secret                 string `json:"secret"`
		PublicClient           bool   `json:"publicClient"`
		ServiceAccountsEnabled bool   `json:"serviceAccountsEnabled"`
	} `json:"clients"`
	Roles struct {
		Realm []roleRep `json:"realm"`
	} `json:"roles"`
	Groups []groupRep `json:"groups"`
	Users  []userRep  `json:"users"`
}

type realmRep struct {
	ID                        string            `json:"id,omitempty"`
	Realm                     string            `json:"realm"`
	DisplayName               string            `json:"displayName,omitempty"`
	RegistrationEmail         *bool             `json:"registrationEmailAsUsername,omitempty"`
	AccessTokenLifespan       int               `json:"accessTokenLifespan,omitempty"`
	Enabled                   *bool             `json:"enabled,omitempty"`
	EditUsernameAllowed       *bool             `json:"editUsernameAllowed,omitempty"`
	BruteForceProtected       bool              `json:"bruteForceProtected"`
	EventsEnabled             *bool             `json:"eventsEnabled,omitempty"`
	EventsListeners           []string          `json:"eventsListeners,omitzero"`
	EnabledEventTypes         []string          `json:"enabledEventTypes,omitzero"`
	AdminEventsEnabled        *bool             `json:"adminEventsEnabled,omitempty"`
	AdminEventsDetailsEnabled *bool             `json:"adminEventsDetailsEnabled,omitempty"`
	SupportedLocales          []string          `json:"supportedLocales"`
	Attributes                map[string]string `json:"attributes,omitzero"`
	OrganizationsEnabled      bool              `json:"organizationsEnabled"`
}

func (r *Realm) rep(full bool) realmRep {
	rep := realmRep{Realm: r.name, DisplayName: r.displayName, SupportedLocales: []string{}, BruteForceProtected: r.bruteForce, OrganizationsEnabled: r.organizationsOn}
	if full {
		rep.ID, rep.AccessTokenLifespan = r.id, 300
		rep.Enabled, rep.EditUsernameAllowed = &r.enabled, &r.editUsername
		rep.EventsEnabled, rep.AdminEventsEnabled, rep.AdminEventsDetailsEnabled = &r.userEventsOn, &r.adminEventsOn, &r.detailsOn
		rep.EventsListeners, rep.EnabledEventTypes, rep.Attributes = r.listeners, r.enabledTypes, r.attributes
	}
	return rep
}

func (c *call) getServerInfo() reply {
	return ok(map[string]any{"profileInfo": map[string]any{"name": "default"}, "themes": map[string]any{}, "providers": map[string]any{}})
}

func (c *call) listRealms() reply {
	list := []realmRep{}
	for _, r := range c.s.realms {
		if c.caller.administrator || r == c.caller.realm {
			c.realm = r
			list = append(list, r.rep(c.may("view-realm", "manage-realm")))
		}
	}
	return ok(list)
}

// getRealm shows the realm's UUID only to who may view the realm.
func (c *call) getRealm() reply {
	rep := c.realm.rep(c.may("view-realm", "manage-realm"))
	if c.mayViewUsers() {
		rep.RegistrationEmail = new(bool)
	}
	return ok(rep)
}

func (c *call) createRealm() reply {
	var in realmInput
	if err := json.Unmarshal(c.body, &in); err != nil {
		return oauthFail(http.StatusBadRequest, "invalid_request", "Cannot parse the JSON")
	}
	if in.Realm == nil || *in.Realm == "" {
		return refuse(http.StatusBadRequest, "Realm name cannot be empty")
	}
	if c.s.realm(*in.Realm) != nil {
		return refuse(http.StatusConflict, fmt.Sprintf("Realm %s already exists", *in.Realm))
	}
	r := c.s.newRealm(*in.Realm, RealmOptions{Listeners: []string{"jboss-logging"}})
	r.enabled = in.Enabled != nil && *in.Enabled
	r.apply(&in)
	for _, rep := range in.Clients {
		cl := &client{id: rep.ID, clientID: rep.ClientID, secret: rep.Secret, public: rep.PublicClient}
		if cl.id == "" {
			cl.id = newID()
		}
		r.clients = append(r.clients, cl)
		if rep.ServiceAccountsEnabled && !slices.ContainsFunc(in.Users, func(u userRep) bool { return value(u.ServiceAccountClientID) == rep.ClientID }) {
			r.addServiceAccount(cl)
		}
	}
	for _, rep := range in.Roles.Realm {
		r.roles = append(r.roles, &role{id: orNewID(rep.ID), name: rep.Name, description: value(rep.Description)})
	}
	for _, rep := range in.Groups {
		r.groups = append(r.groups, &group{id: orNewID(rep.ID), name: rep.Name})
	}
	for i := range in.Users {
		r.importUser(&in.Users[i])
	}
	c.s.realms = append(c.s.realms, r)
	return c.created("/admin/realms/" + r.name)
}

func (r *Realm) apply(in *realmInput) {
	set(&r.name, in.Realm)
	set(&r.displayName, in.DisplayName)
	set(&r.enabled, in.Enabled)
	set(&r.editUsername, in.EditUsernameAllowed)
	set(&r.organizationsOn, in.OrganizationsEnabled)
	set(&r.bruteForce, in.BruteForceProtected)
	set(&r.failureFactor, in.FailureFactor)
	set(&r.adminEventsOn, in.AdminEventsEnabled)
	set(&r.detailsOn, in.AdminEventsDetailsEnabled)
	set(&r.userEventsOn, in.EventsEnabled)
	set(&r.eventsExpiration, in.EventsExpiration)
	set(&r.notBefore, in.NotBefore)
	if in.EventsListeners != nil {
		r.listeners = in.EventsListeners
	}
	if in.EnabledEventTypes != nil {
		r.enabledTypes = in.EnabledEventTypes
	}
	if in.Attributes != nil {
		r.attributes = in.Attributes
	}
}

func (c *call) updateRealm() reply {
	var in realmInput
	if err := json.Unmarshal(c.body, &in); err != nil {
		return oauthFail(http.StatusBadRequest, "invalid_request", "Cannot parse the JSON")
	}
	if in.Realm != nil && *in.Realm != c.realm.name && c.s.realm(*in.Realm) != nil {
		return refuse(http.StatusConflict, fmt.Sprintf("Realm %s already exists", *in.Realm))
	}
	c.realm.apply(&in)
	c.emit(adminEvent{op: opUpdate, resource: "REALM", representation: compact(c.body)})
	return noContent()
}

func (c *call) deleteRealm() reply {
	c.s.realms = slices.DeleteFunc(c.s.realms, func(r *Realm) bool { return r == c.realm })
	return noContent()
}

type eventsConfig struct {
	EventsEnabled             bool     `json:"eventsEnabled"`
	EventsExpiration          *int64   `json:"eventsExpiration,omitempty"`
	EventsListeners           []string `json:"eventsListeners"`
	EnabledEventTypes         []string `json:"enabledEventTypes"`
	AdminEventsEnabled        bool     `json:"adminEventsEnabled"`
	AdminEventsDetailsEnabled bool     `json:"adminEventsDetailsEnabled"`
}

func (c *call) getEventsConfig() reply {
	r := c.realm
	cfg := eventsConfig{
		EventsEnabled: r.userEventsOn, EventsListeners: r.listeners, EnabledEventTypes: r.savedTypes(),
		AdminEventsEnabled: r.adminEventsOn, AdminEventsDetailsEnabled: r.detailsOn,
	}
	if r.eventsExpiration > 0 {
		cfg.EventsExpiration = &r.eventsExpiration
	}
	return ok(cfg)
}

// putEventsConfig sets all that the realm saves: what the body leaves out is switched
// off or removed, the lists excepted.
func (c *call) putEventsConfig() reply {
	var in struct {
		EventsEnabled             bool      `json:"eventsEnabled"`
		EventsExpiration          *int64    `json:"eventsExpiration"`
		EventsListeners           *[]string `json:"eventsListeners"`
		EnabledEventTypes         *[]string `json:"enabledEventTypes"`
		AdminEventsEnabled        *bool     `json:"adminEventsEnabled"`
		AdminEventsDetailsEnabled *bool     `json:"adminEventsDetailsEnabled"`
	}
	if r, ok := c.decode(&in, "RealmEventsConfigRepresentation"); !ok {
		return r
	}
	r := c.realm
	if in.EventsListeners != nil {
		for _, l := range *in.EventsListeners {
			if !slices.Contains(knownListeners, l) {
				return fail(http.StatusBadRequest, "Unknown event listener")
			}
		}
	}
	r.userEventsOn = in.EventsEnabled
	r.eventsExpiration = value(in.EventsExpiration)
	set(&r.listeners, in.EventsListeners)
	set(&r.enabledTypes, in.EnabledEventTypes)
	set(&r.adminEventsOn, in.AdminEventsEnabled)
	set(&r.detailsOn, in.AdminEventsDetailsEnabled)
	// This call alone counts the configuration after it as well as the one before it.
	c.saves, c.tells = c.saves || r.adminEventsOn, c.tells || r.tells()
	c.emit(adminEvent{op: opUpdate, resource: "REALM", path: "events/config", representation: compact(c.body)})
	return noContent()
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func orNewID(id string) string {
	if id == "" {
		return newID()
	}
	return id
}
