package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// start is when every story of the tests begins.
var start = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)

const (
	realm   = "acme"
	bobID   = "6a9121e7-c721-40f0-a025-855e3a0ba9d8"
	carolID = "f:2b0e:carol"
)

var (
	bob   = adapter.UserRef{Realm: realm, UserID: bobID}
	alice = &adapter.Actor{Type: adapter.ActorCLI, ID: "alice", Username: "alice"}
	admin = &adapter.Actor{
		Type: adapter.ActorKeycloakUser, ID: "0a000000-0000-4000-8000-000000000001", Username: "admin",
		Client: "security-admin-console", IP: "192.0.2.7",
	}
	service = &adapter.Actor{
		Type: adapter.ActorServiceAccount, ID: "0a000000-0000-4000-8000-000000000002", Username: "service-account-keytrail",
	}
)

// world is an event store whose ids and times repeat.
type world struct {
	t     *testing.T
	store *sqlite.Store
	codec *adapter.Codec
	now   time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, codec: adapter.NewCodec(seal.Plain{}), now: start}
	path := filepath.Join(t.TempDir(), "events.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{Clock: func() time.Time { return w.now }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	w.store = store
	return w
}

// id is the UUID that a label stands for, in every run the same.
func id(label string) uuid.UUID { return eventstore.DerivedID(uuid.Nil, start, label, 0) }

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// fact is an event to record.
type fact struct {
	id     string
	stream eventstore.StreamID
	story  string
	cause  string
	// ms is when it occurred, after start; lag how much later it was recorded.
	ms, lag int
	actor   *adapter.Actor
	reason  string
	source  string
	links   []adapter.Link
	payload adapter.Payload
}

func (w *world) record(facts ...fact) {
	w.t.Helper()
	for _, f := range facts {
		meta := adapter.Metadata{
			CorrelationID: id(f.story), Actor: f.actor, Reason: f.reason, Source: f.source, Links: f.links,
		}
		if f.cause != "" {
			cause := id(f.cause)
			meta.CausationID = &cause
		}
		e, err := w.codec.Encode(w.t.Context(), adapter.Draft{ID: id(f.id), Payload: f.payload, OccurredAt: at(f.ms), Meta: meta})
		require.NoError(w.t, err)
		w.append(f.stream, at(f.ms+f.lag), e)
	}
}

func (w *world) append(stream eventstore.StreamID, recorded time.Time, e eventstore.NewEvent) {
	w.t.Helper()
	w.now = recorded
	_, err := w.store.Append(w.t.Context(), eventstore.StreamAppend{Stream: stream, Events: []eventstore.NewEvent{e}})
	require.NoError(w.t, err)
}

func (w *world) finder() *Finder { return &Finder{Store: w.store, Codec: w.codec, Users: lookup{}} }

func (w *world) find(id string) Trace {
	w.t.Helper()
	t, err := w.finder().Find(w.t.Context(), id, "")
	require.NoError(w.t, err)
	return t
}

// lookup knows bob and carol, and two twins.
type lookup struct{}

func (lookup) Find(_ context.Context, name string, realms ...string) ([]adapter.User, error) {
	var found []adapter.User
	for _, u := range []adapter.User{
		{Realm: realm, ID: bobID, Username: "bob"},
		{Realm: realm, ID: carolID, Username: "carol"},
		{Realm: realm, ID: "t1", Username: "twin"},
		{Realm: "globex", ID: "t2", Username: "twin"},
	} {
		if (name == u.ID || name == u.Username) && (len(realms) == 0 || slices.Contains(realms, u.Realm)) {
			found = append(found, u)
		}
	}
	return found, nil
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run go test -update if the change is meant")
}

func render(t *testing.T, tr Trace, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, WriteText(&b, tr, o))
	return b.Bytes()
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	require.NoError(t, e.Encode(v))
	return b.Bytes()
}

// The stories that the tests tell.

const userPath = "/admin/realms/{realm}/users/{id}"

// call is one command on bob, as the outbound side records it.
type call struct {
	name, command, method, url string
	ms                         int
	userID                     string
	enabled                    *bool
	attempts                   []adapter.Attempt
	outcome                    adapter.Payload
	outcomeMS                  int
}

func (w *world) call(c call) {
	w.t.Helper()
	stream, callID := adapter.CallStream(id(c.name)), id(c.name)
	common := fact{stream: stream, story: c.name + " story", actor: alice, reason: "left the company, ticket 4711", source: "cli"}
	next := func(name, cause string, ms int, p adapter.Payload) {
		f := common
		f.id, f.cause, f.ms, f.payload = name, cause, ms, p
		w.record(f)
	}
	requested := c.name + " requested"
	next(requested, "", c.ms, &adapter.ApiCallRequested{
		CallID: callID, Command: c.command, Realm: realm, UserID: c.userID, Username: "bob", Method: c.method, URLTemplate: c.url,
		Body: json.RawMessage(`{"enabled":false}`),
	})
	if c.enabled != nil {
		exists := true
		next(c.name+" looked", requested, c.ms+9, &adapter.ApiCallPreconditionRead{
			CallID: callID, Method: "GET", URLTemplate: userPath, Found: &exists, Enabled: c.enabled,
			Attempts: []adapter.Attempt{{Attempt: 1, StartedAt: at(c.ms + 3), DurationMS: 5.8, StatusCode: 200, Sent: true}},
		})
	}
	cause := requested
	for i, a := range c.attempts {
		name := c.name + " attempt " + string(rune('1'+i))
		next(name, cause, int(a.StartedAt.Sub(start)/time.Millisecond), &adapter.ApiCallAttempted{CallID: callID, Attempt: a})
		cause = name
	}
	if c.outcome != nil {
		next(c.name+" outcome", cause, c.outcomeMS, c.outcome)
	}
}

func tried(n, ms int, took float64, status int, err, kind string) adapter.Attempt {
	return adapter.Attempt{Attempt: n, StartedAt: at(ms), DurationMS: took, StatusCode: status, Error: err, Kind: kind, Sent: kind != "refused"}
}

// disabled: bob is disabled at the third attempt, and Keycloak echoes it.
func (w *world) disabled() {
	w.t.Helper()
	enabled := true
	callID := id("disable")
	w.call(call{
		name: "disable", command: "user.disable", method: "PUT", url: userPath, userID: bobID, enabled: &enabled,
		attempts: []adapter.Attempt{
			tried(1, 10, 8.2, 503, "503 Service Unavailable", "http_status"),
			tried(2, 512, 7.4, 503, "503 Service Unavailable", "http_status"),
			tried(3, 1371, 31.0, 204, "", ""),
		},
		outcome:   &adapter.ApiCallSucceeded{CallID: callID, StatusCode: 204, Attempts: 3, DurationMS: 1392},
		outcomeMS: 1402,
	})
	w.record(fact{
		id: "bob disabled", stream: adapter.UserStream(realm, bobID), story: "disable story", cause: "disable outcome", ms: 1402,
		actor: alice, reason: "left the company, ticket 4711", source: "cli",
		payload: &adapter.UserApiDisabled{UserChange: adapter.UserChange{UserRef: bob, Set: adapter.Profile{Enabled: adapter.Set(false)}, Via: "command"}},
	})
	w.record(
		fact{
			id: "echo delivery", stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000e0c0"), story: "echo story",
			ms: 1391, lag: 412, actor: service, source: "webhook:keycloak",
			payload: &adapter.AdminEventReceived{
				KeycloakEventID: "8d1c0000-0000-4000-8000-00000000e0c0", Time: at(1391), Realm: realm, OperationType: "UPDATE",
				ResourceType: "USER", ResourcePath: "users/" + bobID, Actor: *service,
				Representation: json.RawMessage(`{"username":"Bob","enabled":false,"self":"urn:keytrail:call:` + callID.String() + `"}`),
				Receipt:        adapter.Receipt{Source: "keycloak", Dialect: "p2", BodySHA256: "00"},
			},
		},
		fact{
			id: "echoed", stream: adapter.CallStream(callID), story: "disable story", cause: "echo delivery", ms: 1391, lag: 430,
			actor: service, source: "webhook:keycloak",
			payload: &adapter.ApiCallEchoed{CallID: callID, Echo: adapter.Echo{
				DeliveryEventID: id("echo delivery"), KeycloakEventID: "8d1c0000-0000-4000-8000-00000000e0c0", OccurredAt: at(1391), MatchedBy: "stamp",
			}},
		},
	)
}

// created: an administrator created bob in Keycloak an hour before.
func (w *world) created() {
	w.t.Helper()
	w.record(
		fact{
			id: "create delivery", stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000c0de"), story: "create story",
			ms: -3_600_000, lag: 214, actor: admin, source: "webhook:keycloak",
			payload: &adapter.AdminEventReceived{
				KeycloakEventID: "8d1c0000-0000-4000-8000-00000000c0de", Time: at(-3_600_000), Realm: realm, OperationType: "CREATE",
				ResourceType: "USER", ResourcePath: "users/" + bobID, Actor: *admin,
				Representation: json.RawMessage(`{"username":"Bob","email":"bob@example.com","enabled":true}`),
				Receipt:        adapter.Receipt{Source: "keycloak", Dialect: "p2", BodySHA256: "00"},
			},
		},
		fact{
			id: "bob created", stream: adapter.UserStream(realm, bobID), story: "create story", cause: "create delivery",
			ms: -3_600_000, lag: 220, actor: admin, source: "webhook:keycloak",
			payload: &adapter.UserApiCreated{UserChange: adapter.UserChange{
				UserRef: bob, Via: "admin", Inferred: []string{"attributes"},
				Set: adapter.Profile{
					Username: adapter.Set("Bob"), Email: adapter.Set("bob@example.com"), Enabled: adapter.Set(true),
					Attributes: adapter.Set(map[string][]string{"department": {"sales", "support"}}),
				},
			}, Groups: []string{"/staff"}},
		},
		fact{
			id: "create confirmed", stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000c0de"), story: "create story", cause: "create delivery",
			ms: -3_600_000, lag: 41_000, actor: admin, source: "poll",
			payload: &adapter.DeliveryConfirmed{
				Receipt: adapter.Receipt{Source: "poll", Dialect: "pull", BodySHA256: "01"},
				Added:   map[string]json.RawMessage{"resource_id": json.RawMessage(`"x"`)},
			},
		},
	)
}

func (w *world) conflict() {
	w.t.Helper()
	w.call(call{
		name: "conflict", command: "user.create", method: "POST", url: "/admin/realms/{realm}/users", ms: 5000,
		attempts: []adapter.Attempt{tried(1, 5006, 14.6, 409, "409 Conflict", "http_status")},
		outcome: &adapter.ApiCallFailed{
			CallID: id("conflict"), StatusCode: 409, Attempts: 1, DurationMS: 15,
			CallError: adapter.CallError{Code: adapter.CodeKeycloakConflict, Message: "Keycloak refused it: another user is in the way", Keycloak: "User exists with same username"},
		},
		outcomeMS: 5021,
	})
}

func (w *world) skipped() {
	w.t.Helper()
	enabled := false
	w.call(call{
		name: "skipped", command: "user.disable", method: "PUT", url: userPath, userID: bobID, enabled: &enabled, ms: 9000,
		outcome: &adapter.ApiCallSkipped{CallID: id("skipped"), CallError: adapter.CallError{
			Code: adapter.CodeAlreadyDisabled, Message: "the user is disabled already",
		}},
		outcomeMS: 9010,
	})
}

func (w *world) unknown() {
	w.t.Helper()
	w.call(call{
		name: "unknown", command: "user.create", method: "POST", url: "/admin/realms/{realm}/users", ms: 11_000,
		attempts: []adapter.Attempt{
			tried(1, 11_004, 0.9, 0, "connection refused", "refused"),
			tried(2, 11_510, 10_000, 0, "no answer within 10s", "timeout"),
		},
		outcome: &adapter.ApiCallOutcomeUnknown{
			CallID: id("unknown"), Attempts: 2, DurationMS: 10_510,
			CallError: adapter.CallError{Code: adapter.CodeOutcomeUnknown, Message: "the request went out and no answer came, so it may or may not have been done"},
		},
		outcomeMS: 21_511,
	})
}

func (w *world) open() {
	w.t.Helper()
	w.call(call{
		name: "open", command: "user.update", method: "PUT", url: userPath, userID: bobID, ms: 30_000,
		attempts: []adapter.Attempt{tried(1, 30_002, 4.2, 429, "429 Too Many Requests", "http_status")},
	})
}

func (w *world) run() {
	w.t.Helper()
	runID := id("run")
	stream := adapter.ReconciliationStream(runID)
	system := adapter.System("reconcile")
	changedAt := at(1402)
	fieldEvent := id("bob disabled")
	base := fact{stream: stream, story: "run story", actor: &system, source: "reconcile"}
	add := func(name, cause string, ms int, p adapter.Payload) {
		f := base
		f.id, f.cause, f.ms, f.payload = name, cause, ms, p
		w.record(f)
	}
	add("run started", "", 60_000, &adapter.ReconciliationStarted{RunID: runID, Realm: realm, Trigger: "cli", Settle: 60})
	add("drift bob", "run started", 60_800, &adapter.DriftDetected{
		RunID: runID, Realm: realm, UserID: bobID, Username: "bob", Phase: adapter.DriftAppeared, Situation: adapter.SituationChanged,
		Fields: []adapter.FieldDifference{
			{Field: "enabled", Believed: json.RawMessage(`false`), Actual: json.RawMessage(`true`), LastChangedBy: "alice", LastChangedAt: &changedAt, LastChangedEvent: &fieldEvent},
			{Field: "email", Believed: json.RawMessage(`"bob@example.com"`), Actual: json.RawMessage(`null`)},
		},
	})
	add("drift carol", "run started", 60_810, &adapter.DriftDetected{
		RunID: runID, Realm: realm, UserID: carolID, Phase: adapter.DriftAppeared, Situation: adapter.SituationMissingLive,
	})
	add("run completed", "run started", 61_020, &adapter.ReconciliationCompleted{
		RunID: runID, Realm: realm, Compared: 120, InSync: 118, Unsettled: 1,
		Findings: map[adapter.Situation]int{adapter.SituationChanged: 1, adapter.SituationMissingLive: 1},
	})
}

func (w *world) invalidRun() {
	w.t.Helper()
	runID := id("invalid run")
	system := adapter.System("reconcile")
	base := fact{stream: adapter.ReconciliationStream(runID), story: "invalid run story", actor: &system, source: "reconcile"}
	started, aborted := base, base
	started.id, started.ms = "invalid run started", 70_000
	started.payload = &adapter.ReconciliationStarted{RunID: runID, Realm: "globex", Trigger: "schedule", Baseline: true}
	aborted.id, aborted.cause, aborted.ms = "invalid run aborted", "invalid run started", 70_340
	aborted.payload = &adapter.ReconciliationAborted{
		RunID: runID, Realm: "globex", Status: "invalid", Code: adapter.CodeListingEmpty,
		Message: "Keycloak listed no users with a 200, though it counts 120: the service account may lack view-users",
	}
	w.record(started, aborted)
}

func (w *world) parkedDelivery() {
	w.t.Helper()
	base := fact{stream: adapter.DeliveryStream("8d1c0000-0000-4000-8000-00000000bad0"), story: "parked story", actor: admin, source: "webhook:keycloak", ms: 80_000}
	received, parked := base, base
	received.id, received.lag = "parked delivery", 120
	received.payload = &adapter.AdminEventReceived{
		KeycloakEventID: "8d1c0000-0000-4000-8000-00000000bad0", Time: at(80_000), Realm: realm, OperationType: "UPDATE",
		ResourceType: "USER", ResourcePath: "users/" + bobID, UserID: bobID, Actor: *admin, RepresentationText: "{not json",
		Receipt: adapter.Receipt{Source: "keycloak", Dialect: "p2", BodySHA256: "02"},
	}
	parked.id, parked.cause, parked.ms, parked.lag = "parked", "parked delivery", 81_200, 0
	parked.payload = &adapter.DeliveryParked{Error: "the representation is not JSON: invalid character 'n' looking for beginning of object key string", Attempts: 3}
	w.record(received, parked)
}

// strange: an event of a newer program, with control characters, and one that does
// not fit its type.
func (w *world) strange() {
	w.t.Helper()
	w.append(adapter.UserStream(realm, carolID), at(90_000), eventstore.NewEvent{
		ID: id("strange 1"), Type: "UserApiTeleported", Data: json.RawMessage(`{"to":"mars"}`),
		Metadata:      json.RawMessage(`{"schema":9,"correlation_id":"` + id("strange story").String() + `","reason":"\u001b[31mred\u0007\nalert"}`),
		CorrelationID: id("strange story"), OccurredAt: at(90_000),
	})
	w.append(adapter.UserStream(realm, carolID), at(90_010), eventstore.NewEvent{
		ID: id("strange 2"), Type: adapter.TypeUserApiDeleted, Data: json.RawMessage(`{"realm":42}`),
		Metadata:      json.RawMessage(`{"schema":1,"correlation_id":"` + id("strange story").String() + `"}`),
		CorrelationID: id("strange story"), CausationID: id("strange 1"), OccurredAt: at(90_010),
	})
}

func (w *world) everything() {
	w.t.Helper()
	w.created()
	w.disabled()
	w.conflict()
	w.skipped()
	w.unknown()
	w.open()
	w.run()
	w.invalidRun()
	w.parkedDelivery()
	w.strange()
}
