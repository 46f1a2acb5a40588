package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Pages of every list.
const (
	defaultLimit = 50
	maxLimit     = 500
)

// page is a page of a list. NextCursor is empty on the last.
type page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor"`
}

func pageOf[T any](items []T, next string) page[T] {
	if items == nil {
		items = []T{}
	}
	return page[T]{Items: items, NextCursor: next}
}

// query reads a request's parameters and gathers what is wrong with them. An unknown
// one is a fault too: a filter with a typing error would answer for another question.
type query struct {
	values url.Values
	known  []string
	faults faults
}

func queryOf(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.faults.add("query", "cannot be read: escape it as URLs do")
	}
	return q
}

// text returns a parameter, "" where it is left out.
func (q *query) text(name string) string {
	q.known = append(q.known, name)
	values := q.values[name]
	if len(values) > 1 {
		q.faults.add(name, "is there more than once")
	}
	if len(values) == 0 {
		return ""
	}
	if !storable(values[0]) {
		q.faults.add(name, notStorable)
		return ""
	}
	return values[0]
}

// list returns the values of a parameter that is repeated, or has commas, or both.
func (q *query) list(name string) []string {
	q.known = append(q.known, name)
	var all []string
	for _, value := range q.values[name] {
		if !storable(value) {
			q.faults.add(name, notStorable)
			continue
		}
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				all = append(all, item)
			}
		}
	}
	return all
}

func (q *query) flag(name string) *bool {
	text := q.text(name)
	if text == "" {
		return nil
	}
	value := text == "true"
	if !value && text != "false" {
		q.faults.add(name, "must be true or false")
	}
	return &value
}

func (q *query) uuid(name string) uuid.UUID {
	text := q.text(name)
	if text == "" {
		return uuid.Nil
	}
	id, err := uuid.Parse(text)
	if err != nil {
		q.faults.add(name, "must be a UUID")
	}
	return id
}

func (q *query) time(name string) time.Time {
	text := q.text(name)
	if text == "" {
		return time.Time{}
	}
	// A + that was not escaped arrives as a space.
	at, err := time.Parse(time.RFC3339, strings.ReplaceAll(text, " ", "+"))
	switch year := at.UTC().Year(); {
	case err != nil:
		q.faults.add(name, "must be an RFC 3339 time, such as 2026-05-01T12:00:00Z")
	case year < 1 || year > 9999: // in its own zone it is one that can be written
		q.faults.add(name, "must lie in the years 1 to 9999, UTC")
	case at.IsZero():
		return at.Add(1) // the zero time stands for a parameter that was left out
	}
	return at
}

func (q *query) positive(name string) int64 {
	text := q.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		q.faults.add(name, "must be a number from 1")
	}
	return n
}

// page reads limit and cursor.
func (q *query) page() (limit int, cursor string) {
	limit, cursor = defaultLimit, q.text("cursor")
	if text := q.text("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			q.faults.add("limit", fmt.Sprintf("must be a number from 1 to %d", maxLimit))
		}
		limit = n
	}
	return limit, cursor
}

// err is nil where nothing is wrong. It is asked once all parameters are read.
func (q *query) err() error {
	var unknown []string
	for name := range q.values {
		if !slices.Contains(q.known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		message := "is not a parameter here"
		if len(q.known) > 0 {
			message += "; there are " + strings.Join(q.known, ", ")
		}
		q.faults.add(name, message)
	}
	return q.faults.err()
}
