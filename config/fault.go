package config

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with the configuration.
type Fault struct {
	// Path is the setting's path in the file, such as keycloak.realms, or the name
	// that was met where a setting's name was expected.
	Path string
	// Source says where the value came from: a file and line, the name of an
	// environment variable or a flag. It is empty when nothing was given.
	Source string
	// Value is the offending value as given, empty for secrets and for faults that
	// are not about a value.
	Value string
	// Problem continues the sentence that Path begins.
	Problem string
	// Try is the next step.
	Try string
}

// String returns the fault as a block of lines, the first one the headline.
func (f Fault) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", f.Path, f.Problem)
	if f.Source != "" {
		fmt.Fprintf(&b, "\n  from: %s", f.Source)
	}
	if f.Value != "" {
		fmt.Fprintf(&b, "\n  value: %q", f.Value)
	}
	if f.Try != "" {
		fmt.Fprintf(&b, "\n  Try: %s", f.Try)
	}
	return b.String()
}

// Error holds every fault that [Load] found. A program that gets one prints it
// and ends with exit status 2.
type Error struct {
	Faults []Fault // at least one; file first, then environment, flags and rules
}

// Error prints one block for each fault.
func (e *Error) Error() string {
	blocks := make([]string, 0, 1+len(e.Faults))
	if len(e.Faults) == 1 {
		blocks = append(blocks, "configuration: 1 fault")
	} else {
		blocks = append(blocks, fmt.Sprintf("configuration: %d faults", len(e.Faults)))
	}
	for _, f := range e.Faults {
		blocks = append(blocks, f.String())
	}
	return strings.Join(blocks, "\n\n")
}

// problem is what a check of one value has to say.
type problem struct {
	says string // continues the sentence that the path begins
	try  string
}

// one is the answer of a check that ends with the first problem.
func one(p *problem) []problem {
	if p == nil {
		return nil
	}
	return []problem{*p}
}

// faultsOf makes a fault of each problem of a value.
func (l *loader) faultsOf(f Fault, all []problem) {
	for _, p := range all {
		f.Problem, f.Try = p.says, p.try
		l.fault(f)
	}
}

// closest returns the known name that name was most likely meant to be.
func closest(name string, known []string) (string, bool) {
	best, distance := "", 1+max(1, len(name)/3)
	for _, k := range known {
		d := editDistance(fold(name), fold(k))
		if d == 2 && swapped(fold(name), fold(k)) {
			d = 1
		}
		if d < distance {
			best, distance = k, d
		}
	}
	return best, best != ""
}

// swapped reports whether a and b are the same letters in another order.
func swapped(a, b string) bool {
	return slices.Equal(slices.Sorted(slices.Values([]byte(a))), slices.Sorted(slices.Values([]byte(b))))
}

// fold makes logFormat, log-format and LOG_FORMAT one name.
func fold(name string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
}

// editDistance is the Levenshtein distance in bytes; the known names are ASCII.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
