package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const passing = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"pass","Package":"p","Elapsed":0.25}
{"Action":"skip","Package":"without-tests","Elapsed":0}
`

func TestReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		in      string
		allowed map[string]string
		want    string
		ok      bool
	}{
		{
			name: "passed", in: passing, ok: true,
			want: "ok     p (1 tests, 0.2s)\n1 passed, 0 failed, 0 skipped\n",
		},
		{
			name: "a failure shows its output",
			in: passing + `{"Action":"output","Package":"q","Test":"TestB/x","Output":"got 1\n"}
{"Action":"fail","Package":"q","Test":"TestB/x"}
{"Action":"output","Package":"q","Output":"FAIL\n"}
{"Action":"fail","Package":"q","Elapsed":1}`,
			want: "ok     p (1 tests, 0.2s)\nFAILED q.TestB/x\ngot 1\nFAILED q (1.0s)\nFAIL\n1 passed, 1 failed, 0 skipped\n",
		},
		{
			name: "a package that does not compile counts as a failure",
			in: passing + `{"ImportPath":"q","Action":"build-output","Output":"q.go:1: syntax\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"fail","Package":"q","Elapsed":0}`,
			want: "ok     p (1 tests, 0.2s)\nq.go:1: syntax\nFAILED q (0.0s)\n1 passed, 1 failed, 0 skipped\n",
		},
		{
			name: "a skip must be allowed",
			in: passing + `{"Action":"output","Package":"q","Test":"TestC","Output":"needs postgres\n"}
{"Action":"skip","Package":"q","Test":"TestC"}
{"Action":"pass","Package":"q","Elapsed":0}`,
			want: "ok     p (1 tests, 0.2s)\nok     q (0 tests, 0.0s)\nskipped, but must run: q.TestC\nneeds postgres\n1 passed, 0 failed, 1 skipped\n",
		},
		{
			name: "an allowed skip", allowed: map[string]string{"q.TestC": "only on Windows"}, ok: true,
			in:   passing + `{"Action":"skip","Package":"q","Test":"TestC"}`,
			want: "ok     p (1 tests, 0.2s)\nskipped, allowed: q.TestC (only on Windows)\n1 passed, 0 failed, 1 skipped\n",
		},
		{
			name: "nothing ran", in: "go: no such module\n",
			want: "go: no such module\n0 passed, 0 failed, 0 skipped\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			ok, err := report(strings.NewReader(c.in), &out, c.allowed)
			require.NoError(t, err)
			require.Equal(t, c.want, out.String())
			require.Equal(t, c.ok, ok)
		})
	}
}

func TestAllowedSkipsNeedAReason(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "allowed")
	require.NoError(t, os.WriteFile(file, []byte("# why\n\np.TestA  only on Windows\n"), 0o600))
	allowed, err := readAllowed(file)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"p.TestA": "only on Windows"}, allowed)

	require.NoError(t, os.WriteFile(file, []byte("p.TestA\n"), 0o600))
	_, err = readAllowed(file)
	require.ErrorContains(t, err, "p.TestA has no reason")
}
