package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// resumeWithin is how old a baseline may be for another run to go on with it: what it
// has adopted before is not read again.
const resumeWithin = 24 * time.Hour

// Baseline adopts every live user of a realm, whatever was believed of it, as the
// starting point: one UserApiBaselined each, with roles, groups and organizations. It
// compares nothing, and ends the drift of those it adopts; believed users that are not
// live are the next run's to report. From then on users never heard of are
// unexpected_live.
//
// It is resumable: after a crash, a cancellation or a failure, a repeat within a day goes
// on where it ended, and no user is adopted twice. It is recorded as a run with the
// trigger "baseline". Errors are those of Run; a list of memberships that fails ends it,
// one that the service account may not read is left out.
func (r *Runner) Baseline(ctx context.Context, req Request) (Result, error) {
	req.Trigger = adapter.TriggerBaseline
	return r.execute(ctx, req, (*run).adoptAll)
}

// derived is the id of a user's adoption: one in each baseline, whichever run makes it.
func (b OpenBaseline) derived(userID string) uuid.UUID {
	return eventstore.DerivedID(b.RunID, b.StartedAt, source+".baseline:"+userID, 0)
}

// resume finds the baseline to go on with. It returns nil where the run is none, or
// begins one.
func (n *run) resume(ctx context.Context) (*uuid.UUID, error) {
	if n.req.Trigger != adapter.TriggerBaseline {
		return nil, nil //nolint:nilnil // there is nothing to resume
	}
	open, ok, err := n.History.OpenBaseline(ctx, n.realm)
	if err != nil {
		return nil, fmt.Errorf("looking for a baseline to go on with: %w", err)
	}
	if !ok || n.Clock().Sub(open.StartedAt) > resumeWithin {
		n.origin = OpenBaseline{RunID: n.id}
		return nil, nil //nolint:nilnil // this run begins it
	}
	n.origin = open
	return &open.RunID, nil
}

func (n *run) adoptAll(ctx context.Context) error {
	n.adopted = map[uint64]struct{}{}
	err := n.History.Adopted(ctx, n.realm, n.origin.Runs, func(userID string) {
		n.adopted[n.digests.of("id", userID)] = struct{}{}
	})
	if err != nil {
		return fmt.Errorf("reading who was adopted before: %w", err)
	}
	if err := n.Settler.CatchUp(ctx, n.realm); err != nil {
		return n.behind(ctx, err)
	}
	if err := n.list(ctx); err != nil {
		return err
	}
	for _, id := range n.ended {
		if err := n.end(ctx, id); err != nil {
			return err
		}
	}
	return n.complete(ctx)
}

// adoptListed adopts a listed user.
func (n *run) adoptListed(ctx context.Context, live keycloak.User, believed adapter.User, readAt time.Time) error {
	n.compared++
	n.endDrift(live.ID)
	if _, before := n.adopted[n.digests.of("id", live.ID)]; before {
		n.adoptedBefore++
		return nil
	}
	t, err := n.listedMemberships(ctx, live, readAt)
	if err != nil {
		return err
	}
	if t.at.Before(readAt) && !believed.Last.At.Before(t.at) {
		// Something has happened to the user since the sweep began: what that told may be
		// older than what is believed.
		fresh, err := n.readMemberships(ctx, live.ID, append(n.memberships.from(swept), n.memberships.from(alone)...))
		if err != nil {
			return err
		}
		t = told{Memberships: fresh, at: readAt}
	}
	return n.adoptUser(ctx, live, t, t.at)
}
