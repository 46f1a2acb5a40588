package config

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Print writes the effective configuration as YAML, each value with the place
// that it came from. Secrets show as <redacted>, passwords in URLs as xxxxx. What
// it prints can be loaded again once the secrets are filled in.
func (c *Config) Print(w io.Writer) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(c.tree()); err != nil {
		return fmt.Errorf("printing the configuration: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("printing the configuration: %w", err)
	}
	return nil
}

// PrintJSON writes what Print does as a JSON object of the same members, null where a
// setting is not set. The member origins says by path where each value came from.
func (c *Config) PrintJSON(w io.Writer) error {
	root := c.tree()
	origins := map[string]string{}
	members, _ := jsonOf(root, "", origins).(map[string]any)
	members["origins"] = origins
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(members); err != nil {
		return fmt.Errorf("printing the configuration: %w", err)
	}
	return nil
}

// jsonOf turns a node of the tree into what encoding/json writes, and notes where each
// value came from.
func jsonOf(n *yaml.Node, path string, origins map[string]string) any {
	if isMapping(n) {
		members := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			members[key] = jsonOf(n.Content[i+1], join(path, key), origins)
		}
		return members
	}
	if isNull(n) {
		return nil
	}
	if n.LineComment != "" {
		origins[path] = n.LineComment
	}
	if n.Kind != yaml.SequenceNode {
		return n.Value
	}
	items := make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		items = append(items, item.Value)
	}
	return items
}

// tree is the effective configuration, with origins as comments.
func (c *Config) tree() *yaml.Node {
	root := mappingNode()
	sections := map[string]*yaml.Node{"": root}
	for _, s := range table {
		if s.FileOf != "" {
			continue
		}
		section, key, ok := strings.Cut(s.Path, ".")
		if !ok {
			section, key = "", s.Path
		}
		parent, ok := sections[section]
		if !ok {
			parent = mappingNode()
			sections[section] = parent
			put(root, section, parent)
		}
		put(parent, key, c.valueNode(s))
	}
	sources := mappingNode()
	put(root, "sources", sources)
	for _, s := range c.Sources {
		put(sources, s.Name, s.node())
	}
	return root
}

func (c *Config) valueNode(s setting) *yaml.Node {
	from, given := c.origins[s.Path]
	switch {
	case s.Secret && given:
		return scalar(redacted, from)
	case s.Secret:
		return null()
	case s.Kind == KindList:
		if len(c.list(s)) == 0 {
			return null()
		}
		return list(c.list(s), c.Origin(s.Path))
	case s.get(c) == "":
		return null()
	}
	return scalar(s.get(c), c.Origin(s.Path))
}

func (c *Config) list(s setting) []string {
	if text := s.get(c); text != "" {
		return strings.Split(text, ",")
	}
	return nil
}

func (s Source) node() *yaml.Node {
	n := mappingNode()
	put(n, "dialect", scalar(string(s.Dialect), s.origin))
	if s.Realm != "" {
		put(n, "realm", scalar(s.Realm, s.origin))
	}
	put(n, "auth", scalar(string(s.Auth), s.origin))
	if s.secretOrigin != "" {
		put(n, "secret", scalar(redacted, s.secretOrigin))
	}
	if len(s.Include) > 0 {
		put(n, "include", list(s.Include, s.origin))
	}
	if len(s.Exclude) > 0 {
		put(n, "exclude", list(s.Exclude, s.origin))
	}
	return n
}

func mappingNode() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

func put(parent *yaml.Node, key string, value *yaml.Node) {
	parent.Content = append(parent.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
}

func scalar(value, comment string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(value)
	n.LineComment = comment
	return n
}

func null() *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null", LineComment: "not set"}
}

func list(items []string, comment string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle, LineComment: comment}
	for _, item := range items {
		n.Content = append(n.Content, scalar(item, ""))
	}
	return n
}
