package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Log is the part of an event store that the engine needs.
type Log interface {
	eventstore.Reader
	eventstore.Waiter
}

// Options of an Engine. The zero value is good.
type Options struct {
	// Clock gives the time that is recorded beside a checkpoint; nil is the machine's.
	Clock func() time.Time
	// Logger hears of failures and rebuilds; nil is silence.
	Logger *slog.Logger
	// BatchSize is the most events of one transaction, 0 means 1,000; a rebuild takes
	// five times as many. A batch ends at 16 MiB, too. An Accumulator that is far behind
	// writes several at once.
	BatchSize int
	// Memory bounds what an Accumulator holds, in bytes and roughly; 0 means 256 MiB.
	Memory int
	// Gather is how long a projection that has caught up lets new events gather before
	// it folds them in one transaction; 0 means 50 ms, a negative value none. It bounds
	// what projections cost the appends on SQLite. Nobody who waits has to wait for it.
	Gather time.Duration
	// RetryMax bounds the growing pause after failures; 0 means 30 s.
	RetryMax time.Duration
	// Observe, if not nil, hears of every step: for metrics. It must not block.
	Observe func(name string, position, head eventstore.Position)
}

const (
	defaultBatchSize = 1000
	defaultMemory    = 256 << 20
	defaultGather    = 50 * time.Millisecond
	defaultRetryMax  = 30 * time.Second
	retryMin         = 100 * time.Millisecond
	// lastWords bounds what is written after a context has ended.
	lastWords = 2 * time.Second
)

// Engine runs projections and consumers. It is safe for concurrent use once all are
// registered.
type Engine struct {
	db    DB
	log   Log
	codec *adapter.Codec

	clock     func() time.Time
	logger    *slog.Logger
	batchSize int
	memory    int
	gather    time.Duration
	retryMax  time.Duration
	observe   func(name string, position, head eventstore.Position)

	runners []*runner
	running atomic.Bool
	// waiting counts those who wait for a position: while there are any, nothing gathers.
	waiting atomic.Int64

	mu sync.Mutex
	// moved is closed and replaced when a runner has moved.
	moved chan struct{}
}

// New returns an engine without projections. The database must have been migrated.
func New(db DB, log Log, codec *adapter.Codec, o Options) *Engine {
	e := &Engine{
		db: db, log: log, codec: codec,
		clock: o.Clock, logger: o.Logger, batchSize: o.BatchSize, memory: o.Memory, gather: o.Gather,
		retryMax: o.RetryMax, observe: o.Observe, moved: make(chan struct{}),
	}
	if e.clock == nil {
		e.clock = time.Now
	}
	if e.logger == nil {
		e.logger = slog.New(slog.DiscardHandler)
	}
	if e.batchSize <= 0 {
		e.batchSize = defaultBatchSize
	}
	if e.memory <= 0 {
		e.memory = defaultMemory
	}
	if e.gather == 0 {
		e.gather = defaultGather
	}
	if e.retryMax <= 0 {
		e.retryMax = defaultRetryMax
	}
	if e.observe == nil {
		e.observe = func(string, eventstore.Position, eventstore.Position) {}
	}
	return e
}

// Register adds projections, before the engine is used.
func (e *Engine) Register(projections ...Projection) error {
	for _, p := range projections {
		r := &runner{engine: e, name: p.Name(), version: p.Version(), projection: p, types: p.Types()}
		if len(r.types) == 0 {
			return fmt.Errorf("projection %q consumes no type of event", r.name)
		}
		if err := e.add(r); err != nil {
			return err
		}
	}
	return nil
}

// RegisterConsumer adds consumers, before the engine is used. One that lives on the
// events of another is registered after it.
func (e *Engine) RegisterConsumer(consumers ...Consumer) error {
	for _, c := range consumers {
		err := e.add(&runner{engine: e, name: c.Name(), version: 1, consumer: c, types: c.Types(), category: c.Category()})
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) add(r *runner) error {
	if !validName.MatchString(r.name) || r.version < 1 {
		return fmt.Errorf("projection %q, version %d: a name is lower case letters and underscores, a version 1 or more", r.name, r.version)
	}
	if _, err := e.find(r.name); err == nil {
		return fmt.Errorf("there are two projections named %q", r.name)
	}
	r.limit, r.stepping, r.rebuilding = e.batchSize, newLock(), newLock()
	r.rows = stride{batches: e.db.Dialect.strideBatches()}
	e.runners = append(e.runners, r)
	return nil
}

// UnknownError says that there is no projection of that name.
type UnknownError struct {
	Name string
	// Names are those that exist.
	Names []string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no projection %q\nTry: one of %s", e.Name, strings.Join(e.Names, ", "))
}

func (e *Engine) find(name string) (*runner, error) {
	names := make([]string, 0, len(e.runners))
	for _, r := range e.runners {
		if r.name == name {
			return r, nil
		}
		names = append(names, r.name)
	}
	return nil, &UnknownError{Name: name, Names: names}
}

// Setup creates what is missing: a checkpoint at the beginning of the log for each
// projection and consumer, and the tables of new projections. Queries may be asked
// afterwards. Several processes may call it at once; Run and CatchUp call it too.
func (e *Engine) Setup(ctx context.Context) error {
	for _, r := range e.runners {
		if err := r.setUp(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Run keeps everything current until the context ends, and then returns nil once all
// have stopped. Failures are seen in Status and logged, never returned.
func (e *Engine) Run(ctx context.Context) error {
	if !e.running.CompareAndSwap(false, true) {
		return errors.New("the projections are running already")
	}
	defer e.running.Store(false)
	var group sync.WaitGroup
	for _, r := range e.runners {
		group.Go(func() { r.run(ctx) })
	}
	group.Wait()
	return nil
}

func (r *runner) background() bool {
	_, ok := r.consumer.(Background)
	return ok
}

// WaitFor waits until the projections named, or all, have folded everything at or
// below position, or returns the context's error. It needs Run in this process.
func (e *Engine) WaitFor(ctx context.Context, position eventstore.Position, names ...string) error {
	var awaited []*runner
	for _, name := range names {
		r, err := e.find(name)
		if err != nil {
			return err
		}
		awaited = append(awaited, r)
	}
	if len(names) == 0 {
		for _, r := range e.runners {
			if r.projection != nil {
				awaited = append(awaited, r)
			}
		}
	}
	e.waiting.Add(1)
	defer e.waiting.Add(-1)
	for _, r := range awaited {
		for {
			moved := e.movedSignal()
			if r.at() >= position {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for projection %s to reach position %d (it is at %d): %w", r.name, position, r.at(), ctx.Err())
			case <-moved:
			}
		}
	}
	return nil
}

func (e *Engine) movedSignal() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.moved
}

func (e *Engine) signalMoved() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.moved)
	e.moved = make(chan struct{})
}

// Behind is how far a projection or consumer is behind.
type Behind struct {
	Name     string
	Position eventstore.Position
	Target   eventstore.Position
	// Err is why, nil where time ran out.
	Err error
}

// BehindError says that not everything could be folded in time. What was folded is
// committed; reads give an answer of an earlier moment.
type BehindError struct{ Behind []Behind }

func (e *BehindError) Error() string {
	parts := make([]string, 0, len(e.Behind))
	for _, b := range e.Behind {
		s := fmt.Sprintf("projection %s is %d events behind (at %d of %d)", b.Name, b.Target-b.Position, b.Position, b.Target)
		if b.Err != nil {
			s += ": " + b.Err.Error()
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

// Unwrap gives the reasons.
func (e *BehindError) Unwrap() []error {
	var errs []error
	for _, b := range e.Behind {
		if b.Err != nil {
			errs = append(errs, b.Err)
		}
	}
	return errs
}

// CatchUp folds in the caller's process, beside Run or instead of it: first the
// consumers up to the position, those of the background left out, one after the other, then the projections up to the
// head that results, all at once. It returns a *BehindError where some did not get
// there before the context ended or could not go on; the others did.
func (e *Engine) CatchUp(ctx context.Context, upTo eventstore.Position) error {
	e.waiting.Add(1)
	defer e.waiting.Add(-1)
	target := upTo
	behind := make([]*Behind, len(e.runners))
	for i, r := range e.runners {
		if r.consumer == nil || r.background() {
			continue
		}
		behind[i] = r.catchUp(ctx, target)
		// It has appended events; what comes after it has to see them.
		head, err := e.log.Head(ctx)
		if err != nil {
			if ctx.Err() != nil {
				continue // the projections say how far they are
			}
			return fmt.Errorf("catch up: %w", err)
		}
		target = max(target, head)
	}
	var group sync.WaitGroup
	for i, r := range e.runners {
		if r.consumer == nil {
			group.Go(func() { behind[i] = r.catchUp(ctx, target) })
		}
	}
	group.Wait()
	var failed BehindError
	for _, b := range behind {
		if b != nil {
			failed.Behind = append(failed.Behind, *b)
		}
	}
	if len(failed.Behind) > 0 {
		return &failed
	}
	return nil
}

// State says what a projection is doing.
type State string

// The states. They are kept in the database, so that other processes see them.
const (
	StateRunning    State = "running"
	StateRebuilding State = "rebuilding"
	StateFailing    State = "failing"
	// StateStopped is a projection that no process is running, as far as processes
	// ended in order.
	StateStopped State = "stopped"
)

// Status is how a projection or consumer stands.
type Status struct {
	Name string `json:"name"`
	// Kind is "projection" or "consumer".
	Kind     string              `json:"kind"`
	Position eventstore.Position `json:"position"`
	Head     eventstore.Position `json:"head"`
	Lag      eventstore.Position `json:"lag"`
	Status   State               `json:"status"`
	Error    string              `json:"error"`
	// UpdatedAt is when the checkpoint or the status last changed, nil where it was
	// never set up.
	UpdatedAt *time.Time `json:"updated_at"`
	// Version is that of the tables in the database, which is not the program's until
	// the rebuild that a new one causes is done.
	Version int `json:"version"`
	// RebuildPosition is how far a rebuild under way has come.
	RebuildPosition *eventstore.Position `json:"rebuild_position,omitempty"`
}

// rebuildSilence is how long a rebuild by another process may be silent before it is
// taken for dead.
const rebuildSilence = time.Minute

// Status tells how all of them stand, in the order of registration.
func (e *Engine) Status(ctx context.Context) ([]Status, error) {
	stored, err := loadCheckpoints(ctx, e.db.Read)
	if err != nil {
		return nil, err
	}
	// The head is read last, so that no lag is negative.
	head, err := e.log.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("status of the projections: %w", err)
	}
	all := make([]Status, 0, len(e.runners))
	for _, r := range e.runners {
		s := Status{Name: r.name, Kind: "projection", Head: head, Status: StateStopped, Lag: head}
		if r.consumer != nil {
			s.Kind = "consumer"
		}
		if c, ok := stored[r.name]; ok {
			s.Position, s.Status, s.Error, s.Version, s.UpdatedAt = c.position, c.status, c.err, c.version, &c.updatedAt
			s.Lag = max(head-c.position, 0)
		}
		if state, reason, known := r.local(); known {
			s.Status, s.Error = state, reason
			// The stored checkpoint is left behind by events that do not matter.
			s.Position = max(s.Position, r.at())
			s.Lag = max(head-s.Position, 0)
		}
		if c, ok := stored[r.name+rebuildSuffix]; ok && e.clock().Sub(c.updatedAt) < rebuildSilence {
			s.RebuildPosition = &c.position
			if s.Status != StateFailing {
				s.Status = StateRebuilding
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// setUp creates the checkpoint and the tables where they are missing.
func (r *runner) setUp(ctx context.Context) error {
	e := r.engine
	_, err := loadCheckpoint(ctx, e.db.Read, r.name)
	if !errors.Is(err, errNoCheckpoint) {
		return err
	}
	c := checkpoint{name: r.name, version: r.version, build: newBuild(), status: StateStopped, updatedAt: e.clock()}
	err = inTx(ctx, e.db.Write, func(tx *sql.Tx) error {
		// Whoever inserts the row creates the tables; others wait for that here.
		inserted, err := insertCheckpoint(ctx, tx, c)
		if err != nil || !inserted || r.projection == nil {
			return err
		}
		return createTables(ctx, tx, r.projection.Schema(e.db.Dialect, c.tables()))
	})
	if err != nil {
		return fmt.Errorf("set up projection %s: %w", r.name, err)
	}
	return nil
}

func createTables(ctx context.Context, tx *sql.Tx, ddl []string) error {
	for _, statement := range ddl {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
	}
	return nil
}
