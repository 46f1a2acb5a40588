package bench

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
)

// rounds is how often case and limit alternate.
const rounds = 5

// slice is what one side did in one turn.
type slice struct {
	events int
	took   time.Duration
	// latencies are of single operations, where the side measures them.
	latencies []time.Duration
	peakRSS   float64
}

func (s slice) perS() float64 {
	if s.took <= 0 {
		return 0
	}
	return float64(s.events) / s.took.Seconds()
}

func (s slice) p99() float64 { return quantile(s.latencies, 0.99) }

// side is one of those that take turns.
type side struct {
	name string
	run  func(ctx context.Context) (slice, error)
}

// alternate lets the sides take turns, every second round in reverse, after one turn of
// each that does not count. It returns the slices of each side.
func (r *run) alternate(ctx context.Context, what string, sides ...side) ([][]slice, error) {
	turns := make([][]slice, len(sides))
	order := make([]int, len(sides))
	for i := range order {
		order[i] = i
	}
	r.Progress(what + ": warming up")
	for _, s := range sides {
		if _, err := s.run(ctx); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", what, s.name, err)
		}
	}
	stop := r.noise.watch()
	defer stop()
	for round := range rounds {
		r.Progress(fmt.Sprintf("%s: round %d of %d", what, round+1, rounds))
		for _, i := range order {
			// What one side has left to collect is not charged to the next.
			runtime.GC()
			resetPeakRSS()
			s, err := sides[i].run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", what, sides[i].name, err)
			}
			s.peakRSS = peakRSS()
			turns[i] = append(turns[i], s)
			if r.observe != nil {
				r.observe(round, sides[i].name)
			}
		}
		slices.Reverse(order)
	}
	return turns, nil
}

// compare makes the result of a case beside a limit out of their slices.
func compare(result Result, target *Target, cases, limits []slice, figure func(slice) float64) Result {
	var ratios []float64
	var latencies []time.Duration
	for i, c := range cases {
		if l := figure(limits[i]); l > 0 {
			ratios = append(ratios, figure(c)/l)
		}
		latencies = append(latencies, c.latencies...)
		result.PeakRSSMiB = max(result.PeakRSSMiB, round(c.peakRSS, 1))
	}
	result.PerS, result.LimitPerS = round(medianOf(cases, slice.perS), 1), round(medianOf(limits, slice.perS), 1)
	result.Pairs = len(ratios)
	if len(ratios) > 0 {
		result.Ratio, result.RatioMin, result.RatioMax = round(median(ratios), 3), round(slices.Min(ratios), 3), round(slices.Max(ratios), 3)
	}
	result.P50ms, result.P99ms = round(quantile(latencies, 0.50), 3), round(quantile(latencies, 0.99), 3)
	if target != nil {
		reached := len(ratios) > 0 && target.reached(median(ratios))
		result.Target, result.Reached = target, &reached
	}
	return result
}

func medianOf(of []slice, figure func(slice) float64) float64 {
	figures := make([]float64, len(of))
	for i, s := range of {
		figures[i] = figure(s)
	}
	return median(figures)
}

func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// quantile is in milliseconds; 0 where there is nothing.
func quantile(of []time.Duration, q float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(i, 0)]) / float64(time.Millisecond)
}

func round(v float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(v*p) / p
}
