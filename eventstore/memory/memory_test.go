package memory

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
	"github.com/keytrail/keytrail/eventstore/storetest"
	"github.com/keytrail/keytrail/internal/dbtest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

func TestStore(t *testing.T) { storetest.Run(t, create) }

func create(testing.TB) storetest.Database {
	d := NewDatabase()
	return storetest.Database{
		Open: func(_ testing.TB, clock func() time.Time) eventstore.Store { return d.Open(Options{Clock: clock}) },
		Hold: func(t testing.TB, appends ...eventstore.StreamAppend) func() error {
			plan, err := backend.NewPlan(appends)
			require.NoError(t, err)
			d.writing <- struct{}{}
			return func() error {
				_, err := d.record(plan, backend.NewClock(nil))
				<-d.writing
				d.Announce()
				return err
			}
		},
		Exec: d.tamper, Tampering: tampering,
	}
}

// There is no statement that could change the log, only memory that might be shared
// with it. So tampering is to write to what the store has handed out or was given.
const (
	overwriteAppended  = "overwrite what Append returned"
	overwriteGiven     = "overwrite what Append was given"
	overwriteLog       = "overwrite what ReadLog yielded"
	overwriteBackwards = "overwrite what ReadLog yielded backwards"
	overwriteStream    = "overwrite what ReadStream yielded"
	overwriteBody      = "overwrite a raw body"
	overwriteRepeated  = "overwrite what a repeated Append returned"
)

var tampering = []string{overwriteAppended, overwriteGiven, overwriteLog, overwriteBackwards, overwriteStream, overwriteBody, overwriteRepeated}

// tamper returns an error where the attempt has left the log as it was. An append that
// it needs is taken back, past the store.
func (d *Database) tamper(ctx context.Context, attempt string) (err error) {
	s := d.Open(Options{})
	defer func() { err = errors.Join(err, s.Close()) }()
	keep := len(d.log)
	part := appendOf(1)
	part.Events[0].RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: []byte("as it was")}
	appended, err := s.Append(ctx, part)
	if err != nil {
		return err
	}
	before := fmt.Sprint(d.log, d.bodies)
	switch attempt {
	case overwriteAppended:
		scribble(appended...)
	case overwriteGiven:
		copy(part.Events[0].Data, "!!")
		copy(part.Events[0].Metadata, "!!")
		copy(part.Events[0].RawBody.Bytes, "!!")
	case overwriteRepeated:
		again, err := s.Append(ctx, part)
		if err != nil {
			return err
		}
		scribble(again...)
	case overwriteLog:
		err = scribbleAll(s.ReadLog(ctx, eventstore.LogQuery{}))
	case overwriteBackwards:
		err = scribbleAll(s.ReadLog(ctx, eventstore.LogQuery{Backward: true}))
	case overwriteStream:
		err = scribbleAll(s.ReadStream(ctx, part.Stream, eventstore.StreamQuery{}))
	case overwriteBody:
		body, readErr := s.RawBody(ctx, part.Events[0].ID)
		copy(body.Bytes, "!!")
		err = readErr
	}
	if err != nil {
		return err
	}
	unchanged := before == fmt.Sprint(d.log, d.bodies)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = d.log[:keep:keep]
	delete(d.byID, part.Events[0].ID)
	delete(d.bodies, part.Events[0].ID)
	delete(d.streams, part.Stream.AggregateID())
	if !unchanged {
		return nil
	}
	return errors.New("the log is as it was")
}

func scribble(events ...eventstore.Event) {
	for i := range events {
		copy(events[i].Data, "!!")
		copy(events[i].Metadata, "!!")
		events[i].Type = "changed"
	}
}

func scribbleAll(events iter.Seq2[eventstore.Event, error]) error {
	for e, err := range events {
		if err != nil {
			return err
		}
		scribble(e)
	}
	return nil
}

func appendOf(n int) eventstore.StreamAppend {
	part := eventstore.StreamAppend{Stream: eventstore.UUIDStream("call", eventstore.NewID())}
	for range n {
		id := eventstore.NewID()
		part.Events = append(part.Events, eventstore.NewEvent{
			ID: id, Type: "A", Data: fmt.Appendf(nil, `{"id":%q}`, id), Metadata: []byte(`{"schema":1}`), OccurredAt: time.Now(),
		})
	}
	return part
}

func wholeLog(t *testing.T, d *Database) []eventstore.Event {
	t.Helper()
	s := opened(t, d, nil)
	var all []eventstore.Event
	for e, err := range s.ReadLog(t.Context(), eventstore.LogQuery{}) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

func opened(t *testing.T, d *Database, decide Decider) *Store {
	s := d.Open(Options{Decide: decide})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// once is a decider with one fault, at the first step that it is for.
func once(moment Moment, name string, f Fault) Decider {
	done := false
	return func(_ context.Context, op Operation) Fault {
		if done || op.Moment != moment || op.Name != name {
			return Fault{}
		}
		done = true
		return f
	}
}

func TestFaultsOfAnAppend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		moment   Moment
		err      error
		recorded int
	}{
		"refused":           {Before, fmt.Errorf("full: %w", eventstore.ErrUnavailable), 0},
		"answer lost":       {Recorded, eventstore.ErrUnavailable, 2},
		"answer too late":   {Recorded, context.DeadlineExceeded, 2},
		"died before":       {Before, ErrCrashed, 0},
		"died afterwards":   {Recorded, fmt.Errorf("killed: %w", ErrCrashed), 2},
		"nothing goes amis": {Recorded, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := NewDatabase()
			s := opened(t, d, once(c.moment, OpAppend, Fault{Err: c.err}))
			part := appendOf(2)
			events, err := s.Append(t.Context(), part)
			if errors.Is(c.err, ErrCrashed) {
				require.ErrorIs(t, err, ErrCrashed)
				_, err = s.Append(t.Context(), part)
				require.ErrorIs(t, err, ErrCrashed, "nobody comes back from the dead")
				_, err = s.Head(t.Context())
				require.ErrorIs(t, err, ErrCrashed)
				_, err = s.Wait(t.Context(), 0)
				require.ErrorIs(t, err, ErrCrashed)
			} else {
				require.Equal(t, c.err, err)
			}
			require.Len(t, wholeLog(t, d), c.recorded)
			if c.err != nil {
				require.Nil(t, events)
			}

			again, err := opened(t, d, nil).Append(t.Context(), part)
			require.NoError(t, err, "the same append finds out what has become of it")
			require.Equal(t, wholeLog(t, d), again)
			require.Len(t, again, 2)
		})
	}
}

func TestFaultsOfReads(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, read := range map[string]func(*Store) error{
		OpReadStream: func(s *Store) error {
			return scribbleAll(s.ReadStream(ctx, appendOf(1).Stream, eventstore.StreamQuery{}))
		},
		OpReadLog:  func(s *Store) error { return scribbleAll(s.ReadLog(ctx, eventstore.LogQuery{})) },
		OpVersions: func(s *Store) error { _, err := s.Versions(ctx); return err },
		OpHead:     func(s *Store) error { _, err := s.Head(ctx); return err },
		OpStream:   func(s *Store) error { _, err := s.Stream(ctx, uuid.Max); return err },
		OpRawBody:  func(s *Store) error { _, err := s.RawBody(ctx, uuid.Max); return err },
		OpPing:     func(s *Store) error { return s.Ping(ctx) },
		OpWait:     func(s *Store) error { _, err := s.Wait(ctx, -1); return err },
	} {
		s := opened(t, NewDatabase(), once(Before, name, Fault{Err: eventstore.ErrUnavailable}))
		require.ErrorIs(t, read(s), eventstore.ErrUnavailable, name)
		if err := read(s); err != nil {
			require.ErrorIs(t, err, eventstore.ErrNotFound, name)
		}
	}
}

func TestACrashEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	d := NewDatabase()
	s := opened(t, d, nil)
	_, err := s.Append(t.Context(), appendOf(3))
	require.NoError(t, err)
	d.writing <- struct{}{} // another process is recording
	asked := make(chan error, 2)
	go func() {
		_, err := s.Append(t.Context(), appendOf(1))
		asked <- err
	}()
	go func() {
		_, err := s.Wait(t.Context(), 3)
		asked <- err
	}()
	seen := 0
	var last error
	for _, last = range s.ReadLog(t.Context(), eventstore.LogQuery{}) {
		if seen++; seen == 1 {
			s.Crash()
		}
	}
	require.Equal(t, 2, seen)
	require.ErrorIs(t, last, ErrCrashed)
	require.ErrorIs(t, <-asked, ErrCrashed)
	require.ErrorIs(t, <-asked, ErrCrashed)
	<-d.writing
	require.Len(t, wholeLog(t, d), 3)
}

func TestSilentAppendsAreFoundByLooking(t *testing.T) {
	t.Parallel()
	d := NewDatabase()
	s, other := opened(t, d, once(Recorded, OpAppend, Fault{Silent: true})), opened(t, d, nil)
	_, err := s.Append(t.Context(), appendOf(2))
	require.NoError(t, err)
	for _, waiting := range []*Store{s, other} {
		ctx, cancel := context.WithCancel(t.Context())
		heads := make(chan error, 1)
		go func() {
			_, err := waiting.Wait(ctx, 0)
			heads <- err
		}()
		cancel()
		require.ErrorIs(t, <-heads, context.Canceled)
		head, err := waiting.Head(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, head, "whoever looks sees it")
	}
	d.Announce()
	head, err := other.Wait(t.Context(), 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, head)
}
