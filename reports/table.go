package reports

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// TableOptions says how a table is laid out.
type TableOptions struct {
	Width int  // columns of the terminal; 0 is 100
	Color bool // ANSI colours
}

const defaultWidth = 100

// Table writes the scoreboard of every scenario for a terminal. Columns that do
// not fit beside each other go into further blocks below, each with the names
// again.
func Table(w io.Writer, r *result.Result, o TableOptions) error {
	if o.Width <= 0 {
		o.Width = defaultWidth
	}
	t := &tableWriter{TableOptions: o}
	s := newSite([]*result.Result{r})
	for i, sc := range s.joined() {
		if i > 0 {
			t.line("")
		}
		t.scenario(sc)
	}
	t.verdict(s.headline().judge())
	_, err := io.WriteString(w, t.b.String())
	return err
}

type tableWriter struct {
	TableOptions
	b strings.Builder
}

func (t *tableWriter) line(s string) {
	t.b.WriteString(strings.TrimRight(s, " "))
	t.b.WriteByte('\n')
}

// wrap writes text in lines that fit, all but the first indented.
func (t *tableWriter) wrap(text, indent string) {
	line, width := "", max(t.Width, 20)
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > width-len(indent) { // longer than a line
			if line != "" && line != indent {
				t.line(line)
			}
			cut := []rune(word)
			t.line(indent + string(cut[:width-len(indent)]))
			line, word = indent, string(cut[width-len(indent):])
		}
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			t.line(line)
			line = indent + word
			continue
		}
		if line != "" && line != indent {
			line += " "
		}
		line += word
	}
	t.line(line)
}

func (t *tableWriter) paint(code, s string) string {
	if !t.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// tableColumn is one column of the terminal's scoreboard.
type tableColumn struct {
	group string // over several columns
	head  string
	cells []tableCell
	width int
}

type tableCell struct {
	text  string
	color string // ANSI code
}

func (c *tableColumn) measure() {
	c.width = utf8.RuneCountInString(c.head)
	for _, cell := range c.cells {
		c.width = max(c.width, utf8.RuneCountInString(cell.text))
	}
}

func (t *tableWriter) scenario(sc *scenario) {
	n := sc.repeats()
	t.wrap(t.paint("1", capital(sc.title()))+", median of "+plural(n, "run"), "  ")
	rows := sc.tableRows()
	names := sc.nameColumn(rows, max(t.Width/3, 8))
	missing := false
	columns := sc.tableColumns(rows)
	measureColumns(columns)
	for _, column := range columns {
		for _, c := range column.cells {
			missing = missing || c.text == quantity.Absent
		}
	}
	t.blocks(names, columns, rows)
	if columns := agedColumns(rows); len(columns) > 0 {
		t.line("")
		t.wrap(agedText(rows), "  ")
		t.blocks(names, columns, rows)
	}
	if missing {
		t.line("")
		t.line(quantity.Absent + "  not measured")
	}
}

// blocks writes as many columns beside each other as fit, and the others below,
// with the names again. rows may hold nil.
func (t *tableWriter) blocks(names tableColumn, columns []tableColumn, rows []*row) {
	for len(columns) > 0 {
		k, width := 0, names.width
		for k < len(columns) && (k == 0 || width+2+columns[k].width <= t.Width) {
			width += 2 + columns[k].width
			k++
		}
		t.line("")
		t.block(names, columns[:k], rows)
		columns = columns[k:]
	}
}

// block writes one set of columns that fit beside each other.
func (t *tableWriter) block(names tableColumn, columns []tableColumn, rows []*row) {
	pad := strings.Repeat(" ", names.width)
	groups, heads := pad, names.head+pad[len(names.head):]
	for i := 0; i < len(columns); {
		j, width := i, 0
		for j < len(columns) && columns[j].group == columns[i].group {
			if j > i {
				width += 2
			}
			width += columns[j].width
			j++
		}
		groups += "  " + center(columns[i].group, width)
		i = j
	}
	for _, c := range columns {
		heads += "  " + right(c.head, c.width)
	}
	if strings.TrimSpace(groups) != "" {
		t.line(t.paint("2", groups))
	}
	t.line(t.paint("2", heads))
	for i, rw := range rows {
		if i > 0 && rw != nil && (rw.durability == "none") != (rows[i-1].durability == "none") {
			t.line(t.paint("2", shorten("not durable, ranked apart:", t.Width)))
		}
		line := names.cells[i].text
		line += strings.Repeat(" ", names.width-utf8.RuneCountInString(line))
		if i == 0 && rw != nil && rw.control == "" {
			line = t.paint("1", line)
		}
		for _, c := range columns {
			text := right(c.cells[i].text, c.width)
			if c.cells[i].color != "" {
				text = t.paint(c.cells[i].color, text)
			}
			line += "  " + text
		}
		t.line(line)
	}
}

// columnGroup is some figures of one kind, shown side by side in one unit.
type columnGroup struct {
	title   string
	metrics []*metric
	heads   []string
	always  bool // shown even where no row has it
}

// The groups of columns of the scoreboard on a terminal and in Markdown.
var (
	groupThroughput = columnGroup{"", []*metric{metricThroughput}, []string{"ops/s"}, true}
	groupResponse   = columnGroup{"response", []*metric{metricResponse50, metricResponse99, metricResponse999}, []string{"p50", "p99", "p99.9"}, true}
	groupSave       = columnGroup{"save", []*metric{metricSave50, metricSave99}, []string{"p50", "p99"}, true}
	groupFloor      = columnGroup{"", []*metric{metricFloor}, []string{"×floor"}, true}
	groupEntries    = columnGroup{"entries", []*metric{metricEntries}, []string{"/save"}, true}
	groupFsyncs     = columnGroup{"fsyncs", []*metric{metricFsyncs}, []string{"/op"}, true}
	groupInstall    = columnGroup{"snapshot", []*metric{metricInstall}, []string{"install"}, true}
	groupOpen       = columnGroup{"restart", []*metric{metricOpen}, []string{"open"}, false}
	groupMemory     = columnGroup{"memory", []*metric{metricRSS}, []string{"RSS"}, false}
	groupDisk       = columnGroup{"disk", []*metric{metricDisk}, []string{"in use"}, false}
	groupLog        = columnGroup{"log", []*metric{metricLogEntries}, []string{"entries"}, false}
)

// tableColumns are the figures of the scoreboard: those that the workload is
// about.
func (sc *scenario) tableColumns(rows []*row) []tableColumn {
	var out []tableColumn
	groups := func(gs ...columnGroup) {
		for _, g := range gs {
			out = append(out, sc.groupColumns(g, rows)...)
		}
	}
	switch {
	case sc.search:
		out = sc.searchColumns(rows)
		groups(groupResponse, groupSave, groupFloor)
	case sc.workload == "snapshot":
		out = slices.Concat(sc.sizedColumns(metricInstall, "install", rows), sc.sizedColumns(metricForeground, "response p99 meanwhile", rows))
		groups(groupMemory)
	case sc.workload == "restart":
		out = slices.Concat(sc.sizedColumns(metricOpen, "open", rows), sc.sizedColumns(metricReady, "ready", rows))
		groups(groupLog, groupMemory)
	case sc.workload == "age":
		groups(groupThroughput, groupResponse, groupSave, groupFloor, groupDisk)
	case sc.workload == "trace":
		groups(groupThroughput)
		out = append(out, sc.traceColumns(rows)...)
		groups(groupResponse, groupSave, groupFloor, groupEntries, groupFsyncs, groupInstall, groupOpen)
	default:
		groups(groupThroughput, groupResponse, groupSave, groupFloor, groupEntries, groupFsyncs, groupInstall, groupOpen)
	}
	if sc.networked() {
		groups(networkGroups...)
	}
	if sc.faults != "" {
		groups(faultGroups...)
	}
	return append(out, verifiedColumn(rows))
}

// sizedColumns are the medians of a figure that depends on the size of what is
// moved, a column for each size.
func (sc *scenario) sizedColumns(m *metric, title string, rows []*row) []tableColumn {
	var sizes []int64
	for _, rw := range rows {
		for _, r := range rw.runs {
			if _, ok := m.get(r); ok && !slices.Contains(sizes, r.StateBytes) {
				sizes = append(sizes, r.StateBytes)
			}
		}
	}
	slices.Sort(sizes)
	sums := make([][]summary, len(sizes))
	for i, size := range sizes {
		for _, rw := range rows {
			at := slices.DeleteFunc(slices.Clone(rw.runs), func(r *result.Run) bool { return r.StateBytes != size })
			sums[i] = append(sums[i], summarizeRuns(at, m))
		}
	}
	form := commonForm(m.unit, rows, sums)
	if form.Name != "" {
		title += ", " + form.Name
	}
	var out []tableColumn
	for i, size := range sizes {
		c := tableColumn{group: title, head: quantity.FormatBytes(float64(size))}
		if size == 0 {
			c.head = "time"
		}
		at := form.WithDecimals(comparable(rows, sums[i]))
		for _, s := range sums[i] {
			text := quantity.Absent
			if s.N > 0 {
				text = at.Format(s.Median)
			}
			c.cells = append(c.cells, tableCell{text: text})
		}
		out = append(out, c)
		if m == sc.primary() && i == len(sizes)-1 {
			if spread := spreadColumn(sums[i]); spread != nil {
				spread.group = title
				out = append(out, *spread)
			}
		}
	}
	return out
}

func (sc *scenario) groupColumns(g columnGroup, rows []*row) []tableColumn {
	sums := make([][]summary, len(g.metrics))
	var all []float64
	for i, m := range g.metrics {
		for _, rw := range rows {
			s := rw.of(m)
			sums[i] = append(sums[i], s)
			if s.N > 0 {
				all = append(all, s.Median)
			}
		}
	}
	if len(all) == 0 && !g.always {
		return nil
	}
	common := commonForm(g.metrics[0].unit, rows, sums)
	title := g.title
	if common.Name != "" {
		title += ", " + common.Name
	}
	var out []tableColumn
	for i, m := range g.metrics {
		c := tableColumn{group: title, head: g.heads[i]}
		form := common.WithDecimals(comparable(rows, sums[i]))
		for _, s := range sums[i] {
			cell := tableCell{text: quantity.Absent}
			if s.N > 0 {
				cell.text = form.Format(s.Median)
			}
			if s.thin {
				cell.color = "2"
			}
			c.cells = append(c.cells, cell)
		}
		out = append(out, c)
		if m == sc.primary() {
			if spread := spreadColumn(sums[i]); spread != nil {
				spread.group = title
				out = append(out, *spread)
			}
		}
	}
	return out
}

// commonForm is the unit that the columns of a group share. Backends that keep
// nothing are orders of magnitude away, and do not choose it unless they are
// alone.
func commonForm(u quantity.Unit, rows []*row, sums [][]summary) quantity.Column {
	var all []float64
	for _, s := range sums {
		all = append(all, comparable(rows, s)...)
	}
	return quantity.ColumnFor(u, all)
}

// comparable are the medians of the rows that keep what they are given; of all
// rows where there are none.
func comparable(rows []*row, sums []summary) []float64 {
	var synced []summary
	for i, s := range sums {
		if rows[i].durability != "none" {
			synced = append(synced, s)
		}
	}
	if out := medians(synced); len(out) > 0 {
		return out
	}
	return medians(sums)
}

func medians(sums []summary) []float64 {
	var out []float64
	for _, s := range sums {
		if s.N > 0 {
			out = append(out, s.Median)
		}
	}
	return out
}

// measureColumns gives every column the width of its widest cell, and the last
// of a group what the group's title still lacks.
func measureColumns(columns []tableColumn) {
	for i := range columns {
		columns[i].measure()
	}
	for i := 0; i < len(columns); {
		j, width := i, -2
		for j < len(columns) && columns[j].group == columns[i].group {
			width += 2 + columns[j].width
			j++
		}
		if lack := utf8.RuneCountInString(columns[i].group) - width; lack > 0 {
			columns[j-1].width += lack
		}
		i = j
	}
}

// spreadColumn shows half the width of the 95 % interval in per cent; nil
// where no row has one.
func spreadColumn(sums []summary) *tableColumn {
	c := tableColumn{head: "±"}
	some := false
	for _, s := range sums {
		text := ""
		if s.Interval && s.Median > 0 {
			some = true
			text = fmt.Sprintf("%.0f%%", 100*max(s.Hi-s.Median, s.Median-s.Lo)/s.Median)
		}
		c.cells = append(c.cells, tableCell{text: text})
	}
	if !some {
		return nil
	}
	return &c
}

func verifiedColumn(rows []*row) tableColumn {
	c := tableColumn{head: "verified"}
	for _, rw := range rows {
		text, ok := rw.verified()
		cell := tableCell{text: text}
		switch {
		case len(rw.runs) == 0:
			cell = tableCell{text: "failed", color: "31"}
		case !ok:
			cell.color = "1;31"
		case text == "yes":
			cell.color = "32"
		}
		c.cells = append(c.cells, cell)
	}
	return c
}

func (t *tableWriter) verdict(j Judgement) {
	t.line("")
	t.wrap(j.Sentence, "")
	for _, d := range j.Detail {
		t.wrap(d, "")
	}
	if len(j.Reasons) == 0 {
		return
	}
	t.line("")
	for _, r := range j.Reasons {
		color, mark := "33", "warning"
		if r.Severity == Invalidates {
			color, mark = "1;31", "INVALID"
		}
		text := t.paint(color, mark) + " " + r.Title
		if r.Where != "" {
			text += " (" + r.Where + ")"
		}
		t.wrap(text+". "+r.Action, "  ")
	}
}

func right(s string, width int) string {
	return strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0)) + s
}

// center puts s over width columns; a longer one is cut.
func center(s string, width int) string {
	s = shorten(s, width)
	free := width - utf8.RuneCountInString(s)
	return strings.Repeat(" ", free/2) + s + strings.Repeat(" ", free-free/2)
}
