// Package snapshot is what the stores share about snapshots: the digest, what is
// refused, and how one that cannot be used is passed over.
package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"unicode/utf8"

	"github.com/keytrail/keytrail/eventstore"
)

// maxShape bounds the name of a shape, in bytes.
const maxShape = 100

// Check returns ErrInvalidSnapshot for a snapshot that no store takes.
func Check(s eventstore.Snapshot) error {
	var fault string
	switch {
	case s.Stream.IsZero():
		fault = "it names no stream"
	case s.Version < 1:
		fault = fmt.Sprintf("its version is %d", s.Version)
	case s.Shape == "" || len(s.Shape) > maxShape || !utf8.ValidString(s.Shape):
		fault = fmt.Sprintf("its shape has no name, or not one of up to %d bytes of text", maxShape)
	case !json.Valid(s.State) || !utf8.Valid(s.State):
		fault = "its state is not JSON in UTF-8"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", eventstore.ErrInvalidSnapshot, fault)
}

// Ahead is the error for a snapshot of a version that its stream does not have.
func Ahead(s eventstore.Snapshot, actual eventstore.Version) error {
	return fmt.Errorf("%w: it is of version %d, and the stream is at %d", eventstore.ErrInvalidSnapshot, s.Version, actual)
}

// Digest is what tells a damaged snapshot. It guards against accidents, not against
// somebody who may write to the table and knows how it is made.
func Digest(s eventstore.Snapshot) string {
	h := sha256.New()
	id := s.Stream.AggregateID()
	for _, part := range [][]byte{[]byte(s.Shape), []byte(s.Stream.String()), id[:], binary.BigEndian.AppendUint64(nil, uint64(s.Version)), s.State} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Row is a snapshot as it was found.
type Row struct {
	eventstore.Snapshot
	Digest string
	// StreamVersion is the version that the stream has now, 0 where there is none.
	StreamVersion eventstore.Version
}

func (r Row) fault() string {
	switch {
	case r.Digest != Digest(r.Snapshot):
		return "its digest does not fit"
	case r.Version > r.StreamVersion:
		return "the stream has not reached its version"
	case !json.Valid(r.State):
		return "its state is not JSON"
	}
	return ""
}

// maxReported bounds the snapshots that are remembered as reported.
const maxReported = 1000

// Chooser passes over snapshots that cannot be used and says so in the log, of each
// once. The zero value is ready, and safe for concurrent use.
type Chooser struct {
	mu       sync.Mutex
	reported map[reported]bool
}

type reported struct {
	stream  eventstore.StreamID
	shape   string
	version eventstore.Version
}

// First returns the first of the rows that is sound, and false where none is.
func (c *Chooser) First(ctx context.Context, log *slog.Logger, rows []Row) (eventstore.Snapshot, bool) {
	for _, r := range rows {
		fault := r.fault()
		if fault == "" {
			return r.Snapshot, true
		}
		if c.isNew(reported{r.Stream, r.Shape, r.Version}) {
			log.WarnContext(ctx, "snapshot is ignored", "stream", r.Stream.String(), "version", int(r.Version), "shape", r.Shape, "reason", fault)
		}
	}
	return eventstore.Snapshot{}, false
}

func (c *Chooser) isNew(r reported) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reported[r] || len(c.reported) >= maxReported {
		return false
	}
	if c.reported == nil {
		c.reported = make(map[reported]bool)
	}
	c.reported[r] = true
	return true
}
