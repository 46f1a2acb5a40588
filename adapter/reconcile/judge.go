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
	"github.com/keytrail/keytrail/keycloak"
)

// readUser reads one live user, at the rate that the run may.
func (n *run) readUser(ctx context.Context, id string) (keycloak.User, error) {
	if err := n.turn(ctx); err != nil {
		return keycloak.User{}, err
	}
	return n.Live.User(ctx, n.realm, id)
}

// maxCallTime is how long a call is under way at the most: four reads and a write, with
// five attempts each of 30 s and up to 5 s between two of them, and 30 s until the outcome
// is recorded. One that is older was lost with its process, or its answer was, and nothing
// more will come of it that could explain a difference.
const maxCallTime = 15 * time.Minute

// writes are keytrail's own writes to one user of which no outcome is known.
type writes struct {
	// inFlight is true where one may be under way, or its event on its way here.
	inFlight bool
	// lost is the newest of those that are too old for that, nil where there is none.
	lost *uuid.UUID
}

// writesTo looks for writes to a user. Until the answer comes, or the user has been read,
// a creation and a command that names the user do not know its id: those are found by
// the names.
func (n *run) writesTo(ctx context.Context, id string, names ...string) (writes, error) {
	open, err := n.Calls.Open(ctx, n.realm, id)
	if err != nil {
		return writes{}, fmt.Errorf("looking for calls on user %s: %w", id, err)
	}
	if len(names) > 0 {
		unidentified, err := n.Calls.Open(ctx, n.realm, "")
		if err != nil {
			return writes{}, fmt.Errorf("looking for calls on realm %s: %w", n.realm, err)
		}
		for _, c := range unidentified {
			if c.Username != "" && slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(c.Username, name) }) {
				open = append(open, c)
			}
		}
	}
	var w writes
	var newest time.Time
	for _, c := range open {
		switch {
		case isYoung(lastSeen(c), n.Clock(), max(n.Settle, maxCallTime)):
			w.inFlight = true
		case w.lost == nil || c.RequestedAt.After(newest):
			w.lost, newest = &c.CallID, c.RequestedAt
		}
	}
	return w, nil
}

// lastSeen is the last sign of life of a call whose outcome is not known.
func lastSeen(c adapter.Call) time.Time {
	at := c.RequestedAt
	for _, a := range c.Attempts {
		if end := a.StartedAt.Add(time.Duration(a.DurationMS * float64(time.Millisecond))); end.After(at) {
			at = end
		}
	}
	return at
}

// belief is what is believed of one user, folded from the log, beside the
// projection's row.
type belief struct {
	user  adapter.User
	known bool
	// deletion is the event that deleted the user, where it is believed deleted.
	deletion adapter.Origin

	row      adapter.User
	rowKnown bool
}

// believe folds the user's stream anew: the projection may have advanced since the
// listing, or be wrong.
func (n *run) believe(ctx context.Context, id string) (belief, error) {
	events, err := n.Codec.ReadStream(ctx, n.Store, adapter.UserStream(n.realm, id))
	if err != nil {
		return belief{}, err
	}
	rows, err := n.Believed.Users(ctx, n.realm, []string{id})
	if err != nil {
		return belief{}, fmt.Errorf("reading the believed user %s: %w", id, err)
	}
	var b belief
	b.user, b.known = adapter.FoldUser(events)
	b.row, b.rowKnown = rows[id]
	if b.known && b.user.Deleted {
		b.deletion = deletionOf(events)
	}
	return b, nil
}

// deletionOf is the newest event that says that the user is gone.
func deletionOf(events []adapter.Decoded) adapter.Origin {
	sorted := slices.Clone(events)
	adapter.SortForFold(sorted)
	for _, e := range slices.Backward(sorted) {
		switch p := e.Payload.(type) {
		case *adapter.UserApiDeleted:
			return adapter.Origin{EventID: e.ID, At: e.OccurredAt, Actor: e.Meta.Actor}
		case *adapter.UserApiObserved:
			if !p.Present {
				return adapter.Origin{EventID: e.ID, At: e.OccurredAt, Actor: e.Meta.Actor}
			}
		}
	}
	return adapter.Origin{}
}

// stale returns the fields in which the projection's row contradicts the events that
// it claims to include. A row that is merely behind is not stale.
func (b belief) stale() []adapter.FieldChange {
	if !b.rowKnown || b.row.Version < b.user.Version {
		return nil
	}
	return adapter.DiffUsers(b.row, b.user, append(slices.Clone(comparedFields), fieldDeleted)...)
}

// fieldDeleted is the name under which adapter.DiffUsers compares existence.
const fieldDeleted = "deleted"

func (n *run) judgeQueue(ctx context.Context, q *queue) error {
	for _, id := range q.ids {
		if err := n.judge(ctx, id, nil); err != nil {
			return err
		}
	}
	return n.flush(ctx)
}

// judge decides about one suspect: it is read again, alone, then keytrail's own writes to
// it are looked for, and what is believed of it is folded again after that. So belief is
// never older than the read, and a write that was under way during the read is either
// found or believed. shared are the values that another user has too.
func (n *run) judge(ctx context.Context, id string, shared []uniqueKey) error {
	if _, done := n.judged[id]; done {
		return nil
	}
	own, err := n.writesTo(ctx, id)
	if err != nil {
		return err
	}
	if own.inFlight {
		return n.inFlight(ctx, id)
	}
	readAt := n.Clock()
	live, err := n.readUser(ctx, id)
	var api *keycloak.APIError
	gone := errors.As(err, &api) && api.UserNotFound()
	readable := err == nil || !unreadable(err)
	if err != nil && !gone && readable {
		return n.keycloakFailure(ctx, "reading user "+id, err)
	}
	b, err := n.believe(ctx, id)
	if err != nil {
		return err
	}
	var t told
	if readable && !gone && b.known && !b.user.Deleted {
		if t, err = n.judgedMemberships(ctx, live, b.user, readAt); err != nil {
			return err
		}
	}
	// A call that was opened meanwhile may have changed the user before the read.
	if own, err = n.writesTo(ctx, id, live.Username, b.user.Username); err != nil {
		return err
	}
	if b, err = n.believe(ctx, id); err != nil {
		return err
	}
	n.judged[id] = struct{}{}
	username := live.Username
	if username == "" {
		username = b.user.Username
	}
	f := adapter.Finding{UserID: id, Username: username, CallID: own.lost}
	switch {
	case own.inFlight:
		f.Situation = adapter.SituationInFlight
		n.postpone(f)
		return nil
	case !readable:
		f.Situation = adapter.SituationUnreadable
		return n.find(ctx, f)
	case !b.known && b.rowKnown:
		// A row that no event accounts for.
		return n.judgeRow(ctx, f, b)
	case gone:
		return n.judgeGone(ctx, f, b)
	case !b.known || b.user.Deleted:
		return n.judgeUnexpected(ctx, f, b, live)
	default:
		return n.judgeKnown(ctx, f, b, live, t, readAt, shared)
	}
}

// count counts a user that no page held as compared; the listing counts the others.
func (n *run) count(id string) {
	if !n.digests.hasSeen(id) {
		n.compared++
	}
}

// inFlight counts a suspect that keytrail itself is writing to, without reading it.
func (n *run) inFlight(ctx context.Context, id string) error {
	b, err := n.believe(ctx, id)
	if err != nil {
		return err
	}
	n.judged[id] = struct{}{}
	n.postpone(adapter.Finding{UserID: id, Username: b.user.Username, Situation: adapter.SituationInFlight})
	return nil
}

func (n *run) judgeGone(ctx context.Context, f adapter.Finding, b belief) error {
	if !b.known || b.user.Deleted {
		// Gone on both sides: it was deleted, or never heard of, meanwhile.
		return n.judgeRow(ctx, f, b)
	}
	f.Situation = adapter.SituationMissingLive
	if isYoung(b.user.Last.At, n.Clock(), n.Settle) {
		n.postpone(f)
		return nil
	}
	return n.find(ctx, f)
}

func (n *run) judgeUnexpected(ctx context.Context, f adapter.Finding, b belief, live keycloak.User) error {
	now := n.Clock()
	f.Situation = adapter.SituationUnexpectedLive
	switch {
	case !b.known:
		if at := createdAt(live); at != nil && isYoung(*at, now, n.Settle) {
			n.postpone(f)
			return nil
		}
	default:
		if isYoung(b.deletion.At, now, n.Settle) {
			n.postpone(f)
			return nil
		}
		d, err := fieldDifference(fieldDeleted, true, false, b.deletion)
		if err != nil {
			return err
		}
		f.Fields = []adapter.FieldDifference{d}
	}
	return n.find(ctx, f)
}

// judgeKnown decides about a user that lives and is believed to.
func (n *run) judgeKnown(ctx context.Context, f adapter.Finding, b belief, live keycloak.User, t told, readAt time.Time, shared []uniqueKey) error {
	now := n.Clock()
	c := Compare(b.user, live, true).join(n.settledMemberships(b.user, t))
	carried := n.carried(f.UserID, t.Memberships)
	differences, young := settled(c.Differences, now, n.Settle)
	dropped, youngDropped := settled(c.Dropped, now, n.Settle)

	adopt := n.adoptable(b.user, c)
	for _, d := range dropped {
		adopt = append(adopt, d.Field)
	}
	if len(adopt) > 0 {
		settles := b.user.Unread != nil && len(c.Differences)+len(youngDropped)+len(carried) == 0
		if err := n.adoptFields(ctx, live, profileOf(live, true), t, adopt, readAt, settles); err != nil {
			return err
		}
		if err := n.flushAdoptions(ctx); err != nil {
			return err
		}
	}

	fields, err := recordable(differences)
	if err != nil {
		return err
	}
	f.Fields, f.Situation = withCarried(fields, carried), adapter.SituationChanged
	if len(shared) > 0 {
		return n.findDuplicate(ctx, f, b, shared)
	}
	switch {
	case len(f.Fields) > 0:
		return n.find(ctx, f)
	case len(young)+len(youngDropped) > 0:
		if f.Fields, err = recordable(slices.Concat(young, youngDropped)); err != nil {
			return err
		}
		n.postpone(f)
		return nil
	default:
		return n.judgeRow(ctx, f, b)
	}
}

// adoptable names the fields that are to be noted as read: those never seen, and those
// that were inferred long enough ago and are so.
func (n *run) adoptable(believed adapter.User, c Comparison) []string {
	fields := slices.Concat(c.Adopt.Fields(), c.AdoptMemberships.Fields())
	now := n.Clock()
	for _, field := range c.Confirmed {
		if !isYoung(lastBelieved(believed.Origins[field]), now, n.Settle) {
			fields = append(fields, field)
		}
	}
	return fields
}

// settledMemberships compares a user's memberships. What was inferred well before they
// were read is adopted as it was read, for it is no belief that could be contradicted; what
// was inferred after that stays as it is until it is read again.
func (n *run) settledMemberships(believed adapter.User, t told) Comparison {
	t.Memberships = n.withClientIDs(believed, t.Memberships)
	c := CompareMemberships(believed, t.Memberships)
	var adopt []string
	young := func(field string) bool { return isYoung(lastBelieved(believed.Origins[field]), t.at, n.Settle) }
	c.Dropped = slices.DeleteFunc(c.Dropped, func(d Difference) bool {
		if young(d.Field) {
			return false
		}
		adopt = append(adopt, d.Field)
		return true
	})
	c.Confirmed = slices.DeleteFunc(c.Confirmed, young)
	c.AdoptMemberships = merge(c.AdoptMemberships, pickMemberships(t.Memberships, adopt...))
	return c
}

// judgeRow is for a user of whom the log's account is true: only the projection may
// still be wrong.
func (n *run) judgeRow(ctx context.Context, f adapter.Finding, b belief) error {
	changes := b.stale()
	if len(changes) == 0 {
		if b.known && !b.user.Deleted {
			n.count(f.UserID)
		}
		n.endDrift(f.UserID)
		return nil
	}
	// Between the log and a row of ours no call comes in.
	f.Situation, f.Fields, f.CallID = adapter.SituationStaleProjection, nil, nil
	for _, change := range changes {
		origin := b.user.Origins[change.Field]
		if change.Field == fieldDeleted {
			origin = b.deletion
		}
		d, err := fieldDifference(change.Field, change.Old, change.New, origin)
		if err != nil {
			return err
		}
		f.Fields = append(f.Fields, d)
	}
	return n.find(ctx, f)
}

// postpone counts a difference that cannot be judged yet. A drift that the user
// already has stays open.
func (n *run) postpone(f adapter.Finding) {
	n.count(f.UserID)
	n.unsettled++
	n.touched[f.UserID] = struct{}{}
	if len(n.pending) < adapter.MaxRunFindings {
		f.Since, f.RunID = n.Clock(), n.id
		if f.Fields == nil {
			f.Fields = []adapter.FieldDifference{}
		}
		n.pending = append(n.pending, f)
	}
}

// judgeDuplicates finds users that share a name or an address, which no two users of
// a realm may. The listing keeps digests only, so where two were equal it is read
// once more for those that share them.
func (n *run) judgeDuplicates(ctx context.Context) error {
	if len(n.digests.collisions) == 0 {
		return nil
	}
	emails, err := n.uniqueEmails(ctx)
	if err != nil {
		return err
	}
	owners := map[uniqueKey]map[string]struct{}{}
	held := 0
	err = n.pages(ctx, len(n.digests.seen), func(page []keycloak.User, _ time.Time) error {
		for _, u := range page {
			for _, key := range n.digests.uniqueKeys(u, emails) {
				if _, ok := n.digests.collisions[key.digest]; !ok || held >= n.MaxReads {
					continue
				}
				if owners[key] == nil {
					owners[key] = map[string]struct{}{}
				}
				owners[key][u.ID] = struct{}{}
				held++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	shared := map[string][]uniqueKey{}
	for key, ids := range owners {
		confirmed, err := n.stillOwned(ctx, key, ids, emails)
		if err != nil {
			return err
		}
		if len(confirmed) < 2 {
			continue
		}
		for _, id := range confirmed {
			shared[id] = append(shared[id], key)
		}
	}
	for id, keys := range shared {
		slices.SortFunc(keys, func(a, b uniqueKey) int { return strings.Compare(a.field, b.field) })
		// The listing has taken it for one in sync, or for one whose known drift stands.
		n.findings = slices.DeleteFunc(n.findings, func(f adapter.Finding) bool { return f.UserID == id })
		n.ended = slices.DeleteFunc(n.ended, func(e string) bool { return e == id })
		if err := n.judge(ctx, id, keys); err != nil {
			return err
		}
	}
	return n.flush(ctx)
}

// stillOwned returns those of the users that have the value when read again: an
// address may have wandered from one user to another between two pages.
func (n *run) stillOwned(ctx context.Context, key uniqueKey, ids map[string]struct{}, emails bool) ([]string, error) {
	if len(ids) < 2 {
		return nil, nil
	}
	var owners []string
	for id := range ids {
		live, err := n.readUser(ctx, id)
		var api *keycloak.APIError
		switch {
		case errors.As(err, &api) && api.UserNotFound(), err != nil && unreadable(err):
			continue
		case err != nil:
			return nil, n.keycloakFailure(ctx, "reading user "+id, err)
		}
		if slices.Contains(n.digests.uniqueKeys(live, emails), key) {
			owners = append(owners, id)
		}
	}
	return owners, nil
}

// findDuplicate reports shared values, beside whatever else differs.
func (n *run) findDuplicate(ctx context.Context, f adapter.Finding, b belief, shared []uniqueKey) error {
	f.Situation = adapter.SituationDuplicate
	for _, key := range shared {
		if slices.ContainsFunc(f.Fields, func(d adapter.FieldDifference) bool { return d.Field == key.field }) {
			continue
		}
		var believed any = b.user.Username
		if key.field == adapter.FieldEmail {
			believed = b.user.Email
		}
		d, err := fieldDifference(key.field, believed, key.value, b.user.Origins[key.field])
		if err != nil {
			return err
		}
		f.Fields = append(f.Fields, d)
	}
	return n.find(ctx, f)
}
