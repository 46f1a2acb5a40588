// Package webhook decodes what Keycloak's webhook senders push, and checks their
// signatures. There is no standard payload: each sender has a dialect, and each
// dialect a file of its own here.
//
// Nothing that is a JSON object is refused. What no dialect knows becomes a
// delivery of kind Unrecognized with its exact bytes, so that it can be read once
// a dialect for it exists.
package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/keytrail/keytrail/keycloak"
)

// Names of dialects. DialectAuto tries each.
const (
	DialectAuto     = "auto"
	DialectP2       = "p2"
	DialectKeycloak = "keycloak"
)

// MaxDepth is how deep objects and arrays of a body may be nested.
const MaxDepth = 100

// MaxBatch is how many events a batch may hold. A batch is one transaction, for which
// every other writer waits: 1,000 events take tens of milliseconds, and the 165,000
// that fit into 1 MiB took many seconds.
const MaxBatch = 1000

// Errors of Decode. The last one is a fault in the configuration, the others are the
// sender's: a batch that is too large 413, the rest 400.
var (
	ErrNotJSON        = errors.New("body is not JSON")
	ErrNotObject      = errors.New("body is not a JSON object")
	ErrTooDeep        = errors.New("body is nested deeper than 100")
	ErrTooManyEvents  = errors.New("batch holds more than 1,000 events")
	ErrUnknownDialect = errors.New("unknown webhook dialect")
)

// Kind is what a delivery turned out to be.
type Kind string

// Kinds of deliveries.
const (
	KindAdmin        Kind = "admin"
	KindUser         Kind = "user"
	KindUnrecognized Kind = "unrecognized"
)

// Delivery is one Keycloak event as it arrived.
type Delivery struct {
	Kind Kind
	// Admin is set for KindAdmin and User for KindUser, never both.
	Admin *keycloak.AdminEvent
	User  *keycloak.UserEvent
	// Dialect that recognised it; empty when none did.
	Dialect string
	// Raw is the event's exact bytes: the whole body, or the element of a batch.
	// It may hold invalid UTF-8, duplicate keys and NUL escapes; the decoded
	// form has valid UTF-8.
	Raw json.RawMessage
}

// Batch is what one body held, in the body's order.
type Batch []Delivery

// A dialect recognises its own events. decode reports false for an object that is
// not one of its own; it never fails.
type dialect struct {
	name   string
	decode func(object) (Delivery, bool)
}

// dialects are tried in this order by DialectAuto. They do not overlap: an object
// that two of them could claim is a defect of one of them.
var dialects = []dialect{
	{DialectP2, decodeP2},
	{DialectKeycloak, decodeKeycloak},
}

// Decode reads a webhook body: one event, or a batch {"events":[…]}. It returns
// ErrNotJSON, ErrNotObject, ErrTooDeep, ErrTooManyEvents (wrapped, with the reason) or
// ErrUnknownDialect, and otherwise accepts every object. An element of a batch
// that is not an object is Unrecognized. The result does not alias contentBody.
func Decode(contentBody []byte, dialect string) (Batch, error) {
	candidates, err := selectDialects(dialect)
	if err != nil {
		return nil, err
	}
	o, err := parseObject(contentBody)
	if err != nil {
		return nil, err
	}
	if events, ok := batchOf(o); ok {
		if len(events) > MaxBatch {
			return nil, fmt.Errorf("%w: %d", ErrTooManyEvents, len(events))
		}
		batch := make(Batch, 0, len(events))
		for _, raw := range events {
			batch = append(batch, decodeOne(raw, candidates))
		}
		return batch, nil
	}
	d := recognise(o, candidates)
	d.Raw = bytes.Clone(contentBody)
	return Batch{d}, nil
}

func selectDialects(name string) ([]dialect, error) {
	if name == DialectAuto {
		return dialects, nil
	}
	for i, d := range dialects {
		if d.name == name {
			return dialects[i : i+1], nil
		}
	}
	return nil, fmt.Errorf("%w %q: use auto, p2 or keycloak", ErrUnknownDialect, name)
}

// batchOf returns the elements of a batch. An event that happens to have a member
// called events is not a batch.
func batchOf(o object) ([]json.RawMessage, bool) {
	if o.has("type") || o.has("operationType") {
		return nil, false
	}
	var events []json.RawMessage
	if !o.has("events") || json.Unmarshal(o["events"], &events) != nil {
		return nil, false
	}
	return events, true
}

func decodeOne(raw json.RawMessage, candidates []dialect) Delivery {
	d := Delivery{Kind: KindUnrecognized}
	var o object
	if json.Unmarshal(raw, &o) == nil && o != nil {
		d = recognise(o, candidates)
	}
	d.Raw = raw
	return d
}

func recognise(o object, candidates []dialect) Delivery {
	for _, c := range candidates {
		if d, ok := c.decode(o); ok {
			d.Dialect = c.name
			return d
		}
	}
	return Delivery{Kind: KindUnrecognized}
}
