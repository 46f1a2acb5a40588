package trace

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// plannedCall is a step of a business action with the call that it became, nil where it
// was never begun.
type plannedCall struct {
	name string
	call *adapter.Call
}

// done reports whether what the step was for holds.
func (p plannedCall) done() bool {
	if p.call == nil {
		return false
	}
	switch p.call.Code {
	case adapter.CodeAlreadyHasRole, adapter.CodeAlreadyMember, adapter.CodeAlreadyEnabled:
		return true
	}
	return p.call.Status == adapter.CallSucceeded || p.call.Echo != nil
}

// planOf finds for each step of a call's plan its call among the later ones of the story.
func planOf(c adapter.Call, later []adapter.Call) []plannedCall {
	var steps []plannedCall
	taken := map[uuid.UUID]bool{}
	for _, name := range c.Plan {
		step := plannedCall{name: name}
		command := adapter.ParsePlanStep(name).Command
		i := slices.IndexFunc(later, func(l adapter.Call) bool {
			return l.CorrelationID == c.CorrelationID && l.Command == command && !taken[l.CallID]
		})
		if i >= 0 {
			step.call = &later[i]
			taken[later[i].CallID] = true
		}
		steps = append(steps, step)
	}
	return steps
}

// notBegun are the steps of a call's plan that no later call of the story is.
func notBegun(c adapter.Call, later []adapter.Call) []string {
	var missing []string
	for _, step := range planOf(c, later) {
		if step.call == nil {
			missing = append(missing, step.name)
		}
	}
	return missing
}

// leftOver are the commands that do what is missing of the business action of which a
// call is a step; none where it is no step. Calls are those of its story, the first
// requested first.
func leftOver(c adapter.Call, story []adapter.Call) []string {
	for i, first := range story {
		if first.Status != adapter.CallSucceeded || first.UserID == "" {
			continue
		}
		steps := planOf(first, story[i+1:])
		if !slices.ContainsFunc(steps, func(s plannedCall) bool { return s.call != nil && s.call.CallID == c.CallID }) {
			continue
		}
		var commands []string
		for _, step := range steps {
			if !step.done() {
				commands = append(commands, adapter.ParsePlanStep(step.name).ByHand(first.UserID)...)
			}
		}
		return commands
	}
	return nil
}

// nextOf says what to do about a call of the story.
func (s *studied) nextOf(c adapter.Call) string {
	if settled := s.settled(c); settled != nil {
		return nextOfSettled(c, *settled)
	}
	return nextOfStep(c, leftOver(c, s.trace.Calls))
}

// settled is the later fact that settles a call, nil for none.
func (s *studied) settled(c adapter.Call) *Settlement {
	i := slices.IndexFunc(s.trace.Settled, func(o Settlement) bool { return o.CallID == c.CallID })
	if i < 0 {
		return nil
	}
	return &s.trace.Settled[i]
}

// nextOfStep says what to do about a call that is a step of a business action of which
// the commands do what is missing. To repeat the whole action would be refused, since
// its beginning stands.
func nextOfStep(c adapter.Call, commands []string) string {
	if len(commands) == 0 || !c.Status.Open() && c.Status != adapter.CallFailed && c.Status != adapter.CallSkipped {
		return nextOfCall(c)
	}
	cause := ""
	switch {
	case c.Status == adapter.CallRequested:
		return nextOfCall(c)
	case c.Status == adapter.CallUnknown:
		cause = "It may have been done: a command that finds it done says so and changes nothing"
	case c.Code == adapter.CodeKeycloakInvalid, c.Code == adapter.CodeInvalidRequest:
		cause = "Correct what Keycloak names"
	case c.Code == adapter.CodeKeycloakUnavailable, c.Code == adapter.CodeKeycloakUnreachable:
		cause = "Wait until Keycloak answers (keytrail keycloak check)"
	case c.Code == adapter.CodeInterrupted:
		cause = "keytrail was stopped before it was done"
	case slices.Contains(adapter.Codes(), c.Code) && c.Code != adapter.CodeInternal:
		cause = strings.TrimSuffix(nextOfCall(c), ".")
	}
	if cause != "" {
		cause += ". "
	}
	return cause + "What came before it stands: do not repeat the whole action, give what is missing by itself: " + strings.Join(commands, "; ")
}
