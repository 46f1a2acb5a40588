// Package outbound changes users in Keycloak on somebody's behalf and records each
// Admin API call as events: the intent before the first byte goes out, every wire
// attempt, and the outcome.
package outbound

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// Keycloak is what commands need of the Admin API. Its transport must be a
// *Transport, or no attempt is recorded.
type Keycloak interface {
	User(ctx context.Context, realm, id string) (keycloak.User, error)
	UserByUsername(ctx context.Context, realm, username string) (user keycloak.User, ok bool, err error)
	CreateUser(ctx context.Context, realm string, body admin.UserBody) (id string, err error)
	UpdateUser(ctx context.Context, realm, id string, body admin.UserBody) error
	DeleteUser(ctx context.Context, realm, id string) error
}

// Store is what commands need of the event store.
type Store interface {
	eventstore.Appender
	eventstore.Reader
}

// Commands changes users. It is safe for concurrent use.
//
// Who acts, why, and in which story is taken from the context (adapter.WithCall).
// Every command returns an Outcome once its intent is durable, also beside an
// error, so that the trace can be found. Errors are *adapter.Error.
type Commands struct {
	Keycloak Keycloak
	Store    Store
	Codec    *adapter.Codec
	Clock    func() time.Time
	Logger   *slog.Logger
	// Observe is told of each finished call. It may be nil.
	Observe func(command string, status adapter.CallStatus)
}

// Outcome is how a command ended.
type Outcome struct {
	CallID        uuid.UUID          `json:"call_id"`
	CorrelationID uuid.UUID          `json:"correlation_id"`
	Status        adapter.CallStatus `json:"status"`
	Realm         string             `json:"realm"`
	UserID        string             `json:"user_id,omitempty"`
}

// UserRef names the user that a command is about: by id, or by exact user name where
// the id is not known.
type UserRef struct {
	ID       string
	Username string
}

func (r UserRef) String() string {
	if r.ID != "" {
		return r.ID
	}
	return r.Username
}

// NewUser is a user to be created.
type NewUser struct {
	adapter.Profile
	// Password is set as it is and never recorded.
	Password string
	// Groups are full paths.
	Groups []string
}

const (
	usersTemplate = "/admin/realms/{realm}/users"
	userTemplate  = "/admin/realms/{realm}/users/{id}"
)

// CreateUser creates a user.
func (c *Commands) CreateUser(ctx context.Context, realm string, u NewUser) (Outcome, error) {
	name, _ := u.Username.Get()
	body := bodyOf(u.Profile)
	body.Groups = u.Groups
	rec, err := c.begin(ctx, intent{
		command: "user.create", realm: realm, ref: UserRef{Username: name},
		method: http.MethodPost, template: usersTemplate, body: &body,
	})
	if err != nil {
		return Outcome{}, err
	}
	if u.Password != "" {
		body.Credentials = []admin.Credential{{Type: "password", Value: u.Password}}
	}
	id, err := c.Keycloak.CreateUser(withRecording(ctx, rec), realm, body)
	set := u.Profile
	if !set.Enabled.Present() {
		set.Enabled = adapter.Set(false)
	}
	return c.finish(ctx, rec, id, err, &adapter.UserApiCreated{
		UserChange: adapter.UserChange{Set: set, Inferred: inferredBy(set), Via: "command"}, Groups: u.Groups,
	})
}

// UpdateUser changes profile fields. Attributes that are given are merged with those
// that the user has; an empty list removes one.
func (c *Commands) UpdateUser(ctx context.Context, realm string, ref UserRef, set adapter.Profile) (Outcome, error) {
	asked := bodyOf(set)
	return c.change(ctx, intent{command: "user.update", realm: realm, ref: ref, method: http.MethodPut, body: &asked}, func(live keycloak.User) (*admin.UserBody, adapter.UserPayload, error) {
		body := bodyOf(set)
		if patch, ok := set.Attributes.Get(); ok {
			// With attributes, Keycloak clears what else is left out (measured on 26.1.4 and
			// 26.7.3): the rest goes as it was read.
			body = withAttributes(live, body, patch)
			set.Attributes = adapter.Set(body.Attributes)
		}
		return &body, &adapter.UserApiUpdated{UserChange: adapter.UserChange{Set: set, Inferred: inferredBy(set), Via: "command"}}, nil
	})
}

// EnableUser enables a user. One that is enabled is refused with already_enabled.
func (c *Commands) EnableUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	return c.setEnabled(ctx, realm, ref, true)
}

// DisableUser disables a user. One that is disabled is refused with already_disabled.
func (c *Commands) DisableUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	return c.setEnabled(ctx, realm, ref, false)
}

func (c *Commands) setEnabled(ctx context.Context, realm string, ref UserRef, enabled bool) (Outcome, error) {
	command, code, word := "user.disable", adapter.CodeAlreadyDisabled, "disabled"
	if enabled {
		command, code, word = "user.enable", adapter.CodeAlreadyEnabled, "enabled"
	}
	asked := admin.UserBody{Enabled: &enabled}
	return c.change(ctx, intent{command: command, realm: realm, ref: ref, method: http.MethodPut, body: &asked}, func(live keycloak.User) (*admin.UserBody, adapter.UserPayload, error) {
		if live.Enabled != nil && *live.Enabled == enabled {
			return nil, nil, adapter.Errorf(code, "user %s is %s already: nothing was written", live.Username, word)
		}
		change := adapter.UserChange{Set: adapter.Profile{Enabled: adapter.Set(enabled)}, Via: "command"}
		body := admin.UserBody{Enabled: &enabled}
		if enabled {
			return &body, &adapter.UserApiEnabled{UserChange: change}, nil
		}
		return &body, &adapter.UserApiDisabled{UserChange: change}, nil
	})
}

// DeleteUser deletes a user.
func (c *Commands) DeleteUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	return c.change(ctx, intent{command: "user.delete", realm: realm, ref: ref, method: http.MethodDelete}, func(keycloak.User) (*admin.UserBody, adapter.UserPayload, error) {
		return nil, &adapter.UserApiDeleted{Via: "command"}, nil
	})
}

// decision judges a command's rule on the user as it is now. It returns the body to
// send (nil for none) and the event that records the success, or the refusal.
type decision func(live keycloak.User) (*admin.UserBody, adapter.UserPayload, error)

// change is the way of every command on an existing user: intent, fresh read, rule,
// write, outcome.
func (c *Commands) change(ctx context.Context, in intent, decide decision) (Outcome, error) {
	in.template = userTemplate
	rec, err := c.begin(ctx, in)
	if err != nil {
		return Outcome{}, err
	}
	live, err := c.readUser(withRecording(ctx, rec), rec, in.realm, in.ref)
	if err != nil {
		return c.stopBefore(ctx, rec, live.ID, err)
	}
	body, success, err := decide(live)
	if err != nil {
		return c.stopBefore(ctx, rec, live.ID, err)
	}
	call := withRecording(ctx, rec)
	if body == nil {
		err = c.Keycloak.DeleteUser(call, in.realm, live.ID)
	} else {
		body.Self = keycloak.Stamp(rec.callID.String())
		err = c.Keycloak.UpdateUser(call, in.realm, live.ID, *body)
	}
	return c.finish(ctx, rec, live.ID, err, success)
}

// intent is what a call is about to do. The body is what was asked for; what goes out
// may hold more, read freshly.
type intent struct {
	command  string
	realm    string
	ref      UserRef
	method   string
	template string
	body     *admin.UserBody
}

// begin makes the intent durable. Nothing has gone out when it fails.
func (c *Commands) begin(ctx context.Context, in intent) (*recording, error) {
	if c.Keycloak == nil {
		return nil, adapter.Errorf(adapter.CodeKeycloakNotConfigured, "no Keycloak is configured, so nothing can be changed there").
			WithTry("set KEYTRAIL_KEYCLOAK_URL, KEYTRAIL_KEYCLOAK_CLIENT_ID and KEYTRAIL_KEYCLOAK_CLIENT_SECRET")
	}
	who, _ := adapter.CallFrom(ctx)
	if who.CorrelationID == uuid.Nil {
		who.CorrelationID = eventstore.NewID()
	}
	callID := eventstore.NewID()
	rec := &recording{
		commands: c, command: in.command, realm: in.realm, method: in.method,
		callID: callID, stream: adapter.CallStream(callID), started: c.Clock(),
	}
	rec.meta = adapter.Metadata{
		CorrelationID: who.CorrelationID, Reason: who.Reason, Source: who.Source, Traceparent: who.Traceparent, CallID: &callID,
	}
	if who.Actor.Type != "" {
		rec.meta.Actor = &who.Actor
	}
	payload := &adapter.ApiCallRequested{
		CallID: callID, Command: in.command, Realm: in.realm, UserID: in.ref.ID, Username: in.ref.Username,
		Method: in.method, URLTemplate: in.template,
	}
	if in.body != nil {
		in.body.Self = keycloak.Stamp(callID.String())
		body, err := json.Marshal(in.body)
		if err != nil {
			return nil, fmt.Errorf("encoding the body of %s: %w", in.command, err)
		}
		payload.Body = body
	}
	meta := rec.meta
	if who.CausationID != uuid.Nil {
		meta.CausationID = &who.CausationID
	}
	e, err := c.Codec.Encode(ctx, adapter.Draft{Payload: payload, OccurredAt: rec.started, Meta: meta})
	if err != nil {
		return nil, err
	}
	rec.last = e.ID
	if _, err := c.Store.Append(ctx, eventstore.StreamAppend{
		Stream: rec.stream, Expected: eventstore.ExpectNone(), Events: []eventstore.NewEvent{e},
	}); err != nil {
		return nil, &adapter.Error{
			Code: adapter.CodeStoreUnavailable, Err: err,
			Detail:        fmt.Sprintf("%s was not tried: its intent could not be recorded: %v", in.command, err),
			CorrelationID: who.CorrelationID,
		}
	}
	rec.version = 1
	if tell, ok := ctx.Value(requestedKey{}).(func(Outcome)); ok {
		tell(Outcome{
			CallID: callID, CorrelationID: rec.meta.CorrelationID, Status: adapter.CallRequested,
			Realm: in.realm, UserID: in.ref.ID,
		})
	}
	return rec, nil
}

type requestedKey struct{}

// OnRequested returns a context with which a command tells the call's ids as soon as
// its intent is durable, before anything goes out: for whoever does not wait for the
// outcome. The function is called in the command's goroutine and must not block.
func OnRequested(ctx context.Context, tell func(Outcome)) context.Context {
	return context.WithValue(ctx, requestedKey{}, tell)
}

// readUser reads the user freshly, by id and, where only a name is known, by name.
func (c *Commands) readUser(ctx context.Context, rec *recording, realm string, ref UserRef) (keycloak.User, error) {
	rec.mu.Lock()
	rec.reading = true
	rec.mu.Unlock()
	started := c.Clock()

	var live keycloak.User
	var err error
	read := &adapter.ApiCallPreconditionRead{CallID: rec.callID, Method: http.MethodGet, URLTemplate: userTemplate}
	if ref.ID != "" {
		live, err = c.Keycloak.User(ctx, realm, ref.ID)
	} else {
		read.URLTemplate = usersTemplate
		var found bool
		live, found, err = c.Keycloak.UserByUsername(ctx, realm, ref.Username)
		if err == nil && !found {
			err = adapter.Errorf(adapter.CodeUserNotFound, "there is no user %s in realm %s", ref.Username, realm)
		}
	}

	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.reading = false
	read.Attempts = rec.reads
	switch {
	case err == nil:
		found := true
		read.Found, read.UserID, read.Enabled = &found, live.ID, live.Enabled
	case absent(err):
		found := false
		read.Found = &found
	}
	rec.add(read, started)
	return live, err
}

// absent reports that a read proved that the user does not exist.
func absent(err error) bool {
	var answer *keycloak.APIError
	return adapter.CodeOf(err) == adapter.CodeUserNotFound || (errors.As(err, &answer) && answer.UserNotFound())
}

// stopBefore ends a call before its write: skipped where a rule refused it, failed
// where the state could not be read.
func (c *Commands) stopBefore(ctx context.Context, rec *recording, userID string, cause error) (Outcome, error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var refusal *adapter.Error
	status := adapter.CallFailed
	var why adapter.CallError
	switch {
	case errors.As(cause, &refusal):
		status, why = adapter.CallSkipped, adapter.CallError{Code: refusal.Code, Message: refusal.Detail}
	case absent(cause):
		status, why = adapter.CallSkipped, Explain(cause)
	default:
		why = Explain(cause)
		why.Message = "reading the user before the change: " + why.Message
	}
	now := c.Clock()
	if status == adapter.CallSkipped {
		rec.add(&adapter.ApiCallSkipped{CallID: rec.callID, CallError: why}, now)
	} else {
		rec.add(&adapter.ApiCallFailed{CallID: rec.callID, CallError: why, DurationMS: milliseconds(now.Sub(rec.started))}, now)
	}
	out := Outcome{CallID: rec.callID, CorrelationID: rec.meta.CorrelationID, Status: status, Realm: rec.realm, UserID: userID}
	if err := c.commit(ctx, rec, nil); err != nil {
		return out, err
	}
	c.observe(rec, status)
	return out, c.failure(out, why, cause)
}

// finish judges a write, and commits its last attempt, its outcome and, where it
// succeeded, the user's event, together.
func (c *Commands) finish(ctx context.Context, rec *recording, userID string, cause error, success adapter.UserPayload) (Outcome, error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for {
		pending, last := slices.Clone(rec.pending), rec.last
		out, err := c.conclude(ctx, rec, userID, cause, success)
		if !errors.Is(err, errProved) {
			return out, err
		}
		// The verdict that nobody knows came too late: judge again.
		rec.pending, rec.last = pending, last
	}
}

func (c *Commands) conclude(ctx context.Context, rec *recording, userID string, cause error, success adapter.UserPayload) (Outcome, error) {
	v := judge(rec.method, rec.attempts, cause)
	if v.status == adapter.CallUnknown {
		// The echo may have come before the answer was given up.
		if err := rec.catchUp(ctx); err == nil && rec.proved {
			v = verdict{status: adapter.CallSucceeded, code: v.code, note: "the answer was lost; Keycloak's own event proves that it was done"}
			userID = cmp.Or(userID, rec.provedUser)
		}
	}
	rec.unsure = v.status == adapter.CallUnknown
	now := c.Clock()
	took := milliseconds(now.Sub(rec.started))
	out := Outcome{CallID: rec.callID, CorrelationID: rec.meta.CorrelationID, Status: v.status, Realm: rec.realm, UserID: userID}
	var others []eventstore.StreamAppend
	switch v.status {
	case adapter.CallFailed:
		rec.add(&adapter.ApiCallFailed{CallID: rec.callID, StatusCode: v.code, Attempts: len(rec.attempts), DurationMS: took, CallError: v.why}, now)
	case adapter.CallUnknown:
		rec.add(&adapter.ApiCallOutcomeUnknown{CallID: rec.callID, StatusCode: v.code, Attempts: len(rec.attempts), DurationMS: took, CallError: v.why}, now)
	default:
		done := &adapter.ApiCallSucceeded{CallID: rec.callID, StatusCode: v.code, Attempts: len(rec.attempts), DurationMS: took, Note: v.note}
		if rec.method == http.MethodPost {
			done.UserID = userID
		}
		if rec.proved && cause != nil {
			done.ResolvedBy = "echo"
		}
		succeeded := rec.add(done, now)
		if userID != "" {
			onUser, err := c.userEvent(ctx, rec, userID, success, succeeded)
			if err != nil {
				return out, err
			}
			others = append(others, onUser)
		}
	}
	if err := c.commit(ctx, rec, others); err != nil {
		return out, err
	}
	c.observe(rec, v.status)
	if v.status == adapter.CallSucceeded {
		return out, nil
	}
	return out, c.failure(out, v.why, cause)
}

// userEvent makes the user event of a call that succeeded. It occurred when the last
// attempt went out: what others change afterwards comes after it.
func (c *Commands) userEvent(ctx context.Context, rec *recording, userID string, success adapter.UserPayload, cause uuid.UUID) (eventstore.StreamAppend, error) {
	ref := adapter.UserRef{Realm: rec.realm, UserID: userID}
	switch p := success.(type) {
	case *adapter.UserApiCreated:
		p.UserRef = ref
	case *adapter.UserApiUpdated:
		p.UserRef = ref
	case *adapter.UserApiEnabled:
		p.UserRef = ref
	case *adapter.UserApiDisabled:
		p.UserRef = ref
	case *adapter.UserApiDeleted:
		p.UserRef = ref
	}
	meta := rec.meta
	meta.CausationID = &cause
	e, err := c.Codec.Encode(ctx, adapter.Draft{Payload: success, OccurredAt: rec.attempts[len(rec.attempts)-1].StartedAt, Meta: meta})
	if err != nil {
		return eventstore.StreamAppend{}, err
	}
	return eventstore.StreamAppend{Stream: adapter.UserStream(rec.realm, userID), Events: []eventstore.NewEvent{e}}, nil
}

// commitTimeout bounds how long an outcome waits for the store. The write is done by
// then; a caller who has gone away is no reason to lose its outcome.
const commitTimeout = 30 * time.Second

func (c *Commands) commit(ctx context.Context, rec *recording, others []eventstore.StreamAppend) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	wait := 50 * time.Millisecond
	for {
		err := rec.flush(ctx, others)
		if errors.Is(err, errProved) {
			return err
		}
		if err == nil || !errors.Is(err, eventstore.ErrUnavailable) {
			return c.lost(rec, err)
		}
		select {
		case <-ctx.Done():
			return c.lost(rec, err)
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		}
	}
}

// lost says that a call's outcome could not be recorded. The call stays open, and is
// shown as such.
func (c *Commands) lost(rec *recording, err error) error {
	if err == nil {
		return nil
	}
	c.Logger.Error("outcome not recorded", "call_id", rec.callID, "correlation_id", rec.meta.CorrelationID, "error", err)
	return &adapter.Error{
		Code: adapter.CodeStoreUnavailable, Err: err, CallID: rec.callID, CorrelationID: rec.meta.CorrelationID,
		Detail: fmt.Sprintf("the call to Keycloak is over, but its outcome could not be recorded: %v", err),
		Try:    "bring the event store back, then compare the user with keytrail reconcile",
	}
}

func (c *Commands) failure(out Outcome, why adapter.CallError, cause error) error {
	e := &adapter.Error{Code: why.Code, Detail: why.Message, CorrelationID: out.CorrelationID, CallID: out.CallID, Err: cause}
	if why.Keycloak != "" {
		e.Detail += fmt.Sprintf(" (Keycloak: %s)", why.Keycloak)
	}
	var refusal *adapter.Error
	if errors.As(cause, &refusal) {
		e.Try = refusal.Try
	}
	if e.Try == "" {
		e.Try = "keytrail trace " + out.CallID.String()
	}
	return e
}

func (c *Commands) observe(rec *recording, status adapter.CallStatus) {
	if c.Observe != nil {
		c.Observe(rec.command, status)
	}
}
