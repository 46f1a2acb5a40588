package backend

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

// database stands in for one: it holds every transaction until it is let go.
type database struct {
	began chan *Batch
	goOn  chan error
	log   []uuid.UUID
	seen  []int // sizes of the batches
	// refuse, if set, fails any batch with this event id in it.
	refuse uuid.UUID
}

func newDatabase() *database {
	return &database{began: make(chan *Batch), goOn: make(chan error)}
}

func (d *database) write(ctx context.Context, b *Batch) ([]Result, error) {
	d.began <- b
	if err := <-d.goOn; err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.seen = append(d.seen, len(b.Plans))
	for _, p := range b.Plans {
		for _, id := range p.IDs() {
			if id == d.refuse {
				return nil, errors.New("it is not to its taste")
			}
		}
	}
	results := make([]Result, len(b.Plans))
	for i, p := range b.Plans {
		d.log = append(d.log, p.IDs()...)
		results[i].Events = make([]eventstore.Event, len(p.Events))
	}
	return results, nil
}

func onePlan(t testing.TB, data string) *Plan {
	t.Helper()
	return planFor(t, eventstore.UUIDStream("call", eventstore.NewID()), eventstore.NewID(), data)
}

func planFor(t testing.TB, stream eventstore.StreamID, id uuid.UUID, data string) *Plan {
	t.Helper()
	p, err := NewPlan([]eventstore.StreamAppend{{Stream: stream, Events: []eventstore.NewEvent{{
		ID: id, Type: "A", Data: []byte(data), Metadata: []byte(`{}`), OccurredAt: time.Unix(0, 0),
	}}}})
	require.NoError(t, err)
	return p
}

// start appends in a goroutine and returns when the append is in the queue.
func start(ctx context.Context, t testing.TB, c *Committer, p *Plan) <-chan error {
	t.Helper()
	before := c.Waiting()
	result := make(chan error, 1)
	go func() {
		_, err := c.Append(ctx, p)
		result <- err
	}()
	require.Eventually(t, func() bool { return c.Waiting() == before+1 }, 10*time.Second, 50*time.Microsecond)
	return result
}

// busy returns a committer that is in the middle of a batch of one.
func busy(t testing.TB, d *database) (*Lifetime, *Committer, <-chan error) {
	t.Helper()
	l := NewLifetime()
	c := NewCommitter(l, time.Minute, d.write)
	first := make(chan error, 1)
	p := onePlan(t, `{}`)
	go func() {
		_, err := c.Append(context.Background(), p)
		first <- err
	}()
	require.Len(t, (<-d.began).Plans, 1, "nobody waits for company")
	return l, c, first
}

func TestWhatHasQueuedSharesATransaction(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	l, c, first := busy(t, d)
	var results []<-chan error
	var want []uuid.UUID
	for range 20 {
		p := onePlan(t, `{}`)
		want = append(want, p.IDs()...)
		results = append(results, start(t.Context(), t, c, p))
	}
	d.goOn <- nil
	require.NoError(t, <-first)
	require.Len(t, (<-d.began).Plans, 20)
	d.goOn <- nil
	for _, r := range results {
		require.NoError(t, <-r)
	}
	require.Equal(t, want, d.log[1:], "first come, first served")
	require.True(t, l.Close())
}

func TestABatchIsBounded(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	l, c, first := busy(t, d)
	large := `{"a":"` + strings.Repeat("a", 1<<20) + `"}`
	var results []<-chan error
	for range 6 {
		results = append(results, start(t.Context(), t, c, onePlan(t, large)))
	}
	stream, id := eventstore.UUIDStream("call", eventstore.NewID()), eventstore.NewID()
	for range 2 {
		results = append(results, start(t.Context(), t, c, planFor(t, stream, id, `{}`)))
	}
	d.goOn <- nil
	require.NoError(t, <-first)
	for range 3 {
		<-d.began
		d.goOn <- nil
	}
	for _, r := range results {
		require.NoError(t, <-r)
	}
	require.Equal(t, []int{1, 3, 4, 1}, d.seen, "by bytes, and an event id is in a batch once")
	require.True(t, l.Close())
}

// TestOneSpoilsNoOther: where the database refuses a batch for one append, the
// others are recorded.
func TestOneSpoilsNoOther(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	l, c, first := busy(t, d)
	bad := onePlan(t, `{}`)
	d.refuse = bad.IDs()[0]
	a := start(t.Context(), t, c, onePlan(t, `{}`))
	b := start(t.Context(), t, c, bad)
	e := start(t.Context(), t, c, onePlan(t, `{}`))
	d.goOn <- nil
	require.NoError(t, <-first)
	for range 4 { // the three, and then each alone
		<-d.began
		d.goOn <- nil
	}
	require.NoError(t, <-a)
	require.ErrorContains(t, <-b, "not to its taste")
	require.NoError(t, <-e)
	require.True(t, l.Close())
}

// TestAllShareAnOutage: what makes the store unavailable is not tried for each.
func TestAllShareAnOutage(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	l, c, first := busy(t, d)
	a := start(t.Context(), t, c, onePlan(t, `{}`))
	b := start(t.Context(), t, c, onePlan(t, `{}`))
	d.goOn <- nil
	require.NoError(t, <-first)
	<-d.began
	d.goOn <- eventstore.ErrUnavailable
	require.ErrorIs(t, <-a, eventstore.ErrUnavailable)
	require.ErrorIs(t, <-b, eventstore.ErrUnavailable)
	require.True(t, l.Close())
}

func TestAppendsBeyondTheQueueAreRefused(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	l, c, first := busy(t, d)
	var done sync.WaitGroup
	for range maxQueued {
		q := &queued{plan: onePlan(t, `{}`), result: make(chan Result, 1)}
		require.NoError(t, c.push(q))
		done.Go(func() { <-q.result })
	}
	_, err := c.Append(t.Context(), onePlan(t, `{}`))
	require.ErrorIs(t, err, eventstore.ErrOverloaded)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	d.goOn <- nil
	require.NoError(t, <-first)
	go func() {
		for range d.began {
			d.goOn <- nil
		}
	}()
	done.Wait()
	_, err = c.Append(t.Context(), onePlan(t, `{}`))
	require.NoError(t, err)
	require.True(t, l.Close())
	close(d.began)
}

func TestTheQueueIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	l, c, first := busy(t, d)
	p := onePlan(t, `{}`)
	p.bytes = maxQueuedBytes
	waiting := start(t.Context(), t, c, p)
	_, err := c.Append(t.Context(), onePlan(t, `{}`))
	require.ErrorIs(t, err, eventstore.ErrOverloaded)
	d.goOn <- nil
	require.NoError(t, <-first)
	<-d.began
	d.goOn <- nil
	require.NoError(t, <-waiting, "a large one is taken by an empty queue")
	require.True(t, l.Close())
}

// TestGivingUp: one who gives up before its turn has written nothing; one who gives
// up after it leaves the batch running, and Close waits for it.
func TestGivingUp(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	l := NewLifetime()
	c := NewCommitter(l, time.Minute, d.write)
	ctx, giveUp := context.WithCancel(t.Context())
	_, err := c.Append(canceled(), onePlan(t, `{}`))
	require.ErrorIs(t, err, context.Canceled)

	taken := onePlan(t, `{}`)
	first := make(chan error, 1)
	go func() {
		_, err := c.Append(ctx, taken)
		first <- err
	}()
	<-d.began
	second := start(ctx, t, c, onePlan(t, `{}`))
	third := start(t.Context(), t, c, onePlan(t, `{}`))
	giveUp()
	require.ErrorIs(t, <-first, context.Canceled)
	require.ErrorIs(t, <-second, context.Canceled)

	closed := make(chan bool, 1)
	go func() { closed <- l.Close() }()
	<-l.Context().Done()
	select {
	case <-closed:
		t.Fatal("closed over an append under way")
	default:
	}
	d.goOn <- nil
	require.ErrorIs(t, <-third, eventstore.ErrClosed)
	require.True(t, <-closed)
	require.Equal(t, taken.IDs(), d.log, "what had begun was finished, the rest never begun")
	_, err = c.Append(t.Context(), onePlan(t, `{}`))
	require.ErrorIs(t, err, eventstore.ErrClosed)
	require.False(t, l.Close())
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
