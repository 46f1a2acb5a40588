package adapter

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Code is a stable word for why something was refused or failed. Surfaces map it to
// an HTTP status or an exit code in one place each.
type Code string

// The error catalogue.
const (
	CodeInvalidRequest       Code = "invalid_request"
	CodeNotFound             Code = "not_found"
	CodeUserNotFound         Code = "user_not_found"
	CodeNotYetKnown          Code = "not_yet_known"
	CodeAlreadyEnabled       Code = "already_enabled"
	CodeAlreadyDisabled      Code = "already_disabled"
	CodeIdempotencyKeyReused Code = "idempotency_key_reused"
	CodeNotBuilt             Code = "not_built"
	CodeOverloaded           Code = "overloaded"
	CodeStoreUnavailable     Code = "store_unavailable"
	CodeInternal             Code = "internal"

	CodeNotParked   Code = "not_parked"
	CodeWaitsBehind Code = "waits_behind"
	CodeStillParked Code = "still_parked"

	CodeKeycloakNotConfigured Code = "keycloak_not_configured"
	CodeKeycloakInvalid       Code = "keycloak_invalid"
	CodeKeycloakUnauthorized  Code = "keycloak_unauthorized"
	CodeKeycloakForbidden     Code = "keycloak_forbidden"
	CodeKeycloakNotFound      Code = "keycloak_not_found"
	CodeKeycloakConflict      Code = "keycloak_conflict"
	CodeKeycloakRejected      Code = "keycloak_rejected"
	CodeKeycloakUnavailable   Code = "keycloak_unavailable"
	CodeKeycloakUnreachable   Code = "keycloak_unreachable"
	CodeOutcomeUnknown        Code = "outcome_unknown"
	CodeInterrupted           Code = "interrupted"

	CodeListingIncomplete Code = "listing_incomplete"
	CodeListingEmpty      Code = "listing_empty"
	CodeProjectionBehind  Code = "projection_behind"
	CodeRunInProgress     Code = "run_in_progress"
)

// Error is a refusal or failure that a person or a program is told about. It never
// holds a secret.
type Error struct {
	Code Code
	// Detail says what was being done and what happened.
	Detail string
	// Try is the next step for the operator, if there is one.
	Try string
	// CorrelationID and CallID, where set, lead to the trace.
	CorrelationID uuid.UUID
	CallID        uuid.UUID
	Err           error
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return string(e.Code)
	}
	return e.Detail
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an *Error; a %w in the format is kept for errors.Is.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// WithTry sets the next step and returns e.
func (e *Error) WithTry(format string, args ...any) *Error {
	e.Try = fmt.Sprintf(format, args...)
	return e
}

// CodeOf is the code of the first *Error in err's chain, CodeInternal for others,
// and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
