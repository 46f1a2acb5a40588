// Package newid makes the ids of events and aggregates: those that eventstore.NewID
// returns. It stands apart so that a simulation can replace their source, which is no
// business of the contract's users.
package newid

import (
	"sync/atomic"

	"github.com/google/uuid"
)

var replaced atomic.Pointer[func() uuid.UUID]

// New returns a UUIDv7 of the machine's clock and randomness, or what Replace says.
func New() uuid.UUID {
	if source := replaced.Load(); source != nil {
		return (*source)()
	}
	return uuid.Must(uuid.NewV7())
}

// Replace makes all of this process take its ids from source until restore is called:
// with ids out of a seed, and a clock that is simulated, a run repeats to the byte. It is
// for tests. source must be safe for concurrent use, and its ids should grow.
func Replace(source func() uuid.UUID) (restore func()) {
	before := replaced.Swap(&source)
	return func() { replaced.Store(before) }
}
