package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/adapter/web"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/suitetest"
)

func TestMain(m *testing.M) { os.Exit(suitetest.Main(m)) }

// page is an answer, read and parsed.
type page struct {
	t      testing.TB
	url    *url.URL
	status int
	header http.Header
	body   string
	root   *html.Node
}

// visitor is a browser without JavaScript.
type visitor struct {
	t      testing.TB
	base   string
	client *http.Client
}

func newVisitor(t testing.TB, base string) *visitor {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &visitor{t: t, base: base, client: &http.Client{Jar: jar, Transport: transport, Timeout: 30 * time.Second}}
}

func (v *visitor) get(path string) page { return v.send(http.MethodGet, path, nil, nil) }

// post sends a form as a browser does from one of our pages.
func (v *visitor) post(path string, form url.Values) page {
	return v.send(http.MethodPost, path, form, http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {v.base}})
}

func (v *visitor) send(method, path string, form url.Values, header http.Header) page {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.base+path, strings.NewReader(form.Encode()))
	require.NoError(v.t, err)
	for name, values := range header {
		req.Header[name] = values
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := v.client.Do(req)
	require.NoError(v.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(v.t, err)
	root, err := html.Parse(strings.NewReader(string(body)))
	require.NoError(v.t, err)
	return page{t: v.t, url: resp.Request.URL, status: resp.StatusCode, header: resp.Header, body: string(body), root: root}
}

// all returns the elements with this name.
func (p page) all(name string) []*html.Node {
	var found []*html.Node
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == name {
			found = append(found, n)
		}
	}
	return found
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func (p page) text() string { return textOf(p.root) }

// TestEveryPage crawls all that can be reached from the overview, and holds each page
// to what people and browsers need.
func TestEveryPage(t *testing.T) {
	t.Parallel()
	s := newStory(t, 120)
	v := newVisitor(t, s.pages(t, "").URL)

	queue := []string{"/", "/find?q=bob", "/users?q=user00", "/users?state=deleted", "/failures", "/no/such/page", "/traces/nothing"}
	seen := map[string]bool{}
	shapes := map[string]int{}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		shape := idPattern.ReplaceAllString(path, "ID")
		// Of pages that differ by an id alone, some are enough.
		if seen[path] || shapes[shape] >= 12 {
			continue
		}
		seen[path] = true
		shapes[shape]++
		p := v.get(path)
		want := http.StatusOK
		if strings.HasPrefix(path, "/no/such") || path == "/traces/nothing" {
			want = http.StatusNotFound
		}
		require.Equal(t, want, p.status, "%s: %s", path, p.text())
		if strings.HasPrefix(path, "/assets/") || strings.HasPrefix(path, "/api/") {
			continue
		}
		p.check(path)
		for _, name := range []string{"a", "link", "script"} {
			for _, n := range p.all(name) {
				target := attr(n, "href") + attr(n, "src")
				if target == "" || strings.HasPrefix(target, "#") || strings.HasPrefix(target, "/api/") {
					continue
				}
				require.True(t, strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//"), "%s leads elsewhere: %s", path, target)
				target, _, _ = strings.Cut(target, "#")
				queue = append(queue, target)
			}
		}
	}
	for _, shape := range []string{
		"/", "/users", "/realms/acme/users/ID", "/traces/ID", "/calls", "/calls?status=failed", "/calls/ID", "/reconciliations",
		"/reconciliations/ID", "/deliveries", "/deliveries?parked=true", "/deliveries/ID", "/projections", "/events", "/events?category=user",
		"/analytics", "/analytics?span=30d",
	} {
		require.Positive(t, shapes[shape], "%s is not reached from the overview: %v", shape, shapes)
	}
}

var idPattern = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|cursor=[^&]+|at=[^&]+`)

// check holds a page to what all pages promise.
func (p page) check(path string) {
	p.t.Helper()
	require.Contains(p.t, p.header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';", path)
	require.NotContains(p.t, p.header.Get("Content-Security-Policy"), "unsafe", path)
	require.Equal(p.t, "nosniff", p.header.Get("X-Content-Type-Options"), path)
	require.Equal(p.t, "no-store", p.header.Get("Cache-Control"), path)
	require.NotContains(p.t, p.body, evil, "%s does not escape", path)
	for _, secret := range []string{webhookSecret, clientSecret, apiToken, password, adminPassword} {
		require.NotContains(p.t, p.body, secret, "%s shows a secret", path)
	}

	require.Len(p.t, p.all("h1"), 1, path)
	require.Len(p.t, p.all("main"), 1, path)
	require.NotEmpty(p.t, textOf(p.all("title")[0]), path)
	require.Equal(p.t, "en", attr(p.all("html")[0], "lang"), path)
	require.Empty(p.t, p.all("style"), path)
	ids := map[string]bool{}
	var anchors []string
	var last int
	for n := range p.root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		require.False(p.t, has(n, "style"), "%s: inline style on %s", path, n.Data)
		for _, a := range n.Attr {
			require.False(p.t, strings.HasPrefix(a.Key, "on"), "%s: inline script on %s", path, n.Data)
		}
		if id := attr(n, "id"); id != "" {
			require.False(p.t, ids[id], "%s: the id %s is there twice", path, id)
			ids[id] = true
		}
		switch n.Data {
		case "script":
			require.NotEmpty(p.t, attr(n, "src"), "%s: inline script", path)
		case "h1", "h2", "h3":
			level := int(n.Data[1] - '0')
			require.LessOrEqual(p.t, level, last+1, "%s: %s skips a level: %s", path, n.Data, textOf(n))
			last = level
		case "a":
			if id, ok := strings.CutPrefix(attr(n, "href"), "#"); ok {
				anchors = append(anchors, id)
			}
			require.NotEmpty(p.t, textOf(n), "%s: a link without words to %s", path, attr(n, "href"))
		case "button":
			require.NotEmpty(p.t, textOf(n), "%s: a button without words", path)
		case "th":
			require.NotEmpty(p.t, attr(n, "scope"), path)
		}
	}
	for _, id := range anchors {
		require.True(p.t, ids[id], "%s: nothing on the page is called %s", path, id)
	}
	for _, table := range p.all("table") {
		require.Equal(p.t, "caption", firstElement(table).Data, "%s: a table without caption", path)
	}
	labelled := map[string]bool{}
	for _, n := range p.all("label") {
		labelled[attr(n, "for")] = true
	}
	for _, name := range []string{"input", "select"} {
		for _, n := range p.all(name) {
			require.True(p.t, attr(n, "type") == "hidden" || labelled[attr(n, "id")], "%s: %s %s has no label", path, name, attr(n, "name"))
		}
	}
	for n := range p.root.Descendants() {
		for _, name := range []string{"aria-labelledby", "aria-describedby"} {
			for id := range strings.FieldsSeq(attr(n, name)) {
				require.True(p.t, ids[id], "%s: %s names %s, which is not there", path, name, id)
			}
		}
	}
	for _, n := range p.all("svg") {
		if attr(n, "aria-hidden") != "true" {
			require.Equal(p.t, "img", attr(n, "role"), path)
			require.NotEmpty(p.t, attr(n, "aria-labelledby"), path)
		}
	}
}

func firstElement(n *html.Node) *html.Node {
	for c := range n.ChildNodes() {
		if c.Type == html.ElementNode {
			return c
		}
	}
	return n
}

func TestOverviewLeadsFromAFailureToItsCause(t *testing.T) {
	t.Parallel()
	s := newStory(t, 0)
	v := newVisitor(t, s.pages(t, "").URL)
	overview := v.get("/")
	require.Contains(t, overview.text(), "Drift")
	require.Contains(t, overview.text(), "Call failed")
	require.Contains(t, overview.text(), "Delivery parked")
	story := v.get("/traces/" + s.refused.String())
	require.Contains(t, story.text(), "User exists with same username")
	require.Contains(t, story.text(), "What to do next")
	user := v.get("/realms/acme/users/" + s.bob)
	for _, want := range []string{"left the company, ticket HR-17", "Enabled yes → became no", "Robert", "Drift", "bob@elsewhere.example", "password"} {
		require.Contains(t, user.text(), want)
	}
	then := v.get("/realms/acme/users/" + s.bob + "?at=" + url.QueryEscape(s.created.UTC().Format(time.RFC3339Nano)))
	require.Contains(t, then.text(), "This is the state at")
	require.NotContains(t, then.text(), "Robert")
	require.Contains(t, then.text(), "bob was created")
	second := v.get("/realms/acme/users/" + s.bob + "?at=" + s.created.UTC().Format("2006-01-02T15:04:05"))
	require.Equal(t, http.StatusOK, second.status, "the second in which it happened is meant whole")
	before := v.get("/realms/acme/users/" + s.bob + "?at=2020-01-01T00:00")
	require.Equal(t, http.StatusNotFound, before.status)
	require.Contains(t, before.text(), "nothing is known of this user before")
}

func TestTheOverviewSaysHowKeytrailItselfIs(t *testing.T) {
	t.Parallel()
	s := newStory(t, 0)
	nothing := func(c *web.Config) { c.Failures = noFailures{} }
	fine := newVisitor(t, s.pages(t, "", nothing).URL).get("/")
	require.Contains(t, fine.text(), "Nothing needs attention")
	require.Contains(t, fine.text(), "projections 2 are fine")
	require.Contains(t, fine.text(), "polling acme last ended well")
	for name, change := range map[string]func(*web.Config){
		"3,000 events behind": func(c *web.Config) {
			c.Ready = func(context.Context) []httpapi.Check {
				return []httpapi.Check{{Name: "projection users", Detail: "failing, 3,000 events behind"}}
			}
		},
		"the newest poll failed": func(c *web.Config) {
			c.Polls = func() []web.Poll { return []web.Poll{{Realm: realmName, Error: "the newest poll failed"}} }
		},
	} {
		p := newVisitor(t, s.pages(t, "", nothing, change).URL).get("/")
		require.Contains(t, p.text(), "keytrail itself needs attention")
		require.Contains(t, p.text(), name)
		p.check(name)
	}
}

type noFailures struct{}

func (noFailures) List(context.Context, trace.FailureQuery) (trace.FailurePage, error) {
	return trace.FailurePage{}, nil
}

// What went wrong inside is for the log, not for the visitor.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := newStory(t, 0)
	p := newVisitor(t, s.pages(t, "", func(c *web.Config) { c.Failures = broken{} }).URL).get("/")
	require.Equal(t, http.StatusInternalServerError, p.status)
	require.NotContains(t, p.body, "disk")
	p.check("broken")
	p = newVisitor(t, s.pages(t, "", func(c *web.Config) { c.Failures = broken{eventstore.ErrUnavailable} }).URL).get("/")
	require.Equal(t, http.StatusServiceUnavailable, p.status)
	require.Equal(t, "5", p.header.Get("Retry-After"))
}

type broken struct{ err error }

func (b broken) List(context.Context, trace.FailureQuery) (trace.FailurePage, error) {
	if b.err != nil {
		return trace.FailurePage{}, b.err
	}
	return trace.FailurePage{}, errors.New("the disk is on fire")
}

func TestAccess(t *testing.T) {
	t.Parallel()
	s := newStory(t, 0)

	t.Run("without a token from this machine only", func(t *testing.T) {
		server := s.pages(t, "")
		require.Equal(t, http.StatusOK, newVisitor(t, server.URL).get("/").status)
		for _, header := range []http.Header{{"X-Forwarded-For": {"127.0.0.1"}}, {"Forwarded": {"for=127.0.0.1"}}} {
			p := newVisitor(t, server.URL).send(http.MethodGet, "/users", nil, header)
			require.Equal(t, http.StatusUnauthorized, p.status)
			require.NotContains(t, p.text(), "bob")
			p.check("refused")
		}
	})

	t.Run("with a token after signing in", func(t *testing.T) {
		server := s.pages(t, apiToken)
		v := newVisitor(t, server.URL)
		p := v.get("/users?q=bob")
		require.Equal(t, "/sign-in", p.url.Path)
		require.NotContains(t, p.text(), "bob@example.com")
		p.check("sign-in")
		require.Equal(t, http.StatusOK, v.get(attr(p.all("link")[1], "href")).status, "the style sheet is for everybody")

		p = v.post("/sign-in", url.Values{"token": {"wrong"}, "next": {"/users?q=bob"}})
		require.Equal(t, http.StatusUnauthorized, p.status)
		require.Contains(t, p.text(), "that is not the token")
		p.check("sign-in refused")

		p = v.post("/sign-in", url.Values{"token": {apiToken}, "next": {"/users?q=bob"}})
		require.Equal(t, "/users", p.url.Path)
		require.Contains(t, p.text(), "bob@example.com")
		cookies := v.client.Jar.Cookies(p.url)
		require.Len(t, cookies, 1)
		require.NotContains(t, cookies[0].Value, apiToken)

		forged := newVisitor(t, server.URL)
		value := []byte(cookies[0].Value)
		value[3] ^= 1
		forged.client.Jar.SetCookies(p.url, []*http.Cookie{{Name: cookies[0].Name, Value: string(value)}})
		require.Equal(t, "/sign-in", forged.get("/").url.Path)

		stolen := newVisitor(t, server.URL)
		stolen.client.Jar.SetCookies(p.url, cookies)
		require.Equal(t, "/", stolen.get("/").url.Path)
		require.Equal(t, "/sign-in", v.post("/sign-out", nil).url.Path)
		require.Equal(t, "/sign-in", v.get("/").url.Path)
		require.Equal(t, "/sign-in", stolen.get("/").url.Path, "signing out ends the session, not only the cookie")
	})

	t.Run("the cookie", func(t *testing.T) {
		server := s.pages(t, apiToken, func(c *web.Config) {
			c.Access = &web.TokenAccess{Token: apiToken, Loopback: httpapi.LoopbackTrust, Secure: true, Clock: time.Now}
		})
		v := newVisitor(t, server.URL)
		v.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		p := v.post("/sign-in", url.Values{"token": {apiToken}})
		cookie := p.header.Get("Set-Cookie")
		for _, want := range []string{"__Host-keytrail_session=", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Strict"} {
			require.Contains(t, cookie, want)
		}
	})

	t.Run("a session ends", func(t *testing.T) {
		now := time.Now()
		access := &web.TokenAccess{Token: apiToken, Loopback: httpapi.LoopbackTrust, Clock: func() time.Time { return now }}
		v := newVisitor(t, s.pages(t, apiToken, func(c *web.Config) { c.Access = access }).URL)
		require.Equal(t, "/", v.post("/sign-in", url.Values{"token": {apiToken}}).url.Path)
		now = now.Add(12*time.Hour + time.Second)
		require.Equal(t, "/sign-in", v.get("/").url.Path)
	})

	t.Run("guessing is slowed down and locks nobody out", func(t *testing.T) {
		now := time.Now()
		access := &web.TokenAccess{Token: apiToken, Loopback: httpapi.LoopbackTrust, Clock: func() time.Time { return now }}
		v := newVisitor(t, s.pages(t, apiToken, func(c *web.Config) { c.Access = access }).URL)
		for range 10 {
			require.Equal(t, http.StatusUnauthorized, v.post("/sign-in", url.Values{"token": {"guess"}}).status)
		}
		for range 3 {
			require.Equal(t, http.StatusTooManyRequests, v.post("/sign-in", url.Values{"token": {"guess"}}).status)
		}
		require.Equal(t, "/", v.post("/sign-in", url.Values{"token": {apiToken}}).url.Path, "who has the token is let in")
		now = now.Add(time.Second)
		other := newVisitor(t, s.pages(t, apiToken, func(c *web.Config) { c.Access = access }).URL)
		require.Equal(t, http.StatusUnauthorized, other.post("/sign-in", url.Values{"token": {"guess"}}).status)
		require.Equal(t, http.StatusTooManyRequests, other.post("/sign-in", url.Values{"token": {"guess"}}).status)
	})

	t.Run("leads nowhere else", func(t *testing.T) {
		server := s.pages(t, apiToken)
		for _, next := range []string{"https://elsewhere.example/", "//elsewhere.example", `/\elsewhere.example`, "javascript:alert(1)", "/sign-in?next=/sign-in"} {
			v := newVisitor(t, server.URL)
			v.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			require.Equal(t, "/", v.post("/sign-in", url.Values{"token": {apiToken}, "next": {next}}).header.Get("Location"), next)
		}
	})
}

func TestFormsAreTakenFromOurOwnPagesOnly(t *testing.T) {
	t.Parallel()
	s := newStory(t, 0)
	v := newVisitor(t, s.pages(t, "").URL)
	path := "/projections/users/rebuild"
	for name, header := range map[string]http.Header{
		"another site":       {"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://elsewhere.example"}},
		"another subdomain":  {"Sec-Fetch-Site": {"same-site"}, "Origin": {"http://localhost:1"}},
		"an old browser":     {"Origin": {"https://elsewhere.example"}},
		"an opaque origin":   {"Origin": {"null"}},
		"one that is silent": {},
	} {
		p := v.send(http.MethodPost, path, url.Values{}, header)
		require.Equal(t, http.StatusForbidden, p.status, name)
		p.check(name)
	}
	require.Empty(t, s.rebuilt)

	p := v.send(http.MethodPost, path, url.Values{}, http.Header{"Origin": {v.base}})
	require.Equal(t, http.StatusOK, p.status, "an old browser, from our own page")
	require.Equal(t, "users", <-s.rebuilt)
	require.Contains(t, v.post(path, nil).text(), "The rebuild of users has begun")
	require.Equal(t, "users", <-s.rebuilt)
	require.Equal(t, http.StatusNotFound, v.post("/projections/interpreter/rebuild", nil).status, "a consumer is not rebuilt")
	require.Equal(t, "/deliveries/"+s.parked.String(), v.post("/deliveries/"+s.parked.String()+"/retry", nil).url.Path)
	require.Equal(t, s.parked, <-s.retried)
	require.Equal(t, "/reconciliations/"+s.run.String(), v.post("/reconciliations", url.Values{"realm": {realmName}}).url.Path)
	require.Equal(t, http.StatusNotFound, v.post("/reconciliations", url.Values{"realm": {"other"}}).status)
}

func TestListsAreBoundedAndPage(t *testing.T) {
	t.Parallel()
	s := newStory(t, 120)
	v := newVisitor(t, s.pages(t, "").URL)
	found := map[string]bool{}
	path, pages := "/users", 0
	for path != "" {
		p := v.get(path)
		rows := p.all("tbody")[0]
		n := 0
		for row := range rows.ChildNodes() {
			if row.Data == "tr" {
				n++
				found[textOf(firstElement(row))] = true
			}
		}
		require.LessOrEqual(t, n, 50)
		pages++
		path = ""
		for _, a := range p.all("a") {
			if attr(a, "rel") == "next" {
				path = attr(a, "href")
			}
		}
	}
	require.Equal(t, 3, pages)
	require.Len(t, found, 122)
	require.Contains(t, v.get("/users?q=user001").text(), "user0013")
	require.NotContains(t, v.get("/users?q=user001").text(), "user0113")
	for _, bad := range []string{"/users?cursor=x", "/events?cursor=x", "/users?state=x", "/calls?status=x", "/events?category=x", "/calls/x", "/reconciliations/x", "/realms/acme/users/" + s.bob + "?at=x"} {
		p := v.get(bad)
		require.Equal(t, http.StatusBadRequest, p.status, bad)
		p.check(bad)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	s := newStory(t, 3)
	v := newVisitor(t, s.pages(t, "").URL)
	user := "/realms/acme/users/" + s.bob
	for q, want := range map[string]string{
		"bob": user, "BOB": user, s.bob: user,
		s.refused.String(): "/traces/" + s.refused.String(),
		"user000":          "/users",
		"":                 "/",
	} {
		require.Equal(t, want, v.get("/find?q="+url.QueryEscape(q)).url.Path, q)
	}
	require.Equal(t, user, v.get("/realms/acme/users/bob").url.Path)
	require.Equal(t, http.StatusNotFound, v.get("/find?q=nobody").status)
	require.Equal(t, http.StatusNotFound, v.get("/realms/acme/users/nobody").status)
}

// TestBehindAnotherRouter serves the pages as the HTTP server does, for what its own
// routes do not serve.
func TestBehindAnotherRouter(t *testing.T) {
	t.Parallel()
	s := newStory(t, 0)
	var pages http.Handler
	s.pages(t, "", func(c *web.Config) {
		server, err := web.New(*c)
		require.NoError(t, err)
		pages = server
	})
	outer := chi.NewRouter()
	outer.Use(middleware.GetHead)
	outer.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	outer.Get("/api/v1/realms/{realm}/users/{id}", func(http.ResponseWriter, *http.Request) {})
	outer.NotFound(pages.ServeHTTP)
	served := httptest.NewServer(outer)
	t.Cleanup(served.Close)
	v := newVisitor(t, served.URL)
	require.Equal(t, http.StatusTeapot, v.get("/healthz").status)
	user := "/realms/acme/users/" + url.PathEscape(strangeID)
	p := v.get(user)
	require.Equal(t, http.StatusOK, p.status, p.text())
	require.Contains(t, p.text(), strangeID)
	p.check(user)
	require.Equal(t, http.StatusOK, v.send(http.MethodHead, "/users", nil, nil).status)
	require.Equal(t, http.StatusOK, v.post("/projections/calls/rebuild", nil).status)
	require.Equal(t, "calls", <-s.rebuilt)
}

func TestAssetsMayBeKeptForEver(t *testing.T) {
	t.Parallel()
	s := newStory(t, 0)
	v := newVisitor(t, s.pages(t, "").URL)
	p := v.get("/")
	assets := regexp.MustCompile(`/assets/[a-z.0-9]+`).FindAllString(p.body, -1)
	require.Len(t, assets, 3)
	for _, path := range assets {
		require.Regexp(t, `^/assets/[a-z]+\.[0-9a-f]{12}\.(css|js|svg)$`, path)
		asset := v.get(path)
		require.Equal(t, http.StatusOK, asset.status)
		require.Equal(t, "public, max-age=31536000, immutable", asset.header.Get("Cache-Control"))
	}
	require.Equal(t, http.StatusNotFound, v.get("/assets/app.css").status)
	require.Equal(t, http.StatusNotFound, v.get("/assets/..%2fserver.go").status)
}

func TestAConfigurationThatMissesSomethingIsRefused(t *testing.T) {
	t.Parallel()
	_, err := web.New(web.Config{})
	for _, name := range []string{"Access", "Store", "Codec", "Users", "Calls", "Reconciliations", "Projections", "Traces", "Failures", "Analytics", "OpenDrift", "Retry", "Ready", "Clock", "Logger"} {
		require.ErrorContains(t, err, fmt.Sprintf("pages: %s is missing", name))
	}
}
