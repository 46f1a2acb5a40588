// Package seal is the one seam through which personal fields and raw bodies
// pass on their way into an event and out of it.
//
// An event is never rewritten, so the way to forget a person is to lose the key
// that opens the person's fields. A payload struct says with the tag
// `seal:"group"` which of its top-level JSON members are personal; [Marshal] and
// [Unmarshal] send exactly these through a [Sealer]. [Plain], the sealer of
// today, stores them as they are. A sealer with a key per person can take its
// place without touching a payload type.
package seal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/keytrail/keytrail/internal/hotjson"
)

// ErrForgotten is answered by Open and OpenBody when the key that sealed a value
// is gone for good. It is a state of the person, not a failure: readers show the
// field as forgotten and go on. Compare with errors.Is.
var ErrForgotten = errors.New("key is gone: the person was forgotten")

// Person names whose key seals a value.
type Person struct {
	// Realm is the realm's name, which is unique in a store.
	Realm string
	// ID is the Keycloak user id, which need not be a UUID. It is empty when the
	// user is not known; the realm's own key seals then.
	ID string
}

// Group is a group of fields that are sealed, kept and forgotten together.
type Group string

// The groups in use. A payload type may name others.
const (
	Profile    Group = "profile"    // user name, e-mail, first and last name
	Attributes Group = "attributes" // custom user attributes
	Actor      Group = "actor"      // who did it: names, not ids
	Network    Group = "network"    // ip addresses, sessions
	Raw        Group = "raw"        // bodies and representations as received
)

// Sealer turns plain values into stored ones and back.
//
// Opening needs the person and group that sealed. A Sealer is used by many
// goroutines at once, never changes or keeps the slices that it is given, and
// never puts a part of a value into an error.
type Sealer interface {
	// Seal takes one JSON value and returns one JSON value.
	Seal(ctx context.Context, p Person, g Group, plain []byte) ([]byte, error)
	// Open undoes Seal. It returns ErrForgotten when the key is gone.
	Open(ctx context.Context, p Person, g Group, sealed []byte) ([]byte, error)
	// SealBody is Seal for a raw body: any bytes in, any bytes out, group Raw.
	SealBody(ctx context.Context, p Person, plain []byte) ([]byte, error)
	// OpenBody undoes SealBody. It returns ErrForgotten when the key is gone.
	OpenBody(ctx context.Context, p Person, sealed []byte) ([]byte, error)
}

// Plain stores every value as it is. Its zero value is ready for use.
type Plain struct{}

var _ Sealer = Plain{}

// Seal returns plain.
func (Plain) Seal(_ context.Context, _ Person, _ Group, plain []byte) ([]byte, error) {
	return plain, nil
}

// Open returns sealed.
func (Plain) Open(_ context.Context, _ Person, _ Group, sealed []byte) ([]byte, error) {
	return sealed, nil
}

// SealBody returns plain.
func (Plain) SealBody(_ context.Context, _ Person, plain []byte) ([]byte, error) {
	return plain, nil
}

// OpenBody returns sealed.
func (Plain) OpenBody(_ context.Context, _ Person, sealed []byte) ([]byte, error) {
	return sealed, nil
}

// Marshal encodes the struct v, or the struct that v points to, like
// [json.Marshal] does, and seals the members whose field carries the tag
// `seal:"group"`. Members keep the order of the struct's fields; an empty member
// that omitempty or omitzero drops stays dropped. Only top-level members are
// looked at: a tag on a field of a nested struct has no effect, a tag on an
// embedded struct holds for each of its members that has none of its own, and
// `seal:"-"` takes a member out again.
//
// It fails for a v that is no struct, for a struct with sealed members that
// encodes itself (MarshalJSON), and when the sealer fails.
func Marshal(ctx context.Context, s Sealer, p Person, v any) (json.RawMessage, error) {
	groups, err := groupsOf(v)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, wrap("encoding", v, err)
	}
	if len(groups) == 0 || isPlain(s) {
		return raw, nil
	}
	out, _, err := rewrite(raw, groups, func(g Group, value []byte) ([]byte, error) {
		return s.Seal(ctx, p, g, value)
	})
	if err != nil {
		return nil, wrap("sealing", v, err)
	}
	return out, nil
}

// Unmarshal opens the sealed members of raw, which Marshal made for the same
// type and person, and decodes the object into the struct that v points to. v
// should point to a zero value: a member whose key is gone is not written, and
// its JSON name is listed in forgotten, in the order of raw.
//
// A forgotten member is no error. An error is a raw that is no JSON object, a v
// that is no pointer to a struct, or a sealer that fails in another way.
func Unmarshal(ctx context.Context, s Sealer, p Person, raw json.RawMessage, v any) (forgotten []string, err error) {
	groups, err := groupsOf(v)
	if err != nil {
		return nil, err
	}
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) > 0 && trimmed[0] != '{' {
		return nil, wrap("decoding", v, errors.New("not a JSON object")) // encoding/json lets null pass
	}
	if len(groups) > 0 && !isPlain(s) {
		raw, forgotten, err = rewrite(raw, groups, func(g Group, value []byte) ([]byte, error) {
			return s.Open(ctx, p, g, value)
		})
		if err != nil {
			return nil, wrap("opening", v, err)
		}
	}
	if err := hotjson.Unmarshal(raw, v); err != nil {
		return nil, wrap("decoding", v, err)
	}
	return forgotten, nil
}

// isPlain lets the hot path skip a second pass over the object. The tests hold
// that pass to the same bytes.
func isPlain(s Sealer) bool {
	_, ok := s.(Plain)
	return ok
}
