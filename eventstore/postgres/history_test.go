//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/storetest/history"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/suitetest"
)

// clientEnv makes the test binary a process that uses the store at this URL.
const clientEnv = "KEYTRAIL_POSTGRES_TEST_CLIENT"

// Not in TestMain, which would look for goroutines left over and print to the
// standard output, where the answers go.
func init() {
	if at := os.Getenv(clientEnv); at != "" {
		if err := playClient(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func playClient(at string) error {
	s, err := Open(context.Background(), at, Options{})
	if err != nil {
		return err
	}
	return history.Serve(os.Stdin, os.Stdout, s, nil)
}

// TestHistory lets clients in this process and in another work on one database
// while their connections are cut, and they or the server are killed and stopped,
// and checks what they have seen.
func TestHistory(t *testing.T) {
	t.Parallel()
	cluster, err := dbtest.Start(t.Context(), dbtest.Options{Durable: true})
	if errors.Is(err, dbtest.ErrNotInstalled) {
		suitetest.Unavailable(t, "postgres", err.Error())
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop()) })

	for _, c := range []struct {
		name  string
		times int
		lists func(d disturbances) [][]history.Disturbance
	}{
		{"undisturbed", 6, nil},
		{"restart processes", 6, func(d disturbances) [][]history.Disturbance { return [][]history.Disturbance{{d.restart(), d.kill()}} }},
		{"cut connections", 8, func(d disturbances) [][]history.Disturbance {
			return [][]history.Disturbance{{d.cut(), d.cutNext(), d.cutNext()}}
		}},
		{"stall connections", 3, func(d disturbances) [][]history.Disturbance { return [][]history.Disturbance{{d.stall()}} }},
		{"restart the server", 3, func(d disturbances) [][]history.Disturbance {
			return [][]history.Disturbance{{d.halt("fast", syscall.SIGINT), d.halt("immediate", syscall.SIGQUIT), d.crash()}}
		}},
		{"stop the server", 3, func(d disturbances) [][]history.Disturbance {
			return [][]history.Disturbance{{d.stopBackends(), d.stopServer()}}
		}},
		{"all", 4, func(d disturbances) [][]history.Disturbance {
			return [][]history.Disturbance{
				{d.cut(), d.cutNext(), d.stall()},
				{d.restart(), d.kill()},
				{d.halt("fast", syscall.SIGINT), d.halt("immediate", syscall.SIGQUIT), d.crash(), d.stopBackends(), d.stopServer()},
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			history.Run(t, func(t *testing.T) history.Plan {
				d := disturbances{cluster: cluster, url: cluster.Database(t)}
				require.NoError(t, Migrate(t.Context(), d.url))
				u, err := url.Parse(d.url)
				require.NoError(t, err)
				d.proxy, err = history.NewProxy(u.Host)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, d.proxy.Close()) })
				u.Host = d.proxy.Addr()
				here := func(ctx context.Context) (eventstore.Store, error) { return Open(ctx, u.String(), Options{}) }
				plan := history.Plan{
					Processes: map[string]history.Opener{
						"own": here, "own too": here,
						child: func(ctx context.Context) (eventstore.Store, error) {
							cmd := exec.Command(os.Args[0]) //nolint:noctx // lives as long as the store
							cmd.Env = append(os.Environ(), clientEnv+"="+u.String())
							return history.StartRemote(ctx, cmd)
						},
					},
					Times: c.times,
				}
				if c.lists != nil {
					plan.Disturbances = func(p map[string]*history.Process) [][]history.Disturbance {
						d.processes = p
						return c.lists(d)
					}
				}
				return plan
			})
		})
	}
}

const child = "child"

// disturbances of one run.
type disturbances struct {
	cluster   *dbtest.Cluster
	url       string // past the proxy
	proxy     *history.Proxy
	processes map[string]*history.Process
}

func (d disturbances) cut() history.Disturbance {
	return history.Disturbance{Name: "cut connections", Do: func(context.Context, *rand.Rand) error {
		d.proxy.Cut()
		return nil
	}}
}

func (d disturbances) cutNext() history.Disturbance {
	return history.Disturbance{Name: "cut connections in the middle", Do: func(_ context.Context, rng *rand.Rand) error {
		d.proxy.CutNext(1+rng.IntN(6), rng)
		return nil
	}}
}

func (d disturbances) stall() history.Disturbance {
	return history.Disturbance{Name: "stall connections", Do: func(ctx context.Context, rng *rand.Rand) error {
		d.proxy.Stall()
		defer d.proxy.Resume()
		history.Pause(ctx, rng, 20*time.Millisecond, 500*time.Millisecond)
		return nil
	}}
}

func (d disturbances) restart() history.Disturbance {
	return history.Disturbance{Name: "restart a process", Do: func(ctx context.Context, rng *rand.Rand) error {
		return d.processes[[]string{"own", "own too", child}[rng.IntN(3)]].Restart(ctx)
	}}
}

func (d disturbances) kill() history.Disturbance {
	return history.Disturbance{Name: "kill a process", Do: func(ctx context.Context, rng *rand.Rand) error {
		history.Pause(ctx, rng, 0, 20*time.Millisecond) // anywhere in an append
		return d.processes[child].RestartAfter(ctx, func(s eventstore.Store) error { return s.(*history.Remote).Kill() })
	}}
}

func (d disturbances) halt(how string, sig syscall.Signal) history.Disturbance {
	return history.Disturbance{Name: how + " shutdown of the server", Do: func(ctx context.Context, rng *rand.Rand) error {
		return errors.Join(d.cluster.Halt(sig), d.again(ctx, rng))
	}}
}

func (d disturbances) crash() history.Disturbance {
	return history.Disturbance{Name: "crash of the server", Do: func(ctx context.Context, rng *rand.Rand) error {
		return errors.Join(d.cluster.Kill(), d.again(ctx, rng))
	}}
}

func (d disturbances) again(ctx context.Context, rng *rand.Rand) error {
	history.Pause(ctx, rng, 0, 100*time.Millisecond)
	return d.cluster.Restart(context.WithoutCancel(ctx))
}

// stopBackends stops some of the server's processes that serve this database.
func (d disturbances) stopBackends() history.Disturbance {
	return history.Disturbance{Name: "stop backends", Do: func(ctx context.Context, rng *rand.Rand) error {
		pids, err := d.pids(ctx, `datname = current_database()`)
		if err != nil {
			return err
		}
		rng.Shuffle(len(pids), func(i, j int) { pids[i], pids[j] = pids[j], pids[i] })
		return stopped(ctx, rng, pids[:min(len(pids), 1+rng.IntN(4))])
	}}
}

// stopServer stops all of the server's processes, as a machine that hangs does.
func (d disturbances) stopServer() history.Disturbance {
	return history.Disturbance{Name: "stop the server", Do: func(ctx context.Context, rng *rand.Rand) error {
		pids, err := d.pids(ctx, `true`)
		if err != nil {
			return err
		}
		return stopped(ctx, rng, append(pids, d.cluster.Pid()))
	}}
}

func (d disturbances) pids(ctx context.Context, which string) (_ []int, err error) {
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND `+which)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int])
}

func stopped(ctx context.Context, rng *rand.Rand, pids []int) error {
	var errs []error
	for _, pid := range pids {
		errs = append(errs, signal(pid, syscall.SIGSTOP))
	}
	history.Pause(ctx, rng, 10*time.Millisecond, 400*time.Millisecond)
	for _, pid := range pids {
		errs = append(errs, signal(pid, syscall.SIGCONT))
	}
	return errors.Join(errs...)
}

// signal leaves those in peace who have ended meanwhile.
func signal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s to a process of the server: %w", sig, err)
	}
	return nil
}
