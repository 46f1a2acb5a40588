package backend

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// Bounds of the queue: some seconds' worth of appends, by which time their senders
// have given up anyway, and the memory that they may take.
const (
	maxQueued      = 4096
	maxQueuedBytes = 64 << 20
)

// Committer is group commit: appends queue, and one goroutine writes what has
// queued while the transaction before was being committed, all of it in one
// transaction. Nobody waits for company: a lone append is written at once.
//
// One committer is enough, and two would be slower: the database takes batches one
// after the other anyway, and with one the times along positions never decrease.
type Committer struct {
	life  *Lifetime
	limit time.Duration
	write func(ctx context.Context, batch *Batch) ([]Result, error)

	mu     sync.Mutex
	queue  []*queued
	bytes  int
	closed bool
	wake   chan struct{}
}

// queued is one append that waits for its turn or its outcome.
type queued struct {
	plan   *Plan
	taken  atomic.Bool
	result chan Result
}

// NewCommitter starts one, which ends with the lifetime. write writes a batch in
// one transaction and has a result for each plan; its error says that nothing is
// known to have been written. It is given limit for a batch.
func NewCommitter(l *Lifetime, limit time.Duration, write func(ctx context.Context, batch *Batch) ([]Result, error)) *Committer {
	c := &Committer{life: l, limit: limit, write: write, wake: make(chan struct{}, 1)}
	l.Go(c.run)
	return c
}

// Append writes a plan. The caller's context counts until the plan's turn has come,
// and then for the caller only: the batch goes on without it, so that nobody's
// cancellation tears a transaction that others share.
func (c *Committer) Append(ctx context.Context, plan *Plan) ([]eventstore.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q := &queued{plan: plan, result: make(chan Result, 1)}
	if err := c.push(q); err != nil {
		return nil, err
	}
	select {
	case r := <-q.result:
		return r.Events, r.Err
	case <-ctx.Done():
		// Whoever is first here, this or the committer, decides whether it is written.
		if q.taken.CompareAndSwap(false, true) {
			c.drop(q)
		}
		return nil, ctx.Err()
	}
}

// drop makes room in the queue for others.
func (c *Committer) drop(q *queued) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.queue, q); i >= 0 {
		c.queue = slices.Delete(c.queue, i, i+1)
		c.bytes -= q.plan.bytes
	}
}

// Waiting is how many appends wait for their turn.
func (c *Committer) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

func (c *Committer) push(q *queued) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return eventstore.ErrClosed
	case len(c.queue) >= maxQueued || len(c.queue) > 0 && c.bytes+q.plan.bytes > maxQueuedBytes:
		return fmt.Errorf("%w: %d appends of %d bytes are waiting already", eventstore.ErrOverloaded, len(c.queue), c.bytes)
	}
	c.queue = append(c.queue, q)
	c.bytes += q.plan.bytes
	select {
	case c.wake <- struct{}{}:
	default: // it is to look already
	}
	return nil
}

func (c *Committer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			c.refuse()
			return
		case <-c.wake:
		}
		for ctx.Err() == nil {
			batch, members := c.take()
			if len(members) == 0 {
				break
			}
			c.commit(ctx, batch, members)
			c.gather()
		}
	}
}

// gather lets those run who have just been answered, as long as they keep on coming
// with something more: what they bring would otherwise wait for the batch after the
// next one. It waits for nobody who does not run.
func (c *Committer) gather() {
	for before := -1; ; {
		waiting := c.Waiting()
		if waiting <= before || waiting >= maxBatchEvents {
			return
		}
		before = waiting
		runtime.Gosched()
	}
}

// take removes the next batch from the queue.
func (c *Committer) take() (*Batch, []*queued) {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := &Batch{}
	var members []*queued
	n := 0
	for _, q := range c.queue {
		if !batch.Fits(q.plan) {
			break
		}
		n++
		c.bytes -= q.plan.bytes
		if q.taken.CompareAndSwap(false, true) { // otherwise its caller has gone
			batch.Add(q.plan)
			members = append(members, q)
		}
	}
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	return batch, members
}

// commit writes a batch and tells everybody the outcome. Where the database refuses
// the whole for the sake of one, each goes alone, so that all get their own.
func (c *Committer) commit(ctx context.Context, batch *Batch, members []*queued) {
	results, err := c.try(ctx, batch)
	switch {
	case err == nil:
		for i, q := range members {
			q.result <- results[i]
		}
	case len(members) == 1 || !divisible(err):
		for _, q := range members {
			q.result <- Result{Err: err}
		}
	default:
		for _, q := range members {
			c.commit(ctx, BatchOf(q.plan), []*queued{q})
		}
	}
}

func (c *Committer) try(ctx context.Context, batch *Batch) ([]Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.limit)
	defer cancel()
	return c.write(ctx, batch)
}

// refuse ends the appends whose turn has not come.
func (c *Committer) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, q := range c.queue {
		if q.taken.CompareAndSwap(false, true) {
			q.result <- Result{Err: eventstore.ErrClosed}
		}
	}
	c.queue, c.bytes = nil, 0
}

// SpoiledError is a transaction that the database refused for what one plan of the
// batch has brought.
type SpoiledError struct{ Err error }

func (e *SpoiledError) Error() string { return e.Err.Error() }

func (e *SpoiledError) Unwrap() error { return e.Err }

// divisible reports whether the plans of a batch may fare better alone. A store that
// is unavailable is so for all.
func divisible(err error) bool {
	var spoiled *SpoiledError
	return errors.As(err, &spoiled) || !errors.Is(err, eventstore.ErrUnavailable)
}

// Appending says which append an error belongs to. What the contract asks callers
// to look into, a conflict, keeps its own words.
func Appending(plan *Plan, err error) error {
	var conflict *eventstore.ConflictError
	if err == nil || errors.As(err, &conflict) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("append to stream %s: %w", plan.Streams[0].ID, err)
}
