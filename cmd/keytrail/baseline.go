package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
)

type baselineCommand struct {
	Realm string `help:"Only this realm; all configured ones without it."`
	because
}

func (c *baselineCommand) Run(ctx context.Context, s *session) (err error) {
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
	exit := exitOK
	var results []reconcile.Result
	for _, name := range realms {
		result, err := a.Baseline(asOperator(ctx, c.Actor, c.Reason), name, s.adopting(name))
		if err != nil && result.RunID == (reconcile.Result{}).RunID {
			return err
		}
		exit = max(exit, result.Verdict.ExitCode())
		results = append(results, result)
		if !s.json {
			writeBaseline(s.stdout, result)
			if err != nil {
				s.report(err)
			}
		}
	}
	if s.json {
		// One realm is the usual case, and the API's object; several are a list of them.
		if len(results) == 1 {
			err = s.printJSON(results[0])
		} else {
			err = s.printJSON(listOf(results, ""))
		}
		if err != nil {
			return err
		}
	}
	if exit != exitOK {
		return exitError(exit)
	}
	return nil
}

// adopting shows how far a baseline is, each time that another tenth of it is done.
func (s *session) adopting(realm string) func(adopted, counted int) {
	if s.json {
		return nil
	}
	shown := 0
	return func(adopted, counted int) {
		if tenth := 10 * adopted / max(counted, 1); tenth > shown {
			shown = tenth
			fmt.Fprintf(s.stderr, "Realm %s: %d of %d users.\n", realm, adopted, counted)
		}
	}
}

func writeBaseline(w io.Writer, r reconcile.Result) {
	if r.Status != adapter.RunCompleted {
		fmt.Fprintf(w, "Realm %s is adopted in part: the run is %s. Run it again to go on.\n", r.Realm, r.Status)
		return
	}
	fmt.Fprintf(w, "Realm %s: adopted %d users as the starting point", r.Realm, r.Baselined)
	if before := r.Compared - r.Baselined; before > 0 {
		fmt.Fprintf(w, ", and %d before", before)
	}
	fmt.Fprintln(w, ".")
	for _, n := range r.NotCompared {
		fmt.Fprintf(w, "Not adopted: %s. %s\n", n.Field, n.Reason)
	}
	fmt.Fprintf(w, "\nTrace: keytrail trace %s\n", r.RunID)
}
