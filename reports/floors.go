package reports

import (
	"fmt"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// saveFloor is what the Saves of a scenario are set against: how much one holds, in
// bytes, and how long a synced raw write of as much takes, in nanoseconds; both the
// lowest and the highest median of a backend.
type saveFloor struct{ bytesLo, bytesHi, lo, hi float64 }

// saveFloor is false where no Save was measured against the floor.
func (sc *scenario) saveFloor() (saveFloor, bool) {
	var sizes, floors []float64
	for _, rw := range sc.rows {
		var size, floor []float64
		for _, r := range rw.headline() {
			if ns := floorOf(r); ns > 0 && r.SaveBytes > 0 {
				size, floor = append(size, r.SaveBytes), append(floor, ns)
			}
		}
		if len(size) > 0 {
			sizes, floors = append(sizes, stats.Median(size)), append(floors, stats.Median(floor))
		}
	}
	if len(sizes) == 0 {
		return saveFloor{}, false
	}
	return saveFloor{slices.Min(sizes), slices.Max(sizes), slices.Min(floors), slices.Max(floors)}, true
}

// floorOf is the raw write that a run's Save was divided by: of the same size, by the
// calibrations around the run's block. 0 where there was none.
func floorOf(r *result.Run) float64 {
	m, ok := metricFloor.get(r)
	save, saved := metricSave50.get(r)
	if !ok || !saved || m == 0 {
		return 0
	}
	return save / m
}

// oneSize reports whether all backends saved about as much at a time.
func (f saveFloor) oneSize() bool { return f.bytesHi < 1.25*f.bytesLo }

// text is what a multiple of the floor is a multiple of, as a sentence that a list
// of multiples follows.
func (f saveFloor) text() string {
	if f.oneSize() {
		return fmt.Sprintf("A Save holds %s here; a synced raw write of as much takes %s on this disk. Median Save as a multiple of that",
			quantity.FormatBytes(f.bytesHi), quantity.FormatDuration((f.lo+f.hi)/2))
	}
	takes, most := quantity.FormatDuration(f.lo), quantity.FormatDuration(f.hi)
	if most != takes {
		takes += " to " + most
	}
	return fmt.Sprintf("A Save holds %s to %s here; a synced raw write of as much takes %s on this disk. Median Save as a multiple of a raw write of its own size",
		quantity.FormatBytes(f.bytesLo), quantity.FormatBytes(f.bytesHi), takes)
}

// reference is the raw write that distributions of Save and fsync are drawn against,
// with its name: of the size of a Save, or of the smallest one where they differ or
// no Save was measured against the floor. 0 where the disk was not measured.
func (sc *scenario) reference() (ns float64, name string) {
	var bytes float64
	if f, ok := sc.saveFloor(); ok && f.oneSize() {
		ns, bytes = (f.lo+f.hi)/2, f.bytesHi
	} else if rows := sc.site.floorRows(); len(rows) > 0 {
		ns, _ = sc.site.floor()
		bytes = float64(rows[0].Bytes)
	}
	return ns, fmt.Sprintf("raw write of %s, p50 %s", quantity.FormatBytes(bytes), quantity.FormatDuration(ns))
}
