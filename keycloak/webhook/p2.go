package webhook

import (
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/keycloak"
)

// decodeP2 reads the payload of Phase Two's ext-event-webhook
// (p2-inc/keycloak-events, ExtendedAdminEvent.java and ExtendedAuthDetails.java):
// one flat shape for both kinds of event, told apart by the prefix of type.
//
//	admin.<RESOURCE_TYPE>-<OPERATION>   an admin event
//	access.<EVENT_TYPE>                 a user event
//	system.<…> and anything else        not Keycloak's; kept as unrecognized
//
// What differs from Keycloak's own events:
//   - a user event has its client, user, session and address in authDetails;
//   - authDetails.realmId is the name of the actor's realm, not its id;
//   - from 0.6 to 0.39 an admin event's realmId is the realm's name.
func decodeP2(o object) (Delivery, bool) {
	prefix, rest, ok := strings.Cut(o.text("type"), ".")
	// Others borrowed these types, with occurredAt in place of time.
	if !ok || rest == "" || !o.has("time") || o.has("occurredAt") {
		return Delivery{}, false
	}
	switch prefix {
	case "admin":
		return Delivery{Kind: KindAdmin, Admin: p2AdminEvent(o, rest)}, true
	case "access":
		return Delivery{Kind: KindUser, User: p2UserEvent(o, rest)}, true
	case "system":
		return Delivery{Kind: KindUnrecognized}, true
	}
	return Delivery{}, false
}

func p2AdminEvent(o object, shortType string) *keycloak.AdminEvent {
	e := adminEvent(o)
	e.UID = o.text("uid")
	e.RealmID, e.RealmName = p2Realm(o)
	// The type says the same again; older or foreign builds may say it only there.
	if i := strings.LastIndexByte(shortType, '-'); i >= 0 {
		if e.ResourceType == "" {
			e.ResourceType = shortType[:i]
		}
		if e.OperationType == "" {
			e.OperationType = shortType[i+1:]
		}
	} else if e.ResourceType == "" {
		e.ResourceType = shortType
	}
	auth := o.object("authDetails")
	e.Auth.RealmID, e.Auth.RealmName = p2ActorRealm(auth)
	e.Auth.Username = auth.text("username")
	e.Auth.SessionID = auth.text("sessionId")
	return e
}

func p2UserEvent(o object, eventType string) *keycloak.UserEvent {
	auth := o.object("authDetails")
	e := &keycloak.UserEvent{
		ID:        o.text("id"),
		UID:       o.text("uid"),
		Time:      o.time("time"),
		Type:      eventType,
		ClientID:  auth.text("clientId"),
		UserID:    auth.text("userId"),
		Username:  auth.text("username"),
		SessionID: auth.text("sessionId"),
		IPAddress: auth.text("ipAddress"),
		Error:     o.text("error"),
		Details:   o.details("details"),
	}
	e.RealmID, e.RealmName = p2Realm(o)
	_, e.ActorRealmName = p2ActorRealm(auth)
	return e
}

// p2Realm returns the event's realm. Without a realmName, a realmId that is no
// UUID is the name.
func p2Realm(o object) (id, name string) {
	id, name = o.text("realmId"), o.text("realmName")
	if name == "" && !isUUID(id) {
		return "", id
	}
	return id, name
}

func p2ActorRealm(auth object) (id, name string) {
	id, name = auth.text("realmId"), auth.text("realmName")
	if name == "" && !isUUID(id) {
		return "", id
	}
	return id, name
}

func isUUID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }
