package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// aged is what the workload age found of one metric of a backend: the last cycles
// against the first, in the run whose ratio is the median one.
type aged struct {
	result.Comparison
	agree, runs int // runs with the same verdict, and all
}

// agedMetric is the one that the report's sentence is about.
const agedMetric = "save.p99_ns"

// agedMetrics are those that the workload age compares, with their columns.
var agedMetrics = []struct{ json, title string }{
	{"save.p50_ns", "save p50"}, {agedMetric, "save p99"}, {"bytes.disk", "on disk"},
}

// agedFigure is a figure of how one metric changes with age, and its words.
type agedFigure struct{ json, what, note, left, right string }

var (
	agedSave = agedFigure{agedMetric, "Save p99", "Median Save p99", "← shorter with age", "longer with age →"}
	agedDisk = agedFigure{"bytes.disk", "disk use", "Median disk use of all nodes", "← smaller with age", "larger with age →"}
)

// aged is false where the backend made no such runs, or of too few cycles.
func (rw *row) aged(metric string) (aged, bool) {
	var all []result.Comparison
	for _, r := range rw.runs {
		for _, c := range r.Aging {
			if c.Metric == metric {
				all = append(all, c)
			}
		}
	}
	if len(all) == 0 {
		return aged{}, false
	}
	slices.SortStableFunc(all, func(a, b result.Comparison) int { return cmp.Compare(a.Ratio, b.Ratio) })
	a := aged{Comparison: all[(len(all)-1)/2], runs: len(all)}
	for _, c := range all {
		if c.Verdict == a.Verdict {
			a.agree++
		}
	}
	return a, true
}

// verdict is in the words of growing and shrinking: a disk is not "slower".
func (a aged) verdict() string {
	word := map[string]string{stats.Slower: "grows", stats.Faster: "shrinks", stats.Equivalent: "stays", stats.Inconclusive: "undecided"}[a.Verdict]
	if a.runs > 1 {
		word += fmt.Sprintf(" %d/%d", a.agree, a.runs)
	}
	return word
}

func (a aged) interval() string {
	if a.Hi == 0 {
		return quantity.Absent
	}
	return quantity.Significant(a.Lo) + " to " + quantity.Significant(a.Hi)
}

// agedColumns are the columns of the terminal's table about age; none where that
// was not measured.
func agedColumns(rows []*row) []tableColumn {
	var columns []tableColumn
	for _, m := range agedMetrics {
		group := []tableColumn{{group: m.title, head: "last÷first"}, {group: m.title, head: "95 %"}, {group: m.title, head: "verdict"}}
		measured := false
		for _, rw := range rows {
			a, ok := rw.aged(m.json)
			cells := []string{quantity.Absent, quantity.Absent, quantity.Absent}
			if ok {
				measured = true
				cells = []string{quantity.Significant(a.Ratio) + "×", a.interval(), a.verdict()}
			}
			for i, text := range cells {
				group[i].cells = append(group[i].cells, tableCell{text: text})
			}
		}
		if measured {
			columns = append(columns, group...)
		}
	}
	measureColumns(columns)
	return columns
}

// agedText is what heads that table.
func agedText(rows []*row) string {
	n := 0 // a metric has fewer where a cycle held too few Saves for its percentile
	for _, rw := range rows {
		for _, m := range agedMetrics {
			if a, ok := rw.aged(m.json); ok {
				n = max(n, a.N)
			}
		}
	}
	return fmt.Sprintf("With age: the median of the last %s against that of the first %d, in the run whose ratio is the median one (verdict in n of all runs)", plural(n, "cycle"), n)
}

// agedSave and agedDisk are the figures of how Save p99 and disk use of each
// backend change with age.
func (b *builder) agedSave(sc *scenario) (figureView, bool) { return b.aged(sc, agedSave) }
func (b *builder) agedDisk(sc *scenario) (figureView, bool) { return b.aged(sc, agedDisk) }

func (b *builder) aged(sc *scenario, of agedFigure) (figureView, bool) {
	f := chart.Forest{Noise: noise, Left: of.left, Right: of.right}
	t := &tableView{Caption: "The last cycles against the first, in the run whose ratio is the median one",
		Head: []string{"backend", "metric", "first", "last", "ratio", "95 % interval", "cycles", "p (Holm)", "verdict, in n of all runs"}}
	n := 0
	for _, rw := range sc.ranked() {
		for _, m := range agedMetrics {
			a, ok := rw.aged(m.json)
			if !ok {
				continue
			}
			c := compareCells(a.Comparison)
			t.Rows = append(t.Rows, tableRow{b.number(rw), append([]string{rw.label, m.title}, c[0], c[1], quantity.Significant(a.Ratio)+"×", c[3], c[4], c[5], a.verdict())})
			n = max(n, a.N)
			if m.json != of.json {
				continue
			}
			f.Rows = append(f.Rows, chart.Effect{Name: rw.label, Style: b.of(rw), Ratio: a.Ratio, Lo: a.Lo, Hi: a.Hi, Text: quantity.Significant(a.Ratio) + "× " + strings.Replace(a.verdict(), "/", " of ", 1)})
		}
	}
	finding, ok := sc.agedFinding(of)
	if !ok {
		return figureView{}, false
	}
	f.Label = finding
	return figureView{Finding: finding, Drawings: drawn(f), Table: t,
		Note: fmt.Sprintf("%s of the last %s ÷ that of the first %d, log scale, 95 %% interval; noise band ±%g %%. “1 of 2”: as many of the runs say the same. The cycles of one run are no repeats, what else the machine does lasts for several of them: believe what all of several runs say.", of.note, plural(n, "cycle"), n, 100*noise)}, true
}

// agedFinding says whose figure grows with age; false where that was not measured.
func (sc *scenario) agedFinding(of agedFigure) (string, bool) {
	var grow []string
	measured, certain := false, false
	for _, rw := range sc.ranked() {
		a, ok := rw.aged(of.json)
		if !ok {
			continue
		}
		measured, certain = true, certain || a.Verdict != stats.Inconclusive
		if a.Verdict == stats.Slower {
			share := ""
			if a.agree < a.runs || a.runs == 1 {
				share = fmt.Sprintf(" in %d of %s", a.agree, plural(a.runs, "run"))
			}
			grow = append(grow, fmt.Sprintf("%s (%s×%s)", rw.label, quantity.Significant(a.Ratio), share))
		}
	}
	switch {
	case len(grow) > 0:
		return "With age the " + of.what + " grows for " + list(grow), measured
	case !certain:
		return "Whether " + of.what + " changes with age is undecided for every backend", measured
	}
	return "No backend’s " + of.what + " is certain to grow with age", measured
}
