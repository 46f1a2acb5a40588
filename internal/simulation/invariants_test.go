package simulation_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/projections/analytics"
	"github.com/keytrail/keytrail/projections/audit"
	"github.com/keytrail/keytrail/projections/calls"
	"github.com/keytrail/keytrail/projections/reconciliations"
)

// check holds a run that has come to rest to what keytrail promises.
func (r *run) check() {
	r.checkReconciliation()
	r.catchUp()
	for _, name := range projected {
		r.do(func() { r.process.advance(name, 0) })
	}
	h := r.readHistory()
	h.checkDeliveries()
	h.checkCalls()
	h.checkChanges()
	h.checkParked()
	r.checkUsers()
	r.checkRows(h)
	r.checkRebuild()
}

// checkReconciliation: what is believed and what is live are compared by the product
// itself, too.
func (r *run) checkReconciliation() {
	r.pass(2 * time.Minute)
	r.begin(r.process.ctx, "last reconciliation", nil, func(ctx context.Context) error {
		result, err := r.process.reconciler.Run(ctx, reconcile.Request{Realm: realmName, Trigger: "cli"})
		// A call that was never sent, because the process died before, stays open.
		open := slices.DeleteFunc(slices.Clone(result.Pending), func(f adapter.Finding) bool { return f.Situation == adapter.SituationInFlight })
		if err == nil && (result.Verdict != reconcile.InSync || len(open) > 0) {
			findings, _ := json.Marshal(append(result.Findings, open...))
			err = fmt.Errorf("%s: %s", result.Verdict, findings)
		}
		if err != nil {
			r.t.Errorf("reconciliation: %v", err)
		}
		return err
	})
	r.finish()
}

// history is the log, taken apart.
type history struct {
	*run
	events []adapter.Decoded
	// received are the events that recorded a delivery first, by Keycloak's id.
	received map[string][]adapter.Decoded
	calls    map[uuid.UUID][]adapter.Decoded
	// told are the events of users' streams by the event that directly caused them.
	told map[uuid.UUID][]adapter.Decoded
	// echoes are the calls that a delivery's event reports back.
	echoes map[uuid.UUID][]uuid.UUID
}

func (r *run) readHistory() *history {
	h := &history{
		run: r, received: make(map[string][]adapter.Decoded), calls: make(map[uuid.UUID][]adapter.Decoded),
		told: make(map[uuid.UUID][]adapter.Decoded), echoes: make(map[uuid.UUID][]uuid.UUID),
	}
	ids := make(map[uuid.UUID]bool)
	for i, e := range r.events() {
		d, err := r.process.codec.Decode(r.t.Context(), e)
		require.NoError(r.t, err)
		require.NotNil(r.t, d.Payload, e.Type)
		require.EqualValues(r.t, i+1, e.Position)
		require.False(r.t, ids[e.ID], "id %s is there twice", e.ID)
		ids[e.ID] = true
		h.events = append(h.events, d)
		switch p := d.Payload.(type) {
		case *adapter.AdminEventReceived:
			h.received[p.KeycloakEventID] = append(h.received[p.KeycloakEventID], d)
		case *adapter.UserEventReceived:
			h.received[p.KeycloakEventID] = append(h.received[p.KeycloakEventID], d)
		case *adapter.ApiCallEchoed:
			h.echoes[p.DeliveryEventID] = append(h.echoes[p.DeliveryEventID], p.CallID)
		}
		switch e.Stream.Category() {
		case adapter.CategoryCall:
			h.calls[e.Stream.AggregateID()] = append(h.calls[e.Stream.AggregateID()], d)
		case adapter.CategoryUser:
			h.told[e.CausationID] = append(h.told[e.CausationID], d)
		}
		require.True(r.t, e.CausationID == uuid.Nil || ids[e.CausationID], "the cause of %s comes before it", e.ID)
	}
	return h
}

// checkDeliveries: every Keycloak event that was acknowledged, or that can be pulled, is
// one delivery, and nothing else is.
func (h *history) checkDeliveries() {
	want := make(map[string]bool)
	for _, id := range h.stored() {
		want[id] = true
	}
	for _, p := range h.pushes {
		if p.acknowledged {
			want[p.eventID] = true
		}
	}
	for id := range want {
		require.Len(h.t, h.received[id], 1, "deliveries of Keycloak's event %s", id)
		require.EqualValues(h.t, 1, h.received[id][0].Version)
	}
	for _, id := range slices.Sorted(maps.Keys(h.received)) {
		pushed := slices.ContainsFunc(h.pushes, func(p *push) bool { return p.eventID == id })
		require.True(h.t, want[id] || pushed, "there is no such event %s", id)
	}
}

// checkCalls: what is recorded of a command is what the realm has done.
func (h *history) checkCalls() {
	// Where the same is asked for twice, by requests that carry no call's id, Keycloak's
	// events do not tell which of them was done: then the number has to be right.
	type address struct{ method, template, user, params string }
	alike := make(map[address][]adapter.Call)
	for _, id := range slices.SortedFunc(maps.Keys(h.calls), func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) }) {
		c, ok := adapter.FoldCall(h.calls[id])
		require.True(h.t, ok)
		if c.Method == http.MethodGet {
			continue // a read
		}
		var successes, told int
		for _, e := range h.calls[id] {
			told += len(h.told[e.ID])
			if e.Type == adapter.TypeApiCallSucceeded {
				successes++
			}
		}
		about := fmt.Sprintf("call %s (%s) is %s", id, c.Command, c.Status)
		require.Equal(h.t, c.Status == adapter.CallSucceeded, successes == 1, about)
		require.Equal(h.t, successes, told, "changes told of users through %s", about)
		key := address{c.Method, c.URLTemplate, cmp.Or(c.UserID, c.CallID.String()), fmt.Sprint(c.Params)}
		if carriesID(c) {
			key.params = id.String()
		}
		alike[key] = append(alike[key], c)
	}
	for key, calls := range alike {
		// Also of what stayed open: had Keycloak done it, its echo would have told.
		succeeded, done := 0, 0
		var about []string
		for _, c := range calls {
			if c.Status == adapter.CallSucceeded {
				succeeded++
			}
			arrived := 0
			if w := h.writes[c.CallID]; w != nil {
				arrived = w.arrived
				done++
			}
			about = append(about, fmt.Sprintf("call %s (%s) is %s, and Keycloak has done %d of its writes", c.CallID, c.Command, c.Status, arrived))
		}
		require.Equal(h.t, done, succeeded, "%+v:\n%s", key, strings.Join(about, "\n"))
	}
	for id := range h.writes {
		require.NotEmpty(h.t, h.calls[id], "a write went out without an intent")
	}
}

// carriesID reports a call whose write has the call's id in it.
func carriesID(c adapter.Call) bool {
	return strings.HasPrefix(c.Command, "user.role.") || slices.Contains([]string{"user.create", "user.update", "user.enable", "user.disable"}, c.Command)
}

// tells are the resources whose admin events change something about a user, each with
// what is told of it.
var tells = map[string]bool{
	keycloak.ResourceUser: true, keycloak.ResourceRealmRoleMapping: true, keycloak.ResourceGroupMembership: true,
}

// tellsToo are the user events that do.
var tellsToo = []string{"REGISTER", "UPDATE_PROFILE", "DELETE_ACCOUNT"}

// checkChanges: no change is lost, none is told twice, and those of our own calls are told
// by the call.
func (h *history) checkChanges() {
	for _, id := range slices.Sorted(maps.Keys(h.received)) {
		d := h.received[id][0]
		told := h.told[d.ID]
		kinds := make(map[string]bool)
		for _, e := range told {
			require.False(h.t, kinds[e.Type], "delivery %s is told twice as %s", d.ID, e.Type)
			kinds[e.Type] = true
		}
		require.LessOrEqual(h.t, len(h.echoes[d.ID]), 1, "a delivery is the echo of one call")
		if len(h.echoes[d.ID]) == 1 {
			require.Empty(h.t, told, "delivery %s is an echo of call %s: the call tells the change", d.ID, h.echoes[d.ID][0])
			continue
		}
		switch p := d.Payload.(type) {
		case *adapter.AdminEventReceived:
			if tells[p.ResourceType] && p.UserID != "" {
				require.NotEmpty(h.t, told, "%s %s at %s (delivery %s) is not told", p.ResourceType, p.OperationType, p.ResourcePath, d.ID)
			}
		case *adapter.UserEventReceived:
			if slices.Contains(tellsToo, p.Type) {
				require.NotEmpty(h.t, told, "%s (delivery %s) is not told", p.Type, d.ID)
			}
		}
	}
}

// checkParked: every event here can be read, so that nothing is parked.
func (h *history) checkParked() {
	for _, e := range h.events {
		if p, ok := e.Payload.(*adapter.DeliveryParked); ok {
			require.Failf(h.t, "parked", "delivery %s: %s", e.Stream, p.Error)
		}
	}
}

// checkUsers: what is believed is what is live.
func (r *run) checkUsers() {
	live := make(map[string]bool)
	for _, m := range r.members() {
		live[m.ID] = true
		want, ok := r.realm.User(m.ID)
		require.True(r.t, ok)
		got, ok, err := r.process.users.Get(r.t.Context(), realmName, m.ID)
		require.NoError(r.t, err)
		require.True(r.t, ok, "user %s (%s) is not known", m.ID, m.Username)
		about := fmt.Sprintf("user %s (%s)", m.ID, m.Username)
		require.False(r.t, got.Deleted, about)
		require.Nil(r.t, got.Unread, about)
		require.Equal(r.t, want.Username, got.Username, about)
		require.Equal(r.t, want.Email, text(got.Email), about)
		require.Equal(r.t, want.FirstName, text(got.FirstName), about)
		require.Equal(r.t, want.LastName, text(got.LastName), about)
		require.Equal(r.t, want.Enabled, got.Enabled, about)
		require.Equal(r.t, want.EmailVerified, got.EmailVerified, about)
		if len(want.Attributes)+len(got.Attributes) > 0 {
			require.Equal(r.t, want.Attributes, got.Attributes, about)
		}
		// Whether a password is temporary is not told, and nothing else asks for it: until
		// somebody looks, a field that was never seen says nothing.
		if got.Known(adapter.FieldRequiredActions) {
			require.ElementsMatch(r.t, want.RequiredActions, got.RequiredActions, about)
		}
		given := slices.DeleteFunc(want.RealmRoles, func(role string) bool { return strings.HasPrefix(role, "default-roles-") })
		require.ElementsMatch(r.t, given, got.Roles, about)
		var groups []string
		for _, id := range want.Groups {
			groups = append(groups, "/"+groupNames[slices.Index(r.groups, id)])
		}
		require.ElementsMatch(r.t, groups, got.Groups, about)
	}
	require.NoError(r.t, r.process.users.Each(r.t.Context(), realmName, func(u adapter.User) error {
		if !live[u.ID] && !u.Deleted {
			_, there := r.realm.User(u.ID)
			require.True(r.t, there, "user %s (%s) is believed to be there", u.ID, u.Username)
		}
		return nil
	}))
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// checkRows: the projections' rows are the folds of the streams.
func (r *run) checkRows(h *history) {
	byUser := make(map[eventstore.StreamID][]adapter.Decoded)
	for _, e := range h.events {
		if e.Stream.Category() == adapter.CategoryUser {
			byUser[e.Stream] = append(byUser[e.Stream], e)
		}
	}
	for stream, events := range byUser {
		realm, id, err := adapter.UserOfStream(stream)
		require.NoError(r.t, err)
		folded, _ := adapter.FoldUser(events)
		row, ok, err := r.process.users.Get(r.t.Context(), realm, id)
		require.NoError(r.t, err)
		require.True(r.t, ok)
		require.JSONEq(r.t, jsonOf(r, folded), jsonOf(r, row))
	}
	for id, events := range h.calls {
		folded, _ := adapter.FoldCall(events)
		row, ok, err := r.process.calls.Get(r.t.Context(), id)
		require.NoError(r.t, err)
		require.True(r.t, ok)
		require.JSONEq(r.t, jsonOf(r, folded), jsonOf(r, row))
	}
}

func jsonOf(r *run, v any) string {
	b, err := json.Marshal(v)
	require.NoError(r.t, err)
	return string(b)
}

// checkRebuild: a projection rebuilt from zero answers as the live one did. It is another
// one in each run: it costs as much as all else.
func (r *run) checkRebuild() {
	name := pick(r.scheduler, projected)
	before := r.answers(name)
	require.NotEmpty(r.t, before)
	require.NoError(r.t, r.process.engines[name].Rebuild(r.t.Context(), name, nil))
	requireSameLines(r.t, "rebuilt "+name, before, r.answers(name))
}

// answers is all that a projection can tell.
func (r *run) answers(name string) (lines []string) {
	ctx := r.t.Context()
	add := func(v any) { lines = append(lines, jsonOf(r, v)) }
	switch name {
	case "users":
		require.NoError(r.t, r.process.users.Each(ctx, realmName, func(u adapter.User) error {
			add(u)
			return nil
		}))
	case "calls":
		all, _, err := r.process.calls.List(ctx, calls.Filter{}, calls.MaxLimit, "")
		require.NoError(r.t, err)
		for _, c := range all {
			add(c)
		}
	case "reconciliations":
		q := reconciliations.NewQueries(r.db)
		all, _, err := q.List(ctx, "", reconciliations.MaxLimit, "")
		require.NoError(r.t, err)
		for _, one := range all {
			full, _, err := q.Get(ctx, one.RunID)
			require.NoError(r.t, err)
			add(full)
		}
	case "audit":
		all, _, err := audit.NewQueries(r.db).List(ctx, audit.Filter{}, audit.MaxLimit, "")
		require.NoError(r.t, err)
		for _, e := range all {
			add(e)
		}
	case "analytics":
		for _, bucket := range []adapter.AnalyticsBucket{adapter.BucketHour, adapter.BucketDay} {
			summary, err := analytics.NewQueries(r.db).Summary(ctx, adapter.AnalyticsQuery{
				From: time.Now().Add(-48 * time.Hour), To: time.Now().Add(48 * time.Hour), Bucket: bucket,
			})
			require.NoError(r.t, err)
			add(summary)
		}
	}
	return lines
}
