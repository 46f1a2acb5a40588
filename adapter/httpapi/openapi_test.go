package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// theDocument is the document that is served, as a strict reader takes it: a member
// that it does not name is an error here, though clients are to ignore such.
var theDocument = sync.OnceValues(func() (*openapi3.T, error) {
	var raw map[string]any
	if err := json.Unmarshal(openapiDocument, &raw); err != nil {
		return nil, err
	}
	schemas := raw["components"].(map[string]any)["schemas"].(map[string]any)
	for _, s := range schemas {
		s.(map[string]any)["additionalProperties"] = false
	}
	strict, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	return openapi3.NewLoader().LoadFromData(strict)
})

// holdToDocument checks an answer against the document: its status, headers, media
// type, and body. What no route answered must be a problem.
func (b *bundle) holdToDocument(r *http.Request, answer *httptest.ResponseRecorder) {
	b.t.Helper()
	doc, err := theDocument()
	require.NoError(b.t, err)
	route := &routers.Route{Spec: doc, Path: b.patternOf(r), Method: r.Method}
	result := answer.Result()
	defer func() { require.NoError(b.t, result.Body.Close()) }()
	if route.PathItem = doc.Paths.Value(route.Path); route.PathItem == nil || r.Method == http.MethodHead {
		if result.Header.Get("Content-Type") == "application/problem+json" {
			var value any
			require.NoError(b.t, json.Unmarshal(answer.Body.Bytes(), &value))
			require.NoError(b.t, doc.Components.Schemas["Problem"].Value.VisitJSON(value, openapi3.EnableJSONSchema2020()))
		}
		return
	}
	if route.Operation = route.PathItem.GetOperation(r.Method); route.Operation == nil {
		require.Equal(b.t, http.StatusMethodNotAllowed, answer.Code, "%s %s is not in openapi.json", r.Method, route.Path)
		return
	}
	err = openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: route},
		Status:                 result.StatusCode, Header: result.Header, Body: io.NopCloser(bytes.NewReader(answer.Body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
	if result.Header.Get("Content-Type") == "application/problem+json" && err == nil {
		var p problem
		require.NoError(b.t, json.Unmarshal(answer.Body.Bytes(), &p))
		require.Contains(b.t, *route.Operation.Responses.Status(answer.Code).Value.Description, "`"+string(p.Code)+"`",
			"%s %s is not said to answer this code", r.Method, route.Path)
	}
	require.NoError(b.t, err, "%s %s answered %d, which openapi.json does not have so: %s", r.Method, route.Path, answer.Code, answer.Body)
}

// patternOf is the pattern of the route that a request takes, "" for none.
func (b *bundle) patternOf(r *http.Request) string {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	for _, method := range []string{r.Method, http.MethodGet, http.MethodPost, http.MethodPut} {
		found := chi.NewRouteContext()
		if b.server.router.Match(found, method, path) {
			return found.RoutePattern()
		}
	}
	return ""
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
	var routes, documented []string
	require.NoError(t, chi.Walk(b.server.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, method+" "+route)
		return nil
	}))
	doc, err := theDocument()
	require.NoError(t, err)
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	slices.Sort(routes)
	slices.Sort(documented)
	require.Equal(t, routes, documented, "a route needs its line in operations() of openapi_source_test.go")
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
