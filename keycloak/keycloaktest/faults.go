package keycloaktest

import (
	"maps"
	"net/http"
	"strings"
	"sync"
)

// Fault is a switchable failure of the HTTP interface. What it does not name works
// as usual. Each switch says which part of the contract suite makes a real server do the
// same ("contract: x"), or why none can be made to.
type Fault struct {
	// Method is the HTTP method it applies to; any if empty.
	Method string
	// Pattern is matched against the escaped path: * stands for one segment, ** for
	// any number of them, also within: "/admin/realms/*/users/*", "**/reset-password".
	Pattern string
	// Skip lets that many matching requests through first.
	Skip int
	// Times is how often it strikes; 0 means until it is removed.
	Times int

	// Status answers without processing the request, with Header and Body. A 429 or 503
	// comes from what stands before Keycloak, or from a server that was started with
	// http-max-queued-requests; no call makes it answer so.
	Status int
	Header http.Header
	Body   string
	// DropBefore closes the connection instead of processing the request. The network
	// does that, not Keycloak: internal/e2e has a proxy before a real one for it.
	DropBefore bool
	// DropAfter processes the request and closes the connection instead of
	// answering: the answer is lost. The proxy of internal/e2e does it, too.
	DropAfter bool
	// Truncate cuts a 200's body in half, under a matching Content-Length, as Keycloak
	// does when its transaction times out (keycloak#52033). A real server would have to
	// take 300 s for one listing, and has been mended in 26.6.8.
	Truncate bool
	// EmptyList answers [] instead of a 200's body, as a caller gets it who has query-users
	// alone (contract: callers).
	EmptyList bool
	// RollBack processes the request, takes back what it changed and answers 500, as
	// the loser of a race is answered (keycloak#11588, #50924; contract: lost races). It
	// leaves no event. It is for requests below users; others are answered 501,
	// unprocessed.
	RollBack bool
	// PushPhantom, with RollBack, pushes the events all the same, as a sender does that
	// does not wait for the commit (keycloak#33194). The one that is tested with does
	// (contract: lost races), so that no real server can show it here.
	PushPhantom bool
	// SavePhantom, with RollBack, keeps the events in the event store, as one does that
	// is not part of the transaction. Keycloak's own (jpa) is, and loses them (contract:
	// lost races); any other has to be written first.
	SavePhantom bool
	// DoubleValues stores every attribute value that a user's PUT sends twice, as PUTs at
	// the same time leave them (keycloak#15788, #40929; contract: doubled values). Answer
	// and event are as usual.
	DoubleValues bool
}

// activeFault is what one request met.
type activeFault struct {
	Fault
	holdBefore, holdAfter *Held
}

type faultEntry struct {
	activeFault
	left int
}

type faults struct {
	mu      sync.Mutex
	entries []*faultEntry
}

// Inject switches a fault on. The first that matches a request strikes it. The
// returned function switches it off.
func (s *Server) Inject(f Fault) (remove func()) {
	return s.faults.add(&faultEntry{activeFault: activeFault{Fault: f}, left: f.Times})
}

// FailNext answers the next n matching requests with status without processing them.
// The body has Keycloak's form of an error.
func (s *Server) FailNext(method, pattern string, n, status int) (remove func()) {
	return s.Inject(Fault{Method: method, Pattern: pattern, Times: n, Status: status, Body: `{"error":"HTTP ` + http.StatusText(status) + `"}`})
}

// DuplicateResource is the body of a 409 that says neither what there is already nor
// whose it is. So Keycloak answers those who lose the race for an e-mail address: the
// database refuses what Keycloak had looked for in vain (contract: refused conflicts).
const DuplicateResource = `{"error":"conflict","error_description":"Duplicate resource error"}`

// ConflictNext answers the next n matching requests with 409 and DuplicateResource,
// without processing them.
func (s *Server) ConflictNext(method, pattern string, n int) (remove func()) {
	return s.Inject(Fault{Method: method, Pattern: pattern, Times: n, Status: http.StatusConflict, Body: DuplicateResource})
}

// Held is a request that is kept waiting. So a slow page is made, which a real server
// has among millions of users only (keycloak#44860, #48480).
type Held struct {
	arrived, released chan struct{}
	arriveOnce, once  sync.Once
}

// Arrived is closed when the request has come.
func (h *Held) Arrived() <-chan struct{} { return h.arrived }

// Release lets the request go on; it may be called more than once.
func (h *Held) Release() { h.once.Do(func() { close(h.released) }) }

func (h *Held) wait(closing <-chan struct{}) bool {
	h.arriveOnce.Do(func() { close(h.arrived) })
	select {
	case <-h.released:
		return true
	case <-closing:
		return false
	}
}

func newHeld() *Held {
	return &Held{arrived: make(chan struct{}), released: make(chan struct{})}
}

// PhantomNext strikes the next matching request with RollBack, PushPhantom and
// SavePhantom: the event is there in either form, and the change is not.
func (s *Server) PhantomNext(method, pattern string) (remove func()) {
	return s.Inject(Fault{Method: method, Pattern: pattern, Times: 1, RollBack: true, PushPhantom: true, SavePhantom: true})
}

// rollBack handles a call and takes back what it changed of the realm's users. A call
// that is refused anyway has changed nothing and keeps its answer.
func (c *call) rollBack(handler func(*call) reply) reply {
	if !matches("", "/admin/realms/*/users/**", "", c.URL.EscapedPath()) {
		return fail(http.StatusNotImplemented, "the fake rolls back requests below users only")
	}
	c.saves, c.tells = c.saves && c.fault.SavePhantom, c.tells && c.fault.PushPhantom
	r := c.realm
	users, profile := maps.Clone(r.users), r.profile
	failures, lockedUntil := maps.Clone(r.failures), maps.Clone(r.lockedUntil)
	before := make(map[*User]User, len(users))
	for _, u := range users {
		before[u] = u.clone()
	}
	answer := handler(c)
	for u, was := range before {
		*u = was
	}
	r.users, r.profile, r.failures, r.lockedUntil = users, profile, failures, lockedUntil
	if answer.status >= http.StatusBadRequest {
		return answer
	}
	return serverError()
}

// HoldRequest keeps the next matching request waiting before it is processed.
func (s *Server) HoldRequest(method, pattern string) *Held {
	h := newHeld()
	s.faults.add(&faultEntry{activeFault: activeFault{Fault: Fault{Method: method, Pattern: pattern}, holdBefore: h}, left: 1})
	return h
}

// HoldAnswer processes the next matching request and keeps its answer back.
func (s *Server) HoldAnswer(method, pattern string) *Held {
	h := newHeld()
	s.faults.add(&faultEntry{activeFault: activeFault{Fault: Fault{Method: method, Pattern: pattern}, holdAfter: h}, left: 1})
	return h
}

// SwitchEventStore switches the event store off or on. Off is what a server is like
// that was built without --spi-events-store--provider=jpa beside the webhook extension:
// nothing is saved and the event lists answer 500, while the push works. It is measured by
// hand: the tests' own server is built with the option, see internal/kcserver.
func (s *Server) SwitchEventStore(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storeOff = !on
}

func (f *faults) add(e *faultEntry) (remove func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = append(f.entries, e)
	return func() { f.remove(e) }
}

func (f *faults) remove(e *faultEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, have := range f.entries {
		if have == e {
			f.entries = append(f.entries[:i:i], f.entries[i+1:]...)
			return
		}
	}
}

func (f *faults) match(method, path string) activeFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, e := range f.entries {
		if !matches(e.Method, e.Pattern, method, path) {
			continue
		}
		if e.Skip > 0 {
			e.Skip--
			continue
		}
		if e.left > 0 {
			if e.left--; e.left == 0 {
				f.entries = append(f.entries[:i:i], f.entries[i+1:]...)
			}
		}
		return e.activeFault
	}
	return activeFault{}
}

func matches(wantMethod, pattern, method, path string) bool {
	if wantMethod != "" && wantMethod != method {
		return false
	}
	return matchSegments(strings.Split(strings.Trim(pattern, "/"), "/"), strings.Split(strings.Trim(path, "/"), "/"))
}

func matchSegments(pattern, path []string) bool {
	if len(pattern) == 0 {
		return len(path) == 0
	}
	if pattern[0] == "**" {
		for i := range len(path) + 1 {
			if matchSegments(pattern[1:], path[i:]) {
				return true
			}
		}
		return false
	}
	return len(path) > 0 && (pattern[0] == "*" || pattern[0] == path[0]) && matchSegments(pattern[1:], path[1:])
}

// LoggedRequest is one wire attempt that reached the server. It holds no header and
// no body, so it holds no secret.
type LoggedRequest struct {
	Method string
	Path   string // escaped, without the query
	Status int    // 0 while it is handled and when the connection was dropped
}

type requestLog struct {
	mu      sync.Mutex
	entries []*LoggedRequest
}

func (l *requestLog) arrived(method, path string) *LoggedRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) >= maxLog {
		l.entries = append([]*LoggedRequest(nil), l.entries[maxLog/2:]...)
	}
	e := &LoggedRequest{Method: method, Path: path}
	l.entries = append(l.entries, e)
	return e
}

func (l *requestLog) answered(e *LoggedRequest, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Status = status
}

// Requests counts the matching wire attempts; see Fault for the pattern.
func (s *Server) Requests(method, pattern string) int {
	n := 0
	for _, e := range s.RequestLog() {
		if matches(method, pattern, e.Method, e.Path) {
			n++
		}
	}
	return n
}

// RequestLog returns the wire attempts in the order of their arrival, the newest
// 25,000 at least.
func (s *Server) RequestLog() []LoggedRequest {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	list := make([]LoggedRequest, len(s.log.entries))
	for i, e := range s.log.entries {
		list[i] = *e
	}
	return list
}
