package keycloak

import (
	"encoding/json"
	"strings"

	"github.com/google/uuid"
)

// StampPrefix begins the stamp that a keytrail write carries in its body.
// Keycloak ignores the field self of a user body and the field description of a
// role in a mapping body, and echoes both word for word in the admin event's
// representation (measured on 26.1.4 and 26.7.3), so a call and its event match
// exactly.
const StampPrefix = "urn:keytrail:call:"

// Stamp returns the stamp of a call.
func Stamp(callID string) string { return StampPrefix + callID }

// ParseStamp returns the call id in a stamp, in lower case. It reports false for
// everything that is not the prefix followed by a UUID.
func ParseStamp(s string) (callID string, ok bool) {
	rest, ok := strings.CutPrefix(s, StampPrefix)
	if !ok || len(rest) != 36 {
		return "", false
	}
	id, err := uuid.Parse(rest)
	if err != nil {
		return "", false
	}
	return id.String(), true
}

// StampOf reads the call id out of an admin event's representation: from self of
// an object, or from description of the first role of an array. Any
// administrator can write these fields, so a stamp is a claim to be checked
// against the call, not a proof.
func StampOf(representation string) (callID string, ok bool) {
	if !strings.Contains(representation, StampPrefix) {
		return "", false
	}
	fields := map[string]json.RawMessage{}
	key := "self"
	if strings.HasPrefix(strings.TrimLeft(representation, " \t\r\n"), "[") {
		var roles []json.RawMessage
		if json.Unmarshal([]byte(representation), &roles) != nil || len(roles) == 0 {
			return "", false
		}
		representation, key = string(roles[0]), "description"
	}
	if json.Unmarshal([]byte(representation), &fields) != nil {
		return "", false
	}
	var stamp string
	if json.Unmarshal(fields[key], &stamp) != nil {
		return "", false
	}
	return ParseStamp(stamp)
}
