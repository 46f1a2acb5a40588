package contract

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// delivery is one request that a webhook got.
type delivery struct {
	header http.Header
	body   []byte
	event  map[string]any
}

// hook is a webhook's endpoint. It answers 202, or 503 as long as refuse says so, or
// closes the connection without an answer where drop says so.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	got    []delivery
	more   chan struct{} // closed and replaced at each delivery
	refuse func(event map[string]any) bool
	drop   func(event map[string]any) bool
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{more: make(chan struct{})}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		d := delivery{header: r.Header.Clone(), body: body}
		_ = json.Unmarshal(body, &d.event) // a body that is no JSON fails where it is looked at
		h.mu.Lock()
		h.got = append(h.got, d)
		refuse := h.refuse != nil && h.refuse(d.event)
		drop := h.drop != nil && h.drop(d.event)
		close(h.more)
		h.more = make(chan struct{})
		h.mu.Unlock()
		if drop {
			panic(http.ErrAbortHandler)
		}
		if refuse {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(h.Close)
	return h
}

// wait returns the deliveries that match as soon as there are n of them.
func (h *hook) wait(t *testing.T, n int, match func(map[string]any) bool) []delivery {
	t.Helper()
	limit := time.After(within)
	for {
		h.mu.Lock()
		var found []delivery
		for _, d := range h.got {
			if match(d.event) {
				found = append(found, d)
			}
		}
		more := h.more
		h.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-more:
		case <-limit:
			require.Failf(t, "webhook", "%d of %d deliveries within %v", len(found), n, within)
		}
	}
}

func (h *hook) waitID(t *testing.T, id any) delivery {
	t.Helper()
	return h.wait(t, 1, func(e map[string]any) bool { return e["id"] == id })[0]
}

func (h *hook) waitType(t *testing.T, typ string) delivery {
	t.Helper()
	return h.wait(t, 1, func(e map[string]any) bool { return e["type"] == typ })[0]
}

// testContext is the test's context, which a cleanup outlives.
func testContext(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }
