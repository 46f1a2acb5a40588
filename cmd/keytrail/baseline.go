package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
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
	return s.inEachRealm(a, c.Realm, "keytrail baseline", func(realm string) (reconcile.Result, error) {
		return a.Baseline(asOperator(ctx, c.Actor, c.Reason), realm, s.adopting(realm))
	}, func(r reconcile.Result) error {
		if r.Status == adapter.RunCompleted {
			writeBaseline(s.stdout, r)
			return nil
		}
		adopted, err := adoptedBy(ctx, a, r)
		if err != nil {
			return err
		}
		if adopted == 0 {
			fmt.Fprintf(s.stdout, "Realm %s: nothing was adopted, the run is %s.\n", r.Realm, r.Status)
		} else {
			fmt.Fprintf(s.stdout, "Realm %s is adopted in part, %s by this run, which is %s. A repeat within a day goes on where it ended.\n",
				r.Realm, count(adopted, "user", "users"), r.Status)
		}
		_, err = fmt.Fprintf(s.stdout, "\nTrace: keytrail trace %s\n", r.RunID)
		return err
	})
}

// countLimit bounds the counting of what a run has adopted that was itself cut short.
const countLimit = 5 * time.Second

// adoptedBy counts the users that a run has adopted, however it ended.
func adoptedBy(ctx context.Context, a *app.App, r reconcile.Result) (adopted int, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countLimit)
	defer cancel()
	q := eventstore.LogQuery{Types: []string{adapter.TypeUserApiBaselined}, CorrelationID: r.CorrelationID}
	for _, err := range a.Store.ReadLog(ctx, q) {
		if err != nil {
			return 0, fmt.Errorf("counting who was adopted: %w", err)
		}
		adopted++
	}
	return adopted, nil
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
	fmt.Fprintf(w, "Realm %s: adopted %s as the starting point", r.Realm, count(r.Baselined, "user", "users"))
	if before := r.Compared - r.Baselined; before > 0 {
		fmt.Fprintf(w, ", and %d before", before)
	}
	fmt.Fprintln(w, ".")
	for _, n := range r.NotCompared {
		fmt.Fprintf(w, "Not adopted: %s. %s\n", n.Field, n.Reason)
	}
	fmt.Fprintf(w, "\nTrace: keytrail trace %s\n", r.RunID)
}
