package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteEnvIsReadBackByAShell(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keycloak.env")
	const odd = `it's $HOME; "x"`
	require.NoError(t, writeEnv(file, [][2]string{{"PLAIN", "http://127.0.0.1:8090"}, {"ODD", odd}}))

	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), "PLAIN=http://127.0.0.1:8090\n")
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `set -a; . "$1"; sh -c 'printf %s "$ODD"'`, "sh", file).Output()
	require.NoError(t, err)
	require.Equal(t, odd, string(out))
}
