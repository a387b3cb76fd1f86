package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench/result"
)

func TestAge(t *testing.T) {
	for name, load := range map[string]Load{"closed": Closed(8), "open": Open(1000)} {
		spec := quick(t, raw.Backend)
		if name == "closed" {
			spec.Backends = append(spec.Backends, mem.Backend)
		}
		spec.Workload, spec.Load, spec.NoCalibrate = Workload{Kind: WorkloadAge}, load, true
		spec.BurstBytes, spec.Duration, spec.Cycles = 1, ageShare*100*time.Millisecond, 2*ageEnd
		for _, r := range mustRun(t, spec).Runs {
			if len(r.Cycles) != spec.Cycles || r.Verified == nil || !r.Verified.OK || r.Verified.Acked < int64(spec.Cycles-ageEnd)*ageBurstFewest {
				t.Errorf("%s, %s: %d cycles, verified %+v", name, r.Backend, len(r.Cycles), r.Verified)
			}
			saves := int64(0)
			for i, c := range r.Cycles {
				saves += c.Save.Count
				if c.Cycle != i+1 || c.Young != (i < ageEnd) || (c.Disk > 0) != (r.Backend == "raw") {
					t.Errorf("%s, %s: %+v", name, r.Backend, c)
				}
			}
			if r.Ops == 0 || saves == 0 || r.Save.Count != saves || r.Response.Encoded == "" || r.Throughput <= 0 {
				t.Errorf("%s, %s: %d operations, %d Saves, %d in the cycles", name, r.Backend, r.Ops, r.Save.Count, saves)
			}
			disk := slices.IndexFunc(r.Aging, func(c result.Comparison) bool { return c.Metric == "bytes.disk" })
			if r.Backend == "raw" && (disk < 0 || r.Aging[disk].N != ageEnd || r.Aging[disk].Lo <= 0) {
				t.Errorf("%s, %s: aging %+v", name, r.Backend, r.Aging)
			}
			if (r.Lag.Count > 0) != (name == "open") {
				t.Errorf("%s, %s: lag %+v", name, r.Backend, r.Lag)
			}
		}
	}
}

// aged makes the cycles of a run whose Save p99 grows by a share in all, under
// noise that is the same at either end.
func aged(growth, noise float64) *result.Run {
	run := &result.Run{Backend: "a", Params: map[string]string{"x": "y"}, Block: 1}
	for i := range ageCycles {
		v := float64(time.Millisecond) * (1 + growth*float64(i)/(ageCycles-1)) * (1 + noise*float64(i*7%5-2))
		run.Cycles = append(run.Cycles, result.Cycle{
			Cycle: i + 1, Ops: 1000, Disk: int64(1e6 * (1 + growth*float64(i)/(ageCycles-1))),
			Save: result.Latency{Count: 1000, P50: time.Duration(v / 2), P99: time.Duration(v)},
		})
	}
	return run
}

// TestAging: what grows by half is found, what stays is not, and the interval
// covers the truth.
func TestAging(t *testing.T) {
	for _, tc := range []struct {
		growth, noise, ratio float64
		verdict              string
	}{
		{0, 0.005, 1, "equivalent"},
		{0, 0.2, 1, "inconclusive"},
		{0.5, 0.01, 1.4, "slower"},
		{-0.5, 0.01, 0.6, "faster"},
	} {
		name := fmt.Sprintf("growth %v, noise %v", tc.growth, tc.noise)
		table := aging(aged(tc.growth, tc.noise))
		if len(table) != 3 {
			t.Fatalf("%s: %+v", name, table)
		}
		for _, c := range table {
			if c.Metric == "bytes.disk" {
				continue
			}
			if c.Baseline != "a[x=y]@first" || c.Backend != "a[x=y]@last" || c.Verdict != tc.verdict || c.Lo > tc.ratio || c.Hi < tc.ratio {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
	few := aged(0.5, 0)
	few.Cycles = few.Cycles[:2*ageEnd-1]
	if got := aging(few); got != nil {
		t.Errorf("too few cycles: %+v", got)
	}
}
