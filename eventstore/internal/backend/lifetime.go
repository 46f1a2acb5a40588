package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// maxWaiting is how many appends may wait for their turn before more are refused:
// some seconds' worth, by which time their senders have given up anyway.
const maxWaiting = 4096

// Lifetime runs a store's operations until it is closed: reads are interrupted by
// closing, appends are waited for.
type Lifetime struct {
	mu     sync.Mutex
	closed bool
	done   context.Context // ended by closing
	end    context.CancelCauseFunc
	ops    sync.WaitGroup

	waiting chan struct{}
	turn    chan struct{}
}

// NewLifetime starts one.
func NewLifetime() *Lifetime {
	l := &Lifetime{waiting: make(chan struct{}, maxWaiting), turn: make(chan struct{}, 1)}
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

// Append runs write when it is this append's turn: one at a time in one process,
// first come, first served. The database takes appends one after the other
// anyway, and this way times along positions never decrease.
//
// The caller's context counts until its turn has come, and then for the caller
// only: write goes on without it, at most for limit, so that nobody's cancellation
// tears a connection that others are going to use.
func (l *Lifetime) Append(ctx context.Context, limit time.Duration, write func(ctx context.Context) ([]eventstore.Event, error)) ([]eventstore.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case l.waiting <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d appends are waiting already", eventstore.ErrUnavailable, maxWaiting)
	}
	defer func() { <-l.waiting }()
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done.Done():
		return nil, eventstore.ErrClosed
	}
	if !l.add() {
		<-l.turn
		return nil, eventstore.ErrClosed
	}

	type result struct {
		events []eventstore.Event
		err    error
	}
	finished := make(chan result, 1)
	go func() {
		defer l.ops.Done()
		defer func() { <-l.turn }()
		writeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		events, err := write(writeCtx)
		finished <- result{events, err}
	}()
	select {
	case r := <-finished:
		return r.events, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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
