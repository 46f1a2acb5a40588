//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/storetest/history"
)

// clientEnv makes the test binary a process that uses the store in this file.
const clientEnv = "KEYTRAIL_SQLITE_TEST_CLIENT"

// busyTimeoutInTests is short, so that disturbances that outlast it do not take
// seconds.
const busyTimeoutInTests = 200 * time.Millisecond

// Not in TestMain, which would look for goroutines left over and print to the
// standard output, where the answers go.
func init() {
	if path := os.Getenv(clientEnv); path != "" {
		if err := playClient(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func playClient(path string) error {
	s, err := openInTests(context.Background(), path)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var held *sql.Tx
	return history.Serve(os.Stdin, os.Stdout, s, map[string]func(ctx context.Context) error{
		"hold": func(context.Context) (err error) {
			mu.Lock()
			defer mu.Unlock()
			// Without the caller's context, at the end of which it would be rolled back.
			held, err = s.WriteDB().BeginTx(context.Background(), nil)
			return classify("hold the write lock", err)
		},
		"release": func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return held.Rollback()
		},
	})
}

func openInTests(ctx context.Context, path string) (*Store, error) {
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return nil, err
	}
	if _, err := s.WriteDB().ExecContext(ctx, fmt.Sprintf(`PRAGMA busy_timeout = %d`, busyTimeoutInTests.Milliseconds())); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// TestHistory lets clients in this process and in others work on one file while
// these are closed, killed and stopped, and checks what they have seen.
func TestHistory(t *testing.T) {
	t.Parallel()
	const own, second, child, otherChild = "own", "own too", "child", "other child"
	kill := func(name string) func(p map[string]*history.Process) history.Disturbance {
		return func(p map[string]*history.Process) history.Disturbance {
			return history.Disturbance{Name: "kill " + name, Do: func(ctx context.Context, rng *rand.Rand) error {
				history.Pause(ctx, rng, 0, 20*time.Millisecond) // anywhere in an append
				return p[name].RestartAfter(ctx, func(s eventstore.Store) error { return s.(*history.Remote).Kill() })
			}}
		}
	}
	restart := func(name string) func(p map[string]*history.Process) history.Disturbance {
		return func(p map[string]*history.Process) history.Disturbance {
			return history.Disturbance{Name: "restart " + name, Do: func(ctx context.Context, rng *rand.Rand) error {
				return p[name].Restart(ctx)
			}}
		}
	}
	stop := func(p map[string]*history.Process) history.Disturbance {
		return history.Disturbance{Name: "stop a process", Do: func(ctx context.Context, rng *rand.Rand) error {
			return stopped(ctx, rng, p[child])
		}}
	}
	stopHolding := func(p map[string]*history.Process) history.Disturbance {
		return history.Disturbance{Name: "stop a process that holds the write lock", Do: func(ctx context.Context, rng *rand.Rand) (err error) {
			s, _ := p[child].Store()
			remote := s.(*history.Remote)
			if err := remote.Control(ctx, "hold"); err != nil {
				if errors.Is(err, eventstore.ErrUnavailable) {
					return nil // somebody else was faster, or it was killed
				}
				return err
			}
			defer func() {
				if e := remote.Control(context.WithoutCancel(ctx), "release"); !errors.Is(e, eventstore.ErrUnavailable) {
					err = errors.Join(err, e)
				}
			}()
			return stopped(ctx, rng, p[child])
		}}
	}
	type disturbing = func(p map[string]*history.Process) history.Disturbance
	for _, c := range []struct {
		name  string
		times int
		lists [][]disturbing
	}{
		{"undisturbed", 6, nil},
		{"restart", 6, [][]disturbing{{restart(own), restart(second), restart(child)}}},
		{"kill", 5, [][]disturbing{{kill(child), kill(otherChild)}}},
		{"stop", 4, [][]disturbing{{stop}}},
		{"stop with the write lock", 4, [][]disturbing{{stopHolding}}},
		{"all", 6, [][]disturbing{{kill(otherChild), restart(own)}, {stop, stopHolding, kill(child), restart(child)}, {restart(second)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			history.Run(t, func(t *testing.T) history.Plan {
				path := migrated(t)
				here := func(ctx context.Context) (eventstore.Store, error) { return openInTests(ctx, path) }
				elsewhere := func(ctx context.Context) (eventstore.Store, error) {
					cmd := exec.Command(os.Args[0]) //nolint:noctx // lives as long as the store
					cmd.Env = append(os.Environ(), clientEnv+"="+path)
					return history.StartRemote(ctx, cmd)
				}
				plan := history.Plan{
					Processes: map[string]history.Opener{own: here, second: here, child: elsewhere, otherChild: elsewhere},
					Times:     c.times,
				}
				if c.lists != nil {
					plan.Disturbances = func(p map[string]*history.Process) (lists [][]history.Disturbance) {
						for _, l := range c.lists {
							var list []history.Disturbance
							for _, d := range l {
								list = append(list, d(p))
							}
							lists = append(lists, list)
						}
						return lists
					}
				}
				return plan
			})
		})
	}
}

// stopped stops a process for a moment that may be longer than others wait for its
// lock.
func stopped(ctx context.Context, rng *rand.Rand, p *history.Process) error {
	s, _ := p.Store()
	remote := s.(*history.Remote)
	if err := remote.Signal(syscall.SIGSTOP); err != nil {
		return ignoreDead(err)
	}
	history.Pause(ctx, rng, 10*time.Millisecond, 2*busyTimeoutInTests)
	return ignoreDead(remote.Signal(syscall.SIGCONT))
}

func ignoreDead(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
