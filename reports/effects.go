package reports

import (
	"fmt"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// effects is the forest plots of a scenario: one figure per baseline, of which
// one is shown, with a panel per metric.
func (b *builder) effects(sc *scenario) blockView {
	var block blockView
	base := sc.baseline()
	for _, rw := range sc.rows {
		if len(rw.runs) == 0 {
			continue
		}
		for _, m := range sc.contrasted(rw) {
			fig, ok := b.forest(sc, m, rw)
			if !ok {
				continue
			}
			fig.Base, fig.Shown = b.number(rw), rw == base
			block.Figures = append(block.Figures, fig)
		}
	}
	if !slices.ContainsFunc(block.Figures, func(f figureView) bool { return f.Shown }) {
		block.Figures = nil
	}
	return block
}

// forest is the figure of one metric against one baseline; false where nothing
// can be compared.
func (b *builder) forest(sc *scenario, m *metric, base *row) (figureView, bool) {
	f := chart.Forest{Noise: noise}
	f.Left, f.Right = "← slower", "faster than "+base.label+" →"
	if m.lower() {
		f.Left, f.Right = "← faster than "+base.label, "slower →"
	}
	t := &tableView{Caption: capital(m.long) + " against " + base.label,
		Head: []string{"backend", "ratio", "95 % interval", "blocks", "p, Mann-Whitney (Holm)", "p, paired t (Holm)", "verdict"}}
	verdicts := map[string][]string{}
	n := 0
	for _, rw := range sc.ranked() {
		c, ok := sc.contrast(m, base, rw)
		if rw == base || !ok {
			continue
		}
		n = max(n, c.N)
		e := chart.Effect{Name: rw.label, Style: b.of(rw), Ratio: c.Ratio, Lo: c.Lo, Hi: c.Hi, Text: contrastRatio(c) + " " + contrastVerdict(c)}
		f.Rows = append(f.Rows, e)
		interval, p, pp := quantity.Absent, quantity.Absent, quantity.Absent
		if c.Hi > 0 {
			interval, p = quantity.Significant(c.Lo)+" to "+quantity.Significant(c.Hi), pText(c.PHolm)
			if c.PPaired > 0 {
				pp = pText(c.PPairedHolm)
			}
		}
		t.Rows = append(t.Rows, tableRow{b.number(rw), []string{rw.label, quantity.Significant(c.Ratio) + "×", interval, fmt.Sprint(c.N), p, pp, clean(c.Verdict)}})
		verdicts[c.Verdict] = append(verdicts[c.Verdict], rw.label)
	}
	if len(f.Rows) == 0 {
		return figureView{}, false
	}
	finding := capital(m.long) + " against " + base.label + ": " + effectFinding(verdicts, n)
	f.Label = finding
	interval := "95 % interval"
	if n < minRepeats {
		interval = fmt.Sprintf("no interval under %d blocks", minRepeats)
	}
	return figureView{Finding: finding, Drawings: drawn(f), Table: t,
		Note: fmt.Sprintf("Ratio to %s within the block, log scale, %s, n = %s; noise band ±%g %%.", base.label, interval, plural(n, "block"), 100*noise)}, true
}

// effectFinding sums up the verdicts on one metric, by verdict.
func effectFinding(verdicts map[string][]string, n int) string {
	if n < minRepeats {
		return fmt.Sprintf("%s decide nothing", repeatsText(n))
	}
	var parts []string
	for _, v := range []struct{ verdict, word string }{
		{stats.Faster, "faster"}, {stats.Equivalent, "equivalent"}, {stats.Slower, "slower"}, {stats.Inconclusive, "undecided"},
	} {
		if names := verdicts[v.verdict]; len(names) > 0 {
			parts = append(parts, list(names)+" "+v.word)
		}
	}
	return strings.Join(parts, "; ")
}
