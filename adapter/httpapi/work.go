package httpapi

import (
	"context"
	"sync"

	"github.com/keytrail/keytrail/adapter"
)

// work is what goes on beyond the request that began it.
type work struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	draining bool
	running  sync.WaitGroup
}

func newWork() *work {
	ctx, cancel := context.WithCancel(context.Background())
	return &work{ctx: ctx, cancel: cancel}
}

// start runs f with a context that has the values of ctx and ends only when the
// server must stop. It refuses once the server drains.
func (w *work) start(ctx context.Context, f func(context.Context)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining {
		return adapter.Errorf(adapter.CodeInterrupted, "keytrail is stopping: nothing was begun").
			WithTry("send the request again once keytrail runs")
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(w.ctx, cancel)
	w.running.Go(func() {
		defer cancel()
		defer stop()
		f(ctx)
	})
	return nil
}

func (w *work) drain(ctx context.Context) error {
	w.mu.Lock()
	w.draining = true
	w.mu.Unlock()
	done := make(chan struct{})
	go func() {
		w.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		w.cancel()
		return nil
	case <-ctx.Done():
		w.cancel()
		<-done
		return ctx.Err()
	}
}
