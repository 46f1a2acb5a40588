package simulation_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// scheduler runs tasks one at a time, in an order out of a seed. It lives in a bubble of
// synctest.
type scheduler struct {
	// mu is for the race detector: only one goroutine runs at any moment, but one that a
	// timer has woken is ordered after the others by the bubble's clock alone.
	mu     sync.Mutex
	random *rand.Rand
	tasks  []*task // under way, in the order in which they were begun
	begun  int
	story  []string
	// quiet leaves what goes well out of the story.
	quiet bool
}

// task is a step that was begun and may stop in between.
type task struct {
	id    int
	name  string
	parts []string // what it has for itself
	// goOn lets it go on where it is parked.
	goOn   chan struct{}
	parked string // where, "" while it runs or waits for time
	ended  bool
}

type taskKey struct{}

// taskOf is the task that acts in ctx, nil where none does.
func taskOf(ctx context.Context) *task {
	t, _ := ctx.Value(taskKey{}).(*task)
	return t
}

func newScheduler(seed uint64) *scheduler {
	return &scheduler{random: rand.New(rand.NewPCG(seed, 0))}
}

// draw is a number from 0 up to n.
func (s *scheduler) draw(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.random.IntN(n)
}

// chance is true in so many of a thousand cases.
func (s *scheduler) chance(perMille int) bool { return s.draw(1000) < perMille }

// pick is one of the list.
func pick[T any](s *scheduler, from []T) T { return from[s.draw(len(from))] }

// tell notes what happens, for whoever reads about a run that failed.
func (s *scheduler) tell(format string, args ...any) {
	line := time.Now().Format("04:05.000000 ") + fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.story = append(s.story, line)
}

// free reports whether no task has any of the parts.
func (s *scheduler) free(parts ...string) bool {
	return !slices.ContainsFunc(s.tasks, func(t *task) bool {
		return slices.ContainsFunc(t.parts, func(p string) bool { return slices.Contains(parts, p) })
	})
}

// begin starts a task and returns when it is parked, waits for time, or has ended.
func (s *scheduler) begin(ctx context.Context, name string, parts []string, do func(ctx context.Context) error) {
	s.begun++
	t := &task{id: s.begun, name: fmt.Sprintf("%d %s", s.begun, name), parts: parts, goOn: make(chan struct{})}
	s.tasks = append(s.tasks, t)
	if !s.quiet {
		s.tell("%s begins", t.name)
	}
	go func() {
		err := do(context.WithValue(ctx, taskKey{}, t))
		if !s.quiet || err != nil {
			s.tell("%s ends: %v", t.name, err)
		}
		s.mu.Lock()
		t.ended = true
		s.mu.Unlock()
	}()
	s.settle()
}

// settle waits until everybody is blocked, and forgets those who have ended.
func (s *scheduler) settle() {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = slices.DeleteFunc(s.tasks, func(t *task) bool { return t.ended })
}

// park stops the task until the scheduler lets it go on. It is called by the task.
func (s *scheduler) park(t *task, where string) {
	s.mu.Lock()
	t.parked = where
	s.mu.Unlock()
	<-t.goOn
}

// parked are the tasks that may go on.
func (s *scheduler) parked() []*task {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parked []*task
	for _, t := range s.tasks {
		if t.parked != "" {
			parked = append(parked, t)
		}
	}
	return parked
}

// resume lets a task go on until it is parked again, waits for time, or has ended.
func (s *scheduler) resume(t *task) {
	s.mu.Lock()
	t.parked = ""
	s.mu.Unlock()
	t.goOn <- struct{}{}
	s.settle()
}

// pass lets time pass: about so much, and an odd number of nanoseconds.
func (s *scheduler) pass(about time.Duration) {
	time.Sleep(about + time.Duration(2*s.draw(500_000)+1)) //nolint:forbidigo // the bubble's time, which moves in no other way
	s.settle()
}

// finish lets all tasks end, one after the other.
func (s *scheduler) finish() {
	for len(s.tasks) > 0 {
		if parked := s.parked(); len(parked) > 0 {
			s.resume(parked[0])
			s.pass(0)
			continue
		}
		s.pass(time.Second) // they wait for time
	}
}
