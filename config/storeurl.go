package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
)

// StoreKind says which of the two stores a [StoreURL] names.
type StoreKind string

// The stores.
const (
	SQLite   StoreKind = "sqlite"
	Postgres StoreKind = "postgres"
)

// StoreURL says where the event store is: `sqlite:PATH` or `postgres://…`. It
// prints, encodes and logs without its password; [StoreURL.Reveal] gives it whole.
type StoreURL struct {
	Kind StoreKind
	Path string // the database file of a SQLite store, as given
	full Secret
}

// ParseStoreURL reads `sqlite:PATH`, `postgres://…` or `postgresql://…`. Its
// errors do not hold the value, which may contain a password.
func ParseStoreURL(text string) (StoreURL, error) {
	u, p := parseStoreURL(text)
	if p != nil {
		return StoreURL{}, fmt.Errorf("store URL %s\n  Try: %s", p.says, p.try)
	}
	return u, nil
}

func parseStoreURL(text string) (StoreURL, *problem) {
	const examples = "sqlite:keytrail.db or postgres://user@host:5432/database"
	scheme, rest, _ := strings.Cut(text, ":")
	switch scheme {
	case "sqlite":
		path := rest
		if strings.HasPrefix(rest, "//") {
			if !strings.HasPrefix(rest, "///") {
				return StoreURL{}, &problem{"has two slashes after sqlite:", "sqlite:keytrail.db for a file in this folder, sqlite:/var/lib/keytrail/keytrail.db for another"}
			}
			path = rest[2:]
		}
		switch {
		case path == "":
			return StoreURL{}, &problem{"names no file", "sqlite:keytrail.db"}
		case strings.Contains(path, ":memory:"):
			return StoreURL{}, &problem{"keeps events in memory only, where a crash loses them", "sqlite:keytrail.db"}
		case strings.ContainsAny(path, "?#\x00"):
			return StoreURL{}, &problem{"has parameters, which keytrail chooses itself", "give the path alone, such as sqlite:keytrail.db"}
		}
		return StoreURL{Kind: SQLite, Path: path, full: NewSecret("sqlite:" + path)}, nil
	case "postgres", "postgresql":
		u, err := url.Parse(text)
		// An @ behind the host is the end of a password with a bare / or ?, which
		// cuts it in two and would show its second half.
		if err != nil || !strings.HasPrefix(rest, "//") || strings.Contains(text, "#") || strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
			return StoreURL{}, &problem{"is not a PostgreSQL URL", "postgres://user@host:5432/database; percent-encode special characters of the password, such as %40 for @"}
		}
		return StoreURL{Kind: Postgres, full: NewSecret(text)}, nil
	}
	return StoreURL{}, &problem{"names no store that keytrail knows", examples}
}

// Reveal returns the URL with its password, for the database driver.
func (u StoreURL) Reveal() string { return u.full.Reveal() }

// String returns the URL without its password.
func (u StoreURL) String() string {
	if u.Kind != Postgres {
		return u.Reveal()
	}
	parsed, err := url.Parse(u.Reveal())
	if err != nil {
		return string(u.Kind) + "://" + redacted
	}
	query := parsed.Query()
	for key := range query {
		if strings.Contains(strings.ToLower(key), "password") {
			query.Set(key, "xxxxx")
			parsed.RawQuery = query.Encode()
		}
	}
	return parsed.Redacted()
}

// GoString returns the URL without its password.
func (u StoreURL) GoString() string { return u.String() }

// MarshalText returns the URL without its password.
func (u StoreURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalYAML returns the URL without its password.
func (u StoreURL) MarshalYAML() (any, error) { return u.String(), nil }

// LogValue returns the URL without its password.
func (u StoreURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

var (
	userInfo     = regexp.MustCompile(`(?s)//.*@`)
	noPort       = regexp.MustCompile(`(?s)(//[^:/?#]*):\d*[^\d/?#].*`)
	secretParam  = regexp.MustCompile(`(?is)(password|passwd|pwd|secret|token)\s*=.*`)
	longestShown = 200
)

// withoutCredentials makes a bad value fit to be shown. The value could not be
// parsed, so this hides too much rather than too little.
func withoutCredentials(value string) string {
	value = userInfo.ReplaceAllString(value, "//"+redacted+"@")
	value = noPort.ReplaceAllString(value, "$1:"+redacted)
	value = secretParam.ReplaceAllString(value, "$1="+redacted)
	if runes := []rune(value); len(runes) > longestShown {
		value = string(runes[:longestShown]) + "…"
	}
	return value
}
