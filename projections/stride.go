package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/keytrail/keytrail/eventstore"
)

const (
	// rebuildStride is how long a rebuild folds before it writes, unless its memory is
	// full before: what a crash costs. It is well below rebuildSilence.
	rebuildStride = 20 * time.Second
)

// strideBatches is how many batches of a projection that is read are written at once at
// most: readers see it move, a command that catches up for some seconds gets somewhere,
// and on SQLite appends wait for the writing.
func (d Dialect) strideBatches() int {
	if d == SQLite {
		return 10
	}
	return 30
}

// stride is a step over several batches, whose rows stay in memory until the last.
type stride struct {
	// batches and patience bound it; 0 does not.
	batches  int
	patience time.Duration
	// progress, if not nil, hears of every batch that was folded.
	progress func(position, head eventstore.Position)

	// alone is the build of a shadow that nobody goes on with but this process, should it
	// end before the shadow is filled.
	alone string
	// torn is true where the tables have rows of events above the checkpoint.
	torn bool

	// rows are what the stride before has left, true where the checkpoint is still at.
	rows Accumulation
	at   checkpoint
}

// forget frees the memory.
func (s *stride) forget() {
	if s != nil {
		s.rows = nil
	}
}

// goOn is where the rows held are those of the checkpoint, or nothing is held.
func (s *stride) goOn(a Accumulator, db DB, c checkpoint) {
	if s.rows == nil || s.at.name != c.name || s.at.build != c.build || s.at.position != c.position {
		s.rows = a.Accumulate(db, c.tables(), c.position == 0)
	}
}

// stride moves the checkpoint by several batches. What comes before an event at fault is
// written first.
func (r *runner) stride(ctx context.Context, a Accumulator, c checkpoint, head eventstore.Position, how pace) (checkpoint, error) {
	e, s := r.engine, how.stride
	if d, ok := a.(Divisible); ok && c.position == 0 && c.build == s.alone {
		return r.divide(ctx, d, c, head, s)
	}
	written := false
	defer func() {
		if !written {
			s.forget()
		}
	}()
	end := head
	for {
		s.goOn(a, e.db, c)
		reached, err := r.accumulate(ctx, c.position, end, head, s)
		if err != nil && (reached == c.position || ctx.Err() != nil) {
			return c, err
		}
		if err != nil {
			// The rows may be halfway in the batch that failed.
			s.forget()
			end = reached
			continue
		}
		end = reached
		break
	}
	if err := r.write(ctx, c, end, s.rows.Changed(), how.status); err != nil {
		return c, fmt.Errorf("projection %s: %w", r.name, err)
	}
	c.position = end
	s.at, written = c, s.rows.Size() < e.memory
	return c, nil
}

// write writes the rows together with the checkpoint.
func (r *runner) write(ctx context.Context, c checkpoint, to eventstore.Position, changed []Rows, status State) (err error) {
	e := r.engine
	conn, err := e.db.Write.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return inTx(ctx, conn, func(tx *sql.Tx) error {
		if err := c.move(ctx, tx, to, status, e.clock()); err != nil {
			return err
		}
		for _, rows := range changed {
			if err := rows.write(ctx, conn, tx, e.db.Dialect); err != nil {
				return err
			}
		}
		return nil
	})
}

// accumulate folds what lies between the positions, or as much as the stride and the
// memory allow, and tells how far it got without an error.
func (r *runner) accumulate(ctx context.Context, after, end, head eventstore.Position, s *stride) (eventstore.Position, error) {
	e := r.engine
	began := e.clock()
	pages, stop := r.readAhead(ctx, after, end, nil)
	defer stop()
	for n := 1; after < end; n++ {
		p, err := receive(ctx, pages)
		if err == nil && len(p.events) > 0 {
			err = s.rows.Fold(ctx, p.events, p.upTo)
		}
		if err != nil {
			return after, fmt.Errorf("projection %s: %w", r.name, r.blame(p.events, err))
		}
		after = p.upTo
		if s.progress != nil {
			s.progress(after, head)
		}
		if n == s.batches || s.rows.Size() >= e.memory || s.patience > 0 && e.clock().Sub(began) >= s.patience {
			break
		}
	}
	return after, nil
}

// receive waits for a batch.
func receive(ctx context.Context, pages <-chan page) (page, error) {
	select {
	case p := <-pages:
		return p, p.err
	case <-ctx.Done():
		return page{}, ctx.Err()
	}
}

// readAhead reads and decodes the batches up to end while the one before is folded. stop
// ends it, and is to be called.
func (r *runner) readAhead(
	ctx context.Context, after, end eventstore.Position, keep func(eventstore.StreamID) bool,
) (pages <-chan page, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	to, done := make(chan page, 1), make(chan struct{})
	go func() {
		defer close(done)
		for p := range r.pages(ctx, after, end, r.engine.batchSize, 0, keep) {
			select {
			case to <- p:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to, func() {
		cancel()
		<-done
	}
}
