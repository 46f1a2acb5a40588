package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/audit"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

// world draws events in an order in which they can be recorded: causes come before
// what they cause, but when things occurred is free.
type world struct {
	*rapid.T
	p     projectiontest.Process
	realm string
	// start is the head of the log before the first event.
	start      eventstore.Position
	calls      []uuid.UUID
	deliveries []uuid.UUID
	// seen are the ids of the accounts that were seen under a name.
	seen map[string][]string
}

// who draws an actor of whom all is told, or the id only, or nothing.
func (w *world) who(meta adapter.Metadata) adapter.Metadata {
	id := rapid.SampledFrom([]string{"", "a1", "a2"}).Draw(w.T, "actor")
	if id == "" {
		return meta
	}
	name := rapid.SampledFrom([]string{"", "", "root", "boss"}).Draw(w.T, "name")
	if name != "" {
		name += " of " + w.realm
		w.seen[name] = append(w.seen[name], id+" of "+w.realm)
	}
	meta.Actor = new(adapter.KeycloakActor(id+" of "+w.realm, name, "", ""))
	return meta
}

func (w *world) step() {
	switch rapid.IntRange(0, 9).Draw(w.T, "step") {
	case 0:
		id := eventstore.NewID()
		w.calls = append(w.calls, id)
		w.append(adapter.CallStream(id), adapter.Metadata{}, &adapter.ApiCallRequested{
			CallID: id, Command: "user.update", Realm: w.realm, Method: rapid.SampledFrom([]string{"GET", "PUT"}).Draw(w.T, "method"),
		})
	case 1:
		if id, ok := one(w, w.calls, "call"); ok {
			why := adapter.CallError{Code: adapter.CodeInternal, Message: "no"}
			w.append(adapter.CallStream(id), adapter.Metadata{}, rapid.SampledFrom([]adapter.Payload{
				&adapter.ApiCallSucceeded{CallID: id, UserID: "u1"}, &adapter.ApiCallFailed{CallID: id, CallError: why},
				&adapter.ApiCallSkipped{CallID: id, CallError: why}, &adapter.ApiCallOutcomeUnknown{CallID: id, CallError: why},
				&adapter.ApiCallPreconditionRead{CallID: id, UserID: "u1"},
			}).Draw(w.T, "outcome"))
		}
	case 2:
		w.deliveries = append(w.deliveries, w.append(adapter.DeliveryStream(uuid.NewString()), adapter.Metadata{}, &adapter.AdminEventReceived{
			Realm: w.realm, OperationType: "UPDATE", ResourceType: "USER",
		}))
	case 3:
		call, ok := one(w, w.calls, "echoed")
		if id, has := one(w, w.deliveries, "echo"); ok && has {
			w.append(adapter.CallStream(call), adapter.Metadata{}, &adapter.ApiCallEchoed{CallID: call, Echo: adapter.Echo{DeliveryEventID: id}})
		}
	default:
		var meta adapter.Metadata
		if id, ok := one(w, w.calls, "told call"); ok && rapid.Bool().Draw(w.T, "tells a call") {
			meta.CallID = &id
		}
		if id, ok := one(w, w.deliveries, "told delivery"); ok && rapid.Bool().Draw(w.T, "tells a delivery") {
			meta.CausationID = &id
		}
		user := adapter.UserRef{Realm: w.realm, UserID: rapid.SampledFrom([]string{"u1", "u2"}).Draw(w.T, "user")}
		w.append(adapter.UserStream(user.Realm, user.UserID), meta, w.userEvent(user))
	}
}

func one(w *world, ids []uuid.UUID, label string) (uuid.UUID, bool) {
	if len(ids) == 0 {
		return uuid.Nil, false
	}
	return rapid.SampledFrom(ids).Draw(w.T, label), true
}

func (w *world) userEvent(user adapter.UserRef) adapter.UserPayload {
	word := rapid.SampledFrom([]string{"", "a", "B", "é\x00"})
	set := adapter.Profile{}
	if rapid.Bool().Draw(w.T, "email?") {
		set.Email = adapter.SetOrClear(rapid.Ptr(word, true).Draw(w.T, "email"))
	}
	if rapid.Bool().Draw(w.T, "username?") {
		set.Username = adapter.Set(word.Draw(w.T, "username"))
	}
	if rapid.Bool().Draw(w.T, "enabled?") {
		set.Enabled = adapter.Set(rapid.Bool().Draw(w.T, "enabled"))
	}
	if rapid.Bool().Draw(w.T, "locked?") {
		set.LockedUntil = adapter.Set(noon.In(time.FixedZone("", 3600)))
	}
	if rapid.Bool().Draw(w.T, "attributes?") {
		set.Attributes = adapter.Set(rapid.MapOfN(word, rapid.SliceOfN(word, 0, 2), 0, 2).Draw(w.T, "attributes"))
	}
	c := adapter.UserChange{UserRef: user, Set: set}
	roles := []adapter.Role{{Name: word.Draw(w.T, "role"), Client: rapid.SampledFrom([]string{"", "app"}).Draw(w.T, "client")}}
	return rapid.SampledFrom([]adapter.UserPayload{
		&adapter.UserApiCreated{UserChange: c, Groups: []string{"/g"}}, &adapter.UserApiUpdated{UserChange: c},
		&adapter.UserApiDisabled{UserChange: c}, &adapter.UserApiDeleted{UserRef: user},
		&adapter.UserApiRolesChanged{UserRef: user, Added: roles}, &adapter.UserApiRolesChanged{UserRef: user, Removed: roles},
		&adapter.UserApiCredentialsChanged{UserRef: user, Action: "password_reset"},
		&adapter.UserApiObserved{UserRef: user, Present: true, Set: set}, &adapter.UserApiObserved{UserRef: user},
		&adapter.UserApiBaselined{UserRef: user, Set: set},
	}).Draw(w.T, "user event")
}

func (w *world) append(stream eventstore.StreamID, meta adapter.Metadata, p adapter.Payload) uuid.UUID {
	events, err := w.p.TryAppend(context.Background(), stream, adapter.Draft{
		// Few moments, so that events of one moment are common.
		Payload: p, Meta: w.who(meta), OccurredAt: noon.Add(time.Duration(rapid.IntRange(0, 5).Draw(w.T, "second")) * time.Second),
	})
	require.NoError(w.T, err)
	return events[0].ID
}

// replay is the trail of the realm as the whole log has it, worked out with everything
// at hand.
func (w *world) replay() []adapter.AuditEntry {
	streams := map[eventstore.StreamID][]adapter.Decoded{}
	told := map[uuid.UUID]bool{}
	var log []adapter.Decoded
	for e, err := range w.p.Store.ReadLog(context.Background(), eventstore.LogQuery{After: w.start}) {
		require.NoError(w.T, err)
		d, err := w.p.Codec.Decode(context.Background(), e)
		require.NoError(w.T, err)
		log = append(log, d)
		streams[e.Stream] = append(streams[e.Stream], d)
		switch p := d.Payload.(type) {
		case *adapter.ApiCallEchoed:
			told[p.DeliveryEventID] = true
		case *adapter.UserApiObserved, *adapter.UserApiBaselined:
		case adapter.UserPayload:
			if d.Meta.CallID != nil {
				told[*d.Meta.CallID] = true
			}
			if d.Meta.CausationID != nil {
				told[*d.Meta.CausationID] = true
			}
		}
	}
	var all []adapter.AuditEntry
	for stream, events := range streams {
		if realm, _, err := adapter.UserOfStream(stream); err == nil && realm == w.realm {
			all = append(all, adapter.AuditOfUser(events)...)
		}
	}
	for _, d := range log {
		switch p := d.Payload.(type) {
		case *adapter.AdminEventReceived:
			if p.Realm == w.realm && !told[d.ID] {
				a := adapter.AuditOf(d)
				if a.Actor == nil {
					a.Actor = &p.Actor
				}
				a.Action, a.Outcome = "USER UPDATE", adapter.AuditSucceeded
				all = append(all, a)
			}
		case *adapter.ApiCallRequested:
			if p.Realm == w.realm && p.Method != http.MethodGet && !told[p.CallID] {
				a, _ := adapter.FoldCall(streams[d.Stream])
				decided := d
				for _, e := range streams[d.Stream] {
					switch e.Type {
					case adapter.TypeApiCallPreconditionRead, adapter.TypeApiCallEchoed:
					default:
						decided = e
					}
				}
				entry := adapter.AuditOf(decided)
				entry.Actor = d.Meta.Actor // who asked for it, whoever proves it
				entry.Action, entry.Outcome, entry.UserID = "user.update", adapter.AuditOutcome(a.Status), a.UserID
				entry.Code, entry.Error = a.Code, a.Error
				all = append(all, entry)
			}
		}
	}
	slices.SortFunc(all, func(a, b adapter.AuditEntry) int {
		if c := b.OccurredAt.Compare(a.OccurredAt); c != 0 {
			return c
		}
		return int(b.Position - a.Position)
	})
	return all
}

// Whatever the order in which events arrive and however they are cut into batches, the
// trail is that of the whole log, with old and new values in the order in which things
// occurred.
func TestAnyArrivalGivesTheTrailOfTheWholeLog(t *testing.T) {
	t.Parallel()
	p := projectiontest.SQLite(t).Open(t)
	projection := audit.New(p.Store, p.Codec)
	q := audit.NewQueries(p.DB)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		start, err := p.Store.Head(context.Background())
		require.NoError(t, err)
		w := &world{T: t, p: p, realm: fmt.Sprint("realm", run), start: start, seen: map[string][]string{}}
		e := projections.New(p.DB, p.Store, p.Codec, projections.Options{BatchSize: rapid.IntRange(1, 5).Draw(t, "batch")})
		require.NoError(t, e.Register(projection))
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			w.step()
			if rapid.Bool().Draw(t, "fold now") {
				w.catchUp(e)
			}
		}
		w.catchUp(e)
		list := func(f audit.Filter) []string {
			var got []adapter.AuditEntry
			for cursor := ""; ; {
				page, next, err := q.List(context.Background(), f, 3, cursor)
				require.NoError(t, err)
				got = append(got, page...)
				if cursor = next; next == "" {
					return inShort(t, got)
				}
			}
		}
		all := w.replay()
		require.Equal(t, inShort(t, all), list(audit.Filter{Realm: w.realm}))
		for _, actor := range []string{"root of " + w.realm, "boss of " + w.realm, "a1 of " + w.realm} {
			require.Equal(t, inShort(t, w.by(actor, all)), list(audit.Filter{Actor: actor}), actor)
		}
	})
	e := p.Engine(t, projections.Options{BatchSize: 10}, projection)
	p.RebuildEqualsIncremental(t, e, projection)
}

// by is what an actor did, by an id or a name.
func (w *world) by(actor string, all []adapter.AuditEntry) []adapter.AuditEntry {
	return slices.DeleteFunc(slices.Clone(all), func(a adapter.AuditEntry) bool {
		if a.Actor == nil {
			return true
		}
		return a.Actor.ID != actor && a.Actor.Username != actor &&
			(a.Actor.Username != "" || !slices.Contains(w.seen[actor], a.Actor.ID))
	})
}

func (w *world) catchUp(e *projections.Engine) {
	head, err := w.p.Store.Head(context.Background())
	require.NoError(w.T, err)
	require.NoError(w.T, e.CatchUp(context.Background(), head))
}

// inShort is what the replay says too.
func inShort(t *rapid.T, entries []adapter.AuditEntry) []string {
	out := []string{}
	for _, a := range entries {
		changes, err := json.Marshal(a.Changes)
		require.NoError(t, err)
		out = append(out, fmt.Sprint(a.Position, a.EventID, a.EventType, a.OccurredAt, a.Action, a.Outcome, a.UserID, a.Username, a.Code, a.Error, a.Actor, string(changes)))
	}
	return out
}
