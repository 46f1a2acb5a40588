package adapter

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Stream categories.
const (
	CategoryDelivery       = "delivery"
	CategoryUser           = "user"
	CategoryCall           = "call"
	CategoryReconciliation = "reconciliation"
)

// DeliveryStream is the stream of one inbound Keycloak event. The key is Keycloak's
// event id, or a fingerprint where the event has none. Version 1 can exist once:
// deduplication is optimistic concurrency.
func DeliveryStream(key string) eventstore.StreamID {
	return eventstore.NamedStream(CategoryDelivery, key)
}

// UserStream is the stream of one user of one realm.
func UserStream(realm, userID string) eventstore.StreamID {
	return eventstore.NamedStream(CategoryUser, realm, userID)
}

// UserOfStream is the inverse of UserStream.
func UserOfStream(s eventstore.StreamID) (realm, userID string, err error) {
	parts, err := s.Parts()
	if err != nil {
		return "", "", err
	}
	if s.Category() != CategoryUser || len(parts) != 2 {
		return "", "", fmt.Errorf("stream %s is not a user's", s)
	}
	return parts[0], parts[1], nil
}

// CallStream is the stream of one outbound Admin API call.
func CallStream(callID uuid.UUID) eventstore.StreamID {
	return eventstore.UUIDStream(CategoryCall, callID)
}

// ReconciliationStream is the stream of one reconciliation run.
func ReconciliationStream(runID uuid.UUID) eventstore.StreamID {
	return eventstore.UUIDStream(CategoryReconciliation, runID)
}
