package adapter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
)

// TestShape fails when snapshots would be read by another program than the one that they
// were taken for: testdata/user_shapes.txt holds, for each name of the shape, what the
// state's types looked like and what the events of this test folded into. A line is never
// changed; a change of either takes a new name and a new line.
func TestShape(t *testing.T) {
	t.Parallel()
	known, err := os.ReadFile("testdata/user_shapes.txt")
	require.NoError(t, err)
	line := fmt.Sprintf("%s types=%s fold=%s", UserShape, digestOf(describe(reflect.TypeFor[sealedUser]())), digestOf(foldOfEverything(t)))
	for before := range strings.Lines(string(known)) {
		if strings.HasPrefix(before, UserShape+" ") {
			require.Equal(t, strings.TrimSpace(before), line, "a user's state or its fold has changed: raise UserShape, or old snapshots are taken for new ones")
			return
		}
	}
	t.Fatalf("UserShape is new; add this line to testdata/user_shapes.txt:\n%s", line)
}

func digestOf(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:16] }

// describe names the fields of a type as they stand in JSON, and their types.
func describe(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[uuid.UUID]() || t == reflect.TypeFor[json.RawMessage]():
		return t.String()
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice:
		return t.Kind().String() + " of " + describe(t.Elem())
	case t.Kind() == reflect.Map:
		return "map from " + describe(t.Key()) + " to " + describe(t.Elem())
	case t.Kind() != reflect.Struct:
		return t.Kind().String()
	}
	var b strings.Builder
	b.WriteString("{")
	for i := range t.NumField() {
		f := t.Field(i)
		fmt.Fprintf(&b, "%s (%s): %s; ", f.Tag.Get("json"), f.Tag.Get("seal"), describe(f.Type))
	}
	return b.String() + "}"
}

// foldOfEverything is the state after each of a row of events in which every type of user
// event stands, and each way in which the fold treats one.
func foldOfEverything(t *testing.T) string {
	ref := UserRef{Realm: "acme", UserID: "1"}
	yes, at := true, time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	change := func(p Profile) UserChange { return UserChange{UserRef: ref, Set: p} }
	attributes := Profile{Attributes: Set(map[string][]string{"dept": {"ops"}}), RequiredActions: Set([]string{"VERIFY_EMAIL"})}
	inferred := change(attributes)
	inferred.Inferred = attributes.Droppable()
	patch := UserChange{UserRef: ref, PatchAttributes: map[string][]string{"phone": {"1"}, "dept": nil}}
	memberships := Memberships{
		Roles: Set([]string{"auditor"}), ClientRoles: Set(map[string][]string{"app": {"reader"}}), Clients: map[string]string{"c1": "app"},
		Groups: Set([]string{"/staff"}), Organizations: Set([]Organization{{ID: "o1", Alias: "one"}}),
	}
	payloads := []UserPayload{
		&UserApiSessionsEnded{UserRef: ref},
		&UserApiUpdated{change(Profile{FirstName: Set("Bob")})},
		&UserApiCreated{UserChange: change(Profile{Username: Set("Bob"), Email: Set("Bob@Example.com"), Enabled: Set(true)}), Groups: []string{"/staff"}},
		&UserApiUpdated{change(Profile{Email: Set("b@example.com"), LastName: Set("Stone")})},
		&UserApiUpdated{change(Profile{Email: Set("c@example.com"), FirstName: Clear[string]()})},
		&UserApiUpdated{change(Profile{Email: Set("c@example.com")})},
		&UserApiUpdated{inferred},
		&UserApiUpdated{patch},
		&UserApiUpdated{UserChange{UserRef: ref, Unfolded: "too long"}},
		&UserApiDisabled{change(Profile{Enabled: Set(false), LockedUntil: Set(at)})},
		&UserApiEnabled{change(Profile{Enabled: Set(true), EmailVerified: Set(true)})},
		&UserApiRolesChanged{UserRef: ref, Added: []Role{{Name: "auditor"}, {Name: "default-roles-acme"}, {Name: "reader", Client: "c1"}}},
		&UserApiRolesChanged{UserRef: ref, Removed: []Role{{Name: "reader", Client: "c1", ClientID: "app"}}, Unfolded: "more may have changed"},
		&UserApiGroupsChanged{UserRef: ref, Joined: []Group{{Path: "/a"}}, Left: []Group{{Path: "/staff"}}},
		&UserApiGroupsChanged{UserRef: ref, Unfolded: "a group by its id"},
		&UserApiOrganizationsChanged{UserRef: ref, Joined: []Organization{{ID: "o1", Alias: "one"}, {ID: "o2"}}},
		&UserApiOrganizationsChanged{UserRef: ref, Left: []Organization{{ID: "o1"}}},
		&UserApiCredentialsChanged{UserRef: ref, Action: "password_reset", CredentialType: "password", Temporary: &yes},
		&UserApiCredentialsChanged{UserRef: ref, Action: "password_updated", CredentialType: "password"},
		&UserApiFederatedIdentityChanged{UserRef: ref, Provider: "idp", Linked: true},
		&UserApiEmailRequested{UserRef: ref, Email: EmailVerify},
		&UserApiObserved{UserRef: ref, Present: true, Complete: true, Set: Profile{Email: Set("c@example.com"), FirstName: Set("Rob")}, Memberships: memberships, CreatedAt: &at},
		&UserApiBaselined{UserRef: ref, Set: attributes, Memberships: memberships},
		&UserApiDeleted{UserRef: ref},
		&UserApiObserved{UserRef: ref, Present: true, Set: Profile{Enabled: Set(true)}},
		&UserApiObserved{UserRef: ref},
		&UserApiCreated{UserChange: change(Profile{Username: Set("bob")}), Partial: true},
	}
	seen := make(map[string]bool)
	var u User
	var out bytes.Buffer
	c := NewCodec(seal.Plain{})
	for i, p := range payloads {
		seen[p.EventType()] = true
		actor := &Actor{Type: ActorKeycloakUser, ID: fmt.Sprint(i % 3)}
		n, err := c.Encode(context.Background(), Draft{
			ID: eventstore.DerivedID(uuid.NameSpaceOID, at, "shape", i), Payload: p, OccurredAt: at.Add(time.Duration(i*i) * 100 * time.Millisecond),
			Meta: Metadata{CorrelationID: uuid.NameSpaceOID, Actor: actor},
		})
		require.NoError(t, err)
		d, err := c.Decode(context.Background(), eventstore.Event{
			ID: n.ID, Stream: UserStream(ref.Realm, ref.UserID), Version: eventstore.Version(i + 1), Type: n.Type,
			Data: n.Data, Metadata: n.Metadata, CorrelationID: n.CorrelationID, OccurredAt: n.OccurredAt,
		})
		require.NoError(t, err)
		u.Apply(d)
		require.NoError(t, json.NewEncoder(&out).Encode(u))
	}
	for name, empty := range payloadTypes() {
		if _, ok := empty.(UserPayload); ok {
			require.True(t, seen[name], "%s is to be among the events of this test", name)
		}
	}
	return out.String()
}

func payloadTypes() map[string]Payload {
	all := make(map[string]Payload, len(payloads))
	for name, empty := range payloads {
		all[name] = empty()
	}
	return all
}
