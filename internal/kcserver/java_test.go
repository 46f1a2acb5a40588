package kcserver

import (
	"archive/zip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseJavaVersion(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]int{
		"openjdk version \"25.0.3\" 2026-04-21 LTS\nOpenJDK Runtime Environment": 25,
		"openjdk version \"17.0.15\" 2025-04-15":                                 17,
		"openjdk version \"21\" 2023-09-19":                                      21,
		"java version \"1.8.0_402\"":                                             8,
		"Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21.0.2\"":        21,
		"The operation couldn't be completed. Unable to locate a Java Runtime.":  0,
	} {
		require.Equal(t, want, parseJavaVersion(out), out)
	}
}

func TestReleaseFollowsJava(t *testing.T) {
	t.Parallel()
	for major, want := range map[int]string{25: "26.7.3", 21: "26.7.3", 17: "26.4.7"} {
		r, err := releaseFor(java{major: major})
		require.NoError(t, err)
		require.Equal(t, want, r.keycloak, "Java %d", major)
	}
	_, err := releaseFor(java{major: 11})
	require.ErrorIs(t, err, ErrNoJava)
}

func TestUnpackKeepsToItsFolder(t *testing.T) {
	t.Parallel()
	pack := func(name string) string {
		archive := filepath.Join(t.TempDir(), "a.zip")
		f, err := os.Create(archive)
		require.NoError(t, err)
		z := zip.NewWriter(f)
		header := &zip.FileHeader{Name: name}
		header.SetMode(0o750)
		w, err := z.CreateHeader(header)
		require.NoError(t, err)
		_, err = w.Write([]byte("content"))
		require.NoError(t, err)
		require.NoError(t, z.Close())
		require.NoError(t, f.Close())
		return archive
	}
	dir := t.TempDir()
	require.NoError(t, unpack(pack("bin/run.sh"), dir))
	info, err := os.Stat(filepath.Join(dir, "bin", "run.sh"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o750), info.Mode())
	require.Equal(t, int64(len("content")), info.Size())

	require.ErrorContains(t, unpack(pack("../outside"), dir), "escapes")
}
