package eventstore

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/internal/newid"
)

// NewID returns a new event or aggregate id: a UUIDv7, time-ordered so that the
// database's indexes grow at one end.
func NewID() uuid.UUID { return newid.New() }

// DerivedID returns the id of an event that a consumer derives from another: the
// same for the same cause, consumer and ordinal, so that a consumer that repeats
// itself after a crash appends the same event. Its layout is UUIDv7: the cause's
// time (milliseconds), then 74 bits of a SHA-256 over cause, consumer and ordinal.
func DerivedID(cause uuid.UUID, at time.Time, consumer string, ordinal int) uuid.UUID {
	h := sha256.New()
	h.Write(cause[:])
	h.Write([]byte(consumer))
	var n [9]byte // a zero byte ends the consumer's name
	binary.BigEndian.PutUint64(n[1:], uint64(ordinal))
	h.Write(n[:])
	sum := h.Sum(nil)

	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(at.UnixMilli(), 0)))

	var id uuid.UUID
	copy(id[:6], ms[2:])
	copy(id[6:], sum[:10])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}
