package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/internal/app"
)

type auditCommand struct {
	Realm  string `help:"Only this realm."`
	Actor  string `help:"Only what this actor did: an id or an exact user name."`
	User   string `help:"Only what was done to this user: a Keycloak id, or the user name of that time."`
	Type   string `help:"Only this type of event (UserApiDisabled) or action (user.disable, 'CLIENT UPDATE')."`
	From   string `help:"Only what occurred from then on (RFC 3339)." placeholder:"TIME"`
	To     string `help:"Only what occurred before then (RFC 3339)." placeholder:"TIME"`
	Limit  int    `help:"The most entries to list." default:"100"`
	Cursor string `help:"Where the previous page ended."`
}

func (c *auditCommand) Run(ctx context.Context, s *session) error {
	if err := checkLimit(c.Limit); err != nil {
		return err
	}
	f := adapter.AuditFilter{Realm: c.Realm, Actor: c.Actor, User: c.User, Type: c.Type}
	var err error
	if f.From, err = moment(c.From); err != nil {
		return err
	}
	if f.To, err = moment(c.To); err != nil {
		return err
	}
	return s.read(ctx, func(a *app.App) error {
		entries, next, err := upTo(c.Limit, c.Cursor, func(limit int, cursor string) ([]adapter.AuditEntry, string, error) {
			return a.Audit.List(ctx, f, limit, cursor)
		})
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(listOf(entries, next))
		}
		return writeAudit(s.stdout, entries, next)
	})
}

func writeAudit(out io.Writer, entries []adapter.AuditEntry, next string) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(out, "Nothing of the kind is recorded.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "OCCURRED\tWHO\tTHROUGH\tACTION\tON\tOUTCOME\tCHANGES AND REASON")
	for _, e := range entries {
		who := "nobody known"
		if e.Actor != nil {
			who = trace.Who(e.Actor)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.OccurredAt.UTC().Format(time.RFC3339), plain(who),
			plain(trace.Through(e.Source)), plain(e.Action), plain(targetOf(e)), e.Outcome, strings.Join(detailsOf(e), "; "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if next != "" {
		if _, err := fmt.Fprintf(out, "More: --cursor %s\n", next); err != nil {
			return err
		}
	}
	return nil
}

// targetOf names what an action was done to.
func targetOf(e adapter.AuditEntry) string {
	name := e.ResourcePath
	switch {
	case e.Username != "":
		name = e.Username
	case e.UserID != "" && name == "":
		name = e.UserID
	}
	return strings.Trim(name+" in "+e.Realm, " ")
}

// detailsOf are the old and new values, why it was done, and why it was not.
func detailsOf(e adapter.AuditEntry) []string {
	var details []string
	for _, c := range e.Changes {
		text := plain(c.Field) + ": " + trace.Value(c.Old) + " → " + trace.Value(c.New)
		if slices.Contains(e.Inferred, c.Field) {
			text += " (as asked for, not read back)"
		}
		details = append(details, text)
	}
	if len(e.Changes) == 0 {
		if len(e.Added) > 0 {
			details = append(details, "given: "+trace.Value(e.Added))
		}
		if len(e.Removed) > 0 {
			details = append(details, "taken: "+trace.Value(e.Removed))
		}
	}
	if e.Unfolded != "" {
		details = append(details, plain(e.Unfolded))
	}
	if e.Error != "" {
		details = append(details, plain(e.Error))
	}
	if e.Reason != "" {
		details = append(details, "why: "+plain(e.Reason))
	}
	return details
}

// plain is text from outside as one cell of a table.
func plain(text string) string {
	if text == "" {
		return ""
	}
	return trace.Value(text)
}
