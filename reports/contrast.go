package reports

import (
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// noise is how far from 1 a ratio may lie and still be called equivalent.
const noise = stats.DefaultNoise

// minRepeats is the least number of blocks that can decide anything.
const minRepeats = stats.MinBlocks

// enoughRepeats is the number from which a difference is taken to decide, and
// publishRepeats the one that is fit to publish.
const (
	enoughRepeats  = 10
	publishRepeats = 20
)

// contrasted are the metrics that a report compares: few, because each makes
// the correction for reading many of them dearer for all.
var contrasted = []*metric{metricThroughput, metricResponse99, metricSave50, metricInstall, metricOpen}

// contrast compares a row with a baseline of the same scenario; false where no
// block holds both, or where they differ in durability.
func (sc *scenario) contrast(m *metric, base, other *row) (result.Comparison, bool) {
	for _, c := range sc.against(base) {
		if c.Metric == m.JSON && c.Backend == other.name() {
			return c, true
		}
	}
	return result.Comparison{}, false
}

// against compares every row of the scenario with base. The rows of the result
// are used where they hold this baseline; another one is compared here, from the
// same runs and by the same rules.
func (sc *scenario) against(base *row) []result.Comparison {
	if table, ok := sc.contrasts[base]; ok {
		return table
	}
	table := sc.recorded(base)
	if table == nil {
		table = sc.compare(base)
	}
	if sc.contrasts == nil {
		sc.contrasts = map[*row][]result.Comparison{}
	}
	sc.contrasts[base] = table
	return table
}

// recorded are the comparisons with base that the result holds.
func (sc *scenario) recorded(base *row) []result.Comparison {
	if len(sc.site.results) != 1 || len(base.runs) == 0 {
		return nil
	}
	config := ""
	if runs := base.headline(); len(runs) > 0 {
		config = stats.Config(runs[0])
	}
	var out []result.Comparison
	for _, c := range sc.site.results[0].Comparisons {
		// A table of one configuration does not name it.
		mine := c.Config == config || c.Config == "" && len(sc.site.scenarios) == 1
		if mine && c.Baseline == base.name() && quantity.Usable(c.Ratio) && c.Ratio > 0 {
			out = append(out, c)
		}
	}
	return out
}

func (sc *scenario) compare(base *row) []result.Comparison {
	var runs []result.Run
	for _, rw := range sc.rows {
		for _, r := range rw.headline() {
			runs = append(runs, *r)
		}
	}
	names := make([]string, len(contrasted))
	for i, m := range contrasted {
		names[i] = m.Name
	}
	table, err := stats.Compare(runs, base.name(), stats.Options{Metrics: names, Seed: sc.site.results[0].Seed})
	if err != nil {
		return nil // no run of the baseline has figures
	}
	return slices.DeleteFunc(table, func(c result.Comparison) bool { return !quantity.Usable(c.Ratio) || c.Ratio == 0 })
}
