package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
)

// SQLSTATEs that the store tells apart (PostgreSQL manual, appendix A).
const (
	codeSerializationFailure = "40001"
	codeDeadlockDetected     = "40P01"
	codeUniqueViolation      = "23505"
	codeCheckViolation       = "23514"
	codeAdminShutdown        = "57P01"
	codeCrashShutdown        = "57P02"
)

// classify turns a driver's error into the contract's terms.
func classify(doing string, err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		if isConnection(err) {
			return fmt.Errorf("%s: %w: %w", doing, eventstore.ErrUnavailable, err)
		}
		return fmt.Errorf("%s: %w", doing, err)
	}
	switch {
	case pg.Code == "22P02" || pg.Code == "22021" || pg.Code == "22P05" || pg.Code == "54001":
		// The server's JSON parser is stricter than ours somewhere (nesting, say).
		return fmt.Errorf("%s: %w: PostgreSQL refuses it: %w", doing, eventstore.ErrInvalidEvent, err)
	case strings.HasPrefix(pg.Code, "08"), // connection
		strings.HasPrefix(pg.Code, "53"), // resources: disk full, memory, connections
		strings.HasPrefix(pg.Code, "57"), // the operator: shutdown, cancel
		strings.HasPrefix(pg.Code, "58"), // the machine: I/O error
		strings.HasPrefix(pg.Code, "40"), // rolled back: serialization, deadlock
		pg.Code == "55P03",               // lock timeout
		pg.Code == "55000",               // api_append's own word: the log is not as it was
		pg.Code == "25006":               // read-only: a standby after a failover
		return fmt.Errorf("%s: %w: %w", doing, eventstore.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// isConnection reports whether an error that PostgreSQL did not send comes from
// not reaching it, or from this package's own time limit.
func isConnection(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded)
}

// classifyAppend adds what only an append can meet.
func classifyAppend(err error) error {
	const doing = "write to the log"
	var pg *pgconn.PgError
	if errors.As(err, &pg) && isUniqueViolation(err) {
		// Under the order lock only a row that was written past api_append does this.
		spoiled := fmt.Errorf("%s: %w: the log and the gate disagree, rows were written past api_append: %w", doing, eventstore.ErrUnavailable, err)
		if strings.HasSuffix(pg.ConstraintName, "event_id") {
			spoiled = fmt.Errorf("%s: %w: %s", doing, eventstore.ErrEventIDReused, pg.Detail)
		}
		return &backend.SpoiledError{Err: spoiled}
	}
	return classify(doing, err)
}

// isUniqueViolation reports whether a row was there already.
func isUniqueViolation(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == codeUniqueViolation
}

// isNoPartition reports whether a position has no partition yet.
func isNoPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == codeCheckViolation && pg.ConstraintName == ""
}

// isLost reports whether a statement may have been committed although its answer did
// not come.
func isLost(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "08") || pg.Code == codeAdminShutdown || pg.Code == codeCrashShutdown
	}
	return isConnection(err) && !pgconn.SafeToRetry(err) && !errors.Is(err, context.DeadlineExceeded)
}

// isRetryable reports whether nothing was written for reasons that a second attempt
// may not meet: PostgreSQL rolled it back, or the connection had been cut while idle.
func isRetryable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == codeSerializationFailure || pg.Code == codeDeadlockDetected
	}
	var connect *pgconn.ConnectError
	return pgconn.SafeToRetry(err) && !errors.As(err, &connect) && !errors.Is(err, context.DeadlineExceeded)
}
