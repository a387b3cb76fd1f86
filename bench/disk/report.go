package disk

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/raftbench/raftbench/bench/result"
)

const (
	// healthyP99 is etcd's demand on a disk: the 99th percentile of the WAL's
	// fdatasync below 10 ms (etcd FAQ, "What does the etcd warning 'failed to
	// send out heartbeat on time' mean?").
	healthyP99 = 10 * time.Millisecond
	healthyURL = "https://etcd.io/docs/v3.6/faq/"
	// implausibleP50 is faster than a write can reach anything that keeps it: an
	// NVMe device with a protected cache answers in 10 µs and more, persistent
	// memory does not take file-system syncs through the block layer.
	implausibleP50 = 10 * time.Microsecond
	// steadyDrift is the drift of the floor beyond which a comparison of runs
	// before and after it is in doubt.
	steadyDrift = 0.10
)

// Floor is the median time of overwrite+fdatasync for a write of so many bytes.
// Rows of one size count as the median of their medians; sizes between two that
// were measured are interpolated, and larger ones continue the last slope. It is
// false where there is no such row, or only one size that does not fit.
func Floor(cals []result.Calibration, bytes int) (p50 time.Duration, ok bool) {
	type point struct{ size, p50 float64 }
	var points []point
	for size, rows := range floorRows(cals) {
		medians := make([]time.Duration, len(rows))
		for i, r := range rows {
			medians[i] = r.P50
		}
		points = append(points, point{float64(size), median(medians)})
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.size, b.size) })
	x := float64(bytes)
	switch {
	case len(points) == 0 || bytes <= 0:
		return 0, false
	case x <= points[0].size: // less than a block costs a block
		return time.Duration(points[0].p50), true
	case len(points) == 1:
		return 0, false
	}
	above := 1
	for above < len(points)-1 && points[above].size < x {
		above++
	}
	a, b := points[above-1], points[above]
	return time.Duration(a.p50 + (b.p50-a.p50)*(x-a.size)/(b.size-a.size)), true
}

func floorRows(cals []result.Calibration) map[int][]result.Calibration {
	rows := map[int][]result.Calibration{}
	for _, c := range cals {
		if c.Kind == Overwrite && c.Count > 0 {
			rows[c.Bytes] = append(rows[c.Bytes], c)
		}
	}
	return rows
}

func median(ds []time.Duration) float64 {
	slices.Sort(ds)
	n := len(ds)
	return float64(ds[(n-1)/2]+ds[n/2]) / 2
}

// Drift is how far the floor at its smallest size moved between calibrations:
// highest less lowest median, as a share of the middle one. It is false with
// fewer than two.
func Drift(cals []result.Calibration) (share float64, ok bool) {
	smallest, found := recipe(cals)
	if !found {
		return 0, false
	}
	var medians []time.Duration
	for _, r := range floorRows(cals)[smallest.Bytes] {
		medians = append(medians, r.P50)
	}
	if len(medians) < 2 {
		return 0, false
	}
	return float64(slices.Max(medians)-slices.Min(medians)) / median(medians), true
}

// Drifted reports whether a drift is beyond 10 %.
func Drifted(share float64) bool { return share > steadyDrift }

// Persists is false where the floor is so fast that nothing can have reached a
// medium: a write cache that ignores flushes, a memory disk, a host that lies.
func Persists(cals []result.Calibration) bool {
	r, ok := recipe(cals)
	return !ok || r.P50 >= implausibleP50
}

// recipe is the row that an operator would get from etcd's recipe: the floor at
// the smallest size, if that is at most a block.
func recipe(cals []result.Calibration) (result.Calibration, bool) {
	rows := floorRows(cals)
	smallest := 0
	for size := range rows {
		if size <= 4096 && (smallest == 0 || size < smallest) {
			smallest = size
		}
	}
	if smallest == 0 {
		return result.Calibration{}, false
	}
	return rows[smallest][0], true
}

// Verdict tells an operator, in a few sentences, whether this disk will carry a
// Raft log, by etcd's own measure.
func Verdict(cals []result.Calibration) string {
	r, ok := recipe(cals)
	if !ok {
		return "No verdict: overwrite+fdatasync was not measured at 4 KiB or less."
	}
	tail := r.P99
	if r.Sync != nil {
		tail = r.Sync.P99
	}
	var b strings.Builder
	advice := fmt.Sprintf("etcd asks for a 99th percentile of fdatasync below 10 ms (%s)", healthyURL)
	switch {
	case !Persists(cals):
		fmt.Fprintf(&b, "WARNING: this device probably does not persist. A synced write of %s takes %v, less than any medium needs; "+
			"a power cut may lose what was acknowledged. Figures from here say nothing about a real disk.", size(r.Bytes), round(r.P50))
		return b.String()
	case tail >= healthyP99:
		fmt.Fprintf(&b, "Too slow for a Raft log: the 99th percentile of fdatasync is %v; %s. "+
			"Expect missed heartbeats and elections when the disk is busy.", round(tail), advice)
	case tail >= healthyP99/2:
		fmt.Fprintf(&b, "Usable, with little to spare: the 99th percentile of fdatasync is %v; %s. "+
			"A neighbour on the same device may push it over.", round(tail), advice)
	default:
		fmt.Fprintf(&b, "Fit for a Raft log: the 99th percentile of fdatasync is %v; %s.", round(tail), advice)
	}
	if !supported(r.Count, 0.99) {
		fmt.Fprintf(&b, " That percentile rests on only %d writes.", r.Count)
	}
	fmt.Fprintf(&b, " One writer can make at most %.0f writes of %s a second durable here.", r.IOPS, size(r.Bytes))
	if Drifted(r.Drift) {
		fmt.Fprintf(&b, " The medians of the rounds differ by %.0f %%: something else uses this disk, or it throttles; measure again.", 100*r.Drift)
	}
	return b.String()
}

// WriteTable writes one line for each row, aligned for a terminal. Percentiles
// with fewer than ten writes beyond them are left out.
func WriteTable(w io.Writer, cals []result.Calibration) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "way\tbytes\twrites\tp50\tp99\tp99.9\tmax\tsync p50\tsync p99\tIOPS\tMB/s\tdrift\t")
	for _, c := range cals {
		tail := func(l *result.Latency, q float64, v time.Duration) string {
			if l == nil || !supported(l.Count, q) {
				return "–"
			}
			return round(v).String()
		}
		syncP50, syncP99 := "–", "–"
		if c.Sync != nil {
			syncP50, syncP99 = round(c.Sync.P50).String(), tail(c.Sync, 0.99, c.Sync.P99)
		}
		drift := "–"
		if c.Drift > 0 {
			drift = fmt.Sprintf("%.0f %%", 100*c.Drift)
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%v\t%s\t%s\t%v\t%s\t%s\t%.0f\t%.1f\t%s\t\n",
			c.Kind, size(c.Bytes), c.Count, round(c.P50), tail(&c.Latency, 0.99, c.P99), tail(&c.Latency, 0.999, c.P999),
			round(c.Max), syncP50, syncP99, c.IOPS, c.BytesPerSecond/1e6, drift)
	}
	return tw.Flush()
}

// supported: ten or more of count lie beyond quantile q.
func supported(count int64, q float64) bool { return float64(count)*(1-q) >= 10-1e-6 }

// size writes sizes below 4 KiB in full, because 2300 is not 2.2 KiB to fio.
func size(bytes int) string {
	if bytes < 4096 {
		return fmt.Sprintf("%d B", bytes)
	}
	return humanize.IBytes(uint64(bytes))
}

// round keeps three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 100*time.Millisecond:
		return d.Round(time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d >= 100*time.Microsecond:
		return d.Round(time.Microsecond)
	}
	return d.Round(100 * time.Nanosecond)
}
