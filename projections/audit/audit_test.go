package audit_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/audit"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var noon = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// story appends events, a second apart unless told otherwise.
type story struct {
	t       testing.TB
	p       projectiontest.Process
	seconds int
}

func (s *story) at(seconds int) *story {
	s.seconds = seconds
	return s
}

func (s *story) append(stream eventstore.StreamID, meta adapter.Metadata, payload adapter.Payload) eventstore.Event {
	s.t.Helper()
	s.seconds++
	at := noon.Add(time.Duration(s.seconds) * time.Second)
	return s.p.Append(s.t, stream, adapter.Draft{Payload: payload, OccurredAt: at, Meta: meta})[0]
}

func (s *story) user(meta adapter.Metadata, payload adapter.UserPayload) eventstore.Event {
	s.t.Helper()
	return s.append(adapter.UserStream(payload.User().Realm, payload.User().UserID), meta, payload)
}

func (s *story) admin(meta adapter.Metadata, p *adapter.AdminEventReceived) eventstore.Event {
	s.t.Helper()
	return s.append(adapter.DeliveryStream(uuid.NewString()), meta, p)
}

func (s *story) call(meta adapter.Metadata, command, method, userID string) uuid.UUID {
	s.t.Helper()
	id := eventstore.NewID()
	s.append(adapter.CallStream(id), meta, &adapter.ApiCallRequested{
		CallID: id, Command: command, Realm: "acme", UserID: userID, Username: "Alice", Method: method, URLTemplate: "/x",
	})
	return id
}

func ref(id string) adapter.UserRef { return adapter.UserRef{Realm: "acme", UserID: id} }

func change(id string, set adapter.Profile) adapter.UserChange {
	return adapter.UserChange{UserRef: ref(id), Set: set, Via: "admin"}
}

func by(actor adapter.Actor, reason, source string) adapter.Metadata {
	return adapter.Metadata{Actor: &actor, Reason: reason, Source: source}
}

var (
	admin = by(adapter.Actor{Type: adapter.ActorKeycloakUser, ID: "a-1", Username: "root", Client: "console", IP: "10.0.0.1"}, "", "webhook:keycloak")
	ops   = by(adapter.Actor{Type: adapter.ActorCLI, ID: "ops", Username: "ops"}, "left the company", "cli")
)

// pages lists everything that a filter selects, by small pages.
func pages(t testing.TB, q *audit.Queries, f audit.Filter) []adapter.AuditEntry {
	t.Helper()
	var all []adapter.AuditEntry
	for cursor := ""; ; {
		page, next, err := q.List(t.Context(), f, 2, cursor)
		require.NoError(t, err)
		all = append(all, page...)
		if cursor = next; next == "" {
			return all
		}
		require.Len(t, page, 2)
	}
}

// lines tells entries shortly, the newest first.
func lines(entries []adapter.AuditEntry) []string {
	out := []string{}
	for _, a := range entries {
		who := "nobody"
		if a.Actor != nil {
			who = a.Actor.String()
		}
		line := fmt.Sprintf("%s %s %s", who, a.Action, a.Outcome)
		for _, c := range a.Changes {
			o, _ := json.Marshal(c.Old)
			n, _ := json.Marshal(c.New)
			line += fmt.Sprintf(" %s:%s→%s", c.Field, o, n)
		}
		out = append(out, line)
	}
	return out
}

func TestTellsWhoDidWhat(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := audit.New(p.Store, p.Codec)
		e := p.Engine(t, projections.Options{BatchSize: 2}, projection)
		require.NoError(t, e.Setup(t.Context()))
		q := audit.NewQueries(p.DB)
		s := &story{t: t, p: p}
		empty, next, err := q.List(t.Context(), audit.Filter{}, 0, "")
		require.NoError(t, err)
		require.Empty(t, empty)
		require.Empty(t, next)

		// An administrator's change is one row, told by the user event.
		delivery := s.admin(admin, &adapter.AdminEventReceived{
			Realm: "acme", OperationType: "CREATE", ResourceType: "USER", ResourcePath: "users/u1", UserID: "u1",
		})
		p.CatchUp(t, e)
		require.Equal(t, []string{"root USER CREATE succeeded"}, lines(pages(t, q, audit.Filter{})))
		derived := admin
		derived.CausationID = &delivery.ID
		s.user(derived, &adapter.UserApiCreated{UserChange: change("u1", adapter.Profile{
			Username: adapter.Set("Alice"), Enabled: adapter.Set(true),
		})})
		p.CatchUp(t, e)
		require.Equal(t, []string{
			`root user.create succeeded username:null→"alice" enabled:null→true email_verified:null→false`,
		}, lines(pages(t, q, audit.Filter{})))

		// A command is open, then told by its user event; its echo adds nothing.
		call := s.call(ops, "user.disable", "PUT", "u1")
		p.CatchUp(t, e)
		require.Equal(t, []string{"ops user.disable requested"}, lines(pages(t, q, audit.Filter{Type: adapter.TypeApiCallRequested})))
		s.append(adapter.CallStream(call), ops, &adapter.ApiCallSucceeded{CallID: call})
		called := ops
		called.CallID = &call
		disabled := s.user(called, &adapter.UserApiDisabled{UserChange: change("u1", adapter.Profile{Enabled: adapter.Set(false)})})
		echo := s.admin(admin, &adapter.AdminEventReceived{
			Realm: "acme", OperationType: "UPDATE", ResourceType: "USER", ResourcePath: "users/u1", UserID: "u1",
		})
		s.append(adapter.CallStream(call), admin, &adapter.ApiCallEchoed{CallID: call, Echo: adapter.Echo{DeliveryEventID: echo.ID}})
		p.CatchUp(t, e)
		require.Equal(t, []string{"ops user.disable succeeded enabled:true→false"}, lines(pages(t, q, audit.Filter{Actor: "ops"})))

		// Refused, failed and unknown calls stay, and a read is no action.
		skipped := s.call(ops, "user.disable", "PUT", "")
		s.append(adapter.CallStream(skipped), ops, &adapter.ApiCallPreconditionRead{CallID: skipped, UserID: "u1"})
		s.append(adapter.CallStream(skipped), ops, &adapter.ApiCallSkipped{
			CallID: skipped, CallError: adapter.CallError{Code: adapter.CodeAlreadyDisabled, Message: "is disabled\x00"},
		})
		unknown := s.call(ops, "user.update", "PUT", "u1")
		s.append(adapter.CallStream(unknown), ops, &adapter.ApiCallOutcomeUnknown{
			CallID: unknown, CallError: adapter.CallError{Code: adapter.CodeOutcomeUnknown, Message: "no answer"},
		})
		read := s.call(ops, "user.read", "GET", "u1")
		s.append(adapter.CallStream(read), ops, &adapter.ApiCallFailed{CallID: read})
		logout := s.call(ops, "user.logout", "POST", "u1")
		s.append(adapter.CallStream(logout), ops, &adapter.ApiCallSucceeded{CallID: logout})
		p.CatchUp(t, e)
		require.Equal(t, []string{
			"ops user.logout succeeded", "ops user.update unknown", "ops user.disable skipped",
			"ops user.disable succeeded enabled:true→false",
		}, lines(pages(t, q, audit.Filter{Actor: "ops"})))
		refused := pages(t, q, audit.Filter{Type: adapter.TypeApiCallSkipped})
		require.Len(t, refused, 1)
		require.Equal(t, adapter.CodeAlreadyDisabled, refused[0].Code)
		require.Equal(t, "u1", refused[0].UserID)
		require.Equal(t, "alice", refused[0].Username)
		require.Equal(t, "left the company", refused[0].Reason)
		require.Equal(t, skipped, *refused[0].CallID)
		// An echo proves the unknown one: it is told as the command's, not as Keycloak's.
		s.append(adapter.CallStream(unknown), admin, &adapter.ApiCallSucceeded{CallID: unknown, ResolvedBy: "echo"})
		p.CatchUp(t, e)
		require.Equal(t, []string{"ops user.update succeeded"}, lines(pages(t, q, audit.Filter{Type: "user.update"})))

		// What concerns no user, what a user was refused, and what nobody did.
		s.admin(admin, &adapter.AdminEventReceived{
			RealmID: "acme", OperationType: "UPDATE", ResourceType: "CLIENT", ResourcePath: "clients/c1",
		})
		s.append(adapter.DeliveryStream("login"), admin, &adapter.UserEventReceived{Realm: "acme", Type: "LOGIN", UserID: "u1"})
		s.append(adapter.DeliveryStream("failed login"), admin, &adapter.UserEventReceived{Realm: "acme", Type: "LOGIN_ERROR", UserID: "u1"})
		s.append(adapter.DeliveryStream("refused"), admin, &adapter.UserEventReceived{
			Realm: "acme", Type: "UPDATE_PASSWORD_ERROR", UserID: "u1", Error: "password_rejected",
		})
		run := eventstore.NewID()
		s.append(adapter.ReconciliationStream(run), adapter.Metadata{}, &adapter.DriftDetected{
			RunID: run, Realm: "acme", UserID: "u1", Username: "alice", Phase: adapter.DriftAppeared, Situation: adapter.SituationChanged,
			Fields: []adapter.FieldDifference{{Field: "email", Believed: json.RawMessage(`null`), Actual: json.RawMessage(`"a"`)}},
		})
		s.user(adapter.Metadata{CausationID: &delivery.ID}, &adapter.UserApiObserved{
			UserRef: ref("u1"), Present: true, Set: adapter.Profile{Email: adapter.Set("A@x")},
		})
		s.user(admin, &adapter.UserApiRolesChanged{UserRef: ref("u1"), Added: []adapter.Role{{Name: "admin"}, {Name: "r", Client: "c1"}}})
		s.user(admin, &adapter.UserApiCredentialsChanged{UserRef: ref("u1"), Action: "password_reset", CredentialType: "password"})
		p.CatchUp(t, e)
		all := pages(t, q, audit.Filter{Realm: "acme", From: noon.Add(time.Duration(s.seconds-6) * time.Second)})
		require.Equal(t, []string{
			"root user.reset_password succeeded",
			`root user.client_role.add succeeded roles:null→["admin"] client_roles:null→{"c1":["r"]}`,
			`nobody user.observe observed email:null→"a@x"`,
			`nobody drift.appeared observed email:null→"a"`,
			"root UPDATE_PASSWORD_ERROR failed",
		}, lines(all)[:5])
		require.Equal(t, []string{"admin", "c1/r"}, all[1].Added)
		require.Equal(t, "password_rejected", all[4].Error)
		require.Equal(t, []string{"root CLIENT UPDATE succeeded"}, lines(pages(t, q, audit.Filter{Type: "CLIENT UPDATE"})))
		clients := pages(t, q, audit.Filter{Type: "CLIENT UPDATE"})
		require.Equal(t, "clients/c1", clients[0].ResourcePath)
		require.Equal(t, "acme", clients[0].Realm)

		// Filters by id and by name find the same; each row is there once.
		byID := pages(t, q, audit.Filter{User: "u1"})
		require.Equal(t, lines(byID), lines(pages(t, q, audit.Filter{User: "u1", Realm: "acme"})))
		require.Contains(t, lines(byID), "root UPDATE_PASSWORD_ERROR failed")
		require.Len(t, pages(t, q, audit.Filter{User: "ALICE", Actor: "root", Type: adapter.TypeUserApiCreated}), 1)
		require.Empty(t, pages(t, q, audit.Filter{User: "none"}))
		require.Len(t, pages(t, q, audit.Filter{Actor: "a-1", From: disabled.OccurredAt}),
			len(pages(t, q, audit.Filter{Actor: "root", From: disabled.OccurredAt})))
		require.Empty(t, pages(t, q, audit.Filter{To: noon}))
		for _, cursor := range []string{"x", projections.Cursor("a"), projections.Cursor("no time", "1"), projections.Cursor(noon.Format(time.RFC3339), "no number")} {
			_, _, err = q.List(t.Context(), audit.Filter{}, 1, cursor)
			require.Equal(t, adapter.CodeInvalidRequest, adapter.CodeOf(err))
		}
		p.RebuildEqualsIncremental(t, e, projection)
	})
}

// Entries whose events told an actor's id only are found by the names that other events
// told, before or after, and stay as they were told.
func TestAnActorIsFoundByNamesToldElsewhere(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := audit.New(p.Store, p.Codec)
		e := p.Engine(t, projections.Options{BatchSize: 2}, projection)
		q := audit.NewQueries(p.DB)
		s := &story{t: t, p: p}
		account := func(id, name string) adapter.Actor { return adapter.KeycloakActor(id, name, "console", "10.0.0.1") }
		client := func(actor adapter.Actor, name string) eventstore.Event {
			return s.append(adapter.DeliveryStream(name), by(actor, "", "poll"), &adapter.AdminEventReceived{
				Realm: "acme", OperationType: "UPDATE", ResourceType: "CLIENT", ResourcePath: "clients/" + name, Actor: actor,
			})
		}
		found := func(f audit.Filter) []string {
			t.Helper()
			p.CatchUp(t, e)
			out := []string{}
			for _, a := range pages(t, q, f) {
				out = append(out, a.Actor.String()+" "+a.ResourcePath+a.UserID)
			}
			return out
		}
		client(account("a-1", ""), "c1")
		require.Empty(t, found(audit.Filter{Actor: "root"}))
		client(account("a-1", "root"), "c2")
		client(account("a-1", ""), "c3")
		client(account("a-2", ""), "c4")
		s.user(by(account("a-1", ""), "", "poll"), &adapter.UserApiDeleted{UserRef: ref("u1")})
		require.Equal(t, []string{"a-1 u1", "a-1 clients/c3", "root clients/c2", "a-1 clients/c1"}, found(audit.Filter{Actor: "root"}))
		require.Equal(t, []string{"a-1 u1"}, found(audit.Filter{Actor: "root", User: "u1"}))
		require.Len(t, found(audit.Filter{Actor: "a-1"}), 4)

		// The name comes with the second sighting of a delivery, and of a user's own doing.
		pulled := client(account("a-4", ""), "c5")
		s.append(adapter.DeliveryStream("c5"), adapter.Metadata{Actor: new(account("a-4", "")), CausationID: &pulled.ID}, &adapter.DeliveryConfirmed{
			Added: map[string]json.RawMessage{"actor.username": json.RawMessage(`"helpdesk"`)},
		})
		require.Equal(t, []string{"a-4 clients/c5"}, found(audit.Filter{Actor: "helpdesk"}))
		s.append(adapter.DeliveryStream("login"), adapter.Metadata{}, &adapter.UserEventReceived{
			Realm: "acme", Type: "LOGIN", UserID: "a-2", Actor: account("a-2", "bob"),
		})
		require.Equal(t, []string{"a-2 clients/c4"}, found(audit.Filter{Actor: "bob"}))

		// Who was renamed is found by either name, an entry that has a name by that alone;
		// who took the old name over did other things.
		client(account("a-1", "boss"), "c6")
		client(account("a-3", "root"), "c7")
		require.Equal(t, []string{"boss clients/c6", "a-1 u1", "a-1 clients/c3", "a-1 clients/c1"}, found(audit.Filter{Actor: "boss"}))
		require.Equal(t, []string{"root clients/c7", "a-1 u1", "a-1 clients/c3", "root clients/c2", "a-1 clients/c1"}, found(audit.Filter{Actor: "root"}))

		// Nobody of keytrail's own is taken for an account of Keycloak's, and many accounts
		// of one name, as in many realms, are all found.
		client(adapter.Actor{Type: adapter.ActorCLI, ID: "a-2", Username: "olga"}, "c8")
		require.Equal(t, []string{"olga clients/c8"}, found(audit.Filter{Actor: "olga"}))
		for n := range 60 {
			id := fmt.Sprint("many-", n)
			client(account(id, "admin"), fmt.Sprint("named-", n))
			client(account(id, ""), fmt.Sprint("unnamed-", n))
		}
		require.Len(t, found(audit.Filter{Actor: "admin"}), 120)
		p.RebuildEqualsIncremental(t, e, projection)
	})
}

// A late event changes what later ones changed, and who was called what.
func TestALateEventRewritesLaterRows(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := audit.New(p.Store, p.Codec)
		e := p.Engine(t, projections.Options{}, projection)
		s := &story{t: t, p: p}
		s.user(admin, &adapter.UserApiCreated{UserChange: change("u1", adapter.Profile{
			Username: adapter.Set("alice"), Enabled: adapter.Set(true), Email: adapter.Set("a@x"),
		})})
		s.at(10).user(admin, &adapter.UserApiUpdated{UserChange: change("u1", adapter.Profile{Email: adapter.Set("c@x")})})
		p.CatchUp(t, e)
		q := audit.NewQueries(p.DB)
		require.Equal(t, `root user.update succeeded email:"a@x"→"c@x"`, lines(pages(t, q, audit.Filter{}))[0])
		s.at(5).user(ops, &adapter.UserApiUpdated{UserChange: change("u1", adapter.Profile{
			Email: adapter.Set("b@x"), Username: adapter.Set("Alicia"),
		})})
		p.CatchUp(t, e)
		entries := pages(t, q, audit.Filter{})
		require.Equal(t, []string{
			`root user.update succeeded email:"b@x"→"c@x"`,
			`ops user.update succeeded username:"alice"→"alicia" email:"a@x"→"b@x"`,
			`root user.create succeeded username:null→"alice" email:null→"a@x" enabled:null→true email_verified:null→false`,
		}, lines(entries))
		require.Equal(t, []string{"alicia", "alicia", "alice"}, []string{entries[0].Username, entries[1].Username, entries[2].Username})
		require.Len(t, pages(t, q, audit.Filter{User: "alicia"}), 2)
		p.RebuildEqualsIncremental(t, e, projection)
	})
}

// crashing is a projection whose process dies between its rows and its checkpoint.
type crashing struct {
	projections.Projection
	dying *atomic.Bool
}

var errCrash = errors.New("crash")

func (c crashing) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	write, err := c.Projection.Fold(ctx, b)
	return func(ctx context.Context, tx *sql.Tx) error {
		if err := write(ctx, tx); err != nil {
			return err
		}
		if c.dying.Load() {
			return errCrash
		}
		return nil
	}, err
}

func TestAReadThatFoundWhatWasBelievedHasNoRow(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := audit.New(p.Store, p.Codec)
		e := p.Engine(t, projections.Options{}, projection)
		s := &story{t: t, p: p}
		address := func(email string) adapter.Profile { return adapter.Profile{Email: adapter.Set(email)} }
		s.user(admin, &adapter.UserApiCreated{UserChange: change("u1", adapter.Profile{Username: adapter.Set("alice"), Email: adapter.Set("a@x")})})
		s.at(10).user(adapter.Metadata{}, &adapter.UserApiObserved{UserRef: ref("u1"), Present: true, Set: address("a@x")})
		s.at(20).user(adapter.Metadata{}, &adapter.UserApiObserved{UserRef: ref("u1"), Present: true, Set: address("b@x")})
		s.at(30).user(adapter.Metadata{}, &adapter.UserApiObserved{UserRef: ref("u1")})
		p.CatchUp(t, e)
		q := audit.NewQueries(p.DB)
		created := `root user.create succeeded username:null→"alice" email:null→"a@x" enabled:null→false email_verified:null→false`
		require.Equal(t, []string{`nobody user.observe observed deleted:false→true`, `nobody user.observe observed email:"a@x"→"b@x"`, created}, lines(pages(t, q, audit.Filter{})))

		// A late event tells what a read had found, and leaves another one something to find.
		s.at(5).user(ops, &adapter.UserApiUpdated{UserChange: change("u1", address("b@x"))})
		s.at(15).user(ops, &adapter.UserApiUpdated{UserChange: change("u1", address("b@x"))})
		p.CatchUp(t, e)
		require.Equal(t, []string{
			`nobody user.observe observed deleted:false→true`, `ops user.update succeeded email:"a@x"→"b@x"`,
			`nobody user.observe observed email:"b@x"→"a@x"`, `ops user.update succeeded email:"a@x"→"b@x"`, created,
		}, lines(pages(t, q, audit.Filter{})))
		p.RebuildEqualsIncremental(t, e, projection)
	})
}

func TestACrashBetweenRowsAndCheckpointLeavesNothing(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		projection := crashing{audit.New(p.Store, p.Codec), new(atomic.Bool)}
		e := p.Engine(t, projections.Options{}, projection)
		s := &story{t: t, p: p}
		call := s.call(ops, "user.disable", "PUT", "u1")
		p.CatchUp(t, e)
		before := p.Dump(t, projection.Tables()...)
		called := ops
		called.CallID = &call
		s.append(adapter.CallStream(call), ops, &adapter.ApiCallSucceeded{CallID: call})
		s.user(called, &adapter.UserApiDisabled{UserChange: change("u1", adapter.Profile{Enabled: adapter.Set(false)})})
		projection.dying.Store(true)
		require.ErrorIs(t, e.CatchUp(t.Context(), p.Head(t)), errCrash)
		require.Equal(t, before, p.Dump(t, projection.Tables()...))
		projection.dying.Store(false)
		p.CatchUp(t, e)
		require.Equal(t, []string{"ops user.disable succeeded enabled:null→false"}, lines(pages(t, audit.NewQueries(p.DB), audit.Filter{})))
		p.RebuildEqualsIncremental(t, e, projection)
	})
}

func TestEveryFilterReadsAnIndexInItsOrder(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		e := p.Engine(t, projections.Options{}, audit.New(p.Store, p.Codec))
		require.NoError(t, e.Setup(t.Context()))
		for name, c := range map[string]struct {
			filter  audit.Filter
			known   []string
			indexes []string
		}{
			"nothing":    {audit.Filter{}, nil, []string{"_occurred"}},
			"time":       {audit.Filter{From: noon, To: noon.Add(time.Hour)}, nil, []string{"_occurred"}},
			"realm":      {audit.Filter{Realm: "acme"}, nil, []string{"_realm"}},
			"event type": {audit.Filter{Type: adapter.TypeUserApiDeleted}, nil, []string{"_event_type"}},
			"action":     {audit.Filter{Type: "user.delete"}, nil, []string{"_action"}},
			"actor":      {audit.Filter{Actor: "root"}, nil, []string{"_actor_id", "_actor_username"}},
			"known actor": {
				audit.Filter{Actor: "root"}, []string{"a-1", "a-2"}, []string{"_actor_id", "_actor_username", "_unnamed"},
			},
			"user": {audit.Filter{User: "alice"}, nil, []string{"_user_id", "_username"}},
		} {
			for _, cursor := range []string{"", projections.Cursor(noon.Format(time.RFC3339), "7")} {
				query, args, err := audit.Statement(c.filter, c.known, 51, cursor)
				require.NoError(t, err)
				plan := explain(t, p, query, args)
				require.NotContains(t, plan, "Seq Scan", name)
				require.NotContains(t, plan, "SCAN api_audit_entries\n", name)
				if len(c.indexes) == 1 {
					require.NotContains(t, plan, "TEMP B-TREE", name)
					require.NotContains(t, plan, "Sort", name)
				}
				for _, index := range c.indexes {
					require.Regexp(t, index+`\b`, plan, name)
				}
			}
		}
	})
}

// explain is the plan of a query. A PostgreSQL table that is empty is read whole unless
// that is forbidden.
func explain(t testing.TB, p projectiontest.Process, query string, args []any) string {
	t.Helper()
	tx, err := p.DB.Read.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback()) }()
	explain := "EXPLAIN QUERY PLAN "
	if p.DB.Dialect == projections.Postgres {
		explain = "EXPLAIN "
		for _, off := range []string{"enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_incremental_sort"} {
			_, err = tx.ExecContext(t.Context(), "SET LOCAL "+off+" = off")
			require.NoError(t, err)
		}
	}
	rows, err := tx.QueryContext(t.Context(), explain+query, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var plan strings.Builder
	for rows.Next() {
		columns, err := rows.Columns()
		require.NoError(t, err)
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		require.NoError(t, rows.Scan(values...))
		fmt.Fprintln(&plan, *values[len(values)-1].(*any))
	}
	require.NoError(t, rows.Err())
	return plan.String()
}

// An action has the name of the command that does it, whoever did it.
func TestActionsAreCalledAsCommandsAre(t *testing.T) {
	t.Parallel()
	role, clientRole := []adapter.Role{{Name: "r"}}, []adapter.Role{{Name: "r", Client: "uuid", ClientID: "app"}}
	profile := func(p adapter.Profile) adapter.UserPayload {
		return &adapter.UserApiUpdated{UserChange: change("u1", p)}
	}
	for action, payload := range map[string]adapter.UserPayload{
		"user.update":             profile(adapter.Profile{Email: adapter.Set("a")}),
		"user.required_actions":   profile(adapter.Profile{RequiredActions: adapter.Set([]string{"a"})}),
		"user.unlock":             profile(adapter.Profile{LockedUntil: adapter.Clear[time.Time]()}),
		"user.lock":               profile(adapter.Profile{LockedUntil: adapter.Set(noon)}),
		"user.enable":             &adapter.UserApiEnabled{UserChange: change("u1", adapter.Profile{})},
		"user.role.add":           &adapter.UserApiRolesChanged{UserRef: ref("u1"), Added: role},
		"user.role.remove":        &adapter.UserApiRolesChanged{UserRef: ref("u1"), Removed: role},
		"user.role.change":        &adapter.UserApiRolesChanged{UserRef: ref("u1"), Unfolded: "it does not tell"},
		"user.client_role.add":    &adapter.UserApiRolesChanged{UserRef: ref("u1"), Added: clientRole},
		"user.group.remove":       &adapter.UserApiGroupsChanged{UserRef: ref("u1"), Left: []adapter.Group{{Path: "/g"}}},
		"user.organization.add":   &adapter.UserApiOrganizationsChanged{UserRef: ref("u1"), Joined: []adapter.Organization{{ID: "o"}}},
		"user.logout":             &adapter.UserApiSessionsEnded{UserRef: ref("u1")},
		"user.send_verify_email":  &adapter.UserApiEmailRequested{UserRef: ref("u1"), Email: adapter.EmailVerify},
		"user.reset_password":     &adapter.UserApiCredentialsChanged{UserRef: ref("u1"), Action: "password_reset"},
		"user.credential_removed": &adapter.UserApiCredentialsChanged{UserRef: ref("u1"), Action: "credential_removed", CredentialType: "otp"},
		"user.identity_linked":    &adapter.UserApiFederatedIdentityChanged{UserRef: ref("u1"), Provider: "p", Linked: true},
		"user.identity_unlinked":  &adapter.UserApiFederatedIdentityChanged{UserRef: ref("u1"), Provider: "p"},
	} {
		var u adapter.User
		a, ok := u.ApplyAudited(adapter.Decoded{Event: eventstore.Event{Type: payload.EventType(), OccurredAt: noon}, Payload: payload})
		require.True(t, ok)
		require.Equal(t, action, a.Action)
	}
}

// No event on a user's stream is left out.
func TestEveryUserEventIsInTheTrail(t *testing.T) {
	t.Parallel()
	types := audit.New(nil, nil).Types()
	for _, name := range adapter.EventTypes() {
		if strings.HasPrefix(name, "UserApi") {
			require.Contains(t, types, name)
		}
	}
}

func TestAnEntryHasItsMembers(t *testing.T) {
	t.Parallel()
	entries := adapter.AuditOfUser([]adapter.Decoded{{
		Event:   eventstore.Event{ID: eventstore.NewID(), Type: adapter.TypeUserApiDeleted, OccurredAt: noon},
		Payload: &adapter.UserApiDeleted{UserRef: ref("u1")},
	}, {Event: eventstore.Event{Type: "FromTheFuture"}}})
	require.Len(t, entries, 1)
	b, err := json.Marshal(entries[0])
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(b, &members))
	var names []string
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	require.Equal(t, []string{
		"action", "actor", "call_id", "changes", "code", "correlation_id", "error", "event_id", "event_type", "occurred_at",
		"outcome", "position", "realm", "reason", "recorded_at", "resource_path", "source", "user_id", "username",
	}, names)
}
