package memory

import (
	"context"
	"errors"

	"github.com/keytrail/keytrail/eventstore"
)

// ErrCrashed ends every operation of a store whose process has crashed. It is no error
// of the contract: nobody is there any more to whom it is told.
var ErrCrashed = errors.New("the process has crashed")

// Moment is a step of an operation.
type Moment int

// The moments. Reads have the first only.
const (
	// Before: nothing has happened yet. A fault here leaves nothing recorded.
	Before Moment = iota
	// Recorded: the append is recorded, and its caller does not know yet. A fault here
	// loses the answer.
	Recorded
)

// The names of the operations.
const (
	OpAppend     = "append"
	OpReadStream = "read stream"
	OpReadLog    = "read log"
	OpVersions   = "versions"
	OpStream     = "stream"
	OpHead       = "head"
	OpRawBody    = "raw body"
	OpWait       = "wait"
	OpPing       = "ping"
)

// Operation is what is about to happen, or has.
type Operation struct {
	Moment Moment
	// Name is one of the constants.
	Name string
	// Appends is what is appended. It must not be changed.
	Appends []eventstore.StreamAppend
}

// Fault is what goes wrong. The zero value is nothing.
type Fault struct {
	// Err is the operation's error. With one that wraps ErrCrashed the process ends here:
	// the store does nothing more. Others should be what a store answers, such as
	// eventstore.ErrUnavailable, or context.DeadlineExceeded where an answer comes too late.
	Err error
	// Silent leaves those who wait in the dark about what was recorded, until the next
	// append or Announce. So does an Err.
	Silent bool
}

// Decider says what goes wrong with an operation. It is called in the goroutine of the
// operation, with the caller's context and without any lock, and may take its time:
// others go on meanwhile.
type Decider func(ctx context.Context, op Operation) Fault

// ask asks the decider and then whether the operation may go on.
func (s *Store) ask(ctx context.Context, op Operation) (Fault, error) {
	fault := s.decide(ctx, op)
	if errors.Is(fault.Err, ErrCrashed) {
		s.Crash()
	}
	switch {
	case s.alive.Err() != nil:
		return fault, ErrCrashed
	case fault.Err != nil:
		return fault, fault.Err
	case op.Moment == Recorded:
		// Whoever has its answer is told, however long that took.
		return fault, nil
	default:
		return fault, s.ended(ctx)
	}
}
