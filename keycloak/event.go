package keycloak

import "time"

// Operation types of admin events (OperationType.java). Others are kept as sent.
const (
	OperationCreate = "CREATE"
	OperationUpdate = "UPDATE"
	OperationDelete = "DELETE"
	OperationAction = "ACTION"
)

// Resource types of admin events that concern a user (ResourceType.java).
// Keycloak and its extensions add new ones; they are kept as sent.
const (
	ResourceRealm                  = "REALM"
	ResourceRealmRole              = "REALM_ROLE"
	ResourceRealmRoleMapping       = "REALM_ROLE_MAPPING"
	ResourceClient                 = "CLIENT"
	ResourceClientRole             = "CLIENT_ROLE"
	ResourceClientRoleMapping      = "CLIENT_ROLE_MAPPING"
	ResourceUser                   = "USER"
	ResourceUserLoginFailure       = "USER_LOGIN_FAILURE"
	ResourceUserSession            = "USER_SESSION"
	ResourceGroup                  = "GROUP"
	ResourceGroupMembership        = "GROUP_MEMBERSHIP"
	ResourceOrganization           = "ORGANIZATION"
	ResourceOrganizationMembership = "ORGANIZATION_MEMBERSHIP"
)

// AdminEvent is one administrative change as Keycloak reported it, pushed by a
// webhook or pulled from GET /admin-events.
//
// The two ways fill different fields: a pull has no UID, RealmName, ResourceID,
// Auth.Username, Auth.SessionID or Auth.RealmName, and before Keycloak 26.2 or
// later no ID and no Details either. Canonical fields are equal in both.
type AdminEvent struct {
	// ID is Keycloak's event UUID, equal in push and pull. Empty in pushes of
	// p2 before 0.40 and in pulls from Keycloak 26.1.4.
	ID string
	// UID is the sender's own id: one per webhook and event, stable over
	// retries (p2). Empty for other senders.
	UID string
	// Time is when Keycloak built the event, before its commit, in UTC with
	// millisecond precision. Zero when the event carries no readable time.
	Time time.Time
	// RealmID is the realm's id, nearly always a UUID; RealmName its name.
	// Either may be empty. Older p2 sends only the name.
	RealmID, RealmName string
	// Auth is who did it.
	Auth AuthDetails
	// OperationType, ResourceType and ResourcePath say what was done to what.
	// The subject's id is in the path; see ParseResourcePath. REALM UPDATE has
	// no path.
	OperationType, ResourceType, ResourcePath string
	// ResourceID is the last path segment by Keycloak's account of it, so for
	// users/{id}/reset-password it is "reset-password" and not the user's id.
	ResourceID string
	// Representation is the request body that the administrator sent, as JSON
	// text, as Keycloak passed it on. It is not the resulting state: it may be
	// partial, and is not always JSON. Empty when HasRepresentation is false.
	Representation    string
	HasRepresentation bool
	Details           map[string]string
	// Error is in practice always empty: a failed admin call emits nothing.
	Error string
}

// AuthDetails is who caused an event and from where.
type AuthDetails struct {
	// RealmID and RealmName are the actor's realm, which for administrators of
	// the master realm differs from the event's. p2 sends the name, Keycloak's
	// Admin API the id.
	RealmID, RealmName string
	// ClientID is the client's internal UUID in admin events and the client_id
	// in user events.
	ClientID  string
	UserID    string
	Username  string
	IPAddress string
	SessionID string
}

// UserEvent is one thing that a user did or tried, pushed by a webhook or pulled
// from GET /events.
type UserEvent struct {
	ID, UID string
	// Time is as in AdminEvent.
	Time time.Time
	// Type is Keycloak's EventType without a sender's prefix, such as LOGIN or
	// UPDATE_PROFILE. Failures end in _ERROR.
	Type               string
	RealmID, RealmName string
	// ClientID is the client_id, not the client's UUID.
	ClientID string
	// UserID is empty when Keycloak could not tell who it was.
	UserID   string
	Username string
	// ActorRealmName is the realm that p2 names in authDetails.
	ActorRealmName string
	SessionID      string
	IPAddress      string
	// Error is Keycloak's error code of a failed attempt, such as
	// invalid_user_credentials.
	Error string
	// Details are Keycloak's; several values of one key are joined with "::".
	Details map[string]string
}
