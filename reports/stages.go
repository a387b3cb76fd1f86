package reports

import (
	"fmt"
	"time"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// stageNames are the stages of an operation, in the order in which they happen.
var stageNames = []string{"queue", "Save", "replicate", "apply"}

// stageMeans are the means over the runs of a row; nil where none has stages.
func stageMeans(runs []*result.Run) []float64 {
	var queue, save, replicate, apply []float64
	for _, r := range runs {
		if r.Stages == nil {
			continue
		}
		queue, save = append(queue, float64(r.Stages.Queue)), append(save, float64(r.Stages.Save))
		replicate, apply = append(replicate, float64(r.Stages.Replicate)), append(apply, float64(r.Stages.Apply))
	}
	if len(queue) == 0 {
		return nil
	}
	out := []float64{stats.Median(queue), stats.Median(save), stats.Median(replicate), stats.Median(apply)}
	for i, v := range out {
		if !quantity.Usable(v) {
			out[i] = 0
		}
	}
	return out
}

// stages is the figure of where an operation spends its time.
func (b *builder) stages(sc *scenario) blockView {
	bars := chart.Bars{Parts: stageNames, Kind: chart.Duration}
	t := &tableView{Caption: "Mean time per stage", Head: []string{"backend", "queue", "Save", "replicate", "apply", "together", "Save’s share"}}
	finding := ""
	for _, rw := range sc.ranked() {
		means := stageMeans(rw.headline())
		sum := 0.0
		for _, v := range means {
			sum += v
		}
		if sum == 0 {
			continue
		}
		bars.Rows = append(bars.Rows, chart.Bar{Name: rw.label, Style: b.of(rw), Parts: means, Text: quantity.FormatDuration(sum)})
		cells := []string{rw.label}
		for _, v := range means {
			cells = append(cells, quantity.FormatDuration(v))
		}
		t.Rows = append(t.Rows, tableRow{b.number(rw), append(cells, quantity.FormatDuration(sum), share(means[1], sum))})
		if finding == "" && rw.control == "" {
			k := 0
			for i, v := range means {
				if v > means[k] {
					k = i
				}
			}
			finding = fmt.Sprintf("%s spends most of an operation’s %s in “%s”: %s", rw.label, quantity.FormatDuration(sum), stageNames[k], share(means[k], sum))
			if k != 1 {
				finding += fmt.Sprintf("; Save takes %s", share(means[1], sum))
			}
		}
	}
	if len(bars.Rows) == 0 {
		return blockView{}
	}
	if finding == "" {
		finding = "Mean time of an operation, by stage"
	}
	bars.Label = finding
	return blockView{Figures: []figureView{{Finding: finding, Drawings: drawn(bars), Table: t,
		Note: fmt.Sprintf("Mean service time by stage, medians over %s. Queue: sent until its Save begins. Save: on the leader, as far as it was waited for. "+
			"Replicate: until the entry is handed to the apply side. Apply: until the proposer’s node has applied it.", plural(sc.repeats(), "run"))}}}
}

// share is a part of a whole in per cent.
func share(part, whole float64) string {
	if whole <= 0 {
		return quantity.Absent
	}
	return fmt.Sprintf("%.0f %%", 100*part/whole)
}

// snapshotStages are the stages of an install.
var snapshotStages = []struct {
	name string
	get  func(result.Snapshot) time.Duration
}{
	{"create", func(s result.Snapshot) time.Duration { return s.Create }},
	{"transfer", func(s result.Snapshot) time.Duration { return s.Transfer }},
	{"save", func(s result.Snapshot) time.Duration { return s.Save }},
	{"restore", func(s result.Snapshot) time.Duration { return s.Restore }},
	{"release", func(s result.Snapshot) time.Duration { return s.Release }},
}
