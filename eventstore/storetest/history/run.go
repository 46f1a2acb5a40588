package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// What the environment can ask for: more rounds, each with the next seed, and the
// first seed. A seed repeats what clients and disturbances choose to do, not how the
// machine schedules them; so try it a few times.
const (
	RoundsEnv = "KEYTRAIL_HISTORY_ROUNDS"
	SeedEnv   = "KEYTRAIL_HISTORY_SEED"
)

const (
	workers     = 8
	subscribers = 3
	// between is how many operations are answered between two disturbances.
	between = 40
	// recoveryLimit bounds how long a store may take to be opened, to answer again after
	// a disturbance, and to bring subscribers to the end.
	recoveryLimit = 30 * time.Second
	// roundLimit bounds a round as a whole.
	roundLimit = 3 * time.Minute
	// pageful is more than the stores read at once.
	pageful = 520
	// shown is how many anomalies are printed.
	shown = 10
)

// A Plan is what a round does to one new database.
type Plan struct {
	// Processes open the database, by name; the clients are spread over them.
	Processes map[string]Opener
	// Disturbances are made from lists, which are gone through at the same time, each
	// one disturbance after the other. Within a list the seed chooses.
	Disturbances func(p map[string]*Process) [][]Disturbance
	// Times is how many disturbances are taken from each list.
	Times int

	// recovery is less than recoveryLimit where it is not 0.
	recovery time.Duration
}

// Run carries out a plan for as many rounds as the environment says, at least one,
// and fails the test when a history is not what the contract promises. The history
// is then kept in testdata/history, to be checked again by TestReplay.
func Run(t *testing.T, plan func(t *testing.T) Plan) {
	rounds, seed := 1, rand.Uint64()
	for name, set := range map[string]func(s string) error{
		RoundsEnv: func(s string) (err error) { rounds, err = strconv.Atoi(s); return err },
		SeedEnv:   func(s string) (err error) { seed, err = strconv.ParseUint(s, 10, 64); return err },
	} {
		if value := os.Getenv(name); value != "" {
			if err := set(value); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	for round := range uint64(max(rounds, 1)) {
		if runRound(t, plan(t), seed+round); t.Failed() {
			return
		}
	}
}

func runRound(t *testing.T, plan Plan, seed uint64) {
	t.Helper()
	begin := time.Now()
	ops, err := plan.round(t.Context(), seed)
	anomalies := Check(ops)
	if err == nil && len(anomalies) == 0 {
		t.Logf("seed %d: %s, in %s", seed, summary(ops), time.Since(begin).Round(time.Millisecond))
		return
	}
	if err != nil {
		t.Errorf("%v", err)
	}
	for i, a := range anomalies {
		if i == shown {
			t.Errorf("… and %d more", len(anomalies)-shown)
			break
		}
		t.Errorf("%s", a)
	}
	t.Errorf("%s; to try again: %s=%d go test -run '^%s$'", summary(ops), SeedEnv, seed, t.Name())
	if path, err := keep(t.Name(), seed, ops); err != nil {
		t.Errorf("the history is lost: %v", err)
	} else {
		t.Errorf("the history is kept; to check it again: %s=%s go test -run TestReplay ./eventstore/storetest/history", FileEnv, path)
	}
}

func keep(name string, seed uint64, ops []Op) (path string, err error) {
	path, err = filepath.Abs(filepath.Join("testdata", "history", fmt.Sprintf("%s-%d.jsonl", strings.ReplaceAll(name, "/", "-"), seed)))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(Write(f, ops), f.Close())
}

func summary(ops []Op) string {
	counts := map[Outcome]int{}
	deliveries, events := 0, 0
	for _, op := range ops {
		switch op.Kind {
		case Append:
			counts[op.Outcome]++
		case Deliver:
			deliveries += len(op.Events)
		case Final:
			events = len(op.Events)
		}
	}
	return fmt.Sprintf("%d operations, appends: %d ok, %d conflicts, %d reused, %d failed, %d unknown; %d deliveries of %d events",
		len(ops), counts[OK], counts[Conflict], counts[Reused], counts[Failed], counts[Unknown], deliveries, events)
}

type round struct {
	plan      Plan
	seed      uint64
	recorder  Recorder
	names     []string
	processes map[string]*Process
}

// round carries out a plan once. Its error says that the store has not recovered in
// time or that a disturbance could not be made; the history is worth a check all the
// same.
func (p Plan) round(ctx context.Context, seed uint64) ([]Op, error) {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	p.recovery = cmp.Or(p.recovery, recoveryLimit)
	r := &round{plan: p, seed: seed, processes: make(map[string]*Process)}
	err := r.work(ctx)
	return r.recorder.Ops(), err
}

// rng is the source of one part of the run.
func (r *round) rng(part uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, part)) }

// work lets the clients work while things go wrong, puts everything right, and
// reads what is there then.
func (r *round) work(ctx context.Context) (err error) {
	var all []*Process
	for name, open := range r.plan.Processes {
		r.names = append(r.names, name)
		r.processes[name] = &Process{name: name, open: open}
	}
	slices.Sort(r.names)
	defer func() {
		for _, p := range all {
			err = errors.Join(err, p.close())
		}
	}()
	for _, name := range r.names {
		p := r.processes[name]
		all = append(all, p)
		if err := p.start(ctx); err != nil {
			return err
		}
	}

	if err := r.prefill(ctx, all); err != nil {
		return err
	}

	stop := make(chan struct{})
	worked := make(chan error, workers)
	for i := range workers {
		w := &worker{
			client:   client{name: fmt.Sprint("worker ", i+1), rng: r.rng(uint64(100 + i)), recorder: &r.recorder, processes: all, home: i % len(all)},
			versions: make(map[eventstore.StreamID]eventstore.Version),
		}
		go func() { worked <- w.work(ctx, stop) }()
	}
	following, unfollow := context.WithCancel(ctx)
	followed := make(chan struct{}, subscribers)
	var subs []*subscriber
	for i := range subscribers {
		s := &subscriber{client: client{name: fmt.Sprint("subscriber ", i+1), rng: r.rng(uint64(200 + i)), recorder: &r.recorder, processes: all, home: i % len(all)}}
		subs = append(subs, s)
		go func() {
			s.follow(following)
			followed <- struct{}{}
		}()
	}

	err = r.disturb(ctx)
	close(stop)
	for range workers {
		err = errors.Join(err, <-worked)
	}
	err = errors.Join(err, r.drain(ctx, subs))
	unfollow()
	for range subscribers {
		<-followed
	}
	return errors.Join(err, r.readAll(ctx))
}

// prefill writes so many events, with every other seed, that reading all of them
// takes several pages, between which others append.
func (r *round) prefill(ctx context.Context, all []*Process) error {
	w := &worker{
		client:   client{name: "first writer", rng: r.rng(500), recorder: &r.recorder, processes: all},
		versions: make(map[eventstore.StreamID]eventstore.Version),
	}
	if r.seed%2 == 0 {
		return nil
	}
	part := eventstore.StreamAppend{Stream: hot(0), Expected: eventstore.ExpectNone()}
	for range pageful + w.rng.IntN(100) {
		part.Events = append(part.Events, w.drawEvent())
	}
	_, err := w.append(ctx, []eventstore.StreamAppend{part})
	return err
}

// disturb goes through the lists of disturbances.
func (r *round) disturb(ctx context.Context) error {
	if err := r.progress(ctx, "at first"); err != nil {
		return err
	}
	if r.plan.Disturbances == nil {
		for range r.plan.Times {
			if err := r.progress(ctx, "undisturbed"); err != nil {
				return err
			}
		}
		return nil
	}
	lists := r.plan.Disturbances(r.processes)
	done := make(chan error, len(lists))
	for i, list := range lists {
		rng := r.rng(uint64(300 + i))
		go func() {
			for range r.plan.Times {
				d := list[rng.IntN(len(list))]
				if err := d.Do(ctx, rng); err != nil {
					done <- fmt.Errorf("%s: %w", d.Name, err)
					return
				}
				if err := r.progress(ctx, "after "+d.Name); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	var err error
	for range lists {
		err = errors.Join(err, <-done)
	}
	return err
}

// progress waits until operations are answered again.
func (r *round) progress(ctx context.Context, when string) error {
	target := r.recorder.Answered() + between
	return r.eventually(ctx, func() error {
		if n := r.recorder.Answered(); n < target {
			return fmt.Errorf("%s: only %d of %d operations were answered within %s", when, between-(target-n), between, r.plan.recovery)
		}
		return nil
	})
}

// drain waits until every subscriber has come to the end of the log.
func (r *round) drain(ctx context.Context, subs []*subscriber) error {
	store, _ := r.processes[r.names[0]].Store()
	var head eventstore.Position
	return r.eventually(ctx, func() (err error) {
		if head == 0 {
			if head, err = store.Head(ctx); err != nil {
				return err
			}
		}
		for _, s := range subs {
			if at := s.reached.Load(); at < int64(head) {
				return fmt.Errorf("%s has come to position %d of %d only, %s after the last append", s.name, at, head, r.plan.recovery)
			}
		}
		return nil
	})
}

func (r *round) eventually(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, r.plan.recovery)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// readAll reads everything through a store that has seen nothing of all this.
func (r *round) readAll(ctx context.Context) (err error) {
	p := &Process{name: "last", open: r.plan.Processes[r.names[0]]}
	if err := p.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	w := &worker{
		client:   client{name: "last reader", rng: r.rng(400), recorder: &r.recorder, processes: []*Process{p}},
		versions: make(map[eventstore.StreamID]eventstore.Version),
	}
	w.readHead(ctx)
	w.readVersions(ctx)
	for n := range hotStreams {
		op := Op{Kind: ReadStream, Streams: []string{hot(n).String()}}
		w.read(ctx, op, r.plan.recovery, func(ctx context.Context, s eventstore.Store, op *Op) error {
			return w.take(op, s.ReadStream(ctx, hot(n), eventstore.StreamQuery{}))
		})
	}
	if !w.read(ctx, Op{Kind: Final}, r.plan.recovery, func(ctx context.Context, s eventstore.Store, op *Op) error {
		return w.take(op, s.ReadLog(ctx, eventstore.LogQuery{}))
	}) {
		return errors.New("the log could not be read at the end")
	}
	return nil
}
