package interpret_test

import (
	"context"
	"iter"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// interrupted is a store in which something happens before one of its operations.
type interrupted struct {
	interpret.Store
	// countdown is how many operations are still to come until then.
	countdown int
	happens   func()
	// dead makes every later operation fail, as if the process had ended.
	dead bool
}

func (s *interrupted) step() error {
	if s.countdown--; s.countdown == 0 {
		s.happens()
	}
	if s.dead && s.countdown <= 0 {
		return eventstore.ErrUnavailable
	}
	return nil
}

func (s *interrupted) Append(ctx context.Context, parts ...eventstore.StreamAppend) ([]eventstore.Event, error) {
	if err := s.step(); err != nil {
		return nil, err
	}
	return s.Store.Append(ctx, parts...)
}

func (s *interrupted) Head(ctx context.Context) (eventstore.Position, error) {
	if err := s.step(); err != nil {
		return 0, err
	}
	return s.Store.Head(ctx)
}

func (s *interrupted) Stream(ctx context.Context, id uuid.UUID) (eventstore.StreamID, error) {
	if err := s.step(); err != nil {
		return eventstore.StreamID{}, err
	}
	return s.Store.Stream(ctx, id)
}

func (s *interrupted) ReadLog(ctx context.Context, q eventstore.LogQuery) iter.Seq2[eventstore.Event, error] {
	if err := s.step(); err != nil {
		return func(yield func(eventstore.Event, error) bool) { yield(eventstore.Event{}, err) }
	}
	return s.Store.ReadLog(ctx, q)
}

func (s *interrupted) ReadStream(ctx context.Context, id eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	if err := s.step(); err != nil {
		return func(yield func(eventstore.Event, error) bool) { yield(eventstore.Event{}, err) }
	}
	return s.Store.ReadStream(ctx, id, q)
}

// race is a user with a parked delivery and one that waits behind it, two more that
// were just recorded, a process that serves, and another that retries.
type race struct {
	*bundle
	serving, retrying *interrupted
	serve, retry      *interpret.Interpreter
	batch             []adapter.Decoded
}

func newRace(t *testing.T) *race {
	t.Helper()
	b := setup(t)
	b.push(unreadable, update("waits", "1", "2000", `{\"firstName\":\"Bob\"}`))
	require.Equal(t, []string{"waits", "bad"}, b.parked())
	r := &race{bundle: b, serving: &interrupted{Store: b.store}, retrying: &interrupted{Store: newerProgram{b.store}}}
	process := func(s interpret.Store) *interpret.Interpreter {
		return &interpret.Interpreter{Store: s, Codec: b.codec, Clock: b.interp.Clock, Logger: b.interp.Logger}
	}
	r.serve, r.retry = process(r.serving), process(r.retrying)
	for _, body := range []string{
		update("other", "2", "3000", `{\"firstName\":\"Ann\"}`),
		update("third", "1", "4000", `{\"lastName\":\"Stone\"}`), update("fourth", "1", "5000", `{\"email\":\"b@example.com\"}`),
	} {
		deliveries, err := webhook.Decode([]byte(body), webhook.DialectAuto)
		require.NoError(t, err)
		b.record(deliveries...)
	}
	r.batch = r.news()
	return r
}

// news is the next batch of whoever serves.
func (r *race) news() []adapter.Decoded {
	r.t.Helper()
	var batch []adapter.Decoded
	for e, err := range r.store.ReadLog(r.t.Context(), eventstore.LogQuery{After: r.read, Types: r.interp.Types()}) {
		require.NoError(r.t, err)
		d, err := r.codec.Decode(r.t.Context(), e)
		require.NoError(r.t, err)
		batch, r.read = append(batch, d), e.Position
	}
	return batch
}

// turn lets the serving process handle what has come since its batch.
func (r *race) turn() {
	r.t.Helper()
	if batch := r.news(); len(batch) > 0 {
		require.NoError(r.t, r.serve.Handle(r.t.Context(), batch))
	}
}

func (r *race) requireAllInterpreted(when int) {
	r.t.Helper()
	require.Empty(r.t, r.parked(), "operation %d", when)
	require.Equal(r.t, []string{
		adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiUpdated, adapter.TypeUserApiUpdated,
	}, r.types(adapter.UserStream("acme", "1")), "operation %d", when)
}

// A retry falls into a batch of another process, before any of its operations.
func TestARetryDuringABatchLeavesNothingWaiting(t *testing.T) {
	t.Parallel()
	for when, happened := 1, true; happened; when++ {
		r := newRace(t)
		happened = false
		r.serving.countdown, r.serving.happens = when, func() {
			happened = true
			_, err := r.retry.Retry(t.Context(), deliveryID("bad"))
			require.NoError(t, err)
		}
		require.NoError(t, r.serve.Handle(t.Context(), r.batch))
		if happened {
			r.turn()
			r.requireAllInterpreted(when)
		}
	}
}

// A batch falls into a retry of another process, before any of its operations.
func TestABatchDuringARetryLeavesNothingWaiting(t *testing.T) {
	t.Parallel()
	for when, happened := 1, true; happened; when++ {
		r := newRace(t)
		happened = false
		r.retrying.countdown, r.retrying.happens = when, func() {
			happened = true
			require.NoError(t, r.serve.Handle(t.Context(), r.batch))
		}
		_, err := r.retry.Retry(t.Context(), deliveryID("bad"))
		require.NoError(t, err)
		if happened {
			r.turn()
			r.requireAllInterpreted(when)
		}
	}
}

// A process that retries dies before any of its operations, beside one that serves.
func TestARetryThatDiesLeavesNothingWaiting(t *testing.T) {
	t.Parallel()
	for when, happened := 1, true; happened; when++ {
		r := newRace(t)
		happened = false
		r.retrying.dead = true
		r.retrying.countdown, r.retrying.happens = when, func() { happened = true }
		_, err := r.retry.Retry(t.Context(), deliveryID("bad"))
		if !happened {
			require.NoError(t, err)
			break
		}
		require.ErrorIs(t, err, eventstore.ErrUnavailable)
		require.NoError(t, r.serve.Handle(t.Context(), r.batch))
		r.turn()
		if parked := r.parked(); len(parked) > 0 {
			require.Equal(t, []string{"fourth", "third", "waits", "bad"}, parked, "operation %d: all wait for the first", when)
			r.retrying.dead = false
			released, err := r.retry.Retry(t.Context(), deliveryID("bad"))
			require.NoError(t, err)
			require.Equal(t, 4, released)
			r.turn()
		}
		r.requireAllInterpreted(when)
	}
}

// What waited fails by itself once its turn has come: it is first then, and those
// behind it wait for it.
func TestOneThatWaitedFailsByItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const worse = `{"id":"worse","time":2000,"realmName":"acme","type":"admin.USER-UPDATE","operationType":"UPDATE","resourceType":"USER","resourcePath":"users/1","representation":"[2]"}`
	b.push(unreadable, worse, update("third", "1", "4000", `{\"lastName\":\"Stone\"}`))
	newer := &interpret.Interpreter{Store: newerProgram{b.store}, Codec: b.codec, Clock: b.interp.Clock, Logger: b.interp.Logger}
	released, err := newer.Retry(t.Context(), deliveryID("bad"))
	require.Equal(t, adapter.CodeStillParked, adapter.CodeOf(err))
	require.Equal(t, 1, released)
	b.interpret()
	require.ElementsMatch(t, []string{"worse", "third"}, b.parked())
	_, err = newer.Retry(t.Context(), deliveryID("third"))
	require.Equal(t, adapter.CodeWaitsBehind, adapter.CodeOf(err))
	require.ErrorContains(t, err, deliveryID("worse").String())
}

// An older process that reads a batch again does not park what a newer one has released.
func TestAReleasedDeliveryIsNotParkedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push(unreadable)
	newer := &interpret.Interpreter{Store: newerProgram{b.store}, Codec: b.codec, Clock: b.interp.Clock, Logger: b.interp.Logger}
	_, err := newer.Retry(t.Context(), deliveryID("bad"))
	require.NoError(t, err)
	b.interpretFrom(0)
	require.Empty(t, b.parked())
}
