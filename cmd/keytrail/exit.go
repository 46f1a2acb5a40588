package main

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
)

// exitStatus maps an error to the exit status of the outside contract.
func exitStatus(err error) int {
	var (
		usage   *usageError
		faults  *config.Error
		schema  *eventstore.SchemaError
		unknown *projections.UnknownError
		fault   interface{ Usage() }
	)
	switch {
	case errors.As(err, &usage), errors.As(err, &fault), errors.As(err, &faults), errors.As(err, &schema), errors.As(err, &unknown):
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

// problem is an error as the API tells it.
type problem struct {
	Code          adapter.Code `json:"code,omitempty"`
	Detail        string       `json:"detail"`
	Try           string       `json:"try,omitempty"`
	CorrelationID *uuid.UUID   `json:"correlation_id,omitempty"`
	CallID        *uuid.UUID   `json:"call_id,omitempty"`
	// UserID and Steps say how far a command of several calls came.
	UserID string          `json:"user_id,omitempty"`
	Steps  []outbound.Step `json:"steps,omitempty"`
}

// printErrorJSON prints an error on standard output, where a program that asked for
// JSON reads.
func (s *session) printErrorJSON(err error) {
	p := problem{Detail: err.Error()}
	var e *adapter.Error
	if errors.As(err, &e) {
		p.Code, p.Try = e.Code, e.Try
		if e.CorrelationID != uuid.Nil {
			p.CorrelationID = &e.CorrelationID
		}
		if e.CallID != uuid.Nil {
			p.CallID = &e.CallID
		}
	}
	var several *stepsError
	if errors.As(err, &several) {
		p.UserID, p.Steps = several.outcome.UserID, several.outcome.Steps
	}
	// Errors of other packages carry their next step in the text.
	if detail, try, ok := strings.Cut(p.Detail, "\nTry: "); ok && p.Try == "" {
		p.Detail, p.Try = detail, try
	}
	_ = s.printJSON(p) // standard output is gone: there is nobody left to tell
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
