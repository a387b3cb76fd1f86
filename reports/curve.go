package reports

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// curve is the figure of response p99 against achieved throughput, of loads that
// vary.
func (b *builder) curve(sc *scenario) blockView {
	if !sc.curve {
		return blockView{}
	}
	var block blockView
	if f, ok := b.found(sc); ok {
		block.Figures = append(block.Figures, f)
	}
	slo, sloText := sc.objective()
	p := chart.Panel{X: chart.Axis{Kind: chart.Rate, Title: "achieved, ops/s"}, Y: chart.Axis{Kind: chart.Duration, Log: true, Title: "response p99"}}
	if slo > 0 {
		p.Refs = []chart.Ref{{At: slo, Name: "objective: " + sloText}}
	}
	t := &tableView{Caption: "Every load of the curve, medians", Head: []string{"backend", "load", "offered, ops/s", "achieved, ops/s", "response p50", "response p99", "errors", "runs"}}
	best, bestRate := "", 0.0
	for _, rw := range sc.ranked() {
		s := chart.Series{Name: rw.label, Style: b.of(rw), Marks: true, NoLine: sc.search} // steps are in no order of time
		for _, pt := range rw.points() {
			t.Rows = append(t.Rows, tableRow{b.number(rw), pointCells(rw, pt)})
			if pt.throughput.N == 0 || pt.p99.N == 0 {
				continue
			}
			s.X, s.Y = append(s.X, pt.throughput.Median), append(s.Y, pt.p99.Median)
			s.Hollow = append(s.Hollow, !pt.reached() || pt.missed)
			if rw.control == "" && pt.reached() && pt.errors == 0 && (slo == 0 || pt.p99.Median <= slo) && pt.throughput.Median > bestRate {
				best, bestRate = rw.label, pt.throughput.Median
			}
		}
		if len(s.X) > 0 {
			p.Series = append(p.Series, s)
		}
	}
	if len(p.Series) == 0 {
		return block
	}
	finding := "No load was reached"
	switch {
	case sc.search:
		finding = "The steps of the searches: where response p99 leaves the objective"
	case best != "" && slo > 0:
		finding = fmt.Sprintf("%s carries the most within %s: %s ops/s", best, sloText, quantity.FormatCount(bestRate))
	case best != "":
		finding = fmt.Sprintf("%s carries the most: %s ops/s", best, quantity.FormatCount(bestRate))
	case slo > 0:
		finding = "No load kept " + sloText
	}
	linear := p
	linear.Y.Log = false
	note := fmt.Sprintf("Response p99 against achieved throughput, medians of up to %s a point; hollow: ", plural(mostRuns(sc), "run"))
	if sc.search {
		note += "the objective was missed at that rate, in some run."
	} else {
		note += "less than 99 % of the offered rate was achieved."
	}
	block.Figures = append(block.Figures, figureView{Finding: finding, Table: t, Note: note,
		Drawings: bothScales(chart.Lines{Label: finding, Panel: p}, chart.Lines{Label: finding, Panel: linear})})
	return block
}

func pointCells(rw *row, p point) []string {
	offered := quantity.Absent
	if p.offered > 0 {
		offered = quantity.FormatCount(p.offered)
	} else if p.clients > 0 {
		offered = plural(p.clients, "client")
	}
	cell := func(s summary, m *metric) string {
		if s.N == 0 {
			return quantity.Absent
		}
		return quantity.Format(s.Median, m.unit)
	}
	return []string{rw.label, p.name, offered, cell(p.throughput, metricThroughput), cell(p.p50, metricResponse50), cell(p.p99, metricResponse99),
		formatInt(p.errors), fmt.Sprint(len(p.runs))}
}

func mostRuns(sc *scenario) int {
	n := 0
	for _, rw := range sc.rows {
		for _, p := range rw.points() {
			n = max(n, len(p.runs))
		}
	}
	return n
}

// objective is the service-level objective of a search, as a limit of the
// response p99 in nanoseconds; 0 where there is none, or it is of another
// percentile.
func (sc *scenario) objective() (limit float64, text string) {
	for _, rw := range sc.rows {
		for _, r := range rw.runs {
			if metric, d, ok := parseObjective(r.Load.SLO); ok && metric == "p99" {
				return float64(d), "p99 < " + limitText(d)
			}
		}
	}
	return 0, ""
}

// sloText is the objective of a search in words: "p99 < 10 ms".
func (sc *scenario) sloText() string {
	metric, d, ok := parseObjective(sc.slo)
	if !ok {
		return firstOf(clean(sc.slo), "the objective")
	}
	if metric == "p999" {
		metric = "p99.9"
	}
	return clean(metric) + " < " + limitText(d)
}

// limitText is a duration that somebody chose, with no more digits than it has:
// "10 ms".
func limitText(d time.Duration) string {
	name, size := quantity.DurationUnit(float64(d))
	return strconv.FormatFloat(float64(d)/size, 'g', -1, 64) + " " + name
}

// parseObjective takes "p99<10ms" apart.
func parseObjective(slo string) (metric string, limit time.Duration, ok bool) {
	metric, value, ok := strings.Cut(slo, "<")
	d, err := time.ParseDuration(strings.TrimSpace(value))
	return strings.TrimSpace(metric), d, ok && err == nil && d > 0
}
