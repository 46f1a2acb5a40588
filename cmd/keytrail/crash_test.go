package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/app"
	"github.com/keytrail/keytrail/internal/childprocess"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

var crashSeed = flag.Uint64("crash.seed", 0, "repeat the load and the moments of the crash test; 0 takes new ones")

const (
	crashRounds  = 20
	crashSenders = 8
	// crashMost is the most deliveries that a round acknowledges before the kill.
	crashMost = 400
)

// serve is killed again and again under load. What got a 202 is there once, and what is
// believed of the users is what a replay from zero gives.
func TestServeSurvivesKill(t *testing.T) {
	t.Parallel()
	program := buildProgram(t)
	for name, storeURL := range map[string]func(testing.TB) string{"sqlite": dbtest.SQLite, "postgres": dbtest.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crashAndCheck(t, installation{program: program, store: storeURL(t)})
		})
	}
}

// buildProgram builds keytrail as it is shipped: without the race detector, which
// would make the load a trickle.
func buildProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "keytrail")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

func crashAndCheck(t *testing.T, in installation) {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -crash.seed=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	rounds := crashRounds
	if testing.Short() {
		rounds = 2
	}

	in.run(t, "migrate")
	load := newLoad(seed)
	senders := make([]*sender, crashSenders)
	for i := range senders {
		senders[i] = &sender{load: load, random: rand.New(rand.NewPCG(seed, uint64(i)+1))}
	}
	doubtful := 0
	for round := range rounds {
		server := in.serve(t)
		load.killAfter(random.IntN(crashMost))
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		var sending sync.WaitGroup
		for _, s := range senders {
			sending.Go(func() { s.send(ctx, server.url, true) })
		}
		select {
		case <-load.reached:
		case <-server.process.Done():
			t.Errorf("serve ended by itself: %v\n%s", server.process.Err(), server.log)
		case <-ctx.Done():
			t.Errorf("round %d is not over after %s", round, waitLimit)
		}
		require.NoError(t, server.process.Kill())
		cancel()
		sending.Wait()
		require.NoError(t, load.firstFailure())
		require.False(t, t.Failed())
		for _, s := range senders {
			if s.doubtful != nil {
				doubtful++
			}
		}
	}

	// What was in doubt is sent again, as a sender does that has seen no answer.
	server := in.serve(t)
	var sending sync.WaitGroup
	for _, s := range senders {
		sending.Go(func() { s.send(t.Context(), server.url, false) })
	}
	sending.Wait()
	require.NoError(t, load.firstFailure())
	require.NoError(t, server.process.Stop(syscall.SIGTERM, waitLimit))
	require.NoError(t, server.process.Err(), "a soft stop ends well\n%s", server.log)

	check(t, in, load)
	t.Logf("%d events acknowledged; %d deliveries were cut off by a kill; %d duplicates were recognised", len(load.receipts), doubtful, load.duplicates)
}

// installation is the program and its store.
type installation struct{ program, store string }

func (in installation) env() []string {
	return []string{
		"KEYTRAIL_STORE_URL=" + in.store, "KEYTRAIL_LISTEN=127.0.0.1:0", "KEYTRAIL_WEBHOOK_SECRET=" + scriptWebhookSecret,
		"KEYTRAIL_LOG_LEVEL=warn",
	}
}

func (in installation) run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), in.program, args...)
	cmd.Env = in.env()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// server is a serve that has said where it serves.
type server struct {
	process *childprocess.Process
	log     *childprocess.Tail
	url     string
}

func (in installation) serve(t *testing.T) server {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), in.program, "serve")
	cmd.Env = in.env()
	s, out := server{log: &childprocess.Tail{}}, newMatchWriter(servesAt)
	cmd.Stdout, cmd.Stderr = out, s.log
	var err error
	s.process, err = childprocess.Start(cmd, syscall.SIGKILL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.process.Kill() })
	s.url, err = awaitAddress(s.process, out)
	require.NoError(t, err, "%s", s.log)
	return s
}

// event is one Keycloak event on its way.
type event struct {
	id   string
	body []byte
}

// load makes up what happens in Keycloak and remembers what keytrail said it has. It
// is safe for concurrent use.
type load struct {
	mu     sync.Mutex
	random *rand.Rand
	number int64
	// users are the users as they are in Keycloak, by id; living are ids in use.
	users  map[string]*liveUser
	living []string
	// receipts are the first answers to acknowledged events, sent what they were to.
	receipts   map[string]receipt
	sent       []event
	duplicates int
	failure    error

	left    int
	reached chan struct{}
}

type liveUser struct {
	username, firstName string
	enabled, deleted    bool
}

type receipt struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	EventID    uuid.UUID `json:"event_id"`
	KeycloakID string    `json:"keycloak_event_id"`
	Duplicate  bool      `json:"duplicate"`
}

func newLoad(seed uint64) *load {
	return &load{
		random: rand.New(rand.NewPCG(seed, 1<<32)), users: map[string]*liveUser{}, living: make([]string, 30), receipts: map[string]receipt{},
	}
}

// killAfter makes reached be closed after n more acknowledged events.
func (l *load) killAfter(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.reached = n, make(chan struct{})
	if n == 0 {
		close(l.reached)
	}
}

// next is the next thing that happens: no two at the same time, of a few users, so
// that senders overtake each other often.
func (l *load) next() event {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	slot := l.random.IntN(len(l.living))
	id, representation, operation := l.living[slot], map[string]any{}, "UPDATE"
	if id == "" {
		id, operation = l.uuid(), "CREATE"
		u := &liveUser{username: fmt.Sprintf("user%d", l.number), firstName: "New", enabled: true}
		l.users[id], l.living[slot] = u, id
		representation = map[string]any{"username": u.username, "firstName": u.firstName, "enabled": true}
	} else {
		u := l.users[id]
		switch n := l.random.IntN(10); {
		case n == 0:
			operation, u.deleted, l.living[slot] = "DELETE", true, ""
			representation["username"] = u.username
		case n < 4:
			u.enabled = !u.enabled
			representation["enabled"] = u.enabled
		default:
			u.firstName = fmt.Sprintf("Name %d", l.number)
			representation["firstName"] = u.firstName
		}
	}
	e := event{id: l.uuid()}
	e.body = marshal(map[string]any{
		"id": e.id, "time": 1_795_413_925_851 + l.number, "realmId": "be4c761c-6cac-427b-bcdb-6cb733831e2a", "realmName": scriptRealm,
		"type": "admin.USER-" + operation, "operationType": operation, "resourceType": "USER", "resourcePath": "users/" + id, "resourceId": id,
		"representation": string(marshal(representation)), "uid": l.uuid(),
		"authDetails": map[string]any{"realmId": "master", "clientId": "admin-cli", "userId": "8091aea8-bdef-4284-99a8-c436499fcd79", "ipAddress": "127.0.0.1", "username": "admin"},
		"details":     map[string]any{"userId": id},
	})
	return e
}

func (l *load) uuid() string {
	var b [16]byte
	for i := range b {
		b[i] = byte(l.random.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return uuid.UUID(b).String()
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of texts, numbers and truth values
	}
	return b
}

// repeat is an event that was acknowledged.
func (l *load) repeat(random *rand.Rand) (e event, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sent) == 0 {
		return event{}, false
	}
	return l.sent[random.IntN(len(l.sent))], true
}

// acknowledged takes down an answer to an event: the first one is a promise for every
// one after it.
func (l *load) acknowledged(e event, r receipt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, known := l.receipts[e.id]
	switch {
	case r.KeycloakID != e.id:
		l.fail(fmt.Errorf("the receipt of event %s names %s", e.id, r.KeycloakID))
	case known && (!r.Duplicate || r.EventID != first.EventID || r.DeliveryID != first.DeliveryID):
		l.fail(fmt.Errorf("event %s got a 202 with %+v, and later with %+v", e.id, first, r))
	case !known:
		l.receipts[e.id] = r
		l.sent = append(l.sent, e)
	}
	if r.Duplicate {
		l.duplicates++
	}
	if l.left--; l.left == 0 {
		close(l.reached)
	}
}

func (l *load) fail(err error) {
	if l.failure == nil {
		l.failure = err
	}
}

func (l *load) firstFailure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// sender posts one event after the other, as fast as it can.
type sender struct {
	load   *load
	random *rand.Rand
	// doubtful is what was sent and not answered.
	doubtful *event
}

// send goes on until the connection breaks. It begins with what is in doubt, and sends
// no more than that unless there is more to come.
func (s *sender) send(ctx context.Context, url string, more bool) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for ctx.Err() == nil {
		var e event
		repeated := false
		switch {
		case s.doubtful != nil:
			e = *s.doubtful
		case !more:
			return
		default:
			if s.random.IntN(10) == 0 {
				e, repeated = s.load.repeat(s.random)
			}
			if !repeated {
				e = s.load.next()
			}
		}
		if !repeated {
			s.doubtful = &e
		}
		r, answered, err := s.post(ctx, client, url, e)
		if err != nil {
			s.load.mu.Lock()
			s.load.fail(err)
			s.load.mu.Unlock()
			return
		}
		if !answered {
			return
		}
		if !repeated {
			s.doubtful = nil
		}
		s.load.acknowledged(e, r)
	}
}

// post sends one event. It is not answered where the connection broke; an answer that
// is no 202 is an error.
func (s *sender) post(ctx context.Context, client *http.Client, url string, e event) (r receipt, answered bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/webhooks/keycloak", bytes.NewReader(e.body))
	if err != nil {
		return receipt{}, false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(keycloaktest.SignatureHeader, keycloaktest.Sign(scriptWebhookSecret, e.body))
	resp, err := client.Do(req)
	if err != nil {
		return receipt{}, false, nil //nolint:nilerr // a broken connection is what this test makes
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return receipt{}, false, nil //nolint:nilerr // a broken connection is what this test makes
	}
	var answer struct {
		Deliveries []receipt `json:"deliveries"`
	}
	if resp.StatusCode != http.StatusAccepted {
		return receipt{}, false, fmt.Errorf("event %s: %s: %s", e.id, resp.Status, body)
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Deliveries) != 1 {
		return receipt{}, false, fmt.Errorf("event %s: not a receipt: %s", e.id, body)
	}
	return answer.Deliveries[0], true, nil
}

// check compares what is in the store with what was promised and what happened.
func check(t *testing.T, in installation, l *load) {
	cfg, err := config.Load(config.Input{Env: in.env()})
	require.NoError(t, err)
	a, err := app.Open(t.Context(), cfg, app.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	head, err := a.Store.Head(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.Engine.CatchUp(t.Context(), head))

	// The log has no gaps, and each delivery that got a 202 is in it once.
	received := map[uuid.UUID][]eventstore.Event{}
	streams := map[string][]adapter.Decoded{}
	caused := map[uuid.UUID]int{} // user events, by the delivery event that each is derived from
	position := eventstore.Position(0)
	for e, err := range a.Store.ReadLog(t.Context(), eventstore.LogQuery{}) {
		require.NoError(t, err)
		position++
		require.Equal(t, position, e.Position, "positions have no gaps")
		switch e.Stream.Category() {
		case adapter.CategoryDelivery:
			received[e.Stream.AggregateID()] = append(received[e.Stream.AggregateID()], e)
		case adapter.CategoryUser:
			_, id, err := adapter.UserOfStream(e.Stream)
			require.NoError(t, err)
			d, err := a.Codec.Decode(t.Context(), e)
			require.NoError(t, err)
			require.Equal(t, eventstore.Version(len(streams[id])+1), e.Version, "versions of %s have no gaps", e.Stream)
			streams[id] = append(streams[id], d)
			caused[e.CausationID]++
		}
	}
	require.Len(t, received, len(l.receipts), "everything that was sent has been acknowledged in the end")
	for id, r := range l.receipts {
		events := received[adapter.DeliveryStream(id).AggregateID()]
		require.Len(t, events, 1, "event %s", id)
		require.Equal(t, adapter.TypeAdminEventReceived, events[0].Type)
		require.Equal(t, r.EventID, events[0].ID)
		require.Equal(t, r.DeliveryID, events[0].Stream.AggregateID())
		require.Equal(t, 1, caused[r.EventID], "one user event of event %s, however often it was interpreted", id)
	}

	// What is believed is what happened, and what a fold from zero gives.
	require.Len(t, streams, len(l.users))
	for id, u := range l.users {
		believed, ok, err := a.Users.Get(t.Context(), scriptRealm, id)
		require.NoError(t, err)
		require.True(t, ok)
		slices.Reverse(streams[id]) // the fold does not mind the order
		folded, ok := adapter.FoldUser(streams[id])
		require.True(t, ok)
		require.Equal(t, marshal(folded), marshal(believed))
		got := liveUser{username: believed.Username, firstName: *believed.FirstName, enabled: believed.Enabled, deleted: believed.Deleted}
		require.Equal(t, *u, got, "user %s", id)
	}

	rows := dump(t, cfg.Store.URL)
	require.Len(t, rows, len(l.users))
	in.run(t, "projections", "rebuild", "users")
	require.Equal(t, rows, dump(t, cfg.Store.URL), "rows before and after a rebuild")
}

// dump reads the rows of the users projection, all columns of them.
func dump(t *testing.T, u config.StoreURL) []string {
	t.Helper()
	var store interface {
		ReadDB() *sql.DB
		Close() error
	}
	var err error
	if u.Kind == config.Postgres {
		store, err = postgres.Open(t.Context(), u.Reveal(), postgres.Options{})
	} else {
		store, err = sqlite.Open(t.Context(), u.Path, sqlite.Options{})
	}
	require.NoError(t, err)
	p := projectiontest.Process{}
	p.DB.Read = store.ReadDB()
	rows := p.Dump(t, "user_api_projections")
	require.NoError(t, store.Close())
	return rows
}
