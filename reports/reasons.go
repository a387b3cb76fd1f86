package reports

import (
	"fmt"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// Reason is one flag as it applies to a report: which backends carry it, in how
// many of their runs.
type Reason struct {
	Flag
	// Severity is the flag's own, or a warning where a flag that invalidates is
	// carried by controls alone, or by a minority of every backend's runs: the
	// median is then not one of them.
	Severity Severity
	// Where says who is concerned: "bbolt in 2 of 20 runs"; empty for the whole
	// suite. Of the flag machine it says what was found.
	Where string
	// Backends that carry the flag; empty for the whole suite.
	Backends []string
	// Spoiled are the engines that nothing can be said about because of the
	// flag. Empty where the severity is Warns, and where all are concerned.
	Spoiled []string
}

// floorDrift is the change of the device floor that is worth a flag.
const floorDrift = 0.10

// fakeDiskNanos is the median of a synced raw write under which a device is
// taken not to persist.
const fakeDiskNanos = 10_000

// reasons gathers everything that speaks against the runs of a scenario: the
// flags that they carry and what can be seen in the result as a whole. Those
// that invalidate come first.
func (sc *scenario) reasons() []Reason {
	var out []Reason
	names := sc.flagNames()
	for _, f := range Flags {
		if i := slices.Index(names, f.Name); i >= 0 {
			names = slices.Delete(names, i, i+1)
			out = append(out, sc.reason(f))
		}
	}
	for _, name := range names { // unknown ones
		out = append(out, sc.reason(FlagByName(name)))
	}
	slices.SortStableFunc(out, func(a, b Reason) int { return int(b.Severity) - int(a.Severity) })
	return out
}

// flagNames are the flags of the runs and of the suite, each once.
func (sc *scenario) flagNames() []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range sc.suiteFlags() {
		add(name)
	}
	for _, rw := range sc.rows {
		for _, r := range rw.judged() {
			for _, name := range runFlags(r) {
				add(name)
			}
		}
		if _, bad := rw.cuts(); bad > 0 {
			add("powercut_lost")
		}
	}
	return names
}

// runFlags are the flags that a run carries, and those that its figures imply.
func runFlags(r *result.Run) []string {
	flags := slices.Clone(r.Flags)
	imply := func(name string, seen bool) {
		if seen && !slices.Contains(flags, name) {
			flags = append(flags, name)
		}
	}
	imply("run_failed", r.Error != "")
	imply("lost", lostData(r))
	imply("not_verified", r.Verified == nil && r.Error == "" && r.Durability != "none")
	imply("errors", r.Errors > 0 && r.Faults == nil)
	return flags
}

// suiteFlags are what the result as a whole shows.
func (sc *scenario) suiteFlags() []string {
	var out []string
	floor, drift := sc.site.floor()
	for _, r := range sc.site.results {
		if r.Interrupted && !slices.Contains(out, "interrupted") {
			out = append(out, "interrupted")
		}
	}
	if sc.site.env.Dirty {
		out = append(out, "dirty_build")
	}
	if len(sc.machineWarnings()) > 0 {
		out = append(out, "machine")
	}
	if sc.site.env.FileSystem == "tmpfs" {
		out = append(out, "tmpfs")
	}
	if sc.site.env.FileSystem == "overlay" {
		out = append(out, "overlay")
	}
	if n := sc.repeats(); n < enoughRepeats {
		out = append(out, "few_repeats")
	}
	switch {
	case floor == 0:
		out = append(out, "floor_missing")
	case floor < fakeDiskNanos:
		out = append(out, "fake_disk")
	}
	if drift > floorDrift {
		out = append(out, "floor_drift")
	}
	return out
}

// suiteWide are the flags that say the same of every run, so that naming the
// backends would add nothing.
var suiteWide = []string{"interrupted", "tmpfs", "overlay", "fake_disk", "few_repeats", "floor_missing", "floor_drift", "dirty_build", "steal", "pressure"}

// flaggedWarnings begin the warnings of an environment that have flags of their own.
var flaggedWarnings = []string{"the data is on tmpfs", "the data is on an overlay", "this build has changes"}

// machineWarnings are what was found on the machine before the first run.
func (sc *scenario) machineWarnings() []string {
	var out []string
	for _, w := range sc.site.env.Warnings {
		if !slices.ContainsFunc(flaggedWarnings, func(s string) bool { return strings.HasPrefix(w, s) }) {
			out = append(out, clean(w))
		}
	}
	return out
}

func (sc *scenario) reason(f Flag) Reason {
	out := Reason{Flag: f, Severity: f.Severity}
	if f.Name == "machine" {
		out.Where = strings.Join(sc.machineWarnings(), "; ")
		return out
	}
	if slices.Contains(suiteWide, f.Name) {
		return out
	}
	var always, where []string
	engines, spoiled := 0, []string{}
	for _, rw := range sc.ranked() {
		n, all := rw.carries(f.Name)
		if rw.control == "" {
			engines++
		}
		if n == 0 {
			continue
		}
		if rw.control == "" && (2*n >= all || f.Name == "lost") {
			spoiled = append(spoiled, rw.label)
		}
		out.Backends = append(out.Backends, rw.label)
		if n == all {
			always = append(always, rw.label)
		} else {
			where = append(where, fmt.Sprintf("%s in %d of %s", rw.label, n, plural(all, "run")))
		}
	}
	switch {
	case len(always) == len(sc.rows):
		out.Where = "every run"
	case len(where) == 0:
		out.Where = list(always)
	case len(always) == 0:
		out.Where = list(where)
	default: // "a, b and c in 1 of 3 runs" would be read as if all were
		out.Where = list(always) + " in every run; " + list(where)
	}
	switch {
	case f.Severity != Invalidates:
	case len(spoiled) == 0:
		out.Severity = Warns
	case len(spoiled) < engines:
		out.Spoiled = spoiled
	}
	return out
}

// judged are the runs of a row whose flags count. Of a search these are the ones
// that confirmed the rate, of a curve those that reached the rate that was offered:
// the others are there to go too far.
func (rw *row) judged() []*result.Run {
	sc := rw.scenario
	runs := slices.DeleteFunc(slices.Clone(rw.runs), func(r *result.Run) bool {
		tooFar := sc.search && r.Load.Point != confirmedPoint || sc.curve && r.Throughput < reachedShare*r.Load.Rate
		return tooFar && !lostData(r)
	})
	return slices.Concat(runs, rw.failed)
}

// lostData reports whether reading a run back found something lost or changed.
func lostData(r *result.Run) bool {
	return r.Verified != nil && (!r.Verified.OK || r.Verified.Lost > 0 || r.Verified.Wrong > 0)
}

// carries counts the runs of a row that carry a flag, and all of them.
func (rw *row) carries(name string) (n, all int) {
	runs := rw.judged()
	if _, bad := rw.cuts(); name == "powercut_lost" && bad > 0 {
		return len(runs), len(runs)
	}
	for _, r := range runs {
		if slices.Contains(runFlags(r), name) {
			n++
		}
	}
	return n, len(runs)
}

// floorKind is the calibration that everything is measured against.
const floorKind = "overwrite+fdatasync"

// floorRows are the calibrations of the raw disk's synced write at its smallest
// size, in the order in which they were made.
func (s *site) floorRows() []result.Calibration {
	var rows []result.Calibration
	for _, r := range s.results {
		for _, c := range r.Calibration {
			if c.Kind != floorKind || c.P50 <= 0 {
				continue
			}
			if len(rows) > 0 && c.Bytes < rows[0].Bytes {
				rows = nil
			}
			if len(rows) == 0 || c.Bytes == rows[0].Bytes {
				rows = append(rows, c)
			}
		}
	}
	return rows
}

// floor is the median of the raw disk's synced write in nanoseconds, and how far
// its medians lie apart, as a share of it. 0 where it was not measured.
func (s *site) floor() (median, drift float64) {
	var values []float64
	for _, c := range s.floorRows() {
		values = append(values, float64(c.P50))
	}
	if len(values) == 0 {
		return 0, 0
	}
	median = stats.Median(values)
	return median, (slices.Max(values) - slices.Min(values)) / median
}
