package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// builtIn is the source that needs no more than webhook.secret.
const builtIn = "keycloak"

// Dialect says in which of the shapes in use a source sends its events.
type Dialect string

// The dialects that can be read.
const (
	DialectAuto     Dialect = "auto"     // told apart by the body
	DialectP2       Dialect = "p2"       // p2-inc/keycloak-events, ext-event-webhook
	DialectKeycloak Dialect = "keycloak" // Keycloak's own AdminEvent and Event JSON
)

// Auth says how a source proves that a delivery is its own.
type Auth string

// The kinds of authentication that can be checked.
const (
	AuthHMACSHA256 Auth = "hmac-sha256"
	AuthHMACSHA1   Auth = "hmac-sha1"
	AuthNone       Auth = "none" // served from loopback only
)

var (
	dialects      = []string{string(DialectAuto), string(DialectP2), string(DialectKeycloak)}
	laterDialects = []string{"vymalo", "monte97", "aznamier", "snuk87", "evilnet", "edereagzi", "groupbridge"}
	auths         = []string{string(AuthHMACSHA256), string(AuthHMACSHA1), string(AuthNone)}
	laterAuths    = []string{"jwt", "basic", "header", "standard-webhooks"}
	sourceKeys    = []string{"auth", "dialect", "exclude", "include", "realm", "secret", "secret_file"}
	sourceName    = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	eventType     = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_.:-]*)?\*?$`)
)

// Source is one sender of webhooks, reached at /webhooks/NAME.
type Source struct {
	Name    string
	Dialect Dialect
	Realm   string // for bodies that name none; empty: they must
	Auth    Auth
	Secret  Secret // set unless Auth is none
	// Include and Exclude are event types as the sender writes them, such as
	// admin.USER-CREATE; a * at the end stands for any rest. An empty Include takes
	// every type; Exclude wins.
	Include []string
	Exclude []string

	origin       string
	secretOrigin string
}

// Secrets returns the secrets that a signature may be made with: one, two during
// a rotation, none where Auth is none.
func (s Source) Secrets() []Secret { return s.Secret.Rotation() }

func isBuiltIn(s Source) bool { return s.Name == builtIn }

// sources reads the mapping `sources`.
func (w fileWalk) sources(n *yaml.Node) {
	w.members(n, "sources", []string{"NAME, with " + strings.Join(sourceKeys, ", ")}, func(name string, value *yaml.Node) {
		path := "sources." + name
		if !sourceName.MatchString(name) {
			w.faultAt(value, path, "has a name that cannot stand in /webhooks/NAME", "use lower-case letters, digits, - and _, 63 at most, such as partner-eu")
			w.source(value, name) // for its other faults
			return
		}
		w.config.Sources = append(w.config.Sources, w.source(value, name))
	})
}

func (w fileWalk) source(n *yaml.Node, name string) Source {
	path := "sources." + name
	s := Source{Name: name, Dialect: DialectAuto, Auth: AuthHMACSHA256, origin: at(w.name, n.Line)}
	faults := len(w.faults)
	faulty := map[string]bool{} // keys whose value has a fault
	var secret, secretFile string
	var found bool // the file of secret_file
	var secretNode *yaml.Node
	w.members(n, path, sourceKeys, func(key string, value *yaml.Node) {
		full := path + "." + key
		kind := KindText
		if key == "include" || key == "exclude" {
			kind = KindList
		}
		if !slices.Contains(sourceKeys, key) {
			w.unknown(value, full, key, sourceKeys)
			if like, ok := closest(key, sourceKeys); ok {
				faulty[like] = true // it is most likely there, misspelt
			}
			return
		}
		text, ok := w.text(value, full, kind)
		faulty[key] = faulty[key] || !ok
		if !ok || text == "" {
			return
		}
		var all []problem
		switch key {
		case "dialect":
			s.Dialect = Dialect(text)
			all = one(choice(text, dialects, laterDialects))
		case "auth":
			s.Auth = Auth(text)
			all = one(choice(text, auths, laterAuths))
		case "realm":
			p := checkRealm(text)
			if p == nil {
				p = setText(&s.Realm, text)
			}
			all = one(p)
		case "secret":
			secret, secretNode = text, value
			all = one(checkSecret(text, 2))
		case "secret_file":
			secretFile, secretNode = text, value
			content, ok, p := w.secretFile(text)
			if found = ok; p == nil {
				p = checkSecret(content, 2)
				s.Secret = NewSecret(content)
				s.secretOrigin = at(w.name, value.Line) + " (" + text + ")"
			}
			all = one(p)
		case "include":
			s.Include, all = eventTypes(text)
		case "exclude":
			s.Exclude, all = eventTypes(text)
		}
		f := Fault{Path: full, Source: at(w.name, value.Line), Value: withoutCredentials(text)}
		if key == "secret" || key == "secret_file" && !found {
			f.Value = ""
		}
		w.faultsOf(f, all)
		faulty[key] = faulty[key] || len(all) > 0
	})
	if secret != "" {
		s.Secret, s.secretOrigin = NewSecret(secret), at(w.name, secretNode.Line)
	}

	for _, t := range s.Include {
		if slices.Contains(s.Exclude, t) {
			w.fault(Fault{Path: path + ".exclude", Source: s.origin, Value: t, Problem: "names a type that include names too", Try: "keep it in one of them"})
		}
	}
	hasSecret := secret != "" || secretFile != ""
	switch {
	case secret != "" && secretFile != "":
		w.faultAt(secretNode, path+".secret", "is given twice, by value and by file", "keep secret_file")
	case s.Auth == AuthNone && hasSecret:
		w.faultAt(secretNode, path+".secret", "has no use with auth: none", "remove it, or say auth: hmac-sha256")
	case (isNull(resolve(n)) || isMapping(resolve(n))) && !hasSecret && s.Auth != AuthNone && name != builtIn && !faulty["auth"] && !faulty["secret"] && !faulty["secret_file"]:
		w.faultAt(n, path+".secret", "is missing", "set secret_file, or say auth: none to take unsigned events from loopback")
	}
	if len(w.faults) > faults {
		w.bad[path] = true
	}
	return s
}

// finishSources adds the source "keycloak", or completes it where the file has
// it, and sorts the sources.
func (l *loader) finishSources() {
	c := l.config
	i := slices.IndexFunc(c.Sources, isBuiltIn)
	if i < 0 {
		i = len(c.Sources)
		c.Sources = append(c.Sources, Source{Name: builtIn, Dialect: DialectAuto, Auth: AuthHMACSHA256, origin: "built in"})
	}
	s := &c.Sources[i]
	g, given := l.given["webhook.secret"]
	switch {
	case l.bad["sources."+builtIn]:
	case given && s.Secret.IsSet():
		l.fault(Fault{
			Path: "sources.keycloak.secret", Source: s.secretOrigin, Problem: "is given a second time, by webhook.secret (" + g.from + ")",
			Try: "keep one of them",
		})
	case given && s.Auth == AuthNone:
		l.fault(Fault{
			Path: "sources.keycloak.auth", Source: s.origin, Problem: "is none, and webhook.secret is given (" + g.from + ")",
			Try: "remove one of them",
		})
	case !s.Secret.IsSet():
		s.Secret = c.Webhook.Secret
	}
	if !s.Secret.IsSet() && !l.bad["webhook.secret"] && !l.bad["sources."+builtIn] {
		s.Auth = AuthNone // unsigned events from loopback
	}
	slices.SortFunc(c.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
}

func choice(value string, built, later []string) *problem {
	if slices.Contains(later, value) {
		return &problem{"is not built yet", "use one of " + strings.Join(built, ", ")}
	}
	var ignored string
	if p := setChoice(&ignored, value, built); p != nil {
		p.try = suggestion(value, slices.Concat(built, later), built[0])
		return p
	}
	return nil
}

// eventTypes reads event types; those that are none are left out.
func eventTypes(text string) (types []string, all []problem) {
	for t := range strings.SplitSeq(text, ",") {
		t = strings.TrimSpace(t)
		if t == "" || t == "true" || t == "false" || !eventType.MatchString(t) {
			all = append(all, problem{
				fmt.Sprintf("has an item that is no event type: %q", withoutCredentials(t)),
				"such as admin.USER-CREATE, or access.* for all that begin so",
			})
			continue
		}
		types = append(types, t)
	}
	return types, all
}
