package e2e_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/adapter/trace"
)

// The same by a person at a terminal, in processes of their own beside the one that
// serves: it notices what they have written, and they see what it has received.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "keytrail")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "github.com/keytrail/keytrail/cmd/keytrail")
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)

	onBothStores(t, options{}, func(t *testing.T, b *bundle) {
		b.start()
		b.register(b.tap.URL)
		// run is one command and its exit status.
		run := func(want int, args ...string) (stdout, stderr string) {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), program, args...)
			var out, errs strings.Builder
			cmd.Env, cmd.Stdout, cmd.Stderr = b.environment(), &out, &errs
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				require.NoError(t, err)
			}
			require.Equal(t, want, cmd.ProcessState.ExitCode(), "keytrail %s\n%s%s", strings.Join(args, " "), out.String(), errs.String())
			return out.String(), errs.String()
		}
		type outcome struct {
			CallID uuid.UUID `json:"call_id"`
			UserID string    `json:"user_id"`
			// Code is why it was refused.
			Code string `json:"code"`
		}
		command := func(want int, args ...string) outcome {
			t.Helper()
			out, _ := run(want, append(args, "--json", "--actor", "olga")...)
			var o outcome
			require.NoError(t, json.Unmarshal([]byte(out), &o), "%s", out)
			if want == 0 {
				b.untilEchoed(o.CallID) // by the process that serves
			}
			return o
		}

		judy := command(0, "user", "create", "judy", "--email", "judy@example.com", "--last-name", "Stone", "--reason", "hired").UserID
		command(0, "user", "update", "judy", "--last-name", "Steele", "--reason", "married")
		disabled := command(0, "user", "disable", "judy", "--reason", "on leave")
		require.Equal(t, "already_disabled", command(1, "user", "disable", judy).Code)
		require.Equal(t, "keycloak_conflict", command(1, "user", "create", "judy").Code)
		command(0, "user", "enable", judy, "--reason", "back")
		b.untilStory(judy, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiDisabled, adapter.TypeUserApiEnabled)

		for command, facts := range map[string][]string{
			"trace " + disabled.CallID.String(): {"on leave", "olga", disabled.CallID.String()},
			"user history judy":                 {"hired", "married", "on leave", "back", "Stone", "Steele"},
			"user show judy":                    {"judy@example.com", "Steele", judy},
			"failures":                          {"User exists with same username", "olga"},
		} {
			text, _ := run(0, strings.Fields(command)...)
			encoded, _ := run(0, strings.Fields(command+" --json")...)
			require.True(t, json.Valid([]byte(encoded)))
			for _, fact := range facts {
				require.Contains(t, text, fact)
				require.Contains(t, encoded, fact)
			}
		}
		var told trace.Trace
		encoded, _ := run(0, "trace", judy, "--json")
		require.NoError(t, json.Unmarshal([]byte(encoded), &told))
		require.Equal(t, get[trace.Trace](b, "/traces/"+judy), told, "the command line's JSON is the API's")

		everyCallIsAccountedFor(t, b)
		run(0, "reconcile")
		require.NoError(t, b.realm.SetEvents(t.Context(), false))
		b.admin(http.MethodPut, "/users/"+judy, object{"firstName": "Judith"})
		require.NoError(t, b.realm.SetEvents(t.Context(), true))
		encoded, _ = run(1, "reconcile", "--json")
		var result reconcile.Result
		require.NoError(t, json.Unmarshal([]byte(encoded), &result))
		require.Len(t, result.Findings, 1)
		require.Equal(t, adapter.FieldFirstName, result.Findings[0].Fields[0].Field)

		const rows = `SELECT * FROM user_api_projections ORDER BY realm, user_id`
		before := b.rows(rows)
		run(0, "projections", "rebuild", "users")
		require.Equal(t, before, b.rows(rows))

		command(0, "user", "delete", "judy", "--reason", "retired")
		b.untilStory(judy, adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiDisabled, adapter.TypeUserApiEnabled, adapter.TypeUserApiDeleted)
		run(1, "trace", uuid.NewString())
		run(2, "user", "frobnicate")

		b.proxy.Close()
		_, complaint := run(3, "reconcile")
		require.Contains(t, complaint, "Try:")
		require.Equal(t, "keycloak_unreachable", command(3, "user", "disable", judy).Code)
		require.NotContains(t, b.database(), b.realm.ClientSecret)
	})
}
