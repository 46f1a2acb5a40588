package main

import (
	"context"

	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/internal/app"
)

type explainCommand struct {
	ID    string `arg:"" help:"Correlation, event, call, delivery, Keycloak event, run or user id, or a user name."`
	Realm string `help:"Realm, where the id is a user's."`
}

// Run explains a story. It exits 0 where it could answer, whatever the story's end.
func (c *explainCommand) Run(ctx context.Context, s *session) error {
	return s.read(ctx, func(a *app.App) error {
		t, err := a.Traces.Find(ctx, c.ID, c.Realm)
		if err != nil {
			return err
		}
		x := trace.Explain(t)
		if s.json {
			return s.printJSON(x)
		}
		return trace.WriteExplanation(s.stdout, x, s.textOptions())
	})
}
