package web

import (
	"net/http"
	"slices"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
)

// kindProjection is what can be rebuilt; a consumer's effects are events.
const kindProjection = "projection"

type projectionsView struct {
	Projections []httpapi.ProjectionStatus
	CanRebuild  bool
	// Begun is the projection whose rebuild was just asked for.
	Begun string
}

// listProjections is GET /projections.
func (s *Server) listProjections(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Projections.Status(r.Context())
	if err != nil {
		return err
	}
	v := projectionsView{Projections: all, CanRebuild: s.Rebuild != nil}
	if begun := text(r, "begun"); slices.ContainsFunc(all, func(p httpapi.ProjectionStatus) bool { return p.Name == begun }) {
		v.Begun = begun
	}
	return s.render(w, r, http.StatusOK, "projections", "projections", "Projections", v)
}

// rebuild is POST /projections/{name}/rebuild.
func (s *Server) rebuild(w http.ResponseWriter, r *http.Request) error {
	name := param(r, "name")
	all, err := s.Projections.Status(r.Context())
	if err != nil {
		return err
	}
	if s.Rebuild == nil || !slices.ContainsFunc(all, func(p httpapi.ProjectionStatus) bool { return p.Name == name && p.Kind == kindProjection }) {
		return adapter.Errorf(adapter.CodeNotFound, "there is no projection %s to rebuild", quoted(name))
	}
	if err := s.Rebuild(r.Context(), name); err != nil {
		return err
	}
	http.Redirect(w, r, pathWith("/projections", map[string][]string{"begun": {name}}), http.StatusSeeOther)
	return nil
}
