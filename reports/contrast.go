package reports

import (
	"runtime"
	"slices"
	"sync"

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

// manyRows is the number of backends above which other baselines than the
// default one are compared by the deciding figure alone: with 14 of them all
// pairs would take most of a page's size and of the time to build it.
const manyRows = 8

// contrasted are the metrics that a report compares with a baseline: few,
// because each makes the correction for reading many of them dearer for all.
func (sc *scenario) contrasted(base *row) []*metric {
	m := sc.primary()
	if m.moved() || len(sc.rows) > manyRows && base != sc.baseline() {
		return []*metric{m}
	}
	return []*metric{metricThroughput, metricResponse99, metricSave50}
}

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
	table := sc.compareWith(base)
	if sc.contrasts == nil {
		sc.contrasts = map[*row][]result.Comparison{}
	}
	sc.contrasts[base] = table
	return table
}

func (sc *scenario) compareWith(base *row) []result.Comparison {
	if table := sc.recorded(base); table != nil && !sc.bestLoads() {
		return table
	}
	return sc.compare(base)
}

// compareAll makes the comparisons with every baseline, on all cores: a page
// lets its reader choose one.
func (sc *scenario) compareAll() {
	tables := make([][]result.Comparison, len(sc.rows))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				tables[i] = sc.compareWith(sc.rows[i])
			}
		})
	}
	for i := range sc.rows {
		next <- i
	}
	close(next)
	workers.Wait()
	sc.contrasts = map[*row][]result.Comparison{}
	for i, rw := range sc.rows {
		sc.contrasts[rw] = tables[i]
	}
}

// recorded are the comparisons with base that the result holds.
func (sc *scenario) recorded(base *row) []result.Comparison {
	if len(sc.site.results) != 1 || len(base.runs) == 0 {
		return nil
	}
	config := ""
	if runs := base.decisive(); len(runs) > 0 {
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

// bestLoads reports whether each backend is shown at the best load of its own
// curve: the loads differ then, and are not what keeps runs apart.
func (sc *scenario) bestLoads() bool { return sc.curve && !sc.search }

func (sc *scenario) compare(base *row) []result.Comparison {
	var runs []result.Run
	for _, rw := range sc.rows {
		for _, r := range rw.decisive() {
			runs = append(runs, *r)
			if sc.bestLoads() {
				runs[len(runs)-1].Load = result.Load{}
			}
		}
	}
	var names []string
	for _, m := range sc.contrasted(base) {
		names = append(names, m.Name)
	}
	table, err := stats.Compare(runs, base.name(), stats.Options{Metrics: names, Seed: sc.site.results[0].Seed})
	if err != nil {
		return nil // no run of the baseline has figures
	}
	return slices.DeleteFunc(table, func(c result.Comparison) bool { return !quantity.Usable(c.Ratio) || c.Ratio == 0 })
}
