package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// joinable are the settings whose values one table shows beside each other.
var joinable = [...]struct {
	head string
	of   func(*scenarioKey) *string
}{
	joinTransport: {"transport", func(k *scenarioKey) *string { return &k.transport }},
	joinLoop:      {"loop", func(k *scenarioKey) *string { return &k.loop }},
	joinRaft:      {"raft", func(k *scenarioKey) *string { return &k.raft }},
}

const (
	joinTransport = iota
	joinLoop
	joinRaft
)

// joined puts scenarios that differ in nothing but what is joinable together, so
// that one table shows them beside each other. The others are as they were, but
// for being copies.
func (s *site) joined() []*scenario {
	var out []*scenario
	byKey := map[scenarioKey]*scenario{}
	for _, sc := range s.scenarios {
		k := sc.scenarioKey
		for _, s := range joinable {
			*s.of(&k) = ""
		}
		j := byKey[k]
		if j == nil {
			j = &scenario{site: s, scenarioKey: sc.scenarioKey}
			byKey[k] = j
			out = append(out, j)
		}
		for i, s := range joinable {
			if here := s.of(&j.scenarioKey); !j.joins[i] && *here != *s.of(&sc.scenarioKey) {
				*here, j.joins[i] = "", true
			}
		}
		j.rows = append(j.rows, sc.rows...)
	}
	return out
}

// several reports whether scenarios are joined here.
func (sc *scenario) several() bool { return slices.Contains(sc.joins[:], true) }

// tableRows are the rows in the order of a table: as ranked, and where a backend
// has several they follow its best one.
func (sc *scenario) tableRows() []*row {
	rows := sc.ranked()
	if !sc.several() {
		return rows
	}
	var out []*row
	taken := map[*row]bool{}
	for _, first := range rows {
		for _, rw := range rows {
			if !taken[rw] && rw.label == first.label && rw.durability == first.durability {
				taken[rw] = true
				out = append(out, rw)
			}
		}
	}
	return out
}

// nameHeads are the heads of what tells the rows of a table apart.
func (sc *scenario) nameHeads() []string {
	heads := []string{"backend"}
	for i, s := range joinable {
		if sc.joins[i] {
			heads = append(heads, s.head)
		}
	}
	return heads
}

// names are the cells below them.
func (sc *scenario) names(rw *row) []string {
	names := []string{rw.label}
	for i, s := range joinable {
		if sc.joins[i] {
			names = append(names, clean(*s.of(&rw.scenario.scenarioKey)))
		}
	}
	return names
}

// nameColumn joins the names of each row to one text, in columns of equal width,
// for a terminal. limit is the width of the first.
func (sc *scenario) nameColumn(rows []*row, limit int) tableColumn {
	lines := [][]string{sc.nameHeads()}
	for _, rw := range rows {
		names := sc.names(rw)
		names[0] = shorten(names[0], limit)
		lines = append(lines, names)
	}
	width := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, text := range l {
			width[i] = max(width[i], utf8.RuneCountInString(text))
		}
	}
	texts := make([]string, len(lines))
	for k, l := range lines {
		for i, text := range l {
			if i > 0 {
				texts[k] += "  "
			}
			texts[k] += text
			if i < len(l)-1 {
				texts[k] += strings.Repeat(" ", width[i]-utf8.RuneCountInString(text))
			}
		}
	}
	c := tableColumn{head: texts[0]}
	for _, text := range texts[1:] {
		c.cells = append(c.cells, tableCell{text: text})
	}
	c.measure()
	return c
}

// networked reports whether what the transport cost belongs into the table: where
// transports are compared, or the one there is does more than pass messages on.
func (sc *scenario) networked() bool {
	return sc.joins[joinTransport] || sc.transport != "" && sc.transport != "mem"
}

// faultGroups are the columns of a run with faults.
var faultGroups = []columnGroup{
	{"with faults", []*metric{metricStall, metricRecovery}, []string{"stall", "recovery"}, false},
	{"", []*metric{metricElections}, []string{"elections"}, false},
	{"", []*metric{metricErrors}, []string{"errors"}, false},
}

// networkGroups are the columns of the transport's cost.
var networkGroups = []columnGroup{
	{"CPU", []*metric{metricCPU}, []string{"/op"}, false},
	{"sent", []*metric{metricNetBytes}, []string{"/op"}, false},
	{"messages", []*metric{metricMessages}, []string{"/op"}, false},
	{"idle", []*metric{metricRTT50}, []string{"rtt"}, false},
}

// sideBySide is the figure and the table of scenarios that differ in what is
// joinable alone: where an operation spends its time, and what the transport costs.
func (b *builder) sideBySide(sc *scenario) blockView {
	rows := sc.tableRows()
	bars := chart.Bars{Parts: stageNames, Kind: chart.Duration}
	columns := sc.tableColumns(rows)
	t := &tableView{Caption: "Beside each other, medians over the runs", Head: sc.nameHeads()}
	for _, c := range columns {
		t.Head = append(t.Head, strings.TrimSpace(columnTitle(c)))
	}
	for i, rw := range rows {
		cells := sc.names(rw)
		for _, c := range columns {
			cells = append(cells, c.cells[i].text)
		}
		t.Rows = append(t.Rows, tableRow{b.number(rw), cells})
		means, sum := stageMeans(rw.headline()), 0.0
		for _, v := range means {
			sum += v
		}
		if sum > 0 && rw.durability != "none" { // whose times would not be seen beside the others
			bars.Rows = append(bars.Rows, chart.Bar{Name: strings.Join(sc.names(rw), " · "), Style: b.of(rw), Parts: means, Text: quantity.FormatDuration(sum)})
		}
	}
	finding := sc.cheapest(rows)
	fig := figureView{Finding: finding, Table: t, Note: "Mean service time by stage. In the table: bytes and messages between the nodes as the transport counts them, and the round trip of a heartbeat between two idle ends."}
	if len(bars.Rows) > 0 {
		bars.Label = finding
		fig.Drawings = drawn(bars)
	}
	return blockView{Scenario: "Side by side: " + sc.title(), Figures: []figureView{fig}}
}

// cheapest says in words what the transports cost the first backend of a table, in
// CPU time.
func (sc *scenario) cheapest(rows []*row) string {
	type cost struct {
		name string
		cpu  float64
	}
	var costs []cost
	for _, rw := range rows {
		if s := rw.of(metricCPU); rw.label == rows[0].label && s.N > 0 {
			costs = append(costs, cost{strings.Join(sc.names(rw)[1:], " "), s.Median})
		}
	}
	if len(costs) < 2 {
		return "What differs in transport or loop alone, side by side"
	}
	slices.SortStableFunc(costs, func(a, b cost) int { return cmp.Compare(a.cpu, b.cpu) })
	text := fmt.Sprintf("%s takes the least CPU with %s: %s an operation", rows[0].label, costs[0].name, quantity.FormatDuration(costs[0].cpu))
	for _, c := range costs[1:] {
		text += fmt.Sprintf("; %s× with %s", quantity.Significant(c.cpu/costs[0].cpu), c.name)
	}
	return text
}
