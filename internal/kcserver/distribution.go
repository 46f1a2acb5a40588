package kcserver

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/internal/childprocess"
)

// recipe is part of the prepared folder's name. Raise it when the steps or the
// build options change, so that nobody starts a folder prepared the old way.
const recipe = "1"

// buildOptions are fixed at build time ("augmentation"); a server started with
// --optimized takes them as they are. A build takes 25 s on two idle cores, a
// start without one 13 s (26.7.3, measured).
//
// The event store must be named because the extension brings a second one, and
// with two Keycloak has no default: it would save no events, and answer 500 to
// GET /admin-events.
var buildOptions = []string{
	"--db=dev-file",
	"--health-enabled=true",
	"--spi-events-store--provider=jpa",
}

const (
	mavenPlugin   = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:get"
	mavenTimeout  = 15 * time.Minute
	buildTimeout  = 10 * time.Minute
	maxUnpackedMB = 1 << 10
)

// ErrNoMaven says that Keycloak is neither in the local Maven repository nor
// can be fetched into it.
var ErrNoMaven = errors.New("mvn is needed to fetch Keycloak; try: apt-get install maven")

// A distribution is an unpacked and built Keycloak. It is only read when a
// server runs: each server has a folder of its own that links here.
type distribution struct {
	release

	java java
	dir  string
}

// prepare returns the built distribution from the cache folder, making it
// first where it is not there yet. Two processes may do so at once: the first
// to finish wins.
func prepare(ctx context.Context, opts Options) (*distribution, error) {
	j, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	r, err := releaseFor(j)
	if err != nil {
		return nil, err
	}
	cache := opts.CacheDir
	if cache == "" {
		userCache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("looking for a cache folder for Keycloak: %w", err)
		}
		cache = filepath.Join(userCache, "keytrail")
	}
	name := "keycloak-" + r.keycloak + "-events-" + r.extension + "-recipe-" + recipe
	if opts.WithoutExtension {
		name = "keycloak-" + r.keycloak + "-plain-recipe-" + recipe
	}
	d := &distribution{release: r, java: j, dir: filepath.Join(cache, name)}
	if _, err := os.Stat(d.dir); err == nil {
		return d, nil
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(cache, name+".unfinished-")
	if err != nil {
		return nil, err
	}
	err = d.make(ctx, work, opts)
	if err == nil {
		err = os.Rename(filepath.Join(work, "keycloak-"+r.keycloak), d.dir)
		if _, statErr := os.Stat(d.dir); statErr == nil {
			err = nil // another process was faster
		}
	}
	if err := errors.Join(err, os.RemoveAll(work)); err != nil {
		return nil, fmt.Errorf("preparing Keycloak %s: %w", r.keycloak, err)
	}
	return d, nil
}

func (d *distribution) make(ctx context.Context, work string, opts Options) error {
	server, err := d.fetch(ctx, opts.Log, "org.keycloak", "keycloak-quarkus-dist", d.keycloak, "zip")
	if err != nil {
		return err
	}
	if err := unpack(server, work); err != nil {
		return err
	}
	home := filepath.Join(work, "keycloak-"+d.keycloak)
	if !opts.WithoutExtension {
		extension, err := d.fetch(ctx, opts.Log, "io.phasetwo.keycloak", "keycloak-events", d.extension, "jar")
		if err != nil {
			return err
		}
		if err := copyFile(extension, filepath.Join(home, "providers", filepath.Base(extension)), 0o644); err != nil {
			return err
		}
	}
	options := buildOptions
	if opts.WithoutExtension {
		options = buildOptions[:2] // one event store only: nothing to choose
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	build := exec.CommandContext(ctx, filepath.Join(home, "bin", "kc.sh"), append([]string{"build"}, options...)...)
	build.Env = d.environment()
	return runStep(build, opts.Log)
}

// fetch returns the path of an artifact in the local Maven repository, and
// runs Maven only when it is not there yet.
func (d *distribution) fetch(ctx context.Context, log io.Writer, group, artifact, version, kind string) (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("looking for the local Maven repository: %w", err)
	}
	repository := filepath.Join(home, ".m2", "repository")
	file := filepath.Join(repository, filepath.FromSlash(strings.ReplaceAll(group, ".", "/")), artifact, version,
		artifact+"-"+version+"."+kind)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	coordinates := group + ":" + artifact + ":" + version + ":" + kind
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", coordinates, ErrNoMaven)
	}
	ctx, cancel := context.WithTimeout(ctx, mavenTimeout)
	defer cancel()
	// The repository is named so that a settings.xml cannot move it from where we look.
	get := exec.CommandContext(ctx, mvn, "--quiet", "--batch-mode", "-Dmaven.repo.local="+repository,
		mavenPlugin, "-Dtransitive=false", "-Dartifact="+coordinates)
	get.Env = append(os.Environ(), "JAVA_HOME="+d.java.home)
	if err := runStep(get, log); err != nil {
		return "", fmt.Errorf("fetching %s: %w", coordinates, err)
	}
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("fetching %s: Maven ended well without it: %w", coordinates, err)
	}
	return file, nil
}

// environment is ours without what would change how Keycloak starts: its own
// settings, the debugger's, the extension's.
func (d *distribution) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "KC_") || strings.HasPrefix(name, "KEYCLOAK_") || strings.HasPrefix(name, "QUARKUS_") ||
			strings.HasPrefix(name, "WEBHOOK_") || strings.HasPrefix(name, "JAVA_") || strings.HasPrefix(name, "DEBUG")
	})
	return append(env, "JAVA_HOME="+d.java.home)
}

// newHome makes a folder that looks like an installation of its own: what is
// only read is linked, the data and temporary files are new and empty.
func (d *distribution) newHome() (string, error) {
	home, err := os.MkdirTemp("", "keytrail-keycloak-")
	if err != nil {
		return "", err
	}
	fill := func() error {
		for _, read := range []string{"lib", "providers", "conf", "themes", "version.txt"} {
			if err := os.Symlink(filepath.Join(d.dir, read), filepath.Join(home, read)); err != nil {
				return err
			}
		}
		for _, own := range []string{"bin", "tmp", filepath.Join("data", "import")} {
			if err := os.MkdirAll(filepath.Join(home, own), 0o700); err != nil {
				return err
			}
		}
		// A copy, not a link: kc.sh takes the folder above its real path for its home.
		return copyFile(filepath.Join(d.dir, "bin", "kc.sh"), filepath.Join(home, "bin", "kc.sh"), 0o755)
	}
	if err := fill(); err != nil {
		return "", errors.Join(fmt.Errorf("making a home for Keycloak: %w", err), os.RemoveAll(home))
	}
	return home, nil
}

func runStep(cmd *exec.Cmd, log io.Writer) error {
	tail := &childprocess.Tail{}
	cmd.Stdout = tail
	if log != nil {
		cmd.Stdout = io.MultiWriter(tail, log)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, tail)
	}
	return nil
}

// unpack extracts a zip archive below dir and keeps the permission bits.
func unpack(archive, dir string) (err error) {
	r, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("opening %s: %w", archive, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	root, err := os.OpenRoot(dir) // refuses names that lead out of it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, f := range r.File {
		if err := unpackOne(root, f); err != nil {
			return fmt.Errorf("unpacking %s from %s: %w", f.Name, archive, err)
		}
	}
	return nil
}

func unpackOne(root *os.Root, f *zip.File) (err error) {
	if f.FileInfo().IsDir() {
		return root.MkdirAll(path.Clean(f.Name), 0o755)
	}
	if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := root.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.CopyN(out, in, maxUnpackedMB<<20)
	if errors.Is(err, io.EOF) {
		err = nil // the whole file, as it should be
	}
	return err
}

func copyFile(from, to string, mode fs.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, mode)
}
