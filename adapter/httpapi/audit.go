package httpapi

import (
	"context"
	"net/http"

	"github.com/keytrail/keytrail/adapter"
)

// AuditReader reads the audit trail.
type AuditReader interface {
	// List returns a page of entries, newest first, and the cursor of the next one, empty
	// on the last. A cursor that is not its own is CodeInvalidRequest.
	List(ctx context.Context, f adapter.AuditFilter, limit int, cursor string) ([]adapter.AuditEntry, string, error)
}

// AnalyticsReader counts over time.
type AnalyticsReader interface {
	Summary(ctx context.Context, q adapter.AnalyticsQuery) (adapter.Analytics, error)
}

// listAudit is GET /audit: who did what, when, why and through what, newest first.
func (s *Server) listAudit(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	f := adapter.AuditFilter{
		Realm: q.text("realm"), Actor: q.text("actor"), User: q.text("user"), Type: q.text("type"),
		From: q.time("from"), To: q.time("to"),
	}
	limit, cursor := q.page()
	if err := q.err(); err != nil {
		return err
	}
	entries, next, err := s.Audit.List(r.Context(), f, limit, cursor)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, pageOf(entries, next))
}

// analytics is GET /analytics: counts by hour or by day.
func (s *Server) analytics(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	asked := adapter.AnalyticsQuery{Realm: q.text("realm"), From: q.time("from"), To: q.time("to"), Bucket: adapter.AnalyticsBucket(q.text("bucket"))}
	switch asked.Bucket {
	case "", adapter.BucketHour, adapter.BucketDay:
	default:
		q.faults.add("bucket", quoted(string(asked.Bucket))+" is neither hour nor day")
	}
	if asked.To.UTC().Year() > 9998 { // the end of its last bucket must be a time that can be written
		q.faults.add("to", "must lie before the year 9999")
	}
	if err := q.err(); err != nil {
		return err
	}
	counts, err := s.Analytics.Summary(r.Context(), asked.WithDefaults(s.Clock()))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, counts)
}
