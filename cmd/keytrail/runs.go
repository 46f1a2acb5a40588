package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/internal/app"
)

// runResult is a run as the command line tells it.
type runResult struct {
	reconcile.Result
	// Try is the next step where the run could not judge.
	Try string `json:"try,omitempty"`
}

// inEachRealm makes a run of the realm that is named, or of each that is configured,
// and ends with the worst verdict's exit status. command is what a person repeats.
func (s *session) inEachRealm(
	a *app.App, named, command string,
	run func(realm string) (reconcile.Result, error), write func(reconcile.Result) error,
) error {
	realms := a.Config.Keycloak.Realms
	if named != "" {
		realms = []string{named}
	}
	if len(realms) == 0 {
		_, err := realm(a, "")
		return err
	}
	exit := exitOK
	var results []runResult
	for _, name := range realms {
		result, failure := run(name)
		failure = repeatedBy(command, failure)
		if failure != nil && result.RunID == (reconcile.Result{}).RunID {
			return failure
		}
		exit = max(exit, result.Verdict.ExitCode())
		told := runResult{Result: result}
		if failure != nil {
			e := inCatalogue(failure)
			told.Error, told.Try = e.Detail, e.Try // recorded is both in one text
		}
		results = append(results, told)
		if s.json {
			continue
		}
		if err := write(result); err != nil {
			return err
		}
		if failure != nil {
			s.report(failure)
		}
	}
	if s.json {
		// One realm is the usual case, and the API's object; several are a list of them.
		var all any = listOf(results, "")
		if len(results) == 1 {
			all = results[0]
		}
		if err := s.printJSON(all); err != nil {
			return err
		}
	}
	if exit != exitOK {
		return exitError(exit)
	}
	return nil
}

// repeatedBy makes the next step of a run's error name the command that was given: a
// baseline fails in the words of a reconciliation.
func repeatedBy(command string, err error) error {
	var e *adapter.Error
	if !errors.As(err, &e) {
		return err
	}
	own := *e
	own.Try = strings.ReplaceAll(e.Try, "keytrail reconcile", command)
	return &own
}

// withoutRepeats leaves out of a command's log what the command itself says in full.
type withoutRepeats struct{ slog.Handler }

// repeats are the messages of lines whose content is in the run's error or its result.
var repeats = []string{"reconciliation ended without a judgement", "memberships are not compared"}

func (h withoutRepeats) Handle(ctx context.Context, r slog.Record) error {
	if slices.Contains(repeats, r.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h withoutRepeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withoutRepeats{h.Handler.WithAttrs(attrs)}
}

func (h withoutRepeats) WithGroup(name string) slog.Handler {
	return withoutRepeats{h.Handler.WithGroup(name)}
}
