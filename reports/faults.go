package reports

import (
	"fmt"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// faults is what was done to the cluster on purpose and how it got over it, event
// by event, of the run of each backend that the figure over time shows.
func (b *builder) faults(sc *scenario) (figureView, bool) {
	if sc.faults == "" {
		return figureView{}, false
	}
	t := &tableView{Caption: "Events of the timeline", Head: []string{"backend", "at", "event", "leader then", "longest stall until the next", "back at 90 % of the rate after"}}
	finding := ""
	for _, rw := range sc.ranked() {
		run, ok := typical(rw.headline())
		if !ok || run.Faults == nil {
			continue
		}
		for _, e := range run.Faults.Events {
			leader := quantity.Absent
			if e.Node > 0 {
				leader = fmt.Sprintf("node %d", e.Node)
			}
			t.Rows = append(t.Rows, tableRow{b.number(rw), []string{rw.label, quantity.FormatDuration(float64(e.T)), clean(e.Text), leader,
				durationOrAbsent(float64(e.Stall)), recoveryText(e)}})
		}
		if finding == "" && run.Faults.Stall > 0 {
			finding = fmt.Sprintf("%s stands still for %s at most", rw.label, quantity.FormatDuration(float64(run.Faults.Stall)))
			if r := run.Faults.Recovery; r != nil {
				finding += fmt.Sprintf("; where its rate came back before the next event, that took %s at most", quantity.FormatDuration(float64(*r)))
			}
		}
	}
	if len(t.Rows) == 0 {
		return figureView{}, false
	}
	if finding == "" {
		finding = "Faults, and how the cluster got over them"
	}
	return figureView{Finding: finding, Table: t,
		Note: "Timeline: " + clean(sc.faults) + ". Its own times count from the end of the warm-up, those of the table and of the figure above, where the events are marks, from the start of the load. Stall: longest time without an operation."}, true
}

// recoveryText is how long an event was felt.
func recoveryText(e result.FaultEvent) string {
	switch {
	case e.Recovery == nil:
		return "not before the next event"
	case *e.Recovery == 0:
		return "at once"
	}
	return quantity.FormatDuration(float64(*e.Recovery))
}
