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
// it, or by its aggregate id.
func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	types, stream := q.list("type"), q.text("stream")
	correlation, from := q.uuid("correlation_id"), q.positive("from_position")
	limit, cursor := q.page()
	after := eventstore.Position(0)
	if from > 0 {
		after = eventstore.Position(from) - 1
	}
	if cursor != "" {
		n, err := strconv.ParseInt(cursor, 10, 64)
		if err != nil || n < 1 {
			q.faults.add("cursor", badCursorMessage)
		}
		after = max(after, eventstore.Position(n))
	}
	if err := q.err(); err != nil {
		return err
	}

	var events iter.Seq2[eventstore.Event, error]
	if stream == "" {
		events = s.Store.ReadLog(r.Context(), eventstore.LogQuery{After: after, Types: types, CorrelationID: correlation, Limit: limit + 1})
	} else {
		id, err := s.streamOf(r.Context(), stream)
		if err != nil {
			return err
		}
		events = selectEvents(s.Store.ReadStream(r.Context(), id, eventstore.StreamQuery{}), after, types, correlation)
	}
	views := []adapter.View{}
	next := ""
	for e, err := range events {
		if err != nil {
			return err
		}
		if len(views) == limit {
			next = strconv.FormatInt(int64(views[limit-1].Position), 10)
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

// selectEvents narrows the events of one stream, which is short, to those asked for.
func selectEvents(events iter.Seq2[eventstore.Event, error], after eventstore.Position, types []string, correlation uuid.UUID) iter.Seq2[eventstore.Event, error] {
	return func(yield func(eventstore.Event, error) bool) {
		for e, err := range events {
			if err == nil && (e.Position <= after ||
				(len(types) > 0 && !slices.Contains(types, e.Type)) ||
				(correlation != uuid.Nil && e.CorrelationID != correlation)) {
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
