package web_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	browserlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/suitetest"
)

// screenshotsEnv names a folder that the screenshots of TestPagesInTheBrowser are
// written to, for people.
const screenshotsEnv = "KEYTRAIL_TEST_SCREENSHOTS"

// browserEnv names the browser's program, where it has none of the usual names.
const browserEnv = "KEYTRAIL_TEST_BROWSER"

func browserProgram(t testing.TB) string {
	t.Helper()
	for _, name := range []string{os.Getenv(browserEnv), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	suitetest.Unavailable(t, "browser", "no Chromium is found: apt-get install --no-install-recommends chromium, or name one in "+browserEnv)
	return ""
}

// tab is a page in a headless browser of its own.
type tab struct {
	t    testing.TB
	ctx  context.Context
	base string

	mu         sync.Mutex
	complaints []string
}

// newTab starts a browser that talks to nobody but base.
func newTab(t testing.TB, base string) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(browserProgram(t)),
		chromedp.NoSandbox, // the sandbox needs a user that is not root
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
		chromedp.UserDataDir(t.TempDir()),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx, base: base}
	b.do(chromedp.EmulateViewport(1280, 900))
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *browserlog.EventEntryAdded: // refused by the policy, not found, …
			b.complaints = append(b.complaints, e.Entry.Text+" "+e.Entry.URL)
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Text)
		}
	}))
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, steps...))
}

func (b *tab) open(path string) {
	b.t.Helper()
	resp, err := chromedp.RunResponse(b.ctx, chromedp.Navigate(b.base+path))
	require.NoError(b.t, err, path)
	require.EqualValues(b.t, 200, resp.Status, path)
}

// follow clicks on what leads to another page.
func (b *tab) follow(css string) {
	b.t.Helper()
	_, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS(css)))
	require.NoError(b.t, err, css)
}

func eval[T any](b *tab, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script))
	require.NoError(b.t, err, script)
	return v
}

func (b *tab) text() string { b.t.Helper(); return eval[string](b, "document.body.innerText") }
func (b *tab) path() string {
	b.t.Helper()
	return eval[string](b, "location.pathname + location.search")
}

// theme switches between "light" and "dark".
func (b *tab) theme(name string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	}))
}

// shot keeps what is seen, where somebody wants to look at it.
func (b *tab) shot(name string) {
	b.t.Helper()
	folder := os.Getenv(screenshotsEnv)
	if folder == "" {
		return
	}
	image, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join(folder, name+".png"), image, 0o600))
}

// quiet holds that the browser had nothing to complain about.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.complaints)
}

func TestFromAFailureToItsCauseInThreeClicks(t *testing.T) {
	t.Parallel()
	browserProgram(t)
	s := newStory(t, 0)
	b := newTab(t, s.pages(t, "").URL)

	b.open("/")
	require.Contains(t, b.text(), "Call failed")
	// Click 1: the failure's story.
	b.follow(fmt.Sprintf("a[href='/traces/%s']", s.refused))
	require.Contains(t, b.text(), "Another user has that name or address")
	require.NotContains(t, b.text(), "urn:keytrail:call", "the data is folded away")
	// Click 2: the data of the event that failed, which is the cause.
	b.do(chromedp.Click(chromedp.CSS("ol.events > li:last-child summary")))
	require.Contains(t, b.text(), `"keycloak": "User exists with same username"`)
	b.quiet()

	// The drift: its story, then what Keycloak has and who set what is believed.
	b.open("/")
	b.follow(".failure.warning a[href*='/users/']")
	require.Contains(t, b.text(), "bob@elsewhere.example")
	b.follow("table a[href^='/traces/']")
	require.Contains(t, b.text(), "bob was created")
	b.quiet()
}

func TestTheStateAtAMoment(t *testing.T) {
	t.Parallel()
	browserProgram(t)
	s := newStory(t, 0)
	b := newTab(t, s.pages(t, "").URL)
	b.open("/realms/acme/users/" + s.bob)
	require.Contains(t, b.text(), "Robert")
	require.Equal(t, "disabled", eval[string](b, "document.querySelector('h1 .badge').innerText"))
	b.do(chromedp.SetValue(chromedp.CSS("#at"), s.created.Add(time.Hour).UTC().Format("2006-01-02T15:04:05")))
	b.follow(".moment button")
	require.Contains(t, b.text(), "This is the state at")
	b.follow(".timeline li:last-child a[href*='at=']")
	require.Equal(t, "enabled", eval[string](b, "document.querySelector('h1 .badge').innerText"))
	require.NotContains(t, b.text(), "Robert")
	b.quiet()
}

func TestSigningInWithTheKeyboard(t *testing.T) {
	t.Parallel()
	browserProgram(t)
	s := newStory(t, 0)
	b := newTab(t, s.pages(t, apiToken).URL)
	_, err := chromedp.RunResponse(b.ctx, chromedp.Navigate(b.base+"/users"))
	require.NoError(t, err)
	require.Equal(t, "token", eval[string](b, "document.activeElement.id"))
	require.Empty(t, eval[[]string](b, contrast))
	b.shot("sign-in")
	_, err = chromedp.RunResponse(b.ctx, chromedp.SendKeys(chromedp.ID("token"), apiToken+"\r"))
	require.NoError(t, err)
	require.Equal(t, "/users", b.path())
	require.Empty(t, eval[string](b, "document.cookie"), "scripts see no session")
	b.do(chromedp.EmulateViewport(390, 900))
	require.LessOrEqual(t, eval[int](b, "document.documentElement.scrollWidth"), 390)
	b.shot("signed-in-narrow")

	// The first stop of the keyboard leads past the navigation.
	_, err = chromedp.Run(b.ctx, chromedp.KeyEvent("\t"))
	require.NoError(t, err)
	require.Equal(t, "Skip to content", eval[string](b, "document.activeElement.innerText"))
	_, err = chromedp.Run(b.ctx, chromedp.KeyEvent("\r"))
	require.NoError(t, err)
	require.Equal(t, "content", eval[string](b, "document.activeElement.id"))

	b.follow("form[action='/sign-out'] button")
	require.Equal(t, "/sign-in", b.path())
	b.quiet()
}

func TestTheOverviewStaysFresh(t *testing.T) {
	t.Parallel()
	browserProgram(t)
	s := newStory(t, 0)
	b := newTab(t, s.pages(t, "").URL)
	b.open("/")
	s.park()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool]("document.querySelectorAll('.failure').length > 3", chromedp.WithPollingTimeout(20*time.Second)))
	require.NoError(t, err)
	b.quiet()
}

// contrast returns what is too faint to read, by the ratio of WCAG 2.2, 1.4.3.
const contrast = `(() => {
  const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const faint = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["title", "desc", "SCRIPT", "OPTION"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const front = parse(e instanceof SVGElement ? style.fill : style.color), back = behind(e);
    const [a, b] = [light(front.slice(0, 3)), light(back.slice(0, 3))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.add(ratio.toFixed(2) + " " + e.tagName + "." + e.getAttribute("class") + ": " + walker.currentNode.data.trim().slice(0, 40));
  }
  return [...faint];
})()`

// TestPagesInTheBrowser looks at every kind of page in both themes and on a narrow
// screen: it must fit, be readable and make the browser complain about nothing.
func TestPagesInTheBrowser(t *testing.T) {
	t.Parallel()
	browserProgram(t)
	s := newStory(t, 1000)
	b := newTab(t, s.pages(t, "").URL)
	for _, p := range []struct{ name, path string }{
		{"overview", "/"},
		{"failures", "/failures"},
		{"users", "/users"},
		{"users-search", "/users?q=moreau&state=enabled"},
		{"user", "/realms/acme/users/" + s.bob},
		{"user-then", "/realms/acme/users/" + s.bob + "?at=" + s.created.UTC().Format(time.RFC3339Nano)},
		{"trace-failed", "/traces/" + s.refused.String()},
		{"trace-retried", "/traces/" + s.disabled.String()},
		{"trace-run", "/traces/" + s.run.String()},
		{"calls", "/calls"},
		{"reconciliations", "/reconciliations"},
		{"reconciliation", "/reconciliations/" + s.run.String()},
		{"deliveries", "/deliveries"},
		{"deliveries-parked", "/deliveries?parked=true"},
		{"delivery", "/deliveries/" + s.parked.String()},
		{"events", "/events"},
		{"analytics", "/analytics"},
		{"projections", "/projections?begun=users"},
	} {
		for _, look := range []struct {
			name, theme string
			width       int64
		}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"narrow", "light", 390}} {
			b.do(chromedp.EmulateViewport(look.width, 900))
			b.theme(look.theme)
			b.open(p.path)
			name := p.name + "-" + look.name
			require.LessOrEqual(t, eval[int](b, "document.documentElement.scrollWidth"), int(look.width), "%s is wider than the screen", name)
			require.Empty(t, eval[[]string](b, contrast), "%s is too faint", name)
			b.shot(name)
		}
	}
	require.NotContains(t, strings.Join(b.complaints, " "), "Content Security Policy")
	b.quiet()
}
