package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Kind says what values a setting takes.
type Kind string

// The kinds of settings.
const (
	KindText     Kind = "text"
	KindList     Kind = "list" // comma-separated; in the file also a sequence
	KindURL      Kind = "url"
	KindStoreURL Kind = "store-url"
	KindAddress  Kind = "host:port"
	KindDuration Kind = "duration" // Go's notation, such as 90s or 6h; 0 switches off
	KindCount    Kind = "count"    // a whole number; 0 switches off
	KindChoice   Kind = "choice"
	KindSecret   Kind = "secret"
	KindFile     Kind = "file" // the path of a file that holds another setting's value
)

// Setting describes one setting: what it is called in each of the three places,
// and what it means. Command line and documentation are generated from it.
type Setting struct {
	Path        string // in the YAML file, such as keycloak.realms
	Env         string // environment variable
	Flag        string // without the dashes
	Kind        Kind
	Choices     []string // for KindChoice
	Default     string   // as a user would write it; empty: none, or see Description
	Description string
	Secret      bool   // never print the value
	FileOf      string // for KindFile: the Path of the setting whose value the file holds
}

// setting adds to a Setting how its value gets in and out of a Config.
type setting struct {
	Setting
	set func(c *Config, value string) []problem
	get func(c *Config) string // the text to print; not called for secrets
}

// Settings returns all settings in the order of the documentation. A secret is
// followed by its variant that names a file. The sources are not among them:
// they stand in the file only.
func Settings() []Setting {
	out := make([]Setting, len(table))
	for i, s := range table {
		out[i] = s.Setting
	}
	return out
}

var table = buildTable([]setting{
	{
		Setting{Path: "store.url", Kind: KindStoreURL, Default: "sqlite:keytrail.db", Description: "where the events are kept: sqlite:PATH or postgres://…"},
		func(c *Config, v string) []problem { return one(setStoreURL(&c.Store.URL, v)) },
		func(c *Config) string { return c.Store.URL.String() },
	},
	{
		Setting{Path: "store.admin_url", Kind: KindStoreURL, Description: "role that owns the tables, for migrate and partitions; the store URL's role may then only read and append (default: the store URL)"},
		func(c *Config, v string) []problem {
			if v == "" {
				return nil
			}
			return one(setStoreURL(&c.Store.AdminURL, v))
		},
		func(c *Config) string { return c.Store.AdminURL.String() },
	},
	{
		Setting{Path: "store.snapshot_after", Kind: KindCount, Default: "200", Description: "events by which a user's stream grows until the next snapshot of their state; 0 switches off"},
		func(c *Config, v string) []problem { return one(setCount(&c.Store.SnapshotAfter, v, "200")) },
		func(c *Config) string { return strconv.Itoa(c.Store.SnapshotAfter) },
	},
	{
		Setting{Path: "listen", Kind: KindAddress, Default: "127.0.0.1:8085", Description: "host:port of webhooks, API and page"},
		func(c *Config, v string) []problem { return one(setListen(&c.Listen, v)) },
		func(c *Config) string { return c.Listen },
	},
	{
		Setting{Path: "webhook.secret", Kind: KindSecret, Description: "secret of the source keycloak; two separated by a comma during rotation (default: none, unsigned events only from loopback)"},
		func(c *Config, v string) []problem { return one(setSecret(&c.Webhook.Secret, v, 2)) },
		nil,
	},
	{
		Setting{Path: "public_url", Kind: KindURL, Description: "where Keycloak and people reach keytrail, such as https://keytrail.example.com (default: http:// and the listen address)"},
		func(c *Config, v string) []problem {
			return one(setURL(&c.PublicURL, v, "https://keytrail.example.com"))
		},
		func(c *Config) string { return c.PublicURL },
	},
	{
		Setting{Path: "keycloak.url", Kind: KindURL, Description: "base URL of Keycloak, context path included (default: none, webhooks only)"},
		func(c *Config, v string) []problem { return one(setKeycloakURL(&c.Keycloak.URL, v)) },
		func(c *Config) string { return c.Keycloak.URL },
	},
	{
		Setting{Path: "keycloak.realms", Kind: KindList, Description: "realms to poll and reconcile, separated by commas"},
		func(c *Config, v string) []problem { return setRealms(&c.Keycloak.Realms, v) },
		func(c *Config) string { return strings.Join(c.Keycloak.Realms, ",") },
	},
	{
		Setting{Path: "keycloak.client_id", Kind: KindText, Description: "client of the service account (client credentials)"},
		func(c *Config, v string) []problem { return one(setText(&c.Keycloak.ClientID, v)) },
		func(c *Config) string { return c.Keycloak.ClientID },
	},
	{
		Setting{Path: "keycloak.client_secret", Kind: KindSecret, Description: "secret of that client"},
		func(c *Config, v string) []problem { return one(setSecret(&c.Keycloak.ClientSecret, v, 1)) },
		nil,
	},
	{
		Setting{Path: "keycloak.auth_realm", Kind: KindText, Default: "master", Description: "realm of that client"},
		func(c *Config, v string) []problem {
			if p := checkRealm(v); p != nil {
				return one(p)
			}
			return one(setText(&c.Keycloak.AuthRealm, v))
		},
		func(c *Config) string { return c.Keycloak.AuthRealm },
	},
	{
		Setting{Path: "poll.interval", Kind: KindDuration, Default: "60s", Description: "how often the stored events of each realm are fetched; 0 switches off"},
		func(c *Config, v string) []problem { return one(setDuration(&c.Poll.Interval, v, "60s")) },
		func(c *Config) string { return durationText(c.Poll.Interval) },
	},
	{
		Setting{Path: "reconcile.interval", Kind: KindDuration, Default: "6h", Description: "how often each realm is compared with Keycloak; 0 switches off"},
		func(c *Config, v string) []problem { return one(setDuration(&c.Reconcile.Interval, v, "6h")) },
		func(c *Config) string { return durationText(c.Reconcile.Interval) },
	},
	{
		Setting{Path: "api.token", Kind: KindSecret, Description: "bearer token for API and page (default: none, requests only from loopback)"},
		func(c *Config, v string) []problem { return one(setSecret(&c.API.Token, v, 1)) },
		nil,
	},
	{
		Setting{Path: "reconcile.settle", Kind: KindDuration, Default: "60s", Description: "differences younger than this are not reported"},
		func(c *Config, v string) []problem { return one(setDuration(&c.Reconcile.Settle, v, "60s")) },
		func(c *Config) string { return durationText(c.Reconcile.Settle) },
	},
	{
		Setting{Path: "log.format", Kind: KindChoice, Choices: []string{"text", "json"}, Default: "text", Description: "format of the log lines"},
		func(c *Config, v string) []problem { return one(setChoice(&c.Log.Format, v, []string{"text", "json"})) },
		func(c *Config) string { return c.Log.Format },
	},
	{
		Setting{Path: "log.level", Kind: KindChoice, Choices: []string{"debug", "info", "warn", "error"}, Default: "info", Description: "least level that is logged"},
		func(c *Config, v string) []problem { return one(setLevel(&c.Log.Level, v)) },
		func(c *Config) string { return strings.ToLower(c.Log.Level.String()) },
	},
})

// buildTable names each setting in environment and flags after its path, and
// adds the file variants of secrets and of URLs that may hold one.
func buildTable(rows []setting) []setting {
	var out []setting
	for _, s := range rows {
		s.Env = "KEYTRAIL_" + strings.ToUpper(strings.ReplaceAll(s.Path, ".", "_"))
		s.Flag = strings.NewReplacer(".", "-", "_", "-").Replace(s.Path)
		s.Secret = s.Kind == KindSecret
		out = append(out, s)
		if s.Kind != KindSecret && s.Kind != KindStoreURL {
			continue
		}
		out = append(out, setting{Setting: Setting{
			Path: s.Path + "_file", Env: s.Env + "_FILE", Flag: s.Flag + "-file", Kind: KindFile, FileOf: s.Path,
			Description: "file that holds " + s.Path,
		}})
	}
	return out
}

func setStoreURL(into *StoreURL, value string) *problem {
	u, p := parseStoreURL(value)
	if p == nil {
		*into = u
	}
	return p
}

func setSecret(into *Secret, value string, parts int) *problem {
	if p := checkSecret(value, parts); p != nil {
		return p
	}
	*into = NewSecret(value)
	return nil
}

func setText(into *string, value string) *problem {
	if strings.TrimSpace(value) != value || strings.ContainsFunc(value, unicode.IsControl) {
		return &problem{"begins or ends with a space, or has a control character", "write it without"}
	}
	*into = value
	return nil
}

func setListen(into *string, value string) *problem {
	const try = "127.0.0.1:8085, or :8085 for every interface"
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return &problem{"is not host:port", try}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return &problem{"has a port that is not a number from 0 to 65535", try}
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsFunc(host, oddInHost) {
		return &problem{"has a host that is no name and no address", try}
	}
	*into = value
	return nil
}

func oddInHost(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '.' && r != '-'
}

func setURL(into *string, value, example string) *problem {
	if value == "" {
		*into = ""
		return nil
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return &problem{"is not an http or https URL", example}
	case u.User != nil || strings.Contains(value, "@"): // also one that a bare / cut in two
		return &problem{"has a user name or password in it", "leave them out: " + example}
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(value, "#"):
		return &problem{"has a query or fragment", "leave it out: " + example}
	}
	*into = strings.TrimRight(value, "/")
	return nil
}

func setKeycloakURL(into *string, value string) *problem {
	const example = "https://id.example.com, or https://id.example.com/auth where Keycloak has that context path"
	if p := setURL(into, value, example); p != nil {
		return p
	}
	if strings.Contains(*into+"/", "/realms/") || strings.Contains(*into+"/", "/admin/") {
		return &problem{"is not the base URL but a page below it", example}
	}
	return nil
}

func setRealms(into *[]string, value string) (all []problem) {
	if value == "" {
		*into = nil
		return nil
	}
	var realms []string
	for realm := range strings.SplitSeq(value, ",") {
		realm = strings.TrimSpace(realm)
		p := checkRealm(realm)
		switch {
		case p != nil && realm != "":
			p.says += fmt.Sprintf(": %q", withoutCredentials(realm))
		case p == nil && slices.Contains(realms, realm):
			p = &problem{fmt.Sprintf("names the realm %q twice", realm), "name each realm once, such as acme,globex"}
		}
		// Several empty names, or one name thrice, are one mistake.
		if p != nil && !slices.Contains(all, *p) {
			all = append(all, *p)
		}
		realms = append(realms, realm)
	}
	if len(all) == 0 {
		*into = realms
	}
	return all
}

func checkRealm(realm string) *problem {
	switch {
	case strings.TrimSpace(realm) == "":
		return &problem{"has an empty realm name", "name each realm once, such as acme,globex"}
	case strings.ContainsRune(realm, '/') || strings.ContainsFunc(realm, unicode.IsControl):
		return &problem{"has a realm name with a slash or control character", "give the realm's name as it stands in Keycloak's URLs, not a URL"}
	}
	return nil
}

func setDuration(into *time.Duration, value, example string) *problem {
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		try := "a number with a unit (ms, s, m, h), such as " + example + ", or 0 to switch off"
		if _, err := strconv.ParseFloat(value, 64); err == nil {
			try = fmt.Sprintf("%ss for seconds, or another unit (ms, m, h)", value)
		}
		return &problem{"is not a duration", try}
	case d < 0:
		return &problem{"is negative", example + ", or 0 to switch off"}
	}
	*into = d
	return nil
}

// maxCount keeps counts within what both databases and all machines hold.
const maxCount = 1_000_000_000

func setCount(into *int, value, example string) *problem {
	n, err := strconv.ParseUint(value, 10, 64)
	try := "a whole number, such as " + example + ", or 0 to switch off"
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > maxCount:
		return &problem{"is more than " + strconv.Itoa(maxCount), try}
	case err != nil:
		return &problem{"is not a whole number of 0 or more", try}
	}
	*into = int(n)
	return nil
}

// durationText writes 6h where time.Duration writes 6h0m0s.
func durationText(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func setChoice(into *string, value string, choices []string) *problem {
	if !slices.Contains(choices, value) {
		return &problem{"is not one of " + strings.Join(choices, ", "), suggestion(value, choices, choices[0])}
	}
	*into = value
	return nil
}

func setLevel(into *slog.Level, value string) *problem {
	var name string
	if p := setChoice(&name, value, []string{"debug", "info", "warn", "error"}); p != nil {
		return p
	}
	if err := into.UnmarshalText([]byte(name)); err != nil {
		return &problem{err.Error(), "info"}
	}
	return nil
}

func suggestion(value string, known []string, fallback string) string {
	if name, ok := closest(value, known); ok {
		return fmt.Sprintf("did you mean %s?", name)
	}
	return fallback
}
