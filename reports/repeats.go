package reports

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// repeats is every run as a dot in execution order, beside the drift of the
// floor.
func (b *builder) repeats(sc *scenario) blockView {
	m := sc.primary()
	g := chart.Grid{Height: 46, Compact: true}
	t := &tableView{Caption: "Every run: " + m.long, Head: []string{"run", "block", "order", "backend", m.title, "against its median", "memory", "flags"}}
	widest, scatter, most := "", 0.0, 0
	disk := ""
	if floor, text, ok := b.floorRow(sc); ok {
		g.Rows, disk = append(g.Rows, floor), text
	}
	for _, rw := range sc.ranked() {
		s, off := b.deviations(sc, rw, m, t)
		if len(s.X) == 0 {
			continue
		}
		most = max(most, len(s.X))
		g.Rows = append(g.Rows, chart.Row{Name: rw.label, Style: b.of(rw), Panels: []chart.Panel{{X: chart.Axis{Kind: chart.Number}, Y: chart.Axis{Kind: chart.Percent}, Series: []chart.Series{s}}}})
		if off > scatter {
			widest, scatter = rw.label, off
		}
	}
	if most < 2 {
		return blockView{}
	}
	_, drift := sc.site.floor()
	finding := fmt.Sprintf("Runs of one backend lie within ±%s of their median (%s the most)", percent(scatter), widest)
	if drift > 0 {
		finding += fmt.Sprintf("; the raw disk’s speed moved by %s", percent(drift))
	}
	g.Label = finding
	g.Rows[len(g.Rows)-1].Panels[0].X.Title = "order of execution"
	if disk != "" && drift > 2*scatter {
		g.Rows[0].Own = true // else the runs would be one flat line
		disk += " It has a scale of its own."
	}
	shareX(g.Rows)
	block := blockView{Figures: []figureView{{Finding: finding, Drawings: drawn(g), Table: t,
		Note: fmt.Sprintf("%s of every run as the deviation from its backend’s median, in order of execution. Hollow: the run carries a flag that not all do. n = %s of each.%s", capital(m.long), plural(most, "run"), disk)}}}
	if f, ok := b.memory(sc); ok {
		block.Figures = append(block.Figures, f)
	}
	return block
}

// shareX gives all rows the x axis of the longest, also one with a scale of its own.
func shareX(rows []chart.Row) {
	end := 0.0
	for _, r := range rows {
		for _, s := range r.Panels[0].Series {
			end = math.Max(end, slices.Max(s.X))
		}
	}
	for i := range rows {
		rows[i].Panels[0].X.Max = end + 1
	}
}

// signedPercent is a deviation in per cent: "+1.2 %", "−0.4 %".
func signedPercent(v float64) string {
	return strings.Replace(fmt.Sprintf("%+.1f %%", 100*v), "-", "−", 1)
}

// memoryText is the most memory that the process held during a run.
func memoryText(r *result.Run) string {
	if v, ok := metricRSS.get(r); ok {
		return quantity.FormatBytes(v)
	}
	return quantity.Absent
}

// memory is the highest resident memory of the process in every run.
func (b *builder) memory(sc *scenario) (figureView, bool) {
	strip := chart.Strip{Kind: chart.Bytes}
	t := &tableView{Caption: "Highest resident memory of the process", Head: []string{"backend", "median", "lowest", "highest", "runs"}}
	var engines []tail
	for _, rw := range sc.ranked() {
		var values []float64
		for _, r := range rw.decisive() {
			if v, ok := metricRSS.get(r); ok && v > 0 {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			continue
		}
		mid := stats.Median(values)
		strip.Rows = append(strip.Rows, chart.Cloud{Name: rw.label, Style: b.of(rw), Values: values, Text: quantity.FormatBytes(mid)})
		t.Rows = append(t.Rows, tableRow{b.number(rw), []string{rw.label, quantity.FormatBytes(mid), quantity.FormatBytes(slices.Min(values)), quantity.FormatBytes(slices.Max(values)), fmt.Sprint(len(values))}})
		if rw.control == "" {
			engines = append(engines, tail{rw.label, mid})
		}
	}
	if len(strip.Rows) == 0 {
		return figureView{}, false
	}
	slices.SortStableFunc(engines, func(a, b tail) int { return cmp.Compare(a.value, b.value) })
	finding := "Memory of the process"
	if n := len(engines); n > 1 {
		finding = fmt.Sprintf("%s needs the least memory, %s; %s the most, %s", engines[0].label, quantity.FormatBytes(engines[0].value),
			engines[n-1].label, quantity.FormatBytes(engines[n-1].value))
	}
	strip.Label = finding
	return figureView{Finding: finding, Drawings: drawn(strip), Table: t,
		Note: "Highest resident memory of the whole process, which holds every node and the load generator as well; every run a dot, log axis, the median at the right."}, true
}

// percent renders a share with a sensible number of digits.
func percent(v float64) string {
	if v < 0.095 {
		return fmt.Sprintf("%.1f %%", 100*v)
	}
	return fmt.Sprintf("%.0f %%", 100*v)
}

// floorRow is the raw disk at every calibration, placed before the runs of its block,
// and what to say of it. It is drawn in the direction of the scenario's own figure,
// so that a disk that becomes faster and runs that do so move the same way.
func (b *builder) floorRow(sc *scenario) (row chart.Row, note string, ok bool) {
	rows := sc.site.floorRows()
	if len(rows) < 2 || len(sc.site.results) > 1 {
		return chart.Row{}, "", false // orders of several suites have no common axis
	}
	first := map[int]float64{} // order of the first run of each block
	last := 0.0
	for _, r := range sc.site.runs {
		at := float64(r.Order)
		if f, ok := first[r.Block]; !ok || at < f {
			first[r.Block] = at
		}
		last = math.Max(last, at)
	}
	mid, _ := sc.site.floor()
	s := chart.Series{Name: "raw disk", Style: chart.Floor, Marks: true}
	for _, c := range rows {
		at, ok := first[c.Block]
		if !ok {
			at = last + 1
		}
		off := mid/float64(c.P50) - 1
		if sc.primary().lower() {
			off = float64(c.P50)/mid - 1
		}
		s.X, s.Y = append(s.X, at-0.5), append(s.Y, off)
	}
	what := "speed"
	if sc.primary().lower() {
		what = "latency"
	}
	note = fmt.Sprintf(" Raw disk: the %s of a synced write of %s at each calibration, whose median takes %s.", what,
		quantity.FormatBytes(float64(rows[0].Bytes)), quantity.FormatDuration(mid))
	return chart.Row{Name: "raw disk, " + what, Style: chart.Floor,
		Panels: []chart.Panel{{X: chart.Axis{Kind: chart.Number}, Y: chart.Axis{Kind: chart.Percent}, Series: []chart.Series{s}}}}, note, true
}

// deviations are the runs of a row against their median, and the largest of
// them. The lines of the table are added on the way.
func (b *builder) deviations(sc *scenario, rw *row, m *metric, t *tableView) (chart.Series, float64) {
	s := chart.Series{Name: rw.label, Style: b.of(rw), NoLine: true}
	runs := rw.decisive()
	var values []float64
	var with []*result.Run
	for _, r := range runs {
		if v, ok := m.get(r); ok && v > 0 {
			values, with = append(values, v), append(with, r)
		}
	}
	mid := stats.Median(values)
	far := 0.0
	for i, r := range with {
		off := values[i]/mid - 1
		far = math.Max(far, math.Abs(off))
		order := float64(r.Order)
		if len(sc.site.results) > 1 {
			order = float64(i + 1)
		}
		s.X, s.Y, s.Hollow = append(s.X, order), append(s.Y, off), append(s.Hollow, slices.ContainsFunc(r.Flags, ownFlag))
		t.Rows = append(t.Rows, tableRow{b.number(rw), []string{clean(r.ID), fmt.Sprint(r.Block), fmt.Sprint(r.Order), rw.label,
			quantity.Format(values[i], m.unit), signedPercent(off), memoryText(r), flagText(r.Flags)}})
	}
	return s, far
}

// ownFlag reports whether a flag says something of a run that it does not say of all.
func ownFlag(name string) bool { return !slices.Contains(suiteWide, name) }

func flagText(flags []string) string {
	if len(flags) == 0 {
		return quantity.Absent
	}
	titles := make([]string, len(flags))
	for i, f := range flags {
		titles[i] = FlagByName(f).Title
	}
	return list(titles)
}
