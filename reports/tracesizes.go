package reports

import (
	"fmt"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// deciles is how many figures describe the sizes of a trace: the smallest, nine
// that divide the entries into ten equal parts, and the largest.
const deciles = 11

// replay is what the runs of a row replayed of a trace; nil where there was none.
func (rw *row) replay() *result.Trace {
	var with []*result.Run
	for _, r := range rw.runs {
		if t := r.Trace; t != nil && len(t.Deciles) == deciles && len(t.Replayed) == deciles {
			with = append(with, r)
		}
	}
	if len(with) == 0 {
		return nil
	}
	return middle(with, func(r *result.Run) float64 { return r.Trace.WorstGap }).Trace
}

// traceSizes is the sizes of the entries in a replayed WAL beside those that the
// runs wrote.
func (b *builder) traceSizes(sc *scenario) (figureView, bool) {
	p := chart.Panel{X: chart.Axis{Kind: chart.Number, Title: "share of the entries that are no larger, %"}, Y: chart.Axis{Kind: chart.Bytes, Log: true, Title: "size of an entry"}}
	t := &tableView{Caption: "Sizes of the entries, by share of them that is no larger", Head: []string{"entries", "0 %", "10 %", "20 %", "30 %", "40 %", "50 %", "60 %", "70 %", "80 %", "90 %", "100 %", "worst decile"}}
	var source *result.Trace
	var gaps []float64
	for _, rw := range sc.ranked() {
		tr := rw.replay()
		if tr == nil {
			continue
		}
		if source == nil {
			source = tr
			p.Series = append(p.Series, decileSeries("in the WAL", chart.Reference, tr.Deciles))
			t.Rows = append(t.Rows, tableRow{"", append(decileCells("in the WAL", tr.Deciles), "")})
		}
		s := decileSeries(rw.label, b.of(rw), tr.Replayed)
		s.NoLine = true
		p.Series = append(p.Series, s)
		gaps = append(gaps, tr.WorstGap)
		t.Rows = append(t.Rows, tableRow{b.number(rw), append(decileCells(rw.label, tr.Replayed), percent(tr.WorstGap))})
	}
	if source == nil {
		return figureView{}, false
	}
	_, worst := quantity.Extent(gaps)
	finding := fmt.Sprintf("The replayed entries have the sizes of the recorded ones: no decile differs by more than %s", percent(worst))
	if worst > traceTolerance {
		finding = fmt.Sprintf("The replayed entries do not have the sizes of the recorded ones: a decile differs by %s", percent(worst))
	}
	return figureView{Finding: finding, Drawings: drawn(chart.Lines{Label: finding, Panel: p}), Table: t,
		Note: fmt.Sprintf("Line: the %s of %s in %s; markers: what each backend was given and acknowledged, in the run with the median deviation. Log axis. The ends, one entry each, are not counted in the deviation.",
			pluralOf(int(source.Entries), "entry", "entries"), pluralOf(int(source.Batches), "batch", "batches"), clean(source.Dir))}, true
}

// traceTolerance is the deviation of a decile above which a replay is not called
// true to its trace.
const traceTolerance = 0.05

func decileSeries(name string, style chart.Style, sizes []int64) chart.Series {
	s := chart.Series{Name: name, Style: style}
	for i, v := range sizes {
		s.X, s.Y = append(s.X, float64(10*i)), append(s.Y, float64(max(v, 1)))
	}
	return s
}

func decileCells(name string, sizes []int64) []string {
	cells := []string{name}
	for _, v := range sizes {
		cells = append(cells, quantity.FormatBytes(float64(max(v, 0))))
	}
	return cells
}

// traceColumns are how true the replay was, in a table.
func (sc *scenario) traceColumns(rows []*row) []tableColumn {
	entry, gap := tableColumn{group: "entry, p50", head: "WAL → run"}, tableColumn{group: "decile", head: "off by"}
	some := false
	for _, rw := range rows {
		size, off := quantity.Absent, quantity.Absent
		if tr := rw.replay(); tr != nil {
			some = true
			size = quantity.FormatBytes(float64(max(tr.Deciles[deciles/2], 0))) + " → " + quantity.FormatBytes(float64(max(tr.Replayed[deciles/2], 0)))
			off = percent(stats.Median(rw.traceGaps()))
		}
		entry.cells, gap.cells = append(entry.cells, tableCell{text: size}), append(gap.cells, tableCell{text: off})
	}
	if !some {
		return nil
	}
	return []tableColumn{entry, gap}
}

func (rw *row) traceGaps() []float64 {
	var out []float64
	for _, r := range rw.runs {
		if r.Trace != nil && quantity.Usable(r.Trace.WorstGap) {
			out = append(out, r.Trace.WorstGap)
		}
	}
	return out
}
