package outbound

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// NewUser is a user to be created. Keycloak takes the profile, the password and the
// groups in one call; roles and the organization are further calls of the same
// business action.
type NewUser struct {
	adapter.Profile
	// Password is set as it is and never recorded.
	Password string
	// Groups are full paths.
	Groups []string
	// Roles are names of realm roles, ClientRoles those of clients by client id.
	Roles       []string
	ClientRoles map[string][]string
	// Organization is an id.
	Organization string
}

// StepNotTried is the status of a step that was not begun, because one before it was
// not done.
const StepNotTried adapter.CallStatus = "not_tried"

// Step is one further call of a business action of several.
type Step struct {
	// Name says what it is for people, such as "user.role.add auditor".
	Name string `json:"name"`
	// CallID is left out where the step was not tried.
	CallID uuid.UUID          `json:"call_id,omitzero"`
	Status adapter.CallStatus `json:"status"`
	Code   adapter.Code       `json:"code,omitempty"`
	Detail string             `json:"detail,omitempty"`
}

// done reports whether what the step was for holds now.
func (s Step) done() bool {
	return s.Status == adapter.CallSucceeded ||
		s.Code == adapter.CodeAlreadyHasRole || s.Code == adapter.CodeAlreadyMember || s.Code == adapter.CodeAlreadyEnabled
}

// step is a Step to come.
type step struct {
	adapter.PlanStep
	run func(ctx context.Context, userID string, callID uuid.UUID) (Outcome, error)
}

// CreateUser creates a user, in one business action of one call or several.
//
// Groups, roles and the organization are looked up before anything is written, so that
// one that does not exist leaves nothing behind. Where a later call fails, those after it
// are not tried and what was done stays done: the error is partially_done, and
// Outcome.Steps says for each call how it ended.
func (c *Commands) CreateUser(ctx context.Context, realm string, u NewUser) (Outcome, error) {
	name, _ := u.Username.Get()
	body := bodyOf(u.Profile)
	for _, path := range u.Groups {
		body.Groups = append(body.Groups, groupPath("/"+strings.TrimPrefix(path, "/")))
	}
	steps := c.stepsOf(realm, u)
	in := intent{
		command: "user.create", realm: realm, ref: UserRef{Username: name},
		method: http.MethodPost, template: usersTemplate, secret: u.Password,
		stamped: func(stamp string) any {
			body.Self = stamp
			return body
		},
	}
	for _, s := range steps {
		in.plan = append(in.plan, s.String())
	}
	rec, err := c.begin(ctx, in)
	if err != nil {
		return notBegun(err)
	}
	if err := c.lookUp(ctx, rec, realm, body.Groups, u); err != nil {
		out, err := c.stopBefore(ctx, rec, "", err)
		out.Steps = notTried(in.plan)
		return out, err
	}
	sent := body
	sent.Self = rec.stamp()
	if u.Password != "" {
		sent.Credentials = []admin.Credential{{Type: "password", Value: u.Password}}
	}
	id, err := c.Keycloak.CreateUser(withRecording(ctx, rec), realm, sent)
	set := u.Profile
	if !set.Enabled.Present() {
		set.Enabled = adapter.Set(false)
	}
	out, err := c.finish(ctx, rec, id, hide(err, u.Password), &adapter.UserApiCreated{
		UserChange: adapter.UserChange{Set: set, Inferred: set.Droppable(), Via: viaCommand}, Groups: body.Groups,
	})
	if err != nil || len(steps) == 0 {
		out.Steps = notTried(in.plan)
		return out, err
	}
	if out.UserID == "" {
		// The answer told that the user was created, and not which one.
		out.Steps = notTried(in.plan)
		return out, partial(userCreated, out)
	}
	out.Steps = c.runSteps(c.within(ctx, rec), rec, out.UserID, steps)
	return out, partial(userCreated, out)
}

func notTried(plan []string) []Step {
	var steps []Step
	for _, name := range plan {
		steps = append(steps, Step{Name: name, Status: StepNotTried})
	}
	return steps
}

// stepsOf are the calls that follow the creation itself.
func (c *Commands) stepsOf(realm string, u NewUser) []step {
	var steps []step
	if len(u.Roles) > 0 {
		steps = append(steps, step{
			PlanStep: adapter.PlanStep{Command: commandRoleAdd, Names: u.Roles},
			run: func(ctx context.Context, id string, callID uuid.UUID) (Outcome, error) {
				return c.addRoles(ctx, callID, realm, UserRef{ID: id}, "", u.Roles)
			},
		})
	}
	for _, client := range slices.Sorted(maps.Keys(u.ClientRoles)) {
		names := u.ClientRoles[client]
		if len(names) == 0 {
			continue
		}
		steps = append(steps, step{
			PlanStep: adapter.PlanStep{Command: commandClientRoleAdd, Names: names, Client: client},
			run: func(ctx context.Context, id string, callID uuid.UUID) (Outcome, error) {
				return c.addRoles(ctx, callID, realm, UserRef{ID: id}, client, names)
			},
		})
	}
	if u.Organization != "" {
		steps = append(steps, step{
			PlanStep: adapter.PlanStep{Command: commandOrganizationAdd, Names: []string{u.Organization}},
			run: func(ctx context.Context, id string, callID uuid.UUID) (Outcome, error) {
				return c.joinOrganization(ctx, callID, realm, UserRef{ID: id}, u.Organization)
			},
		})
	}
	return steps
}

// lookUp sees that what the new user is to be given exists: Keycloak answers a group that
// does not exist with a 500, which tells nothing.
func (c *Commands) lookUp(ctx context.Context, rec *recording, realm string, groups []string, u NewUser) error {
	for _, path := range groups {
		if _, err := c.findGroup(ctx, rec, realm, path); err != nil {
			return err
		}
	}
	for _, name := range u.Roles {
		if _, err := c.readRole(ctx, rec, realm, client{}, name); err != nil {
			return err
		}
	}
	for _, clientID := range slices.Sorted(maps.Keys(u.ClientRoles)) {
		of, err := c.readClient(ctx, rec, realm, clientID)
		if err != nil {
			return err
		}
		for _, name := range u.ClientRoles[clientID] {
			if _, err := c.readRole(ctx, rec, realm, of, name); err != nil {
				return err
			}
		}
	}
	if u.Organization == "" {
		return nil
	}
	_, err := c.readOrganization(ctx, rec, realm, u.Organization)
	return err
}

// within is the context of the steps: the same story, caused by the first call's end.
func (c *Commands) within(ctx context.Context, rec *recording) context.Context {
	who, _ := adapter.CallFrom(ctx)
	who.CorrelationID, who.CausationID = rec.meta.CorrelationID, rec.last
	ctx = context.WithValue(ctx, idempotencyKey{}, nil)
	return adapter.WithCall(ctx, who)
}

func (c *Commands) runSteps(ctx context.Context, rec *recording, userID string, steps []step) []Step {
	var done []Step
	for n, s := range steps {
		if n > 0 && !done[n-1].done() {
			done = append(done, Step{Name: s.String(), Status: StepNotTried})
			continue
		}
		out, err := s.run(ctx, userID, adapter.StepCallID(rec.callID, rec.started, n+1))
		result := Step{Name: s.String(), CallID: out.CallID, Status: out.Status, Code: adapter.CodeOf(err)}
		if err != nil {
			result.Detail = err.Error()
			if out.CallID == uuid.Nil {
				result.Status = StepNotTried
			}
		}
		done = append(done, result)
	}
	return done
}

// What the first call of an action of several has done.
const (
	userCreated     = "user %s was created"
	failuresCleared = "the failed logins of user %s were cleared"
)

// partial says what of a business action is not done, nil where all is.
func partial(lead string, out Outcome) error {
	var missing, commands []string
	e := &adapter.Error{Code: adapter.CodePartiallyDone, CorrelationID: out.CorrelationID, CallID: out.CallID}
	for _, s := range out.Steps {
		if s.done() {
			continue
		}
		text := s.Name + " was not tried"
		if s.Status != StepNotTried {
			text = fmt.Sprintf("%s is %s: %s", s.Name, s.Status, s.Detail)
		}
		if len(missing) == 0 && s.CallID != uuid.Nil {
			e.CallID = s.CallID
		}
		missing = append(missing, text)
		if out.UserID != "" {
			commands = append(commands, adapter.ParsePlanStep(s.Name).ByHand(out.UserID)...)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	e.Detail = fmt.Sprintf(lead+", but not all that was asked for is done: %s", out.UserID, strings.Join(missing, "; "))
	e.Try = strings.Join(commands, "; ")
	if e.Try == "" {
		e.Try = adapter.CodePartiallyDone.Explain().Next
	}
	return e
}
