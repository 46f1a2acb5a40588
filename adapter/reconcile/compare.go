package reconcile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
)

// profileFields are the fields that Keycloak's user listing has; membershipFields are
// read otherwise.
var profileFields = []string{
	adapter.FieldUsername, adapter.FieldEmail, adapter.FieldFirstName, adapter.FieldLastName,
	adapter.FieldEnabled, adapter.FieldEmailVerified, adapter.FieldRequiredActions, adapter.FieldAttributes,
}

// Difference is one field that Keycloak and our belief disagree on.
type Difference struct {
	Field string
	// Believed and Actual are nil for none.
	Believed, Actual any
	// Origin is the event that set the believed value.
	Origin adapter.Origin
}

// Comparison is how a live user relates to the believed one, before it is asked
// whether a difference is settled.
type Comparison struct {
	// Differences are in fields that were seen before.
	Differences []Difference
	// Adopt holds the live values of fields never seen: there is no belief that they
	// could contradict.
	Adopt            adapter.Profile
	AdoptMemberships adapter.Memberships
	// Dropped are the differences in values that were inferred and never read back, so
	// that the live value only tells how the inference turned out. Of attributes that is
	// so where some that were asked for are missing and the others agree: Keycloak
	// silently does not store those that the user profile does not manage.
	Dropped []Difference
	// Confirmed are the fields whose value was inferred and turns out to be so. Noted as
	// read, it is a belief like any other, and a later change of it is drift.
	Confirmed []string
	// Untold are the fields that a brief answer leaves out although something is
	// believed about them: only a targeted read can tell.
	Untold []string
}

// Agrees reports whether nothing contradicts the belief.
func (c Comparison) Agrees() bool {
	return len(c.Differences) == 0 && len(c.Dropped) == 0 && len(c.Untold) == 0
}

// join adds what another part of the user gave.
func (c Comparison) join(o Comparison) Comparison {
	c.Differences = slices.Concat(c.Differences, o.Differences)
	c.AdoptMemberships = merge(c.AdoptMemberships, o.AdoptMemberships)
	c.Dropped = slices.Concat(c.Dropped, o.Dropped)
	c.Confirmed = slices.Concat(c.Confirmed, o.Confirmed)
	return c
}

// Compare compares the profile of a believed user with a live one. full says that live comes from a
// read of that one user, where absent attributes mean none; a listing may be brief,
// and then they mean "not told".
//
// The live user passes the same fold as events do, so that lower case, order and
// empty values are normalised alike. Attribute values are compared as sets, because
// Keycloak does not promise their order.
func Compare(believed adapter.User, live keycloak.User, full bool) Comparison {
	var c Comparison
	told := profileOf(live, full)
	actual := observed(believed.Realm, live.ID, told)
	want := believed
	want.Attributes, actual.Attributes = sortedValues(want.Attributes), sortedValues(actual.Attributes)

	toldFields := told.Fields()
	var known, unknown []string
	for _, field := range profileFields {
		switch {
		case !slices.Contains(toldFields, field):
			if believed.Known(field) && holdsSomething(want, field) {
				c.Untold = append(c.Untold, field)
			}
		case believed.Known(field):
			known = append(known, field)
		default:
			unknown = append(unknown, field)
		}
	}
	c.Adopt = pick(told, unknown...)
	if len(known) == 0 {
		return c
	}
	changes := adapter.DiffUsers(want, actual, known...)
	for _, field := range known {
		differs := slices.ContainsFunc(changes, func(c adapter.FieldChange) bool { return c.Field == field })
		if origin := believed.Origins[field]; (origin.Inferred || origin.Doubtful) && !differs {
			c.Confirmed = append(c.Confirmed, field)
		}
	}
	for _, change := range changes {
		d := Difference{Field: change.Field, Believed: change.Old, Actual: change.New, Origin: believed.Origins[change.Field]}
		// One of several changes close together was the last: the read tells which.
		if d.Origin.Allows(d.Actual) || d.Origin.Inferred && mayBeDropped(d.Field, want, actual) {
			c.Dropped = append(c.Dropped, d)
			continue
		}
		c.Differences = append(c.Differences, d)
	}
	return c
}

// CompareMemberships compares a believed user's roles, groups and organizations with
// those that were read; fields that were not are left out.
//
// Client roles are compared by client_id, also where belief names a client by the UUID
// of its event because no read has told the client_id yet: such a belief is right, and
// adopted under its name. Organizations are compared by id.
func CompareMemberships(believed adapter.User, live adapter.Memberships) Comparison {
	var c Comparison
	var actual adapter.User
	actual.Apply(adapter.Decoded{Payload: &adapter.UserApiBaselined{
		UserRef: adapter.UserRef{Realm: believed.Realm, UserID: believed.ID}, Memberships: live,
	}})
	want := believed
	want.ClientRoles = byClientID(believed.ClientRoles, live.Clients)
	if slices.EqualFunc(want.Organizations, actual.Organizations, func(a, b adapter.Organization) bool { return a.ID == b.ID }) {
		actual.Organizations = want.Organizations
	}
	var adopt []string
	for _, field := range live.Fields() {
		if !believed.Known(field) {
			adopt = append(adopt, field)
			continue
		}
		origin := believed.Origins[field]
		changes := adapter.DiffUsers(want, actual, field)
		if len(changes) == 0 {
			switch {
			case len(adapter.DiffUsers(want, believed, field)) > 0:
				adopt = append(adopt, field)
			case origin.Inferred:
				c.Confirmed = append(c.Confirmed, field)
			}
			continue
		}
		d := Difference{Field: field, Believed: changes[0].Old, Actual: changes[0].New, Origin: origin}
		if origin.Inferred {
			c.Dropped = append(c.Dropped, d)
		} else {
			c.Differences = append(c.Differences, d)
		}
	}
	c.AdoptMemberships = pickMemberships(live, adopt...)
	return c
}

// byClientID names clients by client_id that are named by UUID.
func byClientID(roles map[string][]string, clients map[string]string) map[string][]string {
	out := make(map[string][]string, len(roles))
	for client, names := range roles {
		if id, ok := clients[client]; ok {
			client = id
		}
		out[client] = append(slices.Clone(out[client]), names...)
		slices.Sort(out[client])
		out[client] = slices.Compact(out[client])
	}
	return out
}

// profileOf is what an answer of Keycloak tells about a user's profile.
//
// A full representation leaves attributes out when there are none, but always has
// requiredActions; a brief one has neither (Keycloak 26.7.3).
func profileOf(live keycloak.User, full bool) adapter.Profile {
	p := adapter.Profile{
		Username:  adapter.Set(live.Username),
		Email:     adapter.SetOrClear(live.Email),
		FirstName: adapter.SetOrClear(live.FirstName),
		LastName:  adapter.SetOrClear(live.LastName),
	}
	if live.Enabled != nil {
		p.Enabled = adapter.Set(*live.Enabled)
	}
	if live.EmailVerified != nil {
		p.EmailVerified = adapter.Set(*live.EmailVerified)
	}
	if full || live.RequiredActions != nil || live.Attributes != nil {
		attributes := maps.Clone(live.Attributes)
		if attributes == nil {
			attributes = map[string][]string{}
		}
		p.Attributes = adapter.Set(attributes)
		p.RequiredActions = adapter.Set(append([]string{}, live.RequiredActions...))
	}
	return p
}

// observed is the user that a profile folds to.
func observed(realm, id string, p adapter.Profile) adapter.User {
	var u adapter.User
	u.Apply(adapter.Decoded{Payload: &adapter.UserApiBaselined{UserRef: adapter.UserRef{Realm: realm, UserID: id}, Set: p}})
	return u
}

// pick is the part of p that concerns the fields named.
func pick(p adapter.Profile, fields ...string) adapter.Profile {
	var out adapter.Profile
	for _, field := range fields {
		switch field {
		case adapter.FieldUsername:
			out.Username = p.Username
		case adapter.FieldEmail:
			out.Email = p.Email
		case adapter.FieldFirstName:
			out.FirstName = p.FirstName
		case adapter.FieldLastName:
			out.LastName = p.LastName
		case adapter.FieldEnabled:
			out.Enabled = p.Enabled
		case adapter.FieldEmailVerified:
			out.EmailVerified = p.EmailVerified
		case adapter.FieldAttributes:
			out.Attributes = p.Attributes
		case adapter.FieldRequiredActions:
			out.RequiredActions = p.RequiredActions
		}
	}
	return out
}

// holdsSomething reports whether the user has a value for the field.
func holdsSomething(u adapter.User, field string) bool {
	return len(adapter.DiffUsers(u, adapter.User{}, field)) > 0
}

func sortedValues(attributes map[string][]string) map[string][]string {
	if attributes == nil {
		return nil
	}
	out := make(map[string][]string, len(attributes))
	for name, values := range attributes {
		out[name] = slices.Sorted(slices.Values(values))
	}
	return out
}

// mayBeDropped reports whether the difference of a field whose value was asked for, and not
// read back, is one that Keycloak makes by itself: it drops parts of what is asked, and
// adds none.
func mayBeDropped(field string, want, actual adapter.User) bool {
	switch field {
	case adapter.FieldAttributes:
		return lacksOnly(want.Attributes, actual.Attributes)
	case adapter.FieldRequiredActions:
		return !slices.ContainsFunc(actual.RequiredActions, func(a string) bool { return !slices.Contains(want.RequiredActions, a) })
	default:
		return true
	}
}

// lacksOnly reports whether actual is believed without some of its attributes. Both
// have sorted values.
func lacksOnly(believed, actual map[string][]string) bool {
	for name, values := range actual {
		if len(values) > 0 && !slices.Equal(values, believed[name]) {
			return false
		}
	}
	return true
}

// settled splits differences into those whose believed value is older than the
// settle time and those that an event under way may still explain.
func settled(differences []Difference, now time.Time, settle time.Duration) (old, young []Difference) {
	for _, d := range differences {
		if isYoung(lastBelieved(d.Origin), now, settle) {
			young = append(young, d)
		} else {
			old = append(old, d)
		}
	}
	return old, young
}

// lastBelieved is when an event set a field last, also to what it was. Blame is of the
// one that changed it, but how settled it is goes by this.
func lastBelieved(o adapter.Origin) time.Time {
	if o.Again != nil && o.Again.At.After(o.At) {
		return o.Again.At
	}
	return o.At
}

// maxAhead is how far a clock may be ahead of ours: further than one that is set to the
// wrong zone. A time beyond that was made up, as the createdTimestamp of an imported user
// may be, and says nothing about age.
const maxAhead = 24 * time.Hour

func isYoung(at, now time.Time, settle time.Duration) bool {
	age := now.Sub(at)
	return age < settle && age > -maxAhead
}

// recordable turns differences into their recorded form.
func recordable(differences []Difference) ([]adapter.FieldDifference, error) {
	fields := make([]adapter.FieldDifference, 0, len(differences))
	for _, d := range differences {
		f, err := fieldDifference(d.Field, d.Believed, d.Actual, d.Origin)
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func fieldDifference(field string, believed, actual any, origin adapter.Origin) (adapter.FieldDifference, error) {
	f := adapter.FieldDifference{Field: field}
	var err error
	if f.Believed, err = json.Marshal(believed); err != nil {
		return f, fmt.Errorf("encoding the believed %s: %w", field, err)
	}
	if f.Actual, err = json.Marshal(actual); err != nil {
		return f, fmt.Errorf("encoding the actual %s: %w", field, err)
	}
	if slices.Contains(membershipFields, field) {
		had, has := entries(believed), entries(actual)
		f.Added, f.Removed = lacking(has, had), lacking(had, has)
	}
	if !origin.At.IsZero() {
		f.LastChangedAt, f.LastChangedEvent = &origin.At, &origin.EventID
		if origin.Actor != nil {
			f.LastChangedBy = origin.Actor.String()
		}
	}
	return f, nil
}

// entries are the members of a membership field, one word each, sorted.
func entries(value any) []string {
	var out []string
	switch v := value.(type) {
	case []string:
		out = slices.Clone(v)
	case map[string][]string:
		for client, names := range v {
			for _, name := range names {
				out = append(out, client+"/"+name)
			}
		}
	case []adapter.Organization:
		for _, o := range v {
			out = append(out, cmp.Or(o.Alias, o.ID))
		}
	}
	slices.Sort(out)
	return out
}

// lacking are those of a that b lacks.
func lacking(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(x string) bool {
		_, found := slices.BinarySearch(b, x)
		return found
	})
}

// sameFinding reports whether two findings say the same about a user. Who last set a
// believed value does not count.
func sameFinding(a, b adapter.Finding) bool {
	return a.Situation == b.Situation && slices.EqualFunc(a.Fields, b.Fields, func(x, y adapter.FieldDifference) bool {
		return x.Field == y.Field && sameJSON(x.Believed, y.Believed) && sameJSON(x.Actual, y.Actual)
	})
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return string(a) == string(b)
	}
	return reflect.DeepEqual(x, y)
}
