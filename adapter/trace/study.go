package trace

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
)

// studied is what a story's events say about it as a whole.
type studied struct {
	words
	trace Trace
	// own are the events of the story's own correlation.
	own []adapter.View
	// parked are the deliveries that are parked still.
	parked []adapter.View
	// run is the reconciliation run, if the story is one.
	started   *adapter.ReconciliationStarted
	completed *adapter.ReconciliationCompleted
	aborted   *adapter.ReconciliationAborted
	drifts    []*adapter.DriftDetected
	// arrived is when the echo of a call was recorded, by the call's id.
	arrived map[uuid.UUID]time.Time
}

func study(t Trace) *studied {
	s := &studied{trace: t, arrived: map[uuid.UUID]time.Time{}}
	s.words = words{names: namesIn(t.Events), creating: map[uuid.UUID]bool{}, echoes: map[uuid.UUID]bool{}}
	for _, u := range t.Users {
		ref := adapter.UserRef{Realm: u.Realm, UserID: u.UserID}
		if s.names[ref] == "" && u.Username != "" {
			s.names[ref] = u.Username
		}
	}
	recorded := map[uuid.UUID]time.Time{}
	parking := map[string]adapter.View{} // a delivery's stream → its newest parking or release
	for _, v := range t.Events {
		recorded[v.EventID] = v.RecordedAt
		if v.CorrelationID == t.CorrelationID {
			s.own = append(s.own, v)
		}
		switch v.EventType {
		case adapter.TypeDeliveryParked, adapter.TypeDeliveryReleased:
			if known, ok := parking[v.Stream]; !ok || known.Version < v.Version {
				parking[v.Stream] = v
			}
		}
	}
	if len(s.own) == 0 {
		s.own = t.Events
	}
	for _, v := range t.Events {
		switch p := v.Data.(type) {
		case *adapter.DeliveryParked:
			if parking[v.Stream].EventID == v.EventID {
				s.parked = append(s.parked, v)
			}
		case *adapter.ApiCallRequested:
			s.creating[p.CallID] = p.UserID == ""
		case *adapter.ApiCallEchoed:
			s.echoes[p.DeliveryEventID] = true
			s.arrived[p.CallID] = v.RecordedAt
			if at, ok := recorded[p.DeliveryEventID]; ok {
				s.arrived[p.CallID] = at
			}
		case *adapter.ReconciliationStarted:
			s.started = p
		case *adapter.ReconciliationCompleted:
			s.completed = p
		case *adapter.ReconciliationAborted:
			s.aborted = p
		case *adapter.DriftDetected:
			if p.Phase != adapter.DriftEnded && p.Situation != adapter.SituationInFlight {
				s.drifts = append(s.drifts, p)
			}
		}
	}
	return s
}

// namesIn collects the user names that the events of a story mention.
func namesIn(events []adapter.View) map[adapter.UserRef]string {
	names := map[adapter.UserRef]string{}
	note := func(realm, id, name string) {
		if id != "" && name != "" {
			names[adapter.UserRef{Realm: realm, UserID: id}] = strings.ToLower(name)
		}
	}
	noteSet := func(ref adapter.UserRef, set adapter.Profile) {
		name, _ := set.Username.Get()
		note(ref.Realm, ref.UserID, name)
	}
	created := map[string]*adapter.ApiCallRequested{}
	for _, v := range events {
		switch p := v.Data.(type) {
		case *adapter.ApiCallRequested:
			note(p.Realm, p.UserID, p.Username)
			created[v.Stream] = p
		case *adapter.ApiCallSucceeded:
			if r := created[v.Stream]; r != nil {
				note(r.Realm, p.UserID, r.Username)
			}
		case *adapter.UserApiCreated:
			noteSet(p.UserRef, p.Set)
		case *adapter.UserApiUpdated:
			noteSet(p.UserRef, p.Set)
		case *adapter.UserApiEnabled:
			noteSet(p.UserRef, p.Set)
		case *adapter.UserApiDisabled:
			noteSet(p.UserRef, p.Set)
		case *adapter.UserApiObserved:
			noteSet(p.UserRef, p.Set)
		case *adapter.UserApiBaselined:
			noteSet(p.UserRef, p.Set)
		case *adapter.DriftDetected:
			note(p.Realm, p.UserID, p.Username)
		case *adapter.UserEventReceived:
			note(p.Realm, p.UserID, p.Details["username"])
		case *adapter.AdminEventReceived:
			if path := keycloak.ParseResourcePath(p.ResourcePath); path.Kind == keycloak.PathUser {
				var user struct {
					Username string `json:"username"`
				}
				if json.Unmarshal(p.Representation, &user) == nil {
					note(p.Realm, path.UserID, user.Username)
				}
			}
		}
	}
	return names
}

func (s *studied) status() Status {
	status := StatusOK
	for _, c := range s.trace.Calls {
		switch c.Status {
		case adapter.CallFailed, adapter.CallSkipped:
			return StatusFailed
		case adapter.CallUnknown:
			status = StatusUnknown
		case adapter.CallRequested:
			if status == StatusOK {
				status = StatusOpen
			}
		}
	}
	switch {
	case len(s.parked) > 0, s.aborted != nil, len(s.drifts) > 0, s.found() > 0:
		return StatusFailed
	case s.started != nil && s.completed == nil && status == StatusOK:
		return StatusOpen
	}
	return status
}

// found counts what a completed run found, repeated findings included.
func (s *studied) found() int {
	if s.completed == nil {
		return 0
	}
	n := 0
	for situation, count := range s.completed.Findings {
		if situation != adapter.SituationInFlight {
			n += count
		}
	}
	return n
}

// span is when the story began and ended. A cause that lies before the story's own
// first event does not begin it.
func (s *studied) span() (from time.Time, to *time.Time) {
	for i, v := range s.own {
		if i == 0 || v.OccurredAt.Before(from) {
			from = v.OccurredAt
		}
	}
	last := from
	for _, v := range s.trace.Events {
		if v.OccurredAt.After(last) {
			last = v.OccurredAt
		}
	}
	if s.status() == StatusOpen {
		return from, nil
	}
	return from, &last
}

func (s *studied) summary() string {
	switch {
	case len(s.trace.Calls) > 0 && s.started == nil:
		text := s.callLine(s.trace.Calls[s.mainCall()])
		if more := len(s.trace.Calls) - 1; more > 0 {
			text += "; with " + number(more, "more call")
		}
		return oneLine(text)
	case s.started != nil:
		return oneLine(s.runLine())
	}
	return oneLine(s.eventLine())
}

// mainCall is the call that a story of several is about: the worst of the story's own.
func (s *studied) mainCall() int {
	rank := map[adapter.CallStatus]int{adapter.CallFailed: 4, adapter.CallSkipped: 3, adapter.CallUnknown: 2, adapter.CallRequested: 1}
	best := 0
	for i, c := range s.trace.Calls {
		if rank[c.Status] > rank[s.trace.Calls[best].Status] {
			best = i
		}
	}
	return best
}

func (s *studied) callLine(c adapter.Call) string {
	return callTitle(s.words, c) + by(c.Actor) + ": " + callOutcome(c) + s.echoed(c)
}

func callTitle(w words, c adapter.Call) string {
	return w.command(c.Command, c.Realm, c.UserID, c.Username)
}

func by(a *adapter.Actor) string {
	if a == nil || a.Type == adapter.ActorUnknown || a.Type == "" {
		return ""
	}
	return " by " + a.String()
}

// callOutcome tells a call's attempts and how it ended.
func callOutcome(c adapter.Call) string {
	before := c.Attempts
	if len(before) > 0 && c.Status != adapter.CallRequested {
		before = before[:len(before)-1]
	}
	tried := failures(before)
	n := len(c.Attempts)
	switch c.Status {
	case adapter.CallSucceeded:
		switch {
		case c.ResolvedBy != "":
			return joined(failures(c.Attempts), "done after all, as Keycloak's "+c.ResolvedBy+" proves")
		case tried == "":
			return "succeeded"
		}
		return tried + ", succeeded at the " + ordinal(n) + " attempt"
	case adapter.CallFailed:
		with := ""
		if c.StatusCode != nil {
			with = " with " + strconv.Itoa(*c.StatusCode)
		}
		why := reason(string(c.Code), c.Error, c.Keycloak)
		switch {
		case n < 2:
			return "failed" + with + ": " + why
		case failures(c.Attempts) == "failed "+times(n)+with:
			return "failed " + times(n) + with + " and was given up: " + why
		}
		return tried + ", then failed" + with + ": " + why
	case adapter.CallSkipped:
		return refused(reason(string(c.Code), c.Error, c.Keycloak))
	case adapter.CallUnknown:
		return joined(tried, "outcome unknown: "+reason(string(c.Code), c.Error, c.Keycloak))
	case adapter.CallRequested:
		if n == 0 {
			return "under way, not tried yet"
		}
		if tried == "" {
			return "under way, answered with " + strconv.Itoa(*c.Attempts[n-1].StatusCode)
		}
		return "under way, " + tried + " so far"
	}
	return string(c.Status)
}

func joined(tried, then string) string {
	if tried == "" {
		return then
	}
	return tried + "; " + then
}

// failures counts failed attempts by how they failed, in their order.
func failures(attempts []adapter.CallAttempt) string {
	var kinds []string
	counts := map[string]int{}
	for _, a := range attempts {
		kind := howFailed(a)
		if kind == "" {
			continue
		}
		if counts[kind] == 0 {
			kinds = append(kinds, kind)
		}
		counts[kind]++
	}
	parts := make([]string, 0, len(kinds))
	for _, k := range kinds {
		parts = append(parts, times(counts[k])+" "+k)
	}
	if len(parts) == 0 {
		return ""
	}
	return "failed " + strings.Join(parts, " and ")
}

func howFailed(a adapter.CallAttempt) string {
	if a.StatusCode != nil {
		if *a.StatusCode < 300 {
			return ""
		}
		return "with " + strconv.Itoa(*a.StatusCode)
	}
	switch a.Kind {
	case "refused":
		return "with a refused connection"
	case "timeout":
		return "with a timeout"
	case "reset":
		return "with a lost connection"
	case "dns":
		return "with an unknown host"
	case "tls":
		return "with a TLS error"
	case "canceled":
		return "by being cancelled"
	}
	return "without an answer"
}

// echoed says that Keycloak reported the call back, and how long after its last
// attempt went out that arrived.
func (s *studied) echoed(c adapter.Call) string {
	if c.Echo == nil || c.ResolvedBy == "echo" {
		return ""
	}
	text := "; echoed by Keycloak"
	if c.Status == adapter.CallFailed || c.Status == adapter.CallSkipped {
		return "; yet Keycloak reported it as done"
	}
	if at, ok := s.arrived[c.CallID]; ok && len(c.Attempts) > 0 {
		if lag := at.Sub(c.Attempts[len(c.Attempts)-1].StartedAt); lag > 0 {
			text += " after " + span(lag)
		}
	}
	return text
}

func (s *studied) runLine() string {
	text := "reconciliation of " + s.started.Realm
	switch {
	case s.aborted != nil:
		status := s.aborted.Status
		if status == "" {
			status = "aborted"
		}
		return text + " was " + status + ": " + reason(string(s.aborted.Code), s.aborted.Message, "")
	case s.completed == nil:
		text += " is under way"
		if n := len(s.drifts); n > 0 {
			text += " and found " + number(n, "difference") + " so far"
		}
		return text
	}
	return text + " " + Describe(adapter.View{Data: s.completed})
}

// eventLine is the line of a story without calls: what it did, or else how it began.
func (s *studied) eventLine() string {
	if len(s.own) == 0 {
		return "nothing is known"
	}
	if len(s.parked) > 0 {
		v := s.parked[0]
		for _, first := range s.trace.Events {
			if first.Stream == v.Stream {
				return s.describe(first) + "; " + s.describe(v)
			}
		}
	}
	var changes []adapter.View
	for _, v := range s.own {
		if category(v.Stream) == adapter.CategoryUser {
			changes = append(changes, v)
		}
	}
	if len(changes) == 0 {
		text := s.describe(s.own[0])
		if more := len(s.own) - 1; more > 0 {
			text += "; and " + number(more, "more event")
		}
		return text
	}
	v := changes[0]
	brief := s.words
	brief.brief = true
	text := brief.describe(v)
	if ref, ok := v.Data.(adapter.UserPayload); ok {
		text = s.inRealm(text, ref.User())
	}
	text += by(v.Actor)
	if more := len(changes) - 1; more > 0 {
		text += "; and " + number(more, "more change")
	}
	return text
}

// inRealm puts the realm behind the user's name where the text begins with it.
func (s *studied) inRealm(text string, ref adapter.UserRef) string {
	if rest, ok := strings.CutPrefix(text, s.user(ref)+" "); ok && ref.Realm != "" {
		return s.user(ref) + " in " + ref.Realm + " " + rest
	}
	return text
}

// next collects what an operator does about the story.
func (s *studied) next() []string {
	var steps []string
	seen := map[string]bool{}
	add := func(step string) {
		if step != "" && !seen[step] && len(steps) < 5 {
			seen[step] = true
			steps = append(steps, step)
		}
	}
	for _, c := range s.trace.Calls {
		add(s.nextOf(c))
	}
	for _, v := range s.parked {
		add(nextOfParked(v.Stream))
	}
	if s.aborted != nil {
		add(nextOfRun(s.aborted.Code, s.aborted.Realm))
	}
	for _, d := range s.drifts {
		add(nextOfDrift(d.Realm, d.UserID, d.Situation))
	}
	if len(steps) == 0 && s.found() > 0 {
		add("Each of these differences was found before; `keytrail failures` lists them.")
	}
	return steps
}

func nextOfCall(c adapter.Call) string {
	switch c.Status {
	case adapter.CallSucceeded:
		return ""
	case adapter.CallRequested:
		return "It is still under way; ask again in a moment. If it stays so, see that `keytrail serve` is running."
	case adapter.CallUnknown:
		return "Do not repeat it blindly: it may have been done. Its echo settles it; until then compare with Keycloak: keytrail reconcile --realm " + word(c.Realm)
	}
	if c.Echo != nil {
		return "Keycloak says that it was done after all. Look at what the user is now: keytrail user show " + word(c.UserID) + " --realm " + word(c.Realm)
	}
	switch c.Code {
	case adapter.CodeAlreadyEnabled, adapter.CodeAlreadyDisabled:
		return "Nothing to do: the user is as wanted. Who made it so: keytrail user history " + word(c.UserID) + " --realm " + word(c.Realm)
	case adapter.CodeKeycloakConflict:
		return "Another user has that name or address. Find it with keytrail user list --realm " + word(c.Realm) + ", then repeat the command with another one."
	case adapter.CodeKeycloakInvalid, adapter.CodeInvalidRequest:
		return "Correct what Keycloak names, then repeat the command."
	case adapter.CodeKeycloakForbidden:
		return "keytrail's service account lacks a role (commands need manage-users). See which: keytrail keycloak check"
	case adapter.CodeKeycloakUnauthorized, adapter.CodeKeycloakNotConfigured:
		return "Keycloak does not accept keytrail's client or its secret. See why: keytrail keycloak check"
	case adapter.CodeKeycloakNotFound:
		return "Check the realm's name and KEYTRAIL_KEYCLOAK_URL: keytrail keycloak check"
	case adapter.CodeUserNotFound:
		return "Keycloak does not know the user. See what else is missing: keytrail reconcile --realm " + word(c.Realm)
	case adapter.CodeKeycloakUnavailable, adapter.CodeKeycloakUnreachable:
		return "Once Keycloak answers (keytrail keycloak check), repeat the command."
	case adapter.CodeUserDisabled:
		return "Enable the user first, then repeat the command: keytrail user enable " + word(c.UserID) + " --realm " + word(c.Realm)
	case adapter.CodeInterrupted:
		return "keytrail was stopped before it was done. Repeat the command."
	}
	if c.Code != adapter.CodeInternal && slices.Contains(adapter.Codes(), c.Code) {
		return sentence(c.Code.Explain().Next) + "."
	}
	return "Repeat the command once the cause is gone."
}

func nextOfParked(stream string) string {
	id := "ID"
	if s, ok := namedStream(stream); ok {
		id = s.AggregateID().String()
	}
	return "The delivery is kept, and later events of this user wait behind it. With the cause fixed, or a newer keytrail, try again: keytrail deliveries retry " + id
}

func nextOfRun(code adapter.Code, realm string) string {
	again := "keytrail reconcile --realm " + word(realm)
	switch code {
	case adapter.CodeListingEmpty, adapter.CodeListingIncomplete, adapter.CodeKeycloakForbidden, adapter.CodeKeycloakUnauthorized:
		return "See whether the service account may list users (it needs view-users): keytrail keycloak check. Then run it again: " + again
	case adapter.CodeKeycloakUnreachable, adapter.CodeKeycloakUnavailable:
		return "Once Keycloak answers (keytrail keycloak check), run it again: " + again
	case adapter.CodeProjectionBehind:
		return "See why the projection is behind: keytrail projections status. Then run it again: " + again
	case adapter.CodeRunInProgress:
		return "Another run is under way; wait for it to end."
	}
	return "Run it again: " + again
}

func nextOfDrift(realm, userID string, situation adapter.Situation) string {
	if situation == adapter.SituationUnexpectedLive {
		return "Nothing told of this user: see in Keycloak who created it, and whether the realm's events and webhook were switched off."
	}
	return "See who set what is believed: keytrail user history " + word(userID) + " --realm " + word(realm)
}

// word makes a name fit to be pasted into a shell.
func word(s string) string { return adapter.ShellWord(oneLine(s)) }
