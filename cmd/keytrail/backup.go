package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/internal/backup"
)

type backupCommand struct {
	File string `arg:"" help:"The file to make; it must not exist."`
}

func (c *backupCommand) Run(ctx context.Context, s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	consumers, err := s.consumers(ctx)
	if err != nil {
		return err
	}
	u := cfg.Store.URL
	o := s.backupOptions(cfg)
	o.Consumers = consumers
	made, err := backup.Write(ctx, place(u), c.File, o)
	if err != nil {
		return c.explain(s, cfg, err)
	}
	if s.json {
		return s.printJSON(outcomeOf(u, c.File, made))
	}
	_, err = fmt.Fprintf(s.stdout, "Backed up %s to %s: %s, %s. It is verified.\nRestore it into an empty store with: keytrail restore %[2]s\n",
		u, c.File, contentsOf(made.Head, made.Streams, made.RawBodies), size(made.Bytes))
	return err
}

// consumers are the names of the consumers of the log.
func (s *session) consumers(ctx context.Context) (names []string, err error) {
	a, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	status, err := a.Engine.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range status {
		if p.Kind == "consumer" {
			names = append(names, p.Name)
		}
	}
	return names, nil
}

func (c *backupCommand) explain(s *session, cfg *config.Config, err error) error {
	var path *fs.PathError
	switch {
	case errors.Is(err, context.Canceled):
		return interrupted("the backup was interrupted: nothing is left of it", "give the command again")
	case errors.Is(err, backup.ErrFileExists):
		return &usageError{fmt.Errorf("%s exists already, and a backup overwrites nothing\nTry: another name, such as %s", c.File, s.otherName(c.File))}
	case errors.Is(err, backup.ErrLogElsewhere):
		return &usageError{fmt.Errorf("%w\nTry: attach the partitions again, or back up with pg_dump", err)}
	case errors.As(err, &path) && errors.Is(err, fs.ErrNotExist):
		return &usageError{fmt.Errorf("there is no folder %s\nTry: create it, or name a file in another", filepath.Dir(c.File))}
	case errors.As(err, &path) && errors.Is(err, fs.ErrPermission):
		return &usageError{fmt.Errorf("this user may not write to the folder %s\nTry: name a file in another", filepath.Dir(c.File))}
	}
	if full := fullDisk(c.File, err); full != nil {
		return full
	}
	return s.damaged(storeError(cfg, cfg.Store.URL, err), cfg.Store.URL, c.File,
		"keytrail verify tells all faults; restore the newest backup from before them, or let PostgreSQL's or SQLite's own tools save what can be saved")
}

// otherName is a name for a backup that nobody can have given yet.
func (s *session) otherName(file string) string {
	ext := filepath.Ext(file)
	return file[:len(file)-len(ext)] + "-" + s.clock().UTC().Format("20060102-150405") + ext
}

// fullDisk says that a file cannot grow, where that is what went wrong.
func fullDisk(file string, err error) error {
	var e sqliteError
	if !isNoSpace(err) && (!errors.As(err, &e) || primary(e) != sqliteFull) {
		return nil
	}
	return &adapter.Error{
		Code: adapter.CodeStoreUnavailable, Detail: fmt.Sprintf("the disk of %s is full", file), Try: "make room, or name a file on another disk", Err: err,
	}
}

func place(u config.StoreURL) backup.Place {
	if u.Kind == config.Postgres {
		return backup.Place{URL: u.Reveal()}
	}
	return backup.Place{Path: u.Path}
}

func (s *session) backupOptions(cfg *config.Config) backup.Options {
	return backup.Options{
		Clock: s.clock, Progress: s.backupProgress(cfg.Store.URL.Kind),
		Migrate: func(ctx context.Context, p backup.Place) error {
			at := *cfg
			if p.URL == "" {
				at.Store.AdminURL = config.StoreURL{Kind: config.SQLite, Path: p.Path}
			}
			return app.Migrate(ctx, &at)
		},
	}
}

// progressPause is how long people are left without a word.
const progressPause = 2 * time.Second

// backupProgress tells people how far a long work is. While a SQLite file is copied,
// what is counted is bytes.
func (s *session) backupProgress(copied config.StoreKind) backup.Progress {
	if s.json {
		return nil
	}
	last := s.clock()
	return func(stage backup.Stage, done, total int64) {
		now := s.clock()
		if total == 0 || now.Sub(last) < progressPause {
			return
		}
		last = now
		what := strings.ToUpper(string(stage[:1])) + string(stage[1:])
		if stage == backup.StageCopy && copied == config.SQLite {
			fmt.Fprintf(s.stderr, "%s: %s of %s\n", what, size(done), size(total))
			return
		}
		fmt.Fprintf(s.stderr, "%s: %d of %d events\n", what, done, total)
	}
}

// outcome is what a backup or a restore has done.
type outcome struct {
	Store     config.StoreURL     `json:"store,omitzero"`
	File      string              `json:"file"`
	Status    string              `json:"status"`
	MadeAt    time.Time           `json:"made_at"`
	Source    string              `json:"source"`
	Head      eventstore.Position `json:"head"`
	Streams   int64               `json:"streams"`
	RawBodies int64               `json:"raw_bodies"`
	Bytes     int64               `json:"bytes"`
}

func outcomeOf(u config.StoreURL, file string, r backup.Result) outcome {
	return outcome{
		Store: u, File: file, Status: "sound", MadeAt: r.MadeAt, Source: r.Source,
		Head: r.Head, Streams: r.Streams, RawBodies: r.RawBodies, Bytes: r.Bytes,
	}
}

func contentsOf(events eventstore.Position, streams, bodies int64) string {
	return fmt.Sprintf("%s in %s, %s", count(int(events), "event", "events"), count(int(streams), "stream", "streams"), count(int(bodies), "raw body", "raw bodies"))
}

// size is a number of bytes as people read it.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%d KiB", n>>10)
	}
}

// damaged prints the faults of a *backup.DamagedError, which ends a command with exit 1;
// other errors come back as they are.
func (s *session) damaged(err error, u config.StoreURL, file, try string) error {
	var d *backup.DamagedError
	if !errors.As(err, &d) {
		return err
	}
	if s.json {
		out := struct {
			Store       config.StoreURL    `json:"store,omitzero"`
			File        string             `json:"file"`
			Status      string             `json:"status"`
			Detail      string             `json:"detail"`
			FaultsTotal int64              `json:"faults_total"`
			Faults      []eventstore.Fault `json:"faults"`
			Try         string             `json:"try"`
		}{u, file, "damaged", d.What + " is damaged", d.Total, d.Faults, try}
		if err := s.printJSON(out); err != nil {
			return err
		}
		return exitError(exitFound)
	}
	fmt.Fprintf(s.stderr, "Error: %s is damaged, %s:\n", d.What, count(int(d.Total), "fault", "faults"))
	s.printFaults(s.stderr, d.Faults, d.Total)
	fmt.Fprintf(s.stderr, "Try: %s\n", try)
	return exitError(exitFound)
}
