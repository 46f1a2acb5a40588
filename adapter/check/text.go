package check

import (
	"fmt"
	"io"
	"strings"
)

var statusWords = map[Status]string{OK: "ok", Missing: "MISSING", Unknown: "unknown", NotTried: "not tried"}

// WriteText writes a report for a person: each thing with how it stands and, where it
// is missing, what that costs and what to do.
func WriteText(w io.Writer, report Report) error {
	var b strings.Builder
	missing := 0
	for _, i := range report.Items {
		if i.Status == Missing {
			missing++
		}
	}
	switch missing {
	case 0:
		fmt.Fprintf(&b, "Realm %s: nothing is missing.\n\n", report.Realm)
	case 1:
		fmt.Fprintf(&b, "Realm %s: 1 thing is missing.\n\n", report.Realm)
	default:
		fmt.Fprintf(&b, "Realm %s: %d things are missing.\n\n", report.Realm, missing)
	}
	for _, i := range report.Items {
		line := fmt.Sprintf("  %-9s  %s", statusWords[i.Status], i.Name)
		if i.Detail != "" {
			line += ": " + i.Detail
		}
		b.WriteString(line + "\n")
		if i.Cost != "" {
			fmt.Fprintf(&b, "             costs: %s\n", i.Cost)
		}
		if i.Next != "" {
			fmt.Fprintf(&b, "             next:  %s\n", i.Next)
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the check: %w", err)
	}
	return nil
}
