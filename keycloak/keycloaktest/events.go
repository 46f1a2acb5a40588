package keycloaktest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	opCreate = "CREATE"
	opUpdate = "UPDATE"
	opDelete = "DELETE"
	opAction = "ACTION"
)

// adminEvent is one admin event with all that either form of it shows.
type adminEvent struct {
	id             string
	time           int64
	realmID        string
	realmName      string
	actorRealmID   string
	actorRealmName string
	clientUUID     string
	userID         string
	username       string
	ip             string
	sessionID      string
	op             string
	resource       string
	path           string
	representation []byte // nil where the event has none
	details        map[string]string
	// subjectName is the user's name where the path is users/{id}: the sender adds it.
	subjectName string
}

// userEvent is one user event with all that either form of it shows.
type userEvent struct {
	id                         string
	time                       int64
	realmID, realmName         string
	typ, err                   string
	clientID, userID, username string
	sessionID, ip              string
	details                    map[string]string
}

// pulledAdminEvent is an admin event as GET admin-events shows it: the actor's realm
// by its UUID, and none of what the sender adds.
type pulledAdminEvent struct {
	ID             string            `json:"id"`
	Time           int64             `json:"time"`
	RealmID        string            `json:"realmId"`
	AuthDetails    authDetails       `json:"authDetails"`
	OperationType  string            `json:"operationType"`
	ResourceType   string            `json:"resourceType"`
	ResourcePath   string            `json:"resourcePath,omitempty"`
	Representation string            `json:"representation,omitempty"`
	Details        map[string]string `json:"details,omitempty"`
}

type pulledUserEvent struct {
	ID        string            `json:"id"`
	Time      int64             `json:"time"`
	Type      string            `json:"type"`
	RealmID   string            `json:"realmId"`
	ClientID  string            `json:"clientId,omitempty"`
	UserID    string            `json:"userId,omitempty"`
	SessionID string            `json:"sessionId,omitempty"`
	IPAddress string            `json:"ipAddress"`
	Error     string            `json:"error,omitempty"`
	Details   map[string]string `json:"details,omitempty"`
}

// pushedEvent is either kind of event as the webhook sender writes it: the actor's
// realm by its name.
type pushedEvent struct {
	ID             string            `json:"id"`
	Time           int64             `json:"time"`
	RealmID        string            `json:"realmId"`
	RealmName      string            `json:"realmName"`
	Error          string            `json:"error,omitempty"`
	OperationType  string            `json:"operationType,omitempty"`
	ResourcePath   string            `json:"resourcePath,omitempty"`
	Representation string            `json:"representation,omitempty"`
	UID            string            `json:"uid"`
	AuthDetails    authDetails       `json:"authDetails"`
	Details        map[string]string `json:"details"`
	Type           string            `json:"type"`
	ResourceID     string            `json:"resourceId,omitempty"`
	ResourceType   string            `json:"resourceType,omitempty"`
}

type authDetails struct {
	RealmID   string `json:"realmId,omitempty"`
	ClientID  string `json:"clientId,omitempty"`
	UserID    string `json:"userId,omitempty"`
	IPAddress string `json:"ipAddress,omitempty"`
	Username  string `json:"username,omitempty"`
	SessionID string `json:"sessionId,omitempty"`
}

func (e *adminEvent) pulled(withDetails bool) pulledAdminEvent {
	p := pulledAdminEvent{
		ID: e.id, Time: e.time, RealmID: e.realmID, OperationType: e.op, ResourceType: e.resource, ResourcePath: e.path, Details: e.details,
		AuthDetails: authDetails{RealmID: e.actorRealmID, ClientID: e.clientUUID, UserID: e.userID, IPAddress: e.ip},
	}
	if withDetails {
		p.Representation = string(e.representation)
	}
	return p
}

func (e *adminEvent) pushed() pushedEvent {
	p := pushedEvent{
		ID: e.id, Time: e.time, RealmID: e.realmID, RealmName: e.realmName, OperationType: e.op, ResourceType: e.resource,
		ResourcePath: e.path, Representation: string(e.representation), Type: "admin." + e.resource + "-" + e.op,
		AuthDetails: authDetails{
			RealmID: e.actorRealmName, ClientID: e.clientUUID, UserID: e.userID, IPAddress: e.ip, Username: e.username, SessionID: e.sessionID,
		},
		Details: map[string]string{},
	}
	for k, v := range e.details {
		p.Details[k] = v
	}
	if e.path != "" {
		segments := strings.Split(e.path, "/")
		p.ResourceID = segments[len(segments)-1]
		if len(segments) == 2 && segments[0] == "users" && uuid.Validate(segments[1]) == nil {
			p.Details["userId"] = segments[1]
			if e.subjectName != "" {
				p.Details["username"] = e.subjectName
			}
		}
	}
	return p
}

// pulled has a session at a person's login only; the push has it wherever there is one.
func (e *userEvent) pulled() pulledUserEvent {
	p := pulledUserEvent{
		ID: e.id, Time: e.time, Type: e.typ, RealmID: e.realmID, ClientID: e.clientID, UserID: e.userID, SessionID: e.sessionID,
		IPAddress: e.ip, Error: e.err, Details: e.details,
	}
	if e.typ != "LOGIN" {
		p.SessionID = ""
	}
	return p
}

func (e *userEvent) pushed() pushedEvent {
	p := pushedEvent{
		ID: e.id, Time: e.time, RealmID: e.realmID, RealmName: e.realmName, Error: e.err, Type: "access." + e.typ, Details: e.details,
		AuthDetails: authDetails{RealmID: e.realmName, ClientID: e.clientID, UserID: e.userID, IPAddress: e.ip, Username: e.username, SessionID: e.sessionID},
	}
	if p.Details == nil {
		p.Details = map[string]string{}
	}
	return p
}

// emit saves and sends the admin event of a call that succeeded.
func (c *call) emit(e adminEvent) {
	r := c.realm
	e.id, e.time = newID(), c.s.now()
	e.realmID, e.realmName = r.id, r.name
	e.actorRealmID, e.actorRealmName = c.caller.realm.id, c.caller.realm.name
	e.clientUUID, e.userID, e.username = c.caller.client.id, c.caller.userID, c.caller.user.Username
	e.ip, e.sessionID = clientIP(c.Request), c.caller.sessionID
	if id, found := strings.CutPrefix(e.path, "users/"); found {
		if u := r.users[id]; u != nil {
			e.subjectName = u.Username
		}
	}
	if c.saves && !c.s.storeOff {
		if !r.detailsOn {
			stored := e
			stored.representation = nil
			r.adminEvents = append(r.adminEvents, &stored)
		} else {
			r.adminEvents = append(r.adminEvents, &e)
		}
	}
	if c.tells {
		pushed := e.pushed()
		if c.s.spoilLeft > 0 && pushed.Representation != "" {
			c.s.spoilLeft--
			pushed.Representation = c.s.spoil(pushed.Representation)
		}
		c.s.send(r, e.id, pushed)
	}
}

// tells says whether the realm has the listener that sends webhooks.
func (r *Realm) tells() bool { return slices.Contains(r.listeners, webhookListener) }

// emitUserEvent saves and sends a user event.
func (s *Server) emitUserEvent(r *Realm, e userEvent) {
	e.id, e.time = newID(), s.now()
	e.realmID, e.realmName = r.id, r.name
	if e.ip == "" {
		e.ip = "127.0.0.1"
	}
	if r.userEventsOn && !s.storeOff && slices.Contains(r.savedTypes(), e.typ) {
		r.userEvents = append(r.userEvents, &e)
	}
	if r.tells() {
		s.send(r, e.id, e.pushed())
	}
}

func (r *Realm) savedTypes() []string {
	if len(r.enabledTypes) > 0 {
		return r.enabledTypes
	}
	return savedByDefault
}

// savedByDefault are the user events that Keycloak saves unless told otherwise; each has
// an _ERROR beside it.
var savedByDefault = withErrors(
	"LOGIN", "REGISTER", "LOGOUT", "CODE_TO_TOKEN", "CLIENT_LOGIN", "FEDERATED_IDENTITY_LINK", "REMOVE_FEDERATED_IDENTITY",
	"UPDATE_EMAIL", "UPDATE_PROFILE", "UPDATE_PASSWORD", "UPDATE_TOTP", "VERIFY_EMAIL", "VERIFY_PROFILE", "REMOVE_TOTP",
	"GRANT_CONSENT", "UPDATE_CONSENT", "REVOKE_GRANT", "SEND_VERIFY_EMAIL", "SEND_RESET_PASSWORD", "SEND_IDENTITY_PROVIDER_LINK",
	"RESET_PASSWORD", "RESTART_AUTHENTICATION", "IDENTITY_PROVIDER_LINK_ACCOUNT", "IDENTITY_PROVIDER_FIRST_LOGIN",
	"IDENTITY_PROVIDER_POST_LOGIN", "IMPERSONATE", "CUSTOM_REQUIRED_ACTION", "EXECUTE_ACTIONS", "EXECUTE_ACTION_TOKEN",
	"CLIENT_REGISTER", "CLIENT_UPDATE", "CLIENT_DELETE", "CLIENT_INITIATED_ACCOUNT_LINKING", "TOKEN_EXCHANGE",
	"OAUTH2_DEVICE_AUTH", "OAUTH2_DEVICE_VERIFY_USER_CODE", "OAUTH2_DEVICE_CODE_TO_TOKEN", "AUTHREQID_TO_TOKEN",
	"PERMISSION_TOKEN", "DELETE_ACCOUNT", "USER_DISABLED_BY_PERMANENT_LOCKOUT", "USER_DISABLED_BY_TEMPORARY_LOCKOUT",
	"OAUTH2_EXTENSION_GRANT", "FEDERATED_IDENTITY_OVERRIDE_LINK", "UPDATE_CREDENTIAL", "REMOVE_CREDENTIAL", "INVITE_ORG",
)

// notSavedByDefault are the others.
var notSavedByDefault = withErrors(
	"REFRESH_TOKEN", "VALIDATE_ACCESS_TOKEN", "INTROSPECT_TOKEN", "INVALID_SIGNATURE", "REGISTER_NODE", "UNREGISTER_NODE",
	"USER_INFO_REQUEST", "IDENTITY_PROVIDER_LOGIN", "IDENTITY_PROVIDER_RESPONSE", "IDENTITY_PROVIDER_RETRIEVE_TOKEN",
	"CLIENT_INFO", "PUSHED_AUTHORIZATION_REQUEST",
)

func withErrors(types ...string) []string {
	var all []string
	for _, t := range types {
		all = append(all, t, t+"_ERROR")
	}
	return all
}

var resourceTypes = strings.Fields(`REALM REALM_ROLE REALM_ROLE_MAPPING REALM_SCOPE_MAPPING AUTH_FLOW AUTH_EXECUTION_FLOW
	AUTH_EXECUTION AUTHENTICATOR_CONFIG REQUIRED_ACTION_CONFIG REQUIRED_ACTION IDENTITY_PROVIDER IDENTITY_PROVIDER_MAPPER
	PROTOCOL_MAPPER USER USER_LOGIN_FAILURE USER_SESSION USER_FEDERATION_PROVIDER USER_FEDERATION_MAPPER GROUP
	GROUP_MEMBERSHIP CLIENT CLIENT_INITIAL_ACCESS_MODEL CLIENT_ROLE CLIENT_ROLE_MAPPING CLIENT_SCOPE CLIENT_SCOPE_MAPPING
	CLIENT_SCOPE_CLIENT_MAPPING CLUSTER_NODE COMPONENT AUTHORIZATION_RESOURCE_SERVER AUTHORIZATION_RESOURCE
	AUTHORIZATION_SCOPE AUTHORIZATION_POLICY CUSTOM USER_PROFILE ORGANIZATION ORGANIZATION_MEMBERSHIP ORGANIZATION_GROUP
	ORGANIZATION_GROUP_MEMBERSHIP`)

var operationTypes = []string{opCreate, opUpdate, opDelete, opAction}

// eventQuery is what both lists of events can be asked for.
type eventQuery struct {
	first, limit int
	from, to     int64 // ms, inclusive; 0 is open
	ascending    bool
}

func (c *call) eventQuery() (q eventQuery, refused reply, good bool) {
	var ok1, ok2 bool
	q.first, ok1 = c.number("first", 0)
	q.limit, ok2 = c.number("max", 100)
	if !ok1 || !ok2 {
		return q, notFoundPage(), false
	}
	query := c.URL.Query()
	var valid bool
	if q.from, valid = eventTime(query.Get("dateFrom"), 0); !valid {
		return q, fail(http.StatusBadRequest, "Invalid value for 'dateFrom', expected format is yyyy-MM-dd or an Epoch timestamp"), false
	}
	if q.to, valid = eventTime(query.Get("dateTo"), 24*time.Hour-time.Millisecond); !valid {
		return q, fail(http.StatusBadRequest, "Invalid value for 'dateTo', expected format is yyyy-MM-dd or an Epoch timestamp"), false
	}
	switch strings.ToLower(query.Get("direction")) {
	case "", "desc":
	case "asc":
		q.ascending = true
	default:
		return q, fail(http.StatusBadRequest, "Invalid value for sortDirection, expected value is asc or desc"), false
	}
	return q, reply{}, true
}

// eventTime reads yyyy-MM-dd, in the server's time zone, or milliseconds.
func eventTime(v string, endOfDay time.Duration) (int64, bool) {
	if v == "" {
		return 0, true
	}
	if ms, err := strconv.ParseInt(v, 10, 64); err == nil {
		return ms, true
	}
	day, err := time.ParseInLocation(time.DateOnly, v, time.Local)
	return day.Add(endOfDay).UnixMilli(), err == nil
}

// selectEvents filters, orders by time and cuts the page. The order of equal times is
// that of their saving, which Keycloak does not promise.
func selectEvents[E any](events []*E, q eventQuery, at func(*E) int64, keep func(*E) bool) []*E {
	var list []*E
	for _, e := range events {
		if t := at(e); (q.from == 0 || t >= q.from) && (q.to == 0 || t <= q.to) && keep(e) {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b *E) int { return int(at(a) - at(b)) })
	if !q.ascending {
		slices.Reverse(list)
	}
	return page(list, q.first, q.limit)
}

func oneOf(wanted []string, have string) bool {
	return len(wanted) == 0 || slices.Contains(wanted, have)
}

func anyUnknown(wanted, known []string) bool {
	return slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(known, w) })
}

func equalOrEmpty(wanted, have string) bool { return wanted == "" || wanted == have }

func (c *call) listAdminEvents() reply {
	if c.s.storeOff {
		return serverError()
	}
	q, refused, good := c.eventQuery()
	if !good {
		return refused
	}
	query := c.URL.Query()
	operations, resources := query["operationTypes"], query["resourceTypes"]
	if anyUnknown(operations, operationTypes) || anyUnknown(resources, resourceTypes) {
		return serverError()
	}
	pathPattern := query.Get("resourcePath")
	events := selectEvents(c.realm.adminEvents, q, func(e *adminEvent) int64 { return e.time }, func(e *adminEvent) bool {
		return oneOf(operations, e.op) && oneOf(resources, e.resource) &&
			equalOrEmpty(query.Get("authRealm"), e.actorRealmID) && equalOrEmpty(query.Get("authClient"), e.clientUUID) &&
			equalOrEmpty(query.Get("authUser"), e.userID) && equalOrEmpty(query.Get("authIpAddress"), e.ip) &&
			(pathPattern == "" || like(pathPattern, e.path))
	})
	list := []pulledAdminEvent{}
	for _, e := range events {
		list = append(list, e.pulled(true))
	}
	return ok(list)
}

// like compares with * as the wildcard.
func like(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	rest, found := strings.CutPrefix(s, parts[0])
	if !found {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

func (c *call) listUserEvents() reply {
	if c.s.storeOff {
		return serverError()
	}
	q, refused, good := c.eventQuery()
	if !good {
		return refused
	}
	query := c.URL.Query()
	types := query["type"]
	if anyUnknown(types, slices.Concat(savedByDefault, notSavedByDefault)) {
		return serverError()
	}
	events := selectEvents(c.realm.userEvents, q, func(e *userEvent) int64 { return e.time }, func(e *userEvent) bool {
		return oneOf(types, e.typ) && equalOrEmpty(query.Get("client"), e.clientID) &&
			equalOrEmpty(query.Get("user"), e.userID) && equalOrEmpty(query.Get("ipAddress"), e.ip)
	})
	list := []pulledUserEvent{}
	for _, e := range events {
		list = append(list, e.pulled())
	}
	return ok(list)
}

// clearAdminEvents and clearUserEvents empty the store; no event tells of it.
func (c *call) clearAdminEvents() reply {
	c.realm.adminEvents = nil
	return noContent()
}

func (c *call) clearUserEvents() reply {
	c.realm.userEvents = nil
	return noContent()
}

// compact is a body as an event shows it.
func compact(body []byte) []byte {
	var buf bytes.Buffer
	if err := json.Compact(&buf, body); err != nil {
		return body
	}
	return buf.Bytes()
}
