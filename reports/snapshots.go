package reports

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// snapshots is the figures of snapshot installs and of restarts.
func (b *builder) snapshots(sc *scenario) blockView {
	var block blockView
	for _, build := range []func(*scenario) (figureView, bool){b.installs, b.installStages, b.restarts} {
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
		what: "installs a snapshot", caption: "Snapshot installs", note: "snapshot, from the follower being reachable again until its state is restored",
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

// restarts is the time to open against the size of the log.
func (b *builder) restarts(sc *scenario) (figureView, bool) {
	return b.sizes(sc, sizesOf{
		what: "opens a log", caption: "Restarts", note: "log, from Open until the entries are read",
		get: func(r *result.Run) []sized {
			if r.Restart == nil || r.Restart.Open <= 0 || r.Restart.Bytes <= 0 {
				return nil
			}
			return []sized{{float64(r.Restart.Bytes), float64(r.Restart.Open)}}
		},
	})
}

// sizesOf describes a figure of durations against sizes.
type sizesOf struct {
	what, caption, note string
	get                 func(*result.Run) []sized
}

func (b *builder) sizes(sc *scenario, of sizesOf) (figureView, bool) {
	p := chart.Panel{X: chart.Axis{Kind: chart.Bytes, Log: true, Title: "size"}, Y: chart.Axis{Kind: chart.Duration, Log: true, Title: "time"}}
	t := &tableView{Caption: of.caption, Head: []string{"backend", "size", "median", "shortest", "longest", "throughput", "n"}}
	type end struct {
		label string
		at    sized
	}
	var ends []end
	n := 0
	for _, rw := range sc.ranked() {
		s := chart.Series{Name: rw.label, Style: b.of(rw), NoLine: true}
		bySize := map[float64][]float64{}
		for _, r := range rw.runs {
			for _, v := range of.get(r) {
				s.X, s.Y = append(s.X, v.bytes), append(s.Y, v.ns)
				at := float64(cmp.Or(r.StateBytes, int64(v.bytes)))
				if r.StateBytes == 0 {
					at = 0 // sizes of one state differ by some bytes
				}
				bySize[at] = append(bySize[at], v.ns)
				n++
			}
		}
		if len(s.X) == 0 {
			continue
		}
		p.Series = append(p.Series, s)
		sizes := slices.Sorted(maps.Keys(bySize))
		for _, size := range sizes {
			shown := cmp.Or(size, stats.Median(s.X))
			m := stats.Median(bySize[size])
			t.Rows = append(t.Rows, tableRow{b.number(rw), []string{rw.label, quantity.FormatBytes(shown), quantity.FormatDuration(m),
				quantity.FormatDuration(slices.Min(bySize[size])), quantity.FormatDuration(slices.Max(bySize[size])),
				quantity.FormatBytes(shown/m*1e9) + "/s", fmt.Sprint(len(bySize[size]))}})
			if size == sizes[len(sizes)-1] && rw.control == "" {
				ends = append(ends, end{rw.label, sized{shown, m}})
			}
		}
	}
	if n == 0 {
		return figureView{}, false
	}
	slices.SortStableFunc(ends, func(a, b end) int { return cmp.Compare(a.at.ns, b.at.ns) })
	finding := of.caption + ", time against size"
	switch len(ends) {
	case 0:
	case 1:
		finding = fmt.Sprintf("%s %s of %s in %s", ends[0].label, of.what, quantity.FormatBytes(ends[0].at.bytes), quantity.FormatDuration(ends[0].at.ns))
	default:
		last := ends[len(ends)-1]
		size := ""
		if a, b := ends[0].at.bytes, last.at.bytes; max(a, b) > 1.1*min(a, b) {
			size = "one of " + quantity.FormatBytes(b) + " "
		}
		finding = fmt.Sprintf("%s %s of %s in %s, %s %sin %s", ends[0].label, of.what, quantity.FormatBytes(ends[0].at.bytes),
			quantity.FormatDuration(ends[0].at.ns), last.label, size, quantity.FormatDuration(last.at.ns))
	}
	note := fmt.Sprintf("time for a %s; every one of %s drawn.", of.note, plural(n, "measurement"))
	if lo, hi := sizeRange(p.Series); hi < 1.5*lo {
		return figureView{Finding: finding, Table: t, Drawings: drawn(strip(finding, p.Series)),
			Note: "One size, about " + quantity.FormatBytes(hi) + ": " + note}, true
	}
	linear := p
	linear.X.Log, linear.Y.Log = false, false
	return figureView{Finding: finding, Table: t, Drawings: bothScales(chart.Lines{Label: finding, Panel: p}, chart.Lines{Label: finding, Panel: linear}),
		Note: "Size against " + note}, true
}

// sizeRange is the smallest and the largest size of all points.
func sizeRange(series []chart.Series) (lo, hi float64) {
	var all []float64
	for _, s := range series {
		all = append(all, s.X...)
	}
	return quantity.Extent(all)
}

// strip shows the times of one size, where an axis for sizes would say nothing.
func strip(label string, series []chart.Series) chart.Strip {
	out := chart.Strip{Label: label, Kind: chart.Duration}
	for _, s := range series {
		out.Rows = append(out.Rows, chart.Cloud{Name: s.Name, Style: s.Style, Values: s.Y, Text: quantity.FormatDuration(stats.Median(s.Y))})
	}
	return out
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
			longest, finding = sum, fmt.Sprintf("%s takes longest over a snapshot: %s of %s go to “%s”", rw.label,
				quantity.FormatDuration(bar.Parts[k]), quantity.FormatDuration(sum), bars.Parts[k])
		}
	}
	if len(bars.Rows) == 0 {
		return figureView{}, false
	}
	bars.Label = finding
	return figureView{Finding: finding, Drawings: drawn(bars), Table: t,
		Note: "Stages of the median install at the largest size. Create: state to bytes, on the leader. Transfer: between the nodes. Save and release: in the follower’s store. Restore: bytes to state. " +
			"They may overlap with waiting in between, so that they need not add up to the whole install."}, true
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
