package trace

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// SentenceKind says which question a sentence answers.
type SentenceKind string

// The kinds of sentences, in the order in which they are told.
const (
	// SentenceOutcome says how the story ended.
	SentenceOutcome SentenceKind = "outcome"
	// SentenceFailedStep says which step was the first to fail.
	SentenceFailedStep SentenceKind = "failed_step"
	// SentenceClass says what sort of failure that is, and its usual cause.
	SentenceClass SentenceKind = "class"
	// SentenceKeycloak says what Keycloak said, redacted and bounded.
	SentenceKeycloak SentenceKind = "keycloak"
	// SentenceTried says what was tried, how often, and with which waits.
	SentenceTried SentenceKind = "tried"
	// SentenceNow says what holds now.
	SentenceNow SentenceKind = "now"
	// SentenceAlso names a further failure of the same story.
	SentenceAlso SentenceKind = "also"
	// SentenceNext says what to do.
	SentenceNext SentenceKind = "next"
	// SentenceNote says what the explanation does not cover.
	SentenceNote SentenceKind = "note"
)

// Sentence is one thing that is said about a story.
type Sentence struct {
	Kind SentenceKind `json:"kind"`
	Text string       `json:"text"`
	// EventID is the event that the sentence rests on.
	EventID uuid.UUID `json:"event_id"`
}

// Explanation tells in sentences what became of a story: where it failed first and
// why, what was tried, what holds now, and what to do.
type Explanation struct {
	CorrelationID uuid.UUID `json:"correlation_id"`
	Status        Status    `json:"status"`
	// Sentences is never null. The first one says how the story ended.
	Sentences []Sentence `json:"sentences"`
}

// maxAlike bounds the sentences of one sort: the drift of a whole realm is a list and
// no explanation.
const maxAlike = 5

// Explain explains a story. It is pure: the same trace gives the same explanation.
// Failures are explained by the catalogue (adapter.Code.Explain); of several the first
// is explained whole, and the others are named. Texts hold what the events hold, so no
// secrets, and no control characters.
func Explain(t Trace) Explanation {
	e := &explainer{studied: study(t)}
	e.explain()
	out := Explanation{CorrelationID: t.CorrelationID, Status: t.Status, Sentences: e.sentences}
	if out.Sentences == nil {
		out.Sentences = []Sentence{}
	}
	return out
}

// explainer collects the sentences about a story.
type explainer struct {
	*studied
	sentences []Sentence
}

func (e *explainer) say(kind SentenceKind, event uuid.UUID, text string) {
	if text = oneLine(text); text == "" || event == uuid.Nil {
		return
	}
	if first, _, _ := strings.Cut(text, " "); !e.isName(strings.TrimSuffix(first, ":")) {
		text = sentence(text)
	}
	// What to do often ends in a command, which is to be copied.
	if kind != SentenceNext && !strings.ContainsAny(text[len(text)-1:], ".!?") && !strings.HasSuffix(text, "…") {
		text += "."
	}
	s := Sentence{Kind: kind, Text: text, EventID: event}
	// Two failures of one sort have the same next step.
	if slices.ContainsFunc(e.sentences, func(o Sentence) bool { return o.Kind == kind && o.Text == s.Text }) {
		return
	}
	e.sentences = append(e.sentences, s)
}

// isName reports whether a word is a user's name, which keeps its spelling.
func (e *explainer) isName(word string) bool {
	for _, name := range e.names {
		if name == word {
			return true
		}
	}
	return false
}

// sentence gives a text a capital, unless it begins with a command or a path.
func sentence(text string) string {
	word, _, _ := strings.Cut(text, " ")
	if strings.ContainsAny(word, "./_@") || strings.HasPrefix(word, "keytrail") {
		return text
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// trouble is one thing that went wrong in a story and still stands.
type trouble struct {
	// first is the event of its first failing step.
	first adapter.View
	// One of these says what it is.
	call   *adapter.Call
	parked *adapter.View
	run    *adapter.ReconciliationAborted
	drift  *adapter.DriftDetected
}

func (e *explainer) explain() {
	if len(e.trace.Events) == 0 {
		return
	}
	troubles := e.troubles()
	switch {
	case len(troubles) == 0 && e.found() > 0:
		e.knownDrift()
	case len(troubles) == 0:
		e.fine()
	default:
		e.failed(troubles)
	}
	if e.trace.Truncated {
		last := e.trace.Events[len(e.trace.Events)-1]
		e.say(SentenceNote, last.EventID, "the story is longer than what was looked at: "+number(len(e.trace.Events), "event")+" of it, its beginning and its end")
	}
}

// troubles lists what went wrong and stands, that with the earliest failing step first.
func (e *explainer) troubles() []trouble {
	var all []trouble
	for i := range e.trace.Calls {
		c := &e.trace.Calls[i]
		if c.Status == adapter.CallSucceeded {
			continue
		}
		if first, ok := e.firstFailing(*c); ok {
			all = append(all, trouble{first: first, call: c})
		}
	}
	for i, v := range e.parked {
		all = append(all, trouble{first: v, parked: &e.parked[i]})
	}
	for _, v := range e.trace.Events {
		switch p := v.Data.(type) {
		case *adapter.ReconciliationAborted:
			all = append(all, trouble{first: v, run: p})
		case *adapter.DriftDetected:
			if slices.Contains(e.drifts, p) {
				all = append(all, trouble{first: v, drift: p})
			}
		}
	}
	order := make(map[uuid.UUID]int, len(e.trace.Events))
	for i, v := range e.trace.Events {
		order[v.EventID] = i
	}
	slices.SortStableFunc(all, func(a, b trouble) int { return order[a.first.EventID] - order[b.first.EventID] })
	// What is only under way explains nothing that failed.
	slices.SortStableFunc(all, func(a, b trouble) int { return underWay(a) - underWay(b) })
	return all
}

func underWay(t trouble) int {
	if t.call != nil && t.call.Status == adapter.CallRequested {
		return 1
	}
	return 0
}

// failed explains the first trouble and names the others.
func (e *explainer) failed(troubles []trouble) {
	switch first := troubles[0]; {
	case first.call != nil:
		e.callFailed(*first.call, first.first)
	case first.parked != nil:
		e.deliveryParked(*first.parked)
	case first.run != nil:
		e.runAborted(first.first, first.run)
	case first.drift != nil:
		troubles = e.driftFound(troubles)
	}
	also := 0
	for _, t := range troubles[1:] {
		if also++; also > maxAlike {
			continue
		}
		text, next := e.inOneLine(t)
		e.say(SentenceAlso, e.restsOn(t), text)
		e.say(SentenceNext, e.restsOn(t), next)
	}
	if also > maxAlike {
		e.say(SentenceAlso, e.restsOn(troubles[len(troubles)-1]), "and "+number(also-maxAlike, "more failure")+"; keytrail trace shows them all")
	}
	slices.SortStableFunc(e.sentences, func(a, b Sentence) int { return lastOf(a.Kind) - lastOf(b.Kind) })
}

// lastOf puts what to do behind everything else.
func lastOf(kind SentenceKind) int {
	if kind == SentenceNext {
		return 1
	}
	return 0
}

func (e *explainer) restsOn(t trouble) uuid.UUID {
	if t.call != nil {
		return e.outcomeEvent(*t.call).EventID
	}
	return t.first.EventID
}

func (e *explainer) inOneLine(t trouble) (text, next string) {
	switch {
	case t.call != nil:
		return "also: " + e.callLine(*t.call), e.nextOf(*t.call)
	case t.parked != nil:
		return "also: " + e.describe(t.first), nextOfParked(t.first.Stream)
	case t.run != nil:
		return "also: " + e.describe(t.first), nextOfRun(t.run.Code, t.run.Realm)
	}
	return "also: " + e.describe(t.first), nextOfDrift(t.drift.Realm, t.drift.UserID, t.drift.Situation)
}

// fine explains a story in which nothing is wrong.
func (e *explainer) fine() {
	if e.trace.Status == StatusOpen {
		for _, v := range e.trace.Events {
			if p, ok := v.Data.(*adapter.ReconciliationStarted); ok {
				e.say(SentenceOutcome, v.EventID, "nothing failed so far: the reconciliation of "+p.Realm+" is under way")
				e.say(SentenceNext, v.EventID, "ask again in a moment. If it stays so, see that `keytrail serve` is running")
			}
		}
		return
	}
	for i, c := range e.trace.Calls {
		if i == maxAlike {
			e.say(SentenceNow, e.outcomeEvent(c).EventID, "and "+number(len(e.trace.Calls)-i, "more call")+" was done as well")
			break
		}
		e.callDone(c)
	}
	if len(e.trace.Calls) > 0 {
		return
	}
	v := e.headline()
	text := e.describe(v) + e.unlessTold(v)
	if p, ok := v.Data.(*adapter.ReconciliationCompleted); ok {
		text = "the reconciliation of " + p.Realm + " " + text
	}
	e.say(SentenceOutcome, v.EventID, "nothing failed: "+text)
	told := 0
	for _, o := range e.trace.Events {
		if o.EventID == v.EventID || category(o.Stream) != adapter.CategoryUser {
			continue
		}
		if told++; told <= maxAlike {
			e.say(SentenceNow, o.EventID, e.describe(o)+e.unlessTold(o))
		}
	}
	if told > maxAlike {
		e.say(SentenceNow, v.EventID, "and "+number(told-maxAlike, "more change")+" followed")
	}
}

// headline is the event that a story without calls is about: how a run ended, what
// was received first, or else its first event.
func (e *explainer) headline() adapter.View {
	for _, v := range e.own {
		if _, ok := v.Data.(*adapter.ReconciliationCompleted); ok {
			return v
		}
	}
	return e.own[0]
}

// unlessTold adds who changed a user, where that is not on whose behalf the story
// happened.
func (e *explainer) unlessTold(v adapter.View) string {
	head := headOf(e.studied)
	if category(v.Stream) != adapter.CategoryUser || v.Actor == nil || by(v.Actor) == "" ||
		(head.Actor != nil && head.EventID != v.EventID && head.Actor.String() == v.Actor.String()) {
		return ""
	}
	return " (" + strings.TrimSpace(by(v.Actor)) + ")"
}
