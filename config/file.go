package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// quoted matches what the parser repeats of the file: a secret that begins with
// * is an unknown anchor to it.
var quoted = regexp.MustCompile(`(?s)['"\x60].*['"\x60]`)

// fromFile reads the YAML file. It walks the nodes itself, because a decoder
// stops at the first fault and knows no line for a bad value. It reports
// whether the file could be read as YAML at all.
func (l *loader) fromFile(name, from string) bool {
	content, err := l.readFile(name)
	if err != nil {
		p := unreadable(err)
		l.fault(Fault{Path: "config", Source: from, Value: name, Problem: p.says, Try: p.try})
		return false
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return true // nothing but comments
	} else if err != nil {
		l.fault(Fault{
			Path: "config", Source: name, Problem: "is not YAML: " + quoted.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "'…'"),
			Try: "look at the indentation (spaces, no tabs) of that line and the one before it; put a value that begins with * & ! % @ or a bracket in quotes",
		})
		return false
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		l.fault(Fault{Path: "config", Source: at(name, more.Line), Problem: "has a second document", Try: "remove the line --- and what follows"})
	}
	w := fileWalk{loader: l, name: name}
	w.mapping(doc.Content[0], "")
	return true
}

// fileWalk reads the nodes of one file.
type fileWalk struct {
	*loader
	name string
}

func (w fileWalk) faultAt(n *yaml.Node, path, problem, try string) {
	w.fault(Fault{Path: path, Source: at(w.name, n.Line), Problem: problem, Try: try})
}

// members calls visit for each member of a mapping, and reports what is no
// mapping, no plain key or a second value of one key.
func (w fileWalk) members(n *yaml.Node, path string, keys []string, visit func(key string, value *yaml.Node)) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		shown := path
		if shown == "" {
			shown = "config"
		}
		w.faultAt(n, shown, "is not a mapping", "write below it: "+strings.Join(keys, ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			w.faultAt(key, join(path, "?"), "has a key that is not plain text", "use one of "+strings.Join(keys, ", "))
			continue
		}
		if before, ok := seen[key.Value]; ok {
			w.faultAt(key, join(path, key.Value), fmt.Sprintf("is given twice, first in line %d", before), "remove one")
			continue
		}
		seen[key.Value] = key.Line
		visit(key.Value, value)
	}
}

// mapping reads one level of the settings: path is "" for the whole file.
func (w fileWalk) mapping(n *yaml.Node, path string) {
	keys := keysBelow(path)
	w.members(n, path, keys, func(key string, value *yaml.Node) {
		full := join(path, key)
		if full == "sources" {
			w.sources(value)
			return
		}
		if !slices.Contains(keys, key) {
			w.unknown(value, full, key, keys)
			return
		}
		i := slices.IndexFunc(table, func(s setting) bool { return s.Path == full })
		if i < 0 {
			w.mapping(value, full)
			return
		}
		text, ok := w.text(value, full, table[i].Kind)
		if ok && text != "" {
			w.give(full, given{value: text, from: at(w.name, value.Line), layer: fileLayer})
		}
	})
}

func (w fileWalk) unknown(n *yaml.Node, full, key string, keys []string) {
	try := "use one of " + strings.Join(keys, ", ")
	if name, ok := closest(key, keys); ok {
		try = "did you mean " + join(strings.TrimSuffix(strings.TrimSuffix(full, key), "."), name) + "?"
	} else {
		for _, s := range table { // a key that stands one level too high or too low
			if fold(strings.ReplaceAll(s.Path, ".", "")) == fold(strings.ReplaceAll(full, ".", "")) || strings.HasSuffix(s.Path, "."+key) {
				try = "did you mean " + s.Path + "?"
				break
			}
		}
	}
	w.faultAt(n, full, "is not a setting", try)
}

// text returns a value as written. Numbers and booleans are read as the text
// that they are; a list may be a sequence. Null and empty mean not given.
func (w fileWalk) text(n *yaml.Node, path string, kind Kind) (text string, ok bool) {
	line := n
	n = resolve(n)
	switch {
	case isNull(n):
		return "", true
	case n.Kind == yaml.ScalarNode:
		return n.Value, true
	case kind == KindList && n.Kind == yaml.SequenceNode:
		return strings.Join(w.list(n, path), ","), true
	case kind == KindList:
		w.faultAt(line, path, "is not a list", "write [one, two], or one,two")
	default:
		w.faultAt(line, path, "is not a single value", "write one value behind the colon")
	}
	w.bad[path] = true
	return "", false
}

// list returns the items of a sequence. Those that are no plain text are reported and
// left out, so that the others are judged as well.
func (w fileWalk) list(n *yaml.Node, path string) []string {
	var items []string
	for i, item := range n.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode || isNull(item) || strings.Contains(item.Value, ",") {
			w.bad[path] = true
			w.faultAt(item, fmt.Sprintf("%s[%d]", path, i), "is not a single value", "write each item as plain text, without a comma")
			continue
		}
		items = append(items, item.Value)
	}
	return items
}

// resolve follows an alias (*name) to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isMapping(n *yaml.Node) bool { return n.Kind == yaml.MappingNode }

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// keysBelow returns the keys that may stand below path, sorted.
func keysBelow(path string) []string {
	keys := map[string]bool{}
	for _, s := range table {
		rest := s.Path
		if path != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(s.Path, path+"."); !ok {
				continue
			}
		}
		key, _, _ := strings.Cut(rest, ".")
		keys[key] = true
	}
	if path == "" {
		keys["sources"] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
