package reports

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// distributions are the panels of the percentile figure.
var distributions = []struct {
	title string
	disk  bool // may be set against the device floor
	of    func(*result.Run) result.Latency
}{
	{"response time", false, func(r *result.Run) result.Latency { return r.Response }},
	{"service time", false, func(r *result.Run) result.Latency {
		if r.Load.Kind == "closed" {
			return result.Latency{} // is the response time
		}
		return r.Service
	}},
	{"linearizable reads", false, func(r *result.Run) result.Latency { return r.Reads }},
	{"Save on the leader", true, func(r *result.Run) result.Latency { return r.Save }},
	{"fsync, all nodes", true, func(r *result.Run) result.Latency {
		if r.Fsync == nil {
			return result.Latency{}
		}
		return r.Fsync.Latency
	}},
}

// percentiles is the figure of latency against percentile.
func (b *builder) percentiles(sc *scenario) blockView {
	var block blockView
	if f, ok := b.traceSizes(sc); ok {
		block.Figures = append(block.Figures, f)
	}
	rows := sc.ranked()
	g := chart.Grid{Height: 210, SharedY: true}
	t := &tableView{Caption: "Percentiles of all runs together", Head: []string{"distribution", "backend", "p50", "p90", "p99", "p99.9", "p99.99", "highest", "operations"}}
	var panels []chart.Panel
	named := map[string]bool{}
	finding, merged := "", false
	for _, d := range distributions {
		var tails []tail
		p := chart.Panel{Title: d.title, X: chart.Axis{Kind: chart.Quantile, Log: true}, Y: chart.Axis{Kind: chart.Duration, Log: true}}
		for _, rw := range rows {
			if d.disk && rw.durability == "none" {
				continue // nothing reaches a disk
			}
			dist := distributionOf(rw.headline(), d.of)
			if len(dist.values) == 0 {
				continue
			}
			merged = merged || dist.merged
			s := chart.Series{Name: rw.label, Style: b.of(rw), X: dist.quantiles, Y: dist.values, Mark: dist.marks()}
			p.Series = append(p.Series, s)
			if v, ok := dist.at(100); ok && rw.control == "" {
				tails = append(tails, tail{rw.label, v})
			}
			if !named[rw.label] {
				named[rw.label] = true
				g.Legend = append(g.Legend, s)
			}
			t.Rows = append(t.Rows, tableRow{b.number(rw), percentileCells(d.title, rw, dist, d.of)})
		}
		if len(p.Series) == 0 {
			continue
		}
		if floor, name := sc.reference(); d.disk && floor > 0 {
			p.Refs = []chart.Ref{{At: floor, Name: name}}
		}
		panels = append(panels, p)
		if finding == "" {
			finding = percentileFinding(d.title, tails)
		}
	}
	if len(panels) == 0 {
		return block
	}
	g.Across = [2]int{3, 1}
	if len(panels) == 4 {
		g.Across[0] = 2
	}
	g.Rows = []chart.Row{{Panels: panels}}
	g.Label = finding
	linear := g
	linear.Rows = []chart.Row{{Panels: slices.Clone(panels)}}
	for i := range linear.Rows[0].Panels {
		linear.Rows[0].Panels[i].Y.Log = false
	}
	block.Figures = append(block.Figures, figureView{Finding: finding, Drawings: bothScales(g, linear), Table: t,
		Note: "Latency against percentile, log axis of 1/(1 − q), one scale for all panels; " + mergedText(merged, sc.repeats())})
	return block
}

// mergedText says of which runs a distribution is.
func mergedText(merged bool, runs int) string {
	if !merged {
		return "the run with the median p50, whose histograms were not kept. Controls included."
	}
	if runs == 1 {
		return "the histograms of one run. Controls included."
	}
	return fmt.Sprintf("the histograms of %s merged. Controls included. A slow run weighs more here than in the scoreboard, which has medians over the runs.", plural(runs, "run"))
}

func percentileCells(title string, rw *row, d distribution, of func(*result.Run) result.Latency) []string {
	cells := []string{title, rw.label}
	for _, q := range []float64{2, 10, 100, 1000, 10000} {
		text := quantity.Absent
		if v, ok := d.at(q); ok {
			text = quantity.FormatDuration(v)
		}
		cells = append(cells, text)
	}
	highest := 0.0
	for _, r := range rw.headline() {
		highest = math.Max(highest, float64(of(r).Max))
	}
	text := quantity.Absent
	if highest > 0 {
		text = quantity.FormatDuration(highest)
	}
	return append(cells, text, formatInt(d.count))
}

// tail is a figure of one backend, such as its p99 in nanoseconds.
type tail struct {
	label string
	value float64
}

// percentileFinding says which engine has the shortest tail, and which the
// longest.
func percentileFinding(what string, tails []tail) string {
	if len(tails) == 0 {
		return capital(what) + " by percentile"
	}
	slices.SortStableFunc(tails, func(a, b tail) int { return cmp.Compare(a.value, b.value) })
	first, last := tails[0], tails[len(tails)-1]
	if len(tails) == 1 {
		return fmt.Sprintf("99 %% of %s’s operations answer within %s", first.label, quantity.FormatDuration(first.value))
	}
	return fmt.Sprintf("99 %% of operations answer within %s on %s, and within %s on %s", quantity.FormatDuration(first.value), first.label,
		quantity.FormatDuration(last.value), last.label)
}

// middle is the value with the median key; xs must not be empty.
func middle[T any](xs []T, key func(T) float64) T {
	sorted := slices.Clone(xs)
	slices.SortStableFunc(sorted, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	return sorted[(len(sorted)-1)/2]
}
