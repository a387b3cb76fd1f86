package reports

import (
	"strings"
	"unicode/utf8"
)

// joined puts scenarios that differ in nothing but transport or loop together, so
// that one table shows them beside each other. The others are as they were, but
// for being copies.
func (s *site) joined() []*scenario {
	var out []*scenario
	byKey := map[scenarioKey]*scenario{}
	for _, sc := range s.scenarios {
		k := sc.scenarioKey
		k.transport, k.loop = "", ""
		j := byKey[k]
		if j == nil {
			j = &scenario{site: s, scenarioKey: sc.scenarioKey}
			byKey[k] = j
			out = append(out, j)
		}
		if !j.transports && j.transport != sc.transport {
			j.transport, j.transports = "", true
		}
		if !j.loops && j.loop != sc.loop {
			j.loop, j.loops = "", true
		}
		j.rows = append(j.rows, sc.rows...)
	}
	return out
}

// tableRows are the rows in the order of a table: as ranked, and where a backend
// has several they follow its best one.
func (sc *scenario) tableRows() []*row {
	rows := sc.ranked()
	if !sc.transports && !sc.loops {
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
	if sc.transports {
		heads = append(heads, "transport")
	}
	if sc.loops {
		heads = append(heads, "loop")
	}
	return heads
}

// names are the cells below them.
func (sc *scenario) names(rw *row) []string {
	names := []string{rw.label}
	if sc.transports {
		names = append(names, clean(rw.scenario.transport))
	}
	if sc.loops {
		names = append(names, clean(rw.scenario.loop))
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
	return sc.transports || sc.transport != "" && sc.transport != "mem"
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
