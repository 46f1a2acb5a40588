package adapter

import "strings"

// ActorType says what kind of party acted.
type ActorType string

// The actor types of the outside contract.
const (
	ActorKeycloakUser   ActorType = "keycloak_user"
	ActorServiceAccount ActorType = "service_account"
	ActorCLI            ActorType = "cli"
	ActorToken          ActorType = "token"
	ActorSystem         ActorType = "system"
	ActorUnknown        ActorType = "unknown"
)

// Actor is who did it, as far as was known at that time: names are kept as they
// were, because accounts are renamed and deleted.
type Actor struct {
	Type     ActorType `json:"type"`
	ID       string    `json:"id,omitempty"`
	Username string    `json:"username,omitempty"`
	// Client is the application that was used: a client's internal UUID in Keycloak's
	// admin events, its client_id in user events.
	Client string `json:"client,omitempty"`
	IP     string `json:"ip,omitempty"`
}

// String names the actor for people: the user name where known, else the id.
func (a Actor) String() string {
	switch {
	case a.Username != "":
		return a.Username
	case a.ID != "":
		return a.ID
	case a.Type == "":
		return string(ActorUnknown)
	default:
		return string(a.Type)
	}
}

// serviceAccountPrefix starts the user name of every client's service account
// (Keycloak: ServiceAccountConstants.SERVICE_ACCOUNT_USER_PREFIX).
const serviceAccountPrefix = "service-account-"

// KeycloakActor is the actor of something that happened inside Keycloak.
func KeycloakActor(userID, username, client, ip string) Actor {
	a := Actor{Type: ActorKeycloakUser, ID: userID, Username: username, Client: client, IP: ip}
	switch {
	case strings.HasPrefix(username, serviceAccountPrefix):
		a.Type = ActorServiceAccount
	case userID == "" && username == "":
		a.Type = ActorUnknown
	}
	return a
}

// System is keytrail itself acting on its own account, in the part named.
func System(part string) Actor { return Actor{Type: ActorSystem, ID: "keytrail/" + part} }
