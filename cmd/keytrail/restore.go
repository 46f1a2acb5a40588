package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/internal/backup"
	"github.com/keytrail/keytrail/projections"
)

type restoreCommand struct {
	File string `arg:"" help:"A file that keytrail backup has made."`
}

func (c *restoreCommand) Run(ctx context.Context, s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	u := cfg.Store.AdminURL // as for migrate: who owns the tables
	restored, err := backup.Restore(ctx, c.File, place(u), s.backupOptions(cfg))
	if err != nil {
		return c.explain(s, cfg, u, err)
	}
	if s.json {
		err = s.printJSON(outcomeOf(u, c.File, restored))
	} else {
		_, err = fmt.Fprintf(s.stdout, "Restored %s from the backup of %s into %s. It is verified.\n",
			contentsOf(restored.Head, restored.Streams, restored.RawBodies), restored.MadeAt.Format("2006-01-02 15:04:05 MST"), u)
	}
	if err != nil {
		return err
	}
	return s.foldAnew(ctx, cfg, u)
}

// foldAnew folds the read models of a restored store, so that the first who asks gets
// an answer. It may be ended at any time: whoever reads or serves goes on from there.
func (s *session) foldAnew(ctx context.Context, cfg *config.Config, u config.StoreURL) (err error) {
	owned := *cfg
	owned.Store.URL = u
	a, err := app.Open(ctx, &owned, app.Options{Clock: s.clock})
	if err != nil {
		return storeError(cfg, u, err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	for told := false; ; told = true {
		var behind *projections.BehindError
		switch err := a.CatchUp(ctx); {
		case ctx.Err() != nil:
			fmt.Fprintln(s.stderr, "Note: the read models are not complete; serve goes on with them.")
			return nil
		case err == nil:
			return nil
		case !errors.As(err, &behind) || len(behind.Unwrap()) > 0:
			// The store is restored all the same.
			fmt.Fprintf(s.stderr, "Note: the read models are not complete: %v\n", err)
			return nil
		}
		if s.json {
			continue
		}
		if !told {
			fmt.Fprintln(s.stderr, "Folding the read models. This may be left to serve: Ctrl-C ends it without harm.")
		}
		least := slices.MinFunc(behind.Behind, func(a, b projections.Behind) int { return cmp.Compare(a.Position, b.Position) })
		fmt.Fprintf(s.stderr, "Folding: %s at %d of %d events\n", least.Name, least.Position, least.Target)
	}
}

func (c *restoreCommand) explain(s *session, cfg *config.Config, u config.StoreURL, err error) error {
	var schema *eventstore.SchemaError
	switch {
	case errors.Is(err, context.Canceled) && errors.Is(err, backup.ErrUnverified):
		return interrupted("the store is restored, and verifying it was interrupted", "keytrail verify")
	case errors.Is(err, context.Canceled):
		return interrupted("the restore was interrupted: nothing is restored", "give the command again")
	case errors.Is(err, eventstore.ErrNotEmpty):
		return &usageError{fmt.Errorf("the event store %s has events already, and a backup is restored into an empty one\nTry: name another with KEYTRAIL_STORE_URL%s", u, elsewhere(u))}
	case errors.As(err, &schema) && schema.Current > schema.Supported:
		return fmt.Errorf("%s or the event store %s: %w", c.File, u, schema)
	}
	if err := explainFile(c.File, err); err != nil {
		return err
	}
	return s.damaged(storeError(cfg, u, err), u, c.File, "another backup; nothing was restored from this one")
}

// interrupted is the error of a command that was ended from outside.
func interrupted(detail, try string) error {
	return adapter.Errorf(adapter.CodeInterrupted, "%s", detail).WithTry("%s", try)
}

func elsewhere(u config.StoreURL) string {
	if u.Kind == config.Postgres {
		return ", such as a new database"
	}
	return ", such as a new file, or move " + u.Path + " away with what lies beside it (-wal, -shm)"
}

// explainFile says what is wrong with a file that should be a backup; nil where it is
// something else.
func explainFile(file string, err error) error {
	var path *fs.PathError
	ours := errors.As(err, &path) && path.Path == file
	switch {
	case errors.Is(err, backup.ErrNotABackup):
		return &usageError{fmt.Errorf("%w\nTry: a file that keytrail backup has made; of a store in SQLite make one with KEYTRAIL_STORE_URL=sqlite:%s keytrail backup NEW-FILE", err, file)}
	case ours && errors.Is(err, fs.ErrNotExist):
		return &usageError{fmt.Errorf("there is no file %s", file)}
	case ours && errors.Is(err, fs.ErrPermission):
		return &usageError{fmt.Errorf("this user may not read %s", file)}
	}
	return nil
}

// isNoSpace reports whether a disk, or what this user may have of it, is full.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
