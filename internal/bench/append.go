package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

// Targets of append, for PostgreSQL by writers. SQLite has one for 64.
var (
	appendTargets    = map[int]float64{1: 0.85, 8: 0.50, 64: 0.60, 256: 0.75}
	seedTargets      = map[int]float64{64: 3, 256: 3.5}
	sqliteTarget     = 0.70
	sqliteRows       = 64
	copyConnections  = 8
	seedConnections  = 64
	streamsPerWriter = 200
)

// append measures appends of single events by writers with streams of their own, whose
// versions they know.
func (r *run) append(ctx context.Context, db database) (err error) {
	sampled, err := newSamples(ctx, adminEvent)
	if err != nil {
		return err
	}
	s, err := db.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	t, err := db.direct(ctx)
	if err != nil {
		return err
	}
	defer func() { err = closing(ctx, t, err) }()
	p, inPostgres := db.(*postgresDatabase)
	for _, writers := range []int{1, 8, 64, 256} {
		w := newWriters(s, sampled, writers)
		limit := newBareWriter(t, s, sampled, writers, "limit")
		sides := []side{
			{"append", func(ctx context.Context) (slice, error) { return w.run(ctx, r.slice(), 0) }},
			{"limit", func(ctx context.Context) (slice, error) { return limit.run(ctx, r.slice()) }},
		}
		many := inPostgres && seedTargets[writers] > 0
		var done func(context.Context) error
		if many {
			seed, err := newSeed(ctx, p, sampled, writers)
			if err != nil {
				return err
			}
			done = seed.close
			sides = append(sides, side{"seed", func(ctx context.Context) (slice, error) { return seed.naive(ctx, r.slice()) }},
				side{"copy", func(ctx context.Context) (slice, error) { return seed.copy(ctx, r.slice()) }})
		}
		turns, err := r.alternate(ctx, fmt.Sprintf("append, %d writers", writers), sides...)
		if done != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
			err = errors.Join(err, done(ctx))
			cancel()
		}
		if err != nil {
			return err
		}
		result := Result{Case: "append", Writers: writers}
		var target *Target
		if inPostgres {
			result.Limit = fmt.Sprintf("INSERT of %d rows and their gate, one connection, one round trip, no lock, no check", writers)
			target = atLeast(appendTargets[writers])
		} else {
			result.Limit = fmt.Sprintf("transactions of %d rows and their gate, no check", writers)
			if writers == sqliteRows {
				target = atLeast(sqliteTarget)
			}
		}
		r.add(compare(result, target, turns[0], turns[1], slice.perS))
		if many {
			result.Limit = fmt.Sprintf("the seed's way: read version, compare, insert, commit, four round trips, %d connections", min(writers, seedConnections))
			r.add(compare(result, atLeast(seedTargets[writers]), turns[0], turns[2], slice.perS))
			result.Limit = fmt.Sprintf("COPY of 1,000 rows at a time, %d connections", copyConnections)
			r.add(compare(result, nil, turns[0], turns[3], slice.perS))
		}
	}
	return nil
}

// writers append single events, each to streams of its own.
type writers struct {
	store   eventstore.Store
	samples *samples
	all     []writer
}

type writer struct {
	streams  []eventstore.StreamID
	versions []eventstore.Version
	next     int
}

func newWriters(s eventstore.Store, sampled *samples, n int) *writers {
	w := &writers{store: s, samples: sampled, all: make([]writer, n)}
	prefix := eventstore.NewID().String()
	for i := range w.all {
		w.all[i] = newWriter(fmt.Sprintf("%s-%d", prefix, i))
	}
	return w
}

func newWriter(name string) writer {
	w := writer{streams: make([]eventstore.StreamID, streamsPerWriter), versions: make([]eventstore.Version, streamsPerWriter)}
	for i := range w.streams {
		w.streams[i] = eventstore.NamedStream("bench", name, fmt.Sprint(i))
	}
	return w
}

// run appends for as long as d, or count events where that is not zero.
func (w *writers) run(ctx context.Context, d time.Duration, count int) (slice, error) {
	latencies := make([][]time.Duration, len(w.all))
	errs := make([]error, len(w.all))
	var group sync.WaitGroup
	start := time.Now()
	for i := range w.all {
		share := (count + len(w.all) - 1) / len(w.all)
		group.Go(func() {
			// One at least, however late the machine lets it begin.
			for n := 0; n == 0 || count > 0 && n < share || count == 0 && time.Since(start) < d; n++ {
				began := time.Now()
				if errs[i] = w.one(ctx, i, began); errs[i] != nil {
					return
				}
				latencies[i] = append(latencies[i], time.Since(began))
			}
		})
	}
	group.Wait()
	s := slice{took: time.Since(start)}
	for i, l := range latencies {
		if errs[i] != nil {
			return s, errs[i]
		}
		s.events += len(l)
		s.latencies = append(s.latencies, l...)
	}
	return s, nil
}

func (w *writers) one(ctx context.Context, i int, at time.Time) error {
	me := &w.all[i]
	n := me.next % len(me.streams)
	me.next++
	_, err := w.store.Append(ctx, eventstore.StreamAppend{
		Stream: me.streams[n], Expected: eventstore.ExpectVersion(me.versions[n]),
		Events: []eventstore.NewEvent{w.samples.event(i+me.next, at)},
	})
	me.versions[n]++
	return err
}

// bareWriter writes as many rows at a time as there are writers, one for each.
type bareWriter struct {
	tables  tables
	store   eventstore.Store
	samples *samples
	all     []writer
	// first are the positions of the streams' first events.
	first map[eventstore.StreamID]eventstore.Position
}

func newBareWriter(t tables, s eventstore.Store, sampled *samples, rows int, name string) *bareWriter {
	b := &bareWriter{tables: t, store: s, samples: sampled, all: make([]writer, rows), first: make(map[eventstore.StreamID]eventstore.Position)}
	prefix := eventstore.NewID().String()
	for i := range b.all {
		b.all[i] = newWriter(fmt.Sprintf("%s-%s-%d", name, prefix, i))
	}
	return b
}

func (b *bareWriter) run(ctx context.Context, d time.Duration) (slice, error) {
	head, err := b.store.Head(ctx) // the store has written meanwhile
	if err != nil {
		return slice{}, err
	}
	var s slice
	start := time.Now()
	for s.events == 0 || time.Since(start) < d {
		began := time.Now()
		if err := b.tables.write(ctx, b.batch(head, began)); err != nil {
			return s, err
		}
		s.latencies = append(s.latencies, time.Since(began))
		s.events += len(b.all)
		head += eventstore.Position(len(b.all))
	}
	s.took = time.Since(start)
	return s, nil
}

func (b *bareWriter) batch(head eventstore.Position, now time.Time) *batch {
	now = now.UTC().Truncate(time.Microsecond)
	rows := &batch{events: make([]event, len(b.all)), streams: make([]gate, len(b.all))}
	for i := range b.all {
		me := &b.all[i]
		n := me.next % len(me.streams)
		me.next++
		me.versions[n]++
		position := head + eventstore.Position(i) + 1
		stream := me.streams[n]
		if b.first[stream] == 0 {
			b.first[stream] = position
		}
		rows.events[i] = event{
			NewEvent: b.samples.event(i+me.next, now), position: position, stream: stream, version: me.versions[n], recordedAt: now,
		}
		rows.streams[i] = gate{stream: stream, version: me.versions[n], first: b.first[stream], last: position}
	}
	return rows
}
