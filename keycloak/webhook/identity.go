package webhook

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
	"strconv"
	"time"
)

// KeycloakEventID is the id to deduplicate by: Keycloak's event id, which push and
// pull share, else the sender's uid, which its retries share. Empty when there is
// neither; then use Fingerprint.
func (d Delivery) KeycloakEventID() string {
	var id, uid string
	switch {
	case d.Admin != nil:
		id, uid = d.Admin.ID, d.Admin.UID
	case d.User != nil:
		id, uid = d.User.ID, d.User.UID
	}
	if id != "" {
		return id
	}
	return uid
}

// Fingerprint is a hash, in hex, over the fields that a push and a pull of the same
// event have in common: realm, time, type or operation and resource, path, actor,
// client, address, error and the representation or, for a user event, the details.
// A session is not among them: p2 pushes one for CLIENT_LOGIN that the pull lacks.
// It serves where one side has no id (pulls from Keycloak 26.1).
//
// Two events may share a fingerprint (the same change twice in a millisecond), so
// treat equal ones from one side as distinct, in number. A realm is compared by
// RealmID where there is one: fill it in first for senders that only know the
// name. A realm that does not store representations pulls other fingerprints
// than were pushed. An unrecognized delivery's fingerprint is over its bytes.
func (d Delivery) Fingerprint() string {
	h := sha256.New()
	switch {
	case d.Admin != nil:
		e := d.Admin
		writeFields(h, "admin", realmKey(e.RealmID, e.RealmName), millis(e.Time), e.OperationType, e.ResourceType,
			e.ResourcePath, e.Auth.UserID, e.Auth.ClientID, e.Auth.IPAddress, e.Error,
			strconv.FormatBool(e.HasRepresentation), e.Representation)
	case d.User != nil:
		e := d.User
		writeFields(h, "user", realmKey(e.RealmID, e.RealmName), millis(e.Time), e.Type,
			e.UserID, e.ClientID, e.IPAddress, e.Error)
		keys := make([]string, 0, len(e.Details))
		for key := range e.Details {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			writeFields(h, key, e.Details[key])
		}
	default:
		writeFields(h, "raw", string(d.Raw))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// writeFields writes each field after its length, so that no two lists of fields
// have the same bytes.
func writeFields(h hash.Hash, fields ...string) {
	var length [8]byte
	for _, f := range fields {
		binary.BigEndian.PutUint64(length[:], uint64(len(f)))
		h.Write(length[:])
		h.Write([]byte(f))
	}
}

func realmKey(id, name string) string {
	if id != "" {
		return "id:" + id
	}
	return "name:" + name
}

func millis(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}
