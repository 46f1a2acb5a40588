package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// idempotencyHeader names a request: sent again with the same key, it is answered with
// what became of the first.
const idempotencyHeader = "Idempotency-Key"

// maxKey bounds an idempotency key, in bytes.
const maxKey = 255

// maxReason bounds a reason, in bytes.
const maxReason = 2000

// command is what every command's body may say.
type command struct {
	reason string
	// key is the idempotency key, "" for none; digest tells requests with one apart.
	key, digest string
}

// context returns ctx with the reason in its call context, and the idempotency key.
func (c command) context(ctx context.Context) context.Context {
	call, _ := adapter.CallFrom(ctx)
	call.Reason = c.reason
	ctx = adapter.WithCall(ctx, call)
	if c.key != "" {
		ctx = outbound.WithIdempotencyKey(ctx, c.key, c.digest)
	}
	return ctx
}

// digestOf tells requests apart: by method, path, and the members of the body in
// whatever order and spacing. A password is left out, since the digest is recorded, and
// would tell whether somebody has guessed it: outbound compares it under a secret.
func digestOf(r *http.Request, members map[string]json.RawMessage) string {
	told := maps.Clone(members)
	delete(told, fieldPassword)
	body, err := json.Marshal(told) // sorted and without spaces
	if err != nil {
		body = nil // members were read from JSON: they always encode
	}
	sum := sha256.Sum256([]byte(r.Method + "\x00" + r.URL.EscapedPath() + "\x00" + string(body)))
	return hex.EncodeToString(sum[:])
}

// validKey reports a key of visible ASCII characters.
func validKey(key string) bool {
	return len(key) <= maxKey && !strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
}

// field reads one field of a body. It returns what is wrong with the value, "" for
// nothing.
type field func(raw json.RawMessage) string

// readCommand reads a command's body: a JSON object with the fields given, each
// optional, and reason. An empty body is an empty object. All faults are reported at
// once.
func readCommand(w http.ResponseWriter, r *http.Request, fields map[string]field) (command, error) {
	var c command
	if keys := r.Header.Values(idempotencyHeader); len(keys) > 0 {
		if len(keys) > 1 || keys[0] == "" || !validKey(keys[0]) {
			return c, faults{{idempotencyHeader, fmt.Sprintf("must be there once, with 1 to %d visible ASCII characters, such as a UUID", maxKey)}}.err()
		}
		c.key = keys[0]
	}
	q := queryOf(r)
	if err := q.err(); err != nil {
		return c, err
	}
	// The type is judged before the body, so that a wrong one costs no transfer.
	if r.ContentLength > 0 {
		if err := checkJSON(r); err != nil {
			return c, err
		}
	}
	body, err := readBody(w, r)
	if err != nil {
		return c, err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		c.digest = digestOf(r, nil)
		return c, nil
	}
	if err := checkJSON(r); err != nil {
		return c, err
	}
	members, err := decodeObject(body)
	if err != nil {
		return c, err
	}
	c.digest = digestOf(r, members)
	known := maps.Clone(fields)
	if known == nil {
		known = map[string]field{}
	}
	known["reason"] = textField(func(text string) string {
		if len(text) > maxReason {
			return fmt.Sprintf("is longer than %d bytes", maxReason)
		}
		c.reason = text
		return ""
	})
	var f faults
	for _, name := range slices.Sorted(maps.Keys(members)) {
		read, ok := known[name]
		if !ok {
			f.add(name, "is not a field here; there are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			continue
		}
		if fault := read(members[name]); fault != "" {
			f.add(name, fault)
		}
	}
	return c, f.err()
}

// decodeObject reads a JSON object whose members each stand there once. Names are
// matched exactly.
func decodeObject(body []byte) (map[string]json.RawMessage, error) {
	refuse := func(why string) error {
		return adapter.Errorf(adapter.CodeInvalidRequest, "the body %s", why).WithTry(`send a JSON object, such as {"reason":"why"}`)
	}
	if webhook.TooDeep(body) {
		return nil, refuse(fmt.Sprintf("is nested deeper than %d", webhook.MaxDepth))
	}
	if !utf8.Valid(body) {
		return nil, refuse("is not valid UTF-8")
	}
	if !json.Valid(body) {
		return nil, refuse("is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if opening, err := d.Token(); err != nil || opening != json.Delim('{') {
		return nil, refuse("is not a JSON object")
	}
	members := map[string]json.RawMessage{}
	var f faults
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, refuse("is not JSON")
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, refuse("is not JSON")
		}
		if _, twice := members[name]; twice {
			f.add(name, "is there more than once")
		}
		members[name] = value
	}
	return members, f.err()
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(raw, []byte("null")) }

// textField reads a text; null is as if it were left out.
func textField(take func(string) string) field {
	return func(raw json.RawMessage) string {
		if isNull(raw) {
			return ""
		}
		var text string
		if json.Unmarshal(raw, &text) != nil {
			return "must be a text"
		}
		if strings.ContainsRune(text, 0) {
			return "must not hold a NUL"
		}
		return take(text)
	}
}

// outcome is the answer to a command.
type outcome struct {
	CorrelationID uuid.UUID          `json:"correlation_id"`
	CallID        uuid.UUID          `json:"call_id"`
	Status        adapter.CallStatus `json:"status"`
	Realm         string             `json:"realm"`
	UserID        string             `json:"user_id"`
	// Steps are the further calls of the same business action.
	Steps []outbound.Step `json:"steps,omitempty"`
	// Repeated is true where an idempotency key was sent before: this became of the
	// first request, and nothing was done now.
	Repeated bool `json:"repeated,omitempty"`
	// Code, Detail and Try say what is known where the outcome is not.
	Code   adapter.Code `json:"code,omitempty"`
	Detail string       `json:"detail,omitempty"`
	Try    string       `json:"try,omitempty"`
}

func outcomeOf(o outbound.Outcome) outcome {
	return outcome{CorrelationID: o.CorrelationID, CallID: o.CallID, Status: o.Status, Realm: o.Realm, UserID: o.UserID, Steps: o.Steps, Repeated: o.Repeated}
}

// commandError is the failure of a command of several calls, with what was done, or one
// that is told again.
type commandError struct {
	err     error
	outcome outbound.Outcome
}

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

// perform runs a command and answers with its outcome: done where it succeeded, 202
// where it is still open after Config.CommandWait or its outcome is unknown, a problem
// where it failed. The command goes on whatever becomes of the request.
func (s *Server) perform(w http.ResponseWriter, r *http.Request, c command, done int, do func(context.Context) (outbound.Outcome, error)) error {
	type result struct {
		outcome outbound.Outcome
		err     error
	}
	requested, finished := make(chan outbound.Outcome, 1), make(chan result, 1)
	ctx := outbound.OnRequested(c.context(r.Context()), func(o outbound.Outcome) {
		select {
		case requested <- o:
		default: // a command of several calls is known by its first
		}
	})
	err := s.work.start(ctx, func(ctx context.Context) {
		o, err := do(ctx)
		finished <- result{o, err}
	})
	if err != nil {
		return err
	}
	timer := time.NewTimer(s.CommandWait)
	defer timer.Stop()
	// Until the time is up there is no answer but the outcome; afterwards the first of
	// the two will do, since without a durable intent there is no call to name.
	var open chan outbound.Outcome
	for {
		select {
		case <-timer.C:
			open = requested
		case o := <-open:
			return s.answerOpen(w, outcomeOf(o))
		case <-r.Context().Done():
			return adapter.Errorf(adapter.CodeInterrupted, "the request ended before the command did, which goes on: %w", r.Context().Err()).
				WithTry("look for the command under GET %s/calls", apiRoot)
		case res := <-finished:
			if adapter.CodeOf(res.err) == adapter.CodeOutcomeUnknown {
				o, e := outcomeOf(res.outcome), asError(res.err)
				o.Code, o.Detail, o.Try = e.Code, e.Detail, e.Try
				return s.answerOpen(w, o)
			}
			if res.err != nil && (len(res.outcome.Steps) > 0 || res.outcome.Repeated) {
				return &commandError{err: res.err, outcome: res.outcome}
			}
			if res.err != nil {
				return res.err
			}
			if res.outcome.Status.Open() {
				return s.answerOpen(w, outcomeOf(res.outcome)) // the first request with this key is under way
			}
			if done == http.StatusCreated {
				w.Header().Set("Location", fmt.Sprintf("%s/realms/%s/users/%s", apiRoot, url.PathEscape(res.outcome.Realm), url.PathEscape(res.outcome.UserID)))
			}
			return answer(w, done, outcomeOf(res.outcome))
		}
	}
}

func (s *Server) answerOpen(w http.ResponseWriter, o outcome) error {
	w.Header().Set("Location", apiRoot+"/calls/"+o.CallID.String())
	return answer(w, http.StatusAccepted, o)
}
