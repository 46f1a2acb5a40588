package contract

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lockPause is how long failed logins may take to be counted.
const lockPause = 3 * time.Second

// lockout fails logins until brute force detection locks the user for a while.
func (s *suite) lockout(t *testing.T) {
	r := s.newRealm(t, map[string]any{
		"bruteForceProtected": true, "failureFactor": 2, "waitIncrementSeconds": 600, "maxFailureWaitSeconds": 900,
	})
	id := r.createUser(`{"username":"lou","email":"lou@example.com","firstName":"L","lastName":"O","enabled":true,"credentials":[{"type":"password","value":"hunter2"}]}`)
	status := "/attack-detection/brute-force/users/" + id
	fields := []string{
		"failedLoginNotBefore", "numFailures", "numTemporaryLockouts", "disabled", "numSecondaryAuthFailures", "lastIPFailure", "lastFailure",
	}
	fresh := r.must(http.MethodGet, status, nil).object(t)
	require.ElementsMatch(t, fields, keys(fresh))
	require.Equal(t, false, fresh["disabled"])

	login := func(password string) answer {
		return r.grant(t, r.name, url.Values{"grant_type": {"password"}, "client_id": {"person"}, "username": {"lou"}, "password": {password}})
	}
	require.Equal(t, http.StatusOK, login("hunter2").status)
	r.must(http.MethodPut, "/users/"+id, `{"lastName":""}`)
	require.Equal(t, "Account is not fully set up", login("hunter2").object(t)["error_description"], "people must have a whole name and an e-mail")
	r.must(http.MethodPut, "/users/"+id, `{"lastName":"O"}`)

	lock := func() {
		t.Helper()
		// A thread of its own counts the failures, and now and then not both of two that come
		// right after each other (26.7.3).
		var tried time.Time
		for limit := time.Now().Add(within); r.must(http.MethodGet, status, nil).object(t)["disabled"] != true; {
			require.True(t, time.Now().Before(limit), "not locked after %s", within)
			if time.Since(tried) < lockPause {
				continue
			}
			tried = time.Now()
			for range 2 {
				require.Equal(t, http.StatusBadRequest, login("wrong").status)
			}
		}
	}
	lock()
	require.Equal(t, true, r.user(id)["enabled"], "locked, and enabled all the same")
	require.Equal(t, "invalid_grant", login("hunter2").object(t)["error"])
	pushed := r.hook.waitType(t, "access.USER_DISABLED_BY_TEMPORARY_LOCKOUT").event
	require.ElementsMatch(t, []string{"reason", "not_before", "num_failures"}, keys(pushed["details"].(map[string]any))) //nolint:forcetypeassert // fails the test
	r.hook.waitType(t, "access.LOGIN_ERROR")

	// Enabling unlocks, with an event of its own that deletes no user.
	events := r.emitted(func() { r.must(http.MethodPut, "/users/"+id, `{"enabled":true}`) })
	require.Len(t, events, 2)
	seen := map[any]any{}
	for _, e := range events {
		require.Equal(t, "users/"+id, e["resourcePath"])
		seen[e["resourceType"]] = e["operationType"]
		r.hook.waitID(t, e["id"])
	}
	require.Equal(t, map[any]any{"USER": "UPDATE", "USER_LOGIN_FAILURE": "DELETE"}, seen)
	require.Equal(t, http.StatusOK, login("hunter2").status)

	lock()
	r.emits("USER_LOGIN_FAILURE", "DELETE", "attack-detection/brute-force/users/"+id, "", func() { r.must(http.MethodDelete, status, nil) })
	require.Empty(t, r.emitted(func() { r.must(http.MethodDelete, status, nil) }), "nothing to clear")
	require.Equal(t, http.StatusOK, login("hunter2").status)
}
