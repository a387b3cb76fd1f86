package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

const (
	// installClients is the light load that runs during an install: it makes the
	// log move past the follower that is cut off, and shows what an install costs
	// those who go on working.
	installClients = 4
	// installEntries is how far the log moves while the follower is cut off.
	installEntries = 200
	// installDeadline bounds one install. A state that takes longer to transfer
	// and restore than this would never keep up with its log either.
	installDeadline = 5 * time.Minute
	// Repeats of an install within a run, by the size of the state.
	installRepeats     = 3
	installRepeatsUpTo = 256 << 20
)

// installs cuts a follower off, compacts the log past it, lets it come back, and
// times the snapshot that it must install, stage by stage.
func (c *cluster) installs(ctx context.Context, run *result.Run, report func(Progress)) error {
	kind := c.one.Workload.Kind
	if c.one.Nodes < 3 || c.one.NoSnapshots || kind != WorkloadPropose && kind != WorkloadSnapshot {
		return nil
	}
	repeats := 1
	if c.one.Workload.Kind == WorkloadSnapshot && c.one.StateSize <= installRepeatsUpTo {
		repeats = installRepeats
	}
	install := func() error {
		for i := range repeats {
			report(Progress{Phase: "snapshot"})
			snap, err := c.install(ctx, 1+i)
			if err != nil {
				return fmt.Errorf("snapshot install: %w", err)
			}
			run.Snapshots = append(run.Snapshots, snap)
		}
		return nil
	}
	var err error
	if kind == WorkloadSnapshot {
		err = c.one.profiled(install)
	} else { // the load is what is profiled
		err = install()
	}
	if err != nil {
		return err
	}
	if c.livelocked(run) {
		run.Flags = append(run.Flags, "snapshot_livelock")
	}
	byInstall := slices.Clone(run.Snapshots)
	slices.SortFunc(byInstall, func(a, b result.Snapshot) int { return int(a.Install - b.Install) })
	run.Snapshot = &byInstall[len(byInstall)/2]
	return nil
}

// install times one. nth tells the operations of this install from all others.
func (c *cluster) install(ctx context.Context, nth int) (result.Snapshot, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, installDeadline,
		fmt.Errorf("the follower had no snapshot after %v", installDeadline))
	defer cancel()
	leader := c.o.proposer.Load()
	follower := c.others(leader)[0]
	c.net.cut.Store(follower.id)
	defer c.net.cut.Store(0)

	g, err := c.generator(Closed(installClients), nth*8, 0) // the log has to grow
	if err != nil {
		return result.Snapshot{}, err
	}
	g.Start(ctx, c.o.base)
	stopped := false
	stop := func() error {
		stopped = true
		return g.Stop()
	}
	defer func() {
		if !stopped {
			_ = stop() // an error before is the one to tell
		}
	}()
	snap, err := c.cutAndHeal(ctx, leader, follower, g.Measure)
	if err != nil {
		return snap, err
	}
	g.EndMeasure()
	if err := c.wait(ctx, func() bool { return g.Pending() == 0 }); err != nil {
		return snap, err
	}
	if err := stop(); err != nil {
		return snap, fmt.Errorf("load: %w", err)
	}
	var foreground result.Run
	g.Fill(&foreground)
	snap.ForegroundP99, snap.ForegroundOps = foreground.Response.P99, foreground.Throughput
	return snap, nil
}

// cutAndHeal compacts the log past the follower, which is cut off, and times the
// install from the moment that it can be reached again, which is told to begun.
func (c *cluster) cutAndHeal(ctx context.Context, leader, follower *member, begun func()) (result.Snapshot, error) {
	goal := leader.node.Status().Applied + installEntries
	if err := c.wait(ctx, func() bool { return leader.node.Status().Applied >= goal }); err != nil {
		return result.Snapshot{}, err
	}
	var snapErr error
	err := c.wait(ctx, func() bool {
		snapErr = leader.node.Snapshot(ctx, 0)
		return !errors.Is(snapErr, node.ErrSnapshotBusy)
	})
	if err = errors.Join(err, snapErr); err != nil {
		return result.Snapshot{}, fmt.Errorf("compact the log past node %d: %w", follower.id, err)
	}
	snap := result.Snapshot{Mode: string(follower.node.Snapshots()), Create: time.Duration(leader.state.create.Load())}
	before, has := follower.state.restored.Load(), follower.node.Status().Applied
	start := c.o.now()
	begun()
	c.net.cut.Store(0)
	err = c.wait(ctx, func() bool {
		return follower.state.restored.Load() != before && follower.node.Status().Applied >= goal
	})
	if err != nil {
		return snap, err
	}
	snap.Install = time.Duration(follower.state.restored.Load()) - start
	snap.Bytes = follower.state.restoredBytes.Load()
	snap.Transfer = time.Duration(c.net.snapGot.Load() - c.net.snapSent.Load())
	snap.Save = time.Duration(follower.storage.snapSave.Load())
	snap.Restore = time.Duration(follower.state.restore.Load())
	if snap.Restores, err = c.catchUp(ctx, leader, follower); err != nil {
		return snap, err
	}
	// The state machine has restored while the log below was dropped.
	err = c.wait(ctx, func() (done bool) {
		snap.Release, done = follower.storage.released(has)
		return done
	})
	if err != nil {
		return snap, fmt.Errorf("drop the log of node %d below the snapshot: %w", follower.id, err)
	}
	return snap, nil
}

// checkHashes compares the whole state of every node, once all have applied the
// same entries, and says of the installs whether the state that they restored is
// the leader's.
func (c *cluster) checkHashes(run *result.Run, behind []uint64) {
	if len(run.Snapshots) == 0 || len(behind) > 0 {
		return
	}
	want := c.o.proposer.Load().state.Hash()
	same := true
	for _, m := range c.members {
		same = same && m.state.Hash() == want
	}
	for i := range run.Snapshots {
		run.Snapshots[i].HashOK = &same
	}
	run.Snapshot.HashOK = &same
}
