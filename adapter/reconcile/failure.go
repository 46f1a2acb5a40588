package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// stopError is why a run ends without a judgement.
type stopError struct {
	status adapter.RunStatus
	err    *adapter.Error
}

func (s *stopError) Error() string { return s.err.Error() }
func (s *stopError) Unwrap() error { return s.err }

func invalid(err *adapter.Error) *stopError { return &stopError{status: adapter.RunInvalid, err: err} }

func aborted(err *adapter.Error) *stopError { return &stopError{status: adapter.RunAborted, err: err} }

// unreadable is an answer about one user that is at fault itself: the run can go on.
func unreadable(err error) bool {
	var token *admin.TokenError
	if errors.As(err, &token) {
		return false // it is the token endpoint that fails
	}
	var decode *admin.DecodeError
	if errors.As(err, &decode) {
		return true
	}
	var api *keycloak.APIError
	return errors.As(err, &api) && api.Kind == keycloak.KindServer
}

// keycloakFailure ends a run because Keycloak's answer, or its silence, leaves the
// picture incomplete.
func (n *run) keycloakFailure(ctx context.Context, doing string, err error) *stopError {
	var already *stopError
	if errors.As(err, &already) {
		return already
	}
	if ctx.Err() != nil {
		return interrupted(doing, err)
	}
	text := fmt.Sprintf("%s of realm %s: %s", doing, n.realm, keycloak.Redact(err.Error()))
	e := &adapter.Error{Code: adapter.CodeInternal, Detail: text, Err: err}
	var (
		api       *keycloak.APIError
		decode    *admin.DecodeError
		transport *admin.TransportError
		known     *adapter.Error
		token     *admin.TokenError
	)
	switch {
	case errors.As(err, &token) && errors.As(err, &api) && api.Status < 500:
		// A rejected client is 400 or 401, by version and by grant.
		e.Code = adapter.CodeKeycloakUnauthorized
		e.Try = "check the service account's client id, secret and realm"
	case errors.As(err, &api):
		e.Code, e.Try = codeOfAnswer(api)
	case errors.As(err, &decode):
		e.Code = adapter.CodeListingIncomplete
		e.Try = "look for a proxy that cuts answers or puts its own page in their place; a smaller page size helps against time-outs"
	case errors.As(err, &transport):
		e.Code = adapter.CodeKeycloakUnreachable
		e.Try = "check that Keycloak is running and that KEYTRAIL_KEYCLOAK_URL leads to it, then: keytrail reconcile"
	case errors.As(err, &known):
		e.Code, e.Try = known.Code, known.Try
	}
	return invalid(e)
}

func codeOfAnswer(api *keycloak.APIError) (adapter.Code, string) {
	switch api.Kind {
	case keycloak.KindUnauthorized:
		return adapter.CodeKeycloakUnauthorized, "check the service account's client id, secret and realm"
	case keycloak.KindForbidden:
		return adapter.CodeKeycloakForbidden, "give the service account the role view-users of the realm's realm-management client"
	case keycloak.KindNotFound:
		return adapter.CodeKeycloakNotFound, "check the realm's name and that KEYTRAIL_KEYCLOAK_URL has Keycloak's context path"
	case keycloak.KindRateLimited, keycloak.KindUnavailable, keycloak.KindServer:
		return adapter.CodeKeycloakUnavailable, "look into Keycloak's log, then: keytrail reconcile"
	default:
		return adapter.CodeKeycloakRejected, "look into Keycloak's log"
	}
}

func interrupted(doing string, err error) *stopError {
	return aborted((&adapter.Error{
		Code: adapter.CodeInterrupted, Detail: doing + ": the run was interrupted", Err: err,
	}).WithTry("keytrail reconcile"))
}

// behind ends a run that could not bring belief up to date.
func (n *run) behind(ctx context.Context, err error) *stopError {
	const doing = "catching up with the events"
	if ctx.Err() != nil {
		return interrupted(doing, err)
	}
	s := n.keycloakFailure(ctx, doing, err)
	// The listing was not even tried.
	s.status = adapter.RunAborted
	if s.err.Code == adapter.CodeInternal {
		s.err.Code = adapter.CodeProjectionBehind
		s.err.Try = "keytrail projections status"
	}
	return s
}

// stopped is how any error of a run ends it.
func (n *run) stopped(ctx context.Context, doing string, err error) *stopError {
	var s *stopError
	if errors.As(err, &s) {
		return s
	}
	if ctx.Err() != nil {
		return interrupted(doing, err)
	}
	var known *adapter.Error
	if errors.As(err, &known) {
		return aborted(known)
	}
	e := &adapter.Error{Code: adapter.CodeInternal, Detail: fmt.Sprintf("%s: %v", doing, err), Err: err}
	if errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, eventstore.ErrClosed) {
		e.Code, e.Try = adapter.CodeStoreUnavailable, "check the event store, then: keytrail reconcile"
	}
	return aborted(e)
}
