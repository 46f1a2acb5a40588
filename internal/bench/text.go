package bench

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s on %s: %d CPUs, %s, %s\n", r.Bench, r.Store, r.Machine.CPUs, r.Machine.Go, r.Machine.DB)
	switch {
	case r.Noisy == nil && r.NoisyUnknown != "":
		fmt.Fprintf(w, "Whether others disturbed it is not known: %s.\n", r.NoisyUnknown)
	case r.Noisy == nil:
	case *r.Noisy:
		fmt.Fprintf(w, "Noisy: others used %.0f %% of a core. Do not judge by this run.\n", 100**r.OthersCores)
	default:
		fmt.Fprintf(w, "Others used %.0f %% of a core.\n", 100**r.OthersCores)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CASE\tWRITERS\tPER S\tP50 MS\tP99 MS\tLIMIT PER S\tRATIO\t[MIN–MAX]\tTARGET\t\tPEAK MIB\tLIMIT")
	for _, c := range r.Results {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%.2f\t[%.2f–%.2f]\t%s\t%s\t%.0f\t%s\n",
			c.Case, c.Writers, count(c.PerS), milliseconds(c.P50ms), milliseconds(c.P99ms), count(c.LimitPerS),
			c.Ratio, c.RatioMin, c.RatioMax, c.Target, verdict(c.Reached), c.PeakRSSMiB, c.Limit)
	}
	return t.Flush()
}

// String is the target for people.
func (t *Target) String() string {
	switch {
	case t == nil:
		return "-"
	case t.AtMost > 0:
		return "≤ " + strconv.FormatFloat(t.AtMost, 'f', -1, 64)
	default:
		return "≥ " + strconv.FormatFloat(t.AtLeast, 'f', -1, 64)
	}
}

func verdict(reached *bool) string {
	switch {
	case reached == nil:
		return ""
	case *reached:
		return "reached"
	default:
		return "missed"
	}
}

func milliseconds(v float64) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// count has commas between thousands.
func count(v float64) string {
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
