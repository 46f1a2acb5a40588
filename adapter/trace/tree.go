package trace

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
)

// tree hangs each event under the one that it is told after.
type tree struct {
	nodes []*node
	byID  map[uuid.UUID]*node
}

type node struct {
	adapter.View
	parent   *node
	children []*node
	depth    int
	// at and position are the event's own or its parent's, whichever is later, so
	// that sorting by them puts no event before its cause.
	at       time.Time
	position eventstore.Position
}

// newTree builds the tree of events, which it takes in any order.
//
// The parent is the cause, with two exceptions that make it a story: what happened
// to a call hangs under its request, however the links of the chain point; and the
// delivery that echoes a call hangs under the attempt that made Keycloak send it.
func newTree(events []adapter.View) *tree {
	t := &tree{byID: make(map[uuid.UUID]*node, len(events))}
	heads := map[string]*node{}     // a stream's first event
	done := map[string]*node{}      // a call's attempt that did it, else its last one
	echoed := map[uuid.UUID]*node{} // a delivery's event → the link to its call
	events = slices.Clone(events)
	slices.SortFunc(events, func(a, b adapter.View) int { return cmp.Compare(a.Position, b.Position) })
	for _, v := range events {
		n := &node{View: v}
		t.nodes = append(t.nodes, n)
		t.byID[v.EventID] = n
		switch p := v.Data.(type) {
		case *adapter.ApiCallRequested, *adapter.ReconciliationStarted,
			*adapter.AdminEventReceived, *adapter.UserEventReceived, *adapter.UnrecognizedEventReceived:
			if heads[v.Stream] == nil {
				heads[v.Stream] = n
			}
		case *adapter.ApiCallAttempted:
			if last := done[v.Stream]; last == nil || !succeeded(last.View) {
				done[v.Stream] = n
			}
		case *adapter.ApiCallEchoed:
			if echoed[p.DeliveryEventID] == nil {
				echoed[p.DeliveryEventID] = n
			}
		}
	}
	for _, n := range t.nodes {
		if p := t.parentOf(n, heads, done, echoed); p != nil && !p.under(n) {
			n.parent = p
			p.children = append(p.children, n)
		}
	}
	for _, n := range t.nodes {
		n.settle()
	}
	slices.SortFunc(t.nodes, inStory)
	for _, n := range t.nodes {
		slices.SortFunc(n.children, inStory)
	}
	return t
}

func (t *tree) parentOf(n *node, heads, done map[string]*node, echoed map[uuid.UUID]*node) *node {
	head := heads[n.Stream]
	if p, ok := n.Data.(*adapter.ApiCallEchoed); ok {
		if delivery := t.byID[p.DeliveryEventID]; delivery != nil {
			return delivery
		}
		return head
	}
	if head != nil && head != n {
		return head
	}
	if echo := echoed[n.EventID]; echo != nil {
		if attempt := done[echo.Stream]; attempt != nil {
			return attempt
		}
		if call := heads[echo.Stream]; call != nil {
			return call
		}
	}
	if n.CausationID != nil {
		if cause := t.byID[*n.CausationID]; cause != nil && cause != n {
			return cause
		}
	}
	for _, l := range n.Metadata.Links {
		if cause := t.byID[l.EventID]; cause != nil && cause != n && l.Relation != relationBatch {
			return cause
		}
	}
	return nil
}

// under reports whether n hangs below m, or is m.
func (n *node) under(m *node) bool {
	for ; n != nil; n = n.parent {
		if n == m {
			return true
		}
	}
	return false
}

// moment is when an event happened: for an attempt when it went out, which is what
// the others relate to, rather than when it was over.
func moment(v adapter.View) time.Time {
	if p, ok := v.Data.(*adapter.ApiCallAttempted); ok && !p.StartedAt.IsZero() && p.StartedAt.Before(v.OccurredAt) {
		return p.StartedAt
	}
	return v.OccurredAt
}

func succeeded(v adapter.View) bool {
	p, ok := v.Data.(*adapter.ApiCallAttempted)
	return ok && p.StatusCode >= 200 && p.StatusCode < 300
}

// settle computes depth, at and position from the parents'.
func (n *node) settle() {
	if !n.at.IsZero() {
		return
	}
	n.at, n.position = moment(n.View), n.Position
	if n.parent == nil {
		return
	}
	n.parent.settle()
	n.depth = n.parent.depth + 1
	n.position = max(n.position, n.parent.position)
	if n.parent.at.After(n.at) {
		n.at = n.parent.at
	}
}

func inStory(a, b *node) int {
	return cmp.Or(
		a.at.Compare(b.at), cmp.Compare(a.position, b.position), cmp.Compare(a.depth, b.depth),
		cmp.Compare(a.Position, b.Position),
	)
}

// inOrder lists the events in the order in which they happened.
func (t *tree) inOrder() []adapter.View {
	events := make([]adapter.View, 0, len(t.nodes))
	for _, n := range t.nodes {
		events = append(events, n.View)
	}
	return events
}

// walk visits the events as the story is told: each under its cause.
func (t *tree) walk(visit func(*node)) {
	var down func(*node)
	down = func(n *node) {
		visit(n)
		for _, c := range n.children {
			down(c)
		}
	}
	for _, n := range t.nodes {
		if n.parent == nil {
			down(n)
		}
	}
}

// category is the first word of a stream's name.
func category(stream string) string {
	c, _, _ := strings.Cut(stream, "/")
	return c
}
