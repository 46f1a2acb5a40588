package httpapi

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

var (
	everything = eventstore.LogQuery{}
	may        = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
)

// user records a user that was created, then disabled a second later.
func (b *bundle) user(id, name string) []eventstore.Event {
	b.t.Helper()
	ref := adapter.UserRef{Realm: "acme", UserID: id}
	actor := adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "u-1", Username: "root"}
	return b.record(adapter.UserStream("acme", id), may, adapter.Metadata{Actor: &actor, Reason: "asked for"},
		&adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref, Set: adapter.Profile{
			Username: adapter.Set(name), Email: adapter.Set(name + "@example.com"), Enabled: adapter.Set(true),
		}}},
		&adapter.UserApiDisabled{UserChange: adapter.UserChange{UserRef: ref, Set: adapter.Profile{Enabled: adapter.Set(false)}}})
}

func TestUsers(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.user("id-1", "ada")
	b.user("id-2", "bob")
	require.JSONEq(t, `{"items":[],"next_cursor":""}`, string(b.get("/api/v1/realms/other/users").body))

	type users struct {
		Items      []adapter.UserView `json:"items"`
		NextCursor string             `json:"next_cursor"`
	}
	list := func(query string) users {
		var u users
		got := b.get(acmeUsers + "?" + query)
		require.Equal(t, http.StatusOK, got.status, "%s", got.body)
		got.into(&u)
		return u
	}
	require.Len(t, list("").Items, 2)
	require.Empty(t, list("enabled=true").Items)
	require.Len(t, list("enabled=false&deleted=false").Items, 2)
	require.Equal(t, "id-2", list("username=bob").Items[0].ID)
	require.Equal(t, "id-1", list("email=" + url.QueryEscape("ada@example.com")).Items[0].ID)
	first := list("limit=1")
	require.Len(t, first.Items, 1)
	second := list("limit=1&cursor=" + url.QueryEscape(first.NextCursor))
	require.Equal(t, "id-2", second.Items[0].ID)
	require.Empty(t, second.NextCursor)

	p := b.get(acmeUsers+"?limit=501&enabled=yes&enable=true&username=a&username=b").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	var fields []string
	for _, f := range p.Errors {
		fields = append(fields, f.Field)
	}
	require.Equal(t, []string{"username", "enabled", "limit", "enable"}, fields, "all faults at once")
}

func TestOneUser(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.user("id-1", "ada")
	got := b.get(acmeUsers + "/id-1")
	require.JSONEq(t, `{"realm":"acme","id":"id-1","username":"ada","email":"ada@example.com","first_name":null,"last_name":null,
		"enabled":false,"email_verified":false,"attributes":{},"required_actions":[],"roles":[],"client_roles":{},"groups":[],"organizations":[],
		"locked_until":null,"created_at":"2026-05-01T12:00:00Z","created_by":{"type":"keycloak_user","id":"u-1","username":"root"},
		"updated_at":"2026-05-01T12:00:01Z","deleted":false,"deleted_at":null,"version":2}`, string(got.body))
	require.Equal(t, string(got.body), string(b.get(acmeUsers+"/ada").body), "by name too")

	for at, enabled := range map[string]bool{
		"2026-05-01T12:00:00Z": true, "2026-05-01T14:00:00+02:00": true, "2026-05-01T14:00:00%2B02:00": true, "2026-05-01T12:00:01Z": false,
	} {
		require.Equal(t, enabled, b.get(acmeUsers + "/id-1?at=" + at).object()["enabled"], at)
	}
	p := b.get(acmeUsers+"/id-1?at=2026-05-01T11:59:59Z").problem(http.StatusNotFound, adapter.CodeNotYetKnown)
	require.Contains(t, p.Detail, "2026-05-01T12:00:00Z")
	b.get(acmeUsers+"/id-1?at=yesterday").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.get(acmeUsers+"/nobody").problem(http.StatusNotFound, adapter.CodeUserNotFound)
	b.get(acmeUsers+"/nobody?at=2026-05-01T12:00:00Z").problem(http.StatusNotFound, adapter.CodeUserNotFound)
}

// lateStore says that each event of a stream was recorded as many days after May 1st
// as its version, at noon.
type lateStore struct{ eventstore.Reader }

func (s lateStore) ReadStream(ctx context.Context, id eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range s.Reader.ReadStream(ctx, id, q) {
			e.RecordedAt = may.AddDate(0, 0, int(e.Version))
			if !yield(e, err) {
				return
			}
		}
	}
}

func TestWhatWasKnownOfAUser(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) { c.Store = lateStore{c.Store} })
	b.user("id-1", "ada")
	// What occurred between the two is heard of last.
	b.record(adapter.UserStream("acme", "id-1"), may.Add(time.Second/2), adapter.Metadata{},
		&adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: adapter.UserRef{Realm: "acme", UserID: "id-1"}, Set: adapter.Profile{FirstName: adapter.Set("Ada")}}})
	for query, want := range map[string]struct {
		enabled bool
		name    any
	}{
		"known_at=2026-05-02T12:00:00Z":                           {true, nil},
		"known_at=2026-05-03T14:00:00%2B02:00":                    {false, nil},
		"known_at=2026-05-04T11:59:59Z":                           {false, nil},
		"known_at=2026-05-04T12:00:00Z":                           {false, "Ada"},
		"known_at=2026-05-04T12:00:00Z&at=2026-05-01T12:00:00.6Z": {true, "Ada"},
		"known_at=2026-05-03T12:00:00Z&at=2026-05-01T12:00:00.6Z": {true, nil},
		"known_at=9999-12-31T23:59:59Z&at=2026-05-01T12:00:00.4Z": {true, nil},
	} {
		got := b.get(acmeUsers + "/ada?" + query)
		require.Equal(t, http.StatusOK, got.status, "%s: %s", query, got.body)
		require.Equal(t, want.enabled, got.object()["enabled"], query)
		require.Equal(t, want.name, got.object()["first_name"], query)
	}
	for query, moment := range map[string]string{
		"known_at=2026-05-02T11:59:59Z":                         "2026-05-02T12:00:00Z",
		"known_at=2026-05-01T12:00:00Z&at=2026-05-01T12:00:01Z": "2026-05-02T12:00:00Z",
		"known_at=2026-05-09T12:00:00Z&at=2026-05-01T11:00:00Z": "2026-05-01T12:00:00Z",
	} {
		p := b.get(acmeUsers+"/ada?"+query).problem(http.StatusNotFound, adapter.CodeNotYetKnown)
		require.Contains(t, p.Detail, " before "+moment, query)
	}
	b.get(acmeUsers+"/ada?known_at=yesterday").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.get(acmeUsers+"/nobody?known_at=2026-05-01T12:00:00Z").problem(http.StatusNotFound, adapter.CodeUserNotFound)
}

// blindUsers is a projection that has folded nothing yet.
type blindUsers struct{ UserReader }

func (blindUsers) Find(context.Context, string, ...string) ([]adapter.User, error) { return nil, nil }

func TestAUserIsNewerThanTheProjection(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) { c.Users = blindUsers{c.Users} })
	b.user("id-1", "ada")
	require.Equal(t, "ada", b.get(acmeUsers + "/id-1").object()["username"])
}

func TestUserHistory(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	recorded := b.user("id-1", "ada")
	b.record(adapter.UserStream("acme", "id-1"), may.Add(time.Minute), adapter.Metadata{},
		&adapter.UserApiCredentialsChanged{UserRef: adapter.UserRef{Realm: "acme", UserID: "id-1"}, Action: "password_reset"})
	type history struct {
		Items []struct {
			EventID   uuid.UUID             `json:"event_id"`
			EventType string                `json:"event_type"`
			Reason    string                `json:"reason"`
			Actor     *adapter.Actor        `json:"actor"`
			Changes   []adapter.FieldChange `json:"changes"`
		} `json:"items"`
		NextCursor string `json:"next_cursor"`
	}
	var all history
	b.get(acmeUsers + "/ada/history").into(&all)
	require.Len(t, all.Items, 3)
	require.Equal(t, adapter.TypeUserApiCredentialsChanged, all.Items[0].EventType, "newest first")
	require.NotNil(t, all.Items[0].Changes)
	require.Equal(t, adapter.TypeUserApiDisabled, all.Items[1].EventType)
	require.Equal(t, []adapter.FieldChange{{Field: "enabled", Old: true, New: false}}, all.Items[1].Changes)
	require.Equal(t, "root", all.Items[1].Actor.Username)
	require.Equal(t, "asked for", all.Items[1].Reason)

	var first, rest history
	b.get(acmeUsers + "/ada/history?limit=2").into(&first)
	require.Len(t, first.Items, 2)
	b.get(acmeUsers + "/ada/history?limit=2&cursor=" + first.NextCursor).into(&rest)
	require.Len(t, rest.Items, 1)
	require.Equal(t, recorded[0].ID, rest.Items[0].EventID)
	require.Empty(t, rest.NextCursor)
	b.get(acmeUsers+"/ada/history?cursor=x").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.get(acmeUsers+"/ada/history?cursor="+uuid.NewString()).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.get(acmeUsers+"/nobody/history").problem(http.StatusNotFound, adapter.CodeUserNotFound)
}

func TestEvents(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	one := b.user("id-1", "ada")
	b.user("f:x:2", "bob")
	type events struct {
		Items []struct {
			adapter.View

			Data     map[string]any `json:"data"`
			Metadata map[string]any `json:"metadata"`
		} `json:"items"`
		NextCursor string `json:"next_cursor"`
	}
	list := func(query string) events {
		var e events
		got := b.get("/api/v1/events?" + query)
		require.Equal(t, http.StatusOK, got.status, "%s: %s", query, got.body)
		got.into(&e)
		return e
	}
	all := list("")
	require.Len(t, all.Items, 4)
	require.Equal(t, one[0].ID, all.Items[0].EventID)
	require.Equal(t, "user/acme/id-1", all.Items[0].Stream)
	require.Len(t, list("type=UserApiDisabled").Items, 2)
	require.Len(t, list("type=UserApiDisabled,UserApiCreated&type=UserApiDeleted").Items, 4)
	require.Len(t, list("from_position=4").Items, 1)
	require.Len(t, list("correlation_id="+one[0].CorrelationID.String()).Items, 2)
	for _, stream := range []string{"user/acme/f:x:2", url.QueryEscape("user/acme/f%3Ax%3A2"), adapter.UserStream("acme", "f:x:2").AggregateID().String()} {
		require.Len(t, list("stream="+stream).Items, 2, stream)
		require.Len(t, list("type=UserApiDisabled&stream="+stream).Items, 1)
		require.Len(t, list("from_position=4&stream="+stream).Items, 1)
		require.Empty(t, list("correlation_id="+one[0].CorrelationID.String()+"&stream="+stream).Items)
	}
	for _, filter := range []string{"", "&stream=user/acme/id-1"} {
		page := list("limit=1" + filter)
		require.Len(t, page.Items, 1)
		next := list("limit=1&cursor=" + page.NextCursor + filter)
		require.Equal(t, one[1].ID, next.Items[0].EventID)
	}
	for _, bad := range []string{
		"from_position=0", "from_position=x", "correlation_id=x", "limit=0", "limit=x", "limit=501", "cursor=x", "cursor=-1",
		"stream=nonsense", "stream=user/acme", "stream=call/x", "types=x", "%zz",
	} {
		b.get("/api/v1/events?"+bad).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	}
	b.get("/api/v1/events?stream="+uuid.NewString()).problem(http.StatusNotFound, adapter.CodeNotFound)
}

// watchedStore notes what is read of streams.
type watchedStore struct {
	eventstore.Reader

	queries  []eventstore.StreamQuery
	versions []eventstore.Version
}

func (s *watchedStore) ReadStream(ctx context.Context, id eventstore.StreamID, q eventstore.StreamQuery) iter.Seq2[eventstore.Event, error] {
	s.queries = append(s.queries, q)
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range s.Reader.ReadStream(ctx, id, q) {
			s.versions = append(s.versions, e.Version)
			if !yield(e, err) {
				return
			}
		}
	}
}

func TestThePagesOfAStreamReadItOnce(t *testing.T) {
	t.Parallel()
	watched := &watchedStore{}
	b := newBundle(t, func(c *Config) { watched.Reader, c.Store = c.Store, watched })
	stream := adapter.UserStream("acme", "id-1")
	b.user("id-1", "ada")
	b.user("id-2", "between the two")
	for range 5 {
		b.record(stream, may, adapter.Metadata{}, &adapter.UserApiCredentialsChanged{UserRef: adapter.UserRef{Realm: "acme", UserID: "id-1"}, Action: "password_reset"})
	}
	for filter, want := range map[string]int{"": 7, "&type=UserApiCredentialsChanged,UserApiCreated": 6, "&from_position=2": 6} {
		watched.queries, watched.versions = nil, nil
		var seen []eventstore.Version
		path := "/api/v1/events?stream=user/acme/id-1&limit=2" + filter
		for cursor := ""; ; {
			var got page[struct {
				Version eventstore.Version `json:"version"`
			}]
			b.get(path + cursor).into(&got)
			for _, e := range got.Items {
				seen = append(seen, e.Version)
			}
			if got.NextCursor == "" {
				break
			}
			cursor = "&cursor=" + got.NextCursor
		}
		require.IsIncreasing(t, seen, filter)
		require.Len(t, seen, want, filter)
		// Each page reads its own and looks at the next one.
		require.LessOrEqual(t, len(watched.versions), 7+len(watched.queries), "%s: %v", filter, watched.versions)
	}
	for _, cursor := range []string{"3", "v0", "v-1", "vx", "v"} {
		b.get("/api/v1/events?stream=user/acme/id-1&cursor="+cursor).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	}
	b.get("/api/v1/events?cursor=v3").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
}

func TestCalls(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	id := uuid.New()
	local := may.In(time.FixedZone("", 7200))
	b.record(adapter.CallStream(id), may, adapter.Metadata{},
		&adapter.ApiCallRequested{CallID: id, Command: "user.disable", Realm: "acme", UserID: "id-1", Method: http.MethodPut, URLTemplate: "/admin/realms/{realm}/users/{id}"},
		&adapter.ApiCallAttempted{CallID: id, Attempt: adapter.Attempt{Attempt: 1, StartedAt: local, StatusCode: 503, Error: "503 Service Unavailable", Sent: true}},
		&adapter.ApiCallFailed{CallID: id, StatusCode: 503, Attempts: 1, CallError: adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "overloaded"}})
	call := b.get("/api/v1/calls/" + id.String()).object()
	require.Equal(t, "failed", call["status"])
	require.Equal(t, "keycloak_unavailable", call["code"])
	require.Equal(t, []any{}, call["precondition_reads"])
	require.Nil(t, call["echo"])
	require.Equal(t, "2026-05-01T12:00:00Z", call["attempts"].([]any)[0].(map[string]any)["started_at"], "times are UTC")

	require.Len(t, b.get("/api/v1/calls?status=failed,unknown").object()["items"], 1)
	require.Equal(t, []any{}, b.get("/api/v1/calls?status=succeeded").object()["items"])
	b.get("/api/v1/calls?status=broken").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.get("/api/v1/calls/x").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.get("/api/v1/calls/"+uuid.NewString()).problem(http.StatusNotFound, adapter.CodeNotFound)
}

func TestTracesAndFailures(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	recorded := b.user("id-1", "ada")
	story := b.get("/api/v1/traces/" + recorded[0].CorrelationID.String()).object()
	require.Equal(t, recorded[0].CorrelationID.String(), story["correlation_id"])
	require.Len(t, story["events"], 2)
	require.Equal(t, []any{}, story["calls"])
	require.Equal(t, http.StatusOK, b.get("/api/v1/traces/"+url.PathEscape("user/acme/id-1")).status)
	require.Equal(t, http.StatusOK, b.get("/api/v1/traces/id-1?realm=acme").status)
	b.get("/api/v1/traces/"+uuid.NewString()).problem(http.StatusNotFound, adapter.CodeNotFound)

	require.JSONEq(t, `{"items":[],"next_cursor":""}`, string(b.get("/api/v1/failures").body))
	b.get("/api/v1/failures?cursor=x").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
}

func TestDeliveries(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var got receipts
	b.hook(`{"events":[` + adminEvent("e-1") + `,` + adminEvent("e-2") + `,` + adminEvent("e-3") + `]}`).into(&got)
	require.JSONEq(t, `{"items":[],"next_cursor":""}`, string(b.get("/api/v1/deliveries/parked").body))
	for _, key := range []string{"e-1", "e-2", "e-3"} {
		b.record(adapter.DeliveryStream(key), may, adapter.Metadata{}, &adapter.DeliveryParked{Error: "no such user in " + key, Attempts: 5})
	}
	// The third is interpreted after all.
	var released delivery
	b.do(http.MethodPost, "/api/v1/deliveries/e-3/retry", `{"reason":"a newer version reads it"}`).into(&released)
	require.Nil(t, released.Parked)
	b.do(http.MethodPost, "/api/v1/deliveries/e-3/retry", "").problem(http.StatusConflict, adapter.CodeNotParked)
	b.do(http.MethodPost, "/api/v1/deliveries/nothing/retry", "").problem(http.StatusNotFound, adapter.CodeNotFound)

	byID := b.get("/api/v1/deliveries/" + got.Deliveries[0].DeliveryID.String())
	require.Equal(t, string(byID.body), string(b.get("/api/v1/deliveries/e-1").body))
	var one delivery
	byID.into(&one)
	require.Equal(t, got.Deliveries[0].EventID, one.EventID)
	require.Equal(t, "acme", one.Realm)
	require.Equal(t, "keycloak", one.Source)
	require.Equal(t, "no such user in e-1", one.Parked.Error)
	require.Len(t, one.Events, 2)

	var first, rest page[delivery]
	b.get("/api/v1/deliveries/parked?limit=1").into(&first)
	require.Len(t, first.Items, 1)
	require.Equal(t, "e-2", first.Items[0].KeycloakEventID, "the last parked first; the one interpreted since is left out")
	b.get("/api/v1/deliveries/parked?limit=1&cursor=" + first.NextCursor).into(&rest)
	require.Equal(t, "e-1", rest.Items[0].KeycloakEventID)
	require.Empty(t, rest.NextCursor)
	b.get("/api/v1/deliveries/nothing").problem(http.StatusNotFound, adapter.CodeNotFound)
	b.get("/api/v1/deliveries/parked?cursor=x").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
}

func TestProjections(t *testing.T) {
	t.Parallel()
	rebuilt := make(chan string, 1)
	b := newBundle(t, func(c *Config) {
		c.Projections = &fakeProjections{rebuild: func(_ context.Context, name string) error {
			rebuilt <- name
			return nil
		}}
	})
	items := b.get("/api/v1/projections").object()["items"].([]any)
	require.Len(t, items, 2)
	require.Equal(t, "2026-05-01T12:00:00Z", items[1].(map[string]any)["updated_at"])
	first := b.get("/api/v1/projections?limit=1").object()
	require.Equal(t, items[:1], first["items"])
	rest := b.get("/api/v1/projections?limit=1&cursor=" + first["next_cursor"].(string)).object()
	require.Equal(t, items[1:], rest["items"])
	require.Empty(t, rest["next_cursor"])
	b.get("/api/v1/projections?cursor=nothing").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	got := b.do(http.MethodPost, "/api/v1/projections/users/rebuild", `{"reason":"to be sure"}`)
	require.Equal(t, http.StatusAccepted, got.status)
	require.JSONEq(t, `{"name":"users","status":"rebuilding"}`, string(got.body))
	require.Equal(t, "users", <-rebuilt)
	for _, name := range []string{"interpret", "nothing"} {
		p := b.do(http.MethodPost, "/api/v1/projections/"+name+"/rebuild", "").problem(http.StatusNotFound, adapter.CodeNotFound)
		require.Equal(t, "one of users", p.Try)
	}
}

// starter is a Reconciler.
type starter func(ctx context.Context, runID uuid.UUID, realm string) (adapter.Reconciliation, error)

func (f starter) Start(ctx context.Context, runID uuid.UUID, realm string) (adapter.Reconciliation, error) {
	return f(ctx, runID, realm)
}

func (starter) Cancel(_ context.Context, id uuid.UUID) (adapter.Reconciliation, error) {
	return adapter.Reconciliation{}, adapter.Errorf(adapter.CodeNotFound, "there is no reconciliation run %s", id)
}

// canceller is a Reconciler of which only Cancel is asked.
type canceller struct {
	Reconciler
	cancel func(ctx context.Context, id uuid.UUID) (adapter.Reconciliation, error)
}

func (c canceller) Cancel(ctx context.Context, id uuid.UUID) (adapter.Reconciliation, error) {
	return c.cancel(ctx, id)
}

func TestCancelReconciliation(t *testing.T) {
	t.Parallel()
	id, over := uuid.New(), uuid.New()
	b := newBundle(t, func(c *Config) {
		c.Reconciler = canceller{cancel: func(ctx context.Context, asked uuid.UUID) (adapter.Reconciliation, error) {
			if asked == over {
				return adapter.Reconciliation{}, adapter.Errorf(adapter.CodeInvalidRequest, "run %s is over: it is completed", asked)
			}
			call, _ := adapter.CallFrom(ctx)
			require.Equal(t, "too much load", call.Reason)
			return adapter.Reconciliation{
				RunID: asked, Realm: "acme", Status: adapter.RunAborted, StartedAt: may, Code: adapter.CodeInterrupted, Error: "the run was cancelled by api",
				ComparedFields: []string{}, NotCompared: []adapter.NotCompared{},
			}, nil
		}}
	})
	path := "/api/v1/reconciliations/"
	got := b.do(http.MethodPost, path+id.String()+"/cancel", `{"reason":"too much load"}`)
	require.Equal(t, http.StatusOK, got.status, "%s", got.body)
	run := got.object()
	require.Equal(t, id.String(), run["run_id"])
	require.Equal(t, "aborted", run["status"])
	require.Equal(t, []any{}, run["findings"])
	b.do(http.MethodPost, path+over.String()+"/cancel", "").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	b.do(http.MethodPost, path+"x/cancel", "").problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	newBundle(t).do(http.MethodPost, path+id.String()+"/cancel", "").problem(http.StatusNotImplemented, adapter.CodeKeycloakNotConfigured)
}

func TestReconciliations(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	var b *bundle
	b = newBundle(t, func(c *Config) {
		c.Reconciler = starter(func(ctx context.Context, given uuid.UUID, realm string) (adapter.Reconciliation, error) {
			require.Equal(t, uuid.Nil, given, "there is no idempotency key")
			call, _ := adapter.CallFrom(ctx)
			if realm != "acme" {
				return adapter.Reconciliation{}, adapter.Errorf(adapter.CodeRunInProgress, "a run of %s is under way", realm)
			}
			events := b.record(adapter.ReconciliationStream(id), may, adapter.Metadata{CorrelationID: call.CorrelationID, Actor: &call.Actor, Reason: call.Reason},
				&adapter.ReconciliationStarted{RunID: id, Realm: realm, Trigger: "http"})
			d, err := b.codec.Decode(ctx, events[0])
			require.NoError(t, err)
			require.Equal(t, "a doubt", d.Meta.Reason)
			run, _ := adapter.FoldReconciliation([]adapter.Decoded{d})
			return run, nil
		})
	})
	got := b.do(http.MethodPost, "/api/v1/realms/acme/reconciliations", `{"reason":"a doubt"}`)
	require.Equal(t, http.StatusAccepted, got.status, "%s", got.body)
	location := got.header.Get("Location")
	require.Equal(t, "/api/v1/reconciliations/"+id.String(), location)
	run := got.object()
	require.Equal(t, "running", run["status"])
	require.Equal(t, []any{}, run["findings"])
	require.Equal(t, string(got.body), string(b.get(location).body), "though the projection does not have it yet")
	b.do(http.MethodPost, "/api/v1/realms/other/reconciliations", "").problem(http.StatusConflict, adapter.CodeRunInProgress)

	changed := may.In(time.FixedZone("", 3600))
	b.record(adapter.ReconciliationStream(id), may.Add(time.Minute), adapter.Metadata{},
		&adapter.DriftDetected{
			RunID: id, Realm: "acme", UserID: "id-1", Phase: adapter.DriftAppeared, Situation: adapter.SituationChanged,
			Fields: []adapter.FieldDifference{{Field: "email", Believed: []byte(`"a"`), Actual: []byte(`null`), LastChangedBy: "root", LastChangedAt: &changed}},
		},
		&adapter.ReconciliationCompleted{RunID: id, Realm: "acme", Compared: 2, InSync: 1, Findings: map[adapter.Situation]int{adapter.SituationChanged: 1}})
	require.JSONEq(t, fmt.Sprintf(`{"items":[{"user_id":"id-1","situation":"changed","since":"2026-05-01T12:01:00Z","run_id":%q,
		"fields":[{"field":"email","believed":"a","actual":null,"last_changed_by":"root","last_changed_at":"2026-05-01T12:00:00Z"}]}],"next_cursor":""}`, id),
		string(b.get(location+"/findings").body))
	items := b.get("/api/v1/reconciliations?realm=acme").object()["items"].([]any)
	require.Equal(t, "completed", items[0].(map[string]any)["status"])
	require.Equal(t, []any{}, items[0].(map[string]any)["findings"])

	for _, path := range []string{"", "/findings"} {
		b.get("/api/v1/reconciliations/"+uuid.NewString()+path).problem(http.StatusNotFound, adapter.CodeNotFound)
		b.get("/api/v1/reconciliations/x"+path).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
	}
}
