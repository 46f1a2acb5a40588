package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// Settlement is a later fact by which it is known what holds of a user, whether or not a
// call of which the outcome is not known was done. The call itself stays unknown, and
// needs no more attention.
type Settlement struct {
	CallID uuid.UUID `json:"call_id"`
	// EventID is the fact, At when it occurred and CorrelationID its story.
	EventID       uuid.UUID `json:"event_id"`
	CorrelationID uuid.UUID `json:"correlation_id"`
	At            time.Time `json:"at"`
	// Text says it in one line.
	Text string `json:"text"`
}

// CallHistory knows the calls on a user.
type CallHistory interface {
	// CallsOfUser returns the newest calls on a user, newest first, at most limit.
	CallsOfUser(ctx context.Context, user adapter.UserRef, limit int) ([]adapter.Call, error)
}

const (
	// lateWork is how long Keycloak may go on with a request whose answer was not waited
	// for: a fact of that time may be older than what the request did.
	lateWork = 30 * time.Second
	// inFlight is how long a reconciliation leaves a difference to a call without an
	// outcome (adapter/reconcile, maxCallTime).
	inFlight = 15 * time.Minute
	// maxRunsOfRealm is how many of a realm's newest runs are looked at.
	maxRunsOfRealm = 10
	// maxLaterCalls is how many of the newest calls on a user are looked at.
	maxLaterCalls = 50
)

// settler looks for later facts. It remembers what it has read of runs, so it is for one
// answer. It asks nobody but the store and the projections.
type settler struct {
	store eventstore.Reader
	codec *adapter.Codec
	users UserLookup  // nil: creations without an id are settled by runs only
	calls CallHistory // nil: no calls are looked at

	runs   map[string][]adapter.Decoded // of each realm the newest completed runs, newest first
	starts map[uuid.UUID]runStart
}

type runStart struct {
	at       time.Time
	compares bool
}

// settle returns what settles a call whose outcome is not known, nil for nothing. What
// is cheapest is asked first.
func (s *settler) settle(ctx context.Context, c adapter.Call) (*Settlement, error) {
	if c.Status != adapter.CallUnknown {
		return nil, nil //nolint:nilnil // nothing is to be settled, and that is no error
	}
	after := certainAfter(c)
	for _, by := range []func(context.Context, adapter.Call, time.Time) (*Settlement, error){s.byRun, s.byUser, s.byCall, s.byName} {
		found, err := by(ctx, c, after)
		if err != nil {
			return nil, fmt.Errorf("looking for what settles call %s: %w", c.CallID, err)
		}
		if found != nil {
			found.CallID, found.At, found.Text = c.CallID, utc(found.At), oneLine(found.Text)
			return found, nil
		}
	}
	return nil, nil //nolint:nilnil // as above
}

// certainAfter is from when on a fact tells of the time after the call's last request.
func certainAfter(c adapter.Call) time.Time {
	at := c.RequestedAt
	answered := false
	for _, a := range c.Attempts {
		if end := a.StartedAt.Add(time.Duration(a.DurationMS * float64(time.Millisecond))); end.After(at) {
			at = end
		}
		answered = a.StatusCode != nil
	}
	if !answered {
		at = at.Add(lateWork)
	}
	return at
}

// effectOf is the field that tells whether a command was done: "" for the profile, which
// every complete read and run tells. It reports false where none does.
func effectOf(command string) (string, bool) {
	switch command {
	case "user.create", "user.update", "user.enable", "user.disable", "user.delete", "user.required_actions":
		return "", true
	case "user.role.add", "user.role.remove":
		return adapter.FieldRoles, true
	case "user.client_role.add", "user.client_role.remove":
		return adapter.FieldClientRoles, true
	case "user.group.add", "user.group.remove":
		return adapter.FieldGroups, true
	case "user.organization.add", "user.organization.remove":
		return adapter.FieldOrganizations, true
	}
	return "", false
}

// byRun looks for a run that compared every user after the call. It found the user as
// believed, or reported the difference, which needs attention by itself.
func (s *settler) byRun(ctx context.Context, c adapter.Call, after time.Time) (*Settlement, error) {
	field, visible := effectOf(c.Command)
	if !visible {
		return nil, nil //nolint:nilnil // no run sees it
	}
	runs, err := s.runsOf(ctx, c.Realm)
	if err != nil {
		return nil, err
	}
	for _, d := range runs {
		p, ok := d.Payload.(*adapter.ReconciliationCompleted)
		if !ok || !d.OccurredAt.After(after) {
			break
		}
		start, err := s.startOf(ctx, d)
		if err != nil {
			return nil, err
		}
		leftOpen := p.Unsettled > 0 || p.Findings[adapter.SituationInFlight] > 0
		switch {
		case !start.compares, !start.at.After(after), field != "" && !slices.Contains(p.ComparedFields, field):
		case leftOpen && !start.at.After(after.Add(inFlight)):
		default:
			return &Settlement{
				EventID: d.ID, CorrelationID: d.CorrelationID, At: d.OccurredAt,
				Text: "the reconciliation of " + c.Realm + " on " + utc(d.OccurredAt).Format("2006-01-02 at 15:04:05 UTC") + " " + words{}.describe(d.View()),
			}, nil
		}
	}
	return nil, nil //nolint:nilnil // none was found
}

// runsOf reads the newest completed runs of all realms, once.
func (s *settler) runsOf(ctx context.Context, realm string) ([]adapter.Decoded, error) {
	if s.runs != nil {
		return s.runs[realm], nil
	}
	runs := map[string][]adapter.Decoded{}
	query := eventstore.LogQuery{Types: []string{adapter.TypeReconciliationCompleted}, Backward: true, Limit: maxRuns}
	for e, err := range s.store.ReadLog(ctx, query) {
		if err != nil {
			return nil, err
		}
		d, err := s.codec.Decode(ctx, e)
		if err != nil {
			return nil, err
		}
		if p, ok := d.Payload.(*adapter.ReconciliationCompleted); ok && len(runs[p.Realm]) < maxRunsOfRealm {
			runs[p.Realm] = append(runs[p.Realm], d)
		}
	}
	s.runs, s.starts = runs, map[uuid.UUID]runStart{}
	return s.runs[realm], nil
}

// startOf reads when a run began, and whether it compared.
func (s *settler) startOf(ctx context.Context, end adapter.Decoded) (runStart, error) {
	if known, ok := s.starts[end.ID]; ok {
		return known, nil
	}
	var start runStart
	e, found, err := first(s.store.ReadStream(ctx, end.Stream, eventstore.StreamQuery{Limit: 1}))
	if err != nil {
		return start, err
	}
	if found {
		d, err := s.codec.Decode(ctx, e)
		if err != nil {
			return start, err
		}
		if p, ok := d.Payload.(*adapter.ReconciliationStarted); ok {
			start = runStart{at: d.OccurredAt, compares: p.Trigger != adapter.TriggerBaseline}
		}
	}
	s.starts[end.ID] = start
	return start, nil
}

// byUser looks among the user's newest events for a read, an adoption or the deletion.
func (s *settler) byUser(ctx context.Context, c adapter.Call, after time.Time) (*Settlement, error) {
	if c.UserID == "" {
		return nil, nil //nolint:nilnil // whose events would have to be read is not known
	}
	stream := adapter.UserStream(c.Realm, c.UserID)
	for e, err := range s.store.ReadStream(ctx, stream, eventstore.StreamQuery{Backward: true, Limit: maxUserEvents}) {
		if err != nil {
			return nil, err
		}
		if !e.OccurredAt.After(after) || !slices.Contains([]string{adapter.TypeUserApiObserved, adapter.TypeUserApiBaselined, adapter.TypeUserApiDeleted}, e.Type) {
			continue
		}
		d, err := s.codec.Decode(ctx, e)
		if err != nil {
			return nil, err
		}
		if tells(d.Payload, c.Command) {
			view := d.View()
			return &Settlement{EventID: d.ID, CorrelationID: d.CorrelationID, At: d.OccurredAt, Text: words{brief: true}.describe(view)}, nil
		}
	}
	return nil, nil //nolint:nilnil // none was found
}

// tells reports whether an event tells what a command may have changed. Of a user who is
// gone nothing is open.
func tells(payload adapter.Payload, command string) bool {
	var memberships adapter.Memberships
	switch p := payload.(type) {
	case *adapter.UserApiDeleted:
		return true
	case *adapter.UserApiObserved:
		if !p.Present {
			return true
		}
		if command == "user.unlock" {
			return p.Set.LockedUntil.Present()
		}
		if !p.Complete {
			return false
		}
		memberships = p.Memberships
	case *adapter.UserApiBaselined:
		memberships = p.Memberships
	default:
		return false
	}
	field, visible := effectOf(command)
	return visible && (field == "" || slices.Contains(memberships.Fields(), field))
}

// byCall looks among the newest calls on the user for one that did the same, or read that
// it was done.
func (s *settler) byCall(ctx context.Context, c adapter.Call, after time.Time) (*Settlement, error) {
	if c.UserID == "" || s.calls == nil {
		return nil, nil //nolint:nilnil // as in byUser
	}
	later, err := s.calls.CallsOfUser(ctx, adapter.UserRef{Realm: c.Realm, UserID: c.UserID}, maxLaterCalls)
	if err != nil {
		return nil, err
	}
	for _, l := range later {
		if !l.RequestedAt.After(after) {
			break
		}
		proof, err := s.proves(ctx, l, c)
		if err != nil {
			return nil, err
		}
		if proof != uuid.Nil {
			at := l.RequestedAt
			if l.FinishedAt != nil {
				at = *l.FinishedAt
			}
			return &Settlement{EventID: proof, CorrelationID: l.CorrelationID, At: at, Text: callTitle(words{}, l) + ": " + callOutcome(l)}, nil
		}
	}
	return nil, nil //nolint:nilnil // none was found
}

// proves returns the event by which a later call tells what holds, the zero UUID where it
// does not.
func (s *settler) proves(ctx context.Context, later, c adapter.Call) (uuid.UUID, error) {
	switches := func(command string) bool { return command == "user.enable" || command == "user.disable" }
	found := false
	switch later.Code {
	case adapter.CodeAlreadyEnabled, adapter.CodeAlreadyDisabled, adapter.CodeAlreadyHasRole, adapter.CodeRoleNotHeld,
		adapter.CodeAlreadyMember, adapter.CodeNotMember, adapter.CodeNotLocked:
		found = later.Status == adapter.CallSkipped // judged on a fresh read
	case "":
		found = later.Status == adapter.CallSucceeded
	}
	switch {
	case !found:
		return uuid.Nil, nil
	case switches(later.Command) && switches(c.Command):
	case later.Command != c.Command || !maps.Equal(later.Params, c.Params):
		return uuid.Nil, nil
	default:
		same, err := s.sameBody(ctx, later, c)
		if err != nil || !same {
			return uuid.Nil, err
		}
	}
	return s.outcomeOf(ctx, later)
}

// sameBody reports whether two calls asked for the same.
func (s *settler) sameBody(ctx context.Context, a, b adapter.Call) (bool, error) {
	var bodies [2][]byte
	for i, c := range []adapter.Call{a, b} {
		e, found, err := first(s.store.ReadStream(ctx, adapter.CallStream(c.CallID), eventstore.StreamQuery{Limit: 1}))
		if err != nil || !found {
			return false, err
		}
		d, err := s.codec.Decode(ctx, e)
		if err != nil {
			return false, err
		}
		p, ok := d.Payload.(*adapter.ApiCallRequested)
		if !ok || slices.Contains(d.View().Forgotten, "body") {
			return false, nil
		}
		// Each call's stamp is its own.
		bodies[i] = bytes.ReplaceAll(compacted(p.Body), []byte(c.CallID.String()), nil)
	}
	return bytes.Equal(bodies[0], bodies[1]), nil
}

func compacted(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if len(raw) == 0 || json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// outcomeOf is the event that decided how a call ended.
func (s *settler) outcomeOf(ctx context.Context, c adapter.Call) (uuid.UUID, error) {
	for e, err := range s.store.ReadStream(ctx, adapter.CallStream(c.CallID), eventstore.StreamQuery{Backward: true, Limit: maxStoryLine}) {
		if err != nil {
			return uuid.Nil, err
		}
		if e.Type == adapter.TypeApiCallSucceeded || e.Type == adapter.TypeApiCallSkipped {
			return e.ID, nil
		}
	}
	return uuid.Nil, nil
}

// byName looks for the user whom a creation was to make: one of that name who came to be
// known since.
func (s *settler) byName(ctx context.Context, c adapter.Call, after time.Time) (*Settlement, error) {
	if c.Command != "user.create" || c.UserID != "" || c.Username == "" || s.users == nil {
		return nil, nil //nolint:nilnil // there is no name to look for
	}
	found, err := s.users.Find(ctx, c.Username, c.Realm)
	if err != nil {
		return nil, err
	}
	for _, u := range found {
		if strings.EqualFold(u.Username, c.Username) && u.FirstKnownAt.After(c.RequestedAt) && u.Last.At.After(after) {
			e, known, err := first(s.store.ReadLog(ctx, eventstore.LogQuery{EventIDs: []uuid.UUID{u.Last.EventID}, Limit: 1}))
			if err != nil || !known {
				return nil, err
			}
			return &Settlement{EventID: e.ID, CorrelationID: e.CorrelationID, At: e.OccurredAt, Text: u.Username + " is known since, as user " + u.ID}, nil
		}
	}
	return nil, nil //nolint:nilnil // none was found
}

// nextOfSettled says what to do about a call that a later fact settles.
func nextOfSettled(c adapter.Call, s Settlement) string {
	text := "Nothing is open any more: " + s.Text + " (keytrail trace " + s.CorrelationID.String() + ")."
	if c.UserID != "" {
		return text + " What the user is: keytrail user show " + word(c.UserID) + " --realm " + word(c.Realm)
	}
	return text
}
