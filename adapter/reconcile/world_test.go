package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const realm = "acme"

// world is a Keycloak, an event log and a projection that follows it.
type world struct {
	t          testing.TB
	store      eventstore.Store
	codec      *adapter.Codec
	clock      *clock
	keycloak   *fakeKeycloak
	projection *projection
	calls      openCalls
	runner     *Runner
}

func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	w := &world{
		t: t, store: store, codec: adapter.NewCodec(seal.Plain{}),
		clock:    &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)},
		keycloak: newFakeKeycloak(),
		calls:    openCalls{},
	}
	w.projection = &projection{store: store, codec: w.codec, users: map[string]adapter.User{}}
	c := Config{
		Store: store, Codec: w.codec, Live: w.keycloak, Believed: w.projection, Calls: w.calls,
		History: LogHistory{Log: store, Codec: w.codec}, Settler: w.projection, Clock: w.clock.Now,
		Settle: time.Minute, PageSize: 3, Reads: rate.NewLimiter(rate.Inf, 1),
	}
	for _, f := range change {
		f(&c)
	}
	w.runner, err = New(c)
	require.NoError(t, err)
	return w
}

// run runs and expects a completed run.
func (w *world) run() Result {
	w.t.Helper()
	res, err := w.runner.Run(w.t.Context(), Request{Realm: realm, Trigger: "cli"})
	require.NoError(w.t, err)
	require.Equal(w.t, adapter.RunCompleted, res.Status)
	if res.Unread == 0 {
		require.Equal(w.t, res.Compared, res.InSync+res.FindingsTotal+res.Unsettled, "each user counts once")
	}
	return res
}

// fail runs and expects a run without a judgement.
func (w *world) fail(ctx context.Context) (Result, *adapter.Error) {
	w.t.Helper()
	res, err := w.runner.Run(ctx, Request{Realm: realm, Trigger: "cli"})
	var e *adapter.Error
	require.ErrorAs(w.t, err, &e)
	require.Equal(w.t, Incomplete, res.Verdict)
	require.Empty(w.t, res.Findings)
	return res, e
}

// baselined lets a first run adopt the users, and an hour pass.
func (w *world) baselined(users ...keycloak.User) {
	w.t.Helper()
	w.keycloak.put(users...)
	res := w.run()
	require.True(w.t, res.Baseline)
	require.Equal(w.t, len(users), res.Baselined)
	w.clock.advance(time.Hour)
}

// happened appends an event to a user's stream, as if a delivery had brought it.
func (w *world) happened(at time.Time, p adapter.UserPayload) eventstore.Event {
	w.t.Helper()
	actor := adapter.KeycloakActor("7", "alice", "admin-cli", "127.0.0.1")
	e, err := w.codec.Encode(w.t.Context(), adapter.Draft{
		Payload: p, OccurredAt: at, Meta: adapter.Metadata{CorrelationID: eventstore.NewID(), Actor: &actor},
	})
	require.NoError(w.t, err)
	recorded, err := w.store.Append(w.t.Context(), eventstore.StreamAppend{
		Stream: adapter.UserStream(p.User().Realm, p.User().UserID), Events: []eventstore.NewEvent{e},
	})
	require.NoError(w.t, err)
	return recorded[0]
}

// log returns the payloads of a type that were recorded, oldest first.
func recordedAs[P adapter.Payload](w *world) []P {
	w.t.Helper()
	var out []P
	for e, err := range w.store.ReadLog(w.t.Context(), eventstore.LogQuery{}) {
		require.NoError(w.t, err)
		d, err := w.codec.Decode(w.t.Context(), e)
		require.NoError(w.t, err)
		if p, ok := d.Payload.(P); ok {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) phases(userID string) []adapter.DriftPhase {
	var out []adapter.DriftPhase
	for _, p := range recordedAs[*adapter.DriftDetected](w) {
		if p.UserID == userID {
			out = append(out, p.Phase)
		}
	}
	return out
}

func ref(id string) adapter.UserRef { return adapter.UserRef{Realm: realm, UserID: id} }

// person is a full representation, created long ago.
func person(id, name string) keycloak.User {
	yes, created := true, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli()
	email := name + "@example.org"
	return keycloak.User{
		ID: id, Username: name, Email: &email, FirstName: &name, Enabled: &yes, EmailVerified: &yes,
		RequiredActions: []string{}, CreatedTimestamp: &created,
	}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Millisecond)
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// openCalls has the users that a call is open on, and since when.
type openCalls map[string]time.Time

func (c openCalls) Open(_ context.Context, realm, userID string) ([]adapter.Call, error) {
	var calls []adapter.Call
	for id, at := range c {
		call := adapter.Call{CallID: callOf(id), Realm: realm, RequestedAt: at}
		switch name, named := strings.CutPrefix(id, "named:"); {
		case named && userID == "":
			call.Username = name
		case id == userID && !named:
			call.UserID = id
		default:
			continue
		}
		calls = append(calls, call)
	}
	return calls, nil
}

// callsFunc tells the calls on a user.
type callsFunc func(userID string) []adapter.Call

func (f callsFunc) Open(_ context.Context, _, userID string) ([]adapter.Call, error) {
	return f(userID), nil
}

// callOf is the id of the call on the user.
func callOf(id string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceOID, []byte(id)) }

// fakeKeycloak lists users by name, without service accounts, as Keycloak does.
type fakeKeycloak struct {
	mu    sync.Mutex
	users map[string]keycloak.User
	// broken are errors of reading one user.
	broken map[string]error
	// hidden are ids that a listing leaves out although they count.
	hidden func(id string) bool
	// listing and counting fail when set.
	listing, counting error
	// onPage runs before a page is read; onUser before a user is.
	onPage func(first int)
	onUser func(id string)
	// ignoreFirst always answers with the first page.
	ignoreFirst bool
	reads       []string
	// members are who has what.
	members fakeMembers
	pages   int
	largest int
}

func (k *fakeKeycloak) put(users ...keycloak.User) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range users {
		k.users[u.ID] = u
	}
}

func (k *fakeKeycloak) change(id string, f func(*keycloak.User)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	u := k.users[id]
	f(&u)
	k.users[id] = u
}

func (k *fakeKeycloak) remove(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.users, id)
}

func (k *fakeKeycloak) listed() []keycloak.User {
	var out []keycloak.User
	for _, u := range k.users {
		if !isServiceAccount(u) {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b keycloak.User) int {
		return cmp.Or(strings.Compare(a.Username, b.Username), strings.Compare(a.ID, b.ID))
	})
	return out
}

func (k *fakeKeycloak) CountUsers(ctx context.Context, _ string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := cmp.Or(ctx.Err(), k.counting); err != nil {
		return 0, err
	}
	return len(k.listed()), nil
}

func (k *fakeKeycloak) Users(ctx context.Context, _ string, first, max int) ([]keycloak.User, error) {
	if k.onPage != nil {
		k.onPage(first)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pages++
	if err := cmp.Or(ctx.Err(), k.listing); err != nil {
		return nil, err
	}
	users := slices.DeleteFunc(k.listed(), func(u keycloak.User) bool { return k.hidden != nil && k.hidden(u.ID) })
	if k.ignoreFirst {
		first = 0
	}
	first = min(first, len(users))
	page := users[first:min(first+max, len(users))]
	k.largest = len(page)
	return page, nil
}

func (k *fakeKeycloak) User(ctx context.Context, _, id string) (keycloak.User, error) {
	if k.onUser != nil {
		k.onUser(id)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads = append(k.reads, id)
	if err := cmp.Or(ctx.Err(), k.broken[id]); err != nil {
		return keycloak.User{}, err
	}
	u, ok := k.users[id]
	if !ok {
		return u, notFound("User not found")
	}
	return u, nil
}

func newFakeKeycloak() *fakeKeycloak {
	return &fakeKeycloak{
		users: map[string]keycloak.User{}, broken: map[string]error{}, members: newFakeMembers(),
	}
}

func notFound(message string) error {
	return &keycloak.APIError{Status: http.StatusNotFound, Kind: keycloak.KindNotFound, Message: message}
}

// projection follows the log when it is told to catch up, and not before.
type projection struct {
	store eventstore.Store
	codec *adapter.Codec
	after eventstore.Position
	users map[string]adapter.User
	// fail and caughtUp intervene in catching up.
	fail     error
	caughtUp func()
}

func (p *projection) CatchUp(ctx context.Context, _ string) error {
	if p.fail != nil {
		return p.fail
	}
	for e, err := range p.store.ReadLog(ctx, eventstore.LogQuery{After: p.after}) {
		if err != nil {
			return err
		}
		p.after = e.Position
		if e.Stream.Category() != adapter.CategoryUser {
			continue
		}
		_, id, err := adapter.UserOfStream(e.Stream)
		if err != nil {
			return err
		}
		u := p.users[id]
		if !u.Follows(e) {
			return fmt.Errorf("event %s of user %s is out of order", e.ID, id)
		}
		d, err := p.codec.Decode(ctx, e)
		if err != nil {
			return err
		}
		u.Apply(d)
		p.users[id] = u
	}
	if p.caughtUp != nil {
		p.caughtUp()
	}
	return nil
}

func (p *projection) Users(ctx context.Context, realm string, ids []string) (map[string]adapter.User, error) {
	out := map[string]adapter.User{}
	for _, id := range ids {
		if u, ok := p.users[id]; ok && u.Realm == realm {
			out[id] = u
		}
	}
	return out, ctx.Err()
}

func (p *projection) Each(ctx context.Context, realm string, fn func(adapter.User) error) error {
	for _, u := range p.users {
		if u.Realm != realm {
			continue
		}
		if err := cmp.Or(ctx.Err(), fn(u)); err != nil {
			return err
		}
	}
	return nil
}
