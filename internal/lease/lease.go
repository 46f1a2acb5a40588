// Package lease lets one process at a time do a job that several could do, such as
// polling a realm or reconciling it on schedule, and remembers what it last did.
//
// A lease is a row with a holder, an expiry and an epoch. It is taken when it is free
// or has expired, which raises the epoch, and has to be renewed. A holder that was
// paused for longer than its time to live may still believe that it holds the lease;
// it can then write nothing here, because every write names its epoch, but what it
// does elsewhere has to be harmless when done twice. Processes compare times by their
// own clocks, so the time to live should be far above the difference of those.
package lease

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// VersionTable records which of this package's migrations a database has.
const VersionTable = "api_lease_schema_version"

// ErrLost says that the lease belongs to somebody else by now.
var ErrLost = errors.New("the lease has been taken over by another process")

//go:embed migrations
var migrations embed.FS

// Migrate creates the table or brings it up to date.
func Migrate(ctx context.Context, db *sql.DB, d sqlmigrate.Dialect) error {
	m, err := migrator(db, d)
	if err != nil {
		return err
	}
	return m.Up(ctx)
}

// CheckSchema returns a *eventstore.SchemaError when the database needs Migrate or is
// newer than this program.
func CheckSchema(ctx context.Context, db *sql.DB, d sqlmigrate.Dialect) error {
	m, err := migrator(db, d)
	if err != nil {
		return err
	}
	return m.Check(ctx)
}

func migrator(db *sql.DB, d sqlmigrate.Dialect) (*sqlmigrate.Migrator, error) {
	folder := "migrations/sqlite"
	if d == sqlmigrate.Postgres {
		folder = "migrations/postgres"
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return nil, err
	}
	return sqlmigrate.New(db, d, VersionTable, files)
}

// Leases hands out leases. It is safe for concurrent use.
type Leases struct {
	db    *sql.DB
	clock func() time.Time
}

// New returns leases kept in db, which must be able to write. A nil clock is the
// machine's.
func New(db *sql.DB, clock func() time.Time) *Leases {
	if clock == nil {
		clock = time.Now
	}
	return &Leases{db: db, clock: clock}
}

// Lease is the right to do a job until it expires. It is safe for concurrent use.
type Lease struct {
	Name string
	// Owner is who holds it, for people; what counts is Epoch.
	Owner string
	Epoch int64

	leases *Leases
	ttl    time.Duration
}

// Acquire takes the lease for ttl and reports false where somebody else, or another
// part of this process, holds it.
func (l *Leases) Acquire(ctx context.Context, name, owner string, ttl time.Duration) (*Lease, bool, error) {
	now := l.clock()
	lease := &Lease{Name: name, Owner: owner, leases: l, ttl: ttl}
	err := l.db.QueryRowContext(ctx, `
		INSERT INTO api_leases (name, owner, epoch, expires_at) VALUES ($1, $2, 1, $3)
		ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = api_leases.epoch + 1, expires_at = excluded.expires_at
		WHERE api_leases.expires_at <= $4
		RETURNING epoch`, name, owner, format(now.Add(ttl)), format(now)).Scan(&lease.Epoch)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("acquire lease %s: %w", name, err)
	}
	return lease, true, nil
}

// Renew extends the lease by its time to live from now. ErrLost says that somebody
// else has it; one that has expired and that nobody took is extended.
func (l *Lease) Renew(ctx context.Context) error {
	return l.update(ctx, "renew", `expires_at = $1`, format(l.leases.clock().Add(l.ttl)))
}

// Release gives the lease back at once. Releasing one that is lost does nothing.
func (l *Lease) Release(ctx context.Context) error {
	err := l.update(ctx, "release", `expires_at = $1`, format(time.Unix(0, 0)))
	if errors.Is(err, ErrLost) {
		return nil
	}
	return err
}

// Ran records when the job was last done; Record.LastRun tells it to whoever does it
// next, also after a restart.
func (l *Lease) Ran(ctx context.Context, at time.Time) error {
	return l.update(ctx, "record the run of", `last_run = $1`, format(at))
}

// Save keeps the job's own state, such as a watermark, as JSON. It replaces the state
// before.
func (l *Lease) Save(ctx context.Context, state any) error {
	b, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("save the state of lease %s: %w", l.Name, err)
	}
	return l.update(ctx, "save the state of", `state = $1`, string(b))
}

// update writes while the lease is held.
func (l *Lease) update(ctx context.Context, doing, set string, value any) error {
	result, err := l.leases.db.ExecContext(ctx, `UPDATE api_leases SET `+set+` WHERE name = $2 AND epoch = $3`, value, l.Name, l.Epoch)
	if err == nil {
		var n int64
		if n, err = result.RowsAffected(); err == nil && n == 0 {
			err = ErrLost
		}
	}
	if err != nil {
		return fmt.Errorf("%s lease %s: %w", doing, l.Name, err)
	}
	return nil
}

// Record is what is kept under a lease's name.
type Record struct {
	Owner     string
	Epoch     int64
	ExpiresAt time.Time
	// LastRun is when the job was last done, zero for never.
	LastRun time.Time
	// State is what the job saved, nil for nothing.
	State json.RawMessage
}

// Read returns what is kept under the name, and false where it was never acquired.
// Anybody may read.
func (l *Leases) Read(ctx context.Context, name string) (Record, bool, error) {
	var r Record
	var expires, lastRun timeColumn
	var state []byte
	err := l.db.QueryRowContext(ctx, `SELECT owner, epoch, expires_at, last_run, state FROM api_leases WHERE name = $1`, name).
		Scan(&r.Owner, &r.Epoch, &expires, &lastRun, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read lease %s: %w", name, err)
	}
	r.ExpiresAt, r.LastRun, r.State = expires.t, lastRun.t, state
	return r, true, nil
}

// cleanUp bounds the release of a lease after its context has ended.
const cleanUp = 2 * time.Second

// Hold runs f while holding the lease, which it renews meanwhile, and reports false
// without calling f where somebody else holds it. When the lease is lost, or cannot be
// renewed until it expires, f's context is cancelled with that as its cause.
func (l *Leases) Hold(ctx context.Context, name, owner string, ttl time.Duration, f func(context.Context, *Lease) error) (ran bool, err error) {
	lease, ok, err := l.Acquire(ctx, name, owner, ttl)
	if err != nil || !ok {
		return false, err
	}
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(lease.keep(held))
	}()
	defer func() {
		cancel(nil)
		<-done
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		err = errors.Join(err, lease.Release(ctx))
	}()
	return true, f(held, lease)
}

// keep renews three times per time to live until the context ends or the lease is lost.
func (l *Lease) keep(ctx context.Context) error {
	tick := time.NewTicker(max(l.ttl/3, time.Millisecond))
	defer tick.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		attempt, cancel := context.WithTimeout(ctx, l.ttl/3)
		err := l.Renew(attempt)
		cancel()
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrLost):
			return err
		default:
			if failures++; failures >= 2 {
				return err // it expires before there is another chance
			}
		}
	}
}

// timeFormat has a fixed width, so that text order is time order in SQLite.
const timeFormat = "2006-01-02T15:04:05.000000Z"

func format(t time.Time) string { return t.UTC().Format(timeFormat) }

// timeColumn reads a time from either database.
type timeColumn struct{ t time.Time }

// Scan implements sql.Scanner.
func (c *timeColumn) Scan(src any) (err error) {
	switch v := src.(type) {
	case nil:
	case time.Time:
		c.t = v.UTC()
	case string:
		c.t, err = time.Parse(time.RFC3339Nano, v)
	default:
		err = fmt.Errorf("time column holds a %T", src)
	}
	return err
}
