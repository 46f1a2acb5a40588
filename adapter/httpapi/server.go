package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/eventstore"
)

// Defaults of a Config.
const (
	DefaultMaxInFlight = 256
	DefaultCommandWait = 10 * time.Second
)

// requestTimeout bounds what an API request may take, commands included: those answer
// after Config.CommandWait at the latest.
const requestTimeout = 30 * time.Second

// Config is what a Server is made of. What has no comment about being nil is required.
type Config struct {
	// Sources are the configured webhook sources.
	Sources  []inbound.Source
	Recorder Recorder
	// Token is the bearer token of the API; empty serves loopback only.
	Token string

	// Store and Codec read events, for what must be newer than the projections.
	Store eventstore.Reader
	Codec *adapter.Codec
	// Snapshots shortens the reading of long streams; it may be nil.
	Snapshots eventstore.Snapshotter

	Users           UserReader
	Calls           CallReader
	Reconciliations ReconciliationReader
	Audit           AuditReader
	Analytics       AnalyticsReader
	Projections     Projections
	Traces          Traces
	Failures        Failures
	Commands        Commands
	Retry           Retrier
	// Reconciler starts runs; nil where no Keycloak is configured.
	Reconciler Reconciler

	// Ready says what stands in the way of serving, for /readyz.
	Ready func(context.Context) []Check
	// Metrics serves /metrics.
	Metrics http.Handler
	// Page serves what no route does, outside of /api/ and /webhooks/; nil until there
	// is one.
	Page http.Handler
	// ObserveWebhook is told of each webhook request; it may be nil. The source is what
	// the path says, configured or not.
	ObserveWebhook func(source string, status int)

	Clock  func() time.Time
	Logger *slog.Logger

	// MaxInFlight is how many webhook requests are served at once; others get a 429. 0
	// means DefaultMaxInFlight.
	MaxInFlight int
	// CommandWait is how long a command's answer waits for the outcome before it says
	// 202; 0 means DefaultCommandWait.
	CommandWait time.Duration
}

func (c *Config) check() error {
	var missing []error
	need := func(ok bool, name string) {
		if !ok {
			missing = append(missing, fmt.Errorf("http server: %s is missing", name))
		}
	}
	need(c.Recorder != nil, "Recorder")
	need(c.Store != nil, "Store")
	need(c.Codec != nil, "Codec")
	need(c.Users != nil, "Users")
	need(c.Calls != nil, "Calls")
	need(c.Reconciliations != nil, "Reconciliations")
	need(c.Audit != nil, "Audit")
	need(c.Analytics != nil, "Analytics")
	need(c.Projections != nil, "Projections")
	need(c.Traces != nil, "Traces")
	need(c.Failures != nil, "Failures")
	need(c.Commands != nil, "Commands")
	need(c.Retry != nil, "Retry")
	need(c.Ready != nil, "Ready")
	need(c.Metrics != nil, "Metrics")
	need(c.Clock != nil, "Clock")
	need(c.Logger != nil, "Logger")
	return errors.Join(missing...)
}

// Server serves webhooks, API, health and metrics. It is an http.Handler, safe for
// concurrent use. What it runs on beyond a request, Drain waits for.
type Server struct {
	Config

	router   chi.Router
	sources  map[string]*inbound.Source
	token    bearer
	inFlight chan struct{}
	work     *work
	// rebuilding are the rebuilds that requests have begun.
	rebuilding rebuilds
}

// New makes a server. It starts nothing.
func New(c Config) (*Server, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	if c.CommandWait <= 0 {
		c.CommandWait = DefaultCommandWait
	}
	s := &Server{
		Config: c, sources: make(map[string]*inbound.Source, len(c.Sources)),
		token: newBearer(c.Token), inFlight: make(chan struct{}, c.MaxInFlight), work: newWork(),
	}
	for i := range c.Sources {
		s.sources[c.Sources[i].Name] = &c.Sources[i]
	}
	s.router = s.routes()
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// HTTPServer returns an http.Server for s with limits that suit it. Answers have no
// time limit of their own, since a page may stream; handlers have theirs.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
	}
}

// Drain refuses new commands and rebuilds and waits for those under way: no call is
// cut in two. When ctx ends first they are told to stop, which still records how far
// they came, and Drain returns the context's error once they have. Call it after
// http.Server.Shutdown.
func (s *Server) Drain(ctx context.Context) error { return s.work.drain(ctx) }

// handler is a route. The error it returns is told as a problem.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *Server) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.refuse(w, r, err)
		}
	}
}

func (s *Server) routes() chi.Router {
	router := chi.NewRouter()
	router.Use(identify, s.access, s.recovering, middleware.GetHead)
	router.NotFound(s.handle(s.notFound))
	router.MethodNotAllowed(s.handle(s.methodNotAllowed))

	router.Group(func(r chi.Router) {
		r.Use(secure)
		r.Get("/healthz", s.handle(s.healthy))
		r.Get("/readyz", s.handle(s.ready))
		r.Get("/metrics", s.handle(s.metrics))
		r.With(s.observeWebhook).Post("/webhooks/{source}", s.handle(s.receive))
	})
	router.Group(func(r chi.Router) {
		r.Use(secure, s.authenticated, s.named, within(requestTimeout))
		for _, route := range s.api() {
			r.Method(route.method, apiRoot+route.pattern, s.handle(route.handler))
		}
		for _, missing := range notBuilt {
			r.Method(missing.method, apiRoot+missing.pattern, s.handle(missing.refuse))
		}
	})
	return router
}

// apiRoot is where the API begins.
const apiRoot = "/api/v1"

// route is one line of the API.
type route struct {
	method  string
	pattern string // below apiRoot
	handler handler
}

// observeWebhook tells of each webhook request, however it ended.
func (s *Server) observeWebhook(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(seen, r)
		if s.ObserveWebhook != nil {
			s.ObserveWebhook(param(r, "source"), statusOf(seen))
		}
	})
}

// param is a variable of the route's pattern. chi matches the path as it was escaped,
// where that differs from the usual form, and its variables are then escaped too.
func param(r *http.Request, name string) string {
	value := chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return value
	}
	decoded, err := url.PathUnescape(value)
	if err != nil {
		return value
	}
	return decoded
}
