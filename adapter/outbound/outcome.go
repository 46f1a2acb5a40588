package outbound

import (
	"errors"
	"net/http"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
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
// What one attempt left unknown, a later refusal does not settle. A DELETE is only
// repeated after an attempt that was not taken, so that a user who is gone then was
// deleted by somebody else; should it have been us, Keycloak's own event tells.
func judge(rec *recording, err error) verdict {
	v := verdict{status: adapter.CallSucceeded}
	if n := len(rec.attempts); n > 0 {
		v.code = rec.attempts[n-1].StatusCode
	}
	if err == nil || (v.code >= 200 && v.code < 300) {
		return v
	}
	v.status, v.why = adapter.CallFailed, Explain(err).CallError
	for n, a := range rec.attempts {
		// An e-mail that could not be sent is a 500 that says so.
		told := n == len(rec.attempts)-1 && v.why.Code == adapter.CodeKeycloakMailFault
		if unsettled(rec.method, a) && !told {
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

// absent reports a code that says that what a command is about does not exist.
func absent(code adapter.Code) bool {
	switch code {
	case adapter.CodeUserNotFound, adapter.CodeRoleNotFound, adapter.CodeClientNotFound,
		adapter.CodeGroupNotFound, adapter.CodeOrganizationNotFound:
		return true
	default:
		return false
	}
}

// hide takes a secret that a request carried out of what Keycloak said about it.
func hide(err error, secret string) error {
	var answer *keycloak.APIError
	if secret == "" || !errors.As(err, &answer) {
		return err
	}
	const hidden = "[redacted]"
	answer.Message = strings.ReplaceAll(answer.Message, secret, hidden)
	for i := range answer.Fields {
		answer.Fields[i].Message = strings.ReplaceAll(answer.Fields[i].Message, secret, hidden)
	}
	return err
}

// Explanation is a failure put into the error catalogue: a code, our words, what
// Keycloak said, and what the catalogue says about the code.
type Explanation struct {
	adapter.CallError
	adapter.Explanation
}

// Explain puts a failure of the Admin API into the error catalogue. Keycloak's bodies
// are inconsistent: what means the same gets one code, and its text is kept beside it,
// redacted and bounded.
func Explain(err error) Explanation {
	if err == nil {
		return Explanation{}
	}
	e := explain(err)
	return Explanation{CallError: e, Explanation: e.Code.Explain()}
}

func explain(err error) adapter.CallError {
	var (
		refusal   *adapter.Error
		answer    *keycloak.APIError
		transport *admin.TransportError
		token     *admin.TokenError
		decode    *admin.DecodeError
	)
	answered := errors.As(err, &answer)
	said := func(e adapter.CallError) adapter.CallError {
		if answered {
			e.Keycloak = answer.Message
		}
		return e
	}
	switch {
	case errors.As(err, &refusal):
		return said(adapter.CallError{Code: refusal.Code, Message: refusal.Detail})
	case errors.As(err, &token) && answered:
		return said(adapter.CallError{
			Code: adapter.CodeKeycloakUnauthorized, Message: "Keycloak gives keytrail's client no token: check the client id, its secret and the realm it belongs to",
		})
	case errors.As(err, &transport):
		code := adapter.CodeKeycloakUnreachable
		if transport.Kind == admin.KindCanceled {
			code = adapter.CodeInterrupted
		}
		return adapter.CallError{Code: code, Message: "Keycloak could not be reached: " + transportWords(transport)}
	case answered:
		return said(explainAnswer(answer))
	case errors.Is(err, eventstore.ErrUnavailable):
		return adapter.CallError{Code: adapter.CodeStoreUnavailable, Message: "the attempt before could not be recorded, so nothing more was sent"}
	case errors.As(err, &decode):
		return adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "Keycloak's answer could not be read: " + decode.Error()}
	default:
		return adapter.CallError{Code: adapter.CodeInternal, Message: err.Error()}
	}
}

func explainAnswer(a *keycloak.APIError) adapter.CallError {
	switch a.Kind {
	case keycloak.KindNotFound:
		return explainAbsence(a)
	case keycloak.KindConflict:
		return adapter.CallError{Code: adapter.CodeKeycloakConflict, Message: "Keycloak refused: " + conflictWords(a.Message)}
	case keycloak.KindForbidden:
		return adapter.CallError{
			Code:    adapter.CodeKeycloakForbidden,
			Message: "keytrail's service account may not do this: it needs " + rolesFor(a.Op),
		}
	case keycloak.KindUnauthorized:
		return adapter.CallError{Code: adapter.CodeKeycloakUnauthorized, Message: "Keycloak does not accept keytrail's token"}
	case keycloak.KindInvalid:
		return explainInvalid(a)
	case keycloak.KindRateLimited, keycloak.KindUnavailable:
		return adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "Keycloak, or a proxy before it, is overloaded or starting"}
	case keycloak.KindServer:
		// UserResource.java answers so where the mail server is missing or refuses.
		if strings.HasPrefix(a.Message, "Failed to send") {
			return adapter.CallError{Code: adapter.CodeKeycloakMailFault, Message: "Keycloak could not send the e-mail"}
		}
		return adapter.CallError{Code: adapter.CodeKeycloakUnavailable, Message: "Keycloak failed inside"}
	default:
		return adapter.CallError{Code: adapter.CodeKeycloakRejected, Message: "Keycloak gave an answer that the call does not know: " + a.Error()}
	}
}

// absences are Keycloak's sentences about what it does not find, in lower case and
// without a full stop (26.1.4 and 26.7.3). Only a sentence of its own says what is
// absent: "HTTP 404 Not Found" is a wrong address as well.
var absences = map[string]adapter.CallError{
	"realm not found":            {Code: adapter.CodeRealmNotFound, Message: "Keycloak has no realm of this name"},
	"realm does not exist":       {Code: adapter.CodeRealmNotFound, Message: "Keycloak has no realm of this name"},
	"role not found":             {Code: adapter.CodeRoleNotFound, Message: "the role does not exist in Keycloak"},
	"could not find role":        {Code: adapter.CodeRoleNotFound, Message: "the role does not exist in Keycloak"},
	"client not found":           {Code: adapter.CodeClientNotFound, Message: "the client does not exist in Keycloak"},
	"could not find client":      {Code: adapter.CodeClientNotFound, Message: "the client does not exist in Keycloak"},
	"group not found":            {Code: adapter.CodeGroupNotFound, Message: "the group does not exist in Keycloak"},
	"could not find group by id": {Code: adapter.CodeGroupNotFound, Message: "the group does not exist in Keycloak"},
}

func explainAbsence(a *keycloak.APIError) adapter.CallError {
	if a.UserNotFound() {
		return adapter.CallError{Code: adapter.CodeUserNotFound, Message: "the user does not exist in Keycloak"}
	}
	if e, ok := absences[strings.ToLower(strings.TrimSuffix(a.Message, "."))]; ok {
		return e
	}
	return adapter.CallError{Code: adapter.CodeKeycloakNotFound, Message: "Keycloak knows no such address: check the realm's name and KEYTRAIL_KEYCLOAK_URL"}
}

func conflictWords(message string) string {
	lower := strings.ToLower(message)
	name, address := strings.Contains(lower, "username"), strings.Contains(lower, "email")
	switch {
	case strings.Contains(lower, "member"):
		return "the user is a member already"
	case name && !address:
		return "the user name is taken"
	case address && !name:
		return "the e-mail address is taken"
	default:
		return "the name or e-mail address is taken"
	}
}

// rolesFor names the role that an operation needs (each tried alone on 26.7.3).
func rolesFor(op string) string {
	read := strings.HasPrefix(op, http.MethodGet)
	switch {
	case strings.Contains(op, "/organizations") && read:
		return "the role view-organizations of realm-management"
	case strings.Contains(op, "/organizations"):
		return "the roles manage-organizations and manage-users of realm-management"
	case strings.Contains(op, "/clients") && read:
		return "the role view-clients of realm-management"
	case strings.Contains(op, "/roles/") && read:
		return "the role view-realm of realm-management"
	case strings.Contains(op, "/role-mappings/"):
		return "the role manage-users of realm-management, and itself every administrative role that it is to give"
	case read:
		return "the role view-users of realm-management"
	default:
		return "the role manage-users of realm-management"
	}
}

func explainInvalid(a *keycloak.APIError) adapter.CallError {
	switch {
	case strings.HasPrefix(a.Message, "invalidPassword"):
		return adapter.CallError{Code: adapter.CodePasswordRejected, Message: "the password does not meet the realm's policy: " + passwordWords(a.Message)}
	case strings.HasPrefix(a.Message, "User email missing"):
		return adapter.CallError{Code: adapter.CodeEmailMissing, Message: "the user has no e-mail address"}
	case a.Message == "User is disabled":
		// 26.7.3, measured: what sends an e-mail is refused so.
		return adapter.CallError{Code: adapter.CodeUserDisabled, Message: "the user is disabled"}
	case len(a.Fields) == 0:
		return adapter.CallError{Code: adapter.CodeKeycloakInvalid, Message: "Keycloak does not accept the values"}
	}
	words := make([]string, 0, len(a.Fields))
	for _, f := range a.Fields {
		text, ok := fieldWords[f.Message]
		if !ok {
			text = "is not accepted"
		}
		words = append(words, strings.TrimSpace(f.Field+" "+text))
	}
	return adapter.CallError{Code: adapter.CodeKeycloakInvalid, Message: "Keycloak does not accept the values: " + strings.Join(words, "; ")}
}

// fieldWords are the message keys of the user profile's validators
// (Validators in keycloak-server-spi-private, messages_en.properties).
var fieldWords = map[string]string{
	"error-user-attribute-required":       "is needed",
	"error-user-attribute-read-only":      "may not be changed (for the user name: Realm settings, Login, Edit username)",
	"error-invalid-value":                 "has an invalid value",
	"error-invalid-blank":                 "must not be blank",
	"error-empty":                         "must not be empty",
	"error-invalid-length":                "has a wrong length",
	"error-invalid-length-too-short":      "is too short",
	"error-invalid-length-too-long":       "is too long",
	"error-invalid-email":                 "is no valid e-mail address",
	"error-invalid-number":                "is no number",
	"error-invalid-date":                  "is no valid date",
	"error-invalid-uri":                   "is no valid address",
	"error-pattern-no-match":              "does not have the form that the realm asks for",
	"error-username-invalid-character":    "has a character that user names may not have",
	"error-person-name-invalid-character": "has a character that names may not have",
	"error-invalid-multivalued-size":      "has too few or too many values",
}

// passwordWords turns the message key of a password policy into words
// (messages_en.properties).
func passwordWords(key string) string {
	for _, w := range []struct{ part, words string }{
		{"MinLength", "it is too short"},
		{"MaxLength", "it is too long"},
		{"MinDigits", "it has too few digits"},
		{"MinLowerCase", "it has too few lower-case letters"},
		{"MinUpperCase", "it has too few upper-case letters"},
		{"MinSpecial", "it has too few special characters"},
		{"NotUsername", "it is the user name"},
		{"NotContainsUsername", "it contains the user name"},
		{"NotEmail", "it is the e-mail address"},
		{"History", "it was used before"},
		{"Blacklisted", "it is on the list of bad passwords"},
		{"RegexPattern", "it does not have the form that is asked for"},
	} {
		if strings.Contains(key, w.part) {
			return w.words
		}
	}
	return "see the realm's password policy"
}
