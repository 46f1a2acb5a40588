package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// runner moves one projection or consumer along the log.
type runner struct {
	engine   *Engine
	name     string
	version  int
	types    []string
	category string
	// One of the two is set.
	projection Projection
	consumer   Consumer

	// stepping lets one goroutine of this process at a time move the live checkpoint:
	// others would only lose the race for it.
	stepping lock
	// limit is the most events of the next batch: 1 after a failure, so that the event
	// at fault is found, then growing again. Guarded by stepping.
	limit int
	// rows are what is held of the live tables while they are far behind. Guarded by
	// stepping.
	rows stride
	// rebuilding lets one goroutine of this process at a time rebuild.
	rebuilding lock
	// announced is whether the database knows that this runs here. Only run uses it.
	announced bool
	// deferred is since when the stored checkpoint lags behind for want of events that
	// matter, zero where it does not; flush is true when it has to be stored now. Only
	// run uses them.
	deferred time.Time
	flush    bool

	mu       sync.Mutex
	position eventstore.Position
	active   bool
	state    State
	reason   string
}

// lock is a mutex that can be waited for with a context.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) take(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) tryTake() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l lock) release() { <-l }

// at is the last position that this process has seen the checkpoint at.
func (r *runner) at() eventstore.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position
}

// local is the state as this process knows it, and false where it does not run here.
func (r *runner) local() (State, string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.reason, r.active
}

func (r *runner) setLocal(active bool, state State, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active, r.state, r.reason = active, state, reason
}

// saw notes where the live checkpoint is, or could be. It never goes back.
func (r *runner) saw(position, head eventstore.Position) {
	r.mu.Lock()
	position = max(position, r.position)
	changed := r.position != position
	r.position = position
	r.mu.Unlock()
	if changed {
		r.engine.signalMoved()
	}
	r.engine.observe(r.name, position, head)
}

// run moves along until the context ends.
func (r *runner) run(ctx context.Context) {
	e := r.engine
	r.setLocal(true, StateRunning, "")
	defer r.setLocal(false, StateStopped, "")
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		if err := setStatus(ctx, e.db.Write, r.name, StateStopped, "", StateRunning, e.clock()); err != nil {
			e.logger.WarnContext(ctx, "projection status not recorded", "projection", r.name, "error", err)
		}
	}()
	r.announced = false
	pause := retryMin
	for ctx.Err() == nil {
		err := r.setUp(ctx)
		for err == nil && ctx.Err() == nil {
			if err = r.turn(ctx); err == nil {
				pause = retryMin
			}
		}
		if ctx.Err() != nil {
			return
		}
		r.fail(ctx, err)
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, e.retryMax)
	}
}

// turn does a batch, and waits for the next where there is none.
func (r *runner) turn(ctx context.Context) error {
	e := r.engine
	lazy := r.announced && !r.flush && (r.deferred.IsZero() || e.clock().Sub(r.deferred) < flushAfter)
	position, caughtUp, stored, err := r.advance(ctx, StateRunning, lazy)
	if r.outdated(err) {
		r.setLocal(true, StateRebuilding, "")
		e.logger.InfoContext(ctx, "projection is rebuilt for its new version", "projection", r.name, "reason", err)
		return r.rebuild(ctx, false, nil)
	}
	if err != nil {
		return err
	}
	r.setLocal(true, StateRunning, "")
	if !r.announced {
		if err := setStatus(ctx, e.db.Write, r.name, StateRunning, "", "", e.clock()); err != nil {
			return err
		}
		r.announced = true
	}
	r.flush = false
	switch {
	case stored:
		r.deferred = time.Time{}
	case r.deferred.IsZero():
		r.deferred = e.clock()
	}
	if !caughtUp {
		return nil
	}
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if !stored {
		waiting, cancel = context.WithTimeout(ctx, flushAfter)
	}
	defer cancel()
	head, err := e.log.Wait(waiting, position)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		r.flush = true // nothing has come that would have taken the checkpoint along
		return nil
	}
	if err != nil {
		return err
	}
	e.observe(r.name, position, head)
	if e.gather > 0 && e.waiting.Load() == 0 {
		sleep(ctx, e.gather)
	}
	return nil
}

// outdated reports whether err says that the tables need a rebuild.
func (r *runner) outdated(err error) bool {
	var shape *shapeError
	return errors.As(err, &shape) && shape.Stored < shape.Supported && r.projection != nil
}

func (r *runner) fail(ctx context.Context, cause error) {
	e := r.engine
	reason := cause.Error()
	r.announced = false
	r.setLocal(true, StateFailing, reason)
	e.logger.ErrorContext(ctx, "projection is failing", "projection", r.name, "position", r.at(), "error", cause)
	if err := setStatus(ctx, e.db.Write, r.name, StateFailing, reason, "", e.clock()); err != nil {
		e.logger.WarnContext(ctx, "projection status not recorded", "projection", r.name, "error", err)
	}
}

// sleep reports false when the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// catchUp returns nil when the runner is at or beyond the target.
func (r *runner) catchUp(ctx context.Context, target eventstore.Position) *Behind {
	err := r.setUp(ctx)
	for err == nil && ctx.Err() == nil {
		var position eventstore.Position
		var caughtUp bool
		position, caughtUp, _, err = r.advance(ctx, "", false)
		if err == nil && (position >= target || caughtUp) {
			// Caught up below the target: the log does not reach that far.
			return nil
		}
		if r.outdated(err) {
			err = r.rebuild(ctx, false, nil)
		}
	}
	if ctx.Err() != nil {
		err = nil // time ran out, which is no reason of its own
	}
	return &Behind{Name: r.name, Position: r.at(), Target: target, Err: err}
}

// advance does one batch of the live checkpoint and makes batches smaller where one
// fails, until the event at fault stands alone.
func (r *runner) advance(ctx context.Context, status State, lazy bool) (position eventstore.Position, caughtUp, stored bool, err error) {
	if err := r.stepping.take(ctx); err != nil {
		return r.at(), false, false, err
	}
	defer r.stepping.release()
	for {
		c, head, err := r.step(ctx, r.name, pace{limit: r.limit, status: status, lazy: lazy, stride: &r.rows})
		switch {
		case errors.Is(err, errOvertaken):
			continue // the winner has moved the checkpoint, so this ends
		case errors.As(err, new(*shapeError)):
			return 0, false, false, err // rows of another shape answer nobody who waits
		case err != nil && r.limit > 1 && ctx.Err() == nil:
			r.limit = 1
			continue
		case err != nil:
			r.saw(c.position, max(head, c.position))
			return c.position, false, false, err
		}
		r.limit = min(2*r.limit, r.engine.batchSize)
		r.saw(c.position, head)
		return c.position, c.position >= head, !c.ahead, nil
	}
}

// shapeError says that the tables in the database are of another version.
type shapeError struct {
	Name              string
	Stored, Supported int
}

func (e *shapeError) Error() string {
	if e.Stored > e.Supported {
		return fmt.Sprintf("projection %s has version %d in the database, newer than this program's %d\nTry: run the newer keytrail, or keytrail projections rebuild %s",
			e.Name, e.Stored, e.Supported, e.Name)
	}
	return fmt.Sprintf("projection %s has version %d in the database, this program needs %d", e.Name, e.Stored, e.Supported)
}

// flushAfter is how long a checkpoint may be left behind by events that do not matter
// to its projection: each one that is stored costs a transaction, on SQLite at the
// expense of appends.
const flushAfter = time.Second

// maxBatchBytes bounds the events that are held in memory at once, before decoding.
const maxBatchBytes = 16 << 20

// pace is how a step is done.
type pace struct {
	// limit is the most events.
	limit int
	// status is recorded with the checkpoint, where not empty.
	status State
	// lazy leaves the checkpoint where it is when no event of the stretch matters.
	lazy bool
	// stride, if not nil, is how an Accumulator goes on that is more than a batch behind.
	stride *stride
}

// step folds the next batch of the checkpoint with this name, which is the live one or
// a rebuild's, and returns the checkpoint as it is afterwards with the head that was
// seen. On an error the checkpoint is the one that was read.
func (r *runner) step(ctx context.Context, name string, how pace) (checkpoint, eventstore.Position, error) {
	e := r.engine
	c, err := loadCheckpoint(ctx, e.db.Read, name)
	if err != nil {
		return c, 0, err
	}
	if c.version != r.version {
		return c, 0, &shapeError{Name: r.name, Stored: c.version, Supported: r.version}
	}
	head, err := e.log.Head(ctx)
	if err != nil {
		return c, 0, fmt.Errorf("projection %s: %w", r.name, err)
	}
	if head <= c.position {
		how.stride.forget()
		return c, head, nil
	}
	if how.stride != nil {
		a, accumulates := r.projection.(Accumulator)
		// After a failure it goes on in small steps, until the event at fault is found.
		if accumulates && how.limit >= e.batchSize && head-c.position > eventstore.Position(e.batchSize) {
			c, err := r.stride(ctx, a, c, head, how)
			return c, head, err
		}
		how.stride.forget()
	}
	events, upTo, err := r.read(ctx, c.position, head, how.limit)
	if err != nil {
		return c, head, err
	}
	if how.lazy && len(events) == 0 {
		c.position, c.ahead = upTo, true
		return c, head, nil
	}
	write, err := r.fold(ctx, c, events, upTo)
	if err != nil {
		return c, head, fmt.Errorf("projection %s: %w", r.name, r.blame(events, err))
	}
	err = inTx(ctx, e.db.Write, func(tx *sql.Tx) error {
		if err := c.move(ctx, tx, upTo, how.status, e.clock()); err != nil {
			return err
		}
		if err := write(ctx, tx); err != nil {
			return r.blame(events, err)
		}
		return nil
	})
	if err != nil {
		return c, head, fmt.Errorf("projection %s: %w", r.name, err)
	}
	c.position = upTo
	return c, head, nil
}

// read reads and decodes the events of the next batch and tells how far it reaches.
func (r *runner) read(ctx context.Context, after, head eventstore.Position, limit int) ([]adapter.Decoded, eventstore.Position, error) {
	for p := range r.pages(ctx, after, head, limit, limit, nil) {
		return p.events, p.upTo, p.err
	}
	return nil, after, ctx.Err() // there is always one
}

// page is a batch that was read and decoded.
type page struct {
	events []adapter.Decoded
	upTo   eventstore.Position
	err    error
}

// pages reads and decodes the events up to head, limit at a time and most in all, where
// most is not 0. The last page has an error, reaches to head, or has the most. What comes
// after the last event of interest is part of it, so that a projection of rare events
// moves along too. Where keep is not nil, only what it keeps is of interest.
func (r *runner) pages(ctx context.Context, after, head eventstore.Position, limit, most int, keep func(eventstore.StreamID) bool) iter.Seq[page] {
	e := r.engine
	q := eventstore.LogQuery{After: after, Before: head + 1, Types: r.types, Category: r.category, Limit: most}
	return func(yield func(page) bool) {
		var p page
		size, n := 0, 0
		for event, err := range e.log.ReadLog(ctx, q) {
			if err != nil {
				yield(page{err: fmt.Errorf("projection %s: %w", r.name, err)})
				return
			}
			if keep != nil && !keep(event.Stream) {
				continue
			}
			d, err := e.codec.Decode(ctx, event)
			if err == nil && d.Payload == nil && len(r.types) > 0 {
				err = errors.New("this program does not know the type")
			}
			if err != nil {
				if len(p.events) > 0 && !yield(p) { // first what comes before it
					return
				}
				bad := &EventError{EventID: event.ID, Type: event.Type, Position: event.Position, Err: err}
				yield(page{err: fmt.Errorf("projection %s: %w", r.name, bad)})
				return
			}
			if p.events == nil {
				p.events = make([]adapter.Decoded, 0, min(limit, defaultBatchSize))
			}
			p.events, p.upTo = append(p.events, d), event.Position
			size += len(event.Data) + len(event.Metadata)
			n++
			if len(p.events) < limit && size < maxBatchBytes {
				continue
			}
			if !yield(p) || n == most {
				return
			}
			p, size = page{}, 0
		}
		p.upTo = head
		yield(p)
	}
}

// fold lets the consumer act, or the projection say what to write.
func (r *runner) fold(ctx context.Context, c checkpoint, events []adapter.Decoded, upTo eventstore.Position) (Write, error) {
	nothing := func(context.Context, *sql.Tx) error { return nil }
	switch {
	case len(events) == 0:
		return nothing, nil
	case r.consumer != nil:
		return nothing, r.consumer.Handle(ctx, events)
	default:
		return r.projection.Fold(ctx, Batch{Events: events, UpTo: upTo, Tables: c.tables(), DB: r.engine.db})
	}
}

// blame names the event where there is only one to blame.
func (r *runner) blame(events []adapter.Decoded, err error) error {
	var named *EventError
	if errors.As(err, &named) || len(events) != 1 {
		return err
	}
	return &EventError{EventID: events[0].ID, Type: events[0].Type, Position: events[0].Position, Err: err}
}
