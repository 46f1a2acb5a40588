package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config is the whole configuration. One that [Load] or [Default] returned is
// valid, and is not changed afterwards: any number of goroutines may read it.
type Config struct {
	Store     Store
	Listen    string // host:port; an empty host means every interface
	PublicURL string // without a slash at the end; never empty, see PublicURLAt
	Webhook   Webhook
	Keycloak  Keycloak
	Poll      Poll
	Reconcile Reconcile
	API       API
	Log       Log
	// Sources are the webhook sources, sorted by name. The source "keycloak" is
	// always among them.
	Sources []Source

	origins map[string]string // setting's path → where its value came from
}

// Store says where the events are.
type Store struct {
	URL StoreURL
	// AdminURL is the role that owns the tables; the same as URL where none was given.
	AdminURL StoreURL
	// SnapshotAfter is by how many events a stream grows until its next snapshot; 0: off.
	SnapshotAfter int
}

// Webhook configures the source "keycloak".
type Webhook struct {
	Secret Secret // one, or two during a rotation: see Source.Secrets
}

// Keycloak says how to reach the one Keycloak that this keytrail serves.
type Keycloak struct {
	URL          string // base URL without a slash at the end; empty: webhooks only
	Realms       []string
	ClientID     string
	ClientSecret Secret
	AuthRealm    string
}

// Poll configures the pull of stored events.
type Poll struct {
	Interval time.Duration // 0: off
}

// Reconcile configures the comparison with the live Keycloak.
type Reconcile struct {
	Interval time.Duration // 0: off
	Settle   time.Duration // younger differences are not reported
}

// API configures API and page.
type API struct {
	Token Secret
}

// Log configures the log.
type Log struct {
	Format string // text or json
	Level  slog.Level
}

// Input is everything that a configuration is made from.
type Input struct {
	// ConfigFile is the YAML file's name; empty: the one that KEYTRAIL_CONFIG
	// names. Without either there is no file.
	ConfigFile string
	// Flags holds the flags that were given, by name without the dashes.
	Flags map[string]string
	// Env is the environment in the form of os.Environ.
	Env []string
	// ReadFile reads the YAML file and the files of secrets; nil: os.ReadFile.
	ReadFile func(name string) ([]byte, error)
	// WithoutClient lets a Keycloak URL stand without client id and secret: for
	// the command that creates this client.
	WithoutClient bool
}

const (
	envPrefix = "KEYTRAIL_"
	envConfig = "KEYTRAIL_CONFIG"
	envTest   = "KEYTRAIL_TEST_"
)

// orchestrator matches the variables that Kubernetes and Docker links put into a
// container for every service whose name begins with "keytrail": they are not
// ours, and their author cannot switch them off one by one.
var orchestrator = regexp.MustCompile(`^KEYTRAIL_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

var orchestratorPort = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// Default returns the configuration of a program that was given nothing.
func Default() *Config {
	l := loader{config: &Config{origins: map[string]string{}}, given: map[string]given{}, bad: map[string]bool{}}
	l.apply()
	l.finish()
	return l.config
}

// Load reads file, environment and flags, and returns a valid configuration or
// an *Error with every fault.
func Load(in Input) (*Config, error) {
	l := loader{
		config: &Config{origins: map[string]string{}},
		given:  map[string]given{}, bad: map[string]bool{},
		readFile: in.ReadFile,
	}
	if l.readFile == nil {
		l.readFile = os.ReadFile
	}
	env := environ(in.Env)
	file, from := in.ConfigFile, "--config"
	if file == "" {
		file, from = env[envConfig], envConfig
	}
	complete := true
	if file != "" {
		complete = l.fromFile(file, from)
	}
	l.fromEnv(env)
	l.fromFlags(in.Flags)
	l.readSecretFiles()
	l.apply()
	l.finish()
	if complete { // an unreadable file would only give faults that follow from it
		l.rules(in.WithoutClient)
	}
	if len(l.faults) > 0 {
		return nil, &Error{Faults: l.faults}
	}
	return l.config, nil
}

// Origin says where the value of the setting with this path came from: a file
// and line, a variable, a flag, or "default".
func (c *Config) Origin(path string) string {
	if from, ok := c.origins[path]; ok {
		return from
	}
	return "default"
}

// PublicURLAt returns the public URL for a server that listens at addr: the
// configured one or, where none was given, http:// and addr. It matters where
// Listen has port 0.
func (c *Config) PublicURLAt(addr string) string {
	if _, ok := c.origins["public_url"]; ok && c.PublicURL != "" {
		return c.PublicURL
	}
	return "http://" + reachable(addr)
}

// reachable is the address at which this machine reaches a listener: one on every
// interface is on this one too.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.Unmap().IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}

// given is a value that someone gave for a setting.
type given struct {
	value string
	from  string
	layer layer
}

type layer int

const (
	fileLayer layer = iota + 1
	envLayer
	flagLayer
)

type loader struct {
	config   *Config
	given    map[string]given // by path
	bad      map[string]bool  // paths whose value already has a fault
	faults   []Fault
	readFile func(string) ([]byte, error)
}

func (l *loader) fault(f Fault) { l.faults = append(l.faults, f) }

// give notes a value. Layers come in rising order, so a later one wins.
func (l *loader) give(path string, g given) {
	for _, s := range table {
		if s.FileOf == "" || path != s.Path && path != s.FileOf {
			continue
		}
		other := s.Path
		if path == s.Path {
			other = s.FileOf
		}
		before, ok := l.given[other]
		if ok && before.layer == g.layer {
			l.bad[s.FileOf] = true
			l.fault(Fault{
				Path: s.FileOf, Source: before.from + " and " + g.from, Problem: "is given twice, by value and by file",
				Try: "keep the file: it does not show in process lists",
			})
		}
		if ok && before.layer < g.layer {
			delete(l.given, other)
		}
	}
	l.given[path] = g
}

func environ(env []string) map[string]string {
	out := map[string]string{}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, envPrefix) {
			out[name] = value
		}
	}
	return out
}

func (l *loader) fromEnv(env map[string]string) {
	byName := map[string]setting{}
	for _, s := range table {
		byName[s.Env] = s
	}
	names := append(slices.Collect(maps.Keys(byName)), envConfig)
	slices.Sort(names)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		s, ok := byName[name]
		switch {
		case ok && value != "":
			l.give(s.Path, given{value: value, from: name, layer: envLayer})
		case ok || name == envConfig || strings.HasPrefix(name, envTest) || orchestrator.MatchString(name):
		case strings.HasSuffix(name, "_PORT") && orchestratorPort.MatchString(value):
		default:
			l.fault(Fault{
				Path: name, Source: "environment", Problem: "is not a setting",
				Try: suggestEnv(name, names),
			})
		}
	}
}

func suggestEnv(name string, known []string) string {
	short := make([]string, len(known)) // the common prefix would make all names alike
	for i, k := range known {
		short[i] = strings.TrimPrefix(k, envPrefix)
	}
	if like, ok := closest(strings.TrimPrefix(name, envPrefix), short); ok {
		return "did you mean " + envPrefix + like + "?"
	}
	return "unset it; `keytrail config print` shows every setting"
}

func (l *loader) fromFlags(flags map[string]string) {
	byName := map[string]setting{}
	for _, s := range table {
		byName[s.Flag] = s
	}
	names := slices.Sorted(maps.Keys(byName))
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if s, ok := byName[name]; ok {
			l.give(s.Path, given{value: flags[name], from: "--" + name, layer: flagLayer})
			continue
		}
		l.fault(Fault{Path: "--" + name, Source: "flags", Problem: "is not a setting", Try: suggestion(name, names, "leave it out")})
	}
}

// readSecretFiles puts a file's content in the place of the setting it is for.
func (l *loader) readSecretFiles() {
	for _, s := range table {
		g, ok := l.given[s.Path]
		if s.FileOf == "" || !ok {
			continue
		}
		delete(l.given, s.Path)
		value, found, p := l.secretFile(g.value)
		if p != nil {
			l.bad[s.FileOf] = true
			f := Fault{Path: s.Path, Source: g.from, Problem: p.says, Try: p.try}
			if found {
				f.Value = g.value
			}
			l.fault(f)
			continue
		}
		l.given[s.FileOf] = given{value: value, from: g.from + " (" + g.value + ")", layer: g.layer}
	}
}

// secretFile reads a file with one value. Editors end a file with a line break,
// which is no part of the value. A name is fit to be shown only where found is
// true: otherwise it may be the secret itself, given in the wrong place.
func (l *loader) secretFile(name string) (value string, found bool, p *problem) {
	content, err := l.readFile(name)
	if err != nil {
		return "", errors.Is(err, fs.ErrPermission), unreadable(err)
	}
	value = strings.TrimRight(string(content), "\r\n")
	switch {
	case strings.TrimSpace(value) == "":
		return "", true, &problem{"names an empty file", "write the secret into it"}
	case strings.ContainsAny(value, "\r\n"):
		return "", true, &problem{"names a file of several lines", "keep nothing but the secret in it, on one line"}
	}
	return value, true, nil
}

func unreadable(err error) *problem {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &problem{"names a file that does not exist", "check the path, which counts from the working directory"}
	case errors.Is(err, fs.ErrPermission):
		return &problem{"names a file that this user may not read", "give keytrail's user the right to read it"}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &problem{"names a file that cannot be read: " + err.Error(), "check the path"}
}

// apply sets every setting: its default first, then what was given.
func (l *loader) apply() {
	for _, s := range table {
		if s.set == nil {
			continue
		}
		if s.Default != "" {
			// A test sees to it that there is no fault in one.
			l.faultsOf(Fault{Path: s.Path, Source: "default", Value: s.Default}, s.set(l.config, s.Default))
		}
		g, ok := l.given[s.Path]
		if !ok {
			continue
		}
		l.config.origins[s.Path] = g.from
		if all := s.set(l.config, g.value); len(all) > 0 {
			l.bad[s.Path] = true
			f := Fault{Path: s.Path, Source: g.from, Value: withoutCredentials(g.value)}
			if s.Secret {
				f.Value = ""
			}
			l.faultsOf(f, all)
		}
	}
}

// finish fills in the defaults that follow from other settings.
func (l *loader) finish() {
	c := l.config
	if c.Store.AdminURL == (StoreURL{}) {
		c.Store.AdminURL = c.Store.URL
		c.origins["store.admin_url"] = "default, store.url"
	}
	if c.PublicURL == "" {
		c.PublicURL = "http://" + reachable(c.Listen)
		delete(c.origins, "public_url")
	}
	l.finishSources()
}

// rules judges what settings mean together.
func (l *loader) rules(withoutClient bool) {
	c := l.config
	if g, ok := l.given["store.admin_url"]; ok && !l.bad["store.url"] && !l.bad["store.admin_url"] {
		if c.Store.AdminURL.Kind != c.Store.URL.Kind || c.Store.URL.Kind == SQLite && c.Store.AdminURL.Path != c.Store.URL.Path {
			l.fault(Fault{
				Path: "store.admin_url", Source: g.from, Value: c.Store.AdminURL.String(),
				Problem: "is another store than store.url, " + c.Store.URL.String(),
				Try:     "name the same PostgreSQL database with the role that owns the tables, or leave it out",
			})
		}
	}

	missing := func(path string) bool {
		_, ok := l.given[path]
		return !ok && !l.bad[path]
	}
	switch {
	case l.bad["keycloak.url"] || c.Keycloak.URL != "": // a bad one is given all the same
		given := "keycloak.url is given"
		if from, ok := c.origins["keycloak.url"]; ok {
			given += " (" + from + ")"
		}
		for _, path := range []string{"keycloak.client_id", "keycloak.client_secret"} {
			if missing(path) && !withoutClient {
				l.fault(Fault{
					Path: path, Problem: "is missing, and " + given,
					Try: "set " + l.howTo(path) + "; the README says under \"The service account\" what client that is",
				})
			}
		}
	default:
		for _, path := range []string{"keycloak.realms", "keycloak.client_id", "keycloak.client_secret"} {
			if g, ok := l.given[path]; ok && g.value != "" {
				l.fault(Fault{
					Path: path, Source: g.from, Problem: "has no use without keycloak.url",
					Try: "set " + l.howTo("keycloak.url") + ", or leave " + path + " out",
				})
			}
		}
	}
	l.exposure()
}

// exposure refuses to serve others without both secrets: those who reach the address
// that it listens at and those who come by a proxy on this machine, whose requests look
// like this machine's own. A public URL elsewhere says that there is one.
func (l *loader) exposure() {
	c := l.config
	var reach, try string
	switch {
	case !l.bad["listen"] && !isLoopback(c.Listen):
		reach, try = "others can reach "+c.Listen+" ("+c.Origin("listen")+")", "listen on 127.0.0.1"
	case !l.bad["public_url"] && !isLoopbackURL(c.PublicURL) && c.Origin("public_url") != "default":
		reach, try = "others reach keytrail at "+c.PublicURL+" ("+c.Origin("public_url")+")", "leave public_url out where keytrail serves only this machine"
	default:
		return
	}
	needed := func(path string) {
		l.fault(Fault{Path: path, Problem: "is missing, and " + reach, Try: "set " + l.howTo(path) + ", or " + try})
	}
	source := c.Sources[slices.IndexFunc(c.Sources, isBuiltIn)]
	if !l.bad["webhook.secret"] && !l.bad["sources."+builtIn] && !source.Secret.IsSet() {
		needed("webhook.secret")
	}
	if !l.bad["api.token"] && !c.API.Token.IsSet() {
		needed("api.token")
	}
}

// howTo names the ways to give a setting.
func (l *loader) howTo(path string) string {
	i := slices.IndexFunc(table, func(s setting) bool { return s.Path == path })
	s := table[i]
	if s.Secret {
		return s.Env + "_FILE or " + s.Env
	}
	return s.Env + " or --" + s.Flag
}

// isLoopback reports whether only this machine can reach a listener at addr. A
// name other than localhost may resolve to anything, so it counts as reachable.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "localhost")
	}
	return ip.Unmap().IsLoopback()
}

// isLoopbackURL is isLoopback for the host of a URL.
func isLoopbackURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && isLoopback(net.JoinHostPort(u.Hostname(), "0"))
}

func at(file string, line int) string { return fmt.Sprintf("%s:%d", filepath.ToSlash(file), line) }
