package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/internal/childprocess"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
)

// Secrets of the scripts. None of them may appear in anything that keytrail writes.
const (
	scriptClientSecret  = "cl13nt-s3cret-of-the-scripts"
	scriptWebhookSecret = "wh-s3cret-of-the-scripts"
	scriptPassword      = "in1tial-passw0rd-of-the-scripts"
)

// waitLimit is how long a script waits for a fact.
const waitLimit = 20 * time.Second

// TestScripts runs testdata/script, what a person would type, on each store.
//
// Commands beyond testscript's own:
//
//	exits N COMMAND…     run it, expect this exit status (0|3: or that), and look for secrets in what it prints
//	json PATH == TEXT    judge the JSON printed last; also !=, ~ REGEXP, and -> VARIABLE to keep it.
//	                     A path is keys, indexes, name=value (the first such element), and length
//	lines N [REGEXP]     so many lines (that match) were printed
//	http [N] METHOD PATH [BODY]   a request to serve, expecting status N (any 2xx)
//	push [N] FILE        send the file to the webhook with a good signature
//	await [-within D] http METHOD PATH PATH-IN-JSON == TEXT
//	await [-within D] COMMAND…    run it until it exits 0
//	serve start|stop|kill [FLAG…] keytrail serve, as $KEYTRAIL
//	kc …                 the fake Keycloak and the administrator in it, see keycloak_test.go
func TestScripts(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		runScripts(t, func(e *testscript.Env) string { return "sqlite:" + filepath.Join(e.WorkDir, "k.db") })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		_ = dbtest.Postgres(t) // skips where PostgreSQL is missing
		runScripts(t, func(e *testscript.Env) string { return dbtest.Postgres(e.T().(testing.TB)) })
	})
}

func runScripts(t *testing.T, storeURL func(*testscript.Env) string) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(cond string) (bool, error) {
			return strings.HasSuffix(t.Name(), "/"+cond), nil
		},
		Setup: func(e *testscript.Env) error {
			w := &world{}
			e.Values[worldKey{}] = w
			e.Setenv("KEYTRAIL_STORE_URL", storeURL(e))
			e.Setenv("KEYTRAIL_LISTEN", "127.0.0.1:0")
			e.Setenv("KEYTRAIL_WEBHOOK_SECRET", scriptWebhookSecret)
			// What runs by the clock would make scripts that count requests guess.
			e.Setenv("KEYTRAIL_POLL_INTERVAL", "0")
			e.Setenv("KEYTRAIL_RECONCILE_INTERVAL", "0")
			e.Setenv("KEYTRAIL_RECONCILE_SETTLE", "0")
			if e.Getenv("GORACE") == "" {
				e.Setenv("GORACE", "atexit_sleep_ms=0") // each command would end a second late
			}
			e.Defer(func() {
				w.close()
				w.findSecrets(e.T().(testing.TB), e.WorkDir)
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "json": judgeJSON, "lines": countLines, "http": request, "push": push, "await": await, "serve": serve, "kc": keycloakCommand,
		},
	})
}

type worldKey struct{}

// world is what one script has beside its folder.
type world struct {
	fake    *fakeKeycloak
	serving *childprocess.Process
	// transcript is all that keytrail printed.
	transcript bytes.Buffer
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func (w *world) close() {
	if w.serving != nil {
		_ = w.serving.Kill()
	}
	if w.fake != nil {
		w.fake.server.Close()
	}
}

// findSecrets looks for secrets in everything that was printed, logged or stored in
// the script's folder.
func (w *world) findSecrets(t testing.TB, folder string) {
	look := func(where string, text []byte) {
		for _, secret := range []string{scriptClientSecret, scriptWebhookSecret, scriptPassword, "eyJ", "Bearer "} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds the secret %q", where, secret)
			}
		}
	}
	look("the output of the commands", w.transcript.Bytes())
	kept, err := filepath.Glob(filepath.Join(folder, "k.db*"))
	if err != nil {
		t.Error(err)
	}
	logs, err := filepath.Glob(filepath.Join(folder, "serve.*"))
	if err != nil {
		t.Error(err)
	}
	for _, name := range append(kept, logs...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		look(filepath.Base(name), text)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	got := strconv.Itoa(runCommand(ts, args[1:]))
	if !slices.Contains(strings.Split(args[0], "|"), got) {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

func runCommand(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	w := worldOf(ts)
	w.transcript.WriteString(ts.ReadFile("stdout"))
	w.transcript.WriteString(ts.ReadFile("stderr"))
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Fatalf("%s: %v", args[0], err)
	return -1
}

func judgeJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: json PATH ==|!=|~|-> VALUE")
	}
	got, err := lookup([]byte(ts.ReadFile("stdout")), args[0])
	ts.Check(err)
	if args[1] == "->" {
		ts.Setenv(args[2], got)
		return
	}
	ok, err := holds(got, args[1], args[2])
	ts.Check(err)
	if !ok {
		ts.Fatalf("%s is %q, want %s %q", args[0], got, args[1], args[2])
	}
}

func holds(got, operator, want string) (bool, error) {
	switch operator {
	case "==":
		return got == want, nil
	case "!=":
		return got != want, nil
	case "~":
		re, err := regexp.Compile(want)
		return err == nil && re.MatchString(got), err
	}
	return false, fmt.Errorf("no such comparison: %s", operator)
}

// lookup finds what a path leads to: a text, number or truth value as it is, anything
// else as JSON. A path that leads nowhere finds "absent".
func lookup(text []byte, path string) (string, error) {
	var at any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&at); err != nil {
		return "", fmt.Errorf("what was printed is not JSON: %w", err)
	}
	for step := range strings.SplitSeq(path, ".") {
		switch v := at.(type) {
		case map[string]any:
			var ok bool
			if at, ok = v[step]; !ok {
				return "absent", nil
			}
		case []any:
			if step == "length" {
				return strconv.Itoa(len(v)), nil
			}
			i, err := strconv.Atoi(step)
			if err != nil {
				i = index(v, step)
			}
			if i < 0 || i >= len(v) {
				return "absent", nil
			}
			at = v[i]
		default:
			return "absent", nil
		}
	}
	switch v := at.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	}
	out, err := json.Marshal(at)
	return string(out), err
}

func index(elements []any, step string) int {
	name, value, _ := strings.Cut(step, "=")
	for i, e := range elements {
		if o, ok := e.(map[string]any); ok && fmt.Sprint(o[name]) == value {
			return i
		}
	}
	return -1
}

func countLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: lines N [REGEXP]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	re := regexp.MustCompile("")
	if len(args) == 2 {
		re, err = regexp.Compile(args[1])
		ts.Check(err)
	}
	n := 0
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if re.MatchString(line) {
			n++
		}
	}
	if n != want {
		ts.Fatalf("%d such lines, want %d", n, want)
	}
}

func request(ts *testscript.TestScript, neg bool, args []string) {
	want, args := statusAndRest(args)
	if neg || len(args) < 2 {
		ts.Fatalf("usage: http [STATUS] METHOD PATH [BODY]")
	}
	answer(ts, want, args[0], args[1], strings.Join(args[2:], " "), nil)
}

func push(ts *testscript.TestScript, neg bool, args []string) {
	want, args := statusAndRest(args)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: push [STATUS] FILE")
	}
	body := ts.ReadFile(args[0])
	answer(ts, want, http.MethodPost, "/webhooks/keycloak", body, http.Header{
		keycloaktest.SignatureHeader: {keycloaktest.Sign(scriptWebhookSecret, []byte(body))},
	})
}

func statusAndRest(args []string) (status int, rest []string) {
	if len(args) > 0 {
		if n, err := strconv.Atoi(args[0]); err == nil {
			return n, args[1:]
		}
	}
	return 0, args
}

// answer prints the answer to a request, which must have the status; 0 is any good one.
func answer(ts *testscript.TestScript, want int, method, path, body string, header http.Header) {
	status, text, err := send(ts, method, path, body, header)
	ts.Check(err)
	_, err = ts.Stdout().Write(text)
	ts.Check(err)
	worldOf(ts).transcript.Write(text)
	if status != want && (want != 0 || status >= http.StatusMultipleChoices) {
		ts.Fatalf("status %d\n%s", status, text)
	}
}

func send(ts *testscript.TestScript, method, path, body string, header http.Header) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, ts.Getenv("KEYTRAIL")+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Close = true // nothing is left over when the script ends
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, header)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, errors.Join(err, resp.Body.Close())
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	limit := waitLimit
	if len(args) > 2 && args[0] == "-within" {
		var err error
		limit, err = time.ParseDuration(args[1])
		ts.Check(err)
		args = args[2:]
	}
	if neg || len(args) < 1 || (args[0] == "http" && len(args) != 6) {
		ts.Fatalf("usage: await [-within D] COMMAND…, or await [-within D] http METHOD PATH PATH-IN-JSON OPERATOR VALUE")
	}
	attempt := func() (ok bool, seen string) {
		if args[0] != "http" {
			return runCommand(ts, args) == 0, ts.ReadFile("stderr")
		}
		_, body, err := send(ts, args[1], args[2], "", nil)
		ts.Check(err)
		got, err := lookup(body, args[3])
		ts.Check(err)
		ok, err = holds(got, args[4], args[5])
		ts.Check(err)
		return ok, string(body)
	}
	started := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, seen := attempt()
		took := time.Since(started)
		if ok && took <= limit {
			ts.Logf("after %s", took.Round(time.Millisecond))
			return
		}
		if took > limit {
			ts.Fatalf("not within %s, at last:\n%s", limit, seen)
		}
		<-tick.C
	}
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: serve start|stop|kill [FLAG…]")
	}
	w := worldOf(ts)
	switch args[0] {
	case "start":
		ts.Check(w.serve(ts, args[1:]))
	case "stop":
		ts.Check(w.serving.Stop(syscall.SIGINT, waitLimit))
		if err := w.serving.Err(); err != nil {
			ts.Fatalf("serve ended with %v\n%s", err, ts.ReadFile("serve.log"))
		}
	case "kill":
		ts.Check(w.serving.Kill())
	default:
		ts.Fatalf("serve %s?", args[0])
	}
}

// serve starts keytrail serve with the script's environment and waits until it says
// where it serves.
func (w *world) serve(ts *testscript.TestScript, flags []string) error {
	cmd := exec.CommandContext(context.Background(), "keytrail", append([]string{"serve"}, flags...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GORACE", "GOCOVERDIR"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	for _, s := range config.Settings() {
		if v := ts.Getenv(s.Env); v != "" {
			cmd.Env = append(cmd.Env, s.Env+"="+v)
		}
	}
	log, err := os.OpenFile(ts.MkAbs("serve.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	out := newMatchWriter(servesAt)
	cmd.Stdout, cmd.Stderr = out, log
	if w.serving, err = childprocess.Start(cmd, syscall.SIGKILL); err != nil {
		return err
	}
	url, err := awaitAddress(w.serving, out)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, ts.ReadFile("serve.log"))
	}
	ts.Setenv("KEYTRAIL", url)
	return nil
}

// servesAt is what serve prints once it serves.
var servesAt = regexp.MustCompile(`keytrail serves at (\S+)\n`)

// matchWriter keeps a program's standard output and tells the first thing in it that
// matches. It may be read once the program has ended.
type matchWriter struct {
	text  bytes.Buffer // not embedded: its ReadFrom would get past Write
	match *regexp.Regexp
	found chan string
}

func newMatchWriter(match *regexp.Regexp) *matchWriter {
	return &matchWriter{match: match, found: make(chan string, 1)}
}

func (w *matchWriter) Write(b []byte) (int, error) {
	n, err := w.text.Write(b)
	if m := w.match.FindSubmatch(w.text.Bytes()); m != nil {
		select {
		case w.found <- string(m[1]):
		default: // it has been told, and nobody has asked
		}
	}
	return n, err
}

func (w *matchWriter) String() string { return w.text.String() }

// awaitAddress waits until a serve says where it serves.
func awaitAddress(p *childprocess.Process, out *matchWriter) (string, error) {
	timer := time.NewTimer(waitLimit)
	defer timer.Stop()
	select {
	case url := <-out.found:
		return url, nil
	case <-p.Done():
		return "", fmt.Errorf("serve ended while starting: %w", cmp.Or(p.Err(), errors.New("exit status 0")))
	case <-timer.C:
		return "", fmt.Errorf("serve is not ready after %s", waitLimit)
	}
}
