// The architecture as a test: who may import whom, with the reason for each rule.

package keytrail_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const module = "github.com/keytrail/keytrail"

// An imported is one import of one of our packages by another. Both are folders
// relative to the module, "." for its root.
type imported struct {
	file string // relative to the module; a file of package from
	from string
	to   string
}

// A rule says what a part of the tree must not import, and why. Parts are
// patterns: "adapter" is that package alone, "adapter/*" everything below it,
// "adapter/**" both, "**" everything of ours, "*test" every package that is, or
// is below, one whose name ends in test.
type rule struct {
	from   []string
	unless []string // importers of from that may
	deny   []string
	except []string // imports of deny that are fine
	reason string
}

var everything = []string{"**"}

// Test files follow no rule: they judge a wall from both sides.
var rules = []rule{
	{
		from: []string{"eventstore"}, deny: everything, except: []string{"internal/*"},
		reason: "eventstore is the contract that every store implements and everybody reads; it depends on nothing of ours",
	},
	{
		from: []string{"eventstore/*"}, deny: everything, except: []string{"eventstore/**", "internal/*"},
		reason: "a store knows the contract and nothing of what the events mean",
	},
	{
		from: []string{"keycloak/**"}, deny: everything, except: []string{"keycloak/**", "internal/*"},
		reason: "keycloak describes Keycloak as it is; what we make of it is the adapter's business",
	},
	{
		from: []string{"keycloak"}, deny: []string{"keycloak/*"},
		reason: "Keycloak's models are what the client, the webhooks and the fake build on, not the reverse",
	},
	{
		from: []string{"adapter"}, deny: everything, except: []string{"eventstore", "internal/*"},
		reason: "adapter is the shared vocabulary; to name events it needs the store's contract only",
	},
	{
		from: []string{"adapter/*"}, deny: []string{"projections/**"},
		reason: "the adapter declares the few read methods that it needs, and internal/app passes them in",
	},
	{
		from: []string{"adapter/*"}, deny: everything,
		except: []string{"adapter/**", "eventstore", "keycloak/**", "projections/**", "internal/*"},
		reason: "which store and which settings are used is decided in the wiring alone",
	},
	{
		from: []string{"projections/**"}, unless: []string{"*test"}, deny: everything,
		except: []string{"projections/**", "adapter", "eventstore", "internal/*"},
		reason: "projections fold recorded events: they know their names and the log, not who records them, and never Keycloak",
	},
	{
		from: []string{"config"}, deny: everything, except: []string{"internal/*"},
		reason: "configuration is read before anything else exists; internal/app turns it into parts",
	},
	{
		from: []string{"internal/**"}, unless: []string{"internal/app/**", "internal/bench/**"},
		deny: everything, except: []string{"internal/*", "eventstore/**"},
		reason: "what everybody may import must not lead back to the domain, or everybody depends on everything",
	},
	{
		from: everything, unless: []string{"cmd/**", "internal/app/**", "internal/bench/**"},
		deny:   []string{"internal/app/**", "internal/bench/**"},
		reason: "the wiring sees everything, so only the commands may see it",
	},
	{
		from: everything, unless: []string{"cmd/**"}, deny: []string{"cmd/**"},
		reason: "a command is where a program begins; nothing builds on it",
	},
	{
		from: everything,
		// keytrail demo runs on the fake Keycloak, and bench on both stores.
		unless: append([]string{"cmd/**", "internal/app/**", "internal/bench/**"}, forTests...),
		deny:   forTests,
		reason: "what exists for tests stays out of the program",
	},
}

// Packages that exist for tests are named so, but for the store that forgets;
// kcserver also serves people.
var forTests = []string{"*test", "eventstore/memory", "internal/kcserver/**"}

// Packages right below these folders do not import each other. What they share
// is the folder's own package or its internal/, which the compiler guards.
var siblings = []struct {
	folder string
	unless []string // may see their siblings
	reason string
}{
	{"eventstore", nil, "stores are alternatives; what two of them share belongs to the contract or to the suite"},
	{"projections", nil, "each projection can be dropped and rebuilt alone; what they share is the engine"},
	{"adapter", []string{"adapter/httpapi", "adapter/web"}, "the parts of the adapter meet in events and in the wiring; only the surfaces see them all"},
}

// within is true when the package pkg is in the part that pattern describes.
func within(pattern, pkg string) bool {
	switch {
	case pattern == "**":
		return true
	case pattern == "*test":
		return slices.ContainsFunc(strings.Split(pkg, "/"), func(s string) bool { return strings.HasSuffix(s, "test") })
	case strings.HasSuffix(pattern, "/**"):
		base := strings.TrimSuffix(pattern, "/**")
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	case strings.HasSuffix(pattern, "/*"):
		return strings.HasPrefix(pkg, strings.TrimSuffix(pattern, "*"))
	default:
		return pkg == pattern
	}
}

func withinAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return within(p, pkg) })
}

// breaches lists what breaks a rule, with the rule's reason.
func breaches(imports []imported) []string {
	var found []string
	for _, i := range imports {
		if i.from == i.to {
			continue
		}
		for _, reason := range broken(i.from, i.to) {
			found = append(found, i.file+" imports "+i.to+": "+reason)
		}
	}
	return found
}

// broken lists the reasons why from must not import to.
func broken(from, to string) []string {
	var reasons []string
	for _, r := range rules {
		if withinAny(r.from, from) && !withinAny(r.unless, from) && withinAny(r.deny, to) && !withinAny(r.except, to) {
			reasons = append(reasons, r.reason)
		}
	}
	for _, s := range siblings {
		a, aIn := child(s.folder, from)
		b, bIn := child(s.folder, to)
		if aIn && bIn && a != b && path.Base(b) != "internal" && !slices.Contains(s.unless, a) {
			reasons = append(reasons, s.reason)
		}
	}
	return reasons
}

// child is the package right below folder that pkg belongs to.
func child(folder, pkg string) (string, bool) {
	rest, ok := strings.CutPrefix(pkg, folder+"/")
	if !ok {
		return "", false
	}
	first, _, _ := strings.Cut(rest, "/")
	return path.Join(folder, first), true
}

// importsOf reads the imports of every Go file below root that is part of the
// program. It reads files, not packages, so that build tags hide nothing.
func importsOf(root fs.FS) ([]imported, error) {
	var found []imported
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if entry.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "vendor") {
				return fs.SkipDir // as the go command does
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if target != module && !strings.HasPrefix(target, module+"/") {
				continue
			}
			found = append(found, imported{
				file: name,
				from: path.Dir(name),
				to:   path.Clean("./" + strings.TrimPrefix(target, module)),
			})
		}
		return nil
	})
	return found, err
}

func TestImportsFollowTheArchitecture(t *testing.T) {
	t.Parallel()
	imports, err := importsOf(os.DirFS("."))
	require.NoError(t, err)
	require.NotEmpty(t, imports, "nothing read: the test would pass whatever the tree looks like")
	for _, breach := range breaches(imports) {
		t.Error(breach)
	}
}

func TestPlantedBreachesAreFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, reason string }{
		{"eventstore", "adapter", "eventstore is the contract"},
		{"eventstore/sqlite", "eventstore/postgres", "stores are alternatives"},
		{"eventstore/sqlite", "adapter", "nothing of what the events mean"},
		{"keycloak", "keycloak/webhook", "Keycloak's models"},
		{"keycloak/admin", "adapter", "the adapter's business"},
		{"adapter", "keycloak", "shared vocabulary"},
		{"adapter/inbound", "adapter/outbound", "only the surfaces"},
		{"adapter/inbound/deeper", "adapter/outbound", "only the surfaces"},
		{"adapter/httpapi", "projections/users", "declares the few read methods"},
		{"adapter/trace", "eventstore/sqlite", "in the wiring alone"},
		{"adapter/trace", "config", "in the wiring alone"},
		{"projections/users", "projections/audit", "dropped and rebuilt alone"},
		{"projections", "keycloak", "never Keycloak"},
		{"projections", "adapter/trace", "never Keycloak"},
		{"config", "adapter", "read before anything else"},
		{"internal/seal", "adapter", "lead back to the domain"},
		{"adapter/web", "internal/app", "only the commands"},
		{"internal/lease", "internal/app", "only the commands"},
		{"internal/app", "cmd/keytrail", "nothing builds on it"},
		{"adapter/reconcile", "keycloak/keycloaktest", "stays out of the program"},
		{"eventstore/postgres", "internal/dbtest", "stays out of the program"},
		{"internal/lease", "eventstore/memory", "stays out of the program"},
		{"projections/users", "projections/projectiontest", "stays out of the program"},
		{"projections/users", "eventstore/sqlite", "never Keycloak"},
		{"keycloak/keycloaktest", "adapter", "the adapter's business"},
	} {
		found := breaches([]imported{{file: c.from + "/planted.go", from: c.from, to: c.to}})
		require.NotEmpty(t, found, "%s may import %s", c.from, c.to)
		require.Contains(t, strings.Join(found, "\n"), c.reason)
		require.Contains(t, found[0], c.from+"/planted.go imports "+c.to)
	}
}

func TestIntendedImportsAreFine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to string }{
		{"cmd/keytrail", "internal/app"},
		{"cmd/keytrail", "config"},
		{"internal/app", "eventstore/postgres"},
		{"internal/app", "projections/users"},
		{"internal/app", "keycloak/keycloaktest"},
		{"internal/dbtest", "internal/suitetest"},
		{"internal/kcserver/cmd", "internal/kcserver"},
		{"eventstore/postgres", "eventstore"},
		{"eventstore/postgres", "eventstore/internal/backend"},
		{"eventstore/storetest", "eventstore"},
		{"eventstore", "internal/seal"},
		{"keycloak/keycloaktest", "keycloak/webhook"},
		{"adapter", "eventstore"},
		{"adapter/inbound", "keycloak/webhook"},
		{"adapter/inbound", "adapter"},
		{"adapter/httpapi", "adapter/trace"},
		{"projections/users", "projections"},
		{"projections/users", "adapter"},
		{"projections/projectiontest", "eventstore/sqlite"},
		{"projections/projectiontest", "internal/dbtest"},
	} {
		require.Empty(t, breaches([]imported{{file: c.from + "/fine.go", from: c.from, to: c.to}}))
	}
}

func TestImportsAreReadFromEveryFileOfTheProgram(t *testing.T) {
	t.Parallel()
	source := func(pkg, imports string) *fstest.MapFile {
		return &fstest.MapFile{Data: fmt.Appendf(nil, "package %s\n\nimport %q\n", pkg, imports)}
	}
	tree := fstest.MapFS{
		"adapter/a.go":              source("adapter", module+"/eventstore"),
		"adapter/a_windows.go":      {Data: []byte("//go:build windows\n\npackage adapter\n\nimport _ \"" + module + "\"\n")},
		"adapter/a_test.go":         source("adapter", module+"/internal/dbtest"),
		"adapter/testdata/t.go":     source("t", module+"/cmd/keytrail"),
		".cache/c.go":               source("c", module+"/cmd/keytrail"),
		"adapter/foreign.go":        source("adapter", module+"er/other"),
		"adapter/standard.go":       source("adapter", "context"),
		"adapter/notes.txt":         {Data: []byte("no Go")},
		"internal/seal/internal.go": source("seal", module+"/internal/lease"),
	}
	got, err := importsOf(tree)
	require.NoError(t, err)
	require.Equal(t, []imported{
		{"adapter/a.go", "adapter", "eventstore"},
		{"adapter/a_windows.go", "adapter", "."},
		{"internal/seal/internal.go", "internal/seal", "internal/lease"},
	}, got)
}
