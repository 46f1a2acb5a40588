package httpapi

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// listEvents is GET /events: the log, oldest first. A stream is named as events name
// it, or by its aggregate id. The cursor is the position of a page's last event or, in a
// stream, its version, so that no page reads what the pages before it have read.
func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	filter := eventFilter{types: q.list("type")}
	stream := q.text("stream")
	filter.correlation, filter.from = q.uuid("correlation_id"), eventstore.Position(q.positive("from_position"))
	limit, cursor := q.page()
	prefix := ""
	if stream != "" {
		prefix = versionCursor
	}
	after := cursorNumber(q, cursor, prefix)
	if err := q.err(); err != nil {
		return err
	}

	var events iter.Seq2[eventstore.Event, error]
	if stream == "" {
		events = s.Store.ReadLog(r.Context(), eventstore.LogQuery{
			After: eventstore.Position(max(after, int64(filter.from)-1)), Types: filter.types, CorrelationID: filter.correlation, Limit: limit + 1,
		})
	} else {
		id, err := s.streamOf(r.Context(), stream)
		if err != nil {
			return err
		}
		events = filter.of(s.Store.ReadStream(r.Context(), id, eventstore.StreamQuery{After: eventstore.Version(after)}))
	}
	views := []adapter.View{}
	next := ""
	for e, err := range events {
		if err != nil {
			return err
		}
		if len(views) == limit {
			last := views[limit-1]
			next = strconv.FormatInt(int64(last.Position), 10)
			if stream != "" {
				next = versionCursor + strconv.FormatInt(int64(last.Version), 10)
			}
			break
		}
		d, err := s.Codec.Decode(r.Context(), e)
		if err != nil {
			return err
		}
		views = append(views, viewInUTC(d.View()))
	}
	return answer(w, http.StatusOK, pageOf(views, next))
}

// versionCursor begins the cursors of a stream's pages. Those of the log are bare
// numbers: a cursor of the one is none of the other.
const versionCursor = "v"

// cursorNumber reads a cursor that is a number from 1 behind a prefix; 0 where there is
// no cursor.
func cursorNumber(q *query, cursor, prefix string) int64 {
	if cursor == "" {
		return 0
	}
	digits, ok := strings.CutPrefix(cursor, prefix)
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 1 {
		q.faults.add("cursor", badCursorMessage)
		return 0
	}
	return n
}

// eventFilter narrows the events of a stream; zero values select all.
type eventFilter struct {
	types       []string
	correlation uuid.UUID
	from        eventstore.Position
}

func (f eventFilter) of(events iter.Seq2[eventstore.Event, error]) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range events {
			if err == nil && (e.Position < f.from ||
				(len(f.types) > 0 && !slices.Contains(f.types, e.Type)) ||
				(f.correlation != uuid.Nil && e.CorrelationID != f.correlation)) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// streamOf is the stream of this name, such as user/acme/6a91…, or aggregate id.
func (s *Server) streamOf(ctx context.Context, name string) (eventstore.StreamID, error) {
	if id, err := uuid.Parse(name); err == nil {
		stream, err := s.Store.Stream(ctx, id)
		if errors.Is(err, eventstore.ErrNotFound) {
			return stream, adapter.Errorf(adapter.CodeNotFound, "no stream has the id %s", id)
		}
		return stream, err
	}
	category, rest, ok := strings.Cut(name, "/")
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		if decoded, err := url.PathUnescape(part); err == nil {
			parts[i] = decoded
		}
	}
	switch {
	case ok && category == adapter.CategoryUser && len(parts) == 2:
		return adapter.UserStream(parts[0], parts[1]), nil
	case ok && category == adapter.CategoryDelivery && len(parts) == 1:
		return adapter.DeliveryStream(parts[0]), nil
	case ok && (category == adapter.CategoryCall || category == adapter.CategoryReconciliation) && len(parts) == 1:
		if id, err := uuid.Parse(parts[0]); err == nil {
			return eventstore.UUIDStream(category, id), nil
		}
	}
	return eventstore.StreamID{}, faults{{"stream", "names no stream: write user/REALM/ID, call/ID, delivery/KEYCLOAK-EVENT-ID, reconciliation/ID or the stream's UUID"}}.err()
}

func viewInUTC(v adapter.View) adapter.View {
	v.OccurredAt, v.RecordedAt = v.OccurredAt.UTC(), v.RecordedAt.UTC()
	return v
}
