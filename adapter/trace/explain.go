package trace

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
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

// ofCall are the events of a call's stream that the story shows, in its order.
func (e *explainer) ofCall(c adapter.Call) []adapter.View {
	stream := adapter.CallStream(c.CallID).String()
	var events []adapter.View
	for _, v := range e.trace.Events {
		if v.Stream == stream {
			events = append(events, v)
		}
	}
	return events
}

// firstFailing is the first step of a call that did not go well: a read, an attempt,
// or else how it ended. A call under way without a failure has its last event.
func (e *explainer) firstFailing(c adapter.Call) (adapter.View, bool) {
	events := e.ofCall(c)
	for _, v := range events {
		switch p := v.Data.(type) {
		case *adapter.ApiCallPreconditionRead:
			if p.Found == nil {
				return v, true
			}
		case *adapter.ApiCallAttempted:
			if !succeeded(v) {
				return v, true
			}
		case *adapter.ApiCallFailed, *adapter.ApiCallSkipped, *adapter.ApiCallOutcomeUnknown:
			return v, true
		}
	}
	if len(events) == 0 {
		return adapter.View{}, false
	}
	return events[len(events)-1], true
}

// outcomeEvent is the event that ended a call, or the last one of a call under way.
func (e *explainer) outcomeEvent(c adapter.Call) adapter.View {
	var last adapter.View
	for _, v := range e.ofCall(c) {
		switch v.Data.(type) {
		case *adapter.ApiCallEchoed:
			continue
		case *adapter.ApiCallSucceeded, *adapter.ApiCallFailed, *adapter.ApiCallSkipped, *adapter.ApiCallOutcomeUnknown:
			last = v
			continue
		}
		if !ended(last) {
			last = v
		}
	}
	return last
}

func ended(v adapter.View) bool {
	switch v.Data.(type) {
	case *adapter.ApiCallSucceeded, *adapter.ApiCallFailed, *adapter.ApiCallSkipped, *adapter.ApiCallOutcomeUnknown:
		return true
	}
	return false
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
		return "also: " + e.callLine(*t.call), nextOfCall(*t.call)
	case t.parked != nil:
		return "also: " + e.describe(t.first), nextOfParked(t.first.Stream)
	case t.run != nil:
		return "also: " + e.describe(t.first), nextOfRun(t.run.Code, t.run.Realm)
	}
	return "also: " + e.describe(t.first), nextOfDrift(t.drift.Realm, t.drift.UserID, t.drift.Situation)
}

func (e *explainer) callFailed(c adapter.Call, first adapter.View) {
	end := e.outcomeEvent(c)
	title := callTitle(e.words, c) + by(c.Actor)
	switch {
	case c.Echo != nil:
		e.say(SentenceOutcome, end.EventID, title+" failed, and yet was done")
	case c.Status == adapter.CallSkipped:
		e.say(SentenceOutcome, end.EventID, title+" was refused, and nothing was written")
	case c.Status == adapter.CallUnknown:
		e.say(SentenceOutcome, end.EventID, title+" may or may not have been done")
	case c.Status == adapter.CallRequested:
		e.say(SentenceOutcome, end.EventID, title+" is still under way")
	default:
		e.say(SentenceOutcome, end.EventID, title+" was not done")
	}
	e.failedStep(c, first)
	if c.Code != "" {
		e.class(end.EventID, c.Code, c.Error)
	}
	e.keycloakSaid(c, end)
	e.tried(c)
	e.callNow(c, end)
	e.say(SentenceNext, end.EventID, nextOfCall(c))
	for i, first := range e.trace.Calls {
		if missing := e.notBegun(first, e.trace.Calls[i+1:]); len(missing) > 0 && first.Status == adapter.CallSucceeded {
			e.say(SentenceNext, end.EventID, "Then give what was never tried as commands of their own: "+strings.Join(missing, "; "))
		}
	}
}

func (e *explainer) failedStep(c adapter.Call, first adapter.View) {
	lead := "the first step that failed is "
	when := ", on " + first.OccurredAt.UTC().Format("2006-01-02 at 15:04:05 UTC")
	switch p := first.Data.(type) {
	case *adapter.ApiCallPreconditionRead:
		e.say(SentenceFailedStep, first.EventID, lead+"the read before it"+when+": "+e.describe(first))
	case *adapter.ApiCallAttempted:
		if c.Status == adapter.CallRequested && succeeded(first) {
			return
		}
		e.say(SentenceFailedStep, first.EventID, lead+"attempt "+strconv.Itoa(p.Attempt.Attempt)+when+": "+attempt(p.Attempt))
	case *adapter.ApiCallSkipped:
		e.say(SentenceFailedStep, first.EventID, lead+"the rule that is judged before anything is written"+when+": "+reason(string(p.Code), p.Message, ""))
	case *adapter.ApiCallFailed, *adapter.ApiCallOutcomeUnknown:
		e.say(SentenceFailedStep, first.EventID, lead+"its end"+when+": "+e.describe(first))
	}
}

// class tells the catalogue's word on a code, and message where that says more.
func (e *explainer) class(event uuid.UUID, code adapter.Code, message string) {
	if !slices.Contains(adapter.Codes(), code) {
		e.say(SentenceClass, event, joinedBy(": ", "its class is "+string(code)+", which this program's catalogue does not have", message))
		return
	}
	x := code.Explain()
	text := x.Title + " (" + string(code) + ")"
	if message != "" && !strings.EqualFold(message, x.Title) {
		text += ": " + strings.TrimSuffix(message, ".")
	}
	e.say(SentenceClass, event, text+". Usual cause: "+x.Cause)
}

func joinedBy(separator, a, b string) string {
	if b == "" {
		return a
	}
	return a + separator + b
}

func (e *explainer) keycloakSaid(c adapter.Call, end adapter.View) {
	said := c.Keycloak
	if strings.HasPrefix(said, "HTTP ") { // that is the status, and no words
		said = ""
	}
	switch {
	case said != "" && c.StatusCode != nil:
		e.say(SentenceKeycloak, end.EventID, "Keycloak answered "+strconv.Itoa(*c.StatusCode)+` and said "`+said+`"`)
	case said != "":
		e.say(SentenceKeycloak, end.EventID, `Keycloak said "`+said+`"`)
	case c.StatusCode != nil:
		e.say(SentenceKeycloak, end.EventID, "Keycloak answered "+strconv.Itoa(*c.StatusCode)+" and gave no reason")
	case slices.ContainsFunc(c.Attempts, func(a adapter.CallAttempt) bool { return a.StatusCode != nil }):
		last := e.lastAttempt(c)
		for _, a := range slices.Backward(c.Attempts) {
			if a.StatusCode != nil {
				e.say(SentenceKeycloak, last, "Keycloak's last answer was "+strconv.Itoa(*a.StatusCode))
				break
			}
		}
	case slices.ContainsFunc(c.Attempts, func(a adapter.CallAttempt) bool { return a.Sent }):
		e.say(SentenceKeycloak, e.lastAttempt(c), "Keycloak said nothing: no answer came")
	case len(c.Attempts) > 0:
		e.say(SentenceKeycloak, e.lastAttempt(c), "Keycloak was not reached")
	}
}

func (e *explainer) lastAttempt(c adapter.Call) uuid.UUID {
	var last uuid.UUID
	for _, v := range e.ofCall(c) {
		if _, ok := v.Data.(*adapter.ApiCallAttempted); ok {
			last = v.EventID
		}
	}
	return last
}

// tried tells the reads and the attempts with the waits between them.
func (e *explainer) tried(c adapter.Call) {
	for _, v := range e.ofCall(c) {
		if p, ok := v.Data.(*adapter.ApiCallPreconditionRead); ok && p.Found != nil {
			e.say(SentenceTried, v.EventID, "keytrail "+e.describe(v))
		}
	}
	if len(c.Attempts) == 0 {
		if c.Status != adapter.CallRequested {
			e.say(SentenceTried, e.outcomeEvent(c).EventID, "no write was sent")
		}
		return
	}
	var parts []string
	for i, a := range c.Attempts {
		text := attempt(insideAttempt(a))
		if i > 0 {
			before := c.Attempts[i-1]
			done := before.StartedAt.Add(time.Duration(before.DurationMS * float64(time.Millisecond)))
			if wait := a.StartedAt.Sub(done); wait >= time.Millisecond {
				text = "after a wait of " + span(wait) + " " + text
			}
		}
		parts = append(parts, text)
	}
	if more := len(parts) - 2*maxAlike; more > 0 {
		parts = slices.Concat(parts[:maxAlike], []string{number(more, "more attempt")}, parts[len(parts)-maxAlike:])
	}
	e.say(SentenceTried, e.lastAttempt(c), "it was tried "+times(len(c.Attempts))+": "+strings.Join(parts, "; "))
}

func insideAttempt(a adapter.CallAttempt) adapter.Attempt {
	status := 0
	if a.StatusCode != nil {
		status = *a.StatusCode
	}
	return adapter.Attempt{
		Attempt: a.Attempt, StartedAt: a.StartedAt, DurationMS: a.DurationMS, StatusCode: status, Error: a.Error, Kind: a.Kind, Sent: a.Sent,
	}
}

// callNow tells whether the change happened and what is known of the user since.
func (e *explainer) callNow(c adapter.Call, end adapter.View) {
	switch {
	case c.Echo != nil:
		e.say(SentenceNow, e.echoEvent(c), "the change was made: Keycloak reported it itself")
	case c.Status == adapter.CallSkipped:
		e.say(SentenceNow, end.EventID, "nothing was changed")
	case c.Status == adapter.CallUnknown:
		e.say(SentenceNow, end.EventID, "whether the change was made is not known: Keycloak has not reported it so far")
	case c.Status == adapter.CallRequested:
		e.say(SentenceNow, end.EventID, "whether the change was made is not known yet")
	case len(c.Attempts) > 0 && !slices.ContainsFunc(c.Attempts, func(a adapter.CallAttempt) bool { return a.Sent }):
		e.say(SentenceNow, end.EventID, "nothing was changed: no request reached Keycloak")
	default:
		e.say(SentenceNow, end.EventID, "the change was not made")
	}
	e.restOfAction(c)
	e.userNow(adapter.UserRef{Realm: c.Realm, UserID: c.UserID}, end)
}

func (e *explainer) echoEvent(c adapter.Call) uuid.UUID {
	for _, v := range e.ofCall(c) {
		if _, ok := v.Data.(*adapter.ApiCallEchoed); ok {
			return v.EventID
		}
	}
	return e.outcomeEvent(c).EventID // cut off the story
}

// echoLag is how long after its last attempt went out the echo of a call arrived.
func (e *explainer) echoLag(c adapter.Call) string {
	at, ok := e.arrived[c.CallID]
	if !ok || len(c.Attempts) == 0 {
		return ""
	}
	if lag := at.Sub(c.Attempts[len(c.Attempts)-1].StartedAt); lag > 0 {
		return ", " + span(lag) + " after the last attempt"
	}
	return ""
}

// restOfAction tells which other calls of the same story were done, and which that
// were planned were never begun.
func (e *explainer) restOfAction(failed adapter.Call) {
	told := 0
	for i, c := range e.trace.Calls {
		if c.CorrelationID != failed.CorrelationID {
			continue
		}
		if c.CallID != failed.CallID && c.Status == adapter.CallSucceeded {
			if told++; told <= maxAlike {
				e.say(SentenceNow, e.outcomeEvent(c).EventID, callTitle(e.words, c)+" was done, and stands")
			}
		}
		for _, name := range e.notBegun(c, e.trace.Calls[i+1:]) {
			if events := e.ofCall(c); len(events) > 0 {
				e.say(SentenceNow, events[0].EventID, name+", which belongs to the same action, was never tried")
			}
		}
	}
}

// notBegun are the steps of a call's plan that no later call of the story is.
func (e *explainer) notBegun(c adapter.Call, later []adapter.Call) []string {
	var missing []string
	taken := map[uuid.UUID]bool{}
	for _, name := range c.Plan {
		command, _, _ := strings.Cut(name, " ")
		i := slices.IndexFunc(later, func(l adapter.Call) bool {
			return l.CorrelationID == c.CorrelationID && l.Command == command && !taken[l.CallID]
		})
		if i < 0 {
			missing = append(missing, name)
			continue
		}
		taken[later[i].CallID] = true
	}
	return missing
}

// userNow tells the last that the story knows of a user since an event.
func (e *explainer) userNow(ref adapter.UserRef, since adapter.View) {
	var last adapter.View
	for _, v := range e.trace.Events {
		if p, ok := v.Data.(adapter.UserPayload); ok && p.User() == ref && v.Position > since.Position && v.Position > last.Position {
			last = v
		}
	}
	if last.EventID != uuid.Nil {
		e.say(SentenceNow, last.EventID, "the last that is known since: "+e.describe(last)+e.unlessTold(last))
	}
}

func (e *explainer) deliveryParked(v adapter.View) {
	p, ok := v.Data.(*adapter.DeliveryParked)
	if !ok {
		return
	}
	received := v
	for _, o := range e.trace.Events {
		if o.Stream == v.Stream && o.Version < received.Version {
			received = o
		}
	}
	ending := ", and keytrail could not interpret it"
	if p.Behind != nil {
		ending = ", and it waits behind another delivery"
	}
	e.say(SentenceOutcome, received.EventID, e.describe(received)+ending)
	when := ", on " + v.OccurredAt.UTC().Format("2006-01-02 at 15:04:05 UTC")
	if p.Behind != nil {
		e.say(SentenceFailedStep, v.EventID, "it was put aside"+when+": "+p.Error)
		e.class(v.EventID, adapter.CodeWaitsBehind, "")
	} else {
		e.say(SentenceFailedStep, v.EventID, "the first step that failed is its interpretation"+when+": "+p.Error)
		e.say(SentenceClass, v.EventID, "a delivery that cannot be interpreted is parked. Usual cause: Keycloak, or what stands between, sent a shape that this version of keytrail does not read")
		e.say(SentenceTried, v.EventID, "it was tried "+times(max(p.Attempts, 1))+", then parked")
	}
	e.say(SentenceNow, received.EventID, "the delivery is kept as it came, and nothing is believed because of it: what is known of its user may be older than Keycloak's state")
	if p.Behind != nil {
		e.say(SentenceNext, *p.Behind, "The earlier delivery comes first: keytrail explain "+p.Behind.String())
		return
	}
	e.say(SentenceNext, v.EventID, nextOfParked(v.Stream))
}

func (e *explainer) runAborted(v adapter.View, p *adapter.ReconciliationAborted) {
	ending := "was aborted"
	if p.Status == string(adapter.RunInvalid) {
		ending = "is invalid"
	}
	e.say(SentenceOutcome, v.EventID, "the reconciliation of "+p.Realm+" "+ending+", and judges nothing")
	e.say(SentenceFailedStep, v.EventID, "it ended on "+v.OccurredAt.UTC().Format("2006-01-02 at 15:04:05 UTC")+": "+reason(string(p.Code), p.Message, ""))
	if p.Code != "" {
		e.class(v.EventID, p.Code, "")
	}
	e.say(SentenceNow, v.EventID, "nothing was concluded: whether Keycloak differs from what is believed is not known from this run")
	e.say(SentenceNext, v.EventID, nextOfRun(p.Code, p.Realm))
}

// driftCauses are the usual causes of each situation.
var driftCauses = map[adapter.Situation]string{
	adapter.SituationChanged:         "the change was made where Keycloak emits no event (in its database, by an import, with events switched off), or its event was lost",
	adapter.SituationMissingLive:     "the user was deleted where Keycloak emits no event, or the event was lost",
	adapter.SituationUnexpectedLive:  "the user was created where Keycloak emits no event, such as by an import or a federation, or the event was lost",
	adapter.SituationDuplicate:       "users changed while they were listed, or a federation lists one of them twice",
	adapter.SituationUnreadable:      "Keycloak, or a federation behind it, fails on this one user",
	adapter.SituationStaleProjection: "the users projection is behind the log, or stands still",
}

// driftFound explains what a run found, one user after another, and returns what of
// the troubles it has not explained, behind the first.
func (e *explainer) driftFound(troubles []trouble) []trouble {
	rest := troubles[:1:1]
	var found []trouble
	for i, t := range troubles {
		if t.drift != nil {
			found = append(found, t)
		} else if i > 0 {
			rest = append(rest, t)
		}
	}
	first := found[0]
	text := "Keycloak differs from what is believed in " + number(len(found), "user") + " of " + first.drift.Realm
	if total := e.found(); total > len(found) {
		text += " (" + strconv.Itoa(total-len(found)) + " more were found before)"
	}
	e.say(SentenceOutcome, first.first.EventID, text)
	for i, t := range found {
		if i == maxAlike {
			e.say(SentenceAlso, t.first.EventID, "and "+number(len(found)-i, "more user")+"; the run's findings list them all")
			break
		}
		e.driftOf(t)
	}
	return rest
}

func (e *explainer) driftOf(t trouble) {
	brief := *t.drift
	brief.Fields = nil
	e.say(SentenceFailedStep, t.first.EventID, e.drift(&brief))
	if cause := driftCauses[t.drift.Situation]; cause != "" {
		e.say(SentenceClass, t.first.EventID, "its situation is "+string(t.drift.Situation)+". Usual cause: "+cause)
	}
	name := e.drifted(t.drift)
	for i, f := range t.drift.Fields {
		if i == maxAlike {
			e.say(SentenceNow, t.first.EventID, name+" differs in "+number(len(t.drift.Fields)-i, "more field"))
			break
		}
		text := "in Keycloak, " + f.Field + " of " + name + " is " + showJSON(f.Actual) + "; it is believed to be " + showJSON(f.Believed)
		rests := t.first.EventID
		if f.LastChangedBy != "" || f.LastChangedAt != nil {
			text += " since"
			if f.LastChangedBy != "" {
				text += " " + f.LastChangedBy + " set it"
			}
			if f.LastChangedAt != nil {
				text += " on " + f.LastChangedAt.UTC().Format("2006-01-02 at 15:04:05 UTC")
			}
		}
		if f.LastChangedEvent != nil {
			rests = *f.LastChangedEvent
		}
		e.say(SentenceNow, rests, text)
	}
	if len(t.drift.Fields) == 0 {
		e.say(SentenceNow, t.first.EventID, "keytrail believes what it believed before of "+name+"; it has changed nothing in Keycloak")
	}
	e.say(SentenceNext, t.first.EventID, nextOfDrift(t.drift.Realm, t.drift.UserID, t.drift.Situation))
}

func (e *explainer) drifted(p *adapter.DriftDetected) string {
	if p.Username != "" {
		return p.Username
	}
	return e.user(adapter.UserRef{Realm: p.Realm, UserID: p.UserID})
}

// knownDrift explains a run that found only what others had found before.
func (e *explainer) knownDrift() {
	for _, v := range e.trace.Events {
		if p, ok := v.Data.(*adapter.ReconciliationCompleted); ok {
			e.say(SentenceOutcome, v.EventID, "the reconciliation of "+p.Realm+" "+e.describe(v))
			e.say(SentenceClass, v.EventID, "each of these differences was found by an earlier run, and still stands")
			e.say(SentenceNow, v.EventID, "keytrail believes what it believed before; it has changed nothing in Keycloak")
			e.say(SentenceNext, v.EventID, "They are listed, each with its own story, by keytrail failures")
			return
		}
	}
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

func (e *explainer) callDone(c adapter.Call) {
	end := e.outcomeEvent(c)
	e.say(SentenceOutcome, end.EventID, "nothing failed: "+callTitle(e.words, c)+by(c.Actor)+" was done"+joinedWith("; ", c.Note))
	if len(c.Attempts) > 1 || c.ResolvedBy != "" {
		e.tried(c)
	}
	switch {
	case c.ResolvedBy == "echo":
		e.say(SentenceNow, end.EventID, "its answer was lost, and Keycloak's own event proves that it was done")
	case c.ResolvedBy != "":
		e.say(SentenceNow, end.EventID, "its answer was lost, and "+c.ResolvedBy+" found that it was done")
	case c.Echo != nil:
		e.say(SentenceNow, e.echoEvent(c), "the change holds: Keycloak reported it itself"+e.echoLag(c))
	default:
		e.say(SentenceNow, end.EventID, "Keycloak answered that it was done, and has not reported it as an event so far")
	}
	e.userNow(adapter.UserRef{Realm: c.Realm, UserID: c.UserID}, end)
}

func joinedWith(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}

var sentenceWords = map[SentenceKind]string{
	SentenceFailedStep: "where", SentenceClass: "why", SentenceKeycloak: "Keycloak", SentenceTried: "tried",
	SentenceNow: "now", SentenceAlso: "also", SentenceNext: "next", SentenceNote: "note",
}

// WriteExplanation writes an explanation for a person: how the story ended; then the
// sentences, each with the number of the event that it rests on; then those events.
func WriteExplanation(w io.Writer, x Explanation, o Options) error {
	p := newPage(o)
	if len(x.Sentences) == 0 {
		p.WriteString("Nothing is known of this story.\n")
		return p.writeTo(w, "the explanation")
	}
	numbers := map[uuid.UUID]int{}
	var events []uuid.UUID
	columns := 0
	for _, s := range x.Sentences {
		if numbers[s.EventID] == 0 {
			events = append(events, s.EventID)
			numbers[s.EventID] = len(events)
		}
		columns = max(columns, len(sentenceWords[s.Kind]))
	}
	status := strings.ToUpper(string(x.Status))
	before := SentenceKind("")
	for i, s := range x.Sentences {
		text := s.Text + " [" + strconv.Itoa(numbers[s.EventID]) + "]"
		if s.Kind == SentenceOutcome {
			lead := p.paint(statusStyle[x.Status], status) + "  "
			if i > 0 {
				lead = strings.Repeat(" ", len(status)+2)
			}
			p.line(lead, len(status)+2, bold, text)
			continue
		}
		if before == "" {
			p.WriteByte('\n')
		}
		name := sentenceWords[s.Kind]
		if s.Kind == before {
			name = ""
		}
		before = s.Kind
		mark := dim
		if s.Kind == SentenceNext {
			mark = yellow
		}
		p.line("  "+p.paint(mark, pad(name, columns))+"  ", columns+4, plain, text)
	}
	p.WriteByte('\n')
	for i, id := range events {
		p.line("  ", 2, dim, "["+strconv.Itoa(i+1)+"] event "+id.String())
	}
	p.line("  ", 2, dim, "keytrail trace "+x.CorrelationID.String()+" shows the whole story")
	return p.writeTo(w, "the explanation")
}
