package main

import (
	"context"
	"fmt"

	"github.com/keytrail/keytrail/internal/app"
)

type migrateCommand struct{}

func (*migrateCommand) Run(ctx context.Context, s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if err := app.Migrate(ctx, cfg); err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]string{"store": cfg.Store.URL.String(), "status": "current"})
	}
	_, err = fmt.Fprintf(s.stdout, "The schema of %s is current.\n", cfg.Store.URL)
	return err
}
