package trace

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
)

// Tone says how an event is to be taken.
type Tone string

// The tones of events.
const (
	ToneNeutral Tone = ""
	ToneGood    Tone = "good"
	ToneWarning Tone = "warning"
	ToneBad     Tone = "bad"
)

// Line is one event of a story in words, for surfaces that lay it out themselves.
type Line struct {
	adapter.View
	// At is when it happened: for an attempt when it went out.
	At time.Time
	// Parent is the event that it is told under, uuid.Nil at the top, and Depth how
	// many stand above it.
	Parent uuid.UUID
	Depth  int
	// Label is a short name of the event's stream, unique within the story where that
	// has few streams.
	Label string
	Text  string
	Tone  Tone
	// Causes are all the events that it names as its causes, the direct one first.
	Causes []uuid.UUID
}

// Lines puts the events of a story into words, each below the event that it is told
// under, as WriteText does.
func Lines(t Trace) []Line {
	s := study(t)
	labels := labelsOf(t.Events)
	head := headOf(s)
	lines := make([]Line, 0, len(t.Events))
	newTree(t.Events).walk(func(n *node) {
		l := Line{
			View: n.View, At: moment(n.View), Depth: n.depth, Label: labels[n.Stream],
			Text: s.describe(n.View) + aside(n, head), Tone: ToneOf(n.View), Causes: causesOfView(n.View),
		}
		if n.parent != nil {
			l.Parent = n.parent.EventID
		}
		lines = append(lines, l)
	})
	return lines
}

// ToneOf says how an event is to be taken.
func ToneOf(v adapter.View) Tone {
	switch eventStyle(v) {
	case red:
		return ToneBad
	case yellow:
		return ToneWarning
	case green:
		return ToneGood
	}
	return ToneNeutral
}

func causesOfView(v adapter.View) []uuid.UUID {
	d := adapter.Decoded{Meta: v.Metadata}
	d.ID = v.EventID
	if v.CausationID != nil {
		d.CausationID = *v.CausationID
	}
	d.Payload, _ = v.Data.(adapter.Payload)
	return causes(d)
}

// Origin is on whose behalf something happened, in words; what is not known is empty.
type Origin struct {
	Who, Why, Through string
}

// OriginOf is on whose behalf a story happened.
func OriginOf(t Trace) Origin { return originOf(headOf(study(t))) }

func originOf(v adapter.View) Origin {
	return Origin{Who: whoOf(v), Why: oneLine(v.Reason), Through: through(v.Metadata.Source)}
}

// HistoryLine is one event of a user in words.
type HistoryLine struct {
	adapter.HistoryEntry
	Origin
	Text string
	// Inferred names the fields whose new value was asked for and not read back.
	Inferred []string
	// Late is how long after it occurred the event was recorded, 0 where that is soon.
	Late time.Duration
}

// HistoryLines puts the entries of one user's history into words, in their order.
func HistoryLines(entries []adapter.HistoryEntry) []HistoryLine {
	told := words{names: map[adapter.UserRef]string{}, brief: true}
	byAge := slices.Clone(entries)
	slices.SortStableFunc(byAge, func(a, b adapter.HistoryEntry) int { return a.OccurredAt.Compare(b.OccurredAt) })
	for _, e := range byAge {
		if e.After.Username != "" {
			told.names[adapter.UserRef{Realm: e.After.Realm, UserID: e.After.ID}] = e.After.Username
		}
	}
	lines := make([]HistoryLine, 0, len(entries))
	for _, e := range entries {
		l := HistoryLine{HistoryEntry: e, Origin: originOf(e.View), Text: told.describe(e.View), Inferred: inferredIn(e.Data)}
		if lag := e.RecordedAt.Sub(e.OccurredAt); lag > late {
			l.Late = lag
		}
		lines = append(lines, l)
	}
	return lines
}

// CallTitle names a call: what, whose, where.
func CallTitle(c adapter.Call) string { return oneLine(callTitle(words{}, c)) }

// CallOutcome tells a call's attempts and how it ended.
func CallOutcome(c adapter.Call) string { return oneLine(callOutcome(c)) }

// CallNext is what an operator does about a call, "" for nothing.
func CallNext(c adapter.Call) string { return nextOfCall(c) }

// RunNext is what an operator does about a run, "" for nothing.
func RunNext(r adapter.Reconciliation) string {
	if r.Status != adapter.RunInvalid && r.Status != adapter.RunAborted {
		return ""
	}
	return nextOfRun(r.Code, r.Realm)
}

// SituationWords says how users counted under s are.
func SituationWords(s adapter.Situation) string { return situation(s) }

// Who names an actor with its kind and whence it acted, "" for nobody.
func Who(a *adapter.Actor) string { return who(a) }

// Through names the way by which something came in.
func Through(source string) string { return through(source) }

// Value shows a field's value as people write it; an empty one has none.
func Value(v any) string { return oneLine(value(v)) }

// ValueJSON is Value for a value in JSON.
func ValueJSON(raw json.RawMessage) string { return oneLine(showJSON(raw)) }

// Duration shows a length of time with the precision that a person wants.
func Duration(d time.Duration) string { return span(d) }
