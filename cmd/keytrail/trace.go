package main

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/internal/app"
)

type traceCommand struct {
	ID    string `arg:"" help:"Correlation, event, call, delivery, Keycloak event, run or user id, or a user name."`
	Realm string `help:"Realm, where the id is a user's."`
}

func (c *traceCommand) Run(ctx context.Context, s *session) error {
	return s.read(ctx, func(a *app.App) error {
		t, err := a.Traces.Find(ctx, c.ID, c.Realm)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(t)
		}
		return trace.WriteText(s.stdout, t, s.textOptions())
	})
}

type failuresCommand struct {
	Realm  string `help:"Only this realm."`
	Limit  int    `help:"The most failures to show." default:"50"`
	Cursor string `help:"Where the previous page ended."`
}

func (c *failuresCommand) Run(ctx context.Context, s *session) error {
	if err := checkLimit(c.Limit); err != nil {
		return err
	}
	return s.read(ctx, func(a *app.App) error {
		items, next, err := upTo(c.Limit, c.Cursor, func(limit int, cursor string) ([]trace.Failure, string, error) {
			page, err := a.Failures.List(ctx, trace.FailureQuery{Realm: c.Realm, Limit: limit, Cursor: cursor})
			return page.Items, page.NextCursor, err
		})
		if err != nil {
			return err
		}
		page := trace.FailurePage{Items: items, NextCursor: next}
		if s.json {
			return s.printJSON(listOf(page.Items, page.NextCursor))
		}
		return trace.WriteFailures(s.stdout, page, s.textOptions())
	})
}

// textOptions fit text to where it goes: a terminal's width and colours, and neither
// in a pipe.
func (s *session) textOptions() trace.Options {
	if !isTerminal(s.stdout) {
		return trace.Options{}
	}
	o := trace.Options{Width: 100, Color: true}
	for _, e := range s.env {
		name, value, _ := strings.Cut(e, "=")
		switch name {
		case "NO_COLOR":
			o.Color = o.Color && value == ""
		case "COLUMNS":
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				o.Width = n
			}
		}
	}
	return o
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
