package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// pageSize is how many entries a page of a list has.
const pageSize = 50

// filter is one value of a list's filter, as a link.
type filter struct {
	Label, Path string
	Current     bool
}

// pager is the way on from a page of a list. Lists have no way back but the browser's
// and the beginning, as cursors have none.
type pager struct {
	// Next is the next page, First the first; each is empty where this is it.
	Next, First string
}

func pagerOf(r *http.Request, next string) pager {
	var p pager
	query := r.URL.Query()
	if query.Get("cursor") != "" {
		query.Del("cursor")
		p.First = pathWith(r.URL.Path, query)
	}
	if next != "" {
		query.Set("cursor", next)
		p.Next = pathWith(r.URL.Path, query)
	}
	return p
}

func pathWith(path string, query url.Values) string {
	u := url.URL{Path: path}
	for name := range query {
		if query.Get(name) == "" {
			query.Del(name) // what a form left empty
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// text is a parameter without the spaces around it.
func text(r *http.Request, name string) string {
	return strings.TrimSpace(r.URL.Query().Get(name))
}

// yesOrNo is a parameter that is "true", "false" or left out.
func yesOrNo(r *http.Request, name string) (*bool, error) {
	value := text(r, name)
	if value == "" {
		return nil, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return nil, adapter.Errorf(adapter.CodeInvalidRequest, "%s is neither true nor false", name)
	}
	return &b, nil
}

// localLayouts are what a browser's field for a moment sends, which has no zone and is
// UTC here. Whoever chooses a minute or a second means all of it: what happened within
// is included.
var localLayouts = []struct {
	layout string
	whole  time.Duration
}{
	{"2006-01-02T15:04", time.Minute},
	{"2006-01-02T15:04:05", time.Second},
	{"2006-01-02T15:04:05.000", time.Millisecond},
}

// moment is a parameter that says when, zero where it is left out.
func moment(r *http.Request, name string) (time.Time, error) {
	value := text(r, name)
	if value == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, value); err == nil {
		return t.UTC(), nil
	}
	for _, l := range localLayouts {
		if t, err := time.Parse(l.layout, value); err == nil && len(value) == len(l.layout) {
			return t.Add(l.whole - time.Nanosecond), nil
		}
	}
	return time.Time{}, adapter.Errorf(adapter.CodeInvalidRequest, "%s is not a moment", name).
		WithTry("write it as 2006-01-02T15:04:05Z")
}

// position is a cursor of the log.
func position(r *http.Request) (eventstore.Position, error) {
	value := text(r, "cursor")
	if value == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 1 {
		return 0, adapter.Errorf(adapter.CodeInvalidRequest, "the cursor is not one that this list gave").WithTry("begin at the first page")
	}
	return eventstore.Position(n), nil
}

// quoted shows a text that came from outside: bounded, and without control characters.
func quoted(s string) string { return strconv.Quote(first(200, s)) }
