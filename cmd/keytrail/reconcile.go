package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/internal/app"
)

type reconcileCommand struct {
	Realm  string `help:"Only this realm; all configured ones without it."`
	Cancel string `help:"End this run, in whichever process it is under way, and begin none." placeholder:"RUN"`
	because
}

func (c *reconcileCommand) Run(ctx context.Context, s *session) (err error) {
	a, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if c.Cancel != "" {
		return c.cancel(ctx, s, a)
	}
	return s.inEachRealm(a, c.Realm, "keytrail reconcile", func(realm string) (reconcile.Result, error) {
		return a.Reconcile(asOperator(ctx, c.Actor, c.Reason), realm, "cli")
	}, func(r reconcile.Result) error {
		writeResult(s.stdout, r)
		return nil
	})
}

func (c *reconcileCommand) cancel(ctx context.Context, s *session, a *app.App) error {
	id, err := uuid.Parse(c.Cancel)
	if err != nil {
		return &usageError{fmt.Errorf("--cancel %s: a run's id is a UUID", c.Cancel)}
	}
	run, err := a.CancelRun(asOperator(ctx, c.Actor, c.Reason), id)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(run)
	}
	fmt.Fprintf(s.stdout, "Run %s of realm %s is ended. A run of another process stops before its next request to Keycloak.\n", run.RunID, run.Realm)
	return nil
}

func writeResult(w io.Writer, r reconcile.Result) {
	switch r.Verdict {
	case reconcile.InSync:
		fmt.Fprintf(w, "Realm %s is in sync: %s compared.\n", r.Realm, count(r.Compared, "user", "users"))
	case reconcile.Drift:
		fmt.Fprintf(w, "Realm %s has drifted: %d of %d users differ.\n", r.Realm, r.FindingsTotal, r.Compared)
	case reconcile.Incomplete:
		if r.Status == adapter.RunCompleted {
			fmt.Fprintf(w, "Realm %s was compared in part: no drift in %s.\n", r.Realm, count(r.Compared, "user", "users"))
			break
		}
		fmt.Fprintf(w, "Realm %s could not be judged: the run is %s.\n", r.Realm, r.Status)
	}
	if r.Baselined > 0 {
		fmt.Fprintf(w, "Adopted %s as the starting point.\n", count(r.Baselined, "user", "users"))
	}
	if r.Unsettled > 0 {
		fmt.Fprintf(w, "%s too young to judge, or with a call under way.\n", count(r.Unsettled, "difference", "differences"))
	}
	for _, n := range r.NotCompared {
		fmt.Fprintf(w, "Not compared: %s. %s\n", n.Field, n.Reason)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n%s  %s (%s), since %s\n", f.Situation, nameOf(f), f.UserID, f.Since.UTC().Format("2006-01-02 15:04:05Z"))
		for _, d := range f.Fields {
			fmt.Fprintf(w, "    %s: believed %s, is %s%s%s\n", d.Field, d.Believed, d.Actual, sides(d), setBy(d))
		}
		if f.CallID != nil {
			fmt.Fprintf(w, "    perhaps by a call of keytrail's own whose outcome is not known: keytrail trace %s\n", f.CallID)
		}
	}
	fmt.Fprintf(w, "\nTrace: keytrail trace %s\n", r.RunID)
}

func nameOf(f adapter.Finding) string {
	if f.Username != "" {
		return f.Username
	}
	return "user"
}

// sides tells of roles, groups and organizations which are there beyond belief, and
// which are not.
func sides(d adapter.FieldDifference) string {
	var out strings.Builder
	for _, name := range d.Added {
		out.WriteString(" +" + name)
	}
	for _, name := range d.Removed {
		out.WriteString(" -" + name)
	}
	return out.String()
}

func setBy(d adapter.FieldDifference) string {
	if d.LastChangedAt == nil {
		return ""
	}
	by := d.LastChangedBy
	if by == "" {
		by = "somebody unknown"
	}
	return fmt.Sprintf(" (last set by %s at %s)", by, d.LastChangedAt.UTC().Format("2006-01-02 15:04:05Z"))
}
