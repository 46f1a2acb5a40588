package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keytrail/keytrail/internal/childprocess"
)

// ErrNotInstalled says that this machine has no PostgreSQL server programs.
var ErrNotInstalled = errors.New("no PostgreSQL server programs found; try: apt-get install postgresql, or set " +
	PostgresURLEnv + " to a superuser's URL of a running cluster")

const (
	startTimeout = 60 * time.Second
	stopGrace    = 20 * time.Second
	// portAttempts: another process may take the free port before postgres does.
	portAttempts = 5
)

// ErrNoSmallDisk says that this machine lets this user mount no file system.
var ErrNoSmallDisk = errors.New("a small file system cannot be mounted here, which takes Linux and root")

// Options of a Cluster. The zero value is right for suites.
type Options struct {
	// Durable keeps fsync and full_page_writes on: for benchmarks, and for tests
	// that crash the database server itself. Off, a start takes a second and a
	// killed keytrail still loses nothing, because the server goes on.
	Durable bool
	// DiskMiB, if set, puts the data on a file system of their own of that size, in
	// memory, for tests that fill it.
	DiskMiB int
	// Log gets the server's output. Nil keeps only its end, for errors.
	Log io.Writer
}

// A Cluster is a private PostgreSQL server on 127.0.0.1, with its data in a
// temporary folder. It dies with the process that started it. Its methods are
// not safe for concurrent use, except URL, CreateDatabase and Database.
type Cluster struct {
	opts    Options
	server  string // path of the postgres program
	dir     string
	account *account
	port    int
	url     string
	process *childprocess.Process
	tail    *childprocess.Tail
}

// Start makes a new cluster and waits until it answers. ctx bounds the start
// only. The error is ErrNotInstalled where there is nothing to start.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, server: filepath.Join(bin, "postgres")}
	if c.account, err = serverAccount(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "keytrail-postgres-"); err != nil {
		return nil, err
	}
	if opts.DiskMiB > 0 {
		if err := mountDisk(c.dir, opts.DiskMiB); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrNoSmallDisk, err), os.RemoveAll(c.dir))
		}
	}
	if err := c.initialize(ctx, filepath.Join(bin, "initdb")); err != nil {
		return nil, errors.Join(err, c.remove())
	}
	for attempt := 1; ; attempt++ {
		if c.port, err = freePort(ctx); err != nil {
			break
		}
		if err = c.run(ctx); err == nil {
			return c, nil
		}
		if attempt == portAttempts || !strings.Contains(err.Error(), "could not bind") {
			break
		}
	}
	return nil, errors.Join(err, c.remove())
}

// remove removes the data.
func (c *Cluster) remove() error {
	var err error
	if c.opts.DiskMiB > 0 {
		err = unmountDisk(c.dir)
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// FillDisk takes what room there is on the disk of a cluster that has its own. The
// function gives it back.
func (c *Cluster) FillDisk() (free func() error, err error) {
	name := filepath.Join(c.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { return os.Remove(name) }, f.Close()
}

func (c *Cluster) initialize(ctx context.Context, initdb string) error {
	if c.account != nil {
		if err := os.Chown(c.dir, int(c.account.uid), int(c.account.gid)); err != nil {
			return fmt.Errorf("giving the data folder to user %s: %w", c.account.name, err)
		}
	}
	// Trust is enough: the server listens on the loopback only, for minutes, and holds test data.
	cmd := c.command(ctx, initdb, "-D", c.data(), "-U", "keytrail", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (c *Cluster) run(ctx context.Context) error {
	flag := "off"
	if c.opts.Durable {
		flag = "on"
	}
	// The child lives until it is stopped, not until ctx ends.
	cmd := c.command(context.WithoutCancel(ctx), c.server, "-D", c.data(),
		"-p", strconv.Itoa(c.port), "-h", "127.0.0.1", "-k", "", // no socket file: its path may be too long
		"-c", "max_connections=200", "-c", "fsync="+flag, "-c", "full_page_writes="+flag)
	c.tail = &childprocess.Tail{}
	cmd.Stdout = c.tail
	if c.opts.Log != nil {
		cmd.Stdout = io.MultiWriter(c.tail, c.opts.Log)
	}
	cmd.Stderr = cmd.Stdout
	process, err := childprocess.Start(cmd, syscall.SIGQUIT) // "immediate shutdown": ends its workers too
	if err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	c.process = process
	c.url = fmt.Sprintf("postgres://keytrail@127.0.0.1:%d/postgres?sslmode=disable", c.port)
	if err := c.awaitAnswer(ctx); err != nil {
		return errors.Join(err, c.process.Kill())
	}
	return nil
}

func (c *Cluster) awaitAnswer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, c.url)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-c.process.Done():
			return fmt.Errorf("PostgreSQL ended while starting: %w\n%s", c.process.Err(), c.tail)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, c.tail)
		case <-tick.C:
		}
	}
}

// URL is the superuser's URL of the database "postgres". It stays the same
// over Restart.
func (c *Cluster) URL() string { return c.url }

// Kill ends the server as a crash would (SIGKILL). The data stay, for Restart.
func (c *Cluster) Kill() error { return c.process.Kill() }

// Halt ends the server as an administrator would and keeps its data, for Restart.
// sig says how (PostgreSQL manual, "Shutting Down the Server"): SIGINT is fast,
// which disconnects everybody first, SIGQUIT is immediate, after which it recovers
// as from a crash.
func (c *Cluster) Halt(sig syscall.Signal) error { return c.process.Stop(sig, stopGrace) }

// Pid is the id of the server's first process, which changes with Restart.
func (c *Cluster) Pid() int { return c.process.Pid() }

// Restart starts the server that was killed or halted again on the same data and port, and waits
// until it has recovered.
func (c *Cluster) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.run(ctx)
		// The dead server's workers hold its shared memory until they notice.
		if err == nil || !strings.Contains(err.Error(), "shared memory block") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Stop ends the server and removes its data. Stopping twice does no harm.
func (c *Cluster) Stop() error {
	return errors.Join(c.process.Stop(syscall.SIGQUIT, stopGrace), c.remove())
}

func (c *Cluster) alive() bool {
	if c.process == nil {
		return true // somebody else's
	}
	select {
	case <-c.process.Done():
		return false
	default:
		return true
	}
}

// CreateDatabase creates an empty database and returns its URL and the
// function that drops it, connections or not.
func (c *Cluster) CreateDatabase(ctx context.Context) (dbURL string, drop func(context.Context) error, err error) {
	name := "keytrail_test_" + strings.ToLower(rand.Text()[:12])
	u, err := url.Parse(c.url)
	if err != nil {
		return "", nil, fmt.Errorf("URL of the PostgreSQL cluster for tests: %w", err)
	}
	u.Path = "/" + name
	if err := c.exec(ctx, `CREATE DATABASE `+name+` TEMPLATE template0`); err != nil {
		return "", nil, fmt.Errorf("creating a database for the test: %w", err)
	}
	drop = func(ctx context.Context) error {
		if err := c.exec(ctx, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`); err != nil {
			return fmt.Errorf("dropping the test's database: %w", err)
		}
		return nil
	}
	return u.String(), drop, nil
}

func (c *Cluster) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, c.url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir // the caller's folder may be closed to the server's account
	// PGPORT, PGDATA and their like would change what we start.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PG") })
	if c.account != nil {
		childprocess.RunAs(cmd, c.account.uid, c.account.gid)
	}
	return cmd
}

// programs is the folder of the newest PostgreSQL server: Debian keeps them out
// of PATH, one folder per major version.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		onPath, err := exec.LookPath("initdb")
		if err != nil {
			return "", ErrNotInstalled
		}
		if onPath, err = filepath.EvalSymlinks(onPath); err != nil {
			return "", err
		}
		return filepath.Dir(onPath), nil
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return majorOf(a) - majorOf(b) })
	return filepath.Dir(newest), nil
}

func majorOf(initdb string) int {
	major, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	if err != nil {
		return 0
	}
	return major
}

type account struct {
	name     string
	uid, gid uint32
}

// serverAccount is whom to run the server as: PostgreSQL refuses root. Nil
// means ourselves.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root and there is no user postgres to run it: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user postgres: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user postgres: %w", err)
	}
	return &account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
