package interpret_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
)

// A user that cannot be read does not keep the others waiting, and is tried again after
// pauses that grow.
func TestTheObserverReadsWhatIsOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		start := time.Now()
		open := map[string]*adapter.Unread{"broken": {Since: start, Because: "x"}, "fine": {Since: start.Add(time.Second), Because: "y"}}
		var reads []string
		var brokenAt []time.Duration
		o := &interpret.Observer{
			Unread: func(_ context.Context, before time.Time, _ int) ([]adapter.User, error) {
				var due []adapter.User
				for id, u := range open {
					if !u.Since.After(before) {
						due = append(due, adapter.User{Realm: "acme", ID: id, Unread: u})
					}
				}
				return due, nil
			},
			Read: func(_ context.Context, ref adapter.UserRef, why adapter.Unread) error {
				if ref.UserID == "broken" {
					brokenAt = append(brokenAt, time.Since(start))
					return errors.New("no answer")
				}
				reads = append(reads, ref.UserID+" "+why.Because)
				delete(open, ref.UserID)
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
		go func() { done <- o.Run(ctx) }()
		<-time.After(40 * time.Second)
		stop()
		require.NoError(t, <-done)
		require.Equal(t, []string{"fine y"}, reads)
		seconds := make([]int, 0, len(brokenAt))
		for _, at := range brokenAt {
			seconds = append(seconds, int(at.Round(time.Second)/time.Second))
		}
		require.Equal(t, []int{2, 7, 17, 37}, seconds, "once the burst is over, then after 5, 10 and 20 s")
	})
}
