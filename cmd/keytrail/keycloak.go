package main

import (
	"context"
	"errors"
	"fmt"

	keycloakcheck "github.com/keytrail/keytrail/adapter/check"
)

type keycloakCommands struct {
	Check keycloakCheck `cmd:"" help:"Check what Keycloak is set up for, and whether an event arrives by push and by pull. Exit 0 fine, 1 something missing, 3 unreachable or not proved."`
	Setup notBuilt      `cmd:"" help:"Not built yet."`
}

type keycloakCheck struct {
	Realm string `help:"Only this realm; all configured ones without it."`
}

// Run checks each realm. It writes nothing to Keycloak, or the event configuration
// unchanged: see package check.
func (c *keycloakCheck) Run(ctx context.Context, s *session) (err error) {
	a, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	realms := a.Config.Keycloak.Realms
	if c.Realm != "" {
		realms = []string{c.Realm}
	}
	if len(realms) == 0 {
		_, err := realm(a, "")
		return err
	}
	var reports []keycloakcheck.Report
	missing, incomplete := false, false
	for n, name := range realms {
		report, err := a.CheckKeycloak(asOperator(ctx, "", ""), name)
		if err != nil {
			return err
		}
		missing, incomplete = missing || report.Missing(), incomplete || report.Incomplete
		reports = append(reports, report)
		if s.json {
			continue
		}
		if n > 0 {
			fmt.Fprintln(s.stdout)
		}
		if err := keycloakcheck.WriteText(s.stdout, report); err != nil {
			return err
		}
	}
	if s.json {
		// One realm is the usual case; several are a list of them.
		var all any = listOf(reports, "")
		if len(reports) == 1 {
			all = reports[0]
		}
		if err := s.printJSON(all); err != nil {
			return err
		}
	}
	switch {
	case missing:
		return exitError(exitFound)
	case incomplete:
		return exitError(exitUnreachable)
	}
	return nil
}
