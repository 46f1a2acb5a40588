// The documents as a test: what they must name is in them, and their links lead somewhere.

package keytrail_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
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

// section is a part of a Markdown document: a heading and what stands below it.
type section struct{ title, text string }

// sections cuts a text at its headings of one level; what stands before the first is
// left out.
func sections(text, mark string) []section {
	var found []section
	for _, part := range strings.Split("\n"+text, "\n"+mark+" ")[1:] {
		title, rest, _ := strings.Cut(part, "\n")
		found = append(found, section{title, rest})
	}
	return found
}

var example = regexp.MustCompile("(?ms)^```json\n(.*?)^```$")

// members are the JSON names of a struct's fields.
func members(of reflect.Type) []string {
	var names []string
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous && name == "" {
			names = append(names, members(field.Type)...)
		} else {
			names = append(names, name)
		}
	}
	return names
}

// payloadOf makes an empty payload of an event's type, as the codec does.
func payloadOf(t *testing.T, eventType string) adapter.Payload {
	t.Helper()
	e := eventstore.Event{Type: eventType, Data: json.RawMessage(`{}`), Metadata: json.RawMessage(`{}`)}
	d, err := adapter.NewCodec(seal.Plain{}).Decode(t.Context(), e)
	require.NoError(t, err)
	require.NotNil(t, d.Payload, "%s is no event", eventType)
	return d.Payload
}

// decodesWhole sees that a JSON text has no member that the Go value lacks, and that
// the value is printed as that text again.
func decodesWhole(t *testing.T, text string, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(into), text)
	again, err := json.Marshal(into)
	require.NoError(t, err)
	require.JSONEq(t, text, string(again), "the program would print this otherwise")
}

// explains sees that a text names every field of a struct, outside its examples.
func explains(t *testing.T, title, text string, of reflect.Type) {
	t.Helper()
	prose := example.ReplaceAllString(text, "")
	for _, name := range members(of) {
		if !strings.Contains(prose, "`"+name+"`") {
			t.Errorf("docs/events.md does not explain the field %s of %s", name, title)
		}
	}
}

// Every example in the catalogue of events is one that the program can have printed,
// and every field of an event is named there: in its own section, or in the
// introduction of its stream.
func TestTheCatalogueDescribesEventsAsTheyAre(t *testing.T) {
	t.Parallel()
	described := 0
	for _, stream := range sections(read(t, "docs/events.md"), "##") {
		introduction, _, _ := strings.Cut(stream.text, "\n### ")
		if stream.title == "The envelope" {
			for _, found := range example.FindAllStringSubmatch(stream.text, -1) {
				var head struct {
					EventType string `json:"event_type"`
				}
				require.NoError(t, json.Unmarshal([]byte(found[1]), &head))
				decodesWhole(t, found[1], &adapter.View{Data: payloadOf(t, head.EventType)})
			}
			explains(t, stream.title, introduction, reflect.TypeFor[adapter.View]())
			explains(t, stream.title, introduction, reflect.TypeFor[adapter.Metadata]())
			continue
		}
		for _, event := range sections(stream.text, "###") {
			described++
			examples := example.FindAllStringSubmatch(event.text, -1)
			if len(examples) == 0 {
				require.Contains(t, event.text, "](#the-envelope)", "%s has no example", event.title)
			}
			for _, found := range examples {
				decodesWhole(t, found[1], payloadOf(t, event.title))
			}
			explains(t, event.title, introduction+event.text, reflect.TypeOf(payloadOf(t, event.title)).Elem())
		}
	}
	require.Equal(t, len(constants(t, "adapter", "Type")), described)
}
