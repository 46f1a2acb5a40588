package webhook

import (
	"bytes"
	"regexp"

	"github.com/keytrail/keytrail/keycloak"
)

// decodeKeycloak reads Keycloak's own events as listeners serialise them (p2's
// ext-event-http, the Kafka and pub/sub listeners) and as the Admin API returns
// them. An admin event has no type; a user event has one without a prefix.
// Explicit nulls are absent.
func decodeKeycloak(o object) (Delivery, bool) {
	if !o.has("time") {
		return Delivery{}, false
	}
	if !o.has("type") {
		if !o.has("operationType") || !o.has("resourceType") && !o.has("resourceTypeAsString") {
			return Delivery{}, false
		}
		return Delivery{Kind: KindAdmin, Admin: keycloakAdminEvent(o)}, true
	}
	// A realm is asked for because p2's custom events, which anybody may post,
	// have a type and a time but never a realm. USER-CREATE is another sender's.
	if o.has("operationType") || !o.has("realmId") && !o.has("realmName") || !eventType.MatchString(o.text("type")) {
		return Delivery{}, false
	}
	return Delivery{Kind: KindUser, User: keycloakUserEvent(o)}, true
}

// eventType is how EventType.java spells its constants.
var eventType = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// DecodeAdminEvent reads one element of GET /admin-events. It returns the errors
// of Decode for what is no JSON object, and otherwise always an admin event: the
// endpoint says what it is.
func DecodeAdminEvent(raw []byte) (Delivery, error) {
	o, err := parseObject(raw)
	if err != nil {
		return Delivery{}, err
	}
	return Delivery{Kind: KindAdmin, Admin: keycloakAdminEvent(o), Dialect: DialectKeycloak, Raw: bytes.Clone(raw)}, nil
}

// DecodeUserEvent reads one element of GET /events, with the errors of Decode for
// what is no JSON object.
func DecodeUserEvent(raw []byte) (Delivery, error) {
	o, err := parseObject(raw)
	if err != nil {
		return Delivery{}, err
	}
	return Delivery{Kind: KindUser, User: keycloakUserEvent(o), Dialect: DialectKeycloak, Raw: bytes.Clone(raw)}, nil
}

func keycloakAdminEvent(o object) *keycloak.AdminEvent {
	e := adminEvent(o)
	e.RealmID, e.RealmName = o.text("realmId"), o.text("realmName")
	auth := o.object("authDetails")
	e.Auth.RealmID, e.Auth.RealmName = auth.text("realmId"), auth.text("realmName")
	return e
}

func keycloakUserEvent(o object) *keycloak.UserEvent {
	return &keycloak.UserEvent{
		ID:        o.text("id"),
		Time:      o.time("time"),
		Type:      o.text("type"),
		RealmID:   o.text("realmId"),
		RealmName: o.text("realmName"),
		ClientID:  o.text("clientId"),
		UserID:    o.text("userId"),
		SessionID: o.text("sessionId"),
		IPAddress: o.text("ipAddress"),
		Error:     o.text("error"),
		Details:   o.details("details"),
	}
}

// adminEvent reads what all dialects of admin events agree on; realms are theirs.
func adminEvent(o object) *keycloak.AdminEvent {
	auth := o.object("authDetails")
	e := &keycloak.AdminEvent{
		ID:                o.text("id"),
		Time:              o.time("time"),
		OperationType:     o.text("operationType"),
		ResourceType:      o.text("resourceType"),
		ResourcePath:      o.text("resourcePath"),
		ResourceID:        o.text("resourceId"),
		Representation:    o.text("representation"),
		HasRepresentation: o.has("representation"),
		Details:           o.details("details"),
		Error:             o.text("error"),
		Auth: keycloak.AuthDetails{
			ClientID:  auth.text("clientId"),
			UserID:    auth.text("userId"),
			IPAddress: auth.text("ipAddress"),
		},
	}
	// For an extension's type, resourceType is CUSTOM and the real name is in
	// resourceTypeAsString (AdminEvent.java).
	if name := o.text("resourceTypeAsString"); name != "" {
		e.ResourceType = name
	}
	return e
}
