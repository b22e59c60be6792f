package main

import (
	"fmt"
	"slices"
	"time"
)

// unit is what a row counts.
type unit string

const (
	unitBytes unit = "MB/s" // shown in units of 10^6 bytes
	unitFiles unit = "files/s"
	unitReads unit = "reads/s"
	unitCPU   unit = "cores"
)

// sample is one measured half of a ratio: so much work in so much time.
type sample struct {
	work float64 // bytes, files, reads, or seconds of a processor
	took time.Duration
}

func (s sample) rate() float64 { return s.work / s.took.Seconds() }

// goal says what a row's value is, computed from one pair of samples, and
// which side of the bound is good.
type goal struct {
	kind  goalKind
	bound float64
}

type goalKind int

const (
	atLeast   goalKind = iota // our rate over the reference's
	timesMost                 // our time over the reference's
	withinMS                  // our time in milliseconds; no reference
	withinS                   // our time in seconds; no reference
	withinMiB                 // memory in MiB; no reference
	shareMost                 // our work alone; no reference
	withinCPU                 // percent of a core; no reference
)

func (g goal) value(ours, ref sample) float64 {
	switch g.kind {
	case atLeast:
		return ours.rate() / ref.rate()
	case timesMost:
		return ours.took.Seconds() / ref.took.Seconds()
	case withinMS:
		return ours.took.Seconds() * 1e3
	case withinS:
		return ours.took.Seconds()
	case shareMost:
		return ours.work
	case withinCPU:
		return 100 * ours.rate()
	default:
		return ours.work / (1 << 20)
	}
}

func (g goal) met(value float64) bool {
	if g.kind == atLeast {
		return value >= g.bound
	}
	return value <= g.bound
}

func (g goal) String() string {
	if g.kind == atLeast {
		return "≥ " + g.format(g.bound)
	}
	return "≤ " + g.format(g.bound)
}

// format prints a value of this goal's kind.
func (g goal) format(v float64) string {
	switch g.kind {
	case atLeast:
		return fmt.Sprintf("%.2f", v)
	case timesMost:
		return fmt.Sprintf("%.2f × time", v)
	case withinMS:
		return fmt.Sprintf("%.1f ms", v)
	case withinS:
		return fmt.Sprintf("%.1f s", v)
	case shareMost:
		return fmt.Sprintf("%.3f", v)
	case withinCPU:
		return fmt.Sprintf("%.2f %% of a core", v)
	default:
		return fmt.Sprintf("%.0f MiB", v)
	}
}

// row is one line of the table. Its functions end the row through the bench's
// Fatalf when something fails.
type row struct {
	name string
	unit unit
	goal goal
	// needs names what the row cannot be measured without; nil: nothing.
	needs func(*bench) error
	// prepare brings both halves to the state the row begins from; it runs once.
	prepare func(*bench)
	// ours and ref measure one half each; ref is nil where the goal is absolute.
	ours, ref func(*bench) sample
	// rounds is how often a run repeats each half, for halves that are short; 0
	// means once.
	rounds int
	// fills is set where a half fills page caches with new data.
	fills bool
	// oursFirst is set where the reference depends on what ours has left.
	oursFirst bool
	// note adds a word about the result; nil: nothing.
	note func(*bench) string
}

// result is a measured row.
type result struct {
	row    row
	ours   []sample
	ref    []sample // empty where the goal is absolute
	note   string
	lacks  error // what the row needs and this machine or binary lacks
	failed error // why the row was not measured to its end
}

// notMeasured is why there is no figure; nil: there is one.
func (r result) notMeasured() error {
	if r.lacks != nil {
		return r.lacks
	}
	return r.failed
}

func (r result) values() []float64 {
	values := make([]float64, len(r.ours))
	for i, s := range r.ours {
		var ref sample
		if i < len(r.ref) {
			ref = r.ref[i]
		}
		values[i] = r.row.goal.value(s, ref)
	}
	return values
}

// spread is the median, the least and the greatest of values; values must not
// be empty.
func spread(values []float64) (median, low, high float64) {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]
}

func rates(samples []sample) []float64 {
	r := make([]float64, len(samples))
	for i, s := range samples {
		r[i] = s.rate()
	}
	return r
}
