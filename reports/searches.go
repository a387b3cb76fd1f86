package reports

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// confirmedPoint is Load.Point of the runs that confirmed the rate of a search.
const confirmedPoint = "confirmed"

// searched is one search of one backend in one block.
type searched struct {
	env       string // of a merged report
	block     int
	steps     int
	confirmed *result.Run // the last run that confirmed the rate; nil where none was found
	finished  bool
}

// rate is the rate that the search found, in operations a second.
func (s searched) rate() float64 { return s.confirmed.Load.Rate }

// searches are the searches that the runs of a row are the steps of, in the order
// of their blocks.
func (rw *row) searches() []searched {
	var out []searched
	for _, r := range rw.runs {
		i := slices.IndexFunc(out, func(s searched) bool { return s.env == r.Env && s.block == r.Block })
		if i < 0 {
			i = len(out)
			out = append(out, searched{env: r.Env, block: r.Block, finished: rw.concluded(r)})
		}
		out[i].steps++
		if r.Load.Point == confirmedPoint && r.Load.Rate > 0 && quantity.Usable(r.Load.Rate) &&
			(out[i].confirmed == nil || r.Load.Step > out[i].confirmed.Load.Step) {
			out[i].confirmed = r
		}
	}
	slices.SortStableFunc(out, func(a, b searched) int { return cmp.Or(cmp.Compare(a.env, b.env), cmp.Compare(a.block, b.block)) })
	return out
}

// concluded reports whether the search that r is a step of came to its end: only then are
// its steps told how they came out, and each search has one that missed or confirmed.
func (rw *row) concluded(r *result.Run) bool {
	return slices.ContainsFunc(rw.runs, func(o *result.Run) bool {
		return o.Env == r.Env && o.Block == r.Block && (o.Load.Missed != "" || o.Load.Point == confirmedPoint)
	})
}

// outcome is what a search came to, in words.
func (s searched) outcome() string {
	switch {
	case s.confirmed != nil:
		return "confirmed three times"
	case !s.finished:
		return "not finished"
	}
	return "no rate holds it"
}

// held are the rates that the searches of a row found, and of how many searches.
func (rw *row) held() (rates []float64, all int) {
	searches := rw.searches()
	for _, s := range searches {
		if s.confirmed != nil {
			rates = append(rates, s.rate())
		}
	}
	return rates, len(searches)
}

// found is how the searches of a scenario came out, a dot for each.
func (b *builder) found(sc *scenario) (figureView, bool) {
	if !sc.search {
		return figureView{}, false
	}
	t := &tableView{Caption: "Every search for the highest rate within " + sc.sloText(), Head: []string{"backend", "block", "rate, ops/s", "response p50 at it", "response p99 at it", "runs it took", "outcome"}}
	strip := chart.Strip{Kind: chart.Rate}
	for _, rw := range sc.ranked() {
		for _, s := range rw.searches() {
			cells := []string{rw.label, fmt.Sprint(s.block), quantity.Absent, quantity.Absent, quantity.Absent, fmt.Sprint(s.steps), s.outcome()}
			if s.confirmed != nil {
				cells[2] = quantity.FormatCount(s.rate())
				cells[3], cells[4] = durationOrAbsent(float64(s.confirmed.Response.P50)), durationOrAbsent(float64(s.confirmed.Response.P99))
			}
			t.Rows = append(t.Rows, tableRow{b.number(rw), cells})
		}
		rates, all := rw.held()
		cloud := chart.Cloud{Name: rw.label, Style: b.of(rw), Values: rates, Text: fmt.Sprintf("none in %s", pluralOf(all, "search", "searches"))}
		if len(rates) > 0 {
			cloud.Text = fmt.Sprintf("%s (%d of %d)", quantity.FormatCount(stats.Median(rates)), len(rates), all)
		}
		strip.Rows = append(strip.Rows, cloud)
	}
	finding := sc.searchFinding()
	strip.Label = finding
	return figureView{Finding: finding, Drawings: drawn(strip), Table: t,
		Note: "Every search a dot: the highest rate in ops/s at which three runs in a row held the objective, log axis. At the right the median, and how many searches found a rate."}, true
}

// searchFinding names the engine that holds the highest rate.
func (sc *scenario) searchFinding() string {
	best, top, n := "", 0.0, 0
	for _, rw := range sc.rows {
		rates, _ := rw.held()
		if m := stats.Median(rates); rw.control == "" && len(rates) > 0 && m > top {
			best, top, n = rw.label, m, len(rates)
		}
	}
	if best == "" {
		return "No engine was found to hold " + sc.sloText()
	}
	return fmt.Sprintf("%s holds %s at the highest rate: %s ops/s, median of %s", best, sc.sloText(), quantity.FormatCount(top), pluralOf(n, "search", "searches"))
}

// searchColumns are the outcome of searches in a table.
func (sc *scenario) searchColumns(rows []*row) []tableColumn {
	title := "highest rate, ops/s"
	held, low, high := tableColumn{group: title, head: "median"}, tableColumn{group: title, head: "lowest"}, tableColumn{group: title, head: "highest"}
	found, steps := tableColumn{group: "searches", head: "found"}, tableColumn{group: "searches", head: "runs"}
	for _, rw := range rows {
		rates, all := rw.held()
		lo, hi := quantity.Extent(rates)
		for _, c := range []struct {
			column *tableColumn
			value  float64
		}{{&held, stats.Median(rates)}, {&low, lo}, {&high, hi}} {
			text := quantity.Absent
			if len(rates) > 0 {
				text = quantity.FormatCount(c.value)
			}
			c.column.cells = append(c.column.cells, tableCell{text: text})
		}
		runs := 0
		for _, s := range rw.searches() {
			runs += s.steps
		}
		found.cells = append(found.cells, tableCell{text: fmt.Sprintf("%d of %d", len(rates), all)})
		steps.cells = append(steps.cells, tableCell{text: fmt.Sprint(runs)})
	}
	return []tableColumn{held, low, high, found, steps}
}

// unfound are the engines for which no search found a rate.
func (sc *scenario) unfound() []string {
	var out []string
	for _, rw := range sc.rows {
		if rates, all := rw.held(); rw.control == "" && all > 0 && len(rates) == 0 {
			out = append(out, rw.label)
		}
	}
	return out
}
