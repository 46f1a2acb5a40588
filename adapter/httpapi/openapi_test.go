package httpapi

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/internal/openapitest"
)

// theDocument is the document that is served.
var theDocument = sync.OnceValues(func() (*openapitest.Document, error) { return openapitest.Load(openapiDocument) })

// holdToDocument checks an answer against the document.
func (b *bundle) holdToDocument(r *http.Request, answer *httptest.ResponseRecorder) {
	b.t.Helper()
	doc, err := theDocument()
	require.NoError(b.t, err)
	result := answer.Result()
	defer func() { require.NoError(b.t, result.Body.Close()) }()
	require.NoError(b.t, doc.Check(r, result.StatusCode, result.Header, answer.Body.Bytes()))
}

func TestOpenAPIIsServed(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) { c.Token = "token-canary" })
	b.get("/api/v1/openapi.json").problem(http.StatusUnauthorized, codeUnauthorized)
	got := b.do(http.MethodGet, "/api/v1/openapi.json", "", "Authorization", "Bearer token-canary")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, openapiDocument, got.body)
	b.do(http.MethodGet, "/api/v1/openapi.json?x=1", "", "Authorization", "Bearer token-canary").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
}

func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(openapiDocument)
	require.NoError(t, err)
	require.True(t, doc.IsOpenAPI31OrLater())
	require.NoError(t, doc.Validate(t.Context(), openapi3.IsOpenAPI31OrLater()))
}

// Every route is in the document, and everything in the document is a route.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var routes []string
	require.NoError(t, chi.Walk(b.server.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, method+" "+route)
		return nil
	}))
	doc, err := theDocument()
	require.NoError(t, err)
	slices.Sort(routes)
	require.Equal(t, routes, doc.Operations(), "a route needs its line in operations() of openapi_source_test.go")
}

// The handlers name the parameters and members that they take when they refuse one
// that they do not: those of the document are the same.
func TestOpenAPIHasEveryParameterAndMember(t *testing.T) {
	t.Parallel()
	_, connected := withKeycloak(t)
	b := newBundle(t, connected)
	named := func(p problem, field string) []string {
		for _, f := range p.Errors {
			if f.Field == field {
				_, list, ok := strings.Cut(f.Message, "; there are ")
				if !ok {
					return nil
				}
				names := strings.Split(list, ", ")
				slices.Sort(names)
				return slices.Compact(names)
			}
		}
		require.Fail(t, "nothing is said about "+field)
		return nil
	}
	for _, o := range operations() {
		if !strings.HasPrefix(o.path, apiRoot) || slices.Contains(o.problems, adapter.CodeNotBuilt) && len(o.answers) == 0 {
			continue
		}
		path := strings.NewReplacer("{", "", "}", "").Replace(o.path)
		var documented []string
		for _, p := range o.query {
			documented = append(documented, p.name)
		}
		slices.Sort(documented)
		p := b.do(o.method, path+"?nonsense=1", "").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
		require.Equal(t, documented, named(p, "nonsense"), "parameters of %s %s", o.method, o.path)
		if o.method == http.MethodGet {
			continue
		}
		p = b.do(o.method, path, `{"nonsense":1}`).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
		require.Equal(t, propertiesOf(o), named(p, "nonsense"), "members of %s %s", o.method, o.path)
		for _, name := range o.body.required {
			require.Contains(t, o.body.properties, name)
		}
	}
}
