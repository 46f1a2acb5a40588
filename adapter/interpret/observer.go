package interpret

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
)

// Observer reads the users of whom events have left something open: their order is in
// doubt, or they do not tell what they changed. However many events that were, it is
// one read.
//
// Each read is recorded, and so is each that fails. A failure that says nothing about
// the user, such as a role that the service account lacks, therefore stops the reads
// that would fail as well, but for one now and then to see whether it is over.
type Observer struct {
	// Realms are those whose users are read.
	Realms []string
	// Unread lists users of the realms to be read, the longest waiting first, of whom
	// nothing was left open after the time given.
	Unread func(ctx context.Context, realms []string, before time.Time, limit int) ([]adapter.User, error)
	// Read reads a user and records what it found (UserApiObserved), after which the user
	// is no longer listed. Its errors carry the codes of the catalogue (adapter.CodeOf).
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
	// Where none can be read, one is tried after a pause that doubles.
	observeStopMin = 30 * time.Second
	observeStopMax = 10 * time.Minute
)

// retry is when something that failed is due again.
type retry struct {
	at    time.Time
	pause time.Duration
}

func (r retry) after(now time.Time, least, most time.Duration) retry {
	pause := min(max(2*r.pause, least), most)
	return retry{at: now.Add(pause), pause: pause}
}

// failures are the users and realms that could not be read.
type failures struct {
	users map[adapter.UserRef]retry
	// realms are those in which no user can be read, allRealms where it is so in all.
	realms map[string]retry
}

const allRealms = ""

// forget drops users of the realms who would be due, and are not among those listed:
// something else has read them, or they are gone.
func (f *failures) forget(listed []adapter.User, realms []string, now time.Time) {
	due := make(map[adapter.UserRef]bool, len(listed))
	for _, u := range listed {
		due[refOf(u)] = true
	}
	maps.DeleteFunc(f.users, func(ref adapter.UserRef, again retry) bool {
		return !due[ref] && !now.Before(again.at) && slices.Contains(realms, ref.Realm)
	})
}

// stopped reports whether nobody in the realm is to be read yet.
func (f *failures) stopped(realm string, now time.Time) bool {
	return now.Before(f.realms[allRealms].at) || now.Before(f.realms[realm].at)
}

// stoppedBy is where reads would fail as this one did: in a realm, in all, or false
// where it may be the user.
func stoppedBy(err error, realm string) (string, bool) {
	switch adapter.CodeOf(err) {
	case adapter.CodeKeycloakUnauthorized, adapter.CodeKeycloakUnreachable:
		return allRealms, true
	case adapter.CodeKeycloakForbidden, adapter.CodeKeycloakUnavailable, adapter.CodeKeycloakNotFound, adapter.CodeRealmNotFound:
		return realm, true
	default:
		return "", false
	}
}

// Run reads users until the context ends. Failures are logged and tried again.
func (o *Observer) Run(ctx context.Context) error {
	failed := &failures{users: make(map[adapter.UserRef]retry), realms: make(map[string]retry)}
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
func (o *Observer) turn(ctx context.Context, failed *failures) error {
	now := o.Clock()
	var realms []string
	for _, realm := range o.Realms {
		if !failed.stopped(realm, now) {
			realms = append(realms, realm)
		}
	}
	if len(realms) == 0 {
		return nil
	}
	limit := observePage + len(failed.users)
	users, err := o.Unread(ctx, realms, now.Add(-observeSettle), limit)
	if err != nil {
		return err
	}
	if len(users) < limit { // these are all
		failed.forget(users, realms, now)
	}
	// Those that have not failed come first: where a realm was stopped because of a user
	// whom nobody may read, another one finds out that it need not be.
	slices.SortStableFunc(users, func(a, b adapter.User) int {
		return failed.users[refOf(a)].at.Compare(failed.users[refOf(b)].at)
	})
	for _, u := range users {
		ref := refOf(u)
		if now := o.Clock(); now.Before(failed.users[ref].at) || failed.stopped(ref.Realm, now) {
			continue
		}
		if err := o.Limit.Wait(ctx); err != nil {
			return err // the context ended
		}
		var why adapter.Unread
		if u.Unread != nil {
			why = *u.Unread
		}
		err := o.Read(ctx, ref, why)
		switch {
		case err == nil:
			o.succeeded(ctx, failed, ref)
		case ctx.Err() == nil:
			o.failed(ctx, failed, ref, err)
		default:
			return ctx.Err()
		}
	}
	return nil
}

func refOf(u adapter.User) adapter.UserRef { return adapter.UserRef{Realm: u.Realm, UserID: u.ID} }

func (o *Observer) succeeded(ctx context.Context, failed *failures, ref adapter.UserRef) {
	delete(failed.users, ref)
	for _, where := range []string{allRealms, ref.Realm} {
		if _, stopped := failed.realms[where]; stopped {
			delete(failed.realms, where)
			o.Logger.InfoContext(ctx, "reading users goes on", "realm", where)
		}
	}
}

func (o *Observer) failed(ctx context.Context, failed *failures, ref adapter.UserRef, err error) {
	now := o.Clock()
	again := failed.users[ref].after(now, observeRetryMin, observeRetryMax)
	failed.users[ref] = again
	where, stops := stoppedBy(err, ref.Realm)
	if !stops {
		o.Logger.WarnContext(ctx, "reading a user failed", "realm", ref.Realm, "user_id", ref.UserID, "retry_in", again.pause.String(), "error", err)
		return
	}
	again = failed.realms[where].after(now, observeStopMin, observeStopMax)
	failed.realms[where] = again
	o.Logger.WarnContext(ctx, "reading users stopped", "realm", where, "user_id", ref.UserID, "retry_in", again.pause.String(), "error", err)
}
