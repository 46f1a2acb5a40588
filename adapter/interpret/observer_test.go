package interpret_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
)

// observed is an observer of users of whom something was left open, on a clock of its
// own.
type observed struct {
	open  map[adapter.UserRef]time.Time
	start time.Time
	// read answers a read, and reads says when which user was read, in seconds.
	read  func(adapter.UserRef) error
	reads map[string][]int
	// asked, where not nil, is called before users are listed.
	asked func(passed time.Duration, limit int)
}

func newObserved(refs ...adapter.UserRef) *observed {
	o := &observed{open: make(map[adapter.UserRef]time.Time), start: time.Now(), reads: make(map[string][]int)}
	for n, ref := range refs {
		o.open[ref] = o.start.Add(time.Duration(n-len(refs)) * time.Millisecond)
	}
	return o
}

func (o *observed) unread(_ context.Context, realms []string, before time.Time, limit int) ([]adapter.User, error) {
	if o.asked != nil {
		o.asked(time.Since(o.start), limit)
	}
	var due []adapter.User
	for ref, since := range o.open {
		if slices.Contains(realms, ref.Realm) && !since.After(before) {
			due = append(due, adapter.User{Realm: ref.Realm, ID: ref.UserID, Unread: &adapter.Unread{Since: since, Because: "x"}})
		}
	}
	slices.SortFunc(due, func(a, b adapter.User) int { return a.Unread.Since.Compare(b.Unread.Since) })
	return due[:min(limit, len(due))], nil
}

// run observes until the time has passed.
func (o *observed) run(t *testing.T, realms []string, d time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	observer := &interpret.Observer{
		Realms: realms, Unread: o.unread,
		Read: func(_ context.Context, ref adapter.UserRef, why adapter.Unread) error {
			require.Equal(t, "x", why.Because)
			name := ref.Realm + "/" + ref.UserID
			o.reads[name] = append(o.reads[name], int(time.Since(o.start).Round(time.Second)/time.Second))
			if err := o.read(ref); err != nil {
				return err
			}
			delete(o.open, ref)
			return nil
		},
		Woken: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			return ctx.Err()
		},
		Limit: rate.NewLimiter(100, 1), Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
	done := make(chan error, 1)
	go func() { done <- observer.Run(ctx) }()
	<-time.After(d)
	stop()
	require.NoError(t, <-done)
}

func user(realm, id string) adapter.UserRef { return adapter.UserRef{Realm: realm, UserID: id} }

// A user that cannot be read does not keep the others waiting, and is tried again after
// pauses that grow.
func TestTheObserverReadsWhatIsOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(user("acme", "broken"), user("acme", "fine"))
		o.read = func(ref adapter.UserRef) error {
			if ref.UserID == "broken" {
				return errors.New("no answer")
			}
			return nil
		}
		o.run(t, []string{"acme"}, 40*time.Second)
		require.Equal(t, []int{2}, o.reads["acme/fine"])
		require.Equal(t, []int{2, 7, 17, 37}, o.reads["acme/broken"], "once the burst is over, then after 5, 10 and 20 s")
	})
}

// Where Keycloak refuses every read, or does not answer, one is tried now and then, and
// all are read once it is over. Each read is two events for ever.
func TestTheObserverStopsWhereNobodyCanBeRead(t *testing.T) {
	t.Parallel()
	for _, code := range []adapter.Code{
		adapter.CodeKeycloakForbidden, adapter.CodeKeycloakUnauthorized, adapter.CodeKeycloakUnavailable, adapter.CodeKeycloakUnreachable,
	} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const users, over = 300, time.Hour
				var refs []adapter.UserRef
				for n := range users {
					refs = append(refs, user("acme", fmt.Sprint(n)))
				}
				o := newObserved(refs...)
				var refused []int
				o.read = func(adapter.UserRef) error {
					since := time.Since(o.start)
					if since < over {
						refused = append(refused, int(since.Round(time.Second)/time.Second))
						return adapter.Errorf(code, "refused")
					}
					return nil
				}
				o.run(t, []string{"acme"}, over+15*time.Minute)
				require.Equal(t, []int{2, 32, 92, 212, 452, 932, 1532, 2132, 2732, 3332}, refused, "after 30, 60, 120, 240, 480 and then every 600 s")
				require.Empty(t, o.open)
			})
		})
	}
}

// A role that is missing in one realm does not stop the others; a Keycloak that gives no
// token stops all.
func TestTheObserverStopsNoMoreThanFails(t *testing.T) {
	t.Parallel()
	for code, want := range map[adapter.Code][]int{adapter.CodeKeycloakForbidden: {2}, adapter.CodeKeycloakUnauthorized: {32}} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newObserved(user("acme", "1"), user("acme", "2"), user("globex", "3"))
				o.read = func(ref adapter.UserRef) error {
					if ref.Realm == "acme" && time.Since(o.start) < 20*time.Second {
						return adapter.Errorf(code, "refused")
					}
					return nil
				}
				o.run(t, []string{"acme", "globex"}, time.Minute)
				require.Equal(t, []int{2, 32}, o.reads["acme/1"])
				require.Equal(t, []int{32}, o.reads["acme/2"])
				require.Equal(t, want, o.reads["globex/3"])
			})
		})
	}
}

// A user whom the service account may not read, although it may read the others, does
// not keep the realm stopped.
func TestAUserWhomNobodyMayReadKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(user("acme", "hidden"), user("acme", "concealed"), user("acme", "1"), user("acme", "2"))
		o.read = func(ref adapter.UserRef) error {
			if ref.UserID == "hidden" || ref.UserID == "concealed" {
				return adapter.Errorf(adapter.CodeKeycloakForbidden, "refused")
			}
			return nil
		}
		o.run(t, []string{"acme"}, 24*time.Hour)
		require.Less(t, o.reads["acme/1"][0], 120)
		require.Less(t, o.reads["acme/2"][0], 120)
		require.Less(t, len(o.reads["acme/hidden"])+len(o.reads["acme/concealed"]), 200)
	})
}

// A user who could not be read, and was read by somebody else since, is forgotten: what
// is remembered does not grow, and a new doubt begins with a short pause.
func TestTheObserverForgetsWhatIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(user("acme", "broken"), user("acme", "still"))
		o.read = func(adapter.UserRef) error { return errors.New("no answer") }
		var limit int
		o.asked = func(passed time.Duration, asked int) {
			switch passed.Round(time.Second) {
			case 20 * time.Second:
				delete(o.open, user("acme", "broken"))
			case 50 * time.Second:
				o.open[user("acme", "broken")] = time.Now()
				limit = asked
			}
		}
		o.run(t, []string{"acme"}, time.Minute)
		require.Equal(t, []int{2, 7, 17, 37}, o.reads["acme/still"])
		require.Equal(t, []int{2, 7, 17, 52, 57}, o.reads["acme/broken"])
		require.Equal(t, 101, limit, "a page, and the one who still could not be read")
	})
}
