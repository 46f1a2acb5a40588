package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// rewrite passes the members of the JSON object raw that groups names through
// convert and keeps the others byte for byte. A member that convert calls
// forgotten is left out, and named in the result.
func rewrite(raw []byte, groups map[string]Group, convert func(Group, []byte) ([]byte, error)) (out []byte, forgotten []string, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.Token(); err != nil {
		return nil, nil, fmt.Errorf("reading the object: %w", err)
	} else if tok != json.Delim('{') {
		return nil, nil, errors.New("reading the object: not a JSON object")
	}
	buf := bytes.NewBuffer(make([]byte, 0, len(raw)+len(raw)/2))
	buf.WriteByte('{')
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, nil, fmt.Errorf("reading a member's name: %w", err)
		}
		name, ok := tok.(string)
		if !ok {
			return nil, nil, errors.New("reading a member's name: not a string")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, nil, fmt.Errorf("reading member %q: %w", name, err)
		}
		if g, ok := groups[name]; ok {
			converted, err := convert(g, value)
			if errors.Is(err, ErrForgotten) {
				if !slices.Contains(forgotten, name) {
					forgotten = append(forgotten, name)
				}
				continue
			}
			if err != nil {
				return nil, nil, fmt.Errorf("member %q: %w", name, err)
			}
			if !json.Valid(converted) {
				return nil, nil, fmt.Errorf("member %q: the sealer's answer is not one JSON value", name)
			}
			value = converted
		}
		if buf.Len() > 1 {
			buf.WriteByte(',')
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, nil, fmt.Errorf("member %q: %w", name, err)
		}
		buf.Write(key)
		buf.WriteByte(':')
		buf.Write(value)
	}
	if _, err := dec.Token(); err != nil {
		return nil, nil, fmt.Errorf("reading the object's end: %w", err)
	}
	if len(bytes.TrimSpace(raw[dec.InputOffset():])) > 0 {
		return nil, nil, errors.New("reading the object's end: more follows")
	}
	buf.WriteByte('}')
	return buf.Bytes(), forgotten, nil
}

// plan is what groupsOf found out about a type: the same for the process's life.
type plan struct {
	groups map[string]Group
	err    error
}

var plans sync.Map // reflect.Type → plan

var (
	marshaler   = reflect.TypeFor[json.Marshaler]()
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
)

// groupsOf returns the sealed members of v's struct type by JSON name.
func groupsOf(v any) (map[string]Group, error) {
	rv := reflect.ValueOf(v)
	for rv.Kind() == reflect.Pointer && !rv.IsNil() {
		rv = rv.Elem()
	}
	if rv.Kind() != reflect.Struct {
		return nil, fmt.Errorf("sealing a %T: only a struct, or a pointer to one that is not nil, has fields to seal", v)
	}
	t := rv.Type()
	if known, ok := plans.Load(t); ok {
		return known.(plan).groups, known.(plan).err
	}
	found := plan{groups: map[string]Group{}}
	found.err = collect(t, "", found.groups, map[reflect.Type]bool{})
	if found.err == nil && len(found.groups) > 0 {
		if pt := reflect.PointerTo(t); pt.Implements(marshaler) || pt.Implements(unmarshaler) {
			found.err = errors.New("it has sealed fields and its own JSON encoding, so their member names are not known")
		}
	}
	if found.err != nil {
		found = plan{err: fmt.Errorf("sealing a %s: %w", t, found.err)}
	}
	plans.Store(t, found)
	return found.groups, found.err
}

// collect adds the sealed members of t. Where embedded structs have fields of
// one name, encoding/json picks one or drops all; here one tag on any of them
// seals the name, so that a change of that pick never lets a field out.
func collect(t reflect.Type, inherited Group, groups map[string]Group, visiting map[reflect.Type]bool) error {
	if visiting[t] {
		return nil // a struct that embeds a pointer to itself
	}
	visiting[t] = true
	defer delete(visiting, t)
	for i := range t.NumField() {
		f := t.Field(i)
		group := inherited
		if tag, ok := f.Tag.Lookup("seal"); ok {
			group = Group(tag)
			if strings.TrimFunc(tag, func(r rune) bool { return r == '_' || 'a' <= r && r <= 'z' }) != "" && tag != "-" || tag == "" {
				return fmt.Errorf(`field %s: the tag seal:%q names no group: lower-case letters and "_", or "-"`, f.Name, tag)
			}
		}
		jsonTag := f.Tag.Get("json")
		if jsonTag == "-" {
			continue
		}
		name, _, _ := strings.Cut(jsonTag, ",")
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		if f.Anonymous && name == "" && embedded.Kind() == reflect.Struct {
			if err := collect(embedded, group, groups, visiting); err != nil {
				return fmt.Errorf("embedded %s: %w", f.Name, err)
			}
			continue
		}
		if !f.IsExported() || group == "" || group == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if strings.ContainsFunc(name, oddInName) {
			// encoding/json ignores some of these names and takes the field's own.
			return fmt.Errorf("field %s: the JSON name %q of a sealed field may hold letters, digits and _-. only", f.Name, name)
		}
		if other, ok := groups[name]; ok && other != group {
			return fmt.Errorf("member %q belongs to the groups %q and %q", name, other, group)
		}
		groups[name] = group
	}
	return nil
}

func oddInName(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-.", r)
}

func wrap(doing string, v any, err error) error {
	return fmt.Errorf("%s a %T: %w", doing, v, err)
}
