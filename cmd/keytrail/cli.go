package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os/user"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/internal/telemetry"
	"github.com/keytrail/keytrail/projections"
)

// Exit statuses of the outside contract.
const (
	exitOK          = 0
	exitFound       = 1 // drift or failure found, or a command refused
	exitUsage       = 2 // usage or configuration
	exitUnreachable = 3 // unreachable or incomplete
)

// process is everything that a command has of the outside world.
type process struct {
	args           []string
	env            []string
	stdin          io.Reader
	stdout, stderr io.Writer
	// hurry is closed when somebody who asked to stop asks again.
	hurry <-chan struct{}
}

// commands is the command line. kong parses it and does nothing more: configuration
// is read by package config.
type commands struct {
	JSON   bool   `help:"Print the API's JSON instead of text."`
	Config string `help:"YAML configuration file (KEYTRAIL_CONFIG)." placeholder:"FILE"`

	Serve       serveCommand       `cmd:"" help:"Run everything in one process: webhooks, poller, projections, reconciler, API."`
	Demo        demoCommand        `cmd:"" help:"Tell a complete story on an embedded store and a simulated Keycloak, then serve."`
	Migrate     migrateCommand     `cmd:"" help:"Bring the store's schema up to date."`
	Backup      backupCommand      `cmd:"" help:"Write a consistent, verified copy of the store into one file, while running."`
	Restore     restoreCommand     `cmd:"" help:"Fill an empty store from a backup, of SQLite or PostgreSQL."`
	Verify      verifyCommand      `cmd:"" help:"Look for every fault of the store, or of a backup. Exit 0 sound, 1 faults."`
	User        userCommand        `cmd:"" help:"Users: what is believed of them, their history, and changes to them."`
	Audit       auditCommand       `cmd:"" help:"The audit trail: who did what, when, why and through what."`
	Analytics   analyticsCommand   `cmd:"" help:"Counts over time: events, calls, errors, latencies, drift."`
	Trace       traceCommand       `cmd:"" help:"Show one story: by correlation, event, call, delivery, Keycloak event, run or user id."`
	Explain     explainCommand     `cmd:"" help:"Say in words where a story failed, why, what holds now and what to do: by the same ids."`
	Failures    failuresCommand    `cmd:"" help:"Show what needs attention."`
	Reconcile   reconcileCommand   `cmd:"" help:"Compare what is believed with the live Keycloak now. Exit 0 in sync, 1 drift, 3 incomplete."`
	Baseline    baselineCommand    `cmd:"" help:"Adopt every live user as the starting point. Resumable."`
	Events      eventsCommand      `cmd:"" help:"The log, as JSON lines."`
	Deliveries  deliveriesCommand  `cmd:"" help:"Deliveries that could not be interpreted."`
	Projections projectionsCommand `cmd:"" help:"Status of the projections, and rebuilding one."`
	Keycloak    keycloakCommands   `cmd:"" help:"Whether Keycloak is set up as keytrail needs it."`
	Conf        configCommand      `cmd:"" name:"config" help:"Check or print the configuration."`
	Bench       benchCommand       `cmd:"" help:"Measure the event store against what its database can do."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// notBuilt is a part of the contract that is still to come.
type notBuilt struct {
	Args []string `arg:"" optional:"" passthrough:"all" hidden:""`
}

func (*notBuilt) Run(s *session) error {
	name := strings.TrimSuffix(s.command, " <args>")
	return adapter.Errorf(adapter.CodeNotBuilt, "keytrail %s is not built yet", name).WithTry("keytrail --help")
}

// usageError is a fault of whoever called: exit 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exitError ends a command that has said all there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// session is one run of one command.
type session struct {
	process
	json    bool
	command string
	input   config.Input
	clock   func() time.Time
}

// execute runs the command line and returns the exit status.
func execute(ctx context.Context, p process) int {
	var cli commands
	settings := newSettingFlags()
	ended := exitError(-1)
	parser, err := kong.New(&cli,
		kong.Name("keytrail"),
		kong.Description("The event-sourced integration adapter for Keycloak: who changed this user, when, through what, and why did the call fail?"),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(code int) { ended = exitError(code); panic(ended) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.ExplicitGroups([]kong.Group{{Key: "settings", Title: "Settings (file and environment have them too)"}}),
		settings.plugin(),
	)
	if err != nil {
		fmt.Fprintf(p.stderr, "Error: %v\n", err)
		return exitUsage
	}
	kctx, status, err := parse(parser, p.args)
	if err != nil {
		s := &session{process: p, json: slices.Contains(p.args, "--json")}
		return s.report(&usageError{fmt.Errorf("%w\nTry: keytrail --help", err)})
	}
	if kctx == nil {
		return status
	}
	s := &session{
		process: p, json: cli.JSON, command: strings.TrimSpace(kctx.Command()), clock: time.Now,
		input: config.Input{ConfigFile: cli.Config, Env: p.env, Flags: settings.given()},
	}
	return s.report(kctx.Run(s))
}

// parse reads the arguments. kong ends the program after --help by its Exit, which is
// a panic here: caught at once, it is a plain return of the status without a context.
func parse(parser *kong.Kong, args []string) (kctx *kong.Context, status int, err error) {
	defer func() {
		if r := recover(); r != nil {
			code, ok := r.(exitError)
			if !ok {
				panic(r)
			}
			kctx, status, err = nil, int(code), nil
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err = parser.Parse(args)
	return kctx, 0, err
}

// report prints an error, for people or as the API's problem on standard output, where
// a program that asked for JSON reads, and turns it into the exit status.
func (s *session) report(err error) int {
	if err == nil {
		return exitOK
	}
	var code exitError
	if errors.As(err, &code) {
		return int(code)
	}
	if s.json {
		_ = s.printJSON(problemOf(err)) // where standard output is gone, there is nobody left to tell
		return exitStatus(err)
	}
	e := inCatalogue(err)
	fmt.Fprintf(s.stderr, "Error: %s\n", e.Detail)
	if e.Try != "" {
		fmt.Fprintf(s.stderr, "Try: %s\n", e.Try)
	}
	return exitStatus(err)
}

// config reads the configuration.
func (s *session) config() (*config.Config, error) {
	cfg, err := config.Load(s.input)
	if err != nil {
		return nil, &usageError{err}
	}
	return cfg, nil
}

func (s *session) logger(cfg *config.Config) (*slog.Logger, error) {
	return telemetry.NewLogger(s.stderr, cfg.Log.Format, cfg.Log.Level, callAttrs)
}

// callAttrs are the ids that the log says with every line of one story.
func callAttrs(ctx context.Context) []slog.Attr {
	c, ok := adapter.CallFrom(ctx)
	if !ok {
		return nil
	}
	return []slog.Attr{slog.String("correlation_id", c.CorrelationID.String())}
}

// open opens keytrail on the configured store for a command that works beside a
// running serve or without one. Warnings go to standard error; what serve would log
// as information does not.
func (s *session) open(ctx context.Context) (*app.App, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	logger, err := telemetry.NewLogger(s.stderr, cfg.Log.Format, max(cfg.Log.Level, slog.LevelWarn), callAttrs)
	if err != nil {
		return nil, err
	}
	logger = slog.New(withoutRepeats{logger.Handler()})
	a, err := app.Open(ctx, cfg, app.Options{Logger: logger, Clock: s.clock})
	return a, storeError(cfg, cfg.Store.URL, err)
}

// read opens keytrail, folds to the head of the log, and calls f. Where folding takes
// too long, it says how far behind the answer is, and answers.
func (s *session) read(ctx context.Context, f func(a *app.App) error) (err error) {
	a, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	var behind *projections.BehindError
	switch err := a.CatchUp(ctx); {
	case errors.As(err, &behind):
		fmt.Fprintf(s.stderr, "Note: %v\n", behind)
	case err != nil:
		return err
	}
	return f(a)
}

// realm is the realm that a command is about: the one named, or the only one
// configured.
func realm(a *app.App, named string) (string, error) {
	realms := a.Config.Keycloak.Realms
	switch {
	case named != "":
		return named, nil
	case len(realms) == 1:
		return realms[0], nil
	case len(realms) == 0:
		return "", &usageError{errors.New("no realm is named or configured\nTry: --realm NAME, or set KEYTRAIL_KEYCLOAK_REALMS")}
	default:
		return "", &usageError{fmt.Errorf("several realms are configured\nTry: --realm with one of %s", strings.Join(realms, ", "))}
	}
}

// asOperator is the context of a command that a person gives on the command line.
func asOperator(ctx context.Context, actor, reason string) context.Context {
	if actor == "" {
		actor = "unknown"
		if u, err := user.Current(); err == nil {
			actor = u.Username
		}
	}
	return adapter.WithCall(ctx, adapter.CallContext{
		Actor: adapter.Actor{Type: adapter.ActorCLI, ID: actor, Username: actor}, Reason: reason, Source: "cli",
	})
}

// settingFlags makes a flag of every setting, from the one table that config keeps.
type settingFlags struct {
	names  []string
	values reflect.Value
}

func newSettingFlags() *settingFlags {
	var fields []reflect.StructField
	f := &settingFlags{}
	for i, s := range config.Settings() {
		tag := fmt.Sprintf(`name:%q help:%q group:"settings" placeholder:%q`, s.Flag, s.Description, placeholder(s))
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("F%d", i), Type: reflect.TypeFor[*string](), Tag: reflect.StructTag(tag)})
		f.names = append(f.names, s.Flag)
	}
	f.values = reflect.New(reflect.StructOf(fields))
	return f
}

func placeholder(s config.Setting) string {
	if s.Default != "" && !s.Secret {
		return s.Default
	}
	return strings.ToUpper(string(s.Kind))
}

func (f *settingFlags) plugin() kong.Option {
	return kong.Embed(f.values.Interface())
}

// given are the flags that were given, by name.
func (f *settingFlags) given() map[string]string {
	flags := make(map[string]string)
	for i, name := range f.names {
		if v, ok := f.values.Elem().Field(i).Interface().(*string); ok && v != nil {
			flags[name] = *v
		}
	}
	return maps.Clone(flags)
}
