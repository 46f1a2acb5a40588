package interpret

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
)

// Observer reads the users of whom events have left something open: their order is in
// doubt, or they do not tell what they changed. However many events that were, it is
// one read.
type Observer struct {
	// Unread lists users to be read, the longest waiting first, of whom nothing was left
	// open after the time given.
	Unread func(ctx context.Context, before time.Time, limit int) ([]adapter.User, error)
	// Read reads a user and records what it found (UserApiObserved), after which the user
	// is no longer listed.
	Read func(ctx context.Context, user adapter.UserRef, why adapter.Unread) error
	// Woken returns when there may be something new, or after a while.
	Woken func(ctx context.Context) error
	// Limit is the rate of reads, so that they never compete with commands.
	Limit  *rate.Limiter
	Clock  func() time.Time
	Logger *slog.Logger
}

const (
	// observeSettle lets a burst of changes end before it is read: as long as changes
	// count as close together.
	observeSettle = 2 * time.Second
	// observePage is how many users are looked up at once.
	observePage = 100
	// A user that cannot be read is tried again after a pause that doubles.
	observeRetryMin = 5 * time.Second
	observeRetryMax = 10 * time.Minute
)

// retry is when a user that could not be read is due again.
type retry struct {
	at    time.Time
	pause time.Duration
}

// Run reads users until the context ends. Failures are logged and tried again.
func (o *Observer) Run(ctx context.Context) error {
	failed := make(map[adapter.UserRef]retry)
	for ctx.Err() == nil {
		if err := o.turn(ctx, failed); err != nil && ctx.Err() == nil {
			o.Logger.WarnContext(ctx, "looking for users to read failed", "error", err)
		}
		if err := o.Woken(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// turn reads every user that is due.
func (o *Observer) turn(ctx context.Context, failed map[adapter.UserRef]retry) error {
	users, err := o.Unread(ctx, o.Clock().Add(-observeSettle), observePage+len(failed))
	if err != nil {
		return err
	}
	for _, u := range users {
		ref := adapter.UserRef{Realm: u.Realm, UserID: u.ID}
		before := failed[ref]
		if o.Clock().Before(before.at) {
			continue
		}
		if err := o.Limit.Wait(ctx); err != nil {
			return err // the context ended
		}
		var why adapter.Unread
		if u.Unread != nil {
			why = *u.Unread
		}
		if err := o.Read(ctx, ref, why); err != nil {
			pause := min(max(2*before.pause, observeRetryMin), observeRetryMax)
			failed[ref] = retry{at: o.Clock().Add(pause), pause: pause}
			if ctx.Err() == nil {
				o.Logger.WarnContext(ctx, "reading a user failed", "realm", ref.Realm, "user_id", ref.UserID, "retry_in", pause.String(), "error", err)
			}
			continue
		}
		delete(failed, ref)
	}
	return nil
}
