package simulation_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/newid"
	"github.com/keytrail/keytrail/internal/suitetest"
)

func TestMain(m *testing.M) { os.Exit(suitetest.Main(m)) }

const (
	seedEnv  = "KEYTRAIL_SIMULATION_SEED"
	seedsEnv = "KEYTRAIL_SIMULATION_SEEDS"
	fromEnv  = "KEYTRAIL_SIMULATION_FROM"

	// steps is how long a run is, without what it takes to settle.
	steps = 120
)

// number is a setting of the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

// Not parallel: a run replaces the randomness of the whole process.
func TestSimulation(t *testing.T) {
	content := template(t)
	if seed := number(t, seedEnv, 0); seed != 0 {
		simulate(t, seed, content)
		return
	}
	from := number(t, fromEnv, 1)
	for seed := from; seed < from+number(t, seedsEnv, defaultSeeds); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { simulate(t, seed, content) })
	}
}

// The same seed records the same log, to the byte.
func TestSameSeedSameRun(t *testing.T) {
	content := template(t)
	from := number(t, fromEnv, 1)
	if seed := number(t, seedEnv, 0); seed != 0 {
		from = seed
	}
	for seed := from; seed < from+repeatedSeeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			first, second := simulate(t, seed, content), simulate(t, seed, content)
			requireSameLines(t, "story", first.story, second.story)
			requireSameLines(t, "log", first.log, second.log)
			require.NotEmpty(t, first.log)
		})
		if os.Getenv(seedEnv) != "" {
			return
		}
	}
}

func requireSameLines(t *testing.T, what string, first, second []string) {
	t.Helper()
	for i := range min(len(first), len(second)) {
		if first[i] != second[i] {
			before := strings.Join(first[max(0, i-10):i], "\n")
			require.Failf(t, "the runs differ", "%s, line %d:\n%s\nfirst:  %s\nsecond: %s", what, i, before, first[i], second[i])
		}
	}
	require.Len(t, second, len(first), what)
}

// recording is what a run leaves.
type recording struct{ story, log []string }

// simulate runs one seed.
func simulate(t *testing.T, seed uint64, content []byte) (r recording) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(seed)
		defer func() {
			r.story = s.story
			if t.Failed() {
				told := len(s.story)
				if os.Getenv(seedEnv) == "" {
					told = min(told, 60)
				} else {
					t.Logf("the log:\n%s", strings.Join(r.log, "\n"))
				}
				t.Logf("what happened last:\n%s", strings.Join(s.story[len(s.story)-told:], "\n"))
				t.Logf("all of it again: %s=%d go test ./internal/simulation -run TestSimulation", seedEnv, seed)
			}
		}()
		ids := &idSource{seed: seed}
		defer newid.Replace(ids.next)()
		w, err := newWorld(s)
		require.NoError(t, err)
		defer w.server.Close()
		d := newDurable(t, content)
		defer func() { require.NoError(t, d.close()) }()
		run := &run{t: t, world: w, durable: d, ids: ids}
		defer run.end()
		run.live()
		run.settleAll()
		r.log = run.lines()
		run.check()
	})
	return r
}

// idSource gives ids out of the seed: UUIDv7 of the bubble's clock, growing.
type idSource struct {
	seed  uint64
	lives uint64
	count atomic.Uint64
	noise *rand.Rand
}

// reborn begins another sequence: what the goroutines of a dead process still take
// makes no difference to the next.
func (s *idSource) reborn() {
	s.lives++
	s.noise = rand.New(rand.NewPCG(s.seed, s.lives))
}

func (s *idSource) next() (id uuid.UUID) {
	if s.noise == nil {
		s.reborn()
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(id[:6], ms[2:])
	n := s.count.Add(1)
	id[6], id[7] = 0x70|byte(n>>20)&0x0f, byte(n>>12)
	id[8], id[9] = 0x80|byte(n>>6)&0x3f, byte(n<<2)
	binary.BigEndian.PutUint32(id[10:], s.noise.Uint32())
	return id
}

// run is one seed's.
type run struct {
	t *testing.T
	*world
	*durable
	ids     *idSource
	process *process
	// caughtUp is how far all is interpreted and folded.
	caughtUp eventstore.Position
}

// live is the time in which things go wrong.
func (r *run) live() {
	r.start(false)
	for range steps {
		if r.process.dead() {
			r.bury()
			r.start(false)
		}
		r.step()
	}
}

// end lets everything run out, also after a failure.
func (r *run) end() {
	if r.process == nil {
		return
	}
	r.process.die()
	r.finish()
	require.NoError(r.t, r.process.end())
	r.pass(2 * time.Minute) // a token is asked for in the background, for a minute
}

func (r *run) start(calm bool) {
	r.ids.reborn()
	p, err := r.durable.start(r.world, calm)
	require.NoError(r.t, err)
	r.process = p
	r.tell("the process starts")
}

// bury lets the goroutines of a dead process run out.
func (r *run) bury() {
	r.tell("the process is dead")
	r.finish()
	require.NoError(r.t, r.process.end())
	r.pass(time.Duration(r.draw(5000)) * time.Millisecond)
}

// step draws what happens next.
func (r *run) step() {
	p := r.process
	r.pass(0)
	if parked := r.parked(); len(parked) > 0 && r.chance(650) {
		t := pick(r.scheduler, parked)
		where := t.parked
		r.tell("%s goes on: %s", t.name, where)
		r.resume(t)
		return
	}
	switch n := r.draw(100); {
	case n < 14:
		r.elsewhere()
	case n < 34:
		if left := r.unsent(); len(left) > 0 {
			p.deliver(pick(r.scheduler, left))
		}
	case n < 40:
		if r.free("poll") {
			p.poll()
		}
	case n < 54:
		if r.free(interpreted) {
			p.advance(interpreted, r.draw(6))
		}
	case n < 66:
		name := pick(r.scheduler, projected)
		if r.chance(700) {
			name = projected[r.draw(2)]
		}
		if r.free(name) {
			p.advance(name, r.draw(8))
		}
	case n < 80:
		p.command()
	case n < 84:
		if r.free(interpreted) {
			p.settle()
		}
	case n < 90:
		if r.free("observe") {
			p.observe()
		}
	case n < 92:
		if r.free("poll", interpreted, "reconcile") {
			p.reconcile()
		}
	case n < 98:
		about := []time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second, 40 * time.Second, 6 * time.Minute}
		r.pass(pick(r.scheduler, about))
	case n < 99:
		r.tell("the process is killed")
		p.die()
	default:
		r.durable.log.Announce()
	}
}

// settleAll ends the faults and lets everything come to rest.
func (r *run) settleAll() {
	r.process.calm = true
	r.finish()
	r.bury() // also where it lives still
	r.start(true)
	r.tell("calm")
	r.quiet = true
	const rounds = 12
	for n, before := 0, -1; ; n++ {
		require.Less(r.t, n, rounds, "it does not come to rest")
		for left := r.unsent(); len(left) > 0; left = r.unsent() {
			r.do(func() { r.process.deliver(left[0]) })
		}
		r.do(r.process.poll)
		r.catchUp()
		r.do(r.process.settle)
		r.catchUp()
		r.do(r.process.observe)
		r.catchUp()
		now := r.told()
		if now == before {
			return
		}
		before = now
		r.pass(6 * time.Minute) // for whom is taken for dead
	}
}

// told counts what is told of users and calls. Deliveries never end: that keytrail logs
// in to Keycloak is an event there, too.
func (r *run) told() int {
	n := 0
	for _, e := range r.events() {
		if e.Stream.Category() != adapter.CategoryDelivery {
			n++
		}
	}
	return n
}

// do begins a task and lets it end.
func (r *run) do(begin func()) {
	begin()
	r.finish()
}

// catchUp interprets and folds all that is read here.
func (r *run) catchUp() {
	head, err := r.process.store.Head(r.t.Context())
	require.NoError(r.t, err)
	if head == r.caughtUp {
		return
	}
	for _, name := range append([]string{interpreted}, projected...) {
		if name == interpreted || isRead(name) {
			r.do(func() { r.process.advance(name, 0) })
		}
	}
	r.caughtUp, err = r.process.store.Head(r.t.Context())
	require.NoError(r.t, err)
}

// events is the whole log.
func (r *run) events() []eventstore.Event {
	var all []eventstore.Event
	for e, err := range r.process.store.ReadLog(r.t.Context(), eventstore.LogQuery{}) {
		require.NoError(r.t, err)
		all = append(all, e)
	}
	return all
}

// lines are the whole log as text, with everything that is recorded.
func (r *run) lines() []string {
	var lines []string
	for _, e := range r.events() {
		lines = append(lines, fmt.Sprintf("%d %s %s/%d %s %s %s %s %s %s %s", e.Position, e.ID, e.Stream, e.Version, e.Type,
			e.OccurredAt.Format(time.RFC3339Nano), e.RecordedAt.Format(time.RFC3339Nano), e.CorrelationID, e.CausationID, e.Data, e.Metadata))
	}
	return lines
}

func newBody(b []byte) io.Reader { return bytes.NewReader(b) }
