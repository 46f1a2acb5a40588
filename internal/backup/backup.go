package backup

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
)

// Place is where a store is: in a SQLite file or in a PostgreSQL database.
type Place struct {
	Path string
	// URL may hold a password.
	URL string
}

func (p Place) kind() string {
	if p.URL != "" {
		return "postgres"
	}
	return "sqlite"
}

// Stage is a part of the work.
type Stage string

// The stages.
const (
	StageCopy   Stage = "copying"         // bytes from SQLite, events from PostgreSQL
	StageVerify Stage = "verifying"       // events
	StageName   Stage = "naming the file" // nothing to count
	StageLoad   Stage = "loading"         // events
)

// Progress hears how far a stage has come; it is called often, with 0 of something
// first. total is 0 where it is not known.
type Progress func(stage Stage, done, total int64)

func (p Progress) tell(stage Stage, done, total int64) {
	if p != nil {
		p(stage, done, total)
	}
}

// Options are what Write and Restore may be given.
type Options struct {
	// Clock tells the time; nil is the machine's.
	Clock func() time.Time
	// Progress, where not nil, is called in the goroutine of Write or Restore, and from one
	// other while a SQLite file is copied.
	Progress Progress
	// Consumers are the names of the consumers of the log whose checkpoints are kept. For
	// Write alone.
	Consumers []string
	// Migrate brings the schema at a place up to date, with all tables that keytrail has
	// there. It is asked for the file of a backup from PostgreSQL and for the store that is
	// restored.
	Migrate func(ctx context.Context, p Place) error
}

func (o Options) now() time.Time {
	if o.Clock == nil {
		return time.Now() //nolint:forbidigo // the default of the clock that can be injected
	}
	return o.Clock()
}

// Result is what was backed up or restored.
type Result struct {
	Head      eventstore.Position
	Streams   int64
	RawBodies int64
	// Bytes is the size of the file.
	Bytes int64
	// MadeAt is when the backup was made.
	MadeAt time.Time
	// Source is the kind of store that it was made of: sqlite or postgres.
	Source string
}

// ErrFileExists says that there is a file of that name already.
var ErrFileExists = errors.New("the file exists already")

// ErrLogElsewhere says that the oldest events have been moved out of the store, so that
// there is no whole log to back up.
var ErrLogElsewhere = errors.New("the store does not hold its whole log")

// A DamagedError says that a backup, or what was made of it, is not what it must be.
type DamagedError struct {
	// What is damaged, such as the file.
	What string
	// Faults are the first faults found, Total counts them all.
	Faults []eventstore.Fault
	Total  int64
}

func (e *DamagedError) Error() string {
	text := e.What + " is damaged"
	for i, f := range e.Faults {
		if i == 3 {
			return fmt.Sprintf("%s; and %d more", text, e.Total-int64(i))
		}
		text += "; " + f.String()
	}
	return text
}

// partialMark stands between the name that a file will get and a random word.
const partialMark = ".partial-"

// Write makes a backup of a store as it is at one moment, beside writers, and gives it
// the name file when it is whole, verified and on the disk. It never overwrites.
//
// Errors: ErrFileExists; ErrLogElsewhere; *eventstore.SchemaError where the store's schema is not this
// program's; *DamagedError where the store, and so its copy, has faults;
// eventstore.ErrUnavailable; the context's, or the file system's. There is no file
// under the name then.
func Write(ctx context.Context, from Place, file string, o Options) (_ Result, err error) {
	doing := "back up to " + file
	if err := free(file); err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	if err := removePartials(file); err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	partial := file + partialMark + strings.ToLower(rand.Text()[:8])
	defer func() {
		if removal := removeWithPrefix(partial); removal != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", doing, removal))
		}
	}()

	m := manifest{Format: format, MadeAt: o.now().UTC(), Source: from.kind()}
	if from.URL != "" {
		err = fromPostgres(ctx, from.URL, partial, &m, o)
	} else {
		err = fromSQLite(ctx, from.Path, partial, &m, o)
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	result, err := seal(ctx, partial, m, o)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	o.Progress.tell(StageName, 0, 0)
	if err := name(partial, file); err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	return result, nil
}

func free(file string) error {
	switch _, err := os.Lstat(file); {
	case err == nil:
		return ErrFileExists
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

// removePartials removes what backups to this name that were killed have left.
func removePartials(file string) error { return removeWithPrefix(file + partialMark) }

// removeWithPrefix removes the files whose name begins so: a database and what SQLite
// may have put beside it.
func removeWithPrefix(prefix string) error {
	folder, base := filepath.Split(prefix)
	entries, err := os.ReadDir(filepath.Join(folder, "."))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), base) || !entry.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(folder, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// fromSQLite copies the file as it is, and frees the leases in the copy.
func fromSQLite(ctx context.Context, path, partial string, m *manifest, o Options) error {
	total := int64(0)
	if info, err := os.Stat(path); err == nil {
		total = info.Size()
	}
	o.Progress.tell(StageCopy, 0, total)
	stop := watchSize(partial, total, o.Progress)
	err := sqlite.CopyTo(ctx, path, partial)
	stop()
	if err != nil {
		return err
	}
	return inFile(partial, func(db *sql.DB) error {
		var err error
		if m.state, err = readState(ctx, sqlQuerier(db), o.Consumers); err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, freeLeasesSQL, longAgo)
		return err
	})
}

// watchSize tells how a file grows until stop is called.
func watchSize(path string, total int64, progress Progress) (stop func()) {
	if progress == nil {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			if info, err := os.Stat(path); err == nil {
				progress.tell(StageCopy, min(info.Size(), total), total)
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

func inFile(path string, f func(db *sql.DB) error) (err error) {
	db, err := openFile(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return f(db)
}

// fromPostgres makes a new store of what the database holds at one moment.
func fromPostgres(ctx context.Context, url, partial string, m *manifest, o Options) (err error) {
	store, err := postgres.Open(ctx, url, postgres.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	first, err := store.FirstPosition(ctx)
	if err != nil {
		return err
	}
	if first > 1 {
		return fmt.Errorf("%w: events up to position %d are in partitions that have been detached", ErrLogElsewhere, first-1)
	}
	if err := o.Migrate(ctx, Place{Path: partial}); err != nil {
		return err
	}
	return store.Export(ctx, func(ctx context.Context, x *postgres.Export) error {
		head, err := x.Head(ctx)
		if err != nil {
			return err
		}
		if m.state, err = readState(ctx, x.Query, o.Consumers); err != nil {
			return err
		}
		sent := newSums(head)
		err = sqlite.Load(ctx, partial, func(ctx context.Context, l *sqlite.Loader) error {
			c := contents{head: head, events: x.Events(ctx), bodies: x.RawBodies(ctx), state: m.state}
			return c.load(ctx, l, StageCopy, sent, o.Progress)
		})
		m.Head, m.EventsDigest, m.RawBodies, m.BodiesDigest = head, sent.eventsDigest(), sent.n, sent.bodiesDigest()
		return err
	})
}

// contents is what a store holds and does not make of the log itself.
type contents struct {
	head   eventstore.Position
	events iter.Seq2[eventstore.Event, error]
	bodies iter.Seq2[eventstore.KeptBody, error]
	state  state
}

// loader is the Loader of either store.
type loader interface {
	Events(ctx context.Context, head eventstore.Position, events iter.Seq2[eventstore.Event, error]) error
	RawBodies(ctx context.Context, bodies iter.Seq2[eventstore.KeptBody, error]) error
	Exec(ctx context.Context, text string, args ...any) error
}

// load writes the contents, and adds what goes by to the sums.
func (c contents) load(ctx context.Context, l loader, stage Stage, passing *sums, progress Progress) error {
	total := int64(c.head)
	progress.tell(stage, 0, total)
	done := int64(0)
	err := l.Events(ctx, c.head, observed(c.events, func(e eventstore.Event) {
		passing.event(e)
		if done++; done%progressEvery == 0 {
			progress.tell(stage, done, total)
		}
	}))
	if err != nil {
		return err
	}
	if err := l.RawBodies(ctx, observed(c.bodies, passing.body)); err != nil {
		return err
	}
	return c.state.put(ctx, l.Exec)
}

const progressEvery = 1000

func observed[T any](all iter.Seq2[T, error], see func(T)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range all {
			if err == nil {
				see(v)
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

// seal verifies the file, writes the manifest into it, and brings it to the disk.
func seal(ctx context.Context, partial string, m manifest, o Options) (Result, error) {
	verified, found, err := verifyFile(ctx, partial, 0, o)
	if err != nil {
		return Result{}, err
	}
	if !verified.Sound() {
		return Result{}, &DamagedError{What: "the store", Faults: verified.Faults, Total: verified.FaultsTotal}
	}
	if m.EventsDigest != "" {
		if differences := found.differences(m); len(differences) > 0 {
			return Result{}, &DamagedError{What: "the copy", Faults: differences, Total: int64(len(differences))}
		}
	}
	m.Head, m.EventsDigest, m.RawBodies, m.BodiesDigest = found.upTo, found.eventsDigest(), found.n, found.bodiesDigest()
	if err := inFile(partial, func(db *sql.DB) error { return writeManifest(ctx, db, m) }); err != nil {
		return Result{}, fmt.Errorf("write the manifest: %w", err)
	}
	f, err := os.OpenFile(partial, os.O_RDWR, 0)
	if err != nil {
		return Result{}, err
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return Result{}, err
	}
	return resultOf(m, verified, info.Size()), nil
}

func resultOf(m manifest, v *eventstore.Verification, size int64) Result {
	r := Result{Head: v.Head, Streams: v.Streams, Bytes: size, MadeAt: m.MadeAt, Source: m.Source}
	if v.RawBodies != nil {
		r.RawBodies = *v.RawBodies
	}
	return r
}

// verifyFile verifies a store's file. The sums are over the events up to the position,
// 0 for all.
func verifyFile(ctx context.Context, path string, upTo eventstore.Position, o Options) (_ *eventstore.Verification, found *sums, err error) {
	c, err := sqlite.OpenCopy(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return verify(ctx, c, upTo, o)
}

func verify(ctx context.Context, store eventstore.Verifiable, upTo eventstore.Position, o Options) (*eventstore.Verification, *sums, error) {
	if upTo == 0 {
		head, err := store.Head(ctx)
		if err != nil {
			return nil, nil, err
		}
		upTo = head
	}
	found := newSums(upTo)
	o.Progress.tell(StageVerify, 0, int64(upTo))
	v, err := eventstore.Verify(ctx, store, eventstore.VerifyOptions{
		Now: o.now(), Event: found.event, RawBody: found.body,
		Progress: func(done, total int64) { o.Progress.tell(StageVerify, done, total) },
	})
	return v, found, err
}

// differences compares what was found with what there must be.
func (s *sums) differences(m manifest) (faults []eventstore.Fault) {
	if s.upTo != m.Head || s.eventsDigest() != m.EventsDigest {
		faults = append(faults, eventstore.Fault{Kind: eventstore.FaultContent, Detail: fmt.Sprintf("the events up to position %d are not those that were backed up", m.Head)})
	}
	if s.n != m.RawBodies || s.bodiesDigest() != m.BodiesDigest {
		faults = append(faults, eventstore.Fault{Kind: eventstore.FaultRawBody, Detail: fmt.Sprintf("the %d raw bodies are not the %d that were backed up", s.n, m.RawBodies)})
	}
	return faults
}

// name gives the file its name, unless there is one of that name by now, and brings
// that to the disk.
func name(partial, file string) error {
	switch err := os.Link(partial, file); {
	case errors.Is(err, fs.ErrExist):
		return ErrFileExists
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the unfinished file is gone: has another backup to this name been started? %w", err)
	case err != nil:
		// A file system without hard links. Somebody who makes a file of that name at this
		// very moment loses it.
		if err := free(file); err != nil {
			return err
		}
		if err := os.Rename(partial, file); err != nil {
			return err
		}
	}
	return syncFolder(filepath.Dir(file))
}

// syncFolder brings names to the disk. Windows does not let a folder be synced.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // a file system that looks after names itself
	}
	return errors.Join(err, f.Close())
}
