package outbound_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// Keycloak says the same in many ways; the catalogue says it in one.
func TestKeycloaksBodiesBecomeCodesAndWords(t *testing.T) {
	t.Parallel()
	const put = "PUT /admin/realms/{realm}/users/{id}"
	for _, c := range []struct {
		op     string
		status int
		body   string
		code   adapter.Code
		words  string
		said   string
	}{
		{put, 400, `{"field":"email","errorMessage":"error-invalid-email","params":["email","x"]}`, adapter.CodeKeycloakInvalid, "email is no valid e-mail address", "error-invalid-email"},
		{put, 400, `{"errors":[{"field":"username","errorMessage":"error-invalid-length"},{"field":"x","errorMessage":"of-a-newer-version"}]}`, adapter.CodeKeycloakInvalid, "username has a wrong length; x is not accepted", "username: error-invalid-length; x: of-a-newer-version"},
		{put, 400, `{"error":"Cannot parse the JSON"}`, adapter.CodeKeycloakInvalid, "does not accept the values", "Cannot parse the JSON"},
		{put, 400, `{"errorMessage":"User name is missing"}`, adapter.CodeKeycloakInvalid, "does not accept the values", "User name is missing"},
		{put, 400, `{"error":"invalidPasswordHistoryMessage","error_description":"Invalid password: must not be equal to any of last 3 passwords."}`, adapter.CodePasswordRejected, "used before", "invalidPasswordHistoryMessage"},
		{put, 400, `{"errorMessage":"User email missing"}`, adapter.CodeEmailMissing, "no e-mail address", "User email missing"},
		{put, 400, `{"errorMessage":"User is disabled"}`, adapter.CodeUserDisabled, "the user is disabled", "User is disabled"},
		{put, 401, `{"error":"HTTP 401 Unauthorized"}`, adapter.CodeKeycloakUnauthorized, "token", "HTTP 401 Unauthorized"},
		{put, 403, `{"error":"HTTP 403 Forbidden"}`, adapter.CodeKeycloakForbidden, "manage-users", "HTTP 403 Forbidden"},
		{"GET /admin/realms/{realm}/users/{id}", 403, `{"error":"unknown_error"}`, adapter.CodeKeycloakForbidden, "view-users", ""},
		{"GET /admin/realms/{realm}/roles/{name}", 403, ``, adapter.CodeKeycloakForbidden, "view-realm", ""},
		{"GET /admin/realms/{realm}/clients", 403, ``, adapter.CodeKeycloakForbidden, "view-clients", ""},
		{"POST /admin/realms/{realm}/organizations/{organization}/members", 403, ``, adapter.CodeKeycloakForbidden, "manage-organizations", ""},
		{"POST /admin/realms/{realm}/users/{id}/role-mappings/realm", 403, ``, adapter.CodeKeycloakForbidden, "every administrative role", ""},
		{put, 404, `{"error":"User not found"}`, adapter.CodeUserNotFound, "user does not exist", "User not found"},
		{put, 404, `{"error":"Realm not found."}`, adapter.CodeRealmNotFound, "no realm", "Realm not found."},
		{put, 404, `{"error":"HTTP 404 Not Found"}`, adapter.CodeKeycloakNotFound, "KEYTRAIL_KEYCLOAK_URL", "HTTP 404 Not Found"},
		{put, 404, `<html>`, adapter.CodeKeycloakNotFound, "KEYTRAIL_KEYCLOAK_URL", ""},
		{put, 404, `{"error":"Role not found"}`, adapter.CodeRoleNotFound, "role does not exist", "Role not found"},
		{put, 404, `{"error":"Could not find role"}`, adapter.CodeRoleNotFound, "role does not exist", "Could not find role"},
		{put, 404, `{"error":"Could not find group by id"}`, adapter.CodeGroupNotFound, "group does not exist", "Could not find group by id"},
		{put, 404, `{"error":"Client not found"}`, adapter.CodeClientNotFound, "client does not exist", "Client not found"},
		{put, 409, `{"errorMessage":"User exists with same username"}`, adapter.CodeKeycloakConflict, "user name is taken", "User exists with same username"},
		{put, 409, `{"errorMessage":"User exists with same email"}`, adapter.CodeKeycloakConflict, "e-mail address is taken", "User exists with same email"},
		{put, 409, `{"errorMessage":"User exists with same username or email"}`, adapter.CodeKeycloakConflict, "name or e-mail address is taken", "User exists with same username or email"},
		{put, 409, `{"errorMessage":"User is already a member of the organization."}`, adapter.CodeKeycloakConflict, "member already", "User is already a member of the organization."},
		{put, 429, ``, adapter.CodeKeycloakUnavailable, "overloaded", ""},
		{put, 500, `{"errorMessage":"Failed to send verify email"}`, adapter.CodeKeycloakMailFault, "e-mail", "Failed to send verify email"},
		{put, 500, `{"error":"unknown_error"}`, adapter.CodeKeycloakUnavailable, "failed inside", ""},
		{put, 502, `<html>`, adapter.CodeKeycloakUnavailable, "proxy", ""},
		{put, 302, ``, adapter.CodeKeycloakRejected, "302", ""},
	} {
		answer := keycloak.DecodeAPIError(c.status, []byte(c.body))
		answer.Op = c.op
		got := outbound.Explain(answer)
		require.Equal(t, c.code, got.Code, c.body)
		require.Contains(t, got.Message, c.words, c.body)
		require.Equal(t, c.said, got.Keycloak, c.body)
		require.Equal(t, c.code.Explain(), got.Explanation)
		require.NotEmpty(t, got.Cause)
		require.NotEmpty(t, got.Next)
	}
	for code, err := range map[adapter.Code]error{
		adapter.CodeKeycloakUnreachable:  &admin.TokenError{Err: &admin.TransportError{Kind: admin.KindRefused}},
		adapter.CodeInterrupted:          &admin.TransportError{Kind: admin.KindCanceled, Err: context.Canceled},
		adapter.CodeKeycloakUnauthorized: &admin.TokenError{Err: keycloak.DecodeAPIError(401, []byte(`{"error":"invalid_client"}`))},
		adapter.CodeKeycloakUnavailable:  &admin.DecodeError{Status: 200, Err: errors.New("half")},
		adapter.CodeInternal:             errors.New("odd"),
		adapter.CodeNotMember:            adapter.Errorf(adapter.CodeNotMember, "no"),
	} {
		require.Equal(t, code, outbound.Explain(err).Code)
	}
	require.Zero(t, outbound.Explain(nil))
}

// What Keycloak said is kept, without secrets and without end.
func TestWhatKeycloakSaidIsRedactedAndBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 10_000)
	answer := keycloak.DecodeAPIError(400, []byte(`{"errorMessage":"Bearer eyJhbGciOiJub25lIn0.canary.canary `+long+`"}`))
	got := outbound.Explain(answer)
	require.NotContains(t, got.Keycloak, "canary")
	require.LessOrEqual(t, len(got.Keycloak), 512)
}
