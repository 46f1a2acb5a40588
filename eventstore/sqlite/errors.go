package sqlite

import (
	"context"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/keytrail/keytrail/eventstore"
)

// classify turns a driver's error into the contract's terms.
func classify(doing string, err error) error {
	if err == nil {
		return nil
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	var fact string
	switch e.Code() & 0xff { // extended codes carry the primary one in the low byte
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		fact = "another process has been writing to the database for too long"
	case sqlite3.SQLITE_FULL:
		fact = "the disk is full"
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		fact = "the database may not be written to"
	case sqlite3.SQLITE_CANTOPEN:
		fact = "the database file cannot be opened"
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT:
		fact = "the database file cannot be read or written now"
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %s: %w", doing, eventstore.ErrUnavailable, fact, err)
}

// isConstraint reports whether the database itself refused a row: somebody has
// written past the gate.
func isConstraint(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_CONSTRAINT
}

// isDeadline reports whether this package's own limit ended an operation.
func isDeadline(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
