package backend

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Bounds of one page: rows, and bytes of payload after which a page is cut short,
// so that an iterator's memory does not depend on how large events are. The first
// page is small, because most readers want few events; later ones are as large as
// the events let them be.
const (
	PageRows  = 500
	maxRows   = 4000
	PageBytes = 4 << 20
)

// fetch gets the last event yielded (the zero Event at first) and the most rows it may
// return; it sets more when there may be others after the page.
type fetch func(ctx context.Context, last eventstore.Event, rows int) (page []eventstore.Event, more bool, err error)

// fetched is what a fetch has returned.
type fetched struct {
	page []eventstore.Event
	more bool
	err  error
}

// Pages yields what fetch returns page by page, so that no connection is held
// while the consumer works. limit is the most events to yield, 0 for all. From the
// second page on the next one is fetched while the consumer works on the one before.
func Pages(ctx context.Context, l *Lifetime, limit int, fetch fetch) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		ahead, cancel := context.WithCancel(ctx)
		var next chan fetched
		defer func() {
			cancel()
			if next != nil {
				<-next
			}
		}()
		var last eventstore.Event
		left, rows := limit, PageRows
		for n := 0; ; n++ {
			if limit > 0 {
				rows = min(rows, left)
			}
			var now fetched
			if next != nil {
				now = <-next
				next = nil
			} else {
				now = fetchPage(ctx, l, last, rows, fetch)
			}
			if now.err != nil {
				// A page that was fetched ahead ends for the same reasons as the iterator.
				yield(eventstore.Event{}, now.err)
				return
			}
			left -= len(now.page)
			more := now.more && (limit == 0 || left > 0)
			if more {
				last, rows = now.page[len(now.page)-1], nextRows(now.page)
				if n > 0 {
					if limit > 0 {
						rows = min(rows, left)
					}
					next = make(chan fetched, 1)
					go func(to chan<- fetched, last eventstore.Event, rows int) {
						to <- fetchPage(ahead, l, last, rows, fetch)
					}(next, last, rows)
				}
			}
			for _, e := range now.page {
				if err := ended(ctx, l); err != nil {
					yield(eventstore.Event{}, err)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

// nextRows is how many events like those of a page fill the next one.
func nextRows(page []eventstore.Event) int {
	size := 0
	for i := range page {
		size += eventBytes + len(page[i].Data) + len(page[i].Metadata)
	}
	return max(1, min(maxRows, PageBytes/4*3*len(page)/max(1, size)))
}

func fetchPage(ctx context.Context, l *Lifetime, last eventstore.Event, rows int, fetch fetch) fetched {
	opCtx, over, err := l.Begin(ctx)
	if err != nil {
		return fetched{err: err}
	}
	defer over()
	page, more, err := fetch(opCtx, last, rows)
	if err != nil {
		return fetched{err: Ended(ctx, l, err)}
	}
	return fetched{page: page, more: more}
}

// Ended replaces the error of an operation that was cut short by the reason: the
// caller's context, or the store being closed.
func Ended(ctx context.Context, l *Lifetime, err error) error {
	if err == nil {
		return nil
	}
	if reason := ended(ctx, l); reason != nil {
		return reason
	}
	return err
}

func ended(ctx context.Context, l *Lifetime) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.Err()
}

// Query runs one page's query. It may return fewer rows than asked for only where
// there are no more, or where PageBytes are reached, and says so.
type Query func(ctx context.Context, text string, args []any) (page []eventstore.Event, more bool, err error)

// ReadStream is Reader.ReadStream over query.
func (d Dialect) ReadStream(ctx context.Context, l *Lifetime, query Query, stream eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return Pages(ctx, l, q.Limit, func(ctx context.Context, last eventstore.Event, rows int) ([]eventstore.Event, bool, error) {
		next := q
		if last.Version != 0 {
			if q.Backward {
				next.Before = last.Version
			} else {
				next.After = last.Version
			}
		}
		text, args := d.Stream(stream.AggregateID(), next, rows)
		page, more, err := fullPage(ctx, query, text, args, rows)
		if err == nil {
			err = withoutGap(stream, next, last.Version, page, more)
		}
		return page, more, err
	})
}

// withoutGap checks that a page of a stream has every version between its first and
// its last, the one that was due after last, and, backward, that it ends where it should:
// a state folded from less would be wrong.
func withoutGap(stream eventstore.StreamID, q eventstore.StreamQuery, last eventstore.Version, page []eventstore.Event, more bool) error {
	step, due, first := eventstore.Version(1), max(q.After, 0)+1, max(q.After, 0)+1
	if q.Backward {
		step, due = -1, last-1
		if last == 0 && len(page) > 0 {
			due = page[0].Version // which is the newest is not known beforehand
		}
	}
	for _, e := range page {
		if e.Version != due {
			return fmt.Errorf("stream %s has version %d where %d was due: %w", stream, e.Version, due, eventstore.ErrIncomplete)
		}
		due += step
		last = e.Version
	}
	if q.Backward && !more && last > first {
		return fmt.Errorf("stream %s ends at version %d, before %d: %w", stream, last, first, eventstore.ErrIncomplete)
	}
	return nil
}

// Log is how a database answers questions about the log.
type Log struct {
	Query Query
	// Window answers what Dialect.Window asks.
	Window func(ctx context.Context, text string, args []any) (first, last eventstore.Position, err error)
	// Head is the position of the newest event.
	Head func(ctx context.Context) (eventstore.Position, error)
	// Start is the position from which the log is whole in the database, 1 as a rule, for
	// one who reads on after a position.
	Start func(ctx context.Context, after eventstore.Position) (eventstore.Position, error)
}

// FromTheFirst is the Start of a log that has lost nothing.
func FromTheFirst(context.Context, eventstore.Position) (eventstore.Position, error) { return 1, nil }

// ReadLog is Reader.ReadLog.
func (d Dialect) ReadLog(ctx context.Context, l *Lifetime, log Log, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		r := logReader{dialect: d, log: log, q: q, width: firstWidth}
		Pages(ctx, l, q.Limit, r.page)(yield)
	}
}

// logReader reads the pages of one question about the log.
type logReader struct {
	dialect Dialect
	log     Log
	q       eventstore.LogQuery
	begun   bool
	// width is how many positions a window has, where the pages are looked for in windows.
	width eventstore.Position
	// dense says that of the last window at least every second event was asked for.
	dense bool
}

// Bounds of a window. The widest is what a database walks through in some tenths of a
// second, should it choose to.
const (
	firstWidth = 1_000
	maxWidth   = 1_000_000
)

func (r *logReader) page(ctx context.Context, last eventstore.Event, rows int) ([]eventstore.Event, bool, error) {
	if !r.begun {
		none, err := r.begin(ctx)
		if none || err != nil {
			return nil, false, err
		}
		r.begun = true
	}
	q := r.q
	if last.Position != 0 {
		if q.Backward {
			q.Before = last.Position
		} else {
			q.After = last.Position
		}
	}
	if r.windowed() {
		page, more, err := r.windows(ctx, q, rows)
		return page, more, errors.Join(err, r.whole(ctx, q, page))
	}
	text, args := r.dialect.Log(q, rows)
	page, more, err := fullPage(ctx, r.log.Query, text, args, rows)
	if err == nil {
		err = r.whole(ctx, q, page)
	}
	return page, more, err
}

// whole checks that nothing was taken away under a page: every position must be there,
// where all are asked for, and none before the log's beginning be asked for.
func (r *logReader) whole(ctx context.Context, q eventstore.LogQuery, page []eventstore.Event) error {
	if q.Backward || narrow(q) || !r.q.RecordedFrom.IsZero() || !r.q.RecordedTo.IsZero() {
		return nil
	}
	if len(q.Types) == 0 && q.Category == "" {
		for i, e := range page {
			if due := max(q.After, 0) + eventstore.Position(i) + 1; e.Position != due {
				return fmt.Errorf("the log has position %d where %d was due: %w", e.Position, due, eventstore.ErrIncomplete)
			}
		}
	}
	return r.reachable(ctx, q.After)
}

// reachable checks that the log goes back as far as one asks who reads on after a
// position.
func (r *logReader) reachable(ctx context.Context, after eventstore.Position) error {
	start, err := r.log.Start(ctx, after)
	if err == nil && after+1 < start {
		err = fmt.Errorf("the log begins at position %d, and %d was asked for: %w", start, after+1, eventstore.ErrIncomplete)
	}
	return err
}

// begin bounds the question, and reports whether nothing can be an answer.
func (r *logReader) begin(ctx context.Context) (none bool, err error) {
	q := &r.q
	var gone error // that a part of what is asked for may be gone
	if !q.Backward && !narrow(*q) {
		if gone = r.reachable(ctx, q.After); gone != nil && !errors.Is(gone, eventstore.ErrIncomplete) {
			return true, gone
		}
	}
	if text, args, wanted := r.dialect.Window(*q); wanted {
		first, end, err := r.log.Window(ctx, text, args)
		if err != nil {
			return true, err
		}
		if gone != nil && first > 0 && !q.RecordedFrom.IsZero() {
			// The window begins later than what is gone, unless it begins with the log.
			if err := r.reachable(ctx, first-2); err == nil {
				gone = nil
			}
		}
		if first == 0 || gone != nil {
			return true, gone
		}
		q.After = max(q.After, first-1)
		if q.Before == 0 || q.Before > end+1 {
			q.Before = end + 1
		}
	}
	if gone != nil {
		return true, gone
	}
	if r.windowed() {
		head, err := r.log.Head(ctx)
		if err != nil {
			return true, err
		}
		if q.Before == 0 || q.Before > head+1 {
			q.Before = head + 1
		}
		if q.Backward { // what is gone has no windows
			start, err := r.log.Start(ctx, q.After)
			if err != nil {
				return true, err
			}
			q.After = max(q.After, start-1)
		}
	}
	return false, nil
}

// windowed reports whether pages are looked for in one window of positions after the
// other. Of several types no index gives the order of positions: a database would read
// and sort all that is left of the log for every page, or walk along it for events that
// are rare. In a window it can do neither for long.
func (r *logReader) windowed() bool { return len(r.q.Types) > 1 && !narrow(r.q) }

// windows fills a page from one window after the other, each so wide that it should
// fill what is left, as the one before tells.
func (r *logReader) windows(ctx context.Context, q eventstore.LogQuery, rows int) (page []eventstore.Event, more bool, err error) {
	size := 0
	for q.After+1 < q.Before {
		w := q
		if q.Backward {
			w.After = max(q.After, q.Before-1-r.width)
		} else {
			w.Before = min(q.Before, q.After+1+r.width)
		}
		text, args := r.dialect.log(w, rows-len(page), r.dense)
		found, cut, err := r.log.Query(ctx, text, args)
		if err != nil {
			return nil, false, err
		}
		page = append(page, found...)
		for i := range found {
			size += len(found[i].Data) + len(found[i].Metadata)
		}
		full := cut || len(page) >= rows || size >= PageBytes && len(found) > 0
		walked := w.Before - w.After
		if full {
			if last := page[len(page)-1].Position; q.Backward {
				walked = w.Before - last
			} else {
				walked = last - w.After
			}
		}
		r.dense = 2*eventstore.Position(len(found)) >= walked
		next := 8 * r.width
		if len(found) > 0 {
			next = min(next, walked*eventstore.Position(rows)/eventstore.Position(len(found)))
		}
		r.width = max(firstWidth, min(maxWidth, next))
		if full {
			return page, true, nil
		}
		if q.Backward {
			q.Before = w.After + 1
		} else {
			q.After = w.Before - 1
		}
	}
	return page, false, nil
}

// narrow reports whether a question is about a few events, of which those that are
// there are better than none.
func narrow(q eventstore.LogQuery) bool {
	return q.CorrelationID != uuid.Nil || q.CausationID != uuid.Nil || len(q.EventIDs) > 0
}

func fullPage(ctx context.Context, query Query, text string, args []any, rows int) ([]eventstore.Event, bool, error) {
	page, cut, err := query(ctx, text, args)
	return page, cut || len(page) == rows, err
}
