package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/outbound"
)

// object is a piece of the document.
type object map[string]any

// document builds the OpenAPI document of the operations.
type document struct {
	t       *testing.T
	schemas object
	types   map[string]reflect.Type // by component name: no two types share one
	// What several operations share is told once.
	parameters, headers, responses object
}

// writeDocument is the document as it is served.
func writeDocument(t *testing.T) []byte {
	t.Helper()
	d := &document{
		t: t, schemas: object{}, types: map[string]reflect.Type{},
		parameters: object{}, headers: object{}, responses: object{},
	}
	paths := object{}
	for _, o := range operations() {
		item, ok := paths[o.path].(object)
		if !ok {
			item = object{}
			if variables := d.variables(o.path); len(variables) > 0 {
				item["parameters"] = variables
			}
			paths[o.path] = item
		}
		require.NotContains(t, item, strings.ToLower(o.method), "%s %s is there twice", o.method, o.path)
		item[strings.ToLower(o.method)] = d.operation(o)
	}
	whole := object{
		"openapi": "3.1.1",
		"info": object{
			"title": "keytrail", "version": "1",
			"summary":     "Who changed this Keycloak user, when, through what, and why did the call fail?",
			"description": documentDescription,
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers": []any{object{"url": "/"}},
		"tags":    tags,
		"paths":   paths,
		"components": object{
			"schemas": d.schemas, "parameters": d.parameters, "headers": d.headers, "responses": d.responses,
			"securitySchemes": object{
				"token": object{"type": "http", "scheme": "bearer", "description": "KEYTRAIL_API_TOKEN. Where none is set, requests from a loopback address need none."},
				"signature": object{
					"type": "apiKey", "in": "header", "name": inbound.SignatureHeader,
					"description": "HMAC over the raw body. Where the source has no secret, requests from a loopback address need none.",
				},
			},
		},
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	require.NoError(t, e.Encode(whole))
	return b.Bytes()
}

const documentDescription = "Lists page by cursor: `limit` and `cursor`, answered with `items` and `next_cursor`, which is empty on the last page. " +
	"Times are RFC 3339 in UTC. Errors are RFC 9457 problems with a `code`. Fields may be added; readers should ignore those that they do not know."

var tags = []any{
	object{"name": "users", "description": "What is believed of users, folded from events."},
	object{"name": "commands", "description": "Changes in Keycloak. Each is recorded call by call, and answers with the ids that lead to its trace."},
	object{"name": "inspection", "description": "Stories, calls, failures, and the log."},
	object{"name": "reconciliation", "description": "What is believed, compared with the live Keycloak."},
	object{"name": "deliveries", "description": "Keycloak's events as they came in."},
	object{"name": "webhooks", "description": "Where Keycloak sends its events."},
	object{"name": "operations", "description": "Health, metrics, projections."},
}

var pathVariable = regexp.MustCompile(`\{(\w+)\}`)

var variableWords = map[string]string{
	"realm": "The realm's name.", "name": "The name.", "client": "The client id.", "group": "The group's id, or its full path, percent-encoded, such as %2Fstaff.",
	"organization": "The organization's id.", "source": "The configured source's name.",
}

func (d *document) variables(path string) []any {
	var all []any
	for _, m := range pathVariable.FindAllStringSubmatch(path, -1) {
		words := variableWords[m[1]]
		switch {
		case m[1] != "id":
		case strings.Contains(path, "/users/"):
			words = "The user's id, or exact user name."
		case strings.Contains(path, "/traces/"):
			words = "A correlation, event, call, delivery, Keycloak event, run or user id, or a user name."
		case strings.Contains(path, "/deliveries/"):
			words = "The delivery's id, or Keycloak's event id."
		default:
			words = "The id, a UUID."
		}
		require.NotEmpty(d.t, words, "{%s} of %s needs a description", m[1], path)
		all = append(all, object{"name": m[1], "in": "path", "required": true, "description": words, "schema": text})
	}
	return all
}

func (d *document) operation(o operation) object {
	api := strings.HasPrefix(o.path, apiRoot)
	problems := slices.Clone(o.problems)
	if api {
		problems = append(problems, apiProblems...)
	}
	if api && o.method != http.MethodGet {
		problems = append(problems, bodyProblems...)
	}
	responses := object{}
	for _, a := range o.answers {
		responses[strconv.Itoa(a.status)] = d.answer(a, api)
	}
	d.problems(responses, problems)
	out := object{"operationId": o.id, "tags": []any{o.tag}, "summary": o.summary, "responses": responses}
	if o.description != "" {
		out["description"] = o.description
	}
	var parameters []any
	for _, p := range o.query {
		in := object{"name": p.name, "in": "query", "description": p.description, "schema": p.schema}
		if p.schema["type"] == "array" {
			in["explode"] = true
		}
		if p.name == "limit" || p.name == "cursor" {
			in = share(d.parameters, "parameters", p.name, in)
		}
		parameters = append(parameters, in)
	}
	headers := o.headers
	if api || o.security == bySignature {
		headers = append(slices.Clone(headers), parameter{correlationHeader, "The story that the request belongs to; a new one where it is left out.", id},
			parameter{"traceparent", "W3C trace context, kept with the events.", text})
	}
	for _, p := range headers {
		parameters = append(parameters, share(d.parameters, "parameters", p.name,
			object{"name": p.name, "in": "header", "description": p.description, "schema": p.schema}))
	}
	if parameters != nil {
		out["parameters"] = parameters
	}
	if o.body != nil {
		out["requestBody"] = bodyObject(o.body)
	}
	switch o.security {
	case byToken:
		out["security"] = []any{object{"token": []any{}}, object{}}
	case bySignature:
		out["security"] = []any{object{"signature": []any{}}, object{}}
	case byNothing:
		out["security"] = []any{}
	}
	return out
}

func bodyObject(b *requestBody) object {
	schema := b.whole
	if schema == nil {
		schema = object{"type": "object", "properties": b.properties, "additionalProperties": false}
		if len(b.required) > 0 {
			schema["required"] = b.required
		}
	}
	out := object{"content": object{"application/json": object{"schema": schema}}, "required": b.whole != nil || len(b.required) > 0}
	if b.description != "" {
		out["description"] = b.description
	}
	return out
}

func (d *document) answer(a described, api bool) object {
	content := object{}
	if a.body != nil {
		content["application/json"] = object{"schema": d.schema(a.body)}
	}
	for _, mediaType := range a.text {
		content[mediaType] = object{"schema": text}
	}
	out := object{"description": a.description, "content": content}
	headers := object{}
	if api {
		headers[correlationHeader] = share(d.headers, "headers", correlationHeader,
			object{"description": "The story that the request belongs to.", "required": true, "schema": id})
	}
	if a.location != "" {
		headers["Location"] = object{"description": a.location, "required": true, "schema": object{"type": "string", "format": "uri-reference"}}
	}
	if len(headers) > 0 {
		out["headers"] = headers
	}
	return out
}

// problems adds the statuses that the codes become.
func (d *document) problems(responses object, codes []adapter.Code) {
	slices.Sort(codes)
	byStatus := map[int][]string{}
	only := map[int]adapter.Code{}
	retry := map[int]bool{}
	for _, code := range slices.Compact(codes) {
		m, ok := meanings[code]
		require.True(d.t, ok, "%s has no status", code)
		byStatus[m.status] = append(byStatus[m.status], fmt.Sprintf("`%s`: %s", code, titleOf(code)))
		retry[m.status] = retry[m.status] || m.retryAfter > 0
		only[m.status] = code
	}
	for status, words := range byStatus {
		headers := object{}
		if retry[status] {
			headers["Retry-After"] = share(d.headers, "headers", "Retry-After",
				object{"description": "When to send it again, in seconds.", "required": true, "schema": object{"type": "integer", "minimum": 1}})
		}
		if status == http.StatusUnauthorized {
			headers["WWW-Authenticate"] = share(d.headers, "headers", "WWW-Authenticate",
				object{"description": "How to authenticate.", "required": true, "schema": text})
		}
		key := strconv.Itoa(status)
		require.NotContains(d.t, responses, key, "an answer and a problem share a status")
		out := object{"description": strings.Join(words, "; "), "content": object{"application/problem+json": object{"schema": d.schema(typeOf[problem]())}}}
		if len(headers) > 0 {
			out["headers"] = headers
		}
		if len(words) == 1 {
			out = share(d.responses, "responses", string(only[status]), out)
		}
		responses[key] = out
	}
}

// share puts a piece among the components and returns the reference to it.
func share(components object, kind, name string, piece object) object {
	components[name] = piece
	return object{"$ref": "#/components/" + kind + "/" + name}
}

func titleOf(code adapter.Code) string {
	if title := meanings[code].title; title != "" {
		return title
	}
	return code.Explain().Title
}

// anything is any JSON value. (An empty schema says the same, but kin-openapi 0.152
// refuses a null where it stands.)
var anything = object{"type": []any{"null", "boolean", "number", "string", "array", "object"}}

// schema is a type's schema. Structs become components.
func (d *document) schema(t reflect.Type) object {
	switch t {
	case typeOf[uuid.UUID]():
		return id
	case typeOf[time.Time]():
		return moment
	case typeOf[json.RawMessage]():
		return anything
	}
	if enums[t] != nil {
		return enum(t)
	}
	switch t.Kind() {
	case reflect.Bool:
		return truth
	case reflect.String:
		return text
	case reflect.Int, reflect.Int32:
		return object{"type": "integer"}
	case reflect.Int64, reflect.Uint64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Float64:
		return object{"type": "number", "format": "double"}
	case reflect.Interface:
		return anything
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		out := object{"type": "object", "additionalProperties": d.schema(t.Elem())}
		if t.Elem().Kind() == reflect.Interface {
			out["additionalProperties"] = true
		}
		return out
	case reflect.Struct:
		name := schemaName(t)
		if known, ok := d.types[name]; ok {
			require.Equal(d.t, known, t, "two types would be %s: give one another name in schemaNames", name)
		} else {
			d.types[name] = t
			d.schemas[name] = d.named(t)
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	require.Fail(d.t, "no schema for "+t.String())
	return nil
}

func enum(t reflect.Type) object { return object{"type": "string", "enum": enums[t]} }

var genericName = regexp.MustCompile(`^page\[.*\.(\w+)\]$`)

func schemaName(t reflect.Type) string {
	if name := schemaNames[t]; name != "" {
		return name
	}
	if m := genericName.FindStringSubmatch(t.Name()); m != nil {
		items, _ := t.FieldByName("Items")
		return schemaName(items.Type.Elem()) + "List"
	}
	return capital(t.Name())
}

func capital(s string) string {
	r := []rune(s)
	r[0] = unicode.ToUpper(r[0])
	return string(r)
}

// named is a struct's schema: what encoding/json makes of it.
func (d *document) named(t reflect.Type) object {
	properties := object{}
	var required []string
	d.fields(t, properties, &required)
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		slices.Sort(required)
		out["required"] = required
	}
	if words := commentOf(d.t, t, ""); words != "" {
		out["description"] = words
	}
	return out
}

func (d *document) fields(t reflect.Type, properties object, required *[]string) {
	for f := range fieldsOf(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			d.fields(f.Type, properties, required)
			continue
		}
		require.NotEmpty(d.t, name, "%s.%s has no name in JSON", t, f.Name)
		schema := d.field(t, f)
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if !optional {
			*required = append(*required, name)
		}
		if f.Type.Kind() == reflect.Pointer && !optional {
			schema = orNull(schema)
		}
		if words := commentOf(d.t, t, f.Name); words != "" {
			schema = describedAs(words, schema)
		}
		properties[name] = schema
	}
}

func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

func (d *document) field(t reflect.Type, f reflect.StructField) object {
	if t == typeOf[outbound.Step]() && f.Name == "Status" {
		return object{"type": "string", "enum": append(slices.Clone(enums[typeOf[adapter.CallStatus]()]), outbound.StepNotTried)}
	}
	if f.Type.Kind() == reflect.Pointer {
		return d.schema(f.Type.Elem())
	}
	return d.schema(f.Type)
}

func orNull(schema object) object {
	if schema["$ref"] != nil {
		return object{"anyOf": []any{schema, object{"type": "null"}}}
	}
	return nullable(schema)
}

// comments are the comments of the types of a package's directory, and of their
// fields as "Type.Field".
var comments = struct {
	sync.Mutex
	byDir map[string]map[string]string
}{byDir: map[string]map[string]string{}}

var (
	blanks = regexp.MustCompile(`\s+`)
	nilled = regexp.MustCompile(`\bnil\b`)
)

// commentOf is the comment of a type or of its field, with the names that JSON has.
func commentOf(t *testing.T, of reflect.Type, field string) string {
	t.Helper()
	const module = "github.com/keytrail/keytrail/"
	within, ok := strings.CutPrefix(of.PkgPath(), module)
	if !ok || strings.Contains(of.Name(), "[") {
		return ""
	}
	key := of.Name()
	if field != "" {
		key += "." + field
	}
	if words := otherWords[key]; words != "" {
		return words
	}
	words := nilled.ReplaceAllString(commentsIn(t, filepath.Join("..", "..", filepath.FromSlash(within)))[key], "null")
	for f := range fieldsOf(of) {
		// Keycloak is a name of its own.
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" && f.Name != "Keycloak" {
			words = regexp.MustCompile(`\b`+f.Name+`\b`).ReplaceAllString(words, "`"+name+"`")
		}
	}
	if field == "" {
		words = strings.Replace(words, of.Name(), schemaName(of), 1)
	}
	return words
}

func commentsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	comments.Lock()
	defer comments.Unlock()
	if known := comments.byDir[dir]; known != nil {
		return known
	}
	all := map[string]string{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range parsed.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				s, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				doc := s.Doc
				if doc == nil {
					doc = g.Doc
				}
				all[s.Name.Name] = oneParagraph(doc)
				body, ok := s.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range body.Fields.List {
					for _, name := range f.Names {
						all[s.Name.Name+"."+name.Name] = oneParagraph(f.Doc)
					}
				}
			}
		}
	}
	comments.byDir[dir] = all
	return all
}

func oneParagraph(c *ast.CommentGroup) string {
	first, _, _ := strings.Cut(c.Text(), "\n\n")
	return strings.TrimSpace(blanks.ReplaceAllString(first, " "))
}

func TestOpenAPIIsWrittenFromTheSource(t *testing.T) {
	t.Parallel()
	got := writeDocument(t)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile("openapi.json", got, 0o600))
	}
	want, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "the types, their comments or the operations have changed: UPDATE_GOLDEN=1 go test -run TestOpenAPI ./%s", path.Join("adapter", "httpapi"))
	ids := map[string]bool{}
	for _, o := range operations() {
		require.False(t, ids[o.id], "two operations are called %s", o.id)
		ids[o.id] = true
		require.Contains(t, tagNames(), o.tag)
	}
}

func tagNames() []string {
	var names []string
	for _, tag := range tags {
		names = append(names, fmt.Sprint(tag.(object)["name"]))
	}
	return names
}

// propertiesOf are the members of an operation's body, sorted.
func propertiesOf(o operation) []string {
	if o.body == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(o.body.properties))
}
