package kcserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// A release is a Keycloak and the p2-inc keycloak-events that was measured with
// it. The first whose Java is there is used.
type release struct {
	keycloak  string
	extension string
	java      int // lowest major version that runs both
}

// Extension 0.59 is compiled for Java 21 (UnsupportedClassVersionError on 17).
var releases = []release{
	{keycloak: "26.7.3", extension: "0.59", java: 21},
	{keycloak: "26.4.7", extension: "0.50", java: 17},
}

// ErrNoJava says that this machine has no Java that runs a Keycloak.
var ErrNoJava = errors.New("no Java 17 or newer found in JAVA_HOME, PATH, /usr/lib/jvm or /opt; " +
	"try: apt-get install openjdk-21-jre-headless (or -17-; with 21 or newer the newest Keycloak is tested)")

type java struct {
	home  string
	major int
}

// findJava returns the newest Java of the machine. It looks beyond PATH,
// because distributions keep several side by side.
func findJava(ctx context.Context) (java, error) {
	var candidates []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		candidates = append(candidates, filepath.Join(home, "bin", "java"))
	}
	if onPath, err := exec.LookPath("java"); err == nil {
		candidates = append(candidates, onPath)
	}
	for _, pattern := range []string{"/usr/lib/jvm/*/bin/java", "/opt/*/bin/java"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return java{}, err
		}
		candidates = append(candidates, found...)
	}

	var newest java
	seen := map[string]bool{}
	for _, candidate := range candidates {
		program, err := filepath.EvalSymlinks(candidate)
		if err != nil || seen[program] {
			continue // a dangling link of a removed package, or one found already
		}
		seen[program] = true
		if major := javaMajor(ctx, program); major > newest.major {
			newest = java{home: filepath.Dir(filepath.Dir(program)), major: major}
		}
	}
	if newest.major < releases[len(releases)-1].java {
		return java{}, ErrNoJava
	}
	return newest, nil
}

// javaMajor is 0 for a program that does not say its version: such a one is no
// candidate.
func javaMajor(ctx context.Context, program string) int {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "-version").CombinedOutput()
	if err != nil {
		return 0
	}
	return parseJavaVersion(string(out))
}

var javaVersion = regexp.MustCompile(`version "(\d+)(?:\.(\d+))?`)

// parseJavaVersion reads the first line of `java -version`. Java 8 and older
// call themselves 1.8.
func parseJavaVersion(out string) int {
	m := javaVersion.FindStringSubmatch(out)
	if m == nil {
		return 0
	}
	digits := m[1]
	if digits == "1" {
		digits = m[2]
	}
	major, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return major
}

func releaseFor(j java) (release, error) {
	for _, r := range releases {
		if j.major >= r.java {
			return r, nil
		}
	}
	return release{}, fmt.Errorf("Java %d: %w", j.major, ErrNoJava)
}
