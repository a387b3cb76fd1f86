package bench

import (
	"context"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// A follower that takes longer to install a snapshot than the leader takes from
// one snapshot to the next never catches up: when it is done, the entries that
// follow are compacted away, and it needs the next snapshot (etcd#5317).

// catchUp waits until a follower that has just restored a snapshot holds all that
// the leader had applied by then. It returns how many snapshots that took: 1, or
// 2 where the leader had compacted its log past the first by the time that it was
// restored. It does not wait for a third: nothing says that there is a last.
func (c *cluster) catchUp(ctx context.Context, leader, follower *member) (restores int, err error) {
	first := follower.state.restored.Load()
	goal := leader.node.Status().Applied
	restores = 1
	err = c.wait(ctx, func() bool {
		if follower.state.restored.Load() != first {
			restores = 2
			return true
		}
		return follower.node.Status().Applied >= goal
	})
	return restores, err
}

// livelocked sets the interval between two snapshots of every install, at the
// highest rate that the run has seen, and reports whether an install is a
// livelock: it took a second snapshot, or longer than the interval.
func (c *cluster) livelocked(run *result.Run) bool {
	found := false
	for i := range run.Snapshots {
		s := &run.Snapshots[i]
		rate := max(s.ForegroundOps, run.Throughput)
		if rate > 0 {
			s.Interval = time.Duration(float64(c.one.SnapshotEntries) / rate * float64(time.Second))
		}
		found = found || s.Restores > 1 || s.Interval > 0 && s.Install > s.Interval
	}
	return found
}
