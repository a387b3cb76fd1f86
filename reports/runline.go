package reports

import (
	"fmt"
	"strings"
	"time"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// RunLine is a finished run in one line, as it is shown while a suite goes on.
// Figures that were not measured are left out.
func RunLine(r *result.Run) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s", clean(stats.Name(r)))
	if r.Error != "" {
		return b.String() + " failed: " + clean(r.Error)
	}
	if r.StateBytes > 0 {
		fmt.Fprintf(&b, " %9s state", quantity.FormatBytes(float64(r.StateBytes)))
	}
	if r.Throughput > 0 {
		b.WriteString(" " + RateLine(r.Throughput, r.Response.P99))
	}
	if r.Save.Count > 0 {
		b.WriteString("  save p50 " + quantity.FormatDuration(float64(r.Save.P50)))
	}
	if r.Snapshot != nil {
		b.WriteString("  install " + quantity.FormatDuration(float64(r.Snapshot.Install)))
	}
	if r.Restart != nil && r.Workload == "restart" {
		b.WriteString("  open " + quantity.FormatDuration(float64(r.Restart.Open)))
		if r.Restart.Ready > 0 {
			b.WriteString("  ready " + quantity.FormatDuration(float64(r.Restart.Ready)))
		}
		if r.Restart.Killed {
			b.WriteString(" after kill -9")
		}
	}
	if v := r.Verified; v != nil && !v.OK {
		fmt.Fprintf(&b, "  LOST %d, WRONG %d", v.Lost, v.Wrong)
	}
	if len(r.Flags) > 0 {
		b.WriteString("  (" + clean(strings.Join(r.Flags, ", ")) + ")")
	}
	return b.String()
}

// RateLine is a throughput with a response p99, aligned so that it can change in
// place.
func RateLine(ops float64, p99 time.Duration) string {
	line := fmt.Sprintf("%8s ops/s", quantity.FormatCount(ops))
	if p99 > 0 {
		line += fmt.Sprintf("  p99 %8s", quantity.FormatDuration(float64(p99)))
	}
	return line
}
