// Package openapitest holds answers of keytrail's HTTP surface to its OpenAPI document,
// in tests.
package openapitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

const mediaProblem = "application/problem+json"

// Document is an OpenAPI document as a strict reader takes it: a member that a schema
// does not name is an error here, though clients are to ignore such. It is safe for
// concurrent use.
type Document struct {
	spec *openapi3.T
}

// Load reads a document in JSON.
func Load(raw []byte) (*Document, error) {
	var whole map[string]any
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", err)
	}
	components, _ := whole["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for _, schema := range schemas {
		if s, ok := schema.(map[string]any); ok {
			s["additionalProperties"] = false
		}
	}
	strict, err := json.Marshal(whole)
	if err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", err)
	}
	spec, err := openapi3.NewLoader().LoadFromData(strict)
	if err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", err)
	}
	return &Document{spec: spec}, nil
}

// Operations are the document's methods and paths, such as "GET /healthz", sorted.
func (d *Document) Operations() []string {
	var all []string
	for path, item := range d.spec.Paths.Map() {
		for method := range item.Operations() {
			all = append(all, method+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

// Check checks an answer: its status, headers, media type, body and, where it is a
// problem, that the operation is said to answer with its code. Of paths that the
// document does not have only problems are looked at. The answer's body is read from
// body, which may be nil for HEAD.
func (d *Document) Check(r *http.Request, status int, header http.Header, body []byte) error {
	path := d.template(r.URL)
	route := &routers.Route{Spec: d.spec, Path: path, PathItem: d.spec.Paths.Value(path), Method: r.Method}
	switch {
	case r.Method == http.MethodHead:
		return nil
	case route.PathItem == nil:
		return d.checkProblem(header, body)
	}
	if route.Operation = route.PathItem.GetOperation(r.Method); route.Operation == nil {
		if status != http.StatusMethodNotAllowed {
			return fmt.Errorf("%s %s is not in the OpenAPI document, and was answered %d", r.Method, path, status)
		}
		return d.checkProblem(header, body)
	}
	err := openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: route},
		Status:                 status, Header: header, Body: io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
	if err != nil {
		return fmt.Errorf("%s %s answered %d, which the OpenAPI document does not have so: %w; it was: %s", r.Method, path, status, err, body)
	}
	if header.Get("Content-Type") != mediaProblem {
		return nil
	}
	var problem struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		return fmt.Errorf("%s %s: a problem that is no JSON: %w", r.Method, path, err)
	}
	if said := route.Operation.Responses.Status(status).Value.Description; said == nil || !strings.Contains(*said, "`"+problem.Code+"`") {
		return fmt.Errorf("%s %s is not said to answer %d with the code %s", r.Method, path, status, problem.Code)
	}
	return nil
}

func (d *Document) checkProblem(header http.Header, body []byte) error {
	if header.Get("Content-Type") != mediaProblem {
		return nil
	}
	var problem any
	if err := json.Unmarshal(body, &problem); err != nil {
		return fmt.Errorf("a problem that is no JSON: %w", err)
	}
	schema := d.spec.Components.Schemas["Problem"]
	if schema == nil {
		return fmt.Errorf("the OpenAPI document has no schema Problem")
	}
	return schema.Value.VisitJSON(problem, openapi3.EnableJSONSchema2020())
}

// template is the path of the document that a URL's is an instance of, that with the
// most fixed segments of several, "" for none.
func (d *Document) template(u *url.URL) string {
	segments := strings.Split(u.EscapedPath(), "/")
	best, most := "", -1
	for _, path := range slices.Sorted(maps.Keys(d.spec.Paths.Map())) {
		want := strings.Split(path, "/")
		if len(want) != len(segments) {
			continue
		}
		fixed := 0
		for i, s := range want {
			switch {
			case strings.HasPrefix(s, "{") && segments[i] != "":
			case s == segments[i]:
				fixed++
			default:
				fixed = -len(want)
			}
		}
		if fixed > most {
			best, most = path, fixed
		}
	}
	return best
}

// Transport checks every answer that passes through next and gives what is wrong to
// fail. Answers come back as they are.
func (d *Document) Transport(next http.RoundTripper, fail func(error)) http.RoundTripper {
	return transport{d, next, fail}
}

type transport struct {
	document *Document
	next     http.RoundTripper
	fail     func(error)
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return resp, err // one that does not end, or none
	}
	body, err := io.ReadAll(resp.Body)
	// Whoever reads the answer sees the same end, a broken one too.
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), failing{err}), resp.Body}
	if err == nil {
		if err := t.document.Check(r, resp.StatusCode, resp.Header, body); err != nil {
			t.fail(err)
		}
	}
	return resp, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections through.
func (t transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// failing ends a body as the one before it ended.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}
