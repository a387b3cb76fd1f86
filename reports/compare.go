package reports

import (
	"fmt"
	"io"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// CompareTable writes comparisons for a terminal, one line per metric, under a
// line for each pair of backends.
func CompareTable(w io.Writer, table []result.Comparison, o TableOptions) error {
	if o.Width <= 0 {
		o.Width = defaultWidth
	}
	t := &tableWriter{TableOptions: o}
	if len(table) == 0 {
		t.line("Nothing to compare: no figure was measured on both sides.")
	}
	pairs := pairsOf(table)
	for i, p := range pairs {
		if i > 0 {
			t.line("")
		}
		t.pair(p)
	}
	if len(pairs) > 0 {
		t.line("")
		t.wrap(compareSummary(table), "")
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

// pair is the comparisons of one backend with one baseline.
type pair struct {
	baseline, backend, config string
	rows                      []result.Comparison
}

func pairsOf(table []result.Comparison) []pair {
	var out []pair
	index := map[[3]string]int{}
	for _, c := range table {
		key := [3]string{c.Baseline, c.Backend, c.Config}
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, pair{baseline: clean(c.Baseline), backend: clean(c.Backend), config: clean(c.Config)})
		}
		out[i].rows = append(out[i].rows, c)
	}
	return out
}

func (t *tableWriter) pair(p pair) {
	t.wrap(t.paint("1", p.backend+" against "+p.baseline), "  ")
	if p.config != "" {
		t.wrap(t.paint("2", p.config), "  ")
	}
	names := tableColumn{head: "metric"}
	columns := []tableColumn{{head: "baseline"}, {head: "backend"}, {head: "ratio"}, {head: "95 % interval"}, {head: "n"}, {head: "p (Holm)"}, {head: "verdict"}}
	for _, c := range p.rows {
		names.cells = append(names.cells, tableCell{text: compareMetric(c.Metric)})
		for i, text := range compareCells(c) {
			columns[i].cells = append(columns[i].cells, tableCell{text: text})
		}
		last := columns[len(columns)-1].cells
		last[len(last)-1].color = map[string]string{stats.Faster: "32", stats.Slower: "31"}[c.Verdict]
	}
	names.measure()
	measureColumns(columns)
	t.blocks(names, columns, make([]*row, len(p.rows)))
}

// compareMetric is the name of a metric as tables show it.
func compareMetric(name string) string {
	if m := metricByName(name); m != nil {
		return m.title
	}
	return clean(name)
}

// compareCells are the columns of a comparison: both medians, ratio, interval,
// n, corrected p, verdict.
func compareCells(c result.Comparison) []string {
	u := unitOfMetric(c.Metric)
	format := func(v float64) string {
		if v == 0 {
			return quantity.Absent
		}
		return quantity.Format(v, u)
	}
	interval, p := quantity.Absent, quantity.Absent
	if c.Hi > 0 {
		interval = quantity.Significant(c.Lo) + " to " + quantity.Significant(c.Hi)
		p = pText(bestP(c))
	}
	return []string{format(c.BaselineMedian), format(c.BackendMedian), quantity.Format(c.Ratio, quantity.Ratio), interval,
		fmt.Sprint(c.N), p, clean(c.Verdict)}
}

// bestP is the smaller of the two corrected p-values: a verdict needs one of
// them.
func bestP(c result.Comparison) float64 {
	if c.PPaired > 0 {
		return min(c.PHolm, c.PPairedHolm)
	}
	return c.PHolm
}

func pText(p float64) string {
	if p < 0.001 {
		return "<0.001"
	}
	return fmt.Sprintf("%.3f", p)
}

// unitOfMetric is the unit of a metric by its name in the schema.
func unitOfMetric(name string) quantity.Unit {
	m, err := stats.Lookup(name)
	if err != nil {
		return quantity.Count
	}
	switch m.Unit {
	case stats.Nanoseconds:
		return quantity.Duration
	case stats.Bytes:
		return quantity.Bytes
	case stats.OpsPerSecond:
		return quantity.Rate
	}
	return quantity.Count
}

// compareSummary counts the verdicts in one sentence.
func compareSummary(table []result.Comparison) string {
	count := map[string]int{}
	few := 0
	for _, c := range table {
		count[c.Verdict]++
		if c.N < minRepeats {
			few++
		}
	}
	text := fmt.Sprintf("Of %s: %d faster, %d slower, %d equivalent, %d inconclusive.", plural(len(table), "comparison"),
		count[stats.Faster], count[stats.Slower], count[stats.Equivalent], count[stats.Inconclusive])
	if few > 0 {
		text += fmt.Sprintf(" %s under %d repeats on a side, which can decide nothing.", capital(verbCount(few)), minRepeats)
	}
	if slices.ContainsFunc(table, func(c result.Comparison) bool { return c.PPaired > 0 }) {
		text += fmt.Sprintf(" p is the smaller of two tests, over all runs and within the blocks, and decides at %g.", stats.TestAlpha)
	}
	return text
}

func verbCount(n int) string {
	if n == 1 {
		return "one has"
	}
	return fmt.Sprintf("%d have", n)
}

// CompareHTML writes a page about comparisons of the backends of rs.
func CompareHTML(w io.Writer, rs []*result.Result, table []result.Comparison) error {
	v := compareView{frameView: newFrame("raftbench compare"), Summary: compareSummary(table)}
	for _, r := range rs {
		v.Machines = append(v.Machines, clean(r.ID)+": "+machineText(r.Env))
	}
	for _, p := range pairsOf(table) {
		v.Pairs = append(v.Pairs, pairView{Title: p.backend + " against " + p.baseline, Config: p.config, Figures: []figureView{p.figure()}})
	}
	return execute(w, "compare", v)
}

type compareView struct {
	frameView
	Summary  string
	Machines []string
	Pairs    []pairView
}

type pairView struct {
	Title, Config string
	Figures       []figureView
}

// figure is the forest plot of every metric of a pair. Right is always better:
// the ratio of a figure of which less is better is turned over.
func (p pair) figure() figureView {
	f := chart.Forest{Noise: noise, Left: "← worse", Right: "better →"}
	t := &tableView{Caption: p.backend + " against " + p.baseline,
		Head: []string{"metric", p.baseline, p.backend, "ratio", "95 % interval", "n", "p (Holm)", "verdict"}}
	better, worse := 0, 0
	for i, c := range p.rows {
		e := chart.Effect{Name: compareMetric(c.Metric), Style: chart.Style(i), Ratio: c.Ratio, Lo: c.Lo, Hi: c.Hi, Text: contrastRatio(c) + " " + contrastVerdict(c)}
		if m, err := stats.Lookup(c.Metric); err == nil && m.Better == stats.Lower {
			e.Ratio, e.Lo, e.Hi = invert(c.Ratio), invert(c.Hi), invert(c.Lo)
		}
		f.Rows = append(f.Rows, e)
		t.Rows = append(t.Rows, tableRow{"", append([]string{compareMetric(c.Metric)}, compareCells(c)...)})
		switch c.Verdict {
		case stats.Faster:
			better++
		case stats.Slower:
			worse++
		}
	}
	finding := fmt.Sprintf("%d of %s better, %d worse", better, plural(len(p.rows), "metric"), worse)
	f.Label = finding
	return figureView{Finding: finding, Drawings: drawn(f), Table: t,
		Note: fmt.Sprintf("%s ÷ %s, log scale, 95 %% interval; latencies turned over so that right is better; noise band ±%g %%.", p.backend, p.baseline, 100*noise)}
}
