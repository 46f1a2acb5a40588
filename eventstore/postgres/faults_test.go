package postgres

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/suitetest"
)

// wire is a network between a store and its database that can fail.
type wire struct {
	listener net.Listener
	target   string

	mu sync.Mutex
	// cut decides, when bytes come, whether the connection is cut before they arrive.
	cut   func(c *connection, fromServer bool, n int) bool
	conns map[net.Conn]struct{}
	done  sync.WaitGroup
}

// connection is one that goes over the wire. large says that a request has gone over
// it that is larger than any but a test's append.
type connection struct{ large bool }

const largeRequest = 16 << 10

// newWire puts a wire before the database at a URL and returns the URL behind it.
func newWire(t testing.TB, direct string) (*wire, string) {
	u, err := url.Parse(direct)
	require.NoError(t, err)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{listener: l, target: u.Host, conns: map[net.Conn]struct{}{}}
	w.done.Go(func() { w.accept(t) })
	t.Cleanup(func() {
		_ = l.Close()
		w.hangUp()
		w.done.Wait()
	})
	u.Host = l.Addr().String()
	return w, u.String()
}

func (w *wire) accept(t testing.TB) {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(context.WithoutCancel(t.Context()), "tcp", w.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.conns[client], w.conns[server] = struct{}{}, struct{}{}
		w.mu.Unlock()
		c := &connection{}
		w.done.Go(func() { w.carry(c, client, server, false) })
		w.done.Go(func() { w.carry(c, server, client, true) })
	}
}

func (w *wire) carry(c *connection, from, to net.Conn, fromServer bool) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			w.mu.Lock()
			cut := w.cut != nil && w.cut(c, fromServer, n)
			c.large = c.large || !fromServer && n >= largeRequest
			w.mu.Unlock()
			if cut {
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cutAppend cuts the connection of the next append, once: before the request has
// arrived, or when its answer, and so the commit, is there.
func (w *wire) cutAppend(answer bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = func(c *connection, fromServer bool, n int) bool {
		if fromServer != answer || (answer && !c.large) || (!answer && n < largeRequest) {
			return false
		}
		w.cut = nil
		return true
	}
}

// cutAll cuts every connection as soon as there is anything on it.
func (w *wire) cutAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = func(*connection, bool, int) bool { return true }
}

// isCut reports whether what was to be cut has been.
func (w *wire) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut == nil
}

func (w *wire) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

// largeAppend is an append that cutAppend knows.
func largeAppend(to eventstore.StreamID) eventstore.StreamAppend {
	part := anAppend()
	part.Stream, part.Expected = to, eventstore.ExpectNone()
	part.Events[0].Data = []byte(`{"a":"` + strings.Repeat("a", 2*largeRequest) + `"}`)
	return part
}

// TestALostAnswerIsFoundOut: the connection is cut before the request arrives and
// after it has been committed; either way the caller gets the one true outcome.
func TestALostAnswerIsFoundOut(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	direct := migrated(t)
	var all []eventstore.Event
	for _, answer := range []bool{true, false} {
		w, through := newWire(t, direct)
		s := opened(t, through)
		for range 3 {
			first, err := s.Append(ctx, anAppend()) // so that there is a connection
			require.NoError(t, err)
			w.cutAppend(answer)
			got, err := s.Append(ctx, largeAppend(eventstore.UUIDStream("call", eventstore.NewID())))
			require.NoError(t, err, "cut after the commit: %t", answer)
			require.True(t, w.isCut())
			all = append(append(all, first...), got...)

			w.cutAppend(answer)
			_, err = s.Append(ctx, largeAppend(first[0].Stream))
			var conflict *eventstore.ConflictError
			require.ErrorAs(t, err, &conflict)
			require.True(t, w.isCut())
		}
	}
	var log []eventstore.Event
	for e, err := range opened(t, direct).ReadLog(ctx, eventstore.LogQuery{}) {
		require.NoError(t, err)
		log = append(log, e)
	}
	require.Equal(t, log, all)
}

// TestAnOutcomeThatCannotBeFoundOut is not guessed: the same append finds it later.
func TestAnOutcomeThatCannotBeFoundOut(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	direct := migrated(t)
	w, through := newWire(t, direct)
	s := opened(t, through)
	s.findOutFor = 300 * time.Millisecond
	_, err := s.Append(ctx, anAppend())
	require.NoError(t, err)
	w.cutAll()
	part := anAppend()
	part.Expected = eventstore.ExpectNone()
	_, err = s.Append(ctx, part)
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.ErrorContains(t, err, "not known")

	got, err := opened(t, direct).Append(ctx, part)
	require.NoError(t, err)
	require.EqualValues(t, 2, got[0].Position)
}

// TestFullDisk: a database without room refuses an append in the contract's terms,
// goes on being read, and takes appends again once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster, err := dbtest.Start(ctx, dbtest.Options{DiskMiB: 96})
	if errors.Is(err, dbtest.ErrNotInstalled) || errors.Is(err, dbtest.ErrNoSmallDisk) {
		suitetest.Unavailable(t, "postgres", err.Error())
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop()) })
	url := cluster.Database(t)
	require.NoError(t, Migrate(ctx, url))
	s := opened(t, url)
	_, err = s.Append(ctx, anAppend())
	require.NoError(t, err)

	free, err := cluster.FillDisk()
	require.NoError(t, err)
	large := make([]byte, 1<<20)
	recorded, refused := 1, anAppend()
	for {
		refused = anAppend()
		refused.Events[0].RawBody = &eventstore.RawBody{ContentType: "text/plain", Bytes: large}
		if _, err = s.Append(ctx, refused); err != nil {
			break
		}
		recorded++
		require.Less(t, recorded, 200, "the disk does not get full")
	}
	require.ErrorIs(t, err, eventstore.ErrUnavailable)
	require.NoError(t, free())
	require.Eventually(t, func() bool {
		// A server that could not write its log restarts; either way it comes back.
		_, err = s.Append(ctx, refused)
		return err == nil
	}, time.Minute, 50*time.Millisecond)
	recorded++
	got := positions(t, s)
	require.Len(t, got, recorded)
	require.EqualValues(t, recorded, got[len(got)-1])
}
