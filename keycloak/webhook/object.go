package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object whose members are read one by one, each as far as it
// can be: one odd member never costs the rest of the event. Member names are
// matched exactly, which encoding/json's structs do not do; of duplicate members
// the last one counts.
type object map[string]json.RawMessage

// parseObject checks a body's nesting before anything recursive sees it.
func parseObject(body []byte) (object, error) {
	if depth := nesting(body); depth > MaxDepth {
		return nil, ErrTooDeep
	}
	var o object
	err := json.Unmarshal(body, &o)
	if err == nil && o != nil {
		return o, nil
	}
	if json.Valid(body) {
		return nil, ErrNotObject
	}
	// The decoder's sentence names an offset and at most one character.
	return nil, fmt.Errorf("%w: %w", ErrNotJSON, err)
}

// nesting returns the greatest depth of brackets outside strings, or MaxDepth+1
// as soon as that is passed. It does not care whether the rest is JSON.
func nesting(body []byte) int {
	depth, deepest := 0, 0
	inString, escaped := false, false
	for _, c := range body {
		switch {
		case inString:
			switch {
			case escaped:
				escaped = false
			case c == '\\':
				escaped = true
			case c == '"':
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
			if depth > deepest {
				deepest = depth
			}
			if deepest > MaxDepth {
				return deepest
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// has reports a member that is there and not null.
func (o object) has(name string) bool {
	raw, ok := o[name]
	return ok && !isNull(raw)
}

// text returns a member as text: a string's content, nothing for null, and the
// JSON itself for everything else.
func (o object) text(name string) string { return textOf(o[name]) }

// object returns a member that is an object, or an empty one.
func (o object) object(name string) object {
	var member object
	if json.Unmarshal(o[name], &member) != nil {
		return nil
	}
	return member
}

// details returns a member that maps names to texts, nil when there is none. An
// empty object and an absent one are the same: p2 always sends one, Keycloak's
// Admin API leaves it out.
func (o object) details(name string) map[string]string {
	members := o.object(name)
	if len(members) == 0 {
		return nil
	}
	details := make(map[string]string, len(members))
	for key, value := range members {
		details[key] = textOf(value)
	}
	return details
}

// maxMillis is the last millisecond of the year 9999, the last that RFC 3339 can say.
const maxMillis = 253402300799999

// time reads milliseconds since 1970, as a number or in a string, or an RFC 3339
// time. Whatever else it is gives the zero time.
func (o object) time(name string) time.Time {
	text := strings.TrimSpace(o.text(name))
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr != nil {
			t, terr := time.Parse(time.RFC3339Nano, text)
			if terr != nil {
				return time.Time{}
			}
			ms = t.UnixMilli()
		} else if f >= 1 && f <= maxMillis { // false for NaN
			ms = int64(f)
		}
	}
	if ms < 1 || ms > maxMillis {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func textOf(raw json.RawMessage) string {
	if isNull(raw) {
		return ""
	}
	if raw[0] == '"' {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
	}
	return strings.ToValidUTF8(string(raw), "\uFFFD")
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}
