package adapter

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/keytrail/keytrail/internal/hotjson"
)

// Optional is a field of a change: absent (unchanged), cleared (JSON null), or set
// to a value. Tag members with omitzero, so that an absent one is left out.
type Optional[T any] struct {
	present bool
	value   *T
}

// Set is a field set to v.
func Set[T any](v T) Optional[T] { return Optional[T]{present: true, value: &v} }

// Clear is a field that is emptied.
func Clear[T any]() Optional[T] { return Optional[T]{present: true} }

// SetOrClear is Set where p points to something and Clear where it is nil.
func SetOrClear[T any](p *T) Optional[T] {
	if p == nil {
		return Clear[T]()
	}
	return Set(*p)
}

// Present reports whether the change touches the field.
func (o Optional[T]) Present() bool { return o.present }

// IsZero reports the opposite, for the tag omitzero.
func (o Optional[T]) IsZero() bool { return !o.present }

// Get returns the value, and false where the field is absent or cleared.
func (o Optional[T]) Get() (T, bool) {
	if o.value == nil {
		var zero T
		return zero, false
	}
	return *o.value, true
}

// Ptr returns the value, nil where the field is absent or cleared.
func (o Optional[T]) Ptr() *T { return o.value }

// MarshalJSON writes the value, or null.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if o.value == nil {
		return []byte("null"), nil
	}
	return json.Marshal(*o.value)
}

// UnmarshalJSON reads a value, or null as cleared.
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		*o = Clear[T]()
		return nil
	}
	var v T
	if err := hotjson.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("optional field: %w", err)
	}
	*o = Set(v)
	return nil
}
