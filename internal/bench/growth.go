package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// growthTarget: within 1.2 times of what it costs on the small log.
const growthTarget = 0.833

// growth measures append, and reading one stream, on logs of growing size. The small log
// and the large one are two databases, so that they can take turns like any case and
// limit. Each turn appends few events: the small log must stay small.
func (r *run) growth(ctx context.Context, small database) (err error) {
	base, sizes := 100_000, []int{1_000_000}
	if r.Quick {
		base, sizes = 10_000, []int{100_000}
	}
	if r.Size > 0 {
		base = min(base, r.Size/10)
		sizes = append(slices.DeleteFunc(sizes, func(n int) bool { return n >= r.Size }), r.Size)
	}
	large, err := r.newDatabase(ctx)
	if err != nil {
		return err
	}
	least, grown := log{database: small}, log{database: large}
	if err := r.grow(ctx, &least, base); err != nil {
		return err
	}
	if least.store, err = small.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, least.store.Close()) }()
	for _, size := range sizes {
		if err := r.grow(ctx, &grown, size); err != nil {
			return err
		}
		if err := r.growthAt(ctx, &least, &grown, base, size); err != nil {
			return err
		}
	}
	return nil
}

// log is a log that grows.
type log struct {
	database database
	store    store
	segments []segment
	head     int
}

// stream is one of those that were filled in.
func (l *log) stream(rnd *rand.Rand) eventstore.StreamID {
	total := 0
	for _, s := range l.segments {
		total += s.events
	}
	n := rnd.IntN(total)
	for _, s := range l.segments {
		if n < s.events {
			return s.stream(n)
		}
		n -= s.events
	}
	return eventstore.StreamID{}
}

// grow fills a log up to a size.
func (r *run) grow(ctx context.Context, l *log, size int) error {
	r.Progress(fmt.Sprintf("filling a log of %d events", size))
	sampled, err := newSamples(ctx, adminEvent)
	if err != nil {
		return err
	}
	s := segment{name: fmt.Sprint("log", len(l.segments)), from: l.head, events: size - l.head}
	l.segments, l.head = append(l.segments, s), size
	_, err = fill(ctx, l.database, logBlocks(sampled, s, func() bool { return false }))
	return err
}

// growthAt compares the logs.
func (r *run) growthAt(ctx context.Context, least, grown *log, base, size int) (err error) {
	if grown.store, err = grown.database.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, grown.store.Close()) }()
	sampled, err := newSamples(ctx, adminEvent)
	if err != nil {
		return err
	}
	limit := fmt.Sprintf("the same at %s events", count(float64(base)))
	for _, w := range []struct{ writers, events int }{{1, 300}, {64, 3200}} {
		few, many := newWriters(least.store, sampled, w.writers), newWriters(grown.store, sampled, w.writers)
		events := w.events
		if r.Quick {
			events = max(int(float64(events/4)*r.scale), w.writers)
		}
		turns, err := r.alternate(ctx, fmt.Sprintf("append, %d writers, %d events", w.writers, size),
			side{"limit", func(ctx context.Context) (slice, error) { return few.run(ctx, 0, events) }},
			side{"grown", func(ctx context.Context) (slice, error) { return many.run(ctx, 0, events) }},
		)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("append at %s events", count(float64(size)))
		r.add(compare(Result{Case: name, Writers: w.writers, Limit: limit}, atLeast(growthTarget), turns[1], turns[0], slice.perS))
	}
	for _, w := range []struct {
		working int
		name    string
	}{
		{workingStreams, fmt.Sprintf("of %s streams read again and again", count(workingStreams))},
		{0, "of any stream"},
	} {
		turns, err := r.alternate(ctx, fmt.Sprintf("the %d events %s, %d events", eventsPerStream, w.name, size),
			side{"limit", readStreams(least, r.slice()/4, w.working)},
			side{"grown", readStreams(grown, r.slice()/4, w.working)},
		)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("the %d events %s at %s events", eventsPerStream, w.name, count(float64(size)))
		r.add(compare(Result{Case: name, Writers: 1, Limit: limit}, atLeast(growthTarget), turns[1], turns[0], slice.perS))
	}
	head, err := grown.store.Head(ctx)
	grown.head = int(head)
	return err
}

// workingStreams is a number of streams that stay in any cache: those that are in use,
// as against any of a log that may be larger than the memory.
const workingStreams = 1_000

// readStreams reads streams that were filled in, one after the other: any, or working
// ones again and again.
func readStreams(l *log, d time.Duration, working int) func(context.Context) (slice, error) {
	rnd := newRand(3)
	draw := func() eventstore.StreamID { return l.stream(rnd) }
	if working > 0 {
		streams := make([]eventstore.StreamID, working)
		for i := range streams {
			streams[i] = l.stream(rnd)
		}
		next := 0
		draw = func() eventstore.StreamID { next++; return streams[next%working] }
	}
	return func(ctx context.Context) (slice, error) {
		var result slice
		start := time.Now()
		for result.events == 0 || time.Since(start) < d {
			began := time.Now()
			n := 0
			for _, err := range l.store.ReadStream(ctx, draw(), eventstore.StreamQuery{}) {
				if err != nil {
					return result, err
				}
				n++
			}
			if n == 0 {
				return result, errors.New("a stream that was filled in is empty")
			}
			result.latencies = append(result.latencies, time.Since(began))
			result.events++
		}
		result.took = time.Since(start)
		return result, nil
	}
}
