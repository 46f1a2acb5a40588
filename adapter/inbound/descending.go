package inbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

const (
	// pollChunk is how many events of an older server are recorded in one transaction,
	// and as many more as their last millisecond has.
	pollChunk = 500
	// maxPage is the most events that one request asks for where a millisecond fills a
	// page.
	maxPage = pollPage << 8
	// maxReadings is how often a listing is begun anew that lost events while it was
	// read.
	maxReadings = 3
	// dayAhead is how far a date reaches back, so that it has begun in every time zone.
	dayAhead = 24 * time.Hour
)

// errShrunk says that events were deleted from a listing while it was read.
var errShrunk = errors.New("stored events were deleted while they were read")

// pollDescending polls an older server, which lists the newest first. It records the
// oldest first, in pieces of whole milliseconds: without ids, equal events are told
// apart only by how many there are, and they are equal only within a millisecond.
func (p *Poller) pollDescending(ctx context.Context, realm string, l listing, name string, mark time.Time) (Polled, error) {
	var from time.Time
	if !mark.IsZero() {
		from = mark.Add(-pollOverlap)
	}
	var window []webhook.Delivery
	var err error
	for range maxReadings {
		if window, err = p.window(ctx, realm, l, from); !errors.Is(err, errShrunk) {
			break
		}
	}
	if err != nil {
		return Polled{}, err
	}
	slices.Reverse(window)
	var total Polled
	for len(window) > 0 {
		n := min(pollChunk, len(window))
		for n < len(window) && timeOf(window[n]).Equal(timeOf(window[n-1])) {
			n++
		}
		got, err := p.record(ctx, realm, window[:n])
		if err != nil {
			return total, err
		}
		total.add(got)
		if newest := timeOf(window[n-1]); newest.After(mark) {
			mark = newest
			if err := p.Watermarks.SetWatermark(ctx, name, mark); err != nil {
				return total, fmt.Errorf("remembering how far %s was polled: %w", name, err)
			}
		}
		window = window[n:]
	}
	return total, nil
}

// window reads the events since a time, the newest first.
//
// Pages go by offset, and each is a query of its own: events that arrive meanwhile move
// all others on, so that the end of one page is the beginning of the next once more,
// and equal times come in any order (Keycloak 26.1, JpaAdminEventQuery.java). So each
// page begins within the one before, and a millisecond's events are taken from one
// page that has all of them.
func (p *Poller) window(ctx context.Context, realm string, l listing, from time.Time) ([]webhook.Delivery, error) {
	query := admin.EventQuery{Max: pollPage, DayPrecision: true}
	if !from.IsZero() {
		query.From = from.Add(-dayAhead)
	}
	var window []webhook.Delivery
	for {
		page, err := p.page(ctx, realm, l, query)
		if err != nil {
			return nil, err
		}
		if !slices.IsSortedFunc(page, func(a, b webhook.Delivery) int { return timeOf(b).Compare(timeOf(a)) }) {
			return nil, errors.New("the server lists events in no order of time")
		}
		ended := len(page) < query.Max
		begin, end := 0, len(page)
		if len(window) > 0 && end > 0 {
			known := timeOf(window[len(window)-1])
			if timeOf(page[0]).Before(known) {
				return nil, errShrunk
			}
			for begin < end && !timeOf(page[begin]).Before(known) {
				begin++
			}
		}
		if !ended {
			last := timeOf(page[end-1])
			for end > begin && timeOf(page[end-1]).Equal(last) {
				end--
			}
		}
		window = append(window, page[begin:end]...)
		switch {
		case ended, end > begin && timeOf(page[end-1]).Before(from):
			return slices.DeleteFunc(window, func(d webhook.Delivery) bool { return timeOf(d).Before(from) }), nil
		case end > begin:
			query.First, query.Max = query.First+end-1, pollPage
		case query.Max < maxPage:
			query.Max *= 2 // one millisecond fills the page
		default:
			return nil, fmt.Errorf("more than %d events in one millisecond", maxPage/2)
		}
	}
}
