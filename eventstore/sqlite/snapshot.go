package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/internal/backend"
	"github.com/keytrail/keytrail/eventstore/internal/snapshot"
)

var _ eventstore.Snapshotter = (*Store)(nil)

// snapshotSQL walks the end of the primary key: few rows, the newest first.
const snapshotSQL = `SELECT n.version, n.state, n.digest, n.created_at,
	coalesce((SELECT s.version FROM api_streams s WHERE s.aggregate_id = n.aggregate_id AND s.stream = $4), 0)
FROM api_snapshots n WHERE n.aggregate_id = $1 AND n.shape = $2 AND ($3 = 0 OR n.version <= $3) ORDER BY n.version DESC`

// Snapshot implements eventstore.Snapshotter.
func (s *Store) Snapshot(ctx context.Context, stream eventstore.StreamID, shape string, notAfter eventstore.Version) (eventstore.Snapshot, error) {
	var found []snapshot.Row
	doing := "read a snapshot of stream " + stream.String()
	err := s.reading(ctx, doing, func(ctx context.Context) (err error) {
		rows, err := s.read.QueryContext(ctx, snapshotSQL, stream.AggregateID().String(), shape, int64(notAfter), stream.String())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			r := snapshot.Row{Snapshot: eventstore.Snapshot{Stream: stream, Shape: shape}}
			var state []byte
			var takenAt string
			if err := rows.Scan(&r.Version, &state, &r.Digest, &takenAt, &r.StreamVersion); err != nil {
				return err
			}
			r.State = state
			// Nothing but people's eyes depends on the time.
			r.TakenAt, _ = time.Parse(timeFormat, takenAt)
			found = append(found, r)
		}
		return rows.Err()
	})
	if err != nil {
		return eventstore.Snapshot{}, err
	}
	if sound, ok := s.snapshots.First(ctx, s.log, found); ok {
		return sound, nil
	}
	return eventstore.Snapshot{}, fmt.Errorf("%s: %w", doing, eventstore.ErrNotFound)
}

// snapshotLimit bounds the wait for the writing connection and the transaction.
const snapshotLimit = 10 * time.Second

// SaveSnapshot implements eventstore.Snapshotter.
func (s *Store) SaveSnapshot(ctx context.Context, n eventstore.Snapshot) error {
	doing := "save a snapshot of stream " + n.Stream.String()
	if err := snapshot.Check(n); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	opCtx, over, err := s.life.Begin(ctx)
	if err != nil {
		return err
	}
	defer over()
	limited, cancel := context.WithTimeout(opCtx, snapshotLimit)
	defer cancel()
	actual, err := s.saveSnapshot(limited, n)
	if isDeadline(err) && opCtx.Err() == nil {
		return fmt.Errorf("%s: %w: the writing connection was in use for more than %s", doing, eventstore.ErrUnavailable, snapshotLimit)
	}
	if err := backend.Ended(ctx, s.life, classify(doing, err)); err != nil {
		return err
	}
	if actual < n.Version {
		return fmt.Errorf("%s: %w", doing, snapshot.Ahead(n, actual))
	}
	return nil
}

// saveSnapshot returns the version of the stream. It writes nothing where that is
// below the snapshot's.
func (s *Store) saveSnapshot(ctx context.Context, n eventstore.Snapshot) (actual eventstore.Version, err error) {
	// Preparing outside keeps the write lock, which appends wait for, short.
	id, stream := n.Stream.AggregateID().String(), n.Stream.String()
	state, digest, takenAt := string(n.State), snapshot.Digest(n), formatTime(n.TakenAt)
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() {
		if rollback := tx.Rollback(); !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, rollback)
		}
	}()
	err = tx.QueryRowContext(ctx, `SELECT version FROM api_streams WHERE aggregate_id = $1 AND stream = $2`, id, stream).Scan(&actual)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	if actual < n.Version {
		return actual, nil
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO api_snapshots (aggregate_id, version, shape, state, created_at, digest)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (aggregate_id, shape, version) DO UPDATE
			SET state = excluded.state, created_at = excluded.created_at, digest = excluded.digest`,
		id, int64(n.Version), n.Shape, state, takenAt, digest); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM api_snapshots
		WHERE aggregate_id = $1 AND (
			version > $2
			OR (shape <> $3 AND version <= $4)
			OR (shape = $3 AND version <= (
				SELECT m.version FROM api_snapshots m WHERE m.aggregate_id = $1 AND m.shape = $3 AND m.version <= $2
				ORDER BY m.version DESC LIMIT 1 OFFSET $5)))`,
		id, int64(actual), n.Shape, int64(n.Version), eventstore.SnapshotsKept); err != nil {
		return 0, err
	}
	return actual, tx.Commit()
}
