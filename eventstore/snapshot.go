package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// ErrInvalidSnapshot says that a snapshot cannot be stored as it is.
var ErrInvalidSnapshot = errors.New("invalid snapshot")

// Snapshot is the state of an aggregate at a version of its stream: a shortcut for
// readers, never the truth. Any snapshot may be lost or dropped at any time; who needs
// the state then folds the stream.
type Snapshot struct {
	Stream StreamID
	// Version is the stream's version that the state includes, 1 or more.
	Version Version
	// Shape names the form of State and the code that folded it, such as "user/1". Who
	// asks for another shape does not find the snapshot.
	Shape string
	// State is one JSON value in UTF-8 and is stored byte for byte.
	State json.RawMessage
	// TakenAt is when the snapshot was taken, for people. Stores keep microseconds.
	TakenAt time.Time
}

// Snapshotter keeps snapshots. Both databases do; a Store need not. Implementations
// are safe for concurrent use, also by several processes.
type Snapshotter interface {
	// Snapshot returns the newest snapshot of the stream in this shape at or below the
	// version, 0 for any, or ErrNotFound. A snapshot that is damaged (each is stored with
	// a digest) or that claims a version which the stream does not have is as good as not
	// there: an older one is returned or none, and the store logs it at warn, once in a
	// process. Other errors are those of a Reader.
	Snapshot(ctx context.Context, stream StreamID, shape string, notAfter Version) (Snapshot, error)
	// SaveSnapshot keeps a snapshot in the place of one of the same version and shape. It
	// removes all but the newest SnapshotsKept of its shape, those of other shapes that
	// are not newer, and those of versions that the stream does not have; so one that is
	// older than the newest SnapshotsKept is gone at once.
	//
	// Errors: ErrInvalidSnapshot when it is malformed or the stream has not reached its
	// version; ErrClosed; ErrUnavailable; the context's error.
	SaveSnapshot(ctx context.Context, s Snapshot) error
}

// SnapshotsKept is how many snapshots of one stream and shape are kept: the newest, and
// one to fall back on where an event came late.
const SnapshotsKept = 2
