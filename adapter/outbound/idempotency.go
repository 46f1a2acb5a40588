package outbound

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

type idempotencyKey struct{}

type idempotency struct{ key, digest string }

// WithIdempotencyKey returns a context whose command is done at most once for the key
// in its realm, however often and by however many processes it is given. Whoever
// comes second gets the first outcome, which may still be open. bodyDigest tells
// requests apart: it should cover all that says what is asked for, such as method,
// path and body, but no more; the same key with another digest, for another command, or
// with another password is refused with idempotency_key_reused. It is recorded, so that
// no password may go into it: commands compare those themselves.
func WithIdempotencyKey(ctx context.Context, key, bodyDigest string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, &idempotency{key: key, digest: bodyDigest})
}

// idempotentCalls is the namespace of call ids that follow from an idempotency key. It
// can't be changed.
var idempotentCalls = uuid.MustParse("5f1c7a52-3a0e-5d0b-9a43-9c9c2f6f6a11")

// identify returns the id of a call to be made. Under an idempotency key it follows
// from realm and key: the stream of that call can be begun once, which is the lock. A
// digest is returned with it.
//
// The digest is recorded. Where the request carries a secret it is a keyed one, or
// whoever reads the log could try passwords on it.
func (c *Commands) identify(ctx context.Context, in intent) (id uuid.UUID, digest string, err error) {
	if in.callID != uuid.Nil {
		return in.callID, "", nil
	}
	i, ok := ctx.Value(idempotencyKey{}).(*idempotency)
	if !ok || i == nil || i.key == "" {
		return eventstore.NewID(), "", nil
	}
	h := sha256.New()
	if in.secret != "" {
		secret, err := c.digestSecret(ctx)
		if err != nil {
			return uuid.Nil, "", &adapter.Error{
				Code: adapter.CodeStoreUnavailable, Err: err,
				Detail: fmt.Sprintf("%s was not tried: the secret under which passwords are compared could not be read: %v", in.command, err),
			}
		}
		h = hmac.New(sha256.New, secret)
	}
	for _, part := range []string{in.command, i.digest, in.secret} {
		h.Write([]byte(part + "\x00"))
	}
	return uuid.NewSHA1(idempotentCalls, []byte(in.realm+"\x00"+i.key)), hex.EncodeToString(h.Sum(nil)), nil
}

func (c *Commands) digestSecret(ctx context.Context) ([]byte, error) {
	if c.Secret != nil {
		return c.Secret(ctx)
	}
	return processSecret()
}

// processSecret is this process' own.
var processSecret = sync.OnceValues(func() ([]byte, error) {
	secret := make([]byte, sha256.Size)
	_, err := rand.Read(secret)
	return secret, err
})

// repetition is what begin returns for a request that was made before.
type repetition struct {
	outcome Outcome
	err     error
}

func (r *repetition) Error() string { return "the request was made before" }

// notBegun is the result of a command that begin did not let through.
func notBegun(err error) (Outcome, error) {
	var before *repetition
	if errors.As(err, &before) {
		return before.outcome, before.err
	}
	return Outcome{}, err
}

// repeated finds out what became of the request that was made first with a key.
func (c *Commands) repeated(ctx context.Context, callID uuid.UUID, in intent, digest string) error {
	events, err := c.Codec.ReadStream(ctx, c.Store, adapter.CallStream(callID))
	if err != nil {
		return &adapter.Error{
			Code: adapter.CodeStoreUnavailable, Err: err, CallID: callID,
			Detail: fmt.Sprintf("%s was not tried: what became of the first request with this idempotency key could not be read: %v", in.command, err),
		}
	}
	call, ok := adapter.FoldCall(events)
	var first *adapter.ApiCallRequested
	if ok {
		first, _ = events[0].Payload.(*adapter.ApiCallRequested)
	}
	if first == nil {
		return adapter.Errorf(adapter.CodeInternal, "call %s cannot be read", callID)
	}
	if first.RequestDigest != digest {
		e := adapter.Errorf(adapter.CodeIdempotencyKeyReused, "the idempotency key belongs to another request: %s of %s", first.Command, call.RequestedAt.UTC().Format("2006-01-02 15:04:05Z"))
		e.CallID, e.CorrelationID = callID, call.CorrelationID
		return e.WithTry("%s", adapter.CodeIdempotencyKeyReused.Explain().Next)
	}
	r := &repetition{outcome: Outcome{
		CallID: callID, CorrelationID: call.CorrelationID, Status: call.Status, Realm: call.Realm, UserID: call.UserID, Repeated: true,
	}}
	if call.Status != adapter.CallSucceeded && call.Status != adapter.CallRequested {
		r.err = failure(r.outcome, whyOf(call), refused(call.Code, call.UserID, wasDisabled(call), "%s", call.Error))
	}
	var newest *time.Time
	if r.outcome.Steps, newest, err = c.stepsOfCall(ctx, call); err != nil {
		return err
	}
	if call.Status == adapter.CallSucceeded {
		switch {
		case c.goesOn(call, r.outcome.Steps, newest):
			r.outcome.Status = adapter.CallRequested
		case call.Command == commandUnlock:
			r.err = partial(failuresCleared, r.outcome)
		default:
			r.err = partial(userCreated, r.outcome)
		}
	}
	return r
}

// stepTime bounds how long the first request of several calls is taken to be under way
// between two of them: one follows on the other at once, but for the commit in between,
// which waits for the store for commitTimeout. Then its process has died.
const stepTime = 2 * commitTimeout

// goesOn reports a business action of several calls that is under way still: a step is
// open, or the next one is about to begin. newest is when the last one was over.
func (c *Commands) goesOn(first adapter.Call, steps []Step, newest *time.Time) bool {
	young := newest != nil && c.Clock().Sub(*newest) < stepTime
	for _, s := range steps {
		switch {
		case s.Status == adapter.CallRequested:
			return true
		case s.Status == StepNotTried:
			return young && first.UserID != "" // without an id there is nobody to give anything
		case !s.done():
			return false // those after it are not tried
		}
	}
	// Whether an unlock enables the user, too, is not recorded before it does.
	return young && first.Command == commandUnlock && len(steps) == 0 && wasDisabled(first)
}

// whyOf is why a call did not succeed, as it is recorded.
func whyOf(call adapter.Call) adapter.CallError {
	return adapter.CallError{Code: call.Code, Message: call.Error, Keycloak: call.Keycloak}
}

// wasDisabled reports that the fresh read found the user disabled.
func wasDisabled(call adapter.Call) bool {
	return slices.ContainsFunc(call.PreconditionReads, func(r adapter.CallPrecondition) bool { return r.Enabled != nil && !*r.Enabled })
}

// stepsOfCall reads how the further calls of a business action stand, and when the last
// that is over was. Those of an unlock are in no plan, since only the fresh read tells
// whether there is one.
func (c *Commands) stepsOfCall(ctx context.Context, first adapter.Call) (steps []Step, newest *time.Time, err error) {
	newest = first.FinishedAt
	steps = notTried(first.Plan)
	if first.Command == commandUnlock {
		steps = notTried([]string{commandEnable})
	}
	for n := range steps {
		id := adapter.StepCallID(first.CallID, first.RequestedAt, n+1)
		events, err := c.Codec.ReadStream(ctx, c.Store, adapter.CallStream(id))
		if err != nil {
			return nil, nil, err
		}
		if call, ok := adapter.FoldCall(events); ok {
			steps[n] = Step{Name: steps[n].Name, CallID: id, Status: call.Status, Code: call.Code, Detail: detailOf(whyOf(call))}
			newest = cmp.Or(call.FinishedAt, newest)
		}
	}
	if first.Command == commandUnlock && steps[0].Status == StepNotTried {
		return nil, newest, nil
	}
	return steps, newest, nil
}
