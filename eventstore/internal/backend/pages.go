package backend

import (
	"context"
	"fmt"
	"iter"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Bounds of one page: rows, and bytes of payload after which a page is cut short,
// so that an iterator's memory does not depend on how large events are.
const (
	PageRows  = 500
	PageBytes = 4 << 20
)

// Pages yields what fetch returns page by page, so that no connection is held
// while the consumer works. fetch gets the last event yielded (the zero Event at
// first) and the most rows it may return; it sets more when there may be others
// after the page. limit is the most events to yield, 0 for all.
func Pages(ctx context.Context, l *Lifetime, limit int, fetch func(ctx context.Context, last eventstore.Event, rows int) (page []eventstore.Event, more bool, err error)) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		var last eventstore.Event
		left := limit
		for {
			rows := PageRows
			if limit > 0 {
				rows = min(rows, left)
			}
			page, more, err := fetchPage(ctx, l, last, rows, fetch)
			if err != nil {
				yield(eventstore.Event{}, err)
				return
			}
			for _, e := range page {
				if err := ended(ctx, l); err != nil {
					yield(eventstore.Event{}, err)
					return
				}
				if !yield(e, nil) {
					return
				}
				last = e
			}
			left -= len(page)
			if !more || limit > 0 && left <= 0 {
				return
			}
		}
	}
}

func fetchPage(ctx context.Context, l *Lifetime, last eventstore.Event, rows int, fetch func(context.Context, eventstore.Event, int) ([]eventstore.Event, bool, error)) ([]eventstore.Event, bool, error) {
	opCtx, over, err := l.Begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer over()
	page, more, err := fetch(opCtx, last, rows)
	if err != nil {
		return nil, false, Ended(ctx, l, err)
	}
	return page, more, nil
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
			err = withoutGap(stream, next, page)
		}
		return page, more, err
	})
}

// withoutGap checks that a page of a stream has every version between its first and
// its last, and the first that was asked for: a state folded from less would be wrong.
func withoutGap(stream eventstore.StreamID, q eventstore.StreamQuery, page []eventstore.Event) error {
	if len(page) == 0 {
		return nil
	}
	step, due := eventstore.Version(1), q.After+1
	if q.Backward {
		step, due = -1, page[0].Version // which is the newest is not known beforehand
	}
	for _, e := range page {
		if e.Version != due {
			return fmt.Errorf("stream %s has version %d where %d was due: %w", stream, e.Version, due, eventstore.ErrIncomplete)
		}
		due += step
	}
	return nil
}

// Log is how a database answers questions about the log.
type Log struct {
	Query Query
	// Window answers what Dialect.Window asks.
	Window func(ctx context.Context, text string, args []any) (first, last eventstore.Position, err error)
	// Start is the log's first position that is in the database, 1 as a rule.
	Start eventstore.Position
}

// ReadLog is Reader.ReadLog.
func (d Dialect) ReadLog(ctx context.Context, l *Lifetime, log Log, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		begun := false
		q := q
		pages := Pages(ctx, l, q.Limit, func(ctx context.Context, last eventstore.Event, rows int) ([]eventstore.Event, bool, error) {
			if !begun {
				if text, args, wanted := d.Window(q); wanted {
					first, end, err := log.Window(ctx, text, args)
					if err != nil || first == 0 {
						return nil, false, err
					}
					q.After = max(q.After, first-1)
					if q.Before == 0 || q.Before > end+1 {
						q.Before = end + 1
					}
				}
				if !q.Backward && q.After+1 < log.Start && !narrow(q) {
					return nil, false, fmt.Errorf("the log begins at position %d, and %d was asked for: %w", log.Start, q.After+1, eventstore.ErrIncomplete)
				}
				begun = true
			}
			next := q
			if last.Position != 0 {
				if q.Backward {
					next.Before = last.Position
				} else {
					next.After = last.Position
				}
			}
			text, args := d.Log(next, rows)
			return fullPage(ctx, log.Query, text, args, rows)
		})
		pages(yield)
	}
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
