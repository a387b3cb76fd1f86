package reports

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// longestSeries bounds the points that one line of the figure draws; of a longer
// series several seconds make one.
const longestSeries = 240

// perPoint is how many seconds of a series make one point.
func perPoint(series []result.Point) int {
	return max((len(series)+longestSeries-1)/longestSeries, 1)
}

// overTime is small multiples of throughput, p99 and the latency heat map, and
// of the cycles of an ageing store.
func (b *builder) overTime(sc *scenario) blockView {
	var block blockView
	g := chart.Grid{Height: 84}
	t := &tableView{Caption: "Over the seconds that were measured, of the run with the median throughput",
		Head: []string{"backend", "seconds", "ops/s lowest", "median", "highest", "p99 median", "p99 highest", "slowest operation"}}
	worst, swing := "", 0.0
	end, longest := time.Duration(0), 1 // of the longest run
	happened := &tableView{Caption: "What happened in these runs", Head: []string{"backend", "run", "at", "node", "what", "more"}}
	for _, rw := range sc.ranked() {
		run, ok := typical(rw.headline())
		if !ok {
			continue
		}
		last := len(run.Series) - 1
		end, longest = max(end, run.Series[last].T+width(run.Series, last)), max(longest, perPoint(run.Series))
		happened.Rows = append(happened.Rows, b.eventCells(rw, run)...)
		g.Rows = append(g.Rows, b.timeRow(rw, run))
		cells, sway := timeCells(rw.label, run)
		t.Rows = append(t.Rows, tableRow{b.number(rw), cells})
		if rw.control == "" && sway > swing {
			worst, swing = rw.label, sway
		}
	}
	for i := range g.Rows {
		for k := range g.Rows[i].Panels {
			g.Rows[i].Panels[k].X.Max = float64(end) // lines end in the middle of a second, heat maps at its end
		}
	}
	if len(g.Rows) > 0 {
		finding := "Throughput and latency over the seconds of a run"
		if worst != "" {
			finding = fmt.Sprintf("From second to second throughput strays up to %.0f %% from its median (%s the most)", 100*swing, worst)
		}
		g.Label = finding
		note := "Throughput in ops/s and response p99 each second of the median run, with the range over all runs, and its latency heat map (the further from the paper’s colour, the more operations). Grey: warm-up. "
		if longest > 1 {
			note += fmt.Sprintf("Of a long run up to %d seconds make a point: their throughput, with the range over single ones, and the highest of their p99. ", longest)
		}
		if len(happened.Rows) > 0 {
			note += "Orange lines: what happened to the cluster, named where there is room and listed in a table below. "
		}
		block.Figures = append(block.Figures, figureView{Finding: finding, Drawings: drawn(g), Table: t, More: orNil(happened),
			Note: note + "Backends that keep nothing have scales of their own."})
	}
	for _, build := range []func(*scenario) (figureView, bool){b.faults, b.cycles, b.agedSave, b.agedDisk} {
		if f, ok := build(sc); ok {
			block.Figures = append(block.Figures, f)
		}
	}
	return block
}

// typical is the run with the median throughput among those with a series.
func typical(runs []*result.Run) (*result.Run, bool) {
	var with []*result.Run
	for _, r := range runs {
		if len(r.Series) > 1 {
			with = append(with, r)
		}
	}
	if len(with) == 0 {
		return nil, false
	}
	return middle(with, func(r *result.Run) float64 { return r.Throughput }), true
}

func (b *builder) timeRow(rw *row, run *result.Run) chart.Row {
	throughput := chart.Series{Name: rw.label, Style: b.of(rw)}
	p99 := throughput
	var shade [][2]float64
	step := perPoint(run.Series)
	for i := 0; i < len(run.Series); i += step {
		begin, end := run.Series[i].T, time.Duration(0)
		ops, slowest, lo, hi := int64(0), time.Duration(0), math.Inf(1), 0.0
		for k := i; k < min(i+step, len(run.Series)); k++ {
			pt := run.Series[k]
			end = pt.T + width(run.Series, k)
			ops, slowest = ops+pt.Ops, max(slowest, pt.P99)
			if pt.Warmup {
				shade = [][2]float64{{0, float64(end)}}
			}
			for _, r := range rw.headline() {
				if k < len(r.Series) {
					v := perSecond(r.Series, k)
					lo, hi = min(lo, v), max(hi, v)
				}
			}
		}
		middle := float64(begin+end) / 2
		throughput.X, throughput.Y = append(throughput.X, middle), append(throughput.Y, float64(ops)/(end-begin).Seconds())
		throughput.Lo, throughput.Hi = append(throughput.Lo, lo), append(throughput.Hi, hi)
		p99.X, p99.Y = append(p99.X, middle), append(p99.Y, positive(slowest))
	}
	x := chart.Axis{Kind: chart.Seconds}
	own := ""
	if rw.durability == "none" {
		own = " (scale of its own)"
	}
	r := chart.Row{Name: rw.label, Style: b.of(rw), Own: rw.durability == "none", Panels: []chart.Panel{
		{Title: "throughput, ops/s" + own, X: x, Y: chart.Axis{Kind: chart.Rate}, Series: []chart.Series{throughput}, Shade: shade, Events: events(run, true)},
		{Title: "response p99" + own, X: x, Y: chart.Axis{Kind: chart.Duration, Log: true}, Series: []chart.Series{p99}, Shade: shade, Events: events(run, false)},
	}}
	if h := heat(run); h != nil {
		r.Panels = append(r.Panels, chart.Panel{Title: "latency heat map" + own, X: x, Y: chart.Axis{Kind: chart.Duration, Log: true}, Heat: h})
	}
	return r
}

// positive is a duration as a coordinate; NaN where it was not measured.
func positive(d time.Duration) float64 {
	if d <= 0 {
		return math.NaN()
	}
	return float64(d)
}

// width is the length of the interval that begins with point i: up to the next
// one, and for the last as long as the one before it.
func width(series []result.Point, i int) time.Duration {
	if i+1 >= len(series) {
		i--
	}
	if i >= 0 && i+1 < len(series) && series[i+1].T > series[i].T {
		return series[i+1].T - series[i].T
	}
	return time.Second
}

// perSecond is the rate of the interval that begins with point i.
func perSecond(series []result.Point, i int) float64 {
	return float64(series[i].Ops) / width(series, i).Seconds()
}

// events are the marks of a run on the time axis; only one panel of a row has
// them labelled.
func events(run *result.Run, labelled bool) []chart.Event {
	var out []chart.Event
	for _, e := range run.Events[:min(len(run.Events), longestSeries)] {
		mark := chart.Event{At: float64(e.T), Name: eventWord(e)}
		if labelled {
			mark.Label = shorten(mark.Name, longestLabel)
		}
		if text := clean(e.Text); text != "" && text != mark.Name {
			mark.Name += ": " + text
		}
		out = append(out, mark)
	}
	return out
}

// longestLabel is the most runes of an event's label in a drawing.
const longestLabel = 28

// eventWord is the kind of an event in words, with the node that it happened to.
// A kind that this package does not know stands as it is.
func eventWord(e result.Event) string {
	word := strings.ReplaceAll(clean(e.Kind), "_", " ")
	if known := eventWords[e.Kind]; known != "" {
		word = known
	}
	if e.Kind == "fault" && e.Text != "" {
		return clean(e.Text) // what was done says more
	}
	if e.Node > 0 {
		word += fmt.Sprintf(", node %d", e.Node)
	}
	return word
}

// eventCells are the lines of a run in the table of events.
func (b *builder) eventCells(rw *row, run *result.Run) []tableRow {
	var out []tableRow
	for _, e := range run.Events[:min(len(run.Events), longestSeries)] {
		node := quantity.Absent
		if e.Node > 0 {
			node = fmt.Sprint(e.Node)
		}
		out = append(out, tableRow{b.number(rw), []string{rw.label, clean(run.ID), quantity.FormatDuration(float64(e.T)), node,
			eventWord(result.Event{Kind: e.Kind}), firstOf(shorten(clean(e.Text), 200), quantity.Absent)}})
	}
	return out
}

// heat is the heat map of a run; nil where its series has no buckets.
func heat(run *result.Run) *chart.Heat {
	if len(run.Series) == 0 {
		return nil
	}
	h := &chart.Heat{From: float64(run.Series[0].T)}
	rows := 0
	step := perPoint(run.Series)
	for i := 0; i < len(run.Series); i += step {
		var cells []float64
		end := time.Duration(0)
		for k := i; k < min(i+step, len(run.Series)); k++ {
			pt := run.Series[k]
			end = pt.T + width(run.Series, k)
			for j, n := range pt.Buckets {
				if j == len(cells) {
					cells = append(cells, 0)
				}
				cells[j] += float64(n)
			}
		}
		rows = max(rows, len(cells))
		h.X, h.Cells = append(h.X, float64(end)), append(h.Cells, cells)
	}
	if rows == 0 || rows > 64 {
		return nil
	}
	for j := range rows + 1 {
		h.Y = append(h.Y, 1000*math.Pow(2, float64(j-1))) // bucket j holds those below 2^j µs
	}
	return h
}

// timeCells is the line of a run in the figure's table, and how far its
// throughput strays from the median, as a share of it.
func timeCells(label string, run *result.Run) (cells []string, sway float64) {
	var rates, tails []float64
	slowest := time.Duration(0)
	for i, pt := range run.Series {
		if pt.Warmup {
			continue
		}
		rates = append(rates, perSecond(run.Series, i))
		if pt.P99 > 0 {
			tails = append(tails, float64(pt.P99))
		}
		slowest = max(slowest, pt.Max)
	}
	lo, hi := math.NaN(), math.NaN()
	if len(rates) > 0 {
		lo, hi = slices.Min(rates), slices.Max(rates)
	}
	mid := stats.Median(rates)
	cells = []string{label, fmt.Sprint(len(rates)), quantity.Format(lo, quantity.Rate), quantity.Format(mid, quantity.Rate), quantity.Format(hi, quantity.Rate)}
	_, top := quantity.Extent(tails)
	cells = append(cells, quantity.Format(stats.Median(tails), quantity.Duration), durationOrAbsent(top), durationOrAbsent(float64(slowest)))
	if mid > 0 {
		sway = max(hi-mid, mid-lo) / mid
	}
	return cells, sway
}
