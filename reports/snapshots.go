package reports

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// snapshots is the figures of snapshot installs and of restarts.
func (b *builder) snapshots(sc *scenario) blockView {
	var block blockView
	for _, build := range []func(*scenario) (figureView, bool){b.installs, b.installStages, b.opens, b.readies} {
		if f, ok := build(sc); ok {
			block.Figures = append(block.Figures, f)
		}
	}
	return block
}

// sized is a duration against a size.
type sized struct{ bytes, ns float64 }

// installs is install time against the size of the state, every install a
// point.
func (b *builder) installs(sc *scenario) (figureView, bool) {
	return b.sizes(sc, sizesOf{
		what: "installs a snapshot", caption: "Snapshot installs", workload: "snapshot", metric: metricInstall, note: "snapshot, from the follower being reachable again until its state is restored",
		get: func(r *result.Run) []sized {
			snaps := r.Snapshots
			if len(snaps) == 0 && r.Snapshot != nil {
				snaps = []result.Snapshot{*r.Snapshot}
			}
			var out []sized
			for _, s := range snaps {
				if s.Install > 0 && s.Bytes > 0 {
					out = append(out, sized{float64(s.Bytes), float64(s.Install)})
				}
			}
			return out
		},
	})
}

// opens is the time to open against the size of the log, readies the time until
// the node is back.
func (b *builder) opens(sc *scenario) (figureView, bool) {
	return b.sizes(sc, sizesOf{
		what: "opens a log", caption: "Time to open a log", workload: "restart", metric: metricOpen, note: "log, from Open until the entries are read" + killedText(sc), entries: restartEntries,
		get: func(r *result.Run) []sized {
			if r.Restart == nil || r.Restart.Open <= 0 || r.Restart.Bytes <= 0 {
				return nil
			}
			return []sized{{float64(r.Restart.Bytes), float64(r.Restart.Open)}}
		},
	})
}

func (b *builder) readies(sc *scenario) (figureView, bool) {
	return b.sizes(sc, sizesOf{
		what: "is ready after a log", caption: "Time until a node is ready", workload: "restart", metric: metricReady, entries: restartEntries,
		note: "log, from Open until the loop runs and the state machine has applied every committed entry" + killedText(sc),
		get: func(r *result.Run) []sized {
			if r.Restart == nil || r.Restart.Ready <= 0 || r.Restart.Bytes <= 0 {
				return nil
			}
			return []sized{{float64(r.Restart.Bytes), float64(r.Restart.Ready)}}
		},
	})
}

func restartEntries(r *result.Run) int64 { return r.Restart.Entries }

// killedText says how the process before a restart had ended.
func killedText(sc *scenario) string {
	switch {
	case sc.workload != "restart":
		return ""
	case sc.killed:
		return ", after kill -9"
	}
	return ", after a clean close"
}

// sizesOf describes a figure of durations against sizes.
type sizesOf struct {
	what, caption, note string
	workload            string // that asks for sizes
	get                 func(*result.Run) []sized
	metric              *metric                 // what one run comes to: a run is the unit of every median
	entries             func(*result.Run) int64 // of what was moved, where it has entries
}

func (b *builder) sizes(sc *scenario, of sizesOf) (figureView, bool) {
	p := chart.Panel{X: chart.Axis{Kind: chart.Bytes, Log: true, Title: "size"}, Y: chart.Axis{Kind: chart.Duration, Log: true, Title: "time"}}
	t := &tableView{Caption: of.caption, Head: []string{"backend", "size", "median", "shortest", "longest", "throughput", "n"}}
	if of.entries != nil {
		t.Head = append(t.Head, "entries")
	}
	var ends []largestSize
	var clouds []chart.Cloud
	n, lines := 0, false
	for _, rw := range sc.ranked() {
		s, bySize := of.collect(rw)
		if len(s.X) == 0 {
			continue
		}
		s.Style = b.of(rw)
		n += len(s.X)
		sizes := slices.Sorted(maps.Keys(bySize))
		for _, size := range sizes {
			g := bySize[size]
			shown, m := stats.Median(g.bytes), stats.Median(g.medians)
			if g.asked {
				shown = size
				s.LineX, s.LineY = append(s.LineX, stats.Median(g.bytes)), append(s.LineY, m)
			}
			cells := []string{rw.label, quantity.FormatBytes(shown), quantity.FormatDuration(m), quantity.FormatDuration(slices.Min(g.ns)),
				quantity.FormatDuration(slices.Max(g.ns)), quantity.FormatBytes(shown/m*1e9) + "/s", fmt.Sprint(len(g.ns))}
			if of.entries != nil {
				cells = append(cells, figureOrAbsent(stats.Median(g.entries), metricLogEntries))
			}
			t.Rows = append(t.Rows, tableRow{b.number(rw), cells})
			if size != sizes[len(sizes)-1] {
				continue
			}
			clouds = append(clouds, chart.Cloud{Name: rw.label, Style: s.Style, Values: s.Y, Text: quantity.FormatDuration(m)})
			if rw.control == "" {
				ends = append(ends, largestSize{rw.label, sized{shown, m}})
			}
		}
		lines = lines || len(s.LineX) > 1
		p.Series = append(p.Series, s)
	}
	if n == 0 {
		return figureView{}, false
	}
	finding := of.finding(ends)
	note := fmt.Sprintf("time for a %s; every one of %s drawn.", of.note, plural(n, "measurement"))
	if lo, hi := sizeRange(p.Series); hi < 1.5*lo {
		return figureView{Finding: finding, Table: t, Drawings: drawn(chart.Strip{Label: finding, Kind: chart.Duration, Rows: clouds}), // an axis for sizes would say nothing
			Note: "One size, about " + quantity.FormatBytes(hi) + ": " + note + " At the right the median over the runs."}, true
	}
	if lines {
		note += " Lines: medians over the runs."
	}
	linear := p
	linear.X.Log, linear.Y.Log = false, false
	return figureView{Finding: finding, Table: t, Drawings: bothScales(chart.Lines{Label: finding, Panel: p}, chart.Lines{Label: finding, Panel: linear}),
		Note: "Size against " + note}, true
}

// oneSize is what was measured of one backend at one size.
type oneSize struct {
	ns, bytes []float64 // of every measurement
	medians   []float64 // of every run, ns
	entries   []float64
	asked     bool // the size is what the workload was told, not what came of it
}

// collect is every measurement of a row as a point, and the same sorted by the size
// of the state that the run was told to have, 0 where it was told none: what was
// moved of one state differs by some bytes.
func (of sizesOf) collect(rw *row) (chart.Series, map[float64]oneSize) {
	s := chart.Series{Name: rw.label, NoLine: true}
	bySize := map[float64]oneSize{}
	for _, r := range rw.runs {
		for k, v := range of.get(r) {
			s.X, s.Y = append(s.X, v.bytes), append(s.Y, v.ns)
			state := float64(r.StateBytes)
			g := bySize[state]
			g.asked = r.Workload == of.workload && state > 0
			g.ns, g.bytes = append(g.ns, v.ns), append(g.bytes, v.bytes)
			if m, ok := of.metric.get(r); ok && k == 0 {
				g.medians = append(g.medians, m)
			}
			if of.entries != nil {
				g.entries = append(g.entries, float64(of.entries(r)))
			}
			bySize[state] = g
		}
	}
	return s, bySize
}

// largestSize is the median of one backend at its largest size.
type largestSize struct {
	label string
	at    sized
}

// finding compares the soonest and the slowest engine at the largest size.
func (of sizesOf) finding(ends []largestSize) string {
	slices.SortStableFunc(ends, func(a, b largestSize) int { return cmp.Compare(a.at.ns, b.at.ns) })
	switch len(ends) {
	case 0:
		return of.caption + ", against size"
	case 1:
		return fmt.Sprintf("%s %s of %s in %s", ends[0].label, of.what, quantity.FormatBytes(ends[0].at.bytes), quantity.FormatDuration(ends[0].at.ns))
	}
	first, last := ends[0], ends[len(ends)-1]
	size := ""
	if a, b := first.at.bytes, last.at.bytes; max(a, b) > 1.1*min(a, b) {
		size = "one of " + quantity.FormatBytes(b) + " "
	}
	return fmt.Sprintf("%s %s of %s in %s, %s %sin %s", first.label, of.what, quantity.FormatBytes(first.at.bytes),
		quantity.FormatDuration(first.at.ns), last.label, size, quantity.FormatDuration(last.at.ns))
}

// sizeRange is the smallest and the largest size of all points.
func sizeRange(series []chart.Series) (lo, hi float64) {
	var all []float64
	for _, s := range series {
		all = append(all, s.X...)
	}
	return quantity.Extent(all)
}

// installStages is the stages of the median install at the largest size.
func (b *builder) installStages(sc *scenario) (figureView, bool) {
	bars := chart.Bars{Kind: chart.Duration}
	t := &tableView{Caption: "Stages of an install, medians at the largest size", Head: []string{"backend", "size"}}
	for _, st := range snapshotStages {
		bars.Parts = append(bars.Parts, st.name)
		t.Head = append(t.Head, st.name)
	}
	t.Head = append(t.Head, "whole install", "response p99 meanwhile", "state equal")
	finding, longest := "The stages of a snapshot install", 0.0
	for _, rw := range sc.ranked() {
		runs := largest(rw.runs, metricInstall)
		if len(runs) == 0 {
			continue
		}
		snap := *middle(runs, func(r *result.Run) float64 { return float64(r.Snapshot.Install) }).Snapshot
		bar := chart.Bar{Name: rw.label, Style: b.of(rw)}
		cells := []string{rw.label, quantity.FormatBytes(float64(max(snap.Bytes, 0)))}
		sum := 0.0
		for _, st := range snapshotStages {
			v := float64(max(st.get(snap), 0))
			bar.Parts = append(bar.Parts, v)
			sum += v
			cells = append(cells, durationOrAbsent(v))
		}
		cells = append(cells, durationOrAbsent(float64(snap.Install)), durationOrAbsent(float64(snap.ForegroundP99)), hashText(snap.HashOK))
		t.Rows = append(t.Rows, tableRow{b.number(rw), cells})
		if sum > 0 {
			bar.Text = quantity.FormatDuration(sum)
			bars.Rows = append(bars.Rows, bar)
		}
		if sum > longest && rw.control == "" {
			k := slices.Index(bar.Parts, slices.Max(bar.Parts))
			longest, finding = sum, fmt.Sprintf("The stages of a snapshot take longest with %s: %s in sum, of which “%s” is %s", rw.label,
				quantity.FormatDuration(sum), bars.Parts[k], quantity.FormatDuration(bar.Parts[k]))
		}
	}
	if len(bars.Rows) == 0 {
		return figureView{}, false
	}
	bars.Label = finding
	return figureView{Finding: finding, Drawings: drawn(bars), Table: t,
		Note: "Stages of the median install at the largest size. Create: state to bytes, on the leader. Transfer: between the nodes. Save: in the follower’s store. Restore: bytes to state. " +
			"Release: the follower’s store drops the log that the snapshot replaces; the install does not wait for it, the follower’s loop does. " +
			"Stages may overlap or wait for each other, so that they need not add up to the whole install. " +
			"Of a streamed snapshot create and transfer include the writing that goes on meanwhile; save is what is left of it after the last byte."}, true
}

// figureOrAbsent renders a figure in the unit of its metric.
func figureOrAbsent(v float64, m *metric) string {
	if v <= 0 || math.IsNaN(v) {
		return quantity.Absent
	}
	return quantity.Format(v, m.unit)
}

func durationOrAbsent(v float64) string {
	if v <= 0 {
		return quantity.Absent
	}
	return quantity.FormatDuration(v)
}

func hashText(ok *bool) string {
	switch {
	case ok == nil:
		return quantity.Absent
	case *ok:
		return "yes"
	}
	return "NO"
}
