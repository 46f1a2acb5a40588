package outbound

import (
	"errors"
	"net/http"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// verdict is what is known of a write once its last attempt is over.
type verdict struct {
	// status is succeeded, failed or unknown.
	status adapter.CallStatus
	code   int
	why    adapter.CallError
	note   string
}

// judge decides a write's outcome.
//
// A write that was refused, or never left, has failed. 429 and, for PUT and DELETE,
// 503 say that Keycloak did not take it. Any other 5xx says nothing about whether
// it was done, and neither does an answer that never came: the outcome is unknown.
// What one attempt left unknown, a later refusal does not settle.
func judge(method string, attempts []adapter.Attempt, err error) verdict {
	v := verdict{status: adapter.CallSucceeded}
	if n := len(attempts); n > 0 {
		v.code = attempts[n-1].StatusCode
	}
	if err == nil || (v.code >= 200 && v.code < 300) {
		return v
	}
	var answer *keycloak.APIError
	if errors.As(err, &answer) && answer.UserNotFound() && method == http.MethodDelete && len(attempts) > 1 {
		v.note = "an earlier attempt had deleted the user already"
		return v
	}
	v.status, v.why = adapter.CallFailed, Explain(err)
	for _, a := range attempts {
		if unsettled(method, a) {
			v.status = adapter.CallUnknown
			v.why.Code = adapter.CodeOutcomeUnknown
			v.why.Message = "Keycloak's answer does not tell whether the change was made: " + v.why.Message
			break
		}
	}
	return v
}

// unsettled reports an attempt after which the change may or may not have been made.
func unsettled(method string, a adapter.Attempt) bool {
	switch {
	case a.StatusCode == 0:
		return a.Sent
	case a.StatusCode == http.StatusServiceUnavailable:
		return method == http.MethodPost
	default:
		return a.StatusCode >= http.StatusInternalServerError
	}
}

// Explain puts a failure of the Admin API into the error catalogue: a code, our words,
// and what Keycloak said.
func Explain(err error) adapter.CallError {
	var (
		answer    *keycloak.APIError
		transport *admin.TransportError
		token     *admin.TokenError
		decode    *admin.DecodeError
	)
	switch {
	case errors.As(err, &token) && errors.As(err, &answer):
		return adapter.CallError{
			Code: adapter.CodeKeycloakUnauthorized, Keycloak: answer.Message,
			Message: "Keycloak gives keytrail's client no token: check the client id, its secret and the realm it belongs to",
		}
	case errors.As(err, &transport):
		code := adapter.CodeKeycloakUnreachable
		if transport.Kind == admin.KindCanceled {
			code = adapter.CodeInterrupted
		}
		return adapter.CallError{Code: code, Message: "Keycloak could not be reached: " + transportWords(transport)}
	case errors.As(err, &answer):
		e := explainAnswer(answer)
		e.Keycloak = answer.Message
		return e
	case errors.As(err, &decode):
		return adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "Keycloak's answer could not be read: " + decode.Error()}
	default:
		return adapter.CallError{Code: adapter.CodeInternal, Message: err.Error()}
	}
}

func explainAnswer(a *keycloak.APIError) adapter.CallError {
	switch {
	case a.UserNotFound():
		return adapter.CallError{Code: adapter.CodeUserNotFound, Message: "the user does not exist in Keycloak"}
	case a.Kind == keycloak.KindConflict:
		return adapter.CallError{Code: adapter.CodeKeycloakConflict, Message: "Keycloak refused: the name or e-mail address is taken"}
	case a.Kind == keycloak.KindForbidden:
		return adapter.CallError{Code: adapter.CodeKeycloakForbidden, Message: "keytrail's service account may not do this: it needs the role manage-users of realm-management"}
	case a.Kind == keycloak.KindUnauthorized:
		return adapter.CallError{Code: adapter.CodeKeycloakUnauthorized, Message: "Keycloak does not accept keytrail's token"}
	case a.Kind == keycloak.KindNotFound:
		return adapter.CallError{Code: adapter.CodeKeycloakNotFound, Message: "Keycloak knows no such address: check the realm's name and KEYTRAIL_KEYCLOAK_URL"}
	case a.Kind == keycloak.KindInvalid:
		return adapter.CallError{Code: adapter.CodeKeycloakInvalid, Message: "Keycloak does not accept the values"}
	case a.Kind == keycloak.KindRateLimited, a.Kind == keycloak.KindUnavailable:
		return adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "Keycloak, or a proxy before it, is overloaded or starting"}
	case a.Kind == keycloak.KindServer:
		return adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "Keycloak failed inside"}
	default:
		return adapter.CallError{Code: adapter.CodeKeycloakRejected, Message: "Keycloak gave an answer that the call does not know: " + a.Error()}
	}
}
