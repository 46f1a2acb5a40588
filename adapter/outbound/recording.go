package outbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// Transport records every wire attempt of a command's call. It sits inside the
// retries, on top of the transport that puts a request on the wire once, and lets
// requests pass that belong to no call: polls, scans and tokens.
type Transport struct {
	Next http.RoundTripper
	// Clock is when an attempt starts and how long it takes.
	Clock func() time.Time
}

// CloseIdleConnections closes those of the transport below.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.Next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip sends the request. A repetition goes out only once the attempt before it
// is durable; where the store refuses that, nothing is sent.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	rec, ok := req.Context().Value(recordingKey{}).(*recording)
	if !ok || admin.IsTokenRequest(req.Context()) {
		return t.Next.RoundTrip(req)
	}
	if err := rec.beforeAttempt(req.Context()); err != nil {
		return nil, err
	}
	started := t.Clock()
	resp, err := t.Next.RoundTrip(req)
	rec.attempted(attemptOf(started, t.Clock().Sub(started), resp, err))
	return resp, err
}

func attemptOf(started time.Time, took time.Duration, resp *http.Response, err error) adapter.Attempt {
	a := adapter.Attempt{StartedAt: started, DurationMS: milliseconds(took), Sent: true}
	var failure *admin.TransportError
	switch {
	case errors.As(err, &failure):
		a.Sent = failure.Sent
		a.Kind = string(failure.Kind)
		a.Error = transportWords(failure)
	case err != nil:
		a.Kind = "error"
		a.Error = err.Error()
	default:
		a.StatusCode = resp.StatusCode
		if resp.StatusCode >= http.StatusMultipleChoices {
			a.Kind = "http_status"
			a.Error = fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
		}
	}
	return a
}

// transportWords says in one line why no answer came.
func transportWords(f *admin.TransportError) string {
	switch f.Kind {
	case admin.KindRefused:
		return "connection refused"
	case admin.KindTimeout:
		if f.Sent {
			return "no answer in time"
		}
		return "no connection in time"
	case admin.KindReset:
		return "connection lost before the answer came"
	case admin.KindDNS:
		return "host name not found"
	case admin.KindTLS:
		return "TLS handshake failed"
	case admin.KindCanceled:
		return "stopped before the answer came"
	default:
		return string(f.Kind)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

type recordingKey struct{}

func withRecording(ctx context.Context, r *recording) context.Context {
	return context.WithValue(ctx, recordingKey{}, r)
}

// recording is one call under way: the events that it has appended and those that
// are to go out with the next commit.
type recording struct {
	commands *Commands
	command  string
	realm    string
	method   string
	template string
	// stamped is true where the write carries the call's id, so that its echo needs
	// nothing else to be recognised.
	stamped bool
	callID  uuid.UUID
	stream  eventstore.StreamID
	meta    adapter.Metadata
	started time.Time

	mu      sync.Mutex
	version eventstore.Version
	// reading is true while the precondition is read: attempts then belong to it.
	reading bool
	reads   []adapter.Attempt
	// attempts are the write's, and pending the events not yet durable.
	attempts []adapter.Attempt
	pending  []eventstore.NewEvent
	fault    error
	// last is the newest event of the call, the cause of the next.
	last uuid.UUID
	// proved is true once Keycloak's own event has shown that the call was done, to the
	// user with the id provedUser.
	proved        bool
	provedUser    string
	provedByStamp bool
	// settled is true once the call's success and its user event are recorded by somebody
	// else, who took this writer for dead.
	settled bool
	// tried is an append of which it is not known whether it is recorded, nil for none.
	// Its events are pending still.
	tried *trial
}

func (r *recording) beforeAttempt(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The intent is durable already. What was read goes with the next commit, unless the
	// echo is recognised by it: that may come before the answer.
	if r.reading || (len(r.pending) == 0 && r.fault == nil) || (len(r.attempts) == 0 && r.stamped) {
		return nil
	}
	for {
		// Each conflict is an event more on a stream that ends.
		if err := r.flush(ctx, nil); !errors.Is(err, errMoved) {
			return err
		}
	}
}

// read makes one read of the state that the command's rule is judged on, and records
// it with its attempts. What do found is in read.Found where it is no error that there is
// none.
func (r *recording) read(ctx context.Context, template string, do func(context.Context, *adapter.ApiCallPreconditionRead) error) error {
	r.mu.Lock()
	r.reading, r.reads = true, nil
	r.mu.Unlock()
	started := r.commands.Clock()
	read := &adapter.ApiCallPreconditionRead{CallID: r.callID, Method: http.MethodGet, URLTemplate: template}
	err := do(withRecording(ctx, r), read)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading = false
	read.Attempts = r.reads
	if read.Found == nil && (err == nil || absent(Explain(err).Code)) {
		found := err == nil
		read.Found = &found
	}
	r.add(read, started)
	return err
}

// stamp is what the body of the write carries.
func (r *recording) stamp() string { return keycloak.Stamp(r.callID.String()) }

func (r *recording) outcome(status adapter.CallStatus, userID string) Outcome {
	return Outcome{CallID: r.callID, CorrelationID: r.meta.CorrelationID, Status: status, Realm: r.realm, UserID: userID}
}

func (r *recording) attempted(a adapter.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reading {
		a.Attempt = len(r.reads) + 1
		r.reads = append(r.reads, a)
		return
	}
	a.Attempt = len(r.attempts) + 1
	r.attempts = append(r.attempts, a)
	r.add(&adapter.ApiCallAttempted{CallID: r.callID, Attempt: a}, a.StartedAt)
}

// sent reports whether an attempt may have reached Keycloak.
func (r *recording) sent() bool {
	return slices.ContainsFunc(r.attempts, func(a adapter.Attempt) bool { return a.Sent })
}

// add queues an event for the next commit. A fault, which only the seal can cause, is
// the commit's.
func (r *recording) add(p adapter.Payload, at time.Time) uuid.UUID {
	meta := r.meta
	cause := r.last
	meta.CausationID = &cause
	e, err := r.commands.Codec.Encode(context.Background(), adapter.Draft{Payload: p, OccurredAt: at, Meta: meta})
	if err != nil {
		r.fault = errors.Join(r.fault, err)
		return r.last
	}
	r.pending = append(r.pending, e)
	r.last = e.ID
	return e.ID
}

// trial is an append that was sent to the store.
type trial struct {
	appends []eventstore.StreamAppend
	// events is how many of what is pending are in it, and version that of the call's
	// stream before it.
	events  int
	version eventstore.Version
}

// flush commits what is pending, with the appends to other streams that belong to it.
//
// An append whose answer did not come may be recorded nevertheless. It is repeated as
// it was before anything is added, since the store takes only the very same append for
// the same one.
//
// The error is errMoved where somebody else has written to the call's stream meanwhile:
// what they wrote is read, nothing of this append is recorded, and whoever added a
// verdict has to judge again.
func (r *recording) flush(ctx context.Context, others []eventstore.StreamAppend) error {
	if r.fault != nil {
		return fmt.Errorf("recording call %s: %w", r.callID, r.fault)
	}
	if r.tried != nil {
		if err := r.try(ctx); err != nil {
			return err
		}
	}
	if len(r.pending) == 0 {
		return nil
	}
	r.tried = &trial{events: len(r.pending), version: r.version, appends: append([]eventstore.StreamAppend{{
		Stream: r.stream, Expected: eventstore.ExpectVersion(r.version), Events: r.pending,
	}}, others...)}
	return r.try(ctx)
}

// try sends the append that was tried last, for the first time or again.
func (r *recording) try(ctx context.Context) error {
	_, err := r.commands.Store.Append(ctx, r.tried.appends...)
	var conflict *eventstore.ConflictError
	switch {
	case err == nil:
		r.version = max(r.version, r.tried.version+eventstore.Version(r.tried.events))
		r.pending = slices.Clone(r.pending[r.tried.events:])
		r.tried = nil
		return nil
	case errors.As(err, &conflict) && conflict.Stream == r.stream:
		r.tried = nil
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		return errMoved
	default:
		return fmt.Errorf("recording call %s: %w", r.callID, err)
	}
}

// matchedByStamp is how the interpreter says that an echo carried the call's stamp.
const matchedByStamp = "stamp"

// errMoved says that somebody else has written to the call's stream.
var errMoved = errors.New("the call's stream was written to meanwhile")

// retract takes the verdict back that was added after the event last and is not
// recorded.
func (r *recording) retract(last uuid.UUID) {
	if r.last == last {
		return
	}
	verdict := r.last
	r.pending = slices.DeleteFunc(slices.Clone(r.pending), func(e eventstore.NewEvent) bool { return e.ID == verdict })
	r.last = last
}

// catchUp reads what others have appended to the call's stream.
func (r *recording) catchUp(ctx context.Context) error {
	for e, err := range r.commands.Store.ReadStream(ctx, r.stream, eventstore.StreamQuery{After: r.version}) {
		if err != nil {
			return fmt.Errorf("reading call %s again: %w", r.callID, err)
		}
		r.version = e.Version
		switch e.Type {
		case adapter.TypeApiCallSucceeded:
			r.settled = true
		case adapter.TypeApiCallEchoed:
		default:
			continue
		}
		d, err := r.commands.Codec.Decode(ctx, e)
		if err != nil {
			return fmt.Errorf("reading what others tell of call %s: %w", r.callID, err)
		}
		switch p := d.Payload.(type) {
		case *adapter.ApiCallSucceeded:
			r.provedUser = cmp.Or(p.UserID, r.provedUser)
		case *adapter.ApiCallEchoed:
			r.proved = true
			r.provedUser = cmp.Or(p.UserID, r.provedUser)
			r.provedByStamp = r.provedByStamp || p.MatchedBy == matchedByStamp
		}
	}
	return nil
}
