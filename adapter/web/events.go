package web

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

var categories = []string{adapter.CategoryDelivery, adapter.CategoryUser, adapter.CategoryCall, adapter.CategoryReconciliation}

type eventsView struct {
	Events   []eventRow
	Filters  []filter
	Category string
	Type     string
	Pager    pager
}

// listEvents is GET /events: the log, newest first.
func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) error {
	before, err := position(r)
	if err != nil {
		return err
	}
	v := eventsView{Category: text(r, "category"), Type: text(r, "type")}
	q := eventstore.LogQuery{Before: before, Category: v.Category}
	if v.Type != "" {
		q.Types = []string{v.Type}
	}
	if id := text(r, "correlation_id"); id != "" {
		if q.CorrelationID, err = uuid.Parse(id); err != nil {
			return adapter.Errorf(adapter.CodeInvalidRequest, "a correlation id is a UUID")
		}
	}
	if v.Category != "" && !slices.Contains(categories, v.Category) {
		return adapter.Errorf(adapter.CodeInvalidRequest, "%s is no category of streams", quoted(v.Category))
	}
	v.Filters = []filter{{Label: "All", Path: "/events", Current: v.Category == ""}}
	for _, c := range categories {
		v.Filters = append(v.Filters, filter{Label: categoryName(c), Path: "/events?category=" + c, Current: v.Category == c})
	}
	events, next, err := s.logPage(r.Context(), q)
	if err != nil {
		return err
	}
	v.Events, v.Pager = rowsOf(describe(events)), pagerOf(r, next)
	return s.render(w, r, http.StatusOK, "events", "events", "Events", v)
}

func categoryName(category string) string {
	switch category {
	case adapter.CategoryDelivery:
		return "Deliveries"
	case adapter.CategoryUser:
		return "Users"
	case adapter.CategoryCall:
		return "Calls"
	}
	return "Reconciliations"
}

// logPage reads a page of the log, newest first, and the cursor of the next.
func (s *Server) logPage(ctx context.Context, q eventstore.LogQuery) ([]adapter.Decoded, string, error) {
	q.Limit = pageSize + 1
	events, err := s.newest(ctx, q)
	if err != nil || len(events) <= pageSize {
		return events, "", err
	}
	events = events[:pageSize]
	return events, strconv.FormatInt(int64(events[pageSize-1].Position), 10), nil
}
