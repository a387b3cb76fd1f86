package reports

import (
	"fmt"
	"io"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
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
	return []string{format(c.BaselineMedian), format(c.BackendMedian), quantity.Significant(c.Ratio) + "×", interval,
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
	v := compareView{Summary: compareSummary(table)}
	for _, r := range rs {
		v.Machines = append(v.Machines, clean(r.ID)+": "+machineText(r.Env))
	}
	for _, p := range pairsOf(table) {
		pv := pairView{Title: p.backend + " against " + p.baseline, Config: p.config}
		for _, c := range p.rows {
			pv.Rows = append(pv.Rows, rowView{Label: compareMetric(c.Metric), Cells: compareCells(c)})
		}
		v.Pairs = append(v.Pairs, pv)
	}
	return page.ExecuteTemplate(w, "compare", v)
}

type compareView struct {
	Summary  string
	Machines []string
	Pairs    []pairView
}

type pairView struct {
	Title, Config string
	Rows          []rowView
}
