package backend

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// Bounds of one batch. A batch is one transaction, and everybody in it waits for
// the whole of it.
const (
	maxBatchEvents = 1024
	maxBatchBytes  = 4 << 20
)

// Batch is several appends that share a transaction. Each is judged by itself, in
// the order of Plans, and finds the versions that those before it have made.
type Batch struct {
	Plans []*Plan
	// Streams are the streams that the plans name, each once, with the number of
	// events that all plans together have for it.
	Streams []PlanStream

	index map[uuid.UUID]int
	ids   map[uuid.UUID]struct{}
	// streams gives, for each plan, the place in Streams of each of its own streams.
	streams [][]int
	events  int
	bytes   int
}

// BatchOf is a batch of one plan.
func BatchOf(p *Plan) *Batch {
	b := &Batch{}
	b.Add(p)
	return b
}

// Fits reports whether a plan can join: one that would make the batch too large, or
// that shares an event id with another, has to wait for the next. The first always
// fits.
func (b *Batch) Fits(p *Plan) bool {
	return len(b.Plans) == 0 ||
		b.events+len(p.Events) <= maxBatchEvents && b.bytes+p.bytes <= maxBatchBytes && !b.crosses(p)
}

// Add takes in a plan that fits.
func (b *Batch) Add(p *Plan) {
	if b.index == nil {
		b.index = make(map[uuid.UUID]int, len(p.Streams))
		b.ids = make(map[uuid.UUID]struct{}, len(p.Events))
	}
	places := make([]int, len(p.Streams))
	for i, stream := range p.Streams {
		place, known := b.index[stream.ID.AggregateID()]
		if !known {
			place = len(b.Streams)
			b.index[stream.ID.AggregateID()] = place
			b.Streams = append(b.Streams, PlanStream{ID: stream.ID})
		}
		b.Streams[place].Count += stream.Count
		places[i] = place
	}
	for i := range p.Events {
		b.ids[p.Events[i].ID] = struct{}{}
	}
	b.Plans = append(b.Plans, p)
	b.streams = append(b.streams, places)
	b.events += len(p.Events)
	b.bytes += p.bytes
}

// crosses reports whether the plan's verdict depends on another's in a way that is
// known only once that one is recorded.
func (b *Batch) crosses(p *Plan) bool {
	for i := range p.Events {
		if _, twice := b.ids[p.Events[i].ID]; twice {
			return true
		}
	}
	for _, stream := range p.Streams {
		if place, known := b.index[stream.ID.AggregateID()]; known && b.Streams[place].ID != stream.ID {
			return true
		}
	}
	return false
}

// Events is the number of events of all plans.
func (b *Batch) Events() int { return b.events }

// Stream is the place in Streams of the stream that event i of a plan belongs to.
func (b *Batch) Stream(plan, i int) int { return b.streams[plan][b.Plans[plan].Events[i].Stream] }

// Verdict is what a database says of one plan of a batch.
type Verdict int

const (
	// Recorded says that the plan's events are written.
	Recorded Verdict = iota
	// Known says that an event id of the plan was recorded earlier. Nothing was written.
	Known
	// OtherName says that an aggregate id of the plan belongs to a stream of another
	// name. Nothing was written.
	OtherName
	// Conflicting says that a stream was not at the version expected. Nothing was
	// written.
	Conflicting
)

// Result is what became of one plan.
type Result struct {
	Events []eventstore.Event
	Err    error
}

// Judge gives the verdicts of a batch, the streams having versions and names before
// it. Names run along Streams, "" for a stream that does not exist.
func (b *Batch) Judge(versions []eventstore.Version, names []string, known func(uuid.UUID) bool) []Verdict {
	verdicts := make([]Verdict, len(b.Plans))
	now := append([]eventstore.Version(nil), versions...)
	for n, p := range b.Plans {
		verdicts[n] = b.judge(n, now, names, known)
		if verdicts[n] != Recorded {
			continue
		}
		for i, stream := range p.Streams {
			now[b.streams[n][i]] += eventstore.Version(stream.Count)
		}
	}
	return verdicts
}

func (b *Batch) judge(n int, versions []eventstore.Version, names []string, known func(uuid.UUID) bool) Verdict {
	p := b.Plans[n]
	for i := range p.Events {
		if known(p.Events[i].ID) {
			return Known
		}
	}
	for i, stream := range p.Streams {
		if name := names[b.streams[n][i]]; name != "" && name != stream.ID.String() {
			return OtherName
		}
	}
	if p.Conflict(b.of(n, versions)) != nil {
		return Conflicting
	}
	return Recorded
}

// of picks the versions of plan n's streams.
func (b *Batch) of(n int, versions []eventstore.Version) []eventstore.Version {
	out := make([]eventstore.Version, len(b.streams[n]))
	for i, place := range b.streams[n] {
		out[i] = versions[place]
	}
	return out
}

// Results turns verdicts into what the callers get: the log ended at last and the
// streams had versions and names before the batch, which was recorded at the time
// at. What is Known is decided by repeated, which reads what is recorded. It also
// returns where the log ends now.
func (b *Batch) Results(last eventstore.Position, versions []eventstore.Version, names []string, verdicts []Verdict, at time.Time,
	repeated func(*Plan) ([]eventstore.Event, error),
) ([]Result, eventstore.Position) {
	results := make([]Result, len(b.Plans))
	now := append([]eventstore.Version(nil), versions...)
	for n, p := range b.Plans {
		switch verdicts[n] {
		case Recorded:
			results[n].Events = p.Recorded(last, b.of(n, now), at)
			last += eventstore.Position(len(p.Events))
			for i, stream := range p.Streams {
				now[b.streams[n][i]] += eventstore.Version(stream.Count)
			}
		case Known:
			results[n].Events, results[n].Err = repeated(p)
		case OtherName:
			for i, stream := range p.Streams {
				if name := names[b.streams[n][i]]; name != "" && name != stream.ID.String() {
					results[n].Err = OtherStream(name, stream.ID)
					break
				}
			}
		case Conflicting:
			results[n].Err = p.Conflict(b.of(n, now))
		}
		if results[n].Err == nil && len(results[n].Events) != len(p.Events) {
			// Never an acknowledgement by mistake.
			results[n].Err = fmt.Errorf("the database judged %d, which this program cannot follow", verdicts[n])
		}
	}
	return results, last
}
