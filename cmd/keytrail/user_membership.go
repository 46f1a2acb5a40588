package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/internal/app"
)

type userRole struct {
	Add    userRoleAdd    `cmd:"" help:"Give a user a role directly."`
	Remove userRoleRemove `cmd:"" help:"Take a role from a user."`
}

// roleArgs name a user and a role.
type roleArgs struct {
	target
	Name   string `arg:"" help:"Name of the role."`
	Client string `help:"Client id of the client whose role it is; a realm role without it." placeholder:"CLIENT"`
	because
}

func (c roleArgs) role() outbound.RoleRef { return outbound.RoleRef{Name: c.Name, Client: c.Client} }

type userRoleAdd struct{ roleArgs }

func (c *userRoleAdd) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "was given the role "+c.Name, func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.AddRole(ctx, realm, ref, c.role())
	})
}

type userRoleRemove struct{ roleArgs }

func (c *userRoleRemove) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "lost the role "+c.Name, func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.RemoveRole(ctx, realm, ref, c.role())
	})
}

type userGroup struct {
	Add    userGroupAdd    `cmd:"" help:"Make a user a member of a group."`
	Remove userGroupRemove `cmd:"" help:"End a user's membership of a group."`
}

type groupArgs struct {
	target
	Group string `arg:"" help:"Id of the group, or its full path, such as /staff/night."`
	because
}

type userGroupAdd struct{ groupArgs }

func (c *userGroupAdd) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "joined the group", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.JoinGroup(ctx, realm, ref, c.Group)
	})
}

type userGroupRemove struct{ groupArgs }

func (c *userGroupRemove) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "left the group", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.LeaveGroup(ctx, realm, ref, c.Group)
	})
}

type userOrganization struct {
	Add    userOrganizationAdd    `cmd:"" help:"Make a user a member of an organization."`
	Remove userOrganizationRemove `cmd:"" help:"End a user's membership of an organization."`
}

type organizationArgs struct {
	target
	Organization string `arg:"" help:"Id of the organization."`
	because
}

type userOrganizationAdd struct{ organizationArgs }

func (c *userOrganizationAdd) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "joined the organization", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.JoinOrganization(ctx, realm, ref, c.Organization)
	})
}

type userOrganizationRemove struct{ organizationArgs }

func (c *userOrganizationRemove) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "left the organization", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.LeaveOrganization(ctx, realm, ref, c.Organization)
	})
}

// changeUser is change on a user that exists.
func (s *session) changeUser(ctx context.Context, on target, why because, done string, do func(context.Context, *app.App, string, outbound.UserRef) (outbound.Outcome, error)) error {
	return s.change(ctx, on.Realm, on.ID, why, done, func(ctx context.Context, a *app.App, ref target) (outbound.Outcome, error) {
		return do(ctx, a, ref.Realm, a.CommandRef(ctx, ref.Realm, ref.ID))
	})
}

// givenFlags are what a new user is given beside the profile.
type givenFlags struct {
	Group        []string `help:"Full path of a group to join, repeatable." placeholder:"PATH"`
	Role         []string `help:"Realm role to give, repeatable." placeholder:"NAME"`
	ClientRole   []string `help:"Client role to give, repeatable." placeholder:"CLIENT=ROLE"`
	Organization string   `help:"Id of the organization to join." placeholder:"ID"`
}

func (f givenFlags) give(u *outbound.NewUser) error {
	u.Groups, u.Roles, u.Organization = f.Group, f.Role, f.Organization
	for _, one := range f.ClientRole {
		// A client id may be a URL, and hold a "=" of its own.
		i := strings.LastIndex(one, "=")
		if i <= 0 || i == len(one)-1 {
			return &usageError{fmt.Errorf("--client-role %q is not CLIENT=ROLE", one)}
		}
		if u.ClientRoles == nil {
			u.ClientRoles = make(map[string][]string)
		}
		u.ClientRoles[one[:i]] = append(u.ClientRoles[one[:i]], one[i+1:])
	}
	return nil
}

// stepsError is the failure of a command of several calls, with what was done.
type stepsError struct {
	err     error
	outcome outbound.Outcome
}

func (e *stepsError) Error() string { return e.err.Error() }
func (e *stepsError) Unwrap() error { return e.err }

// printSteps says for people how the calls of one command ended.
func (s *session) printSteps(out outbound.Outcome) {
	for _, step := range out.Steps {
		text := fmt.Sprintf("%s: %s", step.Name, strings.ReplaceAll(string(step.Status), "_", " "))
		if step.Status != adapter.CallSucceeded && step.Code != "" {
			text += " (" + string(step.Code) + ")"
		}
		fmt.Fprintln(s.stderr, text)
	}
}
