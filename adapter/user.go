package adapter

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// User is the believed state of one user: the fold of the events on its stream.
//
// It is folded in the order (time, event id), not in the order of arrival, because
// deliveries come late and out of order: the same events give the same user,
// however they came.
type User struct {
	Realm         string  `json:"realm"`
	ID            string  `json:"id"`
	Username      string  `json:"username"`
	Email         *string `json:"email"`
	FirstName     *string `json:"first_name"`
	LastName      *string `json:"last_name"`
	Enabled       bool    `json:"enabled"`
	EmailVerified bool    `json:"email_verified"`
	// Attributes are what was asked for; see Origins for whether they were read back.
	Attributes      map[string][]string `json:"attributes"`
	RequiredActions []string            `json:"required_actions"`
	// Roles are the names of directly given realm roles, sorted, without
	// default-roles-*; ClientRoles the same by client.
	Roles       []string            `json:"roles"`
	ClientRoles map[string][]string `json:"client_roles"`
	// Groups are full paths, sorted.
	Groups        []string       `json:"groups"`
	Organizations []Organization `json:"organizations"`
	LockedUntil   *time.Time     `json:"locked_until"`
	CreatedAt     *time.Time     `json:"created_at"`
	CreatedBy     *Actor         `json:"created_by"`
	UpdatedAt     *time.Time     `json:"updated_at"`
	Deleted       bool           `json:"deleted"`
	DeletedAt     *time.Time     `json:"deleted_at"`
	// Version is the stream's version that the state includes.
	Version eventstore.Version `json:"version"`

	// Origins says for each known field which event set it. A field without an origin
	// has never been seen.
	Origins map[string]Origin `json:"origins,omitempty"`
	// Unread is set while events have left open what the user looks like: a read is due.
	Unread *Unread `json:"unread,omitempty"`
	// ClientIDs are the client_ids of clients that events name by UUID, as reads told.
	ClientIDs map[string]string `json:"client_ids,omitempty"`
	// Last is the newest event folded, in the order of (time, event id).
	Last Stamp `json:"last"`
	// FirstKnownAt is when the oldest event about the user occurred.
	FirstKnownAt time.Time `json:"first_known_at"`
}

// Organization is an organization that a user is a member of.
type Organization struct {
	ID    string `json:"id"`
	Alias string `json:"alias"`
}

// Origin is where a field's value comes from.
type Origin struct {
	EventID uuid.UUID `json:"event_id"`
	At      time.Time `json:"at"`
	Actor   *Actor    `json:"actor,omitempty"`
	// Inferred is true where the value follows from a request and was not read.
	Inferred bool `json:"inferred,omitempty"`
	// Doubtful is true where another event on the field lies so close that their order is
	// in doubt. The value is one that was set, and is read to be sure that it is the last.
	Doubtful bool `json:"doubtful,omitempty"`
	// Rivals are the values of the events that may have been last, as JSON.
	Rivals []json.RawMessage `json:"rivals,omitempty"`
	// Type is the event's type and Version its place in the order of arrival.
	Type    string             `json:"type,omitempty"`
	Version eventstore.Version `json:"version,omitempty"`
	// Again is set where a later event sent the same value once more.
	Again *Again `json:"again,omitempty"`
	// Touched are the elements of a list that events have given or taken since it was
	// last seen whole, each once, the last ones.
	Touched []Touch `json:"touched,omitempty"`
}

// Touch is the last event that gave an element of a list, or took it.
type Touch struct {
	Element string             `json:"element"`
	Given   bool               `json:"given,omitempty"`
	At      time.Time          `json:"at"`
	Version eventstore.Version `json:"version,omitempty"`
}

// maxTouched bounds the elements whose last change is kept, per list.
const maxTouched = 32

// Again is the last event that set a field to the value that it had.
type Again struct {
	At      time.Time          `json:"at"`
	Version eventstore.Version `json:"version,omitempty"`
}

// maxRivals bounds the values that are kept of a burst of changes.
const maxRivals = 32

// Allows reports whether a value is one that the field may have, although another is
// believed: that of an event whose order is in doubt.
func (o Origin) Allows(value any) bool {
	if !o.Doubtful {
		return false
	}
	raw, err := json.Marshal(value)
	return err == nil && slices.ContainsFunc(o.Rivals, func(r json.RawMessage) bool { return bytes.Equal(r, raw) })
}

// Unread says why a user has to be read.
type Unread struct {
	// Since is when the newest event occurred that leaves something open.
	Since   time.Time `json:"since"`
	Because string    `json:"because"`
	// EventID is that event and CorrelationID its story, which the read continues.
	EventID       uuid.UUID `json:"event_id"`
	CorrelationID uuid.UUID `json:"correlation_id"`
}

// nearby is how close together two changes of one field may be for their order to be
// in doubt. Keycloak takes an event's time before its transaction commits: in two of
// three bursts of parallel updates the latest event did not hold the value that was
// live (measured on 26.7.3).
const nearby = 2 * time.Second

// Stamp is an event's place in the order of the fold.
type Stamp struct {
	At time.Time `json:"at"`
	// Rank is -1 for a creation and 1 for a deletion: of two events of one millisecond
	// these are the first and the last.
	Rank    int       `json:"rank,omitempty"`
	EventID uuid.UUID `json:"event_id"`
}

// Compare orders stamps by time, then by rank, then by event id.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(s.At.Compare(o.At), cmp.Compare(s.Rank, o.Rank), bytes.Compare(s.EventID[:], o.EventID[:]))
}

// StampOf is the event's stamp.
func StampOf(e eventstore.Event) Stamp {
	s := Stamp{At: e.OccurredAt, EventID: e.ID}
	switch e.Type {
	case TypeUserApiCreated:
		s.Rank = -1
	case TypeUserApiDeleted:
		s.Rank = 1
	}
	return s
}

// Names of a user's fields, as they stand in JSON.
const (
	FieldUsername        = "username"
	FieldEmail           = "email"
	FieldFirstName       = "first_name"
	FieldLastName        = "last_name"
	FieldEnabled         = "enabled"
	FieldEmailVerified   = "email_verified"
	FieldAttributes      = "attributes"
	FieldRequiredActions = "required_actions"
	FieldRoles           = "roles"
	FieldClientRoles     = "client_roles"
	FieldGroups          = "groups"
	FieldLockedUntil     = "locked_until"
)

// SortForFold puts the events of one user's stream into the order of the fold.
func SortForFold(events []Decoded) {
	slices.SortStableFunc(events, func(a, b Decoded) int { return StampOf(a.Event).Compare(StampOf(b.Event)) })
}

// FoldUser folds the events of one user's stream, in any order. It reports false
// where there are none.
func FoldUser(events []Decoded) (User, bool) {
	if len(events) == 0 {
		return User{}, false
	}
	sorted := slices.Clone(events)
	SortForFold(sorted)
	var u User
	for _, e := range sorted {
		u.Apply(e)
	}
	return u, true
}

// Follows reports whether e may be applied on top of u: it comes after everything
// folded so far. Where it does not, fold the whole stream anew.
func (u *User) Follows(e eventstore.Event) bool {
	return u.Version == 0 || StampOf(e).Compare(u.Last) > 0
}

// Known reports whether the field has ever been seen.
func (u *User) Known(field string) bool {
	_, ok := u.Origins[field]
	return ok
}

// Apply folds one event in. Events must come in the order of SortForFold.
func (u *User) Apply(e Decoded) {
	if ref, ok := e.Payload.(UserPayload); ok && u.ID == "" {
		u.Realm, u.ID = ref.User().Realm, ref.User().UserID
	}
	if u.Version == 0 {
		u.FirstKnownAt = e.OccurredAt
		if introduces(e.Payload) {
			u.open(e, "nothing was known of the user before")
		}
	}
	at := e.OccurredAt
	switch p := e.Payload.(type) {
	case *UserApiCreated:
		// Few ids come back, and none at once: the creation is ours, told by our clock and not
		// in milliseconds, and what seems to precede it came after it.
		late := u.Version > 0 && at.Sub(u.Last.At) < nearby
		u.begin()
		if late {
			u.open(e, "something happened to the user that seems to precede the creation")
		}
		u.CreatedAt, u.CreatedBy = &at, e.Meta.Actor
		u.knowDefaults(p, e)
		u.change(p.UserChange, e)
		u.Groups = sortedSet(p.Groups)
	case *UserApiUpdated:
		u.change(p.UserChange, e)
	case *UserApiEnabled:
		u.change(p.UserChange, e)
	case *UserApiDisabled:
		u.change(p.UserChange, e)
	case *UserApiDeleted:
		u.Deleted, u.DeletedAt, u.Unread = true, &at, nil
	case *UserApiRolesChanged:
		u.changeRoles(p, e)
	case *UserApiGroupsChanged:
		u.changeGroups(p, e)
	case *UserApiOrganizationsChanged:
		u.changeOrganizations(p, e)
	case *UserApiCredentialsChanged:
		u.changeCredentials(p, e)
	case *UserApiObserved:
		if p.Complete || !p.Present {
			u.Unread = nil
		}
		if p.Present {
			u.observe(p.Set, p.Memberships, p.CreatedAt, e)
		} else if !u.Deleted {
			u.Deleted, u.DeletedAt = true, &at
		}
	case *UserApiBaselined:
		u.observe(p.Set, p.Memberships, p.CreatedAt, e)
	}
	if _, created := e.Payload.(*UserApiCreated); !created && changesState(e.Payload) {
		u.UpdatedAt = &at
	}
	u.Last = StampOf(e.Event)
	u.Version++
}

// introduces reports whether an event that is the first about a user leaves open what
// else there is to know.
func introduces(p Payload) bool {
	switch p.(type) {
	case *UserApiCreated, *UserApiDeleted, *UserApiObserved, *UserApiBaselined:
		return false
	default:
		return changesState(p)
	}
}

// changesState tells changes to the user from mere looks at it, and from what only
// concerns sessions and e-mails.
func changesState(p Payload) bool {
	switch p.(type) {
	case *UserApiObserved, *UserApiBaselined, *UserApiSessionsEnded, *UserApiEmailRequested, nil:
		return false
	default:
		return true
	}
}

// begin clears what an earlier life of the same id has left: an import may bring a
// deleted id back.
func (u *User) begin() {
	*u = User{
		Realm: u.Realm, ID: u.ID, Version: u.Version, FirstKnownAt: u.FirstKnownAt, Last: u.Last,
		Origins: make(map[string]Origin), ClientIDs: u.ClientIDs,
	}
}

// knowDefaults marks the fields that a creation settles although it does not mention
// them. It does not settle what the realm may add by itself, without an event:
// required actions that are on by default, default groups, and, when people register
// themselves, attributes that the form asked for. A creation without representation
// settles nothing.
func (u *User) knowDefaults(p *UserApiCreated, e Decoded) {
	if p.Partial {
		return
	}
	for _, f := range []string{
		FieldUsername, FieldEmail, FieldFirstName, FieldLastName, FieldEnabled, FieldEmailVerified,
		FieldRoles, FieldClientRoles, FieldLockedUntil,
	} {
		u.from(f, e, false)
	}
	u.from(FieldGroups, e, true)
	if p.Via != "registration" {
		u.from(FieldAttributes, e, false)
	}
}

func (u *User) from(field string, e Decoded, inferred bool) {
	if u.Origins == nil {
		u.Origins = make(map[string]Origin)
	}
	u.Origins[field] = Origin{
		EventID: e.ID, At: e.OccurredAt, Actor: e.Meta.Actor, Inferred: inferred, Type: e.Type, Version: e.Version,
	}
}

// partly reports whether a list was never seen whole: what an event adds to it or takes
// from it leaves open what else is in it, as default groups are.
func (u *User) partly(field string) bool {
	before, known := u.Origins[field]
	return !known || before.Inferred
}

// doubtful reports whether the order of e and the event that set the field before is
// in doubt: they lie close together, or arrived the other way round. Nothing comes
// before a creation, and what a command of ours found recorded came before it.
func (u *User) doubtful(field string, e Decoded) bool {
	before, known := u.Origins[field]
	at, version := before.last()
	switch {
	case !known || before.EventID == e.ID || (before.Type == TypeUserApiCreated && before.Again == nil):
		return false
	case version > e.Version:
		return true
	case e.Meta.CallID != nil:
		return false
	default:
		return e.OccurredAt.Sub(at) < nearby
	}
}

// rival keeps the value that the field has had until now as one that may be the last.
func (u *User) rival(field string, before Origin) {
	origin := u.Origins[field]
	origin.Doubtful = true
	i := slices.IndexFunc(userFields, func(f userField) bool { return f.name == field })
	if raw, err := json.Marshal(userFields[i].get(*u)); err == nil && len(before.Rivals) < maxRivals {
		origin.Rivals = append(slices.Clone(before.Rivals), raw)
	}
	u.Origins[field] = origin
}

// open marks that a read is due.
func (u *User) open(e Decoded, because string) {
	u.Unread = &Unread{Since: e.OccurredAt, Because: because, EventID: e.ID, CorrelationID: e.CorrelationID}
}

func (u *User) observe(set Profile, memberships Memberships, createdAt *time.Time, e Decoded) {
	// A user that is seen alive is alive, whatever was believed.
	if u.Deleted && u.DeletedAt != nil && e.OccurredAt.Sub(*u.DeletedAt) < nearby {
		u.open(e, "a read shows a user who was deleted right before it, or after it")
	}
	u.Deleted, u.DeletedAt = false, nil
	if createdAt != nil && u.CreatedAt == nil {
		u.CreatedAt = createdAt
	}
	after := *u
	set.applyTo(&after)
	memberships.applyTo(&after)
	for _, field := range slices.Concat(set.Fields(), memberships.Fields()) {
		origin, known := u.Origins[field]
		// A read that confirms what an event said leaves the event as the field's origin:
		// whoever asks who last set it wants the one who did, not the one who looked.
		if known && len(DiffUsers(*u, after, field)) == 0 {
			origin.Inferred, origin.Doubtful, origin.Rivals, origin.Touched = false, false, nil, nil
			u.Origins[field] = origin
			continue
		}
		at, version := origin.last()
		if !known && u.UpdatedAt != nil && len(DiffUsers(*u, User{}, field)) > 0 {
			at = *u.UpdatedAt // events have told a part of it
		}
		switch {
		case known && version > e.Version:
			// It arrived after the read. Where Keycloak's clock is behind ours it may also have
			// occurred after it, although its time says otherwise.
			u.open(e, "a change of "+field+" arrived after a read that it seems to precede")
		case !origin.Inferred && !origin.Doubtful && e.OccurredAt.Sub(at) < nearby:
			// A change that was under way when the read was sent may have been done after it.
			u.open(e, "a read does not show the change of "+field+" right before it")
		}
		u.from(field, e, false)
	}
	origins, unread := u.Origins, u.Unread
	*u = after
	u.Origins, u.Unread = origins, unread
}

func (u *User) change(c UserChange, e Decoded) {
	u.set(c.Set, c.Inferred, e)
	if c.Unfolded != "" {
		u.open(e, c.Unfolded)
	}
	if len(c.PatchAttributes) == 0 {
		return
	}
	attributes := maps.Clone(u.Attributes)
	if attributes == nil {
		attributes = make(map[string][]string)
	}
	maps.Copy(attributes, c.PatchAttributes)
	maps.DeleteFunc(attributes, func(_ string, values []string) bool { return len(values) == 0 })
	u.Attributes = attributes
	// Of a user whose attributes were never seen, these are not all.
	if u.Known(FieldAttributes) {
		u.from(FieldAttributes, e, slices.Contains(c.Inferred, FieldAttributes))
	}
}

func (u *User) set(set Profile, inferred []string, e Decoded) {
	after := *u
	set.applyTo(&after)
	for _, field := range set.Fields() {
		guess := slices.Contains(inferred, field)
		doubtful := u.doubtful(field, e) && len(DiffUsers(*u, after, field)) > 0
		if doubtful {
			u.open(e, "the order of two changes of "+field+" is in doubt")
		}
		if because, ok := droppedSilently[field]; ok && guess {
			u.open(e, because)
		}
		before, known := u.Origins[field]
		if known && !guess && !before.Inferred && len(DiffUsers(*u, after, field)) == 0 {
			// Who saves a whole form sends every field again: the one who changed it stays.
			if !u.doubtful(field, e) {
				before.Doubtful, before.Rivals = false, nil
			}
			u.Origins[field] = before.sentAgain(e)
			continue
		}
		u.from(field, e, guess)
		if doubtful {
			u.rival(field, before)
		}
	}
	set.applyTo(u)
}

// sentAgain is the origin of a value that e sets to what it is.
func (o Origin) sentAgain(e Decoded) Origin {
	o.Again = &Again{At: e.OccurredAt, Version: e.Version}
	return o
}

// last is when an event set the field last, and its place in the order of arrival.
func (o Origin) last() (time.Time, eventstore.Version) {
	if o.Again != nil {
		return o.Again.At, o.Again.Version
	}
	return o.At, o.Version
}

func (u *User) changeRoles(p *UserApiRolesChanged, e Decoded) {
	if p.Unfolded != "" {
		u.open(e, p.Unfolded)
	}
	u.learnClients(slices.Concat(p.Added, p.Removed))
	u.touch(FieldRoles, e, roleElements(p.Added, false), roleElements(p.Removed, false))
	u.touch(FieldClientRoles, e, roleElements(p.Added, true), roleElements(p.Removed, true))
	for _, r := range p.Removed {
		u.removeRole(r)
	}
	for _, r := range p.Added {
		u.addRole(r)
	}
	for _, r := range slices.Concat(p.Added, p.Removed) {
		if r.Client == "" {
			continue
		}
		if _, known := u.ClientIDs[r.Client]; !known {
			u.open(e, "the event names the client by its UUID only")
		}
	}
}

// roleElements names realm roles, or those of clients.
func roleElements(roles []Role, ofClients bool) []string {
	var names []string
	for _, r := range roles {
		switch {
		case (r.Client != "") != ofClients:
		case ofClients:
			names = append(names, r.Client+"/"+r.Name)
		default:
			names = append(names, r.Name)
		}
	}
	return names
}

// touch notes that e gave and took elements of a list, before they are folded. Changes of
// different elements go together in any order. Of the same element, the last one counts:
// where it is in doubt which that was, as for other fields, a read is due.
func (u *User) touch(field string, e Decoded, given, taken []string) {
	if len(given)+len(taken) == 0 {
		return
	}
	before, doubtful := u.Origins[field], false
	touched := slices.Clone(before.Touched)
	note := func(element string, isGiven bool) {
		if i := slices.IndexFunc(touched, func(t Touch) bool { return t.Element == element }); i >= 0 {
			t := touched[i]
			close := e.Meta.CallID == nil && e.OccurredAt.Sub(t.At) < nearby
			doubtful = doubtful || (t.Given != isGiven && (t.Version > e.Version || close))
			touched = slices.Delete(touched, i, i+1)
		}
		touched = append(touched, Touch{Element: element, Given: isGiven, At: e.OccurredAt, Version: e.Version})
	}
	for _, element := range taken {
		note(element, false)
	}
	for _, element := range given {
		note(element, true)
	}
	u.from(field, e, u.partly(field))
	if doubtful {
		u.open(e, "the order of two changes of "+field+" is in doubt")
		u.rival(field, before)
	}
	origin := u.Origins[field]
	origin.Touched = touched[max(0, len(touched)-maxTouched):]
	u.Origins[field] = origin
}

// defaultRolesPrefix starts the composite role that every user of a realm has.
const defaultRolesPrefix = "default-roles-"

func (u *User) addRole(r Role) {
	switch {
	case r.Client != "":
		roles := maps.Clone(u.ClientRoles)
		if roles == nil {
			roles = make(map[string][]string)
		}
		client := u.client(r.Client)
		roles[client] = sortedSet(append(slices.Clone(roles[client]), r.Name))
		u.ClientRoles = roles
	case !strings.HasPrefix(r.Name, defaultRolesPrefix):
		u.Roles = sortedSet(append(slices.Clone(u.Roles), r.Name))
	}
}

func (u *User) removeRole(r Role) {
	if r.Client == "" {
		u.Roles = without(u.Roles, r.Name)
		return
	}
	roles, client := maps.Clone(u.ClientRoles), u.client(r.Client)
	if left := without(roles[client], r.Name); len(left) > 0 {
		roles[client] = left
	} else {
		delete(roles, client)
	}
	u.ClientRoles = roles
}

// learnClients keeps what the roles tell about the names of their clients.
func (u *User) learnClients(roles []Role) {
	for _, r := range roles {
		if r.Client == "" || r.ClientID == "" || u.ClientIDs[r.Client] == r.ClientID {
			continue
		}
		names := maps.Clone(u.ClientIDs)
		if names == nil {
			names = make(map[string]string)
		}
		names[r.Client] = r.ClientID
		u.ClientIDs = names
	}
}

// client is the client_id of the client with this UUID, or the UUID where no read has
// told it yet.
func (u *User) client(id string) string {
	if name, known := u.ClientIDs[id]; known {
		return name
	}
	return id
}

func (u *User) changeGroups(p *UserApiGroupsChanged, e Decoded) {
	if p.Unfolded != "" {
		u.open(e, p.Unfolded)
		return
	}
	u.touch(FieldGroups, e, paths(p.Joined), paths(p.Left))
	for _, g := range p.Left {
		u.Groups = without(u.Groups, g.Path)
	}
	for _, g := range p.Joined {
		u.Groups = sortedSet(append(slices.Clone(u.Groups), g.Path))
	}
}

func paths(groups []Group) []string {
	names := make([]string, 0, len(groups))
	for _, g := range groups {
		names = append(names, g.Path)
	}
	return names
}

// Fields names the fields that the change touches.
func (p Profile) Fields() []string {
	var names []string
	add := func(present bool, name string) {
		if present {
			names = append(names, name)
		}
	}
	add(p.Username.Present(), FieldUsername)
	add(p.Email.Present(), FieldEmail)
	add(p.FirstName.Present(), FieldFirstName)
	add(p.LastName.Present(), FieldLastName)
	add(p.Enabled.Present(), FieldEnabled)
	add(p.EmailVerified.Present(), FieldEmailVerified)
	add(p.Attributes.Present(), FieldAttributes)
	add(p.RequiredActions.Present(), FieldRequiredActions)
	add(p.LockedUntil.Present(), FieldLockedUntil)
	return names
}

func (p Profile) applyTo(u *User) {
	if p.Username.Present() {
		name, _ := p.Username.Get()
		// Keycloak stores user names and addresses in lower case and shows them in
		// events as they were sent (measured on 26.7.3).
		u.Username = strings.ToLower(name)
	}
	if p.Email.Present() {
		u.Email = nonEmpty(p.Email.Ptr())
		if u.Email != nil {
			lower := strings.ToLower(*u.Email)
			u.Email = &lower
		}
	}
	if p.FirstName.Present() {
		u.FirstName = nonEmpty(p.FirstName.Ptr())
	}
	if p.LastName.Present() {
		u.LastName = nonEmpty(p.LastName.Ptr())
	}
	if p.Enabled.Present() {
		u.Enabled, _ = p.Enabled.Get()
	}
	if p.EmailVerified.Present() {
		u.EmailVerified, _ = p.EmailVerified.Get()
	}
	if p.Attributes.Present() {
		attributes, _ := p.Attributes.Get()
		u.Attributes = maps.Clone(attributes)
	}
	if p.RequiredActions.Present() {
		actions, _ := p.RequiredActions.Get()
		u.RequiredActions = sortedSet(actions)
	}
	if p.LockedUntil.Present() {
		u.LockedUntil = p.LockedUntil.Ptr()
	}
}

// nonEmpty takes an empty text as none: "" clears a field in Keycloak.
func nonEmpty(s *string) *string {
	if s == nil || *s == "" {
		return nil
	}
	return s
}

func sortedSet(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

func without(s []string, name string) []string {
	out := slices.DeleteFunc(slices.Clone(s), func(x string) bool { return x == name })
	if len(out) == 0 {
		return nil
	}
	return out
}
