package trace

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
)

// late is how long after it occurred an event may be recorded without its being said.
const late = time.Minute

// WriteHistory writes a user's events, newest first whatever their order: when, what,
// who, through what, why, and each field's old and new value.
func WriteHistory(w io.Writer, entries []adapter.HistoryEntry, o Options) error {
	p := newPage(o)
	if len(entries) == 0 {
		p.WriteString("Nothing is known of this user.\n")
		return p.writeTo(w, "the history")
	}
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b adapter.HistoryEntry) int {
		return cmp.Or(b.OccurredAt.Compare(a.OccurredAt), bytes.Compare(b.EventID[:], a.EventID[:]))
	})
	told := words{names: map[adapter.UserRef]string{}, brief: true}
	for _, e := range slices.Backward(entries) {
		if e.After.Username != "" {
			told.names[adapter.UserRef{Realm: e.After.Realm, UserID: e.After.ID}] = e.After.Username
		}
	}
	p.historyTitle(entries[0].After, len(entries))
	for _, e := range entries {
		p.WriteByte('\n')
		p.historyEntry(told, e)
	}
	return p.writeTo(w, "the history")
}

func (p *page) historyTitle(u adapter.User, events int) {
	if u.ID == "" {
		p.line("", 0, bold, number(events, "event")+", newest first")
		return
	}
	title := titleOf(u)
	if u.Username != "" {
		title += oneLine(" (" + u.ID + ")")
	}
	p.line("", 0, bold, title+": "+number(events, "event")+", newest first")
}

func titleOf(u adapter.User) string {
	name := u.Username
	if name == "" {
		name = "user " + u.ID
	}
	return oneLine(name + " in " + u.Realm)
}

func (p *page) historyEntry(told words, e adapter.HistoryEntry) {
	at := p.time(e.OccurredAt)
	columns := len(at) + 2
	indent := strings.Repeat(" ", columns)
	p.line(p.paint(dim, at)+"  ", columns, bold, told.describe(e.View))

	var origin []string
	if name := whoOf(e.View); name != "" {
		origin = append(origin, "by "+name)
	}
	if way := through(e.Metadata.Source); way != "" {
		origin = append(origin, "through "+way)
	}
	if lag := e.RecordedAt.Sub(e.OccurredAt); lag > late {
		origin = append(origin, "recorded "+span(lag)+" later")
	}
	if len(origin) > 0 {
		p.line(indent, columns, plain, strings.Join(origin, ", "))
	}
	if e.Reason != "" {
		p.line(indent, columns, plain, "why: "+oneLine(e.Reason))
	}
	inferred := inferredIn(e.Data)
	for _, c := range e.Changes {
		text := c.Field + ": " + value(c.Old) + " → " + value(c.New)
		if slices.Contains(inferred, c.Field) {
			text += " (as asked for, not read back)"
		}
		p.line(indent, columns, plain, oneLine(text))
	}
	p.line(indent, columns, dim, "keytrail trace "+e.CorrelationID.String())
}

// value shows a field's value; a field that is empty has none.
func value(v any) string {
	if v == "" {
		v = nil
	}
	return show(v)
}

func inferredIn(data any) []string {
	switch p := data.(type) {
	case *adapter.UserApiCreated:
		return p.Inferred
	case *adapter.UserApiUpdated:
		return p.Inferred
	case *adapter.UserApiEnabled:
		return p.Inferred
	case *adapter.UserApiDisabled:
		return p.Inferred
	}
	return nil
}

// WriteUser writes what is believed of a user, whether it is being read back, and for
// each field who set it when, and whether that is certain.
// A field that no event has ever told of is shown as not known.
func WriteUser(w io.Writer, u adapter.User, o Options) error {
	p := newPage(o)
	state := "disabled"
	mark := yellow
	switch {
	case u.Deleted:
		state, mark = "deleted", red
	case u.Enabled:
		state, mark = "enabled", green
	case !u.Known(adapter.FieldEnabled):
		state, mark = "enabled or not is not known", plain
	}
	p.WriteString(p.paint(bold, titleOf(u)) + ": " + p.paint(mark, state) + "\n")
	if text := unread(u); text != "" {
		p.line("", 0, yellow, text)
	}
	p.WriteByte('\n')

	rows := p.userRows(u)
	names, values := 0, 0
	for _, r := range rows {
		names = max(names, len(r.name))
		if n := len([]rune(r.value)); r.origin != "" && n <= maxValue {
			values = max(values, n)
		}
	}
	for _, r := range rows {
		lead := "  " + p.paint(dim, pad(r.name, names)) + "  "
		if r.origin == "" || len([]rune(r.value)) > maxValue {
			p.line(lead, names+4, plain, r.value)
			if r.origin != "" {
				p.line(strings.Repeat(" ", names+4), names+4, dim, r.origin)
			}
			continue
		}
		p.line(lead+pad(r.value, values)+"  ", names+4+values+2, dim, r.origin)
	}
	return p.writeTo(w, "the user")
}

// unread says that a user is to be read back, since when and why, "" where nothing is
// left open.
func unread(u adapter.User) string {
	if u.Unread == nil {
		return ""
	}
	return oneLine("To be read back from Keycloak since " + u.Unread.Since.UTC().Format("2006-01-02 15:04:05 UTC") + ": " + u.Unread.Because)
}

// maxValue is the width up to which a value shares its line with its origin.
const maxValue = 40

type row struct{ name, value, origin string }

func (p *page) userRows(u adapter.User) []row {
	rows := []row{{name: "id", value: oneLine(u.ID)}}
	add := func(name, field string, value any) {
		origin, known := u.Origins[field]
		switch {
		case !known && len(u.Origins) > 0:
			rows = append(rows, row{name: name, value: "not known"})
		case known:
			rows = append(rows, row{name: name, value: oneLine(show(value)), origin: p.origin(origin)})
		default: // from a source that keeps no origins
			rows = append(rows, row{name: name, value: oneLine(show(value))})
		}
	}
	add("user name", adapter.FieldUsername, u.Username)
	add("e-mail", adapter.FieldEmail, text(u.Email))
	add("verified", adapter.FieldEmailVerified, u.EmailVerified)
	add("first name", adapter.FieldFirstName, text(u.FirstName))
	add("last name", adapter.FieldLastName, text(u.LastName))
	add("enabled", adapter.FieldEnabled, u.Enabled)
	if u.LockedUntil != nil {
		add("locked until", adapter.FieldLockedUntil, p.time(*u.LockedUntil))
	}
	add("attributes", adapter.FieldAttributes, u.Attributes)
	add("must do", adapter.FieldRequiredActions, u.RequiredActions)
	add("roles", adapter.FieldRoles, u.Roles)
	for _, client := range slices.Sorted(maps.Keys(u.ClientRoles)) {
		add("roles of "+client, adapter.FieldClientRoles, u.ClientRoles[client])
	}
	add("groups", adapter.FieldGroups, u.Groups)
	for _, org := range u.Organizations {
		rows = append(rows, row{name: "organization", value: oneLine(org.Alias + " (" + org.ID + ")")})
	}
	moment := func(name string, at *time.Time, origin string) {
		if at != nil {
			rows = append(rows, row{name: name, value: p.time(*at) + origin})
		}
	}
	moment("created", u.CreatedAt, by(u.CreatedBy))
	moment("changed", u.UpdatedAt, "")
	moment("deleted", u.DeletedAt, "")
	if !u.FirstKnownAt.IsZero() {
		rows = append(rows, row{name: "known since", value: p.time(u.FirstKnownAt)})
	}
	return append(rows, row{name: "events", value: show(int(u.Version))})
}

func (p *page) origin(o adapter.Origin) string {
	text := strings.TrimPrefix(by(o.Actor)+", ", ", ") + p.time(o.At)
	if o.Inferred {
		text += ", as asked for, not read back"
	}
	if o.Doubtful {
		text += ", in doubt: another change came close to it"
	}
	return oneLine(strings.TrimSpace(text))
}

func text(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}
