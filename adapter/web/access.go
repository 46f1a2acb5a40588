package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
)

// Access decides who may look. It is the seam where signing in by another way, such as
// OIDC, fits in. Implementations are safe for concurrent use.
type Access interface {
	// Visitor says who sends the request. ErrSignIn is for those who may sign in; any
	// other error tells why signing in would not help.
	Visitor(r *http.Request) (Visitor, error)
	// SignIn begins a session by what the sign-in form holds in its field "token". An
	// error is told on the form.
	SignIn(w http.ResponseWriter, r *http.Request, token string) error
	// SignOut ends the request's session, if it has one.
	SignOut(w http.ResponseWriter, r *http.Request)
}

// ErrSignIn says that the visitor must sign in.
var ErrSignIn = errors.New("signing in is needed")

// Visitor is who looks at a page.
type Visitor struct {
	Actor adapter.Actor
	// Session is true for one that signed in and can sign out.
	Session bool
}

// Ids of actors on the pages. The token itself is a secret, so its place in the
// configuration names it.
const (
	actorPage     = "api-token"
	actorLoopback = "loopback"
)

const (
	sessionCookie = "keytrail_session"
	// sessionLife is how long a session lasts, however much it is used.
	sessionLife = 12 * time.Hour
	// A session is its end (Unix seconds) and a random id, sealed by an HMAC.
	sessionPlain = 8 + 16
	// maxSignedOut bounds the memory of sessions that were ended before their time.
	maxSignedOut = 10_000
)

// TokenAccess lets those in who have the API's token and, where there is none, those
// who sit at this machine.
//
// A session is a cookie that holds its end and a random id, sealed with a key derived
// from the token: it is worth nothing without keytrail, does not show the token, serves
// every replica, and ends with the token. Signing out deletes the cookie and is
// remembered by the process that was told.
type TokenAccess struct {
	// Token is the API's token, empty for none.
	Token string
	// Loopback says why a request is not trusted without a token, "" where it is.
	Loopback func(*http.Request) string
	// Secure marks cookies for HTTPS only. It must be true where people reach keytrail
	// by https.
	Secure bool
	Clock  func() time.Time

	once   sync.Once
	key    [sha256.Size]byte
	digest [sha256.Size]byte
	// failures bounds the wrong tokens that are answered as such.
	failures *rate.Limiter

	mu sync.Mutex
	// signedOut are the sessions that were ended, with the end they would have had.
	signedOut map[[16]byte]time.Time
}

var _ Access = (*TokenAccess)(nil)

func (a *TokenAccess) prepare() {
	a.once.Do(func() {
		mac := hmac.New(sha256.New, []byte(a.Token))
		mac.Write([]byte("keytrail page session 1"))
		mac.Sum(a.key[:0])
		a.digest = sha256.Sum256([]byte(a.Token))
		a.failures = rate.NewLimiter(rate.Every(time.Second), 10)
		a.signedOut = map[[16]byte]time.Time{}
	})
}

// Visitor implements Access. A bearer token serves as it does for the API.
func (a *TokenAccess) Visitor(r *http.Request) (Visitor, error) {
	a.prepare()
	if a.Token == "" {
		if why := a.Loopback(r); why != "" {
			return Visitor{}, adapter.Errorf(codeUnauthorized, "%s, and no token is configured", why).
				WithTry("set KEYTRAIL_API_TOKEN, or open the page on the machine itself at http://127.0.0.1")
		}
		return Visitor{Actor: adapter.Actor{Type: adapter.ActorToken, ID: actorLoopback}}, nil
	}
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") && a.matches(strings.TrimSpace(token)) {
		return Visitor{Actor: adapter.Actor{Type: adapter.ActorToken, ID: actorPage}}, nil
	}
	if _, _, ok := a.session(r); !ok {
		return Visitor{}, ErrSignIn
	}
	return Visitor{Actor: adapter.Actor{Type: adapter.ActorToken, ID: actorPage}, Session: true}, nil
}

// matches compares in the same time for every wrong token, of any length.
func (a *TokenAccess) matches(token string) bool {
	digest := sha256.Sum256([]byte(token))
	return a.Token != "" && subtle.ConstantTimeCompare(digest[:], a.digest[:]) == 1
}

// SignIn implements Access. The right token signs in however many wrong ones came
// before: who guesses must not lock out who knows, and what keeps a token from being
// guessed is its length, since the API takes as many guesses as are sent. A limit per
// address would do the same behind a proxy, where all have one. Those who only guess
// are told to slow down, all together.
func (a *TokenAccess) SignIn(w http.ResponseWriter, _ *http.Request, token string) error {
	a.prepare()
	if !a.matches(strings.TrimSpace(token)) {
		if !a.failures.AllowN(a.Clock(), 1) {
			return adapter.Errorf(adapter.CodeOverloaded, "that is not the token, and there were too many wrong ones").
				WithTry("wait a few seconds, and give the value of keytrail's KEYTRAIL_API_TOKEN")
		}
		return adapter.Errorf(codeUnauthorized, "that is not the token").WithTry("give the value of keytrail's KEYTRAIL_API_TOKEN")
	}
	end := a.Clock().Add(sessionLife)
	value := make([]byte, sessionPlain, sessionPlain+sha256.Size)
	binary.BigEndian.PutUint64(value, uint64(end.Unix()))
	// crypto/rand does not fail; a machine without randomness ends the program.
	_, _ = rand.Read(value[8:])
	a.setCookie(w, base64.RawURLEncoding.EncodeToString(a.seal(value)), int(sessionLife.Seconds()))
	return nil
}

// SignOut implements Access.
func (a *TokenAccess) SignOut(w http.ResponseWriter, r *http.Request) {
	a.prepare()
	if id, end, ok := a.session(r); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		now := a.Clock()
		for known, until := range a.signedOut {
			if !until.After(now) {
				delete(a.signedOut, known)
			}
		}
		if len(a.signedOut) < maxSignedOut {
			a.signedOut[id] = end
		}
	}
	a.setCookie(w, "", -1)
}

func (a *TokenAccess) setCookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: a.cookieName(), Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: a.Secure, SameSite: http.SameSiteStrictMode,
	})
}

// cookieName has the prefix by which browsers keep other hosts of the same domain from
// planting a session; they accept it over HTTPS only.
func (a *TokenAccess) cookieName() string {
	if a.Secure {
		return "__Host-" + sessionCookie
	}
	return sessionCookie
}

func (a *TokenAccess) seal(plain []byte) []byte {
	mac := hmac.New(sha256.New, a.key[:])
	mac.Write(plain)
	return mac.Sum(plain)
}

// session reads the request's cookie. It reports false for one that is missing,
// forged, over or signed out.
func (a *TokenAccess) session(r *http.Request) (id [16]byte, end time.Time, ok bool) {
	cookie, err := r.Cookie(a.cookieName())
	if err != nil {
		return id, end, false
	}
	value, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || len(value) != sessionPlain+sha256.Size {
		return id, end, false
	}
	plain := append(make([]byte, 0, len(value)), value[:sessionPlain]...)
	if !hmac.Equal(a.seal(plain), value) {
		return id, end, false
	}
	copy(id[:], plain[8:])
	end = time.Unix(int64(binary.BigEndian.Uint64(plain)), 0)
	a.mu.Lock()
	defer a.mu.Unlock()
	_, gone := a.signedOut[id]
	return id, end, !gone && end.After(a.Clock())
}
