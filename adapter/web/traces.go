package web

import (
	"html/template"
	"net/http"
	"strings"

	"github.com/keytrail/keytrail/adapter/trace"
)

// maxTraceEvents is how many events of a story its page lists.
const maxTraceEvents = 300

type traceView struct {
	trace.Trace
	trace.Origin
	Lines []trace.Line
	// Hidden is how many events are not listed.
	Hidden    int
	Waterfall template.HTML
	Graph     template.HTML
	// Drawn is how many events the diagrams show, where that is not all.
	Drawn int
	Links []link
}

type link struct{ Label, Path string }

// showTrace is GET /traces/{id}: the story around any id.
func (s *Server) showTrace(w http.ResponseWriter, r *http.Request) error {
	t, err := s.Traces.Find(r.Context(), param(r, "id"), text(r, "realm"))
	if err != nil {
		return err
	}
	v := traceView{Trace: t, Origin: trace.OriginOf(t), Lines: trace.Lines(t)}
	drawn := v.Lines
	if len(drawn) > maxDrawn {
		drawn = drawn[:maxDrawn]
		v.Drawn = maxDrawn
	}
	v.Waterfall = waterfall(t, drawn)
	v.Graph = causalGraph(drawn)
	if len(v.Lines) > maxTraceEvents {
		v.Hidden = len(v.Lines) - maxTraceEvents
		v.Lines = v.Lines[:maxTraceEvents]
	}
	for _, u := range t.Users[:min(len(t.Users), 5)] {
		name := u.Username
		if name == "" {
			name = u.UserID
		}
		v.Links = append(v.Links, link{"User " + name, userPath(u.Realm, u.UserID)})
	}
	for _, c := range t.Calls[:min(len(t.Calls), 5)] {
		v.Links = append(v.Links, link{"Call " + c.Command, "/calls/" + c.CallID.String()})
	}
	seen := map[string]bool{}
	for _, l := range v.Lines {
		category, id, _ := strings.Cut(l.Stream, "/")
		if seen[l.Stream] || len(v.Links) > 12 {
			continue
		}
		seen[l.Stream] = true
		switch category {
		case "delivery":
			v.Links = append(v.Links, link{"Delivery " + first(13, id), "/deliveries/" + id})
		case "reconciliation":
			v.Links = append(v.Links, link{"Reconciliation run", "/reconciliations/" + id})
		}
	}
	return s.render(w, r, http.StatusOK, "trace", "", "Trace", v)
}
