package eventstore

import (
	"context"
	"fmt"
	"iter"
)

// Log is what can be followed: every Store is one.
type Log interface {
	Reader
	Waiter
}

// Subscribe yields the events that q selects: first those that are recorded already,
// then each new one as it is recorded, until the context ends, the store is closed or
// reading fails, which is yielded last. A subscriber that goes on later starts with
// After set to the position of the last event that it has dealt with.
//
// Each event comes once and in the order of positions, whatever commits in what order
// in however many processes, because a position that has been seen is never followed
// by a lower one. It is woken at once by appends of this process and of others, and
// finds them within a second where the waking fails.
//
// q must not select backward or have an end; a Limit ends the subscription after so
// many events. Otherwise the one thing yielded is ErrInvalidQuery.
func Subscribe(ctx context.Context, log Log, q LogQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if q.Backward || q.Before != 0 || !q.RecordedTo.IsZero() {
			yield(Event{}, fmt.Errorf("%w: a subscription goes forward and has no end", ErrInvalidQuery))
			return
		}
		left := q.Limit
		for {
			// With the head as a bound, what is not selected is passed over once and not
			// again after every wake-up.
			head, err := log.Wait(ctx, q.After)
			if err != nil {
				yield(Event{}, err)
				return
			}
			page := q
			page.Before, page.Limit = head+1, left
			for e, err := range log.ReadLog(ctx, page) {
				if !yield(e, err) || err != nil {
					return
				}
				if left > 0 {
					if left--; left == 0 {
						return
					}
				}
			}
			q.After = head
		}
	}
}
