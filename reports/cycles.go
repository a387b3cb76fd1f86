package reports

import (
	"fmt"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// cycleFigures are the panels of the figure over the cycles.
var cycleFigures = []struct {
	title string
	axis  chart.Axis
	of    func(result.Cycle) float64
}{
	{"Save p50", chart.Axis{Kind: chart.Duration, Log: true}, func(c result.Cycle) float64 { return float64(c.Save.P50) }},
	{"Save p99", chart.Axis{Kind: chart.Duration, Log: true}, cycleP99},
	{"on disk, all nodes", chart.Axis{Kind: chart.Bytes, Log: true}, func(c result.Cycle) float64 { return float64(c.Disk) }},
}

// cycleP99 is 0, for absent, where too few Saves lie beyond it.
func cycleP99(c result.Cycle) float64 {
	if !stats.Supported(c.Save.Count, 0.99) {
		return 0
	}
	return float64(c.Save.P99)
}

// cycles is Save time and disk use against the cycle, medians over the runs
// with their range.
func (b *builder) cycles(sc *scenario) (figureView, bool) {
	g := chart.Grid{Height: 190, Across: [2]int{3, 1}}
	t := &tableView{Caption: "Cycles of bursts and truncation, medians over the runs", Head: []string{"backend", "cycle", "Save p50", "Save p99", "ops/s", "on disk", "runs"}}
	panels := make([]chart.Panel, len(cycleFigures))
	for i, f := range cycleFigures {
		panels[i] = chart.Panel{Title: f.title, X: chart.Axis{Kind: chart.Number}, Y: f.axis}
	}
	for _, rw := range sc.ranked() {
		byCycle := rw.byCycle()
		if len(byCycle) == 0 {
			continue
		}
		for i, f := range cycleFigures {
			if s := cycleSeries(byCycle, f.of); len(s.X) > 0 {
				s.Name, s.Style = rw.label, b.of(rw)
				panels[i].Series = append(panels[i].Series, s)
			}
		}
		g.Legend = append(g.Legend, chart.Series{Name: rw.label, Style: b.of(rw)})
		t.Rows = append(t.Rows, b.cycleRows(rw, byCycle)...)
	}
	panels = slices.DeleteFunc(panels, func(p chart.Panel) bool { return len(p.Series) == 0 })
	if len(panels) == 0 {
		return figureView{}, false
	}
	panels[len(panels)-1].X.Title = "cycle"
	g.Rows = []chart.Row{{Panels: panels}}
	g.Label = "Save and disk use over the cycles of an ageing store"
	if text, ok := sc.agedFinding(agedSave); ok {
		g.Label = text
	}
	return figureView{Finding: g.Label, Drawings: drawn(g), Table: t,
		Note: fmt.Sprintf("Save on the leader under steady load and allocated bytes of all nodes after it, in cycles of a burst, truncation and steady load%s: medians over up to %s, shaded: their range. Log axes.", youngText(sc), plural(mostCycled(sc), "run"))}, true
}

// youngText says which cycles had no burst.
func youngText(sc *scenario) string {
	last := 0
	for _, rw := range sc.rows {
		for _, r := range rw.runs {
			for _, c := range r.Cycles {
				if c.Young {
					last = max(last, c.Cycle)
				}
			}
		}
	}
	if last == 0 {
		return ""
	}
	return fmt.Sprintf(" (no burst in cycles 1 to %d)", last)
}

// byCycle sorts the cycles of all runs of a row by their number, the first
// longestSeries of them.
func (rw *row) byCycle() [][]result.Cycle {
	var out [][]result.Cycle
	for _, r := range rw.runs {
		for i, c := range r.Cycles[:min(len(r.Cycles), longestSeries)] {
			if i == len(out) {
				out = append(out, nil)
			}
			out[i] = append(out[i], c)
		}
	}
	return out
}

func mostCycled(sc *scenario) int {
	n := 0
	for _, rw := range sc.rows {
		for _, cycles := range rw.byCycle() {
			n = max(n, len(cycles))
		}
	}
	return n
}

// cycleSeries is the median of one figure by cycle, with the range over the runs.
func cycleSeries(byCycle [][]result.Cycle, of func(result.Cycle) float64) chart.Series {
	var s chart.Series
	for _, cycles := range byCycle {
		var values []float64
		for _, c := range cycles {
			if v := of(c); v > 0 {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			continue
		}
		s.X, s.Y = append(s.X, float64(cycles[0].Cycle)), append(s.Y, stats.Median(values))
		s.Lo, s.Hi = append(s.Lo, slices.Min(values)), append(s.Hi, slices.Max(values))
	}
	return s
}

func (b *builder) cycleRows(rw *row, byCycle [][]result.Cycle) []tableRow {
	var out []tableRow
	for _, cycles := range byCycle {
		median := func(of func(result.Cycle) float64, u quantity.Unit) string {
			var values []float64
			for _, c := range cycles {
				if v := of(c); v > 0 && quantity.Usable(v) {
					values = append(values, v)
				}
			}
			if len(values) == 0 {
				return quantity.Absent
			}
			return quantity.Format(stats.Median(values), u)
		}
		out = append(out, tableRow{b.number(rw), []string{rw.label, fmt.Sprint(cycles[0].Cycle),
			median(cycleFigures[0].of, quantity.Duration), median(cycleFigures[1].of, quantity.Duration),
			median(func(c result.Cycle) float64 { return c.Ops }, quantity.Rate), median(cycleFigures[2].of, quantity.Bytes), fmt.Sprint(len(cycles))}})
	}
	return out
}
