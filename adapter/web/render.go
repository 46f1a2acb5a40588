package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
)

//go:embed templates
var templateFiles embed.FS

// pages are the parsed templates: each page with the layout and the parts that all
// share.
type pages struct{ byName map[string]*template.Template }

func loadPages(files *assets) (*pages, error) {
	shared, err := template.New("layout.html").Funcs(functions(files)).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("the pages' layout: %w", err)
	}
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("the pages' templates: %w", err)
	}
	p := &pages{byName: map[string]*template.Template{}}
	for _, file := range names {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		t, err := shared.Clone()
		if err == nil {
			_, err = t.ParseFS(templateFiles, file)
		}
		if err != nil {
			return nil, fmt.Errorf("the page %s: %w", name, err)
		}
		p.byName[name] = t
	}
	return p, nil
}

// view is what every page is made of.
type view struct {
	Title string
	// Section is the part of the navigation that the page belongs to.
	Section string
	// Query is what stands in the field for looking up ids.
	Query   string
	Visitor Visitor
	// Guest is true on pages that are shown to those who may not look.
	Guest bool
	// Now is when the page was made.
	Now  time.Time
	Data any
}

// navigation are the sections, in their order.
var navigation = []struct{ Name, Path, Title string }{
	{"overview", "/", "Overview"},
	{"users", "/users", "Users"},
	{"calls", "/calls", "Calls"},
	{"reconciliations", "/reconciliations", "Reconciliations"},
	{"deliveries", "/deliveries", "Deliveries"},
	{"events", "/events", "Events"},
	{"analytics", "/analytics", "Analytics"},
	{"projections", "/projections", "Projections"},
}

// render writes a page. It writes nothing where the page cannot be made.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, page, section, title string, data any) error {
	t, ok := s.pages.byName[page]
	if !ok {
		return fmt.Errorf("there is no page %s", page)
	}
	visitor := visitorOf(r)
	var b bytes.Buffer
	err := t.Execute(&b, view{
		Title: title, Section: section, Query: r.URL.Query().Get("q"), Visitor: visitor, Guest: visitor.Actor.Type == "",
		Now: s.Clock().UTC(), Data: data,
	})
	if err != nil {
		return fmt.Errorf("making the page %s: %w", page, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	// A client that has gone away needs no answer.
	_, _ = b.WriteTo(w)
	return nil
}

func functions(files *assets) template.FuncMap {
	return template.FuncMap{
		"asset":      files.path,
		"navigation": func() any { return navigation },

		"when":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"exact":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") },
		"datetime": func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"local":    func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05") },
		"ago":      ago,
		"took":     func(ms float64) string { return trace.Duration(time.Duration(ms * float64(time.Millisecond))) },
		"between":  func(a, b time.Time) string { return trace.Duration(b.Sub(a)) },
		"duration": trace.Duration,

		"known":          func(u adapter.User, field string) bool { return u.Known(field) },
		"userPath":       userPath,
		"tracePath":      func(id any) string { return "/traces/" + url.PathEscape(fmt.Sprint(id)) },
		"short":          func(id uuid.UUID) string { return id.String()[24:] },
		"person":         person,
		"who":            trace.Who,
		"through":        trace.Through,
		"value":          trace.Value,
		"json":           indented,
		"valueJSON":      trace.ValueJSON,
		"fieldName":      fieldName,
		"words":          func(s any) string { return strings.ReplaceAll(fmt.Sprint(s), "_", " ") },
		"situation":      trace.SituationWords,
		"callTitle":      trace.CallTitle,
		"callOutcome":    trace.CallOutcome,
		"callTone":       callTone,
		"runTone":        runTone,
		"traceTone":      traceTone,
		"failureTone":    failureTone,
		"failureKind":    failureKind,
		"projectionTone": projectionTone,
		"runResult":      runResult,
		"isTrue":         func(b *bool) bool { return b != nil && *b },
		"list":           func(values ...any) []any { return values },
		"contains":       func(all []string, one string) bool { return slices.Contains(all, one) },
		"plural":         plural,
		"number":         func(n any) string { return number(n) },
		"quantile":       quantile,
		"counted": func(c chart, i int) bool {
			return slices.ContainsFunc(c.Series, func(s series) bool { return s.Values[i] != 0 })
		},
		"failurePath": failurePath,
		"dict":        dict,
		"first":       first,
	}
}

// dict makes the data of a part that needs several values.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict: %d values are no pairs", len(pairs))
	}
	m := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: %v is no name", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}

// first bounds a text in runes.
func first(n int, s string) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n]) + "…"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + many
}

// grouped sets thousands apart.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// number is a whole number of any type for people.
func number(n any) string {
	v := reflect.ValueOf(n)
	if v.CanInt() {
		return grouped(int(v.Int()))
	}
	return fmt.Sprint(n)
}

// quantile is a latency, where one is known.
func quantile(ms *float64) string {
	if ms == nil {
		return "not known"
	}
	return trace.Duration(time.Duration(*ms * float64(time.Millisecond)))
}

// failurePath leads to what needs attention itself, as opposed to its story.
func failurePath(f trace.Failure) *link {
	switch f.Kind {
	case trace.FailureCallFailed, trace.FailureCallUnknown, trace.FailureCallOpen:
		return &link{"The call", "/calls/" + f.ID.String()}
	case trace.FailureDeliveryParked:
		return &link{"The delivery", "/deliveries/" + f.ID.String()}
	case trace.FailureReconciliationInvalid, trace.FailureDrift:
		return &link{"The run", "/reconciliations/" + f.ID.String()}
	}
	return nil
}

func userPath(realm, id string) string {
	return "/realms/" + url.PathEscape(realm) + "/users/" + url.PathEscape(id)
}

// person names an actor by name and kind; which client and address it was, the event
// tells.
func person(a *adapter.Actor) string {
	brief := *a
	brief.Client, brief.IP = "", ""
	return trace.Who(&brief)
}

// ago is how long before now something was, in one unit.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < 0:
		return "just now" // another machine's clock
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours())/24)
}

// maxJSON bounds how much of an event's data a page shows.
const maxJSON = 64 << 10

// indented shows data as people read JSON.
func indented(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template escapes, and people want to read
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("showing data: %w", err)
	}
	text := strings.TrimSuffix(b.String(), "\n")
	if len(text) > maxJSON {
		return strings.ToValidUTF8(text[:maxJSON], "") + "\n… (longer: the API has all of it)", nil
	}
	return text, nil
}

var fieldNames = map[string]string{
	adapter.FieldUsername: "User name", adapter.FieldEmail: "E-mail", adapter.FieldFirstName: "First name",
	adapter.FieldLastName: "Last name", adapter.FieldEnabled: "Enabled", adapter.FieldEmailVerified: "E-mail verified",
	adapter.FieldAttributes: "Attributes", adapter.FieldRequiredActions: "Required actions", adapter.FieldRoles: "Realm roles",
	adapter.FieldClientRoles: "Client roles", adapter.FieldGroups: "Groups", adapter.FieldLockedUntil: "Locked until",
	"deleted": "Deleted",
}

func fieldName(field string) string {
	if name, ok := fieldNames[field]; ok {
		return name
	}
	return strings.ReplaceAll(field, "_", " ")
}

func callTone(s adapter.CallStatus) trace.Tone {
	switch s {
	case adapter.CallSucceeded:
		return trace.ToneGood
	case adapter.CallFailed:
		return trace.ToneBad
	case adapter.CallUnknown, adapter.CallSkipped:
		return trace.ToneWarning
	case adapter.CallRequested:
	}
	return trace.ToneNeutral
}

func runTone(r adapter.Reconciliation) trace.Tone {
	switch {
	case r.Status == adapter.RunInvalid || r.Status == adapter.RunAborted:
		return trace.ToneBad
	case r.Status == adapter.RunCompleted && r.FindingsTotal > 0:
		return trace.ToneWarning
	case r.Status == adapter.RunCompleted:
		return trace.ToneGood
	}
	return trace.ToneNeutral
}

// runResult is how a run ended, in a word or two.
func runResult(r adapter.Reconciliation) string {
	switch {
	case r.Status == adapter.RunCompleted && r.FindingsTotal > 0:
		return "drift"
	case r.Status == adapter.RunCompleted:
		return "in sync"
	}
	return string(r.Status)
}

func traceTone(s trace.Status) trace.Tone {
	switch s {
	case trace.StatusOK:
		return trace.ToneGood
	case trace.StatusFailed:
		return trace.ToneBad
	case trace.StatusUnknown:
		return trace.ToneWarning
	case trace.StatusOpen:
	}
	return trace.ToneNeutral
}

func failureTone(k trace.FailureKind) trace.Tone {
	if k == trace.FailureCallUnknown || k == trace.FailureCallOpen || k == trace.FailureDrift {
		return trace.ToneWarning
	}
	return trace.ToneBad
}

var failureKinds = map[trace.FailureKind]string{
	trace.FailureCallFailed: "Call failed", trace.FailureCallUnknown: "Outcome unknown", trace.FailureCallOpen: "Call open",
	trace.FailureDeliveryParked: "Delivery parked", trace.FailureDrift: "Drift", trace.FailureReconciliationInvalid: "Run invalid",
}

func failureKind(k trace.FailureKind) string {
	if name, ok := failureKinds[k]; ok {
		return name
	}
	return strings.ReplaceAll(string(k), "_", " ")
}

func projectionTone(status string) trace.Tone {
	switch status {
	case "running":
		return trace.ToneGood
	case "failing":
		return trace.ToneBad
	case "stopped", "parked":
		return trace.ToneWarning
	}
	return trace.ToneNeutral
}
