package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

const (
	undecodedTarget = 0.85
	decodedTarget   = 0.60
	// blockEvents is how many events are filled in at a time.
	blockEvents = 2_000
	// eventsPerStream is the length of the streams of a log that was filled in.
	eventsPerStream = 10
)

// replay measures reading the whole log.
func (r *run) replay(ctx context.Context, db database) (err error) {
	size, err := r.fillLog(ctx, db, mixedEvent)
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
	codec := newCodec()
	turns, err := r.alternate(ctx, fmt.Sprintf("replay of %d events", size),
		side{"limit", timed(size, func(ctx context.Context) (int, error) { return t.scan(ctx) })},
		side{"undecoded", timed(size, func(ctx context.Context) (n int, err error) { return readAll(ctx, s) })},
		side{"decoded", timed(size, func(ctx context.Context) (n int, err error) {
			for e, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
				if err != nil {
					return n, err
				}
				d, err := codec.Decode(ctx, e)
				if err != nil {
					return n, err
				}
				if d.Payload == nil {
					return n, fmt.Errorf("event %s has no payload", e.ID)
				}
				n++
			}
			return n, nil
		})},
	)
	if err != nil {
		return err
	}
	limit := scanLimit(db)
	r.add(compare(Result{Case: "undecoded", Limit: limit}, atLeast(undecodedTarget), turns[1], turns[0], slice.perS))
	r.add(compare(Result{Case: "decoded", Limit: limit}, atLeast(decodedTarget), turns[2], turns[0], slice.perS))
	return nil
}

func scanLimit(db database) string {
	if _, ok := db.(*postgresDatabase); ok {
		return "pgx scan of all columns, payloads to bytes, one query"
	}
	return "database/sql scan of all columns, payloads to bytes, one query"
}

func readAll(ctx context.Context, s eventstore.Reader) (n int, err error) {
	for _, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// timed makes a side of something that handles every event of the log once.
func timed(size int, f func(ctx context.Context) (int, error)) func(context.Context) (slice, error) {
	return func(ctx context.Context) (slice, error) {
		start := time.Now()
		n, err := f(ctx)
		if err == nil && n != size {
			err = fmt.Errorf("%d of %d events were seen", n, size)
		}
		return slice{events: n, took: time.Since(start)}, err
	}
}

// fillLog writes a log of streams of ten events that grow side by side, and returns its
// size.
func (r *run) fillLog(ctx context.Context, db database, kind eventKind) (int, error) {
	size, enough := r.size(1_000_000, 100_000, 1500*time.Millisecond)
	sampled, err := newSamples(ctx, kind)
	if err != nil {
		return 0, err
	}
	r.Progress(fmt.Sprintf("filling a log of %d events", size))
	return fill(ctx, db, logBlocks(sampled, segment{name: "log", events: size}, enough))
}

// segment is a part of the log that was filled in at once, after position from.
type segment struct {
	name         string
	from, events int
}

// stream is the stream of the segment's event with this number, from 0. The streams of
// a block take turns.
func (s segment) stream(number int) eventstore.StreamID {
	block, within := number/blockEvents, number%blockEvents
	return adapter.UserStream(realm, fmt.Sprintf("%s-%d", s.name, block*blockEvents+within%(blockEvents/eventsPerStream)))
}

// logBlocks are the events of a segment, or fewer where there are enough before.
func logBlocks(sampled *samples, s segment, enough func() bool) iter.Seq2[*batch, error] {
	return func(yield func(*batch, error) bool) {
		for at := 0; at < s.events && (at == 0 || !enough()); at += blockEvents {
			b := &batch{events: make([]event, min(blockEvents, s.events-at))}
			streams := make(map[eventstore.StreamID]int)
			for i := range b.events {
				position := eventstore.Position(s.from + at + i + 1)
				stream := s.stream(at + i)
				g, known := streams[stream]
				if !known {
					g = len(b.streams)
					streams[stream] = g
					b.streams = append(b.streams, gate{stream: stream, first: position})
				}
				b.streams[g].version++
				b.streams[g].last = position
				when := begin.Add(time.Duration(position) * time.Millisecond)
				b.events[i] = event{
					NewEvent: sampled.event(at+i, when), position: position, stream: stream, version: b.streams[g].version, recordedAt: when,
				}
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}
