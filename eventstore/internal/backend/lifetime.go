package backend

import (
	"context"
	"sync"

	"github.com/keytrail/keytrail/eventstore"
)

// Lifetime runs a store's operations until it is closed: reads are interrupted by
// closing, appends are waited for.
type Lifetime struct {
	mu     sync.Mutex
	closed bool
	done   context.Context // ended by closing
	end    context.CancelCauseFunc
	ops    sync.WaitGroup
}

// NewLifetime starts one.
func NewLifetime() *Lifetime {
	l := &Lifetime{}
	l.done, l.end = context.WithCancelCause(context.Background())
	return l
}

// Context ends when the store is closed.
func (l *Lifetime) Context() context.Context { return l.done }

// Err is ErrClosed once the store is closed, otherwise nil.
func (l *Lifetime) Err() error {
	if l.done.Err() != nil {
		return eventstore.ErrClosed
	}
	return nil
}

// Begin announces a read. Its context also ends when the store is closed; the
// function must be called when the read is over.
func (l *Lifetime) Begin(ctx context.Context) (context.Context, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if !l.add() {
		return nil, nil, eventstore.ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.done, func() { cancel(eventstore.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		l.ops.Done()
	}, nil
}

// Go runs f as one of the operations that Close waits for, unless closed already.
func (l *Lifetime) Go(f func(ctx context.Context)) {
	if !l.add() {
		return
	}
	go func() {
		defer l.ops.Done()
		f(l.done)
	}()
}

func (l *Lifetime) add() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.ops.Add(1)
	return true
}

// Close ends reads and waiters, refuses what comes later, and waits for the
// appends under way. It reports whether this call was the first.
func (l *Lifetime) Close() bool {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	l.end(eventstore.ErrClosed)
	l.ops.Wait()
	return first
}
