package trace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// relationBatch links deliveries that came in one request. They are no causes of
// each other.
const relationBatch = "batch"

// tell assembles the story that s leads to.
func (f *Finder) tell(ctx context.Context, s seed) (Trace, error) {
	limit := f.MaxEvents
	if limit <= 0 {
		limit = MaxEvents
	}
	main, truncated, err := f.mainStory(ctx, s, limit)
	if err != nil {
		return Trace{}, err
	}
	a := &assembly{f: f, limit: limit, truncated: truncated, events: make(map[uuid.UUID]adapter.Decoded, len(main))}
	if err := a.close(ctx, main); err != nil {
		return Trace{}, err
	}
	events := a.all()
	calls := callsOf(events)
	if a.truncated {
		if calls, err = f.wholeCalls(ctx, calls); err != nil {
			return Trace{}, err
		}
	}
	users, err := f.namedUsers(ctx, events)
	if err != nil {
		return Trace{}, err
	}
	t := newTrace(main[0].CorrelationID, events, calls, users)
	t.Truncated, t.Others = a.truncated, s.others
	if err := f.settle(ctx, &t); err != nil {
		return Trace{}, err
	}
	return t, nil
}

// maxSettled is how many calls of a story later facts are looked for.
const maxSettled = 20

// settle adds the later facts to a story of calls without an outcome.
func (f *Finder) settle(ctx context.Context, t *Trace) error {
	later := settler{store: f.Store, codec: f.Codec, users: f.Users, calls: f.History}
	open := 0
	for _, c := range t.Calls {
		if c.Status != adapter.CallUnknown || open == maxSettled {
			continue
		}
		open++
		settled, err := later.settle(ctx, c)
		if err != nil {
			return err
		}
		if settled != nil {
			t.Settled = append(t.Settled, *settled)
		}
	}
	if len(t.Settled) > 0 {
		t.Next = study(*t).next()
	}
	return nil
}

// mainStory reads the events of the story that s belongs to: its own correlation, or
// that of the call whose echo it is.
func (f *Finder) mainStory(ctx context.Context, s seed, limit int) ([]adapter.Decoded, bool, error) {
	if s.event != nil && s.event.Stream.Category() == adapter.CategoryDelivery {
		if echo, found, err := f.echoOf(ctx, s.event.Stream); err != nil {
			return nil, false, err
		} else if found && echo.CorrelationID != s.correlation {
			return f.ofCorrelation(ctx, echo, limit)
		}
	}
	from := eventstore.Event{CorrelationID: s.correlation}
	if s.event != nil {
		from = *s.event
	}
	events, truncated, err := f.ofCorrelation(ctx, from, limit)
	if err != nil || truncated {
		return events, truncated, err
	}
	echo, found, err := f.onlyEchoes(ctx, events)
	if err != nil || !found {
		return events, truncated, err
	}
	return f.ofCorrelation(ctx, echo, limit)
}

// echoOf returns the ApiCallEchoed that links a delivery to the call which it echoes.
func (f *Finder) echoOf(ctx context.Context, delivery eventstore.StreamID) (eventstore.Event, bool, error) {
	received, found, err := first(f.Store.ReadStream(ctx, delivery, eventstore.StreamQuery{Limit: 1}))
	if err != nil || !found {
		return eventstore.Event{}, false, err
	}
	return first(f.Store.ReadLog(ctx, eventstore.LogQuery{
		CausationID: received.ID, Types: []string{adapter.TypeApiCallEchoed}, Limit: 1,
	}))
}

// onlyEchoes reports whether events are nothing but deliveries that echo calls of
// one other story, and returns the link into it.
func (f *Finder) onlyEchoes(ctx context.Context, events []adapter.Decoded) (eventstore.Event, bool, error) {
	var link eventstore.Event
	seen := map[uuid.UUID]bool{}
	for _, e := range events {
		if e.Stream.Category() != adapter.CategoryDelivery {
			return eventstore.Event{}, false, nil
		}
		if seen[e.Stream.AggregateID()] {
			continue
		}
		seen[e.Stream.AggregateID()] = true
		echo, found, err := f.echoOf(ctx, e.Stream)
		if err != nil || !found {
			return eventstore.Event{}, false, err
		}
		if echo.CorrelationID == e.CorrelationID || (link.ID != uuid.Nil && link.CorrelationID != echo.CorrelationID) {
			return eventstore.Event{}, false, nil
		}
		link = echo
	}
	return link, link.ID != uuid.Nil, nil
}

// ofCorrelation reads the events of e's correlation, e among them: all, or where
// there are more than limit, the beginning and the end.
func (f *Finder) ofCorrelation(ctx context.Context, e eventstore.Event, limit int) (_ []adapter.Decoded, truncated bool, _ error) {
	if e.CorrelationID == uuid.Nil {
		// Not written by keytrail: a story of one event. (A zero id selects everything.)
		d, err := f.decode(ctx, e)
		return []adapter.Decoded{d}, false, err
	}
	query := eventstore.LogQuery{CorrelationID: e.CorrelationID, Limit: limit + 1}
	events, err := collect(f.Store.ReadLog(ctx, query))
	if err != nil {
		return nil, false, err
	}
	if len(events) > limit {
		truncated = true
		query.Backward, query.Limit = true, max(limit/10, 1)
		end, err := collect(f.Store.ReadLog(ctx, query))
		if err != nil {
			return nil, false, err
		}
		events = events[:max(limit-len(end), 0)]
		if e.Position > 0 {
			events = append(events, e)
		}
		events = append(events, end...)
		slices.SortFunc(events, byPosition)
		events = slices.CompactFunc(events, func(a, b eventstore.Event) bool { return a.ID == b.ID })
	}
	if len(events) == 0 {
		return nil, false, fmt.Errorf("the events of correlation %s: %w", e.CorrelationID, eventstore.ErrNotFound)
	}
	decoded, err := f.decodeAll(ctx, events)
	return decoded, truncated, err
}

func byPosition(a, b eventstore.Event) int { return cmp.Compare(a.Position, b.Position) }

func (f *Finder) decodeAll(ctx context.Context, events []eventstore.Event) ([]adapter.Decoded, error) {
	decoded := make([]adapter.Decoded, 0, len(events))
	for _, e := range events {
		d, err := f.decode(ctx, e)
		if err != nil {
			return nil, err
		}
		decoded = append(decoded, d)
	}
	return decoded, nil
}

// decode reads an event. One whose JSON does not fit its type is kept without a
// payload: a story with one unreadable event is worth more than none.
func (f *Finder) decode(ctx context.Context, e eventstore.Event) (adapter.Decoded, error) {
	d, err := f.Codec.Decode(ctx, e)
	if err == nil {
		return d, nil
	}
	var syntax *json.SyntaxError
	var shape *json.UnmarshalTypeError
	if !errors.As(err, &syntax) && !errors.As(err, &shape) {
		return adapter.Decoded{}, err
	}
	d = adapter.Decoded{Event: e, Meta: adapter.Metadata{CorrelationID: e.CorrelationID}}
	if e.CausationID != uuid.Nil {
		d.Meta.CausationID = &e.CausationID
	}
	return d, nil
}

// assembly follows causes from the main story outwards.
type assembly struct {
	f         *Finder
	limit     int
	truncated bool
	events    map[uuid.UUID]adapter.Decoded
}

// reach is an event of the story and the directions in which to go on from it.
type reach struct {
	adapter.Decoded
	causes, effects bool
}

// close adds what the events name as causes, and what follows from them.
func (a *assembly) close(ctx context.Context, main []adapter.Decoded) error {
	frontier := make([]reach, 0, len(main))
	for _, e := range main { // bounded already, and shown whatever else there is
		a.events[e.ID] = e
		frontier = append(frontier, reach{Decoded: e, causes: true, effects: true})
	}
	for len(frontier) > 0 {
		next, err := a.causesOf(ctx, frontier)
		if err != nil {
			return err
		}
		effects, err := a.effectsOf(ctx, frontier)
		if err != nil {
			return err
		}
		whole, err := a.complete(ctx, slices.Concat(next, effects))
		if err != nil {
			return err
		}
		frontier = slices.Concat(next, effects, whole)
	}
	return nil
}

// add takes in what is new, as far as there is room, and appends it to reached.
func (a *assembly) add(reached []reach, events []adapter.Decoded, causes, effects bool) []reach {
	for _, e := range events {
		if _, known := a.events[e.ID]; known {
			continue
		}
		if len(a.events) >= a.limit {
			a.truncated = true
			break
		}
		a.events[e.ID] = e
		reached = append(reached, reach{Decoded: e, causes: causes, effects: effects})
	}
	return reached
}

// idsAtOnce bounds one query by ids.
const idsAtOnce = 200

func (a *assembly) causesOf(ctx context.Context, frontier []reach) ([]reach, error) {
	var ids []uuid.UUID
	echoes := map[uuid.UUID]bool{}
	for _, r := range frontier {
		if !r.causes {
			continue
		}
		for _, id := range causes(r.Decoded) {
			if _, known := a.events[id]; !known && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		if p, ok := r.Payload.(*adapter.ApiCallEchoed); ok {
			echoes[p.DeliveryEventID] = true
		}
	}
	var reached []reach
	for chunk := range slices.Chunk(ids, idsAtOnce) {
		found, err := a.read(ctx, eventstore.LogQuery{EventIDs: chunk})
		if err != nil {
			return nil, err
		}
		for _, e := range found {
			// What followed from our own call's echo is part of the story, what else
			// followed from another cause is not.
			reached = a.add(reached, []adapter.Decoded{e}, true, echoes[e.ID])
		}
	}
	return reached, nil
}

func (a *assembly) effectsOf(ctx context.Context, frontier []reach) ([]reach, error) {
	var reached []reach
	for _, r := range frontier {
		if !r.effects {
			continue
		}
		found, err := a.read(ctx, eventstore.LogQuery{CausationID: r.ID, Limit: a.limit + 1})
		if err != nil {
			return nil, err
		}
		reached = a.add(reached, found, false, true)
	}
	return reached, nil
}

// complete adds the rest of each call's and delivery's stream: half a call says
// nothing about how it ended.
func (a *assembly) complete(ctx context.Context, found []reach) ([]reach, error) {
	var reached []reach
	seen := map[uuid.UUID]bool{}
	for _, r := range found {
		category := r.Stream.Category()
		if (category != adapter.CategoryCall && category != adapter.CategoryDelivery) || seen[r.Stream.AggregateID()] {
			continue
		}
		seen[r.Stream.AggregateID()] = true
		events, err := collect(a.f.Store.ReadStream(ctx, r.Stream, eventstore.StreamQuery{Limit: a.limit + 1}))
		if err != nil {
			return nil, err
		}
		decoded, err := a.f.decodeAll(ctx, events)
		if err != nil {
			return nil, err
		}
		reached = a.add(reached, decoded, false, r.effects)
	}
	return reached, nil
}

func (a *assembly) read(ctx context.Context, q eventstore.LogQuery) ([]adapter.Decoded, error) {
	events, err := collect(a.f.Store.ReadLog(ctx, q))
	if err != nil {
		return nil, err
	}
	return a.f.decodeAll(ctx, events)
}

func (a *assembly) all() []adapter.Decoded {
	events := make([]adapter.Decoded, 0, len(a.events))
	for _, e := range a.events {
		events = append(events, e)
	}
	slices.SortFunc(events, func(a, b adapter.Decoded) int { return cmp.Compare(a.Position, b.Position) })
	return events
}

// causes lists the events that e names as its causes.
func causes(e adapter.Decoded) []uuid.UUID {
	var ids []uuid.UUID
	add := func(id uuid.UUID) {
		if id != uuid.Nil && id != e.ID && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	add(e.CausationID)
	for _, l := range e.Meta.Links {
		if l.Relation != relationBatch {
			add(l.EventID)
		}
	}
	if p, ok := e.Payload.(*adapter.ApiCallEchoed); ok {
		add(p.DeliveryEventID)
	}
	return ids
}

// wholeCalls folds calls again from their streams, so that a call whose end was cut
// off the story does not seem to be open.
func (f *Finder) wholeCalls(ctx context.Context, calls []adapter.Call) ([]adapter.Call, error) {
	for i, c := range calls {
		events, err := collect(f.Store.ReadStream(ctx, adapter.CallStream(c.CallID), eventstore.StreamQuery{}))
		if err != nil {
			return nil, err
		}
		decoded, err := f.decodeAll(ctx, events)
		if err != nil {
			return nil, err
		}
		if whole, ok := adapter.FoldCall(decoded); ok {
			calls[i] = whole
		}
	}
	return calls, nil
}

const (
	// maxUsers is how many users of a story are listed, maxLookups how many names are
	// looked up for one.
	maxUsers   = 100
	maxLookups = 10
)

// namedUsers lists the users that events are about. A command that was given an id
// names nobody: such names are looked up.
func (f *Finder) namedUsers(ctx context.Context, events []adapter.Decoded) ([]NamedUser, error) {
	shown := views(events)
	names := namesIn(shown)
	var users []NamedUser
	seen := map[adapter.UserRef]bool{}
	lookups := 0
	for _, v := range shown {
		ref, ok := subjectOf(v)
		if !ok || seen[ref] || len(users) == maxUsers {
			continue
		}
		seen[ref] = true
		name := names[ref]
		// What has been forgotten of a person is not dug up elsewhere.
		if name == "" && len(v.Forgotten) == 0 && f.Users != nil && lookups < maxLookups {
			lookups++
			found, err := f.Users.Find(ctx, ref.UserID, ref.Realm)
			if err != nil {
				return nil, fmt.Errorf("looking up the name of user %s: %w", ref.UserID, err)
			}
			if len(found) == 1 && found[0].ID == ref.UserID {
				name = found[0].Username
			}
		}
		users = append(users, NamedUser{UserRef: ref, Username: name})
	}
	return users, nil
}

// subjectOf is the user that an event is about.
func subjectOf(v adapter.View) (adapter.UserRef, bool) {
	var ref adapter.UserRef
	switch p := v.Data.(type) {
	case adapter.UserPayload:
		ref = p.User()
	case adapter.Subject:
		ref = p.Subject()
	}
	return ref, ref.Realm != "" && ref.UserID != ""
}

// newTrace makes the trace of events, which come in the order of positions.
func newTrace(correlation uuid.UUID, events []adapter.Decoded, calls []adapter.Call, users []NamedUser) Trace {
	t := Trace{CorrelationID: correlation, Events: newTree(views(events)).inOrder(), Calls: calls, Users: users}
	st := study(t)
	t.Status = st.status()
	t.Summary = st.summary()
	t.Next = st.next()
	t.StartedAt, t.EndedAt = st.span()
	return t
}

func views(events []adapter.Decoded) []adapter.View {
	all := make([]adapter.View, 0, len(events))
	for _, e := range events {
		v := e.View()
		v.OccurredAt, v.RecordedAt = utc(v.OccurredAt), utc(v.RecordedAt)
		all = append(all, v)
	}
	return all
}

// callsOf folds the calls among events whose beginning is there.
func callsOf(events []adapter.Decoded) []adapter.Call {
	streams := map[uuid.UUID][]adapter.Decoded{}
	var order []uuid.UUID
	for _, e := range events {
		if e.Stream.Category() != adapter.CategoryCall {
			continue
		}
		id := e.Stream.AggregateID()
		if _, ok := e.Payload.(*adapter.ApiCallRequested); ok {
			order = append(order, id)
		}
		streams[id] = append(streams[id], e)
	}
	calls := make([]adapter.Call, 0, len(order)) // never null in JSON
	for _, id := range order {
		if c, ok := adapter.FoldCall(streams[id]); ok {
			calls = append(calls, c)
		}
	}
	slices.SortStableFunc(calls, func(a, b adapter.Call) int { return a.RequestedAt.Compare(b.RequestedAt) })
	return calls
}
