package web

import (
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter/trace"
)

// maxTraceEvents is how many events of a story its page lists.
const maxTraceEvents = 300

type traceView struct {
	trace.Trace
	trace.Origin
	// Answers explain the story.
	Answers []answer
	Lines   []eventRow
	// Hidden is how many events are not listed.
	Hidden    int
	Waterfall template.HTML
	Graph     template.HTML
	// Drawn is how many events the diagrams show, where that is not all.
	Drawn int
	Links []link
}

// answer is what the explanation says to one question.
type answer struct {
	Question  string
	Sentences []sentence
}

type sentence struct {
	trace.Sentence
	// Listed is true where the event that it rests on is on the page.
	Listed bool
}

var questions = map[trace.SentenceKind]string{
	trace.SentenceOutcome: "Outcome", trace.SentenceFailedStep: "Where", trace.SentenceClass: "Why", trace.SentenceKeycloak: "Keycloak",
	trace.SentenceTried: "Tried", trace.SentenceNow: "Now", trace.SentenceAlso: "Also", trace.SentenceNote: "Note",
}

// answersOf groups the sentences by what they answer, without the next steps, which
// stand above them.
func answersOf(x trace.Explanation, listed []trace.Line) []answer {
	ids := make(map[uuid.UUID]bool, len(listed))
	for _, l := range listed {
		ids[l.EventID] = true
	}
	var answers []answer
	for _, s := range x.Sentences {
		question, ok := questions[s.Kind]
		if !ok {
			continue
		}
		said := sentence{s, ids[s.EventID]}
		if n := len(answers); n > 0 && answers[n-1].Question == question {
			answers[n-1].Sentences = append(answers[n-1].Sentences, said)
			continue
		}
		answers = append(answers, answer{question, []sentence{said}})
	}
	return answers
}

// eventRow is an event in a list, with links to those of its causes that the list has.
type eventRow struct {
	trace.Line
	CausedBy []link
}

func rowsOf(lines []trace.Line) []eventRow {
	texts := make(map[uuid.UUID]string, len(lines))
	for _, l := range lines {
		texts[l.EventID] = l.Text
	}
	rows := make([]eventRow, 0, len(lines))
	for _, l := range lines {
		row := eventRow{Line: l}
		causes := l.Causes
		if !slices.ContainsFunc(causes, func(id uuid.UUID) bool { return texts[id] != "" }) {
			causes = []uuid.UUID{l.Parent} // as the graph does
		}
		for _, id := range causes {
			if text := texts[id]; text != "" {
				row.CausedBy = append(row.CausedBy, link{first(80, text), "#e-" + id.String()})
			}
		}
		rows = append(rows, row)
	}
	return rows
}

type link struct{ Label, Path string }

// showTrace is GET /traces/{id}: the story around any id.
func (s *Server) showTrace(w http.ResponseWriter, r *http.Request) error {
	t, err := s.Traces.Find(r.Context(), param(r, "id"), text(r, "realm"))
	if err != nil {
		return err
	}
	v := traceView{Trace: t, Origin: trace.OriginOf(t)}
	lines := trace.Lines(t)
	drawn := lines
	if len(drawn) > maxDrawn {
		drawn = drawn[:maxDrawn]
		v.Drawn = maxDrawn
	}
	v.Waterfall = waterfall(t, drawn)
	v.Graph = causalGraph(drawn)
	if len(lines) > maxTraceEvents {
		v.Hidden = len(lines) - maxTraceEvents
		lines = lines[:maxTraceEvents]
	}
	v.Lines = rowsOf(lines)
	v.Answers = answersOf(trace.Explain(t), lines)
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
	for _, l := range lines {
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
