package adapter_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
)

// stream is one user's stream in memory.
type stream struct {
	eventstore.Reader
	events []eventstore.Event
	// reads counts the events that were read.
	reads int
}

func (s *stream) ReadStream(_ context.Context, id eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for _, e := range s.events {
			if e.Stream != id || e.Version <= q.After || (q.Before > 0 && e.Version >= q.Before) {
				continue
			}
			s.reads++
			if !yield(e, nil) {
				return
			}
		}
	}
}

// add records an event as the next of the stream.
func (s *stream) add(t require.TestingT, c *adapter.Codec, occurred, recorded time.Time, actor *adapter.Actor, p adapter.UserPayload) {
	n, err := c.Encode(context.Background(), adapter.Draft{
		Payload: p, OccurredAt: occurred, Meta: adapter.Metadata{CorrelationID: eventstore.NewID(), Actor: actor},
	})
	require.NoError(t, err)
	s.events = append(s.events, eventstore.Event{
		// Other streams' events lie in between.
		Position: eventstore.Position(3*len(s.events) + 2), Version: eventstore.Version(len(s.events) + 1),
		ID: n.ID, Stream: adapter.UserStream(p.User().Realm, p.User().UserID), Type: n.Type, Data: n.Data, Metadata: n.Metadata,
		CorrelationID: n.CorrelationID, OccurredAt: occurred, RecordedAt: recorded,
	})
}

func (s *stream) decoded(t require.TestingT, c *adapter.Codec) []adapter.Decoded {
	var all []adapter.Decoded
	for _, e := range s.events {
		d, err := c.Decode(context.Background(), e)
		require.NoError(t, err)
		all = append(all, d)
	}
	return all
}

// kept are snapshots in memory: all that were saved, sound or not.
type kept []eventstore.Snapshot

func (k kept) Snapshot(_ context.Context, s eventstore.StreamID, shape string, notAfter eventstore.Version) (eventstore.Snapshot, error) {
	var newest eventstore.Snapshot
	for _, n := range k {
		if n.Stream == s && n.Shape == shape && n.Version > newest.Version && (notAfter == 0 || n.Version <= notAfter) {
			newest = n
		}
	}
	if newest.Version == 0 {
		return newest, eventstore.ErrNotFound
	}
	return newest, nil
}

func (k kept) SaveSnapshot(context.Context, eventstore.Snapshot) error { panic("not called") }

// distant is later than everything.
var distant = start.AddDate(100, 0, 0)

// at is the snapshot of the first n events.
func (s *stream) at(t require.TestingT, c *adapter.Codec, n int) eventstore.Snapshot {
	found, err := c.SnapshotUser(context.Background(), &stream{events: s.events[:n]}, kept{}, ref, 1, distant, distant)
	require.NoError(t, err)
	require.NotNil(t, found.Save)
	require.EqualValues(t, n, found.Save.Version)
	return *found.Save
}

func asJSON(t require.TestingT, v any) string {
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// anyPayload draws a user event.
func anyPayload(t *rapid.T) adapter.UserPayload {
	word := rapid.SampledFrom([]string{"", "a", "B", "c@example.com", "é\x00<&>", "d"})
	optional := func(name string) adapter.Optional[string] {
		switch rapid.IntRange(0, 2).Draw(t, name+"?") {
		case 0:
			return adapter.Optional[string]{}
		case 1:
			return adapter.Clear[string]()
		default:
			return adapter.Set(word.Draw(t, name))
		}
	}
	maybe := rapid.Bool()
	attributes := rapid.MapOfN(word, rapid.SliceOfN(word, 0, 2), 0, 2)
	profile := func() adapter.Profile {
		p := adapter.Profile{Username: optional("username"), Email: optional("email"), FirstName: optional("first name"), LastName: optional("last name")}
		if maybe.Draw(t, "enabled?") {
			p.Enabled = adapter.Set(maybe.Draw(t, "enabled"))
		}
		if maybe.Draw(t, "attributes?") {
			p.Attributes = adapter.Set(attributes.Draw(t, "attributes"))
		}
		if maybe.Draw(t, "actions?") {
			p.RequiredActions = adapter.Set(rapid.SliceOfN(word, 0, 2).Draw(t, "actions"))
		}
		if maybe.Draw(t, "locked?") {
			p.LockedUntil = adapter.Set(start.In(time.FixedZone("CET", 3600)))
		}
		return p
	}
	change := func() adapter.UserChange {
		c := adapter.UserChange{UserRef: ref, Set: profile()}
		if maybe.Draw(t, "inferred?") {
			c.Inferred = []string{adapter.FieldAttributes}
		}
		if maybe.Draw(t, "patch?") {
			c.PatchAttributes = attributes.Draw(t, "patch")
		}
		if maybe.Draw(t, "unfolded?") {
			c.Unfolded = "too long"
		}
		return c
	}
	roles := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) adapter.Role {
		return adapter.Role{
			Name: word.Draw(t, "role"), Client: rapid.SampledFrom([]string{"", "app"}).Draw(t, "client"),
			ClientID: rapid.SampledFrom([]string{"", "the-app"}).Draw(t, "client id"),
		}
	}), 0, 2)
	memberships := func() adapter.Memberships {
		var m adapter.Memberships
		if maybe.Draw(t, "memberships?") {
			m.Roles, m.ClientRoles = adapter.Set([]string{"a"}), adapter.Set(map[string][]string{"the-app": {"b"}})
			m.Groups, m.Organizations = adapter.Set([]string{"/g"}), adapter.Set([]adapter.Organization{{ID: "1", Alias: "o"}})
			m.Clients = map[string]string{"app": "the-app"}
		}
		return m
	}
	switch rapid.IntRange(0, 12).Draw(t, "type") {
	case 0:
		return &adapter.UserApiCreated{UserChange: change(), Groups: []string{"/g"}, Partial: maybe.Draw(t, "partial")}
	case 1:
		return &adapter.UserApiEnabled{UserChange: change()}
	case 2:
		return &adapter.UserApiDisabled{UserChange: change()}
	case 3:
		return &adapter.UserApiDeleted{UserRef: ref}
	case 4:
		return &adapter.UserApiRolesChanged{UserRef: ref, Added: roles.Draw(t, "added"), Removed: roles.Draw(t, "removed")}
	case 5:
		return &adapter.UserApiGroupsChanged{UserRef: ref, Joined: []adapter.Group{{Path: "/" + word.Draw(t, "joined")}}}
	case 6:
		return &adapter.UserApiOrganizationsChanged{UserRef: ref, Joined: []adapter.Organization{{ID: word.Draw(t, "organization")}}}
	case 7:
		return &adapter.UserApiObserved{
			UserRef: ref, Present: maybe.Draw(t, "present"), Complete: maybe.Draw(t, "complete"), Set: profile(), Memberships: memberships(), CreatedAt: &start,
		}
	case 8:
		temporary := maybe.Draw(t, "temporary")
		return &adapter.UserApiCredentialsChanged{UserRef: ref, Action: "password_reset", CredentialType: "password", Temporary: &temporary}
	case 9:
		return &adapter.UserApiBaselined{UserRef: ref, Set: profile(), Memberships: memberships()}
	case 10:
		return &adapter.UserApiSessionsEnded{UserRef: ref}
	default:
		return &adapter.UserApiUpdated{UserChange: change()}
	}
}

// anyStream draws a stream some of whose events came late.
func anyStream(t *rapid.T, c *adapter.Codec, most int) *stream {
	s := &stream{}
	actors := []*adapter.Actor{nil, {Type: adapter.ActorSystem, ID: "keytrail/observe"}, {Type: adapter.ActorKeycloakUser, ID: "9", Username: "root", IP: "192.0.2.7"}}
	for i := range rapid.IntRange(1, most).Draw(t, "events") {
		recorded := start.Add(time.Duration(i) * time.Second)
		occurred := recorded
		if rapid.IntRange(0, 4).Draw(t, "late?") == 0 {
			occurred = recorded.Add(-time.Duration(rapid.IntRange(-3, 20).Draw(t, "late")) * time.Second)
		}
		if rapid.IntRange(0, 3).Draw(t, "another clock?") == 0 {
			recorded = recorded.Add(-1500 * time.Millisecond)
		}
		s.add(t, c, occurred, recorded, rapid.SampledFrom(actors).Draw(t, "actor"), anyPayload(t))
	}
	return s
}

// Whatever comes late, and whatever snapshots there are of whatever versions, sound or
// not, loading a user gives what folding every event gives: now, as of a position, and as
// of what occurred or was recorded by a moment.
func TestLoadingFromSnapshotsIsFolding(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := adapter.NewCodec(seal.Plain{})
	served := 0
	rapid.Check(t, func(t *rapid.T) {
		s := anyStream(t, c, 14)
		var snapshots kept
		for range rapid.IntRange(0, 4).Draw(t, "snapshots") {
			n := s.at(t, c, rapid.IntRange(1, len(s.events)).Draw(t, "version"))
			switch rapid.IntRange(0, 9).Draw(t, "damage") {
			case 0:
				n.State = json.RawMessage(rapid.SampledFrom([]string{`{}`, `null`, `[]`, `"x"`, `{"user":{"version":1}}`, `{"user":7}`, ``}).Draw(t, "state"))
			case 1:
				n.Shape = "user/0"
			case 2:
				n.Version += eventstore.Version(rapid.IntRange(1, 20).Draw(t, "ahead"))
			case 3: // of another past, as after a restore
				other := &stream{events: slices.Clone(s.events[:n.Version])}
				other.events[n.Version-1].ID = eventstore.NewID()
				n.State = other.at(t, c, int(n.Version)).State
			case 4:
				n.State = bytes.Replace(n.State, []byte(`"created_by":0`), []byte(`"created_by":99`), 1)
			}
			snapshots = append(snapshots, n)
		}

		until := adapter.UserUntil{}
		switch rapid.IntRange(0, 4).Draw(t, "until") {
		case 0:
			until.Position = eventstore.Position(rapid.IntRange(1, 3*len(s.events)+4).Draw(t, "position"))
		case 1:
			until.At = start.Add(time.Duration(rapid.IntRange(-5, 20).Draw(t, "at")) * time.Second)
		case 2:
			until.KnownAt = start.Add(time.Duration(rapid.IntRange(-5, 20).Draw(t, "known at")) * time.Second)
		case 3:
			until.At, until.KnownAt = start.Add(8*time.Second), start.Add(6*time.Second)
		}
		var seen []adapter.Decoded
		for _, e := range s.decoded(t, c) {
			if (until.Position == 0 || e.Position <= until.Position) && (until.At.IsZero() || !e.OccurredAt.After(until.At)) &&
				(until.KnownAt.IsZero() || !e.RecordedAt.After(until.KnownAt)) {
				seen = append(seen, e)
			}
		}
		want, wanted := adapter.FoldUser(seen)
		s.reads = 0
		got, found, err := c.LoadUser(ctx, s, snapshots, ref, until)
		require.NoError(t, err)
		require.Equal(t, wanted, found)
		require.Equal(t, asJSON(t, want), asJSON(t, got.User))
		if found {
			require.Equal(t, seen[len(seen)-1].Event, got.Newest)
		}
		if s.reads < len(seen) {
			served++
		}
	})
	require.Positive(t, served, "no snapshot ever served")
}

// However a stream grows and whatever comes late, what SnapshotUser makes serves at once,
// and is no older than it has to be.
func TestSnapshotsServe(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := adapter.NewCodec(seal.Plain{})
	rapid.Check(t, func(t *rapid.T) {
		s := anyStream(t, c, 20)
		events := rapid.IntRange(1, 5).Draw(t, "after")
		settled := start.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "settled")) * time.Second)
		decoded := s.decoded(t, c)
		var snapshots kept
		for n := 1; n <= len(s.events); n++ {
			grown := &stream{events: s.events[:n]}
			found, err := c.SnapshotUser(ctx, grown, snapshots, ref, events, settled, distant)
			require.NoError(t, err)
			if found.Save != nil {
				require.Equal(t, found.Version, found.Save.Version)
				snapshots = append(snapshots, *found.Save)
				snapshots = snapshots[max(len(snapshots)-eventstore.SnapshotsKept, 0):]
			}
			newest := eventstore.Version(0)
			if len(snapshots) > 0 {
				newest = snapshots[len(snapshots)-1].Version
			}
			want, _ := adapter.FoldUser(decoded[:n])
			grown.reads = 0
			got, _, err := c.LoadUser(ctx, grown, snapshots, ref, adapter.UserUntil{})
			require.NoError(t, err)
			require.Equal(t, asJSON(t, want), asJSON(t, got.User))
			require.Equal(t, n-max(int(found.Version)-1, 0), grown.reads, "the snapshot's own event and those after it")

			// Brute force: the newest version that can be cut off.
			best := 0
			for v := 1; v <= n; v++ {
				held, _ := adapter.FoldUser(decoded[:v])
				late := slices.ContainsFunc(s.events[v:n], func(e eventstore.Event) bool { return !held.Follows(e) })
				if !late && !held.Last.At.After(settled) {
					best = v
				}
			}
			require.False(t, best-int(found.Version) >= events && best >= int(newest), "one was due at %d", best)
		}
	})
}

func TestWhatStandsInTheWayOfASnapshot(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := adapter.NewCodec(seal.Plain{})
	s := &stream{}
	for i := range 10 {
		s.add(t, c, start.Add(time.Duration(i)*time.Minute), start.Add(time.Duration(i)*time.Minute), nil,
			&adapter.UserApiUpdated{UserChange: change(adapter.Profile{FirstName: adapter.Set(fmt.Sprint(i))})})
	}
	taken := func(settled time.Time) eventstore.Version {
		found, err := c.SnapshotUser(ctx, s, nil, ref, 2, settled, distant)
		require.NoError(t, err)
		if found.Save == nil {
			return 0
		}
		return found.Save.Version
	}
	require.EqualValues(t, 10, taken(distant))
	require.EqualValues(t, 6, taken(start.Add(5*time.Minute)), "younger events may still be preceded")
	require.EqualValues(t, 0, taken(start), "not worth it")
	s.events[7].Type = "UserApiOfTomorrow"
	require.EqualValues(t, 7, taken(distant), "a newer program folds another state")
	s.events[4].OccurredAt = distant
	require.EqualValues(t, 4, taken(start.Add(time.Hour)))

	s.events[2].Data = json.RawMessage(`[]`)
	_, err := c.SnapshotUser(ctx, s, nil, ref, 2, distant, distant)
	require.Error(t, err)
	_, _, err = c.LoadUser(ctx, s, nil, ref, adapter.UserUntil{})
	var unreadable *adapter.UnreadableEventError
	require.ErrorAs(t, err, &unreadable)
	require.Equal(t, s.events[2], unreadable.Event)

	_, found, err := c.LoadUser(ctx, &stream{}, kept{}, ref, adapter.UserUntil{})
	require.NoError(t, err)
	require.False(t, found)
}

// locked seals values with a key for each person and group: it wraps them, with the key's
// name beside, as a sealer that opens metadata has to.
type locked struct{ lost map[string]bool }

func (l locked) Seal(_ context.Context, p seal.Person, g seal.Group, plain []byte) ([]byte, error) {
	return json.Marshal(map[string]string{"key": p.Realm + "/" + p.ID + "/" + string(g), "value": base64.StdEncoding.EncodeToString(plain)})
}

func (l locked) Open(_ context.Context, p seal.Person, g seal.Group, sealed []byte) ([]byte, error) {
	var v map[string]string
	if err := json.Unmarshal(sealed, &v); err != nil {
		return nil, err
	}
	if p != (seal.Person{}) && v["key"] != p.Realm+"/"+p.ID+"/"+string(g) {
		return nil, fmt.Errorf("the value was sealed with the key %s", v["key"])
	}
	if l.lost[v["key"]] {
		return nil, seal.ErrForgotten
	}
	return base64.StdEncoding.DecodeString(v["value"])
}

func (l locked) SealBody(_ context.Context, _ seal.Person, plain []byte) ([]byte, error) {
	return plain, nil
}

func (l locked) OpenBody(_ context.Context, _ seal.Person, sealed []byte) ([]byte, error) {
	return sealed, nil
}

// What is personal in a snapshot is sealed as it is in events; who is forgotten in events
// is forgotten in what a snapshot gives.
func TestSnapshotsAreSealed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lock := locked{lost: map[string]bool{}}
	c := adapter.NewCodec(lock)
	root := &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "9", Username: "canary-root", IP: "192.0.2.7"}
	other := &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "8", Username: "canary-other"}
	s := &stream{}
	s.add(t, c, start, start, root, &adapter.UserApiCreated{UserChange: change(adapter.Profile{
		Username: adapter.Set("canary-name"), Email: adapter.Set("canary@example.com"),
		Attributes: adapter.Set(map[string][]string{"phone": {"canary-phone"}}),
	})})
	for i, p := range []adapter.Profile{
		{Email: adapter.Set("canary2@example.com"), Attributes: adapter.Set(map[string][]string{"phone": {"canary-phone2"}})},
		{Email: adapter.Set("canary3@example.com"), Attributes: adapter.Set(map[string][]string{"phone": {"canary-phone3"}})},
		{LastName: adapter.Set("canary-last")},
	} {
		at := start.Add(time.Hour + time.Duration(i)*time.Second) // close together: the fold keeps rivals
		s.add(t, c, at, at, other, &adapter.UserApiUpdated{UserChange: change(p)})
	}
	snapshots := kept{s.at(t, c, 3)}
	state := string(snapshots[0].State)
	require.NotContains(t, state, "canary")
	for _, key := range []string{`acme/1/profile`, `acme/1/attributes`, `/9/actor`, `/8/actor`} {
		require.Contains(t, state, `"key":"`+key+`"`)
	}
	// Each part holds only what belongs under its key.
	var parts struct {
		User, Attributes struct{ Value string }
		Actors           []struct{ Actor struct{ Value string } }
	}
	require.NoError(t, json.Unmarshal(snapshots[0].State, &parts))
	require.Len(t, parts.Actors, 2)
	open := func(value string) string {
		b, err := base64.StdEncoding.DecodeString(value)
		require.NoError(t, err)
		return string(b)
	}
	require.Contains(t, open(parts.User.Value), "canary2@example.com", "a rival")
	for _, not := range []string{"canary-phone", "canary-root", "canary-other", "192.0.2.7"} {
		require.NotContains(t, open(parts.User.Value), not)
	}
	require.Contains(t, open(parts.Attributes.Value), "canary-phone3")
	require.Contains(t, open(parts.Attributes.Value), "canary-phone2", "a rival")

	load := func() (adapter.User, int) {
		s.reads = 0
		got, found, err := c.LoadUser(ctx, s, snapshots, ref, adapter.UserUntil{})
		require.NoError(t, err)
		require.True(t, found)
		want, _ := adapter.FoldUser(s.decoded(t, c))
		require.Equal(t, asJSON(t, want), asJSON(t, got.User))
		return got.User, s.reads
	}
	u, read := load()
	require.Equal(t, 2, read)
	require.Equal(t, "canary-root", u.CreatedBy.Username)
	for _, key := range []string{`acme/1/profile`, `acme/1/attributes`, `/9/actor`, `/8/actor`} {
		lock.lost = map[string]bool{}
		lock.lost[key] = true
		c = adapter.NewCodec(lock)
		u, read = load()
		if key == `/9/actor` {
			require.Nil(t, u.CreatedBy)
		}
		if key != `acme/1/attributes` { // in events the key of attributes seals single ones only
			require.Positive(t, strings.Count(asJSON(t, u), "canary"), key)
		}
		require.Equal(t, 4, read, "all of them, without %s", key)
	}
}

func BenchmarkLoadUser(b *testing.B) {
	const events = 10_000
	ctx := b.Context()
	c := adapter.NewCodec(seal.Plain{})
	s := longStream(b, c, events)
	snapshots := kept{s.at(b, c, events-200)}
	for _, with := range []struct {
		name      string
		snapshots eventstore.Snapshotter
	}{{"full", nil}, {"snapshot", snapshots}} {
		b.Run(with.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				u, _, err := c.LoadUser(ctx, s, with.snapshots, ref, adapter.UserUntil{})
				require.NoError(b, err)
				require.EqualValues(b, events, u.Version)
			}
		})
	}
}

// longStream is a user who was changed so many times.
func longStream(t require.TestingT, c *adapter.Codec, events int) *stream {
	s := &stream{}
	root := &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "9", Username: "root", IP: "192.0.2.7"}
	for i := range events {
		at := start.Add(time.Duration(i) * time.Minute)
		set := adapter.Profile{
			FirstName: adapter.Set(fmt.Sprint("Bob ", i)), Email: adapter.Set("bob@example.com"), LastName: adapter.Set("Stone"),
			Attributes: adapter.Set(map[string][]string{"department": {"operations"}, "cost_center": {fmt.Sprint(i % 7)}}),
		}
		var p adapter.UserPayload = &adapter.UserApiUpdated{UserChange: change(set)}
		switch {
		case i == 0:
			set.Username = adapter.Set("bob")
			p = &adapter.UserApiCreated{UserChange: change(set)}
		case i%3 == 0:
			p = &adapter.UserApiRolesChanged{UserRef: ref, Added: []adapter.Role{{Name: fmt.Sprint("role-", i%11)}}}
		}
		s.add(t, c, at, at, root, p)
	}
	return s
}
