// Package bench measures keytrail against limits that are measured in the same run.
//
// An absolute figure says more about a machine's disk than about a program, so every
// result is a ratio: what keytrail does, over what the same database does with the same
// bytes when nothing but the bare work is asked of it. Case and limit alternate on the
// same database, so that what slows the machine down slows both.
//
// All work happens beside the user's data: in a schema of its own in the PostgreSQL
// database, or in a new file beside the SQLite store. Both are removed at the end, also
// after an interruption.
package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/config"
)

// Names of the benchmarks that can be run.
const (
	Append    = "append"
	Replay    = "replay"
	Subscribe = "subscribe"
	Rebuild   = "rebuild"
)

// planned are names of the outside contract that are still to come.
var planned = []string{"ingest", "outbound", "reconcile", "inspect"}

// Names are the benchmarks that can be run.
func Names() []string { return []string{Append, Replay, Subscribe, Rebuild} }

// Planned reports whether the contract has a benchmark of that name which is not built
// yet.
func Planned(name string) bool { return slices.Contains(planned, name) }

// Options say what to measure, and where.
type Options struct {
	// Name is one of Names.
	Name string
	// Store is the database to measure on; the zero value is a new SQLite file in the
	// folder for temporary files. Its own content is neither read nor touched.
	Store config.StoreURL
	// Quick bounds the run to less than 30 s; its figures are rougher.
	Quick bool
	// Size is the number of events in the log of replay, subscribe and rebuild, and of
	// the largest log of Growth. 0 is the default.
	Size int
	// Growth measures append and reading one stream on logs of growing size instead.
	// It goes with Append only.
	Growth bool
	// Progress, if not nil, hears of each step, in a few words.
	Progress func(step string)

	// scale shortens every slice, for tests.
	scale float64
	// observe, if not nil, hears of each slice that counts, for tests.
	observe func(round int, side string)
}

// UsageError says that the options make no sense.
type UsageError struct{ problem string }

func (e *UsageError) Error() string { return e.problem }

// Report is what a benchmark prints, as the outside contract has it.
type Report struct {
	Bench   string  `json:"bench"`
	Store   string  `json:"store"`
	Machine Machine `json:"machine"`
	// Noisy is true when others used more than 8 % of a core, nil where that cannot be
	// told; NoisyUnknown then says why.
	Noisy        *bool  `json:"noisy"`
	NoisyUnknown string `json:"noisy_unknown,omitempty"`
	// OthersCores is what others used, in cores.
	OthersCores *float64 `json:"others_cores,omitempty"`
	Quick       bool     `json:"quick,omitempty"`
	Results     []Result `json:"results"`
}

// Machine is what the figures depend on.
type Machine struct {
	CPUs int    `json:"cpus"`
	Go   string `json:"go"`
	DB   string `json:"db"`
}

// Result is one case beside one limit.
type Result struct {
	Case    string `json:"case"`
	Writers int    `json:"writers"`
	// PerS and LimitPerS are medians of the slices.
	PerS      float64 `json:"per_s"`
	Limit     string  `json:"limit"`
	LimitPerS float64 `json:"limit_per_s"`
	// Ratio is the median of the pairs' ratios, case over limit. It compares rates, or
	// 99th percentiles where LimitP99ms is not zero.
	Ratio    float64 `json:"ratio"`
	RatioMin float64 `json:"ratio_min"`
	RatioMax float64 `json:"ratio_max"`
	Pairs    int     `json:"pairs"`
	// P50ms and P99ms are of single operations of the case, 0 where there are none.
	P50ms      float64 `json:"p50_ms"`
	P99ms      float64 `json:"p99_ms"`
	LimitP99ms float64 `json:"limit_p99_ms,omitempty"`
	// PeakRSSMiB is the most memory that this process has used during a slice of the
	// case, 0 where the system does not tell.
	PeakRSSMiB float64 `json:"peak_rss_mib"`
	// Target is what Ratio has to reach, nil where it is printed and not judged.
	Target *Target `json:"target,omitempty"`
	// Reached is whether it does.
	Reached *bool `json:"reached,omitempty"`
}

// Target bounds a ratio. One of the two is set.
type Target struct {
	AtLeast float64 `json:"at_least,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
}

func atLeast(v float64) *Target { return &Target{AtLeast: v} }
func atMost(v float64) *Target  { return &Target{AtMost: v} }

func (t *Target) reached(ratio float64) bool {
	if t.AtMost > 0 {
		return ratio <= t.AtMost
	}
	return ratio >= t.AtLeast
}

// cleanupLimit bounds what is done after an interruption.
const cleanupLimit = 60 * time.Second

// Run runs one benchmark. It removes what it has made, also when ctx ends, whose error
// it then returns. Errors: *UsageError; eventstore.ErrUnavailable and other errors of
// the store, where that cannot be reached or does not let a schema be created.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &run{Options: o}
	if r.scale == 0 {
		r.scale = 1
	}
	if r.Progress == nil {
		r.Progress = func(string) {}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		for _, d := range slices.Backward(r.databases) {
			err = errors.Join(err, d.remove(ctx))
		}
	}()
	db, err := r.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	version, err := db.version(ctx)
	if err != nil {
		return nil, err
	}
	r.report = &Report{
		Bench: o.Name, Store: db.kind(), Quick: o.Quick,
		Machine: Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), DB: version},
	}
	r.noise = newNoise(ctx, db)
	measure := map[string]func(context.Context, database) error{
		Append: r.append, Replay: r.replay, Subscribe: r.subscribe, Rebuild: r.rebuild,
	}[o.Name]
	if o.Growth {
		measure = r.growth
	}
	if err := measure(ctx, db); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // whatever the databases made of it
		}
		return nil, err
	}
	r.report.Noisy, r.report.OthersCores, r.report.NoisyUnknown = r.noise.judge()
	return r.report, nil
}

func (o *Options) check() error {
	switch {
	case !slices.Contains(Names(), o.Name):
		return &UsageError{fmt.Sprintf("there is no benchmark %q\nTry: one of %s", o.Name, strings.Join(Names(), ", "))}
	case o.Growth && o.Name != Append:
		return &UsageError{"growth goes with append\nTry: keytrail bench append --growth"}
	case o.Size < 0:
		return &UsageError{"the size is a number of events"}
	case o.Size > 0 && o.Name == Append && !o.Growth:
		return &UsageError{"append begins with an empty log, so it takes no size\nTry: --growth, which measures it on logs of growing size"}
	case o.Size > 0 && o.Size < leastSize:
		return &UsageError{fmt.Sprintf("a log of %d events is too small to measure\nTry: --size %d or more", o.Size, leastSize)}
	}
	return nil
}

// leastSize is the smallest log that is read.
const leastSize = 1_000

// run is one benchmark under way.
type run struct {
	Options
	report    *Report
	noise     *noise
	databases []database
}

// newDatabase makes a new, empty database that goes away with the run.
func (r *run) newDatabase(ctx context.Context) (database, error) {
	db, err := newDatabase(ctx, r.Store)
	if err != nil {
		return nil, err
	}
	r.databases = append(r.databases, db)
	return db, db.migrate(ctx)
}

// size is the number of events in a log, and tells when that is filled for long enough:
// a quick run is to be quick on a slow machine too.
func (r *run) size(normal, quick int, atMost time.Duration) (size int, enough func() bool) {
	start := time.Now()
	switch {
	case r.Size > 0:
		return r.Size, func() bool { return false }
	case r.Quick:
		return quick, func() bool { return time.Since(start) > atMost }
	default:
		return normal, func() bool { return false }
	}
}

// slice is how long one side runs at a time.
func (r *run) slice() time.Duration {
	d := 2 * time.Second
	if r.Quick {
		d = 250 * time.Millisecond
	}
	return time.Duration(float64(d) * r.scale)
}

func (r *run) add(result Result) { r.report.Results = append(r.report.Results, result) }
