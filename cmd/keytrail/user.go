package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/projections/users"
)

type userCommand struct {
	List    userList    `cmd:"" help:"List users as they are believed to be."`
	Show    userShow    `cmd:"" help:"Show one user, now or at a moment in the past."`
	History userHistory `cmd:"" help:"Every event of one user: who, when, what, why."`
	Create  userCreate  `cmd:"" help:"Create a user in Keycloak."`
	Update  userUpdate  `cmd:"" help:"Change profile fields of a user in Keycloak."`
	Enable  userEnable  `cmd:"" help:"Enable a user in Keycloak."`
	Disable userDisable `cmd:"" help:"Disable a user in Keycloak."`
	Delete  userDelete  `cmd:"" help:"Delete a user in Keycloak."`

	Role            userRole            `cmd:"" help:"Give and take realm and client roles."`
	Group           userGroup           `cmd:"" help:"Join and leave groups."`
	Organization    userOrganization    `cmd:"" help:"Join and leave organizations."`
	RequiredActions userRequiredActions `cmd:"" help:"Set what a user has to do at the next login."`
	ResetPassword   userResetPassword   `cmd:"" help:"Set a user's password."`
	SendVerifyEmail userSendVerifyEmail `cmd:"" help:"Make Keycloak send the user a link to verify the address."`
	Logout          userLogout          `cmd:"" help:"End all of a user's sessions."`
	Unlock          userUnlock          `cmd:"" help:"End a lock-out by brute-force detection."`
}

// target names a user.
type target struct {
	ID    string `arg:"" help:"Keycloak id or exact user name."`
	Realm string `help:"Realm; may be left out where exactly one is configured or knows the user."`
}

type userList struct {
	Realm    string `help:"Only this realm."`
	Username string `help:"Exact user name."`
	Email    string `help:"Exact e-mail address."`
	Enabled  *bool  `help:"Only enabled (or, with --no-enabled, disabled) users." negatable:""`
	Deleted  *bool  `help:"Only deleted (or, with --no-deleted, existing) users." negatable:""`
	Limit    int    `help:"The most users to list." default:"100"`
	Cursor   string `help:"Where the previous page ended."`
}

func (c *userList) Run(ctx context.Context, s *session) error {
	if err := checkLimit(c.Limit); err != nil {
		return err
	}
	f := users.Filter{Realm: c.Realm, Username: c.Username, Email: c.Email, Enabled: c.Enabled, Deleted: c.Deleted}
	return s.read(ctx, func(a *app.App) error {
		found, next, err := upTo(c.Limit, c.Cursor, func(limit int, cursor string) ([]adapter.User, string, error) {
			return a.Users.List(ctx, f, limit, cursor)
		})
		if err != nil {
			return err
		}
		if s.json {
			views := make([]adapter.UserView, 0, len(found))
			for _, u := range found {
				views = append(views, u.View())
			}
			return s.printJSON(listOf(views, next))
		}
		w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "REALM\tUSERNAME\tEMAIL\tSTATE\tID")
		for _, u := range found {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", u.Realm, u.Username, deref(u.Email), stateOf(u), u.ID)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if next != "" {
			fmt.Fprintf(s.stdout, "More: --cursor %s\n", next)
		}
		return nil
	})
}

func stateOf(u adapter.User) string {
	switch {
	case u.Deleted:
		return "deleted"
	case u.Enabled:
		return "enabled"
	case !u.Known(adapter.FieldEnabled):
		return "not known"
	default:
		return "disabled"
	}
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

type userShow struct {
	target
	At      string `help:"The state at that moment (RFC 3339): what occurred until then." placeholder:"TIME"`
	KnownAt string `name:"known-at" help:"Not built yet." placeholder:"TIME" hidden:""`
}

func (c *userShow) Run(ctx context.Context, s *session) error {
	if c.KnownAt != "" {
		return adapter.Errorf(adapter.CodeNotBuilt, "--known-at is not built yet").WithTry("--at, which folds what occurred until then")
	}
	at, err := moment(c.At)
	if err != nil {
		return err
	}
	return s.read(ctx, func(a *app.App) error {
		ref, err := lookupUser(ctx, a, c.target)
		if err != nil {
			return err
		}
		u, err := a.UserAt(ctx, ref, at)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(u.View())
		}
		return trace.WriteUser(s.stdout, u, s.textOptions())
	})
}

func moment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, &usageError{fmt.Errorf("%q is not a time\nTry: RFC 3339, such as 2026-11-23T08:00:00Z", text)}
	}
	return at, nil
}

type userHistory struct{ target }

func (c *userHistory) Run(ctx context.Context, s *session) error {
	return s.read(ctx, func(a *app.App) error {
		ref, err := lookupUser(ctx, a, c.target)
		if err != nil {
			return err
		}
		entries, err := a.UserHistory(ctx, ref)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(listOf(entries, ""))
		}
		return trace.WriteHistory(s.stdout, entries, s.textOptions())
	})
}

// because says who changes something and why.
type because struct {
	Reason string `help:"Why; it is recorded with the change."`
	Actor  string `help:"Who, where it is not the operating system's user."`
}

type profileFlags struct {
	Email         *string           `help:"E-mail address; an empty one clears it."`
	FirstName     *string           `help:"First name; an empty one clears it."`
	LastName      *string           `help:"Last name; an empty one clears it."`
	EmailVerified *bool             `help:"Whether the address counts as verified." negatable:""`
	Attribute     map[string]string `help:"Attribute as NAME=VALUE, repeatable; an empty value removes it." placeholder:"NAME=VALUE"`
}

func (f profileFlags) profile() adapter.Profile {
	var p adapter.Profile
	for _, o := range []struct {
		flag *string
		into *adapter.Optional[string]
	}{{f.Email, &p.Email}, {f.FirstName, &p.FirstName}, {f.LastName, &p.LastName}} {
		switch {
		case o.flag == nil:
		case *o.flag == "":
			*o.into = adapter.Clear[string]()
		default:
			*o.into = adapter.Set(*o.flag)
		}
	}
	if f.EmailVerified != nil {
		p.EmailVerified = adapter.Set(*f.EmailVerified)
	}
	if len(f.Attribute) > 0 {
		attributes := make(map[string][]string, len(f.Attribute))
		for name, value := range f.Attribute {
			attributes[name] = nil
			if value != "" {
				attributes[name] = []string{value}
			}
		}
		p.Attributes = adapter.Set(attributes)
	}
	return p
}

type userCreate struct {
	Username     string `arg:"" help:"User name."`
	Realm        string `help:"Realm; may be left out where exactly one is configured."`
	Enabled      bool   `help:"Create the user enabled (--no-enabled: disabled)." default:"true" negatable:""`
	PasswordFile string `help:"File that holds the initial password; - reads standard input." placeholder:"FILE"`
	givenFlags
	profileFlags
	because
}

func (c *userCreate) Run(ctx context.Context, s *session) error {
	u := outbound.NewUser{Profile: c.profile()}
	if err := c.give(&u); err != nil {
		return err
	}
	u.Username = adapter.Set(c.Username)
	u.Enabled = adapter.Set(c.Enabled)
	if c.PasswordFile != "" {
		password, err := s.readSecret(c.PasswordFile)
		if err != nil {
			return err
		}
		u.Password = password
	}
	return s.change(ctx, c.Realm, "", c.because, "created", func(ctx context.Context, a *app.App, ref target) (outbound.Outcome, error) {
		return a.Commands.CreateUser(ctx, ref.Realm, u)
	})
}

func (s *session) readSecret(name string) (string, error) {
	var b []byte
	var err error
	if name == "-" {
		b, err = io.ReadAll(io.LimitReader(s.stdin, 1<<16))
	} else {
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return "", &usageError{fmt.Errorf("reading the password: %w", err)}
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

type userUpdate struct {
	target
	Username *string `name:"username" help:"New user name."`
	profileFlags
	because
}

func (c *userUpdate) Run(ctx context.Context, s *session) error {
	set := c.profile()
	if c.Username != nil {
		set.Username = adapter.Set(*c.Username)
	}
	if len(set.Fields()) == 0 {
		return &usageError{errors.New("there is nothing to change\nTry: --email, --first-name, --last-name, --username or --attribute")}
	}
	return s.change(ctx, c.Realm, c.ID, c.because, "updated", func(ctx context.Context, a *app.App, ref target) (outbound.Outcome, error) {
		return a.Commands.UpdateUser(ctx, ref.Realm, a.CommandRef(ctx, ref.Realm, ref.ID), set)
	})
}

type userEnable struct {
	target
	because
}

func (c *userEnable) Run(ctx context.Context, s *session) error {
	return s.change(ctx, c.Realm, c.ID, c.because, "enabled", func(ctx context.Context, a *app.App, ref target) (outbound.Outcome, error) {
		return a.Commands.EnableUser(ctx, ref.Realm, a.CommandRef(ctx, ref.Realm, ref.ID))
	})
}

type userDisable struct {
	target
	because
}

func (c *userDisable) Run(ctx context.Context, s *session) error {
	return s.change(ctx, c.Realm, c.ID, c.because, "disabled", func(ctx context.Context, a *app.App, ref target) (outbound.Outcome, error) {
		return a.Commands.DisableUser(ctx, ref.Realm, a.CommandRef(ctx, ref.Realm, ref.ID))
	})
}

type userDelete struct {
	target
	because
}

func (c *userDelete) Run(ctx context.Context, s *session) error {
	return s.change(ctx, c.Realm, c.ID, c.because, "deleted", func(ctx context.Context, a *app.App, ref target) (outbound.Outcome, error) {
		return a.Commands.DeleteUser(ctx, ref.Realm, a.CommandRef(ctx, ref.Realm, ref.ID))
	})
}

// change runs a command on a user and says how it ended.
func (s *session) change(ctx context.Context, realmName, id string, why because, done string, command func(context.Context, *app.App, target) (outbound.Outcome, error)) (err error) {
	a, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	ref := target{ID: id}
	if ref.Realm, err = realm(a, realmName); err != nil {
		return err
	}
	// The call goes on when the terminal goes away in the middle of it: its outcome is
	// worth more than the moment.
	out, err := command(context.WithoutCancel(asOperator(ctx, why.Actor, why.Reason)), a, ref)
	if err != nil {
		if !s.json && out.CallID != uuid.Nil {
			fmt.Fprintf(s.stderr, "Call %s %s.\n", out.CallID, out.Status)
			s.printSteps(out)
		}
		if len(out.Steps) > 0 {
			return &stepsError{err: err, outcome: out}
		}
		return err
	}
	if s.json {
		return s.printJSON(out)
	}
	_, err = fmt.Fprintf(s.stdout, "User %s %s in realm %s.\nTrace: keytrail trace %s\n", out.UserID, done, out.Realm, out.CorrelationID)
	return err
}
