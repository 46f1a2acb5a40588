package adapter

import (
	"maps"
	"slices"
)

// PayloadTypes are the names of all types of events.
func PayloadTypes() []string { return slices.Sorted(maps.Keys(payloads)) }

// NewPayload is an empty payload of a type.
func NewPayload(typ string) Payload { return payloads[typ]() }
