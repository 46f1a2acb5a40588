package projections

import (
	"context"
	"fmt"

	"github.com/keytrail/keytrail/eventstore"
)

// part are the streams whose number ends with certain bits.
type part struct {
	bits  uint64
	depth uint
}

// maxDepth is how often a part is halved at most. To read the log more often than 16 times
// is slower than to write rows more often than once.
const maxDepth = 4

func (p part) has(n uint64) bool { return n&(1<<p.depth-1) == p.bits }

func (p part) halves() (part, part) {
	return part{p.bits, p.depth + 1}, part{p.bits | 1<<p.depth, p.depth + 1}
}

// share is how much of all streams it has.
func (p part) share() float64 { return 1 / float64(uint64(1)<<p.depth) }

// divide fills a shadow from the beginning of the log to head, part by part, each as large
// as the memory lets it be. The checkpoint moves with the last one; whoever finds the
// shadow before, drops it.
func (r *runner) divide(ctx context.Context, a Divisible, c checkpoint, head eventstore.Position, s *stride) (checkpoint, error) {
	done := 0.0
	left := []part{{}}
	for len(left) > 0 {
		p := left[len(left)-1]
		left = left[:len(left)-1]
		progress := func(at eventstore.Position) {
			if s.progress != nil {
				s.progress(eventstore.Position((done+p.share()*float64(at)/float64(head))*float64(head)), head)
			}
		}
		// Parts are much alike: once one is written, the others may be a little larger.
		mayGrow := p.depth == maxDepth && s.torn
		rows, err := r.accumulatePart(ctx, a, p, c, head, mayGrow, progress)
		if err != nil {
			return c, fmt.Errorf("projection %s: %w", r.name, err)
		}
		if rows == nil && p.depth == maxDepth {
			s.alone = "" // it goes on as if it were not alone
			return c, nil
		}
		if rows == nil {
			one, other := p.halves()
			left = append(left, other, one)
			continue
		}
		to := c.position
		if len(left) == 0 {
			to = head
		}
		// One transaction of all rows and the checkpoint leaves nothing behind when it fails.
		s.torn = s.torn || to != head || r.engine.db.Dialect == SQLite
		if err := r.writePart(ctx, c, to, rows.Changed()); err != nil {
			return c, fmt.Errorf("projection %s: %w", r.name, err)
		}
		s.torn = len(left) > 0
		done += p.share()
		if p.depth == 0 {
			s.rows = rows // they are all there are
		}
	}
	c.position = head
	s.at = c
	return c, nil
}

// partRows is how many rows of a part are written at once on SQLite, where appends wait
// meanwhile.
const partRows = 2000

// writePart writes the rows, in several transactions where others would wait for one, and
// moves the checkpoint with the last.
func (r *runner) writePart(ctx context.Context, c checkpoint, to eventstore.Position, changed []Rows) error {
	if r.engine.db.Dialect != SQLite {
		return r.write(ctx, c, to, changed, "")
	}
	for _, rows := range changed {
		if err := r.writeChunks(ctx, c, rows); err != nil {
			return err
		}
	}
	return r.write(ctx, c, to, nil, "")
}

func (r *runner) writeChunks(ctx context.Context, c checkpoint, rows Rows) error {
	chunks, stop := rows.ahead(partRows)
	defer stop()
	for chunk := range chunks {
		if chunk.err != nil {
			return chunk.err
		}
		rows.Each = func(yield func([]any, error) bool) {
			for _, row := range chunk.rows {
				if !yield(row, nil) {
					return
				}
			}
		}
		if err := r.write(ctx, c, c.position, []Rows{rows}, ""); err != nil {
			return err
		}
	}
	return nil
}

// accumulatePart folds the events of a part, and returns nil where they do not fit into
// the memory and may not.
func (r *runner) accumulatePart(
	ctx context.Context, a Divisible, p part, c checkpoint, head eventstore.Position, mayGrow bool, progress func(at eventstore.Position),
) (Accumulation, error) {
	e := r.engine
	var keep func(eventstore.StreamID) bool
	if p.depth > 0 {
		keep = func(s eventstore.StreamID) bool { return p.has(a.Part(s)) }
	}
	rows := a.Accumulate(e.db, c.tables(), true)
	pages, stop := r.readAhead(ctx, c.position, head, keep)
	defer stop()
	shown := e.clock()
	for at := c.position; at < head; {
		next, err := receive(ctx, pages)
		if err == nil && len(next.events) > 0 {
			err = rows.Fold(ctx, next.events, next.upTo)
		}
		if err != nil {
			return nil, r.blame(next.events, err)
		}
		at = next.upTo
		progress(at)
		if rows.Size() >= e.memory && !mayGrow {
			return nil, nil
		}
		if now := e.clock(); now.Sub(shown) >= rebuildStride {
			shown = now
			if err := r.write(ctx, c, c.position, nil, ""); err != nil { // others see that it goes on
				return nil, err
			}
		}
	}
	return rows, nil
}
