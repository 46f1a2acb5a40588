package adapter

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// AdminEventReceived records one Keycloak admin event, from wherever it came first.
type AdminEventReceived struct {
	// KeycloakEventID is Keycloak's own id of the event; empty where the sender gave
	// none (pull on 26.1 and older), then the stream's key is a fingerprint.
	KeycloakEventID string    `json:"keycloak_event_id,omitempty"`
	UID             string    `json:"uid,omitempty"`
	Time            time.Time `json:"time"`
	Realm           string    `json:"realm,omitempty"`
	RealmID         string    `json:"realm_id,omitempty"`
	OperationType   string    `json:"operation_type,omitempty"`
	ResourceType    string    `json:"resource_type,omitempty"`
	ResourcePath    string    `json:"resource_path,omitempty"`
	ResourceID      string    `json:"resource_id,omitempty"`
	// UserID is the user that the resource path is about, empty where it is about none.
	UserID string `json:"user_id,omitempty"`
	// Representation is the caller's request, not the resulting state. It is the
	// parsed JSON, or RepresentationText where what came was not JSON.
	Representation     json.RawMessage   `json:"representation,omitempty" seal:"representation"`
	RepresentationText string            `json:"representation_text,omitempty" seal:"representation"`
	Details            map[string]string `json:"details,omitempty" seal:"details"`
	Error              string            `json:"error,omitempty"`
	Actor              Actor             `json:"actor" seal:"actor"`
	ActorRealm         string            `json:"actor_realm,omitempty"`
	SessionID          string            `json:"session_id,omitempty"`
	Receipt
}

// UserEventReceived records one Keycloak user event (logins, registrations,
// self-service), from wherever it came first.
type UserEventReceived struct {
	KeycloakEventID string            `json:"keycloak_event_id,omitempty"`
	UID             string            `json:"uid,omitempty"`
	Time            time.Time         `json:"time"`
	Realm           string            `json:"realm,omitempty"`
	RealmID         string            `json:"realm_id,omitempty"`
	Type            string            `json:"type"`
	ClientID        string            `json:"client_id,omitempty"`
	UserID          string            `json:"user_id,omitempty"`
	SessionID       string            `json:"session_id,omitempty"`
	Error           string            `json:"error,omitempty"`
	Details         map[string]string `json:"details,omitempty" seal:"details"`
	Actor           Actor             `json:"actor" seal:"actor"`
	Receipt
}

// UnrecognizedEventReceived records a JSON object that no dialect knows. Its body is
// kept, so that a later version can interpret it.
type UnrecognizedEventReceived struct {
	// Members are the object's member names, without their values.
	Members []string `json:"members,omitempty"`
	Realm   string   `json:"realm,omitempty"`
	Receipt
}

// Receipt tells how a delivery reached us.
type Receipt struct {
	// Source is the configured source's name, "poll", or "lookup" where Keycloak was
	// asked for what the delivery lacked.
	Source string `json:"source"`
	// Dialect is the payload's shape: "p2", "keycloak" (also what a pull brings) or "unknown".
	Dialect string `json:"dialect"`
	// BodySHA256 is the digest (hex) of the body, which is kept apart.
	BodySHA256 string `json:"body_sha256"`
}

// DeliveryConfirmed records that the same Keycloak event was seen another way, where
// that adds facts or contradicts the first sighting.
type DeliveryConfirmed struct {
	Receipt
	// Added holds facts that the first sighting lacked, Differs the names of fields in
	// which the two disagree.
	Added   map[string]json.RawMessage `json:"added,omitempty" seal:"details"`
	Differs []string                   `json:"differs,omitempty"`
}

// DeliveryParked records that a delivery could not be interpreted. It is kept; later
// deliveries about the same user wait behind it, those of other users go on.
type DeliveryParked struct {
	Error string `json:"error"`
	// Attempts counts the tries so far, 0 for one that was not tried because it waits.
	Attempts int `json:"attempts"`
	// Behind is the event of the parked delivery that this one waits for.
	Behind *uuid.UUID `json:"behind,omitempty"`
}

// DeliveryReleased records that a parked delivery was interpreted after all.
type DeliveryReleased struct {
	Attempts int `json:"attempts"`
}

// Names of delivery events.
const (
	TypeAdminEventReceived        = "AdminEventReceived"
	TypeUserEventReceived         = "UserEventReceived"
	TypeUnrecognizedEventReceived = "UnrecognizedEventReceived"
	TypeDeliveryConfirmed         = "DeliveryConfirmed"
	TypeDeliveryParked            = "DeliveryParked"
	TypeDeliveryReleased          = "DeliveryReleased"
)

// EventType implements Payload.
func (*AdminEventReceived) EventType() string { return TypeAdminEventReceived }

// EventType implements Payload.
func (*UserEventReceived) EventType() string { return TypeUserEventReceived }

// EventType implements Payload.
func (*UnrecognizedEventReceived) EventType() string { return TypeUnrecognizedEventReceived }

// EventType implements Payload.
func (*DeliveryConfirmed) EventType() string { return TypeDeliveryConfirmed }

// EventType implements Payload.
func (*DeliveryParked) EventType() string { return TypeDeliveryParked }

// EventType implements Payload.
func (*DeliveryReleased) EventType() string { return TypeDeliveryReleased }

// Echo links a delivery to the call that caused it.
type Echo struct {
	// DeliveryEventID is the event that recorded the delivery.
	DeliveryEventID uuid.UUID `json:"delivery_event_id"`
	KeycloakEventID string    `json:"keycloak_event_id,omitempty"`
	// OccurredAt is Keycloak's time of the event.
	OccurredAt time.Time `json:"occurred_at"`
	// UserID is the user whom the event is about. Where the answer to a creation was
	// lost, nothing else tells it.
	UserID string `json:"user_id,omitempty"`
	// MatchedBy is "stamp" where the call's id was in the event, or "delete" where a
	// bodyless delete was matched by user, operation and actor.
	MatchedBy string `json:"matched_by"`
}
