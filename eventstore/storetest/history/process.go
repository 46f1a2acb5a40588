package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// Opener opens a store on the one database of a run. It says ErrUnavailable where
// it is worth trying again.
type Opener func(ctx context.Context) (eventstore.Store, error)

// A Process plays one of the processes that share a database: a store that is
// closed, or dies, and is opened again. Its methods are safe for concurrent use.
type Process struct {
	name string
	open Opener

	life  sync.Mutex // one ends or begins it at a time
	mu    sync.Mutex
	store eventstore.Store
	count int
}

// Store is the store as it is open now, and its name in the history.
func (p *Process) Store() (eventstore.Store, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.store, fmt.Sprintf("%s.%d", p.name, p.count)
}

func (p *Process) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoveryLimit)
	defer cancel()
	for attempt := 1; ; attempt++ {
		s, err := p.open(ctx)
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.store = s
			p.count++
			return nil
		}
		if !errors.Is(err, eventstore.ErrUnavailable) {
			return fmt.Errorf("open %s: %w", p.name, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("open %s, %d times: %w", p.name, attempt, err)
		}
		retryPause(ctx, attempt)
	}
}

// Restart closes the store and opens it again. Who uses it meanwhile is told that
// it is closed.
func (p *Process) Restart(ctx context.Context) error {
	return p.RestartAfter(ctx, func(s eventstore.Store) error { return s.Close() })
}

// RestartAfter ends the store in another way than by closing it, and opens it
// again.
func (p *Process) RestartAfter(ctx context.Context, end func(eventstore.Store) error) error {
	p.life.Lock()
	defer p.life.Unlock()
	s, name := p.Store()
	if err := end(s); err != nil {
		return fmt.Errorf("end %s: %w", name, err)
	}
	return p.start(ctx)
}

func (p *Process) close() error {
	p.life.Lock()
	defer p.life.Unlock()
	s, name := p.Store()
	if s == nil {
		return nil
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("close %s: %w", name, err)
	}
	return nil
}

// A Disturbance is something that goes wrong. Do lets it happen, keeps it for a
// while where it can last, and puts it right again before it returns, also when ctx
// ends.
type Disturbance struct {
	Name string
	Do   func(ctx context.Context, rng *rand.Rand) error
}

// Pause lets a disturbance last from least to most.
func Pause(ctx context.Context, rng *rand.Rand, least, most time.Duration) {
	pause(ctx, least+time.Duration(rng.Int64N(int64(most-least)+1)))
}

// retryPause keeps who tries again from doing nothing else.
func retryPause(ctx context.Context, attempt int) {
	pause(ctx, min(time.Duration(attempt)*2*time.Millisecond, 50*time.Millisecond))
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
