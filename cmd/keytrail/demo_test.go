package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/childprocess"
)

// demoLimit is how long a demo may take on a busy machine.
const demoLimit = time.Minute

// The facts of the story, in the order in which it tells them.
var demoFacts = []string{
	`1\. An administrator creates the user bob in Keycloak; it arrives by webhook`,
	`bob in acme: enabled`,
	`by alice`,
	`2\. keytrail disables bob: Keycloak answers 503 twice, then obeys`,
	`OK +user\.disable of bob in acme by operator: failed twice with 503, succeeded at the third attempt; echoed by Keycloak`,
	`attempt 1: 503`,
	`attempt 2: 503`,
	`attempt 3: 204`,
	`that is the echo of this call`,
	`3\. A second bob: the call ends in 409`,
	`FAILED +user\.create of bob in acme by operator: failed with 409`,
	`4\. Somebody changes bob behind our back`,
	`Realm acme has drifted: 1 of 1 users differ\.`,
	`email: believed "bob@example\.com", is "bob@elsewhere\.example"`,
	`enabled: believed false, is true \(last set by operator`,
	`5\. What needs attention: keytrail failures`,
	`2 things need attention`,
	`6\. Who did what: keytrail user history bob`,
	`bob was disabled`,
	`bob was created`,
	`7\. The state in the past: keytrail user show bob --at`,
	`bob in acme: enabled`,
}

func requireStory(t *testing.T, told string) {
	t.Helper()
	rest := told
	for _, fact := range demoFacts {
		found := regexp.MustCompile(fact).FindStringIndex(rest)
		require.NotNil(t, found, "%q is missing, or comes too early, in\n%s", fact, told)
		rest = rest[found[1]:]
	}
}

func TestDemoOnce(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "--once")
	requireEnd(t, d.process)
	d.requireNothingLeft(t)
	requireStory(t, d.out.String())
	require.NotContains(t, d.out.String(), "goes on serving")
}

func TestDemoServesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	timer := time.NewTimer(demoLimit)
	defer timer.Stop()
	var url string
	select {
	case url = <-d.out.found:
	case <-d.process.Done():
		t.Fatalf("the demo ended: %v\n%s%s", d.process.Err(), d.out, d.log)
	case <-timer.C:
		t.Fatalf("the demo does not serve after %s\n%s%s", demoLimit, d.out, d.log)
	}
	var failures struct {
		Items []json.RawMessage `json:"items"`
	}
	getJSON(t, url+"/api/v1/failures", &failures)
	require.Len(t, failures.Items, 2)
	require.NoError(t, d.process.Stop(syscall.SIGINT, demoLimit))
	d.requireNothingLeft(t)
	requireStory(t, d.out.String())
}

// In this process TestMain sees every goroutine that is left over, and the race
// detector the rest.
func TestDemoInProcess(t *testing.T) {
	t.Parallel()
	var out, log bytes.Buffer
	require.Equal(t, exitOK, execute(t.Context(), process{args: []string{"demo", "--once"}, stdin: new(bytes.Buffer), stdout: &out, stderr: &log}), "%s", &log)
	requireStory(t, out.String())
}

// startedDemo is a demo that runs as a program.
type startedDemo struct {
	process *childprocess.Process
	folder  string
	out     *matchWriter
	log     *childprocess.Tail
}

func startDemo(t *testing.T, flags ...string) startedDemo {
	t.Helper()
	d := startedDemo{
		folder: t.TempDir(), log: &childprocess.Tail{},
		out: newMatchWriter(regexp.MustCompile(`keytrail goes on serving at (\S+), `)),
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "keytrail", append([]string{"demo"}, flags...)...)
	// The demo is complete in itself: what a person has configured is none of its business.
	cmd.Env = []string{"TMPDIR=" + d.folder, "KEYTRAIL_STORE_URL=sqlite:/nowhere/at-all.db", "KEYTRAIL_LISTEN=192.0.2.1:1", "GORACE=atexit_sleep_ms=0"}
	cmd.Stdout, cmd.Stderr = d.out, d.log
	var err error
	d.process, err = childprocess.Start(cmd, syscall.SIGKILL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.process.Kill() })
	return d
}

func requireEnd(t *testing.T, p *childprocess.Process) {
	t.Helper()
	timer := time.NewTimer(demoLimit)
	defer timer.Stop()
	select {
	case <-p.Done():
	case <-timer.C:
		t.Fatalf("the program has not ended after %s", demoLimit)
	}
}

// requireNothingLeft checks that the demo has ended well, without a process or a file.
func (d startedDemo) requireNothingLeft(t *testing.T) {
	t.Helper()
	require.NoError(t, d.process.Err(), "%s%s", d.out, d.log)
	require.Empty(t, d.log.String(), "warnings")
	require.ErrorIs(t, syscall.Kill(-d.process.Pid(), 0), syscall.ESRCH, "a process is left over")
	left, err := os.ReadDir(d.folder)
	require.NoError(t, err)
	require.Empty(t, left)
}

func getJSON(t *testing.T, url string, out any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
	require.NoError(t, json.Unmarshal(body, out))
}
