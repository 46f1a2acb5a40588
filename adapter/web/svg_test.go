package web

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/eventstore"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got template.HTML) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(string(got)))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s is no XML: %v", name, err)
		}
	}
	require.NotContains(t, string(got), "style=", "the policy allows no inline style")
	require.NotContains(t, string(got), "NaN")
	require.Contains(t, string(got), `role="img"`)
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got+"\n"), 0o644)) //nolint:gosec // a golden file is for everybody
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got)+"\n", "go test -run Diagrams -update ./adapter/web writes it anew; look at it")
}

// told makes stories of views.
type told struct {
	start  time.Time
	events []adapter.View
}

func idOf(name string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)) }

func (s *told) add(name, stream string, after time.Duration, data adapter.Payload, causes ...string) {
	v := adapter.View{
		EventID: idOf(name), EventType: data.EventType(), Stream: stream, Position: eventstore.Position(len(s.events) + 1),
		OccurredAt: s.start.Add(after), RecordedAt: s.start.Add(after), CorrelationID: idOf("story"), Data: data,
	}
	for i, cause := range causes {
		id := idOf(cause)
		if i == 0 {
			v.CausationID = &id
		} else {
			v.Metadata.Links = append(v.Metadata.Links, adapter.Link{EventID: id, Relation: "merge"})
		}
	}
	s.events = append(s.events, v)
}

// retried is a call that succeeds at the second attempt, with its echo.
func retried() trace.Trace {
	s := told{start: time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)}
	callID := idOf("call")
	call := adapter.CallStream(callID).String()
	ms := time.Millisecond
	s.add("requested", call, 0, &adapter.ApiCallRequested{CallID: callID, Command: "user.disable", Realm: "acme", UserID: "7", Username: "<b>&bob", Method: "PUT", URLTemplate: "/admin/realms/{realm}/users/{id}"})
	s.add("first", call, 40*ms, &adapter.ApiCallAttempted{CallID: callID, Attempt: adapter.Attempt{Attempt: 1, StartedAt: s.start.Add(5 * ms), DurationMS: 35, StatusCode: 503, Error: "503 Service Unavailable", Sent: true}}, "requested")
	s.add("second", call, 260*ms, &adapter.ApiCallAttempted{CallID: callID, Attempt: adapter.Attempt{Attempt: 2, StartedAt: s.start.Add(240 * ms), DurationMS: 20, StatusCode: 204, Sent: true}}, "first")
	s.add("succeeded", call, 261*ms, &adapter.ApiCallSucceeded{CallID: callID, StatusCode: 204, Attempts: 2, DurationMS: 261}, "second")
	s.add("disabled", "user/acme/7", 261*ms, &adapter.UserApiDisabled{UserChange: adapter.UserChange{UserRef: adapter.UserRef{Realm: "acme", UserID: "7"}}}, "succeeded", "second")
	s.add("received", "delivery/k", 255*ms, &adapter.AdminEventReceived{KeycloakEventID: "k", Realm: "acme", OperationType: "UPDATE", ResourceType: "USER", ResourcePath: "users/7", Receipt: adapter.Receipt{Source: "keycloak"}})
	s.add("echoed", call, 255*ms, &adapter.ApiCallEchoed{CallID: callID, Echo: adapter.Echo{DeliveryEventID: idOf("received"), MatchedBy: "stamp"}}, "received")
	finished := s.start.Add(261 * ms)
	return trace.Trace{
		CorrelationID: idOf("story"), Events: s.events,
		Calls: []adapter.Call{{CallID: callID, Status: adapter.CallSucceeded, RequestedAt: s.start, FinishedAt: &finished}},
	}
}

func TestDiagrams(t *testing.T) {
	t.Parallel()
	story := retried()
	golden(t, "waterfall.svg", waterfall(story, trace.Lines(story)))
	golden(t, "causes.svg", causalGraph(trace.Lines(story)))
	golden(t, "waterfall_empty.svg", waterfall(trace.Trace{}, nil))
	golden(t, "causes_empty.svg", causalGraph(nil))
	golden(t, "chart.svg", chart{
		ID: "calls", Title: "Calls & more", Description: "3 succeeded", Labels: []string{"09:00", "10:00", "<11:00>"},
		Series: []series{{Name: "succeeded", Class: "good", Values: []int64{1200, 0, 3}}, {Name: "failed", Class: "bad", Values: []int64{1, 0, 40}}},
	}.SVG())
	golden(t, "chart_empty.svg", chart{ID: "none", Title: "None"}.SVG())
}

// A diagram is drawn in time and room that a page can afford, whatever the story.
func TestDiagramsOfStrangeStories(t *testing.T) {
	t.Parallel()
	s := told{start: time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)}
	for i := range 40 { // more streams than columns, far apart, each caused by the last and by itself
		name := fmt.Sprintf("e%d", i)
		causes := []string{name, fmt.Sprintf("e%d", i-1), "never heard of"}
		s.add(name, fmt.Sprintf("user/acme/%d", i), time.Duration(i*i)*time.Hour, &adapter.UserApiDeleted{UserRef: adapter.UserRef{Realm: "acme", UserID: fmt.Sprint(i)}}, causes...)
	}
	story := trace.Trace{CorrelationID: idOf("story"), Events: s.events}
	lines := trace.Lines(story)
	for _, drawing := range []template.HTML{waterfall(story, lines), causalGraph(lines)} {
		require.Less(t, len(drawing), 64<<10)
		require.NotContains(t, string(drawing), "NaN")
	}
	require.Contains(t, string(causalGraph(lines)), "on 8 streams, joined by 39 lines")
}

func TestTicks(t *testing.T) {
	t.Parallel()
	for total, want := range map[time.Duration]string{
		0:                       "0",
		3 * time.Millisecond:    "0 500 µs 1 ms 1.5 ms 2 ms 2.5 ms 3 ms",
		50 * time.Millisecond:   "0 10 ms 20 ms 30 ms 40 ms 50 ms",
		1700 * time.Millisecond: "0 500 ms 1 s 1.5 s",
		3 * time.Hour:           "0 30 min 1 h 1 h 30 min 2 h 2 h 30 min 3 h",
		70 * time.Second:        "0 20 s 40 s 1 min",
		100 * 24 * time.Hour:    "0 20 d 40 d 60 d 80 d 100 d",
	} {
		var texts []string
		for _, tick := range ticks(total) {
			texts = append(texts, tickText(tick))
		}
		require.Equal(t, want, strings.Join(texts, " "))
	}
}

func TestGrouped(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		require.Equal(t, want, grouped(n))
	}
}
