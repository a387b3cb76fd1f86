package reports

import (
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// boardView is the scoreboard of one scenario.
type boardView struct {
	Scenario string // key in the page's data
	Baseline string // the default one's label
	Columns  []boardColumn
	Rows     []boardRow
	Notes    []string
	All      *tableView // every figure, also those without a column
}

type boardColumn struct {
	Group, Head, Unit string
	Hint              string
	First             bool // of its group
}

type boardRow struct {
	Style  string
	Colour string // CSS class
	Swatch template.HTML
	Label  string
	Tag    string // what sets it apart: a control, nothing durable
	Apart  bool   // the first row of another class
	Cells  []boardCell
	// Against is the verdict against the default baseline.
	Against contrastText
}

type boardCell struct {
	Text, Sub string
	Sort      string // value to sort by, "" where absent
	Bar       int    // length of a bar in per cent; 0 for none
	Thin      bool
	Class     string
}

// boardGroups are the columns of the scoreboard on the page.
var boardGroups = []struct {
	columnGroup
	hint []string
}{
	{columnGroup{"", []*metric{metricThroughput}, []string{"ops/s"}, true}, []string{"Operations committed and applied a second."}},
	{columnGroup{"response", []*metric{metricResponse50, metricResponse99, metricResponse999}, []string{"p50", "p99", "p99.9"}, true},
		[]string{"Half of the operations answer within this time.", "99 of 100 operations answer within this time.", "999 of 1000 operations answer within this time."}},
	{columnGroup{"Save", []*metric{metricSave50, metricSave99}, []string{"p50", "p99"}, true},
		[]string{"Median time to make entries durable, on the leader.", "99 of 100 Saves take at most this time."}},
	{columnGroup{"Save", []*metric{metricFloor}, []string{"× floor"}, true}, []string{"Save p50 as a multiple of a synced raw write of the same size: 1 is the disk’s own speed."}},
	{columnGroup{"entries", []*metric{metricEntries}, []string{"/Save"}, true}, []string{"Entries that one Save makes durable."}},
	{columnGroup{"fsyncs", []*metric{metricFsyncs}, []string{"/op"}, true}, []string{"Sync calls, on all nodes, per committed operation."}},
	{columnGroup{"write", []*metric{metricWriteAmp}, []string{"amp"}, true}, []string{"Bytes written to the disk per byte handed to the store."}},
	{columnGroup{"snapshot", []*metric{metricInstall}, []string{"install"}, true}, []string{"From the follower being reachable again until its state machine is restored."}},
	{columnGroup{"restart", []*metric{metricOpen}, []string{"open"}, true}, []string{"Time to open the store again, with all its checks."}},
	{columnGroup{"restart", []*metric{metricReady}, []string{"ready"}, false}, []string{"Time from opening the store until its node runs and has replayed its state machine."}},
	{columnGroup{"Save p99", []*metric{metricAgeSave}, []string{"aged"}, false}, []string{"Save p99 of the last cycles over that of the first: 1 is a store that does not age."}},
	{columnGroup{"disk", []*metric{metricAgeDisk}, []string{"aged"}, false}, []string{"Bytes on disk after the last cycles over those after the first."}},
}

// scoreboard is the table of a scenario, one row per backend.
func (b *builder) scoreboard(sc *scenario) blockView {
	rows := sc.ranked()
	board := &boardView{Scenario: b.scenarioID(sc)}
	bare := sc.workload == "snapshot" || sc.workload == "restart"
	base := sc.baseline()
	for i, rw := range rows {
		r := boardRow{Style: b.number(rw), Colour: b.of(rw).Colour(), Swatch: template.HTML(swatch(b.of(rw))), Label: rw.label} //nolint:gosec // no text in it
		switch {
		case rw.control != "":
			r.Tag = "control: " + strings.ReplaceAll(rw.control, " ", "\u00a0") // of two lines, if not on one
		case rw.durability == "none":
			r.Tag = "not durable"
		}
		r.Apart = i > 0 && (rw.durability == "none") != (rows[i-1].durability == "none")
		r.Against = sc.against1(base, rw)
		board.Rows = append(board.Rows, r)
	}
	if base != nil {
		board.Baseline = base.label
	}
	for _, g := range boardGroups {
		b.boardGroup(sc, rows, board, g.columnGroup, g.hint, bare)
	}
	for i, rw := range rows {
		board.Rows[i].Cells = append(board.Rows[i].Cells, verifiedCell(rw))
	}
	board.Columns = append(board.Columns, boardColumn{Head: "verified", First: true, Hint: "After the run, every acknowledged entry was read back and compared."})
	board.Notes = sc.boardNotes()
	board.All = b.allFigures(rows)
	b.fillContrasts(sc)
	return blockView{Board: board}
}

// boardGroup adds one group of columns to a scoreboard.
func (b *builder) boardGroup(sc *scenario, rows []*row, board *boardView, g columnGroup, hints []string, bare bool) {
	sums := make([][]summary, len(g.metrics))
	var all []float64
	for i, m := range g.metrics {
		for _, rw := range rows {
			sums[i] = append(sums[i], rw.of(m))
		}
		all = append(all, medians(sums[i])...)
	}
	if len(all) == 0 && (!g.always || bare) {
		return
	}
	common := commonForm(g.metrics[0].unit, rows, sums)
	for i, m := range g.metrics {
		top := map[string]float64{} // by durability, which are not ranked together
		for k, s := range sums[i] {
			top[rows[k].durability] = max(top[rows[k].durability], s.Median)
		}
		apart := len(top) > 1 // then a bar of what keeps nothing would have a scale of its own
		form := common.WithDecimals(comparable(rows, sums[i]))
		board.Columns = append(board.Columns, boardColumn{Group: g.title, Head: g.heads[i], Unit: common.Name, Hint: hints[i], First: i == 0})
		for k, s := range sums[i] {
			cell := boardCell{Text: quantity.Absent, Thin: s.thin}
			if s.N > 0 {
				cell.Text, cell.Sort = form.Format(s.Median), strconv.FormatFloat(s.Median, 'g', 8, 64)
				if m == sc.primary() {
					cell.Sub = boardInterval(form, s)
					if !apart || rows[k].durability != "none" {
						cell.Bar = barLength(s.Median, top[rows[k].durability])
					}
				}
				if m.moved() && s.bytes > 0 {
					cell.Sub = quantity.FormatBytes(float64(s.bytes))
				}
			}
			board.Rows[k].Cells = append(board.Rows[k].Cells, cell)
		}
	}
}

func boardInterval(form quantity.Column, s summary) string {
	if !s.Interval {
		return ""
	}
	return form.Format(s.Lo) + "–" + form.Format(s.Hi)
}

func barLength(v, top float64) int {
	if top <= 0 {
		return 0
	}
	return max(int(100*v/top), 1)
}

func verifiedCell(rw *row) boardCell {
	text, ok := rw.verified()
	cell := boardCell{Text: text, Sort: text}
	switch {
	case len(rw.runs) == 0:
		return boardCell{Text: "run failed", Sort: "z", Class: "bad"}
	case !ok:
		cell.Class = "bad"
	case text == "yes":
		cell.Class = "good"
	}
	return cell
}

// allFigures is every metric that some row has, of which the scoreboard shows
// the ones that decide.
func (b *builder) allFigures(rows []*row) *tableView {
	t := &tableView{Caption: "Every figure, medians over the runs", Head: []string{"backend"}}
	for _, rw := range rows {
		t.Rows = append(t.Rows, tableRow{b.number(rw), []string{rw.label}})
	}
	for _, m := range metrics {
		var column []string
		some := false
		for _, rw := range rows {
			s := rw.of(m)
			text := quantity.Absent
			if s.N > 0 {
				text, some = quantity.Format(s.Median, m.unit), true
			}
			column = append(column, text)
		}
		if !some {
			continue
		}
		t.Head = append(t.Head, m.title)
		for i := range t.Rows {
			t.Rows[i].Cells = append(t.Rows[i].Cells, column[i])
		}
	}
	return t
}

// boardNotes explain what in the scoreboard needs it.
func (sc *scenario) boardNotes() []string {
	var notes []string
	n := sc.repeats()
	note := "Medians of " + plural(n, "run")
	if n >= minRepeats {
		note += "; below them the 95 % interval of the median"
	} else {
		note += ": too few for an interval"
	}
	notes = append(notes, note+".")
	if sc.kind == "closed" {
		notes = append(notes, "Closed loop: response is service time; a stall hides the requests that were never sent.")
	}
	if names := sc.byDevice(); len(names) > 0 {
		notes = append(notes, "Write amp of "+list(names)+" counts what the device wrote, by whomever: the kernel counted more for the process, because it counts whole large folios.")
	}
	for _, rw := range sc.rows {
		for _, m := range []*metric{metricResponse50, metricResponse99, metricResponse999, metricSave99} {
			if s := rw.of(m); s.N > 0 && s.thin {
				return append(notes, "Figures in italics have fewer than 10 samples beyond them in some run.")
			}
		}
	}
	return notes
}

// byDevice names the backends whose written bytes were counted at the device.
func (sc *scenario) byDevice() []string {
	var names []string
	for _, rw := range sc.rows {
		if slices.ContainsFunc(rw.runs, func(r *result.Run) bool { return r.Bytes != nil && r.Bytes.WrittenSource == "device" }) {
			names = append(names, rw.label)
		}
	}
	return names
}

// baseline is what a scenario is compared with unless the reader chooses
// another: the baseline of the result's own comparisons, else the first engine.
func (sc *scenario) baseline() *row {
	for _, res := range sc.site.results {
		for _, c := range res.Comparisons {
			for _, rw := range sc.rows {
				if rw.name() == c.Baseline && len(rw.runs) > 0 {
					return rw
				}
			}
		}
	}
	synced, unsynced := sc.engines()
	for _, rw := range append(synced, unsynced...) {
		return rw
	}
	for _, rw := range sc.rows {
		if len(rw.runs) > 0 {
			return rw
		}
	}
	return nil
}

// contrastText is a comparison as a cell of the scoreboard.
type contrastText struct {
	Text, Sub, Class string
}

// against1 is the comparison of one row with a baseline by the scenario's
// primary figure.
func (sc *scenario) against1(base, rw *row) contrastText {
	switch {
	case base == nil:
		return contrastText{Text: quantity.Absent}
	case rw == base:
		return contrastText{Text: "baseline", Class: "base"}
	case rw.durability != base.durability:
		return contrastText{Text: "not ranked", Sub: "other durability", Class: "muted"}
	}
	c, ok := sc.contrast(sc.primary(), base, rw)
	if !ok {
		return contrastText{Text: quantity.Absent}
	}
	t := contrastText{Text: quantity.Significant(c.Ratio) + "×", Sub: contrastVerdict(c), Class: clean(c.Verdict)}
	if c.Hi > 0 {
		t.Text += " " + contrastVerdict(c)
		t.Sub = quantity.Significant(c.Lo) + "–" + quantity.Significant(c.Hi)
	}
	return t
}

// contrastRatio is the ratio with its interval: "0.73× (0.72–0.74)".
func contrastRatio(c result.Comparison) string {
	text := quantity.Format(c.Ratio, quantity.Ratio)
	if c.Hi > 0 {
		text += fmt.Sprintf(" (%s–%s)", quantity.Significant(c.Lo), quantity.Significant(c.Hi))
	}
	return text
}

// contrastVerdict is the verdict, or why there is none.
func contrastVerdict(c result.Comparison) string {
	if c.N < minRepeats {
		return plural(c.N, "block") + ": undecided"
	}
	if c.Verdict == stats.Inconclusive {
		return "undecided"
	}
	return clean(c.Verdict)
}

// fillContrasts puts the scoreboard's last column for every baseline into the
// page's data.
func (b *builder) fillContrasts(sc *scenario) {
	byBase := map[string]map[string][]string{}
	for _, base := range sc.rows {
		if len(base.runs) == 0 {
			continue
		}
		cells := map[string][]string{}
		for _, rw := range sc.rows {
			t := sc.against1(base, rw)
			cells[b.number(rw)] = []string{t.Text, t.Sub, t.Class}
		}
		byBase[b.number(base)] = cells
	}
	b.contrasts[b.scenarioID(sc)] = byBase
}
