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
	ResetPassword(ctx context.Context, realm, id string, password admin.Credential) error
	SendVerifyEmail(ctx context.Context, realm, id string) error
	LogoutUser(ctx context.Context, realm, id string) error
	LoginFailures(ctx context.Context, realm, id string) (keycloak.LoginFailures, error)
	ClearLoginFailures(ctx context.Context, realm, id string) error

	RealmRole(ctx context.Context, realm, name string) (keycloak.Role, error)
	ClientRole(ctx context.Context, realm, client, name string) (keycloak.Role, error)
	ClientByClientID(ctx context.Context, realm, clientID string) (client keycloak.Client, ok bool, err error)
	UserRealmRoles(ctx context.Context, realm, id string) ([]keycloak.Role, error)
	UserClientRoles(ctx context.Context, realm, id, client string) ([]keycloak.Role, error)
	AddRoles(ctx context.Context, realm, id, client string, roles []admin.RoleBody) error
	RemoveRoles(ctx context.Context, realm, id, client string, roles []admin.RoleBody) error

	UserRoles(ctx context.Context, realm, id string) (keycloak.RoleMappings, error)
	UserOrganizations(ctx context.Context, realm, id string) ([]keycloak.Organization, error)
	Clients(ctx context.Context, realm string, first, limit int) ([]keycloak.Client, error)

	Group(ctx context.Context, realm, group string) (keycloak.Group, error)
	Groups(ctx context.Context, realm, parent string, first, limit int) ([]admin.GroupNode, error)
	UserGroups(ctx context.Context, realm, id string) ([]keycloak.Group, error)
	JoinGroup(ctx context.Context, realm, id, group string) error
	LeaveGroup(ctx context.Context, realm, id, group string) error

	Organization(ctx context.Context, realm, organization string) (keycloak.Organization, error)
	OrganizationMember(ctx context.Context, realm, organization, id string) (member keycloak.Member, ok bool, err error)
	AddOrganizationMember(ctx context.Context, realm, organization, id string) error
	RemoveOrganizationMember(ctx context.Context, realm, organization, id string) error

	// ServiceAccountID is the user id under which Keycloak knows keytrail; empty where
	// that is not known.
	ServiceAccountID() string
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
	// Snapshots shortens the reading of long streams. It may be nil.
	Snapshots eventstore.Snapshotter
	// Secret returns a random secret of the store that is in no event, the same for all
	// processes: repeated requests that carry a password are compared under it. Where it
	// is nil the process has one of its own, and takes such a request of another process,
	// or from before a restart, for a different one.
	Secret func(ctx context.Context) ([]byte, error)
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
	// Steps are the further calls of the same business action, in order.
	Steps []Step `json:"steps,omitempty"`
	// Repeated is true where the same request was made before with the same
	// idempotency key: this is what became of that one, and nothing was done now.
	Repeated bool `json:"repeated,omitempty"`
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

const (
	usersTemplate = "/admin/realms/{realm}/users"
	userTemplate  = "/admin/realms/{realm}/users/{id}"
)

// UpdateUser changes profile fields. Attributes that are given are merged with those
// that the user has; an empty list removes one.
func (c *Commands) UpdateUser(ctx context.Context, realm string, ref UserRef, set adapter.Profile) (Outcome, error) {
	return c.update(ctx, intent{command: "user.update", realm: realm, ref: ref}, bodyOf(set), func(_ context.Context, _ *recording, live keycloak.User) (admin.UserBody, adapter.UserPayload, error) {
		body := bodyOf(set)
		if patch, ok := set.Attributes.Get(); ok {
			// With attributes, Keycloak clears what else is left out (measured on 26.1.4 and
			// 26.7.3): the rest goes as it was read.
			body = withAttributes(live, body, patch)
			set.Attributes = adapter.Set(body.Attributes)
		}
		return body, &adapter.UserApiUpdated{UserChange: adapter.UserChange{Set: set, Inferred: set.Droppable(), Via: viaCommand}}, nil
	})
}

// EnableUser enables a user. One that is enabled is refused with already_enabled.
func (c *Commands) EnableUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	return c.setEnabled(ctx, uuid.Nil, realm, ref, true)
}

// DisableUser disables a user. One that is disabled is refused with already_disabled.
func (c *Commands) DisableUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	return c.setEnabled(ctx, uuid.Nil, realm, ref, false)
}

func (c *Commands) setEnabled(ctx context.Context, callID uuid.UUID, realm string, ref UserRef, enabled bool) (Outcome, error) {
	command, code, word := "user.disable", adapter.CodeAlreadyDisabled, "disabled"
	if enabled {
		command, code, word = commandEnable, adapter.CodeAlreadyEnabled, "enabled"
	}
	body := admin.UserBody{Enabled: &enabled}
	return c.update(ctx, intent{command: command, realm: realm, ref: ref, callID: callID}, body, func(_ context.Context, _ *recording, live keycloak.User) (admin.UserBody, adapter.UserPayload, error) {
		if live.Enabled != nil && *live.Enabled == enabled {
			return body, nil, adapter.Errorf(code, "user %s is %s already: nothing was written", live.Username, word)
		}
		change := adapter.UserChange{Set: adapter.Profile{Enabled: adapter.Set(enabled)}, Via: viaCommand}
		if enabled {
			return body, &adapter.UserApiEnabled{UserChange: change}, nil
		}
		return body, &adapter.UserApiDisabled{UserChange: change}, nil
	})
}

// DeleteUser deletes a user.
func (c *Commands) DeleteUser(ctx context.Context, realm string, ref UserRef) (Outcome, error) {
	in := intent{command: "user.delete", realm: realm, ref: ref, method: http.MethodDelete, template: userTemplate}
	return c.change(ctx, in, func(_ context.Context, _ *recording, live keycloak.User) (write, error) {
		return write{
			send:    func(ctx context.Context) error { return c.Keycloak.DeleteUser(ctx, realm, live.ID) },
			success: &adapter.UserApiDeleted{Via: viaCommand},
		}, nil
	})
}

// viaCommand is how user events say that a change came through a command.
const viaCommand = "command"

// write is what a command does once its rule has been judged: the one request, and the
// event that records its success.
type write struct {
	send    func(ctx context.Context) error
	success adapter.UserPayload
}

// decision judges a command's rule on the user as it is now, with whatever further
// reads it needs, and returns the write, or the refusal.
type decision func(ctx context.Context, rec *recording, live keycloak.User) (write, error)

// update is a change that is a PUT of the user itself, stamped in its body.
func (c *Commands) update(ctx context.Context, in intent, asked admin.UserBody, decide func(context.Context, *recording, keycloak.User) (admin.UserBody, adapter.UserPayload, error)) (Outcome, error) {
	in.method, in.template = http.MethodPut, userTemplate
	in.stamped = func(stamp string) any {
		asked.Self = stamp
		return asked
	}
	return c.change(ctx, in, func(ctx context.Context, rec *recording, live keycloak.User) (write, error) {
		body, success, err := decide(ctx, rec, live)
		body.Self = rec.stamp()
		return write{
			send:    func(ctx context.Context) error { return c.Keycloak.UpdateUser(ctx, in.realm, live.ID, body) },
			success: success,
		}, err
	})
}

// change is the way of every command on an existing user: intent, fresh read, rule,
// write, outcome.
func (c *Commands) change(ctx context.Context, in intent, decide decision) (Outcome, error) {
	rec, err := c.begin(ctx, in)
	if err != nil {
		return notBegun(err)
	}
	live, err := c.readUser(ctx, rec, in.realm, in.ref)
	if err != nil {
		return c.stopBefore(ctx, rec, cmp.Or(live.ID, in.ref.ID), err)
	}
	w, err := decide(ctx, rec, live)
	if err != nil {
		return c.stopBefore(ctx, rec, live.ID, err)
	}
	err = w.send(withRecording(ctx, rec))
	return c.finish(ctx, rec, live.ID, hide(err, in.secret), w.success)
}

// intent is what a call is about to do.
type intent struct {
	command  string
	realm    string
	ref      UserRef
	method   string
	template string
	params   map[string]string
	// The body is what was asked for, without secrets; what goes out may hold more, read
	// freshly. stamped makes one that carries the call's stamp; a call without it is
	// recognised in Keycloak's events by its path.
	stamped func(stamp string) any
	body    any
	// secret is what the request carries and nobody may see.
	secret string
	// plan names the further calls of the same business action.
	plan []string
	// callID is set for one of those.
	callID uuid.UUID
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
	callID, digest, err := c.identify(ctx, in)
	if err != nil {
		return nil, err
	}
	rec := &recording{
		commands: c, command: in.command, realm: in.realm, method: in.method, template: in.template,
		stamped: in.stamped != nil, callID: callID, stream: adapter.CallStream(callID), started: c.Clock(),
	}
	rec.meta = adapter.Metadata{
		CorrelationID: who.CorrelationID, Reason: who.Reason, Source: who.Source, Traceparent: who.Traceparent, CallID: &callID,
	}
	if who.Actor.Type != "" {
		rec.meta.Actor = &who.Actor
	}
	payload := &adapter.ApiCallRequested{
		CallID: callID, Command: in.command, Realm: in.realm, UserID: in.ref.ID, Username: in.ref.Username,
		Method: in.method, URLTemplate: in.template, Params: in.params, Plan: in.plan, RequestDigest: digest,
	}
	if in.stamped != nil {
		in.body = in.stamped(rec.stamp())
	}
	if in.body != nil {
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
		var taken *eventstore.ConflictError
		if digest != "" && errors.As(err, &taken) {
			return nil, c.repeated(ctx, callID, in, digest)
		}
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
func (c *Commands) readUser(ctx context.Context, rec *recording, realm string, ref UserRef) (live keycloak.User, err error) {
	template := userTemplate
	if ref.ID == "" {
		template = usersTemplate
	}
	err = rec.read(ctx, template, func(ctx context.Context, read *adapter.ApiCallPreconditionRead) error {
		var err error
		if ref.ID != "" {
			live, err = c.Keycloak.User(ctx, realm, ref.ID)
		} else {
			var found bool
			live, found, err = c.Keycloak.UserByUsername(ctx, realm, ref.Username)
			if err == nil && !found {
				err = adapter.Errorf(adapter.CodeUserNotFound, "there is no user %s in realm %s", ref.Username, realm)
			}
		}
		if err == nil {
			read.UserID, read.Username, read.Enabled = live.ID, live.Username, live.Enabled
			read.ServiceAccountID = c.Keycloak.ServiceAccountID()
		}
		return err
	})
	return live, err
}

// stopBefore ends a call before its write: skipped where a rule refused it or what it
// is about does not exist, failed where the state could not be read.
func (c *Commands) stopBefore(ctx context.Context, rec *recording, userID string, cause error) (Outcome, error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var refusal *adapter.Error
	why := Explain(cause).CallError
	status := adapter.CallSkipped
	if !errors.As(cause, &refusal) && !absent(why.Code) {
		status = adapter.CallFailed
		why.Message = "reading the state before the change: " + why.Message
	}
	now := c.Clock()
	if status == adapter.CallSkipped {
		rec.add(&adapter.ApiCallSkipped{CallID: rec.callID, CallError: why}, now)
	} else {
		rec.add(&adapter.ApiCallFailed{CallID: rec.callID, CallError: why, DurationMS: milliseconds(now.Sub(rec.started))}, now)
	}
	out := rec.outcome(status, userID)
	if err := c.commit(ctx, rec, nil); err != nil {
		return out, err
	}
	c.observe(rec, status)
	return out, failure(out, why, cause)
}

// finish judges a write, and commits its last attempt, its outcome and, where it
// succeeded, the user's event, together: at the version of the call's stream that the
// verdict was passed on. So the echo of a writer that was taken for dead and the writer
// itself cannot both tell the change (see recordEcho in adapter/interpret).
func (c *Commands) finish(ctx context.Context, rec *recording, userID string, cause error, success adapter.UserPayload) (Outcome, error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for {
		last := rec.last
		out, err := c.conclude(ctx, rec, userID, cause, success)
		if !errors.Is(err, errMoved) {
			return out, err
		}
		// Whoever wrote meanwhile may have known more: judge again.
		rec.retract(last)
	}
}

// conclude adds a verdict, and commits it. The error is errMoved, and nothing is
// recorded, where it was passed on too old a knowledge of the call.
func (c *Commands) conclude(ctx context.Context, rec *recording, userID string, cause error, success adapter.UserPayload) (Outcome, error) {
	if rec.settled {
		// The verdict, and the user event with it, are there. What is missing are attempts.
		if err := c.commitAt(ctx, rec, nil); err != nil {
			return rec.outcome(adapter.CallSucceeded, userID), err
		}
		c.observe(rec, adapter.CallSucceeded)
		return rec.outcome(adapter.CallSucceeded, cmp.Or(userID, rec.provedUser)), nil
	}
	v := judge(rec, cause)
	resolvedBy := ""
	// Whoever has sent nothing knows better than an echo.
	if rec.proved && rec.sent() {
		userID = cmp.Or(userID, rec.provedUser)
		// As for an echo that comes later: a refusal is taken back only for a stamp.
		if v.status == adapter.CallUnknown || (v.status == adapter.CallFailed && rec.provedByStamp) {
			v = verdict{status: adapter.CallSucceeded, code: v.code, note: "the answer was lost; Keycloak's own event proves that it was done"}
			resolvedBy = "echo"
		}
	}
	now := c.Clock()
	took := milliseconds(now.Sub(rec.started))
	out := rec.outcome(v.status, userID)
	var others []eventstore.StreamAppend
	switch v.status {
	case adapter.CallFailed:
		rec.add(&adapter.ApiCallFailed{CallID: rec.callID, StatusCode: v.code, Attempts: len(rec.attempts), DurationMS: took, CallError: v.why}, now)
	case adapter.CallUnknown:
		rec.add(&adapter.ApiCallOutcomeUnknown{CallID: rec.callID, StatusCode: v.code, Attempts: len(rec.attempts), DurationMS: took, CallError: v.why}, now)
	default:
		done := &adapter.ApiCallSucceeded{
			CallID: rec.callID, StatusCode: v.code, Attempts: len(rec.attempts), DurationMS: took, Note: v.note, ResolvedBy: resolvedBy,
		}
		if rec.template == usersTemplate {
			done.UserID = userID
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
	if err := c.commitAt(ctx, rec, others); err != nil {
		return out, err
	}
	c.observe(rec, v.status)
	if v.status == adapter.CallSucceeded {
		return out, nil
	}
	return out, failure(out, v.why, cause)
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
	at := rec.started
	if n := len(rec.attempts); n > 0 {
		at = rec.attempts[n-1].StartedAt
	}
	e, err := c.Codec.Encode(ctx, adapter.Draft{Payload: success, OccurredAt: at, Meta: meta})
	if err != nil {
		return eventstore.StreamAppend{}, err
	}
	return eventstore.StreamAppend{Stream: adapter.UserStream(rec.realm, userID), Events: []eventstore.NewEvent{e}}, nil
}

// commitTimeout bounds how long an outcome waits for the store. The write is done by
// then; a caller who has gone away is no reason to lose its outcome.
const commitTimeout = 30 * time.Second

// commit commits what is pending whatever others have written to the call's stream.
func (c *Commands) commit(ctx context.Context, rec *recording, others []eventstore.StreamAppend) error {
	for {
		if err := c.commitAt(ctx, rec, others); !errors.Is(err, errMoved) {
			return err
		}
	}
}

// commitAt commits what is pending; the error is errMoved where others have written to
// the call's stream.
func (c *Commands) commitAt(ctx context.Context, rec *recording, others []eventstore.StreamAppend) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	wait := 50 * time.Millisecond
	for {
		err := rec.flush(ctx, others)
		if errors.Is(err, errMoved) {
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
		Try: fmt.Sprintf("bring the event store back: Keycloak's own event of the call settles it, some minutes later; keytrail trace %s shows whether it did. "+
			"Where admin events are off, compare the user with keytrail reconcile", rec.callID),
	}
}

func failure(out Outcome, why adapter.CallError, cause error) error {
	e := &adapter.Error{Code: why.Code, Detail: detailOf(why), CorrelationID: out.CorrelationID, CallID: out.CallID, Err: cause}
	var refusal *adapter.Error
	if errors.As(cause, &refusal) {
		e.Try = refusal.Try
	}
	if e.Try == "" {
		e.Try = fmt.Sprintf("%s; keytrail trace %s tells the whole story", why.Code.Explain().Next, out.CallID)
	}
	return e
}

// detailOf is a failure as it is told: in our words, and what Keycloak said about it.
func detailOf(why adapter.CallError) string {
	if why.Keycloak == "" {
		return why.Message
	}
	return fmt.Sprintf("%s (Keycloak: %s)", why.Message, why.Keycloak)
}

// refused makes a refusal with the next step that it has of its own, if any: what a
// repetition is told follows from what is recorded, and is to be the same.
func refused(code adapter.Code, userID string, disabled bool, format string, args ...any) *adapter.Error {
	e := adapter.Errorf(code, format, args...)
	switch {
	case code == adapter.CodeNotLocked && disabled:
		return e.WithTry("keytrail user enable %s, since the user is disabled", adapter.ShellWord(userID))
	case code == adapter.CodeManagedMember:
		return e.WithTry("keytrail user delete %s, if that is what is wanted", adapter.ShellWord(userID))
	default:
		return e
	}
}

func (c *Commands) observe(rec *recording, status adapter.CallStatus) {
	if c.Observe != nil {
		c.Observe(rec.command, status)
	}
}
