package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/backup"
)

type verifyCommand struct {
	File string `arg:"" optional:"" help:"A backup to verify instead of the store."`
}

func (c *verifyCommand) Run(ctx context.Context, s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if c.File != "" {
		return c.file(ctx, s, cfg)
	}
	u := cfg.Store.URL
	found, err := s.verify(ctx, u)
	if errors.Is(err, context.Canceled) {
		return interrupted("the verification was interrupted", "give the command again")
	}
	if err != nil {
		return storeError(cfg, u, err)
	}
	return s.printVerification(u, found)
}

// verify verifies the store. One that is too damaged to be opened has that fault.
func (s *session) verify(ctx context.Context, u config.StoreURL) (found *eventstore.Verification, err error) {
	store, err := backup.Open(ctx, place(u))
	var e sqliteError
	if errors.As(err, &e) && primary(e) == sqliteCorrupt {
		fault := eventstore.Fault{Kind: eventstore.FaultUnreadable, Detail: err.Error()}
		return &eventstore.Verification{FaultsTotal: 1, Faults: []eventstore.Fault{fault}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	progress := s.backupProgress(u.Kind)
	return eventstore.Verify(ctx, store, eventstore.VerifyOptions{
		Now: s.clock(),
		Progress: func(done, total int64) {
			if progress != nil {
				progress(backup.StageVerify, done, total)
			}
		},
	})
}

func (s *session) printVerification(u config.StoreURL, v *eventstore.Verification) error {
	status, end := "sound", error(nil)
	if !v.Sound() {
		status, end = "damaged", exitError(exitFound)
	}
	if s.json {
		out := struct {
			Store  config.StoreURL `json:"store"`
			Status string          `json:"status"`
			*eventstore.Verification
		}{u, status, v}
		return errors.Join(s.printJSON(out), end)
	}
	bodies := int64(0)
	if v.RawBodies != nil {
		bodies = *v.RawBodies
	}
	contents := contentsOf(eventstore.Position(v.Events), v.Streams, bodies)
	if v.First > 1 {
		contents += fmt.Sprintf("; those before position %d are kept elsewhere", v.First)
	}
	if v.Sound() {
		_, err := fmt.Fprintf(s.stdout, "The event store %s is sound: %s.\n", u, contents)
		return err
	}
	fmt.Fprintf(s.stdout, "The event store %s has %s (%s read):\n", u, count(int(v.FaultsTotal), "fault", "faults"), contents)
	s.printFaults(s.stdout, v.Faults, v.FaultsTotal)
	fmt.Fprintf(s.stdout, "\nWhat each means and what to do: docs/operations.md, Verify.\n")
	return end
}

// printFaults lists as many faults as people read at once; --json has more.
func (*session) printFaults(w io.Writer, faults []eventstore.Fault, total int64) {
	const most = 20
	for _, f := range faults[:min(len(faults), most)] {
		fmt.Fprintf(w, "  %s\n", f)
	}
	if total > most {
		fmt.Fprintf(w, "  … and %d more\n", total-most)
	}
}

// file verifies a backup.
func (c *verifyCommand) file(ctx context.Context, s *session, cfg *config.Config) error {
	found, err := backup.Check(ctx, c.File, s.backupOptions(cfg))
	if errors.Is(err, context.Canceled) {
		return interrupted("the verification was interrupted", "give the command again")
	}
	if err != nil {
		if err := explainFile(c.File, err); err != nil {
			return err
		}
		return s.damaged(err, config.StoreURL{}, c.File, "another backup")
	}
	if s.json {
		return s.printJSON(outcomeOf(config.StoreURL{}, c.File, found))
	}
	_, err = fmt.Fprintf(s.stdout, "The backup %s of %s is sound: %s.\n",
		c.File, found.MadeAt.Format("2006-01-02 15:04:05 MST"), contentsOf(found.Head, found.Streams, found.RawBodies))
	return err
}
