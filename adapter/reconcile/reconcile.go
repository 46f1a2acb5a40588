package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// Live reads users from Keycloak. Its errors are *keycloak.APIError for an answer
// that says no, *admin.DecodeError for one that cannot be read and
// *admin.TransportError for none.
type Live interface {
	// CountUsers counts what Users lists: service accounts are in neither.
	CountUsers(ctx context.Context, realm string) (int, error)
	// Users lists users by offset, ordered by user name, with their attributes.
	Users(ctx context.Context, realm string, first, max int) ([]keycloak.User, error)
	// User reads one user in full.
	User(ctx context.Context, realm, id string) (keycloak.User, error)
	Memberships
}

// Believed reads the users projection, origins included.
type Believed interface {
	// Users returns the users of these ids, deleted ones included; ids never heard of
	// are left out. It is asked for at most a page at a time.
	Users(ctx context.Context, realm string, ids []string) (map[string]adapter.User, error)
	// Each calls fn for every user of the realm, deleted ones included, in any order,
	// and stops at fn's first error.
	Each(ctx context.Context, realm string, fn func(adapter.User) error) error
}

// Calls tells whether keytrail itself is writing to a user.
type Calls interface {
	// Open returns the writes to a user that are under way or have an unknown outcome,
	// however old; with an empty user id those to users whose id is not known yet: their
	// creations, and commands that name them. Reads change nothing, and are left out.
	Open(ctx context.Context, realm, userID string) ([]adapter.Call, error)
}

// History tells what earlier runs found. LogHistory reads it from the event log.
type History interface {
	// Baselined reports whether the realm's users have been adopted as a whole: a run
	// was completed, or a baseline.
	Baselined(ctx context.Context, realm string) (bool, error)
	// OpenDrifts returns the findings that have appeared and not ended, by user id.
	OpenDrifts(ctx context.Context, realm string) (map[string]adapter.Finding, error)
	// Unfinished returns the runs of the realm that were started and never ended.
	Unfinished(ctx context.Context, realm string) ([]uuid.UUID, error)
	// OpenBaseline returns the realm's newest baseline if it was begun and not completed.
	OpenBaseline(ctx context.Context, realm string) (OpenBaseline, bool, error)
	// Adopted calls fn for every user of the realm whom one of the runs has adopted.
	Adopted(ctx context.Context, realm string, runs []uuid.UUID, fn func(userID string)) error
}

// OpenBaseline is a baseline that was begun and not completed.
type OpenBaseline struct {
	// RunID is the run that began it and StartedAt when; Runs are all that have worked on
	// it, that one included.
	RunID     uuid.UUID
	StartedAt time.Time
	Runs      []uuid.UUID
}

// Settler brings belief up to date.
type Settler interface {
	// CatchUp pulls what Keycloak has stored, and returns once the users projection
	// has reached the head of the log.
	CatchUp(ctx context.Context, realm string) error
}

// Log is the part of the event store that a run needs.
type Log interface {
	eventstore.Appender
	eventstore.Reader
}

// Defaults and limits of a Runner.
const (
	DefaultPageSize = 100
	MaxPageSize     = 500
	DefaultMaxReads = 1000
	// DefaultReadRate is how many targeted reads and requests for memberships are sent a
	// second, so that a run never competes with commands for Keycloak.
	DefaultReadRate rate.Limit = 10
	// DefaultMaxMemberships takes 128 MiB.
	DefaultMaxMemberships = 8 << 20
)

// Config of a Runner. All interfaces, Codec and Clock are required.
type Config struct {
	Store    Log
	Codec    *adapter.Codec
	Live     Live
	Believed Believed
	Calls    Calls
	History  History
	Settler  Settler
	// DuplicateEmails reports whether the realm permits that users share an e-mail
	// address (duplicateEmailsAllowed). Nil means that none does, Keycloak's default.
	DuplicateEmails func(ctx context.Context, realm string) (bool, error)
	Clock           func() time.Time
	// Logger defaults to a silent one.
	Logger *slog.Logger
	// Settle is the age below which a difference is not judged.
	Settle time.Duration
	// PageSize is how many users a page of the listing has, at most MaxPageSize.
	PageSize int
	// MaxReads bounds the users that one run judges, separately for those that differ
	// and those that are not listed; the others are left to the next run.
	MaxReads int
	// MaxMemberships bounds how many memberships a run holds, 16 bytes each. A field that
	// does not fit is not compared.
	MaxMemberships int
	// Reads limits the rate of targeted reads and of the requests for memberships; nil
	// means DefaultReadRate.
	Reads *rate.Limiter
}

// Runner runs reconciliations. It is safe for concurrent use.
type Runner struct {
	Config
}

// New checks the configuration and fills in defaults.
func New(c Config) (*Runner, error) {
	var missing []error
	need := func(ok bool, name string) {
		if !ok {
			missing = append(missing, fmt.Errorf("reconcile: %s is missing", name))
		}
	}
	need(c.Store != nil, "Store")
	need(c.Codec != nil, "Codec")
	need(c.Live != nil, "Live")
	need(c.Believed != nil, "Believed")
	need(c.Calls != nil, "Calls")
	need(c.History != nil, "History")
	need(c.Settler != nil, "Settler")
	need(c.Clock != nil, "Clock")
	need(c.Settle >= 0, "a settle time that is not negative")
	if err := errors.Join(missing...); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.PageSize <= 0 {
		c.PageSize = DefaultPageSize
	}
	c.PageSize = min(c.PageSize, MaxPageSize)
	if c.MaxReads <= 0 {
		c.MaxReads = DefaultMaxReads
	}
	if c.MaxMemberships <= 0 {
		c.MaxMemberships = DefaultMaxMemberships
	}
	if c.Reads == nil {
		c.Reads = rate.NewLimiter(DefaultReadRate, int(DefaultReadRate))
	}
	return &Runner{Config: c}, nil
}

// Request asks for a run.
type Request struct {
	Realm string
	// RunID is the run's id, a new one for uuid.Nil. With one that there is Run begins
	// nothing and returns an error.
	RunID uuid.UUID
	// Trigger is "schedule", "cli" or "http"; "baseline" is Baseline's own.
	Trigger string
	// Started, if not nil, is told of the run once its start is recorded.
	Started func(adapter.Reconciliation)
	// Progress, if not nil, is told after each page of a baseline how many users have
	// been adopted, and how many Keycloak counts: that may change meanwhile.
	Progress func(adopted, counted int)
}

// Verdict is a run's answer in one word.
type Verdict string

// Verdicts.
const (
	InSync     Verdict = "in_sync"
	Drift      Verdict = "drift"
	Incomplete Verdict = "incomplete"
)

// ExitCode is the verdict as the exit status of a command.
func (v Verdict) ExitCode() int {
	switch v {
	case InSync:
		return 0
	case Drift:
		return 1
	default:
		return 3
	}
}

// Result is what a run found.
type Result struct {
	adapter.Reconciliation
	Verdict Verdict `json:"verdict"`
	// Observed counts users of whom fields never seen were adopted.
	Observed int `json:"observed"`
	// Pending are the first differences that were counted as unsettled: too young, or
	// with a call under way (SituationInFlight).
	Pending []adapter.Finding `json:"pending"`
	// Unread counts suspects left to the next run because MaxReads was reached. They
	// are counted as unsettled too.
	Unread int `json:"unread"`
}

// source names the reconciler in metadata and derived ids.
const source = "reconcile"

// Run reconciles one realm and returns what it found. It acts on behalf of whoever
// stands in ctx (adapter.WithCall), or of keytrail itself.
//
// The error is nil for a completed run, drift or not. Otherwise it is an
// *adapter.Error with the next step, and the Result is still true: the status is
// invalid where Keycloak's listing cannot be trusted, aborted where the run was
// cancelled or keytrail itself could not go on. Codes: keycloak_unreachable,
// keycloak_unavailable, keycloak_unauthorized, keycloak_forbidden,
// keycloak_not_found, listing_empty, listing_incomplete, projection_behind,
// run_in_progress, interrupted, store_unavailable, internal, and invalid_request
// for a request without realm.
func (r *Runner) Run(ctx context.Context, req Request) (Result, error) {
	if req.Trigger == adapter.TriggerBaseline {
		return r.Baseline(ctx, req)
	}
	return r.execute(ctx, req, (*run).reconcile)
}

// execute makes a run of what work does.
func (r *Runner) execute(ctx context.Context, req Request, work func(*run, context.Context) error) (Result, error) {
	if req.Realm == "" {
		return Result{Verdict: Incomplete}, adapter.Errorf(adapter.CodeInvalidRequest, "a reconciliation needs a realm")
	}
	call, ok := adapter.CallFrom(ctx)
	if !ok {
		call = adapter.CallContext{Actor: adapter.System(source)}
	}
	if call.CorrelationID == uuid.Nil {
		call.CorrelationID = eventstore.NewID()
	}
	if call.Source == "" {
		call.Source = source
	}
	n := &run{
		Runner: r, req: req,
		id: cmp.Or(req.RunID, eventstore.NewID()), realm: req.Realm, call: call,
		log:     r.Logger.With("realm", req.Realm),
		digests: newDigests(), memberships: newMemberships(), touched: map[string]struct{}{},
		differing: queue{limit: r.MaxReads}, unlisted: queue{limit: r.MaxReads},
		judged: map[string]struct{}{},
	}
	n.log = n.log.With("run_id", n.id)

	if err := n.start(ctx); err != nil {
		why := n.stopped(ctx, "starting a run of realm "+req.Realm, err)
		if len(n.unsure) == 0 {
			return n.result(), why.err // there is no run
		}
		return n.abort(ctx, why)
	}
	if err := work(n, ctx); err != nil {
		return n.abort(ctx, n.stopped(ctx, "reconciling realm "+req.Realm, err))
	}
	return n.result(), nil
}

// run is the state of one run. It is used by one goroutine.
type run struct {
	*Runner
	req   Request
	id    uuid.UUID
	realm string
	call  adapter.CallContext
	log   *slog.Logger

	// Written by record.go.
	started   eventstore.Event
	state     adapter.Reconciliation
	drafts    []adapter.Draft
	unsure    []eventstore.NewEvent
	adoptions []adoption

	baseline bool
	// origin is the baseline that the run makes or goes on with, if it is one.
	origin OpenBaseline
	open   map[string]adapter.Finding

	digests     *digests
	memberships *memberships
	// differing are listed users to be judged, unlisted those that no page held.
	differing, unlisted queue
	// touched are the users with an open drift that the run has dealt with.
	touched map[string]struct{}
	judged  map[string]struct{}
	ended   []string

	// compared are users whose live and believed state were put side by side; each is
	// in sync, among the findings, unsettled, or did not fit into differing.
	compared, unsettled, baselined, observed int
	// adoptedBefore are users whom the same baseline has adopted before this run.
	adoptedBefore int
	// adopted are those users, by digest.
	adopted           map[uint64]struct{}
	findings, pending []adapter.Finding
}

func (n *run) start(ctx context.Context) error {
	unfinished, err := n.History.Unfinished(ctx, n.realm)
	if err != nil {
		return fmt.Errorf("looking for unfinished runs: %w", err)
	}
	for _, id := range unfinished {
		if err := n.endInterrupted(ctx, id); err != nil {
			return err
		}
	}
	baselined, err := n.History.Baselined(ctx, n.realm)
	if err != nil {
		return fmt.Errorf("looking for an earlier run: %w", err)
	}
	n.baseline = !baselined || n.req.Trigger == adapter.TriggerBaseline
	resumes, err := n.resume(ctx)
	if err != nil {
		return err
	}
	if n.open, err = n.History.OpenDrifts(ctx, n.realm); err != nil {
		return fmt.Errorf("reading the open drifts: %w", err)
	}
	err = n.record(ctx, &adapter.ReconciliationStarted{
		RunID: n.id, Realm: n.realm, Trigger: n.req.Trigger, Settle: n.Settle.Seconds(), Baseline: n.baseline, Resumes: resumes,
	})
	if err != nil {
		return err
	}
	if n.origin.RunID == n.id {
		n.origin.StartedAt = n.state.StartedAt
	}
	n.log.InfoContext(ctx, "reconciliation started", "trigger", n.req.Trigger, "baseline", n.baseline)
	if n.req.Started != nil {
		n.req.Started(n.result().Reconciliation)
	}
	return nil
}

func (n *run) reconcile(ctx context.Context) error {
	if err := n.Settler.CatchUp(ctx, n.realm); err != nil {
		return n.behind(ctx, err)
	}
	if err := n.list(ctx); err != nil {
		return err
	}
	if err := n.judgeDuplicates(ctx); err != nil {
		return err
	}
	if err := n.judgeQueue(ctx, &n.differing); err != nil {
		return err
	}
	if err := n.queueUnlisted(ctx); err != nil {
		return err
	}
	if err := n.judgeQueue(ctx, &n.unlisted); err != nil {
		return err
	}
	for _, id := range n.ended {
		if err := n.end(ctx, id); err != nil {
			return err
		}
	}
	return n.complete(ctx)
}

// queue holds the ids of suspects, up to a limit.
type queue struct {
	ids   []string
	limit int
	// left counts those that did not fit.
	left int
}

func (q *queue) add(id string) bool {
	if len(q.ids) == q.limit {
		q.left++
		return false
	}
	q.ids = append(q.ids, id)
	return true
}
