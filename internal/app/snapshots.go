package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keytrail/keytrail/adapter/snapshots"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/lease"
)

const (
	// snapshotInterval is how often the log is looked through for users whose streams have
	// grown. Events are left alone for much longer.
	snapshotInterval = 30 * time.Second
	// snapshotsLease names the lease, and what is kept under it.
	snapshotsLease = "snapshots"
	// snapshotsTTL is how long a process that died keeps others from taking snapshots.
	snapshotsTTL = 30 * time.Second
)

// snapshotTaker takes snapshots of users, beside everything else.
func (a *App) snapshotTaker() *snapshots.Taker {
	return &snapshots.Taker{
		Store: a.Store, Snapshots: a.Snapshots, Codec: a.Codec, After: a.Config.Store.SnapshotAfter,
		Progress: snapshotProgress{a.Leases},
		Woken: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(snapshotInterval):
			}
			return ctx.Err()
		},
		Clock: a.Clock, Logger: a.Logger,
		Observe: func(o snapshots.Outcome) { a.Metrics.Snapshots.WithLabelValues(string(o)).Inc() },
	}
}

// snapshotProgress keeps in the leases' table how far the log was gone through.
type snapshotProgress struct{ leases *lease.Leases }

type snapshotsState struct {
	// Shape is that of the snapshots taken so far: those of another are taken anew.
	Shape    string              `json:"shape"`
	Position eventstore.Position `json:"position"`
}

func (p snapshotProgress) Position(ctx context.Context, shape string) (eventstore.Position, error) {
	record, ok, err := p.leases.Read(ctx, snapshotsLease)
	if err != nil || !ok || record.State == nil {
		return 0, err
	}
	var s snapshotsState
	if err := json.Unmarshal(record.State, &s); err != nil || s.Shape != shape {
		return 0, nil //nolint:nilerr // the log is gone through again, which costs time and does no harm
	}
	return s.Position, nil
}

func (p snapshotProgress) Hold(ctx context.Context, shape string, f func(context.Context, eventstore.Position, snapshots.Save) error) error {
	_, err := p.leases.Hold(ctx, snapshotsLease, owner(), snapshotsTTL, func(ctx context.Context, l *lease.Lease) error {
		from, err := p.Position(ctx, shape)
		if err != nil {
			return err
		}
		return f(ctx, from, func(ctx context.Context, position eventstore.Position) error {
			return l.Save(ctx, snapshotsState{Shape: shape, Position: position})
		})
	})
	return err
}

// tolerantSnapshots lets readers do without snapshots where these cannot be read: what
// hinders more than that shows when the stream is read.
type tolerantSnapshots struct {
	eventstore.Snapshotter
	log *slog.Logger
}

func (s tolerantSnapshots) Snapshot(ctx context.Context, stream eventstore.StreamID, shape string, notAfter eventstore.Version) (eventstore.Snapshot, error) {
	found, err := s.Snapshotter.Snapshot(ctx, stream, shape, notAfter)
	if err != nil && ctx.Err() == nil && !errors.Is(err, eventstore.ErrNotFound) && !errors.Is(err, eventstore.ErrClosed) {
		s.log.WarnContext(ctx, "snapshot could not be read", "stream", stream.String(), "error", err)
		err = fmt.Errorf("%w: %w", eventstore.ErrNotFound, err)
	}
	return found, err
}
