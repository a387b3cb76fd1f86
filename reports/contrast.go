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

// contrasted are the metrics whose comparisons with a baseline a report shows.
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

// compareWith reads the scenario's part of what was compared over the whole site, so
// that a verdict is the same against each baseline: it depends on how many are read
// together.
func (sc *scenario) compareWith(base *row) []result.Comparison {
	if sc.bestLoads() {
		return sc.compareBest(base)
	}
	runs := base.decisive()
	if len(runs) == 0 {
		return nil
	}
	config := stats.Config(runs[0])
	if table := inConfig(sc.recorded(base), config); table != nil {
		return table
	}
	return inConfig(sc.site.compared(base.name()), config)
}

// inConfig is the part of a table that is about one configuration. A table of a single
// one does not name it.
func inConfig(table []result.Comparison, config string) []result.Comparison {
	var out []result.Comparison
	for _, c := range table {
		if (c.Config == config || c.Config == "") && quantity.Usable(c.Ratio) && c.Ratio > 0 {
			out = append(out, c)
		}
	}
	return out
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
	if len(sc.site.results) != 1 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(sc.site.results[0].Comparisons), func(c result.Comparison) bool {
		// A table of one configuration does not name it.
		return c.Baseline != base.name() || c.Config == "" && len(sc.site.scenarios) > 1
	})
}

// compared are all comparisons with a baseline, by the rules by which a result records
// those with its own. It may be called from several goroutines.
func (s *site) compared(baseline string) []result.Comparison {
	s.tablesMu.Lock()
	table := s.tables[baseline]
	if table == nil {
		table = sync.OnceValue(func() []result.Comparison { return s.compare(baseline) })
		if s.tables == nil {
			s.tables = map[string]func() []result.Comparison{}
		}
		s.tables[baseline] = table
	}
	s.tablesMu.Unlock()
	return table()
}

func (s *site) compare(baseline string) []result.Comparison {
	runs := make([]result.Run, len(s.runs))
	for i, r := range s.runs {
		runs[i] = *r
	}
	var show []*metric
	for _, sc := range s.scenarios {
		for _, rw := range sc.rows {
			if rw.name() == baseline && !sc.bestLoads() {
				show = append(show, sc.contrasted(rw)...)
			}
		}
	}
	return compareRuns(runs, baseline, s.results[0].Seed, show)
}

// compareRuns is empty where no run of the baseline has figures.
func compareRuns(runs []result.Run, baseline string, seed int64, show []*metric) []result.Comparison {
	opts := stats.Options{Seed: seed}
	for _, m := range show {
		opts.Show = append(opts.Show, m.Name)
	}
	table, err := stats.Compare(runs, baseline, opts)
	if err != nil {
		return nil
	}
	return table
}

// bestLoads reports whether each backend is shown at the best load of its own
// curve: the loads differ then, and are not what keeps runs apart.
func (sc *scenario) bestLoads() bool { return sc.curve && !sc.search }

// compareBest compares each backend at its best load with base at its own.
func (sc *scenario) compareBest(base *row) []result.Comparison {
	var runs []result.Run
	for _, rw := range sc.rows {
		for _, r := range rw.decisive() {
			runs = append(runs, *r)
			runs[len(runs)-1].Load = result.Load{}
		}
	}
	return inConfig(compareRuns(runs, base.name(), sc.site.results[0].Seed, sc.contrasted(base)), "")
}
