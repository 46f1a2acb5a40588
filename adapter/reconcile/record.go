package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// meta is the metadata of the run's events. What keytrail notes on a user's stream
// it notes on its own account: whoever asked for the run did not change the user.
func (n *run) meta(actor adapter.Actor) adapter.Metadata {
	m := adapter.Metadata{
		CorrelationID: n.call.CorrelationID, Actor: &actor, Reason: n.call.Reason,
		Source: n.call.Source, Traceparent: n.call.Traceparent,
	}
	cause := n.started.ID
	if cause == uuid.Nil {
		cause = n.call.CausationID
	}
	if cause != uuid.Nil {
		m.CausationID = &cause
	}
	return m
}

// derived is the id of the event of this kind about this user: one in each run.
func (n *run) derived(kind, userID string) uuid.UUID {
	return eventstore.DerivedID(n.id, n.state.StartedAt, source+"."+kind+":"+userID, 0)
}

// record appends to the run's own stream what is waiting and then the payloads.
func (n *run) record(ctx context.Context, payloads ...adapter.Payload) error {
	if err := n.resolve(ctx); err != nil {
		return err
	}
	now := n.Clock()
	for _, p := range payloads {
		n.drafts = append(n.drafts, adapter.Draft{Payload: p, OccurredAt: now, Meta: n.meta(n.call.Actor)})
	}
	for _, d := range n.drafts {
		e, err := n.Codec.Encode(ctx, d)
		if err != nil {
			return err
		}
		n.unsure = append(n.unsure, e)
	}
	n.drafts = nil
	return n.resolve(ctx)
}

// resolve appends the events of which it is not sure that they are recorded. An
// append whose answer did not come is repeated as it was: the store takes it for the
// same one. The stream is at the version that this run has left it at, unless
// somebody else has declared the run dead: then it ends.
func (n *run) resolve(ctx context.Context) error {
	if len(n.unsure) == 0 {
		return nil
	}
	recorded, err := n.Store.Append(ctx, eventstore.StreamAppend{
		Stream: adapter.ReconciliationStream(n.id), Expected: eventstore.ExpectVersion(n.state.Version), Events: n.unsure,
	})
	var conflict *eventstore.ConflictError
	if errors.As(err, &conflict) {
		if n.state.Version > 0 {
			n.unsure = nil
			if err := n.stillOurs(ctx); err != nil {
				return err
			}
		}
		return n.endedElsewhere(err)
	}
	if err != nil {
		return fmt.Errorf("recording run %s: %w", n.id, err)
	}
	n.unsure = nil
	for _, e := range recorded {
		d, err := n.Codec.Decode(ctx, e)
		if err != nil {
			return err
		}
		n.state.Apply(d)
		if e.Type == adapter.TypeReconciliationStarted {
			n.started = e
		}
	}
	return nil
}

// batch is how many drifts are recorded in one transaction.
const batch = 100

// flush records the drifts that are waiting.
func (n *run) flush(ctx context.Context) error { return n.record(ctx) }

// find records a drift that appears or changes, and counts one that is known.
func (n *run) find(ctx context.Context, f adapter.Finding) error {
	previous, known := n.open[f.UserID]
	if known && sameFinding(previous, f) {
		n.standing(previous)
		return nil
	}
	n.count(f.UserID)
	n.touched[f.UserID] = struct{}{}
	phase := adapter.DriftAppeared
	if known {
		phase = adapter.DriftAltered
	}
	now := n.Clock()
	f.Since, f.RunID = now, n.id
	if f.Fields == nil {
		f.Fields = []adapter.FieldDifference{}
	}
	n.findings = append(n.findings, f)
	n.log.DebugContext(ctx, "drift detected", "user_id", f.UserID, "situation", f.Situation, "phase", phase)
	return n.drift(ctx, now, f, phase)
}

// end records that a drift is over.
func (n *run) end(ctx context.Context, userID string) error {
	n.log.DebugContext(ctx, "drift ended", "user_id", userID)
	return n.drift(ctx, n.Clock(), n.open[userID], adapter.DriftEnded)
}

func (n *run) drift(ctx context.Context, at time.Time, f adapter.Finding, phase adapter.DriftPhase) error {
	n.drafts = append(n.drafts, adapter.Draft{
		ID: n.derived("drift", f.UserID), OccurredAt: at, Meta: n.meta(n.call.Actor),
		Payload: &adapter.DriftDetected{
			RunID: n.id, Realm: n.realm, UserID: f.UserID, Username: f.Username,
			Phase: phase, Situation: f.Situation, Fields: f.Fields, CallID: f.CallID,
		},
	})
	if len(n.drafts) < batch {
		return nil
	}
	return n.flush(ctx)
}

// adoption is what the run has read of a user and nobody believed yet.
type adoption struct {
	userID   string
	baseline bool
	append   eventstore.StreamAppend
}

// adoptUser notes a user as the starting point: one never heard of, or, in a baseline,
// any. occurredAt is when it was read at the latest.
func (n *run) adoptUser(ctx context.Context, live keycloak.User, t told, occurredAt time.Time) error {
	expected, id := eventstore.ExpectNone(), n.derived("baseline", live.ID)
	if n.req.Trigger == adapter.TriggerBaseline {
		expected, id = eventstore.ExpectAny(), n.origin.derived(live.ID)
	}
	return n.adopt(ctx, live.ID, true, expected, adapter.Draft{
		ID: id, OccurredAt: occurredAt,
		Payload: &adapter.UserApiBaselined{
			UserRef: adapter.UserRef{Realm: n.realm, UserID: live.ID},
			Set:     profileOf(live, false), Memberships: t.Memberships, CreatedAt: createdAt(live), RunID: n.id.String(),
		},
	})
}

// adoptFields notes fields that were never seen, or that were inferred and are as they
// were read. The profile was read at readAt, the memberships perhaps before: what was
// read at different times is noted as different events, for each wins only over what
// occurred before it. Where settles says that events have left something open of a user
// with whom nothing else differs, and all was read, all is noted, as a complete read.
func (n *run) adoptFields(ctx context.Context, live keycloak.User, profile adapter.Profile, t told, fields []string, readAt time.Time, settles bool) error {
	observed := adapter.UserApiObserved{
		UserRef: adapter.UserRef{Realm: n.realm, UserID: live.ID},
		Present: true, CreatedAt: createdAt(live), Because: "reconciliation",
	}
	whole := settles && len(profile.Fields()) == len(profileFields) && n.whole(t.Memberships)
	if whole {
		fields = slices.Concat(profile.Fields(), t.Fields())
	}
	set, memberships := pick(profile, fields...), pickMemberships(t.Memberships, fields...)
	all := observed
	all.Set, all.Memberships, all.Complete = set, memberships, whole
	if whole || t.at.Equal(readAt) || len(set.Fields()) == 0 || len(memberships.Fields()) == 0 {
		at := readAt
		if len(memberships.Fields()) > 0 {
			at = t.at
		}
		return n.adopt(ctx, live.ID, false, eventstore.ExpectAny(),
			adapter.Draft{ID: n.derived("observed", live.ID), OccurredAt: at, Payload: &all})
	}
	apart := observed
	apart.Memberships = memberships
	observed.Set = set
	return n.adopt(ctx, live.ID, false, eventstore.ExpectAny(),
		adapter.Draft{ID: n.derived("observed.memberships", live.ID), OccurredAt: t.at, Payload: &apart},
		adapter.Draft{ID: n.derived("observed", live.ID), OccurredAt: readAt, Payload: &observed})
}

func (n *run) adopt(ctx context.Context, userID string, baseline bool, expected eventstore.Expected, drafts ...adapter.Draft) error {
	events := make([]eventstore.NewEvent, 0, len(drafts))
	for _, d := range drafts {
		d.Meta = n.meta(adapter.System(source))
		e, err := n.Codec.Encode(ctx, d)
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	n.adoptions = append(n.adoptions, adoption{userID: userID, baseline: baseline, append: eventstore.StreamAppend{
		Stream: adapter.UserStream(n.realm, userID), Expected: expected, Events: events,
	}})
	return nil
}

// flushAdoptions records a page's adoptions in one transaction. Where a user was
// heard of meanwhile, or was adopted by the same baseline before, it records them one by
// one and leaves that user alone.
func (n *run) flushAdoptions(ctx context.Context) error {
	all := n.adoptions
	n.adoptions = nil
	if len(all) == 0 {
		return nil
	}
	appends := make([]eventstore.StreamAppend, len(all))
	for i, a := range all {
		appends[i] = a.append
	}
	var conflict *eventstore.ConflictError
	_, err := n.Store.Append(ctx, appends...)
	again := errors.Is(err, eventstore.ErrEventIDReused)
	if err != nil && !errors.As(err, &conflict) && !again {
		return fmt.Errorf("recording users as read: %w", err)
	}
	for _, a := range all {
		if conflict != nil || again {
			_, err := n.Store.Append(ctx, a.append)
			var heard *eventstore.ConflictError
			if errors.Is(err, eventstore.ErrEventIDReused) && n.req.Trigger == adapter.TriggerBaseline {
				n.adoptedBefore++
				continue
			}
			if errors.As(err, &heard) {
				n.postpone(adapter.Finding{UserID: a.userID, Situation: adapter.SituationUnexpectedLive})
				continue
			}
			if err != nil {
				return fmt.Errorf("recording user %s as read: %w", a.userID, err)
			}
		}
		if a.baseline {
			n.baselined++
		} else {
			n.observed++
		}
	}
	return nil
}

// createdAt is Keycloak's creation time of a user, nil where it tells none.
func createdAt(u keycloak.User) *time.Time {
	if u.CreatedTimestamp == nil || *u.CreatedTimestamp <= 0 {
		return nil
	}
	at := time.UnixMilli(*u.CreatedTimestamp).UTC()
	return &at
}

func (n *run) complete(ctx context.Context) error {
	counts := map[adapter.Situation]int{}
	for _, f := range n.findings {
		counts[f.Situation]++
	}
	compared, without := n.memberships.scope()
	done := &adapter.ReconciliationCompleted{
		RunID: n.id, Realm: n.realm,
		Compared:  n.compared,
		InSync:    n.compared - len(n.findings) - n.unsettled - n.differing.left,
		Findings:  counts,
		Unsettled: n.unsettled + n.unread(),
		Baselined: n.baselined,
		Baseline:  n.req.Trigger == adapter.TriggerBaseline, ComparedFields: compared, NotCompared: without,
	}
	if err := n.record(ctx, done); err != nil {
		return err
	}
	n.log.InfoContext(ctx, "reconciliation completed", "compared", done.Compared, "in_sync", done.InSync,
		"findings", len(n.findings), "unsettled", done.Unsettled, "unread", n.unread(), "baselined", done.Baselined)
	return nil
}

func (n *run) unread() int { return n.differing.left + n.unlisted.left }

// abortTimeout bounds the recording of a run's end after it was cancelled.
const abortTimeout = 5 * time.Second

// abort records why the run ends, and returns both. It works without the caller's
// context, which may be what ended it. Where only the answer to the run's completion
// was lost, the run is completed after all.
func (n *run) abort(ctx context.Context, why *stopError) (Result, error) {
	var cause *adapter.Error
	if why.err.Code == adapter.CodeInterrupted && errors.As(context.Cause(ctx), &cause) {
		why.err.Detail = cause.Detail // who has cancelled it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	var err error
	if n.state.Status != adapter.RunAborted && why.err.Code != adapter.CodeRunInProgress {
		if err = n.resolve(ctx); err == nil && n.state.Status == adapter.RunCompleted {
			return n.result(), nil
		}
		if err == nil {
			err = n.record(ctx, &adapter.ReconciliationAborted{
				RunID: n.id, Realm: n.realm, Status: string(why.status), Code: why.err.Code, Message: message(why.err),
			})
		}
	}
	n.log.WarnContext(ctx, "reconciliation ended without a judgement",
		"status", why.status, "code", why.err.Code, "error", why.err.Detail)
	if err != nil && n.state.Status != adapter.RunAborted {
		// The next run of the realm finds it unfinished and ends it.
		n.log.ErrorContext(ctx, "recording the run's end", "error", err)
	}
	if n.state.Status == why.status {
		return n.result(), why.err
	}
	at := n.Clock()
	n.state.Status, n.state.FinishedAt = why.status, &at
	n.state.Code, n.state.Error = why.err.Code, message(why.err)
	return n.result(), why.err
}

// message is what is recorded of an error: what happened, and the next step.
func message(e *adapter.Error) string {
	if e.Try == "" {
		return e.Error()
	}
	return e.Error() + "\nTry: " + e.Try
}

// endInterrupted ends an earlier run that a crash has left open. Only one run at a
// time is under way, so nobody is working on it; where somebody is after all, that
// run notices before its next request.
func (n *run) endInterrupted(ctx context.Context, id uuid.UUID) error {
	events, err := n.Codec.ReadStream(ctx, n.Store, adapter.ReconciliationStream(id))
	if err != nil {
		return err
	}
	if state, _ := adapter.FoldReconciliation(events); state.Status != adapter.RunRunning {
		return nil
	}
	_, err = n.endRun(ctx, events, adapter.CallContext{Actor: adapter.System(source), Source: source}, died)
	var conflict *eventstore.ConflictError
	if errors.As(err, &conflict) {
		return nil
	}
	return err
}

// result is the run as it stands.
func (n *run) result() Result {
	res := Result{Reconciliation: n.state, Verdict: Incomplete, Observed: n.observed, Pending: n.pending, Unread: n.unread()}
	if res.Pending == nil {
		res.Pending = []adapter.Finding{}
	}
	if n.state.Status != adapter.RunCompleted {
		return res
	}
	slices.SortFunc(n.findings, func(a, b adapter.Finding) int { return strings.Compare(a.UserID, b.UserID) })
	res.Findings = append(res.Findings, n.findings[:min(len(n.findings), adapter.MaxRunFindings)]...)
	switch {
	case len(n.findings) > 0:
		res.Verdict = Drift
	case n.unread() == 0 && !slices.ContainsFunc(n.state.NotCompared, adapter.NotCompared.Failed):
		res.Verdict = InSync
	}
	return res
}
