package trace

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keytrail/keytrail/adapter"
)

// Options say how text is laid out. The zero value is plain text in UTC without
// line breaks of its own.
type Options struct {
	// Width is where lines are broken, in columns; 0 breaks none, and less than 60
	// counts as 60.
	Width int
	// Color adds ANSI colours.
	Color bool
	// Location is the zone in which times are shown; nil is UTC.
	Location *time.Location
}

// style is an ANSI colour.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

// page collects text before it is written at once.
type page struct {
	Options
	strings.Builder
}

func newPage(o Options) *page {
	if o.Location == nil {
		o.Location = time.UTC
	}
	if o.Width > 0 {
		o.Width = max(o.Width, 60)
	}
	return &page{Options: o}
}

func (p *page) writeTo(w io.Writer, what string) error {
	if _, err := io.WriteString(w, p.String()); err != nil {
		return fmt.Errorf("writing %s: %w", what, err)
	}
	return nil
}

func (p *page) paint(s style, text string) string {
	if !p.Color || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// line writes text behind a lead of the given width in columns, broken at Width with
// the following lines under the first. The lead may hold colours.
func (p *page) line(lead string, columns int, s style, text string) {
	for i, part := range wrap(text, p.Width, columns) {
		if i > 0 {
			lead = strings.Repeat(" ", columns)
		}
		p.WriteString(strings.TrimRight(lead+p.paint(s, part), " ") + "\n")
	}
}

// wrap breaks text between words so that it fits behind columns. A word that is
// longer than a line, such as an id, is left whole to be copied.
func wrap(text string, width, columns int) []string {
	if width == 0 || columns+utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	room := max(width-columns, 24)
	var lines []string
	var line strings.Builder
	used := 0
	for _, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		if used > 0 && used+1+n > room {
			lines = append(lines, line.String())
			line.Reset()
			used = 0
		}
		if used > 0 {
			line.WriteByte(' ')
			used++
		}
		line.WriteString(word)
		used += n
	}
	return append(lines, line.String())
}

// fact writes one named value, and nothing for an empty one.
func (p *page) fact(name string, columns int, value string) {
	if value != "" {
		p.line("  "+p.paint(dim, pad(name, columns))+"  ", columns+4, plain, value)
	}
}

func pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(columns-utf8.RuneCountInString(s), 0))
}

func (p *page) time(t time.Time) string {
	return t.In(p.Location).Format("2006-01-02 15:04:05 MST")
}

func (p *page) exactTime(t time.Time) string {
	return t.In(p.Location).Format("2006-01-02 15:04:05.000 MST")
}

var statusStyle = map[Status]style{StatusOK: green, StatusFailed: red, StatusUnknown: yellow, StatusOpen: cyan}

// WriteText writes the story for a person: how it ended, who, why, through what and
// when; then what happened, each event under its cause, with the time since the
// beginning; then what to do, and the names of the streams. It writes no secrets,
// since events hold none, and no control characters from outside.
func WriteText(w io.Writer, t Trace, o Options) error {
	p := newPage(o)
	s := study(t)

	status := strings.ToUpper(string(t.Status))
	p.line(p.paint(statusStyle[t.Status], status)+"  ", len(status)+2, bold, t.Summary)
	p.WriteByte('\n')
	p.header(t, s)
	p.WriteByte('\n')
	p.events(t, s)
	if t.Truncated {
		p.line("  ", 2, yellow, "The story is longer: "+number(len(t.Events), "event")+" of it are shown, its beginning and its end.")
	}
	if len(t.Next) > 0 {
		p.WriteByte('\n')
		for i, step := range t.Next {
			name := "next"
			if i > 0 {
				name = ""
			}
			p.line("  "+p.paint(yellow, pad(name, headerColumns))+"  ", headerColumns+4, plain, step)
		}
	}
	p.streams(t)
	if len(t.Others) > 0 {
		p.WriteString("\n  " + p.paint(dim, "other stories of this user, newest first") + "\n")
		for _, other := range t.Others {
			at := p.time(other.At)
			p.line("  "+p.paint(dim, at)+"  ", len(at)+4, plain, other.Summary)
			p.line(strings.Repeat(" ", len(at)+4), len(at)+4, dim, "keytrail trace "+other.CorrelationID.String())
		}
	}
	return p.writeTo(w, "the trace")
}

const headerColumns = len("through")

func (p *page) header(t Trace, s *studied) {
	head := headOf(s)
	p.fact("who", headerColumns, whoOf(head))
	p.fact("why", headerColumns, oneLine(head.Reason))
	p.fact("through", headerColumns, through(head.Metadata.Source))
	when := p.exactTime(t.StartedAt)
	switch {
	case t.EndedAt == nil:
		when += ", not over yet"
	case t.EndedAt.After(t.StartedAt):
		when += ", over in " + span(t.EndedAt.Sub(t.StartedAt))
	}
	p.fact("when", headerColumns, when)
	p.fact("trace", headerColumns, t.CorrelationID.String())
}

// headOf is the event that says on whose behalf a story happened.
func headOf(s *studied) adapter.View {
	for _, v := range s.own {
		if v.Actor != nil && v.Actor.Type != adapter.ActorUnknown {
			return v
		}
	}
	if len(s.own) > 0 {
		return s.own[0]
	}
	return adapter.View{}
}

// whoOf is who did it, or that nobody can know any more.
func whoOf(v adapter.View) string {
	if v.Actor == nil && slices.Contains(v.Forgotten, memberActor) {
		return "a person who has been forgotten"
	}
	return who(v.Actor)
}

func who(a *adapter.Actor) string {
	if a == nil {
		return ""
	}
	kind := map[adapter.ActorType]string{
		adapter.ActorKeycloakUser: "Keycloak user", adapter.ActorServiceAccount: "service account",
		adapter.ActorCLI: "command line", adapter.ActorToken: "API token",
		adapter.ActorSystem: "by itself", adapter.ActorUnknown: "",
	}[a.Type]
	text := a.String()
	if kind != "" {
		text += " (" + kind + ")"
	}
	if a.Client != "" {
		text += " at client " + a.Client
	}
	if a.IP != "" {
		text += " from " + a.IP
	}
	return oneLine(text)
}

func through(source string) string {
	switch source {
	case "cli":
		return "the command line"
	case "http":
		return "the HTTP API"
	case "poll":
		return "the poller"
	case "lookup":
		return "a question to Keycloak"
	case "reconcile":
		return "the reconciler"
	}
	if name, ok := strings.CutPrefix(source, "webhook:"); ok {
		return "the webhook " + oneLine(name)
	}
	return oneLine(source)
}

// maxDepth bounds the indentation; what is deeper stands at the same depth.
const maxDepth = 6

// alike is how many adopted users of one run are told singly.
const alike = 3

// events writes the events as a tree, each with the time since the beginning.
func (p *page) events(t Trace, s *studied) {
	labels := labelsOf(t.Events)
	head := headOf(s)
	timeColumns, labelColumns := 0, 0
	for _, v := range t.Events {
		timeColumns = max(timeColumns, utf8.RuneCountInString(since(t.StartedAt, moment(v))))
		labelColumns = max(labelColumns, utf8.RuneCountInString(labels[v.Stream]))
	}
	adopted, told := 0, 0
	for _, v := range t.Events {
		if v.EventType == adapter.TypeUserApiBaselined {
			adopted++
		}
	}
	margin := 2 + timeColumns + 2 + labelColumns + 2
	newTree(t.Events).walk(func(n *node) {
		indent := strings.Repeat("  ", min(n.depth, maxDepth))
		columns := margin + len(indent)
		if n.EventType == adapter.TypeUserApiBaselined {
			if told++; told > alike {
				if told == alike+1 {
					p.line(strings.Repeat(" ", columns), columns, dim, "… and "+number(adopted-alike, "more user")+" adopted")
				}
				return
			}
		}
		at := since(t.StartedAt, moment(n.View))
		lead := "  " + p.paint(dim, strings.Repeat(" ", timeColumns-utf8.RuneCountInString(at))+at) + "  " +
			p.paint(cyan, pad(labels[n.Stream], labelColumns)) + "  " + indent
		p.line(lead, columns, eventStyle(n.View), s.describe(n.View)+aside(n, head))
	})
}

// aside adds who and why where they are others than the header and the cause say.
func aside(n *node, head adapter.View) string {
	text := ""
	if c := category(n.Stream); c == adapter.CategoryUser || c == adapter.CategoryReconciliation {
		told := head.Actor
		if n.parent != nil {
			told = n.parent.Actor
		}
		if n.Actor != nil && (told == nil || n.Actor.String() != told.String()) {
			text += by(n.Actor)
		}
	}
	if n.Reason != "" && n.Reason != head.Reason && (n.parent == nil || n.parent.Reason != n.Reason) {
		text += " (why: " + n.Reason + ")"
	}
	return oneLine(text)
}

func eventStyle(v adapter.View) style {
	switch p := v.Data.(type) {
	case *adapter.ApiCallFailed, *adapter.ApiCallSkipped, *adapter.DeliveryParked, *adapter.ReconciliationAborted:
		return red
	case *adapter.ApiCallOutcomeUnknown:
		return yellow
	case *adapter.ApiCallSucceeded:
		return green
	case *adapter.ApiCallAttempted:
		if p.StatusCode == 0 || p.StatusCode >= 300 {
			return yellow
		}
	case *adapter.DriftDetected:
		if p.Phase != adapter.DriftEnded {
			return red
		}
	}
	return plain
}

// since is the time since the beginning, as short as it can be told.
func since(start, at time.Time) string {
	d := at.Sub(start)
	sign := "+"
	if d < 0 {
		sign, d = "-", -d
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%s%.3fs", sign, d.Truncate(time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%s%dm%02ds", sign, int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%s%dh%02dm", sign, int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%s%dd%02dh", sign, int(d.Hours())/24, int(d.Hours())%24)
}

// maxNumbered is up to how many streams of a kind are told apart by number.
const maxNumbered = 9

// labelsOf gives each stream a short name for the margin: its category, numbered
// where the story has several.
func labelsOf(events []adapter.View) map[string]string {
	labels := map[string]string{}
	count := map[string]int{}
	for _, name := range streamsOf(events) {
		count[category(name)]++
		labels[name] = category(name)
	}
	n := map[string]int{}
	for _, name := range streamsOf(events) {
		c := category(name)
		short := c
		if c == adapter.CategoryReconciliation {
			short = "run"
		}
		if n[c]++; count[c] > 1 && count[c] <= maxNumbered {
			short += " " + strconv.Itoa(n[c])
		}
		labels[name] = oneLine(short)
	}
	return labels
}

// streamsOf lists the streams in the order in which the story names them.
func streamsOf(events []adapter.View) []string {
	var names []string
	seen := map[string]bool{}
	newTree(events).walk(func(n *node) {
		if !seen[n.Stream] {
			seen[n.Stream] = true
			names = append(names, n.Stream)
		}
	})
	return names
}

// maxStreams is how many streams are named below a story.
const maxStreams = 12

// streams lists the full names behind the labels, to copy.
func (p *page) streams(t Trace) {
	names := streamsOf(t.Events)
	labels := labelsOf(t.Events)
	columns := headerColumns
	for _, name := range names[:min(len(names), maxStreams)] {
		columns = max(columns, len(labels[name]))
	}
	p.WriteByte('\n')
	for i, name := range names {
		if i == maxStreams {
			p.line("  ", 2, dim, "… and "+number(len(names)-maxStreams, "more stream")+"; --json has them all")
			return
		}
		p.line("  "+p.paint(cyan, pad(labels[name], columns))+"  ", columns+4, dim, oneLine(name))
	}
}
