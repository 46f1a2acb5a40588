package backend

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Columns are the columns of an event in the order in which the stores scan them.
const Columns = `position, event_id, aggregate_id, stream, version, event_type, event_data, event_metadata, correlation_id, causation_id, occurred_at, created_at`

// Dialect is how a database takes values.
type Dialect struct {
	UUID func(uuid.UUID) any
	Time func(time.Time) any
	// AnyID is a condition on event_id with one %s for the placeholder of IDs(ids).
	AnyID string
	IDs   func([]uuid.UUID) any
	// Category is the expression that the index on the category is built over.
	Category string
	// WalkedType, if set, is the event's type as an expression that no index is used for:
	// where most events of a window are asked for, walking along it is faster.
	WalkedType string
	// StreamBounds, if set, are conditions with %[1]s for the aggregate id that bound
	// the positions of a stream's events.
	StreamBounds string
}

// statement collects SQL text and arguments.
type statement struct {
	args []any
}

func (s *statement) arg(v any) string {
	s.args = append(s.args, v)
	return fmt.Sprintf("$%d", len(s.args))
}

// Window is the query for the positions between which the events of a time window
// lie. Recording times follow positions closely but, with several processes, not
// strictly, so the window stays a condition of the pages as well.
func (d Dialect) Window(q eventstore.LogQuery) (text string, args []any, wanted bool) {
	s := &statement{}
	conditions := d.window(s, q)
	if len(conditions) == 0 {
		return "", nil, false
	}
	if q.After > 0 {
		conditions = append(conditions, "position > "+s.arg(int64(q.After)))
	}
	if q.Before > 0 {
		conditions = append(conditions, "position < "+s.arg(int64(q.Before)))
	}
	// "+ 0" keeps PostgreSQL from walking the log from its ends until the window.
	return `SELECT coalesce(min(position + 0), 0), coalesce(max(position + 0), 0) FROM api_event_store WHERE ` +
		strings.Join(conditions, " AND "), s.args, true
}

func (d Dialect) window(s *statement, q eventstore.LogQuery) []string {
	var conditions []string
	if !q.RecordedFrom.IsZero() {
		conditions = append(conditions, "created_at >= "+s.arg(d.Time(notBefore(q.RecordedFrom))))
	}
	if !q.RecordedTo.IsZero() {
		conditions = append(conditions, "created_at < "+s.arg(d.Time(notBefore(q.RecordedTo))))
	}
	return conditions
}

// notBefore is the first microsecond that is not before t.
func notBefore(t time.Time) time.Time {
	if m := Microseconds(t); !m.Before(t) {
		return m
	}
	return Microseconds(t).Add(time.Microsecond)
}

// Log is the query for one page of the log. No index has the order of positions over
// several types, so that of several types needs a window of positions on both sides.
func (d Dialect) Log(q eventstore.LogQuery, rows int) (text string, args []any) {
	return d.log(q, rows, false)
}

// log is Log; walk says that most events between the bounds are asked for.
func (d Dialect) log(q eventstore.LogQuery, rows int, walk bool) (text string, args []any) {
	s := &statement{}
	var conditions []string
	if q.After > 0 {
		conditions = append(conditions, "position > "+s.arg(int64(q.After)))
	}
	if q.Before != 0 {
		conditions = append(conditions, "position < "+s.arg(int64(q.Before)))
	}
	if q.Category != "" {
		conditions = append(conditions, d.Category+" = "+s.arg(q.Category))
	}
	if q.CorrelationID != uuid.Nil {
		conditions = append(conditions, "correlation_id = "+s.arg(d.UUID(q.CorrelationID)))
	}
	if q.CausationID != uuid.Nil {
		conditions = append(conditions, "causation_id = "+s.arg(d.UUID(q.CausationID)))
	}
	if len(q.EventIDs) > 0 {
		conditions = append(conditions, fmt.Sprintf(d.AnyID, s.arg(d.IDs(q.EventIDs))))
	}
	conditions = append(conditions, d.window(s, q)...)

	if types := distinct(q.Types); len(types) > 0 {
		places := make([]string, len(types))
		for i, t := range types {
			places[i] = s.arg(t)
		}
		column := "event_type"
		if walk && d.WalkedType != "" {
			column = d.WalkedType
		}
		conditions = append(conditions, column+" IN ("+strings.Join(places, ", ")+")")
	}
	order := " ORDER BY position"
	if q.Backward {
		order = " ORDER BY position DESC"
	}
	return "SELECT " + Columns + " FROM api_event_store" + where(conditions) + order + " LIMIT " + s.arg(int64(rows)), s.args
}

// Stream is the query for one page of a stream.
func (d Dialect) Stream(aggregateID uuid.UUID, q eventstore.StreamQuery, rows int) (text string, args []any) {
	s := &statement{}
	id := s.arg(d.UUID(aggregateID))
	conditions := []string{"aggregate_id = " + id, "version > " + s.arg(int64(q.After))}
	if d.StreamBounds != "" {
		conditions = append(conditions, fmt.Sprintf(d.StreamBounds, id))
	}
	if q.Before != 0 {
		conditions = append(conditions, "version < "+s.arg(int64(q.Before)))
	}
	if q.AsOf != 0 {
		conditions = append(conditions, "position <= "+s.arg(int64(q.AsOf)))
	}
	if !q.AsOfTime.IsZero() {
		// Not the events recorded until then: by the clocks of several processes a later
		// version can be the earlier one, and a stream has no gaps.
		later := "SELECT min(version) FROM api_event_store WHERE aggregate_id = " + id + " AND created_at > " + s.arg(d.Time(Microseconds(q.AsOfTime)))
		if d.StreamBounds != "" {
			later += " AND " + fmt.Sprintf(d.StreamBounds, id)
		}
		conditions = append(conditions, "version < coalesce(("+later+"), 2147483647)")
	}
	order := " ORDER BY version"
	if q.Backward {
		order = " ORDER BY version DESC"
	}
	return "SELECT " + Columns + " FROM api_event_store" + where(conditions) + order + " LIMIT " + s.arg(int64(rows)), s.args
}

func where(conditions []string) string {
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

func distinct(types []string) []string {
	seen := make(map[string]struct{}, len(types))
	var out []string
	for _, t := range types {
		if _, ok := seen[t]; !ok {
			seen[t] = struct{}{}
			out = append(out, t)
		}
	}
	return out
}
