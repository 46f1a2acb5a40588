package e2e_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/eventstore"
)

// proxy stands between keytrail and Keycloak. It knows what really went over the
// wire, answers in Keycloak's place, and loses answers.
type proxy struct {
	*httptest.Server
	forward *httputil.ReverseProxy

	mu       sync.Mutex
	requests []wireRequest
	faults   []fault
	tokens   []string
}

// wireRequest is one request as Keycloak, or the proxy in its place, answered it.
type wireRequest struct {
	method, path string
	// status is 0 where the answer was lost.
	status int
}

// fault happens to the next matching requests.
type fault struct {
	method, path string // path is a suffix of the request's
	times        int
	// status is answered, and Keycloak not asked; 0 asks Keycloak, and loses the answer.
	status int
	// held, where not nil, holds the request up and then lets it pass: it tells of the
	// request by a value, and goes on when it gets one.
	held chan struct{}
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	u, err := url.Parse(target)
	require.NoError(t, err)
	transport := &http.Transport{}
	p := &proxy{forward: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // a request that keytrail gave up is no news
	}}
	p.Server = serve(t, p)
	t.Cleanup(transport.CloseIdleConnections)
	return p
}

func (p *proxy) inject(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
}

// heal ends all faults.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

// take returns the fault that happens to a request.
func (p *proxy) take(r *http.Request) (fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.faults {
		f := &p.faults[i]
		if f.times > 0 && f.method == r.Method && strings.HasSuffix(r.URL.Path, f.path) {
			f.times--
			return *f, true
		}
	}
	return fault{}, false
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, faulty := p.take(r)
	if f.held != nil {
		f.held <- struct{}{}
		<-f.held
		faulty = false
	}
	answer := httptest.NewRecorder()
	if faulty && f.status != 0 {
		answer.WriteHeader(f.status)
	} else {
		p.forward.ServeHTTP(answer, r)
	}
	seen := wireRequest{method: r.Method, path: r.URL.Path, status: answer.Code}
	if faulty && f.status == 0 {
		seen.status = 0
	}
	p.mu.Lock()
	p.requests = append(p.requests, seen)
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	if strings.HasSuffix(r.URL.Path, "/protocol/openid-connect/token") && json.Unmarshal(answer.Body.Bytes(), &grant) == nil && grant.AccessToken != "" {
		p.tokens = append(p.tokens, grant.AccessToken)
	}
	p.mu.Unlock()
	if seen.status == 0 {
		panic(http.ErrAbortHandler) // cuts the connection without an answer
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	if _, err := w.Write(answer.Body.Bytes()); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// seen returns the requests that the choice selects, in order.
func (p *proxy) seen(choose func(wireRequest) bool) []wireRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	var chosen []wireRequest
	for _, r := range p.requests {
		if choose(r) {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// writes are the requests that change something.
func (p *proxy) writes() []wireRequest {
	return p.seen(func(r wireRequest) bool { return r.method != http.MethodGet && strings.HasPrefix(r.path, "/admin/") })
}

func (p *proxy) accessTokens() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.tokens...)
}

// tap stands between Keycloak's webhook sender and keytrail. It checks each signature
// without keytrail's code, sees that what keytrail has accepted is in its log by then,
// and can keep deliveries back.
type tap struct {
	*httptest.Server
	secret string

	mu     sync.Mutex
	target string
	log    eventstore.Reader
	client *http.Client
	bodies []delivery
	held   []delivery
	hold   bool
	faults []string
}

// delivery is one request of the webhook sender.
type delivery struct {
	body      []byte
	signature string
}

// field reads a member of the body.
func (d delivery) field(name string) string {
	var body object
	if json.Unmarshal(d.body, &body) != nil {
		return ""
	}
	text, _ := body[name].(string)
	return text
}

func newTap(t *testing.T, secret string, client *http.Client) *tap {
	t.Helper()
	tap := &tap{secret: secret, client: client}
	tap.Server = serve(t, tap)
	t.Cleanup(func() {
		tap.mu.Lock()
		defer tap.mu.Unlock()
		for _, f := range tap.faults {
			t.Error(f)
		}
	})
	return tap
}

func (p *tap) pointsAt() (url string, log eventstore.Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target, p.log
}

// pointAt says where deliveries go on to, and which log they must be in then. Without
// an address the sender is told to try again.
func (p *tap) pointAt(url string, log eventstore.Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target, p.log = url, log
}

func (p *tap) fault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

func (p *tap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.fault("reading a delivery: %v", err)
		return
	}
	d := delivery{body: body, signature: r.Header.Get("X-Keycloak-Signature")}
	mac := hmac.New(sha256.New, []byte(p.secret))
	mac.Write(body)
	if want := hex.EncodeToString(mac.Sum(nil)); d.signature != want {
		p.fault("signature %q of %s, want %q", d.signature, body, want)
	}
	p.mu.Lock()
	hold := p.hold
	if hold {
		p.held = append(p.held, d)
	}
	p.bodies = append(p.bodies, d)
	p.mu.Unlock()
	if hold {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	target, recorded := p.pointsAt()
	if target == "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	status, err := p.pass(r, d, target, recorded)
	// A keytrail that was stopped meanwhile is not at fault.
	if now, _ := p.pointsAt(); err != nil && now == target {
		p.fault("%v", err)
	}
	w.WriteHeader(status)
}

// pass hands a delivery on, and looks into the log when it was accepted.
func (p *tap) pass(r *http.Request, d delivery, target string, recorded eventstore.Reader) (int, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, target, bytes.NewReader(d.body))
	if err != nil {
		return http.StatusInternalServerError, err
	}
	req.Header = r.Header.Clone()
	resp, err := p.client.Do(req)
	if err != nil {
		return http.StatusBadGateway, err
	}
	defer resp.Body.Close()
	var answer struct {
		Deliveries []struct {
			EventID uuid.UUID `json:"event_id"`
		} `json:"deliveries"`
	}
	if resp.StatusCode != http.StatusAccepted {
		return resp.StatusCode, fmt.Errorf("keytrail answers %s to %s", resp.Status, d.body)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Deliveries) != 1 {
		return resp.StatusCode, fmt.Errorf("keytrail's receipt of %s: %+v: %w", d.body, answer, err)
	}
	for e, err := range recorded.ReadLog(r.Context(), eventstore.LogQuery{EventIDs: []uuid.UUID{answer.Deliveries[0].EventID}}) {
		if err != nil {
			return resp.StatusCode, err
		}
		if e.ID == answer.Deliveries[0].EventID {
			return resp.StatusCode, nil
		}
	}
	return resp.StatusCode, fmt.Errorf("accepted, and not in the log: %s", d.body)
}

// keepBack makes the tap accept deliveries in keytrail's place, until release.
func (p *tap) keepBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = true
}

// kept returns what was kept back so far.
func (p *tap) kept() []delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]delivery(nil), p.held...)
}

// letThrough ends keepBack and returns what was kept back, to be delivered by the test.
func (p *tap) letThrough() []delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held
	p.hold, p.held = false, nil
	return held
}

// seen returns every delivery so far.
func (p *tap) seen() []delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]delivery(nil), p.bodies...)
}
