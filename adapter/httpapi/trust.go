package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/keytrail/keytrail/adapter"
)

// LoopbackTrust is loopbackTrust for the pages, which follow the same rule.
func LoopbackTrust(r *http.Request) string { return loopbackTrust(r) }

// loopbackTrust reports why a request is not to be trusted without a secret, and ""
// where it is. Nobody but this machine can have sent a request that comes from a
// loopback address; one that names another host was led here by a manipulated name
// (DNS rebinding), and one that was forwarded came through a proxy on this machine,
// from anywhere.
func loopbackTrust(r *http.Request) string {
	if !remoteIP(r).IsLoopback() {
		return "the request does not come from a loopback address"
	}
	if !loopbackHost(r.Host) {
		return "the request's Host is not a loopback name"
	}
	for _, name := range forwarding {
		if _, ok := r.Header[name]; ok {
			return "the request was forwarded by a proxy (" + name + ")"
		}
	}
	return ""
}

// forwarding are the headers by which proxies say that they are there. One that says
// nothing and asks under a loopback name looks like this machine: for its sake the
// configuration demands both secrets where the public URL is not this machine's.
var forwarding = []string{
	"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-Ip",
}

// remoteIP is the address of the connection's other end, zero where it is unknown.
// What headers say about it is not looked at: anybody can write them.
func remoteIP(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// loopbackHost reports whether host, with or without a port, is localhost or a
// loopback address.
func loopbackHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		name = name[1 : len(name)-1]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// bearer is the token that must come with a request.
type bearer struct {
	set    bool
	digest [sha256.Size]byte
}

func newBearer(token string) bearer {
	return bearer{set: token != "", digest: sha256.Sum256([]byte(token))}
}

// matches compares in the same time for every wrong token, of any length.
func (b bearer) matches(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !b.set || !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	digest := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(digest[:], b.digest[:]) == 1
}

// Ids of actors over HTTP. The token itself is a secret, so its place in the
// configuration names it.
const (
	actorToken    = "api-token"
	actorLoopback = "loopback"
)

// maxClient bounds what a client may say of itself, in bytes.
const maxClient = 100

// caller says who sends an API request, or refuses it.
func (s *Server) caller(r *http.Request) (adapter.Actor, error) {
	actor := adapter.Actor{Type: adapter.ActorToken, ID: actorToken, Client: clientOf(r)}
	if ip := remoteIP(r); ip.IsValid() {
		actor.IP = ip.String()
	}
	if s.token.set {
		if s.token.matches(r) {
			return actor, nil
		}
		detail := "the request carries no bearer token"
		if r.Header.Get("Authorization") != "" {
			detail = "the request's bearer token is not the right one"
		}
		return actor, adapter.Errorf(codeUnauthorized, "%s", detail).
			WithTry("send the header Authorization: Bearer TOKEN, where TOKEN is keytrail's KEYTRAIL_API_TOKEN")
	}
	if why := loopbackTrust(r); why != "" {
		return actor, adapter.Errorf(codeUnauthorized, "%s, and no token is configured", why).
			WithTry("set KEYTRAIL_API_TOKEN and send it as Authorization: Bearer TOKEN, or ask from the machine itself at http://127.0.0.1")
	}
	actor.ID = actorLoopback
	return actor, nil
}

// clientOf is what the client calls itself, bounded and printable.
func clientOf(r *http.Request) string {
	name := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, r.UserAgent())
	return name[:min(len(name), maxClient)]
}
