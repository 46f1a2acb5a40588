package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
)

// ErrNotABackup says that a file was not made by Write.
var ErrNotABackup = errors.New("the file is not a backup")

// ErrUnverified says that a store has been restored and could not be verified
// afterwards.
var ErrUnverified = errors.New("the store is restored and was not verified")

// Restore fills the store at a place, which must have no events, from a backup, and
// verifies what is there afterwards. The backup is verified before anything is
// written, and the store is filled in one transaction. A backup with an older schema is
// brought up to date in a copy of its own.
//
// Errors: ErrNotABackup; ErrUnverified; *DamagedError; eventstore.ErrNotEmpty; *eventstore.SchemaError
// where a newer program has made the backup; eventstore.ErrUnavailable; the context's;
// the file system's.
func Restore(ctx context.Context, file string, to Place, o Options) (_ Result, err error) {
	doing := "restore " + file
	if begun, err := hasEvents(ctx, to); err != nil || begun {
		return Result{}, fmt.Errorf("%s: %w", doing, errors.Join(err, notEmpty(begun)))
	}
	room := "" // for an old backup's copy: beside the store where that is a file, which needs as much
	if to.URL == "" {
		room = filepath.Dir(to.Path)
	}
	b, err := openBackup(ctx, file, room)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if _, err := b.check(ctx, o); err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	if err := o.Migrate(ctx, to); err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	if err := b.load(ctx, to, o); err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	restored, err := b.compare(ctx, to, o)
	var damaged *DamagedError
	if err != nil && !errors.As(err, &damaged) {
		err = fmt.Errorf("%w: %w", ErrUnverified, err)
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	return resultOf(b.manifest, restored, b.size), nil
}

// Check verifies a backup without restoring it, and writes nothing, unless it has an
// older schema: then a copy of it, in the system's folder for temporary files. Errors
// are those of Restore that concern the file.
func Check(ctx context.Context, file string, o Options) (_ Result, err error) {
	doing := "check " + file
	b, err := openBackup(ctx, file, "")
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { err = errors.Join(err, b.close()) }()
	v, err := b.check(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", doing, err)
	}
	return resultOf(b.manifest, v, b.size), nil
}

func notEmpty(begun bool) error {
	if begun {
		return eventstore.ErrNotEmpty
	}
	return nil
}

// hasEvents looks for events before any work is done. A store that is not there yet, or
// is not migrated, has none; what else is wrong with it is found when it is migrated.
func hasEvents(ctx context.Context, p Place) (begun bool, err error) {
	if p.URL == "" {
		if info, err := os.Stat(p.Path); err != nil || info.Size() == 0 {
			return false, nil
		}
	}
	store, err := Open(ctx, p)
	var schema *eventstore.SchemaError
	if errors.As(err, &schema) && schema.Current < schema.Supported {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	head, err := store.Head(ctx)
	return head > 0, err
}

// Open opens the store at a place. Errors are those of its package.
func Open(ctx context.Context, p Place) (eventstore.Store, error) {
	if p.URL != "" {
		s, err := postgres.Open(ctx, p.URL, postgres.Options{})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := sqlite.Open(ctx, p.Path, sqlite.Options{})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// backupFile is a backup that is being restored.
type backupFile struct {
	file     string
	size     int64
	copy     *sqlite.Copy
	manifest manifest
	// head is that of the file, which may be behind the manifest's where the file was used
	// as a store; all are the sums over everything up to it.
	head eventstore.Position
	all  *sums
	// folder is where an old backup was brought up to date, or empty.
	folder string
}

// openBackup opens a backup; room is the folder for its copy where it needs one, the
// system's for temporary files where empty.
func openBackup(ctx context.Context, file, room string) (_ *backupFile, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is no regular file", ErrNotABackup)
	}
	b := &backupFile{file: file, size: info.Size()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	var schema *eventstore.SchemaError
	b.copy, err = sqlite.OpenCopy(ctx, file)
	switch {
	case errors.As(err, &schema) && schema.Current == 0:
		return nil, fmt.Errorf("%w: it is an empty database", ErrNotABackup)
	case isNoDatabase(err):
		return nil, fmt.Errorf("%w: it is no SQLite database", ErrNotABackup)
	case isCorrupt(err):
		return nil, b.damaged(eventstore.Fault{Kind: eventstore.FaultUnreadable, Detail: err.Error()})
	case err != nil:
		return nil, err
	}
	b.manifest, err = readManifest(ctx, b.copy.DB())
	switch {
	case errors.Is(err, errNoManifest):
		return nil, ErrNotABackup
	case err != nil:
		return nil, b.damaged(eventstore.Fault{Kind: eventstore.FaultUnreadable, Detail: err.Error()})
	}
	version, err := b.copy.Schema(ctx)
	if err != nil {
		return nil, err
	}
	if version.Current < version.Supported {
		return b, b.bringUpToDate(ctx, room)
	}
	return b, nil
}

// Primary result codes of SQLite (sqlite.org/rescode.html).
const (
	sqliteError        = 1 // what a damaged schema is said to be
	sqliteCorrupt      = 11
	sqliteNotADatabase = 26
)

func isNoDatabase(err error) bool { return primaryCode(err) == sqliteNotADatabase }

func isCorrupt(err error) bool {
	return primaryCode(err) == sqliteCorrupt || primaryCode(err) == sqliteError
}

// primaryCode is the code without its extension, which stands in the higher bytes.
func primaryCode(err error) int {
	var e interface{ Code() int }
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}

// bringUpToDate goes on with a copy that has this program's schema.
func (b *backupFile) bringUpToDate(ctx context.Context, room string) (err error) {
	if b.folder, err = os.MkdirTemp(room, "keytrail-restore-"); err != nil {
		return err
	}
	updated := filepath.Join(b.folder, "backup.db")
	if err := copyFile(b.file, updated); err != nil {
		return err
	}
	if err := sqlite.Migrate(ctx, updated); err != nil {
		return err
	}
	if err := b.copy.Close(); err != nil {
		return err
	}
	b.copy, err = sqlite.OpenCopy(ctx, updated)
	return err
}

// copyFile copies a database and the log of changes that may lie beside it.
func copyFile(from, to string) error {
	for _, suffix := range []string{"", "-wal"} {
		in, err := os.Open(from + suffix)
		if suffix != "" && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		out, err := os.OpenFile(to+suffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return errors.Join(err, in.Close())
		}
		_, err = io.Copy(out, in)
		if err := errors.Join(err, out.Close(), in.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (b *backupFile) close() error {
	var err error
	if b.copy != nil {
		err = b.copy.Close()
	}
	if b.folder != "" {
		err = errors.Join(err, os.RemoveAll(b.folder))
	}
	return err
}

func (b *backupFile) damaged(faults ...eventstore.Fault) error {
	return &DamagedError{What: b.file, Faults: faults, Total: int64(len(faults))}
}

// check verifies the file against its manifest.
func (b *backupFile) check(ctx context.Context, o Options) (*eventstore.Verification, error) {
	head, err := b.copy.Head(ctx)
	if err != nil {
		return nil, b.damaged(eventstore.Fault{Kind: eventstore.FaultUnreadable, Detail: err.Error()})
	}
	b.head, b.all = head, newSums(head)
	first := newSums(b.manifest.Head)
	o.Progress.tell(StageVerify, 0, int64(head))
	v, err := eventstore.Verify(ctx, b.copy, eventstore.VerifyOptions{
		Event: func(e eventstore.Event) {
			first.event(e)
			b.all.event(e)
		},
		RawBody: func(body eventstore.KeptBody) {
			first.body(body)
			b.all.body(body)
		},
		Progress: func(done, total int64) { o.Progress.tell(StageVerify, done, total) },
	})
	if err != nil {
		return nil, err
	}
	faults, total := v.Faults, v.FaultsTotal
	if differences := first.differences(b.manifest); len(differences) > 0 {
		faults, total = append(differences, faults...), total+int64(len(differences))
	}
	if total > 0 {
		return nil, &DamagedError{What: b.file, Faults: faults, Total: total}
	}
	return v, nil
}

// load fills the store. What is read is compared once more, before it is committed.
func (b *backupFile) load(ctx context.Context, to Place, o Options) error {
	load := func(ctx context.Context, l loader) error {
		passing := newSums(b.head)
		c := contents{
			head: b.head, events: b.copy.ReadLog(ctx, eventstore.LogQuery{}), bodies: b.copy.RawBodies(ctx), state: b.manifest.state,
		}
		if err := c.load(ctx, l, StageLoad, passing, o.Progress); err != nil {
			return err
		}
		if differences := passing.differences(b.expected()); len(differences) > 0 {
			return b.damaged(differences...)
		}
		return nil
	}
	if to.URL != "" {
		return postgres.Load(ctx, to.URL, func(ctx context.Context, l *postgres.Loader) error { return load(ctx, l) })
	}
	return sqlite.Load(ctx, to.Path, func(ctx context.Context, l *sqlite.Loader) error { return load(ctx, l) })
}

// expected is what the file was found to hold.
func (b *backupFile) expected() manifest {
	m := b.manifest
	m.Head, m.EventsDigest, m.RawBodies, m.BodiesDigest = b.head, b.all.eventsDigest(), b.all.n, b.all.bodiesDigest()
	return m
}

// compare verifies the store as it is now.
func (b *backupFile) compare(ctx context.Context, to Place, o Options) (_ *eventstore.Verification, err error) {
	store, err := Open(ctx, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	v, found, err := verify(ctx, store, b.head, o)
	if err != nil {
		return nil, err
	}
	faults := v.Faults
	if v.Head == b.head { // nobody has gone on yet
		faults = append(found.differences(b.expected()), faults...)
	}
	if len(faults) > 0 {
		return nil, &DamagedError{What: "the restored store", Faults: faults, Total: max(int64(len(faults)), v.FaultsTotal)}
	}
	return v, nil
}
