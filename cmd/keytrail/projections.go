package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
)

type projectionsCommand struct {
	Status  projectionsStatus  `cmd:"" help:"Position, lag and status of each."`
	Rebuild projectionsRebuild `cmd:"" help:"Fold the log anew, beside the live tables, and swap."`
}

type projectionsStatus struct{}

func (*projectionsStatus) Run(ctx context.Context, s *session) error {
	return s.read(ctx, func(a *app.App) error {
		status, err := a.Engine.Status(ctx)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(listOf(status, ""))
		}
		w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tSTATUS\tPOSITION\tLAG\tERROR")
		for _, p := range status {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", p.Name, p.Status, p.Position, p.Lag, p.Error)
		}
		return w.Flush()
	})
}

type projectionsRebuild struct {
	Name string `arg:"" help:"The projection, as projections status names it."`
}

func (c *projectionsRebuild) Run(ctx context.Context, s *session) (err error) {
	a, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	last := eventstore.Position(-1)
	err = a.Engine.Rebuild(ctx, c.Name, func(done, total eventstore.Position) {
		// One line for each tenth is progress enough for a log as for a person.
		if total == 0 || s.json {
			return
		}
		if tenth := done * 10 / total; tenth != last {
			last = tenth
			fmt.Fprintf(s.stderr, "%s: %d of %d events\n", c.Name, done, total)
		}
	})
	if err != nil {
		return c.explain(ctx, a, err)
	}
	if s.json {
		return s.printJSON(map[string]string{"name": c.Name, "status": "rebuilt"})
	}
	_, err = fmt.Fprintf(s.stdout, "Rebuilt %s.\n", c.Name)
	return err
}

// explain names what can be rebuilt, where that was none of it.
func (c *projectionsRebuild) explain(ctx context.Context, a *app.App, err error) error {
	status, statusErr := a.Engine.Status(ctx)
	if statusErr != nil {
		return err
	}
	var names []string
	e := adapter.Errorf(adapter.CodeNotFound, "there is no projection %q", c.Name)
	for _, p := range status {
		rebuilt := p.Kind == "projection"
		switch {
		case p.Name == c.Name && rebuilt:
			return err // something else is wrong
		case p.Name == c.Name:
			e = adapter.Errorf(adapter.CodeInvalidRequest, "%s is a consumer: what it does is in the log, so there is nothing to rebuild", c.Name)
		case rebuilt:
			names = append(names, p.Name)
		}
	}
	return e.WithTry("one of %s", strings.Join(names, ", "))
}
