package trace

import (
	"strconv"

	"github.com/keytrail/keytrail/adapter"
)

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
