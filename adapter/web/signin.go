package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/keytrail/keytrail/adapter"
)

const (
	signInPath  = "/sign-in"
	signOutPath = "/sign-out"
	// maxForm bounds a form, in bytes.
	maxForm = 16 << 10
)

type signInView struct {
	Next  string
	Fault *adapter.Error
}

// showSignIn is GET /sign-in. Whoever needs none is led on.
func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) error {
	next := localTarget(r.URL.Query().Get("next"))
	switch _, err := s.Access.Visitor(r); {
	case err == nil:
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	case !errors.Is(err, ErrSignIn):
		return err
	}
	return s.render(w, r, http.StatusOK, "sign-in", "", "Sign in", signInView{Next: next})
}

// signIn is POST /sign-in.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(w, r); err != nil {
		return err
	}
	next := localTarget(r.PostForm.Get("next"))
	err := s.Access.SignIn(w, r, r.PostForm.Get("token"))
	if err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	fault := asError(err)
	return s.render(w, r, statusOf(fault.Code), "sign-in", "", "Sign in", signInView{Next: next, Fault: fault})
}

// signOut is POST /sign-out.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) error {
	s.Access.SignOut(w, r)
	http.Redirect(w, r, signInPath, http.StatusSeeOther)
	return nil
}

func readForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return adapter.Errorf(adapter.CodeInvalidRequest, "the form cannot be read: %w", err)
	}
	return nil
}

// localTarget is a path of ours to go on to, "/" for anything that leads elsewhere.
func localTarget(target string) string {
	u, err := url.Parse(target)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(target, "/") ||
		strings.HasPrefix(target, "//") || strings.ContainsAny(target, "\\\r\n") || strings.HasPrefix(u.Path, signInPath) {
		return "/"
	}
	return target
}
