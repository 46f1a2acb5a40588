package main

import (
	"encoding/json"
	"errors"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// exitStatus maps an error to the exit status of the outside contract.
func exitStatus(err error) int {
	var schema *eventstore.SchemaError
	switch {
	case isUsage(err), errors.As(err, &schema):
		return exitUsage
	case errors.Is(err, eventstore.ErrUnavailable):
		return exitUnreachable
	}
	switch adapter.CodeOf(err) {
	case adapter.CodeInvalidRequest, adapter.CodeNotBuilt, adapter.CodeKeycloakNotConfigured:
		return exitUsage
	case adapter.CodeKeycloakUnreachable, adapter.CodeKeycloakUnavailable, adapter.CodeKeycloakUnauthorized,
		adapter.CodeOutcomeUnknown, adapter.CodeInterrupted, adapter.CodeStoreUnavailable, adapter.CodeOverloaded,
		adapter.CodeListingEmpty, adapter.CodeListingIncomplete, adapter.CodeProjectionBehind, adapter.CodeRunInProgress:
		return exitUnreachable
	default:
		return exitFound
	}
}

func (s *session) printJSON(v any) error {
	enc := json.NewEncoder(s.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// list is a page of the API.
type list[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor,omitempty"`
}

func listOf[T any](items []T, next string) list[T] {
	if items == nil {
		items = []T{}
	}
	return list[T]{Items: items, NextCursor: next}
}
