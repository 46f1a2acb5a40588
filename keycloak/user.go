package keycloak

import "encoding/json"

// User is Keycloak's UserRepresentation as the Admin API gives it.
//
// Pointers tell absent from empty. A brief listing leaves Attributes out, so nil
// there means "not told" and an empty map "none". Credentials are never listed.
type User struct {
	// ID is not always a UUID: a federated user is f:component:external.
	ID            string              `json:"id"`
	Username      string              `json:"username"`
	Email         *string             `json:"email,omitempty"`
	FirstName     *string             `json:"firstName,omitempty"`
	LastName      *string             `json:"lastName,omitempty"`
	Enabled       *bool               `json:"enabled,omitempty"`
	EmailVerified *bool               `json:"emailVerified,omitempty"`
	Attributes    map[string][]string `json:"attributes,omitzero"`
	// RequiredActions replaces the whole list when written.
	RequiredActions []string `json:"requiredActions,omitzero"`
	// CreatedTimestamp is in milliseconds since 1970. Keycloak ignores it in writes.
	CreatedTimestamp *int64 `json:"createdTimestamp,omitempty"`
	// NotBefore is in seconds since 1970: tokens issued before it are refused.
	NotBefore              *int64  `json:"notBefore,omitempty"`
	TOTP                   *bool   `json:"totp,omitempty"`
	FederationLink         *string `json:"federationLink,omitempty"`
	Origin                 *string `json:"origin,omitempty"`
	ServiceAccountClientID *string `json:"serviceAccountClientId,omitempty"`
}

// Role is a RoleRepresentation, as in role mappings.
type Role struct {
	ID          string  `json:"id,omitempty"`
	Name        string  `json:"name"`
	Description *string `json:"description,omitempty"`
	Composite   bool    `json:"composite"`
	ClientRole  bool    `json:"clientRole"`
	ContainerID string  `json:"containerId,omitempty"`
}

// ClientRoles are the roles of one client that a user has.
type ClientRoles struct {
	// ID is the client's UUID, Client its client_id.
	ID       string `json:"id"`
	Client   string `json:"client"`
	Mappings []Role `json:"mappings"`
}

// RoleMappings are the roles that a user has directly, without those that come
// through groups or composites (GET /users/{id}/role-mappings).
type RoleMappings struct {
	RealmMappings  []Role                 `json:"realmMappings"`
	ClientMappings map[string]ClientRoles `json:"clientMappings"`
}

// Group is a brief GroupRepresentation. Path is the full path, such as /staff/night.
type Group struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Path string `json:"path"`
}

// Realm is the part of a RealmRepresentation that keytrail reads.
type Realm struct {
	// ID is the realm's own id and survives a rename; Name is in every URL.
	ID                        string   `json:"id"`
	Name                      string   `json:"realm"`
	DisplayName               string   `json:"displayName"`
	Enabled                   bool     `json:"enabled"`
	EventsEnabled             bool     `json:"eventsEnabled"`
	EventsListeners           []string `json:"eventsListeners"`
	AdminEventsEnabled        bool     `json:"adminEventsEnabled"`
	AdminEventsDetailsEnabled bool     `json:"adminEventsDetailsEnabled"`
	// DuplicateEmailsAllowed permits several users with one address.
	DuplicateEmailsAllowed bool              `json:"duplicateEmailsAllowed"`
	Attributes             map[string]string `json:"attributes"`
}

// EventsConfig is a realm's event configuration (GET /events/config). Listeners
// get every event whatever the flags say; the flags decide what is stored, and
// so what a pull can find.
type EventsConfig struct {
	EventsEnabled             bool     `json:"eventsEnabled"`
	EventsExpiration          int64    `json:"eventsExpiration"` // seconds; 0 keeps for ever
	EventsListeners           []string `json:"eventsListeners"`
	EnabledEventTypes         []string `json:"enabledEventTypes"`
	AdminEventsEnabled        bool     `json:"adminEventsEnabled"`
	AdminEventsDetailsEnabled bool     `json:"adminEventsDetailsEnabled"`
}

// ServerInfo is what GET /admin/serverinfo tells. Version is empty for most
// service accounts: Keycloak 26.7.3 hides systemInfo from them, 26.1.4 shows it.
type ServerInfo struct {
	Version  string
	Features []json.RawMessage
}
