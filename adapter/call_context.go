package adapter

import (
	"context"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// CallContext is what everything done on somebody's behalf carries along: who,
// why, and to which story it belongs.
type CallContext struct {
	Actor  Actor
	Reason string
	// CorrelationID names the story. It is copied, never made anew, within one chain.
	CorrelationID uuid.UUID
	// CausationID is the event that led to this, uuid.Nil for a person's command.
	CausationID uuid.UUID
	// Source is the way in: "cli", "http", "webhook:NAME", "poll", "reconcile".
	Source string
	// Traceparent is the W3C trace context that came along, as it came.
	Traceparent string
}

type callContextKey struct{}

// WithCall returns a context that carries c. A missing correlation id is made here,
// and the actor defaults to unknown.
func WithCall(ctx context.Context, c CallContext) context.Context {
	if c.CorrelationID == uuid.Nil {
		c.CorrelationID = eventstore.NewID()
	}
	if c.Actor.Type == "" {
		c.Actor.Type = ActorUnknown
	}
	return context.WithValue(ctx, callContextKey{}, c)
}

// CallFrom returns what WithCall put in, and false where nothing was.
func CallFrom(ctx context.Context) (CallContext, bool) {
	c, ok := ctx.Value(callContextKey{}).(CallContext)
	return c, ok
}
