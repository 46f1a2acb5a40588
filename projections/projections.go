package projections

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"regexp"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Projection folds events into tables. Its methods are called from several goroutines
// at once, for the live tables and for shadow tables, so it keeps no state between
// calls.
type Projection interface {
	// Name identifies the projection for ever: lower case letters and underscores.
	Name() string
	// Version is the version of the tables' shape and of the fold, 1 or more. A
	// database that holds another one is rebuilt.
	Version() int
	// Types are the events that it consumes, by name.
	Types() []string
	// Tables are the base names of its tables.
	Tables() []string
	// Schema is the DDL that creates its tables and indexes, under the names that t
	// gives them.
	Schema(d Dialect, t Tables) []string
	// Fold works out what a batch changes and returns how to write it. No transaction
	// is open while it runs: it may read its own rows (they are at the position before
	// the batch) and the event store. Afterwards the rows must be the fold of all
	// events at or below b.UpTo, and nothing above.
	Fold(ctx context.Context, b Batch) (Write, error)
}

// Accumulator is a projection that can fold batch after batch in memory before it
// writes. The engine makes use of it where there is much to fold, which is in a rebuild
// and in a checkpoint more than a batch behind the log: a row that many events change
// is then read once and written once.
type Accumulator interface {
	Projection
	// Accumulate begins a fold on top of what the tables hold. Where empty is true they
	// have none of the rows that it will come to.
	Accumulate(db DB, t Tables, empty bool) Accumulation
}

// Divisible is an Accumulator that can fold the streams in parts. A rebuild whose rows do
// not fit into the memory then reads the log several times, and still writes every row
// once.
type Divisible interface {
	Accumulator
	// Part is a number for the stream's part. Its bits are random, and it is the same for
	// streams that change the same row. It is called from several goroutines.
	Part(s eventstore.StreamID) uint64
}

// Accumulation is a fold under way. One goroutine at a time calls it, and nobody else
// writes to its tables meanwhile: the engine gives it up where somebody did, and where
// any of its methods or the writing failed.
type Accumulation interface {
	// Fold is as Projection.Fold, on top of the batches before it: a row that they
	// changed is held, since the tables do not have it yet.
	Fold(ctx context.Context, events []adapter.Decoded, upTo eventstore.Position) error
	// Changed are the rows that were changed since it was last called, at most one Rows for
	// a table. Fold is not called before they are committed.
	Changed() []Rows
	// Size is about how many bytes it holds.
	Size() int
}

// Rows are rows of one table to be written.
type Rows struct {
	// Table is the table's name, and not its base name.
	Table string
	// Key are the columns of its primary key, Columns all that a row has values for.
	Key, Columns []string
	// New is true where the table has none of them.
	New bool
	// Each yields them, no key twice, and each time in the same order, so that two
	// processes lock them in that order. It is called while the ones before are written.
	Each iter.Seq2[[]any, error]
}

// Write puts rows into the tables. It is called in the transaction that also moves
// the checkpoint, and is not called at all, or rolled back, where another process was
// faster. It must only write, and use tx alone.
type Write func(ctx context.Context, tx *sql.Tx) error

// Batch is a stretch of the log.
type Batch struct {
	// Events are the projection's events of the stretch in the order of positions. It
	// is not empty.
	Events []adapter.Decoded
	// UpTo is the position to which the stretch reaches; it may be above the last event.
	UpTo eventstore.Position
	// Tables names the tables to read and write.
	Tables Tables
	DB     DB
}

// Tables names a projection's tables: the live ones, or those of a rebuild.
type Tables struct {
	suffix, build string
}

// Live are the tables that queries read.
func Live() Tables { return Tables{} }

// Name is the name of the table with this base name.
func (t Tables) Name(base string) string { return base + t.suffix }

// Index is a name for an index: unique per build, because an index keeps its name
// when its table takes the live one's.
func (t Tables) Index(base string) string { return base + "_" + t.build }

// Consumer is a process manager: it answers events with effects, which are idempotent
// appends to the event store.
type Consumer interface {
	// Name identifies the consumer for ever: lower case letters and underscores.
	Name() string
	// Types and Category say which events it consumes; either may be empty, which
	// means any.
	Types() []string
	Category() string
	// Handle handles events in the order of positions. It may be called again with the
	// same events, also by another process at the same time.
	Handle(ctx context.Context, events []adapter.Decoded) error
}

// Background is a consumer that may have to wait for others, such as Keycloak. CatchUp,
// for which a person waits, leaves it to Run.
type Background interface {
	Consumer
	Background()
}

// EventError is an event that a projection or consumer cannot get past.
type EventError struct {
	EventID  uuid.UUID
	Type     string
	Position eventstore.Position
	Err      error
}

func (e *EventError) Error() string {
	return fmt.Sprintf("event %s (%s) at position %d: %v", e.EventID, e.Type, e.Position, e.Err)
}

func (e *EventError) Unwrap() error { return e.Err }

var validName = regexp.MustCompile(`^[a-z][a-z_]{0,40}$`)
