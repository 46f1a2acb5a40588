package keycloaktest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// AdminUser and AdminPassword are the defaults of the administrator in the
	// realm master, who may do everything in every realm.
	AdminUser     = "admin"
	AdminPassword = "admin"

	masterRealm = "master"

	// maxBody bounds a request body; Keycloak's own limit is 10 MiB.
	maxBody = 10 << 20
	// maxLog bounds the request log and the delivery history, so that a demo may
	// run for days.
	maxLog = 50_000
)

// Options configures a Server. The zero value is usable.
type Options struct {
	// Clock is the time of events and tokens; time.Now if nil.
	Clock func() time.Time
	// Logger gets one debug line per request and per delivery; discarded if nil.
	Logger *slog.Logger
	// Addr is the address to listen on, 127.0.0.1:0 if empty.
	Addr string
	// Unserved makes a server that neither listens nor sends nor runs a goroutine: whoever
	// made it calls ServeHTTP, and takes what a sender would push from Deliveries. That is
	// for simulations, in which nothing may happen by itself.
	Unserved bool
	// AdminUser and AdminPassword are the administrator of the realm master,
	// the constants of these names if empty.
	AdminUser, AdminPassword string
	// TokenLifespan is how long access tokens live. Zero means as Keycloak has it:
	// 60 s in master, 300 s elsewhere.
	TokenLifespan time.Duration
	// RetryBackoff is the first wait before a webhook delivery that was not answered
	// with 2xx is sent again; it grows fivefold up to 40 times itself. The real
	// sender starts at 500 ms and goes up to 180 s; here it is 20 ms if zero.
	RetryBackoff time.Duration
	// RetryFor is how long a delivery is retried before it is given up silently,
	// 15 minutes if zero, as the real sender has it.
	RetryFor time.Duration
}

// Server is a running fake Keycloak. All its methods are safe for concurrent use.
type Server struct {
	opts    Options
	clock   func() time.Time
	logger  *slog.Logger
	http    *http.Server
	mux     *http.ServeMux
	url     string
	closing chan struct{}
	served  chan struct{}
	closed  sync.Once

	faults  faults
	log     requestLog
	senders *senders

	// mu guards everything below, and all that hangs on a Realm. A request is
	// handled under it as a whole: what was answered is what others can see.
	mu       sync.Mutex
	realms   []*Realm // in the order of their creation
	tokens   map[string]*session
	storeOff bool

	spoilLeft int // pushed representations that spoil still changes
	spoil     func(representation string) string
}

// NewServer starts a fake Keycloak with the realm master and its administrator.
// The caller must Close it.
func NewServer(opts Options) (*Server, error) {
	opts.AdminUser = cmp.Or(opts.AdminUser, AdminUser)
	opts.AdminPassword = cmp.Or(opts.AdminPassword, AdminPassword)
	opts.RetryBackoff = cmp.Or(opts.RetryBackoff, 20*time.Millisecond)
	opts.RetryFor = cmp.Or(opts.RetryFor, 15*time.Minute)

	s := &Server{
		opts:    opts,
		clock:   opts.Clock,
		logger:  opts.Logger,
		mux:     http.NewServeMux(),
		url:     "http://keycloak.invalid",
		closing: make(chan struct{}),
		served:  make(chan struct{}),
		tokens:  map[string]*session{},
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.senders = newSenders(s.logger, opts.RetryBackoff, opts.RetryFor)
	s.senders.unserved = opts.Unserved
	master := s.newRealm(masterRealm, RealmOptions{Listeners: []string{"jboss-logging"}})
	s.realms = append(s.realms, master)
	admin := master.newUser(opts.AdminUser)
	admin.Enabled = true
	admin.password = opts.AdminPassword
	admin.RealmRoles = append(admin.RealmRoles, "admin")
	s.routes()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug)}
	if opts.Unserved {
		close(s.served)
		return s, nil
	}

	ctx := context.Background()
	addr := cmp.Or(opts.Addr, "127.0.0.1:0")
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		s.senders.cancel()
		return nil, fmt.Errorf("listen for the fake Keycloak on %s: %w", addr, err)
	}
	s.url = "http://" + listener.Addr().String()
	s.senders.start()
	go func() {
		defer close(s.served)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.logger.Error("fake keycloak stopped serving", "error", err)
		}
	}()
	return s, nil
}

// URL is the server's base address, without a slash at the end.
func (s *Server) URL() string { return s.url }

// Close stops the server, its open connections and its senders, and waits for them.
// Deliveries that are still waiting are lost, as they are with the real sender.
func (s *Server) Close() {
	s.closed.Do(func() {
		close(s.closing)
		if err := s.http.Close(); err != nil {
			s.logger.Debug("close the fake keycloak", "error", err)
		}
		<-s.served
		s.senders.close()
	})
}

// now is the clock in Keycloak's unit, milliseconds since the epoch.
func (s *Server) now() int64 { return s.clock().UnixMilli() }

// call is one request while it is handled, under the server's lock.
type call struct {
	*http.Request
	s      *Server
	realm  *Realm
	caller *caller
	body   []byte
	fault  Fault
	// saves and tells say what happens to the call's events. Keycloak asks the realm
	// when the call begins, so that the call that removes the listener is still told.
	saves, tells bool
}

// ServeHTTP answers one request: it is logged and counted first, so that a request
// that meets a fault is a wire attempt too.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	entry := s.log.arrived(r.Method, r.URL.EscapedPath())
	fault := s.faults.match(r.Method, r.URL.EscapedPath())

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.log.answered(entry, 0)
		return
	}
	if fault.holdBefore != nil && !fault.holdBefore.wait(s.closing) {
		drop(w)
		return
	}
	if fault.DropBefore {
		s.log.answered(entry, 0)
		drop(w)
		return
	}
	var answer reply
	if fault.Status != 0 {
		answer = reply{status: fault.Status, header: fault.Header, raw: []byte(fault.Body)}
	} else {
		answer = s.answer(r, body, fault.Fault)
	}
	if fault.holdAfter != nil && !fault.holdAfter.wait(s.closing) {
		drop(w)
		return
	}
	if fault.DropAfter {
		s.log.answered(entry, 0)
		drop(w)
		return
	}
	s.log.answered(entry, answer.status)
	s.logger.Debug("request", "method", r.Method, "path", r.URL.Path, "status", answer.status)
	answer.write(w, r.Method, fault)
}

// answer routes a request. The mux's own 404 and 405 are put into Keycloak's words.
func (s *Server) answer(r *http.Request, body []byte, fault Fault) reply {
	rec := &router{server: s, body: body, fault: fault, header: http.Header{}}
	s.mux.ServeHTTP(rec, r)
	switch {
	case rec.handled:
		return rec.reply
	case rec.status == http.StatusMethodNotAllowed:
		return fail(http.StatusMethodNotAllowed, "HTTP 405 Method Not Allowed")
	default:
		return fail(http.StatusNotFound, "HTTP 404 Not Found")
	}
}

// router carries a handler's reply through the standard mux.
type router struct {
	server  *Server
	body    []byte
	fault   Fault
	header  http.Header
	status  int
	handled bool
	reply   reply
}

func (r *router) Header() http.Header         { return r.header }
func (r *router) Write(b []byte) (int, error) { return len(b), nil }
func (r *router) WriteHeader(status int)      { r.status = status }

// handle registers a handler that needs a realm and, if access is not nil, a caller.
// Keycloak looks for the token first, then for the realm, then for the right.
func (s *Server) handle(pattern string, access access, handler func(*call) reply) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		rec, ok := w.(*router)
		if !ok {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		rec.handled = true
		c := &call{Request: r, s: s, body: rec.body, fault: rec.fault}
		if access != nil {
			if c.caller = s.authenticate(r.Header.Get("Authorization")); c.caller == nil {
				rec.reply = fail(http.StatusUnauthorized, "HTTP 401 Unauthorized")
				return
			}
		}
		if name := r.PathValue("realm"); name != "" {
			if c.realm = s.realm(name); c.realm == nil {
				rec.reply = fail(http.StatusNotFound, "Realm not found.")
				return
			}
		}
		if access != nil && !access(c) {
			rec.reply = forbidden()
			return
		}
		if c.realm != nil {
			c.saves, c.tells = c.realm.adminEventsOn, c.realm.tells()
		}
		if len(c.body) > 0 && !isJSON(r) {
			rec.reply = fail(http.StatusUnsupportedMediaType, "The content-type header value did not match the value in @Consumes")
			return
		}
		if c.fault.RollBack {
			rec.reply = c.rollBack(handler)
			return
		}
		rec.reply = handler(c)
	})
}

func isJSON(r *http.Request) bool {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && media == "application/json"
}

func (s *Server) realm(name string) *Realm {
	for _, r := range s.realms {
		if r.name == name {
			return r
		}
	}
	return nil
}

func newID() string { return uuid.NewString() }

func drop(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	_ = conn.Close() // the peer sees the end of the stream, which is the point
}
