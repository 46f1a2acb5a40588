package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

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
	err := s.reading(ctx, doing, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, snapshotSQL, pgUUID(stream.AggregateID()), shape, int32(notAfter), stream.String())
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (snapshot.Row, error) {
			r := snapshot.Row{Snapshot: eventstore.Snapshot{Stream: stream, Shape: shape}}
			var state []byte
			err := row.Scan(&r.Version, &state, &r.Digest, &r.TakenAt, &r.StreamVersion)
			r.State, r.TakenAt = state, r.TakenAt.UTC()
			return r, err
		})
		return err
	})
	if err != nil {
		return eventstore.Snapshot{}, err
	}
	if sound, ok := s.snapshots.First(ctx, s.log, found); ok {
		return sound, nil
	}
	return eventstore.Snapshot{}, fmt.Errorf("%s: %w", doing, eventstore.ErrNotFound)
}

// SaveSnapshot implements eventstore.Snapshotter.
func (s *Store) SaveSnapshot(ctx context.Context, n eventstore.Snapshot) error {
	doing := "save a snapshot of stream " + n.Stream.String()
	if err := snapshot.Check(n); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	var actual eventstore.Version
	err := s.reading(ctx, doing, func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT api_save_snapshot($1, $2, $3, $4, $5::text::json, $6, $7, $8)`,
			pgUUID(n.Stream.AggregateID()), n.Stream.String(), int32(n.Version), n.Shape, string(n.State),
			snapshot.Digest(n), backend.Microseconds(n.TakenAt), eventstore.SnapshotsKept).Scan(&actual)
	})
	if err != nil {
		return err
	}
	if actual < n.Version {
		return fmt.Errorf("%s: %w", doing, snapshot.Ahead(n, actual))
	}
	return nil
}
