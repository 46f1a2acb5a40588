package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

const acmeUsers = "/api/v1/realms/acme/users"

func TestCommandsOverHTTP(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	b := newBundle(t, connected)

	correlation := uuid.New()
	created := b.do(http.MethodPost, acmeUsers, `{"username":"ada","email":"ada@example.com","first_name":"Ada","last_name":null,"enabled":true,
		"email_verified":true,"attributes":{"team":["red"]},"required_actions":["UPDATE_PASSWORD"],"password":"password-canary","groups":[],"reason":"she starts on Monday"}`,
		correlationHeader, correlation.String(), "User-Agent", "hr-tool/1")
	require.Equal(t, http.StatusCreated, created.status, "%s", created.body)
	var out outcome
	created.into(&out)
	require.Equal(t, correlation, out.CorrelationID)
	require.Equal(t, adapter.CallSucceeded, out.Status)
	require.Equal(t, "acme", out.Realm)
	require.NotEmpty(t, out.UserID)
	require.NotEqual(t, uuid.Nil, out.CallID)
	location := created.header.Get("Location")
	require.Equal(t, acmeUsers+"/"+out.UserID, location)

	live, ok := kc.Realm("acme").User(out.UserID)
	require.True(t, ok)
	require.Equal(t, "ada", live.Username)

	events, err := b.codec.ReadStream(t.Context(), b.store, adapter.UserStream("acme", out.UserID))
	require.NoError(t, err)
	require.Equal(t, adapter.TypeUserApiCreated, events[0].Type)
	require.Equal(t, "she starts on Monday", events[0].Meta.Reason)
	require.Equal(t, "http", events[0].Meta.Source)
	require.Equal(t, &adapter.Actor{Type: adapter.ActorToken, ID: "loopback", Client: "hr-tool/1", IP: "127.0.0.1"}, events[0].Meta.Actor)

	shown := b.get(location).object()
	require.Equal(t, "ada@example.com", shown["email"])
	require.Equal(t, []any{}, shown["roles"], "collections are never null")
	require.Equal(t, map[string]any{}, shown["client_roles"])
	require.NotContains(t, shown, "origins")

	for _, step := range []struct {
		method, path, body string
		status             int
		code               adapter.Code
	}{
		{http.MethodPost, "/enable", "", 409, adapter.CodeAlreadyEnabled},
		{http.MethodPost, "/disable", `{"reason":"on leave"}`, 200, ""},
		{http.MethodPost, "/disable", ``, 409, adapter.CodeAlreadyDisabled},
		{http.MethodPost, "/enable", `{}`, 200, ""},
		{http.MethodPatch, "", `{"first_name":"Augusta","last_name":null,"attributes":{"team":[]}}`, 200, ""},
		{http.MethodDelete, "", "", 200, ""},
		{http.MethodDelete, "", "", 404, adapter.CodeUserNotFound},
	} {
		got := b.do(step.method, location+step.path, step.body)
		if step.code != "" {
			p := got.problem(step.status, step.code)
			require.NotNil(t, p.CallID)
			require.NotNil(t, p.CorrelationID)
			require.Equal(t, http.StatusOK, b.get("/api/v1/traces/"+p.CorrelationID.String()).status, "the trace shows why")
			continue
		}
		require.Equal(t, step.status, got.status, "%s %s: %s", step.method, step.path, got.body)
		var o outcome
		got.into(&o)
		require.Equal(t, out.UserID, o.UserID)
	}
	gone := b.get(location).object()
	require.Equal(t, true, gone["deleted"])
	require.Equal(t, "Augusta", gone["first_name"])

	for e, err := range b.store.ReadLog(t.Context(), everything) {
		require.NoError(t, err)
		require.NotContains(t, string(e.Data), "canary")
	}
	require.NotContains(t, b.logs.String(), "canary")
}

func TestACommandTakesAUserName(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	b := newBundle(t, connected)
	require.Equal(t, http.StatusCreated, b.do(http.MethodPost, acmeUsers, `{"username":"ada","enabled":true}`).status)
	require.Equal(t, http.StatusOK, b.do(http.MethodPost, acmeUsers+"/ada/disable", "").status)
	live, _ := kc.Realm("acme").UserByName("ada")
	require.False(t, live.Enabled)
	b.do(http.MethodPost, acmeUsers+"/nobody/disable", "").problem(http.StatusNotFound, adapter.CodeUserNotFound)
}

func TestCommandsWhenKeycloakRefuses(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	b := newBundle(t, connected)
	var out outcome
	b.do(http.MethodPost, acmeUsers, `{"username":"ada","enabled":true}`).into(&out)
	b.do(http.MethodPost, acmeUsers, `{"username":"ada"}`).problem(http.StatusConflict, adapter.CodeKeycloakConflict)

	for name, c := range map[string]struct {
		fault  keycloaktest.Fault
		status int
		code   adapter.Code
	}{
		"400 is 422":            {keycloaktest.Fault{Status: 400, Body: `{"errorMessage":"bad"}`}, 422, adapter.CodeKeycloakInvalid},
		"403 is 502":            {keycloaktest.Fault{Status: 403}, 502, adapter.CodeKeycloakForbidden},
		"404 is 404":            {keycloaktest.Fault{Status: 404, Body: "<html>"}, 404, adapter.CodeKeycloakNotFound},
		"409 is 409":            {keycloaktest.Fault{Status: 409, Body: `{"errorMessage":"taken"}`}, 409, adapter.CodeKeycloakConflict},
		"503 to the end is 503": {keycloaktest.Fault{Status: 503}, 503, adapter.CodeKeycloakUnavailable},
		"a redirect is 502":     {keycloaktest.Fault{Status: 302, Header: http.Header{"Location": {"/login"}}}, 502, adapter.CodeKeycloakRejected},
	} {
		c.fault.Method, c.fault.Pattern = http.MethodPut, "/admin/realms/acme/users/*"
		remove := kc.Inject(c.fault)
		p := b.do(http.MethodPatch, acmeUsers+"/"+out.UserID, `{"first_name":"A"}`).problem(c.status, c.code)
		remove()
		require.NotNil(t, p.CallID, name)
		require.NotNil(t, p.CorrelationID, name)
		require.NotEmpty(t, p.Try, name)
	}

	remove := kc.Inject(keycloaktest.Fault{Method: http.MethodPut, Pattern: "/admin/realms/acme/users/*", Status: 500})
	unknown := b.do(http.MethodPatch, acmeUsers+"/"+out.UserID, `{"first_name":"A"}`)
	remove()
	require.Equal(t, http.StatusAccepted, unknown.status)
	var o outcome
	unknown.into(&o)
	require.Equal(t, adapter.CallUnknown, o.Status)
	require.Equal(t, adapter.CodeOutcomeUnknown, o.Code)
	require.Equal(t, "/api/v1/calls/"+o.CallID.String(), unknown.header.Get("Location"))
	require.Equal(t, "unknown", b.get(unknown.header.Get("Location")).object()["status"])
}

func TestCommandsWithoutKeycloak(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := b.do(http.MethodPost, acmeUsers, `{"username":"ada"}`).problem(http.StatusNotImplemented, adapter.CodeKeycloakNotConfigured)
	require.Contains(t, p.Try, "KEYTRAIL_KEYCLOAK_URL")
	b.do(http.MethodPost, "/api/v1/realms/acme/reconciliations", "").problem(http.StatusNotImplemented, adapter.CodeKeycloakNotConfigured)
}

// A command that is still under way answers 202 with its call, and goes on, also when
// its caller has gone away.
func TestASlowCommandIsAnsweredAndGoesOn(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	b := newBundle(t, connected, func(c *Config) { c.CommandWait = time.Millisecond })
	held := kc.HoldRequest(http.MethodPost, "/admin/realms/acme/users")
	t.Cleanup(held.Release)
	got := b.do(http.MethodPost, acmeUsers, `{"username":"ada"}`)
	require.Equal(t, http.StatusAccepted, got.status, "%s", got.body)
	var out outcome
	got.into(&out)
	require.Equal(t, adapter.CallRequested, out.Status)
	call := got.header.Get("Location")
	require.Equal(t, "/api/v1/calls/"+out.CallID.String(), call)
	require.Equal(t, "requested", b.get(call).object()["status"])

	held.Release()
	require.NoError(t, b.server.Drain(t.Context()))
	require.Equal(t, "succeeded", b.get(call).object()["status"])
}

func TestACommandOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	kc, connected := withKeycloak(t)
	b := newBundle(t, connected)
	held := kc.HoldRequest(http.MethodPost, "/admin/realms/acme/users")
	t.Cleanup(held.Release)
	ctx, hangUp := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.server.ServeHTTP(httptest.NewRecorder(), newRequest(t, http.MethodPost, acmeUsers, `{"username":"ada"}`).WithContext(ctx))
	}()
	<-held.Arrived()
	hangUp()
	<-done
	held.Release()
	require.NoError(t, b.server.Drain(t.Context()))
	_, ok := kc.Realm("acme").UserByName("ada")
	require.True(t, ok)
	require.NotContains(t, b.logs.String(), `"level":"ERROR"`, "nobody failed")
	b.do(http.MethodPost, acmeUsers, `{"username":"eve"}`).problem(http.StatusServiceUnavailable, adapter.CodeInterrupted)
}

func TestCommandBodiesAreStrict(t *testing.T) {
	t.Parallel()
	_, connected := withKeycloak(t)
	b := newBundle(t, connected)
	const post, patch = http.MethodPost, http.MethodPatch
	user := acmeUsers + "/5b2f0d0e-0000-4000-8000-000000000001"
	for name, c := range map[string]struct {
		method, path, body string
		fields             []string // at fault, all at once
	}{
		"an unknown field":             {post, acmeUsers, `{"username":"x","e_mail":"y"}`, []string{"e_mail"}},
		"fields in another case":       {post, acmeUsers, `{"Username":"x"}`, []string{"Username"}},
		"no user name":                 {post, acmeUsers, `{"email":"x@example.com"}`, []string{"username"}},
		"nothing at all":               {post, acmeUsers, ``, []string{"username"}},
		"all faults at once":           {post, acmeUsers, `{"username":1,"enabled":"yes","attributes":{"a":"b"},"groups":["staff"],"password":"","zzz":1}`, []string{"attributes", "enabled", "groups", "password", "username", "zzz"}},
		"a field twice":                {post, acmeUsers, `{"username":"x","username":"y"}`, []string{"username"}},
		"a null in a list":             {post, acmeUsers, `{"username":"x","required_actions":[null]}`, []string{"required_actions"}},
		"an attribute of null":         {patch, user, `{"attributes":{"a":null}}`, []string{"attributes"}},
		"a NUL":                        {post, acmeUsers, `{"username":"a\u0000b"}`, []string{"username"}},
		"what cannot be cleared":       {patch, user, `{"username":null,"enabled":null,"email_verified":null,"attributes":null}`, []string{"attributes", "email_verified", "enabled", "username"}},
		"a reason that is no text":     {post, user + "/disable", `{"reason":7}`, []string{"reason"}},
		"a reason without end":         {post, user + "/disable", `{"reason":"` + strings.Repeat("x", maxReason+1) + `"}`, []string{"reason"}},
		"a field where there are none": {post, user + "/disable", `{"force":true}`, []string{"force"}},
		"a parameter":                  {post, user + "/disable?force=true", ``, []string{"force"}},
		"a password on PATCH":          {patch, user, `{"password":"x"}`, []string{"password"}},
	} {
		p := b.do(c.method, c.path, c.body).problem(http.StatusBadRequest, adapter.CodeInvalidRequest)
		var fields []string
		for _, f := range p.Errors {
			fields = append(fields, f.Field)
			require.NotEmpty(t, f.Message)
			require.Contains(t, p.Detail, f.Field)
		}
		require.Equal(t, c.fields, fields, name)
	}
	for name, c := range map[string]struct {
		body, contentType string
		status            int
		code              adapter.Code
	}{
		"no field to change": {`{"reason":"x"}`, "application/json", 400, adapter.CodeInvalidRequest},
		"not JSON":           {`{`, "application/json", 400, adapter.CodeInvalidRequest},
		"two objects":        {`{}{}`, "application/json", 400, adapter.CodeInvalidRequest},
		"an array":           {`[]`, "application/json", 400, adapter.CodeInvalidRequest},
		"not UTF-8":          {"{\"email\":\"\xff\"}", "application/json", 400, adapter.CodeInvalidRequest},
		"too deep":           {nested(101), "application/json", 400, adapter.CodeInvalidRequest},
		"a form":             {`email=x`, "application/x-www-form-urlencoded", 415, codeMediaType},
		"too large":          {sized(maxBody + 1), "application/json", 413, codeTooLarge},
	} {
		t.Log(name)
		b.do(patch, user, c.body, "Content-Type", c.contentType).problem(c.status, c.code)
	}
	require.Zero(t, b.head(), "nothing was begun")
}

func TestPatchTellsAbsentFromCleared(t *testing.T) {
	t.Parallel()
	var asked adapter.Profile
	var ref outbound.UserRef
	b := newBundle(t, func(c *Config) {
		c.Commands = fakeCommands{update: func(_ string, r outbound.UserRef, set adapter.Profile) { ref, asked = r, set }}
	})
	id := "f:5b2f0d0e:ada"
	require.Equal(t, http.StatusOK, b.do(http.MethodPatch, acmeUsers+"/"+id, `{"email":null,"first_name":"","required_actions":null}`).status)
	require.Equal(t, outbound.UserRef{ID: id}, ref, "an id of a federated user is an id")
	require.Equal(t, []string{"email", "first_name", "required_actions"}, asked.Fields())
	_, set := asked.Email.Get()
	require.False(t, set)
	name, set := asked.FirstName.Get()
	require.True(t, set)
	require.Empty(t, name)

	require.Equal(t, http.StatusOK, b.do(http.MethodPatch, acmeUsers+"/a%2Fb%20c", `{"email":"x@example.com"}`).status)
	require.Equal(t, outbound.UserRef{Username: "a/b c"}, ref)
}

// fakeCommands only tell what they were asked.
type fakeCommands struct {
	Commands

	update func(realm string, ref outbound.UserRef, set adapter.Profile)
}

func (c fakeCommands) UpdateUser(_ context.Context, realm string, ref outbound.UserRef, set adapter.Profile) (outbound.Outcome, error) {
	c.update(realm, ref, set)
	return outbound.Outcome{Status: adapter.CallSucceeded}, nil
}

func TestTheTokenIsTheActor(t *testing.T) {
	t.Parallel()
	_, connected := withKeycloak(t)
	b := newBundle(t, connected, func(c *Config) { c.Token = "api-token-canary" })
	var out outcome
	got := b.do(http.MethodPost, acmeUsers, `{"username":"ada"}`, "Authorization", "Bearer api-token-canary", "User-Agent", strings.Repeat("é\x01x", 200))
	require.Equal(t, http.StatusCreated, got.status, "%s", got.body)
	got.into(&out)
	events, err := b.codec.ReadStream(t.Context(), b.store, adapter.CallStream(out.CallID))
	require.NoError(t, err)
	require.Equal(t, &adapter.Actor{Type: adapter.ActorToken, ID: "api-token", Client: strings.Repeat("x", maxClient), IP: "127.0.0.1"}, events[0].Meta.Actor)
	require.NotContains(t, fmt.Sprint(events), "canary")
}
