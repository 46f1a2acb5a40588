package simulation_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
	_ "modernc.org/sqlite" // the read models' database

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/adapter/outbound"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/memory"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/keycloak/admin"
	"github.com/keytrail/keytrail/keycloak/keycloaktest"
	"github.com/keytrail/keytrail/keycloak/webhook"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/analytics"
	"github.com/keytrail/keytrail/projections/audit"
	"github.com/keytrail/keytrail/projections/calls"
	"github.com/keytrail/keytrail/projections/reconciliations"
	"github.com/keytrail/keytrail/projections/users"
)

// readModels is a SQLite file, whose transactions are never cut in two here: nobody is
// parked in one.
func readModels(path string) (projections.DB, error) {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"journal_mode(WAL)", "synchronous(OFF)", "busy_timeout(5000)"}}
	name := (&url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String()
	write, err := sql.Open("sqlite", name)
	if err != nil {
		return projections.DB{}, err
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", name)
	if err != nil {
		return projections.DB{}, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(4)
	read.SetMaxIdleConns(4)
	return projections.DB{Read: read, Write: write, Dialect: projections.SQLite}, nil
}

// template is a file of read models that is set up, to be copied for each run.
func template(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), "template.db")
	db, err := readModels(path)
	require.NoError(t, err)
	require.NoError(t, projections.Migrate(t.Context(), db))
	store := memory.NewDatabase().Open(memory.Options{})
	for _, e := range engines(db, store, nil, 0) {
		require.NoError(t, e.Setup(t.Context()))
	}
	require.NoError(t, store.Close())
	_, err = db.Write.ExecContext(t.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`)
	require.NoError(t, err)
	require.NoError(t, errors.Join(db.Read.Close(), db.Write.Close()))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}

// projected are the projections in the order of app's wiring. The first two are also
// read by what runs here, so that it makes a difference how far they are.
var projected = []string{"users", "calls", "reconciliations", "audit", "analytics"}

func isRead(projection string) bool { return projection == projected[0] || projection == projected[1] }

const interpreted = "interpret"

// engines are one for each projection and for the interpreter, because one engine would
// fold its projections in parallel.
func engines(db projections.DB, store eventstore.Store, consumer projections.Consumer, batch int) map[string]*projections.Engine {
	codec := adapter.NewCodec(seal.Plain{})
	all := make(map[string]*projections.Engine)
	for name, p := range map[string]projections.Projection{
		"users": users.New(store, codec), "calls": calls.New(), "reconciliations": reconciliations.New(),
		"audit": audit.New(store, codec), "analytics": analytics.New(),
	} {
		e := projections.New(db, store, codec, projections.Options{Clock: time.Now, BatchSize: batch})
		if err := e.Register(p); err != nil {
			panic(err)
		}
		all[name] = e
	}
	if consumer != nil {
		e := projections.New(db, store, codec, projections.Options{Clock: time.Now, BatchSize: batch})
		if err := e.RegisterConsumer(consumer); err != nil {
			panic(err)
		}
		all[interpreted] = e
	}
	return all
}

// durable is what outlives a process.
type durable struct {
	log    *memory.Database
	db     projections.DB
	marks  map[string]time.Time
	secret []byte
}

func newDurable(t *testing.T, template []byte) *durable {
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, os.WriteFile(path, template, fs.FileMode(0o600)))
	db, err := readModels(path)
	require.NoError(t, err)
	return &durable{log: memory.NewDatabase(), db: db, marks: make(map[string]time.Time), secret: []byte("secret of the store")}
}

func (d *durable) close() error { return errors.Join(d.db.Read.Close(), d.db.Write.Close()) }

// Watermark and SetWatermark keep how far was polled, as a lease's row does.
func (d *durable) Watermark(_ context.Context, name string) (time.Time, error) {
	return d.marks[name], nil
}

func (d *durable) SetWatermark(ctx context.Context, name string, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.marks[name] = at
	return nil
}

// process is one life of keytrail, wired as internal/app does it.
type process struct {
	w *world
	*durable
	ctx    context.Context //nolint:containedctx // the process's life
	cancel context.CancelFunc
	died   bool
	// calm is true once nothing goes wrong any more.
	calm bool

	store       *memory.Store
	codec       *adapter.Codec
	web         http.Handler
	poller      *inbound.Poller
	interpreter *interpret.Interpreter
	commands    *outbound.Commands
	client      *admin.Client
	engines     map[string]*projections.Engine
	users       *users.Queries
	calls       *calls.Queries
	reconciler  *reconcile.Runner
}

// dead reports whether the process has crashed.
func (p *process) dead() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.died
}

// die ends the process where it stands: nothing of it has an effect any more. Its
// context goes on until all have run out: it would wake them all at once.
func (p *process) die() {
	p.w.mu.Lock()
	p.died = true
	p.w.mu.Unlock()
	p.store.Crash()
}

// decide says what goes wrong with the store.
func (p *process) decide(ctx context.Context, op memory.Operation) memory.Fault {
	w, t := p.w, taskOf(ctx)
	if p.calm || t == nil || p.dead() {
		return memory.Fault{}
	}
	unavailable := fmt.Errorf("simulated: %w", eventstore.ErrUnavailable)
	if op.Name != memory.OpAppend {
		// Reads do not park: some are made under locks, which would be waited for for ever.
		if w.chance(3) {
			w.tell("%s: %s fails", t.name, op.Name)
			return memory.Fault{Err: unavailable}
		}
		return memory.Fault{}
	}
	what := op.Appends[0].Events[0].Type
	if op.Moment == memory.Before {
		w.park(t, "before append of "+what)
	} else {
		w.park(t, "after append of "+what)
	}
	if p.dead() {
		return memory.Fault{}
	}
	switch n := w.draw(1000); {
	case n < 25:
		w.tell("%s: append of %s is unavailable, recorded %t", t.name, what, op.Moment == memory.Recorded)
		return memory.Fault{Err: unavailable}
	case n < 30 && hasDeadline(ctx):
		// The answer never comes.
		w.tell("%s: append of %s hangs, recorded %t", t.name, what, op.Moment == memory.Recorded)
		<-ctx.Done()
		return memory.Fault{Err: ctx.Err()}
	case n < 40:
		w.tell("%s: the process dies at the append of %s, recorded %t", t.name, what, op.Moment == memory.Recorded)
		p.die()
		return memory.Fault{Err: memory.ErrCrashed}
	default:
		return memory.Fault{Silent: n < 100}
	}
}

func hasDeadline(ctx context.Context) bool {
	_, ok := ctx.Deadline()
	return ok
}

// start starts keytrail on what an earlier life has left. Where it is calm nothing goes
// wrong, and batches are as large as they come.
func (d *durable) start(w *world, calm bool) (*process, error) {
	p := &process{w: w, durable: d, codec: adapter.NewCodec(seal.Plain{}), calm: calm}
	batch := 3
	if calm {
		batch = 0 // the default
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	silent := slog.New(slog.DiscardHandler)
	p.store = d.log.Open(memory.Options{Clock: time.Now, Decide: p.decide})
	recorder := &inbound.Recorder{
		Store: p.store, Codec: p.codec, Clock: time.Now,
		RealmName: func(id string) string {
			if id == w.realm.ID() {
				return realmName
			}
			return ""
		},
	}
	p.users, p.calls = users.NewQueries(d.db), calls.NewQueries(d.db)
	p.interpreter = &interpret.Interpreter{Store: p.store, Codec: p.codec, Clock: time.Now, Logger: silent}
	p.engines = engines(d.db, p.store, p.interpreter, batch)
	p.commands = &outbound.Commands{
		Store: p.store, Codec: p.codec, Clock: time.Now, Logger: silent,
		Secret: func(context.Context) ([]byte, error) { return d.secret, nil },
	}
	var err error
	p.client, err = admin.New(admin.Config{
		BaseURL: w.server.URL(), AuthRealm: realmName, ClientID: clientID, ClientSecret: clientSecret,
		Transport: &outbound.Transport{Next: &wire{w: w, process: p}, Clock: time.Now},
		Clock:     time.Now, Logger: silent, RetryMax: 4, RetryWaitMin: 200 * time.Millisecond, RetryWaitMax: 5 * time.Second,
		Jitter: func() float64 { return float64(w.draw(1<<20)) / (1 << 20) },
	})
	if err != nil {
		return nil, err
	}
	p.commands.Keycloak = p.client
	p.poller = &inbound.Poller{Puller: p.client, Recorder: recorder, Watermarks: d, Logger: silent}
	p.reconciler, err = reconcile.New(reconcile.Config{
		Store: p.store, Codec: p.codec, Live: p.client, Believed: p.users, Calls: p.calls,
		History: reconcile.LogHistory{Log: p.store, Codec: p.codec}, Settler: settler{p},
		Clock: time.Now, Logger: silent, Settle: time.Minute,
	})
	if err != nil {
		return nil, err
	}
	p.web, err = httpapi.New(httpapi.Config{
		Sources: []inbound.Source{{
			Name: "keycloak", Dialect: webhook.DialectAuto, Algorithm: webhook.HMACSHA256, Secrets: []string{webhookSecret},
		}},
		Recorder: recorder, Clock: time.Now, Logger: silent, Store: p.store, Codec: p.codec,
		Retry: p.interpreter, Commands: p.commands, Metrics: http.NotFoundHandler(),
		Ready: func(context.Context) []httpapi.Check { return nil },
		// Only the webhooks are asked.
		Users: struct{ httpapi.UserReader }{}, Calls: struct{ httpapi.CallReader }{}, Audit: struct{ httpapi.AuditReader }{},
		Reconciliations: struct{ httpapi.ReconciliationReader }{}, Analytics: struct{ httpapi.AnalyticsReader }{},
		Projections: struct{ httpapi.Projections }{}, Traces: struct{ httpapi.Traces }{}, Failures: struct{ httpapi.Failures }{},
	})
	return p, err
}

// end releases what a process holds, dead or not. Its tasks have ended.
func (p *process) end() error {
	p.cancel()
	p.client.Close()
	return p.store.Close()
}

// settler brings belief up to date before a reconciliation, as app's does.
type settler struct{ p *process }

func (s settler) CatchUp(ctx context.Context, realm string) error {
	if _, err := s.p.poller.Poll(ctx, realm); err != nil && adapter.CodeOf(err) == adapter.CodeKeycloakUnreachable {
		return err
	}
	head, err := s.p.store.Head(ctx)
	if err != nil {
		return err
	}
	return s.p.catchUpAll(ctx, head)
}

// catchUpAll is Engine.CatchUp of all together: the consumer first.
func (p *process) catchUpAll(ctx context.Context, head eventstore.Position) error {
	if err := p.engines[interpreted].CatchUp(ctx, head); err != nil {
		return err
	}
	head, err := p.store.Head(ctx)
	if err != nil {
		return err
	}
	for _, name := range projected {
		if !isRead(name) {
			continue
		}
		if err := p.engines[name].CatchUp(ctx, head); err != nil {
			return err
		}
	}
	return nil
}

// The tasks. Each begins something that the wiring runs.

// deliver sends a push, as the sender does: it tries again where the answer is no 2xx,
// and forgets the event where the connection breaks.
func (p *process) deliver(d *push) {
	p.w.begin(p.ctx, "push of "+d.eventID, nil, func(ctx context.Context) error {
		if d.over {
			return errors.New("sent meanwhile")
		}
		req := httptest.NewRequest(http.MethodPost, "/webhooks/keycloak", newBody(d.body)).WithContext(ctx)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(keycloaktest.SignatureHeader, keycloaktest.Sign(webhookSecret, d.body))
		answer := httptest.NewRecorder()
		p.web.ServeHTTP(answer, req)
		switch {
		case p.dead():
			d.over = true
			return errors.New("the connection broke")
		case answer.Code == http.StatusAccepted:
			d.acknowledged = true
			d.over = !p.w.chance(150) // or sent once more
			return nil
		default:
			return fmt.Errorf("answered %d", answer.Code)
		}
	})
}

func (p *process) poll() {
	p.w.begin(p.ctx, "poll", []string{"poll"}, func(ctx context.Context) error {
		_, err := p.poller.Poll(ctx, realmName)
		return err
	})
}

// advance moves a projection or the interpreter along, by some events or up to the head.
func (p *process) advance(name string, events int) {
	p.w.begin(p.ctx, "catch-up of "+name, []string{name}, func(ctx context.Context) error {
		head, err := p.store.Head(ctx)
		if err != nil {
			return err
		}
		upTo := head
		if events > 0 {
			status, err := p.engines[name].Status(ctx)
			if err != nil {
				return err
			}
			upTo = min(head, status[0].Position+eventstore.Position(events))
		}
		return p.engines[name].CatchUp(ctx, upTo)
	})
}

// errTurn ends a loop after its first turn.
var errTurn = errors.New("the turn is over")

func once(err error) error {
	if errors.Is(err, errTurn) {
		return nil
	}
	return err
}

func (p *process) settle() {
	p.w.begin(p.ctx, "settler", []string{interpreted}, func(ctx context.Context) error {
		return once((&interpret.Settler{
			Interpreter: p.interpreter,
			Requested: func(ctx context.Context, limit int, cursor string) ([]adapter.Call, string, error) {
				return p.calls.List(ctx, calls.Filter{Statuses: []adapter.CallStatus{adapter.CallRequested}}, limit, cursor)
			},
			Woken: func(context.Context) error { return errTurn }, Logger: slog.New(slog.DiscardHandler),
		}).Run(ctx))
	})
}

func (p *process) observe() {
	p.w.begin(p.ctx, "observer", []string{"observe"}, func(ctx context.Context) error {
		return once((&interpret.Observer{
			Realms: []string{realmName}, Unread: p.users.Unread,
			Read: func(ctx context.Context, user adapter.UserRef, why adapter.Unread) error {
				ctx = adapter.WithCall(ctx, adapter.CallContext{
					Actor: adapter.System("observe"), Reason: why.Because, Source: "observe",
					CorrelationID: why.CorrelationID, CausationID: why.EventID,
				})
				if _, err := p.commands.ObserveUser(ctx, user, why.Because); err != nil {
					return err
				}
				head, err := p.store.Head(ctx)
				if err != nil {
					return err
				}
				return p.engines["users"].CatchUp(ctx, head)
			},
			Woken: func(context.Context) error { return errTurn },
			Limit: rate.NewLimiter(5, 1), Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
		}).Run(ctx))
	})
}

func (p *process) reconcile() {
	p.w.begin(p.ctx, "reconciliation", []string{"poll", interpreted, "reconcile"}, func(ctx context.Context) error {
		_, err := p.reconciler.Run(ctx, reconcile.Request{Realm: realmName, Trigger: "schedule"})
		return err
	})
}

// command begins one of ours.
func (p *process) command() {
	w, c := p.w, p.commands
	u, ok := w.somebody()
	if w.chance(100) {
		u, ok = member{ID: uuid.NewString(), Username: "nobody"}, true
	}
	ref := outbound.UserRef{ID: u.ID}
	if w.chance(200) {
		ref = outbound.UserRef{Username: u.Username}
	}
	role, _ := w.role()
	group := pick(w.scheduler, groupNames)
	word := w.word()
	type order struct {
		name string
		do   func(ctx context.Context) (outbound.Outcome, error)
	}
	create := order{"user.create", func(ctx context.Context) (outbound.Outcome, error) {
		return c.CreateUser(ctx, realmName, outbound.NewUser{Profile: adapter.Profile{
			Username: adapter.Set(w.newName()), Enabled: adapter.Set(true), FirstName: adapter.Set(word),
		}})
	}}
	orders := []order{
		create,
		{"user.enable", func(ctx context.Context) (outbound.Outcome, error) { return c.EnableUser(ctx, realmName, ref) }},
		{"user.disable", func(ctx context.Context) (outbound.Outcome, error) { return c.DisableUser(ctx, realmName, ref) }},
		{"user.update", func(ctx context.Context) (outbound.Outcome, error) {
			return c.UpdateUser(ctx, realmName, ref, adapter.Profile{LastName: adapter.Set(word)})
		}},
		{"user.update with attributes", func(ctx context.Context) (outbound.Outcome, error) {
			return c.UpdateUser(ctx, realmName, ref, adapter.Profile{Attributes: adapter.Set(map[string][]string{"team": {word}})})
		}},
		{"user.delete", func(ctx context.Context) (outbound.Outcome, error) { return c.DeleteUser(ctx, realmName, ref) }},
		{"user.role.add", func(ctx context.Context) (outbound.Outcome, error) {
			return c.AddRole(ctx, realmName, ref, outbound.RoleRef{Name: role})
		}},
		{"user.role.remove", func(ctx context.Context) (outbound.Outcome, error) {
			return c.RemoveRole(ctx, realmName, ref, outbound.RoleRef{Name: role})
		}},
		{"user.group.join", func(ctx context.Context) (outbound.Outcome, error) { return c.JoinGroup(ctx, realmName, ref, group) }},
		{"user.group.leave", func(ctx context.Context) (outbound.Outcome, error) { return c.LeaveGroup(ctx, realmName, ref, group) }},
		{"user.reset-password", func(ctx context.Context) (outbound.Outcome, error) {
			return c.ResetPassword(ctx, realmName, ref, "pw3", true)
		}},
		{"user.logout", func(ctx context.Context) (outbound.Outcome, error) { return c.LogoutUser(ctx, realmName, ref) }},
	}
	chosen := pick(w.scheduler, orders)
	if !ok {
		chosen = create
	}
	w.begin(p.ctx, chosen.name+" of "+u.Username, nil, func(ctx context.Context) error {
		call := new(uuid.UUID)
		ctx = context.WithValue(ctx, callKey{}, call)
		ctx = outbound.OnRequested(ctx, func(out outbound.Outcome) { *call = out.CallID })
		ctx = adapter.WithCall(ctx, adapter.CallContext{Actor: adapter.Actor{Type: adapter.ActorCLI, ID: "alice"}, Reason: "simulated", Source: "cli"})
		out, err := chosen.do(ctx)
		w.tell("call %s is %s", out.CallID, out.Status)
		return err
	})
}
