package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/bench/result"
)

// TestLivelock: a leader that makes a snapshot every few entries, and keeps none
// before it, leaves a follower with a large state no chance; with the default
// interval it has one.
func TestLivelock(t *testing.T) {
	for name, tc := range map[string]struct {
		entries, catchUp uint64
		want             bool
	}{
		"every 20 entries": {20, 1, true},
		"default":          {0, 0, false},
	} {
		spec := quick(t, mem.Backend)
		spec.Workload, spec.StateSizes, spec.NoCalibrate = Workload{Kind: WorkloadSnapshot}, []int64{32 << 20}, true
		spec.SnapshotEntries, spec.CatchUpEntries = tc.entries, tc.catchUp
		run := mustRun(t, spec).Runs[0]
		if got := slices.Contains(run.Flags, "snapshot_livelock"); got != tc.want {
			t.Errorf("%s: flags %v, snapshots %+v", name, run.Flags, run.Snapshots)
		}
		for _, s := range run.Snapshots {
			if s.Restores < 1 || s.ForegroundOps <= 0 || s.Interval <= 0 {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
}

// TestLivelockArithmetic: 100 entries between snapshots at 1000 entries a second
// leave 100 ms.
func TestLivelockArithmetic(t *testing.T) {
	c := &cluster{}
	c.one.SnapshotEntries = 100
	for _, tc := range []struct {
		run  result.Run
		want bool
	}{
		{result.Run{Snapshots: []result.Snapshot{{Install: 99 * time.Millisecond, ForegroundOps: 1000, Restores: 1}}}, false},
		{result.Run{Snapshots: []result.Snapshot{{Install: 101 * time.Millisecond, ForegroundOps: 1000, Restores: 1}}}, true},
		{result.Run{Snapshots: []result.Snapshot{{Install: 99 * time.Millisecond, ForegroundOps: 1000, Restores: 2}}}, true},
		{result.Run{Snapshots: []result.Snapshot{{Install: 60 * time.Millisecond, ForegroundOps: 1000}}, Throughput: 2000}, true},
		{result.Run{Snapshots: []result.Snapshot{{Install: time.Hour}}}, false}, // no rate is known
		{result.Run{}, false},
	} {
		if got := c.livelocked(&tc.run); got != tc.want {
			t.Errorf("%+v: %v", tc.run.Snapshots, got)
		}
	}
}
