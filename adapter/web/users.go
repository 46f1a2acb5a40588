package web

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/trace"
)

type usersView struct {
	Users  []adapter.User
	Pager  pager
	Search string
	Realm  string
	State  string
	Realms []string
}

// listUsers is GET /users.
func (s *Server) listUsers(w http.ResponseWriter, r *http.Request) error {
	v := usersView{Search: text(r, "q"), Realm: text(r, "realm"), State: text(r, "state"), Realms: s.Realms}
	if v.Realm != "" && !slices.Contains(v.Realms, v.Realm) {
		v.Realms = append(slices.Clone(v.Realms), v.Realm)
	}
	f := httpapi.UserFilter{Realm: v.Realm, Search: v.Search}
	yes, no := true, false
	switch v.State {
	case "": // those who exist
		f.Deleted = &no
	case "enabled":
		f.Enabled, f.Deleted = &yes, &no
	case "disabled":
		f.Enabled, f.Deleted = &no, &no
	case "deleted":
		f.Deleted = &yes
	case "all":
	default:
		return adapter.Errorf(adapter.CodeInvalidRequest, "%s is no state of a user", quoted(v.State))
	}
	users, next, err := s.Users.List(r.Context(), f, pageSize, text(r, "cursor"))
	if err != nil {
		return err
	}
	v.Users, v.Pager = users, pagerOf(r, next)
	return s.render(w, r, http.StatusOK, "users", "users", "Users", v)
}

type userView struct {
	User adapter.User
	// At is the moment that is shown, zero for now.
	At time.Time
	// FirstKnownAt is before which moment there is nothing to see.
	FirstKnownAt time.Time
	Fields       []userField
	Drift        *adapter.Finding
	Calls        []adapter.Call
	Credentials  []trace.HistoryLine
	Timeline     []trace.HistoryLine
	Events       int
	Pager        pager
}

type userField struct {
	Name   string
	Value  string
	Values []string // of a list
	Known  bool
	Origin *adapter.Origin
}

const (
	// userCalls and userCredentials are how many a user's page shows.
	userCalls       = 10
	userCredentials = 5
)

// showUser is GET /realms/{realm}/users/{id}, now or at a moment.
func (s *Server) showUser(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	realm, id := param(r, "realm"), param(r, "id")
	at, err := moment(r, "at")
	if err != nil {
		return err
	}
	events, err := s.Codec.ReadStream(ctx, s.Store, adapter.UserStream(realm, id))
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return s.leadToUser(w, r, realm, id)
	}
	now, _ := adapter.FoldUser(events)
	v := userView{User: now, At: at, FirstKnownAt: now.FirstKnownAt}
	entries := adapter.UserHistory(events)
	slices.Reverse(entries)
	if !at.IsZero() {
		then, known := adapter.UserAsOf(events, at, time.Time{})
		if !known {
			return adapter.Errorf(adapter.CodeNotYetKnown, "nothing is known of this user before %s", now.FirstKnownAt.UTC().Format(time.RFC3339)).
				WithTry("choose a later moment")
		}
		v.User = then
		entries = slices.DeleteFunc(entries, func(e adapter.HistoryEntry) bool { return e.OccurredAt.After(at) })
	}
	v.Events = len(entries)
	lines := trace.HistoryLines(entries)
	for _, l := range lines {
		if l.EventType == adapter.TypeUserApiCredentialsChanged && len(v.Credentials) < userCredentials {
			v.Credentials = append(v.Credentials, l)
		}
	}
	if v.Timeline, v.Pager, err = timelinePage(r, lines); err != nil {
		return err
	}
	v.Fields = fieldsOf(v.User)
	if v.Calls, _, err = s.Calls.List(ctx, httpapi.CallFilter{Realm: realm, UserID: id}, userCalls, ""); err != nil {
		return err
	}
	if at.IsZero() { // how the user differs from Keycloak is known of now alone
		drift, drifts, err := s.OpenDrift(ctx, realm, id)
		if err != nil {
			return err
		}
		if drifts {
			v.Drift = &drift
		}
	}
	title := now.Username
	if title == "" {
		title = id
	}
	return s.render(w, r, http.StatusOK, "user", "users", title+" in "+realm, v)
}

// leadToUser leads from a user name to the user who has it.
func (s *Server) leadToUser(w http.ResponseWriter, r *http.Request, realm, name string) error {
	users, err := s.Users.Find(r.Context(), name, realm)
	if err != nil {
		return err
	}
	if len(users) > 0 && users[0].ID != name {
		http.Redirect(w, r, userPath(users[0].Realm, users[0].ID), http.StatusSeeOther)
		return nil
	}
	return adapter.Errorf(adapter.CodeUserNotFound, "nothing is known of a user %s in realm %s", quoted(name), quoted(realm)).
		WithTry("look for the user in the list, or let a reconciliation adopt the users that Keycloak has")
}

// timelinePage cuts a page out of a user's events; its cursor is the last event shown.
func timelinePage(r *http.Request, lines []trace.HistoryLine) ([]trace.HistoryLine, pager, error) {
	if cursor := text(r, "cursor"); cursor != "" {
		id, err := uuid.Parse(cursor)
		at := slices.IndexFunc(lines, func(l trace.HistoryLine) bool { return l.EventID == id })
		if err != nil || at < 0 {
			return nil, pager{}, adapter.Errorf(adapter.CodeInvalidRequest, "the cursor is not one that this list gave").WithTry("begin at the first page")
		}
		lines = lines[at+1:]
	}
	next := ""
	if len(lines) > pageSize {
		lines = lines[:pageSize]
		next = lines[pageSize-1].EventID.String()
	}
	return lines, pagerOf(r, next), nil
}

func fieldsOf(u adapter.User) []userField {
	var fields []userField
	add := func(field string, value any) {
		f := userField{Name: fieldName(field), Value: trace.Value(value), Known: u.Known(field) || len(u.Origins) == 0}
		if o, ok := u.Origins[field]; ok {
			f.Origin = &o
		}
		fields = append(fields, f)
	}
	list := func(field, name string, values []string) {
		f := userField{Name: name, Values: values, Known: u.Known(field) || len(u.Origins) == 0}
		if o, ok := u.Origins[field]; ok {
			f.Origin = &o
		}
		fields = append(fields, f)
	}
	add(adapter.FieldUsername, u.Username)
	add(adapter.FieldEmail, deref(u.Email))
	add(adapter.FieldEmailVerified, u.EmailVerified)
	add(adapter.FieldFirstName, deref(u.FirstName))
	add(adapter.FieldLastName, deref(u.LastName))
	add(adapter.FieldEnabled, u.Enabled)
	if u.LockedUntil != nil {
		add(adapter.FieldLockedUntil, *u.LockedUntil)
	}
	list(adapter.FieldRequiredActions, fieldName(adapter.FieldRequiredActions), u.RequiredActions)
	list(adapter.FieldRoles, fieldName(adapter.FieldRoles), u.Roles)
	for _, client := range slices.Sorted(maps.Keys(u.ClientRoles)) {
		list(adapter.FieldClientRoles, "Roles of "+client, u.ClientRoles[client])
	}
	if len(u.ClientRoles) == 0 {
		list(adapter.FieldClientRoles, fieldName(adapter.FieldClientRoles), nil)
	}
	list(adapter.FieldGroups, fieldName(adapter.FieldGroups), u.Groups)
	var attributes []string
	for _, name := range slices.Sorted(maps.Keys(u.Attributes)) {
		attributes = append(attributes, name+" = "+trace.Value(u.Attributes[name]))
	}
	list(adapter.FieldAttributes, fieldName(adapter.FieldAttributes), attributes)
	if len(u.Organizations) > 0 {
		f := userField{Name: "Organizations", Known: true}
		for _, o := range u.Organizations {
			f.Values = append(f.Values, o.Alias)
		}
		fields = append(fields, f)
	}
	return fields
}

func deref(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}
