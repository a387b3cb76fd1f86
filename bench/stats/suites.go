package stats

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
)

// Side is one of two suites, with the name that it has in the table.
type Side struct {
	Label string
	Runs  []result.Run
}

// CompareSuites compares each backend with itself in another suite: the ratio of
// the medians after ÷ before, per metric and per [Config]. The suites share no block,
// so nothing divides out what changed in the machine between them. Baseline and
// Backend of a comparison are "backend@label".
//
// N is the smaller number of runs (of blocks, where they hold laps); with fewer than [MinBlocks] on a side nothing
// is decided. Mann-Whitney is the only test here, with the same bound of 2.5 % as
// where there are two, so that a table reads the same everywhere.
func CompareSuites(before, after Side, opts Options) ([]result.Comparison, error) {
	opts, chosen, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	beforeGroups, afterGroups := groupRuns(before.Runs, byBackend), groupRuns(after.Runs, byBackend)
	var table []result.Comparison
	shared := 0
	for _, og := range beforeGroups {
		ng := findGroup(afterGroups, og.config)
		if ng == nil {
			continue
		}
		shared++
		for _, base := range og.backends {
			other := ng.find(base.name)
			if other == nil || other.durability != base.durability {
				continue
			}
			for _, m := range chosen {
				if c, ok := compareUnpaired(m, base, other, opts, og.config); ok {
					c.Baseline, c.Backend = base.name+"@"+before.Label, other.name+"@"+after.Label
					c.Config = og.config
					table = append(table, c)
				}
			}
		}
	}
	if shared == 0 {
		return nil, fmt.Errorf("%s and %s have no configuration in common%s", before.Label, after.Label, nearest(beforeGroups, afterGroups))
	}
	judge(table, opts.Noise)
	if shared == 1 {
		clearConfig(table)
	}
	return table, nil
}

// nearest says in what the two most similar configurations of two suites differ.
func nearest(before, after []*group) string {
	text, fewest := "", 0
	for _, a := range before {
		for _, b := range after {
			x, y := configParts(a.backends[0].runs[0]), configParts(b.backends[0].runs[0])
			in := func(parts []string) func(string) bool {
				return func(p string) bool { return slices.Contains(parts, p) }
			}
			only, other := slices.DeleteFunc(slices.Clone(x), in(y)), slices.DeleteFunc(slices.Clone(y), in(x))
			if n := len(only) + len(other); text == "" || n < fewest {
				text, fewest = fmt.Sprintf("; the nearest differ in %v against %v", only, other), n
			}
		}
	}
	return text
}

func findGroup(groups []*group, config string) *group {
	for _, g := range groups {
		if g.config == config {
			return g
		}
	}
	return nil
}

func (s *series) values(m Metric) []float64 {
	return Replicates(s.runs, func(r *result.Run) (float64, bool) {
		v, _ := m.Get(r)
		return v, m.Solid(r) && v > 0
	})
}

func compareUnpaired(m Metric, base, other *series, opts Options, config string) (result.Comparison, bool) {
	a, b := base.values(m), other.values(m)
	if len(a) == 0 || len(b) == 0 {
		return result.Comparison{}, false
	}
	c := result.Comparison{
		Metric: m.JSON, N: min(len(a), len(b)),
		BaselineMedian: Median(a), BackendMedian: Median(b),
	}
	c.Ratio = c.BackendMedian / c.BaselineMedian
	if c.N < MinBlocks || base.stood() || other.stood() {
		return c, true
	}
	x, y := make([]float64, len(a)), make([]float64, len(b))
	rng := opts.rng(m.JSON, "suites", base.name, config)
	c.Lo, c.Hi = bootstrap(rng, opts.rounds, func(rng *rand.Rand) float64 {
		return medianInPlace(resample(rng, b, y)) / medianInPlace(resample(rng, a, x))
	})
	c.P = mannWhitney(a, b)
	return c, true
}
