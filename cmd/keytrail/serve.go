package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/app"
)

type serveCommand struct{}

func (*serveCommand) Run(ctx context.Context, s *session) (err error) {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	logger, err := s.logger(cfg)
	if err != nil {
		return err
	}
	if cfg.Store.URL.Kind == config.SQLite {
		if err := app.Migrate(ctx, cfg); err != nil {
			return storeError(cfg, cfg.Store.URL, err)
		}
	}
	a, err := app.Open(ctx, cfg, app.Options{Logger: logger, Clock: s.clock})
	if err != nil {
		return storeError(cfg, cfg.Store.URL, err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return a.Serve(ctx, app.ServeOptions{
		Hurry: s.hurry,
		Ready: func(url string) { fmt.Fprintf(s.stdout, "keytrail serves at %s\n", url) },
	})
}
