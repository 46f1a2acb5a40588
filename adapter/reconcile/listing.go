package reconcile

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
)

// digests remember which ids, user names and addresses a listing has shown, in
// eight bytes each. The seed is the process's own, so nobody can choose ids that
// collide; by chance one of n unlisted users hides behind a listed one with
// n × listed / 2⁶⁴, and for one run only.
type digests struct {
	seed       maphash.Seed
	seen       map[uint64]struct{}
	names      map[uint64]struct{}
	collisions map[uint64]struct{}
}

func newDigests() *digests {
	return &digests{
		seed: maphash.MakeSeed(), seen: map[uint64]struct{}{}, names: map[uint64]struct{}{},
		collisions: map[uint64]struct{}{},
	}
}

func (d *digests) of(kind, value string) uint64 { return maphash.String(d.seed, kind+"\x00"+value) }

func (d *digests) hasSeen(id string) bool {
	_, ok := d.seen[d.of("id", id)]
	return ok
}

// see notes a user and reports whether it is new. A rename between two pages shifts
// the rows, so that a user may come twice.
func (d *digests) see(u keycloak.User, emails bool) bool {
	if d.hasSeen(u.ID) {
		return false
	}
	d.seen[d.of("id", u.ID)] = struct{}{}
	for _, key := range d.uniqueKeys(u, emails) {
		if _, ok := d.names[key.digest]; ok {
			d.collisions[key.digest] = struct{}{}
		}
		d.names[key.digest] = struct{}{}
	}
	return true
}

// uniqueKey is a value that no two users of a realm may share.
type uniqueKey struct {
	field, value string
	digest       uint64
}

func (d *digests) uniqueKeys(u keycloak.User, emails bool) []uniqueKey {
	folded := observed("", u.ID, profileOf(u, false))
	keys := []uniqueKey{{field: adapter.FieldUsername, value: folded.Username}}
	if emails && folded.Email != nil {
		keys = append(keys, uniqueKey{field: adapter.FieldEmail, value: *folded.Email})
	}
	for i, k := range keys {
		keys[i].digest = d.of(k.field, k.value)
	}
	return keys
}

// maxShort is how many users a listing may lack, at most, against Keycloak's own
// count; below 100 users none may be lacking.
const maxShort = 5

// list reads every live user, compares it with the projection, and makes sure that
// the listing can be trusted.
func (n *run) list(ctx context.Context) error {
	before, err := n.Live.CountUsers(ctx, n.realm)
	if err != nil {
		return n.keycloakFailure(ctx, "counting the users", err)
	}
	emails, err := n.uniqueEmails(ctx)
	if err != nil {
		return err
	}
	if err := n.sweep(ctx, before); err != nil {
		return err
	}
	visit := func(page []keycloak.User, readAt time.Time) error {
		return n.visitPage(ctx, page, readAt, max(before, len(n.digests.seen)), emails)
	}
	if err := n.pages(ctx, before, visit); err != nil {
		return err
	}
	after, err := n.Live.CountUsers(ctx, n.realm)
	if err != nil {
		return n.keycloakFailure(ctx, "counting the users again", err)
	}
	if len(n.digests.seen) == 0 {
		return n.validateEmpty(ctx, min(before, after))
	}
	if len(n.digests.seen) >= min(before, after) {
		return nil
	}
	// Users can slip between two pages when others are renamed or deleted: the second
	// pass finds them, and tells a moving realm from a cut listing.
	n.log.InfoContext(ctx, "listing is short, reading it again", "listed", len(n.digests.seen), "counted", min(before, after))
	if err := n.pages(ctx, after, visit); err != nil {
		return err
	}
	last, err := n.Live.CountUsers(ctx, n.realm)
	if err != nil {
		return n.keycloakFailure(ctx, "counting the users again", err)
	}
	listed, counted := len(n.digests.seen), min(before, after, last)
	if counted-listed > min(maxShort, counted/100) {
		return invalid(adapter.Errorf(adapter.CodeListingIncomplete,
			"Keycloak counts %d users in realm %s but lists only %d of them", counted, n.realm, listed).
			WithTry("give the service account the role view-users for all users (fine-grained permissions hide some), or look for a proxy or user federation that cuts the list"))
	}
	return nil
}

func (n *run) uniqueEmails(ctx context.Context) (bool, error) {
	if n.DuplicateEmails == nil {
		return true, nil
	}
	permitted, err := n.DuplicateEmails(ctx, n.realm)
	if err != nil {
		return false, n.keycloakFailure(ctx, "reading the settings", err)
	}
	return !permitted, nil
}

// pages reads the listing until a page is empty: a short page may come in the middle
// when Keycloak filters what the service account may not see, and the offset grows
// by what has come, so that a server which caps a page's size skips nobody.
func (n *run) pages(ctx context.Context, counted int, visit func(page []keycloak.User, readAt time.Time) error) error {
	var previous []string
	repeats, limit := 0, 2*counted+10*n.PageSize
	for first := 0; ; {
		if err := n.stillOurs(ctx); err != nil {
			return err
		}
		readAt := n.Clock()
		page, err := n.Live.Users(ctx, n.realm, first, n.PageSize)
		if err != nil {
			return n.keycloakFailure(ctx, fmt.Sprintf("listing the users from %d on", first), err)
		}
		if len(page) == 0 {
			return nil
		}
		if i := slices.IndexFunc(page, func(u keycloak.User) bool { return u.ID == "" }); i >= 0 {
			return invalid(adapter.Errorf(adapter.CodeListingIncomplete,
				"entry %d of realm %s's user list has no id", first+i, n.realm).
				WithTry("look for a proxy that changes Keycloak's answers"))
		}
		ids := idsOf(page)
		if repeats++; !slices.Equal(ids, previous) {
			repeats = 0
		}
		if first += len(page); first > limit || repeats > 1 {
			return invalid(adapter.Errorf(adapter.CodeListingIncomplete,
				"realm %s's user list does not end: Keycloak counts %d users, and %d have come", n.realm, counted, first).
				WithTry("look for a proxy that drops the query parameters first and max"))
		}
		previous = ids
		if err := visit(page, readAt); err != nil {
			return err
		}
	}
}

func idsOf(users []keycloak.User) []string {
	ids := make([]string, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	return ids
}

// validateEmpty decides what an empty listing means.
func (n *run) validateEmpty(ctx context.Context, counted int) error {
	if counted > 0 {
		return invalid(adapter.Errorf(adapter.CodeListingEmpty,
			"Keycloak counts %d users in realm %s but lists none: the service account lacks view-users (query-users alone lists nothing, with a 200)", counted, n.realm).
			WithTry("give it the role view-users of the realm's realm-management client, then: keytrail reconcile"))
	}
	// Service accounts are not listed, so they alone do not make an empty list wrong.
	const probes = 20
	var alive []string
	err := n.Believed.Each(ctx, n.realm, func(u adapter.User) error {
		if u.Deleted {
			return nil
		}
		if alive = append(alive, u.ID); len(alive) > probes {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("reading the believed users: %w", err)
	}
	wrong := len(alive) > probes
	for _, id := range alive {
		if wrong {
			break
		}
		live, err := n.readUser(ctx, id)
		var stop *stopError
		if errors.As(err, &stop) {
			return stop
		}
		wrong = err != nil || !isServiceAccount(live)
	}
	if ctx.Err() != nil {
		return interrupted("reading believed users one by one", ctx.Err())
	}
	if wrong {
		return invalid(adapter.Errorf(adapter.CodeListingEmpty,
			"Keycloak lists no users in realm %s, where users are believed to exist", n.realm).
			WithTry("check the realm's name and that the service account has view-users; where the realm was really emptied, create or import its users first"))
	}
	return nil
}

// errEnough ends an iteration that has seen what it needs.
var errEnough = errors.New("enough")

// isServiceAccount tells service accounts, which Keycloak leaves out of its listing
// and its count.
func isServiceAccount(u keycloak.User) bool {
	return u.ServiceAccountClientID != nil && *u.ServiceAccountClientID != "" ||
		adapter.KeycloakActor(u.ID, u.Username, "", "").Type == adapter.ActorServiceAccount
}

// visitPage compares one page with the projection, or adopts it where the run is a
// baseline.
func (n *run) visitPage(ctx context.Context, page []keycloak.User, readAt time.Time, counted int, emails bool) error {
	var fresh []keycloak.User
	for _, u := range page {
		if n.digests.see(u, emails) {
			fresh = append(fresh, u)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	believed, err := n.Believed.Users(ctx, n.realm, idsOf(fresh))
	if err != nil {
		return fmt.Errorf("reading the believed users: %w", err)
	}
	for _, live := range fresh {
		user, known := believed[live.ID]
		if n.req.Trigger == adapter.TriggerBaseline {
			err = n.adoptListed(ctx, live, user, readAt)
		} else {
			err = n.compareListed(ctx, live, user, known, readAt)
		}
		if err != nil {
			return err
		}
	}
	if err := n.flushAdoptions(ctx); err != nil {
		return err
	}
	if n.req.Progress != nil {
		n.req.Progress(n.baselined+n.adoptedBefore, max(counted, len(n.digests.seen)))
	}
	return nil
}

// compareListed compares a listed user with the projection's row. It concludes only
// that they agree, or that a known drift stands; all else is suspect.
func (n *run) compareListed(ctx context.Context, live keycloak.User, believed adapter.User, known bool, readAt time.Time) error {
	n.compared++
	if known && believed.Deleted || !known && !n.baseline {
		if previous, ok := n.open[live.ID]; ok && previous.Situation == adapter.SituationUnexpectedLive {
			n.standing(previous)
			return nil
		}
		n.suspect(live.ID, &n.differing)
		return nil
	}
	t, err := n.listedMemberships(ctx, live, readAt)
	if err != nil {
		return err
	}
	if !known {
		return n.adoptUser(ctx, live, t, t.at)
	}
	c := Compare(believed, live, false).join(n.settledMemberships(believed, t))
	carried := n.carried(live.ID, t.Memberships)
	stands := false
	if !c.Agrees() || len(carried) > 0 {
		if stands, err = n.stands(live, c, carried); err != nil {
			return err
		}
		if !stands {
			n.suspect(live.ID, &n.differing)
			return nil
		}
	}
	if adopt := n.adoptable(believed, c); len(adopt) > 0 {
		own, err := n.writesTo(ctx, live.ID, live.Username, believed.Username)
		if err != nil {
			return err
		}
		if !own.inFlight {
			if err := n.adoptFields(ctx, live, profileOf(live, false), t, adopt, readAt, !stands && believed.Unread != nil); err != nil {
				return err
			}
		}
	}
	if !stands {
		n.endDrift(live.ID)
	}
	return nil
}

// stands reports whether the user differs exactly as it did when its drift was
// recorded. That drift was confirmed then, so it is only counted.
func (n *run) stands(live keycloak.User, c Comparison, carried []adapter.FieldDifference) (bool, error) {
	previous, ok := n.open[live.ID]
	if !ok || len(c.Dropped) > 0 || len(c.Untold) > 0 {
		return false, nil
	}
	if _, young := settled(c.Differences, n.Clock(), n.Settle); len(young) > 0 {
		return false, nil
	}
	fields, err := recordable(c.Differences)
	if err != nil {
		return false, err
	}
	now := adapter.Finding{Situation: adapter.SituationChanged, Fields: withCarried(fields, carried)}
	if !sameFinding(previous, now) {
		return false, nil
	}
	n.standing(previous)
	return true, nil
}

// standing counts a drift that an earlier run has confirmed and that looks the same.
func (n *run) standing(previous adapter.Finding) {
	n.count(previous.UserID)
	n.touched[previous.UserID] = struct{}{}
	n.findings = append(n.findings, previous)
}

// endDrift notes that the user's drift, if it has one, is over. It is recorded once
// the run is known to be valid.
func (n *run) endDrift(id string) {
	if _, ok := n.open[id]; !ok {
		return
	}
	n.touched[id] = struct{}{}
	n.ended = append(n.ended, id)
}

// suspect puts a user up for judgement. One that does not fit is left to the next
// run, with its drift as it is.
func (n *run) suspect(id string, q *queue) {
	if !q.add(id) {
		n.touched[id] = struct{}{}
	}
}

// queueUnlisted puts up for judgement who is believed to exist and was on no page,
// and whoever has an open drift that nothing has been said about yet.
func (n *run) queueUnlisted(ctx context.Context) error {
	var missing []string
	err := n.Believed.Each(ctx, n.realm, func(u adapter.User) error {
		if _, done := n.judged[u.ID]; u.Deleted || done || n.digests.hasSeen(u.ID) {
			return nil
		}
		if n.open[u.ID].Situation == adapter.SituationMissingLive {
			missing = append(missing, u.ID)
			return nil
		}
		n.suspect(u.ID, &n.unlisted)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the believed users: %w", err)
	}
	// Users known to be missing come last, so that many of them never keep a run from
	// finding new ones.
	for _, id := range missing {
		if len(n.unlisted.ids) < n.unlisted.limit {
			n.suspect(id, &n.unlisted)
		} else {
			n.standing(n.open[id])
		}
	}
	for id := range n.open {
		_, touched := n.touched[id]
		_, judged := n.judged[id]
		if !touched && !judged && !slices.Contains(n.unlisted.ids, id) {
			n.suspect(id, &n.unlisted)
		}
	}
	return nil
}
