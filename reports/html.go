package reports

import (
	_ "embed"
	"html/template"
	"io"

	"github.com/raftbench/raftbench/bench/result"
)

//go:embed report.gohtml
var pageSource string

var page = template.Must(template.New("report").Parse(pageSource))

// HTML writes one self-contained page about results; those of one machine and
// build are shown together, others apart.
func HTML(w io.Writer, rs ...*result.Result) error {
	return page.Execute(w, newPageView(rs))
}

type pageView struct{ Sites []siteView }

type siteView struct {
	Machine   string
	Command   string
	Judgement Judgement
	Scenarios []scenarioView
}

type scenarioView struct {
	Title   string
	Columns []string
	Rows    []rowView
}

type rowView struct {
	Label string
	Cells []string
}

func newPageView(rs []*result.Result) pageView {
	var v pageView
	for _, g := range Merge(rs) {
		s := newSite(g.Results)
		sv := siteView{Machine: machineText(s.env), Command: commandText(g.Results[0].Command), Judgement: s.headline().judge()}
		for _, sc := range s.scenarios {
			rows := sc.ranked()
			columns := sc.tableColumns(rows)
			scv := scenarioView{Title: sc.title()}
			for _, c := range columns {
				scv.Columns = append(scv.Columns, columnTitle(c))
			}
			for i, rw := range rows {
				line := rowView{Label: rw.label}
				for _, c := range columns {
					line.Cells = append(line.Cells, c.cells[i].text)
				}
				scv.Rows = append(scv.Rows, line)
			}
			sv.Scenarios = append(sv.Scenarios, scv)
		}
		v.Sites = append(v.Sites, sv)
	}
	return v
}
