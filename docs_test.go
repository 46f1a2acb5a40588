// The documents as a test: what they must name is in them, and their links lead somewhere.

package keytrail_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(b)
}

// constants are the string constants of a folder's package whose name begins so.
func constants(t *testing.T, folder, prefix string) map[string]string {
	t.Helper()
	files, err := fs.Glob(os.DirFS(folder), "*.go")
	require.NoError(t, err)
	found := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path.Join(folder, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, s := range group.Specs {
				spec := s.(*ast.ValueSpec)
				for i, value := range spec.Values {
					literal, ok := value.(*ast.BasicLit)
					if !ok || literal.Kind != token.STRING || !strings.HasPrefix(spec.Names[i].Name, prefix) {
						continue
					}
					text, err := strconv.Unquote(literal.Value)
					require.NoError(t, err)
					found[spec.Names[i].Name] = text
				}
			}
		}
	}
	require.NotEmpty(t, found, "nothing read: the test would pass whatever the documents say")
	return found
}

func TestEveryEventTypeIsInTheCatalogue(t *testing.T) {
	t.Parallel()
	catalogue := read(t, "docs/events.md")
	for name, eventType := range constants(t, "adapter", "Type") {
		if !strings.Contains(catalogue, "\n### "+eventType+"\n") {
			t.Errorf("docs/events.md has no section %s (adapter.%s)", eventType, name)
		}
	}
}

func TestEveryCodeHasItsNextStep(t *testing.T) {
	t.Parallel()
	operations := read(t, "docs/operations.md")
	for _, code := range adapter.Codes() {
		if !strings.Contains(operations, "`"+string(code)+"`") {
			t.Errorf("docs/operations.md does not say what to do for %s", code)
		}
	}
}

func TestEverySettingIsInTheReadme(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for _, s := range config.Settings() {
		row := regexp.MustCompile(`(?m)^\|.*` + "`" + s.Env + "`" + `.*$`).FindString(readme)
		if !strings.Contains(row, "`"+s.Default+"`") && (row == "" || s.Default != "") {
			t.Errorf("README.md does not name %s, or not its default %q", s.Env, s.Default)
		}
	}
}

var metricName = regexp.MustCompile(`"(keytrail_[a-z_]+)"`)

func TestEveryMetricIsInTheOperationsGuide(t *testing.T) {
	t.Parallel()
	operations := read(t, "docs/operations.md")
	names := metricName.FindAllStringSubmatch(read(t, "internal/telemetry/metrics.go"), -1)
	require.NotEmpty(t, names, "nothing read: the test would pass whatever the document says")
	for _, name := range names {
		if !strings.Contains(operations, "| `"+name[1]+"` |") {
			t.Errorf("docs/operations.md does not explain %s", name[1])
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	fenced  = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
)

// anchor is the name under which a Markdown heading is linked to, as GitHub makes it.
func anchor(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, text)
}

func TestEveryLinkInTheDocumentsLeadsSomewhere(t *testing.T) {
	t.Parallel()
	links := 0
	require.NoError(t, fs.WalkDir(os.DirFS("."), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".md":
			return nil
		}
		text := fenced.ReplaceAllString(read(t, name), "")
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			links++
			file, fragment, _ := strings.Cut(found[1], "#")
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which does not exist", name, found[1])
				continue
			}
			if fragment == "" {
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(read(t, target), ""), -1) {
				anchors = append(anchors, anchor(h[1]))
			}
			require.Contains(t, anchors, fragment, "%s links to %s", name, found[1])
		}
		return nil
	}))
	require.NotZero(t, links, "no links read: the test would pass whatever they say")
}
