package main

import (
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
)

// problem is an error as the API tells it, an RFC 9457 problem with keytrail's
// extensions: a program reads the same from both.
type problem struct {
	Type          string       `json:"type"`
	Title         string       `json:"title"`
	Status        int          `json:"status"`
	Detail        string       `json:"detail"`
	Code          adapter.Code `json:"code"`
	CorrelationID *uuid.UUID   `json:"correlation_id,omitempty"`
	CallID        *uuid.UUID   `json:"call_id,omitempty"`
	// Cause is the usual cause of a command's failure, Try the next step.
	Cause string `json:"cause,omitempty"`
	Try   string `json:"try,omitempty"`
	// UserID and Steps say how far a command of several calls came.
	UserID string          `json:"user_id,omitempty"`
	Steps  []outbound.Step `json:"steps,omitempty"`
	// Errors are the faults of a configuration, all at once.
	Errors []problemField `json:"errors,omitempty"`
}

type problemField struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// problemOf puts any error into the API's terms.
func problemOf(err error) problem {
	e := inCatalogue(err)
	p := problem{
		Type: "urn:keytrail:problem:" + string(e.Code), Title: e.Code.Explain().Title, Status: httpapi.StatusOf(e.Code),
		Detail: e.Detail, Code: e.Code, Try: e.Try, CorrelationID: idOrNil(e.CorrelationID), CallID: idOrNil(e.CallID),
	}
	if p.CallID != nil {
		p.Cause = e.Code.Explain().Cause
	}
	var several *stepsError
	if errors.As(err, &several) {
		p.UserID, p.Steps = several.outcome.UserID, several.outcome.Steps
	}
	var faulty *config.Error
	if errors.As(err, &faulty) {
		for _, f := range faulty.Faults {
			message := f.Problem
			if f.Source != "" {
				message += " (" + f.Source + ")"
			}
			if f.Try != "" {
				message += "; try " + f.Try
			}
			p.Errors = append(p.Errors, problemField{f.Path, message})
		}
	}
	return p
}

// inCatalogue is an error in the catalogue's terms, with all that it says as its detail.
func inCatalogue(err error) *adapter.Error {
	out := &adapter.Error{Code: adapter.CodeInternal, Detail: err.Error(), Err: err}
	var known *adapter.Error
	var schema *eventstore.SchemaError
	switch {
	case errors.As(err, &known):
		out.Code, out.Try, out.CorrelationID, out.CallID = known.Code, known.Try, known.CorrelationID, known.CallID
	case isUsage(err):
		out.Code = adapter.CodeInvalidRequest
	case errors.As(err, &schema), errors.Is(err, eventstore.ErrClosed):
		out.Code = adapter.CodeStoreUnavailable
	case errors.Is(err, eventstore.ErrUnavailable):
		out.Code, out.Try = adapter.CodeStoreUnavailable, "check that the event store of KEYTRAIL_STORE_URL answers, and give the command again"
	}
	// Errors of other packages carry their next step in the text.
	if detail, try, ok := strings.Cut(out.Detail, "\nTry: "); ok {
		out.Detail, out.Try = detail, try
	}
	return out
}

// isUsage reports whether whoever called or configured keytrail is at fault.
func isUsage(err error) bool {
	var (
		usage  *usageError
		faulty *config.Error
		marked interface{ Usage() }
	)
	return errors.As(err, &usage) || errors.As(err, &faulty) || errors.As(err, &marked)
}

func idOrNil(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}
