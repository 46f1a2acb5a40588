package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// UserReader reads the users projection.
type UserReader interface {
	// Get returns the user with this id, deleted or not, and false where none is known.
	Get(ctx context.Context, realm, id string) (adapter.User, bool, error)
	// Find returns the users whose id is idOrName or, where there is none, whose user
	// name it is: those who have it now or, where there is none, those who had it.
	Find(ctx context.Context, idOrName string, realms ...string) ([]adapter.User, error)
	// List returns a page of users and the cursor of the next one, empty on the last. A
	// cursor that is not its own is CodeInvalidRequest.
	List(ctx context.Context, f UserFilter, limit int, cursor string) ([]adapter.User, string, error)
}

// UserFilter selects users. Conditions are combined with and; zero values select all.
type UserFilter struct {
	Realm string
	// Username and Email are exact, in any case.
	Username, Email string
	Enabled         *bool
	Deleted         *bool
	// Search is part of a user name, address, first or last name, in any case.
	Search string
}

// listUsers is GET /realms/{realm}/users: all that were ever known, unless deleted or
// another filter says otherwise.
func (s *Server) listUsers(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	f := UserFilter{
		Realm: param(r, "realm"), Username: q.text("username"), Email: q.text("email"),
		Enabled: q.flag("enabled"), Deleted: q.flag("deleted"), Search: q.text("search"),
	}
	limit, cursor := q.page()
	if err := q.err(); err != nil {
		return err
	}
	users, next, err := s.Users.List(r.Context(), f, limit, cursor)
	if err != nil {
		return err
	}
	views := make([]adapter.UserView, len(users))
	for i, u := range users {
		views[i] = u.View()
	}
	return answer(w, http.StatusOK, pageOf(views, next))
}

// showUser is GET /realms/{realm}/users/{id}.
func (s *Server) showUser(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	at, knownAt := q.time("at"), q.time("known_at")
	if err := q.err(); err != nil {
		return err
	}
	u, err := s.findUser(r.Context(), param(r, "realm"), param(r, "id"))
	if err != nil {
		return err
	}
	if !at.IsZero() || !knownAt.IsZero() {
		if u, err = s.userAsOf(r.Context(), u, at, knownAt); err != nil {
			return err
		}
	}
	return answer(w, http.StatusOK, u.View())
}

// findUser returns the user with this id or exact user name as it is now: the
// projection's row or, where the stream is ahead of it, the stream's fold, so that
// whoever changed a user sees the change.
func (s *Server) findUser(ctx context.Context, realm, idOrName string) (adapter.User, error) {
	found, err := s.Users.Find(ctx, idOrName, realm)
	if err != nil {
		return adapter.User{}, err
	}
	var u adapter.User
	id := idOrName
	if len(found) > 0 {
		// Of several who had the name and are deleted, the one who had it last.
		u = slices.MaxFunc(found, func(a, b adapter.User) int { return a.Last.Compare(b.Last) })
		id = u.ID
	}
	stream := adapter.UserStream(realm, id)
	versions, err := s.Store.Versions(ctx, stream)
	if err != nil {
		return adapter.User{}, err
	}
	if versions[stream.AggregateID()] > u.Version {
		loaded, _, err := s.Codec.LoadUser(ctx, s.Store, s.Snapshots, adapter.UserRef{Realm: realm, UserID: id}, adapter.UserUntil{})
		if err != nil {
			return adapter.User{}, err
		}
		u = loaded.User
	}
	if u.Version == 0 {
		return adapter.User{}, adapter.Errorf(adapter.CodeUserNotFound, "no user of realm %s has the id or user name %s", quoted(realm), quoted(idOrName)).
			WithTry("GET %s/realms/{realm}/users lists the users that keytrail has heard of", apiRoot)
	}
	return u, nil
}

// userAsOf folds what occurred until at and was recorded until knownAt; a zero time does
// not limit.
func (s *Server) userAsOf(ctx context.Context, u adapter.User, at, knownAt time.Time) (adapter.User, error) {
	then, known, err := s.Codec.LoadUser(ctx, s.Store, s.Snapshots, adapter.UserRef{Realm: u.Realm, UserID: u.ID}, adapter.UserUntil{At: at, KnownAt: knownAt})
	if err != nil || known {
		return then.User, err
	}
	events, err := s.Codec.ReadStream(ctx, s.Store, adapter.UserStream(u.Realm, u.ID))
	if err != nil {
		return adapter.User{}, err
	}
	// Of the two limits, the first known moment is that of the one that nothing keeps to:
	// when something occurred or, where something had by then, when that was recorded.
	moment, recorded := u.FirstKnownAt, time.Time{}
	for _, e := range events {
		if (at.IsZero() || !e.OccurredAt.After(at)) && (recorded.IsZero() || e.RecordedAt.Before(recorded)) {
			recorded = e.RecordedAt
		}
	}
	if !recorded.IsZero() {
		moment = recorded
	}
	return adapter.User{}, adapter.Errorf(adapter.CodeNotYetKnown, "nothing is known of user %s before %s", u.ID, moment.UTC().Format(time.RFC3339Nano))
}

// userHistory is GET /realms/{realm}/users/{id}/history, newest first.
func (s *Server) userHistory(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	limit, cursor := q.page()
	before := cursorID(q, cursor)
	if err := q.err(); err != nil {
		return err
	}
	u, err := s.findUser(r.Context(), param(r, "realm"), param(r, "id"))
	if err != nil {
		return err
	}
	events, err := s.Codec.ReadStream(r.Context(), s.Store, adapter.UserStream(u.Realm, u.ID))
	if err != nil {
		return err
	}
	// The fold needs all of them, in order; the page is cut out afterwards.
	entries := adapter.UserHistory(events)
	slices.Reverse(entries)
	if before != uuid.Nil {
		at := slices.IndexFunc(entries, func(e adapter.HistoryEntry) bool { return e.EventID == before })
		if at < 0 {
			return badCursor()
		}
		entries = entries[at+1:]
	}
	next := ""
	if len(entries) > limit {
		entries = entries[:limit]
		next = entries[limit-1].EventID.String()
	}
	for i := range entries {
		entries[i].View = viewInUTC(entries[i].View)
		if entries[i].Changes == nil {
			entries[i].Changes = []adapter.FieldChange{}
		}
	}
	return answer(w, http.StatusOK, pageOf(entries, next))
}

// cursorID reads a cursor that is an id.
func cursorID(q *query, cursor string) uuid.UUID {
	if cursor == "" {
		return uuid.Nil
	}
	id, err := uuid.Parse(cursor)
	if err != nil || id == uuid.Nil {
		q.faults.add("cursor", badCursorMessage)
	}
	return id
}

const badCursorMessage = "is not one that this list gave: leave it out to begin anew"

func badCursor() error { return faults{{"cursor", badCursorMessage}}.err() }

// quoted shows a text that came from outside: bounded, and without control characters.
func quoted(text string) string {
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strconv.Quote(text)
}
