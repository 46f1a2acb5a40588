package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/bench"
)

type benchCommand struct {
	Name   string `arg:"" help:"append, replay, subscribe or rebuild."`
	Store  string `help:"sqlite:PATH or postgres://…: measure on that database, in a file beside PATH or a schema of its own. Without it: a new SQLite file in the folder for temporary files." placeholder:"URL"`
	Quick  bool   `help:"Rougher, in less than 30 s."`
	Size   int    `help:"Events in the log of replay, subscribe and rebuild, and in the largest log of --growth." placeholder:"N"`
	Growth bool   `help:"With append: append and reading one stream on logs of growing size."`
}

func (c *benchCommand) Run(ctx context.Context, s *session) error {
	if bench.Planned(c.Name) {
		return adapter.Errorf(adapter.CodeNotBuilt, "keytrail bench %s is not built yet", c.Name).WithTry("keytrail bench append")
	}
	o := bench.Options{Name: c.Name, Quick: c.Quick, Size: c.Size, Growth: c.Growth}
	if c.Store != "" {
		u, err := config.ParseStoreURL(c.Store)
		if err != nil {
			return &usageError{fmt.Errorf("--store: %w", err)}
		}
		o.Store = u
	}
	if !s.json {
		o.Progress = func(step string) { fmt.Fprintln(s.stderr, step) }
	}
	report, err := bench.Run(ctx, o)
	if err != nil {
		return c.explain(ctx, o.Store, err)
	}
	if s.json {
		return s.printJSON(report)
	}
	return report.WriteText(s.stdout)
}

func (c *benchCommand) explain(ctx context.Context, u config.StoreURL, err error) error {
	var usage *bench.UsageError
	switch {
	case errors.As(err, &usage):
		return &usageError{err}
	case ctx.Err() != nil:
		return adapter.Errorf(adapter.CodeInterrupted, "interrupted; what was made to measure on is removed")
	case u.Kind == "":
		return err
	}
	fault := sqliteFault
	if u.Kind == config.Postgres {
		fault = postgresFault
	}
	f := fault(u, "--store", err)
	switch {
	case f.fact == "":
		return err
	case f.configured:
		return &usageError{fmt.Errorf("%s: %s\nTry: %s", u, f.fact, f.try)}
	default:
		return &adapter.Error{Code: adapter.CodeStoreUnavailable, Detail: fmt.Sprintf("%s: %s", u, f.fact), Try: f.try, Err: err}
	}
}
