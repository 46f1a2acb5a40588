package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
)

// storeError says in one line why the store cannot be opened or migrated, and what to do
// about it. What the configuration is at fault for is a *usageError. Other errors, an
// *eventstore.SchemaError among them, come back as they are.
func storeError(cfg *config.Config, u config.StoreURL, err error) error {
	var schema *eventstore.SchemaError
	var known *adapter.Error
	if err == nil || errors.As(err, &schema) || errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	setting := "KEYTRAIL_STORE_URL"
	if u != cfg.Store.URL {
		setting = "KEYTRAIL_STORE_ADMIN_URL"
	}
	fault := sqliteFault
	if u.Kind == config.Postgres {
		fault = postgresFault
	}
	f := fault(u, setting, err)
	if f.fact == "" {
		return err
	}
	detail := fmt.Sprintf("the event store %s: %s", u, f.fact)
	if f.configured {
		return &usageError{fmt.Errorf("%s\nTry: %s", detail, f.try)}
	}
	return &adapter.Error{Code: adapter.CodeStoreUnavailable, Detail: detail, Try: f.try, Err: err}
}

// storeFault is what is wrong with a store; no fact means that it is nothing known.
type storeFault struct {
	fact, try string
	// configured is true where the configuration is at fault.
	configured bool
}

// sqliteError and postgresError are what the drivers' errors tell beyond their text.
type (
	sqliteError interface {
		error
		Code() int
	}
	postgresError interface {
		error
		SQLState() string
	}
)

// Primary result codes of SQLite (sqlite.org/rescode.html).
const (
	sqlitePermission   = 3
	sqliteBusy         = 5
	sqliteLocked       = 6
	sqliteReadOnly     = 8
	sqliteCorrupt      = 11
	sqliteFull         = 13
	sqliteCannotOpen   = 14
	sqliteNotADatabase = 26
)

// primary is the code without its extension, which stands in the higher bytes.
func primary(e sqliteError) int { return e.Code() & 0xff }

func sqliteFault(u config.StoreURL, setting string, err error) storeFault {
	another := "name another file with " + setting
	info, statErr := os.Stat(u.Path)
	if statErr == nil && info.IsDir() {
		return storeFault{"is a folder, not a file", "name a file in it with " + setting + ", such as sqlite:" + filepath.Join(u.Path, "keytrail.db"), true}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		folder := filepath.Dir(u.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return storeFault{"there is no folder " + folder, "create it, or " + another, true}
		case errors.Is(err, fs.ErrPermission):
			return storeFault{"this user may not open or create it", "give keytrail's user the rights to the file and to the folder " + folder + ", or " + another, true}
		}
		return storeFault{"cannot be opened: " + path.Err.Error(), another, true}
	}
	var e sqliteError
	if !errors.As(err, &e) {
		return storeFault{}
	}
	switch primary(e) {
	case sqliteNotADatabase:
		return storeFault{"the file is not a SQLite database", another, true}
	case sqliteCorrupt:
		return storeFault{"the file is damaged: " + e.Error(), "restore a backup", false}
	case sqliteBusy, sqliteLocked:
		return storeFault{"another process has been writing to it for too long", "wait for that process, or end it, and give the command again", false}
	case sqliteFull:
		return storeFault{"the disk is full", "make room, and give the command again", false}
	case sqliteReadOnly, sqlitePermission, sqliteCannotOpen:
		return storeFault{"this user may not open or write it: " + e.Error(), "give keytrail's user the rights to the file, its -wal and -shm, and their folder", false}
	}
	if errors.Is(err, eventstore.ErrUnavailable) {
		return storeFault{"cannot be read or written now: " + e.Error(), "look for the disk's fault in the system's log, and give the command again", false}
	}
	return storeFault{}
}

func postgresFault(_ config.StoreURL, setting string, err error) storeFault {
	var pg postgresError
	switch unavailable := errors.Is(err, eventstore.ErrUnavailable); {
	case errors.As(err, &pg):
		message, state := lastLine(pg.Error()), pg.SQLState() // PostgreSQL manual, appendix A
		switch {
		case strings.HasPrefix(state, "28"):
			return storeFault{"PostgreSQL refuses the login: " + message, "correct user and password in " + setting + ", or admit them in pg_hba.conf", true}
		case state == "3D000":
			return storeFault{message, "create the database, or name another with " + setting, true}
		case state == "42501":
			return storeFault{
				message, "give the role of KEYTRAIL_STORE_URL its rights, and run keytrail migrate as the owner, who stands in KEYTRAIL_STORE_ADMIN_URL", true,
			}
		case unavailable:
			return storeFault{"PostgreSQL cannot serve now: " + message, "look into PostgreSQL's log, and give the command again", false}
		}
	case unavailable:
		why := lastLine(err.Error()) // one line for each attempt
		var network *net.OpError
		if errors.As(err, &network) {
			why = network.Error()
		}
		return storeFault{"PostgreSQL cannot be reached: " + why, "check that PostgreSQL is running and that host, port and sslmode in " + setting + " are right", false}
	default:
		// What the driver makes of a URL that it cannot read; it hides the password.
		if _, why, ok := strings.Cut(err.Error(), "cannot parse "); ok {
			return storeFault{"the driver cannot read " + why, "correct " + setting, true}
		}
	}
	return storeFault{}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// storeInUse reports whether another process has a SQLite file open. Each connection in
// WAL mode keeps a shared lock for as long as it lives, which an exclusive one has to
// wait for; a command that only reads is waited for. A process that opens the file right
// afterwards goes unnoticed: migrations and appends exclude each other all the same.
func storeInUse(ctx context.Context, path string) (inUse bool, err error) {
	if _, err := os.Stat(path); err != nil {
		return false, nil // who opens it next says what is wrong
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return false, err
	}
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(2000)", "locking_mode(EXCLUSIVE)"}}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(absolute), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, `BEGIN EXCLUSIVE; ROLLBACK`)
	var e sqliteError
	if errors.As(err, &e) && (primary(e) == sqliteBusy || primary(e) == sqliteLocked) {
		return true, nil
	}
	return false, err
}
