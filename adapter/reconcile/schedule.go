package reconcile

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/keytrail/keytrail/adapter"
)

// Watermark remembers when a schedule last ran, over restarts and processes, and
// lets one process at a time run it. internal/lease implements it.
type Watermark interface {
	// LastRun returns when the named schedule was last completed, the zero time when
	// never.
	LastRun(ctx context.Context, name string) (time.Time, error)
	// Hold runs f while holding the schedule's lease, and reports false without calling
	// it where another process has it. f's context ends when the lease is lost. Where f
	// says completed, the watermark moves to now.
	Hold(ctx context.Context, name string, f func(ctx context.Context) (completed bool, err error)) (ran bool, err error)
}

// ScheduleName is the name under which a realm's runs are leased and remembered. A
// run by hand takes the same lease.
func ScheduleName(realm string) string { return "reconcile/" + realm }

// Scheduler starts runs at an interval. It runs one realm at a time, so that the
// load on Keycloak is that of one run.
type Scheduler struct {
	// Reconcile runs a reconciliation: (*Runner).Run.
	Reconcile func(ctx context.Context, req Request) (Result, error)
	Watermark Watermark
	Realms    []string
	// Interval between the ends of completed runs; 0 switches the schedule off. Up to
	// a tenth of it is added for each realm, always the same for the same name, so that
	// realms do not come due together.
	Interval time.Duration
	// Retry is when a run that was not completed, or a lease that another process
	// holds, is tried again. It defaults to 5 minutes and is at most Interval.
	Retry  time.Duration
	Clock  func() time.Time
	Logger *slog.Logger

	// sleep waits for d, or until the context ends. Tests replace it.
	sleep func(ctx context.Context, d time.Duration)
}

const defaultRetry = 5 * time.Minute

// Run runs the schedule until ctx ends, and returns nil then. A run that fails is
// logged and tried again; it never ends the schedule.
func (s *Scheduler) Run(ctx context.Context) error {
	if s.Interval <= 0 || len(s.Realms) == 0 {
		return nil
	}
	log, sleep, retry := s.Logger, s.sleep, s.Retry
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if sleep == nil {
		sleep = sleepFor
	}
	if retry <= 0 {
		retry = defaultRetry
	}
	retry = min(retry, s.Interval)

	// notBefore delays a realm whose last attempt did not end in a completed run.
	notBefore := make(map[string]time.Time, len(s.Realms))
	for ctx.Err() == nil {
		var next time.Time
		for _, realm := range s.Realms {
			due, tried, err := s.visit(ctx, log, realm, notBefore[realm])
			if tried || err != nil {
				notBefore[realm] = s.Clock().Add(retry)
			}
			if err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "scheduled reconciliation", "realm", realm, "error", err, "code", adapter.CodeOf(err))
			}
			if due.Before(notBefore[realm]) {
				due = notBefore[realm]
			}
			if next.IsZero() || due.Before(next) {
				next = due
			}
		}
		sleep(ctx, max(next.Sub(s.Clock()), time.Millisecond))
	}
	return nil
}

// visit runs the realm if it is due, and returns when it is due next.
func (s *Scheduler) visit(ctx context.Context, log *slog.Logger, realm string, notBefore time.Time) (due time.Time, tried bool, err error) {
	due, err = s.due(ctx, realm)
	if now := s.Clock(); err != nil || due.After(now) || notBefore.After(now) {
		return due, false, err
	}
	if err := s.once(ctx, log, realm); err != nil {
		return due, true, err
	}
	due, err = s.due(ctx, realm)
	return due, true, err
}

// due is when the realm's next run is due.
func (s *Scheduler) due(ctx context.Context, realm string) (time.Time, error) {
	last, err := s.Watermark.LastRun(ctx, ScheduleName(realm))
	if err != nil {
		return time.Time{}, fmt.Errorf("reading when realm %s was last reconciled: %w", realm, err)
	}
	if last.Sub(s.Clock()) > s.Interval {
		last = time.Time{} // a clock was wrong then; it must not put off the next run for years
	}
	if last.IsZero() {
		return last, nil
	}
	return last.Add(s.Interval + jitter(realm, s.Interval)), nil
}

// once runs the realm if no other process does.
func (s *Scheduler) once(ctx context.Context, log *slog.Logger, realm string) error {
	ran, err := s.Watermark.Hold(ctx, ScheduleName(realm), func(ctx context.Context) (bool, error) {
		res, err := s.Reconcile(ctx, Request{Realm: realm, Trigger: "schedule"})
		return err == nil && res.Status == adapter.RunCompleted, err
	})
	if err == nil && !ran {
		log.DebugContext(ctx, "another process reconciles", "realm", realm)
	}
	return err
}

// jitter is up to a tenth of the interval, fixed for a realm.
func jitter(realm string, interval time.Duration) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(realm)) // a hash never refuses
	return time.Duration(float64(interval) / 10 * float64(h.Sum32()) / float64(1<<32))
}

func sleepFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
