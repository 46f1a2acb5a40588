package eventstore

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that nothing is stored under that id.
	ErrNotFound = errors.New("not found in the event store")
	// ErrEventIDReused says that an event id is recorded already with other content.
	ErrEventIDReused = errors.New("event id is already used by another event")
	// ErrInvalidEvent says that an event cannot be stored as it is.
	ErrInvalidEvent = errors.New("invalid event")
	// ErrInvalidQuery says that a question makes no sense.
	ErrInvalidQuery = errors.New("invalid query")
	// ErrIncomplete says that events which are needed for the answer are not in the
	// store, because a partition has been detached from the log or the database has been
	// damaged.
	ErrIncomplete = errors.New("a part of the log is not in the store\nTry: keytrail verify, and attach the partitions that were detached")
	// ErrUnavailable says that the store cannot serve now; the same operation may be
	// tried again. Webhooks answer 503 with Retry-After on it.
	ErrUnavailable = errors.New("event store is unavailable")
	// ErrOverloaded is the ErrUnavailable of a store whose queue of appends is full:
	// nothing was written. Webhooks answer 429 with Retry-After on it.
	ErrOverloaded = fmt.Errorf("%w: it has more to write than it keeps up with", ErrUnavailable)
	// ErrClosed says that the store has been closed by this process.
	ErrClosed = errors.New("event store is closed")
)

// ConflictError says that a stream was not at the version an append expected:
// somebody else has written to it meanwhile. Read the stream again and decide anew.
type ConflictError struct {
	Stream   StreamID
	Expected Version
	Actual   Version
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("stream %s is at version %d, not %d: it was written to meanwhile", e.Stream, e.Actual, e.Expected)
}

// SchemaError says that a database's schema does not fit this program.
type SchemaError struct {
	// Current is the database's schema version, Supported the program's.
	Current, Supported int64
}

func (e *SchemaError) Error() string {
	switch {
	case e.Current > e.Supported:
		return fmt.Sprintf("the database has schema version %d, newer than this program's %d\nTry: run the newer keytrail that migrated it, or restore a backup taken before", e.Current, e.Supported)
	default:
		return fmt.Sprintf("the database has schema version %d, this program needs %d\nTry: keytrail migrate", e.Current, e.Supported)
	}
}
