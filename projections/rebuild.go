package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/keytrail/keytrail/eventstore"
)

// ErrRebuildReplaced says that a rebuild has ended because somebody began another one
// of the same projection.
var ErrRebuildReplaced = errors.New("another rebuild of the projection has begun")

// Rebuild folds the whole log anew and replaces the projection's tables. Readers see
// the old rows, which are kept current meanwhile, until they see the new ones. progress,
// if not nil, is called after every batch with the position reached and the head.
//
// When it fails the live tables are as they were. Errors: *UnknownError, *EventError
// where the log holds an event that cannot be folded, ErrRebuildReplaced.
func (e *Engine) Rebuild(ctx context.Context, name string, progress func(done, total eventstore.Position)) error {
	r, err := e.find(name)
	if err != nil {
		return err
	}
	if r.projection == nil {
		return fmt.Errorf("%s is a consumer: its effects are in the log, so there is nothing to rebuild", name)
	}
	if err := r.setUp(ctx); err != nil {
		return err
	}
	return r.rebuild(ctx, true, progress)
}

// rebuild builds and swaps. Where anew is false it goes on with what another process
// or an earlier attempt has left.
func (r *runner) rebuild(ctx context.Context, anew bool, progress func(done, total eventstore.Position)) error {
	if anew && !r.rebuilding.tryTake() {
		return fmt.Errorf("rebuild projection %s: it is being rebuilt already", r.name)
	}
	if !anew {
		if err := r.rebuilding.take(ctx); err != nil {
			return err
		}
	}
	defer r.rebuilding.release()
	doing := "rebuild projection " + r.name
	shadow, alone, err := r.beginRebuild(ctx, anew)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if progress == nil {
		progress = func(_, _ eventstore.Position) {}
	}
	err = r.build(ctx, shadow, alone, progress)
	if err == nil {
		r.engine.logger.InfoContext(ctx, "projection is rebuilt", "projection", r.name)
		return nil
	}
	if anew && !errors.Is(err, ErrRebuildReplaced) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		err = errors.Join(err, r.dropRebuild(ctx, shadow))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// beginRebuild makes the shadow tables and their checkpoint. Nobody goes on with a shadow
// of the version that the live tables have: whoever needs one begins anew. It is this
// process's alone.
func (r *runner) beginRebuild(ctx context.Context, anew bool) (shadow checkpoint, alone bool, err error) {
	e := r.engine
	shadow = checkpoint{
		name: r.name + rebuildSuffix, version: r.version, build: newBuild(), status: StateRebuilding, updatedAt: e.clock(),
	}
	err = inTx(ctx, e.db.Write, func(tx *sql.Tx) error {
		// The row of the live checkpoint orders rebuilds and swaps: whoever wants to begin
		// or end one touches it first.
		live, err := lockCheckpoint(ctx, tx, r.name)
		if err != nil {
			return err
		}
		if !anew && live.version == r.version {
			shadow = checkpoint{} // done meanwhile
			return nil
		}
		alone = anew && live.version == r.version
		old, err := loadCheckpoint(ctx, tx, shadow.name)
		switch {
		case errors.Is(err, errNoCheckpoint):
		case err != nil:
			return err
		case !anew && old.version == r.version:
			shadow = old
			return nil
		default:
			if err := r.discard(ctx, tx, old); err != nil {
				return err
			}
		}
		if _, err := insertCheckpoint(ctx, tx, shadow); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		return createTables(ctx, tx, r.projection.Schema(e.db.Dialect, shadow.tables()))
	})
	return shadow, alone, err
}

// lockCheckpoint reads the row and keeps others from changing it until the transaction
// ends.
func lockCheckpoint(ctx context.Context, tx *sql.Tx, name string) (checkpoint, error) {
	touched, err := changedOne(tx.ExecContext(ctx, `UPDATE api_projection_checkpoints SET name = name WHERE name = $1`, name))
	if err != nil {
		return checkpoint{}, fmt.Errorf("lock the checkpoint of %s: %w", name, err)
	}
	if !touched {
		return checkpoint{}, errNoCheckpoint
	}
	return loadCheckpoint(ctx, tx, name)
}

// discard drops the tables and the checkpoint of a rebuild.
func (r *runner) discard(ctx context.Context, tx *sql.Tx, shadow checkpoint) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM api_projection_checkpoints WHERE name = $1`, shadow.name)
	if err != nil {
		return fmt.Errorf("drop an old rebuild: %w", err)
	}
	for _, base := range r.projection.Tables() {
		// It may be of another version of the program, with other tables.
		if _, err := tx.ExecContext(ctx, `DROP TABLE IF EXISTS `+shadow.tables().Name(base)); err != nil {
			return fmt.Errorf("drop an old rebuild: %w", err)
		}
	}
	return nil
}

func (r *runner) dropRebuild(ctx context.Context, shadow checkpoint) error {
	return inTx(ctx, r.engine.db.Write, func(tx *sql.Tx) error {
		if _, err := lockCheckpoint(ctx, tx, r.name); err != nil {
			return err
		}
		current, err := loadCheckpoint(ctx, tx, shadow.name)
		if errors.Is(err, errNoCheckpoint) || (err == nil && current.build != shadow.build) {
			return nil
		}
		if err != nil {
			return err
		}
		return r.discard(ctx, tx, current)
	})
}

// build folds the log into the shadow tables and swaps them in.
func (r *runner) build(ctx context.Context, shadow checkpoint, alone bool, progress func(done, total eventstore.Position)) error {
	if shadow.name == "" {
		return nil
	}
	var last eventstore.Position
	forward := func(done, total eventstore.Position) {
		// What was folded and then lost to another process that rebuilds is folded again.
		last = max(last, done)
		progress(last, max(last, total))
	}
	rows := &stride{patience: rebuildStride, progress: forward}
	if alone {
		rows.alone = shadow.build
	}
	if d := r.engine.db.Dialect; d == SQLite {
		rows.batches = 2 * d.strideBatches()
	}
	for {
		if err := r.fill(ctx, shadow, rows, forward); err != nil {
			return err
		}
		// The runner of this process must not run away while the last events are folded.
		swapped, err := func() (bool, error) {
			if err := r.stepping.take(ctx); err != nil {
				return false, err
			}
			defer r.stepping.release()
			if err := r.fill(ctx, shadow, rows, forward); err != nil {
				return false, err
			}
			return r.swap(ctx, shadow)
		}()
		if err != nil || swapped {
			return err
		}
	}
}

// rebuildBatches is how many times larger than others a rebuild's batches are: a row
// that changes often is then written less often.
const rebuildBatches = 5

// fill folds until the head of the log.
func (r *runner) fill(ctx context.Context, shadow checkpoint, rows *stride, progress func(done, total eventstore.Position)) error {
	most := rebuildBatches * r.engine.batchSize
	limit := most
	for {
		c, head, err := r.step(ctx, shadow.name, pace{limit: limit, stride: rows})
		if err == nil && c.build != shadow.build {
			err = ErrRebuildReplaced
		}
		switch {
		case errors.Is(err, errNoCheckpoint):
			return r.ended(ctx, shadow)
		case err != nil && rows.torn: // it cannot go on from these rows
			now, loadErr := loadCheckpoint(ctx, r.engine.db.Read, shadow.name)
			if errors.Is(loadErr, errNoCheckpoint) || loadErr == nil && now.build != shadow.build {
				return ErrRebuildReplaced
			}
			return err
		case errors.Is(err, errOvertaken):
			continue
		case err != nil && limit > 1 && ctx.Err() == nil && !errors.Is(err, ErrRebuildReplaced):
			limit = 1
			continue
		case err != nil:
			return err
		}
		limit = min(2*limit, most)
		progress(c.position, head)
		if c.position >= head {
			return nil
		}
	}
}

// ended tells why a rebuild's checkpoint is gone: another process that worked on the
// same rebuild has swapped it in, or somebody has dropped it.
func (r *runner) ended(ctx context.Context, shadow checkpoint) error {
	live, err := loadCheckpoint(ctx, r.engine.db.Read, r.name)
	if err != nil {
		return err
	}
	if live.build == shadow.build {
		return nil
	}
	return ErrRebuildReplaced
}

// swap puts the shadow in the place of the live tables and reports false where the
// live ones are further.
func (r *runner) swap(ctx context.Context, shadow checkpoint) (bool, error) {
	e := r.engine
	swapped := false
	err := inTx(ctx, e.db.Write, func(tx *sql.Tx) error {
		live, err := lockCheckpoint(ctx, tx, r.name)
		if err != nil {
			return err
		}
		if live.build == shadow.build {
			swapped = true
			return nil
		}
		ready, err := lockCheckpoint(ctx, tx, shadow.name)
		if errors.Is(err, errNoCheckpoint) || (err == nil && ready.build != shadow.build) {
			return ErrRebuildReplaced
		}
		if err != nil {
			return err
		}
		if live.version == r.version && ready.position < live.position {
			return nil // readers must not see time go back
		}
		for _, base := range r.projection.Tables() {
			for _, statement := range []string{
				`DROP TABLE IF EXISTS ` + Live().Name(base),
				`ALTER TABLE ` + ready.tables().Name(base) + ` RENAME TO ` + Live().Name(base),
			} {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("swap the tables: %w", err)
				}
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM api_projection_checkpoints WHERE name = $1`, ready.name); err != nil {
			return fmt.Errorf("swap the checkpoints: %w", err)
		}
		_, err = tx.ExecContext(ctx, `
			UPDATE api_projection_checkpoints SET version = $1, build = $2, position = $3, updated_at = $4, error = ''
			WHERE name = $5`,
			ready.version, ready.build, ready.position, FormatTime(e.clock()), r.name)
		if err != nil {
			return fmt.Errorf("swap the checkpoints: %w", err)
		}
		swapped = true
		return nil
	})
	return swapped, err
}
