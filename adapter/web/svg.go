package web

import (
	"cmp"
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/trace"
)

// maxDrawn is how many events a diagram shows: its first ones. The list below it has
// more.
const maxDrawn = 60

// drawing collects an SVG. Shapes are styled by class alone, since the pages' policy
// allows no inline style, and texts are escaped.
type drawing struct{ strings.Builder }

func (d *drawing) add(format string, args ...any) {
	fmt.Fprintf(d, format, args...)
	d.WriteByte('\n')
}

// open begins the drawing with what a screen reader says in its place.
func (d *drawing) open(id string, width, height int, title, description string) {
	d.add(`<svg class="diagram %[1]s" viewBox="0 0 %[2]d %[3]d" width="%[2]d" height="%[3]d" role="img" aria-labelledby="%[1]s-title %[1]s-desc" xmlns="http://www.w3.org/2000/svg">`, id, width, height)
	d.add(`<title id="%s-title">%s</title>`, id, html.EscapeString(title))
	d.add(`<desc id="%s-desc">%s</desc>`, id, html.EscapeString(description))
}

func (d *drawing) text(x, y float64, class, text string) {
	d.add(`<text x="%s" y="%s" class="%s">%s</text>`, px(x), px(y), class, html.EscapeString(text))
}

func (d *drawing) close() template.HTML {
	d.WriteString("</svg>")
	return template.HTML(d.String()) //nolint:gosec // made of numbers, our own words and escaped text
}

// px is a coordinate, short and the same on every machine.
func px(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

func toneClass(t trace.Tone) string {
	if t == trace.ToneNeutral {
		return "neutral"
	}
	return string(t)
}

// Measures of the waterfall, in the drawing's own units.
const (
	fallWidth  = 1040
	fallLabels = 380 // where the time axis begins
	fallRight  = 110 // room for the last label
	fallTop    = 34
	fallRow    = 26
	// fallIndent is for each event above; deeper ones stand at the same depth.
	fallIndent   = 14
	fallMaxDepth = 6
	// fallLetters is how many letters fit into the label column.
	fallLetters = 54
)

// span is what a row of the waterfall covers; a moment where it begins and ends at once.
type span struct{ from, to time.Time }

// waterfall draws the events of a story over time: calls and attempts as bars, other
// events as points, each in a row of its own.
func waterfall(t trace.Trace, lines []trace.Line) template.HTML {
	calls := map[string]adapter.Call{}
	for _, c := range t.Calls {
		calls[adapter.CallStream(c.CallID).String()] = c
	}
	spans := make([]span, len(lines))
	var all span
	for i, l := range lines {
		spans[i] = spanOf(l, calls)
		if i == 0 || spans[i].from.Before(all.from) {
			all.from = spans[i].from
		}
		if i == 0 || spans[i].to.After(all.to) {
			all.to = spans[i].to
		}
	}
	total := all.to.Sub(all.from)
	scale := func(at time.Time) float64 {
		if total <= 0 {
			return fallLabels
		}
		return fallLabels + (fallWidth-fallRight-fallLabels)*float64(at.Sub(all.from))/float64(total)
	}

	var d drawing
	height := fallTop + fallRow*len(lines) + 8
	d.open("waterfall", fallWidth, height, "Waterfall of the story",
		fmt.Sprintf("%s over %s, each in a row with its time. The list of events below says the same in words.", plural(len(lines), "event", "events"), trace.Duration(total)))
	for _, tick := range ticks(total) {
		x := scale(all.from.Add(tick))
		d.add(`<line x1="%[1]s" y1="%[2]d" x2="%[1]s" y2="%[3]d" class="grid"/>`, px(x), fallTop-8, height-4)
		d.text(x, fallTop-14, "axis", tickText(tick))
	}
	for i, l := range lines {
		y := float64(fallTop + i*fallRow)
		middle := y + fallRow/2
		d.add(`<g><title>%s</title>`, html.EscapeString(l.Text+", "+offset(spans[i], all.from)))
		d.add(`<rect x="0" y="%s" width="%d" height="%d" class="row"/>`, px(y), fallWidth, fallRow)
		depth := min(l.Depth, fallMaxDepth)
		d.text(float64(8+depth*fallIndent), middle+4, "label "+toneClass(l.Tone), first(fallLetters-depth*2, l.Text))
		from, to := scale(spans[i].from), scale(spans[i].to)
		if spans[i].to.After(spans[i].from) {
			to = max(to, from+4)
			class := "bar " + toneClass(l.Tone)
			inset := 6.0
			if _, ok := l.Data.(*adapter.ApiCallRequested); ok {
				class, inset = "bar whole", 9
			}
			d.add(`<rect x="%s" y="%s" width="%s" height="%s" rx="3" class="%s"/>`, px(from), px(y+inset), px(to-from), px(fallRow-2*inset), class)
		} else {
			d.add(`<circle cx="%s" cy="%s" r="4.5" class="point %s"/>`, px(from), px(middle), toneClass(l.Tone))
			to = from + 5
		}
		d.text(to+7, middle+4, "time", offset(spans[i], all.from))
		d.add(`</g>`)
	}
	return d.close()
}

func spanOf(l trace.Line, calls map[string]adapter.Call) span {
	s := span{l.At, l.At}
	length := func(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
	switch p := l.Data.(type) {
	case *adapter.ApiCallRequested:
		if c, ok := calls[l.Stream]; ok && c.FinishedAt != nil && c.FinishedAt.After(s.from) {
			s.to = *c.FinishedAt
		}
	case *adapter.ApiCallAttempted:
		s.to = s.from.Add(max(length(p.DurationMS), time.Microsecond))
	case *adapter.ApiCallPreconditionRead:
		if n := len(p.Attempts); n > 0 && !p.Attempts[0].StartedAt.IsZero() {
			last := p.Attempts[n-1]
			s = span{p.Attempts[0].StartedAt, last.StartedAt.Add(max(length(last.DurationMS), time.Microsecond))}
		}
	}
	return s
}

func offset(s span, start time.Time) string {
	text := "+" + tickText(s.from.Sub(start))
	if d := s.to.Sub(s.from); d >= time.Millisecond {
		text += ", " + trace.Duration(d)
	}
	return text
}

// tickSteps are the round steps from a minute on; below, and from days on, they are 1, 2
// and 5 times a power of ten.
var tickSteps = []time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

// ticks are at most seven round moments between 0 and total.
func ticks(total time.Duration) []time.Duration {
	step := tickStep(max(total, 0))
	var all []time.Duration
	for at := time.Duration(0); at <= total; at += step {
		all = append(all, at)
	}
	if len(all) == 0 {
		return []time.Duration{0}
	}
	return all
}

func tickStep(total time.Duration) time.Duration {
	const most = 7
	powers := func(unit, below time.Duration) time.Duration {
		for ; below == 0 || unit < below; unit *= 10 {
			for _, step := range []time.Duration{unit, 2 * unit, 5 * unit} {
				if total/step < most {
					return step
				}
			}
		}
		return 0
	}
	if step := powers(time.Microsecond, 100*time.Second); step > 0 && step <= 20*time.Second {
		return step
	}
	for _, step := range tickSteps {
		if total/step < most {
			return step
		}
	}
	return powers(24*time.Hour, 0)
}

// tickText is a time since the beginning, short.
func tickText(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(math.Round(float64(d)/float64(100*time.Microsecond))/10, 'f', -1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(math.Round(d.Seconds()*100)/100, 'f', -1, 64) + " s"
	}
	return trace.Duration(d)
}

// Measures of the causal graph, in the drawing's own units.
const (
	graphWidth  = 1040
	graphTop    = 40
	graphRow    = 30
	graphColumn = 34
	graphRadius = 6
	// graphColumns is how many streams have a column of their own; the others share the
	// last.
	graphColumns = 8
	graphLetters = 120
)

// causalGraph draws which event led to which: a row for each event in the order of the
// story, a column for each stream, a line from each cause to its effect; dashed where
// it is a further cause, or one that the event itself does not name.
func causalGraph(lines []trace.Line) template.HTML {
	lines = slices.Clone(lines)
	storyOrder(lines)
	columns := map[string]int{}
	var names []string
	rows := map[uuid.UUID]int{}
	edges := 0
	for i, l := range lines {
		if _, known := columns[l.Stream]; !known {
			columns[l.Stream] = min(len(columns), graphColumns-1)
			if len(names) < graphColumns {
				names = append(names, l.Label)
			} else {
				names[graphColumns-1] = "others"
			}
		}
		rows[l.EventID] = i
	}
	at := func(i int) (x, y float64) {
		return float64(20 + columns[lines[i].Stream]*graphColumn), float64(graphTop + i*graphRow + graphRow/2)
	}

	var shapes drawing
	for i, l := range lines {
		x, y := at(i)
		join := func(cause uuid.UUID, class string) bool {
			from, ok := rows[cause]
			if !ok || from == i {
				return false
			}
			edges++
			cx, cy := at(from)
			shapes.add(`<path d="%s" class="%s"/>`, edge(cx, cy, x, y, between(lines, columns, from, i)), class)
			return true
		}
		joined := false
		for n, cause := range l.Causes {
			class := "edge"
			if n > 0 {
				class = "edge further"
			}
			joined = join(cause, class) || joined
		}
		if !joined {
			// What the event itself cannot know: an echo follows from the attempt.
			join(l.Parent, "edge further")
		}
	}
	for i, l := range lines {
		x, y := at(i)
		shapes.add(`<g><title>%s</title>`, html.EscapeString(l.Label+": "+l.Text))
		shapes.add(`<circle cx="%s" cy="%s" r="%d" class="node %s"/>`, px(x), px(y), graphRadius, toneClass(l.Tone))
		left := float64(20 + len(names)*graphColumn)
		shapes.text(left, y+4, "kind", l.Label)
		shapes.text(left+96, y+4, "label "+toneClass(l.Tone), first(graphLetters-5*len(names), l.Text))
		shapes.add(`</g>`)
	}

	var d drawing
	height := graphTop + graphRow*len(lines) + 6
	d.open("causes", graphWidth, height, "Causes and effects",
		fmt.Sprintf("%s on %s, joined by %s from cause to effect: %s. The list of events below names each event's causes.",
			plural(len(lines), "event", "events"), plural(len(names), "stream", "streams"), plural(edges, "line", "lines"), strings.Join(names, ", ")))
	for i := range names {
		x := float64(20 + i*graphColumn)
		d.add(`<line x1="%[1]s" y1="%[2]d" x2="%[1]s" y2="%[3]d" class="lane"/>`, px(x), graphTop, height-6)
	}
	d.text(12, graphTop-16, "axis start", plural(len(names), "stream", "streams"))
	d.WriteString(shapes.String())
	return d.close()
}

// storyOrder sorts lines, which come as a tree, by time and with no event before its
// cause.
func storyOrder(lines []trace.Line) {
	settled := make(map[uuid.UUID]time.Time, len(lines))
	for _, l := range lines { // a parent comes before its children
		at := l.At
		if parent, ok := settled[l.Parent]; ok && parent.After(at) {
			at = parent
		}
		settled[l.EventID] = at
	}
	index := make(map[uuid.UUID]int, len(lines))
	for i, l := range lines {
		index[l.EventID] = i
	}
	slices.SortStableFunc(lines, func(a, b trace.Line) int {
		return cmp.Or(settled[a.EventID].Compare(settled[b.EventID]), cmp.Compare(a.Depth, b.Depth), cmp.Compare(index[a.EventID], index[b.EventID]))
	})
}

// between reports whether another event of the same column lies between two rows.
func between(lines []trace.Line, columns map[string]int, a, b int) bool {
	if columns[lines[a].Stream] != columns[lines[b].Stream] {
		return false
	}
	for i := min(a, b) + 1; i < max(a, b); i++ {
		if columns[lines[i].Stream] == columns[lines[a].Stream] {
			return true
		}
	}
	return false
}

// edge is the path of a line from cause to effect. Within a column it is straight, or
// bends to the left around what lies between.
func edge(x1, y1, x2, y2 float64, around bool) string {
	down := graphRadius + 1.0
	if y2 < y1 {
		down = -down
	}
	y1, y2 = y1+down, y2-down
	switch {
	case x1 == x2 && !around:
		return fmt.Sprintf("M%s %sL%s %s", px(x1), px(y1), px(x2), px(y2))
	case x1 == x2:
		bend := x1 - 14
		return fmt.Sprintf("M%s %sC%s %s %s %s %s %s", px(x1), px(y1), px(bend), px(y1+down*2), px(bend), px(y2-down*2), px(x2), px(y2))
	}
	middle := (y1 + y2) / 2
	return fmt.Sprintf("M%s %sC%s %s %s %s %s %s", px(x1), px(y1), px(x1), px(middle), px(x2), px(middle), px(x2), px(y2))
}
