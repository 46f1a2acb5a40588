package main

import (
	"context"
	"encoding/json"
	"errors"
	"iter"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
)

type eventsCommand struct {
	Tail   eventsTail   `cmd:"" help:"Print new events as they come."`
	Export eventsExport `cmd:"" help:"Print all events."`
}

type eventsExport struct {
	From int64 `help:"The first position to print." default:"1"`
}

func (c *eventsExport) Run(ctx context.Context, s *session) error {
	return s.withLog(ctx, func(a *app.App) error {
		return s.printEvents(ctx, a, a.Store.ReadLog(ctx, eventstore.LogQuery{After: eventstore.Position(c.From - 1)}))
	})
}

type eventsTail struct {
	From int64 `help:"The first position to print; 0 prints only what is new."`
}

func (c *eventsTail) Run(ctx context.Context, s *session) error {
	return s.withLog(ctx, func(a *app.App) error {
		after := eventstore.Position(c.From - 1)
		if c.From <= 0 {
			head, err := a.Store.Head(ctx)
			if err != nil {
				return err
			}
			after = head
		}
		err := s.printEvents(ctx, a, eventstore.Subscribe(ctx, a.Store, eventstore.LogQuery{After: after}))
		if ctx.Err() != nil { // it runs until it is stopped
			return nil //nolint:nilerr // stopping it is how it ends
		}
		return err
	})
}

func (s *session) withLog(ctx context.Context, f func(a *app.App) error) (err error) {
	a, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return f(a)
}

// printEvents prints events, one a line.
func (s *session) printEvents(ctx context.Context, a *app.App, events iter.Seq2[eventstore.Event, error]) error {
	enc := json.NewEncoder(s.stdout)
	enc.SetEscapeHTML(false)
	for e, err := range events {
		if err != nil {
			return err
		}
		d, err := a.Codec.Decode(ctx, e)
		if err != nil {
			return err
		}
		if err := enc.Encode(d.View()); err != nil {
			return err
		}
	}
	return nil
}
