package keycloak_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/keycloak"
)

const callID = "0199d2f0-7c1e-7b6a-9d4f-3a5b6c7d8e9f"

func TestStampOf(t *testing.T) {
	t.Parallel()
	stamp := keycloak.Stamp(callID)
	require.Equal(t, "urn:keytrail:call:"+callID, stamp)
	for representation, want := range map[string]string{
		`{"username":"b","self":"` + stamp + `"}`:                         callID,
		` {"self":"urn:keytrail:call:` + strings.ToUpper(callID) + `"}`:   callID,
		`[{"name":"auditor","description":"` + stamp + `"}]`:              callID,
		"\n[{\"description\":\"" + stamp + `"},{"description":"x"}]`:      callID,
		`[{"description":"x"},{"description":"` + stamp + `"}]`:           "",
		`{"description":"` + stamp + `"}`:                                 "",
		`{"attributes":{"self":["` + stamp + `"]}}`:                       "",
		`{"self":["` + stamp + `"]}`:                                      "",
		`{"self":"urn:keytrail:call:"}`:                                   "",
		`{"self":"urn:keytrail:call:not-a-uuid"}`:                         "",
		`{"self":"urn:keytrail:call:{0199d2f07c1e7b6a9d4f3a5b6c7d8e9f}"}`: "",
		`{"self":" ` + stamp + `"}`:                                       "",
		`{"self":"` + stamp:                                               "",
		`[` + stamp + `]`:                                                 "",
		`[]`:                                                              "",
		`"` + stamp + `"`:                                                 "",
		``:                                                                "",
	} {
		got, ok := keycloak.StampOf(representation)
		require.Equal(t, want, got, representation)
		require.Equal(t, want != "", ok)
	}
}

func TestDecodeAPIError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   keycloak.APIError
	}{
		"error sentence": {404, `{"error":"User not found"}`, keycloak.APIError{Status: 404, Kind: keycloak.KindNotFound, Message: "User not found"}},
		"conflict":       {409, `{"errorMessage":"User exists with same username"}`, keycloak.APIError{Status: 409, Kind: keycloak.KindConflict, Message: "User exists with same username"}},
		"one field": {400, `{"field":"email","errorMessage":"error-invalid-email","params":["email","x"]}`, keycloak.APIError{
			Status: 400, Kind: keycloak.KindInvalid, Message: "error-invalid-email",
			Fields: []keycloak.FieldError{{Field: "email", Message: "error-invalid-email"}},
		}},
		"several fields": {400, `{"errors":[{"field":"email","errorMessage":"a"},{"errorMessage":"b","params":[]},{}]}`, keycloak.APIError{
			Status: 400, Kind: keycloak.KindInvalid, Message: "email: a; b",
			Fields: []keycloak.FieldError{{Field: "email", Message: "a"}, {Message: "b"}},
		}},
		"token endpoint": {401, `{"error":"invalid_client","error_description":"Invalid client or Invalid client credentials"}`, keycloak.APIError{
			Status: 401, Kind: keycloak.KindUnauthorized, Code: "invalid_client", Message: "Invalid client or Invalid client credentials",
		}},
		"code only":       {500, `{"error":"unknown_error"}`, keycloak.APIError{Status: 500, Kind: keycloak.KindServer, Code: "unknown_error"}},
		"proxy page":      {502, `<html>token eyJabc</html>`, keycloak.APIError{Status: 502, Kind: keycloak.KindUnavailable}},
		"empty":           {503, ``, keycloak.APIError{Status: 503, Kind: keycloak.KindUnavailable}},
		"odd types":       {429, `{"error":{"a":1},"errors":"x","field":7}`, keycloak.APIError{Status: 429, Kind: keycloak.KindRateLimited}},
		"array":           {403, `["no"]`, keycloak.APIError{Status: 403, Kind: keycloak.KindForbidden}},
		"redirect":        {302, ``, keycloak.APIError{Status: 302, Kind: keycloak.KindRedirect}},
		"strange success": {204, ``, keycloak.APIError{Status: 204, Kind: keycloak.KindUnexpected}},
	} {
		got := keycloak.DecodeAPIError(c.status, []byte(c.body))
		require.Equal(t, c.want, *got, name)
		require.NotEmpty(t, got.Error())
	}
	e := keycloak.DecodeAPIError(409, []byte(`{"errorMessage":"User exists with same username"}`))
	e.Op = "POST /admin/realms/{realm}/users"
	require.EqualError(t, e, "POST /admin/realms/{realm}/users: keycloak answered 409 Conflict: User exists with same username")

	many := `{"errors":[` + strings.TrimSuffix(strings.Repeat(`{"field":"f","errorMessage":"m"},`, 500), ",") + `]}`
	e = keycloak.DecodeAPIError(400, []byte(many))
	require.Len(t, e.Fields, 50)
	require.LessOrEqual(t, len(e.Message), 512)
}

func TestUserNotFoundNeedsTheSentence(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"error":"User not found"}`:     true,
		`{"error":"Realm not found."}`:   false,
		`{"error":"HTTP 404 Not Found"}`: false,
		`<html>User not found</html>`:    false,
		``:                               false,
	} {
		require.Equal(t, want, keycloak.DecodeAPIError(404, []byte(body)).UserNotFound(), body)
	}
	require.False(t, keycloak.DecodeAPIError(400, []byte(`{"error":"User not found"}`)).UserNotFound())
	require.False(t, (*keycloak.APIError)(nil).UserNotFound())
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"User exists with same email":                      "User exists with same email",
		"token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln!": "token [redacted]!",
		"Authorization: Bearer abcdefgh12345678":           "Authorization: Bearer [redacted]",
		"Basic a2V5dHJhaWw6c2VjcmV0":                       "Basic [redacted]",
		"client_secret=hunter2&x=1":                        "client_secret=[redacted]&x=1",
		`{"password":"two words","x":1}`:                   `{"password":[redacted],"x":1}`,
		`{"client_secret": "cut`:                           `{"client_secret": [redacted]`,
		"line one\r\nline two\x00":                         "line one  line two",
		"bad \xff byte":                                    "bad \uFFFD byte",
	} {
		require.Equal(t, want, keycloak.Redact(in), in)
	}
	rapid.Check(t, func(t *rapid.T) {
		out := keycloak.Redact(string(rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "text")))
		require.LessOrEqual(t, len(out), 512)
		require.True(t, utf8.ValidString(out))
		require.NotContains(t, out, "\n")
	})
}

// Absent, empty and null differ in what Keycloak means by them.
func TestUserKeepsAbsentApart(t *testing.T) {
	t.Parallel()
	const body = `{"id":"1212","username":"b","email":"","enabled":false,"attributes":{},"requiredActions":[]}`
	var u keycloak.User
	require.NoError(t, json.Unmarshal([]byte(body), &u))
	require.Nil(t, u.FirstName)
	require.NotNil(t, u.Email)
	require.NotNil(t, u.Attributes)
	encoded, err := json.Marshal(u)
	require.NoError(t, err)
	require.JSONEq(t, body, string(encoded))
}
