package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/backup"
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
		return s.printJSON(outcomeOf(u, c.File, restored))
	}
	_, err = fmt.Fprintf(s.stdout, "Restored %s from the backup of %s into %s. It is verified.\nThe read models are folded when serve starts or a command reads.\n",
		contentsOf(restored.Head, restored.Streams, restored.RawBodies), restored.MadeAt.Format("2006-01-02 15:04:05 MST"), u)
	return err
}

func (c *restoreCommand) explain(s *session, cfg *config.Config, u config.StoreURL, err error) error {
	var schema *eventstore.SchemaError
	switch {
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
