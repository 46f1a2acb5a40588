package main

import (
	"context"
	"errors"

	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/internal/app"
)

type userResetPassword struct {
	target
	PasswordFile string `help:"File that holds the new password; - reads standard input." required:"" placeholder:"FILE"`
	Temporary    bool   `help:"The user has to change it at the next login."`
	because
}

func (c *userResetPassword) Run(ctx context.Context, s *session) error {
	password, err := s.readSecret(c.PasswordFile)
	if err != nil {
		return err
	}
	if password == "" {
		return &usageError{errors.New("the new password is empty")}
	}
	return s.changeUser(ctx, c.target, c.because, "has a new password", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.ResetPassword(ctx, realm, ref, password, c.Temporary)
	})
}

type userRequiredActions struct {
	ID      string   `arg:"" help:"Keycloak id or exact user name."`
	Actions []string `arg:"" optional:"" name:"action" help:"What the user has to do at the next login, such as UPDATE_PASSWORD; the list replaces the one that there is."`
	None    bool     `help:"Clear the list."`
	Realm   string   `help:"Realm; may be left out where exactly one is configured or knows the user."`
	because
}

func (c *userRequiredActions) Run(ctx context.Context, s *session) error {
	if c.None == (len(c.Actions) > 0) {
		return &usageError{errors.New("name the required actions, or none of them with --none\nTry: keytrail user required-actions bob UPDATE_PASSWORD VERIFY_EMAIL")}
	}
	return s.changeUser(ctx, target{ID: c.ID, Realm: c.Realm}, c.because, "has new required actions", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.SetRequiredActions(ctx, realm, ref, c.Actions)
	})
}

type userSendVerifyEmail struct {
	target
	because
}

func (c *userSendVerifyEmail) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "is sent an e-mail to verify the address", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.SendVerifyEmail(ctx, realm, ref)
	})
}

type userLogout struct {
	target
	because
}

func (c *userLogout) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "logged out everywhere", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.LogoutUser(ctx, realm, ref)
	})
}

type userUnlock struct {
	target
	because
}

func (c *userUnlock) Run(ctx context.Context, s *session) error {
	return s.changeUser(ctx, c.target, c.because, "unlocked", func(ctx context.Context, a *app.App, realm string, ref outbound.UserRef) (outbound.Outcome, error) {
		return a.Commands.UnlockUser(ctx, realm, ref)
	})
}
