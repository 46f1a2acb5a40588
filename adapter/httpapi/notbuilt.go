package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/keytrail/keytrail/adapter"
)

// missing is a route of the contract that is not built yet.
type missing struct {
	method  string
	pattern string // below apiRoot
	what    string
}

const userPath = "/realms/{realm}/users/{id}"

// notBuilt is the whole list: a route that gets its handler leaves it.
var notBuilt = []missing{}

func (m missing) refuse(http.ResponseWriter, *http.Request) error { return notBuiltYet(m.what) }

func notBuiltYet(what string) error {
	return adapter.Errorf(adapter.CodeNotBuilt, "%s is not built yet", what)
}

// notFound answers paths that no route has.
func (s *Server) notFound(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.Path
	if s.Page != nil && !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/webhooks/") {
		s.Page.ServeHTTP(w, r)
		return nil
	}
	if path == "/" {
		return notBuiltYet("the page")
	}
	return nothingHere()
}

func nothingHere() error {
	return adapter.Errorf(adapter.CodeNotFound, "there is nothing at this address").
		WithTry("the API begins at %s, webhooks go to /webhooks/{source}", apiRoot)
}

// methodNotAllowed answers known paths asked with another method, and names those
// that it has.
func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if s.router.Match(chi.NewRouteContext(), method, path) {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 { // a method that chi does not know: it has not looked at the path
		return s.notFound(w, r)
	}
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return adapter.Errorf(codeMethodNotAllowed, "this address takes %s", strings.Join(allowed, ", "))
}
