package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
)

type migrateCommand struct{}

func (*migrateCommand) Run(ctx context.Context, s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	u := cfg.Store.AdminURL
	if u.Kind == config.SQLite {
		inUse, err := storeInUse(ctx, u.Path)
		if err != nil {
			return storeError(cfg, u, err)
		}
		if inUse {
			return adapter.Errorf(adapter.CodeStoreUnavailable, "the event store %s: another process has the file open", u).
				WithTry("stop keytrail serve, or whatever else has it open, then: keytrail migrate")
		}
	}
	before, err := schemaBefore(ctx, cfg)
	if err != nil {
		return storeError(cfg, u, err)
	}
	if err := app.Migrate(ctx, cfg); err != nil {
		return storeError(cfg, u, err)
	}
	return s.printMigration(u, before)
}

// schemaBefore is how the schema stands that is to be migrated; nil means that it is
// current.
func schemaBefore(ctx context.Context, cfg *config.Config) (*eventstore.SchemaError, error) {
	owned := *cfg
	owned.Store.URL = cfg.Store.AdminURL // another role may not be let in yet
	a, err := app.Open(ctx, &owned, app.Options{})
	var pending *eventstore.SchemaError
	switch {
	case err == nil:
		return nil, a.Close()
	case errors.As(err, &pending) && pending.Current < pending.Supported:
		return pending, nil
	}
	return nil, err
}

func (s *session) printMigration(u config.StoreURL, before *eventstore.SchemaError) error {
	out := struct {
		Store  config.StoreURL `json:"store"`
		Status string          `json:"status"`
		// Change is "created", "upgraded" or "none".
		Change string `json:"change"`
		From   *int64 `json:"from,omitempty"`
		To     *int64 `json:"to,omitempty"`
	}{Store: u, Status: "current", Change: "none"}
	text := "is current"
	switch {
	case before == nil:
	case before.Current == 0:
		out.Change, out.To = "created", &before.Supported
		text = fmt.Sprintf("was created, version %d", before.Supported)
	default:
		out.Change, out.From, out.To = "upgraded", &before.Current, &before.Supported
		text = fmt.Sprintf("was brought from version %d to %d", before.Current, before.Supported)
	}
	if s.json {
		return s.printJSON(out)
	}
	_, err := fmt.Fprintf(s.stdout, "The schema of %s %s.\n", u, text)
	return err
}
