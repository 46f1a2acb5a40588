// Package kcserver starts a real Keycloak with a real webhook sender (p2-inc
// keycloak-events) on 127.0.0.1, for tests and for `make keycloak`.
//
// The first start on a machine fetches both by Maven and builds them into a
// cache folder, which takes a minute or two; later ones take 13 s on two idle
// cores and need about 500 MiB of memory. Every server begins empty. Tests take
// a realm each (1 to 2 s), not a server each:
//
//	func TestMain(m *testing.M) { os.Exit(kcserver.Main(m)) }
//
//	realm := kcserver.Shared(t).TestRealm(t, kcserver.RealmOptions{…})
package kcserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keytrail/keytrail/internal/childprocess"
)

const (
	// readyTimeout: 13 s alone, 118 s were seen on a busy machine.
	readyTimeout = 300 * time.Second
	stopGrace    = 20 * time.Second
	portAttempts = 3
)

// Options of a Server. The zero value is right for tests.
type Options struct {
	// CacheDir keeps the built distributions; default: keytrail/ in the user's
	// cache folder.
	CacheDir string
	// Log gets the output of every step. Nil keeps only its end, for errors.
	Log io.Writer
	// Port of the server on 127.0.0.1; default: a free one.
	Port int
	// RealmFiles are realm JSON files that are imported at the start.
	RealmFiles []string
	// WithoutExtension starts a Keycloak that cannot send webhooks.
	WithoutExtension bool
}

// A Server is a running Keycloak. All methods are safe for concurrent use.
type Server struct {
	// URL is the base URL, without a trailing slash.
	URL string
	// AdminUser and AdminPassword belong to an administrator of the realm master.
	AdminUser, AdminPassword string
	// Version is Keycloak's, ExtensionVersion that of keycloak-events; the
	// latter is empty for a server that this process did not start.
	Version, ExtensionVersion string

	admin   *Admin
	process *childprocess.Process // nil: somebody else's
	home    string
	tail    *childprocess.Tail
	stop    sync.Once
	stopErr error
}

// Start starts a Keycloak and waits until it is ready. ctx bounds the start
// only. The error is ErrNoJava or ErrNoMaven where something must be installed
// first.
func Start(ctx context.Context, opts Options) (*Server, error) {
	d, err := prepare(ctx, opts)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		s, err := d.start(ctx, opts)
		// Another process may take a free port before Keycloak does.
		if err == nil || attempt == portAttempts || opts.Port != 0 || !strings.Contains(err.Error(), "already in use") {
			return s, err
		}
	}
}

func (d *distribution) start(ctx context.Context, opts Options) (_ *Server, err error) {
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return nil, err
	}
	port, management := ports[0], ports[1]
	if opts.Port != 0 {
		port = opts.Port
		// Asked first, because on a taken port Keycloak says that it is ready, and then ends.
		if err := ensureFree(ctx, port); err != nil {
			return nil, err
		}
	}
	home, err := d.newHome()
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL:              "http://127.0.0.1:" + strconv.Itoa(port),
		AdminUser:        "admin",
		AdminPassword:    "admin", // reachable from the loopback only, and gone with the server
		Version:          d.keycloak,
		ExtensionVersion: d.extension,
		home:             home,
		tail:             &childprocess.Tail{},
	}
	if opts.WithoutExtension {
		s.ExtensionVersion = ""
	}
	s.admin = newAdmin(s.URL, s.AdminUser, s.AdminPassword)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()

	args := []string{
		"start", "--optimized", "--cache=local",
		"--http-enabled=true", "--http-host=127.0.0.1", "--http-port=" + strconv.Itoa(port),
		"--http-management-host=127.0.0.1", "--http-management-port=" + strconv.Itoa(management),
		"--hostname-strict=false",
	}
	for _, file := range opts.RealmFiles {
		if err := copyFile(file, filepath.Join(home, "data", "import", filepath.Base(file)), 0o600); err != nil {
			return nil, fmt.Errorf("realm to import: %w", err)
		}
	}
	if len(opts.RealmFiles) > 0 {
		args = append(args, "--import-realm")
	}
	// The child lives until it is stopped, not until ctx ends.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(home, "bin", "kc.sh"), args...)
	cmd.Dir = home
	cmd.Env = append(d.environment(),
		"KC_BOOTSTRAP_ADMIN_USERNAME="+s.AdminUser, "KC_BOOTSTRAP_ADMIN_PASSWORD="+s.AdminPassword,
		"JAVA_OPTS_APPEND=-Djava.io.tmpdir="+filepath.Join(home, "tmp"))
	cmd.Stdout = s.tail
	if opts.Log != nil {
		cmd.Stdout = io.MultiWriter(s.tail, opts.Log)
	}
	cmd.Stderr = cmd.Stdout
	// kc.sh hands SIGTERM on to its Java; a SIGKILL would leave that behind.
	if s.process, err = childprocess.Start(cmd, syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("starting Keycloak: %w", err)
	}
	health := "http://127.0.0.1:" + strconv.Itoa(management) + "/health/ready"
	if err := s.awaitReady(ctx, health); err != nil {
		return nil, err
	}
	return s, nil
}

// awaitReady wants two answers: of the management port, because the main one
// may open before the bootstrap has ended, and of the main one, because the
// bootstrap may end although that port was taken (26.7.3, measured).
func (s *Server) awaitReady(ctx context.Context, health string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.answers(ctx, health, `"UP"`) && s.answers(ctx, s.URL+"/realms/master", `"realm":"master"`) {
			return nil
		}
		select {
		case <-s.process.Done():
			return fmt.Errorf("Keycloak ended while starting: %w\n%s", s.process.Err(), s.tail)
		case <-ctx.Done():
			return fmt.Errorf("Keycloak is not ready: %w\n%s", ctx.Err(), s.tail)
		case <-tick.C:
		}
	}
}

func (s *Server) answers(ctx context.Context, url, sign string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := s.admin.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), sign)
}

// attach uses a Keycloak that somebody else runs.
func attach(ctx context.Context, url, user, password string) (*Server, error) {
	url = strings.TrimRight(url, "/")
	s := &Server{URL: url, AdminUser: user, AdminPassword: password, admin: newAdmin(url, user, password)}
	var info struct {
		SystemInfo struct {
			Version string `json:"version"`
		} `json:"systemInfo"`
	}
	if _, err := s.admin.Do(ctx, http.MethodGet, "/admin/serverinfo", nil, &info); err != nil {
		return nil, fmt.Errorf("Keycloak at %s: %w", url, err)
	}
	s.Version = info.SystemInfo.Version
	return s, nil
}

// Admin calls the Admin API as the administrator.
func (s *Server) Admin() *Admin { return s.admin }

// Done is closed when the server has ended; nil, which blocks for ever, for a
// server that this process did not start.
func (s *Server) Done() <-chan struct{} {
	if s.process == nil {
		return nil
	}
	return s.process.Done()
}

// Stop ends the server and removes its data. It only closes connections when
// somebody else runs the server. Stopping twice does no harm.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		s.admin.http.CloseIdleConnections()
		if s.process != nil {
			s.stopErr = s.process.Stop(syscall.SIGTERM, stopGrace)
		}
		if s.home != "" {
			s.stopErr = errors.Join(s.stopErr, os.RemoveAll(s.home))
		}
	})
	return s.stopErr
}

func ensureFree(ctx context.Context, port int) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("Keycloak's port: %w; try: stop what listens there, or choose another port", err)
	}
	return l.Close()
}

// freePorts returns n different ports that were free a moment ago.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range n {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer l.Close() // all stay taken until the last is found
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
