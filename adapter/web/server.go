package web

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
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/eventstore"
)

// Config is what a Server is made of. What has no comment about being nil is required.
type Config struct {
	// Access decides who may look.
	Access Access

	// Store and Codec read events: histories, deliveries, the log.
	Store eventstore.Reader
	Codec *adapter.Codec

	Users           httpapi.UserReader
	Calls           httpapi.CallReader
	Reconciliations httpapi.ReconciliationReader
	Projections     ProjectionReader
	Traces          httpapi.Traces
	Failures        httpapi.Failures
	// Analytics counts over time.
	Analytics func(context.Context, adapter.AnalyticsQuery) (adapter.Analytics, error)
	// OpenDrift returns how the user differs from Keycloak as far as is known, and false
	// where it does not.
	OpenDrift func(ctx context.Context, realm, userID string) (adapter.Finding, bool, error)
	// Ready says what stands in the way of serving.
	Ready func(context.Context) []httpapi.Check

	// Rebuild begins to rebuild a projection and returns; nil offers no rebuilding.
	Rebuild func(ctx context.Context, name string) error
	// Reconciler starts runs; nil where no Keycloak is configured.
	Reconciler httpapi.Reconciler
	// Realms are those that can be reconciled.
	Realms []string
	// Retry interprets a parked delivery again, and those that wait behind it.
	Retry httpapi.Retrier
	// Polls tells how the polling of each realm goes; nil where nothing is polled.
	Polls func() []Poll

	Clock  func() time.Time
	Logger *slog.Logger
}

// Poll is how the polling of one realm goes, as far as this process knows.
type Poll struct {
	Realm string
	// Last is when a poll last ended well, zero for never.
	Last time.Time
	// Error says why the newest poll failed, "" where it did not.
	Error string
}

// ProjectionReader tells how projections and consumers stand.
type ProjectionReader interface {
	Status(ctx context.Context) ([]httpapi.ProjectionStatus, error)
}

func (c *Config) check() error {
	var missing []error
	need := func(ok bool, name string) {
		if !ok {
			missing = append(missing, fmt.Errorf("pages: %s is missing", name))
		}
	}
	need(c.Access != nil, "Access")
	need(c.Store != nil, "Store")
	need(c.Codec != nil, "Codec")
	need(c.Users != nil, "Users")
	need(c.Calls != nil, "Calls")
	need(c.Reconciliations != nil, "Reconciliations")
	need(c.Projections != nil, "Projections")
	need(c.Traces != nil, "Traces")
	need(c.Failures != nil, "Failures")
	need(c.Analytics != nil, "Analytics")
	need(c.OpenDrift != nil, "OpenDrift")
	need(c.Retry != nil, "Retry")
	need(c.Ready != nil, "Ready")
	need(c.Clock != nil, "Clock")
	need(c.Logger != nil, "Logger")
	return errors.Join(missing...)
}

// requestTimeout bounds what a page may take.
const requestTimeout = 30 * time.Second

// Server serves the pages. It is an http.Handler, safe for concurrent use.
type Server struct {
	Config

	router chi.Router
	pages  *pages
	assets *assets
}

// New makes a server. It reads all templates and assets, so that what is missing or
// malformed shows at once.
func New(c Config) (*Server, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	files, err := loadAssets()
	if err != nil {
		return nil, err
	}
	all, err := loadPages(files)
	if err != nil {
		return nil, err
	}
	s := &Server{Config: c, pages: all, assets: files}
	s.router = s.routes()
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// handler is a route. The error it returns is told as a page.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *Server) routes() chi.Router {
	router := chi.NewRouter()
	router.Use(secure, middleware.GetHead)
	router.NotFound(s.open(s.notFound))
	router.MethodNotAllowed(s.open(s.notFound))
	router.Get("/assets/{file}", s.assets.serve)
	router.Get(signInPath, s.open(s.showSignIn))
	router.Post(signInPath, s.open(s.signIn))
	router.Post(signOutPath, s.open(s.signOut))
	for pattern, h := range map[string]handler{
		"/":                          s.overview,
		"/failures":                  s.listFailures,
		"/find":                      s.find,
		"/users":                     s.listUsers,
		"/realms/{realm}/users/{id}": s.showUser,
		"/traces/{id}":               s.showTrace,
		"/calls":                     s.listCalls,
		"/calls/{id}":                s.showCall,
		"/reconciliations":           s.listRuns,
		"/reconciliations/{id}":      s.showRun,
		"/deliveries":                s.listDeliveries,
		"/deliveries/{id}":           s.showDelivery,
		"/projections":               s.listProjections,
		"/events":                    s.listEvents,
		"/analytics":                 s.showAnalytics,
	} {
		router.Get(pattern, s.guarded(h))
	}
	router.Post("/projections/{name}/rebuild", s.guarded(s.rebuild))
	router.Post("/reconciliations", s.guarded(s.startRun))
	router.Post("/deliveries/{id}/retry", s.guarded(s.retryDelivery))
	return router
}

// csp lets a page load its own style sheet, script and images, send its forms home
// and ask for a fresh copy of itself; nothing else, and nothing inline.
const csp = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// Not no-referrer: with it browsers send "Origin: null" along with our own forms.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// open serves whoever asks; what changes something must come from one of our pages.
func (s *Server) open(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		err := sameOrigin(r)
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			s.refuse(w, r, err)
		}
	}
}

type visitorKey struct{}

// visitorOf is who looks, the zero Visitor on pages that anybody may see.
func visitorOf(r *http.Request) Visitor {
	v, _ := r.Context().Value(visitorKey{}).(Visitor)
	return v
}

// guarded serves those whom Access lets in.
func (s *Server) guarded(h handler) http.HandlerFunc {
	return s.open(func(w http.ResponseWriter, r *http.Request) error {
		visitor, err := s.Access.Visitor(r)
		if errors.Is(err, ErrSignIn) && r.Method == http.MethodGet {
			target := signInPath
			if r.URL.RequestURI() != "/" {
				target += "?" + url.Values{"next": {r.URL.RequestURI()}}.Encode()
			}
			http.Redirect(w, r, target, http.StatusSeeOther)
			return nil
		}
		if err != nil {
			return err
		}
		ctx := context.WithValue(r.Context(), visitorKey{}, visitor)
		if r.Method == http.MethodPost {
			ctx = adapter.WithCall(ctx, adapter.CallContext{Actor: visitor.Actor, Source: "http"})
		}
		return h(w, r.WithContext(ctx))
	})
}

// sameOrigin refuses what a browser did not send from one of our own pages. Unlike the
// API, pages are for browsers, and each of them says whence it sends a form: one that
// says nothing is refused too.
func sameOrigin(r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	err := http.NewCrossOriginProtection().Check(r)
	if err == nil && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
		err = errors.New("it does not say from which page")
	}
	if err != nil {
		return adapter.Errorf(codeCrossOrigin, "the form was not sent from one of keytrail's pages: %w", err).
			WithTry("open the page anew and send the form from there; programs use the API")
	}
	return nil
}

// param is a variable of the route's pattern, unescaped.
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
