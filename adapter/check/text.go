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
	fmt.Fprintf(&b, "Realm %s: %s.\n\n", report.Realm, headline(report))
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

// headline says how a realm stands as a whole. It claims nothing of what was not proved.
func headline(report Report) string {
	missing := report.count(Missing)
	text := fmt.Sprintf("%d things are missing", missing)
	switch missing {
	case 0:
		text = "nothing is missing"
	case 1:
		text = "1 thing is missing"
	}
	var open []string
	for _, i := range report.Items {
		if i.Status == Unknown || i.Status == NotTried {
			open = append(open, i.Name)
		}
	}
	switch {
	case len(open) == 0:
		return text
	case missing == 0:
		return "not proved: " + strings.Join(open, ", ") + ". Everything else is there"
	}
	return fmt.Sprintf("%s, and %d not proved", text, len(open))
}
