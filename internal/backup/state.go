package backup

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// The tables that others keep beside the log: projections and internal/lease.
const (
	consumerSQL = `SELECT position FROM api_projection_checkpoints WHERE name = $1`
	// A lease without either is a lock and nothing more.
	leasesSQL = `SELECT name, epoch, last_run, state FROM api_leases WHERE last_run IS NOT NULL OR state IS NOT NULL ORDER BY name`

	// putConsumerSQL finds the row that the program's own start has made; a consumer that
	// the program no longer has needs none.
	putConsumerSQL = `UPDATE api_projection_checkpoints SET position = $2 WHERE name = $1`
	// putLeaseSQL leaves the lease to nobody, and raises the epoch so that one who holds
	// it in an empty store can write nothing more.
	putLeaseSQL = `INSERT INTO api_leases (name, owner, epoch, expires_at, last_run, state) VALUES ($1, '', $2, $3, $4, $5)
		ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = api_leases.epoch + excluded.epoch,
			expires_at = excluded.expires_at, last_run = excluded.last_run, state = excluded.state`
	freeLeasesSQL = `UPDATE api_leases SET owner = '', epoch = epoch + 1, expires_at = $1`
)

// leaseTime is how package lease writes times.
const leaseTime = "2006-01-02T15:04:05.000000Z"

// longAgo is when the leases of a restored store have expired.
var longAgo = time.Unix(0, 0).UTC().Format(leaseTime)

// querier reads either database: scan is called for each row.
type querier func(ctx context.Context, scan func(scan func(...any) error) error, text string, args ...any) error

func sqlQuerier(db *sql.DB) querier {
	return func(ctx context.Context, scan func(scan func(...any) error) error, text string, args ...any) (err error) {
		rows, err := db.QueryContext(ctx, text, args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // rows.Err has said what there is to say
		for rows.Next() {
			if err := scan(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	}
}

func readState(ctx context.Context, query querier, consumers []string) (s state, err error) {
	s = state{Consumers: []consumer{}, Leases: []lease{}}
	for _, name := range consumers {
		c := consumer{Name: name}
		err := query(ctx, func(scan func(...any) error) error {
			if err := scan(&c.Position); err != nil {
				return err
			}
			s.Consumers = append(s.Consumers, c)
			return nil
		}, consumerSQL, name)
		if err != nil {
			return s, fmt.Errorf("read how far %s has come: %w", name, err)
		}
	}
	err = query(ctx, func(scan func(...any) error) error {
		var l lease
		var lastRun timeColumn
		var text []byte
		if err := scan(&l.Name, &l.Epoch, &lastRun, &text); err != nil {
			return err
		}
		if !lastRun.t.IsZero() {
			l.LastRun = &lastRun.t
		}
		if text != nil {
			l.State = json.RawMessage(text)
		}
		s.Leases = append(s.Leases, l)
		return nil
	}, leasesSQL)
	if err != nil {
		return s, fmt.Errorf("read what jobs remember: %w", err)
	}
	return s, nil
}

// put writes the state through exec.
func (s state) put(ctx context.Context, exec func(ctx context.Context, text string, args ...any) error) error {
	for _, c := range s.Consumers {
		if err := exec(ctx, putConsumerSQL, c.Name, int64(c.Position)); err != nil {
			return fmt.Errorf("set how far %s has come: %w", c.Name, err)
		}
	}
	for _, l := range s.Leases {
		var lastRun, text *string
		if l.LastRun != nil {
			formatted := l.LastRun.UTC().Format(leaseTime)
			lastRun = &formatted
		}
		if l.State != nil {
			formatted := string(l.State)
			text = &formatted
		}
		if err := exec(ctx, putLeaseSQL, l.Name, l.Epoch+1, longAgo, lastRun, text); err != nil {
			return fmt.Errorf("write what job %s remembers: %w", l.Name, err)
		}
	}
	return nil
}

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
