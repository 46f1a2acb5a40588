package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// MaxEvents is how many events a trace shows where the Finder names no other limit.
const MaxEvents = 2000

const (
	// maxOthers is how many further stories of a user are listed.
	maxOthers = 20
	// maxUserEvents is how many of a user's newest events are looked through for them.
	maxUserEvents = 200
	// maxStoryLine is how many events a line about another story is made of.
	maxStoryLine = 60
)

// UserLookup finds users for whom only a person's idea of an id is known.
type UserLookup interface {
	// Find returns the users whose id is idOrName or, where there is none, whose exact
	// user name it is or was, in the realms named or in all.
	Find(ctx context.Context, idOrName string, realms ...string) ([]adapter.User, error)
}

// UserStories knows the stories about a user that left nothing on the user's own
// stream, such as a failed call or a drift.
type UserStories interface {
	// StoriesOfUser returns the correlation ids of the newest such stories, at most limit.
	StoriesOfUser(ctx context.Context, user adapter.UserRef, limit int) ([]uuid.UUID, error)
}

// Finder finds the story around an id. It is safe for concurrent use if its parts are.
type Finder struct {
	Store eventstore.Reader
	Codec *adapter.Codec
	// Users is asked where an id is nothing else; nil finds users by realm and id only.
	Users UserLookup
	// Stories, if any, adds to what a user's stream tells.
	Stories UserStories
	// History, if any, tells of later calls on a user.
	History CallHistory
	// MaxEvents bounds a trace; 0 means the constant MaxEvents.
	MaxEvents int
}

// Find returns the story around id: a correlation, event, call, delivery, Keycloak
// event or reconciliation run id, a stream's name, a call's stamp as Keycloak shows it
// (urn:keytrail:call:…), or a user's id or name, for whom it is the newest story with
// the others listed. The realm matters for users only and may be empty.
//
// Errors: *adapter.Error with code not_found for an id that leads nowhere and
// invalid_request for a name that several users have, and the store's errors.
func (f *Finder) Find(ctx context.Context, id, realm string) (Trace, error) {
	id = strings.TrimSpace(id)
	s, found, err := f.resolve(ctx, id, realm)
	if err != nil {
		return Trace{}, fmt.Errorf("finding the story of %s: %w", quoted(id), err)
	}
	if !found {
		return Trace{}, notFound(id)
	}
	t, err := f.tell(ctx, s)
	if err != nil {
		return Trace{}, fmt.Errorf("assembling the story of %s: %w", quoted(id), err)
	}
	return t, nil
}

func notFound(id string) error {
	return adapter.Errorf(adapter.CodeNotFound, "nothing is recorded under %s", quoted(id)).
		WithTry("give the id of a correlation, event, call, delivery, Keycloak event, run or user, or an exact user name; `keytrail failures` lists what went wrong, `keytrail events tail` what came last")
}

// quoted shows an id that came from outside: bounded and without control characters.
func quoted(id string) string {
	const limit = 200
	if len(id) > limit {
		id = id[:limit] + "…"
	}
	return fmt.Sprintf("%q", id)
}

// seed is where a story is entered.
type seed struct {
	correlation uuid.UUID
	// event led here; nil where the id was the correlation's own.
	event  *eventstore.Event
	others []Story
}

func (f *Finder) resolve(ctx context.Context, id, realm string) (seed, bool, error) {
	if callID, ok := keycloak.ParseStamp(id); ok {
		id = callID
	}
	if stream, ok := namedStream(id); ok {
		if stream.Category() == adapter.CategoryUser {
			return f.newestOfStream(ctx, stream)
		}
		return f.streamStory(ctx, stream)
	}
	if uid, err := uuid.Parse(id); err == nil && uid != uuid.Nil {
		if s, found, err := f.resolveUUID(ctx, uid); err != nil || found {
			return s, found, err
		}
		// Keycloak writes its ids in lower case, and streams are named after them.
		if id != uid.String() && len(id) == len(uid.String()) {
			id = uid.String()
		}
	}
	if id == "" {
		return seed{}, false, nil
	}
	if s, found, err := f.streamStory(ctx, adapter.DeliveryStream(id)); err != nil || found {
		return s, found, err
	}
	return f.userStory(ctx, id, realm)
}

// resolveUUID looks at the ids that are keytrail's own.
func (f *Finder) resolveUUID(ctx context.Context, id uuid.UUID) (seed, bool, error) {
	for _, q := range []eventstore.LogQuery{
		{CorrelationID: id, Limit: 1},
		{EventIDs: []uuid.UUID{id}, Limit: 1},
	} {
		e, found, err := first(f.Store.ReadLog(ctx, q))
		if err != nil {
			return seed{}, false, err
		}
		if !found {
			continue
		}
		if q.CorrelationID == id {
			return seed{correlation: id}, true, nil
		}
		return seed{correlation: e.CorrelationID, event: &e}, true, nil
	}
	stream, err := f.Store.Stream(ctx, id)
	switch {
	case errors.Is(err, eventstore.ErrNotFound):
		return seed{}, false, nil
	case err != nil:
		return seed{}, false, err
	case stream.Category() == adapter.CategoryUser:
		return f.newestOfStream(ctx, stream)
	}
	return f.streamStory(ctx, stream)
}

// namedStream reads a stream's name, such as "user/acme/6a91…" in a log line.
func namedStream(name string) (eventstore.StreamID, bool) {
	category, rest, ok := strings.Cut(name, "/")
	if !ok {
		return eventstore.StreamID{}, false
	}
	decoded := func(s string) string {
		if d, err := url.PathUnescape(s); err == nil {
			return d
		}
		return s
	}
	switch category {
	case adapter.CategoryDelivery:
		return adapter.DeliveryStream(decoded(rest)), true
	case adapter.CategoryUser:
		realm, id, ok := strings.Cut(rest, "/")
		return adapter.UserStream(decoded(realm), decoded(id)), ok
	case adapter.CategoryCall, adapter.CategoryReconciliation:
		id, err := uuid.Parse(rest)
		return eventstore.UUIDStream(category, id), err == nil
	}
	return eventstore.StreamID{}, false
}

func (f *Finder) streamStory(ctx context.Context, stream eventstore.StreamID) (seed, bool, error) {
	e, found, err := first(f.Store.ReadStream(ctx, stream, eventstore.StreamQuery{Limit: 1}))
	if err != nil || !found {
		return seed{}, false, err
	}
	return seed{correlation: e.CorrelationID, event: &e}, true, nil
}

func (f *Finder) userStory(ctx context.Context, id, realm string) (seed, bool, error) {
	if f.Users == nil {
		if realm == "" {
			return seed{}, false, nil
		}
		return f.newestOfStream(ctx, adapter.UserStream(realm, id))
	}
	var realms []string
	if realm != "" {
		realms = []string{realm}
	}
	users, err := f.Users.Find(ctx, id, realms...)
	switch {
	case err != nil:
		return seed{}, false, err
	case len(users) == 0:
		return seed{}, false, nil
	case len(users) > 1:
		return seed{}, false, ambiguous(id, users)
	}
	return f.newestOfStream(ctx, adapter.UserStream(users[0].Realm, users[0].ID))
}

// ambiguous lists the users among whom a name does not decide.
func ambiguous(name string, users []adapter.User) error {
	const named = 5
	var choices []string
	for _, u := range users[:min(len(users), named)] {
		choices = append(choices, word(u.ID)+" --realm "+word(u.Realm))
	}
	more := ""
	if len(users) > named {
		more = ", …"
	}
	return adapter.Errorf(adapter.CodeInvalidRequest, "%d users have or had the name %s", len(users), quoted(name)).
		WithTry("say which one: %s%s", strings.Join(choices, ", "), more)
}

// newestOfStream enters the newest story about a user and lists the others.
func (f *Finder) newestOfStream(ctx context.Context, stream eventstore.StreamID) (seed, bool, error) {
	newest, err := collect(f.Store.ReadStream(ctx, stream, eventstore.StreamQuery{Backward: true, Limit: maxUserEvents}))
	if err != nil {
		return seed{}, false, err
	}
	last := map[uuid.UUID]eventstore.Event{} // the newest event about the user, by story
	for _, e := range newest {
		if known, ok := last[e.CorrelationID]; !ok || later(e, known) {
			last[e.CorrelationID] = e
		}
	}
	if f.Stories != nil {
		if err := f.addStories(ctx, stream, last); err != nil {
			return seed{}, false, err
		}
	}
	if len(last) == 0 {
		return seed{}, false, nil
	}
	stories := make([]eventstore.Event, 0, len(last))
	for _, e := range last {
		stories = append(stories, e)
	}
	slices.SortFunc(stories, func(a, b eventstore.Event) int {
		return cmp.Or(b.OccurredAt.Compare(a.OccurredAt), cmp.Compare(b.Position, a.Position))
	})
	s := seed{correlation: stories[0].CorrelationID, event: &stories[0]}
	for _, e := range stories[1:min(len(stories), maxOthers+1)] {
		line, err := f.line(ctx, e)
		if err != nil {
			return seed{}, false, err
		}
		s.others = append(s.others, line)
	}
	return s, true, nil
}

func later(a, b eventstore.Event) bool {
	return cmp.Or(a.OccurredAt.Compare(b.OccurredAt), cmp.Compare(a.Position, b.Position)) > 0
}

// addStories adds the stories that left nothing on the user's stream.
func (f *Finder) addStories(ctx context.Context, stream eventstore.StreamID, last map[uuid.UUID]eventstore.Event) error {
	realm, id, err := adapter.UserOfStream(stream)
	if err != nil {
		return err
	}
	correlations, err := f.Stories.StoriesOfUser(ctx, adapter.UserRef{Realm: realm, UserID: id}, maxOthers+1)
	if err != nil {
		return fmt.Errorf("looking for further stories of user %s: %w", id, err)
	}
	for _, c := range correlations {
		if _, known := last[c]; known || c == uuid.Nil {
			continue
		}
		e, found, err := first(f.Store.ReadLog(ctx, eventstore.LogQuery{CorrelationID: c, Backward: true, Limit: 1}))
		if err != nil {
			return err
		}
		if found {
			last[c] = e
		}
	}
	return nil
}

// line puts another story into one line.
func (f *Finder) line(ctx context.Context, newest eventstore.Event) (Story, error) {
	events, _, err := f.ofCorrelation(ctx, newest, maxStoryLine)
	if err != nil {
		return Story{}, err
	}
	users, err := f.namedUsers(ctx, events)
	if err != nil {
		return Story{}, err
	}
	t := newTrace(newest.CorrelationID, events, callsOf(events), users)
	return Story{CorrelationID: newest.CorrelationID, At: utc(newest.OccurredAt), Summary: t.Summary}, nil
}

func first(events iter.Seq2[eventstore.Event, error]) (eventstore.Event, bool, error) {
	for e, err := range events {
		return e, err == nil, err
	}
	return eventstore.Event{}, false, nil
}

func collect(events iter.Seq2[eventstore.Event, error]) ([]eventstore.Event, error) {
	var all []eventstore.Event
	for e, err := range events {
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

func utc(t time.Time) time.Time { return t.UTC() }
