package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

func folded(events ...adapter.Decoded) adapter.User {
	u, _ := adapter.FoldUser(events)
	return u
}

func event(at time.Time, p adapter.Payload) adapter.Decoded {
	return adapter.Decoded{Event: eventstore.Event{ID: eventstore.NewID(), OccurredAt: at}, Payload: p}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	created := func(set adapter.Profile, inferred ...string) adapter.User {
		if !set.RequiredActions.Present() {
			set.RequiredActions = adapter.Set([]string{})
		}
		return folded(event(at, &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref("1"), Set: set, Inferred: inferred}}))
	}
	attributes := func(m map[string][]string) adapter.Profile {
		return adapter.Profile{Username: adapter.Set("ann"), Attributes: adapter.Set(m)}
	}
	off := false
	for name, c := range map[string]struct {
		believed adapter.User
		live     keycloak.User
		full     bool
		differs  []string
		adopts   []string
		dropped  bool
		untold   []string
	}{
		"equal but for case and empty values": {
			believed: created(adapter.Profile{Username: adapter.Set("Ann"), Email: adapter.Set("A@Example.org"), LastName: adapter.Set("")}),
			live:     keycloak.User{ID: "1", Username: "ann", Email: ptr("a@example.org"), Enabled: &off, EmailVerified: &off, RequiredActions: []string{}},
			full:     true,
		},
		"every field": {
			believed: created(adapter.Profile{
				Username: adapter.Set("ann"), Email: adapter.Set("a@x.org"), FirstName: adapter.Set("A"), LastName: adapter.Set("B"),
				Enabled: adapter.Set(true), EmailVerified: adapter.Set(true), RequiredActions: adapter.Set([]string{"VERIFY_EMAIL"}),
				Attributes: adapter.Set(map[string][]string{"k": {"v"}}),
			}),
			live: keycloak.User{ID: "1", Username: "bob", Enabled: &off, EmailVerified: &off},
			full: true, differs: profileFields,
		},
		"required actions that the realm adds by itself": {
			believed: folded(event(at, &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref("1"), Set: adapter.Profile{Username: adapter.Set("ann")}}})),
			live:     keycloak.User{ID: "1", Username: "ann", Enabled: &off, EmailVerified: &off, RequiredActions: []string{"VERIFY_EMAIL"}},
			full:     true, adopts: []string{adapter.FieldRequiredActions},
		},
		"a required action that Keycloak does not know": {
			believed: created(adapter.Profile{Username: adapter.Set("ann"), RequiredActions: adapter.Set([]string{"NOPE", "VERIFY_EMAIL"})}, adapter.FieldRequiredActions),
			live:     keycloak.User{ID: "1", Username: "ann", Enabled: &off, EmailVerified: &off, RequiredActions: []string{"VERIFY_EMAIL"}},
			full:     true, dropped: true,
		},
		"a required action that nobody asked for": {
			believed: created(adapter.Profile{Username: adapter.Set("ann"), RequiredActions: adapter.Set([]string{"VERIFY_EMAIL"})}, adapter.FieldRequiredActions),
			live:     keycloak.User{ID: "1", Username: "ann", Enabled: &off, EmailVerified: &off, RequiredActions: []string{"UPDATE_PASSWORD"}},
			full:     true, differs: []string{adapter.FieldRequiredActions},
		},
		"what was inferred turns out otherwise": {
			believed: created(adapter.Profile{Username: adapter.Set("ann"), EmailVerified: adapter.Set(true)}, adapter.FieldEmailVerified),
			live:     keycloak.User{ID: "1", Username: "ann", Enabled: &off, EmailVerified: &off},
			full:     true, dropped: true,
		},
		"order of values and actions": {
			believed: created(adapter.Profile{
				Username: adapter.Set("ann"), Attributes: adapter.Set(map[string][]string{"k": {"a", "b"}, "none": {}}),
				RequiredActions: adapter.Set([]string{"B", "A"}),
			}),
			live: keycloak.User{ID: "1", Username: "ann", Attributes: map[string][]string{"k": {"b", "a"}}, RequiredActions: []string{"A", "B"}},
		},
		"never seen": {
			believed: folded(event(at, &adapter.UserApiRolesChanged{UserRef: ref("1"), Added: []adapter.Role{{Name: "r"}}})),
			live:     keycloak.User{ID: "1", Username: "ann", Enabled: &off},
			full:     true,
			adopts: []string{
				adapter.FieldUsername, adapter.FieldEmail, adapter.FieldFirstName, adapter.FieldLastName,
				adapter.FieldEnabled, adapter.FieldAttributes, adapter.FieldRequiredActions,
			},
		},
		"unmanaged attribute dropped": {
			believed: created(attributes(map[string][]string{"a": {"1"}, "b": {"2"}}), adapter.FieldAttributes),
			live:     keycloak.User{ID: "1", Username: "ann", Attributes: map[string][]string{"a": {"1"}}}, full: true, dropped: true,
		},
		"all attributes dropped": {
			believed: created(attributes(map[string][]string{"a": {"1"}}), adapter.FieldAttributes),
			live:     keycloak.User{ID: "1", Username: "ann"}, full: true, dropped: true,
		},
		"inferred attribute has another value": {
			believed: created(attributes(map[string][]string{"a": {"1"}, "b": {"2"}}), adapter.FieldAttributes),
			live:     keycloak.User{ID: "1", Username: "ann", Attributes: map[string][]string{"a": {"9"}}}, full: true,
			differs: []string{adapter.FieldAttributes},
		},
		"inferred attributes have one more": {
			believed: created(attributes(map[string][]string{"a": {"1"}}), adapter.FieldAttributes),
			live:     keycloak.User{ID: "1", Username: "ann", Attributes: map[string][]string{"a": {"1"}, "b": {"2"}}}, full: true,
			differs: []string{adapter.FieldAttributes},
		},
		"attribute that was read is gone": {
			believed: created(attributes(map[string][]string{"a": {"1"}})),
			live:     keycloak.User{ID: "1", Username: "ann"}, full: true,
			differs: []string{adapter.FieldAttributes},
		},
		"brief answer": {
			believed: created(attributes(map[string][]string{"a": {"1"}})),
			live:     keycloak.User{ID: "1", Username: "ann"},
			untold:   []string{adapter.FieldAttributes},
		},
		"full entry without attributes": {
			believed: created(attributes(map[string][]string{"a": {"1"}})),
			live:     keycloak.User{ID: "1", Username: "ann", RequiredActions: []string{}},
			differs:  []string{adapter.FieldAttributes},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Compare(c.believed, c.live, c.full)
			var differs []string
			for _, d := range got.Differences {
				differs = append(differs, d.Field)
				require.Equal(t, c.believed.Origins[d.Field], d.Origin)
			}
			require.ElementsMatch(t, c.differs, differs)
			require.ElementsMatch(t, c.adopts, got.Adopt.Fields())
			require.ElementsMatch(t, c.untold, got.Untold)
			require.Equal(t, c.dropped, len(got.Dropped) > 0)
			require.Equal(t, len(c.differs)+len(c.untold) == 0 && !c.dropped, got.Agrees())
		})
	}
}

// TestFoldedUserAgreesWithTheLiveUser draws a live user, lets events build the
// belief from it in the form that Keycloak sends, and finds no difference.
func TestFoldedUserAgreesWithTheLiveUser(t *testing.T) {
	t.Parallel()
	text := rapid.StringMatching(`[a-zA-Z0-9@ .äÖß_-]{0,12}`)
	optional := func(t *rapid.T, label string) *string {
		if rapid.Bool().Draw(t, label+" present") {
			return ptr(text.Draw(t, label))
		}
		return nil
	}
	rapid.Check(t, func(t *rapid.T) {
		sent := keycloak.User{
			ID: "1", Username: text.Draw(t, "username"), Email: optional(t, "email"),
			FirstName: optional(t, "first name"), LastName: optional(t, "last name"),
			Enabled: ptr(rapid.Bool().Draw(t, "enabled")), EmailVerified: ptr(rapid.Bool().Draw(t, "verified")),
			Attributes:      rapid.MapOfN(text, rapid.SliceOfN(text, 0, 3), 0, 4).Draw(t, "attributes"),
			RequiredActions: rapid.SliceOfN(text, 0, 3).Draw(t, "actions"),
		}
		at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
		set := profileOf(sent, true)
		var events []adapter.Decoded
		if rapid.Bool().Draw(t, "in steps") {
			fields := set.Fields()
			cut := rapid.IntRange(0, len(fields)).Draw(t, "cut")
			events = append(events,
				event(at, &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref("1"), Set: pick(set, fields[:cut]...)}}),
				event(at.Add(time.Second), &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: ref("1"), Set: pick(set, fields[cut:]...)}}))
		} else {
			events = append(events, event(at, &adapter.UserApiBaselined{UserRef: ref("1"), Set: set}))
		}

		// Keycloak stores names and addresses in lower case and "" as none, and answers
		// in an order of its own.
		live := sent
		live.Username = strings.ToLower(sent.Username)
		for _, p := range []**string{&live.Email, &live.FirstName, &live.LastName} {
			if *p != nil && **p == "" {
				*p = nil
			}
		}
		if live.Email != nil {
			live.Email = ptr(strings.ToLower(*live.Email))
		}
		live.Attributes = map[string][]string{}
		for name, values := range sent.Attributes {
			if len(values) > 0 {
				live.Attributes[name] = rapid.Permutation(values).Draw(t, "order of "+name)
			}
		}
		if len(live.Attributes) == 0 {
			live.Attributes = nil
		}
		live.RequiredActions = rapid.Permutation(sent.RequiredActions).Draw(t, "order of actions")

		got := Compare(folded(events...), live, true)
		require.True(t, got.Agrees(), "%+v", got)
		require.Empty(t, got.Adopt.Fields())
	})
}
