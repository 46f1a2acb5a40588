package trace

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

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
	e.say(SentenceNext, end.EventID, e.nextOf(c))
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
	case c.Status == adapter.CallUnknown && e.settled(c) != nil:
		e.say(SentenceNow, end.EventID, "whether this call was done is not known, and what holds since is: "+e.settled(c).Text)
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
		for _, name := range notBegun(c, e.trace.Calls[i+1:]) {
			if events := e.ofCall(c); len(events) > 0 {
				e.say(SentenceNow, events[0].EventID, name+", which belongs to the same action, was never tried")
			}
		}
	}
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
	case c.Method == http.MethodGet:
		// Keycloak reports no reads.
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
