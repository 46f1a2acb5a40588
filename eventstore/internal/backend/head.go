package backend

import (
	"context"
	"sync"

	"github.com/keytrail/keytrail/eventstore"
)

// Head is the newest position that this process knows of, and wakes those who
// wait for a newer one. The zero value is ready.
type Head struct {
	mu       sync.Mutex
	position eventstore.Position
	changed  chan struct{}
}

// Advance notes a position that has been committed.
func (h *Head) Advance(p eventstore.Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p <= h.position {
		return
	}
	h.position = p
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Position is the newest position that this process knows of.
func (h *Head) Position() eventstore.Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.position
}

// Wait returns the head once it is above after.
func (h *Head) Wait(ctx context.Context, l *Lifetime, after eventstore.Position) (eventstore.Position, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := l.Err(); err != nil {
			return 0, err
		}
		position, changed := h.watch()
		if position > after {
			return position, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-l.Context().Done():
		}
	}
}

func (h *Head) watch() (eventstore.Position, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.position, h.changed
}
