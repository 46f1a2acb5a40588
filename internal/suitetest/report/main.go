// Command report reads the output of `go test -json` and says what happened:
// a line per package, the output of what failed, every skipped test, and last
// the counts, alone on their line: "12 passed, 0 failed, 0 skipped".
//
// It ends with status 1 when something failed, or was skipped without standing
// in the list of allowed skips: a suite that quietly stops running guards
// nothing.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	allowFile := flag.String("allow", "", "file of allowed skips: a line each, PACKAGE.TEST and the reason")
	flag.Parse()
	allowed, err := readAllowed(*allowFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(2)
	}
	ok, err := report(os.Stdin, os.Stdout, allowed)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error: reading the test run:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// event is a line of `go test -json` (go doc test2json; build events: go help
// buildjson).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

type test struct{ pkg, name string }

func (t test) String() string { return t.pkg + "." + t.name }

type tally struct{ passed, failed, skipped int }

// report is true when nothing failed and every skip is allowed.
func report(in io.Reader, out io.Writer, allowed map[string]string) (bool, error) {
	var (
		total      tally
		perPackage = map[string]*tally{}
		output     = map[test]*bytes.Buffer{} // of running tests; name "" is the package itself
		skips      = map[string]string{}      // test to what it said
	)
	lines := bufio.NewReader(in)
	for {
		line, readErr := lines.ReadBytes('\n')
		if text := bytes.TrimSpace(line); len(text) > 0 {
			var e event
			if err := json.Unmarshal(text, &e); err != nil {
				fmt.Fprintln(out, string(text)) // from the go command itself
			} else {
				handle(e, out, &total, perPackage, output, skips)
			}
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return false, readErr
		}
	}

	forbidden := 0
	for _, name := range slices.Sorted(maps.Keys(skips)) {
		reason, ok := allowed[name]
		if ok {
			fmt.Fprintf(out, "skipped, allowed: %s (%s)\n", name, reason)
			continue
		}
		forbidden++
		fmt.Fprintf(out, "skipped, but must run: %s\n%s", name, skips[name])
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	return total.failed == 0 && forbidden == 0 && total.passed > 0, nil
}

func handle(e event, out io.Writer, total *tally, perPackage map[string]*tally, output map[test]*bytes.Buffer, skips map[string]string) {
	key := test{e.Package, e.Test}
	counts := perPackage[e.Package]
	if counts == nil {
		counts = &tally{}
		perPackage[e.Package] = counts
	}
	switch e.Action {
	case "output":
		if output[key] == nil {
			output[key] = &bytes.Buffer{}
		}
		output[key].WriteString(e.Output)
		return
	case "build-output":
		fmt.Fprint(out, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return // start, run, pause, cont, bench, build-fail (the package's own fail follows)
	}

	said := ""
	if output[key] != nil {
		said = output[key].String()
		delete(output, key)
	}
	if e.Test == "" {
		finishPackage(e, out, total, counts, said)
		return
	}
	switch e.Action {
	case "pass":
		counts.passed++
		total.passed++
	case "fail":
		counts.failed++
		total.failed++
		fmt.Fprintf(out, "FAILED %s\n%s", key, said)
	case "skip":
		counts.skipped++
		total.skipped++
		skips[key.String()] = said
	}
}

func finishPackage(e event, out io.Writer, total, counts *tally, said string) {
	switch {
	case e.Action == "fail":
		if counts.failed == 0 { // it does not compile, leaks goroutines, or crashed between tests
			total.failed++
		}
		fmt.Fprintf(out, "FAILED %s (%.1fs)\n%s", e.Package, e.Elapsed, said)
	case *counts == (tally{}):
		// No tests: nothing to say, and not a skipped suite either.
	default:
		fmt.Fprintf(out, "ok     %s (%d tests, %.1fs)\n", e.Package, counts.passed, e.Elapsed)
	}
}

// readAllowed reads the list of allowed skips. A line without a reason is an
// error.
func readAllowed(file string) (map[string]string, error) {
	allowed := map[string]string{}
	if file == "" {
		return allowed, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if reason = strings.TrimSpace(reason); reason == "" {
			return nil, fmt.Errorf("%s: %s has no reason", file, name)
		}
		allowed[name] = reason
	}
	return allowed, nil
}
