// Package lifecycle starts the long-running parts of the process in order and
// stops them in the reverse order.
//
// A part is started when the one before it is ready. They are stopped one by one,
// last first, so that what feeds stops before what is fed: serve starts calls,
// projections, poller, reconciler, listener, and so stops the listener first and the
// calls last. Each stop is soft first: the part's context ends, it takes nothing new
// and finishes what it has in hand. After the timeout, or on [Group.Hurry], it is
// hard: the context that [Hard] returns ends too.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// Worker is a long-running part. Run returns when ctx has ended; returning before
// that, even without an error, stops the whole group. For work that a soft stop
// must not cut off, use [Hard] of ctx.
type Worker interface {
	Run(ctx context.Context) error
}

// Readier is a Worker that is not ready as soon as Run is called. Ready blocks
// until it is, or until ctx ends, and then returns ctx's error.
type Readier interface {
	Ready(ctx context.Context) error
}

// Func makes a function a Worker that is ready at once.
type Func func(ctx context.Context) error

// Run calls f.
func (f Func) Run(ctx context.Context) error { return f(ctx) }

// ErrEnded is the error of a worker that ended without being asked to: a process
// that goes on without one of its parts looks healthy and is not.
var ErrEnded = errors.New("ended without being asked to")

// ErrStuck is the error of a worker that did not end after a hard stop either. Its
// goroutine is left behind; the process should end.
var ErrStuck = errors.New("did not stop")

// PanicError is the error of a worker that panicked. The stack is in the log.
type PanicError struct{ Value any }

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Group runs workers. It is a Worker and a Readier itself. Add everything before
// Run, and run it once.
type Group struct {
	log     *slog.Logger
	timeout time.Duration
	parts   []*part
	ready   chan struct{}
	hurry   chan struct{}
	once    sync.Once
}

// New returns an empty group. timeout is how long each worker has for its soft
// stop, and again for its hard stop.
func New(log *slog.Logger, timeout time.Duration) *Group {
	return &Group{log: log, timeout: timeout, ready: make(chan struct{}), hurry: make(chan struct{})}
}

// Add appends a worker. The name appears in errors and logs.
func (g *Group) Add(name string, w Worker) { g.parts = append(g.parts, &part{name: name, worker: w}) }

// Ready blocks until every worker is ready, or until ctx ends.
func (g *Group) Ready(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Hurry makes a stop hard, the one under way or the one to come. It may be called
// at any time, from anywhere, more than once: for a second signal.
func (g *Group) Hurry() { g.once.Do(func() { close(g.hurry) }) }

// Run starts the workers and returns when all have stopped, after ctx has ended
// or one of them failed. It returns the first error, with the worker's name; the
// others are in the log. It returns nil when ctx ended and every worker stopped
// cleanly. It is not safe to call it twice.
func (g *Group) Run(ctx context.Context) error {
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := 0
	for _, p := range g.parts {
		if stop.Err() != nil {
			break
		}
		g.log.Debug("starting", "worker", p.name)
		p.start(ctx, g.log, cancel)
		started++
		if r, ok := p.worker.(Readier); ok {
			if err := r.Ready(stop); err != nil && stop.Err() == nil {
				cancel(fmt.Errorf("%s: getting ready: %w", p.name, err))
			}
		}
	}
	if stop.Err() == nil {
		close(g.ready)
	}
	<-stop.Done()

	var first error
	if ctx.Err() == nil {
		first = context.Cause(stop)
	}
	for i := started - 1; i >= 0; i-- {
		p := g.parts[i]
		g.log.Debug("stopping", "worker", p.name)
		if err := g.stop(ctx, p); err != nil && first == nil {
			first = err
		} else if err != nil && !errors.Is(first, err) {
			g.log.Error("worker stopped with an error", "worker", p.name, "error", err)
		}
	}
	return first
}

// stop ends one worker, softly and then hard. A hard stop of the group that this
// group is in only hurries it, so that the order is kept.
func (g *Group) stop(ctx context.Context, p *part) error {
	defer p.hard() // frees both contexts
	p.soft()
	select {
	case <-p.done:
		return p.err
	case <-time.After(g.timeout):
		g.log.Warn("worker needs too long to stop", "worker", p.name, "timeout", g.timeout)
	case <-g.hurry:
	case <-Hard(ctx).Done():
	}
	p.hard()
	select {
	case <-p.done:
		return p.err
	case <-time.After(g.timeout):
		return fmt.Errorf("%s: %w", p.name, ErrStuck)
	}
}

// part is one worker of a group and how it fares.
type part struct {
	name       string
	worker     Worker
	soft, hard context.CancelFunc
	done       chan struct{}
	err        error // valid once done is closed
}

// start runs the worker, and calls failed when it ends before it was stopped.
func (p *part) start(ctx context.Context, log *slog.Logger, failed context.CancelCauseFunc) {
	var hard, soft context.Context
	hard, p.hard = context.WithCancel(context.WithoutCancel(ctx))
	soft, p.soft = context.WithCancel(context.WithValue(hard, hardKey{}, hard))
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		err := ErrEnded // also of a worker that calls runtime.Goexit
		defer func() {
			if v := recover(); v != nil {
				log.Error("worker panicked", "worker", p.name, "panic", v, "stack", string(debug.Stack()))
				err = &PanicError{Value: v}
			}
			if soft.Err() != nil && (err == nil || errors.Is(err, ErrEnded) || errors.Is(err, context.Canceled)) {
				return
			}
			p.err = fmt.Errorf("%s: %w", p.name, err)
			failed(p.err)
		}()
		if e := p.worker.Run(soft); e != nil {
			err = e
		}
	}()
}

type hardKey struct{}

// Hard returns the context that ends with a worker's hard stop, for a worker's
// ctx: work in hand goes on under it after the soft stop. For another ctx it
// returns one that never ends.
func Hard(ctx context.Context) context.Context {
	if hard, ok := ctx.Value(hardKey{}).(context.Context); ok {
		return hard
	}
	return context.WithoutCancel(ctx)
}
