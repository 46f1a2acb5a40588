package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const redacted = "<redacted>"

// Secret holds a password, token or key. However it is printed, encoded or
// logged, it shows as <redacted>; only [Secret.Reveal] gives the value. The zero
// value is a secret that is not set.
type Secret struct {
	// A pointer, because fmt prints the bytes of a string in an unexported field
	// without asking any method, but of a nested pointer only the address.
	value *string
}

// NewSecret returns a Secret of value; an empty value is one that is not set.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{value: &value}
}

// Reveal returns the value, empty when the secret is not set. Never put it into
// an event, a log, an error or a page.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsSet reports whether there is a value.
func (s Secret) IsSet() bool { return s.value != nil }

// Rotation returns the one or, during a rotation, two secrets that a value with
// a comma holds, in the order given. It is empty when the secret is not set.
func (s Secret) Rotation() []Secret {
	if !s.IsSet() {
		return nil
	}
	var out []Secret
	for part := range strings.SplitSeq(s.Reveal(), ",") {
		out = append(out, NewSecret(strings.TrimSpace(part)))
	}
	return out
}

// String returns <redacted>.
func (Secret) String() string { return redacted }

// GoString returns <redacted>.
func (Secret) GoString() string { return redacted }

// Format writes <redacted> for every verb.
func (Secret) Format(f fmt.State, _ rune) {
	// A failing fmt.State has nobody to tell.
	_, _ = io.WriteString(f, redacted)
}

// MarshalText gives <redacted>, also to JSON and as a map's key.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON gives "<redacted>".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalYAML gives <redacted>.
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

// LogValue gives <redacted>.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// checkSecret judges a value that was given. parts is how many secrets it may
// hold, separated by commas; 1 means that a comma is part of the secret.
func checkSecret(value string, parts int) *problem {
	switch {
	case strings.TrimSpace(value) == "":
		return &problem{"is empty", "give it a value, or leave the setting out"}
	case value == redacted:
		return &problem{"is the placeholder that `config print` shows in place of a secret", "give it the real value"}
	case strings.ContainsAny(value, "\r\n\x00"):
		return &problem{"has a line break inside", "put the secret on one line"}
	}
	if parts == 1 {
		return nil
	}
	split := strings.Split(value, ",")
	if len(split) > parts {
		return &problem{fmt.Sprintf("holds %d secrets, %d at most", len(split), parts), "keep the new and the old one: NEW,OLD"}
	}
	for _, part := range split {
		if strings.TrimSpace(part) == "" {
			return &problem{"has nothing on one side of a comma", "write one secret, or two during a rotation: NEW,OLD"}
		}
	}
	return nil
}
