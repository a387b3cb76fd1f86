package reports

import (
	"cmp"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// point is one load of a curve or a search, on one backend.
type point struct {
	name       string // "50%", "max", "search"
	offered    float64
	clients    int
	runs       []*result.Run
	throughput summary
	p50, p99   summary
	errors     int64
	missed     bool // of a search: some run at this rate missed the objective
}

// points sorts the runs of a curve by the load that was offered.
func (rw *row) points() []point {
	type key struct {
		name string
		rate float64
		n    int
	}
	at := map[key]int{}
	var out []point
	for _, r := range rw.runs {
		k := key{r.Load.Point, r.Load.Rate, r.Load.Clients}
		if rw.scenario.search {
			k.name = "" // the same rate may be tried in several steps and blocks
		}
		if r.Load.Share > 0 {
			// A share of the maximum is one point, although the maximum that was
			// found, and with it the rate, differs a little between blocks.
			k.rate, k.n = r.Load.Share, 0
		}
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, point{name: clean(r.Load.Point), clients: r.Load.Clients})
		}
		out[i].runs = append(out[i].runs, r)
		out[i].errors += r.Errors
		if rw.scenario.search && rw.concluded(r) {
			out[i].step(r)
		}
	}
	for i := range out {
		p := &out[i]
		var rates []float64
		for _, r := range p.runs {
			if r.Load.Rate > 0 && quantity.Usable(r.Load.Rate) {
				rates = append(rates, r.Load.Rate)
			}
		}
		p.offered = stats.Summarize(rates).Median
		p.throughput = summarizeRuns(p.runs, metricThroughput)
		p.p50 = summarizeRuns(p.runs, metricResponse50)
		p.p99 = summarizeRuns(p.runs, metricResponse99)
	}
	slices.SortStableFunc(out, func(a, b point) int {
		return cmp.Compare(cmp.Or(a.offered, a.throughput.Median), cmp.Or(b.offered, b.throughput.Median))
	})
	return out
}

// step notes how a step of a search at this rate came out.
func (p *point) step(r *result.Run) {
	p.missed = p.missed || r.Load.Missed != ""
	switch {
	case r.Load.Missed != "":
		p.name = "missed: " + clean(r.Load.Missed)
	case r.Load.Point == confirmedPoint && !p.missed:
		p.name = confirmedPoint
	case !p.missed && p.name != confirmedPoint:
		p.name = "held"
	}
}

// reached reports whether the point kept up with what was offered: at least
// 99 % of it, the demand of METHOD.md.
func (p point) reached() bool {
	return p.offered == 0 || p.throughput.Median >= reachedShare*p.offered
}

// reachedShare is the share of an offered rate that must be achieved.
const reachedShare = 0.99
