package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/eventstore"
)

// secrets of the story that must be found nowhere.
const (
	firstPassword  = "canary-password-at-creation"
	secondPassword = "canary-password-by-command"
	resetPassword  = "canary-password-by-the-admin"
)

// Changes that keytrail makes: each call recorded from intent to echo, each change
// told once, and then found again by every id.
func TestCommands(t *testing.T) {
	t.Parallel()
	// The realm manages one attribute beyond Keycloak's own.
	managed := map[string]any{"attributes": object{"userProfileEnabled": "true"}}
	onBothStores(t, options{settings: managed}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.tap.URL)
		manageTeam(b)
		began := time.Now()
		grace := commandsOverHTTP(t, b)
		eve := commandsInProcess(t, b)
		everyCallIsAccountedFor(t, b)
		b.untilAllRecorded()
		b.userEventsFollow()
		inspect(t, b, grace, eve, began)
		b.inSync()
		noSecretIsKept(t, b)
		nobodyListens(t, b, eve)
	})
}

// nobodyListens sees that what certainly did not leave is tried again, and recorded
// each time.
func nobodyListens(t *testing.T, b *bundle, user string) {
	b.proxy.Close()
	out, err := b.app.Commands.EnableUser(t.Context(), b.realm.Name, outbound.UserRef{ID: user})
	require.Equal(t, adapter.CodeKeycloakUnreachable, adapter.CodeOf(err))
	c := b.call(out.CallID)
	require.Equal(t, adapter.CallFailed, c.Status)
	require.Empty(t, c.Attempts, "the write was never begun")
	require.Len(t, c.PreconditionReads, 1)
	require.Len(t, c.PreconditionReads[0].Attempts, 5)
	for _, a := range c.PreconditionReads[0].Attempts[1:] { // the first may meet a connection that was open
		require.Equal(t, "refused", a.Kind)
		require.False(t, a.Sent)
	}
}

// manageTeam adds the attribute "team" to the realm's user profile.
func manageTeam(b *bundle) {
	b.t.Helper()
	profile := live[object](b, "/users/profile")
	profile["attributes"] = append(profile["attributes"].([]any), object{
		"name": "team", "multivalued": true,
		"permissions": object{"view": []string{"admin"}, "edit": []string{"admin"}},
	})
	b.admin(http.MethodPut, "/users/profile", profile)
}

// users is the realm's users in keytrail's API.
func (b *bundle) users(rest string) string {
	return "/realms/" + url.PathEscape(b.realm.Name) + "/users" + rest
}

// command runs a command over HTTP that must succeed, and waits for its echo.
func (b *bundle) command(method, path string, body object, want int) (callID uuid.UUID) {
	b.t.Helper()
	status, answer := b.api(method, path, body)
	require.Equal(b.t, want, status, "%v", answer)
	require.Equal(b.t, "succeeded", answer["status"])
	callID = uuid.MustParse(answer["call_id"].(string))
	b.untilEchoed(callID)
	return callID
}

func (b *bundle) call(id uuid.UUID) adapter.Call {
	b.t.Helper()
	c, ok := adapter.FoldCall(b.stream(adapter.CallStream(id)))
	require.True(b.t, ok)
	return c
}

// untilEchoed waits until Keycloak's own event of a call is linked to it.
func (b *bundle) untilEchoed(id uuid.UUID) {
	b.t.Helper()
	b.until("the echo of call "+id.String(), func() bool { return b.call(id).Echo != nil })
}

func commandsOverHTTP(t *testing.T, b *bundle) (grace string) {
	status, created := b.api(http.MethodPost, b.users(""), object{
		"username": "Grace", "email": "Grace@example.com", "first_name": "Grace", "last_name": "Murray",
		"enabled": true, "attributes": object{"team": []string{"navy"}}, "password": firstPassword, "reason": "new colleague",
	})
	require.Equal(t, http.StatusCreated, status, "%v", created)
	grace = created["user_id"].(string)
	b.untilEchoed(uuid.MustParse(created["call_id"].(string)))
	b.untilStory(grace, adapter.TypeUserApiCreated)
	require.Equal(t, "grace", live[object](b, "/users/"+grace)["username"])
	_, err := b.realm.LogIn(t.Context(), "grace", firstPassword)
	require.NoError(t, err, "the password arrived")

	b.command(http.MethodPatch, b.users("/"+grace), object{"last_name": "Hopper", "attributes": object{"team": []string{"navy", "cobol"}}, "reason": "married"}, http.StatusOK)
	b.untilStory(grace, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated)
	after := live[object](b, "/users/"+grace)
	require.Equal(t, []any{"Hopper", "grace@example.com"}, []any{after["lastName"], after["email"]}, "what was not named is kept")
	b.command(http.MethodPost, b.users("/"+grace+"/disable"), object{"reason": "on leave"}, http.StatusOK)
	b.command(http.MethodPost, b.users("/"+grace+"/enable"), object{"reason": "back"}, http.StatusOK)

	// Refused on a fresh read: nothing is written.
	writes := len(b.proxy.writes())
	status, problem := b.api(http.MethodPost, b.users("/"+grace+"/enable"), nil)
	require.Equal(t, http.StatusConflict, status)
	require.Equal(t, "already_enabled", problem["code"])
	require.NotEmpty(t, problem["correlation_id"])
	require.Len(t, b.proxy.writes(), writes)
	require.Equal(t, adapter.CallSkipped, b.call(uuid.MustParse(problem["call_id"].(string))).Status)

	// Refused by Keycloak.
	status, problem = b.api(http.MethodPost, b.users(""), object{"username": "grace"})
	require.Equal(t, http.StatusConflict, status)
	require.Equal(t, "keycloak_conflict", problem["code"])
	require.Contains(t, problem["detail"], "User exists with same username", "Keycloak's own words")
	conflict := b.call(uuid.MustParse(problem["call_id"].(string)))
	require.Equal(t, adapter.CallFailed, conflict.Status)
	require.Len(t, conflict.Attempts, 1)

	b.command(http.MethodDelete, b.users("/"+grace), object{"reason": "retired"}, http.StatusOK)
	b.untilStory(grace, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiDisabled, adapter.TypeUserApiEnabled, adapter.TypeUserApiDeleted)
	return grace
}

func commandsInProcess(t *testing.T, b *bundle) (eve string) {
	as := func(reason string) context.Context {
		return adapter.WithCall(t.Context(), adapter.CallContext{Actor: operator, Reason: reason, Source: "cli"})
	}
	realm, commands := b.realm.Name, b.app.Commands

	out, err := commands.CreateUser(as("hired"), realm, outbound.NewUser{
		Profile:  adapter.Profile{Username: adapter.Set("eve"), FirstName: adapter.Set("Eve"), Enabled: adapter.Set(true)},
		Password: secondPassword,
	})
	require.NoError(t, err)
	eve = out.UserID
	b.untilEchoed(out.CallID)
	ref := outbound.UserRef{ID: eve}
	b.admin(http.MethodPut, "/users/"+eve+"/reset-password", object{"type": "password", "value": resetPassword})
	b.untilStory(eve, adapter.TypeUserApiCreated, adapter.TypeUserApiCredentialsChanged)
	out, err = commands.UpdateUser(as("typing error"), realm, ref, adapter.Profile{LastName: adapter.Set("Moss"), FirstName: adapter.Clear[string]()})
	require.NoError(t, err)
	b.untilEchoed(out.CallID)
	require.NotContains(t, live[object](b, "/users/"+eve), "firstName", "cleared")

	// Keycloak is busy twice, then obeys.
	b.proxy.inject(fault{method: http.MethodPut, path: "/users/" + eve, times: 2, status: http.StatusServiceUnavailable})
	out, err = commands.DisableUser(as("left the company, ticket HR-17"), realm, ref)
	require.NoError(t, err)
	b.untilEchoed(out.CallID)
	retried := b.call(out.CallID)
	var statuses []int
	for _, a := range retried.Attempts {
		statuses = append(statuses, *a.StatusCode)
	}
	require.Equal(t, []int{503, 503, 204}, statuses)
	require.Equal(t, "stamp", retried.Echo.MatchedBy)

	// The answer of a write is lost, and its echo is late: nobody knows.
	b.tap.keepBack()
	b.proxy.inject(fault{method: http.MethodPut, path: "/users/" + eve, times: 1})
	status, answer := b.api(http.MethodPost, b.users("/"+eve+"/enable"), object{"reason": "came back, ticket HR-18"})
	require.Equal(t, http.StatusAccepted, status, "%v", answer)
	require.Equal(t, "unknown", answer["status"])
	unknown := uuid.MustParse(answer["call_id"].(string))
	require.Equal(t, adapter.CallUnknown, b.call(unknown).Status)
	require.Len(t, b.call(unknown).Attempts, 1, "not tried again blindly")
	before := []string{adapter.TypeUserApiCreated, adapter.TypeUserApiCredentialsChanged, adapter.TypeUserApiUpdated, adapter.TypeUserApiDisabled}
	require.Equal(t, before, b.story(eve), "what nobody knows is not told")
	require.NoError(t, b.app.CatchUp(t.Context()))
	failures := get[trace.FailurePage](b, "/failures")
	require.True(t, slices.ContainsFunc(failures.Items, func(f trace.Failure) bool {
		return f.ID == unknown && f.Kind == trace.FailureCallUnknown
	}), "%+v", failures)
	require.Equal(t, trace.StatusUnknown, get[trace.Trace](b, "/traces/"+unknown.String()).Status)

	b.untilOutside("the echo, kept back", func() bool {
		return slices.ContainsFunc(b.tap.kept(), func(d delivery) bool { return strings.Contains(string(d.body), unknown.String()) })
	})
	for _, d := range b.tap.letThrough() {
		status, body := b.deliver(d.body, d.signature)
		require.Equal(t, http.StatusAccepted, status, "%s", body)
	}
	b.untilEchoed(unknown)
	resolved := b.call(unknown)
	require.Equal(t, adapter.CallSucceeded, resolved.Status)
	require.Equal(t, "echo", resolved.ResolvedBy)
	before = append(before, adapter.TypeUserApiEnabled)
	b.untilStory(eve, before...)
	told := adapter.UserHistory(b.stream(adapter.UserStream(realm, eve)))
	require.Equal(t, "came back, ticket HR-18", told[len(told)-1].Reason, "told with the command's reason")

	// Lost answers whose echoes come at that very moment, before or after the verdict.
	for i := range 10 {
		b.proxy.inject(fault{method: http.MethodPut, path: "/users/" + eve, times: 1})
		out, err := commands.UpdateUser(as("racing"), realm, ref, adapter.Profile{LastName: adapter.Set(fmt.Sprintf("Moss %d", i))})
		if err != nil {
			require.Equal(t, adapter.CodeOutcomeUnknown, adapter.CodeOf(err))
		}
		b.until("the proof of call "+out.CallID.String(), func() bool { return b.call(out.CallID).Status == adapter.CallSucceeded })
		require.Equal(t, "echo", b.call(out.CallID).ResolvedBy)
		before = append(before, adapter.TypeUserApiUpdated)
		b.untilStory(eve, before...)
	}

	// A user who goes.
	out, err = commands.CreateUser(as("a mistake"), realm, outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("mallory")}})
	require.NoError(t, err)
	b.untilEchoed(out.CallID)
	mallory := out.UserID
	out, err = commands.DeleteUser(as("undone"), realm, outbound.UserRef{Username: "mallory"})
	require.NoError(t, err)
	require.Equal(t, mallory, out.UserID, "found by name")
	b.untilEchoed(out.CallID)
	require.Equal(t, "delete", b.call(out.CallID).Echo.MatchedBy, "a delete has no body to be stamped")
	b.untilStory(mallory, adapter.TypeUserApiCreated, adapter.TypeUserApiDeleted)

	// Somebody else is faster: the deletion is theirs, and our call has failed.
	out, err = commands.CreateUser(as("another mistake"), realm, outbound.NewUser{Profile: adapter.Profile{Username: adapter.Set("trent")}})
	require.NoError(t, err)
	b.untilEchoed(out.CallID)
	trent, held, late := out.UserID, make(chan struct{}), make(chan error, 1)
	b.proxy.inject(fault{method: http.MethodDelete, path: "/users/" + trent, times: 1, held: held})
	go func() {
		_, err := commands.DeleteUser(as("undone"), realm, outbound.UserRef{ID: trent})
		late <- err
	}()
	<-held
	b.admin(http.MethodDelete, "/users/"+trent, nil)
	b.untilStory(trent, adapter.TypeUserApiCreated, adapter.TypeUserApiDeleted)
	held <- struct{}{}
	require.Equal(t, adapter.CodeUserNotFound, adapter.CodeOf(<-late))
	gone := adapter.UserHistory(b.stream(adapter.UserStream(realm, trent)))[1]
	require.Equal(t, b.server.AdminUser, gone.Actor.Username)

	_, err = commands.DeleteUser(as("once more"), realm, outbound.UserRef{ID: mallory})
	require.Equal(t, adapter.CodeUserNotFound, adapter.CodeOf(err))
	return eve
}

// everyCallIsAccountedFor compares what was recorded with what the proxy saw: every
// wire attempt is an event, and nothing else is.
func everyCallIsAccountedFor(t *testing.T, b *bundle) {
	type attempt struct {
		method string
		status int
	}
	b.untilRead()
	var writes, reads []attempt
	observed := 0
	status := func(a adapter.CallAttempt) int {
		if a.StatusCode == nil {
			return 0
		}
		return *a.StatusCode
	}
	userEvents := map[uuid.UUID]int{}
	for _, e := range b.events(eventstore.LogQuery{Category: adapter.CategoryUser}) {
		if e.Meta.CallID != nil {
			userEvents[*e.Meta.CallID]++
		}
	}
	for _, e := range b.events(eventstore.LogQuery{Types: []string{adapter.TypeApiCallRequested}}) {
		id := e.Payload.(*adapter.ApiCallRequested).CallID
		c := b.call(id)
		for _, a := range c.Attempts {
			if c.Method == http.MethodGet { // a user whose events left something open is read
				observed++
				reads = append(reads, attempt{c.Method, status(a)})
			} else {
				writes = append(writes, attempt{c.Method, status(a)})
			}
		}
		for _, p := range c.PreconditionReads {
			for _, a := range p.Attempts {
				reads = append(reads, attempt{p.Method, status(a)})
			}
		}
		events := b.stream(adapter.CallStream(id))
		require.Equal(t, adapter.TypeApiCallRequested, events[0].Type)
		want := 0
		if c.Status == adapter.CallSucceeded {
			want = 1
			require.Equal(t, c.Method != http.MethodGet, c.Echo != nil, "%s has its echo, a read has none", c.Command)
		}
		require.Equal(t, want, userEvents[id], "%s (%s) is told once, and not again by its echo", c.Command, c.Status)
		for _, later := range events[1:] {
			require.Equal(t, e.CorrelationID, later.CorrelationID)
			require.NotEqual(t, uuid.Nil, later.CausationID)
		}
	}
	var wireWrites, wireReads []attempt
	for _, r := range b.proxy.writes() {
		wireWrites = append(wireWrites, attempt{r.method, r.status})
	}
	for _, r := range b.proxy.seen(func(r wireRequest) bool {
		return r.method == http.MethodGet && strings.HasPrefix(r.path, "/admin/realms/"+b.realm.Name+"/users")
	}) {
		wireReads = append(wireReads, attempt{r.method, r.status})
	}
	require.Equal(t, wireWrites, writes, "every attempt to write is recorded, in order")
	require.ElementsMatch(t, wireReads, reads, "so is every fresh read")
	require.Equal(t, len(writes)+observed, b.count(adapter.TypeApiCallAttempted))
}

// inspect finds the stories again, by every kind of id, in JSON and in words.
func inspect(t *testing.T, b *bundle, grace, eve string, began time.Time) {
	// The call that was answered 503 twice.
	var retried adapter.Call
	for _, c := range get[struct{ Items []adapter.Call }](b, "/calls?status=succeeded").Items {
		if len(c.Attempts) == 3 {
			retried = c
		}
	}
	require.NotNil(t, retried.Echo)
	echo := b.events(eventstore.LogQuery{EventIDs: []uuid.UUID{retried.Echo.DeliveryEventID}})[0]
	succeeded := b.stream(adapter.CallStream(retried.CallID))
	for kind, id := range map[string]string{
		"correlation":    retried.CorrelationID.String(),
		"call":           retried.CallID.String(),
		"event":          succeeded[len(succeeded)-1].ID.String(),
		"delivery":       echo.Stream.AggregateID().String(),
		"delivery event": echo.ID.String(),
		"keycloak event": retried.Echo.KeycloakEventID,
	} {
		found := get[trace.Trace](b, "/traces/"+id)
		require.Equal(t, retried.CorrelationID, found.CorrelationID, "by the id of the %s", kind)
	}
	found := get[trace.Trace](b, "/traces/"+retried.CallID.String())
	require.Equal(t, trace.StatusOK, found.Status)
	require.Len(t, found.Calls, 1)
	require.Equal(t, retried.Attempts, found.Calls[0].Attempts)
	var types []string
	for _, e := range found.Events {
		types = append(types, e.EventType)
	}
	for _, want := range []string{adapter.TypeApiCallRequested, adapter.TypeApiCallAttempted, adapter.TypeApiCallSucceeded, adapter.TypeUserApiDisabled, adapter.TypeApiCallEchoed} {
		require.Contains(t, types, want)
	}
	inWords, err := b.app.Traces.Find(t.Context(), retried.CallID.String(), "")
	require.NoError(t, err)
	text := words(t, func(w *strings.Builder) error { return trace.WriteText(w, inWords, trace.Options{}) })
	for _, fact := range []string{found.CorrelationID.String(), "503", "204", "left the company, ticket HR-17", "olga", found.Summary} {
		require.Contains(t, text, fact, "text and JSON tell the same")
	}

	// A user's newest story, the others listed.
	ofEve := get[trace.Trace](b, "/traces/"+eve)
	require.NotEmpty(t, ofEve.Others)
	// An id that leads nowhere.
	status, problem := b.api(http.MethodGet, "/traces/"+uuid.NewString(), nil)
	require.Equal(t, http.StatusNotFound, status)
	require.NotEmpty(t, problem["detail"])

	// What needs attention.
	failures := get[trace.FailurePage](b, "/failures")
	var kinds []string
	for _, f := range failures.Items {
		kinds = append(kinds, string(f.Kind)+" "+string(f.Code))
	}
	require.Equal(t, []string{"call_failed user_not_found", "call_failed keycloak_conflict"}, kinds, "the unknown call is known by now")
	page, err := b.app.Failures.List(t.Context(), trace.FailureQuery{})
	require.NoError(t, err)
	text = words(t, func(w *strings.Builder) error { return trace.WriteFailures(w, page, trace.Options{}) })
	require.Contains(t, text, failures.Items[0].Summary)
	require.Contains(t, text, failures.Items[0].CorrelationID.String())
	require.Equal(t, trace.StatusFailed, get[trace.Trace](b, "/traces/"+failures.Items[0].CorrelationID.String()).Status)

	// Who did what: old and new values, newest first.
	entries := get[struct{ Items []adapter.HistoryEntry }](b, b.users("/"+grace+"/history")).Items
	entries = slices.DeleteFunc(entries, func(e adapter.HistoryEntry) bool { return e.EventType == adapter.TypeUserApiObserved })
	require.Len(t, entries, 5)
	require.Equal(t, adapter.TypeUserApiDeleted, entries[0].EventType)
	married := entries[3]
	require.Equal(t, "married", married.Reason)
	var changed []string
	for _, c := range married.Changes {
		changed = append(changed, fmt.Sprintf("%s: %v → %v", c.Field, c.Old, c.New))
	}
	require.Equal(t, []string{"last_name: Murray → Hopper", "attributes: map[team:[navy]] → map[team:[navy cobol]]"}, changed)
	history, err := b.app.UserHistory(t.Context(), adapter.UserRef{Realm: b.realm.Name, UserID: grace})
	require.NoError(t, err)
	text = words(t, func(w *strings.Builder) error { return trace.WriteHistory(w, history, trace.Options{}) })
	for _, fact := range []string{"Murray", "Hopper", "married", "on leave", "retired"} {
		require.Contains(t, text, fact)
	}

	// The past.
	at := func(moment time.Time) string {
		return b.users("/" + grace + "?at=" + url.QueryEscape(moment.UTC().Format(time.RFC3339Nano)))
	}
	require.True(t, get[adapter.UserView](b, b.users("/"+grace)).Deleted)
	then := get[adapter.UserView](b, at(entries[4].OccurredAt))
	require.Equal(t, "Murray", *then.LastName)
	require.False(t, then.Deleted)
	onLeave := get[adapter.UserView](b, at(entries[2].OccurredAt))
	require.Equal(t, "Hopper", *onLeave.LastName)
	require.False(t, *onLeave.Enabled)
	status, problem = b.api(http.MethodGet, at(began.Add(-time.Hour)), nil)
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, "not_yet_known", problem["code"])
	past, err := b.app.UserAt(t.Context(), adapter.UserRef{Realm: b.realm.Name, UserID: grace}, entries[4].OccurredAt)
	require.NoError(t, err)
	text = words(t, func(w *strings.Builder) error { return trace.WriteUser(w, past, trace.Options{}) })
	for _, fact := range []string{"grace", "Murray", "grace@example.com", grace} {
		require.Contains(t, text, fact)
	}
}

func words(t *testing.T, write func(*strings.Builder) error) string {
	t.Helper()
	var text strings.Builder
	require.NoError(t, write(&text))
	return text.String()
}

// noSecretIsKept looks for every secret of the story in everything that keytrail has
// kept, said and shows.
func noSecretIsKept(t *testing.T, b *bundle) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/metrics", nil)
	require.NoError(t, err)
	status, metrics := b.send(req)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, string(metrics), "keytrail_")
	places := map[string]string{"database": b.database(), "log": b.log.String(), "metrics": string(metrics)}
	require.Contains(t, places["database"], "left the company, ticket HR-17", "the search finds what is there")
	require.Contains(t, places["database"], "representation", "raw bodies included")
	require.NotEmpty(t, places["log"])

	secrets := []string{b.realm.ClientSecret, b.secret, firstPassword, secondPassword, resetPassword}
	tokens := b.proxy.accessTokens()
	require.NotEmpty(t, tokens)
	for _, token := range tokens {
		secrets = append(secrets, token, token[strings.LastIndex(token, ".")+1:])
	}
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) { // require would print it, and everything else
				t.Errorf("a secret is in the %s: %.8s…", place, secret)
			}
		}
	}
}
