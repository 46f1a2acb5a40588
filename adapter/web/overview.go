package web

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/eventstore"
)

const (
	// overviewFailures and overviewRuns are how many the overview shows.
	overviewFailures = 10
	overviewRuns     = 5
	overviewEvents   = 8
)

type overviewView struct {
	Failures []trace.Failure
	// More is true where there are further failures.
	More    bool
	Checks  []httpapi.Check
	Healthy bool
	Head    eventstore.Position
	Behind  eventstore.Position
	Runs    []adapter.Reconciliation
	Recent  []trace.Line
	// Sources tells for each way in which event came last.
	Sources []sourceView
	Polls   []Poll
	Realms  []string
}

type sourceView struct {
	Name string
	Last trace.Line
}

// overview is GET /: what needs attention now, and whether keytrail itself is well.
func (s *Server) overview(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	failures, err := s.Failures.List(ctx, trace.FailureQuery{Limit: overviewFailures})
	if err != nil {
		return err
	}
	v := overviewView{Failures: failures.Items, More: failures.NextCursor != "", Checks: s.Ready(ctx), Realms: s.Realms}
	v.Healthy = !slices.ContainsFunc(v.Checks, func(c httpapi.Check) bool { return !c.OK })
	v.Checks = together(v.Checks)
	status, err := s.Projections.Status(ctx)
	if err != nil {
		return err
	}
	for _, p := range status {
		v.Head, v.Behind = max(v.Head, p.Head), max(v.Behind, p.Lag)
	}
	if v.Runs, _, err = s.Reconciliations.List(ctx, "", overviewRuns, ""); err != nil {
		return err
	}
	recent, err := s.newest(ctx, eventstore.LogQuery{Limit: overviewEvents})
	if err != nil {
		return err
	}
	v.Recent = describe(recent)
	if s.Polls != nil {
		v.Polls = s.Polls()
	}
	v.Healthy = v.Healthy && !slices.ContainsFunc(v.Polls, func(p Poll) bool { return p.Error != "" })
	if v.Sources, err = s.sources(ctx); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "overview", "overview", "Overview", v)
}

// projectionCheck begins the names of checks of which there is one for each projection.
const projectionCheck = "projection "

// together makes one check of those of projections that are fine: the overview is about
// the others.
func together(checks []httpapi.Check) []httpapi.Check {
	var rest []httpapi.Check
	fine := 0
	for _, c := range checks {
		if c.OK && strings.HasPrefix(c.Name, projectionCheck) {
			fine++
			continue
		}
		rest = append(rest, c)
	}
	if fine > 0 {
		rest = append(rest, httpapi.Check{Name: "projections", OK: true, Detail: plural(fine, "is", "are") + " fine"})
	}
	return rest
}

// sourcesWithin is among how many of the newest deliveries the ways in are looked for.
const sourcesWithin = 200

// sources finds the ways by which Keycloak's events came lately.
func (s *Server) sources(ctx context.Context) ([]sourceView, error) {
	events, err := s.newest(ctx, eventstore.LogQuery{Types: receivedTypes, Limit: sourcesWithin})
	if err != nil {
		return nil, err
	}
	var found []sourceView
	for _, line := range describe(events) {
		name := receiptOf(line.Data).Source
		if !slices.ContainsFunc(found, func(f sourceView) bool { return f.Name == name }) {
			found = append(found, sourceView{Name: name, Last: line})
		}
	}
	slices.SortFunc(found, func(a, b sourceView) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// newest reads the log backwards.
func (s *Server) newest(ctx context.Context, q eventstore.LogQuery) ([]adapter.Decoded, error) {
	q.Backward = true
	var events []adapter.Decoded
	for e, err := range s.Store.ReadLog(ctx, q) {
		if err != nil {
			return nil, err
		}
		d, err := s.Codec.Decode(ctx, e)
		if err != nil {
			return nil, err
		}
		events = append(events, d)
	}
	return events, nil
}

// describe puts events into words, each for itself.
func describe(events []adapter.Decoded) []trace.Line {
	lines := make([]trace.Line, 0, len(events))
	for _, e := range events {
		v := e.View()
		lines = append(lines, trace.Line{View: v, At: v.OccurredAt, Text: trace.Describe(v), Tone: trace.ToneOf(v)})
	}
	return lines
}

type failuresView struct {
	Failures []trace.Failure
	Pager    pager
	Realm    string
}

// listFailures is GET /failures: all that needs attention.
func (s *Server) listFailures(w http.ResponseWriter, r *http.Request) error {
	realm := text(r, "realm")
	page, err := s.Failures.List(r.Context(), trace.FailureQuery{Realm: realm, Limit: pageSize, Cursor: text(r, "cursor")})
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "failures", "overview", "What needs attention", failuresView{
		Failures: page.Items, Pager: pagerOf(r, page.NextCursor), Realm: realm,
	})
}

// find is GET /find: it leads to the user or the story that an id or name stands for.
func (s *Server) find(w http.ResponseWriter, r *http.Request) error {
	id := text(r, "q")
	if id == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	users, err := s.Users.Find(r.Context(), id)
	if err != nil {
		return err
	}
	switch {
	case len(users) == 1:
		http.Redirect(w, r, userPath(users[0].Realm, users[0].ID), http.StatusSeeOther)
		return nil
	case len(users) > 1:
		http.Redirect(w, r, pathWith("/users", map[string][]string{"q": {id}}), http.StatusSeeOther)
		return nil
	}
	t, err := s.Traces.Find(r.Context(), id, "")
	if err == nil {
		http.Redirect(w, r, "/traces/"+t.CorrelationID.String(), http.StatusSeeOther)
		return nil
	}
	if adapter.CodeOf(err) == adapter.CodeNotFound {
		// Perhaps a part of a name.
		some, _, listErr := s.Users.List(r.Context(), httpapi.UserFilter{Search: id}, 1, "")
		if listErr != nil {
			return listErr
		}
		if len(some) > 0 {
			http.Redirect(w, r, pathWith("/users", map[string][]string{"q": {id}}), http.StatusSeeOther)
			return nil
		}
	}
	return err
}
