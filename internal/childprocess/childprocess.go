// Package childprocess runs a real server (PostgreSQL, Keycloak) as a child of
// a test or a launcher, so that it can be stopped as a whole and does not
// outlive whoever started it.
//
// On Linux the kernel signals the child when the parent dies, however it dies;
// on other systems a parent that is killed leaves its child behind.
package childprocess

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// outputGrace bounds how long Wait goes on reading output that a grandchild
// still holds open after the child itself has ended.
const outputGrace = 2 * time.Second

// A Process is a started child. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// Start starts cmd at the head of a process group of its own. onParentDeath is
// the signal that the child gets when this process dies.
//
// The caller sets up everything else on cmd. Its context, where it has one,
// must live as long as the child should.
func Start(cmd *exec.Cmd, onParentDeath syscall.Signal) (*Process, error) {
	isolate(cmd, onParentDeath)
	cmd.WaitDelay = outputGrace
	p := &Process{cmd: cmd, done: make(chan struct{})}

	started := make(chan error, 1)
	go func() {
		// The death signal is bound to the thread that forked, not to the
		// process (prctl(2), PR_SET_PDEATHSIG), so this thread must live on.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Done is closed when the child has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the child ended. It is nil before Done is closed and after a
// clean end.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Pid is the child's process id, and the id of its group.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Stop asks the child to end by sending it soft, and kills its group when it
// has not ended after grace. It returns when the child is gone. Stopping an
// ended child does nothing.
func (p *Process) Stop(soft os.Signal, grace time.Duration) error {
	if err := p.cmd.Process.Signal(soft); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(err, p.Kill())
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return p.Kill()
	}
}

// Kill ends the child and its group at once, as a crash would, and returns
// when the child is gone.
func (p *Process) Kill() error {
	err := killGroup(p.cmd.Process)
	<-p.done
	return err
}

// tailSize is enough for the stack trace that explains a failed start.
const tailSize = 16 << 10

// A Tail is a writer that remembers the end of what was written, for the error
// message of a child that failed. The zero value is ready; it is safe for
// concurrent use.
type Tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (t *Tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if excess := len(t.buf) - tailSize; excess > 0 {
		t.buf = append(t.buf[:0], t.buf[excess:]...)
	}
	return len(b), nil
}

// String is the last 16 KiB written.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
